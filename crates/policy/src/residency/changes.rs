//! What a policy would change if it came into force: seen before it is signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use attest::{CountryCode, DataClass, OrganisationId, RegionId};
use serde::Serialize;
use stdx::UnixTime;

use super::{Region, Residency, SealingKey};
use crate::Policy;

/// Where a country's data goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Whereabouts {
    /// Nowhere: it is refused.
    Refused,
    /// Into this region.
    Region(RegionId),
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Region(region) => region.fmt(f),
        }
    }
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Data of these countries goes elsewhere.
    Countries {
        /// From this time on.
        from: UnixTime,
        /// Where it would have gone,
        before: Whereabouts,
        /// and where it goes.
        after: Whereabouts,
        /// The countries.
        countries: Vec<CountryCode>,
    },
    /// A custodian who must agree to whatever is sealed from now on.
    CustodianAdded {
        /// The region.
        region: RegionId,
        /// The custodian.
        custodian: OrganisationId,
    },
    /// One for whom nothing is sealed any more. What was sealed before still needs it.
    CustodianRemoved {
        /// The region.
        region: RegionId,
        /// The custodian.
        custodian: OrganisationId,
    },
    /// Keys that data is sealed to.
    Keys {
        /// The region.
        region: RegionId,
        /// The custodian.
        custodian: OrganisationId,
        /// Keys that are new.
        added: usize,
        /// Keys that are gone before their time was over.
        removed: usize,
    },
    /// A kind of data with other rules, or a new one, or one that is refused from now on.
    Class {
        /// The class.
        class: DataClass,
        /// Its rule that differs, as it was; nothing if it is new.
        before: Option<String>,
        /// As it is; nothing if the class is gone.
        after: Option<String>,
    },
    /// Another part of the policy.
    Member {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Countries { from, before, after, countries } => {
                let names: Vec<&str> = countries.iter().map(|country| country.as_str()).collect();
                write!(f, "from {from}: {before} → {after}: {}", names.join(" "))
            }
            Self::CustodianAdded { region, custodian } => write!(f, "region {region}: custodian {custodian} is added"),
            Self::CustodianRemoved { region, custodian } => {
                write!(f, "region {region}: custodian {custodian} is removed")
            }
            Self::Keys { region, custodian, added, removed } => {
                write!(f, "region {region}, custodian {custodian}: {added} keys added, {removed} taken back")
            }
            Self::Class { class, before, after } => {
                let text = |it: &Option<String>| it.clone().unwrap_or_else(|| "refused".to_owned());
                write!(f, "class {class}: {} → {}", text(before), text(after))
            }
            Self::Member { name } => write!(f, "`{name}` is not as it was"),
        }
    }
}

impl Policy {
    /// What would change at `at` and later if this policy took the place of `before`.
    #[must_use]
    pub fn changes_from(&self, before: &Self, at: UnixTime) -> Vec<Change> {
        let (old, new) = (before.residency.as_ref(), self.residency.as_ref());
        let mut changes = countries(old, new, at);
        changes.extend(custodians(old, new, at));
        changes.extend(classes(old, new));
        changes.extend(members(before, self));
        changes
    }
}

fn whereabouts(residency: Option<&Residency>, country: CountryCode, at: UnixTime) -> Whereabouts {
    let region = residency.and_then(|it| it.region_of(country, at));
    region.map_or(Whereabouts::Refused, |region| Whereabouts::Region(region.id.clone()))
}

/// Both policies are asked at every time at which one of them changes its mind.
fn countries(old: Option<&Residency>, new: Option<&Residency>, at: UnixTime) -> Vec<Change> {
    let dates = [old, new].into_iter().flatten().flat_map(|it| &it.assignments).map(|it| it.from.max(at));
    let mut found: BTreeMap<(UnixTime, Whereabouts, Whereabouts), Vec<CountryCode>> = BTreeMap::new();
    let dates: BTreeSet<UnixTime> = dates.chain([at]).collect();
    for country in CountryCode::all() {
        let mut last = None;
        for date in &dates {
            let found_here = (whereabouts(old, country, *date), whereabouts(new, country, *date));
            if found_here.0 != found_here.1 && last.as_ref() != Some(&found_here) {
                let (before, after) = found_here.clone();
                found.entry((*date, before, after)).or_default().push(country);
            }
            last = Some(found_here);
        }
    }
    let change = |((from, before, after), countries)| Change::Countries { from, before, after, countries };
    found.into_iter().map(change).collect()
}

