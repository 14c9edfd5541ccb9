//! Whether an object of the upper layer is still what it was.

use super::held::{Data, Held};
use crate::sys::{FileKind, Result};

/// Which attributes two objects differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// None.
    Nothing,
    /// The time of the last change of the contents.
    Time,
    /// Others.
    More,
}

/// Compares type, permissions, owners, device, time and extended attributes.
pub fn attributes(one: &Held<'_>, other: &Held<'_>) -> Result<Difference> {
    let plain = |held: &Held<'_>| {
        let device = matches!(held.attr.kind(), FileKind::CharDevice | FileKind::BlockDevice);
        (held.attr.mode, held.attr.uid, held.attr.gid, if device { held.attr.rdev } else { 0 })
    };
    if plain(one) != plain(other) || one.xattrs()? != other.xattrs()? {
        return Ok(Difference::More);
    }
    Ok(if one.attr.mtime == other.attr.mtime { Difference::Nothing } else { Difference::Time })
}

/// Whether something that is no directory is the same in everything. Data is read when nothing else differs.
pub fn is_same(one: &Held<'_>, other: &Held<'_>) -> Result<bool> {
    // Most files that are different have another time: asking for more would be in vain.
    if one.attr.mtime != other.attr.mtime || one.attr.size != other.attr.size {
        return Ok(false);
    }
    // What has several names is the same only if all of them are.
    if one.attr.nlink != 1 || other.attr.nlink != 1 {
        return Ok(false);
    }
    if attributes(one, other)? != Difference::Nothing {
        return Ok(false);
    }
    match one.attr.kind() {
        FileKind::Symlink => {
            Ok(one.union.read_link(one.node)? == other.union.read_link(other.node)?)
        }
        FileKind::Regular => same_data(one, other),
        _ => Ok(true),
    }
}

fn same_data(one: &Held<'_>, other: &Held<'_>) -> Result<bool> {
    let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut data, mut before) = (Data::of(one), Data::of(other));
    loop {
        let (count, known) = (fill(&mut data, &mut here)?, fill(&mut before, &mut there)?);
        if here[..count] != there[..known] {
            return Ok(false);
        }
        if count < CHUNK {
            return Ok(true);
        }
    }
}

const CHUNK: usize = 128 << 10;

/// Reads until the buffer is full, or the file ends.
fn fill(data: &mut Data<'_, '_>, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match data.next(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
