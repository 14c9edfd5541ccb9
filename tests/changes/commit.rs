//! `plyfs commit`: the new image is what was mounted.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::story::{CHANGES, Store, change, change_owners, listen, succeeded};
use crate::support::posix::{run, set_xattr};
use crate::support::{Field, Union, assert_same};
use crate::{isolated, needs_root, not_with};

struct Made {
    store: Store,
    union: Union,
}

/// Changes a mount of the base, and commits it as `new:1`; the image must look like the mount.
fn committed(options: &[&str], more: impl Fn(&std::path::Path)) -> Made {
    let store = Store::new();
    let mut builder = store.union("base:1");
    for option in options {
        builder = builder.option(*option);
    }
    let mut union = builder.mount();
    change(&union.path(""));
    more(&union.path(""));
    // What deleted names leave of link counts is the union's, and no image has it.
    let forget = [Field::Nlink];
    let before = union.snapshot().without(&forget).without_path("socket");
    union.unmount();
    store.take_layer(&union, "upper");
    store.says("commit --upper upper/upper --image base:1 new:1");
    assert_same(&before, &store.snapshot("new:1").without(&forget), "the image");
    assert!(store.says("store verify --full").ends_with("no problems\n"));
    Made { store, union }
}

#[test]
fn an_image_is_what_was_mounted() {
    not_with!("packed");
    needs_root!();
    let made = committed(&[], |root| {
        change_owners(root);
        drop(listen(root));
        set_xattr(root.join("data"), "trusted.own", b"1").unwrap();
        set_xattr(root.join("data"), "user.overlay.opaque", b"a user's").unwrap();
        let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        set_xattr(root.join("times"), "security.capability", capability).unwrap();
        run("setfacl", ["-m".as_ref(), "u:7:rwx".as_ref(), root.join("linked").as_os_str()]);
    });
    let list = made.store.run("commit --upper upper/upper --image base:1");
    let warning = String::from_utf8(list.stderr).unwrap();
    assert!(warning.contains("/socket: a socket: left out"), "{warning}");
    drop(made.union);
}

#[test]
fn an_image_has_what_redirects_and_metacopies_lead_to() {
    not_with!("packed");
    needs_root!();
    committed(&["redirect_dir=on", "metacopy=on"], change_owners);
}

#[test]
fn an_image_has_the_owners_and_devices_that_are_kept_in_attributes() {
    not_with!("packed", "xattr_permissions");
    needs_root!();
    committed(&["xattr_permissions=2"], change_owners);
}

#[test]
fn an_image_of_an_ordinary_user_is_what_was_mounted() {
    not_with!("packed", "xattr_permissions");
    isolated!(User, {
        committed(&["xattr_permissions=2"], |_| ());
    });
}

#[test]
fn an_image_of_a_user_namespace_is_what_was_mounted() {
    not_with!("packed");
    isolated!(UserNamespace, {
        committed(&[], |_| ());
    });
}

#[test]
fn the_same_layer_has_the_same_digest_however_it_is_kept() {
    not_with!("packed");
    needs_root!();
    let store = committed(&[], change_owners).store;
    let layers = |image: &str| store.inspect(image)["RootFS"]["Layers"].clone();
    let id = store.inspect("new:1")["Id"].clone();
    assert_eq!(store.says("commit --upper upper/upper --image base:1 again:1").trim(), id);
    let types = [("gzip", "+gzip"), ("zstd", "+zstd"), ("none", "")];
    for (form, suffix) in types {
        let words =
            format!("commit --upper upper/upper --image base:1 --compression {form} kept:{form}");
        assert_eq!(store.says(&words).trim(), id, "{form}");
        assert_eq!(layers(&format!("kept:{form}")), layers("new:1"));
        let manifest =
            store.inspect(&format!("kept:{form}"))["Digest"].as_str().unwrap().to_owned();
        let blob = store.path("store/blobs/sha256").join(manifest.strip_prefix("sha256:").unwrap());
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
        let media_type = manifest["layers"][1]["mediaType"].as_str().unwrap();
        assert_eq!(media_type, format!("application/vnd.oci.image.layer.v1.tar{suffix}"));
    }
    // On one processor, and elsewhere on the disk.
    run("cp", ["-a".as_ref(), store.path("upper").as_os_str(), store.path("copy").as_os_str()]);
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0"]).arg(crate::support::mount::program());
    command.args(["commit", "--upper", "copy/upper", "--image", "base:1"]);
    command.current_dir(store.scratch.path()).env("PLYFS_STORE", store.path("store"));
    command.env("SOURCE_DATE_EPOCH", "1000000000");
    assert_eq!(succeeded("commit", &command.output().unwrap()).trim(), id);
    assert!(store.says("store verify --full").ends_with("no problems\n"));
    // What was compressed here can be made again, zstd too.
    let digest = |image: &str| store.inspect(image)["Blobs"][1].as_str().map(ToOwned::to_owned);
    for image in ["kept:gzip", "kept:zstd"] {
        let name = digest(image).unwrap();
        let blob = store.path("store/blobs/sha256").join(name.strip_prefix("sha256:").unwrap());
        fs::remove_file(&blob).unwrap();
        let repaired = store.run("store verify --repair");
        assert!(blob.exists(), "{image}: {}", String::from_utf8_lossy(&repaired.stdout));
    }
    assert!(store.says("store verify --full").ends_with("no problems\n"));
}

