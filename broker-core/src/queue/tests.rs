//! The queue against a model, with a store that answers late and in batches.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::message::{Message, Passing};
use crate::store::{Ranges, RunId};

mod rules;

const CHANNEL: ChannelKey = ChannelKey { connection: 1, channel: 1 };
/// The time at which nothing is to do with time.
const NOW: u64 = 1_000_000;

fn queue(durable: bool) -> Queue {
    Queue::new(durable, Arc::default(), NOW)
}

fn message(number: u64, persistent: bool, size: usize) -> Message {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(size.max(8), 0);
    Message::new(b"\0\x01q", &[0; 14], &body, persistent, &mut Vec::new()).unwrap()
}

fn number(message: &Message) -> u64 {
    let body: Vec<u8> = message.body().flatten().copied().collect();
    u64::from_be_bytes(body[..8].try_into().unwrap())
}

fn key(consumer: u32) -> ConsumerKey {
    ConsumerKey { channel: CHANNEL, consumer }
}

fn consumer(number: u32, prefetch: u16) -> Input {
    Input::Consume(ConsumerSettings {
        key: key(number),
        no_ack: false,
        exclusive: false,
        prefetch,
        priority: 0,
        room_bytes: CONSUMER_ROOM_BYTES,
        limit: None,
    })
}

/// All that comes of a step.
#[derive(Debug, Default)]
struct Out {
    delivered: Vec<Delivered>,
    outputs: Vec<Output>,
}

#[derive(Debug)]
struct Delivered {
    consumer: u32,
    queue_tag: u64,
    redelivered: bool,
    message: Message,
}

impl Outlet for Out {
    fn deliver(&mut self, delivery: Delivery<'_>) {
        let Delivery { key, queue_tag, redelivered, content } = delivery;
        let message = content.keep();
        assert_eq!(content.memory(), message.memory());
        self.delivered.push(Delivered { consumer: key.consumer, queue_tag, redelivered, message });
    }
    fn outputs(&mut self) -> &mut Vec<Output> {
        &mut self.outputs
    }
}

impl Out {
    fn delivered(&self) -> Vec<(u32, u64, bool)> {
        self.delivered.iter().map(|one| (one.consumer, number(&one.message), one.redelivered)).collect()
    }

    fn clear(&mut self) {
        *self = Out::default();
    }
}

/// A message as it comes from a client: half of them still in the buffer they were read into.
fn content(message: &Message) -> Content<'_> {
    if number(message).is_multiple_of(2) {
        return Content::Kept(message);
    }
    Content::Passing(Passing {
        route: message.route(),
        header: message.header(),
        body: message.inline_body().unwrap(),
        persistent: message.persistent(),
        shared: None,
    })
}

fn publish(queue: &mut Queue, numbers: std::ops::Range<u64>, persistent: bool) -> Out {
    let mut out = Out::default();
    let messages: Vec<Message> = numbers.map(|n| message(n, persistent, 8)).collect();
    let publishes = messages.iter().map(|m| Publish { channel: CHANNEL, publish_seq: number(m), content: content(m) });
    queue.publish(NOW, publishes, &mut out);
    out
}

#[derive(Default)]
struct Journal {
    stored: BTreeSet<Seq>,
    written: usize,
}

impl JournalSink for Journal {
    fn enqueue(&mut self, seq: Seq, _: u64, _: &Message) {
        self.written += 1;
        assert!(self.stored.insert(seq), "{seq} stored twice");
    }
    fn settle(&mut self, first: Seq, last: Seq) {
        self.stored.retain(|&seq| seq < first || seq > last);
    }
    fn delivered(&mut self, _: Seq, _: Seq) {}
}

#[test]
fn a_large_message_held_after_another_that_was_settled_on_its_way_to_the_store() {
    let mut queue = queue(true);
    let mut out = Out::default();
    queue.step(NOW, Input::Pressure(64 * 1024), &mut out);
    for (number, size) in [(1, 1_000_000), (2, 1_200_000)] {
        let large = message(number, true, size);
        let publish = Publish { channel: CHANNEL, publish_seq: 0, content: Content::Kept(&large) };
        queue.step(NOW, Input::Get { channel: CHANNEL, no_ack: false }, &mut out);
        queue.publish(NOW, std::iter::once(publish), &mut out);
        queue.step(NOW, Input::Get { channel: CHANNEL, no_ack: false }, &mut out);
        // The first is settled while its page-out is under way.
        if number == 1 {
            queue.step(NOW, Input::Settle { first: 1, last: 1, outcome: Outcome::Ack }, &mut out);
        }
    }
    let pages = out.outputs.iter().filter(|output| matches!(output, Output::Page { .. })).count();
    assert_eq!((pages, queue.unacked_count()), (2, 1));
}

