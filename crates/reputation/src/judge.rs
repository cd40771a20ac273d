//! Verdicts, from what was reported and what is known: the same for whoever has the same, each with its reasons,
//! and with what was not believed (`docs/formats/cloud.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use crate::history::{Counted, History, Said};

/// What is made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It goes into the set of bad files.
    Malicious,
    /// It would, but for a reason that people must look at.
    Held,
    /// It is known to be good, whatever is reported.
    Clean,
    /// Nothing follows from what was reported.
    Unknown,
}

impl Standing {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malicious => "malicious",
            Self::Held => "held",
            Self::Clean => "clean",
            Self::Unknown => "unknown",
        }
    }
}

/// One reason, for machines and for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "code", deny_unknown_fields)]
pub enum Why {
    /// A rule of a signed release has found it.
    Detected {
        /// The rule.
        rule: String,
        /// The release that has it.
        release: String,
        /// In so many events.
        events: u64,
        /// Of so many countries.
        countries: usize,
    },
    /// A list, or the goodware.
    KnownGood {
        /// Which.
        by: String,
    },
    /// The rule is in no release in force, so that whatever is said in its name counts for nothing.
    UnknownRule {
        /// The rule.
        rule: String,
        /// In so many events.
        events: u64,
    },
    /// Fewer than are needed.
    TooFew {
        /// Events by rules of releases.
        events: u64,
        /// Their countries.
        countries: usize,
    },
    /// Many had it for long before anybody found something in it.
    Popular {
        /// So many events before.
        events: u64,
        /// Since then.
        since: UnixTime,
    },
    /// A rule accuses too many files at once.
    Flood {
        /// The rule.
        rule: String,
        /// So many files.
        files: usize,
    },
    /// Too many files at once would become malicious.
    Burst {
        /// So many.
        files: usize,
    },
    /// Reports that repeat a verdict of ours, which is no ground for it.
    Echo {
        /// How many.
        events: u64,
    },
    /// Many see it within a short time.
    Outbreak {
        /// So many events.
        events: u64,
        /// In so many seconds.
        seconds: u64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detected { rule, release, events, countries } => {
                write!(f, "rule {rule} of {release} has found it: {events} events, {countries} countries")
            }
            Self::KnownGood { by } => write!(f, "known to be good by {by}"),
            Self::UnknownRule { rule, events } => {
                write!(f, "{events} events in the name of {rule:?}, which no release in force has")
            }
            Self::TooFew { events, countries } => write!(f, "only {events} events of {countries} countries"),
            Self::Popular { events, since } => {
                write!(f, "{events} events had it since {since}, before anybody found something in it")
            }
            Self::Flood { rule, files } => write!(f, "rule {rule} accuses {files} files at once"),
            Self::Burst { files } => write!(f, "{files} files at once would become malicious"),
            Self::Echo { events } => write!(f, "{events} events repeat a verdict that was given out"),
            Self::Outbreak { events, seconds } => write!(f, "an outbreak: {events} events within {seconds} s"),
        }
    }
}

/// A file, what is made of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// The file's content.
    pub sha256: Digest,
    /// What is made of it.
    pub standing: Standing,
    /// When it was first spoken of.
    pub first: UnixTime,
    /// When it was last spoken of.
    pub last: UnixTime,
    /// In how many events, of all kinds.
    pub events: u64,
    /// What the verdict rests on.
    pub reasons: Vec<Why>,
    /// What was reported and not believed, or not enough.
    pub ignored: Vec<Why>,
}

/// When reports are enough, and when they are too much. They guard against accidents; who lies can write any
/// number of events, so that no number here makes a lie true: what does not rest on numbers stands in
/// `docs/formats/cloud.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Detections that are needed.
    pub events: u64,
    /// Countries that they are from.
    pub countries: usize,
    /// A file that so many looked up in vain,
    pub popular_events: u64,
    /// so long before the first detection, needs people.
    pub popular_s: u64,
    /// Files that one rule may newly accuse within an hour.
    pub rule_files: usize,
    /// Files that may become malicious at once.
    pub new_files: usize,
    /// So many events
    pub outbreak_events: u64,
    /// within such a time of the first are an outbreak.
    pub outbreak_s: u64,
    /// A verdict ends so long after the last detection: by then, rules or lists have it.
    pub lifetime_s: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            events: 3,
            countries: 2,
            popular_events: 1_000,
            popular_s: 24 * 3_600,
            rule_files: 100,
            new_files: 1_000,
            outbreak_events: 100,
            outbreak_s: 600,
            lifetime_s: 30 * 24 * 3_600,
        }
    }
}

/// How long a rule's accusations are counted together.
const FLOOD: Duration = Duration::from_secs(3_600);

/// What verdicts rest on besides reports.
#[derive(Clone, Copy, Debug)]
pub struct Grounds<'a> {
    /// Files that are known to be good, sorted by hash, each with who says so.
    pub good: &'a BTreeMap<Digest, String>,
    /// The rules of releases in force, each with its release.
    pub rules: &'a BTreeMap<String, String>,
    /// What was malicious before.
    pub before: &'a BTreeSet<Digest>,
    /// The time.
    pub now: UnixTime,
}

