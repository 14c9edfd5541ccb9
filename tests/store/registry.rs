//! A real registry (Debian's docker-registry): what we push others pull, and what they push we pull.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plyfs::store::Digest;
use serde_json::{Value, json};

use crate::peers::{is_missing, peer};
use crate::program::{Program, TestImage, archive, gzip, zstd};
use crate::server::{Reply, Server};
use crate::support::Tar;

/// A registry that ends with this, and a folder for who works with it.
struct Registry {
    program: Program,
    child: Child,
    port: String,
}

impl Registry {
    /// `None` if there is none on this machine.
    fn new() -> Option<Self> {
        Self::start(Program::new(), "", "")
    }

    /// With more in the section `http` of its configuration, and more sections.
    fn start(program: Program, http: &str, more: &str) -> Option<Self> {
        if is_missing("docker-registry") {
            return None;
        }
        let root = program.path("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'{http}}}\n{more}",
            root.display()
        );
        program.write("registry.yml", config.as_bytes());
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(program.path("registry.yml")).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let rest = line.split_once("listening on 127.0.0.1:")?.1;
            Some(rest.chars().take_while(char::is_ascii_digit).collect())
        });
        // It must not be stopped by a pipe that nobody reads.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { program, child, port: port.expect("it does not listen") })
    }

    /// One that lets in `user` with the password `secret` alone. The image `x` is there to be pushed to it.
    fn with_password() -> Option<Self> {
        let file = "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
        let program = Program::new();
        program.write("htpasswd", file.as_bytes());
        let path = program.path("htpasswd");
        let auth = format!("auth: {{htpasswd: {{realm: x, path: {}}}}}", text(&path));
        program.write("image.tar", &archive(&TestImage::small().oci("x", gzip, "+gzip")));
        program.says("image load -q image.tar");
        Self::start(program, "", &auth)
    }

    fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What must be the same everywhere.
fn ids(program: &Program, name: &str) -> [Value; 3] {
    let object = &program.json(&format!("image inspect {name}"))[0];
    [&object["Id"], &object["Digest"], &object["RootFS"]["Layers"]].map(Clone::clone)
}

#[test]
fn what_is_pushed_comes_back_the_same() {
    let Some(registry) = Registry::new() else { return };
    let (program, name) = (&registry.program, registry.name("x:1"));
    for compress in [gzip, zstd, <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>] {
        program.write("image.tar", &archive(&TestImage::small().oci("app:1", compress, "")));
        program.says("image load -q image.tar");
        program.says(&format!("image tag app:1 {name}"));
        let before = ids(program, &name);
        let said = program.says(&format!("image push {name}"));
        assert!(said.starts_with(&format!("1: digest: {} size: ", before[1].as_str().unwrap())));
        program.says("image rm app:1");
        program.says(&format!("image rm {name}"));
        program.says("store gc");
        assert_eq!(program.stored(), [""; 0]);
        let said = program.says(&format!("image pull {name}"));
        let expected = format!(
            "Digest: {}\nStatus: Downloaded newer image for {name}\n{name}\n",
            before[1].as_str().unwrap()
        );
        assert_eq!(said, expected);
        assert_eq!(ids(program, &name), before);
        assert!(program.says("store verify --full").ends_with("no problems\n"));
        // Sent once more, nothing needs to be sent; to another repository the registry takes it from the first.
        let layers = &TestImage::small().layers;
        let lines = |words: &str| {
            let mut lines: Vec<String> = Vec::new();
            let output = program.run(words);
            assert!(output.status.success());
            lines.extend(String::from_utf8(output.stderr).unwrap().lines().map(Into::into));
            lines[1..].sort();
            lines
        };
        let expected = |repository: &str, what: &str| {
            let head = format!("The push refers to repository [{}]", registry.name(repository));
            let line = |layer: &Vec<u8>| format!("{}: {what}", &Digest::of(layer).hex()[..12]);
            let mut lines: Vec<String> = layers.iter().map(line).collect();
            lines.sort();
            [vec![head], lines].concat()
        };
        let again = lines(&format!("image push {name}"));
        assert_eq!(again, expected("x", "Layer already exists"));
        let other = registry.name(&format!("team/y{}", compress(b"").len()));
        let mounted = lines(&format!("image push {name} {other}"));
        let repository = other.split_once('/').unwrap().1;
        assert_eq!(mounted, expected(repository, "Mounted from x"));
        program.says(&format!("image rm {name}"));
        program.says("store gc");
    }
}

