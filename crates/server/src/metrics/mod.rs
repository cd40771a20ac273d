//! The numbers of this process, for its operator. A process is one role, so there is one set.
//!
//! They are counted where things happen; what is true only at a moment (sizes, ages, readiness) is
//! looked at by [`Probe`]s when somebody asks. Nothing private is a label: no path, no ticket, no
//! product, only routes, statuses, and names that the policy makes public.

mod peers;
mod probe;
mod process;

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub use peers::{Counted, Steps};
pub use probe::{LogProbe, Probe, Probes, Reason, StoreProbe};

/// `Content-Type` of what [`Metrics::text`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels<const N: usize> = [(&'static str, String); N];
type Seconds<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;
type Number = Gauge<f64, AtomicU64>;

/// Every number.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels<3>, Counter>,
    request_seconds: Seconds<1>,
    batch_seconds: Seconds<1>,
    witness_seconds: Seconds<1>,
    witness_answers: Family<Labels<3>, Counter>,
    cosignatures: Family<Labels<2>, Counter>,
    builds: Family<Labels<1>, Counter>,
    lookups: Family<Labels<1>, Counter>,
    batches: Family<Labels<1>, Counter>,
    grants: Family<Labels<1>, Counter>,
    custody: Family<Labels<2>, Gauge>,
    accesses: Family<Labels<1>, Counter>,
    glass: Family<Labels<1>, Counter>,
    erasures_open: Gauge,
    erasures_late: Gauge,
    /// Jobs that wait for the rebuilder, or are with it.
    pub queue: Gauge,
    status_age: Family<Labels<1>, Number>,
    status_left: Family<Labels<1>, Number>,
    /// Entries of the tree that the world sees.
    pub log_published: Gauge,
    /// Entries under the newest signed checkpoint.
    pub log_signed: Gauge,
    /// Entries taken in and not yet published.
    pub log_pool: Gauge,
    /// How many of those it takes at most.
    pub log_pool_max: Gauge,
    /// How old the published checkpoint's evidence time is.
    pub log_age: Number,
    ready: Gauge,
    process: process::Numbers,
}

