//! Files with holes, as GNU tar writes them in four ways (GNU tar manual, "Storing Sparse Files"). They are read, and
//! never written.

use super::entry::{Extent, Part};
use super::pax::{Sparse, decimal};
use super::{Refusal, Result};

/// More parts than this has no file that was not made for the purpose.
pub(super) const MOST_PARTS: usize = 65_536;

/// Which of the forms with pax records an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The map is in the records.
    Records,
    /// The map is at the beginning of the content.
    Content,
}

impl Sparse {
    /// The form, if the entry has holes.
    pub fn form(&self) -> Result<Option<Form>> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Ok(Some(Form::Content)),
            (Some(0), Some(0 | 1)) => Ok(Some(Form::Records)),
            (None, None) if self.map.is_some() || !self.numbers.is_empty() => {
                Ok(Some(Form::Records))
            }
            (None, None) => Ok(None),
            _ => Err(Refusal::new("its form of sparse file is not known")),
        }
    }

    /// The parts that the records name.
    pub fn parts(&self) -> Result<Vec<Part>> {
        match &self.map {
            Some(map) => {
                let numbers = map.split(|byte| *byte == b',').map(decimal);
                pairs(&numbers.collect::<Option<Vec<_>>>().ok_or_else(malformed)?)
            }
            None => pairs(&self.numbers),
        }
    }
}

/// The parts that `numbers` are offsets and lengths of, in turn.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Part>> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > MOST_PARTS {
        return Err(malformed());
    }
    Ok(pairs.iter().map(|[offset, length]| Part { offset: *offset, length: *length }).collect())
}

/// A file of `size` bytes of which the archive has `stored` bytes, for these `parts`.
pub(super) fn extent(size: u64, stored: u64, mut parts: Vec<Part>) -> Result<Extent> {
    // One of no length is often put at the end to tell the size.
    parts.retain(|part| part.length > 0);
    let mut end = 0;
    for Part { offset, length } in &parts {
        if *offset < end {
            return Err(malformed());
        }
        end = offset.checked_add(*length).filter(|end| *end <= size).ok_or_else(malformed)?;
    }
    let extent = Extent { size, data: Some(parts) };
    if extent.stored() != stored {
        return Err(malformed());
    }
    Ok(extent)
}

pub(super) fn malformed() -> Refusal {
    Refusal::new("its map of holes is malformed")
}
