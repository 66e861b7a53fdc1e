//! What is done in bulk.

use std::io;
use std::time::Duration;

use super::Outcome;
use super::bulk::{
    DURABLE, EXCLUSIVE, answers, bind_all, consume_arguments, declare_exchange, declare_exchanges, declare_queues,
    delete_exchanges, delete_queues, in_bulk, publish, queue_name, unbind_all,
};
use super::node::Node;
use crate::brokers::Kind;
use crate::session::Session;
use crate::wire;

/// What a durable queue may take.
const QUEUE_MAX_BYTES: f64 = 1.75 * 1024.0;
/// What a connection with a channel may take.
const CONNECTION_MAX_BYTES: f64 = 4.0 * 1024.0;
/// What a connection with a channel, a queue and a consumer may take.
const CLIENT_MAX_BYTES: f64 = 5.5 * 1024.0;
/// What any other small thing may take.
const OTHER_MAX_BYTES: f64 = 2.0 * 1024.0;

/// Something that is done in bulk. Each is done on a broker of its own.
pub(crate) struct Step {
    pub name: &'static str,
    /// Objects; half as many are measured before.
    pub many: usize,
    pub each_max_bytes: Option<f64>,
    pub run: fn(&mut Node, usize) -> io::Result<Outcome>,
}

/// All there are.
pub(crate) const STEPS: &[Step] = &[
    step("declare durable queues", 100_000, Some(QUEUE_MAX_BYTES), declare_durable),
    step("declare transient queues", 100_000, Some(QUEUE_MAX_BYTES), declare_transient),
    step("delete durable queues", 100_000, None, delete_durable),
    step("set a policy over all queues", 100_000, None, set_policy),
    step("clear a policy over all queues", 100_000, None, clear_policy),
    step("list all queues", 100_000, None, list_queues),
    step("delete a vhost with its queues", 100_000, None, delete_vhost),
    step("restart with durable queues", 100_000, None, restart),
    step("publish and get beside queues, under memory pressure", 100_000, None, publish_beside),
    step("declare exchanges", 10_000, Some(OTHER_MAX_BYTES), declare_direct),
    step("delete exchanges", 10_000, None, delete_direct),
    step("bind a queue to a topic exchange", 10_000, Some(OTHER_MAX_BYTES), bind),
    step("route by keys over a topic exchange", 10_000, None, route),
    step("unbind a queue from a topic exchange", 10_000, None, unbind),
    step("delete a topic exchange with its bindings", 10_000, None, delete_bound_exchange),
    step("delete a queue with its bindings", 10_000, None, delete_bound_queue),
    step("bind queues to a fanout exchange", 10_000, None, bind_fanout),
    step("publish 20 through a fanout exchange", 10_000, None, publish_fanout),
    step("delete exclusive queues", 10_000, None, delete_exclusive),
    step("close a connection with exclusive queues", 10_000, None, close_with_exclusive),
    step("start consumers of a queue", 1_000, Some(OTHER_MAX_BYTES), start_consumers),
    step("cancel consumers of a queue", 1_000, None, cancel_consumers),
    step("delete a queue with consumers", 1_000, None, delete_consumed_queue),
    step("open channels with a consumer each", 2_000, Some(OTHER_MAX_BYTES), open_channels),
    step("close channels with a consumer each", 2_000, None, close_channels),
    step("close a connection with channels", 2_000, None, close_with_channels),
    step("open connections with a channel", 10_000, Some(CONNECTION_MAX_BYTES), open_connections),
    step("open connections with a channel, a queue and a consumer", 10_000, Some(CLIENT_MAX_BYTES), open_clients),
    step("close connections", 10_000, None, close_connections),
];

const fn step(
    name: &'static str,
    many: usize,
    each_max_bytes: Option<f64>,
    run: fn(&mut Node, usize) -> io::Result<Outcome>,
) -> Step {
    Step { name, many, each_max_bytes, run }
}

fn declare_durable(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    node.timed_and_weighed(|| declare_queues(&mut session, count, DURABLE))
}

fn declare_transient(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    node.timed_and_weighed(|| declare_queues(&mut session, count, 0))
}

fn delete_durable(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, DURABLE)?;
    node.timed(|| delete_queues(&mut session, count))
}

/// A policy that says something of every queue.
const POLICY: [&str; 4] = ["set_policy", "scale", "^scale-", "{\"max-length\":1}"];

