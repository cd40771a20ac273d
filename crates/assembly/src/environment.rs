//! Root file systems from pinned Debian packages, found by the digest of their whole tree.
//!
//! Packages are unpacked without running their maintainer scripts: these would run as whoever
//! builds, and their results depend on the machine. What the scripts would have done and a build
//! needs is done here, the same way each time.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stdx::{Digest, Hasher, durable};

use crate::archive::{ArchiveError, DebPart, Sink, unpack_deb, unpack_zip};
use crate::content::ContentError;
use crate::inputs::{Depot, Fetched, InputsError};
use crate::lock::LockedPackage;
use crate::progress::{Event, Progress};
use crate::recipe::EnvironmentSpec;
use crate::source::{SourceError, capture_folder};
use attest::tree::{Links, Mode, Node, Tree, TreeError, TreePath};

/// Part of the name under which environments are filed: another version unpacks otherwise.
const LAYOUT_VERSION: &str = "clerestory-environment-v1";
/// Most links followed for one path, as in Linux.
const LINKS_FOLLOWED_MAX: usize = 40;
/// Folders of the root that Debian merged into `/usr`.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Where Debian's Python looks for packages of any version.
const PYTHON_PACKAGES: &str = "usr/lib/python3/dist-packages";
/// Alternatives that a build needs, as `update-alternatives` would choose them: link, then candidates.
const ALTERNATIVES: [(&str, &[&str]); 8] = [
    ("usr/bin/awk", &["gawk", "mawk", "original-awk"]),
    ("usr/bin/cc", &["gcc", "clang"]),
    ("usr/bin/c++", &["g++", "clang++"]),
    ("usr/bin/c99", &["c99-gcc"]),
    ("usr/bin/fakeroot", &["fakeroot-sysv", "fakeroot-tcp"]),
    ("usr/bin/faked", &["faked-sysv", "faked-tcp"]),
    ("usr/bin/sh", &["dash", "bash"]),
    ("usr/bin/which", &["which.debianutils"]),
];

/// An environment that cannot be made or is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A package cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Names or links in it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The depot.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// A package is not in the depot, or damaged.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The tree cannot be read again.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Links in circles, or a file where a folder should be.
    #[error("`{0}` cannot be reached in the root file system")]
    Unreachable(String),
    /// A package without the fields that every package has.
    #[error("package {package} has no field `{field}`")]
    Control {
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// The tree on disk was changed.
    #[error("the environment {expected} on disk now has digest {got}: somebody changed it; remove {folder}")]
    Changed {
        /// What it was.
        expected: Digest,
        /// What it is.
        got: Digest,
        /// Where.
        folder: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> EnvironmentError + '_ {
    move |source| EnvironmentError::Io { path: path.to_owned(), source }
}

/// Whether an environment can be had again by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// From pinned packages.
    Pinned,
    /// A machine's own root, or a tree of unknown making: what is built in it never releases.
    Captured,
}

/// A root file system to build in, only ever read.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where it lies.
    pub root: PathBuf,
    /// The digest of its canonical tree.
    pub digest: Digest,
    /// Whether others can have it too.
    pub origin: Origin,
}

impl Environment {
    /// The environment that `spec` and the fetched packages say, made now or found in the depot.
    ///
    /// # Errors
    /// [`EnvironmentError`].
    pub fn prepare(
        depot: &Depot,
        spec: &EnvironmentSpec,
        fetched: &Fetched,
        progress: &dyn Progress,
    ) -> Result<Self, EnvironmentError> {
        match spec {
            EnvironmentSpec::Host => Ok(Self::host()),
            EnvironmentSpec::Debian { .. } => Self::debian(depot, fetched, progress),
        }
    }

    /// This machine's own root. Its digest is that of its list of packages only, since a running
    /// machine cannot be hashed; what is built in it never releases.
    fn host() -> Self {
        let status = fs::read("/var/lib/dpkg/status").unwrap_or_default();
        Self { root: PathBuf::from("/"), digest: Digest::of(&status), origin: Origin::Captured }
    }

