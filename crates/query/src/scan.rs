//! The table that a query reads: first to find which objects it needs, then, with their keys, to read them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringViewArray, TimestampSecondArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DataFusionError, Result, ScalarValue, ToDFSchema as _};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::catalog::{Form, Located};
use crate::leaf::{Leaf, Place};
use crate::raw::{self, Known};
use crate::store::{SealedStore, path_of};
use crate::table::{COUNTRY, TAKEN, Table, country_field};

/// The only place that a query's files can be.
pub(crate) const STORE_URL: &str = "sealed://granted/";

/// Objects of a batch each, read while the one before is taken apart.
const READ_AHEAD: usize = 4;

/// Objects that one worker reads.
pub(crate) struct Slice {
    table: &'static Table,
    objects: Vec<Located>,
    store: Arc<SealedStore>,
    unreadable: Arc<AtomicU64>,
}

/// One class's table over objects.
pub(crate) struct SealedTable {
    table: &'static Table,
    objects: Vec<Located>,
    scans: Scans,
    needed: Mutex<BTreeSet<usize>>,
}

/// What a scan gives.
enum Scans {
    /// Nothing: without keys, it only notes what it would read.
    Noted,
    /// What is in the objects.
    Read(Slice),
    /// What is in all workers' objects, each read where its key is.
    Spread(Arc<Slice>, Place),
}

/// A table's columns, and the condition by which objects and parts of them can be passed over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) columns: Option<Vec<usize>>,
    pub(crate) predicate: Option<Arc<dyn PhysicalExpr>>,
}

impl Slice {
    pub(crate) fn new(table: &'static Table, objects: Vec<Located>, store: Arc<SealedStore>) -> Self {
        Self { table, objects, store, unreadable: Arc::default() }
    }

    /// So many objects more, which can't be opened.
    pub(crate) fn with_unreadable(self, count: u64) -> Self {
        self.unreadable.fetch_add(count, Ordering::Relaxed);
        self
    }

    /// How many objects were not what endpoints seal.
    pub(crate) const fn unreadable(&self) -> &Arc<AtomicU64> {
        &self.unreadable
    }

    pub(crate) const fn store(&self) -> &Arc<SealedStore> {
        &self.store
    }

    /// All columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    /// What reads it, in about so many parts.
    pub(crate) fn read(&self, wanted: &Wanted, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = prune(self.table, &self.objects, wanted.predicate.as_ref())?;
        let kept = kept.iter().filter_map(|at| self.objects.get(*at)).cloned();
        let (lines, columns): (Vec<_>, Vec<_>) = kept.partition(|object| object.taken.form == Form::Lines);
        let mut plans = Vec::new();
        if !lines.is_empty() {
            plans.push(self.lines(lines, wanted, partitions)?);
        }
        if !columns.is_empty() {
            plans.push(self.columns(&columns, wanted, partitions)?);
        }
        match plans.pop() {
            None => Ok(Arc::new(EmptyExec::new(projected(&self.schema(), wanted)?))),
            Some(only) if plans.is_empty() => Ok(only),
            Some(last) => {
                plans.push(last);
                UnionExec::try_new(plans)
            }
        }
    }

    fn lines(&self, objects: Vec<Located>, wanted: &Wanted, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let mut parts: Vec<Vec<Located>> = vec![Vec::new(); partitions.clamp(1, objects.len().max(1))];
        let count = parts.len();
        for (at, object) in objects.into_iter().enumerate() {
            parts.get_mut(at % count).into_iter().for_each(|part| part.push(object.clone()));
        }
        let partition = |objects| {
            let (store, unreadable) = (Arc::clone(&self.store), Arc::clone(&self.unreadable));
            let lines = Lines { table: self.table, schema: self.schema(), store, objects, unreadable };
            Arc::new(lines) as Arc<dyn PartitionStream>
        };
        let partitions = parts.into_iter().map(partition).collect();
        let columns = wanted.columns.as_ref();
        Ok(Arc::new(StreamingTableExec::try_new(self.schema(), partitions, columns, None, false, None)?))
    }

