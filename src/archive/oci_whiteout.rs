//! Whiteouts as layer archives have them: files called `.wh.` and the name that is deleted (OCI image specification,
//! "Whiteouts", after AUFS).

use super::{Refusal, Result};

/// What the last name of an entry's path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'n> {
    /// An object of that name.
    Object,
    /// The object of this name in the layers below is deleted.
    Whiteout(&'n [u8]),
    /// Everything that the layers below have in the directory is deleted.
    Opaque,
    /// AUFS kept something for itself there; it is no part of the layer.
    Private,
}

/// What an entry called `name` means.
///
/// # Errors
/// A whiteout for a name that cannot exist.
pub fn meaning(name: &[u8]) -> Result<Meaning<'_>> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::Object),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Meaning::Private),
        Some(b"" | b"." | b"..") => Err(Refusal::new("it is a whiteout for a name that cannot be")),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        for (name, means) in [
            ("a", Meaning::Object),
            (".wha", Meaning::Object),
            ("a.wh.b", Meaning::Object),
            (".wh.a", Meaning::Whiteout(b"a")),
            (".wh..hidden", Meaning::Whiteout(b".hidden")),
            (".wh..wh..opq", Meaning::Opaque),
            (".wh..wh.plnk", Meaning::Private),
            (".wh..wh.", Meaning::Private),
        ] {
            assert_eq!(meaning(name.as_bytes()).unwrap(), means, "{name}");
        }
        for name in [".wh.", ".wh..", ".wh..."] {
            meaning(name.as_bytes()).unwrap_err();
        }
    }
}
