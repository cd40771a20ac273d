//! A product that is built in a second and without a network: its environment is one Debian package
//! of this machine's own tools, its source a commit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use assembly::ContentStore;
use stdx::{Digest, durable};

/// What every build needs, by the names that Debian gives them.
const TOOLS: [&str; 4] = ["dash", "mkdir", "tar", "cp"];

/// The loop makes a build last long enough to be interrupted.
const RECIPE: &str = r#"product = "libexample"
version = "1.0"
licence = "MIT"

[source]
kind = "git"

[environment]
kind = "debian"
packages = ["tools"]

[build]
script = """
n=0; while [ $n -lt 600000 ]; do n=$((n + 1)); done
cp message product
"""

[[output]]
name = "product"
path = "source/product"
"#;

pub(crate) struct Product {
    /// Recipe and lock.
    pub(crate) folder: PathBuf,
    pub(crate) repository: PathBuf,
    /// Has the package.
    pub(crate) cache: PathBuf,
    recipe: Digest,
    package: Digest,
}

impl Product {
    /// Makes it below `folder`, with this output.
    pub(crate) fn make(folder: &Path, output: &[u8]) -> Self {
        let at = |name: &str| folder.join(name);
        let package = ContentStore::create(&at("cache")).unwrap().put(&package()).unwrap().digest;
        let lock = format!(
            "format = 1\nsource = []\npublished = []\nwheels = []\ndebian = [\n    \
             {{ name = \"tools\", version = \"1\", architecture = \"amd64\", sha256 = \"{package}\" }},\n]\n"
        );
        durable::create_folder(&at("product")).unwrap();
        durable::write(&at("product/assembly.toml"), RECIPE.as_bytes()).unwrap();
        durable::write(&at("product/assembly.lock"), lock.as_bytes()).unwrap();
        durable::create_folder(&at("repository")).unwrap();
        durable::write(&at("repository/message"), output).unwrap();
        for arguments in [&["init", "-q"][..], &["add", "message"], &["commit", "-q", "-m", "a message"]] {
            let who = ["-c", "user.name=test", "-c", "user.email=test@test.example"];
            let done = Command::new("git").current_dir(at("repository")).args(who).args(arguments).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        let recipe = assembly::Product::open(&at("product")).unwrap().digest;
        Self { folder: at("product"), repository: at("repository"), cache: at("cache"), recipe, package }
    }

    /// A machine with this depot has asked upstream's index before, so that it need not be asked.
    pub(crate) fn record_in(&self, depot: &Path) {
        let found = serde_json::json!([
            {"kind": "debian", "name": "tools", "version": "1", "digest": self.package.to_string()}
        ]);
        let resolved = depot.join("resolved");
        durable::create_folder(&resolved).unwrap();
        durable::write(&resolved.join(format!("{}.json", self.recipe)), found.to_string().as_bytes()).unwrap();
    }
}

/// An `ar` of two tars.
fn package() -> Vec<u8> {
    let mut files = BTreeSet::new();
    for tool in TOOLS {
        let tool = std::env::split_paths("/usr/bin:/bin").map(|folder| folder.join(tool)).find(|path| path.exists());
        let tool = tool.unwrap();
        let linked = Command::new("ldd").arg(&tool).output().unwrap();
        let linked = String::from_utf8(linked.stdout).unwrap();
        files.extend(linked.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        files.insert(tool);
    }
    let mut data = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        let bytes = std::fs::read(&file).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        data.append_data(&mut header, file.strip_prefix("/").unwrap(), bytes.as_slice()).unwrap();
    }
    let mut control = tar::Builder::new(Vec::new());
    let fields = b"Package: tools\nVersion: 1\nArchitecture: amd64\nDescription: for a test\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(fields.len() as u64);
    header.set_mode(0o644);
    control.append_data(&mut header, "control", fields.as_slice()).unwrap();
    let mut archive = b"!<arch>\n".to_vec();
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", control.into_inner().unwrap()),
        ("data.tar", data.into_inner().unwrap()),
    ];
    for (name, bytes) in members {
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes());
        archive.extend_from_slice(&bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

/// What isolates builds lies beside what starts them.
pub(crate) fn sandbox() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("sandbox", "clerestory-sandbox"))
}

pub(crate) fn agent() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("agent", "clerestory-agent"))
}

/// A program of another package, which the cargo that runs this test builds where `clerestory` is.
fn built(package: &str, program: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let done = cargo.args(["build", "--quiet", "--package", package, "--bin", program]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let path = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name(program);
    assert!(path.exists(), "{}", path.display());
    path
}