    /// A tree somebody made by other means, as it is now.
    ///
    /// # Errors
    /// [`EnvironmentError::Source`].
    pub fn captured(root: &Path) -> Result<Self, EnvironmentError> {
        let digest = capture_folder(root, Links::Rooted, None)?.digest();
        Ok(Self { root: root.to_owned(), digest, origin: Origin::Captured })
    }

    /// Hashes the whole tree again and compares: done before each build.
    ///
    /// # Errors
    /// [`EnvironmentError::Changed`].
    pub fn check(&self, progress: &dyn Progress) -> Result<(), EnvironmentError> {
        if self.root == Path::new("/") {
            return Ok(());
        }
        progress.event(Event::Checking { environment: self.digest });
        let got = capture_folder(&self.root, Links::Rooted, None)?.digest();
        if got == self.digest {
            Ok(())
        } else {
            Err(EnvironmentError::Changed { expected: self.digest, got, folder: self.root.clone() })
        }
    }

    fn debian(depot: &Depot, fetched: &Fetched, progress: &dyn Progress) -> Result<Self, EnvironmentError> {
        let key = environment_key(fetched);
        let folder = depot.part("environments").join(key.to_string());
        let root = folder.join("root");
        let _alone = depot.exclusive("environments")?;
        let seal = folder.join("digest");
        if let Ok(text) = fs::read_to_string(&seal)
            && let Ok(digest) = text.trim().parse()
        {
            return Ok(Self { root, digest, origin: Origin::Pinned });
        }
        if folder.exists() {
            // A crash left it unsealed.
            fs::remove_dir_all(&folder).map_err(io_at(&folder))?;
        }
        durable::create_folder(&root).map_err(io_at(&root))?;
        let mut sink = FolderSink::new(root.clone());
        sink.merged_usr()?;
        let mut database = Database::default();
        for (done, package) in fetched.debian.iter().enumerate() {
            progress.event(Event::Unpacking { done, total: fetched.debian.len() });
            let name = format!("package {} {}", package.name, package.version);
            let open = || depot.content().open_object(&package.sha256);
            sink.begin();
            unpack_deb(&name, open()?, DebPart::Data, &mut sink)?;
            let mut control = ControlSink::default();
            unpack_deb(&name, open()?, DebPart::Control, &mut control)?;
            database.add(package, control, &sink.touched)?;
        }
        progress.event(Event::Unpacking { done: fetched.debian.len(), total: fetched.debian.len() });
        for wheel in &fetched.wheels {
            let archive = depot.content().open_object(&wheel.sha256)?;
            unpack_zip(&wheel.file, archive, &mut sink.below(PYTHON_PACKAGES))?;
        }
        database.write(&mut sink)?;
        sink.finish()?;
        let digest = sink.tree.digest();
        let manifest = folder.join("manifest");
        durable::write(&manifest, sink.tree.to_manifest().as_bytes()).map_err(io_at(&manifest))?;
        durable::write(&seal, format!("{digest}\n").as_bytes()).map_err(io_at(&seal))?;
        Ok(Self { root, digest, origin: Origin::Pinned })
    }
}

/// What an environment is made from, before it is made.
fn environment_key(fetched: &Fetched) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(LAYOUT_VERSION.as_bytes());
    let packages = fetched.debian.iter().map(|package| (b'd', package.sha256));
    for (kind, digest) in packages.chain(fetched.wheels.iter().map(|wheel| (b'w', wheel.sha256))) {
        hasher.update(&[kind]);
        hasher.update(digest.as_bytes());
    }
    hasher.finish()
}

/// Unpacks into a folder that nobody else writes to. It remembers every node, so that paths are
/// resolved in memory and nothing is ever written through a link on disk.
pub(crate) struct FolderSink {
    root: PathBuf,
    tree: Tree,
    /// What the current package brought, as it named it.
    touched: Vec<String>,
}

