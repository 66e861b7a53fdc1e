//! What a node does that sees too few of the others: the partition modes.
//!
//! The winner is always the side with the majority of those that vote. A node on another side can change nothing in the catalog whatever the mode; the mode
//! says whether it goes on to serve clients with what it has.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_meta::command;
use tokio::time::Instant;

use super::{CHANGE_TIME, Handle};
use crate::alarm::Alarms;
use crate::config::cluster::PartitionHandling;
use crate::driver::events::Event;
use crate::driver::mailbox::Mailbox;

/// A node looks round so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The others are told its load so often.
const LOAD_EVERY: Duration = Duration::from_secs(5);
/// It must have seen too few for so long.
const DETACHED_AFTER: Duration = Duration::from_secs(3);

/// Runs as long as the node does.
pub async fn run(handle: Handle, mode: PartitionHandling, mailbox: Mailbox) {
    let mut too_few_since: Option<Instant> = None;
    let mut alarm = None;
    let mut load_told_at = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if handle.raft.failed().is_some() {
            return;
        }
        if load_told_at.elapsed() >= LOAD_EVERY {
            load_told_at = Instant::now();
            handle.tell_load();
        }
        let now = alarm_of_others(&handle);
        if alarm != now {
            alarm = now;
            mailbox.send(Event::AlarmElsewhere(alarm));
        }
        let paused = handle.sight.is_paused();
        if sees_enough(&handle, &mode) {
            too_few_since = None;
            if paused && attach(&handle).await {
                handle.pause(false);
                tracing::info!("this node sees enough of the cluster again and serves clients");
                mailbox.send(Event::Pause(false));
            }
            continue;
        }
        let since = *too_few_since.get_or_insert_with(Instant::now);
        if !paused && since.elapsed() >= DETACHED_AFTER {
            handle.pause(true);
            tracing::error!(
                sees = ?handle.sight.seen(),
                reaches = ?handle.links.up(),
                voters = ?handle.raft.status().voters,
                "this node sees too few of the cluster: it closes its clients' connections and listens to none until it sees enough (cluster_partition_handling)"
            );
            mailbox.send(Event::Pause(true));
        }
    }
}

/// What clients are told of the alarms of the nodes that are seen.
fn alarm_of_others(handle: &Handle) -> Option<&'static str> {
    let (me, seen) = (handle.node().0, handle.seen());
    let others = handle.facts().into_iter().filter(|(node, _)| *node != me && seen.contains(node));
    let (memory, disk) = others
        .fold((false, false), |(memory, disk), (_, facts)| (memory || facts.memory_alarm, disk || facts.disk_alarm));
    crate::node::reason(Alarms { memory, disk })
}

fn sees_enough(handle: &Handle, mode: &PartitionHandling) -> bool {
    match mode {
        PartitionHandling::Ignore | PartitionHandling::Autoheal => true,
        PartitionHandling::PauseMinority => is_majority(&handle.raft.status().voters, &handle.seen()),
        PartitionHandling::PauseIfAllDown { nodes, .. } => {
            // Gossip sees a node by way of others too. Those listed have to be reached from here, as in RabbitMQ.
            let mut reached = handle.links.up();
            reached.insert(handle.node().0);
            let members = handle.feed.catalog().members().clone();
            members.iter().any(|member| nodes.contains(&member.name) && reached.contains(&member.node.0))
        }
    }
}

/// Whether those of the voters that are seen can decide.
pub fn is_majority(voters: &BTreeSet<u64>, seen: &BTreeSet<u64>) -> bool {
    voters.intersection(seen).count() > voters.len() / 2
}

/// While it was paused it had no clients: its transient queues are gone, as after a restart. That the cluster takes this shows that it is attached.
async fn attach(handle: &Handle) -> bool {
    let starts = command::node_starts(handle.node());
    match handle.proposals.change(starts, CHANGE_TIME).await {
        Ok(_) => true,
        Err(problem) => {
            tracing::debug!("not attached yet: {problem}");
            false
        }
    }
}
