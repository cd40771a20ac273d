//! What came of an access, as the log has it.

use attest::{AccessOutcome, Bundle};
use policy::Role;
use verify::{Evidence, Recorded};

use crate::decide::{Custodian, by, in_log, residency};
use crate::refusal::Refusal;

/// A logged outcome. Only [`conclude`] makes one.
#[derive(Debug)]
pub struct Concluded {
    pub(crate) outcome: Recorded<AccessOutcome>,
}

/// The outcome that `bundle` has and nothing else, if it stands where it must and the gateway has signed it.
///
/// # Errors
/// [`Refusal`].
pub fn conclude(custodian: &Custodian<'_>, bundle: &Bundle) -> Result<Concluded, Refusal> {
    let residency = residency(custodian)?;
    let evidence = Evidence::open(custodian.policy, bundle)?;
    let outcome: Recorded<AccessOutcome> = evidence.one(Role::Gateway)?;
    if bundle.entries().len() != 1 {
        return Err(verify::Refusal::Shape("holds entries that nobody asked for".to_owned()).into());
    }
    in_log(&outcome, residency)?;
    by(&outcome, &residency.gateway, Role::Gateway)?;
    if outcome.statement().predicate.position.stream.as_str() != format!("access/{}", residency.gateway) {
        return Err(Refusal::unfit("outcome", outcome.id(), "stands in another stream than the gateway's"));
    }
    Ok(Concluded { outcome })
}
