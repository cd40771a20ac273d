//! `clerestory policy`: from a TOML file to a policy that several organisations have signed.
//!
//! Each organisation drafts from the same TOML, compares the payload's id, and signs it; any of
//! them assembles the signatures. A later version is logged, and becomes a bundle with its proof.

mod diff;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use attest::{
    BUNDLE_BYTES_MAX, Bundle, BundleEntry, ENVELOPE_BYTES_MAX, Envelope, Position, Statement, StatementId, StreamName,
    Subject,
};
use clap::{Args, Subcommand};
use policy::{Policy, PolicyDocument};
use serde::Serialize;
use stdx::{Clock as _, Digest, SystemClock, UnixTime, durable};
use tlog::{LogProof, MAX_LOG_PROOF_BYTES, Origin};
use verify::TrustedPolicy;

use crate::command::trust::TrustArguments;
use crate::command::{Output, read_limited};
use crate::failure::Failure;
use crate::key_file;

/// Draft, sign, assemble, show, compare and check policies
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the statement to be signed from a policy in TOML
    Draft(Draft),
    /// Sign a drafted statement with one policy key
    Sign {
        /// The policy key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The version before this one; a key that this version retires must sign too
        #[arg(long, value_name = "FILE")]
        previous: Option<PathBuf>,
        /// The drafted statement
        #[arg(value_name = "PAYLOAD")]
        payload: PathBuf,
        /// Where the envelope goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Join the signatures of several organisations
    Assemble {
        /// Envelopes of the same statement
        #[arg(value_name = "ENVELOPE", required = true)]
        envelopes: Vec<PathBuf>,
        /// The proof that it is logged, which makes a bundle of a later version
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        /// Where the envelope, or with `--proof` the bundle, goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show a drafted statement, an envelope or a bundle
    Show {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what a policy would change: which countries' data goes where, who must agree, what else
    Diff(diff::Diff),
    /// Check a policy in TOML, or the policy folder of a configuration
    Check {
        /// A policy in TOML
        #[arg(value_name = "TOML", conflicts_with_all = ["config", "policy", "genesis"])]
        file: Option<PathBuf>,
        #[command(flatten)]
        trust: TrustArguments,
    },
}

#[derive(Debug, Args)]
struct Draft {
    /// The policy
    #[arg(value_name = "TOML")]
    file: PathBuf,
    /// The log that it is to stand in
    #[arg(long, value_name = "ORIGIN")]
    log: Origin,
    /// The stream that it is to stand in, which holds nothing but policies
    #[arg(long, default_value = "policy")]
    stream: StreamName,
    /// The version before this one, an envelope or a bundle; a genesis policy has none
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// The signers' time, which all of them must give alike [default: now]
    #[arg(long)]
    time: Option<UnixTime>,
    /// Where the statement goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A policy statement, in short.
#[derive(Debug, Serialize)]
struct Summary {
    id: StatementId,
    name: String,
    version: u64,
    signers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
    #[serde(skip)]
    text: String,
}

impl Summary {
    fn of(document: &PolicyDocument, id: StatementId) -> Self {
        let (name, version) = (document.policy.name.clone(), document.policy.version);
        Self { id, name, version, signers: Vec::new(), policy: None, text: String::new() }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy `{}` version {}", self.name, self.version)?;
        writeln!(f, "id {}", self.id)?;
        if !self.signers.is_empty() {
            writeln!(f, "signed by {}", self.signers.join(", "))?;
        }
        if !self.text.is_empty() {
            write!(f, "\n{}", self.text)?;
        }
        Ok(())
    }
}

/// # Errors
/// When a file is not what it should be, or a policy makes no sense.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Draft(draft) => self::draft(draft, output),
        Command::Sign { key, previous, payload, out } => {
            let previous = previous.as_deref().map(read_any).transpose()?;
            sign(key, previous.map(|(document, ..)| document.policy), payload, out, output)
        }
        Command::Assemble { envelopes, proof, out } => assemble(envelopes, proof.as_deref(), out, output),
        Command::Show { file } => show(file, output),
        Command::Diff(arguments) => diff::run(arguments, output),
        Command::Check { file, trust } => check(file.as_deref(), trust, output),
    }
}

fn draft(arguments: &Draft, output: Output) -> anyhow::Result<()> {
    let policy = read_toml(&arguments.file)?;
    let previous = match &arguments.previous {
        Some(file) => Some(read_any(file)?.1),
        None => None,
    };
    if (policy.version == 1) != previous.is_none() {
        return Err(Failure::refused(format!(
            "`{}` has version {}; version 1 has no predecessor, every other one has",
            arguments.file.display(),
            policy.version
        ))
        .hint("`--previous FILE` names the version before")
        .into());
    }
    let subject = vec![Subject::new(policy.name.clone(), Digest::of(policy.name.as_bytes()))];
    // The stream holds nothing but policies, so a version says where it stands.
    let position = Position {
        log: arguments.log.clone(),
        stream: arguments.stream.clone(),
        epoch: 0,
        sequence: policy.version.saturating_sub(1),
        previous,
        time: arguments.time.unwrap_or_else(|| SystemClock::new().now()),
    };
    let document = PolicyDocument { position, previous, policy };
    let payload = Statement { subject, predicate: document.clone() }.encode()?;
    write(&arguments.out, &payload)?;
    output.print(&Summary::of(&document, StatementId::of(&payload)))
}

fn sign(key: &Path, previous: Option<Policy>, payload: &Path, out: &Path, output: Output) -> anyhow::Result<()> {
    let key = key_file::load(key)?;
    let bytes = read_limited(payload, ENVELOPE_BYTES_MAX)?;
    let document = decode(&bytes).with_context(|| format!("`{}` is no drafted policy", payload.display()))?;
    document.policy.check().context("the policy makes no sense; nothing is signed")?;
    check_keys(&document.policy).context("the policy makes no sense; nothing is signed")?;
    let mut listed = std::iter::once(&document.policy).chain(&previous).flat_map(|it| it.keys_of(policy::Role::Policy));
    if !listed.any(|(_, listed)| listed == key.verifier()) {
        return Err(Failure::refused(format!("`{}` is no policy key of this policy", key.verifier().name()))
            .hint(
                "sign with a key that the policy lists with role `policy`; `--previous FILE` if it is retired by this",
            )
            .into());
    }
    let envelope = Envelope::sign(bytes, &[&key])?;
    write(out, &envelope.to_bytes())?;
    output.print(&summary_of(&envelope)?)
}

fn assemble(files: &[PathBuf], proof: Option<&Path>, out: &Path, output: Output) -> anyhow::Result<()> {
    let mut joined: Option<Envelope> = None;
    for file in files {
        let bytes = read_limited(file, ENVELOPE_BYTES_MAX)?;
        let envelope = Envelope::parse(&bytes).with_context(|| format!("`{}` is no envelope", file.display()))?;
        match &mut joined {
            Some(joined) => joined.merge(&envelope).with_context(|| format!("`{}` can't be joined", file.display()))?,
            None => joined = Some(envelope),
        }
    }
    let envelope = joined.context("no envelope was given")?;
    let document = decode(envelope.payload())?;
    check_keys(&document.policy)?;
    if document.policy.version == 1 {
        // What nobody could bootstrap from is not worth writing.
        TrustedPolicy::bootstrap(&envelope, &envelope.id())?;
    }
    let bytes = match proof {
        Some(path) => {
            let text = read_limited(path, MAX_LOG_PROOF_BYTES)?;
            let proof = LogProof::parse(text).with_context(|| format!("`{}` is no proof", path.display()))?;
            Bundle::new(vec![BundleEntry { envelope: envelope.clone(), proof }])?.to_bytes()
        }
        None => envelope.to_bytes(),
    };
    write(out, &bytes)?;
    output.print(&summary_of(&envelope)?)
}

fn show(file: &Path, output: Output) -> anyhow::Result<()> {
    let (document, id, signers) = read_any(file)?;
    let text = toml::to_string_pretty(&document.policy).context("the policy can't be written as TOML")?;
    output.print(&Summary { signers, policy: Some(document.policy.clone()), text, ..Summary::of(&document, id) })
}

/// Whether a policy makes sense.
#[derive(Debug, Serialize)]
struct Checked {
    name: String,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<StatementId>,
    needed: usize,
    witnesses: usize,
    faulty: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy `{}` version {} makes sense", self.name, self.version)?;
        if let Some(id) = &self.id {
            writeln!(f, "id {id}")?;
        }
        write!(f, "{} of {} witnesses, {} of them may be faulty", self.needed, self.witnesses, self.faulty)
    }
}

