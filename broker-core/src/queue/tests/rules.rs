//! What arguments and policies ask of a queue: priorities, times to live, limits, dead letters; the whole against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::arguments::Overflow;
use crate::properties::{self, flag};

/// A message that says its number, with priority and expiration.
fn numbered(number: u64, priority: Option<u8>, expiration_ms: Option<u64>) -> Message {
    let mut header = vec![0; 14];
    header[4..12].copy_from_slice(&8_u64.to_be_bytes());
    let (priority, expiration) = (priority.map(|priority| [priority]), expiration_ms.map(|ms| ms.to_string()));
    let changes = [
        (flag::PRIORITY, priority.as_ref().map(|priority| &priority[..])),
        (flag::EXPIRATION, expiration.as_ref().map(|text| text.as_bytes())),
    ];
    let header = properties::changed(&header, &changes).unwrap();
    Message::new(b"\0\x01q", &header, &number.to_be_bytes(), true, &mut Vec::new()).unwrap()
}

fn with_rules(rules: Rules) -> Queue {
    Queue::new(true, Arc::new(rules), NOW)
}

fn send(queue: &mut Queue, now_ms: u64, messages: &[Message]) -> Out {
    let mut out = Out::default();
    let publishes = messages.iter().map(|m| Publish { channel: CHANNEL, publish_seq: number(m), content: content(m) });
    queue.publish(now_ms, publishes, &mut out);
    out
}

fn step(queue: &mut Queue, now_ms: u64, input: Input) -> Out {
    let mut out = Out::default();
    queue.step(now_ms, input, &mut out);
    out
}

/// Numbers of letters: tag, reason, number.
fn letters(out: &Out) -> Vec<(u64, Reason, u64)> {
    let letter = |output: &Output| match output {
        Output::DeadLetter { queue_tag, reason, message } => Some((*queue_tag, *reason, number(message))),
        _ => None,
    };
    out.outputs.iter().filter_map(letter).collect()
}

fn refused(out: &Out) -> Vec<u64> {
    let range = |output: &Output| match output {
        Output::Refuse { first, last, .. } => Some(*first..=*last),
        _ => None,
    };
    out.outputs.iter().filter_map(range).flatten().collect()
}

/// What a new consumer gets.
fn drain(queue: &mut Queue, now_ms: u64) -> Vec<u64> {
    let out = step(queue, now_ms, consumer(99, 0));
    out.delivered().iter().map(|(_, number, _)| *number).collect()
}

#[test]
fn higher_priorities_come_first_and_keep_their_order_through_a_requeue() {
    let mut queue = with_rules(Rules { lanes: Lanes { highest: 2 }, ..Rules::default() });
    let priorities = [None, Some(2), Some(0), Some(9), Some(1), Some(2)];
    let messages: Vec<Message> = (1..).zip(priorities).map(|(n, priority)| numbered(n, priority, None)).collect();
    send(&mut queue, NOW, &messages);
    let out = step(&mut queue, NOW, consumer(1, 3));
    assert_eq!(out.delivered(), [(1, 2, false), (1, 4, false), (1, 6, false)]);
    step(&mut queue, NOW, Input::Cancel(key(1)));
    step(&mut queue, NOW, Input::Settle { first: 2, last: 2, outcome: Outcome::Requeue });
    assert_eq!(drain(&mut queue, NOW), [4, 5, 1, 3]);
}

#[test]
fn what_is_over_is_dropped_at_the_head_only_and_never_delivered() {
    let mut queue = with_rules(Rules { message_ttl_ms: Some(100), ..Rules::default() });
    send(&mut queue, NOW, &[numbered(1, None, None), numbered(2, None, Some(10)), numbered(3, None, Some(500))]);
    assert_eq!(queue.next_timeout(), Some(NOW + 100));
    // The second is over, but behind the first.
    step(&mut queue, NOW + 50, Input::Time);
    assert_eq!((queue.ready_count(), queue.next_timeout()), (3, Some(NOW + 100)));
    send(&mut queue, NOW + 60, &[numbered(4, None, None)]);
    // 3 was given no longer than the queue allows.
    step(&mut queue, NOW + 100, Input::Time);
    assert_eq!((queue.ready_count(), queue.next_timeout()), (1, Some(NOW + 160)));
    assert_eq!(drain(&mut queue, NOW + 159), [4]);
    // Requeued, it keeps its time.
    step(&mut queue, NOW + 159, Input::Cancel(key(99)));
    step(&mut queue, NOW + 159, Input::Settle { first: 1, last: 1, outcome: Outcome::Requeue });
    assert_eq!((queue.ready_count(), queue.next_timeout()), (1, Some(NOW + 160)));
    assert_eq!(drain(&mut queue, NOW + 160), [0; 0]);
    assert_eq!((queue.ready_count(), queue.next_timeout()), (0, None));
}

