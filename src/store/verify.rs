//! Whether everything in a store is what its name says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;

use super::collect::digest_of;
use super::layer_import::Keep;
use super::manifest::Descriptor;
use super::objects::id_of;
use super::{DiffId, Digest, Error, Result, Store};
use crate::archive::{Compressor, Limits};
use crate::layer::packed::Index;
use crate::sys::FileKind;

/// How thoroughly, and whether to mend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verify {
    /// Read and hash everything; otherwise only indexes are, and of the rest names and sizes are compared.
    pub full: bool,
    /// Make layers again from their blobs, and blobs from their layers. The store has been opened by
    /// [`Store::open_alone`].
    pub repair: bool,
}

/// What is wrong.
#[derive(Debug)]
pub struct Problem {
    /// One line: what, and how.
    pub text: String,
    /// Whether it has been mended.
    pub repaired: bool,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Images.
    pub images: u64,
    /// Layers.
    pub layers: u64,
    /// Objects; 0 if they were not read.
    pub objects: u64,
    /// Problems.
    pub problems: u64,
    /// Those that were mended.
    pub repaired: u64,
}

struct Run<'s, 'r> {
    store: &'s Store,
    how: Verify,
    /// The blobs of each layer, which may be there in several compressions.
    blobs: BTreeMap<(DiffId, Digest), Descriptor>,
    damaged: BTreeSet<[u8; 32]>,
    verified: Verified,
    report: &'r mut dyn FnMut(&Problem),
}

impl Store {
    /// Looks at everything, and calls `report` for each problem.
    pub fn verify(&self, how: Verify, report: &mut dyn FnMut(&Problem)) -> Result<Verified> {
        let (blobs, damaged) = (BTreeMap::new(), BTreeSet::new());
        let verified = Verified::default();
        let mut run = Run { store: self, how, blobs, damaged, verified, report };
        let unread = |error: io::Error| Error::failure(format!("store: cannot be read: {error}"));
        let referred = run.images()?;
        if how.full {
            run.objects().map_err(unread)?;
        }
        run.layers(referred).map_err(unread)?;
        run.all_blobs();
        Ok(run.verified)
    }
}

impl Run<'_, '_> {
    fn problem(&mut self, text: String, repaired: bool) {
        self.verified.problems += 1;
        self.verified.repaired += u64::from(repaired);
        (self.report)(&Problem { text, repaired });
    }

    /// Looks at manifests and configurations; returns the layers that they name.
    fn images(&mut self) -> Result<BTreeSet<DiffId>> {
        let mut layers = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for tagged in self.store.tagged()? {
            if !seen.insert(tagged.manifest) {
                continue;
            }
            match self.store.image_of(&tagged) {
                Ok(image) => {
                    self.verified.images += 1;
                    layers.extend(image.layers.iter().copied());
                    let blobs = image.layers.into_iter().zip(image.manifest.layers);
                    self.blobs.extend(blobs.map(|(layer, blob)| ((layer, blob.digest), blob)));
                }
                Err(error) => self.problem(error.to_string(), false),
            }
        }
        Ok(layers)
    }

