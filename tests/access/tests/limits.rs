//! Each limit, and one more than it.
#![allow(clippy::unwrap_used, clippy::panic)]

use access::node::Node;
use access::session::{Session, login};
use access::users::{NewUser, Users};
use broker_meta::command;
use conformance::client::Login;

fn node(conf: &str) -> Node {
    let mut node = Node::start(conf).unwrap();
    let patterns = [".*", ".*", ".*"].map(str::to_owned);
    node.add(&["ann", "bob"].map(|name| NewUser { name: name.into(), patterns: patterns.clone() })).unwrap();
    node.apply(command::create_vhost("v", "", &[]));
    for user in ["ann", "bob"] {
        node.apply(command::set_permissions(user, "v", ".*", ".*", ".*"));
    }
    node
}

fn open(node: &Node, user: &str, vhost: &str) -> Result<Session, String> {
    Session::open_with(node.port(), Login { vhost: vhost.into(), ..login(user) }).unwrap()
}

#[test]
fn connections_of_a_vhost() {
    let node = node("");
    node.apply(command::set_vhost_limits("v", Some(2), None));
    let one = open(&node, "ann", "v").unwrap();
    let _two = open(&node, "bob", "v").unwrap();
    let full = |limit: u32| {
        format!(
            "connection 530 NOT_ALLOWED - access to vhost 'v' refused for user 'ann': connection limit ({limit}) is reached"
        )
    };
    assert_eq!(open(&node, "ann", "v").err().unwrap(), full(2));
    assert!(open(&node, "ann", "/").is_ok(), "other vhosts are not concerned");
    drop(one);
    let again = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        open(&node, "ann", "v").ok()
    });
    assert!(again.is_some(), "who goes makes room");
    node.apply(command::set_vhost_limits("v", Some(0), None));
    assert_eq!(open(&node, "ann", "v").err().unwrap(), full(0));
    assert_eq!(again.unwrap().call("queue.declare", &[("queue", "q")]).unwrap(), "ok", "who is in stays in");
    node.apply(command::set_vhost_limits("v", Some(-1), None));
    assert!(open(&node, "ann", "v").is_ok());
}

#[test]
fn connections_of_a_user() {
    let node = node("");
    node.apply(command::set_user_limits("ann", Some(2), None));
    let mut one = open(&node, "ann", "v").unwrap();
    let _two = open(&node, "ann", "/").unwrap();
    let full = "connection 530 NOT_ALLOWED - connection refused for user 'ann': user connection limit (2) is reached";
    assert_eq!(open(&node, "ann", "v").err().unwrap(), full);
    assert!(open(&node, "bob", "v").is_ok());
    // From close-ok on there is room: who closes and comes back at once gets in.
    one.send(0, "connection.close", &[("reply_code", "200")]).unwrap();
    assert_eq!(one.answer().unwrap(), "ok");
    let _again = open(&node, "ann", "v").unwrap();
    assert_eq!(open(&node, "ann", "v").err().unwrap(), full);
    node.apply(command::set_vhost_limits("v", Some(0), None));
    let vhost_first = open(&node, "ann", "v").err().unwrap();
    assert!(vhost_first.contains("connection limit (0) is reached"), "{vhost_first}");
    node.apply(command::clear_permissions("ann", "/"));
    assert_eq!(open(&node, "ann", "/").err().unwrap(), full, "limits come before permissions");
    assert!(open(&node, "ann", "none").err().unwrap().contains("vhost none not found"));
}

#[test]
fn queues_of_a_vhost() {
    let node = node("");
    node.apply(command::set_vhost_limits("v", None, Some(2)));
    let mut ann = open(&node, "ann", "v").unwrap();
    let mut declare = |arguments: &[(&str, &str)]| ann.call("queue.declare", arguments).unwrap();
    assert_eq!(declare(&[("queue", "one")]), "ok");
    assert_eq!(declare(&[("queue", "two"), ("exclusive", "true")]), "ok");
    let full = |name: &str, limit: u32| {
        format!(
            "406 PRECONDITION_FAILED - cannot declare queue '{name}': queue limit in vhost 'v' ({limit}) is reached"
        )
    };
    assert_eq!(declare(&[("queue", "three")]), full("three", 2));
    assert_eq!(declare(&[]), full("amq.gen-*", 2));
    assert_eq!(declare(&[("queue", "three"), ("arguments", "{x-expires:I -1}")]), full("three", 2));
    assert_eq!(declare(&[("queue", "one")]), "ok", "what is there is not new");
    assert_eq!(declare(&[("queue", "one"), ("passive", "true")]), "ok");
    assert!(declare(&[("queue", "amq.x")]).starts_with("403 ACCESS_REFUSED"));
    assert_eq!(ann.call("queue.delete", &[("queue", "one")]).unwrap(), "ok");
    assert_eq!(ann.call("queue.declare", &[("queue", "three")]).unwrap(), "ok");
    node.apply(command::set_permissions("ann", "v", "^t", ".*", ".*"));
    assert!(ann.call("queue.declare", &[("queue", "one")]).unwrap().starts_with("403 ACCESS_REFUSED"));
    node.apply(command::set_vhost_limits("v", None, Some(0)));
    assert_eq!(ann.call("queue.declare", &[("queue", "t")]).unwrap(), full("t", 0));
    node.apply(command::set_vhost_limits("v", None, None));
    assert_eq!(ann.call("queue.declare", &[("queue", "t")]).unwrap(), "ok");
}

