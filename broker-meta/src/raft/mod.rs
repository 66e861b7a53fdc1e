//! The catalog of a cluster: its log under Raft (openraft).
//!
//! Every node has all of the log and applies it to its own [`Catalog`]. Whoever proposes commands learns what they did when its own node applies
//! them ([`Applied`] names who proposed), so that nothing but "append this" travels to the leader, and asking again after a leader was lost does
//! nothing twice.
//!
//! | file | what |
//! |---|---|
//! | `store` | the log on the disk |
//! | `machine` | what its entries come to; snapshots |
//! | `check` | what must hold of a request before Raft is handed it |
//! | `network` | requests between nodes as octets; who carries them is given ([`Transport`]) |
//! | `forced` | a new cluster out of the log of one node, when the others are lost for good |
//! | `types` | openraft's words as protobuf messages |
//!
//! Nothing of openraft shows outside. After a failure of the disk, or a fault in Raft itself, [`CatalogRaft::failed`] says so and nothing is answered any
//! more: the process has to end, and the next start reads what is there.

mod check;
mod forced;
mod machine;
mod network;
mod starts;
mod store;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::AppendEntriesResponse;
use openraft::storage::Snapshot;
use openraft::{ChangeMembers, Config, Raft, RaftState, ReadPolicy, SnapshotPolicy};
use prost::Message;
use proto::cluster;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

pub use forced::{Forced, Lost, force_boot};
pub use machine::{Applied, Listener};
pub use network::{Kind, NotReached, Transport};
pub use starts::{Starts, count_of};
pub use store::{Identity, OpenError, Writing};
pub use types::{Meaningless, Node};

use crate::catalog::Catalog;
use crate::command::{Command, is_known};
use check::Sent;
use machine::{Machine, Shared};
use network::Peers;
use store::{Begun, LogStore};
use types::{Batch, LogIdOf, TypeConfig, VoteOf};

/// A snapshot from another node is no longer than this, in octets.
const SNAPSHOT_MAX_BYTES: u64 = 1 << 30;
/// So long a proposal rests before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How fast Raft is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The leader says so often that it is there.
    pub heartbeat: Duration,
    /// Without a word from it for so long a node asks whether it should lead; each waits a little longer, up to twice this.
    pub election: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { heartbeat: Duration::from_millis(250), election: Duration::from_millis(750) }
    }
}

/// When the beginning of the log is given up.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Entries after which the catalog is written as a snapshot.
    pub after: u64,
    /// Entries before a snapshot that are kept, for nodes that are only a little behind; fewer than 20 and Raft might purge what it is about to apply.
    pub kept: u64,
    /// So many are removed at once at least.
    pub batch: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Compaction { after: 10_000, kept: 5_000, batch: 256 }
    }
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// How fast Raft is.
    pub pace: Pace,
    /// When its beginning is given up.
    pub compaction: Compaction,
    /// Who writes the log.
    pub writing: Writing,
    /// By chance: it tells this start from one of a copy of the disk.
    pub chance: u32,
}

/// Why a change did not come about, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// There was no leader, or it had no majority. The change may still come about if the leader had it already.
    #[error("the cluster's catalog cannot be changed: no majority of its nodes answered in time")]
    NoMajority,
    /// It was removed from the cluster.
    #[error("this node does not belong to the cluster any more")]
    Stranger,
    /// This node's log has failed, or it is stopping.
    #[error("this node's catalog has stopped: {0}")]
    Stopped(String),
    /// The change of members makes no sense now.
    #[error("the members of the cluster cannot be changed: {0}")]
    Members(String),
}

/// What a node is under Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides the order of changes.
    Leader,
    /// It votes, and follows.
    Follower,
    /// It asks to lead.
    Candidate,
    /// It follows and does not vote.
    Learner,
    /// It is stopping.
    Stopped,
}

/// How Raft stands on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this node is.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// The leader's term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Who votes.
    pub voters: BTreeSet<u64>,
    /// Who does not yet.
    pub learners: BTreeSet<u64>,
    /// How far the log of each other node is, where this one leads; without those that have not said that they have any of it.
    pub matching: BTreeMap<u64, u64>,
}

