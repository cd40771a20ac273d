//! DataFusion, with nothing but one table: no files, no other tables, no settings, no disk.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use api::{Parameter, Parameters};
use datafusion::common::{DataFusionError, ParamValues, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::registry::FunctionRegistry as _;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use stdx::Digest;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::catalog::Located;
use crate::ciphertext::VaultError;
use crate::egress::{self, EgressError};
use crate::hold::Held;
use crate::scan::{SealedTable, Slice};
use crate::spread;
use crate::store::SealedStore;
use crate::table::Table;

/// A query that people write, or a template of theirs.
const QUERY_BYTES_MAX: usize = 16 << 10;

/// Keywords, operators and brackets of a query: each may be a level of a tree that is walked on a thread's stack.
/// Values in a list don't count.
const STEPS_MAX: usize = 512;

/// What 512 levels take of a stack, each with a dozen calls, also where nothing is optimised.
const STACK_BYTES: usize = 64 << 20;

/// Functions that make much of little before any budget counts it.
const WITHOUT: &[&str] = &["repeat", "lpad", "rpad", "generate_series", "range", "array_repeat", "array_resize"];

/// Bytes that one query may have in memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory(pub usize);

/// A query, and the table that it reads.
#[derive(Clone, Debug)]
pub struct Query {
    /// SQL: one SELECT.
    pub text: String,
    /// The values for `$name` in it.
    pub parameters: Parameters,
    /// The table of its class.
    pub table: &'static Table,
}

/// Why a query is not run, or gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Too long.
    #[error("the query has {0} bytes; {QUERY_BYTES_MAX} are read")]
    TooLong(usize),
    /// Too deep.
    #[error("the query has {0} keywords and operators; {STEPS_MAX} are read")]
    TooDeep(usize),
    /// No tokens of SQL.
    #[error("the query: {0}")]
    Syntax(String),
    /// Not SQL, or nothing that a query may do.
    #[error("the query: {0}")]
    Query(Box<DataFusionError>),
    /// What would come out may not leave.
    #[error("the query: {0}")]
    Egress(#[from] EgressError),
    /// Bytes that can't be read, too little memory, or a worker that is gone.
    #[error("the query stopped: {0}")]
    Stopped(Stop),
}

/// Why a query that was reading stopped. The engine's own words may repeat what it has read, and errors go to
/// logs, to other workers, and to people who may not see it. Workers are counted from 1, as the intent names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// Too little memory.
    #[error("it needs more memory than this worker gives to one query")]
    Memory,
    /// Not what was sealed.
    #[error("an object could not be read as it was sealed")]
    Object,
    /// A vault that is away, or has it no more.
    #[error("the vault did not give an object")]
    Vault,
    /// A value that does not fit.
    #[error("a value does not allow what the query does with it")]
    Value,
    /// A worker that ended, or can't be reached.
    #[error("worker {0} of the intent has ended, or can't be reached")]
    Gone(usize),
    /// Somebody else, or somebody between.
    #[error("what answers in the place of worker {0} of the intent is not that worker")]
    Other(usize),
    /// A worker that does not hold its part, or not any more.
    #[error("worker {0} of the intent does not hold its part of the grant")]
    Ended(usize),
    /// A part of a plan that is none.
    #[error("worker {0} of the intent can't make out its part of the plan")]
    Plan(usize),
    /// A worker that does not do this.
    #[error("worker {0} of the intent refuses what another asks of it")]
    Refused(usize),
}

impl Stop {
    /// Why `error` stopped a query.
    pub(crate) fn of(error: &DataFusionError) -> Self {
        let mut causes = successors(Some(error as &(dyn Error + 'static)), |cause| (*cause).source());
        if causes.any(|cause| cause.is::<VaultError>()) {
            return Self::Vault;
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::Memory,
            DataFusionError::ObjectStore(_) => Self::Object,
            DataFusionError::External(stop) => stop.downcast_ref().copied().unwrap_or(Self::Value),
            _ => Self::Value,
        }
    }
}

impl From<Stop> for DataFusionError {
    fn from(stop: Stop) -> Self {
        Self::External(Box::new(stop))
    }
}

/// Threads for queries alone: they compute, and have deep stacks.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.thread_name("query").thread_stack_size(STACK_BYTES).max_blocking_threads(4).enable_all();
        Ok(Self(Some(builder.build()?)))
    }

    /// Does this there.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("it is taken when it is dropped").spawn(work)
    }
}

impl Drop for Threads {
    /// Does not wait: it may be dropped by a thread that must not.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a query needs, and what comes out of it.
#[derive(Debug)]
pub struct Planned {
    pub(crate) needed: Vec<Located>,
    /// What comes out: each column's name and type.
    pub columns: Vec<(String, String)>,
    /// Whether several workers can't share it.
    pub(crate) is_for_one: bool,
}

impl Planned {
    /// SHA-256 of the columns, as canonical JSON.
    ///
    /// # Panics
    /// Never: texts are always JSON.
    #[must_use]
    pub fn schema(&self) -> Digest {
        Digest::of(&serde_json::to_vec(&self.columns).expect("texts are always JSON"))
    }
}

/// A query that is being read.
pub struct Running {
    /// What it needs.
    pub planned: Planned,
    /// What comes out.
    pub rows: SendableRecordBatchStream,
    pub(crate) unreadable: Arc<AtomicU64>,
    /// What others read of it, if it has others.
    pub(crate) others: Option<Arc<Held>>,
}

impl Query {
    /// Which of `objects` it needs, without opening any.
    pub(crate) async fn plan(self, objects: Vec<Located>, memory: Memory) -> Result<Planned, EngineError> {
        let table = Arc::new(SealedTable::noted(self.table, objects));
        let mut config = config();
        // As several workers plan, so that it is known whether they can.
        config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        let (frame, columns) = self.frame(&table, alone(runtime(None, memory), config)).await?;
        let plan = frame.create_physical_plan().await.map_err(|error| EngineError::Query(Box::new(error)))?;
        Ok(Planned { needed: table.needed(), columns, is_for_one: spread::is_for_one(&plan) })
    }

