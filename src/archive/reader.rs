//! Reading the entries of an archive, one after the other.
//!
//! The stream is cut into entries here and not by the `tar` crate, of which the header fields are taken: a size in a
//! pax record has to win over the one in the header, for the entry that it is about and no other, or two readers see
//! two archives (CVE-2025-62518); headers have to be bounded before they are read; and whoever wants to write the
//! archive again byte by byte needs what lies between the contents.

use std::io::{self, Read, Seek};

use tar::Header;

use super::entry::{Device, Extent, Part};
use super::header::{self, BLOCK, Flag};
use super::pax::{Pax, decimal};
use super::sparse::{self, Form, MOST_PARTS};
use super::{Entry, EntryPath, Kind, Limits, Refusal, Result};
use crate::sys::Time;

/// The longest target of a symbolic link that Linux takes, in bytes.
const LONGEST_TARGET: usize = 4095;

/// The entries of an archive.
pub struct Reader<R> {
    source: R,
    limits: Limits,
    entries: u64,
    /// What follows of the content of the entry that was given last, and then up to the next block.
    content: u64,
    padding: usize,
    framing: Vec<u8>,
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Extended {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// Their bytes so far.
    length: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the uncompressed archive `source`.
    pub fn new(source: R, limits: Limits) -> Self {
        Self { source, limits, entries: 0, content: 0, padding: 0, framing: Vec::new() }
    }

    /// The next entry. Content of the last one that has not been read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        io::copy(&mut self.content(), &mut io::sink())?;
        self.frame(self.padding)?;
        self.padding = 0;
        let mut extended = Extended::default();
        loop {
            let Some(mut header) = self.header()? else {
                if extended.length > 0 {
                    return Err(Refusal::new("the archive ends behind an extended header"));
                }
                return Ok(None);
            };
            let flag = header::check(&header)?;
            header::fill_empty_numbers(&mut header);
            if !self.extend(&mut extended, &header, flag)? {
                let name = extended.name(&header);
                return self.entry(&header, flag, extended).map(Some).map_err(|r| r.of(&name));
            }
        }
    }

    /// What has not been read yet of the content of the last entry: of a file with holes, its parts one after
    /// the other.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    /// Goes to the end of the content of the last entry without reading it.
    pub fn skip_content(&mut self) -> io::Result<()>
    where
        R: Seek,
    {
        let left = i64::try_from(self.content).map_err(io::Error::other)?;
        self.source.seek_relative(left)?;
        self.content = 0;
        Ok(())
    }

