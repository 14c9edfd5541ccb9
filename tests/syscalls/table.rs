//! The filesystem calls, and what their arguments are.

/// What one argument of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A descriptor.
    Fd,
    /// A path; relative to the descriptor before it, if there is one.
    Path,
    /// Any other text: the name of an attribute, the target of a link.
    Text,
    /// Bytes that the call reads; the argument of this index is their number.
    Bytes(usize),
    /// A number: flags, mode, size, offset.
    Number,
    /// Where the call puts what it finds, and what nobody wants to see.
    Other,
}

/// A call.
#[derive(Debug)]
pub struct Entry {
    pub number: i64,
    pub name: &'static str,
    pub args: &'static [Arg],
    /// Whether it changes the filesystem or makes it lasting; of an open, that depends on its flags.
    pub changes: bool,
}

use Arg::{Bytes, Fd, Number, Other, Path, Text};

macro_rules! calls {
    ($($changes:literal $number:ident $name:ident ($($arg:expr),*);)*) => {
        [$(Entry {
            number: libc::$number as i64,
            name: stringify!($name),
            args: &[$($arg),*],
            changes: $changes,
        }),*]
    };
}

/// Those that every processor has. What only closes or duplicates a descriptor is left out.
pub static CALLS: [Entry; 66] = calls! {
    false SYS_openat openat(Fd, Path, Number, Number);
    false SYS_openat2 openat2(Fd, Path, Other, Other);
    true SYS_mkdirat mkdirat(Fd, Path, Number);
    true SYS_mknodat mknodat(Fd, Path, Number, Number);
    true SYS_symlinkat symlinkat(Text, Fd, Path);
    true SYS_linkat linkat(Fd, Path, Fd, Path, Number);
    true SYS_unlinkat unlinkat(Fd, Path, Number);
    true SYS_renameat2 renameat2(Fd, Path, Fd, Path, Number);
    true SYS_fchmod fchmod(Fd, Number);
    true SYS_fchmodat fchmodat(Fd, Path, Number);
    true SYS_fchmodat2 fchmodat2(Fd, Path, Number, Number);
    true SYS_fchown fchown(Fd, Number, Number);
    true SYS_fchownat fchownat(Fd, Path, Number, Number, Number);
    true SYS_utimensat utimensat(Fd, Path, Other, Number);
    true SYS_truncate truncate(Path, Number);
    true SYS_ftruncate ftruncate(Fd, Number);
    true SYS_fallocate fallocate(Fd, Number, Number, Number);
    false SYS_read read(Fd, Other, Number);
    false SYS_pread64 pread64(Fd, Other, Number, Number);
    false SYS_readv readv(Fd, Other, Number);
    false SYS_preadv preadv(Fd, Other, Number, Number);
    false SYS_preadv2 preadv2(Fd, Other, Number, Number);
    true SYS_write write(Fd, Bytes(2), Number);
    true SYS_pwrite64 pwrite64(Fd, Bytes(2), Number, Number);
    true SYS_writev writev(Fd, Other, Number);
    true SYS_pwritev pwritev(Fd, Other, Number, Number);
    true SYS_pwritev2 pwritev2(Fd, Other, Number, Number);
    true SYS_copy_file_range copy_file_range(Fd, Other, Fd, Other, Number, Number);
    true SYS_sendfile sendfile(Fd, Fd, Other, Number);
    true SYS_splice splice(Fd, Other, Fd, Other, Number, Number);
    true SYS_ioctl ioctl(Fd, Number, Number);
    true SYS_setxattr setxattr(Path, Text, Bytes(3), Number, Number);
    true SYS_lsetxattr lsetxattr(Path, Text, Bytes(3), Number, Number);
    true SYS_fsetxattr fsetxattr(Fd, Text, Bytes(3), Number, Number);
    true SYS_removexattr removexattr(Path, Text);
    true SYS_lremovexattr lremovexattr(Path, Text);
    true SYS_fremovexattr fremovexattr(Fd, Text);
    false SYS_getxattr getxattr(Path, Text, Other, Number);
    false SYS_lgetxattr lgetxattr(Path, Text, Other, Number);
    false SYS_fgetxattr fgetxattr(Fd, Text, Other, Number);
    false SYS_listxattr listxattr(Path, Other, Number);
    false SYS_llistxattr llistxattr(Path, Other, Number);
    false SYS_flistxattr flistxattr(Fd, Other, Number);
    false SYS_getdents64 getdents64(Fd, Other, Number);
    false SYS_newfstatat newfstatat(Fd, Path, Other, Number);
    false SYS_fstat fstat(Fd, Other);
    false SYS_statx statx(Fd, Path, Number, Number, Other);
    false SYS_statfs statfs(Path, Other);
    false SYS_fstatfs fstatfs(Fd, Other);
    false SYS_readlinkat readlinkat(Fd, Path, Other, Number);
    false SYS_faccessat faccessat(Fd, Path, Number);
    false SYS_faccessat2 faccessat2(Fd, Path, Number, Number);
    true SYS_fsync fsync(Fd);
    true SYS_fdatasync fdatasync(Fd);
    true SYS_syncfs syncfs(Fd);
    true SYS_sync_file_range sync_file_range(Fd, Number, Number, Number);
    false SYS_lseek lseek(Fd, Number, Number);
    false SYS_flock flock(Fd, Number);
    false SYS_name_to_handle_at name_to_handle_at(Fd, Path, Other, Other, Number);
    false SYS_open_by_handle_at open_by_handle_at(Fd, Other, Number);
    false SYS_open_tree open_tree(Fd, Path, Number);
    false SYS_mount_setattr mount_setattr(Fd, Path, Number, Other, Number);
    true SYS_move_mount move_mount(Fd, Path, Fd, Path, Number);
    true SYS_mount mount(Other, Path, Other, Number, Other);
    true SYS_umount2 umount2(Path, Number);
    true SYS_sync sync();
};

