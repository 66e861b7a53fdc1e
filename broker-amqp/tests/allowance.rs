//! How many channels a user may have: over its connections, given back however a channel ends.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod client;

use std::sync::Arc;
use std::time::Instant;

use broker_amqp::{ChannelAllowance, Connection, Exception, Input, Output, Reply, ReplyCode};
use client::{drain, method, running, settings, tune_ok};

fn connect(allowance: &Arc<ChannelAllowance>) -> Connection {
    let mut connection = running(Instant::now(), settings(), &[], &tune_ok(2047, 131_072, 0));
    connection.set_channel_allowance(allowance.clone());
    connection
}

fn receive(connection: &mut Connection, octets: &[u8]) -> Vec<Output> {
    let mut out = Vec::new();
    connection.receive(Instant::now(), octets, &mut out);
    out
}

fn open(connection: &mut Connection, channel: u16) -> Vec<Output> {
    receive(connection, &method(channel, 20, 10, b"\0"))
}

#[test]
fn one_channel_too_many_closes_its_connection() {
    let allowance = Arc::new(ChannelAllowance::new(Some(2)));
    let (mut one, mut other) = (connect(&allowance), connect(&allowance));
    assert!(matches!(open(&mut one, 1)[..], [Output::ChannelOpened { channel: 1 }]));
    assert!(matches!(open(&mut other, 1)[..], [Output::ChannelOpened { channel: 1 }]));
    drain(&mut other);
    let out = open(&mut other, 2);
    assert!(matches!(out[..], [Output::ChannelClosed { channel: 1 }, Output::ConnectionClosing]), "{out:?}");
    other.step(Instant::now(), Input::ConnectionClosed, &mut Vec::new());
    let close = String::from_utf8_lossy(&drain(&mut other)).into_owned();
    let text =
        "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user limit of (2)";
    assert!(close.contains(text), "{close}");
    assert_eq!(allowance.open(), 1, "what is closing has no channels");
}

#[test]
fn a_channel_that_ends_leaves_its_place() {
    let allowance = Arc::new(ChannelAllowance::new(Some(1)));
    let mut connection = connect(&allowance);
    // The client closes it.
    open(&mut connection, 1);
    receive(&mut connection, &method(1, 20, 40, &[0, 200, 0, 0, 0, 0, 0]));
    connection.step(Instant::now(), Input::Reply { channel: 1, reply: Reply::Done }, &mut Vec::new());
    assert_eq!(allowance.open(), 0);
    // The broker closes it: before the client has confirmed.
    open(&mut connection, 1);
    connection.fail(1, Exception::new(ReplyCode::NotFound, "no"), &mut Vec::new());
    assert_eq!(allowance.open(), 0);
    // It goes with its connection.
    open(&mut connection, 2);
    assert_eq!(allowance.open(), 1);
    connection.step(Instant::now(), Input::PeerGone, &mut Vec::new());
    assert_eq!(allowance.open(), 0);
}
