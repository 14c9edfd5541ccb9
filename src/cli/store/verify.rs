//! `plyfs store verify`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::StoreArgs;
use crate::cli::check::counted;
use crate::cli::error::{CliError, one_line};
use crate::store::verify::{Verified, Verify};

/// Find out whether everything in the store is what its name says
///
/// One line for each problem. Exit status 4 if there are problems left.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Read and hash everything, not only the indexes
    #[arg(long)]
    full: bool,

    /// Make layers again from their blobs, and blobs from their layers
    #[arg(long)]
    repair: bool,
}

/// There are problems left.
const LEFT: u8 = 4;

impl VerifyArgs {
    /// Verifies, prints, and gives the exit status.
    pub fn run(self, store: &StoreArgs) -> Result<ExitCode, CliError> {
        let store = if self.repair { store.open_alone()? } else { store.open()? };
        let mut out = io::stdout().lock();
        let mut written = Ok(());
        let how = Verify { full: self.full, repair: self.repair };
        let verified = store.verify(how, &mut |problem| {
            let end = if problem.repaired { ": repaired" } else { "" };
            if written.is_ok() {
                written = writeln!(out, "{}{end}", one_line(&problem.text));
            }
        })?;
        written?;
        let Verified { images, layers, objects, problems, repaired } = verified;
        let mut line = format!("{}, {}", counted(images, "image"), counted(layers, "layer"));
        if self.full {
            line.push_str(&format!(", {}", counted(objects, "content")));
        }
        let state = match (problems, repaired) {
            (0, _) => "no problems".to_owned(),
            (_, 0) => counted(problems, "problem"),
            _ => format!("{}, {repaired} repaired", counted(problems, "problem")),
        };
        writeln!(out, "{line}: {state}")?;
        Ok(ExitCode::from(if problems > repaired { LEFT } else { 0 }))
    }
}
