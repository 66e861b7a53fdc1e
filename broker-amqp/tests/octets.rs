//! Any octets in any pieces: the same answers however a stream is cut, and never a panic or memory without bound.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod client;

use std::time::{Duration, Instant};

use broker_amqp::reply_to::Address;
use broker_amqp::{
    Connection, Delivery, Exception, HELD_MAX_BYTES, Input, Output, Reply, ReplyCode, Request, Resource, Settle, frame,
};
use broker_core::message::{Content, Message};
use client::{drain, header, method, publish, publish_method, running, settings, tune_ok};
use proptest::prelude::*;

/// Properties of a message that wants a direct reply.
const REQUEST: &[u8] = b"\x02\x00\x15amq.rabbitmq.reply-to";

/// A driver that answers everything at once, always the same way, and writes down what it did.
struct Driver {
    now: Instant,
    connection: Connection,
    trace: Trace,
    /// The number each channel's next delivery has in its queue.
    queue_tag: u64,
    /// The driver refused a publish: acknowledgements behind it may or may not have counted.
    refused: bool,
}

/// What happened. Between channels the order may differ with the cuts, on one it may not; settlements may come joined otherwise.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    channels: std::collections::BTreeMap<u16, Vec<String>>,
    settled: std::collections::BTreeMap<(u64, u64), Vec<String>>,
    sent: std::collections::BTreeMap<u16, Vec<u8>>,
    closed: Option<String>,
}

impl Driver {
    fn new(frame_max: u32) -> Driver {
        let now = Instant::now();
        let connection = running(now, settings(), &[], &tune_ok(20, frame_max, 0));
        Driver { now, connection, trace: Trace::default(), queue_tag: 1, refused: false }
    }

    fn receive(&mut self, octets: &[u8]) {
        let mut out = Vec::new();
        self.connection.receive(self.now, octets, &mut out);
        self.carry_out(octets, out);
        self.turn();
    }

    fn turn(&mut self) {
        while self.connection.wants_resume() {
            let mut out = Vec::new();
            self.connection.resume(self.now, &mut out);
            self.carry_out(&[], out);
        }
        self.connection.flush_confirms();
        let mut octets = &drain(&mut self.connection)[..];
        while let Some(head) = frame::Head::parse(octets) {
            let (frame, rest) = octets.split_at(head.frame_len());
            // How many confirms one `basic.ack` covers depends on the cuts.
            if frame.get(7..11) != Some(&[0, 60, 0, 80]) {
                self.trace.sent.entry(head.channel).or_default().extend_from_slice(frame);
            }
            octets = rest;
        }
    }

    fn carry_out(&mut self, octets: &[u8], out: Vec<Output>) {
        for output in out {
            let mut more = Vec::new();
            match output {
                Output::Publish { channel, content, publish_seq, .. } => {
                    let message = content.content(octets).keep();
                    if !self.connection.channel_is_open(channel) {
                        continue;
                    }
                    self.note(channel, format!("publish {publish_seq} {message:?}"));
                    if message.exchange() == b"missing" {
                        self.refused = true;
                        let exception = Exception::not_found(Resource::Exchange { name: "missing", vhost: "/" });
                        self.connection.fail(channel, exception, &mut more);
                    } else if publish_seq > 0 {
                        self.connection.confirm(channel, publish_seq);
                    }
                }
                Output::TxPublish { channel, message } => {
                    // What follows a refused publish of its channel is passed over, as the contract of outputs says.
                    if self.connection.channel_is_open(channel) {
                        self.note(channel, format!("in tx {message:?}"));
                    }
                }
                Output::PublishInvalid { channel, exception, .. } => {
                    if self.connection.channel_is_open(channel) {
                        self.refused = true;
                        self.note(channel, format!("invalid {exception}"));
                        self.connection.fail(channel, *exception, &mut more);
                    }
                }
                Output::TxCommit(commit) => {
                    self.note(commit.channel, format!("commit {:?}", commit.publishes));
                    self.connection.step(self.now, Input::TxCommitted { channel: commit.channel }, &mut more);
                }
                Output::Request { channel, request } => {
                    self.note(channel, format!("{request:?}"));
                    let reply = self.answer(channel, *request);
                    self.connection.step(self.now, Input::Reply { channel, reply }, &mut more);
                    self.deliver(channel);
                }
                Output::Settle(Settle { queue, first, last, outcome, .. }) => {
                    for tag in first..=last {
                        self.trace.settled.entry((queue, tag)).or_default().push(format!("{outcome:?}"));
                    }
                }
                Output::ConnectionClosing => self.connection.step(self.now, Input::ConnectionClosed, &mut more),
                Output::Close { reason } => self.trace.closed = Some(format!("{reason:?}")),
                Output::ChannelOpened { channel } | Output::ChannelClosed { channel } => {
                    self.note(channel, "opened or closed".into());
                }
                Output::ChannelLimit { channel, limit } => self.note(channel, format!("limit {limit}")),
                Output::Login(_) | Output::Open { .. } | Output::PublisherBlocked => panic!("{output:?}"),
            }
            self.carry_out(octets, more);
        }
    }

