//! How the admin service reaches the shard.

use broker_core::name::NodeId;
use broker_meta::Command;
use tokio::sync::oneshot;

use super::import::Outcome;
use crate::driver::admin::{Answer, Request};
use crate::driver::events::Event;
use crate::driver::mailbox::Mailbox;

/// Asks the shard and waits for its answer. Cheap to clone.
#[derive(Clone)]
pub struct ShardHandle {
    mailbox: Mailbox,
    node: NodeId,
}

/// The shard does not answer any more: the node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopping;

impl ShardHandle {
    /// A handle that sends through this mailbox.
    #[must_use]
    pub fn new(mailbox: Mailbox, node: NodeId) -> Self {
        Self { mailbox, node }
    }

    /// The node's number in the cluster.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Sends a request; its answer comes in time.
    pub async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Stopping> {
        self.send(request).await.map_err(|_| Stopping)
    }

    /// The same for threads that may block.
    pub fn ask_blocking<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Stopping> {
        self.send(request).blocking_recv().map_err(|_| Stopping)
    }

    /// Has commands carried out, for an import.
    pub fn propose_blocking(&self, commands: Vec<Command>) -> Result<Vec<Outcome>, String> {
        self.ask_blocking(|answer| Request::Propose(commands, answer)).map_err(|stopping| stopping.to_string())
    }

    /// Has the node serve no clients, or serve them again; how many connections were closed.
    pub async fn drain(&self, drained: bool) -> Result<u64, Stopping> {
        let (answer, receiver) = oneshot::channel();
        self.mailbox.send(Event::Drain(drained, answer));
        receiver.await.map_err(|_| Stopping)
    }

    /// Has the node stop.
    pub fn shut_down(&self) {
        self.mailbox.send(Event::Shutdown);
    }

    fn send<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> oneshot::Receiver<T> {
        let (answer, receiver) = oneshot::channel();
        self.mailbox.send(Event::Admin(request(answer)));
        receiver
    }
}
