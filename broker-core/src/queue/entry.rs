//! A message in a queue: where it is, and what is to be known of it.

use super::StoredEntry;
use crate::message::{Content, Message};
use crate::store::{RunId, Seq};

/// A ready message in memory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub seq: Seq,
    pub message: Message,
    pub place: Place,
    /// When it expires, in milliseconds since 1970; 0: never.
    pub expires_ms: u64,
    pub lane: u8,
    pub redelivered: bool,
    /// Must survive a restart: persistent, in a durable queue.
    pub stored: bool,
}

/// A message that was delivered and is not settled.
#[derive(Debug)]
pub(super) struct Unacked {
    pub seq: Seq,
    /// `None` while only the store has it.
    pub message: Option<Message>,
    pub place: Place,
    pub expires_ms: u64,
    pub consumer: u64,
    /// Octets of its body, as far as they can be counted.
    pub body_bytes: u32,
    pub lane: u8,
    pub redelivered: bool,
    pub stored: bool,
}

/// The consumer of a message taken by a get, which no consumer's prefetch counts.
pub(super) const NO_CONSUMER: u64 = 0;
/// The consumer of a message on its way to a dead letter exchange.
pub(super) const LETTER: u64 = u64::MAX;
/// The consumer of a message that is held back.
pub(super) const HELD: u64 = u64::MAX - 1;

/// Whether a message in memory is also in a run: in none, on its way to one with a page-out, or in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    pub const MEMORY: Place = Place(0);
    const ON_ITS_WAY: u64 = 1 << 63;

    pub fn on_its_way(ticket: u64) -> Place {
        Place(ticket | Place::ON_ITS_WAY)
    }

    pub fn in_run(run: RunId) -> Place {
        Place(run.0)
    }

    pub fn run(self) -> Option<RunId> {
        (self.0 & Place::ON_ITS_WAY == 0 && self != Place::MEMORY).then_some(RunId(self.0))
    }

    /// The store is to hear when the message is settled.
    pub fn is_paged(self) -> bool {
        self != Place::MEMORY
    }
}

impl Unacked {
    pub fn new(entry: Entry, consumer: u64) -> Unacked {
        let Entry { seq, message, place, expires_ms, lane, redelivered, stored } = entry;
        let body_bytes = u32::try_from(Content::Kept(&message).body_bytes()).unwrap_or(u32::MAX);
        Unacked { seq, message: Some(message), place, expires_ms, consumer, body_bytes, lane, redelivered, stored }
    }

    pub fn memory(&self) -> usize {
        self.message.as_ref().map_or(0, Message::memory)
    }

    /// As it is handed to the store, while it is in memory.
    pub fn stored_entry(&self) -> Option<StoredEntry> {
        let Unacked { seq, expires_ms, lane, redelivered, stored, .. } = *self;
        let message = self.message.clone()?;
        Some(StoredEntry { seq, redelivered, persistent: stored, lane, expires_ms, message })
    }
}

impl Entry {
    /// As it comes back from the store or from a page on its way there.
    pub fn from_stored(entry: StoredEntry, place: Place) -> Entry {
        let StoredEntry { seq, redelivered, persistent, lane, expires_ms, message } = entry;
        Entry { seq, message, place, expires_ms, lane, redelivered, stored: persistent }
    }

    /// Octets of its body.
    pub fn body_bytes(&self) -> u64 {
        Content::Kept(&self.message).body_bytes()
    }
}

/// As it is handed to the store.
pub(super) fn stored_entry(entry: Entry) -> StoredEntry {
    let Entry { seq, message, expires_ms, lane, redelivered, stored, .. } = entry;
    StoredEntry { seq, redelivered, persistent: stored, lane, expires_ms, message }
}
