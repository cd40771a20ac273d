//! The assembly line of two organisations and four witnesses, each a process of its own.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use server::demo::{self, Narrator, Options, Stage};
use stdx::durable;

use super::{QUICK_PRODUCT, products};
use crate::bench::Bench;
use crate::programs::succeed;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

/// What the supervisor writes down when its build has ended.
const SECOND_BUILD_ENDED: &str = "built; comparing";
/// How often its log is looked at: the resolution of the measurement.
const LOOK: Duration = Duration::from_millis(1);

/// One product on the line.
struct Line<'bench> {
    bench: &'bench Bench,
    stage: Stage,
    options: Options,
    narrator: Narrator,
    recipe: PathBuf,
}

pub(crate) fn line(bench: &mut Bench) -> anyhow::Result<()> {
    let line = Line::set(bench)?;
    let (ended, bare_files, folder) = line.published()?;
    let (ours, bare) = line.unchanged(&folder)?;
    drop(line);
    let row = Row::new("assembly/line/unchanged", "ms", Figure::Median, &ours).against(Figure::Median, &bare);
    bench.row(row.target(Target::AtMost(200.0)));
    let row = Row::new("assembly/line/published", "ms", Figure::Median, &ended).against(Figure::Median, &bare_files);
    bench.row(row.target(Target::AtMost(1000.0)));
    Ok(())
}

impl<'bench> Line<'bench> {
    fn set(bench: &'bench Bench) -> anyhow::Result<Self> {
        let options = Options {
            folder: bench.cache().to_owned(),
            products: products(),
            names: vec![QUICK_PRODUCT.to_owned()],
            offline: false,
        };
        let narrator = Narrator::new();
        let stage = Stage::set(&bench.programs()?.path("clerestory")?, &options, &narrator)?;
        let recipe = stage.folder().join("products").join(QUICK_PRODUCT);
        demo::copy_recipe(&options.products.join(QUICK_PRODUCT), &recipe)?;
        Ok(Self { bench, stage, options, narrator, recipe })
    }

    /// Builds a recipe that differs from each before it by a comment; gives the evidence's folder.
    fn built_anew(&self, run: usize) -> anyhow::Result<PathBuf> {
        let path = self.recipe.join(assembly::RECIPE_FILE);
        let text = std::fs::read_to_string(&path)?;
        durable::write(&path, format!("{text}# {run}\n").as_bytes())?;
        let said = demo::build_or_pin(&self.stage, &self.options, &self.recipe, &self.narrator)?;
        anyhow::ensure!(!is_unchanged(&said), "a changed recipe was not built");
        Ok(PathBuf::from(said.get("folder").and_then(Value::as_str).context("no folder of evidence")?))
    }

    /// The same command again; against a process that reads and hashes what must be looked at.
    fn unchanged(&self, folder: &Path) -> anyhow::Result<(Samples, Samples)> {
        let (config, recipe) = (self.stage.config("vendor"), self.recipe.display().to_string());
        let mut files = vec![self.recipe.join(assembly::RECIPE_FILE), self.recipe.join(assembly::LOCK_FILE)];
        files.extend(["record.json", "result.bundle"].map(|name| folder.join(name)));
        for output in std::fs::read_dir(folder.join("outputs"))? {
            files.push(output?.path());
        }
        let programs = self.bench.programs()?;
        self.bench.interleaved(
            self.bench.scale().of(50, 2),
            || {
                let arguments = ["assembly", "build", "--config", &config, &recipe];
                let (seconds, said) = self.bench.time(|| self.stage.clerestory(&arguments))?;
                anyhow::ensure!(is_unchanged(&said), "something was built again: {said}");
                Ok(seconds * 1e3)
            },
            || {
                let mut command = programs.reference();
                Ok(self.bench.time(|| succeed(command.arg("hash").args(&files)))?.0 * 1e3)
            },
        )
    }

