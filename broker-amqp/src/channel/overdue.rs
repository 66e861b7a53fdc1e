//! How long deliveries wait to be settled, without a time for each: now and then it is noted which numbers had been handed out by then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::channel::Channel;

/// Notes lie apart by this part of the time allowed: so many suffice for any number of deliveries. Only a transaction that is open for longer than
/// that would need more.
const MARKS_MAX: u32 = 32;

/// Which delivery tags had been handed out when. Both grow.
#[derive(Debug, Default)]
pub(crate) struct Marks(VecDeque<Mark>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// All tags below it were handed out...
    below: u64,
    /// ...by this time.
    at: Instant,
}

impl Marks {
    /// Notes that by now all tags below `below` were handed out. Nothing is noted of tags that an earlier note covers, or soon after one: then the
    /// next note will cover them.
    fn note(&mut self, now: Instant, below: u64, timeout: Duration) {
        let due = self.0.back().is_none_or(|last| last.below < below && now >= last.at + timeout / MARKS_MAX);
        if due {
            self.0.push_back(Mark { below, at: now });
        }
        if self.0.len() > MARKS_MAX as usize + 1 {
            // What this one covered is taken for younger than it is.
            self.0.remove(1);
        }
    }

    /// When a delivery had been made at the latest; none if that was after the last note. Notes before that are forgotten.
    fn delivered_by(&mut self, delivery_tag: u64) -> Option<Instant> {
        while self.0.front().is_some_and(|mark| mark.below <= delivery_tag) {
            self.0.pop_front();
        }
        self.0.front().map(|mark| mark.at)
    }
}

impl Channel {
    /// Whether a delivery waits to be settled for longer than `timeout`, as far as is known. None: no delivery waits.
    pub(crate) fn is_overdue(&mut self, now: Instant, timeout: Duration) -> Option<bool> {
        if self.unacked.is_empty() {
            self.marks = None;
            return None;
        }
        let (oldest, next) = (self.oldest_unsettled(), self.unacked.next_number());
        let marks = self.marks.get_or_insert_default();
        let delivered = oldest.and_then(|oldest| marks.delivered_by(oldest));
        marks.note(now, next, timeout);
        Some(delivered.is_some_and(|at| now.saturating_duration_since(at) > timeout))
    }

    /// The oldest delivery that the client has said nothing about, not even in a transaction that is still open.
    fn oldest_unsettled(&self) -> Option<u64> {
        match self.tx {
            None => self.unacked.first(),
            Some(_) => self.unacked.iter().find(|(_, unacked)| !unacked.in_tx).map(|(delivery_tag, _)| delivery_tag),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use crate::channel::Unacked;
    use crate::channel::ack::Settling;
    use crate::output::Outcome;

    const TIMEOUT: Duration = Duration::from_secs(320);

    fn deliver(channel: &mut Channel) {
        channel.unacked.push(Unacked { queue: 1, queue_tag: 1, consumer: 7, kib: 1, in_tx: false });
    }

    fn ack(channel: &mut Channel, delivery_tag: u64) {
        channel.settle(delivery_tag, false, Outcome::Ack, &mut Settling::default()).unwrap();
    }

    #[test]
    fn the_oldest_delivery_counts_from_the_first_look_after_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut channel = Channel::new(1);
        assert_eq!(channel.is_overdue(at(0), TIMEOUT), None);
        deliver(&mut channel);
        assert_eq!(channel.is_overdue(at(10), TIMEOUT), Some(false));
        deliver(&mut channel);
        assert_eq!(channel.is_overdue(at(20), TIMEOUT), Some(false));
        assert_eq!(channel.is_overdue(at(330), TIMEOUT), Some(false));
        assert_eq!(channel.is_overdue(at(331), TIMEOUT), Some(true));
        ack(&mut channel, 1);
        assert_eq!(channel.is_overdue(at(331), TIMEOUT), Some(false));
        assert_eq!(channel.is_overdue(at(341), TIMEOUT), Some(true));
        ack(&mut channel, 2);
        assert_eq!(channel.is_overdue(at(999), TIMEOUT), None);
        deliver(&mut channel);
        assert_eq!(channel.is_overdue(at(1000), TIMEOUT), Some(false));
    }

    #[test]
    fn no_delivery_is_overdue_early_and_notes_are_few() {
        let start = Instant::now();
        let mut channel = Channel::new(1);
        // A delivery a second, each settled after 300 seconds; looked at each second.
        for second in 0..3000 {
            deliver(&mut channel);
            if second >= 300 {
                ack(&mut channel, second - 300 + 1);
            }
            assert_eq!(channel.is_overdue(start + Duration::from_secs(second), TIMEOUT), Some(false), "{second}");
            assert!(channel.marks.as_ref().is_some_and(|marks| marks.0.len() <= MARKS_MAX as usize + 1));
        }
        // Then the client falls silent: it is late by no more than notes are apart.
        let silent =
            (3000..).find(|&second| channel.is_overdue(start + Duration::from_secs(second), TIMEOUT) == Some(true));
        let oldest = 3000 - 300;
        assert!(silent.is_some_and(|second| (oldest + 320..=oldest + 320 + 12).contains(&second)), "{silent:?}");
    }

    #[test]
    fn what_an_open_transaction_settled_is_not_waited_for() {
        let start = Instant::now();
        let mut channel = Channel::new(1);
        deliver(&mut channel);
        channel.tx_select().unwrap();
        assert_eq!(channel.is_overdue(start, TIMEOUT), Some(false));
        ack(&mut channel, 1);
        assert_eq!(channel.is_overdue(start + TIMEOUT * 2, TIMEOUT), Some(false));
        channel.tx_rollback().unwrap();
        assert_eq!(channel.is_overdue(start + TIMEOUT * 2, TIMEOUT), Some(true));
    }

    #[test]
    fn a_transaction_without_end_does_not_gather_notes_without_end() {
        let start = Instant::now();
        let mut channel = Channel::new(1);
        channel.tx_select().unwrap();
        for turn in 1..500 {
            deliver(&mut channel);
            assert_eq!(channel.is_overdue(start + TIMEOUT * turn, TIMEOUT), Some(false));
            ack(&mut channel, turn.into());
        }
        assert!(channel.marks.is_some_and(|marks| marks.0.len() <= MARKS_MAX as usize + 1));
    }
}
