//! Opening a union: from paths to layers, with every refusal that can be given before anything is mounted.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::RwLock;

use super::changing::Changing;
use super::directory::Directory;
use super::figures::Done;
use super::inode_number::InodeNumbers;
use super::node::{Node, NodeId};
use super::node_state::Place;
use super::node_table::NodeTable;
use super::pins::Pins;
use super::{Caller, Ids, Overlay};
use crate::layer::lower::{Covered, DirLayer, Layer};
use crate::layer::packed::PackedLayer;
use crate::layer::packed::layer::ObjectFolders;
use crate::layer::stat_override::{Keeper, StatOverride};
use crate::layer::upper::UpperParts;
use crate::layer::volatile_mark::{self, VolatileMark};
use crate::layer::windows::Windows;
use crate::layer::{Descriptors, LowerPlace, Lowers, Name, Upper, claim};
use crate::sys::{Errno, FileKind, Object, Stat, file_handle, open, stat::stat_fd};

/// What rename(2) does with a directory that has parts in lower layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPolicy {
    /// Copies all of it up first: the layer can be read by everything.
    #[default]
    Copy,
    /// Copies the directory itself up, with a redirect to the lower parts (the kernel's
    /// `redirect_dir=on`).
    Redirect,
    /// Fails with `EXDEV`, so that programs copy by themselves.
    Refuse,
}

/// The writable layer.
#[derive(Clone, Debug)]
pub struct UpperDirs {
    /// The layer.
    pub upper: PathBuf,
    /// The work directory, on the same filesystem.
    pub work: PathBuf,
}

/// What a union is made of.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The read-only layers, top first.
    pub lower: Vec<PathBuf>,
    /// The root of the layer that the directories among the lower layers are parts of, where they are: it says how attributes
    /// are stored.
    pub part_of: Option<PathBuf>,
    /// Layers that only hold the data of metacopy files.
    pub data_only: Vec<PathBuf>,
    /// The writable layer; without one, nothing can be changed.
    pub upper: Option<UpperDirs>,
    /// Where the union will be mounted, as an absolute path without links, if it will be.
    pub mountpoint: Option<PathBuf>,
    /// Whether nothing needs to survive a crash of the machine.
    pub volatile: bool,
    /// How directories with lower parts are renamed.
    pub redirect: RedirectPolicy,
    /// Whether a change of a lower file's attributes copies no data.
    pub metacopy: bool,
    /// Whether contents of packed layers are compared with their hashes.
    pub verify: bool,
    /// The checksums that the indexes of the lower layers must have, top first; empty if it does not matter.
    pub sealed: Vec<blake3::Hash>,
    /// Whether a layer that has redirects is refused.
    pub refuse_redirects: bool,
    /// Whether to write marks as `user.overlay.` attributes only.
    pub user_xattr: bool,
    /// Whether to write `.wh.` files even where whiteout devices are possible.
    pub force_dot_whiteouts: bool,
    /// The form in which owners, modes and devices are stored in attributes of a new upper layer.
    pub store_attributes: Option<StatOverride>,
    /// The translation of owners.
    pub ids: Ids,
    /// Whether others change lower layers while the union is in use.
    pub changing: bool,
    /// Whether inode numbers are cut to 32 bits.
    pub ino32: bool,
}

/// Why a union cannot be opened: one line that says what to do.
#[derive(Debug)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Descriptors that are left for everything but the cache.
const RESERVED_DESCRIPTORS: usize = 64;
const MOST_LAYERS: usize = 60_000;
const LARGEST_CACHE: usize = 16384;
const SMALLEST_CACHE: usize = 32;

