//! `plyfs image tag NAME NEW_NAME`.

use clap::Args;

use crate::cli::error::CliError;
use crate::store::Store;
use crate::store::reference::Reference;
use crate::store::tags::Tagged;

/// Give an image one more name
#[derive(Args, Debug)]
pub struct TagArgs {
    /// A name or an id
    #[arg(value_name = "NAME")]
    image: String,

    /// The new name, which whatever had it loses
    #[arg(value_name = "NEW_NAME[:TAG]")]
    name: String,
}

impl TagArgs {
    /// Tags it.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let name: Reference = self.name.parse()?;
        let image = store.find_image(&self.image)?;
        Ok(store.tag(&Tagged {
            name: Some(name.to_string()),
            manifest: image.digest,
            media_type: image.manifest.media_type.clone(),
            size: image.size,
        })?)
    }
}
