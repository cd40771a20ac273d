//! Whether there is any news. Our servers keep the question until there is, and answer with all of it; others are asked
//! every few seconds, by two small conditional requests. Either is believed in one way only, that it is time to look.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use api::{BaseUrl, BodyLimit, Change, Client};
use attest::{BUNDLE_BYTES_MAX, Lane, Ring};
use channel::{NEWS_BYTES_MAX, News, layout};
use stdx::Digest;

use crate::config::Config;
use crate::failure::Failure;

/// A server keeps a question for so long; half a minute is less than what lies between is patient.
const WAIT_S: u64 = 30;

/// Between two questions, whatever is answered.
const PAUSE: Duration = Duration::from_secs(1);

/// So many looks without news at once until that is tried again.
const LOOKS: u32 = 60;

/// What a mirror gave in advance, by URL; what it has not is `None`. Without any, it is only time to look.
pub type Ahead = BTreeMap<String, Option<Vec<u8>>>;

/// A thread that watches the first mirror: whoever serves it can keep an endpoint from looking early, and from nothing
/// else.
#[derive(Debug)]
pub struct Watch {
    news: Receiver<Ahead>,
}

impl Watch {
    /// Watches, if the owner wants that at all. The thread ends with the process, or after whoever started it has gone.
    ///
    /// # Errors
    /// [`Failure`] when there can be no thread.
    pub fn start(config: &Config, client: &Client) -> Result<Option<Self>, Failure> {
        let (Some(every), Some(mirror)) = (config.watch_s, config.channel.first()) else { return Ok(None) };
        let ring = config.products.iter().map(|product| config.ring_of(product)).min().unwrap_or(Ring::All);
        let every = Duration::from_secs(every);
        let timeout = Duration::from_secs(config.network.timeout_s);
        let watcher = Watcher { mirror: mirror.clone(), ring, client: client.with_timeout(timeout), timeout, every };
        // What is not wanted yet waits at the server: here lie two at most.
        let (send, news) = sync_channel(1);
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || watcher.watch(&send));
        thread.map_err(|error| Failure::unavailable(format!("nobody can watch the channel: {error}")))?;
        Ok(Some(Self { news }))
    }

    /// All that is new, as soon as there is anything, or nothing after `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<Ahead> {
        let mut ahead = match self.news.recv_timeout(timeout) {
            Ok(ahead) => ahead,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(timeout);
                return None;
            }
        };
        for later in self.news.try_iter() {
            merge(&mut ahead, later);
        }
        Some(ahead)
    }
}

/// Adds what was told later. It leads on from where the one before has led; if it is empty, nobody knows from where.
fn merge(ahead: &mut Ahead, later: Ahead) {
    if later.is_empty() {
        ahead.clear();
    } else if !ahead.is_empty() {
        ahead.extend(later);
    }
}

struct Watcher {
    mirror: BaseUrl,
    ring: Ring,
    client: Client,
    timeout: Duration,
    every: Duration,
}

/// What a mirror says when it is asked for news.
enum Heard {
    News(News),
    /// It has none, or does not know where we are.
    Nowhere,
    /// It gives no answer that could be used.
    Nothing,
}

impl Watcher {
    fn watch(&self, send: &SyncSender<Ahead>) {
        // Where the mirror can lead on from, and what was told last.
        let (mut state, mut known) = (None, None);
        let mut seen = BTreeMap::new();
        let mut looks = 0_u32;
        loop {
            let heard = if looks == 0 { self.ask(state.as_ref()) } else { Heard::Nothing };
            let (told, pause) = match heard {
                Heard::News(news) if known == Some(news.state) => {
                    state = known;
                    (None, PAUSE)
                }
                Heard::News(news) => {
                    state = Some(news.state);
                    known = state;
                    let there = news.files.into_iter().map(|(path, bytes)| (path, Some(bytes)));
                    let all = there.chain(news.absent.into_iter().map(|path| (path, None)));
                    // The first time nobody knows what has come between the last look and this state: it has no files.
                    (Some(all.map(|(path, it)| (self.mirror.join(&format!("/{path}")), it)).collect()), self.every)
                }
                // It says where it is, next.
                Heard::Nowhere if state.take().is_some() => (None, PAUSE),
                Heard::Nowhere | Heard::Nothing => {
                    // A server that has had news has them again; others are seldom asked.
                    looks = if known.is_some() { 0 } else { looks.checked_sub(1).unwrap_or(LOOKS) };
                    (self.look(&mut seen, known.is_some()).then(Ahead::new), self.every)
                }
            };
            if told.is_some_and(|ahead| send.send(ahead).is_err()) {
                return;
            }
            thread::sleep(pause);
        }
    }

    /// What leads on from `state`, or where the channel is; the same state if nothing has come in time.
    fn ask(&self, state: Option<&Digest>) -> Heard {
        let limit = BodyLimit(NEWS_BYTES_MAX as u64);
        let url = self.mirror.join(&format!("/{}", layout::news(self.ring, state)));
        let answer = match state {
            None => self.client.find(&url, limit),
            Some(_) => {
                let patient = self.client.with_timeout(self.timeout.saturating_add(Duration::from_secs(WAIT_S)));
                patient.find(&format!("{url}?wait={WAIT_S}"), limit)
            }
        };
        match (answer, state) {
            (Ok(Some(bytes)), Some(state)) if bytes.is_empty() => Heard::News(News::none(*state)),
            (Ok(Some(bytes)), _) => News::parse(&bytes).map_or(Heard::Nothing, Heard::News),
            (Ok(None), _) => Heard::Nowhere,
            (Err(_), _) => Heard::Nothing,
        }
    }

    /// Whether timestamp or status are others than at the last look. Without an answer there is no news, until the next
    /// whole look. When nothing was seen yet, it is news if something may have been `missed`.
    fn look(&self, seen: &mut BTreeMap<String, Digest>, missed: bool) -> bool {
        let mut news = false;
        for path in [layout::TIMESTAMP.to_owned(), layout::status(Lane::Fast)] {
            let url = self.mirror.join(&format!("/{path}"));
            let limit = BodyLimit(BUNDLE_BYTES_MAX as u64);
            if let Ok(Change::Body(bytes)) = self.client.get_changed(&url, seen.get(&path), limit) {
                let digest = Digest::of(&bytes);
                news |= seen.insert(path, digest).map_or(missed, |before| before != digest);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_on_is_added_and_what_does_not_begins_anew() {
        let of = |paths: &[&str]| paths.iter().map(|path| ((*path).to_owned(), None)).collect::<Ahead>();
        let merged = |mut ahead: Ahead, later: Ahead| {
            merge(&mut ahead, later);
            ahead
        };
        assert_eq!(merged(of(&["a"]), of(&["b"])), of(&["a", "b"]));
        assert_eq!(merged(of(&["a"]), Ahead::new()), Ahead::new());
        assert_eq!(merged(Ahead::new(), of(&["b"])), Ahead::new(), "what lies before it must be asked for");
    }
}
