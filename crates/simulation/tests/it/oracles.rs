//! What is broken on purpose is caught, each by the promise that it breaks.

use simulation::{Broken, parse_plan, run, shrink};

/// The promise that a plan breaks, if it does.
fn broken(plan: &str, broken: Broken) -> Option<&'static str> {
    run(1, &parse_plan(plan).unwrap(), broken).violation.map(|violation| violation.oracle)
}

/// Things go their way, and somebody with the vendor's log key tries to fork.
const DAY: &str = "100 release all\n2000 update 0\n2000 update 1\n100 append vendor\n1000 fork vendor\n\
                   5000 append vendor\n1000 release all\n5000 update 0\n5000 update 1\n";

#[test]
fn an_undisturbed_day_keeps_every_promise() {
    assert_eq!(broken(DAY, Broken::Nothing), None);
}

#[test]
fn one_witness_more_than_may_be_faulty_forgets() {
    assert_eq!(broken(DAY, Broken::ForgetfulWitnesses), Some("one root a size"));
}

#[test]
fn a_store_that_loses_what_it_acknowledged() {
    let caught = broken(DAY, Broken::LosingStore);
    let by = ["acknowledged", "one history", "nothing stops for good", "fsck"];
    assert!(caught.is_some_and(|oracle| by.contains(&oracle)), "{caught:?}");
}

#[test]
fn an_endpoint_that_forgets() {
    assert_eq!(broken(DAY, Broken::ForgetfulEndpoint), Some("memory"));
    assert_eq!(broken("100 release all\n3000 update 0\n3000 forget 0\n10 audit", Broken::Nothing), Some("memory"));
}

/// What is shrunk breaks the same promise, with no more than it takes.
#[test]
fn a_failing_plan_shrinks_to_what_matters() {
    let plan = parse_plan(&format!("100 weather 0 500 100\n100 append supervisor\n{DAY}1000 forget 1\n"));
    let small = shrink(1, plan.unwrap(), Broken::Nothing, 60);
    let lines: Vec<_> = small.iter().map(ToString::to_string).collect();
    let last = |word: &str| lines.iter().any(|line| line.contains(word));
    assert!(lines.len() <= 3 && last("forget 1"), "{lines:#?}");
}
