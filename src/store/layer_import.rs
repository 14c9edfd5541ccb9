//! From a layer archive to a packed layer and a blob.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digesting;
use super::import::{Import, LAYERS, NEW};
use super::objects::NewObjects;
use super::{DiffId, Digest, Error, Result, Store, tar_split};
use crate::archive::oci_whiteout::{Meaning, meaning};
use crate::archive::{Compression, Compressor, Decompressed, Entry, Kind, Limits, Reader, Refusal};
use crate::layer::packed::Builder;
use crate::layer::packed::builder::{Body, Object};
use crate::sys::FileKind;

/// What is known of a stored layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
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
    /// How its blob is compressed.
    pub compression: Compression,
    /// The layer's archive as it is kept: name and bytes.
    pub blob: (Digest, u64),
    /// Whether the layer was there already.
    pub known: bool,
    /// Entries that took the place of others of the same archive: no program should write such.
    pub replaced: u64,
    /// What is known of it.
    pub meta: LayerMeta,
}

/// How a layer that comes uncompressed is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As gzip.
    Compressed,
    /// As zstd.
    Zstd,
    /// As it came: somebody refers to it by its digest.
    AsItCame,
}

impl Keep {
    /// Compressed like this.
    pub fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::AsItCame,
            Compression::Gzip => Self::Compressed,
            Compression::Zstd => Self::Zstd,
        }
    }

    /// How what comes like this is to be compressed here.
    fn compress(self, came: Compression) -> Compression {
        match (came, self) {
            (Compression::None, Self::Compressed) => Compression::Gzip,
            (Compression::None, Self::Zstd) => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

impl Store {
    /// Stores the layer whose archive is `source`, compressed or not. `name` is what messages call it.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub fn import_layer(&self, name: &str, source: impl Read, limits: Limits) -> Result<Imported> {
        let mut import = self.import()?;
        let imported = import.layer(name, source, limits, Keep::Compressed)?;
        import.publish()?;
        Ok(imported)
    }

    /// The layer with nothing in it: it is what an image without layers shows. Stored if it is not yet.
    ///
    /// # Errors
    /// If the store cannot be written to.
    pub fn empty_layer(&self) -> Result<DiffId> {
        const END_MARK: [u8; 1024] = [0; 1024];
        let layer = DiffId(Digest::of(&END_MARK));
        if !self.has_layer(&layer) {
            self.import_layer("empty", END_MARK.as_slice(), Limits::default())?;
        }
        Ok(layer)
    }

    /// What is known of a stored layer.
    pub fn layer_meta(&self, layer: &DiffId) -> Result<LayerMeta> {
        let path = self.layer_path(layer).join("meta.json");
        let read = || Ok(serde_json::from_slice(&fs::read(&path)?)?);
        read().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::not_found(format!("layer {} is not stored", layer.0)),
            _ => Error::damaged(format!("layer {}: meta.json cannot be read: {error}", layer.0)),
        })
    }
}

impl Import<'_> {
    /// Takes the layer whose archive is `source`, compressed or not. `name` is what messages call it.
    pub fn layer(
        &mut self,
        name: &str,
        source: impl Read,
        limits: Limits,
        keep: Keep,
    ) -> Result<Imported> {
        let refused = |refusal: Refusal| Error::failure(format!("layer {name}: {refusal}"));
        self.take(source, limits, keep).map_err(refused)
    }

    fn take(
        &mut self,
        source: impl Read,
        limits: Limits,
        keep: Keep,
    ) -> std::result::Result<Imported, Refusal> {
        let mut source = BufReader::with_capacity(128 << 10, source);
        let compression = Compression::of(source.fill_buf()?);
        let compress = keep.compress(compression);
        let mut blob = Compressor::new(compress, self.new_blob()?)?;
        let folder = self.stage.path(LAYERS).join(NEW);
        fs::create_dir(&folder)?;
        let source = Decompressed::new(Tee { source, copy: &mut blob }, limits)?;
        let mut reader = Reader::new(Digesting::new(source), limits);
        let mut layer = NewLayer::new(&mut self.contents, &folder)?;
        while let Some(entry) = reader.next_entry()? {
            let taken = layer.entry(&entry, &mut reader);
            taken.map_err(|refusal| refusal.of(entry.path.as_bytes()))?;
        }
        layer.rest(&mut reader)?;
        let (digest, tar_size, _) = reader.into_inner().finish();
        let diff_id = DiffId(digest);
        layer.meta.tar_size = tar_size;
        let NewLayer { builder, split, replaced, meta, .. } = layer;
        let staged = self.stage.path(LAYERS).join(digest.hex());
        let known = self.store.has_layer(&diff_id);
        if known || staged.exists() {
            fs::remove_dir_all(&folder)?;
        } else {
            split.finish()?;
            builder.write(File::create_new(folder.join("index"))?)?;
            let text = serde_json::to_vec(&meta).map_err(io::Error::from)?;
            fs::write(folder.join("meta.json"), text)?;
            fs::rename(&folder, &staged)?;
        }
        let compression = if compress == Compression::None { compression } else { compress };
        let blob = self.keep_blob(blob.finish()?)?;
        Ok(Imported { diff_id, compression, blob, known, replaced, meta })
    }
}

/// Copies what is read.
struct Tee<'w, R> {
    source: R,
    copy: &'w mut Compressor<Digesting<File>>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// A layer whose archive is being read.
struct NewLayer<'i, 's> {
    builder: Builder,
    contents: &'i mut NewObjects<'s>,
    split: tar_split::Writer,
    replaced: u64,
    meta: LayerMeta,
}

impl<'i, 's> NewLayer<'i, 's> {
    fn new(contents: &'i mut NewObjects<'s>, folder: &Path) -> io::Result<Self> {
        let split = File::create_new(folder.join("tar-split"))?;
        Ok(Self {
            builder: Builder::new(folder)?,
            contents,
            split: tar_split::Writer::new(split)?,
            replaced: 0,
            meta: LayerMeta::default(),
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
        // A link always has all of them, whatever its archive says.
        let permissions = if kind == FileKind::Symlink { 0o777 } else { entry.permissions };
        let mut xattrs = entry.xattrs.iter().map(|xattr| (&*xattr.name, &*xattr.value));
        let object = Object {
            mode: kind.mode_bits() | permissions,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            body,
            xattrs: &mut xattrs,
        };
        Ok(self.builder.put(entry.path.names(), object)?)
    }

    /// Takes what follows the last entry.
    fn rest(&mut self, reader: &mut Reader<impl Read>) -> std::result::Result<(), Refusal> {
        self.split.framing(&reader.take_framing())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.rest().read(&mut buffer)? {
                0 => return Ok(()),
                count => self.split.framing(&buffer[..count])?,
            }
        }
    }
}
