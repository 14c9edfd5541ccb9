//! `plyfs image ls`.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::Format;
use super::table::{self, Table};
use crate::cli::error::CliError;
use crate::store::Store;
use crate::store::image::Image;

/// List images
#[derive(Args, Debug)]
pub struct LsArgs {
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,

    /// Print ids with all their digits
    #[arg(long)]
    no_trunc: bool,

    /// Print the digests of the manifests too
    #[arg(long)]
    digests: bool,

    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
}

impl LsArgs {
    /// Prints the list, the newest first.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
        if self.digests {
            heading.insert(2, "DIGEST");
        }
        let mut table = Table::new(&heading);
        let mut out = io::stdout().lock();
        let mut images = store.images()?;
        images.reverse();
        for image in &images {
            let id = table::id(&image.id(), self.no_trunc);
            for (repository, tag) in names(image).iter().filter(|name| self.wants(name)) {
                if self.quiet {
                    writeln!(out, "{id}")?;
                    continue;
                }
                let created = image.config.created.as_deref();
                let size = store.image_size(image)?;
                if self.format == Format::Json {
                    let line = json!({
                        "ID": id,
                        "Repository": repository,
                        "Tag": tag,
                        "Digest": image.digest.to_string(),
                        "CreatedAt": created,
                        "CreatedSince": table::since(created),
                        "Size": table::size(size),
                        "Bytes": size,
                    });
                    writeln!(out, "{line}")?;
                    continue;
                }
                let mut row = vec![
                    repository.clone(),
                    tag.clone(),
                    id.clone(),
                    table::since(created),
                    table::size(size),
                ];
                if self.digests {
                    row.insert(2, image.digest.to_string());
                }
                table.row(row);
            }
        }
        if !self.quiet && self.format == Format::Table {
            table.write(out)?;
        }
        Ok(())
    }

    fn wants(&self, (repository, tag): &(String, String)) -> bool {
        let Some(wanted) = &self.name else { return true };
        let Ok(name) = wanted.parse::<crate::store::reference::Reference>() else { return false };
        let tagged = wanted.rsplit('/').next().is_some_and(|last| last.contains(':'));
        name.repository == *repository && (!tagged || name.tag == *tag)
    }
}

/// Repository and tag of each name; `<none>` for an image that has none.
fn names(image: &Image) -> Vec<(String, String)> {
    if image.tags.is_empty() {
        return vec![("<none>".to_owned(), "<none>".to_owned())];
    }
    let split = |name: &String| match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        // What another program has written into the index.
        _ => (name.clone(), "<none>".to_owned()),
    };
    image.tags.iter().map(split).collect()
}
