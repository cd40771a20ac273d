//! What is found, compared with looking at each row: over block borders, in memory and from disk.

use stdx::{Entropy as _, SystemEntropy};

use super::*;
use crate::row::Row;

const ROWS: u64 = 2 * BLOCK_ROWS as u64 + 1000;
const START: u32 = 1_700_000_000;

fn origin() -> tlog::Origin {
    "supervisor.example/log".parse().unwrap()
}

/// Rows with values from `random`, an hour apart at most.
fn rows(index: &mut Index) -> Vec<Row> {
    let names = |names: &mut crate::names::Names, of: &[&str]| {
        for name in of {
            names.number(name);
        }
    };
    let state = &mut index.state;
    names(&mut state.who, &["Ada", "Grace", "Alan"]);
    names(&mut state.employers, &["vendor", "supervisor"]);
    names(&mut state.purposes, &["one", "two"]);
    names(&mut state.classes, &["detections", "statistics"]);
    names(&mut state.regions, &["zurich"]);
    names(&mut state.countries, &["DE", "DE JP", "CH"]);
    let mut random = [0; 64];
    let mut time = START;
    (0..ROWS)
        .map(|entry| {
            SystemEntropy.fill(&mut random).unwrap();
            let mut next = random.iter().copied();
            let mut below = |count: u8| next.next().unwrap() % count;
            time += u32::from(below(60)) * 60;
            let row = Row {
                entry,
                outcome: NONE,
                rows: u64::from(below(200)),
                bytes: u64::from(below(200)) * 1000,
                objects: u32::from(below(9)),
                time,
                until: time + 600,
                who: u32::from(below(4)),
                countries: u32::from(1 + below(3)),
                request: NO_ROW,
                employer: u16::from(1 + below(2)),
                purpose: u16::from(1 + below(2)),
                region: 1,
                class: u16::from(1 + below(2)),
                what: below(4),
                state: below(4),
                kind: 1 + below(2),
                mode: 1 + below(2),
                approvals: below(4),
                id: *Digest::of(&entry.to_be_bytes()).as_bytes(),
                reader: [0; 32],
            };
            index.push(row).unwrap();
            row
        })
        .collect()
}

fn filters(rows: &[Row]) -> Vec<Filter> {
    let at = |row: usize| Some(UnixTime::from_seconds(rows[row].time.into()));
    let all = Filter { what: What::ALL.to_vec(), ..Filter::default() };
    vec![
        all.clone(),
        Filter::default(),
        Filter { who: Some("A".to_owned()), employer: vec!["vendor".parse().unwrap()], ..all.clone() },
        Filter { country: vec!["JP".parse().unwrap()], bytes_min: Some(150_000), ..all.clone() },
        Filter { from: at(70_000), until: at(130_000), purpose: vec!["two".parse().unwrap()], ..all.clone() },
        Filter { from: at(131_990), approvals_min: Some(1), approvals_max: Some(2), ..all.clone() },
        Filter { state: vec![AccessState::Missing, AccessState::Failed], ..all.clone() },
        Filter { state: vec![AccessState::Open], kind: Some(attest::ReaderKind::Service), ..all.clone() },
        Filter { id: Some(StatementId::from_digest(Digest::of(&99_999_u64.to_be_bytes()))), ..all.clone() },
        Filter { class: vec!["none".parse().unwrap()], ..all },
    ]
}

fn is(filter: &Filter, row: &Access) -> bool {
    let any = |wanted: bool, none: bool| wanted || none;
    any(filter.what.contains(&row.what), filter.what.is_empty() && row.what == What::Access)
        && filter.who.iter().all(|who| row.who.iter().any(|it| it.to_lowercase().contains(&who.to_lowercase())))
        && any(filter.employer.iter().any(|it| it.as_str() == row.employer), filter.employer.is_empty())
        && any(filter.purpose.iter().any(|it| it.as_str() == row.purpose), filter.purpose.is_empty())
        && any(filter.class.iter().any(|it| it.as_str() == row.class), filter.class.is_empty())
        && any(filter.country.iter().any(|it| row.countries.contains(it)), filter.country.is_empty())
        && filter.from.is_none_or(|from| row.time >= from)
        && filter.until.is_none_or(|until| row.time < until)
        && filter.approvals_min.is_none_or(|least| row.approvals >= least)
        && filter.approvals_max.is_none_or(|most| row.approvals <= most)
        && filter.bytes_min.is_none_or(|least| row.bytes >= least)
        && any(filter.state.contains(&row.state), filter.state.is_empty())
        && filter.kind.is_none_or(|kind| row.kind == Some(kind))
        && filter.id.is_none_or(|id| row.id == id)
}

#[test]
fn every_filter_finds_what_looking_at_each_row_finds() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = Index::open(&folder.path().join("index"), origin()).unwrap();
    let rows = rows(&mut index);
    let now = UnixTime::from_seconds(u64::from(rows[100_000].time) + 1200);
    let filters = filters(&rows);
    let seen: Vec<Access> = rows.iter().map(|row| index.state.access(row, now)).collect();
    let check = |index: &Index, before: Option<u64>| {
        let wanted = Wanted { now, page: Page { rows: 7, before }, timeline: Timeline::Drawn };
        for filter in &filters {
            let found = index.search(filter, &wanted).unwrap();
            let all: Vec<&Row> = rows.iter().zip(&seen).filter(|(_, it)| is(filter, it)).map(|(row, _)| row).collect();
            assert_eq!(found.total, all.len() as u64, "{filter:?}");
            let newest = all.iter().rev().filter(|row| before.is_none_or(|before| row.entry < before)).take(8);
            let mut entries: Vec<u64> = newest.map(|row| row.entry).collect();
            let more = entries.len() == 8;
            entries.truncate(7);
            let shown: Vec<u64> = found.accesses.iter().map(|it| it.entry).collect();
            assert_eq!((&shown, found.next), (&entries, entries.last().copied().filter(|_| more)), "{filter:?}");
            let sum = |of: fn(&Row) -> u64| all.iter().map(|row| of(row)).sum::<u64>();
            let sums =
                Sums { objects: sum(|it| it.objects.into()), rows: sum(|it| it.rows), bytes: sum(|it| it.bytes) };
            assert_eq!(found.sums, Some(sums), "{filter:?}");
            assert!(found.timeline.len() <= 64);
            for bucket in found.timeline.iter().step_by(9) {
                let within = |row: &&&Row| (bucket.from.seconds()..bucket.until.seconds()).contains(&row.time.into());
                assert_eq!(bucket.total, all.iter().filter(within).count() as u64, "{filter:?}");
            }
            assert_eq!(found.timeline.iter().map(|it| it.total).sum::<u64>(), found.total, "{filter:?}");
        }
    };
    check(&index, None);
    index.save("checkpoint").unwrap();
    let index = Index::open(&folder.path().join("index"), origin()).unwrap();
    check(&index, None);
    check(&index, Some(70_000));
}
