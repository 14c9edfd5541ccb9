//! One layer and the marks in it.
//!
//! A layer is a directory tree in which some entries are marks for the union: whiteouts, opaque
//! directories, redirects and so on. Each on-disk mark is read and written in exactly one file here; the
//! formats are described in `docs/format.md`. [`Lowers`] are the read-only layers and offer nothing that
//! could change them; [`Upper`] is the only type with mutating methods.

pub mod claim;
pub mod descriptors;
pub mod dir_marks;
pub mod features;
pub mod index;
pub mod inode_mark;
pub mod listing;
pub mod lower;
pub mod mark;
pub mod origin;
pub mod owner_rights;
pub mod packed;
pub mod protection;
pub mod stat_override;
pub mod undo;
pub mod upper;
pub mod volatile_mark;
pub mod walk;
pub mod whiteout;
pub mod windows;
pub mod workdir;
pub mod xattr_names;

pub use descriptors::Descriptors;
pub use dir_marks::{DirMarks, Opaque, Redirect};
pub use lower::{LowerDir, LowerPlace, Lowers};
pub use protection::Protection;
pub use upper::Upper;

pub use crate::sys::Name;

/// The position of a layer in the union, counted from the top. Position 0 is kept for the upper layer,
/// also where there is none; lower layers start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerIndex(pub u16);

impl LayerIndex {
    /// The writable layer.
    pub const UPPER: Self = Self(0);

    /// Whether this is the writable layer.
    pub fn is_upper(self) -> bool {
        self == Self::UPPER
    }
}
