//! What a custodian opens shares with: its own table, keys in files, keys on a token.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use custody::{Closed, ClosedShare, GrantError, ShareKeys, Table, TableError, TableFolders};
use seal::{Kem, PrivateKey, PublicKey, Share, Wrapped};
use stdx::{Digest, Entropy, durable};

use super::token::Token;
use crate::config::{CustodianConfig, DataFolder};
use crate::failure::Failure;
use crate::key_file::read_secret;

/// All of them.
pub(crate) struct KeyRing {
    folder: PathBuf,
    files: RwLock<HashMap<Digest, Arc<PrivateKey>>>,
    token: Option<Token>,
    on_token: RwLock<HashMap<Digest, PublicKey>>,
    table: Table,
}

impl KeyRing {
    /// Reads the files; a token is asked when it is needed.
    ///
    /// # Errors
    /// When a key or the table can't be read.
    pub(crate) fn open(config: &CustodianConfig) -> anyhow::Result<Self> {
        let folder = config.keys.regions.clone();
        let rows = DataFolder::new(config.data.clone()).table();
        let table = Table::open(TableFolders { keys: config.keys.table.clone(), rows })?;
        let token = config.keys.token.clone().map(Token::new);
        let files = RwLock::new(read_all(&folder)?);
        Ok(Self { folder, files, token, on_token: RwLock::default(), table })
    }

    /// Draws a key: on the token, if there is one that can hold it.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn generate(&self, kem: Kem, entropy: &dyn Entropy) -> anyhow::Result<PublicKey> {
        if let (Kem::P256, Some(token)) = (kem, &self.token) {
            return token.generate();
        }
        let key = PrivateKey::generate(kem, entropy)?;
        let path = path_of(&self.folder, &key.public().id());
        let mut text = key.to_text();
        text.push('\n');
        durable::write_private(&path, text.as_bytes()).with_context(|| format!("can't write `{}`", path.display()))?;
        Ok(key.public().clone())
    }

    /// The custodian's own table.
    pub(crate) const fn table(&self) -> &Table {
        &self.table
    }

    /// Every key that is here.
    ///
    /// # Errors
    /// When the token does not answer.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Digest>> {
        let files = read_all(&self.folder)?;
        let token = self.token.as_ref().map(Token::keys).transpose()?;
        let on_token = token.into_iter().flat_map(|(keys, _)| keys).map(|key| key.id());
        Ok(files.into_keys().chain(on_token).collect())
    }

    /// How often the token's keys were used, if there is a token.
    pub(crate) fn token_uses(&self) -> Option<anyhow::Result<u64>> {
        Some(self.token.as_ref()?.keys().map(|(_, uses)| uses))
    }

    /// Destroys a key, wherever it is. Nobody opens anything with it any more.
    ///
    /// # Errors
    /// When it is still there.
    pub(crate) fn destroy(&self, id: &Digest) -> anyhow::Result<()> {
        let path = path_of(&self.folder, id);
        durable::remove(&path).with_context(|| format!("can't remove `{}`", path.display()))?;
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let (Some(token), Some(key)) = (&self.token, self.on_token(id)?) {
            token.destroy(&key)?;
            self.on_token.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
        Ok(())
    }

    /// The key in a file. Another process may have made one, or destroyed it; a disk that fails has destroyed none.
    fn in_file(&self, id: &Digest) -> anyhow::Result<Option<Arc<PrivateKey>>> {
        let path = path_of(&self.folder, id);
        if is_gone(&path)? {
            self.files.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            return Ok(None);
        }
        if let Some(key) = self.files.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(Some(Arc::clone(key)));
        }
        let key = Arc::new(read(&path)?);
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(*id, Arc::clone(&key));
        Ok(Some(key))
    }

    fn on_token(&self, id: &Digest) -> anyhow::Result<Option<PublicKey>> {
        let found = self.on_token.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let (None, Some(token)) = (&found, &self.token) else { return Ok(found) };
        let (keys, _) = token.keys()?;
        let mut held = self.on_token.write().unwrap_or_else(PoisonError::into_inner);
        *held = keys.into_iter().map(|key| (key.id(), key)).collect();
        Ok(held.get(id).cloned())
    }

    /// Those with a key on the token: all of one key at once, so that its counter is written once.
    fn open_by_token(
        &self,
        key: &PublicKey,
        closed: &[&ClosedShare],
    ) -> Result<Vec<Result<Share, Closed>>, GrantError> {
        let failed = |error: &dyn std::fmt::Display| GrantError::Keys(error.to_string());
        let token = self.token.as_ref().ok_or_else(|| failed(&"there is no token"))?;
        // A point that is not on the curve is refused before a token sees it.
        let fit =
            |it: &&ClosedShare| it.share.wrapped().filter(|wrapped| PublicKey::of_point(&wrapped.encapsulated).is_ok());
        let wrapped: Vec<Option<Wrapped>> = closed.iter().map(fit).collect();
        let points: Vec<Vec<u8>> = wrapped.iter().flatten().map(|it| it.encapsulated.clone()).collect();
        let agreed = if points.is_empty() { Ok(Vec::new()) } else { token.derive(key, &points) };
        let agreed = agreed.map_err(|error| failed(&format!("{error:#}")))?;
        if agreed.len() != points.len() {
            return Err(failed(&format!("the token gave {} secrets for {}", agreed.len(), points.len())));
        }
        let mut agreed = agreed.into_iter();
        let open = |(it, wrapped): (&&ClosedShare, &Option<Wrapped>)| {
            let wrapped = wrapped.as_ref()?;
            Share::open_agreed(wrapped, key, &it.info, &agreed.next()?)
        };
        let opened = closed.iter().zip(&wrapped).map(open);
        Ok(opened.map(|share| share.ok_or(Closed::False)).collect())
    }
}

