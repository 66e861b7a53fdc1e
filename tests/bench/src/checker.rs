//! Holds what was delivered against what was published: nothing lost, nothing twice, in order per producer and consumer,
//! bodies and properties as published, nothing flagged redelivered. A run with a fault counts for nothing.

use std::collections::VecDeque;
use std::fmt;

/// How far a sequence number may run ahead of the lowest one that is missing.
const LONGEST_GAP: u64 = 1 << 27;
/// How many faults are kept with their circumstances; the others are only counted.
const FAULTS_TOLD: usize = 5;

/// What was wrong with a delivery or a confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Published, never delivered.
    Lost,
    /// Delivered a second time.
    Duplicate,
    /// Delivered behind a later message of the same producer to the same consumer.
    Reordered,
    /// The body is not what was published.
    Body,
    /// The properties are not what was published.
    Properties,
    /// The redelivered flag is set, though nothing was delivered twice.
    Redelivered,
    /// Consumer tag, delivery tag, exchange or routing key is wrong.
    Envelope,
    /// A confirm for nothing, a second one, a nack, or none.
    Confirm,
    /// The broker closed the connection or the channel, or fell silent.
    Broken,
}

/// What was wrong in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    count: u64,
    told: Vec<(FaultKind, String)>,
}

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, kind: FaultKind, circumstances: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < FAULTS_TOLD {
            self.told.push((kind, circumstances()));
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first ones.
    #[must_use]
    pub fn told(&self) -> &[(FaultKind, String)] {
        &self.told
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} faults", self.count)?;
        for (kind, circumstances) in &self.told {
            write!(formatter, "; {kind:?}: {circumstances}")?;
        }
        Ok(())
    }
}

/// What one queue delivered, of each producer.
#[derive(Debug)]
pub struct Ledger {
    producers: Vec<Seen>,
    /// The last sequence number plus one, for each consumer and producer.
    last: Vec<Vec<u64>>,
    /// The producers that publish to this queue.
    expected: Vec<bool>,
}

impl Ledger {
    /// A ledger of a queue that `consumers` consumers read and to which the marked producers publish.
    #[must_use]
    pub fn new(expected: Vec<bool>, consumers: usize) -> Self {
        let producers = expected.len();
        Self {
            producers: (0..producers).map(|_| Seen::default()).collect(),
            last: vec![vec![0; producers]; consumers],
            expected,
        }
    }

    /// Notes that the consumer got this message.
    #[inline]
    pub fn delivered(&mut self, consumer: usize, producer: u32, sequence: u64, faults: &mut Faults) {
        let index = producer as usize;
        let (Some(seen), Some(last)) =
            (self.producers.get_mut(index), self.last.get_mut(consumer).and_then(|line| line.get_mut(index)))
        else {
            faults.add(FaultKind::Body, || format!("a message of producer {producer}, which does not exist"));
            return;
        };
        if self.expected.get(index) != Some(&true) {
            faults.add(FaultKind::Envelope, || format!("a message of producer {producer} in another queue"));
            return;
        }
        match seen.insert(sequence) {
            Insert::First if sequence < *last => {
                faults.add(FaultKind::Reordered, || format!("{sequence} of producer {producer} behind {}", *last - 1));
            }
            Insert::First => *last = sequence + 1,
            Insert::Again => faults.add(FaultKind::Duplicate, || format!("{sequence} of producer {producer}")),
            Insert::TooFar => faults.add(FaultKind::Lost, || format!("{sequence} of producer {producer} is far ahead")),
        }
    }

    /// Notes what never came, when each producer sent the given number of messages.
    pub fn close(&self, sent: &[u64], faults: &mut Faults) {
        for (producer, ((seen, &sent), _)) in
            self.producers.iter().zip(sent).zip(&self.expected).enumerate().filter(|(_, (_, expected))| **expected)
        {
            if seen.first_missing() < sent {
                faults.add(FaultKind::Lost, || {
                    let came = seen.count();
                    format!("{came} of {sent} of producer {producer} came, not {}", seen.first_missing())
                });
            } else if seen.count() > sent {
                faults.add(FaultKind::Body, || format!("{} of {sent} of producer {producer}", seen.count()));
            }
        }
    }
}

