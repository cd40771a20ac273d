//! [`LockStore`] on PostgreSQL.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::query::QueryScalar;
use sqlx::{Database, Postgres};

use super::PostgresStore;
use storage::{Error, Key, LockBatch, LockStore, Swap, Swapping, Version, Versioned};

#[async_trait]
impl LockStore for PostgresStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, Error> {
        let row: Option<(i64, Vec<u8>)> = sqlx::query_as("SELECT version, bytes FROM locks WHERE key = $1")
            .bind(key.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(self.failed("read a lock"))?;
        Ok(row.map(|(version, bytes)| Versioned { bytes: bytes.into(), version: Version::new(version.to_string()) }))
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, Error> {
        let Some(query) = swap(key, expected, &bytes) else { return Ok(Swap::Lost) };
        // To its end: a statement is committed when it is done, and not yet at its first row. What fails
        // in between (the sync, say) is told to nobody who has gone away with the row.
        let won: Vec<i64> = query.fetch_all(&self.pool).await.map_err(self.failed("swap a lock"))?;
        Ok(won.first().map_or(Swap::Lost, |version| Swap::Won(Version::new(version.to_string()))))
    }
}

/// The statement of a swap; none if no row can have such a version: one that another kind of store made.
fn swap<'q>(
    key: &'q Key,
    expected: Option<&Version>,
    bytes: &'q Bytes,
) -> Option<QueryScalar<'q, Postgres, i64, <Postgres as Database>::Arguments>> {
    // Rows are never deleted, so counting up by one never repeats a version.
    let statement = match expected {
        None => {
            "INSERT INTO locks (key, version, bytes) VALUES ($1, 1, $2)
             ON CONFLICT (key) DO NOTHING RETURNING version"
        }
        Some(_) => {
            "UPDATE locks SET bytes = $2, version = version + 1 WHERE key = $1 AND version = $3 RETURNING version"
        }
    };
    let query = sqlx::query_scalar(statement).bind(key.as_str()).bind(bytes.as_ref());
    match expected {
        Some(version) => Some(query.bind(version.as_str().parse::<i64>().ok()?)),
        None => Some(query),
    }
}

#[async_trait]
impl LockBatch for PostgresStore {
    async fn swap_all(&self, swaps: &[Swapping]) -> Result<Vec<usize>, Error> {
        let mut transaction = self.pool.begin().await.map_err(self.failed("swap locks"))?;
        // Everybody takes rows in one order, so that nobody waits for somebody who waits for him.
        let mut order: Vec<(usize, &Swapping)> = swaps.iter().enumerate().collect();
        order.sort_unstable_by(|(_, one), (_, other)| one.key.cmp(&other.key));
        let mut lost = Vec::new();
        for (at, Swapping { key, expected, bytes }) in order {
            let won = match swap(key, expected.as_ref(), bytes) {
                Some(query) => query.fetch_optional(&mut *transaction).await.map_err(self.failed("swap locks"))?,
                None => None,
            };
            if won.is_none() {
                lost.push(at);
            }
        }
        let done = if lost.is_empty() { transaction.commit().await } else { transaction.rollback().await };
        done.map_err(self.failed("swap locks"))?;
        Ok(lost)
    }
}
