//! Stores that the previous version made: they open, are whole, and go on; an endpoint of then
//! updates. See `tests/previous/README.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::{Done, Server, run_with};
use crate::{mirror, proxy, raw};

const STORES: &[u8] = include_bytes!("../previous/73d3e6f.tar.zst");
const WITNESSES: [&str; 4] = ["w1", "w2", "w3", "w4"];

/// Everything of the previous version, ready to be started by this one.
pub(crate) struct Previous {
    folder: TempDir,
    pub(crate) servers: BTreeMap<String, Server>,
    proxy: String,
    hosts: BTreeMap<String, SocketAddr>,
}

impl Previous {
    /// Unpacks the stores; nothing runs.
    pub(crate) fn unpacked() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bytes = zstd::decode_all(STORES).unwrap();
        tar::Archive::new(&bytes[..]).unpack(folder.path()).unwrap();
        let names = ["vendor", "supervisor"].into_iter().chain(WITNESSES).map(str::to_owned);
        let mut servers: BTreeMap<String, Server> = names
            .map(|name| {
                let server = Server::bound(folder.path().join(&name).join("clerestory.toml"));
                (name, server)
            })
            .collect();
        let hosts = servers.iter().map(|(name, server)| (format!("{name}.example"), server.address()));
        let hosts: BTreeMap<_, _> =
            hosts.chain([("mirror.example".to_owned(), mirror::start(folder.path()))]).collect();
        let proxy = proxy::start(hosts.clone());
        servers.values_mut().for_each(|server| server.set_proxy(&proxy));
        Self { folder, servers, proxy, hosts }
    }

    /// All processes serve.
    pub(crate) fn running() -> Self {
        let mut previous = Self::unpacked();
        for name in WITNESSES.into_iter().chain(["supervisor", "vendor"]) {
            previous.server(name).start();
        }
        previous
    }

    pub(crate) fn server(&mut self, name: &str) -> &mut Server {
        self.servers.get_mut(name).unwrap()
    }

    /// Where the names of the policy lead, and a mirror of everything here.
    pub(crate) fn hosts(&self) -> BTreeMap<String, SocketAddr> {
        self.hosts.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, &[])
    }

    /// The same with further variables in its environment, or others.
    pub(crate) fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
        run_with(self.path(), arguments, &[&[("ALL_PROXY", &*self.proxy)], environment].concat())
    }

    /// The endpoint's program, run in its folder.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Done {
        self.agent_with(arguments, &[])
    }

    /// The same with further variables in its environment.
    pub(crate) fn agent_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
        let mut command = Command::new(agent());
        command.current_dir(self.path().join("endpoint")).env_clear().env("ALL_PROXY", &self.proxy);
        command.envs(environment.iter().copied());
        command.args(["--config", "agent.toml", "--json"]).args(arguments).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    /// The number of the release that the endpoint has, whether or not what it knows is still fresh.
    fn installed(&self) -> u64 {
        let status = self.agent(&["status"]).json();
        status["products"][0]["number"].as_u64().unwrap_or_else(|| panic!("{status}"))
    }

    fn size(&self, name: &str) -> u64 {
        let checkpoint = raw::get(self.servers[name].address(), "/checkpoint");
        checkpoint.text().lines().nth(1).unwrap().parse().unwrap()
    }
}

/// `clerestory-agent`, built by the cargo that runs this test.
fn agent() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--package", "agent", "--bin", "clerestory-agent", "--message-format=json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let messages = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back().unwrap()
    })
}

#[test]
fn the_previous_versions_stores_are_whole_and_go_on() {
    let mut previous = Previous::running();
    assert_eq!(previous.installed(), 1);
    let before = previous.size("vendor");

    // A statement in each log, with a proof under a quorum; the status is new with it.
    let lifted = ["status", "lift", "--config", "supervisor/clerestory.toml", "--product", "sample"];
    previous.run(&[&lifted[..], &["--reason", "a newer version writes"]].concat()).ok();
    let build = "vendor/builds/sample/2.0.1";
    let (result, out) = (format!("{build}/result.bundle"), format!("{build}/again.bundle"));
    let approve = ["release", "approve", "--config", "vendor/clerestory.toml", "--key", "vendor/keys/approver.key"];
    let what = ["--result", &result, "--comment", "once more", "--out", &out];
    previous.run(&[&approve[..], &what].concat()).ok();
    assert!(previous.size("vendor") > before);

    // The endpoint of then takes the release that it had not seen, through a channel made fresh.
    previous.run(&["release", "freshen", "--config", "vendor/clerestory.toml"]).ok();
    previous.agent(&["update"]).ok();
    assert_eq!(previous.installed(), 2);
    previous.agent(&["status"]).ok();

    // Nothing was lost or changed: not after a stop, and not after a second start.
    for name in ["vendor", "supervisor", "w1", "w4"] {
        assert_eq!(previous.server(name).stop().code, 0);
        previous.run(&["fsck", "--config", &format!("{name}/clerestory.toml")]).ok();
        previous.server(name).start();
    }
    let audit = ["audit", "--policy", "vendor/policy", "--genesis"];
    let genesis = std::fs::read_to_string(previous.path().join("genesis")).unwrap();
    let done = previous.run(&[&audit[..], &[&genesis, "--state", "audit.json", "--proofs", "proofs"]].concat());
    assert!(!done.stdout.contains("misbehaviour"), "{done:?}");
}

#[test]
fn a_newer_versions_store_is_refused_and_left_alone() {
    let previous = Previous::unpacked();
    // SQLite keeps the format where its header has the user's version: four bytes from 60.
    let state = previous.path().join("w2/state.sqlite");
    let mut bytes = std::fs::read(&state).unwrap();
    assert_eq!(bytes[60..64], 1_u32.to_be_bytes());
    bytes[60..64].copy_from_slice(&9_u32.to_be_bytes());
    stdx::durable::write(&state, &bytes).unwrap();
    let done = previous.run(&["fsck", "--config", "w2/clerestory.toml"]);
    assert!(done.code != 0 && done.stderr.contains("has format 9, and this version knows only 1"), "{done:?}");
    assert_eq!(std::fs::read(&state).unwrap(), bytes);

    let marker = previous.path().join("vendor/log/store");
    stdx::durable::write(&marker, b"clerestory objects 2\n").unwrap();
    for command in ["serve", "fsck"] {
        let done = previous.run(&[command, "--config", "vendor/clerestory.toml"]);
        assert!(done.code != 0 && done.stderr.contains("has format 2, and this version knows only 1"), "{done:?}");
    }
}
