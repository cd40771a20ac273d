//! What a tree of rules becomes, and what an author of rules who means harm gets for an answer.

use detection::{
    Behaviour, Corpora, Decision, Index, Reason, ReasonCode, Report, RulesFile, Run, Settings, Worker, decide,
};
use stdx::Digest;

use crate::place::{eicar, limits, program};

const SETTINGS: &str =
    "product = \"sample\"\nsources = \"rules\"\nnotice = \"LICENSE\"\nimports = [\"math\", \"pe\"]\n";

fn file(path: &str, bytes: impl AsRef<[u8]>) -> RulesFile {
    RulesFile { path: path.to_owned(), bytes: bytes.as_ref().to_vec() }
}

fn tree(rules: &[(&str, &[u8])]) -> Vec<RulesFile> {
    let mut files = vec![file("rules.toml", SETTINGS), file("LICENSE", "Use it well.\r\nOr not.\n")];
    files.extend(rules.iter().map(|(name, bytes)| file(&format!("rules/{name}"), bytes)));
    files
}

fn assembler() -> Worker {
    Worker::start(program(), limits(2)).unwrap()
}

/// The bundle, the index, and `FILE: CAUSE` of what is rejected.
fn assemble(worker: &mut Worker, files: &[RulesFile]) -> (String, Index, Vec<String>) {
    let made = worker.assemble(files).unwrap();
    let index = Index::parse(&made.index).unwrap();
    assert!(index.bundle.is_of(&made.bundle), "the index names the bundle");
    let rejected: Vec<String> =
        index.rejected.iter().map(|file| format!("{}: {}: {}", file.file, file.cause.as_str(), file.detail)).collect();
    let told: Vec<String> = made.rejected.iter().map(|file| format!("{}: {}", file.path, file.cause)).collect();
    assert_eq!(rejected, told);
    (String::from_utf8(made.bundle).unwrap(), index, rejected)
}

#[test]
fn a_tree_becomes_one_canonical_bundle() {
    let files = tree(&[
        ("b.yar", b"import \"pe\"\r\n// a comment\r\nrule second : tag {\r\n  meta:\r\n    author = \"A. Nobody\"\r\n    score = -3\r\n  condition:\r\n    first and pe.is_pe\r\n}\r\n"),
        ("a/z.yar", b"private rule zero { strings: $a = \"zero\" condition: $a } rule first { strings: $ = /ab[0-9]+cd/ condition: any of them and zero }"),
        ("same.yara", b"rule first { strings: $ = /ab[0-9]+cd/ condition: any of them and zero }"),
        ("notes.txt", b"no rules"),
    ]);
    let mut worker = assembler();
    let (bundle, index, rejected) = assemble(&mut worker, &files);
    assert_eq!(
        bundle,
        "// clerestory-rules 1\n// product: sample\n//\n// Use it well.\n// Or not.\n\nimport \"pe\"\n\n\
        private rule zero { strings: $a = \"zero\" condition: $a }\n\n\
        rule first { strings: $ = /ab[0-9]+cd/ condition: any of them and zero }\n\n\
        rule second : tag {\n  meta:\n    author = \"A. Nobody\"\n    score = -3\n  condition:\n    first and pe.is_pe\n}\n"
    );
    assert_eq!(rejected, [""; 0]);
    let json =
        |text: &str| format!("\"text\":{{\"digest\":\"{}\",\"size\":{}}}", Digest::of(text.as_bytes()), text.len());
    let zero = json("private rule zero { strings: $a = \"zero\" condition: $a }");
    let first = json("rule first { strings: $ = /ab[0-9]+cd/ condition: any of them and zero }");
    let second = json(
        "rule second : tag {\n  meta:\n    author = \"A. Nobody\"\n    score = -3\n  condition:\n    first and pe.is_pe\n}",
    );
    let expected = format!(
        "{{\"format\":\"clerestory-rules-index-v1\",\"product\":\"sample\",\"engine\":\"boreal 1.4.0 authenticode hash object\",\
        \"settings\":\"{}\",\"bundle\":{{\"digest\":\"{}\",\"size\":{}}},\"rejected\":[],\"rules\":[\
        {{\"name\":\"zero\",\"file\":\"rules/a/z.yar\",{zero},\"private\":true,\
        \"cost\":{{\"strings\":1,\"literals\":1,\"atom\":4,\"steps\":1}}}},\
        {{\"name\":\"first\",\"file\":\"rules/a/z.yar\",{first},\"uses\":[\"zero\"],\
        \"cost\":{{\"strings\":1,\"literals\":1,\"atom\":2,\"gaps\":1,\"steps\":1}}}},\
        {{\"name\":\"second\",\"file\":\"rules/b.yar\",{second},\"tags\":[\"tag\"],\
        \"meta\":[[\"author\",\"A. Nobody\"],[\"score\",-3]],\"modules\":[\"pe\"],\"uses\":[\"first\"],\
        \"cost\":{{\"strings\":0,\"literals\":0,\"steps\":1}}}}]}}",
        Digest::of(SETTINGS.as_bytes()),
        Digest::of(bundle.as_bytes()),
        bundle.len()
    );
    assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), expected);

    // The order of the files, and how many threads read them, make no difference.
    let mut backwards = files.clone();
    backwards.reverse();
    assert_eq!(assemble(&mut worker, &backwards), (bundle.clone(), index.clone(), rejected.clone()));
    let mut alone = Worker::start(program(), limits(1)).unwrap();
    assert_eq!(assemble(&mut alone, &files), (bundle.clone(), index, rejected));
    // And any engine reads it: ours does, as a whole.
    // It is as good as the one that assembled it, which has compiled it rule by rule.
    assert_eq!(worker.load(bundle.as_bytes()).unwrap().rules, 3);
    let sample = crate::place::Place::new();
    let fires = |worker: &mut Worker| {
        let items = vec![sample.item("a", b"zero ab12cd"), sample.item("b", b"ab12cd")];
        let reports = crate::place::scan(worker, items);
        reports.iter().map(|report| crate::place::rules(report).join(" ")).collect::<Vec<_>>()
    };
    let mut other = assembler();
    other.load(bundle.as_bytes()).unwrap();
    assert_eq!(fires(&mut other), ["first", ""]);
    assert_eq!(fires(&mut worker), ["first", ""]);
}

