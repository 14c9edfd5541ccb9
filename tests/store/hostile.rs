//! Images that lie: one line, and nothing stored.

use plyfs::store::Digest;
use serde_json::{Value, json};

use crate::program::{Files, Program, TestImage, archive, gzip, zstd};
use crate::support::{Fields, Tar};

/// The files are refused with this status and line.
fn refused(files: &Files, status: i32, why: &str) {
    refused_bytes(&archive(files), status, why);
}

fn refused_bytes(bytes: &[u8], status: i32, why: &str) {
    let program = Program::new();
    program.write("image.tar", bytes);
    let (found, line) = program.fails("image load -q image.tar");
    assert!(line.contains(why), "{line}, and not: {why}");
    assert_eq!(found, status, "{line}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert_eq!(program.stored(), [""; 0], "{why}");
    assert_eq!(program.says("image ls -q"), "");
}

/// The image with its only manifest changed, and the digests above it made right again.
fn with_manifest(change: impl FnOnce(&mut Value)) -> Files {
    let mut files = TestImage::small().oci("app", gzip, "+gzip");
    let mut index = json_of(&files, "index.json");
    let name = member(&index["manifests"][0]);
    let mut manifest = json_of(&files, &name);
    change(&mut manifest);
    let bytes: Vec<u8> = manifest.to_string().into();
    let digest = Digest::of(&bytes);
    index["manifests"][0]["digest"] = digest.to_string().into();
    index["manifests"][0]["size"] = bytes.len().into();
    files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
    replace(&mut files, "index.json", &index);
    files
}

fn with_index(change: impl FnOnce(&mut Value)) -> Files {
    let mut files = TestImage::small().oci("app", gzip, "+gzip");
    let mut index = json_of(&files, "index.json");
    change(&mut index);
    replace(&mut files, "index.json", &index);
    files
}

fn member(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/")
}

fn json_of(files: &Files, name: &str) -> Value {
    serde_json::from_slice(&files.iter().find(|(member, _)| member == name).unwrap().1).unwrap()
}

fn replace(files: &mut Files, name: &str, value: &Value) {
    files.retain(|(member, _)| member != name);
    files.push((name.to_owned(), value.to_string().into()));
}

/// A layer under the diff id of another: whoever believes it gives everybody the wrong layer.
#[test]
fn a_layer_that_is_not_its_diff_id_is_refused() {
    let image = TestImage::small();
    let mut files = image.old_docker("app");
    files[1].1 = Tar::new().file("evil", "x").end();
    refused(&files, 4, "and not sha256:");
    let mut files = image.docker("app");
    let evil = Tar::new().file("evil", "x").end();
    files[0].1 = evil.clone();
    refused(&files, 4, "and not sha256:");
    // With manifests that are right, too.
    let poisoned = with_manifest(|manifest| {
        manifest["layers"].as_array_mut().unwrap().swap(0, 1);
    });
    refused(&poisoned, 4, "and not sha256:");
}

#[test]
fn blobs_that_are_not_their_digests_are_refused() {
    let mut files = TestImage::small().oci("app", gzip, "+gzip");
    files[0].1 = gzip(&[TestImage::small().layers[0].clone(), vec![0; 512]].concat());
    refused(&files, 4, "and not sha256:");
    let mut files = TestImage::small().oci("app", gzip, "+gzip");
    // The same archive, compressed in another way.
    files[0].1 = [gzip(b""), files[0].1.clone()].concat();
    refused(&files, 4, "is not what its name and size say");
    let mut files = TestImage::small().oci("app", gzip, "+gzip");
    files[2].1.push(b' ');
    refused(&files, 4, "is not what its name and size say");
}

#[test]
fn manifests_that_can_be_read_in_two_ways_are_refused() {
    refused(&with_manifest(|m| m["manifests"] = json!([])), 1, "the manifest is an index too");
    refused(
        &with_manifest(|m| m["mediaType"] = "application/vnd.oci.image.index.v1+json".into()),
        1,
        "is not of the type that it is referred to as",
    );
    refused(&with_manifest(|m| m["schemaVersion"] = 1.into()), 1, "only manifests of version 2");
    refused(&with_index(|i| i["layers"] = json!([])), 1, "the index is a manifest too");
}

#[test]
fn more_layers_than_diff_ids_and_the_other_way_round_are_refused() {
    refused(
        &with_manifest(|m| {
            let layer = m["layers"][0].clone();
            m["layers"].as_array_mut().unwrap().push(layer);
        }),
        1,
        "the manifest has 3 layers, and the configuration 2",
    );
    let mut files = TestImage::small().old_docker("app");
    let mut manifest = json_of(&files, "manifest.json");
    manifest[0]["Layers"].as_array_mut().unwrap().pop();
    replace(&mut files, "manifest.json", &manifest);
    refused(&files, 1, "the manifest has 1 layers, and the configuration 2");
    refused(
        &with_manifest(|m| {
            let layer = m["layers"][0].clone();
            m["layers"] = vec![layer; 1025].into();
        }),
        1,
        "the image has more than 1024 layers",
    );
}

#[test]
fn digests_are_of_one_form() {
    for digest in ["sha256:../../../etc/passwd", "sha512:00", "md5:x", "", "sha256:\u{1b}[2J"] {
        refused(&with_index(|i| i["manifests"][0]["digest"] = digest.into()), 1, "is no digest");
    }
    let upper = |i: &mut Value| {
        let digest = i["manifests"][0]["digest"].as_str().unwrap().to_uppercase();
        i["manifests"][0]["digest"] = digest.replace("SHA256", "sha256").into();
    };
    refused(&with_index(upper), 1, "is no digest");
}

/// CVE-2019-10214, CVE-2014-9356 and the like: names and links that lead out of the archive.
#[test]
fn nothing_outside_of_the_archive_is_read() {
    let image = TestImage::small();
    let mut files = image.old_docker("app");
    let mut manifest = json_of(&files, "manifest.json");
    manifest[0]["Config"] = "../../../etc/passwd".into();
    replace(&mut files, "manifest.json", &manifest);
    refused(&files, 1, "its name leads through ..");
    for (target, why) in [
        ("/etc/passwd", "it leads out"),
        ("../../etc/passwd", "it leads out"),
        ("layer.tar", "its links lead in a circle"),
    ] {
        let files = image.old_docker("app");
        let tar = files[2..]
            .iter()
            .fold(Tar::new(), |tar, (name, bytes)| tar.entry(Fields::new(b'0', name), bytes));
        refused_bytes(&tar.symlink(&files[0].0, target).end(), 1, why);
    }
    // Of a directory, too.
    let program = Program::new();
    for (name, bytes) in image.oci("app", gzip, "+gzip") {
        program.write(&format!("layout/{name}"), &bytes);
    }
    let layer = program.path("layout/blobs/sha256").join(Digest::of(&gzip(&image.layers[0])).hex());
    std::fs::rename(&layer, program.path("moved")).unwrap();
    std::os::unix::fs::symlink(program.path("moved"), &layer).unwrap();
    assert_eq!(program.fails("image load -q layout").0, 1);
    assert_eq!(program.stored(), [""; 0]);
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["../x", "a b", "\u{1b}[2J", "A/B", ":"] {
        refused(&TestImage::small().old_docker(name), 1, "is no name of an image");
    }
}

#[test]
fn what_is_no_image_is_refused() {
    refused(&vec![("etc/passwd".into(), b"root".to_vec())], 1, "this is no image");
    refused(&TestImage::small().old_docker("app")[1..].to_vec(), 1, "is missing");
    refused_bytes(b"", 1, "this is no image");
    refused_bytes(&[b'x'; 2048], 1, "the archive: ");
    refused_bytes(b"BZh91AY&SY\x01", 1, "image.tar: the archive: it is compressed with bzip2; ");
    refused_bytes(b"\xfd7zXZ\0\0\x04", 1, "image.tar: the archive: it is compressed with xz; ");
    let long = vec![b' '; (4 << 20) + 1];
    refused(&vec![("manifest.json".into(), long)], 1, "it is longer than 4194304 bytes");
    refused(&vec![("manifest.json".into(), vec![b'['; 100_000])], 1, "manifest.json: ");
}

/// Names are kept in memory.
#[test]
fn names_of_members_without_end_are_refused() {
    let name = |n: usize| format!("{n}/{}f", "x/".repeat(400_000));
    let named = |tar: Tar, n| tar.pax(&[("path", name(n).as_bytes())]).file("x", "");
    let archive = zstd(&(0..22).fold(Tar::new(), named).end());
    refused_bytes(&archive, 1, "the archive: the names in it are longer than 16777216 bytes");
}

/// A layer that is refused, in an image whose others are good.
#[test]
fn a_bad_layer_takes_the_whole_image_with_it() {
    let mut image = TestImage::small();
    image.layers.push(Tar::new().file("../x", "").end());
    refused(&image.old_docker("app"), 1, "entry ../x: its name leads through ..");
    refused(&image.oci("app", gzip, "+gzip"), 1, "entry ../x: its name leads through ..");
}
