//! The options of mount(2), of the FUSE transport, and those that only other programs care about.

use std::ffi::OsString;

use super::draft::Draft;
use super::table::OptionSpec;
use super::table::Status::{Implemented, Kernel, NoEffect};
use super::value::Value::{Bool, Flag, Ignored, Number, Text};
use super::{Allow, Atime, Cache};

const fn kernel(name: &'static str, set: fn(&mut Draft), help: &'static str) -> OptionSpec {
    OptionSpec::new(name, Flag(set), Kernel, "", help)
}

const fn context(
    name: &'static str,
    set: fn(&mut Draft, OsString),
    help: &'static str,
) -> OptionSpec {
    OptionSpec::new(name, Text(set), Kernel, "", help)
}

const fn ignored(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec::new(name, Ignored, NoEffect, "", help)
}

fn set_context(draft: &mut Draft, name: &'static str, value: OsString) {
    let contexts = &mut draft.options.vfs.contexts;
    contexts.retain(|(known, _)| *known != name);
    contexts.push((name, value));
}

fn undo_atime(draft: &mut Draft, atime: Atime) {
    let said = &mut draft.options.vfs.atime;
    *said = said.filter(|said| *said != atime);
}

/// Flags and strings for mount(2) and fusermount3.
pub(super) const VFS_OPTIONS: &[OptionSpec] = &[
    kernel(
        "ro",
        |draft| draft.options.vfs.read_only = Some(true),
        "read-only, even with `upperdir`",
    ),
    kernel(
        "rw",
        |draft| draft.options.vfs.read_only = Some(false),
        "writable if there is an `upperdir`",
    ),
    kernel(
        "suid",
        |draft| draft.options.vfs.suid = Some(true),
        "set-id bits and file capabilities count",
    ),
    kernel("nosuid", |draft| draft.options.vfs.suid = Some(false), "they do not count"),
    kernel("dev", |draft| draft.options.vfs.dev = Some(true), "device nodes work"),
    kernel("nodev", |draft| draft.options.vfs.dev = Some(false), "device nodes cannot be opened"),
    kernel("exec", |draft| draft.options.vfs.exec = Some(true), "programs run"),
    kernel("noexec", |draft| draft.options.vfs.exec = Some(false), "programs do not run"),
    kernel(
        "atime",
        |draft| draft.options.vfs.atime = Some(Atime::Relative),
        "another name of `relatime`",
    ),
    kernel(
        "noatime",
        |draft| draft.options.vfs.atime = Some(Atime::Never),
        "shown in /proc/mounts; the kernel never updates access times of FUSE files",
    ),
    kernel(
        "relatime",
        |draft| draft.options.vfs.atime = Some(Atime::Relative),
        "shown in /proc/mounts; reading updates no access times, see `noatime`",
    ),
    kernel("norelatime", |draft| undo_atime(draft, Atime::Relative), "undoes `relatime`"),
    kernel(
        "strictatime",
        |draft| draft.options.vfs.atime = Some(Atime::Strict),
        "as `relatime`, but not shown",
    ),
    kernel("nostrictatime", |draft| undo_atime(draft, Atime::Strict), "undoes `strictatime`"),
    kernel("diratime", |draft| draft.options.vfs.dir_atime = Some(true), "undoes `nodiratime`"),
    kernel(
        "nodiratime",
        |draft| draft.options.vfs.dir_atime = Some(false),
        "shown in /proc/mounts; no effect, see `noatime`",
    ),
    kernel(
        "sync",
        |draft| draft.options.vfs.sync = Some(true),
        "every write is synchronous; changes of directories are not",
    ),
    kernel("async", |draft| draft.options.vfs.sync = Some(false), "undoes `sync`"),
    kernel(
        "dirsync",
        |draft| draft.options.vfs.dir_sync = true,
        "shown in /proc/mounts; changes of directories are not synchronous",
    ),
    kernel(
        "nosymfollow",
        |draft| draft.options.vfs.no_symfollow = true,
        "symbolic links are not followed",
    ),
    kernel(
        "remount",
        |draft| draft.options.vfs.remount = true,
        "change `ro`, `nosuid` and the like of a mount that is there; all other options stay as they are",
    ),
    kernel(
        "allow_other",
        |draft| draft.options.vfs.allow = Some(Allow::Other),
        "every user may use the mount",
    ),
    kernel(
        "allow_root",
        |draft| draft.options.vfs.allow = Some(Allow::Root),
        "its owner and root may use it",
    ),
    kernel(
        "default_permissions",
        |draft| draft.options.vfs.default_permissions = true,
        "the kernel checks modes and ACLs; always so",
    ),
    context(
        "fsname",
        |draft, text| draft.options.vfs.fs_name = Some(text),
        "the source shown in /proc/mounts instead of SOURCE",
    ),
    context(
        "subtype",
        |draft, text| draft.options.vfs.subtype = Some(text),
        "the type shown in /proc/mounts becomes `fuse.TEXT`",
    ),
    context(
        "context",
        |draft, text| set_context(draft, "context", text),
        "SELinux context of everything in the mount; may be quoted",
    ),
    context(
        "fscontext",
        |draft, text| set_context(draft, "fscontext", text),
        "SELinux context of the filesystem",
    ),
    context(
        "defcontext",
        |draft, text| set_context(draft, "defcontext", text),
        "SELinux context of files without one",
    ),
    context(
        "rootcontext",
        |draft, text| set_context(draft, "rootcontext", text),
        "SELinux context of the root directory",
    ),
];

