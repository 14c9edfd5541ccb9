//! Mount options of any bytes are understood, or refused with one line that names the option; layers read back as written.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| plyfs_fuzz::options(text));
