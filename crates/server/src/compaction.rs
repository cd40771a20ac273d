//! Compaction: what endpoints sealed, in lines, becomes columns. The vendor asks for it by a request that stands for one
//! program and gives out nothing; a worker writes sealed objects anew under an intent that is logged before; and here,
//! where the vault is, they take the place of those that they were made of, if the evidence holds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{DataQuery, Made, ResultEnd, ResultFormat, ResultPiece, ResultReader, Rewrite};
use attest::{AccessRequest, Bundle, Envelope, Rewriting, Statement, StatementId, Subject};
use bytes::Bytes;
use policy::Role;
use serde::Serialize;
use stdx::{Clock as _, Digest, Hasher, SystemClock};
use storage::ObjectStore;
use vault::{Admission, Manifests, Offer};

use crate::command::data::ask::Asker;
use crate::config::{CompactionSection, Config};
use crate::data::SEALED_BYTES_MAX;
use crate::duty::OnDuty;
use crate::failure::Failure;
use crate::http::{self, Stop};
use crate::stores::{self, Access};
use crate::{key_file, serve};

/// As long as the longest lease that makes sense.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Who has objects of one class written anew.
pub(crate) struct Compactor {
    asker: Arc<Asker>,
    request: StatementId,
    statement: Statement<AccessRequest>,
    code: Digest,
    objects: Arc<dyn ObjectStore>,
    admission: Admission,
}

/// What one access has changed.
#[derive(Debug, Serialize)]
pub(crate) struct Compacted {
    /// The intent under which it was read.
    intent: StatementId,
    class: String,
    /// Segments, objects and bytes that are gone,
    segments_before: usize,
    objects_before: usize,
    bytes_before: u64,
    /// what there is in their place,
    segment: Digest,
    objects: usize,
    bytes: u64,
    /// and the events in it.
    events: u64,
    /// Events that stood there twice.
    doubles: u64,
    /// Objects that could not be read, and stay as they are.
    unread: usize,
}

impl std::fmt::Display for Compacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { class, segments_before, objects_before, bytes_before, objects, bytes, events, .. } = self;
        write!(f, "{class}: {objects_before} objects of {segments_before} segments are {objects} of one now, ")?;
        write!(f, "{bytes_before} bytes are {bytes}, {events} events")?;
        let Self { doubles, unread, .. } = self;
        let more = [(*doubles, "stood there twice"), (*unread as u64, "objects can't be read, and stay as they are")];
        more.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, "; {count} {what}"))?;
        writeln!(f)
    }
}

impl Compactor {
    /// Looks at the request, and opens the vault.
    ///
    /// # Errors
    /// When there is no vault here, or the request is for something else.
    pub(crate) async fn open(config: &Config, asker: Arc<Asker>, request: StatementId) -> anyhow::Result<Self> {
        let none = || Failure::usage("there is no vault here").hint("the vendor's configuration names it as `intake`");
        let Config::Vendor(vendor) = config else { return Err(none().into()) };
        let folder = vendor.intake.as_ref().ok_or_else(none)?;
        let admission = http::vault::admission(vendor, &serve::policies(config)?)?.ok_or_else(none)?;
        let (own, id) = (Arc::clone(&asker), request);
        let (state, statement) = tokio::task::spawn_blocking(move || own.public(id)).await??;
        if let Some((who, count)) = state.missing.first() {
            let message = format!("request {request}: {count} approval(s) of `{who}` missing");
            return Err(Failure::refused(message).hint("`clerestory data approve` is theirs").into());
        }
        let query = Digest::of(Rewrite::Compact.query().as_bytes());
        let is_this = statement.subject.iter().map(Subject::sha256).eq([query]);
        let standing = statement.predicate.standing.filter(|_| is_this).ok_or_else(|| {
            Failure::refused(format!("request {request} is not for compaction"))
                .hint("`clerestory data request --compact` makes one")
        })?;
        let objects = stores::intake_objects(config, folder, Access::Write).await;
        let objects = objects.with_context(|| format!("the intake `{}` can't be opened", folder.display()))?;
        Ok(Self { asker, request, statement, code: standing.code, objects, admission })
    }

    /// The region's manifests. What somebody before has announced and never brought to its end is taken back.
    pub(crate) async fn manifests(&self) -> anyhow::Result<Manifests> {
        let region = self.statement.predicate.region.clone();
        let mut manifests = Manifests::open(Arc::clone(&self.objects), region).await?;
        let count = manifests.withdraw().await?;
        if count > 0 {
            tracing::info!(data.segments = count, "what an earlier compaction has left behind is gone");
        }
        Ok(manifests)
    }

