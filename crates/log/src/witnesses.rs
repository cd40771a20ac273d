//! Asking the witnesses: what they know (before signing), and for their cosignatures (after).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use stdx::{Clock, UnixTime};
use tlog::witness_protocol::AddCheckpoint;
use tlog::{
    ConsistencyProof, KeyName, NoteSignature, Origin, SignedCheckpoint, TreeSize, VerifierKey, verify_cosignature,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Quorum;
use crate::{Error, LogParts, Reader, WITNESS_TIMEOUT, Witness, WitnessError};

/// A witness may say twice from where it starts (another request of ours was still under way)
/// before it is given up.
const ROUNDS_MAX: usize = 3;

/// A cosignature whose time is further than this from this log's clock, either way, counts as
/// none. Otherwise one lying witness among the k quickest could make the evidence time of all
/// that is published as old as it likes, and endpoints would refuse it. Clocks that are looked
/// after differ by less than a second, and an answer takes 15 s at most ([`ROUNDS_MAX`] times
/// [`WITNESS_TIMEOUT`]); 5 minutes are twenty times that, and 1/288 of the 24 hours for which
/// endpoints accept a cosignature: so much, and no more, can a liar take away or add.
const APART_MAX: Duration = Duration::from_secs(300);

/// All witnesses of a log.
pub(crate) struct Witnesses {
    origin: Origin,
    log_key: VerifierKey,
    quorum: Quorum,
    clock: Arc<dyn Clock>,
    all: Vec<Known>,
}

/// One of them, and the size it cosigned last, as far as this process has seen. The mutex is
/// held during a request, so that a slow witness gets one at a time.
#[derive(Clone)]
struct Known {
    witness: Arc<dyn Witness>,
    latest: Arc<Mutex<TreeSize>>,
}

/// Why one witness gave nothing.
enum Failure {
    /// It is silent, slow, or talks nonsense.
    Silent(String),
    /// The log must stop.
    Fatal(Error),
}

impl Witnesses {
    pub(crate) fn new(origin: Origin, quorum: Quorum, parts: &LogParts) -> Self {
        let known = |witness: &Arc<dyn Witness>| Known { witness: Arc::clone(witness), latest: Arc::default() };
        let all = parts.witnesses.iter().map(known).collect();
        Self { origin, log_key: parts.signer.verifier().clone(), quorum, clock: Arc::clone(&parts.clock), all }
    }

    /// Asks what the witnesses know of this log, and compares it with the log as `reader` has it.
    /// It is enough that so many answer that one honest witness of every earlier quorum is among
    /// them.
    pub(crate) async fn compare(&self, reader: &Reader) -> Result<(), Error> {
        let mut asked: FuturesUnordered<_> = self.all.iter().map(|known| self.ask(known, reader)).collect();
        let mut answered = 0;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(_) => answered += 1,
                Err(Failure::Silent(reason)) => tracing::warn!(reason, "a witness doesn't say what it knows"),
                Err(Failure::Fatal(error)) => return Err(error),
            }
            if answered >= self.quorum.answers {
                return Ok(());
            }
        }
        Err(Error::TooFewAnswers { answered, needed: self.quorum.answers })
    }

    /// Asks every witness, and each must answer: for a log that has forgotten what it signed, and
    /// has only what was published. A witness under `published` that knows less has forgotten, too.
    pub(crate) async fn compare_all(&self, reader: &Reader, published: &SignedCheckpoint) -> Result<(), Error> {
        let (mut answered, size) = (0, reader.head().size);
        for known in &self.all {
            let key = known.witness.key();
            let signed = published.note().verified_by(std::slice::from_ref(key)).is_ok_and(|lines| !lines.is_empty());
            match self.ask(known, reader).await {
                Ok(latest) if latest < size && signed => {
                    let (witness, contradiction) = (key.name().clone(), "is older than what it has cosigned");
                    return Err(Error::Contradicted { witness, size: latest, contradiction });
                }
                Ok(_) => answered += 1,
                Err(Failure::Silent(reason)) => tracing::warn!(reason, "a witness doesn't say what it knows"),
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
        let needed = self.all.len();
        if answered == needed { Ok(()) } else { Err(Error::TooFewAnswers { answered, needed }) }
    }

    /// The size that the witness cosigned last.
    async fn ask(&self, known: &Known, reader: &Reader) -> Result<TreeSize, Failure> {
        let Some(found) = self.checkpoint_of(known).await? else { return Ok(TreeSize::ZERO) };
        contradiction(known.witness.key(), &found, reader).await?;
        let size = found.checkpoint().size();
        if let Ok(mut latest) = known.latest.try_lock() {
            *latest = size;
        }
        Ok(size)
    }

    /// What the witness cosigned last, if this log signed it and the witness cosigned it. An
    /// answer that isn't so proves nothing, and must not stop the log.
    async fn checkpoint_of(&self, known: &Known) -> Result<Option<SignedCheckpoint>, Failure> {
        let witness = &known.witness;
        let key = witness.key();
        let found = match timeout(WITNESS_TIMEOUT, witness.checkpoint(&self.origin)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Failure::Silent(format!("{}: {error}", key.name()))),
            Err(_) => return Err(Failure::Silent(format!("{}: no answer in time", key.name()))),
        };
        let Some(found) = found else { return Ok(None) };
        found.verify_log(&self.log_key).map_err(|error| Failure::Silent(format!("{}: {error}", key.name())))?;
        found
            .note()
            .verified_by(std::slice::from_ref(key))
            .map_err(|error| Failure::Silent(format!("{}: {error}", key.name())))?;
        Ok(Some(found))
    }

    /// Gets cosignatures of believable times from a quorum; the others go on in the background.
    pub(crate) async fn cosign(
        &self,
        checkpoint: &SignedCheckpoint,
        reader: &Reader,
    ) -> Result<Vec<NoteSignature>, Error> {
        let mut asked = JoinSet::new();
        for known in &self.all {
            let (request, reader) = (self.request(known.clone(), checkpoint.clone()), reader.clone());
            asked.spawn(request.run(reader));
        }
        let mut answers = Answers::default();
        while let Some(outcome) = asked.join_next().await {
            match outcome {
                Ok(Ok(cosigned)) => answers.take(cosigned, self.clock.now()),
                Ok(Err(Failure::Silent(reason))) => tracing::warn!(reason, "a witness doesn't cosign"),
                Ok(Err(Failure::Fatal(error))) => return Err(error),
                Err(error) => tracing::warn!(%error, "a request to a witness was lost"),
            }
            if answers.lines.len() >= self.quorum.needed {
                // Those that have answered meanwhile count as well.
                while let Some(outcome) = asked.try_join_next() {
                    if let Ok(Ok(cosigned)) = outcome {
                        answers.take(cosigned, self.clock.now());
                    }
                }
                asked.detach_all();
                return Ok(answers.lines);
            }
        }
        let size = checkpoint.checkpoint().size();
        match answers.apart(self.quorum.faulty) {
            Some(theirs) => Err(Error::ClockApart { size, ours: self.clock.now(), theirs }),
            None => Err(Error::NoQuorum { size, cosigned: answers.lines.len(), needed: self.quorum.needed }),
        }
    }

    fn request(&self, known: Known, checkpoint: SignedCheckpoint) -> Request {
        let witnesses = Self {
            origin: self.origin.clone(),
            log_key: self.log_key.clone(),
            quorum: self.quorum,
            clock: Arc::clone(&self.clock),
            all: Vec::new(),
        };
        Request { witnesses, known, checkpoint }
    }
}

