//! Archives made for a purpose, and what a stored layer holds.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use plyfs::archive::{Limits, Shown};
use plyfs::layer::packed::Index;
use plyfs::layer::packed::format::ROOT;
use plyfs::store::layer_import::Imported;
use plyfs::store::{Digest, Result, Store, tar_split};
use plyfs::sys::FileKind;

/// An archive in the making.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// The fields of a header.
#[derive(Clone)]
pub struct Fields {
    pub flag: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub size: u64,
    pub device: (u32, u32),
}

impl Fields {
    pub fn new(flag: u8, name: &str) -> Self {
        Self {
            flag,
            name: name.into(),
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            device: (0, 0),
        }
    }

    pub fn header(&self) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..self.name.len().min(100)]
            .copy_from_slice(&self.name[..self.name.len().min(100)]);
        old.linkname[..self.link.len().min(100)]
            .copy_from_slice(&self.link[..self.link.len().min(100)]);
        header.set_entry_type(tar::EntryType::new(self.flag));
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(self.mtime);
        header.set_size(self.size);
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        header
    }
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn header(mut self, header: &tar::Header) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An entry, after an extended header if its names are too long for one.
    pub fn entry(self, mut fields: Fields, data: &[u8]) -> Self {
        fields.size = data.len() as u64;
        let records: Vec<_> = [("path", &*fields.name), ("linkpath", &*fields.link)]
            .into_iter()
            .filter(|(_, text)| text.len() > 100)
            .collect();
        let tar = if records.is_empty() { self } else { self.pax(&records) };
        tar.header(&fields.header()).data(data)
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        self.entry(Fields::new(b'0', name), text.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(Fields { mode: 0o755, ..Fields::new(b'5', name) }, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Fields { mode: 0o777, link: target.into(), ..Fields::new(b'2', name) }, b"")
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(Fields { link: target.into(), ..Fields::new(b'1', name) }, b"")
    }

    /// An extended header with these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (keyword, value) in records {
            let rest = keyword.len() + value.len() + 3;
            let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
            data.extend_from_slice(format!("{length} {keyword}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(Fields::new(b'x', "PaxHeaders/x"), &data)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A folder that goes with what is returned, on the disk that the program is built on.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A store in a folder that goes with it. Beside it lies a canary, which must be as it was when the store goes.
pub struct TestStore {
    pub store: Store,
    outside: String,
    dir: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = folder();
        let canary = dir.path().join("canary");
        std::fs::create_dir_all(canary.join("etc")).unwrap();
        std::fs::write(canary.join("victim"), "alive").unwrap();
        std::fs::write(canary.join("etc/passwd"), "root").unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let mut test = Self { store, outside: String::new(), dir };
        test.outside = test.outside();
        test
    }

    /// The folder beside the store.
    pub fn canary(&self) -> String {
        self.dir.path().join("canary").display().to_string()
    }

    /// Everything beside the store, with all its times but those of access.
    fn outside(&self) -> String {
        fn look(path: &Path, text: &mut String) {
            let meta = std::fs::symlink_metadata(path).unwrap();
            let id = (meta.ino(), meta.mode(), meta.uid(), meta.gid(), meta.nlink(), meta.size());
            let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            writeln!(text, "{} {id:?} {times:?}", path.display()).unwrap();
            if meta.is_dir() {
                for entry in std::fs::read_dir(path).unwrap() {
                    look(&entry.unwrap().path(), text);
                }
            } else {
                writeln!(text, "{:?}", std::fs::read(path)).unwrap();
            }
        }
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path != self.store.root() {
                look(&path, &mut text);
            }
        }
        text
    }

    pub fn import(&self, archive: &[u8]) -> Result<Imported> {
        let imported = self.store.import_layer("1", archive, Limits::default())?;
        assert_eq!(self.restored(&imported), archive, "not written as it was read");
        Ok(imported)
    }

    /// The archive of a layer, written again.
    fn restored(&self, imported: &Imported) -> Vec<u8> {
        let split = File::open(self.store.layer_path(&imported.diff_id).join("tar-split")).unwrap();
        let mut archive = Vec::new();
        tar_split::restore(split, self.store.objects(), &mut archive).unwrap();
        assert_eq!(Digest::of(&archive), imported.diff_id.0);
        archive
    }

    /// What the layer holds that `archive` becomes.
    pub fn holds(&self, archive: &[u8]) -> String {
        let imported = self.import(archive).unwrap();
        let file = File::open(self.store.layer_path(&imported.diff_id).join("index")).unwrap();
        let index = Index::open(&file).unwrap();
        assert!(index.is_sound());
        let mut text = String::new();
        self.describe(&index, ROOT, "", &mut text);
        text
    }

    /// One line for each name below `dir`, like `f path text`.
    fn describe(&self, index: &Index, dir: u32, path: &str, text: &mut String) {
        for entry in index.entries(dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(index.find(dir, entry.name).unwrap(), Some(entry));
            let path = format!("{path}{}", Shown(entry.name.as_bytes()));
            let Some(number) = entry.inode else {
                writeln!(text, "w {path}").unwrap();
                continue;
            };
            let inode = index.inode(number).unwrap();
            match inode.kind() {
                FileKind::Directory => {
                    let opaque = if inode.opaque { " opaque" } else { "" };
                    let implied = if inode.implied { " implied" } else { "" };
                    writeln!(text, "d {path}{opaque}{implied}").unwrap();
                    self.describe(index, number, &format!("{path}/"), text);
                }
                FileKind::Regular => {
                    let data = index.content(&inode).unwrap().map_or(Vec::new(), |id| {
                        let mut data = Vec::new();
                        let mut file = self.store.objects().get(&id).unwrap();
                        std::io::Read::read_to_end(&mut file, &mut data).unwrap();
                        assert_eq!(blake3::hash(&data), id);
                        data
                    });
                    assert_eq!(data.len() as u64, inode.size);
                    let links = if inode.nlink > 1 {
                        format!(" nlink={}", inode.nlink)
                    } else {
                        String::new()
                    };
                    writeln!(text, "f {path} {}{links}", Shown(&data)).unwrap();
                }
                FileKind::Symlink => {
                    assert_eq!(inode.mode, libc::S_IFLNK | 0o777, "{path}");
                    let target = index.link_target(&inode).unwrap().as_bytes();
                    let links = if inode.nlink > 1 {
                        format!(" nlink={}", inode.nlink)
                    } else {
                        String::new()
                    };
                    writeln!(text, "l {path} {}{links}", Shown(target)).unwrap();
                }
                kind => writeln!(text, "{kind:?} {path} {}:{}", inode.major, inode.minor).unwrap(),
            }
        }
    }

    /// Whether the store is for its owner alone, has nothing that gives rights, and has touched nothing else.
    fn check(&self) {
        assert_eq!(self.outside(), self.outside, "something outside of the store has changed");
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode();
        assert_eq!(mode(self.store.root()) & 0o7777, 0o700);
        for file in self.files() {
            let meta = std::fs::symlink_metadata(self.store.root().join(&file)).unwrap();
            assert_eq!(meta.mode() & 0o7000, 0, "{file}");
            assert!(meta.is_dir() || meta.is_file(), "{file}");
        }
    }

    /// Everything below the store's folder, staged things included.
    pub fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(root).unwrap().display().to_string());
                if path.is_dir() {
                    walk(&path, root, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.store.root(), self.store.root(), &mut found);
        found.sort();
        found
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}
