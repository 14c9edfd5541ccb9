//! The text of `-o`: how it splits into options, and how backslashes and quotes protect separators.
//!
//! A backslash takes away the meaning of the byte after it, as in kernel overlayfs and libfuse.
//! Double quotes around a value do the same for commas, as mount(8) writes SELinux contexts; paths
//! have no quotes, so that a caller may pass any path verbatim.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One option as written: escapes and quotes are still in the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub name: &'a [u8],
    /// What follows `=`; `None` when there is no `=`.
    pub value: Option<&'a [u8]>,
}

/// Splits at commas, skipping empty options. `quotable` tells by its name whether an option's value
/// may be quoted.
pub(super) fn items<'a>(
    text: &'a [u8],
    quotable: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = Item<'a>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after;
        }
        if rest.is_empty() {
            return None;
        }
        let name_len =
            rest.iter().position(|byte| matches!(byte, b',' | b'=')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_len);
        let Some(value) = after.strip_prefix(b"=") else {
            rest = after;
            return Some(Item { name, value: None });
        };
        let (value, after) = value.split_at(value_len(value, quotable(name)));
        rest = after;
        Some(Item { name, value: Some(value) })
    })
}

/// The number of bytes before the comma that ends the value. An unclosed quote takes everything.
fn value_len(text: &[u8], quotable: bool) -> usize {
    let mut quoted = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' if quotable && (at == 0 || quoted) => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Removes the backslashes that protect the byte after them; one at the very end stands for itself.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => bytes.next().copied().unwrap_or(b'\\'),
            _ => byte,
        });
    }
    plain
}

/// The text between a pair of quotes, the whole value if it has none; `None` when the quote is not
/// closed or something follows it.
pub(super) fn unquote(value: &[u8]) -> Option<&[u8]> {
    match value.strip_prefix(b"\"") {
        None => Some(value),
        Some(inner) => inner.strip_suffix(b"\"").filter(|inner| !inner.contains(&b'"')),
    }
}

/// The value of `lowerdir=`: paths exactly as given, top layer first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LowerDirs {
    /// The layers whose names are merged; at least one.
    pub layers: Vec<PathBuf>,
    /// The layers after `::`, which only hold data that metacopy files of `layers` point to.
    pub data_only: Vec<PathBuf>,
}

impl LowerDirs {
    /// Reads `DIR[:DIR...][::DATA[::DATA...]]`, in which `\:` is a colon of a path.
    ///
    /// # Errors
    /// As the kernel: an empty path, or a merged layer after a data-only one.
    pub fn parse(text: &[u8]) -> Result<LowerDirs, &'static str> {
        let mut dirs = LowerDirs::default();
        let mut rest = text;
        let mut data_only = false;
        loop {
            let (path, after) = rest.split_at(path_len(rest));
            if path.is_empty() {
                return Err(
                    "a layer has an empty path; write DIR:DIR, and `\\:` for a colon in a name",
                );
            }
            let path = PathBuf::from(OsString::from_vec(unescape(path)));
            if data_only { &mut dirs.data_only } else { &mut dirs.layers }.push(path);
            rest = match (after.strip_prefix(b"::"), after.strip_prefix(b":")) {
                (Some(rest), _) => {
                    data_only = true;
                    rest
                }
                (None, Some(_)) if data_only => {
                    return Err("after the first `::` every layer is data-only; \
                         separate all of them by `::`");
                }
                (None, Some(rest)) => rest,
                (None, None) => return Ok(dirs),
            };
        }
    }

    /// The text that [`LowerDirs::parse`] reads as these paths.
    pub fn render(&self) -> OsString {
        let mut text = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            text.extend_from_slice(if index == 0 { b"" } else { b":" });
            text.extend(escape(layer));
        }
        for layer in &self.data_only {
            text.extend_from_slice(b"::");
            text.extend(escape(layer));
        }
        OsString::from_vec(text)
    }
}

/// The number of bytes before the colon that ends a layer's path.
fn path_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b':' => return at,
            _ => at += 1,
        }
    }
    text.len()
}

