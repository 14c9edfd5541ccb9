//! `plyfs image tree [NAME...]`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;

use super::table;
use crate::cli::error::{CliError, one_line};
use crate::store::image::Image;
use crate::store::{ChainId, Store};

/// Show which images are built on which layers
///
/// Layers that several images begin with are shown once, with all that is above them.
#[derive(Args, Debug)]
pub struct TreeArgs {
    /// Only these images
    #[arg(value_name = "NAME")]
    images: Vec<String>,

    /// Print ids with all their digits
    #[arg(long)]
    no_trunc: bool,
}

/// A layer on those below it.
#[derive(Default)]
struct Node {
    /// The layer's own id and its bytes.
    layer: String,
    above: BTreeMap<ChainId, Node>,
    images: Vec<String>,
}

impl TreeArgs {
    /// Prints the trees.
    pub fn run(self, store: &Store) -> Result<(), CliError> {
        let images = match self.images.as_slice() {
            [] => store.images()?,
            names => names.iter().map(|name| store.find_image(name)).collect::<Result<_, _>>()?,
        };
        let mut root = Node::default();
        for image in &images {
            self.enter(store, image, &mut root)?;
        }
        let mut out = io::stdout().lock();
        for image in &root.images {
            writeln!(out, "{}", one_line(image))?;
        }
        for node in root.above.values() {
            writeln!(out, "{}", node.layer)?;
            node.write("", &mut out)?;
        }
        Ok(())
    }

    fn enter(&self, store: &Store, image: &Image, root: &mut Node) -> Result<(), CliError> {
        let mut node = root;
        for (layer, chain) in image.layers.iter().zip(image.chain()) {
            let size = table::size(store.layer_meta(layer)?.size);
            node = node.above.entry(chain).or_default();
            node.layer = format!("{} {size}", table::id(&layer.0, self.no_trunc));
        }
        let id = table::id(&image.id(), self.no_trunc);
        let names = if image.tags.is_empty() { "<none>".into() } else { image.tags.join(", ") };
        node.images.push(format!("{names} ({id})"));
        Ok(())
    }
}

impl Node {
    fn write(&self, indent: &str, out: &mut impl Write) -> io::Result<()> {
        let count = self.images.len() + self.above.len();
        let branch = |at: usize| {
            if at + 1 == count { ("└── ", "    ") } else { ("├── ", "│   ") }
        };
        for (at, image) in self.images.iter().enumerate() {
            writeln!(out, "{indent}{}{}", branch(at).0, one_line(image))?;
        }
        for (at, node) in self.above.values().enumerate() {
            let (line, below) = branch(self.images.len() + at);
            writeln!(out, "{indent}{line}{}", node.layer)?;
            node.write(&format!("{indent}{below}"), out)?;
        }
        Ok(())
    }
}
