//! Cuts of every shape: whatever was confirmed is there afterwards, and the nodes are one cluster again without a restart.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Cluster, Plan, has_own_network};

use crate::client::{Client, PATIENCE};
use crate::{client, eventually, is_one_cluster, start};

const MODES: [&str; 3] = ["ignore", "pause_minority", "autoheal"];

fn on_hosts(mode: &str) -> Cluster {
    start(Plan::nodes(3).on_hosts().conf(&format!("cluster_partition_handling = {mode}")))
}

/// All serve, see each other's queues, and are one cluster.
fn comes_together(cluster: &Cluster) {
    for node in cluster.numbers() {
        assert!(cluster.comes_to_serve(node, true, PATIENCE).unwrap(), "node {node} does not serve after the heal");
    }
    for node in cluster.numbers() {
        for other in cluster.numbers() {
            eventually(&format!("node {node} reaches the queue of {other}"), || {
                let mut client = Client::open_some_time(cluster.address(node).unwrap());
                client.ask(&format!("queue.declare queue=q{other} passive=true")).starts_with("declare-ok")
            });
        }
    }
    is_one_cluster(cluster);
}

fn declare_one_each(cluster: &Cluster) {
    for node in cluster.numbers() {
        let declared = client(cluster, node).ask(&format!("queue.declare queue=q{node} durable=true"));
        assert_eq!(declared, "declare-ok 0 0");
    }
}

/// Takes what is in a queue.
fn drain(cluster: &Cluster, queue: usize) -> Vec<u64> {
    let mut client = client(cluster, queue);
    let mut bodies = Vec::new();
    while let Some(body) = client.ask(&format!("basic.get queue=q{queue} no_ack=true")).strip_prefix("get-ok ") {
        bodies.push(body.trim_end_matches(" again").parse().unwrap());
    }
    bodies
}

/// Publishes to a queue as fast as it is confirmed, for so long; gives the numbers that were confirmed, and how many were sent.
fn publish_for(mut client: Client, queue: usize, time: Duration) -> (BTreeSet<u64>, u64) {
    client.ask("confirm.select");
    let until = Instant::now() + time;
    let (mut confirmed, mut number) = (BTreeSet::new(), 0);
    while Instant::now() < until {
        number += 1;
        match client.publish_confirmed(&format!("q{queue}"), &number.to_string(), number).as_str() {
            "confirmed" => drop(confirmed.insert(number)),
            "refused" => thread::sleep(Duration::from_millis(20)),
            _ => break,
        }
    }
    (confirmed, number)
}

/// RabbitMQ's "false promises", in every mode: publishers on every node to every other node's queue while a node is cut off.
#[test]
fn what_was_confirmed_is_there_after_a_cut_in_every_mode() {
    if !has_own_network("partitions::what_was_confirmed_is_there_after_a_cut_in_every_mode").unwrap() {
        return;
    }
    let mode = std::env::var("CLUSTER_MODE").ok();
    let Some(mode) = mode else {
        // Each mode in a network of its own, which ends with this one.
        let runs = MODES.map(|mode| {
            let run = std::process::Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "partitions::what_was_confirmed_is_there_after_a_cut_in_every_mode", "--nocapture"])
                .env_remove("HARNESS_OWN_NETWORK")
                .env("CLUSTER_MODE", mode)
                .spawn();
            (mode, run.unwrap())
        });
        for (mode, mut run) in runs {
            assert!(run.wait().unwrap().success(), "with {mode}");
        }
        return;
    };
    let cluster = on_hosts(&mode);
    declare_one_each(&cluster);
    let network = cluster.network().unwrap();
    thread::scope(|scope| {
        let publishers: Vec<_> = [(1, 3), (3, 1), (3, 3), (1, 2)]
            .into_iter()
            .map(|(on, queue)| {
                let client = client(&cluster, on);
                // Each queue has one publisher, but q3 has two: theirs are told apart by the sum.
                (queue, scope.spawn(move || publish_for(client, queue, Duration::from_secs(12))))
            })
            .collect();
        thread::sleep(Duration::from_secs(2));
        network.isolate(3).unwrap();
        thread::sleep(Duration::from_secs(7));
        network.heal_all().unwrap();
        let mut confirmed: Vec<(usize, BTreeSet<u64>, u64)> = Vec::new();
        for (queue, publisher) in publishers {
            let (numbers, sent) = publisher.join().unwrap();
            confirmed.push((queue, numbers, sent));
        }
        comes_together(&cluster);
        for queue in 1..=3 {
            let there = drain(&cluster, queue);
            for (_, numbers, sent) in confirmed.iter().filter(|(of, ..)| *of == queue) {
                let lost: Vec<&u64> = numbers.iter().filter(|number| !there.contains(number)).collect();
                assert!(lost.is_empty(), "{mode}, q{queue}: confirmed and lost: {lost:?}");
                assert!(numbers.len() > 5, "{mode}, q{queue}: hardly anything was confirmed of {sent}");
            }
            let promised: usize =
                confirmed.iter().filter(|(of, ..)| *of == queue).map(|(_, numbers, _)| numbers.len()).sum();
            assert!(there.len() >= promised, "{mode}, q{queue}: {} are there of {promised}", there.len());
        }
    });
}

