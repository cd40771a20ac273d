//! The Python index through pip's own finder: sdists and wheels as files, no backend ever run.

use std::path::Path;

use serde::Deserialize;

use crate::inputs::InputsError;
use crate::lock::LockedFile;
use crate::tool::{PYTHON, ToolError};

const SCRIPT: &str = include_str!("pypi.py");

/// All files of a release that the index has a SHA-256 of.
pub(crate) fn files(project: &str, version: &str) -> Result<Vec<LockedFile>, InputsError> {
    #[derive(Deserialize)]
    struct Line {
        file: String,
        sha256: stdx::Digest,
    }
    let text = PYTHON.text(PYTHON.command().args(["-I", "-c", SCRIPT, "list", project, version])).map_err(no_pip)?;
    let mut files = Vec::new();
    for line in text.lines() {
        let Line { file, sha256 } = serde_json::from_str(line).map_err(|_| PYTHON.answer(line))?;
        files.push(LockedFile { file, sha256 });
    }
    if files.is_empty() {
        return Err(InputsError::Superseded { item: format!("{project} {version}") });
    }
    Ok(files)
}

/// Downloads one file of a release to `to`.
pub(crate) fn download(project: &str, version: &str, file: &str, to: &Path) -> Result<(), InputsError> {
    let mut command = PYTHON.command();
    command.args(["-I", "-c", SCRIPT, "get", project, version, file]).arg(to);
    PYTHON.output(&mut command).map_err(no_pip)?;
    Ok(())
}

/// The one wheel that runs anywhere with Python 3.
pub(crate) fn universal_wheel(files: &[LockedFile]) -> Option<&LockedFile> {
    files.iter().find(|file| file.file.ends_with("-none-any.whl"))
}

/// The source distribution.
pub(crate) fn sdist(files: &[LockedFile]) -> Option<&LockedFile> {
    files.iter().find(|file| file.file.ends_with(".tar.gz"))
}

fn no_pip(error: ToolError) -> InputsError {
    match error {
        ToolError::Failed { words, .. } if words.contains("No module named 'pip'") => {
            ToolError::Missing { tool: "pip", package: "python3-pip" }.into()
        }
        other => other.into(),
    }
}
