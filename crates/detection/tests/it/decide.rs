//! Decisions and differences, of reports alone.

use std::collections::{BTreeMap, BTreeSet};

use detection::{
    Behaviour, Cause, Cost, Decision, Index, IndexHead, IndexedRule, Pin, Reason, ReasonCode, Rejected, Report,
    Reports, Run, Settings, decide, diff,
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
    Report { index: Index::new(head, Vec::new(), rules), behaviour: Some(behaviour) }
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
