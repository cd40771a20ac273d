//! Whether the streams of access statements are whole, as far as they have been read.

use std::collections::BTreeMap;
use std::time::Duration;

use attest::{Position, StatementId, StreamName};
use serde::{Deserialize, Serialize};
use stdx::UnixTime;
use verify::{Judged, StreamChecker, TrustedPolicy, ViolationKind};

use crate::facts::{Finding, FindingKind};

/// The streams that this ledger is about; an audit looks at the others.
const OURS: [&str; 4] = ["access/", "custody/", "data/", "region/"];

/// Where each stream ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Streams(BTreeMap<StreamName, (Position, StatementId)>);

pub(crate) fn is_ours(stream: &StreamName) -> bool {
    OURS.iter().any(|prefix| stream.as_str().starts_with(prefix))
}

impl Streams {
    /// The next entry of one of our streams.
    pub(crate) fn entry(&mut self, index: u64, judged: &Judged) -> Vec<Finding> {
        let position = &judged.position;
        let mut findings = Vec::new();
        let end = self.0.get(&position.stream);
        if let Err((kind, detail)) = StreamChecker::follow(end.map(|(end, id)| (end, *id)), position) {
            let detail = format!("stream `{}`: {detail}", position.stream);
            findings.push(Finding { entry: Some(index), kind: FindingKind::Gap, detail });
            if kind == ViolationKind::Doubled {
                // The chain goes on from the first of the two.
                return findings;
            }
        }
        let last = end.map(|(end, _)| end.time);
        findings.extend(
            last.and_then(|last| silence(Some(index), &position.stream, last..position.time, judged.interval_s)),
        );
        self.0.insert(position.stream.clone(), (position.clone(), judged.envelope.id()));
        findings
    }

    pub(crate) fn end(&self, stream: &StreamName) -> Option<&(Position, StatementId)> {
        self.0.get(stream)
    }

    /// What is silent now.
    pub(crate) fn silent(&self, policy: &TrustedPolicy, now: UnixTime) -> Vec<Finding> {
        let Some(residency) = &policy.policy().residency else { return Vec::new() };
        let opened = policy.policy().streams.iter().filter(|it| it.log == residency.log && is_ours(&it.stream));
        let silent = opened.filter_map(|opened| match self.0.get(&opened.stream) {
            Some((end, _)) => silence(None, &opened.stream, end.time..now, opened.interval_s),
            None => {
                let detail = format!("stream `{}`: has no entry at all", opened.stream);
                Some(Finding { entry: None, kind: FindingKind::Silent, detail })
            }
        });
        silent.collect()
    }
}

fn silence(
    entry: Option<u64>,
    stream: &StreamName,
    between: std::ops::Range<UnixTime>,
    interval_s: u64,
) -> Option<Finding> {
    let silence = between.end.since(between.start);
    (silence > Duration::from_secs(interval_s)).then(|| {
        let detail =
            format!("stream `{stream}`: silent for {} s, at most {interval_s} s are allowed", silence.as_secs());
        Finding { entry, kind: FindingKind::Silent, detail }
    })
}
