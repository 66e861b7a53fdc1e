//! What a shard has to tell the journal until the next commit.

use super::super::record::{Encoder, Key, Kind};
use super::super::{EntryFlags, QueueId, Ranges, Seq};
use crate::message::Message;

/// What a batch's buffer may keep for the next one.
const KEEP_BYTES: usize = 4 * 1024 * 1024;

/// A batch with so many octets takes no more messages: they wait for the next.
pub const COMMIT_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Records of one shard on their way into the journal, encoded as they will lie there.
#[derive(Debug)]
pub struct JournalBatch {
    pub(super) records: Encoder,
    pub(super) key: Key,
    enqueues: u64,
    /// Queues with the highest number enqueued (0 if none was), the same queue perhaps more than once.
    pub(super) touched: Vec<(QueueId, Seq)>,
}

impl JournalBatch {
    pub(super) fn new(key: Key) -> Self {
        JournalBatch { records: Encoder::default(), key, enqueues: 0, touched: Vec::new() }
    }

    /// A message entered a queue and must outlive a restart. The numbers of one queue must grow. `expires_ms` is 0 if it never expires.
    pub fn enqueue(&mut self, queue: QueueId, seq: Seq, redelivered: bool, expires_ms: u64, message: &Message) {
        let flags = EntryFlags::of(redelivered, false);
        self.records.message(Kind::Enqueue, (queue, seq, expires_ms), flags, message, self.key);
        self.enqueues += 1;
        self.touch(queue, seq);
    }

    /// Every message of the queue numbered `first` to `last` (both included) that was ever enqueued is done with.
    pub fn settle(&mut self, queue: QueueId, first: Seq, last: Seq) {
        self.range(Kind::Settle, queue, first, last);
    }

    /// The messages of the queue numbered `first` to `last` (both included) may have been delivered. Told before a clean stop only: after any
    /// other stop all messages count as such.
    pub fn delivered(&mut self, queue: QueueId, first: Seq, last: Seq) {
        self.range(Kind::Delivered, queue, first, last);
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether someone waits for it to be durable: it has messages in it.
    pub fn needs_sync(&self) -> bool {
        self.enqueues > 0
    }

    /// Whether further messages should wait for the next commit.
    pub fn is_full(&self) -> bool {
        self.bytes() >= COMMIT_MAX_BYTES
    }

    /// Octets it will take in the journal.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    pub(super) fn queue_state(&mut self, queue: QueueId, settled: &Ranges, delivered: &Ranges) {
        self.records.record(Kind::QueueState, 0, self.key, |out| {
            out.extend_from_slice(&queue.0.to_le_bytes());
            settled.encode(out);
            delivered.encode(out);
        });
        self.touch(queue, 0);
    }

    pub(super) fn clean_stop(&mut self) {
        self.records.record(Kind::CleanStop, 0, self.key, |_| {});
    }

    /// Ready for the next commit.
    pub(super) fn reuse(&mut self, key: Key) {
        self.records.clear(KEEP_BYTES);
        self.touched.clear();
        self.enqueues = 0;
        self.key = key;
    }

    fn range(&mut self, kind: Kind, queue: QueueId, first: Seq, last: Seq) {
        self.records.record(kind, 0, self.key, |out| {
            for number in [queue.0, first, last] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        });
        self.touch(queue, 0);
    }

    fn touch(&mut self, queue: QueueId, seq: Seq) {
        match self.touched.last_mut() {
            Some((last, highest)) if *last == queue => *highest = (*highest).max(seq),
            _ => self.touched.push((queue, seq)),
        }
    }
}
