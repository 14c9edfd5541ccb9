//! Byte strings (names, paths, link targets, attribute values) that print as the code that makes them.

use std::ffi::OsStr;
use std::fmt;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

/// A byte string. `Debug` prints the call of [`t`] that makes the same value.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub Vec<u8>);

/// Makes a [`Text`]: `%0A` is one byte in hexadecimal, `{n*255}` is a character repeated.
pub fn t(code: &str) -> Text {
    let mut bytes = Vec::new();
    let mut rest = code.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'%' => {
                bytes.push(u8::from_str_radix(&code_str(&tail[..2]), 16).unwrap());
                &tail[2..]
            }
            b'{' => {
                let end = tail.iter().position(|&b| b == b'}').unwrap();
                let count: usize = code_str(&tail[2..end]).parse().unwrap();
                bytes.resize(bytes.len() + count, tail[0]);
                &tail[end + 1..]
            }
            _ => {
                bytes.push(first);
                tail
            }
        };
    }
    Text(bytes)
}

fn code_str(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Text {
    pub fn as_os(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The components of a path relative to the root; none for the root itself.
    pub fn components(&self) -> impl Iterator<Item = Text> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty()).map(|part| Text(part.to_vec()))
    }

    pub fn join(&self, name: &Text) -> Text {
        if self.0.is_empty() {
            return name.clone();
        }
        Text([&self.0, b"/".as_slice(), &name.0].concat())
    }

    /// Splits into the path of the parent and the last name; `None` for the root.
    pub fn split_last(&self) -> Option<(Text, Text)> {
        let mut parts: Vec<Text> = self.components().collect();
        let name = parts.pop()?;
        Some((parts.iter().fold(Text::default(), |path, part| path.join(part)), name))
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Text) -> bool {
        let mut parts = self.components();
        ancestor.components().all(|part| parts.next() == Some(part))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut code = String::new();
        for run in self.0.chunk_by(|a, b| a == b) {
            let one = match run[0] {
                byte @ (b'%' | b'{' | b'}' | b'"' | b'\\') => format!("%{byte:02X}"),
                byte if byte.is_ascii_graphic() || byte == b' ' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            };
            if run.len() > 5 && one.len() == 1 {
                write!(code, "{{{one}*{}}}", run.len())?;
            } else {
                code.push_str(&one.repeat(run.len()));
            }
        }
        write!(f, "t(\"{code}\")")
    }
}

#[test]
fn text_prints_as_the_code_that_makes_it() {
    let odd = Text(b"a/%{\n\xff\"".iter().chain([b'n'; 255].iter()).copied().collect());
    assert_eq!(format!("{odd:?}"), r#"t("a/%25%7B%0A%FF%22{n*255}")"#);
    assert_eq!(t(r"a/%25%7B%0A%FF%22{n*255}"), odd);
}
