//! Manifests: which configuration and which layers an image has (OCI image specification, "Image Manifest", "Image
//! Index"; Docker's schema 2 of it is the same but for the media types).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, Error, Result};
use crate::archive::{Compression, Shown};

/// The longest manifest or index that is read, in bytes.
pub const LONGEST: u64 = 4 << 20;

/// The most layers of an image.
pub const MOST_LAYERS: usize = 1024;

/// Media types.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// See [`MANIFEST`].
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The media types of manifests and indexes that are read.
pub const TYPES: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// What refers to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its own media type.
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// An entry of an index.
#[derive(Debug)]
pub struct IndexEntry {
    /// What it refers to.
    pub descriptor: Descriptor,
    /// What it is for, where it says so.
    pub platform: Option<Platform>,
    /// The name of the image, where it has one.
    pub name: Option<String>,
}

/// A system and a processor, by the names of Go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The system.
    pub os: String,
    /// The processor.
    pub architecture: String,
    /// Which of its kind.
    pub variant: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'m> {
    schema_version: u32,
    media_type: &'m str,
    config: WrittenDescriptor<'m>,
    layers: Vec<WrittenDescriptor<'m>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor<'m> {
    media_type: &'m str,
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Value>,
    layers: Option<Vec<Value>>,
    manifests: Option<Vec<Value>>,
}

impl Descriptor {
    /// A descriptor of a layer's blob, compressed like this.
    pub fn layer(compression: Compression, (digest, size): (Digest, u64)) -> Self {
        let suffix = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        Self { media_type: format!("{LAYER}{suffix}"), digest, size }
    }

    /// How the layer that it refers to is compressed, by its media type.
    pub fn compression(&self) -> Compression {
        match self.media_type.rsplit(['+', '.']).next() {
            Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The same of a layer as an OCI manifest has it.
    #[must_use]
    pub fn as_oci(&self) -> Self {
        match self.media_type.starts_with(DOCKER_LAYER) {
            true => Self::layer(self.compression(), (self.digest, self.size)),
            false => self.clone(),
        }
    }

    /// Whether it refers to an index of manifests.
    pub fn is_index(&self) -> bool {
        [INDEX, DOCKER_INDEX].contains(&self.media_type.as_str())
    }

    fn of(value: &Value) -> Result<Self> {
        let field = |name: &str| value[name].as_str().ok_or_else(|| missing(name));
        Ok(Self {
            media_type: field("mediaType")?.to_owned(),
            digest: field("digest")?.parse()?,
            size: value["size"].as_u64().ok_or_else(|| missing("size"))?,
        })
    }

    fn written(&self) -> WrittenDescriptor<'_> {
        WrittenDescriptor {
            media_type: &self.media_type,
            digest: self.digest.to_string(),
            size: self.size,
        }
    }
}

impl Platform {
    /// This machine.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// The first entry of an index that is for this platform, or does not say what it is for.
    pub fn choose(&self, entries: Vec<IndexEntry>) -> Result<IndexEntry> {
        let fits = |entry: &IndexEntry| entry.platform.as_ref().is_none_or(|its| self.takes(its));
        let none = || Error::not_found(format!("the image is not there for {self}"));
        entries.into_iter().find(fits).ok_or_else(none)
    }

    fn takes(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/').map(ToOwned::to_owned);
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture, parts.next()) {
            (Some(os), Some(architecture), None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self { os, architecture, variant })
            }
            _ => Err(Error::failure(format!(
                "`{}` is no platform: OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT is needed",
                Shown(text.as_bytes())
            ))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Manifest {
    /// Reads a manifest that something refers to as `media_type`.
    ///
    /// # Errors
    /// Those that could be read in two ways too: a manifest that is an index as well (CVE-2021-41190), or that calls itself
    /// something else than what it is called.
    pub fn read(bytes: &[u8], media_type: &str) -> Result<Self> {
        let read = read(bytes, media_type)?;
        if ![MANIFEST, DOCKER_MANIFEST].contains(&media_type) {
            let shown = Shown(media_type.as_bytes());
            return Err(Error::failure(format!("manifests of type `{shown}` are not known")));
        }
        if read.manifests.is_some() {
            return Err(Error::failure("the manifest is an index too"));
        }
        let layers = read.layers.ok_or_else(|| missing("layers"))?;
        if layers.len() > MOST_LAYERS {
            return Err(too_many());
        }
        Ok(Self {
            media_type: media_type.to_owned(),
            config: Descriptor::of(&read.config.ok_or_else(|| missing("config"))?)?,
            layers: layers.iter().map(Descriptor::of).collect::<Result<_>>()?,
        })
    }

    /// The bytes of a manifest.
    pub fn write(&self) -> Vec<u8> {
        let written = Written {
            schema_version: 2,
            media_type: &self.media_type,
            config: self.config.written(),
            layers: self.layers.iter().map(Descriptor::written).collect(),
        };
        // Numbers and text always can be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }
}

/// Reads an index that something refers to as `media_type`.
pub fn read_index(bytes: &[u8], media_type: &str) -> Result<Vec<IndexEntry>> {
    let read = read(bytes, media_type)?;
    if read.config.is_some() || read.layers.is_some() {
        return Err(Error::failure("the index is a manifest too"));
    }
    let entries = read.manifests.ok_or_else(|| missing("manifests"))?;
    entries.iter().map(index_entry).collect()
}

/// The media type that a manifest says it is of.
pub fn own_type(bytes: &[u8]) -> Option<String> {
    let read: Read = serde_json::from_slice(bytes).ok()?;
    read.media_type
}

/// The media type of an index.
pub fn index_type() -> &'static str {
    INDEX
}

fn index_entry(value: &Value) -> Result<IndexEntry> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let platform = &value["platform"];
    let annotation = |key: &str| text(&value["annotations"][key]);
    Ok(IndexEntry {
        descriptor: Descriptor::of(value)?,
        platform: text(&platform["os"]).zip(text(&platform["architecture"])).map(
            |(os, architecture)| Platform { os, architecture, variant: text(&platform["variant"]) },
        ),
        name: annotation("io.containerd.image.name").or_else(|| annotation(super::tags::REF_NAME)),
    })
}

fn read(bytes: &[u8], media_type: &str) -> Result<Read> {
    let malformed = |error| Error::failure(format!("the manifest cannot be read: {error}"));
    let read: Read = serde_json::from_slice(bytes).map_err(malformed)?;
    if read.schema_version != 2 {
        return Err(Error::failure("only manifests of version 2 are read"));
    }
    if read.media_type.as_deref().is_some_and(|own| own != media_type) {
        return Err(Error::failure("the manifest is not of the type that it is referred to as"));
    }
    Ok(read)
}

fn missing(what: &str) -> Error {
    Error::failure(format!("the manifest has no `{what}`"))
}

pub(super) fn too_many() -> Error {
    Error::failure(format!("the image has more than {MOST_LAYERS} layers"))
}
