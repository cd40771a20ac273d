//! Runs a recipe in the sandbox and records what happened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::{
    Access, ByteSize, Cancel, Hostname, Job, Limits, Mount, Output, Program, Root, Sandbox, SandboxError, Status,
    Umask, User, Writing,
};
use stdx::{Digest, UnixTime, durable};

use crate::conditions::{Conditions, Listing, ShimError, shim};
use crate::content::{ContentError, Object};
use crate::environment::{Environment, EnvironmentError};
use crate::foreign::ForeignBuild;
use crate::inputs::{Depot, Fetched, InputsError};
use crate::progress::{Event, Progress};
use crate::recipe::{Product, Recipe};
use crate::record::{Agreed, Artifact, BuildRecord, Isolated, Made, inputs_digest};
use crate::sbom::{SbomError, sbom};
use crate::source::{SourceError, write_tar};
use crate::vendor::vendor;

/// Where our own files are shown inside.
const CONTROL: &str = "/clerestory";
/// Where the outputs are left inside.
const OUT: &str = "/out";
/// Where they are collected.
const OUTPUTS: &str = "out";
/// Largest output: an installation image of a DVD.
const OUTPUT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// How much of a log is kept. The longest build logs of the Debian archive have 100 MB; the
/// beginning is what tells most.
const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much of a failed build's log goes into the error.
const SHOWN_BYTES_MAX: usize = 2_000;

/// A build that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It could not be isolated, or not be started.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The build failed, or went beyond a limit. Its log is in the depot.
    #[error(transparent)]
    Failed(Box<FailedBuild>),
    /// The script ended well but did not leave what the recipe announces.
    #[error("{product}: the build left no `{path}`, which the recipe announces as {name}")]
    NoOutput {
        /// The product.
        product: String,
        /// The output.
        name: String,
        /// Where it should be, below `BUILD`.
        path: String,
    },
    /// An artifact of a builder elsewhere that its provenance does not name, or that is missing.
    #[error("{0}: there is no such artifact that the provenance names")]
    NotItsOwn(String),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Inputs.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The library that changes conditions.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// The SBOM.
    #[error(transparent)]
    Sbom(#[from] SbomError),
    /// A file operation failed.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a build failed.
#[derive(Debug, thiserror::Error)]
#[error("{product} {version} did not build: {status}\n{words}")]
pub struct FailedBuild {
    /// The product.
    pub product: String,
    /// Its version.
    pub version: String,
    /// How it ended.
    pub status: Status,
    /// The end of its log.
    pub words: String,
    /// The whole log.
    pub log: Digest,
}

impl BuildError {
    /// Whether the product itself did not build, as opposed to this builder's own trouble.
    #[must_use]
    pub fn is_the_products_fault(&self) -> bool {
        match self {
            // What ran out of time or memory here might not have elsewhere.
            Self::Failed(failed) => matches!(failed.status, Status::Exited(_) | Status::Signalled(_)),
            Self::NoOutput { .. } => true,
            _ => false,
        }
    }

    /// What the user can do about it, if anything beyond reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Sandbox(error) => Some(error.hint()),
            Self::Failed(failed) => failed.status.hint(),
            Self::NoOutput { .. } => Some("correct the script, or output.path in assembly.toml"),
            _ => None,
        }
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BuildError + '_ {
    move |source| BuildError::Io { path: path.to_owned(), source }
}

/// Builds products in one depot.
#[derive(Clone, Debug)]
pub struct Builder<'d> {
    /// Where everything comes from and goes to.
    pub depot: &'d Depot,
    /// What isolates.
    pub sandbox: Sandbox,
    /// What ends a build early.
    pub cancel: Cancel,
}

