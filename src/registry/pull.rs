//! From a registry into the store.

use std::sync::Mutex;
use std::sync::PoisonError;

use super::{Client, Target};
use crate::store::arriving::Arriving;
use crate::store::import::Import;
use crate::store::load::DEEPEST_INDEX;
use crate::store::manifest::{self, Descriptor, Platform};
use crate::store::progress::{Progress, Status, Watched};
use crate::store::{DiffId, Digest, Error, Result, Store, config};

/// How many layers come at once.
const AT_ONCE: usize = 3;

/// An image that has been pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What the name refers to: a manifest, or an index of manifests.
    pub digest: Digest,
    /// Its id.
    pub id: Digest,
    /// Whether the name meant another image before, or none.
    pub is_new: bool,
}

/// Takes an image from the registry of `client` into the store, under its name.
///
/// # Errors
/// Nothing is stored then.
pub fn pull(
    store: &Store,
    client: &Client,
    target: &Target,
    platform: &Platform,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let (named, bytes) = client.manifest(&target.wanted())?;
    let digest = named.digest;
    let (descriptor, bytes) = manifest(client, named, bytes, platform)?;
    let name = target.digest.is_none().then_some(&target.name);
    if let Some(id) = is_there(store, &descriptor, name.map(ToString::to_string).as_deref()) {
        return Ok(Pulled { digest, id, is_new: false });
    }
    let config = |config: &Descriptor| client.small_blob(config, config::LONGEST);
    let image = Arriving::new(descriptor, bytes, config)?;
    let missing = missing(store, &image, progress)?;
    let mut imports = layers(store, client, missing, progress)?;
    let import = store.import()?;
    import.image(&image)?;
    imports.push(import);
    Import::publish_together(imports)?;
    store.tag_all(&image.descriptor, &name.cloned().into_iter().collect::<Vec<_>>())?;
    Ok(Pulled { digest, id: image.id, is_new: true })
}

/// The manifest that `named` is or, through indexes, leads to.
fn manifest(
    client: &Client,
    mut named: Descriptor,
    mut bytes: Vec<u8>,
    platform: &Platform,
) -> Result<(Descriptor, Vec<u8>)> {
    for _ in 0..DEEPEST_INDEX {
        if !named.is_index() {
            return Ok((named, bytes));
        }
        let entries = manifest::read_index(&bytes, &named.media_type)?;
        named = platform.choose(entries)?.descriptor;
        (_, bytes) = client.manifest(&named.digest.to_string())?;
    }
    Err(Error::failure("its indexes lead too deep"))
}

/// The id of the image of this manifest, if the store has all of it, under this name.
fn is_there(store: &Store, manifest: &Descriptor, name: Option<&str>) -> Option<Digest> {
    let tagged = store.tagged().ok()?;
    let tagged = tagged.iter().find(|tagged| {
        tagged.manifest == manifest.digest
            && name.is_none_or(|name| tagged.name.as_deref() == Some(name))
    })?;
    let image = store.image_of(tagged).ok()?;
    let blobs = image.manifest.layers.iter().all(|blob| store.has_blob(&blob.digest));
    let layers = image.layers.iter().all(|layer| store.has_layer(layer));
    (blobs && layers).then_some(image.id())
}

/// The layers that the store does not have, each once.
fn missing(
    store: &Store,
    image: &Arriving,
    progress: &dyn Progress,
) -> Result<Vec<(DiffId, Descriptor)>> {
    let known = store.known_blobs()?;
    let mut missing: Vec<(DiffId, Descriptor)> = Vec::new();
    for (layer, blob) in &image.layers {
        let id = Some(&blob.digest);
        if known.get(layer).is_some_and(|known| known.digest == blob.digest) {
            progress.tell(id, &Status::AlreadyExists, blob.size, blob.size);
        } else if !missing.contains(&(*layer, blob.clone())) {
            progress.tell(id, &Status::PullingFsLayer, 0, blob.size);
            missing.push((*layer, blob.clone()));
        }
    }
    Ok(missing)
}

/// Fetches layers, a few at once, each straight into an import; the first failure ends all.
fn layers<'s>(
    store: &'s Store,
    client: &Client,
    layers: Vec<(DiffId, Descriptor)>,
    progress: &dyn Progress,
) -> Result<Vec<Import<'s>>> {
    let workers = layers.len().min(AT_ONCE);
    let waiting = Mutex::new(layers.into_iter());
    let first_error = Mutex::new(None);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut import = store.import()?;
        while let Some((layer, blob)) = next().filter(|_| !client.pace.is_stopped()) {
            fetch(&mut import, client, &layer, &blob, progress)?;
        }
        Ok(import)
    };
    let work = || {
        let done: Result<Import<'s>> = work();
        done.map_err(|error| {
            let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
            client.pace.stop();
        })
    };
    let imports: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()?.ok()).collect()
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None if imports.len() < workers => Err(Error::failure("a layer could not be fetched")),
        None => Ok(imports),
    }
}

fn fetch(
    import: &mut Import<'_>,
    client: &Client,
    layer: &DiffId,
    blob: &Descriptor,
    progress: &dyn Progress,
) -> Result<()> {
    let id = Some(blob.digest);
    let size = blob.size;
    let content = Watched::new(client.blob(blob)?, progress, id, Status::Downloading, size)
        .then(Status::Extracting);
    import.expected_layer(&blob.digest.to_string(), content, layer, Some(blob))?;
    progress.tell(id.as_ref(), &Status::PullComplete, size, size);
    Ok(())
}