    fn answer(&mut self, channel: u16, request: Request) -> Reply {
        match request {
            Request::QueueDeclare { name, .. } if &*name == "refused" => {
                Reply::Refused(Exception::new(ReplyCode::PreconditionFailed, "no"))
            }
            Request::QueueDeclare { name, .. } => Reply::Declared { name, messages: 0, consumers: 0 },
            Request::QueueDelete { .. } => Reply::Deleted { messages: 0 },
            Request::QueuePurge { .. } => Reply::Purged { messages: 0 },
            Request::Get { .. } => Reply::GetEmpty,
            Request::Consume { .. } => Reply::ConsumeOk { consumer: channel.into() },
            Request::ConsumeReplies => Reply::ReplyAddress(Address::new(1, channel, [7; 16])),
            _ => Reply::Done,
        }
    }

    /// Ten deliveries after each answer, so that there is something to settle.
    fn deliver(&mut self, channel: u16) {
        let message =
            Message::new(b"\x01x\x01k", &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], b"m", false, &mut Vec::new());
        let message = message.unwrap();
        for _ in 0..10 {
            let queue = channel.into();
            let delivery = Delivery {
                consumer: queue as u32,
                queue,
                queue_tag: self.queue_tag,
                redelivered: false,
                content: Content::Kept(&message),
            };
            if self.connection.deliver(channel, delivery) {
                self.queue_tag += 1;
            }
        }
    }

    fn note(&mut self, channel: u16, what: String) {
        self.trace.channels.entry(channel).or_default().push(what);
    }
}

