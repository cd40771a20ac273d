//! The vault of what endpoints share: sealed, durable before the signed receipt, once each, and given back as
//! ciphertext only.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use api::Client;
use attest::{Envelope, Receipt, Statement};
use nix::sys::signal::{Signal, kill};
use policy::{Policy, Role};
use seal::{Destination, Sealed};
use stdx::{Digest, SystemEntropy, UnixTime};
use testkit::{Custody, Party, REGION};
use vault::{Chain, Segment};

use crate::raw::{self, Response, get, post, send};
use crate::system::System;

/// Making keys takes longer than all the rest.
static CUSTODY: LazyLock<Custody> = LazyLock::new(Custody::new);

/// A policy that assigns Germany to the region.
pub(crate) fn made() -> System {
    System::made_with(|_, policy| put_into(policy))
}

/// The region and its custodians.
pub(crate) fn put_into(policy: &mut Policy) {
    CUSTODY.put_into(policy);
    // Who opens something has keys for it; nobody does here.
    let further = Party::new("supervisor").organisation().keys.into_iter();
    let further = further.filter(|key| matches!(key.role, Role::Gateway | Role::Custodian));
    let supervisor = policy.organisations.iter_mut().find(|it| it.id.as_str() == "supervisor").unwrap();
    supervisor.keys.extend(further);
}

fn start(system: &mut System) {
    system.witnesses.iter_mut().for_each(|it| it.start());
    system.vendor.start();
}

fn running() -> System {
    let mut system = made();
    start(&mut system);
    system
}

pub(crate) fn sealed(system: &System, plaintext: &[u8]) -> Vec<u8> {
    // A day on which the custodians' keys are good, whatever day this test runs.
    let at = UnixTime::from_seconds(1_767_225_600);
    let policy = system.policy();
    let residency = policy.policy().residency.as_ref().unwrap();
    let destination = Destination::new(residency, policy.id(), "DE".parse().unwrap(), at).unwrap();
    destination.seal(&"statistics".parse().unwrap(), plaintext, &SystemEntropy).unwrap()
}

fn take(system: &System, object: &[u8]) -> Response {
    post(system.vendor.address(), api::path::EVENTS, object)
}

/// The receipt, as an endpoint checks it.
pub(crate) fn receipt(system: &System, object: &[u8]) -> Statement<Receipt> {
    let response = take(system, object);
    assert_eq!(response.status, 200, "{response:?}");
    let envelope = Envelope::parse(&response.body).unwrap();
    let verified = system.policy().verify::<Receipt>(&envelope, Role::Recorder).unwrap();
    assert!(verified.signers().iter().all(|signer| signer.organisation.as_str() == "vendor"));
    let says = verified.statement().clone();
    assert_eq!(says.subject[0].digest.sha256, Digest::of(object));
    assert_eq!((says.predicate.bytes, says.predicate.region.as_str()), (object.len() as u64, REGION));
    says
}

fn manifest(address: SocketAddr, number: u64) -> Response {
    get(address, &format!("{}/{REGION}/manifests/{number}", api::path::VAULT))
}

fn path(segment: &Segment) -> String {
    format!("{}/{REGION}/segments/{}/{}", api::path::VAULT, segment.class, segment.segment)
}

/// Every manifest, as somebody reads them who has nothing but the address.
pub(crate) fn chain(address: SocketAddr) -> Chain {
    let mut chain = Chain::new(REGION.parse().unwrap());
    loop {
        let response = manifest(address, chain.next());
        if response.status == 404 {
            return chain;
        }
        assert_eq!(response.status, 200, "{response:?}");
        chain.read(&response.body).unwrap();
    }
}

/// Everything that can be read over HTTP, and opened by both custodians.
pub(crate) fn read(system: &System) -> Vec<Vec<u8>> {
    read_at(system.vendor.address())
}

/// The same from this machine.
pub(crate) fn read_at(address: SocketAddr) -> Vec<Vec<u8>> {
    let (client, mut found) = (Client::new(Duration::from_secs(10)), Vec::new());
    for segment in chain(address).segments() {
        let url = format!("http://{address}{}", path(segment));
        for kept in &segment.objects {
            let object = client.get_piece(&url, kept.at..kept.at + kept.bytes).unwrap();
            assert_eq!(Digest::of(&object), kept.object);
            found.push(Sealed::read(&object, &CUSTODY.open(&object)).unwrap());
        }
    }
    found.sort();
    found
}

