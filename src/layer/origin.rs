//! The kernel's identity of a lower inode: `struct ovl_fb` of fs/overlayfs/overlayfs.h.
//!
//! ```text
//! byte 0   version, 0
//!      1   magic, 0xfb
//!      2   length of the whole, in bytes
//!      3   flags: 1 = big-endian, 2 = any endian, 4 = of an upper directory
//!      4   type of the file handle
//!      5   UUID of the filesystem, 16 bytes
//!      21  the file handle
//! ```
//! Stored in `overlay.origin`, and in hexadecimal as the name of an index entry.

use crate::sys::file_handle::FileHandle;

const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
const HEADER: usize = 21;
/// Flags of a handle of a lower inode written on this machine's byte order.
const FLAGS: u8 = if cfg!(target_endian = "big") { 1 } else { 0 };

/// The blob for a lower inode on the filesystem with this UUID (zeros where it has none).
pub fn encode(handle: &FileHandle, uuid: [u8; 16]) -> Option<Vec<u8>> {
    let length = u8::try_from(HEADER + handle.bytes.len()).ok()?;
    let mut blob = vec![VERSION, MAGIC, length, FLAGS, handle.kind];
    blob.extend_from_slice(&uuid);
    blob.extend_from_slice(&handle.bytes);
    Some(blob)
}

/// Whether this is a blob of this machine's byte order.
pub fn is_origin(blob: &[u8]) -> bool {
    let [VERSION, _, _, flags, ..] = *blob else { return false };
    is_complete(blob) && flags & 1 == FLAGS
}

/// Whether this is the whole of a blob, of whatever byte order and version.
pub fn is_complete(blob: &[u8]) -> bool {
    let [_, MAGIC, length, ..] = *blob else { return false };
    usize::from(length) == blob.len() && blob.len() >= HEADER
}

/// The name of the index entry for a blob.
pub fn index_name(blob: &[u8]) -> String {
    blob.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The blob that the name of an index entry stands for.
pub fn from_index_name(name: &str) -> Option<Vec<u8>> {
    // A sign is no digit, though it is one to the parsing of numbers.
    if !name.bytes().all(|byte| byte.is_ascii_hexdigit()) || !name.len().is_multiple_of(2) {
        return None;
    }
    (0..name.len()).step_by(2).map(|at| u8::from_str_radix(&name[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_come_back_and_garbage_does_not() {
        let handle = FileHandle { kind: 1, bytes: [7, 0, 0, 0, 9, 0, 0, 0].into() };
        let blob = encode(&handle, [3; 16]).unwrap();
        assert!(is_origin(&blob));
        assert_eq!(from_index_name(&index_name(&blob)), Some(blob.clone()));
        assert!(!is_origin(&blob[..20]));
        assert!(!is_origin(&blob[..24]));
        assert_eq!(from_index_name("zz"), None);
        assert_eq!(from_index_name("0"), None);
    }

    #[test]
    fn a_sign_is_no_digit_of_an_index_name() {
        assert_eq!(from_index_name("+10a"), None);
    }
}
