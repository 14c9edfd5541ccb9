//! One call of the watched thread, which waits meanwhile: so its memory and descriptors can be looked at.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::table::{self, Arg, Entry};

/// A call that the watched thread is about to make. To be looked at before it is answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name, as in its manual page.
    pub name: &'static str,
    /// Its arguments as they are.
    pub args: [u64; 6],
    entry: &'static Entry,
}

/// Bytes of data that are shown of a call.
const SHOWN: u64 = 40;

impl Call {
    pub(super) fn new(number: i32, args: [u64; 6]) -> Self {
        let entry = table::all().find(|entry| entry.number == i64::from(number));
        let entry = entry.expect("only calls in the table are heard of");
        Self { name: entry.name, args, entry }
    }

    /// Whether it can change a filesystem, or makes what has been changed lasting.
    pub fn changes(&self) -> bool {
        let flags = match self.name {
            "open" => self.args[1],
            "openat" => self.args[2],
            // The first field of `struct open_how`.
            "openat2" => match self.bytes(2, 8).try_into() {
                Ok(flags) => u64::from_ne_bytes(flags),
                Err(_) => return true,
            },
            _ => return self.entry.changes,
        };
        // O_TMPFILE contains O_DIRECTORY.
        let unnamed = libc::O_TMPFILE as u64;
        flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0 || flags & unnamed == unnamed
    }

    /// What the descriptor in argument `index` refers to; `None` for none, as AT_FDCWD is.
    pub fn file(&self, index: usize) -> Option<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.args[index] as i32)).ok()
    }

    /// The text in argument `index`; empty where it is no address.
    pub fn text(&self, index: usize) -> Vec<u8> {
        let mut text = Vec::new();
        let mut byte = [0];
        let Some(memory) = memory() else { return text };
        while let Ok(1) = memory.read_at(&mut byte, self.args[index] + text.len() as u64) {
            match byte {
                [0] => break,
                [byte] => text.push(byte),
            }
        }
        text
    }

    /// `length` bytes at the address in argument `index`; empty where it is no address.
    pub fn bytes(&self, index: usize, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        let read =
            memory().is_some_and(|it| it.read_exact_at(&mut bytes, self.args[index]).is_ok());
        if read { bytes } else { Vec::new() }
    }

    /// The path in argument `index`, from the root of the filesystem tree as far as that is known: after the
    /// directory in the argument before it, and with `/proc/self/fd/N` resolved.
    pub fn path(&self, index: usize) -> PathBuf {
        let path = PathBuf::from(OsStr::from_bytes(&self.text(index)));
        if let Ok(own) = path.strip_prefix("/proc/self/fd") {
            let mut names = own.iter();
            let fd = names
                .next()
                .and_then(|fd| fs::read_link(PathBuf::from("/proc/self/fd").join(fd)).ok());
            return fd.map_or(path.clone(), |fd| join(fd, names.as_path()));
        }
        let dir = index.checked_sub(1).filter(|before| self.entry.args[*before] == Arg::Fd);
        match dir.and_then(|dir| self.file(dir)) {
            Some(dir) => join(dir, &path),
            None => path,
        }
    }

    /// All paths and files that it is about.
    pub fn paths(&self) -> Vec<PathBuf> {
        let args = self.entry.args;
        let about = args.iter().enumerate().filter_map(|(index, arg)| match arg {
            Arg::Path => Some(self.path(index)),
            // A directory that a path begins at is no file of its own.
            Arg::Fd if args.get(index + 1) != Some(&Arg::Path) => self.file(index),
            _ => None,
        });
        about.collect()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        let mut separator = "";
        for (index, arg) in self.entry.args.iter().enumerate() {
            let shown = match arg {
                Arg::Other => continue,
                Arg::Fd if self.entry.args.get(index + 1) == Some(&Arg::Path) => continue,
                Arg::Fd => match self.file(index) {
                    Some(path) => path.display().to_string(),
                    None => (self.args[index] as i32).to_string(),
                },
                Arg::Path => self.path(index).display().to_string(),
                Arg::Text => format!("\"{}\"", self.text(index).escape_ascii()),
                Arg::Bytes(length) => {
                    let bytes = self.bytes(index, self.args[*length].min(SHOWN));
                    format!("\"{}\"", bytes.escape_ascii())
                }
                Arg::Number => format!("{:#o}", self.args[index]),
            };
            write!(f, "{separator}{shown}")?;
            separator = ", ";
        }
        write!(f, ")")
    }
}

fn join(dir: PathBuf, path: &std::path::Path) -> PathBuf {
    if path.as_os_str().is_empty() || path == "." { dir } else { dir.join(path) }
}

/// The memory of this process, in which an address that is none is an error.
fn memory() -> Option<File> {
    File::open("/proc/self/mem").ok()
}
