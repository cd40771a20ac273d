//! Foreign crates: their licences, where they come from, and which we don't want.

use std::iter::Peekable;

use super::Problem;
use crate::workspace::{Metadata, Package};

/// Licences that ask for no more than a notice.
const LICENCES: [&str; 13] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    // MIT without the notice.
    "MIT-0",
    // As BSD's, with the name of one library: that of libbz2, which its Rust port keeps.
    "bzip2-1.0.6",
    "Unicode-3.0",
    // Asks for nothing at all, and grants no patents: `notify`, which wraps a system call.
    "CC0-1.0",
    // Mozilla's root certificates.
    "CDLA-Permissive-2.0",
];

/// The one registry that our lock file names (the rest of the address is cargo's own).
const REGISTRY: &str = "registry+https://github.com/rust-lang/";

/// Crates that must not be in the tree, and why.
const BANNED: [(&str, &str); 3] = [
    ("openssl-sys", "rustls is our one TLS"),
    ("native-tls", "rustls is our one TLS"),
    ("rusqlite", "sqlx is our one way into SQLite"),
];

pub(crate) fn check(everything: &Metadata) -> Vec<Problem> {
    let foreign = everything.packages.iter().filter(|package| !everything.workspace_members.contains(&package.id));
    foreign.flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Problem> {
    let mut problems = Vec::new();
    let source = package.source.as_deref().unwrap_or("a folder outside the workspace");
    if !source.starts_with(REGISTRY) {
        problems.push(Problem::in_package(package, format!("comes from {source}"), "use a release from the registry"));
    }
    match package.license.as_deref() {
        None => problems.push(Problem::in_package(package, "names no licence", "use another crate")),
        Some(licence) if !is_allowed(licence) => {
            let hint = "use another crate, or allow the licence in crates/xtask/src/tidy/dependencies.rs";
            problems.push(Problem::in_package(package, format!("licence `{licence}` is not allowed"), hint));
        }
        Some(_) => {}
    }
    let banned = BANNED.iter().find(|(name, _)| *name == package.name);
    problems.extend(banned.map(|(_, reason)| Problem::in_package(package, "is banned", reason)));
    problems
}

/// Whether an SPDX expression can be met with our licences. (`MIT/Apache-2.0` is an old form of `OR`.)
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    alternatives(&mut words) == Some(true) && words.next().is_none()
}

fn alternatives<'text>(words: &mut Peekable<impl Iterator<Item = &'text str>>) -> Option<bool> {
    let mut allowed = together(words)?;
    while words.next_if_eq(&"OR").is_some() {
        allowed |= together(words)?;
    }
    Some(allowed)
}

fn together<'text>(words: &mut Peekable<impl Iterator<Item = &'text str>>) -> Option<bool> {
    let mut allowed = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words)?;
    }
    Some(allowed)
}

fn one<'text>(words: &mut Peekable<impl Iterator<Item = &'text str>>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let allowed = alternatives(words)?;
        return words.next_if_eq(&")").map(|_| allowed);
    }
    if words.next_if_eq(&"WITH").is_some() {
        return Some(LICENCES.contains(&format!("{word} WITH {}", words.next()?).as_str()));
    }
    Some(LICENCES.contains(&word))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{REGISTRY, check, is_allowed};
    use crate::tidy::sample::lines;
    use crate::workspace::{Metadata, Package};

    fn found(name: &str, licence: Option<&str>, source: Option<&str>) -> Vec<String> {
        let package = Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: licence.map(str::to_owned),
            source: source.map(str::to_owned),
            manifest_path: PathBuf::new(),
            dependencies: Vec::new(),
        };
        lines(&check(&Metadata { packages: vec![package], workspace_members: vec!["ours".to_owned()] }))
    }

    #[test]
    fn expressions_are_understood() {
        for good in ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR (MIT AND ISC)", "Apache-2.0 WITH LLVM-exception OR GPL-2.0"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in
            ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND AGPL-3.0", "MIT WITH x", "MIT ISC", "(MIT", "OR MIT", ""]
        {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn foreign_crates_are_judged() {
        assert!(found("good", Some("MIT"), Some(REGISTRY)).is_empty());
        assert!(found("ours", None, None).is_empty());
        assert_eq!(found("a", Some("GPL-3.0"), Some(REGISTRY)), ["a 1.0.0: licence `GPL-3.0` is not allowed"]);
        assert_eq!(found("a", None, Some(REGISTRY)), ["a 1.0.0: names no licence"]);
        assert_eq!(found("a", Some("MIT"), Some("git+https://x/y")), ["a 1.0.0: comes from git+https://x/y"]);
        assert_eq!(found("a", Some("MIT"), None), ["a 1.0.0: comes from a folder outside the workspace"]);
        assert_eq!(found("rusqlite", Some("MIT"), Some(REGISTRY)), ["rusqlite 1.0.0: is banned"]);
    }
}
