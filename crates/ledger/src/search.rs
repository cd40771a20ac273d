//! Searching: each column that is asked about is read as a whole, block by block, newest first.
//!
//! Ten million rows are 160 blocks. No index of values is kept: whatever is asked, and however it is combined,
//! takes the time in which the columns asked about go through memory, and gives exact numbers.

use std::num::NonZero;

use attest::{CountryCode, StatementId};
use serde::Serialize;
use stdx::{Digest, UnixTime};

use crate::apply::{REDACTED, kind_code, mode_code, overdue};
use crate::filter::{AccessState, Filter, What};
use crate::index::{Block, Index, IndexError, State, place};
use crate::row::{BLOCK_ROWS, Column, NO_ROW, NONE, Row, decode};

/// A picture has room for so many bars.
const BUCKETS_MAX: u64 = 64;

/// Of a timeline's bars, in seconds: a minute, an hour, a day, a week, 30 days, a year.
const WIDTHS: [u64; 6] = [60, 3600, 86_400, 604_800, 2_592_000, 31_536_000];

/// What of the result is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// As of when: an access without an outcome is missing or not.
    pub now: UnixTime,
    /// Which rows.
    pub page: Page,
    /// Whether sums and the timeline are, too.
    pub timeline: Timeline,
}

/// Rows to be shown, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// How many at most.
    pub rows: usize,
    /// Those before this one: [`Found::next`] of the page before.
    pub before: Option<u64>,
}

/// Whether to draw a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeline {
    /// Yes.
    Drawn,
    /// No.
    Left,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How many rows.
    pub total: u64,
    /// Some of them, newest first.
    pub accesses: Vec<Access>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Of all rows that were found, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sums: Option<Sums>,
    /// Oldest first, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Bucket>,
}

/// What accesses come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Sealed objects.
    pub objects: u64,
    /// Rows that were given out.
    pub rows: u64,
    /// Bytes that were given out.
    pub bytes: u64,
}

/// A piece of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Its beginning.
    pub from: UnixTime,
    /// Its end, which is the next one's beginning.
    pub until: UnixTime,
    /// How many rows.
    pub total: u64,
    /// Of them those that did not end as they should: failed, refused, missing.
    pub bad: u64,
    /// Bytes that were given out.
    pub bytes: u64,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Its entry's index in the log.
    pub entry: u64,
    /// Its statement.
    pub id: StatementId,
    /// What it is.
    pub what: What,
    /// When.
    pub time: UnixTime,
    /// How it stands.
    pub state: AccessState,
    /// Who, if that is known to whoever made this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Whether who was deleted, by a redaction.
    pub redacted: bool,
    /// The reader's organisation.
    pub employer: String,
    /// A person or a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<attest::ReaderKind>,
    /// What for.
    pub purpose: String,
    /// Where.
    pub region: String,
    /// What kind of data.
    pub class: String,
    /// Whose.
    pub countries: Vec<CountryCode>,
    /// How loud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<attest::AccessMode>,
    /// How many people have approved.
    pub approvals: u8,
    /// Sealed objects.
    pub objects: u32,
    /// Rows that were given out.
    pub rows: u64,
    /// Bytes that were given out.
    pub bytes: u64,
    /// Until when it is good.
    pub until: UnixTime,
    /// The outcome's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<u64>,
}

