//! One struct for each role, and the sections that they have.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use api::BaseUrl;
use attest::{OrganisationId, RegionId, StatementId};
use serde::Deserialize;
use tlog::VerifierKey;

use super::{AccessSection, CloudSection, Listen, Role, SharedSection};

/// The vendor: builds, releases, keeps a log, publishes the channel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorConfig {
    /// Always `vendor`.
    pub role: Role,
    /// What the policy calls this organisation.
    pub organisation: OrganisationId,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of all data that is no key: `log/`, `state.sqlite`, `depot/`, `channel/`.
    pub data: PathBuf,
    /// The policy in force.
    pub policy: PolicySection,
    /// This organisation's log.
    pub log: LogSection,
    /// The keys that this process signs statements with.
    pub keys: VendorKeys,
    /// The keys for the channel's TUF metadata.
    pub channel: ChannelKeys,
    /// Stores beyond one machine, if there are any.
    pub shared: Option<SharedSection>,
    /// The folder of the intake: what endpoints share, sealed. Served only if it is here, and if the policy
    /// says where data lies; with `[shared]` only what was just taken in lies there, and the rest beside the
    /// log's objects.
    pub intake: Option<PathBuf>,
    /// The regions of the policy whose data is kept here; no other is taken.
    #[serde(default)]
    pub intake_regions: BTreeSet<RegionId>,
    /// So many bytes the intake has at most, about; endpoints keep what it does not take.
    #[serde(default = "default_intake_bytes")]
    pub intake_bytes_max: u64,
    /// After so many seconds what was taken becomes a segment, which readers can see.
    #[serde(default = "default_segment_s")]
    pub intake_segment_s: u64,
    /// Columns instead of lines, now and then. Not without this.
    pub compaction: Option<CompactionSection>,
    /// Where the supervisor answers.
    pub supervisor: Option<BaseUrl>,
    /// Automatic processing of what endpoints share, if there is any.
    pub cloud: Option<CloudSection>,
    /// At least one entry, if only a heartbeat, in each stream in so many seconds.
    #[serde(default = "default_heartbeat_s")]
    pub heartbeat_s: u64,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// Has what lies in the vault written anew, in columns.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactionSection {
    /// The key that asks for it: a reader's.
    pub key: PathBuf,
    /// The requests, one for each class and region; each stands for the worker's program, and was approved.
    pub requests: Vec<StatementId>,
    /// Every so many seconds.
    #[serde(default = "default_compaction_s")]
    pub every_s: u64,
}

/// An hour: 24 small segments a day are put together when there are several.
const fn default_compaction_s() -> u64 {
    3600
}

/// 64 GiB: three million batches of the common size, some days of a large installation.
const fn default_intake_bytes() -> u64 {
    64 << 30
}

/// A minute: some 1,400 segments a day and class. With a threat cloud a second or two, while something comes.
const fn default_segment_s() -> u64 {
    60
}

/// The supervisor: rebuilds, signs second, keeps a log and the status.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorConfig {
    /// Always `supervisor`.
    pub role: Role,
    /// What the policy calls this organisation.
    pub organisation: OrganisationId,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of all data that is no key: `log/`, `state.sqlite`, `depot/`.
    pub data: PathBuf,
    /// The policy in force.
    pub policy: PolicySection,
    /// This organisation's log.
    pub log: LogSection,
    /// The keys that this process signs statements with.
    pub keys: SupervisorKeys,
    /// Stores beyond one machine, if there are any.
    pub shared: Option<SharedSection>,
    /// Access to data, where the policy names this organisation as its gateway.
    pub access: Option<AccessSection>,
    /// A folder of downloads that others fill too; what comes from it is checked by digest.
    pub cache: Option<PathBuf>,
    /// Whether upstream's indexes can't be asked: then what this supervisor itself found in them
    /// before, for the same lock, counts.
    #[serde(default)]
    pub offline: bool,
    /// At least one entry, if only a heartbeat, in each stream in so many seconds.
    #[serde(default = "default_heartbeat_s")]
    pub heartbeat_s: u64,
    /// A status is good for so many seconds; a new one comes after half of that.
    #[serde(default = "default_status_s")]
    pub status_s: u64,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// A witness: cosigns logs that only grow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Always `witness`.
    pub role: Role,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of this witness's state: `state.sqlite`.
    pub data: PathBuf,
    /// The file of the witness's key.
    pub key: PathBuf,
    /// The keys (`vkey` lines) of the logs that are witnessed; a key's name is the log's origin.
    pub logs: Vec<VerifierKey>,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// The policy in force.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// The folder with `1.envelope`, `2.bundle`, `3.bundle` …
    pub folder: PathBuf,
    /// The id of the genesis policy, learnt from another channel than the folder.
    pub genesis: Option<StatementId>,
}

