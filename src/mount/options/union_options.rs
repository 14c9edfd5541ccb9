//! The options of the union itself: those of fuse-overlayfs and kernel overlayfs, and our own.

use super::table::OptionSpec;
use super::table::Status::{Implemented, NoEffect, Refused};
use super::value::Value::{self, Bool, Flag, Ids, Layers, Number, Path, Seconds, Word};
use super::{Cache, Io, RedirectDir, XattrPermissions};

/// chown(2) reserves the number after it.
const LAST_ID: u32 = u32::MAX - 1;

const ON_OFF: Value = Word(&[("on", |_| {}), ("off", |_| {})]);

/// In the order of documentation: layers, semantics, owners, caching and transport of data.
pub(super) const UNION_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "lowerdir",
        Layers(|draft, dirs| {
            draft.options.lower = dirs.layers;
            draft.options.data_only = dirs.data_only;
        }),
        Implemented,
        "required",
        "read-only layers, top first: directories, or the `index` of packed layers of a store; `\\:` is a colon in a name, `::` starts data-only layers",
    ),
    OptionSpec::new(
        "lowerdir+",
        Path(|draft, path| draft.options.lower.push(path)),
        Implemented,
        "",
        "one more layer below those named so far; a colon in it is a colon",
    ),
    OptionSpec::new(
        "datadir+",
        Path(|draft, path| draft.options.data_only.push(path)),
        Implemented,
        "",
        "one more data-only layer, below all others",
    ),
    OptionSpec::new(
        "upperdir",
        Path(|draft, path| draft.upper = Some(path)),
        Implemented,
        "",
        "the layer that takes every change, needs `workdir`; without it the mount is read-only",
    ),
    OptionSpec::new(
        "workdir",
        Path(|draft, path| draft.work = Some(path)),
        Implemented,
        "",
        "where changes are prepared, on the filesystem of `upperdir`; \
         ignored with a warning without it",
    ),
    OptionSpec::new(
        "container",
        Value::Text(|draft, name| draft.options.container = Some(name)),
        Implemented,
        "a new one",
        "of an image: the container that takes the changes, as `--name`",
    ),
    OptionSpec::new(
        "store",
        Path(|draft, path| draft.options.store = Some(path)),
        Implemented,
        "",
        "of an image: the store that it is in, as `--store`; for fstab(5)",
    ),
    OptionSpec::new(
        "redirect_dir",
        Word(&[
            ("on", |draft| draft.options.redirect_dir = RedirectDir::On),
            ("off", |draft| draft.options.redirect_dir = RedirectDir::Follow),
            ("follow", |draft| draft.options.redirect_dir = RedirectDir::Follow),
            ("nofollow", |draft| draft.options.redirect_dir = RedirectDir::NoFollow),
            ("copy", |draft| draft.options.redirect_dir = RedirectDir::Copy),
        ]),
        Implemented,
        "copy",
        "renaming a lower directory: write a redirect, copy it up, or (others) EXDEV; \
         all but `nofollow` follow redirects in the layers",
    ),
    OptionSpec::new(
        "metacopy",
        Word(&[
            ("on", |draft| draft.options.metacopy = true),
            ("off", |draft| draft.options.metacopy = false),
        ]),
        Implemented,
        "off",
        "chmod and chown of a lower file copy its metadata only; \
         metacopy files are read in any case",
    ),
    OptionSpec::new("index", ON_OFF, NoEffect, "", "hard links of lower files always stay linked"),
    OptionSpec::new(
        "xino",
        Word(&[("on", |_| {}), ("off", |_| {}), ("auto", |_| {})]),
        NoEffect,
        "auto",
        "inode numbers of layers on several filesystems are always kept distinct by their high bits",
    ),
    OptionSpec::new(
        "uuid",
        Word(&[("null", |_| {}), ("off", |_| {}), ("auto", |_| {}), ("on", |_| {})]),
        NoEffect,
        "",
        "of kernel overlayfs: the number of the filesystem that statfs(2) shows is that of its device",
    ),
    OptionSpec::new(
        "ino32_t",
        Flag(|draft| draft.options.ino32 = true),
        Implemented,
        "",
        "inode numbers are cut to 32 bits for old programs",
    ),
    OptionSpec::new(
        "fast_ino",
        Bool(|_, _| {}),
        NoEffect,
        "",
        "finding inode numbers needs no walk of the layers",
    ),
    OptionSpec::new(
        "userxattr",
        Flag(|draft| draft.options.user_xattr = true),
        Implemented,
        "both where permitted",
        "write marks as `user.overlay.*` only, as the kernel does in a user namespace",
    ),
    OptionSpec::new(
        "xattr_permissions",
        Word(&[
            ("0", |draft| draft.options.xattr_permissions = XattrPermissions::Off),
            ("1", |draft| draft.options.xattr_permissions = XattrPermissions::Privileged),
            ("2", |draft| draft.options.xattr_permissions = XattrPermissions::Containers),
        ]),
        Implemented,
        "0",
        "keep owner, mode and device of upper files in an attribute: \
         `security.fuseoverlayfs.override_stat` (1) or `user.containers.override_stat` (2)",
    ),
    OptionSpec::new(
        "static_nlink",
        Flag(|draft| draft.options.static_nlink = true),
        Implemented,
        "",
        "directories report one link instead of counting their subdirectories",
    ),
    OptionSpec::new(
        "noacl",
        Flag(|draft| draft.options.no_acl = true),
        Implemented,
        "",
        "no POSIX ACLs",
    ),
    OptionSpec::new(
        "noxattrs",
        Flag(|draft| draft.options.no_xattrs = true),
        Implemented,
        "",
        "programs see and set no extended attributes",
    ),
    OptionSpec::new(
        "noxattrs",
        Bool(|draft, on| draft.options.no_xattrs = on),
        Implemented,
        "0",
        "the same",
    ),
    OptionSpec::new(
        "volatile",
        Flag(|draft| draft.options.volatile = true),
        Implemented,
        "",
        "sync nothing; after a crash of the machine the upper layer is damaged, and refused",
    ),
    OptionSpec::new(
        "fsync",
        Bool(|draft, on| draft.options.volatile = !on),
        Implemented,
        "1",
        "`fsync=0` is `volatile`",
    ),
    OptionSpec::new(
        "sync",
        Bool(|draft, on| draft.options.volatile = !on),
        Implemented,
        "1",
        "another name of `fsync`",
    ),
    OptionSpec::new(
        "plugins",
        Value::Refused(
            "plugins are not supported; leave the option out and name directories in lowerdir",
        ),
        Refused,
        "",
        "plugins of fuse-overlayfs",
    ),
    OptionSpec::new(
        "uidmapping",
        Ids(|draft, map| draft.options.uid_map = map),
        Implemented,
        "as on disk",
        "ranges of user ids; a leading colon is allowed, ids outside show as 65534",
    ),
    OptionSpec::new(
        "gidmapping",
        Ids(|draft, map| draft.options.gid_map = map),
        Implemented,
        "as on disk",
        "ranges of group ids",
    ),
    OptionSpec::new(
        "squash_to_root",
        Flag(|draft| draft.squash_to_root = true),
        Implemented,
        "",
        "everything belongs to 0:0; chown changes nothing",
    ),
    OptionSpec::new(
        "squash_to_uid",
        Number(0, LAST_ID, |draft, id| draft.options.squash_uid = Some(id)),
        Implemented,
        "",
        "everything belongs to this user; outranks `squash_to_root`",
    ),
    OptionSpec::new(
        "squash_to_gid",
        Number(0, LAST_ID, |draft, id| draft.options.squash_gid = Some(id)),
        Implemented,
        "",
        "everything belongs to this group; outranks `squash_to_root`",
    ),
    OptionSpec::new(
        "timeout",
        Seconds(|draft, time| draft.options.timeout = Some(time)),
        Implemented,
        "unlimited",
        "changes of lower layers from outside are seen after so long, 0 for at once; then with ordinary opens as with `io=plain`",
    ),
    OptionSpec::new(
        "io",
        Word(&[
            ("auto", |draft| draft.options.io = Io::Auto),
            ("zeroopen", |draft| draft.options.io = Io::ZeroOpen),
            ("passthrough", |draft| draft.options.io = Io::Passthrough),
            ("plain", |draft| draft.options.io = Io::Plain),
        ]),
        Implemented,
        "auto",
        "how files are opened, read and written: `zeroopen` without a message for an open; `passthrough` by the kernel itself in the layer's file (Linux 6.9, CAP_SYS_ADMIN in the initial user namespace), with a message for each open; `plain` with a message for each open, read and write; `auto` is `zeroopen`",
    ),
    OptionSpec::new(
        "cache",
        Word(&[
            ("auto", |draft| draft.options.cache = Cache::Auto),
            ("always", |draft| draft.options.cache = Cache::Always),
            ("never", |draft| draft.options.cache = Cache::Never),
            ("none", |draft| draft.options.cache = Cache::Never),
        ]),
        Implemented,
        "auto",
        "whether data that was read stays in the page cache: with `timeout=` until the file is opened again or has changed, else as long as there is room (`auto`); the latter with `timeout=` too (`always`); not at all, every read is a message (`never`, `none`); without effect on what `io=passthrough` opens",
    ),
    OptionSpec::new(
        "writeback",
        Bool(|draft, on| draft.options.writeback = Some(on)),
        Implemented,
        "0",
        "the kernel collects writes before it sends them: small ones cost less, stat(2) of a file that has been opened more, \
         and errors (ENOSPC) are told by the next write, fsync or close; nothing is collected with `cache=never`",
    ),
    OptionSpec::new(
        "verity",
        Word(&[("off", |_| {})]),
        NoEffect,
        "off",
        "of kernel overlayfs: digests in metacopy files are not compared, so `on` and `require` are refused; see `verify`",
    ),
    OptionSpec::new(
        "verify",
        Word(&[("open", |draft| draft.options.verify = true)]),
        Implemented,
        "",
        "a file of a packed layer is compared with its hash before it is first read; EIO and a line of the log where they differ",
    ),
];
