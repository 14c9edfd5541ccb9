//! Why a command did not succeed, and how that is told.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

use super::called_as::CalledAs;
use crate::container;
use crate::mount::MountError;
use crate::mount::options::OptionError;
use crate::store;

/// Why the program does not exit with 0; displayed as one line without the `plyfs: ` before it.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong.
    Usage(String),
    /// The command line is right, but it did not work.
    Failure(String),
    /// What was named does not exist.
    NotFound(String),
    /// Something in the store is not what its name says.
    Damaged(String),
    /// The command has a status of its own for it.
    Status(u8, String),
}

/// The exit statuses of a command for its errors.
#[derive(Clone, Copy, Debug)]
pub struct Statuses {
    /// The command line is wrong.
    pub usage: u8,
    /// It did not work.
    pub failure: u8,
    /// What was named does not exist.
    pub not_found: u8,
    /// Something in the store is not what its name says.
    pub damaged: u8,
}

impl Statuses {
    /// Of most commands.
    pub const USUAL: Self = Self { usage: 2, failure: 1, not_found: 3, damaged: 4 };
    /// Of `plyfs check`: those of fsck(8), in which 1 and 2 say something else.
    pub const FSCK: Self = Self { usage: 16, failure: 8, not_found: 8, damaged: 8 };
    /// Of `plyfs run`: those of docker, in which all others are the program's.
    pub const RUN: Self = Self { usage: 125, failure: 125, not_found: 125, damaged: 125 };
}

impl CliError {
    /// Prints the error and gives the exit status.
    pub fn report(&self, statuses: Statuses) -> ExitCode {
        // Nobody is left to tell when even standard error cannot be written; the status still does.
        drop(writeln!(io::stderr(), "plyfs: {self}"));
        ExitCode::from(match self {
            CliError::Usage(_) => statuses.usage,
            CliError::Failure(_) => statuses.failure,
            CliError::NotFound(_) => statuses.not_found,
            CliError::Damaged(_) => statuses.damaged,
            CliError::Status(status, _) => *status,
        })
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (CliError::Usage(line)
        | CliError::Failure(line)
        | CliError::NotFound(line)
        | CliError::Damaged(line)
        | CliError::Status(_, line)) = self;
        f.write_str(&one_line(line))
    }
}

impl std::error::Error for CliError {}

impl From<OptionError> for CliError {
    fn from(error: OptionError) -> CliError {
        CliError::Usage(error.to_string())
    }
}

impl From<MountError> for CliError {
    fn from(error: MountError) -> CliError {
        CliError::Failure(error.to_string())
    }
}

impl From<container::Error> for CliError {
    fn from(error: container::Error) -> CliError {
        match error {
            container::Error::Store(error) => error.into(),
            container::Error::Mount(error) => error.into(),
        }
    }
}

impl From<store::Error> for CliError {
    fn from(error: store::Error) -> CliError {
        let line = error.to_string();
        match error.kind() {
            store::Kind::Failure => CliError::Failure(line),
            store::Kind::NotFound => CliError::NotFound(line),
            store::Kind::Damaged => CliError::Damaged(line),
        }
    }
}

/// Standard output or standard error could not be written.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        CliError::Failure(format!("cannot write the output: {error}"))
    }
}

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> CliError {
        let context = |kind| error.get(kind).map(ToString::to_string);
        let problem = match error.kind() {
            ErrorKind::MissingRequiredArgument => {
                format!("missing {}", context(ContextKind::InvalidArg).unwrap_or_default())
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                "a command is missing".to_owned()
            }
            // What clap takes for a command after arguments is one argument too many.
            ErrorKind::ArgumentConflict if error.get(ContextKind::InvalidSubcommand).is_none() => {
                let [one, other] = [ContextKind::InvalidArg, ContextKind::PriorArg]
                    .map(|kind| context(kind).unwrap_or_default());
                format!("{one} does not go with {other}")
            }
            ErrorKind::ArgumentConflict => {
                let surplus = context(ContextKind::InvalidSubcommand)
                    .or_else(|| context(ContextKind::InvalidArg));
                format!("unexpected argument '{}' found", surplus.unwrap_or_default())
            }
            _ => first_line(&error),
        };
        let advice = match (context(ContextKind::SuggestedArg), context(ContextKind::ValidValue)) {
            (Some(similar), _) => format!("did you mean {similar}?"),
            (None, Some(values)) if !values.is_empty() => {
                format!("expected one of {values}")
            }
            (None, _) => "try `plyfs --help`".into(),
        };
        CliError::Usage(format!("{problem}; {advice}"))
    }
}

fn first_line(error: &clap::Error) -> String {
    let rendered = error.to_string();
    let first = rendered.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// clap stops for help and version as it does for errors: prints the former, passes on the latter.
pub fn show_or_refuse(stop: clap::Error, called_as: CalledAs) -> Result<(), CliError> {
    match stop.kind() {
        ErrorKind::DisplayVersion => io::stdout().write_all(called_as.version().as_bytes())?,
        ErrorKind::DisplayHelp => stop.print()?,
        _ => return Err(stop.into()),
    }
    Ok(())
}

/// A path may hold line breaks and escape sequences, a terminal must not see them.
pub(super) fn one_line(text: &str) -> String {
    let escaped = |c: char| c.escape_default().to_string();
    text.chars().map(|c| if c.is_control() { escaped(c) } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        let error = CliError::Failure("/a\nb\u{1b}[0m: é".into());
        assert_eq!(error.to_string(), "/a\\nb\\u{1b}[0m: é");
    }
}