/// What is made of every file of which more was said than that nothing is known; and of outbreaks.
#[must_use]
pub fn judge(history: &History, grounds: Grounds<'_>, bounds: &Bounds) -> Vec<Judged> {
    let floods = floods(history, grounds, bounds);
    let mut judged: Vec<Judged> =
        history.files().filter_map(|(file, said)| one(file, said, grounds, bounds, &floods)).collect();
    let is_new = |it: &Judged| it.standing == Standing::Malicious && !grounds.before.contains(&it.sha256);
    let files = judged.iter().filter(|it| is_new(it)).count();
    if files > bounds.new_files {
        for it in judged.iter_mut().filter(|it| is_new(it)) {
            it.standing = Standing::Held;
            it.ignored.push(Why::Burst { files });
        }
    }
    judged
}

/// The rules that accuse too many files which were not malicious before, with how many.
fn floods<'h>(history: &'h History, grounds: Grounds<'_>, bounds: &Bounds) -> BTreeMap<&'h str, usize> {
    let mut accused: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, said) in history.files().filter(|(file, _)| !grounds.before.contains(file)) {
        if grounds.good.contains_key(file) {
            continue;
        }
        for (said, counted) in said {
            if let Said::Rule(rule) = said
                && grounds.now.since(counted.first) <= FLOOD
            {
                *accused.entry(rule).or_insert(0) += 1;
            }
        }
    }
    accused.retain(|_, files| *files > bounds.rule_files);
    accused
}

fn one<'h>(
    file: &Digest,
    all: impl Iterator<Item = (&'h Said, &'h Counted)>,
    grounds: Grounds<'_>,
    bounds: &Bounds,
    floods: &BTreeMap<&str, usize>,
) -> Option<Judged> {
    let all: Vec<(&Said, &Counted)> = all.collect();
    let first = all.iter().map(|(_, it)| it.first).min()?;
    let last = all.iter().map(|(_, it)| it.last).max()?;
    let events = all.iter().fold(0_u64, |sum, (_, it)| sum.saturating_add(it.events()));
    let mut judged =
        Judged { sha256: *file, standing: Standing::Unknown, first, last, events, reasons: vec![], ignored: vec![] };
    let short = last.since(first).as_secs() <= bounds.outbreak_s;
    let outbreak = (events >= bounds.outbreak_events && short)
        .then(|| Why::Outbreak { events, seconds: last.since(first).as_secs() });
    if all.iter().all(|(said, _)| **said == Said::Nothing) && outbreak.is_none() {
        return None;
    }
    let echoes = all.iter().find(|(said, _)| **said == Said::Echo).map(|(_, it)| it.events());
    judged.ignored.extend(echoes.map(|events| Why::Echo { events }));
    let (mut counted, mut countries, mut accused) = (0_u64, BTreeSet::new(), None::<(UnixTime, UnixTime)>);
    let mut flooded = Vec::new();
    for (rule, it) in all.iter().filter_map(|(said, it)| match said {
        Said::Rule(rule) => Some((rule, *it)),
        _ => None,
    }) {
        let Some(release) = grounds.rules.get(rule) else {
            judged.ignored.push(Why::UnknownRule { rule: rule.clone(), events: it.events() });
            continue;
        };
        let (first, last) = accused.unwrap_or((it.first, it.last));
        accused = Some((first.min(it.first), last.max(it.last)));
        if let Some(files) = floods.get(rule.as_str()).filter(|_| !grounds.before.contains(file)) {
            flooded.push(Why::Flood { rule: rule.clone(), files: *files });
            continue;
        }
        counted = counted.saturating_add(it.events());
        countries.extend(it.countries.keys());
        let (events, countries) = (it.events(), it.countries.len());
        judged.reasons.push(Why::Detected { rule: rule.clone(), release: release.clone(), events, countries });
    }
    let enough = counted >= bounds.events && countries.len() >= bounds.countries;
    let is_over = accused.is_some_and(|(_, last)| grounds.now.since(last).as_secs() > bounds.lifetime_s);
    let popular = accused.and_then(|(accused, _)| popular(&all, accused, bounds));
    let few = Why::TooFew { events: counted, countries: countries.len() };
    if let Some(by) = grounds.good.get(file) {
        judged.standing = Standing::Clean;
        judged.ignored.append(&mut judged.reasons);
        judged.ignored.append(&mut flooded);
        judged.reasons.push(Why::KnownGood { by: by.clone() });
    } else if is_over {
        judged.ignored.append(&mut judged.reasons);
    } else if enough && popular.is_some() && !grounds.before.contains(file) {
        judged.standing = Standing::Held;
        judged.ignored.extend(popular);
    } else if enough {
        judged.standing = Standing::Malicious;
    } else if flooded.is_empty() {
        judged.ignored.append(&mut judged.reasons);
        judged.ignored.extend(accused.map(|_| few));
    } else {
        judged.standing = Standing::Held;
    }
    judged.ignored.append(&mut flooded);
    judged.reasons.extend(outbreak);
    Some(judged)
}

/// Whether many had it long before anything was found in it.
fn popular(all: &[(&Said, &Counted)], accused: UnixTime, bounds: &Bounds) -> Option<Why> {
    let (_, nothing) = all.iter().find(|(said, _)| **said == Said::Nothing)?;
    let (events, since) = (nothing.events(), nothing.first);
    let early = since <= accused && accused.since(since).as_secs() >= bounds.popular_s;
    (events >= bounds.popular_events && early).then_some(Why::Popular { events, since })
}
