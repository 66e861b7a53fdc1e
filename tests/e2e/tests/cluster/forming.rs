//! How nodes become a cluster, and come back to it.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::{Cluster, Plan, has_own_network};

use crate::{client, eventually, founded, is_one_cluster, start};

const ORDERS: [[usize; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];

#[test]
fn nodes_that_start_at_once_form_one_cluster() {
    is_one_cluster(&Cluster::start(Plan::nodes(3)).unwrap());
}

#[test]
fn five_nodes_that_start_at_once_form_one_cluster() {
    is_one_cluster(&Cluster::start(Plan::nodes(5)).unwrap());
}

#[test]
fn nodes_form_one_cluster_in_whatever_order_they_start_first() {
    for order in ORDERS {
        let mut cluster = Cluster::prepare(Plan::nodes(3)).unwrap();
        for node in order {
            cluster.launch(node).unwrap();
            thread::sleep(Duration::from_millis(400));
        }
        for node in order {
            cluster.await_service(node).unwrap();
        }
        is_one_cluster(&cluster);
    }
}

#[test]
fn all_nodes_stop_and_start_again_in_every_order() {
    let mut cluster = start(Plan::nodes(3));
    for node in cluster.numbers() {
        let mut client = client(&cluster, node);
        assert_eq!(client.ask(&format!("queue.declare queue=q{node} durable=true")), "declare-ok 0 0");
        client.ask("confirm.select");
        assert_eq!(client.publish_confirmed(&format!("q{node}"), "kept", 1), "confirmed");
    }
    for (round, order) in ORDERS.into_iter().enumerate() {
        for node in order {
            if round % 2 == 0 { cluster.terminate(node).unwrap() } else { cluster.kill_9(node).unwrap() }
        }
        // The last to stop is the last to start, and the other way round.
        let order = if round < 3 { order } else { [order[2], order[1], order[0]] };
        for node in order {
            cluster.launch(node).unwrap();
            thread::sleep(Duration::from_millis(200));
        }
        for node in order {
            cluster.await_service(node).unwrap();
        }
        for (on, queue) in [(1, 2), (2, 3), (3, 1), (1, 1)] {
            // Its node may not be linked to this one yet.
            eventually("the message is there", || {
                let declared = client(&cluster, on).ask(&format!("queue.declare queue=q{queue} passive=true"));
                declared == "declare-ok 1 0"
            });
        }
    }
    is_one_cluster(&cluster);
}

#[test]
fn a_node_whose_disk_was_emptied_founds_nothing_and_has_no_vote() {
    let mut cluster = start(Plan::nodes(3));
    assert_eq!(client(&cluster, 1).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    for node in [3, 2] {
        cluster.kill_9(node).unwrap();
    }
    cluster.empty_disk(2).unwrap();
    cluster.launch(2).unwrap();
    // It would be the second of three: had it a vote, there were a majority.
    assert!(!cluster.comes_to_serve(2, true, Duration::from_secs(8)).unwrap(), "an empty node serves");
    assert_eq!(founded(&cluster, 2), 0, "it founds a second cluster");
    cluster.start_node(3).unwrap();
    eventually("a majority of the two that are left", || {
        client(&cluster, 3).ask("queue.declare queue=r durable=true") == "declare-ok 0 0"
    });
    assert_eq!(founded(&cluster, 2), 0, "it founds a second cluster");
    assert!(!cluster.serves(2).unwrap(), "it serves though the cluster knows another node of its name");
}

#[test]
fn the_first_of_the_list_founds_nothing_when_its_disk_was_emptied() {
    let mut cluster = start(Plan::nodes(3));
    cluster.kill_9(1).unwrap();
    cluster.empty_disk(1).unwrap();
    cluster.launch(1).unwrap();
    assert!(!cluster.comes_to_serve(1, true, Duration::from_secs(5)).unwrap());
    for node in [2, 3] {
        cluster.kill_9(node).unwrap();
    }
    // Now nobody answers who belongs to the cluster.
    assert!(!cluster.comes_to_serve(1, true, Duration::from_secs(5)).unwrap());
    assert_eq!(founded(&cluster, 1), 1, "it founds a second cluster");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn an_older_copy_of_a_disk_is_kept_out_and_the_node_comes_back_as_a_new_one() {
    let mut cluster = start(Plan::nodes(3));
    cluster.terminate(3).unwrap();
    let kept = tempfile::tempdir().unwrap();
    copy(cluster.data_dir(3).unwrap(), kept.path());
    // It starts once more and agrees to something.
    cluster.start_node(3).unwrap();
    assert_eq!(client(&cluster, 3).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    cluster.kill_9(3).unwrap();
    cluster.empty_disk(3).unwrap();
    copy(kept.path(), cluster.data_dir(3).unwrap());
    // However often a supervisor tries.
    for _ in 0..3 {
        cluster.launch(3).unwrap();
        eventually("the older copy to be given up", || cluster.has_ended(3).unwrap());
    }
    assert!(cluster.log(3).unwrap().contains("is an older copy"), "{}", cluster.log(3).unwrap());
    for node in [1, 2] {
        assert!(cluster.serves(node).unwrap());
    }
    // Until the others have noticed that it is gone they do not forget it.
    eventually("the node to be forgotten", || {
        cluster.brokerctl(1).unwrap().run(&["cluster", "forget", cluster.name(3).unwrap()]).unwrap().succeeded
    });
    cluster.empty_disk(3).unwrap();
    cluster.start_node(3).unwrap();
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=r durable=true"), "declare-ok 0 0");
}

#[test]
fn a_node_that_is_forgotten_while_it_is_cut_off_ends_when_it_hears_of_it() {
    if !has_own_network("forming::a_node_that_is_forgotten_while_it_is_cut_off_ends_when_it_hears_of_it").unwrap() {
        return;
    }
    let conf = "cluster_partition_handling = ignore";
    let mut cluster = start(Plan::nodes(3).on_hosts().conf(conf));
    assert_eq!(client(&cluster, 3).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    cluster.network().unwrap().isolate(3).unwrap();
    eventually("the node to be forgotten", || {
        cluster.brokerctl(1).unwrap().run(&["cluster", "forget", cluster.name(3).unwrap()]).unwrap().succeeded
    });
    assert!(cluster.serves(3).unwrap(), "it knows nothing of it");
    cluster.network().unwrap().heal_all().unwrap();
    eventually("it to end", || cluster.has_ended(3).unwrap());
    // However often a supervisor tries.
    cluster.launch(3).unwrap();
    eventually("it to end again", || cluster.has_ended(3).unwrap());
    let log = cluster.log(3).unwrap();
    assert!(log.contains("this node was removed from its cluster"), "{log}");
    cluster.empty_disk(3).unwrap();
    cluster.start_node(3).unwrap();
    assert_eq!(client(&cluster, 3).ask("queue.declare queue=q durable=true"), "declare-ok 0 0", "as a new one");
}

#[test]
fn a_node_with_another_secret_is_refused_and_both_sides_say_so() {
    let plan = Plan::nodes(3).secret_of(3, "quite another secret, and long enough");
    let mut cluster = Cluster::prepare(plan).unwrap();
    for node in cluster.numbers() {
        cluster.launch(node).unwrap();
    }
    for node in [1, 2] {
        cluster.await_service(node).unwrap();
        assert_eq!(client(&cluster, node).ask("queue.declare queue=q"), "declare-ok 0 0");
    }
    assert!(!cluster.serves(3).unwrap());
    for node in [1, 3] {
        eventually("the log speaks of the secret", || cluster.log(node).unwrap().contains("secret"));
    }
    assert_eq!(founded(&cluster, 3), 0);
}
