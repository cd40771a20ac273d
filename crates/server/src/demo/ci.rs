//! The vendor's existing CI as the first builder: honest once, and once not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, bail};
use attest::Envelope;
use serde_json::{Value, json};
use stdx::{Digest, SystemEntropy, durable};
use tlog::{KeyKind, SignerKey};

use super::path::Shown;
use super::report::{Narrator, Report};
use super::stage::{Stage, last_words};

const BUILDER: &str = "https://ci.vendor.example/runner";

/// Submits what a CI built: the genuine artifact, then one that was altered before it was signed.
pub(super) fn run(stage: &Stage, shown: &Shown, narrator: &Narrator, report: &mut Report) -> anyhow::Result<()> {
    narrator.chapter("The vendor's own CI as the first builder");
    let folder = stage.folder().join("ci");
    durable::create_folder(&folder)?;
    let key = SignerKey::generate("ci.vendor.example/runner".parse()?, KeyKind::Ed25519, &SystemEntropy)?;
    let genuine = fs::read(&shown.artifact)?;
    let output = submit(stage, shown, &key, &folder, &genuine)?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if !output.status.success() {
        bail!("the CI's artifact was not confirmed: {}", last_words(&output));
    }
    narrator.say("its artifact was rebuilt, bit for bit");
    report.proven(
        "what the vendor's CI built is what the supervisor rebuilds",
        format!("result {}", said.get("statement").and_then(Value::as_str).unwrap_or_default()),
        "clerestory assembly import --help",
    );
    let mut altered = genuine;
    altered.extend_from_slice(b"\n");
    let output = submit(stage, shown, &key, &folder, &altered)?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if output.status.success() || said.get("outcome").and_then(Value::as_str) != Some("NOT the same") {
        bail!("an artifact that the CI altered was not found out: {}", last_words(&output));
    }
    let statement = said.get("statement").and_then(Value::as_str).unwrap_or_default();
    narrator.say("refused: an artifact that the CI altered before it signed");
    report.refused(
        "an artifact that the vendor's CI altered, under its genuine provenance",
        format!("the rebuild differs; mismatch {statement} stands in the supervisor's log"),
        format!("clerestory log entries --config {} --log supervisor.example/log", stage.config("vendor")),
    );
    Ok(())
}

fn submit(stage: &Stage, shown: &Shown, key: &SignerKey, folder: &Path, artifact: &[u8]) -> anyhow::Result<Output> {
    let name = shown.artifact.file_name().and_then(|name| name.to_str()).context("the artifact has no name")?;
    let path = folder.join(name);
    durable::write(&path, artifact)?;
    let provenance = provenance(folder, key, name, &Digest::of(artifact))?;
    let recipe = stage.folder().join("products").join(&shown.product);
    let (config, recipe, vkey) = (stage.config("vendor"), recipe.display().to_string(), key.verifier().to_string());
    let (artifact, provenance) = (format!("{name}={}", path.display()), provenance.display().to_string());
    stage.try_clerestory(&[
        "assembly",
        "import",
        "--config",
        &config,
        "--offline",
        &recipe,
        "--provenance",
        &provenance,
        "--key",
        &vkey,
        "--builder",
        BUILDER,
        "--parameter",
        "ref",
        "--artifact",
        &artifact,
    ])
}

/// SLSA provenance v1 as a CI writes it: not in our canonical form.
fn provenance(folder: &Path, key: &SignerKey, name: &str, artifact: &Digest) -> anyhow::Result<PathBuf> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": artifact.to_string()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://ci.vendor.example/workflow/v1",
                "externalParameters": {"ref": "refs/tags/release"},
                "resolvedDependencies": [],
            },
            "runDetails": {"builder": {"id": BUILDER}, "metadata": {"invocationId": "1"}},
        },
    });
    let envelope = Envelope::sign(serde_json::to_vec_pretty(&statement)?, &[key])?;
    let value: Value = serde_json::from_slice(&envelope.to_bytes())?;
    let path = folder.join("provenance.intoto.json");
    durable::write(&path, &serde_json::to_vec_pretty(&value)?)?;
    Ok(path)
}