/// Makes the log of a node that founds a cluster or has been given a number by one. Nothing else makes one: a node that has lost its log, and with it what
/// it has voted for, is not to vote again under the same number.
pub fn create_log(directory: &Path, identity: &Identity) -> Result<(), OpenError> {
    LogStore::create(directory, identity)
}

/// The catalog of a cluster, on one of its nodes.
pub struct CatalogRaft<T> {
    raft: Raft<TypeConfig, Machine>,
    shared: Shared,
    store: LogStore,
    transport: Arc<T>,
    identity: Identity,
    starts: Arc<Starts>,
    stopping: AtomicBool,
    /// The snapshot that another node is sending.
    incoming: Mutex<Incoming>,
    /// What the last leader that sent something cannot go back on.
    sent: std::sync::Mutex<Option<Sent>>,
}

#[derive(Default)]
struct Incoming {
    /// The sender's vote, for each numbers its transfers by itself, and the number.
    transfer: Option<(VoteOf, u64)>,
    octets: Vec<u8>,
}

impl<T: Transport> CatalogRaft<T> {
    /// Opens the log that a directory holds and takes part: a node that has heard of no cluster yet waits for its leader, or for
    /// [`CatalogRaft::found`].
    pub async fn open(
        directory: &Path,
        Opening { pace, compaction, writing, chance }: Opening,
        transport: Arc<T>,
        listener: Listener,
    ) -> Result<CatalogRaft<T>, OpenError> {
        let millis = |time: Duration| time.as_millis() as u64;
        let config = Config {
            cluster_name: "catalog".into(),
            heartbeat_interval: millis(pace.heartbeat),
            election_timeout_min: millis(pace.election),
            election_timeout_max: 2 * millis(pace.election),
            // A piece is answered after it is taken, the last one after all is installed.
            install_snapshot_timeout: 60_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(compaction.after),
            max_in_snapshot_log_to_keep: compaction.kept,
            purge_batch_size: compaction.batch,
            // A node that was cut off must not depose the leader when it comes back.
            enable_pre_vote: Some(true),
            ..Config::default()
        };
        let config = config.validate().map_err(io::Error::other)?;
        let (store, Begun { identity, starts, heard, is_outdated }) = LogStore::open(directory, writing, chance)?;
        if is_outdated {
            return Err(OpenError::Outdated(directory.into()));
        }
        let starts = Arc::new(Starts::new(store.clone(), starts, heard));
        // Raft asks the others as soon as it is there.
        transport.carries_for(&identity, &starts);
        let machine = Machine::open(directory, listener)?;
        let shared = machine.shared();
        let peers = Peers::new(transport.clone());
        let raft = Raft::new(identity.node, Arc::new(config), peers, store.clone(), machine).await;
        let raft = raft.map_err(io::Error::other)?;
        let (incoming, sent, stopping) = (Mutex::default(), std::sync::Mutex::default(), AtomicBool::new(false));
        Ok(CatalogRaft { raft, shared, store, transport, identity, starts, stopping, incoming, sent })
    }