fn check(file: Option<&Path>, trust: &TrustArguments, output: Output) -> anyhow::Result<()> {
    let (policy, quorum, id) = match file {
        Some(file) => {
            let policy = read_toml(file)?;
            let (_, quorum) = policy.check().with_context(|| format!("`{}`", file.display()))?;
            check_keys(&policy).with_context(|| format!("`{}`", file.display()))?;
            (policy, quorum, None)
        }
        None => {
            let trusted = trust.load()?;
            (trusted.policy().clone(), trusted.quorum(), Some(trusted.id()))
        }
    };
    output.print(&Checked {
        name: policy.name,
        version: policy.version,
        id,
        needed: quorum.needed,
        witnesses: quorum.witnesses,
        faulty: quorum.faulty,
    })
}

/// The keys that data is sealed to are keys.
fn check_keys(policy: &Policy) -> Result<(), seal::SealError> {
    policy.residency.as_ref().map_or(Ok(()), seal::check_keys)
}

fn read_toml(file: &Path) -> anyhow::Result<Policy> {
    let bytes = read_limited(file, ENVELOPE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).with_context(|| format!("`{}` is no text", file.display()))?;
    let policy: Policy = toml::from_str(&text).map_err(|error| {
        Failure::refused(format!("`{}` is no policy: {}", file.display(), error.to_string().trim_end()))
            .hint("docs/formats/policy.md describes each field")
    })?;
    Ok(policy)
}

