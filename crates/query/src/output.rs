//! Results as bytes: four formats, and a budget that ends them.

use api::{ResultEnd, ResultFormat};
use attest::Budget;
use datafusion::arrow::array::{Array, AsArray as _, RecordBatch};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::pretty::pretty_format_batches;
use stdx::Hasher;

/// People read no more in one table; the next begins with the names again.
const TABLE_ROWS: usize = 10_000;

/// Why a result ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// More than the intent allows.
    #[error("the budget of the intent is used up: {0}")]
    Budget(&'static str),
    /// A text that is too long to leave.
    #[error("column `{0}` has a text of more than {1} bytes, which may not leave")]
    Text(String, usize),
    /// For what is written anew alone.
    #[error("a result can't be given out sealed")]
    Sealed,
    /// Values that the format has no room for.
    #[error("the result can't be written in this format")]
    Format(#[from] ArrowError),
}

enum Encoder {
    Table(Vec<RecordBatch>),
    Json,
    Csv(csv::WriterBuilder),
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

/// What one text may have.
#[derive(Clone, Copy, Debug)]
pub struct TextMax(pub usize);

/// A result that is being written, within a budget.
pub struct Output {
    encoder: Encoder,
    budget: Budget,
    text: TextMax,
    rows: u64,
    bytes: u64,
    sha256: Hasher,
}

/// Bytes that may be sent.
pub type Budgeted = Vec<u8>;

impl Output {
    /// Nothing of it yet.
    ///
    /// # Errors
    /// [`OutputError::Format`].
    pub fn new(format: ResultFormat, schema: &SchemaRef, budget: Budget, text: TextMax) -> Result<Self, OutputError> {
        let encoder = match format {
            ResultFormat::Table => Encoder::Table(Vec::new()),
            ResultFormat::Json => Encoder::Json,
            ResultFormat::Csv => Encoder::Csv(csv::WriterBuilder::new().with_header(true)),
            // Nothing that a query gives is sealed; who runs it has refused this.
            ResultFormat::Sealed => return Err(OutputError::Sealed),
            ResultFormat::Arrow => Encoder::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
        };
        Ok(Self { encoder, budget, text, rows: 0, bytes: 0, sha256: Hasher::default() })
    }

    /// The bytes for these rows, which count from now on.
    ///
    /// # Errors
    /// [`OutputError`]; nothing of these rows is sent then.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Budgeted, OutputError> {
        let rows = self.rows.saturating_add(batch.num_rows() as u64);
        if rows > self.budget.rows {
            return Err(OutputError::Budget("rows"));
        }
        self.check_texts(batch)?;
        let bytes = match &mut self.encoder {
            Encoder::Table(held) => {
                held.push(batch.clone());
                let enough = held.iter().map(RecordBatch::num_rows).sum::<usize>() >= TABLE_ROWS;
                if enough { table(&std::mem::take(held))? } else { Vec::new() }
            }
            Encoder::Json => {
                let mut writer = LineDelimitedWriter::new(Vec::new());
                writer.write(batch)?;
                writer.finish()?;
                writer.into_inner()
            }
            Encoder::Csv(builder) => {
                let mut bytes = Vec::new();
                builder.clone().build(&mut bytes).write(batch)?;
                *builder = csv::WriterBuilder::new().with_header(false);
                bytes
            }
            Encoder::Arrow(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
        };
        self.rows = rows;
        self.count(bytes)
    }

    /// What comes behind the last row.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn finish(&mut self, schema: &SchemaRef) -> Result<Budgeted, OutputError> {
        let bytes = match &mut self.encoder {
            // Names without rows say that there are none.
            Encoder::Table(held) if self.rows == 0 => {
                table(&[RecordBatch::new_empty(SchemaRef::clone(schema))]).inspect(|_| held.clear())?
            }
            Encoder::Table(held) if held.is_empty() => Vec::new(),
            Encoder::Table(held) => table(&std::mem::take(held))?,
            Encoder::Csv(builder) if self.rows == 0 => {
                let mut bytes = Vec::new();
                builder.clone().build(&mut bytes).write(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
                bytes
            }
            Encoder::Json | Encoder::Csv(_) => Vec::new(),
            Encoder::Arrow(writer) => {
                writer.finish()?;
                std::mem::take(writer.get_mut())
            }
        };
        self.count(bytes)
    }

    /// What was sent.
    #[must_use]
    pub fn end(self) -> ResultEnd {
        ResultEnd::new(self.rows, self.bytes, self.sha256.finish())
    }

    fn count(&mut self, bytes: Vec<u8>) -> Result<Budgeted, OutputError> {
        let all = self.bytes.saturating_add(bytes.len() as u64);
        if all > self.budget.bytes {
            return Err(OutputError::Budget("bytes"));
        }
        self.bytes = all;
        self.sha256.update(&bytes);
        Ok(bytes)
    }

    fn check_texts(&self, batch: &RecordBatch) -> Result<(), OutputError> {
        let TextMax(limit) = self.text;
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let fits = match column.data_type() {
                DataType::Utf8 => column.as_string::<i32>().iter().flatten().all(|text| text.len() <= limit),
                DataType::LargeUtf8 => column.as_string::<i64>().iter().flatten().all(|text| text.len() <= limit),
                DataType::Utf8View => column.as_string_view().iter().flatten().all(|text| text.len() <= limit),
                _ => true,
            };
            if !fits {
                return Err(OutputError::Text(field.name().clone(), limit));
            }
        }
        Ok(())
    }
}

/// What strangers wrote is not to steer a terminal.
fn table(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let text = pretty_format_batches(batches)?.to_string();
    let tame = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    let mut text: String = text.chars().map(tame).collect();
    text.push('\n');
    Ok(text.into_bytes())
}
