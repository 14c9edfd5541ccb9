//! Mounting an image: its layers below, and above them a container, a directory of the user's, or nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::hold::Hold;
use super::record::{MountRecord, Record};
use super::{Container, Error, layer_root, name};
use crate::layer::stat_override::StatOverride;
use crate::mount::options::{Options, UpperDirs, XattrPermissions};
use crate::mount::request::MountRequest;
use crate::mount::{self, Witness};
use crate::overlay::id_map::IdMap;
use crate::store::seal::Seal;
use crate::store::{self, Kind, Store, timestamp};

/// Where changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Into the container of this name, which is made if there is none; without a name into a new one.
    Container(Option<String>),
    /// Into a directory of the user's. The work directory is made beside it.
    Upper(PathBuf),
    /// Nowhere: there are none.
    None,
}

/// A mount of an image.
#[derive(Clone, Debug)]
pub struct ImageMount {
    /// The image, by anything that names one; only the mount of a container that exists needs none.
    pub image: Option<String>,
    /// Where changes go.
    pub changes: Changes,
    /// The seal that the image must have. Then everything that is read of it is verified.
    pub seal: Option<Seal>,
    /// Mountpoint and options. Layers and source are set here.
    pub request: MountRequest,
}

/// An image that is about to be mounted: the name is taken, and garbage collection kept out.
pub struct Prepared {
    request: MountRequest,
    tenant: Tenant,
    name: String,
    container: Option<Container>,
    /// Whether the container was made for this mount.
    is_new: bool,
    root: PathBuf,
}

/// Mounts an image; see [`mount::run`], which this calls, for how and when it returns. Gives the name of the mount.
///
/// # Errors
/// If there is no such image, what is named does not go together, the container is mounted, or the mount fails.
/// A container that was made for it is gone then.
pub fn mount(store: Store, wanted: ImageMount) -> Result<String, Error> {
    let prepared = Prepared::new(store, wanted)?;
    let name = prepared.name().to_owned();
    prepared.run().map(|()| name)
}

