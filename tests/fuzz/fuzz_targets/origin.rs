//! An origin and the name of its index entry are one to one; nothing shorter or longer than it says is an origin.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| plyfs_fuzz::origin(bytes));
