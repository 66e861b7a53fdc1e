//! Limits that RabbitMQ 3.10 does not have, each with one more than it allows.

#![allow(clippy::unwrap_used, clippy::panic)]

use e2e::wire::{Said, Wire, ack, long, method, publish, short};
use harness::{Broker, Brokerd, Options};

const MIB: usize = 1 << 20;

fn start(conf: &str) -> Brokerd {
    Brokerd::start(Options::default().conf(conf)).unwrap_or_else(|error| panic!("{error}"))
}

/// The next delivery's tag and the number in it, or why the channel was closed.
fn next(wire: &mut Wire) -> Result<(u64, u8), String> {
    match wire.listen().unwrap() {
        Said::Delivery { tag, body, .. } => Ok((tag, body[0])),
        Said::ChannelClosed(406, text) => Err(text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn octets_that_a_channel_holds_without_acknowledging_them() {
    let broker = start("broker.unacked_bytes_max_per_channel = 4MiB");
    let mut publisher = Wire::open(broker.amqp_port()).unwrap();
    publisher.declare("q", false).unwrap();
    for number in 0..30 {
        publisher.send(&publish(1, "q", false, &vec![number; MIB])).unwrap();
    }
    // Who acknowledges what it gets may get as much as it likes.
    let mut good = Wire::open(broker.amqp_port()).unwrap();
    good.prefetch(1, 3).unwrap();
    good.consume(1, "q", false).unwrap();
    for expected in 0..20 {
        let (tag, number) = next(&mut good).unwrap();
        assert_eq!(number, expected);
        good.send(&ack(1, tag, true)).unwrap();
    }
    good.call(1, (20, 40), &[0, 200, 0, 0, 0, 0, 0]).unwrap();
    // With messages of 1 MiB and a little, the fourth is one too many.
    let mut hoarder = Wire::open(broker.amqp_port()).unwrap();
    hoarder.open_channel(2).unwrap();
    hoarder.consume(1, "q", false).unwrap();
    let mut got = 0;
    let why = loop {
        match next(&mut hoarder) {
            Ok(_) => got += 1,
            Err(text) => break text,
        }
    };
    assert_eq!(got, 4);
    let expected = "PRECONDITION_FAILED - unacknowledged deliveries on channel 1 take more than 4194304 bytes.";
    assert!(why.starts_with(expected), "{why}");
    // The same for one that asks for each.
    let mut asker = Wire::open(broker.amqp_port()).unwrap();
    for fetched in 1..=4 {
        asker.send(&method(1, (60, 70), &[&[0, 0][..], &short("q"), &[0]].concat())).unwrap();
        let said = asker.listen().unwrap();
        assert!(matches!(&said, Said::Got(Some(_))), "{fetched}: {said:?}");
    }
    match asker.listen().unwrap() {
        Said::ChannelClosed(406, text) => assert!(text.starts_with(expected), "{text}"),
        other => panic!("{other:?}"),
    }
    // The connection is well, and nothing is lost.
    let mut left = 0;
    hoarder.call(2, (50, 10), &[&[0, 0][..], &short("q"), &[1], &long(b"")].concat()).unwrap();
    let mut reader = Wire::open(broker.amqp_port()).unwrap();
    while let Some(body) = reader.get("q").unwrap() {
        assert!(body[0] >= 20);
        left += 1;
    }
    assert_eq!(left, 10);
}

#[test]
fn bindings_are_counted_again_at_a_start() {
    let mut broker = start("broker.bindings_max_per_queue = 2");
    let bind = |wire: &mut Wire, key: &str| {
        let fields = [&[0, 0][..], &short("q"), &short("amq.direct"), &short(key), &[0], &long(b"")].concat();
        wire.call(1, (50, 20), &fields)
    };
    let mut wire = Wire::open(broker.amqp_port()).unwrap();
    wire.declare("q", true).unwrap();
    bind(&mut wire, "1").unwrap();
    bind(&mut wire, "2").unwrap();
    broker.restart().unwrap();
    let mut wire = Wire::open(broker.amqp_port()).unwrap();
    bind(&mut wire, "2").unwrap();
    let refused = bind(&mut wire, "3").unwrap_err().to_string();
    assert!(refused.contains("cannot bind queue 'q' in vhost '/': its binding limit (2) is reached"), "{refused}");
}
