//! Why a program was not run, with the exit status that says so as docker does.

use std::fmt;
use std::io;

/// One line, and the exit status that goes with it.
#[derive(Debug)]
pub struct RunError {
    /// 125, 126 or 127.
    pub status: u8,
    /// What is wrong.
    pub line: String,
}

/// The container could not be made.
const FAILED: u8 = 125;
/// The program is there, and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

impl RunError {
    /// The container could not be made.
    pub fn failed(line: impl Into<String>) -> Self {
        Self { status: FAILED, line: line.into() }
    }

    /// The program is there, and cannot be executed.
    pub fn not_executable(line: impl Into<String>) -> Self {
        Self { status: NOT_EXECUTABLE, line: line.into() }
    }

    /// There is no such program.
    pub fn not_found(line: impl Into<String>) -> Self {
        Self { status: NOT_FOUND, line: line.into() }
    }

    /// For `map_err`: the system refused `what`.
    pub fn system<E: Into<io::Error>>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::failed(format!("{what}: {}", error.into()))
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for RunError {}
