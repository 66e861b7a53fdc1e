//! What a node serves that sees too few of the others.

use std::thread;
use std::time::Duration;

use harness::{Cluster, Plan, has_own_network};

use crate::client::PATIENCE;
use crate::{NO_MAJORITY, client, ctl, eventually, is_one_cluster, start};

/// A node that is cut off must have noticed by then.
const NOTICED: Duration = Duration::from_secs(15);

fn on_hosts(mode: &str) -> Cluster {
    start(Plan::nodes(3).on_hosts().conf(mode))
}

const IGNORE: &str = "cluster_partition_handling = ignore";
const PAUSE: &str = "cluster_partition_handling = pause_minority";

#[test]
fn with_ignore_a_node_alone_serves_what_it_has_and_changes_nothing() {
    if !has_own_network("minority::with_ignore_a_node_alone_serves_what_it_has_and_changes_nothing").unwrap() {
        return;
    }
    let cluster = on_hosts(IGNORE);
    let mut alone = client(&cluster, 3);
    assert_eq!(alone.ask("queue.declare queue=here durable=true"), "declare-ok 0 0");
    assert_eq!(client(&cluster, 1).ask("queue.declare queue=there durable=true"), "declare-ok 0 0");
    alone.ask("queue.bind queue=here exchange=amq.topic routing_key=#");
    cluster.network().unwrap().isolate(3).unwrap();
    // Until its links are given up a question to a queue elsewhere waits.
    eventually("the link is given up", || {
        client(&cluster, 3)
            .ask("queue.declare queue=there passive=true")
            .starts_with("channel 404 NOT_FOUND - home node")
    });

    assert_eq!(alone.ask("queue.declare queue=here passive=true"), "declare-ok 0 0");
    assert_eq!(alone.ask("queue.declare queue=here durable=true"), "declare-ok 0 0", "as it is");
    alone.ask("confirm.select");
    alone.publish_with("exchange=amq.topic routing_key=x", true, b"m");
    assert_eq!(alone.settled(1), "confirmed");
    assert_eq!(alone.ask("basic.get queue=here no_ack=true"), "get-ok m");
    assert_eq!(alone.ask("basic.consume queue=here consumer_tag=c"), "basic.consume-ok");
    alone.publish("here", "n");
    let heard = [alone.next(PATIENCE), alone.next(PATIENCE)];
    assert!(heard.contains(&"deliver n".into()) && heard.contains(&"confirmed".into()), "{heard:?}");
    assert_eq!(alone.ask("basic.cancel consumer_tag=c"), "basic.cancel-ok");

    // Side by side: each waits for a majority for a while.
    let control = cluster.control(3).unwrap();
    thread::scope(|scope| {
        for words in [
            "queue.declare queue=new durable=true",
            "queue.declare queue=passing",
            "exchange.declare exchange=x type=direct",
            "queue.bind queue=here exchange=amq.direct routing_key=k",
            "queue.unbind queue=here exchange=amq.topic routing_key=#",
            "queue.delete queue=here",
        ] {
            let mut client = client(&cluster, 3);
            scope.spawn(move || {
                let said = client.ask(words);
                assert!(said.starts_with(NO_MAJORITY), "{words}: {said}");
            });
        }
        for words in [
            &["add_vhost", "v"][..],
            &["delete_vhost", "/"],
            &["add_user", "u", "p"],
            &["delete_user", "guest"],
            &["set_permissions", "guest", "", "", ""],
            &["set_policy", "p", "^q$", r#"{"max-length":1}"#],
        ] {
            let control = &control;
            scope.spawn(move || {
                let said = control.run(words).unwrap();
                assert!(!said.succeeded, "{words:?}: {}", said.text);
            });
        }
    });
    assert!(control.run(&["export_definitions", "-"]).unwrap().succeeded, "what it has can be exported");
    assert!(ctl(&cluster, 3, &["list_queues"]).contains("here"));

    // The others go on; what is cut off lies still.
    assert_eq!(client(&cluster, 1).ask("queue.declare queue=meanwhile durable=true"), "declare-ok 0 0");
    cluster.network().unwrap().heal_all().unwrap();
    eventually("it hears of what was done meanwhile", || {
        client(&cluster, 3).ask("queue.declare queue=meanwhile passive=true") == "declare-ok 0 0"
    });
    // What was refused has not happened, and guest, its vhost and the queue are there.
    for (node, name) in [(1, "new"), (3, "new"), (1, "passing")] {
        let said = client(&cluster, node).ask(&format!("queue.declare queue={name} passive=true"));
        assert!(said.starts_with("channel 404"), "{name} on {node}: {said}");
    }
    assert!(!ctl(&cluster, 1, &["list_users"]).contains("u\t"));
    // The link between these two may come back later than the log.
    eventually("the queue is there", || {
        client(&cluster, 2).ask("queue.declare queue=here passive=true").starts_with("declare-ok")
    });
    is_one_cluster(&cluster);
}

#[test]
fn with_pause_minority_a_node_cut_off_closes_its_connections_and_comes_back() {
    if !has_own_network("minority::with_pause_minority_a_node_cut_off_closes_its_connections_and_comes_back").unwrap() {
        return;
    }
    let cluster = on_hosts(PAUSE);
    let mut minority = client(&cluster, 3);
    assert_eq!(minority.ask("queue.declare queue=here durable=true"), "declare-ok 0 0");
    minority.ask("confirm.select");
    assert_eq!(minority.publish_confirmed("here", "kept", 1), "confirmed");
    let mut majority = client(&cluster, 1);
    cluster.network().unwrap().isolate(3).unwrap();
    let said = minority.next(NOTICED);
    assert!(said.starts_with("connection 320 CONNECTION_FORCED") || said == "closed", "{said}");
    assert!(cluster.comes_to_serve(3, false, NOTICED).unwrap(), "it takes clients");
    assert_eq!(majority.ask("queue.declare queue=meanwhile durable=true"), "declare-ok 0 0");
    assert_eq!(majority.next(Duration::from_millis(200)), "nothing", "the majority goes on");
    cluster.network().unwrap().heal_all().unwrap();
    assert!(cluster.comes_to_serve(3, true, NOTICED).unwrap(), "it does not come back");
    eventually("its message is there", || {
        client(&cluster, 2).ask("queue.declare queue=here passive=true") == "declare-ok 1 0"
    });
    is_one_cluster(&cluster);
}

#[test]
fn with_pause_minority_the_last_of_three_pauses_when_the_others_are_down() {
    let mut cluster = start(Plan::nodes(3).conf(PAUSE));
    let mut last = client(&cluster, 2);
    cluster.kill_9(1).unwrap();
    assert_eq!(last.next(Duration::from_secs(6)), "nothing", "two of three are a majority");
    cluster.kill_9(3).unwrap();
    let said = last.next(NOTICED);
    assert!(said.starts_with("connection 320 CONNECTION_FORCED") || said == "closed", "{said}");
    assert!(cluster.comes_to_serve(2, false, NOTICED).unwrap());
    cluster.start_node(3).unwrap();
    assert!(cluster.comes_to_serve(2, true, NOTICED).unwrap());
    cluster.start_node(1).unwrap();
    is_one_cluster(&cluster);
}

const LISTED: &str = "cluster_partition_handling = pause_if_all_down\n\
                      cluster_partition_handling.pause_if_all_down.recover = ignore\n\
                      cluster_partition_handling.pause_if_all_down.nodes.1 = n1@192.0.2.1";

#[test]
fn with_pause_if_all_down_nodes_pause_that_see_none_of_those_listed() {
    if !has_own_network("minority::with_pause_if_all_down_nodes_pause_that_see_none_of_those_listed").unwrap() {
        return;
    }
    let cluster = on_hosts(LISTED);
    let network = cluster.network().unwrap();
    network.isolate(1).unwrap();
    for node in [2, 3] {
        assert!(cluster.comes_to_serve(node, false, NOTICED).unwrap(), "{node} has lost the listed node, and serves");
    }
    assert!(cluster.serves(1).unwrap(), "the listed node sees itself");
    network.heal_all().unwrap();
    for node in [2, 3] {
        assert!(cluster.comes_to_serve(node, true, NOTICED).unwrap(), "{node} does not come back");
    }
    is_one_cluster(&cluster);
}

#[test]
fn with_pause_if_all_down_a_node_pauses_that_lost_only_its_own_way_to_the_listed_one() {
    if !has_own_network("minority::with_pause_if_all_down_a_node_pauses_that_lost_only_its_own_way_to_the_listed_one")
        .unwrap()
    {
        return;
    }
    let cluster = on_hosts(LISTED);
    cluster.network().unwrap().cut(1, 3).unwrap();
    assert!(cluster.comes_to_serve(3, false, NOTICED).unwrap(), "it has lost the listed node, and serves");
    assert!(cluster.serves(1).unwrap() && cluster.serves(2).unwrap());
    cluster.network().unwrap().heal_all().unwrap();
    assert!(cluster.comes_to_serve(3, true, NOTICED).unwrap(), "it does not come back");
    is_one_cluster(&cluster);
}
