//! Online: policies and status, what the status forbids, and then what is new.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use api::{BaseUrl, BodyLimit, Client};
use attest::{BUNDLE_BYTES_MAX, Release, ReleaseNumber, Subject};
use channel::layout;
use channel::{RELEASES_BYTES_MAX, Releases};
use stdx::Digest;
use tuf::{Ed25519Sha256, Limits, RoleName, Store as _, Target, Trusted};
use verify::{Approved, CurrentStatus, Evidence, Request};

use crate::channel_source::{ChannelArtifacts, DiskStore, Mirror};
use crate::config::Product;
use crate::endpoint::{Endpoint, parse_bundle};
use crate::failure::Failure;
use crate::journal::Event;
use crate::news::News;
use crate::patience::Patience;
use crate::report::{Change, Report};
use crate::rules;
use crate::slots::{Artifacts, InstalledFile, Slots, Unfit};
use crate::tiles::TileProver;

/// Releases looked at in one update; the ones above the newest for our ring.
const CANDIDATES_MAX: usize = 16;

const SUITE: Ed25519Sha256 = Ed25519Sha256;

/// A release that may be for this machine.
struct Candidate<'a> {
    number: ReleaseNumber,
    place: layout::Product<'a>,
    status: &'a CurrentStatus,
}

/// What a release must be to be installed.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    product: &'a Product,
    /// None older than this.
    installed: Option<ReleaseNumber>,
    status: &'a CurrentStatus,
}

/// What an update has at hand.
struct Online<'a> {
    client: &'a Client,
    prover: &'a TileProver<'a>,
    news: News,
}

