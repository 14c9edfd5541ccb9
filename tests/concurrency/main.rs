//! Many threads on one union, without FUSE: whatever they do at once, no file is lost, mixed up with another or
//! counted wrongly.
//!
//! `PLYFS_SOAK_SECONDS` lets each test run for as long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copy_up;
#[path = "../mounted/support/mode.rs"]
#[allow(dead_code, reason = "nothing is skipped here")]
mod mode;
mod replaced;
mod stage;
