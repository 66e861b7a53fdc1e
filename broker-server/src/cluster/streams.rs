//! Streams between nodes: opened or accepted, with the handshake behind them.
//!
//! Behind the handshake the connector says in one octet what the stream is for, and the acceptor answers with one: from then on the stream is that of
//! gRPC ([`Purpose::Control`]) or of a link ([`Purpose::Link`]).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_core::name::NodeId;
use broker_meta::catalog::Members;
use broker_meta::peer::{HANDSHAKE_TIME, Handshake, Identity, Output, Peer, Refusal, Secret};
use broker_meta::raft::Starts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::ground::{Ground, Stream};
use super::tls::{NodeStream, NodeTls};

/// So long a connection to another node may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// The acceptor's last word.
const GO: u8 = 1;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Requests between nodes.
    Control = 1,
    /// What channels of one node and queues of the other tell each other.
    Link,
}

/// What this node says of itself, and whom it talks to.
pub struct Gate {
    ground: Ground,
    secret: Secret,
    tls: Option<NodeTls>,
    state: Mutex<State>,
}

struct State {
    identity: Identity,
    members: Members,
    /// The starts of this node and of others, once it belongs to a cluster.
    starts: Option<Arc<Starts>>,
    /// It takes no part at the moment.
    closed: bool,
    /// Another node has said that this one was removed from the cluster.
    removed: bool,
}

/// Why there is no stream to another node.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no TLS session.
    #[error("no TLS session comes about (cluster.ssl_options): {0}")]
    Tls(#[source] io::Error),
    /// Nobody answered.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// One of them does not want to.
    #[error("{why}{}", if *.by_us { "" } else { " (the other node says so)" })]
    Refused {
        /// Why.
        why: Refusal,
        /// It was this node.
        by_us: bool,
    },
}

impl Gate {
    /// A node that belongs to no cluster yet, or to that of its identity.
    pub fn new(ground: Ground, secret: Secret, tls: Option<NodeTls>, identity: Identity) -> Gate {
        let members = Members::default();
        Gate {
            ground,
            secret,
            tls,
            state: Mutex::new(State { identity, members, starts: None, closed: false, removed: false }),
        }
    }

    /// One that belongs to no cluster, for the same node: the nodes of a cluster talk to no member of another.
    pub fn of_nobody(&self) -> Gate {
        let identity = Identity { cluster: None, node: 0, incarnation: 0, ..self.identity() };
        Gate::new(self.ground.clone(), self.secret.clone(), self.tls.clone(), identity)
    }

    /// The network on which it talks, and its chance.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The secret that all nodes hold.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What is proved on a stream.
    fn secret_for(&self, stream: &NodeStream) -> io::Result<Secret> {
        Ok(stream.exported()?.map_or_else(|| self.secret.clone(), |exported| self.secret.bound_to(&exported)))
    }

    /// What this node says of itself.
    pub fn identity(&self) -> Identity {
        self.lock().identity.clone()
    }

    /// It belongs to a cluster from now on.
    pub fn belongs(&self, cluster: [u8; 16], node: u64, starts: Arc<Starts>) {
        let mut state = self.lock();
        state.identity.cluster = Some(cluster);
        (state.identity.node, state.identity.incarnation) = (node, starts.this());
        state.starts = Some(starts);
    }

    /// Who belongs to the cluster has changed.
    pub fn members(&self, members: Members) {
        self.lock().members = members;
    }

    /// Whether another node of the cluster has said that this one was removed. It may not know: nobody sends it the log any more.
    pub fn was_removed(&self) -> bool {
        self.lock().removed
    }

    /// It talks to nobody from now on.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Whether a node that has proved that it holds the secret is one to talk to, and if so the last start of it that was heard of.
    fn judge(&self, peer: &Identity) -> Result<u64, Refusal> {
        let state = self.lock();
        if state.closed {
            return Err(Refusal::NotNow);
        }
        if peer.cluster.is_none() || state.identity.cluster.is_none() {
            // One of them is looking for a cluster: what it may ask for is decided request by request.
            return Ok(0);
        }
        if peer.node == state.identity.node || peer.name == state.identity.name {
            return Err(Refusal::Taken);
        }
        match state.members.get(NodeId(peer.node)) {
            Some(member) if member.name != peer.name => return Err(Refusal::Taken),
            Some(_) => {}
            // It may be new, and this node behind; or it was removed.
            None if state.members.knows_of(peer.node) => return Err(Refusal::NotAMember),
            None => {}
        }
        match &state.starts {
            Some(starts) if !starts.may_be(peer.node, peer.incarnation) => Err(Refusal::Outdated),
            Some(starts) => Ok(starts.known(peer.node)),
            None => Ok(0),
        }
    }

    fn starts(&self) -> Option<Arc<Starts>> {
        self.lock().starts.clone()
    }

    /// The starts, if both belong to a cluster.
    fn starts_for(&self, peer: &Identity) -> Option<Arc<Starts>> {
        self.starts().filter(|_| peer.cluster.is_some())
    }

    /// The other has said that it knows a start of this node that its disk has never seen, or a later one: the disk is an older copy.
    async fn give_up(&self) -> io::Result<()> {
        match self.starts() {
            Some(starts) => starts.give_up().await,
            None => Ok(()),
        }
    }

    /// The start that another node is in is not to go on.
    pub async fn bar(&self, node: u64) -> io::Result<()> {
        match self.starts() {
            Some(starts) => starts.bar(node).await,
            None => Ok(()),
        }
    }

