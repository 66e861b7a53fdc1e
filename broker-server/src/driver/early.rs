//! What another node says of queues that are in the catalog there and not yet here: its log is ahead. It waits, and with it whatever else that node says
//! of queues, so that a channel's operations stay in their order. To take a queue for deleted would be to confirm a message and lose it.

use std::collections::VecDeque;

use broker_amqp::link::{Op, Queues};
use broker_core::message::{Content, Message};
use broker_core::queue::{ChannelKey, Publish};
use broker_core::store::QueueId;
use broker_meta::catalog::is_announced;

use super::links::NO_QUEUE;

/// Operations that wait, in their order. Messages are given no credit for, and a channel waits for each other answer: there are not many.
#[derive(Default)]
pub(super) struct Early(VecDeque<Held>);

/// One that waits.
pub(super) enum Held {
    Publish { queues: Box<[u8]>, channel: ChannelKey, publish_seq: u64, message: Message },
    Other(Op<'static>),
}

impl Early {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the operation back if it need not wait. The catalog's last entry here is `index`: a queue has the number of the entry that made it.
    #[inline]
    pub fn hold<'a>(&mut self, index: u64, op: Op<'a>) -> Option<Op<'a>> {
        if self.0.is_empty() && !is_early(index, &op) || is_for_no_queue(&op) {
            return Some(op);
        }
        let held = match op {
            Op::Publish { queues, publishes } => {
                self.0.extend(publishes.iter().map(|publish| {
                    let Publish { channel, publish_seq, content } = *publish;
                    Held::Publish { queues: queues.octets().into(), channel, publish_seq, message: content.keep() }
                }));
                return None;
            }
            Op::Consume { request, queue, key, no_ack, exclusive, prefetch, priority, room_bytes } => {
                Held::Other(Op::Consume { request, queue, key, no_ack, exclusive, prefetch, priority, room_bytes })
            }
            Op::Cancel { queue, key } => Held::Other(Op::Cancel { queue, key }),
            Op::Get { queue, channel, no_ack } => Held::Other(Op::Get { queue, channel, no_ack }),
            Op::Purge { request, queue } => Held::Other(Op::Purge { request, queue }),
            Op::Count { request, queue } => Held::Other(Op::Count { request, queue }),
            // They are about queues that both know, or about none.
            op => return Some(op),
        };
        self.0.push_back(held);
        None
    }

    /// The next one that need not wait any more.
    pub fn next(&mut self, index: u64) -> Option<Held> {
        self.0.pop_front_if(|held| !held.with(|op| is_early(index, &op)))
    }
}

impl Held {
    /// Hands it on as it was said.
    pub fn with<T>(&self, take: impl FnOnce(Op<'_>) -> T) -> T {
        match self {
            Held::Publish { queues, channel, publish_seq, message } => {
                let content = Content::Kept(message);
                let publish = Publish { channel: *channel, publish_seq: *publish_seq, content };
                take(Op::Publish { queues: Queues::new(queues), publishes: &[publish] })
            }
            Held::Other(op) => take(op.clone()),
        }
    }
}

fn is_for_no_queue(op: &Op<'_>) -> bool {
    matches!(op, Op::Publish { queues, .. } if queues.iter().eq([NO_QUEUE]))
}

fn is_early(index: u64, op: &Op<'_>) -> bool {
    let early = |queue: QueueId| queue.0 > index && !is_announced(queue);
    match op {
        Op::Publish { queues, .. } => queues.iter().any(early),
        Op::Consume { queue, .. }
        | Op::Cancel { queue, .. }
        | Op::Get { queue, .. }
        | Op::Purge { queue, .. }
        | Op::Count { queue, .. } => early(*queue),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn message(body: &[u8]) -> Message {
        Message::new(b"\0\x01q", &[0; 14], body, true, &mut Vec::new()).unwrap()
    }

    /// Whether it waits.
    fn publish(early: &mut Early, index: u64, queues: &[u64], publish_seq: u64) -> bool {
        let octets: Vec<u8> = queues.iter().flat_map(|queue| queue.to_be_bytes()).collect();
        let message = message(b"m");
        let channel = ChannelKey { connection: 1, channel: 1 };
        let publish = Publish { channel, publish_seq, content: Content::Kept(&message) };
        early.hold(index, Op::Publish { queues: Queues::new(&octets), publishes: &[publish] }).is_none()
    }

    #[test]
    fn what_is_said_of_a_queue_to_come_waits_and_nothing_overtakes_it() {
        let mut early = Early::default();
        assert!(!publish(&mut early, 10, &[10], 1));
        assert!(publish(&mut early, 10, &[10, 11], 2));
        assert!(publish(&mut early, 10, &[10], 3), "its channel's order is kept");
        assert!(early.hold(10, Op::Count { request: 1, queue: QueueId(5) }).is_none());
        assert!(early.hold(10, Op::Applied { index: 12 }).is_some());
        assert!(!publish(&mut early, 10, &[NO_QUEUE.0], 4), "a reply is ordered with no queue's messages");
        assert!(early.next(10).is_none());
        let seq = |held: Held| {
            held.with(|op| match op {
                Op::Publish { publishes: [publish], .. } => publish.publish_seq,
                _ => 0,
            })
        };
        let order: Vec<u64> = std::iter::from_fn(|| early.next(11)).map(seq).collect();
        assert_eq!(order, [2, 3, 0]);
        assert!(early.is_empty() && !publish(&mut early, 11, &[11], 4));
    }

    #[test]
    fn what_is_in_no_log_does_not_wait() {
        let mut early = Early::default();
        let announced = broker_meta::catalog::announced_id(broker_core::name::NodeId(1), 1, 1);
        assert!(!publish(&mut early, 10, &[announced.0], 1) && !publish(&mut early, 10, &[0], 2));
    }
}
