//! Compares the whole tree of a subject with the model.

use std::collections::BTreeSet;

use crate::cases::case::Check;
use crate::cases::model::{Ino, Kind, ROOT};
use crate::cases::text::Text;
use crate::driver::Driver;
use crate::subject::{Entry, Node, Subject};

impl<S: Subject> Driver<S> {
    /// Walks everything. With `plus`, directories are read together with their attributes. Leaves
    /// the references as they were.
    pub fn compare_trees(&mut self, plus: bool) -> Check {
        let root = self.subject.root();
        let mut checked = BTreeSet::new();
        self.compare_node(ROOT, root, &mut checked).map_err(|why| format!("root: {why}"))?;
        self.compare_dir(&Text::default(), ROOT, root, plus, &mut checked)
    }

    fn compare_dir(
        &mut self,
        path: &Text,
        dir: Ino,
        node: Node,
        plus: bool,
        checked: &mut BTreeSet<Ino>,
    ) -> Check {
        let fail = |why: String| format!("{path:?}: {why}");
        let mut entries = Vec::new();
        if plus {
            let listed = self.subject.read_dir_plus(node).map_err(|e| fail(format!("{e:?}")))?;
            let (names, found): (Vec<_>, Vec<_>) = listed.into_iter().unzip();
            self.check_entries(dir, &names).map_err(fail)?;
            entries.extend(names.into_iter().map(|it| Text(it.name)).zip(found));
        } else {
            let names =
                self.subject.read_dir(node, 0, usize::MAX).map_err(|e| fail(format!("{e:?}")))?;
            self.check_entries(dir, &names).map_err(fail)?;
            for name in names.into_iter().map(|entry| Text(entry.name)) {
                match self.subject.lookup(node, name.as_os()) {
                    Ok(Some(entry)) => entries.push((name, entry)),
                    other => return Err(fail(format!("lookup of {name:?}: {other:?}"))),
                }
            }
        }
        entries.into_iter().try_for_each(|(name, entry)| {
            self.compare_entry(&path.join(&name), entry, plus, checked)
        })
    }

    fn compare_entry(
        &mut self,
        path: &Text,
        entry: Entry,
        plus: bool,
        checked: &mut BTreeSet<Ino>,
    ) -> Check {
        let ino = self.model.resolve(path).unwrap();
        let fail = |why: String| format!("{path:?}: {why}");
        let Entry { node, attr } = entry;
        self.check_attr(ino, &attr).map_err(fail)?;
        if checked.insert(ino) {
            self.compare_node(ino, node, checked).map_err(fail)?;
        }
        if self.model.inodes[ino].is_dir() {
            self.compare_dir(path, ino, node, plus, checked)?;
        }
        self.meet(ino, &entry, false).map_err(fail)
    }

    /// Attributes, content, link target and extended attributes of one object.
    fn compare_node(&mut self, ino: Ino, node: Node, checked: &mut BTreeSet<Ino>) -> Check {
        checked.insert(ino);
        let attr = self.subject.attr(node).map_err(|errno| format!("stat: {errno:?}"))?;
        self.check_number(ino, attr.ino)?;
        self.check_attr(ino, &attr)?;
        let inode = &self.model.inodes[ino];
        let (what, expected, actual) = match &inode.kind {
            Kind::File(data) => ("content", data, self.subject.read(node, 0, data.len() + 1)),
            Kind::Symlink(to) => ("target", &to.0, self.subject.read_link(node)),
            _ => return self.compare_xattrs(ino, node),
        };
        match actual {
            Ok(actual) if actual == *expected => self.compare_xattrs(ino, node),
            Ok(actual) => Err(difference(what, expected, &actual)),
            Err(errno) => Err(format!("{what}: {errno:?}")),
        }
    }

    fn compare_xattrs(&self, ino: Ino, node: Node) -> Check {
        let expected = &self.model.inodes[ino].xattrs;
        let mut names =
            self.subject.list_xattr(node).map_err(|errno| format!("listxattr: {errno:?}"))?;
        names.sort();
        if !names.iter().eq(expected.keys().map(|name| &name.0)) {
            let names: Vec<Text> = names.into_iter().map(Text).collect();
            return Err(format!("expected attributes {expected:?}, got {names:?}"));
        }
        for (name, value) in expected {
            let actual = self.subject.get_xattr(node, name.as_os());
            if actual.as_ref() != Ok(&value.0) {
                return Err(format!("attribute {name:?}: expected {value:?}, got {actual:?}"));
            }
        }
        Ok(())
    }
}

/// Two byte strings by length and first difference.
fn difference(what: &str, expected: &[u8], actual: &[u8]) -> String {
    let at = expected.iter().zip(actual).position(|(a, b)| a != b);
    let at = at.unwrap_or(expected.len().min(actual.len()));
    let show = |bytes: &[u8]| format!("{} bytes, {:?}", bytes.len(), bytes[at..].first());
    format!("{what} differs at {at}: expected {}, got {}", show(expected), show(actual))
}
