//! A tree of rules in memory: what is logged as the source, and what both builders assemble from.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use attest::tree::{Links, Mode, Node, Tree, TreeError, TreePath};
use reputation::{ListError, parse_list};
use stdx::Digest;

use super::git;
use super::settings::{FILE_BYTES_MAX, SETTINGS_FILE, Settings, SettingsError};
use crate::worker::RulesFile;

/// Most files of a tree: a real one has 742.
pub const TREE_FILES_MAX: usize = 20_000;
/// All files of a tree together: nine times a real one (7 MB).
pub const TREE_BYTES_MAX: u64 = 64 << 20;

/// A tree of rules that can't be read or is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RulesTreeError {
    /// A file or folder can't be read.
    #[error("cannot read {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that is refused, or a manifest that is not canonical.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Something that a tree of rules can't hold.
    #[error("`{path}` is {kind}, which a tree of rules can't hold")]
    Kind {
        /// Where.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// One file is too large.
    #[error("`{path}` is larger than {FILE_BYTES_MAX} bytes")]
    FileTooLarge {
        /// Which.
        path: String,
    },
    /// All together are too many or too large.
    #[error("the tree has more than {TREE_FILES_MAX} files or {TREE_BYTES_MAX} bytes")]
    TooLarge,
    /// There is no `rules.toml`.
    #[error("the tree has no {SETTINGS_FILE} at its root")]
    NoSettings,
    /// Neither rules nor lists: somebody named the wrong folder.
    #[error("the tree has no file of rules that {SETTINGS_FILE} names, and no list of hashes")]
    Empty,
    /// The settings are not accepted.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A list of hashes that is none.
    #[error("`{path}`: {source}")]
    List {
        /// Which.
        path: String,
        /// What is wrong, and in which line.
        source: ListError,
    },
    /// Bytes that are not those that the manifest names.
    #[error("`{path}` is not the file that the manifest names")]
    Content {
        /// Which.
        path: String,
    },
    /// git failed.
    #[error("git failed: {0}")]
    Git(String),
}

/// A tree of rules. Its digest is that of its manifest, as the tree manifest in `docs/formats/build.md`.
#[derive(Clone, Debug)]
pub struct RulesTree {
    tree: Tree,
    contents: BTreeMap<Digest, Vec<u8>>,
    settings: Settings,
    hashes: Vec<Digest>,
    commit: Option<String>,
}

impl RulesTree {
    /// Reads the folder as it is. A `.git` at its root is no part of it.
    ///
    /// # Errors
    /// [`RulesTreeError`].
    pub fn from_folder(folder: &Path) -> Result<Self, RulesTreeError> {
        let mut gathered = Gathered::default();
        let mut pending = vec![(folder.to_owned(), None::<TreePath>)];
        while let Some((on_disk, inside)) = pending.pop() {
            let at = |path: &Path| {
                let path = path.to_owned();
                move |source| RulesTreeError::Io { path, source }
            };
            for entry in fs::read_dir(&on_disk).map_err(at(&on_disk))? {
                let entry = entry.map_err(at(&on_disk))?;
                let name = entry.file_name();
                let name = std::str::from_utf8(name.as_bytes()).map_err(|_| RulesTreeError::Kind {
                    path: name.to_string_lossy().into_owned(),
                    kind: "a name that is not UTF-8",
                })?;
                if inside.is_none() && name == ".git" {
                    continue;
                }
                let path = match &inside {
                    Some(inside) => TreePath::new(&format!("{inside}/{name}"))?,
                    None => TreePath::new(name)?,
                };
                let on_disk = entry.path();
                let metadata = fs::symlink_metadata(&on_disk).map_err(at(&on_disk))?;
                if metadata.is_dir() {
                    gathered.folder(path.clone())?;
                    pending.push((on_disk, Some(path)));
                } else if metadata.is_file() {
                    let mut bytes = Vec::new();
                    let file = fs::File::open(&on_disk).map_err(at(&on_disk))?;
                    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(at(&on_disk))?;
                    gathered.file(path, Mode::from_bits(metadata.permissions().mode()), bytes)?;
                } else {
                    let kind = if metadata.is_symlink() { "a link" } else { "no file or folder" };
                    return Err(RulesTreeError::Kind { path: path.to_string(), kind });
                }
            }
        }
        gathered.finish(None)
    }

    /// Reads a commit's files, never the work tree's. The commit is whatever git makes of `revision`.
    ///
    /// # Errors
    /// [`RulesTreeError`].
    pub fn from_commit(repository: &Path, revision: &Revision) -> Result<Self, RulesTreeError> {
        let mut gathered = Gathered::default();
        let commit = git::read(repository, &revision.0, &mut |path, mode, bytes| gathered.file(path, mode, bytes))?;
        gathered.finish(Some(commit))
    }

    /// The tree of a manifest whose files the caller has, or was sent, by digest. `read` gives a file's
    /// bytes; what is not what the manifest names is refused.
    ///
    /// # Errors
    /// [`RulesTreeError`].
    pub fn from_manifest(
        manifest: &str,
        mut read: impl FnMut(&Digest) -> io::Result<Vec<u8>>,
    ) -> Result<Self, RulesTreeError> {
        let tree = parse_manifest(manifest)?;
        let mut gathered = Gathered::default();
        for (path, node) in tree.iter() {
            match node {
                Node::Folder => gathered.folder(path.clone())?,
                Node::File { mode, digest, .. } => {
                    let bytes = match gathered.contents.get(digest) {
                        Some(known) => known.clone(),
                        None => read(digest)
                            .map_err(|source| RulesTreeError::Io { path: PathBuf::from(path.as_str()), source })?,
                    };
                    gathered.file(path.clone(), *mode, bytes)?;
                    if gathered.tree.get(path) != Some(node) {
                        return Err(RulesTreeError::Content { path: path.to_string() });
                    }
                }
                Node::Link { .. } => return Err(link(path)),
            }
        }
        gathered.finish(None)
    }

