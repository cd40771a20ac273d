//! Somebody who reads all the while: each reading is asked for, approved and announced, and is right or fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{BodyLimit, Client, ClientError, DataQuery, DataRequestState, ResultFormat, ResultPiece, ResultReader, path};
use attest::{AccessCall, AccessRequest, Envelope, Statement};
use seal::BatchId;
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy};
use testkit::{APPROVED_CLASS, PURPOSE, REGION};
use vault::{Chain, MANIFEST_BYTES_MAX};

use super::load::{Load, SIZES, number};
use crate::data::gateway::QUERY_FILE;
use crate::data::scene::signed;
use crate::process::Done;
use crate::system::System;

pub(super) const QUERY: &str =
    "select rule, count(*) as events, sum(size) as sizes from detections group by rule order by rule\n";

/// What came of all readings.
pub(super) struct Reader<'a> {
    system: &'a System,
    load: &'a Load,
    client: Client,
    /// What the vault says that it has.
    pub(super) chain: Chain,
    /// By what was said.
    pub(super) failed: BTreeMap<String, usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(system: &'a System, load: &'a Load) -> Self {
        let client = Client::new(Duration::from_secs(60));
        let chain = Chain::new(REGION.parse().unwrap());
        Self { system, load, client, chain, failed: BTreeMap::new() }
    }

    pub(super) fn go_on(&mut self) {
        while !self.load.is_over() {
            match self.read() {
                Ok(_) => self.load.has_read(),
                Err(why) => *self.failed.entry(why).or_default() += 1,
            }
        }
    }

    /// Every manifest that there is now: each must follow the one before it, whoever has written it.
    pub(super) fn look(&mut self) {
        loop {
            let at = format!("{}/{REGION}/manifests/{}", path::VAULT, self.chain.next());
            let url = format!("{}{at}", self.system.vendor.url());
            let Ok(manifest) = self.client.get(&url, BodyLimit(MANIFEST_BYTES_MAX as u64)) else { return };
            self.chain.read(&manifest).unwrap();
        }
    }

    /// Names of objects that may be read, as the manifests have them.
    pub(super) fn there(&self) -> BTreeSet<BatchId> {
        let segments = self.chain.segments().filter(|segment| segment.class.as_str() == APPROVED_CLASS);
        segments.flat_map(|segment| segment.objects.iter().map(|kept| kept.id)).collect()
    }

    /// Reads everything, and gives the names of the batches that were found; or what was said.
    pub(super) fn read(&mut self) -> Result<BTreeSet<BatchId>, String> {
        self.look();
        let there = self.there();
        if there.is_empty() {
            return Err("there is nothing yet".to_owned());
        }
        let state: DataRequestState = serde_json::from_str(&self.command(
            "request",
            "reader",
            &[
                "--query",
                QUERY_FILE,
                "--reader",
                "an analyst",
                "--ticket",
                "T-1",
                "--class",
                APPROVED_CLASS,
                "--country",
                "DE",
                "--country",
                "JP",
                "--purpose",
                PURPOSE,
            ],
        )?)
        .unwrap();
        self.command("approve", "approver", &[&state.id.to_string(), "--comment", "seen"])?;
        let text = self.result(&state)?;
        let found = self.checked(&text);
        let missing: Vec<_> = there.difference(&found).collect();
        assert!(missing.is_empty(), "manifests had {missing:?} before, and the result has not");
        Ok(found)
    }

    /// What a command prints. "Not now" may be said while something is away, and nothing else.
    fn command(&self, command: &str, role: &str, arguments: &[&str]) -> Result<String, String> {
        let organisation = if role == "reader" { "vendor" } else { "supervisor" };
        let (config, key) = (format!("{organisation}/clerestory.toml"), format!("{organisation}/keys/{role}.key"));
        let begins = ["--json", "data", command, "--config", &config, "--key", &key];
        let done: Done = self.system.run(&[&begins[..], arguments].concat());
        if done.code == 0 {
            return Ok(done.stdout);
        }
        let said = done.stderr.contains("error: ") && done.stderr.contains("hint: ");
        assert!(done.code == 75 && said && done.stdout.is_empty(), "{command}: {done:?}");
        Err(format!("data {command}: 75"))
    }

    /// The whole result, or the code with which it was refused or cut off.
    fn result(&self, state: &DataRequestState) -> Result<String, String> {
        let url = format!("{}{}", self.system.supervisor.url(), path::DATA_QUERIES);
        let answer = match self.client.post_open(&url, &self.call(state)) {
            Ok(answer) => answer,
            Err(ClientError::Status { status, body, .. }) => {
                assert!(self.load.knows(&body.code) && body.hint.is_some(), "{status} {body:?}");
                return Err(format!("{status} {}", body.code));
            }
            Err(error) => panic!("the gateway was never away: {error}"),
        };
        let (mut reader, mut result) = (ResultReader::new(answer), Vec::new());
        loop {
            match reader.piece() {
                Ok(ResultPiece::Bytes(piece)) => result.extend(piece),
                Ok(ResultPiece::End(end)) if end.failed.is_none() => {
                    assert_eq!((end.sha256, end.unreadable), (Digest::of(&result), 0));
                    return Ok(String::from_utf8(result).unwrap());
                }
                Ok(ResultPiece::End(_)) => return Err("a result that says that it is not whole".to_owned()),
                Err(_) => return Err("a result that was cut off".to_owned()),
            }
        }
    }

    fn call(&self, state: &DataRequestState) -> DataQuery {
        let request = Envelope::parse(state.envelope.as_bytes()).unwrap();
        let request = Statement::<AccessRequest>::decode(request.payload()).unwrap();
        let mut nonce = [0; 32];
        SystemEntropy.fill(&mut nonce).unwrap();
        let predicate = AccessCall {
            request: state.id,
            reader: request.predicate.reader,
            parameters: None,
            time: SystemClock::new().now(),
            nonce: Digest::from_bytes(nonce),
        };
        let call = Statement { subject: request.subject, predicate };
        let call = signed(call, &self.system.key("vendor", "reader"));
        let call = String::from_utf8(call.to_bytes()).unwrap();
        DataQuery { call, openings: Vec::new(), format: ResultFormat::Csv }
    }

    /// Every batch in the result was sent, and is there once and whole.
    fn checked(&self, csv: &str) -> BTreeSet<BatchId> {
        let batches = self.load.batches();
        let (count, sum) = (SIZES.len().to_string(), SIZES.iter().sum::<u64>().to_string());
        let name = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            let [rule, events, sizes] = &cells[..] else { panic!("{line}") };
            let batch = number(rule).and_then(|number| batches.get(&number));
            let batch = batch.unwrap_or_else(|| panic!("`{rule}` was never sent"));
            assert_eq!((*events, *sizes), (&*count, &*sum), "{rule}");
            batch.id
        };
        let mut lines = csv.lines();
        assert_eq!(lines.next(), Some("rule,events,sizes"));
        lines.map(name).collect()
    }
}
