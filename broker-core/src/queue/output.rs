//! What a queue wants done.

use std::sync::Arc;

use super::{ChannelKey, ConsumerKey, StoredEntry};
use crate::dead_letter::Reason;
use crate::message::{Content, Message};
use crate::store::{RunId, Seq};

/// Where a queue puts what comes of an input. Deliveries come by the million: they are carried out as they come up, without being written down.
pub trait Outlet {
    /// Sends a message to a consumer.
    fn deliver(&mut self, delivery: Delivery<'_>);
    /// Everything else, to be carried out after the step.
    fn outputs(&mut self) -> &mut Vec<Output>;
}

/// A message for a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The consumer.
    pub key: ConsumerKey,
    /// Under this number it is settled; 0 when it need not be.
    pub queue_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The message.
    pub content: Content<'a>,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Answer a get.
    GetOk {
        /// The channel.
        channel: ChannelKey,
        /// Under this number it is settled; 0 when it need not be.
        queue_tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
        /// Ready messages left.
        remaining: u64,
        /// The message.
        message: Message,
    },
    /// Answer a get on an empty queue.
    GetEmpty(ChannelKey),
    /// The queue has taken responsibility for these publishes.
    Confirm {
        /// The publisher.
        channel: ChannelKey,
        /// First publish number.
        first: u64,
        /// Last publish number.
        last: u64,
    },
    /// The queue is full and has refused these publishes.
    Refuse {
        /// The publisher.
        channel: ChannelKey,
        /// First publish number.
        first: u64,
        /// Last publish number.
        last: u64,
    },
    /// The message is given up: publish what it becomes to the dead letter exchange, and when all queues it goes to have stored it, or when it goes
    /// to none, settle it here as acknowledged.
    DeadLetter {
        /// Under this number it is settled; 0: it never was in the queue.
        queue_tag: u64,
        /// Why it is given up.
        reason: Reason,
        /// The message.
        message: Message,
    },
    /// The queue was not used for as long as it may be: it is to be deleted.
    Unused,
    /// So many messages were purged.
    Purged(u64),
    /// Something is to be stored: call [`Queue::flush`] when the journal can take it.
    NeedsFlush,
    /// Write these messages as a run, and answer [`Input::Paged`].
    Page {
        /// Names this page-out.
        ticket: u64,
        /// The messages, in order of their places.
        entries: Arc<[StoredEntry]>,
        /// It answers [`Input::PageThrough`] with this place: it must be on disk before it is answered.
        through: Option<Seq>,
    },
    /// Nothing had to be paged out for [`Input::PageThrough`] with this place.
    NothingToPage(Seq),
    /// Read from a run, and answer [`Input::Loaded`].
    Load {
        /// The run.
        run: RunId,
        /// From this place on.
        from: Seq,
        /// About so many octets.
        max_bytes: usize,
    },
    /// Messages that were paged out are settled: the store may forget them.
    Forget {
        /// First place.
        first: Seq,
        /// Last place.
        last: Seq,
    },
    /// The last consumer is gone.
    LastConsumerGone,
}

/// What a queue hands to the journal.
pub trait JournalSink {
    /// Store a message.
    fn enqueue(&mut self, seq: Seq, expires_ms: u64, message: &Message);
    /// Messages that were stored are settled.
    fn settle(&mut self, first: Seq, last: Seq);
    /// Stored messages may have been delivered (written at a clean stop).
    fn delivered(&mut self, first: Seq, last: Seq);
    /// Whether further messages should wait for the next [`Queue::flush`].
    fn is_full(&self) -> bool {
        false
    }
}
