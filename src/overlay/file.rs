//! The contents of regular files.
//!
//! With zero-message opens the daemon never learns which files are open, so a node opens its data when
//! it is asked for and the descriptor cache closes it when room is needed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use super::View;
use super::copy_up::Wanted;
use super::locate::Located;
use super::node::{Node, NodeId};
use super::protection::Intent;
use super::{Caller, Delay, Overlay, Result};
use crate::layer::descriptors::{Cached, Key};
use crate::layer::owner_rights;
use crate::sys::{Errno, FileKind, Object, data};

/// How space is allocated: the mode of fallocate(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocate(pub u32);

/// Where to seek to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The next data at or after an offset.
    Data(u64),
    /// The next hole at or after an offset.
    Hole(u64),
}

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemStat {
    /// Size in units of `fragment_size`.
    pub blocks: u64,
    /// Free units.
    pub free: u64,
    /// Units free for the unprivileged.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub free_files: u64,
    /// Preferred size of an I/O in bytes.
    pub block_size: u32,
    /// Size of a unit in bytes.
    pub fragment_size: u32,
    /// Longest name in bytes.
    pub longest_name: u32,
}

/// The layer that data was opened in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DataFrom {
    Upper,
    Below,
}

/// Data that has just been opened.
pub(super) struct Opened {
    pub fd: OwnedFd,
    pub from: DataFrom,
    /// Its size, if that never changes.
    size: Option<u64>,
}

impl Overlay {
    /// The open data of a regular file; for writing, it must have been copied up.
    pub(super) fn data(&self, node: &Node, write: bool) -> Result<Arc<OwnedFd>> {
        Ok(self.file(node, write)?.fd)
    }

    fn file(&self, node: &Node, write: bool) -> Result<Cached> {
        if node.kind != FileKind::Regular {
            return Err(if node.kind.is_dir() { Errno::ISDIR } else { Errno::INVAL });
        }
        let key = Key::Data(node.id.0);
        match self.descriptors.get(key) {
            Some(cached) if cached.writable || !write => return Ok(cached),
            _ => {}
        }
        let Opened { fd, from, size } =
            self.descriptors.with_room(|| self.open_data(node, write))?;
        let file = Cached { fd: Arc::new(fd), writable: write, size };
        self.descriptors.put_shared(key, file.clone());
        if from == DataFrom::Below && node.is_complete() {
            // The file was copied up, or got its data, while the former place was being opened.
            self.descriptors.remove(key);
            return self.file(node, write);
        }
        Ok(file)
    }

    pub(super) fn open_data(&self, node: &Node, write: bool) -> Result<Opened> {
        self.at(node, |located| {
            let below = match located {
                Located::Upper(object) => match self.upper_data_source(node, &object)? {
                    // It must have got its data before it is written to.
                    Some(_) if write => return Err(Errno::IO),
                    Some(place) => place,
                    None => {
                        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
                        let fd = self.open_upper(&object, flags)?;
                        return Ok(Opened { fd, from: DataFrom::Upper, size: None });
                    }
                },
                Located::Lower(_) if write => return Err(Errno::ROFS),
                Located::Lower(place) => {
                    if self.changing.is_some() {
                        self.check_identity(node, &self.lowers.stat(&place)?)?;
                    }
                    self.lower_data_place(node, &place)?
                }
            };
            let (fd, size) = self.lowers.open_sized(&below)?;
            let size = (!self.lowers_change).then_some(size);
            Ok(Opened { fd, from: DataFrom::Below, size })
        })
    }

    /// Keeps `file`, open for reading and writing, as the data of `node`.
    pub(super) fn keep_data(&self, node: &Node, file: Arc<OwnedFd>) {
        let cached = Cached { fd: file, writable: true, size: None };
        self.descriptors.put_shared(Key::Data(node.id.0), cached);
    }

    /// Opens an upper object, also where its permissions keep its owner from it, which an ordinary user's daemon
    /// is: the kernel has let somebody in before they changed, or root.
    pub(super) fn open_upper(&self, object: &Object, flags: OFlags) -> Result<OwnedFd> {
        match object.open(flags) {
            Err(Errno::ACCESS) if self.own.uid != 0 => {
                let rights = owner_rights::READ | owner_rights::WRITE;
                owner_rights::lend(&[object], rights, || object.open(flags))
            }
            result => result,
        }
    }

    /// Reads at `offset`; returns the number of bytes, less than asked for only at the end of the file.
    pub fn read(&self, id: NodeId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let node = self.node(id)?;
        let file = self.file(&node, false)?;
        // To ask for more than there is would take a second call, to see that there is no more.
        let most = file.size.map_or(u64::MAX, |size| size.saturating_sub(offset));
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let cached = match data::read_cached(file.fd.as_fd(), buffer, offset) {
            Err(Errno::AGAIN) => {
                (self.delayed)(Delay::Long);
                0
            }
            // Who cannot tell has to be asked in the ordinary way.
            result => result.unwrap_or(0),
        };
        data::read_at(file.fd.as_fd(), &mut buffer[cached..], offset + cached as u64)
            .map(|more| cached + more)
            .inspect_err(|error| self.report_data(&node, *error))
    }

