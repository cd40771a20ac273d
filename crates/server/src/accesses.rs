//! Keeping an index of who read what, from the log alone: each reading is an audit of that log.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, ClientError, path};
use attest::{
    AccessReview, Bundle, BundleEntry, Envelope, Opening, OrganisationId, Position, Predicate, PrivateField, Statement,
    StatementId, StreamName, Subject,
};
use bytes::Bytes;
use ledger::{BringOpenings, DISCLOSED_MAX, Disclose, Disclosed, Index, IndexError, Update, open_disclosure};
use log::Auditor;
use policy::Role;
use seal::{Kem, PrivateKey};
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy};
use tlog::{EntryIndex, SignedCheckpoint, SignerKey};
use verify::TrustedPolicy;

use crate::audit::{LogReport, look};
use crate::command::trust::LogAt;
use crate::failure::Failure;
use crate::key_file;
use crate::stream::{LogWriter, StreamError};

/// Gives new entries to the index.
struct Reading<'a> {
    update: Update<'a>,
    failed: Option<IndexError>,
}

impl Auditor for Reading<'_> {
    fn entry(&mut self, index: EntryIndex, entry: &Bytes) {
        if self.failed.is_none() {
            self.failed = self.update.entry(index, entry).err();
        }
    }

    /// What is wrong with accesses is the index's to say.
    fn findings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Reads what is new in `log`, and saves it if the log is one tree that has only grown.
///
/// # Errors
/// When the log can't be reached, is not what it was (proofs go to `proofs`), or the disk fails.
pub(crate) async fn read(
    policy: &TrustedPolicy,
    log: &LogAt,
    index: &mut Index,
    proofs: &Path,
) -> anyhow::Result<LogReport> {
    let last = index.checkpoint().map(SignedCheckpoint::parse).transpose().context("the index is damaged")?;
    let mut report = LogReport::of(log);
    let update = index.update(policy).ok_or_else(no_residency)?;
    let mut reading = Reading { update, failed: None };
    let checkpoint = look(policy, log, last, &mut reading, proofs, &mut report).await?;
    if let Some(error) = reading.failed {
        return Err(error.into());
    }
    if !report.is_one_tree() {
        let count = report.findings.len();
        return Err(Failure::refused(format!("{report}{count} findings: this log is not what it was, or not one log"))
            .hint("publish the proofs; anybody can check them with `clerestory audit --proof FILE --log-key VKEY`")
            .into());
    }
    index.save(&checkpoint.to_string())?;
    Ok(report)
}

pub(crate) fn no_residency() -> Failure {
    Failure::refused("the policy in force says nothing of data").hint("it needs a section `[residency]`")
}

/// Others may write to the same stream; each try reads what is new.
const ATTEMPTS_MAX: usize = 8;

/// Waiting for the witnesses.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page of disclosures: each has an opening of a few hundred bytes, sealed, in base64; some have 25 KB.
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(8 << 20);

/// Names that one review asks for.
const NAMES_MAX: usize = 4096;

/// A person whose key may approve, and who says something in the log.
pub(crate) struct Voice<'a> {
    policy: &'a TrustedPolicy,
    /// Where the log takes entries, whatever copy of it is read.
    writer: LogWriter,
    organisation: OrganisationId,
    key: SignerKey,
}

impl<'a> Voice<'a> {
    /// The holder of the key in `path`, at the log's own place.
    ///
    /// # Errors
    /// When the policy names no such approver.
    pub(crate) fn open(policy: &'a TrustedPolicy, log: &LogAt, path: &Path) -> anyhow::Result<Self> {
        let key = key_file::load(path)?;
        let held = policy.policy().keys_of(Role::Approver).find(|(_, it)| *it == key.verifier());
        let organisation = held.map(|(organisation, _)| organisation.clone()).ok_or_else(|| {
            Failure::refused(format!("the policy names no `approver` key like `{}`", path.display()))
                .hint("reviews and redactions are signed by people who may approve")
        })?;
        let writer =
            LogWriter { origin: log.origin.clone(), url: log.url.clone(), client: log.client.with_timeout(PATIENCE) };
        Ok(Self { policy, writer, organisation, key })
    }

