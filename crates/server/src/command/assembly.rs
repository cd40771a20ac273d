//! `clerestory assembly`: build, have rebuilt, compare, pin.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use assembly::compare::{self, Builds, Limits, Output as OneOutput, Outputs};
use assembly::{Agreed, Asking, Checkout, Depot, Event, GitRevision, Pinned, Progress, Transport};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use stdx::{Digest, SystemClock};
use tlog::VerifierKey;

use crate::command::{Output, block_on};
use crate::config::Config;
use crate::domain::BuildFolder;
use crate::failure::Failure;
use crate::line::{BuildOptions, Handover, Line, RebuildOutcome, Standing};

/// What the assembly line does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a product, have the supervisor rebuild it, and log the result that both signed; nothing, if nothing changed
    Build(BuildArguments),
    /// Take what the vendor's own CI built, with its SLSA provenance, as the first build; the supervisor's rebuild decides
    Import(Box<ImportArguments>),
    /// Compare two folders of outputs and say why they differ
    Compare(CompareArguments),
    /// Ask upstream again for everything a recipe names, and write a new lock
    Pin(PinArguments),
}

/// Arguments of `assembly build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The vendor's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The product's folder: assembly.toml and assembly.lock
    #[arg(value_name = "FOLDER")]
    product: PathBuf,
    /// The git repository that the source is in, for a recipe whose source is git
    #[arg(long, value_name = "FOLDER")]
    repository: Option<PathBuf>,
    /// The commit
    #[arg(long, default_value = "HEAD", requires = "repository")]
    revision: String,
    /// Do not ask upstream's indexes: what was found in them before counts
    #[arg(long)]
    offline: bool,
    /// A folder of downloads that others fill too; content is checked by digest
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Build in this root file system instead of the recipe's; such a build never releases
    #[arg(long, value_name = "FOLDER")]
    environment: Option<PathBuf>,
}

/// Arguments of `assembly import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    #[command(flatten)]
    build: BuildArguments,
    /// The CI's signed provenance: a DSSE envelope with an in-toto statement
    #[arg(long, value_name = "FILE")]
    provenance: PathBuf,
    /// The Ed25519 key that the CI signs with, as a `vkey` line
    #[arg(long, value_name = "VKEY")]
    key: VerifierKey,
    /// The builder that this key stands for: `runDetails.builder.id`
    #[arg(long, value_name = "URI")]
    builder: String,
    /// An external parameter that you have looked at; any other is refused
    #[arg(long = "parameter", value_name = "NAME")]
    parameters: Vec<String>,
    /// An artifact, by the name of the recipe's output
    #[arg(long = "artifact", value_name = "NAME=FILE", required = true, value_parser = artifact)]
    artifacts: Vec<(String, PathBuf)>,
}

fn artifact(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("an artifact is NAME=FILE")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// Arguments of `assembly compare`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// The first build's outputs
    #[arg(value_name = "FOLDER")]
    left: PathBuf,
    /// The second build's outputs
    #[arg(value_name = "FOLDER")]
    right: PathBuf,
}

/// Arguments of `assembly pin`.
#[derive(Debug, Args)]
pub struct PinArguments {
    /// The product's folder
    #[arg(value_name = "FOLDER")]
    product: PathBuf,
    /// Where the package clients keep their state
    #[arg(long, value_name = "FOLDER")]
    depot: PathBuf,
}

/// What a build came to.
#[derive(Debug, Serialize)]
struct BuildReport {
    product: String,
    version: String,
    outcome: &'static str,
    statement: String,
    outputs: Vec<OutputReport>,
    folder: PathBuf,
    #[serde(skip_serializing_if = "String::is_empty")]
    diagnosis: String,
}

#[derive(Debug, Serialize)]
struct OutputReport {
    name: String,
    sha256: String,
    size: u64,
    /// Whether somebody else published the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    equals_published: Option<bool>,
}

impl BuildReport {
    /// A build that was rebuilt, without its statement; `published` tells whether others published
    /// an output too.
    fn of(agreed: &Agreed, folder: &BuildFolder, published: impl Fn(&str, Digest) -> Option<bool>) -> Self {
        let outputs = agreed.outputs.iter().map(|file| OutputReport {
            name: file.name.clone(),
            sha256: file.digest.to_string(),
            size: file.size,
            equals_published: published(&file.name, file.digest),
        });
        Self {
            product: agreed.product.to_string(),
            version: agreed.version.to_string(),
            outcome: "rebuilt, bit for bit",
            statement: String::new(),
            outputs: outputs.collect(),
            folder: folder.path().to_owned(),
            diagnosis: String::new(),
        }
    }
}

impl fmt::Display for BuildReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}: {} (statement {})", self.product, self.version, self.outcome, self.statement)?;
        for output in &self.outputs {
            let published = match output.equals_published {
                Some(true) => "  = published",
                Some(false) => "  differs from what is published",
                None => "",
            };
            writeln!(f, "  {}  {} ({} bytes){published}", output.sha256, output.name, output.size)?;
        }
        writeln!(f, "  evidence in {}", self.folder.display())?;
        f.write_str(&self.diagnosis)
    }
}

/// Runs the command.
///
/// # Errors
/// Why it did not do what was asked; a build that does not match is refused.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Build(arguments) => block_on(build(arguments, None, output)),
        Command::Import(arguments) => {
            let handover = Handover {
                provenance: arguments.provenance.clone(),
                key: arguments.key.clone(),
                builder: arguments.builder.clone(),
                parameters: arguments.parameters.clone(),
                artifacts: arguments.artifacts.iter().cloned().collect(),
            };
            block_on(build(&arguments.build, Some(&handover), output))
        }
        Command::Compare(arguments) => compare_folders(arguments, output),
        Command::Pin(arguments) => pin(arguments, output),
    }
}