impl Overlay {
    /// Opens the layers of a union. All layer roots are open afterwards, and are never looked up by path
    /// again.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let descriptors = Arc::new(Descriptors::new(descriptor_budget(config)?));
        if config.lower.is_empty() {
            return Err(OpenError("lowerdir: at least one lower layer is needed".into()));
        }
        if let Err(error) = open::directory(Path::new("/proc/self/fd")) {
            return Err(OpenError(format!("/proc/self/fd: {error}; mount /proc first")));
        }
        let upper = match &config.upper {
            Some(dirs) => {
                let real = UpperDirs {
                    upper: canonical("upperdir", &dirs.upper)?,
                    work: canonical("workdir", &dirs.work)?,
                };
                check_overlap(config, dirs, &real)?;
                Some(open_upper(config, dirs, &real)?)
            }
            None => None,
        };
        let all = config.lower.iter().chain(&config.data_only);
        let mut folders = ObjectFolders::default();
        let layers = all
            .enumerate()
            .map(|(position, path)| open_lower(config, path, position, &mut folders));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let lowers = Lowers::new(layers, config.lower.len(), descriptors.clone());
        let numbers = InodeNumbers::new(config.ino32);
        let root = open_root(upper.as_ref(), &lowers, &numbers)
            .map_err(|error| OpenError(format!("cannot read the root of the union: {error}")))?;
        Ok(Self {
            nodes: NodeTable::new(root),
            lowers,
            upper,
            descriptors,
            windows: Windows::default(),
            lowers_change: false,
            delayed: Box::new(|_| ()),
            numbers,
            ids: config.ids.clone(),
            redirect: config.redirect,
            metacopy: config.metacopy,
            refuse_redirects: config.refuse_redirects,
            own: Caller {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                thread: 0,
            },
            rename_lock: RwLock::new(()),
            pins: Pins::default(),
            changing: config.changing.then(Changing::default),
            forgotten: AtomicUsize::new(0),
            done: Done::default(),
        })
    }
}

fn descriptor_budget(config: &Config) -> Result<usize, OpenError> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(LARGEST_CACHE, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let layers = config.lower.len() + config.data_only.len();
    if layers > MOST_LAYERS {
        return Err(OpenError(format!("lowerdir: {layers} layers; there can be {MOST_LAYERS}")));
    }
    let fixed = fixed_descriptors(config) + RESERVED_DESCRIPTORS;
    if limit < fixed + SMALLEST_CACHE {
        return Err(OpenError(format!(
            "lowerdir: {} layers need a limit of at least {} open files, this process has {limit}; \
             raise it with ulimit -n",
            config.lower.len(),
            fixed + SMALLEST_CACHE
        )));
    }
    Ok((limit - fixed).min(LARGEST_CACHE))
}

/// The descriptors that layers need as long as they are mounted: one for a directory, one for all packed layers of a store.
fn fixed_descriptors(config: &Config) -> usize {
    let all = config.lower.iter().chain(&config.data_only);
    let (packed, directories): (Vec<_>, Vec<_>) = all.partition(|path| path.is_file());
    let stores: HashSet<_> = packed.iter().filter_map(|index| index.ancestors().nth(3)).collect();
    directories.len() + stores.len()
}

fn open_dir(option: &str, path: &Path) -> Result<OwnedFd, OpenError> {
    open::directory(path).map_err(|error| refusal(option, path, error))
}

fn refusal(option: &str, path: &Path, error: Errno) -> OpenError {
    let path = path.display();
    OpenError(match error {
        Errno::NOENT => format!("{option}: {path} does not exist; create it or correct the path"),
        Errno::NOTDIR => format!("{option}: {path} is not a directory"),
        Errno::ACCESS | Errno::PERM => format!("{option}: no permission to use {path}"),
        error => format!("{option}: cannot open {path}: {error}"),
    })
}

