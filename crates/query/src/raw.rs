//! Batches as endpoints seal them: one event a line of JSON.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray as _, RecordBatch, StringViewArray, StructArray, TimestampSecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::ReaderBuilder;
use stdx::UnixTime;

use crate::table::{Column, Table, data_type};

/// Rows of one batch of ours.
const ROWS_MAX: usize = 8192;

/// What is known of a batch without opening it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) taken: UnixTime,
    pub(crate) country: &'a str,
}

/// Reads the lines of one object into the columns of `table`. Endpoints are strangers: a line that is not what
/// it must be spoils its object, and nothing else.
pub(crate) fn read(table: &Table, lines: &[u8], known: Known<'_>) -> Result<Vec<RecordBatch>, ArrowError> {
    let nested = Arc::new(Schema::new(nested(&table.columns().iter().map(|it| (it.path, it)).collect::<Vec<_>>())));
    let reader = ReaderBuilder::new(nested).with_strict_mode(true).with_batch_size(ROWS_MAX).build(lines)?;
    reader.map(|batch| flat(table, &StructArray::from(batch?), known)).collect()
}

/// The schema of an event, of which `columns` are the leaves.
fn nested(columns: &[(&'static [&'static str], &Column)]) -> Fields {
    let mut fields: Vec<Field> = Vec::new();
    for (path, column) in columns {
        let Some((first, rest)) = path.split_first() else { continue };
        if fields.iter().any(|field| field.name() == first) {
            continue;
        }
        if rest.is_empty() {
            fields.push(Field::new(*first, data_type(column.kind), false));
            continue;
        }
        let below = columns.iter().filter(|(path, _)| path.first() == Some(first));
        let below: Vec<_> =
            below.filter_map(|(path, column)| path.split_first().map(|(_, rest)| (rest, *column))).collect();
        fields.push(Field::new(*first, DataType::Struct(nested(&below)), false));
    }
    fields.into()
}

fn flat(table: &Table, events: &StructArray, known: Known<'_>) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    for column in table.columns() {
        columns.push(leaf(events, column.path)?);
    }
    let rows = events.len();
    let taken = i64::try_from(known.taken.seconds()).map_err(|error| ArrowError::CastError(error.to_string()))?;
    columns.push(Arc::new(TimestampSecondArray::from_value(taken, rows).with_timezone("UTC")));
    columns.push(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(known.country, rows))));
    RecordBatch::try_new(table.schema(), columns)
}

fn leaf(events: &StructArray, path: &[&str]) -> Result<ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError("an event has another form".to_owned());
    let (first, rest) = path.split_first().ok_or_else(missing)?;
    let column = events.column_by_name(first).ok_or_else(missing)?;
    match column.as_struct_opt() {
        Some(inner) if !rest.is_empty() => leaf(inner, rest),
        None if rest.is_empty() => Ok(Arc::clone(column)),
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, read};
    use crate::table::Table;
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use stdx::UnixTime;

    const KNOWN: Known<'_> = Known { taken: UnixTime::from_seconds(1_767_225_600), country: "DE" };

    #[test]
    fn events_of_every_class_become_rows() {
        let cases = [
            (
                "detections",
                r#"{"id":"00","hour":"2026-01-01T10:00:00Z","body":{"detection":{"rule":"r","sha256":"aa","size":7}}}"#,
                "00 | 2026-01-01T10:00:00Z | r    | aa     | 7    | 2026-01-01T00:00:00Z | DE",
            ),
            (
                "verdicts",
                r#"{"id":"00","hour":"2026-01-01T10:00:00Z","body":{"verdict":{"sha256":"aa","found":"bucket"}}}"#,
                "00 | 2026-01-01T10:00:00Z | aa     | bucket | 2026-01-01T00:00:00Z | DE",
            ),
            (
                "statistics",
                r#"{"id":"00","hour":"2026-01-01T10:00:00Z","body":{"statistic":{"of":"scans","tally":{"files":9,"found":1}}}}"#,
                "00 | 2026-01-01T10:00:00Z | scans   | 9     | 1     | 2026-01-01T00:00:00Z | DE",
            ),
            (
                "content",
                r#"{"id":"00","hour":"2026-01-01T10:00:00Z","body":{"content":{"rule":"r","sha256":"aa","content":"AAAA"}}}"#,
                "00 | 2026-01-01T10:00:00Z | r    | aa     | AAAA    | 2026-01-01T00:00:00Z | DE",
            ),
        ];
        for (class, line, row) in cases {
            let table = Table::of(class).unwrap();
            let batches = read(table, format!("{line}\n{line}\n").as_bytes(), KNOWN).unwrap();
            let text = pretty_format_batches(&batches).unwrap().to_string();
            assert_eq!(text.matches(row).count(), 2, "{text}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        let table = Table::of("detections").unwrap();
        for line in [
            "x",
            "{}",
            r#"{"id":"00","hour":"2026-01-01T10:00:00Z","body":{"verdict":{"sha256":"aa","found":"bucket"}}}"#,
            r#"{"id":"00","hour":"yesterday","body":{"detection":{"rule":"r","sha256":"aa","size":7}}}"#,
            r#"{"id":"00","hour":"2026-01-01T10:00:00Z","body":{"detection":{"rule":"r","sha256":"aa","size":-7}}}"#,
            r#"{"id":"00","hour":"2026-01-01T10:00:00Z","more":1,"body":{"detection":{"rule":"r","sha256":"aa","size":7}}}"#,
        ] {
            assert!(read(table, line.as_bytes(), KNOWN).is_err(), "{line}");
        }
        assert!(read(table, b"", KNOWN).unwrap().is_empty());
    }
}
