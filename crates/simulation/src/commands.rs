//! What people do at their desks: commands of the vendor and the supervisor, each a process of its
//! own that may die anywhere.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use attest::{BuildResult, Bundle, BundleEntry, Envelope, EnvironmentKind, Position, Source, Statement, StopScope};
use attest::{ReleaseNumber, Ring, Subject};
use policy::{PolicyDocument, Role};
use server::domain::Domain;
use server::line::{self, ApprovalOf, Line};
use server::publish;
use server::supervise::{Negative, Supervisor};
use stdx::{Digest, durable};
use tlog::SignerKey;

use crate::coroutine::wait_for;
use crate::host::{Hold, Stores};
use crate::network::Node;
use crate::world::{Succession, World, product};

/// A command's process.
struct Desk {
    domain: Domain,
    _hold: Hold,
}

impl Desk {
    fn open(world: &World, node: Node) -> anyhow::Result<Self> {
        let stores = Stores::open(&world.hosts[&node]);
        let _hold = stores.hold();
        Ok(Self { domain: world.domain(node, &stores)?, _hold })
    }
}

/// The content of a version.
fn content(version: u64) -> Vec<u8> {
    format!("libexample 1.{version}\n").into_bytes()
}

/// Makes the present version, or the next one if that is published: result, approvals, release,
/// publication. What an earlier try left is gone on from, for the ring that it was for.
pub(crate) fn release(world: &Arc<World>, ring: Ring) -> anyhow::Result<String> {
    let (version, ring) = {
        let mut people = world.people();
        let builder = people.succession.as_ref().is_some_and(|succession| succession.role == Role::Builder);
        if builder && !people.is_making() {
            bail!("a builder's key is being replaced; that comes first");
        }
        if people.is_done {
            people.next_version();
        }
        (people.version, *people.ring.get_or_insert(ring))
    };
    let released = release_version(world, version, ring);
    if let Err(error) = &released
        && format!("{error:#}").contains("build and approve it again")
    {
        world.people().next_version();
    }
    released
}

fn release_version(world: &Arc<World>, version: u64, ring: Ring) -> anyhow::Result<String> {
    let desk = Desk::open(world, Node::Vendor)?;
    let config = world.config(Node::Vendor)?;
    let line = Line::of(&config, desk.domain.clone())?;
    let (id, name) = (product(), format!("1.{version}"));
    let folder = line.folder(&id, &name);
    durable::create_folder(&folder.file("outputs"))?;
    durable::write(&folder.file("outputs/product"), &content(version))?;
    let result = match std::fs::read(folder.file("result.bundle")) {
        Ok(bytes) => Bundle::parse(&bytes)?,
        Err(_) => {
            let bundle = wait_for(build(world, &desk.domain, version))?;
            durable::write(&folder.file("result.bundle"), &bundle.to_bytes())?;
            bundle
        }
    };
    for node in [Node::Vendor, Node::Supervisor] {
        if world.people().approved.contains(&node) {
            continue;
        }
        let own = Desk::open(world, node)?;
        let approval = ApprovalOf { result: &result, comment: String::new() };
        let key = world.key(node, Role::Approver)?;
        let approval = wait_for(line::approve(&own.domain, &key, &approval)).context("approve")?;
        line.keep_approval(&id, &name, &approval)?;
        world.people().approved.push(node);
    }
    let publication = wait_for(line.release(&id, &name, ring)).context("release")?;
    publish::publish(&config, &desk.domain, &publication).context("publish")?;
    let number = publication.approved.release().number;
    let mut people = world.people();
    people.is_done = true;
    people.published.push((number.get(), Digest::of(&content(version))));
    world.ledger.count("releases published");
    Ok(format!("{number} is published"))
}

/// Source and result, by both builders: what a build and its rebuild would leave.
async fn build(world: &World, domain: &Domain, version: u64) -> anyhow::Result<Bundle> {
    let stream = domain.stream("assembly/vendor")?;
    let recorder = world.key(Node::Vendor, Role::Recorder)?;
    let name = format!("1.{version}");
    let source = stream
        .write(|position| {
            let predicate =
                Source { position, product: product(), version: name.clone(), files: 1, bytes: 1, revision: None };
            let subject = vec![Subject::new("source", Digest::of(name.as_bytes()))];
            Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&recorder])?)
        })
        .await?;
    let builders = [world.key(Node::Vendor, Role::Builder)?, world.key(Node::Supervisor, Role::Builder)?];
    let result = stream
        .write(|position| {
            let predicate = BuildResult {
                position,
                product: product(),
                version: name.clone(),
                source: source.envelope.id(),
                recipe: Digest::of(b"recipe"),
                inputs: Digest::of(b"inputs"),
                environment: Digest::of(b"environment"),
                environment_kind: EnvironmentKind::Pinned,
                sbom: Digest::of(b"sbom"),
                lane: None,
            };
            let subject = vec![Subject::new("product", Digest::of(&content(version)))];
            Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &builders.each_ref())?)
        })
        .await?;
    Ok(Bundle::new(vec![result])?)
}

/// Widens the ring of the newest published release.
pub(crate) fn promote(world: &Arc<World>) -> anyhow::Result<String> {
    let people = world.people();
    let version = if people.is_done { Some(people.version) } else { people.version.checked_sub(1) };
    drop(people);
    let Some(version) = version else { bail!("nothing is published yet") };
    let desk = Desk::open(world, Node::Vendor)?;
    let config = world.config(Node::Vendor)?;
    let line = Line::of(&config, desk.domain.clone())?;
    let publication = wait_for(line.promote(&product(), &format!("1.{version}"), Ring::All))?;
    publish::publish(&config, &desk.domain, &publication)?;
    Ok(format!("1.{version} is for all"))
}

