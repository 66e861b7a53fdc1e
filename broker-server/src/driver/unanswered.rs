//! Publishes that another node has not answered, and deliveries that its channels have not settled: what is to be put right when the link to it is lost.

use std::collections::VecDeque;

use broker_core::queue::ChannelKey;
use broker_core::store::{QueueId, Ranges};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::queues::TRANSACTION;

/// Ranges of numbers, both ends included.
pub type Answered = SmallVec<[(u64, u64); 2]>;

/// Publishes of this node's channels, by channel: the number, and how many queues have yet to answer.
#[derive(Default)]
pub struct Publishes(HashMap<Numbering, VecDeque<(u64, u32)>, RandomState>);

/// A channel, and whether it is of its transactions: numbers of both kinds grow, but a channel that is closed while its transaction is stored may be opened
/// again and select confirms.
type Numbering = (ChannelKey, bool);

fn numbering(channel: ChannelKey, publish_seq: u64) -> Numbering {
    (channel, publish_seq & TRANSACTION != 0)
}

impl Publishes {
    /// A publish was sent to so many queues.
    pub fn sent(&mut self, channel: ChannelKey, publish_seq: u64, queues: usize) {
        let queues = u32::try_from(queues).unwrap_or(u32::MAX);
        self.0.entry(numbering(channel, publish_seq)).or_default().push_back((publish_seq, queues));
    }

    /// A queue has answered these. Those that nothing is known of are passed over: returns the ones that count.
    pub fn answered(&mut self, channel: ChannelKey, first: u64, last: u64) -> Answered {
        let mut counted = Answered::new();
        let numbering = numbering(channel, first);
        let Some(publishes) = self.0.get_mut(&numbering) else { return counted };
        let from = publishes.partition_point(|(seq, _)| *seq < first);
        for (seq, missing) in publishes.iter_mut().skip(from).take_while(|(seq, _)| *seq <= last) {
            if *missing == 0 {
                continue;
            }
            *missing -= 1;
            match counted.last_mut() {
                Some((_, end)) if *end + 1 == *seq => *end = *seq,
                _ => counted.push((*seq, *seq)),
            }
        }
        while publishes.front().is_some_and(|(_, missing)| *missing == 0) {
            publishes.pop_front();
        }
        if publishes.is_empty() {
            self.0.remove(&numbering);
        }
        counted
    }

    /// All that are not answered, sorted, each as often as an answer is missing.
    pub fn left(&self) -> Vec<(ChannelKey, u64)> {
        let of_channel = |(&(channel, _), publishes): (&Numbering, &VecDeque<(u64, u32)>)| {
            let each = publishes.iter().flat_map(|&(seq, missing)| std::iter::repeat_n(seq, missing as usize));
            each.map(move |seq| (channel, seq)).collect::<Vec<_>>()
        };
        let mut left: Vec<(ChannelKey, u64)> = self.0.iter().flat_map(of_channel).collect();
        left.sort_unstable();
        left
    }
}

/// Deliveries that channels of the other node hold, by queue.
#[derive(Default)]
pub struct Deliveries(HashMap<QueueId, Held, RandomState>);

/// Those of one queue. Most are sent in order and settled in order, so that they are the last range alone.
#[derive(Default)]
struct Held {
    /// Those sent last, one number after the other; none if it ends before it begins.
    tail: Range,
    others: Ranges,
}

/// First and one beyond the last.
type Range = std::ops::Range<u64>;

impl Held {
    /// The tail goes to the others.
    fn close(&mut self) -> &mut Ranges {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.others.insert(tail.start, tail.end - 1);
        }
        &mut self.others
    }
}

impl Deliveries {
    /// One was sent.
    pub fn sent(&mut self, queue: QueueId, queue_tag: u64) {
        let held = self.0.entry(queue).or_default();
        if held.tail.is_empty() || held.tail.end != queue_tag {
            held.close();
            held.tail.start = queue_tag;
        }
        held.tail.end = queue_tag.saturating_add(1);
    }

    /// They are settled.
    pub fn settled(&mut self, queue: QueueId, first: u64, last: u64) {
        let Some(held) = self.0.get_mut(&queue) else { return };
        if held.others.is_empty() && first <= held.tail.start {
            held.tail.start = held.tail.start.max(last.saturating_add(1));
        } else {
            held.close().remove(first, last);
        }
        if held.tail.is_empty() && held.others.is_empty() {
            self.0.remove(&queue);
        }
    }

