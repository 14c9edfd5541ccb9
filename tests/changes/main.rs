//! What upper layers change, from outside: `plyfs diff` and `plyfs commit`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../mounted/support/mod.rs"]
mod support;

mod commit;
mod configuration;
mod containers;
mod crash;
mod list;
mod peers;
mod story;
