//! The consumers of a queue: round-robin over those that have room.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{HELD, LETTER, NO_CONSUMER};
use super::seldom::{AtFirst, Seldom};
use super::{ChannelLimit, ConsumerKey, ConsumerSettings};

#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// In the order they were added. Their numbers are never used again, for unacked messages name them.
    consumers: VecDeque<Consumer>,
    next_number: u64,
    turns: Turns,
    /// Only the one that came first gets anything.
    single_active: bool,
}

/// Numbers of consumers that may be given a message, in the order of their turns, for each priority; the highest first.
#[derive(Debug, Default)]
struct Turns(Vec<(i64, VecDeque<u64>)>);

#[derive(Debug)]
struct Consumer {
    number: u64,
    settings: ConsumerSettings,
    unacked: u32,
    room_bytes: i64,
    in_turns: bool,
    /// It gets nothing before those that came earlier are gone.
    waits: bool,
}

/// The consumer that gets the next message.
pub(super) struct Next {
    pub(super) key: ConsumerKey,
    pub(super) number: u64,
    pub(super) no_ack: bool,
}

impl AtFirst for Consumers {
    fn at_first() -> &'static Self {
        static NONE: Consumers =
            Consumers { consumers: VecDeque::new(), next_number: 0, turns: Turns(Vec::new()), single_active: false };
        &NONE
    }
}

impl Consumers {
    pub(super) fn new(single_active: bool) -> Seldom<Self> {
        if single_active { Consumers { single_active, ..Consumers::default() }.into() } else { Seldom::default() }
    }

    pub(super) fn may_add(&self, exclusive: bool) -> bool {
        if self.single_active {
            return !exclusive;
        }
        // An exclusive one is alone.
        self.consumers.front().is_none_or(|first| !(exclusive || first.settings.exclusive))
    }

    pub(super) fn add(&mut self, settings: ConsumerSettings) {
        self.next_number += 1;
        let number = self.next_number;
        let room_bytes = settings.room_bytes;
        let mut consumer = Consumer { number, settings, unacked: 0, room_bytes, in_turns: false, waits: false };
        consumer.waits = self.single_active && !self.consumers.is_empty();
        take_turn(&mut consumer, &mut self.turns);
        self.consumers.push_back(consumer);
    }

    /// Whether there was such a consumer.
    pub(super) fn remove(&mut self, key: ConsumerKey) -> bool {
        let Some(at) = self.position(key) else { return false };
        let Some(gone) = self.consumers.remove(at) else { return false };
        if gone.in_turns {
            self.turns.remove(gone.settings.priority, gone.number);
        }
        if self.single_active && self.consumers.iter().all(|consumer| consumer.waits) {
            // The highest priority, and of several the one that came first.
            let next = self.consumers.iter_mut().rev().max_by_key(|consumer| consumer.settings.priority);
            if let Some(next) = next {
                next.waits = false;
                take_turn(next, &mut self.turns);
            }
        }
        true
    }

    /// The one that gets everything, where that is one.
    pub(super) fn active(&self) -> Option<ConsumerKey> {
        let active = self.consumers.iter().find(|consumer| !consumer.waits);
        active.filter(|_| self.single_active).map(|consumer| consumer.settings.key)
    }

    /// Takes the next turn for a message of this size, if any consumer has room.
    pub(super) fn next(&mut self, bytes: i64) -> Option<Next> {
        while let Some(turns) = self.turns.highest() {
            let Some(&number) = turns.front() else { break };
            let Some(consumer) = find(&mut self.consumers, number) else {
                turns.pop_front();
                continue;
            };
            let limited =
                !consumer.settings.no_ack && consumer.settings.limit.as_ref().is_some_and(|limit| !limit.try_take());
            if limited {
                consumer.in_turns = false;
                turns.pop_front();
                continue;
            }
            let next = Next { key: consumer.settings.key, number, no_ack: consumer.settings.no_ack };
            consumer.room_bytes -= bytes;
            if !next.no_ack {
                consumer.unacked += 1;
            }
            if !consumer.has_room() {
                consumer.in_turns = false;
                turns.pop_front();
            } else if turns.len() > 1 {
                turns.rotate_left(1);
            }
            return Some(next);
        }
        None
    }

