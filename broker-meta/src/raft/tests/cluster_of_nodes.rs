//! Nodes in one process: their network can be cut in each direction, and lose and delay what it carries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use proto::cluster::Origin;
use tempfile::TempDir;
use tokio::time::sleep;

use super::super::*;
use crate::command;

pub(super) const WAIT: Duration = Duration::from_secs(20);
pub(super) const CLUSTER: [u8; 16] = [1; 16];
/// Snapshots come soon.
pub(super) const COMPACTION: Compaction = Compaction { after: 60, kept: 20, batch: 1 };

/// How the tests open a log.
pub(super) fn opening(pace: Pace) -> Opening {
    static CHANCE: AtomicU32 = AtomicU32::new(1);
    let chance = CHANCE.fetch_add(1, Ordering::Relaxed);
    Opening { pace, compaction: COMPACTION, writing: Writing::Thread, chance }
}

/// Fast, and slow enough for a busy machine.
pub(super) const PACE: Pace = Pace { heartbeat: Duration::from_millis(60), election: Duration::from_millis(400) };

/// The network between all nodes.
#[derive(Default)]
pub(super) struct Net {
    /// Nodes whose log a leader has found to have gone back.
    pub(super) went_back: Mutex<BTreeSet<u64>>,
    nodes: Mutex<BTreeMap<u64, Arc<CatalogRaft<Wire>>>>,
    /// From, to: nothing passes.
    cuts: Mutex<BTreeSet<(u64, u64)>>,
    /// Of a hundred requests so many are lost, or their answers are.
    pub(super) loss: Mutex<u64>,
    /// Requests take up to so many milliseconds.
    pub(super) delay: Mutex<u64>,
    dice: Mutex<u64>,
}

/// A node's end of it.
pub(super) struct Wire {
    pub(super) from: u64,
    pub(super) net: Arc<Net>,
    /// It was told whose requests it carries.
    pub(super) told: AtomicBool,
}

impl Net {
    /// A number below `below`.
    pub(super) fn throw(&self, below: u64) -> u64 {
        let mut dice = self.dice.lock().unwrap();
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % below.max(1)
    }

    pub(super) fn seed(&self, seed: u64) {
        *self.dice.lock().unwrap() = seed;
    }

    fn passes(&self, from: u64, to: u64) -> bool {
        !self.cuts.lock().unwrap().contains(&(from, to)) && self.throw(100) >= *self.loss.lock().unwrap()
    }

    pub(super) fn cut(&self, from: u64, to: u64) {
        self.cuts.lock().unwrap().insert((from, to));
    }

