//! The part of a node that has to do with other nodes: what it says to them, and how it comes to belong to a cluster.
//!
//! ```text
//!  streams    a TCP stream, with TLS or without (tls), whose both ends have proved who they are
//!    control    on it: requests (gRPC), Raft's among them          links      on it: what channels and queues tell each other; the shard's
//!  forming    which cluster a node without a log belongs to
//!  plan       what is to be done at the next start
//!  operating  what an operator asks for                            others     and what of it other nodes answer
//!  feed       from the log to the shard                            proposals  from the shard to the log
//!  lead       what the leader of the catalog sees to
//!  sight      who answers: gossip
//!  ground     the network and chance: the machine's or a simulation's
//!  attend     what a node does that sees too few
//! ```
//!
//! A node without a secret (`cluster.secret_file`) has none of this: it is alone, and its catalog has the log of `broker_meta::log`. With a secret
//! it is a member of a cluster, if only of one node.

mod attend;
mod control;
mod feed;
mod forming;
pub mod ground;
mod lead;
pub mod links;
mod operating;
mod others;
mod plan;
mod proposals;
pub mod secret;
mod sight;
mod streams;
pub mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{fs, io};

use broker_core::name::NodeId;
use broker_core::store::QueueId;
use broker_meta::command::Announcement;
use broker_meta::membership::{Facts, Gossip, Me};
use broker_meta::peer::{Identity, Refusal};
use broker_meta::raft::{Identity as LogIdentity, Node, OpenError, Opening, Pace, Status, count_of, create_log};
use broker_meta::{Catalog, command};
use tokio::runtime::Runtime;
use tokio::time::Instant;

pub use others::Listed;
pub use proposals::Proposals;

use crate::admin::ShardHandle;
use crate::config::Config;
use crate::driver::mailbox::Mailbox;
use crate::exit::{Code, Failure};
use control::{Answers, PeerStream, Peers, Raft};
use feed::Feed;
use forming::Place;
use ground::{Datagrams, Ground};
use links::{Links, Taker};
use plan::{Plan, Planned};
use sight::Sight;
use streams::{Gate, Purpose, StreamError};

/// In the data directory, of the catalog.
const CATALOG: &str = "catalog";
/// The log of a member.
const LOG: &str = "raft.redb";
/// It is there while a cluster is being founded.
const FOUNDING: &str = "founding";
/// What a node had while it was alone.
const ALONE: &str = "before-cluster";
/// The number of the node that founds a cluster: what it had while it was alone is under this number.
const FOUNDER: u64 = 1;
/// Threads for requests and Raft.
const THREADS: usize = 2;
/// A change at the start may take so long before it is tried again.
const CHANGE_TIME: Duration = Duration::from_secs(5);
/// That a node waits is said so often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Who runs is seen by then.
const SEEN_AFTER: Duration = Duration::from_secs(1);
/// Streams may stand in the handshake at the same time.
const HANDSHAKES_MAX: usize = 64;

/// How a node begins.
pub enum Start {
    /// It has no secret, and nothing to do with other nodes.
    Alone,
    /// It is a member of a cluster.
    Member(Box<Cluster>),
    /// An operator has said what is to be done at the next start, while it waited for the others: it is to start again.
    Again,
}

/// A node's membership. The runtime ends with it, if it is its own.
pub struct Cluster {
    runtime: Option<Runtime>,
    handle: Handle,
}

/// What others in the process may ask of it.
#[derive(Clone)]
pub struct Handle {
    raft: Arc<Raft>,
    peers: Arc<Peers>,
    feed: Arc<Feed>,
    gate: Arc<Gate>,
    sight: Arc<Sight>,
    links: Links,
    proposals: Proposals,
    /// Where what other nodes ask of this one's queues and connections is answered.
    local: Arc<OnceLock<ShardHandle>>,
    /// What this node says of itself.
    said: Arc<Mutex<Facts>>,
    about: Arc<About>,
    /// It is about to go to another cluster: nobody joins this one.
    moving: Arc<AtomicBool>,
    /// Connections and queues of this node.
    load: Arc<(AtomicU64, AtomicU64)>,
    data_dir: PathBuf,
    runtime: tokio::runtime::Handle,
}

/// What others are to know of this node before it belongs to their cluster.
struct About {
    name: String,
    /// Host and port at which other nodes reach it.
    address: String,
    /// Of other nodes whose port is not said.
    port: u16,
}