fn escape(path: &Path) -> impl Iterator<Item = u8> {
    path.as_os_str().as_bytes().iter().flat_map(|&byte| {
        let protect = matches!(byte, b':' | b',' | b'\\').then_some(b'\\');
        protect.into_iter().chain([byte])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> Vec<(&str, Option<&str>)> {
        let text_of = |bytes| std::str::from_utf8(bytes).unwrap();
        items(text.as_bytes(), |name| name == b"context")
            .map(|item| (text_of(item.name), item.value.map(text_of)))
            .collect()
    }

    fn lower(text: &str) -> Result<(Vec<String>, Vec<String>), &'static str> {
        let names = |paths: Vec<PathBuf>| {
            paths.into_iter().map(|path| path.into_os_string().into_string().unwrap()).collect()
        };
        LowerDirs::parse(text.as_bytes()).map(|dirs| (names(dirs.layers), names(dirs.data_only)))
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn options_split_at_commas_and_empty_ones_vanish() {
        assert_eq!(split(""), []);
        assert_eq!(split(",,,"), []);
        assert_eq!(split("ro,,volatile,"), [("ro", None), ("volatile", None)]);
        assert_eq!(split("a=,b==c,=d"), [("a", Some("")), ("b", Some("=c")), ("", Some("d"))]);
    }

    #[test]
    fn backslashes_protect_commas() {
        assert_eq!(split(r"d=a\,b,ro"), [("d", Some(r"a\,b")), ("ro", None)]);
        assert_eq!(split(r"d=a\\,ro"), [("d", Some(r"a\\")), ("ro", None)]);
        assert_eq!(split(r"d=a\"), [("d", Some(r"a\"))]);
    }

    #[test]
    fn quotes_protect_commas_of_quotable_values_only() {
        assert_eq!(split(r#"context="a,b",ro"#), [("context", Some(r#""a,b""#)), ("ro", None)]);
        assert_eq!(split(r#"context="a,b"#), [("context", Some(r#""a,b"#))]);
        assert_eq!(split(r#"context=a"b,ro"#), [("context", Some(r#"a"b"#)), ("ro", None)]);
        assert_eq!(split(r#"d="a,b""#), [("d", Some(r#""a"#)), (r#"b""#, None)]);
    }

    #[test]
    fn unquote_takes_one_pair() {
        assert_eq!(unquote(b"a"), Some(&b"a"[..]));
        assert_eq!(unquote(br#""a,b""#), Some(&b"a,b"[..]));
        assert_eq!(unquote(br#""""#), Some(&b""[..]));
        assert_eq!(unquote(br#"""#), None);
        assert_eq!(unquote(br#""a"#), None);
        assert_eq!(unquote(br#""a"b""#), None);
    }

    #[test]
    fn unescape_takes_the_next_byte_as_it_is() {
        assert_eq!(unescape(br"a\:b\,c\\d\e"), br"a:b,c\de");
        assert_eq!(unescape(br"a\"), br"a\");
    }

    #[test]
    fn layers_split_at_colons() {
        assert_eq!(lower("a"), Ok((strings(&["a"]), vec![])));
        assert_eq!(lower("l/X/../diff1:/b//"), Ok((strings(&["l/X/../diff1", "/b//"]), vec![])));
        assert_eq!(lower(r"a\:b:c\\:d\,"), Ok((strings(&["a:b", r"c\", "d,"]), vec![])));
        assert_eq!(lower(r#""q""#), Ok((strings(&[r#""q""#]), vec![])));
    }

    #[test]
    fn a_double_colon_starts_data_only_layers() {
        assert_eq!(lower("a:b::c::d"), Ok((strings(&["a", "b"]), strings(&["c", "d"]))));
        assert_eq!(lower(r"a\::b"), Ok((strings(&["a:", "b"]), vec![])));
        assert!(lower("a::b:c").unwrap_err().contains("data-only"));
    }

    #[test]
    fn empty_layers_are_refused() {
        for text in ["", ":", "a:", ":a", "::a", "a::", "a:::b", "a::b::"] {
            assert!(lower(text).unwrap_err().contains("empty path"), "{text}");
        }
    }

    #[test]
    fn a_trailing_backslash_is_part_of_the_path() {
        assert_eq!(lower(r"a:b\"), Ok((strings(&["a", r"b\"]), vec![])));
    }

    fn paths(min: usize) -> impl Strategy<Value = Vec<PathBuf>> {
        let byte = prop_oneof![Just(b':'), Just(b','), Just(b'\\'), Just(b'"'), 1u8..];
        let path = prop::collection::vec(byte, 1..12);
        prop::collection::vec(path.prop_map(|bytes| OsString::from_vec(bytes).into()), min..6)
    }

    proptest! {
        #[test]
        fn rendered_layers_read_back(layers in paths(1), data_only in paths(0)) {
            let dirs = LowerDirs { layers, data_only };
            let text = [b"lowerdir=", dirs.render().as_bytes(), b",ro"].concat();
            let items: Vec<Item> = items(&text, |_| false).collect();
            prop_assert_eq!(items.len(), 2);
            prop_assert_eq!(LowerDirs::parse(items[0].value.unwrap()), Ok(dirs));
        }

        #[test]
        fn no_byte_is_lost_in_splitting(text: Vec<u8>) {
            let written: usize = items(&text, |_| true)
                .map(|item| item.name.len() + item.value.map_or(0, |value| value.len() + 1))
                .sum();
            let commas = text.iter().filter(|&&byte| byte == b',').count();
            prop_assert!(written <= text.len() && written + commas >= text.len());
        }
    }
}
