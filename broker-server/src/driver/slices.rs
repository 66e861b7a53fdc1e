//! One change of the catalog may concern very many queues: a policy, or the end of a vhost. What it means for them is carried out in slices, one in
//! each turn, so that no client waits for all of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use broker_core::queue::ConsumerKey;
use broker_core::topology::QueueRecord;

use super::links::Owed;
use super::shard::Shard;
use crate::admin::import::Outcome;

/// Queues of a slice: a millisecond or two.
const QUEUES_TOGETHER: usize = 1024;

/// What is still to be carried out, in order.
#[derive(Default)]
pub struct Slices {
    work: VecDeque<Work>,
    /// Queues that may still be seen to at once, before the others wait for a turn.
    at_once: usize,
}

enum Work {
    /// Other policies govern a queue.
    Govern(Arc<QueueRecord>),
    /// Queues are gone with their vhost, whose connections are closed. They stay where they came: memory that is touched for the first time is slow, and
    /// to copy the list of a hundred thousand takes longer than a slice may.
    Delete(vec::IntoIter<Arc<QueueRecord>>),
    /// An operator waits for what stands before.
    Answer(u64, Box<Outcome>),
}

impl Slices {
    /// Whether there is nothing left to do.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// Commands have been applied: the first queues they concern need not wait.
    pub fn begin(&mut self) {
        self.at_once = QUEUES_TOGETHER;
    }

    /// Whether a queue can be seen to at once: nothing waits before it, and there were not too many.
    fn has_room(&mut self) -> bool {
        let room = self.work.is_empty() && self.at_once > 0;
        self.at_once -= usize::from(room);
        room
    }
}

impl Shard {
    /// Policies ask something else of a queue.
    pub(super) fn govern_in_slices(&mut self, record: Arc<QueueRecord>) {
        if self.slices.has_room() {
            self.queue_governed(record);
        } else {
            self.slices.work.push_back(Work::Govern(record));
        }
    }

    /// A vhost is gone: its queues go, the first of them now. Consumers of these are to be told of their end.
    pub(super) fn delete_in_slices(&mut self, records: Vec<Arc<QueueRecord>>) -> Vec<ConsumerKey> {
        // No message is to find its way to one that is still there.
        self.generation += 1;
        let mut ended = Vec::new();
        let mut records = records.into_iter();
        while !records.as_slice().is_empty() && self.slices.has_room() {
            let Some(record) = records.next() else { break };
            ended.extend(self.queue_deleted(&record));
        }
        if !records.as_slice().is_empty() {
            self.slices.work.push_back(Work::Delete(records));
        }
        ended
    }

    /// An operator hears of a change when all that follows from it is carried out here, and the other nodes have applied it.
    pub(super) fn answer_operator(&mut self, number: u64, outcome: Outcome) {
        if self.slices.is_empty() {
            self.answer_when_seen(Owed::Operator(number, outcome.into()));
        } else {
            self.slices.work.push_back(Work::Answer(number, outcome.into()));
        }
    }

    /// Carries the next slice out.
    pub(super) fn carry_out_slice(&mut self) {
        for _ in 0..QUEUES_TOGETHER {
            match self.slices.work.pop_front() {
                Some(Work::Govern(record)) => self.queue_governed(record),
                Some(Work::Delete(mut records)) => {
                    // The connections of its consumers are closed: there is nobody to tell.
                    if let Some(record) = records.next() {
                        self.queue_deleted(&record);
                        self.slices.work.push_front(Work::Delete(records));
                    }
                }
                Some(Work::Answer(number, outcome)) => self.answer_when_seen(Owed::Operator(number, outcome)),
                None => {
                    // It may have held a hundred thousand.
                    self.slices.work = VecDeque::new();
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_queues_are_seen_to_at_once_and_nothing_overtakes_what_waits() {
        let mut slices = Slices::default();
        assert!(!slices.has_room());
        slices.begin();
        assert_eq!((0..2 * QUEUES_TOGETHER).filter(|_| slices.has_room()).count(), QUEUES_TOGETHER);
        slices.begin();
        slices.work.push_back(Work::Answer(1, Box::new(Ok(true))));
        assert!(!slices.has_room());
    }
}
