//! Whether the streams in a log are complete.
//!
//! Fed with every entry of one log in order, it reports what is missing, doubled, out of chain,
//! in the wrong log, or too late, and which status does not say what was logged. It never stops at
//! the first: an auditor wants them all.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use attest::{Envelope, Position, StatementId, StreamName};
use serde::Serialize;
use stdx::UnixTime;
use tlog::{EntryIndex, Origin};

use crate::desk::Desks;
use crate::rules::{self, LogRules, Offence};
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
    /// A number that was there before; the chain goes on from the first of the two.
    Doubled,
    /// It does not name the entry before it.
    Unchained,
    /// Nothing for longer than the stream's interval.
    Silent,
    /// A status withholds a revocation, floor or stop that was logged before the status before it.
    StatusLacks,
    /// A status names a revocation, floor or stop that is not logged, or a stop that was lifted.
    StatusUnfounded,
}

/// Reads a log's entries in order and keeps each stream's end.
#[derive(Debug)]
pub struct StreamChecker<'a> {
    policy: &'a TrustedPolicy,
    rules: LogRules,
    log: Origin,
    ends: BTreeMap<StreamName, (Position, StatementId)>,
    desks: Desks<'a>,
    violations: Vec<Violation>,
}

impl<'a> StreamChecker<'a> {
    /// A checker for the log `log` under `policy`.
    #[must_use]
    pub fn new(policy: &'a TrustedPolicy, log: Origin) -> Self {
        let rules = LogRules::new(policy, log.clone());
        let desks = Desks::new(policy.policy(), log.clone());
        Self { policy, rules, log, ends: BTreeMap::new(), desks, violations: Vec::new() }
    }

    /// Reads an entry and its statement's position. No signature is checked.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(bytes: &[u8]) -> Result<(Envelope, Position), &'static str> {
        rules::read(bytes)
    }

    /// The order of a stream: `next` comes right after `end`, the last entry's position and id
    /// (`None`: the stream is empty). That is the next number, or the first of the next epoch,
    /// and it names `end`. Logs refuse what auditors report, by this one rule.
    ///
    /// # Errors
    /// How it is out of order (missing, doubled, unchained), with what was due in words.
    pub fn follow(end: Option<(&Position, StatementId)>, next: &Position) -> Result<(), (ViolationKind, String)> {
        let found = (next.epoch, next.sequence);
        let due = match end {
            None => Some((0, 0)),
            Some((end, _)) if next.epoch > end.epoch => end.epoch.checked_add(1).map(|epoch| (epoch, 0)),
            Some((end, _)) => end.sequence.checked_add(1).map(|sequence| (end.epoch, sequence)),
        };
        let place = |(epoch, number): (u64, u64)| format!("number {number} of epoch {epoch}");
        let Some(due) = due else {
            // Only the largest number has none after it, and whatever is not larger was there.
            return Err((ViolationKind::Doubled, format!("{} where no number is left", place(found))));
        };
        let numbers = || format!("{} where {} was due", place(found), place(due));
        if found < due {
            return Err((ViolationKind::Doubled, numbers()));
        }
        if found > due {
            return Err((ViolationKind::Missing, numbers()));
        }
        let previous = end.map(|(_, id)| id);
        if next.previous == previous {
            return Ok(());
        }
        let name = |id: Option<StatementId>| id.map_or_else(|| "no entry".to_owned(), |id| format!("`{id}`"));
        let detail = format!("it names {} as the one before it, where {} was due", name(next.previous), name(previous));
        Err((ViolationKind::Unchained, detail))
    }

    /// The next entry.
    pub fn entry(&mut self, index: EntryIndex, bytes: &[u8]) {
        let index = index.get();
        let judged = match self.rules.judge(bytes) {
            Ok(judged) => judged,
            Err(offence) => return self.offend(index, offence),
        };
        if let Err(offence) = judged.by_writer() {
            self.offend(index, offence);
        }
        self.desks.entry(index, &judged.position, judged.envelope.payload());
        let id = judged.envelope.id();
        self.advance(index, judged.position, id, judged.interval_s);
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
            match self.ends.get(&stream).map(|(end, _)| end.time) {
                Some(last) => self.check_silence(None, &stream, last, now, interval_s),
                None => self.report(None, Some(stream), ViolationKind::Silent, "has no entry at all"),
            }
        }
        self.violations.extend(self.desks.finish(now));
        self.violations
    }

    fn advance(&mut self, index: u64, position: Position, id: StatementId, interval_s: u64) {
        let end = self.ends.get(&position.stream);
        let last = end.map(|(end, _)| end.time);
        if let Err((kind, detail)) = Self::follow(end.map(|(end, id)| (end, *id)), &position) {
            self.report(Some(index), Some(position.stream.clone()), kind, detail);
            if kind == ViolationKind::Doubled {
                // The chain goes on from the first of the two; the second is what is wrong.
                return;
            }
        }
        if let Some(last) = last {
            self.check_silence(Some(index), &position.stream, last, position.time, interval_s);
        }
        self.ends.insert(position.stream.clone(), (position, id));
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

    fn offend(&mut self, index: u64, offence: Offence) {
        self.report(Some(index), offence.stream, offence.kind, offence.detail);
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
