//! Links between our documents.

use std::path::{Component, Path, PathBuf};

use super::{Problem, Tree};

/// Every relative link leads to a file or folder of the checkout.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    tree.with_extension("md").flat_map(|file| check_document(tree, file)).collect()
}

fn check_document(tree: &Tree, file: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut in_code = false;
    for (index, line) in tree.text(file).lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let dead = targets(line).into_iter().filter(|target| !leads_somewhere(tree, file, target));
            problems.extend(dead.map(|target| {
                Problem::at_line(
                    file,
                    index,
                    format!("dead link `{target}`"),
                    "links are relative to the file they stand in",
                )
            }));
        }
    }
    problems
}

/// What `[text](target)` and `[name]: target` point at.
fn targets(line: &str) -> Vec<String> {
    // Every second part between backticks is code.
    let prose: String = line.split('`').step_by(2).collect();
    let inline = prose.split("](").skip(1).filter_map(|after| after.split([')', ' ']).next());
    let definition = prose.strip_prefix('[').and_then(|after| after.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(definition).map(|target| target.trim_matches(['<', '>']).to_owned()).collect()
}

fn leads_somewhere(tree: &Tree, file: &Path, target: &str) -> bool {
    let path = target.split('#').next().unwrap_or_default();
    if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    inside(&file.parent().unwrap_or(Path::new("")).join(path)).is_some_and(|path| tree.path(&path).exists())
}

/// `path` without its dots, if it stays in the checkout.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sample::{lines, sample};

    #[test]
    fn live_links_pass() {
        let text = "[a](../b.md#c) [`d`](e.md \"title\") [f](https://example.org/) [g](#h) `[i](nowhere)`\n[j]: ../docs\n```\n[k](nowhere)\n```\n";
        let sample = sample(&[("docs/a.md", text), ("docs/e.md", ""), ("b.md", "")]);
        assert_eq!(lines(&check(&sample.tree)), [""; 0]);
    }

    #[test]
    fn dead_links_are_refused() {
        let sample = sample(&[("docs/a.md", "x\n[a](b.md) [c](../../etc/passwd)\n[d]: /etc/passwd\n")]);
        assert_eq!(
            lines(&check(&sample.tree)),
            [
                "docs/a.md:2: dead link `b.md`",
                "docs/a.md:2: dead link `../../etc/passwd`",
                "docs/a.md:3: dead link `/etc/passwd`",
            ]
        );
    }
}
