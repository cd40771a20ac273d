//! The next policies and the newest status, whoever shows them.
//!
//! Every mirror is asked, the owner's and those that the policy names. The newest status that holds
//! counts, so a mirror that shows an older one, or none, keeps nothing from this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{BaseUrl, Change, Client, ClientError};
use attest::Lane;
use channel::layout;
use stdx::Digest;
use verify::{CurrentStatus, StatusMark};

use crate::endpoint::{Endpoint, POLICY_WITHHELD};
use crate::failure::Failure;
use crate::mirrors::{Answer, Answers, Questions, Wait};
use crate::report::Report;
use crate::tiles::TileProver;

/// Successions in one update; a machine that was off for a year has as many weeks.
const POLICIES_MAX: usize = 64;

/// What the mirrors had.
#[derive(Default)]
pub(crate) struct News {
    /// The status of each lane that a product needs; without one, nothing new in that lane.
    pub(crate) statuses: BTreeMap<Lane, CurrentStatus>,
    /// Who did not answer in time.
    pub(crate) silent: Vec<BaseUrl>,
}

/// One round of answers, all of them under one policy.
#[derive(Default)]
struct Round {
    lanes: BTreeMap<Lane, Shown>,
    policy_failures: Vec<Failure>,
    succeeded: bool,
    /// A mirror said that there is no next policy.
    none_due: bool,
    silent: Vec<BaseUrl>,
}

/// A lane, as mirrors show it.
#[derive(Default)]
struct Shown {
    /// The status known before, as it lies on the disk.
    kept: Option<(Digest, Vec<u8>)>,
    /// What was the newest when the round began: nothing may go behind it.
    seen: Option<StatusMark>,
    newest: Option<Held>,
    /// Older ones that hold: who showed them.
    behind: Vec<Held>,
    /// Bundles that were judged already.
    judged: BTreeSet<Digest>,
    failures: Vec<Failure>,
}

/// A status that holds, and who showed it.
struct Held {
    base: BaseUrl,
    status: CurrentStatus,
    bytes: Vec<u8>,
}

