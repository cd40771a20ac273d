//! [`LockStore`] on PostgreSQL.

use async_trait::async_trait;
use bytes::Bytes;

use super::PostgresStore;
use storage::{Error, Key, LockStore, Swap, Version, Versioned};

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
        let mut query = sqlx::query_scalar(statement).bind(key.as_str()).bind(bytes.as_ref());
        if let Some(version) = expected {
            // A version that another kind of store made is no version of this lock.
            let Ok(version) = version.as_str().parse::<i64>() else { return Ok(Swap::Lost) };
            query = query.bind(version);
        }
        // To its end: a statement is committed when it is done, and not yet at its first row. What fails
        // in between (the sync, say) is told to nobody who has gone away with the row.
        let won: Vec<i64> = query.fetch_all(&self.pool).await.map_err(self.failed("swap a lock"))?;
        Ok(won.first().map_or(Swap::Lost, |version| Swap::Won(Version::new(version.to_string()))))
    }
}