/// A policy from whatever file holds one: what it says, its id, and who claims to have signed.
fn read_any(file: &Path) -> anyhow::Result<(PolicyDocument, StatementId, Vec<String>)> {
    let bytes = read_limited(file, BUNDLE_BYTES_MAX)?;
    let envelope = match (Envelope::parse(&bytes), Bundle::parse(&bytes)) {
        (Ok(envelope), _) => envelope,
        (_, Ok(bundle)) => {
            let entry = bundle.entries().iter().find(|entry| decode(entry.envelope.payload()).is_ok());
            let entry = entry.ok_or_else(|| Failure::refused(format!("`{}` holds no policy", file.display())))?;
            entry.envelope.clone()
        }
        _ => {
            let document = decode(&bytes).with_context(|| {
                Failure::refused(format!("`{}` is no drafted policy, envelope or bundle", file.display()))
            })?;
            return Ok((document, StatementId::of(&bytes), Vec::new()));
        }
    };
    let document = decode(envelope.payload()).with_context(|| format!("`{}` holds no policy", file.display()))?;
    Ok((document, envelope.id(), signers(&envelope)))
}

fn summary_of(envelope: &Envelope) -> anyhow::Result<Summary> {
    let document = decode(envelope.payload())?;
    Ok(Summary { signers: signers(envelope), ..Summary::of(&document, envelope.id()) })
}

fn signers(envelope: &Envelope) -> Vec<String> {
    envelope.signatures().iter().map(|signature| signature.key.to_string()).collect()
}

fn decode(payload: &[u8]) -> Result<PolicyDocument, attest::StatementError> {
    Statement::<PolicyDocument>::decode(payload).map(|statement| statement.predicate)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    durable::write(path, bytes).with_context(|| format!("can't write `{}`", path.display()))
}