#[test]
fn a_second_commit_adds_a_second_layer() {
    not_with!("packed");
    needs_root!();
    let store = committed(&[], |_| ()).store;
    let mut union = store.union("new:1").mount();
    fs::remove_file(union.path("moved/one")).unwrap();
    fs::write(union.path("data"), "second").unwrap();
    let before = union.snapshot().without(&[Field::Nlink]);
    union.unmount();
    store.take_layer(&union, "second");
    store.says("commit --upper second/upper --image new:1 new:2");
    assert_same(&before, &store.snapshot("new:2").without(&[Field::Nlink]), "the second image");
    assert_eq!(store.inspect("new:2")["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    let top = store.inspect("new:2")["RootFS"]["Layers"][2].as_str().unwrap().to_owned();
    let index = store.path("store/layers").join(top.strip_prefix("sha256:").unwrap()).join("index");
    // The layer has these two changes and nothing else.
    let below = |image: &str| {
        let layers = store.inspect(image)["RootFS"]["Layers"].clone();
        let paths = layers.as_array().unwrap().iter().rev().map(|layer| {
            let hex = layer.as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
            format!("store/layers/{hex}/index")
        });
        paths.collect::<Vec<_>>().join(" ")
    };
    let list = store.says(&format!("diff second/upper {}", below("new:1")));
    assert_eq!(list, "C /data\nC /moved\nD /moved/one\n");
    assert!(index.exists());
}

#[test]
fn nothing_changed_is_no_layer() {
    not_with!("packed");
    needs_root!();
    let store = Store::new();
    let mut union = store.union("base:1").mount();
    // Copied up, and put back; made, and removed.
    crate::support::posix::chmod(union.path("etc/passwd"), 0o600).unwrap();
    crate::support::posix::chmod(union.path("etc/passwd"), 0o644).unwrap();
    fs::write(union.path("new"), "").unwrap();
    fs::remove_file(union.path("new")).unwrap();
    union.unmount();
    store.take_layer(&union, "upper");
    store.says("commit --upper upper/upper --image base:1 -m nothing same:1");
    let layers = |image: &str| store.inspect(image)["RootFS"].clone();
    assert_eq!(layers("same:1"), layers("base:1"));
    let history = store.inspect("same:1")["History"].clone();
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert_eq!(history[1]["empty_layer"], true);
    assert_eq!(history[1]["comment"], "nothing");
}

#[test]
fn the_list_of_a_stored_image_is_that_of_directories() {
    not_with!("packed");
    needs_root!();
    let store = Store::new();
    let mut union = store.union("base:1").mount();
    change(&union.path(""));
    union.unmount();
    let index = union.lowers()[0].clone();
    let mut command = store.command(&["diff"]);
    let output = command.arg(union.upper("")).arg(index).output().unwrap();
    assert_eq!(succeeded("diff", &output), CHANGES);
}

#[test]
fn a_file_called_like_a_whiteout_is_refused() {
    not_with!("packed");
    needs_root!();
    let store = Store::new();
    let mut union = store.union("base:1").mount();
    fs::write(union.path("etc/.wh.passwd"), "mine").unwrap();
    union.unmount();
    store.take_layer(&union, "upper");
    let before = store.says("store info");
    let output = store.run("commit --upper upper/upper --image base:1 new:1");
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    let why = "in a layer such a name means a deletion; rename it, or remove it";
    assert_eq!(line, format!("plyfs: commit: /etc/.wh.passwd: {why}\n"));
    assert_eq!(store.says("store info"), before);
}

#[test]
fn what_a_socket_has_replaced_is_not_in_the_image() {
    not_with!("packed");
    needs_root!();
    let store = Store::new();
    // For a deletion of a name of this length there is no mark.
    let long = format!("other/{}", "n".repeat(255));
    fs::write(store.path("base").join(&long), "x").unwrap();
    store.says("image import base base:1");
    let mut union = store.union("base:1").mount();
    drop(listen(&union.path("")));
    fs::rename(union.path("socket"), union.path(&long)).unwrap();
    fs::remove_file(union.path("etc/passwd")).unwrap();
    UnixListener::bind(union.path("etc/passwd")).unwrap();
    fs::remove_dir_all(union.path("old")).unwrap();
    UnixListener::bind(union.path("old")).unwrap();
    union.unmount();
    store.take_layer(&union, "upper");
    store.says("commit --upper upper/upper --image base:1 new:1");
    let image = store.snapshot("new:1");
    for gone in ["etc/passwd", "old", "old/one", &long] {
        assert_eq!(image.field(gone, Field::Kind), None, "{gone}");
    }
    for left in ["etc/hard", "other/untouched"] {
        assert!(image.field(left, Field::Kind).is_some(), "{left}");
    }
}
