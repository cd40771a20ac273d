//! Sources as canonical trees: from a folder, a git commit or an archive; to a tar for the sandbox.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use crate::archive::{ArchiveError, Naming, Sink, unpack_tar};
use crate::content::{ContentError, ContentStore};
use crate::tool::{GIT, ToolError};
use attest::tree::{Links, MANIFEST_BYTES_MAX, Mode, Node, Tree, TreeError, TreePath};

/// Largest file of a source; git hosts refuse files of more than 100 MB to 2 GB.
pub(crate) const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// A source that cannot be read or is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A name, link or clash in the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The content store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The archive it came in.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// git, which reads repositories for us.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file operation failed.
    #[error("cannot read {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device, socket or pipe.
    #[error("{0} is neither a file, a folder nor a link")]
    Kind(PathBuf),
    /// A commit with something that is not its own content.
    #[error("{path} is a {kind}, which is not part of the commit's own content")]
    Submodule {
        /// Where.
        path: String,
        /// What git calls it.
        kind: String,
    },
    /// The commit has nothing at a path that the recipe includes.
    #[error("the commit has no `{0}`, which the recipe includes")]
    Missing(TreePath),
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> SourceError + '_ {
    move |source| SourceError::Io { path: path.to_owned(), source }
}

/// Where a git source comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitOrigin {
    /// The commit, in hexadecimal.
    pub commit: String,
    /// Its tree, in hexadecimal.
    pub tree: String,
}

impl GitOrigin {
    /// What `revision` means in the git repository at `repository` now.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn of(repository: &Path, revision: &GitRevision) -> Result<Self, SourceError> {
        let parse = |what: &str| -> Result<String, SourceError> {
            let wanted = format!("{}^{{{what}}}", revision.0);
            let answer = GIT.text(git(repository).args(["rev-parse", "--verify", "--end-of-options", &wanted]))?;
            let id = answer.trim().to_owned();
            if id.bytes().all(|b| b.is_ascii_hexdigit()) { Ok(id) } else { Err(GIT.answer(&id).into()) }
        };
        Ok(Self { commit: parse("commit")?, tree: parse("tree")? })
    }
}

/// A source: its tree, whose files lie in the content store.
#[derive(Clone, Debug)]
pub struct Source {
    /// The tree.
    pub tree: Tree,
    /// SHA-256 of its manifest, which lies in the store too.
    pub digest: Digest,
    /// The commit, if it is one.
    pub git: Option<GitOrigin>,
}

impl Source {
    fn store(tree: Tree, git: Option<GitOrigin>, store: &ContentStore) -> Result<Self, SourceError> {
        let object = store.put(tree.to_manifest().as_bytes())?;
        Ok(Self { tree, digest: object.digest, git })
    }

