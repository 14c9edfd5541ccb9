//! System calls of the union that fail: of every operation each call in turn, with every error that it can come to.
//!
//! Whatever fails, the operation is done or it is not: the tree that the union shows, then and after it is opened
//! again, is the old one or the new one; the error is the one that the call failed with; the same operation can be
//! made again; and no descriptor, reference or leftover stays. The union is driven in process, without FUSE.
//!
//! `PLYFS_FAULTS=all` tries every error at every call. Without it the errors take turns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../mounted/support/snapshot.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod snapshot;
#[path = "../syscalls/mod.rs"]
mod syscalls;
#[path = "../mounted/support/tree.rs"]
mod tree;

mod costs;
mod costs_of_changes;
mod exchanged;
mod ground;
mod layers;
mod matrix;
mod opening;
mod operations;
mod reference;
mod scenario;
mod state;
mod trial;
mod union;
mod watching;