fn open_packed(
    config: &Config,
    path: &Path,
    position: usize,
    folders: &mut ObjectFolders,
) -> Result<Layer, OpenError> {
    let layer = PackedLayer::open(path, position, config.verify, folders);
    let layer = layer.map_err(|error| match error {
        Errno::INVAL => OpenError(format!(
            "lowerdir: {} is neither a directory nor the index of a stored layer",
            path.display()
        )),
        Errno::IO if config.verify => OpenError(format!(
            "lowerdir: {} is damaged; see plyfs store verify --repair",
            path.display()
        )),
        error => refusal("lowerdir", path, error),
    })?;
    match config.sealed.get(position) {
        Some(wanted) if *wanted != layer.index().checksum() => Err(OpenError(format!(
            "lowerdir: {} is not the index that the seal is over",
            path.display()
        ))),
        _ => Ok(Layer::Packed(Box::new(layer))),
    }
}

fn open_lower(
    config: &Config,
    path: &Path,
    position: usize,
    folders: &mut ObjectFolders,
) -> Result<Layer, OpenError> {
    if path.is_file() {
        return open_packed(config, path, position, folders);
    }
    let plain = open_dir("lowerdir", path)?;
    let private = crate::sys::mount::private_clone(plain.as_fd(), true)
        .map_err(|error| refusal("lowerdir", path, error))?;
    let is_private = private.is_some();
    let covered = if is_private { None } else { covered(config, path)? };
    let root = Arc::new(private.unwrap_or(plain));
    let refused = |error| refusal("lowerdir", path, error);
    let teller = match &config.part_of {
        Some(whole) => Arc::new(open_dir("lowerdir", whole)?),
        None => root.clone(),
    };
    let overriding = StatOverride::detect(&Object::Own(teller.clone())).map_err(refused)?;
    let keeper = Keeper::find(&Object::Own(teller), overriding).map_err(refused)?;
    let dev = stat_fd(root.as_fd()).map_err(refused)?.dev;
    let uuid = open::reopen_directory(root.as_fd())
        .and_then(|dir| file_handle::filesystem_uuid(dir.as_fd()))
        .ok();
    Ok(Layer::Dir(DirLayer {
        root,
        private: is_private,
        covered,
        filesystem: (dev, uuid),
        overriding,
        keeper,
        path: path.to_owned(),
    }))
}

/// Where the mountpoint lies in the layer at `path`, if it does.
fn covered(config: &Config, path: &Path) -> Result<Option<Covered>, OpenError> {
    let Some(mountpoint) = &config.mountpoint else { return Ok(None) };
    let layer = canonical("lowerdir", path)?;
    let Ok(inside) = mountpoint.strip_prefix(&layer) else { return Ok(None) };
    let directory = open_dir("mountpoint", mountpoint)?;
    let names = inside.iter().map(Name::from).collect();
    Ok(Some(Covered { names, dir: Arc::new(directory) }))
}

fn open_upper(config: &Config, dirs: &UpperDirs, real: &UpperDirs) -> Result<Upper, OpenError> {
    let UpperDirs { upper, work } = dirs;
    let read = |option, path: &Path| {
        open::directory_for_reading(path).map_err(|error| refusal(option, path, error))
    };
    let upper_lock = read("upperdir", upper)?;
    let work_lock = read("workdir", work)?;
    check_same_filesystem(dirs, &upper_lock, &work_lock)?;
    lock("upperdir", upper, &upper_lock)?;
    lock("workdir", work, &work_lock)?;
    let (upper_root, work_root) = open_private_pair(config, dirs, real)?;
    let failed = |error| OpenError(format!("workdir: cannot prepare {}: {error}", work.display()));
    let mark = volatile_mark::read(&work_root).map_err(failed)?;
    check_volatile_mark(config, work, mark)?;
    if !config.volatile && mark == VolatileMark::ThisBoot {
        // From here on syncs are carried out, so nothing may be left for which one was not.
        rustix::fs::syncfs(&work_lock).map_err(failed)?;
        volatile_mark::remove(&work_root).map_err(failed)?;
    }
    if let Some(form) = config.store_attributes {
        seed_root(form, &upper_root).map_err(failed)?;
    }
    let opened = Upper::open(UpperParts {
        root: upper_root,
        work: work_root.clone(),
        volatile: config.volatile,
        user_xattr: config.user_xattr,
        force_dot_files: config.force_dot_whiteouts,
        locks: [upper_lock, work_lock],
    });
    let opened = opened.and_then(|upper| {
        if config.volatile && mark == VolatileMark::Absent {
            volatile_mark::make(&work_root, &upper.work)?;
        }
        Ok(upper)
    });
    opened.map_err(|error| match error {
        Errno::ROFS => OpenError(format!("upperdir: {} is read-only", upper.display())),
        Errno::ACCESS | Errno::PERM => refusal("workdir", work, error),
        Errno::NOSPC | Errno::DQUOT => OpenError(format!(
            "workdir: no room in {} for what its first mount makes there: {error}; free a few blocks and inodes",
            work.display()
        )),
        error => failed(error),
    })
}