/// One witness's cosignature, and the time that it says.
struct Cosigned {
    witness: KeyName,
    line: NoteSignature,
    time: UnixTime,
}

/// The cosignatures that came.
#[derive(Default)]
struct Answers {
    /// Those that count.
    lines: Vec<NoteSignature>,
    /// The times of those that don't, because of these.
    apart: Vec<UnixTime>,
}

impl Answers {
    fn take(&mut self, cosigned: Cosigned, now: UnixTime) {
        let Cosigned { witness, line, time } = cosigned;
        if now.since(time).max(time.since(now)) <= APART_MAX {
            self.lines.push(line);
            return;
        }
        tracing::warn!(
            witness.name = %witness, witness.time = %time, log.time = %now,
            "a cosignature counts as none: its time is too far from this log's clock"
        );
        self.apart.push(time);
    }

    /// What those witnesses say that this clock doesn't agree with (their median), if an honest
    /// one must be among them.
    fn apart(&mut self, faulty: usize) -> Option<UnixTime> {
        self.apart.sort_unstable();
        self.apart.get(self.apart.len() / 2).filter(|_| self.apart.len() > faulty).copied()
    }
}

/// One `add-checkpoint`, with what it takes to repeat it.
struct Request {
    witnesses: Witnesses,
    known: Known,
    checkpoint: SignedCheckpoint,
}

