//! The policy and its successors, from files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use attest::{BUNDLE_BYTES_MAX, Bundle, ENVELOPE_BYTES_MAX, Envelope, StatementId};
use verify::{Evidence, TrustedPolicy};

use crate::failure::Failure;

/// A new policy every week for twenty years is 1,040.
const VERSIONS_MAX: u64 = 2_048;

/// The newest policy that the files lead to from the genesis.
pub(crate) fn load(path: &Path, genesis: &StatementId) -> Result<TrustedPolicy, Failure> {
    let folder = path.is_dir();
    let first = if folder { path.join("1.envelope") } else { path.to_owned() };
    let envelope = Envelope::parse(&read(&first, ENVELOPE_BYTES_MAX)?);
    let envelope = envelope.map_err(|error| Failure::malformed(&first, &error))?;
    let mut policy =
        TrustedPolicy::bootstrap(&envelope, genesis).map_err(|refusal| Failure::refused(&first, &refusal))?;
    for version in (2..=VERSIONS_MAX).take_while(|_| folder) {
        let file = path.join(format!("{version}.bundle"));
        if !file.exists() {
            break;
        }
        let bundle = read_bundle(&file)?;
        let next = Evidence::open(&policy, &bundle).and_then(|evidence| policy.succeed(&evidence));
        policy = next.map_err(|refusal| Failure::refused(&file, &refusal))?;
    }
    Ok(policy)
}

/// The bundle in a file; nothing in it is verified.
pub(crate) fn read_bundle(path: &Path) -> Result<Bundle, Failure> {
    Bundle::parse(&read(path, BUNDLE_BYTES_MAX)?).map_err(|error| Failure::malformed(path, &error))
}

/// A file of at most `limit` bytes; of a longer one just enough is read for its parser to refuse.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| Failure::unreadable(path, &error))
}