    /// Whether this node has seen what the other knows of its starts.
    async fn recognizes(&self, peer: &Peer) -> Result<(), StreamError> {
        match self.starts_for(&peer.identity) {
            Some(starts) if !starts.has_seen(peer.knows) => {
                self.give_up().await?;
                Err(StreamError::Refused { why: Refusal::Outdated, by_us: true })
            }
            _ => Ok(()),
        }
    }

    /// Both talk: the other's start is on the disk before anything comes of it.
    async fn hear(&self, peer: &Identity) -> Result<(), StreamError> {
        match self.starts_for(peer) {
            Some(starts) if !starts.may_be(peer.node, peer.incarnation) => {
                Err(StreamError::Refused { why: Refusal::Outdated, by_us: true })
            }
            Some(starts) => Ok(starts.hear(peer.node, peer.incarnation).await?),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a stream to the node at an address.
pub async fn connect(address: &str, gate: &Gate, purpose: Purpose) -> Result<(NodeStream, Peer), StreamError> {
    let silent = |_| StreamError::Silent(CONNECT_TIME);
    let stream = timeout(CONNECT_TIME, gate.ground.connect(address)).await.map_err(silent)??;
    let mut stream = match &gate.tls {
        Some(tls) => {
            timeout(HANDSHAKE_TIME, tls.connect(address, stream)).await.map_err(in_time)?.map_err(StreamError::Tls)?
        }
        None => NodeStream::Plain(stream),
    };
    let mut out = Vec::new();
    let handshake =
        Handshake::connect(now(), gate.secret_for(&stream)?, gate.identity(), gate.ground.random()?, &mut out);
    let (peer, rest) = shake_hands(&mut stream, handshake, out, gate).await?;
    let until = Instant::now() + HANDSHAKE_TIME;
    let late = |_| StreamError::Silent(HANDSHAKE_TIME);
    stream.write_all(&[purpose as u8]).await?;
    let mut answer = [0];
    timeout_at(until, stream.read_exact(&mut answer)).await.map_err(late)??;
    if !rest.is_empty() || answer != [GO] {
        return Err(StreamError::Refused { why: Refusal::NoNode, by_us: true });
    }
    // Only now: the other, too, may have found that its disk is an older copy.
    gate.hear(&peer.identity).await?;
    Ok((stream, peer))
}

/// Answers whoever opened a stream. What it is for may not be taken at the moment: it is closed then.
pub async fn accept(
    stream: Stream,
    gate: &Gate,
    takes: impl Fn(Purpose) -> bool,
) -> Result<(NodeStream, Peer, Purpose), StreamError> {
    let stream = stream.prepare()?;
    let mut stream = match &gate.tls {
        Some(tls) => timeout(HANDSHAKE_TIME, tls.accept(stream)).await.map_err(in_time)?.map_err(StreamError::Tls)?,
        None => NodeStream::Plain(stream),
    };
    let handshake = Handshake::accept(now(), gate.secret_for(&stream)?, gate.identity(), gate.ground.random()?);
    let (peer, mut rest) = shake_hands(&mut stream, handshake, Vec::new(), gate).await?;
    if rest.is_empty() {
        let mut purpose = [0];
        let read = timeout(HANDSHAKE_TIME, stream.read_exact(&mut purpose)).await;
        read.map_err(|_| StreamError::Silent(HANDSHAKE_TIME))??;
        rest = purpose.to_vec();
    }
    let purpose = match rest[..] {
        [octet] if octet == Purpose::Control as u8 => Purpose::Control,
        [octet] if octet == Purpose::Link as u8 => Purpose::Link,
        _ => return Err(StreamError::Refused { why: Refusal::NoNode, by_us: true }),
    };
    if !takes(purpose) {
        return Err(StreamError::Refused { why: Refusal::NotNow, by_us: true });
    }
    gate.hear(&peer.identity).await?;
    stream.write_all(&[GO]).await?;
    Ok((stream, peer, purpose))
}

async fn shake_hands(
    stream: &mut NodeStream,
    mut handshake: Handshake,
    mut out: Vec<Output>,
    gate: &Gate,
) -> Result<(Peer, Vec<u8>), StreamError> {
    let mut buffer = [0; 1024];
    loop {
        let mut verdict = None;
        for output in out.drain(..) {
            match output {
                Output::Send(octets) => stream.write_all(&octets).await?,
                Output::Judge(peer) => verdict = Some(gate.judge(&peer.identity)),
                Output::Done { peer, rest } => {
                    gate.recognizes(&peer).await?;
                    return Ok((peer, rest));
                }
                Output::Refused { why, by_us } => {
                    match why {
                        Refusal::Outdated if !by_us => gate.give_up().await?,
                        // A number is that of one node for ever: whoever knows that it is no member's any more is not behind.
                        Refusal::NotAMember if !by_us => gate.lock().removed = true,
                        _ => {}
                    }
                    return Err(StreamError::Refused { why, by_us });
                }
            }
        }
        if let Some(verdict) = verdict {
            handshake.judge(verdict, &mut out);
            continue;
        }
        let deadline = handshake.next_timeout().unwrap_or_else(now);
        match timeout_at(deadline.into(), stream.read(&mut buffer)).await {
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(Ok(octets)) => handshake.receive(buffer.get(..octets).unwrap_or_default(), &mut out),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => handshake.timeout(now().max(deadline), &mut out),
        }
    }
}

fn in_time(_: tokio::time::error::Elapsed) -> StreamError {
    StreamError::Silent(HANDSHAKE_TIME)
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
