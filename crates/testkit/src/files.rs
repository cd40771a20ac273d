//! What lies in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files below `folder`, by their path in it.
#[must_use]
pub fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(below) = folders.pop() {
        for entry in std::fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string(), path);
            }
        }
    }
    found
}
