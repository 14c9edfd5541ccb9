//! `plyfs image inspect NAME...`.

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::store::Store;

/// Tell all about images, as JSON
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    images: Vec<String>,
}

impl InspectArgs {
    /// Prints a list of objects.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let objects = self.images.iter().map(|name| object(store, name));
        let list = Value::from(objects.collect::<Result<Vec<_>, _>>()?);
        // Written so, control characters are escaped but for DEL and those of Latin 1, which some terminals obey.
        let text: String = format!("{list:#}")
            .chars()
            .map(|c| match c {
                '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            })
            .collect();
        Ok(writeln!(io::stdout(), "{text}")?)
    }
}

fn object(store: &Store, name: &str) -> Result<Value, CliError> {
    let image = store.find_image(name)?;
    let strings = |digests: &mut dyn Iterator<Item = crate::store::Digest>| -> Vec<String> {
        digests.map(|digest| digest.to_string()).collect()
    };
    let layers = strings(&mut image.layers.iter().map(|layer| layer.0));
    let chain = strings(&mut image.chain().iter().map(|chain| chain.0));
    let blobs = strings(&mut image.manifest.layers.iter().map(|blob| blob.digest));
    let repositories = image.tags.iter().filter_map(|tag| tag.rsplit_once(':'));
    let digests = repositories.map(|(repository, _)| format!("{repository}@{}", image.digest));
    Ok(json!({
        "Id": image.id().to_string(),
        "RepoTags": image.tags,
        "RepoDigests": digests.collect::<Vec<_>>(),
        "Digest": image.digest.to_string(),
        "Created": image.config.created,
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": store.image_size(&image)?,
        "Config": image.config.config,
        "RootFS": { "Type": "layers", "Layers": layers },
        "ChainIDs": chain,
        "Blobs": blobs,
        "History": image.config.history,
    }))
}