    /// Logs what `make` says, at the end of the organisation's stream as `log` shows it.
    ///
    /// # Errors
    /// When the log refuses it, or others write all the time.
    pub(crate) async fn say<P: Predicate>(
        &self,
        log: &LogAt,
        index: &mut Index,
        proofs: &Path,
        make: impl Fn(Position, &Index) -> anyhow::Result<Statement<P>>,
    ) -> anyhow::Result<BundleEntry> {
        let stream: StreamName = format!("data/{}", self.organisation).parse()?;
        for _ in 0..ATTEMPTS_MAX {
            read(self.policy, log, index, proofs).await?;
            let end = index.stream_end(&stream);
            let position = Position {
                log: self.writer.origin.clone(),
                stream: stream.clone(),
                epoch: end.map_or(0, |(end, _)| end.epoch),
                sequence: end.map_or(0, |(end, _)| end.sequence + 1),
                previous: end.map(|(_, id)| *id),
                time: SystemClock::new().now(),
            };
            let envelope = Envelope::sign(make(position, index)?.encode()?, &[&self.key])?;
            match self.writer.append(&envelope).await {
                Err(StreamError::Log { source: ClientError::Status { body, .. }, .. })
                    if body.code == "entry-position" => {}
                appended => return Ok(appended?),
            }
        }
        Err(Failure::unavailable(format!("others write to `{stream}` all the time")).hint("try again").into())
    }

    /// Logs that somebody looks, asks `holders` for the names that the index lacks, and puts them there.
    ///
    /// # Errors
    /// When the review can't be logged, or no holder answers.
    pub(crate) async fn review(
        &self,
        log: &LogAt,
        index: &mut Index,
        proofs: &Path,
        review: &Review<'_>,
    ) -> anyhow::Result<StatementId> {
        let private = |label, value| Opening::new(PrivateField { label, value }, &SystemEntropy);
        let (reviewer, question) = (private("reviewer", review.who)?, private("question", review.question)?);
        let answers = PrivateKey::generate(Kem::P256, &SystemEntropy)?;
        let entry = self
            .say(log, index, proofs, |position, index| {
                let seen = index.checkpoint().context("the log was read")?;
                let seen = SignedCheckpoint::parse(seen)?;
                let root = Digest::from_bytes(*seen.checkpoint().head().root.as_bytes());
                let until = position.time.after(REVIEW_TIME);
                let predicate = AccessReview {
                    position,
                    reviewer: reviewer.commitment(),
                    question: question.commitment(),
                    entries: index.entries(),
                    key: answers.public().id(),
                    until,
                };
                Ok(Statement { subject: vec![Subject::new("log", root)], predicate })
            })
            .await?;
        let id = entry.envelope.id();
        let evidence = String::from_utf8(Bundle::new(vec![entry])?.to_bytes())?;
        let openings = BringOpenings { evidence: evidence.clone(), openings: vec![reviewer, question] };
        let mut named = BTreeMap::new();
        // The review itself is read, so that its own name is among them.
        read(self.policy, log, index, proofs).await?;
        let wanted = index.unnamed(NAMES_MAX)?;
        for holder in review.holders {
            let client = self.writer.client.clone();
            tokio::task::block_in_place(|| {
                let url = holder.join(path::OPENINGS);
                client.post_json::<()>(&url, &openings, ANSWER_BYTES_MAX)?;
                for commitments in wanted.chunks(DISCLOSED_MAX) {
                    let commitments: Vec<_> =
                        commitments.iter().filter(|it| !named.contains_key(*it)).copied().collect();
                    let ask = Disclose { review: evidence.clone(), key: answers.public().to_string(), commitments };
                    let answer: Disclosed =
                        client.post_json(&holder.join(path::DISCLOSURES), &ask, ANSWER_BYTES_MAX)?;
                    let opened = answer.disclosed.iter().filter_map(|it| open_disclosure(it, id, &answers));
                    named.extend(opened.map(|it| (it.commitment(), it.value().to_owned())));
                }
                anyhow::Ok(())
            })
            .with_context(|| format!("`{holder}` gives out no private parts"))?;
        }
        index.name(&named)?;
        let checkpoint = index.checkpoint().unwrap_or_default().to_owned();
        index.save(&checkpoint)?;
        Ok(id)
    }
}

/// Who looks, at what, and whom they ask for names.
pub(crate) struct Review<'a> {
    pub(crate) who: &'a str,
    pub(crate) question: &'a str,
    pub(crate) holders: &'a [BaseUrl],
}

/// Names are asked for at once.
const REVIEW_TIME: Duration = Duration::from_secs(600);
