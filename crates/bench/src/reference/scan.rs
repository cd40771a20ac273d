//! The bare engine: boreal in one thread, without a sandbox, a second process or containers.

use std::io::BufRead as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use boreal::Compiler;
use boreal::compiler::CompilerParams;
use boreal::scanner::ScanResult;

/// What the rules ask of a file beside its content; `foreign/scan.py` has the same.
const EXTERNALS: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];

/// Prints a line of JSON for each file in which something was found: `path`, `rules`.
pub(super) fn run(rules: &Path) -> anyhow::Result<()> {
    let mut compiler = Compiler::new();
    compiler.set_params(CompilerParams::default().disable_includes(true).disable_unknown_escape_warning(true));
    for name in EXTERNALS {
        compiler.define_symbol(name, "");
    }
    let text = std::fs::read_to_string(rules).with_context(|| format!("`{}`", rules.display()))?;
    compiler.add_rules_str(&text).map_err(|error| anyhow!("{error}"))?;
    drop(text);
    let mut scanner = compiler.finalize();
    for path in std::io::stdin().lock().lines() {
        let path = path?;
        let content = std::fs::read(&path).with_context(|| format!("`{path}`"))?;
        for (name, value) in EXTERNALS.into_iter().zip(described(&path, &content)) {
            scanner.define_symbol(name, value)?;
        }
        let result = scanner.scan_mem(&content).map_err(|(error, _)| anyhow!("`{path}`: {error}"))?;
        if !result.rules.is_empty() {
            println!("{}", serde_json::json!({ "path": path, "rules": names(&result) }));
        }
    }
    Ok(())
}

fn described<'a>(path: &'a str, content: &[u8]) -> [&'a str; 5] {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rfind('.').and_then(|at| name.get(at..)).unwrap_or_default();
    let kind = match content {
        [b'M', b'Z', ..] => "EXE",
        [0x7f, b'E', b'L', b'F', ..] => "ELF",
        [b'P', b'K', 3, 4, ..] => "ZIP",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        _ => "",
    };
    [name, path, extension, kind, ""]
}

fn names<'s>(result: &ScanResult<'s>) -> Vec<&'s str> {
    let mut names: Vec<&str> = result.rules.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names
}