#[test]
fn consumers_take_turns_and_stop_at_their_prefetch() {
    let mut queue = queue(false);
    let mut out = Out::default();
    queue.step(NOW, consumer(1, 2), &mut out);
    queue.step(NOW, consumer(2, 1), &mut out);
    let out = publish(&mut queue, 1..6, false);
    assert_eq!(out.delivered(), [(1, 1, false), (2, 2, false), (1, 3, false)]);
    assert_eq!((queue.ready_count(), queue.unacked_count()), (2, 3));
    let mut out = Out::default();
    queue.step(NOW, Input::Settle { first: 2, last: 2, outcome: Outcome::Ack }, &mut out);
    assert_eq!(out.delivered(), [(2, 4, false)]);
}

#[test]
fn higher_priority_gets_all_while_it_has_room() {
    let mut queue = queue(false);
    let mut out = Out::default();
    for (number, priority) in [(1, -1), (2, 5), (3, 5)] {
        let settings = ConsumerSettings {
            key: key(number),
            no_ack: false,
            exclusive: false,
            prefetch: 2,
            priority,
            room_bytes: CONSUMER_ROOM_BYTES,
            limit: None,
        };
        queue.step(NOW, Input::Consume(settings), &mut out);
    }
    let out = publish(&mut queue, 1..7, false);
    assert_eq!(out.delivered().iter().map(|(consumer, ..)| *consumer).collect::<Vec<_>>(), [2, 3, 2, 3, 1, 1]);
    let mut out = Out::default();
    publish(&mut queue, 7..8, false);
    queue.step(NOW, Input::Settle { first: 1, last: 1, outcome: Outcome::Ack }, &mut out);
    assert_eq!(out.delivered(), [(2, 7, false)]);
}

#[test]
fn requeued_messages_go_back_to_their_places_and_are_marked() {
    let mut queue = queue(false);
    publish(&mut queue, 1..6, false);
    let mut out = Out::default();
    queue.step(NOW, consumer(1, 3), &mut out);
    queue.step(NOW, Input::Cancel(key(1)), &mut out);
    assert!(matches!(out.outputs.last(), Some(Output::LastConsumerGone)));
    queue.step(NOW, Input::Settle { first: 2, last: 3, outcome: Outcome::Requeue }, &mut out);
    queue.step(NOW, Input::Settle { first: 1, last: 1, outcome: Outcome::Requeue }, &mut out);
    out.clear();
    queue.step(NOW, consumer(2, 0), &mut out);
    assert_eq!(out.delivered(), [(2, 1, true), (2, 2, true), (2, 3, true), (2, 4, false), (2, 5, false)]);
}

#[test]
fn what_is_consumed_before_the_flush_is_never_stored_but_confirmed_in_order() {
    let mut queue = queue(true);
    let mut out = Out::default();
    queue.step(NOW, consumer(1, 0), &mut out);
    let out = publish(&mut queue, 1..4, true);
    assert!(out.outputs.iter().any(|output| matches!(output, Output::NeedsFlush)));
    assert!(!out.outputs.iter().any(|output| matches!(output, Output::Confirm { .. })));
    let mut out = Out::default();
    queue.step(NOW, Input::Settle { first: 1, last: 2, outcome: Outcome::Ack }, &mut out);
    let mut journal = Journal::default();
    let seq = queue.flush(&mut journal);
    assert_eq!((journal.written, seq), (1, 3));
    publish(&mut queue, 4..5, true);
    out.clear();
    queue.step(NOW, Input::Stored(seq), &mut out);
    assert!(matches!(out.outputs[..], [Output::Confirm { first: 1, last: 3, .. }]));
}

#[test]
fn a_message_taken_without_acknowledgement_is_confirmed_at_once() {
    let mut queue = queue(true);
    let mut out = Out::default();
    queue.step(
        NOW,
        Input::Consume(ConsumerSettings {
            key: key(1),
            no_ack: true,
            exclusive: false,
            prefetch: 0,
            priority: 0,
            room_bytes: CONSUMER_ROOM_BYTES,
            limit: None,
        }),
        &mut out,
    );
    let out = publish(&mut queue, 1..4, true);
    assert!(out.outputs.iter().any(|output| matches!(output, Output::Confirm { first: 1, last: 3, .. })));
    assert!(!queue.confirms.needs_flush());
}

