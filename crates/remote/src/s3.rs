//! Objects in a bucket of any S3.
//!
//! ```text
//! PREFIX/store        marks the prefix as a store and names its version
//! PREFIX/objects/KEY  the objects
//! ```

mod list;
mod seen;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectStoreExt as _, PutMode, PutOptions, PutResult, RetryConfig,
    UpdateVersion,
};
use storage::{Error, Key, Listing, MAX_OBJECT_BYTES, Move, ObjectStore, Piece, Put};

use crate::error::failed;
use crate::s3::seen::Seen;

const MARKER_TEXT: &[u8] = b"clerestory objects 1\n";

/// How many objects of a batch are on their way at once: enough to hide a round trip of 10 ms, and
/// few enough that a batch of 32 MiB doesn't starve everybody else's reads.
const BATCH_AT_ONCE: usize = 16;

/// A request that was sent ends after this; 1 GiB at 20 MB/s take 54 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A machine that doesn't take a connection by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A request that may be repeated is, for so long: a service that restarts is back within seconds.
/// Beyond that the engines do the waiting, where it is seen.
const RETRY_FOR: Duration = Duration::from_secs(5);
/// Waits are drawn from 0.1 s to twice the one before: ten of them are over after 2.6 s as a rule, and after
/// 1.4 s at times. Fifty never end before the time does.
const RETRIES_MAX: usize = 50;
/// No wait is longer: a service that is back is found.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a bucket is, and who may use it.
#[derive(Clone)]
pub struct S3Settings {
    /// The service's URL; requests name the bucket in the path.
    pub endpoint: String,
    /// The region, as requests are signed for it.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// What all keys of this store start with.
    pub prefix: Key,
    /// Who asks.
    pub access_key_id: String,
    /// The secret that goes with it.
    pub secret_access_key: String,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl S3Settings {
    fn name(&self) -> String {
        format!("S3 bucket `{}/{}` at {}", self.bucket, self.prefix, self.endpoint)
    }
}

/// Objects below a prefix of a bucket. Any number of processes may hold one.
#[derive(Debug)]
pub struct S3Objects {
    bucket: AmazonS3,
    prefix: Key,
    name: String,
    seen: Seen,
}

impl S3Objects {
    /// Makes an empty store below the prefix, where nothing may be, and opens it.
    ///
    /// # Errors
    /// [`Error::Exists`] when something is there; [`Error::Setup`], [`Error::Service`].
    pub async fn create(settings: &S3Settings) -> Result<Self, Error> {
        let store = Self::new(settings)?;
        let any = Path::from(store.prefix.as_str());
        let found = object_store::ObjectStore::list(&store.bucket, Some(&any)).next().await;
        if found.transpose().map_err(|error| store.not_set_up(error))?.is_some() {
            return Err(Error::Exists { path: PathBuf::from(&store.name) });
        }
        let marker = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = object_store::ObjectStore::put_opts(&store.bucket, &store.marker(), MARKER_TEXT.into(), marker).await;
        match put {
            Ok(_) => Ok(store),
            Err(object_store::Error::AlreadyExists { .. }) => Err(Error::Exists { path: PathBuf::from(&store.name) }),
            Err(error) => Err(store.not_set_up(error)),
        }
    }

