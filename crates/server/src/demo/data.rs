//! Data that nobody opens without an entry: endpoints in eight countries share what their rules found, sealed; an
//! analyst asks, is refused, is approved, reads; a supervisor reviews.

use std::fs;

use anyhow::{Context as _, bail, ensure};
use attest::Ring;
use serde_json::Value;
use stdx::durable;

use super::Options;
use super::endpoint::{Endpoint, Wanted};
use super::indicators::{self, Indicators};
use super::path::approve;
use super::report::{Narrator, Report};
use super::stage::{INDICATORS, Stage, last_words};

/// Where the endpoints are: on four continents, all of whose data lies in one region.
pub(super) const COUNTRIES: [&str; 8] = ["AU", "CA", "CH", "DE", "FR", "JP", "KR", "SG"];
/// A country that the policy assigns to no region.
const UNASSIGNED: &str = "BR";
/// Pages on each endpoint. Some hosts are seen in several countries.
const PAGES: usize = 24;
const STEP: usize = 11;
const VERSION: &str = "1";
const CLASS: &str = "detections";
const PURPOSE: &str = "detection-quality";
const QUERY: &str = "SELECT rule, count(*) AS seen, count(DISTINCT country) AS countries FROM detections \
                     GROUP BY rule ORDER BY countries DESC, seen DESC, rule LIMIT 5\n";

pub(super) struct Data<'a> {
    pub(super) stage: &'a Stage,
    pub(super) narrator: &'a Narrator,
    indicators: Indicators,
}

pub(super) fn run(stage: &Stage, options: &Options, narrator: &Narrator, report: &mut Report) -> anyhow::Result<()> {
    narrator.chapter("Data that nobody opens without an entry");
    let indicators = Indicators::fetch(&stage.folder().join("rules").join(INDICATORS), options)?;
    let data = Data { stage, narrator, indicators };
    data.release()?;
    let owner = data.share(report)?;
    data.elsewhere(report)?;
    data.worker()?;
    let request = data.ask(report)?;
    data.read(&request, report)?;
    data.refused(&request, report)?;
    data.review(&request, report)?;
    data.look_up(&owner, report)?;
    data.erase(&owner, report)
}

