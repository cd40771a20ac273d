//! Who of a domain's processes works for the domain: sequences its log, and does what one should do.
//!
//! The lease is one value of the lock store that its holder swaps for the next every second. Nobody
//! compares clocks: whoever sees the same value for [`EXPIRES`] takes it over. Safety never rests on
//! it. Two holders at once (one of them asleep, or cut off) harm nobody: the log's own lock decides
//! what is signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use api::BaseUrl;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stdx::{Clock, Digest, Entropy};
use storage::{Key, LockStore, Swap, Version};

/// How often the holder says that it is there, and the others look.
pub const BEAT: Duration = Duration::from_secs(1);

/// A holder that has said nothing for so long has lost it: four beats may go missing, and a service
/// that restarts costs no change of hands. All of it counts against appends that wait.
pub const EXPIRES: Duration = Duration::from_secs(5);

/// What the lock holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    /// Drawn by each process when it starts; none when the last holder has given the lease up.
    holder: Option<Digest>,
    /// Where the holder can be reached.
    address: BaseUrl,
}

/// How the lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This process holds it.
    Held,
    /// Another does, and can be reached there.
    Others(BaseUrl),
    /// Nobody does, as far as is known.
    Free,
}

/// Whether this process certainly holds the lease: nobody can have taken it over yet.
#[derive(Clone)]
pub struct Hold {
    clock: Arc<dyn Clock>,
    /// In this process's monotonic time, in milliseconds.
    until: Arc<AtomicU64>,
}

impl Hold {
    /// Whether it holds it now.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        milliseconds(self.clock.monotonic()) < self.until.load(Ordering::SeqCst)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One process's view of the lease.
pub struct Lease {
    locks: Arc<dyn LockStore>,
    clock: Arc<dyn Clock>,
    key: Key,
    me: Value,
    /// The version that was seen last, and since when.
    seen: Option<(Version, Duration)>,
    held: bool,
    until: Arc<AtomicU64>,
}

impl Lease {
    /// The lease of the domain whose locks these are, wanted by the process that is reached at
    /// `address`.
    ///
    /// # Errors
    /// When no randomness can be had.
    pub fn new(
        locks: Arc<dyn LockStore>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        address: BaseUrl,
    ) -> anyhow::Result<Self> {
        let mut id = [0; 32];
        entropy.fill(&mut id).context("the process can't be told from others")?;
        let me = Value { holder: Some(Digest::from_bytes(id)), address };
        Ok(Self { locks, clock, key: "lease/domain".parse()?, me, seen: None, held: false, until: Arc::default() })
    }

    /// Tells whether this process holds it, without asking the store.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { clock: Arc::clone(&self.clock), until: Arc::clone(&self.until) }
    }

    /// Looks, and takes or keeps the lease if it can be had. To be called every [`BEAT`].
    ///
    /// # Errors
    /// When the store fails; how the lease stands is then unknown.
    pub async fn beat(&mut self) -> anyhow::Result<Standing> {
        let found = self.locks.get(&self.key).await?;
        let now = self.clock.monotonic();
        let value: Option<Value> = match &found {
            Some(found) => Some(serde_json::from_slice(&found.bytes).context("the lease can't be read")?),
            None => None,
        };
        let version = found.map(|found| found.version);
        if self.seen.as_ref().map(|(version, _)| version) != version.as_ref() {
            self.seen = version.clone().map(|version| (version, now));
        }
        let silent = self.seen.as_ref().is_some_and(|(_, since)| now.saturating_sub(*since) >= EXPIRES);
        let holder = value.as_ref().and_then(|value| value.holder);
        let mine = holder == self.me.holder;
        if holder.is_none() || mine || silent {
            self.held = self.swap(version.as_ref(), &self.me.clone()).await?;
            // The others see this value later than it was asked to be written.
            let until = if self.held { now.saturating_add(EXPIRES) } else { Duration::ZERO };
            self.until.store(milliseconds(until), Ordering::SeqCst);
            return Ok(if self.held { Standing::Held } else { Standing::Free });
        }
        self.held = false;
        self.until.store(0, Ordering::SeqCst);
        Ok(value.map_or(Standing::Free, |value| Standing::Others(value.address)))
    }

