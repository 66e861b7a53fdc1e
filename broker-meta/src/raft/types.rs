//! The words of openraft, and how they are written as protobuf messages: on the disk and between nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use openraft::vote::leader_id_std;
use openraft::{EntryPayload, LogId, Membership, StoredMembership, Vote};
use proto::cluster;

use crate::command::is_known;

openraft::declare_raft_types!(
    /// What openraft works with here.
    pub(super) TypeConfig:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = Node,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(super) type LogIdOf = openraft::alias::LogIdOf<TypeConfig>;
pub(super) type VoteOf = openraft::alias::VoteOf<TypeConfig>;
pub(super) type EntryOf = openraft::alias::EntryOf<TypeConfig>;
pub(super) type StoredMembershipOf = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMetaOf = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Commands that were proposed together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch(pub(super) cluster::Batch);

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.0.origin.unwrap_or_default();
        write!(f, "{} commands of node {} number {}", self.0.commands.len(), origin.node, origin.number)
    }
}

/// Where a node can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// As in `rabbit@host`.
    pub name: String,
    /// Host and port of its links to other nodes.
    pub address: String,
}

/// A message that means nothing here: it is damaged, or from a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Meaningless(pub(super) &'static str);

pub(super) fn put_vote(vote: &VoteOf) -> cluster::Vote {
    cluster::Vote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

pub(super) fn take_vote(vote: Option<cluster::Vote>) -> Result<VoteOf, Meaningless> {
    let cluster::Vote { term, voted_for, committed } = vote.ok_or(Meaningless("a vote is missing"))?;
    Ok(Vote { leader_id: leader_id_std::LeaderId { term, voted_for }, committed })
}

pub(super) fn put_log_id(id: &LogIdOf) -> cluster::LogId {
    cluster::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn take_log_id(id: cluster::LogId) -> LogIdOf {
    LogId { leader_id: leader_id_std::CommittedLeaderId::new(id.term), index: id.index }
}

/// An entry's place.
pub(super) fn log_id(term: u64, index: u64) -> LogIdOf {
    take_log_id(cluster::LogId { term, index })
}

/// A vote of a node for itself, which nobody has granted yet.
pub(super) fn own_vote(term: u64, node: u64) -> VoteOf {
    Vote { leader_id: leader_id_std::LeaderId { term, voted_for: node }, committed: false }
}

pub(super) fn put_membership(membership: &Membership<u64, Node>) -> cluster::Membership {
    let voters = |nodes: &BTreeSet<u64>| cluster::membership::Voters { nodes: nodes.iter().copied().collect() };
    let node =
        |(&id, node): (&u64, &Node)| (id, cluster::Node { name: node.name.clone(), address: node.address.clone() });
    cluster::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        nodes: membership.nodes().map(node).collect(),
    }
}

pub(super) fn take_membership(membership: cluster::Membership) -> Result<Membership<u64, Node>, Meaningless> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Node> =
        membership.nodes.into_iter().map(|(id, node)| (id, Node { name: node.name, address: node.address })).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Meaningless("a membership names voters it does not describe"))
}

pub(super) fn put_stored_membership(membership: &StoredMembershipOf) -> (Option<cluster::LogId>, cluster::Membership) {
    (membership.log_id().as_ref().map(put_log_id), put_membership(membership.membership()))
}

pub(super) fn take_stored_membership(
    at: Option<cluster::LogId>,
    membership: Option<cluster::Membership>,
) -> Result<StoredMembershipOf, Meaningless> {
    Ok(StoredMembership::new(at.map(take_log_id), take_membership(membership.unwrap_or_default())?))
}

pub(super) fn put_entry(entry: &EntryOf) -> cluster::Entry {
    use cluster::entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(cluster::Blank {}),
        EntryPayload::Normal(batch) => Payload::Batch(batch.0.clone()),
        EntryPayload::Membership(membership) => Payload::Membership(put_membership(membership)),
    };
    cluster::Entry { id: Some(put_log_id(&entry.log_id)), payload: Some(payload) }
}

pub(super) fn take_entry(entry: cluster::Entry) -> Result<EntryOf, Meaningless> {
    use cluster::entry::Payload;
    let log_id = take_log_id(entry.id.ok_or(Meaningless("an entry of the log has no place"))?);
    let payload = match entry.payload {
        Some(Payload::Blank(_)) => EntryPayload::Blank,
        Some(Payload::Batch(batch)) if batch.origin.is_none() => {
            return Err(Meaningless("an entry of the log does not say who proposed it"));
        }
        // To pass it over would make this node's catalog another than that of the others.
        Some(Payload::Batch(batch)) if !batch.commands.iter().all(is_known) => {
            return Err(Meaningless(
                "an entry of the log has a command of a kind that this version does not know: upgrade this node",
            ));
        }
        Some(Payload::Batch(batch)) => EntryPayload::Normal(Batch(batch)),
        Some(Payload::Membership(membership)) => EntryPayload::Membership(take_membership(membership)?),
        None => {
            return Err(Meaningless(
                "an entry of the log is of a kind that this version does not know: upgrade this node",
            ));
        }
    };
    Ok(EntryOf { log_id, payload })
}
