//! Compaction: what endpoints sealed, in lines, becomes columns. The vendor asks for it by a request that stands for one
//! program and gives out nothing; a worker writes sealed objects anew under an intent that is logged before; and the
//! vendor's vault puts them into the place of those that they were made of, if the evidence holds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{
    BaseUrl, BodyLimit, Client, DataQuery, Replaced, ResultEnd, ResultFormat, ResultPiece, ResultReader, Rewrite, path,
};
use attest::{AccessRequest, Statement, StatementId, Subject};
use policy::Role;
use serde::Serialize;
use stdx::{Digest, Hasher};

use crate::command::data::ask::Asker;
use crate::config::{CompactionSection, Config};
use crate::data::SEALED_BYTES_MAX;
use crate::duty::OnDuty;
use crate::failure::Failure;
use crate::http::Stop;
use crate::key_file;

/// As long as the longest lease that makes sense.
const PATIENCE: Duration = Duration::from_secs(3600);
/// A few numbers.
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(1 << 16);

/// Who has objects of one class written anew.
pub(crate) struct Compactor {
    asker: Asker,
    request: StatementId,
    statement: Statement<AccessRequest>,
    /// Where what was written anew goes.
    url: String,
}

/// What one access has changed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Compacted(Replaced);

impl std::fmt::Display for Compacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Replaced { class, segments_before, objects_before, bytes_before, objects, bytes, events, .. } = &self.0;
        write!(f, "{class}: {objects_before} objects of {segments_before} segments are {objects} of one now, ")?;
        write!(f, "{bytes_before} bytes are {bytes}, {events} events")?;
        let Replaced { doubles, unread, omitted, .. } = self.0;
        let more = [
            (doubles, "stood there twice"),
            (unread, "objects can't be read, and stay as they are"),
            (omitted, "events were erased"),
        ];
        more.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, "; {count} {what}"))?;
        writeln!(f)
    }
}

impl Compactor {
    /// Looks at the request, and finds the vault: where the policy has this organisation's own log.
    ///
    /// # Errors
    /// When there is no vault here, or the request is for something else.
    pub(crate) fn open(config: &Config, asker: Asker, request: StatementId) -> anyhow::Result<Self> {
        let none = || Failure::usage("there is no vault here").hint("the vendor's configuration names it as `intake`");
        let Config::Vendor(vendor) = config else { return Err(none().into()) };
        anyhow::ensure!(vendor.intake.is_some(), none());
        let (state, statement) = asker.public(request)?;
        if let Some((who, count)) = state.missing.first() {
            let message = format!("request {request}: {count} approval(s) of `{who}` missing");
            return Err(Failure::refused(message).hint("`clerestory data approve` is theirs").into());
        }
        let query = Digest::of(Rewrite::Compact.query().as_bytes());
        let is_this = statement.subject.iter().map(Subject::sha256).eq([query]);
        if !is_this {
            return Err(Failure::refused(format!("request {request} is not for compaction"))
                .hint("`clerestory data request --compact` makes one")
                .into());
        }
        let policy = asker.policy.policy();
        let own = policy.streams.iter().filter(|it| it.organisation == vendor.organisation);
        let logs = asker.policy.witnessing().logs();
        let url = |log: &tlog::Origin| logs.iter().find(|it| log.is(it.key.name())).and_then(|it| it.url.clone());
        let residency = policy.residency.as_ref().map(|it| &it.log);
        let url = own.filter(|it| Some(&it.log) != residency).find_map(|it| url(&it.log));
        let url: BaseUrl = url.context("the policy gives no URL for this organisation's own log")?.parse()?;
        Ok(Self { asker, request, statement, url: url.join(&format!("{}/replacements", path::VAULT)) })
    }

    /// Has as much written anew as one access may; nothing, if there is nothing left to do.
    ///
    /// # Errors
    /// When it was refused, or did not come to its end: nothing has changed then.
    pub(crate) fn round(&self) -> anyhow::Result<Option<Compacted>> {
        let call = self.asker.call(&self.statement, self.request, self.statement.predicate.reader, None)?;
        let call = String::from_utf8(call.to_bytes())?;
        let query = DataQuery { call, openings: Vec::new(), format: ResultFormat::Sealed };
        let (segment, end) = read(ResultReader::new(self.asker.query(&query, PATIENCE)?))?;
        let Some(made) = end.made else {
            anyhow::ensure!(segment.is_empty(), "nobody says of what the segment was made");
            return Ok(None);
        };
        let made = serde_json::to_vec(&made)?;
        let length = u32::try_from(made.len())?.to_be_bytes();
        let body = [&length[..], &made, &segment].concat();
        let answer = Client::new(PATIENCE).post(&self.url, &body, ANSWER_BYTES_MAX)?;
        let compacted = Compacted(serde_json::from_slice(&answer).context("the vault's answer can't be read")?);
        tracing::info!(data.intent = %compacted.0.intent, "{}", compacted.to_string().trim_end());
        Ok(Some(compacted))
    }
}

/// All of a segment that comes: it must be what its end says.
fn read(mut source: ResultReader<Box<dyn std::io::Read>>) -> anyhow::Result<(Vec<u8>, ResultEnd)> {
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
                    let failure = Failure::refused(format!("nothing was written anew: {}", why.message));
                    return Err(failure.hint("nothing has changed; the outcome in the log says so").into());
                }
                let is_whole = end.bytes == segment.len() as u64 && end.sha256 == hasher.finish();
                anyhow::ensure!(is_whole, "what came is not what the worker has written");
                return Ok((segment, end));
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
                let (config, section, request) = (Arc::clone(&config), section.clone(), *request);
                let compacting = tokio::task::spawn_blocking(move || compact(&config, &section, request));
                tokio::select! {
                    done = compacting => if let Err(error) = done? {
                        tracing::error!(data.request = %request, "compaction has failed, and is tried again: {error:#}");
                    },
                    // What is under way ends with this process, and the next begins it anew.
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

fn compact(config: &Config, section: &CompactionSection, request: StatementId) -> anyhow::Result<()> {
    let compactor = Compactor::open(config, Asker::of(config, &section.key, Role::Reader)?, request)?;
    while compactor.round()?.is_some() {}
    Ok(())
}