impl Prepared {
    /// Finds or makes what is to be mounted.
    ///
    /// # Errors
    /// Those of [`mount()`] but for the mount itself.
    pub fn new(store: Store, wanted: ImageMount) -> Result<Self, Error> {
        let ImageMount { image, changes, seal, request } = wanted;
        let name = match &changes {
            Changes::Container(Some(name)) => name::check(name)?.to_owned(),
            _ => name::new(&store)?,
        };
        if matches!(changes, Changes::Container(_)) && !store.is_writable() {
            return Err(no_room_for_containers(&store).into());
        }
        // Before anybody looks whether the container is there: nobody makes or removes it from here on.
        let hold = match store.is_writable() {
            true => Some(Hold::take(&store, &name)?),
            false => None,
        };
        let found = find(&store, image.as_deref(), &changes, &name);
        let (record, container, is_new) = match found {
            Ok(found) => found,
            Err(error) => {
                let released = hold.as_ref().map_or(Ok(()), Hold::remove);
                released.map_err(|error| unwritable(&store, &error))?;
                return Err(error.into());
            }
        };
        let root = store.root().to_owned();
        let container_name = container.as_ref().map(|container| container.record().name.clone());
        let mut prepared = Self {
            tenant: Tenant {
                record: MountRecord {
                    mountpoint: PathBuf::new(),
                    device: None,
                    pid: 0,
                    image: record.image.clone(),
                    manifest: record.manifest,
                    config: record.config,
                    layers: record.layers.clone(),
                    container: container_name,
                    created: timestamp::format(timestamp::now()),
                },
                hold,
                store: Some(store),
            },
            request,
            name,
            container,
            is_new,
            root,
        };
        match prepared.stack(&record, &changes, seal) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                prepared.abandon();
                Err(error.into())
            }
        }
    }

    /// The name: of the container, or of the mount alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether others can find the mount by its name: not where the store cannot be written.
    pub fn is_recorded(&self) -> bool {
        self.tenant.hold.is_some()
    }

    /// The container, if changes go into one.
    pub fn container(&self) -> Option<&Container> {
        self.container.as_ref()
    }

    /// Whether the container was made for this mount.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Has it mounted at `mountpoint` for a container's processes: by root of the namespace that they are in, which sees
    /// the ids of the image, with the directory `lowest` below all layers, and as long as whoever mounts it lives.
    pub fn in_namespace(&mut self, mountpoint: PathBuf, lowest: PathBuf) {
        let MountRequest { options, .. } = &mut self.request;
        options.lower.push(lowest);
        (options.uid_map, options.gid_map) = (IdMap::default(), IdMap::default());
        self.request.mountpoint = mountpoint;
        self.request.ends_with_caller = true;
    }

    /// Mounts, as [`mount::run`] does.
    ///
    /// # Errors
    /// If that fails; a container that was made for this mount, and in which nothing has changed, is gone then.
    pub fn run(mut self) -> Result<(), Error> {
        let result = self.serve();
        if result.is_err() {
            self.abandon();
        }
        result
    }

    /// Mounts, and leaves it to the caller to [`Self::abandon`] what has failed.
    ///
    /// # Errors
    /// Those of [`mount::run`].
    pub fn serve(&mut self) -> Result<(), Error> {
        Ok(mount::run_with(&self.request, &mut self.tenant)?)
    }

    /// Puts the layers into the request.
    fn stack(
        &mut self,
        record: &Record,
        changes: &Changes,
        seal: Option<Seal>,
    ) -> store::Result<()> {
        let Some(store) = &self.tenant.store else { return Ok(()) };
        let (request, options) = (&mut self.request.source, &mut self.request.options);
        *request = Some(record.image.clone().into());
        if record.layers.is_empty() {
            if seal.is_some() {
                let line = format!("image {}: it has no layers that could be sealed", record.image);
                return Err(store::Error::failure(line));
            }
            // In the record of the mount, it is kept from `store gc` as long as that lives.
            let empty = store.empty_layer()?;
            self.tenant.record.layers.push(empty);
            options.lower.push(store.layer_path(&empty).join("index"));
        }
        for layer in record.layers.iter().rev() {
            if !store.has_layer(layer) {
                let line = format!(
                    "image {}: layer {} is not stored; load it again",
                    record.image, layer.0
                );
                return Err(store::Error::damaged(line));
            }
            options.lower.push(store.layer_path(layer).join("index"));
        }
        if let Some(seal) = seal {
            require(store, record, seal, options)?;
        }
        show_root_as_caller(options);
        let (upper, work) = match (changes, &self.container) {
            (Changes::Upper(upper), _) => own_upper(store, upper, record)?,
            (_, Some(container)) => (container.upper(), container.work()),
            (_, None) => return Ok(()),
        };
        if options.xattr_permissions == XattrPermissions::Off {
            let unusable = |error: io::Error| {
                store::Error::failure(format!("upper layer {}: {error}", upper.display()))
            };
            options.xattr_permissions = match layer_root::form(&upper).map_err(unusable)? {
                Some(StatOverride::Containers) => XattrPermissions::Containers,
                Some(StatOverride::Security) => XattrPermissions::Privileged,
                Some(StatOverride::User) | None => XattrPermissions::Off,
            };
        }
        options.upper = Some(UpperDirs { upper, work });
        Ok(())
    }

    /// Takes back what was made for a mount that has not come about.
    pub fn abandon(self) {
        let Self { tenant: Tenant { hold, store, .. }, container, is_new, root, .. } = self;
        if let Some(Err(error)) = hold.as_ref().map(Hold::remove) {
            log::warn!("mounts of {}: {error}", root.display());
        }
        drop(hold);
        let Some(container) = container.filter(|_| is_new) else { return };
        let remove = || -> store::Result<()> {
            let store = store.map_or_else(|| Store::open(&root), Ok)?;
            match container.is_untouched() {
                Ok(true) => container.remove(&store),
                // Removed by somebody else, or in use.
                Ok(false) | Err(_) => Ok(()),
            }
        };
        if let Err(error) = remove() {
            log::warn!("{error}");
        }
    }
}

/// What is to be mounted: what is known about it, the container, and whether that is new.
fn find(
    store: &Store,
    image: Option<&str>,
    changes: &Changes,
    name: &str,
) -> store::Result<(Record, Option<Container>, bool)> {
    let old = match changes {
        Changes::Container(Some(_)) => Container::named(store, name)?,
        _ => None,
    };
    if let Some(old) = old {
        if let Some(image) = image {
            refuse_another(store, image, &old)?;
        }
        return Ok((old.record().clone(), Some(old), false));
    }
    let Some(reference) = image else {
        let root = store.root().display();
        return Err(store::Error::not_found(format!("no container `{name}` in {root}")));
    };
    let image = store.find_image(reference)?;
    let called = image.tags.iter().find(|tag| *tag == reference || is_short_for(reference, tag));
    let called = called.map_or(reference, String::as_str);
    match changes {
        Changes::Container(_) => {
            let new = Container::create(store, Some(name), &image, called)?;
            Ok((new.record().clone(), Some(new), true))
        }
        Changes::Upper(_) | Changes::None => {
            Ok((Record::new(name, called, &image, timestamp::now()), None, false))
        }
    }
}

