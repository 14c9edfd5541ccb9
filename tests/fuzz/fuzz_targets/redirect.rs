//! A redirect that is understood is written back byte by byte, and no name in it can lead out of the layers.

#![no_main]

libfuzzer_sys::fuzz_target!(|value: &[u8]| plyfs_fuzz::redirect(value));
