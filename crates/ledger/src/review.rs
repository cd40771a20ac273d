//! Who gets to see private parts: whoever has a review in the log, sealed to the key that it names.

use std::time::Duration;

use attest::{AccessReview, Commitment, Opening, StatementId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::Role;
use seal::{KeyError, PrivateKey, PublicKey, Wrapped};
use serde::{Deserialize, Serialize};
use stdx::{Entropy, EntropyError, UnixTime};
use verify::Evidence;

/// So many at once: 4 MB of answer at most.
pub const DISCLOSED_MAX: usize = 128;

/// A review is good for a day.
const REVIEW_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why nothing is given out.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The evidence does not hold.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// What is wrong with the review.
    #[error("review {0}: {1}")]
    Unfit(StatementId, &'static str),
    /// The key.
    #[error("the reviewer's key")]
    Key(#[from] KeyError),
}

/// A review that is in the log, and whom its answers are sealed to. Only [`Reviewing::of`] makes one.
#[derive(Clone, Debug)]
pub struct Reviewing {
    review: StatementId,
    key: PublicKey,
}

/// A private part, sealed to a reviewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosure {
    /// What it opens.
    pub commitment: Commitment,
    /// HPKE's encapsulated key, in base64.
    pub encapsulated: String,
    /// The sealed opening, in base64.
    pub sealed: String,
}

impl Reviewing {
    /// The review in `evidence`, which holds nothing else, and the key whose SHA-256 it names.
    ///
    /// # Errors
    /// [`ReviewError`].
    pub fn of(evidence: &Evidence<'_>, key: &str, clock: UnixTime) -> Result<Self, ReviewError> {
        let review = evidence.one::<AccessReview>(Role::Approver)?;
        let (id, says) = (review.id(), &review.statement().predicate);
        let unfit = |why| ReviewError::Unfit(id, why);
        if evidence.entries() != 1 {
            return Err(unfit("holds entries that nobody asked for"));
        }
        let log = evidence.policy().policy().residency.as_ref().map(|residency| &residency.log);
        if log != Some(review.checkpoint().origin()) {
            return Err(unfit("stands in another log than accesses do"));
        }
        let stream = says.position.stream.as_str().strip_prefix("data/");
        if !review.signers().iter().any(|signer| Some(signer.organisation.as_str()) == stream) {
            return Err(unfit("is not signed by the organisation whose stream it is in"));
        }
        let now = clock.max(evidence.latest());
        if says.until > review.time().after(REVIEW_MAX) {
            return Err(unfit("is good for longer than a day"));
        }
        if now >= says.until {
            return Err(unfit("is over"));
        }
        let key: PublicKey = key.parse()?;
        if key.id() != says.key {
            return Err(unfit("names another key"));
        }
        Ok(Self { review: id, key })
    }

    /// The review.
    #[must_use]
    pub const fn review(&self) -> StatementId {
        self.review
    }

    /// Seals a private part to the reviewer.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn disclose(&self, opening: &Opening, entropy: &dyn Entropy) -> Result<Disclosure, EntropyError> {
        let commitment = opening.commitment();
        let wrapped = Wrapped::seal(&opening.to_bytes(), &self.key, &info(self.review, &commitment), entropy)?;
        let (encapsulated, sealed) = (STANDARD.encode(wrapped.encapsulated), STANDARD.encode(wrapped.sealed));
        Ok(Disclosure { commitment, encapsulated, sealed })
    }
}

/// What a holder gave, opened with the review's key: `None` if it is not what it says that it is.
#[must_use]
pub fn open_disclosure(disclosure: &Disclosure, review: StatementId, key: &PrivateKey) -> Option<Opening> {
    let decode = |text: &String| STANDARD.decode(text).ok();
    let wrapped = Wrapped { encapsulated: decode(&disclosure.encapsulated)?, sealed: decode(&disclosure.sealed)? };
    let bytes = wrapped.open(key, &info(review, &disclosure.commitment))?;
    let opening = Opening::parse(&bytes).ok()?;
    (opening.commitment() == disclosure.commitment).then_some(opening)
}

fn info(review: StatementId, commitment: &Commitment) -> Vec<u8> {
    format!("clerestory/review/v1\n{review}\n{commitment}\n").into_bytes()
}
