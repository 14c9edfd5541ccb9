//! Writing archives: the same entries always become the same bytes.
//!
//! Headers are those of POSIX.1-2017 ustar, with pax records only for what does not fit in them. No names of users, no
//! holes, no times but mtime.

use std::io::{self, Read, Write};

use super::entry::{Device, Extent};
use super::header::BLOCK;
use super::{Entry, Kind};

/// An archive that is being written.
pub struct Writer<W> {
    out: W,
}

/// The largest numbers of the octal fields of 8 and of 12 bytes.
const LARGEST_SHORT: u64 = 0o7_777_777;
const LARGEST_LONG: u64 = 0o77_777_777_777;
/// The longest name that its field takes.
const LONGEST_FIELD: usize = 100;

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry, and `content` if it is a file: of the size that the entry says.
    ///
    /// # Errors
    /// `UnexpectedEof` if the content is shorter.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let (flag, size, device, target) = match &entry.kind {
            Kind::Regular(Extent { size, .. }) => (b'0', *size, None, Vec::new()),
            Kind::Directory => (b'5', 0, None, Vec::new()),
            Kind::Symlink(target) => (b'2', 0, None, target.to_vec()),
            Kind::HardLink(target) => (b'1', 0, None, target.as_bytes().to_vec()),
            Kind::CharDevice(device) => (b'3', 0, Some(*device), Vec::new()),
            Kind::BlockDevice(device) => (b'4', 0, Some(*device), Vec::new()),
            Kind::Fifo => (b'6', 0, None, Vec::new()),
        };
        let mut name = entry.path.as_bytes().to_vec();
        if entry.path.is_root() {
            name.push(b'.');
        }
        if flag == b'5' {
            name.push(b'/');
        }
        let records = records(entry, &name, &target, size);
        if !records.is_empty() {
            let fields =
                Fields { name: b"././@PaxHeader", size: records.len() as u64, ..Fields::of(b'x') };
            self.out.write_all(&fields.block())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let fields = Fields {
            name: &name,
            target: &target,
            mode: entry.permissions,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime.sec,
            size,
            device,
            flag,
        };
        self.out.write_all(&fields.block())?;
        if io::copy(&mut content.take(size), &mut self.out)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(size)
    }

    /// Writes the end mark, and gives the stream back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let padding = (length as usize).wrapping_neg() % BLOCK;
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

/// The pax records of what does not fit in the header, in the order of keywords.
fn records(entry: &Entry, name: &[u8], target: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    for xattr in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &*xattr.name].concat(), &xattr.value);
    }
    let mut number = |keyword: &[u8], number: u64, largest: u64| {
        if number > largest {
            record(&mut records, keyword, number.to_string().as_bytes());
        }
    };
    number(b"gid", entry.gid.into(), LARGEST_SHORT);
    number(b"size", size, LARGEST_LONG);
    number(b"uid", entry.uid.into(), LARGEST_SHORT);
    if target.len() > LONGEST_FIELD {
        record(&mut records, b"linkpath", target);
    }
    let sec = entry.mtime.sec;
    if entry.mtime.nsec > 0 || !(0..=LARGEST_LONG.cast_signed()).contains(&sec) {
        record(&mut records, b"mtime", decimal_time(sec, entry.mtime.nsec).as_bytes());
    }
    if name.len() > LONGEST_FIELD {
        record(&mut records, b"path", name);
    }
    records
}

fn record(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(keyword);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal_time(sec: i64, nsec: u32) -> String {
    // Nanoseconds count upwards, the digits of a negative number downwards.
    let (sign, sec, nsec) = match (sec < 0, nsec) {
        (true, 0) => ("-", sec.unsigned_abs(), 0),
        (true, nsec) => ("-", (sec + 1).unsigned_abs(), 1_000_000_000 - nsec),
        (false, nsec) => ("", sec.unsigned_abs(), nsec),
    };
    let text = format!("{sign}{sec}.{nsec:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Fields<'f> {
    flag: u8,
    name: &'f [u8],
    target: &'f [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    device: Option<Device>,
}

impl Fields<'_> {
    fn of(flag: u8) -> Self {
        Self {
            flag,
            name: b"",
            target: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            device: None,
        }
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut text = |at: usize, most: usize, text: &[u8]| {
            let text = &text[..text.len().min(most)];
            block[at..at + text.len()].copy_from_slice(text);
        };
        // What does not fit is in a pax record, which wins.
        let short =
            |number: u64| format!("{:07o}", if number > LARGEST_SHORT { 0 } else { number });
        let long = |number: u64| format!("{:011o}", if number > LARGEST_LONG { 0 } else { number });
        text(0, LONGEST_FIELD, self.name);
        text(100, 7, short(self.mode.into()).as_bytes());
        text(108, 7, short(self.uid.into()).as_bytes());
        text(116, 7, short(self.gid.into()).as_bytes());
        text(124, 11, long(self.size).as_bytes());
        text(136, 11, long(u64::try_from(self.mtime).unwrap_or(0)).as_bytes());
        text(148, 8, b"        ");
        text(156, 1, &[self.flag]);
        text(157, LONGEST_FIELD, self.target);
        text(257, 8, b"ustar\x0000");
        if let Some(Device { major, minor }) = self.device {
            text(329, 7, short(major.into()).as_bytes());
            text(337, 7, short(minor.into()).as_bytes());
        }
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EntryPath, Limits, Reader, Xattr};
    use super::*;
    use crate::sys::Time;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: EntryPath::parse(path.as_bytes()).unwrap(),
            kind,
            permissions: 0o4755,
            uid: 5,
            gid: 6,
            mtime: Time { sec: 1, nsec: 0 },
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let long = format!("{}/{}", "a".repeat(150), "b".repeat(150));
        let device = Device { major: 1, minor: 3 };
        let mut entries = vec![
            entry("/", Kind::Directory),
            entry(&long, Kind::Regular(Extent::whole(3))),
            entry("d", Kind::Directory),
            entry("l", Kind::Symlink(long.as_bytes().into())),
            entry("h", Kind::HardLink(EntryPath::parse(long.as_bytes()).unwrap())),
            entry("c", Kind::CharDevice(device)),
            entry("b", Kind::BlockDevice(device)),
            entry("p", Kind::Fifo),
        ];
        for (sec, nsec) in [(-1, 0), (-2, 750_000_000), (-1, 1), (1 << 40, 5), (7, 100)] {
            entries.push(Entry { mtime: Time { sec, nsec }, ..entry("t", Kind::Fifo) });
        }
        entries.push(Entry { uid: u32::MAX - 1, gid: 1 << 22, ..entry("o", Kind::Directory) });
        let xattrs = vec![Xattr { name: (*b"user.x").into(), value: (*b"\0\n=").into() }];
        entries.push(Entry { xattrs, ..entry("x", Kind::Directory) });
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.entry(entry, &mut &b"abc"[..]).unwrap();
        }
        let archive = writer.finish().unwrap();
        let mut reader = Reader::new(&archive[..], Limits::default());
        for entry in &entries {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn a_content_that_is_too_short_is_an_error() {
        let file = entry("f", Kind::Regular(Extent::whole(4)));
        let error = Writer::new(Vec::new()).entry(&file, &mut &b"abc"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
