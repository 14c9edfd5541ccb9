//! /proc/self/mountinfo: what is mounted where, as this process sees it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line: one mount.
#[derive(Debug, PartialEq, Eq)]
pub struct MountLine {
    /// Major and minor number of the filesystem.
    pub device: (u32, u32),
    /// Where it is mounted, from the root directory of this process.
    pub mountpoint: PathBuf,
    /// The type with its subtype, such as `fuse.plyfs`.
    pub fs_type: String,
    /// The options of the filesystem, as they are written there: separated by commas, each escaped.
    pub options: Vec<u8>,
}

/// Every mount of this process's namespace that it can reach, in the order of mounting.
///
/// # Errors
/// `NotFound` where /proc is not mounted.
pub fn read() -> io::Result<Vec<MountLine>> {
    read_from(Path::new("/proc/self/mountinfo"))
}

/// The same of another process, whose `mountinfo` lies at `path`.
///
/// # Errors
/// `NotFound` when it is gone; `PermissionDenied` for a process of somebody else.
pub fn read_from(path: &Path) -> io::Result<Vec<MountLine>> {
    let text = fs::read(path)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The type of the mount on top at `path` (absolute), `None` if it is no mountpoint.
///
/// # Errors
/// As of [`read`].
pub fn type_on_top(path: &Path) -> io::Result<Option<String>> {
    let top = read()?.into_iter().rfind(|mount| mount.mountpoint == path);
    Ok(top.map(|mount| mount.fs_type))
}

impl MountLine {
    /// The value of an option of the filesystem.
    pub fn option(&self, name: &str) -> Option<OsString> {
        let mut options = self.options.split(|byte| *byte == b',');
        let value =
            options.find_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(OsString::from_vec(unescape(value)))
    }
}

/// `36 35 98:0 /root /mountpoint options [tags...] - type source super-options`, see
/// proc_pid_mountinfo(5).
fn parse(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mountpoint = unescape(fields.nth(1)?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = fields.next()?;
    Some(MountLine {
        device: (major.parse().ok()?, minor.parse().ok()?),
        mountpoint: OsString::from_vec(mountpoint).into(),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
        options: fields.nth(1).unwrap_or_default().to_vec(),
    })
}

/// Blanks, newlines and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(octal);
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_tags() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\040two\\134 rw,noatime master:1 shared:3 - fuse.plyfs - rw";
        let parsed = parse(line).unwrap();
        assert_eq!(parsed.device, (98, 0));
        assert_eq!(parsed.mountpoint, Path::new("/mnt two\\"));
        assert_eq!(parsed.fs_type, "fuse.plyfs");
        assert_eq!(parse(b"1 0 0:5 / /p rw - proc none rw").unwrap().fs_type, "proc");
    }

    #[test]
    fn options_are_found_and_unescaped() {
        let line =
            b"1 0 0:5 / /p rw - overlay none rw,lowerdir=/a:/b,upperdir=/u\\054\\040x,index=off";
        let mount = parse(line).unwrap();
        assert_eq!(mount.option("upperdir").unwrap(), "/u, x");
        assert_eq!(mount.option("index").unwrap(), "off");
        assert_eq!(mount.option("workdir"), None);
    }

    #[test]
    fn other_lines_are_skipped() {
        for line in [&b""[..], b"36 35 98:0 /", b"36 35 x:0 / /p rw - proc none rw"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn the_root_is_among_the_mounts() {
        assert!(read().unwrap().iter().any(|mount| mount.mountpoint == Path::new("/")));
    }

    #[test]
    fn a_backslash_without_three_octal_digits_stands_for_itself() {
        assert_eq!(unescape(b"a\\b\\0"), b"a\\b\\0");
        assert_eq!(unescape(b"\\011x\\777"), b"\tx\\777");
    }
}
