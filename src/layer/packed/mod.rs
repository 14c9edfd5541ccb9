//! Packed layers: a layer whose names and attributes lie in one index file, and whose contents are files called by
//! their hashes. Described in `docs/format.md`.

pub mod builder;
pub mod format;
pub mod layer;
pub mod reader;

pub use builder::Builder;
pub use layer::PackedLayer;
pub use reader::Index;
