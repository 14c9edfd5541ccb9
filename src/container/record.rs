//! What is written down about containers and mounts. Both name digests, which `store gc` takes for in use.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::image::Image;
use crate::store::{DiffId, Digest, timestamp};

/// The version of [`Record`] that is written and read.
pub(super) const VERSION: u32 = 1;

/// A container: `containers/NAME/meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 1.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// What the image was called.
    pub image: String,
    /// The image's manifest.
    pub manifest: Digest,
    /// The image's configuration, the digest of which is its id.
    pub config: Digest,
    /// The image's layers, lowest first.
    pub layers: Vec<DiffId>,
    /// When it was made (RFC 3339).
    pub created: String,
}

impl Record {
    /// A container over `image`, made `now` (seconds since 1970).
    pub(super) fn new(name: &str, reference: &str, image: &Image, now: i64) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            image: reference.to_owned(),
            manifest: image.digest,
            config: image.id(),
            layers: image.layers.clone(),
            created: timestamp::format(now),
        }
    }
}

/// A mount of an image: `mounts/NAME.json`. While it lives, the file is locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// Where it is mounted, as the one saw it who mounted it.
    #[serde(with = "bytes")]
    pub mountpoint: PathBuf,
    /// Major and minor number of the mounted filesystem; none while it is being mounted.
    #[serde(default)]
    pub device: Option<(u32, u32)>,
    /// The process that serves it, as it is numbered where it runs.
    pub pid: u32,
    /// What the image was called.
    pub image: String,
    /// The image's manifest.
    pub manifest: Digest,
    /// The image's configuration.
    pub config: Digest,
    /// The image's layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The container that takes the changes; none where that is a directory of the user's, or nothing.
    pub container: Option<String>,
    /// When it was mounted (RFC 3339).
    pub created: String,
}

/// Paths as text or, those that are none, as a list of bytes.
mod bytes {
    use super::{Deserialize, OsStrExt, OsString, OsStringExt, Path, PathBuf, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        let form = match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(path.as_os_str().as_bytes().to_vec()),
        };
        form.serialize(to)
    }

    pub fn deserialize<'d, D: serde::Deserializer<'d>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_whatever_the_mountpoint_is_called() {
        for mountpoint in [&b"/mnt"[..], b"/a\n\"\\", b"/\xff\xfe"] {
            let record = MountRecord {
                mountpoint: OsString::from_vec(mountpoint.to_vec()).into(),
                device: Some((0, 77)),
                pid: 7,
                image: "app:latest".into(),
                manifest: Digest::of(b"m"),
                config: Digest::of(b"c"),
                layers: vec![DiffId(Digest::of(b"l"))],
                container: None,
                created: timestamp::format(0),
            };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<MountRecord>(&text).unwrap(), record, "{text}");
            assert!(text.contains(&format!("\"{}\"", Digest::of(b"l"))), "{text}");
        }
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        let text = r#"{"version":1,"name":"a","image":"i","manifest":"sha256:1","config":"x","layers":[],"created":""}"#;
        assert!(serde_json::from_str::<Record>(text).is_err());
    }
}
