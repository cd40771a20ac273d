//! Events in columns, as they are written anew: Parquet in memory, each event once.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringViewArray};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::errors::ParquetError;
use seal::BatchId;
use stdx::Digest;

use crate::table::{Table, data_type};

/// A file is not continued beyond this. A sealed object has 256 MiB at most.
const FILE_BYTES: usize = 32 << 20;

/// The object in which an event came. Queries don't see it.
const BATCH: &str = "batch";

/// What files have: the table's columns without the country, which their headers say, and where each event came from.
pub(crate) fn written(table: &Table) -> SchemaRef {
    let file = table.file_schema();
    let batch = Arc::new(Field::new(BATCH, DataType::Utf8View, false));
    Arc::new(Schema::new(file.fields().iter().cloned().chain([batch]).collect::<Fields>()))
}

/// Why columns can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ColumnsError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error("other columns than are written here")]
    Schema,
}

/// The events that a file has.
pub(crate) fn read(table: &Table, file: Bytes) -> Result<Vec<RecordBatch>, ColumnsError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    if reader.schema().fields() != written(table).fields() {
        return Err(ColumnsError::Schema);
    }
    Ok(reader.build()?.collect::<Result<_, _>>()?)
}

/// Events as they come from an endpoint's batch, with its name: country is the last of the table's columns.
pub(crate) fn named(table: &Table, events: &RecordBatch, batch: BatchId) -> Result<RecordBatch, ColumnsError> {
    let mut columns: Vec<ArrayRef> = events.columns().to_vec();
    columns.pop();
    let name = batch.to_string();
    columns.push(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(&name, events.num_rows()))));
    Ok(RecordBatch::try_new(written(table), columns)?)
}

/// Files that are being written, of one country.
pub(crate) struct Columns {
    schema: SchemaRef,
    /// What an endpoint wrote of an event.
    own: Vec<usize>,
    rows: RowConverter,
    seen: HashSet<[u8; 16]>,
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// Events that were written.
    pub(crate) events: u64,
    /// Events that had been written before, to the byte.
    pub(crate) doubles: u64,
}

impl Columns {
    pub(crate) fn new(table: &Table) -> Result<Self, ColumnsError> {
        let fields = table.columns().iter().map(|column| SortField::new(data_type(column.kind)));
        Ok(Self {
            schema: written(table),
            own: (0..table.columns().len()).collect(),
            rows: RowConverter::new(fields.collect())?,
            seen: HashSet::new(),
            writer: None,
            events: 0,
            doubles: 0,
        })
    }

    /// Adds what was not there; gives a file when it is full.
    pub(crate) fn add(&mut self, events: &RecordBatch) -> Result<Option<Vec<u8>>, ColumnsError> {
        let rows = self.rows.convert_columns(events.project(&self.own)?.columns())?;
        let is_new: BooleanArray = rows.iter().map(|row| Some(self.seen.insert(short(row.as_ref())))).collect();
        let new = filter_record_batch(events, &is_new)?;
        self.events += new.num_rows() as u64;
        self.doubles += (events.num_rows() - new.num_rows()) as u64;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), None)?,
        };
        writer.write(&new)?;
        if writer.bytes_written() + writer.in_progress_size() >= FILE_BYTES {
            return Ok(Some(writer.into_inner()?));
        }
        self.writer = Some(writer);
        Ok(None)
    }

    /// The last file, if anything was added since the one before.
    pub(crate) fn finish(&mut self) -> Result<Option<Vec<u8>>, ColumnsError> {
        self.writer.take().map(ArrowWriter::into_inner).transpose().map_err(Into::into)
    }
}

/// An event's name is in it: two that are the same are the same event.
fn short(row: &[u8]) -> [u8; 16] {
    Digest::of(row).as_bytes().first_chunk().copied().unwrap_or_default()
}
