//! Transactions: publishes and settlements that count only when committed.

use broker_core::message::Message;

use crate::channel::ack::Settling;
use crate::channel::{Channel, Then, Waiting};
use crate::exception::{Exception, ReplyCode};
use crate::output::{Outcome, TxCommit};

/// What the publishes of one transaction may take in memory.
pub const TX_MAX_BYTES: usize = 512 * 1024 * 1024;

/// An open transaction.
#[derive(Debug, Default)]
pub(crate) struct Tx {
    publishes: Vec<(bool, Message)>,
    publishes_bytes: usize,
    settled: Vec<(u64, Outcome)>,
}

impl Tx {
    pub(crate) fn publish(&mut self, mandatory: bool, message: Message) -> Result<(), Exception> {
        self.publishes_bytes += message.memory();
        if self.publishes_bytes > TX_MAX_BYTES {
            return Err(Exception::new(ReplyCode::ResourceError, "transaction too large"));
        }
        self.publishes.push((mandatory, message));
        Ok(())
    }
}

impl Channel {
    /// `tx.select`
    pub(crate) fn tx_select(&mut self) -> Result<(), Exception> {
        if self.confirms.is_some() {
            return Err(Exception::precondition("cannot switch from confirm to tx mode"));
        }
        self.tx.get_or_insert_default();
        Ok(())
    }

    /// `tx.commit`: what is to be done, after which the next transaction begins.
    pub(crate) fn tx_commit(&mut self) -> Result<TxCommit, Exception> {
        let tx = std::mem::take(self.tx.as_deref_mut().ok_or_else(not_transactional)?);
        let mut settling = Settling::default();
        for (delivery_tag, outcome) in tx.settled {
            if let Some(unacked) = self.unacked.remove(delivery_tag) {
                settling.add(self.number, unacked, outcome);
            }
        }
        self.waiting = Some(Box::new(Waiting { class: 90, method: 20, nowait: false, then: Then::Commit }));
        Ok(TxCommit { channel: self.number, publishes: tx.publishes, settles: settling.into() })
    }

    /// `tx.rollback`: publishes are forgotten, settled deliveries are outstanding again.
    pub(crate) fn tx_rollback(&mut self) -> Result<(), Exception> {
        let tx = std::mem::take(self.tx.as_deref_mut().ok_or_else(not_transactional)?);
        for (delivery_tag, _) in tx.settled {
            if let Some(unacked) = self.unacked.get_mut(delivery_tag) {
                unacked.in_tx = false;
            }
        }
        Ok(())
    }

    /// As [`Channel::settle`], but only marks.
    pub(crate) fn settle_in_tx(
        &mut self,
        delivery_tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Result<(), Exception> {
        let Some(tx) = self.tx.as_deref_mut() else { return Ok(()) };
        if delivery_tag != 0 || !multiple {
            let unacked = self.unacked.get_mut(delivery_tag).filter(|unacked| !unacked.in_tx);
            let unacked = unacked.ok_or_else(|| Exception::unknown_delivery_tag(delivery_tag))?;
            if !multiple {
                unacked.in_tx = true;
                tx.settled.push((delivery_tag, outcome));
                return Ok(());
            }
        }
        let last = if delivery_tag == 0 { u64::MAX } else { delivery_tag };
        let outstanding =
            self.unacked.iter_mut().take_while(|(tag, _)| *tag <= last).filter(|(_, unacked)| !unacked.in_tx);
        for (tag, unacked) in outstanding {
            unacked.in_tx = true;
            tx.settled.push((tag, outcome));
        }
        Ok(())
    }
}

fn not_transactional() -> Exception {
    Exception::precondition("channel is not transactional")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Unacked;

    fn channel() -> Channel {
        let mut channel = Channel::new(1);
        for queue_tag in 1..=4 {
            channel.unacked.push(Unacked { queue: 1, queue_tag, consumer: 7, kib: 1, in_tx: false });
        }
        channel.tx_select().unwrap();
        channel
    }

    #[test]
    fn a_rollback_makes_deliveries_outstanding_again() {
        let mut channel = channel();
        let mut settling = Settling::default();
        channel.settle(2, false, Outcome::Ack, &mut settling).unwrap();
        assert_eq!(channel.settle(2, false, Outcome::Ack, &mut settling), Err(Exception::unknown_delivery_tag(2)));
        channel.settle(0, true, Outcome::Discard, &mut settling).unwrap();
        channel.tx_rollback().unwrap();
        channel.settle(2, true, Outcome::Ack, &mut settling).unwrap();
        let commit = channel.tx_commit().unwrap();
        assert!(settling.is_empty());
        assert_eq!(commit.settles.len(), 1);
        assert_eq!((commit.settles[0].first, commit.settles[0].last), (1, 2));
        assert_eq!(channel.unacked.len(), 2);
    }

    #[test]
    fn recovery_leaves_what_the_transaction_settled() {
        let mut channel = channel();
        let mut settling = Settling::default();
        channel.settle(1, false, Outcome::Ack, &mut settling).unwrap();
        channel.requeue_all(&mut settling);
        assert_eq!(Vec::from(settling).len(), 1);
        assert_eq!(channel.tx_commit().unwrap().settles.len(), 1);
    }

    #[test]
    fn modes_exclude_each_other() {
        let mut channel = Channel::new(1);
        assert_eq!(channel.tx_commit().unwrap_err().text, "channel is not transactional");
        channel.tx_select().unwrap();
        channel.tx_select().unwrap();
        assert_eq!(channel.confirm_select().unwrap_err().text, "cannot switch from tx to confirm mode");
    }
}
