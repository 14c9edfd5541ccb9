//! `plyfs image load [FILE|-]`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::progress::ProgressArgs;
use crate::cli::error::CliError;
use crate::store::Store;
use crate::store::reference::Reference;
use crate::store::source::Source;

/// Load images from an archive or a directory
///
/// What `docker save`, `podman save` and `skopeo copy` write: docker archives, OCI archives, OCI layout directories;
/// layers as they are or compressed with gzip or zstd. Every layer is compared with its digest; what is wrong leaves
/// nothing behind.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// An archive or a directory; `-` or nothing for standard input
    #[arg(value_name = "FILE")]
    source: Option<PathBuf>,

    /// The same
    #[arg(short, long, value_name = "FILE", conflicts_with = "source")]
    input: Option<PathBuf>,

    /// Call the one image that is loaded so
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,

    #[command(flatten)]
    progress: ProgressArgs,
}

impl LoadArgs {
    /// Loads, and tells the names.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let name = self.tag.as_deref().map(str::parse::<Reference>).transpose()?;
        let path = self.source.or(self.input).filter(|path| path != Path::new("-"));
        if path.is_none() && io::stdin().is_terminal() {
            return Err(CliError::Usage(
                "no archive: name one, or give one to standard input".into(),
            ));
        }
        let teller = self.progress.teller();
        let open = |stage: &_| match &path {
            Some(path) => Source::open(path, stage),
            None => Source::read(stdin()?, stage),
        };
        let loaded = store.load(open, name.as_ref(), &teller).map_err(|error| match &path {
            Some(path) => error.about_file(path),
            None => error,
        })?;
        for image in loaded {
            let result = |line: &str, name: Option<String>| {
                let id = image.id.to_string();
                let object = json!({ "status": "Loaded image", "name": name, "image": id });
                self.progress.result(line, &object)
            };
            for name in &image.names {
                result(&format!("Loaded image: {name}"), Some(name.to_string()))?;
            }
            if image.names.is_empty() {
                result(&format!("Loaded image ID: {}", image.id), None)?;
            }
        }
        Ok(())
    }
}

/// Standard input as a file.
pub(super) fn stdin() -> Result<File, crate::store::Error> {
    let copy = io::stdin().as_fd().try_clone_to_owned();
    copy.map(File::from)
        .map_err(|error| crate::store::Error::failure(format!("standard input: {error}")))
}