/// What is being declared is not in the catalog yet when the next is asked for: the catalog counts again.
#[test]
fn queues_that_come_all_at_once_are_no_more_than_allowed() {
    let node = node("");
    node.apply(command::set_vhost_limits("v", None, Some(10)));
    let mut sessions: Vec<Session> = (0..4).map(|_| open(&node, "ann", "v").unwrap()).collect();
    for round in 0..5 {
        for (number, session) in sessions.iter_mut().enumerate() {
            session.send(1, "queue.declare", &[("queue", &format!("q{number}-{round}"))]).unwrap();
        }
        for session in &mut sessions {
            session.answer().unwrap();
        }
    }
    let mut guest = open(&node, "bob", "v").unwrap();
    let there = (0..4).flat_map(|number| (0..5).map(move |round| format!("q{number}-{round}")));
    let there =
        there.filter(|queue| guest.call("queue.declare", &[("queue", queue), ("passive", "true")]).unwrap() == "ok");
    assert_eq!(there.count(), 10);
}

#[test]
fn channels_of_a_user() {
    let node = node("");
    node.apply(command::set_user_limits("ann", None, Some(3)));
    let (mut one, mut two) = (open(&node, "ann", "/").unwrap(), open(&node, "ann", "/").unwrap());
    one.send(2, "channel.open", &[]).unwrap();
    assert_eq!(one.answer().unwrap(), "ok");
    let full = |limit: u32| {
        format!(
            "connection 530 NOT_ALLOWED - number of channels opened for user 'ann' has reached the maximum allowed user limit of ({limit})"
        )
    };
    two.send(2, "channel.open", &[]).unwrap();
    assert_eq!(two.answer().unwrap(), full(3));
    // Its two channels are free again, and so is one that is closed.
    let mut two = open(&node, "ann", "/").unwrap();
    assert_eq!(two.call("channel.close", &[("reply_code", "200")]).unwrap(), "ok");
    assert_eq!(two.call("channel.open", &[]).unwrap(), "ok");
    node.apply(command::set_user_limits("ann", None, Some(0)));
    assert_eq!(two.call("queue.declare", &[("queue", "q")]).unwrap(), "ok", "what is open stays open");
    two.send(9, "channel.open", &[]).unwrap();
    assert_eq!(two.answer().unwrap(), full(0));
    node.apply(command::set_user_limits("ann", None, Some(-1)));
    one.send(9, "channel.open", &[]).unwrap();
    assert_eq!(one.answer().unwrap(), "ok");
}

#[test]
fn consumers_of_a_channel() {
    let node = node("consumer_max_per_channel = 3");
    let mut ann = open(&node, "ann", "/").unwrap();
    assert_eq!(ann.call("queue.declare", &[("queue", "q")]).unwrap(), "ok");
    for tag in ["1", "2", "3"] {
        assert_eq!(ann.call("basic.consume", &[("queue", "q"), ("consumer_tag", tag)]).unwrap(), "ok");
    }
    assert_eq!(
        ann.call("basic.consume", &[("queue", "q"), ("consumer_tag", "4")]).unwrap(),
        "connection 530 NOT_ALLOWED - reached maximum (3) of consumers per channel"
    );
}