impl Data<'_> {
    /// The first rules of a product take two people.
    fn release(&self) -> anyhow::Result<()> {
        let (config, tree) = (self.stage.config("vendor"), self.indicators.tree.display().to_string());
        // Refused, because there is nothing to compare it with; what was made lies there.
        self.stage.try_clerestory(&["rules", "push", "--config", &config, &tree, VERSION])?;
        let folder = self.stage.folder().join("vendor/builds").join(INDICATORS).join(VERSION);
        approve(self.stage, &folder, "real indicators")?;
        self.stage.clerestory(&["release", "publish", "--config", &config, INDICATORS, VERSION])?;
        self.narrator.say(&format!("rules for {} hosts of URLhaus's list: built twice, released", indicators::RULES));
        Ok(())
    }

    /// Each endpoint has pages that name such hosts; its owner agrees that detections are shared.
    fn share(&self, report: &mut Report) -> anyhow::Result<Endpoint> {
        let mut last = None;
        for (number, country) in COUNTRIES.into_iter().enumerate() {
            let endpoint = self.endpoint(country)?;
            for page in 0..PAGES {
                let place = (number * STEP + page) % self.indicators.hosts.len();
                let host = self.indicators.hosts.get(place).context("a host")?;
                let text = format!("<a href=\"http://{host}/\">{country}: page {page}</a>\n");
                durable::write(&endpoint.folder().join(format!("pages/{page}.html")), text.as_bytes())?;
            }
            let pages = endpoint.folder().join("pages").display().to_string();
            let scanned = endpoint.run(&["scan", &pages], &[])?;
            ensure!(scanned.status.code() == Some(1), "`scan` in {country}: {}", last_words(&scanned));
            endpoint.must(&["share", "send"])?;
            last = Some(endpoint);
        }
        let last = last.context("an endpoint")?;
        let shown = format!("{} events from each of {}, sealed where they were made", PAGES, COUNTRIES.join(", "));
        self.narrator.say(&shown);
        // What was acknowledged is on disk; the next process names it in the vault's list.
        self.stage.stop("vendor")?;
        self.stage.start("vendor")?;
        self.narrator.say("the vendor's server is killed, and starts again");
        let stolen = self.search("vendor", b"urlhaus_")?;
        ensure!(stolen.is_empty(), "the vendor's vault has plaintext: {stolen:?}");
        report.proven(
            "what endpoints share is sealed for the region of their country, and kept where nobody can read it",
            format!("{shown}; no byte of it in the vendor's vault; each has a signed receipt, and outlives the vendor's server"),
            last.line("share show"),
        );
        Ok(last)
    }

    /// Nothing is sealed for a country that no policy assigns.
    fn elsewhere(&self, report: &mut Report) -> anyhow::Result<()> {
        let endpoint = self.endpoint(UNASSIGNED)?;
        let host = self.indicators.hosts.first().context("a host")?;
        durable::write(&endpoint.folder().join("pages/0.html"), format!("http://{host}/").as_bytes())?;
        let pages = endpoint.folder().join("pages").display().to_string();
        endpoint.run(&["scan", &pages], &[])?;
        let sent = endpoint.run(&["share", "send"], &[])?;
        ensure!(sent.status.code() == Some(1), "an endpoint in {UNASSIGNED} has shared something");
        let what = format!("data of a country without a region ({UNASSIGNED})");
        self.narrator.refused(report, &what, &last_words(&sent), endpoint.line("share send"));
        Ok(())
    }

    fn endpoint(&self, country: &str) -> anyhow::Result<Endpoint> {
        let name = format!("endpoint-{}", country.to_lowercase());
        durable::create_folder(&self.stage.folder().join(&name).join("pages"))?;
        let sections = format!(
            "\n[scan]\nrules = \"{INDICATORS}\"\nfolders = []\n\n[share]\nintake = \"{}\"\ncountry = \"{country}\"\n",
            self.stage.url("vendor")?
        );
        let products = [INDICATORS.to_owned()];
        let wanted = Wanted { name: &name, products: &products, ring: Ring::All, sections };
        let endpoint = Endpoint::set(self.stage, &wanted)?;
        endpoint.update()?;
        let statement = endpoint.must(&["share", "statement"])?;
        let statement = text(&statement, "sha256");
        endpoint.must(&["share", "agree", "--statement", &statement, "--mode", "verdicts", "--class", CLASS])?;
        Ok(endpoint)
    }

    fn worker(&self) -> anyhow::Result<()> {
        let code = self.stage.start_worker()?;
        self.narrator.say(&format!("a host of the region is enrolled for program {code}; its worker serves"));
        Ok(())
    }

    /// An analyst of the vendor's asks; nothing opens before somebody of the supervisor's agrees.
    fn ask(&self, report: &mut Report) -> anyhow::Result<String> {
        let query = self.stage.file("query.sql");
        durable::write(query.as_ref(), QUERY.as_bytes())?;
        let refused = self.request(&query, "curiosity")?;
        ensure!(refused.status.code() == Some(1), "a purpose that the policy lacks was accepted");
        let what = "reading for a purpose that the policy does not have";
        self.narrator.refused(report, what, &last_words(&refused), "clerestory data request --purpose curiosity …");
        let request = self.asked(&query)?;
        self.narrator.say(&format!("an analyst asks for detections of {} countries: {request}", COUNTRIES.len()));
        self.must_not_read(&request, "reading before anybody has agreed", report)?;
        self.agree(&request)?;
        self.narrator.say("somebody of the supervisor's has read the query, and agreed; that is logged, too");
        Ok(request)
    }

    /// A request counts once: whoever was refused in the middle asks anew.
    pub(super) fn asked(&self, query: &str) -> anyhow::Result<String> {
        let asked = self.request(query, PURPOSE)?;
        ensure!(asked.status.success(), "`data request`: {}", last_words(&asked));
        Ok(text(&serde_json::from_slice(&asked.stdout).context("what `data request` says")?, "id"))
    }

    pub(super) fn agree(&self, request: &str) -> anyhow::Result<()> {
        let (config, key) = (self.stage.config("supervisor"), self.stage.file("supervisor/keys/approver.key"));
        let approve = ["data", "approve", "--config", &config, "--key", &key, "--comment", "for the quality review"];
        self.stage.clerestory(&[&approve[..], &[request]].concat()).map(drop)
    }

    fn request(&self, query: &str, purpose: &str) -> anyhow::Result<std::process::Output> {
        let (config, key) = self.reader();
        let mut arguments = vec!["data", "request", "--config", &config, "--key", &key, "--query", query];
        arguments.extend(["--reader", "an analyst", "--ticket", "QA-1", "--purpose", purpose, "--class", CLASS]);
        COUNTRIES.iter().for_each(|country| arguments.extend(["--country", country]));
        arguments.extend(["--objects", "64", "--rows", "100", "--bytes", "65536"]);
        self.stage.try_clerestory(&arguments)
    }

    fn reader(&self) -> (String, String) {
        (self.stage.config("vendor"), self.stage.file("vendor/keys/reader.key"))
    }

    pub(super) fn query(&self, request: &str) -> anyhow::Result<std::process::Output> {
        let (config, key) = self.reader();
        self.stage.try_clerestory(&["data", "query", "--config", &config, "--key", &key, request])
    }

    fn query_line(&self, request: &str) -> String {
        let (config, key) = self.reader();
        format!("clerestory data query --config {config} --key {key} {request}")
    }

    /// The entry first, then both custodians' shares, then the rows.
    fn read(&self, request: &str, report: &mut Report) -> anyhow::Result<()> {
        let read = self.query(request)?;
        ensure!(read.status.success(), "`data query`: {}", last_words(&read));
        let rows = String::from_utf8(read.stdout)?;
        rows.lines().for_each(|row| self.narrator.say(&format!("  {row}")));
        ensure!(rows.contains("urlhaus_"), "the rows name no host: {rows}");
        report.proven(
            "an approved query reads: the entry first, then both custodians, then the rows",
            format!("{} rows from {} countries' sealed events", rows.lines().count(), COUNTRIES.len()),
            self.query_line(request),
        );
        Ok(())
    }

    /// The same request again, and a stop.
    fn refused(&self, request: &str, report: &mut Report) -> anyhow::Result<()> {
        self.must_not_read(request, "reading a second time what was approved once", report)?;
        let (config, stopped) = (self.stage.config("supervisor"), self.asked(&self.stage.file("query.sql"))?);
        self.agree(&stopped)?;
        self.stage.clerestory(&["data", "stop", "--config", &config, "zurich"])?;
        self.must_not_read(&stopped, "reading while the supervisor has stopped the region", report)?;
        self.stage.clerestory(&["data", "resume", "--config", &config, "zurich"])?;
        Ok(())
    }

    fn must_not_read(&self, request: &str, what: &str, report: &mut Report) -> anyhow::Result<()> {
        let output = self.query(request)?;
        if output.status.success() || output.stdout.windows(8).any(|it| it == b"urlhaus_") {
            bail!("{what}: it was read");
        }
        self.narrator.refused(report, what, &last_words(&output), self.query_line(request));
        Ok(())
    }

    /// Everybody who has been there, from the log.
    fn review(&self, request: &str, report: &mut Report) -> anyhow::Result<()> {
        let config = self.stage.config("supervisor");
        let (picture, proofs) = (self.stage.file("accesses.svg"), self.stage.file("."));
        let all = ["--what", "access", "--what", "request", "--timeline", "--picture", &picture, "--proofs", &proofs];
        let arguments = [&["data", "accesses", "--config", &config][..], &all].concat();
        let said = self.stage.clerestory(&arguments)?;
        ensure!(said.to_string().contains(request), "the review does not show request {request}: {said}");
        self.narrator.say("a supervisor reviews: who asked, who agreed, what was read, and what was refused");
        report.proven(
            "every access stands in the witnessed log before it happens, and can be reviewed",
            format!("request {request}, its approval, its intents and their outcomes"),
            format!("clerestory {}", arguments.join(" ")),
        );
        Ok(())
    }

    /// One of the owners sees who has read theirs. Which objects these are, nobody else learns.
    fn look_up(&self, owner: &Endpoint, report: &mut Report) -> anyhow::Result<()> {
        let sent = owner.must(&["share", "objects"])?;
        let sent = sent.get("headers").and_then(Value::as_array).into_iter().flatten();
        let sent: Vec<&str> = sent.filter_map(Value::as_str).collect();
        let file = self.stage.file("objects.txt");
        durable::write(file.as_ref(), format!("{}\n", sent.join("\n")).as_bytes())?;
        let (config, at) = (self.stage.config("supervisor"), self.stage.url("supervisor")?.to_string());
        let proofs = self.stage.file(".");
        let vault = self.stage.url("vendor")?;
        let arguments = ["data", "subject", "--config", &config, "--at", &at, "--vault", &vault];
        let arguments = [&arguments[..], &["--proofs", &proofs, &file]].concat();
        let said = self.stage.clerestory(&arguments)?;
        let accesses = said.get("accesses").and_then(Value::as_array).into_iter().flatten();
        let done = accesses.filter(|it| text(it, "state") == "done").count();
        ensure!(done == 1, "an owner sees {done} readings of theirs instead of one: {said}");
        self.narrator.say("one of the owners looks up who has read theirs, and which tries were refused");
        report.proven(
            "whoever has shared something sees who has read it",
            format!("{} sealed objects, read once", sent.len()),
            format!("clerestory {}", arguments.join(" ")),
        );
        Ok(())
    }

    /// Files below a folder of the run in which `mark` stands.
    fn search(&self, folder: &str, mark: &[u8]) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut left = vec![self.stage.folder().join(folder).join("intake")];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() {
                    left.push(path);
                } else if fs::read(&path)?.windows(mark.len()).any(|it| it == mark) {
                    found.push(path.display().to_string());
                }
            }
        }
        Ok(found)
    }
}

pub(super) fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