impl Endpoint<'_> {
    /// Brings this machine up to date, as far as the evidence allows.
    ///
    /// # Errors
    /// [`Failure`] of the agent's own state only; everything else is in the report.
    pub fn update(&mut self) -> Result<Report, Failure> {
        let network = self.config.network;
        let client = self.ports.client.with_timeout(Duration::from_secs(network.timeout_s));
        let prover = TileProver::new(&client, self.ports.clock, network, &self.config.logs, &self.config.state);
        let mut report = Report::default();
        let news = self.take_news(&client, &prover, &mut report)?;
        self.enforce(&mut report)?;
        self.settle(&prover, &mut report)?;
        let online = Online { client: &client, prover: &prover, news };
        self.take_releases(&online, &mut report)?;
        Ok(report)
    }

    /// What one mirror got wrong and another got right is journalled, but no failure.
    pub(crate) fn settle_failures(
        &self,
        object: &str,
        failures: Vec<Failure>,
        done: bool,
        report: &mut Report,
    ) -> Result<(), Failure> {
        for failure in failures {
            if done {
                self.journal_failure(object, &failure)?;
            } else {
                self.note(object, failure, report)?;
            }
        }
        Ok(())
    }

    /// Makes up for gaps, where a log's mirror is configured.
    fn settle(&mut self, prover: &TileProver<'_>, report: &mut Report) -> Result<(), Failure> {
        let mut closed = Vec::new();
        let mut failures = Vec::new();
        for log in &mut self.memory.logs {
            match log.settle(prover) {
                Ok(true) => closed.push(log.seen.clone()),
                Ok(false) => {}
                Err(refusal) => failures.push((log.seen.origin.to_string(), Failure::from(refusal))),
            }
        }
        self.remember()?;
        for seen in closed {
            self.record(Event::GapClosed, seen.origin.as_str(), &format!("proven up to size {}", seen.size))?;
        }
        failures.into_iter().try_for_each(|(origin, failure)| self.note(&origin, failure, report))
    }

    fn take_releases(&mut self, online: &Online<'_>, report: &mut Report) -> Result<(), Failure> {
        let config = self.config;
        let mut left: Vec<&Product> = Vec::new();
        for product in &config.products {
            if !self.lanes_of(product).is_empty() {
                left.push(product);
                continue;
            }
            let message = format!("policy `{}` has no product `{}`", self.policy.policy().name, product.id);
            let failure = Failure::rejected("policy", message, "correct the product's name in the configuration");
            self.note(product.id.as_str(), failure, report)?;
        }
        let mut failures = Vec::new();
        // Who has just been silent is asked last.
        let (silent, others): (Vec<_>, Vec<_>) =
            config.channel.iter().partition(|base| online.news.silent.contains(*base));
        for base in others.into_iter().chain(silent) {
            if left.is_empty() {
                break;
            }
            match self.take_from(base, &left, online, report) {
                Ok(unfinished) => {
                    left.retain(|product| unfinished.iter().any(|(id, _)| *id == product.id));
                    failures.extend(unfinished.into_iter().map(|(id, failure)| (id.to_string(), failure)));
                }
                Err(failure) => failures.push(("channel".to_owned(), failure.within(&base.to_string()))),
            }
        }
        for (object, failure) in failures {
            self.settle_failures(&object, vec![failure], left.is_empty(), report)?;
        }
        Ok(())
    }

    /// Updates `products` from one mirror; gives those that failed.
    fn take_from(
        &mut self,
        base: &BaseUrl,
        products: &[&Product],
        online: &Online<'_>,
        report: &mut Report,
    ) -> Result<Vec<(attest::ProductId, Failure)>, Failure> {
        let mirror = Mirror {
            base,
            client: online.client,
            patience: Patience::new(self.ports.clock, self.config.network),
            expected: Cell::new(0),
        };
        let store = DiskStore { folder: self.config.state.join("tuf"), disk: self.ports.disk };
        let client = tuf::Client::new(&store, &SUITE, Limits::default());
        if store.load(&RoleName::ROOT).map_err(|error| Failure::state(&store.folder, error))?.is_none() {
            client.create(&self.first_root(&mirror)?)?;
        }
        let trusted = client.refresh(&mirror, self.online().now())?;
        let mut unfinished = Vec::new();
        for product in products {
            let done = self.update_product(product, &trusted, &mirror, online, report);
            if let Err(failure) = done {
                unfinished.push((product.id.clone(), failure.within(&format!("{base}: {}", product.id))));
            }
        }
        Ok(unfinished)
    }

    /// The channel's first root: the policy names its hash, so that the policy's hash is the only
    /// thing that had to come from elsewhere.
    fn first_root(&self, mirror: &Mirror<'_>) -> Result<Vec<u8>, Failure> {
        const HINT: &str = "the channel is another one than the policy's; look at its URL";
        let refuse = |message: String| Failure::rejected("channel-root", message, HINT);
        let expected = self.policy.policy().channel_root;
        let expected = expected.ok_or_else(|| refuse("the policy names no channel".to_owned()))?;
        let url = mirror.base.join("/metadata/1.root.json");
        let client = mirror.client(0).map_err(Failure::unavailable)?;
        let bytes = mirror.patience.spend(|| client.get(&url, BodyLimit(Limits::default().root_bytes)))?;
        let found = Digest::of(&bytes);
        if found == expected {
            Ok(bytes)
        } else {
            Err(refuse(format!("{url}: SHA-256 is {found}, expected {expected}")))
        }
    }

    /// Installs the newest release for this machine's ring that is newer than what it has; the very
    /// release that is in use, if that is rules, and somebody or something has altered its files.
    fn update_product(
        &mut self,
        product: &Product,
        trusted: &Trusted<'_>,
        mirror: &Mirror<'_>,
        online: &Online<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let mut slots = self.slots(product)?;
        let damaged = self.damaged(product, &slots)?;
        let is_new = |number| slots.record.highest.is_none_or(|highest| number > highest) || Some(number) == damaged;
        let candidates = self.candidates(product, trusted, mirror, online, &is_new)?;
        let mut first_failure = None;
        for Candidate { number, place, status } in candidates.into_iter().take(CANDIDATES_MAX) {
            let target = trusted.find(&place.bundle(number))?;
            let bytes = fetch_small(trusted, &target, BUNDLE_BYTES_MAX, mirror)?;
            let installed = damaged.filter(|damaged| *damaged == number).or(slots.record.highest);
            let wanted = Wanted { product, installed, status };
            match self.approve(&wanted, &bytes, &slots, online) {
                Ok(approved) => {
                    let (held, progress) = (slots.held(), self.ports.progress);
                    let mut artifacts = ChannelArtifacts { trusted, mirror, progress, held, detours: Vec::new() };
                    let done = self.install(product, &mut slots, &approved, &mut artifacts, report);
                    for failure in &artifacts.detours {
                        self.journal_failure(product.id.as_str(), failure)?;
                    }
                    match done {
                        // The next best may work.
                        Err(failure) if rules::unfit(&failure).is_some() => {
                            self.note(product.id.as_str(), failure, report)?
                        }
                        done => return done,
                    }
                }
                // Not for us yet, whatever the list says; or known not to work here.
                Err(failure) if matches!(failure.code, "other-ring" | "failed-before") => {}
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// The release in use, if its files are not what was installed. Only rules are mended by the
    /// channel: whatever else was altered is for a person to look at, and goes back meanwhile.
    pub(crate) fn damaged(&self, product: &Product, slots: &Slots) -> Result<Option<ReleaseNumber>, Failure> {
        let Some(active) = slots.record.active.as_ref().filter(|_| self.is_rules(product)) else { return Ok(None) };
        let Err(failure) = slots.check_active(active) else { return Ok(None) };
        self.record(Event::Unhealthy, product.id.as_str(), &failure.message)?;
        Ok(Some(active.number))
    }

    /// The releases of a product that may be for this machine, the newest first.
    fn candidates<'n>(
        &self,
        product: &'n Product,
        trusted: &Trusted<'_>,
        mirror: &Mirror<'_>,
        online: &'n Online<'_>,
        is_new: &dyn Fn(ReleaseNumber) -> bool,
    ) -> Result<Vec<Candidate<'n>>, Failure> {
        let ring = self.config.ring_of(product);
        let (mut candidates, mut missing) = (Vec::new(), None);
        let lanes = self.lanes_of(product);
        for lane in lanes {
            // A missing status was reported; what is installed stays.
            let Some(status) = online.news.statuses.get(lane) else { continue };
            let place = layout::Product { lane: *lane, id: &product.id };
            let list = match trusted.find(&place.releases()) {
                Ok(target) => self.releases(&target, trusted, mirror)?,
                // Rules need not have taken each lane.
                Err(error @ tuf::Error::UnknownTarget(_)) => {
                    missing = Some((missing.map_or(1, |(count, _)| count + 1), error));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let fit = list.releases().iter().filter(|it| it.ring >= ring && is_new(it.number));
            candidates.extend(fit.map(|it| Candidate { number: it.number, place, status }));
        }
        if let Some((count, error)) = missing
            && count == lanes.len()
        {
            return Err(error.into());
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.number));
        Ok(candidates)
    }

    /// The list of a product's releases; a copy is kept, so that a look that finds nothing is small.
    fn releases(&self, target: &Target, trusted: &Trusted<'_>, mirror: &Mirror<'_>) -> Result<Releases, Failure> {
        let path = self.config.state.join("tuf").join(target.path().as_str().replace('/', "%2F"));
        let kept = std::fs::read(&path).ok().filter(|bytes| trusted.matches(target, bytes));
        let bytes = match kept {
            Some(bytes) => bytes,
            None => {
                let bytes = fetch_small(trusted, target, RELEASES_BYTES_MAX, mirror)?;
                self.ports.disk.write(&path, &bytes).map_err(|error| Failure::file(&path, &error))?;
                bytes
            }
        };
        Releases::parse(&bytes)
            .map_err(|error| Failure::rejected("channel-metadata", error.to_string(), "report it to the vendor"))
    }

    fn approve(
        &mut self,
        wanted: &Wanted<'_>,
        bytes: &[u8],
        slots: &Slots,
        online: &Online<'_>,
    ) -> Result<Approved<Release>, Failure> {
        let Wanted { product, installed, status } = *wanted;
        let bundle = parse_bundle(bytes)?;
        let policy = self.policy.clone();
        let evidence = Evidence::open(&policy, &bundle)?;
        self.see(&evidence, &bundle, online.prover)?;
        let at = self.online();
        let ring = self.config.ring_of(product);
        let request = Request { product: &product.id, ring, status, at: &at, installed };
        self.check_fit(product, slots, policy.approve(&evidence, &request)?)
    }

    /// What the owner demands of an approved release besides.
    pub(crate) fn check_fit(
        &self,
        product: &Product,
        slots: &Slots,
        approved: Approved<Release>,
    ) -> Result<Approved<Release>, Failure> {
        if slots.record.failed.contains(&approved.id()) {
            let message = format!("{} failed on this machine before", approved.release().number);
            return Err(Failure::rejected("failed-before", message, "wait for a newer release"));
        }
        let bytes = approved.release().artifacts.iter().fold(0_u64, |sum, it| sum.saturating_add(it.size));
        if bytes > product.bytes_max {
            let message = format!("{} has {bytes} bytes; {} are allowed", approved.release().number, product.bytes_max);
            return Err(Failure::rejected("too-large", message, "raise the product's `bytes_max`, if that is right"));
        }
        if let Some(active) = &slots.record.active
            && active.number == approved.release().number
            && active.release != approved.id()
        {
            let message = format!("there are two releases {}: {} and {}", active.number, active.release, approved.id());
            return Err(Failure::rejected("other-content", message, "report it to the vendor and to the supervisor"));
        }
        rules::check_engine(approved.release())?;
        Ok(approved)
    }

    /// Installs what was approved. Rules are compiled and tested before they are switched to.
    pub(crate) fn install(
        &self,
        product: &Product,
        slots: &mut Slots,
        approved: &Approved<Release>,
        artifacts: &mut dyn Artifacts,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let rules = self.is_rules(product);
        let test = |folder: &Path| if rules { self.ports.rules.test(folder) } else { Ok(()) };
        let done = slots.install(self.ports.disk, approved, artifacts, &test);
        if let Err(failure) = &done
            && let Some(outcome) = rules::unfit(failure)
        {
            let file = |it: &Subject| InstalledFile { name: it.name.clone(), sha256: it.sha256() };
            let files = approved.artifacts().iter().map(file).collect();
            slots.give_up(self.ports.disk, Unfit { release: approved.id(), files, outcome })?;
        }
        done?;
        let Release { number, version, .. } = approved.release();
        let detail = format!("{number} {version}, release {}, evidence of {}", approved.id(), approved.evidence_time());
        self.record(Event::Installed, product.id.as_str(), &detail)?;
        let (product, number, version) = (product.id.clone(), *number, version.clone());
        report.changes.push(Change::Installed { product, number, version });
        Ok(())
    }
}

/// A target that is kept in memory, whatever size the metadata gives it.
fn fetch_small(trusted: &Trusted<'_>, target: &Target, limit: usize, mirror: &Mirror<'_>) -> Result<Vec<u8>, Failure> {
    let length = target.file().length;
    if length > limit as u64 {
        let message = format!("`{}` has {length} bytes; at most {limit} are read", target.path());
        return Err(Failure::rejected("channel-too-long", message, "report it to the vendor"));
    }
    mirror.expected.set(length);
    Ok(trusted.fetch(target)?)
}