/// Refuses an upper layer that may have lost what was never synced.
fn check_volatile_mark(config: &Config, work: &Path, mark: VolatileMark) -> Result<(), OpenError> {
    let work = work.display();
    match mark {
        VolatileMark::Absent | VolatileMark::ThisBoot => Ok(()),
        VolatileMark::Foreign if config.volatile => Ok(()),
        VolatileMark::Foreign => Err(OpenError(format!(
            "workdir: {work} was used by a volatile mount that may have lost data; check the layer and \
             remove work/incompat/volatile in it, or mount with volatile"
        ))),
        VolatileMark::OtherBoot => Err(OpenError(format!(
            "workdir: {work} was used by a volatile mount before this machine was started; if that was not \
             after a clean shutdown data is lost: make upperdir and workdir anew, else remove \
             work/incompat/volatile in it"
        ))),
    }
}

/// Makes the root of a new upper layer say in which form attributes are stored.
fn seed_root(form: StatOverride, root: &Arc<OwnedFd>) -> Result<(), Errno> {
    let object = Object::Own(root.clone());
    if object.xattr(form.name())?.is_some() {
        return Ok(());
    }
    let stat = object.stat()?;
    form.store(&object, &super::attr::overridden(&stat, stat.permissions()))
}

/// The upper and work directory in one private view of their common ancestor: without what is mounted
/// below, and on one mount, so that renames between them work.
fn open_private_pair(
    config: &Config,
    dirs: &UpperDirs,
    UpperDirs { upper, work }: &UpperDirs,
) -> Result<(Arc<OwnedFd>, Arc<OwnedFd>), OpenError> {
    let common: PathBuf = upper
        .components()
        .zip(work.components())
        .take_while(|(one, other)| one == other)
        .map(|(component, _)| component)
        .collect();
    let plain = (open_dir("upperdir", upper)?, open_dir("workdir", work)?);
    let private = open_dir("upperdir", &common).ok().and_then(|base| {
        let base = crate::sys::mount::private_clone(base.as_fd(), false).ok()??;
        let below = |path: &Path| {
            let inside = path.strip_prefix(&common).ok()?.to_owned();
            let names = inside.iter();
            open::descend(base.as_fd(), names, false).ok()
        };
        Some((below(upper)?, below(work)?))
    });
    let same = |one: &OwnedFd, other: &OwnedFd| {
        let key = |fd: &OwnedFd| stat_fd(fd.as_fd()).map(|stat| (stat.dev, stat.ino));
        key(one).is_ok() && key(one) == key(other)
    };
    // A mount between the ancestor and the directories hides them in the private view.
    let pair = private.filter(|(upper, work)| same(upper, &plain.0) && same(work, &plain.1));
    if pair.is_none() && config.mountpoint.as_ref().is_some_and(|path| path.starts_with(upper)) {
        return Err(OpenError(format!(
            "upperdir: the mountpoint lies in {}, which needs the right to mount; choose another \
             mountpoint, or mount in a user namespace (unshare -Urm)",
            dirs.upper.display()
        )));
    }
    let (upper, work) = pair.unwrap_or(plain);
    Ok((Arc::new(upper), Arc::new(work)))
}