#[test]
fn no_time_to_live_is_time_enough_for_a_waiting_consumer() {
    let mut queue = with_rules(Rules { message_ttl_ms: Some(0), ..Rules::default() });
    step(&mut queue, NOW, consumer(1, 1));
    let out = send(&mut queue, NOW, &[numbered(1, None, None), numbered(2, None, None)]);
    assert_eq!(out.delivered(), [(1, 1, false)]);
    assert_eq!(queue.ready_count(), 0);
}

#[test]
fn what_is_next_gives_way_the_highest_priority_first() {
    let mut queue = with_rules(Rules { max_length: Some(2), lanes: Lanes { highest: 1 }, ..Rules::default() });
    send(&mut queue, NOW, &[numbered(1, Some(1), None), numbered(2, None, None), numbered(3, None, None)]);
    assert_eq!(queue.ready_count(), 2);
    send(&mut queue, NOW, &[numbered(4, Some(1), None), numbered(5, None, None)]);
    assert_eq!(drain(&mut queue, NOW), [3, 5]);
    let mut queue = with_rules(Rules { max_length_bytes: Some(20), ..Rules::default() });
    send(&mut queue, NOW, &(1..6).map(|n| numbered(n, None, None)).collect::<Vec<_>>());
    assert_eq!(drain(&mut queue, NOW), [4, 5]);
}

/// As RabbitMQ says of them.
#[test]
fn what_is_too_much_and_over_is_too_much() {
    let rules = Rules { max_length: Some(1), has_dead_letters: true, ..Rules::default() };
    let mut queue = with_rules(rules);
    send(&mut queue, NOW, &[numbered(1, None, Some(10))]);
    let get = || Input::Get { channel: CHANNEL, no_ack: false };
    step(&mut queue, NOW, get());
    send(&mut queue, NOW, &[numbered(2, None, Some(10))]);
    step(&mut queue, NOW, get());
    send(&mut queue, NOW, &[numbered(3, None, None)]);
    let out = step(&mut queue, NOW + 20, Input::Settle { first: 1, last: 2, outcome: Outcome::Requeue });
    assert_eq!(letters(&out), [(3, Reason::MaxLength, 1), (4, Reason::MaxLength, 2)]);
    // With room for it, it is over.
    let mut queue = with_rules(Rules { max_length: Some(2), has_dead_letters: true, ..Rules::default() });
    send(&mut queue, NOW, &[numbered(1, None, Some(10))]);
    step(&mut queue, NOW, get());
    send(&mut queue, NOW, &[numbered(2, None, None)]);
    let out = step(&mut queue, NOW + 20, Input::Settle { first: 1, last: 1, outcome: Outcome::Requeue });
    assert_eq!(letters(&out), [(2, Reason::Expired, 1)]);
}

#[test]
fn a_full_queue_refuses_and_dead_letters_what_it_refuses_only_if_told_to() {
    for overflow in [Overflow::RejectPublish, Overflow::RejectPublishDlx] {
        let rules = Rules { max_length: Some(1), overflow, has_dead_letters: true, ..Rules::default() };
        let mut queue = with_rules(rules);
        let out = send(&mut queue, NOW, &[numbered(1, None, None), numbered(2, None, None), numbered(3, None, None)]);
        assert_eq!(refused(&out), [2, 3]);
        let expected: &[(u64, Reason, u64)] = match overflow {
            Overflow::RejectPublishDlx => &[(0, Reason::MaxLength, 2), (0, Reason::MaxLength, 3)],
            _ => &[],
        };
        assert_eq!(letters(&out), expected);
        assert_eq!(drain(&mut queue, NOW), [1]);
        // What is unacknowledged does not count.
        assert_eq!(refused(&send(&mut queue, NOW, &[numbered(4, None, None)])), [0; 0]);
    }
}

