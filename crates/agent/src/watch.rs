//! Whether there is any news: two small conditional requests, which are believed in one way only, that it is time to
//! look at everything.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{BodyLimit, Change, Client};
use attest::{BUNDLE_BYTES_MAX, Lane};
use channel::layout;
use stdx::Digest;

use crate::config::Config;

/// What names all that is new, and what forbids: whoever serves them can keep an endpoint from looking early, and
/// from nothing else.
#[derive(Debug, Default)]
pub struct Watch {
    seen: BTreeMap<String, Digest>,
    /// Of a clock that only goes forward.
    next: Duration,
}

impl Watch {
    /// Whether it is time to ask, if the owner wants that at all.
    pub fn is_due(&mut self, config: &Config, now: Duration) -> bool {
        let Some(every) = config.watch_s.map(Duration::from_secs) else { return false };
        if now < self.next {
            return false;
        }
        self.next = now.saturating_add(every);
        true
    }

    /// Asks the first mirror. Without an answer there is no news, until the next whole look.
    pub fn has_news(&mut self, config: &Config, client: &Client) -> bool {
        let Some(mirror) = config.channel.first() else { return false };
        let paths = ["metadata/timestamp.json".to_owned(), layout::status(Lane::Fast)];
        let mut news = false;
        for path in paths {
            let url = mirror.join(&format!("/{path}"));
            let limit = BodyLimit(BUNDLE_BYTES_MAX as u64);
            if let Ok(Change::Body(bytes)) = client.get_changed(&url, self.seen.get(&path), limit) {
                let digest = Digest::of(&bytes);
                // The first time there is nothing to compare with: a whole look was just before.
                news |= self.seen.insert(path, digest).is_some_and(|before| before != digest);
            }
        }
        news
    }
}
