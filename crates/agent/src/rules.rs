//! Rules before they are switched to: compiled and tested by a confined child.

use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use api::ErrorClass;
use attest::{Outcome, Release, ReleaseNumber};
use detection::{BUNDLE_BYTES_MAX, BUNDLE_FILE, Limits, SET_FILE, Worker, WorkerError, beside_this_program};
use reputation::{ReputationSet, SET_BYTES_MAX};
use stdx::Digest;

use crate::failure::Failure;

/// What rules may ask of the engine that is installed beside this program; it is raised with each
/// engine that takes rules which the one before did not. Releases name the least that they need.
const ENGINE: ReleaseNumber = ReleaseNumber::FIRST;

/// The engine does not take the rules, or ends at them.
const NOT_COMPILED: &str = "rules-compile";
/// They find what they must not.
const SELF_TEST: &str = "rules-self-test";

/// What became of rules, if a failure is their own: they are not tried again.
pub(crate) fn unfit(failure: &Failure) -> Option<Outcome> {
    match failure.code {
        NOT_COMPILED => Some(Outcome::NotCompiled),
        SELF_TEST => Some(Outcome::SelfTestFailed),
        _ => None,
    }
}

/// Whether this machine's engine can use a release.
pub(crate) fn check_engine(release: &Release) -> Result<(), Failure> {
    const HINT: &str = "install a newer clerestory-scan and clerestory-agent";
    match release.minimum_engine {
        Some(least) if least > ENGINE => {
            let message = format!("{} {} needs engine {least}; this is {ENGINE}", release.product, release.number);
            Err(Failure::rejected("engine-too-old", message, HINT))
        }
        _ => Ok(()),
    }
}

/// The rules in a folder, no more than a bundle may have.
pub(crate) fn read(folder: &Path) -> Result<Vec<u8>, Failure> {
    let path = folder.join(BUNDLE_FILE);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let message = format!("a release of rules without a `{BUNDLE_FILE}`: {error}");
            Err(Failure::rejected(NOT_COMPILED, message, "report it to the vendor; what is installed stays"))
        }
    }
}

/// The set of hashes in a folder, if there is one, and its file's bytes.
pub(crate) fn read_set(folder: &Path) -> Result<Option<(ReputationSet, Vec<u8>)>, Failure> {
    let path = folder.join(SET_FILE);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file(&path, &error)),
    }
    let set = ReputationSet::parse(&bytes).map_err(|error| {
        const HINT: &str = "report it to the vendor; what is installed stays";
        Failure::rejected(NOT_COMPILED, format!("{}: {error}", path.display()), HINT)
    })?;
    Ok(Some((set, bytes)))
}

/// The gate: a confined child that compiles rules and says what they find in samples. The child that
/// has passed is kept for whoever goes on to scan with it, so that nothing is compiled twice.
#[derive(Debug)]
pub struct Gate {
    /// The scanner's program, if it is not the one beside this program.
    program: Option<PathBuf>,
    limits: Limits,
    passed: Mutex<Option<(Digest, Worker)>>,
}

impl Gate {
    /// With the scanner that lies beside this program.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { program: None, limits, passed: Mutex::new(None) }
    }

    /// With this scanner.
    #[must_use]
    pub const fn with(program: PathBuf, limits: Limits) -> Self {
        Self { program: Some(program), limits, passed: Mutex::new(None) }
    }

    /// The child that passed last, if it was with these rules.
    #[must_use]
    pub fn take(&self, rules: &Digest) -> Option<Worker> {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner).take();
        passed.filter(|(passed, _)| passed == rules).map(|(_, worker)| worker)
    }

    /// A child that has compiled these rules, and passed the test.
    ///
    /// # Errors
    /// [`Failure`]: rules that are unfit, or no engine to be had to try them.
    pub fn compile(&self, rules: &[u8]) -> Result<Worker, Failure> {
        const HINT: &str = "report it to the vendor; what is installed stays, and a newer release is taken";
        let program = match &self.program {
            Some(program) => program.clone(),
            None => beside_this_program().map_err(|error| engine(&error))?,
        };
        let mut worker = Worker::start(&program, self.limits.clone()).map_err(|error| engine(&error))?;
        let loaded = match worker.load(rules) {
            // Whatever ended the child may have been the machine's doing, once.
            Err(WorkerError::Ended { .. } | WorkerError::Nonsense { .. }) => worker.load(rules),
            loaded => loaded,
        };
        let test = match loaded {
            Ok(loaded) => loaded.self_test,
            Err(error @ (WorkerError::Program { .. } | WorkerError::Isolation { .. } | WorkerError::Memory { .. })) => {
                return Err(engine(&error));
            }
            Err(error) => return Err(Failure::rejected(NOT_COMPILED, error.to_string(), HINT)),
        };
        if test.is_passed() {
            return Ok(worker);
        }
        let message =
            format!("the rules failed the self-test: a harmless text is found by {}", test.harmless.join(", "));
        Err(Failure::rejected(SELF_TEST, message, HINT))
    }

    /// Compiles and tests the rules that lie in `folder`.
    pub(crate) fn test(&self, folder: &Path) -> Result<(), Failure> {
        let rules = read(folder)?;
        read_set(folder)?;
        // Two engines beside the one that is in use would be one too many.
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed = None;
        *passed = Some((Digest::of(&rules), self.compile(&rules)?));
        Ok(())
    }
}

impl Default for Gate {
    /// With the scanner beside this program, and one thread.
    fn default() -> Self {
        Self::new(Limits::new(NonZeroU16::MIN))
    }
}

/// There is no engine, or none that is confined: nothing is known of the rules.
pub(crate) fn engine(error: &WorkerError) -> Failure {
    Failure {
        code: "scanner",
        class: ErrorClass::Unavailable,
        ..Failure::rejected(
            "scanner",
            format!("{error}: {}", error.hint()),
            "what is installed stays; nothing is scanned without a confined scanner",
        )
    }
}