#[test]
fn a_message_leaves_only_when_its_letter_is_safe() {
    let rules = Rules { has_dead_letters: true, message_ttl_ms: Some(10), ..Rules::default() };
    let mut queue = with_rules(rules);
    send(&mut queue, NOW, &[numbered(1, None, None), numbered(2, None, None)]);
    let mut journal = Journal::default();
    queue.flush(&mut journal);
    let out = step(&mut queue, NOW + 10, Input::Time);
    assert_eq!(letters(&out), [(1, Reason::Expired, 1), (2, Reason::Expired, 2)]);
    assert_eq!((queue.ready_count(), queue.unacked_count()), (0, 0));
    queue.flush(&mut journal);
    assert_eq!(journal.stored.len(), 2);
    step(&mut queue, NOW + 10, Input::Settle { first: 1, last: 1, outcome: Outcome::Ack });
    queue.flush(&mut journal);
    assert_eq!(journal.stored.iter().copied().collect::<Vec<_>>(), [2]);
    // A purge does not reach what is on its way.
    step(&mut queue, NOW + 10, Input::Purge);
    step(&mut queue, NOW + 10, Input::Settle { first: 2, last: 2, outcome: Outcome::Ack });
    queue.flush(&mut journal);
    assert!(journal.stored.is_empty());
}

#[test]
fn letters_on_their_way_are_bounded() {
    let many = u64::from(upkeep::LETTERS_MAX) + 10;
    let mut queue = with_rules(Rules { has_dead_letters: true, message_ttl_ms: Some(10), ..Rules::default() });
    send(&mut queue, NOW, &(1..=many).map(|n| numbered(n, None, None)).collect::<Vec<_>>());
    let out = step(&mut queue, NOW + 10, Input::Time);
    assert_eq!(letters(&out).len() as u64, many - 10);
    // What is over waits, but is not delivered, and the clock is not asked in vain.
    assert_eq!((drain(&mut queue, NOW + 10), queue.next_timeout()), (Vec::new(), None));
    let out = step(&mut queue, NOW + 10, Input::Settle { first: 1, last: 4, outcome: Outcome::Ack });
    assert_eq!(letters(&out).len(), 4);
}

#[test]
fn a_get_that_waits_for_letters_is_answered_once_they_are_safe() {
    for left in [None, Some(2000)] {
        let mut queue = with_rules(Rules { message_ttl_ms: Some(10), has_dead_letters: true, ..Rules::default() });
        let messages: Vec<Message> = (1..=1500).map(|n| numbered(n, None, None)).collect();
        send(&mut queue, NOW, &messages);
        if let Some(number) = left {
            send(&mut queue, NOW + 5, &[numbered(number, None, None)]);
        }
        let out = step(&mut queue, NOW + 10, Input::Get { channel: CHANNEL, no_ack: true });
        assert_eq!(letters(&out).len(), 1024);
        assert!(!out.outputs.iter().any(|output| matches!(output, Output::GetOk { .. } | Output::GetEmpty(_))));
        let out = step(&mut queue, NOW + 12, Input::Settle { first: 1, last: 1024, outcome: Outcome::Ack });
        assert_eq!(letters(&out).len(), 1500 - 1024);
        let answers: Vec<Option<u64>> = out
            .outputs
            .iter()
            .filter_map(|output| match output {
                Output::GetOk { message, .. } => Some(Some(number(message))),
                Output::GetEmpty(_) => Some(None),
                _ => None,
            })
            .collect();
        assert_eq!(answers, [left]);
    }
}

#[test]
fn what_was_counted_of_purged_messages_is_forgotten_wherever_they_lay() {
    let mut subject = Subject::of(Rules { counts_deliveries: true, ..Rules::default() });
    for number in 1..=20 {
        let out = send(&mut subject.queue, NOW, &[numbered(number, None, None)]);
        subject.take(out);
        subject.step(Input::Get { channel: CHANNEL, no_ack: false });
    }
    subject.step(Input::Settle { first: 1, last: 20, outcome: Outcome::Requeue });
    subject.step(Input::Pressure(300));
    subject.answer_store();
    assert!(!subject.runs.is_empty());
    subject.step(Input::Get { channel: CHANNEL, no_ack: false });
    subject.step(Input::Purge);
    let watch = format!("{:?}", subject.queue.watch);
    assert!(watch.contains("returns: {1: 1}"), "only the one that is held is remembered: {watch}");
}

