//! What changes of users, permissions and vhosts do to connections that are open.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use access::node::Node;
use access::session::{Session, login};
use access::users::{NewUser, PASSWORD, Users};
use broker_core::access::{PasswordHash, User};
use broker_meta::command;
use conformance::client::Login;

/// Nothing comes within this time: the broker has answered something that came later by then.
const QUIET: Duration = Duration::from_millis(200);

fn node() -> Node {
    let mut node = Node::start("").unwrap();
    let all = [".*", ".*", ".*"].map(str::to_owned);
    node.add(&["ann", "bob"].map(|name| NewUser { name: name.into(), patterns: all.clone() })).unwrap();
    node
}

fn ok(session: &mut Session, method: &str, arguments: &[(&str, &str)]) {
    assert_eq!(session.call(method, arguments).unwrap(), "ok", "{method} {arguments:?}");
}

/// A connection whose client does not know `basic.cancel` from the broker.
fn open_without_capabilities(node: &Node, user: &str) -> Session {
    Session::open_with(node.port(), Login { capabilities: "{}".into(), ..login(user) }).unwrap().unwrap()
}

#[test]
fn a_consumer_ends_when_its_user_may_not_read_any_more() {
    let node = node();
    let mut ann = Session::open(node.port(), "ann", "/").unwrap();
    let mut bob = Session::open(node.port(), "bob", "/").unwrap();
    for queue in ["one", "two"] {
        ok(&mut ann, "queue.declare", &[("queue", queue)]);
        ok(&mut ann, "basic.consume", &[("queue", queue), ("consumer_tag", queue), ("no_ack", "true")]);
    }
    ok(&mut bob, "basic.consume", &[("queue", "one"), ("consumer_tag", "of-bob"), ("no_ack", "true")]);
    let mut deaf = open_without_capabilities(&node, "ann");
    ok(&mut deaf, "basic.consume", &[("queue", "one"), ("no_ack", "true")]);
    node.apply(command::set_permissions("ann", "/", ".*", ".*", "^two$"));
    assert_eq!(ann.within(QUIET).as_deref(), Some("cancelled one"));
    for _ in 0..4 {
        bob.publish("", "one", &[]).unwrap();
        assert_eq!(bob.answer().unwrap(), "delivered", "everything goes to the one who may read");
    }
    bob.publish("", "two", &[]).unwrap();
    assert_eq!(ann.answer().unwrap(), "delivered", "what may still be read is not touched");
    assert_eq!((ann.within(QUIET), deaf.within(QUIET)), (None, None));
    assert_eq!(
        ann.call("basic.consume", &[("queue", "one")]).unwrap(),
        "403 ACCESS_REFUSED - access to queue 'one' in vhost '/' refused for user 'ann'"
    );
}

#[test]
fn what_an_ended_consumer_has_not_settled_can_still_be_settled() {
    let node = node();
    let mut ann = Session::open(node.port(), "ann", "/").unwrap();
    ok(&mut ann, "queue.declare", &[("queue", "q")]);
    ok(&mut ann, "basic.consume", &[("queue", "q"), ("consumer_tag", "c")]);
    ann.publish("", "q", &[]).unwrap();
    assert_eq!(ann.answer().unwrap(), "delivered");
    node.apply(command::clear_permissions("ann", "/"));
    assert_eq!(ann.answer().unwrap(), "cancelled c");
    ann.send(1, "basic.ack", &[("delivery_tag", "1")]).unwrap();
    // As in RabbitMQ, looking takes no right.
    ok(&mut ann, "queue.declare", &[("queue", "q"), ("passive", "true")]);
    ok(&mut ann, "channel.close", &[("reply_code", "200")]);
    let mut bob = Session::open(node.port(), "bob", "/").unwrap();
    ok(&mut bob, "queue.delete", &[("queue", "q"), ("if_empty", "true")]);
}

