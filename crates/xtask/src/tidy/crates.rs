//! Which crate may depend on which: the one table of our layout.

use super::{Problem, Tree};
use crate::workspace::{Metadata, Package};

/// One crate of ours.
struct Row {
    folder: &'static str,
    /// The package's name, where it can't be the folder's (a foreign crate has it already).
    package: &'static str,
    /// Our crates that it may depend on.
    ours: &'static [&'static [&'static str]],
    /// Foreign crates that it may depend on, if that is limited.
    foreign: Option<&'static [&'static str]>,
}

const fn row(folder: &'static str, ours: &'static [&'static [&'static str]]) -> Row {
    Row { folder, package: folder, ours, foreign: None }
}

const FOUNDATION: &[&str] =
    &["stdx", "tlog", "attest", "policy", "verify", "tuf", "seal", "sandbox", "reputation", "oblivious"];
const PORTS: &[&str] = &["storage", "api", "detection"];
const ENGINES: &[&str] = &["clerestory-log", "witness", "assembly", "channel", "vault", "custody", "ledger"];

/// Arrows only go down, and engines never depend on each other.
const TABLE: &[Row] = &[
    // Foundation: pure, synchronous, no network; in its own order.
    row("stdx", &[]),
    row("tlog", &[&["stdx"]]),
    row("attest", &[&["stdx", "tlog"]]),
    row("policy", &[&["stdx", "tlog", "attest"]]),
    row("verify", &[&["stdx", "tlog", "attest", "policy"]]),
    row("tuf", &[&["stdx"]]),
    row("seal", &[&["stdx", "attest", "policy"]]),
    row("sandbox", &[&["stdx"]]),
    row("reputation", &[&["stdx"]]),
    row("oblivious", &[&["stdx", "reputation"]]),
    // Ports.
    row("storage", &[&["stdx"]]),
    row("remote", &[&["stdx", "storage"]]),
    row("api", &[&["stdx", "tlog", "attest"]]),
    row("detection", &[&["stdx", "attest", "reputation"]]),
    // Engines.
    Row { folder: "log", package: "clerestory-log", ours: &[FOUNDATION, PORTS], foreign: None },
    row("witness", &[FOUNDATION, PORTS]),
    row("assembly", &[FOUNDATION, PORTS]),
    row("channel", &[FOUNDATION, PORTS]),
    row("vault", &[FOUNDATION, PORTS]),
    row("custody", &[FOUNDATION, PORTS]),
    row("ledger", &[FOUNDATION, PORTS]),
    // Edges. The verifier is what strangers read, so it stays small.
    row("server", &[FOUNDATION, PORTS, &["remote"], ENGINES]),
    row("agent", &[FOUNDATION, PORTS, ENGINES]),
    Row {
        folder: "verifier",
        package: "verifier",
        ours: &[&["stdx", "tlog", "attest", "policy", "verify"]],
        foreign: Some(&["anyhow", "clap", "serde_json"]),
    },
    row("conformance", &[FOUNDATION]),
    // Leaves: heavy programs that others start and talk to, and never link.
    row("scanner", &[&["stdx", "sandbox", "detection", "reputation"]]),
    row("query", &[FOUNDATION, PORTS, ENGINES]),
    row("token", &[FOUNDATION]),
    // Tools. The tasks build in seconds, so that they can say what is wrong with the rest.
    row("testkit", &[FOUNDATION, PORTS, ENGINES]),
    // It measures what users run, so it may name anything but the other programs' own code; of the scanner's
    // it asks what a file contains.
    row("bench", &[FOUNDATION, PORTS, ENGINES, &["server", "scanner", "testkit"]]),
    row("simulation", &[FOUNDATION, PORTS, ENGINES, &["server", "agent"]]),
    Row {
        folder: "fuzz",
        package: "clerestory-fuzz",
        ours: &[FOUNDATION, PORTS, ENGINES, &["agent", "scanner", "testkit"]],
        foreign: None,
    },
    Row { folder: "xtask", package: "xtask", ours: &[], foreign: Some(&["anyhow", "clap", "serde", "serde_json"]) },
];

/// Only tests and measurements may use it.
const TEST_ONLY: &str = "testkit";
const TESTS: &[&str] = &["bench", "clerestory-fuzz"];

/// Foreign crates with a place of their own: who may depend on them outside of tests.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("axum", &["server", "query", "bench", "simulation"]),
    ("boreal", &["scanner", "bench"]),
    ("boreal-parser", &["scanner"]),
    ("cryptoki", &["token"]),
    ("tower-http", &["server"]),
    ("sqlx", &["storage", "remote"]),
    ("object_store", &["remote", "query"]),
    ("datafusion", &["query"]),
    ("datafusion-distributed", &["query"]),
    ("datafusion-proto", &["query"]),
    ("reqwest", &["server", "query"]),
    ("ureq", &["api", "conformance"]),
    (
        "tokio",
        &[
            "storage",
            "remote",
            "clerestory-log",
            "witness",
            "assembly",
            "channel",
            "vault",
            "custody",
            "server",
            "query",
            "bench",
            "simulation",
            TEST_ONLY,
        ],
    ),
    ("landlock", &["sandbox"]),
    ("seccompiler", &["sandbox"]),
];

const HINT: &str = "the table stands in crates/xtask/src/tidy/crates.rs; arrows only go down, engines never meet";

pub(crate) fn check(tree: &Tree, members: &Metadata) -> Vec<Problem> {
    members.packages.iter().flat_map(|package| check_package(tree, package)).collect()
}