/// The tree of `docs/formats/rules.md`, and what it becomes there.
#[test]
fn the_golden_tree_becomes_the_golden_bundle() {
    let document = include_str!("../../../../docs/formats/rules.md");
    let block = |mark: &str| {
        let (_, rest) = document.split_once(mark).unwrap().1.split_once("```").unwrap();
        rest.split_once('\n').unwrap().1.split_once("\n```").unwrap().0
    };
    let golden = block("Golden bundle");
    let (rest, second) = golden.split_once("\n\nrule second").unwrap();
    let (_, first) = rest.split_once("\n\nrule first").unwrap();
    let settings = "product = \"sample\"\nsources = \"rules\"\nnotice = \"LICENSE\"\nimports = [\"pe\"]\n";
    let files = [
        file("rules.toml", settings),
        file("LICENSE", "Use it well.\n"),
        file("rules/a.yar", format!("import \"pe\"\n\nrule second{second}\n")),
        file("rules/b.yar", format!("rule first{first}\n")),
        file("rules/c.yar", "include \"/etc/passwd\"\n"),
    ];
    let (bundle, index, _) = assemble(&mut assembler(), &files);
    assert_eq!(bundle, format!("{golden}\n"));
    assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), block("Golden index"));
    // The engine's identity is what builders agree on, so it must be the engine that is built in.
    let (name, version) = ("name = \"boreal\"\nversion = \"", index.engine.split(' ').nth(1).unwrap());
    let lock = include_str!("../../../../Cargo.lock");
    assert!(lock.contains(&format!("{name}{version}\"")), "{} is not in Cargo.lock", index.engine);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of what is tried")]
