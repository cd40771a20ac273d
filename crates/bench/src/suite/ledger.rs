//! The access ledger: reading entries into the index, and searching it, up to ten million accesses.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use attest::{
    AccessApproval, AccessIntent, AccessMode, AccessOutcome, AccessRequest, Budget, CountryCode, Ended, Envelope,
    Opening, Predicate, PrivateField, ReaderKind, Standing, Statement, StatementId, Subject, Workers,
};
use ledger::{AccessState, Filter, Index, Page, Timeline, Wanted};
use policy::Role;
use stdx::{Clock as _, Digest, SystemEntropy, durable};
use testkit::{APPROVED_CLASS, Custody, PURPOSE, REGION, SUPERVISOR_LOG, World};
use tlog::EntryIndex;

use crate::bench::{Bench, Scale};
use crate::picture::{Axis, Picture, Scale as Axes, Series};
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

/// As the issue has it: a search takes 100 ms at most.
const SEARCH_MS_MAX: f64 = 100.0;

/// Rows of a block of the index; whole blocks are repeated.
const BLOCK: usize = 1 << 16;

/// A picture has room for so many lines; the first questions get them.
const LINES: usize = 6;

/// Each reader's request is used so often.
const USES: usize = 64;

const BUDGET: Budget = Budget { objects: 2, rows: 1000, bytes: 1 << 20 };

/// Statements about accesses, as they come, in a world with real keys.
struct Maker {
    world: World,
}

impl Maker {
    fn new() -> Self {
        let custody = Custody::new();
        Self { world: World::with_policy(|policy| custody.put_into(policy)) }
    }

    fn sign<P: Predicate>(&mut self, name: &str, predicate: P, role: Role, who: &str) -> anyhow::Result<Envelope> {
        let statement = Statement { subject: vec![Subject::new(name, Digest::of(name.as_bytes()))], predicate };
        let party = if who == "vendor" { &self.world.vendor } else { &self.world.supervisor };
        let envelope = Envelope::sign(statement.encode()?, &[party.key(role)])?;
        let position = statement.predicate.position().context("it has a place")?;
        self.world.append(position, &envelope);
        Ok(envelope)
    }

    /// A request that stands, and its approval.
    fn request(&mut self, reader: &Opening, countries: &[CountryCode]) -> anyhow::Result<StatementId> {
        let standing = Standing { code: Digest::of(b"code"), schema: Digest::of(b"schema"), uses: USES as u64 };
        let ticket = Opening::new(PrivateField { label: "ticket", value: "T-1" }, &SystemEntropy)?.commitment();
        let request = AccessRequest {
            position: self.world.position(SUPERVISOR_LOG, "data/vendor"),
            reader: reader.commitment(),
            kind: ReaderKind::Service,
            purpose: PURPOSE.parse()?,
            ticket,
            region: REGION.parse()?,
            class: APPROVED_CLASS.parse()?,
            countries: countries.to_vec(),
            budget: BUDGET,
            until: self.world.clock.now().after(std::time::Duration::from_secs(86_400)),
            mode: AccessMode::Ordinary,
            standing: Some(standing),
        };
        let id = self.sign("query", request, Role::Reader, "vendor")?.id();
        let position = self.world.position(SUPERVISOR_LOG, "data/supervisor");
        let comment = Opening::new(PrivateField { label: "comment", value: "yes" }, &SystemEntropy)?.commitment();
        self.sign("query", AccessApproval { position, request: id, comment }, Role::Approver, "supervisor")?;
        Ok(id)
    }