    pub(super) fn isolate(&self, node: u64) {
        for other in 1..=9 {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(super) fn heal(&self) {
        self.cuts.lock().unwrap().clear();
    }
}

impl Transport for Wire {
    fn carries_for(&self, node: &Identity, _: &Arc<Starts>) {
        assert_eq!(node.node, self.from);
        self.told.store(true, Ordering::SeqCst);
    }

    fn log_went_back(&self, node: u64) {
        self.net.went_back.lock().unwrap().insert(node);
    }

    async fn request(&self, to: u64, _: &Node, kind: Kind, octets: Vec<u8>) -> Result<Vec<u8>, NotReached> {
        assert!(self.told.load(Ordering::SeqCst), "asked before it is known who asks");
        let lost = || NotReached { node: to, why: "the network is cut".into() };
        let delay = self.net.throw(*self.net.delay.lock().unwrap());
        sleep(Duration::from_millis(delay)).await;
        let there = self.net.nodes.lock().unwrap().get(&to).cloned().ok_or_else(lost)?;
        if !self.net.passes(self.from, to) {
            return Err(lost());
        }
        let answer = there.handle(kind, &octets).await.map_err(|error| NotReached { node: to, why: error.to_string() });
        if self.net.passes(to, self.from) { answer } else { Err(lost()) }
    }
}

/// A node and its disk.
pub(super) struct Member {
    directory: TempDir,
    /// Origins of batches that did something, in order.
    pub(super) applied: Arc<Mutex<Vec<Origin>>>,
    pub(super) snapshots: Arc<Mutex<u64>>,
    next_number: Mutex<u64>,
}

pub(super) struct World {
    pub(super) net: Arc<Net>,
    pub(super) members: BTreeMap<u64, Member>,
}

impl World {
    /// So many nodes that belong to no cluster.
    pub(super) async fn strangers(count: u64) -> World {
        let mut world = World { net: Arc::default(), members: BTreeMap::new() };
        for node in 1..=count {
            let member = Member {
                directory: TempDir::new().unwrap(),
                applied: Arc::default(),
                snapshots: Arc::default(),
                next_number: Mutex::new(0),
            };
            create_log(member.directory.path(), &Identity { cluster: CLUSTER, node }).unwrap();
            world.members.insert(node, member);
            world.start(node).await;
        }
        world
    }

    /// A cluster of so many nodes, all of which vote.
    pub(super) async fn cluster(count: u64) -> World {
        let world = World::strangers(count).await;
        world.at(1).found((1..=count).map(|node| (node, place(node))).collect()).await.unwrap();
        world.leader().await;
        world
    }

    pub(super) fn at(&self, node: u64) -> Arc<CatalogRaft<Wire>> {
        self.net.nodes.lock().unwrap()[&node].clone()
    }

    pub(super) async fn start(&self, node: u64) {
        let member = &self.members[&node];
        *member.next_number.lock().unwrap() = 0;
        // What was applied before comes again from the log.
        member.applied.lock().unwrap().clear();
        let (applied, snapshots) = (member.applied.clone(), member.snapshots.clone());
        let listener: Listener = Box::new(move |what| match what {
            Applied::Batch { origin, outcomes, .. } if !outcomes.is_empty() => applied.lock().unwrap().push(origin),
            Applied::Batch { .. } => {}
            Applied::Snapshot { .. } => *snapshots.lock().unwrap() += 1,
        });
        let wire = Arc::new(Wire { from: node, net: self.net.clone(), told: AtomicBool::new(false) });
        let raft = CatalogRaft::open(member.directory.path(), opening(PACE), wire, listener).await.unwrap();
        self.net.nodes.lock().unwrap().insert(node, Arc::new(raft));
    }

    pub(super) fn directory(&self, node: u64) -> &std::path::Path {
        self.members[&node].directory.path()
    }

    pub(super) async fn stop(&self, node: u64) {
        let gone = self.net.nodes.lock().unwrap().remove(&node).unwrap();
        gone.stop().await;
        let mut gone = Some(gone);
        // Others may be asking it something; its file must be closed before it is opened again.
        for _ in 0..400 {
            match Arc::try_unwrap(gone.take().unwrap()) {
                Ok(raft) => return drop(raft),
                Err(shared) => gone = Some(shared),
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("node {node} is still in use");
    }

    /// Waits for a leader that everybody who runs knows.
    pub(super) async fn leader(&self) -> u64 {
        self.leader_among(self.members.keys().copied()).await
    }

    pub(super) async fn leader_among(&self, members: impl IntoIterator<Item = u64>) -> u64 {
        let members: BTreeSet<u64> = members.into_iter().collect();
        self.until("a leader", || {
            let nodes = self.net.nodes.lock().unwrap();
            let asked = nodes.iter().filter(|(node, _)| members.contains(node));
            let leaders: BTreeSet<Option<u64>> = asked.map(|(_, raft)| raft.status().leader).collect();
            let leader = leaders.first().copied().flatten().filter(|_| leaders.len() == 1)?;
            (nodes.get(&leader)?.status().role == Role::Leader).then_some(leader)
        })
        .await
    }

    /// Waits until the first, who is alone, leads and has applied its first entry. Its term.
    pub(super) async fn leader_term(&self) -> u64 {
        self.until("node 1 to have begun", || {
            let status = self.at(1).status();
            (status.role == Role::Leader && status.applied == 1).then_some(status.term)
        })
        .await
    }

    pub(super) async fn until<A>(&self, what: &str, mut is: impl FnMut() -> Option<A>) -> A {
        for _ in 0..WAIT.as_millis() / 10 {
            if let Some(answer) = is() {
                return answer;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let nodes = self.net.nodes.lock().unwrap();
        let status: Vec<Status> = nodes.values().map(|raft| raft.status()).collect();
        panic!("waited in vain for {what}: {status:#?}");
    }

    /// Has a node create a vhost.
    pub(super) async fn create(&self, node: u64, vhost: &str, wait: Duration) -> Result<(), ProposeError> {
        let member = &self.members[&node];
        let number = {
            let mut next = member.next_number.lock().unwrap();
            *next += 1;
            *next
        };
        let commands = vec![command::create_vhost(vhost, "", &[])];
        self.at(node).propose(number, commands, wait).await
    }

    pub(super) fn vhosts(&self, node: u64) -> BTreeSet<String> {
        self.at(node).catalog().topology().vhosts().map(|vhost| vhost.record().name.to_string()).collect()
    }

    /// Waits until all that run have applied the same, and it is octet for octet the same.
    pub(super) async fn agree(&self) {
        self.agree_among(self.members.keys().copied()).await;
    }

    pub(super) async fn agree_among(&self, members: impl IntoIterator<Item = u64>) {
        let members: Vec<u64> = members.into_iter().collect();
        let nodes = || -> Vec<Arc<CatalogRaft<Wire>>> { members.iter().map(|&node| self.at(node)).collect() };
        self.until("agreement", || {
            let ends: BTreeSet<(u64, u64)> =
                nodes().iter().map(|raft| (raft.status().last, raft.status().applied)).collect();
            (ends.len() == 1 && ends.iter().all(|(last, applied)| last == applied)).then_some(())
        })
        .await;
        let catalogs: BTreeSet<Vec<u8>> =
            nodes().iter().map(|raft| raft.catalog().to_snapshot().encode_to_vec()).collect();
        assert_eq!(catalogs.len(), 1, "the catalogs are not the same");
    }
}

pub(super) fn place(node: u64) -> Node {
    Node { name: format!("rabbit@{node}"), address: format!("{node}:25672") }
}