    /// The queue is gone.
    pub fn forget(&mut self, queue: QueueId) {
        self.0.remove(&queue);
    }

    /// All that are not settled, sorted by queue.
    pub fn left(self) -> Vec<(QueueId, Ranges)> {
        let left = self.0.into_iter().map(|(queue, mut held)| (queue, std::mem::take(held.close())));
        let mut left: Vec<_> = left.collect();
        left.sort_unstable_by_key(|(queue, _)| *queue);
        left
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn channel(connection: u64) -> ChannelKey {
        ChannelKey { connection, channel: 1 }
    }

    #[test]
    fn each_queue_answers_once_and_what_is_left_is_known() {
        let mut publishes = Publishes::default();
        for seq in 1..=4 {
            publishes.sent(channel(1), seq, 1 + usize::from(seq == 3));
        }
        publishes.sent(channel(2), 1, 1);
        // Out of order, and more than was asked for.
        assert_eq!(publishes.answered(channel(1), 2, 2).as_slice(), [(2, 2)]);
        assert_eq!(publishes.answered(channel(1), 1, 3).as_slice(), [(1, 1), (3, 3)]);
        assert_eq!(publishes.answered(channel(1), 1, 2).as_slice(), []);
        assert_eq!(publishes.left(), [(channel(1), 3), (channel(1), 4), (channel(2), 1)]);
        assert_eq!(publishes.answered(channel(1), 0, u64::MAX).as_slice(), [(3, 4)]);
        assert_eq!(publishes.answered(channel(2), 1, 1).as_slice(), [(1, 1)]);
        assert!(publishes.left().is_empty() && publishes.0.is_empty());
        assert_eq!(publishes.answered(channel(3), 1, 1).as_slice(), []);
    }

    #[test]
    fn what_a_channel_confirms_is_found_beside_a_transaction_of_one_before_it() {
        let mut publishes = Publishes::default();
        publishes.sent(channel(1), TRANSACTION | 7, 1);
        publishes.sent(channel(1), 1, 1);
        publishes.sent(channel(1), 2, 1);
        assert_eq!(publishes.answered(channel(1), 1, 2).as_slice(), [(1, 2)]);
        assert_eq!(publishes.left(), [(channel(1), TRANSACTION | 7)]);
        assert_eq!(publishes.answered(channel(1), TRANSACTION | 7, TRANSACTION | 7).len(), 1);
        assert!(publishes.0.is_empty());
    }

    #[test]
    fn deliveries_are_held_until_they_are_settled() {
        let mut deliveries = Deliveries::default();
        let (one, other) = (QueueId(1), QueueId(2));
        for tag in 1..=6 {
            deliveries.sent(one, tag);
        }
        deliveries.sent(other, 9);
        deliveries.settled(one, 3, 3);
        deliveries.settled(one, 5, 5);
        deliveries.settled(other, 10, 8);
        let (held_of_one, held_of_other) = (deliveries.0.get_mut(&one).unwrap(), [(9, 9)]);
        assert_eq!(held_of_one.close().iter().collect::<Vec<_>>(), [(1, 2), (4, 4), (6, 6)]);
        // One that was given back is sent again.
        deliveries.sent(one, 5);
        deliveries.settled(one, 1, 6);
        let left: Vec<_> =
            deliveries.left().into_iter().map(|(queue, left)| (queue, left.iter().collect::<Vec<_>>())).collect();
        assert_eq!(left, [(other, held_of_other.to_vec())]);
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_sent_and_not_settled(steps in prop::collection::vec((any::<bool>(), 1..40_u64, 0..4_u64), 0..80)) {
            let (mut deliveries, mut model, mut next) = (Deliveries::default(), BTreeSet::new(), 0);
            for (sends, at, more) in steps {
                if sends {
                    // Mostly the next one, now and then an earlier one again.
                    let tag = if at < 35 { next += 1; next } else { at };
                    deliveries.sent(QueueId(1), tag);
                    model.insert(tag);
                } else {
                    deliveries.settled(QueueId(1), at, at + more);
                    model.retain(|tag| !(at..=at + more).contains(tag));
                }
                prop_assert_eq!(deliveries.0.is_empty(), model.is_empty());
            }
            let left: Vec<u64> = deliveries.left().into_iter().flat_map(|(_, left)| left.iter().flat_map(|(a, b)| a..=b).collect::<Vec<_>>()).collect();
            prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
        }
    }
}
