//! A whiteout's name leads to the one name that it hides and back; an attribute of a user is never taken for a mark.

#![no_main]

libfuzzer_sys::fuzz_target!(|name: &[u8]| plyfs_fuzz::names(name));