impl Index {
    /// What `filter` finds.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn search(&self, filter: &Filter, wanted: &Wanted) -> Result<Found, IndexError> {
        let search = Search::new(&self.state, filter, wanted);
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let blocks: Vec<usize> = (0..self.state.blocks.len()).rev().filter(|it| search.may_hold(*it)).collect();
        let parts: Vec<Vec<usize>> =
            (0..threads).map(|thread| blocks.iter().copied().skip(thread).step_by(threads).collect()).collect();
        let search = &search;
        let found: Vec<Result<Part, IndexError>> = std::thread::scope(|scope| {
            let running: Vec<_> =
                parts.iter().map(|numbers| scope.spawn(move || search.blocks(self, numbers))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(Part::default()))).collect()
        });
        let mut whole = Part::default();
        for part in found {
            whole.add(part?);
        }
        whole.hits.sort_unstable_by(|left, right| right.cmp(left));
        let next = whole
            .hits
            .get(wanted.page.rows.saturating_sub(1))
            .copied()
            .filter(|_| whole.hits.len() > wanted.page.rows && wanted.page.rows > 0);
        whole.hits.truncate(wanted.page.rows);
        let accesses = whole.hits.iter().map(|ordinal| self.access(*ordinal, wanted.now)).collect::<Result<_, _>>()?;
        let drawn = wanted.timeline == Timeline::Drawn;
        Ok(Found {
            total: whole.total,
            accesses,
            next: next.map(u64::from),
            sums: drawn.then_some(whole.sums),
            timeline: if drawn { search.timeline(&whole.buckets) } else { Vec::new() },
        })
    }

    /// The row of this number.
    fn row(&self, ordinal: u32) -> Result<Option<Row>, IndexError> {
        let (number, at) = place(ordinal);
        let block = self.block(number)?;
        let (mut bytes, mut value) = (Vec::new(), Vec::new());
        for column in Column::ALL {
            block.read(*column, at..at + 1, &mut value)?;
            bytes.extend_from_slice(&value);
        }
        Ok(decode(&bytes).and_then(|rows| rows.first().copied()))
    }

    fn access(&self, ordinal: u32, now: UnixTime) -> Result<Access, IndexError> {
        let Some(row) = self.row(ordinal)? else { return Err(IndexError::Full) };
        Ok(self.state.access(&row, now))
    }
}

impl State {
    fn access(&self, row: &Row, now: UnixTime) -> Access {
        let time = |seconds: u32| UnixTime::from_seconds(seconds.into());
        let state = AccessState::ALL.into_iter().find(|it| it.code() == row.state).unwrap_or(AccessState::Open);
        let missing = state == AccessState::Open && row.until < overdue(now);
        let countries = self.countries.name(row.countries).split(' ').filter_map(|it| it.parse().ok()).collect();
        let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        let code = |code: u8, kinds: [u8; 2]| kinds.iter().position(|it| *it == code);
        let kinds = [attest::ReaderKind::Person, attest::ReaderKind::Service];
        let modes = [attest::AccessMode::Ordinary, attest::AccessMode::BreakGlass];
        Access {
            entry: row.entry,
            id: StatementId::from_digest(Digest::from_bytes(row.id)),
            what: What::ALL.into_iter().find(|it| it.code() == row.what).unwrap_or(What::Access),
            time: time(row.time),
            state: if missing { AccessState::Missing } else { state },
            who: if row.who == REDACTED { None } else { name(self.who.name(row.who)) },
            redacted: row.who == REDACTED,
            employer: self.employers.name(row.employer.into()).to_owned(),
            kind: code(row.kind, kinds.map(kind_code)).and_then(|at| kinds.get(at).copied()),
            purpose: self.purposes.name(row.purpose.into()).to_owned(),
            region: self.regions.name(row.region.into()).to_owned(),
            class: self.classes.name(row.class.into()).to_owned(),
            countries,
            mode: code(row.mode, modes.map(mode_code)).and_then(|at| modes.get(at).copied()),
            approvals: row.approvals,
            objects: row.objects,
            rows: row.rows,
            bytes: row.bytes,
            until: time(row.until),
            outcome: Some(row.outcome).filter(|entry| *entry != NONE),
        }
    }
}

/// What one column must be like.
enum Test {
    /// Between, both included.
    Range(u64, u64),
    /// One of the numbers whose bit is set.
    One(Vec<bool>),
}

/// A filter, in the index's numbers.
struct Search<'a> {
    state: &'a State,
    tests: Vec<(Column, Test)>,
    id: Option<[u8; 32]>,
    /// Accesses that are open count as missing before this, and those after it do not.
    overdue: u32,
    states: Option<Vec<AccessState>>,
    times: (u32, u32),
    width: u64,
    origin: u64,
    wanted: &'a Wanted,
}

/// What some blocks gave.
#[derive(Default)]
struct Part {
    total: u64,
    sums: Sums,
    buckets: Vec<Bar>,
    hits: Vec<u32>,
}

