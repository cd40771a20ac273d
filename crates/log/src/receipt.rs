//! What an appender gets.

use std::sync::Arc;

use tlog::{EntryIndex, LogProof, SignedCheckpoint};

use crate::Error;
use crate::pool::{Place, Progress, Published};

/// An entry that was taken in. Dropping it doesn't take the entry back.
#[derive(Debug)]
pub struct Ticket(pub(crate) Taken);

#[derive(Debug)]
pub(crate) enum Taken {
    Waiting(Place),
    Published(Box<LogProof>),
}

impl Ticket {
    /// Waits until the entry is under a signed checkpoint that is on disk, and gives its index.
    /// That is no evidence yet: nobody outside has seen the checkpoint.
    ///
    /// # Errors
    /// [`Error::Stopped`] or [`Error::Closed`], if the log ended before.
    pub async fn sequenced(&mut self) -> Result<EntryIndex, Error> {
        match &mut self.0 {
            Taken::Published(proof) => Ok(proof.index()),
            Taken::Waiting(place) => {
                let position = place.position;
                let progress = place.progress.wait_for(|progress| !matches!(progress, Progress::Waiting)).await;
                match &*progress.map_err(|_| Error::Closed)? {
                    Progress::Sequenced(first) => Ok(EntryIndex::new(first.get() + position)),
                    Progress::Published(published) => Ok(EntryIndex::new(published.first.get() + position)),
                    Progress::Stopped(reason) => Err(Error::Stopped(Arc::clone(reason))),
                    Progress::Waiting => Err(Error::Closed),
                }
            }
        }
    }

    /// Waits until the entry is under a published checkpoint that a quorum of witnesses cosigned.
    ///
    /// # Errors
    /// [`Error::Stopped`] or [`Error::Closed`], if the log ended before.
    pub async fn published(self) -> Result<Receipt, Error> {
        let Place { mut progress, position } = match self.0 {
            Taken::Published(proof) => return Ok(Receipt(Source::Made(proof))),
            Taken::Waiting(place) => place,
        };
        let ended = |progress: &Progress| matches!(progress, Progress::Published(_) | Progress::Stopped(_));
        match &*progress.wait_for(ended).await.map_err(|_| Error::Closed)? {
            Progress::Published(published) => Ok(Receipt(Source::Batch(Arc::clone(published), position))),
            Progress::Stopped(reason) => Err(Error::Stopped(Arc::clone(reason))),
            Progress::Waiting | Progress::Sequenced(_) => Err(Error::Closed),
        }
    }
}

/// An entry stands in the log, for everyone to see.
#[derive(Clone, Debug)]
pub struct Receipt(Source);

#[derive(Clone, Debug)]
enum Source {
    Batch(Arc<Published>, u64),
    Made(Box<LogProof>),
}

impl Receipt {
    /// Where it stands.
    #[must_use]
    pub fn index(&self) -> EntryIndex {
        match &self.0 {
            Source::Batch(published, position) => EntryIndex::new(published.first.get() + position),
            Source::Made(proof) => proof.index(),
        }
    }

    /// The published checkpoint that it stands under.
    #[must_use]
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        match &self.0 {
            Source::Batch(published, _) => &published.checkpoint,
            Source::Made(proof) => proof.checkpoint(),
        }
    }

    /// The proof of it.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a batch keeps the nodes of its proofs")]
    pub fn proof(&self) -> LogProof {
        match &self.0 {
            Source::Made(proof) => LogProof::clone(proof),
            Source::Batch(published, _) => {
                let size = published.checkpoint.checkpoint().size();
                let path = published.nodes.inclusion(self.index(), size);
                let path = path.expect("a batch keeps every tile above its entries");
                LogProof::new(self.index(), path, published.checkpoint.clone())
            }
        }
    }
}