fn what_can_not_be_in_a_bundle_is_rejected_by_name_and_cause() {
    let deep = |unit: &str, many: usize, end: &str| format!("rule deep {{ condition: {}{end} }}", unit.repeat(many));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("latin", b"rule a { meta: a = \"caf\xe9\" condition: true }".to_vec(), "not-text: byte 23 is not UTF-8"),
        ("compiled", b"YARA\x10\0\0\0".to_vec(), "compiled: rules are source, never compiled"),
        ("bidi", "// \u{202e}\nrule a { condition: true }".into(), "hidden-character: 1: U+202E is not to be seen"),
        (
            "return",
            b"rule a { condition: true // \r and false\n }".to_vec(),
            "hidden-character: 1: U+000D is not to be seen",
        ),
        ("include", b"\ninclude \"/etc/passwd\"".to_vec(), "include: 2: rules come from the tree alone"),
        (
            "time",
            b"import \"time\" rule a { condition: time.now() > 0 }".to_vec(),
            "import: `time` is not among the imports of rules.toml",
        ),
        ("console", b"import \"console\"".to_vec(), "import: `console` is not among the imports of rules.toml"),
        (
            "unimported",
            b"rule a { condition: pe.is_pe }".to_vec(),
            "compile: 1: unknown identifier `pe`, which is not imported",
        ),
        ("syntax", b"rule a { condition: true }\n\nrule b { condition: }".to_vec(), "syntax: 3: syntax error"),
        ("greek", "rule \u{391}PT { condition: true }".into(), "syntax: 1: syntax error"),
        ("tail", b"rule a { condition: true } and more".to_vec(), "syntax: 1: neither `rule`, `import` nor a comment"),
        ("unknown", b"rule a {\n condition: missing }".to_vec(), "compile: 2: unknown identifier \"missing\""),
        (
            "nested",
            b"rule a { strings: $a = /ab((x{1,1000}){1,1000}){1,1000}/ condition: $a }".to_vec(),
            "compile: 1: variable $a cannot be compiled: Compiled regex exceeds size limit of 10485760 bytes.",
        ),
        (
            "groups",
            format!("rule a {{ strings: $a = /{}a{}/ condition: $a }}", "(".repeat(1_000), ")".repeat(1_000)).into(),
            "syntax: 1: too many imbricated groups in the regex",
        ),
        ("parentheses", deep("(", 60_000, "true").into(), "syntax: 1: too many imbricated expressions"),
        // Chains, which the engine's parser takes apart one frame each.
        ("minus", deep("-", 130_000, "1 == 1").into(), "compile: 1: condition is too complex and reached max depth"),
        ("not", deep("not ", 30_000, "true").into(), "compile: 1: condition is too complex and reached max depth"),
        ("plus", deep("1+", 60_000, "1 == 1").into(), "compile: 1: condition is too complex and reached max depth"),
        (
            "large",
            deep("-", 140_000, "1 == 1").into(),
            "rule-too-large: 1: a rule of 140031 bytes, and at most 131072 are read",
        ),
        ("huge", vec![b' '; (4 << 20) + 1], "file-too-large: more than 4194304 bytes"),
        (
            "circle",
            b"rule a { condition: b } rule b { condition: c } rule c { condition: a }".to_vec(),
            "circle: 1: `a` asks itself by way of others",
        ),
        (
            "twice",
            b"rule a { condition: true } rule a { condition: false }".to_vec(),
            "duplicate-name: 1: `a` is another rule in rules/twice.yar",
        ),
        (
            "good2",
            b"rule good { condition: true }".to_vec(),
            "duplicate-name: 1: `good` is another rule in rules/good.yar",
        ),
        (
            "collects",
            b"rule a { meta: collects = \"a b\" condition: false }".to_vec(),
            "collects: 1: `collects` stands once, and is a name of small letters, digits and `-`",
        ),
        (
            "collects2",
            b"rule a { meta: Collects = \"documents\" condition: false }".to_vec(),
            "collects: 1: `collects` stands once, and is a name of small letters, digits and `-`",
        ),
    ];
    let mut worker = assembler();
    for (name, bytes, expected) in cases {
        let path = format!("{name}.yar");
        let files = tree(&[("good.yar", b"rule good { strings: $a = \"good\" condition: $a }"), (&path, &bytes)]);
        let (bundle, index, rejected) = assemble(&mut worker, &files);
        assert_eq!(rejected.len(), 1, "{name}: {rejected:?}");
        let expected = format!("rules/{name}.yar: {expected}");
        assert!(rejected[0].starts_with(&expected), "{}\n{expected}", rejected[0]);
        assert_eq!(index.rules.len(), 1, "{name}: the rest goes on");
        assert!(bundle.ends_with("rule good { strings: $a = \"good\" condition: $a }\n"));
    }
}

