//! Where a rule in use comes from: what it says of itself, and the logged release that brought it.

use std::fmt;

use attest::{Lane, ProductId, ReleaseNumber, StatementId};
use detection::{Declared, MetaValue};
use serde::Serialize;
use stdx::{Digest, UnixTime};
use tlog::Origin;

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::guard::rules_of;
use crate::rules;

/// Where a rule in use comes from.
#[derive(Clone, Debug, Serialize)]
pub struct RuleOrigin {
    /// The rule.
    pub rule: String,
    /// Who wrote it, as it says itself.
    pub author: Option<String>,
    /// The class of data that it may lead to the collection of; without one no content is ever given for it.
    pub collects: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// All that it says of itself.
    pub meta: Vec<(String, MetaValue)>,
    /// The product that it is part of.
    pub product: ProductId,
    /// The release's number.
    pub number: ReleaseNumber,
    /// Its version.
    pub version: String,
    /// The lane that it came through.
    pub lane: Lane,
    /// SHA-256 of the rules, which the release names as its subject.
    pub rules: Option<Digest>,
    /// The release statement.
    pub release: StatementId,
    /// The log that it is an entry of.
    pub log: Option<Origin>,
    /// The evidence time by which it was approved here.
    pub evidence: UnixTime,
}

impl Endpoint<'_> {
    /// Where the rule of this name comes from.
    ///
    /// # Errors
    /// [`Failure`] if no rules are in use, or not this one.
    pub fn rule_origin(&self, rule: &str) -> Result<RuleOrigin, Failure> {
        const HINT: &str = "the journal and `clerestory-agent scan` name rules that found something";
        let none = || Failure::rejected("no-rule", format!("the rules in use have no rule `{rule}`"), HINT);
        let declared = self.engine()?.describe(rule).map_err(|error| rules::engine(&error))?.ok_or_else(none)?;
        let product = self.config.scanned().ok_or_else(none)?;
        let active = self.slots(product)?.record.active.ok_or_else(none)?;
        let lane = self.policy.policy().lane(active.lane);
        let of = |text: Option<&str>| text.map(str::to_owned);
        let (author, collects) = (of(declared.text("author")), of(declared.collects()));
        let rules = rules_of(&active);
        let Declared { rule, tags, meta } = declared;
        Ok(RuleOrigin {
            rule,
            author,
            collects,
            tags,
            meta,
            product: product.id.clone(),
            number: active.number,
            version: active.version,
            lane: active.lane,
            rules,
            release: active.release,
            log: lane.map(|lane| lane.log.clone()),
            evidence: active.evidence,
        })
    }
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a rule says of itself is foreign text, and a terminal obeys control characters.
        let shown = |text: &str| text.escape_debug().to_string();
        writeln!(f, "rule      {}", shown(&self.rule))?;
        writeln!(f, "author    {}", self.author.as_deref().map_or("not named".to_owned(), shown))?;
        match &self.collects {
            Some(class) => writeln!(f, "COLLECTS  {}: its owner may give a file that it finds", shown(class))?,
            None => writeln!(f, "collects  nothing: no content is ever given for it")?,
        }
        writeln!(f, "release   {} {} ({}), lane {}", self.product, self.version, self.number, self.lane)?;
        if let Some(rules) = &self.rules {
            writeln!(f, "rules     SHA-256 {rules}")?;
        }
        write!(f, "logged    {}", self.release)?;
        self.log.as_ref().map_or(Ok(()), |log| write!(f, " in {log}"))?;
        writeln!(f, ", evidence of {}", self.evidence)
    }
}
