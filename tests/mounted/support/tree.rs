//! Trees written down as text, one entry a line:
//!
//! ```text
//! f etc/passwd mode=0644 own=0:0 mtime=-1.2 text="root\n" user.colour=blue
//! d etc/private mode=0700
//! o var/cache            # a directory that is opaque
//! l etc/link to=passwd
//! h etc/hard to=etc/passwd
//! w etc/gone             # whiteout: character device 0:0
//! c dev/null dev=1:3     # b for block devices, p for a FIFO, s for a socket
//! ```
//!
//! Parents are made as needed. A word that has a dot before `=` is an extended attribute. Paths and
//! values may stand in double quotes, with `\n`, `\\`, `\"` and `\xNN`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags, chmodat, chownat,
    lsetxattr, makedev, mknodat, utimensat,
};
use rustix::process::{Gid, Uid};

/// Makes the entries that `text` describes below the directory `root`.
pub fn make(root: &Path, text: &str) {
    let entries: Vec<Entry> = text.lines().filter_map(parse).collect();
    for entry in &entries {
        entry.create(root);
    }
    // Children change the time of their directory and may need the right to be made in it.
    for entry in entries.iter().rev() {
        entry.set_attributes(root);
    }
}

/// `seconds` as a time stamp; the nanoseconds of a time before 1970 count forward.
pub fn timespec(seconds: f64) -> Timespec {
    let whole = seconds.floor();
    let nanos = ((seconds - whole) * 1e9).round();
    Timespec { tv_sec: whole as i64, tv_nsec: nanos as i64 }
}

struct Entry {
    letter: u8,
    path: PathBuf,
    values: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_slice())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.value(key).map(|v| std::str::from_utf8(v).unwrap())
    }

    fn target(&self) -> &OsStr {
        OsStr::from_bytes(self.value("to").expect("to="))
    }

    fn create(&self, root: &Path) {
        let path = root.join(&self.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match self.letter {
            b'f' => fs::write(&path, self.value("text").unwrap_or_default()).unwrap(),
            b'd' | b'o' => fs::create_dir_all(&path).unwrap(),
            b'l' => std::os::unix::fs::symlink(self.target(), &path).unwrap(),
            b'h' => fs::hard_link(root.join(self.target()), &path).unwrap(),
            b'w' => self.make_node(&path, FileType::CharacterDevice),
            b'c' => self.make_node(&path, FileType::CharacterDevice),
            b'b' => self.make_node(&path, FileType::BlockDevice),
            b'p' => self.make_node(&path, FileType::Fifo),
            b's' => self.make_node(&path, FileType::Socket),
            other => panic!("no such kind of entry: {}", char::from(other)),
        }
    }

    fn make_node(&self, path: &Path, kind: FileType) {
        let device = self.text("dev").map_or(0, |text| {
            let (major, minor) = pair(text);
            makedev(major, minor)
        });
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device)
            .unwrap_or_else(|error| panic!("mknod {}: {error}", path.display()));
    }

    fn set_attributes(&self, root: &Path) {
        let path = root.join(&self.path);
        if self.letter == b'o' {
            set_xattr(&path, "user.overlay.opaque", b"y");
            if rustix::process::geteuid().is_root() {
                set_xattr(&path, "trusted.overlay.opaque", b"y");
            }
        }
        for (key, value) in self.values.iter().filter(|(key, _)| key.contains('.')) {
            set_xattr(&path, key, value);
        }
        if let Some((uid, gid)) = self.text("own").map(pair) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        // After the owner: chown clears set-id bits.
        if let Some(mode) = self.text("mode") {
            let mode = Mode::from_raw_mode(u32::from_str_radix(mode, 8).unwrap());
            chmodat(CWD, &path, mode, AtFlags::empty()).unwrap();
        }
        if let Some(seconds) = self.text("mtime") {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: timespec(seconds.parse().unwrap()),
            };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("setxattr {} {name}: {error}", path.display()));
}

fn pair(text: &str) -> (u32, u32) {
    let (a, b) = text.split_once(':').expect("two numbers");
    (a.parse().unwrap(), b.parse().unwrap())
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = words(line).into_iter();
    let letter = words.next()?;
    let path = PathBuf::from(OsString::from_vec(words.next().expect("a path")));
    let values = words.map(|word| {
        let equals = word.iter().position(|&b| b == b'=').expect("key=value");
        (String::from_utf8(word[..equals].to_vec()).unwrap(), word[equals + 1..].to_vec())
    });
    Some(Entry { letter: letter[0], path, values: values.collect() })
}

/// Splits at blanks outside quotes, resolves escapes, drops what follows a lone `#`.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let (mut open, mut quoted) = (false, false);
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => {
                open = false;
                continue;
            }
            b'#' if !quoted && !open => break,
            _ => {}
        }
        if !open {
            words.push(Vec::new());
            open = true;
        }
        let word = words.last_mut().unwrap();
        match byte {
            b'"' => {}
            b'\\' if quoted => word.push(escape(&mut bytes)),
            _ => word.push(byte),
        }
    }
    words
}

fn escape(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    let mut digit = || char::from(bytes.next().unwrap());
    match digit() {
        'n' => b'\n',
        'x' => {
            let hex = [digit(), digit()].iter().collect::<String>();
            u8::from_str_radix(&hex, 16).unwrap()
        }
        other => other as u8,
    }
}
