//! From the store into a registry.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::{Client, Target};
use crate::store::image::Image;
use crate::store::manifest::{self, Descriptor};
use crate::store::progress::{Progress, Status, Watched};
use crate::store::{DiffId, Digest, Result, Store, config};

/// How many layers go at once.
const AT_ONCE: usize = 3;

/// Repositories of the same registry that may have a blob already: from there nothing needs to be sent.
pub type Elsewhere = BTreeMap<Digest, String>;

/// Where in the registry of `target` the blobs of `image` may be: in the repositories by which the store calls other images
/// with the same blobs.
pub fn elsewhere(store: &Store, image: &Image, target: &Target) -> Result<Elsewhere> {
    let wanted: Vec<Digest> = image.manifest.layers.iter().map(|blob| blob.digest).collect();
    let mut found = Elsewhere::new();
    for tagged in store.tagged()? {
        let name = tagged.name.as_deref().and_then(|name| name.parse::<Target>().ok());
        let same = |name: &Target| {
            name.registry() == target.registry() && name.repository() != target.repository()
        };
        let Some(name) = name.filter(same) else { continue };
        // Of an image that cannot be read nothing is known.
        let Ok(other) = store.image_of(&tagged) else { continue };
        let blobs = other.manifest.layers.iter().map(|blob| blob.digest);
        found.extend(blobs.filter(|blob| wanted.contains(blob)).map(|it| (it, name.repository())));
    }
    Ok(found)
}

/// What servers of tokens are asked for.
pub fn scopes(target: &Target, elsewhere: &Elsewhere) -> Vec<String> {
    let mut scopes = vec![format!("repository:{}:pull,push", target.repository())];
    for other in elsewhere.values() {
        let scope = format!("repository:{other}:pull");
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

/// Gives an image to the registry of `client`. Its manifest goes byte by byte as it is kept, after everything that it names.
pub fn push(
    store: &Store,
    client: &Client,
    image: &Image,
    target: &Target,
    elsewhere: &Elsewhere,
    progress: &dyn Progress,
) -> Result<()> {
    let mut layers: Vec<(DiffId, Descriptor)> = Vec::new();
    for layer in image.layers.iter().copied().zip(image.manifest.layers.iter().cloned()) {
        if !layers.contains(&layer) {
            progress.tell(Some(&layer.0.0), &Status::Preparing, 0, layer.1.size);
            layers.push(layer);
        }
    }
    let push = Push { store, client, elsewhere, progress };
    push.layers(layers)?;
    let bytes = store.read_blob(&image.id(), config::LONGEST)?;
    if !client.has_blob(&image.manifest.config)? {
        client.put_blob(&image.manifest.config, None, &|| Ok(Box::new(&*bytes)))?;
    }
    let manifest = store.read_blob(&image.digest, manifest::LONGEST)?;
    let media_type = image.manifest.media_type.clone();
    let descriptor = Descriptor { media_type, digest: image.digest, size: image.size };
    client.put_manifest(&target.wanted(), &descriptor, &manifest)
}

struct Push<'p> {
    store: &'p Store,
    client: &'p Client,
    elsewhere: &'p Elsewhere,
    progress: &'p dyn Progress,
}

impl Push<'_> {
    /// Sends layers, a few at once; the first failure ends all.
    fn layers(&self, layers: Vec<(DiffId, Descriptor)>) -> Result<()> {
        let workers = layers.len().min(AT_ONCE);
        let waiting = Mutex::new(layers.into_iter());
        let first_error = Mutex::new(None);
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((layer, blob)) = next().filter(|_| !self.client.pace.is_stopped()) {
                let Err(error) = self.layer(&layer, &blob) else { continue };
                let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                self.client.pace.stop();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        let first_error = first_error.into_inner().unwrap_or_else(PoisonError::into_inner);
        first_error.map_or(Ok(()), Err)
    }

    fn layer(&self, layer: &DiffId, blob: &Descriptor) -> Result<()> {
        let (id, size) = (Some(layer.0), blob.size);
        let tell = |status: &Status| self.progress.tell(id.as_ref(), status, size, size);
        if self.client.has_blob(blob)? {
            tell(&Status::LayerAlreadyExists);
            return Ok(());
        }
        let open = || -> Result<Box<dyn Read + '_>> {
            let file = self.store.open_blob(&blob.digest)?;
            Ok(Box::new(Watched::new(file, self.progress, id, Status::Pushing, size)))
        };
        let from = self.elsewhere.get(&blob.digest);
        if self.client.put_blob(blob, from.map(String::as_str), &open)? {
            tell(&Status::MountedFrom(from.cloned().unwrap_or_default()));
        } else {
            tell(&Status::Pushed);
        }
        Ok(())
    }
}
