//! Which country's data lies where, and what makes no sense.

use attest::CountryCode;
use policy::{Assignment, Policy, PolicyError, Residency, ResidencyError, Role, SealingKey, Threshold};
use proptest::prelude::{Strategy, prop_assert_eq, proptest};
use stdx::UnixTime;

use crate::scene::{P256, X_WING, country, plain, refused, region, residency, time, timed, with_residency};

#[test]
fn the_sample_makes_sense_and_has_one_encoding() {
    let policy = with_residency();
    policy.check().unwrap();
    let text = toml::to_string_pretty(&policy).unwrap();
    assert_eq!(toml::from_str::<Policy>(&text).unwrap(), policy);
    let json = serde_json::to_vec(&policy).unwrap();
    assert_eq!(serde_json::from_slice::<Policy>(&json).unwrap(), policy);
    // Without one, nothing of the encoding has changed.
    assert!(!serde_json::to_string(&plain()).unwrap().contains("residency"));
}

#[test]
fn europe_north_america_and_four_more_lie_in_zurich_and_nobody_else_anywhere() {
    let (residency, now) = (residency(), time("2026-12-01T00:00:00Z"));
    for code in ["DE", "CH", "GB", "UA", "US", "CA", "JP", "KR", "SG", "AU"] {
        assert_eq!(residency.region_of(country(code), now).unwrap().id, region("zurich"), "{code}");
    }
    for code in ["RU", "CN", "BR", "IN", "ZA", "AE"] {
        assert_eq!(residency.region_of(country(code), now), None, "{code}: refused until it is assigned");
    }
    let first = residency.assignments[0].from;
    let before = UnixTime::from_seconds(first.seconds() - 1);
    assert!(CountryCode::all().all(|country| residency.region_of(country, before).is_none()));
    assert!(residency.region_of(country("DE"), first).is_some(), "from this very second on");
}

#[test]
fn a_later_assignment_counts_from_its_date_on() {
    let mut residency = residency();
    let mut second = residency.regions[0].clone();
    second.id = region("singapore");
    residency.regions.push(second);
    let (from, countries) = (time("2027-06-01T00:00:00Z"), vec![country("SG")]);
    residency.assignments.insert(0, Assignment { region: region("singapore"), from, countries });
    let at = |text| residency.region_of(country("SG"), time(text)).unwrap().id.clone();
    assert_eq!((at("2027-05-31T23:59:59Z"), at("2027-06-01T00:00:00Z")), (region("zurich"), region("singapore")));
}

#[test]
fn a_custodian_without_a_key_for_the_time_stops_sealing() {
    let residency = residency();
    let zurich = &residency.regions[0];
    let keys = zurich.keys_at(time("2026-12-01T00:00:00Z")).unwrap();
    assert_eq!(keys.iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>(), ["supervisor", "member"]);
    assert!(keys.iter().any(|(_, key)| key.is_hybrid()));
    for key in zurich.custodians.iter().flat_map(|it| &it.keys) {
        zurich.keys_at(key.from).unwrap();
    }
    let last = zurich.custodians[0].keys.last().unwrap().until;
    let error = zurich.keys_at(last).unwrap_err();
    assert_eq!((error.custodian.as_str(), error.at), ("supervisor", last));
    assert!(zurich.keys_at(UnixTime::EPOCH).is_err());
}

fn residency_refused(change: impl FnOnce(&mut Residency)) -> PolicyError {
    refused(|policy| change(policy.residency.as_mut().unwrap()))
}