    /// The tree's digest: the subject of its source statement.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.tree.digest()
    }

    /// The tree manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        self.tree.to_manifest()
    }

    /// The commit that it was read from.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// What its `rules.toml` says.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The SHA-256 of its `rules.toml`: the recipe of a release of rules.
    #[must_use]
    pub fn recipe(&self) -> Option<Digest> {
        match self.tree.get(&TreePath::new(SETTINGS_FILE).ok()?) {
            Some(Node::File { digest, .. }) => Some(*digest),
            _ => None,
        }
    }

    /// The bytes of the file with this digest.
    #[must_use]
    pub fn content(&self, digest: &Digest) -> Option<&[u8]> {
        self.contents.get(digest).map(Vec::as_slice)
    }

    /// Its distinct contents, by digest.
    pub fn contents(&self) -> impl Iterator<Item = (&Digest, &[u8])> {
        self.contents.iter().map(|(digest, bytes)| (digest, bytes.as_slice()))
    }

    /// The hashes of all its lists, sorted, each once.
    #[must_use]
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// What is handed to the assembler: the settings, the notice and every source, by path.
    #[must_use]
    pub fn sources(&self) -> Vec<RulesFile> {
        let taken = |path: &str| {
            path == SETTINGS_FILE || path == self.settings.notice.as_str() || self.settings.is_source(path)
        };
        let files = self.tree.iter().filter_map(|(path, node)| match node {
            Node::File { digest, .. } if taken(path.as_str()) => {
                Some(RulesFile { path: path.to_string(), bytes: self.contents.get(digest)?.clone() })
            }
            _ => None,
        });
        files.collect()
    }
}

/// What a person names a commit by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(pub String);

/// The tree of a manifest that a tree of rules can have; which of its files are at hand is not asked.
///
/// # Errors
/// [`RulesTreeError`].
pub fn parse_manifest(manifest: &str) -> Result<Tree, RulesTreeError> {
    let tree = Tree::from_manifest(manifest, Links::Inside)?;
    let (mut files, mut bytes) = (0_usize, 0_u64);
    for (path, node) in tree.iter() {
        match node {
            Node::Folder => {}
            Node::File { size, .. } if *size > FILE_BYTES_MAX => {
                return Err(RulesTreeError::FileTooLarge { path: path.to_string() });
            }
            Node::File { size, .. } => {
                files = files.saturating_add(1);
                bytes = bytes.saturating_add(*size);
            }
            Node::Link { .. } => return Err(link(path)),
        }
    }
    if files > TREE_FILES_MAX || bytes > TREE_BYTES_MAX { Err(RulesTreeError::TooLarge) } else { Ok(tree) }
}

fn link(path: &TreePath) -> RulesTreeError {
    RulesTreeError::Kind { path: path.to_string(), kind: "a link" }
}

struct Gathered {
    tree: Tree,
    contents: BTreeMap<Digest, Vec<u8>>,
    files: usize,
    bytes: u64,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { tree: Tree::new(Links::Inside), contents: BTreeMap::new(), files: 0, bytes: 0 }
    }
}

impl Gathered {
    fn folder(&mut self, path: TreePath) -> Result<(), RulesTreeError> {
        // Folders count as files do: a tree of nothing else must end, too.
        self.count(0)?;
        Ok(self.tree.insert(path, Node::Folder)?)
    }

    fn file(&mut self, path: TreePath, mode: Mode, bytes: Vec<u8>) -> Result<(), RulesTreeError> {
        let size = bytes.len() as u64;
        if size > FILE_BYTES_MAX {
            return Err(RulesTreeError::FileTooLarge { path: path.to_string() });
        }
        self.count(size)?;
        let digest = Digest::of(&bytes);
        self.tree.insert(path, Node::File { mode, digest, size })?;
        self.contents.insert(digest, bytes);
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), RulesTreeError> {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        let fits = self.files <= TREE_FILES_MAX && self.bytes <= TREE_BYTES_MAX;
        if fits { Ok(()) } else { Err(RulesTreeError::TooLarge) }
    }

    fn finish(self, commit: Option<String>) -> Result<RulesTree, RulesTreeError> {
        let settings = match self.tree.get(&TreePath::new(SETTINGS_FILE)?) {
            Some(Node::File { digest, .. }) => self.contents.get(digest),
            _ => None,
        };
        let text = std::str::from_utf8(settings.ok_or(RulesTreeError::NoSettings)?)
            .map_err(|_| SettingsError::Syntax("it is not UTF-8".to_owned()))?;
        let settings = Settings::parse(text)?;
        let notice = self.tree.get(&settings.notice);
        if !matches!(notice, Some(Node::File { .. })) {
            let problem = format!("names `{}`, and the tree has no such file", settings.notice);
            return Err(SettingsError::Field { field: "notice", problem }.into());
        }
        let is_one = |path: &str| settings.is_source(path) || Settings::is_list(path);
        if !self.tree.iter().any(|(path, node)| matches!(node, Node::File { .. }) && is_one(path.as_str())) {
            return Err(RulesTreeError::Empty);
        }
        let mut hashes = Vec::new();
        for (path, node) in self.tree.iter().filter(|(path, _)| Settings::is_list(path.as_str())) {
            let Node::File { digest, .. } = node else { continue };
            let list = self.contents.get(digest).map(Vec::as_slice).unwrap_or_default();
            let list = parse_list(list).map_err(|source| RulesTreeError::List { path: path.to_string(), source })?;
            hashes.extend(list);
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(RulesTree { tree: self.tree, contents: self.contents, settings, hashes, commit })
    }
}
