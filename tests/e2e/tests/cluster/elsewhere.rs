//! Queues on other nodes than the clients that use them, while the network holds. What one node answers across nodes is compared with what it
//! answers alone by the conformance suite (tests/conformance/tests/cluster.rs); here is what becomes of it when nodes go.

use std::thread;
use std::time::Duration;

use conformance::client::Login;
use harness::{Cluster, Plan};

use crate::client::{Client, PATIENCE};
use crate::{client, ctl, eventually, start};

/// What is on its way between nodes has come.
const SETTLED: Duration = Duration::from_millis(500);

fn down(cluster: &Cluster, node: usize, queue: &str) -> String {
    let name = cluster.name(node).unwrap();
    format!(
        "channel 404 NOT_FOUND - home node '{name}' of durable queue '{queue}' in vhost '/' is down or inaccessible"
    )
}

#[test]
fn a_queue_whose_node_is_down_is_inaccessible_and_comes_back() {
    let mut cluster = start(Plan::nodes(3));
    let mut home = client(&cluster, 3);
    assert_eq!(home.ask("queue.declare queue=lasting durable=true"), "declare-ok 0 0");
    assert_eq!(home.ask("queue.declare queue=passing"), "declare-ok 0 0");
    home.ask("queue.bind queue=passing exchange=amq.fanout");
    let mut other = client(&cluster, 1);
    other.ask("confirm.select");
    for number in 1..=20 {
        assert_eq!(other.publish_confirmed("lasting", &format!("m{number}"), number), "confirmed");
    }
    assert_eq!(other.ask("basic.consume queue=lasting consumer_tag=c"), "basic.consume-ok");
    assert_eq!(other.next(PATIENCE), "deliver m1");

    cluster.kill_9(3).unwrap();
    let cancelled = loop {
        match other.next(PATIENCE) {
            said if said.starts_with("deliver") => {}
            said => break said,
        }
    };
    assert_eq!(cancelled, "cancel c");
    let expected = down(&cluster, 3, "lasting");
    let mut other = client(&cluster, 1);
    for words in [
        "queue.declare queue=lasting durable=true",
        "queue.declare queue=lasting passive=true",
        "basic.get queue=lasting",
        "basic.consume queue=lasting",
        "queue.purge queue=lasting",
        "queue.delete queue=lasting",
    ] {
        assert_eq!(other.ask(words), expected, "{words}");
    }
    // Publishing to it: refused where it is to be confirmed.
    let mut publisher = client(&cluster, 2);
    publisher.ask("confirm.select");
    assert_eq!(publisher.publish_confirmed("lasting", "lost", 1), "refused");
    assert!(
        client(&cluster, 2)
            .ask("queue.declare queue=passing passive=true")
            .starts_with("channel 404 NOT_FOUND - no queue")
    );
    // Its name is free when the leader has given the node up.
    eventually("the transient queue is gone", || {
        client(&cluster, 2).ask("queue.declare queue=passing durable=true") == "declare-ok 0 0"
    });

    cluster.start_node(3).unwrap();
    eventually("the queue is back", || {
        client(&cluster, 1).ask("queue.declare queue=lasting passive=true") == "declare-ok 20 0"
    });
    let mut back = client(&cluster, 2);
    assert_eq!(back.ask("basic.consume queue=lasting consumer_tag=d"), "basic.consume-ok");
    for number in 1..=20 {
        let said = back.next(PATIENCE);
        assert!(
            said == format!("deliver m{number}") || said == format!("deliver m{number} again"),
            "{said}, not m{number}"
        );
    }
    assert_eq!(client(&cluster, 3).ask("queue.declare queue=passing passive=true"), "declare-ok 0 0");
}

#[test]
fn a_node_that_stops_in_good_order_takes_its_queues_down_the_same_way() {
    let mut cluster = start(Plan::nodes(3));
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    let mut consumer = client(&cluster, 1);
    assert_eq!(consumer.ask("basic.consume queue=q consumer_tag=c"), "basic.consume-ok");
    cluster.terminate(2).unwrap();
    assert_eq!(consumer.next(PATIENCE), "cancel c");
    assert_eq!(client(&cluster, 3).ask("basic.get queue=q"), down(&cluster, 2, "q"));
    cluster.start_node(2).unwrap();
    eventually("the queue is back", || client(&cluster, 3).ask("basic.get queue=q") == "basic.get-empty");
}