/// Publishes two messages to the queue that comes last, and looks how many it then has.
fn expect_kept(node: &Node, session: &mut Session, count: usize, expected: u32) -> io::Result<()> {
    let last = queue_name(count - 1);
    for _ in 0..2 {
        publish(session, "", &last, b"x")?;
    }
    let mut kept = session.queue_length(&last)?;
    // RabbitMQ's queues hear of a policy after its operator does.
    for _ in 0..50 {
        if kept != expected && node.kind == Kind::RabbitMq {
            std::thread::sleep(Duration::from_millis(100));
            kept = session.queue_length(&last)?;
        }
    }
    if kept == expected { Ok(()) } else { Err(io::Error::other(format!("{last} has {kept} messages, not {expected}"))) }
}

fn set_policy(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, DURABLE)?;
    let outcome = node.timed(|| node.administer(&POLICY).map(drop))?;
    expect_kept(node, &mut session, count, 1)?;
    Ok(outcome)
}

fn clear_policy(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, DURABLE)?;
    node.administer(&POLICY)?;
    let outcome = node.timed(|| node.administer(&["clear_policy", "scale"]).map(drop))?;
    expect_kept(node, &mut session, count, 2)?;
    Ok(outcome)
}

fn list_queues(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, DURABLE)?;
    node.timed(|| {
        let listed = node.administer(&["list_queues", "name", "messages"])?;
        let found = listed.lines().filter(|line| line.starts_with("scale-")).count();
        if found < count {
            return Err(io::Error::other(format!("{found} of {count} queues were listed")));
        }
        Ok(())
    })
}

/// The vhost is another than that of the client that waits beside.
fn delete_vhost(node: &mut Node, count: usize) -> io::Result<Outcome> {
    node.administer(&["add_vhost", "bulk"])?;
    node.administer(&["set_permissions", "-p", "bulk", "guest", ".*", ".*", ".*"])?;
    let mut session = node.session_in("bulk")?;
    declare_queues(&mut session, count, DURABLE)?;
    node.timed(|| node.administer(&["delete_vhost", "bulk"]).map(drop))
}

fn restart(node: &mut Node, count: usize) -> io::Result<Outcome> {
    declare_queues(&mut node.session()?, count, DURABLE)?;
    let outcome = node.kill_and_restart()?;
    node.session()?.queue_length(&queue_name(count - 1))?;
    Ok(outcome)
}

/// Messages through one queue, with a backlog of others in memory, while there are many queues that have none.
fn publish_beside(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, 0)?;
    // More than all queues together may hold in memory at ease.
    let body = vec![0; 16 * 1024];
    for number in 0..8.min(count) {
        for _ in 0..960 {
            publish(&mut session, "", &queue_name(number), &body)?;
        }
    }
    node.timed(|| {
        for _ in 0..2_000 {
            publish(&mut session, "", &queue_name(count - 1), b"x")?;
            session.get(&queue_name(count - 1))?;
        }
        Ok(())
    })
}

fn declare_direct(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    node.timed_and_weighed(|| declare_exchanges(&mut session, count))
}

fn delete_direct(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_exchanges(&mut session, count)?;
    node.timed(|| delete_exchanges(&mut session, count))
}

fn one_queue_many_keys(number: usize) -> (String, &'static str, String) {
    ("bound".into(), "many", format!("scale.{number}.#"))
}

/// A queue and an exchange, not bound yet.
fn unbound(node: &Node) -> io::Result<Session> {
    let mut session = node.session()?;
    session.declare_queue("bound", true)?;
    declare_exchange(&mut session, "many", "topic")?;
    Ok(session)
}

fn bound(node: &Node, count: usize) -> io::Result<Session> {
    let mut session = unbound(node)?;
    bind_all(&mut session, count, one_queue_many_keys)?;
    Ok(session)
}

fn bind(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = unbound(node)?;
    node.timed_and_weighed(|| bind_all(&mut session, count, one_queue_many_keys))
}

/// A message for each binding, with a key that nobody used before.
fn route(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = bound(node, count)?;
    node.timed(|| {
        for number in 0..count {
            publish(&mut session, "many", &format!("scale.{number}.some.where"), b"x")?;
        }
        let found = session.queue_length("bound")? as usize;
        if found == count { Ok(()) } else { Err(io::Error::other(format!("{found} of {count} messages arrived"))) }
    })
}

fn unbind(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = bound(node, count)?;
    node.timed(|| unbind_all(&mut session, count, one_queue_many_keys))
}

fn delete_bound_exchange(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = bound(node, count)?;
    node.timed(|| session.delete_exchange("many"))
}

fn delete_bound_queue(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = bound(node, count)?;
    node.timed(|| session.delete_queue("bound"))
}

fn many_queues_no_key(number: usize) -> (String, &'static str, String) {
    (queue_name(number), "many", String::new())
}

