//! Who is slow is slow alone: a consumer that does not read, does not ack, or shares its connection holds up nobody else, and memory stays bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::wire::{PATIENCE, Said, Wire, ack, method, publish};
use harness::{Broker, Brokerd, Options};

const MIB: usize = 1 << 20;
const LARGE_BYTES: usize = 64 * 1024;
/// What is published to the queue of a consumer that is stuck.
const FLOOD_MESSAGES: u64 = 3072;
/// Ready and unacked messages in memory, those on their way to the store, buffers, and what the allocator keeps: far from the flood's 192 MiB.
const GROWTH_MAX_BYTES: u64 = 64 << 20;
/// Publishes that wait for their confirms at the same time.
const WINDOW: u64 = 64;

fn start() -> Brokerd {
    Brokerd::start(Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn open(broker: &Brokerd) -> Wire {
    Wire::open(broker.amqp_port()).unwrap()
}

/// Bodies tell which they are.
fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = vec![number as u8; bytes.max(8)];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body
}

fn number(body: &[u8]) -> u64 {
    let number = u64::from_be_bytes(*body.first_chunk().unwrap());
    assert!(body == self::body(number, body.len()), "a body is not the one that was published");
    number
}

/// Publishes so many messages, a window of unconfirmed ones at a time, and waits for the last confirm.
fn publish_confirmed(wire: &mut Wire, queue: &str, persistent: bool, messages: u64, bytes: usize) {
    wire.confirm_select(1).unwrap();
    let mut confirmed = 0;
    for sent in 1..=messages {
        wire.send(&publish(1, queue, persistent, &body(sent, bytes))).unwrap();
        while sent - confirmed >= WINDOW || (sent == messages && confirmed < messages) {
            confirmed = match wire.listen().unwrap() {
                Said::Ack(tag, true) => tag,
                Said::Ack(..) => confirmed + 1,
                other => panic!("{other:?}"),
            };
        }
    }
}

/// How a consumer is stuck.
#[derive(Clone, Copy, PartialEq)]
enum Stuck {
    /// It does not read, and need not ack.
    UnreadNoAck,
    /// It does not read.
    Unread,
    /// It reads all it is sent and acks nothing.
    NeverAcks,
}

/// Floods the queue of a stuck consumer while others publish and consume.
fn others_go_on_beside(stuck: Stuck, persistent: bool) {
    let broker = start();
    let mut consumer = open(&broker);
    consumer.declare("slow", persistent).unwrap();
    consumer.consume(1, "slow", stuck == Stuck::UnreadNoAck).unwrap();
    let before = broker.rss_now().unwrap();
    let (over, largest, rounds) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        if stuck == Stuck::NeverAcks {
            scope.spawn(|| {
                for expected in 1..=FLOOD_MESSAGES {
                    let Said::Delivery { body, .. } = consumer.listen().unwrap() else { panic!("no delivery") };
                    assert_eq!(number(&body), expected);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                largest.fetch_max(broker.rss_now().unwrap(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        // Others: a publisher with confirms and a consumer, on connections of their own, one message after the other.
        scope.spawn(|| {
            let (mut publisher, mut reader) = (open(&broker), open(&broker));
            publisher.confirm_select(1).unwrap();
            reader.declare("fast", true).unwrap();
            reader.consume(1, "fast", false).unwrap();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                publisher.send(&publish(1, "fast", persistent, b"12345678")).unwrap();
                let Said::Delivery { tag, .. } = reader.listen().unwrap() else { panic!("no delivery") };
                assert_eq!(publisher.listen().unwrap(), Said::Ack(rounds.load(Ordering::Relaxed) + 1, false));
                reader.send(&ack(1, tag, false)).unwrap();
                assert!(began.elapsed() < Duration::from_secs(10), "others are held up: {:?}", began.elapsed());
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        // A panic here must not leave the others waiting.
        let flood = std::panic::catch_unwind(|| {
            publish_confirmed(&mut open(&broker), "slow", persistent, FLOOD_MESSAGES, LARGE_BYTES);
        });
        over.store(true, Ordering::Relaxed);
        flood.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let growth = largest.load(Ordering::Relaxed).saturating_sub(before);
    assert!(growth < GROWTH_MAX_BYTES, "memory grew by {} MiB", growth >> 20);
    assert!(rounds.load(Ordering::Relaxed) >= 20, "others got {} messages through", rounds.load(Ordering::Relaxed));
}

#[test]
fn a_consumer_that_does_not_read_holds_nobody_up() {
    others_go_on_beside(Stuck::UnreadNoAck, false);
}

#[test]
fn a_consumer_that_neither_reads_nor_acks_holds_nobody_up() {
    others_go_on_beside(Stuck::Unread, true);
}

#[test]
fn a_consumer_that_never_acks_holds_nobody_up() {
    others_go_on_beside(Stuck::NeverAcks, false);
}

#[test]
fn stuck_consumers_keep_no_more_of_their_queue_than_their_buffers_hold() {
    const STUCK: usize = 8;
    const MESSAGES: u64 = 4096;
    let broker = start();
    let mut wire = open(&broker);
    wire.declare("shared", false).unwrap();
    let stuck: Vec<Wire> = (0..STUCK)
        .map(|_| {
            let mut wire = open(&broker);
            wire.consume(1, "shared", true).unwrap();
            wire
        })
        .collect();
    wire.consume(1, "shared", true).unwrap();
    let publisher = thread::spawn({
        let mut publisher = open(&broker);
        move || publish_confirmed(&mut publisher, "shared", false, MESSAGES, LARGE_BYTES)
    });
    // Each of the others has a socket buffer or two and half a MiB here: 16 MiB are more than that.
    let mut last = 0;
    for _ in 0..MESSAGES - (STUCK * 16 * MIB / LARGE_BYTES) as u64 {
        let Said::Delivery { body, .. } = wire.listen().unwrap() else { panic!("no delivery") };
        assert!(number(&body) > last, "out of order");
        last = number(&body);
    }
    publisher.join().unwrap();
    drop(stuck);
}

#[test]
fn channels_of_a_connection_share_it() {
    const BIG: u64 = 60;
    const SMALL: u64 = 500;
    let broker = start();
    let mut wire = open(&broker);
    wire.declare("big", false).unwrap();
    wire.declare("small", false).unwrap();
    let mut publisher = open(&broker);
    publish_confirmed(&mut publisher, "big", false, BIG, MIB);
    wire.consume(1, "big", true).unwrap();
    wire.open_channel(2).unwrap();
    wire.consume(2, "small", true).unwrap();
    let publishing = thread::spawn(move || {
        let mut publisher = publisher;
        for sent in 1..=SMALL {
            publisher.send(&publish(1, "small", false, &body(sent, 100))).unwrap();
        }
        publisher
    });
    // A client that reads slowly: what it is owed fills all buffers on the way.
    let (mut big, mut small, mut big_before_last_small) = (0, 0, 0);
    while big < BIG || small < SMALL {
        let Said::Delivery { channel, consumer, body, .. } = wire.listen().unwrap() else { panic!("no delivery") };
        match (channel, &*consumer) {
            (1, "big") => {
                big += 1;
                assert_eq!((number(&body), body.len()), (big, MIB));
                thread::sleep(Duration::from_millis(20));
            }
            (2, "small") => {
                small += 1;
                assert_eq!((number(&body), body.len()), (small, 100));
                big_before_last_small = big;
            }
            other => panic!("{other:?}"),
        }
    }
    publishing.join().unwrap();
    // Sockets hold some MiB; behind them both have the same claim.
    assert!(big_before_last_small < BIG / 2, "{big_before_last_small} of {BIG} large messages came first");
}

#[test]
fn consumers_of_several_channels_and_connections_get_the_same() {
    const MESSAGES: u64 = 4000;
    let broker = start();
    let mut consumers = [open(&broker), open(&broker)];
    consumers[0].declare("q", false).unwrap();
    for consumer in &mut consumers {
        consumer.open_channel(2).unwrap();
        for channel in [1, 2] {
            consumer.prefetch(channel, 10).unwrap();
            consumer.consume(channel, "q", false).unwrap();
        }
    }
    let counts: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    let count = || counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    thread::scope(|scope| {
        for (number, consumer) in consumers.iter_mut().enumerate() {
            let (counts, count) = (&counts, &count);
            scope.spawn(move || {
                let give_up = Instant::now() + PATIENCE;
                while count() < MESSAGES && Instant::now() < give_up {
                    let Some(said) = consumer.listen_for(Duration::from_millis(100)).unwrap() else { continue };
                    let Said::Delivery { channel, tag, .. } = said else { panic!("{said:?}") };
                    counts[number * 2 + usize::from(channel) - 1].fetch_add(1, Ordering::Relaxed);
                    consumer.send(&ack(channel, tag, false)).unwrap();
                }
            });
        }
        publish_confirmed(&mut open(&broker), "q", false, MESSAGES, 100);
    });
    let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(counts.iter().sum::<u64>(), MESSAGES);
    assert!(counts.iter().all(|&count| count > MESSAGES / 8), "not the same for all: {counts:?}");
}

#[test]
fn a_connection_that_publishes_more_than_the_store_takes_has_its_acks_read() {
    const MESSAGES: u64 = 1000;
    let broker = start();
    let mut wire = open(&broker);
    wire.declare("q", true).unwrap();
    wire.prefetch(1, 1).unwrap();
    wire.consume(1, "q", false).unwrap();
    // It publishes as fast as the socket takes it, without confirms: the acks stand in line behind.
    let mut pipe = wire.sender().unwrap();
    let (acks, to_ack) = std::sync::mpsc::channel::<u64>();
    let publishing = thread::spawn(move || {
        for sent in 1..=MESSAGES {
            pipe.write_all(&publish(1, "q", true, &body(sent, LARGE_BYTES))).unwrap();
            for tag in to_ack.try_iter() {
                pipe.write_all(&ack(1, tag, false)).unwrap();
            }
        }
        for tag in to_ack {
            pipe.write_all(&ack(1, tag, false)).unwrap();
        }
    });
    for expected in 1..=MESSAGES {
        let Said::Delivery { tag, body, .. } = wire.listen().unwrap() else { panic!("no delivery") };
        assert_eq!(number(&body), expected);
        acks.send(tag).unwrap();
    }
    drop(acks);
    publishing.join().unwrap();
}

#[test]
fn a_client_that_reads_only_when_it_has_written_everything_gets_to_write_it() {
    for no_ack in [true, false] {
        const MESSAGES: u64 = 800;
        let broker = start();
        let mut wire = open(&broker);
        wire.declare("q", true).unwrap();
        wire.consume(1, "q", no_ack).unwrap();
        for sent in 1..=MESSAGES {
            wire.send(&publish(1, "q", true, &body(sent, LARGE_BYTES))).unwrap();
        }
        for expected in 1..=MESSAGES {
            let Said::Delivery { body, .. } = wire.listen().unwrap() else { panic!("no delivery") };
            assert_eq!(number(&body), expected);
        }
    }
}

/// The acknowledgement makes room for a delivery, and the close comes before that is made.
#[test]
fn what_an_ack_lets_through_to_a_channel_that_closes_goes_back() {
    const MESSAGES: usize = 5;
    let broker = start();
    let mut publisher = Wire::open(broker.amqp_port()).unwrap();
    for round in 0..20 {
        let mut consumer = Wire::open(broker.amqp_port()).unwrap();
        let (queue, channel) = (format!("q{round}"), 2);
        publisher.declare(&queue, false).unwrap();
        for _ in 0..MESSAGES {
            publisher.send(&publish(1, &queue, false, b"m")).unwrap();
        }
        publisher.declare(&queue, false).unwrap();
        consumer.open_channel(channel).unwrap();
        consumer.prefetch(channel, 2).unwrap();
        consumer.consume(channel, &queue, false).unwrap();
        let Said::Delivery { tag, .. } = consumer.find(|said| matches!(said, Said::Delivery { .. })).unwrap() else {
            unreachable!()
        };
        let close = method(channel, (20, 40), &[0, 200, 0, 0, 0, 0, 0]);
        consumer.send(&[ack(channel, tag, false), close].concat()).unwrap();
        // Answered after the close.
        consumer.declare(&queue, false).unwrap();
        let mut left = 0;
        while publisher.get(&queue).unwrap().is_some() {
            left += 1;
        }
        assert_eq!(left, MESSAGES - 1, "round {round}");
    }
}
