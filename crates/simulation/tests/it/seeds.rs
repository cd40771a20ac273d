//! Many seeds keep every promise.

use simulation::{Broken, parse_plan, plan_of, run, run_all, shrink};
use testkit::{Breadth, figure};

/// A shrunk plan is worth so many runs.
const TRIES: usize = 200;

/// Two hundred seeds, or thousands.
#[test]
fn every_promise_is_kept() {
    let seeds = match Breadth::of_this_run() {
        Breadth::Sample => 1..201,
        Breadth::Full => 1..2_001,
    };
    let summary = run_all(seeds);
    figure("seeds", summary.seeds);
    figure("simulated hours", summary.simulated.as_secs() / 3600);
    for (what, count) in &summary.counts {
        figure(what, count);
    }
    figure("seeds that broke a promise", summary.failures.len());
    if let Some(failure) = summary.failures.first() {
        let small = shrink(failure.seed, plan_of(failure.seed), Broken::Nothing, TRIES);
        let lines: Vec<_> = small.iter().map(ToString::to_string).collect();
        let seeds: Vec<_> = summary.failures.iter().map(|failure| failure.seed).collect();
        panic!(
            "seeds {seeds:?} broke a promise; seed {}: {}\n# cargo run -p simulation -- --seed {} --plan FILE, \
             with these lines in FILE\n{}",
            failure.seed,
            failure.violation,
            failure.seed,
            lines.join("\n")
        );
    }
}

/// What seeds found and was mended stays mended: a release that was logged and not published when
/// an approver's key was replaced could never be finished, and one that was signed and not logged
/// when the supervisor's key was replaced kept its place in the stream for ever.
#[test]
fn what_was_found_is_kept() {
    let approver = ["5032 release all dies 906", "294 weather 118 2345 24", "16936 release canary", APPROVER];
    for (seed, plan) in [(902, &approver[..]), (1499, &SECOND_SIGNER[..])] {
        let outcome = run(seed, &parse_plan(&plan.join("\n")).expect("a plan"), Broken::Nothing);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

const APPROVER: &str = "28053894 succeed vendor approver dies 2186";
const SECOND_SIGNER: [&str; 11] = [
    "282 release all",
    "3012 update 0",
    "14933 fail supervisor 3 applied",
    "142 update 1",
    "21314 release all",
    "4 promote",
    "88 append supervisor",
    "337 weather 73 1296 5",
    "1566 release all",
    "282 succeed supervisor release dies 145",
    "486256 clock vendor 3600",
];

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 7] {
        let (first, second) = (run(seed, &plan_of(seed), Broken::Nothing), run(seed, &plan_of(seed), Broken::Nothing));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.digest(), second.digest(), "seed {seed}");
    }
    let (one, other) = (run(3, &plan_of(3), Broken::Nothing), run(7, &plan_of(7), Broken::Nothing));
    assert_ne!(one.digest(), other.digest(), "another seed gives another trace");
}

#[test]
fn a_printed_plan_is_the_plan() {
    for seed in 0..200 {
        let plan = plan_of(seed);
        let text: String = plan.iter().map(|step| format!("{step}\n")).collect();
        assert_eq!(parse_plan(&format!("# seed {seed}\n\n{text}")), Ok(plan));
    }
    for wrong in ["1 dance", "1 update", "x audit", "1 audit 2", "1 restart q1", "1 fail vendor 1 never"] {
        assert!(parse_plan(wrong).is_err(), "{wrong}");
    }
}
