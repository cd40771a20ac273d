//! What has been seen of a log: it may only grow.

use serde::{Deserialize, Serialize};
use tlog::{Checkpoint, ConsistencyProof, Growth, Hash, Origin, TreeHead, TreeSize};

use crate::Refusal;

/// The largest checkpoint of a log that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The log.
    pub origin: Origin,
    /// Its size.
    pub size: TreeSize,
    /// Its root.
    pub root: Hash,
    /// Whether a step up to here was taken on the quorum's word alone, without a consistency
    /// proof; to be made up for when online. A later step that is proven says nothing of that one,
    /// so [`Seen::advance`] never clears this: whoever kept the trees that were seen does, once each
    /// is proven to be a part of the largest.
    pub gap: bool,
}

/// How a checkpoint relates to what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Proven consistent, or the same.
    Proven(Seen),
    /// Only the quorum speaks for it; the gap is remembered.
    Gap(Seen),
}

impl Advance {
    /// What is to be remembered.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        match self {
            Self::Proven(seen) | Self::Gap(seen) => seen,
        }
    }
}

impl Seen {
    /// The first checkpoint of a log.
    #[must_use]
    pub fn first(checkpoint: &Checkpoint) -> Self {
        Self { origin: checkpoint.origin().clone(), size: checkpoint.size(), root: *checkpoint.root(), gap: false }
    }

    /// Compares `checkpoint` (cosigned by a quorum) with what was seen. `proof` leads from the
    /// smaller of the two to the larger; without it the quorum stands in and the gap is kept.
    ///
    /// # Errors
    /// [`Refusal::SplitView`] when the two can't both be true.
    pub fn advance(&self, checkpoint: &Checkpoint, proof: Option<&ConsistencyProof>) -> Result<Advance, Refusal> {
        let split = |detail: String| Refusal::SplitView { origin: checkpoint.origin().clone(), detail };
        if *checkpoint.origin() != self.origin {
            return Err(split(format!("the other checkpoint is of `{}`", self.origin)));
        }
        let (seen, found) = (TreeHead { size: self.size, root: self.root }, *checkpoint.head());
        if found == seen {
            return Ok(Advance::Proven(self.clone()));
        }
        if found.size == seen.size {
            return Err(split(format!("two roots at size {}", seen.size)));
        }
        let growth = if found.size > seen.size {
            Growth { old: &seen, new: &found }
        } else {
            Growth { old: &found, new: &seen }
        };
        let largest = Self { origin: self.origin.clone(), size: growth.new.size, root: growth.new.root, gap: self.gap };
        match proof {
            Some(proof) => match proof.verify(growth) {
                Ok(()) => Ok(Advance::Proven(largest)),
                Err(error) => Err(split(format!("sizes {} and {}: {error}", growth.old.size, growth.new.size))),
            },
            None => Ok(Advance::Gap(Self { gap: true, ..largest })),
        }
    }
}