    pub(super) fn any_ready(&self) -> bool {
        self.turns.0.iter().any(|(_, turns)| !turns.is_empty())
    }

    /// So many deliveries of the consumer with this number were settled.
    pub(super) fn settled(&mut self, number: u64, count: u32) {
        if matches!(number, NO_CONSUMER | LETTER | HELD) {
            return;
        }
        if let Some(consumer) = find(&mut self.consumers, number) {
            consumer.unacked = consumer.unacked.saturating_sub(count);
            take_turn(consumer, &mut self.turns);
        }
    }

    /// Returns whether the consumer may be given messages now and could not before.
    pub(super) fn give_room(&mut self, key: ConsumerKey, bytes: i64) -> bool {
        let Some(at) = self.position(key) else { return false };
        let consumer = &mut self.consumers[at];
        consumer.room_bytes = (consumer.room_bytes + bytes).min(consumer.settings.room_bytes);
        take_turn(consumer, &mut self.turns)
    }

    pub(super) fn set_limit(&mut self, key: ConsumerKey, limit: Arc<ChannelLimit>) {
        if let Some(at) = self.position(key) {
            self.consumers[at].settings.limit = Some(limit);
        }
    }

    pub(super) fn limit_has_room(&mut self, key: ConsumerKey) -> bool {
        let Some(at) = self.position(key) else { return false };
        take_turn(&mut self.consumers[at], &mut self.turns)
    }

    pub(super) fn len(&self) -> usize {
        self.consumers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.consumers.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ConsumerKey> {
        self.consumers.iter().map(|consumer| consumer.settings.key)
    }

    fn position(&self, key: ConsumerKey) -> Option<usize> {
        self.consumers.iter().position(|consumer| consumer.settings.key == key)
    }
}

impl Turns {
    fn push(&mut self, priority: i64, number: u64) {
        match self.0.binary_search_by(|(other, _)| priority.cmp(other)) {
            Ok(at) => self.0[at].1.push_back(number),
            Err(at) => self.0.insert(at, (priority, VecDeque::from([number]))),
        }
    }

    /// Consumers mostly go in the order in which they came: then it is found at once.
    fn remove(&mut self, priority: i64, number: u64) {
        let Ok(at) = self.0.binary_search_by(|(other, _)| priority.cmp(other)) else { return };
        let turns = &mut self.0[at].1;
        if let Some(turn) = turns.iter().position(|&turn| turn == number) {
            turns.remove(turn);
        }
        if turns.is_empty() {
            self.0.remove(at);
        }
    }

    fn highest(&mut self) -> Option<&mut VecDeque<u64>> {
        self.0.iter_mut().map(|(_, turns)| turns).find(|turns| !turns.is_empty())
    }
}

fn find(consumers: &mut VecDeque<Consumer>, number: u64) -> Option<&mut Consumer> {
    let at = consumers.binary_search_by_key(&number, |consumer| consumer.number).ok()?;
    consumers.get_mut(at)
}

/// Queues for a turn if the consumer has room and does not wait for one already.
fn take_turn(consumer: &mut Consumer, turns: &mut Turns) -> bool {
    if consumer.in_turns || !consumer.has_room() {
        return false;
    }
    consumer.in_turns = true;
    turns.push(consumer.settings.priority, consumer.number);
    true
}

impl Consumer {
    fn has_room(&self) -> bool {
        let prefetch = u32::from(self.settings.prefetch);
        !self.waits && self.room_bytes > 0 && (self.settings.no_ack || prefetch == 0 || self.unacked < prefetch)
    }
}
