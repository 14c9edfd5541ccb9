//! System calls behind safe, typed functions; the only module that may contain `unsafe`.
//!
//! Nothing here knows what a union is. Every function returns the kernel's own [`Errno`], so that the
//! caller of a filesystem operation gets the error that the backing filesystem gave.

pub mod backing;
pub mod confinement;
pub mod data;
pub mod descriptor_passing;
pub mod dir;
pub mod fault;
pub mod file_handle;
pub mod file_window;
pub mod inode_flags;
pub mod mapping;
pub mod mount;
pub mod mount_tree;
pub mod mountinfo;
pub mod name;
pub mod object;
pub mod open;
pub mod process;
pub mod stat;
pub mod write_order;
pub mod xattr;
mod xattr_at;

pub use name::Name;
pub use object::Object;
pub use rustix::io::Errno;
pub use stat::{FileKind, Stat, Time};

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;
