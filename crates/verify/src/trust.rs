//! How trust in a policy begins, and how it is handed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use attest::{Envelope, KeyRef, Predicate, Statement, StatementId};
use policy::{Policy, PolicyDocument, Quorum, Role, Signer};
use stdx::UnixTime;
use tlog::{LogPolicy, Origin, SignedCheckpoint};

use crate::evidence::{Evidence, Verified};
use crate::known::Known;
use crate::refusal::Refusal;

/// A policy that is trusted: by its hash, or because the policy before it agreed.
#[derive(Clone, Debug)]
pub struct TrustedPolicy {
    document: PolicyDocument,
    id: StatementId,
    witnessing: LogPolicy,
    quorum: Quorum,
    /// This policy and its predecessors, oldest first.
    lineage: Vec<StatementId>,
    known: Arc<Signatures>,
}

/// Those that were found good under this policy.
#[derive(Debug, Default)]
struct Signatures {
    /// By role: who signed.
    envelopes: Known<BTreeSet<Signer>>,
    /// Evidence times.
    checkpoints: Known<UnixTime>,
}

impl TrustedPolicy {
    /// Trusts a genesis policy because its identity was learnt from another channel. There is no
    /// trust on first use.
    ///
    /// # Errors
    /// [`Refusal::Policy`] when it is another policy, not a genesis, senseless, or not signed as
    /// it demands itself.
    pub fn bootstrap(envelope: &Envelope, expected: &StatementId) -> Result<Self, Refusal> {
        if envelope.id() != *expected {
            return Err(refuse(format!("its hash is {}, expected {expected}", envelope.id())));
        }
        let document = decode::<PolicyDocument>(envelope)?.predicate;
        if document.previous.is_some() || document.policy.version != 1 {
            return Err(refuse("a genesis policy has version 1 and no predecessor"));
        }
        Self::accept(document, envelope, Vec::new())
    }

    /// Trusts the next version: signed as this one and as the next one demands, counted by
    /// organisation, and recorded under this one's witnesses.
    ///
    /// # Errors
    /// [`Refusal`] when any of that does not hold.
    pub fn succeed(&self, evidence: &Evidence<'_>) -> Result<Self, Refusal> {
        let (envelope, recorded) = evidence.only::<PolicyDocument>(Role::Policy)?;
        let document = recorded.statement().predicate.clone();
        if document.previous != Some(self.id) || document.policy.version != self.document.policy.version + 1 {
            return Err(Refusal::Rollback {
                what: "policy",
                seen: format!("version {} ({})", self.document.policy.version, self.id),
                found: format!("version {}", document.policy.version),
            });
        }
        let policy = self.policy();
        Policy::decide(Role::Policy, &policy.change, recorded.signers())
            .map_err(|missing| Refusal::Missing { what: "the policy's succession", missing })?;
        Self::accept(document, envelope, self.lineage.clone())
    }

    fn accept(document: PolicyDocument, envelope: &Envelope, mut lineage: Vec<StatementId>) -> Result<Self, Refusal> {
        let (witnessing, quorum) = document.policy.check().map_err(|error| refuse(error.to_string()))?;
        let signers = signers(&document.policy, envelope, Role::Policy)?;
        Policy::decide(Role::Policy, &document.policy.change, &signers)
            .map_err(|missing| Refusal::Missing { what: "the policy", missing })?;
        lineage.push(envelope.id());
        Ok(Self { document, id: envelope.id(), witnessing, quorum, lineage, known: Arc::default() })
    }

    /// What it says.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.document.policy
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// Its logs and witnesses.
    #[must_use]
    pub const fn witnessing(&self) -> &LogPolicy {
        &self.witnessing
    }

    /// Its quorum.
    #[must_use]
    pub const fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// Whether `id` is this policy or one that led to it.
    #[must_use]
    pub fn descends_from(&self, id: &StatementId) -> bool {
        self.lineage.contains(id)
    }

    /// Checks an envelope's signatures by `role` and reads the statement.
    ///
    /// # Errors
    /// [`Refusal`] when a known key's signature fails, nobody with that role signed, or the
    /// payload is not a statement of type `P`.
    pub fn verify<P: Predicate>(&self, envelope: &Envelope, role: Role) -> Result<Verified<P>, Refusal> {
        let bytes = [role.to_string().as_bytes(), b"\n", &envelope.to_bytes()].concat();
        let signers = self.known.envelopes.or_look(&bytes, || {
            let signers = signers(self.policy(), envelope, role)?;
            if signers.is_empty() { Err(Refusal::NotSigned { id: envelope.id(), role }) } else { Ok(signers) }
        })?;
        // Only now is the payload parsed as what it claims to be.
        Ok(Verified::new(decode(envelope)?, envelope.id(), signers))
    }

    /// The evidence time of a checkpoint that its log has signed and a quorum of witnesses has cosigned.
    pub(crate) fn evidence_time(&self, signed: &SignedCheckpoint) -> Result<UnixTime, Refusal> {
        let checkpoint = signed.checkpoint();
        let refuse =
            |error: String| Refusal::Checkpoint { origin: checkpoint.origin().clone(), size: checkpoint.size(), error };
        if !self.knows_log(checkpoint.origin()) {
            return Err(refuse("the policy has no such log".to_owned()));
        }
        self.known.checkpoints.or_look(signed.to_string().as_bytes(), || {
            let cosigned = self.witnessing.verify_checkpoint(signed);
            cosigned.map(|it| it.time).map_err(|error| refuse(error.to_string()))
        })
    }

    /// Whether the policy has the log of this origin.
    fn knows_log(&self, origin: &Origin) -> bool {
        self.policy().logs.iter().any(|log| log.origin == *origin)
    }
}

/// The holders of `role` that signed; one bad signature of theirs spoils the envelope.
fn signers(policy: &Policy, envelope: &Envelope, role: Role) -> Result<BTreeSet<Signer>, Refusal> {
    let mut signers = BTreeSet::new();
    for (organisation, key) in policy.keys_of(role) {
        if envelope.signed_by(key).map_err(|error| Refusal::Statement(error.to_string()))? {
            signers.insert(Signer { organisation: organisation.clone(), key: KeyRef::of(key) });
        }
    }
    Ok(signers)
}

fn decode<P: Predicate>(envelope: &Envelope) -> Result<Statement<P>, Refusal> {
    Statement::decode(envelope.payload())
        .map_err(|error| Refusal::Statement(format!("statement {}: {error}", envelope.id())))
}

fn refuse(why: impl Into<String>) -> Refusal {
    Refusal::Policy(why.into())
}
