//! A short version of `./dev scale`: bulk work on a few thousand objects takes no more than its share of the processor for twice as many, and what
//! does nothing takes nothing.
#![allow(clippy::unwrap_used)]

use bench::scale::{Options, run};
use clap::Parser;

/// Runs steps, with their objects divided. The machine may be busy: only the broker's own time on the processor, its memory and a very long wait
/// of others count.
fn holds(only: &str, divide: &str) {
    let words = ["bench-scale", "--only", only, "--divide", divide, "--idle-seconds", "1", "--wait-ms", "5000"];
    assert!(run(&Options::parse_from(words)).unwrap(), "something of {only} does not hold: see its line above");
}

#[test]
fn queues() {
    holds("set a policy,delete a vhost", "10");
}

/// What a queue takes shows only in very many.
#[test]
fn memory_of_queues() {
    holds("declare transient queues", "1");
}

#[test]
fn bindings() {
    holds("bind a queue to a topic,delete a queue with its bindings", "2");
}

#[test]
fn what_a_connection_has() {
    holds("close a connection with exclusive,open channels,close a connection with channels", "2");
}