/// An image as large projects have them: seven layers, and steps between them that made none.
#[test]
fn seven_layers_come_one_by_one() {
    let Some(registry) = Registry::new() else { return };
    let program = &registry.program;
    let layer = |at: usize| Tar::new().file(&format!("opt/{at}"), &"x".repeat(1 << at)).end();
    let image = TestImage { layers: (0..7).map(layer).collect() };
    let steps = [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1];
    let history: Vec<Value> = steps
        .iter()
        .map(|empty| serde_json::json!({ "created_by": "RUN step", "empty_layer": *empty == 1 }))
        .collect();
    let mut config: Value = serde_json::from_slice(&image.config()).unwrap();
    config["history"] = history.into();
    let config = config.to_string();
    let name = registry.name("coreos/flannel:v0.14.0");
    program.write("image.tar", &archive(&image.oci_of(config.as_bytes(), &name, gzip, "+gzip")));
    program.says("image load -q image.tar");
    program.says(&format!("image push -q {name}"));
    let other = Program::new();
    let output = other.run(&format!("image pull {name}"));
    let text = String::from_utf8(output.stderr).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.remove(0), "v0.14.0: Pulling from coreos/flannel");
    lines.sort_unstable();
    let blobs = image.layers.iter().map(|layer| Digest::of(&gzip(layer)).hex());
    let mut expected: Vec<String> =
        blobs.map(|blob| format!("{}: Pull complete", &blob[..12])).collect();
    expected.sort();
    assert_eq!(lines, expected);
    let text = String::from_utf8(output.stdout).unwrap();
    let digest = ids(program, &name)[1].as_str().unwrap().to_owned();
    let status = format!("Status: Downloaded newer image for {name}");
    assert_eq!(text, format!("Digest: {digest}\n{status}\n{name}\n"));
    let [id, _, layers] = ids(&other, &name);
    assert_eq!(id, Digest::of(config.as_bytes()).to_string());
    let diff_ids = image.layers.iter().map(|layer| Digest::of(layer).to_string());
    assert_eq!(layers, Value::from(diff_ids.collect::<Vec<_>>()));
    let history = other.says(&format!("image history {name}"));
    assert_eq!(
        history.lines().filter(|line| line.contains(" 0B ") || line.ends_with(" 0B")).count(),
        4,
        "{history}"
    );
    assert_eq!(history.lines().count(), 12);
}

#[test]
fn other_programs_pull_what_we_push() {
    let Some(registry) = Registry::new() else { return };
    let program = &registry.program;
    let image = TestImage::small();
    let name = registry.name("x:1");
    program.write("image.tar", &archive(&image.oci(&name, gzip, "+gzip")));
    program.says("image load -q image.tar");
    program.says(&format!("image push -q {name}"));
    let docker = format!("docker://{name}");
    let words = ["skopeo", "copy", "-q", "--src-tls-verify=false", &docker, "oci:copy:app:1"];
    if peer(program, &words).is_some() {
        let other = Program::new();
        other.says(&format!("image load -q {}", text(&program.path("copy"))));
        assert_eq!(ids(&other, "app:1"), ids(program, &name));
    }
    // podman refuses one with a path of more than 50 characters.
    let run = tempfile::tempdir().unwrap();
    let root = program.path("podman");
    let places = ["--root", text(&root), "--runroot", text(run.path()), "--storage-driver", "vfs"];
    let pull = ["pull", "-q", "--tls-verify=false", &name];
    let Some(id) = peer(program, &[&["podman"], &places[..], &pull].concat()) else { return };
    assert_eq!(format!("sha256:{}", id.trim()), image.id());
}

