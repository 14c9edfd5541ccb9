//! A damaged index gives values or errors, and a walk from its root comes by no directory twice.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| plyfs_fuzz::packed_index(bytes));
