//! What cases run on, and what they may hold there.

use crate::cases::layer::{Prefix, is_privileged};
use crate::cases::model::Rules;
use crate::cases::op::Redirect;
use crate::cases::profile::{Marks, Ops, Profile};

/// What the case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// One layer as a plain directory, by the kernel: proves the model.
    Host,
    /// Layers mounted by kernel overlayfs: proves the initial tree.
    KernelOverlay,
    /// A union with everything on one filesystem.
    Union(Redirect),
    /// A union with upper and workdir on a filesystem in memory, apart from the lower layers.
    UpperInMemory(Redirect),
    /// A union that writes `.wh.` files instead of devices.
    DotFiles,
    /// A union that keeps owners, permissions and types in an attribute.
    StoredAttributes,
    /// A union of lower layers only.
    ReadOnly,
}

impl Setup {
    pub fn rules(self) -> Rules {
        let redirect = match self {
            Setup::Union(redirect) | Setup::UpperInMemory(redirect) => Some(redirect),
            Setup::DotFiles | Setup::StoredAttributes => Some(Redirect::Copy),
            Setup::Host | Setup::KernelOverlay | Setup::ReadOnly => None,
        };
        Rules { dot_files: self == Setup::DotFiles, read_only: self == Setup::ReadOnly, redirect }
    }

    pub fn profile(self) -> Profile {
        let all = Profile { privileged: is_privileged(), ..Profile::of_root(self.rules()) };
        match self {
            // A file that is called like a mark has an attribute that only plyfs hides, and a plain
            // directory has no use for marks.
            Setup::Host => Profile {
                marks: Marks::None,
                layers: (1, 1),
                names_like_marks: false,
                private_attributes: false,
                ..all
            },
            // It is there to be looked at.
            Setup::KernelOverlay => Profile {
                marks: Marks::OfKernel(Prefix::Trusted),
                layers: (1, 8),
                private_attributes: false,
                ops: Ops::None,
                ..all
            },
            // There is no `.wh.` file for the longest names, nor for names that are one themselves.
            Setup::DotFiles => Profile { longest_name: 251, names_like_marks: false, ..all },
            Setup::ReadOnly => Profile { layers: (1, 8), ..all },
            Setup::StoredAttributes | Setup::Union(_) | Setup::UpperInMemory(_) => all,
        }
    }
}
