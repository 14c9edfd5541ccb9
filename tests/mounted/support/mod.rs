//! What the tests stand on: scratch directories, layers, mounts, snapshots of trees.

// Every test binary that includes this module uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod check;
pub mod mode;
pub mod mount;
pub mod oracle;
pub mod packed;
pub mod posix;
pub mod privilege;
pub mod scratch;
pub mod snapshot;
pub mod tree;
pub mod union;

pub use mount::{Mount, Program};
pub use oracle::{same_as_plain, same_as_plain_without};
pub use privilege::Identity;
pub use scratch::Scratch;
pub use snapshot::{Field, Snapshot, assert_same};
pub use union::{Builder, Union};
