//! Writing sealed objects anew: what endpoints sealed as lines, and small columns, become larger columns, sealed for the
//! same region, country and class to the custodians' keys of now. Nothing of it leaves in the open.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use api::{ErrorBody, Made, RESULT_FRAME_BYTES_MAX, ResultEnd, result_end, result_frame};
use attest::{CountryCode, DataClass, Envelope, Rewriting, Statement, StatementId, Subject, objects_root};
use datafusion::arrow::array::RecordBatch;
use futures::FutureExt as _;
use seal::{BatchId, Destination};
use stdx::{Digest, Entropy, Hasher};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use vault::SEGMENT_MARK;

use crate::catalog::{Form, Located};
use crate::ciphertext::{Vault, VaultError};
use crate::columns::{self, Columns, ColumnsError, File};
use crate::engine::{Planned, Stop};
use crate::give::{OWN_ERROR, TOO_LATE};
use crate::raw::{self, Known};
use crate::store::{SealedStore, path_of};
use crate::table::Table;
use crate::worker::Host;

/// A quarter of what a query may have in memory, and no more than this, is read at once: one country's events are
/// written while an object of it is taken apart, and the names of all are remembered.
const BYTES_MAX: u64 = 256 << 20;

/// As many bytes of objects as are written anew at once by who has `memory` bytes for it.
pub(crate) const fn bytes_max(memory: usize) -> u64 {
    let quarter = memory as u64 / 4;
    if quarter < BYTES_MAX { quarter } else { BYTES_MAX }
}

/// What is needed, and what columns come out, sealed: a request that stands is bound to them.
pub(crate) fn planned(table: &Table, needed: Vec<Located>) -> Planned {
    let schema = columns::written(table);
    let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string()));
    Planned { needed, columns: columns.collect(), is_for_one: true }
}

/// Objects that are open, and where what is made of them goes.
pub(crate) struct Rewrites {
    pub(crate) table: &'static Table,
    pub(crate) class: DataClass,
    pub(crate) objects: Vec<Located>,
    pub(crate) store: Arc<SealedStore>,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) destinations: BTreeMap<CountryCode, Destination>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) host: Arc<Host>,
    pub(crate) enrolment: StatementId,
    pub(crate) intent: StatementId,
    /// The bundle that the custodians got.
    pub(crate) evidence: String,
    /// Objects whose events are not written again: they were erased.
    pub(crate) left_out: BTreeSet<BatchId>,
}

#[derive(Debug, thiserror::Error)]
enum RewriteError {
    /// What the engine says may repeat what it has read.
    #[error(transparent)]
    Read(#[from] Stop),
    #[error("what was written anew before can't be read")]
    Columns,
    #[error("events can't be written in columns")]
    Write(#[from] ColumnsError),
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("it can't be said what was written: {0}")]
    Statement(String),
    #[error("nobody takes the result")]
    Gone,
}

/// A segment on its way.
struct Sent<'a> {
    sender: &'a mpsc::Sender<Vec<u8>>,
    sha256: Hasher,
    bytes: u64,
    /// Objects that were made; those that stay as they are don't count.
    made: usize,
}

/// What is in it.
#[derive(Default)]
struct Written {
    events: u64,
    doubles: u64,
    unread: Vec<Digest>,
    omitted: u64,
    owners: Vec<Digest>,
}

impl Rewrites {
    /// Sends the segment, for `time` at most; the last frame says how it ended, and holds the host's word for it.
    pub(crate) async fn give(self, sender: mpsc::Sender<Vec<u8>>, time: Duration, permit: OwnedSemaphorePermit) {
        let mut sent = Sent { sender: &sender, sha256: Hasher::default(), bytes: 0, made: 0 };
        let written = AssertUnwindSafe(self.write(&mut sent)).catch_unwind();
        let written = match tokio::time::timeout(time, written).await {
            Ok(Ok(Ok(written))) => Ok(written),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err(OWN_ERROR.to_owned()),
            Err(_) => Err(TOO_LATE.to_owned()),
        };
        let (bytes, sha256) = (sent.bytes, sent.sha256.finish());
        let mut end = ResultEnd::new(0, bytes, sha256);
        match written.and_then(|written| {
            end.unreadable = written.unread.len() as u64;
            tracing::info!(data.intent = %self.intent, data.events = written.events, data.bytes = bytes, "written anew");
            self.made(sha256, written).map_err(|error| error.to_string())
        }) {
            Ok(made) => end.made = Some(made),
            Err(why) => end.failed = Some(ErrorBody::incomplete(why)),
        }
        // Who has gone away learns nothing more.
        let _ = sender.send(result_end(&end)).await;
        drop(permit);
    }

