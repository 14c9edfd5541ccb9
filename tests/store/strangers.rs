//! Registries that misbehave: nothing of them is believed, and nobody gets credentials that are not theirs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfs::store::Digest;
use serde_json::{Value, json};

use crate::program::{Program, TestImage, gzip};
use crate::server::{Asked, Reply, Server, Shelf};
use crate::support::Tar;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn plain(layer: &[u8]) -> Vec<u8> {
    layer.to_vec()
}

fn shelf() -> Shelf {
    Shelf::new(&TestImage::small().oci("x", gzip, "+gzip"), "1")
}

fn is_blob(asked: &Asked) -> bool {
    asked.path.contains("/blobs/")
}

fn digest_of_layer(at: usize) -> String {
    Digest::of(&gzip(&TestImage::small().layers[at])).to_string()
}

/// Whether the image is there, and in order.
fn is_complete(program: &Program, name: &str) {
    assert_eq!(program.json(&format!("image inspect {name}"))[0]["Id"], TestImage::small().id());
    assert!(program.says("store verify --full").ends_with("no problems\n"));
}

/// Pulls what must be refused: with this status and this in the line; nothing is left.
fn refused(server: &Server, status: i32, part: &str) {
    let program = Program::new();
    let (exit, line) = program.fails(&format!("image pull {}", server.name("x:1")));
    assert!(line.contains(part), "{line}");
    assert_eq!(exit, status, "{line}");
    assert_eq!(program.stored(), [""; 0], "{line}");
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    for knows_ranges in [true, false] {
        let shelf = shelf();
        let server = Server::new(move |asked| {
            let mut asked = asked.clone();
            let again = asked.header("range").is_some();
            if !knows_ranges {
                asked.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
            }
            let cut = (is_blob(&asked) && !again).then_some(60);
            Reply { cut, ..shelf.answer(&asked) }
        });
        let program = Program::new();
        program.says(&format!("image pull {}", server.name("x:1")));
        is_complete(&program, &server.name("x:1"));
        let asked = server.asked_for(&digest_of_layer(0));
        let ranges: Vec<_> = asked.iter().map(|asked| asked.header("range")).collect();
        assert_eq!(ranges, [None, Some("bytes=60-")]);
    }
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    let shelf = shelf();
    let server = Server::new(move |asked| {
        let cut = is_blob(asked).then_some(0);
        Reply { cut, ..shelf.answer(asked) }
    });
    refused(&server, 1, "the connection broke at 0 of ");
    // The configuration comes first.
    assert_eq!(server.asked_for("/blobs/").len(), 5);
}

#[test]
fn wrong_bytes_and_wrong_lengths_are_refused() {
    let layout = TestImage::small().oci("x", plain, "");
    let layer = TestImage::small().layers[0].clone();
    let damaged = {
        let mut damaged = layer.clone();
        let at = damaged.windows(5).position(|bytes| bytes == b"shell").unwrap();
        damaged[at] = b'S';
        damaged
    };
    let blob = format!("/blobs/{}", Digest::of(&layer));
    for (bytes, status, part) in [
        (damaged, 4, "as the configuration says"),
        ([&layer[..], b"more"].concat(), 4, "bytes, and not"),
        (layer[..512].to_vec(), 4, "bytes, and not"),
    ] {
        let (shelf, blob) = (Shelf::new(&layout, "1"), blob.clone());
        let server = Server::new(move |asked| match asked.path.ends_with(&blob) {
            true => Reply::new(200, &bytes),
            false => shelf.answer(asked),
        });
        refused(&server, status, part);
    }
    // Without a length there is only the digest.
    let shelf = Shelf::new(&layout, "1");
    let server = Server::new(move |asked| match asked.path.ends_with(&blob) {
        true => Reply { endless: true, ..Reply::new(200, b"") },
        false => shelf.answer(asked),
    });
    refused(&server, 1, "layer sha256:");
}

