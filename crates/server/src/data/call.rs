//! Calls: whoever wants something of the gateway signs that it is so, now.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use attest::{AccessCall, Envelope, Statement};
use policy::{Role, Signer};
use stdx::{Digest, UnixTime};
use verify::TrustedPolicy;

use super::DataError;

/// A call is good for so long; clocks differ by as much.
const CALL_AGE_MAX: Duration = Duration::from_secs(60);

/// 8,000 calls a second for two minutes.
const CALLS_MAX: usize = 1 << 20;

/// The calls of the last two minutes, so that each counts once. What came before this process is refused.
pub(super) struct Calls {
    since: UnixTime,
    seen: Mutex<BTreeMap<Digest, UnixTime>>,
}

/// A call that was made just now, by whom it says, for the first time.
pub(super) struct Call {
    pub(super) who: Signer,
    pub(super) statement: Statement<AccessCall>,
}

impl Calls {
    pub(super) const fn new(since: UnixTime) -> Self {
        Self { since, seen: Mutex::new(BTreeMap::new()) }
    }

    /// Takes in a call signed by a key of one of `roles`.
    pub(super) fn take(
        &self,
        policy: &TrustedPolicy,
        text: &str,
        roles: &[Role],
        now: UnixTime,
    ) -> Result<Call, DataError> {
        let refuse = |why: &str| DataError::Call(why.to_owned());
        let envelope = Envelope::parse(text.as_bytes()).map_err(|error| DataError::Form(error.to_string()))?;
        let mut verified = roles.iter().map(|role| policy.verify::<AccessCall>(&envelope, *role));
        let verified = verified.find_map(Result::ok).ok_or_else(|| refuse("is signed by no key that may make it"))?;
        let who = one(verified.signers().iter()).ok_or_else(|| refuse("has several signers"))?.clone();
        let call = &verified.statement().predicate;
        if call.time > now.after(CALL_AGE_MAX) || now > call.time.after(CALL_AGE_MAX) {
            return Err(refuse(&format!("was made at {}; it is {now} here", call.time)));
        }
        if call.time < self.since {
            return Err(refuse("was made before this gateway was started; make another"));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CALLS_MAX {
            seen.retain(|_, time| now <= time.after(CALL_AGE_MAX));
        }
        if seen.len() >= CALLS_MAX {
            return Err(DataError::Broken("too many calls at once".to_owned()));
        }
        if seen.insert(call.nonce, call.time).is_some() {
            return Err(refuse("was made before"));
        }
        Ok(Call { who, statement: verified.statement().clone() })
    }
}

/// The only one.
pub(super) fn one<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}
