//! What operators ask about the cluster and this node's place in it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker_meta::Catalog;
use proto::admin::v1::{
    Cluster, ForceBootResponse, ForgetNodeResponse, JoinClusterResponse, LeaveClusterRequest, LeaveClusterResponse,
    Listener, Member, SetDrainedResponse,
};
use tonic::Status;

use super::service::Service;
use crate::cluster;

/// The answer is on its way by then.
const BEFORE_STOPPING: Duration = Duration::from_millis(200);

impl Service {
    pub(super) fn view_of_cluster(&self, catalog: &Catalog) -> Cluster {
        let mut queues: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for queue in catalog.topology().queues() {
            let (all, durable) = queues.entry(queue.node.0).or_default();
            *all += 1;
            *durable += u64::from(queue.durable);
        }
        let name = self.cluster_name(catalog);
        let node = self.shard.node().0;
        let Some(cluster) = &self.node.cluster else {
            let (all, durable) = queues.get(&node).copied().unwrap_or_default();
            let mut member = self.itself(node);
            (member.queues, member.durable_queues) = (all, durable);
            return Cluster { name, node, leader: node, members: vec![member], majority: true, ..Cluster::default() };
        };
        let (status, seen, facts) = (cluster.status(), cluster.seen(), cluster.facts());
        let views = cluster.views();
        let members = catalog.members().iter().map(|member| {
            let number = member.node.0;
            let (all, durable) = queues.get(&number).copied().unwrap_or_default();
            let mut one = match facts.get(&number) {
                _ if number == node => self.itself(number),
                Some(facts) => Member {
                    heard: true,
                    software: facts.software.clone(),
                    started_at: facts.started_at,
                    memory_alarm: facts.memory_alarm,
                    disk_alarm: facts.disk_alarm,
                    connections: facts.connections,
                    drained: facts.drained,
                    paused: facts.paused,
                    listeners: facts.listeners.iter().map(facing).collect(),
                    ..Member::default()
                },
                None => Member::default(),
            };
            one.sees = match views.get(&number) {
                _ if number == node => seen.iter().copied().filter(|other| *other != node).collect(),
                Some(sees) => sees.iter().copied().filter(|other| *other != number).collect(),
                None => Vec::new(),
            };
            Member {
                number,
                name: member.name.clone(),
                address: member.address.clone(),
                running: seen.contains(&number),
                voter: status.voters.contains(&number),
                queues: all,
                durable_queues: durable,
                ..one
            }
        });
        Cluster {
            name,
            id: cluster.cluster_id(),
            node,
            // One that has lost its majority still takes itself for the leader for a while.
            leader: status.leader.filter(|_| cluster.has_majority()).unwrap_or_default(),
            term: status.term,
            members: members.collect(),
            majority: cluster.has_majority(),
        }
    }

    /// As it was set; otherwise, the name of its first node.
    pub(super) fn cluster_name(&self, catalog: &Catalog) -> String {
        match (catalog.cluster_name(), catalog.members().iter().next()) {
            ("", Some(first)) => first.name.clone(),
            ("", None) => self.node.name.clone(),
            (named, _) => named.into(),
        }
    }

