//! Changes of the catalog that this node proposes: one batch after the other, as the log wants it.
//!
//! What comes while a batch is under way goes into the next one.

use std::sync::Arc;
use std::time::Duration;

use broker_core::refusal::Refusal;
use broker_meta::raft::ProposeError;
use broker_meta::{CatalogEvent, Command, command};
use proto::cluster::Origin;
use tokio::sync::{mpsc, oneshot};

use super::control::Raft;
use super::feed::{Asker, Feed};

/// Commands proposed together at most.
const TOGETHER_MAX: usize = 1024;
/// A batch that no majority has taken by then is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where proposals go. Those of the shard are bounded by one for each channel.
#[derive(Clone)]
pub struct Proposals(mpsc::UnboundedSender<(Asker, Command)>);

impl Proposals {
    /// Starts the task that proposes.
    pub fn start(raft: Arc<Raft>, feed: Arc<Feed>) -> Proposals {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(raft, feed, receiver));
        Proposals(sender)
    }

    /// Proposes for the shard, which hears of it by the number.
    pub fn propose(&self, number: u64, command: Command) {
        if self.0.send((Asker::Shard(number), command)).is_err() {
            tracing::error!("the catalog's task has ended");
        }
    }

    /// Proposes, and says what it did.
    pub async fn change(&self, command: Command, wait: Duration) -> Result<Vec<CatalogEvent>, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "this node is stopping".to_owned();
        self.0.send((Asker::Task(answer), command)).map_err(|_| stopped())?;
        let events =
            tokio::time::timeout(wait + PATIENCE, answered).await.map_err(|_| Refusal::NoMajority.to_string())?;
        let events = events.map_err(|_| stopped())?.ok_or_else(|| Refusal::NoMajority.to_string())?;
        match events.iter().find_map(CatalogEvent::refusal) {
            Some(refusal) => Err(refusal.to_string()),
            None => Ok(events),
        }
    }

    /// Adds a node, and says which number it was given.
    pub async fn add_member(&self, name: &str, address: &str, wait: Duration) -> Result<u64, String> {
        let events = self.change(command::add_member(name, address), wait).await?;
        let added = events.iter().find_map(|event| match event {
            CatalogEvent::MemberAdded(member) => Some(member.node.0),
            _ => None,
        });
        added.ok_or_else(|| "the node was not added".to_owned())
    }
}

async fn run(raft: Arc<Raft>, feed: Arc<Feed>, mut receiver: mpsc::UnboundedReceiver<(Asker, Command)>) {
    let mut together = Vec::with_capacity(TOGETHER_MAX);
    let mut number = 0;
    while receiver.recv_many(&mut together, TOGETHER_MAX).await > 0 {
        number += 1;
        let (askers, commands): (Vec<Asker>, Vec<Command>) = together.drain(..).unzip();
        let origin = Origin { node: raft.identity().node, incarnation: raft.incarnation(), number };
        feed.expect(origin, askers);
        match raft.propose(number, commands, PATIENCE).await {
            Ok(()) => {}
            Err(ProposeError::Stopped(why)) => {
                feed.give_up();
                tracing::debug!(why, "changes of the catalog are not proposed any more");
                return;
            }
            Err(error) => tracing::warn!("a change of the catalog was given up: {error}"),
        }
        feed.give_up();
    }
}