#[test]
fn manifests_are_bounded_and_what_they_are_called() {
    let shelf = shelf();
    let (media_type, bytes) = shelf.things["manifests/1"].clone();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let both = text.replacen('{', "{\"manifests\":[],", 1).into_bytes();
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let wrong = Digest::of(b"").to_string();
    let cases: [(Reply, i32, &str); 6] = [
        (Reply { endless: true, ..Reply::new(200, b"{") }, 1, "longer than 4194304 bytes"),
        (Reply::new(200, &both).with("Content-Type", MANIFEST), 1, "is an index too"),
        (Reply::new(200, &bytes).with("Content-Type", docker), 1, "not of the type"),
        (Reply::new(200, &bytes).with("Content-Type", INDEX), 1, "not of the type"),
        (
            Reply::new(200, &bytes)
                .with("Content-Type", &media_type)
                .with("Docker-Content-Digest", &wrong),
            4,
            "manifest 1: it is sha256:",
        ),
        (Reply::new(200, b"[]").with("Content-Type", "text/html"), 1, "manifest"),
    ];
    for (reply, status, part) in cases {
        let shelf = shelf.clone();
        let server = Server::new(move |asked| match asked.path.ends_with("/manifests/1") {
            true => reply.clone(),
            false => shelf.answer(asked),
        });
        refused(&server, status, part);
    }
}

#[test]
fn what_a_registry_says_does_not_reach_the_terminal_raw() {
    let server = Server::new(|asked| match asked.path == "/v2/" {
        true => Reply::new(200, b""),
        false => Shelf::default().answer(asked),
    });
    refused(&server, 3, "manifest 1: 404 (not\\u{1b}[2J here)");
}

#[test]
fn a_registry_that_is_busy_is_asked_again_when_it_says() {
    let shelf = shelf();
    let times = AtomicU32::new(0);
    let server = Server::new(move |asked| {
        if asked.path.ends_with("/manifests/1") {
            match times.fetch_add(1, Ordering::Relaxed) {
                0 => return Reply::new(429, b"").with("Retry-After", "1"),
                1 => return Reply::new(503, b"").with("Retry-After", "nonsense"),
                _ => {}
            }
        }
        shelf.answer(asked)
    });
    let program = Program::new();
    program.says(&format!("image pull {}", server.name("x:1")));
    let asked = server.asked_for("/manifests/1");
    assert_eq!(asked.len(), 3);
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1));
    let busy = Server::new(|asked| match asked.path == "/v2/" {
        true => Reply::new(200, b""),
        false => Reply::new(503, b""),
    });
    refused(&busy, 1, "manifest 1: 503");
    assert_eq!(busy.asked_for("/manifests/").len(), 5);
}

/// A program with credentials for this server.
fn logged_in(server: &Server) -> Program {
    let program = Program::new();
    let auth = STANDARD.encode("user:secret");
    let auths = json!({ "auths": { format!("127.0.0.1:{}", server.port): { "auth": auth } } });
    program.write("auth.json", auths.to_string().as_bytes());
    program
}

