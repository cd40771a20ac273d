//! The gateway: opens a question, looks its bucket up, seals the answer. When its lists change, so do its buckets.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::header;
use oblivious::{Answered, GatewayKey, Question, REQUEST_BYTES_MAX, RESPONSE_TYPE};
use reputation::{Known, PrefixBits, Sources, parse_list};
use stdx::{Digest, SystemEntropy};

use crate::config::GatewayConfig;
use crate::failure::Failure;
use crate::http::Stop;
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::NO_CACHE;
use crate::key_file;
use crate::metrics::metrics;

/// Sixty million hashes, which take three times as much in memory while they are sorted.
const LIST_BYTES_MAX: u64 = 4 << 30;

/// How often it is asked whether a list has changed.
const LOOK: Duration = Duration::from_secs(1);

/// What a gateway answers with.
pub(crate) struct Gateway {
    key: GatewayKey,
    lists: Lists,
    /// What the lists were when it was opened.
    opened: Stamp,
    known: RwLock<Arc<Known>>,
}

/// Where its lists are.
struct Lists {
    bits: PrefixBits,
    malicious: Vec<PathBuf>,
    clean: Vec<PathBuf>,
}

/// What tells one version of a file from another: lists are replaced, never written over.
type Stamp = Vec<(u64, u64, i64, i64)>;

impl Gateway {
    /// Reads key and lists.
    ///
    /// # Errors
    /// When one of them is wrong, or a bucket too small to hide in.
    pub(crate) fn open(section: &GatewayConfig) -> anyhow::Result<Self> {
        let key = key_file::load_gateway(&section.key)?;
        let wrong = |error: &dyn std::fmt::Display| Failure::refused(format!("the gateway can't serve: {error}"));
        let bits = PrefixBits::new(section.prefix_bits).map_err(|error| wrong(&error))?;
        let lists = Lists { bits, malicious: section.malicious.clone(), clean: section.clean.clone() };
        // Before they are read: what changes meanwhile is found when it is looked again.
        let opened = lists.stamp()?;
        let known = RwLock::new(Arc::new(lists.known()?));
        Ok(Self { key, lists, opened, known })
    }

    /// Follows the lists until told to stop. Those that can't be served change nothing: what was known stays.
    pub(crate) async fn follow(self: Arc<Self>, mut stop: Stop) -> anyhow::Result<()> {
        let mut last = Some(self.opened.clone());
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.changed() => return Ok(()),
            }
            let stamp = self.lists.stamp().ok();
            if stamp == last {
                continue;
            }
            let gateway = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || gateway.lists.known()).await?;
            match read {
                Ok(known) => {
                    let bytes = known.answer_bytes();
                    *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
                    tracing::info!(lookup.answer_bytes = bytes, "the lists have changed, and so have the buckets");
                }
                Err(error) => {
                    tracing::error!("the lists have changed and can't be served; those before stay: {error:#}");
                }
            }
            // What can't be served is said once for each version of the lists.
            last = stamp;
        }
    }

    pub(crate) const fn key(&self) -> &GatewayKey {
        &self.key
    }

    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What comes back for a question that could be opened.
    fn answer(&self, question: &[u8]) -> Answered {
        let Ok(Question(prefix)) = Question::parse(question) else {
            metrics().lookup("refused");
            return Answered::refusal(400);
        };
        let Some(bucket) = self.known().answer(&prefix) else {
            metrics().lookup("other-prefix");
            return Answered::refusal(404);
        };
        metrics().lookup("answered");
        Answered::bucket(bucket)
    }
}

impl Lists {
    fn known(&self) -> anyhow::Result<Known> {
        let sources = Sources { malicious: lists(&self.malicious)?, clean: lists(&self.clean)? };
        let known = Known::new(sources, self.bits).map_err(|error| {
            Failure::refused(format!("the gateway can't serve: {error}"))
                .hint("change `prefix_bits` here and in the policy, or the lists; thin buckets are never served")
        })?;
        Ok(known)
    }

    fn stamp(&self) -> anyhow::Result<Stamp> {
        let of = |path: &PathBuf| {
            let found = std::fs::metadata(path).with_context(|| format!("can't find `{}`", path.display()))?;
            Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        self.malicious.iter().chain(&self.clean).map(of).collect()
    }
}

fn lists(paths: &[PathBuf]) -> anyhow::Result<Vec<Digest>> {
    let mut hashes = Vec::new();
    for path in paths {
        let bytes = read(path).with_context(|| format!("can't read the list `{}`", path.display()))?;
        let list = parse_list(&bytes).with_context(|| format!("the list `{}` is wrong", path.display()))?;
        hashes.extend(list);
    }
    Ok(hashes)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIST_BYTES_MAX {
        return Err(std::io::Error::other(format!("longer than {LIST_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Serves `POST /`.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().route("/", post(ask).layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))).with_state(gateway)
}

/// Opening and sealing take a tenth of a millisecond: no work for another thread.
async fn ask(State(gateway): State<Arc<Gateway>>, body: Result<Bytes, BytesRejection>) -> Result<Response, HttpError> {
    let body = checked_body(body)?;
    let refuse = |error: &dyn std::fmt::Display| HttpError::new(Code::Request, error.to_string());
    let (question, reply) = oblivious::open(&gateway.key, &body).map_err(|error| {
        metrics().lookup("unopened");
        refuse(&error)
    })?;
    let answered = gateway.answer(&question).to_bytes();
    let sealed = reply.seal(&answered, &SystemEntropy).map_err(|error| refuse(&error))?;
    Ok(([(header::CONTENT_TYPE, RESPONSE_TYPE), (header::CACHE_CONTROL, NO_CACHE)], sealed).into_response())
}
