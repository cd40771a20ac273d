//! Stores that several machines share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use api::BaseUrl;
use serde::Deserialize;
use storage::{Key, Name};

/// Stores beyond one machine, for several processes of one domain. Without this section everything
/// lies in the folder `data`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSection {
    /// Where the domain's other processes reach this one; without it, at the address it listens on.
    pub address: Option<BaseUrl>,
    /// Where the objects of log, channel and depot lie.
    pub objects: ObjectsSection,
    /// Where locks and the catalog lie.
    pub state: StateSection,
}

/// A bucket of any S3.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectsSection {
    /// The service's URL.
    pub endpoint: BaseUrl,
    /// The region, as requests are signed for it.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// What all keys of this domain start with.
    #[serde(deserialize_with = "parsed")]
    pub prefix: Key,
    /// Who asks.
    pub access_key_id: String,
    /// The file with the secret that goes with it.
    pub secret_access_key: PathBuf,
}

/// A schema of a PostgreSQL database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSection {
    /// `postgres://USER@HOST:PORT/DATABASE`, without a password.
    pub url: String,
    /// The schema of this domain.
    #[serde(deserialize_with = "parsed")]
    pub schema: Name,
    /// The file with the user's password, if it needs one.
    pub password: Option<PathBuf>,
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A file with the section alone, as `clerestory init --shared` takes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alone {
    shared: SharedSection,
}

impl SharedSection {
    /// Reads a text that holds this section alone; paths in it are relative to `base`.
    ///
    /// # Errors
    /// Where and why it is wrong.
    pub fn parse(text: &str, base: &Path) -> Result<Self, String> {
        let Alone { mut shared } = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        for path in shared.paths_mut() {
            *path = base.join(&path).components().collect();
        }
        match shared.problem() {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(shared),
        }
    }

    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        std::iter::once(&mut self.objects.secret_access_key).chain(self.state.password.as_mut())
    }

    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        // What stands before an `@` is the user; a `:` in it would be followed by a password.
        let user = self.state.url.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        user.is_some_and(|(user, _)| user.contains(':'))
            .then_some("`[shared.state] url` holds a password; write it into a file, and name that as `password`")
    }
}
