//! Seeds of the store's simulation that run with every test.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use sim::store::{Faults, Outcome, run};

const SEEDS: u64 = 70;

fn seeds(faults: Faults) -> Outcome {
    let mut sum = Outcome::default();
    let mut broken = Vec::new();
    for seed in 0..SEEDS {
        match run(seed, faults) {
            Ok(outcome) => {
                sum.recovered += outcome.recovered;
                sum.errors += outcome.errors;
                sum.retired += outcome.retired;
                sum.full += outcome.full;
                sum.reports += outcome.reports;
            }
            Err(what) => broken.push(what),
        }
    }
    assert!(broken.is_empty(), "{} seeds broke a promise:\n{}", broken.len(), broken.join("\n"));
    sum
}

#[test]
fn crashes_lose_nothing_that_was_promised() {
    let sum = seeds(Faults::Crashes);
    assert!(sum.recovered > 10_000 && sum.retired > 20 && sum.errors == 0, "the seeds do too little: {sum:?}");
}

#[test]
fn failing_calls_and_full_disks_lose_nothing_that_was_promised() {
    let sum = seeds(Faults::Errors);
    assert!(sum.errors > 50 && sum.full > 50, "the seeds do too little: {sum:?}");
}

#[test]
fn rot_is_reported_and_never_handed_out() {
    let sum = seeds(Faults::Rot);
    assert!(sum.reports > 50, "the seeds do too little: {sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for faults in [Faults::Crashes, Faults::Errors, Faults::Rot] {
        assert_eq!(run(7, faults).unwrap(), run(7, faults).unwrap());
    }
}

/// Seeds that once broke a promise, each with what was wrong.
const REGRESSIONS: [(u64, Faults); 1] = [
    // A block's index reached the disk before its messages did, and hid the journal's copy of them.
    (57, Faults::Errors),
];

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, faults) in REGRESSIONS {
        run(seed, faults).unwrap();
    }
}
