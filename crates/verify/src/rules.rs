//! What can be said of one entry of a log by itself: whether it may be in this log and stream, and
//! who signed it. Logs refuse and auditors report by this one judgement.

use std::collections::HashMap;

use attest::{Envelope, EnvelopeSignature, KeyRef, OrganisationId, Position, StreamName};
use serde::Deserialize;
use tlog::{Origin, VerifierKey};

use crate::stream::ViolationKind;
use crate::trust::TrustedPolicy;

/// What a policy says of the streams of one log and of all keys, so arranged that an entry costs
/// a look-up and one check of each signature.
#[derive(Clone, Debug)]
pub struct LogRules {
    log: Origin,
    streams: HashMap<StreamName, Opened>,
    /// A name is mostly one key's; its four bytes of hash promise nothing.
    keys: HashMap<KeyRef, Vec<(OrganisationId, VerifierKey)>>,
}

#[derive(Clone, Debug)]
struct Opened {
    organisation: OrganisationId,
    interval_s: u64,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offence {
    /// The stream that it names, if it could be read.
    pub stream: Option<StreamName>,
    /// What is wrong.
    pub kind: ViolationKind,
    /// In words.
    pub detail: String,
}

/// An entry of a stream that the policy opens in this log; its place in the stream is not judged.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The entry.
    pub envelope: Envelope,
    /// Where it says that it stands.
    pub position: Position,
    /// How long its stream may be silent.
    pub interval_s: u64,
    organisation: OrganisationId,
    signers: Vec<Signer>,
}

/// Who made a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The organisation that writes the stream.
    Writer,
    /// Another organisation of the policy.
    Other,
    /// The policy names no such key.
    Unnamed,
    /// It names one, and that key did not make this signature.
    Wrong,
}

/// Where any of our predicates keeps its position.
#[derive(Deserialize)]
struct AnyStatement {
    predicate: AnyPredicate,
}

#[derive(Deserialize)]
struct AnyPredicate {
    #[serde(alias = "https://clerestory.example/position")]
    position: Position,
}

/// Reads an entry and its statement's position. No signature is checked.
pub(crate) fn read(bytes: &[u8]) -> Result<(Envelope, Position), &'static str> {
    let envelope = Envelope::parse(bytes).map_err(|_| "not a canonical envelope")?;
    let statement = serde_json::from_slice(envelope.payload()).map_err(|_| "its statement has no position")?;
    let AnyStatement { predicate: AnyPredicate { position } } = statement;
    Ok((envelope, position))
}

impl LogRules {
    /// What `policy` says of the log `log`.
    #[must_use]
    pub fn new(policy: &TrustedPolicy, log: Origin) -> Self {
        let opened =
            policy.policy().streams.iter().filter(|it| it.log == log).map(|it| {
                (it.stream.clone(), Opened { organisation: it.organisation.clone(), interval_s: it.interval_s })
            });
        let streams = opened.collect();
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for organisation in &policy.policy().organisations {
            for key in &organisation.keys {
                keys.entry(KeyRef::of(&key.key)).or_default().push((organisation.id.clone(), key.key.clone()));
            }
        }
        Self { log, streams, keys }
    }

    /// Reads an entry and checks each of its signatures.
    ///
    /// # Errors
    /// [`Offence`] when it is no entry of an open stream of this log. Whether who signed is enough
    /// is left to the caller.
    pub fn judge(&self, bytes: &[u8]) -> Result<Judged, Offence> {
        let offence = |stream, kind, detail| Err(Offence { stream, kind, detail });
        let (envelope, position) = match read(bytes) {
            Ok(read) => read,
            Err(detail) => return offence(None, ViolationKind::Unreadable, detail.to_owned()),
        };
        let stream = Some(&position.stream);
        if position.log != self.log {
            return offence(stream.cloned(), ViolationKind::WrongLog, format!("made for log `{}`", position.log));
        }
        let Some(Opened { organisation, interval_s }) = self.streams.get(&position.stream) else {
            let detail = "the policy does not open it".to_owned();
            return offence(stream.cloned(), ViolationKind::UnknownStream, detail);
        };
        let signers = envelope.signatures().iter().map(|signature| self.signer(&envelope, signature, organisation));
        let signers = signers.collect();
        Ok(Judged { position, interval_s: *interval_s, organisation: organisation.clone(), signers, envelope })
    }

    fn signer(&self, envelope: &Envelope, signature: &EnvelopeSignature, writer: &OrganisationId) -> Signer {
        let Some(named) = self.keys.get(&signature.key) else { return Signer::Unnamed };
        let by = named.iter().filter(|(_, key)| envelope.signed_by(key).unwrap_or(false));
        by.fold(Signer::Wrong, |found, (organisation, _)| match found {
            Signer::Writer => found,
            _ if organisation == writer => Signer::Writer,
            _ => Signer::Other,
        })
    }
}

impl Judged {
    /// Who made each signature, in the envelope's order.
    pub fn signers(&self) -> impl Iterator<Item = (&EnvelopeSignature, Signer)> {
        self.envelope.signatures().iter().zip(self.signers.iter().copied())
    }

    /// A key of the organisation that writes the stream has signed.
    ///
    /// # Errors
    /// [`Offence`] when none has.
    pub fn by_writer(&self) -> Result<(), Offence> {
        if self.signers.contains(&Signer::Writer) {
            return Ok(());
        }
        let detail = format!("no key of `{}` has signed it", self.organisation);
        Err(Offence { stream: Some(self.position.stream.clone()), kind: ViolationKind::WrongSigner, detail })
    }
}
