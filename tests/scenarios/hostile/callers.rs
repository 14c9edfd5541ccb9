//! Those who work in the mount: they get no right there that a plain directory would not give them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, IFlags, ioctl_getflags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};

use crate::needs_root;
use crate::support::Union;
use crate::support::posix::{
    USER, as_user, chown, get_xattr, kind, mode, owner, set_xattr, text, xattrs,
};

/// `FS_IOC32_SETFLAGS`: what 64-bit programs call `FS_IOC_SETFLAGS`, with a narrower number.
const SET_FLAGS_32: u32 = 0x4004_6602;

/// The same as `FS_IOC_FSSETXATTR` but for one bit of the size, so that the kernel does not know it.
fn set_flags_32(file: impl AsFd, flags: IFlags) -> Result<(), Errno> {
    // SAFETY: the call reads four bytes, as its number says.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(file, Setter::<SET_FLAGS_32, u32>::new(flags.bits()))
    }
}

#[test]
fn inode_flags_cannot_be_set_past_the_checks_of_the_kernel() {
    needs_root!();
    let union = Union::new().lower("f shared text=x mode=0644").mount();
    let path = union.path("shared");
    fs::write(&path, "in the upper layer").unwrap();
    for flags in [IFlags::IMMUTABLE, IFlags::APPEND, IFlags::NOATIME] {
        let set = as_user(|| set_flags_32(File::open(&path).unwrap(), flags));
        assert_eq!(set, Err(Errno::NOTTY), "a stranger sets {flags:?}");
        let now = ioctl_getflags(File::open(union.upper("shared")).unwrap()).unwrap();
        assert!(!now.intersects(flags), "{now:?}");
    }
}

/// Names of attributes that mean something to the union or its peers.
const MARKS: [(&str, &str); 10] = [
    ("user.overlay.opaque", "y"),
    ("user.overlay.whiteout", "y"),
    ("user.overlay.redirect", "/secret"),
    ("user.overlay.metacopy", ""),
    ("user.overlay.origin", "x"),
    ("user.overlay.nlink", "U+1000"),
    ("user.overlay.plyfs.ino", "1"),
    ("user.fuseoverlayfs.opaque", "y"),
    ("user.fuseoverlayfs.override_stat", "0:0:4777"),
    ("user.containers.override_stat", "0:0:4777"),
];

#[test]
fn attributes_set_by_callers_never_become_marks() {
    needs_root!();
    let lower = format!(
        "d . own={USER}:{USER} mode=0755\nd d own={USER}:{USER}\nf d/below text=below own={USER}:{USER}
         f f text=lower own={USER}:{USER}\nf .secret/x"
    );
    let mut union =
        Union::new().lower(&lower).upper_with(|upper| chown(upper, USER, USER).unwrap()).mount();
    let set = |path: &Path, name: &str, value: &str| {
        as_user(|| set_xattr(path, name, value.as_bytes())).unwrap();
        assert_eq!(get_xattr(path, name).unwrap(), value.as_bytes(), "{name}");
    };
    for (name, value) in MARKS {
        for path in ["", "d", "f"] {
            set(&union.path(path), name, value);
        }
    }
    for _ in 0..2 {
        assert_eq!((owner(union.path("f")), mode(union.path("f"))), ((USER, USER), 0o644));
        assert_eq!(text(union.path("f")), "lower");
        assert_eq!(text(union.path("d/below")), "below");
        assert_eq!(kind(union.path("f")), FileType::RegularFile);
        let mut names: Vec<_> = MARKS.iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        for path in ["", "d", "f"] {
            assert_eq!(xattrs(union.path(path)), names, "{path}");
        }
        union.remount();
    }
}