    /// What was read besides contents since this was last asked: headers and padding.
    pub fn take_framing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.framing)
    }

    /// The stream behind the last entry and the end mark. What follows there belongs to the archive, and to its
    /// digest, but means nothing.
    pub fn rest(&mut self) -> &mut R {
        &mut self.source
    }

    /// The stream.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Reads the next header; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if header::is_zero(&block) {
            return match self.block()? {
                Some(block) if !header::is_zero(&block) => {
                    Err(Refusal::new("something follows half an end mark"))
                }
                _ => Ok(None),
            };
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            let most = self.limits.entries;
            return Err(Refusal::new(format!("the archive has more than {most} entries")));
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    /// Reads a block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let start = self.framing.len();
        let mut source = (&mut self.source).take(BLOCK as u64);
        let count = source.read_to_end(&mut self.framing)?;
        if count == 0 {
            return Ok(None);
        }
        let block = self.framing[start..].try_into().map_err(|_| ends_early())?;
        Ok(Some(block))
    }

    /// Reads `length` bytes that are no content.
    fn frame(&mut self, length: usize) -> Result<&[u8]> {
        let start = self.framing.len();
        let count = (&mut self.source).take(length as u64).read_to_end(&mut self.framing)?;
        if count < length {
            return Err(ends_early());
        }
        Ok(&self.framing[start..])
    }

    /// Takes a header that says something about the entry that follows; false for any other.
    fn extend(&mut self, extended: &mut Extended, header: &Header, flag: Flag) -> Result<bool> {
        if !matches!(flag, Flag::PaxLocal | Flag::PaxGlobal | Flag::LongName | Flag::LongLink) {
            return Ok(false);
        }
        let size = header_size(header)?;
        extended.length = extended.length.saturating_add(size).saturating_add(BLOCK as u64);
        let limits = self.limits;
        if extended.length > limits.header {
            let most = limits.header;
            let problem = format!("its extended headers are longer than {most} bytes");
            return Err(Refusal::new(problem).of(&header.path_bytes()));
        }
        let data = self.frame(size as usize)?;
        match flag {
            Flag::PaxLocal => extended
                .pax
                .read(data, &limits)
                .map_err(|refusal| refusal.of(&header.path_bytes()))?,
            Flag::LongName => extended.long_name = Some(text(data).to_vec()),
            Flag::LongLink => extended.long_link = Some(text(data).to_vec()),
            // What holds for all entries is a comment, in all archives that are known.
            _ => {}
        }
        self.frame(padding(size))?;
        Ok(true)
    }

    fn entry(&mut self, header: &Header, flag: Flag, extended: Extended) -> Result<Entry> {
        let name = extended.name(header);
        let pax = &extended.pax;
        let path = EntryPath::parse(&name)?;
        let size = match pax.size {
            Some(size) => size,
            None => header_size(header)?,
        };
        let is_dir = flag == Flag::Directory || flag == Flag::Regular && name.ends_with(b"/");
        let kind = match is_dir {
            true => Kind::Directory,
            false => self.kind(header, flag, &extended, size)?,
        };
        self.expect_content(&kind, flag, size)?;
        if kind == Kind::CharDevice(Device { major: 0, minor: 0 }) {
            return Err(Refusal::new(
                "the device 0:0 is a whiteout to some, and a device to others",
            ));
        }
        let number = |of_pax: Option<u64>, of_header: io::Result<u64>| {
            owner(of_pax.map_or(of_header, Ok).map_err(|_| malformed())?)
        };
        Ok(Entry {
            path,
            permissions: header.mode().map_err(|_| malformed())? & 0o7777,
            uid: number(pax.uid, header.uid())?,
            gid: number(pax.gid, header.gid())?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                // Times before 1970 are negative numbers of 8 bytes or more.
                None => {
                    Time { sec: header.mtime().map_err(|_| malformed())?.cast_signed(), nsec: 0 }
                }
            },
            kind,
            xattrs: extended.pax.xattrs,
        })
    }

    /// What an entry is that is no directory.
    fn kind(
        &mut self,
        header: &Header,
        flag: Flag,
        extended: &Extended,
        size: u64,
    ) -> Result<Kind> {
        let link = || extended.link(header);
        Ok(match flag {
            Flag::Regular => Kind::Regular(self.extent(size, &extended.pax)?),
            Flag::OldSparse => Kind::Regular(self.old_extent(header, size)?),
            Flag::Symlink => Kind::Symlink(target(link())?),
            Flag::HardLink => Kind::HardLink(EntryPath::parse(&link())?),
            Flag::CharDevice => Kind::CharDevice(device(header)?),
            Flag::BlockDevice => Kind::BlockDevice(device(header)?),
            Flag::Fifo => Kind::Fifo,
            // Extended headers have been taken before.
            Flag::Directory
            | Flag::PaxLocal
            | Flag::PaxGlobal
            | Flag::LongName
            | Flag::LongLink => Kind::Directory,
        })
    }

    /// Notes how much content follows an entry for which `size` bytes are stored.
    fn expect_content(&mut self, kind: &Kind, flag: Flag, size: u64) -> Result<()> {
        match (kind, flag) {
            (Kind::Regular(extent), _) => {
                if extent.size > self.limits.bytes {
                    let most = self.limits.bytes;
                    return Err(Refusal::new(format!("it is larger than {most} bytes")));
                }
                self.content = extent.stored();
                self.padding = padding(size);
                Ok(())
            }
            // Some programs write what a directory takes on disk; no data follows (pax, "ustar Interchange Format").
            (Kind::Directory, Flag::Directory) => Ok(()),
            // Whether data follows is a matter of opinion.
            _ if size > 0 => Err(Refusal::new("only a file can have a size")),
            _ => Ok(()),
        }
    }

    fn extent(&mut self, size: u64, pax: &Pax) -> Result<Extent> {
        let Some(form) = pax.sparse.form()? else { return Ok(Extent::whole(size)) };
        let real_size = pax.sparse.size.ok_or_else(sparse::malformed)?;
        match form {
            Form::Records => sparse::extent(real_size, size, pax.sparse.parts()?),
            Form::Content => {
                let (parts, length) = self.map_in_content(size)?;
                sparse::extent(real_size, size - length, parts)
            }
        }
    }

    /// Reads the map at the beginning of the content of `size` bytes: the number of parts, then offset and length of
    /// each, a number a line, up to the end of a block. Returns also its length.
    fn map_in_content(&mut self, size: u64) -> Result<(Vec<Part>, u64)> {
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        let mut length = 0;
        loop {
            let wanted = 1 + 2 * numbers.first().copied().unwrap_or(0);
            if numbers.len() as u64 == wanted {
                return Ok((sparse::pairs(&numbers[1..])?, length));
            }
            if length + BLOCK as u64 > size {
                return Err(sparse::malformed());
            }
            let block = self.frame(BLOCK)?;
            length += BLOCK as u64;
            for byte in block {
                let full = numbers.first().is_some_and(|parts| numbers.len() as u64 > 2 * parts);
                match byte {
                    _ if full => break,
                    b'\n' => {
                        let number = decimal(&line).ok_or_else(sparse::malformed)?;
                        if numbers.is_empty() && number > MOST_PARTS as u64 {
                            return Err(sparse::malformed());
                        }
                        numbers.push(number);
                        line.clear();
                    }
                    // No number has more digits.
                    _ if line.len() == 20 => return Err(sparse::malformed()),
                    byte => line.push(*byte),
                }
            }
        }
    }

    /// The form that is older than pax: four parts in the header, more in blocks behind it.
    fn old_extent(&mut self, header: &Header, size: u64) -> Result<Extent> {
        let gnu = header.as_gnu().ok_or_else(sparse::malformed)?;
        let mut parts = Vec::new();
        let mut slots = 0;
        let mut add = |sparse: &[tar::GnuSparseHeader]| {
            for part in sparse.iter().filter(|part| !part.is_empty()) {
                let number = |number: io::Result<u64>| number.map_err(|_| sparse::malformed());
                parts.push(Part { offset: number(part.offset())?, length: number(part.length())? });
            }
            // Slots that are not used count: otherwise a chain of empty blocks would have no end.
            slots += sparse.len();
            if slots > MOST_PARTS { Err(sparse::malformed()) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or_else(ends_early)?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            add(extension.sparse())?;
            more = extension.is_extended();
        }
        let real_size = gnu.real_size().map_err(|_| sparse::malformed())?;
        sparse::extent(real_size, size, parts)
    }
}