/// Puts what is current into the channel.
pub(crate) fn freshen(world: &Arc<World>) -> anyhow::Result<String> {
    let desk = Desk::open(world, Node::Vendor)?;
    publish::freshen(&world.config(Node::Vendor)?, &desk.domain)?;
    Ok("the channel is fresh".to_owned())
}

/// An entry in a stream of the organisation's own.
pub(crate) fn append(world: &Arc<World>, node: Node) -> anyhow::Result<String> {
    let desk = Desk::open(world, node)?;
    let stream = if node == Node::Vendor { "assembly/vendor" } else { "rebuild/supervisor" };
    let recorder = world.key(node, Role::Recorder)?;
    wait_for(desk.domain.stream(stream)?.beat(&recorder, std::time::Duration::ZERO))?;
    Ok(format!("`{stream}` goes on"))
}

fn say(world: &Arc<World>, negative: &Negative) -> anyhow::Result<String> {
    let desk = Desk::open(world, Node::Supervisor)?;
    let supervisor = Supervisor::of(&world.config(Node::Supervisor)?, desk.domain.clone())?;
    wait_for(supervisor.say(negative))?;
    Ok("it is said".to_owned())
}

/// Revokes a published release, counted back from the newest, with all below it.
pub(crate) fn revoke(world: &Arc<World>, back: u64) -> anyhow::Result<String> {
    let published = world.people().published.clone();
    let place = (published.len() as u64).checked_sub(1 + back);
    let Some((number, content)) = place.and_then(|place| published.get(usize::try_from(place).ok()?)) else {
        bail!("there is no such release");
    };
    let floor = Some(ReleaseNumber::new(number + 1));
    let reason = "a test".to_owned();
    say(world, &Negative::Revoke { product: product(), content: vec![*content], floor, reason })
}

/// Stops the product.
pub(crate) fn stop(world: &Arc<World>) -> anyhow::Result<String> {
    say(world, &Negative::Stop { scope: StopScope::Product(product()), reason: "a test".to_owned() })
}

/// Ends the stop.
pub(crate) fn lift(world: &Arc<World>) -> anyhow::Result<String> {
    say(world, &Negative::Lift { scope: StopScope::Product(product()), reason: "a test".to_owned() })
}

/// Drafts the next policy, which replaces one key; goes on with one that is on its way.
pub(crate) fn succeed(world: &Arc<World>, who: Node, role: Role) -> anyhow::Result<String> {
    let desk = Desk::open(world, Node::Vendor)?;
    let under_way = world.people().succession.clone();
    // Its result would count for nothing any more, and its number is signed for it (docs/torture.md).
    if role == Role::Builder && under_way.is_none() && world.people().is_making() {
        bail!("a version is being made; it is released first");
    }
    let succession = match under_way {
        Some(succession) => succession,
        None => {
            let succession = draft(world, &desk.domain, who, role)?;
            world.people().succession = Some(succession.clone());
            succession
        }
    };
    let log = desk.domain.log(&world.origin(Node::Vendor))?;
    let entry: BundleEntry = wait_for(log.append(&succession.envelope))?;
    let bundle = Bundle::new(vec![entry])?.to_bytes();
    for node in [Node::Vendor, Node::Supervisor] {
        durable::write(&world.path(node).join(format!("policy/{}.bundle", succession.version)), &bundle)?;
    }
    let path = world.path(succession.who).join(format!("keys/{}.key", succession.role));
    durable::remove(&path)?;
    durable::write_private(&path, succession.key.as_bytes())?;
    let mut people = world.people();
    people.succession = None;
    // What the old keys have approved counts for nothing under the new policy.
    people.approved.clear();
    drop(people);
    world.ledger.count("policies that succeeded");
    Ok(format!("policy {} is in force; both restart", succession.version))
}

fn draft(world: &World, domain: &Domain, who: Node, role: Role) -> anyhow::Result<Succession> {
    let name = format!("{who}.example/{role}").parse()?;
    let key = SignerKey::generate(name, tlog::KeyKind::Ed25519, &world.entropy)?;
    world.ledger.add_key(&who.to_string(), role, key.verifier());
    let old = world.key(who, role)?;
    let mut policy = domain.policy.policy().clone();
    policy.version += 1;
    for organisation in &mut policy.organisations {
        for it in organisation.keys.iter_mut().filter(|it| it.key == *old.verifier()) {
            it.key = key.verifier().clone();
        }
    }
    let position = Position {
        log: world.origin(Node::Vendor),
        stream: "policy".parse()?,
        epoch: 0,
        sequence: policy.version - 1,
        previous: Some(domain.policy.id()),
        time: domain.clock.now(),
    };
    let version = policy.version;
    let document = PolicyDocument { position, previous: Some(domain.policy.id()), policy };
    let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
    let keys = [world.key(Node::Vendor, Role::Policy)?, world.key(Node::Supervisor, Role::Policy)?];
    let payload = Statement { subject, predicate: document }.encode()?;
    let mut signers: Vec<&SignerKey> = keys.iter().collect();
    if role == Role::Policy {
        signers.push(&key);
    }
    let envelope = Envelope::sign(payload, &signers)?;
    Ok(Succession { version, envelope, who, role, key: key.to_secret_text().to_string() })
}

/// The first policy is the first entry of the vendor's log.
pub(crate) fn log_genesis(world: &Arc<World>) -> anyhow::Result<()> {
    let desk = Desk::open(world, Node::Vendor)?;
    let log = desk.domain.log(&world.origin(Node::Vendor))?;
    for _ in 0..20 {
        match wait_for(log.append(world.genesis())) {
            Ok(_) => return Ok(()),
            Err(_) => wait_for(tokio::time::sleep(std::time::Duration::from_secs(1))),
        }
    }
    bail!("the log does not answer")
}
