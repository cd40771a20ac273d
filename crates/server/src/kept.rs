//! What the machines of a domain have in common beside its log: objects by digest, and folders made
//! of them.
//!
//! A folder is a list of files and digests. The list is an object like the files, and one lock names
//! the newest, so that a folder changes as a whole or not at all. Each machine has a copy on its own
//! disk, which is all that reading needs. Of a domain on one machine, that copy is all there is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use stdx::{Digest, durable};
use storage::{Folder, Key, Listing, LockStore, ObjectStore, Swap, Version};

use crate::failure::Failure;

/// Names what all others of a channel hang from, so it comes last.
const LAST: &str = channel::layout::TIMESTAMP;

/// What their keys start with.
const OBJECTS: &str = "sha256/";

/// A line of about 200 bytes for each file; a channel of a thousand products has 150,000.
const LIST_BYTES_MAX: usize = 32 << 20;

/// Objects by digest, on stores that several machines share.
#[derive(Clone)]
pub struct Kept {
    objects: Arc<dyn ObjectStore>,
    locks: Arc<dyn LockStore>,
}

impl Kept {
    /// Keeps bytes in `objects`, and in `locks` which list of a folder is the newest.
    #[must_use]
    pub const fn new(objects: Arc<dyn ObjectStore>, locks: Arc<dyn LockStore>) -> Self {
        Self { objects, locks }
    }

    /// Keeps an object. Each is at most [`storage::MAX_OBJECT_BYTES`] long, and in memory meanwhile.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put(&self, bytes: Bytes) -> anyhow::Result<Digest> {
        let digest = Digest::of(&bytes);
        self.objects.put(&object(&digest)?, bytes).await?;
        Ok(digest)
    }

    /// The object of this digest, if it is kept.
    ///
    /// # Errors
    /// Those of the store; other bytes than the digest's.
    pub async fn find(&self, digest: &Digest) -> anyhow::Result<Option<Bytes>> {
        let Some(bytes) = self.objects.get(&object(digest)?).await? else { return Ok(None) };
        let found = Digest::of(&bytes);
        anyhow::ensure!(found == *digest, "object {digest} is damaged: its bytes have SHA-256 {found}");
        Ok(Some(bytes))
    }

    /// Some of the objects' keys, in order, from behind `after` on; none when there are no more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, after: Option<Key>) -> anyhow::Result<Vec<Key>> {
        let listing = Listing { folder: Folder::Root, after, limit: Listing::PAGE };
        Ok(self.objects.list(&listing).await?)
    }

    /// Whether an object that was listed holds what its key says; the inner error is what is wrong.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn check(&self, key: &Key) -> anyhow::Result<Result<(), String>> {
        let Some(named) = key.as_str().strip_prefix(OBJECTS).and_then(|name| name.parse::<Digest>().ok()) else {
            return Ok(Err("is no object's name".to_owned()));
        };
        let bytes = self.objects.get(key).await?;
        let found = bytes.map(|bytes| Digest::of(&bytes));
        Ok(if found.is_none_or(|found| found == named) { Ok(()) } else { Err("holds other bytes".to_owned()) })
    }

    async fn get(&self, digest: &Digest) -> anyhow::Result<Bytes> {
        self.find(digest).await?.with_context(|| format!("object {digest} is missing"))
    }

    async fn newest(&self, folder: &Key) -> anyhow::Result<Option<Listed>> {
        let Some(held) = self.locks.get(folder).await? else { return Ok(None) };
        let list: Digest = std::str::from_utf8(&held.bytes)?.parse()?;
        let bytes = self.get(&list).await?;
        let files: BTreeMap<String, Digest> = serde_json::from_slice(&bytes)?;
        // Names come from a store: none leads out.
        let outside = files.keys().find(|name| !is_inside(name));
        anyhow::ensure!(outside.is_none(), "list {list} names `{}`", outside.map_or("", String::as_str));
        Ok(Some(Listed { version: held.version, files }))
    }
}

fn object(digest: &Digest) -> anyhow::Result<Key> {
    Ok(format!("{OBJECTS}{digest}").parse()?)
}