fn bind_fanout(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, 0)?;
    declare_exchange(&mut session, "many", "fanout")?;
    node.timed_and_weighed(|| bind_all(&mut session, count, many_queues_no_key))
}

fn publish_fanout(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, 0)?;
    declare_exchange(&mut session, "many", "fanout")?;
    bind_all(&mut session, count, many_queues_no_key)?;
    node.timed(|| {
        for _ in 0..20 {
            publish(&mut session, "many", "", b"x")?;
        }
        session.queue_length(&queue_name(0)).map(drop)
    })
}

fn delete_exclusive(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, EXCLUSIVE)?;
    node.timed(|| delete_queues(&mut session, count))
}

fn close_with_exclusive(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = node.session()?;
    declare_queues(&mut session, count, EXCLUSIVE)?;
    node.timed(|| session.close())
}

const CONSUMED: &str = "consumed";

fn consume_all(session: &mut Session, count: usize) -> io::Result<()> {
    in_bulk(session, count, wire::BASIC_CONSUME, wire::BASIC_CONSUME_OK, |out, number| {
        consume_arguments(out, CONSUMED, number);
    })
}

/// A queue with so many consumers.
fn consumed(node: &Node, count: usize) -> io::Result<Session> {
    let mut session = node.session()?;
    session.declare_queue(CONSUMED, false)?;
    consume_all(&mut session, count)?;
    Ok(session)
}

fn start_consumers(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = consumed(node, 0)?;
    node.timed_and_weighed(|| consume_all(&mut session, count))
}

fn cancel_consumers(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = consumed(node, count)?;
    node.timed(|| {
        in_bulk(&mut session, count, wire::BASIC_CANCEL, wire::BASIC_CANCEL_OK, |out, number| {
            wire::put_short_string(out, &queue_name(number));
            out.push(0);
        })
    })
}

fn delete_consumed_queue(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = consumed(node, count)?;
    node.timed(|| session.delete_queue(CONSUMED))
}

/// A connection with a queue and one channel.
fn with_queue(node: &Node) -> io::Result<Session> {
    let mut session = Session::open(node.address())?;
    session.declare_queue(CONSUMED, false)?;
    Ok(session)
}

fn more_channels(session: &mut Session, count: usize) -> io::Result<()> {
    let mut out = Vec::new();
    for channel in 2..2 + count as u16 {
        wire::put_method(&mut out, channel, wire::CHANNEL_OPEN, |out| wire::put_short_string(out, ""));
        wire::put_method(&mut out, channel, wire::BASIC_CONSUME, |out| {
            consume_arguments(out, CONSUMED, channel.into())
        });
    }
    session.send(&out)?;
    answers(session, &[(wire::CHANNEL_OPEN_OK, count), (wire::BASIC_CONSUME_OK, count)])
}

fn open_channels(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = with_queue(node)?;
    node.timed_and_weighed(|| more_channels(&mut session, count))
}

fn close_channels(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = with_queue(node)?;
    more_channels(&mut session, count)?;
    node.timed(|| {
        let mut out = Vec::new();
        for channel in 2..2 + count as u16 {
            wire::put_method(&mut out, channel, wire::CHANNEL_CLOSE, |out| {
                wire::put_u16(out, 200);
                wire::put_short_string(out, "");
                wire::put_u32(out, 0);
            });
        }
        session.send(&out)?;
        answers(&mut session, &[(wire::CHANNEL_CLOSE_OK, count)])
    })
}

fn close_with_channels(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut session = with_queue(node)?;
    more_channels(&mut session, count)?;
    node.timed(|| session.close())
}

fn connections(node: &Node, count: usize) -> io::Result<Vec<Session>> {
    (0..count).map(|_| Session::open(node.address())).collect()
}

fn open_connections(node: &mut Node, count: usize) -> io::Result<Outcome> {
    // They stay open until they have been weighed.
    let mut sessions = Vec::new();
    node.timed_and_weighed(|| {
        sessions = connections(node, count)?;
        Ok(())
    })
}

fn open_clients(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let mut sessions = Vec::new();
    node.timed_and_weighed(|| {
        sessions = connections(node, count)?;
        for session in &mut sessions {
            session.declare_exclusive_queue("")?;
            // An empty name means the queue that the channel declared last.
            session.consume("", "c", true)?;
        }
        Ok(())
    })
}

fn close_connections(node: &mut Node, count: usize) -> io::Result<Outcome> {
    let sessions = connections(node, count)?;
    node.timed(|| sessions.into_iter().try_for_each(Session::close))
}
