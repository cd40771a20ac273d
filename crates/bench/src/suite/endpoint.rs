//! What an endpoint needs: time, bytes and memory of `clerestory-agent` as a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use stdx::{Clock as _, SystemClock, durable};
use testkit::{PRODUCT, Publisher, SUPERVISOR_LOG, VENDOR_LOG};

use crate::bench::Bench;
use crate::picture::Picture;
use crate::programs::{Programs, Surroundings, succeed};
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

mod web;

use super::traffic::Relay;
use web::Web;

/// Entries in the logs beforehand.
const FILLER: usize = 10_000;
const MEBIBYTE: usize = 1 << 20;

/// A vendor's web server, and a machine that has the policy and one release.
struct Scene {
    publisher: Publisher,
    web: Web,
    programs: Programs,
    folder: PathBuf,
    releases: usize,
}

impl Scene {
    fn new(bench: &Bench) -> anyhow::Result<Self> {
        let folder = bench.folder().to_owned();
        let site = folder.join("site");
        let mut publisher = Publisher::new(&site, SystemClock::new().now());
        for number in 0..bench.scale().of(FILLER, 10) {
            publisher.world.vendor_log.append(number.to_le_bytes().to_vec());
            publisher.world.supervisor_log.append(number.to_le_bytes().to_vec());
        }
        let web = Web::serve(publisher.folder())?;
        let mut scene = Self { publisher, web, programs: bench.programs()?, folder, releases: 0 };
        scene.release(1)?;
        let (state, policy) = (scene.folder.join("agent.toml"), scene.folder.join("genesis"));
        let genesis = scene.publisher.world.genesis();
        durable::write(&policy, &genesis.to_bytes())?;
        let hash = genesis.id().to_string();
        scene.configure(&state, scene.web.address(), "state")?;
        succeed(scene.agent(&state)?.args(["init", "--policy-hash", &hash, "--policy"]).arg(&policy))?;
        scene.update(&state)?;
        let installed = scene.folder.join("install").join(PRODUCT).join("current/product");
        anyhow::ensure!(installed.is_file(), "the endpoint has installed nothing");
        Ok(scene)
    }

