//! What changes from one release of rules to the next, by rule and by behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::index::{Index, IndexedRule, Rejected};
use super::report::{Behaviour, HashesReport, Report, Run};
use super::text::visible;

/// What changes. What declares `collects` comes first, whatever else there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The rules that may lead to the collection of data, before or now, if they changed in any way.
    pub collects: Vec<Collecting>,
    /// The rules that are new.
    pub added: Vec<String>,
    /// The rules that are gone.
    pub removed: Vec<String>,
    /// The rules that are other than before.
    pub changed: Vec<Changed>,
    /// The files that are rejected and were not.
    pub rejected: Vec<Rejected>,
    /// The files that were rejected, and are not any more.
    pub accepted: Vec<String>,
    /// What the set of hashes changes; none, if there is none now and was none before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashes: Option<HashesReport>,
    /// What fires that did not; none, if one of the two was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fires: Option<Vec<Firing>>,
    /// What fired and does not; none, if one of the two was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent: Option<Vec<Firing>>,
}

/// A rule that may lead to the collection of data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Collecting {
    /// Its name.
    pub rule: String,
    /// The class that it declared before.
    pub before: Option<String>,
    /// The class that it declares now.
    pub now: Option<String>,
}

/// A rule that is other than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub rule: String,
    /// What of it: some of `text`, `meta`, `tags`, `file`, `flags`, `cost`, `uses`.
    pub what: BTreeSet<&'static str>,
}

/// A rule fires on a sample.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Firing {
    /// The rule.
    pub rule: String,
    /// The corpus: `goodware` or `known-bad`.
    pub corpus: &'static str,
    /// The sample's path in it.
    pub sample: String,
}

/// Two reports, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reports<'r> {
    /// The release before; none, if this is the first.
    pub before: Option<&'r Report>,
    /// The one to come.
    pub now: &'r Report,
}

/// What changes between two reports.
#[must_use]
pub fn diff(reports: Reports<'_>) -> Diff {
    let Reports { before, now } = reports;
    let old = before.map(|report| report.index.names()).unwrap_or_default();
    let new = now.index.names();
    let mut diff = Diff::default();
    for (name, rule) in &new {
        match old.get(name) {
            None => diff.added.push((*name).to_owned()),
            Some(was) if was != rule => {
                diff.changed.push(Changed { rule: (*name).to_owned(), what: what_changed(was, rule) });
            }
            Some(_) => {}
        }
    }
    diff.removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (*name).to_owned()).collect();
    diff.collects = collecting(&old, &new);
    let rejected = |index: &Index| -> BTreeSet<Rejected> { index.rejected.iter().cloned().collect() };
    let (was, is) = (before.map(|report| rejected(&report.index)).unwrap_or_default(), rejected(&now.index));
    diff.rejected = is.difference(&was).cloned().collect();
    let still: BTreeSet<&str> = is.iter().map(|file| file.file.as_str()).collect();
    diff.accepted = was.iter().map(|file| file.file.clone()).filter(|file| !still.contains(file.as_str())).collect();
    diff.hashes = now.hashes.clone();
    if let (Some(was), Some(is)) = (before.and_then(|report| report.behaviour.as_ref()), now.behaviour.as_ref()) {
        let (was, is) = (firings(was), firings(is));
        diff.fires = Some(is.difference(&was).cloned().collect());
        diff.silent = Some(was.difference(&is).cloned().collect());
    }
    diff
}

type Rules<'r> = BTreeMap<&'r str, &'r IndexedRule>;

fn collecting(old: &Rules<'_>, new: &Rules<'_>) -> Vec<Collecting> {
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let class = |rule: Option<&&IndexedRule>| rule.and_then(|rule| rule.collects.clone());
    let mut collecting = Vec::new();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        let (before, now) = (class(was), class(is));
        if (before.is_some() || now.is_some()) && was != is {
            collecting.push(Collecting { rule: name.to_owned(), before, now });
        }
    }
    collecting
}

fn what_changed(was: &IndexedRule, is: &IndexedRule) -> BTreeSet<&'static str> {
    let parts = [
        ("text", was.text != is.text),
        ("meta", was.meta != is.meta),
        ("tags", was.tags != is.tags),
        ("file", was.file != is.file),
        ("flags", (was.private, was.global) != (is.private, is.global)),
        ("cost", was.cost != is.cost),
        ("uses", (&was.uses, &was.modules) != (&is.uses, &is.modules)),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

fn firings(behaviour: &Behaviour) -> BTreeSet<Firing> {
    let of = |corpus: &'static str, run: &Run| -> Vec<Firing> {
        let firing = |sample: &String, rule: &String| Firing { rule: rule.clone(), corpus, sample: sample.clone() };
        let samples = run.samples.iter();
        samples.flat_map(|(sample, rules)| rules.iter().map(move |rule| firing(sample, rule))).collect()
    };
    [of("known-bad", &behaviour.known_bad), of("goodware", &behaviour.goodware)].into_iter().flatten().collect()
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = |class: &Option<String>| class.as_deref().map_or_else(|| "nothing".to_owned(), visible);
        for Collecting { rule, before, now } in &self.collects {
            writeln!(f, "! {rule} collects {}, before {}", class(now), class(before))?;
        }
        for rule in &self.added {
            writeln!(f, "+ {rule}")?;
        }
        for rule in &self.removed {
            writeln!(f, "- {rule}")?;
        }
        for Changed { rule, what } in &self.changed {
            writeln!(f, "~ {rule}: {}", what.iter().copied().collect::<Vec<_>>().join(", "))?;
        }
        for Rejected { file, cause, detail } in &self.rejected {
            writeln!(f, "x {} is rejected as {}: {}", visible(file), cause.as_str(), visible(detail))?;
        }
        for file in &self.accepted {
            writeln!(f, "  {} is not rejected any more", visible(file))?;
        }
        if let Some(HashesReport { added, removed, compared, known_good }) = &self.hashes {
            writeln!(f, "# {added} hashes added, {removed} removed, compared with {compared} known to be good")?;
            for (hash, by) in known_good {
                writeln!(f, "! {hash} is known to be good by {}", visible(by))?;
            }
        }
        for (verb, firings) in [("fires", &self.fires), ("is silent", &self.silent)] {
            for Firing { rule, corpus, sample } in firings.iter().flatten() {
                writeln!(f, "  {rule} {verb} on {} of {corpus}", visible(sample))?;
            }
        }
        Ok(())
    }
}
