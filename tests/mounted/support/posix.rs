//! System calls in one line, for tests: a failure that was not asked for ends the test.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, Timestamps, XattrFlags, chmodat,
    chownat, lgetxattr, llistxattr, lremovexattr, lsetxattr, makedev, mknodat, open, renameat_with,
    statat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, umask};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::tree::timespec;

/// Status of `path` itself, not of what it points to.
pub fn lstat(path: impl AsRef<Path>) -> Stat {
    try_lstat(&path).unwrap_or_else(|error| panic!("stat {}: {error}", path.as_ref().display()))
}

/// Status of `path` itself.
pub fn try_lstat(path: impl AsRef<Path>) -> Result<Stat, Errno> {
    statat(CWD, path.as_ref(), AtFlags::SYMLINK_NOFOLLOW)
}

/// Whether there is something at `path`; any error but absence ends the test.
pub fn exists(path: impl AsRef<Path>) -> bool {
    match try_lstat(&path) {
        Ok(_) => true,
        Err(Errno::NOENT) => false,
        Err(error) => panic!("stat {}: {error}", path.as_ref().display()),
    }
}

/// Permission and set-id bits.
pub fn mode(path: impl AsRef<Path>) -> u32 {
    lstat(path).st_mode & 0o7777
}

/// File type.
pub fn kind(path: impl AsRef<Path>) -> FileType {
    FileType::from_raw_mode(lstat(path).st_mode)
}

/// Inode number.
pub fn ino(path: impl AsRef<Path>) -> u64 {
    lstat(path).st_ino
}

/// Owner and group.
pub fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let stat = lstat(path);
    (stat.st_uid, stat.st_gid)
}

/// Time of last modification.
pub fn mtime(path: impl AsRef<Path>) -> (i64, i64) {
    let stat = lstat(path);
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

/// Character device 0:0.
pub fn is_whiteout(path: impl AsRef<Path>) -> bool {
    let stat = lstat(path);
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// A directory marked opaque in the way that every reader understands.
pub fn is_opaque(path: impl AsRef<Path>) -> bool {
    let marked = |name| get_xattr(path.as_ref(), name) == Ok(b"y".to_vec());
    marked("user.overlay.opaque")
        && (marked("trusted.overlay.opaque") || !rustix::process::geteuid().is_root())
}

/// The error of a call that should fail.
pub fn errno<T: Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).expect("an error of the system")
}