impl Builder<'_> {
    /// Builds `product` from what was fetched, in `environment`, under `conditions`. The outputs,
    /// the log and the SBOM are in the depot when it returns.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(
        &self,
        product: &Product,
        fetched: &Fetched,
        environment: &Environment,
        conditions: &Conditions,
        progress: &dyn Progress,
    ) -> Result<BuildRecord, BuildError> {
        environment.check(progress)?;
        let work = self.depot.work("build")?;
        let job = self.job(product, fetched, environment, conditions, work.path())?;
        let recipe = &product.recipe;
        let (product_id, version) = (recipe.product.to_string(), recipe.version.to_string());
        progress.event(Event::Building { product: product_id.clone(), version: version.clone() });
        let mut log = Vec::new();
        let outcome = self.sandbox.run(&job, &self.cancel, &mut |chunk| {
            let room = LOG_BYTES_MAX.saturating_sub(log.len()).min(chunk.bytes.len());
            log.extend_from_slice(chunk.bytes.get(..room).unwrap_or_default());
            progress.event(Event::Printed { text: String::from_utf8_lossy(chunk.bytes).into_owned() });
        })?;
        let log_digest = self.depot.content().put(&log)?.digest;
        if !outcome.status.is_success() {
            let end = log.get(log.len().saturating_sub(SHOWN_BYTES_MAX)..).unwrap_or_default();
            let words = String::from_utf8_lossy(end).trim().to_owned();
            let status = outcome.status;
            let failed = FailedBuild { product: product_id, version, status, words, log: log_digest };
            return Err(BuildError::Failed(Box::new(failed)));
        }
        let outputs = self.collect(recipe, &work.path().join(OUTPUTS))?;
        let made = Isolated { conditions: conditions.clone(), isolation: outcome.evidence, log: log_digest };
        self.record(product, fetched, environment, outputs, Made::Here(Box::new(made)))
    }

    /// Takes what a builder elsewhere made for what `product` would give, so that a rebuild can
    /// confirm or refute it. `artifacts` are its files by the names of the recipe's outputs.
    ///
    /// # Errors
    /// [`BuildError::NotItsOwn`] when a file is not what its provenance names; [`BuildError`].
    pub fn adopt(
        &self,
        product: &Product,
        fetched: &Fetched,
        environment: &Environment,
        foreign: ForeignBuild,
        artifacts: &BTreeMap<String, PathBuf>,
    ) -> Result<BuildRecord, BuildError> {
        let recipe = &product.recipe;
        let mut outputs = Vec::new();
        for output in &recipe.output {
            let name = recipe.expand(&output.name);
            let path = artifacts.get(&name).ok_or_else(|| BuildError::NotItsOwn(name.clone()))?;
            let file = fs::File::open(path).map_err(io_at(path))?;
            let object = self.depot.content().put_reader(&name, file, OUTPUT_BYTES_MAX)?;
            if !foreign.outputs.iter().any(|(_, digest)| *digest == object.digest) {
                return Err(BuildError::NotItsOwn(name));
            }
            outputs.push(Artifact { name, digest: object.digest, size: object.size });
        }
        outputs.sort();
        self.record(product, fetched, environment, outputs, Made::Elsewhere(Box::new(foreign)))
    }

    fn record(
        &self,
        product: &Product,
        fetched: &Fetched,
        environment: &Environment,
        outputs: Vec<Artifact>,
        made: Made,
    ) -> Result<BuildRecord, BuildError> {
        let recipe = &product.recipe;
        let document = sbom(self.depot.content(), product, fetched)?;
        let agreed = Agreed {
            product: recipe.product.clone(),
            version: recipe.version.clone(),
            source: fetched.source.digest,
            recipe: product.digest,
            inputs: inputs_digest(&fetched.items),
            environment: environment.digest,
            origin: environment.origin,
            sbom: self.depot.content().put(&document)?.digest,
            outputs,
        };
        Ok(BuildRecord { agreed, git: fetched.source.git.clone(), inputs: fetched.items.clone(), made })
    }

    /// What [`Builder::build`] runs in the sandbox: its files lie in `work`, and its outputs go to
    /// the folder `out` there.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn job(
        &self,
        product: &Product,
        fetched: &Fetched,
        environment: &Environment,
        conditions: &Conditions,
        work: &Path,
    ) -> Result<Job, BuildError> {
        let recipe = &product.recipe;
        let control = work.join("control");
        self.write_control(product, fetched, conditions, &control)?;
        let mut job =
            Job::new(Root { tree: environment.root.clone(), writing: Writing::Refused }, Program("/bin/sh".into()));
        job.arguments = vec![format!("{CONTROL}/build.sh")];
        job.mounts = vec![read_only(&control, CONTROL)];
        let crates = !fetched.crates.is_empty();
        if crates {
            job.mounts.push(read_only(&vendor(self.depot, &fetched.crates)?, &format!("/{}", conditions.vendor)));
        }
        job.scratch = vec![top_folder(&conditions.base)];
        job.output = Some(Output { inside: OUT.into(), to: work.join(OUTPUTS) });
        job.environment = variables(recipe, conditions, crates);
        job.folder = "/".into();
        job.user = User { uid: conditions.uid, gid: conditions.uid };
        job.hostname = Hostname::try_from(conditions.hostname.clone())?;
        job.umask = Umask(conditions.umask);
        job.processors = conditions.processors;
        let limits = recipe.limits;
        job.limits = Limits {
            wall: Duration::from_secs(limits.seconds),
            // Every processor of a large machine for the whole time.
            cpu: Duration::from_secs(limits.seconds.saturating_mul(256).min(63_072_000)),
            processes: limits.processes,
            memory: ByteSize::mebibytes(limits.memory_mib),
            disk: ByteSize::mebibytes(limits.disk_mib),
            ..Limits::default()
        };
        Ok(job)
    }

    /// The files of ours that the build sees.
    fn write_control(
        &self,
        product: &Product,
        fetched: &Fetched,
        conditions: &Conditions,
        folder: &Path,
    ) -> Result<(), BuildError> {
        durable::create_folder(folder).map_err(io_at(folder))?;
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            durable::write(&path, bytes).map_err(io_at(&path))
        };
        put("build.sh", driver(&product.recipe, conditions).as_bytes())?;
        put("script.sh", product.recipe.build.script.as_bytes())?;
        let modified = UnixTime::from_seconds(conditions.source_time);
        let tar = folder.join("source.tar");
        write_tar(&fetched.source.tree, self.depot.content(), modified, conditions.file_order, &tar)?;
        if conditions.needs_shim() {
            let to = folder.join("conditions.so");
            fs::copy(shim(self.depot)?, &to).map_err(io_at(&to))?;
        }
        Ok(())
    }

    fn collect(&self, recipe: &Recipe, out: &Path) -> Result<Vec<Artifact>, BuildError> {
        let mut outputs = Vec::new();
        for output in &recipe.output {
            let name = recipe.expand(&output.name);
            let path = out.join(&name);
            let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
            if !is_file {
                let (product, path) = (recipe.product.to_string(), recipe.expand(&output.path));
                return Err(BuildError::NoOutput { product, name, path });
            }
            let file = fs::File::open(&path).map_err(io_at(&path))?;
            let Object { digest, size } = self.depot.content().put_reader(&name, file, OUTPUT_BYTES_MAX)?;
            outputs.push(Artifact { name, digest, size });
        }
        outputs.sort();
        Ok(outputs)
    }
}

