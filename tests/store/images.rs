//! Loading, listing and saving, by the program.

use std::fs;
use std::process::Stdio;

use plyfs::store::Digest;
use serde_json::Value;

use crate::program::{Files, Program, TestImage, archive, gzip, zstd};
use crate::support::Tar;

#[test]
fn an_archive_takes_the_place_of_files_alone() {
    let program = Program::new();
    program.write("image.tar", &archive(&TestImage::small().old_docker("app")));
    program.says("image load -q image.tar");
    program.says("image save -q -o whole.tar app");
    let whole = fs::read(program.path("whole.tar")).unwrap();

    program.write("target", b"older");
    std::os::unix::fs::symlink("target", program.path("link")).unwrap();
    program.says("image save -q -o link app");
    assert!(fs::symlink_metadata(program.path("link")).unwrap().is_symlink());
    assert!(fs::read(program.path("target")).unwrap() == whole);

    // As /dev/null and /dev/stdout, which are the machine's.
    let pipe = program.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    // Open for both, so that nobody waits for the other side if nobody comes.
    let mut reader = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let length = whole.len();
    let reading = std::thread::spawn(move || {
        let mut read = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut read).map(|()| read)
    });
    program.says("image save -q -o pipe app");
    let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "the pipe was replaced: {kind:?}");
    assert!(reading.join().unwrap().unwrap() == whole);
}

#[test]
fn every_form_of_image_gives_the_same_image() {
    let image = TestImage::small();
    let plain: fn(&[u8]) -> Vec<u8> = |layer| layer.to_vec();
    let forms: [(&str, Vec<u8>); 7] = [
        ("old docker", archive(&image.old_docker("app:1"))),
        ("docker", archive(&image.docker("app:1"))),
        ("oci, uncompressed", archive(&image.oci("app:1", plain, ""))),
        ("oci, gzip", archive(&image.oci("app:1", gzip, "+gzip"))),
        ("oci, zstd", archive(&image.oci("app:1", zstd, "+zstd"))),
        // What the media type says does not count.
        ("oci, zstd called gzip", archive(&image.oci("app:1", zstd, "+gzip"))),
        ("compressed as a whole", gzip(&archive(&image.old_docker("docker.io/library/app:1")))),
    ];
    for (form, bytes) in forms {
        let program = Program::new();
        program.write("image.tar", &bytes);
        assert_eq!(program.says("image load image.tar"), "Loaded image: app:1\n", "{form}");
        let object = &program.json("image inspect app:1")[0];
        assert_eq!(object["Id"], image.id(), "{form}");
        assert_eq!(object["Size"], 5 + 4 + 11, "{form}");
        let layers: Vec<String> =
            image.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        assert_eq!(object["RootFS"]["Layers"], Value::from(layers), "{form}");
        assert!(program.says("store verify --full").ends_with("no problems\n"), "{form}");
        // Once more, from standard input, which need not be a file.
        let input = fs::File::open(program.path("image.tar")).unwrap();
        let mut cat = std::process::Command::new("cat");
        let mut cat = cat.stdin(input).stdout(Stdio::piped()).spawn().unwrap();
        let mut load = program.command("image load -");
        let output = load.stdin(cat.stdout.take().unwrap()).output().unwrap();
        cat.wait().unwrap();
        assert!(output.status.success());
        let known = String::from_utf8(output.stderr).unwrap();
        assert_eq!(known.matches(": Already exists").count(), 2, "{form}: {known}");
    }
}

#[test]
fn progress_is_lines_or_objects_or_nothing() {
    let image = TestImage::small();
    let program = Program::new();
    program.write("image.tar", &archive(&image.oci("app:1", gzip, "+gzip")));
    let output = program.run("image load --json image.tar");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let result = lines.pop().unwrap();
    assert_eq!((&result["name"], &result["image"]), (&"app:1".into(), &image.id().into()));
    for layer in &image.layers {
        let id = Digest::of(layer).to_string();
        let of: Vec<&Value> = lines.iter().filter(|line| line["id"] == id).collect();
        let size = gzip(layer).len();
        let told = |line: &Value| {
            (
                line["status"].as_str().unwrap().to_owned(),
                line["current"].clone(),
                line["total"].clone(),
            )
        };
        assert_eq!(told(of[0]), ("Loading layer".into(), 0.into(), size.into()));
        let last = of[of.len() - 1];
        assert_eq!(told(last), ("Load complete".into(), size.into(), size.into()));
    }
    let output = program.run("image load -q image.tar");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(program.fails("image load -q --json image.tar").0, 2);
}

