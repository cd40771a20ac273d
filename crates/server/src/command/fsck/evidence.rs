//! Files outside of stores: keys, the channel's tree, and the evidence of builds. What is signed is
//! checked as far as it needs no moment: old evidence stays what it is under later policies.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use assembly::BuildRecord;
use attest::{Approval, BuildResult, Bundle, BundleEntry, Envelope, Lane, Release, Statement};
use channel::Channel;
use stdx::Digest;
use tlog::{NoteError, VerifierKey, leaf_hash};
use verify::TrustedPolicy;

use super::Report;

/// Evidence is at most that long; outputs are only hashed.
const FILE_BYTES_MAX: usize = attest::BUNDLE_BYTES_MAX;

/// Every file in `folder` and below it, in order; none if there is no such folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("can't read `{}`", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

/// The public half beside each key is that of the secret.
pub(super) fn keys(paths: &[&Path], report: &mut Report) -> anyhow::Result<()> {
    for path in paths {
        report.objects += 1;
        let public = path.with_extension("pub");
        if !public.exists() {
            continue;
        }
        let written = std::fs::read_to_string(&public).with_context(|| format!("can't read `{}`", public.display()))?;
        match crate::key_file::public_half(path) {
            Ok(key) if key == written.trim_end() => {}
            Ok(_) => report.damage(path.display(), format!("is not the secret of `{}`", public.display())),
            Err(error) => report.damage(path.display(), format!("{error:#}")),
        }
    }
    Ok(())
}

/// The channel's tree: metadata that leads from the root to every target, and all targets.
pub(super) fn channel(folder: &Path, policy: &TrustedPolicy, report: &mut Report) -> anyhow::Result<()> {
    if !folder.join("metadata").is_dir() {
        // It is made once, by a command of its own.
        return Ok(());
    }
    match Channel::open(folder) {
        Ok(channel) => targets(&channel, report),
        Err(error) => report.damage(folder.display(), format!("{:#}", anyhow::Error::new(error))),
    }
    for path in files(&folder.join("targets"))?.into_iter().chain(files(&folder.join("patches"))?) {
        report.objects += 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let named: Option<Digest> = name.split('.').next().and_then(|digest| digest.parse().ok());
        match (named, std::fs::File::open(&path).and_then(Digest::of_reader)) {
            (Some(named), Ok((found, _))) if named == found => {}
            (_, Err(error)) => report.damage(path.display(), error.to_string()),
            _ => report.damage(path.display(), "does not hold what its name says"),
        }
    }
    for path in files(&folder.join("status"))?.into_iter().chain(files(&folder.join("policy"))?) {
        signed(&path, policy, report)?;
    }
    Ok(())
}

/// What the metadata names is there; that it is right, its name says.
fn targets(channel: &Channel, report: &mut Report) {
    for lane in [Lane::Slow, Lane::Fast] {
        let role = channel::layout::role(lane);
        let Some(delegated) = channel.repository().delegated(&role) else { continue };
        for (path, file) in &delegated.content().targets {
            let Ok(target) = path.parse() else { continue };
            let location = channel.folder().join(tuf::Repository::location(&target, file).to_string());
            if !location.is_file() {
                report.damage(location.display(), "is missing, and the channel's metadata names it");
            }
        }
    }
}

/// What was built: records, statements, and the outputs that a result names.
pub(super) fn builds(folder: &Path, policy: &TrustedPolicy, report: &mut Report) -> anyhow::Result<()> {
    for path in files(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "record.json" {
            report.objects += 1;
            if let Err(error) = BuildRecord::parse(&read(&path)?) {
                report.damage(path.display(), error.to_string());
            }
        } else if name.ends_with(".bundle") {
            signed(&path, policy, report)?;
            named(&path, report)?;
        }
        if name == "result.bundle" {
            outputs(&path, report)?;
        }
    }
    Ok(())
}

/// What a bundle of a build is for, its place says; it begins with that statement.
fn named(path: &Path, report: &mut Report) -> anyhow::Result<()> {
    let Ok(bundle) = Bundle::parse(&read(path)?) else { return Ok(()) };
    let payload = bundle.entries().first().map_or(&[][..], |entry| entry.envelope.payload());
    let is_approval = path.parent().is_some_and(|folder| folder.ends_with("approvals"));
    let is_that = match path.file_name().and_then(|name| name.to_str()) {
        Some("result.bundle") => Statement::<BuildResult>::decode(payload).is_ok(),
        Some("release.bundle") => Statement::<Release>::decode(payload).is_ok(),
        _ if is_approval => Statement::<Approval>::decode(payload).is_ok(),
        _ => true,
    };
    if !is_that {
        report.damage(path.display(), "holds another statement than its name says");
    }
    Ok(())
}

fn outputs(result: &Path, report: &mut Report) -> anyhow::Result<()> {
    let Ok(bundle) = Bundle::parse(&read(result)?) else { return Ok(()) };
    let Some(entry) = bundle.entries().first() else { return Ok(()) };
    let Ok(statement) = Statement::<BuildResult>::decode(entry.envelope.payload()) else { return Ok(()) };
    for subject in &statement.subject {
        let path = result.with_file_name("outputs").join(&subject.name);
        report.objects += 1;
        match std::fs::File::open(&path).and_then(Digest::of_reader) {
            Ok((found, _)) if found == subject.sha256() => {}
            Ok((found, _)) => report.damage(path.display(), format!("is not what was built: SHA-256 {found}")),
            Err(error) => report.damage(path.display(), error.to_string()),
        }
    }
    Ok(())
}

/// A bundle, or the envelope of the first policy.
pub(super) fn signed(path: &Path, policy: &TrustedPolicy, report: &mut Report) -> anyhow::Result<()> {
    report.objects += 1;
    let bytes = read(path)?;
    let checked = if path.extension().is_some_and(|extension| extension == "envelope") {
        Envelope::parse(&bytes).map_err(|error| error.to_string()).and_then(|it| signatures(&it, policy))
    } else {
        Bundle::parse(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|bundle| bundle.entries().iter().try_for_each(|entry| check_entry(entry, policy)))
    };
    if let Err(problem) = checked {
        report.damage(path.display(), problem);
    }
    Ok(())
}

/// The entry is in the tree of its checkpoint, and no signature that claims a key of the policy is
/// by another.
fn check_entry(entry: &BundleEntry, policy: &TrustedPolicy) -> Result<(), String> {
    let (leaf, checkpoint) = (leaf_hash(&entry.envelope.to_bytes()), entry.proof.checkpoint());
    let head = checkpoint.checkpoint().head();
    entry.proof.path().verify(entry.proof.index(), &leaf, head).map_err(|error| error.to_string())?;
    let known = policy.witnessing();
    let logs = known.logs().iter().map(|log| log.key.clone());
    let keys: Vec<VerifierKey> = known.witnesses().iter().map(|it| it.key.clone()).chain(logs).collect();
    match checkpoint.note().verified_by(&keys) {
        // All keys may have been replaced since.
        Ok(_) | Err(NoteError::NoTrustedSignature) => signatures(&entry.envelope, policy),
        Err(error) => Err(error.to_string()),
    }
}

fn signatures(envelope: &Envelope, policy: &TrustedPolicy) -> Result<(), String> {
    let mut keys = policy.policy().organisations.iter().flat_map(|it| &it.keys);
    keys.try_for_each(|key| envelope.signed_by(&key.key).map(drop)).map_err(|error| error.to_string())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    crate::command::read_limited(path, FILE_BYTES_MAX)
}
