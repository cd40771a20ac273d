//! A log: made, opened, appended to.

use std::sync::Arc;

use bytes::Bytes;
use storage::{Listing, Swap};
use tlog::{
    Checkpoint, EntryIndex, Hash, LogProof, MAX_ENTRY_BYTES, Origin, ProofError, SignedCheckpoint, TreeHead, TreeSize,
    leaf_hash,
};
use tokio::sync::watch;

use crate::locked::Locked;
use crate::pool::{Offered, Pool};
use crate::receipt::Taken;
use crate::sequencer::Sequencer;
use crate::source::ObjectSource;
use crate::{Error, LogParts, ReadError, Reader, Receipt, Ticket, TileSource, Waiting, layout, open, resume};

/// A log, for those who append to it and read it. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

/// What appenders and the sequencer share.
pub(crate) struct Shared {
    pub(crate) parts: LogParts,
    pub(crate) origin: Origin,
    pub(crate) pool: Pool,
    pub(crate) published: watch::Sender<Option<Arc<SignedCheckpoint>>>,
    pub(crate) signed: watch::Sender<TreeHead>,
}

impl Shared {
    /// The log as of `head`, read from its own store.
    pub(crate) fn reader(&self, head: TreeHead) -> Reader {
        Reader::new(source(&self.parts), head)
    }
}

pub(crate) fn source(parts: &LogParts) -> Arc<dyn TileSource> {
    Arc::new(ObjectSource(Arc::clone(&parts.objects)))
}

impl Log {
    /// Makes an empty log: its first checkpoint is signed, and published once the log is opened.
    ///
    /// # Errors
    /// [`Error::Existence`] when there is one already; [`Error::Config`]; errors of the stores.
    pub async fn create(parts: &LogParts) -> Result<(), Error> {
        parts.quorum()?;
        let origin = parts.origin()?;
        let there = |found| Err(Error::Existence { found });
        if parts.locks.get(&layout::lock(&origin)).await?.is_some() {
            return there("exists already");
        }
        let any = Listing { limit: 1, ..Listing::of(storage::Folder::Root) };
        if !parts.objects.list(&any).await?.is_empty() {
            return there("has objects already, but no lock");
        }
        let checkpoint = sign(parts, &origin, TreeHead::EMPTY);
        let locked = Locked { old: TreeHead::EMPTY, batch: Bytes::new(), checkpoint, version: None };
        match parts.locks.compare_and_swap(&layout::lock(&origin), None, locked.to_bytes()).await? {
            Swap::Won(_) => Ok(()),
            Swap::Lost => there("exists already"),
        }
    }

    /// Opens a log: finishes what a crash left unfinished, checks the log against its own history
    /// and against the witnesses, and gives the sequencer that makes it grow.
    ///
    /// Too few witnesses are no error yet: nothing is signed before enough have answered.
    ///
    /// # Errors
    /// [`Error::Existence`] when there is none; [`Error::Config`]; errors of class `Fatal` when
    /// what is stored can't be trusted; errors of the stores.
    pub async fn open(parts: LogParts) -> Result<(Self, Sequencer), Error> {
        open::open(parts).await
    }

    /// Gives a log whose lock was lost a new one, at the checkpoint that its objects show as
    /// published; [`open`](Self::open) then goes on from there.
    ///
    /// Every witness must answer, and none may know more. What can't be ruled out is a checkpoint
    /// that was signed and sent, and kept by faulty witnesses alone.
    ///
    /// # Errors
    /// [`Error::Existence`] when there is a lock, or nothing was published; [`Error::TooFewAnswers`];
    /// [`Error::Contradicted`] when a witness knows another tree or a larger one, or has forgotten
    /// itself; [`Error::Corrupt`], [`Error::Read`]; errors of the stores. Nothing is signed then.
    pub async fn resume(parts: &LogParts) -> Result<TreeHead, Error> {
        resume::resume(parts).await
    }

