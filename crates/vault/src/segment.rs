//! Segments: many sealed objects in one file, because a store of small ones is slow and dear.

use attest::DataClass;
use bytes::Bytes;
use seal::Header;
use stdx::{Digest, UnixTime};

use crate::chain::{Kept, Segment};

/// How a segment begins.
pub const SEGMENT_MARK: &[u8] = b"clerestory-segment 1\n";

/// A segment that is not as it was written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the segment is damaged at byte {0}")]
pub struct SegmentError(pub u64);

/// A segment that is being made.
#[derive(Debug)]
pub(crate) struct Building {
    bytes: Vec<u8>,
    objects: Vec<Kept>,
}

impl Building {
    pub(crate) fn new() -> Self {
        Self { bytes: SEGMENT_MARK.to_vec(), objects: Vec::new() }
    }

    /// Objects so far.
    pub(crate) const fn len(&self) -> usize {
        self.objects.len()
    }

    /// Adds an object, whose frames begin at `start`.
    pub(crate) fn add(&mut self, header: &Header, start: usize, object: &[u8]) {
        self.bytes.extend_from_slice(&length(object));
        self.objects.push(Kept {
            id: header.bound.id,
            country: header.bound.country,
            at: self.bytes.len() as u64,
            bytes: object.len() as u64,
            object: Digest::of(object),
            header: Digest::of(object.get(4..start).unwrap_or_default()),
        });
        self.bytes.extend_from_slice(object);
    }

    /// The segment, of objects as endpoints have sent them, and its bytes.
    pub(crate) fn finish(self, class: DataClass, until: UnixTime) -> (Segment, Bytes) {
        let bytes = Bytes::from(self.bytes);
        let (segment, objects) = (Digest::of(&bytes), self.objects);
        (Segment { segment, class, bytes: bytes.len() as u64, from: None, until, unread: None, objects }, bytes)
    }
}

/// The same segment under another name: a record of no bytes stands for nothing.
pub(crate) fn renamed(segment: Segment, bytes: &Bytes) -> (Segment, Bytes) {
    let bytes = Bytes::from([bytes, &length(&[])[..]].concat());
    (Segment { segment: Digest::of(&bytes), bytes: bytes.len() as u64, ..segment }, bytes)
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
    if !segment.starts_with(SEGMENT_MARK) {
        return Err(SegmentError(0));
    }
    records(segment, SEGMENT_MARK.len())
}

/// What lies behind `start`, each with its length before it; those of no bytes are none.
pub(crate) fn records(bytes: &Bytes, start: usize) -> Result<Vec<Bytes>, SegmentError> {
    let (mut objects, mut at) = (Vec::new(), start);
    while at < bytes.len() {
        let damaged = || SegmentError(at as u64);
        let (length, _) = bytes.get(at..).and_then(<[u8]>::split_first_chunk::<4>).ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        let end = (at + 4).checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(damaged)?;
        if length > 0 {
            objects.push(bytes.slice(at + 4..end));
        }
        at = end;
    }
    Ok(objects)
}
