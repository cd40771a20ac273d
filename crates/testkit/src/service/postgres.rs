//! PostgreSQL, as Debian packages it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{Process, Program, find, folder, give, ordinary};
use super::shared;

/// The superuser and owner of the cluster.
const USER: &str = "clerestory";
/// Its password. Connections come over a Unix socket, so nothing needs a port.
const PASSWORD: &str = "a password of the tests";

/// A server with a cluster of its own.
pub struct Postgres {
    folder: TempDir,
    process: Mutex<Option<Process>>,
    settings: Vec<&'static str>,
}

impl Postgres {
    /// The server that all tests of this binary share.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SLOT: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        shared(&SLOT, Self::start)
    }

    /// A server of one's own, to be restarted and ended.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings (`name=value`) of its configuration.
    #[must_use]
    pub fn start_with(settings: &[&'static str]) -> Self {
        let folder = folder("clerestory-postgres-");
        let password = folder.path().join("password");
        stdx::durable::write(&password, PASSWORD.as_bytes()).unwrap();
        give(&password);
        let mut initdb = ordinary(&program("initdb"), &[]);
        initdb.args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"]);
        initdb.args([format!("--username={USER}"), format!("--pwfile={}", password.display())]);
        initdb.arg(folder.path().join("data")).current_dir(folder.path()).stdin(Stdio::null());
        let done = initdb.output().unwrap();
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        let server = Self { folder, process: Mutex::new(None), settings: settings.to_vec() };
        server.resume();
        server
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{host}/postgres")
    }

    /// The user's password.
    #[must_use]
    pub const fn password(&self) -> &'static str {
        PASSWORD
    }

    /// What the server keeps: the cluster, with its write-ahead log, lies in `data`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `psql` prints when the superuser has it run this script.
    #[must_use]
    pub fn psql(&self, script: &[u8]) -> Vec<u8> {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-"]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdin, script) = (psql.stdin.take().unwrap(), script.to_vec());
        // It prints while it still reads.
        let writer = std::thread::spawn(move || stdin.write_all(&script));
        let done = psql.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    /// A schema as a script, as `pg_dump` writes it.
    #[must_use]
    pub fn dump(&self, schema: &str) -> Vec<u8> {
        let done = self.client("pg_dump").arg(format!("--schema=\"{schema}\"")).output().unwrap();
        assert!(done.status.success(), "pg_dump: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env("PGPASSWORD", PASSWORD).arg("--host").arg(self.folder.path());
        command.args(["--username", USER, "--dbname", "postgres"]).stdin(Stdio::null());
        command
    }

    /// Ends it without any care, as a power cut would; the cluster stays.
    pub fn kill(&self) {
        // SIGQUIT is PostgreSQL's own immediate shutdown; SIGKILL would leave its children behind.
        if let Some(process) = self.process.lock().unwrap().take() {
            process.end_by(Signal::QUIT);
        }
    }

    /// Starts it again after [`kill`](Self::kill).
    pub fn resume(&self) {
        let mut command = vec![program("postgres"), "-D".into(), self.folder.path().join("data").into()];
        let sockets = format!("unix_socket_directories={}", self.folder.path().display());
        let own = ["listen_addresses=", "logging_collector=off", "log_destination=stderr", "max_connections=200"];
        for setting in own.into_iter().chain(self.settings.iter().copied()).chain([sockets.as_str()]) {
            command.extend(["-c".into(), setting.into()]);
        }
        let ready = &["database system is ready to accept connections"];
        let folder = self.folder.path().to_owned();
        let process = Process::start(Program { command, folder, ready, end: Signal::QUIT });
        let process = process.unwrap_or_else(|said| panic!("PostgreSQL did not start:\n{said}"));
        *self.process.lock().unwrap() = Some(process);
    }
}

/// Debian keeps the programs of each version in a folder of its own; the newest counts.
fn program(name: &str) -> std::ffi::OsString {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.sort();
    find(versions.into_iter().rev(), name)
}
