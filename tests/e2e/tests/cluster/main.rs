//! Clusters of real brokerd processes. docs/internals/cluster-tests.md says which case is tested where.
//!
//! `cargo build -p broker-ctl -p broker-server` must have run. Where the network is cut, each node is on a host of its own
//! (`harness::Hosts`): on a machine where that cannot be, those tests say so and are skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod by_name;
mod client;
mod elsewhere;
mod forming;
mod minority;
mod names;
mod partitions;
mod recovery;
mod tls;

use std::time::{Duration, Instant};

use client::{Client, PATIENCE};
use harness::{Cluster, Plan};

/// The catalog refuses changes for want of a majority.
const NO_MAJORITY: &str = "connection 541 INTERNAL_ERROR";

/// A cluster whose nodes are all linked and all vote.
fn start(plan: Plan) -> Cluster {
    let cluster = Cluster::start(plan).unwrap_or_else(|error| panic!("{error}"));
    let others = cluster.numbers().count() - 1;
    eventually("all nodes are linked and vote", || {
        let logs: Vec<String> = cluster.numbers().map(|node| cluster.log(node).unwrap()).collect();
        let times = |words: &str| logs.iter().map(|log| log.matches(words).count()).min().unwrap_or_default();
        let voting: usize = logs.iter().map(|log| log.matches("votes from now on").count()).sum();
        times("link to another node is up") >= others && voting >= others
    });
    cluster
}

fn client(cluster: &Cluster, node: usize) -> Client {
    Client::open(cluster.address(node).unwrap())
}

/// Runs a command of an administrator on a node, which must succeed.
fn ctl(cluster: &Cluster, node: usize, words: &[&str]) -> String {
    let said = cluster.control(node).unwrap().run(words).unwrap();
    assert!(said.succeeded, "{words:?}: {}", said.text);
    said.text
}

/// Tries until it holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Each node can change the catalog, and all see it: they are one cluster.
fn is_one_cluster(cluster: &Cluster) {
    for node in cluster.numbers() {
        let name = format!("one.{node}");
        let declared = client(cluster, node).ask(&format!("queue.declare queue={name} durable=true"));
        assert!(declared.starts_with("declare-ok"), "on node {node}: {declared}");
        for other in cluster.numbers() {
            let seen = client(cluster, other).ask(&format!("queue.declare queue={name} passive=true"));
            assert!(seen.starts_with("declare-ok"), "declared on {node}, on {other}: {seen}");
        }
    }
    for node in cluster.numbers() {
        let deleted = client(cluster, node).ask(&format!("queue.delete queue=one.{node}"));
        assert_eq!(deleted, "queue.delete-ok 0");
    }
    let founded: usize = cluster.numbers().map(|node| founded(cluster, node)).sum();
    assert_eq!(founded, 1, "clusters founded");
}

/// How often a node has founded a cluster.
fn founded(cluster: &Cluster, node: usize) -> usize {
    cluster.log(node).unwrap().matches("a cluster is founded").count()
}