    /// What this node knows of itself, without asking its shard.
    fn itself(&self, number: u64) -> Member {
        let alarms = self.alarms();
        let facts = self.node.cluster.as_ref().and_then(|cluster| cluster.facts().remove(&number)).unwrap_or_default();
        let listeners = match facts.listeners.is_empty() {
            true => self.node.listeners.clone(),
            false => facts.listeners.iter().map(facing).collect(),
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Member {
            number,
            name: self.node.name.clone(),
            running: true,
            voter: true,
            heard: true,
            software: concat!("brokerd ", env!("CARGO_PKG_VERSION")).into(),
            started_at: since_epoch.saturating_sub(self.node.started.elapsed().as_secs()),
            memory_alarm: alarms.memory_alarm,
            disk_alarm: alarms.disk_alarm,
            connections: facts.connections,
            drained: self.node.drained.load(Ordering::SeqCst),
            paused: self.node.cluster.as_ref().is_some_and(cluster::Handle::is_paused),
            listeners,
            ..Member::default()
        }
    }

    pub(super) async fn join(&self, address: &str) -> Result<JoinClusterResponse, Status> {
        let Some(cluster) = &self.node.cluster else {
            return Err(Status::failed_precondition(
                "this node has no secret, by which nodes of a cluster know each other: set cluster.secret_file in its configuration to a copy of the cluster's secret (`brokerctl cluster secret new FILE` makes the first), start brokerd again, and have it join then",
            ));
        };
        let joined = cluster.join(address).await.map_err(Status::failed_precondition)?;
        tracing::warn!(
            through = joined.through,
            number = joined.node,
            "an operator has this node join a cluster; it starts again, and what it has is kept aside"
        );
        self.stop_soon(true);
        Ok(JoinClusterResponse { id: joined.cluster, number: joined.node, through: joined.through })
    }

    pub(super) async fn leave(
        &self,
        catalog: &Catalog,
        request: LeaveClusterRequest,
    ) -> Result<LeaveClusterResponse, Status> {
        let LeaveClusterRequest { stop, reset } = request;
        let node = self.shard.node();
        let queues = catalog.topology().queues().filter(|queue| queue.node == node).count() as u64;
        if reset && catalog.members().len() <= 1 {
            cluster::plan_to_be_blank(&self.node.data_dir).map_err(|failure| Status::internal(failure.message))?;
        } else {
            self.member()?.leave().await.map_err(Status::failed_precondition)?;
        }
        tracing::warn!(stop, queues, "an operator has this node leave its cluster; what it has is kept aside");
        self.stop_soon(!stop);
        Ok(LeaveClusterResponse { queues })
    }

    pub(super) async fn forget(&self, catalog: &Catalog, name: &str) -> Result<ForgetNodeResponse, Status> {
        let cluster = self.member()?;
        let member = catalog.members().named(name).map(|member| member.node);
        let member = member.ok_or_else(|| Status::not_found(format!("{name} is no node of the cluster")))?;
        let queues = catalog.topology().queues().filter(|queue| queue.node == member).count() as u64;
        let number = cluster.forget(name).await.map_err(Status::failed_precondition)?;
        tracing::warn!(name, number, queues, "an operator has taken a node out of the cluster");
        Ok(ForgetNodeResponse { number, queues })
    }

    pub(super) async fn drain(&self, drained: bool) -> Result<SetDrainedResponse, Status> {
        let unchanged = self.node.drained.swap(drained, Ordering::SeqCst) == drained;
        if let Some(cluster) = &self.node.cluster {
            cluster.drain(drained);
        }
        let closed = self.shard.drain(drained).await?;
        if drained {
            tracing::warn!(closed, "an operator has drained this node: it serves no clients until it is revived");
        } else {
            tracing::info!("an operator has revived this node: it serves clients");
        }
        Ok(SetDrainedResponse { closed, unchanged })
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    pub(super) fn force_boot_now(&self) -> Result<ForceBootResponse, Status> {
        let cluster = self.member()?;
        if cluster.has_majority() {
            return Err(Status::failed_precondition(
                "this node sees a majority of its cluster, so nothing has to be forced: forget the nodes that are lost (brokerctl cluster forget NAME)",
            ));
        }
        cluster.force_boot().map_err(Status::internal)?;
        tracing::warn!("an operator has this node give up its cluster and form a new one of itself; it starts again");
        self.stop_soon(true);
        Ok(ForceBootResponse {})
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn member(&self) -> Result<&cluster::Handle, Status> {
        let alone = || Status::failed_precondition("this node is alone: it belongs to no cluster of several nodes");
        self.node.cluster.as_ref().ok_or_else(alone)
    }

    /// Stops, and starts again if that is wanted.
    fn stop_soon(&self, restart: bool) {
        self.node.restart.store(restart, Ordering::SeqCst);
        let (shard, going_down) = (self.shard.clone(), self.node.going_down.clone());
        tokio::spawn(async move {
            tokio::time::sleep(BEFORE_STOPPING).await;
            going_down.say();
            shard.shut_down();
        });
    }
}

fn facing(listener: &proto::gossip::Listener) -> Listener {
    Listener { protocol: listener.protocol.clone(), address: listener.address.clone(), port: listener.port }
}
