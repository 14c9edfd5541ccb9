//! What the filesystem of the upper layer can do, since that decides by which calls the union works.

use plyfs::layer::stat_override::StatOverride;
use plyfs::overlay::Config;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::syscalls::{Answer, Call};

/// A kind of filesystem under the upper layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// It can do everything.
    Full,
    /// No renames that leave a whiteout behind, as in a user namespace.
    NoRenameWhiteout,
    /// No unnamed files, and no copying within the kernel.
    Plain,
    /// No whiteout devices: `.wh.` files are written.
    DotFiles,
    /// Owners, modes and devices are stored in attributes.
    StoredAttributes,
}

impl Ground {
    pub const ALL: [Ground; 5] = [
        Ground::Full,
        Ground::NoRenameWhiteout,
        Ground::Plain,
        Ground::DotFiles,
        Ground::StoredAttributes,
    ];

    /// What of this a mount says by its options.
    pub fn configure(self, config: Config) -> Config {
        match self {
            Ground::DotFiles => Config { force_dot_whiteouts: true, ..config },
            Ground::StoredAttributes => {
                Config { store_attributes: Some(StatOverride::Security), ..config }
            }
            _ => config,
        }
    }

    /// The answer to a call that a filesystem like this cannot do.
    pub fn answer(self, call: &Call) -> Answer {
        let whiteout = u64::from(RenameFlags::WHITEOUT.bits());
        let unnamed = libc::O_TMPFILE as u64;
        match (self, call.name) {
            (Ground::NoRenameWhiteout, "renameat2") if call.args[4] & whiteout != 0 => {
                Answer::Fail(Errno::INVAL)
            }
            (Ground::Plain, "copy_file_range") => Answer::Fail(Errno::NOSYS),
            (Ground::Plain, "openat") if call.args[2] & unnamed == unnamed => {
                Answer::Fail(Errno::OPNOTSUPP)
            }
            _ => Answer::Go,
        }
    }
}
