//! What is wrong with a mount option.

use std::fmt;

/// A mount option that cannot be honoured; displayed as one line that names it and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The option's name.
    pub option: &'static str,
    /// What is wrong and what is expected instead.
    pub problem: String,
}

impl OptionError {
    /// There is no union without layers.
    pub fn no_layers() -> OptionError {
        Self::new("lowerdir", "missing; name the layers, top first: -o lowerdir=DIR[:DIR...]")
    }

    pub(super) fn new(option: &'static str, problem: impl Into<String>) -> OptionError {
        OptionError { option, problem: problem.into() }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {}: {}", self.option, self.problem)
    }
}

impl std::error::Error for OptionError {}

/// Bytes of a caller as a short piece of one line: control characters escaped, cut after 60
/// characters.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(bytes);
    let shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect();
    if text.chars().nth(LONGEST).is_some() { shown + "..." } else { shown }
}
