//! Sealed objects as an [`ObjectStore`] of their plaintext: whoever reads a range gets it decrypted, frame by
//! frame, and nothing of it is kept.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, coalesce_ranges,
};
use seal::{BatchId, FRAME_BYTES, OpenError, Sealed};
use stdx::{Digest, Hasher};
use tokio::sync::Mutex;

use crate::ciphertext::{Place, Vault, VaultError};

/// Ranges that are nearer than two frames are read at once.
const GAP_BYTES: u64 = 2 * FRAME_BYTES as u64;

const NAME: &str = "sealed";

/// An object whose key is at hand.
pub struct Opened {
    /// The segment that it is in.
    pub place: Place,
    /// Bytes of that segment.
    pub segment_bytes: u64,
    /// Where in the segment the object's frames begin.
    pub frames_at: u64,
    /// The object.
    pub sealed: Sealed,
}

/// The objects of one grant, readable.
pub struct SealedStore {
    vault: Arc<dyn Vault>,
    objects: HashMap<Path, Opened>,
    /// Of segments that had to be looked at: SHA-256 of each object's frames, by where they begin, as they must be.
    sums: Mutex<HashMap<Place, HashMap<u64, Digest>>>,
}

/// How much of a segment is hashed at a time.
const PIECE_BYTES: u64 = 8 << 20;

impl SealedStore {
    /// These objects of `vault`'s.
    pub fn new(vault: Arc<dyn Vault>, opened: impl IntoIterator<Item = Opened>) -> Self {
        let named = opened.into_iter().map(|it| (path_of(it.sealed.header().bound.id), it));
        Self { vault, objects: named.collect(), sums: Mutex::default() }
    }

    fn find(&self, location: &Path) -> Result<&Opened> {
        self.objects.get(location).ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "it is not among the objects that were granted".into(),
        })
    }

    /// Bytes of an object's plaintext.
    pub(crate) fn bytes(&self, location: &Path) -> Option<u64> {
        self.objects.get(location).map(|opened| opened.sealed.header().bytes)
    }

    /// Reads a whole object as an endpoint has sealed it. Nothing, if that is no sealed object: then the vault has given it as
    /// its segment's name says, and it was like that from the beginning.
    ///
    /// # Errors
    /// When the vault gives nothing, or something else.
    pub(crate) async fn whole(&self, location: &Path) -> Result<Option<Bytes>> {
        let Opened { place, frames_at, sealed, .. } = self.find(location)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: NAME, source };
        let header = sealed.header();
        let frames = self.vault.read(place, *frames_at..*frames_at + header.frames_bytes()).await;
        let frames = frames.map_err(|error| failed(Box::new(error)))?;
        let mut plaintext = Vec::with_capacity(frames.len());
        let read = (0..header.frames()).try_for_each(|number| {
            let place = header
                .place(number)
                .and_then(|it| Some((usize::try_from(it.start).ok()?, usize::try_from(it.end).ok()?)));
            let frame = place.and_then(|(start, end)| frames.get(start..end)).ok_or(OpenError::Frame(number))?;
            sealed.frame(number, frame, &mut plaintext)
        });
        match read {
            Ok(()) => Ok(Some(Bytes::from(plaintext))),
            Err(error) => {
                let expected = self.sum(location).await.map_err(|error| failed(Box::new(error)))?;
                if expected == Some(Digest::of(&frames)) { Ok(None) } else { Err(failed(Box::new(error))) }
            }
        }
    }

    /// What the frames of an object must hash to, if its segment is what its name says.
    async fn sum(&self, location: &Path) -> std::result::Result<Option<Digest>, VaultError> {
        let Some(Opened { place, segment_bytes, frames_at, .. }) = self.objects.get(location) else { return Ok(None) };
        // Whoever comes meanwhile waits: a segment is read once.
        let mut sums = self.sums.lock().await;
        if let Some(known) = sums.get(place) {
            return Ok(known.get(frames_at).copied());
        }
        let here = self.objects.values().filter(|it| it.place == *place);
        let mut parts: Vec<(Range<u64>, Hasher)> = here
            .map(|it| (it.frames_at..it.frames_at + it.sealed.header().frames_bytes(), Hasher::default()))
            .collect();
        let (mut all, mut at) = (Hasher::default(), 0);
        while at < *segment_bytes {
            let end = segment_bytes.min(&(at + PIECE_BYTES)).to_owned();
            let piece = self.vault.read(place, at..end).await?;
            all.update(&piece);
            for (range, hasher) in &mut parts {
                let (from, to) = (range.start.clamp(at, end) - at, range.end.clamp(at, end) - at);
                let part = usize::try_from(from).ok().zip(usize::try_from(to).ok());
                part.and_then(|(from, to)| piece.get(from..to)).into_iter().for_each(|part| hasher.update(part));
            }
            at = end;
        }
        let is_it = all.finish() == place.segment;
        let known = parts.into_iter().filter(|_| is_it).map(|(range, hasher)| (range.start, hasher.finish())).collect();
        Ok(sums.entry(place.clone()).or_insert(known).get(frames_at).copied())
    }

    /// Reads a range that lies within the object.
    pub(crate) async fn plaintext(&self, location: &Path, range: Range<u64>) -> Result<Bytes> {
        let Opened { place, frames_at, sealed, .. } = self.find(location)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: NAME, source };
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let outside = || failed(format!("{location} has no bytes {range:?}").into());
        let whole = FRAME_BYTES as u64;
        let (first, last) = (range.start / whole, (range.end - 1) / whole);
        let header = sealed.header();
        let begin = header.place(first).ok_or_else(outside)?.start;
        let end = header.place(last).ok_or_else(outside)?.end;
        if range.end > header.bytes {
            return Err(outside());
        }
        let ciphertext = self.vault.read(place, frames_at + begin..frames_at + end).await;
        let ciphertext = ciphertext.map_err(|error| failed(Box::new(error)))?;
        let mut plaintext = Vec::with_capacity(ciphertext.len());
        for number in first..=last {
            let place = header.place(number).ok_or_else(outside)?;
            let within = |at: u64| usize::try_from(at - begin).map_err(|_| outside());
            let frame = ciphertext.get(within(place.start)?..within(place.end)?).ok_or_else(outside)?;
            sealed.frame(number, frame, &mut plaintext).map_err(|error| failed(Box::new(error)))?;
        }
        let skip = usize::try_from(range.start - first * whole).map_err(|_| outside())?;
        let length = usize::try_from(range.end - range.start).map_err(|_| outside())?;
        let plaintext = Bytes::from(plaintext);
        if skip + length > plaintext.len() { Err(outside()) } else { Ok(plaintext.slice(skip..skip + length)) }
    }
}

/// What an object is called here.
pub(crate) fn path_of(id: BatchId) -> Path {
    Path::from(id.to_string())
}

fn read_only() -> Error {
    Error::NotSupported { source: "sealed objects are only read".into() }
}

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedStore").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sealed objects", self.objects.len())
    }
}

#[async_trait]
impl ObjectStore for SealedStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let size = self.find(location)?.sealed.header().bytes;
        // Objects never change.
        let last_modified = Default::default();
        let meta = ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None };
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..size,
            Some(range) => {
                range.as_range(size).map_err(|source| Error::Generic { store: NAME, source: Box::new(source) })?
            }
        };
        let bytes = if options.head { Bytes::new() } else { self.plaintext(location, range.clone()).await? };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        coalesce_ranges(ranges, |range| self.plaintext(location, range).boxed(), GAP_BYTES).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(read_only()) }).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { Err(read_only()) }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(read_only())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}
