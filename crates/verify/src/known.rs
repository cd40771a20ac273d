//! Signatures that were found good, so that the same bytes are not checked twice.
//!
//! Whether signatures are good follows from a policy and from bytes: no clock has a part in it, nor anything that
//! was seen before. So an answer may be kept for as long as the policy is in force, by SHA-256 of everything that was
//! looked at. Only good ones are, and only so many: who sends bad ones, or many, costs time and changes no
//! answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stdx::Digest;

/// Statements and checkpoints in use at the same time are a few hundred; one takes about 200 bytes.
const KEPT_MAX: usize = 4096;

/// What was found about bytes that are good, under one policy.
#[derive(Debug)]
pub(crate) struct Known<T>(Mutex<Generations<T>>);

/// What nobody asks for while so many others come is forgotten with its generation.
#[derive(Debug)]
struct Generations<T> {
    young: HashMap<Digest, T>,
    old: HashMap<Digest, T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<T: Clone> Known<T> {
    /// What was found when these bytes were looked at first. `bytes` are all that `look` reads besides the policy.
    ///
    /// # Errors
    /// Those of `look`; nothing is kept then.
    pub(crate) fn or_look<E>(&self, bytes: &[u8], look: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let name = Digest::of(bytes);
        if let Some(found) = self.generations().get(&name) {
            return Ok(found);
        }
        let found = look()?;
        self.generations().keep(name, found.clone());
        Ok(found)
    }

    /// Who panicked while they had it has left whole answers only.
    fn generations(&self) -> MutexGuard<'_, Generations<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Generations<T> {
    fn get(&mut self, name: &Digest) -> Option<T> {
        if let Some(found) = self.young.get(name) {
            return Some(found.clone());
        }
        let found = self.old.remove(name)?;
        self.keep(*name, found.clone());
        Some(found)
    }

    fn keep(&mut self, name: Digest, found: T) {
        if self.young.len() >= KEPT_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, found);
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT_MAX, Known};

    #[test]
    fn what_is_good_is_looked_at_once_and_what_is_bad_each_time() {
        let (known, mut looks) = (Known::<u8>::default(), 0);
        let mut ask = |bytes: &[u8], answer: Result<u8, u8>| {
            known.or_look(bytes, || {
                looks += 1;
                answer
            })
        };
        assert_eq!(ask(b"a", Err(1)), Err(1));
        assert_eq!(ask(b"a", Ok(2)), Ok(2));
        assert_eq!(ask(b"a", Err(3)), Ok(2));
        assert_eq!(ask(b"b", Err(4)), Err(4));
        assert_eq!(looks, 3);
    }

    #[test]
    fn it_keeps_what_is_asked_for_and_never_more_than_two_generations() {
        let known = Known::<usize>::default();
        for number in 0..5 * KEPT_MAX {
            known.or_look::<()>(&number.to_le_bytes(), || Ok(number)).unwrap();
            assert_eq!(known.or_look(&0_usize.to_le_bytes(), || Err("it was forgotten")), Ok(0));
            let generations = known.generations();
            assert!(generations.young.len() <= KEPT_MAX && generations.old.len() <= KEPT_MAX);
        }
        assert_eq!(known.or_look(&1_usize.to_le_bytes(), || Err("it was forgotten")), Err("it was forgotten"));
    }
}