#[test]
fn rejected_messages_become_letters_and_rejections_are_counted_where_that_is_asked() {
    let rules = Rules { has_dead_letters: true, counts_deliveries: true, delivery_limit: Some(1), ..Rules::default() };
    let mut queue = with_rules(rules);
    send(&mut queue, NOW, &[numbered(1, None, None), numbered(2, None, None)]);
    let count = |message: &Message| {
        properties::headers(message.header()).lookup(b"x-delivery-count").and_then(|count| count.integer())
    };
    let out = step(&mut queue, NOW, consumer(1, 2));
    assert_eq!(out.delivered.iter().map(|one| count(&one.message)).collect::<Vec<_>>(), [None, None]);
    let out = step(&mut queue, NOW, Input::Settle { first: 1, last: 1, outcome: Outcome::Discard });
    assert_eq!(letters(&out), [(3, Reason::Rejected, 1)]);
    let out = step(&mut queue, NOW, Input::Settle { first: 2, last: 2, outcome: Outcome::Requeue });
    assert_eq!(out.delivered(), [(1, 2, true)]);
    assert_eq!(count(&out.delivered[0].message), Some(1));
    let again = out.delivered[0].queue_tag;
    // Given back without having reached the client, it counts for nothing.
    let out = step(&mut queue, NOW, Input::Settle { first: again, last: again, outcome: Outcome::Undelivered });
    let again = out.delivered[0].queue_tag;
    let out = step(&mut queue, NOW, Input::Settle { first: again, last: again, outcome: Outcome::Requeue });
    assert_eq!(letters(&out), [(again + 1, Reason::DeliveryLimit, 2)]);
    assert!(out.delivered.is_empty());
}

#[test]
fn the_single_active_consumer_gets_all_and_the_next_in_order_follows() {
    let mut queue = with_rules(Rules { single_active_consumer: true, ..Rules::default() });
    assert!(!queue.may_consume(true));
    for number in 1..4 {
        assert!(queue.may_consume(false));
        step(&mut queue, NOW, consumer(number, 2));
    }
    let out = send(&mut queue, NOW, &(1..5).map(|n| numbered(n, None, None)).collect::<Vec<_>>());
    assert_eq!(out.delivered(), [(1, 1, false), (1, 2, false)]);
    assert_eq!(queue.single_active_consumer(), Some(key(1)));
    // One that only waits makes no difference when it goes.
    step(&mut queue, NOW, Input::Cancel(key(2)));
    let out = step(&mut queue, NOW, Input::Cancel(key(1)));
    assert_eq!(out.delivered(), [(3, 3, false), (3, 4, false)]);
    assert_eq!(queue.single_active_consumer(), Some(key(3)));
}

#[test]
fn an_unused_queue_says_so_and_use_puts_it_off() {
    let unused = |out: &Out| out.outputs.iter().any(|output| matches!(output, Output::Unused));
    let mut queue = with_rules(Rules { expires_ms: Some(100), ..Rules::default() });
    assert_eq!(queue.next_timeout(), Some(NOW + 100));
    step(&mut queue, NOW + 50, Input::Get { channel: CHANNEL, no_ack: true });
    assert!(!unused(&step(&mut queue, NOW + 100, Input::Time)));
    step(&mut queue, NOW + 120, consumer(1, 1));
    assert_eq!(queue.next_timeout(), None);
    assert!(!unused(&step(&mut queue, NOW + 500, Input::Time)));
    step(&mut queue, NOW + 500, Input::Cancel(key(1)));
    step(&mut queue, NOW + 550, Input::Used);
    assert_eq!(queue.next_timeout(), Some(NOW + 650));
    assert!(unused(&step(&mut queue, NOW + 650, Input::Time)));
}

