//! What was promised: after a power cut the tree is one that there was, in which everything synced is as it was then
//! or as it was made later.
//!
//! Only the data of a file that was written and not synced since may be incomplete.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::story::{Step, Sync, Tree};
use crate::support::{Field, Snapshot};

/// What a directory's times and the link counts say is written down apart from the names.
const APART: [Field; 2] = [Field::Mtime, Field::Nlink];

/// What is known of an entry, as in a [`Snapshot`].
pub type Fields = BTreeMap<Field, String>;
/// Its extended attributes.
pub type Attributes = BTreeMap<String, String>;

/// A tree at one moment, with all its data.
pub struct Moment {
    tree: Snapshot,
    inodes: BTreeMap<PathBuf, String>,
    data: BTreeMap<PathBuf, Vec<u8>>,
}

/// All that happened to a tree: moment 0, and one after each step.
pub struct History {
    moments: Vec<Arc<Moment>>,
    changes: Vec<Written>,
    syncs: Vec<Synced>,
}

/// A change of the data of an inode by the step that led to `moment`.
#[derive(Clone)]
struct Written {
    moment: usize,
    inode: String,
    kept: usize,
}

/// What was synced by the step that led to `moment`.
#[derive(Clone)]
struct Synced {
    moment: usize,
    what: Sync,
    inode: Option<String>,
}

impl Moment {
    /// How the tree `root` is now.
    pub fn of(root: &Path) -> Self {
        let exact = Snapshot::exact(root);
        let (mut inodes, mut data) = (BTreeMap::new(), BTreeMap::new());
        for path in exact.paths() {
            let field = |field| exact.field(path.to_str().unwrap(), field);
            inodes.insert(path.to_owned(), field(Field::Inode).unwrap().to_owned());
            if field(Field::Content).is_some() {
                data.insert(path.to_owned(), fs::read(root.join(path)).unwrap());
            }
        }
        Self { tree: exact.without(&[Field::Ctime, Field::Inode]), inodes, data }
    }

    /// The tree of these entries: path, fields (the inode among them), attributes and data.
    pub fn from_records(records: Vec<(PathBuf, Fields, Attributes, Option<Vec<u8>>)>) -> Self {
        let (mut inodes, mut data) = (BTreeMap::new(), BTreeMap::new());
        for (path, fields, _, content) in &records {
            if path != Path::new("") {
                inodes.insert(path.clone(), fields[&Field::Inode].clone());
                data.extend(content.iter().map(|content| (path.clone(), content.clone())));
            }
        }
        let records = records.into_iter().map(|(path, fields, xattrs, _)| (path, fields, xattrs));
        let tree = Snapshot::from_records(records).without(&[Field::Inode]);
        Self { tree, inodes, data }
    }
}

impl History {
    /// Begins with the tree as it is, all of it durable.
    pub fn begin(tree: &impl Tree) -> Self {
        let moments = vec![Arc::new(tree.moment())];
        Self { moments, changes: Vec::new(), syncs: Vec::new() }
    }

    /// The history up to `moment`; the step that leads there has not returned yet.
    pub fn until(&self, moment: usize) -> Self {
        let before = |other: usize, last: usize| other <= last;
        Self {
            moments: self.moments.iter().take(moment + 1).cloned().collect(),
            changes: self.changes.iter().filter(|it| before(it.moment, moment)).cloned().collect(),
            syncs: self.syncs.iter().filter(|it| before(it.moment + 1, moment)).cloned().collect(),
        }
    }

    /// Takes a step in the tree.
    pub fn take(&mut self, step: &Step, tree: &impl Tree) {
        let change = step.change(tree);
        step.perform(tree);
        let sync = step.sync(tree);
        let now = tree.moment();
        let moment = self.moments.len();
        if let Some(change) = change {
            let inode = now.inodes[&change.file].clone();
            self.changes.push(Written { moment, inode, kept: change.kept });
        }
        if let Some(what) = sync {
            let inode = match &what {
                Sync::File(path) | Sync::FileData(path) => Some(now.inodes[path].clone()),
                Sync::Directory(_) | Sync::All => None,
            };
            self.syncs.push(Synced { moment, what, inode });
        }
        self.moments.push(Arc::new(now));
    }