    /// Everything in `folder`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn from_folder(folder: &Path, store: &ContentStore) -> Result<Self, SourceError> {
        let tree = capture_folder(folder, Links::Inside, Some(store))?;
        Self::store(tree, None, store)
    }

    /// The commit `revision` of the git repository at `repository`; only `include`, if not empty.
    /// Files come from the commit, never from the work tree.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn from_git(
        repository: &Path,
        revision: &GitRevision,
        include: &[TreePath],
        store: &ContentStore,
    ) -> Result<Self, SourceError> {
        let origin = GitOrigin::of(repository, revision)?;
        let mut listing = git(repository);
        listing.args(["ls-tree", "-r", "-z", "--full-tree", &origin.commit]);
        let listing = GIT.text(&mut listing)?;
        let mut tree = Tree::new(Links::Inside);
        let mut seen = vec![false; include.len()];
        for line in listing.split_terminator('\0') {
            let entry = GitEntry::parse(line)?;
            if !include.is_empty() {
                let Some(number) = include.iter().position(|prefix| is_below(&entry.path, prefix)) else { continue };
                if let Some(seen) = seen.get_mut(number) {
                    *seen = true;
                }
            }
            let bytes = GIT.output(git(repository).args(["cat-file", "blob", &entry.blob]))?;
            let node = if entry.mode == "120000" {
                Node::Link { target: String::from_utf8_lossy(&bytes).into_owned() }
            } else {
                let object = store.put(&bytes)?;
                let mode = if entry.mode == "100755" { Mode::Executable } else { Mode::Plain };
                Node::File { mode, digest: object.digest, size: object.size }
            };
            tree.insert(entry.path, node)?;
        }
        if let Some((path, _)) = include.iter().zip(&seen).find(|(_, seen)| !**seen) {
            return Err(SourceError::Missing(path.clone()));
        }
        Self::store(tree, Some(origin), store)
    }

    /// The files of `archive` (tar, compressed or not) without its first folder.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn from_archive(name: &str, archive: impl Read, store: &ContentStore) -> Result<Self, SourceError> {
        let mut sink = StoreSink { tree: Tree::new(Links::Inside), store };
        unpack_tar(name, archive, Naming::WithoutFirst, &mut sink)?;
        let tree = sink.tree;
        Self::store(tree, None, store)
    }

    /// These objects as files of one folder.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn from_objects(
        files: impl IntoIterator<Item = (String, crate::content::Object)>,
        store: &ContentStore,
    ) -> Result<Self, SourceError> {
        let mut tree = Tree::new(Links::Inside);
        for (name, object) in files {
            let node = Node::File { mode: Mode::Plain, digest: object.digest, size: object.size };
            tree.insert(TreePath::new(&name)?, node)?;
        }
        Self::store(tree, None, store)
    }

    /// The source that was stored under this digest.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn load(digest: &Digest, store: &ContentStore) -> Result<Self, SourceError> {
        let manifest = store.get(digest, MANIFEST_BYTES_MAX)?;
        let text = String::from_utf8(manifest).map_err(|_| TreeError::Manifest { line: 1 })?;
        Ok(Self { tree: Tree::from_manifest(&text, Links::Inside)?, digest: *digest, git: None })
    }

    /// One file's bytes.
    ///
    /// # Errors
    /// [`SourceError::Missing`] if there is no such file; [`SourceError::Content`].
    pub fn read(&self, path: &TreePath, store: &ContentStore, limit: u64) -> Result<Vec<u8>, SourceError> {
        match self.tree.get(path) {
            Some(Node::File { digest, .. }) => Ok(store.get(digest, limit)?),
            _ => Err(SourceError::Missing(path.clone())),
        }
    }
}

/// What a person names a commit by; `git` resolves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitRevision(pub String);

struct GitEntry {
    mode: String,
    blob: String,
    path: TreePath,
}

impl GitEntry {
    /// `MODE TYPE ID<tab>PATH`, as `git ls-tree -z` writes it.
    fn parse(line: &str) -> Result<Self, SourceError> {
        let (head, path) = line.split_once('\t').ok_or_else(|| GIT.answer(line))?;
        let mut fields = head.split(' ');
        let (Some(mode), Some(kind), Some(blob)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(GIT.answer(line).into());
        };
        if kind != "blob" {
            return Err(SourceError::Submodule { path: path.to_owned(), kind: kind.to_owned() });
        }
        Ok(Self { mode: mode.to_owned(), blob: blob.to_owned(), path: TreePath::new(path)? })
    }
}

fn git(repository: &Path) -> std::process::Command {
    let mut command = GIT.command();
    // A hostile repository must not run its own filters or hooks; none of these commands does.
    command.arg("-C").arg(repository).args(["--no-replace-objects", "-c", "safe.directory=*"]);
    command
}