impl Endpoint<'_> {
    /// Takes in policies and status. If any status names a policy that was not to be had, nothing
    /// new in any lane: the rules are known to be out of date, whatever other mirrors show.
    pub(crate) fn take_news(
        &mut self,
        client: &Client,
        prover: &TileProver<'_>,
        report: &mut Report,
    ) -> Result<News, Failure> {
        for _ in 0..POLICIES_MAX {
            let file = layout::policy(self.policy.policy().version + 1);
            let mut round = self.ask_mirrors(client, prover, report)?;
            let failures = std::mem::take(&mut round.policy_failures);
            self.settle_failures(&file, failures, round.succeeded || round.none_due, report)?;
            if !round.succeeded {
                return self.settle_round(round, report);
            }
        }
        Ok(News::default())
    }

    /// The owner's mirrors, and those that the policy names.
    fn mirrors(&self) -> Vec<BaseUrl> {
        let mut mirrors = self.config.channel.clone();
        // The policy checks its URLs; what this client can't use is as good as silent.
        let named = self.policy.policy().mirrors.iter().filter_map(|url| url.as_str().parse::<BaseUrl>().ok());
        mirrors.extend(named);
        let mut known = BTreeSet::new();
        mirrors.retain(|base| known.insert(base.clone()));
        mirrors
    }

    fn ask_mirrors(&mut self, client: &Client, prover: &TileProver<'_>, report: &mut Report) -> Result<Round, Failure> {
        let mut round = Round::default();
        let lanes: BTreeSet<Lane> = self.config.products.iter().flat_map(|it| self.lanes_of(it)).copied().collect();
        for lane in lanes {
            let kept = std::fs::read(self.status_path(lane)).ok().map(|bytes| (Digest::of(&bytes), bytes));
            let seen = self.memory.mark(lane, self.policy.policy());
            round.lanes.insert(lane, Shown { kept, seen, ..Shown::default() });
        }
        let known = |shown: &Shown| shown.kept.as_ref().map(|(digest, _)| *digest);
        let policy = self.policy.policy().version + 1;
        let questions = Questions { policy, lanes: round.lanes.iter().map(|(lane, it)| (*lane, known(it))).collect() };
        let wait = Wait { clock: self.ports.clock, timeout: Duration::from_secs(self.config.network.timeout_s) };
        let mut answers = Answers::ask(self.mirrors(), client, questions, wait);
        while let Some(answer) = answers.next() {
            self.hear(answer, prover, &mut round, report)?;
            if round.succeeded {
                // Everything else is asked again, under the new policy.
                return Ok(round);
            }
            if round.lanes.values().all(|lane| lane.newest.is_some()) {
                answers.hurry();
            }
        }
        for base in &answers.silent {
            let failure = || Failure::unavailable(format!("{base}: no answer in time"));
            round.lanes.values_mut().for_each(|lane| lane.failures.push(failure()));
        }
        round.silent = answers.silent;
        Ok(round)
    }

    fn hear(
        &mut self,
        answer: Answer,
        prover: &TileProver<'_>,
        round: &mut Round,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let Answer { base, policy, statuses } = answer;
        let file = layout::policy(self.policy.policy().version + 1);
        match policy {
            Ok(None) => round.none_due = true,
            // It did not answer at all: that is said below.
            Err(ClientError::Unreachable { .. }) => {}
            Err(error) => round.policy_failures.push(Failure::from(error)),
            Ok(Some(bytes)) => match self.take_policy(&bytes, prover, report) {
                Ok(()) => {
                    round.succeeded = true;
                    return Ok(());
                }
                Err(failure) => round.policy_failures.push(failure.within(&format!("{base}: {file}"))),
            },
        }
        let mut statuses: BTreeMap<Lane, _> = statuses.into_iter().collect();
        for (lane, shown) in &mut round.lanes {
            let heard = match statuses.remove(lane) {
                Some(status) => self.hear_status(&base, status, *lane, shown, prover),
                None => Err(Failure::unavailable("no answer")),
            };
            if let Err(failure) = heard {
                shown.failures.push(failure.within(&format!("{base}: {}", layout::status(*lane))));
            }
        }
        Ok(())
    }

    fn hear_status(
        &mut self,
        base: &BaseUrl,
        status: Result<Change, ClientError>,
        lane: Lane,
        shown: &mut Shown,
        prover: &TileProver<'_>,
    ) -> Result<(), Failure> {
        let bytes = match (status?, &shown.kept) {
            (Change::Body(bytes), _) => bytes,
            (Change::None, Some((_, bytes))) => bytes.clone(),
            (Change::None, None) => Vec::new(),
        };
        if !shown.judged.insert(Digest::of(&bytes)) {
            return Ok(());
        }
        let status = self.judge_status(&bytes, lane, shown.seen, prover, Self::online)?;
        let held = Held { base: base.clone(), status, bytes };
        match &shown.newest {
            Some(newest) if newest.status.mark() >= held.status.mark() => shown.behind.push(held),
            _ => shown.behind.extend(shown.newest.replace(held)),
        }
        Ok(())
    }

    /// Keeps the newest status of each lane, and says what mirrors did wrong.
    fn settle_round(&mut self, round: Round, report: &mut Report) -> Result<News, Failure> {
        let withheld = |shown: &Shown| shown.failures.iter().any(|failure| failure.code == POLICY_WITHHELD);
        let is_withheld = round.lanes.values().any(withheld);
        let mut news = News { silent: round.silent, ..News::default() };
        for (lane, mut shown) in round.lanes {
            let held = !withheld(&shown);
            if let Some(newest) = shown.newest.take() {
                let Held { status, bytes, .. } = newest;
                // A crash may have left the bundle without the memory of it.
                if shown.seen != Some(status.mark()) || shown.kept.is_none_or(|(_, kept)| kept != bytes) {
                    self.keep_status(&status, &bytes)?;
                }
                shown.failures.extend(shown.behind.iter().filter_map(|older| behind(older, &status)));
                news.statuses.insert(lane, status);
            }
            let done = held && news.statuses.contains_key(&lane);
            self.settle_failures(&layout::status(lane), shown.failures, done, report)?;
        }
        if is_withheld {
            news.statuses.clear();
        }
        Ok(news)
    }
}

/// Mirrors lag; one that lags behind a "no" is worth a line in the journal.
fn behind(older: &Held, newest: &CurrentStatus) -> Option<Failure> {
    const HINT: &str = "another mirror showed the newer status, which counts; ask this one's operator if it stays";
    let Held { base, status, .. } = older;
    let message = || format!("{base}: shows status {}, which lacks what {} forbids", status.mark(), newest.mark());
    let lacks = !status.status().forbids_all_of(newest.status());
    lacks.then(|| Failure::rejected("status-behind", message(), HINT))
}
