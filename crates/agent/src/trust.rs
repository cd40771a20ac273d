//! The policy in force: the genesis that the owner named, and its successors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use attest::{Bundle, Envelope, StatementId};
use verify::{Evidence, TrustedPolicy};

use crate::failure::Failure;

const INIT_HINT: &str = "set this machine up with `clerestory-agent init --policy-hash HASH --policy FILE`";

/// How the state is written; states of before there was this file are of the first format, too.
pub(crate) const FORMAT: &str = "clerestory-agent state 1\n";
const FORMAT_BEGINS: &str = "clerestory-agent state ";

pub(crate) fn format_path(state: &Path) -> PathBuf {
    state.join("format")
}

/// A later version may keep what this one would overlook: then it must not go on from the rest.
fn check_format(state: &Path) -> Result<(), Failure> {
    let path = format_path(state);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| Failure::file(&path, &error))?,
    };
    match text.trim_end().strip_prefix(FORMAT_BEGINS).and_then(|number| number.parse::<u32>().ok()) {
        Some(1) => Ok(()),
        Some(found) => Err(Failure::newer(state, found)),
        None => Err(Failure::state(&path, "names no format")),
    }
}

/// Names the genesis; written last by `init`, so that its presence means that the rest is there.
pub(crate) fn genesis_path(state: &Path) -> PathBuf {
    state.join("genesis")
}

pub(crate) fn policy_path(state: &Path, version: u64) -> PathBuf {
    state.join(channel::layout::policy(version))
}

/// The policy that the state's files lead to.
pub(crate) fn load(state: &Path) -> Result<TrustedPolicy, Failure> {
    let path = genesis_path(state);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("{}: this machine trusts no policy yet", state.display());
            return Err(Failure::rejected("not-initialised", message, INIT_HINT));
        }
        other => other.map_err(|error| Failure::file(&path, &error))?,
    };
    check_format(state)?;
    let genesis: StatementId = text.trim_end().parse().map_err(|error| Failure::state(&path, error))?;
    let first = policy_path(state, 1);
    let bytes = fs::read(&first).map_err(|error| Failure::file(&first, &error))?;
    let envelope = Envelope::parse(&bytes).map_err(|error| Failure::state(&first, error))?;
    let mut policy = TrustedPolicy::bootstrap(&envelope, &genesis).map_err(|error| Failure::state(&first, error))?;
    loop {
        let path = policy_path(state, policy.policy().version + 1);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(policy),
            other => other.map_err(|error| Failure::file(&path, &error))?,
        };
        let bundle = Bundle::parse(&bytes).map_err(|error| Failure::state(&path, error))?;
        let next = Evidence::open(&policy, &bundle).and_then(|evidence| policy.succeed(&evidence));
        policy = next.map_err(|error| Failure::state(&path, error))?;
    }
}