#[test]
fn a_batch_is_kept_once_with_a_signed_receipt_and_outlives_a_power_cut() {
    let mut system = running();
    let (first, second) = (sealed(&system, &[7; 100_000]), sealed(&system, b"another"));
    let expected = receipt(&system, &first);
    system.vendor.kill();
    system.vendor.start();
    assert_eq!(receipt(&system, &first), expected, "the same bytes are the same batch");
    receipt(&system, &second);
    assert_eq!(system.vendor.stop().code, 0);
    system.vendor.start();
    assert_eq!(read(&system), [vec![7; 100_000], b"another".to_vec()]);

    let other = {
        let mut it = second.clone();
        *it.last_mut().unwrap() ^= 1;
        it
    };
    assert!(take(&system, &other).error().contains("another object with the name"));
    assert!(take(&system, b"plaintext").error().starts_with("422 sealed"));
    assert!(take(&system, b"").error().starts_with("400 body"));
    assert!(take(&system, &vec![1; (16 << 20) + 1]).error().starts_with("413 too-long"));
    // Supervisors take none of it.
    system.supervisor.start();
    assert_eq!(post(system.supervisor.address(), api::path::EVENTS, b"x").status, 404);
}

#[test]
fn manifests_and_pieces_of_segments_are_given_to_whoever_asks_and_nothing_else() {
    let mut system = running();
    // More than is read of the store at once.
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    receipt(&system, &sealed(&system, &large));
    assert_eq!(manifest(system.vendor.address(), 1).status, 404, "it lies in no segment yet");
    system.vendor.kill();
    system.vendor.start();
    let chain = chain(system.vendor.address());
    let segment = chain.segments().next().unwrap();
    let whole = get(system.vendor.address(), &path(segment));
    assert_eq!((whole.status, whole.body.len() as u64), (200, segment.bytes));
    assert_eq!(Digest::of(&whole.body), segment.segment);
    let asked = |range: &str| {
        let (path, close) = (path(segment), "Connection: close");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{close}\r\nRange: {range}\r\n\r\n");
        send(system.vendor.address(), request.as_bytes())
    };
    let size = whole.body.len();
    for (range, from, until) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-2000999", 1000, 2_001_000),
        ("bytes=1048576-", 1 << 20, size),
        ("bytes=2999999-99999999", 2_999_999, size),
    ] {
        let piece = asked(range);
        assert_eq!(piece.status, 206, "{range}");
        assert_eq!(piece.header("content-range"), Some(&*format!("bytes {from}-{}/{size}", until - 1)));
        assert!(piece.body == whole.body[from..until], "{range}");
    }
    for range in ["bytes=-5", "bytes=5-4", "bytes=0-1,5-6", "lines=0-1", &format!("bytes={size}-")] {
        assert!(asked(range).error().starts_with("416 range"), "{range}");
    }
    let of = |text: &str| get(system.vendor.address(), &format!("{}/{text}", api::path::VAULT)).status;
    let none = "0".repeat(64);
    for missing in [
        "zurich/manifests/2",
        "moscow/manifests/1",
        "%2e%2e/manifests/1",
        &format!("zurich/segments/statistics/{none}"),
        &format!("zurich/segments/detections/{}", segment.segment),
        "zurich/segments/statistics/..%2f..%2fstore",
    ] {
        assert_eq!(of(missing), 404, "{missing}");
    }
    assert_eq!(of("zurich/manifests/x"), 400);
}