#[test]
fn what_is_imported_and_saved_tells_of_it_too() {
    let program = Program::new();
    let tar = Tar::new().file("bin/sh", "shell").end();
    program.write("root.tar", &tar);
    program.write("root/bin/sh", b"shell");
    let objects = |words: &str| {
        let said = program.says(words);
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.collect::<Vec<_>>()
    };
    let statuses = |lines: &[Value]| {
        let mut words: Vec<String> =
            lines.iter().map(|line| line["status"].as_str().unwrap().to_owned()).collect();
        words.dedup();
        words
    };
    for (source, total) in [("root.tar", tar.len()), ("root", 0)] {
        let lines = objects(&format!("image import --json {source} base"));
        assert_eq!(statuses(&lines), ["Importing", "Import complete", "Imported image"]);
        assert_eq!((&lines[0]["id"], &lines[0]["total"]), (&Value::Null, &total.into()));
        assert_eq!(lines[lines.len() - 1]["image"], program.json("image inspect base")[0]["Id"]);
    }
    let layer = program.json("image inspect base")[0]["RootFS"]["Layers"][0].clone();
    for format in ["docker", "oci"] {
        let lines = objects(&format!("image save --json base -o saved.tar --format {format}"));
        assert_eq!(statuses(&lines), ["Saving layer", "Save complete"], "{format}");
        let last = &lines[lines.len() - 1];
        assert_eq!((&last["id"], &last["current"]), (&layer, &last["total"]));
        let output = program.run(&format!("image save base --format {format}"));
        let id = &layer.as_str().unwrap()[7..19];
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("{id}: Save complete\n"));
        assert_eq!(output.stdout, fs::read(program.path("saved.tar")).unwrap());
    }
    assert_eq!(program.fails("image save --json base").0, 2);
}

#[test]
fn a_terminal_has_bars() {
    let image = TestImage::small();
    let program = Program::new();
    program.write("image.tar", &archive(&image.oci("app:1", gzip, "+gzip")));
    // script(1) gives the program a terminal.
    let mut command = std::process::Command::new("script");
    let words = format!("{} image load image.tar", env!("CARGO_BIN_EXE_plyfs"));
    command.args(["-q", "-e", "-c", &words, "/dev/null"]).current_dir(program.dir.path());
    command.env("PLYFS_STORE", program.store()).env("TERM", "xterm").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for layer in &image.layers {
        let id = &Digest::of(layer).hex()[..12];
        assert!(text.contains(&format!("{id}: Load complete")), "{text:?}");
    }
    // A bar is drawn over itself.
    assert!(text.contains("\u{1b}["), "{text:?}");
    assert!(text.ends_with("Loaded image: app:1\r\n"), "{text:?}");
}

#[test]
fn a_directory_is_loaded_through_indexes() {
    let image = TestImage::small();
    let program = Program::new();
    let mut files = image.oci("ignored", gzip, "+gzip");
    let index: Value = serde_json::from_slice(&files[files.len() - 2].1).unwrap();
    let mut ours = index["manifests"][0].clone();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    ours["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
    let mut other = ours.clone();
    other["platform"]["architecture"] = "s390x".into();
    other["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let nested = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": [other, ours],
    });
    let nested: Vec<u8> = nested.to_string().into();
    let digest = Digest::of(&nested);
    let top = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": media_type, "digest": digest.to_string(), "size": nested.len(),
        "annotations": { "io.containerd.image.name": "docker.io/library/app:2" },
    }]});
    files.retain(|(name, _)| name != "index.json");
    files.push((format!("blobs/sha256/{}", digest.hex()), nested));
    files.push(("index.json".into(), top.to_string().into()));
    for (name, bytes) in &files {
        program.write(&format!("layout/{name}"), bytes);
    }
    assert_eq!(program.says("image load layout"), "Loaded image: app:2\n");
    assert_eq!(program.json("image inspect app:2")[0]["Id"], image.id());
}

/// skopeo writes each layer once, and symbolic links for the names that docker gave it.
#[test]
fn links_between_layer_names_are_followed_inside_the_archive() {
    let image = TestImage::small();
    let mut tar = Tar::new();
    for (at, (name, bytes)) in image.old_docker("app:1").iter().enumerate() {
        if name.ends_with("layer.tar") {
            tar = tar.entry(crate::support::Fields::new(b'0', &format!("{at}.tar")), bytes);
            tar = tar.symlink(name, &format!("../{at}.tar"));
        } else {
            tar = tar.entry(crate::support::Fields::new(b'0', name), bytes);
        }
    }
    let program = Program::new();
    program.write("image.tar", &tar.end());
    assert_eq!(program.says("image load -i image.tar"), "Loaded image: app:1\n");
    assert_eq!(program.json("image inspect app:1")[0]["Id"], image.id());
}

