//! Rewriting a layer that is not mounted from the marks of one reader into those of another, in place.
//!
//! First the whole layer is looked at: what cannot be said in the other form is refused before anything is changed.
//! Then every step leaves a layer that shows the same union to whoever reads every form, as plyfs does: the new mark
//! is there before the old one goes. A rewrite that is stopped goes on when it is started again.

mod item;
mod plan;
mod rewrite;

use std::ffi::OsString;
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use crate::layer::claim::{Claim, ClaimError};
use crate::layer::dir_marks::Namespaces;
use crate::layer::walk::{WalkError, walk};
use crate::layer::workdir::Workdir;
use crate::sys::{Errno, open};
use plan::Plan;
use rewrite::Rewrite;

/// Whose marks a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The kernel's, mounted by root: whiteout devices, `trusted.overlay.` attributes.
    Kernel,
    /// The kernel's with `userxattr`: whiteout devices, `user.overlay.` attributes.
    UserXattr,
    /// fuse-overlayfs's: whiteout devices, `user.fuseoverlayfs.opaque`.
    FuseOverlayfs,
    /// That of AUFS and image layers: `.wh.NAME` and `.wh..wh..opq`, no attributes.
    DotFiles,
}

impl Form {
    /// Whether deletions are `.wh.` files.
    fn has_dot_files(self) -> bool {
        self == Self::DotFiles
    }

    /// Whether redirects and metacopy files can be said.
    fn has_redirects(self) -> bool {
        self == Self::Kernel
    }

    /// The attribute that makes a directory opaque.
    fn opaque_attribute(self) -> Option<&'static str> {
        match self {
            Self::Kernel => Some("trusted.overlay.opaque"),
            Self::UserXattr => Some("user.overlay.opaque"),
            Self::FuseOverlayfs => Some("user.fuseoverlayfs.opaque"),
            Self::DotFiles => None,
        }
    }
}

/// What a rewrite has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Objects looked at.
    pub objects: u64,
    /// Marks written in the other form, or removed because another says the same.
    pub changed: u64,
}

/// Why a layer cannot be rewritten: one line.
#[derive(Debug)]
pub struct ConvertError(String);

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConvertError {}

impl ConvertError {
    fn at(path: &Path, error: Errno) -> Self {
        let path = path.display();
        Self(match error {
            Errno::XDEV => format!("{path}: something is mounted here; unmount it"),
            Errno::NOENT => format!("{path}: does not exist"),
            Errno::NOTDIR => format!("{path}: not a directory"),
            error => format!("{path}: cannot be converted: {error}"),
        })
    }
}

/// Gives the layer at `path` the marks of `form`. Whiteouts are prepared in the directory `work`, on the same
/// filesystem; without one in a directory beside the layer, which is removed afterwards.
///
/// # Errors
/// A layer in use; the first thing that cannot be said in that form, or that this process may not write, before
/// anything is changed; what the system refuses later.
pub fn convert(path: &Path, form: Form, work: Option<&Path>) -> Result<Converted, ConvertError> {
    let layer = claim(path)?;
    let mut plan = Plan::new(path, form);
    let planned = walk(&layer.dir, &mut plan);
    if let Some(line) = plan.refusal {
        return Err(ConvertError(line));
    }
    planned.map_err(located(path))?;
    let own = Own::open(path, work)?;
    if !form.has_dot_files() && plan.needs_devices {
        let possible = own.stage.can_make_whiteouts().map_err(|e| ConvertError::at(path, e))?;
        refuse_unless(possible, path, "whiteout devices cannot be made here: mknod(2) of 0:0")?;
    }
    if let (Some(attribute), true) = (form.opaque_attribute(), plan.needs_attributes) {
        let possible = own.can_set(attribute).map_err(|e| ConvertError::at(path, e))?;
        refuse_unless(possible, path, &format!("{attribute} cannot be written here"))?;
    }
    let mut rewrite = Rewrite::new(form, &own.stage);
    walk(&layer.dir, &mut rewrite).map_err(located(path))?;
    Ok(rewrite.converted)
}

fn refuse_unless(possible: bool, path: &Path, problem: &str) -> Result<(), ConvertError> {
    match possible {
        true => Ok(()),
        false => Err(ConvertError(format!("{}: {problem}; nothing was changed", path.display()))),
    }
}

fn claim(path: &Path) -> Result<Claim, ConvertError> {
    Claim::take(path).map_err(|error| match error {
        ClaimError::InUse(how) => ConvertError(format!("{}: {how}", path.display())),
        ClaimError::System(error) => ConvertError::at(path, error),
    })
}

fn located(base: &Path) -> impl FnOnce(WalkError) -> ConvertError {
    move |WalkError { path, error }| ConvertError::at(&base.join(path), error)
}

/// The directory in which whiteouts are prepared.
struct Own {
    stage: Workdir,
    _claim: Claim,
    /// What is to be removed in the end.
    beside: Option<PathBuf>,
}

impl Own {
    fn open(layer: &Path, work: Option<&Path>) -> Result<Self, ConvertError> {
        let path = match work {
            Some(path) => path.to_owned(),
            None => beside(layer).map_err(|error| ConvertError::at(layer, error))?,
        };
        let failed = |error| {
            let path = path.display();
            ConvertError(format!(
                "{path}: cannot prepare whiteouts here: {error}; name another directory with --work"
            ))
        };
        if work.is_none() {
            match rustix::fs::mkdir(&path, rustix::fs::Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let claim = claim(&path)?;
        let stage = Workdir::open(&claim.dir).map_err(failed)?;
        Ok(Self { stage, _claim: claim, beside: work.is_none().then_some(path) })
    }

    fn can_set(&self, attribute: &str) -> Result<bool, Errno> {
        let trusted = attribute.starts_with("trusted.");
        let probe = self.stage.stage_dir(0o700)?;
        let namespaces = Namespaces { trusted, user: !trusted };
        match namespaces.set(&probe.object(), "probe", b"y") {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(path) = &self.beside else { return };
        let removed = open::directory(path).and_then(|dir| {
            crate::layer::workdir::remove(dir.as_fd(), "plyfs".as_ref(), dir.as_fd())?;
            rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR)
        });
        if let Err(error) = removed {
            log::warn!("{}: cannot be removed: {error}", path.display());
        }
    }
}

/// `.NAME.plyfs-convert` beside the layer.
fn beside(layer: &Path) -> Result<PathBuf, Errno> {
    let real =
        layer.canonicalize().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let (parent, name) = real.parent().zip(real.file_name()).ok_or(Errno::INVAL)?;
    let mut own = OsString::from(".");
    own.push(name);
    own.push(".plyfs-convert");
    Ok(parent.join(own))
}