#[test]
fn publishing_is_judged_anew_though_the_route_is_remembered() {
    let node = node();
    let mut ann = Session::open(node.port(), "ann", "/").unwrap();
    ok(&mut ann, "queue.declare", &[("queue", "q")]);
    ok(&mut ann, "queue.bind", &[("queue", "q"), ("exchange", "amq.topic"), ("routing_key", "#")]);
    let publish = |ann: &mut Session, key: &str| {
        ok(ann, "confirm.select", &[]);
        ann.publish("amq.topic", key, &[]).unwrap();
        ann.answer().unwrap()
    };
    for _ in 0..3 {
        assert_eq!(publish(&mut ann, "ann.x"), "ok");
    }
    let topic = |key: &str| {
        format!(
            "403 ACCESS_REFUSED - access to topic '{key}' in exchange 'amq.topic' in vhost '/' refused for user 'ann'"
        )
    };
    node.apply(command::set_topic_permissions("ann", "/", "amq.topic", "^bob\\.", ""));
    assert_eq!(publish(&mut ann, "ann.x"), topic("ann.x"));
    node.apply(command::set_topic_permissions("ann", "/", "amq.topic", "^{username}\\.", ""));
    assert_eq!(publish(&mut ann, "ann.x"), "ok");
    assert_eq!(publish(&mut ann, "bob.x"), topic("bob.x"));
    assert_eq!(publish(&mut ann, "ann.x"), "ok");
    node.apply(command::clear_topic_permissions("ann", "/", None));
    assert_eq!(publish(&mut ann, "bob.x"), "ok");
    node.apply(command::set_permissions("ann", "/", "", "", ""));
    assert_eq!(
        publish(&mut ann, "ann.x"),
        "403 ACCESS_REFUSED - access to exchange 'amq.topic' in vhost '/' refused for user 'ann'"
    );
}

#[test]
fn topic_permissions_hold_for_binding_and_in_transactions_and_for_copies() {
    let node = node();
    node.apply(command::set_topic_permissions("ann", "/", "amq.topic", "^w", "^r"));
    let mut ann = Session::open(node.port(), "ann", "/").unwrap();
    ok(&mut ann, "queue.declare", &[("queue", "q")]);
    ok(&mut ann, "exchange.declare", &[("exchange", "x"), ("type", "fanout")]);
    let topic = |key: &str| {
        format!(
            "403 ACCESS_REFUSED - access to topic '{key}' in exchange 'amq.topic' in vhost '/' refused for user 'ann'"
        )
    };
    for (method, what) in [
        ("queue.bind", ["queue", "exchange"]),
        ("queue.unbind", ["queue", "exchange"]),
        ("exchange.bind", ["destination", "source"]),
        ("exchange.unbind", ["destination", "source"]),
    ] {
        let destination = if method.starts_with("queue") { "q" } else { "x" };
        let arguments = |key| [(what[0], destination), (what[1], "amq.topic"), ("routing_key", key)];
        ok(&mut ann, method, &arguments("r.x"));
        assert_eq!(ann.call(method, &arguments("w.x")).unwrap(), topic("w.x"), "{method}");
    }
    // A topic exchange as destination asks for nothing.
    ok(&mut ann, "exchange.bind", &[("destination", "amq.topic"), ("source", "x"), ("routing_key", "z")]);
    ok(&mut ann, "tx.select", &[]);
    ann.publish("amq.topic", "r", &[]).unwrap();
    assert_eq!(ann.answer().unwrap(), topic("r"));
    for header in ["CC", "BCC"] {
        for mode in ["confirm.select", "tx.select"] {
            ok(&mut ann, "channel.close", &[("reply_code", "200")]);
            ok(&mut ann, "channel.open", &[]);
            ok(&mut ann, mode, &[]);
            ann.publish("amq.topic", "w", &[("headers", &format!("{{{header}:A [S r]}}"))]).unwrap();
            assert_eq!(ann.answer().unwrap(), topic("r"), "{header}, {mode}");
        }
        ok(&mut ann, "confirm.select", &[]);
        ann.publish("amq.topic", "w", &[("headers", &format!("{{{header}:A [S w.too]}}"))]).unwrap();
        assert_eq!(ann.answer().unwrap(), "ok");
    }
}

#[test]
fn a_deleted_users_connections_are_closed() {
    let node = node();
    let mut ann = Session::open(node.port(), "ann", "/").unwrap();
    let mut deaf = open_without_capabilities(&node, "ann");
    let mut bob = Session::open(node.port(), "bob", "/").unwrap();
    node.apply(command::delete_user("ann"));
    for session in [&mut ann, &mut deaf] {
        assert_eq!(session.answer().unwrap(), "connection 320 CONNECTION_FORCED - user 'ann' is deleted");
    }
    ok(&mut bob, "queue.declare", &[("queue", "q")]);
    let refused = Session::open_with(node.port(), login("ann")).unwrap().err().unwrap();
    assert!(refused.starts_with("connection 403 ACCESS_REFUSED - Login was refused"), "{refused}");
}

