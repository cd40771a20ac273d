//! Writing: into `incoming`, synced, then renamed into place, then the folder is synced.
//!
//! `stdx::durable` does the same for one file; here a batch shares the syncs of folders, and
//! what a crash leaves lies in one folder, however many the store has.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use stdx::durable;

use super::{Folders, failed, is_missing, read};
use crate::{Error, Key, Move, Put};

/// A folder is lost to a concurrent delete rarely, and hardly ever twice.
const FOLDER_ATTEMPTS: usize = 10;

pub(super) fn put(folders: &Folders, key: &Key, bytes: &Bytes) -> Result<Put, Error> {
    let put = place_one(folders, key, bytes)?;
    sync_folder_of(&folders.path(key))?;
    Ok(put)
}

/// Puts each object in place; the folders are not yet synced.
pub(super) fn place(folders: &Folders, objects: &[(Key, Bytes)]) -> Result<(), Error> {
    objects.iter().try_for_each(|(key, bytes)| place_one(folders, key, bytes).map(|_| ()))
}

/// The folders that these files are in, each once.
pub(super) fn folders_of(paths: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    paths.filter_map(|path| path.parent().map(Path::to_owned)).collect()
}

/// Removes an object, and its folder if that was the last in it: a log's partial tiles have a
/// folder for each tile, which would otherwise stay for ever. Nothing is synced: see the port.
pub(super) fn delete(folders: &Folders, key: &Key) -> Result<(), Error> {
    let path = folders.path(key);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(failed("delete", &path)(error)),
    }
    forget_folder_of(folders, &path);
    Ok(())
}

fn forget_folder_of(folders: &Folders, path: &Path) {
    if let Some(folder) = path.parent().filter(|folder| *folder != folders.objects) {
        // Not empty is the usual case; a writer that loses its folder here makes it again.
        let _ = std::fs::remove_dir(folder);
    }
}

/// Renames an object into its place; the folders are not yet synced. A crash leaves it under one
/// of both keys.
pub(super) fn move_one(folders: &Folders, it: &Move) -> Result<(), Error> {
    let (from, to) = (folders.path(&it.from), folders.path(&it.to));
    let rename = || renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE).map_err(io::Error::from);
    match into_place(&to, rename) {
        Ok(()) => forget_folder_of(folders, &from),
        // Something is in its place already: the same, or it is a conflict.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists || is_missing(&error) => {
            place_one(folders, &it.to, &it.bytes)?;
            delete(folders, &it.from)?;
        }
        Err(error) => return Err(failed("create", &to)(error)),
    }
    Ok(())
}

pub(super) fn replace(folders: &Folders, key: &Key, bytes: &Bytes) -> Result<(), Error> {
    let path = folders.path(key);
    let temporary = write_incoming(folders, bytes)?;
    into_place(&path, || durable::rename(&temporary, &path)).map_err(|error| {
        discard(&temporary);
        failed("replace", &path)(error)
    })
}

/// Makes the folder and moves a file into it; again if a [`delete`] took the folder between.
fn into_place(path: &Path, rename: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut left = FOLDER_ATTEMPTS;
    loop {
        match path.parent().map_or(Ok(()), durable::create_folder).and_then(|()| rename()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && left > 0 => left -= 1,
            outcome => return outcome,
        }
    }
}

fn place_one(folders: &Folders, key: &Key, bytes: &Bytes) -> Result<Put, Error> {
    let path = folders.path(key);
    // The usual repetition (a batch applied again after a crash) needs no writing.
    if let Some(found) = read(&path, key)? {
        return same(&path, key, bytes, &found);
    }
    let temporary = write_incoming(folders, bytes)?;
    let rename = || renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE).map_err(io::Error::from);
    match into_place(&path, rename) {
        Ok(()) => Ok(Put::New),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            discard(&temporary);
            match read(&path, key)? {
                Some(found) => same(&path, key, bytes, &found),
                None => Err(failed("create", &path)(io::ErrorKind::AlreadyExists.into())),
            }
        }
        Err(error) => {
            discard(&temporary);
            Err(failed("create", &path)(error))
        }
    }
}

/// The object is there. Whoever wrote it may have died before its sync, so it is synced again.
fn same(path: &Path, key: &Key, bytes: &Bytes, found: &Bytes) -> Result<Put, Error> {
    if found != bytes {
        return Err(Error::Conflict { key: key.clone() });
    }
    sync(path)?;
    Ok(Put::Same)
}

fn write_incoming(folders: &Folders, bytes: &[u8]) -> Result<PathBuf, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The prefix is the one that `durable::sweep` removes.
    let temporary = folders.incoming.join(format!(".tmp-{}-{number}", process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            discard(&temporary);
            Err(failed("write", &temporary)(error))
        }
    }
}

/// A full disk must not be made fuller; the error that led here is the one to report.
fn discard(temporary: &Path) {
    let _ = std::fs::remove_file(temporary);
}

fn sync_folder_of(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), sync)
}

pub(super) fn sync(path: &Path) -> Result<(), Error> {
    match File::open(path).and_then(|file| file.sync_all()) {
        // Deleted meanwhile, with all that was in it: nothing is left to sync.
        Err(error) if is_missing(&error) => Ok(()),
        outcome => outcome.map_err(failed("sync", path)),
    }
}
