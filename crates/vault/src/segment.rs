//! Segments: many sealed objects in one file, because a store of small ones is slow and dear.

use bytes::Bytes;

const MARK: &[u8] = b"clerestory-segment 1\n";

/// A segment that is not as it was written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the segment is damaged at byte {0}")]
pub struct SegmentError(pub u64);

/// A segment that is being made.
#[derive(Debug)]
pub(crate) struct Building {
    bytes: Vec<u8>,
}

impl Building {
    pub(crate) fn new() -> Self {
        Self { bytes: MARK.to_vec() }
    }

    /// Adds an object, and says where it begins.
    pub(crate) fn add(&mut self, object: &[u8]) -> u64 {
        self.bytes.extend_from_slice(&length(object));
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(object);
        at
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// An object's length as it stands before it.
pub(crate) fn length(object: &[u8]) -> [u8; 4] {
    u32::try_from(object.len()).expect("an object is admitted with less than 256 MiB and a header").to_be_bytes()
}

/// The objects of a segment, in its order: a manifest that was lost is made anew from them.
///
/// # Errors
/// [`SegmentError`] when it does not end where an object ends.
pub fn objects_of(segment: &Bytes) -> Result<Vec<Bytes>, SegmentError> {
    if !segment.starts_with(MARK) {
        return Err(SegmentError(0));
    }
    records(segment, MARK.len())
}

/// What lies behind `start`, each with its length before it.
pub(crate) fn records(bytes: &Bytes, start: usize) -> Result<Vec<Bytes>, SegmentError> {
    let (mut objects, mut at) = (Vec::new(), start);
    while at < bytes.len() {
        let damaged = || SegmentError(at as u64);
        let (length, _) = bytes.get(at..).and_then(<[u8]>::split_first_chunk::<4>).ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        let end = (at + 4).checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(damaged)?;
        objects.push(bytes.slice(at + 4..end));
        at = end;
    }
    Ok(objects)
}
