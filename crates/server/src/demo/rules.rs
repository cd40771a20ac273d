//! Detection rules: real ones, from a tree to the endpoints that use them, ring by ring, and back.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use attest::{Lane, Ring};
use detection::BUNDLE_FILE;
use serde_json::Value;
use stdx::{Clock as _, Digest, durable};

use super::Options;
use super::endpoint::{Endpoint, Wanted};
use super::guard::{Guard, Told};
use super::path::approve;
use super::report::{Narrator, Report};
use super::stage::{RULES_PRODUCT, Stage, last_words};
use super::trees::{FALSE_ALARM, GREETING, NEW, OLD, Trees};
use super::verify::Question;

/// Everything that the chapter needs.
struct Rules<'a> {
    stage: &'a Stage,
    narrator: &'a Narrator,
    trees: Trees,
}

/// The endpoints: two go first, one has agreed to nothing.
struct Hosts {
    canary: Guard,
    early: Guard,
    office: Guard,
}

impl Hosts {
    fn all(&self) -> [&Guard; 3] {
        [&self.canary, &self.early, &self.office]
    }
}

pub(super) fn run(stage: &Stage, options: &Options, narrator: &Narrator, report: &mut Report) -> anyhow::Result<()> {
    narrator.chapter("Detection rules: in seconds, and without a person");
    let trees = Trees::fetch(stage, options)?;
    narrator.say(&format!("{RULES_PRODUCT} {OLD} and {NEW}, as upstream published them; {}", trees.samples()));
    let rules = Rules { stage, narrator, trees };
    rules.first(report)?;
    let hosts = rules.hosts()?;
    rules.must_scan(&hosts.office, Verdict::Clean)?;
    rules.next(&hosts, report)?;
    rules.found(&hosts.office, report)?;
    rules.refused(report)?;
    rules.revoked(&hosts, report)
}