/// The numbers of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// 0.1 ms to 105 s, doubling.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 21))
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("clerestory");
        let mut it = Self {
            requests: Family::default(),
            request_seconds: Seconds::new_with_constructor(times),
            batch_seconds: Seconds::new_with_constructor(times),
            witness_seconds: Seconds::new_with_constructor(times),
            witness_answers: Family::default(),
            cosignatures: Family::default(),
            builds: Family::default(),
            lookups: Family::default(),
            batches: Family::default(),
            grants: Family::default(),
            custody: Family::default(),
            accesses: Family::default(),
            glass: Family::default(),
            erasures_open: Gauge::default(),
            erasures_late: Gauge::default(),
            queue: Gauge::default(),
            status_age: Family::default(),
            status_left: Family::default(),
            log_published: Gauge::default(),
            log_signed: Gauge::default(),
            log_pool: Gauge::default(),
            log_pool_max: Gauge::default(),
            log_age: Number::default(),
            ready: Gauge::default(),
            process: process::Numbers::default(),
            registry: Registry::default(),
        };
        let s = || Unit::Seconds;
        registry.register("http_requests", "Requests, by route, method and status", it.requests.clone());
        registry.register_with_unit("http_request", "Time to answer, by route", s(), it.request_seconds.clone());
        registry.register_with_unit("log_step", "A step of the log, by outcome", s(), it.batch_seconds.clone());
        registry.register_with_unit("witness_answer", "A witness's time", s(), it.witness_seconds.clone());
        let help = "Answers of witnesses, by witness, request and outcome";
        registry.register("witness_answers", help, it.witness_answers.clone());
        registry.register("cosignatures", "What this witness was asked to cosign", it.cosignatures.clone());
        registry.register("builds", "Rebuilds that ended, by outcome", it.builds.clone());
        registry.register("lookups", "Questions that came to this gateway, by outcome", it.lookups.clone());
        registry.register("batches", "Sealed batches of endpoints, by outcome", it.batches.clone());
        registry.register("grants", "What this custodian was asked to open, by outcome", it.grants.clone());
        let help = "What this custodian's ledger says of a region: uses, shares opened, leases, outcomes missing";
        registry.register("custody", help, it.custody.clone());
        registry.register("accesses", "Accesses to data, by how they ended", it.accesses.clone());
        registry.register("break_glass", "Requests for data that broke the glass, by class", it.glass.clone());
        registry.register("erasures_open", "Erasures that are not over", it.erasures_open.clone());
        registry.register("erasures_late", "Those of them that were to be over by now", it.erasures_late.clone());
        registry.register("build_queue", "Rebuilds that wait or run", it.queue.clone());
        registry.register_with_unit("status_age", "Age of a lane's status", s(), it.status_age.clone());
        let help = "Time until a lane's status expires; below zero, endpoints refuse what is new";
        registry.register_with_unit("status_left", help, s(), it.status_left.clone());
        registry.register("log_published_entries", "Entries that are published", it.log_published.clone());
        registry.register("log_signed_entries", "Entries that are signed", it.log_signed.clone());
        registry.register("log_pool_entries", "Entries that wait", it.log_pool.clone());
        registry.register("log_pool_entries_max", "Entries that may wait", it.log_pool_max.clone());
        let help = "Age of the published checkpoint's evidence time";
        registry.register_with_unit("log_checkpoint_age", help, s(), it.log_age.clone());
        registry.register("ready", "1 if /readyz says so", it.ready.clone());
        it.process.register(&mut registry);
        it.registry = registry;
        it
    }

    /// A request was answered.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&[("route", route.to_owned())]).observe(took.as_secs_f64());
    }

    /// The log's sequencer has done something, or could not.
    pub fn step(&self, outcome: &'static str, took: Duration) {
        self.batch_seconds.get_or_create(&[("outcome", outcome.to_owned())]).observe(took.as_secs_f64());
    }

    /// A witness has answered, or has not.
    pub fn witness(&self, name: &str, request: &'static str, outcome: &'static str, took: Duration) {
        let name = || name.to_owned();
        let labels = [("witness", name()), ("request", request.to_owned()), ("outcome", outcome.to_owned())];
        self.witness_answers.get_or_create(&labels).inc();
        self.witness_seconds.get_or_create(&[("witness", name())]).observe(took.as_secs_f64());
    }

    /// This witness was asked to cosign a checkpoint of `log`.
    pub fn cosignature(&self, log: &str, outcome: &'static str) {
        self.cosignatures.get_or_create(&[("log", log.to_owned()), ("outcome", outcome.to_owned())]).inc();
    }

    /// A rebuild ended.
    pub fn build(&self, outcome: &'static str) {
        self.builds.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// A question came to this gateway. What it was about is nobody's number.
    pub fn lookup(&self, outcome: &'static str) {
        self.lookups.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// A sealed batch came to the intake. Whose it is nobody here knows.
    pub fn batch(&self, outcome: &'static str) {
        self.batches.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// This custodian was asked to open something.
    pub fn grant(&self, outcome: &'static str) {
        self.grants.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// How a custodian's ledger of `region` stands: uses, shares opened, leases, outcomes that are missing.
    pub fn custody(&self, region: &str, numbers: [u64; 4]) {
        for (what, number) in ["uses", "opened", "open", "missing"].into_iter().zip(numbers) {
            let labels = [("region", region.to_owned()), ("what", what.to_owned())];
            self.custody.get_or_create(&labels).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    /// An access to data came to its end.
    pub fn access(&self, ended: &'static str) {
        self.accesses.get_or_create(&[("ended", ended.to_owned())]).inc();
    }

    /// Somebody has asked for data in an emergency, or says so.
    pub fn break_glass(&self, class: &str) {
        self.glass.get_or_create(&[("class", class.to_owned())]).inc();
    }

    /// How many erasures are not over, and how many of them were to be.
    pub fn erasures(&self, open: usize, late: usize) {
        self.erasures_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.erasures_late.set(i64::try_from(late).unwrap_or(i64::MAX));
    }

    /// How a lane's status stands, in seconds.
    pub fn status(&self, lane: &str, age: f64, left: f64) {
        self.status_age.get_or_create(&[("lane", lane.to_owned())]).set(age);
        self.status_left.get_or_create(&[("lane", lane.to_owned())]).set(left);
    }

    /// Everything, as the probes and the kernel see it now.
    pub async fn text(&self, probes: &Probes) -> String {
        let ready = probes.look().await.is_empty();
        self.ready.set(i64::from(ready));
        self.process.look(probes.data());
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_that_the_alerts_ask_for_exists() {
        let metrics = Metrics::new();
        metrics.request("/", "GET", 200, Duration::ZERO);
        metrics.step("published", Duration::ZERO);
        metrics.witness("w", "checkpoint", "ok", Duration::ZERO);
        metrics.cosignature("log", "cosigned");
        metrics.build("matched");
        metrics.access("done");
        metrics.break_glass("detections");
        metrics.status("slow", 0.0, 0.0);
        let mut page = String::new();
        encode(&mut page, &metrics.registry).unwrap();
        let alerts = include_str!("../../../../dist/prometheus/alerts.yml");
        let words = alerts.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: std::collections::BTreeSet<_> = words.filter(|word| word.starts_with("clerestory_")).collect();
        assert!(names.len() >= 10, "{names:?}");
        for name in names {
            let found = page.lines().any(|line| line.strip_prefix(name).is_some_and(|it| it.starts_with(['{', ' '])));
            assert!(found, "no series `{name}` in\n{page}");
        }
    }
}