    /// An intent and, but for one in a hundred, its outcome.
    fn access(&mut self, request: StatementId, countries: &[CountryCode], number: usize) -> anyhow::Result<()> {
        let intent = AccessIntent {
            position: self.world.position(SUPERVISOR_LOG, "access/supervisor"),
            policy: self.world.policy().id(),
            request,
            region: REGION.parse()?,
            class: APPROVED_CLASS.parse()?,
            countries: countries.to_vec(),
            workers: Workers::one(Digest::of(b"worker")),
            budget: BUDGET,
            expires: self.world.clock.now().after(std::time::Duration::from_secs(600)),
            reader: None,
            parameters: None,
        };
        let intent = self.sign("objects", intent, Role::Gateway, "supervisor")?.id();
        if number.is_multiple_of(100) {
            return Ok(());
        }
        let ended = if number % 50 == 1 { Ended::Failed } else { Ended::Done };
        let position = self.world.position(SUPERVISOR_LOG, "access/supervisor");
        let rows = (number % 1000) as u64;
        let outcome = AccessOutcome { position, intent, ended, rows, bytes: rows * 100 };
        self.sign("result", outcome, Role::Gateway, "supervisor").map(drop)
    }
}

/// What is asked.
fn questions(world: &World) -> anyhow::Result<Vec<(&'static str, Filter, Timeline)>> {
    let all = Filter::default;
    let now = world.clock.now();
    let hour = stdx::UnixTime::from_seconds(now.seconds().saturating_sub(3600));
    let country = |code: &str| code.parse::<CountryCode>();
    Ok(vec![
        ("everything", all(), Timeline::Left),
        ("country", Filter { country: vec![country("JP")?], ..all() }, Timeline::Left),
        ("who", Filter { who: Some("reader 7".to_owned()), ..all() }, Timeline::Left),
        ("missing", Filter { state: vec![AccessState::Missing], ..all() }, Timeline::Left),
        (
            "combined",
            Filter {
                employer: vec!["vendor".parse()?],
                country: vec![country("CH")?],
                purpose: vec![PURPOSE.parse()?],
                class: vec![APPROVED_CLASS.parse()?],
                state: vec![AccessState::Done],
                approvals_min: Some(1),
                bytes_min: Some(50_000),
                from: Some(hour),
                ..all()
            },
            Timeline::Left,
        ),
        ("timeline", Filter { country: vec![country("CH")?], ..all() }, Timeline::Drawn),
        ("nothing", Filter { employer: vec!["member".parse()?], ..all() }, Timeline::Left),
        ("statement", Filter { id: Some(StatementId::of(b"none")), ..all() }, Timeline::Left),
    ])
}

/// Real statements, read as from a log; then the index's blocks again and again, as if as many more had come.
pub(super) fn ledger(bench: &mut Bench) -> anyhow::Result<()> {
    let (first, sizes): (usize, &[usize]) = match bench.scale() {
        Scale::Full => (BLOCK, &[BLOCK, 16 * BLOCK, 153 * BLOCK]),
        Scale::Quick => (USES, &[USES]),
    };
    let mut maker = Maker::new();
    let folder = bench.folder().join("index");
    let names = fill(&mut maker, first)?;
    let entries = maker.world.supervisor_log.entries().len();
    bench.say(&format!("{first} accesses, {entries} entries"));
    let mut index = Index::open(&folder, SUPERVISOR_LOG.parse()?)?;
    let (seconds, ()) = bench.time(|| {
        let mut update = index.update(maker.world.policy()).context("the policy has a log of accesses")?;
        for (entry, at) in maker.world.supervisor_log.entries().iter().zip(0..) {
            update.entry(EntryIndex::new(at), entry)?;
        }
        Ok(())
    })?;
    index.name(&names)?;
    index.save(&maker.world.checkpoint(SUPERVISOR_LOG).to_string())?;
    #[expect(clippy::cast_precision_loss, reason = "fewer than a million")]
    let rate = entries as f64 / seconds;
    bench.row(Row::new("data/ledger/read", "entries/s", Figure::Median, &Samples::one(rate)));
    let mut curves: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for &size in sizes {
        repeat(&folder, size)?;
        for (name, median) in search(bench, &folder, &maker.world, size)? {
            #[expect(clippy::cast_precision_loss, reason = "millions")]
            let point = (size as f64, median);
            let has_room = curves.len() < LINES;
            match curves.iter_mut().find(|(it, _)| *it == name) {
                Some((_, points)) => points.push(point),
                None if has_room => curves.push((name, vec![point])),
                None => {}
            }
        }
    }
    let axis = |label: &str, scale| Axis { label: label.to_owned(), scale };
    let series = curves.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect();
    let (x, y) = (axis("accesses", Axes::Log), axis("ms", Axes::Linear));
    bench.picture("data-ledger", &Picture { title: "Searching the access ledger".to_owned(), x, y, series })
}

