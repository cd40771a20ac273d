//! The policy in force, from a folder: `1.envelope` is the genesis policy, `2.bundle`, `3.bundle` … its successions.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use attest::{BUNDLE_BYTES_MAX, Bundle, ENVELOPE_BYTES_MAX, Envelope, StatementId};
use verify::{Evidence, TrustedPolicy};

/// Why a folder gives no policy.
#[derive(Debug, thiserror::Error)]
#[error("the policy `{path}`: {why}")]
pub struct PolicyError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// The lineage so far, which grows when its folder does.
pub(crate) struct Policies {
    folder: PathBuf,
    versions: u64,
    newest: TrustedPolicy,
}

impl Policies {
    pub(crate) fn open(folder: &Path, genesis: &StatementId) -> Result<Self, PolicyError> {
        let path = folder.join("1.envelope");
        let bytes = read(&path, ENVELOPE_BYTES_MAX)?;
        let envelope = Envelope::parse(&bytes).map_err(|error| refuse(&path, error))?;
        let newest = TrustedPolicy::bootstrap(&envelope, genesis).map_err(|error| refuse(&path, error))?;
        let mut policies = Self { folder: folder.to_owned(), versions: 1, newest };
        policies.newest()?;
        Ok(policies)
    }

    /// The policy in force.
    pub(crate) fn newest(&mut self) -> Result<&TrustedPolicy, PolicyError> {
        loop {
            let path = self.folder.join(format!("{}.bundle", self.versions + 1));
            if !path.exists() {
                return Ok(&self.newest);
            }
            let bundle = read(&path, BUNDLE_BYTES_MAX)?;
            let bundle = Bundle::parse(&bundle).map_err(|error| refuse(&path, error))?;
            let next = Evidence::open(&self.newest, &bundle).and_then(|evidence| self.newest.succeed(&evidence));
            self.newest = next.map_err(|error| refuse(&path, error))?;
            self.versions += 1;
        }
    }
}

fn refuse(path: &Path, why: impl ToString) -> PolicyError {
    PolicyError { path: path.to_owned(), why: why.to_string() }
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, PolicyError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| refuse(path, error))?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| refuse(path, error))?;
    Ok(bytes)
}