#[test]
fn one_way_cuts_end_with_the_heal() {
    if !has_own_network("partitions::one_way_cuts_end_with_the_heal").unwrap() {
        return;
    }
    let cluster = on_hosts("pause_minority");
    declare_one_each(&cluster);
    let network = cluster.network().unwrap();
    for (from, to) in [(1, 2), (3, 1), (2, 3)] {
        network.cut_one_way(from, to).unwrap();
        thread::sleep(Duration::from_secs(4));
        // Whichever leads, there is a majority that can talk: through the third.
        let third = 6 - from - to;
        let mut changed = false;
        for node in [usize::from(third), usize::from(from), usize::from(to)] {
            let Ok(mut client) =
                Client::try_open(cluster.address(node).unwrap(), &conformance::client::Login::default())
            else {
                continue;
            };
            changed |= client.ask(&format!("queue.declare queue=during{from} durable=true")).starts_with("declare-ok");
        }
        assert!(changed, "nobody can change anything while only {from} does not reach {to}");
        network.heal_all().unwrap();
        comes_together(&cluster);
    }
}

#[test]
fn two_nodes_that_do_not_see_each_other_leave_the_third_a_majority() {
    if !has_own_network("partitions::two_nodes_that_do_not_see_each_other_leave_the_third_a_majority").unwrap() {
        return;
    }
    let cluster = on_hosts("pause_minority");
    declare_one_each(&cluster);
    let network = cluster.network().unwrap();
    network.cut(1, 2).unwrap();
    thread::sleep(Duration::from_secs(8));
    let serving = cluster.numbers().filter(|node| cluster.serves(*node).unwrap()).count();
    assert!(serving >= 2, "{serving} nodes serve");
    assert!(cluster.serves(3).unwrap(), "the one that sees both does not serve");
    let declared = client(&cluster, 3).ask("queue.declare queue=during durable=true");
    assert_eq!(declared, "declare-ok 0 0");
    network.heal_all().unwrap();
    comes_together(&cluster);
}

/// The node that leads, as one of them says.
fn leader(cluster: &Cluster) -> usize {
    let said = cluster.brokerctl(1).unwrap().run(&["cluster", "status", "-o", "json"]).unwrap();
    let status: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    let leader = status["leader"].as_str().unwrap_or_else(|| panic!("nobody leads: {status}")).to_owned();
    let is_leader = |node: &usize| cluster.name(*node).unwrap() == leader;
    cluster.numbers().find(is_leader).unwrap_or_else(|| panic!("{leader} is nobody"))
}

