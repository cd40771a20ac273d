//! Events in columns, as they are written anew: Parquet in memory, each event once.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringViewArray};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::KeyValue;
use seal::{BatchId, OwnerSecret};
use stdx::{Digest, Entropy, EntropyError};

use crate::table::{Table, data_type};

/// A file is not continued beyond this. A sealed object has 256 MiB at most.
const FILE_BYTES: usize = 32 << 20;

/// The object in which an event came. Queries don't see it.
const BATCH: &str = "batch";

/// In the file's metadata: what the name of its object is made of. Whoever can read all of it may have it erased, when
/// something else has taken its place.
const OWNER: &str = "owner";

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
    #[error("nothing says what its name was made of")]
    Owner,
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// A file, and what the name of the object that holds it is made of.
pub(crate) struct File {
    pub(crate) owner: OwnerSecret,
    pub(crate) bytes: Vec<u8>,
}

/// The events that a file has, and what its object's name was made of.
pub(crate) fn read(table: &Table, file: Bytes) -> Result<(Vec<RecordBatch>, OwnerSecret), ColumnsError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = written(table);
    if reader.schema().fields() != schema.fields() {
        return Err(ColumnsError::Schema);
    }
    let said = reader.metadata().file_metadata().key_value_metadata();
    let owner = said.and_then(|all| all.iter().find(|it| it.key == OWNER)?.value.as_ref()?.parse().ok());
    let owner = owner.ok_or(ColumnsError::Owner)?;
    let events = reader.build()?.map(|events| RecordBatch::try_new(Arc::clone(&schema), events?.columns().to_vec()));
    Ok((events.collect::<Result<_, _>>()?, owner))
}

/// Events but for those that came in one of these objects.
pub(crate) fn without(events: &RecordBatch, left_out: &BTreeSet<BatchId>) -> Result<RecordBatch, ColumnsError> {
    let batches = events.column_by_name(BATCH).ok_or(ColumnsError::Schema)?.as_string_view();
    let stays = |name: &str| name.parse().is_ok_and(|name: BatchId| !left_out.contains(&name));
    let stay: BooleanArray = batches.iter().map(|name| Some(name.is_some_and(stays))).collect();
    Ok(filter_record_batch(events, &stay)?)
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
pub(crate) struct Columns<'a> {
    entropy: &'a dyn Entropy,
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

impl<'a> Columns<'a> {
    pub(crate) fn new(table: &Table, entropy: &'a dyn Entropy) -> Result<Self, ColumnsError> {
        let fields = table.columns().iter().map(|column| SortField::new(data_type(column.kind)));
        Ok(Self {
            entropy,
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
    pub(crate) fn add(&mut self, events: &RecordBatch) -> Result<Option<File>, ColumnsError> {
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
            return self.file(writer).map(Some);
        }
        self.writer = Some(writer);
        Ok(None)
    }

    /// The last file, if anything was added since the one before.
    pub(crate) fn finish(&mut self) -> Result<Option<File>, ColumnsError> {
        self.writer.take().map(|writer| self.file(writer)).transpose()
    }

    fn file(&self, mut writer: ArrowWriter<Vec<u8>>) -> Result<File, ColumnsError> {
        let owner = OwnerSecret::draw(self.entropy)?;
        writer.append_key_value_metadata(KeyValue::new(OWNER.to_owned(), owner.to_text()));
        Ok(File { owner, bytes: writer.into_inner()? })
    }
}

/// An event's name is in it: two that are the same are the same event.
fn short(row: &[u8]) -> [u8; 16] {
    Digest::of(row).as_bytes().first_chunk().copied().unwrap_or_default()
}
