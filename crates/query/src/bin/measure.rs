//! Measures queries: over the same Parquet, sealed and plain, by the same engine in one process. DataFusion is
//! linked in this crate alone, so this is a program of its own, which `bench` starts (`data/query`).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use attest::{RegionId, StatementId};
use bytes::Bytes;
use clap::Parser;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringViewArray, TimestampSecondArray, UInt64Array};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::TryStreamExt as _;
use query::{Form, Located, Memory, Opened, Place, Query, SealedStore, Table, Taken, Vault, VaultError};
use seal::{BatchId, Bound, Custodian, Custodians, DataKey, Header, Kem, PrivateKey, Sealed, Share};
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, UnixTime};

/// Queries over sealed and over plain Parquet, in turn; seconds of each as JSON
#[derive(Parser)]
struct Arguments {
    /// Where the files go; it must be empty.
    folder: PathBuf,
    /// Events in all.
    #[arg(long, default_value_t = 4_000_000)]
    rows: usize,
    /// Runs of each query.
    #[arg(long, default_value_t = 7)]
    runs: usize,
}

const FILES: usize = 4;
const BATCH_ROWS: usize = 65_536;
const CLASS: &str = "detections";

const QUERIES: [(&str, &str); 3] = [
    ("aggregate", "SELECT rule, count(*) AS n, sum(size) AS bytes FROM detections GROUP BY rule ORDER BY rule"),
    ("selective", "SELECT count(*) AS n FROM detections WHERE size < 1000"),
    ("texts", "SELECT count(DISTINCT sha256) AS files FROM detections"),
];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let plain = arguments.folder.join("plain");
    std::fs::create_dir_all(&plain).context("the folder")?;
    let sealing = Sealing::new()?;
    let mut kept = Vec::new();
    for number in 0..FILES {
        let path = plain.join(format!("{number}.parquet"));
        write(&path, number, arguments.rows / FILES)?;
        kept.push(sealing.seal(&arguments.folder, &std::fs::read(&path)?)?);
    }
    let clock = SystemClock::new();
    for (name, text) in QUERIES {
        let (mut ours, mut reference) = (Vec::new(), Vec::new());
        // One of each as a warm-up; who begins alternates.
        for run in 0..=arguments.runs {
            let mut seconds = [Duration::ZERO; 2];
            let mut answers = [String::new(), String::new()];
            for turn in 0..2 {
                let which = (run + turn) % 2;
                let start = clock.monotonic();
                let answer = if which == 0 { sealed(text, &kept).await? } else { bare(text, &plain).await? };
                if let (Some(seconds), Some(place)) = (seconds.get_mut(which), answers.get_mut(which)) {
                    (*seconds, *place) = (clock.monotonic() - start, answer);
                }
            }
            let [first, second] = &answers;
            anyhow::ensure!(first == second, "`{text}` gives another answer over sealed objects");
            if run > 0 {
                ours.push(seconds.map(|it| it.as_secs_f64()).first().copied());
                reference.push(seconds.map(|it| it.as_secs_f64()).last().copied());
            }
        }
        println!("{}", serde_json::json!({ "name": name, "ours": ours, "reference": reference }));
    }
    Ok(())
}

/// Events that differ; hashes do not compress, as real ones.
fn write(path: &Path, number: usize, rows: usize) -> anyhow::Result<()> {
    let schema = Table::of(CLASS).context("the table")?.file_schema();
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), None)?;
    for first in (0..rows).step_by(BATCH_ROWS) {
        let numbers: Vec<u64> =
            (first..rows.min(first + BATCH_ROWS)).map(|row| (row * FILES + number) as u64).collect();
        let mixed = |row: &u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let texts = |text: &dyn Fn(&u64) -> String| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values(numbers.iter().map(text)))
        };
        let times = || -> ArrayRef {
            let times = numbers.iter().map(|row| 1_767_225_600 + i64::try_from(row / 1000 * 3600).unwrap_or_default());
            Arc::new(times.map(Some).collect::<TimestampSecondArray>().with_timezone("UTC"))
        };
        let columns: Vec<ArrayRef> = vec![
            texts(&|row| format!("{:032x}", u128::from(mixed(row)))),
            times(),
            texts(&|row| format!("rule-{}", mixed(row) % 500)),
            texts(&|row| Digest::of(&(row / 3).to_be_bytes()).to_string()),
            Arc::new(numbers.iter().map(|row| Some(mixed(row) >> 40)).collect::<UInt64Array>()),
            times(),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.close()?;
    Ok(())
}

/// Two custodians, whose keys are at hand: what they cost is measured with grants.
struct Sealing {
    keys: Vec<PrivateKey>,
    custodians: Custodians,
}

