//! Locks and the catalog in a schema of a PostgreSQL database.
//!
//! Each call is one statement in a transaction of its own, so it is atomic by itself.

mod catalog;
mod lock;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use storage::{Error, Name};

use crate::error::failed;

/// The version of the tables below.
const SCHEMA_VERSION: i32 = 1;

/// No statement of ours takes more than milliseconds; what takes longer waits for a lock of somebody
/// else's, or for a disk that is gone.
const STATEMENT_TIMEOUT: &str = "10s";
/// How long a call waits for a free connection, and so for a server that restarts.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls are short; more connections would only queue in the server.
const CONNECTIONS_MAX: u32 = 8;

const TABLES: &str = "
    CREATE TABLE store (version INTEGER NOT NULL);
    INSERT INTO store VALUES (1);
    CREATE TABLE locks (
        key TEXT COLLATE \"C\" PRIMARY KEY, version BIGINT NOT NULL, bytes BYTEA NOT NULL
    );
    CREATE TABLE records (
        name TEXT COLLATE \"C\" NOT NULL, key TEXT COLLATE \"C\" NOT NULL, bytes BYTEA NOT NULL,
        PRIMARY KEY (name, key)
    );
    CREATE TABLE jobs (
        run BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue TEXT COLLATE \"C\" NOT NULL, id TEXT COLLATE \"C\" NOT NULL, bytes BYTEA NOT NULL,
        holder TEXT, until BIGINT NOT NULL DEFAULT 0, claim BIGINT NOT NULL DEFAULT 0, UNIQUE (queue, id)
    );
    CREATE INDEX jobs_by_age ON jobs (queue, run);
";