/// A node that the leader does not reach hears of a new queue of its own only after the heal. What is published to it meanwhile is not confirmed
/// before, and is there then.
#[test]
fn a_queue_whose_node_does_not_know_of_it_yet_confirms_what_it_has() {
    if !has_own_network("partitions::a_queue_whose_node_does_not_know_of_it_yet_confirms_what_it_has").unwrap() {
        return;
    }
    let cluster = on_hosts("ignore");
    let leader = leader(&cluster);
    let mut others = cluster.numbers().filter(|node| *node != leader);
    let (home, here) = (others.next().unwrap(), others.next().unwrap());
    for node in [leader, here] {
        assert_eq!(client(&cluster, node).ask(&format!("queue.declare queue=q{node} durable=true")), "declare-ok 0 0");
    }
    let network = cluster.network().unwrap();
    network.cut(leader.try_into().unwrap(), home.try_into().unwrap()).unwrap();
    let mut publisher = client(&cluster, here);
    let declared =
        publisher.ask("queue.declare queue=late durable=true arguments={x-queue-master-locator:S min-masters}");
    assert_eq!(declared, "declare-ok 0 0");
    publisher.ask("confirm.select");
    (1..=3).for_each(|number| publisher.publish("late", &format!("m{number}")));
    assert_eq!(publisher.next(Duration::from_secs(3)), "nothing", "it is confirmed where nobody has it");
    network.heal_all().unwrap();
    assert_eq!(publisher.settled(3), "confirmed");
    for number in 1..=3 {
        let got = client(&cluster, home).ask("basic.get queue=late no_ack=true");
        assert_eq!(got, format!("get-ok m{number}"));
    }
}

#[test]
fn cuts_that_come_and_go_leave_one_cluster() {
    if !has_own_network("partitions::cuts_that_come_and_go_leave_one_cluster").unwrap() {
        return;
    }
    let cluster = on_hosts("autoheal");
    declare_one_each(&cluster);
    let network = cluster.network().unwrap();
    thread::scope(|scope| {
        let publisher = client(&cluster, 1);
        let publisher = scope.spawn(move || publish_for(publisher, 2, Duration::from_secs(12)));
        for round in 0..6 {
            let (one, other) = [(1, 2), (2, 3), (1, 3)][round % 3];
            for _ in 0..4 {
                network.cut(one, other).unwrap();
                thread::sleep(Duration::from_millis(250));
                network.heal(one, other).unwrap();
                thread::sleep(Duration::from_millis(150));
            }
        }
        let (confirmed, _) = publisher.join().unwrap();
        comes_together(&cluster);
        let there = drain(&cluster, 2);
        let lost: Vec<&u64> = confirmed.iter().filter(|number| !there.contains(number)).collect();
        assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
        assert!(!confirmed.is_empty());
    });
}

#[test]
fn every_pair_is_cut_and_healed() {
    if !has_own_network("partitions::every_pair_is_cut_and_healed").unwrap() {
        return;
    }
    let cluster = on_hosts("ignore");
    declare_one_each(&cluster);
    let network = cluster.network().unwrap();
    for node in 1..=3 {
        network.isolate(node).unwrap();
    }
    thread::sleep(Duration::from_secs(7));
    for node in cluster.numbers() {
        let mut alone = client(&cluster, node);
        assert_eq!(alone.ask(&format!("queue.declare queue=q{node} passive=true")), "declare-ok 0 0");
        assert!(alone.ask(&format!("queue.declare queue=new{node}")).starts_with(crate::NO_MAJORITY));
    }
    network.heal_all().unwrap();
    comes_together(&cluster);
}

#[test]
fn a_node_that_took_a_name_for_that_of_another_hears_later_whose_it_is() {
    if !has_own_network("partitions::a_node_that_took_a_name_for_that_of_another_hears_later_whose_it_is").unwrap() {
        return;
    }
    let cluster = start(Plan::nodes(3).on_hosts());
    let mut first = client(&cluster, 1);
    assert_eq!(first.ask("queue.declare queue=x exclusive=true"), "declare-ok 0 0");
    // The second node does not hear that the name is free; until it gives up its link to the first it takes it for that one's.
    cluster.network().unwrap().cut(1, 2).unwrap();
    drop(first);
    let mut next = client(&cluster, 3);
    eventually("the name is free on the third node", || {
        next.ask("queue.declare queue=x exclusive=true") == "declare-ok 0 0"
    });
    assert!(next.ask("queue.bind queue=x exchange=amq.fanout").ends_with("bind-ok"));
    eventually("the second node knows whose it is", || {
        client(&cluster, 2).ask("queue.declare queue=x passive=true").starts_with("channel 405 RESOURCE_LOCKED")
    });
    eventually("and what it is bound to", || {
        client(&cluster, 2).publish_with("exchange=amq.fanout", false, b"m");
        next.ask("basic.get queue=x no_ack=true").starts_with("get-ok m")
    });
}