    /// Founds a cluster of these nodes. To be called on one node, once in the life of a cluster, when none of them belongs to one.
    pub async fn found(&self, members: BTreeMap<u64, Node>) -> Result<(), ProposeError> {
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(error)) => Err(ProposeError::Members(error.to_string())),
        }
    }

    /// Whose log it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Of this start: higher than that of earlier ones.
    pub fn incarnation(&self) -> u64 {
        self.starts.this()
    }

    /// The starts that it knows of, its own and those of other nodes.
    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    /// The catalog as far as this node has applied it.
    pub fn catalog(&self) -> Catalog {
        self.shared.lock().catalog().clone()
    }

    /// Has commands carried out, and waits until this node has applied them; what they did was told to the listener by then. `number` counts the
    /// proposals of this start upwards, and there is one at a time.
    pub async fn propose(&self, number: u64, commands: Vec<Command>, wait: Duration) -> Result<(), ProposeError> {
        let origin = cluster::Origin { node: self.identity.node, incarnation: self.incarnation(), number };
        let batch = cluster::Batch { origin: Some(origin), commands };
        let until = Instant::now() + wait;
        loop {
            if self.shared.lock().has_applied(&origin) {
                return Ok(());
            }
            if let Some(why) = self.failed() {
                return Err(ProposeError::Stopped(why));
            }
            if Instant::now() >= until {
                return Err(ProposeError::NoMajority);
            }
            // A try that is not answered is made again: whatever it came to, the batch is carried out once.
            let appended = timeout_at(until, self.append(&batch)).await.unwrap_or(Ok(None))?;
            if let Some(index) = appended {
                self.wait_applied(index, until).await;
            } else {
                sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
            }
        }
    }

    /// Has the leader append a batch. Its index, if it did.
    async fn append(&self, batch: &cluster::Batch) -> Result<Option<u64>, ProposeError> {
        use cluster::propose_answer::Result as Answer;
        let leader = match self.append_here(batch).await {
            Ok(id) => return Ok(Some(id.index)),
            Err(leader) => leader.filter(|&leader| leader != self.identity.node),
        };
        let Some((node, place)) = leader.and_then(|node| Some((node, self.node_of(node)?))) else { return Ok(None) };
        let asked = self.transport.request(node, &place, Kind::Propose, batch.encode_to_vec()).await;
        let answer = asked.ok().and_then(|answer| cluster::ProposeAnswer::decode(&*answer).ok()?.result);
        match answer {
            Some(Answer::Appended(id)) => Ok(Some(id.index)),
            Some(Answer::Stranger(_)) => Err(ProposeError::Stranger),
            // It is tried again, perhaps with another leader.
            Some(Answer::Leader(_)) | None => Ok(None),
        }
    }

    /// Appends a batch if this node leads; otherwise says who does.
    async fn append_here(&self, batch: &cluster::Batch) -> Result<LogIdOf, Option<u64>> {
        match self.raft.client_write(Batch(batch.clone())).await {
            Ok(response) => Ok(response.log_id),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(forward.leader_id),
            Err(_) => Err(None),
        }
    }

    fn node_of(&self, node: u64) -> Option<Node> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&node).cloned()
    }

    async fn wait_applied(&self, index: u64, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        // If it does not come in time, whoever waits looks again and gives up.
        let _ = self.raft.wait(Some(left)).applied_index_at_least(Some(index), "a proposal").await;
    }

    /// Waits until this node has applied everything that was carried out anywhere before this call.
    pub async fn catch_up(&self, wait: Duration) -> Result<(), ProposeError> {
        match tokio::time::timeout(wait, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ProposeError::Stopped(fatal.to_string())),
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(ProposeError::NoMajority),
        }
    }

    /// Adds a node that follows without a vote, and waits until its log has what this one had at the call. Only the leader can. When it takes too long the
    /// node is one of the cluster all the same, and goes on catching up.
    pub async fn add_learner(&self, node: u64, place: Node, wait: Duration) -> Result<(), ProposeError> {
        let until = Instant::now() + wait;
        self.members(until, || self.raft.add_learner(node, place.clone(), false)).await?;
        let last = self.status().last;
        while self.status().matching.get(&node).is_none_or(|&matching| matching < last) {
            if Instant::now() >= until {
                return Err(ProposeError::Members(format!("node {node} did not catch up in time")));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Makes these nodes the ones that vote; those that voted and are not among them no longer belong to the cluster. Only the leader can.
    pub async fn set_voters(&self, voters: BTreeSet<u64>, wait: Duration) -> Result<(), ProposeError> {
        let change = || self.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters.clone()), false);
        self.members(Instant::now() + wait, change).await
    }

    /// Removes nodes that do not vote. Only the leader can.
    pub async fn remove_learners(&self, nodes: BTreeSet<u64>, wait: Duration) -> Result<(), ProposeError> {
        let change = || self.raft.change_membership(ChangeMembers::RemoveNodes(nodes.clone()), false);
        self.members(Instant::now() + wait, change).await
    }

    /// Tries a change of members until it is made, refused, or the time is up: a leader that was just elected takes none before a majority has
    /// answered it.
    async fn members<A, F>(&self, until: Instant, change: impl Fn() -> F) -> Result<(), ProposeError>
    where
        F: Future<Output = Result<A, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    {
        loop {
            let refused = match timeout_at(until, change()).await.map_err(|_| ProposeError::NoMajority)? {
                Ok(_) => return Ok(()),
                Err(RaftError::Fatal(fatal)) => return Err(ProposeError::Stopped(fatal.to_string())),
                Err(RaftError::APIError(refused)) => refused,
            };
            match refused {
                ClientWriteError::ForwardToLeader(forward)
                    if forward.leader_id.is_none_or(|leader| leader == self.identity.node) =>
                {
                    if Instant::now() >= until {
                        return Err(ProposeError::NoMajority);
                    }
                    sleep(PAUSE).await;
                }
                refused => return Err(ProposeError::Members(refused.to_string())),
            }
        }
    }

    /// Hands the lead to another node that votes.
    pub async fn hand_over(&self, to: u64) -> Result<(), ProposeError> {
        let handed = self.raft.trigger().transfer_leader(to).await;
        handed.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))
    }

    /// Writes a snapshot now, and lets entries go that are no longer needed.
    pub async fn write_snapshot(&self) -> Result<(), ProposeError> {
        let triggered = self.raft.trigger().snapshot().await;
        triggered.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))
    }

    /// How Raft stands on this node.
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<LogIdOf>| id.map_or(0, |id| id.index);
        Status {
            role: match metrics.state {
                openraft::ServerState::Leader => Role::Leader,
                openraft::ServerState::Follower => Role::Follower,
                openraft::ServerState::Candidate => Role::Candidate,
                openraft::ServerState::Learner => Role::Learner,
                openraft::ServerState::Shutdown => Role::Stopped,
            },
            leader: metrics.current_leader,
            term: metrics.current_term,
            last: metrics.last_log_index.unwrap_or_default(),
            applied: index(&metrics.last_applied),
            voters: metrics.membership_config.voter_ids().collect(),
            learners: metrics.membership_config.membership().learner_ids().collect(),
            matching: metrics
                .replication
                .iter()
                .flatten()
                .filter(|(node, _)| **node != self.identity.node)
                .filter_map(|(&node, id)| Some((node, id.as_ref()?.index)))
                .collect(),
        }
    }

    /// Why this node's catalog has stopped, if it has: the process has to end.
    pub fn failed(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let stopped = metrics.borrow_watched().running_state.as_ref().err().map(ToString::to_string);
        stopped.or_else(|| self.shared.has_ended().then(|| "its task has panicked".into()))
    }

    /// Has the only node that votes lead at once, without waiting for another to do it.
    pub async fn lead_alone(&self) {
        if self.status().voters != BTreeSet::from([self.identity.node]) {
            return;
        }
        // Should it fail, it leads a little later by itself.
        drop(self.raft.trigger().elect(false).await);
        let wait = self.raft.wait(Some(PAUSE * 40));
        drop(wait.state(openraft::ServerState::Leader, "the only voter").await);
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Stops taking part. What was answered is on the disk.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!("the catalog's task has panicked: {error}");
        }
        self.store.close();
    }

    /// Answers a request of another node. An error means that the octets are no such request, or that this node cannot answer: it is not answered then.
    pub async fn handle(&self, kind: Kind, octets: &[u8]) -> Result<Vec<u8>, HandleError> {
        match kind {
            Kind::Append => {
                let request = network::take_append(octets)?;
                check::append(self.identity.node, &request)?;
                let request = self.hold_against_known(request, check::append_agrees).await?;
                let (vote, last) = (request.vote, request.entries.last().map(|entry| entry.log_id));
                let last = last.or(request.prev_log_id);
                let answer = self.raft.append_entries(request).await.map_err(refused)?;
                if answer == AppendEntriesResponse::Success {
                    self.note_sent(vote, last);
                }
                Ok(network::put_append_answer(&answer))
            }
            Kind::Vote => {
                let request = network::take_vote_request(octets)?;
                check::vote(self.identity.node, &request)?;
                let answer = self.raft.vote(request).await.map_err(refused)?;
                Ok(network::put_vote_answer(&answer))
            }
            Kind::PreVote => {
                let request = network::take_vote_request(octets)?;
                check::vote(self.identity.node, &request)?;
                let answer = self.raft.pre_vote(request).await.map_err(refused)?;
                Ok(network::put_vote_answer(&answer))
            }
            Kind::Snapshot => self.take_piece(network::decode(octets)?).await,
            Kind::Transfer => {
                let request: cluster::TransferRequest = network::decode(octets)?;
                let from = types::take_vote(request.from)?;
                let last = request.last.map(types::take_log_id);
                let transfer = openraft::raft::TransferLeaderRequest::new(from, request.to, last);
                check::transfer(self.identity.node, &transfer)?;
                let taken = self.raft.handle_transfer_leader(transfer).await.map_err(refused)?;
                taken.map_err(refused)?;
                Ok(cluster::Blank {}.encode_to_vec())
            }
            Kind::Propose => {
                use cluster::propose_answer::Result as Answer;
                let batch: cluster::Batch = network::decode(octets)?;
                let origin = batch.origin.ok_or(Meaningless("a proposal does not say whose it is"))?;
                // The log would have it for good, and no node of this version could read it.
                if !batch.commands.iter().all(is_known) {
                    let newer = "a command is of a kind that this version does not know: upgrade this node";
                    return Err(Meaningless(newer).into());
                }
                let is_strange = self.status().role == Role::Leader && self.node_of(origin.node).is_none();
                let result = if is_strange {
                    Answer::Stranger(cluster::Blank {})
                } else {
                    match self.append_here(&batch).await {
                        Ok(id) => Answer::Appended(types::put_log_id(&id)),
                        Err(leader) => Answer::Leader(leader.unwrap_or_default()),
                    }
                };
                Ok(cluster::ProposeAnswer { result: Some(result) }.encode_to_vec())
            }
        }
    }

    /// Holds a leader's request against what Raft knows at this moment; a copy of that would be a little behind.
    async fn hold_against_known<R: Send + 'static>(
        &self,
        request: R,
        agrees: impl FnOnce(&RaftState<TypeConfig>, Option<Sent>, R) -> Result<R, Meaningless> + Send + 'static,
    ) -> Result<R, HandleError> {
        let sent = *self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let check = move |state: &RaftState<TypeConfig>| agrees(state, sent, request);
        Ok(self.raft.with_raft_state(check).await.map_err(refused)??)
    }

    fn note_sent(&self, vote: VoteOf, last: Option<LogIdOf>) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent = Sent::with(*sent, vote, last);
    }

    async fn take_piece(&self, piece: cluster::SnapshotPiece) -> Result<Vec<u8>, HandleError> {
        let vote = types::take_vote(piece.vote)?;
        check::leads(self.identity.node, &vote)?;
        let transfer = Some((vote, piece.transfer));
        let mut incoming = self.incoming.lock().await;
        if piece.offset == 0 {
            *incoming = Incoming { transfer, octets: Vec::new() };
        }
        if incoming.transfer != transfer || incoming.octets.len() as u64 != piece.offset {
            return Err(Meaningless("a piece of a snapshot does not follow the one before").into());
        }
        if piece.offset + piece.octets.len() as u64 > SNAPSHOT_MAX_BYTES {
            *incoming = Incoming::default();
            return Err(Meaningless("a snapshot is too long").into());
        }
        incoming.octets.extend_from_slice(&piece.octets);
        let theirs = if piece.last {
            let octets = std::mem::take(&mut *incoming).octets;
            let meta = machine::meta_of(&octets)?;
            check::snapshot(self.identity.node, &vote, &meta)?;
            let (octets, is_good) = machine::check_catalog(octets).await;
            if !is_good {
                return Err(Meaningless("a snapshot's catalog makes no sense").into());
            }
            let (vote, meta) = self.hold_against_known((vote, meta), check::snapshot_agrees).await?;
            let last = meta.last_log_id;
            let snapshot = Snapshot { meta, snapshot: octets };
            let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(refused)?;
            if answer.vote == vote {
                self.note_sent(vote, last);
            }
            answer.vote
        } else {
            vote
        };
        Ok(cluster::SnapshotAnswer { vote: Some(types::put_vote(&theirs)) }.encode_to_vec())
    }
}

/// Why a request of another node is not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandleError {
    /// It makes no sense.
    #[error("a request of another node makes no sense: {0}")]
    Meaningless(#[from] Meaningless),
    /// This node's catalog has stopped, or takes no such request now.
    #[error("a request of another node is refused: {0}")]
    Refused(String),
}

fn refused(error: impl ToString) -> HandleError {
    HandleError::Refused(error.to_string())
}