#[test]
fn new_rules_take_effect_at_once_and_removing_them_too() {
    let mut queue = with_rules(Rules::default());
    send(&mut queue, NOW, &(1..6).map(|n| numbered(n, None, None)).collect::<Vec<_>>());
    let limited = Rules { max_length: Some(3), overflow: Overflow::DropHead, ..Rules::default() };
    step(&mut queue, NOW, Input::Rules(Arc::new(limited.clone())));
    assert_eq!(queue.ready_count(), 3);
    let refusing = Rules { overflow: Overflow::RejectPublish, ..limited };
    step(&mut queue, NOW, Input::Rules(Arc::new(refusing)));
    assert_eq!(refused(&send(&mut queue, NOW, &[numbered(6, None, None)])), [6]);
    step(&mut queue, NOW, Input::Rules(Arc::default()));
    assert_eq!(refused(&send(&mut queue, NOW, &[numbered(7, None, None)])), [0; 0]);
    assert_eq!(drain(&mut queue, NOW), [3, 4, 5, 7]);
}

/// What a queue is by its rules, said plainly: ready messages by lane and number, with their times.
struct Naive {
    rules: Rules,
    now_ms: u64,
    ready: BTreeMap<(std::cmp::Reverse<u8>, u64), u64>,
    dead: Vec<(u64, Reason)>,
}

impl Naive {
    fn publish(&mut self, number: u64, lane: u8, expiration_ms: Option<u64>) -> bool {
        if self.rules.overflow != Overflow::DropHead && self.exceeds(self.ready.len() + 1) {
            return false;
        }
        let ttl = self.rules.message_ttl_ms.into_iter().chain(expiration_ms).min();
        self.ready.insert((std::cmp::Reverse(lane), number), ttl.map_or(u64::MAX, |ttl| self.now_ms + ttl));
        true
    }

    fn exceeds(&self, len: usize) -> bool {
        self.rules.max_length.is_some_and(|max| len as u64 > max)
            || self.rules.max_length_bytes.is_some_and(|max| len as u64 * 8 > max)
    }

    /// Where the oldest give way, those that are next go; then heads that are over.
    fn tend(&mut self) {
        while self.rules.overflow == Overflow::DropHead && self.exceeds(self.ready.len()) {
            let Some((key, _)) = self.ready.pop_first() else { break };
            self.dead.push((key.1, Reason::MaxLength));
        }
        for lane in (0..=self.rules.lanes.highest).map(std::cmp::Reverse) {
            while let Some((&key, &expires)) = self.ready.range((lane, 0)..=(lane, u64::MAX)).next()
                && expires <= self.now_ms
            {
                self.ready.remove(&key);
                self.dead.push((key.1, Reason::Expired));
            }
        }
    }
}

/// The queue under test with the store beside it, and what it has been seen to do.
struct Subject {
    queue: Queue,
    now_ms: u64,
    runs: BTreeMap<u64, Vec<StoredEntry>>,
    pages: Vec<(u64, Vec<StoredEntry>)>,
    loads: Vec<(RunId, Seq)>,
    letters: Vec<u64>,
    dead: Vec<(u64, Reason)>,
    /// What the client holds: queue tag, number.
    held: Vec<(u64, u64)>,
    got: Vec<u64>,
    refused: Vec<u64>,
    confirmed: Vec<u64>,
    journal: Journal,
}

impl Subject {
    fn of(rules: Rules) -> Subject {
        Subject {
            queue: with_rules(rules),
            now_ms: NOW,
            runs: BTreeMap::new(),
            pages: Vec::new(),
            loads: Vec::new(),
            letters: Vec::new(),
            dead: Vec::new(),
            held: Vec::new(),
            got: Vec::new(),
            refused: Vec::new(),
            confirmed: Vec::new(),
            journal: Journal::default(),
        }
    }

    fn take(&mut self, out: Out) {
        for one in out.delivered {
            self.got.push(number(&one.message));
            self.held.push((one.queue_tag, number(&one.message)));
        }
        for output in out.outputs {
            match output {
                Output::DeadLetter { queue_tag, reason, message } => {
                    self.letters.push(queue_tag);
                    self.dead.push((number(&message), reason));
                }
                Output::Refuse { first, last, .. } => self.refused.extend(first..=last),
                Output::Confirm { first, last, .. } => self.confirmed.extend(first..=last),
                Output::Page { ticket, entries, .. } => {
                    assert!(entries.iter().all(|entry| entry.lane == entries[0].lane), "a page of several lanes");
                    self.pages.push((ticket, entries.to_vec()));
                }
                Output::Load { run, from, .. } => self.loads.push((run, from)),
                Output::Forget { first, last } => {
                    for run in self.runs.values_mut().chain(self.pages.iter_mut().map(|(_, entries)| entries)) {
                        run.retain(|entry| entry.seq < first || entry.seq > last);
                    }
                }
                Output::GetOk { queue_tag, message, .. } => {
                    self.got.push(number(&message));
                    self.held.push((queue_tag, number(&message)));
                }
                Output::GetEmpty(_)
                | Output::NeedsFlush
                | Output::LastConsumerGone
                | Output::NothingToPage(_)
                | Output::Purged(_) => {}
                Output::Unused => panic!("no such rule"),
            }
        }
    }

