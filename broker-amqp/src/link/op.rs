//! The operations of a link.

use broker_core::message::Content;
use broker_core::queue::{ChannelKey, ConsumerKey, Delivery, Outcome, Publish};
use broker_core::store::QueueId;

/// What one node tells the other. A [`ChannelKey`] is a channel of the client's node, wherever it stands.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    // From the client's node to that of the queue:
    /// Messages for queues of the receiver, which came one behind the other.
    Publish {
        /// The queues, each once: the same for all of the messages.
        queues: Queues<'a>,
        /// The messages, and who published them; at least one.
        publishes: &'a [Publish<'a>],
    },
    /// A consumer starts. Answered by [`Op::Answer`] or [`Op::Refusal`].
    Consume {
        /// Names the question.
        request: u64,
        /// The queue.
        queue: QueueId,
        /// Who it is.
        key: ConsumerKey,
        /// Its deliveries need no acknowledgement.
        no_ack: bool,
        /// No other consumer beside it.
        exclusive: bool,
        /// Unacknowledged deliveries it may hold; 0: any.
        prefetch: u16,
        /// Consumers with a higher one are served first.
        priority: i64,
        /// Octets it may be sent before it is given room.
        room_bytes: i64,
    },
    /// A consumer ends. What it holds stays unacknowledged until it is settled.
    Cancel {
        /// Its queue.
        queue: QueueId,
        /// Who it was.
        key: ConsumerKey,
    },
    /// Deliveries are settled.
    Settle {
        /// Their queue.
        queue: QueueId,
        /// First queue tag.
        first: u64,
        /// Last queue tag.
        last: u64,
        /// What becomes of them.
        outcome: Outcome,
    },
    /// A consumer may be sent so many octets more.
    Room {
        /// Its queue.
        queue: QueueId,
        /// Who it is.
        key: ConsumerKey,
        /// Octets.
        bytes: i64,
    },
    /// One message is asked for. Answered by [`Op::Got`] or [`Op::GotNothing`].
    Get {
        /// The queue.
        queue: QueueId,
        /// Who asks.
        channel: ChannelKey,
        /// It will not acknowledge.
        no_ack: bool,
    },
    /// All ready messages are to go. Answered by [`Op::Answer`] with their number.
    Purge {
        /// Names the question.
        request: u64,
        /// The queue.
        queue: QueueId,
    },
    /// How many messages and consumers are there? To ask is to use the queue.
    Count {
        /// Names the question.
        request: u64,
        /// The queue.
        queue: QueueId,
    },

    // From the queue's node to that of the client:
    /// Messages for consumers of the receiver, which came one behind the other.
    Deliver {
        /// Where they come from.
        queue: QueueId,
        /// The messages, and whose they are; at least one.
        deliveries: &'a [Delivery<'a>],
    },
    /// The message that was asked for.
    Got(Got<'a>),
    /// There was none.
    GotNothing {
        /// The queue.
        queue: QueueId,
        /// Who asked.
        channel: ChannelKey,
    },
    /// A queue has taken responsibility for publishes.
    Confirmed {
        /// Who published them.
        channel: ChannelKey,
        /// First publish number.
        first: u64,
        /// Last publish number.
        last: u64,
    },
    /// A queue has refused publishes.
    Refused {
        /// Who published them.
        channel: ChannelKey,
        /// First publish number.
        first: u64,
        /// Last publish number.
        last: u64,
    },
    /// A question is answered.
    Answer {
        /// Which.
        request: u64,
        /// Ready messages: those there are, or those that were purged.
        messages: u64,
        /// Consumers there are.
        consumers: u64,
    },
    /// A question cannot be answered as its channel would like.
    Refusal {
        /// Which.
        request: u64,
        /// AMQP's reply code.
        code: u16,
        /// What the client is told, of at most 255 octets.
        text: &'a str,
    },

    // Either way:
    /// Messages of so many octets were taken. The link keeps this for itself.
    Credit {
        /// Octets.
        octets: u64,
    },
    /// Something of the sender's exclusive queues. Answered by [`Op::Answer`] or [`Op::Refusal`] once the receiver routes by it.
    Announce {
        /// Names the question; 0: it is not to be answered.
        request: u64,
        /// What it is: not this crate's to know. Of at most [`ANNOUNCEMENT_MAX_BYTES`](super::ANNOUNCEMENT_MAX_BYTES).
        octets: &'a [u8],
    },
    /// How many connections and channels the sender has now of a vhost or a user.
    Tally {
        /// Whose they are.
        of: TallyOf,
        /// Its name.
        name: &'a str,
        /// Connections.
        connections: u64,
        /// Their channels; of a user only.
        channels: u64,
    },
    /// The publish that comes next is for no queue: an exchange keeps it for queues to come.
    Kept {
        /// The exchange's vhost.
        vhost: &'a str,
        /// Its name.
        exchange: &'a str,
    },
    /// The publish that comes next is a direct reply for the channel of this address, whatever its routing key.
    Reply {
        /// The address, as it was given to the client.
        address: &'a [u8],
    },
    /// Is there a channel of this address? Answered by [`Op::Answer`] or [`Op::Refusal`].
    Requester {
        /// Names the question.
        request: u64,
        /// The address, as it was given to the client.
        address: &'a [u8],
    },
    /// The sender's catalog has come so far.
    Applied {
        /// Index of the last entry it has applied.
        index: u64,
    },
}

/// What connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TallyOf {
    /// A vhost.
    Vhost,
    /// A user.
    User,
}

/// The answer to [`Op::Get`].
#[derive(Clone, Copy, Debug)]
pub struct Got<'a> {
    /// Where it comes from.
    pub queue: QueueId,
    /// Who asked.
    pub channel: ChannelKey,
    /// Under this number it is settled; 0 when it need not be.
    pub queue_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Ready messages left.
    pub remaining: u64,
    /// The message.
    pub content: Content<'a>,
}

/// Queues as they lie in the octets read, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues<'a>(pub(super) &'a [u8]);

impl<'a> Queues<'a> {
    /// Those that [`Queues::octets`] gave.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// To be kept.
    pub fn octets(&self) -> &'a [u8] {
        self.0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = QueueId> {
        self.0.as_chunks::<8>().0.iter().map(|octets| QueueId(u64::from_be_bytes(*octets)))
    }
}