fn check_package(tree: &Tree, package: &Package) -> Vec<Problem> {
    let manifest = package.manifest_path.strip_prefix(&tree.root).unwrap_or(&package.manifest_path);
    let Some(row) = TABLE.iter().find(|row| row.package == package.name) else {
        let what = format!("crate `{}` is not in the table of crates", package.name);
        return vec![Problem::in_file(manifest, what, "add its row to crates/xtask/src/tidy/crates.rs")];
    };
    let mut problems = Vec::new();
    if manifest != std::path::Path::new("crates").join(row.folder).join("Cargo.toml") {
        let what = format!("crate `{}` must lie in crates/{}", package.name, row.folder);
        problems.push(Problem::in_file(manifest, what, "a folder is called like its crate"));
    }
    for dependency in &package.dependencies {
        let (name, in_tests) = (dependency.name.as_str(), dependency.kind.as_deref() == Some("dev"));
        let refusal = if let Some(ours) = TABLE.iter().find(|ours| ours.package == name) {
            refuse_ours(row, ours, in_tests)
        } else {
            refuse_foreign(row, name, in_tests)
        };
        if let Some(what) = refusal {
            problems.push(Problem::in_file(manifest, what, HINT));
        }
    }
    problems
}

fn refuse_ours(row: &Row, ours: &Row, in_tests: bool) -> Option<String> {
    if ours.package == TEST_ONLY {
        return (!in_tests && !TESTS.contains(&row.package))
            .then(|| format!("`{TEST_ONLY}` may only be a dev-dependency"));
    }
    let allowed = row.ours.iter().any(|names| names.contains(&ours.package));
    (!allowed).then(|| format!("`{}` may not depend on `{}`", row.package, ours.package))
}

fn refuse_foreign(row: &Row, name: &str, in_tests: bool) -> Option<String> {
    let listed = row.foreign.is_none_or(|names| names.contains(&name));
    let placed = ONLY_IN.iter().find(|(only, _)| *only == name).is_none_or(|(_, users)| users.contains(&row.package));
    let allowed = in_tests || (listed && placed);
    (!allowed).then(|| format!("`{}` may not depend on `{name}`", row.package))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{TABLE, check};
    use crate::tidy::sample::{lines, sample};
    use crate::workspace::{Dependency, Metadata, Package};

    fn found(name: &str, manifest: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let sample = sample(&[]);
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) });
        let package = Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
            manifest_path: sample.tree.path(Path::new(manifest)),
            dependencies: dependencies.collect(),
        };
        lines(&check(&sample.tree, &Metadata { packages: vec![package], workspace_members: Vec::new() }))
    }

    #[test]
    fn allowed_arrows_pass() {
        let dependencies =
            [("stdx", None), ("storage", None), ("tokio", None), ("testkit", Some("dev")), ("axum", Some("dev"))];
        assert!(found("clerestory-log", "crates/log/Cargo.toml", &dependencies).is_empty());
    }

    #[test]
    fn an_unknown_crate_is_refused() {
        assert_eq!(
            found("misc", "crates/misc/Cargo.toml", &[]),
            ["crates/misc/Cargo.toml: crate `misc` is not in the table of crates"]
        );
    }

    #[test]
    fn a_folder_with_another_name_is_refused() {
        assert_eq!(
            found("tlog", "crates/log/Cargo.toml", &[]),
            ["crates/log/Cargo.toml: crate `tlog` must lie in crates/tlog"]
        );
    }

    #[test]
    fn upward_and_sideward_arrows_are_refused() {
        for (from, to) in
            [("tlog", "attest"), ("tuf", "tlog"), ("storage", "witness"), ("witness", "assembly"), ("agent", "server")]
        {
            let manifest = format!("crates/{from}/Cargo.toml");
            let expected = [format!("{manifest}: `{from}` may not depend on `{to}`")];
            assert_eq!(found(from, &manifest, &[(to, None)]), expected);
            assert_eq!(found(from, &manifest, &[(to, Some("dev"))]), expected, "not in tests either");
        }
    }

    #[test]
    fn the_testkit_is_for_tests() {
        let expected = ["crates/agent/Cargo.toml: `testkit` may only be a dev-dependency"];
        assert_eq!(found("agent", "crates/agent/Cargo.toml", &[("testkit", None)]), expected);
        assert_eq!(found("agent", "crates/agent/Cargo.toml", &[("testkit", Some("build"))]), expected);
    }

    #[test]
    fn the_verifier_stays_small() {
        let manifest = "crates/verifier/Cargo.toml";
        assert_eq!(
            found("verifier", manifest, &[("tuf", None)]),
            [format!("{manifest}: `verifier` may not depend on `tuf`")]
        );
        assert_eq!(
            found("verifier", manifest, &[("hex", None)]),
            [format!("{manifest}: `verifier` may not depend on `hex`")]
        );
        assert!(found("verifier", manifest, &[("hex", Some("dev")), ("clap", None), ("verify", None)]).is_empty());
    }

    #[test]
    fn the_web_framework_stays_in_the_server() {
        let manifest = "crates/witness/Cargo.toml";
        assert_eq!(
            found("witness", manifest, &[("axum", None)]),
            [format!("{manifest}: `witness` may not depend on `axum`")]
        );
        assert!(found("server", "crates/server/Cargo.toml", &[("axum", None)]).is_empty());
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (at, row) in TABLE.iter().enumerate() {
            for name in row.ours.iter().flat_map(|names| names.iter()) {
                let below = TABLE.iter().position(|other| other.package == *name);
                assert!(below.is_some_and(|below| below < at), "{} uses {name}", row.package);
            }
        }
    }
}