fn read_only(source: &Path, target: &str) -> Mount {
    Mount { source: source.to_owned(), target: target.into(), access: Access::ReadOnly }
}

/// The folder directly below `/`, the only place where a read-only root can get a mount point.
fn top_folder(base: &str) -> PathBuf {
    let first = base.trim_start_matches('/').split('/').next().unwrap_or_default();
    Path::new("/").join(first)
}

fn variables(recipe: &Recipe, conditions: &Conditions, crates: bool) -> BTreeMap<String, String> {
    let base = &conditions.base;
    let jobs = conditions.processors.or_else(|| {
        let count = std::thread::available_parallelism().ok()?;
        NonZeroU16::try_from(u16::try_from(count.get()).ok()?).ok()
    });
    let mut variables: BTreeMap<String, String> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned()),
        ("HOME", format!("{base}/home")),
        ("LANG", "C.UTF-8".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("TZ", conditions.time_zone.clone()),
        ("TMPDIR", "/tmp".to_owned()),
        ("BUILD", base.clone()),
        ("SOURCE", format!("{base}/source")),
        ("VENDOR", format!("/{}", conditions.vendor)),
        ("JOBS", jobs.map_or(1, NonZeroU16::get).to_string()),
        ("VERSION", recipe.version.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    if let Some(epoch) = recipe.build.source_date_epoch {
        set("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    if crates {
        set("CARGO_HOME", format!("{base}/cargo"));
        set("CARGO_TARGET_DIR", format!("{base}/target"));
    }
    if conditions.needs_shim() {
        set("LD_PRELOAD", format!("{CONTROL}/conditions.so"));
        set("CLERESTORY_CLOCK_OFFSET", conditions.clock_offset_seconds.to_string());
        if conditions.listing == Listing::Reversed {
            set("CLERESTORY_LISTING", "reversed".to_owned());
        }
    }
    variables
}

/// The script that prepares the folders, runs the recipe's script and hands the outputs over.
fn driver(recipe: &Recipe, conditions: &Conditions) -> String {
    let mut script = format!(
        "set -eu\n\
         n=0; while [ $n -lt {} ]; do ( : ) & wait; n=$((n + 1)); done\n\
         mkdir -p \"$BUILD/source\" \"$BUILD/home\"\n\
         tar --no-same-owner -x -f {CONTROL}/source.tar -C \"$BUILD/source\"\n",
        conditions.process_ids_skipped
    );
    if recipe.inputs.cargo_lock.is_some() {
        script.push_str(
            "mkdir -p \"$CARGO_HOME\"\n\
             printf '[source.crates-io]\\nreplace-with = \"vendored\"\\n[source.vendored]\\ndirectory = \"%s\"\\n' \
             \"$VENDOR\" > \"$CARGO_HOME/config.toml\"\n",
        );
    }
    script.push_str(&format!("cd \"$BUILD/source\"\n/bin/sh -eu {CONTROL}/script.sh\n"));
    for output in &recipe.output {
        let (name, path) = (recipe.expand(&output.name), recipe.expand(&output.path));
        // What is missing is named by whoever collects.
        let (name, path) = (quoted(&name), quoted(&path));
        script.push_str(&format!("if [ -f \"$BUILD\"/{path} ]; then cp \"$BUILD\"/{path} {OUT}/{name}; fi\n"));
    }
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
