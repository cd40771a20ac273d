//! The main path: from source to a verified endpoint.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use attest::{Lane, Ring};
use serde_json::Value;
use stdx::durable;

use super::Options;
use super::endpoint::{Endpoint, Wanted};
use super::report::{Narrator, Report};
use super::stage::{OTHER_PRODUCT, Stage, last_words};
use super::verify::Question;
use crate::failure::Failure;

/// A product that was released.
pub(super) struct Shown {
    /// Its name.
    pub(super) product: String,
    /// Its version.
    pub(super) version: String,
    /// `builds/PRODUCT/VERSION` of the vendor.
    pub(super) folder: PathBuf,
    /// One of its artifacts.
    pub(super) artifact: PathBuf,
    /// SHA-256 of that artifact.
    pub(super) sha256: String,
    /// The endpoint that has it installed.
    pub(super) endpoint: Endpoint,
}

impl Shown {
    /// The evidence that endpoints check.
    pub(super) fn bundle(&self) -> PathBuf {
        self.folder.join("release.bundle")
    }
}

/// Builds, rebuilds, signs, logs, publishes, installs.
pub(super) fn walk(
    stage: &Stage,
    options: &Options,
    narrator: &Narrator,
    report: &mut Report,
) -> anyhow::Result<Shown> {
    narrator.chapter("From source to two organisations that agree");
    let mut first = None;
    for name in &options.names {
        let built = build(stage, options, name, narrator, report)?;
        release(stage, &built, narrator, report)?;
        first.get_or_insert(built);
    }
    let Some(built) = first else { bail!("no product was named") };
    narrator.chapter("An endpoint that installs what it can check");
    let wanted = Wanted { name: "endpoint", products: &options.names, ring: Ring::All, sections: String::new() };
    let endpoint = Endpoint::set(stage, &wanted)?;
    narrator.say("initialised with the policy's hash alone");
    let installed = endpoint.update()?;
    for name in &options.names {
        let what = installed.get(name).with_context(|| format!("the endpoint has not installed `{name}`"))?;
        narrator.say(&format!("installed {name} {what}"));
    }
    report.proven(
        "an endpoint installs by the evidence, in two slots",
        format!("installed: {}", options.names.join(", ")),
        endpoint.status_command(),
    );
    let artifact = first_artifact(&built.folder)?;
    let sha256 = stdx::Digest::of(&fs::read(&artifact)?).to_string();
    Ok(Shown { product: built.product, version: built.version, folder: built.folder, artifact, sha256, endpoint })
}

/// A product that was built twice.
struct Built {
    product: String,
    version: String,
    folder: PathBuf,
}

fn build(
    stage: &Stage,
    options: &Options,
    name: &str,
    narrator: &Narrator,
    report: &mut Report,
) -> anyhow::Result<Built> {
    let recipe = stage.folder().join("products").join(name);
    copy_recipe(&options.products.join(name), &recipe)?;
    narrator.say(&format!("{name}: the vendor resolves, fetches and builds; the supervisor does it all again"));
    let said = build_or_pin(stage, options, &recipe, narrator)?;
    let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, folder) = (text("version"), PathBuf::from(text("folder")));
    let outputs = said.get("outputs").and_then(Value::as_array).map_or(0, Vec::len);
    let published = said
        .get("outputs")
        .and_then(Value::as_array)
        .is_some_and(|outputs| outputs.iter().all(|it| it.get("equals_published") == Some(&Value::Bool(true))));
    let equals = if published { ", and they equal what upstream published" } else { "" };
    narrator.say(&format!("{name} {version}: {} the same, bit for bit{equals}", outputs_of(outputs)));
    report.proven(
        &format!("{name} {version} was built twice, by two organisations, from inputs each resolved itself"),
        format!("{} the same, bit for bit{equals}; result {}", outputs_of(outputs), text("statement")),
        format!("clerestory release show {}", folder.join("result.bundle").display()),
    );
    Ok(Built { product: name.to_owned(), version, folder })
}

fn outputs_of(count: usize) -> String {
    if count == 1 { "one output".to_owned() } else { format!("{count} outputs") }
}

