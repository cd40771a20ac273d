//! One plan for several workers, as `datafusion-distributed` makes it: each reads its own slice, and what must meet goes
//! from worker to worker. What another worker asks for is looked at, step by step, before anything of it runs.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedExt as _, NetworkCoalesceExec, RouteTasksEvent,
    RouteTasksEventResponse, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse, SessionStateBuilderExt as _, Worker,
    WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext, WorkerResolver,
};
use datafusion_proto::bytes::physical_plan_to_bytes;
use datafusion_proto::protobuf::PhysicalPlanNode;
use prost::Message as _;
use url::Url;

use crate::ask::Others;
use crate::engine::{Stop, config, narrow};
use crate::hold::{LEADER, Scope};
use crate::leaf::{self, Leaf, LeafCodec, PARTS};
use crate::scan::Slice;

/// Steps that change rows, and nothing else. A plan from another worker has these, leaves, and ways to other workers.
const STEPS: &[&str] = &[
    leaf::NAME,
    "AggregateExec",
    "BoundedWindowAggExec",
    "BroadcastExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "InterleaveExec",
    "LocalLimitExec",
    "NestedLoopJoinExec",
    "NetworkBroadcastExec",
    "NetworkCoalesceExec",
    "NetworkShuffleExec",
    "PartialSortExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortExec(TopK)",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "UnionExec",
    "WindowAggExec",
];

/// A worker's place, where the plan wants an address.
pub(crate) fn url_of(place: usize) -> Result<Url> {
    Url::parse(&format!("worker://{place}")).map_err(|error| DataFusionError::Internal(error.to_string()))
}

/// The same, read. Plans name no addresses.
pub(crate) fn place_of(url: &Url) -> Option<usize> {
    url.host_str().filter(|_| url.scheme() == "worker")?.parse().ok()
}

struct Places(usize);

impl WorkerResolver for Places {
    fn get_urls(&self) -> Result<Vec<Url>> {
        (0..self.0).map(url_of).collect()
    }
}

/// Runs what comes from the intent's workers, over this one's slice.
pub(crate) fn worker(scope: &Arc<Scope>, slice: &Arc<Slice>, runtime: &Arc<RuntimeEnv>) -> Worker {
    let (scope, slice) = (Arc::clone(scope), Arc::clone(slice));
    let session = move |context: WorkerQueryContext| {
        let (codec, others) = (codec(&scope, &slice), Others(Arc::clone(&scope)));
        let at = scope.place.at;
        async move {
            let builder = context.builder.with_distributed_channel_resolver(others);
            let builder = builder.with_distributed_user_codec(codec);
            narrow(builder.with_distributed_worker_plan_rewrite_handler(move |event: WorkerPlanRewriteEvent<'_>| {
                // The leader's own plan never comes from outside (`Held::reply`).
                let checked = if at == LEADER { Ok(()) } else { check(&event.plan, at) };
                checked.map(|()| WorkerPlanRewriteEventResponse::new(event.plan))
            }))
        }
    };
    Worker::from_session_builder(session).with_runtime_env(Arc::clone(runtime))
}

fn codec(scope: &Scope, slice: &Arc<Slice>) -> LeafCodec {
    LeafCodec { slice: Arc::clone(slice), place: scope.place }
}