/// So many accesses by as many readers as need a request each, and the readers' names.
fn fill(maker: &mut Maker, count: usize) -> anyhow::Result<std::collections::BTreeMap<attest::Commitment, String>> {
    let sets: Vec<Vec<CountryCode>> =
        [&["DE"][..], &["CH"], &["JP"], &["CH", "DE"], &["DE", "JP"], &["CH", "DE", "JP"]]
            .iter()
            .map(|set| set.iter().map(|code| code.parse()).collect())
            .collect::<Result<_, _>>()?;
    let mut names = std::collections::BTreeMap::new();
    for (number, countries) in (0..count.div_ceil(USES)).zip(sets.iter().cycle()) {
        let name = format!("reader {number}");
        let reader = Opening::new(PrivateField { label: "reader", value: &name }, &SystemEntropy)?;
        names.insert(reader.commitment(), name);
        let request = maker.request(&reader, countries)?;
        for access in 0..USES {
            maker.access(request, countries, number * USES + access)?;
        }
        maker.world.clock.advance(std::time::Duration::from_secs(7));
    }
    Ok(names)
}

/// Makes the index's head name its first block as often as `rows` need, each time as a file of its own.
fn repeat(folder: &Path, rows: usize) -> anyhow::Result<()> {
    let path = folder.join("head");
    let mut head: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&std::fs::read(&path)?)?;
    let first = head.get("blocks").and_then(|blocks| blocks.get(0)).context("a head has blocks")?.clone();
    let save = first.get("save").and_then(serde_json::Value::as_u64).context("the save that wrote it")?;
    let of = |number: usize| -> PathBuf { folder.join(format!("{number}-{save}.rows")) };
    let wanted = rows / BLOCK;
    if wanted == 0 {
        return Ok(());
    }
    for number in 1..wanted {
        std::fs::copy(of(0), of(number))?;
    }
    head.insert("blocks".to_owned(), vec![first; wanted].into());
    head.insert("rows".to_owned(), (wanted * BLOCK).into());
    Ok(durable::write(&path, &serde_json::to_vec(&head)?)?)
}

/// Milliseconds of each question, from opening the index on.
fn search(bench: &mut Bench, folder: &Path, world: &World, size: usize) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let runs = bench.scale().of(30, 3);
    let now = world.clock.now().after(std::time::Duration::from_secs(86_400));
    let mut medians = Vec::new();
    for (name, filter, timeline) in questions(world)? {
        let wanted = Wanted { now, page: Page { rows: 20, before: None }, timeline };
        let one = |_| {
            let (seconds, total) = bench.time(|| {
                let index = Index::open(folder, SUPERVISOR_LOG.parse()?)?;
                Ok(index.search(&filter, &wanted)?.total)
            })?;
            let empty = matches!(name, "nothing" | "statement") || bench.scale() == Scale::Quick;
            anyhow::ensure!(total <= size as u64 && (empty || total > 0), "{name} found {total}");
            Ok(seconds * 1000.0)
        };
        // The first one finds what is not in memory.
        let first = one(0)?;
        let samples = Samples::new((0..runs).map(one).collect::<anyhow::Result<_>>()?)?;
        bench.say(&format!("{size} accesses, {name}: {:.1} ms, the first time {first:.1} ms", samples.median()));
        medians.push((name, samples.median()));
        let row = Row::new(format!("data/ledger/{name}/{size}"), "ms", Figure::Percentile(99.0), &samples);
        bench.row(row.target(Target::AtMost(SEARCH_MS_MAX)));
    }
    Ok(medians)
}
