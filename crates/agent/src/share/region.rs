//! Sealing for the region that the policy in force assigns to the owner's country.

use std::path::Path;

use attest::{CountryCode, Envelope, Receipt, Statement};
use policy::Role;
use seal::{Destination, Header, OwnerSecret};

use super::{Class, Seal, SealRefused, SharePorts};
use crate::memory::Memory;
use crate::trust;

/// Seals by the policy that the agent's state trusts at that moment.
pub struct RegionSeal<'a> {
    /// The agent's state.
    pub state: &'a Path,
    /// The owner's country.
    pub country: CountryCode,
    /// The machine's clock and randomness.
    pub ports: SharePorts<'a>,
}

impl RegionSeal<'_> {
    /// Where what is sealed now goes.
    ///
    /// # Errors
    /// [`SealRefused`] when the policy assigns the country to no region, or one without all its keys.
    pub fn destination(&self) -> Result<Destination, SealRefused> {
        let policy = trust::load(self.state).map_err(|failure| SealRefused(failure.to_string()))?;
        let memory = Memory::load(self.state).map_err(|failure| SealRefused(failure.to_string()))?;
        let refuse = || SealRefused("the policy names no custodians of any region".to_owned());
        let residency = policy.policy().residency.as_ref().ok_or_else(refuse)?;
        // A clock that was set back must not bring back a key whose time is over.
        let now = self.ports.clock.now().max(memory.evidence);
        Destination::new(residency, policy.id(), self.country, now).map_err(|error| SealRefused(said(&error)))
    }
}

impl Seal for RegionSeal<'_> {
    /// Any recorder of the policy may have signed it: which organisation keeps a region's vault is the
    /// owner's own choice, by the address of the intake.
    fn receipt(&self, sealed: &[u8], envelope: &Envelope) -> Result<Statement<Receipt>, SealRefused> {
        let policy = trust::load(self.state).map_err(|failure| SealRefused(failure.to_string()))?;
        let verified = policy.verify::<Receipt>(envelope, Role::Recorder);
        let verified = verified.map_err(|refusal| SealRefused(refusal.to_string()))?;
        let (header, _) = Header::parse(sealed).map_err(|error| SealRefused(said(&error)))?;
        let region = &verified.statement().predicate.region;
        if *region != header.bound.region {
            let expected = &header.bound.region;
            return Err(SealRefused(format!("it is kept in region `{region}`, and was sealed for `{expected}`")));
        }
        Ok(verified.statement().clone())
    }

    fn seal(&self, owner: &OwnerSecret, class: Class, plaintext: &[u8]) -> Result<Vec<u8>, SealRefused> {
        let class = class.as_str().parse().expect("a word of small letters");
        let sealed = self.destination()?.seal_owned(owner, &class, plaintext, self.ports.entropy);
        sealed.map_err(|error| SealRefused(said(&error)))
    }
}

/// An error with what is behind it.
fn said(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}