    /// Publishes another release of `bytes` bytes, with a fresh status, and shows the logs' tiles.
    fn release(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.releases += 1;
        let mark = self.releases;
        let content: Vec<u8> = (0..bytes).map(|index| u8::try_from((index * 7 + mark) % 251).unwrap_or(0)).collect();
        self.publisher.release(&format!("{mark}"), &content);
        self.publisher.publish_status();
        for origin in [VENDOR_LOG, SUPERVISOR_LOG] {
            let log = self.publisher.world.log(origin);
            for (tile, bytes) in log.tiles().iter() {
                let path = self.publisher.folder().join("logs").join(origin).join(tile.path());
                if !path.exists() {
                    durable::create_folder(path.parent().context("a tile lies in a folder")?)?;
                    durable::write(&path, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a configuration whose mirrors are at `address`.
    fn configure(&self, path: &Path, address: &str, state: &str) -> anyhow::Result<()> {
        let (folder, site) = (self.folder.display(), format!("http://{address}/channel"));
        let mut text = format!(
            "state = \"{folder}/{state}\"\ninstall = \"{folder}/install\"\nchannel = [\"{site}\"]\nring = \"all\"\n\
             [[product]]\nid = \"{PRODUCT}\"\n"
        );
        for origin in [VENDOR_LOG, SUPERVISOR_LOG] {
            text.push_str(&format!("[[log]]\norigin = \"{origin}\"\nurl = \"{site}/logs/{origin}\"\n"));
        }
        Ok(durable::write(path, text.as_bytes())?)
    }

    fn agent(&self, config: &Path) -> anyhow::Result<Command> {
        let mut command = self.programs.command("clerestory-agent")?;
        command.arg("--config").arg(config);
        Ok(command)
    }

    fn update(&self, config: &Path) -> anyhow::Result<String> {
        Ok(String::from_utf8(succeed(self.agent(config)?.arg("update"))?.stdout)?)
    }

    /// The peak of resident memory of a command, in MiB.
    fn peak(&self, command: &Command) -> anyhow::Result<f64> {
        let cost = self.programs.cost(command, &Surroundings::default())?;
        anyhow::ensure!(cost.code == Some(0), "{command:?} failed");
        Ok(cost.peak_mib)
    }

    fn get(&self) -> Command {
        let mut command = self.programs.reference();
        command.arg("get");
        command
    }
}

/// Files of a look that finds nothing.
const STATUS: &str = "/channel/status/slow.bundle";
const TIMESTAMP: &str = "/channel/metadata/timestamp.json";

pub(super) fn refresh(bench: &mut Bench) -> anyhow::Result<()> {
    let scene = Scene::new(bench)?;
    let config = scene.folder.join("agent.toml");
    let get = || {
        let mut command = scene.get();
        command.args([scene.web.address(), STATUS, TIMESTAMP]);
        command
    };
    let (ours, reference) = bench.interleaved(
        bench.scale().of(200, 2),
        || Ok(bench.time(|| scene.update(&config))?.0 * 1e3),
        || Ok(bench.time(|| succeed(&mut get()))?.0 * 1e3),
    )?;
    let row =
        |name, figure| Row::new(name, "ms", figure, &ours).against(figure, &reference).target(Target::AtMost(20.0));
    let rows = [row("endpoint/refresh", Figure::Median), row("endpoint/refresh/p99", Figure::Percentile(99.0))];
    rows.into_iter().for_each(|row| bench.row(row));

    let lines = [("clerestory-agent update", &ours), ("a process that gets the same files", &reference)];
    let picture = Picture::of_latencies("An endpoint that looks and finds nothing new", "milliseconds", &lines);
    bench.picture("endpoint-refresh", &picture)?;

    // Another address is another mirror, which may be slower, but not in bytes.
    let relay = Relay::before(scene.web.address())?;
    scene.configure(&config, relay.address(), "state")?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale().of(5, 1) {
        relay.take();
        let said = scene.update(&config)?;
        anyhow::ensure!(said.contains("nothing new"), "the refresh found something: {said}");
        ours.push(relay.take().all() as f64 / 1e3);
        let mut command = scene.get();
        succeed(command.args([relay.address(), STATUS, TIMESTAMP]))?;
        bare.push(relay.take().all() as f64 / 1e3);
    }
    let (ours, bare) = (Samples::new(ours)?, Samples::new(bare)?);
    let row = Row::new("endpoint/refresh/traffic", "KB", Figure::Max, &ours);
    bench.row(row.against(Figure::Max, &bare).target(Target::AtMost(3.0)));

    let mut agent = scene.agent(&config)?;
    memory(bench, &scene, "endpoint/refresh/memory", agent.arg("update"), &get())
}

pub(super) fn install(bench: &mut Bench) -> anyhow::Result<()> {
    let mut scene = Scene::new(bench)?;
    let config = scene.folder.join("agent.toml");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let to = scene.folder.join("bare");
    let runs = bench.scale().of(50, 2);
    for run in 0..=runs {
        scene.release(MEBIBYTE)?;
        let mut get = scene.get();
        get.arg("--to").arg(&to).args([scene.web.address(), &scene.artifact()?]);
        let measure_bare = |get: &mut Command| bench.time(|| succeed(get)).map(|(seconds, _)| seconds * 1e3);
        let first = if run % 2 == 0 { Some(measure_bare(&mut get)?) } else { None };
        let (seconds, said) = bench.time(|| scene.update(&config))?;
        anyhow::ensure!(said.contains("installed"), "the update did not install: {said}");
        let second = if first.is_none() { measure_bare(&mut get)? } else { first.unwrap_or_default() };
        // The first is the warm-up.
        if run > 0 {
            ours.push(seconds * 1e3);
            bare.push(second);
        }
    }
    let (ours, bare) = (Samples::new(ours)?, Samples::new(bare)?);
    let row = |name, figure| Row::new(name, "ms", figure, &ours).against(figure, &bare).target(Target::AtMost(50.0));
    let lines = [("clerestory-agent update", &ours), ("a process that gets and syncs the same file", &bare)];
    let picture = Picture::of_latencies("An endpoint that installs a release of 1 MiB", "milliseconds", &lines);
    bench.picture("endpoint-install", &picture)?;
    let rows = [row("endpoint/install", Figure::Median), row("endpoint/install/p99", Figure::Percentile(99.0))];
    rows.into_iter().for_each(|row| bench.row(row));

    scene.release(MEBIBYTE)?;
    let mut agent = scene.agent(&config)?;
    let mut get = scene.get();
    get.arg("--to").arg(&to).args([scene.web.address(), &scene.artifact()?]);
    memory(bench, &scene, "endpoint/install/memory", agent.arg("update"), &get)
}

/// One look each: a peak is what it is.
fn memory(
    bench: &mut Bench,
    scene: &Scene,
    name: &'static str,
    ours: &Command,
    reference: &Command,
) -> anyhow::Result<()> {
    let (ours, reference) = (Samples::one(scene.peak(ours)?), Samples::one(scene.peak(reference)?));
    bench.row(Row::new(name, "MiB", Figure::Max, &ours).against(Figure::Max, &reference));
    Ok(())
}

impl Scene {
    /// Where the newest artifact is served: `HASH.0-product` beside the release's bundle.
    fn artifact(&self) -> anyhow::Result<String> {
        let folder = format!("targets/products/{PRODUCT}/{}", self.releases);
        let path = self.publisher.folder().join(&folder);
        let entries = std::fs::read_dir(&path).with_context(|| format!("can't read `{}`", path.display()))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<std::io::Result<Vec<_>>>()?;
        let name = names.iter().find(|name| name.ends_with("-product")).context("the channel has no artifact")?;
        Ok(format!("/channel/{folder}/{name}"))
    }
}
