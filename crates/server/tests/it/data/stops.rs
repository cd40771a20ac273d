//! The supervisor's stop switch, and gateways and servers that would rather have no stop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use attest::Bundle;
use axum::Router;
use axum::routing::get;
use stdx::{Clock as _, SystemClock};
use testkit::REGION;

use super::gateway::{CODE, Desk};
use super::scene::{CUSTODIANS, Made, Scene};
use crate::process::Server;
use crate::raw;

/// Refused, with a text that says why; nothing was used up.
fn refused(scene: &Scene, who: &str, ask: &api::GrantRequest, why: &str) {
    let answer = scene.grant(who, ask);
    assert!([403, 503].contains(&answer.status), "{}", answer.text());
    assert!(answer.error().contains(why), "{}", answer.error());
    assert_eq!(scene.state(who).uses, 0);
}

/// Sits where the supervisor's server was, and says what it likes of the region.
struct Liar(tokio::runtime::Runtime);

impl Liar {
    fn with(scene: &Scene, status: Vec<u8>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = scene.system.supervisor.listener().try_clone().unwrap();
        listener.set_nonblocking(true).unwrap();
        let router = Router::new().route("/v1/regions/zurich", get(|| async { status }));
        let listener = runtime.block_on(async { tokio::net::TcpListener::from_std(listener).unwrap() });
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self(runtime)
    }

    fn ends(self) {
        self.0.shutdown_timeout(std::time::Duration::from_secs(5));
    }
}

#[test]
fn a_status_from_before_a_stop_opens_nothing_whoever_brings_it() {
    let mut scene = Scene::running();
    let made = scene.make();
    // Everything is in order, and the status that the gateway brings is a moment old.
    let ask = scene.ask(&made);
    let before = Bundle::new(vec![scene.status()]).unwrap().to_bytes();
    scene.supervisor_data(&["stop", REGION]).ok();
    for who in CUSTODIANS {
        refused(&scene, who, &ask, "stopped: the region");
    }
    // Now the server lies as well: it has a newer one, and does not show it.
    scene.system.supervisor.kill();
    scene.system.supervisor.hang_up();
    let liar = Liar::with(&scene, before);
    for who in CUSTODIANS {
        refused(&scene, who, &ask, "which this custodian has seen");
        scene.custodian(who).kill();
        scene.custodian(who).start();
        refused(&scene, who, &ask, "which this custodian has seen");
    }
    liar.ends();
    // Or it says something else, or nothing: nothing is opened without an answer.
    let liar = Liar::with(&scene, b"[]".to_vec());
    for who in CUSTODIANS {
        refused(&scene, who, &ask, "the region's newest status, and it can't be had");
    }
    liar.ends();
    scene.system.supervisor.start();
    scene.supervisor_data(&["resume", REGION]).ok();
    let [one, other] = CUSTODIANS.map(|who| scene.shares(who, &made, &scene.grant(who, &ask)));
    assert_eq!(super::scene::read(&made, [&one, &other]).len(), 2);
}

/// Without a status custodians open nothing.
#[test]
fn a_status_that_could_not_be_published_is_there_seconds_after_it_can() {
    let mut scene = Scene::made();
    let (said, clock) = (Arc::<Mutex<Vec<String>>>::default(), SystemClock::new());
    scene.system.supervisor.start();
    scene.system.supervisor.listen(&said);
    let until = |begun: Duration, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(clock.monotonic() - begun < Duration::from_secs(40), "{:#?}", said.lock().unwrap());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    // Without witnesses the log takes nothing.
    let failed = "a region's status could not be published";
    until(clock.monotonic(), &|| said.lock().unwrap().iter().any(|line| line.contains(failed)));
    scene.system.witnesses.iter_mut().for_each(Server::start);
    let server = scene.system.supervisor.address();
    until(clock.monotonic(), &|| raw::get(server, "/v1/regions/zurich").status == 200);
}

#[test]
fn a_stop_is_brought_to_custodians_past_the_server_that_they_would_ask() {
    let mut desk = Desk::running();
    let scene = &mut desk.scene;
    let made = Made { worker: scene.certify_code(CODE), ..scene.make() };
    let ask = scene.ask(&made);
    let before = Bundle::new(vec![scene.status()]).unwrap().to_bytes();
    scene.custodian("member").kill();
    scene.custodian("member").hang_up();
    let told = scene.supervisor_data(&["stop", REGION]).ok().json();
    assert!(told["custodians"]["supervisor"].is_null(), "{told}");
    assert!(told["custodians"]["member"].as_str().unwrap().contains("no answer"), "{told}");
    scene.custodian("member").start();
    scene.supervisor_data(&["resume", REGION]).ok();
    let told = scene.supervisor_data(&["stop", REGION]).ok().json();
    assert!(CUSTODIANS.iter().all(|who| told["custodians"][who].is_null()), "{told}");
    scene.system.supervisor.kill();
    scene.system.supervisor.hang_up();
    let liar = Liar::with(scene, before.clone());
    for who in CUSTODIANS {
        refused(scene, who, &ask, "which this custodian has seen");
        // Nobody makes it forget, with an old one or with somebody else's.
        for status in [String::from_utf8(before.clone()).unwrap(), ask.evidence.clone()] {
            let note = api::StatusNote { region: REGION.parse().unwrap(), status };
            let body = serde_json::to_vec(&note).unwrap();
            let at = CUSTODIANS.iter().position(|it| *it == who).unwrap();
            raw::post(scene.custodians[at].address(), "/v1/custody/statuses", &body);
        }
        refused(scene, who, &ask, "which this custodian has seen");
    }
    liar.ends();
}
