//! A region's key comes to its end: what still counts moves into the custodian's own table.

use seal::Share;
use stdx::{Digest, Entropy};

use crate::grant::{Closed, ClosedShare, GrantError, ShareKeys};
use crate::ledger::{Ledger, LedgerError};
use crate::table::{Change, Table, TableError};

/// Why nothing was moved, or not all. The key must stay.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// It could not be noted.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The keys can't be asked.
    #[error(transparent)]
    Keys(#[from] GrantError),
    /// The table can't be written.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// How a key's shares were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// How many are in the table now, of this key.
    pub moved: usize,
    /// How many were made for something else than their header says: nobody can ever open these.
    pub false_ones: usize,
}

/// What a vault has, up to one of its manifests.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    /// The manifest: its number and SHA-256.
    pub manifest: (u64, Digest),
    /// This custodian's share of each object.
    pub closed: &'a [ClosedShare],
}

/// Moves the shares that are sealed to `key` into `table`: on record first, then opened, then closed again. No
/// share leaves this function. Safe to repeat; when it returns, the key may be destroyed. What was erased stays where
/// it is, and goes with the key.
///
/// # Errors
/// [`RetireError`].
pub async fn retire(
    ledger: &Ledger,
    (keys, table): (&dyn ShareKeys, &Table),
    key: &Digest,
    live: Live<'_>,
    entropy: &dyn Entropy,
) -> Result<Retired, RetireError> {
    let (mut missing, mut there) = (Vec::new(), 0);
    for it in live.closed.iter().filter(|it| it.share.key == *key) {
        match table.find(it) {
            Ok(Some(_)) => there += 1,
            Ok(None) => missing.push(it),
            Err(TableError::Erased(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ledger.moving(key, missing.len() as u64, live.manifest).await?;
    if missing.is_empty() {
        return Ok(Retired { moved: there, false_ones: 0 });
    }
    let mut moved: Vec<(ClosedShare, Share)> = Vec::with_capacity(missing.len());
    let mut false_ones = 0;
    for it in missing {
        match keys.open(std::slice::from_ref(it)) {
            Ok(shares) => {
                for share in shares {
                    match share {
                        Ok(share) => moved.push((it.clone(), share)),
                        // Whoever writes into a vault may write nonsense; it must not keep a key alive.
                        Err(Closed::False) => false_ones += 1,
                        Err(Closed::NoKey) => return Err(GrantError::NoKey(it.object).into()),
                    }
                }
            }
            // Between the look and now.
            Err(GrantError::Erased(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let count = moved.len();
    table.change(Change { add: &moved, erase: &[] }, entropy)?;
    Ok(Retired { moved: there + count, false_ones })
}
