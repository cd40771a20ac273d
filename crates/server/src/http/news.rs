//! What is new in the channel: endpoints wait for it here, and get all of it in one answer.
//!
//! It is the channel's own files, given in advance. Who can't wait, or comes from a state that is not known here any
//! more, asks for the files one by one as ever.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use attest::{Lane, Ring};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use channel::{Channel, Shown, layout};
use http::{StatusCode, header};
use serde::Deserialize;
use stdx::Digest;
use tokio::sync::watch;

use crate::http::error::{Code, HttpError};
use crate::http::stream::{NO_CACHE, OCTETS};
use crate::http::tree::{CHANNEL, renew};
use crate::http::{Stop, stopped};
use crate::kept::KeptFolder;
use crate::serve::Stops;

/// The route of those that wait.
pub(crate) const NEWS: &str = "/channel/news/{ring}/{state}";

/// How often it is asked whether files were replaced: a few `stat`.
const LOOK: Duration = Duration::from_millis(100);
/// The same where another machine may have published: a look at the lock store.
const LOOK_SHARED: Duration = Duration::from_secs(1);

/// States that endpoints are brought on from; who has missed more looks at everything.
const STATES_MAX: usize = 16;

const RINGS: [Ring; 3] = [Ring::Canary, Ring::Early, Ring::All];

/// The channel as it is, and what leads there.
pub(crate) struct News {
    folder: Arc<KeptFolder>,
    now: watch::Sender<Option<Arc<Now>>>,
    /// Nobody is kept waiting for longer.
    wait_max: Duration,
    stop: Stop,
}

#[derive(Default)]
struct Now {
    states: BTreeMap<Ring, Digest>,
    /// By the state that they lead away from. One that is known and leads nowhere is the present one.
    answers: BTreeMap<(Ring, Digest), Bytes>,
}

impl News {
    /// News of `folder`, which has been looked at; a request may take `timeout` in all. The task looks now and then
    /// until told to stop.
    pub(crate) async fn follow(
        folder: Arc<KeptFolder>,
        timeout: Duration,
        stop: &Stops,
    ) -> anyhow::Result<(Arc<Self>, impl Future<Output = anyhow::Result<()>> + use<>)> {
        let news =
            Self { folder, now: watch::Sender::new(None), wait_max: timeout * 5 / 6, stop: stop.requests.clone() };
        let mut seen = stamp(news.folder.path());
        let mut known = Seen::default();
        if !news.look(&mut known).await? {
            seen.clear();
        }
        let (news, mut stop) = (Arc::new(news), stop.tasks.clone());
        let following = Arc::clone(&news);
        let task = async move {
            loop {
                let pause = if following.folder.is_shared() { LOOK_SHARED } else { LOOK };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.changed() => return Ok(()),
                }
                renew(&following.folder).await;
                let stamp = stamp(following.folder.path());
                if stamp != seen {
                    // What could not be read is read again, also if it is then what it was before.
                    seen = if following.look(&mut known).await? { stamp } else { Stamp::new() };
                }
            }
        };
        Ok((news, task))
    }

    /// Whether it could be read. If not, nobody is kept waiting for what may be there: all look for themselves.
    async fn look(&self, known: &mut Seen) -> anyhow::Result<bool> {
        let (folder, mut seen) = (Arc::clone(&self.folder), std::mem::take(known));
        let looked = move || (seen.look(folder.path()), seen);
        let (now, seen) = tokio::task::spawn_blocking(looked).await?;
        *known = seen;
        let (now, failed) = now.map_or_else(|error| (None, Some(error)), |now| (Some(Arc::new(now)), None));
        let before = self.now.send_replace(now);
        // Before the first publication there is nothing to be read; and what lasts is said once.
        if let Some(error) = failed.as_ref().filter(|_| before.is_some()) {
            tracing::warn!("what is new in the channel can't be told: {error:#}");
        }
        Ok(failed.is_none())
    }
}

/// What was seen of a folder.
#[derive(Default)]
struct Seen {
    last: Option<Shown>,
    /// The latest last.
    before: VecDeque<Before>,
}

