//! The vault of a region's data: `POST /v1/events` takes in what endpoints share, sealed; manifests and
//! segments are given to whoever asks, because it is ciphertext and sizes. Nothing here can be opened here.
//!
//! An intake whose disk fails stops, and opens again after a while, by the code that opens it at first. What
//! was acknowledged is on disk; the rest of this process's work does not depend on it.

mod erase;
mod read;
mod replace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::vault::{Admission, Intake, IntakeError, Limits, News, Parts, Taken, Writer};
use anyhow::Context as _;
use api::path;
use async_trait::async_trait;
use attest::{DataClass, Envelope, Receipt, Statement, Subject};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header;
use stdx::{SystemClock, durable};
use storage::ObjectStore;
use tlog::SignerKey;
use tokio::sync::watch;
use verify::TrustedPolicy;

use crate::config::VendorConfig;
use crate::http::Stop;
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::key_file;
use crate::metrics::{Probe, Reason, metrics};

/// A file of 8 MiB in base64 and in JSON, sealed: less than 12 MiB.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Endpoints keep what they have, for weeks if they must.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(600);
/// A disk that is behind has caught up by then.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// After a failure of disk or store.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// What is kept here, where, and who says that it was taken.
#[derive(Clone)]
pub(crate) struct VaultParts {
    wal: PathBuf,
    admission: Admission,
    policy: Arc<TrustedPolicy>,
    retention_s: BTreeMap<DataClass, u64>,
    limits: Limits,
    recorder: Arc<SignerKey>,
}

impl VaultParts {
    /// Of the policy in force, the last of `versions`, if it says where data lies.
    ///
    /// # Errors
    /// When the recorder's key can't be read, or a region is none of the policy's.
    pub(crate) fn of(vendor: &VendorConfig, versions: &[TrustedPolicy]) -> anyhow::Result<Option<Self>> {
        let (Some(folder), Some(policy)) = (&vendor.intake, versions.last()) else { return Ok(None) };
        let Some(residency) = &policy.policy().residency else { return Ok(None) };
        let Some(admission) = admission(vendor, versions)? else { return Ok(None) };
        Ok(Some(Self {
            wal: folder.join("wal"),
            admission,
            policy: Arc::new(policy.clone()),
            retention_s: residency.classes.iter().map(|class| (class.id.clone(), class.retention_s)).collect(),
            limits: Limits {
                bytes_max: vendor.intake_bytes_max,
                segment_age: Duration::from_secs(vendor.intake_segment_s.max(1)),
                ..Limits::default()
            },
            recorder: Arc::new(key_file::load(&vendor.keys.recorder)?),
        }))
    }
}

/// What the policy in force, the last of `versions`, lets anybody seal for the regions that are kept here, if it says
/// where data lies.
///
/// # Errors
/// When a region is none of the policy's.
pub(crate) fn admission(vendor: &VendorConfig, versions: &[TrustedPolicy]) -> anyhow::Result<Option<Admission>> {
    let Some(policy) = versions.last() else { return Ok(None) };
    let Some(residency) = &policy.policy().residency else { return Ok(None) };
    for region in &vendor.intake_regions {
        anyhow::ensure!(residency.region(region).is_some(), "`intake_regions`: the policy has no region `{region}`");
    }
    let ids = versions.iter().map(TrustedPolicy::id).collect();
    Ok(Some(Admission::new(residency, &vendor.intake_regions, ids)))
}

/// What is served.
#[derive(Clone)]
pub(crate) struct Vault {
    /// Not there while it is closed.
    intake: watch::Receiver<Option<Intake>>,
    objects: Arc<dyn ObjectStore>,
    recorder: Arc<SignerKey>,
    admission: Admission,
    policy: Arc<TrustedPolicy>,
    /// One segment at a time takes the place of others.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What keeps the intake open.
pub(crate) struct Keeping {
    parts: VaultParts,
    objects: Arc<dyn ObjectStore>,
    intake: watch::Sender<Option<Intake>>,
    /// While it is open.
    writer: Option<Writer>,
}

impl Vault {
    /// Opens the intake before anything is served. If it can't be opened, the rest is served without it.
    pub(crate) async fn open(objects: Arc<dyn ObjectStore>, parts: VaultParts) -> (Self, Keeping) {
        let (sender, intake) = watch::channel(None);
        let vault = Self {
            intake,
            objects: Arc::clone(&objects),
            recorder: Arc::clone(&parts.recorder),
            admission: parts.admission.clone(),
            policy: Arc::clone(&parts.policy),
            turn: Arc::default(),
        };
        let mut keeping = Keeping { parts, objects, intake: sender, writer: None };
        keeping.open().await;
        (vault, keeping)
    }