#[test]
fn a_full_intake_takes_nothing_more_and_loses_nothing() {
    let mut system = made();
    system.set("vendor", "intake_bytes_max = 68719476736", "intake_bytes_max = 250000");
    start(&mut system);
    let batches: Vec<Vec<u8>> = (1..=4).map(|byte| sealed(&system, &[byte; 100_000])).collect();
    receipt(&system, &batches[0]);
    receipt(&system, &batches[1]);
    let refused = take(&system, &batches[2]);
    assert!(refused.error().starts_with("503 intake-full"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("600"));
    // What it has it acknowledges again, and what is small enough fits.
    receipt(&system, &batches[0]);
    receipt(&system, &sealed(&system, &[9; 20_000]));
    system.vendor.kill();
    system.vendor.start();
    assert!(take(&system, &batches[3]).error().starts_with("503 intake-full"), "after a start, too");
    assert_eq!(read(&system).len(), 3);
}

#[test]
fn endpoints_that_hang_up_in_the_middle_leave_no_trace_in_what_may_come() {
    let mut system = made();
    // A hundred of those that hang up, if each were counted for ever, would fill it.
    system.set("vendor", "intake_bytes_max = 68719476736", "intake_bytes_max = 1000000");
    start(&mut system);
    let head = |length: usize| format!("POST /v1/events HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
    let object = sealed(&system, &[1; 100_000]);
    for number in 0..100 {
        let mut stream = TcpStream::connect(system.vendor.address()).unwrap();
        stream.write_all(head(object.len()).as_bytes()).unwrap();
        // Some have sent nothing but the head, some all of it; none waits for the answer.
        let sent = object.len() * (number % 5) / 4;
        stream.write_all(&object[..sent]).unwrap();
    }
    for byte in 2..=9 {
        receipt(&system, &sealed(&system, &[byte; 100_000]));
    }
    receipt(&system, &object);
    system.vendor.kill();
    system.vendor.start();
    assert_eq!(read(&system).len(), 9, "each is there once");
}

#[test]
fn without_a_residency_nothing_is_taken_in() {
    let system = System::running();
    assert_eq!(post(system.vendor.address(), api::path::EVENTS, b"x").status, 404);
    assert_eq!(manifest(system.vendor.address(), 1).status, 404);
}

/// Texts that these front ends have acknowledged, when one of them is killed while they are sent to.
pub(crate) fn acknowledged_under_load(fronts: &[SocketAddr], system: &System, kill: impl FnOnce()) -> Vec<Vec<u8>> {
    let acknowledged = Mutex::new(Vec::new());
    let (sent, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let text = format!("text {number:06}").into_bytes();
                    let object = sealed(system, &text);
                    // To two of them, if there are as many, as an endpoint does whose first answer was lost.
                    let answers = [0, 1].map(|at| raw::try_post(fronts[(number + at) % fronts.len()], &object));
                    if answers.contains(&Some(200)) {
                        acknowledged.lock().unwrap().push(text);
                    }
                }
            });
        }
        let enough = |count| {
            while acknowledged.lock().unwrap().len() < count {
                std::thread::yield_now();
            }
        };
        enough(50);
        kill();
        if fronts.len() > 1 {
            enough(100);
        }
        over.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().unwrap()
}

#[test]
fn what_was_acknowledged_before_a_kill_under_load_is_there_once() {
    let system = running();
    let address = system.vendor.address();
    let process = system.vendor.process();
    let acknowledged = acknowledged_under_load(&[address], &system, || kill(process, Signal::SIGKILL).unwrap());
    let mut system = system;
    system.vendor.kill();
    system.vendor.hang_up();
    system.vendor.start();
    let kept = read(&system);
    let once: BTreeSet<&Vec<u8>> = kept.iter().collect();
    assert_eq!(once.len(), kept.len(), "none is there twice");
    assert!(acknowledged.iter().all(|text| once.contains(text)), "{} of {}", once.len(), acknowledged.len());
}

#[test]
fn regions_are_shown_with_what_is_kept_and_when_their_keys_end() {
    let mut system = running();
    receipt(&system, &sealed(&system, &[7; 1000]));
    system.vendor.kill();
    system.vendor.start();
    assert_eq!(get(system.vendor.address(), "/healthz").status, 200);
    let (config, url) = ("vendor/clerestory.toml", system.vendor.url());
    let here = system.run(&["--json", "data", "regions", "--config", config, "--days", "0"]);
    // The same from another's side, over HTTP.
    let other = "supervisor/clerestory.toml";
    let there = system.run(&["--json", "data", "regions", "--config", other, "--days", "0", "--vault", &url]);
    let (here, there) = (here.json(), there.json());
    assert_eq!(here, there);
    let zurich = &here["regions"][0];
    assert_eq!((zurich["region"].as_str(), zurich["country"].as_str()), (Some(REGION), Some("CH")));
    assert_eq!(zurich["countries"], serde_json::json!(["CH", "DE", "JP"]));
    assert_eq!(zurich["kept"]["objects"], 1);
    // Whatever day it is: the keys end within a hundred years, or have ended.
    let alarm = system.run(&["data", "regions", "--config", config, "--days", "36500"]);
    assert_eq!(alarm.code, 1, "{alarm:?}");
    assert!(alarm.stdout.contains("alarm: `member` has no key for `zurich`"), "{alarm:?}");
    let none = System::made().run(&["data", "regions", "--config", config]);
    assert!(none.stderr.contains("the policy does not say where data lies"), "{none:?}");
}
