//! Regions' keys in files: one a key, named by the SHA-256 of its public half.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use custody::{KeyFault, ShareKeys};
use seal::{Kem, PrivateKey, PublicKey, SealedShare, Share};
use stdx::{Digest, Entropy, durable};

use crate::failure::Failure;
use crate::key_file::read_secret;

/// The keys in a folder. Others may come while a process has it open.
pub(crate) struct KeyFolder {
    folder: PathBuf,
    keys: RwLock<HashMap<Digest, Arc<PrivateKey>>>,
}

impl KeyFolder {
    /// Reads all of them.
    ///
    /// # Errors
    /// When one can't be read, or is none.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self { folder: folder.to_owned(), keys: RwLock::new(read_all(folder)?) })
    }

    fn key(&self, id: &Digest) -> Option<Arc<PrivateKey>> {
        let find = || self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        find().or_else(|| {
            // Made since, if there is one.
            let path = path_of(&self.folder, id);
            let key = path.exists().then(|| read(&path))?;
            match key {
                Ok(key) => {
                    let key = Arc::new(key);
                    let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                    keys.insert(*id, Arc::clone(&key));
                    Some(key)
                }
                Err(error) => {
                    tracing::error!("a region's key can't be read: {error:#}");
                    None
                }
            }
        })
    }
}

impl ShareKeys for KeyFolder {
    fn open(&self, share: &SealedShare, info: &[u8]) -> Result<Share, KeyFault> {
        let key = self.key(&share.key).ok_or(KeyFault::Missing)?;
        let wrapped = share.wrapped().ok_or(KeyFault::Closed)?;
        Share::open(&wrapped, &key, info).ok_or(KeyFault::Closed)
    }

    fn holds(&self, key: &Digest) -> bool {
        self.key(key).is_some()
    }
}

/// Draws a key and puts it into `folder`.
///
/// # Errors
/// When it can't be written.
pub(crate) fn generate(folder: &Path, kem: Kem, entropy: &dyn Entropy) -> anyhow::Result<PublicKey> {
    let key = PrivateKey::generate(kem, entropy)?;
    let path = path_of(folder, &key.public().id());
    let mut text = key.to_text();
    text.push('\n');
    durable::write_private(&path, text.as_bytes()).with_context(|| format!("can't write `{}`", path.display()))?;
    Ok(key.public().clone())
}

fn read_all(folder: &Path) -> anyhow::Result<HashMap<Digest, Arc<PrivateKey>>> {
    let unread = || {
        Failure::refused(format!("can't read the folder of the regions' keys `{}`", folder.display()))
            .hint("`clerestory init custodian` makes it, `clerestory data keys` fills it")
    };
    let mut keys = HashMap::new();
    for entry in std::fs::read_dir(folder).with_context(unread)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "key") && !durable::is_temporary(&path) {
            let key = read(&path)?;
            keys.insert(key.public().id(), Arc::new(key));
        }
    }
    Ok(keys)
}

fn read(path: &Path) -> anyhow::Result<PrivateKey> {
    let text = zeroize::Zeroizing::new(read_secret(path)?);
    PrivateKey::from_text(&text).with_context(|| {
        Failure::refused(format!("`{}` holds no region's key", path.display()))
            .hint("`clerestory data keys` makes them")
    })
}

fn path_of(folder: &Path, id: &Digest) -> PathBuf {
    folder.join(format!("{id}.key"))
}
