//! What the threat cloud has read and made of it, in one file that anybody here can look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use attest::{RegionId, StatementId};
use reputation::{History, Judged, Report};
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime, durable};

use super::is_malicious;

/// What was reported and not looked at one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ignored {
    /// Events whose hash is none, or that say what nobody knows.
    pub(crate) malformed: u64,
    /// Groups of events beyond those that one batch takes; those with the fewest events.
    pub(crate) beyond: u64,
    /// Seconds in which more was taken than one access may open or give out.
    pub(crate) unread: u64,
    /// Sealed objects that hold no events of their class, or that nobody can open.
    #[serde(default)]
    pub(crate) unreadable: u64,
    /// Files that were too many to be remembered.
    pub(crate) forgotten: u64,
}

impl Ignored {
    pub(super) fn add(&mut self, more: Self) {
        self.malformed = self.malformed.saturating_add(more.malformed);
        self.beyond = self.beyond.saturating_add(more.beyond);
        self.unread = self.unread.saturating_add(more.unread);
        self.unreadable = self.unreadable.saturating_add(more.unreadable);
        self.forgotten = self.forgotten.saturating_add(more.forgotten);
    }
}

/// What is made of files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdicts {
    /// When.
    pub(crate) time: UnixTime,
    /// How many files were spoken of.
    pub(crate) files: usize,
    /// Of which more than that nothing is known of them, with verdicts and reasons.
    pub(crate) judged: Vec<Judged>,
    /// What was not looked at one by one, since the beginning.
    pub(crate) ignored: Ignored,
    /// The release that has what is malicious: its version, and when both had signed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) release: Option<Released>,
}

/// What became of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Released {
    pub(crate) version: String,
    pub(crate) time: UnixTime,
    /// Why the builders refuse it, if they do: people must look.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) refused: Vec<attest::Reason>,
}

impl Verdicts {
    pub(crate) fn malicious(&self) -> BTreeSet<Digest> {
        self.judged.iter().filter(|it| is_malicious(it.standing)).map(|it| it.sha256).collect()
    }
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The number of each region's next manifest.
    pub(super) manifests: BTreeMap<RegionId, u64>,
    /// Files that a builder knows to be good, and has refused.
    pub(super) refused: BTreeMap<Digest, String>,
    /// What is settled.
    history: History,
    /// What was ignored of it.
    #[serde(default)]
    ignored: Ignored,
    /// What was read by each request.
    requests: BTreeMap<StatementId, Tail>,
    /// What was released last, or tried.
    tried: Option<BTreeSet<Digest>>,
    pub(super) verdicts: Verdicts,
}

/// What is read again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    /// Until then nothing more comes.
    settled: UnixTime,
    reports: Vec<Report>,
    #[serde(default)]
    ignored: BTreeMap<UnixTime, Ignored>,
}

/// What came of a reading.
#[derive(Default)]
pub(super) struct Read {
    pub(super) reports: Vec<Report>,
    /// What was not read, or could not be, by when it was taken.
    pub(super) ignored: BTreeMap<UnixTime, Ignored>,
}

/// Where verdicts lie.
pub(crate) fn verdicts_path(folder: &Path) -> PathBuf {
    folder.join("verdicts.json")
}

