//! The same tests over packed layers: with `PLYFS_TEST_PACKED` set, every lower layer that a store could have is made
//! one of a store before it is mounted by the program under test.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs::layer::packed::Builder;
use plyfs::layer::packed::builder::{Body, Object};
use plyfs::sys::{FileKind, Time};

use super::posix::{get_xattr, xattrs as xattrs_of};

/// The index of the packed form of the layer `dir`, in the store at `store`; `dir` itself if it holds marks that no
/// image has.
pub fn packed(dir: &Path, store: &Path) -> PathBuf {
    let layer = store.join("layers").join(dir.file_name().unwrap());
    let index = layer.join("index");
    if index.exists() {
        return index;
    }
    // What has no room in memory goes beside the store.
    let builder = Builder::new(store.parent().unwrap()).unwrap();
    let mut packer = Packer { builder, objects: store.join("objects"), links: HashMap::new() };
    if packer.walk(dir, &mut Vec::new()).is_none() {
        return dir.to_owned();
    }
    fs::create_dir_all(&layer).unwrap();
    fs::create_dir_all(store.join("objects")).unwrap();
    packer.builder.write(File::create_new(&index).unwrap()).unwrap();
    index
}

/// Larger files, nearly all of them holes, would be read for too long.
const LARGEST: u64 = 64 << 20;

struct Packer {
    builder: Builder,
    objects: PathBuf,
    /// The first name of what has several.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Packer {
    /// Packs what is at `path`; `None` if it cannot be.
    fn walk(&mut self, path: &Path, names: &mut Vec<Vec<u8>>) -> Option<()> {
        let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.len() <= LARGEST)?;
        let place = || names.iter().map(Vec::as_slice);
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            let (name, dir) = names.split_last()?;
            return self.builder.whiteout(dir.iter().map(Vec::as_slice), name).ok();
        }
        if meta.nlink() > 1 && !meta.is_dir() {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                let first = first.iter().map(Vec::as_slice);
                return self.builder.link(place(), first).ok().map(drop);
            }
            self.links.insert((meta.dev(), meta.ino()), names.clone());
        }
        let mut xattrs = Vec::new();
        let mut opaque = false;
        for name in xattrs_of(path) {
            let value = get_xattr(path, &name).unwrap();
            match name.as_str() {
                "trusted.overlay.opaque" | "user.overlay.opaque" if value == b"y" => opaque = true,
                name if name.contains("overlay") || name.contains("override_stat") => return None,
                _ => xattrs.push((name, value)),
            }
        }
        if names.last().is_some_and(|name| name.starts_with(b".wh.")) {
            return None;
        }
        let target = if meta.is_symlink() { fs::read_link(path).unwrap() } else { PathBuf::new() };
        let kind = FileKind::from_mode(meta.mode());
        let body = match kind {
            FileKind::Regular => Body::Content(meta.len(), self.object(path)?),
            FileKind::Symlink => Body::Target(target.as_os_str().as_bytes()),
            FileKind::CharDevice | FileKind::BlockDevice => {
                Body::Number(rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
            }
            FileKind::Socket => return None,
            FileKind::Directory | FileKind::Fifo => Body::Nothing,
        };
        let object = Object {
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: Time { sec: meta.mtime(), nsec: meta.mtime_nsec() as u32 },
            body,
            xattrs: &mut xattrs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())),
        };
        self.builder.put(place(), object).ok()?;
        if kind == FileKind::Directory {
            if opaque {
                self.builder.opaque(place()).ok()?;
            }
            for entry in fs::read_dir(path).ok()? {
                let name = entry.unwrap().file_name();
                let below = path.join(&name);
                names.push(name.as_bytes().to_vec());
                self.walk(&below, names)?;
                names.pop();
            }
        }
        Some(())
    }

    /// Stores the content of a file; `None` if it cannot be read.
    fn object(&self, path: &Path) -> Option<Option<[u8; 32]>> {
        let mut hasher = blake3::Hasher::new();
        if std::io::copy(&mut File::open(path).ok()?, &mut hasher).unwrap() == 0 {
            return Some(None);
        }
        let id = hasher.finalize();
        let folder = self.objects.join(&id.to_hex()[..2]);
        fs::create_dir_all(&folder).unwrap();
        let object = folder.join(&id.to_hex()[2..]);
        let copied = Command::new("cp").arg("--sparse=always").arg(path).arg(object).status();
        assert!(copied.unwrap().success());
        Some(Some(*id.as_bytes()))
    }
}
