//! The mount options: everything that `-o` can say, as plain data.
//!
//! [`table`] lists every option once; parsing, `--help`, the man page and the tables of
//! `docs/options.md` derive from it. Nothing here looks at a filesystem.

mod draft;
mod error;
mod grammar;
pub mod table;
mod union_options;
mod value;
mod vfs_options;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::overlay::id_map::IdMap;

pub use error::OptionError;
pub use grammar::LowerDirs;

/// What the caller asked for. `None` means that the caller left the choice to the mount.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `lowerdir`: the merged layers, top first, at least one; paths exactly as given.
    pub lower: Vec<PathBuf>,
    /// The layers after `::` in `lowerdir`, searched for the data of metacopy files only.
    pub data_only: Vec<PathBuf>,
    /// `upperdir` and `workdir`; without them the mount is read-only.
    pub upper: Option<UpperDirs>,

    /// `container`, of a mount of an image.
    pub container: Option<OsString>,
    /// `store`, of a mount of an image.
    pub store: Option<PathBuf>,

    /// `redirect_dir`.
    pub redirect_dir: RedirectDir,
    /// `metacopy`: chmod and chown of a lower file copy its metadata only.
    pub metacopy: bool,
    /// `ino32_t`: inode numbers are cut to 32 bits.
    pub ino32: bool,
    /// `userxattr`: write marks in the `user.overlay.` namespace only.
    pub user_xattr: bool,
    /// `xattr_permissions`: where owner, mode and device numbers of upper files are kept.
    pub xattr_permissions: XattrPermissions,
    /// `volatile`, `fsync=0`, `sync=0`: nothing is synced; after a crash of the machine the upper may be damaged.
    pub volatile: bool,
    /// `static_nlink`: directories report one link.
    pub static_nlink: bool,
    /// `noacl`: no POSIX ACLs.
    pub no_acl: bool,
    /// `noxattrs`: programs in the mount see and set no extended attributes.
    pub no_xattrs: bool,
    /// `verify=open`: check a packed layer's data when it is opened.
    pub verify: bool,
    /// No option, but set for an image that is mounted by its seal: the checksums of the lower layers' indexes, top first.
    pub sealed: Vec<blake3::Hash>,

    /// `uidmapping`.
    pub uid_map: IdMap,
    /// `gidmapping`.
    pub gid_map: IdMap,
    /// `squash_to_uid`, or 0 by `squash_to_root`: the owner shown for every file; chown changes
    /// nothing.
    pub squash_uid: Option<u32>,
    /// `squash_to_gid`, or 0 by `squash_to_root`.
    pub squash_gid: Option<u32>,

    /// `timeout`: how long the kernel may keep names and attributes; `None` is as long as it likes,
    /// which is right while nobody changes the layers behind the mount.
    pub timeout: Option<Duration>,
    /// `io`: how file data travels.
    pub io: Io,
    /// `cache`: when file data stays in the page cache.
    pub cache: Cache,
    /// `writeback`.
    pub writeback: Option<bool>,
    /// `threads` that read requests, at least 1: `threaded=0` is one, `max_threads=N` is at most N.
    pub threads: Option<u32>,
    /// `supervise`: another daemon goes on when the first one dies.
    pub supervise: bool,
    /// `max_write`: bytes of the largest write request, at least 4096.
    pub max_write: Option<u32>,
    /// `debug`: log every request and stay in the foreground.
    pub debug: bool,

    /// What goes to mount(2) or fusermount3.
    pub vfs: VfsOptions,

    /// One line for each option that was ignored although the caller may have meant something by
    /// it.
    pub warnings: Vec<String>,
}

/// The writable layer and its work directory, on one filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperDirs {
    /// `upperdir`: the layer that takes every change.
    pub upper: PathBuf,
    /// `workdir`: where changes are prepared.
    pub work: PathBuf,
}

/// `redirect_dir`: what renaming a directory that exists in a lower layer does, and whether
/// redirects that are already in the layers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectDir {
    /// Works by copying the directory up (`copy`).
    #[default]
    Copy,
    /// Works by writing a redirect (`on`).
    On,
    /// Fails with EXDEV; redirects are followed (`off`, `follow`).
    Follow,
    /// Fails with EXDEV; redirects are not followed (`nofollow`).
    NoFollow,
}