#[test]
fn a_channel_limit_is_shared_and_exact() {
    let limit = Arc::new(ChannelLimit::new(3));
    let mut queue = queue(false);
    let mut out = Out::default();
    for number in 1..3 {
        queue.step(
            NOW,
            Input::Consume(ConsumerSettings {
                key: key(number),
                no_ack: false,
                exclusive: false,
                prefetch: 0,
                priority: 0,
                room_bytes: CONSUMER_ROOM_BYTES,
                limit: Some(limit.clone()),
            }),
            &mut out,
        );
    }
    assert_eq!(publish(&mut queue, 1..10, false).delivered.len(), 3);
    queue.step(NOW, Input::Settle { first: 1, last: 1, outcome: Outcome::Ack }, &mut out);
    limit.add(1);
    out.clear();
    queue.step(NOW, Input::LimitRoom(key(2)), &mut out);
    assert_eq!(out.delivered().len(), 1);
}

/// A queue with a store beside it that answers when told to.
struct World {
    queue: Queue,
    runs: BTreeMap<u64, Vec<StoredEntry>>,
    pages: Vec<(u64, Vec<StoredEntry>)>,
    loads: Vec<(RunId, Seq, usize)>,
    journal: Journal,
    flushed: Option<Seq>,
    /// What a client holds: queue tag -> number.
    held: BTreeMap<u64, u64>,
    /// Numbers the queue must hold as ready, and whether they were delivered before.
    ready: BTreeMap<u64, bool>,
    confirmed: BTreeSet<u64>,
    next: u64,
    next_run: u64,
    consuming: bool,
    /// Gets that are not answered yet.
    gets: usize,
}

impl World {
    fn new() -> Self {
        World {
            queue: queue(true),
            runs: BTreeMap::new(),
            pages: Vec::new(),
            loads: Vec::new(),
            journal: Journal::default(),
            flushed: None,
            held: BTreeMap::new(),
            ready: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            next: 1,
            next_run: 1,
            consuming: false,
            gets: 0,
        }
    }

    fn step(&mut self, input: Input) {
        self.gets += usize::from(matches!(input, Input::Get { .. }));
        let mut out = Out::default();
        self.queue.step(NOW, input, &mut out);
        self.take(out);
    }

    fn given(&mut self, queue_tag: u64, redelivered: bool, message: &Message) {
        let number = number(message);
        assert_eq!(self.ready.keys().next(), Some(&number), "out of order");
        assert_eq!(self.ready.remove(&number), Some(redelivered));
        assert!(self.held.insert(queue_tag, number).is_none());
    }

    fn take(&mut self, out: Out) {
        // A step answers gets before it delivers.
        let (gets, others): (Vec<Output>, Vec<Output>) =
            out.outputs.into_iter().partition(|output| matches!(output, Output::GetOk { .. }));
        for output in gets {
            if let Output::GetOk { queue_tag, redelivered, message, .. } = output {
                self.gets -= 1;
                self.given(queue_tag, redelivered, &message);
            }
        }
        for Delivered { queue_tag, redelivered, message, .. } in out.delivered {
            self.given(queue_tag, redelivered, &message);
        }
        for output in others {
            match output {
                Output::GetOk { .. } => {}
                Output::GetEmpty(_) => {
                    // Those that wait for the disk have a message each coming.
                    self.gets -= 1;
                    assert!(self.ready.len() <= self.gets);
                }
                Output::Confirm { first, last, .. } => {
                    (first..=last).for_each(|n| assert!(self.confirmed.insert(n), "confirmed twice"))
                }
                Output::Purged(count) => {
                    assert_eq!(count, self.ready.len() as u64);
                    self.ready.clear();
                }
                Output::Page { ticket, entries, .. } => {
                    assert!(!entries.is_empty());
                    self.pages.push((ticket, entries.to_vec()));
                }
                Output::Load { run, from, max_bytes } => self.loads.push((run, from, max_bytes)),
                Output::Forget { first, last } => {
                    for run in self.runs.values_mut().chain(self.pages.iter_mut().map(|(_, entries)| entries)) {
                        run.retain(|entry| entry.seq < first || entry.seq > last);
                    }
                }
                Output::NeedsFlush | Output::LastConsumerGone | Output::NothingToPage(_) => {}
                Output::Refuse { .. } | Output::DeadLetter { .. } | Output::Unused => unreachable!("{output:?}"),
            }
        }
    }

