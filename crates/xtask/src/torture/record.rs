//! `docs/torture.md`: one section a torture, whose last result is replaced.

use anyhow::Context as _;

use crate::workspace::Workspace;

const DOCUMENT: &str = "docs/torture.md";
/// The line that begins a section's result.
const RESULT: &str = "Last result: ";

/// Replaces the result in the section `name`, or adds the section.
#[expect(clippy::disallowed_methods, reason = "a file of the checkout, under version control")]
pub(super) fn write(
    workspace: &Workspace,
    name: &str,
    circumstances: &str,
    figures: &[(String, String)],
) -> anyhow::Result<()> {
    let path = workspace.root().join(DOCUMENT);
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {DOCUMENT}"))?;
    let text = replaced(&text, name, &result(circumstances, figures));
    std::fs::write(&path, text).with_context(|| format!("can't write {DOCUMENT}"))
}

fn result(circumstances: &str, figures: &[(String, String)]) -> String {
    let mut text = format!("{RESULT}{circumstances}.\n");
    if !figures.is_empty() {
        text.push_str("\n| what | figure |\n|---|---|\n");
    }
    for (name, value) in figures {
        text.push_str(&format!("| {name} | {value} |\n"));
    }
    text
}

fn replaced(text: &str, name: &str, result: &str) -> String {
    let heading = format!("\n## {name}\n");
    let Some((before, rest)) = text.split_once(&heading) else {
        return format!("{text}{heading}\n{result}");
    };
    let (section, after) = rest.find("\n## ").map_or((rest, ""), |at| rest.split_at(at));
    let prose = section.find(RESULT).and_then(|at| section.get(..at)).unwrap_or(section).trim();
    let prose = if prose.is_empty() { String::new() } else { format!("{prose}\n\n") };
    format!("{before}{heading}\n{prose}{result}{after}")
}

#[cfg(test)]
mod tests {
    use super::{replaced, result};

    #[test]
    fn only_the_result_of_a_section_is_replaced() {
        let figures = [("calls".to_owned(), "12".to_owned())];
        let first = replaced("# Torture\n", "a", &result("yesterday", &[]));
        assert_eq!(first, "# Torture\n\n## a\n\nLast result: yesterday.\n");
        let both = replaced(&first, "b", &result("now", &figures));
        let b = "\n## b\n\nLast result: now.\n\n| what | figure |\n|---|---|\n| calls | 12 |\n";
        assert_eq!(both, format!("{first}{b}"));
        let written = both.replace("## a\n", "## a\n\nWhat a does.\n");
        let again = replaced(&written, "a", &result("today", &[]));
        assert_eq!(again, format!("# Torture\n\n## a\n\nWhat a does.\n\nLast result: today.\n{b}"));
    }
}
