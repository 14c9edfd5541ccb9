//! `plyfs image save NAME... [-o FILE]`.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::progress::ProgressArgs;
use crate::cli::error::CliError;
use crate::store::image::Image;
use crate::store::save::Format;
use crate::store::{Error, Store};

/// Write images into an archive
///
/// Layers are written byte by byte as they came.
#[derive(Args, Debug)]
pub struct SaveArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// The archive, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The form of the archive
    #[arg(long, value_enum, default_value = "docker")]
    format: Form,

    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// A docker archive, with uncompressed layers
    #[value(alias = "docker-archive")]
    Docker,
    /// An OCI archive, with the layers as they are kept
    #[value(alias = "oci-archive")]
    Oci,
}

impl SaveArgs {
    /// Writes the archive.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let mut images: Vec<(Image, Vec<String>)> = Vec::new();
        for name in &self.names {
            let image = store.find_image(name)?;
            let names = names_by(&image, name);
            match images.iter_mut().find(|(known, _)| known.digest == image.digest) {
                Some((_, known)) => known.extend(names),
                None => images.push((image, names)),
            }
        }
        let format = match self.format {
            Form::Docker => Format::Docker,
            Form::Oci => Format::Oci,
        };
        let teller = self.progress.teller();
        let Some(path) = self.output else {
            if io::stdout().is_terminal() {
                let advice = "an archive is not written to a terminal: use --output or a pipe";
                return Err(CliError::Usage(advice.into()));
            }
            if self.progress.is_json() {
                let advice =
                    "--json goes to standard output: give the archive a file with --output";
                return Err(CliError::Usage(advice.into()));
            }
            return Ok(store.save(&images, format, io::stdout().lock(), &teller)?);
        };
        let failed = |error: io::Error| Error::failure(format!("{}: {error}", path.display()));
        let save =
            |file| store.save(&images, format, BufWriter::with_capacity(1 << 20, file), &teller);
        let Some(path) = replaceable(&path) else {
            let place = File::options().write(true).open(&path).map_err(failed)?;
            return Ok(save(place)?);
        };
        let partial = partial(&path);
        let file = File::create(&partial).map_err(failed)?;
        let saved = save(file);
        let named = saved.and_then(|()| fs::rename(&partial, &path).map_err(failed));
        if named.is_err() {
            fs::remove_file(&partial).map_err(failed)?;
        }
        Ok(named?)
    }
}

/// The names of the image that `text` asks for: this one, or all of what is named by its id.
fn names_by(image: &Image, text: &str) -> Vec<String> {
    let name = text.parse::<crate::store::reference::Reference>().map(|name| name.to_string());
    match name {
        Ok(name) if image.tags.contains(&name) => vec![name],
        _ => image.tags.clone(),
    }
}

/// The file that a whole archive may take the place of: one that is not there yet, or a regular one, also at the end of
/// links, which stay. Devices and pipes (/dev/null, /dev/stdout) are written to instead.
fn replaceable(path: &Path) -> Option<PathBuf> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => fs::canonicalize(path).ok(),
        Ok(_) => None,
        Err(_) => Some(path.to_owned()),
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    name.into()
}
