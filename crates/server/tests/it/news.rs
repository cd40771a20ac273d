//! Endpoints wait for what is new, and get all of it in one answer.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;

use attest::{Lane, Ring};
use channel::{Channel, News, layout};
use stdx::{Digest, durable};

use crate::canary::{Lanes, PRODUCT};
use crate::raw::{self, get};

fn asked(address: SocketAddr, ring: Ring, after: Option<&Digest>, wait: u64) -> raw::Response {
    get(address, &format!("/channel/{}?wait={wait}", layout::news(ring, after)))
}

fn state(address: SocketAddr, ring: Ring) -> Digest {
    News::parse(&asked(address, ring, None, 0).body).unwrap().state
}

/// One that waits; whether it comes before there is something, or after, makes no difference.
fn waiting(address: SocketAddr, ring: Ring, after: Digest) -> thread::JoinHandle<raw::Response> {
    thread::spawn(move || asked(address, ring, Some(&after), 50))
}

#[test]
fn who_waits_gets_all_that_is_new_for_its_ring() {
    let mut lanes = Lanes::running();
    (0..2).for_each(|_| lanes.wait_for("the status is carried"));
    let address = lanes.system.vendor.address();
    let shown = || Channel::open(&lanes.system.file("vendor/channel")).unwrap().shown().unwrap();
    while Some(state(address, Ring::All)) != shown().state(Ring::All) {}
    let before = [Ring::Canary, Ring::Early, Ring::All].map(|ring| state(address, ring));
    let [canary, early, all] = before;
    assert_eq!(asked(address, Ring::All, Some(&all), 0).status, 204);
    let unknown = asked(address, Ring::All, Some(&Digest::of(b"never")), 50).error();
    assert!(unknown.starts_with("404 not-found: nobody here knows state `"), "{unknown}");
    for path in ["news/nobody", "news/all/x", "news/all/x/y"] {
        assert_eq!(get(address, &format!("/channel/{path}")).status, 404, "{path}");
    }
    let (first, second) = (waiting(address, Ring::Canary, canary), waiting(address, Ring::Early, early));
    lanes.built("1", Some(Lane::Fast));
    lanes.publish("1").ok();
    let news = News::parse(&first.join().unwrap().body).unwrap();
    let has = |news: &News, end: &str| news.files.keys().any(|path| path.ends_with(end));
    let wanted = ["timestamp.json", ".snapshot.json", ".rules.json", ".releases", ".bundle", ".0-rules.yar"];
    wanted.iter().for_each(|end| assert!(has(&news, end), "{end} in {:?}", news.files.keys()));
    assert_eq!(news.state, state(address, Ring::Canary));
    // Nobody else was told, until it is for them: then with what came before that.
    lanes.all_is_well("1");
    lanes.wait_for("promoted");
    let news = News::parse(&second.join().unwrap().body).unwrap();
    wanted.iter().for_each(|end| assert!(has(&news, end), "{end} in {:?}", news.files.keys()));
    assert_eq!(lanes.ring("1"), Ring::Early);
    assert_eq!(state(address, Ring::All), all);
    // What forbids is for all.
    let third = waiting(address, Ring::All, all);
    let stop = ["status", "stop", "--config", "supervisor/clerestory.toml", "--product", PRODUCT, "--reason", "a test"];
    lanes.system.run(&stop).ok();
    let news = News::parse(&third.join().unwrap().body).unwrap();
    assert!(news.files.contains_key("status/fast.bundle"));
    // What can't be read keeps nobody waiting: who asks is sent to look for itself, until it can be read again.
    let (timestamp, aside) = ("vendor/channel/metadata/timestamp.json", "vendor/timestamp.json");
    let fourth = waiting(address, Ring::All, news.state);
    let moved = |from, to| durable::rename(&lanes.system.file(from), &lanes.system.file(to)).unwrap();
    moved(timestamp, aside);
    assert_eq!(fourth.join().unwrap().status, 404);
    moved(aside, timestamp);
    while asked(address, Ring::All, Some(&news.state), 0).status != 204 {}
    // A server that has just started knows the present state, and nothing of those before.
    lanes.system.vendor.stop();
    lanes.system.vendor.start();
    assert_eq!(asked(address, Ring::All, Some(&state(address, Ring::All)), 0).status, 204);
    assert_eq!(asked(address, Ring::All, Some(&all), 50).status, 404);
}

#[test]
fn who_waits_takes_nobodys_place_and_is_let_go() {
    let mut lanes = Lanes::running();
    (0..2).for_each(|_| lanes.wait_for("the status is carried"));
    lanes.system.vendor.stop();
    lanes.system.set("vendor", "waiting_max = 8192", "waiting_max = 1");
    lanes.system.vendor.start();
    let address = lanes.system.vendor.address();
    let all = state(address, Ring::All);
    let (send, answers) = channel();
    for _ in 0..2 {
        let send = send.clone();
        thread::spawn(move || send.send(asked(address, Ring::All, Some(&all), 50)).unwrap());
    }
    // There is no place for whoever comes second.
    assert_eq!(answers.recv().unwrap().error(), "503 busy: more requests at once than are worked on");
    assert_eq!(get(address, "/healthz").status, 200, "whoever works has its own");
    lanes.system.vendor.terminate();
    let done = lanes.system.vendor.wait();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stderr.contains("requests were still open"), "{done:?}");
    assert_eq!(answers.recv().unwrap().status, 204);
}
