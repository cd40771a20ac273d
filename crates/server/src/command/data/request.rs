//! `clerestory data request`: "I want to read this".

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::{DataRequest, Rewrite, path};
use attest::{
    AccessMode, AccessRequest, Budget, CountryCode, DataClass, Envelope, Purpose, ReaderKind, RegionId, Standing,
    Statement, Subject,
};
use clap::Args;
use policy::{ClassPolicy, Residency, Role};
use stdx::{Clock as _, Digest, SystemClock};

use super::ask::{Asker, Common, private, text};
use super::requests::Shown;
use crate::command::{Output, read_limited};
use crate::failure::Failure;

/// A query is a page of text.
const QUERY_BYTES_MAX: usize = 16 << 10;

/// Arguments of `data request`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The query, in a file; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "compact")]
    query: Option<PathBuf>,
    /// Instead of a query: have what endpoints sealed written anew in columns, sealed as before; nothing is given out
    #[arg(long, conflicts_with_all = ["query", "rows", "bytes"], requires = "uses")]
    compact: bool,
    /// Who you are; private, the log has a commitment
    #[arg(long, value_name = "NAME")]
    reader: String,
    /// What it is about; private, the log has a commitment
    #[arg(long, value_name = "TICKET")]
    ticket: String,
    /// What for; the policy lists what a class is read for
    #[arg(long)]
    purpose: Purpose,
    /// What kind of data
    #[arg(long)]
    class: DataClass,
    /// Whose data; may be given several times
    #[arg(long = "country", value_name = "CODE", required = true)]
    countries: Vec<CountryCode>,
    /// Where [default: the region that has the countries now]
    #[arg(long)]
    region: Option<RegionId>,
    /// At most so many sealed objects are opened [default: as many as the class allows]
    #[arg(long, value_name = "NUMBER")]
    objects: Option<u64>,
    /// At most so many rows come out [default: as many as the class allows]
    #[arg(long, value_name = "NUMBER")]
    rows: Option<u64>,
    /// At most so many bytes come out [default: as many as the class allows]
    #[arg(long, value_name = "NUMBER")]
    bytes: Option<u64>,
    /// Good for so many hours
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    hours: u32,
    /// In an emergency: the same checks, and everybody is told
    #[arg(long)]
    break_glass: bool,
    /// For a service, not for a person
    #[arg(long)]
    service: bool,
    /// For many times: how many
    #[arg(long, value_name = "NUMBER", requires_all = ["code", "schema"])]
    uses: Option<u64>,
    /// For many times: SHA-256 of the worker's program
    #[arg(long, value_name = "SHA256", requires = "uses")]
    code: Option<Digest>,
    /// For many times: SHA-256 of the schema of what comes out
    #[arg(long, value_name = "SHA256", requires = "uses")]
    schema: Option<Digest>,
}

impl Arguments {
    fn standing(&self) -> Option<Standing> {
        let (code, schema) = (self.code?, self.schema?);
        Some(Standing { code, schema, uses: self.uses? })
    }

    fn budget(&self, class: &ClassPolicy) -> Budget {
        Budget {
            objects: self.objects.unwrap_or(class.objects_max),
            rows: if self.compact { 0 } else { self.rows.unwrap_or(class.rows_max) },
            bytes: if self.compact { 0 } else { self.bytes.unwrap_or(class.bytes_max) },
        }
    }

    fn region(&self, residency: &Residency) -> anyhow::Result<RegionId> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        let now = SystemClock::new().now();
        let mut regions = Vec::new();
        for country in &self.countries {
            let region = residency.region_of(*country, now).ok_or_else(|| {
                Failure::refused(format!("no region has the data of `{country}`"))
                    .hint("the policy assigns countries to regions; `clerestory data regions` shows them")
            })?;
            regions.push(region.id.clone());
        }
        regions.sort();
        regions.dedup();
        match regions.pop() {
            Some(region) if regions.is_empty() => Ok(region),
            _ => Err(Failure::usage("the countries belong to several regions")
                .hint("ask for each region by itself: its data is read there only")
                .into()),
        }
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let asker = Asker::open(&arguments.common, Role::Reader)?;
    let residency = asker.policy.policy().residency.clone().context("the policy says nothing of data")?;
    let class = residency.class(&arguments.class).ok_or_else(|| {
        let classes: Vec<&str> = residency.classes.iter().map(|it| it.id.as_str()).collect();
        Failure::refused(format!("the policy has no class `{}`", arguments.class))
            .hint(format!("it has {}", classes.join(", ")))
    })?;
    let query = match &arguments.query {
        Some(path) => read_query(path)?,
        None => Rewrite::Compact.query().to_owned(),
    };
    let (reader, ticket) = (private("reader", &arguments.reader)?, private("ticket", &arguments.ticket)?);
    let mut countries = arguments.countries.clone();
    countries.sort();
    countries.dedup();
    let (region, budget) = (arguments.region(&residency)?, arguments.budget(class));
    let state = asker.bring(path::DATA_REQUESTS, |position| {
        let predicate = AccessRequest {
            until: position.time.after(Duration::from_secs(3600) * arguments.hours),
            position,
            reader: reader.commitment(),
            kind: if arguments.service || arguments.compact { ReaderKind::Service } else { ReaderKind::Person },
            purpose: arguments.purpose.clone(),
            ticket: ticket.commitment(),
            region: region.clone(),
            class: arguments.class.clone(),
            countries: countries.clone(),
            budget,
            mode: if arguments.break_glass { AccessMode::BreakGlass } else { AccessMode::Ordinary },
            standing: arguments.standing(),
        };
        let subject = vec![Subject::new("query", Digest::of(query.as_bytes()))];
        let envelope = Envelope::sign(Statement { subject, predicate }.encode()?, &[&asker.key])?;
        let openings = vec![reader.clone(), ticket.clone()];
        Ok(DataRequest { envelope: text(&envelope)?, query: query.clone(), openings })
    })?;
    output.print(&Shown(state))
}

fn read_query(path: &std::path::Path) -> anyhow::Result<String> {
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(QUERY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        bytes
    } else {
        read_limited(path, QUERY_BYTES_MAX)?
    };
    if bytes.len() > QUERY_BYTES_MAX {
        return Err(Failure::refused(format!("the query has more than {QUERY_BYTES_MAX} bytes")).into());
    }
    String::from_utf8(bytes).with_context(|| format!("`{}` is no text", path.display()))
}
