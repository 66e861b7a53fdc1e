//! Both ends of a link: what is said, cut, damaged and made up.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod client;
mod fuzzed;

use broker_amqp::content::without_bcc;
use broker_amqp::frame;
use broker_amqp::link::{CREDIT_BYTES, Got, Link, LinkError, Op, TallyOf};
use broker_core::message::{Content, INLINE_BODY_MAX_BYTES, Message};
use broker_core::queue::{ChannelKey, ConsumerKey, Delivery, Outcome, Publish};
use broker_core::store::QueueId;
use bytes::Bytes;
use fuzzed::links::{drain, shown, shown_content};
use proptest::prelude::*;

const MESSAGE_MAX: u64 = 1024 * 1024;

/// What is said, with the message in memory of its own.
#[derive(Clone, Debug)]
enum Word {
    Publish(Vec<u64>, u64, Message),
    Deliver(u64, bool, Message),
    Got(u64, bool, Message),
    Small(u8, u64, bool),
}

/// Where deliveries come from.
const FROM: QueueId = QueueId(7);
const CHANNEL: ChannelKey = ChannelKey { connection: 0x0102_0304_0506_0708, channel: 0x090a };
const CONSUMER: ConsumerKey = ConsumerKey { channel: CHANNEL, consumer: 0x0b0c_0d0e };

fn small(which: u8, number: u64, flag: bool) -> Op<'static> {
    let queue = QueueId(number);
    let (first, last) = (number / 2, number);
    match which % 20 {
        0 => Op::Consume {
            request: !number,
            queue,
            key: CONSUMER,
            no_ack: flag,
            exclusive: !flag,
            prefetch: number as u16,
            priority: -(number as i64 / 2),
            room_bytes: number as i64 / 2,
        },
        1 => Op::Cancel { queue, key: CONSUMER },
        2 => Op::Settle { queue, first, last, outcome: if flag { Outcome::Ack } else { Outcome::Requeue } },
        3 => Op::Settle { queue, first, last, outcome: if flag { Outcome::Undelivered } else { Outcome::Discard } },
        4 => Op::Room { queue, key: CONSUMER, bytes: number as i64 / 2 },
        5 => Op::Get { queue, channel: CHANNEL, no_ack: flag },
        6 => Op::Purge { request: !number, queue },
        7 => Op::Count { request: !number, queue },
        8 => Op::GotNothing { queue, channel: CHANNEL },
        9 => Op::Confirmed { channel: CHANNEL, first, last },
        10 => Op::Refused { channel: CHANNEL, first, last },
        11 => Op::Answer { request: number, messages: !number, consumers: number / 3 },
        12 => Op::Refusal { request: number, code: 403, text: "ACCESS_REFUSED - queue 'ö' in exclusive use" },
        13 => Op::Applied { index: number },
        14 => Op::Announce { request: number, octets: b"\x0a\x02ab" },
        15 => {
            let (of, name) = if flag { (TallyOf::User, "ü") } else { (TallyOf::Vhost, "") };
            Op::Tally { of, name, connections: number, channels: !number }
        }
        16 => Op::Kept { vhost: if flag { "/" } else { "" }, exchange: "x ö" },
        17 => Op::Reply { address: if flag { b"amq.rabbitmq.reply-to.x" } else { b"" } },
        18 => Op::Requester { request: number, address: b"amq.rabbitmq.reply-to.x" },
        _ => Op::Answer { request: 0, messages: 0, consumers: u64::MAX },
    }
}

