//! System calls of the union that fail, each of every operation in turn, with every error that it can come to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../syscalls/mod.rs"]
mod syscalls;

mod watching;
