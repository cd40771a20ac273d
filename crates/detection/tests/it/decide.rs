//! Decisions and differences, of reports alone.

use std::collections::{BTreeMap, BTreeSet};

use detection::{
    Behaviour, Cause, Cost, Decision, HashesReport, Index, IndexHead, IndexedHashes, IndexedRule, Pin, Reason,
    ReasonCode, Rejected, Report, Reports, Run, Settings, decide, diff,
};
use stdx::Digest;

fn settings() -> Settings {
    let (bad, good) = (Digest::of(b"bad"), Digest::of(b"good"));
    let corpus = format!("[corpus]\nknown_bad = \"{bad}\"\ngoodware = \"{good}\"\n");
    Settings::parse(&format!("product = \"sample\"\nnotice = \"LICENSE\"\n{corpus}")).unwrap()
}

fn rule(name: &str) -> IndexedRule {
    IndexedRule {
        name: name.to_owned(),
        file: "a.yar".to_owned(),
        text: Pin::of(name.as_bytes()),
        tags: Vec::new(),
        meta: Vec::new(),
        collects: None,
        private: false,
        global: false,
        modules: BTreeSet::new(),
        uses: BTreeSet::new(),
        cost: Cost { strings: 1, literals: 1, atom: Some(4), steps: 1, ..Cost::default() },
        broad: BTreeSet::new(),
    }
}

fn report(rules: Vec<IndexedRule>) -> Report {
    let head = IndexHead {
        product: "sample".parse().unwrap(),
        engine: "engine 1".to_owned(),
        settings: Digest::of(b"settings"),
        bundle: Pin { digest: Digest::of(b"bundle"), size: 1_000 },
    };
    let run = |corpus: &[u8], sample: &str, fires: &[&str]| Run {
        corpus: Digest::of(corpus),
        samples: BTreeMap::from([(sample.to_owned(), fires.iter().map(|rule| (*rule).to_owned()).collect())]),
        unread: BTreeMap::new(),
    };
    let behaviour = Behaviour { known_bad: run(b"bad", "eicar", &["a"]), goodware: run(b"good", "letter", &[]) };
    Report { index: Index::new(head, Vec::new(), rules), behaviour: Some(behaviour), hashes: None }
}

fn codes(now: &Report, before: &Report) -> Vec<ReasonCode> {
    match decide(now, &settings(), Some(&before.index)) {
        Decision::Fast => Vec::new(),
        Decision::Slow(reasons) => reasons.iter().map(|reason| reason.code).collect(),
    }
}

#[test]
fn what_concerns_the_whole_is_judged_each_time() {
    use ReasonCode as Code;
    let before = report(vec![rule("a"), rule("b")]);
    assert_eq!(codes(&before, &before), []);
    type Change = fn(&mut Report);
    let cases: [(Change, Code); 9] = [
        (|now| now.behaviour = None, Code::Untried),
        (|now| now.behaviour.as_mut().unwrap().goodware.corpus = Digest::of(b"another"), Code::Untried),
        (
            |now| now.behaviour.as_mut().unwrap().known_bad.samples.values_mut().for_each(BTreeSet::clear),
            Code::SampleMissed,
        ),
        (
            |now| {
                now.behaviour.as_mut().unwrap().goodware.unread.insert("x".to_owned(), "timeout".to_owned());
            },
            Code::SampleUnread,
        ),
        (|now| now.index.settings = Digest::of(b"another"), Code::SettingsChanged),
        (|now| now.index.engine = "engine 2".to_owned(), Code::EngineChanged),
        (|now| now.index.bundle.size = 17 << 20, Code::BundleTooLarge),
        (|now| now.index.bundle.size += 200_000, Code::BundleGrew),
        (
            |now| {
                now.index.rejected.push(Rejected {
                    file: "a.yar".to_owned(),
                    cause: Cause::Syntax,
                    detail: "1: no".to_owned(),
                })
            },
            Code::FileLost,
        ),
    ];
    for (change, code) in cases {
        let mut now = before.clone();
        change(&mut now);
        assert!(codes(&now, &before).contains(&code), "{code}");
    }
    let gone = report(vec![rule("a")]);
    let many = report((0..30).map(|n| rule(&format!("r{n}x"))).chain([rule("a")]).collect());
    assert_eq!(codes(&gone, &many), [Code::TooManyRemoved]);
}

