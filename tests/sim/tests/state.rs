//! Seeds of random operations on catalog, queues and access that run with every test.
#![allow(clippy::unwrap_used, missing_docs)]

use sim::state::{Tally, run, run_only};

const SEEDS: u64 = 6;
const OPERATIONS: u64 = 5_000;

#[test]
fn catalog_queues_and_access_do_what_the_model_says() {
    let mut sum = Tally::default();
    let mut broken = Vec::new();
    for seed in 0..SEEDS {
        match run(seed, 0, OPERATIONS, &mut |_| {}) {
            Ok(tally) => sum.add(tally),
            Err(what) => broken.push(what),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // Otherwise little was tried.
    assert!(sum.delivered > SEEDS * 400 && sum.letters > SEEDS * 50 && sum.held_back > SEEDS * 2, "{sum:?}");
    assert!(sum.refused > SEEDS * 5 && sum.denied > SEEDS * 50, "{sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let one = run(7, 0, 2_000, &mut |_| {}).unwrap();
    assert_eq!(one, run(7, 0, 2_000, &mut |_| {}).unwrap());
    assert_ne!(one.digest, run(8, 0, 2_000, &mut |_| {}).unwrap().digest);
    let steps: Vec<u64> = (0..200).collect();
    let (told, outcome) = run_only(7, &steps);
    assert_eq!((told, outcome), run_only(7, &steps));
}
