//! Small trees that are wrong in one way.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Problem, Tree};

/// A temporary folder and the tree in it.
pub(crate) struct Sample {
    pub(crate) tree: Tree,
    _folder: TempDir,
}

/// Writes `files` (path, content) into a new folder.
pub(crate) fn sample(files: &[(&str, &str)]) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
    }
    let tree =
        Tree { root: folder.path().to_owned(), files: files.iter().map(|(path, _)| PathBuf::from(path)).collect() };
    Sample { tree, _folder: folder }
}

/// Each problem as `place: what`.
pub(crate) fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect()
}
