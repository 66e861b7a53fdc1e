//! Keeps one link to every other node: of two nodes the one with the higher number opens it. What travels on it is the shard's.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_core::name::NodeId;
use broker_meta::peer::Peer;
use tokio::time::Instant;

use super::feed::Feed;
use super::streams::{self, Gate, Purpose};
use super::tls::NodeStream;
use crate::driver::events::Event;
use crate::driver::mailbox::Mailbox;

/// Nodes without a link are looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// That one cannot be reached is said so often.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Whoever drives the streams of links: they are handed to it with the other node's number and start.
pub type Taker = Box<dyn Fn(NodeId, u64, NodeStream) -> io::Result<()> + Send>;

/// The shard takes them as sockets.
pub fn to_shard(mailbox: Mailbox) -> Taker {
    Box::new(move |node, incarnation, stream| {
        let (stream, tls) = stream.into_parts()?;
        mailbox.send(Event::Link { node, incarnation, stream, tls });
        Ok(())
    })
}

/// Which links there are.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    up: BTreeSet<u64>,
    connecting: BTreeSet<u64>,
    /// None until the shard takes links over.
    taker: Option<Taker>,
}

impl State {
    fn hand_over(&mut self, node: u64, incarnation: u64, stream: NodeStream) {
        let Some(taker) = &self.taker else { return };
        match taker(NodeId(node), incarnation, stream) {
            Ok(()) => {
                self.up.insert(node);
            }
            Err(error) => tracing::warn!(node, %error, "a link to another node was lost before it began"),
        }
    }
}

impl Links {
    /// The shard takes links over from now on.
    pub fn go_live(&self, taker: Taker) {
        self.lock().taker = Some(taker);
    }

    /// Whether it does.
    pub fn are_live(&self) -> bool {
        self.lock().taker.is_some()
    }

    /// To which nodes there is one: those that this node reaches itself.
    pub fn up(&self) -> BTreeSet<u64> {
        self.lock().up.clone()
    }

    /// The shard has a link. It may just have said that the one before it is lost.
    pub fn is_up(&self, node: u64) {
        self.lock().up.insert(node);
    }

    /// The shard has lost a link.
    pub fn is_down(&self, node: u64) {
        self.lock().up.remove(&node);
    }

    /// A stream for a link has come about, whoever opened it.
    pub fn take(&self, stream: NodeStream, peer: &Peer) {
        let (node, incarnation) = (peer.identity.node, peer.identity.incarnation);
        self.lock().hand_over(node, incarnation, stream);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens links to nodes with lower numbers, for as long as the node runs.
    pub async fn run(self, gate: Arc<Gate>, feed: Arc<Feed>, me: u64) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let catalog = feed.catalog();
            for member in catalog.members().iter().filter(|member| member.node.0 < me && member.started) {
                let node = member.node.0;
                {
                    let mut state = self.lock();
                    if state.taker.is_none() || state.up.contains(&node) || !state.connecting.insert(node) {
                        continue;
                    }
                }
                let (links, gate, member) = (self.clone(), gate.clone(), member.clone());
                tokio::spawn(async move {
                    match streams::connect(&member.address, &gate, Purpose::Link).await {
                        Ok((stream, peer)) if peer.identity.node == node => links.take(stream, &peer),
                        Ok((_, peer)) => {
                            let (address, is) = (&member.address, peer.identity.node);
                            tell(
                                node,
                                &member.name,
                                &format!("{address} is that of another node, with the number {is}"),
                            );
                        }
                        Err(error) => tell(node, &member.name, &error.to_string()),
                    }
                    links.lock().connecting.remove(&node);
                });
            }
        }
    }
}

fn tell(node: u64, name: &str, why: &str) {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
        *told = Some(Instant::now());
        tracing::warn!(node, name, "cannot reach a node of the cluster, trying on: {why}");
    }
}