/// A sealed object in a file of its own, and its key.
struct Kept {
    located: Located,
    begin: Vec<u8>,
    key: DataKey,
    path: PathBuf,
}

impl Sealing {
    fn new() -> anyhow::Result<Self> {
        let keys = [Kem::P256, Kem::XWing].map(|kem| PrivateKey::generate(kem, &SystemEntropy));
        let keys: Vec<PrivateKey> = keys.into_iter().collect::<Result<_, _>>()?;
        let named = ["member", "supervisor"].into_iter().zip(&keys);
        let custodians =
            named.map(|(name, key)| Ok(Custodian { organisation: name.parse()?, key: key.public().clone() }));
        Ok(Self { custodians: Custodians::new(custodians.collect::<anyhow::Result<_>>()?)?, keys })
    }

    fn seal(&self, folder: &Path, plaintext: &[u8]) -> anyhow::Result<Kept> {
        let bound = Bound {
            id: BatchId::draw(&SystemEntropy)?,
            region: "zurich".parse()?,
            country: "DE".parse()?,
            class: CLASS.parse()?,
            policy: StatementId::of(b"a policy"),
        };
        let object = self.custodians.seal(bound, plaintext, &SystemEntropy)?;
        let (header, start) = Header::parse(&object)?;
        let shares = header.shares.iter().map(|share| {
            let key = self.keys.iter().find(|key| key.public().id() == share.key)?;
            Share::open(&share.wrapped()?, key, &header.bound.info(&share.custodian))
        });
        let key = DataKey::join(&shares.collect::<Option<Vec<_>>>().context("a share")?);
        let segment = Digest::of(&object);
        let path = folder.join(segment.to_string());
        stdx::durable::write(&path, &object)?;
        let (region, class) = (header.bound.region.clone(), header.bound.class.clone());
        let time = UnixTime::from_seconds(1_767_225_600);
        let located = Located {
            id: header.bound.id,
            country: header.bound.country,
            place: Place { region, class, segment },
            at: 0,
            bytes: object.len() as u64,
            segment_bytes: object.len() as u64,
            header: Digest::of(object.get(4..start).unwrap_or_default()),
            taken: Taken { first: time, last: time, form: Form::Columns },
        };
        Ok(Kept { located, begin: object.get(..start).unwrap_or_default().to_vec(), key, path })
    }
}

/// Ciphertext in files.
#[derive(Debug)]
struct Files(Vec<(Digest, File)>);

#[async_trait]
impl Vault for Files {
    async fn manifest(&self, _: &RegionId, _: u64) -> Result<Option<Bytes>, VaultError> {
        Ok(None)
    }

    async fn evidence(&self, _: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError> {
        Err(VaultError::Failed { what: evidence.to_string(), why: "nothing is erased here".to_owned() })
    }

    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, VaultError> {
        let failed = |why: io::Error| VaultError::Failed { what: place.segment.to_string(), why: why.to_string() };
        let file = self.0.iter().find(|(segment, _)| *segment == place.segment).map(|(_, file)| file);
        let file = file.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?.try_clone().map_err(failed)?;
        // As `object_store` does it for plain files: on a thread that may wait.
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(Bytes::from(bytes))
        });
        read.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
    }
}

async fn sealed(text: &str, kept: &[Kept]) -> anyhow::Result<String> {
    let files: io::Result<Vec<_>> =
        kept.iter().map(|kept| Ok((kept.located.place.segment, File::open(&kept.path)?))).collect();
    let opened = kept.iter().map(|kept| {
        let (place, frames_at) = (kept.located.place.clone(), kept.begin.len() as u64);
        let segment_bytes = kept.located.segment_bytes;
        Ok(Opened { place, segment_bytes, frames_at, sealed: Sealed::open(&kept.begin, &kept.key)? })
    });
    let opened: Vec<Opened> = opened.collect::<Result<_, seal::OpenError>>()?;
    let store = Arc::new(SealedStore::new(Arc::new(Files(files?)), opened));
    let table = Table::of(CLASS).context("the table")?;
    let query = Query { text: text.to_owned(), parameters: api::Parameters::new(), table };
    let objects = kept.iter().map(|kept| kept.located.clone()).collect();
    let running = query.run(objects, store, Memory(4 << 30)).await?;
    shown(&running.rows.try_collect::<Vec<_>>().await?)
}

async fn bare(text: &str, folder: &Path) -> anyhow::Result<String> {
    let context = SessionContext::new();
    let folder = folder.to_str().context("the folder's name")?;
    context.register_parquet(CLASS, folder, ParquetReadOptions::default()).await?;
    shown(&context.sql(text).await?.collect().await?)
}

fn shown(batches: &[RecordBatch]) -> anyhow::Result<String> {
    Ok(datafusion::arrow::util::pretty::pretty_format_batches(batches)?.to_string())
}