/// What a folder holds.
#[derive(Clone, Debug)]
struct Listed {
    version: Version,
    files: BTreeMap<String, Digest>,
}

impl Listed {
    fn files(&self) -> impl Iterator<Item = (&String, &Digest)> {
        let last = |name: &str| name == LAST;
        self.files.iter().filter(move |(name, _)| !last(name)).chain(self.files.iter().filter(move |it| last(it.0)))
    }

    fn holds(this: Option<&Self>, name: &str, digest: &Digest) -> bool {
        this.and_then(|listed| listed.files.get(name)) == Some(digest)
    }
}

/// A folder of this machine, and of the domain's others if there are any.
pub struct KeptFolder {
    path: PathBuf,
    name: Key,
    kept: Option<Kept>,
    /// What was copied here last.
    copied: Mutex<Option<Listed>>,
}

impl KeptFolder {
    /// The folder that is called `name` everywhere, and lies at `path` here.
    ///
    /// # Errors
    /// Never: every digest makes a key.
    pub fn new(name: &str, path: PathBuf, kept: Option<Kept>) -> anyhow::Result<Self> {
        // Versions have characters that keys have not.
        let name = format!("folder/{}", Digest::of(name.as_bytes())).parse()?;
        Ok(Self { path, name, kept, copied: Mutex::default() })
    }

    /// Where it lies on this machine.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether other machines have it too.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether this machine's copy is the newest, as far as this process knows.
    ///
    /// # Errors
    /// Those of the lock store.
    pub async fn is_newest(&self) -> anyhow::Result<bool> {
        let Some(kept) = &self.kept else { return Ok(true) };
        let newest = kept.locks.get(&self.name).await?.map(|held| held.version);
        Ok(newest == self.copied().as_ref().map(|listed| listed.version.clone()))
    }

