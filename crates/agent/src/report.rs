//! What a command did.

use std::fmt;

use api::ErrorClass;
use attest::{ProductId, ReleaseNumber};
use serde::Serialize;

use crate::failure::Failure;

/// Something that is now otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A policy succeeded.
    Policy {
        /// Its version.
        version: u64,
    },
    /// A release was installed.
    Installed {
        /// The product.
        product: ProductId,
        /// The release.
        number: ReleaseNumber,
        /// Its version.
        version: String,
    },
    /// The previous release was put back.
    Reverted {
        /// The product.
        product: ProductId,
        /// The release that is in use now.
        number: ReleaseNumber,
        /// Why.
        reason: String,
    },
    /// The product was switched off, for there is nothing that may run.
    Disabled {
        /// The product.
        product: ProductId,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { version } => write!(f, "policy version {version} is in force"),
            Self::Installed { product, number, version } => write!(f, "{product} {version} ({number}) installed"),
            Self::Reverted { product, number, reason } => write!(f, "{product} put back to {number}: {reason}"),
            Self::Disabled { product, reason } => write!(f, "{product} DISABLED: {reason}"),
        }
    }
}

/// What changed, and what did not for a reason.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What is now otherwise.
    pub changes: Vec<Change>,
    /// What was refused or could not be had; what is installed stays in use.
    pub failures: Vec<Failure>,
}

impl Report {
    /// 0 if all went well, 1 if anything was refused or switched off, 75 if something was merely
    /// not to be had.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.changes.iter().any(|change| matches!(change, Change::Disabled { .. })) {
            return 1;
        }
        let codes = self.failures.iter().map(|failure| failure.class.exit_code());
        codes.min_by_key(|code| u8::from(*code == ErrorClass::Unavailable.exit_code())).unwrap_or(0)
    }

    /// What another report says, behind what this one says.
    pub(crate) fn merge(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.failures.extend(other.failures);
    }

    /// Whether a failure has this code.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.failures.iter().any(|failure| failure.code == code)
    }
}
