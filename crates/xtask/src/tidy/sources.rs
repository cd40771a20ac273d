//! Our Rust files.

use std::path::Path;

use super::rust_text::code_only;
use super::{Problem, Tree};

/// Nobody reads a longer file from top to bottom.
const LINES_MAX: usize = 600;

/// What each library says about itself first.
const SECTIONS: [&str; 3] = ["# In scope", "# Out of scope", "# Invariants"];

/// Code that does less than it seems to.
const PRETENCE: [(&str, &str); 4] = [
    ("#[ignore", "a test runs everywhere, or does not exist"),
    ("#[should_panic", "assert on the error that is returned"),
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Product,
    /// Also what follows the first `#[cfg(test)]` of a file.
    Test,
}

pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let ours = tree.with_extension("rs").filter(|file| file.starts_with("crates"));
    ours.flat_map(|file| check_source(file, &tree.text(file))).collect()
}

fn check_source(file: &Path, source: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let inside = |folder: &str| file.components().nth(2).is_some_and(|part| part.as_os_str() == folder);
    let length = source.lines().count();
    if inside("src") && length > LINES_MAX {
        let what = format!("{length} lines, more than {LINES_MAX}");
        problems.push(Problem::in_file(file, what, "split it; long tests go to `tests.rs` beside the module"));
    }
    if file.ends_with("src/lib.rs") && file.components().count() == 4 {
        for section in SECTIONS {
            if !source.lines().any(|line| line.strip_prefix("//! ").is_some_and(|text| text == section)) {
                let what = format!("no section `{section}`");
                problems.push(Problem::in_file(file, what, "say it in the crate's documentation, however short"));
            }
        }
    }
    let code = code_only(source);
    let lines: Vec<&str> = code.lines().collect();
    let is_test = inside("tests") || file.ends_with("tests.rs") || file.starts_with("crates/testkit");
    let mut place = if is_test { Place::Test } else { Place::Product };
    for (index, line) in lines.iter().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            place = Place::Test;
        }
        if is_glob_import(lines.get(index..).unwrap_or_default(), place) {
            problems.push(Problem::at_line(
                file,
                index,
                "a glob import",
                "name what is used, so that a reader finds it",
            ));
        }
        for (word, hint) in PRETENCE {
            if line.contains(word) {
                problems.push(Problem::at_line(file, index, format!("`{}`", word.trim_end_matches('(')), hint));
            }
        }
        if line.contains("cfg_attr(") && line.contains("ignore") {
            problems.push(Problem::at_line(file, index, "a test that is ignored somewhere", "a test runs everywhere"));
        }
        if place == Place::Test && line.contains("thread::sleep") {
            problems.push(Problem::at_line(
                file,
                index,
                "a sleep in a test",
                "wait for the event, or move a manual clock",
            ));
        }
    }
    problems
}

/// Whether a `use` statement with a `*` starts in the first of `lines`. A test module may take all that
/// it tests, as clippy's `wildcard_imports` has it.
fn is_glob_import(lines: &[&str], place: Place) -> bool {
    let Some(first) = lines.first().filter(|line| is_use(line)) else { return false };
    if place == Place::Test && first.trim() == "use super::*;" {
        return false;
    }
    let end = lines.iter().position(|line| line.contains(';')).unwrap_or(0);
    lines.iter().take(end + 1).filter_map(|line| line.split(';').next()).any(|line| line.contains('*'))
}

fn is_use(line: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("pub").map_or(line, |after| {
        let after = after.strip_prefix('(').and_then(|path| path.split_once(')')).map_or(after, |(_, after)| after);
        after.trim_start()
    });
    line.starts_with("use ")
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sample::{lines, sample};

    fn found(file: &str, source: &str) -> Vec<String> {
        lines(&check(&sample(&[(file, source)]).tree))
    }

    #[test]
    fn pretence_is_refused() {
        let source = "#[ignore = \"slow\"]\n#[should_panic(expected = \"x\")]\nfn a() { todo!() }\nfn b() { unimplemented!(\"b\") }\n";
        assert_eq!(
            found("crates/a/src/a.rs", source),
            [
                "crates/a/src/a.rs:1: `#[ignore`",
                "crates/a/src/a.rs:2: `#[should_panic`",
                "crates/a/src/a.rs:3: `todo!`",
                "crates/a/src/a.rs:4: `unimplemented!`",
            ]
        );
        assert_eq!(
            found("crates/a/src/a.rs", "#[cfg_attr(windows, ignore)]\n"),
            ["crates/a/src/a.rs:1: a test that is ignored somewhere"]
        );
        assert!(found("crates/a/src/a.rs", "// todo!()\nlet a = \"#[ignore]\";\n").is_empty());
        assert!(found("elsewhere/a.rs", "todo!()").is_empty());
    }

    #[test]
    fn sleep_is_refused_in_tests_only() {
        let sleep = "std::thread::sleep(pause);\n";
        assert!(found("crates/a/src/a.rs", sleep).is_empty());
        for file in ["crates/a/tests/it/main.rs", "crates/a/src/a/tests.rs", "crates/testkit/src/a.rs"] {
            assert_eq!(found(file, sleep), [format!("{file}:1: a sleep in a test")]);
        }
        let source = format!("{sleep}#[cfg(test)]\nmod tests {{ {sleep} }}\n");
        assert_eq!(found("crates/a/src/a.rs", &source), ["crates/a/src/a.rs:3: a sleep in a test"]);
    }

    #[test]
    fn glob_imports_are_refused() {
        let source = "use a::*;\npub use b::{\n    c,\n    d::*,\n};\npub(crate) use e::*;\nuse f::g; let h = i * j;\nfn user() -> u8 { k * l }\n";
        assert_eq!(
            found("crates/a/src/a.rs", source),
            [
                "crates/a/src/a.rs:1: a glob import",
                "crates/a/src/a.rs:2: a glob import",
                "crates/a/src/a.rs:6: a glob import",
            ]
        );
    }

    #[test]
    fn a_test_module_may_take_all_that_it_tests() {
        assert!(found("crates/a/src/a.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}\n").is_empty());
        assert_eq!(found("crates/a/src/a.rs", "use super::*;\n"), ["crates/a/src/a.rs:1: a glob import"]);
        assert_eq!(
            found("crates/a/src/a/tests.rs", "use super::b::*;\n"),
            ["crates/a/src/a/tests.rs:1: a glob import"]
        );
    }

    #[test]
    fn long_files_are_refused() {
        assert!(found("crates/a/src/a.rs", &"\n".repeat(600)).is_empty());
        assert_eq!(found("crates/a/src/a.rs", &"\n".repeat(601)), ["crates/a/src/a.rs: 601 lines, more than 600"]);
    }

    #[test]
    fn a_library_says_what_it_is() {
        let source = "//! A.\n//!\n//! # In scope\n//! # Out of scope\n";
        assert_eq!(found("crates/a/src/lib.rs", source), ["crates/a/src/lib.rs: no section `# Invariants`"]);
        assert!(found("crates/a/src/lib.rs", &format!("{source}//! # Invariants\n")).is_empty());
    }
}