/// A bar of the timeline.
#[derive(Clone, Copy, Default)]
struct Bar {
    total: u64,
    bad: u64,
    bytes: u64,
}

impl Part {
    fn add(&mut self, other: Self) {
        self.total += other.total;
        self.sums.add(other.sums);
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), Bar::default());
        for (bar, other) in self.buckets.iter_mut().zip(other.buckets) {
            bar.total += other.total;
            bar.bad += other.bad;
            bar.bytes = bar.bytes.saturating_add(other.bytes);
        }
        self.hits.extend(other.hits);
    }
}

impl Sums {
    const fn add(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl<'a> Search<'a> {
    fn new(state: &'a State, filter: &Filter, wanted: &'a Wanted) -> Self {
        let times = (
            filter.from.map_or(0, |from| u32::try_from(from.seconds()).unwrap_or(u32::MAX)),
            filter.until.map_or(u32::MAX, |until| u32::try_from(until.seconds()).unwrap_or(u32::MAX)),
        );
        let within = |block: &&crate::index::BlockAt| block.last >= times.0 && block.first < times.1;
        let blocks = state.blocks.iter().filter(within);
        let (first, last) = blocks.fold((u32::MAX, 0), |(first, last), it| (first.min(it.first), last.max(it.last)));
        let (first, last) = (u64::from(first.max(times.0)), u64::from(last.min(times.1)));
        let fits = |width: &u64| last.saturating_sub(first) / width < BUCKETS_MAX - 1;
        let width = WIDTHS.into_iter().find(fits).unwrap_or(last.saturating_sub(first) / (BUCKETS_MAX - 1) + 1);
        Self {
            state,
            tests: tests(state, filter, times),
            id: filter.id.map(|id| *id.digest().as_bytes()),
            overdue: overdue(wanted.now),
            states: Some(filter.state.clone()).filter(|states| !states.is_empty()),
            times,
            width,
            origin: first.min(last) / width * width,
            wanted,
        }
    }

    /// Whether a block can have what is looked for.
    fn may_hold(&self, number: usize) -> bool {
        self.state.blocks.get(number).is_some_and(|it| it.last >= self.times.0 && it.first < self.times.1)
    }

    fn blocks(&self, index: &Index, numbers: &[usize]) -> Result<Part, IndexError> {
        let mut whole = Part::default();
        let mut buffer = Vec::new();
        for number in numbers {
            let block = index.block(*number)?;
            let mask = self.mask(&block, &mut buffer)?;
            let mut part = Part::default();
            self.gather(*number, &block, &mask, &mut part)?;
            // The newest of a thread's blocks come first; no thread has to keep more than a page and one.
            let room = (self.wanted.page.rows + 1).saturating_sub(whole.hits.len());
            part.hits.truncate(room);
            whole.add(part);
        }
        Ok(whole)
    }

    /// One bit a row: whether it is one.
    fn mask(&self, block: &Block, buffer: &mut Vec<u8>) -> Result<Vec<u64>, IndexError> {
        let mut mask = vec![u64::MAX; block.rows.div_ceil(64)];
        if let (Some(last), rest @ 1..) = (mask.last_mut(), block.rows % 64) {
            *last = (1 << rest) - 1;
        }
        for (column, test) in &self.tests {
            if mask.iter().all(|word| *word == 0) {
                return Ok(mask);
            }
            block.read(*column, 0..block.rows, buffer)?;
            match test {
                Test::Range(low, high) => narrow(column.width(), buffer, &mut mask, |it| *low <= it && it <= *high),
                Test::One(wanted) => narrow(column.width(), buffer, &mut mask, |it| {
                    usize::try_from(it).ok().and_then(|it| wanted.get(it)).copied().unwrap_or(false)
                }),
            }
        }
        if let Some(states) = &self.states {
            self.by_state(states, block, buffer, &mut mask)?;
        }
        if let Some(id) = &self.id {
            block.read(Column::Id, 0..block.rows, buffer)?;
            for (word, rows) in mask.iter_mut().zip(buffer.chunks(64 * 32)) {
                *word &= bits(rows.chunks_exact(32).map(|it| it == id));
            }
        }
        Ok(mask)
    }

    /// An access without an outcome is open or missing, which depends on when one looks.
    fn by_state(
        &self,
        states: &[AccessState],
        block: &Block,
        buffer: &mut Vec<u8>,
        mask: &mut [u64],
    ) -> Result<(), IndexError> {
        let wanted = |state: AccessState| states.contains(&state);
        let mut plain = vec![false; AccessState::ALL.len()];
        for (is, state) in plain.iter_mut().zip(AccessState::ALL) {
            *is = wanted(state);
        }
        let [open, missing] = [AccessState::Open, AccessState::Missing].map(wanted);
        block.read(Column::State, 0..block.rows, buffer)?;
        let states = std::mem::take(buffer);
        block.read(Column::Until, 0..block.rows, buffer)?;
        for (word, (states, untils)) in mask.iter_mut().zip(states.chunks(64).zip(buffer.chunks(64 * 4))) {
            let rows = states.iter().zip(untils.chunks_exact(4));
            *word &= bits(rows.map(|(state, until)| {
                if *state != AccessState::Open.code() {
                    return plain.get(usize::from(*state)).copied().unwrap_or(false);
                }
                if le(until) < u64::from(self.overdue) { missing } else { open }
            }));
        }
        Ok(())
    }

    /// Counts, sums and the newest rows of a block.
    fn gather(&self, number: usize, block: &Block, mask: &[u64], part: &mut Part) -> Result<(), IndexError> {
        part.total = mask.iter().map(|word| u64::from(word.count_ones())).sum();
        if part.total == 0 {
            return Ok(());
        }
        let first = u32::try_from(number * BLOCK_ROWS).unwrap_or(NO_ROW);
        let newest = ones(mask).rev().map(|at| first.saturating_add(u32::try_from(at).unwrap_or(0)));
        let before = |ordinal: &u32| self.wanted.page.before.is_none_or(|before| u64::from(*ordinal) < before);
        part.hits = newest.filter(before).take(self.wanted.page.rows + 1).collect();
        if self.wanted.timeline == Timeline::Left {
            return Ok(());
        }
        let mut columns = [const { Vec::new() }; 6];
        let names = [Column::Objects, Column::Rows, Column::Bytes, Column::Time, Column::State, Column::Until];
        for (column, name) in columns.iter_mut().zip(names) {
            block.read(name, 0..block.rows, column)?;
        }
        let [objects, rows, bytes, times, states, untils] = &columns;
        let buckets = usize::try_from(BUCKETS_MAX).unwrap_or(0) + 1;
        part.buckets.resize(buckets, Bar::default());
        for at in ones(mask) {
            let bytes = value(bytes, 8, at);
            part.sums.add(Sums { objects: value(objects, 4, at), rows: value(rows, 8, at), bytes });
            let bucket = value(times, 4, at).saturating_sub(self.origin) / self.width;
            let Some(bar) = usize::try_from(bucket).ok().and_then(|it| part.buckets.get_mut(it)) else { continue };
            bar.total += 1;
            bar.bytes = bar.bytes.saturating_add(bytes);
            bar.bad += u64::from(self.is_bad(value(states, 1, at), value(untils, 4, at)));
        }
        Ok(())
    }

    fn is_bad(&self, state: u64, until: u64) -> bool {
        let is = |it: AccessState| state == u64::from(it.code());
        is(AccessState::Failed) || is(AccessState::Refused) || is(AccessState::Open) && until < u64::from(self.overdue)
    }

    fn timeline(&self, bars: &[Bar]) -> Vec<Bucket> {
        let Some(last) = bars.iter().rposition(|bar| bar.total > 0) else { return Vec::new() };
        let bars = bars.iter().take(last + 1).zip(0_u64..).skip_while(|(bar, _)| bar.total == 0);
        let at = |number: u64| UnixTime::from_seconds(self.origin + number * self.width);
        bars.map(|(bar, number)| Bucket {
            from: at(number),
            until: at(number + 1),
            total: bar.total,
            bad: bar.bad,
            bytes: bar.bytes,
        })
        .collect()
    }
}

/// A filter's members, those first that are cheap and leave little.
fn tests(state: &State, filter: &Filter, times: (u32, u32)) -> Vec<(Column, Test)> {
    let mut tests = Vec::new();
    let mut test = |column, test| tests.push((column, test));
    let what = if filter.what.is_empty() { &[What::Access][..] } else { &filter.what };
    test(Column::What, Test::One(What::ALL.iter().map(|it| what.contains(it)).collect()));
    if let Some(kind) = filter.kind {
        test(Column::Kind, Test::Range(kind_code(kind).into(), kind_code(kind).into()));
    }
    if let Some(mode) = filter.mode {
        test(Column::Mode, Test::Range(mode_code(mode).into(), mode_code(mode).into()));
    }
    if filter.approvals_min.is_some() || filter.approvals_max.is_some() {
        let (low, high) = (filter.approvals_min.unwrap_or(0), filter.approvals_max.unwrap_or(u8::MAX));
        test(Column::Approvals, Test::Range(low.into(), high.into()));
    }
    if !filter.employer.is_empty() {
        let one = state.employers.wanted(|name| filter.employer.iter().any(|it| it.as_str() == name));
        test(Column::Employer, Test::One(one));
    }
    if !filter.purpose.is_empty() {
        let one = state.purposes.wanted(|name| filter.purpose.iter().any(|it| it.as_str() == name));
        test(Column::Purpose, Test::One(one));
    }
    if !filter.region.is_empty() {
        let one = state.regions.wanted(|name| filter.region.iter().any(|it| it.as_str() == name));
        test(Column::Region, Test::One(one));
    }
    if !filter.class.is_empty() {
        let one = state.classes.wanted(|name| filter.class.iter().any(|it| it.as_str() == name));
        test(Column::Class, Test::One(one));
    }
    if !filter.country.is_empty() {
        let any = |name: &str| name.split(' ').any(|name| filter.country.iter().any(|it| it.as_str() == name));
        test(Column::Countries, Test::One(state.countries.wanted(any)));
    }
    if let Some(who) = &filter.who {
        let who = who.to_lowercase();
        test(Column::Who, Test::One(state.who.wanted(|name| name.to_lowercase().contains(&who))));
    }
    if times != (0, u32::MAX) {
        test(Column::Time, Test::Range(times.0.into(), u64::from(times.1).saturating_sub(1)));
    }
    if let Some(rows) = filter.rows_min {
        test(Column::Rows, Test::Range(rows, u64::MAX));
    }
    if let Some(bytes) = filter.bytes_min {
        test(Column::Bytes, Test::Range(bytes, u64::MAX));
    }
    tests
}

/// Takes away the bits of rows whose value is not `good`.
fn narrow(width: usize, values: &[u8], mask: &mut [u64], good: impl Fn(u64) -> bool) {
    for (word, values) in mask.iter_mut().zip(values.chunks(64 * width)) {
        if *word == 0 {
            continue;
        }
        // One loop for each width, so that each is as short as it can be.
        *word &= match width {
            1 => bits(values.iter().map(|it| good((*it).into()))),
            2 => bits(values.as_chunks::<2>().0.iter().map(|it| good(u16::from_le_bytes(*it).into()))),
            4 => bits(values.as_chunks::<4>().0.iter().map(|it| good(u32::from_le_bytes(*it).into()))),
            _ => bits(values.as_chunks::<8>().0.iter().map(|it| good(u64::from_le_bytes(*it)))),
        };
    }
}

fn bits(rows: impl Iterator<Item = bool>) -> u64 {
    rows.zip(0_u32..).fold(0, |word, (is, at)| word | u64::from(is) << at)
}

/// The numbers of the bits that are set.
fn ones(mask: &[u64]) -> impl DoubleEndedIterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(word, bits)| {
        let bits = *bits;
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
    })
}

fn value(values: &[u8], width: usize, at: usize) -> u64 {
    values.get(at * width..(at + 1) * width).map_or(0, le)
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
