//! An archive of any bytes is read or refused with one line; paths in it lead nowhere but down.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| plyfs_fuzz::archive(bytes));
