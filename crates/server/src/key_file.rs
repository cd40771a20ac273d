//! Keys in files: `NAME.key` holds the secret and only its owner can read it; `NAME.pub` is the
//! `vkey` line for policies.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use oblivious::{GatewayKey, KeyConfiguration};
use stdx::{Digest, Entropy, durable};
use tlog::{KeyKind, KeyName, SignerKey};
use tuf::{Ed25519Signer, Signer as _};

use crate::failure::Failure;

/// A key's text is below 400 bytes; anything longer is another file.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// What is to be generated.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key's name, such as `vendor.example/builder`.
    pub name: KeyName,
    /// What it signs.
    pub kind: KeyKind,
    /// Where the secret goes; the public half goes beside it, with the extension `pub`.
    pub path: PathBuf,
}

/// Draws a key and writes both files. A key file is never overwritten.
///
/// # Errors
/// When one of the files is there already, or can't be written.
pub fn generate(new: &NewKey, entropy: &dyn Entropy) -> anyhow::Result<SignerKey> {
    let public = public_path(&new.path);
    refuse_existing(&[&new.path, &public])?;
    let key = SignerKey::generate(new.name.clone(), new.kind, entropy)?;
    let mut secret = key.to_secret_text();
    secret.push('\n');
    write_secret(&new.path, secret.as_bytes())?;
    write_public(&public, &key.verifier().to_string())?;
    Ok(key)
}

/// Reads a secret key.
///
/// # Errors
/// When the file is missing, readable by others, or holds something else.
pub fn load(path: &Path) -> anyhow::Result<SignerKey> {
    let text = read_secret(path)?;
    text.trim_end_matches('\n').parse().with_context(|| {
        Failure::refused(format!("`{}` holds no signer key", path.display()))
            .hint("a key file is one line that begins with PRIVATE+KEY; `clerestory key generate` makes one")
    })
}

/// Draws an Ed25519 key for TUF metadata: the file holds its seed in hexadecimal, the public file
/// the public key.
///
/// # Errors
/// As [`generate`].
pub fn generate_tuf(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let public = public_path(path);
    refuse_existing(&[path, &public])?;
    let key = Ed25519Signer::generate(entropy)?;
    let mut text = tlog_hex(&key.seed());
    text.push('\n');
    write_secret(path, text.as_bytes())?;
    write_public(&public, key.public_key().public().unwrap_or_default())
}

/// Reads a key for TUF metadata.
///
/// # Errors
/// As [`load`].
pub fn load_tuf(path: &Path) -> anyhow::Result<Ed25519Signer> {
    let text = read_secret(path)?;
    // 64 lower-case hexadecimal digits are what a digest is written as, too.
    let seed: Digest = text.trim_end_matches('\n').parse().map_err(|_| {
        Failure::refused(format!("`{}` holds no TUF key", path.display()))
            .hint("a TUF key file is one line of 64 hexadecimal digits; `clerestory init vendor` makes them")
    })?;
    Ok(Ed25519Signer::from_seed(seed.as_bytes()))
}

/// Draws a gateway's key: the public file holds its configuration, for the policy.
///
/// # Errors
/// As [`generate`].
pub fn generate_gateway(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<KeyConfiguration> {
    let public = public_path(path);
    refuse_existing(&[path, &public])?;
    // A successor's number must be another; which one, is of no matter.
    let mut id = [0];
    entropy.fill(&mut id)?;
    let [id] = id;
    let key = GatewayKey::generate(id, entropy)?;
    write_secret(path, key.to_secret_text().as_bytes())?;
    write_public(&public, &key.configuration().to_string())?;
    Ok(key.configuration().clone())
}

/// Reads a gateway's key.
///
/// # Errors
/// As [`load`].
pub fn load_gateway(path: &Path) -> anyhow::Result<GatewayKey> {
    let text = read_secret(path)?;
    text.parse().with_context(|| {
        Failure::refused(format!("`{}` holds no gateway's key", path.display()))
            .hint("`clerestory init gateway` makes one")
    })
}

/// What the file beside a secret key, of either form, says.
///
/// # Errors
/// As [`load`].
pub fn public_half(path: &Path) -> anyhow::Result<String> {
    if read_secret(path)?.starts_with("PRIVATE+KEY") {
        return Ok(load(path)?.verifier().to_string());
    }
    Ok(load_tuf(path)?.public_key().public().unwrap_or_default().to_owned())
}

fn tlog_hex(seed: &[u8; 32]) -> String {
    Digest::from_bytes(*seed).to_string()
}

fn public_path(path: &Path) -> PathBuf {
    path.with_extension("pub")
}

fn refuse_existing(paths: &[&Path]) -> Result<(), Failure> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(Failure::refused(format!("`{}` is there already", path.display()))
            .hint("a key is never overwritten; choose another file")),
        None => Ok(()),
    }
}

fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    durable::write_private(path, bytes).with_context(|| format!("can't write `{}`", path.display()))
}

fn write_public(path: &Path, line: &str) -> anyhow::Result<()> {
    durable::write(path, format!("{line}\n").as_bytes()).with_context(|| format!("can't write `{}`", path.display()))
}

/// A file that nobody else can read.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<String> {
    let metadata = std::fs::metadata(path).with_context(|| {
        Failure::refused(format!("can't read the key `{}`", path.display()))
            .hint("`clerestory init` and `clerestory key generate` make keys")
    })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Failure::refused(format!("the key `{}` can be read by others", path.display()))
            .hint("take their permissions away (chmod 600), and replace the key if others have read it")
            .into());
    }
    if metadata.len() > KEY_FILE_BYTES_MAX {
        return Err(Failure::refused(format!("`{}` is too long for a key", path.display())).into());
    }
    std::fs::read_to_string(path).with_context(|| format!("can't read the key `{}`", path.display()))
}
