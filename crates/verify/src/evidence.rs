//! Statements that are signed, and statements that are recorded.

use std::collections::BTreeSet;

use attest::{Bundle, BundleEntry, Envelope, Predicate, Statement, StatementId, predicate_type};
use policy::{Role, Signer};
use stdx::UnixTime;
use tlog::{Checkpoint, EntryIndex, leaf_hash};

use crate::refusal::Refusal;
use crate::trust::TrustedPolicy;

/// A statement that somebody with the right role signed.
#[derive(Clone, Debug)]
pub struct Verified<P> {
    statement: Statement<P>,
    id: StatementId,
    signers: BTreeSet<Signer>,
}

impl<P> Verified<P> {
    pub(crate) const fn new(statement: Statement<P>, id: StatementId, signers: BTreeSet<Signer>) -> Self {
        Self { statement, id, signers }
    }

    /// The statement.
    #[must_use]
    pub const fn statement(&self) -> &Statement<P> {
        &self.statement
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// Who signed.
    #[must_use]
    pub const fn signers(&self) -> &BTreeSet<Signer> {
        &self.signers
    }
}

/// A verified statement that is an entry of the log it was made for, under a checkpoint that a
/// quorum of witnesses cosigned.
#[derive(Clone, Debug)]
pub struct Recorded<P> {
    verified: Verified<P>,
    index: EntryIndex,
    checkpoint: Checkpoint,
    time: UnixTime,
}

impl<P> Recorded<P> {
    /// The statement.
    #[must_use]
    pub const fn statement(&self) -> &Statement<P> {
        self.verified.statement()
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.verified.id
    }

    /// Who signed.
    #[must_use]
    pub const fn signers(&self) -> &BTreeSet<Signer> {
        &self.verified.signers
    }

    /// Its index in the log.
    #[must_use]
    pub const fn index(&self) -> EntryIndex {
        self.index
    }

    /// The cosigned checkpoint it is under.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Evidence time: at this time a quorum had seen the checkpoint.
    #[must_use]
    pub const fn time(&self) -> UnixTime {
        self.time
    }
}

/// A bundle whose checkpoints have been verified, each once.
#[derive(Debug)]
pub struct Evidence<'a> {
    policy: &'a TrustedPolicy,
    bundle: &'a Bundle,
    /// Evidence time of each checkpoint, in the bundle's order.
    times: Vec<UnixTime>,
}

impl<'a> Evidence<'a> {
    /// Verifies the log's signature and the quorum of every checkpoint in `bundle`.
    ///
    /// # Errors
    /// [`Refusal::Checkpoint`] for the first that fails: one bad member spoils the bundle.
    pub fn open(policy: &'a TrustedPolicy, bundle: &'a Bundle) -> Result<Self, Refusal> {
        let times = bundle.checkpoints().iter().map(|signed| policy.evidence_time(signed));
        let times = times.collect::<Result<_, _>>()?;
        Ok(Self { policy, bundle, times })
    }

    /// The policy that it was opened under.
    #[must_use]
    pub const fn policy(&self) -> &'a TrustedPolicy {
        self.policy
    }

    /// The latest evidence time in the bundle; the Epoch if it is empty.
    #[must_use]
    pub fn latest(&self) -> UnixTime {
        self.times.iter().copied().max().unwrap_or(UnixTime::EPOCH)
    }

    /// The checkpoints, all of them cosigned by a quorum.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        self.bundle.checkpoints().iter().map(|signed| signed.checkpoint())
    }

    /// Every entry that claims to be a `P`, verified and recorded.
    ///
    /// # Errors
    /// [`Refusal`] for the first that is not what it claims, or when one stands twice.
    pub fn all<P: Predicate>(&self, role: Role) -> Result<Vec<Recorded<P>>, Refusal> {
        let mut found: Vec<Recorded<P>> = Vec::new();
        for entry in self.entries_of::<P>() {
            let recorded = self.record(entry, role)?;
            if found.iter().any(|other| other.id() == recorded.id()) {
                return Err(Refusal::Shape(format!("holds statement {} twice", recorded.id())));
            }
            found.push(recorded);
        }
        Ok(found)
    }

    /// The one entry that claims to be a `P`.
    ///
    /// # Errors
    /// As [`Evidence::all`], and when there is none or more than one.
    pub fn one<P: Predicate>(&self, role: Role) -> Result<Recorded<P>, Refusal> {
        self.only(role).map(|(_, recorded)| recorded)
    }

    pub(crate) fn only<P: Predicate>(&self, role: Role) -> Result<(&'a Envelope, Recorded<P>), Refusal> {
        let mut entries = self.entries_of::<P>();
        match (entries.next(), entries.next()) {
            (Some(entry), None) => Ok((&entry.envelope, self.record(entry, role)?)),
            (None, _) => Err(Refusal::Shape(format!("holds no `{}`", predicate_type::<P>()))),
            _ => Err(Refusal::Shape(format!("holds several `{}`", predicate_type::<P>()))),
        }
    }

    /// How many entries the bundle has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.bundle.entries().len()
    }

    /// How many entries claim to be a `P`.
    pub(crate) fn count<P: Predicate>(&self) -> usize {
        self.entries_of::<P>().count()
    }

    fn entries_of<P: Predicate>(&self) -> impl Iterator<Item = &'a BundleEntry> + use<'a, P> {
        let expected = predicate_type::<P>();
        self.bundle.entries().iter().filter(move |entry| entry.envelope.claimed_type().as_deref() == Some(&expected))
    }

    fn record<P: Predicate>(&self, entry: &BundleEntry, role: Role) -> Result<Recorded<P>, Refusal> {
        let verified = self.policy.verify::<P>(&entry.envelope, role)?;
        let id = verified.id;
        let number = self.bundle.checkpoints().iter().position(|it| it == entry.proof.checkpoint());
        let time = number.and_then(|number| self.times.get(number)).ok_or(Refusal::NotIncluded(id))?;
        let checkpoint = entry.proof.checkpoint().checkpoint().clone();
        let leaf = leaf_hash(&entry.envelope.to_bytes());
        let included = entry.proof.path().verify(entry.proof.index(), &leaf, checkpoint.head());
        included.map_err(|_| Refusal::NotIncluded(id))?;
        let expected = verified.statement.predicate.position().map(|position| &position.log);
        if expected != Some(checkpoint.origin()) {
            let expected = expected.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(Refusal::WrongLog { id, expected, found: checkpoint.origin().clone() });
        }
        Ok(Recorded { verified, index: entry.proof.index(), checkpoint, time: *time })
    }
}
