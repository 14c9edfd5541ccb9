//! What survives a power cut: all that was synced, and nothing half done. Needs root and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../mounted/support/mod.rs"]
mod support;
// Of its filesystems only those whose power can be cut are used here.
#[allow(dead_code)]
#[path = "../scenarios/volume.rs"]
mod volume;

mod power;
mod promise;
mod stories;
mod story;
mod volatile;
