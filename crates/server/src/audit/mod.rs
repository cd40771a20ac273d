//! Auditing every log of a policy from outside: quorum, growth since the last time, the same tree
//! for everybody, and complete streams.

mod report;
mod state;

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use log::{Audit, AuditError, AuditFinding, Auditor, Reader};
use stdx::{Clock, Digest, durable};
use tlog::{EntryIndex, SignedCheckpoint};
use verify::{StreamChecker, TrustedPolicy};

use crate::command::trust::{LogAt, all_logs};
use crate::failure::Failure;
use crate::peer;

pub use report::{AuditReport, Finding, LogReport};
pub use state::AuditState;

/// Feeds the entries to the stream checker.
struct Streams<'a>(StreamChecker<'a>);

impl Auditor for Streams<'_> {
    fn entry(&mut self, index: EntryIndex, entry: &Bytes) {
        self.0.entry(index, entry);
    }

    /// The violations are typed, so they are not put into words here.
    fn findings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Audits every log of `policy` once. Proofs of misbehaviour go to the folder `proofs`.
///
/// # Errors
/// When a log can't be reached; what is wrong with a log is in the report.
pub async fn audit(
    policy: &TrustedPolicy,
    state: &mut AuditState,
    proofs: &Path,
    clock: &dyn Clock,
) -> anyhow::Result<AuditReport> {
    let mut logs = Vec::new();
    for log in all_logs(policy)? {
        logs.push(audit_log(policy, &log, state, proofs, clock).await?);
    }
    Ok(AuditReport { logs })
}

async fn audit_log(
    policy: &TrustedPolicy,
    log: &LogAt,
    state: &mut AuditState,
    proofs: &Path,
    clock: &dyn Clock,
) -> anyhow::Result<LogReport> {
    let last = state.last(&log.origin)?;
    let mut streams = Streams(StreamChecker::new(policy, log.origin.clone()));
    let mut report = LogReport::of(log);
    if let Some(last) = &last {
        before(log, last, &mut streams, &mut report).await;
    }
    let checkpoint = look(policy, log, last, &mut streams, proofs, &mut report).await?;
    // Only a tree that is shown to have grown from the last one is what the next must grow from.
    if report.is_one_tree() {
        state.keep(&log.origin, &checkpoint);
    }
    report.streams = streams.0.finish(clock.now());
    Ok(report)
}

/// Audits a log as far as it is a log, gives what is new since `last` to `auditor`, and says what is wrong in
/// `report`.
pub(crate) async fn look(
    policy: &TrustedPolicy,
    log: &LogAt,
    last: Option<SignedCheckpoint>,
    auditor: &mut dyn Auditor,
    proofs: &Path,
    report: &mut LogReport,
) -> anyhow::Result<SignedCheckpoint> {
    let audit = Audit {
        source: log.source(),
        key: log.key.clone(),
        policy: policy.witnessing().clone(),
        witnesses: peer::witnesses_of(policy.witnessing())?,
        last,
    };
    let found = log::audit(&audit, auditor).await.map_err(|error| unreachable(log, error))?;
    report.see(&found.checkpoint, found.cosigned.as_ref());
    let mut silent = Vec::new();
    for finding in found.findings {
        match finding {
            AuditFinding::Silent { witness, reason } => silent.push(format!("witness `{}`: {reason}", witness.name())),
            AuditFinding::Misbehaviour(proof) => {
                let path = keep(proofs, &proof.to_string())?;
                report.find(Finding::misbehaviour(&proof, &path));
            }
            other => report.find(Finding::of(&other)),
        }
    }
    // As many as may be faulty may be silent; more of them could hide a split view.
    let tolerated = policy.quorum().faulty;
    if silent.len() > tolerated {
        silent.into_iter().for_each(|text| report.find(Finding::silent(text)));
    } else {
        report.warnings.extend(silent);
    }
    Ok(found.checkpoint)
}

/// Reads what the last audit saw once more: streams are chains from their beginning.
async fn before(log: &LogAt, last: &SignedCheckpoint, streams: &mut Streams<'_>, report: &mut LogReport) {
    let head = *last.checkpoint().head();
    let range = EntryIndex::new(0)..EntryIndex::new(head.size.get());
    let visit = &mut |index, entry: &Bytes| {
        streams.entry(index, entry);
        ControlFlow::Continue(())
    };
    let read = Reader::new(log.source(), head).entries(range, visit).await;
    if let Err(error) = read {
        report.find(Finding::of(&AuditFinding::Unreadable(error)));
    }
}

fn unreachable(log: &LogAt, error: AuditError) -> anyhow::Error {
    let unreachable = matches!(error, AuditError::Source(_) | AuditError::NoCheckpoint);
    let message = format!("`{}` at {} can't be audited", log.origin, log.url);
    let failure = if unreachable { Failure::unavailable(message) } else { Failure::refused(message) };
    anyhow::Error::new(error).context(failure)
}

/// The name is the content's, so that the same proof is kept once and none is overwritten.
pub(crate) fn keep(folder: &Path, text: &str) -> anyhow::Result<std::path::PathBuf> {
    let name: String = Digest::of(text.as_bytes()).to_string().chars().take(16).collect();
    durable::create_folder(folder).with_context(|| format!("can't create `{}`", folder.display()))?;
    let path = folder.join(format!("misbehaviour-{name}.proof"));
    durable::write(&path, text.as_bytes()).with_context(|| format!("can't write `{}`", path.display()))?;
    Ok(path)
}
