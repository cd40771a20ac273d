//! The manifests of our crates.

use std::path::Path;

use super::{Problem, Tree};

/// Every dependency comes from the root, where its reason stands, and every crate takes our lints.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let manifests = tree.files.iter().filter(|file| file.starts_with("crates") && file.ends_with("Cargo.toml"));
    // A `Cargo.toml` deeper down is a sample or a product's, not one of ours.
    manifests
        .filter(|file| file.components().count() == 3)
        .flat_map(|file| check_manifest(file, &tree.text(file)))
        .collect()
}

/// libFuzzer's entry point and an allocator that counts are unsafe, which our lints forbid without appeal.
const FUZZ: &str = "crates/fuzz/Cargo.toml";

fn check_manifest(file: &Path, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut section = "";
    let mut has_lints = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            if section.contains("dependencies.") {
                problems.push(Problem::at_line(file, index, "a dependency in a section of its own", ONE_LINE));
            }
        } else if section.ends_with("dependencies") && !line.is_empty() && !from_workspace(line) {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            problems.push(Problem::at_line(
                file,
                index,
                format!("`{name}` is not from [workspace.dependencies]"),
                ONE_LINE,
            ));
        }
        has_lints |= section == "lints" && squeezed(line) == "workspace=true";
    }
    if !has_lints && file != Path::new(FUZZ) {
        problems.push(Problem::in_file(file, "our lints are not in force", "add `[lints]` with `workspace = true`"));
    }
    problems
}

const ONE_LINE: &str = "add it to the root's [workspace.dependencies] and write `NAME.workspace = true` here";

fn from_workspace(line: &str) -> bool {
    let line = squeezed(line);
    line.contains(".workspace=true") || line.contains("{workspace=true") || line.contains(",workspace=true")
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sample::{lines, sample};

    #[test]
    fn good_manifests_pass() {
        let text = "[lints]\nworkspace = true\n[dependencies]\na.workspace = true # why\n\nb = { workspace = true, features = [\"x\"] }\n";
        let sample = sample(&[
            ("crates/a/Cargo.toml", text),
            ("crates/a/tests/foreign/Cargo.toml", "[dependencies]\nx = \"1\""),
        ]);
        assert!(check(&sample.tree).is_empty());
    }

    #[test]
    fn a_version_of_its_own_is_refused() {
        let text = "[lints]\nworkspace = true\n[dependencies]\na = \"1\"\n[target.x.dev-dependencies]\nb = { version = \"2\" }\n[dependencies.c]\nversion = \"3\"\n";
        let sample = sample(&[("crates/a/Cargo.toml", text)]);
        assert_eq!(
            lines(&check(&sample.tree)),
            [
                "crates/a/Cargo.toml:4: `a` is not from [workspace.dependencies]",
                "crates/a/Cargo.toml:6: `b` is not from [workspace.dependencies]",
                "crates/a/Cargo.toml:7: a dependency in a section of its own",
            ]
        );
    }

    #[test]
    fn missing_lints_are_refused() {
        let sample = sample(&[("crates/a/Cargo.toml", "[package]\nname = \"a\"\n")]);
        assert_eq!(lines(&check(&sample.tree)), ["crates/a/Cargo.toml: our lints are not in force"]);
    }
}
