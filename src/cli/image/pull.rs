//! `plyfs image pull NAME[:TAG|@DIGEST]`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::progress::ProgressArgs;
use super::registry::RegistryArgs;
use crate::cli::error::CliError;
use crate::registry::{Client, Target, pull};
use crate::store::Store;
use crate::store::manifest::Platform;

/// Get an image from a registry
///
/// A name without a registry is one of Docker Hub. Layers that the store has are not fetched again; every layer is
/// compared with its digest while it comes, and what is wrong leaves nothing behind.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// [REGISTRY[:PORT]/]REPOSITORY[:TAG], or a digest instead of the tag
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,

    /// The image for this system and processor, instead of this machine's
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    progress: ProgressArgs,
}

impl PullArgs {
    /// Pulls, and tells what has come.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let target: Target = self.name.parse()?;
        let platform = match &self.platform {
            Some(platform) => platform.parse()?,
            None => Platform::here(),
        };
        let scopes = vec![format!("repository:{}:pull", target.repository())];
        let client = Client::connect(target.clone(), &self.registry.access(), scopes)?;
        let teller = self.progress.teller();
        let repository = target.repository();
        teller.heading(&match target.digest {
            Some(_) => format!("{target}: Pulling from {repository}"),
            None => format!("{}: Pulling from {repository}", target.name.tag),
        });
        let pulled = pull::pull(store, &client, &target, &platform, &teller)?;
        let what = match pulled.is_new {
            true => "Downloaded newer image",
            false => "Image is up to date",
        };
        let short = match target.digest {
            Some(_) => target.to_string(),
            None => target.name.to_string(),
        };
        if self.progress.is_quiet() {
            return Ok(writeln!(io::stdout(), "{target}")?);
        }
        let text = format!("Digest: {}\nStatus: {what} for {short}\n{target}", pulled.digest);
        let (digest, id) = (pulled.digest.to_string(), pulled.id.to_string());
        let object = json!({ "status": what, "name": short, "digest": digest, "image": id });
        Ok(self.progress.result(&text, &object)?)
    }
}