async fn build(arguments: &BuildArguments, handover: Option<&Handover>, output: Output) -> anyhow::Result<()> {
    let line = Line::open(&Config::load(&arguments.config)?).await?;
    let checkout = arguments.repository.as_ref().map(|repository| Checkout {
        repository: repository.clone(),
        revision: GitRevision(arguments.revision.clone()),
    });
    let options = BuildOptions {
        product: arguments.product.clone(),
        checkout,
        asking: if arguments.offline { Asking::Recorded } else { Asking::Upstream },
        cache: arguments.cache.clone(),
        environment: arguments.environment.clone(),
    };
    let standing = if handover.is_none() { line.standing(&options)? } else { None };
    if let Some(Standing { record, result, folder }) = standing {
        let mut report = BuildReport::of(&record.agreed, &folder, |_, _| None);
        report.outcome = "nothing changed since it was rebuilt, bit for bit";
        report.statement = result.envelope.id().to_string();
        return output.print(&report);
    }
    let bar = Bar::new();
    let built = match handover {
        Some(handover) => line.import(&options, handover, &bar).await?,
        None => line.build(&options, &bar).await?,
    };
    let outcome = line.rebuild(&built, |step| bar.say(&format!("supervisor: {step}"))).await?;
    bar.finish();
    let agreed = &built.record.agreed;
    let published = |name: &str, digest: Digest| {
        let theirs = built.fetched.published.iter().find(|file| file.file == name);
        theirs.map(|file| file.sha256 == digest)
    };
    let mut report = BuildReport::of(agreed, &built.folder, published);
    match outcome {
        RebuildOutcome::Matched { result, .. } => {
            report.statement = result.envelope.id().to_string();
            output.print(&report)
        }
        RebuildOutcome::Mismatched { mismatch, diagnosis } => {
            report.outcome = "NOT the same";
            report.statement =
                mismatch.entries().first().map(|entry| entry.envelope.id().to_string()).unwrap_or_default();
            report.diagnosis = diagnosis;
            output.print(&report)?;
            Err(Failure::refused(format!(
                "the rebuild of {} {} differs; the supervisor has logged it",
                agreed.product, agreed.version
            ))
            .hint("the diagnosis above names the cause; a mismatch stays in the log for good")
            .into())
        }
    }
}

#[derive(Serialize)]
struct CompareReport(compare::Verdict);

impl fmt::Display for CompareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn compare_folders(arguments: &CompareArguments, output: Output) -> anyhow::Result<()> {
    let (left, right) = (outputs_of(&arguments.left)?, outputs_of(&arguments.right)?);
    let verdict = compare::compare(&Builds { left: &left, right: &right }, &Limits::default(), &SystemClock::new())?;
    let same = matches!(verdict, compare::Verdict::Identical(_));
    output.print(&CompareReport(verdict))?;
    if same { Ok(()) } else { Err(Failure::refused("the outputs differ").into()) }
}

fn outputs_of(folder: &Path) -> anyhow::Result<Outputs> {
    let mut outputs = Outputs::default();
    let read = || format!("can't read `{}`", folder.display());
    for entry in std::fs::read_dir(folder).with_context(read)? {
        let entry = entry.with_context(read)?;
        outputs.add(&entry.file_name().to_string_lossy(), OneOutput::File(entry.path()))?;
    }
    Ok(outputs)
}

#[derive(Serialize)]
struct PinReport {
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_before: Option<String>,
    changes: Vec<String>,
}

impl fmt::Display for PinReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = &self.version_before {
            writeln!(f, "version {before} → {}", self.version)?;
        }
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        if self.changes.is_empty() {
            writeln!(f, "nothing changed")?;
        }
        Ok(())
    }
}

fn pin(arguments: &PinArguments, output: Output) -> anyhow::Result<()> {
    let depot = Depot::create(&arguments.depot, Transport::Clients)?;
    let bar = Bar::new();
    let Pinned { version_before, version, changes } = assembly::pin(&depot, &arguments.product, &bar)?;
    bar.finish();
    let version_before = version_before.map(|version| version.to_string());
    output.print(&PinReport { version: version.to_string(), version_before, changes })
}

/// Shows what goes on: a line that changes on a terminal, plain lines elsewhere.
pub(crate) struct Bar {
    bar: ProgressBar,
    plain: bool,
}

impl Bar {
    pub(crate) fn new() -> Self {
        use std::io::IsTerminal as _;
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Self { bar, plain: !std::io::stderr().is_terminal() }
    }

    pub(crate) fn say(&self, message: &str) {
        if self.bar.message() == message {
            return;
        }
        self.bar.set_message(message.to_owned());
        if self.plain {
            tracing::info!("{message}");
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        match event {
            Event::Resolving { index, packages } => self.say(&format!("asking {index} for {packages} packages")),
            Event::Fetching { index, missing } => self.say(&format!("fetching {missing} from {index}")),
            Event::Unpacking { done, total } => {
                self.bar.set_message(format!("unpacking the environment: {done} of {total}"));
            }
            Event::Checking { .. } => self.say("hashing the environment"),
            Event::Building { product, version } => self.say(&format!("building {product} {version}")),
            Event::Printed { text } => {
                let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let shown: String = last.chars().filter(|c| !c.is_control()).take(100).collect();
                self.bar.set_message(shown);
            }
        }
    }
}