    /// Copies what is new to this machine. It may take as long as downloading all of it.
    ///
    /// # Errors
    /// When it can't be read or written; what was copied then is whole.
    pub fn pull(&self) -> anyhow::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        if wait(self.is_newest())? {
            return Ok(());
        }
        let _alone = self.alone()?;
        self.copy(kept).map(drop)
    }

    /// Lets `work` change the folder it is given: of several machines at once, one does. Nobody sees
    /// any of it before all of it is there.
    ///
    /// # Errors
    /// Those of `work`; when another machine was faster, and then nothing has changed.
    pub fn change<T>(&self, work: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let _alone = self.alone()?;
        let Some(kept) = &self.kept else { return work(&self.path) };
        let base = self.copy(kept)?;
        let next = beside(&self.path, "next");
        link_all(&self.path, &next)?;
        let done = work(&next)?;
        let Some(listed) = self.push(kept, &next, base.as_ref())? else {
            let what = format!("another machine has changed `{}` meanwhile", self.path.display());
            return Err(Failure::unavailable(what).hint("nothing was changed here; try again").into());
        };
        for (name, _) in listed.files().filter(|(name, digest)| !Listed::holds(base.as_ref(), name, digest)) {
            let path = self.path.join(name);
            make_parent(&path).and_then(|()| durable::rename(&next.join(name), &path)).with_context(at(&path))?;
        }
        *self.copied() = Some(listed);
        fs::remove_dir_all(&next).with_context(at(&next))?;
        Ok(done)
    }

    /// Gives the others what was written here. Of two machines that write one file at once, the later
    /// counts.
    ///
    /// # Errors
    /// When it can't be read or kept.
    pub fn save(&self) -> anyhow::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let _alone = self.alone()?;
        loop {
            let base = wait(kept.newest(&self.name))?;
            // Whoever loses has let another win.
            if self.push(kept, &self.path, base.as_ref())?.is_some() {
                return Ok(());
            }
        }
    }

    fn copy(&self, kept: &Kept) -> anyhow::Result<Option<Listed>> {
        let Some(newest) = wait(kept.newest(&self.name))? else { return Ok(None) };
        let before = self.copied().clone();
        for (name, digest) in newest.files() {
            let path = self.path.join(name);
            let there = if Listed::holds(before.as_ref(), name, digest) {
                path.is_file()
            } else {
                digest_of(&path)?.is_some_and(|found| found == *digest)
            };
            if !there {
                let bytes = wait(kept.get(digest)).with_context(|| format!("`{name}`"))?;
                make_parent(&path).and_then(|()| durable::write(&path, &bytes)).with_context(at(&path))?;
            }
        }
        *self.copied() = Some(newest.clone());
        Ok(Some(newest))
    }

    /// Adds the files in `from` to those of `base`, and makes that the newest list if `base` still is.
    fn push(&self, kept: &Kept, from: &Path, base: Option<&Listed>) -> anyhow::Result<Option<Listed>> {
        let mut files = base.map(|base| base.files.clone()).unwrap_or_default();
        for path in files_below(from)? {
            let name = path.strip_prefix(from)?.to_str().with_context(|| format!("`{}` is no text", path.display()))?;
            // What is the same file is not read again: a channel has gigabytes, and a change of it few bytes.
            let known = base.and_then(|base| base.files.get(name)).filter(|_| from != self.path);
            if known.is_some() && is_same_file(&path, &self.path.join(name)) {
                continue;
            }
            let digest = digest_of(&path)?.with_context(|| format!("`{}` has gone", path.display()))?;
            if !Listed::holds(base, name, &digest) {
                let bytes = fs::read(&path).with_context(at(&path))?;
                let put = wait(kept.put(bytes.into()))?;
                anyhow::ensure!(put == digest, "`{}` was changed while it was read", path.display());
                files.insert(name.to_owned(), digest);
            }
        }
        if let Some(base) = base.filter(|base| base.files == files) {
            return Ok(Some(base.clone()));
        }
        let list = serde_json::to_vec(&files)?;
        anyhow::ensure!(list.len() <= LIST_BYTES_MAX, "`{}` has too many files", from.display());
        let list = wait(kept.put(list.into()))?.to_string();
        let version = base.map(|base| &base.version);
        match wait(kept.locks.compare_and_swap(&self.name, version, list.into()))? {
            Swap::Won(version) => Ok(Some(Listed { version, files })),
            Swap::Lost => Ok(None),
        }
    }

    /// Keeps other processes of this machine out until the file is dropped.
    fn alone(&self) -> anyhow::Result<File> {
        let path = beside(&self.path, "lock");
        let lock = || {
            make_parent(&path)?;
            let file = File::create(&path)?;
            file.lock().map(|()| file)
        };
        lock().with_context(|| format!("can't lock `{}`", path.display()))
    }

    fn copied(&self) -> MutexGuard<'_, Option<Listed>> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Folders are files, and their callers may wait; stores are not.
fn wait<T, E: Into<anyhow::Error>>(work: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work)).map_err(Into::into)
}

/// `NAME.SUFFIX`, where a version `1.0` keeps its end.
fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{name}.{suffix}"))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), durable::create_folder)
}

/// A copy of `from` without its bytes. Files of both are replaced by others and never written into.
fn link_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(at(to))?;
    }
    durable::create_folder(to).with_context(at(to))?;
    for path in files_below(from)? {
        let link = to.join(path.strip_prefix(from)?);
        make_parent(&link).and_then(|()| fs::hard_link(&path, &link)).with_context(at(&link))?;
    }
    Ok(())
}

fn is_same_file(left: &Path, right: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    id(left).is_some() && id(left) == id(right)
}

