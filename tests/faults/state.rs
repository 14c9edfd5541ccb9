//! What a union shows: the whole tree, as a program could see it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use plyfs::overlay::{Flow, NodeId, Overlay};
use plyfs::sys::FileKind;

/// Everything that is told of one object.
pub type Record = BTreeMap<&'static str, String>;

/// A tree, path by path (the root is the empty path), and after it the objects that are held without a name, as
/// `@0` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub entries: BTreeMap<PathBuf, Record>,
    /// Inode numbers, which differ from run to run.
    pub numbers: BTreeMap<PathBuf, u64>,
}

/// Times from here on are those of the test, in seconds since 1970.
const NOT_LONG_AGO: i64 = 1_600_000_000;

impl State {
    /// What `overlay` shows now. References are given back, but for those that `keep` gets.
    pub fn of(overlay: &Overlay, held: &[NodeId], keep: Option<&mut Vec<NodeId>>) -> Self {
        let mut state = Self::default();
        let mut walk =
            Walk { overlay, state: &mut state, entered: Vec::new(), first: HashMap::new() };
        walk.object(NodeId::ROOT, PathBuf::new());
        let entered = walk.entered;
        for (index, node) in held.iter().enumerate() {
            state.entries.insert(PathBuf::from(format!("@{index}")), record(overlay, *node));
        }
        match keep {
            Some(keep) => keep.extend(entered),
            None => entered.into_iter().for_each(|node| overlay.forget(node, 1)),
        }
        state
    }

    /// The same without what is only held.
    pub fn named(&self) -> Self {
        let mut state = self.clone();
        state.entries.retain(|path, _| !path.to_str().unwrap().starts_with('@'));
        state
    }

    /// The same without some fields of the records that `which` says.
    pub fn without(&self, fields: &[&str], which: impl Fn(&Path, &Record) -> bool) -> Self {
        let mut state = self.clone();
        for (path, record) in &mut state.entries {
            if which(path, record) {
                record.retain(|field, _| !fields.contains(field));
            }
        }
        state
    }

    /// One line for each difference; empty if the trees are alike. Inode numbers are not compared.
    pub fn difference(&self, other: &Self) -> String {
        let mut lines = String::new();
        let nothing = Record::new();
        let mut paths: Vec<&Path> =
            self.entries.keys().chain(other.entries.keys()).map(PathBuf::as_path).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let one = self.entries.get(path).unwrap_or(&nothing);
            let two = other.entries.get(path).unwrap_or(&nothing);
            if one.is_empty() || two.is_empty() {
                writeln!(lines, "      {path:?}: {one:?} / {two:?}").unwrap();
                continue;
            }
            let mut keys: Vec<_> = one.keys().chain(two.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys.into_iter().filter(|key| one.get(*key) != two.get(*key)) {
                writeln!(lines, "      {path:?}: {key}: {:?} / {:?}", one.get(key), two.get(key))
                    .unwrap();
            }
        }
        lines
    }

    /// Objects whose inode number is another in `other`.
    pub fn renumbered(&self, other: &Self) -> Vec<&Path> {
        let both = self
            .numbers
            .iter()
            .filter_map(|(path, ino)| Some((path, ino, other.numbers.get(path)?)));
        both.filter(|(_, one, two)| one != two).map(|(path, ..)| path.as_path()).collect()
    }
}

struct Walk<'a> {
    overlay: &'a Overlay,
    state: &'a mut State,
    entered: Vec<NodeId>,
    /// The first path of each object that is no directory.
    first: HashMap<NodeId, PathBuf>,
}

impl Walk<'_> {
    fn object(&mut self, id: NodeId, path: PathBuf) {
        let mut record = record(self.overlay, id);
        let is_dir = record.get("kind").is_some_and(|kind| kind == "Directory");
        if !is_dir {
            let first = self.first.entry(id).or_insert_with(|| path.clone());
            record.insert("same as", first.display().to_string());
        }
        if let Ok(attr) = self.overlay.attr(id) {
            self.state.numbers.insert(path.clone(), attr.ino);
        }
        if is_dir {
            let listed = self.children(id, &path);
            record.insert("listed", listed);
        }
        self.state.entries.insert(path, record);
    }

    fn children(&mut self, id: NodeId, path: &Path) -> String {
        let mut names = Vec::new();
        let listed = self.overlay.read_dir(id, 0, |entry| {
            if entry.name != "." && entry.name != ".." {
                names.push((entry.name.to_owned(), entry.kind));
            }
            Flow::Continue
        });
        names.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, kind) in &names {
            let path = path.join(name);
            match self.overlay.lookup(id, name) {
                Ok(Some(entry)) => {
                    assert_eq!(entry.attr.kind(), *kind, "type of {path:?} when listed");
                    self.entered.push(entry.node);
                    self.object(entry.node, path);
                }
                other => {
                    let record = Record::from([("error", format!("listed, but {other:?}"))]);
                    self.state.entries.insert(path, record);
                }
            }
        }
        format!("{listed:?}")
    }
}

/// Everything about one object but its names.
fn record(overlay: &Overlay, id: NodeId) -> Record {
    let attr = match overlay.attr(id) {
        Ok(attr) => attr,
        Err(error) => return Record::from([("error", format!("{error:?}"))]),
    };
    let time = attr.mtime;
    let mut record = Record::from([
        ("kind", format!("{:?}", attr.kind())),
        ("mode", format!("{:o}", attr.mode & 0o7777)),
        ("owner", format!("{}:{}", attr.uid, attr.gid)),
        ("attributes", xattrs(overlay, id)),
        (
            "mtime",
            match time.sec {
                NOT_LONG_AGO.. => "now".into(),
                sec => format!("{sec}.{:09}", time.nsec),
            },
        ),
    ]);
    if attr.kind() != FileKind::Directory {
        record.insert("nlink", attr.nlink.to_string());
        record.insert("size", attr.size.to_string());
    }
    match attr.kind() {
        FileKind::Regular => {
            let mut content = vec![0; 8192];
            let read = overlay
                .read(id, 0, &mut content)
                .map(|length| content[..length].escape_ascii().to_string());
            record.insert("content", format!("{read:?}"));
        }
        FileKind::Symlink => drop(record.insert("target", format!("{:?}", overlay.read_link(id)))),
        FileKind::CharDevice | FileKind::BlockDevice => {
            record.insert("device", attr.rdev.to_string());
        }
        _ => {}
    }
    record
}

fn xattrs(overlay: &Overlay, id: NodeId) -> String {
    let mut shown = String::new();
    match overlay.list_xattr(id) {
        Ok(mut names) => {
            names.sort();
            for name in names {
                let value =
                    overlay.get_xattr(id, &name).map(|value| value.escape_ascii().to_string());
                write!(shown, "{}={value:?} ", name.display()).unwrap();
            }
        }
        Err(error) => write!(shown, "{error:?}").unwrap(),
    }
    shown
}
