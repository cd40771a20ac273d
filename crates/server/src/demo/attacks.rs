//! Attacks, each tried for real and each refused with its reason.
//!
//! The attackers have what they would have: the vendor's keys and its log, the channel, one lying
//! witness. None of them has both organisations, or a quorum.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use attest::{Bundle, BundleEntry, Envelope, Lane, Release, Statement};
use stdx::{Clock as _, SystemClock, durable};
use tlog::{Checkpoint, EntryIndex, LogProof, SignedCheckpoint, TileSet, Tree, TreeEdge, cosign, leaf_hash};

use super::Options;
use super::path::{Shown, another_product};
use super::report::{Narrator, Report};
use super::stage::{CLOCK_PRODUCT, Stage, last_words};
use super::verify::Question;
use crate::command::block_on;
use crate::config::Config;
use crate::domain::Domain;
use crate::key_file;
use crate::prove::under_one_checkpoint;

/// Everything an attack needs.
struct Attacks<'a> {
    stage: &'a Stage,
    shown: &'a Shown,
    narrator: &'a Narrator,
    folder: PathBuf,
    offline: bool,
}

pub(super) fn run(
    stage: &Stage,
    options: &Options,
    shown: &Shown,
    narrator: &Narrator,
    report: &mut Report,
) -> anyhow::Result<()> {
    narrator.chapter("Attacks");
    let folder = stage.folder().join("attacks");
    durable::create_folder(&folder)?;
    let attacks = Attacks { stage, shown, narrator, folder, offline: options.offline };
    attacks.flipped_byte(report)?;
    attacks.encoded_again(report)?;
    attacks.replaced_product(report)?;
    attacks.vendor_alone(report)?;
    attacks.different_build(report)?;
    attacks.forked_log(report)?;
    attacks.no_quorum(report)?;
    attacks.rolled_back_channel(report)?;
    attacks.frozen_channel(report)?;
    attacks.flipped_bit_in_the_log(report)?;
    attacks.stopped(report)?;
    attacks.released_again(report)?;
    attacks.revoked(report)
}