    fn columns(&self, objects: &[Located], wanted: &Wanted, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = TableSchema::builder(self.table.file_schema());
        let schema = schema.with_table_partition_cols(vec![country_field()]).build();
        let mut source = ParquetSource::new(schema);
        if let Some(predicate) = &wanted.predicate {
            source = source.with_predicate(Arc::clone(predicate));
        }
        let file = |object: &Located| {
            let path = path_of(object.id);
            let bytes = self.store.bytes(&path).unwrap_or_default();
            let country = ScalarValue::Utf8View(Some(object.country.to_string()));
            PartitionedFile::new(path.to_string(), bytes).with_partition_values(vec![country])
        };
        let groups = FileGroup::new(objects.iter().map(file).collect()).split_files(partitions.max(1));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, Arc::new(source))
            .with_projection_indices(wanted.columns.clone())?
            .with_file_groups(groups)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl SealedTable {
    /// Without keys: a scan notes which objects it would read.
    pub(crate) fn noted(table: &'static Table, objects: Vec<Located>) -> Self {
        Self { table, objects, scans: Scans::Noted, needed: Mutex::default() }
    }

    /// All of it is here.
    pub(crate) fn read(slice: Slice) -> Self {
        Self { table: slice.table, objects: Vec::new(), scans: Scans::Read(slice), needed: Mutex::default() }
    }

    /// This worker, at its place, has a slice of it, and others have the rest.
    pub(crate) fn spread(slice: Arc<Slice>, place: Place) -> Self {
        Self { table: slice.table, objects: Vec::new(), scans: Scans::Spread(slice, place), needed: Mutex::default() }
    }

    /// The objects that scans have needed so far.
    pub(crate) fn needed(&self) -> Vec<Located> {
        let needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.iter().filter_map(|at| self.objects.get(*at)).cloned().collect()
    }
}

pub(crate) fn projected(schema: &SchemaRef, wanted: &Wanted) -> Result<SchemaRef> {
    Ok(match &wanted.columns {
        Some(columns) => Arc::new(schema.project(columns)?),
        None => Arc::clone(schema),
    })
}

/// The objects that may hold rows for `predicate`.
fn prune(table: &Table, objects: &[Located], predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<usize>> {
    let all = 0..objects.len();
    let Some(predicate) = predicate else { return Ok(all.collect()) };
    let pruning = PruningPredicateBuilder::new().with_file_schema(table.schema()).try_build(Arc::clone(predicate))?;
    let kept = pruning.prune(&Outside(objects))?;
    Ok(all.zip(kept).filter(|(_, kept)| *kept).map(|(at, _)| at).collect())
}

impl fmt::Debug for SealedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedTable").field("table", &self.table.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SealedTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let predicate = match conjunction(filters.to_vec()) {
            Some(all) => Some(state.create_physical_expr(all, &Arc::clone(&schema).to_dfschema()?)?),
            None => None,
        };
        let wanted = Wanted { columns: projection.cloned(), predicate };
        match &self.scans {
            Scans::Noted => {
                let kept = prune(self.table, &self.objects, wanted.predicate.as_ref())?;
                self.needed.lock().unwrap_or_else(PoisonError::into_inner).extend(&kept);
                Ok(Arc::new(EmptyExec::new(projected(&schema, &wanted)?)))
            }
            Scans::Read(slice) => slice.read(&wanted, state.config().target_partitions()),
            Scans::Spread(slice, place) => Ok(Arc::new(Leaf::new(Arc::clone(slice), *place, wanted)?)),
        }
    }
}

/// What is known of objects from outside.
struct Outside<'a>(&'a [Located]);

impl Outside<'_> {
    fn times(&self, time: impl Fn(&Located) -> u64) -> ArrayRef {
        let seconds = self.0.iter().map(|object| i64::try_from(time(object)).ok());
        Arc::new(seconds.collect::<TimestampSecondArray>().with_timezone("UTC"))
    }

    fn countries(&self) -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(self.0.iter().map(|object| object.country.to_string())))
    }
}

impl PruningStatistics for Outside<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            COUNTRY => Some(self.countries()),
            TAKEN => Some(self.times(|object| object.taken.first.seconds())),
            _ => None,
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            COUNTRY => Some(self.countries()),
            TAKEN => Some(self.times(|object| object.taken.last.seconds())),
            _ => None,
        }
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &std::collections::HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// Objects as endpoints sealed them, one after the other.
struct Lines {
    table: &'static Table,
    schema: SchemaRef,
    store: Arc<SealedStore>,
    objects: Vec<Located>,
    unreadable: Arc<AtomicU64>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Lines {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (store, table, unreadable) = (Arc::clone(&self.store), self.table, Arc::clone(&self.unreadable));
        let read = stream::iter(self.objects.clone())
            .map(move |object| {
                let (store, unreadable) = (Arc::clone(&store), Arc::clone(&unreadable));
                async move { read(table, &store, &object, &unreadable).await }
            })
            .buffered(READ_AHEAD)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), read))
    }
}

async fn read(
    table: &Table,
    store: &SealedStore,
    object: &Located,
    unreadable: &AtomicU64,
) -> Result<Vec<RecordBatch>> {
    let lines = store.whole(&path_of(object.id)).await;
    let lines = lines.map_err(|error| DataFusionError::ObjectStore(Box::new(error)))?;
    let country = object.country.to_string();
    let known = Known { taken: object.taken.last, country: &country };
    match lines.and_then(|lines| raw::read(table, &lines, known).ok()) {
        Some(batches) => Ok(batches),
        // An endpoint can seal anything. It must not keep others' events from being read.
        None => {
            unreadable.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(data.object = %object.id, "does not hold events of its class, and is passed over");
            Ok(Vec::new())
        }
    }
}