fn custodians(old: Option<&Residency>, new: Option<&Residency>, at: UnixTime) -> Vec<Change> {
    let of = |it: Option<&Residency>, id: &RegionId| it.and_then(|it| it.region(id)).cloned();
    let regions = [old, new].into_iter().flatten().flat_map(|it| &it.regions).map(|it| it.id.clone());
    let regions: BTreeSet<RegionId> = regions.collect();
    let mut changes = Vec::new();
    for id in regions {
        let (old, new) = (of(old, &id), of(new, &id));
        if let (Some(old), Some(new)) = (&old, &new)
            && old.country != new.country
        {
            changes.push(Change::Member { name: format!("residency.regions.{id}.country") });
        }
        let (old, new) = (keys(old), keys(new));
        for who in new.keys().filter(|who| !old.contains_key(*who)) {
            changes.push(Change::CustodianAdded { region: id.clone(), custodian: who.clone() });
        }
        for (who, before) in &old {
            let Some(after) = new.get(who) else {
                changes.push(Change::CustodianRemoved { region: id.clone(), custodian: who.clone() });
                continue;
            };
            let added = after.iter().filter(|key| !before.contains(*key)).count();
            // What has had its time is no loss.
            let removed = before.iter().filter(|key| !after.contains(*key) && key.2 > at).count();
            if added + removed > 0 {
                changes.push(Change::Keys { region: id.clone(), custodian: who.clone(), added, removed });
            }
        }
    }
    changes
}

type Key = (SealingKey, UnixTime, UnixTime);

fn keys(region: Option<Region>) -> BTreeMap<OrganisationId, BTreeSet<Key>> {
    let custodians = region.map(|it| it.custodians).unwrap_or_default().into_iter();
    let keys = custodians.map(|it| {
        let keys = it.keys.into_iter().map(|key| (key.key, key.from, key.until));
        (it.organisation, keys.collect())
    });
    keys.collect()
}

fn classes(old: Option<&Residency>, new: Option<&Residency>) -> Vec<Change> {
    let mut changes = Vec::new();
    let named = [old, new].into_iter().flatten().flat_map(|it| &it.classes).map(|it| it.id.clone());
    for class in named.collect::<BTreeSet<DataClass>>() {
        let rules = |it: Option<&Residency>| it.and_then(|it| it.class(&class)).map(members_of);
        match (rules(old), rules(new)) {
            (Some(old), Some(new)) => {
                let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
                    let text = |rules: &Members| rules.get(name).map_or_else(|| "none".to_owned(), ToString::to_string);
                    let (before, after) = (Some(format!("{name} {}", text(&old))), Some(text(&new)));
                    changes.push(Change::Class { class: class.clone(), before, after });
                }
            }
            (old, new) => {
                let text = |it: Option<Members>| it.map(|_| "accepted".to_owned());
                changes.push(Change::Class { class: class.clone(), before: text(old), after: text(new) });
            }
        }
    }
    changes
}

/// The policy's other members that differ, and those of `residency` that are no list above.
fn members(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut changes = Vec::new();
    let differing = |old: &Members, new: &Members, ignored: &[&str]| -> Vec<String> {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        differ.filter(|name| !ignored.contains(&name.as_str())).cloned().collect()
    };
    let names = differing(&members_of(old), &members_of(new), &["version", "residency"]);
    changes.extend(names.into_iter().map(|name| Change::Member { name }));
    let of = |policy: &Policy| policy.residency.as_ref().map(members_of).unwrap_or_default();
    let names = differing(&of(old), &of(new), &["regions", "assignments", "classes"]);
    changes.extend(names.into_iter().map(|name| Change::Member { name: format!("residency.{name}") }));
    changes
}

type Members = serde_json::Map<String, serde_json::Value>;

fn members_of<T: Serialize>(value: &T) -> Members {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => Members::new(),
    }
}
