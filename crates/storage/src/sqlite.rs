//! Locks and the catalog in one SQLite file.
//!
//! One connection does everything, so that calls are serial in this process; SQLite's own lock
//! makes them so across processes. WAL with `synchronous=FULL` syncs each commit once.

mod catalog;
mod lock;

use std::path::Path;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::Error;

/// "CLST": marks the file as ours.
const APPLICATION_ID: i32 = 0x434c_5354;
/// The version of the tables below.
const SCHEMA_VERSION: i32 = 1;

/// How long a call waits while another process writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE locks (
        key TEXT PRIMARY KEY, version INTEGER NOT NULL, bytes BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE records (
        name TEXT NOT NULL, key TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (name, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE jobs (
        run INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, id TEXT NOT NULL, bytes BLOB NOT NULL,
        holder TEXT, until INTEGER NOT NULL DEFAULT 0, claim INTEGER NOT NULL DEFAULT 0, UNIQUE (queue, id)
    ) STRICT;
    CREATE INDEX jobs_by_age ON jobs (queue, run);
    PRAGMA application_id = 0x434c5354;
    PRAGMA user_version = 1;
";

/// Locks and the catalog in one file of this machine.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Makes an empty store in the file `path`, which must be missing, and opens it.
    ///
    /// # Errors
    /// [`Error::Exists`] when something is there; errors of the database.
    pub async fn create(path: &Path) -> Result<Self, Error> {
        // An empty file is what a `create` leaves that died before its one transaction.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed("be created"))?;
        let mut transaction = connection.begin_with("BEGIN EXCLUSIVE").await.map_err(failed("be created"))?;
        sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await.map_err(failed("be created"))?;
        transaction.commit().await.map_err(failed("be created"))?;
        connection.close().await.map_err(failed("be created"))?;
        Self::open(path).await
    }

    /// Opens the store in the file `path`.
    ///
    /// # Errors
    /// [`Error::NotAStore`] when it isn't one; errors of the database.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let not_a_store = || Error::NotAStore { path: path.to_owned(), kind: "store of locks and records" };
        if !path.is_file() {
            return Err(not_a_store());
        }
        recognise(path).await?.then_some(()).ok_or_else(not_a_store)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        // A file does not go away as a server does: no question first whether it is still there, for each call.
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
        let pool = pool.connect_with(options).await.map_err(failed("be opened"))?;
        Ok(Self { pool })
    }

    /// Closes the file, so that nothing of it is left beside it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Looks for damage in the file itself (SQLite's `quick_check`); what it found, in words.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn check(&self) -> Result<Vec<String>, Error> {
        let found: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(100)")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("check itself"))?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }
}

/// Whether the file is ours. Read before anything else, and without writing.
async fn recognise(path: &Path) -> Result<bool, Error> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed("be opened"))?;
    let pragmas = async {
        let id: i32 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await?;
        let version: i32 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await?;
        Ok::<_, sqlx::Error>((id, version))
    }
    .await;
    let ours = match pragmas {
        Ok((APPLICATION_ID, version)) if version > SCHEMA_VERSION => {
            let format = |version: i32| u32::try_from(version).unwrap_or_default();
            let (found, known) = (format(version), format(SCHEMA_VERSION));
            return Err(Error::Newer { path: path.to_owned(), found, known });
        }
        Ok(found) => found == (APPLICATION_ID, SCHEMA_VERSION),
        // 26 is SQLITE_NOTADB: some other file.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("26") => false,
        Err(error) => return Err(failed("be opened")(error)),
    };
    connection.close().await.map_err(failed("be opened"))?;
    Ok(ours)
}

fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Database { action, source: Box::new(source) }
}
