//! The messages of the load: each says who it is, and its body follows from that.

use std::fmt;

/// Durable queues that are published to by name.
pub const DIRECT_QUEUES: u8 = 4;
/// Durable queues bound to the fanout exchange; they are numbered after the others.
pub const FANOUT_QUEUES: u8 = 2;
/// All queues.
pub const QUEUES: u8 = DIRECT_QUEUES + FANOUT_QUEUES;
/// The fanout exchange.
pub const FANOUT_EXCHANGE: &str = "crash.fanout";

const HEAD_BYTES: usize = 16;
/// Most bodies are at most this long.
const SMALL_BODY_BYTES: usize = 1_500;
/// One in `LARGE_EVERY` is this long, more than one frame.
const LARGE_BODY_BYTES: usize = 200_000;
const LARGE_EVERY: u64 = 499;

/// The name of queue `number`.
pub fn queue_name(number: u8) -> String {
    format!("crash.q{number}")
}

/// Where a message is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// One queue, by name.
    Queue(u8),
    /// The fanout exchange.
    Fanout,
}

impl Route {
    /// The queues it must arrive in.
    pub fn queues(self) -> std::ops::Range<u8> {
        match self {
            Route::Queue(number) => number..number + 1,
            Route::Fanout => DIRECT_QUEUES..QUEUES,
        }
    }
}

/// Which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The round that published it.
    pub round: u32,
    /// The producer, and so the channel, of that round.
    pub producer: u32,
    /// The place among the producer's publishes.
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "round {} producer {} message {}", self.round, self.producer, self.sequence)
    }
}

impl MessageId {
    /// The body: who it is, then octets that follow from that.
    pub fn body(self) -> Vec<u8> {
        let seed = u64::from(self.round) << 40 ^ u64::from(self.producer) << 32 ^ self.sequence;
        let mut random = fastrand::Rng::with_seed(seed);
        let length = match self.sequence % LARGE_EVERY {
            0 => LARGE_BODY_BYTES,
            _ => HEAD_BYTES + random.usize(0..SMALL_BODY_BYTES),
        };
        let mut body = Vec::with_capacity(length + 8);
        body.extend(self.round.to_be_bytes());
        body.extend(self.producer.to_be_bytes());
        body.extend(self.sequence.to_be_bytes());
        body.extend(random.u64(..).to_be_bytes().repeat(length.saturating_sub(HEAD_BYTES) / 8));
        body
    }

    /// Whose body this is, or `None` if no message has it.
    pub fn of_body(body: &[u8]) -> Option<MessageId> {
        let (round, rest) = body.split_first_chunk::<4>()?;
        let (producer, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, _) = rest.split_first_chunk::<8>()?;
        let id = MessageId {
            round: u32::from_be_bytes(*round),
            producer: u32::from_be_bytes(*producer),
            sequence: u64::from_be_bytes(*sequence),
        };
        (id.body() == body).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_body_says_whose_it_is() {
        for sequence in [0, 1, 499, 12_345] {
            let id = MessageId { round: 3, producer: 2, sequence };
            assert_eq!(MessageId::of_body(&id.body()), Some(id));
        }
    }

    #[test]
    fn a_changed_octet_is_nobody() {
        let mut body = MessageId { round: 3, producer: 2, sequence: 7 }.body();
        *body.last_mut().unwrap() ^= 1;
        assert_eq!(MessageId::of_body(&body), None);
        assert_eq!(MessageId::of_body(b"short"), None);
    }
}