/// What a node hears from the others while it starts.
struct Ear {
    gate: Arc<Gate>,
    raft: Arc<OnceLock<Arc<Raft>>>,
    proposals: Arc<OnceLock<Proposals>>,
    sight: Arc<Sight>,
    links: Links,
    local: Arc<OnceLock<ShardHandle>>,
    moving: Arc<AtomicBool>,
}

impl Cluster {
    /// Has the node take part in its cluster, or in none if it has no secret; returns when the catalog is up to date. `alone` gives the catalog of a node
    /// that is alone, should it found a cluster.
    pub fn start(
        config: &Config,
        data_dir: &Path,
        alone: impl FnOnce() -> Result<Catalog, Failure>,
    ) -> Result<Start, Failure> {
        let Some(ready) = Ready::new(config, data_dir, Ground::Machine)? else { return Ok(Start::Alone) };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("cluster")
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Code::Software, format!("cannot start the cluster's threads: {error}")))?;
        let handle = runtime.block_on(take_part(config, data_dir, ready.ear, ready.plan, alone))?;
        Ok(handle.map_or(Start::Again, |handle| Start::Member(Box::new(Cluster { runtime: Some(runtime), handle }))))
    }

    /// That of a node that was started with [`start_on`]: whoever has the runtime ends it.
    pub fn of(handle: Handle) -> Cluster {
        Cluster { runtime: None, handle }
    }

    /// What others may ask of it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The shard takes over: it is told of everything that comes after the catalog that is returned.
    pub fn go_live(&self, mailbox: &Mailbox, config: &Config) -> Catalog {
        self.handle.go_live(mailbox, config, links::to_shard(mailbox.clone()))
    }

    /// Ends it: what was answered is on the disk.
    pub fn stop(self) {
        self.handle.gate.close();
        if let Some(runtime) = self.runtime {
            runtime.block_on(self.handle.raft.stop());
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// A node before it has anything to do with others: what its configuration and its next start come to.
struct Ready {
    ear: Ear,
    plan: Option<Plan>,
}

impl Ready {
    /// None if it has no secret, and so nothing to do with other nodes.
    fn new(config: &Config, data_dir: &Path, ground: Ground) -> Result<Option<Ready>, Failure> {
        let directory = data_dir.join(CATALOG);
        let mut planned = Planned::read(data_dir)?;
        if let Some(planned) = &mut planned {
            if matches!(planned.plan, Plan::Join { .. }) && config.cluster.secret_file.is_none() {
                return Err(Failure::new(
                    Code::Config,
                    format!(
                        "this node is to join a cluster, and there is no secret: set cluster.secret_file, or remove {}",
                        data_dir.join(plan::FILE).display()
                    ),
                ));
            }
            planned.begin(data_dir)?;
        }
        let has_log = directory.join(LOG).exists();
        let Some(secret_file) = &config.cluster.secret_file else {
            if has_log {
                return Err(Failure::new(
                    Code::Config,
                    format!(
                        "the data directory {} is that of a member of a cluster, and there is no secret: set cluster.secret_file",
                        data_dir.display()
                    ),
                ));
            }
            plan::remove(data_dir)?;
            return Ok(None);
        };
        let secret = secret::read(secret_file)?;
        let tls = config.cluster.tls.as_ref().map(tls::NodeTls::new).transpose()?;
        let identity = Identity {
            cluster: None,
            node: 0,
            incarnation: 0,
            name: config.node.name.clone(),
            software: concat!("brokerd ", env!("CARGO_PKG_VERSION")).into(),
        };
        let ear = Ear {
            gate: Arc::new(Gate::new(ground, secret, tls, identity)),
            raft: Arc::default(),
            proposals: Arc::default(),
            sight: Arc::default(),
            links: Links::default(),
            local: Arc::default(),
            moving: Arc::default(),
        };
        Ok(Some(Ready { ear, plan: planned.map(|planned| planned.plan) }))
    }
}

/// Has a node take part on a runtime that is there and over another network, as [`Cluster::start`] does on its own; none if an operator
/// has said meanwhile that it is to start again.
pub async fn start_on(
    ground: Ground,
    config: &Config,
    data_dir: &Path,
    alone: impl FnOnce() -> Result<Catalog, Failure>,
) -> Result<Option<Handle>, Failure> {
    let no_secret = || Failure::new(Code::Config, "this node has no secret");
    let ready = Ready::new(config, data_dir, ground)?.ok_or_else(no_secret)?;
    take_part(config, data_dir, ready.ear, ready.plan, alone).await
}

impl Handle {
    /// Whoever has the mailbox is told of everything that comes after the catalog that is returned, and is handed the streams of links.
    pub fn go_live(&self, mailbox: &Mailbox, config: &Config, links: Taker) -> Catalog {
        let live = self.feed.go_live(mailbox.clone());
        drop(self.local.set(ShardHandle::new(mailbox.clone(), self.node())));
        self.links.go_live(links);
        self.runtime.spawn(self.links.clone().run(self.gate.clone(), self.feed.clone(), self.node().0));
        self.runtime.spawn(attend::run(self.clone(), config.cluster.partition_handling.clone(), mailbox.clone()));
        live
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        NodeId(self.raft.identity().node)
    }

    /// The cluster's identity, in hexadecimal digits.
    pub fn cluster_id(&self) -> String {
        self.raft.identity().cluster.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Where changes are proposed.
    pub fn proposals(&self) -> &Proposals {
        &self.proposals
    }

    /// How the log stands.
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// The catalog, as far as it is known here.
    pub fn catalog(&self) -> Catalog {
        self.feed.catalog()
    }

    /// Which nodes answer, this one among them.
    pub fn seen(&self) -> BTreeSet<u64> {
        self.sight.seen().into_iter().collect()
    }

    /// Other nodes to which a link is to be expected: they have started, and are seen or may yet be.
    pub fn expected(&self, running_for: Duration) -> Vec<NodeId> {
        let seen = self.seen();
        let catalog = self.feed.catalog();
        let others = catalog.members().iter().filter(|member| member.started && member.node != self.node());
        let is_expected = |node: NodeId| seen.contains(&node.0) || running_for < SEEN_AFTER;
        others.map(|member| member.node).filter(|node| is_expected(*node)).collect()
    }

    /// Who sees whom.
    pub fn views(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        self.sight.views()
    }

    /// What each node says of itself.
    pub fn facts(&self) -> BTreeMap<u64, Facts> {
        self.sight.facts()
    }

    /// Changes what this node says of itself to the others.
    pub fn say(&self, change: impl FnOnce(&mut Facts)) {
        // Nobody panics while holding it.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before = said.clone();
        change(&mut said);
        if *said != before {
            self.sight.say(said.clone());
        }
    }

    /// How many connections and queues this node has. It is told to the others now and then.
    pub fn load_is(&self, connections: usize, queues: usize) {
        self.load.0.store(connections as u64, Ordering::Relaxed);
        self.load.1.store(queues as u64, Ordering::Relaxed);
    }

    fn tell_load(&self) {
        let (connections, queues) = (self.load.0.load(Ordering::Relaxed), self.load.1.load(Ordering::Relaxed));
        self.say(|facts| (facts.connections, facts.queues) = (connections, queues));
    }

    /// Whether it does not serve clients because it sees too few others.
    pub fn is_paused(&self) -> bool {
        self.sight.is_paused()
    }

    /// The shard has a link to a node.
    pub fn link_is_up(&self, node: NodeId) {
        self.links.is_up(node.0);
    }

    /// The shard has lost the link to a node: what that one has announced is gone.
    pub fn link_is_down(&self, node: NodeId) {
        self.links.is_down(node.0);
        self.feed.unreachable(node);
    }

    /// The number of the next exclusive queue of this node.
    pub fn announced_id(&self) -> QueueId {
        self.feed.announced_id(self.node(), count_of(self.raft.incarnation()))
    }

    /// This node or another says something of its exclusive queues; the shard hears what it did under this number, as of a proposal.
    pub fn announce(&self, node: NodeId, announcement: &Announcement, number: u64) {
        self.feed.announce(node, announcement, number);
    }

    /// What this node has announced.
    pub fn announcements(&self) -> Vec<Announcement> {
        self.feed.announcements(self.node())
    }

    /// What this node has announced of one of its queues.
    pub fn announcements_of(&self, queue: QueueId) -> Vec<Announcement> {
        self.feed.announcements_of(queue)
    }

    /// Work that the shard has no time for.
    pub fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        drop(self.runtime.spawn_blocking(work));
    }
}

async fn take_part(
    config: &Config,
    data_dir: &Path,
    ear: Ear,
    plan: Option<Plan>,
    alone: impl FnOnce() -> Result<Catalog, Failure>,
) -> Result<Option<Handle>, Failure> {
    let directory = data_dir.join(CATALOG);
    let has_log = directory.join(LOG).exists();
    let udp = listen(config, &ear, has_log).await?;
    let founding = directory.join(FOUNDING);
    if !has_log {
        let place = match plan {
            Some(Plan::Join { through, cluster, node }) => {
                tracing::info!(through, node, "joining a cluster, as an operator has said");
                Place::Joined { cluster, node }
            }
            // Whoever is listed is not asked: it has just left them.
            Some(Plan::Leave) => Place::Found,
            Some(Plan::ForceBoot) | None => forming::find_place(config, &ear.gate, was_alone(&directory)).await?,
        };
        match place {
            Place::Found => {
                fs::create_dir_all(&directory).map_err(io_failure("create", &directory))?;
                write_synced(&founding, b"")?;
                let identity = LogIdentity { cluster: by_chance(&ear.gate)?, node: FOUNDER };
                create_log(&directory, &identity).map_err(log_failure)?;
                tracing::info!("a cluster is founded");
            }
            Place::Joined { cluster, node } => {
                fs::create_dir_all(&directory).map_err(io_failure("create", &directory))?;
                create_log(&directory, &LogIdentity { cluster, node }).map_err(log_failure)?;
                tracing::info!(node, "the cluster has given this node a number");
            }
        }
    }
    plan::remove(data_dir)?;

    let feed = Feed::new();
    let peers = Arc::new(Peers::new(ear.gate.clone()));
    let ground = ear.gate.ground();
    let listener = ground.overheard(feed.listener());
    let chance = u32::from_ne_bytes(by_chance(&ear.gate)?);
    let (pace, compaction, writing) = (Pace::default(), ground.compaction(), ground.writing());
    let opening = Opening { pace, compaction, writing, chance };
    let raft = Raft::open(&directory, opening, peers.clone(), listener).await.map_err(log_failure)?;
    let raft = Arc::new(raft);
    ear.gate.members(feed.catalog().members().clone());
    drop(ear.raft.set(raft.clone()));
    let proposals = Proposals::start(raft.clone(), feed.clone());
    let handle = Handle {
        raft,
        peers,
        feed,
        gate: ear.gate,
        sight: ear.sight,
        links: ear.links,
        proposals,
        local: ear.local,
        said: Arc::default(),
        about: Arc::new(About {
            name: config.node.name.clone(),
            address: config.cluster.advertised_address(&config.node.name),
            port: config.cluster.listener.port,
        }),
        moving: ear.moving,
        load: Arc::default(),
        data_dir: data_dir.into(),
        runtime: tokio::runtime::Handle::current(),
    };
    if founding.exists() {
        found(&handle, config, &directory, alone).await?;
        remove_if_there(&founding)?;
    }
    // Only now: nobody joins a cluster whose founder is not yet its first member.
    drop(ear.proposals.set(handle.proposals.clone()));
    begin_to_gossip(config, &handle, udp).await?;
    tokio::spawn(follow_members(handle.clone()));
    tokio::spawn(watch_for_failure(handle.clone()));
    let leading = lead::run(handle.raft.clone(), handle.feed.clone(), handle.proposals.clone(), handle.sight.clone());
    tokio::spawn(leading);
    if !catch_up(&handle).await? {
        handle.gate.close();
        handle.raft.stop().await;
        return Ok(None);
    }
    Ok(Some(handle))
}

/// Opens the port for other nodes, and answers.
async fn listen(config: &Config, ear: &Ear, has_log: bool) -> Result<Datagrams, Failure> {
    let port = config.cluster.listener.port;
    let address = SocketAddr::new(config.cluster.listener.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port);
    let failed = |error: io::Error| {
        Failure::new(
            Code::Unavailable,
            format!("cannot listen for other nodes on {address} (cluster.listener.port): {error}"),
        )
    };
    let v4 = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port);
    let any = config.cluster.listener.ip.is_none();
    let ground = ear.gate.ground();
    let opened = match ground.listen(address).await {
        // A machine without IPv6.
        Err(_) if any => ground.listen(v4).await,
        opened => opened,
    };
    let (listener, udp, address) = opened.map_err(failed)?;
    tracing::info!(%address, "listening for other nodes");
    let answers = Answers {
        gate: ear.gate.clone(),
        has_log,
        raft: ear.raft.clone(),
        proposals: ear.proposals.clone(),
        sight: ear.sight.clone(),
        local: ear.local.clone(),
        moving: ear.moving.clone(),
    };
    let accepted = control::serve(answers);
    let (gate, links) = (ear.gate.clone(), ear.links.clone());
    tokio::spawn(async move {
        let places = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a stream of another node; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Whoever comes while all places are taken is not heard; it comes again if it is a node.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (gate, links, accepted) = (gate.clone(), links.clone(), accepted.clone());
            tokio::spawn(async move {
                let takes = |purpose| purpose != Purpose::Link || links.are_live();
                let taken = streams::accept(stream, &gate, takes).await;
                drop(place);
                match taken {
                    Ok((stream, peer, Purpose::Link)) => links.take(stream, &peer),
                    Ok((stream, peer, Purpose::Control)) => {
                        drop(accepted.send(Ok(PeerStream::new(stream, peer))).await);
                    }
                    // It comes again, and this node serves soon.
                    Err(StreamError::Refused { why: Refusal::NotNow, by_us: true }) => {
                        tracing::debug!(%from, "a stream of another node is not taken yet");
                    }
                    Err(error) => tracing::warn!(%from, "a stream of another node is refused: {error}"),
                }
            });
        }
    });
    Ok(udp)
}