    /// Gives the lease up, so that another need not wait for it to expire.
    ///
    /// # Errors
    /// When the store fails; then the others wait.
    pub async fn release(&mut self) -> anyhow::Result<()> {
        self.until.store(0, Ordering::SeqCst);
        if !std::mem::take(&mut self.held) {
            return Ok(());
        }
        let Some((version, _)) = self.seen.clone() else { return Ok(()) };
        let nobody = Value { holder: None, ..self.me.clone() };
        // Who loses this swap has lost the lease already.
        self.swap(Some(&version), &nobody).await.map(drop)
    }

    async fn swap(&mut self, from: Option<&Version>, value: &Value) -> anyhow::Result<bool> {
        let bytes = Bytes::from(serde_json::to_vec(value)?);
        match self.locks.compare_and_swap(&self.key, from, bytes).await? {
            Swap::Won(version) => {
                self.seen = Some((version, self.clock.monotonic()));
                Ok(true)
            }
            Swap::Lost => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use stdx::{ManualClock, SystemEntropy, UnixTime};
    use storage::SqliteStore;

    use super::*;

    struct Bench {
        _folder: tempfile::TempDir,
        locks: Arc<dyn LockStore>,
        clock: Arc<ManualClock>,
    }

    impl Bench {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let locks = Arc::new(SqliteStore::create(&folder.path().join("state")).await.unwrap());
            Self { _folder: folder, locks, clock: Arc::new(ManualClock::new(UnixTime::from_seconds(1_800_000_000))) }
        }

        fn process(&self, name: &str) -> Lease {
            let address = format!("http://{name}").parse().unwrap();
            let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
            Lease::new(Arc::clone(&self.locks), clock, &SystemEntropy, address).unwrap()
        }
    }

    fn at(name: &str) -> Standing {
        Standing::Others(format!("http://{name}").parse().unwrap())
    }

    #[tokio::test]
    async fn one_holds_it_and_the_others_know_where() {
        let bench = Bench::new().await;
        let (mut a, mut b) = (bench.process("a"), bench.process("b"));
        assert_eq!(a.beat().await.unwrap(), Standing::Held);
        for _ in 0..20 {
            bench.clock.advance(BEAT);
            assert_eq!(b.beat().await.unwrap(), at("a"));
            assert_eq!(a.beat().await.unwrap(), Standing::Held);
        }
    }

    #[tokio::test]
    async fn what_nobody_renews_is_taken_over_and_the_sleeper_learns_it() {
        let bench = Bench::new().await;
        let (mut a, mut b) = (bench.process("a"), bench.process("b"));
        a.beat().await.unwrap();
        // It is the looking that counts, not what any clock said before.
        bench.clock.advance(EXPIRES * 10);
        assert_eq!(b.beat().await.unwrap(), at("a"));
        bench.clock.advance(EXPIRES - BEAT);
        assert_eq!(b.beat().await.unwrap(), at("a"));
        bench.clock.advance(BEAT);
        assert!(!a.hold().is_certain(), "before anybody else can hold it");
        assert_eq!(b.beat().await.unwrap(), Standing::Held);
        assert!(b.hold().is_certain());
        assert_eq!(a.beat().await.unwrap(), at("b"));
        a.release().await.unwrap();
        assert_eq!(b.beat().await.unwrap(), Standing::Held, "who lost it can't give it up");
    }

    #[tokio::test]
    async fn what_is_given_up_is_taken_at_once() {
        let bench = Bench::new().await;
        let (mut a, mut b) = (bench.process("a"), bench.process("b"));
        a.beat().await.unwrap();
        assert_eq!(b.beat().await.unwrap(), at("a"));
        a.release().await.unwrap();
        assert_eq!(b.beat().await.unwrap(), Standing::Held);
    }
}