#[test]
fn what_is_saved_is_always_the_same_and_loads_elsewhere() {
    let image = TestImage::small();
    let files = image.oci("app:1", zstd, "+zstd");
    let [first, second] = [Program::new(), Program::new()];
    first.write("image.tar", &archive(&files));
    first.says("image load image.tar");
    for format in ["docker", "oci"] {
        first.says(&format!("image save app:1 -o saved.tar --format {format}"));
        let saved = fs::read(first.path("saved.tar")).unwrap();
        let output = first.run(&format!("image save --format {format} app:1"));
        assert!(output.stdout == saved, "{format}: not the same twice");
        fs::copy(first.path("saved.tar"), second.path("saved.tar")).unwrap();
        assert_eq!(second.says("image load saved.tar"), "Loaded image: app:1\n");
        let ids = |program: &Program| program.json("image inspect app:1")[0]["Id"].clone();
        assert_eq!(ids(&first), ids(&second));
        let members = members(&saved);
        let has = |bytes: &[u8]| members.iter().any(|(_, member)| member == bytes);
        match format {
            "docker" => assert!(image.layers.iter().all(|layer| has(layer)), "other layers"),
            // Blobs are those that came, manifests too.
            _ => assert!(files.iter().filter(|(n, _)| n.starts_with("blobs")).all(|(_, b)| has(b))),
        }
    }
    assert_eq!(second.fails("image save missing -o x.tar").0, 3);
    assert!(!second.path("x.tar").exists());
}

fn members(archive: &[u8]) -> Files {
    let mut archive = tar::Archive::new(archive);
    let member = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (name, bytes)
    };
    archive.entries().unwrap().map(member).collect()
}