/// The first entries of a new cluster. What was done before a crash is not done again.
async fn found(
    handle: &Handle,
    config: &Config,
    directory: &Path,
    alone: impl FnOnce() -> Result<Catalog, Failure>,
) -> Result<(), Failure> {
    let name = config.node.name.clone();
    let address = config.cluster.advertised_address(&name);
    let this = Node { name: name.clone(), address: address.clone() };
    if handle.raft.status().voters.is_empty() {
        let founded = handle.raft.found(BTreeMap::from([(FOUNDER, this)])).await;
        founded.map_err(|error| Failure::new(Code::Software, format!("cannot found a cluster: {error}")))?;
    }
    let refused = |why: String| Failure::new(Code::Software, format!("cannot found a cluster: {why}"));
    handle.raft.lead_alone().await;
    // The log may hold it already, and be applied only now.
    let nothing = command::node_is_down(NodeId(FOUNDER));
    handle.proposals.change(nothing, CHANGE_TIME).await.map_err(refused)?;
    if handle.feed.catalog().is_empty() {
        let import = command::import(alone()?.to_snapshot());
        handle.proposals.change(import, CHANGE_TIME).await.map_err(refused)?;
    }
    if handle.feed.catalog().members().is_empty() {
        let node = handle.proposals.add_member(&name, &address, CHANGE_TIME).await.map_err(refused)?;
        if node != FOUNDER {
            return Err(refused(format!("the first node was given the number {node}")));
        }
    }
    // Else it would be taken up again should the log be lost, and become a second cluster.
    move_alone_files(directory, &directory.join(ALONE))
}

