//! The confined child: reads requests, answers them.

mod file;

use std::io;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use detection::{
    Answer, Connection, Isolation, Limits, Loaded, Note, NoteCode, Received, Request, Scanned, WireError, decode_files,
};
use sandbox::{ByteSize, Confinement, SandboxError, confine_self};

use crate::engine::Engine;
use crate::{assemble, self_test};

use file::{Job, read};

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
}

impl Shared {
    fn answer(&self, answer: &Answer, payload: &[u8]) -> Result<(), WireError> {
        let _held = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        self.connection.send(answer, payload, None)
    }

    /// One of the threads: scans until there is nothing more to come.
    fn scan(&self) {
        let mut buffer = Vec::new();
        loop {
            let next = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            let scanned = job.scan(&self.limits, &mut buffer);
            if self.answer(&Answer::Scanned(scanned), &[]).is_err() {
                // Nobody listens any more.
                std::process::exit(1);
            }
        }
    }
}

fn serve(connection: Connection<io::Stdin>, limits: Limits) -> Result<(), WireError> {
    let (jobs, taken) = sync_channel(limits.files_under_way());
    let threads = limits.threads;
    let shared = Shared { connection, sending: Mutex::new(()), limits, jobs: Mutex::new(taken) };
    let shared = Arc::new(shared);
    start_threads(&shared, threads)?;
    let mut engine = None;
    while let Some(received) = shared.connection.receive::<Request>()? {
        let file = received.descriptor.ok_or(WireError::Malformed)?;
        match received.message {
            Request::Start(_) => return Err(WireError::Malformed),
            Request::Assemble => assemble_files(&shared, &file)?,
            Request::Load => {
                let answer = match load(&file) {
                    Ok((new, loaded)) => {
                        engine = Some(new);
                        Answer::Loaded(loaded)
                    }
                    Err(problem) => Answer::Refused { problem },
                };
                shared.answer(&answer, &[])?;
            }
            Request::Scan { id, path } => queue(&shared, &jobs, engine.as_ref(), (id, path), file)?,
        }
    }
    Ok(())
}

fn start_threads(shared: &Arc<Shared>, threads: NonZeroU16) -> Result<(), WireError> {
    for _ in 0..threads.get() {
        let shared = Arc::clone(shared);
        std::thread::Builder::new().spawn(move || shared.scan()).map_err(WireError::System)?;
    }
    Ok(())
}

fn queue(
    shared: &Shared,
    jobs: &SyncSender<Job>,
    engine: Option<&Engine>,
    (id, path): (u64, String),
    file: OwnedFd,
) -> Result<(), WireError> {
    let Some(engine) = engine.cloned() else {
        let note = Note { inside: Vec::new(), code: NoteCode::Engine, message: "no rules are loaded".to_owned() };
        let scanned = Scanned { id, bytes: 0, matches: Vec::new(), notes: vec![note] };
        return shared.answer(&Answer::Scanned(scanned), &[]);
    };
    jobs.send(Job { id, path, file, engine }).map_err(|_| WireError::Gone)
}

fn load(file: &OwnedFd) -> Result<(Engine, Loaded), String> {
    let bundle = read_rules(file)?;
    let bundle = String::from_utf8(bundle).map_err(|_| "the bundle is no UTF-8 text".to_owned())?;
    let engine = Engine::compile(&bundle)?;
    let loaded = Loaded { rules: engine.rules().count() as u64, self_test: self_test::run(&engine)? };
    Ok((engine, loaded))
}

fn assemble_files(shared: &Shared, file: &OwnedFd) -> Result<(), WireError> {
    let read = read_rules(file).and_then(|bytes| decode_files(&bytes).map_err(|error| error.to_string()));
    match read.and_then(|files| assemble::assemble(&files)) {
        Ok(assembled) => {
            let bundle_bytes = assembled.bundle.len() as u64;
            let mut payload = assembled.bundle;
            payload.extend(assembled.index);
            shared.answer(&Answer::Assembled { bundle_bytes, rejected: assembled.rejected }, &payload)
        }
        Err(problem) => shared.answer(&Answer::Refused { problem }, &[]),
    }
}

fn read_rules(file: &OwnedFd) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match read(file, RULES_BYTES_MAX, &mut bytes) {
        Ok(file::Read::Whole) => Ok(bytes),
        Ok(file::Read::Beginning) => Err(format!("more than {RULES_BYTES_MAX} bytes of rules")),
        Err(error) => Err(format!("cannot read the rules: {error}")),
    }
}
