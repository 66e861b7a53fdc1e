//! What happens to a queue, and what is said with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

#[cfg(doc)]
use super::CONSUMER_ROOM_BYTES;
use super::Rules;
use crate::message::{Content, Message};
use crate::store::{Ranges, RunId, Seq};

/// A channel of a client connection on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    /// The connection's number, never used twice by a node.
    pub connection: u64,
    /// The channel's number in it.
    pub channel: u16,
}

/// A consumer: its channel, and the number its connection knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// The channel it was started on.
    pub channel: ChannelKey,
    /// Its number, unique in the connection.
    pub consumer: u32,
}

/// What a channel's consumers may hold together (`basic.qos` with global set): shared by the channel and the queues its consumers are on.
#[derive(Debug)]
pub struct ChannelLimit {
    room: AtomicI64,
}

impl ChannelLimit {
    /// A limit with this much room.
    pub fn new(room: i64) -> Self {
        ChannelLimit { room: AtomicI64::new(room) }
    }

    /// Takes room for one delivery if there is any.
    pub fn try_take(&self) -> bool {
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| (room > 0).then(|| room - 1)).is_ok()
    }

    /// Adds room (or, negative, takes it away when the limit is lowered).
    pub fn add(&self, room: i64) {
        self.room.fetch_add(room, Ordering::Relaxed);
    }
}

/// One message on its way into the queue.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Who published it.
    pub channel: ChannelKey,
    /// Its publish number, 0 when the channel does not want confirms.
    pub publish_seq: u64,
    /// The message.
    pub content: Content<'a>,
}

/// What a new consumer asks for.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// Who it is.
    pub key: ConsumerKey,
    /// Deliveries need no acknowledgement.
    pub no_ack: bool,
    /// No other consumer beside it.
    pub exclusive: bool,
    /// Unacknowledged deliveries it may hold, 0 for no limit.
    pub prefetch: u16,
    /// Consumers with a higher one get everything while they have room.
    pub priority: i64,
    /// Octets it may be sent before the driver gives it room again: [`CONSUMER_ROOM_BYTES`], or less where many share a connection.
    pub room_bytes: i64,
    /// The limit it shares with the other consumers of its channel.
    pub limit: Option<Arc<ChannelLimit>>,
}

/// How a client settled deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: the messages are gone.
    Ack,
    /// Back to their places, marked as redelivered.
    Requeue,
    /// Back to their places as they were: they never reached the client.
    Undelivered,
    /// Rejected without requeue: the messages are gone (dead-lettered where the queue says so).
    Discard,
}

/// A message with its place, as the store hands it back.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Its place.
    pub seq: Seq,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// It survives a restart.
    pub persistent: bool,
    /// Its lane.
    pub lane: u8,
    /// When it expires, in milliseconds since 1970; 0: never.
    pub expires_ms: u64,
    /// The message.
    pub message: Message,
}

/// What a queue finds of itself in the store at start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The place the next message takes.
    pub next_seq: Seq,
    /// Its messages, all of them ready, lane by lane.
    pub lanes: Vec<RecoveredLane>,
    /// Octets of their bodies, about.
    pub body_bytes: u64,
    /// The number of its first delivery, if not 1: beyond those of earlier starts, whose deliveries may yet be settled by clients of other nodes.
    pub first_tag: u64,
    /// Places of messages that may have been delivered before the node stopped.
    pub redelivered: Ranges,
    /// Some of the messages may expire.
    pub expires: bool,
}

/// What a queue finds in one of its lanes at start.
#[derive(Clone, Debug, Default)]
pub struct RecoveredLane {
    /// Which lane.
    pub lane: u8,
    /// How many messages.
    pub messages: u64,
    /// Where they lie: stretches that do not overlap.
    pub stretches: Vec<Stretch>,
}

/// A stretch of a run: what of it has places from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The run.
    pub run: RunId,
    /// First place.
    pub first: Seq,
    /// Last place.
    pub last: Seq,
}

/// What happens to a queue.
#[derive(Debug)]
pub enum Input {
    /// A client settled the deliveries `first..=last` (queue tags); those already settled or unknown are passed over.
    Settle {
        /// First queue tag.
        first: u64,
        /// Last queue tag.
        last: u64,
        /// What becomes of them.
        outcome: Outcome,
    },
    /// A consumer starts; the driver has asked [`Queue::may_consume`] before.
    Consume(ConsumerSettings),
    /// A consumer ends. What it holds stays unacked until its channel settles it.
    Cancel(ConsumerKey),
    /// The driver has sent what a consumer was given: it may get this many octets more, up to what it had at first.
    Room {
        /// The consumer.
        key: ConsumerKey,
        /// Octets.
        bytes: i64,
    },
    /// From now on a consumer shares a limit with the others of its channel.
    Limit {
        /// The consumer.
        key: ConsumerKey,
        /// The limit.
        limit: Arc<ChannelLimit>,
    },
    /// A channel limit has room again.
    LimitRoom(ConsumerKey),
    /// A client asks for one message.
    Get {
        /// Its channel.
        channel: ChannelKey,
        /// It will not acknowledge.
        no_ack: bool,
    },
    /// All ready messages are to be forgotten; answered by [`Output::Purged`].
    Purge,
    /// The queue is deleted: publishers and gets that wait are answered. The driver drops the queue afterwards.
    Delete,
    /// Everything handed out by [`Queue::flush`] up to this place is stored.
    Stored(Seq),
    /// A page-out is written.
    Paged {
        /// The number of the [`Output::Page`].
        ticket: u64,
        /// Where it lies: stretches that do not overlap, in order.
        stretches: Vec<Stretch>,
    },
    /// What [`Output::Load`] asked for.
    Loaded {
        /// The run it came from.
        run: RunId,
        /// From where it was asked for.
        from: Seq,
        /// The messages, in order.
        entries: Vec<StoredEntry>,
        /// Where to go on, `None` at the end of the run.
        next: Option<Seq>,
        /// Ranges of messages that cannot be read any more: the disk has damaged them.
        lost: Vec<(Seq, Seq)>,
    },
    /// The journal wants to reuse a file: persistent messages up to this place that are in no run must be written to one. Answered by a page-out
    /// or by [`Output::NothingToPage`].
    PageThrough(Seq),
    /// Ready messages may take this many octets of memory from now on.
    Pressure(usize),
    /// The queue's arguments and policies ask for this from now on.
    Rules(Arc<Rules>),
    /// A client has declared the queue again: it counts as used.
    Used,
    /// [`Queue::next_timeout`](super::Queue::next_timeout) has come.
    Time,
}
