//! Names of entries. They lead nowhere but down from the root of the layer.

use std::fmt;

use super::{Refusal, Result, Shown};

/// The longest name of a file that Linux takes, in bytes.
const LONGEST_NAME: usize = 255;

/// A path from the root of a layer: names without `.`, `..`, NUL or `/`, none of them empty. No names at all are
/// the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(
    /// The names, each followed by a `/`.
    Box<[u8]>,
);

impl EntryPath {
    /// Reads a name as archives have it: `/` at the beginning or end and `.` say nothing.
    ///
    /// # Errors
    /// `..`, which no tar program writes; NUL; names that no filesystem takes.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        if raw.is_empty() {
            return Err(Refusal::new("it has no name"));
        }
        if raw.contains(&0) {
            return Err(Refusal::new("its name contains a zero byte").of(raw));
        }
        let mut names = Vec::with_capacity(raw.len() + 1);
        for name in raw.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(Refusal::new("its name leads through ..").of(raw)),
                name if name.len() > LONGEST_NAME => {
                    return Err(Refusal::new("a name in it is longer than 255 bytes").of(raw));
                }
                name => names.extend_from_slice(name),
            }
            names.push(b'/');
        }
        Ok(Self(names.into()))
    }

    /// Whether this is the root of the layer.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, from the root.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let names = self.0.split_inclusive(|byte| *byte == b'/');
        names.map(|name| &name[..name.len() - 1])
    }

    /// The path of the directory, and the name in it; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        let name = self.names().next_back()?;
        let parent = &self.0[..self.0.len() - name.len() - 1];
        Some((Self(parent.into()), name))
    }

    /// The path as it is written in archives, without a `/` at either end.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.strip_suffix(b"/").unwrap_or(&self.0)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(self.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_path_are_one() {
        for raw in ["a/b", "./a/b", "/a/b", "//a/./b/", "a//b/."] {
            let path = EntryPath::parse(raw.as_bytes()).unwrap();
            assert_eq!(path.names().collect::<Vec<_>>(), [b"a", b"b"], "{raw}");
            assert_eq!(path.as_bytes(), b"a/b");
            let (parent, name) = path.split_last().unwrap();
            assert_eq!((parent.as_bytes(), name), (&b"a"[..], &b"b"[..]));
        }
        for raw in ["/", ".", "./"] {
            assert!(EntryPath::parse(raw.as_bytes()).unwrap().is_root(), "{raw}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        let long = "x".repeat(256);
        for (raw, why) in [
            ("..", "entry ..: its name leads through .."),
            ("a/../b", "entry a/../b: its name leads through .."),
            ("", "it has no name"),
            ("a\0b", "entry a\\u{0}b: its name contains a zero byte"),
            (&long, &format!("entry {long}: a name in it is longer than 255 bytes")),
        ] {
            assert_eq!(EntryPath::parse(raw.as_bytes()).unwrap_err().to_string(), why);
        }
        assert!(EntryPath::parse(&long.as_bytes()[1..]).is_ok());
        assert!(EntryPath::parse(b"..a/b..").is_ok());
    }
}
