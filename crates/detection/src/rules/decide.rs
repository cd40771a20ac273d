//! The fast lane's policy: what may be released without people.
//!
//! What stood in the release before was approved with it, so each rule is judged when it is new, when
//! its text changes, or when a rule that it asks does. What concerns the whole is judged each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::index::{Cause, Index, IndexedRule};
use super::report::{Behaviour, Report};
use super::settings::{RuleLimits, Settings};
use super::text::{skeleton, visible};

/// Longest detail of a reason, in characters.
const DETAIL_CHARACTERS_MAX: usize = 300;

/// Which lane a release of rules goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The fast one.
    Fast,
    /// The slow one, for these reasons; sorted, never none.
    Slow(Vec<Reason>),
}

/// Why people must look at a release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For machines.
    pub code: ReasonCode,
    /// The rule, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The file, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// For people.
    pub detail: String,
}

/// Why, for machines. The order is that in which reasons are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonCode {
    /// A rule declares a class of data to collect, another one than before, or none any more.
    Collects,
    /// A file is no plain declarative rules, or hides what it is.
    NotDeclarative,
    /// A rule's name can be taken for another rule's.
    LookAlike,
    /// A rule silences all others where it does not match.
    GlobalRule,
    /// A rule that reported its matches does so no more.
    Silenced,
    /// A rule fires on a sample of the goodware.
    FiresOnGoodware,
    /// A rule fires on nothing in particular.
    TooBroad,
    /// A known-bad sample is not found.
    SampleMissed,
    /// A sample was not scanned to its end.
    SampleUnread,
    /// A rule has a string without any literal to search for.
    SlowPattern,
    /// A rule has a condition that goes round too often.
    SlowCondition,
    /// A rule has the engine search for too short a text.
    ShortAtom,
    /// A rule has the engine search for too many texts.
    TooManyLiterals,
    /// A rule is too large.
    RuleTooLarge,
    /// The bundle is too large.
    BundleTooLarge,
    /// The bundle grew too much.
    BundleGrew,
    /// There are too many rules.
    TooManyRules,
    /// Too many rules are new or other than before.
    TooManyChanged,
    /// Too many rules are gone.
    TooManyRemoved,
    /// A file whose rules were released is not in the bundle.
    FileLost,
    /// The rules were not tried on the corpora that the settings name, or hashes on nothing known to be good.
    Untried,
    /// A hash is of a file that is known to be good.
    KnownGood,
    /// There are too many hashes.
    TooManyHashes,
    /// Too many hashes are new.
    TooManyHashesAdded,
    /// Too many hashes are gone.
    TooManyHashesRemoved,
    /// There is nothing in it.
    Empty,
    /// `rules.toml` is not that of the release before.
    SettingsChanged,
    /// Another engine, or another version of it, read the rules.
    EngineChanged,
    /// There is no release before.
    FirstRelease,
}

