//! Nanoseconds a message: publishes read, deliveries written, acknowledgements settled. `cargo run --release -p broker-amqp --example codec`
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use broker_amqp::{Connection, Delivery, Input, Output, Reply, codec, frame};
use broker_core::message::{Content, Message};

#[path = "../tests/client/mod.rs"]
mod client;

const READ_BYTES: usize = 64 * 1024;

fn main() {
    for body_len in [16, 1024] {
        let message = client::publish(1, b"exchange", b"routing.key", 0, &[0x10, 0, 2], &vec![7; body_len], 131_064);
        let count = READ_BYTES / message.len();
        let octets = message.repeat(count);
        measure(&format!("publish {body_len} B: frames parsed"), count, || {
            let mut at = 0;
            while let Some(publish) = codec::parse_publish(&octets[at..], 131_072) {
                at += black_box(publish).len;
            }
        });
        let publish = codec::parse_publish(&octets, 131_072).unwrap();
        let mut scratch = Vec::new();
        measure(&format!("publish {body_len} B: message built and dropped"), count, || {
            for _ in 0..count {
                black_box(Message::new(publish.route, publish.header, publish.body, true, &mut scratch));
            }
        });
        let (mut connection, now) = connection();
        let mut out: Vec<Output> = Vec::new();
        measure(&format!("publish {body_len} B: through a connection"), count, || {
            connection.receive(now, &octets, &mut out);
            assert_eq!(out.len(), count);
            out.clear();
        });
        let message = Message::new(publish.route, publish.header, publish.body, true, &mut scratch).unwrap();
        deliveries(body_len, &message, count, &mut connection, now);
    }
    acknowledgements();
}

fn deliveries(body_len: usize, message: &Message, count: usize, connection: &mut Connection, now: Instant) {
    let mut out = Vec::new();
    connection.receive(now, &client::method(1, 60, 20, b"\0\0\x01q\x08consumer\x02\0\0\0\0"), &mut out);
    connection.step(now, Input::Reply { channel: 1, reply: Reply::ConsumeOk { consumer: 5 } }, &mut out);
    let delivery =
        Delivery { consumer: 5, queue: 9, queue_tag: 1, redelivered: false, content: Content::Kept(message) };
    measure(&format!("deliver {body_len} B"), count, || {
        for _ in 0..count {
            assert!(connection.deliver(1, delivery));
        }
        let len = connection.send_buffer().len();
        connection.send_buffer().consume(len);
    });
}

fn acknowledgements() {
    let (mut connection, now) = connection();
    let mut out = Vec::new();
    connection.receive(now, &client::method(1, 60, 20, b"\0\0\x01q\x08consumer\0\0\0\0\0"), &mut out);
    connection.step(now, Input::Reply { channel: 1, reply: Reply::ConsumeOk { consumer: 5 } }, &mut out);
    out.clear();
    let message = Message::new(b"\x01x\x01k", &[0; 14], b"m", false, &mut Vec::new()).unwrap();
    let mut tag = 0_u64;
    let mut octets = Vec::new();
    measure("deliver 1 B and acknowledge it", 500, || {
        octets.clear();
        for _ in 0..500 {
            tag += 1;
            let delivery = Delivery {
                consumer: 5,
                queue: 9,
                queue_tag: tag,
                redelivered: false,
                content: Content::Kept(&message),
            };
            assert!(connection.deliver(1, delivery));
            let [a, b, c, d, e, f, g, h] = tag.to_be_bytes();
            octets.extend_from_slice(&[1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, a, b, c, d, e, f, g, h, 0, frame::END]);
        }
        let len = connection.send_buffer().len();
        connection.send_buffer().consume(len);
        connection.receive(now, &octets, &mut out);
        assert_eq!(out.len(), 1);
        out.clear();
    });
}

fn connection() -> (Connection, Instant) {
    let now = Instant::now();
    let mut connection = client::running(now, client::settings(), &[], &client::tune_ok(2047, 131_072, 0));
    connection.receive(now, &client::method(1, 20, 10, b"\0"), &mut Vec::new());
    client::drain(&mut connection);
    (connection, now)
}

/// The best of forty rounds, so that other work on the machine counts little.
fn measure(what: &str, messages: usize, mut round: impl FnMut()) {
    let mut best = Duration::MAX;
    let end = Instant::now() + Duration::from_millis(400);
    while Instant::now() < end {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed());
    }
    println!("{what:<45} {:>7.1} ns", best.as_nanos() as f64 / messages as f64);
}
