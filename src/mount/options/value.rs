//! The kinds of values an option takes, and how each is read.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::draft::Draft;
use super::error::excerpt;
use super::{LowerDirs, OptionError, grammar};
use crate::overlay::id_map::IdMap;

/// Where a value of type `T` goes.
type Set<T> = fn(&mut Draft, T);

/// A word and what it means.
type Choice = (&'static str, fn(&mut Draft));

/// A value an option may have: how it reads, and what it then changes.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// Nothing follows the name.
    Flag(fn(&mut Draft)),
    /// `0` or `1`.
    Bool(Set<bool>),
    /// One of a few words.
    Word(&'static [Choice]),
    /// A whole number between the first two fields.
    Number(u32, u32, Set<u32>),
    /// Seconds, fractions allowed.
    Seconds(Set<Duration>),
    /// A path: any bytes, commas protected by a backslash.
    Path(Set<PathBuf>),
    /// `lowerdir`'s list of paths.
    Layers(Set<LowerDirs>),
    /// Ranges of ids.
    Ids(Set<IdMap>),
    /// Any text, which may be quoted.
    Text(Set<OsString>),
    /// Any text or none, without a meaning here.
    Ignored,
    /// Refused, with the reason.
    Refused(&'static str),
}

impl Value {
    /// How the value is written in documentation, with its `=`.
    pub fn syntax(&self) -> String {
        match self {
            Value::Flag(_) | Value::Ignored => String::new(),
            Value::Bool(_) => "=0|1".into(),
            Value::Word(words) => {
                let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
                format!("={}", names.join("|"))
            }
            Value::Number(..) => "=N".into(),
            Value::Seconds(_) => "=SECONDS".into(),
            Value::Path(_) => "=DIR".into(),
            Value::Layers(_) => "=DIR[:DIR...][::DIR...]".into(),
            Value::Ids(_) => "=ON-DISK:SHOWN:LENGTH[:...]".into(),
            Value::Text(_) | Value::Refused(_) => "=TEXT".into(),
        }
    }

    /// What may follow the name on a command line, as far as that is known beforehand.
    pub fn beginnings(&self) -> Vec<String> {
        match self {
            Value::Flag(_) | Value::Ignored | Value::Refused(_) => vec![String::new()],
            Value::Bool(_) => vec!["=0".into(), "=1".into()],
            Value::Word(words) => words.iter().map(|(word, _)| format!("={word}")).collect(),
            _ => vec!["=".into()],
        }
    }

    /// Whether the kind goes with a `=` (true) or without one.
    pub fn suits(&self, has_value: bool) -> bool {
        match self {
            Value::Flag(_) => !has_value,
            Value::Ignored | Value::Refused(_) => true,
            _ => has_value,
        }
    }

    /// Whether double quotes around the value protect its commas.
    pub fn is_quotable(&self) -> bool {
        !matches!(self, Value::Path(_) | Value::Layers(_))
    }

    /// Reads the text after `=`, if there is one, and stores what it means.
    pub fn apply(
        &self,
        option: &'static str,
        text: Option<&[u8]>,
        draft: &mut Draft,
    ) -> Result<(), OptionError> {
        let error = |problem: String| OptionError::new(option, problem);
        match (self, text) {
            (Value::Ignored, _) => {}
            (Value::Refused(reason), _) => return Err(error((*reason).into())),
            (Value::Flag(set), None) => set(draft),
            (Value::Flag(_), Some(_)) => {
                return Err(error(format!("takes no value; write `{option}`")));
            }
            (_, None) => return Err(error(format!("needs a value: {option}{}", self.syntax()))),
            (kind, Some(text)) => kind.read(text, draft).map_err(error)?,
        }
        Ok(())
    }

    fn read(&self, text: &[u8], draft: &mut Draft) -> Result<(), String> {
        match self {
            Value::Bool(set) => set(draft, plain(text, "0 or 1", switch)?),
            Value::Word(words) => {
                let expected = list_of(words);
                let word = |text: &str| words.iter().find(|(name, _)| *name == text);
                plain(text, &expected, word)?.1(draft);
            }
            Value::Number(least, most, set) => {
                let expected = format!("a whole number from {least} to {most}");
                let fits = |number: &u32| (least..=most).contains(&number);
                set(draft, plain(text, &expected, |text| decimal(text).filter(fits))?);
            }
            Value::Seconds(set) => {
                set(draft, plain(text, "a number of seconds, 0 or more", seconds)?);
            }
            Value::Ids(set) => {
                let text = std::str::from_utf8(text).map_err(|_| unexpected(text, "numbers"))?;
                let map = IdMap::parse(text);
                set(draft, map.map_err(|error| format!("{}: {error}", excerpt(text.as_bytes())))?);
            }
            Value::Layers(set) => set(draft, LowerDirs::parse(text)?),
            Value::Path(_) if text.is_empty() => return Err("the path is empty".into()),
            Value::Path(set) => set(draft, OsString::from_vec(grammar::unescape(text)).into()),
            Value::Text(set) => {
                let text = grammar::unquote(text)
                    .ok_or_else(|| unexpected(text, "a double quote at both ends or none"))?;
                set(draft, OsString::from_vec(grammar::unescape(text)));
            }
            Value::Flag(_) | Value::Ignored | Value::Refused(_) => {}
        }
        Ok(())
    }
}

fn unexpected(text: &[u8], expected: &str) -> String {
    format!("`{}` is not valid; expected {expected}", excerpt(text))
}

fn plain<T>(
    text: &[u8],
    expected: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    std::str::from_utf8(text).ok().and_then(read).ok_or_else(|| unexpected(text, expected))
}

fn list_of(words: &[Choice]) -> String {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Refuses what a [`Duration`] cannot hold: negative, infinite, or beyond 2^64 seconds.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}
