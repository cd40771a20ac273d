//! The handle on a child that runs `clerestory-scan worker`.

mod child;
mod error;
mod files;
mod limits;
mod messages;
mod queue;
mod scan;
mod unpacking;
mod wire;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

pub use error::WorkerError;
pub use files::{RulesFile, decode_files, encode_files};
pub use limits::Limits;
pub use messages::{
    Answer, Assembled, Declared, FileReport, Isolation, Item, Listed, Loaded, Match, Note, NoteCode, RejectedFile,
    Request, Scanned, SelfTest, StringHit,
};
pub use unpacking::Unpacking;
pub use wire::{Connection, Received, WireError};

use child::Running;

/// Compiling 7,000 real rules takes 0.7 s, and assembling them some times that.
const RULES_TIME_MAX: Duration = Duration::from_secs(120);

/// A scanner: a confined child process, and the rules that it has loaded.
///
/// It blocks; asynchronous code calls it on a blocking thread. Who wants new rules without a gap
/// starts a second worker, loads them there, and drops this one.
#[derive(Debug)]
pub struct Worker {
    program: PathBuf,
    limits: Limits,
    /// What a new child loads, in memory that nobody can change.
    rules: Option<File>,
    /// And what it knows.
    set: Option<File>,
    running: Running,
}

impl Worker {
    /// Starts a child and waits until it has confined itself.
    ///
    /// # Errors
    /// If the program can't be started, or its isolation can't be had.
    pub fn start(program: &Path, limits: Limits) -> Result<Self, WorkerError> {
        let running = Running::start(program, &limits)?;
        Ok(Self { program: program.to_owned(), limits, rules: None, set: None, running })
    }

    /// What isolation the child has.
    #[must_use]
    pub const fn isolation(&self) -> &Isolation {
        &self.running.isolation
    }

    /// The child's process, for those who watch what it uses.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.running.process()
    }

    /// Makes one bundle of a tree's files.
    ///
    /// # Errors
    /// If the child ends, does not answer in time, or says what it can't have meant; a new one was
    /// then started.
    pub fn assemble(&mut self, files: &[RulesFile]) -> Result<Assembled, WorkerError> {
        let tree = sealed(&encode_files(files)?)?;
        let received = self.ask(&Request::Assemble, Some(&tree), "assembling rules")?;
        match received.message {
            Answer::Assembled { bundle_bytes, rejected } => {
                let at = usize::try_from(bundle_bytes).ok().filter(|at| *at <= received.payload.len());
                let at = at.ok_or(WorkerError::Nonsense { during: "assembling rules" })?;
                let mut bundle = received.payload;
                let index = bundle.split_off(at);
                Ok(Assembled { bundle, index, rejected })
            }
            Answer::Refused { problem } => Err(WorkerError::Rules { problem }),
            _ => Err(self.nonsense("assembling rules")),
        }
    }

    /// Compiles a bundle; what is scanned from now on is scanned with it.
    ///
    /// # Errors
    /// [`WorkerError::Rules`] if the engine does not take the bundle: then what was loaded before
    /// is still in use. Otherwise as for [`Worker::assemble`].
    pub fn load(&mut self, bundle: &[u8]) -> Result<Loaded, WorkerError> {
        let rules = sealed(bundle)?;
        let loaded = self.ask_to_load(&rules)?;
        self.rules = Some(rules);
        Ok(loaded)
    }

    fn ask_to_load(&mut self, rules: &File) -> Result<Loaded, WorkerError> {
        match self.ask(&Request::Load, Some(rules), "loading rules")?.message {
            Answer::Loaded(loaded) => Ok(loaded),
            Answer::Refused { problem } => Err(WorkerError::Rules { problem }),
            _ => Err(self.nonsense("loading rules")),
        }
    }

    /// Says of every content that is scanned from now on whether this set of hashes
    /// (`hashes.fuse`, `reputation::ReputationSet`) may have it; without a set, of none.
    ///
    /// # Errors
    /// [`WorkerError::Rules`] if it is no set: then the one before is still in use. Otherwise as for
    /// [`Worker::assemble`].
    pub fn know(&mut self, set: Option<&[u8]>) -> Result<(), WorkerError> {
        let set = set.map(sealed).transpose()?;
        match self.ask(&Request::Know, set.as_ref(), "reading a set of hashes")?.message {
            Answer::Known => {
                self.set = set;
                Ok(())
            }
            Answer::Refused { problem } => Err(WorkerError::Rules { problem }),
            _ => Err(self.nonsense("reading a set of hashes")),
        }
    }

    /// What a rule of the bundle that was loaded last says of itself; none if it has no such rule.
    ///
    /// # Errors
    /// As for [`Worker::assemble`].
    pub fn describe(&mut self, rule: &str) -> Result<Option<Declared>, WorkerError> {
        let request = Request::Describe { rule: rule.to_owned() };
        match self.ask(&request, None, "describing a rule")?.message {
            Answer::Described { rule } => Ok(rule),
            _ => Err(self.nonsense("describing a rule")),
        }
    }

    fn ask(
        &mut self,
        request: &Request,
        file: Option<&File>,
        during: &'static str,
    ) -> Result<Received<Answer>, WorkerError> {
        match self.running.ask(request, file, RULES_TIME_MAX) {
            Ok(received) => Ok(received),
            Err(error) => {
                let problem = self.running.end(&error);
                self.restart(during)?;
                Err(WorkerError::Ended { during, problem })
            }
        }
    }

    fn nonsense(&mut self, during: &'static str) -> WorkerError {
        match self.restart(during) {
            Ok(()) => WorkerError::Nonsense { during },
            Err(error) => error,
        }
    }

    /// A new child in the place of one that has ended, with the same rules.
    fn restart(&mut self, during: &'static str) -> Result<(), WorkerError> {
        self.running = Running::start(&self.program, &self.limits)?;
        let had = [(Request::Load, &self.rules), (Request::Know, &self.set)];
        for (request, file) in had.into_iter().filter(|(_, file)| file.is_some()) {
            let answer = self.running.ask(&request, file.as_ref(), RULES_TIME_MAX);
            match answer.map(|received| received.message) {
                Ok(Answer::Loaded(_) | Answer::Known) => {}
                Ok(Answer::Refused { problem }) => return Err(WorkerError::Rules { problem }),
                Ok(_) => return Err(WorkerError::Nonsense { during }),
                Err(error) => {
                    let problem = self.running.end(&error);
                    return Err(WorkerError::Ended { during: "loading rules again", problem });
                }
            }
        }
        Ok(())
    }
}

/// The scanner's program that lies beside the executable that is running.
///
/// # Errors
/// [`WorkerError::Program`] if there is none.
pub fn beside_this_program() -> Result<PathBuf, WorkerError> {
    let path = std::env::current_exe().unwrap_or_default().with_file_name("clerestory-scan");
    if path.is_file() {
        return Ok(path);
    }
    Err(WorkerError::Program { path, problem: "no such file".to_owned() })
}

/// A file in memory that can't be changed any more, not even by us.
fn sealed(bytes: &[u8]) -> Result<File, WorkerError> {
    let make = || -> std::io::Result<File> {
        let mut file = File::from(memfd_create("rules", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(bytes)?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(file)
    };
    make().map_err(|error| WorkerError::Memory { problem: error.to_string() })
}
