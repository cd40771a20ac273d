//! Trees of rules: read from a folder, a commit, a manifest; bounded, and the same each time.

use std::io;
use std::path::Path;
use std::process::Command;

use detection::{Revision, RulesTree, RulesTreeError, Settings, SettingsError};
use stdx::Digest;

const SETTINGS: &[u8] = b"product = \"sample\"\nsources = \"rules\"\nnotice = \"LICENSE\"\n";

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    stdx::durable::write(&path, bytes).unwrap();
}

fn example() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "rules.toml", SETTINGS);
    write(folder.path(), "LICENSE", b"Use it well.\n");
    write(folder.path(), "rules/a.yar", b"rule a { condition: true }");
    write(folder.path(), "rules/deep/b.yara", b"rule b { condition: true }");
    write(folder.path(), "rules/readme.md", b"no rules");
    write(folder.path(), "other/c.yar", b"rule c { condition: true }");
    folder
}

fn git(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]);
    assert!(command.args(arguments).status().unwrap().success(), "{arguments:?}");
}

fn paths(tree: &RulesTree) -> Vec<String> {
    tree.sources().into_iter().map(|file| file.path).collect()
}

#[test]
fn a_folder_a_commit_and_a_manifest_give_one_tree() {
    let folder = example();
    let from_folder = RulesTree::from_folder(folder.path()).unwrap();
    assert_eq!(paths(&from_folder), ["LICENSE", "rules.toml", "rules/a.yar", "rules/deep/b.yara"]);
    assert_eq!(from_folder.recipe(), Some(Digest::of(SETTINGS)));

    git(folder.path(), &["init", "-q"]);
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-q", "-m", "one"]);
    assert_eq!(RulesTree::from_folder(folder.path()).unwrap().digest(), from_folder.digest(), "without `.git`");
    write(folder.path(), "rules/a.yar", b"changed after the commit");
    let commit = RulesTree::from_commit(folder.path(), &Revision("HEAD".to_owned())).unwrap();
    assert_eq!(commit.manifest(), from_folder.manifest());
    assert!(commit.commit().is_some_and(|id| id.len() == 40));

    let read = |digest: &Digest| Ok(commit.content(digest).unwrap().to_vec());
    let again = RulesTree::from_manifest(&commit.manifest(), read).unwrap();
    assert_eq!((again.digest(), again.sources()), (commit.digest(), commit.sources()));
    for bad in ["--help", "no-such-branch", "HEAD:rules"] {
        let error = RulesTree::from_commit(folder.path(), &Revision(bad.to_owned())).unwrap_err();
        assert!(matches!(error, RulesTreeError::Git(_)), "{bad}: {error}");
    }
}

#[test]
fn other_bytes_than_the_manifest_names_are_refused() {
    let folder = example();
    let tree = RulesTree::from_folder(folder.path()).unwrap();
    let other = |_: &Digest| Ok(SETTINGS.to_vec());
    let error = RulesTree::from_manifest(&tree.manifest(), other).unwrap_err();
    assert!(matches!(error, RulesTreeError::Content { .. }), "{error}");
    let gone = |_: &Digest| Err(io::Error::from(io::ErrorKind::NotFound));
    assert!(matches!(RulesTree::from_manifest(&tree.manifest(), gone), Err(RulesTreeError::Io { .. })));
    let twice = tree.manifest().replace("rules/a.yar", "rules/../a.yar");
    assert!(matches!(RulesTree::from_manifest(&twice, gone), Err(RulesTreeError::Tree(_))));
}