#[test]
fn what_a_lost_node_has_not_confirmed_is_refused() {
    let mut cluster = start(Plan::nodes(3));
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    let mut publisher = client(&cluster, 1);
    publisher.ask("confirm.select");
    assert_eq!(publisher.publish_confirmed("q", "m", 1), "confirmed");
    cluster.freeze(2, true).unwrap();
    for _ in 0..5 {
        publisher.publish("q", "unknown");
    }
    assert_eq!(publisher.next(SETTLED), "nothing", "a node that stands still confirms");
    cluster.kill_9(2).unwrap();
    for _ in 0..5 {
        assert_eq!(publisher.next(PATIENCE), "refused");
    }
    assert_eq!(publisher.publish_confirmed("nowhere", "m", 7), "confirmed", "the channel goes on");
}

#[test]
fn a_channel_that_is_closed_while_another_node_is_asked_for_a_message_serves_again() {
    let conf = "consumer_timeout = 1000\nbroker.channel_tick_interval = 200";
    let cluster = start(Plan::nodes(3).conf(conf));
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=far durable=true"), "declare-ok 0 0");
    let mut near = client(&cluster, 1);
    assert_eq!(near.ask("queue.declare queue=near durable=true"), "declare-ok 0 0");
    near.publish("near", "m");
    assert_eq!(near.ask("basic.consume queue=near consumer_tag=c"), "basic.consume-ok");
    assert_eq!(near.next(PATIENCE), "deliver m");
    // Nobody answers this, and the delivery is held too long.
    cluster.freeze(2, true).unwrap();
    near.send("basic.get queue=far");
    let closed = near.next(PATIENCE);
    assert!(closed.starts_with("channel 406 PRECONDITION_FAILED - delivery acknowledgement"), "{closed}");
    assert_eq!(near.ask("queue.declare queue=near passive=true"), "declare-ok 1 0");
    cluster.freeze(2, false).unwrap();
    assert_eq!(near.ask("queue.declare queue=near passive=true"), "declare-ok 1 0");
    eventually("it answers", || near.ask("basic.get queue=far") == "basic.get-empty");
}

