//! Extended headers: records of POSIX.1-2017 pax, `LENGTH KEYWORD=VALUE\n`.
//!
//! The records are parsed here and not by the `tar` crate, which takes a newline inside a value, as binary attributes
//! have it, for the end of the record.

use super::entry::Xattr;
use super::{Limits, Refusal, Result};
use crate::sys::Time;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the extended headers before an entry say about it.
#[derive(Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Sparse,
}

/// What pax records say about holes (GNU tar manual, "Storing Sparse Files").
#[derive(Default)]
pub(super) struct Sparse {
    pub name: Option<Vec<u8>>,
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub size: Option<u64>,
    /// Version 0.1: `offset,length,offset,length...`.
    pub map: Option<Vec<u8>>,
    /// Version 0.0: a pair of records for each part.
    pub numbers: Vec<u64>,
}

impl Pax {
    /// Adds what `data`, one whole extended header, says; later records win.
    pub fn read(&mut self, mut data: &[u8], limits: &Limits) -> Result<()> {
        while !data.is_empty() {
            let (keyword, value) = next_record(&mut data).ok_or_else(malformed)?;
            self.record(keyword, value, limits)?;
        }
        Ok(())
    }

    fn record(&mut self, keyword: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        // An empty value takes back what was said before (pax, "Extended Header Keywords").
        let text = (!value.is_empty()).then_some(value);
        let number = || text.map(|text| decimal(text).ok_or_else(malformed)).transpose();
        match keyword {
            b"path" => self.path = text.map(<[u8]>::to_vec),
            b"linkpath" => self.link_path = text.map(<[u8]>::to_vec),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => {
                self.mtime = text.map(|text| time(text).ok_or_else(malformed)).transpose()?;
            }
            b"GNU.sparse.name" => self.sparse.name = text.map(<[u8]>::to_vec),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            b"GNU.sparse.map" => self.sparse.map = text.map(<[u8]>::to_vec),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.numbers.push(number()?.ok_or_else(malformed)?);
            }
            _ => {
                if let Some(name) = keyword.strip_prefix(XATTR) {
                    self.xattr(name, value, limits)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err(Refusal::new("an extended attribute has a name that cannot be"));
        }
        if value.len() > limits.xattr {
            let most = limits.xattr;
            return Err(Refusal::new(format!("an extended attribute is longer than {most} bytes")));
        }
        match self.xattrs.binary_search_by(|known| (*known.name).cmp(name)) {
            Ok(at) => self.xattrs[at].value = value.into(),
            Err(at) => self.xattrs.insert(at, Xattr { name: name.into(), value: value.into() }),
        }
        Ok(())
    }
}

fn malformed() -> Refusal {
    Refusal::new("its extended header is malformed")
}

/// Takes one record off `data`: keyword and value.
fn next_record<'d>(data: &mut &'d [u8]) -> Option<(&'d [u8], &'d [u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    *data = rest;
    Some((&body[..equals], &body[equals + 1..]))
}

/// A decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let all_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| all_digits)?.parse().ok()
}

/// A time in seconds, with a sign and a fraction where needed; digits below a nanosecond are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let sec = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nsec = digits.fold(0, |sum, digit| 10 * sum + u32::from(digit - b'0'));
    Some(match (negative, nsec) {
        (false, nsec) => Time { sec, nsec },
        (true, 0) => Time { sec: -sec, nsec: 0 },
        (true, nsec) => Time { sec: -sec - 1, nsec: 1_000_000_000 - nsec },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        pax.read(data, &Limits::default()).map(|()| pax)
    }

    #[test]
    fn values_may_hold_anything() {
        let pax =
            read(b"12 path=a\nb\n23 SCHILY.xattr.b=\0=\n\xff\n22 SCHILY.xattr.a=b=c\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        let xattrs: Vec<_> = pax.xattrs.iter().map(|x| (&*x.name, &*x.value)).collect();
        assert_eq!(xattrs, [(&b"a"[..], &b"b=c"[..]), (b"b", b"\0=\n\xff")]);
    }

    #[test]
    fn the_last_record_wins_and_an_empty_one_takes_back() {
        let pax = read(b"9 size=1\n9 size=2\n9 path=a\n8 path=\n").unwrap();
        assert_eq!((pax.size, pax.path), (Some(2), None));
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [
            &b"x"[..],
            b"99 path=a\n",
            b"0 path=a\n",
            b"9 path=aX",
            b"3 \n",
            b"6 abc\n",
            b"-9 path=a\n",
            b"10 size=1x\n",
            b"11 mtime=1e\n",
            b"18446744073709551616 a=b\n",
            b"10 size=-1\n",
        ] {
            assert!(read(data).is_err(), "{data:?}");
        }
    }

    #[test]
    fn times_have_signs_and_fractions() {
        for (text, sec, nsec) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("4294967296.1234567899", 4_294_967_296, 123_456_789),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Time { sec, nsec }), "{text}");
        }
        for text in ["", "-", ".", "1.x", "1.2.3", "9223372036854775808"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }
}