    /// Has as much written anew as one access may; nothing, if there is nothing left to do.
    ///
    /// # Errors
    /// When it was refused, or did not come to its end: nothing has changed then.
    pub(crate) async fn round(&self, manifests: &mut Manifests) -> anyhow::Result<Option<Compacted>> {
        let call = self.asker.call(&self.statement, self.request, self.statement.predicate.reader, None)?;
        let call = String::from_utf8(call.to_bytes())?;
        let query = DataQuery { call, openings: Vec::new(), format: ResultFormat::Sealed };
        let asker = Arc::clone(&self.asker);
        let read = move || read(ResultReader::new(asker.query(&query, PATIENCE)?));
        let (segment, end) = tokio::task::spawn_blocking(read).await??;
        let Some(Made { statement, enrolment }) = end.made else {
            anyhow::ensure!(segment.is_empty(), "nobody says of what the segment was made");
            return Ok(None);
        };
        let statement = Envelope::parse(statement.as_bytes()).context("the worker's statement can't be read")?;
        let enrolment = Bundle::parse(enrolment.as_bytes()).context("the host's enrolment can't be read")?;
        manifests.refresh().await?;
        let offer = Offer {
            policy: &self.asker.policy,
            admission: &self.admission,
            code: self.code,
            now: SystemClock::new().now(),
            statement: &statement,
            enrolment: &enrolment,
            segment: &segment,
        };
        let replacement = manifests.chain().check(&offer).map_err(|error| {
            Failure::refused(format!("what was written anew is not taken: {error}")).hint("nothing has changed")
        })?;
        let before = replacement.replaced().iter().filter_map(|it| manifests.chain().segment(it));
        let (segments_before, objects_before, bytes_before) =
            before.fold((0, 0, 0), |sum, it| (sum.0 + 1, sum.1 + it.objects.len(), sum.2 + it.bytes));
        manifests.replace(&replacement).await?;
        let says = Statement::<Rewriting>::decode(statement.payload())?.predicate;
        let made = replacement.segment();
        let compacted = Compacted {
            intent: says.intent,
            class: says.class.to_string(),
            segments_before,
            objects_before,
            bytes_before,
            segment: made.segment,
            objects: made.objects.len(),
            bytes: made.bytes,
            events: says.events,
            doubles: says.doubles,
            unread: says.unread.len(),
        };
        tracing::info!(data.intent = %says.intent, data.segment = %made.segment, "{}", compacted.to_string().trim_end());
        Ok(Some(compacted))
    }
}

/// All of a segment that comes: it must be what its end says.
fn read(mut source: ResultReader<Box<dyn std::io::Read>>) -> anyhow::Result<(Bytes, ResultEnd)> {
    let (mut segment, mut hasher) = (Vec::new(), Hasher::default());
    loop {
        match source.piece().context("the segment was cut off")? {
            ResultPiece::Bytes(piece) => {
                anyhow::ensure!((segment.len() + piece.len()) as u64 <= SEALED_BYTES_MAX, "the segment is too long");
                hasher.update(&piece);
                segment.extend_from_slice(&piece);
            }
            ResultPiece::End(end) => {
                if let Some(why) = end.failed {
                    let failure = Failure::refused(format!("nothing was written anew: {why}"));
                    return Err(failure.hint("nothing has changed; the outcome in the log says so").into());
                }
                let is_whole = end.bytes == segment.len() as u64 && end.sha256 == hasher.finish();
                anyhow::ensure!(is_whole, "what came is not what the worker has written");
                return Ok((segment.into(), end));
            }
        }
    }
}

/// Has everything written anew, now and then, while this process is on duty, until told to stop.
///
/// # Errors
/// When a key is missing.
pub(crate) async fn keep_compacting(
    config: Arc<Config>,
    section: CompactionSection,
    mut duty: OnDuty,
    mut stop: Stop,
) -> anyhow::Result<()> {
    key_file::load(&section.key)?;
    loop {
        if duty.borrow_and_update().is_here() {
            for request in &section.requests {
                tokio::select! {
                    done = compact(&config, &section, *request) => if let Err(error) = done {
                        tracing::error!(data.request = %request, "compaction has failed, and is tried again: {error:#}");
                    },
                    // What is under way is finished or withdrawn by the next.
                    _ = stop.changed() => return Ok(()),
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(section.every_s)) => {}
            Ok(()) = duty.changed() => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

async fn compact(config: &Config, section: &CompactionSection, request: StatementId) -> anyhow::Result<()> {
    let asker = Arc::new(Asker::of(config, &section.key, Role::Reader)?);
    let compactor = Compactor::open(config, asker, request).await?;
    let mut manifests = compactor.manifests().await?;
    while compactor.round(&mut manifests).await?.is_some() {}
    Ok(())
}
