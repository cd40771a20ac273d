//! What is really on the wire: packets, captured in a network that the test made for itself.

use std::path::Path;
use std::process::{Command, Output};

use agent::{Body, Bounds, Class, Mode, RealDisk, Share, SharePorts, Shown, statement_digest};
use api::Client;
use stdx::{Digest, SystemClock, SystemEntropy, durable};
use testkit::{Capture, in_own_network};

use crate::scene::Scene;
use crate::sharing::Intake;

fn agent(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerestory-agent")).arg("--config").arg(config).args(arguments).output().unwrap()
}

/// The real program on a machine that was just set up, with everything configured that could send.
#[test]
fn a_fresh_install_sends_no_packet_before_its_owner_agrees() {
    in_own_network("capture::a_fresh_install_sends_no_packet_before_its_owner_agrees", || {
        let capture = Capture::start();
        let scene = Scene::new();
        let intake = Intake::new();
        let folder = scene.folder.path();
        let (genesis, config) = (folder.join("1.envelope"), folder.join("agent.toml"));
        durable::write(&genesis, &scene.world.genesis().to_bytes()).unwrap();
        let (server, intake) = (scene.server.url(), &intake.url);
        let text = format!(
            "state = \"{0}/fresh\"\ninstall = \"{0}/fresh-install\"\nchannel = [\"{server}\"]\nring = \"all\"\n\
             [lookup]\nrules = \"rules\"\n[share]\nintake = \"{intake}\"\ncountry = \"DE\"\n[[product]]\nid = \"libexample\"\n",
            folder.display()
        );
        durable::write(&config, text.as_bytes()).unwrap();
        let hash = scene.world.genesis().id().to_string();
        let init = agent(&config, &["init", "--policy-hash", &hash, "--policy", genesis.to_str().unwrap()]);
        assert!(init.status.success(), "{init:?}");
        let document = genesis.to_str().unwrap();
        let (statement, file) = (statement_digest().to_string(), Digest::of(b"x").to_string());
        for arguments in [
            &["lookup", document][..],
            &["check"],
            &["share", "statement"],
            &["share", "status"],
            &["share", "show"],
            &["share", "send"],
            &["share", "send-file", document, "--rule", "any", "--sha256", &file],
            // What goes into a file goes nowhere else.
            &["share", "agree", "--statement", &statement, "--mode", "file", "--class", "detections"],
            &["share", "send"],
            &["lookup", document],
            &["share", "withdraw"],
        ] {
            let output = agent(&config, arguments);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {output:?}");
        }
        let captured = capture.end();
        assert!(captured.0.is_empty(), "{captured:?}");
        // The same capture sees a request where there is one.
        let capture = Capture::start();
        agent(&config, &["update"]);
        assert!(!capture.end().0.is_empty(), "an update asks the channel");
    });
}

#[test]
fn what_is_shown_is_what_the_packets_carried() {
    in_own_network("capture::what_is_shown_is_what_the_packets_carried", || {
        let capture = Capture::start();
        let (scene, intake, clock) = (Scene::new(), Intake::new(), SystemClock::new());
        let client = Client::new(std::time::Duration::from_secs(60));
        let ports = SharePorts { clock: &clock, disk: &RealDisk, entropy: &SystemEntropy };
        let mut share = Share::open(&scene.config.state, ports, Bounds::default()).unwrap();
        share.agree(&statement_digest(), Mode::Full, [Class::Detections].into()).unwrap();
        for size in 0..600 {
            let body = Body::Detection { rule: "rule".to_owned(), sha256: Digest::of(b"a file"), size };
            share.record(body).unwrap();
        }
        let sending = intake.sending(&client);
        share.send(sending).unwrap();
        let port: u16 = sending.intake.to_string().rsplit(':').next().unwrap().parse().unwrap();
        let carried = bodies(&capture.end().to_port(port));
        let shown = share.show().unwrap();
        assert!(shown.len() > 1 && shown.len() == carried.len());
        let (mut digests, mut lines) = (Vec::new(), 0);
        for it in &shown {
            let Shown::Sent { sealed, plain, .. } = it else { panic!("{it}") };
            digests.push(*sealed);
            lines += plain.lines().count();
        }
        let mut on_the_wire: Vec<Digest> = carried.iter().map(|body| Digest::of(body)).collect();
        digests.sort_unstable();
        on_the_wire.sort_unstable();
        assert_eq!((digests, lines), (on_the_wire, 600));
    });
}

/// The bodies of the requests in a stream of them; whatever is no head and no body fails.
fn bodies(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while !stream.is_empty() {
        let end = stream.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = std::str::from_utf8(&stream[..end]).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/events http/1.1\r\n"), "{head}");
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        bodies.push(stream[end..end + length].to_vec());
        stream = &stream[end + length..];
    }
    bodies
}