#[test]
fn what_asks_a_rejected_rule_is_rejected_with_it() {
    let files = tree(&[
        ("a.yar", b"rule base { condition: nothing_known }"),
        ("b.yar", b"rule above { condition: base }"),
        ("c.yar", b"rule top {\n condition: above }"),
        ("d.yar", b"rule alone { strings: $a = \"alone\" condition: $a }"),
    ]);
    let (_, index, rejected) = assemble(&mut assembler(), &files);
    assert_eq!(
        rejected,
        [
            "rules/a.yar: compile: 1: unknown identifier \"nothing_known\"",
            "rules/b.yar: unknown-rule: 1: asks `base`, whose file is rejected",
            "rules/c.yar: unknown-rule: 1: asks `above`, whose file is rejected",
        ]
    );
    assert_eq!(index.files().into_iter().collect::<Vec<_>>(), ["rules/d.yar"]);
}

#[test]
fn there_is_no_bundle_without_settings_or_with_too_many_rules() {
    let mut worker = assembler();
    assert!(worker.assemble(&[]).unwrap_err().to_string().contains("there is no rules.toml"));
    let many: String = (0..50_001).map(|n| format!("rule r{n} {{ condition: false }}\n")).collect();
    let error = worker.assemble(&tree(&[("many.yar", many.as_bytes())])).unwrap_err();
    assert!(error.to_string().contains("50001 rules, and a bundle has at most 50000"), "{error}");
}

/// The release before: one good rule, one that collects, and what finds EICAR.
const BEFORE: &[u8] = b"rule good { strings: $a = \"good sign\" condition: $a }\n\
    rule gather { meta: collects = \"documents\" strings: $a = \"CLASSIFIED\" condition: $a }\n";

fn corpora() -> Corpora {
    Corpora { known_bad: Digest::of(b"known-bad"), goodware: Digest::of(b"goodware") }
}

/// Assembles, tries on both corpora, decides.
fn judge(worker: &mut Worker, rules: &[(&str, &[u8])], previous: Option<&Index>) -> (Index, Vec<Reason>) {
    let corpus = format!("[corpus]\nknown_bad = \"{}\"\ngoodware = \"{}\"\n", corpora().known_bad, corpora().goodware);
    let settings = format!("{SETTINGS}{corpus}");
    let mut files = tree(rules);
    files[0] = file("rules.toml", &settings);
    let eicar = eicar();
    let finder = b"rule eicar { strings: $a = \"EICAR-STANDARD-ANTIVIRUS-TEST-FILE\" condition: $a }";
    files.push(file("rules/eicar.yar", finder));
    let (bundle, index, _) = assemble(worker, &files);
    worker.load(bundle.as_bytes()).unwrap();
    let place = crate::place::Place::new();
    let mut run = |corpus, samples: &[(&str, &[u8])]| {
        let items = samples.iter().map(|(name, bytes)| place.item(name, bytes)).collect();
        let reports = crate::place::scan(worker, items);
        let fires = reports.iter().map(|report| report.matches.iter().map(|found| found.rule.clone()).collect());
        let samples = samples.iter().map(|(name, _)| (*name).to_owned()).zip(fires).collect();
        Run { corpus, samples, unread: std::collections::BTreeMap::new() }
    };
    let behaviour = Behaviour {
        known_bad: run(corpora().known_bad, &[("eicar.com", eicar.as_bytes())]),
        goodware: run(
            corpora().goodware,
            &[("letter.txt", b"Dear customer, your invoice is attached."), ("empty", b"")],
        ),
    };
    let report = Report { index, behaviour: Some(behaviour), hashes: None };
    assert_eq!(Report::parse(&report.to_bytes()).unwrap(), report);
    match decide(&report, &Settings::parse(&settings).unwrap(), previous) {
        Decision::Fast => (report.index, Vec::new()),
        Decision::Slow(reasons) => (report.index, reasons),
    }
}