impl Word {
    fn say(&self, link: &mut Link) {
        match self {
            Word::Publish(queues, publish_seq, message) => {
                let queues: Vec<QueueId> = queues.iter().copied().map(QueueId).collect();
                let content = Content::Kept(message);
                link.publish(&queues, &Publish { channel: CHANNEL, publish_seq: *publish_seq, content });
            }
            Word::Deliver(queue_tag, redelivered, message) => {
                let content = Content::Kept(message);
                let delivery = Delivery { key: CONSUMER, queue_tag: *queue_tag, redelivered: *redelivered, content };
                link.deliver(FROM, &delivery);
            }
            Word::Got(queue_tag, redelivered, message) => link.got(&Got {
                queue: FROM,
                channel: CHANNEL,
                queue_tag: *queue_tag,
                redelivered: *redelivered,
                remaining: !queue_tag,
                content: Content::Kept(message),
            }),
            Word::Small(which, number, flag) => link.say(&small(*which, *number, *flag)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Word::Publish(queues, publish_seq, message) => {
                let queues: Vec<QueueId> = queues.iter().copied().map(QueueId).collect();
                format!("publish {queues:?} {CHANNEL:?} {publish_seq} {}", shown_content(&Content::Kept(message)))
            }
            Word::Deliver(queue_tag, redelivered, message) => {
                format!(
                    "deliver {FROM:?} {CONSUMER:?} {queue_tag} {redelivered} {}",
                    shown_content(&Content::Kept(message))
                )
            }
            Word::Got(tag, redelivered, message) => {
                format!(
                    "got {FROM:?} {CHANNEL:?} {tag} {redelivered} {} {}",
                    !tag,
                    shown_content(&Content::Kept(message))
                )
            }
            Word::Small(which, number, flag) => shown(&small(*which, *number, *flag)),
        }
    }
}

fn header(body: usize, properties: &[u8]) -> Vec<u8> {
    [&[0, 60, 0, 0][..], &(body as u64).to_be_bytes(), properties].concat()
}

/// Small and large ones, in one piece and in several, with and without hidden keys.
fn message() -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        3 => 0_usize..200,
        1 => INLINE_BODY_MAX_BYTES - 2..INLINE_BODY_MAX_BYTES + 2,
        1 => 100_000_usize..300_000,
    ];
    (body, any::<bool>(), any::<bool>(), 1_usize..300_000).prop_map(|(len, persistent, bcc, piece)| {
        let octets: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
        let bcc_table = b"\0\0\0\x18\x03BCCA\0\0\0\x0f\x53\0\0\0\x04one!S\0\0\0\x01b";
        let properties = if bcc { [&[0x20, 0][..], bcc_table].concat() } else { vec![0x10, 0, 1] };
        let (route, header) = (b"\x01x\x03key", header(len, &properties));
        let message = if len > INLINE_BODY_MAX_BYTES {
            let pieces = octets.chunks(piece.max(1000)).map(Bytes::copy_from_slice).collect();
            Message::with_chunks(route, &header, pieces, persistent).unwrap()
        } else {
            Message::new(route, &header, &octets, persistent, &mut Vec::new()).unwrap()
        };
        if bcc { without_bcc(&message).unwrap() } else { message }
    })
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        2 => (prop::collection::vec(any::<u64>(), 1..4), any::<u64>(), message())
            .prop_map(|(queues, seq, message)| Word::Publish(queues, seq, message)),
        2 => (any::<u64>(), any::<bool>(), message()).prop_map(|(tag, flag, message)| Word::Deliver(tag, flag, message)),
        1 => (any::<u64>(), any::<bool>(), message()).prop_map(|(tag, flag, message)| Word::Got(tag, flag, message)),
        3 => (any::<u8>(), any::<u64>(), any::<bool>()).prop_map(|(which, number, flag)| Word::Small(which, number, flag)),
    ]
}

