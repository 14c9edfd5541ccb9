//! Writing images out: as docker archives, with uncompressed layers, or as OCI archives, with the blobs as they are kept.
//! Both are the same for the same images.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use serde_json::{Value, json};

use super::digest::Digesting;
use super::image::Image;
use super::manifest::Descriptor;
use super::progress::{Progress, Silent, Status, Watched};
use super::{DiffId, Error, LAYOUT, Result, Store, config, manifest, tags, tar_split};
use crate::archive::entry::Extent;
use crate::archive::writer::Writer;
use crate::archive::{Entry, EntryPath, Kind};
use crate::sys::Time;

/// The form of an archive of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What `docker save` writes.
    Docker,
    /// An OCI image layout.
    Oci,
}

impl Store {
    /// Writes the layer's uncompressed archive, byte by byte as it was.
    ///
    /// # Errors
    /// If the bytes are others, which is known at the end only.
    pub fn write_layer(&self, layer: &DiffId, out: &mut impl Write) -> Result<()> {
        let mut out = Digesting::new(out);
        let split = File::open(self.layer_path(layer).join("tar-split"));
        split
            .and_then(|split| tar_split::restore(split, self.objects(), &mut out))
            .map_err(|error| layer_error(layer, error))?;
        match out.finish() {
            (digest, ..) if digest == layer.0 => Ok(()),
            _ => Err(Error::damaged(format!("layer {}: it is damaged", layer.0))),
        }
    }

    /// Writes `images` into one archive, each with the names it has in `names`.
    pub fn save(
        &self,
        images: &[(Image, Vec<String>)],
        format: Format,
        out: impl Write,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (archive, written) = (Writer::new(out), BTreeSet::new());
        let mut archive = Saved { store: self, archive, written, progress };
        match format {
            Format::Docker => archive.docker(images)?,
            Format::Oci => archive.oci(images)?,
        }
        archive.archive.finish().and_then(|mut out| out.flush()).map_err(unwritten)
    }
}

struct Saved<'s, W> {
    store: &'s Store,
    archive: Writer<W>,
    /// The members so far: layers and blobs are shared.
    written: BTreeSet<String>,
    progress: &'s dyn Progress,
}

impl<W: Write> Saved<'_, W> {
    fn docker(&mut self, images: &[(Image, Vec<String>)]) -> Result<()> {
        let mut entries = Vec::new();
        for (image, names) in images {
            let mut layers = Vec::new();
            for layer in &image.layers {
                let member = format!("{}.tar", layer.0.hex());
                self.layer(layer, &member)?;
                layers.push(member);
            }
            let config = format!("{}.json", image.id().hex());
            let bytes = self.store.read_blob(&image.id(), config::LONGEST)?;
            self.bytes(&config, &bytes)?;
            entries.push(json!({ "Config": config, "RepoTags": names, "Layers": layers }));
        }
        self.bytes("manifest.json", Value::from(entries).to_string().as_bytes())
    }

    fn oci(&mut self, images: &[(Image, Vec<String>)]) -> Result<()> {
        let mut entries = Vec::new();
        for (image, names) in images {
            for (layer, blob) in image.layers.iter().zip(&image.manifest.layers) {
                self.blob(blob, Some(layer))?;
            }
            self.blob(&image.manifest.config, None)?;
            let descriptor = Descriptor {
                media_type: image.manifest.media_type.clone(),
                digest: image.digest,
                size: image.size,
            };
            self.blob(&descriptor, None)?;
            let entry = json!({
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest.to_string(),
                "size": descriptor.size,
            });
            for name in names {
                let mut entry = entry.clone();
                entry["annotations"] = json!({ tags::REF_NAME: name });
                entries.push(entry);
            }
            if names.is_empty() {
                entries.push(entry);
            }
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": manifest::index_type(), "manifests": entries,
        });
        self.bytes("index.json", index.to_string().as_bytes())?;
        self.bytes("oci-layout", LAYOUT.as_bytes())
    }

    fn layer(&mut self, layer: &DiffId, member: &str) -> Result<()> {
        if !self.written.insert(member.to_owned()) {
            return Ok(());
        }
        let size = self.store.layer_meta(layer)?.tar_size;
        // What writes and what reads are two: the layer goes through a pipe.
        let (mut reader, mut writer) = io::pipe().map_err(unwritten)?;
        let (store, archive, progress) = (self.store, &mut self.archive, self.progress);
        std::thread::scope(|scope| {
            let restored = scope.spawn(move || store.write_layer(layer, &mut writer));
            let id = Some(layer.0);
            let mut content = Watched::new(&mut reader, progress, id, Status::SavingLayer, size);
            let written = archive.entry(&file(member, size)?, &mut content);
            drop(reader);
            match restored.join() {
                Ok(Err(error)) if error.kind() == super::Kind::Damaged => Err(error),
                Ok(restored) => {
                    written.map_err(unwritten).and(restored)?;
                    progress.tell(id.as_ref(), &Status::SaveComplete, size, size);
                    Ok(())
                }
                Err(_) => Err(Error::failure(format!("layer {}: cannot be read", layer.0))),
            }
        })
    }

    /// Writes a blob; progress is told if it is that of a layer.
    fn blob(&mut self, blob: &Descriptor, layer: Option<&DiffId>) -> Result<()> {
        let member = format!("blobs/sha256/{}", blob.digest.hex());
        if !self.written.insert(member.clone()) {
            return Ok(());
        }
        let mut content = Digesting::new(self.store.open_blob(&blob.digest)?);
        let (id, size, entry) = (layer.map(|layer| layer.0), blob.size, file(&member, blob.size)?);
        let silent = Silent;
        let progress = if id.is_some() { self.progress } else { &silent };
        let mut watched = Watched::new(&mut content, progress, id, Status::SavingLayer, size);
        self.archive.entry(&entry, &mut watched).map_err(unwritten)?;
        progress.tell(id.as_ref(), &Status::SaveComplete, size, size);
        match content.finish() {
            (digest, ..) if digest == blob.digest => Ok(()),
            _ => Err(Error::damaged(format!("blob {} is damaged", blob.digest))),
        }
    }

    fn bytes(&mut self, member: &str, mut bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        if !self.written.insert(member.to_owned()) {
            return Ok(());
        }
        self.archive.entry(&file(member, size)?, &mut bytes as &mut dyn Read).map_err(unwritten)
    }
}

fn file(member: &str, size: u64) -> Result<Entry> {
    Ok(Entry {
        path: EntryPath::parse(member.as_bytes())
            .map_err(|refusal| Error::failure(refusal.to_string()))?,
        kind: Kind::Regular(Extent::whole(size)),
        permissions: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    })
}

fn unwritten(error: io::Error) -> Error {
    Error::failure(format!("the archive cannot be written: {error}"))
}

fn layer_error(layer: &DiffId, error: io::Error) -> Error {
    let layer = layer.0;
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::damaged(format!("layer {layer}: something of it is missing"))
        }
        io::ErrorKind::UnexpectedEof => Error::damaged(format!("layer {layer}: it is damaged")),
        _ => Error::failure(format!("layer {layer}: {error}")),
    }
}
