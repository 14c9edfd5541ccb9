//! Whole stories through a real mount: layers that other programs wrote or must read, daemons that die, layers on
//! other filesystems, and real programs at work. Most of them need root.
//!
//! `PLYFS_TEST_PROGRAM` names another program to put under test, `PLYFS_PEER_FUSE_OVERLAYFS_2` the
//! binary of fuse-overlayfs 2.0.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../mounted/support/mod.rs"]
mod support;

#[cfg(feature = "fault-points")]
mod crash;
mod filesystems;
mod hostile;
mod interop;
mod pressure;
mod real_input;
mod suites;
mod termination;
mod volume;
mod workload;
