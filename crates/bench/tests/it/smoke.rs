//! `clerestory-bench run --quick`, suite by suite, so that they run at the same time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerestory-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The measurements of a suite; all if it is empty.
fn listed(suite: &str) -> Vec<String> {
    let suites: &[&str] = if suite.is_empty() { &[] } else { &[suite] };
    let output = bench(&[&["run", "--list"], suites].concat());
    text(&output.stdout).lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// Kept between runs; what the tests of `assembly` have downloaded is not downloaded again.
fn cache() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cache = kept.join("bench");
    std::fs::create_dir_all(kept.join("transport")).unwrap();
    std::fs::create_dir_all(&cache).unwrap();
    // The next run finds it there.
    drop(std::os::unix::fs::symlink("../transport", cache.join("downloads")));
    cache
}

/// Each measurement of `suite` gives rows whose members are what is promised.
fn runs(suite: &str) {
    let cache = cache();
    let output = bench(&["run", "--quick", "--json", "--cache", cache.to_str().unwrap(), suite]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &rows {
        for member in ["ours", "runs", "min", "max", "median", "spread"] {
            assert!(row[member].is_number(), "{member} of {row}");
        }
        assert!(row["min"].as_f64() <= row["max"].as_f64(), "{row}");
        assert_eq!(row["reference"].is_null(), row["ratio"].is_null(), "{row}");
        assert!(row["unit"].is_string(), "{row}");
    }
    for name in listed(suite) {
        let its = |row: &serde_json::Value| row["name"].as_str().unwrap().starts_with(&name);
        assert!(rows.iter().any(its), "`{name}` gave no row: {rows:?}");
    }
}

const SUITES: [&str; 9] = ["assembly", "cloud", "data", "endpoint", "log", "machine", "rules", "scan", "verify"];

#[test]
fn every_suite_is_tried_here() {
    let found: BTreeSet<String> = listed("").iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(found, SUITES.map(str::to_owned).into());
}

#[test]
fn log() {
    runs("log");
}

#[test]
fn machine() {
    runs("machine");
}

#[test]
fn assembly() {
    runs("assembly");
}

#[test]
fn cloud() {
    runs("cloud");
}

#[test]
fn data() {
    runs("data");
}

#[test]
fn endpoint() {
    runs("endpoint");
}

#[test]
fn rules() {
    runs("rules");
}

#[test]
fn scan() {
    runs("scan");
}

#[test]
fn verify() {
    runs("verify");
}

#[test]
fn an_unknown_name_is_a_misuse() {
    let output = bench(&["run", "nothing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nothing is called `nothing`"));
}
