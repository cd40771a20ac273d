//! Reading as any reader does: the gateway is called under a standing request, and each call has its entries.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use api::{ClientError, DataQuery, Parameter, Parameters, ResultFormat, ResultPiece, ResultReader, TOO_MUCH};
use attest::{AccessRequest, DataClass, RegionId, Statement, StatementId, Subject};
use policy::Role;
use reputation::{Report, Said};
use serde::Deserialize;
use stdx::{Digest, Hasher, UnixTime};

use super::state::Read;
use crate::command::data::ask::{Asker, private, text};
use crate::config::{CloudSection, Config};
use crate::failure::Failure;

/// A batch that takes longer is asked for again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is read of detections: as many groups as 8 MiB hold, those with the most events first, and how many there are.
/// A text that is longer than what it should be is none: a long one may not leave, and would end the reading of all.
const DETECTIONS: &str = "\
SELECT CASE WHEN octet_length(sha256) = 64 THEN sha256 ELSE '' END AS file,
  CASE WHEN octet_length(rule) <= 128 THEN rule ELSE '' END AS said,
  country, taken, count(DISTINCT id) AS events, count(*) OVER () AS groups
FROM detections WHERE taken > $after AND taken <= $until
GROUP BY 1, 2, country, taken
ORDER BY events DESC, file, said, country, taken LIMIT 20000
";

/// What is read of verdicts: which files nothing was known of, and which of ours have come back.
const VERDICTS: &str = "\
SELECT CASE WHEN octet_length(sha256) = 64 THEN sha256 ELSE '' END AS file,
  CASE WHEN octet_length(found) <= 16 THEN found ELSE '' END AS said,
  country, taken, count(DISTINCT id) AS events, count(*) OVER () AS groups
FROM verdicts WHERE taken > $after AND taken <= $until
GROUP BY 1, 2, country, taken
ORDER BY events DESC, file, said, country, taken LIMIT 20000
";

/// The query of a class, if the threat cloud reads it.
pub(crate) fn query_of(class: &DataClass) -> Option<&'static str> {
    Class::of(class).map(Class::query)
}

/// A class that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Detections,
    Verdicts,
}

impl Class {
    fn of(class: &DataClass) -> Option<Self> {
        match class.as_str() {
            "detections" => Some(Self::Detections),
            "verdicts" => Some(Self::Verdicts),
            _ => None,
        }
    }

    const fn query(self) -> &'static str {
        match self {
            Self::Detections => DETECTIONS,
            Self::Verdicts => VERDICTS,
        }
    }

    fn said(self, said: String) -> Option<Said> {
        match self {
            Self::Detections => Some(said).filter(|rule| !rule.is_empty()).map(Said::Rule),
            Self::Verdicts if said == "nothing" => Some(Said::Nothing),
            Self::Verdicts if said == "bucket" => Some(Said::Echo),
            Self::Verdicts => None,
        }
    }
}

/// What was taken after, and until.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) after: UnixTime,
    pub(super) until: UnixTime,
}

/// What came.
pub(super) struct Rows {
    pub(super) class: Class,
    pub(super) read: Read,
}

/// Calls the gateway.
pub(super) struct Reader {
    asker: Asker,
    requests: BTreeSet<StatementId>,
    known: std::sync::Mutex<BTreeMap<StatementId, Statement<AccessRequest>>>,
}

/// A row, as JSON.
#[derive(Deserialize)]
struct Row {
    file: String,
    said: String,
    country: String,
    taken: UnixTime,
    events: u64,
    groups: u64,
}

/// What came of an access.
enum Answer {
    /// What the worker gives, and how many objects it has passed over.
    Lines(Vec<u8>, u64),
    /// More than may be opened or given out at once: whoever seals enough can bring that about.
    TooMuch(String),
}

impl Reader {
    pub(super) fn open(config: &Config, section: &CloudSection) -> anyhow::Result<Self> {
        let asker = Asker::of(config, &section.key, Role::Reader)?;
        Ok(Self { asker, requests: section.requests.clone(), known: Default::default() })
    }

    /// Where it reads, as far as requests are logged.
    pub(super) fn regions(&self) -> anyhow::Result<BTreeSet<RegionId>> {
        let requests = self.requests.iter();
        requests.map(|id| Ok(self.request(*id)?.predicate.region)).collect()
    }

    /// A request never changes.
    fn request(&self, id: StatementId) -> anyhow::Result<Statement<AccessRequest>> {
        let known = || self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(request) = known().get(&id) {
            return Ok(request.clone());
        }
        let (_, request) = tokio::task::block_in_place(|| self.asker.public(id))?;
        known().insert(id, request.clone());
        Ok(request)
    }

