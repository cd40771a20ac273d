//! The stores of a domain, wherever its configuration puts them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use remote::{PostgresSettings, PostgresStore, S3Objects, S3Settings};
use storage::{Catalog, FileObjects, Key, LockBatch, LockStore, Name, ObjectStore, SqliteStore};

use crate::config::{Config, ObjectsSection, Role, StateSection};
use crate::kept::Kept;
use crate::key_file;

/// Whether objects are only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For the one process that writes on this machine, or one of those that share an S3.
    Write,
    /// Beside a process that writes.
    Read,
}

/// Locks and the catalog.
#[derive(Clone, Debug)]
pub enum State {
    /// A file of this machine.
    Sqlite(SqliteStore, PathBuf),
    /// A schema that several machines share.
    Postgres(PostgresStore),
}

impl State {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// When it is not there, or not as it must be.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        match config.shared() {
            None => {
                let path = config.data().state();
                Ok(Self::Sqlite(SqliteStore::open(&path).await?, path))
            }
            Some(shared) => Ok(Self::Postgres(PostgresStore::open(&postgres(&shared.state)?).await?)),
        }
    }

    /// Values that change by compare-and-swap only.
    #[must_use]
    pub fn locks(&self) -> Arc<dyn LockStore> {
        match self {
            Self::Sqlite(store, _) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// The same, where many change several of them at once.
    #[must_use]
    pub fn lock_batch(&self) -> Arc<dyn LockBatch> {
        match self {
            Self::Sqlite(store, _) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Records that can be rebuilt, and the queue of jobs.
    #[must_use]
    pub fn catalog(&self) -> Arc<dyn Catalog> {
        match self {
            Self::Sqlite(store, _) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// What the store itself finds wrong with it, in words.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn check(&self) -> Result<Vec<String>, storage::Error> {
        match self {
            Self::Sqlite(store, _) => store.check().await,
            Self::Postgres(store) => store.check().await,
        }
    }

    /// What a person calls it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Sqlite(_, path) => path.display().to_string(),
            Self::Postgres(store) => format!("{store:?}"),
        }
    }

    /// Ends its connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store, _) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}

/// What all machines of a domain have, if it has several.
///
/// # Errors
/// When it is not there, or not as it must be.
pub async fn kept(config: &Config, state: &State) -> anyhow::Result<Option<Kept>> {
    let Some(shared) = config.shared() else { return Ok(None) };
    let objects = S3Objects::open(&s3(&shared.objects, "kept")?).await?;
    Ok(Some(Kept::new(Arc::new(objects), state.locks())))
}

/// The objects of the log.
///
/// # Errors
/// When they are not there, or not as they must be.
pub async fn log_objects(config: &Config, access: Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
    Ok(match (config.shared(), access) {
        (None, Access::Write) => Arc::new(FileObjects::open(&config.data().log()).await?),
        (None, Access::Read) => Arc::new(FileObjects::open_read_only(&config.data().log()).await?),
        (Some(shared), _) => Arc::new(S3Objects::open(&s3(&shared.objects, "log")?).await?),
    })
}

/// The sealed batches of an intake in `folder`; where several machines share their objects, with these.
///
/// # Errors
/// When they are not there, or not as they must be.
pub async fn intake_objects(config: &Config, folder: &Path, access: Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
    Ok(match (config.shared(), access) {
        (None, Access::Write) => Arc::new(FileObjects::open(folder).await?),
        (None, Access::Read) => Arc::new(FileObjects::open_read_only(folder).await?),
        (Some(shared), _) => Arc::new(S3Objects::open(&s3(&shared.objects, INTAKE)?).await?),
    })
}

/// What lies beside the log of access to data.
///
/// # Errors
/// When it is not there, or not as it must be.
pub async fn beside_objects(config: &Config, access: Access) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let folder = config.data().beside();
    Ok(match (config.shared(), access) {
        (None, Access::Write) => Arc::new(FileObjects::open(&folder).await?),
        (None, Access::Read) => Arc::new(FileObjects::open_read_only(&folder).await?),
        (Some(shared), _) => Arc::new(S3Objects::open(&s3(&shared.objects, BESIDE)?).await?),
    })
}

const BESIDE: &str = "beside";
const INTAKE: &str = "intake";

/// Makes the shared stores of a log's organisation, each of which must not be there yet.
///
/// # Errors
/// When one is there, or a service refuses.
pub async fn create_shared(objects: &ObjectsSection, state: &StateSection, role: Role) -> anyhow::Result<()> {
    // The schema is made wholly or not at all, and says that somebody was here before.
    PostgresStore::create(&postgres(state)?).await?.close().await;
    let intake = (role == Role::Vendor).then_some(INTAKE);
    let beside = (role == Role::Supervisor).then_some(BESIDE);
    for part in ["log", "kept"].into_iter().chain(intake).chain(beside) {
        S3Objects::create(&s3(objects, part)?).await?;
    }
    Ok(())
}

fn s3(section: &ObjectsSection, part: &str) -> anyhow::Result<S3Settings> {
    let part: Name = part.parse()?;
    let prefix: Key = section.prefix.join(&part)?;
    Ok(S3Settings {
        endpoint: section.endpoint.to_string(),
        region: section.region.clone(),
        bucket: section.bucket.clone(),
        prefix,
        access_key_id: section.access_key_id.clone(),
        secret_access_key: secret(&section.secret_access_key)?,
    })
}

fn postgres(section: &StateSection) -> anyhow::Result<PostgresSettings> {
    let password = section.password.as_deref().map(secret).transpose()?;
    Ok(PostgresSettings { url: section.url.clone(), password, schema: section.schema.clone() })
}

/// A file with one line.
fn secret(path: &Path) -> anyhow::Result<String> {
    Ok(key_file::read_secret(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

/// The secrets that `config` names can be read, by this process and by nobody else.
///
/// # Errors
/// The first that can't.
pub fn check_secrets(config: &Config) -> anyhow::Result<()> {
    let Some(shared) = config.shared() else { return Ok(()) };
    s3(&shared.objects, "log")?;
    postgres(&shared.state)?;
    Ok(())
}