impl ReasonCode {
    /// As it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Collects => "collects",
            Self::NotDeclarative => "not-declarative",
            Self::LookAlike => "look-alike",
            Self::GlobalRule => "global-rule",
            Self::Silenced => "silenced",
            Self::FiresOnGoodware => "fires-on-goodware",
            Self::TooBroad => "too-broad",
            Self::SampleMissed => "sample-missed",
            Self::SampleUnread => "sample-unread",
            Self::SlowPattern => "slow-pattern",
            Self::SlowCondition => "slow-condition",
            Self::ShortAtom => "short-atom",
            Self::TooManyLiterals => "too-many-literals",
            Self::RuleTooLarge => "rule-too-large",
            Self::BundleTooLarge => "bundle-too-large",
            Self::BundleGrew => "bundle-grew",
            Self::TooManyRules => "too-many-rules",
            Self::TooManyChanged => "too-many-changed",
            Self::TooManyRemoved => "too-many-removed",
            Self::FileLost => "file-lost",
            Self::Untried => "untried",
            Self::KnownGood => "known-good",
            Self::TooManyHashes => "too-many-hashes",
            Self::TooManyHashesAdded => "too-many-hashes-added",
            Self::TooManyHashesRemoved => "too-many-hashes-removed",
            Self::Empty => "empty",
            Self::SettingsChanged => "settings-changed",
            Self::EngineChanged => "engine-changed",
            Self::FirstRelease => "first-release",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        if let Some(file) = &self.file {
            write!(f, " in {}", visible(file))?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// Which lane these rules go through after `previous`, the index of the release before.
#[must_use]
pub fn decide(report: &Report, settings: &Settings, previous: Option<&Index>) -> Decision {
    let index = &report.index;
    let mut reasons = Vec::new();
    let touched = touched(index, previous);
    whole(index, &settings.limits, previous, &mut reasons);
    rejections(index, previous, &mut reasons);
    for rule in index.rules.iter().filter(|rule| touched.contains(rule.name.as_str())) {
        each(rule, &settings.limits, &mut reasons);
    }
    against_before(index, previous, &mut reasons);
    look_alikes(index, previous, &mut reasons);
    let tried = report.behaviour.as_ref().filter(|behaviour| {
        settings.corpus.is_some_and(|corpus| {
            corpus.known_bad == behaviour.known_bad.corpus && corpus.goodware == behaviour.goodware.corpus
        })
    });
    // Lists alone have no rules to try; rules that are gone were some.
    let lists_alone = index.rules.is_empty() && previous.is_none_or(|previous| previous.rules.is_empty());
    match tried {
        _ if lists_alone => {}
        Some(behaviour) => found(behaviour, index, &touched, &mut reasons),
        None => reasons.push(about(
            ReasonCode::Untried,
            "the settings name no corpora, or the rules were tried on others".to_owned(),
        )),
    }
    hashes(report, &settings.limits, previous, &mut reasons);
    reasons.sort();
    reasons.dedup();
    if reasons.is_empty() { Decision::Fast } else { Decision::Slow(reasons) }
}

fn about(code: ReasonCode, detail: String) -> Reason {
    Reason { code, rule: None, file: None, detail: visible(&detail).chars().take(DETAIL_CHARACTERS_MAX).collect() }
}

fn about_rule(code: ReasonCode, rule: &IndexedRule, detail: String) -> Reason {
    Reason { rule: Some(rule.name.clone()), file: Some(rule.file.clone()), ..about(code, detail) }
}

/// The rules whose verdict may be another than in the release before: those with another text, those
/// that ask one of these, and all, if one of these is global.
fn touched<'i>(index: &'i Index, previous: Option<&Index>) -> BTreeSet<&'i str> {
    let before = previous.map(Index::names).unwrap_or_default();
    let other = |rule: &IndexedRule| before.get(rule.name.as_str()).is_none_or(|old| old.text != rule.text);
    let mut touched = BTreeSet::new();
    let mut global = previous.is_none();
    // The bundle's order has a rule after those that it asks, so that one pass is enough.
    for rule in &index.rules {
        if other(rule) || rule.uses.iter().any(|used| touched.contains(used.as_str())) {
            touched.insert(rule.name.as_str());
            global |= rule.global;
        }
    }
    let gone = |old: &&IndexedRule| old.global && !index.rules.iter().any(|rule| rule.name == old.name);
    global |= previous.is_some_and(|previous| previous.rules.iter().any(|old| gone(&old)));
    if global { index.rules.iter().map(|rule| rule.name.as_str()).collect() } else { touched }
}

