//! Mounting: by ourselves where we may, else through fusermount3.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::mount;

use super::error::MountError;
use super::mounted::Mounted;
use super::spec::MountSpec;
use super::{fusermount, unmount};

/// Mounts on `mountpoint` (absolute) and returns the FUSE device, from which the kernel's requests
/// are to be read from now on: until then whoever looks at the mountpoint waits.
///
/// # Errors
/// Says what is missing: the device, the right to use it, the right to mount, fusermount3.
pub fn attach(mountpoint: &Path, spec: &MountSpec) -> Result<(OwnedFd, Mounted), MountError> {
    let device = open_device()?;
    let device = match mount_directly(&device, mountpoint, spec) {
        Ok(()) => device,
        Err(Errno::PERM) => fusermount::mount(mountpoint, spec)?,
        Err(error) => return Err(MountError::Mount(mountpoint.to_owned(), error)),
    };
    match Mounted::remember(mountpoint, &device) {
        Ok(mounted) => Ok((device, mounted)),
        Err(error) => {
            unmount::by_path(mountpoint, true)?;
            Err(error)
        }
    }
}

/// fusermount3 opens the device with the caller's rights too, so a failure here is final.
fn open_device() -> Result<OwnedFd, MountError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    open("/dev/fuse", flags, Mode::empty()).map_err(|error| MountError::Device(error.into()))
}

fn mount_directly(device: &OwnedFd, mountpoint: &Path, spec: &MountSpec) -> Result<(), Errno> {
    let mount_with = |contexts| {
        let data = CString::new(spec.data(device.as_raw_fd(), contexts))
            .map_err(|_nul_byte| Errno::INVAL)?;
        mount(spec.source.as_os_str(), mountpoint, spec.fs_type(), spec.flags, data.as_c_str())
    };
    match mount_with(true) {
        Err(error) if !spec.contexts.is_empty() => {
            mount_with(false)?;
            let names: Vec<&str> = spec.contexts.iter().map(|(name, _)| *name).collect();
            log::warn!("{} has no effect: the kernel refuses it here: {error}", names.join(", "));
            Ok(())
        }
        other => other,
    }
}
