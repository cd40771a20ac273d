//! The vendor's channel: made once, fed by releases, kept fresh.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BodyLimit, path};
use attest::{BUNDLE_BYTES_MAX, Bundle, Envelope, Lane};
use channel::{Channel, Delegates, Keys, Lifetimes, Signing};
use stdx::{Clock, Digest};
use tuf::{Ed25519Signer, Metadata, PublicKey, Root, Signer, Signers, TopLevelSigners, Version};
use verify::Evidence;

use crate::config::{ChannelKeys, Config, VendorConfig};
use crate::domain::{Domain, channel_folder};
use crate::duty::OnDuty;
use crate::failure::Failure;
use crate::http::Stop;
use crate::kept::Kept;
use crate::key_file;
use crate::line::{Publication, read_bundle};

/// Roots are signed by hand and rarely.
const ROOT_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
/// Status and timestamp hold for a day; this often is often enough to lose some rounds.
const FRESHEN: Duration = Duration::from_secs(60 * 60);

/// The keys of a channel. TUF's metadata is transport: what these keys sign grants nothing by
/// itself, and the policy pins the first root.
struct ChannelDesk {
    root: Ed25519Signer,
    targets: Ed25519Signer,
    /// Says what rules there are, and nothing else.
    rules: Ed25519Signer,
    snapshot: Ed25519Signer,
    timestamp: Ed25519Signer,
}

impl ChannelDesk {
    fn load(keys: &ChannelKeys) -> anyhow::Result<Self> {
        Ok(Self {
            root: key_file::load_tuf(&keys.root)?,
            targets: key_file::load_tuf(&keys.targets)?,
            rules: key_file::load_tuf(keys.rules.as_ref().unwrap_or(&keys.targets))?,
            snapshot: key_file::load_tuf(&keys.snapshot)?,
            timestamp: key_file::load_tuf(&keys.timestamp)?,
        })
    }

