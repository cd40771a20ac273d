//! What a policy would change is told before it is signed, and all of it.

use std::collections::BTreeSet;

use attest::CountryCode;
use policy::{Assignment, Change, Residency, Whereabouts};
use proptest::prelude::{prop_assert_eq, proptest};
use stdx::UnixTime;

use crate::residency::{assignments, three_regions};
use crate::scene::{X_WING, country, region, time, timed, with_residency};

const NOW: &str = "2026-12-01T00:00:00Z";

fn changes(change: impl FnOnce(&mut policy::Policy)) -> Vec<String> {
    let before = with_residency();
    let mut after = before.clone();
    after.version += 1;
    change(&mut after);
    after.changes_from(&before, time(NOW)).iter().map(ToString::to_string).collect()
}

fn residency_changes(change: impl FnOnce(&mut Residency)) -> Vec<String> {
    changes(|policy| change(policy.residency.as_mut().unwrap()))
}

#[test]
fn more_countries_are_a_line_each_date() {
    assert!(changes(|_| {}).is_empty());
    let added = residency_changes(|residency| {
        let countries = vec![country("BR"), country("CL")];
        let from = time("2027-01-01T00:00:00Z");
        residency.assignments.push(Assignment { region: region("zurich"), from, countries });
    });
    assert_eq!(added, ["from 2027-01-01T00:00:00Z: refused → zurich: BR CL"]);
    let gone = residency_changes(|residency| residency.assignments[0].countries.retain(|it| it.as_str() != "JP"));
    assert_eq!(gone, [format!("from {NOW}: zurich → refused: JP")]);
}

#[test]
fn custodians_keys_classes_and_the_rest_are_told() {
    let found = residency_changes(|residency| {
        residency.regions[0].custodians.remove(1);
        residency.regions[0].country = country("LI");
        residency.classes.truncate(1);
        residency.classes[0].approvals.clear();
        residency.classes[0].rows_max += 1;
        let next = timed('A', X_WING, "2030-01-01T00:00:00Z", "2030-01-08T00:00:00Z");
        residency.regions[0].custodians[0].keys.push(next);
        residency.gateway = "member".parse().unwrap();
    });
    let text = found.join("\n");
    for expected in [
        "region zurich: custodian member is removed",
        "region zurich, custodian supervisor: 1 keys added, 0 taken back",
        "`residency.regions.zurich.country` is not as it was",
        "class content: accepted → refused",
        "class detections: rows_max 1000000 → 1000001",
        "`residency.gateway` is not as it was",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.contains("class detections: approvals ["), "{text}");
    let taken = residency_changes(|residency| {
        residency.regions[0].custodians[1].keys.pop();
        let vendor = "vendor".parse().unwrap();
        let added = policy::RegionCustodian { organisation: vendor, ..residency.regions[0].custodians[0].clone() };
        residency.regions[0].custodians.push(added);
    });
    let expected =
        ["region zurich: custodian vendor is added", "region zurich, custodian member: 0 keys added, 1 taken back"];
    assert_eq!(taken, expected);
    assert_eq!(changes(|policy| policy.ages.online_s = 60), ["`ages` is not as it was"]);
    let all = changes(|policy| policy.residency = None).join("\n");
    assert!(all.contains("zurich → refused: AD AL") && all.contains("class content: accepted → refused"), "{all}");
}

fn whereabouts(residency: &Residency, country: CountryCode, at: UnixTime) -> Whereabouts {
    residency.region_of(country, at).map_or(Whereabouts::Refused, |it| Whereabouts::Region(it.id.clone()))
}

proptest! {
    /// At any time from now on, whoever reads the changes knows of every country where it goes.
    #[test]
    fn no_country_moves_untold(old in assignments(), new in assignments(), now in 0..7_u64) {
        let (mut before, mut after) = (with_residency(), with_residency());
        (before.residency, after.residency) = (Some(three_regions(old)), Some(three_regions(new)));
        let now = UnixTime::from_seconds(now * 86_400);
        let told = after.changes_from(&before, now);
        for day in 0..9 {
            let at = UnixTime::from_seconds(day * 86_400);
            for country in CountryCode::all().take(7).filter(|_| at >= now) {
                let pair = (
                    whereabouts(before.residency.as_ref().unwrap(), country, at),
                    whereabouts(after.residency.as_ref().unwrap(), country, at),
                );
                let of_country: BTreeSet<_> = told.iter().filter_map(|change| match change {
                    Change::Countries { from, before, after, countries } if countries.contains(&country) && *from <= at => {
                        Some((*from, before.clone(), after.clone()))
                    }
                    _ => None,
                }).collect();
                if pair.0 != pair.1 {
                    let last = of_country.last().map(|(_, before, after)| (before.clone(), after.clone()));
                    prop_assert_eq!(last, Some(pair));
                }
            }
        }
    }
}
