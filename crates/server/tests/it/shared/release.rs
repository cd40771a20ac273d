//! From a build to an endpoint, with two front ends a domain, of which one of each dies on the way.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use testkit::{Postgres, Seaweed, write_section};

use crate::process::{Done, Server, run};
use crate::raw;
use crate::shared::balancer::Balancer;
use crate::shared::product::{Product, agent, sandbox};
use crate::shared::vendor::holder;
use crate::system::{Scope, System};

const OUTPUT: &[u8] = b"what both organisations built\n";
/// A lease's end, another's build, and a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two front ends of one organisation, and what stands in front of them.
struct Pair {
    fronts: [Server; 2],
    balancer: Balancer,
    schema: String,
}

impl Pair {
    fn new(system: &System, bucket: &str, organisation: &str) -> Self {
        let mut fronts = [1, 2].map(|n| system.front(organisation, &format!("{organisation}{n}")));
        fronts.iter_mut().for_each(Server::set_path);
        let server = if organisation == "vendor" { &system.vendor } else { &system.supervisor };
        let balancer = Balancer::start(server.listener().try_clone().unwrap());
        balancer.ask(&fronts.each_ref().map(Server::address));
        let schema = if organisation == "vendor" { bucket.to_owned() } else { format!("{bucket}-{organisation}") };
        Self { fronts, balancer, schema }
    }

    /// Which one sequences, once one does.
    fn holder(&self, postgres: &Postgres) -> usize {
        let asked = self.fronts.iter().find(|front| front.runs()).unwrap();
        loop {
            // Waits until somebody is known to.
            raw::post(asked.address(), "/v1/entries", b"nothing");
            if let Some(holder) = holder(postgres, &self.schema, &self.fronts) {
                return holder;
            }
        }
    }

    /// Ends one as a power cut does; the balancer finds it silent.
    fn kill(&mut self, front: usize) {
        self.balancer.ask(&[self.fronts[1 - front].address()]);
        self.fronts[front].kill();
    }
}

struct Domains {
    system: System,
    vendor: Pair,
    supervisor: Pair,
    product: Product,
    postgres: Arc<Postgres>,
    _seaweed: Arc<Seaweed>,
}

impl Domains {
    fn made(bucket: &str) -> Self {
        sandbox();
        let (postgres, seaweed) = (Postgres::shared(), Seaweed::shared());
        seaweed.make_bucket(bucket);
        let folder = tempfile::tempdir().unwrap();
        for organisation in ["vendor", "supervisor"] {
            write_section(folder.path(), (&postgres, &seaweed), bucket, organisation);
        }
        let product = Product::make(folder.path(), OUTPUT);
        let stores = [&["--shared", "vendor.toml"][..], &["--shared", "supervisor.toml"]];
        let system = System::made_in(folder, Scope::Releases, stores, |_, _| {});
        let cache = format!("cache = \"{}\"\n#", product.cache.display());
        system.set("supervisor", "# cache = ", &cache);
        system.set("supervisor", "offline = false", "offline = true");
        let [vendor, supervisor] = ["vendor", "supervisor"].map(|name| Pair::new(&system, bucket, name));
        for name in ["vendor1", "vendor2", "supervisor1", "supervisor2"] {
            product.record_in(&system.file(&format!("{name}/depot")));
        }
        Self { system, vendor, supervisor, product, postgres, _seaweed: seaweed }
    }

    /// Everything serves, and the channel carries a status.
    fn running(bucket: &str) -> Self {
        let mut this = Self::made(bucket);
        this.system.witnesses.iter_mut().for_each(Server::start);
        for pair in [&mut this.supervisor, &mut this.vendor] {
            pair.fronts.iter_mut().for_each(Server::start);
            pair.holder(&this.postgres);
        }
        this.system.run(&["status", "publish", "--config", "supervisor1/clerestory.toml"]).ok();
        this.system.run(&["release", "freshen", "--config", "vendor1/clerestory.toml"]).ok();
        this
    }

    fn agent(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new(agent());
        command.env_clear().stdin(Stdio::null()).current_dir(self.system.path());
        command.args(["--config", "agent.toml", "--json"]).args(arguments);
        command.output().unwrap().into()
    }

    fn set_endpoint(&self) {
        let at = self.system.path().display();
        let config = format!(
            "state = \"{at}/state\"\ninstall = \"{at}/install\"\nchannel = [\"{}/channel\"]\nring = \"all\"\n\
             [[product]]\nid = \"libexample\"\n",
            self.system.vendor.url()
        );
        stdx::durable::write(&self.system.file("agent.toml"), config.as_bytes()).unwrap();
        let hash = self.system.genesis.to_string();
        self.agent(&["init", "--policy-hash", &hash, "--policy", "vendor/policy/1.envelope"]).ok();
    }