async fn begin_to_gossip(config: &Config, handle: &Handle, udp: Datagrams) -> Result<(), Failure> {
    let advertised = config.cluster.advertised_address(&config.node.name);
    let Some(address) = handle.gate.ground().resolve_one(&advertised).await else {
        return Err(Failure::new(
            Code::Config,
            format!(
                "the address {advertised}, at which other nodes are to reach this one, has no meaning here: correct the node's name or cluster.advertised_address"
            ),
        ));
    };
    let identity = handle.raft.identity();
    let me = Me { cluster: identity.cluster, node: identity.node, incarnation: handle.raft.incarnation(), address };
    let seed = u64::from_le_bytes(by_chance(&handle.gate)?);
    let gossip = Gossip::new(Instant::now().into_std(), me.clone(), handle.gate.secret().clone(), seed);
    handle.sight.start(udp, me, gossip, || {});
    Ok(())
}

fn by_chance<const N: usize>(gate: &Gate) -> Result<[u8; N], Failure> {
    gate.ground().random().map_err(|error| Failure::new(Code::Software, format!("cannot get random numbers: {error}")))
}

/// Tells whoever has to know who belongs to the cluster and where they are. Names may come to mean other addresses.
async fn follow_members(handle: Handle) {
    const RESOLVE_EVERY: Duration = Duration::from_secs(10);
    let mut changes = handle.feed.changes();
    let mut known = None;
    loop {
        let members = handle.feed.catalog().members().clone();
        if known.as_ref() != Some(&members) {
            handle.gate.members(members.clone());
        }
        let mut places = Vec::new();
        for member in members.iter() {
            if let Some(address) = handle.gate.ground().resolve_one(&member.address).await {
                places.push((member.node.0, address));
            }
        }
        handle.sight.members(places);
        known = Some(members);
        let until = Instant::now() + RESOLVE_EVERY;
        loop {
            match tokio::time::timeout_at(until, changes.changed()).await {
                Ok(Ok(())) if known.as_ref() == Some(handle.feed.catalog().members()) => {}
                Ok(Ok(())) | Err(_) => break,
                Ok(Err(_)) => return,
            }
        }
    }
}

