//! The command line: what is said, in which form, with which exit code.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output, Stdio};

use crate::place::{Place, RULES, program};

fn run(place: &Place, arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(place.0.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Who refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A folder `tree` with something of everything, and the rules beside it.
fn place() -> Place {
    let place = Place::new();
    place.file("rules.yar", RULES.as_bytes());
    fs::create_dir_all(place.0.path().join("tree/below")).unwrap();
    place.file("tree/clean", b"nothing");
    place.file("tree/below/marked", b"find me");
    place.file("tree/\u{1b}[2J", b"find me");
    symlink("/etc/passwd", place.0.path().join("tree/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, place.0.path().join("tree/pipe"), 0o600.into()).unwrap();
    place
}

#[test]
fn people_are_told_what_was_found_and_what_was_passed_over() {
    let (code, said, errors) = run(&place(), &["--rules", "rules.yar", "tree"], b"");
    let mut lines: Vec<&str> = said.lines().collect();
    lines[..2].sort_unstable();
    assert_eq!(
        lines,
        [
            "FOUND marked in tree/\\u{1b}[2J ($mark at 0)",
            "FOUND marked in tree/below/marked ($mark at 0)",
            "3 files, 21 bytes, 3 rules: found something in 2",
            "passed over: 1 links (not followed)",
            "passed over: 1 sockets, pipes and devices",
        ]
    );
    assert_eq!((code, errors.as_str()), (Some(1), ""));
}

#[test]
fn machines_get_an_object_a_line() {
    let place = place();
    let (code, said, _) = run(&place, &["--rules", "rules.yar", "--json", "tree/below", "nowhere", "-"], b"clean");
    let (mut found, mut incomplete, mut summary) = (Vec::new(), Vec::new(), None);
    for line in said.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        match (value.get("matches"), value.get("summary")) {
            (Some(matches), _) if matches[0]["rule"] == "marked" => found.push(value["path"].clone()),
            (Some(_), _) => incomplete.push((value["path"].clone(), value["notes"][0]["code"].clone())),
            (None, all) => summary = all.cloned(),
        }
    }
    assert_eq!(found, ["tree/below/marked"]);
    assert_eq!(incomplete, [("nowhere".into(), "unreadable".into())]);
    let summary = summary.unwrap();
    assert_eq!((&summary["files"], &summary["found"], &summary["incomplete"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!(code, Some(1), "what was found comes before what was not looked at");
}

#[test]
fn machines_may_have_it_besides() {
    let place = place();
    let arguments = ["--rules", "rules.yar", "--json-to", "copy", "tree/below"];
    let (code, said, _) = run(&place, &arguments, b"");
    assert!(code == Some(1) && said.starts_with("FOUND marked in tree/below/marked"), "{said}");
    let copy = fs::read_to_string(place.0.path().join("copy")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&copy).unwrap();
    let sha256 = stdx::Digest::of(b"find me").to_string();
    assert_eq!((&line["sha256"], &line["bytes"]), (&sha256.into(), &7.into()));
    let refused = run(&place, &["--rules", "rules.yar", "--json-to", "tree", "tree/below"], b"");
    assert!(refused.0 == Some(75) && refused.2.contains("--json-to"), "{refused:?}");
}

#[test]
fn exit_codes_say_what_a_script_may_do() {
    let place = place();
    let code = |arguments: &[&str], input: &[u8]| run(&place, arguments, input).0;
    assert_eq!(code(&["--rules", "rules.yar", "tree/clean"], b""), Some(0));
    assert_eq!(code(&["--rules", "rules.yar", "-"], b"please find me"), Some(1));
    assert_eq!(code(&["--rules", "rules.yar", "nowhere"], b""), Some(75));
    assert_eq!(code(&["--rules", "nowhere", "tree/clean"], b""), Some(75));
    // A link that is named is followed: somebody means it.
    assert_eq!(code(&["--rules", "rules.yar", "tree/link"], b""), Some(0));
    place.file("bad.yar", b"rule");
    assert_eq!(code(&["--rules", "bad.yar", "tree/clean"], b""), Some(2));
    assert_eq!(code(&["--rules", "rules.yar"], b""), Some(2));
    assert_eq!(code(&["--rules", "rules.yar", "--threads", "0", "tree"], b""), Some(2));
    place.file("broad.yar", b"rule any { condition: true }");
    let (code, _, errors) = run(&place, &["--rules", "broad.yar", "tree/clean"], b"");
    assert_eq!((code, errors.as_str()), (Some(1), "warning: rule `any` fires on a harmless text\n"));
}

#[test]
fn what_may_not_be_read_is_said() {
    let place = place();
    let path = place.file("tree/secret", b"find me");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    if fs::read(&path).is_ok() {
        return;
    }
    let (code, said, _) = run(&place, &["--rules", "rules.yar", "tree/secret"], b"");
    assert!(said.starts_with("NOT LOOKED AT tree/secret: Permission denied"), "{said}");
    assert_eq!(code, Some(75));
}

#[test]
fn completions_and_man_pages_are_written() {
    let place = Place::new();
    let (code, said, _) = run(&place, &["completions", "bash"], b"");
    assert_eq!((code, said.contains("--other-file-systems")), (Some(0), true));
    let (code, _, _) = run(&place, &["man", "pages"], b"");
    let page = fs::read_to_string(place.0.path().join("pages/clerestory-scan.1")).unwrap();
    assert_eq!((code, page.contains("other\\-file\\-systems")), (Some(0), true));
}