    async fn write(&self, sent: &mut Sent<'_>) -> Result<Written, RewriteError> {
        sent.pass(SEGMENT_MARK).await?;
        let mut written = Written::default();
        for (country, destination) in &self.destinations {
            let mut objects: Vec<&Located> = self.objects.iter().filter(|it| it.country == *country).collect();
            objects.sort_by_key(|it| (it.taken.last, it.place.segment, it.at));
            let mut columns = Columns::new(self.table, &*self.entropy)?;
            for object in objects {
                let events = match self.events(object, &mut written).await? {
                    Some(events) => events,
                    None => {
                        // Other code may read it. Until then it stays as its endpoint has sealed it.
                        tracing::warn!(data.object = %object.id, "does not hold events of its class, and stays as it is");
                        let range = object.at..object.at.saturating_add(object.bytes);
                        sent.object(&self.vault.read(&object.place, range).await?).await?;
                        written.unread.push(object.header);
                        continue;
                    }
                };
                for batch in events {
                    if let Some(file) = columns.add(&batch)? {
                        self.seal(destination, &file, sent).await?;
                    }
                }
            }
            if let Some(file) = columns.finish()? {
                self.seal(destination, &file, sent).await?;
            }
            (written.events, written.doubles) = (written.events + columns.events, written.doubles + columns.doubles);
        }
        if let Some(destination) = self.destinations.values().next().filter(|_| sent.made == 0) {
            // There is no event in any of them. A segment needs something of its own all the same.
            let mut none = Columns::new(self.table, &*self.entropy)?;
            let empty = RecordBatch::new_empty(columns::written(self.table));
            none.add(&empty)?;
            if let Some(file) = none.finish()? {
                self.seal(destination, &file, sent).await?;
            }
        }
        written.unread.sort();
        written.owners.sort();
        Ok(written)
    }

    /// The events of an object; `None` if an endpoint has sealed something else.
    async fn events(&self, object: &Located, written: &mut Written) -> Result<Option<Vec<RecordBatch>>, RewriteError> {
        let path = path_of(object.id);
        let Some(bytes) = self.store.bytes(&path) else { return Ok(None) };
        if object.taken.form == Form::Columns {
            let plaintext = self.store.plaintext(&path, 0..bytes).await.map_err(|error| Stop::of(&error.into()))?;
            let (all, owner) = columns::read(self.table, plaintext).map_err(|_| RewriteError::Columns)?;
            if owner.name() != object.id {
                return Err(RewriteError::Columns);
            }
            written.owners.push(owner.to_digest());
            let stay = all.iter().map(|events| columns::without(events, &self.left_out));
            let stay: Vec<RecordBatch> = stay.collect::<Result<_, _>>()?;
            let count = |events: &[RecordBatch]| events.iter().map(|it| it.num_rows() as u64).sum::<u64>();
            written.omitted += count(&all) - count(&stay);
            return Ok(Some(stay));
        }
        let country = object.country.to_string();
        let known = Known { taken: object.taken.last, country: &country };
        let plaintext = self.store.whole(&path).await.map_err(|error| Stop::of(&error.into()))?;
        let events = plaintext.and_then(|plaintext| raw::read(self.table, &plaintext, known).ok());
        let Some(events) = events else { return Ok(None) };
        let named = events.iter().map(|events| columns::named(self.table, events, object.id));
        Ok(Some(named.collect::<Result<_, _>>()?))
    }

    async fn seal(&self, destination: &Destination, file: &File, sent: &mut Sent<'_>) -> Result<(), RewriteError> {
        let sealed = destination.seal_owned(&file.owner, &self.class, &file.bytes, &*self.entropy)?;
        sent.made += 1;
        sent.object(&sealed).await
    }

    /// The host's word for it.
    fn made(&self, segment: Digest, written: Written) -> Result<Made, RewriteError> {
        let mut replaced: Vec<Digest> = self.objects.iter().map(|object| object.place.segment).collect();
        replaced.sort();
        replaced.dedup();
        let mut objects: Vec<&Located> = self.objects.iter().collect();
        objects.sort_by_key(|object| object.id);
        let root = objects_root(objects.iter().map(|object| object.header));
        let predicate = Rewriting {
            enrolment: self.enrolment,
            intent: self.intent,
            region: self.host.region.clone(),
            class: self.class.clone(),
            replaced,
            events: written.events,
            doubles: written.doubles,
            unread: written.unread,
            left_out: self.left_out.iter().copied().collect(),
            omitted: written.omitted,
            owners: written.owners,
        };
        let subject = vec![Subject::new("objects", root), Subject::new("segment", segment)];
        let refuse = |error: &dyn std::fmt::Display| RewriteError::Statement(error.to_string());
        let payload = Statement { subject, predicate }.encode().map_err(|error| refuse(&error))?;
        let envelope = Envelope::sign(payload, &[&self.host.key]).map_err(|error| refuse(&error))?;
        let statement = String::from_utf8(envelope.to_bytes()).map_err(|error| refuse(&error))?;
        Ok(Made { statement, evidence: self.evidence.clone() })
    }
}

impl Sent<'_> {
    async fn object(&mut self, object: &[u8]) -> Result<(), RewriteError> {
        let length = u32::try_from(object.len()).map_err(|_| Stop::Object)?;
        self.pass(&length.to_be_bytes()).await?;
        self.pass(object).await
    }

    async fn pass(&mut self, bytes: &[u8]) -> Result<(), RewriteError> {
        for piece in bytes.chunks(RESULT_FRAME_BYTES_MAX) {
            self.bytes += piece.len() as u64;
            self.sha256.update(piece);
            self.sender.send(result_frame(piece)).await.map_err(|_| RewriteError::Gone)?;
        }
        Ok(())
    }
}