    /// Appends an entry and waits until it is published. An entry that the log has already is not
    /// appended again.
    ///
    /// # Errors
    /// [`Error::EntrySize`]; [`Error::Full`], [`Error::NotYetPublished`]; [`Error::Read`];
    /// [`Error::Stopped`], [`Error::Closed`].
    pub async fn append(&self, entry: Bytes) -> Result<Receipt, Error> {
        self.submit(entry).await?.published().await
    }

    /// Takes an entry in without waiting for it to be published.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn submit(&self, entry: Bytes) -> Result<Ticket, Error> {
        if entry.is_empty() || entry.len() > MAX_ENTRY_BYTES {
            return Err(Error::EntrySize(entry.len()));
        }
        // 65,535 bytes at 1.5 GB/s are 0.04 ms: no work for another thread.
        let leaf = leaf_hash(&entry);
        let mut others: Vec<EntryIndex> = Vec::new();
        loop {
            match self.shared.pool.offer(&entry, &leaf, &others)? {
                Offered::Waiting(place) => return Ok(Ticket(Taken::Waiting(place))),
                Offered::Perhaps(candidates) => {
                    if let Some(ticket) = self.among(&candidates, &leaf).await? {
                        return Ok(ticket);
                    }
                    others.extend(candidates);
                }
            }
        }
    }

    /// The ticket of an entry that was taken in before; `None` for one that is new.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn find(&self, entry: &[u8]) -> Result<Option<Ticket>, Error> {
        let leaf = leaf_hash(entry);
        match self.shared.pool.find(&leaf)? {
            Offered::Waiting(place) => Ok(Some(Ticket(Taken::Waiting(place)))),
            Offered::Perhaps(candidates) => self.among(&candidates, &leaf).await,
        }
    }

    /// The one of these published entries that has this leaf hash.
    async fn among(&self, candidates: &[EntryIndex], leaf: &Hash) -> Result<Option<Ticket>, Error> {
        for index in candidates {
            if self.published().is_none_or(|published| published.checkpoint().size().get() <= index.get()) {
                return Err(Error::NotYetPublished);
            }
            let (found, proof) = self.leaf(*index).await?;
            if found == *leaf {
                return Ok(Some(Ticket(Taken::Published(Box::new(proof)))));
            }
        }
        Ok(None)
    }

    /// The proof of a published entry.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn proof(&self, index: EntryIndex) -> Result<LogProof, Error> {
        Ok(self.leaf(index).await?.1)
    }

    /// The published checkpoint with its cosignatures; `None` before the first.
    #[must_use]
    pub fn published(&self) -> Option<Arc<SignedCheckpoint>> {
        self.shared.published.borrow().clone()
    }

    /// The head of the tree that this log has signed: the published one, or the next. Every entry
    /// below it stays where it is.
    #[must_use]
    pub fn signed_head(&self) -> TreeHead {
        *self.shared.signed.borrow()
    }

    /// Tells when another checkpoint is published.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<SignedCheckpoint>>> {
        self.shared.published.subscribe()
    }

    /// What is on its way into the log.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.shared.pool.waiting()
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    async fn leaf(&self, index: EntryIndex) -> Result<(Hash, LogProof), Error> {
        let nothing = ProofError::OutOfTree { index, size: TreeSize::ZERO };
        let checkpoint = self.published().ok_or(ReadError::Tree(nothing))?;
        let (leaf, path) = self.shared.reader(*checkpoint.checkpoint().head()).inclusion(index).await?;
        Ok((leaf, LogProof::new(index, path, SignedCheckpoint::clone(&checkpoint))))
    }
}

/// The log's own signature on this head of its tree.
pub(crate) fn sign(parts: &LogParts, origin: &Origin, head: TreeHead) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(origin.clone(), head).expect("the empty tree has the empty root");
    SignedCheckpoint::sign(checkpoint, &parts.signer).expect("the key was checked to be this log's")
}
