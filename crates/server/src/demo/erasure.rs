//! What an owner wants gone is gone, also for who was approved; and a gateway that says so alone erases nothing.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use attest::{BatchId, Bundle};
use seal::{ErasureFile, OwnerSecret};
use stdx::{Clock as _, SystemClock, SystemEntropy, durable};

use super::data::{COUNTRIES, Data, text};
use super::endpoint::Endpoint;
use super::report::Report;
use super::stage::{CUSTODIANS, custodian, last_words};
use crate::command::block_on;
use crate::config::Config;
use crate::supervise::Supervisor;

const QUERY: &str = "SELECT country, count(*) AS events FROM detections GROUP BY country ORDER BY country\n";

impl Data<'_> {
    /// The last of the countries' endpoints wants gone what it has sent.
    pub(super) fn erase(&self, owner: &Endpoint, report: &mut Report) -> anyhow::Result<()> {
        let country = COUNTRIES.last().context("a country")?;
        ensure!(self.countries()?.contains(*country), "nothing of {country} was read before");
        let file = self.stage.file("erase.json");
        owner.must(&["share", "erase", &file])?;
        let wanted = ErasureFile::parse(&std::fs::read(&file)?)?;
        self.forged(&wanted, report)?;
        let (config, vault, out) =
            (self.stage.config("supervisor"), self.stage.url("vendor")?, self.stage.file("erased.bundle"));
        let arguments = ["data", "erase", "--config", &config, "--vault", &vault, "--out", &out, &file];
        let done = self.stage.clerestory(&arguments)?;
        let horizon = text(&done, "horizon");
        self.narrator
            .say(&format!("the endpoint in {country} has what it has sent erased: no copy opens after {horizon}"));
        let left = self.countries()?;
        ensure!(!left.contains(*country) && left.len() == COUNTRIES.len() - 1, "after the erasure: {left:?}");
        self.narrator.say(&format!("an analyst reads again: {}", left.into_iter().collect::<Vec<_>>().join(", ")));
        let (proofs, config) = (self.stage.file("."), self.stage.config("supervisor"));
        self.stage.clerestory(&["data", "accesses", "--config", &config, "--proofs", &proofs])?;
        report.proven(
            "what an owner wants gone is gone, with a receipt from every custodian; the log still verifies",
            format!("{} sealed objects, the horizon of every copy is {horizon}", wanted.owners.len()),
            format!("clerestory {}", arguments.join(" ")),
        );
        Ok(())
    }

    /// Of which countries an analyst finds events.
    fn countries(&self) -> anyhow::Result<BTreeSet<String>> {
        let query = self.stage.file("countries.sql");
        durable::write(query.as_ref(), QUERY.as_bytes())?;
        let request = self.asked(&query)?;
        self.agree(&request)?;
        let read = self.query(&request)?;
        ensure!(read.status.success(), "`data query`: {}", last_words(&read));
        let rows = String::from_utf8(read.stdout)?;
        rows.lines().map(|row| Ok(text(&serde_json::from_str(row)?, "country"))).collect()
    }

    /// The gateway logs that these are to be erased, without their owner.
    fn forged(&self, wanted: &ErasureFile, report: &mut Report) -> anyhow::Result<()> {
        let objects: BTreeSet<BatchId> = wanted.owners.iter().map(OwnerSecret::name).collect();
        let owners: Vec<String> =
            objects.iter().map(|_| Ok(OwnerSecret::draw(&SystemEntropy)?.to_text())).collect::<anyhow::Result<_>>()?;
        let config = Config::load(self.stage.config("supervisor").as_ref())?;
        let entry = block_on(async {
            let (supervisor, deadline) = (Supervisor::open(&config).await?, SystemClock::new().now());
            supervisor.request_erasure(&wanted.region, objects, deadline).await
        })?;
        let evidence = String::from_utf8(Bundle::new(vec![entry])?.to_bytes())?;
        let note = serde_json::to_value(api::ErasureNote { region: wanted.region.clone(), evidence, owners })?;
        let mut refused = None;
        for (who, _) in CUSTODIANS {
            let answer = self.stage.post_json(&custodian(who), api::path::ERASURES, &note);
            refused =
                Some(answer.err().with_context(|| format!("custodian `{who}` has erased what nobody wanted gone"))?);
        }
        let reason = refused.map(|error| format!("{error:#}")).unwrap_or_default();
        let what = "erasing somebody's data because the gateway has logged it";
        self.narrator.refused(report, what, &reason, format!("POST {}", api::path::ERASURES));
        Ok(())
    }
}