impl FolderSink {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root, tree: Tree::new(Links::Rooted), touched: Vec::new() }
    }

    /// A sink for what lies below one of its folders.
    pub(crate) fn below(&mut self, folder: &str) -> Below<'_> {
        Below { folder: folder.to_owned(), sink: self }
    }

    fn begin(&mut self) {
        self.touched.clear();
    }

    fn merged_usr(&mut self) -> Result<(), EnvironmentError> {
        for name in MERGED {
            self.make_folder(&TreePath::new(&format!("usr/{name}"))?)?;
            self.make_link(TreePath::new(name)?, &format!("usr/{name}"))?;
        }
        for name in ["dev", "proc", "sys", "tmp", "etc", "var/lib/dpkg/info", "root"] {
            self.make_folder(&TreePath::new(name)?)?;
        }
        Ok(())
    }

    /// Where `path` really lies: the links in its folders followed, its last name not.
    fn resolve(&self, path: &TreePath) -> Result<TreePath, EnvironmentError> {
        let unreachable = || EnvironmentError::Unreachable(path.to_string());
        let mut done: Vec<String> = Vec::new();
        let mut pending: Vec<String> = path.as_str().rsplit('/').map(str::to_owned).collect();
        let mut followed = 0_usize;
        while let Some(name) = pending.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(name),
            }
            if pending.is_empty() {
                break;
            }
            let here = TreePath::new(&done.join("/"))?;
            match self.tree.get(&here) {
                Some(Node::Link { target }) => {
                    followed = followed.saturating_add(1);
                    if followed > LINKS_FOLLOWED_MAX {
                        return Err(unreachable());
                    }
                    done.pop();
                    if target.starts_with('/') {
                        done.clear();
                    }
                    pending.extend(target.rsplit('/').map(str::to_owned));
                }
                Some(Node::File { .. }) => return Err(unreachable()),
                Some(Node::Folder) | None => {}
            }
        }
        Ok(TreePath::new(&done.join("/"))?)
    }

    /// Makes the folder and those above it; a link to a folder in its place is kept.
    fn make_folder(&mut self, path: &TreePath) -> Result<(), EnvironmentError> {
        let mut path = self.resolve(path)?;
        for _ in 0..LINKS_FOLLOWED_MAX {
            match self.tree.get(&path) {
                Some(Node::Folder) => return Ok(()),
                Some(Node::Link { .. }) => {
                    path = self
                        .resolve(&TreePath::new(&format!("{path}/x"))?)?
                        .parent()
                        .ok_or_else(|| EnvironmentError::Unreachable(path.to_string()))?
                }
                Some(Node::File { .. }) => return Err(EnvironmentError::Unreachable(path.to_string())),
                None => {
                    if let Some(parent) = path.parent() {
                        self.make_folder(&parent)?;
                    }
                    let on_disk = path.under(&self.root);
                    fs::create_dir(&on_disk).map_err(io_at(&on_disk))?;
                    fs::set_permissions(&on_disk, Permissions::from_mode(0o755)).map_err(io_at(&on_disk))?;
                    return Ok(self.tree.insert(path, Node::Folder)?);
                }
            }
        }
        Err(EnvironmentError::Unreachable(path.to_string()))
    }

    /// The place for a new file or link: its folder made, an older file there removed.
    fn place(&mut self, path: &TreePath) -> Result<(TreePath, PathBuf), EnvironmentError> {
        if let Some(parent) = path.parent() {
            self.make_folder(&parent)?;
        }
        let path = self.resolve(path)?;
        let on_disk = path.under(&self.root);
        if self.tree.get(&path).is_some() {
            self.tree.remove_leaf(&path).ok_or_else(|| EnvironmentError::Unreachable(path.to_string()))?;
            fs::remove_file(&on_disk).map_err(io_at(&on_disk))?;
        }
        Ok((path, on_disk))
    }

    pub(crate) fn make_file(
        &mut self,
        path: &TreePath,
        mode: Mode,
        reader: &mut dyn Read,
    ) -> Result<(), EnvironmentError> {
        let (path, on_disk) = self.place(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode.bits())
            .open(&on_disk)
            .map_err(io_at(&on_disk))?;
        let mut hasher = Hasher::default();
        let mut size = 0_u64;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = reader.read(&mut buffer).map_err(io_at(&on_disk))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            size = size.saturating_add(count as u64);
            file.write_all(bytes).map_err(io_at(&on_disk))?;
        }
        // The caller's umask must not decide who can read the environment.
        file.set_permissions(Permissions::from_mode(mode.bits())).map_err(io_at(&on_disk))?;
        set_time(&file).map_err(io_at(&on_disk))?;
        Ok(self.tree.insert(path, Node::File { mode, digest: hasher.finish(), size })?)
    }

    fn make_link(&mut self, path: TreePath, target: &str) -> Result<(), EnvironmentError> {
        if matches!(self.tree.get(&path), Some(Node::Link { target: present }) if present == target) {
            return Ok(());
        }
        let (path, on_disk) = self.place(&path)?;
        self.tree.insert(path, Node::Link { target: target.to_owned() })?;
        symlink(target, &on_disk).map_err(io_at(&on_disk))
    }

    /// What maintainer scripts would have done and a build needs.
    fn finish(&mut self) -> Result<(), EnvironmentError> {
        for (link, candidates) in ALTERNATIVES {
            let link = TreePath::new(link)?;
            if self.tree.get(&link).is_some() {
                continue;
            }
            for candidate in candidates {
                if self.tree.get(&TreePath::new(&format!("usr/bin/{candidate}"))?).is_some() {
                    self.make_link(link, candidate)?;
                    break;
                }
            }
        }
        let mut text = |path: &str, text: &str| -> Result<(), EnvironmentError> {
            self.make_file(&TreePath::new(path)?, Mode::Plain, &mut text.as_bytes())
        };
        text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        )?;
        text("etc/group", "root:x:0:\ntty:x:5:\nstaff:x:50:\nnogroup:x:65534:\n")?;
        text("etc/hosts", "127.0.0.1 localhost\n")?;
        // Without it dpkg-buildflags silently loses Debian's flags.
        let vendor = TreePath::new("etc/dpkg/origins/default")?;
        if self.tree.get(&TreePath::new("etc/dpkg/origins/debian")?).is_some() {
            self.make_link(vendor, "debian")?;
        }
        Ok(())
    }
}

