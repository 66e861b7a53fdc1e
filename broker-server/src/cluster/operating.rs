//! What an operator asks of a node that has to do with other nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker_meta::command;
use proto::node::v1::LeaveRequest;
use tokio::time::Instant;

use super::attend::is_majority;
use super::plan::Plan;
use super::{CHANGE_TIME, Handle, control, forming, lead};
use crate::config::cluster::{address, host_of};
use crate::config::value::host_and_port;

/// Another node may take so long to lead instead of this one.
const HAND_OVER_TIME: Duration = Duration::from_secs(10);
/// All that the others have to do for a node that leaves may take so long.
const LEAVE_TIME: Duration = Duration::from_secs(30);

/// A place in a cluster that a node was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The cluster's identity, in hexadecimal digits.
    pub cluster: String,
    /// The number.
    pub node: u64,
    /// Name of the node that was asked.
    pub through: String,
}

impl Handle {
    /// Has the cluster of the node at an address give this one a number, with which it belongs to that cluster from its next start on. Whoever has no others in its own
    /// cluster can.
    pub async fn join(&self, address: &str) -> Result<Joined, String> {
        let address = address_of(address, self.about.port)?;
        let members = self.catalog().members().len();
        if members > 1 {
            return Err(format!(
                "this node belongs to a cluster of {members} nodes: have it leave first (brokerctl cluster leave)"
            ));
        }
        if self.moving.swap(true, Ordering::SeqCst) {
            return Err("this node is about to join a cluster already".into());
        }
        let this = self.clone();
        // Streams belong to the cluster's own threads.
        let asked = self.runtime.spawn(async move { this.ask_to_join(&address).await }).await;
        let joined = asked.unwrap_or_else(|error| Err(error.to_string()));
        if joined.is_err() {
            self.moving.store(false, Ordering::SeqCst);
        }
        joined
    }

    async fn ask_to_join(&self, address: &str) -> Result<Joined, String> {
        let failed = |why: String| format!("this node cannot join the cluster of {address}: {why}");
        let gate = Arc::new(self.gate.of_nobody());
        let who = forming::who(&gate, address).await.map_err(failed)?;
        if who.cluster == self.raft.identity().cluster {
            return Err(failed(format!("{} belongs to the same one", who.name)));
        }
        if who.cluster.is_empty() {
            return Err(failed(format!("{} is still looking for a cluster itself", who.name)));
        }
        let (cluster, node) =
            forming::join(&gate, &self.about.name, &self.about.address, address).await.map_err(failed)?;
        let plan = Plan::Join { through: address.into(), cluster, node };
        plan.write(&self.data_dir).map_err(|failure| failure.message)?;
        Ok(Joined { cluster: format!("{:032x}", u128::from_be_bytes(cluster)), node, through: who.name })
    }

    /// Takes a node out of the cluster for good; what its queues hold is lost to the others. Its number.
    pub async fn forget(&self, name: &str) -> Result<u64, String> {
        let catalog = self.catalog();
        let member = catalog.members().named(name).cloned();
        let member = member.ok_or_else(|| format!("{name} is no member of the cluster"))?;
        if member.node == self.node() {
            return Err(format!("{name} is this node: have it leave (brokerctl cluster leave), or ask another node"));
        }
        let node = member.node.0;
        if self.seen().contains(&node) {
            return Err(format!("{name} is running: stop it first, or have it leave (brokerctl cluster leave there)"));
        }
        self.proposals.change(command::remove_member(member.node), CHANGE_TIME).await?;
        Ok(node)
    }

    /// This node leaves the cluster, and is a blank one of its own from its next start on. It has to stop then.
    pub async fn leave(&self) -> Result<(), String> {
        if self.catalog().members().len() <= 1 {
            return Err("this node is the only one of its cluster".into());
        }
        let this = self.clone();
        self.moving.store(true, Ordering::SeqCst);
        let asked = self.runtime.spawn(async move { this.ask_to_leave().await }).await;
        let left = asked.unwrap_or_else(|error| Err(error.to_string()));
        if left.is_err() {
            self.moving.store(false, Ordering::SeqCst);
        }
        left
    }

