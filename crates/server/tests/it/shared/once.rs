//! One statement about a rebuild, however many processes have come to it, and wherever one of them
//! died.

use attest::{Envelope, Heartbeat, Position, Statement, Subject};
use server::config::Config;
use server::domain::Domain;
use stdx::Digest;
use storage::{Key, Swap};
use tlog::SignerKey;

use crate::system::System;

/// Says something else for each `number`.
fn sign(position: Position, number: u64, key: &SignerKey) -> anyhow::Result<Envelope> {
    let subject = vec![Subject::new("a rebuild", Digest::of(b"a rebuild"))];
    let statement = Statement { subject, predicate: Heartbeat { position, interval_s: number } };
    Ok(Envelope::sign(statement.encode()?, &[key])?)
}

struct Writer {
    domain: Domain,
    key: SignerKey,
}

impl Writer {
    async fn new(system: &System) -> Self {
        let config = Config::load(&system.file("vendor/clerestory.toml")).unwrap();
        Self { domain: Domain::open(&config).await.unwrap(), key: system.key("vendor", "recorder") }
    }

    async fn once(&self, once: &str, number: u64) -> String {
        let stream = self.domain.stream("test/vendor").unwrap();
        let entry = stream.write_once(&once.parse().unwrap(), |position| sign(position, number, &self.key)).await;
        entry.unwrap().envelope.id().to_string()
    }

    /// What a process leaves that dies as soon as it has noted its statement.
    async fn note(&self, once: &str, number: u64) -> String {
        let mut next = None;
        let stream = self.domain.stream("test/vendor").unwrap();
        let none = stream.write(|position| {
            next = Some(position);
            anyhow::bail!("only the place is wanted")
        });
        none.await.unwrap_err();
        let envelope = sign(next.unwrap(), number, &self.key).unwrap();
        let once: Key = once.parse().unwrap();
        let noted = self.domain.locks().compare_and_swap(&once, None, envelope.to_bytes().into()).await.unwrap();
        assert!(matches!(noted, Swap::Won(_)));
        envelope.id().to_string()
    }
}

#[test]
fn one_statement_is_logged_whoever_makes_it_and_dies() {
    let system = System::running();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let logged = runtime.block_on(async {
        let mut racers = Vec::new();
        for number in 1..=6 {
            let writer = Writer::new(&system).await;
            racers.push(tokio::spawn(async move { writer.once("rebuilt/raced", number).await }));
        }
        let mut ids = Vec::new();
        for racer in racers {
            ids.push(racer.await.unwrap());
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let writer = Writer::new(&system).await;
        assert_eq!(writer.once("rebuilt/raced", 7).await, ids[0], "later, too");

        // Its place is still free: it is this statement that gets it.
        let noted = writer.note("rebuilt/noted", 8).await;
        assert_eq!(writer.once("rebuilt/noted", 9).await, noted);
        // Its place has gone: it never gets logged, and another does.
        let noted = writer.note("rebuilt/late", 10).await;
        let between = writer.once("rebuilt/between", 11).await;
        let late = writer.once("rebuilt/late", 12).await;
        assert_ne!(late, noted);
        assert_eq!(writer.once("rebuilt/late", 13).await, late);
        [ids.remove(0), writer.once("rebuilt/noted", 14).await, between, late]
    });
    let list = ["--json", "log", "entries", "--config", "vendor/clerestory.toml", "--log", "vendor.example/log"];
    let listed = system.run(&list).ok().json();
    let ids: Vec<&str> = listed["entries"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, logged);
}
