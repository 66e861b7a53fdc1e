//! Nodes go and come back while clients work.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use conformance::client::Login;
use harness::{Cluster, Plan};

use crate::client::{Client, PATIENCE};
use crate::{client, eventually, is_one_cluster, start};

const AGAIN: Duration = Duration::from_millis(50);

/// Publishes numbers to a queue until told to stop, and connects again, to the next node, whenever something is wrong. Gives what was confirmed.
fn publish_until(stop: &AtomicBool, addresses: &[SocketAddr], queue: &str, first: u64) -> BTreeSet<u64> {
    let (mut confirmed, mut number, mut turn) = (BTreeSet::new(), first, 0);
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let Ok(mut client) = Client::try_open(addresses[turn % addresses.len()], &Login::default()) else {
            thread::sleep(AGAIN);
            continue;
        };
        if client.ask("confirm.select") != "confirm.select-ok" {
            continue;
        }
        for tag in 1.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            number += 1;
            match client.publish_confirmed(queue, &number.to_string(), tag).as_str() {
                "confirmed" => drop(confirmed.insert(number)),
                "refused" => thread::sleep(AGAIN),
                _ => break,
            }
        }
    }
    confirmed
}

fn restart_each_under_load(kill: bool) {
    let mut cluster = start(Plan::nodes(3));
    for node in cluster.numbers() {
        let declared = client(&cluster, node).ask(&format!("queue.declare queue=q{node} durable=true"));
        assert_eq!(declared, "declare-ok 0 0");
    }
    let addresses: Vec<SocketAddr> = cluster.numbers().map(|node| cluster.address(node).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let (stop, addresses) = (&stop, &addresses);
    let confirmed = thread::scope(|scope| {
        let publishers: Vec<_> = cluster
            .numbers()
            .map(|node| {
                scope.spawn(move || publish_until(stop, addresses, &format!("q{node}"), node as u64 * 1_000_000))
            })
            .collect();
        for node in cluster.numbers() {
            thread::sleep(Duration::from_secs(1));
            if kill {
                cluster.kill_9(node).unwrap()
            } else {
                cluster.terminate(node).unwrap()
            }
            thread::sleep(Duration::from_millis(300));
            cluster.start_node(node).unwrap();
        }
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect::<Vec<_>>()
    });
    for (node, confirmed) in (1..).zip(&confirmed) {
        let mut client = client(&cluster, node % 3 + 1);
        let mut there = Vec::new();
        eventually("the queue can be reached", || {
            client.ask(&format!("queue.declare queue=q{node} passive=true")).starts_with("declare-ok")
        });
        while let Some(body) = client.ask(&format!("basic.get queue=q{node} no_ack=true")).strip_prefix("get-ok ") {
            there.push(body.trim_end_matches(" again").parse::<u64>().unwrap());
        }
        assert!(there.is_sorted(), "q{node} is out of order");
        let lost: Vec<&u64> = confirmed.iter().filter(|number| !there.contains(number)).collect();
        assert!(lost.is_empty(), "q{node}: {} confirmed, {} lost: {lost:?}", confirmed.len(), lost.len());
        assert!(confirmed.len() > 20, "q{node}: only {} confirmed", confirmed.len());
    }
    is_one_cluster(&cluster);
}

#[test]
fn a_rolling_restart_loses_nothing_that_was_confirmed() {
    restart_each_under_load(false);
}

#[test]
fn a_rolling_kill_loses_nothing_that_was_confirmed() {
    restart_each_under_load(true);
}

/// Declares until its node goes; gives the names that were acknowledged.
fn declare_until(stop: &AtomicBool, address: SocketAddr, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut client = Client::open(address);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{prefix}.{number}");
        if client.ask(&format!("queue.declare queue={name} durable=true")) != "declare-ok 0 0" {
            break;
        }
        names.push(name);
    }
    names
}

#[test]
fn a_node_killed_amid_declares_loses_none_that_was_acknowledged() {
    let mut cluster = start(Plan::nodes(3));
    for victim in [1, 3] {
        let stop = AtomicBool::new(false);
        let stop = &stop;
        let declared = thread::scope(|scope| {
            let declarers: Vec<_> = cluster
                .numbers()
                .flat_map(|node| [(node, 'a'), (node, 'b')])
                .map(|(node, which)| {
                    let address = cluster.address(node).unwrap();
                    scope.spawn(move || declare_until(stop, address, &format!("v{victim}.{node}{which}")))
                })
                .collect();
            thread::sleep(Duration::from_millis(1500));
            cluster.kill_9(victim).unwrap();
            thread::sleep(Duration::from_millis(1500));
            stop.store(true, Ordering::Relaxed);
            declarers.into_iter().flat_map(|declarer| declarer.join().unwrap()).collect::<Vec<String>>()
        });
        assert!(declared.len() > 5, "only {} declared", declared.len());
        cluster.start_node(victim).unwrap();
        are_known_everywhere(&cluster, &declared);
    }
    is_one_cluster(&cluster);
}

fn are_known_everywhere(cluster: &Cluster, names: &[String]) {
    for node in cluster.numbers() {
        let mut client = client(cluster, node);
        for name in names {
            eventually(&format!("{name} on node {node}"), || {
                let said = client.ask(&format!("queue.declare queue={name} passive=true"));
                said == "declare-ok 0 0"
            });
        }
    }
}

#[test]
fn all_nodes_killed_at_once_keep_what_was_acknowledged() {
    let mut cluster = start(Plan::nodes(3));
    let mut client_of_2 = client(&cluster, 2);
    client_of_2.ask("confirm.select");
    assert_eq!(client(&cluster, 1).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    let names: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    for (number, name) in (1..).zip(&names) {
        assert_eq!(client_of_2.ask(&format!("queue.declare queue={name} durable=true")), "declare-ok 0 0");
        assert_eq!(client_of_2.publish_confirmed("q", name, number), "confirmed");
    }
    for node in cluster.numbers() {
        cluster.kill_9(node).unwrap();
    }
    cluster.start_all().unwrap();
    are_known_everywhere(&cluster, &names);
    eventually("its messages are there", || {
        client(&cluster, 3).ask("queue.declare queue=q passive=true") == "declare-ok 20 0"
    });
}

#[test]
fn a_consumer_elsewhere_goes_on_after_the_queue_has_come_back() {
    let mut cluster = start(Plan::nodes(3));
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    let mut consumer = client(&cluster, 1);
    for round in 0..3 {
        eventually("it may consume", || consumer.ask("basic.consume queue=q consumer_tag=c") == "basic.consume-ok");
        eventually("it may publish", || {
            let mut publisher = client(&cluster, 3);
            publisher.ask("confirm.select");
            publisher.publish_confirmed("q", &format!("m{round}"), 1) == "confirmed"
        });
        // An ack before a kill need not be on the disk.
        let mut said = consumer.next(PATIENCE);
        while said.ends_with(" again") {
            said = consumer.next(PATIENCE);
        }
        assert_eq!(said, format!("deliver m{round}"));
        let tag = consumer.tag;
        consumer.send(&format!("basic.ack delivery_tag={tag} multiple=true"));
        cluster.kill_9(2).unwrap();
        assert_eq!(consumer.next(PATIENCE), "cancel c");
        cluster.start_node(2).unwrap();
    }
}
