//! What is agreed with the kernel when the connection begins.

use fuser::{InitFlags, KernelConfig};

use super::passthrough::Unavailable;
use super::{Pages, Policy};

/// Wanted wherever the kernel has it.
const ALWAYS: [InitFlags; 10] = [
    // Lookups and reads of one directory side by side.
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Attributes together with names, when they were asked for before.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // Cached data stays valid when a file's time changes, since only this mount changes it.
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    // The umask is applied here, because a default ACL takes its place.
    InitFlags::FUSE_DONT_MASK,
    // No question about security.capability before every write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // Direct requests that nobody waits for are sent at once; see `direct_io`.
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_HAS_IOCTL_DIR,
    InitFlags::FUSE_BIG_WRITES,
];

/// The most requests that nobody waits for alone, readahead and writeback, which the kernel sends at once. More than
/// there are threads.
const BACKGROUND: u16 = 64;

/// What the kernel will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Opens of files need not be answered.
    pub zero_open: bool,
    /// Opens of directories need not be answered.
    pub zero_opendir: bool,
    /// Who may set inode flags is checked before we are asked to (Linux 5.13).
    pub checks_flags: bool,
}

impl Agreed {
    /// As a number, for [`Agreed::from_bits`].
    pub fn bits(self) -> u64 {
        let all = [self.zero_open, self.zero_opendir, self.checks_flags];
        all.into_iter().enumerate().map(|(at, is_so)| u64::from(is_so) << at).sum()
    }

    /// What [`Agreed::bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        let has = |at: u32| bits & (1 << at) != 0;
        Self { zero_open: has(0), zero_opendir: has(1), checks_flags: has(2) }
    }
}

/// Agrees on capabilities. `stacked` is whether a layer lies on a filesystem that is itself on top of another.
pub(super) fn negotiate(
    policy: &Policy,
    stacked: bool,
    config: &mut KernelConfig,
) -> std::io::Result<Agreed> {
    let offered = config.capabilities();
    let mut wanted = ALWAYS.into_iter().fold(InitFlags::empty(), InitFlags::union);
    if policy.supervised && !offered.contains(InitFlags::FUSE_HAS_RESEND) {
        return Err(std::io::Error::other("option supervise: needs Linux 6.9"));
    }
    let zero_open = InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
    let can_skip_opens = policy.zero_open && offered.contains(zero_open);
    if can_skip_opens {
        wanted |= zero_open;
    }
    if policy.passthrough {
        wanted |= passthrough(stacked, config)?;
    }
    if policy.timeout.is_some() {
        wanted -= InitFlags::FUSE_CACHE_SYMLINKS;
    }
    match policy.pages {
        Pages::Kept => {}
        Pages::UntilOpened => {
            wanted |= InitFlags::FUSE_AUTO_INVAL_DATA;
            wanted -= InitFlags::FUSE_EXPLICIT_INVAL_DATA;
        }
        // Maps that are shared are kept in the page cache all the same, where the kernel has them (Linux 6.6).
        Pages::None => wanted |= InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    }
    if policy.acl && policy.xattr {
        wanted |= InitFlags::FUSE_POSIX_ACL;
    }
    if policy.writeback {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    let refused = |flags| std::io::Error::other(format!("the kernel refuses {flags:?}"));
    config.add_capabilities(wanted & offered).map_err(refused)?;
    if config.set_max_write(policy.max_write).is_err() {
        log::warn!("max_write={} is not possible here", policy.max_write);
    }
    // Readahead that hangs in one layer must not use up what all others need.
    for set in [KernelConfig::set_max_background, KernelConfig::set_congestion_threshold] {
        if let Err(possible) = set(config, BACKGROUND) {
            log::debug!(
                "the kernel takes no {BACKGROUND} requests in the background, but {possible}"
            );
        }
    }
    // Offered since the same version; nothing tells it more directly.
    let checks_flags = offered.contains(InitFlags::FUSE_SETXATTR_EXT);
    Ok(Agreed {
        zero_open: can_skip_opens && !policy.passthrough,
        zero_opendir: can_skip_opens,
        checks_flags,
    })
}

/// Agrees on files that the kernel reads and writes by itself.
fn passthrough(stacked: bool, config: &mut KernelConfig) -> std::io::Result<InitFlags> {
    if !config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH) {
        return Err(std::io::Error::other(Unavailable::Kernel));
    }
    // As low as possible: with 2, no overlayfs can be mounted on top of this mount.
    let depth = if stacked { 2 } else { 1 };
    config.set_max_stack_depth(depth).map_err(|_| std::io::Error::other(Unavailable::Kernel))?;
    // What is cut at open needs no copy of its data.
    Ok(InitFlags::FUSE_PASSTHROUGH | InitFlags::FUSE_ATOMIC_O_TRUNC)
}
