//! The tables: one for each class of data that endpoints share, as `docs/formats/events.md` has the events.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Count,
    Time,
}

/// What of a column may leave, in the order of how little that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Egress {
    /// Its values.
    Given,
    /// What is computed from many of them.
    Measured,
    /// Nothing: it can be asked for only in conditions.
    Kept,
}

/// A column, and where in an event it stands.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) egress: Egress,
    pub(crate) path: &'static [&'static str],
}

/// The events of a class.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    columns: &'static [Column],
    /// A text that is longer does not leave.
    pub(crate) text_bytes_max: usize,
}

const fn column(name: &'static str, kind: Kind, egress: Egress, path: &'static [&'static str]) -> Column {
    Column { name, kind, egress, path }
}

/// The number of an event tells it from all others, and nobody needs to know it.
const ID: Column = column("id", Kind::Text, Egress::Measured, &["id"]);
const HOUR: Column = column("hour", Kind::Time, Egress::Given, &["hour"]);

/// A rule's name, a hash, a word.
const SHORT: usize = 1 << 10;

/// 8 MiB of a file, in base64.
const CONTENT: usize = 12 << 20;

/// What the intake knew, and what the object is bound to: they follow the columns of every table.
pub(crate) const TAKEN: &str = "taken";
pub(crate) const COUNTRY: &str = "country";

const TABLES: &[Table] = &[
    Table {
        name: "detections",
        columns: &[
            ID,
            HOUR,
            column("rule", Kind::Text, Egress::Given, &["body", "detection", "rule"]),
            column("sha256", Kind::Text, Egress::Given, &["body", "detection", "sha256"]),
            column("size", Kind::Count, Egress::Given, &["body", "detection", "size"]),
        ],
        text_bytes_max: SHORT,
    },
    Table {
        name: "verdicts",
        columns: &[
            ID,
            HOUR,
            column("sha256", Kind::Text, Egress::Given, &["body", "verdict", "sha256"]),
            column("found", Kind::Text, Egress::Given, &["body", "verdict", "found"]),
        ],
        text_bytes_max: SHORT,
    },
    Table {
        name: "statistics",
        columns: &[
            ID,
            HOUR,
            column("counted", Kind::Text, Egress::Given, &["body", "statistic", "of"]),
            column("files", Kind::Count, Egress::Measured, &["body", "statistic", "tally", "files"]),
            column("found", Kind::Count, Egress::Measured, &["body", "statistic", "tally", "found"]),
        ],
        text_bytes_max: SHORT,
    },
    Table {
        name: "content",
        columns: &[
            ID,
            HOUR,
            column("rule", Kind::Text, Egress::Given, &["body", "content", "rule"]),
            column("sha256", Kind::Text, Egress::Given, &["body", "content", "sha256"]),
            column("content", Kind::Text, Egress::Given, &["body", "content", "content"]),
        ],
        text_bytes_max: CONTENT,
    },
];

impl Table {
    /// The table of a class, if queries know it.
    #[must_use]
    pub fn of(class: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == class)
    }

    /// Its name, which is its class's.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn columns(&self) -> &'static [Column] {
        self.columns
    }

    /// What of a column may leave. When an event was taken, and its country, stand in the open anyway.
    pub(crate) fn egress(&self, column: &str) -> Egress {
        if column == TAKEN || column == COUNTRY {
            return Egress::Given;
        }
        self.columns.iter().find(|it| it.name == column).map_or(Egress::Kept, |it| it.egress)
    }

    /// What columnar objects have: all but the country, which their headers say.
    #[must_use]
    pub fn file_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|it| Field::new(it.name, data_type(it.kind), false));
        Arc::new(Schema::new(fields.chain([Field::new(TAKEN, time(), false)]).collect::<Fields>()))
    }

    /// All columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let file = self.file_schema();
        let fields = file.fields().iter().cloned().chain([country_field()]);
        Arc::new(Schema::new(fields.collect::<Fields>()))
    }
}

pub(crate) fn country_field() -> Arc<Field> {
    Arc::new(Field::new(COUNTRY, DataType::Utf8View, false))
}

pub(crate) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::Utf8View,
        Kind::Count => DataType::UInt64,
        Kind::Time => time(),
    }
}

/// Seconds, in UTC.
pub(crate) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Second, Some("UTC".into()))
}
