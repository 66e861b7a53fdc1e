//! Any octets after the handshake, in any pieces, with a driver that answers everything. The first octet says how long the pieces are.
#![no_main]

use std::time::Instant;

use broker_amqp::reply_to::Address;
use broker_amqp::{Connection, HELD_MAX_BYTES, Input, Output, Reply, Request, frame};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/client/mod.rs"]
mod client;

fuzz_target!(|octets: &[u8]| {
    let Some((&step, octets)) = octets.split_first() else { return };
    let now = Instant::now();
    let mut connection = client::running(now, client::settings(), &[], &client::tune_ok(20, 4096, 0));
    for channel in 1..=2 {
        receive(&mut connection, now, &client::method(channel, 20, 10, b"\0"));
    }
    for piece in octets.chunks(usize::from(step).max(1) * 7) {
        receive(&mut connection, now, piece);
        assert!(connection.held_bytes() <= HELD_MAX_BYTES);
    }
    let mut out = Vec::new();
    connection.step(now, Input::PeerGone, &mut out);
});

fn receive(connection: &mut Connection, now: Instant, octets: &[u8]) {
    let mut out = Vec::new();
    connection.receive(now, octets, &mut out);
    loop {
        while let Some(output) = out.pop() {
            carry_out(connection, now, output, &mut out);
        }
        if !connection.wants_resume() {
            break;
        }
        connection.resume(now, &mut out);
    }
    connection.flush_confirms();
    let written = client::drain(connection);
    // Whatever is said is frames.
    let mut rest = written.as_slice();
    while let Some(head) = frame::Head::parse(rest) {
        assert_eq!(rest[head.frame_len() - 1], frame::END);
        rest = &rest[head.frame_len()..];
    }
    assert!(rest.is_empty());
}

fn carry_out(connection: &mut Connection, now: Instant, output: Output, out: &mut Vec<Output>) {
    match output {
        Output::Publish { channel, publish_seq, .. } if publish_seq > 0 => connection.confirm(channel, publish_seq),
        Output::PublishInvalid { channel, exception, .. } => connection.fail(channel, *exception, out),
        Output::TxCommit(commit) => connection.step(now, Input::TxCommitted { channel: commit.channel }, out),
        Output::ConnectionClosing => connection.step(now, Input::ConnectionClosed, out),
        Output::Request { channel, request } => {
            let reply = match *request {
                Request::QueueDeclare { name, .. } => Reply::Declared { name, messages: 0, consumers: 0 },
                Request::QueueDelete { .. } => Reply::Deleted { messages: 0 },
                Request::QueuePurge { .. } => Reply::Purged { messages: 0 },
                Request::Get { .. } => Reply::GetEmpty,
                Request::Consume { .. } => Reply::ConsumeOk { consumer: 1 },
                Request::ConsumeReplies => Reply::ReplyAddress(Address::new(1, channel, [7; 16])),
                _ => Reply::Done,
            };
            connection.step(now, Input::Reply { channel, reply }, out);
        }
        _ => {}
    }
}