#[test]
fn a_tree_is_bounded_and_holds_files_only() {
    let folder = example();
    std::os::unix::fs::symlink("a.yar", folder.path().join("rules/link.yar")).unwrap();
    assert!(matches!(RulesTree::from_folder(folder.path()), Err(RulesTreeError::Kind { kind: "a link", .. })));
    git(folder.path(), &["init", "-q"]);
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-q", "-m", "one"]);
    let head = Revision("HEAD".to_owned());
    assert!(matches!(RulesTree::from_commit(folder.path(), &head), Err(RulesTreeError::Kind { kind: "a link", .. })));

    let folder = example();
    write(folder.path(), "rules/large.yar", &vec![b' '; (4 << 20) + 1]);
    assert!(matches!(RulesTree::from_folder(folder.path()), Err(RulesTreeError::FileTooLarge { .. })));
    git(folder.path(), &["init", "-q"]);
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-q", "-m", "one"]);
    assert!(matches!(RulesTree::from_commit(folder.path(), &head), Err(RulesTreeError::FileTooLarge { .. })));

    let digest = Digest::of(b"");
    let many: String = (0..20_001).map(|n| format!("f\t{digest}\t0\t{n:05}\n")).collect();
    let many = format!("clerestory-tree-v1\n{many}");
    assert!(matches!(detection::parse_manifest(&many), Err(RulesTreeError::TooLarge)));
}

#[test]
fn settings_are_refused_with_line_and_column() {
    let parse = |more: &str| Settings::parse(&format!("{}{more}", str::from_utf8(SETTINGS).unwrap()));
    let settings = parse("imports = [\"pe\"]\n[limits]\nrules = 7\n").unwrap();
    assert_eq!(settings.limits.rules, 7);
    assert!(settings.is_source("rules/x.yar") && !settings.is_source("rulesx/x.yar"));
    for (more, expected) in [
        ("import = []\n", "line 4, column 1"),
        ("imports = [\"time\"]\n", "line 4, column 12"),
        ("[limits]\nrules = -1\n", "line 5, column 9"),
        ("[limits]\nrules = 0\n", "`limits.rules` must be 1 to 50000"),
        ("[limits]\nrule_bytes = 200000\n", "`limits.rule_bytes` must be 1 to 131072"),
        ("[corpus]\nknown_bad = \"x\"\n", "line 5, column 13"),
    ] {
        let error = parse(more).unwrap_err().to_string();
        assert!(error.contains(expected), "{more}: {error}");
    }
    let folder = example();
    std::fs::remove_dir_all(folder.path().join("rules")).unwrap();
    assert!(matches!(RulesTree::from_folder(folder.path()), Err(RulesTreeError::Empty)));
    let folder = example();
    std::fs::remove_file(folder.path().join("LICENSE")).unwrap();
    let error = RulesTree::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, RulesTreeError::Settings(SettingsError::Field { field: "notice", .. })), "{error}");
    std::fs::remove_file(folder.path().join("rules.toml")).unwrap();
    assert!(matches!(RulesTree::from_folder(folder.path()), Err(RulesTreeError::NoSettings)));
}

#[test]
fn the_lists_of_a_tree_are_one_sorted_list_or_refused_by_file_and_line() {
    let folder = example();
    assert!(RulesTree::from_folder(folder.path()).unwrap().hashes().is_empty());
    let [a, b] = [b"a", b"b"].map(|it| Digest::of(it));
    write(folder.path(), "hashes/feed.txt", format!("# a feed\n{b}\n{a}\n").as_bytes());
    write(folder.path(), "hashes/other.txt", format!("{a}\r\n").as_bytes());
    // No lists: another folder, another name, deeper.
    for other in ["lists/x.txt", "hashes/x.csv", "hashes/deep/x.txt"] {
        write(folder.path(), other, b"whatever\n");
    }
    let mut expected = [a, b];
    expected.sort();
    assert_eq!(RulesTree::from_folder(folder.path()).unwrap().hashes(), expected);
    write(folder.path(), "hashes/feed.txt", format!("{a}\n{b}  evil.exe\n").as_bytes());
    let error = RulesTree::from_folder(folder.path()).unwrap_err();
    assert!(error.to_string().starts_with("`hashes/feed.txt`: line 2: "), "{error}");
}
