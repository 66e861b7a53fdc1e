//! The numbers that queue and store share.

use std::fmt;

/// A queue, for ever: a queue declared again under the same name is another queue with another id, so nothing of the old one comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A message's place in its queue. Grows with every message and is never handed out twice.
pub type Seq = u64;

/// No number of a message, a commit, a block or a file comes near this, whatever the load. A file in which one is greater is not
/// believed there, so that counting on from what is believed never overflows.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// A run of messages of one queue in a segment. Stays the same when the run is copied to another segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl fmt::Display for QueueId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "queue {}", self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "run {}", self.0)
    }
}