/// Has the image mounted as the seal says, or not at all: the indexes that are opened must be those it was computed of.
fn require(store: &Store, record: &Record, seal: Seal, options: &mut Options) -> store::Result<()> {
    let sealed = store.require_seal(&record.config, seal)?;
    if !sealed.layers.iter().map(|(layer, _)| layer).eq(&record.layers) {
        let line = format!("container {}: its layers are not those of its image", record.name);
        return Err(store::Error::damaged(line));
    }
    options.verify = true;
    options.sealed = sealed.layers.iter().rev().map(|(_, index)| *index).collect();
    Ok(())
}

/// Who is not root owns what root owns in the image, as in a user namespace of his own: else he could change nothing, since
/// the kernel goes by the owners that are shown.
fn show_root_as_caller(options: &mut Options) {
    let chosen = options.squash_uid.is_some() || options.squash_gid.is_some();
    if chosen || !options.uid_map.is_identity() || !options.gid_map.is_identity() {
        return;
    }
    if !geteuid().is_root() {
        options.uid_map = IdMap::exchanging_root(geteuid().as_raw());
        options.gid_map = IdMap::exchanging_root(getegid().as_raw());
    }
}

/// Whether `tag` is the whole form of a name.
fn is_short_for(text: &str, tag: &str) -> bool {
    text.parse::<store::reference::Reference>().is_ok_and(|name| name.to_string() == tag)
}

/// A container stays over the image that it was made over.
fn refuse_another(store: &Store, image: &str, container: &Container) -> store::Result<()> {
    let Record { name, image: of, config, .. } = container.record();
    let found = match store.find_image(image) {
        Ok(found) => found,
        // The layers of an image that has lost its name are kept for its containers.
        Err(error)
            if error.kind() == Kind::NotFound && (image == of || is_short_for(image, of)) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if found.id() == *config {
        return Ok(());
    }
    let (old, new) = (&config.hex()[..12], &found.id().hex()[..12]);
    Err(store::Error::failure(format!(
        "container {name} is over image {of} ({old}), not {image} ({new}): leave the image out, or choose another name"
    )))
}

/// The directory `upper` of the user's, with the attributes of the image's root if it is a new layer of an ordinary
/// user's, and the work directory for it.
fn own_upper(store: &Store, upper: &Path, record: &Record) -> store::Result<(PathBuf, PathBuf)> {
    let failed = |error: io::Error| {
        store::Error::failure(format!("upper layer {}: {error}", upper.display()))
    };
    let path = upper.canonicalize().map_err(failed)?;
    let Some(name) = path.file_name() else {
        return Err(failed(io::Error::other("there is no place beside it for the work directory")));
    };
    let mut beside = name.to_owned();
    beside.push(".work");
    let work = path.with_file_name(beside);
    match fs::create_dir(&work) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let work = work.display();
            return Err(store::Error::failure(format!("work directory {work}: {error}")));
        }
        _ => {}
    }
    layer_root::adopt(&path, &layer_root::of_image(store, &record.layers)?).map_err(failed)?;
    Ok((path, work))
}

fn no_room_for_containers(store: &Store) -> store::Error {
    let root = store.root().display();
    store::Error::failure(format!(
        "store {root}: it cannot be written, so there is no room for a container; mount the image with -r, or with --upper DIR"
    ))
}

fn unwritable(store: &Store, error: &io::Error) -> store::Error {
    store::Error::failure(format!("store {}: mounts: {error}", store.root().display()))
}

/// The mount in the process that serves it: keeps the name as long as that lives.
struct Tenant {
    /// None in a store that cannot be written.
    hold: Option<Hold>,
    record: MountRecord,
    /// Open until the record is written; where there is none as long as the mount lives, since nothing else keeps `store gc`
    /// from its layers.
    store: Option<Store>,
}

impl Witness for Tenant {
    fn begins(&mut self, mountpoint: &Path) -> io::Result<()> {
        self.record.mountpoint = mountpoint.to_owned();
        self.record.pid = std::process::id();
        self.hold.as_ref().map_or(Ok(()), |hold| hold.write(&self.record))
    }

    fn mounted(&mut self, device: (u32, u32)) -> io::Result<()> {
        if let Some(hold) = &self.hold {
            self.record.device = Some(device);
            hold.write(&self.record)?;
            // Only now: who collects garbage must not read a record that is being written.
            self.store = None;
        }
        Ok(())
    }

    fn ended(&mut self) -> io::Result<()> {
        self.hold.as_ref().map_or(Ok(()), Hold::remove)
    }
}
