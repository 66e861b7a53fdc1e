//! What the clients of one round saw.

use std::time::Instant;

use super::message::{MessageId, Route};

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Neither confirmed nor refused: it may be there or not.
    Unknown,
    /// basic.ack came.
    Confirmed,
    /// basic.nack came.
    Refused,
}

/// One publish.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Which message.
    pub id: MessageId,
    /// Where to.
    pub route: Route,
    /// What became of it.
    pub fate: Fate,
}

/// One delivery.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// From which queue.
    pub queue: u8,
    /// To which consumer; a consumer that starts again is another one.
    pub session: u32,
    /// Which message; `None` if its body is nobody's.
    pub id: Option<MessageId>,
    /// The flag that came with it.
    pub redelivered: bool,
    /// When it came.
    pub at: Instant,
    /// True once we sent an acknowledgement.
    pub acknowledged: bool,
    /// When a later call on the channel was answered, so that the broker had read the acknowledgement.
    pub settled_at: Option<Instant>,
}

/// Everything that the clients of one round saw.
#[derive(Debug, Default)]
pub struct History {
    /// All publishes, by producer in order.
    pub attempts: Vec<Attempt>,
    /// All deliveries, by consumer in order.
    pub deliveries: Vec<Delivery>,
    /// Consumers that drained a restarted queue alone and gave nothing back: they see everything in publish order.
    pub draining_sessions: Vec<u32>,
    /// When each strike began and when the broker was gone. What it did in between is neither before nor after.
    pub faults: Vec<(Instant, Instant)>,
    /// What a client met before the broker was struck, or after it was back.
    pub client_errors: Vec<String>,
    /// Ready messages that a queue still counted when it was drained.
    pub left_over: Vec<(u8, u32)>,
}

impl History {
    /// Adds what a consumer saw that the last strike ended. What it read after the strike had begun had been sent before, however late
    /// a starved client came to read it: it says nothing of what the broker did after that.
    pub fn add_struck(&mut self, deliveries: Vec<Delivery>) {
        let begun = self.faults.last().map(|(begun, _)| *begun);
        let sent = |read: Instant| begun.map_or(read, |begun| read.min(begun));
        self.deliveries.extend(deliveries.into_iter().map(|delivery| Delivery {
            at: sent(delivery.at),
            settled_at: delivery.settled_at.map(sent),
            ..delivery
        }));
    }
}
