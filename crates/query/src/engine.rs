//! DataFusion, with nothing but one table: no files, no other tables, no settings, no disk.

use std::collections::HashMap;
use std::fmt;
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
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use object_store::ObjectStore;
use stdx::Digest;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::catalog::Located;
use crate::egress::{self, EgressError};
use crate::scan::SealedTable;
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
    /// Bytes that can't be read, or too little memory.
    #[error("the query stopped: {0}")]
    Stopped(&'static str),
}

/// Why a query that was reading stopped. The engine's own words may repeat what it has read, and errors go to
/// logs and to people who may not see it.
pub(crate) fn stopped(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => "it needs more memory than this worker gives to one query",
        DataFusionError::ObjectStore(_) => "an object could not be read as it was sealed",
        _ => "a value does not allow what the query does with it",
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
}

impl Query {
    /// Which of `objects` it needs, without opening any.
    pub(crate) async fn plan(self, objects: Vec<Located>, memory: Memory) -> Result<Planned, EngineError> {
        let table = Arc::new(SealedTable::new(self.table, objects, None));
        let (frame, columns) = self.frame(&table, None, memory).await?;
        frame.create_physical_plan().await.map_err(|error| EngineError::Query(Box::new(error)))?;
        Ok(Planned { needed: table.needed(), columns })
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
        let table = Arc::new(SealedTable::new(self.table, objects, Some(Arc::clone(&store))));
        let (frame, columns) = self.frame(&table, Some(store), memory).await?;
        let rows = frame.execute_stream().await.map_err(|error| EngineError::Stopped(stopped(&error)))?;
        Ok(Running {
            planned: Planned { needed: table.needed(), columns },
            rows,
            unreadable: Arc::clone(table.unreadable()),
        })
    }

    async fn frame(
        self,
        table: &Arc<SealedTable>,
        store: Option<Arc<SealedStore>>,
        memory: Memory,
    ) -> Result<(DataFrame, Vec<(String, String)>), EngineError> {
        if self.text.len() > QUERY_BYTES_MAX {
            return Err(EngineError::TooLong(self.text.len()));
        }
        let steps = steps(&self.text)?;
        if steps > STEPS_MAX {
            return Err(EngineError::TooDeep(steps));
        }
        let refuse = |error| EngineError::Query(Box::new(error));
        let context = context(store, memory).map_err(refuse)?;
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

fn context(store: Option<Arc<SealedStore>>, Memory(bytes): Memory) -> Result<SessionContext, DataFusionError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(disk)
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)))
        .with_object_store_registry(Arc::new(Granted(store)))
        .build_arc()?;
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(SessionConfig::new().with_information_schema(false))
        .with_runtime_env(runtime)
        .with_file_formats(Vec::new())
        .with_table_functions(HashMap::new())
        .build();
    let context = SessionContext::new_with_state(state);
    for function in WITHOUT {
        context.deregister_udf(function);
    }
    Ok(context)
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
