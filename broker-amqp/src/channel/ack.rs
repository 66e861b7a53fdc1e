//! Settling deliveries: acknowledgements, rejections and recovery, joined into runs per queue.

use crate::channel::{Channel, Unacked};
use crate::exception::Exception;
use crate::output::{Outcome, Output, Settle};

/// Runs looked at, from the newest, when a settled delivery looks for one to join.
const LOOK_BACK: usize = 8;

/// Settled deliveries of one batch, before the driver hears of them.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    runs: Vec<Settle>,
}

impl Settling {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds one delivery to the run it continues, or begins one.
    #[inline]
    pub(crate) fn add(&mut self, channel: u16, unacked: Unacked, outcome: Outcome) {
        let Unacked { queue, queue_tag, consumer, .. } = unacked;
        for run in self.runs.iter_mut().rev().take(LOOK_BACK) {
            if (run.queue, run.consumer, run.channel, run.outcome) == (queue, consumer, channel, outcome) {
                if run.last.checked_add(1) == Some(queue_tag) {
                    run.last = queue_tag;
                    return;
                }
                break;
            }
        }
        self.runs.push(Settle { channel, queue, consumer, first: queue_tag, last: queue_tag, outcome });
    }

    pub(crate) fn flush(&mut self, out: &mut Vec<Output>) {
        out.extend(self.runs.drain(..).map(Output::Settle));
    }

    /// Gives back what a burst needed.
    pub(crate) fn shrink(&mut self) {
        if self.runs.capacity() > 4 {
            self.runs = Vec::new();
        }
    }
}

impl From<Settling> for Vec<Settle> {
    fn from(settling: Settling) -> Vec<Settle> {
        settling.runs
    }
}

impl Channel {
    /// Settles one delivery, or with `multiple` all up to it; tag 0 means all there are.
    pub(crate) fn settle(
        &mut self,
        delivery_tag: u64,
        multiple: bool,
        outcome: Outcome,
        settling: &mut Settling,
    ) -> Result<(), Exception> {
        if self.tx.is_some() {
            return self.settle_in_tx(delivery_tag, multiple, outcome);
        }
        let number = self.number;
        if !multiple {
            let unacked =
                self.unacked.remove(delivery_tag).ok_or_else(|| Exception::unknown_delivery_tag(delivery_tag))?;
            settling.add(number, unacked, outcome);
            return Ok(());
        }
        let last = match delivery_tag {
            0 => u64::MAX,
            tag if self.unacked.get(tag).is_some() => tag,
            tag => return Err(Exception::unknown_delivery_tag(tag)),
        };
        self.unacked.drain_through(last, |unacked| settling.add(number, unacked, outcome));
        Ok(())
    }

    /// Gives every delivery back to its queue: `basic.recover`, or the channel's end. What a transaction settled stays settled in it.
    pub(crate) fn requeue_all(&mut self, settling: &mut Settling) {
        let number = self.number;
        if self.tx.is_none() {
            return self.unacked.drain_through(u64::MAX, |unacked| settling.add(number, unacked, Outcome::Requeue));
        }
        let tags: Vec<u64> =
            self.unacked.iter().filter(|(_, unacked)| !unacked.in_tx).map(|(delivery_tag, _)| delivery_tag).collect();
        for delivery_tag in tags {
            if let Some(unacked) = self.unacked.remove(delivery_tag) {
                settling.add(number, unacked, Outcome::Requeue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel_with(deliveries: &[(u64, u64)]) -> Channel {
        let mut channel = Channel::new(1);
        for &(queue, queue_tag) in deliveries {
            channel.unacked.push(Unacked { queue, queue_tag, consumer: 7, kib: 1, in_tx: false });
        }
        channel
    }

    fn runs(settling: Settling) -> Vec<(u64, u64, u64)> {
        Vec::from(settling).into_iter().map(|run: Settle| (run.queue, run.first, run.last)).collect()
    }

    #[test]
    fn runs_are_joined_per_queue() {
        let mut channel = channel_with(&[(1, 10), (2, 50), (1, 11), (2, 51), (1, 13)]);
        let mut settling = Settling::default();
        channel.settle(3, true, Outcome::Ack, &mut settling).unwrap();
        channel.settle(4, false, Outcome::Ack, &mut settling).unwrap();
        channel.settle(5, false, Outcome::Ack, &mut settling).unwrap();
        assert_eq!(runs(settling), [(1, 10, 11), (2, 50, 51), (1, 13, 13)]);
        assert!(channel.unacked.is_empty());
        assert_eq!(channel.unacked.kib(), 0);
    }

    #[test]
    fn unknown_tags_settle_nothing() {
        let mut channel = channel_with(&[(1, 1), (1, 2)]);
        let mut settling = Settling::default();
        let unknown = |tag| Err(Exception::unknown_delivery_tag(tag));
        assert_eq!(channel.settle(3, true, Outcome::Ack, &mut settling), unknown(3));
        assert_eq!(channel.settle(0, false, Outcome::Ack, &mut settling), unknown(0));
        channel.settle(1, false, Outcome::Ack, &mut settling).unwrap();
        assert_eq!(channel.settle(1, false, Outcome::Ack, &mut settling), unknown(1));
        assert_eq!(channel.settle(1, true, Outcome::Ack, &mut settling), unknown(1));
        channel.settle(0, true, Outcome::Requeue, &mut settling).unwrap();
        channel.settle(0, true, Outcome::Requeue, &mut settling).unwrap();
        assert_eq!(runs(settling), [(1, 1, 1), (1, 2, 2)]);
    }
}