fn pull(program: &Program, name: &str) -> (Option<i32>, String) {
    let mut command = program.command(&format!("image pull --authfile auth.json {name}"));
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn credentials_stay_with_the_registry_that_they_are_for() {
    let things = shelf();
    let elsewhere = Server::new(move |asked| things.answer(asked));
    let port = elsewhere.port;
    let things = shelf();
    let server = Server::new(move |asked| {
        if asked.header("authorization") != Some("Basic dXNlcjpzZWNyZXQ=") {
            return Reply::new(401, b"").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match is_blob(asked) {
            true => Reply::new(307, b"")
                .with("Location", &format!("http://127.0.0.1:{port}{}", asked.path)),
            false => things.answer(asked),
        }
    });
    let program = logged_in(&server);
    let (status, text) = pull(&program, &server.name("x:1"));
    assert_eq!(status, Some(0), "{text}");
    is_complete(&program, &server.name("x:1"));
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
    // For another registry there are none.
    let (status, text) = pull(&logged_in(&elsewhere), &server.name("x:1"));
    assert_eq!(status, Some(1));
    assert!(text.contains("it wants credentials"), "{text}");
}

/// Where a redirect leads nobody may ask for them either (CVE-2020-15157).
#[test]
fn who_is_redirected_to_gets_no_token() {
    let realm = Server::new(|_| Reply::new(200, br#"{"token":"t"}"#));
    let challenge = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", realm.port);
    let elsewhere = Server::new(move |_| Reply::new(401, b"").with("WWW-Authenticate", &challenge));
    let place = format!("http://127.0.0.1:{}/", elsewhere.port);
    let things = shelf();
    let server = Server::new(move |asked| match is_blob(asked) {
        true => Reply::new(302, b"").with("Location", &place),
        false => things.answer(asked),
    });
    let program = logged_in(&server);
    let (status, text) = pull(&program, &server.name("x:1"));
    assert_eq!(status, Some(1), "{text}");
    assert_eq!(elsewhere.asked().len(), 1);
    assert_eq!(realm.asked().len(), 0);
    assert_eq!(program.stored(), [""; 0]);
}

/// Addresses of layers in a manifest are not used.
#[test]
fn foreign_layers_are_asked_of_the_registry_alone() {
    let elsewhere = Server::new(|_| Reply::new(200, b""));
    let mut things = shelf();
    let (media_type, bytes) = things.things["manifests/1"].clone();
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let address = format!("http://127.0.0.1:{}/layer", elsewhere.port);
    manifest["layers"][0]["urls"] = json!([address]);
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    things.things.remove(&format!("blobs/{digest}"));
    things.manifest("1", &media_type, manifest.to_string().as_bytes());
    let server = Server::new(move |asked| things.answer(asked));
    refused(&server, 3, &digest);
    assert_eq!(elsewhere.asked().len(), 0);
}

/// A server of tokens, and a registry that wants one of its tokens.
fn token_flow(realm: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Server, Server) {
    let realm = Server::new(realm);
    let challenge = format!(
        "Bearer realm=\"http://127.0.0.1:{}/token?x=y\",service=\"the registry\"",
        realm.port
    );
    let things = shelf();
    let server = Server::new(move |asked| match asked.header("authorization") {
        Some("Bearer good") => things.answer(asked),
        _ => Reply::new(401, b"").with("WWW-Authenticate", &challenge),
    });
    (realm, server)
}

#[test]
fn tokens_are_fetched_where_the_registry_says() {
    let (realm, server) = token_flow(|_| Reply::new(200, br#"{"access_token":"good"}"#));
    let program = logged_in(&server);
    let (status, text) = pull(&program, &server.name("a/x:1"));
    assert_eq!(status, Some(0), "{text}");
    let [asked] = &realm.asked()[..] else { panic!("{:?}", realm.asked()) };
    let path = "/token?x=y&service=the%20registry&account=user&scope=repository%3Aa%2Fx%3Apull";
    assert_eq!(asked.path, path);
    assert_eq!(asked.header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    // Those who have no credentials get a token of nobody.
    let program = Program::new();
    program.says(&format!("image pull {}", server.name("a/x:1")));
    assert_eq!(realm.asked()[1].header("authorization"), None);
    // The token that a login left is given for the one that lets in.
    let auths =
        json!({ "auths": { format!("127.0.0.1:{}", server.port): { "identitytoken": "i&d" } } });
    let program = Program::new();
    program.write("auth.json", auths.to_string().as_bytes());
    assert_eq!(pull(&program, &server.name("a/x:1")).0, Some(0));
    let form = String::from_utf8(realm.asked()[2].body.clone()).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.ends_with("=i%26d"), "{form}");
}

#[test]
fn a_token_that_has_grown_old_is_replaced() {
    let times = AtomicU32::new(0);
    let realm = Server::new(move |_| {
        let token = json!({ "token": format!("t{}", times.fetch_add(1, Ordering::Relaxed)) });
        Reply::new(200, token.to_string().as_bytes())
    });
    let challenge = format!("Bearer realm=\"http://127.0.0.1:{}/\"", realm.port);
    let things = shelf();
    let server = Server::new(move |asked| {
        let old = asked.header("authorization").is_none_or(|token| token == "Bearer t0");
        match is_blob(asked) || asked.path == "/v2/" {
            true if old => Reply::new(401, b"").with("WWW-Authenticate", &challenge),
            _ => things.answer(asked),
        }
    });
    let program = Program::new();
    program.says(&format!("pull {}", server.name("x:1")));
    is_complete(&program, &server.name("x:1"));
    assert_eq!(realm.asked().len(), 2);
}

#[test]
fn servers_of_tokens_are_strangers_too() {
    for (reply, part) in [
        (Reply::new(403, b""), "403"),
        (Reply::new(200, b"{}"), "there is none in the answer"),
        (Reply::new(200, b"<html>"), "it is no JSON"),
        (Reply { endless: true, ..Reply::new(200, b"{") }, "longer than 1048576 bytes"),
        (Reply::new(302, b"").with("Location", "http://127.0.0.1:1/"), "302"),
        (Reply::new(200, b"{\"token\":\"a\\nb\"}"), "no request"),
        // The registry does not want it.
        (Reply::new(200, br#"{"token":"bad"}"#), "it wants credentials"),
    ] {
        let (_realm, server) = token_flow(move |_| reply.clone());
        refused(&server, 1, part);
    }
}

/// Credentials do not leave the machine in the clear (CVE-2019-10214).
#[test]
fn an_unsafe_server_of_tokens_gets_nothing() {
    for realm in ["http://192.0.2.1/token", "http://localhost.example/", "ftp://127.0.0.1/", "x"] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let server =
            Server::new(move |_| Reply::new(401, b"").with("WWW-Authenticate", &challenge));
        let program = logged_in(&server);
        let (status, text) = pull(&program, &server.name("x:1"));
        assert_eq!(status, Some(1));
        let refused = ["not safe", "an address that is none"];
        assert!(refused.iter().any(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn the_image_for_a_platform_is_found_in_indexes() {
    let ours = shelf();
    let mut shelf = ours.clone();
    let (media_type, bytes) = ours.things["manifests/1"].clone();
    let other = TestImage { layers: vec![Tar::new().file("other", "machine").end()] };
    let theirs = Shelf::new(&other.oci("x", gzip, "+gzip"), "theirs");
    shelf.things.extend(theirs.things.clone());
    let entry = |bytes: &[u8], architecture: &str| {
        json!({
            "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    for index_type in [INDEX, list] {
        let index = json!({
            "schemaVersion": 2, "mediaType": index_type,
            "manifests": [entry(&theirs.things["manifests/theirs"].1, "s390x"), entry(&bytes, here)],
        });
        let index = index.to_string();
        shelf.manifest("1", index_type, index.as_bytes());
        let things = shelf.clone();
        let server = Server::new(move |asked| things.answer(asked));
        let name = server.name("x:1");
        let program = Program::new();
        let text = program.says(&format!("image pull {name}"));
        let digest = Digest::of(index.as_bytes());
        assert!(text.starts_with(&format!("Digest: {digest}\n")), "{text}");
        is_complete(&program, &name);
        assert!(program.says(&format!("image pull {name}")).contains("Image is up to date"));
        program.says(&format!("image pull {} --platform linux/s390x", server.name("x:1")));
        assert_eq!(program.json(&format!("image inspect {name}"))[0]["Id"], other.id());
        let (status, line) = program.fails(&format!("image pull {name} --platform linux/arm/v7"));
        assert_eq!(status, 3, "{line}");
        // By the digest of the index, without a name.
        let by_digest = server.name(&format!("x@{digest}"));
        let program = Program::new();
        let said = program.says(&format!("image pull -q {by_digest}"));
        assert_eq!(said, format!("{by_digest}\n"));
        assert_eq!(
            program.json(&format!("image inspect {}", &TestImage::small().id()[7..]))[0]["RepoTags"],
            json!([])
        );
    }
}

#[test]
fn layers_that_are_there_are_not_asked_for() {
    let things = shelf();
    let server = Server::new(move |asked| things.answer(asked));
    let program = Program::new();
    let base = TestImage { layers: TestImage::small().layers[..1].to_vec() };
    program.write("base.tar", &crate::program::archive(&base.oci("base", gzip, "+gzip")));
    program.says("image load -q base.tar");
    let output = program.run(&format!("image pull {}", server.name("x:1")));
    let text = String::from_utf8(output.stderr).unwrap();
    let short = |at: usize| digest_of_layer(at)[7..19].to_owned();
    let expected =
        format!("1: Pulling from x\n{}: Already exists\n{}: Pull complete\n", short(0), short(1));
    assert_eq!(text, expected);
    assert_eq!(server.asked_for(&digest_of_layer(0)).len(), 0);
    is_complete(&program, &server.name("x:1"));
    // Under the same name nothing but the manifest is asked for.
    let before = server.asked().len();
    let text = program.says(&format!("image pull {}", server.name("x:1")));
    assert!(text.contains("Status: Image is up to date for 127.0.0.1:"), "{text}");
    let again: Vec<String> =
        server.asked()[before..].iter().map(|asked| asked.path.clone()).collect();
    assert_eq!(again, ["/v2/", "/v2/x/manifests/1"]);
}

/// More would take memory, fewer would wait for each other.
#[test]
fn three_layers_come_at_a_time() {
    let layer = |at: usize| Tar::new().file(&format!("{at}"), "content").end();
    let image = TestImage { layers: (0..8).map(layer).collect() };
    let things = Shelf::new(&image.oci("x", gzip, "+gzip"), "1");
    let layers: Vec<String> =
        image.layers.iter().map(|layer| Digest::of(&gzip(layer)).to_string()).collect();
    let (now, most) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicU32::new(0)));
    let seen = most.clone();
    let server = Server::new(move |asked| {
        if layers.iter().any(|layer| asked.path.ends_with(layer)) {
            let (count, changed) = &*now;
            let mut count = count.lock().unwrap();
            *count += 1;
            seen.fetch_max(*count, Ordering::Relaxed);
            changed.notify_all();
            // The first three wait for each other, with a limit for the case that they never come.
            let limit = Duration::from_secs(20);
            let few = |_: &mut u32| seen.load(Ordering::Relaxed) < 3;
            count = changed.wait_timeout_while(count, limit, few).unwrap().0;
            *count -= 1;
        }
        things.answer(asked)
    });
    let program = Program::new();
    let text = program.says(&format!("pull {}", server.name("x:1")));
    assert_eq!(most.load(Ordering::Relaxed), 3);
    // Its digest is as good as its name.
    let digest = text.lines().next().unwrap().strip_prefix("Digest: ").unwrap();
    let object = &program.json(&format!("image inspect any/name:1@{digest}"))[0];
    assert_eq!(object["Id"], image.id());
    let (status, _) = program.fails(&format!("image inspect x@{}", Digest::of(b"")));
    assert_eq!(status, 3);
}

#[test]
fn progress_can_be_read_by_programs() {
    let things = shelf();
    let server = Server::new(move |asked| things.answer(asked));
    let program = Program::new();
    let text = program.says(&format!("image pull --json {}", server.name("x:1")));
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let result = lines.pop().unwrap();
    assert_eq!(result["image"], TestImage::small().id());
    for at in 0..2 {
        let id = digest_of_layer(at);
        let size = gzip(&TestImage::small().layers[at]).len();
        let mut of = lines.iter().filter(|line| line["id"] == id.as_str());
        let mut statuses: Vec<&str> =
            of.clone().map(|line| line["status"].as_str().unwrap()).collect();
        statuses.dedup();
        assert_eq!(statuses, ["Pulling fs layer", "Downloading", "Extracting", "Pull complete"]);
        assert!(of.clone().all(|line| line["total"] == size), "{lines:?}");
        assert!(of.next_back().unwrap()["current"] == size);
    }
}

#[test]
fn an_upload_that_breaks_is_made_again() {
    let times = AtomicU32::new(0);
    let server = Server::new(move |asked| match asked.method.as_str() {
        "HEAD" => Reply::new(404, b""),
        "POST" => Reply::new(202, b"").with("Location", "/v2/x/upload?state=1"),
        "PUT" if asked.path.contains("/manifests/") => Reply::new(201, b""),
        "PUT" => match times.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::new(503, b""),
            1 => Reply::new(404, b""),
            _ => Reply::new(201, b""),
        },
        _ => Reply::new(200, b""),
    });
    let program = Program::new();
    let base = TestImage { layers: TestImage::small().layers[..1].to_vec() };
    program.write("base.tar", &crate::program::archive(&base.oci("base", gzip, "+gzip")));
    program.says("image load -q base.tar");
    program.says(&format!("push base {}", server.name("x:1")));
    let asked = server.asked();
    let layer = gzip(&base.layers[0]);
    let puts: Vec<&Asked> = asked.iter().filter(|asked| asked.method == "PUT").collect();
    assert_eq!(puts.len(), 5);
    assert!(puts[..3].iter().all(|put| put.body == layer));
    assert_eq!(puts[3].body, base.config());
    let digest = Digest::of(&layer).to_string().replace(':', "%3A");
    assert_eq!(puts[0].path, format!("/v2/x/upload?state=1&digest={digest}"));
    // Everything that it names is there before the manifest.
    assert!(asked.last().unwrap().path.ends_with("/manifests/1"));
    // A registry that takes nothing.
    let server = Server::new(|asked| match asked.method.as_str() {
        "HEAD" => Reply::new(404, b""),
        "POST" => Reply::new(403, br#"{"errors":[{"code":"DENIED"}]}"#),
        _ => Reply::new(200, b""),
    });
    let (status, line) = program.fails(&format!("image push base {}", server.name("x:1")));
    assert_eq!(status, 1);
    assert!(line.contains("403 (DENIED)"), "{line}");
    assert!(server.asked_for("/manifests/").is_empty());
    let id = base.id();
    assert_eq!(program.fails(&format!("image push {}", &id[7..])).0, 2);
}
