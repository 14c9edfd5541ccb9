//! Commits: an image, and one layer more on it.

use std::io::{self, BufRead, BufReader, PipeWriter};

use serde_json::{Value, json};

use super::config::{self, Config, History};
use super::image::Image;
use super::instruction::{self, Instruction};
use super::layer_import::{Imported, Keep};
use super::manifest::Descriptor;
use super::reference::Reference;
use super::{Digest, Error, Result, Store, timestamp};
use crate::archive::{Compression, Limits};

/// What a new image says about itself.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// What its history says about the step.
    pub message: Option<String>,
    /// Who has made it.
    pub author: Option<String>,
    /// How its configuration differs from that of the base.
    pub changes: Vec<Instruction>,
}

/// An image that has been made.
#[derive(Debug)]
pub struct Committed {
    /// Its id.
    pub id: Digest,
    /// The new layer; none if nothing has changed.
    pub layer: Option<Imported>,
}

impl Store {
    /// Makes an image of `base` and the layer whose archive `write` writes; of `base` alone if that is nothing.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub fn commit(
        &self,
        base: &Image,
        write: impl FnOnce(PipeWriter) -> io::Result<()> + Send,
        compression: Compression,
        edit: &Edit,
        name: Option<&Reference>,
    ) -> Result<Committed> {
        let mut import = self.import()?;
        let failed = |error: io::Error| Error::failure(format!("commit: {error}"));
        let (reader, writer) = io::pipe().map_err(failed)?;
        let layer = std::thread::scope(|scope| {
            let walk = scope.spawn(move || write(writer));
            let mut source = BufReader::with_capacity(BUFFER, reader);
            let imported = match source.fill_buf().map(<[u8]>::is_empty) {
                Ok(true) => Ok(None),
                Ok(false) => {
                    let keep = Keep::new(compression);
                    import.layer("new", source, Limits::default(), keep).map(Some)
                }
                Err(error) => Err(failed(error)),
            };
            match walk.join() {
                Ok(Ok(())) => imported,
                // The import has ended early, and says why.
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => imported,
                Ok(Err(error)) => Err(failed(error)),
                Err(_) => Err(failed(io::Error::other("the layer cannot be read"))),
            }
        })?;
        let bytes = self.read_blob(&base.id(), config::LONGEST)?;
        let config = new_config(&bytes, edit, layer.as_ref())?;
        let old = base.manifest.layers.iter().map(Descriptor::as_oci);
        let new = layer.iter().map(|layer| Descriptor::layer(layer.compression, layer.blob));
        let (id, descriptor) = import.new_image(&config, old.chain(new).collect())?;
        import.publish()?;
        let names: Vec<Reference> = name.into_iter().cloned().collect();
        self.tag_all(&descriptor, &names)?;
        Ok(Committed { id, layer })
    }
}

const BUFFER: usize = 128 << 10;

/// The base's configuration with everything that is not known in it, one step and perhaps one layer more.
fn new_config(base: &[u8], edit: &Edit, layer: Option<&Imported>) -> Result<Vec<u8>> {
    let known = Config::read(base)?;
    let cannot = |error| Error::failure(format!("the configuration cannot be read: {error}"));
    let mut config: Value = serde_json::from_slice(base).map_err(cannot)?;
    let created = timestamp::format(timestamp::of_making());
    let command = known.config["Cmd"]
        .as_array()
        .map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let step = History {
        created: Some(created.clone()),
        created_by: command,
        author: edit.author.clone(),
        comment: edit.message.clone(),
        empty_layer: layer.is_none(),
    };
    config["created"] = created.into();
    if let Some(author) = &edit.author {
        config["author"] = json!(author);
    }
    if let Some(layer) = layer {
        push(&mut config["rootfs"]["diff_ids"], layer.diff_id.0.to_string().into());
    }
    push(&mut config["history"], json!(step));
    if !config["config"].is_object() {
        config["config"] = json!({});
    }
    if let Value::Object(run) = &mut config["config"] {
        instruction::apply_all(&edit.changes, run)?;
    }
    Ok(config.to_string().into_bytes())
}

/// Adds to a list, which may not be there yet.
fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        list => *list = json!([value]),
    }
}