/// States that were shown, and which files have come since the first moment of it.
struct Before {
    states: BTreeMap<Ring, Digest>,
    added: BTreeSet<String>,
}

/// What tells one version of a file from another: those that count are replaced, never written over.
type Stamp = Vec<Option<(u64, i64, i64)>>;

impl Seen {
    fn look(&mut self, folder: &FilePath) -> anyhow::Result<Now> {
        let channel = Channel::open(folder)?;
        let shown = channel.shown()?;
        if let Some(last) = &self.last {
            let added = shown.added(last);
            self.before.iter_mut().for_each(|it| it.added.extend(added.iter().cloned()));
        }
        let mut now = Now::default();
        for ring in RINGS {
            let state = shown.state(ring).context("each ring has a state")?;
            now.states.insert(ring, state);
            for before in &self.before {
                let Some(from) = before.states.get(&ring).filter(|from| **from != state) else { continue };
                // Who came to a state first has missed most.
                if let Entry::Vacant(place) = now.answers.entry((ring, *from))
                    && let Some(news) = channel.news(&shown, ring, &before.added)?
                {
                    place.insert(news.to_bytes().into());
                }
            }
        }
        if self.before.back().is_none_or(|last| last.states != now.states) {
            self.before.push_back(Before { states: now.states.clone(), added: BTreeSet::new() });
        }
        if self.before.len() > STATES_MAX {
            self.before.pop_front();
        }
        self.last = Some(shown);
        Ok(now)
    }
}

fn stamp(folder: &FilePath) -> Stamp {
    let of = |path: String| {
        let found: io::Result<_> = std::fs::metadata(folder.join(path));
        found.ok().map(|found| (found.ino(), found.mtime(), found.mtime_nsec()))
    };
    let status = [Lane::Slow, Lane::Fast].map(layout::status);
    [layout::TIMESTAMP.to_owned(), "policy".to_owned()].into_iter().chain(status).map(of).collect()
}

pub(crate) fn router(news: Arc<News>) -> Router {
    Router::new().route(&format!("{CHANNEL}/news/{{ring}}"), get(state)).route(NEWS, get(wait)).with_state(news)
}

#[derive(Deserialize)]
struct Waiting {
    /// So many seconds, if there is nothing yet.
    #[serde(default)]
    wait: u64,
}

async fn state(State(news): State<Arc<News>>, Path(ring): Path<String>) -> Result<Response, HttpError> {
    let ring = parse::<Ring>(&ring)?;
    let now = news.now.borrow().clone();
    let state = now.as_ref().and_then(|now| now.states.get(&ring)).copied();
    let state = state.ok_or_else(|| HttpError::not_found("news"))?;
    Ok(answer(channel::News::none(state).to_bytes().into()))
}

async fn wait(
    State(news): State<Arc<News>>,
    Path((ring, state)): Path<(String, String)>,
    Query(Waiting { wait }): Query<Waiting>,
) -> Result<Response, HttpError> {
    let key = (parse::<Ring>(&ring)?, parse::<Digest>(&state)?);
    let mut changes = news.now.subscribe();
    let until = tokio::time::Instant::now() + Duration::from_secs(wait).min(news.wait_max);
    loop {
        {
            let now = changes.borrow_and_update();
            let now = now.as_ref().ok_or_else(|| HttpError::not_found("news"))?;
            if let Some(bytes) = now.answers.get(&key) {
                return Ok(answer(bytes.clone()));
            }
            if now.states.get(&key.0) != Some(&key.1) {
                let message = format!("nobody here knows state `{}` of ring `{}`", key.1, key.0);
                return Err(HttpError::new(Code::NotFound, message));
            }
        }
        tokio::select! {
            changed = changes.changed() => changed.map_err(|_| HttpError::not_found("news"))?,
            () = tokio::time::sleep_until(until) => return Ok(StatusCode::NO_CONTENT.into_response()),
            () = stopped(news.stop.clone()) => return Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, HttpError> {
    text.parse().map_err(|_| HttpError::not_found(text))
}

fn answer(bytes: Bytes) -> Response {
    ([(header::CONTENT_TYPE, OCTETS), (header::CACHE_CONTROL, NO_CACHE)], bytes).into_response()
}