fn whole(index: &Index, limits: &RuleLimits, previous: Option<&Index>, reasons: &mut Vec<Reason>) {
    let mut over = |code, what: &str, has: u64, most: u64| {
        if has > most {
            reasons.push(about(code, format!("{has} {what}, and at most {most} pass")));
        }
    };
    over(ReasonCode::BundleTooLarge, "bytes", index.bundle.size, limits.bundle_bytes);
    over(ReasonCode::TooManyRules, "rules", index.rules.len() as u64, limits.rules.into());
    let Some(previous) = previous else {
        reasons.push(about(ReasonCode::FirstRelease, "there is no release to compare with".to_owned()));
        return;
    };
    let grown = index.bundle.size.saturating_sub(previous.bundle.size);
    over(ReasonCode::BundleGrew, "bytes more than before", grown, limits.growth_bytes);
    let (before, now) = (previous.names(), index.names());
    let changed = now.values().filter(|rule| before.get(rule.name.as_str()).is_none_or(|old| old.text != rule.text));
    over(ReasonCode::TooManyChanged, "rules are new or changed", changed.count() as u64, limits.changed_rules.into());
    let removed = before.keys().filter(|name| !now.contains_key(*name)).count() as u64;
    over(ReasonCode::TooManyRemoved, "rules are gone", removed, limits.removed_rules.into());
    if index.settings != previous.settings || index.product != previous.product {
        reasons.push(about(ReasonCode::SettingsChanged, "rules.toml is not that of the release before".to_owned()));
    }
    if index.engine != previous.engine {
        let detail = format!("read by {}, before by {}", index.engine, previous.engine);
        reasons.push(about(ReasonCode::EngineChanged, detail));
    }
}

/// A set is judged as a whole each time: nobody reads a thousand hashes.
fn hashes(report: &Report, limits: &RuleLimits, previous: Option<&Index>, reasons: &mut Vec<Reason>) {
    let now = report.index.hashes;
    if now.is_none() && report.index.rules.is_empty() {
        reasons.push(about(ReasonCode::Empty, "there are neither rules nor hashes".to_owned()));
    }
    if now.is_none() && previous.is_none_or(|previous| previous.hashes.is_none()) {
        return;
    }
    let Some(found) = &report.hashes else {
        return reasons.push(about(ReasonCode::Untried, "the hashes were compared with nothing".to_owned()));
    };
    let mut over = |code, what: &str, has: u32, most: u32| {
        if has > most {
            reasons.push(about(code, format!("{has} hashes{what}, and at most {most} pass")));
        }
    };
    over(ReasonCode::TooManyHashes, "", now.map_or(0, |now| now.count), limits.hashes);
    if previous.is_some() {
        over(ReasonCode::TooManyHashesAdded, " are new", found.added, limits.added_hashes);
        over(ReasonCode::TooManyHashesRemoved, " are gone", found.removed, limits.removed_hashes);
    }
    if now.is_some() && found.compared == 0 {
        let detail = "no file is known to be good here: `known-good/*.txt` and the goodware are empty";
        reasons.push(about(ReasonCode::Untried, detail.to_owned()));
    }
    for (hash, by) in &found.known_good {
        reasons.push(about(ReasonCode::KnownGood, format!("{hash} is known to be good by {by}")));
    }
}

fn rejections(index: &Index, previous: Option<&Index>, reasons: &mut Vec<Reason>) {
    let released = previous.map(Index::files).unwrap_or_default();
    let known: BTreeSet<(&str, Cause)> = previous
        .map(|index| index.rejected.iter().map(|file| (file.file.as_str(), file.cause)).collect())
        .unwrap_or_default();
    for file in &index.rejected {
        let reason = |code| Reason {
            file: Some(file.file.clone()),
            ..about(code, format!("rejected as {}: {}", file.cause.as_str(), file.detail))
        };
        if released.contains(file.file.as_str()) {
            reasons.push(reason(ReasonCode::FileLost));
        }
        if file.cause.is_suspicious() && !known.contains(&(file.file.as_str(), file.cause)) {
            reasons.push(reason(ReasonCode::NotDeclarative));
        }
    }
}