    /// What the request gives of this window, in as many accesses as its budget of objects needs.
    pub(super) fn read(&self, id: StatementId, window: Window) -> anyhow::Result<Rows> {
        let request = self.request(id)?;
        let class = Class::of(&request.predicate.class).with_context(|| {
            Failure::refused(format!("request {id} is of class `{}`", request.predicate.class))
                .hint("the threat cloud reads `detections` and `verdicts`")
        })?;
        let query = Digest::of(class.query().as_bytes());
        if request.subject.first().map(Subject::sha256) != Some(query) {
            let failure = Failure::refused(format!("request {id} is not about this program's query"));
            return Err(failure.hint("`clerestory cloud query` prints it; ask anew, and have it approved").into());
        }
        let mut rows = Rows { class, read: Read::default() };
        self.fill(id, &request, window, &mut rows)?;
        Ok(rows)
    }

    /// A window with more than may be opened or given out at once is read in halves, down to a second.
    fn fill(
        &self,
        id: StatementId,
        request: &Statement<AccessRequest>,
        window: Window,
        rows: &mut Rows,
    ) -> anyhow::Result<()> {
        let (lines, unreadable) = match self.ask(id, request, window)? {
            Answer::Lines(lines, unreadable) => (lines, unreadable),
            Answer::TooMuch(why) => {
                let (after, until) = (window.after.seconds(), window.until.seconds());
                if until.saturating_sub(after) <= 1 {
                    tracing::warn!(cloud.request = %id, "what was taken at {} is left out: {why}", window.until);
                    rows.read.ignored.entry(window.until).or_default().unread += 1;
                    return Ok(());
                }
                let middle = UnixTime::from_seconds(after.midpoint(until));
                self.fill(id, request, Window { until: middle, ..window }, rows)?;
                return self.fill(id, request, Window { after: middle, ..window }, rows);
            }
        };
        let (mut groups, mut given) = (0, 0);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row: Row = serde_json::from_slice(line).context("a row of the result")?;
            (groups, given) = (row.groups, given + 1);
            let Row { file, said, country, taken, events, .. } = row;
            match (file.parse(), rows.class.said(said)) {
                (Ok(sha256), Some(said)) => rows.read.reports.push(Report { sha256, said, country, taken, events }),
                _ => rows.read.ignored.entry(taken).or_default().malformed += events,
            }
        }
        // When these were taken nobody has said: what is read of the same time again may count again.
        let beyond = groups.saturating_sub(given);
        if beyond + unreadable > 0 {
            let ignored = rows.read.ignored.entry(window.after).or_default();
            (ignored.beyond, ignored.unreadable) = (ignored.beyond + beyond, ignored.unreadable + unreadable);
        }
        Ok(())
    }

    fn ask(&self, id: StatementId, request: &Statement<AccessRequest>, window: Window) -> anyhow::Result<Answer> {
        let says = &request.predicate;
        let time = |time: UnixTime| Parameter::Text(time.to_string());
        let values: Parameters =
            [("after".to_owned(), time(window.after)), ("until".to_owned(), time(window.until))].into();
        let values = private("parameters", &serde_json::to_string(&values)?)?;
        let call = text(&self.asker.call(request, id, says.reader, Some(values.commitment()))?)?;
        let query = DataQuery { call, openings: vec![values], format: ResultFormat::Json };
        let mut source = match self.asker.query(&query, PATIENCE) {
            Ok(source) => ResultReader::new(source),
            Err(error) => return refused(error),
        };
        let (mut lines, mut hasher) = (Vec::new(), Hasher::default());
        loop {
            match source.piece().context("the result was cut off")? {
                ResultPiece::Bytes(piece) => {
                    anyhow::ensure!((lines.len() + piece.len()) as u64 <= says.budget.bytes, "more than the budget");
                    hasher.update(&piece);
                    lines.extend_from_slice(&piece);
                }
                ResultPiece::End(end) => {
                    match end.failed {
                        Some(why) if why.code == TOO_MUCH => return Ok(Answer::TooMuch(why.message)),
                        Some(why) => anyhow::bail!("the result is not all of it: {}", why.message),
                        None => {}
                    }
                    anyhow::ensure!(end.sha256 == hasher.finish(), "what came is not what the worker has written");
                    return Ok(Answer::Lines(lines, end.unreadable));
                }
            }
        }
    }
}

/// What the gateway refuses before anything is opened.
fn refused(error: anyhow::Error) -> anyhow::Result<Answer> {
    let is_too_much = error.downcast_ref::<ClientError>().is_some_and(|it| it.code() == Some(TOO_MUCH));
    if is_too_much { Ok(Answer::TooMuch(format!("{error:#}"))) } else { Err(error) }
}
