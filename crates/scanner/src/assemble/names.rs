//! One namespace for the whole tree: which rule has a name, and which rules come before it.

use std::collections::{BTreeMap, BTreeSet};

use detection::{Cause, Rejected};

use super::file::{FileRule, RulesOfFile, rejected};

/// A rule in its place among all.
#[derive(Clone, Debug)]
pub(super) struct Named<'f> {
    pub(super) file: &'f RulesOfFile,
    pub(super) rule: &'f FileRule,
    /// The rules that it asks.
    pub(super) uses: BTreeSet<&'f str>,
}

/// Files with a rule whose name an earlier file, or an earlier rule of the same, has for another rule.
pub(super) fn duplicates(files: &[RulesOfFile]) -> Vec<Rejected> {
    let mut taken: BTreeMap<&str, (&RulesOfFile, &FileRule)> = BTreeMap::new();
    let mut found = Vec::new();
    for file in files {
        let clash = file.rules.iter().enumerate().find_map(|(number, rule)| {
            let name = rule.facts.name.as_str();
            let own = file.rules.iter().take(number).find(|other| other.facts.name == name).map(|other| (file, other));
            let (at, other) = own.or_else(|| taken.get(name).copied())?;
            (other.pin != rule.pin).then(|| format!("{}: `{name}` is another rule in {}", rule.line, at.path))
        });
        match clash {
            Some(detail) => found.push(rejected(&file.path, Cause::DuplicateName, &detail)),
            None => taken.extend(file.rules.iter().map(|rule| (rule.facts.name.as_str(), (file, rule)))),
        }
    }
    found
}

/// The rules of `files`, each once, those that are asked before those that ask, and by name where that
/// leaves a choice. `known` are the names of all rules, also of files that are out.
pub(super) fn order<'f>(files: &[&'f RulesOfFile], known: &BTreeSet<&str>) -> Result<Vec<Named<'f>>, Vec<Rejected>> {
    let mut named: BTreeMap<&str, Named<'f>> = BTreeMap::new();
    for file in files {
        for rule in &file.rules {
            named.entry(rule.facts.name.as_str()).or_insert_with(|| Named { file, rule, uses: BTreeSet::new() });
        }
    }
    let mut problems = Vec::new();
    let names: BTreeSet<&'f str> = named.keys().copied().collect();
    for one in named.values_mut() {
        let own = one.rule.facts.name.as_str();
        for asked in one.rule.facts.asks.iter().map(String::as_str).filter(|asked| *asked != own) {
            if let Some(name) = names.get(asked) {
                one.uses.insert(name);
            } else if known.contains(asked) {
                problems.push(unknown_rule(one.file, one.rule, asked));
            }
        }
        for prefix in one.rule.facts.asks_all.iter().map(String::as_str) {
            let all = names.range(prefix..).take_while(|name| name.starts_with(prefix));
            one.uses.extend(all.filter(|name| **name != own));
        }
    }
    if problems.is_empty() { sort(named) } else { Err(problems) }
}

/// A rule asks one that is out.
pub(super) fn unknown_rule(file: &RulesOfFile, rule: &FileRule, asked: &str) -> Rejected {
    rejected(&file.path, Cause::UnknownRule, &format!("{}: asks `{asked}`, whose file is rejected", rule.line))
}

fn sort<'f>(named: BTreeMap<&'f str, Named<'f>>) -> Result<Vec<Named<'f>>, Vec<Rejected>> {
    let mut waits: BTreeMap<&str, usize> = named.iter().map(|(name, one)| (*name, one.uses.len())).collect();
    let mut askers: BTreeMap<&str, Vec<&'f str>> = BTreeMap::new();
    for (name, one) in &named {
        for used in &one.uses {
            askers.entry(used).or_default().push(name);
        }
    }
    let mut ready: BTreeSet<&str> = waits.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    let mut sorted = Vec::with_capacity(named.len());
    while let Some(name) = ready.pop_first() {
        waits.remove(name);
        sorted.extend(named.get(name).cloned());
        for asker in askers.get(name).into_iter().flatten() {
            if let Some(count) = waits.get_mut(asker) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.insert(asker);
                }
            }
        }
    }
    if waits.is_empty() {
        return Ok(sorted);
    }
    // Those that wait for ever: the circle, and what asks it. The latter come back without the circle's
    // names, and are then told that these are missing.
    let in_circle = |name: &str| reaches(&named, name);
    let stuck = waits.keys().filter(|name| in_circle(name)).filter_map(|name| named.get(name));
    let circle = stuck.map(|one| {
        let detail = format!("{}: `{}` asks itself by way of others", one.rule.line, one.rule.facts.name);
        rejected(&one.file.path, Cause::Circle, &detail)
    });
    Err(circle.collect())
}

/// Whether a rule asks itself, by way of others.
fn reaches(named: &BTreeMap<&str, Named<'_>>, start: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<&str> = vec![start];
    while let Some(name) = pending.pop() {
        for used in named.get(name).into_iter().flat_map(|one| &one.uses) {
            if *used == start {
                return true;
            }
            if seen.insert(*used) {
                pending.push(used);
            }
        }
    }
    false
}
