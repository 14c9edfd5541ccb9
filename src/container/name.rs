//! Names of containers and mounts: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, as docker has them.

use crate::archive::Shown;
use crate::store::{Error, Result, Store};
use crate::sys::Errno;

/// The longest name, in bytes: it is a file name, with `.json` behind it.
const LONGEST: usize = 128;

/// The name itself, if it is one.
pub fn check(name: &str) -> Result<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && name.len() <= LONGEST && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(Error::failure(format!(
        "`{}` is no name of a container: 1 to {LONGEST} of a-z, A-Z, 0-9, `_`, `.` and `-` are needed, the first \
         of them a letter or digit",
        Shown(name.as_bytes())
    )))
}

/// A name of 12 hexadecimal digits that nothing has.
pub fn new(store: &Store) -> Result<String> {
    loop {
        let mut bytes = [0; 6];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error: Errno| Error::failure(format!("getrandom: {error}")))?;
        let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let taken = [format!("containers/{name}"), format!("mounts/{name}.json")];
        if !taken.iter().any(|path| store.root().join(path).exists()) {
            return Ok(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_are_those_of_docker() {
        for name in ["a", "0", "web-1", "A_b.c", &"x".repeat(128)] {
            assert_eq!(check(name).unwrap(), name);
        }
        for name in ["", ".", "..", "-a", "_a", ".a", "a/b", "a b", "a\n", "é", &"x".repeat(129)] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }
}
