//! Verdicts: what they rest on, what lies do, and that the same gives the same.

use std::collections::{BTreeMap, BTreeSet};

use reputation::{Bounds, Grounds, History, Judged, Report, Said, Standing, Why, judge};
use stdx::{Digest, UnixTime};

const NOW: u64 = 2_000_000_000;
const RULE: &str = "trojan";

fn file(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn said(name: &str, said: Said, country: &str, events: u64) -> Report {
    Report { sha256: file(name), said, country: country.to_owned(), taken: UnixTime::from_seconds(NOW - 5), events }
}

fn found(name: &str, rule: &str, country: &str, events: u64) -> Report {
    said(name, Said::Rule(rule.to_owned()), country, events)
}

fn judged_with(reports: Vec<Report>, good: &[&str], before: &[&str]) -> Vec<Judged> {
    let mut history = History::default();
    history.absorb(reports.clone());
    let good: BTreeMap<Digest, String> = good.iter().map(|it| (file(it), "known-good/own.txt".to_owned())).collect();
    let rules = BTreeMap::from([(RULE.to_owned(), "rules 7".to_owned()), ("worm".to_owned(), "rules 7".to_owned())]);
    let before: BTreeSet<Digest> = before.iter().map(|it| file(it)).collect();
    let now = UnixTime::from_seconds(NOW);
    let grounds = Grounds { good: &good, rules: &rules, before: &before, now };
    let judged = judge(&history, grounds, &Bounds::default());
    // Whatever order it came in, and after a restart.
    let mut other = History::default();
    other.absorb(reports.into_iter().rev());
    let again: History = serde_json::from_str(&serde_json::to_string(&other).unwrap()).unwrap();
    assert_eq!((&again, judge(&again, grounds, &Bounds::default())), (&history, judged.clone()));
    judged
}

fn standing(reports: Vec<Report>) -> Standing {
    judged_with(reports, &[], &[])[0].standing
}

#[test]
fn a_verdict_rests_on_detections_by_rules_of_releases() {
    let two = vec![found("a", RULE, "DE", 2), found("a", RULE, "JP", 1)];
    let judged = judged_with(two, &[], &[]);
    let why = Why::Detected { rule: RULE.to_owned(), release: "rules 7".to_owned(), events: 3, countries: 2 };
    assert_eq!((judged[0].standing, &judged[0].reasons[..], judged[0].events), (Standing::Malicious, &[why][..], 3));
    assert_eq!(standing(vec![found("a", RULE, "DE", 1_000)]), Standing::Unknown, "one country");
    assert_eq!(standing(vec![found("a", RULE, "DE", 1), found("a", "worm", "JP", 2)]), Standing::Malicious);
    // Reports that it is bad, or unheard of, are no ground, however many.
    for other in [Said::Echo, Said::Nothing] {
        let many = vec![said("a", other.clone(), "DE", 1 << 40), said("a", other, "JP", 1 << 40)];
        let judged = judged_with(many, &[], &[]);
        assert_eq!(judged[0].standing, Standing::Unknown);
        assert!(matches!(judged[0].reasons[..], [Why::Outbreak { .. }]), "{judged:?}");
    }
    assert!(judged_with(vec![said("a", Said::Nothing, "DE", 3)], &[], &[]).is_empty(), "nothing to say");
}

#[test]
fn what_is_known_to_be_good_stays_so_and_what_was_ignored_is_said() {
    let lies =
        vec![found("good", RULE, "DE", 1 << 40), found("good", "made_up", "JP", 9), found("good", RULE, "CH", 5)];
    let judged = judged_with(lies.clone(), &["good"], &[]);
    assert_eq!(judged[0].standing, Standing::Clean);
    assert_eq!(judged[0].reasons[0], Why::KnownGood { by: "known-good/own.txt".to_owned() });
    assert!(judged[0].ignored.contains(&Why::UnknownRule { rule: "made_up".to_owned(), events: 9 }), "{judged:?}");
    assert!(judged[0].ignored.iter().any(|it| matches!(it, Why::Detected { .. })), "{judged:?}");
    // Also if it was malicious until a list said otherwise.
    assert_eq!(judged_with(lies, &["good"], &["good"])[0].standing, Standing::Clean);
}

#[test]
fn a_rule_that_nobody_has_released_accuses_nobody() {
    let made_up = vec![found("a", "made_up", "DE", 1_000), found("a", "made_up", "JP", 1_000)];
    let judged = judged_with(made_up, &[], &[]);
    assert_eq!(judged[0].standing, Standing::Unknown);
    assert_eq!(judged[0].ignored, [Why::UnknownRule { rule: "made_up".to_owned(), events: 2_000 }]);
}

#[test]
fn a_file_that_many_had_for_long_needs_people() {
    let mut early = said("popular", Said::Nothing, "DE", 1_000);
    early.taken = UnixTime::from_seconds(NOW - 30 * 3_600);
    let lies = vec![early.clone(), found("popular", RULE, "DE", 500), found("popular", RULE, "JP", 500)];
    let judged = judged_with(lies.clone(), &[], &[]);
    assert_eq!(judged[0].standing, Standing::Held);
    assert_eq!(judged[0].ignored, [Why::Popular { events: 1_000, since: early.taken }]);
    // Who says so after the first detection takes nothing back.
    assert_eq!(judged_with(lies.clone(), &[], &["popular"])[0].standing, Standing::Malicious);
    early.taken = UnixTime::from_seconds(NOW - 60);
    let late = vec![early, lies[1].clone(), lies[2].clone()];
    assert_eq!(standing(late), Standing::Malicious);
}

#[test]
fn a_flood_holds_itself_up_and_nothing_else() {
    let accuse = |n: usize, rule: &str| {
        let name = format!("f{n}");
        [found(&name, rule, "DE", 2), found(&name, rule, "JP", 2)]
    };
    let mut reports: Vec<Report> = (0..101).flat_map(|n| accuse(n, RULE)).collect();
    reports.extend([found("worse", "worm", "DE", 2), found("worse", "worm", "JP", 2)]);
    let judged = judged_with(reports.clone(), &[], &["f0"]);
    let of = |name: &str| judged.iter().find(|it| it.sha256 == file(name)).unwrap();
    assert_eq!(of("worse").standing, Standing::Malicious);
    assert_eq!(judged.iter().filter(|it| it.standing == Standing::Malicious).count(), 102, "100 are not too many");
    reports.extend(accuse(101, RULE));
    let judged = judged_with(reports, &[], &["f0"]);
    let of = |name: &str| judged.iter().find(|it| it.sha256 == file(name)).unwrap();
    assert_eq!((of("worse").standing, of("f0").standing), (Standing::Malicious, Standing::Malicious));
    assert_eq!(of("f7").standing, Standing::Held);
    assert_eq!(of("f7").ignored, [Why::Flood { rule: RULE.to_owned(), files: 101 }]);
}

#[test]
fn verdicts_end_and_what_is_too_much_is_forgotten() {
    let mut history = History::default();
    history.absorb([found("a", RULE, "DE", 2), found("a", RULE, "JP", 2)]);
    let (good, before) = (BTreeMap::new(), BTreeSet::from([file("a")]));
    let rules = BTreeMap::from([(RULE.to_owned(), "rules 7".to_owned())]);
    let at = |now: u64| {
        let now = UnixTime::from_seconds(now);
        judge(&history, Grounds { good: &good, rules: &rules, before: &before, now }, &Bounds::default())[0].standing
    };
    assert_eq!((at(NOW), at(NOW + 31 * 24 * 3_600)), (Standing::Malicious, Standing::Unknown));
    let mut forgotten = history.clone();
    assert_eq!((forgotten.forget(UnixTime::from_seconds(NOW)), forgotten.len()), (0, 0));
}