    fn with<T>(&self, clock: &dyn Clock, work: impl FnOnce(&Signing<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let (targets, rules) = ([&self.targets as &dyn Signer], [&self.rules as &dyn Signer]);
        let (snapshot, timestamp) = ([&self.snapshot as &dyn Signer], [&self.timestamp as &dyn Signer]);
        let keys =
            Keys { targets: &targets, products: &targets, rules: &rules, snapshot: &snapshot, timestamp: &timestamp };
        work(&Signing { keys, lifetimes: Lifetimes::default(), now: clock.now() })
    }

    /// Who signs what is said of products and of rules.
    fn delegate<T>(&self, to: impl FnOnce(Delegates<'_>) -> T) -> T {
        let (products, rules) = (public(&self.targets), public(&self.rules));
        to(Delegates { products: one(&products), rules: one(&rules) })
    }
}

const fn one(keys: &[PublicKey]) -> Signers<'_> {
    Signers { keys, threshold: NonZeroU32::MIN }
}

fn public(signer: &Ed25519Signer) -> [PublicKey; 1] {
    [signer.public_key().clone()]
}

/// Makes the channel of a vendor, with whatever is `kept` for all its machines, and gives the SHA-256
/// of its root for the policy.
///
/// # Errors
/// When there is one already, or a key is missing.
pub fn create(config: &Config, clock: &dyn Clock, kept: Option<Kept>) -> anyhow::Result<Digest> {
    let vendor = vendor(config)?;
    let desk = ChannelDesk::load(&vendor.channel)?;
    let (root, targets) = (public(&desk.root), public(&desk.targets));
    let (snapshot, timestamp) = (public(&desk.snapshot), public(&desk.timestamp));
    let signers = TopLevelSigners {
        root: one(&root),
        targets: one(&targets),
        snapshot: one(&snapshot),
        timestamp: one(&timestamp),
    };
    let root = Root::new(Version::FIRST, clock.now().after(ROOT_LIFETIME), signers);
    let root = Metadata::sign(&root, &[&desk.root as &dyn Signer])?;
    let digest = Digest::of(root.bytes());
    channel_folder(&config.data(), kept)?.change(|folder| {
        desk.with(clock, |signing| Ok(desk.delegate(|to| Channel::create(folder, root, to, signing))?))
    })?;
    Ok(digest)
}

/// Publishes a release, and the status that it was approved under.
///
/// # Errors
/// When the channel or a file is missing.
pub fn publish(config: &Config, domain: &Domain, publication: &Publication) -> anyhow::Result<()> {
    let desk = ChannelDesk::load(&vendor(config)?.channel)?;
    let Publication { approved, bundle, files } = publication;
    let publication = channel::Publication { approved, bundle, artifacts: files };
    change(domain, |channel| desk.with(&*domain.clock, |signing| Ok(channel.publish(&publication, signing)?)))?;
    Ok(())
}

/// Renews timestamps, and carries the supervisor's status and the policies into the channel.
///
/// # Errors
/// When the supervisor does not answer or the channel can't be written.
pub fn freshen(config: &Config, domain: &Domain) -> anyhow::Result<()> {
    let vendor = vendor(config)?;
    let desk = ChannelDesk::load(&vendor.channel)?;
    change(domain, |channel| {
        desk.with(&*domain.clock, |signing| {
            // The configuration may name another key for rules than when the channel was made.
            desk.delegate(|to| channel.delegate(to, signing))?;
            Ok(channel.refresh(signing)?)
        })?;
        publish_policies(config, domain, channel)
    })?;
    let Some(supervisor) = &vendor.supervisor else { return Ok(()) };
    for lane in &domain.policy.policy().lanes {
        let url = supervisor.join(&format!("{}/{}", path::STATUS, lane.lane));
        let bytes = domain.client.get(&url, BodyLimit(BUNDLE_BYTES_MAX as u64))?;
        publish_status(domain, lane.lane, &bytes).with_context(|| url.clone())?;
    }
    Ok(())
}

/// Puts a status that holds into the channel.
pub(crate) fn publish_status(domain: &Domain, lane: Lane, bytes: &[u8]) -> anyhow::Result<()> {
    let bundle = Bundle::parse(bytes)?;
    let evidence = Evidence::open(&domain.policy, &bundle)?;
    let status = domain.policy.current_status(&evidence, lane, None, &domain.moment())?;
    change(domain, |channel| Ok(channel.publish_status(&status, &bundle)?))
}

/// Freshens now and then, while this process is on duty, until told to stop.
///
/// # Errors
/// When a key is missing; what fails later is tried again.
pub async fn keep_fresh(config: Arc<Config>, domain: Domain, mut duty: OnDuty, mut stop: Stop) -> anyhow::Result<()> {
    let vendor = vendor(&config)?;
    let recorder = key_file::load(&vendor.keys.recorder)?;
    let heartbeat = Duration::from_secs(vendor.heartbeat_s);
    loop {
        if duty.borrow_and_update().is_here() {
            if let Err(error) = tokio::task::block_in_place(|| freshen(&config, &domain)) {
                tracing::warn!("the channel could not be freshened: {error:#}");
            }
            for kind in ["assembly", "release"] {
                domain.beat(kind, &recorder, heartbeat).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(FRESHEN.min(heartbeat / 2)) => {}
            Ok(()) = duty.changed() => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

fn publish_policies(config: &Config, domain: &Domain, channel: &Channel) -> anyhow::Result<()> {
    let Some(section) = config.policy() else { return Ok(()) };
    let genesis = section.folder.join("1.envelope");
    let bytes = std::fs::read(&genesis).with_context(|| format!("can't read `{}`", genesis.display()))?;
    let mut trusted =
        verify::TrustedPolicy::bootstrap(&Envelope::parse(&bytes)?, &section.genesis.unwrap_or(domain.policy.id()))?;
    channel.publish_genesis(&trusted, &Envelope::parse(&bytes)?)?;
    while trusted.id() != domain.policy.id() {
        let path = section.folder.join(format!("{}.bundle", trusted.policy().version + 1));
        let Some(bundle) = read_bundle(&path)? else { break };
        trusted = trusted.succeed(&Evidence::open(&trusted, &bundle)?)?;
        channel.publish_policy(&trusted, &bundle)?;
    }
    Ok(())
}

/// Changes the channel as it is now, with nobody else publishing meanwhile: the server's refresh and
/// a command would otherwise give two files one version. What a publisher that died left half-written
/// goes.
fn change<T>(domain: &Domain, work: impl FnOnce(&mut Channel) -> anyhow::Result<T>) -> anyhow::Result<T> {
    domain.channel()?.change(|folder| {
        let mut channel = Channel::open(folder)?;
        channel.sweep()?;
        work(&mut channel)
    })
}

fn vendor(config: &Config) -> anyhow::Result<&VendorConfig> {
    match config {
        Config::Vendor(vendor) => Ok(vendor),
        _ => Err(Failure::usage("only a vendor has a channel").hint("name the vendor's configuration").into()),
    }
}
