//! Nodes that find each other by a host name whose addresses are theirs, as those of a headless service in Kubernetes.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use harness::{Cluster, Plan, has_own_network};

use crate::names::{NAME, Names};
use crate::{client, eventually, founded, is_one_cluster};

/// Several looks round.
const A_WHILE: Duration = Duration::from_secs(3);

/// Nodes of a cluster that is to have three at first. They have not started, and the name has no address.
fn prepare(nodes: u8, conf: &str) -> (Cluster, Names) {
    let by_name = format!(
        "cluster_formation.peer_discovery_backend = dns\ncluster_formation.dns.hostname = {NAME}\n\
         cluster_formation.target_cluster_size_hint = 3\n{conf}"
    );
    let cluster = Cluster::prepare(Plan::nodes(nodes).on_hosts().unlisted().conf(&by_name)).unwrap();
    let names = Names::serve(cluster.network().unwrap());
    (cluster, names)
}

fn addresses<const N: usize>(cluster: &Cluster, hosts: [u8; N]) -> [Ipv4Addr; N] {
    hosts.map(|host| cluster.network().unwrap().address(host))
}

fn launch_all(cluster: &mut Cluster) {
    for node in cluster.numbers() {
        cluster.launch(node).unwrap();
    }
}

fn await_all(cluster: &mut Cluster) {
    for node in cluster.numbers() {
        cluster.await_service(node).unwrap();
    }
}

fn all_founded(cluster: &Cluster) -> usize {
    cluster.numbers().map(|node| founded(cluster, node)).sum()
}

#[test]
fn three_nodes_find_each_other_by_a_host_name_once_and_need_it_no_more() {
    if !has_own_network("by_name::three_nodes_find_each_other_by_a_host_name_once_and_need_it_no_more").unwrap() {
        return;
    }
    let (mut cluster, names) = prepare(3, "");
    names.tell(&addresses(&cluster, [1, 2, 3]));
    launch_all(&mut cluster);
    await_all(&mut cluster);
    is_one_cluster(&cluster);
    assert!(names.asked() > 0);
    // Whoever has a data directory knows where it belongs.
    for node in cluster.numbers() {
        cluster.kill_9(node).unwrap();
    }
    names.tell(&[]);
    let asked = names.asked();
    launch_all(&mut cluster);
    await_all(&mut cluster);
    is_one_cluster(&cluster);
    assert_eq!(names.asked(), asked, "the name is asked for");
}

#[test]
fn a_host_name_that_has_no_address_at_first_and_then_ever_more_makes_one_cluster() {
    if !has_own_network("by_name::a_host_name_that_has_no_address_at_first_and_then_ever_more_makes_one_cluster")
        .unwrap()
    {
        return;
    }
    let (mut cluster, names) = prepare(3, "");
    launch_all(&mut cluster);
    for node in cluster.numbers() {
        eventually("the log says what is waited for", || {
            cluster.log(node).unwrap().contains("broker.example.org (cluster_formation.dns.hostname) has no address")
        });
    }
    for some in [&addresses(&cluster, [2])[..], &addresses(&cluster, [3, 2])] {
        names.tell(some);
        thread::sleep(A_WHILE);
        assert_eq!(all_founded(&cluster), 0, "told of {some:?} only");
    }
    eventually("the log says who was found", || {
        cluster.log(2).unwrap().contains("2 of 3 nodes are found (n2@192.0.2.2, n3@192.0.2.3)")
    });
    names.tell(&addresses(&cluster, [3, 1, 2]));
    await_all(&mut cluster);
    is_one_cluster(&cluster);
}

#[test]
fn nodes_that_are_told_of_different_others_found_one_cluster() {
    if !has_own_network("by_name::nodes_that_are_told_of_different_others_found_one_cluster").unwrap() {
        return;
    }
    let (mut cluster, names) = prepare(3, "");
    // Each is the first of those it is told of, and two see a majority.
    for (host, told) in [(1, [1, 2]), (2, [2, 3]), (3, [3, 3])] {
        names.tell_one(cluster.network().unwrap().address(host), &addresses(&cluster, told));
    }
    launch_all(&mut cluster);
    thread::sleep(A_WHILE);
    assert_eq!(all_founded(&cluster), 0);
    // One is told of all.
    names.tell_one(cluster.network().unwrap().address(1), &addresses(&cluster, [1, 2, 3]));
    cluster.await_service(1).unwrap();
    thread::sleep(A_WHILE);
    assert_eq!(all_founded(&cluster), 1);
    names.tell(&addresses(&cluster, [1, 2, 3]));
    await_all(&mut cluster);
    is_one_cluster(&cluster);
}

#[test]
fn a_node_more_is_let_in_by_the_name_and_an_emptied_one_founds_nothing() {
    if !has_own_network("by_name::a_node_more_is_let_in_by_the_name_and_an_emptied_one_founds_nothing").unwrap() {
        return;
    }
    let (mut cluster, names) = prepare(4, "");
    names.tell(&addresses(&cluster, [1, 2, 3]));
    for node in [1, 2, 3] {
        cluster.launch(node).unwrap();
    }
    for node in [1, 2, 3] {
        cluster.await_service(node).unwrap();
    }
    assert_eq!(client(&cluster, 3).ask("queue.declare queue=before durable=true"), "declare-ok 0 0");
    names.tell(&addresses(&cluster, [1, 2, 3, 4]));
    cluster.start_node(4).unwrap();
    is_one_cluster(&cluster);
    // All start again, and the first of them has lost its disk.
    for node in cluster.numbers() {
        cluster.kill_9(node).unwrap();
    }
    cluster.empty_disk(1).unwrap();
    launch_all(&mut cluster);
    for node in [2, 3, 4] {
        cluster.await_service(node).unwrap();
    }
    assert!(!cluster.comes_to_serve(1, true, A_WHILE).unwrap());
    assert_eq!(all_founded(&cluster), 1);
    eventually("what was there is there", || {
        client(&cluster, 2).ask("queue.declare queue=before passive=true") == "declare-ok 0 0"
    });
}

#[test]
fn a_host_name_that_never_has_an_address_is_given_up() {
    if !has_own_network("by_name::a_host_name_that_never_has_an_address_is_given_up").unwrap() {
        return;
    }
    let (mut cluster, _names) = prepare(1, "cluster_formation.discovery_retry_limit = 4");
    cluster.launch(1).unwrap();
    eventually("the node gives up", || cluster.has_ended(1).unwrap());
    let log = cluster.log(1).unwrap();
    assert!(log.contains("It was looked up 4 times (cluster_formation.discovery_retry_limit)"), "{log}");
    assert_eq!(founded(&cluster, 1), 0);
}
