//! Decisions over sets of signers.

use std::collections::BTreeSet;

use attest::{KeyRef, OrganisationId};

use crate::{Policy, Role, Threshold};

/// A key whose signature was checked, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signer {
    /// The organisation.
    pub organisation: OrganisationId,
    /// Its key.
    pub key: KeyRef,
}

/// What a set of signers lacks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("needs {needed} `{role}` signature(s) of `{organisation}`, has {found}")]
pub struct Missing {
    /// The role that was asked for.
    pub role: Role,
    /// Whose signatures are missing.
    pub organisation: OrganisationId,
    /// How many are needed.
    pub needed: usize,
    /// How many there are.
    pub found: usize,
}

impl Policy {
    /// Whether `signers`, all of them in `role`, meet every one of `thresholds`.
    ///
    /// # Errors
    /// [`Missing`], naming the first organisation that falls short.
    pub fn decide(role: Role, thresholds: &[Threshold], signers: &BTreeSet<Signer>) -> Result<(), Missing> {
        for threshold in thresholds {
            let found = signers.iter().filter(|signer| signer.organisation == threshold.organisation).count();
            if found < threshold.count {
                return Err(Missing {
                    role,
                    organisation: threshold.organisation.clone(),
                    needed: threshold.count,
                    found,
                });
            }
        }
        Ok(())
    }
}