/// Everything in an environment has one time, so that no build can depend on it.
fn set_time(file: &File) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)))
}

impl Sink for FolderSink {
    type Error = EnvironmentError;

    fn folder(&mut self, path: TreePath) -> Result<(), EnvironmentError> {
        self.touched.push(path.to_string());
        self.make_folder(&path)
    }

    fn file(&mut self, path: TreePath, mode: Mode, reader: &mut dyn Read) -> Result<(), EnvironmentError> {
        self.touched.push(path.to_string());
        self.make_file(&path, mode, reader)
    }

    fn link(&mut self, path: TreePath, target: &str) -> Result<(), EnvironmentError> {
        self.touched.push(path.to_string());
        self.make_link(path, target)
    }

    fn hard_link(&mut self, path: TreePath, target: TreePath) -> Result<(), EnvironmentError> {
        self.touched.push(path.to_string());
        let target = self.resolve(&target)?;
        let Some(node @ Node::File { .. }) = self.tree.get(&target).cloned() else {
            return Err(EnvironmentError::Unreachable(target.to_string()));
        };
        let (path, on_disk) = self.place(&path)?;
        fs::hard_link(target.under(&self.root), &on_disk).map_err(io_at(&on_disk))?;
        Ok(self.tree.insert(path, node)?)
    }
}

/// A sink for what lies below a folder of another one.
pub(crate) struct Below<'s> {
    folder: String,
    sink: &'s mut FolderSink,
}

impl Below<'_> {
    fn path(&self, path: &TreePath) -> Result<TreePath, TreeError> {
        TreePath::new(&format!("{}/{path}", self.folder))
    }
}

