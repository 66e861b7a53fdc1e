//! What becomes of a cluster whose majority is lost for good: one node that is left makes a new one out of its own log.
//!
//! The new cluster has another identity, so that the nodes that were given up have no part in it should they come back: neither their votes nor their entries are
//! taken. It has the catalog of the old one, with all entries that this node has: some may never have been acknowledged, and what was acknowledged and did
//! not reach this node is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use broker_core::name::NodeId;
use openraft::Membership;

use super::machine::State;
use super::store::{Begun, Identity, LogStore, OpenError, Writing};
use super::types::{Node, StoredMembershipOf, log_id, own_vote};
use crate::command;

/// What was made, and what of the old cluster is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// The number this node had, and keeps.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The cluster that was given up.
    pub old_cluster: [u8; 16],
    /// The nodes that are no members any more.
    pub lost: Vec<Lost>,
    /// Entries in the log that this node did not know to be committed. They are carried out.
    pub uncertain: u64,
}

/// A node that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its number.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Queues that lived on it.
    pub queues: u64,
}

/// Makes the log and the snapshot of a new cluster, in which this node is alone, out of those of a node that does not run. `from` is left as it is, but for the
/// count of its starts; `to` is empty. When this has returned, what is in `to` is on the disk.
pub fn force_boot(from: &Path, to: &Path, cluster: [u8; 16]) -> Result<Forced, OpenError> {
    // A disk that is an older copy is better than none.
    let chance = u32::from_be_bytes(cluster.first_chunk().copied().unwrap_or_default());
    let (store, Begun { identity, starts, .. }) = LogStore::open(from, Writing::Thread, chance)?;
    let read = read_all(&store, from);
    store.close();
    let (mut state, last_term, uncertain) = read?;
    let me = NodeId(identity.node);
    let members: Vec<_> = state.catalog().members().iter().cloned().collect();
    let own = members.iter().find(|member| member.node == me);
    let place = own.map(|member| Node { name: member.name.clone(), address: member.address.clone() });
    let place = place.or_else(|| state.node(identity.node)).unwrap_or_default();
    let mut lost = Vec::new();
    for member in members.iter().filter(|member| member.node != me) {
        let queues = state.catalog().topology().queues().filter(|queue| queue.node == member.node).count() as u64;
        lost.push(Lost { node: member.node.0, name: member.name.clone(), queues });
        state.change(&command::remove_member(member.node));
    }
    // A term of its own, in which nobody else was elected: what is in it was agreed on by the only voter.
    let term = last_term + 1;
    let index = state.last().map_or(0, |last| last.index) + 1;
    let last = log_id(term, index);
    let nodes = BTreeMap::from([(identity.node, place.clone())]);
    let membership = Membership::new(vec![BTreeSet::from([identity.node])], nodes);
    let membership = membership.map_err(|error| OpenError::Io(io::Error::other(error.to_string())))?;
    state.settle(last, StoredMembershipOf::new(Some(last), membership));
    state.write(to)?;
    let node = identity.node;
    let new = Identity { cluster, node };
    LogStore::create_after(to, &new, &starts, &own_vote(term, node), &last)?;
    Ok(Forced { node, name: place.name, old_cluster: identity.cluster, lost, uncertain })
}

type Read = (State, u64, u64);

/// The state after all entries of a log, the highest term in it, and how many of the entries were not known to be committed.
fn read_all(store: &LogStore, directory: &Path) -> Result<Read, OpenError> {
    let mut state = State::read(directory)?;
    let applied = state.last().map_or(0, |last| last.index);
    let committed = store.committed()?.map_or(0, |committed| committed.index).max(applied);
    let mut term =
        store.vote()?.map_or(0, |vote| vote.leader_id.term).max(state.last().map_or(0, |last| last.leader_id.term));
    let mut uncertain = 0;
    for entry in store.entries(applied + 1..)? {
        term = term.max(entry.log_id.leader_id.term);
        uncertain += u64::from(entry.log_id.index > committed);
        state.take(entry);
    }
    Ok((state, term, uncertain))
}
