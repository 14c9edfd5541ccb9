//! What a commit makes of the base's configuration.

use std::fs;

use serde_json::json;

use crate::story::Store;

#[test]
fn history_and_configuration_go_on() {
    let store = Store::new();
    let upper = store.scratch.dir("upper");
    fs::write(upper.join("new"), "x").unwrap();
    let words = [
        "commit",
        "--upper",
        "upper",
        "--image",
        "base:1",
        "-m",
        "the message",
        "-a",
        "An Author",
        "-c",
        "CMD [\"/bin/true\", \"a b\"]",
        "--change",
        "ENV A=1 B=\"2 3\"",
        "-c",
        "LABEL x=y",
        "-c",
        "EXPOSE 80",
        "-c",
        "USER 5:6",
        "-c",
        "WORKDIR /w",
        "-c",
        "VOLUME /v",
        "-c",
        "STOPSIGNAL SIGINT",
        "-c",
        "ENTRYPOINT [\"/e\"]",
        "new:1",
    ];
    let output = store.command(&words).output().unwrap();
    crate::story::succeeded("commit", &output);
    let image = store.inspect("new:1");
    let expected = json!({
        "Cmd": ["/bin/true", "a b"],
        "Entrypoint": ["/e"],
        "Env": ["A=1", "B=2 3"],
        "Labels": { "x": "y" },
        "ExposedPorts": { "80/tcp": {} },
        "User": "5:6",
        "WorkingDir": "/w",
        "Volumes": { "/v": {} },
        "StopSignal": "SIGINT",
    });
    assert_eq!(image["Config"], expected);
    assert_eq!(image["Created"], "2001-09-09T01:46:40Z");
    let history = image["History"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["comment"], "the message");
    assert_eq!(history[1]["author"], "An Author");
    assert_eq!(history[1]["created"], "2001-09-09T01:46:40Z");
    assert_eq!(history[1].get("empty_layer"), None);
    // What is not known, and steps of 0B, stay; the command is the step's.
    fs::write(upper.join("new"), "y").unwrap();
    store.says("commit --upper upper --image new:1 next:1");
    let next = store.inspect("next:1");
    assert_eq!(next["Config"], expected);
    assert_eq!(next["History"][2]["created_by"], "/bin/true a b");
    let rows = store.says("image history --no-trunc next:1");
    assert_eq!(rows.lines().count(), 4, "{rows}");
}

#[test]
fn unknown_fields_of_the_base_are_kept() {
    let store = Store::new();
    store.says("image save base:1 -o base.tar --format oci");
    // The configuration with more in it, under its new digest.
    let dir = store.scratch.dir("layout");
    crate::support::posix::run(
        "tar",
        ["-xf".as_ref(), store.path("base.tar").as_os_str(), "-C".as_ref(), dir.as_os_str()],
    );
    let blob =
        |digest: &str| dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let read = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let write = |value: &serde_json::Value| {
        let bytes = value.to_string();
        let digest = plyfs::store::Digest::of(bytes.as_bytes()).to_string();
        fs::write(blob(&digest), &bytes).unwrap();
        (digest, bytes.len())
    };
    let mut index = read(&dir.join("index.json"));
    let mut manifest = read(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let mut config = read(&blob(manifest["config"]["digest"].as_str().unwrap()));
    config["x-unknown"] = json!({ "kept": [1, null] });
    config["config"]["OnSomething"] = json!("kept");
    let steps = config["history"].as_array_mut().unwrap();
    steps.push(json!({ "created_by": "CMD x", "empty_layer": true, "x-step": 1 }));
    let (digest, size) = write(&config);
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let (digest, size) = write(&manifest);
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(size);
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    store.says("image load -q layout");
    let upper = store.scratch.dir("upper");
    fs::write(upper.join("new"), "x").unwrap();
    let id = store.says("commit --upper upper --image base:1 -c USER\u{a0}x new:1");
    let bytes = fs::read(
        store.path("store").join("blobs/sha256").join(id.trim().strip_prefix("sha256:").unwrap()),
    );
    let made: serde_json::Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
    assert_eq!(made["x-unknown"], json!({ "kept": [1, null] }));
    assert_eq!(made["config"]["OnSomething"], "kept");
    assert_eq!(made["config"]["User"], "x");
    assert_eq!(
        made["history"][1],
        json!({ "created_by": "CMD x", "empty_layer": true, "x-step": 1 })
    );
    assert_eq!(made["history"].as_array().unwrap().len(), 3);
    let rows = store.says("image history new:1");
    assert!(rows.lines().nth(2).unwrap().contains("0B"), "{rows}");
}

#[test]
fn wrong_words_store_nothing() {
    let store = Store::new();
    store.scratch.dir("upper");
    let refused = |words: &[&str]| {
        let output = store.command(words).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), line.trim_end().to_owned())
    };
    let base = ["commit", "--upper", "upper", "--image", "base:1"];
    let (status, line) = refused(&[&base[..], &["-c", "RUN x"]].concat());
    assert_eq!(status, 1);
    assert!(line.starts_with("plyfs: --change `RUN x`: it does not begin with one of"), "{line}");
    let (status, line) = refused(&["commit", "--upper", "upper", "--image", "none:1"]);
    assert_eq!((status, line.contains("no image `none:1`")), (3, true), "{line}");
    let (status, line) = refused(&["commit", "--upper", "absent", "--image", "base:1"]);
    assert_eq!((status, line.contains("absent")), (1, true), "{line}");
    assert_eq!(store.says("image ls -q").lines().count(), 1);
}