    fn answer_store(&mut self) {
        if let Some((ticket, entries)) = (!self.pages.is_empty()).then(|| self.pages.remove(0)) {
            // A page may come to lie in several runs, or be settled as a whole meanwhile.
            let mut stretches = Vec::new();
            for part in entries.chunks(entries.len() / 2 + 1) {
                let run = RunId(self.next_run);
                self.next_run += 1;
                stretches.push(Stretch { run, first: part[0].seq, last: part[part.len() - 1].seq });
                self.runs.insert(run.0, part.to_vec());
            }
            self.step(Input::Paged { ticket, stretches });
        }
        if let Some((run, from, max_bytes)) = (!self.loads.is_empty()).then(|| self.loads.remove(0)) {
            let mut entries: Vec<StoredEntry> =
                self.runs[&run.0].iter().filter(|entry| entry.seq >= from).cloned().collect();
            let fits = (max_bytes / 200).clamp(1, 3).min(entries.len());
            let next = entries.get(fits).map(|entry| entry.seq);
            entries.truncate(fits);
            self.step(Input::Loaded { run, from, entries, next, lost: Vec::new() });
        }
    }

    fn settle(&mut self, at: usize, count: usize, outcome: Outcome) {
        let Some(first) = self.held.keys().nth(at % self.held.len().max(1)).copied() else { return };
        let last = first + count as u64;
        let tags: Vec<u64> = self.held.range(first..=last).map(|(&tag, _)| tag).collect();
        for tag in tags {
            let number = self.held.remove(&tag).unwrap();
            if outcome == Outcome::Requeue {
                self.ready.insert(number, true);
            }
        }
        self.step(Input::Settle { first, last, outcome });
    }
}

#[test]
fn what_a_consumer_never_acknowledges_leaves_memory_and_comes_back() {
    let mut world = World::new();
    world.step(Input::Pressure(4000));
    world.step(consumer(7, 0));
    for first in (1..5000).step_by(10) {
        world.ready.extend((first..first + 10).map(|number| (number, false)));
        let out = publish(&mut world.queue, first..first + 10, first % 20 == 1);
        world.take(out);
        world.next = first + 10;
        while !(world.pages.is_empty() && world.loads.is_empty()) {
            world.answer_store();
        }
        world.step(Input::Room { key: key(7), bytes: CONSUMER_ROOM_BYTES });
        assert!(world.queue.resident_bytes() <= 2 * 4000, "{} octets after {first}", world.queue.resident_bytes());
    }
    assert_eq!(world.held.len(), 5000);
    // Every second one goes back: from the disk, in order, marked.
    let tags: Vec<u64> = world.held.keys().copied().step_by(2).collect();
    world.step(Input::Cancel(key(7)));
    for tag in tags {
        let number = world.held.remove(&tag).unwrap();
        world.ready.insert(number, true);
        world.step(Input::Settle { first: tag, last: tag, outcome: Outcome::Requeue });
    }
    assert_eq!(world.queue.ready_count(), 2500);
    world.step(consumer(8, 0));
    while !(world.pages.is_empty() && world.loads.is_empty()) {
        world.answer_store();
        world.step(Input::Room { key: key(8), bytes: CONSUMER_ROOM_BYTES });
    }
    assert_eq!((world.ready.len(), world.held.len()), (0, 5000));
}

#[test]
fn whatever_settles_a_stored_message_asks_for_a_flush() {
    let mut queue = queue(true);
    let no_ack = |prefetch| {
        let settings = ConsumerSettings {
            key: key(1),
            no_ack: true,
            exclusive: false,
            prefetch,
            priority: 0,
            room_bytes: CONSUMER_ROOM_BYTES,
            limit: None,
        };
        Input::Consume(settings)
    };
    publish(&mut queue, 1..4, true);
    let mut out = Out::default();
    queue.flush(&mut Journal::default());
    queue.step(NOW, no_ack(0), &mut out);
    assert!(
        out.outputs.iter().any(|output| matches!(output, Output::NeedsFlush)),
        "consumed by a new consumer: {out:?}"
    );
    queue.step(NOW, Input::Cancel(key(1)), &mut out);
    queue.flush(&mut Journal::default());
    publish(&mut queue, 4..6, true);
    queue.flush(&mut Journal::default());
    out.clear();
    queue.step(NOW, Input::Get { channel: CHANNEL, no_ack: true }, &mut out);
    assert!(out.outputs.iter().any(|output| matches!(output, Output::NeedsFlush)), "taken by a get: {out:?}");
}

