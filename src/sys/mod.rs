//! (under construction)

pub mod mount;
pub mod process;