fn is_below(path: &TreePath, prefix: &TreePath) -> bool {
    path.as_str().strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The canonical tree of a folder; its files go to `store`, if one is given.
///
/// # Errors
/// [`SourceError`].
pub fn capture_folder(folder: &Path, links: Links, store: Option<&ContentStore>) -> Result<Tree, SourceError> {
    let mut tree = Tree::new(links);
    let mut pending = vec![(folder.to_owned(), None::<TreePath>)];
    while let Some((on_disk, inside)) = pending.pop() {
        for entry in fs::read_dir(&on_disk).map_err(io_at(&on_disk))? {
            let entry = entry.map_err(io_at(&on_disk))?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| TreeError::Path {
                path: String::from_utf8_lossy(name.as_bytes()).into_owned(),
                reason: "it is not UTF-8",
            })?;
            let path = match &inside {
                Some(inside) => TreePath::new(&format!("{inside}/{name}"))?,
                None => TreePath::new(name)?,
            };
            let on_disk = entry.path();
            let metadata = fs::symlink_metadata(&on_disk).map_err(io_at(&on_disk))?;
            let kind = metadata.file_type();
            let node = if kind.is_dir() {
                pending.push((on_disk, Some(path.clone())));
                Node::Folder
            } else if kind.is_symlink() {
                let target = fs::read_link(&on_disk).map_err(io_at(&on_disk))?;
                Node::Link { target: target.to_string_lossy().into_owned() }
            } else if kind.is_file() {
                let file = File::open(&on_disk).map_err(io_at(&on_disk))?;
                let (digest, size) = match store {
                    Some(store) => {
                        let object = store.put_reader(path.as_str(), file, FILE_BYTES_MAX)?;
                        (object.digest, object.size)
                    }
                    None => Digest::of_reader(file.take(FILE_BYTES_MAX)).map_err(io_at(&on_disk))?,
                };
                Node::File { mode: Mode::from_bits(metadata.permissions().mode()), digest, size }
            } else {
                return Err(SourceError::Kind(on_disk));
            };
            tree.insert(path, node)?;
        }
    }
    Ok(tree)
}

/// Unpacks into a tree and a content store.
struct StoreSink<'s> {
    tree: Tree,
    store: &'s ContentStore,
}

impl Sink for StoreSink<'_> {
    type Error = SourceError;

    fn folder(&mut self, path: TreePath) -> Result<(), SourceError> {
        Ok(self.tree.insert(path, Node::Folder)?)
    }

    fn file(&mut self, path: TreePath, mode: Mode, reader: &mut dyn Read) -> Result<(), SourceError> {
        let object = self.store.put_reader(path.as_str(), reader, FILE_BYTES_MAX)?;
        Ok(self.tree.insert(path, Node::File { mode, digest: object.digest, size: object.size })?)
    }

    fn link(&mut self, path: TreePath, target: &str) -> Result<(), SourceError> {
        Ok(self.tree.insert(path, Node::Link { target: target.to_owned() })?)
    }

    fn hard_link(&mut self, path: TreePath, target: TreePath) -> Result<(), SourceError> {
        match self.tree.get(&target) {
            Some(node @ Node::File { .. }) => {
                let node = node.clone();
                Ok(self.tree.insert(path, node)?)
            }
            _ => Err(SourceError::Missing(target)),
        }
    }
}

/// In which order files are made, and so (on a memory file system) in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// By name.
    Ascending,
    /// By name, backwards.
    Descending,
}