#[test]
fn an_acknowledgement_from_before_a_restart_settles_nothing_of_others() {
    let mut cluster = start(Plan::nodes(3));
    let mut home = client(&cluster, 2);
    assert_eq!(home.ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    home.ask("confirm.select");
    assert_eq!(home.publish_confirmed("q", "m", 1), "confirmed");
    let mut before = client(&cluster, 1);
    assert_eq!(before.ask("basic.get queue=q"), "get-ok m");

    cluster.kill_9(2).unwrap();
    cluster.start_node(2).unwrap();
    let mut after = client(&cluster, 3);
    eventually("it is there again", || after.ask("basic.get queue=q") == "get-ok m again");
    before.send(&format!("basic.ack delivery_tag={}", before.tag));
    assert_eq!(before.next(SETTLED), "nothing");
    drop(after);
    let mut last = client(&cluster, 1);
    eventually("it comes back, for the other has not acknowledged it", || {
        last.ask("basic.get queue=q") == "get-ok m again"
    });
}

#[test]
fn a_mandatory_reply_comes_back_when_the_node_of_who_asked_is_lost() {
    let mut cluster = start(Plan::nodes(3));
    let (mut asks, mut replies) = (client(&cluster, 2), client(&cluster, 1));
    assert_eq!(replies.ask("queue.declare queue=q"), "declare-ok 0 0");
    replies.ask("confirm.select");
    asks.ask("basic.consume queue=amq.rabbitmq.reply-to consumer_tag=r no_ack=true");
    asks.request("q");
    eventually("the request has come", || replies.ask("basic.get queue=q no_ack=true") == "get-ok request");
    let reply = format!("routing_key={} mandatory=true", replies.reply_to);
    replies.publish_with(&reply, false, b"first");
    assert_eq!(replies.next(PATIENCE), "confirmed", "it is not returned");
    assert_eq!(asks.next(PATIENCE), "deliver first");

    cluster.freeze(2, true).unwrap();
    replies.publish_with(&reply, false, b"second");
    assert_eq!(replies.next(SETTLED), "nothing", "nobody knows yet what becomes of it");
    cluster.kill_9(2).unwrap();
    assert_eq!(replies.next(PATIENCE), "return 312 second");
    assert_eq!(replies.next(PATIENCE), "confirmed");
    replies.publish_with(&reply, false, b"third");
    assert_eq!(replies.next(PATIENCE), "return 312 third");
    assert_eq!(replies.next(PATIENCE), "confirmed");
}

#[test]
fn consumers_of_a_node_that_is_lost_give_back_what_they_held() {
    let mut cluster = start(Plan::nodes(3));
    let mut home = client(&cluster, 1);
    assert_eq!(home.ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    (1..=6).for_each(|number| home.publish("q", &format!("m{number}")));
    let mut consumer = client(&cluster, 2);
    consumer.ask("basic.qos prefetch_count=3");
    assert_eq!(consumer.ask("basic.consume queue=q"), "basic.consume-ok");
    for number in 1..=3 {
        assert_eq!(consumer.next(PATIENCE), format!("deliver m{number}"));
    }
    assert_eq!(home.ask("queue.declare queue=q passive=true"), "declare-ok 3 1");
    cluster.kill_9(2).unwrap();
    eventually("its deliveries are back", || home.ask("queue.declare queue=q passive=true") == "declare-ok 6 0");
    for number in 1..=6 {
        let again = if number <= 3 { " again" } else { "" };
        assert_eq!(home.ask("basic.get queue=q no_ack=true"), format!("get-ok m{number}{again}"));
    }
}

#[test]
fn an_exclusive_queue_is_locked_on_every_node_and_goes_with_its_node() {
    let mut cluster = start(Plan::nodes(3));
    let mut owner = client(&cluster, 3);
    assert_eq!(owner.ask("queue.declare queue=mine exclusive=true"), "declare-ok 0 0");
    let mut other = client(&cluster, 1);
    for words in [
        "queue.declare queue=mine exclusive=true",
        "queue.declare queue=mine passive=true",
        "basic.get queue=mine",
        "basic.consume queue=mine",
        "queue.purge queue=mine",
        "queue.delete queue=mine",
    ] {
        let said = other.ask(words);
        assert!(
            said.starts_with("channel 405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine'"),
            "{words}: {said}"
        );
    }
    // Who knows its name may publish to it.
    assert_eq!(owner.ask("basic.consume queue=mine"), "basic.consume-ok");
    other.publish("mine", "from elsewhere");
    assert_eq!(owner.next(PATIENCE), "deliver \"from elsewhere\"");
    cluster.kill_9(3).unwrap();
    eventually("its name is free", || client(&cluster, 1).ask("queue.declare queue=mine") == "declare-ok 0 0");
    cluster.start_node(3).unwrap();
    eventually("it does not come back", || {
        client(&cluster, 3).ask("queue.declare queue=mine passive=true") == "declare-ok 0 0"
    });
}

#[test]
fn what_one_channel_publishes_arrives_in_order_wherever_it_goes() {
    const MESSAGES: usize = 3000;
    let cluster = start(Plan::nodes(3));
    for queue in 1..=3 {
        let mut home = client(&cluster, queue);
        assert_eq!(home.ask(&format!("queue.declare queue=q{queue} durable=true")), "declare-ok 0 0");
        home.ask(&format!("queue.bind queue=q{queue} exchange=amq.fanout"));
    }
    let mut publisher = client(&cluster, 2);
    publisher.ask("confirm.select");
    for number in 0..MESSAGES {
        // Some are long: they travel in several frames.
        let size = if number % 100 == 0 { 200_000 } else { 5 };
        let body = format!("{}{number}", "0".repeat(size));
        publisher.publish_with("exchange=amq.fanout", number % 3 == 0, body.as_bytes());
    }
    assert_eq!(publisher.settled(MESSAGES as u64), "confirmed");
    thread::scope(|scope| {
        for queue in 1..=3 {
            let mut consumer = client(&cluster, queue % 3 + 1);
            scope.spawn(move || {
                consumer.ask(&format!("basic.consume queue=q{queue} no_ack=true"));
                for number in 0..MESSAGES {
                    let said = consumer.next(PATIENCE);
                    let got = said.strip_prefix("deliver ").and_then(|body| body.parse::<usize>().ok());
                    assert_eq!(got, Some(number), "q{queue}: {:.50}", said);
                }
            });
        }
    });
}

#[test]
fn what_an_administrator_makes_on_one_node_counts_on_the_others() {
    let cluster = start(Plan::nodes(3));
    let login = |user: &str, password: &str, vhost: &str| Login {
        user: user.into(),
        password: password.into(),
        vhost: vhost.into(),
        ..Login::default()
    };
    ctl(&cluster, 1, &["add_vhost", "v"]);
    ctl(&cluster, 2, &["add_user", "u", "p"]);
    let open = |node: usize, login: &Login| Client::try_open(cluster.address(node).unwrap(), login);
    let refused = open(3, &login("u", "p", "v")).err().unwrap();
    assert!(refused.contains("access to vhost 'v' refused for user 'u'"), "{refused}");
    ctl(&cluster, 3, &["set_permissions", "-p", "v", "u", "^a", "^b", "^c"]);
    let mut user = open(1, &login("u", "p", "v")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(user.ask("queue.declare queue=a1"), "declare-ok 0 0");
    assert!(user.ask("queue.declare queue=b1").starts_with("channel 403"));
    ctl(&cluster, 1, &["change_password", "u", "new"]);
    assert!(open(2, &login("u", "p", "v")).is_err());
    assert!(open(2, &login("u", "new", "v")).is_ok());
    ctl(&cluster, 2, &["clear_permissions", "-p", "v", "u"]);
    assert!(user.ask("queue.declare queue=a2").starts_with("channel 403"), "an open connection knows of it");
    // A policy made on one node is in force at a queue of another.
    ctl(&cluster, 1, &["set_policy", "two", "^limited$", r#"{"max-length":2}"#]);
    let mut guest = client(&cluster, 3);
    assert_eq!(guest.ask("queue.declare queue=limited durable=true"), "declare-ok 0 0");
    let mut publisher = client(&cluster, 1);
    publisher.ask("confirm.select");
    (1..=4).for_each(|number| publisher.publish("limited", &format!("m{number}")));
    assert_eq!(publisher.settled(4), "confirmed");
    assert_eq!(guest.ask("basic.get queue=limited no_ack=true"), "get-ok m3");
    ctl(&cluster, 2, &["clear_policy", "two"]);
    (5..=8).for_each(|number| publisher.publish("limited", &format!("m{number}")));
    assert_eq!(publisher.settled(8), "confirmed");
    assert_eq!(guest.ask("queue.declare queue=limited passive=true"), "declare-ok 5 0");
    // The vhost goes with its connections on all nodes.
    ctl(&cluster, 3, &["delete_vhost", "v"]);
    let said = user.next(PATIENCE);
    assert!(said.starts_with("connection ") || said == "closed", "{said}");
    ctl(&cluster, 3, &["delete_user", "u"]);
    assert!(open(1, &login("u", "new", "/")).is_err());
}

#[test]
fn a_limit_of_connections_is_one_of_all_nodes_and_those_of_a_dead_node_do_not_count() {
    let mut cluster = start(Plan::nodes(3));
    ctl(&cluster, 1, &["set_vhost_limits", r#"{"max-connections":2}"#]);
    let open = |cluster: &Cluster, node: usize| Client::try_open(cluster.address(node).unwrap(), &Login::default());
    let _one = open(&cluster, 1).unwrap();
    let _other = open(&cluster, 2).unwrap();
    let refused = open(&cluster, 3).err().unwrap();
    assert!(refused.contains("connection limit (2) is reached"), "{refused}");
    cluster.kill_9(2).unwrap();
    eventually("there is room again", || open(&cluster, 3).is_ok());
}

#[test]
fn an_operator_closes_connections_of_every_node() {
    let cluster = start(Plan::nodes(3));
    let mut clients: Vec<Client> = cluster.numbers().map(|node| client(&cluster, node)).collect();
    ctl(&cluster, 2, &["close_all_connections", "maintenance"]);
    for client in &mut clients {
        assert_eq!(client.next(Duration::from_secs(5)), "connection 320 CONNECTION_FORCED - maintenance");
    }
}

/// The next publish is held, and its publisher told; it takes a moment until other nodes know of an alarm. Gives how many were not held.
fn publish_until_held(publisher: &mut Client) -> u64 {
    let mut free = 0;
    eventually("a publisher is held", || {
        publisher.publish("q", "m");
        let held = publisher.next(SETTLED) == "blocked \"low on disk\"";
        free += u64::from(!held);
        held
    });
    free
}

#[test]
fn an_alarm_of_one_node_holds_the_publishers_of_all() {
    let cluster = start(Plan::nodes(3));
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    let mut publishers: Vec<Client> = cluster.numbers().map(|node| client(&cluster, node)).collect();
    for publisher in &mut publishers {
        publisher.ask("confirm.select");
        assert_eq!(publisher.publish_confirmed("q", "free", 1), "confirmed");
    }
    ctl(&cluster, 1, &["set_disk_free_limit", "900000000000000"]);
    let mut free = 3;
    for publisher in &mut publishers {
        free += publish_until_held(publisher);
    }
    for publisher in &mut publishers {
        assert_eq!(publisher.next(SETTLED), "nothing");
    }
    let taken = client(&cluster, 3).ask("queue.declare queue=q passive=true");
    assert_eq!(taken, format!("declare-ok {free} 0"), "what is held has not come");
    ctl(&cluster, 1, &["set_disk_free_limit", "1000000"]);
    for publisher in &mut publishers {
        assert_eq!(publisher.next(PATIENCE), "connection.unblocked");
        assert_eq!(publisher.next(PATIENCE), "confirmed");
    }
}

#[test]
fn an_alarm_goes_with_its_node() {
    let mut cluster = start(Plan::nodes(3));
    assert_eq!(client(&cluster, 2).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    ctl(&cluster, 1, &["set_disk_free_limit", "900000000000000"]);
    let mut publisher = client(&cluster, 3);
    publisher.ask("confirm.select");
    publish_until_held(&mut publisher);
    cluster.kill_9(1).unwrap();
    eventually("publishers go on", || {
        let said = publisher.next(Duration::from_millis(100));
        said == "connection.unblocked"
    });
}
