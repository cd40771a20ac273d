//! Looking a file up: the set first, then a bucket, and nothing else on the wire.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use agent::{
    BucketSays, Class, Config, Failure, Gate, Known, LookupSection, Mode, Ports, RealDisk, SetSays, Share, SharePorts,
    Target, look_up, statement_digest,
};
use api::Client;
use oblivious::{Answered, GatewayKey, Question};
use policy::{LookupPolicy, Relay};
use reputation::{PrefixBits, ReputationSet, Sources};
use stdx::{Digest, SystemEntropy, durable};
use testkit::RULES_PRODUCT;

use crate::rules::Rules;
use crate::scene::Scene;

fn hashes(start: u32, count: u32) -> Vec<Digest> {
    (start..start + count).map(|number| Digest::of(&number.to_be_bytes())).collect()
}

/// Relay and gateway in one, on loopback: what they may do wrong together is the worst there is.
struct Cloud {
    url: String,
    wire: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What comes back instead of the bucket that was asked for.
type Lie = fn(Vec<u8>) -> Vec<u8>;

impl Cloud {
    fn new(key: GatewayKey, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cloud = Self { url, wire: Arc::default(), asked: Arc::default() };
        let (wire, asked) = (Arc::clone(&cloud.wire), Arc::clone(&cloud.asked));
        let sources = Sources { malicious: hashes(0, 4000), clean: hashes(50_000, 1350) };
        let known = reputation::Known::new(sources, PrefixBits::new(2).unwrap()).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                let body = loop {
                    let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
                    seen.extend_from_slice(&buffer[..count]);
                    let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                    // A question of two bits has 75 bytes.
                    if seen.len() == end + 4 + 75 {
                        break seen[end + 4..].to_vec();
                    }
                };
                wire.lock().unwrap().extend_from_slice(&seen);
                let (question, reply) = oblivious::open(&key, &body).unwrap();
                let Question(prefix) = Question::parse(&question).unwrap();
                asked.lock().unwrap().push(prefix.to_string());
                let bucket = lie(known.answer(&prefix).unwrap());
                let sealed = reply.seal(&Answered::bucket(bucket).to_bytes(), &SystemEntropy).unwrap();
                let length = sealed.len();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &sealed].concat());
            }
        });
        cloud
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

struct Machine {
    rules: Rules,
    cloud: Cloud,
    config: Config,
}

impl Machine {
    fn new(lie: Lie) -> Self {
        let key = GatewayKey::generate(1, &SystemEntropy).unwrap();
        let configuration = key.configuration().to_string();
        let cloud = Cloud::new(key, lie);
        let relays = vec![Relay { organisation: "supervisor".parse().unwrap(), url: cloud.url.parse().unwrap() }];
        let lookup = LookupPolicy { gateway: "vendor".parse().unwrap(), key: configuration, prefix_bits: 2, relays };
        let mut rules = Rules::of(Scene::under(|policy| policy.lookup = Some(lookup)));
        let set = ReputationSet::build(hashes(0, 3000)).unwrap();
        rules.release_with_set(b"rule none { condition: false }\n", &set.to_bytes());
        assert_eq!(rules.scene.update().exit_code(), 0);
        let lookup = Some(LookupSection { rules: RULES_PRODUCT.parse().unwrap(), relay: None });
        let config = Config { lookup, ..rules.scene.config.clone() };
        Self { rules, cloud, config }
    }

