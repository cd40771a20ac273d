//! The policy in force, from a folder: `1.envelope` is the genesis policy, `2.bundle`, `3.bundle`
//! … its successions.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use attest::{BUNDLE_BYTES_MAX, Bundle, BundleError, ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, StatementId};
use verify::{Evidence, Refusal, TrustedPolicy};

/// A version a week for ten years.
const VERSIONS_MAX: u64 = 520;

/// Why a folder gives no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFolderError {
    /// A file can't be read.
    #[error("can't read the policy `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The genesis policy is no envelope.
    #[error("`{path}` is no envelope")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EnvelopeError,
    },
    /// A succession is no bundle.
    #[error("`{path}` is no bundle")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// A policy is not to be trusted.
    #[error("`{path}` is refused")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Refusal,
    },
    /// More versions than are read.
    #[error("`{0}` holds more than {VERSIONS_MAX} versions")]
    TooMany(PathBuf),
}

/// Loads the policy in force: the genesis, trusted by its id, and then every succession.
///
/// # Errors
/// [`PolicyFolderError`] naming the first file that does not hold.
pub fn load(folder: &Path, genesis: &StatementId) -> Result<TrustedPolicy, PolicyFolderError> {
    let (mut policy, mut older) = (first(folder, genesis)?, 1);
    while let Some(path) = version_after(folder, older)? {
        (policy, older) = (succeed(&policy, path)?, older + 1);
    }
    Ok(policy)
}

/// Every version, the last of which is in force.
///
/// # Errors
/// [`PolicyFolderError`] naming the first file that does not hold.
pub fn versions(folder: &Path, genesis: &StatementId) -> Result<Vec<TrustedPolicy>, PolicyFolderError> {
    let (mut versions, mut older) = (vec![first(folder, genesis)?], 1);
    while let (Some(path), Some(policy)) = (version_after(folder, older)?, versions.last()) {
        versions.push(succeed(policy, path)?);
        older += 1;
    }
    Ok(versions)
}

fn first(folder: &Path, genesis: &StatementId) -> Result<TrustedPolicy, PolicyFolderError> {
    let path = folder.join("1.envelope");
    let bytes = read(&path, ENVELOPE_BYTES_MAX)?;
    let envelope =
        Envelope::parse(&bytes).map_err(|source| PolicyFolderError::Envelope { path: path.clone(), source })?;
    TrustedPolicy::bootstrap(&envelope, genesis).map_err(|source| PolicyFolderError::Refused { path, source })
}

/// The file of the version after `older`, if there is one.
fn version_after(folder: &Path, older: u64) -> Result<Option<PathBuf>, PolicyFolderError> {
    let path = folder.join(format!("{}.bundle", older + 1));
    if !path.exists() {
        return Ok(None);
    }
    if older >= VERSIONS_MAX { Err(PolicyFolderError::TooMany(folder.to_owned())) } else { Ok(Some(path)) }
}

fn succeed(policy: &TrustedPolicy, path: PathBuf) -> Result<TrustedPolicy, PolicyFolderError> {
    let bytes = read(&path, BUNDLE_BYTES_MAX)?;
    let bundle = match Bundle::parse(&bytes) {
        Ok(bundle) => bundle,
        Err(source) => return Err(PolicyFolderError::Bundle { path, source }),
    };
    Evidence::open(policy, &bundle)
        .and_then(|evidence| policy.succeed(&evidence))
        .map_err(|source| PolicyFolderError::Refused { path, source })
}

/// One byte more than may be is enough to refuse it by its length.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, PolicyFolderError> {
    let failed = |source| PolicyFolderError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
