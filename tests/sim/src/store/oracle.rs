//! What the store has promised.

use std::collections::BTreeMap;

use broker_core::message::Message;
use broker_core::queue::{Lanes, StoredEntry};
use broker_core::store::{QueueId, Seq};

/// How far something has come on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not handed in.
    No,
    /// In a batch.
    Batched,
    /// Written, but the store has not said that it is durable.
    Written,
    /// Promised.
    Durable,
}

/// A message that was published.
#[derive(Clone, Debug)]
pub struct Known {
    /// Octets of its body.
    pub body_len: usize,
    /// It outlives a restart.
    pub persistent: bool,
    /// It was flagged, or will have to be, when it is handed out.
    pub flagged: bool,
    /// In the journal.
    pub enqueued: Stage,
    /// It was tried to write it into a run.
    pub paging: bool,
    /// In a run.
    pub paged: bool,
    /// Done with.
    pub settled: Stage,
}

/// A queue that exists.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The number of its next message.
    pub next_seq: Seq,
    /// What was published to it.
    pub messages: BTreeMap<Seq, Known>,
}

/// All queues that exist.
pub type Oracle = BTreeMap<QueueId, Model>;

impl Known {
    /// It must be there after a crash.
    pub fn promised(&self) -> bool {
        self.persistent && self.settled == Stage::No && (self.enqueued == Stage::Durable || self.paged)
    }

    /// It must not be there after a crash.
    pub fn gone(&self) -> bool {
        !self.persistent || self.settled == Stage::Durable || (self.enqueued == Stage::No && !self.paging)
    }

    /// Nobody began to settle it.
    pub fn alive(&self) -> bool {
        self.settled == Stage::No
    }
}

/// The message of a place: its content follows from the place, so that any mix-up shows.
pub fn message(queue: QueueId, seq: Seq, body_len: usize) -> Message {
    let mut body = Vec::with_capacity(body_len + 16);
    while body.len() < body_len {
        body.extend_from_slice(&(queue.0 << 48 | seq).to_le_bytes());
    }
    body.truncate(body_len);
    // Its one property is the priority.
    let mut header = [0_u8; 15];
    header[4..12].copy_from_slice(&(body_len as u64).to_be_bytes());
    header[12] = 1 << 3;
    header[14] = (seq % 5) as u8;
    let key = seq.to_string();
    let route: Vec<u8> = [&[1, b'x', key.len() as u8], key.as_bytes()].concat();
    // The parts are well formed, so there is a message.
    Message::new(&route, &header, &body, true, &mut Vec::new()).unwrap_or_else(|| unreachable!())
}

/// Every second queue has priorities.
pub fn lanes(queue: QueueId) -> Lanes {
    Lanes { highest: if queue.0.is_multiple_of(2) { 0 } else { 2 } }
}

/// When the message of a place expires: every third does.
pub fn expires_ms(seq: Seq) -> u64 {
    if seq.is_multiple_of(3) { 1_000_000 + seq } else { 0 }
}

/// The message as it is paged out.
pub fn entry(queue: QueueId, seq: Seq, known: &Known) -> StoredEntry {
    let message = message(queue, seq, known.body_len);
    let (lane, expires_ms) = (lanes(queue).of(message.header()), expires_ms(seq));
    StoredEntry { seq, redelivered: known.flagged, persistent: known.persistent, lane, expires_ms, message }
}
