//! A root file system from the host's `/usr`, and the ways in which every job is run.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use sandbox::{ByteSize, Cancel, Cgroups, Job, Limits, Mount, Outcome, Program, Root, Sandbox, Writing};

/// Held by the test that kills supervisors, which leave their control groups to the next run.
pub(crate) static KILLING: RwLock<()> = RwLock::new(());

pub(crate) const NOBODY: u32 = 65_534;

/// How a job is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the user that runs the tests (root, in a fresh machine), control groups where possible.
    Own,
    /// The same, without control groups.
    OwnWithout,
    /// As an ordinary user, through the program `clerestory-sandbox run`.
    Nobody,
}

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sandbox-test").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { folder };
        place.make_folder("bin");
        // Where everybody can execute them, which the target folder need not be.
        // By `cp`: a file that we write could be open in a child of another test's thread just
        // when it is to be executed.
        let mut copy = Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_clerestory-sandbox")).arg(compiled()).arg(place.path("bin"));
        assert!(copy.status().unwrap().success());
        for name in ["root", "root/usr", "root/etc", "root/hostile", "root/work"] {
            place.make_folder(name);
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            let on_host = Path::new("/").join(name);
            if on_host.is_symlink() {
                symlink(fs::read_link(&on_host).unwrap(), place.path("root").join(name)).unwrap();
            } else if on_host.is_dir() {
                place.make_folder(&format!("root/{name}"));
            }
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program under test.
    pub(crate) fn program(&self) -> PathBuf {
        self.path("bin/clerestory-sandbox")
    }

    pub(crate) fn make_folder(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn make_file(&self, name: &str, text: &str) -> PathBuf {
        stdx::durable::write(&self.path(name), text.as_bytes()).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o644)).unwrap();
        self.path(name)
    }

    /// A job with small limits that runs `program` with `arguments`.
    pub(crate) fn job(&self, program: &str, arguments: &[&str]) -> Job {
        let root = Root { tree: self.path("root"), writing: Writing::Refused };
        let mut job = Job::new(root, Program(program.into()));
        job.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        job.environment.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
        job.mounts.push(mount("/usr", "/usr"));
        for name in ["/bin", "/lib", "/lib64", "/sbin"] {
            if !Path::new(name).is_symlink() && Path::new(name).is_dir() {
                job.mounts.push(mount(name, name));
            }
        }
        job.mounts.push(mount(self.path("bin").to_str().unwrap(), "/hostile"));
        job.user.gid = unique_group();
        job.limits = Limits {
            wall: Duration::from_secs(60),
            cpu: Duration::from_secs(30),
            processes: 64,
            memory: ByteSize::mebibytes(128),
            disk: ByteSize::mebibytes(32),
            inodes: 2_000,
            file_size: ByteSize::mebibytes(64),
            open_files: 64,
            kept_output: ByteSize(4_096),
            all_output: ByteSize::mebibytes(4),
        };
        job
    }

    pub(crate) fn script(&self, text: &str) -> Job {
        self.job("/bin/sh", &["-c", text])
    }

    /// `hostile NAME`; see hostile.c.
    pub(crate) fn hostile(&self, words: &[&str]) -> Job {
        self.job("/hostile/hostile", words)
    }

    /// Runs `job` and checks that nothing of it is left.
    pub(crate) fn run(&self, way: Way, job: &Job) -> Outcome {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut job = job.clone();
        if way == Way::OwnWithout {
            job.cgroups = Cgroups::Without;
        }
        let outcome = match way {
            Way::Own | Way::OwnWithout => {
                Sandbox::new(self.program()).run(&job, &Cancel::default(), &mut |_| {}).unwrap()
            }
            Way::Nobody => {
                let ran = self.run_as_nobody(&job);
                let text = String::from_utf8_lossy(&ran.stdout).into_owned();
                let said = String::from_utf8_lossy(&ran.stderr).into_owned();
                serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{said}"))
            }
        };
        assert_nothing_left(&outcome);
        assert_eq!(mounts, fs::read_to_string("/proc/self/mountinfo").unwrap(), "mounts");
        outcome
    }

    pub(crate) fn run_as_nobody(&self, job: &Job) -> std::process::Output {
        let path = self.make_file("job.json", &serde_json::to_string(job).unwrap());
        as_nobody(&self.program()).arg("run").arg(path).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the job that `make` gives in every way.
    pub(crate) fn every_way(&self, job: &Job, check: impl Fn(Way, &Outcome)) {
        for way in [Way::Own, Way::OwnWithout, Way::Nobody] {
            let outcome = self.run(way, job);
            check(way, &outcome);
        }
    }
}

pub(crate) fn mount(source: &str, target: &str) -> Mount {
    Mount { source: source.into(), target: target.into(), access: sandbox::Access::ReadOnly }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// `program` as `nobody` if this is root, as ourselves otherwise.
pub(crate) fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()]);
    command.arg(program);
    command
}

/// The compiled hostile.c, made once for all tests in cargo's own folder for test files.
fn compiled() -> &'static Path {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/hostile.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-w", "-pthread", "-o"]).arg(&binary).arg(source);
        assert!(compiler.status().unwrap().success());
        binary
    })
}

/// A group id that no other job on this machine has, by which its processes are found again.
fn unique_group() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Process ids are below 2^22, so this stays below 2^32.
    100_000 + std::process::id() * 512 + NEXT.fetch_add(1, Ordering::Relaxed) % 512
}

/// No process in the job's user namespace, no control group of a supervisor that is gone.
pub(crate) fn assert_nothing_left(outcome: &Outcome) {
    let _nobody_kills = KILLING.read().unwrap_or_else(PoisonError::into_inner);
    let group = outcome.evidence.user.gid.to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let map = fs::read_to_string(entry.path().join("gid_map")).unwrap_or_default();
        let inside = map.split_ascii_whitespace().next().unwrap_or_default();
        assert_ne!(inside, group, "{} is left", entry.path().display());
    }
    assert_eq!(orphaned_groups(), Vec::<PathBuf>::new());
}

pub(crate) fn orphaned_groups() -> Vec<PathBuf> {
    let mut orphans = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let mut folders: Vec<PathBuf> = points.map(|line| PathBuf::from(line.split(' ').nth(4).unwrap())).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(rest) = name.strip_prefix("clerestory-sandbox-") {
                let owner = rest.split('-').next().unwrap();
                if !Path::new("/proc").join(owner).exists() {
                    orphans.push(entry.path());
                }
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    orphans
}
