//! A short version of `./dev bench-cluster`: three nodes, flows and calls between them, and a fourth one that joins.
#![allow(clippy::unwrap_used)]

use bench::cluster::{Options, run};
use clap::Parser;

#[test]
fn steps_run_to_their_end() {
    let words = "bench-cluster --only flows,rpc,declare,join --against ours --rounds 1 --seconds 0.1 --queues 300";
    assert!(run(&Options::parse_from(words.split(' '))).unwrap(), "a step failed: see above");
}
