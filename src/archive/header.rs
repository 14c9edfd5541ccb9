//! One header block of 512 bytes.

use std::ops::Range;

use tar::Header;

use super::{Refusal, Result};

pub(super) const BLOCK: usize = 512;

/// The type flag of a header (pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    OldSparse,
    PaxLocal,
    PaxGlobal,
    LongName,
    LongLink,
}

impl Flag {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0 | b'0' | b'7' => Self::Regular,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'S' => Self::OldSparse,
            b'x' => Self::PaxLocal,
            b'g' => Self::PaxGlobal,
            b'L' => Self::LongName,
            b'K' => Self::LongLink,
            _ => return None,
        })
    }
}

/// Whether a block is the end mark, of which there are two.
pub(super) fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Where the fields with numbers are: mode, owners, size and time, and the two of a device.
const NUMBERS: [Range<usize>; 7] =
    [100..108, 108..116, 116..124, 124..136, 136..148, 329..337, 337..345];

/// Makes numbers that are not written zero: what has nothing to say about a field leaves it empty, and the other readers
/// take that.
pub(super) fn fill_empty_numbers(header: &mut Header) {
    for field in NUMBERS {
        let field = &mut header.as_mut_bytes()[field];
        if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
            field.fill(b'0');
        }
    }
}

/// Checks a header block and finds its type.
pub(super) fn check(header: &Header) -> Result<Flag> {
    // The checksum field itself counts as spaces; old programs summed signed characters.
    let bytes = header.as_bytes();
    let summed = || {
        bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte })
    };
    let unsigned: u32 = summed().map(u32::from).sum();
    let signed: i32 = summed().map(|byte| i32::from(byte.cast_signed())).sum();
    let written = header.cksum().map_err(|_| Refusal::new("a header has no checksum"))?;
    if written != unsigned && i64::from(written) != i64::from(signed) {
        return Err(Refusal::new("the checksum of a header is wrong").of(&header.path_bytes()));
    }
    let byte = header.entry_type().as_byte();
    Flag::of(byte).ok_or_else(|| {
        let problem = format!("entries of type {} are not known", byte.escape_ascii());
        Refusal::new(problem).of(&header.path_bytes())
    })
}
