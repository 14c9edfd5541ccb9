//! Translation of user or group ids between the layers on disk and the mount (`uidmapping=`,
//! `gidmapping=`).

use std::fmt;

/// The id shown for an owner that no range covers: the kernel's default overflow id.
pub const OVERFLOW_ID: u32 = 65534;

/// An id as a layer on disk stores it (the container id of a mapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredId(pub u32);

/// An id as programs in the mount see it (the host id of a mapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShownId(pub u32);

/// `len` consecutive ids: `stored..stored + len` on disk are `shown..shown + len` in the mount.
///
/// Neither side reaches `u32::MAX`, which chown(2) reserves for "leave as it is".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    stored: u32,
    shown: u32,
    len: u32,
}

/// A one-to-one mapping of ids, identity when it has no ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Disjoint on both sides; sorted by `stored`.
    by_stored: Vec<Range>,
    /// The same ranges sorted by `shown`.
    by_shown: Vec<Range>,
}

/// Why a text is not an [`IdMap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdMapError {
    /// A field is not a decimal number that fits 32 bits.
    NotANumber(String),
    /// The number of fields is not a multiple of three.
    Incomplete,
    /// A range without ids, or one that reaches past the last valid id.
    BadLength(String),
    /// Two ranges cover the same id on one side.
    Overlap(String, String),
}

impl IdMap {
    /// Reads `[:]stored:shown:len[:stored:shown:len...]`; the empty text is the identity.
    ///
    /// This is fuse-overlayfs' grammar, whose callers write `container:host:size`.
    pub fn parse(text: &str) -> Result<IdMap, IdMapError> {
        let text = text.strip_prefix(':').unwrap_or(text);
        if text.is_empty() {
            return Ok(IdMap::default());
        }
        let fields = text.split(':').map(parse_id).collect::<Result<Vec<u32>, _>>()?;
        if fields.len() % 3 != 0 {
            return Err(IdMapError::Incomplete);
        }
        let ranges = fields.chunks_exact(3).map(Range::new).collect::<Result<Vec<Range>, _>>()?;
        Ok(IdMap {
            by_stored: sorted_disjoint(ranges.clone(), |range| range.stored)?,
            by_shown: sorted_disjoint(ranges, |range| range.shown)?,
        })
    }

    /// All ids as they are, but for 0 and `id`, which change places.
    pub fn exchanging_root(id: u32) -> IdMap {
        if id == 0 {
            return IdMap::default();
        }
        let range = |stored, shown, len| Range { stored, shown, len };
        let same = |start, end| range(start, start, end - start);
        let parts = [range(0, id, 1), same(1, id), range(id, 0, 1), same(id + 1, u32::MAX)];
        let by_stored: Vec<Range> = parts.into_iter().filter(|range| range.len > 0).collect();
        let mut by_shown = by_stored.clone();
        by_shown.sort_unstable_by_key(|range| range.shown);
        IdMap { by_stored, by_shown }
    }

    /// Whether every id maps to itself because no range was given.
    pub fn is_identity(&self) -> bool {
        self.by_stored.is_empty()
    }

    /// The id to show for one found on disk: [`OVERFLOW_ID`] where no range covers it.
    pub fn to_shown(&self, StoredId(id): StoredId) -> u32 {
        if self.is_identity() {
            return id;
        }
        translate(&self.by_stored, id, |range| (range.stored, range.shown)).unwrap_or(OVERFLOW_ID)
    }

    /// The id to store for one used in the mount; `None` (EINVAL for chown) where no range covers
    /// it.
    pub fn to_stored(&self, ShownId(id): ShownId) -> Option<u32> {
        if self.is_identity() {
            return Some(id);
        }
        translate(&self.by_shown, id, |range| (range.shown, range.stored))
    }
}

