//! (under construction)

pub mod id_map;
pub mod options;
pub mod request;

use request::MountRequest;

/// (under construction)
#[derive(Debug)]
pub struct MountError;

impl std::fmt::Display for MountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("mounting is not built yet")
    }
}

impl std::error::Error for MountError {}

/// (under construction)
pub fn run(_request: &MountRequest) -> Result<(), MountError> {
    Err(MountError)
}

/// (under construction)
pub fn unmount(_mountpoint: &std::path::Path, _lazy: bool) -> Result<(), MountError> {
    Err(MountError)
}

/// (under construction)
#[derive(Debug)]
pub struct LogSink;

impl std::io::Write for LogSink {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