#[test]
fn channels_of_a_connection() {
    let node = node("channel_max = 2");
    let mut ann = open(&node, "ann", "/").unwrap();
    ann.send(2, "channel.open", &[]).unwrap();
    assert_eq!(ann.answer().unwrap(), "ok");
    ann.send(3, "channel.open", &[]).unwrap();
    assert_eq!(
        ann.answer().unwrap(),
        "connection 530 NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    );
}

#[test]
fn connections_of_the_node() {
    let node = node("connection_max = 2");
    let _one = open(&node, "ann", "/").unwrap();
    let _two = open(&node, "ann", "/").unwrap();
    assert_eq!(open(&node, "ann", "/").err().unwrap(), "Closed", "not listened to at all");
}

/// A table with arrays in each other, so many that their depth with the table's own is this.
fn nested(depth: usize) -> String {
    let mut value = "S x".to_owned();
    for _ in 1..depth {
        value = format!("A [{value}]");
    }
    format!("{{k:{value}}}")
}

#[test]
fn tables_in_tables() {
    let node = node("");
    let mut ann = open(&node, "ann", "/").unwrap();
    let declare = |ann: &mut Session, table: &str| {
        ann.call("exchange.declare", &[("exchange", "x"), ("type", "direct"), ("arguments", table)]).unwrap()
    };
    assert_eq!(declare(&mut ann, &nested(64)), "ok");
    let refused = declare(&mut ann, &nested(65));
    assert!(refused.starts_with("connection 502 SYNTAX_ERROR"), "{refused}");
}

#[test]
fn arguments_that_are_kept() {
    let node = node("");
    let mut ann = open(&node, "ann", "/").unwrap();
    // One field: a name of one octet with its length, a type, and a length of four.
    let table = |octets: usize| format!("{{k:S {}}}", "x".repeat(octets - 7));
    let mut declare = |table: &str| {
        ann.call("exchange.declare", &[("exchange", "x"), ("type", "direct"), ("arguments", table)]).unwrap()
    };
    let refused = declare(&table(64 * 1024 + 1));
    assert!(refused.starts_with("406 PRECONDITION_FAILED"), "{refused}");
    assert_eq!(declare(&table(64 * 1024)), "ok");
}

#[test]
fn channels_of_the_node() {
    let node = node("broker.node_name = one@here\nchannel_max_per_node = 3");
    let mut ann = open(&node, "ann", "/").unwrap();
    let mut bob = open(&node, "bob", "/").unwrap();
    ann.send(2, "channel.open", &[]).unwrap();
    assert_eq!(ann.answer().unwrap(), "ok");
    bob.send(2, "channel.open", &[]).unwrap();
    assert_eq!(
        bob.answer().unwrap(),
        "connection 530 NOT_ALLOWED - number of channels opened on node 'one@here' has reached the maximum allowed limit of (3)"
    );
    // What the closed connection had is free again.
    let again = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        open(&node, "bob", "/").ok()
    });
    assert!(again.is_some());
}

#[test]
fn vhosts() {
    // The default one and `v` are there.
    let node = node("vhost_max = 3");
    assert_eq!(node.apply(command::create_vhost("third", "", &[])), None);
    let refused = node.apply(command::create_vhost("fourth", "", &[]));
    assert_eq!(refused.as_deref(), Some("cannot create vhost 'fourth': vhost limit of 3 is reached"));
    assert_eq!(node.apply(command::create_vhost("third", "", &[])), None, "what is there is not one more");
    assert_eq!(node.apply(command::delete_vhost("third")), None);
    assert_eq!(node.apply(command::create_vhost("fourth", "", &[])), None);
}

#[test]
fn bindings_of_a_queue() {
    let node = node("broker.bindings_max_per_queue = 2");
    let mut ann = open(&node, "ann", "/").unwrap();
    let bind = |ann: &mut Session, queue: &str, key: &str| {
        let fields = [("queue", queue), ("exchange", "amq.direct"), ("routing_key", key)];
        ann.call("queue.bind", &fields).unwrap()
    };
    for queue in ["q", "r"] {
        assert_eq!(ann.call("queue.declare", &[("queue", queue)]).unwrap(), "ok");
        assert_eq!(bind(&mut ann, queue, "1"), "ok");
        assert_eq!(bind(&mut ann, queue, "2"), "ok");
        assert_eq!(bind(&mut ann, queue, "2"), "ok", "what is there is not one more");
    }
    let unbind = [("queue", "q"), ("exchange", "amq.direct"), ("routing_key", "1")];
    assert_eq!(ann.call("queue.unbind", &unbind).unwrap(), "ok");
    assert_eq!(bind(&mut ann, "q", "3"), "ok", "who goes makes room");
    let full = "406 PRECONDITION_FAILED - cannot bind queue 'q' in vhost '/': its binding limit (2) is reached";
    assert_eq!(bind(&mut ann, "q", "4"), full);
}
