//! Messages on their way to segments, and where they went.

use std::sync::Arc;

use super::{QueueId, RunId, Seq};
use crate::queue::StoredEntry;

/// What the store keeps of a message besides its octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryFlags(pub u8);

impl EntryFlags {
    /// May have been delivered before.
    pub const REDELIVERED: EntryFlags = EntryFlags(1);
    /// Need not survive a restart: a transient message, or any message of a queue that is not durable.
    pub const TRANSIENT: EntryFlags = EntryFlags(2);
    /// The record says when the message expires. A matter of the record: what an index says of messages does not have it.
    pub const EXPIRES: EntryFlags = EntryFlags(4);
    /// The flags an index keeps.
    pub const INDEXED: u8 = EntryFlags::REDELIVERED.0 | EntryFlags::TRANSIENT.0;

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: EntryFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags these two conditions stand for.
    pub fn of(redelivered: bool, transient: bool) -> EntryFlags {
        EntryFlags(u8::from(redelivered) | u8::from(transient) << 1)
    }

    /// The flags of an entry.
    pub fn of_entry(entry: &StoredEntry) -> EntryFlags {
        EntryFlags::of(entry.redelivered, !entry.persistent)
    }
}

/// Messages of one queue and of one lane in it that leave memory.
#[derive(Clone, Debug)]
pub struct Page {
    /// Whose messages they are.
    pub queue: QueueId,
    /// The messages, their numbers growing. The queue holds them too until they are written.
    pub entries: Arc<[StoredEntry]>,
}

/// Messages of one queue that lie one after the other in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// By this it is read.
    pub id: RunId,
    /// Whose messages they are.
    pub queue: QueueId,
    /// The first message's number.
    pub first: Seq,
    /// The last message's number.
    pub last: Seq,
    /// How many messages; less than `last - first + 1` if numbers are missing between them.
    pub count: u64,
}