    async fn ask_to_leave(&self) -> Result<(), String> {
        // Whoever leads removes it, so that no leader removes itself.
        let leader = self.lead_elsewhere().await?;
        let member = self.catalog().members().get(broker_core::name::NodeId(leader)).cloned();
        let member = member.ok_or("the node that leads is no member any more; try again")?;
        let mut client = control::ask(&self.gate, &member.address).await.map_err(|error| error.to_string())?;
        let asked = client.leave(LeaveRequest { node: self.node().0 });
        let answer = tokio::time::timeout(LEAVE_TIME, asked).await;
        let answer = answer.map_err(|_| format!("{} did not answer in time", member.name))?;
        answer.map_err(|status| control::why(&status))?;
        Plan::Leave.write(&self.data_dir).map_err(|failure| failure.message)
    }

    /// Waits until another node leads, and says which.
    async fn lead_elsewhere(&self) -> Result<u64, String> {
        let me = self.node().0;
        let until = Instant::now() + HAND_OVER_TIME;
        let mut handed_at: Option<Instant> = None;
        loop {
            match self.status().leader {
                Some(leader) if leader != me => return Ok(leader),
                Some(_) if handed_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(2)) => {
                    let other = lead::another_leader(&self.raft, &self.sight);
                    let other = other.ok_or("no other node that votes is running, so none can take the lead")?;
                    self.raft.hand_over(other).await.map_err(|error| error.to_string())?;
                    handed_at = Some(Instant::now());
                }
                _ => {}
            }
            if Instant::now() >= until {
                return Err("no other node leads the cluster: is there a majority?".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// This node, which has lost the others for good, is a cluster of itself from its next start on.
    pub fn force_boot(&self) -> Result<(), String> {
        Plan::ForceBoot.write(&self.data_dir).map_err(|failure| failure.message)
    }

    /// It serves no clients and does not lead, or does again; whether that was so before.
    pub fn drain(&self, drained: bool) -> bool {
        let before = self.sight.drain(drained);
        self.say(|facts| facts.drained = drained);
        before == drained
    }

    /// Whether an operator has drained it.
    pub fn is_drained(&self) -> bool {
        self.sight.is_drained()
    }

    /// It serves no clients because it sees too few of the others, or does again.
    pub(super) fn pause(&self, paused: bool) {
        self.sight.pause(paused);
        self.say(|facts| facts.paused = paused);
    }

    /// Whether those that vote and are seen are a majority, and somebody leads.
    pub fn has_majority(&self) -> bool {
        let (status, seen) = (self.status(), self.seen());
        status.leader.is_some() && is_majority(&status.voters, &seen)
    }
}

/// `HOST`, `HOST:PORT` or either behind `NAME@`, as host and port.
fn address_of(text: &str, port: u16) -> Result<String, String> {
    match host_and_port(host_of(text.trim())) {
        Ok((host, given)) => Ok(address(host, given.unwrap_or(port))),
        Err(_) => Err(format!("'{text}' is no address: name a node as HOST, HOST:PORT or rabbit@HOST")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_node_is_named_in_several_ways() {
        for (text, address) in [
            ("host", "host:25672"),
            ("host:1", "host:1"),
            ("rabbit@host", "host:25672"),
            ("rabbit@host.example:7", "host.example:7"),
            ("10.0.0.1", "10.0.0.1:25672"),
            ("::1", "[::1]:25672"),
            ("[::1]", "[::1]:25672"),
            ("rabbit@[fe80::1]:9", "[fe80::1]:9"),
        ] {
            assert_eq!(address_of(text, 25672).as_deref(), Ok(address), "{text}");
        }
        for wrong in
            ["", " ", "rabbit@", "host:", "host:x", "host:99999", ":5", "[::1", "[x]:1", "[::1]5", "a b", "1:2:x"]
        {
            let problem = address_of(wrong, 1).unwrap_err();
            assert!(problem.contains("is no address"), "{wrong}: {problem}");
        }
    }
}
