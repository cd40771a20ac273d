//! What may leave: found from the plan, column by column, before any key is asked for. Whatever this does not
//! know is refused.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use crate::table::{Egress, Table};

/// Why a query's result may not leave.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EgressError {
    /// Something other than reading the class's table.
    #[error("`{0}` is nothing that a query may do")]
    Step(String),
    /// Another table.
    #[error("`{0}` is not the table of this class")]
    OtherTable(String),
    /// A column that may not leave as it is.
    #[error("column `{0}` may leave only as a count, a sum or a mean over many events")]
    Measured(String),
    /// A column that may not leave at all.
    #[error("column `{0}` can't be given out")]
    Kept(String),
    /// A type that may not leave.
    #[error("column `{0}` has the type {1}; a result has texts, numbers, times and yes or no")]
    Type(String, String),
    /// Two columns of one name: JSON would have one.
    #[error("two columns are called `{0}`; name them with AS")]
    Twice(String),
}

/// What makes one value of many, and no single one comes through.
const MEASURES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "mean",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var",
    "var_pop",
    "var_samp",
    "var_population",
    "var_sample",
    "approx_distinct",
];

/// Checks every column of what `plan` gives.
///
/// # Errors
/// [`EgressError`] for the first that may not leave.
pub(crate) fn check(plan: &LogicalPlan, table: &Table) -> Result<(), EgressError> {
    let levels = levels(plan, table)?;
    let mut names = std::collections::BTreeSet::new();
    for (field, level) in plan.schema().fields().iter().zip(levels) {
        let name = field.name().clone();
        match level {
            Egress::Given => check_type(field)?,
            Egress::Measured => return Err(EgressError::Measured(name)),
            Egress::Kept => return Err(EgressError::Kept(name)),
        }
        if !names.insert(name.clone()) {
            return Err(EgressError::Twice(name));
        }
    }
    Ok(())
}

fn check_type(field: &Field) -> Result<(), EgressError> {
    let data_type = field.data_type();
    let leaves = data_type.is_numeric()
        || data_type.is_temporal()
        || matches!(data_type, DataType::Boolean | DataType::Null)
        || matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if leaves { Ok(()) } else { Err(EgressError::Type(field.name().clone(), data_type.to_string())) }
}

/// How little of each column of `plan` may leave.
fn levels(plan: &LogicalPlan, table: &Table) -> Result<Vec<Egress>, EgressError> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            if scan.table_name.table() != table.name() {
                return Err(EgressError::OtherTable(scan.table_name.to_string()));
            }
            Ok(scan.projected_schema.fields().iter().map(|field| table.egress(field.name())).collect())
        }
        LogicalPlan::Projection(it) => of_all(&it.expr, &it.input, table),
        LogicalPlan::Aggregate(it) => {
            let of_groups = of_all(&it.group_expr, &it.input, table)?;
            let of_aggregates = of_all(&it.aggr_expr, &it.input, table)?;
            // Grouping sets expand to more columns than expressions: none of them is less kept than any expression.
            let expected = plan.schema().fields().len();
            if of_groups.len() + of_aggregates.len() == expected {
                return Ok(of_groups.into_iter().chain(of_aggregates).collect());
            }
            let most = of_groups.into_iter().chain(of_aggregates).max().unwrap_or(Egress::Kept);
            Ok(vec![most; expected])
        }
        LogicalPlan::Window(it) => {
            let mut levels = levels(&it.input, table)?;
            levels.extend(of_all(&it.window_expr, &it.input, table)?);
            Ok(levels)
        }
        LogicalPlan::Join(it) => {
            let (mut left, right) = (levels(&it.left, table)?, levels(&it.right, table)?);
            left.extend(right);
            let expected = plan.schema().fields().len();
            // Semi and mark joins have other columns; SQL does not make them by itself.
            if left.len() == expected { Ok(left) } else { Err(EgressError::Step("this join".to_owned())) }
        }
        LogicalPlan::Union(it) => {
            let mut all = vec![Egress::Given; plan.schema().fields().len()];
            for input in &it.inputs {
                for (most, level) in all.iter_mut().zip(levels(input, table)?) {
                    *most = level.max(*most);
                }
            }
            Ok(all)
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(Distinct::All(_))
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Repartition(_) => same_columns(plan, table),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(vec![Egress::Given; plan.schema().fields().len()]),
        other => Err(EgressError::Step(other.display().to_string())),
    }
}

/// Steps that give what they get. Conditions are looked at for other tables only: what they keep back does not
/// leave by them.
fn same_columns(plan: &LogicalPlan, table: &Table) -> Result<Vec<Egress>, EgressError> {
    let inputs = plan.inputs();
    let [input] = inputs[..] else { return Err(EgressError::Step(plan.display().to_string())) };
    let given = levels(input, table)?;
    for expression in plan.expressions() {
        level(&expression, input.schema(), &given, table)?;
    }
    if given.len() == plan.schema().fields().len() {
        Ok(given)
    } else {
        Err(EgressError::Step(plan.display().to_string()))
    }
}

fn of_all(expressions: &[Expr], input: &LogicalPlan, table: &Table) -> Result<Vec<Egress>, EgressError> {
    let given = levels(input, table)?;
    expressions.iter().map(|expression| level(expression, input.schema(), &given, table)).collect()
}

/// How little of an expression's value may leave: as little as of the column in it that is kept most.
fn level(expression: &Expr, schema: &DFSchema, given: &[Egress], table: &Table) -> Result<Egress, EgressError> {
    let mut most = Egress::Given;
    let mut refused = None;
    let mut note = |found: Result<Egress, EgressError>| match found {
        Ok(level) => {
            most = most.max(level);
            true
        }
        Err(error) => {
            refused = Some(error);
            false
        }
    };
    let walked = expression.apply(|inner| {
        let goes_on = match inner {
            Expr::Column(column) => note(Ok(of_column(column, schema, given))),
            // What a column outside of a subquery may do is not known inside of it.
            Expr::OuterReferenceColumn(..) => note(Ok(Egress::Kept)),
            Expr::ScalarSubquery(subquery) => {
                let inside = levels(&subquery.subquery, table);
                note(inside.map(|levels| levels.into_iter().max().unwrap_or(Egress::Kept)))
            }
            Expr::Exists(it) => note(levels(&it.subquery.subquery, table).map(|_| Egress::Given)),
            Expr::InSubquery(it) => note(levels(&it.subquery.subquery, table).map(|_| Egress::Given)),
            Expr::AggregateFunction(it) if MEASURES.contains(&it.func.name()) => {
                let arguments = it
                    .params
                    .args
                    .iter()
                    .try_fold(Egress::Given, |most, argument| Ok(most.max(level(argument, schema, given, table)?)));
                note(arguments.map(|level| if level == Egress::Measured { Egress::Given } else { level }));
                return Ok(TreeNodeRecursion::Jump);
            }
            _ => true,
        };
        Ok(if goes_on { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    match (walked, refused) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(EgressError::Step(error.to_string())),
        (Ok(_), None) => Ok(most),
    }
}

fn of_column(column: &Column, schema: &DFSchema, given: &[Egress]) -> Egress {
    let at = schema.maybe_index_of_column(column);
    at.and_then(|at| given.get(at)).copied().unwrap_or(Egress::Kept)
}
