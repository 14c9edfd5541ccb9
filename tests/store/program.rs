//! The program on a store of its own, and images to give it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plyfs::store::Digest;
use serde_json::{Value, json};

use super::support::{Fields, Tar, folder};

/// A folder with a store in it.
pub struct Program {
    pub dir: tempfile::TempDir,
}

impl Program {
    pub fn new() -> Self {
        Self { dir: folder() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn command(&self, words: &str) -> Command {
        // Where another user runs the test the program is a copy that he can reach.
        let program = std::env::var_os("PLYFS_TEST_PROGRAM");
        let mut command =
            Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_plyfs").into()));
        command.args(words.split(' ')).current_dir(self.dir.path());
        command.env("PLYFS_STORE", self.store()).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    pub fn run(&self, words: &str) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    /// What it prints, if it succeeds.
    pub fn says(&self, words: &str) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit status and error line, if it fails.
    pub fn fails(&self, words: &str) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words} succeeded");
        let line = String::from_utf8(output.stderr).unwrap();
        let line = line.lines().last().unwrap_or_default().to_owned();
        (output.status.code().unwrap_or(-1), line)
    }

    pub fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.says(words)).unwrap()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Everything in the store but what says that it is one, and what is shared by nobody.
    pub fn stored(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.store(), &mut |path| {
            let path = path.strip_prefix(self.store()).unwrap().display().to_string();
            let fixed = ["oci-layout", "index.json", "lock", "tags.lock"];
            if !fixed.contains(&path.as_str()) {
                found.push(path);
            }
        });
        found.sort();
        found
    }
}

/// Calls `each` with every file below `dir`, and with the folders in `tmp`.
fn walk(dir: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.parent().unwrap().ends_with("tmp") {
                each(&path);
            }
            walk(&path, each);
        } else {
            each(&path);
        }
    }
}

/// An image in the making: the archives of its layers.
#[derive(Clone)]
pub struct TestImage {
    pub layers: Vec<Vec<u8>>,
}

/// Files by their names.
pub type Files = Vec<(String, Vec<u8>)>;

impl TestImage {
    /// A base and a layer on it.
    pub fn small() -> Self {
        let base = Tar::new().dir("bin").file("bin/sh", "shell").file("etc/passwd", "root").end();
        let app = Tar::new().file("app", "application").file("etc/.wh.passwd", "").end();
        Self { layers: vec![base, app] }
    }

    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        // Spaces and unknown fields: the bytes must stay as they are.
        json_spaced(&json!({
            "created": "2024-02-29T12:34:56Z",
            "architecture": "amd64",
            "os": "linux",
            "unknown": { "field": 1 },
            "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [
                { "created": "2024-02-29T12:34:56Z", "created_by": "/bin/sh -c #(nop) ADD file:1 in /" },
                { "created": "2024-02-29T12:34:56Z", "created_by": "CMD [\"/bin/sh\"]", "empty_layer": true },
                { "created": "2024-02-29T12:34:56Z", "created_by": "RUN make\u{1b}[2J app", "comment": "built" },
            ],
        }))
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config()).to_string()
    }

    /// As docker wrote it before 25: a folder for each layer.
    pub fn old_docker(&self, name: &str) -> Files {
        let config = Digest::of(&self.config()).hex();
        let member = |at: usize| format!("{at:064x}/layer.tar");
        let mut files: Files =
            self.layers.iter().enumerate().map(|(at, layer)| (member(at), layer.clone())).collect();
        let layers: Vec<String> = (0..self.layers.len()).map(member).collect();
        let manifest =
            json!([{ "Config": format!("{config}.json"), "RepoTags": [name], "Layers": layers }]);
        files.push((format!("{config}.json"), self.config()));
        files.push(("manifest.json".into(), manifest.to_string().into()));
        files
    }

    /// An OCI layout with layers that `compress` has made, of this media type.
    pub fn oci(&self, name: &str, compress: fn(&[u8]) -> Vec<u8>, suffix: &str) -> Files {
        self.oci_of(&self.config(), name, compress, suffix)
    }

    /// The same with this configuration.
    pub fn oci_of(
        &self,
        config: &[u8],
        name: &str,
        compress: fn(&[u8]) -> Vec<u8>,
        suffix: &str,
    ) -> Files {
        let mut files = Files::new();
        let mut blob = |bytes: Vec<u8>, media_type: &str| {
            let digest = Digest::of(&bytes);
            let descriptor = json!({
                "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len(),
            });
            files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
            descriptor
        };
        let layer_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| blob(compress(layer), &layer_type)).collect();
        let config = blob(config.to_vec(), "application/vnd.oci.image.config.v1+json");
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
        });
        let mut entry = blob(json_spaced(&manifest), manifest_type);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        files.push(("index.json".into(), index.to_string().into()));
        files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files
    }

    /// As docker writes it since 25: both in one.
    pub fn docker(&self, name: &str) -> Files {
        let mut files = self.oci(name, |layer| layer.to_vec(), "");
        let member = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        let layers: Vec<String> = self.layers.iter().map(|layer| member(layer)).collect();
        let config = member(&self.config());
        let manifest = json!([{ "Config": config, "RepoTags": [name], "Layers": layers }]);
        files.push(("manifest.json".into(), manifest.to_string().into()));
        files
    }
}

fn json_spaced(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into()
}

/// One archive with these files.
pub fn archive(files: &Files) -> Vec<u8> {
    let file =
        |tar: Tar, (name, bytes): &(String, Vec<u8>)| tar.entry(Fields::new(b'0', name), bytes);
    files.iter().fold(Tar::new(), file).end()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