/// Options of libfuse that fuse-overlayfs takes.
pub(super) const FUSE_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "debug",
        Flag(|draft| draft.options.debug = true),
        Implemented,
        "off",
        "log every request and stay in the foreground, as `-d`",
    ),
    OptionSpec::new(
        "threaded",
        Bool(|draft, on| draft.single_threaded = !on),
        Implemented,
        "1",
        "`threaded=0` reads requests in one thread; outranks `max_threads`",
    ),
    OptionSpec::new(
        "max_threads",
        Number(1, 1024, |draft, count| draft.options.threads = Some(count)),
        Implemented,
        "32",
        "threads at most; few read requests while none of them takes long, the others stand in for those that are delayed",
    ),
    OptionSpec::new(
        "supervise",
        Flag(|draft| draft.options.supervise = true),
        Implemented,
        "off",
        "when the daemon is killed or crashes, another one goes on: the mount and what is open there stay (Linux 6.9; not with `io=passthrough`, `timeout`, `ino32_t`)",
    ),
    OptionSpec::new(
        "max_write",
        Number(4096, u32::MAX, |draft, bytes| draft.options.max_write = Some(bytes)),
        Implemented,
        "1048576",
        "bytes of the largest write request",
    ),
    ignored("max_idle_threads", "threads are not started and stopped by load"),
    ignored("max_read", "the kernel's limit is used"),
    ignored("max_readahead", "the kernel's default is used"),
    ignored("max_background", "the kernel's default is used"),
    ignored("congestion_threshold", "the kernel's default is used"),
    ignored("clone_fd", "all threads share one descriptor"),
    ignored("auto_unmount", "the mount goes when the program ends, unless it is killed"),
    ignored("nonempty", "any directory may be a mountpoint"),
    ignored("splice_read", "data is not spliced"),
    ignored("no_splice_read", "data is not spliced"),
    ignored("splice_write", "data is not spliced"),
    ignored("no_splice_write", "data is not spliced"),
    ignored("splice_move", "data is not spliced"),
    ignored("no_splice_move", "data is not spliced"),
    OptionSpec::new(
        "kernel_cache",
        Flag(|draft| draft.options.cache = Cache::Always),
        Implemented,
        "",
        "the same as `cache=always`",
    ),
    OptionSpec::new(
        "auto_cache",
        Flag(|draft| draft.options.cache = Cache::Auto),
        Implemented,
        "",
        "the same as `cache=auto`",
    ),
    OptionSpec::new(
        "direct_io",
        Flag(|draft| draft.options.cache = Cache::Never),
        Implemented,
        "",
        "the same as `cache=never`",
    ),
    ignored("auto_inval_data", "see `timeout`"),
    ignored("no_auto_inval_data", "see `timeout`"),
    ignored("writeback_cache", "see `writeback`"),
    ignored("no_writeback_cache", "see `writeback`"),
    ignored("readdirplus", "the kernel decides"),
    ignored("async_read", "reads are asynchronous"),
    ignored("sync_read", "reads are asynchronous"),
    ignored("async_dio", "requests of direct I/O that nobody waits for are sent at once"),
    ignored("no_async_dio", "requests of direct I/O that nobody waits for are sent at once"),
    ignored("atomic_o_trunc", "truncation is a message of its own"),
    ignored("big_writes", "writes are always big"),
    ignored("no_remote_lock", "locks are always local"),
    ignored("no_remote_flock", "locks are always local"),
    ignored("no_remote_posix_lock", "locks are always local"),
    ignored("time_gran", "times have the granularity of the layers"),
];

/// What mount(8), fstab and container tools pass along; no warning for these.
pub(super) const IGNORED_OPTIONS: &[OptionSpec] = &[
    ignored("defaults", "stands for no option in fstab"),
    ignored("auto", "for mount -a"),
    ignored("noauto", "for mount -a"),
    ignored("nofail", "for mount -a"),
    ignored("_netdev", "for the order of starting"),
    ignored("x-*", "for other programs"),
    ignored("X-*", "for mount(8)"),
    ignored("comment", "for people"),
    ignored("user", "who may mount by fstab"),
    ignored("nouser", "who may mount by fstab"),
    ignored("users", "who may mount by fstab"),
    ignored("nousers", "who may mount by fstab"),
    ignored("owner", "who may mount by fstab"),
    ignored("noowner", "who may mount by fstab"),
    ignored("group", "who may mount by fstab"),
    ignored("nogroup", "who may mount by fstab"),
    ignored("user_id", "what /proc/mounts shows, given back at a remount"),
    ignored("group_id", "what /proc/mounts shows, given back at a remount"),
    ignored("uhelper", "for umount(8)"),
    ignored("helper", "for umount(8)"),
    ignored("lazytime", "times are kept by the layers' filesystems"),
    ignored("nolazytime", "times are kept by the layers' filesystems"),
    ignored("symfollow", "symbolic links are followed"),
    ignored("mand", "mandatory locks no longer exist"),
    ignored("nomand", "mandatory locks no longer exist"),
    ignored("iversion", "no change counter is offered"),
    ignored("noiversion", "no change counter is offered"),
    ignored("silent", "the kernel's messages"),
    ignored("loud", "the kernel's messages"),
    ignored("private", "propagation is set by the caller"),
    ignored("rprivate", "propagation is set by the caller"),
    ignored("shared", "propagation is set by the caller"),
    ignored("rshared", "propagation is set by the caller"),
    ignored("slave", "propagation is set by the caller"),
    ignored("rslave", "propagation is set by the caller"),
    ignored("unbindable", "propagation is set by the caller"),
    ignored("runbindable", "propagation is set by the caller"),
];
