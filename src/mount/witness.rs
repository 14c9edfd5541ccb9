//! Who has to know of a mount besides its caller.

use std::io;
use std::path::Path;

/// Is told by the process that serves a mount, in the background or in the foreground, about its begin and end.
pub trait Witness {
    /// Before anything is opened: what is to be mounted on the absolute path `mountpoint`.
    ///
    /// # Errors
    /// Keep it from being mounted.
    fn begins(&mut self, mountpoint: &Path) -> io::Result<()>;

    /// It is mounted, as a filesystem with these major and minor numbers. Nobody has been answered yet.
    ///
    /// # Errors
    /// Take it away again.
    fn mounted(&mut self, device: (u32, u32)) -> io::Result<()>;

    /// It is served no more, or never was. Not called if the process dies.
    ///
    /// # Errors
    /// Go to the log.
    fn ended(&mut self) -> io::Result<()>;
}

/// Nobody.
impl Witness for () {
    fn begins(&mut self, _mountpoint: &Path) -> io::Result<()> {
        Ok(())
    }

    fn mounted(&mut self, _device: (u32, u32)) -> io::Result<()> {
        Ok(())
    }

    fn ended(&mut self) -> io::Result<()> {
        Ok(())
    }
}
