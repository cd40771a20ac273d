//! The executable: exit codes, and where what is printed.

use std::process::{Command, Output};

use verifier::Arguments;

use crate::files::{CONTENT, Files};

fn run(files: &Files, more: &[&str]) -> Output {
    let arguments = &files.arguments;
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory-verify"));
    command.arg(&arguments.file).arg("--bundle").arg(&arguments.bundle).arg("--policy").arg(&arguments.policy);
    command.args(["--genesis", &arguments.genesis.to_string()]);
    command.args(["--product", arguments.product.as_str()]).args(more).output().unwrap()
}

#[test]
fn a_good_file_exits_with_0() {
    let files = Files::new();
    let output = run(&files, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("verified: "));
    assert!(output.stderr.is_empty());
    let json: serde_json::Value = serde_json::from_slice(&run(&files, &["--json"]).stdout).unwrap();
    assert_eq!(json["verified"], true);
}

#[test]
fn a_bad_file_exits_with_1_and_says_why_and_what_to_do() {
    let files = Files::new();
    files.write("product", &CONTENT[1..]);
    let output = run(&files, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("error: other-content: "), "{text}");
    assert!(lines.next().unwrap().starts_with("hint: "), "{text}");
    let output = run(&files, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["code"]), (Some(1), &"other-content".into()));
}

#[test]
fn wrong_usage_exits_with_2() {
    let files = Files::new();
    assert_eq!(run(&files, &["--genesis", "abc"]).status.code(), Some(2));
    assert_eq!(run(&files, &["--product", "../x"]).status.code(), Some(2));
    assert_eq!(run(&files, &["--at", "2020-01-01T00:00:00Z"]).status.code(), Some(2));
    // Whatever is genuine would be accepted, so which product is meant must be said.
    let mut unnamed = Command::new(env!("CARGO_BIN_EXE_clerestory-verify"));
    let Arguments { file, bundle, policy, genesis, .. } = &files.arguments;
    unnamed.arg(file).arg("--bundle").arg(bundle).arg("--policy").arg(policy);
    let output = unnamed.args(["--genesis", &genesis.to_string()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("--product <NAME>"), "{said}");
    let bare = Command::new(env!("CARGO_BIN_EXE_clerestory-verify")).output().unwrap();
    assert_eq!(bare.status.code(), Some(2));
}
