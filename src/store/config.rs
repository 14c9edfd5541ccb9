//! Configurations: what an image is besides its layers (OCI image specification, "Image Configuration").
//!
//! An image's id is the digest of these bytes, which are therefore never written again.

use serde::{Deserialize, Serialize};

use super::{DiffId, Error, Result};

/// The longest configuration that is read, in bytes.
pub const LONGEST: u64 = 8 << 20;

/// What is read of a configuration.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Config {
    /// When it was made, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The processor, by the names of Go.
    #[serde(default)]
    pub architecture: String,
    /// The system.
    #[serde(default)]
    pub os: String,
    /// What is run, and how: as it stands.
    #[serde(default)]
    pub config: serde_json::Value,
    /// The layers.
    pub rootfs: RootFs,
    /// How the layers came about.
    #[serde(default, deserialize_with = "or_none")]
    pub history: Vec<History>,
}

/// The layers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Their names, lowest first.
    #[serde(default, deserialize_with = "or_none")]
    pub diff_ids: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What somebody has said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Reads a configuration.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::failure(format!("the configuration cannot be read: {error}")))
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> Result<Vec<DiffId>> {
        let diff_ids = self.rootfs.diff_ids.iter();
        diff_ids.map(|text| text.parse().map(DiffId)).collect()
    }
}

/// `null`, as Go writes what is empty, is nothing.
fn or_none<'d, D, T>(source: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'d>,
    T: Deserialize<'d>,
{
    Ok(Option::deserialize(source)?.unwrap_or_default())
}
