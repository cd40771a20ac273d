//! What it takes to check a release offline.

use std::hint::black_box;
use std::path::PathBuf;

use anyhow::Context as _;
use attest::{Bundle, Lane, Ring};
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, durable};
use testkit::{PRODUCT, World};
use tlog::{KeyKind, Signature, SignerKey};
use verify::{Evidence, Request};

use crate::bench::Bench;
use crate::picture::Picture;
use crate::programs::succeed;
use crate::row::{Figure, Row, Target};

/// Entries in the logs before and after the release: a path of a busy year's length.
const FILLER: usize = 100_000;
const MEBIBYTE: usize = 1 << 20;

/// A release with its status in one bundle, in logs of some size.
struct Sample {
    world: World,
    bundle: Vec<u8>,
}

impl Sample {
    fn new(content: &[u8], filler: usize) -> anyhow::Result<Self> {
        let mut world = World::new();
        world.clock.set(SystemClock::new().now());
        let fill = |world: &mut World| {
            for number in 0..filler {
                world.vendor_log.append(number.to_le_bytes().to_vec());
                world.supervisor_log.append(number.to_le_bytes().to_vec());
            }
        };
        fill(&mut world);
        let released = world.release(PRODUCT, "1.0", &[("product", content)]);
        fill(&mut world);
        let status = world.status();
        let entries = &released;
        let bundle = world.release_bundle(&entries.build, &entries.approvals, &entries.release).with(&status)?;
        Ok(Self { world, bundle: bundle.to_bytes() })
    }

    /// From bytes to an approval, as `clerestory-verify` and the agent do it.
    fn approve(&self) -> anyhow::Result<()> {
        let (policy, at) = (self.world.policy(), self.world.moment());
        let bundle = Bundle::parse(black_box(&self.bundle))?;
        let evidence = Evidence::open(policy, &bundle)?;
        let status = policy.current_status(&evidence, Lane::Slow, None, &at)?;
        let product = PRODUCT.parse()?;
        let request = Request { product: &product, ring: Ring::All, status: &status, at: &at, installed: None };
        black_box(policy.approve(&evidence, &request)?);
        Ok(())
    }
}

/// What the bundle's signatures and hashes cost by themselves: as many signatures over messages
/// of the same length, and as many bytes hashed.
struct Bare {
    key: SignerKey,
    messages: Vec<(Vec<u8>, Signature)>,
    hashed: Vec<Vec<u8>>,
}

impl Bare {
    fn of(bundle: &Bundle) -> anyhow::Result<Self> {
        let key = SignerKey::generate("bench.example/bare".parse()?, KeyKind::Ed25519, &SystemEntropy)?;
        let mut lengths = Vec::new();
        let mut hashed = Vec::new();
        for entry in bundle.entries() {
            // The statement's type is part of what is signed; its length is all the same here.
            lengths.extend(entry.envelope.signatures().iter().map(|_| entry.envelope.payload().len() + 48));
            hashed.push(entry.envelope.to_bytes());
            // Two hashes of 32 bytes and a prefix for each step of a path.
            hashed.extend(entry.proof.path().hashes().iter().map(|_| vec![0; 65]));
        }
        for checkpoint in bundle.checkpoints() {
            let length = checkpoint.note().text().len();
            // A cosignature is over two more lines.
            lengths.extend(checkpoint.signatures().iter().map(|_| length + 32));
        }
        let sign = |length: usize| (vec![7; length], key.sign(&vec![7; length]));
        Ok(Self { messages: lengths.into_iter().map(sign).collect(), hashed, key })
    }

    fn run(&self) -> anyhow::Result<()> {
        for (message, signature) in &self.messages {
            self.key.verifier().verify(black_box(message), signature)?;
        }
        for bytes in &self.hashed {
            black_box(Digest::of(black_box(bytes)));
        }
        Ok(())
    }
}

pub(super) fn bundle(bench: &mut Bench) -> anyhow::Result<()> {
    let sample = Sample::new(b"content", bench.scale().of(FILLER, 10))?;
    let bundle = Bundle::parse(&sample.bundle)?;
    let bare = Bare::of(&bundle)?;
    bench.say(&format!(
        "{} bytes, {} statements, {} signatures",
        sample.bundle.len(),
        bundle.entries().len(),
        bare.messages.len()
    ));
    let milliseconds = |work: &dyn Fn() -> anyhow::Result<()>| Ok(bench.time(work)?.0 * 1e3);
    let (ours, reference) = bench.interleaved(
        bench.scale().of(2000, 2),
        || milliseconds(&|| sample.approve()),
        || milliseconds(&|| bare.run()),
    )?;
    let lines = [("from bytes to approval", &ours), ("bare signatures and hashes", &reference)];
    let picture = Picture::of_latencies("Verifying a release's whole evidence", "milliseconds", &lines);
    bench.picture("verify-bundle", &picture)?;
    let row = |name, figure, ours, reference| Row::new(name, "ms", figure, ours).against(figure, reference);
    bench.row(row("verify/bundle", Figure::Median, &ours, &reference).target(Target::AtMost(1.0)));
    bench.row(row("verify/bundle/p99", Figure::Percentile(99.0), &ours, &reference).target(Target::AtMost(1.0)));
    Ok(())
}

pub(super) fn process(bench: &mut Bench) -> anyhow::Result<()> {
    let content: Vec<u8> = (0..MEBIBYTE).map(|index| index.to_le_bytes().iter().fold(31, |a, b| a ^ b)).collect();
    let sample = Sample::new(&content, bench.scale().of(FILLER, 10))?;
    let write = |name: &str, bytes: &[u8]| -> anyhow::Result<PathBuf> {
        let path = bench.folder().join(name);
        durable::write(&path, bytes).with_context(|| format!("can't write `{}`", path.display()))?;
        Ok(path)
    };
    let (file, evidence) = (write("product", &content)?, write("release.bundle", &sample.bundle)?);
    let policy = write("1.envelope", &sample.world.genesis().to_bytes())?;
    let programs = bench.programs()?;
    let genesis = sample.world.genesis().id().to_string();
    let ours = || {
        let mut command = programs.command("clerestory-verify")?;
        command.arg(&file).args(["--product", PRODUCT]).arg("--bundle").arg(&evidence);
        command.arg("--policy").arg(&policy).args(["--genesis", &genesis]);
        Ok(bench.time(|| succeed(&mut command))?.0 * 1e3)
    };
    let reference = || {
        let mut command = programs.reference();
        Ok(bench.time(|| succeed(command.arg("hash").arg(&file)))?.0 * 1e3)
    };
    let (ours, reference) = bench.interleaved(bench.scale().of(200, 2), ours, reference)?;
    let row =
        |name, figure| Row::new(name, "ms", figure, &ours).against(figure, &reference).target(Target::AtMost(10.0));
    let (median, slow) = (row("verify/process", Figure::Median), row("verify/process/p99", Figure::Percentile(99.0)));
    bench.row(median);
    bench.row(slow);
    Ok(())
}
