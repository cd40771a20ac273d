//! The canonical form of a folder: names, executable bits, link targets and digests, nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fmt, str};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use stdx::Digest;

/// Longest path inside a tree: what Linux accepts (`PATH_MAX`, 4,096) less the folder it is put into.
const PATH_BYTES_MAX: usize = 3_072;
/// Longest single name, as in Linux (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// Most nodes in a tree. A Rust toolchain's environment has about 30,000, a large source 100,000.
pub const NODES_MAX: usize = 400_000;
/// Longest manifest: 400,000 nodes of about 150 bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// First line of a manifest.
pub const MANIFEST_HEADER: &str = "clerestory-tree-v1";

/// A tree, or a name or link in it, that we do not accept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// A name that some tool would misread.
    #[error("`{path}` is not an acceptable path: {reason}")]
    Path {
        /// The path, shortened and without control characters.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A link that leads out of the tree.
    #[error("the link `{path}` leads to `{target}`, out of the tree")]
    Escapes {
        /// Where the link is.
        path: TreePath,
        /// Where it points.
        target: String,
    },
    /// Two nodes with one path, or a node below something that is not a folder.
    #[error("`{0}` stands in the tree twice, or below something that is not a folder")]
    Clash(TreePath),
    /// Too many nodes.
    #[error("the tree has more than {NODES_MAX} files and folders")]
    TooMany,
    /// A text that is not a canonical manifest.
    #[error("line {line} of the manifest is not canonical")]
    Manifest {
        /// Counted from 1.
        line: usize,
    },
}

/// A relative path of ordinary names: UTF-8, no control characters, no `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);