fn each(rule: &IndexedRule, limits: &RuleLimits, reasons: &mut Vec<Reason>) {
    let mut say = |code, detail: String| reasons.push(about_rule(code, rule, detail));
    if rule.text.size > limits.rule_bytes.into() {
        say(ReasonCode::RuleTooLarge, format!("{} bytes, and at most {} pass", rule.text.size, limits.rule_bytes));
    }
    if !rule.cost.slow.is_empty() {
        let names = rule.cost.slow.join(", ");
        say(
            ReasonCode::SlowPattern,
            format!("no literal to search for in {names}: tried at every place of every file"),
        );
    }
    if rule.cost.gaps > limits.gaps {
        let (has, most) = (rule.cost.gaps, limits.gaps);
        say(ReasonCode::SlowPattern, format!("{has} parts of a string may be as long as they like, and {most} pass"));
    }
    if rule.cost.steps > limits.steps {
        let (has, most) = (rule.cost.steps, limits.steps);
        say(ReasonCode::SlowCondition, format!("its condition goes round {has} times, and at most {most} pass"));
    }
    if let Some(atom) = rule.cost.atom.filter(|atom| *atom < limits.atom_bytes) {
        let least = limits.atom_bytes;
        say(ReasonCode::ShortAtom, format!("searches for a text of {atom} bytes, and at least {least} pass"));
    }
    if rule.cost.literals > limits.literals {
        let (has, most) = (rule.cost.literals, limits.literals);
        say(ReasonCode::TooManyLiterals, format!("searches for {has} texts, and at most {most} pass"));
    }
    if !rule.broad.is_empty() {
        let samples = rule.broad.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        say(ReasonCode::TooBroad, format!("fires on the built-in harmless samples {samples}"));
    }
    if rule.global {
        say(ReasonCode::GlobalRule, "silences every other rule where it does not match".to_owned());
    }
}

/// What must not change unseen, whether the text of the rule did or not.
fn against_before(index: &Index, previous: Option<&Index>, reasons: &mut Vec<Reason>) {
    let before = previous.map(Index::names).unwrap_or_default();
    for rule in &index.rules {
        let old = before.get(rule.name.as_str());
        let was = old.and_then(|old| old.collects.as_deref());
        if rule.collects.as_deref() != was {
            let said = |class: Option<&str>| class.map_or_else(|| "nothing".to_owned(), |class| format!("`{class}`"));
            let detail = format!("collects {} now, {} before", said(rule.collects.as_deref()), said(was));
            reasons.push(about_rule(ReasonCode::Collects, rule, detail));
        }
        if rule.private && old.is_some_and(|old| !old.private) {
            let detail = "is private now, so that nobody hears of its matches".to_owned();
            reasons.push(about_rule(ReasonCode::Silenced, rule, detail));
        }
    }
}

fn look_alikes(index: &Index, previous: Option<&Index>, reasons: &mut Vec<Reason>) {
    let before = previous.map(Index::names).unwrap_or_default();
    let mut seen: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for name in before.keys().copied().chain(index.rules.iter().map(|rule| rule.name.as_str())) {
        seen.entry(skeleton(name)).or_default().insert(name);
    }
    for rule in index.rules.iter().filter(|rule| !before.contains_key(rule.name.as_str())) {
        let same = seen.get(&skeleton(&rule.name)).into_iter().flatten().find(|other| **other != rule.name);
        if let Some(other) = same {
            reasons.push(about_rule(ReasonCode::LookAlike, rule, format!("can be taken for {other}")));
        }
    }
}

fn found(behaviour: &Behaviour, index: &Index, touched: &BTreeSet<&str>, reasons: &mut Vec<Reason>) {
    let names = index.names();
    for (sample, rules) in &behaviour.goodware.samples {
        for name in rules.iter().filter(|name| touched.contains(name.as_str())) {
            let detail = format!("fires on {sample}");
            reasons.push(match names.get(name.as_str()) {
                Some(rule) => about_rule(ReasonCode::FiresOnGoodware, rule, detail),
                None => about(ReasonCode::FiresOnGoodware, detail),
            });
        }
    }
    for (sample, _) in behaviour.known_bad.samples.iter().filter(|(_, rules)| rules.is_empty()) {
        reasons.push(about(ReasonCode::SampleMissed, format!("no rule fires on {sample}")));
    }
    for (sample, why) in behaviour.known_bad.unread.iter().chain(&behaviour.goodware.unread) {
        reasons.push(about(ReasonCode::SampleUnread, format!("{sample}: {why}")));
    }
}
