//! [`Catalog`] on SQLite. Each call is one statement, so it is atomic by itself.

use async_trait::async_trait;
use bytes::Bytes;
use stdx::UnixTime;

use super::{SqliteStore, failed};
use crate::{Catalog, Enqueued, Error, Job, JobKey, Key, Lease, Listing, Name, Record, RecordKey, Term};

#[async_trait]
impl Catalog for SqliteStore {
    async fn put(&self, key: &RecordKey, bytes: Bytes) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO records (name, key, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (name, key) DO UPDATE SET bytes = excluded.bytes",
        )
        .bind(key.table.as_str())
        .bind(key.key.as_str())
        .bind(bytes.as_ref())
        .execute(&self.pool)
        .await
        .map_err(failed("write a record"))?;
        Ok(())
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Bytes>, Error> {
        let bytes: Option<Vec<u8>> = sqlx::query_scalar("SELECT bytes FROM records WHERE name = ?1 AND key = ?2")
            .bind(key.table.as_str())
            .bind(key.key.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a record"))?;
        Ok(bytes.map(Bytes::from))
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), Error> {
        sqlx::query("DELETE FROM records WHERE name = ?1 AND key = ?2")
            .bind(key.table.as_str())
            .bind(key.key.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("remove a record"))?;
        Ok(())
    }

    async fn list(&self, table: &Name, listing: &Listing) -> Result<Vec<Record>, Error> {
        let prefix = listing.folder.prefix();
        // Keys below `a/` are those from `a/` up to `a0`: `0` is the byte after `/`.
        let end = prefix.strip_suffix('/').map(|folder| format!("{folder}0"));
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT key, bytes FROM records
             WHERE name = ?1 AND key >= ?2 AND key > ?3 AND (?4 IS NULL OR key < ?4) ORDER BY key LIMIT ?5",
        )
        .bind(table.as_str())
        .bind(prefix)
        .bind(listing.after.as_ref().map_or("", Key::as_str))
        .bind(end)
        .bind(i64::try_from(listing.limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("list records"))?;
        rows.into_iter().map(|(key, bytes)| Ok(Record { key: stored_key(&key)?, bytes: bytes.into() })).collect()
    }

    async fn enqueue(&self, job: &JobKey, bytes: Bytes) -> Result<Enqueued, Error> {
        let done =
            sqlx::query("INSERT INTO jobs (queue, id, bytes) VALUES (?1, ?2, ?3) ON CONFLICT (queue, id) DO NOTHING")
                .bind(job.queue.as_str())
                .bind(job.id.as_str())
                .bind(bytes.as_ref())
                .execute(&self.pool)
                .await
                .map_err(failed("add a job"))?;
        Ok(if done.rows_affected() == 1 { Enqueued::New } else { Enqueued::Existed })
    }

    async fn claim(&self, queue: &Name, term: &Term) -> Result<Option<Job>, Error> {
        // To its end, as in `compare_and_swap`.
        let rows: Vec<(i64, i64, String, Vec<u8>)> = sqlx::query_as(
            "UPDATE jobs SET holder = ?2, until = ?4, claim = claim + 1
             WHERE run = (SELECT run FROM jobs WHERE queue = ?1 AND until <= ?3 ORDER BY run LIMIT 1)
             RETURNING run, claim, id, bytes",
        )
        .bind(queue.as_str())
        .bind(term.holder.as_str())
        .bind(seconds(term.now))
        .bind(seconds(term.until))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("claim a job"))?;
        rows.into_iter()
            .next()
            .map(|(run, claim, id, bytes)| {
                let job = JobKey { queue: queue.clone(), id: stored_key(&id)? };
                Ok(Job { lease: Lease { job, run, claim }, bytes: bytes.into() })
            })
            .transpose()
    }

    async fn renew(&self, lease: &Lease, term: &Term) -> Result<(), Error> {
        let done = sqlx::query("UPDATE jobs SET until = ?3, holder = ?4 WHERE run = ?1 AND claim = ?2")
            .bind(lease.run)
            .bind(lease.claim)
            .bind(seconds(term.until))
            .bind(term.holder.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("renew a lease"))?;
        held(lease, done.rows_affected())
    }

    async fn finish(&self, lease: &Lease) -> Result<(), Error> {
        let done = sqlx::query("DELETE FROM jobs WHERE run = ?1 AND claim = ?2")
            .bind(lease.run)
            .bind(lease.claim)
            .execute(&self.pool)
            .await
            .map_err(failed("finish a job"))?;
        held(lease, done.rows_affected())
    }

    async fn unfinished(&self, queue: &Name) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE queue = ?1")
            .bind(queue.as_str())
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count jobs"))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

fn held(lease: &Lease, rows: u64) -> Result<(), Error> {
    if rows == 1 { Ok(()) } else { Err(Error::LeaseLost { id: lease.job.id.clone() }) }
}

fn stored_key(text: &str) -> Result<Key, Error> {
    text.parse().map_err(|error| Error::Database { action: "give back a key", source: Box::new(error) })
}

/// `UnixTime` ends in year 9999, far below `i64::MAX`.
fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.seconds()).unwrap_or(i64::MAX)
}
