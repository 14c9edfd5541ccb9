//! What survives a power cut: all that was synced, and nothing half done. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../mounted/support/mod.rs"]
mod support;
#[path = "../syscalls/mod.rs"]
mod syscalls;
// Of its filesystems only those whose power can be cut are used here.
#[allow(dead_code)]
#[path = "../scenarios/volume.rs"]
mod volume;

mod cost;
mod disk;
mod facade;
mod mounted;
mod power;
mod promise;
mod replay;
mod settled;
mod stories;
mod story;
mod volatile;
