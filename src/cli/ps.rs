//! `plyfs ps [-a]`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use log::LevelFilter;
use serde_json::json;

use super::error::CliError;
use super::image::Format;
use super::image::table::{self, Table};
use super::logging;
use super::store::StoreArgs;
use crate::container::{Container, MountRecord, live_mounts};
use crate::store::{Digest, Store};

/// List the images that are mounted, and containers
///
/// A mount of an image without a container is listed under the name that was printed when it was mounted.
#[derive(Args, Debug)]
pub struct PsArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Also the containers that are not mounted
    #[arg(short, long)]
    all: bool,

    /// Print names only
    #[arg(short, long)]
    quiet: bool,

    /// Print everything at full length
    #[arg(long)]
    no_trunc: bool,

    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
}

/// The longest mountpoint and image that a column has room for.
const WIDEST: usize = 40;

/// One line of the list.
struct Line {
    name: String,
    image: String,
    id: Digest,
    created: String,
    mount: Option<MountRecord>,
    has_container: bool,
}

impl PsArgs {
    /// Prints the list, the newest first.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let mut lines = lines(&self.store.open()?)?;
        lines.retain(|line| self.all || line.mount.is_some());
        lines.reverse();
        let mut out = io::stdout().lock();
        let mut table = Table::new(&["NAME", "IMAGE", "MOUNTPOINT", "CREATED", "STATUS"]);
        for line in lines {
            if self.quiet {
                writeln!(out, "{}", line.name)?;
            } else if self.format == Format::Json {
                writeln!(out, "{}", line.json())?;
            } else {
                table.row(line.row(self.no_trunc));
            }
        }
        if !self.quiet && self.format == Format::Table {
            table.write(out)?;
        }
        Ok(())
    }
}

/// Containers and other mounts, the oldest first.
fn lines(store: &Store) -> Result<Vec<Line>, CliError> {
    let mut mounts: BTreeMap<String, MountRecord> =
        live_mounts(store.root())?.into_iter().collect();
    let containers = Container::list(store)?.into_iter().map(|container| {
        let record = container.record();
        Line {
            mount: mounts.remove(&record.name),
            name: record.name.clone(),
            image: record.image.clone(),
            id: record.config,
            created: record.created.clone(),
            has_container: true,
        }
    });
    let mut lines: Vec<Line> = containers.collect();
    lines.extend(mounts.into_iter().map(|(name, mount)| Line {
        name,
        image: mount.image.clone(),
        id: mount.config,
        created: mount.created.clone(),
        mount: Some(mount),
        has_container: false,
    }));
    lines.sort_by(|one, other| one.created.cmp(&other.created));
    Ok(lines)
}

impl Line {
    fn status(&self) -> &'static str {
        match (&self.mount, self.has_container) {
            (None, _) => "not mounted",
            (Some(_), true) => "mounted",
            (Some(_), false) => "mounted, no container",
        }
    }

    fn row(&self, whole: bool) -> [String; 5] {
        let mountpoint = self.mount.as_ref().map_or(String::new(), |mount| {
            table::cut(&mount.mountpoint.to_string_lossy(), WIDEST, whole)
        });
        [
            self.name.clone(),
            table::cut(&self.image, WIDEST, whole),
            mountpoint,
            table::since(Some(&self.created)),
            self.status().to_owned(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "Name": self.name,
            "Image": self.image,
            "ImageID": self.id.to_string(),
            "Mountpoint": self.mount.as_ref().map(|mount| mount.mountpoint.to_string_lossy()),
            "Pid": self.mount.as_ref().map(|mount| mount.pid),
            "CreatedAt": self.created,
            "CreatedSince": table::since(Some(&self.created)),
            "Container": self.has_container,
            "Mounted": self.mount.is_some(),
            "Status": self.status(),
        })
    }
}
