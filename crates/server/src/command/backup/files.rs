//! Files of a backup.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use stdx::{Digest, durable};

pub(super) fn digest(path: &Path) -> anyhow::Result<Digest> {
    let read = || Digest::of_reader(std::fs::File::open(path)?);
    Ok(read().with_context(|| format!("can't read `{}`", path.display()))?.0)
}

/// All files below `folder`; a missing folder has none. What is being written is none either.
pub(super) fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("can't read `{}`", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("incoming") {
                found.extend(files_below(&path)?);
            }
        } else if !durable::is_temporary(&path) {
            found.push(path);
        }
    }
    // A channel's timestamp names what is there already, so it is copied first.
    found.sort_by_key(|path| (!path.ends_with("timestamp.json"), path.clone()));
    Ok(found)
}

pub(super) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    for path in files_below(from)? {
        copy_file(&path, &to.join(path.strip_prefix(from).unwrap_or(&path)))?;
    }
    Ok(())
}

pub(super) fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copy = || {
        durable::create_folder(to.parent().unwrap_or(to))?;
        std::fs::copy(from, to)?;
        std::fs::File::open(to)?.sync_all()
    };
    copy().with_context(|| format!("can't copy `{}` to `{}`", from.display(), to.display()))
}
