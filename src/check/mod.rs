//! Looking for what is wrong in an upper layer and its workdir, and mending what can be mended without a
//! decision.
//!
//! Nothing is kept but what the directories on the way of the walk need, no link is followed, and no step leads
//! out of the layer. A repair is one step on disk, or two of which the first hides: none loses a user's data or
//! shows what was deleted.

mod below;
mod entry;
mod finding;
mod links;
mod marks;
mod redirects;
mod report;
pub mod rule;
mod upper;
mod work;

use std::fmt;
use std::path::{Path, PathBuf};

pub use finding::{Finding, Outcome, Summary};

use crate::layer::claim::{Claim, ClaimError};
use crate::layer::walk::{WalkError, walk};
use crate::sys::Errno;
use below::Below;
use report::Report;
use upper::UpperCheck;
use work::Work;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The upper layer.
    pub upper: PathBuf,
    /// Its workdir, where that is to be checked too.
    pub work: Option<PathBuf>,
    /// The lower layers, top first; none if they are not to be asked.
    pub lower: Vec<PathBuf>,
    /// The data-only layers below those.
    pub data_only: Vec<PathBuf>,
    /// Whether to repair what can be repaired.
    pub repair: bool,
}

/// Why a layer cannot be checked to the end: one line.
#[derive(Debug)]
pub enum CheckError {
    /// What was tried, and the reason.
    Failed(String),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Failed(line) = self;
        f.write_str(line)
    }
}

impl std::error::Error for CheckError {}

impl CheckError {
    fn at(path: &Path, error: Errno) -> Self {
        Self::Failed(match error {
            Errno::XDEV => format!("{}: something is mounted here; unmount it", path.display()),
            Errno::NOENT => format!("{}: does not exist", path.display()),
            Errno::NOTDIR => format!("{}: not a directory", path.display()),
            error => format!("{}: cannot be checked: {error}", path.display()),
        })
    }
}

/// Checks a layer. `sink` gets each finding, already repaired where that was wished and possible.
///
/// # Errors
/// A layer that is in use, or cannot be read; what was found until then has been told.
pub fn check(
    request: &Request,
    sink: &mut dyn FnMut(&Finding),
) -> std::result::Result<Summary, CheckError> {
    let upper = claim(&request.upper)?;
    let work_claim = request.work.as_deref().map(claim).transpose()?;
    let below = match request.lower.is_empty() {
        true => None,
        false => Some(Below::open(
            request.upper.clone(),
            request.lower.clone(),
            request.data_only.clone(),
        )?),
    };
    let mut report = Report::new(request.repair, sink);
    let mut work = match (&request.work, &work_claim) {
        (Some(path), Some(claim)) => {
            Some(Work::check(path, &claim.dir, &mut report).map_err(located(path))?)
        }
        _ => None,
    };
    let mut visitor =
        UpperCheck::new(&request.upper, &upper.dir, &mut report, below, work.as_mut())
            .map_err(|error| CheckError::at(&request.upper, error))?;
    walk(&upper.dir, &mut visitor).map_err(located(&request.upper))?;
    if let (Some(path), Some(work)) = (&request.work, work) {
        work.check_stale_numbers(&mut report).map_err(|error| CheckError::at(path, error))?;
    }
    Ok(report.finish())
}

fn claim(path: &Path) -> std::result::Result<Claim, CheckError> {
    Claim::take(path).map_err(|error| match error {
        ClaimError::InUse(how) => CheckError::Failed(format!("{}: {how}", path.display())),
        ClaimError::System(error) => CheckError::at(path, error),
    })
}

fn located(base: &Path) -> impl FnOnce(WalkError) -> CheckError {
    move |WalkError { path, error }| CheckError::at(&base.join(path), error)
}
