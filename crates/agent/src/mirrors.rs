//! Policies and status, asked of every mirror at once: no mirror can keep them from us but all.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use api::{BaseUrl, BodyLimit, Change, Client, ClientError};
use attest::{BUNDLE_BYTES_MAX, Lane};
use channel::layout;
use stdx::{Clock, Digest};

/// Once a status holds, whoever has not answered yet has so long to show a newer one.
const GRACE: Duration = Duration::from_secs(5);

const LIMIT: BodyLimit = BodyLimit(BUNDLE_BYTES_MAX as u64);

/// What every mirror is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    /// The version of the next policy.
    pub(crate) policy: u64,
    /// The lanes, with the status that is known already.
    pub(crate) lanes: Vec<(Lane, Option<Digest>)>,
}

/// What one mirror says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) base: BaseUrl,
    /// `None`: it has no such policy.
    pub(crate) policy: Result<Option<Vec<u8>>, ClientError>,
    /// As far as it went on answering.
    pub(crate) statuses: Vec<(Lane, Result<Change, ClientError>)>,
}

impl Answer {
    fn of(base: BaseUrl, client: &Client, questions: &Questions) -> Self {
        let file = |name: String| base.join(&format!("/{name}"));
        let policy = client.find(&file(layout::policy(questions.policy)), LIMIT);
        let mut statuses = Vec::new();
        let mut silent = matches!(policy, Err(ClientError::Unreachable { .. }));
        for (lane, known) in &questions.lanes {
            if silent {
                break;
            }
            let status = client.get_changed(&file(layout::status(*lane)), known.as_ref(), LIMIT);
            silent = matches!(status, Err(ClientError::Unreachable { .. }));
            statuses.push((*lane, status));
        }
        Self { base, policy, statuses }
    }
}

/// Answers, in the order in which they come.
pub(crate) struct Answers<'a> {
    clock: &'a dyn Clock,
    receive: Receiver<Answer>,
    /// When waiting ends, by the monotonic clock.
    until: Duration,
    /// Who has not answered.
    pub(crate) silent: Vec<BaseUrl>,
}

impl<'a> Answers<'a> {
    /// Asks each of `mirrors`; all together are waited for no longer than `timeout`.
    pub(crate) fn ask(mirrors: Vec<BaseUrl>, client: &Client, questions: Questions, wait: Wait<'a>) -> Self {
        let (send, receive) = channel();
        let questions = Arc::new(questions);
        if let [only] = &mirrors[..] {
            // Nobody is waited for in vain: no thread is needed.
            drop(send.send(Answer::of(only.clone(), client, &questions)));
        } else {
            mirrors.iter().for_each(|base| ask(base.clone(), client.clone(), Arc::clone(&questions), send.clone()));
        }
        let until = wait.clock.monotonic().saturating_add(wait.timeout);
        Self { clock: wait.clock, receive, until, silent: mirrors }
    }

    /// What is needed has come.
    pub(crate) fn hurry(&mut self) {
        self.until = self.until.min(self.clock.monotonic().saturating_add(GRACE));
    }
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    /// None when all have come, or the rest takes too long.
    fn next(&mut self) -> Option<Answer> {
        let left = self.until.saturating_sub(self.clock.monotonic());
        let answer = self.receive.recv_timeout(left).ok()?;
        self.silent.retain(|base| *base != answer.base);
        Some(answer)
    }
}

/// How long answers are waited for.
pub(crate) struct Wait<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) timeout: Duration,
}

/// The thread ends with its requests, which have time-outs; nobody waits for it. If there can be no
/// thread, there is no answer.
fn ask(base: BaseUrl, client: Client, questions: Arc<Questions>, send: Sender<Answer>) {
    let work = move || drop(send.send(Answer::of(base, &client, &questions)));
    drop(thread::Builder::new().spawn(work));
}
