//! A vendor with three front ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::StreamPolicy;
use remote::{PostgresSettings, PostgresStore};
use storage::LockStore as _;
use testkit::{Postgres, Seaweed, write_section};

use crate::process::Server;
use crate::raw;
use crate::shared::load::{Receipts, STREAMS};
use crate::system::{Scope, System};

pub(crate) struct Vendor {
    pub(crate) system: System,
    /// On machines of their own, as far as they know.
    pub(crate) fronts: Vec<Server>,
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) seaweed: Arc<Seaweed>,
    schema: &'static str,
}

impl Vendor {
    pub(crate) fn running(name: &'static str) -> Self {
        Self::made(name).start()
    }

    pub(crate) fn made(name: &'static str) -> Self {
        Self::made_on(name, Postgres::shared(), Seaweed::shared())
    }

    pub(crate) fn on_services_of_its_own(name: &'static str) -> Self {
        Self::made_on(name, Arc::new(Postgres::start()), Arc::new(Seaweed::start())).start()
    }

    fn start(mut self) -> Self {
        self.system.witnesses.iter_mut().for_each(Server::start);
        self.system.supervisor.start();
        self.fronts.iter_mut().for_each(Server::start);
        self
    }

    fn made_on(name: &'static str, postgres: Arc<Postgres>, seaweed: Arc<Seaweed>) -> Self {
        seaweed.make_bucket(name);
        let folder = tempfile::tempdir().unwrap();
        write_section(folder.path(), (&postgres, &seaweed), name, "vendor");
        let system = System::made_in(folder, Scope::Logs, [&["--shared", "vendor.toml"], &[]], |_, policy| {
            crate::vault::put_into(policy);
            policy.streams.extend(STREAMS.map(|stream| StreamPolicy {
                log: "vendor.example/log".parse().unwrap(),
                stream: stream.parse().unwrap(),
                organisation: "vendor".parse().unwrap(),
                interval_s: 24 * 3600,
            }));
        });
        let fronts = (1..=3).map(|n| system.front("vendor", &format!("front{n}"))).collect();
        Self { system, fronts, postgres, seaweed, schema: name }
    }

    /// Which of the front ends holds the lease, as the lock store has it.
    pub(crate) fn holder(&self) -> usize {
        holder(&self.postgres, self.schema, &self.fronts).expect("one of them holds it")
    }

    /// The size that is published, as a front end that runs says.
    pub(crate) fn published(&self) -> u64 {
        let front = self.holder();
        let text = raw::get(self.fronts[front].address(), "/checkpoint").text();
        text.lines().nth(1).unwrap().parse().unwrap()
    }

    /// The log comes out of the bucket, is whole, and is not put back into shared stores.
    pub(crate) fn check_backup(&self, receipts: &Receipts) {
        let run = |command: &str, further: &[&str]| {
            let arguments = ["--json", "backup", command, "--config", "vendor/clerestory.toml"];
            self.system.run(&[&arguments[..], further].concat())
        };
        let made = run("make", &["--out", "copy"]).ok().json();
        assert!(made["log"].as_u64().unwrap() >= receipts.places.len() as u64, "{made}");
        let drilled = run("drill", &["--from", "copy"]).ok().json();
        assert_eq!(drilled["restored"]["log"], made["log"], "{drilled}");
        let refused = run("restore", &["--from", "copy"]);
        assert!(refused.code == 1 && refused.stderr.contains("not into shared stores"), "{refused:?}");
    }

    /// Nothing that was acknowledged is lost or doubled, the store is whole, and an auditor from
    /// outside sees one history.
    pub(crate) fn check(mut self, receipts: &Receipts) {
        // One more front end, which has seen nothing of it all, is where the policy says the log is.
        self.system.vendor.start();
        let list = ["--json", "log", "entries", "--config", "vendor/clerestory.toml", "--log", "vendor.example/log"];
        let listed = self.system.run(&[&list[..], &["--count", "10000"]].concat()).ok().json();
        let mut places: BTreeMap<String, u64> = BTreeMap::new();
        for entry in listed["entries"].as_array().unwrap() {
            let (id, index) = (entry["id"].as_str().unwrap().to_owned(), entry["index"].as_u64().unwrap());
            assert_eq!(places.insert(id, index), None, "an entry is in the log twice");
        }
        for (id, index) in &receipts.places {
            assert_eq!(places.get(id), Some(index), "{id} was acknowledged");
        }
        let fsck = self.system.run(&["fsck", "--config", "vendor/clerestory.toml"]).ok();
        assert!(fsck.stdout.contains(" 0 damaged"), "{fsck:?}");
        let audit = self.system.run(&["--json", "audit", "--config", "vendor/clerestory.toml"]);
        let report = audit.json();
        let log = report["logs"].as_array().unwrap().iter().find(|log| log["origin"] == "vendor.example/log").unwrap();
        assert_eq!(log["findings"], serde_json::json!([]), "{report}");
        assert!(log["size"].as_u64().unwrap() >= receipts.places.len() as u64);
    }
}

/// Which of the front ends holds the lease, as the lock store has it.
pub(crate) fn holder(postgres: &Postgres, schema: &str, fronts: &[Server]) -> Option<usize> {
    let settings = PostgresSettings {
        url: postgres.url(),
        password: Some(postgres.password().to_owned()),
        schema: schema.parse().unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let store = PostgresStore::open(&settings).await.unwrap();
        let found = store.get(&"lease/domain".parse().unwrap()).await.unwrap();
        store.close().await;
        found
    });
    let value: serde_json::Value = serde_json::from_slice(&found?.bytes).unwrap();
    let held = value["holder"].is_string();
    fronts.iter().position(|front| held && front.url() == value["address"])
}