impl Request {
    async fn run(self, reader: Reader) -> Result<Cosigned, Failure> {
        let key = self.known.witness.key().clone();
        let silent = |reason: String| Failure::Silent(format!("{}: {reason}", key.name()));
        let busy = || silent("it is still busy with the checkpoint before".to_owned());
        let mut latest = Arc::clone(&self.known.latest).try_lock_owned().map_err(|_| busy())?;
        let size = self.checkpoint.checkpoint().size();
        for _ in 0..ROUNDS_MAX {
            let old = (*latest).min(size);
            let request = self.from(old, &reader).await?;
            match timeout(WITNESS_TIMEOUT, self.known.witness.add_checkpoint(&request)).await {
                Ok(Ok(lines)) => {
                    let cosigned = self.verified(lines, &key);
                    let cosigned = cosigned.ok_or_else(|| silent("no cosignature of its own".into()))?;
                    *latest = size;
                    return Ok(cosigned);
                }
                Ok(Err(WitnessError::Stale { latest: found })) if found <= size && found != old => *latest = found,
                Ok(Err(error @ (WitnessError::Stale { .. } | WitnessError::Inconsistent))) => {
                    // It may be right, and then this log must stop. Its word isn't enough for that.
                    if let Some(found) = self.witnesses.checkpoint_of(&self.known).await? {
                        contradiction(&key, &found, &reader).await?;
                        *latest = found.checkpoint().size();
                    }
                    return Err(silent(error.to_string()));
                }
                Ok(Err(error)) => return Err(silent(error.to_string())),
                Err(_) => return Err(silent("no answer in time".to_owned())),
            }
        }
        Err(silent("it changes its size again and again".to_owned()))
    }

    async fn from(&self, old: TreeSize, reader: &Reader) -> Result<AddCheckpoint, Failure> {
        // From size 0, and to the same size, the proof is empty.
        let proof = if old.is_zero() || old == reader.head().size {
            ConsistencyProof::empty()
        } else {
            reader.consistency(old).await?.1
        };
        AddCheckpoint::new(old, proof, self.checkpoint.clone()).map_err(|error| Failure::Silent(error.to_string()))
    }

    /// The line that this witness's key made; whatever else it sent is left out.
    fn verified(&self, lines: Vec<NoteSignature>, key: &VerifierKey) -> Option<Cosigned> {
        let checkpoint = self.checkpoint.checkpoint();
        lines.into_iter().find_map(|line| {
            let time = verify_cosignature(checkpoint, &line, key).ok()?;
            Some(Cosigned { witness: key.name().clone(), line, time })
        })
    }
}

/// Stops the log if a checkpoint that it signed is not of the tree that it has.
async fn contradiction(witness: &VerifierKey, found: &SignedCheckpoint, reader: &Reader) -> Result<(), Failure> {
    let (found, ours) = (found.checkpoint().head(), reader.head());
    let contradicted = |contradiction| {
        Failure::Fatal(Error::Contradicted { witness: witness.name().clone(), size: found.size, contradiction })
    };
    if found.size > ours.size {
        return Err(contradicted("this log has forgotten: its store is an old backup, or its key is used elsewhere"));
    }
    let same = if found.size == ours.size { *ours } else { reader.consistency(found.size).await?.0 };
    if same == *found { Ok(()) } else { Err(contradicted("is not of this tree")) }
}

impl From<crate::ReadError> for Failure {
    fn from(error: crate::ReadError) -> Self {
        Self::Fatal(error.into())
    }
}