/// Where a database is, and who may use it.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://USER@HOST:PORT/DATABASE`; a host that is a path is the folder of a Unix socket.
    pub url: String,
    /// The user's password, if it needs one.
    pub password: Option<String>,
    /// The schema that holds the tables, one for each store.
    pub schema: Name,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl PostgresSettings {
    fn name(&self) -> String {
        format!("PostgreSQL schema `{}` at {}", self.schema, self.url)
    }

    fn options(&self) -> Result<PgConnectOptions, Error> {
        let options: PgConnectOptions = self.url.parse().map_err(failed(&self.name(), "be used with this URL"))?;
        // Unquoted, a name with a capital or a dash would be another one.
        let schema = format!("\"{}\"", self.schema);
        // The session's own settings win over those of the user and of the database.
        let options = options.application_name("clerestory").options([
            ("search_path", &*schema),
            ("synchronous_commit", "on"),
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
        Ok(match &self.password {
            Some(password) => options.password(password),
            None => options,
        })
    }
}

/// Locks and the catalog in one schema. Any number of processes may hold one.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    name: String,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PostgresStore {
    /// Makes an empty store in a schema that must not be there yet, and opens it.
    ///
    /// # Errors
    /// [`Error::Exists`] when the schema is there; [`Error::Setup`], [`Error::Service`].
    pub async fn create(settings: &PostgresSettings) -> Result<Self, Error> {
        let store = Self::connect(settings).await?;
        let failed = |action| failed::<sqlx::Error>(&store.name, action);
        let mut transaction = store.pool.begin().await.map_err(failed("be created"))?;
        // A name has letters, digits, `.`, `_` and `-` only, so no quote.
        let schema = sqlx::AssertSqlSafe(format!("CREATE SCHEMA \"{}\"", settings.schema));
        match sqlx::raw_sql(schema).execute(&mut *transaction).await {
            Ok(_) => {}
            Err(error) if code(&error).as_deref() == Some("42P06") => {
                return Err(Error::Exists { path: PathBuf::from(&store.name) });
            }
            Err(error) if code(&error).as_deref() == Some("42501") => {
                return Err(Error::Setup {
                    service: store.name.clone(),
                    problem: "this user may not make a schema in the database".to_owned(),
                    hint: "GRANT CREATE ON DATABASE … TO …, or give the user a database of its own",
                });
            }
            Err(error) => return Err(failed("be created")(error)),
        }
        sqlx::raw_sql(TABLES).execute(&mut *transaction).await.map_err(failed("be created"))?;
        transaction.commit().await.map_err(failed("be created"))?;
        Ok(store)
    }

    /// Opens a store.
    ///
    /// # Errors
    /// [`Error::NotAStore`] when the schema holds none; [`Error::Setup`] when the server would lose
    /// what it reports as written, or these credentials may not use it; [`Error::Service`].
    pub async fn open(settings: &PostgresSettings) -> Result<Self, Error> {
        let store = Self::connect(settings).await?;
        let version = sqlx::query_scalar::<_, i32>("SELECT version FROM store").fetch_optional(&store.pool).await;
        match version {
            Ok(Some(SCHEMA_VERSION)) => Ok(store),
            // 42P01: no such table.
            Err(error) if code(&error).as_deref() != Some("42P01") => Err(failed(&store.name, "be opened")(error)),
            _ => Err(Error::NotAStore { path: PathBuf::from(&store.name), kind: "store of locks and records" }),
        }
    }

    async fn connect(settings: &PostgresSettings) -> Result<Self, Error> {
        let name = settings.name();
        let options = settings.options()?;
        // A pool would try again until its time is over, and hide why.
        let first = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await;
        let mut first = first.map_err(|error| not_set_up(&name, error))?;
        durable(&name, &mut first).await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        Ok(Self { pool, name })
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Reads every row; what could not be read, in words. Whether a page was changed behind the
    /// server's back it sees only with data checksums (`initdb --data-checksums`).
    ///
    /// # Errors
    /// Errors of the service.
    pub async fn check(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for table in ["locks", "records", "jobs"] {
            let all = sqlx::AssertSqlSafe(format!("SELECT coalesce(sum(length(bytes)), 0)::BIGINT FROM {table}"));
            match sqlx::query_scalar::<_, i64>(all).fetch_one(&self.pool).await {
                Ok(_) => {}
                // XX001, XX002: the server itself calls a table or an index corrupted.
                Err(error) if matches!(code(&error).as_deref(), Some("XX001" | "XX002")) => {
                    found.push(format!("table `{table}`: {error}"));
                }
                Err(error) => return Err(failed(&self.name, "check itself")(error)),
            }
        }
        Ok(found)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(sqlx::Error) -> Error + use<> {
        failed(&self.name, action)
    }
}

/// A server that forgets what it has said to be written would let a log sign two trees.
async fn durable(name: &str, connection: &mut sqlx::PgConnection) -> Result<(), Error> {
    for (setting, good) in
        [("fsync", &["on"][..]), ("full_page_writes", &["on"]), ("synchronous_commit", &["on", "remote_apply"])]
    {
        let show = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(setting);
        let found = show.fetch_one(&mut *connection).await.map_err(failed(name, "tell its settings"))?;
        if !good.contains(&found.as_str()) {
            return Err(Error::Setup {
                service: name.to_owned(),
                problem: format!("`{setting}` is `{found}`, so the server may forget what it said was written"),
                hint: "set fsync, full_page_writes and synchronous_commit to on; a log that forgets can't go on",
            });
        }
    }
    Ok(())
}

fn not_set_up(name: &str, error: sqlx::Error) -> Error {
    let (problem, hint) = match code(&error).as_deref() {
        Some("28P01" | "28000") => (
            "the server refuses these credentials",
            "compare user and password with the server's, and its pg_hba.conf with the address that this comes from",
        ),
        Some("3D000") => ("there is no such database", "CREATE DATABASE … OWNER …; Clerestory makes none by itself"),
        _ => return failed(name, "be reached")(error),
    };
    Error::Setup { service: name.to_owned(), problem: problem.to_owned(), hint }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}
