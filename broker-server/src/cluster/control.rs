//! Requests between nodes: gRPC on streams whose other end is known ([`streams`](super::streams)).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use broker_core::name::NodeId;
use broker_core::store::QueueId;
use broker_meta::command;
use broker_meta::peer::Peer;
use broker_meta::raft::{CatalogRaft, HandleError, Identity as LogIdentity, Kind, Node, NotReached, Starts, Transport};
use hyper_util::rt::TokioIo;
use proto::admin::v1::{
    ChannelPart, CloseConnectionsRequest, CloseConnectionsResponse, ConnectionPart, ConsumerPart, DeleteQueueRequest,
    ListConnectionsRequest, PurgeQueueRequest, QueueAnswer,
};
use proto::node::v1::node_client::NodeClient;
use proto::node::v1::node_server::{Node as Service, NodeServer};
use proto::node::v1::{
    CountQueuesAnswer, CountQueuesRequest, JoinAnswer, JoinRequest, LeaveAnswer, LeaveRequest, QueueCount, RaftAnswer,
    RaftRequest, WhoAnswer, WhoRequest,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request, Response, Status};

use super::CHANGE_TIME;
use super::proposals::Proposals;
use super::streams::{self, Gate, Purpose, StreamError};
use super::tls::NodeStream;
use crate::admin::{ShardHandle, here};
use crate::driver::admin::{QueueCounts, Request as ShardRequest};

/// A request between nodes is no longer than this, in octets: the largest is a run of entries of the log.
const MESSAGE_MAX_BYTES: usize = 256 * 1024 * 1024;
/// A silent stream is asked so often whether it is still there...
const KEEPALIVE: Duration = Duration::from_secs(2);
/// ...and has so long to answer.
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(3);
/// Streams that were accepted and are not served yet.
const ACCEPTED_MAX: usize = 64;
/// Parts of a list that wait for whoever asked.
const PARTS_WAITING: usize = 2;
/// That a node that leaves does not vote any more may take so long.
const LEAVE_TIME: Duration = Duration::from_secs(15);

/// The catalog under Raft, whose requests this carries.
pub type Raft = CatalogRaft<Peers>;

/// The way to the other nodes.
pub struct Peers {
    gate: Arc<Gate>,
    channels: Mutex<HashMap<u64, (Node, Channel)>>,
}

impl Peers {
    /// No node is known yet.
    pub fn new(gate: Arc<Gate>) -> Peers {
        Peers { gate, channels: Mutex::default() }
    }

    /// What a node is asked with, whether it answers or not.
    pub fn client(&self, to: u64, node: &Node) -> NodeClient<Channel> {
        let mut channels = self.lock();
        if let Some((place, channel)) = channels.get(&to)
            && place == node
        {
            return client(channel.clone());
        }
        let channel = lazy_channel(self.gate.clone(), node.address.clone(), to);
        channels.insert(to, (node.clone(), channel.clone()));
        client(channel)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Node, Channel)>> {
        // Nobody panics while holding it.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Peers {
    fn carries_for(&self, node: &LogIdentity, starts: &Arc<Starts>) {
        // A stream that was opened before would be that of a stranger for as long as it lasts.
        self.gate.belongs(node.cluster, node.node, starts.clone());
    }

    fn log_went_back(&self, node: u64) {
        tracing::error!(
            node,
            "the catalog's log of another node does not hold any more what it held: an older copy of its disk was put back while it was down, or its disk loses what it was to keep. The node is taken for outdated"
        );
        // It is told so when it is reached again.
        self.lock().remove(&node);
        let gate = self.gate.clone();
        tokio::spawn(async move {
            if let Err(error) = gate.bar(node).await {
                tracing::error!(node, %error, "that a node is outdated cannot be written down");
            }
        });
    }

    async fn request(&self, to: u64, node: &Node, kind: Kind, octets: Vec<u8>) -> Result<Vec<u8>, NotReached> {
        let request = RaftRequest { kind: number_of(kind), octets };
        let answer = self.client(to, node).raft(request).await;
        let answer = answer.map_err(|status| {
            if status.code() == Code::PermissionDenied {
                // If this node was removed it is told so when it opens another stream.
                self.lock().remove(&to);
            }
            NotReached { node: to, why: why(&status) }
        })?;
        Ok(answer.into_inner().octets)
    }
}

/// Asks the node at an address, whoever it is.
pub async fn ask(gate: &Arc<Gate>, address: &str) -> Result<NodeClient<Channel>, StreamError> {
    // Opened here, for an error that says more than the transport's.
    let (stream, _) = streams::connect(address, gate, Purpose::Control).await?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let channel = endpoint().connect_with_connector(connector).await;
    Ok(client(channel.map_err(io::Error::other)?))
}

/// What went wrong, in words.
pub fn why(status: &Status) -> String {
    // What the transport says of a stream that did not come about is behind several layers that say nothing.
    let mut deepest: &dyn std::error::Error = status;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if std::error::Error::source(status).is_some() { deepest.to_string() } else { status.message().into() }
}

fn client(channel: Channel) -> NodeClient<Channel> {
    NodeClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES).max_encoding_message_size(MESSAGE_MAX_BYTES)
}