    /// Reads `objects`, whose keys `store` has.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run(
        self,
        objects: Vec<Located>,
        store: Arc<SealedStore>,
        memory: Memory,
    ) -> Result<Running, EngineError> {
        let slice = Slice::new(self.table, objects, store);
        self.read(slice, memory).await
    }

    /// The same, of what was opened.
    pub(crate) async fn read(self, slice: Slice, memory: Memory) -> Result<Running, EngineError> {
        let (unreadable, store) = (Arc::clone(slice.unreadable()), Arc::clone(slice.store()));
        let table = Arc::new(SealedTable::read(slice));
        let (frame, columns) = self.frame(&table, alone(runtime(Some(store), memory), config())).await?;
        let rows = frame.execute_stream().await.map_err(|error| EngineError::Stopped(Stop::of(&error)))?;
        let planned = Planned { needed: Vec::new(), columns, is_for_one: true };
        Ok(Running { planned, rows, unreadable, others: None })
    }

    /// Reads what all workers of an intent have; this one leads.
    pub(crate) async fn lead(self, held: Arc<Held>) -> Result<Running, EngineError> {
        let unreadable = Arc::clone(held.slice().unreadable());
        let table = Arc::new(SealedTable::spread(Arc::clone(held.slice()), held.scope().place));
        let (frame, columns) = self.frame(&table, held.leading()).await?;
        let rows = frame.execute_stream().await.map_err(|error| EngineError::Stopped(Stop::of(&error)))?;
        let planned = Planned { needed: Vec::new(), columns, is_for_one: false };
        Ok(Running { planned, rows, unreadable, others: Some(held) })
    }

    async fn frame(
        self,
        table: &Arc<SealedTable>,
        state: Result<SessionState, DataFusionError>,
    ) -> Result<(DataFrame, Vec<(String, String)>), EngineError> {
        if self.text.len() > QUERY_BYTES_MAX {
            return Err(EngineError::TooLong(self.text.len()));
        }
        let steps = steps(&self.text)?;
        if steps > STEPS_MAX {
            return Err(EngineError::TooDeep(steps));
        }
        let refuse = |error| EngineError::Query(Box::new(error));
        let context = SessionContext::new_with_state(state.map_err(refuse)?);
        context.register_table(self.table.name(), Arc::clone(table) as _).map_err(refuse)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(&self.text, options).await.map_err(refuse)?;
        let frame = frame.with_param_values(values(&self.parameters)).map_err(refuse)?;
        egress::check(frame.logical_plan(), self.table)?;
        let fields = frame.schema().fields().iter();
        let columns = fields.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
        Ok((frame, columns))
    }
}

/// How many tokens of `text` may be levels of a tree.
fn steps(text: &str) -> Result<usize, EngineError> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize();
    let tokens = tokens.map_err(|error| EngineError::Syntax(error.to_string()))?;
    let is_step = |token: &&Token| match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_) | Token::EOF => false,
        _ => true,
    };
    Ok(tokens.iter().filter(is_step).count())
}

/// Memory, no disk, and no objects but those that were granted.
pub(crate) fn runtime(
    store: Option<Arc<SealedStore>>,
    Memory(bytes): Memory,
) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::new()
        .with_disk_manager_builder(disk)
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)))
        .with_object_store_registry(Arc::new(Granted(store)))
        .build_arc()
}

pub(crate) fn config() -> SessionConfig {
    SessionConfig::new().with_information_schema(false)
}

/// For a query that one worker reads.
fn alone(
    runtime: Result<Arc<RuntimeEnv>, DataFusionError>,
    config: SessionConfig,
) -> Result<SessionState, DataFusionError> {
    narrow(SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(runtime?))
}

/// SQL and its functions, without files and without what makes much of little.
pub(crate) fn narrow(builder: SessionStateBuilder) -> Result<SessionState, DataFusionError> {
    let mut state = builder.with_file_formats(Vec::new()).with_table_functions(HashMap::new()).build();
    for function in WITHOUT {
        state.deregister_udf(function)?;
    }
    Ok(state)
}

fn values(parameters: &Parameters) -> ParamValues {
    let value = |parameter: &Parameter| match parameter {
        Parameter::Boolean(it) => ScalarValue::Boolean(Some(*it)),
        Parameter::Integer(it) => ScalarValue::Int64(Some(*it)),
        Parameter::Text(it) => ScalarValue::Utf8(Some(it.clone())),
    };
    ParamValues::from(parameters.iter().map(|(name, it)| (name.as_str(), value(it))).collect::<Vec<_>>())
}

/// The objects that were granted, under every URL: there is nothing else.
struct Granted(Option<Arc<SealedStore>>);

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Granted")
    }
}

impl ObjectStoreRegistry for Granted {
    fn register_store(&self, _: &url::Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        Some(store)
    }

    fn get_store(&self, _: &url::Url) -> Result<Arc<dyn ObjectStore>, DataFusionError> {
        match &self.0 {
            Some(store) => Ok(Arc::clone(store) as _),
            None => Err(DataFusionError::Plan("nothing is open yet".to_owned())),
        }
    }
}
