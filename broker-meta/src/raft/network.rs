//! Raft between nodes: requests as octets, over whatever carries them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message;
use proto::cluster;

use super::starts::Starts;
use super::store::{Identity, lock};
use super::types::{
    LogIdOf, Meaningless, Node, TypeConfig, VoteOf, put_entry, put_log_id, put_vote, take_entry, take_log_id, take_vote,
};

/// A piece of a snapshot is no longer than this, in octets.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;

/// What is asked of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To append entries.
    Append,
    /// To vote.
    Vote,
    /// Whether it would vote, before anybody is disturbed.
    PreVote,
    /// To take a piece of a snapshot.
    Snapshot,
    /// To become the leader.
    Transfer,
    /// To append commands, as the leader.
    Propose,
}

/// The other node did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("node {node} cannot be reached: {why}")]
pub struct NotReached {
    /// Its number.
    pub node: u64,
    /// Why.
    pub why: String,
}

/// Carries requests to other nodes. Each is answered by [`CatalogRaft::handle`](super::CatalogRaft::handle) there.
pub trait Transport: Send + Sync + 'static {
    /// Whose requests it carries, and of which start. Told once, before the first.
    fn carries_for(&self, _node: &Identity, _starts: &Arc<Starts>) {}

    /// A node's log does not hold any more what this leader was told it holds: its disk is an older copy, or was lost.
    fn log_went_back(&self, _node: u64) {}

    /// Asks a node and waits for its answer, for as long as the caller does.
    fn request(
        &self,
        to: u64,
        node: &Node,
        kind: Kind,
        octets: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, NotReached>> + Send;
}

/// Makes a [`Peer`] for each node.
pub(super) struct Peers<T> {
    transport: Arc<T>,
    holding: Holding,
}

/// How many entries each node's log holds, by what it has answered to the leader with this vote. While it follows that leader it cannot lose any of them.
type Holding = Arc<Mutex<BTreeMap<u64, (VoteOf, u64)>>>;

impl<T> Peers<T> {
    pub(super) fn new(transport: Arc<T>) -> Peers<T> {
        Peers { transport, holding: Holding::default() }
    }
}

/// One other node.
pub(super) struct Peer<T> {
    transport: Arc<T>,
    to: u64,
    node: Node,
    holding: Holding,
}

impl<T: Transport> RaftNetworkFactory<TypeConfig> for Peers<T> {
    type Network = Peer<T>;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer<T> {
        Peer { transport: self.transport.clone(), to: target, node: node.clone(), holding: self.holding.clone() }
    }
}

impl<T: Transport> Peer<T> {
    async fn ask<A: Message + Default>(
        &self,
        kind: Kind,
        octets: Vec<u8>,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let asked = self.transport.request(self.to, &self.node, kind, octets);
        let answer = match tokio::time::timeout(option.hard_ttl(), asked).await {
            Ok(answer) => answer.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?,
            Err(late) => return Err(RPCError::Network(NetworkError::new(&late))),
        };
        A::decode(&*answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn ask_for_vote(
        &self,
        kind: Kind,
        rpc: &VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        take_vote_answer(self.ask(kind, put_vote_request(rpc), option).await?).map_err(meaningless)
    }

    /// Whether an answer is in keeping with those before it.
    fn still_holds(&self, rpc: &AppendEntriesRequest<TypeConfig>, answer: &AppendEntriesResponse<TypeConfig>) -> bool {
        // The first entry has the index 0: a log up to there is not one without any.
        let up_to = |id: LogIdOf| id.index.saturating_add(1);
        let previous = rpc.prev_log_id.map_or(0, up_to);
        let holds = match answer {
            AppendEntriesResponse::Success => rpc.entries.last().map_or(previous, |entry| up_to(entry.log_id)),
            AppendEntriesResponse::PartialSuccess(id) => id.map_or(0, up_to),
            AppendEntriesResponse::Conflict => {
                return lock(&self.holding)
                    .get(&self.to)
                    .is_none_or(|(vote, held)| *vote != rpc.vote || previous > *held);
            }
            AppendEntriesResponse::HigherVote(_) => return true,
        };
        let mut holding = lock(&self.holding);
        match holding.get_mut(&self.to) {
            Some((vote, held)) if *vote == rpc.vote => *held = holds.max(*held),
            _ => drop(holding.insert(self.to, (rpc.vote, holds))),
        }
        true
    }
}

fn meaningless(why: Meaningless) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&why))
}