#[test]
fn damaged_messages_are_left_out_and_counted_off() {
    let stretch = Stretch { run: RunId(1), first: 1, last: 3 };
    let lanes = vec![RecoveredLane { lane: 0, messages: 3, stretches: vec![stretch] }];
    let redelivered = Ranges::from_to(0, 9);
    let recovered = Recovered { next_seq: 4, lanes, redelivered, body_bytes: 24, ..Recovered::default() };
    let mut queue = Queue::recovered(true, Arc::default(), NOW, recovered);
    let mut out = Out::default();
    queue.step(NOW, consumer(1, 0), &mut out);
    assert!(matches!(out.outputs[..], [Output::Load { run: RunId(1), from: 1, .. }]));
    let entry = |seq| {
        let message = message(seq, true, 8);
        StoredEntry { seq, redelivered: false, persistent: true, lane: 0, expires_ms: 0, message }
    };
    out.clear();
    queue.step(
        NOW,
        Input::Loaded { run: RunId(1), from: 1, entries: vec![entry(1), entry(3)], next: None, lost: vec![(2, 2)] },
        &mut out,
    );
    assert_eq!(out.delivered(), [(1, 1, true), (1, 3, true)]);
    assert!(matches!(out.outputs[0], Output::Forget { first: 2, last: 2 }));
    assert_eq!((queue.ready_count(), queue.unacked_count()), (0, 2));
}

#[test]
fn what_clients_had_of_an_earlier_start_is_not_what_they_have_now() {
    let recovered = Recovered { first_tag: 1 << 20, ..Recovered::default() };
    let mut queue = Queue::recovered(true, Arc::default(), NOW, recovered);
    let mut out = Out::default();
    queue.step(NOW, consumer(1, 0), &mut out);
    publish(&mut queue, 1..3, true);
    assert_eq!(queue.unacked_count(), 2);
    // The first delivery of the earlier start had this number.
    queue.step(NOW, Input::Settle { first: 1, last: 2, outcome: Outcome::Ack }, &mut out);
    assert_eq!(queue.unacked_count(), 2);
    let first = 1 << 20;
    queue.step(NOW, Input::Settle { first, last: first + 1, outcome: Outcome::Ack }, &mut out);
    assert_eq!(queue.unacked_count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in prop::collection::vec((0_u8..13, 0_usize..40, 0_usize..8), 1..250), resident in 300_usize..3000) {
        let mut world = World::new();
        world.step(Input::Pressure(resident));
        for (kind, a, b) in steps {
            match kind {
                0..=3 => {
                    let persistent = b % 2 == 0;
                    let first = world.next;
                    world.next += a as u64 + 1;
                    world.ready.extend((first..world.next).map(|number| (number, false)));
                    let out = publish(&mut world.queue, first..world.next, persistent);
                    world.take(out);
                }
                4 => world.settle(a, b, Outcome::Ack),
                5 => world.settle(a, b, Outcome::Requeue),
                6 | 7 => world.answer_store(),
                8 => {
                    if world.consuming { world.step(Input::Cancel(key(7))) } else { world.step(consumer(7, b as u16 + 1)) }
                    world.consuming = !world.consuming;
                }
                9 => world.step(Input::Get { channel: CHANNEL, no_ack: false }),
                10 => match world.flushed.take() {
                    Some(seq) => world.step(Input::Stored(seq)),
                    None => world.flushed = Some(world.queue.flush(&mut world.journal)),
                },
                11 if b == 0 => world.step(Input::Purge),
                _ if b < 3 => world.step(Input::PageThrough(a as u64 * 4)),
                _ => world.step(Input::Room { key: key(7), bytes: 1000 }),
            }
            prop_assert_eq!(world.queue.ready_count(), world.ready.len() as u64);
            prop_assert_eq!(world.queue.unacked_count(), world.held.len() as u64);
        }
        // Everything comes out in the end, and every publish is confirmed once.
        if !world.consuming {
            world.step(consumer(7, 0));
        }
        for _ in 0..10_000 {
            if world.ready.is_empty() { break; }
            world.answer_store();
            world.step(Input::Room { key: key(7), bytes: CONSUMER_ROOM_BYTES });
            world.settle(0, 1000, Outcome::Ack);
        }
        prop_assert!(world.ready.is_empty(), "stuck with {:?}", world.ready);
        while !world.held.is_empty() { world.settle(0, 100_000, Outcome::Ack); }
        if let Some(seq) = world.flushed.take() { world.step(Input::Stored(seq)); }
        let seq = world.queue.flush(&mut world.journal);
        world.step(Input::Stored(seq));
        prop_assert_eq!(world.confirmed.len() as u64, world.next - 1);
        prop_assert!(world.journal.stored.is_empty(), "settled messages left in the journal: {:?}", world.journal.stored);
        prop_assert_eq!(world.queue.resident_bytes(), 0);
    }
}

#[test]
fn an_idle_queue_is_small() {
    // With what the driver keeps for it, it fits into 384 octets, which allocators have a size for.
    assert!(size_of::<Queue>() <= 352, "{}", size_of::<Queue>());
}