/// `xattr_permissions`: which extended attribute of an upper file overrides its owner and mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrPermissions {
    /// None (0): owner and mode are those of the upper file.
    #[default]
    Off,
    /// `security.fuseoverlayfs.override_stat` (1), for privileged mounts.
    Privileged,
    /// `user.containers.override_stat` (2).
    Containers,
}

/// `io`: how file data travels between programs and layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// The best that the kernel offers here.
    #[default]
    Auto,
    /// Opening a file sends no message.
    ZeroOpen,
    /// The kernel reads and writes the layer's file itself.
    Passthrough,
    /// Every open, read and write is a message.
    Plain,
}

/// `cache`: when the kernel may answer reads from its page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// As long as there is room; with `timeout` until the file is opened again or has changed.
    #[default]
    Auto,
    /// As long as there is room, whatever `timeout` says.
    Always,
    /// Never: every read is a message.
    Never,
}

/// Who besides the owner of the mount may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// `allow_other`: everybody.
    Other,
    /// `allow_root`: root.
    Root,
}

/// What the flags of the mount say of access times. The kernel updates none of FUSE files, whatever they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atime {
    /// `noatime`.
    Never,
    /// `relatime`, `atime`.
    Relative,
    /// `strictatime`.
    Strict,
}

/// The options that the kernel's VFS or the FUSE transport understands. `None` means not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VfsOptions {
    /// `ro` (true), `rw`.
    pub read_only: Option<bool>,
    /// `suid` (true), `nosuid`.
    pub suid: Option<bool>,
    /// `dev` (true), `nodev`.
    pub dev: Option<bool>,
    /// `exec` (true), `noexec`.
    pub exec: Option<bool>,
    /// `atime`, `noatime`, `relatime`, `strictatime`.
    pub atime: Option<Atime>,
    /// `diratime` (true), `nodiratime`.
    pub dir_atime: Option<bool>,
    /// `sync` (true), `async`.
    pub sync: Option<bool>,
    /// `dirsync`.
    pub dir_sync: bool,
    /// `nosymfollow`.
    pub no_symfollow: bool,
    /// `remount`: there is a mount whose flags are to be changed; layers need not be named.
    pub remount: bool,
    /// `allow_other`, `allow_root`.
    pub allow: Option<Allow>,
    /// `default_permissions`: the kernel checks modes and ACLs.
    pub default_permissions: bool,
    /// `fsname`: the source shown in /proc/mounts.
    pub fs_name: Option<OsString>,
    /// `subtype`: the type shown in /proc/mounts becomes `fuse.SUBTYPE`.
    pub subtype: Option<OsString>,
    /// `context`, `fscontext`, `defcontext`, `rootcontext`: SELinux contexts by option name,
    /// without quotes.
    pub contexts: Vec<(&'static str, OsString)>,
}

impl Options {
    /// Reads the texts of all `-o` arguments in order, as if they were one text joined by commas.
    ///
    /// A repeated option counts as given last. Unknown options, and `workdir` without `upperdir`,
    /// become [`Options::warnings`].
    ///
    /// # Errors
    /// The first option with a wrong value, then a missing `lowerdir` or `workdir`.
    pub fn parse<T: AsRef<OsStr>>(texts: &[T]) -> Result<Options, OptionError> {
        let options = Self::parse_for_image(texts)?;
        if options.lower.is_empty() && !options.vfs.remount {
            return Err(OptionError::no_layers());
        }
        Ok(options)
    }

    /// The same for a mount that may be one of an image: then there is no `lowerdir`, `upperdir` or `workdir`.
    ///
    /// # Errors
    /// As [`Options::parse`], but for a missing `lowerdir` where there is no other directory either.
    pub fn parse_for_image<T: AsRef<OsStr>>(texts: &[T]) -> Result<Options, OptionError> {
        let mut draft = draft::Draft::default();
        for text in texts {
            draft.read(text.as_ref())?;
        }
        draft.finish()
    }
}

#[cfg(test)]
mod tests;