    /// Hashes all objects. Those that are damaged are removed when layers are to be made again.
    fn objects(&mut self) -> io::Result<()> {
        for folder in fs::read_dir(self.store.root().join("objects"))? {
            for entry in fs::read_dir(folder?.path())? {
                let path = entry?.path();
                let Some(id) = id_of(&path) else { continue };
                self.verified.objects += 1;
                let mut hasher = blake3::Hasher::new();
                let read = hasher.update_reader(File::open(&path)?).map(|_| ());
                if read.is_err() || hasher.finalize() != id {
                    self.damaged.insert(*id.as_bytes());
                    if self.how.repair {
                        fs::remove_file(&path)?;
                    } else {
                        self.problem(format!("object {id}: it is damaged"), false);
                    }
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self, mut layers: BTreeSet<DiffId>) -> io::Result<()> {
        for entry in fs::read_dir(self.store.root().join("layers"))? {
            layers.extend(digest_of(&entry?.file_name()).map(DiffId));
        }
        for layer in layers {
            self.verified.layers += 1;
            if let Err(why) = self.layer(&layer) {
                let (text, repaired) = match self.how.repair.then(|| self.make_again(&layer)) {
                    Some(Err(error)) => (format!("{why}; {error}"), false),
                    Some(Ok(())) => (why, true),
                    None => (why, false),
                };
                self.problem(format!("layer {}: {text}", layer.0), repaired);
            }
        }
        Ok(())
    }

    fn layer(&self, layer: &DiffId) -> std::result::Result<(), String> {
        let path = self.store.layer_path(layer);
        let open =
            |name: &str| File::open(path.join(name)).map_err(|error| format!("{name}: {error}"));
        self.store.layer_meta(layer).map_err(|error| error.to_string())?;
        open("tar-split")?;
        let index = Index::open(&open("index")?).map_err(|_| "index: it is damaged")?;
        if !index.is_sound() {
            return Err("index: it is damaged".to_owned());
        }
        for number in 0..index.inodes() {
            self.content(&index, number)?;
        }
        if self.how.full {
            let written = self.store.write_layer(layer, &mut io::sink());
            written.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Looks for the content of an inode.
    fn content(&self, index: &Index, number: u32) -> std::result::Result<(), String> {
        let damaged = |_| "index: it is damaged".to_owned();
        let inode = index.inode(number).map_err(damaged)?;
        if inode.kind() != FileKind::Regular {
            return Ok(());
        }
        let Some(id) = index.content(&inode).map_err(damaged)? else { return Ok(()) };
        if self.damaged.contains(id.as_bytes()) {
            return Err(format!("object {id}: it is damaged"));
        }
        match self.store.objects().size(&id) {
            Ok(Some(size)) if size == inode.size => Ok(()),
            Ok(Some(_)) => Err(format!("object {id}: it has another size")),
            Ok(None) => Err(format!("object {id}: it is missing")),
            Err(error) => Err(format!("object {id}: {error}")),
        }
    }

    /// Makes a layer again out of the first of its blobs that is right.
    fn make_again(&self, layer: &DiffId) -> Result<()> {
        let mut made = Err(Error::failure("no image has a blob of it: load it again"));
        for (_, blob) in self.blobs.iter().filter(|((of, _), _)| of == layer) {
            made = self.make_from(layer, blob);
            if made.is_ok() {
                break;
            }
        }
        made
    }

    fn make_from(&self, layer: &DiffId, blob: &Descriptor) -> Result<()> {
        let file = self.store.open_blob(&blob.digest)?;
        let mut import = self.store.import()?;
        // A content of another size has the name that the right one needs.
        self.remove_wrong(layer).map_err(|error| self.store.cannot_store(error))?;
        let old = self.store.layer_path(layer);
        if old.exists() {
            fs::rename(&old, import.stage.path("old")).map_err(|e| self.store.cannot_store(e))?;
        }
        let made = import.layer(&layer.0.to_string(), file, Limits::default(), Keep::AsItCame)?;
        if made.diff_id != *layer {
            return Err(Error::damaged("its blob is damaged too"));
        }
        import.publish()
    }

    fn remove_wrong(&self, layer: &DiffId) -> io::Result<()> {
        let Ok(file) = File::open(self.store.layer_path(layer).join("index")) else {
            return Ok(());
        };
        let Ok(index) = Index::open(&file) else { return Ok(()) };
        for number in 0..index.inodes() {
            let Ok(inode) = index.inode(number) else { continue };
            let Ok(Some(id)) = index.content(&inode) else { continue };
            if self.store.objects().size(&id)?.is_some_and(|size| size != inode.size) {
                self.store.objects().remove(&id)?;
            }
        }
        Ok(())
    }

    fn all_blobs(&mut self) {
        for ((layer, _), blob) in self.blobs.clone() {
            let Err(why) = self.blob(&blob) else { continue };
            let repaired = self.how.repair && self.compress_again(&layer, &blob).is_ok();
            self.problem(format!("blob {}: {why}", blob.digest), repaired);
        }
    }

    fn blob(&self, blob: &Descriptor) -> std::result::Result<(), String> {
        let path = self.store.blob_path(&blob.digest);
        let size = fs::metadata(&path).map_err(|_| "it is missing")?.len();
        if size != blob.size {
            return Err("it has another size".to_owned());
        }
        if self.how.full {
            let file = File::open(&path).map_err(|error| error.to_string())?;
            let mut hashed = super::digest::Digesting::new(file);
            io::copy(&mut hashed, &mut io::sink()).map_err(|error| error.to_string())?;
            if hashed.finish().0 != blob.digest {
                return Err("it is damaged".to_owned());
            }
        }
        Ok(())
    }

    /// Makes a blob again out of its layer, which gives the same bytes if they were compressed here.
    fn compress_again(&self, layer: &DiffId, blob: &Descriptor) -> Result<()> {
        let import = self.store.import()?;
        let failed = |error: io::Error| self.store.cannot_store(error);
        let compress = blob.compression();
        let out = import.new_blob().and_then(|out| Compressor::new(compress, out));
        let mut out = out.map_err(failed)?;
        self.store.write_layer(layer, &mut out)?;
        let path = self.store.blob_path(&blob.digest);
        if path.exists() {
            fs::rename(&path, import.stage.path("old")).map_err(failed)?;
        }
        let (made, _) = import.keep_blob(out.finish().map_err(failed)?).map_err(failed)?;
        if made != blob.digest {
            return Err(Error::damaged("its bytes are lost"));
        }
        import.publish()
    }
}
