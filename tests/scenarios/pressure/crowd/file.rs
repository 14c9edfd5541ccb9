//! Files that say all through which file they are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

/// Bytes of a tag. Files are changed at multiples of it only.
pub const UNIT: u64 = 16;

/// The attribute that says the same as the content.
const ATTRIBUTE: &str = "user.tag";

/// Which file it is: digits and a newline, over and over. Where a file was made longer it has zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag([u8; UNIT as usize]);

impl Tag {
    pub fn new(number: u64) -> Self {
        Self(format!("{number:015}\n").into_bytes().try_into().unwrap())
    }

    /// Content of this length.
    fn content(self, length: u64) -> Vec<u8> {
        self.0.iter().copied().cycle().take(length as usize).collect()
    }

    /// Makes a new file in a layer.
    pub fn make(self, path: &Path, length: u64) {
        std::fs::write(path, self.content(length / UNIT * UNIT)).unwrap();
    }

    /// Writes this tag all over a range.
    pub fn write(self, file: &File, offset: u64, length: u64) -> std::io::Result<()> {
        file.write_all_at(&self.content(length), offset)
    }

    /// Notes it as an attribute of the file.
    pub fn set_attribute(self, file: &File) -> Result<(), Errno> {
        fsetxattr(file, ATTRIBUTE, &self.0, XattrFlags::empty())
    }
}

/// Which file it is; none if nothing was written to it yet. Panics where anything in it is of another file.
pub fn read_tag(file: &File, path: &Path) -> Option<Tag> {
    let mut tag = [0; UNIT as usize];
    let at = |error| panic!("read {}: {error}", path.display());
    if file.read_at(&mut tag, 0).unwrap_or_else(at) < tag.len() {
        return None;
    }
    let known = tag[..15].iter().all(u8::is_ascii_digit) && tag[15] == b'\n';
    assert!(known, "{}: starts with {:?}", path.display(), String::from_utf8_lossy(&tag));
    expect_only(Tag(tag), file, path);
    Some(Tag(tag))
}

/// Panics where anything in the file is of another file.
pub fn expect_only(tag: Tag, file: &File, path: &Path) {
    let mut content = vec![0; 128 << 10];
    let length = file.read_at(&mut content, 0);
    let length = length.unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    for (number, unit) in content[..length].chunks(UNIT as usize).enumerate() {
        let own = unit.iter().zip(tag.0).all(|(found, own)| [own, 0].contains(found));
        let found = String::from_utf8_lossy(unit);
        assert!(own, "{}: {found:?} in unit {number} of {tag:?}", path.display());
    }
    let mut value = [0; UNIT as usize];
    match fgetxattr(file, ATTRIBUTE, &mut value) {
        Ok(_) => assert_eq!(Tag(value), tag, "attribute of {}", path.display()),
        Err(error) => assert_eq!(error, Errno::NODATA, "attribute of {}", path.display()),
    }
}
