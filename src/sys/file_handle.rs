//! File handles (name_to_handle_at(2)): a name for an inode that outlives mounts and renames.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use super::{Errno, Object, Result};

/// The kernel's `MAX_HANDLE_SZ` in bytes.
const LARGEST: usize = 128;

/// An opaque identity of an inode on its filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The filesystem's own type of handle, 0..=255.
    pub kind: u8,
    /// The handle.
    pub bytes: Box<[u8]>,
}

#[repr(C)]
struct RawHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    data: [u8; LARGEST],
}

/// The handle of `object`.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no handles.
pub fn of(object: &Object) -> Result<FileHandle> {
    match object {
        Object::Child(dir, name) => at(dir.as_fd(), name, 0),
        Object::Own(fd) => at(fd.as_fd(), OsStr::new(""), libc::AT_EMPTY_PATH),
    }
}

#[allow(unsafe_code)]
fn at(dir: BorrowedFd<'_>, name: &OsStr, flags: libc::c_int) -> Result<FileHandle> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let mut raw = RawHandle { bytes: LARGEST as libc::c_uint, kind: 0, data: [0; LARGEST] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `name` is NUL-terminated, `raw` has the layout of struct file_handle with room for the
    // number of bytes that it states, and all pointers outlive the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            flags,
        )
    };
    if status != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let length = (raw.bytes as usize).min(LARGEST);
    let kind = u8::try_from(raw.kind).map_err(|_| Errno::OPNOTSUPP)?;
    Ok(FileHandle { kind, bytes: raw.data[..length].into() })
}

/// The UUID of the filesystem of the directory open as `fd` (`FS_IOC_GETFSUUID`, Linux 6.9).
///
/// # Errors
/// `ENOTTY` or another where the filesystem or the kernel does not tell.
#[allow(unsafe_code)]
pub fn filesystem_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16]> {
    /// `struct fsuuid2` of linux/fs.h.
    #[repr(C)]
    struct FsUuid {
        length: u8,
        uuid: [u8; 16],
    }
    const GET: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<FsUuid>(0x15, 0);
    // SAFETY: `GET` is FS_IOC_GETFSUUID, which fills a struct fsuuid2, and FsUuid has its layout.
    let found = unsafe {
        let getter = rustix::ioctl::Getter::<GET, FsUuid>::new();
        rustix::ioctl::ioctl(fd, getter)?
    };
    if found.length == 16 { Ok(found.uuid) } else { Err(Errno::OPNOTSUPP) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn two_names_of_one_file_have_one_handle() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        std::fs::write(root.path().join("a"), "").unwrap();
        std::fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
        std::fs::write(root.path().join("c"), "").unwrap();
        let dir = Arc::new(crate::sys::open::directory(root.path()).unwrap());
        let handle = |name: &str| {
            let object = Object::Child(dir.clone(), OsStr::new(name).into());
            let own = Object::Own(object.pin().unwrap());
            assert_eq!(of(&object).unwrap(), of(&own).unwrap());
            of(&object).unwrap()
        };
        assert_eq!(handle("a"), handle("b"));
        assert_ne!(handle("a"), handle("c"));
    }
}