    /// Every way in which `found` breaks the promise, one a line; empty if it keeps it.
    pub fn broken_promises(&self, found: &Moment) -> String {
        self.unlike_any_moment(found) + &self.broken_syncs(found)
    }

    fn broken_syncs(&self, found: &Moment) -> String {
        let mut broken = String::new();
        for synced in &self.syncs {
            let later = synced.moment..=self.moments.len() - 1;
            match &synced.what {
                Sync::File(path) => {
                    // A later fdatasync need not bring the time along.
                    let rewritten = |change: &Written| {
                        Some(&change.inode) == synced.inode.as_ref()
                            && change.moment > synced.moment
                    };
                    let rewritten = self.changes.iter().any(rewritten);
                    let free = if rewritten { &APART[..] } else { &[Field::Nlink] };
                    self.check_file(&mut broken, path, later, found, free);
                }
                Sync::FileData(path) => {
                    let free = [Field::Nlink, Field::Mtime, Field::Mode, Field::Uid, Field::Gid];
                    self.check_file(&mut broken, path, later, found, &free);
                }
                Sync::Directory(dir) => self.check_directory(&mut broken, dir, later, found),
                Sync::All => {
                    for path in self.paths(later.clone(), found) {
                        self.check_file(&mut broken, &path, later.clone(), found, &APART);
                    }
                }
            }
        }
        self.check_links(&mut broken, found);
        broken
    }

    /// Whether some change of this inode's data has not been synced.
    fn is_unsynced(&self, inode: &str) -> bool {
        let last = self.changes.iter().rfind(|change| change.inode == inode);
        last.is_some_and(|last| !self.syncs.iter().any(|sync| sync.covers(last)))
    }

    /// The whole tree must be as it was at some moment.
    fn unlike_any_moment(&self, found: &Moment) -> String {
        let mut nearest: Option<String> = None;
        for moment in self.moments.iter().rev() {
            let difference = self.difference(moment, found);
            if difference.is_empty() {
                return difference;
            }
            if nearest
                .as_ref()
                .is_none_or(|nearest| difference.lines().count() < nearest.lines().count())
            {
                nearest = Some(difference);
            }
        }
        format!(
            "unlike the tree at any moment; unlike the one that is most like it:\n{}",
            nearest.unwrap()
        )
    }

    fn difference(&self, moment: &Moment, found: &Moment) -> String {
        let [mut before, mut after] =
            [moment, found].map(|moment| moment.tree.clone().without(&APART));
        let mut damaged = String::new();
        for (path, inode) in moment.inodes.iter().filter(|(_, inode)| self.is_unsynced(inode)) {
            let path = path.to_str().unwrap();
            for tree in [&mut before, &mut after] {
                tree.forget(path, &[Field::Size, Field::Content]);
            }
            self.check_unsynced(&mut damaged, Path::new(path), inode, found);
        }
        before.difference(&after) + &damaged
    }

    /// Of a file with unsynced data: each byte must be one that was in its place at some time since the last sync,
    /// unless it was not there all the time.
    fn check_unsynced(&self, damaged: &mut String, path: &Path, inode: &str, found: &Moment) {
        let Some(data) = found.data.get(path) else { return };
        let unsynced = |change: &&Written| {
            change.inode == inode && !self.syncs.iter().any(|sync| sync.covers(change))
        };
        let changes: Vec<_> = self.changes.iter().filter(unsynced).collect();
        let kept = changes.iter().map(|change| change.kept).min().unwrap_or(0);
        let since = changes.iter().map(|change| change.moment).min().unwrap_or(0) - 1;
        let versions: Vec<&Vec<u8>> = self.moments[since..]
            .iter()
            .filter_map(|moment| {
                let (path, _) = moment.inodes.iter().find(|(_, other)| *other == inode)?;
                moment.data.get(path)
            })
            .collect();
        if data.len() < kept {
            writeln!(damaged, "{path:?}: {} bytes are left of {kept}", data.len()).unwrap();
        }
        for (at, byte) in data.iter().enumerate() {
            let known = versions.iter().any(|version| version.get(at) == Some(byte));
            if !known && (at < kept || *byte != 0) {
                writeln!(damaged, "{path:?}: byte {at} is {byte}, which it never was").unwrap();
            }
        }
    }

