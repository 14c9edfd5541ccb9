//! A server of HTTP that says what a test wants it to say, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use plyfs::store::Digest;
use serde_json::Value;

use crate::program::Files;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// The body goes on as long as somebody listens.
    pub endless: bool,
}

impl Reply {
    pub fn new(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn send(&self, stream: &mut TcpStream, head: bool) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let said = self.headers.iter().any(|(name, _)| name == "Content-Length");
        if !said && !self.endless {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes())?;
        if head {
            return Ok(());
        }
        stream.write_all(&self.body[..self.cut.unwrap_or(self.body.len())])?;
        if !self.endless {
            return Ok(());
        }
        loop {
            stream.write_all(&[b' '; 64 << 10])?;
        }
    }
}

/// A server that ends with this.
pub struct Server {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers as `answer` says.
    pub fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, end, answer) = (asked.clone(), stopped.clone(), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (all, answer) = (all.clone(), answer.clone());
                // Whoever goes away while it is answered is no trouble of the server.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &all, &*answer)));
            }
        });
        Self { port, asked, stopped, thread: Some(thread) }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// What was asked for under a path that has this part.
    pub fn asked_for(&self, part: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path.contains(part)).collect()
    }

    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(
    stream: TcpStream,
    all: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&Asked) -> Reply + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    // TLS is not spoken here.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return Ok(());
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(ToOwned::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, path, headers, body: Vec::new(), at: Instant::now() };
    let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
    reader.take(length).read_to_end(&mut asked.body)?;
    all.lock().unwrap().push(asked.clone());
    let reply = answer(&asked);
    let mut stream = stream;
    reply.send(&mut stream, asked.method == "HEAD")
}

/// The content of a registry that does what it should.
#[derive(Clone, Default)]
pub struct Shelf {
    /// Content type and bytes, by the end of the path: `blobs/DIGEST`, `manifests/TAG`.
    pub things: BTreeMap<String, (String, Vec<u8>)>,
}

impl Shelf {
    /// The image of an OCI layout, under this tag.
    pub fn new(layout: &Files, tag: &str) -> Self {
        let mut shelf = Self::default();
        let index = layout.iter().find(|(name, _)| name == "index.json").unwrap();
        let index: Value = serde_json::from_slice(&index.1).unwrap();
        let entry = &index["manifests"][0];
        for (name, bytes) in layout {
            let Some(hex) = name.strip_prefix("blobs/sha256/") else { continue };
            let digest = format!("sha256:{hex}");
            if entry["digest"] == digest.as_str() {
                shelf.manifest(tag, entry["mediaType"].as_str().unwrap(), bytes);
            } else {
                shelf.blob(bytes);
            }
        }
        shelf
    }

    pub fn blob(&mut self, bytes: &[u8]) {
        let name = format!("blobs/{}", Digest::of(bytes));
        self.things.insert(name, ("application/octet-stream".into(), bytes.to_vec()));
    }

    /// A manifest or index, under a tag and under its digest.
    pub fn manifest(&mut self, tag: &str, media_type: &str, bytes: &[u8]) {
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            let thing = (media_type.to_owned(), bytes.to_vec());
            self.things.insert(format!("manifests/{name}"), thing);
        }
    }

    /// The answer of a registry with this content.
    pub fn answer(&self, asked: &Asked) -> Reply {
        if asked.path == "/v2/" {
            return Reply::new(200, b"{}");
        }
        let found = self.things.iter().find(|(name, _)| asked.path.ends_with(&format!("/{name}")));
        let Some((name, (media_type, bytes))) = found else {
            let text = br#"{"errors":[{"code":"UNKNOWN","message":"not\u001b[2J here"}]}"#;
            return Reply::new(404, text);
        };
        let reply = Reply::new(200, bytes).with("Content-Type", media_type);
        if name.starts_with("manifests/") {
            return reply.with("Docker-Content-Digest", &Digest::of(bytes).to_string());
        }
        let range = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
        let Some(from) = range.and_then(|range| range.strip_suffix('-')) else { return reply };
        let at: usize = from.parse().unwrap();
        let range = format!("bytes {at}-{}/{}", bytes.len() - 1, bytes.len());
        Reply::new(206, &bytes[at..]).with("Content-Range", &range)
    }
}
