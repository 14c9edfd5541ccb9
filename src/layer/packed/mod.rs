//! Packed layers: a layer whose names and attributes lie in one index file, and whose contents are files called by
//! their hashes. Described in `docs/format.md`.

mod arrange;
pub mod builder;
pub mod format;
pub mod layer;
mod pages;
pub mod reader;
mod slots;
mod sorted;

pub use builder::Builder;
pub use layer::PackedLayer;
pub use reader::Index;