impl Range {
    fn new(fields: &[u32]) -> Result<Range, IdMapError> {
        let range = Range { stored: fields[0], shown: fields[1], len: fields[2] };
        let fits = |start: u32| start.checked_add(range.len).is_some();
        if range.len == 0 || !fits(range.stored) || !fits(range.shown) {
            return Err(IdMapError::BadLength(range.to_string()));
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.stored, self.shown, self.len)
    }
}

impl fmt::Display for IdMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdMapError::NotANumber(field) => write!(f, "`{field}` is not an id"),
            IdMapError::Incomplete => {
                f.write_str("expected ON-DISK:SHOWN:LENGTH, three numbers a range")
            }
            IdMapError::BadLength(range) => {
                write!(f, "range {range} is empty or reaches past the last id")
            }
            IdMapError::Overlap(a, b) => write!(f, "ranges {a} and {b} overlap"),
        }
    }
}

impl std::error::Error for IdMapError {}

fn parse_id(field: &str) -> Result<u32, IdMapError> {
    let decimal = field.bytes().all(|byte| byte.is_ascii_digit());
    let id = field.parse().ok().filter(|_| decimal);
    id.ok_or_else(|| IdMapError::NotANumber(shortened(field)))
}

/// As much of a field as belongs into a line of text.
fn shortened(field: &str) -> String {
    const LONGEST: usize = 60;
    let mut escaped = field.escape_debug();
    let shown: String = escaped.by_ref().take(LONGEST).collect();
    if escaped.next().is_some() { shown + "..." } else { shown }
}

fn sorted_disjoint(
    mut ranges: Vec<Range>,
    start: fn(&Range) -> u32,
) -> Result<Vec<Range>, IdMapError> {
    ranges.sort_by_key(start);
    match ranges.windows(2).find(|pair| start(&pair[1]) - start(&pair[0]) < pair[0].len) {
        Some(pair) => Err(IdMapError::Overlap(pair[0].to_string(), pair[1].to_string())),
        None => Ok(ranges),
    }
}