#[test]
fn a_rule_is_judged_again_when_what_it_asks_changes() {
    let mut asks = rule("b");
    asks.uses = BTreeSet::from(["a".to_owned()]);
    let mut fires = report(vec![rule("a"), asks]);
    let good = &mut fires.behaviour.as_mut().unwrap().goodware;
    good.samples.values_mut().for_each(|rules| {
        rules.insert("b".to_owned());
    });
    // It fired before, and was approved so.
    assert_eq!(codes(&fires, &fires), []);
    let mut now = fires.clone();
    now.index.rules[0].text = Pin::of(b"changed");
    let Decision::Slow(reasons) = decide(&now, &settings(), Some(&fires.index)) else { panic!("it fires") };
    let expected = Reason {
        code: ReasonCode::FiresOnGoodware,
        rule: Some("b".to_owned()),
        file: Some("a.yar".to_owned()),
        detail: "fires on letter".to_owned(),
    };
    assert_eq!(reasons, [expected]);
    assert_eq!(reasons[0].to_string(), "fires-on-goodware rule b in a.yar: fires on letter");
}

#[test]
fn a_rejected_file_is_a_reason_once_and_only_if_it_may_be_meant() {
    let before = report(vec![rule("a")]);
    let with = |cause| {
        let mut now = before.clone();
        now.index.rejected.push(Rejected { file: "new.yar".to_owned(), cause, detail: "1: so".to_owned() });
        now
    };
    assert_eq!(codes(&with(Cause::Syntax), &before), []);
    assert_eq!(codes(&with(Cause::Include), &before), [ReasonCode::NotDeclarative]);
    assert_eq!(codes(&with(Cause::Include), &with(Cause::Include)), []);
    assert_eq!(codes(&with(Cause::Include), &with(Cause::Syntax)), [ReasonCode::NotDeclarative]);
}

#[test]
fn what_may_collect_is_shown_first() {
    let mut collects = rule("z");
    collects.collects = Some("documents".to_owned());
    let before = report(vec![rule("a"), rule("old"), collects.clone()]);
    let mut changed = rule("a");
    changed.tags = vec!["new".to_owned()];
    collects.collects = Some("keys".to_owned());
    let mut now = report(vec![changed, rule("brand_new"), collects]);
    now.behaviour.as_mut().unwrap().goodware.samples.values_mut().for_each(|rules| {
        rules.insert("brand_new".to_owned());
    });
    let shown = diff(Reports { before: Some(&before), now: &now }).to_string();
    assert_eq!(
        shown,
        "! z collects keys, before documents\n+ brand_new\n- old\n~ a: tags\n~ z: \n  brand_new fires on letter of goodware\n"
    );
    assert_eq!(diff(Reports { before: Some(&now), now: &now }).to_string(), "");
}

/// Lists alone: no rules, no corpora.
fn lists(count: u32, hashes: HashesReport) -> Report {
    let mut report = report(Vec::new());
    report.behaviour = None;
    report.index.hashes = (count > 0).then(|| IndexedHashes { set: Pin::of(&count.to_be_bytes()), count });
    report.hashes = Some(hashes);
    report
}

fn changed(added: u32, removed: u32) -> HashesReport {
    HashesReport { added, removed, compared: 5, known_good: BTreeMap::new() }
}

#[test]
fn a_set_of_hashes_is_bounded_and_accuses_nothing_that_is_known_to_be_good() {
    use ReasonCode as Code;
    let before = lists(20_000, changed(20_000, 0));
    assert_eq!(codes(&lists(25_000, changed(5_000, 0)), &before), []);
    let cases = [
        (lists(1_000_001, changed(1, 0)), Code::TooManyHashes),
        (lists(30_001, changed(10_001, 0)), Code::TooManyHashesAdded),
        (lists(9_999, changed(0, 10_001)), Code::TooManyHashesRemoved),
        // As many as before, but others.
        (lists(20_000, changed(10_001, 10_001)), Code::TooManyHashesAdded),
        (lists(20_000, HashesReport { compared: 0, ..changed(0, 0) }), Code::Untried),
        (lists(0, changed(0, 20_000)), Code::Empty),
    ];
    for (now, code) in cases {
        assert!(codes(&now, &before).contains(&code), "{code}");
        let shown = Report::parse(&now.to_bytes()).unwrap();
        assert_eq!(shown, now);
    }
    let mut good = lists(20_001, changed(1, 0));
    let hash = Digest::of(b"a part of the system");
    good.hashes.as_mut().unwrap().known_good.insert(hash, "known-good/own.txt".to_owned());
    let Decision::Slow(reasons) = decide(&good, &settings(), Some(&before.index)) else { panic!("it accuses") };
    assert_eq!(reasons[0].to_string(), format!("known-good: {hash} is known to be good by known-good/own.txt"));
    let diff = diff(Reports { before: Some(&before), now: &good }).to_string();
    assert!(diff.starts_with("# 1 hashes added, 0 removed, compared with 5 known to be good\n! "), "{diff}");
    let mut untried = good.clone();
    untried.hashes = None;
    assert_eq!(codes(&untried, &before), [Code::Untried]);
}

#[test]
fn rules_that_are_gone_are_not_lists_alone() {
    let before = report(vec![rule("a")]);
    let now = lists(3, changed(3, 0));
    assert_eq!(codes(&now, &before), [ReasonCode::Untried], "no corpora, and there were rules");
}
