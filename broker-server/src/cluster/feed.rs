//! From the log to the shard: what was applied, in order, and whose proposals it answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_core::name::NodeId;
use broker_core::store::QueueId;
use broker_meta::catalog::{View, announced_id};
use broker_meta::command::Announcement;
use broker_meta::raft::{Applied, Listener};
use broker_meta::{Catalog, CatalogEvent};
use proto::cluster::Origin;
use tokio::sync::{oneshot, watch};

use crate::driver::events::Event;
use crate::driver::mailbox::Mailbox;
use crate::driver::meta;

/// Who is to hear what a command did.
pub enum Asker {
    /// The shard, by the number of its proposal.
    Shard(u64),
    /// A task. It may have gone.
    Task(oneshot::Sender<Option<Vec<CatalogEvent>>>),
}

/// See the module's page.
pub struct Feed {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// As far as the listener was told, and other nodes have announced.
    view: View,
    /// Numbers of queues that this node has announced in this start.
    counter: u64,
    /// None until the shard takes over.
    mailbox: Option<Mailbox>,
    /// The one batch that is under way.
    mine: Option<(Origin, Vec<Asker>)>,
}

impl Feed {
    /// One that has heard nothing.
    pub fn new() -> Arc<Feed> {
        Arc::new(Feed { state: Mutex::default(), changed: watch::Sender::new(0) })
    }

    /// What the log tells of everything that is applied.
    pub fn listener(self: &Arc<Feed>) -> Listener {
        let feed = self.clone();
        Box::new(move |applied| feed.take(applied))
    }

    /// The catalog as far as the shard was told, or will be.
    pub fn catalog(&self) -> Catalog {
        self.lock().view.catalog().clone()
    }

    /// Counts what was applied.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// From now on the shard hears of everything that comes after the catalog that is returned.
    pub fn go_live(&self, mailbox: Mailbox) -> Catalog {
        let mut state = self.lock();
        state.mailbox = Some(mailbox);
        state.view.catalog().clone()
    }

    /// The number of the next queue that this node announces after so many starts.
    pub fn announced_id(&self, node: NodeId, starts: u64) -> QueueId {
        let mut state = self.lock();
        state.counter += 1;
        announced_id(node, starts, state.counter)
    }

    /// A node, this one or another, says something of its exclusive queues. The shard hears what it did under the number of its proposal.
    pub fn announce(&self, node: NodeId, announcement: &Announcement, number: u64) {
        let mut state = self.lock();
        let events = state.view.announced(node, announcement);
        state.tell(number, events);
    }

    /// Another node cannot be reached any more: what it has announced is gone.
    pub fn unreachable(&self, node: NodeId) {
        let mut state = self.lock();
        let events = state.view.unreachable(node);
        if !events.is_empty() {
            state.tell(NOBODY, events);
        }
    }

    /// What this node has announced, for another that has heard nothing yet.
    pub fn announcements(&self, node: NodeId) -> Vec<Announcement> {
        self.lock().view.announcements(node)
    }

    /// What this node has announced of one of its queues.
    pub fn announcements_of(&self, queue: QueueId) -> Vec<Announcement> {
        self.lock().view.announcements_of(queue)
    }

    /// A batch is about to be proposed.
    pub fn expect(&self, origin: Origin, askers: Vec<Asker>) {
        self.lock().mine = Some((origin, askers));
    }

    /// It was given up. It may still come; nobody waits for it then.
    pub fn give_up(&self) {
        let mut state = self.lock();
        let Some((_, askers)) = state.mine.take() else { return };
        let mut numbers = Vec::new();
        for asker in askers {
            match asker {
                Asker::Shard(number) => numbers.push(number),
                Asker::Task(answer) => drop(answer.send(None)),
            }
        }
        if let Some(mailbox) = &state.mailbox
            && !numbers.is_empty()
        {
            mailbox.send(Event::NotApplied(numbers));
        }
    }

    fn take(&self, applied: Applied) {
        let mut state = self.lock();
        let (index, mut outcomes) = match applied {
            Applied::Batch { index, origin, commands, outcomes, catalog } => {
                let outcomes = match outcomes.is_empty() {
                    true => outcomes,
                    false => state.view.logged(&commands, outcomes, catalog),
                };
                let mine = state.mine.take_if(|(mine, _)| *mine == origin && !outcomes.is_empty());
                let askers = mine.map(|(_, askers)| askers).unwrap_or_default();
                let mut numbered = Vec::with_capacity(outcomes.len());
                let mut askers = askers.into_iter();
                for events in outcomes {
                    let number = match askers.next() {
                        Some(Asker::Shard(number)) => number,
                        Some(Asker::Task(answer)) => {
                            drop(answer.send(Some(events.clone())));
                            NOBODY
                        }
                        None => NOBODY,
                    };
                    numbered.push((number, events));
                }
                (index, numbered)
            }
            Applied::Snapshot { index, catalog } => {
                let events = state.view.replaced(catalog);
                (index, vec![(NOBODY, events)])
            }
        };
        let catalog = state.view.catalog().clone();
        if let Some(mailbox) = &state.mailbox {
            outcomes.retain(|(number, events)| *number != NOBODY || events.iter().any(CatalogEvent::is_change));
            mailbox.send(Event::Applied(meta::Applied::new(index, catalog, outcomes)));
        }
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Something that is in no log has happened.
    fn tell(&self, number: u64, events: Vec<CatalogEvent>) {
        if let Some(mailbox) = &self.mailbox {
            let applied = meta::Applied::new(0, self.view.catalog().clone(), vec![(number, events)]);
            mailbox.send(Event::Applied(applied));
        }
    }
}

/// No proposal of the shard has this number.
const NOBODY: u64 = 0;