fn canonical(option: &str, path: &Path) -> Result<PathBuf, OpenError> {
    path.canonicalize()
        .map_err(|error| refusal(option, path, Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

fn check_same_filesystem(
    dirs: &UpperDirs,
    upper: &OwnedFd,
    work: &OwnedFd,
) -> Result<(), OpenError> {
    let stat = |option, path: &Path, fd: &OwnedFd| {
        stat_fd(fd.as_fd()).map_err(|error| refusal(option, path, error))
    };
    let one = stat("upperdir", &dirs.upper, upper)?;
    let other = stat("workdir", &dirs.work, work)?;
    let (upper, work) = (dirs.upper.display(), dirs.work.display());
    if one.dev != other.dev {
        return Err(OpenError(format!(
            "workdir: {work} is on another filesystem than upperdir {upper}; put both on one"
        )));
    }
    if one.ino == other.ino {
        return Err(OpenError(format!(
            "workdir: {work} is the same directory as upperdir {upper}"
        )));
    }
    Ok(())
}

/// Refuses layers of which one is, or lies in, another that is written to; `real` are the paths of `dirs` without links.
fn check_overlap(
    config: &Config,
    dirs: &UpperDirs,
    UpperDirs { upper, work }: &UpperDirs,
) -> Result<(), OpenError> {
    let written = [
        ("upperdir", upper, inode(upper), &dirs.upper),
        ("workdir", work, inode(work), &dirs.work),
    ];
    if upper.starts_with(work) || work.starts_with(upper) {
        return Err(OpenError(format!(
            "workdir: {} and upperdir {} overlap; use two separate directories",
            dirs.work.display(),
            dirs.upper.display()
        )));
    }
    for given in config.lower.iter().chain(&config.data_only) {
        let lower = canonical("lowerdir", given)?;
        let Some((device, number)) = inode(&lower) else { continue };
        for (option, path, used, shown) in &written {
            let Some((used_device, used_number)) = *used else { continue };
            let nested = lower.starts_with(path) || path.starts_with(&lower);
            // Bind mounts lead to one directory by two paths.
            if device == used_device && (nested || number == used_number) {
                return Err(OpenError(format!(
                    "lowerdir: {} and {option} {} overlap; a layer cannot lie in another",
                    given.display(),
                    shown.display()
                )));
            }
        }
    }
    Ok(())
}

/// The device and the number of the directory at `path`.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let stat = Stat::from(rustix::fs::stat(path).ok()?);
    (stat.kind() == FileKind::Directory).then_some((stat.dev, stat.ino))
}

/// Takes a lock that no two mounts can have on one directory.
fn lock(option: &str, path: &Path, dir: &OwnedFd) -> Result<(), OpenError> {
    claim::lock(dir).map_err(|error| match error {
        Errno::BUSY => OpenError(format!(
            "{option}: {} is in use by another live mount; unmount that first",
            path.display()
        )),
        error => refusal(option, path, error),
    })
}

fn open_root(
    upper: Option<&Upper>,
    lowers: &Lowers,
    numbers: &InodeNumbers,
) -> Result<Arc<Node>, Errno> {
    let roots = lowers.roots();
    let (stat, place) = match upper {
        Some(upper) => (stat_fd(upper.root.as_fd())?, Place::Upper),
        None => {
            let root = LowerPlace::Dir(lowers.described(roots)?.ok_or(Errno::NOENT)?.clone());
            (lowers.stat(&root)?, Place::Lower(root))
        }
    };
    let ino = numbers.number(stat.dev, stat.ino);
    for root in roots {
        // Filesystems are told apart by their order among the layers, the same at every mount.
        numbers.number(lowers.stat(&LowerPlace::Dir(root.clone()))?.dev, 1);
    }
    let directory = Directory::unread(roots.to_vec(), Arc::from([])).listing(lowers.listed(roots)?);
    Ok(Arc::new(Node::new(NodeId::ROOT, FileKind::Directory, ino, place, Some(directory))))
}
