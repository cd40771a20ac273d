//! Reads a repository over HTTP.

use std::io::Read;
use std::time::Duration;

use tuf::{Fetch, FetchError, Location};
use ureq::Agent;

/// The longest one file may take; a slow-data attack ends here.
const FILE_TIME_MAX: Duration = Duration::from_secs(60);

/// The two base URLs of a repository.
pub(crate) struct Http {
    agent: Agent,
    metadata: String,
    targets: Option<String>,
}

impl Http {
    pub(crate) fn new(metadata: &str, targets: Option<&str>) -> Self {
        let config = Agent::config_builder().timeout_global(Some(FILE_TIME_MAX)).max_redirects(0).build();
        Self { agent: config.into(), metadata: with_slash(metadata), targets: targets.map(with_slash) }
    }
}

impl Fetch for Http {
    fn open(&self, location: &Location) -> Result<Box<dyn Read + '_>, FetchError> {
        let url = match (location, &self.targets) {
            (Location::Metadata(path), _) => format!("{}{path}", self.metadata),
            (Location::Target(path), Some(base)) => format!("{base}{path}"),
            (Location::Target(_), None) => return Err(FetchError::Unavailable("no --target-base-url".to_owned())),
        };
        match self.agent.get(&url).call() {
            // `into_reader` sets no limit of its own; the client reads no further than it may.
            Ok(response) => Ok(Box::new(response.into_body().into_reader())),
            Err(ureq::Error::StatusCode(403 | 404)) => Err(FetchError::NotFound),
            Err(error) => Err(FetchError::Unavailable(format!("{url}: {error}"))),
        }
    }
}

fn with_slash(url: &str) -> String {
    if url.ends_with('/') { url.to_owned() } else { format!("{url}/") }
}
