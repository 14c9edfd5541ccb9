//! From a layer archive to a stored layer.
//!
//! Everything is made in a stage and synced; then the contents get their names, and last the layer gets its own. A crash
//! leaves the layer complete or absent; contents that nobody refers to are garbage, and the stage is swept.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use super::digest::Digesting;
use super::objects::NewObjects;
use super::stage::Stage;
use super::tar_split;
use super::{DiffId, Error, Result, Store};
use crate::archive::oci_whiteout::{Meaning, meaning};
use crate::archive::{Compression, Decompressed, Entry, Kind, Limits, Reader, Refusal};
use crate::layer::packed::Builder;
use crate::layer::packed::builder::{Body, Object};
use crate::sys::{Errno, FileKind, open};

/// What is known of a stored layer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct LayerMeta {
    /// Bytes of its uncompressed archive.
    pub tar_size: u64,
    /// Bytes of its files.
    pub size: u64,
    /// Its entries.
    pub entries: u64,
}

/// What an import has done.
#[derive(Debug)]
pub struct Imported {
    /// The layer.
    pub diff_id: DiffId,
    /// How the archive was compressed.
    pub compression: Compression,
    /// Whether the layer was there already.
    pub known: bool,
    /// Entries that took the place of others of the same archive: no program should write such.
    pub replaced: u64,
    /// What is known of it.
    pub meta: LayerMeta,
}

impl Store {
    /// Stores the layer whose archive is `source`, compressed or not. `name` is what messages call it.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub fn import_layer(&self, name: &str, source: impl Read, limits: Limits) -> Result<Imported> {
        let stage = self.stage()?;
        let mut import =
            Import::new(self, &stage).map_err(|error| self.cannot_store(name, error))?;
        let refused = |refusal: Refusal| Error::failure(format!("layer {name}: {refusal}"));
        let source = Decompressed::new(source, limits).map_err(|error| refused(error.into()))?;
        let compression = source.compression();
        let mut reader = Reader::new(Digesting::new(source), limits);
        while let Some(entry) = reader.next_entry().map_err(refused)? {
            import
                .entry(&entry, &mut reader)
                .map_err(|refusal| refused(refusal.of(entry.path.as_bytes())))?;
        }
        import.end(&mut reader).map_err(refused)?;
        let (digest, tar_size, _) = reader.into_inner().finish();
        import.meta.tar_size = tar_size;
        let diff_id = DiffId(digest);
        let (replaced, meta) = (import.replaced, import.meta.clone());
        let known = self.has_layer(&diff_id);
        if !known {
            import
                .publish(self, &stage, &diff_id)
                .map_err(|error| self.cannot_store(name, error))?;
        }
        Ok(Imported { diff_id, compression, known, replaced, meta })
    }

    fn cannot_store(&self, name: &str, error: io::Error) -> Error {
        Error::failure(format!(
            "layer {name}: cannot be stored in {}: {error}",
            self.root().display()
        ))
    }
}

/// A layer that is being imported.
struct Import<'s> {
    builder: Builder,
    contents: NewObjects<'s>,
    split: tar_split::Writer,
    replaced: u64,
    meta: LayerMeta,
}

impl<'s> Import<'s> {
    fn new(store: &'s Store, stage: &Stage) -> io::Result<Self> {
        fs::create_dir(stage.path("layer"))?;
        Ok(Self {
            builder: Builder::new(),
            contents: NewObjects::new(store.objects(), stage)?,
            split: tar_split::Writer::new(File::create_new(stage.path("layer/tar-split"))?)?,
            replaced: 0,
            meta: LayerMeta { tar_size: 0, size: 0, entries: 0 },
        })
    }

    fn entry(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<impl Read>,
    ) -> std::result::Result<(), Refusal> {
        self.split.framing(&reader.take_framing())?;
        let mut content = None;
        if let Kind::Regular(extent) = &entry.kind {
            content = self.contents.add(extent, &mut reader.content())?;
            if let Some(id) = &content {
                self.split.content(extent, id)?;
            }
            self.meta.size += extent.size;
        }
        self.meta.entries += 1;
        let placed = self.place(entry, content.map(|id| *id.as_bytes()));
        self.replaced += u64::from(placed.map_err(|why| Refusal::new(why.to_string()))?);
        Ok(())
    }

    /// Puts an entry where it belongs; true if it took the place of another.
    fn place(
        &mut self,
        entry: &Entry,
        content: Option<[u8; 32]>,
    ) -> std::result::Result<bool, Box<dyn std::error::Error>> {
        if let Some((dir, name)) = entry.path.split_last() {
            match meaning(name)? {
                Meaning::Object | Meaning::Private => {}
                Meaning::Whiteout(hidden) => {
                    self.builder.whiteout(dir.names(), hidden)?;
                    return Ok(false);
                }
                Meaning::Opaque => {
                    self.builder.opaque(dir.names())?;
                    return Ok(false);
                }
            }
        }
        let (kind, body) = match &entry.kind {
            Kind::HardLink(target) => {
                return Ok(self.builder.link(entry.path.names(), target.names())?);
            }
            Kind::Regular(extent) => (FileKind::Regular, Body::Content(extent.size, content)),
            Kind::Directory => (FileKind::Directory, Body::Nothing),
            Kind::Symlink(target) => (FileKind::Symlink, Body::Target(target)),
            Kind::CharDevice(device) => {
                (FileKind::CharDevice, Body::Number(device.major, device.minor))
            }
            Kind::BlockDevice(device) => {
                (FileKind::BlockDevice, Body::Number(device.major, device.minor))
            }
            Kind::Fifo => (FileKind::Fifo, Body::Nothing),
        };
        let mut xattrs = entry.xattrs.iter().map(|xattr| (&*xattr.name, &*xattr.value));
        let object = Object {
            mode: kind.mode_bits() | entry.permissions,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            body,
            xattrs: &mut xattrs,
        };
        Ok(self.builder.put(entry.path.names(), object)?)
    }

    /// Takes what follows the last entry.
    fn end(&mut self, reader: &mut Reader<impl Read>) -> std::result::Result<(), Refusal> {
        self.split.framing(&reader.take_framing())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.rest().read(&mut buffer)? {
                0 => return Ok(()),
                count => self.split.framing(&buffer[..count])?,
            }
        }
    }

    fn publish(self, store: &Store, stage: &Stage, diff_id: &DiffId) -> io::Result<()> {
        let layer = stage.path("layer");
        self.split.finish()?;
        self.builder.write(File::create_new(layer.join("index"))?)?;
        fs::write(layer.join("meta.json"), serde_json::to_vec(&self.meta)?)?;
        sync_filesystem(&layer)?;
        self.contents.publish()?;
        // The names of the contents before that of the layer.
        sync_filesystem(&layer)?;
        let target = store.layer_path(diff_id);
        let stages = open::directory(&stage.path(""))?;
        let renamed = rustix::fs::renameat_with(
            &stages,
            "layer",
            rustix::fs::CWD,
            &target,
            RenameFlags::NOREPLACE,
        );
        match renamed {
            // The same layer, by somebody who was faster.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        File::open(store.root().join("layers"))?.sync_all()
    }
}

fn sync_filesystem(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}
