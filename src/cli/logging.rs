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
    builder.format(|line, record| {
        let text = one_line(&record.args().to_string());
        match record.level() {
            Level::Error | Level::Info => writeln!(line, "plyfs: {text}"),
            Level::Warn => writeln!(line, "plyfs: warning: {text}"),
            Level::Debug | Level::Trace => writeln!(line, "plyfs: {}: {text}", record.target()),
        }
    });
    builder.try_init().map_err(|error| CliError::Failure(error.to_string()))
}

/// `text` without control characters, which the name of a file may have: they could pretend to be lines of
/// their own, or command the terminal.
fn one_line(text: &str) -> String {
    let escape = |c: char| c.is_control().then(|| c.escape_default().to_string());
    text.chars().map(|c| escape(c).unwrap_or_else(|| c.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_make_lines_of_their_own() {
        let text = one_line("layer: /a\nplyfs: b\u{1b}[2J\u{9b}\u{e4}");
        assert_eq!(text, "layer: /a\\nplyfs: b\\u{1b}[2J\\u{9b}\u{e4}");
    }
}
