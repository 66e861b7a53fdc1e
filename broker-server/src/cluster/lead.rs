//! What the leader of the catalog sees to: that those vote who belong to the cluster, and that the queues of a node that is down are known to be.
//!
//! The catalog says who belongs. Whoever leads compares that with who votes, one change at a time; what was begun by an earlier leader is gone on with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_core::name::NodeId;
use broker_meta::catalog::Members;
use broker_meta::command;
use broker_meta::raft::{Node, ProposeError, Role};

use super::control::Raft;
use super::feed::Feed;
use super::proposals::Proposals;
use super::sight::Sight;

/// The leader looks so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// One change of who votes may take so long.
const CHANGE_TIME: Duration = Duration::from_secs(10);
/// A node that follows may vote when its log is no further behind than this, in entries.
const BEHIND_MAX: u64 = 100;
/// Whom the lead is handed over to needs so long to take it.
const HANDED_OVER: Duration = Duration::from_secs(2);
/// A node that gossip has found to be down for so long is down: what comes of it is an entry of the log, and cannot be taken back.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// Runs as long as the node does; while another node leads it only looks.
pub async fn run(raft: Arc<Raft>, feed: Arc<Feed>, proposals: Proposals, sight: Arc<Sight>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if raft.failed().is_some() {
            return;
        }
        if raft.status().role != Role::Leader {
            continue;
        }
        let catalog = feed.catalog();
        if sight.is_drained()
            && let Some(other) = another_leader(&raft, &sight)
        {
            tracing::info!(to = other, "this node is drained and hands the lead over");
            if let Err(error) = raft.hand_over(other).await {
                tracing::warn!("the lead was not handed over, trying again: {error}");
            }
            tokio::time::sleep(HANDED_OVER).await;
            continue;
        }
        if let Err(error) = agree_on_voters(&raft, catalog.members()).await {
            tracing::warn!("who votes in the cluster could not be changed, trying again: {error}");
        }
        for member in catalog.members().iter() {
            let transient = || catalog.topology().queues().any(|queue| queue.node == member.node && !queue.durable);
            if sight.missed_for(member.node.0).is_some_and(|missed| missed > DOWN_AFTER) && transient() {
                tracing::warn!(
                    node = member.node.0,
                    name = member.name,
                    "the node is down: its transient queues are gone"
                );
                if let Err(error) = proposals.change(command::node_is_down(member.node), CHANGE_TIME).await {
                    tracing::warn!(
                        node = member.node.0,
                        "the queues of a node that is down are still in the catalog: {error}"
                    );
                }
            }
        }
    }
}

/// Somebody who can lead: it votes, is seen, and is not drained itself.
pub fn another_leader(raft: &Raft, sight: &Sight) -> Option<u64> {
    let (seen, facts) = (sight.seen(), sight.facts());
    let can = |node: &u64| seen.contains(node) && !facts.get(node).is_some_and(|facts| facts.drained || facts.paused);
    raft.status().voters.into_iter().filter(|node| *node != raft.identity().node).find(can)
}

/// One step towards the members all voting, and nobody else.
async fn agree_on_voters(raft: &Raft, members: &Members) -> Result<(), ProposeError> {
    if members.is_empty() {
        // The cluster is being founded.
        return Ok(());
    }
    let status = raft.status();
    let has_log = |member: &u64| members.get(NodeId(*member)).is_some();
    let strangers: BTreeSet<u64> = status.learners.iter().copied().filter(|node| !has_log(node)).collect();
    if !strangers.is_empty() {
        tracing::info!(nodes = ?strangers, "nodes that left are not sent the log any more");
        return raft.remove_learners(strangers, CHANGE_TIME).await;
    }
    let staying: BTreeSet<u64> = status.voters.iter().copied().filter(has_log).collect();
    if staying.len() < status.voters.len() && !staying.is_empty() {
        tracing::info!(voters = ?staying, "a node that left does not vote any more");
        return raft.set_voters(staying, CHANGE_TIME).await;
    }
    for member in members.iter() {
        let node = member.node.0;
        if status.voters.contains(&node) {
            continue;
        }
        if !status.learners.contains(&node) {
            tracing::info!(node, name = member.name, "a node that joined is sent the log");
            let place = Node { name: member.name.clone(), address: member.address.clone() };
            return raft.add_learner(node, place, CHANGE_TIME).await;
        }
        if status.matching.get(&node).is_some_and(|&matching| matching + BEHIND_MAX >= status.last) {
            let mut voters = status.voters.clone();
            voters.insert(node);
            tracing::info!(node, name = member.name, "a node that joined votes from now on");
            return raft.set_voters(voters, CHANGE_TIME).await;
        }
    }
    Ok(())
}
