//! The mode of a whole test run: mount options that every union of plyfs gets besides its own, out of the
//! environment. A test's own options count for more.

use std::ffi::OsString;
use std::io::Write;

use plyfs::mount::options::Options;
use plyfs::overlay::Config;

/// The variable that holds them, such as `io=plain,volatile`.
const VARIABLE: &str = "PLYFS_MOUNT_OPTIONS";

/// The options of the mode, if there is one.
pub fn options() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|options| !options.is_empty())
}

/// Whether lower layers are to be those of a store, where one could have them.
pub fn packs_layers() -> bool {
    std::env::var_os("PLYFS_TEST_PACKED").is_some()
}

/// `config`, of a union without FUSE, with those options of the mode that concern the union alone.
pub fn applied(config: Config) -> Config {
    let Some(options) = options() else { return config };
    let read = Options::parse(&[OsString::from("lowerdir=/"), options]).unwrap();
    Config {
        metacopy: config.metacopy || read.metacopy,
        volatile: config.volatile || read.volatile,
        changing: read.timeout.is_some(),
        ..config
    }
}

/// The first of `changing`, each an option alone or with its value, that the mode has. `packed` stands for
/// [`packs_layers`].
pub fn has(changing: &[&str]) -> Option<String> {
    if packs_layers() && changing.contains(&"packed") {
        return Some("packed".to_owned());
    }
    let options = options()?.into_string().ok()?;
    let is = |option: &str, name: &str| {
        option == name || option.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
    };
    let found = options.split(',').find(|option| changing.iter().any(|name| is(option, name)));
    found.map(str::to_owned)
}

/// Says, where the output capture does not hide it, that a test does not hold in this mode.
pub fn skip(place: &str, option: &str) {
    let test = place.split_once("::").map_or(place, |(_, path)| path).trim_end_matches("::here");
    let line = format!("SKIP {test}: {option} changes what it asserts\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Leaves a test with a loud line where the mode of the run changes what it asserts:
/// `not_with!("io=plain", "timeout")`.
#[macro_export]
macro_rules! not_with {
    ($($option:literal),+) => {
        if let Some(option) = $crate::support::mode::has(&[$($option),+]) {
            fn here() {}
            $crate::support::mode::skip(std::any::type_name_of_val(&here), &option);
            return;
        }
    };
}