#[test]
fn lists_have_the_columns_of_docker() {
    let image = TestImage::small();
    let program = Program::new();
    program.write("image.tar", &archive(&image.docker("registry.example:5000/app:1")));
    program.says("image load image.tar");
    let id = image.id();
    let short = &id[7..19];
    let lines = |words: &str| program.says(words).lines().map(words_of).collect::<Vec<_>>();
    let list = lines("image ls");
    assert_eq!(list[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    assert_eq!((&*list[1][0], &*list[1][1]), ("registry.example:5000/app", "1"));
    assert_eq!((&*list[1][2], &*list[1][4]), (short, "20B"));
    assert_eq!(program.says("image ls -q"), format!("{short}\n"));
    assert_eq!(program.says("image ls -q --no-trunc"), format!("{id}\n"));
    let line = program.json("image ls --format json");
    assert_eq!((&line["ID"], &line["Tag"]), (&short.into(), &"1".into()));

    let history = lines(&format!("image history {}", &id[7..12]));
    assert_eq!(history[0], ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    let cell = |row: usize, column: usize| history[row][column].as_str();
    assert_eq!([cell(1, 0), cell(1, 3), cell(1, 4)], [short, "11B", "built"]);
    // Nothing reaches the terminal raw.
    assert_eq!(cell(1, 2), "RUN make\\u{1b}[2J app");
    assert_eq!([cell(2, 0), cell(2, 3)], ["<missing>", "0B"]);
    assert_eq!(
        [cell(3, 0), cell(3, 2), cell(3, 3)],
        ["<missing>", "/bin/sh -c #(nop) ADD file:1 in /", "9B"]
    );
    assert!(!program.says("image inspect registry.example:5000/app:1").contains('\u{1b}'));
}

/// Cells are three spaces apart, or more.
fn words_of(line: &str) -> Vec<String> {
    line.split("   ").map(str::trim).filter(|word| !word.is_empty()).map(Into::into).collect()
}

#[test]
fn names_come_and_go() {
    let program = Program::new();
    program.write("1.tar", &archive(&TestImage::small().docker("one:1")));
    let base = TestImage { layers: TestImage::small().layers[..1].to_vec() };
    program.write("2.tar", &archive(&base.docker("two")));
    program.says("image load 1.tar");
    program.says("image load 2.tar");
    program.says("image tag one:1 three:3");
    let tree = program.says("image tree");
    assert!(tree.contains("├── two:latest") && tree.contains("└── one:1, three:3"), "{tree}");
    // A name moves to the image that has it now; the other stays, by its id.
    program.says("image tag one:1 two");
    let id = base.id()[7..19].to_owned();
    let list = program.says("image ls");
    assert!(list.lines().any(|line| line.contains("<none>") && line.contains(&id)), "{list}");
    assert_eq!(program.says("image rm three:3"), "Untagged: three:3\n");
    let (status, line) = program.fails(&format!("image rm {}", &TestImage::small().id()[7..]));
    assert_eq!(status, 1, "{line}");
    assert!(line.contains("has 2 names"), "{line}");
    assert_eq!(program.says("image rm two"), "Untagged: two:latest\n");
    let gone = program.says("image rm one:1");
    assert_eq!(gone, format!("Untagged: one:1\nDeleted: {}\n", TestImage::small().id()));
    assert_eq!(program.says(&format!("image rm {id}")), format!("Deleted: {}\n", base.id()));
    assert_eq!(program.fails("image rm one:1").0, 3);
    program.says("store gc");
    assert_eq!(program.stored(), [""; 0], "left after everything was removed");
}

#[test]
fn an_image_that_comes_again_with_other_blobs_is_listed_once() {
    let (program, image) = (Program::new(), TestImage::small());
    let forms: [(&str, Files); 3] = [
        ("docker", image.old_docker("app:1")),
        ("gzip", image.oci("app:1", gzip, "+gzip")),
        ("zstd", image.oci("app:1", zstd, "+zstd")),
    ];
    for (form, files) in &forms {
        program.write("image.tar", &archive(files));
        program.says("image load image.tar");
        let list = program.says("image ls");
        assert_eq!(list.lines().count(), 2, "{form}: {list}");
        assert!(!list.contains("<none>"), "{form}: {list}");
        assert_eq!(program.json("image inspect app:1")[0]["Id"], image.id(), "{form}");
    }
    // Of another image that has had the name a row stays.
    let base = TestImage { layers: image.layers[..1].to_vec() };
    program.write("image.tar", &archive(&base.old_docker("app:1")));
    program.says("image load image.tar");
    assert_eq!(program.says("image ls").matches("<none>   ").count(), 2);
}

#[test]
fn garbage_is_what_nothing_refers_to() {
    let program = Program::new();
    program.write("1.tar", &archive(&TestImage::small().docker("one")));
    let base = TestImage { layers: TestImage::small().layers[..1].to_vec() };
    program.write("2.tar", &archive(&base.docker("two")));
    program.says("image load 1.tar");
    program.says("image load 2.tar");
    program.says("image rm one");
    let would = program.says("store gc --dry-run");
    assert!(would.starts_with("Would remove 1 layer, 1 content, 3 blobs"), "{would}");
    assert_eq!(program.says("store gc"), would.replace("Would remove", "Removed"));
    assert!(program.says("store verify --full").contains("1 image, 1 layer, 2 contents: no prob"));
    // What a container or a mount names stays.
    program.says("image load 1.tar");
    let manifest = program.json("image inspect one")[0]["Digest"].as_str().unwrap().to_owned();
    program.says("image rm one");
    program
        .write("store/containers/c/meta.json", format!("{{\"image\":\"{manifest}\"}}").as_bytes());
    assert!(program.says("store gc").starts_with("Removed 0 layers, 0 contents, 0 blobs"));
    program.write("store/containers/c/meta.json", b"{");
    assert_eq!(program.fails("store gc").0, 4);
    assert!(program.says("store df").contains("Blobs"));
}

#[test]
fn root_filesystems_become_images() {
    let program = Program::new();
    let tar = Tar::new().dir("./").file("./bin/sh", "shell").end();
    program.write("root.tar.gz", &gzip(&tar));
    program.write("root/bin/sh", b"shell");
    std::os::unix::fs::symlink("sh", program.path("root/bin/link")).unwrap();
    fs::hard_link(program.path("root/bin/sh"), program.path("root/bin/same")).unwrap();
    let import = |words: &str| {
        let mut command = program.command(words);
        let output = command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let id = import("image import root.tar.gz base");
    let object = &program.json("image inspect base")[0];
    assert_eq!(object["Id"], id.trim());
    assert_eq!(object["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(object["RootFS"]["Layers"][0], Digest::of(&tar).to_string());
    // The same directory is the same image.
    assert_eq!(import("image import root dir:1"), import("image import root dir:2"));
    program.says("image save dir:1 -o saved.tar");
    let saved = fs::read(program.path("saved.tar")).unwrap();
    let layer = members(&saved).into_iter().find(|(name, _)| name.ends_with(".tar")).unwrap();
    let names: Vec<String> = members(&layer.1).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["./", "bin/", "bin/link", "bin/same", "bin/sh"]);
    program.write("root/.wh.x", b"");
    let (status, line) = program.fails("image import root dir:3");
    let expected = "plyfs: root: /.wh.x: in a layer such a name means a deletion";
    assert_eq!((status, line.as_str()), (1, expected));
    assert_eq!(program.fails("image import missing").0, 3);
    assert_eq!(program.fails("image import root UPPER").0, 1);
    assert_eq!(program.fails("image import").0, 2);
}

#[test]
fn a_store_is_private_and_takes_no_folder_of_others() {
    use std::os::unix::fs::PermissionsExt;
    let program = Program::new();
    program.write("image.tar", &archive(&TestImage::small().docker("one")));
    program.says("image load image.tar");
    let mode = fs::metadata(program.store()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    program.write("other/file", b"");
    let (status, line) = program.fails("image ls --store other");
    assert_eq!(status, 1);
    assert!(line.contains("it is neither empty nor a store"), "{line}");
    assert_eq!(fs::read_dir(program.path("other")).unwrap().count(), 1);
}
