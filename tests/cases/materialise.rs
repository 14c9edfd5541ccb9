//! Puts a layer on disk, with every form of mark.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, ftruncate, linkat, lsetxattr, makedev, mkdirat, mknodat, open, symlinkat, utimensat,
};
use rustix::io::{Result, pwrite};

use crate::cases::layer::{
    DirSpec, EntrySpec, LayerSpec, Leaf, Mark, Meta, OPAQUE_FILE, Prefix, Whiteout, dot_wh,
    is_privileged,
};
use crate::cases::text::Text;

/// Creates the layer in the existing empty directory `root`.
pub fn materialise(spec: &LayerSpec, root: &Path) -> Result<()> {
    Materialiser { spec, first_names: HashMap::new(), shared_whiteout: None }.dir(&spec.root, root)
}

struct Materialiser<'a> {
    spec: &'a LayerSpec,
    /// The first name of each leaf: the others are links to it.
    first_names: HashMap<usize, PathBuf>,
    shared_whiteout: Option<PathBuf>,
}

impl Materialiser<'_> {
    /// Fills a directory. Its times come last, when nothing more changes inside.
    fn dir(&mut self, dir: &DirSpec, path: &Path) -> Result<()> {
        for (name, entry) in &dir.entries {
            let child = path.join(name.as_os());
            match entry {
                EntrySpec::Dir(spec) => {
                    mkdirat(CWD, &child, Mode::RWXU)?;
                    self.dir(spec, &child)?;
                }
                EntrySpec::Leaf(leaf) => {
                    self.leaf(*leaf, &child)?;
                    self.mark_literal(*leaf, name, &child)?;
                }
                EntrySpec::Whiteout(form) => self.whiteout(*form, child)?,
            }
        }
        for name in &dir.hidden {
            empty_file(&path.join(dot_wh(name).as_os()))?;
        }
        for mark in &dir.marks {
            set_mark(path, mark)?;
        }
        for prefix in dir.xattr_whiteouts() {
            set_xattr(path, OsStr::new(&prefix.overlay("opaque")), b"x")?;
        }
        set_meta(path, &dir.meta, false)
    }

    fn leaf(&mut self, leaf: usize, path: &Path) -> Result<()> {
        if let Some(first) = self.first_names.get(&leaf) {
            return linkat(CWD, first, CWD, path, AtFlags::empty());
        }
        let (meta, kind) = &self.spec.leaves[leaf];
        match kind {
            Leaf::File(data) => {
                let file = empty_file(path)?;
                ftruncate(&file, data.len as u64)?;
                let bytes = data.bytes();
                pwrite(&file, &bytes[data.hole()..], data.hole() as u64)?;
            }
            Leaf::Metacopy(prefix, redirect, len) => {
                ftruncate(empty_file(path)?, *len as u64)?;
                set_xattr(path, OsStr::new(&prefix.overlay("metacopy")), b"")?;
                if let Some(to) = redirect {
                    set_xattr(path, OsStr::new(&prefix.overlay("redirect")), &to.0)?;
                }
            }
            Leaf::Symlink(target) => symlinkat(target.as_os(), CWD, path)?,
            Leaf::Fifo => make_node(path, FileType::Fifo, (0, 0))?,
            Leaf::Socket => make_node(path, FileType::Socket, (0, 0))?,
            Leaf::Char(major, minor) => {
                make_node(path, FileType::CharacterDevice, (*major, *minor))?;
            }
            Leaf::Block(major, minor) => make_node(path, FileType::BlockDevice, (*major, *minor))?,
        }
        set_meta(path, meta, matches!(kind, Leaf::Symlink(_)))?;
        self.first_names.insert(leaf, path.to_path_buf());
        Ok(())
    }

    /// A regular file that looks like a mark says that it is none.
    fn mark_literal(&self, leaf: usize, name: &Text, path: &Path) -> Result<()> {
        let is_file = matches!(self.spec.leaves[leaf].1, Leaf::File(_) | Leaf::Metacopy(..));
        if !is_file || !name.0.starts_with(b".wh.") {
            return Ok(());
        }
        let prefix = if is_privileged() { Prefix::Trusted } else { Prefix::User };
        set_xattr(path, OsStr::new(&prefix.overlay("plyfs.literal")), b"y")
    }

    fn whiteout(&mut self, form: Whiteout, path: PathBuf) -> Result<()> {
        match (form, &self.shared_whiteout) {
            (Whiteout::Xattr(prefix), _) => {
                empty_file(&path)?;
                set_xattr(&path, OsStr::new(&prefix.overlay("whiteout")), b"")
            }
            (Whiteout::SharedDevice, Some(first)) => {
                linkat(CWD, first, CWD, &path, AtFlags::empty())
            }
            (Whiteout::SharedDevice, None) => {
                make_node(&path, FileType::CharacterDevice, (0, 0))?;
                self.shared_whiteout = Some(path);
                Ok(())
            }
            _ => make_node(&path, FileType::CharacterDevice, (0, 0)),
        }
    }
}

fn empty_file(path: &Path) -> Result<std::os::fd::OwnedFd> {
    open(path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR | Mode::WUSR)
}

fn make_node(path: &Path, kind: FileType, (major, minor): (u32, u32)) -> Result<()> {
    mknodat(CWD, path, kind, Mode::RUSR, makedev(major, minor))
}

fn set_xattr(path: &Path, name: &OsStr, value: &[u8]) -> Result<()> {
    lsetxattr(path, name, value, XattrFlags::empty())
}

fn set_mark(path: &Path, mark: &Mark) -> Result<()> {
    match mark {
        Mark::Opaque(prefix) => set_xattr(path, OsStr::new(&prefix.overlay("opaque")), b"y"),
        Mark::FuseOpaque => set_xattr(path, OsStr::new("user.fuseoverlayfs.opaque"), b"y"),
        Mark::OpaqueFile => empty_file(&path.join(OPAQUE_FILE)).map(drop),
        Mark::Redirect(prefix, to) => {
            set_xattr(path, OsStr::new(&prefix.overlay("redirect")), &to.0)
        }
    }
}

/// Attributes that would be marks are stored with the last word of the prefix doubled.
fn stored_name(name: &[u8]) -> Vec<u8> {
    for word in ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."] {
        if let Some(rest) = name.strip_prefix(word.as_bytes()) {
            let (_, doubled) = word.split_once('.').unwrap();
            return [word.as_bytes(), doubled.as_bytes(), rest].concat();
        }
    }
    name.to_vec()
}

/// Owner first: changing it drops set-id bits. Times last: everything else changes them.
fn set_meta(path: &Path, meta: &Meta, is_symlink: bool) -> Result<()> {
    let (uid, gid) = meta.owner;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_symlink {
        chmodat(CWD, path, Mode::from_raw_mode(meta.mode.0), AtFlags::empty())?;
    }
    for (name, value) in &meta.xattrs {
        set_xattr(path, OsStr::from_bytes(&stored_name(&name.0)), &value.0)?;
    }
    let (tv_sec, nsec) = meta.mtime;
    let time = Timespec { tv_sec, tv_nsec: nsec.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}