    fn step(&mut self, input: Input) {
        let out = step(&mut self.queue, self.now_ms, input);
        self.take(out);
    }

    /// Lets the store do all it was asked.
    fn answer_store(&mut self) {
        while !(self.pages.is_empty() && self.loads.is_empty()) {
            if !self.pages.is_empty() {
                let (ticket, entries) = self.pages.remove(0);
                let run = RunId(self.runs.len() as u64 + 1);
                let stretches = match (entries.first(), entries.last()) {
                    (Some(first), Some(last)) => vec![Stretch { run, first: first.seq, last: last.seq }],
                    _ => Vec::new(),
                };
                self.runs.insert(run.0, entries);
                self.step(Input::Paged { ticket, stretches });
            }
            if !self.loads.is_empty() {
                let (run, from) = self.loads.remove(0);
                let mut entries: Vec<StoredEntry> =
                    self.runs[&run.0].iter().filter(|entry| entry.seq >= from).cloned().collect();
                let next = entries.get(2).map(|entry| entry.seq);
                entries.truncate(2);
                self.step(Input::Loaded { run, from, entries, next, lost: Vec::new() });
            }
        }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let maybe = |range: std::ops::Range<u64>| prop::option::of(range);
    (maybe(0..40), maybe(0..20), maybe(0..200), 0_u8..3, any::<bool>(), 0_u8..4).prop_map(
        |(message_ttl_ms, max_length, max_length_bytes, overflow, has_dead_letters, highest)| Rules {
            message_ttl_ms,
            max_length,
            max_length_bytes,
            overflow: [Overflow::DropHead, Overflow::RejectPublish, Overflow::RejectPublishDlx][usize::from(overflow)],
            has_dead_letters,
            lanes: Lanes { highest },
            ..Rules::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Publishes, gets, rejections, time and changed rules: the same messages are there, come out, die and are refused as in the model.
    #[test]
    fn a_queue_does_what_its_rules_say(
        first in rules(),
        steps in prop::collection::vec((0_u8..10, 0_u64..30, rules()), 1..150),
        resident in 300_usize..3000,
    ) {
        let lanes = first.lanes;
        let mut naive =
            Naive { rules: first.clone(), now_ms: NOW, ready: BTreeMap::new(), dead: Vec::new() };
        let mut subject = Subject::of(first);
        subject.step(Input::Pressure(resident));
        let mut published = 0;
        let (mut refused, mut got) = (Vec::new(), Vec::new());
        // Letters of messages that are not in the queue any more.
        let (mut letters_of_refused, mut rejected) = (Vec::new(), Vec::new());
        for (kind, a, rules) in steps {
            match kind {
                0..=2 => {
                    published += 1;
                    let (priority, expiration) = ((a % 5) as u8, (a % 3 == 0).then_some(a * 2));
                    let message = numbered(published, Some(priority), expiration);
                    let out = send(&mut subject.queue, subject.now_ms, &[message]);
                    subject.take(out);
                    if !naive.publish(published, priority.min(lanes.highest), expiration) {
                        refused.push(published);
                        if naive.rules.overflow == Overflow::RejectPublishDlx && naive.rules.has_dead_letters {
                            letters_of_refused.push((published, Reason::MaxLength));
                        }
                    }
                }
                3 => {
                    naive.now_ms += a;
                    subject.now_ms += a;
                    subject.step(Input::Time);
                }
                4 => {
                    naive.tend();
                    if let Some((key, _)) = naive.ready.pop_first() {
                        got.push(key.1);
                    }
                    subject.step(Input::Get { channel: CHANNEL, no_ack: false });
                }
                5 => {
                    if let Some((tag, number)) = subject.held.pop() {
                        if naive.rules.has_dead_letters {
                            rejected.push((number, Reason::Rejected));
                        }
                        subject.step(Input::Settle { first: tag, last: tag, outcome: Outcome::Discard });
                    }
                }
                6 => {
                    for tag in std::mem::take(&mut subject.letters).into_iter().filter(|tag| *tag != 0) {
                        subject.step(Input::Settle { first: tag, last: tag, outcome: Outcome::Ack });
                    }
                }
                9 if a < 4 => {
                    naive.ready.clear();
                    subject.step(Input::Purge);
                }
                7 if a < 4 => {
                    naive.rules = Rules { lanes, ..rules };
                    subject.step(Input::Rules(Arc::new(naive.rules.clone())));
                }
                _ => {
                    let seq = subject.queue.flush(&mut subject.journal);
                    subject.step(Input::Stored(seq));
                }
            }
            subject.answer_store();
            // What comes to the head when others give way may be over.
            for _ in 0..2 {
                naive.tend();
            }
            while subject.queue.next_timeout().is_some_and(|at_ms| at_ms <= subject.now_ms) {
                subject.step(Input::Time);
                subject.answer_store();
            }
            prop_assert_eq!(subject.queue.ready_count(), naive.ready.len() as u64);
            prop_assert_eq!(subject.queue.unacked_count(), subject.held.len() as u64);
            prop_assert_eq!(&subject.got, &got);
            prop_assert_eq!(&subject.refused, &refused);
        }
        // With a dead letter exchange now and then, what died under one is there; what died is dead whether or not it left a letter.
        // Of a message that is over and too much at once either may be said.
        let said = |&(number, reason): &(u64, Reason)| (number, reason == Reason::Rejected);
        let expected: BTreeSet<_> =
            naive.dead.iter().chain(&letters_of_refused).chain(&rejected).map(said).collect();
        for dead in &subject.dead {
            prop_assert!(expected.contains(&said(dead)), "{:?} did not die", dead);
        }
        let held: Vec<u64> = subject.held.iter().map(|(tag, _)| *tag).collect();
        for tag in held.into_iter().chain(std::mem::take(&mut subject.letters)).filter(|tag| *tag != 0) {
            subject.step(Input::Settle { first: tag, last: tag, outcome: Outcome::Ack });
            subject.answer_store();
        }
        subject.step(Input::Rules(Arc::new(Rules { lanes, ..Rules::default() })));
        subject.step(Input::Pressure(RESIDENT_MAX_BYTES));
        subject.answer_store();
        subject.step(Input::Purge);
        let seq = subject.queue.flush(&mut subject.journal);
        subject.step(Input::Stored(seq));
        prop_assert!(subject.journal.stored.is_empty(), "left in the journal: {:?}", subject.journal.stored);
        prop_assert_eq!(subject.queue.resident_bytes(), 0);
        // Every publish was answered once.
        let mut answered: Vec<u64> = subject.confirmed.iter().chain(&subject.refused).copied().collect();
        answered.sort_unstable();
        prop_assert_eq!(answered, (1..=published).collect::<Vec<_>>());
    }
}

/// A message with a delay.
fn delayed(number: u64, delay_ms: i32) -> Message {
    let table = crate::field_table::TableBuilder::default().with("x-delay", crate::field_table::Value::Int32(delay_ms));
    let plain = numbered(number, None, None);
    let header = properties::changed(plain.header(), &[(flag::HEADERS, Some(table.octets()))]).unwrap();
    let header = properties::changed(&header, &[(flag::DELIVERY_MODE, Some(&[2]))]).unwrap();
    Message::new(plain.route(), &header, &number.to_be_bytes(), true, &mut Vec::new()).unwrap()
}

#[test]
fn what_is_held_back_goes_on_when_it_is_due_and_in_that_order() {
    let mut subject = Subject::of(Rules::holding_back());
    // Hardly anything stays in memory.
    subject.step(Input::Pressure(300));
    let delays = [50, 20, 90, 20, 10, 70];
    for (number, delay) in (1..).zip(delays) {
        let out = send(&mut subject.queue, subject.now_ms, &[delayed(number, delay)]);
        subject.take(out);
        subject.answer_store();
    }
    assert_eq!((subject.queue.ready_count(), subject.queue.unacked_count()), (0, 0));
    assert_eq!(subject.queue.next_timeout(), Some(NOW + 10));
    let seq = subject.queue.flush(&mut subject.journal);
    subject.step(Input::Stored(seq));
    assert_eq!(subject.confirmed, [1, 2, 3, 4, 5, 6]);
    assert_eq!(subject.journal.stored.len(), 6);
    for (passed, expected) in [(9, vec![]), (10, vec![5]), (20, vec![5, 2, 4]), (100, vec![5, 2, 4, 1, 6, 3])] {
        subject.now_ms = NOW + passed;
        subject.step(Input::Time);
        subject.answer_store();
        let gone: Vec<u64> = subject.dead.iter().map(|(number, _)| *number).collect();
        // Those read from the disk come in the order in which they lie there.
        let sorted = |mut numbers: Vec<u64>| {
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(sorted(gone), sorted(expected), "after {passed} ms");
    }
    for tag in std::mem::take(&mut subject.letters) {
        subject.step(Input::Settle { first: tag, last: tag, outcome: Outcome::Ack });
    }
    subject.queue.flush(&mut subject.journal);
    assert!(subject.journal.stored.is_empty());
    assert_eq!((subject.queue.resident_bytes(), subject.queue.next_timeout()), (0, None));
}

#[test]
fn sizes_guessed_at_start_are_put_right_as_messages_are_read() {
    for (guessed, limit) in [(1_000_000, 1_000), (0, 1_000), (160, 100)] {
        let rules = Rules { max_length_bytes: Some(limit), overflow: Overflow::RejectPublish, ..Rules::default() };
        let stored = |number| {
            let message = numbered(number, None, None);
            StoredEntry { seq: number, redelivered: false, persistent: true, lane: 0, expires_ms: 0, message }
        };
        let stretch = Stretch { run: RunId(1), first: 1, last: 20 };
        let lanes = vec![RecoveredLane { lane: 0, messages: 20, stretches: vec![stretch] }];
        let recovered = Recovered { next_seq: 21, lanes, body_bytes: guessed, ..Recovered::default() };
        let mut subject = Subject::of(rules.clone());
        subject.queue = Queue::recovered(true, Arc::new(rules), NOW, recovered);
        subject.runs.insert(1, (1..=20).map(stored).collect());
        // All but the last are taken, so that the queue is never empty, and put back.
        for _ in 1..20 {
            subject.step(Input::Get { channel: CHANNEL, no_ack: false });
            subject.answer_store();
        }
        subject.step(Input::Settle { first: 1, last: 19, outcome: Outcome::Requeue });
        assert_eq!((subject.queue.ready_count(), subject.queue.ready.body_bytes()), (20, 20 * 8));
        let out = send(&mut subject.queue, NOW, &[numbered(21, None, None)]);
        assert_eq!(refused(&out).is_empty(), limit == 1_000, "{guessed} octets guessed, {limit} allowed");
    }
}

#[test]
fn what_was_held_back_before_a_restart_is_held_back_after_it() {
    let entries: Vec<StoredEntry> = (1..=3)
        .map(|number| {
            let (message, expires_ms) = (delayed(number, 50), NOW + 100 * (4 - number));
            StoredEntry { seq: number, redelivered: true, persistent: true, lane: 0, expires_ms, message }
        })
        .collect();
    let stretch = Stretch { run: RunId(1), first: 1, last: 3 };
    let lanes = vec![RecoveredLane { lane: 0, messages: 3, stretches: vec![stretch] }];
    let redelivered = Ranges::from_to(1, 3);
    let recovered =
        Recovered { next_seq: 4, lanes, redelivered, body_bytes: 24, expires: true, ..Recovered::default() };
    let mut subject = Subject::of(Rules::holding_back());
    subject.queue = Queue::recovered(true, Arc::new(Rules::holding_back()), NOW, recovered);
    subject.runs.insert(1, entries);
    subject.step(Input::Time);
    subject.answer_store();
    assert_eq!((subject.queue.next_timeout(), subject.queue.unacked_count()), (Some(NOW + 100), 0));
    for (passed, number) in [(100, 3), (200, 2), (300, 1)] {
        subject.now_ms = NOW + passed;
        subject.step(Input::Time);
        subject.answer_store();
        assert_eq!(subject.dead.last(), Some(&(number, Reason::Due)));
    }
    assert_eq!(subject.dead.len(), 3);
}
