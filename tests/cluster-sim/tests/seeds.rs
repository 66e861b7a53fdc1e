//! A few seeds of whole nodes with every test, each in a process of its own; the long run is `./dev cluster-sim --seeds N`.
#![allow(clippy::unwrap_used, missing_docs)]

/// Whether a seed held all promises, and what was told.
fn live(seed: u64, more: &[&str]) -> (bool, String) {
    let output = cluster_sim::in_a_process(env!("CARGO_BIN_EXE_cluster-sim").as_ref(), seed, more).unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), told)
}

fn hold(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let (held, told) = live(seed, &[]);
        assert!(held, "{told}\nagain: cargo run -p cluster-sim -- one {seed} --trace");
        // Otherwise little was tried.
        let acknowledged: usize = told.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(acknowledged > 50, "{told}");
    }
}

#[test]
fn some_seeds_hold_all_promises() {
    hold(0..2);
}

#[test]
fn some_more_seeds_hold_all_promises() {
    hold(2..4);
}

#[test]
fn an_older_copy_of_a_disk_is_kept_out() {
    let (held, told) = live(9, &["--trace"]);
    assert!(held && told.contains("an operator has emptied the disk of n3, which was an older copy"), "{told}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (held, trace) = live(1, &["--trace"]);
    assert!(held && trace.lines().count() > 500, "{trace}");
    assert_eq!(trace, live(1, &["--trace"]).1);
    assert_ne!(trace, live(2, &["--trace"]).1);
}

#[test]
fn a_node_that_founds_with_an_emptied_disk_is_found() {
    let (held, told) = live(0, &["--broken", "emptied-founds"]);
    assert!(!held && told.contains("broke a promise: one_cluster:"), "{told}");
}

#[test]
fn a_node_that_votes_on_with_an_emptied_disk_is_kept_out() {
    let (held, told) = live(0, &["--broken", "emptied-votes", "--trace"]);
    assert!(held && told.contains("is an older copy"), "{told}");
}

#[test]
fn a_shard_that_is_not_told_of_an_entry_is_found() {
    let (held, told) = live(4, &["--broken", "feed-skips"]);
    assert!(!held && told.contains("broke a promise: nothing_passed_over:"), "{told}");
}

#[test]
fn alarms_that_are_not_spread_are_found() {
    let (held, told) = live(3, &["--broken", "facts-stay"]);
    assert!(!held && told.contains("broke a promise: alarms_reach_everyone:"), "{told}");
}
