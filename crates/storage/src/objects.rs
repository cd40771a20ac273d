//! The port for immutable objects (and the few that are replaced).

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Folder, Key, Listing};

/// The largest object: 1 GiB, about four times the largest package an environment holds.
pub const MAX_OBJECT_BYTES: u64 = 1 << 30;

/// What [`ObjectStore::put`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is new.
    New,
    /// It was there already, with the same content.
    Same,
}

/// An object that lies ready under one key, and is to be seen under another.
#[derive(Clone, Debug)]
pub struct Move {
    /// Where it was put.
    pub from: Key,
    /// Its place.
    pub to: Key,
    /// What it holds: a store that can't rename writes it again.
    pub bytes: Bytes,
}

/// A piece of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What there is of it: fewer bytes than were asked for if the object ends.
    pub bytes: Bytes,
    /// Bytes of the whole object.
    pub size: u64,
}

/// Objects by key.
///
/// - *Durability*: a write that returned `Ok` is on disk. One that returned `Err`, or whose
///   future was dropped, has happened wholly or not at all, and only reading tells. A deletion
///   may be undone by a power cut: it only makes room, and whoever relies on it repeats it.
/// - *Order*: a write that returned is seen by every later read, from every process.
/// - *Concurrency*: any number of calls at once. Of several `put`s of one key, all those with
///   the content that got there first succeed, the others are [`Error::Conflict`].
/// - *Retry*: every call may be repeated.
/// - *Names*: a key must not be the folder of another key (files and folders would collide).
///
/// A store does not check what it gives back: disks lie, and so may the store's owner.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Writes an object that never changes.
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, Error>;

    /// Writes many such objects, in any order and much faster than one by one. All are on disk
    /// when it returns `Ok`; after an error, any of them may be.
    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), Error>;

    /// Gives objects that were `put` their places, many at once. All are in place, as if `put`
    /// there, when it returns `Ok`; after an error each is where it was, in its place, or both.
    async fn move_all(&self, moves: Vec<Move>) -> Result<(), Error> {
        let (from, objects): (Vec<Key>, Vec<_>) = moves.into_iter().map(|it| (it.from, (it.to, it.bytes))).unzip();
        self.put_all(objects).await?;
        for key in &from {
            self.delete(key).await?;
        }
        Ok(())
    }

    /// Writes or overwrites one of the few objects that change. Readers see the old content or
    /// the new. A key is used either with `put` or with `replace`, never with both.
    ///
    /// Where several processes write, this is [`Error::Conflict`] if another has replaced the object
    /// since this one last read or replaced it: one that was asleep undoes nothing.
    async fn replace(&self, key: &Key, bytes: Bytes) -> Result<(), Error>;

    /// The object's content, if there is one.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error>;

    /// A piece of the object, from byte `range.start` to before `range.end`, if there is one. This reads
    /// all of it; a store that need not does not.
    async fn get_piece(&self, key: &Key, range: Range<u64>) -> Result<Option<Piece>, Error> {
        let Some(bytes) = self.get(key).await? else { return Ok(None) };
        let size = bytes.len() as u64;
        // Both are at most the length, which is one of memory.
        let [start, end] = [range.start.min(size), range.end.min(size)].map(|at| usize::try_from(at).unwrap_or(0));
        Ok(Some(Piece { bytes: bytes.slice(start..end.max(start)), size }))
    }

    /// Keys in byte order. Objects written or deleted meanwhile may or may not be listed.
    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, Error>;

    /// How many bytes all objects have together. What is written or deleted meanwhile may or may not
    /// count. This reads them all; a store that knows better does.
    async fn bytes(&self) -> Result<u64, Error> {
        let (mut sum, mut listing) = (0_u64, Listing::of(Folder::Root));
        loop {
            let page = self.list(&listing).await?;
            let Some(last) = page.last().cloned() else { return Ok(sum) };
            for key in &page {
                sum = sum.saturating_add(self.get(key).await?.map_or(0, |bytes| bytes.len() as u64));
            }
            listing = listing.after(last);
        }
    }

    /// Deletes the object; a missing one is no error.
    async fn delete(&self, key: &Key) -> Result<(), Error>;
}