/// Calls of old that other processors never had.
#[cfg(target_arch = "x86_64")]
pub static OLD_CALLS: [Entry; 21] = calls! {
    false SYS_open open(Path, Number, Number);
    true SYS_creat creat(Path, Number);
    true SYS_mkdir mkdir(Path, Number);
    true SYS_mknod mknod(Path, Number, Number);
    true SYS_symlink symlink(Text, Path);
    true SYS_link link(Path, Path);
    true SYS_unlink unlink(Path);
    true SYS_rmdir rmdir(Path);
    true SYS_rename rename(Path, Path);
    true SYS_renameat renameat(Fd, Path, Fd, Path);
    true SYS_chmod chmod(Path, Number);
    true SYS_chown chown(Path, Number, Number);
    true SYS_lchown lchown(Path, Number, Number);
    true SYS_utime utime(Path, Other);
    true SYS_utimes utimes(Path, Other);
    true SYS_futimesat futimesat(Fd, Path, Other);
    false SYS_stat stat(Path, Other);
    false SYS_lstat lstat(Path, Other);
    false SYS_readlink readlink(Path, Other, Number);
    false SYS_access access(Path, Number);
    false SYS_getdents getdents(Fd, Other, Number);
};
#[cfg(not(target_arch = "x86_64"))]
pub static OLD_CALLS: [Entry; 0] = [];

/// Calls of Linux 6.13, by the same numbers on every processor (asm-generic/unistd.h).
pub static NEW_CALLS: [Entry; 2] = [
    Entry {
        number: 464,
        name: "getxattrat",
        args: &[Fd, Path, Number, Text, Other, Number],
        changes: false,
    },
    Entry {
        number: 465,
        name: "listxattrat",
        args: &[Fd, Path, Number, Other, Number],
        changes: false,
    },
];

/// All calls that are watched.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    CALLS.iter().chain(&OLD_CALLS).chain(&NEW_CALLS)
}