/// A log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// The file of the log's key; the key's name is the log's origin.
    pub key: PathBuf,
    /// Entries that wait to be published, at most.
    #[serde(default = "default_pool_entries")]
    pub pool_entries: usize,
    /// Entries in one batch, at most.
    #[serde(default = "default_batch_entries")]
    pub batch_entries: usize,
    /// An idle log has its checkpoint cosigned again after so many seconds.
    #[serde(default = "default_refresh_s")]
    pub refresh_s: u64,
    /// An append waits so many seconds for the witnesses before it is told to come back.
    #[serde(default = "default_append_wait_s")]
    pub append_wait_s: u64,
}

/// Files of the vendor's keys that the process uses. Approver and policy keys belong to people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorKeys {
    /// Signs `result` and provenance.
    pub builder: PathBuf,
    /// Signs `release` and `promotion`.
    pub release: PathBuf,
    /// Signs `source` and `heartbeat`.
    pub recorder: PathBuf,
    /// Signs `release` and `promotion` of rules; whoever releases none needs none.
    pub rules: Option<PathBuf>,
}

/// Files of the supervisor's keys that the process uses. Approver and policy keys belong to people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorKeys {
    /// Signs `result`, `mismatch` and VSA.
    pub builder: PathBuf,
    /// Signs `release` and `promotion`.
    pub release: PathBuf,
    /// Signs `heartbeat`, `enrolment` and `bake`.
    pub recorder: PathBuf,
    /// Signs `status`, `stop` and `revocation`.
    pub status: PathBuf,
    /// Signs `release` and `promotion` of rules; whoever releases none needs none.
    pub rules: Option<PathBuf>,
}

/// Files of the keys for the channel's TUF metadata.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelKeys {
    /// Signs root metadata; needed rarely.
    pub root: PathBuf,
    /// Signs targets metadata.
    pub targets: PathBuf,
    /// Signs what is said of rules, and nothing else; without it the targets key does.
    pub rules: Option<PathBuf>,
    /// Signs snapshots.
    pub snapshot: PathBuf,
    /// Signs timestamps.
    pub timestamp: PathBuf,
}

/// Bounds of an HTTP server.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Requests that are worked on at once; more are told to come back (503).
    pub requests_max: usize,
    /// Requests that wait at once until a channel has something new; more are told to come back (503).
    pub waiting_max: usize,
    /// A request ends after so many seconds.
    pub timeout_s: u64,
    /// After a signal to stop, requests have so many seconds to end.
    pub grace_s: u64,
}

impl Default for HttpSection {
    /// An append waits for a round of witnesses, 5 s each at worst, twice; downloads are longest.
    fn default() -> Self {
        Self { requests_max: 1024, waiting_max: 8192, timeout_s: 60, grace_s: 10 }
    }
}

/// An hour: a day of silence, after which endpoints refuse, takes many missed beats.
const fn default_heartbeat_s() -> u64 {
    3600
}

const fn default_status_s() -> u64 {
    24 * 3600
}

const fn default_pool_entries() -> usize {
    65_536
}

const fn default_batch_entries() -> usize {
    16_384
}

const fn default_refresh_s() -> u64 {
    3600
}

/// Four rounds of witnesses at their worst (5 s each), within a request's 60 s.
const fn default_append_wait_s() -> u64 {
    20
}
