//! The consumers of a queue: round-robin over those that have room.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{CONSUMER_ROOM_BYTES, ChannelLimit, ConsumerKey, ConsumerSettings, NO_CONSUMER};

#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// In the order they were added. Their numbers are never used again, for unacked messages name them.
    consumers: Vec<Consumer>,
    next_number: u64,
    /// Numbers of consumers that may be given a message, in the order of their turns.
    turns: VecDeque<u64>,
}

#[derive(Debug)]
struct Consumer {
    number: u64,
    settings: ConsumerSettings,
    unacked: u32,
    room_bytes: i64,
    in_turns: bool,
}

/// The consumer that gets the next message.
pub(super) struct Next {
    pub(super) key: ConsumerKey,
    pub(super) number: u64,
    pub(super) no_ack: bool,
}

impl Consumers {
    pub(super) fn may_add(&self, exclusive: bool) -> bool {
        self.consumers.is_empty() || !(exclusive || self.consumers.iter().any(|consumer| consumer.settings.exclusive))
    }

    pub(super) fn add(&mut self, settings: ConsumerSettings) {
        self.next_number += 1;
        let number = self.next_number;
        self.consumers.push(Consumer { number, settings, unacked: 0, room_bytes: CONSUMER_ROOM_BYTES, in_turns: true });
        self.turns.push_back(number);
    }

    pub(super) fn remove(&mut self, key: ConsumerKey) -> bool {
        let Some(at) = self.position(key) else { return false };
        let number = self.consumers.remove(at).number;
        self.turns.retain(|&turn| turn != number);
        true
    }

    /// Takes the next turn for a message of this size, if any consumer has room.
    pub(super) fn next(&mut self, bytes: i64) -> Option<Next> {
        while let Some(&number) = self.turns.front() {
            let Some(consumer) = find(&mut self.consumers, number) else {
                self.turns.pop_front();
                continue;
            };
            let limited =
                !consumer.settings.no_ack && consumer.settings.limit.as_ref().is_some_and(|limit| !limit.try_take());
            if limited {
                consumer.in_turns = false;
                self.turns.pop_front();
                continue;
            }
            let next = Next { key: consumer.settings.key, number, no_ack: consumer.settings.no_ack };
            consumer.room_bytes -= bytes;
            if !next.no_ack {
                consumer.unacked += 1;
            }
            if !consumer.has_room() {
                consumer.in_turns = false;
                self.turns.pop_front();
            } else if self.turns.len() > 1 {
                self.turns.rotate_left(1);
            }
            return Some(next);
        }
        None
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// A delivery of the consumer with this number was settled.
    pub(super) fn settled(&mut self, number: u64) {
        if number == NO_CONSUMER {
            return;
        }
        if let Some(consumer) = find(&mut self.consumers, number) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
            take_turn(consumer, &mut self.turns);
        }
    }

    /// Returns whether the consumer may be given messages now and could not before.
    pub(super) fn give_room(&mut self, key: ConsumerKey, bytes: i64) -> bool {
        let Some(at) = self.position(key) else { return false };
        let consumer = &mut self.consumers[at];
        consumer.room_bytes = (consumer.room_bytes + bytes).min(CONSUMER_ROOM_BYTES);
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

fn find(consumers: &mut [Consumer], number: u64) -> Option<&mut Consumer> {
    let at = consumers.binary_search_by_key(&number, |consumer| consumer.number).ok()?;
    consumers.get_mut(at)
}

/// Queues for a turn if the consumer has room and does not wait for one already.
fn take_turn(consumer: &mut Consumer, turns: &mut VecDeque<u64>) -> bool {
    if consumer.in_turns || !consumer.has_room() {
        return false;
    }
    consumer.in_turns = true;
    turns.push_back(consumer.number);
    true
}

impl Consumer {
    fn has_room(&self) -> bool {
        let prefetch = u32::from(self.settings.prefetch);
        self.room_bytes > 0 && (self.settings.no_ack || prefetch == 0 || self.unacked < prefetch)
    }
}