/// The digest of a file, if there is one.
fn digest_of(path: &Path) -> anyhow::Result<Option<Digest>> {
    match File::open(path).and_then(Digest::of_reader) {
        Ok((digest, _)) => Ok(Some(digest)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(at(path)),
    }
}

/// All files below `folder`, in order; a missing folder has none. What is being written is none either.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(at(&folder)),
        };
        for entry in entries {
            let path = entry.with_context(at(&folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b".") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn at(path: &Path) -> impl FnOnce() -> String + '_ {
    move || format!("`{}`", path.display())
}

#[cfg(test)]
mod tests {
    use storage::{FileObjects, SqliteStore};

    use super::*;

    struct Machines {
        folder: tempfile::TempDir,
        kept: Kept,
    }

    impl Machines {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let objects = FileObjects::create(&folder.path().join("objects")).await.unwrap();
            let locks = SqliteStore::create(&folder.path().join("state")).await.unwrap();
            Self { folder, kept: Kept::new(Arc::new(objects), Arc::new(locks)) }
        }

        /// The folder as one process of a machine has it open.
        fn on(&self, machine: &str) -> KeptFolder {
            let path = self.folder.path().join(machine).join("1.0");
            KeptFolder::new("builds/a/1.0", path, Some(self.kept.clone())).unwrap()
        }
    }

    fn write(folder: &Path, file: &str, text: &str) {
        make_parent(&folder.join(file)).unwrap();
        durable::write(&folder.join(file), text.as_bytes()).unwrap();
    }

    fn read(folder: &KeptFolder, file: &str) -> Option<String> {
        fs::read_to_string(folder.path().join(file)).ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_there_for_all_or_for_nobody() {
        let machines = Machines::new().await;
        let (one, two) = (machines.on("one"), machines.on("two"));
        two.pull().unwrap();
        one.change(|folder| {
            write(folder, "metadata/1.json", "a");
            write(folder, LAST, "1");
            two.pull()?;
            assert_eq!((read(&one, LAST), read(&two, LAST)), (None, None), "before all of it is there");
            Ok(())
        })
        .unwrap();
        assert!(one.is_newest().await.unwrap() && !two.is_newest().await.unwrap());
        two.pull().unwrap();
        assert_eq!(read(&two, "metadata/1.json").as_deref(), Some("a"));

        // Of two at once, one does; the other has changed nothing, and does after a look.
        let late = two.change(|folder| {
            write(folder, LAST, "two's");
            machines.on("three").change(|folder| {
                write(folder, LAST, "2");
                Ok(())
            })
        });
        assert!(format!("{:#}", late.unwrap_err()).contains("another machine has changed"));
        assert_eq!(read(&two, LAST).as_deref(), Some("1"));
        let failed: anyhow::Result<()> = one.change(|folder| {
            write(folder, LAST, "half");
            anyhow::bail!("it dies here")
        });
        assert!(failed.is_err());
        for folder in [&one, &two] {
            folder.pull().unwrap();
            assert_eq!(read(folder, LAST).as_deref(), Some("2"));
        }
        two.change(|folder| {
            assert_eq!(fs::read_to_string(folder.join(LAST))?, "2", "and nothing of what was given up");
            write(folder, LAST, "3");
            Ok(())
        })
        .unwrap();
        one.pull().unwrap();
        assert_eq!(read(&one, LAST).as_deref(), Some("3"));
        // Links leave no way from a change into what is served.
        assert_eq!(read(&machines.on("three"), LAST).as_deref(), Some("2"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_machines_write_comes_together() {
        let machines = Machines::new().await;
        let (one, two) = (machines.on("one"), machines.on("two"));
        write(one.path(), "record.json", "one's");
        one.save().unwrap();
        write(two.path(), "approvals/a.bundle", "an approval");
        two.pull().unwrap();
        two.save().unwrap();
        one.pull().unwrap();
        assert_eq!(read(&one, "approvals/a.bundle").as_deref(), Some("an approval"));
        assert_eq!(read(&two, "record.json").as_deref(), Some("one's"));
        // What a disk has lost comes back; what a hand has changed does too.
        fs::remove_file(two.path().join("record.json")).unwrap();
        write(two.path(), "approvals/a.bundle", "a hand's");
        machines.on("two").pull().unwrap();
        assert_eq!(read(&two, "record.json").as_deref(), Some("one's"));
        assert_eq!(read(&two, "approvals/a.bundle").as_deref(), Some("an approval"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_bytes_than_listed_are_not_taken() {
        let machines = Machines::new().await;
        let one = machines.on("one");
        write(one.path(), "record.json", "good");
        one.save().unwrap();
        let object = format!("objects/objects/{OBJECTS}{}", Digest::of(b"good"));
        durable::write(&machines.folder.path().join(object), b"evil").unwrap();
        let two = machines.on("two");
        assert!(format!("{:#}", two.pull().unwrap_err()).contains("is damaged"));
        assert_eq!(read(&two, "record.json"), None);
        for outside in ["../x", "/x", ""] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