/// Finds `id` among ranges sorted by the first of `sides` and moves it to the second.
fn translate(ranges: &[Range], id: u32, sides: fn(&Range) -> (u32, u32)) -> Option<u32> {
    let above = ranges.partition_point(|range| sides(range).0 <= id);
    let range = ranges[..above].last()?;
    let (from, to) = sides(range);
    (id - from < range.len).then(|| to + (id - from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What podman's keep-id passes for user 1001 of a host with 65536 subordinate ids.
    const KEEP_ID: &str = "0:1:1001:1001:0:1:1002:1002:64535";

    #[test]
    fn no_ranges_is_the_identity() {
        for text in ["", ":"] {
            let map = IdMap::parse(text).unwrap();
            assert!(map.is_identity());
            assert_eq!(map.to_shown(StoredId(7)), 7);
            assert_eq!(map.to_stored(ShownId(u32::MAX - 1)), Some(u32::MAX - 1));
        }
    }

    #[test]
    fn disk_ids_are_first_and_shown_ids_second() {
        let map = IdMap::parse(":0:1000:1:1:100000:65536").unwrap();
        assert_eq!(map.to_shown(StoredId(0)), 1000);
        assert_eq!(map.to_shown(StoredId(33)), 100032);
        assert_eq!(map.to_stored(ShownId(1000)), Some(0));
        assert_eq!(map.to_stored(ShownId(165535)), Some(65536));
    }

    #[test]
    fn root_changes_places_with_another() {
        for other in [1, 2, 1000, u32::MAX - 1] {
            let map = IdMap::exchanging_root(other);
            assert_eq!(map, IdMap::parse(&spelled(&map)).unwrap(), "{other}");
            assert_eq!(map.to_shown(StoredId(0)), other);
            assert_eq!(map.to_shown(StoredId(other)), 0);
            assert_eq!(map.to_stored(ShownId(other)), Some(0));
            let others = [1, 999, 1001, u32::MAX - 2].into_iter().filter(|id| *id != other);
            for id in others {
                assert_eq!(
                    (map.to_shown(StoredId(id)), map.to_stored(ShownId(id))),
                    (id, Some(id))
                );
            }
        }
        assert!(IdMap::exchanging_root(0).is_identity());
    }

    fn spelled(map: &IdMap) -> String {
        map.by_stored.iter().map(Range::to_string).collect::<Vec<_>>().join(":")
    }

    #[test]
    fn keep_id_swaps_ranges() {
        let map = IdMap::parse(KEEP_ID).unwrap();
        assert_eq!(map.to_shown(StoredId(1001)), 0);
        assert_eq!(map.to_shown(StoredId(0)), 1);
        assert_eq!(map.to_shown(StoredId(1000)), 1001);
        assert_eq!(map.to_stored(ShownId(0)), Some(1001));
        assert_eq!(map.to_stored(ShownId(65536)), Some(65536));
    }

    #[test]
    fn unmapped_ids_show_as_overflow_and_are_never_stored() {
        let map = IdMap::parse("10:1000:5").unwrap();
        for outside in [0, 9, 15, 1000] {
            assert_eq!(map.to_shown(StoredId(outside)), OVERFLOW_ID);
        }
        for outside in [0, 10, 999, 1005, OVERFLOW_ID] {
            assert_eq!(map.to_stored(ShownId(outside)), None);
        }
    }

    #[test]
    fn a_long_field_is_cut_in_the_error() {
        let error = IdMap::parse(&format!("0:1{}:1", "\u{10}".repeat(1000))).unwrap_err();
        assert!(error.to_string().len() < 100, "{error}");
    }

    #[test]
    fn the_largest_range_is_accepted() {
        let map = IdMap::parse("0:0:4294967295").unwrap();
        assert_eq!(map.to_shown(StoredId(u32::MAX - 1)), u32::MAX - 1);
        assert_eq!(map.to_stored(ShownId(u32::MAX)), None);
    }

    #[test]
    fn garbage_is_refused() {
        let number = |field: &str| IdMapError::NotANumber(field.into());
        let length = |range: &str| IdMapError::BadLength(range.into());
        let table = [
            ("0:1", IdMapError::Incomplete),
            ("0:0:1:5", IdMapError::Incomplete),
            ("0:0:1:", number("")),
            ("::0:0:1", number("")),
            ("a:0:1", number("a")),
            ("+1:0:1", number("+1")),
            ("-1:0:1", number("-1")),
            ("0:0:4294967296", number("4294967296")),
            ("0:1000:1\n", number("1\\n")),
            ("0:1:0", length("0:1:0")),
            ("1:0:4294967295", length("1:0:4294967295")),
            ("0:1:4294967295", length("0:1:4294967295")),
            ("0:10:5:4:20:1", IdMapError::Overlap("0:10:5".into(), "4:20:1".into())),
            ("0:10:5:50:12:1", IdMapError::Overlap("0:10:5".into(), "50:12:1".into())),
        ];
        for (text, error) in table {
            assert_eq!(IdMap::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn stored_ids_come_back(
            lens in prop::collection::vec(1u32..1000, 1..20),
            id in 0u32..20_000,
        ) {
            let mut text = String::new();
            let (mut stored, mut shown) = (0, 1_000_000);
            for len in lens {
                shown -= len + 1;
                text += &format!(":{stored}:{shown}:{len}");
                stored += len + 1;
            }
            let map = IdMap::parse(&text).unwrap();
            match map.to_shown(StoredId(id)) {
                OVERFLOW_ID => {}
                shown => prop_assert_eq!(map.to_stored(ShownId(shown)), Some(id)),
            }
        }

        #[test]
        fn never_panics(text in "[0-9:+a-]{0,40}", id: u32) {
            if let Ok(map) = IdMap::parse(&text) {
                map.to_shown(StoredId(id));
                map.to_stored(ShownId(id));
            }
        }
    }
}