impl TreePath {
    /// Checks `path`; one leading `./` and one trailing `/`, as archives write them, are dropped.
    ///
    /// # Errors
    /// [`TreeError::Path`].
    pub fn new(path: &str) -> Result<Self, TreeError> {
        let refuse = |reason| TreeError::Path { path: shown(path), reason };
        let trimmed = path.strip_prefix("./").unwrap_or(path);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.len() > PATH_BYTES_MAX {
            return Err(refuse("it is too long"));
        }
        if trimmed.chars().any(char::is_control) {
            return Err(refuse("it has a control character"));
        }
        for name in trimmed.split('/') {
            match name {
                "" => return Err(refuse("it is absolute or has an empty name")),
                "." | ".." => return Err(refuse("it has a `.` or `..`")),
                name if name.len() > NAME_BYTES_MAX => return Err(refuse("a name in it is too long")),
                _ => {}
            }
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that holds it, unless that is the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(folder, _)| Self(folder.to_owned()))
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Where it lies under `folder` on this machine.
    #[must_use]
    pub fn under(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl str::FromStr for TreePath {
    type Err = TreeError;

    fn from_str(text: &str) -> Result<Self, TreeError> {
        Self::new(text)
    }
}

fn shown(path: &str) -> String {
    path.chars().take(120).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Whether a file may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// 0644.
    Plain,
    /// 0755.
    Executable,
}

impl Mode {
    /// From permission bits: executable if its owner may execute it.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        if bits & 0o100 == 0 { Self::Plain } else { Self::Executable }
    }

    /// The permission bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder (0755).
    Folder,
    /// A file.
    File {
        /// Whether it may be run.
        mode: Mode,
        /// SHA-256 of its bytes.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
}

/// Where links may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Relative, and not out of the tree: sources.
    Inside,
    /// Also absolute, then meaning the tree's own root: root file systems.
    Rooted,
}

/// A whole tree. Its identity is the SHA-256 of its manifest, which has one form only:
/// a header, then a line for each node sorted by path (bytewise), fields parted by tabs:
/// `d PATH`, `f DIGEST SIZE PATH`, `x DIGEST SIZE PATH` (executable), `l TARGET PATH`.
/// The root itself is not listed; every other folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    links: Links,
    nodes: BTreeMap<TreePath, Node>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub const fn new(links: Links) -> Self {
        Self { links, nodes: BTreeMap::new() }
    }

    /// Adds `node` at `path` and the folders above it. A folder may be added again.
    ///
    /// # Errors
    /// [`TreeError::Clash`], [`TreeError::Escapes`], [`TreeError::Path`] (a target), [`TreeError::TooMany`].
    pub fn insert(&mut self, path: TreePath, node: Node) -> Result<(), TreeError> {
        if let Node::Link { target } = &node {
            check_link(&path, target, self.links)?;
        }
        if let Some(folder) = path.parent() {
            match self.nodes.get(&folder) {
                Some(Node::Folder) => {}
                Some(_) => return Err(TreeError::Clash(path)),
                None => self.insert(folder, Node::Folder)?,
            }
        }
        match self.nodes.get(&path) {
            Some(Node::Folder) if node == Node::Folder => return Ok(()),
            Some(_) => return Err(TreeError::Clash(path)),
            None => {}
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(TreeError::TooMany);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Takes a file or link out; folders stay.
    pub fn remove_leaf(&mut self, path: &TreePath) -> Option<Node> {
        match self.nodes.get(path) {
            Some(Node::Folder) | None => None,
            Some(_) => self.nodes.remove(path),
        }
    }

    /// The node at `path`, no link followed.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Everything, sorted by path; a folder comes before what is in it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// How many nodes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_manifest().as_bytes())
    }

    /// The canonical manifest.
    #[must_use]
    pub fn to_manifest(&self) -> String {
        let mut text = format!("{MANIFEST_HEADER}\n");
        for (path, node) in &self.nodes {
            // Writing to a String cannot fail.
            let _ = match node {
                Node::Folder => writeln!(text, "d\t{path}"),
                Node::File { mode: Mode::Plain, digest, size } => writeln!(text, "f\t{digest}\t{size}\t{path}"),
                Node::File { mode: Mode::Executable, digest, size } => writeln!(text, "x\t{digest}\t{size}\t{path}"),
                Node::Link { target } => writeln!(text, "l\t{target}\t{path}"),
            };
        }
        text
    }

    /// Reads a manifest; only the canonical form is accepted.
    ///
    /// # Errors
    /// Any [`TreeError`].
    pub fn from_manifest(text: &str, links: Links) -> Result<Self, TreeError> {
        let mut tree = Self::new(links);
        let mut lines = text.split_terminator('\n').enumerate();
        if lines.next().map(|(_, header)| header) != Some(MANIFEST_HEADER) {
            return Err(TreeError::Manifest { line: 1 });
        }
        for (number, line) in lines {
            let refuse = || TreeError::Manifest { line: number.saturating_add(1) };
            let fields: Vec<&str> = line.split('\t').collect();
            let (path, node) = match fields.as_slice() {
                ["d", path] => (path, Node::Folder),
                [kind @ ("f" | "x"), digest, size, path] => {
                    let mode = if *kind == "x" { Mode::Executable } else { Mode::Plain };
                    let digest = digest.parse().map_err(|_| refuse())?;
                    let size = size.parse().map_err(|_| refuse())?;
                    (path, Node::File { mode, digest, size })
                }
                ["l", target, path] => (path, Node::Link { target: (*target).to_owned() }),
                _ => return Err(refuse()),
            };
            tree.insert(TreePath::new(path)?, node)?;
        }
        // What we would write is the only thing we read: order, spelling and parents included.
        if tree.to_manifest() == text { Ok(tree) } else { Err(TreeError::Manifest { line: 0 }) }
    }
}

fn check_link(path: &TreePath, target: &str, links: Links) -> Result<(), TreeError> {
    if target.is_empty() || target.len() > PATH_BYTES_MAX || target.chars().any(char::is_control) {
        return Err(TreeError::Path {
            path: shown(target),
            reason: "a link says so, and it is empty, too long or odd",
        });
    }
    let escapes = || TreeError::Escapes { path: path.clone(), target: shown(target) };
    if target.starts_with('/') {
        return if links == Links::Rooted { Ok(()) } else { Err(escapes()) };
    }
    // A root file system's root is its own parent, so that only sources can be left by `..`.
    if links == Links::Rooted {
        return Ok(());
    }
    // Folders above a node are real, so leading `..` mean what they say. After a name, which may be
    // another link, they could lead anywhere.
    let mut depth = path.as_str().matches('/').count();
    let mut named = false;
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." if named => return Err(escapes()),
            ".." => depth = depth.checked_sub(1).ok_or_else(escapes)?,
            _ => named = true,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn file(content: &str) -> Node {
        Node::File { mode: Mode::Plain, digest: Digest::of(content.as_bytes()), size: content.len() as u64 }
    }

    #[test]
    fn a_tree_has_one_manifest_whatever_the_order() {
        let mut one = Tree::new(Links::Inside);
        one.insert(path("a/b"), file("1")).unwrap();
        one.insert(path("a/c"), Node::Link { target: "../z".to_owned() }).unwrap();
        one.insert(path("z"), file("2")).unwrap();
        let mut two = Tree::new(Links::Inside);
        two.insert(path("z"), file("2")).unwrap();
        two.insert(path("./a/"), Node::Folder).unwrap();
        two.insert(path("a/c"), Node::Link { target: "../z".to_owned() }).unwrap();
        two.insert(path("a/b"), file("1")).unwrap();
        assert_eq!(one.to_manifest(), two.to_manifest());
        assert_eq!(Tree::from_manifest(&one.to_manifest(), Links::Inside).unwrap(), one);
        insta::assert_snapshot!(one.to_manifest().replace('\t', " "), @r"
        clerestory-tree-v1
        d a
        f 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b 1 a/b
        l ../z a/c
        f d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35 1 z
        ");
    }

    #[test]
    fn odd_names_are_refused() {
        for odd in ["", "/", "/etc", "a//b", "a/../b", "..", ".", "a/.", "a\nb", "a\tb", "a\0b"] {
            assert!(TreePath::new(odd).is_err(), "{odd:?}");
        }
        assert!(TreePath::new(&"a".repeat(256)).is_err());
        assert!(TreePath::new(&"a/".repeat(2_000)).is_err());
    }

    #[test]
    fn links_stay_inside() {
        let link = |target: &str| Node::Link { target: target.to_owned() };
        for bad in ["/etc/passwd", "../../x", "../..", "x/../../../y", "x/../y", "", "a\nb"] {
            let mut tree = Tree::new(Links::Inside);
            assert!(tree.insert(path("d/l"), link(bad)).is_err(), "{bad:?}");
        }
        let mut tree = Tree::new(Links::Inside);
        tree.insert(path("d/l"), link("../x/./y")).unwrap();
        Tree::new(Links::Rooted).insert(path("etc/l"), link("/usr/lib/x")).unwrap();
    }

    #[test]
    fn clashes_are_refused() {
        let mut tree = Tree::new(Links::Inside);
        tree.insert(path("a"), file("1")).unwrap();
        assert_eq!(tree.insert(path("a"), file("1")), Err(TreeError::Clash(path("a"))));
        assert_eq!(tree.insert(path("a/b"), file("1")), Err(TreeError::Clash(path("a/b"))));
        // Nothing is written through a link.
        tree.insert(path("l"), Node::Link { target: "a".to_owned() }).unwrap();
        assert_eq!(tree.insert(path("l/b"), file("1")), Err(TreeError::Clash(path("l/b"))));
    }

    #[test]
    fn other_manifests_are_refused() {
        let digest = Digest::of(b"");
        for bad in [
            String::new(),
            "clerestory-tree-v1".to_owned(),
            "clerestory-tree-v1\nd\tb\nd\ta\n".to_owned(),
            "clerestory-tree-v1\nd\ta/b\n".to_owned(),
            "clerestory-tree-v1\nd\t./a\n".to_owned(),
            format!("clerestory-tree-v1\nf\t{digest}\t00\ta\n"),
            format!("clerestory-tree-v1\nf\t{digest}\t0\n"),
        ] {
            assert!(Tree::from_manifest(&bad, Links::Inside).is_err(), "{bad:?}");
        }
    }
}