#[test]
fn we_pull_what_other_programs_push() {
    let Some(registry) = Registry::new() else { return };
    let program = &registry.program;
    let image = TestImage::small();
    for (form, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        for (name, bytes) in image.oci("app:1", compress, &format!("+{form}")) {
            program.write(&format!("{form}/{name}"), &bytes);
        }
        let name = registry.name(&format!("{form}:1"));
        let (source, target) = (format!("oci:{form}:app:1"), format!("docker://{name}"));
        let words = ["skopeo", "copy", "-q", "--dest-tls-verify=false", &source, &target];
        if peer(program, &words).is_none() {
            return;
        }
        let other = Program::new();
        other.says(&format!("image pull -q {name}"));
        assert_eq!(ids(&other, &name)[0], image.id(), "{form}");
        assert!(other.says("store verify --full").ends_with("no problems\n"));
        // What was pulled goes back as it came.
        let before = ids(&other, &name);
        let back = registry.name(&format!("back/{form}:1"));
        other.says(&format!("image push -q {name} {back}"));
        let third = Program::new();
        third.says(&format!("image pull -q {back}"));
        assert_eq!(ids(&third, &back), before, "{form}");
    }
    // As docker writes manifests.
    program.write("image.tar", &archive(&image.docker("app:1")));
    let target = format!("docker://{}", registry.name("docker:1"));
    let words = [
        "skopeo",
        "copy",
        "-q",
        "--dest-tls-verify=false",
        "--format",
        "v2s2",
        "docker-archive:image.tar",
        &target,
    ];
    peer(program, &words);
    let other = Program::new();
    other.says(&format!("image pull -q {}", registry.name("docker:1")));
    assert_eq!(ids(&other, &registry.name("docker:1"))[0], image.id());
}

/// Makes a certificate for this machine that nobody trusts; false if that cannot be done here.
fn has_certificate(program: &Program) -> bool {
    let request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    peer(program, &request).is_some()
}

#[test]
fn certificates_are_verified() {
    let program = Program::new();
    if !has_certificate(&program) {
        return;
    }
    let (key, certificate) = (program.path("key.pem"), program.path("cert.pem"));
    let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let Some(registry) = Registry::start(program, &tls, "") else { return };
    let program = &registry.program;
    program.write("image.tar", &archive(&TestImage::small().oci("x", gzip, "+gzip")));
    program.says("image load -q image.tar");
    let push = |more: &str, certificate: Option<&Path>| {
        let mut command = program.command(&format!("image push x {}{more}", registry.name("x:1")));
        command.env_remove("SSL_CERT_FILE");
        if let Some(certificate) = certificate {
            command.env("SSL_CERT_FILE", certificate);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, line) = push("", None);
    assert_eq!(status, Some(1), "{line}");
    assert!(line.contains("certificate"), "{line}");
    for (more, certificate) in [
        ("", Some(&*certificate)),
        (" --tls-verify=false", None),
        (" --tls-verify", Some(&*certificate)),
    ] {
        let (status, line) = push(more, certificate);
        assert_eq!(status, Some(0), "{more}: {line}");
    }
}

/// A server that speaks TLS and answers with the files below `program`'s folder.
struct Secure {
    child: Child,
    port: String,
}

impl Secure {
    fn new(program: &Program) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-HTTP"]);
        command.args(["-cert", "cert.pem", "-key", "key.pem"]).current_dir(program.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            line.unwrap().strip_prefix("ACCEPT 127.0.0.1:").map(ToOwned::to_owned)
        });
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port: port.expect("it does not listen") }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What began over TLS does not go on in the clear: neither content nor credentials (CVE-2019-10214).
#[test]
fn nothing_goes_on_without_tls() {
    let program = Program::new();
    if !has_certificate(&program) {
        return;
    }
    let server = Secure::new(&program);
    let auth =
        format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, server.port);
    program.write("auth.json", auth.as_bytes());
    for (tag, head) in
        [("redirect", "307 x\r\nLocation: "), ("token", "401 x\r\nWWW-Authenticate: Bearer realm=")]
    {
        let plain = Server::new(|_| Reply::new(404, b""));
        let answer = format!("HTTP/1.0 {head}http://127.0.0.1:{}/\r\n\r\n", plain.port);
        program.write(&format!("v2/x/manifests/{tag}"), answer.as_bytes());
        let pull = |more: &str| {
            let name = format!("127.0.0.1:{}/x:{tag}", server.port);
            let mut command = program.command(&format!("pull {name} --authfile auth.json{more}"));
            let output = command.env("SSL_CERT_FILE", program.path("cert.pem")).output().unwrap();
            assert!(!output.status.success(), "{tag}");
            String::from_utf8(output.stderr).unwrap()
        };
        let line = pull("");
        assert!(line.contains("which is not safe (see --tls-verify)"), "{line}");
        assert_eq!(plain.asked().len(), 0, "{tag}");
        // Whoever wants that can have it.
        let line = pull(" --tls-verify=false");
        assert!(line.contains("404"), "{line}");
        let asked = plain.asked_for("");
        assert_eq!(asked.len(), 1, "{tag}");
        assert_eq!(asked[0].header("authorization").is_some(), tag == "token");
    }
}