    pub(crate) fn probe(&self) -> impl Probe + use<> {
        IntakeProbe(self.intake.clone())
    }

    /// The receipt is signed when the object is durable; the same bytes again get the same one.
    fn receipt(&self, taken: Taken) -> anyhow::Result<Envelope> {
        let predicate = Receipt { region: taken.region, bytes: taken.bytes };
        let statement = Statement { subject: vec![Subject::new("object", taken.object)], predicate };
        Ok(Envelope::sign(statement.encode()?, &[&self.recorder])?)
    }
}

impl Keeping {
    /// Keeps the intake open until `stop`.
    pub(crate) async fn run(mut self, stop: Stop) {
        loop {
            if let Some(writer) = self.writer.take() {
                let written = writer.run(stop.clone()).await;
                self.intake.send_replace(None);
                match written {
                    Ok(()) => return,
                    Err(error) => failed(&error.into()),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OPEN_AGAIN) => {}
                () = crate::http::stopped(stop.clone()) => return,
            }
            self.open().await;
        }
    }

    /// Opens the intake, or says why not.
    async fn open(&mut self) {
        match self.opened().await {
            Ok((intake, writer)) => {
                tracing::info!("the intake is open");
                self.intake.send_replace(Some(intake));
                self.writer = Some(writer);
            }
            Err(error) => failed(&error),
        }
    }

    async fn opened(&self) -> anyhow::Result<(Intake, Writer)> {
        let VaultParts { wal, admission, retention_s, limits, .. } = self.parts.clone();
        let folder = wal.clone();
        let made = tokio::task::spawn_blocking(move || durable::create_folder(&folder)).await?;
        made.with_context(|| format!("can't create `{}`", wal.display()))?;
        let (objects, clock) = (Arc::clone(&self.objects), Arc::new(SystemClock::new()));
        Ok(::vault::open(Parts { wal, objects, admission, retention_s, clock, limits }).await?)
    }
}

fn failed(error: &anyhow::Error) {
    tracing::error!("the intake is closed, and opens again in a while: {error:#}");
}

struct IntakeProbe(watch::Receiver<Option<Intake>>);

#[async_trait]
impl Probe for IntakeProbe {
    async fn look(&self) -> Vec<Reason> {
        let open = self.0.borrow().is_some();
        if open { Vec::new() } else { vec![Reason::new("intake", "is closed; the journal says why")] }
    }
}

/// Serves a vault.
pub(crate) fn router(vault: Vault) -> Router {
    let take = post(take).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX));
    Router::new()
        .route(path::EVENTS, take)
        .route(path::VAULT_ERASURES, post(erase::erase))
        .route(&format!("{}/{{region}}/manifests/{{number}}", path::VAULT), get(read::manifest))
        .route(&format!("{}/{{region}}/erasures/{{evidence}}", path::VAULT), get(read::evidence))
        .route(&format!("{}/{{region}}/segments/{{class}}/{{segment}}", path::VAULT), get(read::segment))
        .route(&format!("{}/replacements", path::VAULT), post(replace::replace).layer(DefaultBodyLimit::disable()))
        .with_state(vault)
}

async fn take(State(vault): State<Vault>, body: Result<Bytes, BytesRejection>) -> Result<Response, HttpError> {
    let body = checked_body(body)?;
    if body.is_empty() {
        return Err(HttpError::new(Code::Body, "an empty body is no batch"));
    }
    let intake = vault.intake.borrow().clone();
    let taken = match intake {
        Some(intake) => intake.take(body).await,
        None => Err(IntakeError::Stopped),
    };
    let taken = taken.map_err(refused)?;
    metrics().batch(match taken.news {
        News::New => "new",
        News::Again => "again",
    });
    let receipt = vault.receipt(taken).map_err(|error| HttpError::new(Code::Storage, format!("{error:#}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], receipt.to_bytes()).into_response())
}

fn refused(error: IntakeError) -> HttpError {
    let (code, outcome, after) = match &error {
        IntakeError::Refused(_) => (Code::Sealed, "refused", None),
        IntakeError::Busy => (Code::IntakeBusy, "busy", Some(RETRY_AFTER)),
        IntakeError::Full => (Code::IntakeFull, "full", Some(RETRY_AFTER_FULL)),
        IntakeError::Stopped => (Code::IntakeStopped, "failed", Some(RETRY_AFTER)),
    };
    metrics().batch(outcome);
    let refused = HttpError::new(code, error.to_string());
    match after {
        Some(after) => refused.retry_after(after),
        None => refused,
    }
}
