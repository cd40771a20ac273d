//! What an audit found, for people and machines.

use std::fmt;
use std::path::{Path, PathBuf};

use log::{AuditFinding, Misbehaviour};
use serde::Serialize;
use tlog::{Cosigned, SignedCheckpoint};
use verify::Violation;

use crate::command::trust::LogAt;

/// Every log of a policy.
#[derive(Debug, Serialize)]
pub struct AuditReport {
    /// In the policy's order.
    pub logs: Vec<LogReport>,
}

/// One log.
#[derive(Debug, Serialize)]
pub struct LogReport {
    /// The log.
    pub origin: String,
    /// Where it was read.
    pub url: String,
    /// Its size.
    pub size: u64,
    /// Its root.
    pub root: String,
    /// The evidence time of its checkpoint, if a quorum cosigned it.
    pub time: Option<String>,
    /// Who cosigned.
    pub cosigned_by: Vec<String>,
    /// What is wrong with the log.
    pub findings: Vec<Finding>,
    /// What is missing, doubled or wrong in its streams.
    pub streams: Vec<Violation>,
    /// What is no finding yet.
    pub warnings: Vec<String>,
}

/// What is wrong with a log.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Which kind.
    pub kind: FindingKind,
    /// In words.
    pub detail: String,
    /// The file with the proof that a stranger can verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<PathBuf>,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The log's key signed two checkpoints that can't both be true.
    Misbehaviour,
    /// The log shows a smaller tree than before.
    Shrunk,
    /// The checkpoint lacks a quorum.
    NoQuorum,
    /// A witness knows a larger tree than the log shows.
    Withheld,
    /// More witnesses are silent than may be faulty.
    Silent,
    /// Tiles or entries are missing, or not those of the checkpoint.
    Unreadable,
}

impl Finding {
    pub(super) fn misbehaviour(proof: &Misbehaviour, path: &Path) -> Self {
        let [first, second] = proof.checkpoints().map(|signed| signed.checkpoint().size());
        let detail = format!("signed checkpoints of size {first} and {second} that can't both be true");
        Self { kind: FindingKind::Misbehaviour, detail, proof: Some(path.to_owned()) }
    }

    pub(super) const fn silent(detail: String) -> Self {
        Self { kind: FindingKind::Silent, detail, proof: None }
    }

    pub(super) fn of(finding: &AuditFinding) -> Self {
        let (kind, detail) = match finding {
            AuditFinding::Misbehaviour(_) => (FindingKind::Misbehaviour, "signed two trees".to_owned()),
            AuditFinding::Shrunk { before, now } => {
                (FindingKind::Shrunk, format!("showed {before} entries before, now {now}"))
            }
            AuditFinding::NoQuorum(error) => (FindingKind::NoQuorum, error.to_string()),
            AuditFinding::Withheld { witness, checkpoint, reason } => (
                FindingKind::Withheld,
                format!(
                    "witness `{}` cosigned {} entries, which the log does not show: {reason}",
                    witness.name(),
                    checkpoint.checkpoint().size()
                ),
            ),
            AuditFinding::Silent { witness, reason } => {
                (FindingKind::Silent, format!("witness `{}`: {reason}", witness.name()))
            }
            AuditFinding::Unreadable(error) => (FindingKind::Unreadable, chain(error)),
            AuditFinding::Entries(text) => (FindingKind::Unreadable, text.clone()),
        };
        Self { kind, detail, proof: None }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl LogReport {
    pub(crate) fn of(log: &LogAt) -> Self {
        Self {
            origin: log.origin.to_string(),
            url: log.url.to_string(),
            size: 0,
            root: String::new(),
            time: None,
            cosigned_by: Vec::new(),
            findings: Vec::new(),
            streams: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn see(&mut self, signed: &SignedCheckpoint, cosigned: Option<&Cosigned>) {
        self.size = signed.checkpoint().size().get();
        self.root = signed.checkpoint().root().to_string();
        self.time = cosigned.map(|cosigned| cosigned.time.to_string());
        self.cosigned_by = cosigned.iter().flat_map(|it| &it.by).map(ToString::to_string).collect();
    }

    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Whether the log showed one tree that holds everything it showed before, to all who answered.
    pub(crate) fn is_one_tree(&self) -> bool {
        self.findings.iter().all(|finding| finding.kind == FindingKind::Silent)
    }
}

impl AuditReport {
    /// How much is wrong.
    #[must_use]
    pub fn count(&self) -> usize {
        self.logs.iter().map(|log| log.findings.len() + log.streams.len()).sum()
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.logs.iter().try_for_each(|log| log.fmt(f))
    }
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} entries, root {}", self.origin, self.size, self.root)?;
        if let Some(time) = &self.time {
            writeln!(f, "  cosigned at {time} by {}", self.cosigned_by.join(", "))?;
        }
        for finding in &self.findings {
            writeln!(f, "  FINDING: {}", finding.detail)?;
            if let Some(proof) = &finding.proof {
                writeln!(f, "    proof: {}", proof.display())?;
            }
        }
        self.streams.iter().try_for_each(|violation| writeln!(f, "  STREAM: {violation}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}