/// A step of this plan that is none of those above.
fn unknown(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<String>> {
    let mut unknown = None;
    plan.apply(|step| {
        unknown = Some(step.name()).filter(|name| !STEPS.contains(name)).map(str::to_owned);
        Ok(if unknown.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(unknown)
}

/// Whether such a plan is none for several workers: they take known steps, and protobuf of a hundred levels.
pub(crate) fn is_for_one(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let travels = || PhysicalPlanNode::decode(physical_plan_to_bytes(Arc::clone(plan)).ok()?).ok();
    !matches!(unknown(plan), Ok(None)) || travels().is_none()
}

/// Whether a plan that another worker has sent is made of known steps.
fn check(plan: &Arc<dyn ExecutionPlan>, at: usize) -> Result<()> {
    match unknown(plan)? {
        None => Ok(()),
        Some(step) => {
            tracing::warn!(data.step = step, "a plan of another worker's has a step that is not taken");
            Err(Stop::Refused(at + 1).into())
        }
    }
}

/// The state in which the leader plans for all.
pub(crate) fn leading(
    scope: &Arc<Scope>,
    slice: &Arc<Slice>,
    runtime: &Arc<RuntimeEnv>,
    worker: &Worker,
) -> Result<SessionState> {
    let count = scope.place.of;
    let mut config = config().with_target_partitions(PARTS);
    // What a join learns while it runs stays where it runs.
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    let builder = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_distributed_planner()
        .with_distributed_worker_resolver(Places(count))
        .with_distributed_channel_resolver(Others(Arc::clone(scope)))
        .with_distributed_user_codec(codec(scope, slice))
        .with_distributed_local_worker_context(worker.to_local_worker_context(url_of(scope.place.at)?))
        .with_distributed_metrics_collection(false)?
        // Each part of a union has leaves, and these are read by all.
        .with_distributed_children_isolator_unions(false)?
        .with_distributed_desired_task_count_handler(move |event: DesiredTaskCountEvent<'_>| {
            event.plan.downcast_ref::<Leaf>().map(|_| Ok(DesiredTaskCountEventResponse::desired(count)))
        })
        .with_distributed_scale_up_leaf_node_handler(move |event: ScaleUpLeafNodeEvent<'_>| {
            event.plan.downcast_ref::<Leaf>().map(|_| gathered(&event, count))
        })
        .with_distributed_route_tasks_handler(|event: RouteTasksEvent<'_>| {
            // A stage with leaves has a task for each worker, others have fewer: the first, then, and the leader is
            // the first of them.
            Some((0..event.task_count).map(url_of).collect::<Result<_>>().map(RouteTasksEventResponse::new))
        });
    narrow(builder)
}

/// A leaf in a stage with fewer tasks than workers: read by all, and brought there.
fn gathered(event: &ScaleUpLeafNodeEvent<'_>, count: usize) -> Result<ScaleUpLeafNodeEventResponse> {
    let leaf = Arc::clone(event.plan);
    if event.task_count == count {
        return Ok(ScaleUpLeafNodeEventResponse::new(leaf));
    }
    let brought = NetworkCoalesceExec::try_new(leaf, count, event.task_count)?;
    Ok(ScaleUpLeafNodeEventResponse::new(Arc::new(brought)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Schema;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::{check, place_of, url_of};
    use crate::engine::Stop;

    #[test]
    fn a_plan_from_elsewhere_has_known_steps_only_however_deep_others_are_in_it() {
        let schema = Arc::new(Schema::empty());
        let wrapped = |plan| Arc::new(CoalescePartitionsExec::new(plan)) as Arc<dyn ExecutionPlan>;
        check(&wrapped(wrapped(Arc::new(EmptyExec::new(Arc::clone(&schema))))), 1).unwrap();
        let values = || MemorySourceConfig::try_new_exec(&[vec![]], Arc::clone(&schema), None).unwrap();
        for plan in [values() as Arc<dyn ExecutionPlan>, wrapped(wrapped(values()))] {
            let refused = check(&plan, 1).unwrap_err();
            assert_eq!(Stop::of(&refused), Stop::Refused(2), "{refused}");
        }
    }

    #[test]
    fn places_are_no_addresses() {
        for place in [0, 1, 7] {
            assert_eq!(place_of(&url_of(place).unwrap()), Some(place));
        }
        for text in ["http://1", "worker://", "worker://x", "worker://-1", "file:///1"] {
            assert_eq!(text.parse().ok().and_then(|url| place_of(&url)), None, "{text}");
        }
    }
}
