//! A stored owner and mode that is understood is in range, and is the same when it is written and read again.

#![no_main]

libfuzzer_sys::fuzz_target!(|value: &[u8]| plyfs_fuzz::override_stat(value));