/// What the other end understands of octets that come in pieces of these sizes.
fn understood(octets: &[u8], steps: &[usize]) -> Result<Vec<String>, LinkError> {
    let mut link = Link::new(MESSAGE_MAX);
    let (mut rest, mut words) = (octets, Vec::new());
    for &step in steps.iter().cycle() {
        let (now, later) = rest.split_at(step.clamp(1, rest.len().max(1)).min(rest.len()));
        link.receive(now, &mut |op| words.extend(shown(&op).lines().map(String::from)))?;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    Ok(words)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_understood_however_it_is_cut(
        words in prop::collection::vec(word(), 1..12), steps in prop::collection::vec(1_usize..200_000, 1..6), small_steps in any::<bool>(),
    ) {
        let mut link = Link::new(MESSAGE_MAX);
        for word in &words {
            word.say(&mut link);
        }
        let octets = drain(&mut link);
        let steps: Vec<usize> = steps.iter().map(|step| if small_steps { step % 300 + 1 } else { *step }).collect();
        let expected: Vec<String> = words.iter().map(Word::shown).collect();
        prop_assert_eq!(understood(&octets, &steps).unwrap(), expected);
    }

    #[test]
    fn damaged_octets_are_an_error_or_something_else_and_hold_no_more_than_came(
        words in prop::collection::vec(word(), 1..6), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), step in 1_usize..70_000,
    ) {
        let mut said = Link::new(MESSAGE_MAX);
        for word in &words {
            word.say(&mut said);
        }
        let mut octets = drain(&mut said);
        for (place, octet) in damage {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        let mut link = Link::new(MESSAGE_MAX);
        let mut came = 0;
        for piece in octets.chunks(step) {
            came += piece.len();
            if link.receive(piece, &mut |op| drop(shown(&op))).is_err() {
                break;
            }
            prop_assert!(link.held_bytes() <= came);
        }
    }

    #[test]
    fn any_octets(octets in prop::collection::vec(any::<u8>(), 0..400), class in any::<bool>(), step in 1_usize..50) {
        let mut octets = octets;
        if class && octets.len() > 11 {
            octets[..5].copy_from_slice(&[1, 0, 0, 0, 0]);
            octets[5] = 0;
            octets[6] = (octets.len() - 8) as u8;
            let method = 10 + octets[11] % 32;
            octets[7..11].copy_from_slice(&[0, 200, 0, method]);
            *octets.last_mut().unwrap() = frame::END;
        }
        let mut link = Link::new(MESSAGE_MAX);
        for piece in octets.chunks(step) {
            if link.receive(piece, &mut |op| drop(shown(&op))).is_err() {
                break;
            }
        }
    }
}

fn plain(len: usize) -> Message {
    let body = Bytes::from(vec![7; len]);
    match len <= INLINE_BODY_MAX_BYTES {
        true => Message::new(b"\0\x01q", &header(len, &[0, 0]), &body, false, &mut Vec::new()).unwrap(),
        false => Message::with_chunks(b"\0\x01q", &header(len, &[0, 0]), vec![body], false).unwrap(),
    }
}

#[test]
fn a_sender_out_of_credit_waits_until_its_messages_are_taken() {
    let (mut here, mut there) = (Link::new(MESSAGE_MAX), Link::new(MESSAGE_MAX));
    let message = plain(100_000);
    let each = Content::Kept(&message).memory();
    let mut sent = 0;
    let send = |here: &mut Link, sent: &mut usize| {
        while here.may_publish() {
            *sent += 1;
            let publish = Publish { channel: CHANNEL, publish_seq: *sent as u64, content: Content::Kept(&message) };
            here.publish(&[QueueId(1)], &publish);
        }
    };
    send(&mut here, &mut sent);
    assert_eq!(sent, CREDIT_BYTES as usize / each + 1);
    let mut arrived = 0;
    there.receive(&drain(&mut here), &mut |_| arrived += 1).unwrap();
    assert_eq!(arrived, sent);
    // Nothing is taken yet, and nothing is said.
    assert!(there.send_buffer().is_empty() && !here.may_publish());
    there.taken(each);
    assert!(there.send_buffer().is_empty());
    for _ in 0..6 {
        there.taken(each);
    }
    here.receive(&drain(&mut there), &mut |op| panic!("{op:?}")).unwrap();
    let before = sent;
    send(&mut here, &mut sent);
    assert!((5..=7).contains(&(sent - before)), "{} more", sent - before);
    there.receive(&drain(&mut here), &mut |_| {}).unwrap();
    // Whoever sends in spite of that is not listened to.
    let publish = Publish { channel: CHANNEL, publish_seq: 1, content: Content::Kept(&message) };
    here.publish(&[QueueId(1)], &publish);
    assert_eq!(there.receive(&drain(&mut here), &mut |_| {}), Err(LinkError::Overrun));
}

#[test]
fn for_very_many_queues_a_message_is_sent_several_times() {
    let (mut here, mut there) = (Link::new(MESSAGE_MAX), Link::new(MESSAGE_MAX));
    let queues: Vec<QueueId> = (0..10_000).map(QueueId).collect();
    let message = plain(3);
    here.publish(&queues, &Publish { channel: CHANNEL, publish_seq: 1, content: Content::Kept(&message) });
    let mut arrived = Vec::new();
    there
        .receive(&drain(&mut here), &mut |op| match op {
            Op::Publish { queues, .. } => arrived.extend(queues.iter()),
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert_eq!(arrived, queues);
}

#[test]
fn what_is_wrong_is_named() {
    let said = |octets: &[u8]| Link::new(1000).receive(octets, &mut |_| {}).unwrap_err();
    let method = |class: u8, id: u8, fields: &[u8]| {
        let mut out = Vec::new();
        frame::write(&mut out, frame::METHOD, 0, |out| {
            out.extend_from_slice(&[0, class, 0, id]);
            out.extend_from_slice(fields);
        });
        out
    };
    assert_eq!(said(&method(60, 40, &[])), LinkError::Unknown { class: 60, method: 40 });
    assert_eq!(said(&method(200, 99, &[])), LinkError::Unknown { class: 200, method: 99 });
    assert_eq!(said(&method(200, 41, &[0; 7])), LinkError::Malformed("a method is cut short"));
    assert_eq!(said(&method(200, 41, &[0; 9])), LinkError::Malformed("a method is longer than it should be"));
    assert_eq!(said(&[1, 0, 1, 0, 0, 0, 4, 0]), LinkError::Malformed("a frame is not on channel 0"));
    assert_eq!(said(&[1, 0, 0, 255, 0, 0, 4]), LinkError::Malformed("a frame is too long"));
    let mut link = Link::new(2000);
    let message = plain(1500);
    link.publish(&[QueueId(1)], &Publish { channel: CHANNEL, publish_seq: 1, content: Content::Kept(&message) });
    assert_eq!(said(&drain(&mut link)), LinkError::TooLarge { size: 1500, max: 1000 });
    // A body in crumbs would cost many times its size.
    let mut crumbs = method(200, 10, &[&[0, 1][..], &[0; 8], &[0; 18], &[0, 0, 1, b'q']].concat());
    frame::write(&mut crumbs, frame::HEADER, 0, |out| out.extend_from_slice(&header(900, &[0, 0])));
    frame::write(&mut crumbs, frame::BODY, 0, |out| out.push(1));
    assert_eq!(said(&crumbs), LinkError::Malformed("a body comes in pieces that are too small"));
}

#[test]
fn publishes_to_the_same_queues_come_together_and_in_order() {
    let (mut here, mut there) = (Link::new(MESSAGE_MAX), Link::new(MESSAGE_MAX));
    let message = plain(3);
    let queue_of = |number: u64| QueueId(1 + u64::from((40..50).contains(&number)));
    for number in 0..100 {
        let publish = Publish { channel: CHANNEL, publish_seq: number, content: Content::Kept(&message) };
        here.publish(&[queue_of(number)], &publish);
        if number == 60 {
            here.say(&Op::Applied { index: 7 });
        }
    }
    let octets = drain(&mut here);
    // However the octets are cut, nothing is missing and nothing overtakes anything.
    for step in [octets.len(), 1, 700] {
        let mut runs: Vec<Vec<u64>> = Vec::new();
        for piece in octets.chunks(step) {
            there
                .receive(piece, &mut |op| match op {
                    Op::Publish { queues, publishes } => {
                        runs.push(publishes.iter().map(|publish| publish.publish_seq).collect());
                        for publish in publishes {
                            assert_eq!(queues.iter().collect::<Vec<_>>(), [queue_of(publish.publish_seq)]);
                        }
                    }
                    Op::Applied { index: 7 } => runs.push(Vec::new()),
                    other => panic!("{other:?}"),
                })
                .unwrap();
        }
        assert_eq!(runs.concat(), (0..100).collect::<Vec<u64>>());
        let before: usize = runs.iter().take_while(|run| !run.is_empty()).map(Vec::len).sum();
        assert_eq!(before, 61);
        if step == octets.len() {
            let lengths: Vec<usize> = runs.iter().map(Vec::len).collect();
            assert_eq!(lengths, [32, 8, 10, 11, 0, 32, 7]);
        }
    }
}

#[test]
fn settles_of_the_same_kind_one_after_the_other_are_said_together() {
    let (mut here, mut there) = (Link::new(MESSAGE_MAX), Link::new(MESSAGE_MAX));
    let settle = |queue, first, last, outcome| Op::Settle { queue: QueueId(queue), first, last, outcome };
    for tag in 1..=10 {
        here.say(&settle(1, tag, tag, Outcome::Ack));
    }
    here.say(&settle(1, 12, 13, Outcome::Ack));
    here.say(&settle(1, 14, 14, Outcome::Requeue));
    here.say(&settle(2, 15, 15, Outcome::Requeue));
    here.say(&Op::Cancel { queue: QueueId(2), key: CONSUMER });
    here.say(&settle(2, 16, u64::MAX, Outcome::Requeue));
    here.say(&settle(2, 0, 1, Outcome::Requeue));
    let mut heard = Vec::new();
    there
        .receive(&drain(&mut here), &mut |op| match op {
            Op::Settle { queue, first, last, outcome } => heard.push(Some((queue.0, first, last, outcome))),
            Op::Cancel { .. } => heard.push(None),
            other => panic!("{other:?}"),
        })
        .unwrap();
    let expected = [
        Some((1, 1, 10, Outcome::Ack)),
        Some((1, 12, 13, Outcome::Ack)),
        Some((1, 14, 14, Outcome::Requeue)),
        Some((2, 15, 15, Outcome::Requeue)),
        None,
        Some((2, 16, u64::MAX, Outcome::Requeue)),
        Some((2, 0, 1, Outcome::Requeue)),
    ];
    assert_eq!(heard, expected);
    assert!(drain(&mut here).is_empty());
}