/// Builds and has rebuilt; gives what `assembly build` printed. A Debian pin may have left the
/// archive since the lock was made: then it is made anew, visibly.
///
/// # Errors
/// When the build fails, or is not the same twice.
pub fn build_or_pin(stage: &Stage, options: &Options, recipe: &Path, narrator: &Narrator) -> anyhow::Result<Value> {
    let (config, folder) = (stage.config("vendor"), recipe.display().to_string());
    let cache = fs::canonicalize(options.folder.join("downloads"))?.display().to_string();
    let mut arguments = vec!["assembly", "build", "--config", &config, "--cache", &cache, &folder];
    if options.offline {
        arguments.push("--offline");
    }
    let output = stage.try_clerestory(&arguments)?;
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout)?);
    }
    let words = last_words(&output);
    if !words.contains("assembly pin") || options.offline {
        let failure = Failure::refused(format!("building `{folder}`: {words}"));
        return Err(if options.offline {
            failure.hint("let one run ask upstream first, without `--offline`")
        } else {
            failure.hint("without a network, `--offline` uses what an earlier run has found and fetched")
        }
        .into());
    }
    narrator.say(&format!("  {words}"));
    let depot = stage.file("vendor/depot");
    let pinned = stage.clerestory(&["assembly", "pin", &folder, "--depot", &depot])?;
    let changes = pinned.get("changes").and_then(Value::as_array).cloned().unwrap_or_default();
    narrator.say(&format!("  the lock was made anew: {} changes", changes.len()));
    for change in changes.iter().filter_map(Value::as_str) {
        narrator.say(&format!("    {change}"));
    }
    stage.clerestory(&arguments)
}

/// A person of each organisation approves the result in `folder`.
pub(super) fn approve(stage: &Stage, folder: &Path, comment: &str) -> anyhow::Result<()> {
    let result = folder.join("result.bundle").display().to_string();
    for party in ["vendor", "supervisor"] {
        let (config, key) = (stage.config(party), stage.file(&format!("{party}/keys/approver.key")));
        let out = folder.join("approvals").join(format!("{party}.bundle")).display().to_string();
        let from = ["release", "approve", "--config", &config, "--key", &key, "--result", &result];
        stage.clerestory(&[&from[..], &["--comment", comment, "--out", &out]].concat())?;
    }
    Ok(())
}

fn release(stage: &Stage, built: &Built, narrator: &Narrator, report: &mut Report) -> anyhow::Result<()> {
    approve(stage, &built.folder, "the demo approves what it has just seen rebuilt")?;
    let config = stage.config("vendor");
    let said = stage.clerestory(&["release", "publish", "--config", &config, &built.product, &built.version])?;
    let bytes = said.get("bundle_bytes").and_then(Value::as_u64).unwrap_or_default();
    narrator.say(&format!(
        "{}: approved by two people, signed by both, witnessed, published ({bytes} bytes of evidence)",
        built.product
    ));
    let artifact = first_artifact(&built.folder)?;
    let bundle = built.folder.join("release.bundle");
    let question = Question { file: &artifact, bundle: &bundle, product: &built.product, lane: Lane::Slow };
    let said = question.ask(stage)?;
    if !said.verified {
        bail!("the released artifact is not accepted: {}", said.reason);
    }
    report.proven(
        &format!(
            "{} {} verifies offline, by a program that shares only the verification",
            built.product, built.version
        ),
        format!("{} bytes of evidence in one file", bytes),
        question.command(stage),
    );
    Ok(())
}

/// Anyone can check the logs: growth, quorum, completeness.
pub(super) fn audit(stage: &Stage, narrator: &Narrator, report: &mut Report) -> anyhow::Result<()> {
    narrator.chapter("An auditor who was not asked");
    let (config, proofs) = (stage.config("supervisor"), stage.file("."));
    let arguments = ["audit", "--config", &config, "--proofs", &proofs];
    stage.clerestory(&arguments)?;
    narrator.say("both logs: consistent, cosigned by a quorum, streams complete");
    report.proven(
        "the logs are consistent and complete",
        "no gap, no double, no silence, no second view",
        format!("clerestory {}", arguments.join(" ")),
    );
    for name in ["vendor", "supervisor"] {
        stage.stop(name)?;
        stage.clerestory(&["fsck", "--config", &stage.config(name)])?;
        stage.start(name)?;
    }
    narrator.say("both stores: every tile, bundle and lock is what its hash says");
    report.proven(
        "the stores are sound",
        "fsck found nothing",
        format!("clerestory fsck --config {}", stage.config("vendor")),
    );
    Ok(())
}

fn first_artifact(folder: &Path) -> anyhow::Result<PathBuf> {
    let outputs = folder.join("outputs");
    let mut paths: Vec<PathBuf> = fs::read_dir(&outputs)
        .with_context(|| format!("can't read `{}`", outputs.display()))?
        .map(|entry| entry.map(|it| it.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    paths.into_iter().next().with_context(|| format!("`{}` is empty", outputs.display()))
}

/// Copies recipe and lock of a product.
///
/// # Errors
/// When one of them is missing.
pub fn copy_recipe(from: &Path, to: &Path) -> anyhow::Result<()> {
    durable::create_folder(to)?;
    for name in [assembly::RECIPE_FILE, assembly::LOCK_FILE] {
        let source = from.join(name);
        fs::copy(&source, to.join(name)).with_context(|| format!("can't read `{}`", source.display()))?;
    }
    Ok(())
}

/// A name that the policy has and that is not what is asked for.
pub(super) const fn another_product() -> &'static str {
    OTHER_PRODUCT
}
