//! Quorums that survive what they declare.

use tlog::LogPolicy;

/// k of n witnesses, of which f may be faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Cosignatures needed.
    pub needed: usize,
    /// Witnesses there are.
    pub witnesses: usize,
    /// Witnesses that may lie, or have been restored from a backup, at once.
    pub faulty: usize,
}

/// Why a quorum is not acceptable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuorumError {
    /// `none`, or nested groups, whose tolerance nobody can read off.
    #[error("the quorum is not one flat group `k of n`")]
    NotFlat,
    /// Two quorums may share only liars, so two endpoints could accept forks.
    #[error("{needed} of {witnesses} does not survive {faulty} faulty witnesses: 2k-n > f must hold")]
    Forks {
        /// k
        needed: usize,
        /// n
        witnesses: usize,
        /// f
        faulty: usize,
    },
    /// Faulty witnesses alone could stop everything.
    #[error("{needed} of {witnesses} stops when {faulty} witnesses are silent: n-k >= f must hold")]
    Stops {
        /// k
        needed: usize,
        /// n
        witnesses: usize,
        /// f
        faulty: usize,
    },
}

impl Quorum {
    /// The quorum of `policy`, checked against what it declares to survive.
    ///
    /// # Errors
    /// [`QuorumError`].
    pub fn of(policy: &LogPolicy, faulty: usize) -> Result<Self, QuorumError> {
        let flat = policy.flat_quorum().ok_or(QuorumError::NotFlat)?;
        Self::new(flat.needed, flat.of, faulty)
    }

    fn new(needed: usize, witnesses: usize, faulty: usize) -> Result<Self, QuorumError> {
        if 2 * needed <= witnesses + faulty {
            return Err(QuorumError::Forks { needed, witnesses, faulty });
        }
        if needed + faulty > witnesses {
            return Err(QuorumError::Stops { needed, witnesses, faulty });
        }
        Ok(Self { needed, witnesses, faulty })
    }

    /// How many witnesses must answer so that at least one of them was in any earlier quorum.
    #[must_use]
    pub const fn intersecting(&self) -> usize {
        self.witnesses - self.needed + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked against the definition: any two quorums share more than f witnesses, and without
    /// any f of them a quorum is left.
    #[test]
    fn the_inequalities_say_what_they_mean() {
        for n in 1..8_usize {
            for k in 0..=n {
                for f in 0..=n {
                    let sets: Vec<u32> = (0..1_u32 << n).filter(|set| set.count_ones() as usize == k).collect();
                    let shares = sets.iter().all(|a| sets.iter().all(|b| (a & b).count_ones() as usize > f));
                    let lives = (0..1_u32 << n)
                        .filter(|lost| lost.count_ones() as usize == f)
                        .all(|lost| sets.iter().any(|set| set & lost == 0));
                    assert_eq!(Quorum::new(k, n, f).is_ok(), shares && lives, "{k} of {n}, {f} faulty");
                }
            }
        }
    }

    #[test]
    fn the_sample_is_three_of_four_with_one_faulty() {
        assert_eq!(Quorum::new(3, 4, 1).map(|quorum| quorum.intersecting()), Ok(2));
        assert!(matches!(Quorum::new(2, 4, 1), Err(QuorumError::Forks { .. })));
        assert!(matches!(Quorum::new(4, 4, 1), Err(QuorumError::Stops { .. })));
    }
}