    /// Opens a store.
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Setup`] when the bucket is missing or these credentials may not
    /// use it; [`Error::Service`].
    pub async fn open(settings: &S3Settings) -> Result<Self, Error> {
        let store = Self::new(settings)?;
        let none = || Error::NotAStore { path: PathBuf::from(&store.name), kind: "store of objects" };
        match store.bucket.get(&store.marker()).await {
            Ok(found) if found.meta.size == MARKER_TEXT.len() as u64 => {
                let text = found.bytes().await.map_err(failed(&store.name, "read its marker"))?;
                if text == MARKER_TEXT { Ok(store) } else { Err(none()) }
            }
            Ok(_) => Err(none()),
            Err(object_store::Error::NotFound { .. }) => {
                // A missing bucket looks the same in a read, and not in a listing.
                let any = Path::from(store.prefix.as_str());
                let listed = object_store::ObjectStore::list(&store.bucket, Some(&any)).next().await;
                listed.transpose().map_err(|error| store.not_set_up(error))?;
                Err(none())
            }
            Err(error) => Err(store.not_set_up(error)),
        }
    }

    fn new(settings: &S3Settings) -> Result<Self, Error> {
        let plain = settings.endpoint.starts_with("http://");
        let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
        let backoff = BackoffConfig { max_backoff: RETRY_WAIT_MAX, ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_FOR };
        let bucket = AmazonS3Builder::new()
            .with_endpoint(&settings.endpoint)
            .with_region(&settings.region)
            .with_bucket_name(&settings.bucket)
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(&settings.secret_access_key)
            .with_client_options(client.with_allow_http(plain))
            .with_retry(retry)
            .build()
            .map_err(failed(&settings.name(), "be used with these settings"))?;
        Ok(Self { bucket, prefix: settings.prefix.clone(), name: settings.name(), seen: Seen::default() })
    }

    /// What a first request failed for, with what to do. Listings give S3's code in their text only.
    fn not_set_up(&self, error: object_store::Error) -> Error {
        let text = format!("{error:?}");
        let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
        let (problem, hint) = if says(&["NoSuchBucket"]) {
            ("there is no such bucket", "make the bucket first; Clerestory makes none by itself")
        } else if says(&["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"]) {
            (
                "the service refuses these credentials",
                "compare access key id and secret with the service's; they must allow to read, write, list and delete",
            )
        } else {
            return failed(&self.name, "be reached")(error);
        };
        Error::Setup { service: self.name.clone(), problem: problem.to_owned(), hint }
    }

    fn marker(&self) -> Path {
        Path::from(format!("{}/store", self.prefix))
    }

    fn objects(&self) -> String {
        format!("{}/objects/", self.prefix)
    }

    fn path(&self, key: &Key) -> Path {
        Path::from(format!("{}{key}", self.objects()))
    }

    async fn put_as(&self, key: &Key, bytes: Bytes, mode: PutMode) -> object_store::Result<PutResult> {
        let options = PutOptions { mode, ..PutOptions::default() };
        object_store::ObjectStore::put_opts(&self.bucket, &self.path(key), bytes.into(), options).await
    }

    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<Put, Error> {
        within_limit(key, bytes.len() as u64)?;
        match self.put_as(key, bytes.clone(), PutMode::Create).await {
            Ok(_) => Ok(Put::New),
            Err(object_store::Error::AlreadyExists { .. }) => match self.read(key).await? {
                Some((found, _)) if found == bytes => Ok(Put::Same),
                Some(_) => Err(Error::Conflict { key: key.clone() }),
                // Deleted meanwhile, or still being written by another.
                None => Err(failed(&self.name, "write an object")("it came and went; try again")),
            },
            Err(error) => Err(failed(&self.name, "write an object")(error)),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<(Bytes, Option<UpdateVersion>)>, Error> {
        let found = match self.bucket.get(&self.path(key)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(&self.name, "read an object")(error)),
        };
        within_limit(key, found.meta.size)?;
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: None };
        let bytes = found.bytes().await.map_err(failed(&self.name, "read an object"))?;
        Ok(Some((bytes, version.e_tag.is_some().then_some(version))))
    }
}

#[async_trait]
impl ObjectStore for S3Objects {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, Error> {
        self.put_new(key, bytes).await
    }

    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), Error> {
        for (key, bytes) in &objects {
            within_limit(key, bytes.len() as u64)?;
        }
        stream::iter(objects)
            .map(|(key, bytes)| async move { self.put_new(&key, bytes).await })
            .buffer_unordered(BATCH_AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    /// There is no renaming: each is written again, and then deleted where it was.
    async fn move_all(&self, moves: Vec<Move>) -> Result<(), Error> {
        let (from, objects): (Vec<Key>, Vec<_>) = moves.into_iter().map(|it| (it.from, (it.to, it.bytes))).unzip();
        self.put_all(objects).await?;
        stream::iter(from)
            .map(|key| async move { self.delete(&key).await })
            .buffer_unordered(BATCH_AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Over what this process saw there last, and over nothing else: of two processes that write the
    /// same object, one that was asleep must not undo what the other has done since.
    async fn replace(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        within_limit(key, bytes.len() as u64)?;
        // The first time, what is there counts as seen; the second, what this process may itself have
        // written before its connection broke.
        let mut base = self.seen.version(key);
        if base.is_none() {
            base = self.read(key).await?.and_then(|(_, version)| version);
        }
        for _ in 0..2 {
            let mode = base.take().map_or(PutMode::Create, PutMode::Update);
            self.seen.attempt(key, &bytes);
            match self.put_as(key, bytes.clone(), mode).await {
                Ok(done) => {
                    self.seen.wrote(key, UpdateVersion::from(done));
                    return Ok(());
                }
                Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(failed(&self.name, "replace an object")(error)),
            }
            let found = self.read(key).await?;
            match found {
                Some((found, Some(version))) if found == bytes => {
                    self.seen.wrote(key, version);
                    return Ok(());
                }
                Some((found, Some(version))) if self.seen.attempted(key, &found) => base = Some(version),
                _ => break,
            }
        }
        Err(Error::Conflict { key: key.clone() })
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let Some((bytes, version)) = self.read(key).await? else { return Ok(None) };
        if let Some(version) = version {
            self.seen.read(key, version);
        }
        Ok(Some(bytes))
    }

    async fn get_piece(&self, key: &Key, range: Range<u64>) -> Result<Option<Piece>, Error> {
        let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
        let found = match object_store::ObjectStore::get_opts(&self.bucket, &self.path(key), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            // Behind the end S3 has another answer than others; its size says which it was.
            Err(error) => match self.bucket.head(&self.path(key)).await {
                Ok(meta) if meta.size <= range.start => {
                    return Ok(Some(Piece { bytes: Bytes::new(), size: meta.size }));
                }
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                _ => return Err(failed(&self.name, "read a piece of an object")(error)),
            },
        };
        let size = found.meta.size;
        within_limit(key, range.end.min(size).saturating_sub(range.start))?;
        let bytes = found.bytes().await.map_err(failed(&self.name, "read a piece of an object"))?;
        Ok(Some(Piece { bytes, size }))
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, Error> {
        list::list(self, listing).await
    }

    async fn bytes(&self) -> Result<u64, Error> {
        list::bytes(self).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        match self.bucket.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&self.name, "delete an object")(error)),
        }
    }
}

fn within_limit(key: &Key, size: u64) -> Result<(), Error> {
    if size > MAX_OBJECT_BYTES { Err(Error::TooLarge { key: key.clone(), size }) } else { Ok(()) }
}
