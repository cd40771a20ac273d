//! The search through delegations.

use tuf::{Ed25519Signer, Error, Metadata, Paths, RoleName, TargetFile, Targets};

use crate::world::{World, days, key, path, public, role, signers, version};

const SEED: u8 = 60;

fn delegated(seed: u8) -> Ed25519Signer {
    key(seed)
}

fn patterns(texts: &[&str]) -> Paths {
    Paths::Patterns(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn empty() -> Targets {
    Targets::new(version(1), days(10))
}

/// Delegates to `names` in order; a name ending in `!` is terminating.
fn delegating(targets: Targets, names: &[&str], paths: &Paths) -> Targets {
    let keys = public(&[&delegated(SEED)]);
    names.iter().fold(targets, |targets, name| {
        let plain = name.trim_end_matches('!');
        let mut targets = targets.with_delegation(role(plain), signers(&keys, 1), paths.clone());
        let last = targets.delegations.as_mut().unwrap().roles.last_mut().unwrap();
        last.terminating = name.ends_with('!');
        targets
    })
}

fn sign(targets: &Targets) -> Metadata<Targets> {
    Metadata::sign(targets, &[&delegated(SEED)]).unwrap()
}

/// Serves the graph and says which delegated files a search for a missing target asks for.
fn visited(top: &[&str], graph: &[(&str, &[&str])]) -> Vec<String> {
    let any = patterns(&["*"]);
    let world = World::refreshed();
    let files: Vec<_> = graph.iter().map(|(name, below)| (*name, sign(&delegating(empty(), below, &any)))).collect();
    let listed: Vec<_> = files.iter().map(|(name, metadata)| (*name, metadata)).collect();
    world.force_targets(&delegating(Targets::new(version(2), days(10)), top, &any), &listed);
    let trusted = world.refresh().unwrap();
    world.network.take_requests();
    let error = trusted.find(&path("missing")).err().unwrap();
    assert!(matches!(error, Error::UnknownTarget(_)), "{error}");
    let requests = world.network.take_requests();
    requests.iter().map(|name| name["metadata/1.".len()..].trim_end_matches(".json").to_owned()).collect()
}

#[test]
fn the_search_goes_down_before_it_goes_on() {
    assert_eq!(visited(&["a", "b"], &[("a", &["c", "d"]), ("b", &[]), ("c", &[]), ("d", &[])]), ["a", "c", "d", "b"]);
}

#[test]
fn a_terminating_delegation_ends_the_search() {
    assert_eq!(
        visited(&["a", "b"], &[("a", &["c!", "d"]), ("b", &[]), ("c", &["e"]), ("d", &[]), ("e", &[])]),
        ["a", "c", "e"]
    );
}

#[test]
fn a_cycle_is_walked_once() {
    assert_eq!(visited(&["a"], &[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]), ["a", "b", "c"]);
}

#[test]
fn at_most_32_roles_are_visited() {
    let names: Vec<String> = (0..50).map(|number| format!("r{number}")).collect();
    let graph: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    let top: Vec<&str> = names.iter().map(String::as_str).collect();
    // The top-level targets are the first of the 32.
    assert_eq!(visited(&top, &graph).len(), 31);
}

#[test]
fn the_first_delegation_has_the_say() {
    let world = World::refreshed();
    let file = |content: &str| TargetFile::of(content.as_bytes());
    let first = sign(&empty().with_target(&path("x"), file("first")));
    let second = sign(&empty().with_target(&path("x"), file("second")).with_target(&path("y"), file("y")));
    let top = delegating(Targets::new(version(2), days(10)), &["one", "two"], &patterns(&["*"]));
    world.force_targets(&top, &[("one", &first), ("two", &second)]);
    assert_eq!(world.find("x").unwrap().role(), &role("one"));
    assert_eq!(world.find("y").unwrap().role(), &role("two"));
}

/// 4.5: the whole chain must cover the target, not only the last role.
#[test]
fn a_role_can_describe_only_what_it_was_given() {
    let world = World::refreshed();
    let file = TargetFile::of(b"");
    let inner = sign(&empty().with_target(&path("other/x"), file.clone()).with_target(&path("mine/x"), file));
    let outer = sign(&delegating(empty(), &["inner"], &patterns(&["*/*"])));
    let top = delegating(Targets::new(version(2), days(10)), &["outer"], &patterns(&["mine/*"]));
    world.force_targets(&top, &[("outer", &outer), ("inner", &inner)]);
    world.find("mine/x").unwrap();
    assert!(matches!(world.find("other/x").err().unwrap(), Error::UnknownTarget(_)));
}

/// Metadata that one delegator's keys made trusted is checked again for the other's.
#[test]
fn a_cached_role_is_checked_against_each_delegator() {
    let world = World::refreshed();
    let other = key(61);
    let shared =
        sign(&empty().with_target(&path("a/x"), TargetFile::of(b"")).with_target(&path("b/x"), TargetFile::of(b"")));
    let a = sign(&delegating(empty(), &["shared"], &patterns(&["a/*"])));
    let keys = public(&[&other]);
    let b = sign(&empty().with_delegation(role("shared"), signers(&keys, 1), patterns(&["b/*"])));
    let top = delegating(Targets::new(version(2), days(10)), &["a"], &patterns(&["a/*"]));
    let top = delegating(top, &["b"], &patterns(&["b/*"]));
    world.force_targets(&top, &[("a", &a), ("b", &b), ("shared", &shared)]);
    let trusted = world.refresh().unwrap();
    trusted.find(&path("a/x")).unwrap();
    let error = trusted.find(&path("b/x")).err().unwrap();
    let Error::Search { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**source, Error::Unsigned { .. }), "{source}");
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_not_asked_for() {
    let world = World::refreshed();
    let top = delegating(Targets::new(version(2), days(10)), &["ghost"], &patterns(&["*"]));
    world.force_targets(&top, &[]);
    let trusted = world.refresh().unwrap();
    world.network.take_requests();
    let error = trusted.find(&path("x")).err().unwrap();
    let Error::Search { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**source, Error::Unlisted(_)), "{source}");
    assert_eq!(world.network.take_requests(), Vec::<String>::new());
}

#[test]
fn a_strange_role_name_is_one_plain_file_name() {
    for (name, file) in [("../evil", "..%2Fevil.json"), ("?#", "%3F%23.json"), ("a b", "a%20b.json")] {
        assert_eq!(role(name).file_name(), file);
    }
    assert!("".parse::<RoleName>().is_err());
    assert!("x".repeat(81).parse::<RoleName>().is_err());
}

#[test]
fn a_delegation_cannot_take_a_top_level_name_or_one_name_twice() {
    let keys = public(&[&delegated(SEED)]);
    for names in [&["snapshot"][..], &["root"], &["a", "a"]] {
        let targets = names
            .iter()
            .fold(empty(), |targets, name| targets.with_delegation(role(name), signers(&keys, 1), patterns(&["*"])));
        let error = Metadata::sign(&targets, &[&delegated(SEED)]).err().unwrap();
        assert!(error.to_string().contains("does not read back"), "{error}");
    }
}

#[test]
fn patterns_match_within_parts() {
    for (pattern, target, expected) in [
        ("targets/*.tgz", "targets/foo.tgz", true),
        ("targets/*.tgz", "targets/foo.txt", false),
        ("foo-version-?.tgz", "foo-version-2.tgz", true),
        ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
        ("*.tgz", "targets/foo.tgz", false),
        ("foo.tgz", "foo.tgz", true),
        ("*", "a/b", false),
        ("*/*", "a/b", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("README.md", "README.MD", false),
        ("*é?", "caféx", true),
        ("[ab]", "a", false),
        ("", "a", false),
    ] {
        assert_eq!(patterns(&[pattern]).cover(&path(target)), expected, "{pattern} {target}");
    }
}

/// Such a pattern takes a backtracking matcher longer than the universe lasts.
#[test]
fn a_hostile_pattern_takes_no_time() {
    let pattern = "*a".repeat(400) + "b";
    assert!(!patterns(&[&pattern]).cover(&path(&"a".repeat(1000))));
}

#[test]
fn hash_prefixes_select_by_the_paths_hash() {
    let digest = stdx::Digest::of(b"x/y").to_string();
    let cover = |prefix: &str| Paths::HashPrefixes(vec![prefix.to_owned()]).cover(&path("x/y"));
    assert!(cover(&digest[..2]) && cover(&digest) && cover(""));
    assert!(!cover("zz"));
    assert!(!Paths::Nothing.cover(&path("x/y")));
}

#[test]
fn paths_and_hash_prefixes_exclude_each_other_and_hashes_are_not_empty() {
    let read = |text: &str| serde_json::from_str::<Paths>(text);
    assert_eq!(read(r#"{"paths": ["a"]}"#).unwrap(), patterns(&["a"]));
    assert_eq!(read("{}").unwrap(), Paths::Nothing);
    assert!(read(r#"{"paths": ["a"], "path_hash_prefixes": ["0"]}"#).is_err());
    assert!(serde_json::from_str::<tuf::Hashes>("{}").is_err());
}