    /// What `path` is must be what it was at one of these moments, but for `free` fields.
    fn check_file(
        &self,
        broken: &mut String,
        path: &Path,
        moments: RangeInclusive<usize>,
        found: &Moment,
        free: &[Field],
    ) {
        let line = |moment: &Moment| {
            let mut tree = moment.tree.clone().without(free);
            if moment.inodes.get(path).is_some_and(|inode| self.is_unsynced(inode)) {
                tree.forget(path.to_str().unwrap(), &[Field::Size, Field::Content, Field::Mtime]);
            }
            tree.forget(path.to_str().unwrap(), &[Field::Links]);
            tree.line(path)
        };
        // What was synced and is being written again has the data checked elsewhere.
        let mut found_tree = Moment {
            tree: found.tree.clone(),
            inodes: self.moments[*moments.end()].inodes.clone(),
            data: BTreeMap::new(),
        };
        if !found.inodes.contains_key(path) {
            found_tree.inodes.remove(path);
        }
        let is = line(&found_tree);
        let was: BTreeSet<_> =
            self.moments[moments.clone()].iter().map(|moment| line(moment)).collect();
        if !was.contains(&is) {
            writeln!(
                broken,
                "{path:?}, synced before moment {}:\n  was {was:?}\n  is {is:?}",
                moments.start()
            )
            .unwrap();
        }
    }

    /// Every name in `dir` must be there, or not, as at one of these moments; and of the same kind.
    fn check_directory(
        &self,
        broken: &mut String,
        dir: &Path,
        moments: RangeInclusive<usize>,
        found: &Moment,
    ) {
        for path in self.paths(moments.clone(), found) {
            if path != dir && path.parent() != Some(dir) {
                continue;
            }
            let what = |moment: &Moment| {
                let field =
                    |field| moment.tree.field(path.to_str().unwrap(), field).map(str::to_owned);
                (field(Field::Kind), field(Field::Target))
            };
            let is = what(found);
            let was: BTreeSet<_> =
                self.moments[moments.clone()].iter().map(|moment| what(moment)).collect();
            if !was.contains(&is) {
                writeln!(
                    broken,
                    "{path:?}, whose directory was synced before moment {}: was {was:?}, is {is:?}",
                    moments.start()
                )
                .unwrap();
            }
        }
    }

    fn paths(&self, moments: RangeInclusive<usize>, found: &Moment) -> BTreeSet<PathBuf> {
        let trees = self.moments[moments].iter().map(Arc::as_ref).chain([found]);
        trees.flat_map(|moment| moment.tree.paths()).map(Path::to_owned).collect()
    }

    /// A link count may be too high, for it is written down apart from the names; were it too low, a file would be given
    /// up while it still has a name.
    fn check_links(&self, broken: &mut String, found: &Moment) {
        for (path, inode) in &found.inodes {
            let Some(count) = found.tree.field(path.to_str().unwrap(), Field::Nlink) else {
                continue;
            };
            let names = found.inodes.values().filter(|other| *other == inode).count();
            if count.parse::<usize>().unwrap() < names {
                writeln!(broken, "{path:?} has {names} names and a link count of {count}").unwrap();
            }
        }
    }
}

impl Synced {
    /// Whether the data that `change` wrote is durable by this.
    fn covers(&self, change: &Written) -> bool {
        let same = self.inode.as_ref() == Some(&change.inode) || matches!(self.what, Sync::All);
        same && self.moment >= change.moment
    }
}
