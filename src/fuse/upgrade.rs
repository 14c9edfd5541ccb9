//! How a mount is asked to go on with another program: by reading an attribute of its root directory, which is in no list.
//! That can be done where nothing can be written, and whoever asks waits for the answer. The daemon that is asked never gives
//! it if it is replaced: then the kernel asks the next one again.

use fuser::Request;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::Adapter;
use super::resumed::is_resent;
use crate::sys::{Errno, Result};

/// The attribute, which answers with [`Upgraded`] as JSON.
pub const ATTRIBUTE: &str = "user.plyfs.upgrade";

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upgraded {
    /// The program of this version goes on.
    GoesOn(String),
    /// The one from before does, for this reason.
    Refused(String),
}

/// Has another program go on; if that fails, returns why.
type Ask = Box<dyn Fn() -> String + Send + Sync>;

/// The way to another program.
pub struct Upgrades {
    /// What has come of it where the one before this daemon was asked.
    before: Option<Upgraded>,
    ask: Ask,
}

impl Upgrades {
    /// One on which `ask` has another program go on, and returns only if that fails: why.
    pub fn new(before: Option<Upgraded>, ask: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { before, ask: Box::new(ask) }
    }
}

impl Adapter {
    /// The value of the attribute. Asking for its size alone changes nothing.
    pub(super) fn upgrade(&self, request: &Request, size: u32) -> Result<Vec<u8>> {
        let upgrades = self.upgrades.as_ref().filter(|_| size != 0).ok_or(Errno::NODATA)?;
        if request.uid() != 0 && request.uid() != geteuid().as_raw() {
            return Err(Errno::PERM);
        }
        let before = upgrades.before.clone().filter(|_| is_resent(request));
        let upgraded = before.unwrap_or_else(|| Upgraded::Refused((upgrades.ask)()));
        serde_json::to_vec(&upgraded).map_err(|_| Errno::IO)
    }
}