    /// From the moment at which the supervisor's build ended to the moment at which the command
    /// that published the release returned. In between: comparison, the supervisor's record, the
    /// result of both, an approval of each organisation's person, the release of both, each of them
    /// logged and cosigned, and the channel. People approve at once, at the same time. The reference
    /// writes what is new in the channel, and five statements, into synced files. Gives the folder
    /// of the evidence, too.
    fn published(&self) -> anyhow::Result<(Samples, Samples, PathBuf)> {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        let mut last = PathBuf::new();
        let runs = self.bench.scale().of(5, 1);
        for run in 1..=runs {
            let (ended, folder) = self.watched(run)?;
            let built = self.bench.seconds();
            self.approve(&folder)?;
            let approved = self.bench.seconds();
            let version = folder.file_name().and_then(|name| name.to_str()).context("the folder is a version")?;
            let config = self.stage.config("vendor");
            self.stage.clerestory(&["release", "publish", "--config", &config, QUICK_PRODUCT, version])?;
            let published = self.bench.seconds();
            self.bench.say(&format!(
                "run {run}: {:.0} ms to the result, {:.0} ms to the approvals, {:.0} ms to the channel",
                (built - ended) * 1e3,
                (approved - built) * 1e3,
                (published - approved) * 1e3
            ));
            ours.push((published - ended) * 1e3);
            bare.push(self.bare(&folder)?);
            last = folder;
        }
        Ok((Samples::new(ours)?, Samples::new(bare)?, last))
    }

    /// Builds, and gives the moment at which the supervisor's build ended.
    fn watched(&self, run: usize) -> anyhow::Result<(f64, PathBuf)> {
        let mut log = File::open(self.stage.file("supervisor.log"))?;
        log.seek(SeekFrom::End(0))?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ended = scope.spawn(|| {
                let mut text = String::new();
                loop {
                    log.read_to_string(&mut text)?;
                    if text.contains(SECOND_BUILD_ENDED) {
                        return Ok(self.bench.seconds());
                    }
                    anyhow::ensure!(!over.load(Ordering::SeqCst), "the supervisor wrote down no end of its build");
                    std::thread::sleep(LOOK);
                }
            });
            let built = self.built_anew(run);
            over.store(true, Ordering::SeqCst);
            let ended = ended.join().map_err(|_| anyhow::anyhow!("the watch broke off"))?;
            // A build that failed says more than what is missing in a log.
            built.and_then(|folder| Ok((ended?, folder)))
        })
    }

    fn approve(&self, folder: &Path) -> anyhow::Result<()> {
        let result = folder.join("result.bundle").display().to_string();
        let approve = |party: &str| {
            let key = self.stage.file(&format!("{party}/keys/approver.key"));
            let out = folder.join("approvals").join(format!("{party}.bundle")).display().to_string();
            let config = self.stage.config(party);
            let arguments =
                ["release", "approve", "--config", &config, "--key", &key, "--result", &result, "--out", &out];
            self.stage.clerestory(&arguments).map(drop)
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| approve("supervisor"));
            approve("vendor")?;
            other.join().map_err(|_| anyhow::anyhow!("an approval broke off"))?
        })
    }

    fn bare(&self, folder: &Path) -> anyhow::Result<f64> {
        let mut files: Vec<Vec<u8>> = Vec::new();
        for output in std::fs::read_dir(folder.join("outputs"))? {
            files.push(std::fs::read(output?.path())?);
        }
        files.push(std::fs::read(folder.join("release.bundle"))?);
        // Targets, snapshot, timestamp and the list of releases; and five statements.
        files.extend(std::iter::repeat_n(vec![7; 1024], 4 + 5));
        let (seconds, ()) = self.bench.time(|| {
            for (number, bytes) in files.iter().enumerate() {
                durable::write(&self.bench.folder().join(format!("bare-{number}")), bytes)?;
            }
            Ok(())
        })?;
        Ok(seconds * 1e3)
    }
}

fn is_unchanged(said: &Value) -> bool {
    said.get("outcome").and_then(Value::as_str).is_some_and(|outcome| outcome.starts_with("nothing changed"))
}
