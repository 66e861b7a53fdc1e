//! Queues with their counts, each from the node it lives on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use broker_core::name::{NodeId, QueueId};
use proto::admin::v1::{Queue, QueuePart};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tonic::Status;

use super::service::prost_size;
use super::{ShardHandle, lists};
use crate::cluster;
use crate::driver::admin::{QueueCounts, Request};

/// Queues whose counts are asked for together.
const TOGETHER: usize = 1_000;

/// A list of queues that is being made.
pub struct Counting {
    shard: ShardHandle,
    cluster: Option<cluster::Handle>,
    /// Names of the nodes.
    names: HashMap<u64, String>,
    /// Nodes that did not answer: they are not asked again, so that one of them is waited for once.
    silent: BTreeSet<u64>,
}

/// None: the queue is not there any more.
type Counts = HashMap<u64, Option<QueueCounts>>;

impl Counting {
    /// Of this node and its cluster.
    pub fn new(name: String, shard: ShardHandle, cluster: Option<cluster::Handle>) -> Self {
        let others =
            cluster.iter().flat_map(|cluster| cluster.others().into_iter().map(|node| (node.0, cluster.name_of(node))));
        let names = std::iter::once((shard.node().0, name)).chain(others).collect();
        Self { shard, cluster, names, silent: BTreeSet::new() }
    }

    /// Sends queues as their counts come.
    pub async fn run(mut self, declared: Vec<(QueueId, Queue)>, parts: Sender<Result<QueuePart, Status>>) {
        for together in declared.chunks(TOGETHER) {
            let mut by_node: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (id, queue) in together {
                by_node.entry(home(queue)).or_default().push(id.0);
            }
            let Some(counts) = self.ask(by_node).await else { return };
            let queues = together.iter().filter_map(|(id, queue)| self.counted(queue, counts.get(&id.0).copied()));
            for queues in lists::parts(queues.collect(), prost_size) {
                if parts.send(Ok(QueuePart { queues })).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What the nodes say, all asked at once. What one does not say in time is missing; without this node's own there is none at all.
    async fn ask(&mut self, by_node: BTreeMap<u64, Vec<u64>>) -> Option<Counts> {
        let mut counts = Counts::new();
        let mut asked = JoinSet::new();
        for (node, ids) in by_node {
            if node == self.shard.node().0 {
                let wanted = ids.iter().copied().map(QueueId).collect();
                let own = self.shard.ask(|answer| Request::QueueCounts(wanted, answer)).await.ok()?;
                counts.extend(ids.into_iter().zip(own));
            } else if let Some(cluster) = self.cluster.clone()
                && !self.silent.contains(&node)
            {
                asked.spawn(async move {
                    let answer = cluster.count_queues(NodeId(node), ids.clone()).await;
                    (node, ids, answer)
                });
            }
        }
        while let Some(Ok((node, ids, answer))) = asked.join_next().await {
            match answer {
                Ok(answer) => counts.extend(ids.into_iter().zip(answer.into_iter().map(|count| {
                    (!count.missing).then_some(QueueCounts {
                        ready: count.ready,
                        unacknowledged: count.unacknowledged,
                        consumers: count.consumers,
                        resident_bytes: count.resident_bytes,
                    })
                }))),
                Err(status) => {
                    tracing::debug!(node, "counts of queues are missing: {status}");
                    self.silent.insert(node);
                }
            }
        }
        Some(counts)
    }

    /// What went meanwhile is not listed.
    fn counted(&self, queue: &Queue, counts: Option<Option<QueueCounts>>) -> Option<Queue> {
        let node = home(queue);
        let name = self.names.get(&node).cloned().unwrap_or_else(|| node.to_string());
        let Some(counts) = counts else { return Some(Queue { node: name, unknown: true, ..queue.clone() }) };
        let counts = counts?;
        Some(Queue {
            messages_ready: counts.ready,
            messages_unacknowledged: counts.unacknowledged,
            consumers: counts.consumers,
            resident_bytes: counts.resident_bytes,
            node: name,
            ..queue.clone()
        })
    }
}

fn home(queue: &Queue) -> u64 {
    queue.declared.as_ref().map_or(0, |declared| declared.node)
}
