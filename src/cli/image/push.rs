//! `plyfs image push NAME [DESTINATION]`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::progress::ProgressArgs;
use super::registry::RegistryArgs;
use crate::cli::error::CliError;
use crate::registry::{Client, Target, push};
use crate::store::Store;
use crate::store::image::Image;

/// Give an image to a registry
///
/// The name says to which: `plyfs image tag` gives an image one. Layers that the registry has are not sent again; what
/// has been pulled goes back byte by byte, with the same digest.
#[derive(Args, Debug)]
pub struct PushArgs {
    /// A name or an id
    #[arg(value_name = "NAME")]
    name: String,

    /// The name in the registry, if it is another
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    progress: ProgressArgs,
}

impl PushArgs {
    /// Pushes, and tells the digest.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let image = store.find_image(&self.name)?;
        let target = self.target(&image)?;
        let elsewhere = push::elsewhere(store, &image, &target)?;
        let scopes = push::scopes(&target, &elsewhere);
        let client = Client::connect(target.clone(), &self.registry.access(), scopes)?;
        let teller = self.progress.teller();
        let repository = target.repository();
        let registry = target.registry();
        teller.heading(&format!("The push refers to repository [{registry}/{repository}]"));
        push::push(store, &client, &image, &target, &elsewhere, &teller)?;
        if self.progress.is_quiet() {
            return Ok(writeln!(io::stdout(), "{target}")?);
        }
        let tag = &target.name.tag;
        let text = format!("{tag}: digest: {} size: {}", image.digest, image.size);
        let digest = image.digest.to_string();
        let object = json!({
            "status": "Pushed", "name": target.name.to_string(), "digest": digest, "size": image.size,
        });
        Ok(self.progress.result(&text, &object)?)
    }

    /// Where the image goes.
    fn target(&self, image: &Image) -> Result<Target, CliError> {
        let named = self.destination.as_ref().unwrap_or(&self.name);
        let target: Target = named.parse()?;
        let is_id = self.destination.is_none() && !image.tags.contains(&target.name.to_string());
        if is_id || target.digest.is_some() {
            return Err(CliError::Usage(
                "an image is pushed under a name: give one as the destination".into(),
            ));
        }
        Ok(target)
    }
}