/// What a node says that is no member any more.
const REMOVED: &str =
    "this node was removed from its cluster. To have it join again, start it with an empty data directory";

/// After a failure of the log the process has to end: the next start reads what is there. So it has to when the disk turns out to be an older copy, and when
/// the others say that it was removed, unless it is just leaving.
async fn watch_for_failure(handle: Handle) {
    let failed = |why: &str| handle.gate.ground().failed(why);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let Some(why) = handle.raft.failed() {
            if !handle.raft.is_stopping() {
                failed(&format!("the catalog's log has failed: {why}"));
            }
            return;
        }
        if handle.raft.starts().is_outdated() {
            return failed(&OpenError::Outdated(handle.data_dir.join(CATALOG)).to_string());
        }
        if handle.gate.was_removed() && !handle.moving.load(Ordering::SeqCst) {
            return failed(REMOVED);
        }
    }
}

/// Waits until this node has applied everything that was carried out before its start. That it starts is a change of its own. Not so if an operator has said
/// meanwhile that it is to do without the others.
async fn catch_up(handle: &Handle) -> Result<bool, Failure> {
    let node = handle.raft.identity().node;
    let mut told_at: Option<Instant> = None;
    if handle.raft.status().voters == BTreeSet::from([node]) {
        handle.raft.lead_alone().await;
    }
    loop {
        match handle.proposals.change(command::node_starts(NodeId(node)), CHANGE_TIME).await {
            Ok(_) => return Ok(true),
            Err(_) if handle.data_dir.join(plan::FILE).exists() => return Ok(false),
            Err(problem) => {
                let members = handle.feed.catalog().members().clone();
                if handle.gate.was_removed() || members.knows_of(node) && members.get(NodeId(node)).is_none() {
                    return Err(Failure::new(Code::Config, REMOVED));
                }
                if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    told_at = Some(Instant::now());
                    let status = handle.raft.status();
                    tracing::warn!(
                        sees = ?handle.sight.seen(),
                        voters = ?status.voters,
                        leader = status.leader,
                        "waiting for a majority of the cluster: {problem}"
                    );
                }
            }
        }
    }
}