impl Sink for Below<'_> {
    type Error = EnvironmentError;

    fn folder(&mut self, path: TreePath) -> Result<(), EnvironmentError> {
        self.sink.make_folder(&self.path(&path)?)
    }

    fn file(&mut self, path: TreePath, mode: Mode, reader: &mut dyn Read) -> Result<(), EnvironmentError> {
        self.sink.make_file(&self.path(&path)?, mode, reader)
    }

    fn link(&mut self, path: TreePath, target: &str) -> Result<(), EnvironmentError> {
        self.sink.make_link(self.path(&path)?, target)
    }

    fn hard_link(&mut self, path: TreePath, target: TreePath) -> Result<(), EnvironmentError> {
        let (path, target) = (self.path(&path)?, self.path(&target)?);
        self.sink.hard_link(path, target)
    }
}

/// The files of a package's control archive.
#[derive(Default)]
struct ControlSink {
    files: BTreeMap<String, Vec<u8>>,
}

/// Largest control file; the longest symbols files have 2 MB.
const CONTROL_BYTES_MAX: u64 = 32 * 1024 * 1024;

impl Sink for ControlSink {
    type Error = EnvironmentError;

    fn folder(&mut self, _: TreePath) -> Result<(), EnvironmentError> {
        Ok(())
    }

    fn file(&mut self, path: TreePath, _: Mode, reader: &mut dyn Read) -> Result<(), EnvironmentError> {
        let mut bytes = Vec::new();
        reader.take(CONTROL_BYTES_MAX).read_to_end(&mut bytes).map_err(io_at(Path::new(path.as_str())))?;
        self.files.insert(path.name().to_owned(), bytes);
        Ok(())
    }

    fn link(&mut self, path: TreePath, _: &str) -> Result<(), EnvironmentError> {
        Err(EnvironmentError::Unreachable(path.to_string()))
    }

    fn hard_link(&mut self, path: TreePath, _: TreePath) -> Result<(), EnvironmentError> {
        Err(EnvironmentError::Unreachable(path.to_string()))
    }
}

/// dpkg's own database, by which builds find out what is installed and which package has which file.
#[derive(Default)]
struct Database {
    status: String,
    info: BTreeMap<String, Vec<u8>>,
}

impl Database {
    fn add(
        &mut self,
        package: &LockedPackage,
        control: ControlSink,
        touched: &[String],
    ) -> Result<(), EnvironmentError> {
        let name = package.name.as_str();
        let missing = |field| EnvironmentError::Control { package: name.to_owned(), field };
        let fields = control.files.get("control").ok_or_else(|| missing("Package"))?;
        let fields = String::from_utf8_lossy(fields).into_owned();
        let (first, rest) = fields.split_once('\n').ok_or_else(|| missing("Package"))?;
        self.status.push_str(first);
        self.status.push_str("\nStatus: install ok installed\n");
        self.status.push_str(rest.trim_end());
        self.status.push_str("\n\n");
        let same = fields.lines().any(|line| line.trim() == "Multi-Arch: same");
        let prefix = if same { format!("{name}:{}", package.architecture) } else { name.to_owned() };
        let mut list = String::from("/.\n");
        for path in touched {
            list.push('/');
            list.push_str(path);
            list.push('\n');
        }
        self.info.insert(format!("{prefix}.list"), list.into_bytes());
        for (file, bytes) in control.files {
            // Maintainer scripts are never run, so they are not kept.
            if matches!(file.as_str(), "md5sums" | "shlibs" | "symbols" | "triggers" | "conffiles") {
                self.info.insert(format!("{prefix}.{file}"), bytes);
            }
        }
        Ok(())
    }

    fn write(self, sink: &mut FolderSink) -> Result<(), EnvironmentError> {
        let mut put = |path: String, bytes: &[u8]| -> Result<(), EnvironmentError> {
            sink.make_file(&TreePath::new(&path)?, Mode::Plain, &mut { bytes })
        };
        put("var/lib/dpkg/status".to_owned(), self.status.as_bytes())?;
        put("var/lib/dpkg/available".to_owned(), b"")?;
        put("var/lib/dpkg/info/format".to_owned(), b"1\n")?;
        for (file, bytes) in self.info {
            put(format!("var/lib/dpkg/info/{file}"), &bytes)?;
        }
        Ok(())
    }
}
