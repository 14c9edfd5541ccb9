//! Log lines: what they say and which are written. [`LogSink`] says where they go.

use std::env;
use std::io::{self, Write};

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
        let level = match is_late_answer(record.target(), &text) {
            true if log::max_level() < Level::Debug => return Ok(()),
            true => Level::Debug,
            false => record.level(),
        };
        match level {
            Level::Error | Level::Info => writeln!(line, "plyfs: {text}"),
            Level::Warn => writeln!(line, "plyfs: warning: {text}"),
            Level::Debug | Level::Trace => writeln!(line, "plyfs: {}: {text}", record.target()),
        }
    });
    builder.try_init().map_err(|error| CliError::Failure(error.to_string()))
}

/// Whether a line of the library is about the answer to an INTERRUPT that came after that to the interrupted request.
/// The library says by it that it knows no such message (`ENOSYS`), and the kernel, that there is no such request any more
/// (`ENOENT`, which it has for no other answer): the caller has got his answer, and nothing is lost.
fn is_late_answer(target: &str, text: &str) -> bool {
    target.starts_with("fuser::")
        && text.strip_prefix("Failed to send FUSE reply: ")
            == Some(&io::Error::from_raw_os_error(libc::ENOENT).to_string())
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
    fn answers_to_interrupts_that_came_late_are_told_from_others() {
        let line = "Failed to send FUSE reply: No such file or directory (os error 2)";
        assert!(is_late_answer("fuser::reply", line));
        assert!(!is_late_answer("plyfs::fuse", line));
        let other = "Failed to send FUSE reply: Invalid argument (os error 22)";
        assert!(!is_late_answer("fuser::reply", other));
    }

    #[test]
    fn names_cannot_make_lines_of_their_own() {
        let text = one_line("layer: /a\nplyfs: b\u{1b}[2J\u{9b}\u{e4}");
        assert_eq!(text, "layer: /a\\nplyfs: b\\u{1b}[2J\\u{9b}\u{e4}");
    }
}