impl<T: Transport> RaftNetworkV2<TypeConfig> for Peer<T> {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer: cluster::AppendResponse = self.ask(Kind::Append, put_append(&rpc), &option).await?;
        let answer = take_append_answer(answer).map_err(meaningless)?;
        if !self.still_holds(&rpc, &answer) {
            self.transport.log_went_back(self.to);
            // Raft takes it for a fault of its own, and panics in a debug build.
            let why = "its log does not hold any more what it was known to hold";
            return Err(RPCError::Unreachable(Unreachable::new(&NotReached { node: self.to, why: why.into() })));
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(Kind::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(Kind::PreVote, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        static TRANSFERS: AtomicU64 = AtomicU64::new(1);
        let transfer = TRANSFERS.fetch_add(1, Ordering::Relaxed);
        let octets = snapshot.snapshot;
        let mut cancel = std::pin::pin!(cancel);
        let mut offset = 0;
        loop {
            let end = (offset + PIECE_BYTES).min(octets.len());
            let last = end == octets.len();
            let piece = cluster::SnapshotPiece {
                vote: Some(put_vote(&vote)),
                transfer,
                offset: offset as u64,
                octets: octets.get(offset..end).unwrap_or_default().to_vec(),
                last,
            };
            let asked = self.ask::<cluster::SnapshotAnswer>(Kind::Snapshot, piece.encode_to_vec(), &option);
            let answer = tokio::select! {
                closed = &mut cancel => return Err(StreamingError::Closed(closed)),
                answer = asked => answer?,
            };
            let theirs = take_vote(answer.vote).map_err(meaningless)?;
            if last || theirs > vote {
                return Ok(SnapshotResponse::new(theirs));
            }
            offset = end;
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = cluster::TransferRequest {
            from: Some(put_vote(rpc.from_leader())),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().map(put_log_id),
        };
        self.ask::<cluster::Blank>(Kind::Transfer, request.encode_to_vec(), &option).await?;
        Ok(Ok(()))
    }
}

fn put_append(rpc: &AppendEntriesRequest<TypeConfig>) -> Vec<u8> {
    let request = cluster::AppendRequest {
        vote: Some(put_vote(&rpc.vote)),
        previous: rpc.prev_log_id.as_ref().map(put_log_id),
        entries: rpc.entries.iter().map(put_entry).collect(),
        committed: rpc.leader_commit.as_ref().map(put_log_id),
    };
    request.encode_to_vec()
}

pub(super) fn take_append(octets: &[u8]) -> Result<AppendEntriesRequest<TypeConfig>, Meaningless> {
    let request = decode::<cluster::AppendRequest>(octets)?;
    Ok(AppendEntriesRequest {
        vote: take_vote(request.vote)?,
        prev_log_id: request.previous.map(take_log_id),
        entries: request.entries.into_iter().map(take_entry).collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(take_log_id),
    })
}

pub(super) fn put_append_answer(answer: &AppendEntriesResponse<TypeConfig>) -> Vec<u8> {
    use cluster::append_response::Result;
    let result = match answer {
        AppendEntriesResponse::Success => Result::Success(cluster::Blank {}),
        AppendEntriesResponse::PartialSuccess(Some(id)) => Result::Partial(put_log_id(id)),
        AppendEntriesResponse::PartialSuccess(None) => Result::Nothing(cluster::Blank {}),
        AppendEntriesResponse::Conflict => Result::Conflict(cluster::Blank {}),
        AppendEntriesResponse::HigherVote(vote) => Result::Higher(put_vote(vote)),
    };
    cluster::AppendResponse { result: Some(result) }.encode_to_vec()
}

fn take_append_answer(answer: cluster::AppendResponse) -> Result<AppendEntriesResponse<TypeConfig>, Meaningless> {
    use cluster::append_response::Result;
    Ok(match answer.result.ok_or(Meaningless("an answer to appended entries says nothing"))? {
        Result::Success(_) => AppendEntriesResponse::Success,
        Result::Partial(id) => AppendEntriesResponse::PartialSuccess(Some(take_log_id(id))),
        Result::Nothing(_) => AppendEntriesResponse::PartialSuccess(None),
        Result::Conflict(_) => AppendEntriesResponse::Conflict,
        Result::Higher(vote) => AppendEntriesResponse::HigherVote(take_vote(Some(vote))?),
    })
}

fn put_vote_request(rpc: &VoteRequest<TypeConfig>) -> Vec<u8> {
    let request = cluster::VoteRequest {
        vote: Some(put_vote(&rpc.vote)),
        last: rpc.last_log_id.as_ref().map(put_log_id),
        leadership_transfer: rpc.leadership_transfer,
    };
    request.encode_to_vec()
}

pub(super) fn take_vote_request(octets: &[u8]) -> Result<VoteRequest<TypeConfig>, Meaningless> {
    let request = decode::<cluster::VoteRequest>(octets)?;
    let mut rpc = VoteRequest::new(take_vote(request.vote)?, request.last.map(take_log_id));
    rpc.leadership_transfer = request.leadership_transfer;
    Ok(rpc)
}

pub(super) fn put_vote_answer(answer: &VoteResponse<TypeConfig>) -> Vec<u8> {
    let answer = cluster::VoteResponse {
        vote: Some(put_vote(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(put_log_id),
    };
    answer.encode_to_vec()
}

fn take_vote_answer(answer: cluster::VoteResponse) -> Result<VoteResponse<TypeConfig>, Meaningless> {
    Ok(VoteResponse::new(take_vote(answer.vote)?, answer.last.map(take_log_id), answer.granted))
}

pub(super) fn decode<M: Message + Default>(octets: &[u8]) -> Result<M, Meaningless> {
    M::decode(octets).map_err(|_| Meaningless("the octets are not the message that was due"))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Append => "append",
            Kind::Vote => "vote",
            Kind::PreVote => "pre-vote",
            Kind::Snapshot => "snapshot",
            Kind::Transfer => "transfer",
            Kind::Propose => "propose",
        })
    }
}
