//! From the options of a mount to the union that it serves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;

use super::MountError;
use super::estate::Estate;
use super::options::{Allow, Cache, Io, Options, RedirectDir, XattrPermissions};
use crate::fuse::{Adapter, Pages, Policy};
use crate::layer::stat_override::StatOverride;
use crate::overlay::{Config, Ids, Overlay, RedirectPolicy, UpperDirs};

/// The environment variable by which callers of fuse-overlayfs forbid whiteout devices.
const NO_DEVICES: &str = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT";

/// The largest write in one message, in bytes, where the user says nothing.
const MAX_WRITE: u32 = 1024 * 1024;

/// Opens the layers and puts the filesystem together.
///
/// # Errors
/// One line that names the option and layer and says what to do.
pub(super) fn open(options: &Options, mountpoint: &Path) -> Result<Adapter, MountError> {
    Ok(Adapter::new(layers(options, mountpoint)?, policy(options)))
}

/// The same for a daemon that can be succeeded by another: `estate` is told what the next one has to know.
///
/// # Errors
/// The same.
pub(super) fn open_supervised(
    options: &Options,
    mountpoint: &Path,
    estate: &Arc<Estate>,
) -> Result<Adapter, MountError> {
    let mut overlay = layers(options, mountpoint)?;
    tell_clashes(&mut overlay, estate);
    Ok(Adapter::new(overlay, policy(options)))
}

/// The same for a daemon that succeeds another, the `generation`-th to do so.
///
/// # Errors
/// The same; `estate` may not be read or written.
pub(super) fn succeed(
    options: &Options,
    mountpoint: &Path,
    estate: &Arc<Estate>,
    generation: u16,
) -> Result<Adapter, MountError> {
    let failed = MountError::system("what the last daemon left");
    let (agreed, known, last) = estate.read().map_err(failed)?;
    let mut overlay = layers(options, mountpoint)?;
    let failed = MountError::system("finding the files again");
    let (census, known) = overlay.take_over(generation, (known, last)).map_err(failed)?;
    // The ids first, and both before anything new is made: what is new to this daemon is known by its place in the row.
    let left = estate.leave(&known).and_then(|()| estate.serve(generation));
    left.map_err(MountError::system("what the last daemon left"))?;
    tell_clashes(&mut overlay, estate);
    Ok(Adapter::new(overlay, policy(options)).resume(agreed, census))
}

fn tell_clashes(overlay: &mut Overlay, estate: &Arc<Estate>) {
    let estate = estate.clone();
    overlay.tell_clashes(move || estate.spoil());
}

fn layers(options: &Options, mountpoint: &Path) -> Result<Overlay, MountError> {
    let config = config(options, mountpoint);
    let mut overlay =
        Overlay::open(&config).map_err(|error| MountError::Layers(error.to_string()))?;
    if options.timeout.is_some() {
        overlay.expect_changes_below();
    }
    Ok(overlay)
}

fn config(options: &Options, mountpoint: &Path) -> Config {
    Config {
        lower: options.lower.clone(),
        part_of: None,
        data_only: options.data_only.clone(),
        upper: options
            .upper
            .as_ref()
            .map(|dirs| UpperDirs { upper: dirs.upper.clone(), work: dirs.work.clone() }),
        mountpoint: Some(mountpoint.to_owned()),
        volatile: options.volatile,
        redirect: match options.redirect_dir {
            RedirectDir::Copy => RedirectPolicy::Copy,
            RedirectDir::On => RedirectPolicy::Redirect,
            RedirectDir::Follow | RedirectDir::NoFollow => RedirectPolicy::Refuse,
        },
        metacopy: options.metacopy,
        verify: options.verify,
        sealed: options.sealed.clone(),
        refuse_redirects: options.redirect_dir == RedirectDir::NoFollow,
        force_dot_whiteouts: std::env::var_os(NO_DEVICES).is_some(),
        user_xattr: options.user_xattr,
        store_attributes: match options.xattr_permissions {
            XattrPermissions::Off => None,
            XattrPermissions::Privileged => Some(StatOverride::Security),
            XattrPermissions::Containers => Some(StatOverride::Containers),
        },
        ids: Ids {
            users: options.uid_map.clone(),
            groups: options.gid_map.clone(),
            squash_uid: options.squash_uid,
            squash_gid: options.squash_gid,
        },
        changing: options.timeout.is_some(),
        ino32: options.ino32,
    }
}

fn policy(options: &Options) -> Policy {
    // With fusermount3 the kernel lets everybody in, and who is neither owner nor root is turned away when
    // he asks: so the kernel must ask each time.
    let filtered = options.vfs.allow == Some(Allow::Root) && !geteuid().is_root();
    let timeout = if filtered { Some(Duration::ZERO) } else { options.timeout };
    let pages = match (options.cache, timeout) {
        (Cache::Never, _) => Pages::None,
        (Cache::Auto, Some(_)) => Pages::UntilOpened,
        (Cache::Auto, None) | (Cache::Always, _) => Pages::Kept,
    };
    Policy {
        zero_open: timeout.is_none() && pages == Pages::Kept && options.io != Io::Plain,
        passthrough: options.io == Io::Passthrough,
        pages,
        timeout,
        acl: !options.no_acl,
        xattr: !options.no_xattrs,
        // Where nothing stays in the page cache there is nothing to collect, and times would be stale.
        writeback: options.writeback == Some(true) && pages != Pages::None,
        max_write: options.max_write.unwrap_or(MAX_WRITE),
        static_nlink: options.static_nlink,
        supervised: options.supervise,
        threads: options.threads,
    }
}