#[test]
fn a_hostile_author_does_not_get_past_the_fast_lane() {
    use ReasonCode as Code;
    let mut worker = assembler();
    let (before, reasons) = judge(&mut worker, &[("base.yar", BEFORE)], None);
    let codes: Vec<_> = reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [Code::Collects, Code::FirstRelease]);
    let (_, reasons) = judge(&mut worker, &[("base.yar", BEFORE)], Some(&before));
    assert_eq!(reasons, []);

    let literal = |count: usize| -> Vec<u8> {
        let strings: String = (0..count).map(|n| format!("$s{n} = \"text number {n}\" xor ")).collect();
        format!("rule a {{ strings: {strings} condition: any of them }}").into()
    };
    let cases: Vec<(&str, Vec<u8>, Option<Code>)> = vec![
        ("an ordinary rule", b"rule a { strings: $a = \"evil/1.0\" $b = { 6A 40 68 00 30 00 00 } condition: any of them }".to_vec(), None),
        ("a mistake", b"rule a { condition: }".to_vec(), None),
        ("fires on goodware", b"rule a { strings: $a = \"your invoice\" condition: $a }".to_vec(), Some(Code::FiresOnGoodware)),
        ("fires on anything", b"rule a { condition: filesize < 1MB }".to_vec(), Some(Code::TooBroad)),
        ("no literal", b"rule a { strings: $a = /[a-f0-9]{32}/ condition: $a }".to_vec(), Some(Code::SlowPattern)),
        ("chains of .*", b"rule a { strings: $a = /evil.*x.*y.*z.*w/s condition: $a }".to_vec(), Some(Code::SlowPattern)),
        ("nested counters", b"rule a { strings: $a = /evil((x+y)+z)+/ condition: $a }".to_vec(), Some(Code::SlowPattern)),
        ("one byte", b"rule a { strings: $a = { 6A ?? 40 } condition: #a > 1000 }".to_vec(), Some(Code::ShortAtom)),
        ("loops in loops", b"rule a { condition: for any i in (0..filesize): (for any j in (0..filesize): (uint8(i) == 1 and uint8(j) == 255 and i > 1 and j > 60000000)) }".to_vec(), Some(Code::NotDeclarative)),
        ("a loop over the file", b"rule a { condition: for any i in (0..filesize): (uint8(i) == 1 and i > 60000000) }".to_vec(), Some(Code::SlowCondition)),
        ("many literals", literal(10), Some(Code::TooManyLiterals)),
        ("a homoglyph", b"rule g00d { strings: $a = \"evil\" condition: $a }".to_vec(), Some(Code::LookAlike)),
        ("global", b"global rule a { strings: $a = \"evil\" condition: $a }".to_vec(), Some(Code::GlobalRule)),
        ("compiled", b"YARA\x10\0".to_vec(), Some(Code::NotDeclarative)),
        ("invisible", "rule a { condition: true /* \u{2066} */ }".into(), Some(Code::NotDeclarative)),
        ("include", b"include \"x.yar\"".to_vec(), Some(Code::NotDeclarative)),
        ("import", b"import \"time\" rule a { condition: time.now() > 0 }".to_vec(), Some(Code::NotDeclarative)),
        ("duplicate", b"rule good { strings: $a = \"other\" condition: $a }".to_vec(), Some(Code::NotDeclarative)),
        ("enormous", vec![b'/'; 5 << 20], Some(Code::NotDeclarative)),
        ("a new collector", b"rule a { meta: collects = \"documents\" strings: $a = \"evil\" condition: $a }".to_vec(), Some(Code::Collects)),
        ("many rules", (0..150).map(|n| format!("rule r{n}x {{ strings: $a = \"evil {n}\" condition: $a }}\n")).collect::<String>().into(), Some(Code::TooManyChanged)),
    ];
    for (what, bytes, expected) in cases {
        let (_, reasons) = judge(&mut worker, &[("base.yar", BEFORE), ("new.yar", &bytes)], Some(&before));
        let codes: Vec<_> = reasons.iter().map(|reason| reason.code).collect();
        match expected {
            None => assert_eq!(reasons, [], "{what}"),
            Some(code) => assert!(codes.contains(&code), "{what}: {reasons:?}"),
        }
    }
}

#[test]
fn what_was_released_does_not_change_unseen() {
    use ReasonCode as Code;
    let mut worker = assembler();
    let (before, _) = judge(&mut worker, &[("base.yar", BEFORE)], None);
    let text = str::from_utf8(BEFORE).unwrap();
    let changed = |from: &str, to: &str| text.replace(from, to).into_bytes();
    for (what, bytes, expected) in [
        ("collects less", changed("meta: collects = \"documents\" ", ""), vec![Code::Collects]),
        ("collects other", changed("documents", "keys"), vec![Code::Collects]),
        ("private", changed("rule good", "private rule good"), vec![Code::Silenced]),
        ("broken", changed("condition: $a }\nrule", "condition: }\nrule"), vec![Code::FileLost]),
        ("a comment", changed("rule gather", "// better\nrule gather"), vec![]),
        ("better", changed("good sign", "good signs"), vec![]),
    ] {
        let (_, reasons) = judge(&mut worker, &[("base.yar", &bytes)], Some(&before));
        assert_eq!(reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), expected, "{what}: {reasons:?}");
    }
}