impl ShareKeys for KeyRing {
    fn open(&self, closed: &[ClosedShare]) -> Result<Vec<Result<Share, Closed>>, GrantError> {
        let failed = |error: anyhow::Error| GrantError::Keys(format!("{error:#}"));
        let mut opened: BTreeMap<usize, Result<Share, Closed>> = BTreeMap::new();
        let mut by_token: BTreeMap<Digest, Vec<(usize, &ClosedShare)>> = BTreeMap::new();
        for (at, it) in closed.iter().enumerate() {
            let found = self.table.find(it).map_err(|error| match error {
                TableError::Erased(object) => GrantError::Erased(object),
                error => GrantError::Keys(error.to_string()),
            });
            if let Some(share) = found? {
                opened.insert(at, Ok(share));
            } else if let Some(key) = self.in_file(&it.share.key).map_err(failed)? {
                opened.insert(at, it.open(&key));
            } else {
                by_token.entry(it.share.key).or_default().push((at, it));
            }
        }
        for (id, group) in by_token {
            let (places, group): (Vec<usize>, Vec<&ClosedShare>) = group.into_iter().unzip();
            let shares = match self.on_token(&id).map_err(failed)? {
                Some(key) => self.open_by_token(&key, &group)?,
                None => group.iter().map(|_| Err(Closed::NoKey)).collect(),
            };
            opened.extend(places.into_iter().zip(shares));
        }
        Ok(opened.into_values().collect())
    }

    fn holds(&self, key: &Digest) -> bool {
        let in_file = || self.in_file(key).map(|it| it.is_some());
        let found = in_file().and_then(|found| Ok(found || self.on_token(key)?.is_some()));
        found.inspect_err(|error| tracing::error!("a region's keys can't be read: {error:#}")).unwrap_or(false)
    }
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
            match read(&path) {
                Ok(key) => drop(keys.insert(key.public().id(), Arc::new(key))),
                // Its time was over just now.
                Err(_) if is_gone(&path)? => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(keys)
}

fn is_gone(path: &Path) -> anyhow::Result<bool> {
    Ok(!path.try_exists().with_context(|| format!("can't look for `{}`", path.display()))?)
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
