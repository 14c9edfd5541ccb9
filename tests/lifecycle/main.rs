//! How a mount begins and ends, seen from outside: the program is started as its callers start it,
//! and judged by what the kernel then shows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod begin;
mod dead;
mod end;
#[path = "../mounted/support/mode.rs"]
#[allow(dead_code, reason = "nothing is skipped here")]
mod mode;
mod refusals;
mod remount;
mod rights;
mod stage;
mod successor;
mod supervised;
mod upgraded;