    /// What is in a domain's log, by its type.
    fn logged(&self, organisation: &str) -> BTreeMap<String, usize> {
        let (config, log) = (format!("{organisation}/clerestory.toml"), format!("{organisation}.example/log"));
        let list = ["--json", "log", "entries", "--config", &config, "--log", &log, "--count", "10000"];
        let listed = self.system.run(&list).ok().json();
        let mut types = BTreeMap::new();
        for entry in listed["entries"].as_array().unwrap() {
            *types.entry(entry["type"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        types
    }
}

/// The lines that servers print, with the place of each in `servers`.
fn listen(servers: &mut [Server]) -> Receiver<(usize, String)> {
    let (send, lines) = channel();
    for (place, server) in servers.iter_mut().enumerate() {
        let (send, stderr) = (send.clone(), BufReader::new(server.stderr()));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                println!("{place}: {line}");
                let _ = send.send((place, line));
            }
        });
    }
    lines
}

fn until(lines: &Receiver<(usize, String)>, text: &str) -> usize {
    loop {
        let (place, line) = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nobody says `{text}`"));
        if line.contains(text) {
            return place;
        }
    }
}

#[test]
fn a_release_goes_on_when_a_front_end_of_each_domain_dies() {
    let mut domains = Domains::running("release");
    let supervisors = listen(&mut domains.supervisor.fronts);

    // Every request of the vendor comes to the front end that is not the sequencer.
    let sequencer = domains.supervisor.holder(&domains.postgres);
    domains.supervisor.balancer.ask(&[domains.supervisor.fronts[1 - sequencer].address()]);
    let Product { folder, repository, cache, .. } = &domains.product;
    let [folder, repository, cache] = [folder, repository, cache].map(|path| path.to_str().unwrap());
    let config = ["--config", "vendor1/clerestory.toml"];
    let source = ["--repository", repository, "--cache", cache, "--offline"];
    let building = [&["assembly", "build", folder][..], &source, &config].concat();
    let (at, building) = (domains.system.path().to_owned(), building.join("\n"));
    let building = std::thread::spawn(move || again(&at, &building.lines().collect::<Vec<_>>()));

    // The one that rebuilds dies in the middle of it; the other takes the rebuild over.
    let rebuilder = until(&supervisors, "rebuilding");
    domains.supervisor.kill(rebuilder);
    let other = until(&supervisors, "going on with what another process has left");
    assert_eq!(other, 1 - rebuilder);
    building.join().unwrap().ok();
    let logged = domains.logged("supervisor");
    assert_eq!(
        logged.iter().filter(|(kind, _)| kind.contains("verification_summary")).map(|it| it.1).sum::<usize>(),
        1,
        "{logged:?}"
    );

    // What was built on one machine is approved and released on another, after the first has gone.
    let result = "vendor1/builds/libexample/1.0/result.bundle";
    for name in ["vendor", "supervisor"] {
        let (config, key) = (format!("{name}2/clerestory.toml"), format!("{name}/keys/approver.key"));
        let out = format!("vendor2/builds/libexample/1.0/approvals/{name}.bundle");
        let approve = ["release", "approve", "--config", &config, "--key", &key, "--result", result, "--out", &out];
        domains.system.run(&approve).ok();
    }
    let sequencer = domains.vendor.holder(&domains.postgres);
    domains.vendor.kill(sequencer);
    let at = domains.system.path().to_owned();
    let config = ["--config", "vendor2/clerestory.toml", "libexample", "1.0", "--ring"];
    again(&at, &[&["release", "publish"][..], &config, &["canary"]].concat()).ok();

    // The one that died comes back and follows; the second signature and the status come through it.
    domains.supervisor.fronts[rebuilder].start();
    domains.supervisor.balancer.ask(&[domains.supervisor.fronts[rebuilder].address()]);
    assert_eq!(domains.supervisor.holder(&domains.postgres), 1 - rebuilder);
    again(&at, &[&["release", "promote"][..], &config, &["all"]].concat()).ok();

    domains.set_endpoint();
    domains.agent(&["update"]).ok();
    let installed = domains.system.file("install/libexample/current/product");
    assert_eq!(std::fs::read(installed).unwrap(), OUTPUT);

    // Who comes back has all of it, as files that any web server could serve.
    domains.vendor.fronts[sequencer].start();
    let timestamp = "/channel/metadata/timestamp.json";
    let [one, two] = domains.vendor.fronts.each_ref().map(|front| raw::get(front.address(), timestamp).body);
    assert_eq!(one, two);
    let channels = ["vendor1/channel", "vendor2/channel"].map(|folder| files(&domains.system.file(folder)));
    assert_eq!(channels[0], channels[1]);
    assert!(channels[0].iter().any(|(name, bytes)| name.ends_with(".0-product") && bytes == OUTPUT));
    for name in ["vendor2", "supervisor"] {
        let config = format!("{name}/clerestory.toml");
        let fsck = domains.system.run(&["fsck", "--config", &config]).ok();
        assert!(fsck.stdout.contains(" 0 damaged"), "{fsck:?}");
    }
}

/// Runs a command as often as it says that it should be tried again.
fn again(folder: &Path, arguments: &[&str]) -> Done {
    for _ in 0..5 {
        let done = run(folder, arguments);
        println!("{done:?}");
        if done.code != 75 {
            return done;
        }
    }
    panic!("`{arguments:?}` is never done");
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
