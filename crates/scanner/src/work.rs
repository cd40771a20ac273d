//! The confined child: reads requests, answers them.

mod file;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use detection::{Answer, Connection, Isolation, Limits, Loaded, Received, Request, WireError, decode_files};
use reputation::ReputationSet;
use sandbox::{ByteSize, Confinement, SandboxError, confine_self};
use stdx::Digest;

use crate::engine::{Engine, prepare};
use crate::{assemble, self_test};

use file::{FileJob, With, read, words};

/// Descriptors beside those of the files under way: the three standard ones, and one that is read.
const OPEN_FILES: u64 = 8;

/// A bundle's bytes; a tree's files have this much, too.
const RULES_BYTES_MAX: u64 = 256 << 20;

/// The whole of `clerestory-scan worker`: serves its standard input until that is closed.
#[must_use]
pub fn work() -> ExitCode {
    let connection = Connection::new(io::stdin());
    match begin(&connection).and_then(|limits| limits.map_or(Ok(()), |limits| serve(connection, limits))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clerestory-scan worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the first request and confines this process; none if there is nothing to do.
fn begin(connection: &Connection<io::Stdin>) -> Result<Option<Limits>, WireError> {
    let Some(Received { message, .. }) = connection.receive()? else { return Ok(None) };
    let Request::Start(limits) = message else { return Err(WireError::Malformed) };
    // A panic is caught and told as a note; nobody reads it on standard error.
    std::panic::set_hook(Box::new(|_| {}));
    prepare();
    match confine(&limits) {
        Ok(isolation) => connection.send(&Answer::Ready(isolation), &[], None).map(|()| Some(limits)),
        Err(error) => {
            let (problem, hint) = (error.to_string(), error.hint().to_owned());
            connection.send(&Answer::Unready { problem, hint }, &[], None).map(|()| None)
        }
    }
}

fn confine(limits: &Limits) -> Result<Isolation, SandboxError> {
    let open_files = OPEN_FILES + limits.files_under_way() as u64;
    let confined = confine_self(&Confinement { memory: ByteSize(limits.memory), open_files })?;
    Ok(Isolation { landlock_abi: confined.landlock_abi, seccomp: confined.seccomp })
}

/// What the threads share.
struct Shared {
    connection: Connection<io::Stdin>,
    /// Held while a frame is sent.
    sending: Mutex<()>,
    limits: Limits,
    jobs: Mutex<Receiver<Job>>,
    engine: Mutex<Option<Engine>>,
    set: Mutex<Option<Arc<ReputationSet>>>,
    /// The engine of the bundle with this digest, which was assembled last: who makes a bundle loads it next.
    assembled: Mutex<Option<(Digest, Engine)>>,
}

/// What a thread does next.
enum Job {
    Assemble(OwnedFd),
    Load(OwnedFd),
    Know(Option<OwnedFd>),
    Scan(FileJob),
    Describe(String),
}

/// Hands the requests to the threads. This one only reads: so it sees at once that the caller is
/// gone, and then ends everything.
fn serve(connection: Connection<io::Stdin>, limits: Limits) -> Result<(), WireError> {
    let (jobs, taken) = sync_channel(limits.files_under_way());
    let threads = limits.threads.get();
    let shared = Arc::new(Shared {
        connection,
        sending: Mutex::new(()),
        limits,
        jobs: Mutex::new(taken),
        engine: Mutex::new(None),
        set: Mutex::new(None),
        assembled: Mutex::new(None),
    });
    for _ in 0..threads {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new().spawn(move || shared.work()).map_err(WireError::System)?;
    }
    while let Some(received) = shared.connection.receive::<Request>()? {
        let job = match (received.message, received.descriptor) {
            (Request::Assemble, Some(file)) => Job::Assemble(file),
            (Request::Load, Some(file)) => Job::Load(file),
            (Request::Know, file) => Job::Know(file),
            (Request::Scan { id, path }, Some(file)) => Job::Scan(FileJob { id, path, file }),
            (Request::Describe { rule }, None) => Job::Describe(rule),
            _ => return Err(WireError::Malformed),
        };
        jobs.send(job).map_err(|_| WireError::Gone)?;
    }
    Ok(())
}

impl Shared {
    /// One of the threads.
    fn work(&self) {
        let mut buffer = Vec::new();
        loop {
            let next = locked(&self.jobs).recv();
            let Ok(job) = next else { return };
            let answered = match job {
                Job::Assemble(file) => self.assemble(&file),
                Job::Load(file) => self.load(&file),
                Job::Know(file) => self.know(file.as_ref()),
                Job::Scan(job) => {
                    let with = With { engine: locked(&self.engine).clone(), set: locked(&self.set).clone() };
                    self.answer(&Answer::Scanned(job.scan(with, &self.limits, &mut buffer)), &[])
                }
                Job::Describe(rule) => {
                    let engine = locked(&self.engine).clone();
                    self.answer(&Answer::Described { rule: engine.and_then(|engine| engine.declared(&rule)) }, &[])
                }
            };
            if answered.is_err() {
                // Nobody listens any more.
                std::process::exit(1);
            }
        }
    }

    fn answer(&self, answer: &Answer, payload: &[u8]) -> Result<(), WireError> {
        let _held = locked(&self.sending);
        self.connection.send(answer, payload, None)
    }

    fn load(&self, file: &OwnedFd) -> Result<(), WireError> {
        let answer = match caught(|| load(file, locked(&self.assembled).take())) {
            Ok((engine, loaded)) => {
                *locked(&self.engine) = Some(engine);
                Answer::Loaded(loaded)
            }
            Err(problem) => Answer::Refused { problem },
        };
        self.answer(&answer, &[])
    }

    fn know(&self, file: Option<&OwnedFd>) -> Result<(), WireError> {
        let parse =
            |file| ReputationSet::parse(&read_rules(file)?).map_err(|error| format!("a set of hashes: {error}"));
        let answer = match file.map(|file| caught(|| parse(file))).transpose() {
            Ok(set) => {
                *locked(&self.set) = set.map(Arc::new);
                Answer::Known
            }
            Err(problem) => Answer::Refused { problem },
        };
        self.answer(&answer, &[])
    }

    fn assemble(&self, file: &OwnedFd) -> Result<(), WireError> {
        let assembled = caught(|| {
            let files = decode_files(&read_rules(file)?).map_err(|error| error.to_string())?;
            assemble::assemble(&files)
        });
        match assembled {
            Ok((assembled, engine)) => {
                *locked(&self.assembled) = Some((Digest::of(&assembled.bundle), engine));
                let bundle_bytes = assembled.bundle.len() as u64;
                let mut payload = assembled.bundle;
                payload.extend(assembled.index);
                self.answer(&Answer::Assembled { bundle_bytes, rejected: assembled.rejected }, &payload)
            }
            Err(problem) => self.answer(&Answer::Refused { problem }, &[]),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flaw of the engine that rules bring to light is told like what it says of them.
fn caught<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let done = catch_unwind(AssertUnwindSafe(act));
    done.unwrap_or_else(|panic| Err(format!("a flaw of the engine: {}", words(panic.as_ref()))))
}

fn load(file: &OwnedFd, assembled: Option<(Digest, Engine)>) -> Result<(Engine, Loaded), String> {
    let bundle = String::from_utf8(read_rules(file)?).map_err(|_| "the bundle is no UTF-8 text".to_owned())?;
    let engine = match assembled {
        Some((digest, engine)) if digest == Digest::of(bundle.as_bytes()) => engine,
        _ => Engine::compile(&bundle)?,
    };
    let loaded = Loaded { rules: engine.rules().count() as u64, self_test: self_test::run(&engine)? };
    Ok((engine, loaded))
}

fn read_rules(file: &OwnedFd) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match read(file, RULES_BYTES_MAX, &mut bytes) {
        Ok(file::Read::Whole) => Ok(bytes),
        Ok(file::Read::Beginning) => Err(format!("more than {RULES_BYTES_MAX} bytes of rules")),
        Err(error) => Err(format!("cannot read the rules: {error}")),
    }
}
