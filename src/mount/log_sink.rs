//! Where log lines go: to standard error, and from a daemon that has none to syslog.
//!
//! A daemon's lines go to the file that `PLYFS_LOG_FILE` names; else to syslog where there is one,
//! which covers journald; else nowhere.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

const SYSLOG: &str = "/dev/log";

/// Facility daemon (3), severity warning (4), as syslog(3) counts them.
const PRIORITY: u32 = 3 * 8 + 4;

static TO_SYSLOG: AtomicBool = AtomicBool::new(false);

/// To be written to once for each log line.
#[derive(Debug)]
pub struct LogSink;

impl Write for LogSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !TO_SYSLOG.load(Ordering::Relaxed) {
            return io::stderr().write(line);
        }
        let mut message = format!("<{PRIORITY}>plyfs[{}]: ", process::id()).into_bytes();
        // syslog says whose line it is.
        let line_alone = line.strip_prefix(b"plyfs: ").unwrap_or(line);
        message.extend(line_alone.trim_ascii_end());
        UnixDatagram::unbound()?.send_to(&message, SYSLOG)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether lines go to syslog.
pub(super) fn uses_syslog() -> bool {
    TO_SYSLOG.load(Ordering::Relaxed)
}

/// Sends lines to syslog from now on, if there is one on this machine.
pub(super) fn use_syslog() {
    TO_SYSLOG.store(Path::new(SYSLOG).exists(), Ordering::Relaxed);
}
