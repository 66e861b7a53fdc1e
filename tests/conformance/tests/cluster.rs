//! The scenarios across the nodes of a cluster: what RabbitMQ 3.10.8 was recorded to answer on one node holds wherever the connections are and
//! the queues live.
#![allow(clippy::unwrap_used, clippy::panic)]

use conformance::client::{Client, Login, PATIENCE};
use conformance::script::Needs;
use conformance::{awaited, script, suite};
use harness::Cluster;

/// What is so at once on one node, and a moment later on another; with RabbitMQ's nodes too. All that begin with these are left out.
const A_MOMENT_LATER: [&str; 5] = [
    "alarms/",
    "queue/exclusive_takes_publishes_of_others",
    "queue/auto_delete_goes_with_the_connection",
    "settle/connection_close_requeues_in_order",
    "single_active/full_prefetch_holds_the_others_back",
];

fn compare(cluster: &Cluster) {
    let mut scenarios = script::all().unwrap();
    scenarios.retain(|scenario| !awaited::names(&scenario.name) && scenario.needs != Needs::Restart);
    scenarios.retain(|scenario| !A_MOMENT_LATER.iter().any(|name| scenario.name.starts_with(name)));
    // For a look at some of them.
    if let Ok(only) = std::env::var("ONLY") {
        scenarios.retain(|scenario| scenario.name.contains(&only));
    }
    let played = suite::across(&scenarios, cluster).unwrap();
    assert_eq!(played.len(), scenarios.len(), "every scenario was played");
    let wrong = suite::wrong(&played).unwrap();
    let (count, list) = (wrong.len(), wrong.join("\n"));
    assert!(wrong.is_empty(), "{count} of {} scenarios differ:\n{list}", played.len());
}

#[test]
#[ignore = "takes minutes; docs/internals/cluster-tests.md"]
fn connections_on_different_nodes() {
    let cluster = suite::cluster("").unwrap_or_else(|error| panic!("{error}"));
    compare(&cluster);
}

#[test]
#[ignore = "takes minutes; docs/internals/cluster-tests.md"]
fn queues_on_another_node_than_their_connections() {
    let cluster = suite::cluster("queue_master_locator = min-masters").unwrap_or_else(|error| panic!("{error}"));
    // The first two nodes have so many queues that all others go to the third.
    for node in [1, 2] {
        let mut client = Client::connect_to(cluster.address(node).unwrap()).unwrap();
        assert!(client.open(&Login::default()).unwrap().is_none());
        for number in 0..200 {
            let (name, arguments) = (format!("ballast.{node}.{number}"), "{x-queue-master-locator:S client-local}");
            let given = [("queue", name.as_str()), ("durable", "true"), ("arguments", arguments)];
            client.send_method(1, "queue.declare", &given).unwrap();
            client.next(PATIENCE).unwrap();
        }
    }
    compare(&cluster);
}