/// Writes the tree as a tar archive: owner 0, modes 0644 and 0755, one time for everything.
///
/// # Errors
/// [`SourceError::Content`]; [`SourceError::Io`] naming `to`.
pub fn write_tar(
    tree: &Tree,
    store: &ContentStore,
    modified: UnixTime,
    order: Order,
    to: &Path,
) -> Result<(), SourceError> {
    let file = File::create(to).map_err(io_at(to))?;
    let mut tar = tar::Builder::new(io::BufWriter::new(file));
    let nodes: Vec<_> = match order {
        Order::Ascending => tree.iter().collect(),
        // Folders first all the same: `tar` would make them with today's time otherwise.
        Order::Descending => {
            let is_folder = |node: &Node| matches!(node, Node::Folder);
            let folders = tree.iter().filter(|(_, node)| is_folder(node));
            folders.chain(tree.iter().rev().filter(|(_, node)| !is_folder(node))).collect()
        }
    };
    for (path, node) in nodes {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(modified.seconds());
        header.set_mode(0o755);
        header.set_size(0);
        match node {
            Node::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, path.as_str(), io::empty()).map_err(io_at(to))?;
            }
            Node::File { mode, digest, size } => {
                header.set_mode(mode.bits());
                header.set_size(*size);
                tar.append_data(&mut header, path.as_str(), store.open_object(digest)?).map_err(io_at(to))?;
            }
            Node::Link { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path.as_str(), target).map_err(io_at(to))?;
            }
        }
    }
    let mut writer = tar.into_inner().map_err(io_at(to))?;
    writer.flush().map_err(io_at(to))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn store() -> (tempfile::TempDir, ContentStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::create(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn example(folder: &Path) -> PathBuf {
        let source = folder.join("source");
        fs::create_dir_all(source.join("src/empty")).unwrap();
        stdx::durable::write(&source.join("src/main.c"), b"int main;").unwrap();
        stdx::durable::write(&source.join("configure"), b"#!/bin/sh").unwrap();
        fs::set_permissions(source.join("configure"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("src/main.c", source.join("link")).unwrap();
        source
    }

    #[test]
    fn a_folder_its_tar_and_its_record_have_one_digest() {
        let (folder, store) = store();
        let source = Source::from_folder(&example(folder.path()), &store).unwrap();
        for order in [Order::Ascending, Order::Descending] {
            let tar = folder.path().join("tar");
            write_tar(&source.tree, &store, UnixTime::from_seconds(7), order, &tar).unwrap();
            let mut sink = StoreSink { tree: Tree::new(Links::Inside), store: &store };
            unpack_tar("tar", File::open(&tar).unwrap(), Naming::Whole, &mut sink).unwrap();
            assert_eq!(sink.tree.digest(), source.digest);
        }
        assert_eq!(Source::load(&source.digest, &store).unwrap().tree, source.tree);
    }

    #[test]
    fn links_out_and_devices_are_refused() {
        let (folder, store) = store();
        let path = example(folder.path());
        symlink("/etc/passwd", path.join("out")).unwrap();
        let error = Source::from_folder(&path, &store).unwrap_err();
        assert!(matches!(error, SourceError::Tree(TreeError::Escapes { .. })), "{error}");
        fs::remove_file(path.join("out")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        assert!(matches!(Source::from_folder(&path, &store), Err(SourceError::Kind(_))));
    }

    #[test]
    fn hostile_archives_are_refused() {
        let (_folder, store) = store();
        let tar_of = |path: &str, kind: tar::EntryType, target: &str| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_entry_type(kind);
            // The setters refuse such names, so the bytes are written directly.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
            tar.into_inner().unwrap()
        };
        for (path, kind, target) in [
            ("p/../../etc/x", tar::EntryType::Regular, ""),
            ("/etc/x", tar::EntryType::Symlink, "/etc"),
            ("p/x", tar::EntryType::Symlink, "../.."),
            ("p/x", tar::EntryType::Link, "p/missing"),
            ("p/x", tar::EntryType::Block, ""),
            ("p/x", tar::EntryType::Fifo, ""),
            ("p/x\ny", tar::EntryType::Regular, ""),
        ] {
            let result = Source::from_archive("hostile", tar_of(path, kind, target).as_slice(), &store);
            assert!(result.is_err(), "{path} {kind:?}");
        }
        let cut = &tar_of("p/x", tar::EntryType::Regular, "")[..300];
        assert!(Source::from_archive("cut", cut, &store).is_err());
    }

    #[test]
    fn a_commit_is_read_without_the_work_tree() {
        let (folder, store) = store();
        let repository = example(folder.path());
        let run = |arguments: &[&str]| {
            let mut command = git(&repository);
            command.args(["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]);
            GIT.text(command.args(arguments)).unwrap()
        };
        run(&["init", "-q"]);
        run(&["add", "."]);
        run(&["commit", "-q", "-m", "one"]);
        stdx::durable::write(&repository.join("src/main.c"), b"changed").unwrap();
        let head = GitRevision("HEAD".to_owned());
        let source = Source::from_git(&repository, &head, &[], &store).unwrap();
        let path = TreePath::new("src/main.c").unwrap();
        assert_eq!(source.read(&path, &store, 100).unwrap(), b"int main;");
        assert_eq!(source.git.unwrap().commit, run(&["rev-parse", "HEAD"]).trim());
        let part = Source::from_git(&repository, &head, &[TreePath::new("src").unwrap()], &store).unwrap();
        assert_eq!(part.tree.len(), 2);
        let missing = Source::from_git(&repository, &head, &[TreePath::new("sr").unwrap()], &store);
        assert!(matches!(missing, Err(SourceError::Missing(_))));
        assert!(Source::from_git(&repository, &GitRevision("--help".to_owned()), &[], &store).is_err());
    }
}
