//! Shrinking a failing plan: steps are taken away as long as it fails the same way.

use crate::plan::Step;

/// The smallest plan found by taking steps away, of which `fails` still holds. It is asked at most
/// so many times.
pub(crate) fn shrink(plan: Vec<Step>, mut tries: usize, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let (mut plan, mut chunk) = (plan, 0);
    chunk = plan.len().div_ceil(2).max(chunk);
    while chunk > 0 {
        let (mut at, before) = (0, plan.len());
        while at < plan.len() && tries > 0 {
            tries -= 1;
            let end = (at + chunk).min(plan.len());
            // What follows keeps its time.
            let passed: u64 = plan[at..end].iter().map(|step| step.after_ms).sum();
            let mut shorter = [&plan[..at], &plan[end..]].concat();
            if let Some(next) = shorter.get_mut(at) {
                next.after_ms += passed;
            }
            if fails(&shorter) {
                plan = shorter;
            } else {
                at = end;
            }
        }
        let is_same = plan.len() == before;
        if tries == 0 || (chunk == 1 && is_same) {
            break;
        }
        chunk = if is_same { chunk / 2 } else { chunk.min(plan.len().div_ceil(2)) };
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::shrink;
    use crate::plan::{Step, draw};

    #[test]
    fn what_does_not_matter_goes_and_the_time_stays() {
        let plan = draw(7);
        let (one, other) = (plan[5].operation.clone(), plan[17].operation.clone());
        let time: u64 = plan[..=17].iter().map(|step| step.after_ms).sum();
        let has = |plan: &[Step]| {
            let first = plan.iter().position(|step| step.operation == one);
            let second = plan.iter().rposition(|step| step.operation == other);
            matches!((first, second), (Some(first), Some(second)) if first < second)
        };
        let small = shrink(plan, 10_000, has);
        assert_eq!(small.len(), 2, "{small:?}");
        assert!(small.iter().map(|step| step.after_ms).sum::<u64>() >= time.min(1));
    }
}