    fn share_ports(&self) -> SharePorts<'_> {
        SharePorts { clock: &self.rules.scene.world.clock, disk: &RealDisk, entropy: &SystemEntropy }
    }

    fn agree(&self, classes: &[Class]) {
        let mut share = Share::open(&self.config.state, self.share_ports(), agent::Bounds::default()).unwrap();
        share.agree(&statement_digest(), Mode::Full, classes.iter().copied().collect()).unwrap();
    }

    fn look_up(&self, digest: &Digest) -> Result<Known, Failure> {
        let client = Client::new(std::time::Duration::from_secs(5));
        let gate = Gate::default();
        let ports = Ports {
            clock: &self.rules.scene.world.clock,
            disk: &RealDisk,
            progress: &(),
            client: &client,
            rules: &gate,
        };
        look_up(&self.config, ports, self.share_ports(), &Target::Hash(*digest))
    }

    fn shown(&self) -> String {
        let share = Share::open(&self.config.state, self.share_ports(), agent::Bounds::default()).unwrap();
        share.show().unwrap().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn without_an_agreement_the_set_is_asked_and_nothing_is_sent() {
    let machine = Machine::new(|bucket| bucket);
    let known = machine.look_up(&hashes(7, 1)[0]).unwrap();
    assert_eq!((known.set, known.is_bad()), (SetSays::Listed, true));
    assert!(matches!(known.bucket, BucketSays::NotAsked(_)), "{known}");
    let known = machine.look_up(&hashes(900_000, 1)[0]).unwrap();
    assert_eq!((known.set, known.is_bad()), (SetSays::NotListed, false));
    assert!(machine.cloud.wire.lock().unwrap().is_empty());
    assert!(!Share::exists(&machine.config.state), "nothing was even made");
    machine.agree(&[Class::Detections]);
    machine.look_up(&hashes(7, 1)[0]).unwrap();
    assert!(machine.cloud.wire.lock().unwrap().is_empty(), "another class is another class");
}

#[test]
fn the_bucket_knows_better_than_the_set_and_only_a_prefix_leaves() {
    let machine = Machine::new(|bucket| bucket);
    machine.agree(&[Class::Lookups, Class::Verdicts, Class::Statistics]);
    let new = hashes(3500, 1)[0];
    let known = machine.look_up(&new).unwrap();
    assert_eq!((known.set, &known.bucket, known.is_bad()), (SetSays::NotListed, &BucketSays::Malicious, true));
    assert_eq!(machine.look_up(&hashes(50_001, 1)[0]).unwrap().bucket, BucketSays::Clean);
    assert_eq!(machine.look_up(&hashes(900_000, 1)[0]).unwrap().bucket, BucketSays::Unknown);
    let asked = machine.cloud.asked();
    assert_eq!(asked.len(), 3);
    // What was asked is in the journal, and no hash is on the wire in any form.
    let journal = std::fs::read_to_string(machine.config.state.join("journal.jsonl")).unwrap();
    assert!(asked.iter().all(|prefix| journal.contains(&format!("\"detail\":\"{prefix}\""))), "{journal}");
    let wire = machine.cloud.wire.lock().unwrap().clone();
    assert!(!String::from_utf8_lossy(&wire).contains(&new.to_string()[..8]));
    assert!(!wire.windows(4).any(|four| four == &new.as_bytes()[..4]));
    // And what follows waits, as agreed: the verdict with its hash, the counts without.
    let shown = machine.shown();
    assert_eq!((shown.matches("\"verdict\"").count(), shown.matches("\"statistic\"").count()), (2, 3), "{shown}");
    // Of a file that is known to be clean nothing is shared.
    let found = ["bucket", "nothing"].map(|found| shown.matches(&format!("\"found\":\"{found}\"")).count());
    assert_eq!(found, [1, 1], "{shown}");
}

#[test]
fn thin_buckets_end_all_asking() {
    let machine = Machine::new(|bucket| {
        // One malicious hash is left, and all else is padding.
        let mut thin = bucket;
        thin[6..14].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        thin[30..].fill(0);
        thin
    });
    machine.agree(&[Class::Lookups]);
    for _ in 0..2 {
        assert_eq!(machine.look_up(&hashes(7, 1)[0]).unwrap_err().code, "lookup-thin");
    }
    assert_eq!(machine.cloud.asked().len(), 1, "once is more than enough");
}

#[test]
fn another_bucket_and_another_relay_are_refused() {
    let machine = Machine::new(|mut bucket| {
        bucket[5] ^= 1;
        bucket
    });
    machine.agree(&[Class::Lookups]);
    assert_eq!(machine.look_up(&hashes(7, 1)[0]).unwrap_err().code, "lookup-answer");
    let mut machine = Machine::new(|bucket| bucket);
    machine.agree(&[Class::Lookups]);
    machine.config.lookup.as_mut().unwrap().relay = Some("nobody".parse().unwrap());
    assert_eq!(machine.look_up(&hashes(7, 1)[0]).unwrap_err().code, "lookup-relay");
    assert!(machine.cloud.asked().is_empty());
}

#[test]
fn a_damaged_set_is_said_to_be_damaged() {
    let mut machine = Machine::new(|bucket| bucket);
    let path = machine.config.install.join(RULES_PRODUCT).join("current/hashes.fuse");
    let other = ReputationSet::build(hashes(900_000, 10)).unwrap().to_bytes();
    for damaged in [&b"clerestory-fuse 2\n"[..], &other] {
        durable::write(&path, damaged).unwrap();
        assert_eq!(machine.look_up(&hashes(7, 1)[0]).unwrap_err().code, "lookup-set");
    }
    durable::remove(&path).unwrap();
    assert_eq!(machine.look_up(&hashes(7, 1)[0]).unwrap_err().code, "lookup-set");
    machine.config.lookup.as_mut().unwrap().rules = "other".parse().unwrap();
    assert_eq!(machine.look_up(&hashes(7, 1)[0]).unwrap().set, SetSays::NoSet);
}
