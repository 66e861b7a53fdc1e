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

/// Who may be given a message, for each priority that a consumer has; the highest first.
#[derive(Debug, Default)]
struct Turns(Vec<Level>);

/// The consumers of one priority.
#[derive(Debug)]
struct Level {
    priority: i64,
    /// How many there are: as long as there is one, the level stays, for it may have a turn again at any time.
    consumers: usize,
    /// Numbers of those that may be given a message, in the order of their turns.
    turns: VecDeque<u64>,
}

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
        self.turns.enter(consumer.settings.priority);
        take_turn(&mut consumer, &mut self.turns);
        self.consumers.push_back(consumer);
    }

    /// Whether there was such a consumer.
    pub(super) fn remove(&mut self, key: ConsumerKey) -> bool {
        let Some(at) = self.position(key) else { return false };
        let Some(gone) = self.consumers.remove(at) else { return false };
        self.turns.leave(&gone);
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
        self.turns.0.iter().any(|level| !level.turns.is_empty())
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
    fn at(&self, priority: i64) -> Result<usize, usize> {
        self.0.binary_search_by(|level| priority.cmp(&level.priority))
    }

    /// One more consumer of this priority.
    fn enter(&mut self, priority: i64) {
        match self.at(priority) {
            Ok(at) => self.0[at].consumers += 1,
            Err(at) => self.0.insert(at, Level { priority, consumers: 1, turns: VecDeque::new() }),
        }
    }

    /// A consumer goes, with its turn if it has one. They mostly go in the order in which they came: then it is found at once.
    fn leave(&mut self, consumer: &Consumer) {
        let Ok(at) = self.at(consumer.settings.priority) else { return };
        let level = &mut self.0[at];
        level.consumers -= 1;
        if level.consumers == 0 {
            self.0.remove(at);
        } else if consumer.in_turns
            && let Some(turn) = level.turns.iter().position(|&turn| turn == consumer.number)
        {
            level.turns.remove(turn);
        }
    }

    fn push(&mut self, priority: i64, number: u64) {
        if let Ok(at) = self.at(priority) {
            self.0[at].turns.push_back(number);
        }
    }

    fn highest(&mut self) -> Option<&mut VecDeque<u64>> {
        self.0.iter_mut().map(|level| &mut level.turns).find(|turns| !turns.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ChannelKey;

    #[test]
    fn a_priority_goes_with_the_last_consumer_that_has_it() {
        let mut consumers = Consumers::default();
        let key = |consumer| ConsumerKey { channel: ChannelKey { connection: 1, channel: 1 }, consumer };
        let settings = |consumer: u32| ConsumerSettings {
            key: key(consumer),
            no_ack: false,
            exclusive: false,
            prefetch: 1,
            priority: i64::from(consumer / 2),
            room_bytes: 1000,
            limit: None,
        };
        for consumer in 0..100 {
            consumers.add(settings(consumer));
        }
        assert_eq!(consumers.turns.0.len(), 50);
        // Half of them have had their turn and have no room; of each priority one has.
        for _ in 0..50 {
            consumers.next(1);
        }
        for consumer in 0..100 {
            assert!(consumers.any_ready() || consumer >= 50);
            assert!(consumers.remove(key(consumer)));
            assert_eq!(consumers.turns.0.len(), 49 - consumer as usize / 2 + usize::from(consumer % 2 == 0));
        }
        assert!(consumers.consumers.is_empty() && consumers.turns.0.is_empty());
    }
}