/// Which sequence numbers were seen: all below a floor, and a bit for each above it.
#[derive(Debug, Default)]
pub struct Seen {
    floor: u64,
    words: VecDeque<u64>,
    count: u64,
}

/// What came of noting a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It was not there.
    First,
    /// It was there.
    Again,
    /// It is so far ahead of what is missing that it cannot be right.
    TooFar,
}

impl Seen {
    /// Notes a number.
    #[inline]
    pub fn insert(&mut self, sequence: u64) -> Insert {
        let Some(ahead) = sequence.checked_sub(self.floor) else { return Insert::Again };
        if ahead >= LONGEST_GAP {
            return Insert::TooFar;
        }
        let (word, bit) = ((ahead / 64) as usize, 1 << (ahead % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if let Some(place) = self.words.get_mut(word) {
            if *place & bit != 0 {
                return Insert::Again;
            }
            *place |= bit;
        }
        self.count += 1;
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.floor += 64;
        }
        Insert::First
    }

    /// How many were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The lowest number that was not noted.
    #[must_use]
    pub fn first_missing(&self) -> u64 {
        self.floor + self.words.front().map_or(0, |word| u64::from(word.trailing_ones()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delivers to one queue with one producer and two consumers and returns the kinds of the faults.
    fn run(deliveries: &[(usize, u64)], sent: u64) -> Vec<FaultKind> {
        let mut ledger = Ledger::new(vec![true], 2);
        let mut faults = Faults::default();
        for &(consumer, sequence) in deliveries {
            ledger.delivered(consumer, 0, sequence, &mut faults);
        }
        ledger.close(&[sent], &mut faults);
        faults.told().iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn all_in_order_is_no_fault() {
        let deliveries: Vec<_> = (0..1000).map(|sequence| (0, sequence)).collect();
        assert_eq!(run(&deliveries, 1000), []);
    }

    #[test]
    fn two_consumers_may_share_in_any_interleaving() {
        assert_eq!(run(&[(0, 1), (1, 0), (1, 2), (0, 3)], 4), []);
    }

    #[test]
    fn loss_is_seen_in_the_middle_and_at_the_end() {
        assert_eq!(run(&[(0, 0), (0, 2)], 3), [FaultKind::Lost]);
        assert_eq!(run(&[(0, 0), (0, 1)], 3), [FaultKind::Lost]);
        assert_eq!(run(&[], 1), [FaultKind::Lost]);
    }

    #[test]
    fn a_duplicate_is_seen_near_and_far() {
        assert_eq!(run(&[(0, 0), (0, 0)], 1), [FaultKind::Duplicate]);
        assert_eq!(run(&[(0, 0), (1, 0)], 1), [FaultKind::Duplicate]);
        let mut deliveries: Vec<_> = (0..1000).map(|sequence| (0, sequence)).collect();
        deliveries.push((1, 3));
        assert_eq!(run(&deliveries, 1000), [FaultKind::Duplicate]);
    }

    #[test]
    fn reordering_is_seen() {
        assert_eq!(run(&[(0, 1), (0, 0)], 2), [FaultKind::Reordered]);
    }

    #[test]
    fn more_than_was_sent_is_seen() {
        assert_eq!(run(&[(0, 0), (0, 1)], 1), [FaultKind::Body]);
    }

    #[test]
    fn a_foreign_producer_and_an_absurd_number_are_seen() {
        let mut ledger = Ledger::new(vec![true, false], 1);
        let mut faults = Faults::default();
        ledger.delivered(0, 9, 0, &mut faults);
        ledger.delivered(0, 1, 0, &mut faults);
        ledger.delivered(0, 0, u64::MAX, &mut faults);
        let kinds: Vec<_> = faults.told().iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [FaultKind::Body, FaultKind::Envelope, FaultKind::Lost]);
    }

    #[test]
    fn only_the_first_faults_are_told_and_all_are_counted() {
        let mut faults = Faults::default();
        for number in 0..20 {
            faults.add(FaultKind::Body, || number.to_string());
        }
        assert_eq!((faults.count(), faults.told().len()), (20, FAULTS_TOLD));
    }
}