#[test]
fn a_deleted_vhosts_connections_are_closed() {
    let node = node();
    node.apply(command::create_vhost("v", "", &[]));
    node.apply(command::set_permissions("ann", "v", ".*", ".*", ".*"));
    let mut ann = Session::open(node.port(), "ann", "v").unwrap();
    let mut elsewhere = Session::open(node.port(), "ann", "/").unwrap();
    ok(&mut ann, "queue.declare", &[("queue", "q")]);
    ok(&mut ann, "basic.consume", &[("queue", "q"), ("consumer_tag", "c")]);
    node.apply(command::delete_vhost("v"));
    assert_eq!(ann.answer().unwrap(), "cancelled c");
    assert_eq!(ann.answer().unwrap(), "connection 320 CONNECTION_FORCED - vhost 'v' is deleted");
    ok(&mut elsewhere, "queue.declare", &[("queue", "q")]);
    let refused = Session::open_with(node.port(), Login { vhost: "v".into(), ..login("ann") }).unwrap().err();
    assert_eq!(refused.as_deref(), Some("connection 530 NOT_ALLOWED - vhost v not found"));
}

#[test]
fn the_impersonator_tag_counts_at_once() {
    let node = node();
    let mut ann = Session::open(node.port(), "ann", "/").unwrap();
    let password = Some(PasswordHash::rabbit_sha256(PASSWORD.as_bytes(), [1, 2, 3, 4]));
    let tagged = |tags: &[&str]| {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        command::put_user(&User { name: "ann".into(), password: password.clone(), tags })
    };
    let publish = |ann: &mut Session| {
        ok(ann, "confirm.select", &[]);
        ann.publish("", "nowhere", &[("user_id", "bob")]).unwrap();
        ann.answer().unwrap()
    };
    let refused = "406 PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'ann'";
    assert_eq!(publish(&mut ann), refused);
    node.apply(tagged(&["management", "impersonator"]));
    assert_eq!(publish(&mut ann), "ok");
    node.apply(tagged(&["management"]));
    assert_eq!(publish(&mut ann), refused);
}

#[test]
fn imported_passwords_are_verified_and_kept_as_they_are() {
    let node = node();
    // "test12", from RabbitMQ's documentation.
    let sha256 = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
    let password = PasswordHash::parse("rabbit_password_hashing_sha256", sha256).unwrap();
    node.apply(command::put_user(&User { name: "ann".into(), password: Some(password), tags: Vec::new() }));
    let open = |password: &str| {
        Session::open_with(node.port(), Login { password: password.into(), ..login("ann") }).unwrap().map(|_| ())
    };
    assert!(open("test12").is_ok());
    assert!(open("test13").is_err());
    assert!(open("test12").is_ok(), "the login has not changed what is stored");
}

/// This machine's address on a network, if it is on one.
fn own_address(port: u16) -> Option<SocketAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // Nothing is sent: it only looks up the way there, to a network kept for documentation.
    socket.connect(("192.0.2.1", 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}

#[test]
fn who_may_only_come_from_the_machine_is_told_by_the_peers_address() {
    let port = harness::free_port().unwrap();
    let node = Node::start(&format!("listeners.tcp.all = 0.0.0.0:{port}")).unwrap();
    let loopback: SocketAddr = ([127, 0, 0, 1], port).into();
    assert!(Session::open_at(loopback, login("guest")).unwrap().is_ok());
    let Some(address) = own_address(port) else {
        eprintln!("this machine is on no network: guest from elsewhere was not tried");
        return;
    };
    let refused = Session::open_at(address, login("guest")).unwrap().err().unwrap();
    assert!(refused.starts_with("connection 403 ACCESS_REFUSED - Login was refused"), "{refused}");
    let mut node = node;
    let patterns = [".*", ".*", ".*"].map(str::to_owned);
    node.add(&[NewUser { name: "ann".into(), patterns }]).unwrap();
    assert!(Session::open_at(address, login("ann")).unwrap().is_ok());
}