impl Rules<'_> {
    /// The first release: there is nothing to compare it with, so people look at it.
    fn first(&self, report: &mut Report) -> anyhow::Result<()> {
        let tree = self.trees.tree(OLD);
        let data = self.stage.file("vendor");
        let checked = self.stage.try_clerestory(&["rules", "check", "--data", &data, &tree])?;
        let checked: Value = serde_json::from_slice(&checked.stdout).context("what `rules check` says")?;
        let number = |key: &str| checked.get(key).and_then(Value::as_u64).unwrap_or_default();
        let (rules, bytes) = (number("rules"), number("bytes"));
        for file in list(&checked, "rejected") {
            let what = format!("{} rejected as {}: {}", text(file, "file"), text(file, "cause"), text(file, "detail"));
            self.narrator.say(&format!("  {what}"));
        }
        let (said, _) = self.must_not_push(&tree, OLD, "first-release")?;
        self.narrator
            .say(&format!("{OLD}: {rules} rules, assembled twice to the same {bytes} bytes; people must look, for"));
        for reason in list(&said, "reasons") {
            self.narrator.say(&format!("  {}", reason_of(reason)));
        }
        let folder = self.build(OLD);
        approve(self.stage, &folder, "the first rules of this product")?;
        let config = self.stage.config("vendor");
        self.stage.clerestory(&["release", "publish", "--config", &config, RULES_PRODUCT, OLD])?;
        self.narrator.say(&format!("{OLD}: approved by two people, signed by both, witnessed, published"));
        report.proven(
            &format!("{RULES_PRODUCT} {OLD} was assembled twice, each by a confined scanner of its own"),
            format!("{rules} rules, {bytes} bytes, the same; approved by two people"),
            format!("clerestory release show {}", folder.join("result.bundle").display()),
        );
        Ok(())
    }

    fn hosts(&self) -> anyhow::Result<Hosts> {
        let supervisor = self.stage.url("supervisor")?;
        let reports = format!("\n[canary]\nsupervisor = \"{supervisor}\"\n");
        let hosts = Hosts {
            canary: self.host("canary", Ring::Canary, &reports)?,
            early: self.host("early", Ring::Early, &reports)?,
            office: self.host("office", Ring::All, "")?,
        };
        for host in hosts.all() {
            host.wait(self.stage, Told { event: "installed", words: "#1 " })?;
        }
        self.narrator.say("three endpoints guard a folder each; the owners of two agreed to go first");
        Ok(hosts)
    }

    fn host(&self, name: &str, ring: Ring, reports: &str) -> anyhow::Result<Guard> {
        let inbox = self.stage.folder().join(name).join("inbox");
        durable::create_folder(&inbox)?;
        let sections = format!("\n[scan]\nrules = \"{RULES_PRODUCT}\"\nfolders = [\"{}\"]\n{reports}", inbox.display());
        let products = [RULES_PRODUCT.to_owned()];
        let endpoint = Endpoint::set(self.stage, &Wanted { name, products: &products, ring, sections })?;
        if !reports.is_empty() {
            let agreed = endpoint.must(&["canary", "agree", name])?;
            let config = self.stage.config("supervisor");
            let enrolled = self.stage.clerestory(&["rules", "enrol", "--config", &config, &text(&agreed, "file")])?;
            endpoint.must(&["canary", "enrolled", &text(&enrolled, "statement")])?;
        }
        Guard::start(endpoint)
    }

    /// What upstream changed, as the fast lane carries it: canaries, then more, then everyone.
    fn next(&self, hosts: &Hosts, report: &mut Report) -> anyhow::Result<()> {
        let (old, new, data) = (self.trees.tree(OLD), self.trees.tree(NEW), self.stage.file("vendor"));
        let arguments = ["rules", "diff", "--data", &data, &old, &new];
        let diff = self.stage.clerestory(&arguments)?;
        let changed: Vec<_> = list(&diff, "changed").iter().map(|it| text(it, "rule")).collect();
        let fires: Vec<_> =
            list(&diff, "fires").iter().map(|it| format!("{} on {}", text(it, "rule"), text(it, "sample"))).collect();
        self.narrator.say(&format!("{NEW} changes {}; what fires now: {}", changed.join(", "), fires.join(", ")));
        let begin = self.narrator.clock().monotonic();
        let config = self.stage.config("vendor");
        let said = self.stage.clerestory(&["rules", "push", "--config", &config, &new, NEW])?;
        let released = self.since(begin);
        let patch = list(&said, "patches").first().and_then(Value::as_u64).context("the release has no patch")?;
        let evidence = said.get("bundle_bytes").and_then(Value::as_u64).unwrap_or_default();
        self.narrator.say(&format!(
            "{NEW}: logged, assembled by both, signed by both, released to canaries in {released:.1} s; a patch of \
             {patch} bytes, {evidence} of evidence"
        ));
        hosts.canary.wait(self.stage, Told { event: "installed", words: "#2 " })?;
        let active = self.since(begin);
        self.narrator.say("the canary has it: patched, verified, compiled and tested in a confined child");
        report.proven(
            &format!("{RULES_PRODUCT} {NEW}: from a tree to a running canary in {active:.1} s, without a person"),
            format!("a patch of {patch} bytes and {evidence} bytes of evidence"),
            hosts.canary.endpoint.status_command(),
        );
        self.verified(report)?;
        hosts.early.wait(self.stage, Told { event: "installed", words: "#2 " })?;
        self.narrator.say("the canary signed that all is well, the supervisor logged the bake: the next ring has it");
        hosts.office.wait(self.stage, Told { event: "installed", words: "#2 " })?;
        let all = self.since(begin);
        self.narrator.say(&format!("and again: every endpoint has it, {all:.1} s after the push began"));
        let (enrolled, bakes) = (self.logged("enrolment/v1")?, self.logged("bake/v1")?);
        if (enrolled, bakes) != (2, 2) {
            bail!("the supervisor's log has {enrolled} enrolments and {bakes} bakes");
        }
        report.proven(
            "rules go ring by ring, each step a statement",
            format!("{enrolled} enrolments and {bakes} bakes in the supervisor's log"),
            self.entries(),
        );
        Ok(())
    }

    /// The release verifies as code does.
    fn verified(&self, report: &mut Report) -> anyhow::Result<()> {
        let (file, bundle) = (self.bundle(), self.build(NEW).join("release.bundle"));
        let question = Question { file: &file, bundle: &bundle, product: RULES_PRODUCT, lane: Lane::Fast };
        let said = question.ask(self.stage)?;
        if !said.verified {
            bail!("the released rules are not accepted: {}", said.reason);
        }
        let what = format!("{RULES_PRODUCT} {NEW} verifies offline");
        report.proven(&what, "both `rules` keys, both logs, a quorum of witnesses", question.command(self.stage));
        Ok(())
    }

    /// Writes a harmless file that only the new rules find where it is guarded.
    fn found(&self, office: &Guard, report: &mut Report) -> anyhow::Result<()> {
        let file = office.endpoint.folder().join("inbox").join(GREETING);
        let begin = self.narrator.clock().monotonic();
        fs::copy(self.trees.greeting(), &file).with_context(|| format!("can't write `{}`", file.display()))?;
        let rule = office.wait(self.stage, Told { event: "found", words: GREETING })?;
        let took = self.since(begin);
        self.must_scan(office, Verdict::Found)?;
        self.narrator.say(&format!("{GREETING} comes into a guarded folder: found as {rule}, {took:.1} s later"));
        report.proven(
            &format!("what {NEW} is for is found, and what {OLD} is for only was not"),
            format!("{rule} in {GREETING}, {took:.1} s after it was written; the owner's journal has it, nobody else"),
            office.endpoint.line(&format!("scan {}", file.display())),
        );
        Ok(())
    }

    fn must_scan(&self, guard: &Guard, verdict: Verdict) -> anyhow::Result<()> {
        let file = self.trees.greeting();
        let path = file.to_str().context("a path that is text")?;
        let output = guard.endpoint.run(&["scan", path], &[])?;
        let found = match output.status.code() {
            Some(0) => Verdict::Clean,
            Some(1) if output.stdout.starts_with(b"{\"path\"") => Verdict::Found,
            _ => bail!("`clerestory-agent scan {path}`: {}", last_words(&output)),
        };
        if found != verdict {
            bail!("`clerestory-agent scan {path}` says {found:?}, not {verdict:?}");
        }
        Ok(())
    }

    /// Whoever writes rules may be hostile, or wrong. Both organisations refuse, each for itself.
    fn refused(&self, report: &mut Report) -> anyhow::Result<()> {
        let attempts = [
            (FALSE_ALARM, "fires-on-goodware", "a genuine rule that fires on a harmless program"),
            ("twin", "look-alike", "a rule under a name that can be taken for another's"),
            ("greedy", "collects", "a rule that marks documents for collection"),
        ];
        for (name, code, what) in attempts {
            let version = format!("{NEW}+{name}");
            let (said, refusal) = self.must_not_push(&self.trees.tree(name), &version, code)?;
            let reasons: Vec<_> = list(&said, "reasons").iter().map(reason_of).collect();
            let reason = format!("{}; the supervisor logged refusal {refusal}", reasons.join("; "));
            let bundle = self.build(&version).join("refusal.bundle");
            self.narrator.refused(report, what, &reason, format!("clerestory release show {}", bundle.display()));
        }
        let logged = self.logged("refusal/v1")?;
        // The first release was one, too.
        if logged != attempts.len() + 1 {
            bail!("the supervisor's log has {logged} refusals");
        }
        Ok(())
    }

    /// The supervisor takes back what is in use, and then forbids what was before it.
    fn revoked(&self, hosts: &Hosts, report: &mut Report) -> anyhow::Result<()> {
        let digest = Digest::of(&fs::read(self.bundle())?).to_string();
        let config = self.stage.config("supervisor");
        let revoke = ["status", "revoke", "--config", &config, RULES_PRODUCT, &digest, "--reason"];
        let steps: [(&[&str], _, _); 2] = [
            (&["the demo takes it back"], "reverted", "rules that the supervisor revoked, in use on three endpoints"),
            (&["nothing before it, either", "--floor", "2"], "disabled", "going back below the supervisor's floor"),
        ];
        for (more, event, what) in steps {
            let begin = self.narrator.clock().monotonic();
            self.stage.clerestory(&[&revoke[..], more].concat())?;
            let mut reason = String::new();
            for host in hosts.all() {
                reason = host.wait(self.stage, Told { event, words: RULES_PRODUCT })?;
            }
            let outcome = format!("{reason}; on all three {:.1} s after it was said", self.since(begin));
            self.narrator.refused(report, what, &outcome, hosts.office.endpoint.status_command());
        }
        Ok(())
    }

    /// Pushes what must not go through the fast lane; gives what was said, and the supervisor's refusal.
    fn must_not_push(&self, tree: &str, version: &str, code: &str) -> anyhow::Result<(Value, String)> {
        let output =
            self.stage.try_clerestory(&["rules", "push", "--config", &self.stage.config("vendor"), tree, version])?;
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let refusal = text(&said, "refusal");
        if output.status.code() != Some(1) || refusal.is_empty() {
            bail!("`{version}` was not refused by both: {}", last_words(&output));
        }
        if !list(&said, "reasons").iter().any(|reason| text(reason, "code") == code) {
            bail!("`{version}` was refused for another reason: {said}");
        }
        Ok((said, refusal))
    }

    fn build(&self, version: &str) -> PathBuf {
        self.stage.folder().join("vendor/builds").join(RULES_PRODUCT).join(version)
    }

    /// What the newer release carries.
    fn bundle(&self) -> PathBuf {
        self.build(NEW).join("outputs").join(BUNDLE_FILE)
    }

    /// How many statements of a kind the supervisor's log has.
    fn logged(&self, kind: &str) -> anyhow::Result<usize> {
        let config = self.stage.config("vendor");
        let said =
            self.stage.clerestory(&["log", "entries", "--config", &config, "--log", "supervisor.example/log"])?;
        Ok(list(&said, "entries").iter().filter(|entry| entry.to_string().contains(kind)).count())
    }

    fn entries(&self) -> String {
        format!("clerestory log entries --config {} --log supervisor.example/log", self.stage.config("vendor"))
    }

    fn since(&self, begin: Duration) -> f64 {
        self.narrator.clock().monotonic().saturating_sub(begin).as_secs_f64()
    }
}

/// What a scan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    Found,
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn reason_of(reason: &Value) -> String {
    let rule = text(reason, "rule");
    let about = if rule.is_empty() { text(reason, "file") } else { rule };
    let space = if about.is_empty() { "" } else { " " };
    format!("{}{space}{about}: {}", text(reason, "code"), text(reason, "detail"))
}