#[test]
fn what_one_organisation_could_open_alone_is_refused() {
    let custodians = |change: fn(&mut Vec<policy::RegionCustodian>)| {
        residency_refused(|residency| change(&mut residency.regions[0].custodians))
    };
    let alone = custodians(|it| it.truncate(1));
    assert!(matches!(alone, PolicyError::Residency(ResidencyError::Custodians(_, 1))), "{alone}");
    let none = custodians(Vec::clear);
    assert!(matches!(none, PolicyError::Residency(ResidencyError::Custodians(_, 0))), "{none}");
    let twice = custodians(|it| it[1].organisation = it[0].organisation.clone());
    assert!(matches!(twice, PolicyError::Duplicate { what: "custodian", .. }), "{twice}");
    let same = custodians(|it| it[1].keys[0].key = it[0].keys[0].key.clone());
    assert!(matches!(same, PolicyError::Residency(ResidencyError::EqualKeys(..))), "{same}");
    let again = custodians(|it| it[0].keys[1].key = it[0].keys[0].key.clone());
    assert!(matches!(again, PolicyError::Residency(ResidencyError::EqualKeys(..))), "{again}");
    // For a single week without it, harvested ciphertext would wait for a quantum computer.
    let harvest = custodians(|it| {
        it[1].keys = vec![
            timed('A', X_WING, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            timed('B', P256, "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"),
        ];
    });
    assert!(matches!(harvest, PolicyError::Residency(ResidencyError::NotHybrid(_))), "{harvest}");
    for (from, until) in [
        ("2026-11-29T23:59:59Z", "2026-12-07T00:00:00Z"),
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12-01T00:00:00Z", "2026-11-30T00:00:00Z"),
    ] {
        let overlap = residency_refused(|residency| {
            let first = timed('A', X_WING, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z");
            residency.regions[0].custodians[1].keys = vec![first, timed('B', X_WING, from, until)];
        });
        assert!(matches!(overlap, PolicyError::Residency(ResidencyError::Overlap { .. })), "{overlap}");
    }
}

#[test]
fn what_has_two_meanings_or_none_is_refused() {
    let twice = residency_refused(|residency| {
        let again = Assignment { countries: vec![country("JP")], ..residency.assignments[0].clone() };
        residency.assignments.push(again);
    });
    assert!(twice.to_string().contains("country `JP` is assigned twice"), "{twice}");
    let order = residency_refused(|residency| residency.assignments[0].countries.swap(0, 1));
    assert!(matches!(order, PolicyError::Residency(ResidencyError::Order(..))), "{order}");
    let nowhere = residency_refused(|residency| residency.assignments[0].region = region("geneva"));
    assert!(nowhere.to_string().contains("names a region `geneva`"), "{nowhere}");
    let empty = residency_refused(|residency| residency.assignments[0].countries.clear());
    assert!(matches!(empty, PolicyError::Residency(ResidencyError::Count { .. })), "{empty}");
    let log = residency_refused(|residency| residency.log = "member.example/log".parse().unwrap());
    assert!(log.to_string().contains("names a log `member.example/log`"), "{log}");
    let class = residency_refused(|residency| residency.classes[1].id = residency.classes[0].id.clone());
    assert!(matches!(class, PolicyError::Duplicate { what: "class of data", .. }), "{class}");
    let purpose = residency_refused(|residency| residency.classes[0].purposes.clear());
    assert!(purpose.to_string().contains("purposes of class"), "{purpose}");
    let changes: [fn(&mut policy::ClassPolicy); 5] = [
        |class| class.retention_s = 0,
        |class| class.lease_s = 0,
        |class| class.objects_max = 0,
        |class| class.rows_max = 0,
        |class| class.bytes_max = 0,
    ];
    for change in changes {
        let zero = residency_refused(|residency| change(&mut residency.classes[0]));
        assert!(matches!(zero, PolicyError::Zero(_)), "{zero}");
    }
}

#[test]
fn nobody_holds_a_part_without_a_key_and_a_stream() {
    for role in [Role::Gateway, Role::Custodian, Role::Status] {
        let error = refused(|policy| {
            for organisation in &mut policy.organisations {
                organisation.keys.retain(|key| key.role != role);
            }
            policy.lanes.clear();
            policy.products.clear();
        });
        assert!(matches!(&error, PolicyError::Threshold { role: found, .. } if *found == role), "{error}");
    }
    let many = refused(|policy| {
        let supervisor = Threshold { organisation: "supervisor".parse().unwrap(), count: 2 };
        policy.residency.as_mut().unwrap().classes[0].approvals = vec![supervisor];
    });
    assert!(matches!(many, PolicyError::Threshold { role: Role::Approver, needed: 2, has: 1, .. }), "{many}");
    let streams: Vec<String> = with_residency().streams.iter().map(|it| it.stream.to_string()).collect();
    let ours = |stream: &&String| ["access/", "region/", "custody/", "data/"].iter().any(|it| stream.starts_with(it));
    assert_eq!(streams.iter().filter(ours).count(), 6);
    for stream in streams.iter().filter(ours) {
        let error = refused(|policy| policy.streams.retain(|it| it.stream.as_str() != stream));
        assert!(error.to_string().contains(stream), "{stream}: {error}");
        let error = refused(|policy| {
            let it = policy.streams.iter_mut().find(|it| it.stream.as_str() == stream).unwrap();
            it.log = "vendor.example/log".parse().unwrap();
        });
        assert!(error.to_string().contains(stream), "{stream} in another log: {error}");
    }
}

#[test]
fn keys_have_a_form() {
    let good = |text: &str| text.parse::<SealingKey>().is_ok();
    assert!(good(&format!("p256:{}", "A".repeat(88))) && good(&format!("x-wing:{}", "A".repeat(1624))));
    for (begins, chars, letter) in [
        ("p256:", 87, 'A'),
        ("p256:", 89, 'A'),
        ("x-wing:", 88, 'A'),
        ("rsa:", 88, 'A'),
        ("", 88, 'A'),
        ("P256:", 88, 'A'),
        ("p256:", 88, '\n'),
        ("p256:", 88, '-'),
    ] {
        assert!(!good(&format!("{begins}{}", letter.to_string().repeat(chars))), "{begins}{chars}{letter:?}");
    }
}

pub(crate) fn assignments() -> impl Strategy<Value = Vec<Assignment>> {
    let one = (0..3_usize, 0..6_u64, proptest::collection::btree_set(0..6_usize, 1..4));
    proptest::collection::vec(one, 1..6).prop_map(|all| {
        let all = all.into_iter().map(|(place, day, countries)| {
            let codes = countries.into_iter().map(|at| CountryCode::all().nth(at).unwrap());
            Assignment {
                region: region(["zurich", "singapore", "tokyo"][place]),
                from: UnixTime::from_seconds(day * 86_400),
                countries: codes.collect(),
            }
        });
        all.collect()
    })
}

pub(crate) fn three_regions(assignments: Vec<Assignment>) -> Residency {
    let mut residency = residency();
    for name in ["singapore", "tokyo"] {
        let mut other = residency.regions[0].clone();
        other.id = region(name);
        residency.regions.push(other);
    }
    residency.assignments = assignments;
    residency
}

proptest! {
    /// Whatever the order in which they stand, the latest that has come counts; nothing else is consulted.
    #[test]
    fn the_order_of_assignments_means_nothing(assignments in assignments(), day in 0..8_u64) {
        let at = UnixTime::from_seconds(day * 86_400);
        let mut reversed = assignments.clone();
        reversed.reverse();
        let (forth, back) = (three_regions(assignments.clone()), three_regions(reversed));
        for country in CountryCode::all().take(7) {
            let mut of_country: Vec<_> =
                assignments.iter().filter(|it| it.countries.contains(&country) && it.from <= at).collect();
            of_country.sort_by_key(|it| it.from);
            // Two at one time are refused by `check`.
            let latest = of_country.last().map(|it| it.from);
            if of_country.iter().filter(|it| Some(it.from) == latest).count() > 1 {
                continue;
            }
            let expected = of_country.last().map(|it| it.region.clone());
            prop_assert_eq!(forth.region_of(country, at).map(|it| it.id.clone()), expected.clone());
            prop_assert_eq!(back.region_of(country, at).map(|it| it.id.clone()), expected);
        }
    }
}
