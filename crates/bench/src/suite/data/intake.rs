//! From events to receipts: batches sealed as endpoints do it, taken in as a vendor does it, each receipt
//! signed when the disk has the batch. Beside it the same path with batches that were sealed before: what
//! sealing costs is the difference.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use attest::{DataClass, Envelope, Receipt, Statement, StatementId, Subject};
use bytes::Bytes;
use seal::Destination;
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, UnixTime, durable};
use storage::FileObjects;
use testkit::{Custody, OPEN_CLASS, REGION};
use tlog::{KeyKind, SignerKey};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use vault::{Admission, Intake, Limits, Parts};

use crate::bench::Bench;
use crate::row::{Figure, Row, Target};

/// As many as an endpoint puts into a batch, if so many wait.
pub(in super::super) const EVENTS: usize = 512;
/// Endpoints that send at once, each one batch after the other.
const SENDERS: usize = 64;
/// A day on which the region's keys are good.
const DAY: u64 = 1_767_225_600;

/// Where batches go, and who says that they arrived.
struct Route<'a> {
    folder: &'a Path,
    custody: &'a Custody,
    destination: Arc<Destination>,
    plain: Arc<Vec<u8>>,
    recorder: Arc<SignerKey>,
}

fn policy() -> StatementId {
    StatementId::of(b"a policy")
}

fn class() -> anyhow::Result<DataClass> {
    OPEN_CLASS.parse().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Lines as an endpoint writes them.
pub(in super::super) fn events(batch: u64) -> Vec<u8> {
    let line = |number: usize| {
        let sha256 = Digest::of(&[batch.to_be_bytes(), (number as u64).to_be_bytes()].concat());
        let id: String = sha256.to_string().chars().take(32).collect();
        format!(
            "{{\"id\":\"{id}\",\"hour\":\"2026-11-22T14:00:00Z\",\"body\":{{\"detection\":{{\"rule\":\"rule_{number}\",\"sha256\":\"{sha256}\",\"size\":{number}}}}}}}\n"
        )
    };
    (0..EVENTS).map(line).collect::<String>().into_bytes()
}

impl<'a> Route<'a> {
    fn new(folder: &'a Path, custody: &'a Custody) -> anyhow::Result<Self> {
        let at = UnixTime::from_seconds(DAY);
        let country = "DE".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let recorder = SignerKey::generate("vendor.example/recorder".parse()?, KeyKind::Ed25519, &SystemEntropy)?;
        Ok(Self {
            folder,
            custody,
            destination: Arc::new(Destination::new(&custody.residency(), policy(), country, at)?),
            plain: Arc::new(events(0)),
            recorder: Arc::new(recorder),
        })
    }

    fn sealed(&self, count: usize) -> anyhow::Result<Vec<Bytes>> {
        let class = class()?;
        (0..count).map(|_| Ok(self.destination.seal(&class, &self.plain, &SystemEntropy)?.into())).collect()
    }

    /// Events a second from the first to the last receipt, through an intake that is new and on the disk.
    fn run(&self, count: usize, ready: Option<Vec<Bytes>>) -> anyhow::Result<f64> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let rate = runtime.block_on(self.measure(count, ready));
        for name in ["wal", "store"] {
            std::fs::remove_dir_all(self.folder.join(name)).context("what was measured can't be removed")?;
        }
        rate
    }

    async fn measure(&self, count: usize, ready: Option<Vec<Bytes>>) -> anyhow::Result<f64> {
        let wal = self.folder.join("wal");
        durable::create_folder(&wal)?;
        let residency = self.custody.residency();
        let region = REGION.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let (intake, writer) = vault::open(Parts {
            wal,
            objects: Arc::new(FileObjects::create(&self.folder.join("store")).await?),
            admission: Admission::new(&residency, &BTreeSet::from([region]), BTreeSet::from([policy()])),
            retention_s: residency.classes.iter().map(|it| (it.id.clone(), it.retention_s)).collect(),
            clock: Arc::new(SystemClock::new()),
            limits: Limits::default(),
        })
        .await?;
        let (stop, stopped) = watch::channel(false);
        let writing = tokio::spawn(writer.run(stopped));
        let (next, ready) = (Arc::new(AtomicUsize::new(0)), Arc::new(ready));
        let clock = SystemClock::new();
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (next, ready, intake) = (Arc::clone(&next), Arc::clone(&ready), intake.clone());
            let (destination, plain) = (Arc::clone(&self.destination), Arc::clone(&self.plain));
            let (recorder, class) = (Arc::clone(&self.recorder), class()?);
            senders.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(());
                    }
                    let object = match &*ready {
                        Some(ready) => ready.get(number).context("as many were sealed")?.clone(),
                        None => destination.seal(&class, &plain, &SystemEntropy)?.into(),
                    };
                    receipt(&intake, object, &recorder).await?;
                }
            });
        }
        senders.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
        #[expect(clippy::cast_precision_loss, reason = "millions")]
        let rate = (count * EVENTS) as f64 / clock.monotonic().as_secs_f64();
        stop.send_replace(true);
        writing.await??;
        Ok(rate)
    }
}

async fn receipt(intake: &Intake, object: Bytes, recorder: &SignerKey) -> anyhow::Result<Envelope> {
    let taken = intake.take(object).await?;
    let predicate = Receipt { region: taken.region, bytes: taken.bytes };
    let statement = Statement { subject: vec![Subject::new("object", taken.object)], predicate };
    Ok(Envelope::sign(statement.encode()?, &[recorder])?)
}

pub(in super::super) fn intake(bench: &mut Bench) -> anyhow::Result<()> {
    let (custody, folder) = (Custody::new(), bench.folder().to_owned());
    let path = Route::new(&folder, &custody)?;
    let count = bench.scale().of(1000, 4);
    let (sealed, before) = bench.interleaved(
        bench.scale().of(5, 1),
        || {
            let rate = path.run(count, None)?;
            bench.say(&format!("{rate:.0} events/s, sealed"));
            Ok(rate)
        },
        || {
            let rate = path.run(count, Some(path.sealed(count)?))?;
            bench.say(&format!("{rate:.0} events/s without sealing"));
            Ok(rate)
        },
    )?;
    let row = Row::new("data/intake", "1/s", Figure::Median, &sealed).against(Figure::Median, &before);
    bench.row(row.target(Target::AtLeast(100_000.0)).target(Target::RatioAtLeast(0.8)));
    Ok(())
}

/// The same with ten times as many batches.
pub(in super::super) fn growth(bench: &mut Bench) -> anyhow::Result<()> {
    let (custody, folder) = (Custody::new(), bench.folder().to_owned());
    let path = Route::new(&folder, &custody)?;
    let count = bench.scale().of(1000, 4);
    let (ten, one) = bench.interleaved(
        bench.scale().of(2, 1),
        || {
            let rate = path.run(10 * count, None)?;
            bench.say(&format!("{rate:.0} events/s, ten times as many"));
            Ok(rate)
        },
        || path.run(count, None),
    )?;
    let row = Row::new("data/intake-growth", "1/s", Figure::Median, &ten).against(Figure::Median, &one);
    bench.row(row.target(Target::RatioAtLeast(0.8)));
    Ok(())
}
