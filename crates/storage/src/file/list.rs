//! Listing in byte order of whole keys, one folder in memory at a time.

use std::path::Path;

use super::{failed, is_missing};
use crate::{Error, Folder, Key, Listing};

pub(super) fn list(objects: &Path, listing: &Listing) -> Result<Vec<Key>, Error> {
    let mut walk = Walk { after: listing.after.as_ref().map_or("", Key::as_str), limit: listing.limit, found: vec![] };
    let folder = match &listing.folder {
        Folder::Root => objects.to_owned(),
        Folder::Below(key) => objects.join(key.as_str()),
    };
    walk.folder(&folder, &listing.folder.prefix())?;
    Ok(walk.found)
}

/// How many bytes the files in a folder and below it have.
pub(super) fn bytes(folder: &Path) -> Result<u64, Error> {
    let (mut sum, mut rest) = (0_u64, vec![folder.to_owned()]);
    while let Some(folder) = rest.pop() {
        for name in names(&folder)? {
            let path = folder.join(name.trim_end_matches('/'));
            if name.ends_with('/') {
                rest.push(path);
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(found) => sum = sum.saturating_add(found.len()),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed("list", &path)(error)),
            }
        }
    }
    Ok(sum)
}

struct Walk<'a> {
    after: &'a str,
    limit: usize,
    found: Vec<Key>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, prefix: &str) -> Result<(), Error> {
        for name in names(path)? {
            if self.found.len() >= self.limit {
                break;
            }
            let key = format!("{prefix}{name}");
            if let Some(folder) = key.strip_suffix('/') {
                // All keys below start with `key`; they can be skipped if none comes after.
                if key.as_str() > self.after || self.after.starts_with(&key) {
                    let name = name.trim_end_matches('/');
                    self.folder(&path.join(name), &format!("{folder}/"))?;
                }
            } else if key.as_str() > self.after
                && let Ok(key) = key.parse()
            {
                self.found.push(key);
            }
        }
        Ok(())
    }
}

/// The names in a folder, those of folders with a `/` at the end: so they sort as keys do.
fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", path))?;
        let Ok(mut name) = entry.file_name().into_string() else { continue };
        if entry.file_type().map_err(failed("list", path))?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}