impl Attacks<'_> {
    fn flipped_byte(&self, report: &mut Report) -> anyhow::Result<()> {
        let mut bytes = fs::read(&self.shown.artifact)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        let file = self.write("flipped", &bytes)?;
        self.must_not_verify(report, "one bit flipped in the artifact", self.question(&file, &self.shown.bundle()), "")
    }

    fn encoded_again(&self, report: &mut Report) -> anyhow::Result<()> {
        let value: serde_json::Value = serde_json::from_slice(&fs::read(self.shown.bundle())?)?;
        let file = self.write("pretty.bundle", &serde_json::to_vec_pretty(&value)?)?;
        let what = "the same evidence in another encoding";
        self.must_not_verify(report, what, self.question(&self.shown.artifact, &file), "")
    }

    fn replaced_product(&self, report: &mut Report) -> anyhow::Result<()> {
        let bundle = self.shown.bundle();
        let question = Question { product: another_product(), ..self.question(&self.shown.artifact, &bundle) };
        let what = "a genuine release in another product's place";
        self.must_not_verify(report, what, question, "other-product")
    }

    /// The vendor's own keys and log, used without the supervisor: it gets into the log, for
    /// everybody to see, and no further.
    fn vendor_alone(&self, report: &mut Report) -> anyhow::Result<()> {
        let bundle = Bundle::parse(&fs::read(self.shown.bundle())?)?;
        let config = Config::load(Path::new(&self.stage.config("vendor")))?;
        let forged = block_on(async {
            let domain = Domain::open(&config).await?;
            let key = key_file::load(Path::new(&self.stage.file("vendor/keys/release.key")))?;
            let genuine = release_of(&bundle)?;
            let entry = domain
                .stream("release/vendor")?
                .write(|position| {
                    let mut statement = genuine.clone();
                    statement.predicate.position = position;
                    statement.predicate.number = statement.predicate.number.next();
                    Ok(Envelope::sign(statement.encode()?, &[&key])?)
                })
                .await?;
            let rest = bundle.entries().iter().skip(1).cloned();
            let entries: Vec<BundleEntry> = std::iter::once(entry).chain(rest).collect();
            let url = domain.log_url(&"vendor.example/log".parse()?)?;
            tokio::task::block_in_place(|| under_one_checkpoint(&entries, &url, &domain.client))
        })?;
        let file = self.write("vendor-alone.bundle", &forged.to_bytes())?;
        let what = "a release that only the vendor signed, logged and witnessed";
        self.must_not_verify(report, what, self.question(&self.shown.artifact, &file), "signatures-missing")
    }

    fn different_build(&self, report: &mut Report) -> anyhow::Result<()> {
        let folder = self.stage.folder().join("products").join(CLOCK_PRODUCT);
        let model = self.stage.folder().join("products").join(&self.shown.product);
        super::path::copy_recipe(&model, &folder)?;
        let recipe = fs::read_to_string(folder.join(assembly::RECIPE_FILE))?;
        durable::write(&folder.join(assembly::RECIPE_FILE), clock_recipe(&recipe, &self.shown.product)?.as_bytes())?;
        // Nobody else publishes what tells the time.
        let path = folder.join(assembly::LOCK_FILE);
        let lock = assembly::Lock::parse(&fs::read_to_string(&path)?, &path)?;
        durable::write(&path, assembly::Lock { published: Vec::new(), ..lock }.to_text().as_bytes())?;
        let (config, folder) = (self.stage.config("vendor"), folder.display().to_string());
        let mut arguments = vec!["assembly", "build", "--config", &config, &folder];
        if self.offline {
            arguments.push("--offline");
        }
        let output = self.stage.try_clerestory(&arguments)?;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() || said.get("outcome").and_then(|it| it.as_str()) != Some("NOT the same") {
            bail!("a build that differs was not found out: {}", last_words(&output));
        }
        let statement = said.get("statement").and_then(|it| it.as_str()).unwrap_or_default();
        self.refused(
            report,
            "a build that writes down the time",
            &format!("the rebuild differs; the supervisor signed and logged mismatch {statement}"),
            format!("clerestory log entries --config {config} --log supervisor.example/log"),
        );
        Ok(())
    }

    /// The vendor's log key and one witness, as many as may lie, sign another history.
    fn forked_log(&self, report: &mut Report) -> anyhow::Result<()> {
        let bundle = Bundle::parse(&fs::read(self.shown.bundle())?)?;
        let log = key_file::load(Path::new(&self.stage.file("vendor/keys/log.key")))?;
        let witness = key_file::load(Path::new(&self.stage.file("w1/keys/witness.key")))?;
        let (mut edge, mut tiles) = (TreeEdge::new(), TileSet::new());
        for entry in bundle.entries() {
            edge.append(&leaf_hash(&entry.envelope.to_bytes()), |tile, bytes| tiles.insert(tile, bytes.to_vec()));
        }
        for (tile, bytes) in edge.partial_tiles() {
            tiles.insert(tile, bytes.to_vec());
        }
        let checkpoint = Checkpoint::new(log.verifier().name().as_str().parse()?, edge.head())?;
        let line = cosign(&checkpoint, &witness, SystemClock::new().now())?;
        let mut signed = SignedCheckpoint::sign(checkpoint, &log)?;
        signed.merge([line])?;
        let mut entries = Vec::new();
        for (index, entry) in (0..).map(EntryIndex::new).zip(bundle.entries()) {
            let (_, path) = Tree::new(&tiles, edge.head()).inclusion(index)?;
            let proof = LogProof::new(index, path, signed.clone());
            entries.push(BundleEntry { envelope: entry.envelope.clone(), proof });
        }
        let file = self.write("fork.bundle", &Bundle::new(entries)?.to_bytes())?;
        let what = "a forked log, signed by its own key and cosigned by one lying witness";
        self.must_not_verify(report, what, self.question(&self.shown.artifact, &file), "checkpoint")
    }

    fn no_quorum(&self, report: &mut Report) -> anyhow::Result<()> {
        for witness in ["w3", "w4"] {
            self.stage.stop(witness)?;
        }
        let config = self.stage.config("supervisor");
        let output = self.stage.try_clerestory(&["status", "publish", "--config", &config])?;
        for witness in ["w3", "w4"] {
            self.stage.start(witness)?;
        }
        if output.status.code() != Some(75) {
            bail!("two of four witnesses were enough: {}", last_words(&output));
        }
        // What was signed meanwhile is logged now that a quorum is back.
        self.stage.clerestory(&["status", "publish", "--config", &config])?;
        let command = format!("clerestory status publish --config {config}");
        self.refused(report, "publishing with two of four witnesses", &last_words(&output), command);
        Ok(())
    }

    /// The channel's files of an hour ago, under the same address.
    fn rolled_back_channel(&self, report: &mut Report) -> anyhow::Result<()> {
        let channel = self.stage.folder().join("vendor/channel");
        let (old, new) = (self.folder.join("old-channel"), self.folder.join("new-channel"));
        // The vendor's server, which is honest, must have nothing more to put into it.
        self.stage.wait_until_carried()?;
        copy_folder(&channel, &old)?;
        self.stage.clerestory(&["status", "publish", "--config", &self.stage.config("supervisor")])?;
        self.stage.wait_until_carried()?;
        self.stage.clerestory(&["release", "freshen", "--config", &self.stage.config("vendor")])?;
        self.shown.endpoint.update()?;
        durable::rename(&channel, &new)?;
        durable::rename(&old, &channel)?;
        let refused = self.shown.endpoint.must_refuse(&[]);
        durable::rename(&channel, &old)?;
        durable::rename(&new, &channel)?;
        let reason = refused.context("the channel was rolled back")?;
        self.refused(
            report,
            "the channel of before, under the same address",
            &reason,
            self.shown.endpoint.update_command(),
        );
        Ok(())
    }

    /// Nothing new for three days: the endpoint keeps what it has and says so.
    fn frozen_channel(&self, report: &mut Report) -> anyhow::Result<()> {
        let reason = self.shown.endpoint.must_refuse(&["faketime", "-f", "+3d"]).context("the channel was frozen")?;
        self.shown.endpoint.must_have_installed(&self.shown.product)?;
        let outcome = format!("{reason}; what is installed stays");
        self.refused(
            report,
            "a channel that stands still for three days",
            &outcome,
            self.shown.endpoint.status_command(),
        );
        Ok(())
    }

    fn flipped_bit_in_the_log(&self, report: &mut Report) -> anyhow::Result<()> {
        self.stage.stop("vendor")?;
        let entries = self.stage.folder().join("vendor/log/objects/tile/entries");
        let file = first_file(&entries)?;
        let genuine = fs::read(&file)?;
        let mut bytes = genuine.clone();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        durable::write(&file, &bytes)?;
        let config = self.stage.config("vendor");
        let output = self.stage.try_clerestory(&["fsck", "--config", &config])?;
        durable::write(&file, &genuine)?;
        self.stage.start("vendor")?;
        if output.status.code() != Some(1) {
            bail!("a flipped bit in the log was not found");
        }
        let command = format!("clerestory fsck --config {config}");
        self.refused(report, "one bit flipped in the log's store", &last_words(&output), command);
        Ok(())
    }

    fn stopped(&self, report: &mut Report) -> anyhow::Result<()> {
        let (supervisor, vendor) = (self.stage.config("supervisor"), self.stage.config("vendor"));
        let product = self.shown.product.as_str();
        self.stage.clerestory(&[
            "status",
            "stop",
            "--config",
            &supervisor,
            "--product",
            product,
            "--reason",
            "the demo looks into it",
        ])?;
        let output =
            self.stage.try_clerestory(&["release", "publish", "--config", &vendor, product, &self.shown.version])?;
        self.stage.clerestory(&[
            "status",
            "lift",
            "--config",
            &supervisor,
            "--product",
            product,
            "--reason",
            "nothing was found",
        ])?;
        if output.status.success() || !last_words(&output).contains("a stop is in force") {
            bail!("a stopped product: {}", last_words(&output));
        }
        let command = format!("clerestory status show --config {supervisor}");
        self.refused(report, "a release while the supervisor has stopped the product", &last_words(&output), command);
        Ok(())
    }

    /// Approvals were given for one release: whoever holds the vendor's keys can't use them again.
    fn released_again(&self, report: &mut Report) -> anyhow::Result<()> {
        let vendor = self.stage.config("vendor");
        let arguments = ["release", "publish", "--config", &vendor, &self.shown.product, &self.shown.version];
        // With the bundle at hand the command would only publish again what was released.
        let (bundle, aside) = (self.shown.bundle(), self.folder.join("release.bundle"));
        durable::rename(&bundle, &aside)?;
        let output = self.stage.try_clerestory(&arguments);
        durable::rename(&aside, &bundle)?;
        let output = output?;
        if output.status.success() || !last_words(&output).contains("was released before") {
            bail!("an old result was released again: {}", last_words(&output));
        }
        let command = format!("clerestory {}", arguments.join(" "));
        self.refused(report, "an old result released again on its old approvals", &last_words(&output), command);
        Ok(())
    }

    fn revoked(&self, report: &mut Report) -> anyhow::Result<()> {
        let supervisor = self.stage.config("supervisor");
        let arguments = [
            "status",
            "revoke",
            "--config",
            &supervisor,
            &self.shown.product,
            &self.shown.sha256,
            "--reason",
            "the demo takes it back",
        ];
        self.stage.clerestory(&arguments)?;
        self.stage.clerestory(&["release", "freshen", "--config", &self.stage.config("vendor")])?;
        let what = "a release that the supervisor revoked";
        self.must_not_verify(report, what, self.question(&self.shown.artifact, &self.shown.bundle()), "revoked")?;
        let reason = self.shown.endpoint.after_revocation(&self.shown.product)?;
        self.refused(report, "an endpoint that has it installed", &reason, self.shown.endpoint.status_command());
        Ok(())
    }

    fn question<'a>(&'a self, file: &'a Path, bundle: &'a Path) -> Question<'a> {
        Question { file, bundle, product: &self.shown.product, lane: Lane::Slow }
    }

    fn must_not_verify(
        &self,
        report: &mut Report,
        what: &str,
        question: Question<'_>,
        code: &str,
    ) -> anyhow::Result<()> {
        let said = question.ask(self.stage)?;
        if said.verified {
            bail!("{what}: accepted");
        }
        if !said.reason.starts_with(code) {
            bail!("{what}: refused for another reason: {}", said.reason);
        }
        self.refused(report, what, &said.reason, question.command(self.stage));
        Ok(())
    }

    fn refused(&self, report: &mut Report, what: &str, reason: &str, command: String) {
        self.narrator.refused(report, what, reason, command);
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        durable::write(&path, bytes)?;
        Ok(path)
    }
}

fn release_of(bundle: &Bundle) -> anyhow::Result<Statement<Release>> {
    let entry = bundle.entries().first().context("the bundle is empty")?;
    Ok(Statement::decode(entry.envelope.payload())?)
}

/// The same source and environment, with a script that writes down the time.
fn clock_recipe(recipe: &str, product: &str) -> anyhow::Result<String> {
    let (before, rest) = recipe.split_once("[build]").context("the recipe has no [build]")?;
    let limits = rest.find("[limits]").and_then(|at| rest.get(at..)).unwrap_or_default();
    let head = before.replacen(&format!("product = \"{product}\""), &format!("product = \"{CLOCK_PRODUCT}\""), 1);
    Ok(format!(
        "{head}[build]\nscript = \"\"\"\ndate -u '+built on %Y-%m-%dT%H:%M:%SZ' > \"$BUILD/time.txt\"\n\"\"\"\n\n\
         [[output]]\nname = \"time.txt\"\npath = \"time.txt\"\n\n{limits}"
    ))
}

fn first_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|it| it.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            return first_file(&path);
        }
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("`{}` is empty", folder.display())
}

/// Copies a folder and all below it.
pub(super) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    durable::create_folder(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
