//! What a query that several workers share reads at its ends: "whatever the worker has that runs this". A plan that comes
//! from another worker names no object, so it reads nothing but what the intent gave to who runs it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion_distributed::DistributedTaskContext;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use futures::{StreamExt as _, stream};
use prost::Message as _;

use crate::scan::{Slice, Wanted, projected};

/// Parts that a worker reads at once. More than one, so that nothing takes one worker's part for all of it without what
/// puts parts together; and the same on every worker, so that plans fit together.
pub(crate) const PARTS: usize = 4;

pub(crate) const NAME: &str = "LeafExec";

/// Which of an intent's workers this is, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) of: usize,
}

/// A scan of what each worker has.
#[derive(Debug)]
pub(crate) struct Leaf {
    slice: Arc<Slice>,
    place: Place,
    wanted: Wanted,
    properties: Arc<PlanProperties>,
    read: OnceLock<Arc<dyn ExecutionPlan>>,
}

impl Leaf {
    pub(crate) fn new(slice: Arc<Slice>, place: Place, wanted: Wanted) -> Result<Self> {
        let schema = projected(&slice.schema(), &wanted)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(PARTS),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { slice, place, wanted, properties: Arc::new(properties), read: OnceLock::new() })
    }

    fn read(&self) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(read) = self.read.get() {
            return Ok(Arc::clone(read));
        }
        let made = self.slice.read(&self.wanted, PARTS)?;
        Ok(Arc::clone(self.read.get_or_init(|| made)))
    }
}

impl DisplayAs for Leaf {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

impl ExecutionPlan for Leaf {
    fn name(&self) -> &str {
        NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // One task for each worker, each at its own place: else something would be read twice, or not at all.
        let task = DistributedTaskContext::from_ctx(&context);
        if (task.task_index, task.task_count) != (self.place.at, self.place.of) {
            return Err(DataFusionError::Internal("a part of the plan runs in another place".to_owned()));
        }
        let read = self.read()?;
        let parts = read.properties().partitioning.partition_count();
        let parts = (partition..parts).step_by(PARTS).map(|part| read.execute(part, Arc::clone(&context)));
        let parts: Vec<SendableRecordBatchStream> = parts.collect::<Result<_>>()?;
        let schema: SchemaRef = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(parts).flatten())))
    }
}

/// Writes leaves into plans that go to other workers, and reads them there: what is read is the reader's own slice.
#[derive(Debug)]
pub(crate) struct LeafCodec {
    pub(crate) slice: Arc<Slice>,
    pub(crate) place: Place,
}

impl PhysicalExtensionCodec for LeafCodec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let odd = || DataFusionError::Internal("a step that does not travel".to_owned());
        let leaf = node.downcast_ref::<Leaf>().ok_or_else(odd)?;
        serde_json::to_writer(&mut *buffer, &leaf.wanted.columns).map_err(|_| odd())?;
        buffer.push(b'\n');
        if let Some(predicate) = &leaf.wanted.predicate {
            converter.physical_expr_to_proto(predicate, self)?.encode(buffer).map_err(|_| odd())?;
        }
        Ok(())
    }

    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let odd = || DataFusionError::Internal("no leaf of a plan".to_owned());
        let end = buffer.iter().position(|byte| *byte == b'\n').ok_or_else(odd)?;
        let (columns, predicate) = buffer.split_at_checked(end).ok_or_else(odd)?;
        let columns = serde_json::from_slice(columns).map_err(|_| odd())?;
        let predicate = match predicate.get(1..).filter(|predicate| !predicate.is_empty()) {
            Some(predicate) => {
                let predicate = PhysicalExprNode::decode(predicate).map_err(|_| odd())?;
                let context = PhysicalPlanDecodeContext::new(context, self);
                Some(converter.proto_to_physical_expr(&predicate, &self.slice.schema(), &context)?)
            }
            None => None,
        };
        if !inputs.is_empty() {
            return Err(odd());
        }
        Ok(Arc::new(Leaf::new(Arc::clone(&self.slice), self.place, Wanted { columns, predicate })?))
    }
}
