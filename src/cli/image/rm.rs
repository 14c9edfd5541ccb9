//! `plyfs image rm NAME...`.

use std::io::{self, Write};

use clap::Args;

use crate::cli::error::{CliError, one_line};
use crate::container::{Container, live_mounts};
use crate::store::image::Image;
use crate::store::{Error, Kind, Store};

/// Take names from images
///
/// An image without a name is gone. The room that it took is given back by `plyfs store gc`.
#[derive(Args, Debug)]
pub struct RmArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    images: Vec<String>,

    /// Remove an image also if a container or a mount is over it, which keeps what it needs of it, or if it is named by its
    /// id and has several names
    #[arg(short, long)]
    force: bool,
}

impl RmArgs {
    /// Removes, and tells what.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        self.images.iter().try_for_each(|name| self.remove(store, name))
    }

    fn remove(&self, store: &Store, text: &str) -> Result<(), CliError> {
        let name = text.parse::<crate::store::reference::Reference>();
        let name = name.map_or_else(|_| text.to_owned(), |name| name.to_string());
        let mut out = io::stdout().lock();
        let image = match store.find_image(text) {
            // Found by its name, since damaged ones have no other.
            Err(error) if error.kind() == Kind::Damaged => {
                store.untag(text)?;
                store.untag(&name)?;
                return Ok(writeln!(out, "Untagged: {}", one_line(&name))?);
            }
            image => image?,
        };
        let by_name = image.tags.iter().find(|tag| **tag == name || *tag == text);
        let user = user(store, &image)?;
        if let Some(user) = &user
            && !self.force
            && (by_name.is_none() || image.tags.len() == 1)
        {
            let line =
                format!("conflict: unable to remove image {text} (must force): {user} is using it");
            return Err(Error::failure(line).into());
        }
        if let Some(tag) = by_name {
            let gone = store.untag(tag)?;
            writeln!(out, "Untagged: {}", one_line(tag))?;
            if gone && user.is_none() {
                writeln!(out, "Deleted: {}", image.id())?;
            }
            return Ok(());
        }
        if image.tags.len() > 1 && !self.force {
            return Err(Error::failure(format!(
                "image {text} has {} names: remove these, or use --force",
                image.tags.len()
            ))
            .into());
        }
        store.forget(&image.digest)?;
        for tag in &image.tags {
            writeln!(out, "Untagged: {}", one_line(tag))?;
        }
        // What somebody uses stays until that goes.
        if user.is_none() {
            writeln!(out, "Deleted: {}", image.id())?;
        }
        Ok(())
    }
}

/// A container that is over the image, or a mount of it.
fn user(store: &Store, image: &Image) -> Result<Option<String>, Error> {
    let containers = Container::list(store)?;
    let over = |container: &&Container| container.record().config == image.id();
    if let Some(container) = containers.iter().find(over) {
        return Ok(Some(format!("container {}", container.record().name)));
    }
    let mounts = live_mounts(store.root())?;
    let mount = mounts.iter().find(|(_, mount)| mount.config == image.id());
    Ok(mount.map(|(name, _)| format!("mount {name}")))
}