impl Extended {
    fn name(&self, header: &Header) -> Vec<u8> {
        let of_pax = self.pax.sparse.name.as_ref().or(self.pax.path.as_ref());
        let long = of_pax.or(self.long_name.as_ref());
        long.cloned().unwrap_or_else(|| header.path_bytes().into_owned())
    }

    fn link(&self, header: &Header) -> Vec<u8> {
        let long = self.pax.link_path.as_ref().or(self.long_link.as_ref());
        let short = || header.link_name_bytes().unwrap_or_default().into_owned();
        long.cloned().unwrap_or_else(short)
    }
}

/// The content of the entry that was given last.
pub struct Content<'r, R> {
    reader: &'r mut Reader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.reader.content.min(buffer.len() as u64) as usize;
        let count = self.reader.source.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reader.content -= count as u64;
        Ok(count)
    }
}

/// The bytes from the end of a content of this length to the next block.
fn padding(length: u64) -> usize {
    (length as usize).wrapping_neg() % BLOCK
}

/// A text that ends with its first zero byte.
fn text(data: &[u8]) -> &[u8] {
    data.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn header_size(header: &Header) -> Result<u64> {
    header.entry_size().map_err(|_| malformed().of(&header.path_bytes()))
}

fn target(target: Vec<u8>) -> Result<Box<[u8]>> {
    match target.len() {
        0 => Err(Refusal::new("it is a symbolic link to nothing")),
        1..=LONGEST_TARGET if !target.contains(&0) => Ok(target.into()),
        1..=LONGEST_TARGET => Err(Refusal::new("its target contains a zero byte")),
        _ => Err(Refusal::new(format!("its target is longer than {LONGEST_TARGET} bytes"))),
    }
}

fn device(header: &Header) -> Result<Device> {
    let number = |number: io::Result<Option<u32>>| {
        number.ok().flatten().ok_or_else(|| Refusal::new("it is a device without a number"))
    };
    Ok(Device { major: number(header.device_major())?, minor: number(header.device_minor())? })
}

/// A user or group. The last number means "nobody in particular" to chown(2).
fn owner(number: u64) -> Result<u32> {
    let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| Refusal::new(format!("its owner {number} cannot be")))
}

fn malformed() -> Refusal {
    Refusal::new("a number in its header is malformed")
}

fn ends_early() -> Refusal {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}