fn state_path(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

/// What a gateway of look-ups reads: one hash a line.
fn list_path(folder: &Path) -> PathBuf {
    folder.join("malicious.txt")
}

impl State {
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        durable::create_folder(folder).with_context(|| format!("can't make `{}`", folder.display()))?;
        let path = state_path(folder);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("`{}` is damaged", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("can't read `{}`", path.display())),
        }
    }

    /// What counts comes first, then what is told of it.
    pub(super) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let write = |path: PathBuf, bytes: &[u8]| {
            durable::write(&path, bytes).with_context(|| format!("can't write `{}`", path.display()))
        };
        write(state_path(folder), &serde_json::to_vec(self)?)?;
        write(verdicts_path(folder), &serde_json::to_vec(&self.verdicts)?)?;
        let list: String = self.verdicts.malicious().iter().map(|hash| format!("{hash}\n")).collect();
        if fs::read(list_path(folder)).is_ok_and(|known| known == list.as_bytes()) {
            return Ok(());
        }
        write(list_path(folder), list.as_bytes())
    }

    /// Everything that was reported.
    pub(super) fn all(&self) -> History {
        let mut all = self.history.clone();
        all.absorb(self.requests.values().flat_map(|tail| tail.reports.iter().cloned()));
        all
    }

    /// What was taken until then need not be read again.
    pub(super) fn settled(&self, request: &StatementId) -> UnixTime {
        self.requests.get(request).map_or(UnixTime::EPOCH, |tail| tail.settled)
    }

    /// Takes in what was read of all since [`Self::settled`]. What may not be all yet takes the place of what was
    /// read of that time before.
    pub(super) fn absorb(&mut self, request: StatementId, read: Read, slack: Duration) {
        let Read { reports, ignored } = read;
        let tail = self.requests.entry(request).or_default();
        let newest = reports.iter().map(|it| it.taken).max().unwrap_or(tail.settled);
        let settled = UnixTime::from_seconds(newest.seconds().saturating_sub(slack.as_secs())).max(tail.settled);
        tail.settled = settled;
        let (done, open): (Vec<_>, _) = reports.into_iter().partition(|it| it.taken <= settled);
        tail.reports = open;
        self.history.absorb(done);
        let (done, open): (BTreeMap<_, _>, _) = ignored.into_iter().partition(|(taken, _)| *taken <= settled);
        tail.ignored = open;
        done.into_values().for_each(|more| self.ignored.add(more));
    }

    pub(super) fn judged(&mut self, judged: Vec<Judged>, files: usize, now: UnixTime) {
        let mut ignored = self.ignored;
        self.requests.values().flat_map(|tail| tail.ignored.values()).for_each(|more| ignored.add(*more));
        let release = self.verdicts.release.take();
        self.verdicts = Verdicts { time: now, files, judged, ignored, release };
    }

    pub(super) fn forget(&mut self, now: UnixTime, lifetime: Duration) {
        let before = UnixTime::from_seconds(now.seconds().saturating_sub(lifetime.as_secs()));
        let forgotten = self.history.forget(before) as u64;
        let more = Ignored { forgotten, ..Ignored::default() };
        self.ignored.add(more);
        self.verdicts.ignored.add(more);
    }

    /// Whether what is malicious is other than what was released, or tried, last.
    pub(super) fn wants_release(&self) -> bool {
        let malicious = self.verdicts.malicious();
        match &self.tried {
            Some(tried) => *tried != malicious,
            None => !malicious.is_empty(),
        }
    }

    /// These were released, or refused. What a builder knows to be good, is.
    pub(super) fn released(&mut self, malicious: BTreeSet<Digest>, released: Released) {
        for reason in released.refused.iter().filter(|reason| reason.code == "known-good") {
            let (hash, by) = reason.detail.split_at_checked(64).unwrap_or_default();
            if let Ok(hash) = hash.parse() {
                self.refused.insert(hash, format!("a builder:{by}"));
            }
        }
        self.tried = Some(malicious);
        // Without those it is judged, and tried, again.
        if released.refused.iter().any(|reason| reason.code == "known-good") {
            self.verdicts.time = UnixTime::EPOCH;
        }
        self.verdicts.release = Some(released);
    }
}

#[cfg(test)]
mod tests {
    use reputation::Said;

    use super::*;

    #[test]
    fn what_is_read_twice_was_ignored_once() {
        let (request, slack) = (StatementId::of(b"a request"), Duration::from_secs(10));
        let at = UnixTime::from_seconds;
        let report = |taken| Report {
            sha256: Digest::of(b"a file"),
            said: Said::Nothing,
            country: "DE".to_owned(),
            taken: at(taken),
            events: 1,
        };
        let malformed = |taken, malformed| (at(taken), Ignored { malformed, ..Ignored::default() });
        let mut state = State::default();
        let read = |state: &mut State, reports: &[u64], ignored: &[(UnixTime, Ignored)]| {
            let (reports, ignored) = (reports.iter().copied().map(report).collect(), ignored.iter().copied().collect());
            state.absorb(request, Read { reports, ignored }, slack);
            state.judged(Vec::new(), 0, at(200));
            state.verdicts.ignored.malformed
        };
        assert_eq!(read(&mut state, &[100], &[malformed(100, 3)]), 3, "it is shown at once");
        assert_eq!(read(&mut state, &[100, 105], &[malformed(100, 3), malformed(105, 1)]), 4);
        // By now the first is settled, and not read again.
        assert_eq!(read(&mut state, &[100, 105, 112], &[malformed(100, 3), malformed(105, 1)]), 4);
        assert_eq!(read(&mut state, &[105, 112, 130], &[malformed(105, 1), malformed(130, 5)]), 9);
        assert_eq!(read(&mut state, &[], &[malformed(130, 5)]), 9);
    }
}
