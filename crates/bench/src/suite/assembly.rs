//! What building costs: the sandbox, a build of what is built already, and the way of a result to
//! endpoints.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use assembly::{
    Asking, Builder, Conditions, ContentStore, Depot, Environment, Event, Fetched, InputsError, Product, Progress,
    Resolved, Transport, pin,
};
use sandbox::{Cancel, Job, Sandbox};
use stdx::durable;

use crate::bench::{Bench, Scale};
use crate::programs::succeed;
use crate::row::{Figure, Row, Target};

mod line;

pub(super) use line::line;

/// Real products: many short processes of a C package's build, and a compiler with all cores.
const PRODUCTS: [&str; 2] = ["cjson", "hexyl"];
/// One whose build is short.
const QUICK_PRODUCT: &str = "pysigma";

/// Where the recipes lie.
fn products() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../products")
}

/// The same job in the sandbox and bare, in turn.
pub(super) fn sandbox(bench: &mut Bench) -> anyhow::Result<()> {
    let quick = bench.scale() == Scale::Quick;
    let names: &[&str] = if quick { &[QUICK_PRODUCT] } else { &PRODUCTS };
    for name in names {
        measure(bench, name)?;
    }
    Ok(())
}

fn measure(bench: &mut Bench, name: &str) -> anyhow::Result<()> {
    let product = Prepared::new(bench, name)?;
    let builder =
        Builder { depot: &product.depot, sandbox: Sandbox::beside_this_program()?, cancel: Cancel::default() };
    let work = bench.folder().join(name);
    durable::create_folder(&work)?;
    let (fetched, environment) = (&product.fetched, &product.environment);
    let job = builder.job(&product.product, fetched, environment, &Conditions::plain(), &work)?;
    let file = work.join("job.json");
    durable::write(&file, &serde_json::to_vec(&job)?)?;
    let programs = bench.programs()?;
    let mut run = 0;
    let (ours, bare) = bench.interleaved(
        bench.scale().of(5, 1),
        || {
            run += 1;
            let seconds = bench.time(|| sandboxed(&builder, &job))?.0;
            bench.say(&format!("{name}, run {run}: {seconds:.2} s in the sandbox"));
            Ok(seconds)
        },
        || {
            let mut command = programs.reference();
            let seconds = bench.time(|| succeed(command.arg("bare").arg(&file)))?.0;
            bench.say(&format!("{name}: {seconds:.2} s bare"));
            Ok(seconds)
        },
    )?;
    let row = Row::new(format!("assembly/sandbox/{name}"), "s", Figure::Median, &ours).against(Figure::Median, &bare);
    bench.row(row.target(Target::RatioAtMost(1.05)));
    Ok(())
}

fn sandboxed(builder: &Builder<'_>, job: &Job) -> anyhow::Result<()> {
    let output = job.output.as_ref().context("the job has outputs")?;
    if output.to.exists() {
        std::fs::remove_dir_all(&output.to)?;
    }
    let outcome = builder.sandbox.run(job, &Cancel::default(), &mut |_| {})?;
    let said = String::from_utf8_lossy(&outcome.stderr.tail).into_owned();
    anyhow::ensure!(outcome.status.is_success(), "the build failed: {}\n{said}", outcome.status);
    Ok(())
}

/// A product with everything that goes into it, at hand.
struct Prepared {
    depot: Depot,
    product: Product,
    fetched: Fetched,
    environment: Environment,
}

impl Prepared {
    fn new(bench: &Bench, name: &str) -> anyhow::Result<Self> {
        let cache = bench.cache();
        let downloads = ContentStore::create(&cache.join("downloads"))?;
        // The vendor's own: what it prepares is there for the line.
        let depot = Depot::create(&cache.join("depots/vendor"), Transport::Shared(downloads))?;
        let recipe = bench.folder().join("recipes").join(name);
        server::demo::copy_recipe(&products().join(name), &recipe)?;
        let said = Said(bench);
        let mut product = Product::open(&recipe)?;
        let resolved = match Resolved::ask(&depot, &product, Asking::Upstream, &said) {
            // A Debian pin has left the archive since the lock was made.
            Err(InputsError::Superseded { .. }) => {
                bench.say("the lock is out of date: pinning anew");
                pin(&depot, &recipe, &said)?;
                product = Product::open(&recipe)?;
                Resolved::ask(&depot, &product, Asking::Upstream, &said)?
            }
            other => other?,
        };
        let fetched = Fetched::fetch(&depot, &product, &resolved, None, Asking::Upstream, &said)?;
        let environment = Environment::prepare(&depot, &product.recipe.environment, &fetched, &said)?;
        Ok(Self { depot, product, fetched, environment })
    }
}

/// Says what takes long.
struct Said<'bench>(&'bench Bench);

impl Progress for Said<'_> {
    fn event(&self, event: Event) {
        match event {
            Event::Resolving { index, packages } => self.0.say(&format!("asking {index} for {packages} packages")),
            Event::Fetching { index, missing } => self.0.say(&format!("fetching {missing} from {index}")),
            _ => {}
        }
    }
}