    /// What [`Overlay::read`] would read, where the page cache has it, if that is worth the while.
    pub fn view(&self, id: NodeId, offset: u64, length: usize) -> Result<Option<View>> {
        let node = self.node(id)?;
        let file = self.file(&node, false)?;
        let Some(left) = file.size.and_then(|size| size.checked_sub(offset)) else {
            return Ok(None);
        };
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        Ok(self.windows.view(&file.fd, offset, length))
    }

    /// Logs that the data of a file cannot be read.
    pub(super) fn report_data(&self, node: &Node, error: Errno) {
        match self.locate(node) {
            Ok(Located::Lower(place)) => self.lowers.report(&place, "cannot read data of", error),
            _ => log::error!("upper layer: cannot read data of {}: {error}", node.path().display()),
        }
    }

    /// Writes at `offset`; returns the number of bytes, less than given only when the rest failed.
    /// `unprivileged` is the caller, if the write takes set-id bits away from the file.
    pub fn write(
        &self,
        id: NodeId,
        offset: u64,
        bytes: &[u8],
        unprivileged: Option<Caller>,
    ) -> Result<usize> {
        let node = self.node(id)?;
        self.pins.with_space(|| {
            self.permit_write(&node, offset, bytes)?;
            self.copy_up(&node, Wanted::Data)?;
            let fd = self.data(&node, true)?;
            // First, as everywhere in the kernel: what a stranger has changed must never keep them.
            if let Some(caller) = unprivileged {
                self.drop_privileges(caller, &node)?;
            }
            data::write_at(fd.as_fd(), bytes, offset)
        })
    }

    /// Makes a regular file ready for being written to, by somebody who opens it; `appends` is whether only to append to
    /// it (`O_APPEND` without `O_TRUNC`).
    ///
    /// # Errors
    /// `EROFS`; `EPERM` for an immutable file, and one that is not opened to append to it alone; whatever keeps it
    /// from being copied up.
    pub fn prepare_write(&self, id: NodeId, appends: bool) -> Result<()> {
        let node = self.node(id)?;
        self.permit(&node, if appends { Intent::Add } else { Intent::Change })?;
        self.copy_up(&node, Wanted::Data)
    }

    /// Allocates, punches or moves space of a file (fallocate(2)).
    pub fn allocate(&self, id: NodeId, mode: Allocate, offset: u64, length: u64) -> Result<()> {
        let node = self.node(id)?;
        let mode = FallocateFlags::from_bits_retain(mode.0);
        self.permit_allocate(&node, mode)?;
        self.copy_up(&node, Wanted::Data)?;
        let fd = self.data(&node, true)?;
        self.pins.with_space(|| rustix::fs::fallocate(&fd, mode, offset, length))
    }

    /// Finds data or a hole in a file.
    ///
    /// # Errors
    /// `ENXIO` behind the end of the file.
    pub fn seek(&self, id: NodeId, to: SeekTo) -> Result<u64> {
        let node = self.node(id)?;
        let fd = self.data(&node, false)?;
        let to = match to {
            SeekTo::Data(offset) => SeekFrom::Data(offset),
            SeekTo::Hole(offset) => SeekFrom::Hole(offset),
        };
        rustix::fs::seek(fd, to)
    }

    /// Copies between two files; returns the number of bytes (copy_file_range(2)).
    pub fn copy_range(
        &self,
        source: NodeId,
        source_offset: u64,
        target: NodeId,
        target_offset: u64,
        length: usize,
    ) -> Result<usize> {
        let source = self.node(source)?;
        let target = self.node(target)?;
        self.permit(&target, Intent::Change)?;
        self.copy_up(&target, Wanted::Data)?;
        let to = self.data(&target, true)?;
        let from = self.data(&source, false)?;
        self.pins.with_space(|| {
            let (mut from_at, mut to_at) = (source_offset, target_offset);
            let (from_at, to_at) = (Some(&mut from_at), Some(&mut to_at));
            rustix::fs::copy_file_range(&from, from_at, &to, to_at, length)
        })
    }

    /// Space and limits of the filesystem that new data goes to.
    pub fn stat_fs(&self) -> Result<FilesystemStat> {
        let stat = match &self.upper {
            Some(upper) => rustix::fs::fstatvfs(&upper.root)?,
            None => self.lowers.stat_fs()?,
        };
        Ok(FilesystemStat {
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            files: stat.f_files,
            free_files: stat.f_ffree,
            block_size: stat.f_bsize as u32,
            fragment_size: stat.f_frsize as u32,
            longest_name: stat.f_namemax.min(255) as u32,
        })
    }
}