/// What is in a file, as text.
pub fn text(path: impl AsRef<Path>) -> String {
    let bytes =
        fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.as_ref().display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sorted names in a directory.
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    raw_names(dir).into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Sorted names in a directory, byte for byte.
pub fn raw_names(dir: impl AsRef<Path>) -> Vec<OsString> {
    let entries = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("list {}: {error}", dir.as_ref().display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Value of an extended attribute of `path` itself.
pub fn get_xattr(path: impl AsRef<Path>, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 64 * 1024];
    let length = lgetxattr(path.as_ref(), name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// Sets an extended attribute of `path` itself.
pub fn set_xattr(path: impl AsRef<Path>, name: &str, value: &[u8]) -> Result<(), Errno> {
    lsetxattr(path.as_ref(), name, value, XattrFlags::empty())
}

/// Removes an extended attribute of `path` itself.
pub fn remove_xattr(path: impl AsRef<Path>, name: &str) -> Result<(), Errno> {
    lremovexattr(path.as_ref(), name)
}

/// Sorted names of the extended attributes of `path` itself.
pub fn xattrs(path: impl AsRef<Path>) -> Vec<String> {
    let mut list = vec![0; 64 * 1024];
    let length = llistxattr(path.as_ref(), &mut list[..]).unwrap();
    let names = list[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(|n| String::from_utf8_lossy(n).into_owned()).collect();
    names.sort();
    names
}

/// renameat2(2).
pub fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, flags)
}

/// mknod(2) with mode 0666; the umask applies.
pub fn mknod(path: impl AsRef<Path>, kind: FileType, device: (u32, u32)) -> Result<(), Errno> {
    let device = makedev(device.0, device.1);
    mknodat(CWD, path.as_ref(), kind, Mode::from_raw_mode(0o666), device)
}

/// chmod(2).
pub fn chmod(path: impl AsRef<Path>, mode: u32) -> Result<(), Errno> {
    chmodat(CWD, path.as_ref(), Mode::from_raw_mode(mode), AtFlags::empty())
}

/// lchown(2); `u32::MAX` leaves an id as it is.
pub fn chown(path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<(), Errno> {
    let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
    let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
    chownat(CWD, path.as_ref(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets both times of `path` itself, in seconds.
pub fn set_times(path: impl AsRef<Path>, atime: f64, mtime: f64) -> Result<(), Errno> {
    let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
    utimensat(CWD, path.as_ref(), &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// open(2) of what exists.
pub fn open_file(path: impl AsRef<Path>, flags: OFlags) -> Result<File, Errno> {
    open(path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// open(2) for reading and writing.
pub fn open_rw(path: impl AsRef<Path>) -> File {
    open_file(&path, OFlags::RDWR)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.as_ref().display()))
}

/// open(2) with `O_CREAT` and the given mode; the umask applies.
pub fn create(path: impl AsRef<Path>, flags: OFlags, mode: u32) -> Result<File, Errno> {
    let flags = flags | OFlags::CREATE | OFlags::CLOEXEC;
    open(path.as_ref(), flags, Mode::from_raw_mode(mode)).map(File::from)
}

/// mkdir(2); the umask applies.
pub fn mkdir(path: impl AsRef<Path>, mode: u32) -> Result<(), Errno> {
    rustix::fs::mkdir(path.as_ref(), Mode::from_raw_mode(mode))
}

/// Appends to a file.
pub fn append(path: impl AsRef<Path>, text: &str) {
    use std::io::Write;
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Does `action` until `done` says so. What the kernel tells the daemon without waiting for it, such as that a file was
/// closed, shows in this way only.
pub fn until<T>(mut action: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let result = action();
        if done(&result) {
            return result;
        }
        assert!(Instant::now() < deadline, "nothing has happened");
        sleep(Duration::from_millis(2));
    }
}

/// Runs `action` as user `uid` and group `gid` with no privilege and no further groups.
pub fn as_ids<T: Send>(uid: u32, gid: u32, action: impl FnOnce() -> T + Send) -> T {
    as_member(uid, gid, &[], action)
}

/// Runs `action` as user `uid` and group `gid` with no privilege, also in the groups `others`.
pub fn as_member<T: Send>(
    uid: u32,
    gid: u32,
    others: &[u32],
    action: impl FnOnce() -> T + Send,
) -> T {
    // The ids of a Linux thread are its own; this one ends with them.
    in_thread(move || {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let others: Vec<_> = others.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&others).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        action()
    })
}

/// Runs `action` as some user without privilege.
pub fn as_user<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    as_ids(USER, USER, action)
}

/// The ids of [`as_user`].
pub const USER: u32 = 1234;

/// Runs `action` under a umask.
#[allow(deprecated)]
pub fn with_umask<T: Send>(mask: u32, action: impl FnOnce() -> T + Send) -> T {
    in_thread(move || {
        // Sharing the umask with no other thread from here on.
        rustix::thread::unshare(UnshareFlags::FS).unwrap();
        umask(Mode::from_raw_mode(mask));
        action()
    })
}

fn in_thread<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(action).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs a tool that must succeed and returns what it wrote.
pub fn run<S: AsRef<OsStr>>(tool: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A name of `length` bytes.
pub fn long_name(length: usize) -> String {
    "n".repeat(length)
}

/// A name from bytes that may be no text.
pub fn name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// The bytes of a path.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