fn endpoint() -> Endpoint {
    // The address is not looked at: the connector knows the way.
    Endpoint::from_static("http://node")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .keep_alive_while_idle(true)
}

/// Opens a stream when something is asked, and again when it has failed.
fn lazy_channel(gate: Arc<Gate>, address: String, to: u64) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let (gate, address) = (gate.clone(), address.clone());
        async move {
            let (stream, peer) = streams::connect(&address, &gate, Purpose::Control).await.map_err(io::Error::other)?;
            if peer.identity.node != to {
                let (name, node) = (&peer.identity.name, peer.identity.node);
                return Err(io::Error::other(format!("{address} is {name}, which is now node {node} of the cluster")));
            }
            Ok(TokioIo::new(stream))
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

fn number_of(kind: Kind) -> u32 {
    match kind {
        Kind::Append => 1,
        Kind::Vote => 2,
        Kind::PreVote => 3,
        Kind::Snapshot => 4,
        Kind::Transfer => 5,
        Kind::Propose => 6,
    }
}

fn kind_of(number: u32) -> Option<Kind> {
    [Kind::Append, Kind::Vote, Kind::PreVote, Kind::Snapshot, Kind::Transfer, Kind::Propose]
        .into_iter()
        .find(|&kind| number_of(kind) == number)
}

/// What this node answers with, as far as it has come.
pub struct Answers {
    /// What it says of itself.
    pub gate: Arc<Gate>,
    /// It has started with a log: it belongs to a cluster, even while it cannot say to which.
    pub has_log: bool,
    /// Its log, once it has one.
    pub raft: Arc<OnceLock<Arc<Raft>>>,
    /// What it proposes for others.
    pub proposals: Arc<OnceLock<Proposals>>,
    /// Whom it sees, and whether it serves.
    pub sight: Arc<super::sight::Sight>,
    /// Its queues and connections, once it serves clients.
    pub local: Arc<OnceLock<ShardHandle>>,
    /// It goes to another cluster.
    pub moving: Arc<AtomicBool>,
}

impl Answers {
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn raft(&self) -> Result<&Arc<Raft>, Status> {
        self.raft.get().ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))
    }

    /// What operators of other nodes ask of this one's clients and queues.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn shard_for<T>(&self, request: &Request<T>) -> Result<&ShardHandle, Status> {
        self.of_a_member(request)?;
        self.local.get().ok_or_else(|| Status::unavailable("this node is still starting"))
    }

    /// Only nodes of the same cluster; who is looking for one has none yet.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn of_a_member<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let ours = self.gate.identity().cluster;
        match request.extensions().get::<Arc<Peer>>() {
            Some(peer) if peer.identity.cluster.is_some() && peer.identity.cluster == ours => Ok(peer.identity.node),
            _ => Err(Status::permission_denied("the other node does not belong to this cluster")),
        }
    }
}

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Service for Answers {
    type ListConnectionsStream = Parts<ConnectionPart>;
    type ListChannelsStream = Parts<ChannelPart>;
    type ListConsumersStream = Parts<ConsumerPart>;

    async fn count_queues(&self, request: Request<CountQueuesRequest>) -> Result<Response<CountQueuesAnswer>, Status> {
        let shard = self.shard_for(&request)?;
        let ids = request.into_inner().ids.into_iter().map(QueueId).collect();
        let counts = shard.ask(|answer| ShardRequest::QueueCounts(ids, answer)).await?;
        let count = |counts: Option<QueueCounts>| match counts {
            None => QueueCount { missing: true, ..QueueCount::default() },
            Some(QueueCounts { ready, unacknowledged, consumers, resident_bytes }) => {
                QueueCount { missing: false, ready, unacknowledged, consumers, resident_bytes }
            }
        };
        Ok(Response::new(CountQueuesAnswer { counts: counts.into_iter().map(count).collect() }))
    }

    async fn purge_queue(&self, request: Request<PurgeQueueRequest>) -> Result<Response<QueueAnswer>, Status> {
        let shard = self.shard_for(&request)?;
        Ok(Response::new(here::purge(shard, request.into_inner()).await?))
    }

    async fn delete_queue(&self, request: Request<DeleteQueueRequest>) -> Result<Response<QueueAnswer>, Status> {
        let shard = self.shard_for(&request)?;
        Ok(Response::new(here::delete(shard, request.into_inner()).await?))
    }

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let shard = self.shard_for(&request)?;
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let name = self.gate.identity().name;
        tokio::spawn(here::connections(shard.clone(), name, request.into_inner().vhost, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_channels(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<Self::ListChannelsStream>, Status> {
        let shard = self.shard_for(&request)?;
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let name = self.gate.identity().name;
        tokio::spawn(here::channels(shard.clone(), name, request.into_inner().vhost, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_consumers(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConsumersStream>, Status> {
        let shard = self.shard_for(&request)?;
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let name = self.gate.identity().name;
        tokio::spawn(here::consumers(shard.clone(), name, request.into_inner().vhost, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn close_connections(
        &self,
        request: Request<CloseConnectionsRequest>,
    ) -> Result<Response<CloseConnectionsResponse>, Status> {
        let shard = self.shard_for(&request)?;
        Ok(Response::new(here::close(shard, request.into_inner()).await?))
    }

    async fn raft(&self, request: Request<RaftRequest>) -> Result<Response<RaftAnswer>, Status> {
        let from = self.of_a_member(&request)?;
        let raft = self.raft()?;
        let members = raft.catalog().members().clone();
        if members.knows_of(from) && members.get(NodeId(from)).is_none() {
            return Err(Status::permission_denied("the other node was removed from the cluster"));
        }
        let RaftRequest { kind, octets } = request.into_inner();
        let kind = kind_of(kind).ok_or_else(|| Status::invalid_argument("a request of an unknown kind"))?;
        match raft.handle(kind, &octets).await {
            Ok(octets) => Ok(Response::new(RaftAnswer { octets })),
            Err(error @ HandleError::Meaningless(_)) => {
                tracing::warn!(node = from, "{error}");
                Err(Status::invalid_argument(error.to_string()))
            }
            Err(error @ HandleError::Refused(_)) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn who(&self, _: Request<WhoRequest>) -> Result<Response<WhoAnswer>, Status> {
        let identity = self.gate.identity();
        if identity.cluster.is_none() && self.has_log {
            // Whoever asks would count it among those that belong to none, and might found another cluster.
            return Err(Status::unavailable("this node belongs to a cluster and is starting"));
        }
        Ok(Response::new(WhoAnswer {
            name: identity.name,
            cluster: identity.cluster.map(Vec::from).unwrap_or_default(),
            node: identity.node,
            sees: self.sight.seen(),
            paused: self.sight.is_paused(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinAnswer>, Status> {
        let JoinRequest { name, address } = request.into_inner();
        if self.moving.load(Ordering::SeqCst) {
            return Err(Status::unavailable("this node is about to join another cluster itself"));
        }
        let proposals =
            self.proposals.get().ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))?;
        let node = proposals.add_member(&name, &address, CHANGE_TIME).await.map_err(Status::failed_precondition)?;
        let cluster = self.raft()?.identity().cluster.to_vec();
        tracing::info!(name, address, node, "a node joins the cluster");
        Ok(Response::new(JoinAnswer { cluster, node }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveAnswer>, Status> {
        let from = self.of_a_member(&request)?;
        let node = request.into_inner().node;
        if node != from {
            return Err(Status::permission_denied("a node leaves for itself only"));
        }
        let proposals =
            self.proposals.get().ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))?;
        let left = proposals.change(command::remove_member(NodeId(node)), CHANGE_TIME).await;
        left.map_err(Status::failed_precondition)?;
        // Until then its vote may be needed, and it must not stop.
        let raft = self.raft()?;
        let until = Instant::now() + LEAVE_TIME;
        loop {
            let status = raft.status();
            if !status.voters.contains(&node) && !status.learners.contains(&node) {
                return Ok(Response::new(LeaveAnswer {}));
            }
            if Instant::now() >= until {
                return Err(Status::deadline_exceeded(
                    "the node belongs to the cluster no more, but it was not seen in time that it votes no more",
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Where streams go that were accepted for requests.
pub type Accepted = mpsc::Sender<io::Result<PeerStream>>;

/// Answers requests on the streams that are handed over.
pub fn serve(answers: Answers) -> Accepted {
    let (sender, receiver) = mpsc::channel(ACCEPTED_MAX);
    let service = NodeServer::new(answers)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    tokio::spawn(async move {
        let served = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
            .serve_with_incoming(service, ReceiverStream::new(receiver))
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "requests of other nodes are not answered any more");
        }
    });
    sender
}

/// A stream whose other end is known.
pub struct PeerStream {
    stream: NodeStream,
    peer: Arc<Peer>,
}

impl PeerStream {
    /// What was accepted.
    pub fn new(stream: NodeStream, peer: Peer) -> PeerStream {
        PeerStream { stream, peer: Arc::new(peer) }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