/// What a client might send, right and wrong.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let channel = 1_u16..3;
    prop_oneof![
        4 => (channel.clone(), 0_usize..300, any::<bool>()).prop_map(|(channel, len, odd)| {
            publish(channel, b"x", b"key", u8::from(odd), &[0x10, 0, 2], &vec![7; len], 100)
        }),
        1 => (channel.clone(), 0_usize..40_000).prop_map(|(channel, len)| publish(channel, b"x", b"k", 0, &[0, 0], &vec![8; len], 4096)),
        1 => channel.clone().prop_map(|channel| publish(channel, b"missing", b"k", 0, &[0, 0], b"m", 100)),
        1 => channel.clone().prop_map(|channel| publish(channel, b"x", b"k", 0, &[1, 0, 1, b'z'], b"m", 100)),
        1 => (channel.clone(), 0_usize..9_000).prop_map(|(channel, len)| publish(channel, b"x", b"k", 0, REQUEST, &vec![9; len], 100)),
        1 => channel.clone().prop_map(|channel| method(channel, 60, 20, b"\0\0\x15amq.rabbitmq.reply-to\x01r\x02\0\0\0\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 60, 30, b"\x01r\0")),
        1 => channel.clone().prop_map(|channel| publish_method(channel, b"x", b"k", 0)),
        1 => (channel.clone(), 0_u64..2_000_000).prop_map(|(channel, len)| header(channel, 60, len, &[0, 0])),
        3 => (channel.clone(), 0_u64..30, any::<bool>()).prop_map(|(channel, tag, multiple)| {
            let mut fields = tag.to_be_bytes().to_vec();
            fields.push(u8::from(multiple));
            method(channel, 60, 80, &fields)
        }),
        1 => (channel.clone(), 0_u64..30).prop_map(|(channel, tag)| {
            let mut fields = tag.to_be_bytes().to_vec();
            fields.push(3);
            method(channel, 60, 120, &fields)
        }),
        2 => channel.clone().prop_map(|channel| method(channel, 20, 10, b"\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 20, 41, b"")),
        1 => channel.clone().prop_map(|channel| method(channel, 20, 40, b"\0\xc8\x03bye\0\0\0\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 60, 20, b"\0\0\x01q\x01c\0\0\0\0\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 60, 30, b"\x01c\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 60, 110, b"\x01")),
        1 => channel.clone().prop_map(|channel| method(channel, 60, 10, b"\0\0\0\0\0\x05\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 50, 10, b"\0\0\x07refused\0\0\0\0\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 50, 10, b"\0\0\0\0\0\0\0\0")),
        1 => channel.clone().prop_map(|channel| method(channel, 85, 10, b"\0")),
        1 => (channel.clone(), 1_u16..4).prop_map(|(channel, id)| method(channel, 90, 10 * id, b"")),
        1 => Just(vec![8, 0, 0, 0, 0, 0, 0, frame::END]),
    ]
}

/// Both channels open, one with a consumer; then anything.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(frames(), 1..40).prop_map(|frames| {
        let mut octets = method(1, 20, 10, b"\0");
        octets.extend(method(2, 20, 10, b"\0"));
        octets.extend(method(1, 60, 20, b"\0\0\x01q\x01c\0\0\0\0\0"));
        octets.extend(frames.concat());
        octets
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn cuts_change_nothing(octets in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let mut whole = Driver::new(4096);
        whole.receive(&octets);
        let mut cut = Driver::new(4096);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len())).collect();
        places.sort_unstable();
        let mut at = 0;
        for place in places {
            cut.receive(&octets[at..place]);
            at = place;
        }
        cut.receive(&octets[at..]);
        prop_assert_eq!(whole.refused, cut.refused);
        if whole.refused {
            whole.trace.settled.clear();
            cut.trace.settled.clear();
        }
        prop_assert_eq!(whole.trace, cut.trace);
    }

    /// Whenever publishes wait and go on, each channel sees the same in the same order.
    #[test]
    fn waiting_publishes_change_nothing(octets in stream(), step in 1_usize..600, waits in prop::collection::vec(any::<bool>(), 1..30)) {
        let mut whole = Driver::new(4096);
        whole.receive(&octets);
        let mut held = Driver::new(4096);
        for (piece, &wait) in octets.chunks(step).zip(waits.iter().cycle()) {
            held.connection.hold_publishes(wait);
            held.turn();
            held.receive(piece);
            prop_assert!(!held.connection.holds_a_publish() || wait);
        }
        held.connection.hold_publishes(false);
        held.turn();
        prop_assert_eq!(whole.refused, held.refused);
        if whole.refused {
            whole.trace.settled.clear();
            held.trace.settled.clear();
        }
        prop_assert_eq!(whole.trace, held.trace);
    }

    #[test]
    fn damaged_streams_end_in_an_exception_or_not_at_all(
        mut octets in stream(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), step in 1_usize..5000,
    ) {
        for (place, octet) in damage {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        let mut driver = Driver::new(4096);
        for piece in octets.chunks(step) {
            driver.receive(piece);
            prop_assert!(driver.connection.held_bytes() <= HELD_MAX_BYTES);
        }
        // Whatever happened, the connection can be ended.
        let mut out = Vec::new();
        driver.connection.step(driver.now, Input::PeerGone, &mut out);
        driver.carry_out(&[], out);
        prop_assert!(driver.trace.closed.is_some());
    }

    #[test]
    fn any_octets_from_the_first_on(octets in prop::collection::vec(any::<u8>(), 0..600), greet in any::<bool>(), step in 1_usize..50) {
        let now = Instant::now();
        let mut connection = Connection::new(now, settings(), 1);
        let mut out = Vec::new();
        if greet {
            connection.receive(now, b"AMQP\0\0\x09\x01", &mut out);
        }
        for piece in octets.chunks(step) {
            connection.receive(now, piece, &mut out);
        }
        connection.timeout(now + Duration::from_secs(60), &mut out);
        prop_assert!(matches!(out.last(), Some(Output::Close { .. })), "{:?}", out);
    }
}

#[test]
fn one_octet_at_a_time_is_the_same_too() {
    let mut octets = method(1, 20, 10, b"\0");
    octets.extend(publish(1, b"x", b"k", 1, &[0x10, 0, 2], &[1; 9000], 4096));
    octets.extend(publish(1, b"", b"k", 0, &[0, 0], b"", 4096));
    octets.extend(method(0, 10, 50, b"\0\xc8\x03bye\0\0\0\0"));
    let mut whole = Driver::new(4104);
    whole.receive(&octets);
    let mut cut = Driver::new(4104);
    for octet in &octets {
        cut.receive(std::slice::from_ref(octet));
    }
    assert_eq!(whole.trace, cut.trace);
    assert_eq!(whole.trace.closed.as_deref(), Some("ByClient"));
}

#[test]
fn a_declared_size_is_not_allocated() {
    let mut driver = Driver::new(131_072);
    for channel in 1..=20 {
        driver.receive(&method(channel, 20, 10, b"\0"));
        driver.receive(&publish_method(channel, b"x", b"k", 0));
        driver.receive(&header(channel, 60, 1_000_000, &[0, 0]));
        driver.receive(&client::body(channel, b"m"));
    }
    assert!(driver.connection.memory() < 64 * 1024, "{}", driver.connection.memory());
}

#[test]
fn an_idle_connection_is_small() {
    let mut driver = Driver::new(131_072);
    driver.receive(&method(1, 20, 10, b"\0"));
    driver.receive(&method(1, 60, 20, b"\0\0\x01q\0\x02\0\0\0\0"));
    driver.connection.send_buffer().consume(usize::MAX);
    assert!(driver.connection.memory() < 1200, "{}", driver.connection.memory());
}
