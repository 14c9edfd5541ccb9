//! `plyfs diff CONTAINER|UPPER [LOWER...]`.

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::LevelFilter;
use serde_json::{Value, json};

use super::error::{CliError, one_line};
use super::logging;
use super::store::StoreArgs;
use crate::changes::{self, Change, Layers};
use crate::container::Container;

/// List what a container, or an upper layer, changes
///
/// One line for each name, in the order of the names: A for added, C for changed, D for deleted. Nothing is mounted for it; it
/// may be mounted. An upper layer may be of plyfs, of the kernel or of fuse-overlayfs. Without its lower layers, what was
/// copied up counts as changed, all else as added, and every whiteout as a deletion.
#[derive(Args, Debug)]
pub struct DiffArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// The name of a container, or its beginning; or an upper layer: write ./DIR where a container is called the same
    #[arg(value_name = "CONTAINER|UPPER")]
    of: PathBuf,

    /// The lower layers, top first: directories, or indexes of stored layers
    #[arg(value_name = "LOWER")]
    lower: Vec<PathBuf>,

    /// The work directory of the upper layer, if it is not UPPER.work: some changed files with several names are there alone
    #[arg(long, value_name = "DIR")]
    workdir: Option<PathBuf>,

    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,

    /// Print one JSON object a line, the same as --format json
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A letter and a name a line
    Table,
    /// One JSON object a line
    Json,
}

impl DiffArgs {
    /// Prints the list.
    pub fn run(self) -> Result<(), CliError> {
        logging::start(LevelFilter::Warn)?;
        let layers = self.layers()?;
        let changes = changes::list(&layers)
            .map_err(|error| CliError::Failure(format!("{}: {error}", layers.upper.display())))?;
        let mut out = BufWriter::new(io::stdout().lock());
        for change in &changes {
            if self.json || self.format == Format::Json {
                writeln!(out, "{}", as_json(change))?;
            } else {
                writeln!(out, "{} {}", change.kind.letter(), shown(path(change)))?;
            }
        }
        Ok(out.flush()?)
    }
}

impl DiffArgs {
    fn layers(&self) -> Result<Layers, CliError> {
        let layers = self.find()?;
        if matches!(layers.upper.try_exists(), Ok(false)) {
            let upper = layers.upper.display();
            return Err(CliError::NotFound(format!("no container and no upper layer `{upper}`")));
        }
        Ok(layers)
    }

    fn find(&self) -> Result<Layers, CliError> {
        let layers = |lower| Layers::of(self.of.clone(), lower, self.workdir.clone());
        if !self.lower.is_empty() {
            return Ok(layers(Some(self.lower.clone())));
        }
        let name = self.of.to_str().filter(|name| !name.contains('/'));
        if let Some(name) = name
            && let Some(store) = self.store.open_existing()?
        {
            match Container::find(&store, name) {
                Ok(container) => return Ok(container.layers(&store)?),
                Err(error) if !self.of.is_dir() => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(layers(None))
    }
}

fn path(change: &Change) -> &[u8] {
    change.path.as_os_str().as_bytes()
}

fn as_json(change: &Change) -> Value {
    let mut line = json!({
        "kind": change.kind.letter().to_string(),
        "path": change.path.to_string_lossy(),
    });
    if change.path.to_str().is_none() {
        let hex = path(change).iter().map(|byte| format!("{byte:02x}"));
        line["path_hex"] = hex.collect::<String>().into();
    }
    line
}

/// A name as a terminal may see it: control characters and what is no text are escaped.
fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text += &one_line(chunk.valid());
        text += &chunk.invalid().escape_ascii().to_string();
    }
    text
}
