//! Whether the streams in a log are complete.
//!
//! Fed with every entry of one log in order, it reports what is missing, doubled, out of chain,
//! in the wrong log, or too late. It never stops at the first: an auditor wants them all.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use attest::{Envelope, KeyRef, Position, StatementId, StreamName};
use serde::{Deserialize, Serialize};
use stdx::UnixTime;
use tlog::{EntryIndex, Origin};

use crate::trust::TrustedPolicy;

/// Something that a complete log would not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The entry, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The stream, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamName>,
    /// What is wrong.
    pub kind: ViolationKind,
    /// In words.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "entry {index}: ")?;
        }
        if let Some(stream) = &self.stream {
            write!(f, "stream `{stream}`: ")?;
        }
        f.write_str(&self.detail)
    }
}

/// Kinds of violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViolationKind {
    /// Not a statement with a position.
    Unreadable,
    /// Made for another log.
    WrongLog,
    /// No key of the stream's organisation has signed it.
    WrongSigner,
    /// A stream that the policy does not open.
    UnknownStream,
    /// A number that is missing.
    Missing,
    /// A number that was there before.
    Doubled,
    /// It does not name the entry before it.
    Unchained,
    /// Nothing for longer than the stream's interval.
    Silent,
}

/// Reads a log's entries in order and keeps each stream's end.
#[derive(Debug)]
pub struct StreamChecker<'a> {
    policy: &'a TrustedPolicy,
    log: Origin,
    ends: BTreeMap<StreamName, End>,
    violations: Vec<Violation>,
}

/// The last entry of a stream.
#[derive(Clone, Copy, Debug)]
struct End {
    epoch: u64,
    sequence: u64,
    id: StatementId,
    time: UnixTime,
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

impl<'a> StreamChecker<'a> {
    /// A checker for the log `log` under `policy`.
    #[must_use]
    pub const fn new(policy: &'a TrustedPolicy, log: Origin) -> Self {
        Self { policy, log, ends: BTreeMap::new(), violations: Vec::new() }
    }

    /// The next entry.
    pub fn entry(&mut self, index: EntryIndex, bytes: &[u8]) {
        let index = index.get();
        let Ok(envelope) = Envelope::parse(bytes) else {
            return self.report(Some(index), None, ViolationKind::Unreadable, "not a canonical envelope");
        };
        let Ok(AnyStatement { predicate: AnyPredicate { position } }) = serde_json::from_slice(envelope.payload())
        else {
            return self.report(Some(index), None, ViolationKind::Unreadable, "its statement has no position");
        };
        let stream = position.stream.clone();
        if position.log != self.log {
            let detail = format!("made for log `{}`", position.log);
            return self.report(Some(index), Some(stream), ViolationKind::WrongLog, detail);
        }
        let Some(opened) = self.policy.policy().streams.iter().find(|it| it.stream == stream && it.log == self.log)
        else {
            return self.report(Some(index), Some(stream), ViolationKind::UnknownStream, "the policy does not open it");
        };
        let (interval_s, organisation) = (opened.interval_s, opened.organisation.clone());
        let of_organisation = self.policy.policy().organisations.iter().filter(|it| it.id == organisation);
        let signed = of_organisation.flat_map(|it| &it.keys).any(|key| {
            envelope.signatures().iter().any(|it| it.key == KeyRef::of(&key.key))
                && envelope.signed_by(&key.key).unwrap_or(false)
        });
        if !signed {
            let detail = format!("no key of `{organisation}` has signed it");
            self.report(Some(index), Some(stream.clone()), ViolationKind::WrongSigner, detail);
        }
        self.follow(index, &position, envelope.id(), interval_s);
    }

    /// The violations, given that the log has nothing more as of `now`.
    #[must_use]
    pub fn finish(mut self, now: UnixTime) -> Vec<Violation> {
        let opened: Vec<_> = self
            .policy
            .policy()
            .streams
            .iter()
            .filter(|it| it.log == self.log)
            .map(|it| (it.stream.clone(), it.interval_s))
            .collect();
        for (stream, interval_s) in opened {
            match self.ends.get(&stream).copied() {
                Some(end) => self.check_silence(None, &stream, end.time, now, interval_s),
                None => self.report(None, Some(stream), ViolationKind::Silent, "has no entry at all"),
            }
        }
        self.violations
    }

    fn follow(&mut self, index: u64, position: &Position, id: StatementId, interval_s: u64) {
        let stream = &position.stream;
        let end = self.ends.get(stream).copied();
        let (expected, previous) = match end {
            Some(end) if position.epoch == end.epoch => (end.sequence + 1, Some(end.id)),
            Some(end) if position.epoch > end.epoch => (0, Some(end.id)),
            Some(end) => {
                let detail = format!("epoch {} after epoch {}", position.epoch, end.epoch);
                return self.report(Some(index), Some(stream.clone()), ViolationKind::Doubled, detail);
            }
            None => (0, None),
        };
        let numbers = || format!("number {} where {expected} was due", position.sequence);
        if position.sequence < expected {
            // The chain goes on from the first of the two; the second is what is wrong.
            return self.report(Some(index), Some(stream.clone()), ViolationKind::Doubled, numbers());
        }
        if position.sequence > expected {
            self.report(Some(index), Some(stream.clone()), ViolationKind::Missing, numbers());
        } else if position.previous != previous {
            let detail = "it does not name the entry before it";
            self.report(Some(index), Some(stream.clone()), ViolationKind::Unchained, detail);
        }
        if let Some(end) = end {
            self.check_silence(Some(index), stream, end.time, position.time, interval_s);
        }
        let end = End { epoch: position.epoch, sequence: position.sequence, id, time: position.time };
        self.ends.insert(stream.clone(), end);
    }

    fn check_silence(
        &mut self,
        index: Option<u64>,
        stream: &StreamName,
        last: UnixTime,
        next: UnixTime,
        interval_s: u64,
    ) {
        let silence = next.since(last);
        if silence > Duration::from_secs(interval_s) {
            let detail = format!("silent for {} s, at most {interval_s} s are allowed", silence.as_secs());
            self.report(index, Some(stream.clone()), ViolationKind::Silent, detail);
        }
    }

    fn report(
        &mut self,
        index: Option<u64>,
        stream: Option<StreamName>,
        kind: ViolationKind,
        detail: impl Into<String>,
    ) {
        self.violations.push(Violation { index, stream, kind, detail: detail.into() });
    }
}
