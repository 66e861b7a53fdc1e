//! The message store, and the only place of this crate that touches files.
//!
//! Every queue of the node shares one [`Journal`]: shards put what must be durable into a [`JournalBatch`], and one commit, with one sync, makes
//! the batches of all shards durable. What stays in a queue for long is paged out to [`Segments`] and leaves memory. At a start [`recover`] turns
//! journal and segments into segments alone. `docs/internals/store.md` draws the files octet by octet.
//!
//! Two threads: the journal's commits, the segments' page-outs and loads; neither waits for the other.

mod crash_point;
pub mod disk;
mod entry;
mod error;
mod file_head;
mod ids;
mod journal;
mod options;
mod ranges;
mod record;
mod recovery;
mod seeds;
mod segments;
#[cfg(any(test, feature = "sim"))]
mod tamper;
#[cfg(test)]
mod tests;
mod varint;
mod view;

pub(crate) use entry::EntryFlags;
pub use entry::{Page, Run};
pub use error::StoreError;
pub(crate) use ids::NUMBER_MAX;
pub use ids::{QueueId, RunId, Seq};
pub use journal::{COMMIT_MAX_BYTES, Journal, JournalBatch, QueueState, Spare, SpareMaker};
pub use options::{JOURNAL_BUDGET_BYTES, JOURNAL_FILE_BYTES, SEGMENT_FILE_BYTES, StoreOptions};
pub use ranges::Ranges;
pub use recovery::{Known, Recovered, RecoveredQueue, RecoveredRun, recover};
pub use segments::{Loaded, SegmentStats, Segments};
#[cfg(any(test, feature = "sim"))]
pub use tamper::tamper;
