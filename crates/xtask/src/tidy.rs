//! `cargo xtask tidy`: what no compiler checks about the shape of the repository.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::refusal::Refusal;
use crate::workspace::{Metadata, Workspace, read};

mod crates;
mod dependencies;
mod documents;
mod files;
mod manifests;
mod rust_text;
mod sources;

#[cfg(test)]
mod sample;

/// Check the layout of crates, files, documents and dependencies.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> anyhow::Result<()> {
    check(&Workspace::find()?)
}

/// Prints every problem on stderr, and refuses if there is one.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let tree = Tree::of_git(workspace)?;
    let members = Metadata::of_members(workspace)?;
    let everything = Metadata::of_everything(workspace)?;
    let problems: Vec<Problem> = [
        crates::check(&tree, &members),
        manifests::check(&tree),
        sources::check(&tree),
        files::check(&tree),
        documents::check(&tree),
        dependencies::check(&everything),
    ]
    .into_iter()
    .flatten()
    .collect();
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        eprintln!("tidy: {} files, {} packages", tree.files.len(), everything.packages.len());
        return Ok(());
    }
    Err(Refusal::refused(format!("tidy found {} problems", problems.len())).into())
}

/// The files of the checkout: what is committed and what `git add` would take.
pub(crate) struct Tree {
    root: PathBuf,
    /// Relative to the root, sorted.
    files: Vec<PathBuf>,
}

impl Tree {
    fn of_git(workspace: &Workspace) -> anyhow::Result<Self> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(workspace.root());
        let listed = read(git)?;
        let mut files: Vec<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).collect();
        // A file that was deleted but not yet committed so is still listed.
        files.retain(|file| workspace.root().join(file).symlink_metadata().is_ok());
        files.sort();
        files.dedup();
        Ok(Self { root: workspace.root().to_owned(), files })
    }

    fn path(&self, file: &Path) -> PathBuf {
        self.root.join(file)
    }

    /// The file's text; bytes that are no UTF-8 are replaced, an unreadable file is empty.
    fn text(&self, file: &Path) -> String {
        std::fs::read(self.path(file))
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn with_extension<'tree>(&'tree self, extension: &'tree str) -> impl Iterator<Item = &'tree Path> {
        self.files
            .iter()
            .map(PathBuf::as_path)
            .filter(move |file| file.extension().is_some_and(|found| found == extension))
    }
}

/// One thing that is wrong, where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    place: String,
    what: String,
    hint: &'static str,
}

impl Problem {
    fn in_file(file: &Path, what: impl fmt::Display, hint: &'static str) -> Self {
        Self { place: file.display().to_string(), what: what.to_string(), hint }
    }

    /// `index` counts from 0, as `enumerate` does.
    fn at_line(file: &Path, index: usize, what: impl fmt::Display, hint: &'static str) -> Self {
        Self { place: format!("{}:{}", file.display(), index + 1), what: what.to_string(), hint }
    }

    fn in_package(package: &crate::workspace::Package, what: impl fmt::Display, hint: &'static str) -> Self {
        Self { place: format!("{} {}", package.name, package.version), what: what.to_string(), hint }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}: {}\n  hint: {}", self.place, self.what, self.hint)
    }
}
