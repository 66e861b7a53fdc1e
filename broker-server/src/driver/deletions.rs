//! Deletions of queues that the catalog refuses because its disk is full. A queue whose deletion was asked for stays, and who asked is told. One that
//! goes by itself, with its last consumer or its connection or its time, has nobody to tell: its deletion is proposed again until there is room.

use std::time::{Duration, Instant};

use broker_core::store::QueueId;
use broker_meta::catalog::is_announced;
use broker_meta::command;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::queues::Leaving;
use super::requests::Waiter;
use super::shard::Shard;

/// So long a refused deletion waits until it is proposed again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the module's page.
#[derive(Default)]
pub(super) struct Deletions {
    /// What was proposed together, by the proposal's number: as many as the proposals on their way.
    proposed: HashMap<u64, Vec<QueueId>, RandomState>,
    /// Queues that go by themselves and were refused: each queue of the node once at most.
    refused: Vec<QueueId>,
    again_at: Option<Instant>,
}

impl Deletions {
    /// When refused ones are proposed again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// The queues whose deletion this proposal was, if it was one. It is answered now.
    pub(super) fn answered(&mut self, proposal: u64) -> Option<Vec<QueueId>> {
        self.proposed.remove(&proposal)
    }
}

impl Shard {
    /// Asks the catalog to delete queues that are marked as leaving.
    pub(super) fn propose_deletion(&mut self, ids: Vec<QueueId>, waiter: Waiter) {
        // Of a connection, or of one request: they are in the log all, or none is.
        if ids.first().is_some_and(|id| is_announced(*id)) {
            return self.announce(&command::announce_deletion(ids), None, waiter);
        }
        self.deletions.proposed.insert(self.next_proposal, ids.clone());
        self.propose(command::delete_queues(ids), waiter);
    }

    /// The catalog has refused to delete these queues.
    pub(super) fn deletion_refused(&mut self, ids: Vec<QueueId>) {
        for id in ids {
            let Some(local) = self.queues.get_mut(&id) else { continue };
            match local.leaving {
                Leaving::No => {}
                Leaving::Asked => local.leaving = Leaving::No,
                Leaving::ByItself => {
                    self.deletions.refused.push(id);
                    self.deletions.again_at.get_or_insert(self.now + AGAIN_AFTER);
                }
            }
        }
    }

    /// Proposes again what was refused, if it is time.
    pub(super) fn delete_again(&mut self) {
        if self.deletions.again_at.is_some_and(|at| self.now >= at) {
            self.deletions.again_at = None;
            let ids = std::mem::take(&mut self.deletions.refused);
            self.propose_deletion(ids, Waiter::Nobody);
        }
    }
}
