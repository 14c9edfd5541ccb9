//! `plyfs image unpack NAME DIR`.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::error::CliError;
use crate::store::Store;
use crate::store::unpack::{Owners, Unpacked};

/// Write the files of an image into a directory
///
/// As root with owners, devices and extended attributes. Every content is compared with its hash.
#[derive(Args, Debug)]
pub struct UnpackArgs {
    /// A name or an id
    #[arg(value_name = "NAME")]
    image: String,

    /// The directory, which is made, or is empty
    #[arg(value_name = "DIR")]
    target: PathBuf,

    /// Make a directory for each layer, in the form of kernel overlayfs, and print them as a lowerdir option
    #[arg(long)]
    layers: bool,

    /// What becomes of owners, permissions and devices
    #[arg(long, value_enum, default_value = "set")]
    owners: Kept,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kept {
    /// They are set, which takes root
    Set,
    /// They are kept in attributes, for a mount by plyfs or fuse-overlayfs; what only root can set is left out
    Stored,
}

impl UnpackArgs {
    /// Unpacks it.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let owners = match self.owners {
            Kept::Set => Owners::Set,
            Kept::Stored => Owners::Stored,
        };
        let image = store.find_image(&self.image)?;
        let unpacked = store.unpack(&image, &self.target, self.layers, owners)?;
        if let Some((name, path)) = &unpacked.first_left_out {
            log::warn!(
                "{} extended attributes are left out, which could not be set: {} of {} is the first",
                unpacked.left_out,
                name.display(),
                path.display()
            );
        }
        if self.layers {
            print(&unpacked)?;
        }
        Ok(())
    }
}

/// The trees as an option of a mount, top first.
fn print(unpacked: &Unpacked) -> io::Result<()> {
    let trees = unpacked.trees.iter().rev().map(|tree| escaped(tree.as_os_str().as_bytes()));
    let mut out = io::stdout().lock();
    out.write_all(b"lowerdir=")?;
    out.write_all(&trees.collect::<Vec<_>>().join(&b':'))?;
    out.write_all(b"\n")
}

/// A path as an option has it.
fn escaped(path: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| matches!(byte, b':' | b',' | b'\\').then_some(b'\\');
    path.iter().flat_map(|byte| escape(byte).into_iter().chain([*byte])).collect()
}