#[test]
fn credentials_let_in() {
    let Some(registry) = Registry::with_password() else { return };
    let (program, name) = (&registry.program, registry.name("x:1"));
    let (status, line) = program.fails(&format!("image push x {name}"));
    assert_eq!(status, 1);
    assert!(line.contains("it wants credentials: `podman login 127.0.0.1:"), "{line}");
    // As skopeo leaves them.
    let login = [
        "skopeo",
        "login",
        "--tls-verify=false",
        "--authfile",
        "auth.json",
        "-u",
        "user",
        "-p",
        "secret",
        &name[..name.find('/').unwrap()],
    ];
    if peer(program, &login).is_none() {
        return;
    }
    program.says(&format!("image push x {name} --authfile auth.json"));
    let mut command = program.command(&format!("image pull -q {name}"));
    let output = command.env("REGISTRY_AUTH_FILE", program.path("auth.json")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = std::fs::read_to_string(program.path("auth.json")).unwrap();
    program.write("auth.json", wrong.replace("ZXQ=", "ZXU=").as_bytes());
    let (status, line) = program.fails(&format!("image pull {name} --authfile auth.json"));
    assert_eq!(status, 1, "{line}");
    assert!(line.contains("401"), "{line}");
}

/// As `docker login` leaves them where a program keeps them: the file has none.
#[test]
fn programs_that_keep_credentials_let_in() {
    let Some(registry) = Registry::with_password() else { return };
    let (program, name) = (&registry.program, registry.name("x:1"));
    program.says(&format!("image push x {name} --creds user:secret"));
    let (status, line) = program.fails(&format!("image push x {name} --creds user"));
    assert!(status == 2 && line.contains("it is not USER:PASSWORD"), "{line}");

    let host = &name[..name.find('/').unwrap()];
    let script = |name: &str, says: &str| {
        let text = format!("#!/bin/sh\n[ \"$1 $(cat)\" = 'get {host}' ] || exit 7\n{says}\n");
        let path = format!("bin/docker-credential-{name}");
        program.write(&path, text.as_bytes());
        std::fs::set_permissions(program.path(&path), PermissionsExt::from_mode(0o755)).unwrap();
    };
    script("good", r#"echo '{"ServerURL":"x","Username":"user","Secret":"secret"}'"#);
    script("empty", "echo 'credentials not found in native keychain'; exit 1");
    script("broken", "echo 'no keyring'; exit 1");
    script("odd", "echo secret");
    let pull = |config: &serde_json::Value| {
        program.write("docker/config.json", config.to_string().as_bytes());
        let path = format!("{}:{}", text(&program.path("bin")), std::env::var("PATH").unwrap());
        let mut command = program.command(&format!("image pull -q {name}"));
        command.env("DOCKER_CONFIG", program.path("docker")).env("PATH", path);
        command.env_remove("REGISTRY_AUTH_FILE").env("HOME", program.path(""));
        command.env("XDG_RUNTIME_DIR", program.path("")).env_remove("XDG_CONFIG_HOME");
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let entry = json!({ host: { "auth": "dXNlcjpzZWNyZXQ=" } });
    for config in [
        json!({ "credsStore": "good", "auths": { host: {} } }),
        json!({ "credsStore": "broken", "credHelpers": { host: "good" } }),
        json!({ "credsStore": "good", "credHelpers": { "other.example": "broken" } }),
        json!({ "credsStore": "empty", "auths": entry }),
    ] {
        assert_eq!(pull(&config), (true, String::new()), "{config}");
    }
    for (config, why) in [
        (json!({ "credsStore": "empty" }), ""),
        (json!({ "credsStore": "broken" }), "docker-credential-broken: no keyring"),
        (json!({ "credsStore": "odd" }), "docker-credential-odd: its answer is no credentials"),
        (json!({ "credsStore": "none" }), "docker-credential-none: No such file or directory"),
        (json!({ "credsStore": "/x" }), "no name of a program that keeps credentials"),
    ] {
        let (done, lines) = pull(&config);
        assert!(!done && lines.contains("it wants credentials"), "{config}: {lines}");
        assert!(lines.contains(why), "{config}: {lines}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