/// Whether there is a catalog of a node that was alone.
fn was_alone(directory: &Path) -> bool {
    directory.join("snapshot").exists()
}

/// Moves what a node had while it was alone out of the way.
fn move_alone_files(directory: &Path, aside: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(directory).map_err(io_failure("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(io_failure("read", directory))?;
        let name = entry.file_name();
        let is_alone = name.to_str().is_some_and(|name| name.starts_with("snapshot") || name.starts_with("log-"));
        if is_alone {
            fs::create_dir_all(aside).map_err(io_failure("create", aside))?;
            fs::rename(entry.path(), aside.join(&name)).map_err(io_failure("move", &entry.path()))?;
        }
    }
    Ok(())
}

fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_failure("remove", path)(error)),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, octets: &[u8]) -> Result<(), Failure> {
    let written = fs::File::create(path).and_then(|mut file| {
        io::Write::write_all(&mut file, octets)?;
        file.sync_all()
    });
    written.map_err(io_failure("write", path))?;
    sync_directory(path.parent().unwrap_or(path))
}

fn sync_directory(directory: &Path) -> Result<(), Failure> {
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(io_failure("sync", directory))
}

fn io_failure(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::io(doing, &path, &error)
}

fn log_failure(error: OpenError) -> Failure {
    let code = match error {
        OpenError::Io(_) => Code::Io,
        OpenError::Exists(_) | OpenError::Missing(_) | OpenError::Outdated(_) => Code::Data,
    };
    Failure::new(code, error.to_string())
}

/// Has a node that no others know be a blank one from its next start on.
pub fn plan_to_be_blank(data_dir: &Path) -> Result<(), Failure> {
    Plan::Leave.write(data_dir)
}
