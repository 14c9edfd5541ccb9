//! Tests through a real mount: each starts the program, uses the union with ordinary system calls
//! and looks at what came to lie in the upper layer. Needs root and `/dev/fuse`.
//!
//! `PLYFS_TEST_PROGRAM` names another program to put under test, `PLYFS_TEST_DIR` another place
//! for the layers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod attributes;
mod changing_layers;
mod copy_up;
mod deletion;
mod direct_io;
mod directories;
mod exercise;
mod extended;
mod files;
mod hard_links;
mod implied;
mod inodes;
mod layers;
mod lifecycle;
mod marks;
mod messages;
mod metacopy;
mod names;
mod options;
mod packed;
mod passthrough;
mod protection;
mod rename;
mod resources;
mod smoke;
mod writeback;
