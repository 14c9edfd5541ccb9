//! Log lines: what they say and which are written. [`LogSink`] says where they go.

use std::env;
use std::io::Write;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

use super::error::CliError;
use crate::mount::LogSink;

/// Starts logging: as `PLYFS_LOG` says, else as `RUST_LOG` says, else from `default` up.
///
/// # Errors
/// If the process already logs.
pub fn start(default: LevelFilter) -> Result<(), CliError> {
    let mut builder = Builder::new();
    match env::var_os("PLYFS_LOG").or_else(|| env::var_os("RUST_LOG")) {
        Some(filters) => builder.parse_filters(&filters.to_string_lossy()),
        None => builder.filter_level(default),
    };
    builder.target(Target::Pipe(Box::new(LogSink)));
    builder.format(|line, record| match record.level() {
        Level::Error | Level::Info => writeln!(line, "plyfs: {}", record.args()),
        Level::Warn => writeln!(line, "plyfs: warning: {}", record.args()),
        Level::Debug | Level::Trace => {
            writeln!(line, "plyfs: {}: {}", record.target(), record.args())
        }
    });
    builder.try_init().map_err(|error| CliError::Failure(error.to_string()))
}
