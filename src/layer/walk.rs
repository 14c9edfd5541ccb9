//! Every directory of one layer, whatever its size and depth: no recursion, few descriptors, and no step that
//! could lead out of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::Name;
use crate::sys::{Errno, Result, open};

/// How many directories on the way down stay open. Others are opened again from the root if they are needed.
const KEPT_OPEN: usize = 128;

/// What a walk comes by.
pub trait Visitor {
    /// Looks at a directory, and returns the names of the directories in it that are to be visited.
    ///
    /// # Errors
    /// Anything; it ends the walk.
    fn enter(&mut self, place: &Place<'_>) -> Result<Vec<Name>>;

    /// Everything below the directory entered last, and not left yet, has been visited.
    fn leave(&mut self);
}

/// A directory of the layer.
pub struct Place<'a> {
    /// The directory.
    pub dir: &'a Arc<OwnedFd>,
    /// The names that lead to it from the root.
    pub names: &'a [Name],
}

impl Place<'_> {
    /// Its path from the root of the layer; empty for the root.
    pub fn path(&self) -> PathBuf {
        self.names.iter().map(|name| &**name).collect()
    }
}

/// Where a walk came to an end, and why.
#[derive(Debug)]
pub struct WalkError {
    /// The directory, from the root of the layer.
    pub path: PathBuf,
    /// What could not be read or done there; `EXDEV` where something is mounted.
    pub error: Errno,
}

struct Frame {
    /// `None` while it is not needed and others are.
    dir: Option<Arc<OwnedFd>>,
    pending: Vec<Name>,
}

/// Visits `root` and every directory below it that the visitor names, each before those in it.
///
/// # Errors
/// The first directory that cannot be opened, and the first error of the visitor.
pub fn walk(root: &Arc<OwnedFd>, visitor: &mut impl Visitor) -> std::result::Result<(), WalkError> {
    let mut names: Vec<Name> = Vec::new();
    let failed = |names: &[Name]| {
        let path = names.iter().map(|name| &**name).collect();
        move |error| WalkError { path, error }
    };
    let place = Place { dir: root, names: &[] };
    let pending = visitor.enter(&place).map_err(failed(&names))?;
    let mut frames = vec![Frame { dir: Some(root.clone()), pending }];
    while let Some(frame) = frames.last_mut() {
        let Some(name) = frame.pending.pop() else {
            frames.pop();
            names.pop();
            visitor.leave();
            continue;
        };
        let parent = reopened(&mut frames, &names).map_err(failed(&names))?;
        names.push(name.clone());
        let dir = beneath(&parent, [&*name]).map_err(failed(&names))?;
        let place = Place { dir: &dir, names: &names };
        let pending = visitor.enter(&place).map_err(failed(&names))?;
        frames.push(Frame { dir: Some(dir), pending });
        if let Some(far) = frames.len().checked_sub(KEPT_OPEN).filter(|far| *far > 0) {
            frames[far].dir = None;
        }
    }
    Ok(())
}

/// The directory of the last frame, whose names from the root are `names`.
fn reopened(frames: &mut [Frame], names: &[Name]) -> Result<Arc<OwnedFd>> {
    let open = frames.iter().rposition(|frame| frame.dir.is_some()).ok_or(Errno::BADF)?;
    let base = frames[open].dir.clone().ok_or(Errno::BADF)?;
    if open + 1 == frames.len() {
        return Ok(base);
    }
    let dir = beneath(&base, names[open..].iter().map(|name| &**name))?;
    if let Some(last) = frames.last_mut() {
        last.dir = Some(dir.clone());
    }
    Ok(dir)
}

fn beneath<'a>(base: &OwnedFd, names: impl IntoIterator<Item = &'a OsStr>) -> Result<Arc<OwnedFd>> {
    open::descend(base.as_fd(), names, false).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::sys::FileKind;
    use crate::sys::dir::for_each;

    #[derive(Default)]
    struct Count {
        entered: usize,
        left: usize,
        deepest: usize,
    }

    impl Visitor for Count {
        fn enter(&mut self, place: &Place<'_>) -> Result<Vec<Name>> {
            self.entered += 1;
            self.deepest = self.deepest.max(place.names.len());
            let mut dirs = Vec::new();
            for_each(place.dir.as_fd(), |entry| {
                if entry.kind == Some(FileKind::Directory) {
                    dirs.push(Name::from(entry.name));
                }
                Ok(())
            })?;
            Ok(dirs)
        }

        fn leave(&mut self) {
            self.left += 1;
        }
    }

    /// Two directories on each of many levels, so that closed ones are needed again.
    #[test]
    fn every_directory_is_visited_once_at_any_depth() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let root_dir = Arc::new(open::directory(root.path()).unwrap());
        let mut at = root_dir.clone();
        let name = "n".repeat(40);
        for _ in 0..600 {
            rustix::fs::mkdirat(&at, "other", Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
            at = Arc::new(open::child(at.as_fd(), OsStr::new(&name), OFlags::PATH).unwrap());
        }
        let mut count = Count::default();
        walk(&root_dir, &mut count).unwrap();
        assert_eq!((count.entered, count.left, count.deepest), (1201, 1201, 600));
    }

    #[test]
    fn a_walk_ends_with_the_path_of_what_cannot_be_entered() {
        struct Lost;
        impl Visitor for Lost {
            fn enter(&mut self, _: &Place<'_>) -> Result<Vec<Name>> {
                Ok(vec![Name::from(OsStr::new("absent"))])
            }
            fn leave(&mut self) {}
        }
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let root = Arc::new(open::directory(root.path()).unwrap());
        let error = walk(&root, &mut Lost).unwrap_err();
        assert_eq!((error.path, error.error), (PathBuf::from("absent"), Errno::NOENT));
    }
}
