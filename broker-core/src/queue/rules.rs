//! What a queue's arguments and policies ask of it.

use crate::arguments::{Overflow, QueueArguments, QueueType};
use crate::properties;

/// See the module's page. Shared by the queues that ask for the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Milliseconds a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// Milliseconds the queue may be unused.
    pub expires_ms: Option<u64>,
    /// Messages that may be ready.
    pub max_length: Option<u64>,
    /// Octets of bodies that may be ready.
    pub max_length_bytes: Option<u64>,
    /// What happens beyond that.
    pub overflow: Overflow,
    /// Messages that are given up become dead letters.
    pub has_dead_letters: bool,
    /// Deliveries are counted and told to consumers in the header `x-delivery-count`: it is a quorum queue.
    pub counts_deliveries: bool,
    /// Returns of a message after which it is given up.
    pub delivery_limit: Option<u64>,
    /// One consumer gets everything; the others wait for its end.
    pub single_active_consumer: bool,
    /// Messages are held back for their delay and given up when it is over: it belongs to an exchange of type x-delayed-message.
    pub holds_back: bool,
    /// How many priorities are told apart.
    pub lanes: Lanes,
}

/// The lanes of a queue: messages of higher ones are delivered first, those of one lane in order. A queue without priorities has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    /// The highest lane; the lowest is 0.
    pub highest: u8,
}

impl Rules {
    /// What these arguments ask for.
    pub fn of(arguments: &QueueArguments) -> Rules {
        Rules {
            message_ttl_ms: arguments.message_ttl_ms,
            expires_ms: arguments.expires_ms,
            max_length: arguments.max_length,
            max_length_bytes: arguments.max_length_bytes,
            overflow: arguments.overflow,
            has_dead_letters: arguments.dead_letter_exchange.is_some(),
            counts_deliveries: arguments.queue_type == QueueType::Quorum,
            delivery_limit: arguments.delivery_limit,
            single_active_consumer: arguments.single_active_consumer,
            holds_back: false,
            lanes: Lanes { highest: arguments.max_priority },
        }
    }

    /// What an exchange asks of the queue that holds its messages back.
    pub fn holding_back() -> Rules {
        Rules { holds_back: true, has_dead_letters: true, ..Rules::default() }
    }

    /// Whether a publish has to be looked at more closely than its expiration.
    pub(super) fn watch_publishes(&self) -> bool {
        self.message_ttl_ms.is_some() || self.refuses() || self.holds_back
    }

    /// Publishes beyond the limit are refused.
    pub(super) fn refuses(&self) -> bool {
        self.overflow != Overflow::DropHead && (self.max_length.is_some() || self.max_length_bytes.is_some())
    }

    /// Whether so many ready messages with bodies of so many octets are too many.
    pub(super) fn exceeded_by(&self, messages: u64, body_bytes: u64) -> bool {
        self.max_length.is_some_and(|max| messages > max) || self.max_length_bytes.is_some_and(|max| body_bytes > max)
    }
}

impl Lanes {
    /// The lane of a message with this content header: its priority, 0 without one, and no more than there are.
    #[inline]
    pub fn of(self, header: &[u8]) -> u8 {
        if self.highest == 0 { 0 } else { properties::priority(header).unwrap_or(0).min(self.highest) }
    }
}
