//! What a node routes by: the catalog of the log, and the exclusive queues of all nodes that can be reached.
//!
//! An exclusive queue lives as long as its connection, and only its node knows it for longer than a link lasts: it is announced on links and is in no log.
//! So clients that declare one for each conversation cost the cluster neither a disk nor an agreement. What the log says counts for them too: a
//! vhost that is deleted takes them along, policies govern them, and a name that the log gives to a queue is not theirs any more.
//!
//! Of two nodes that announce the same name at the same time the one with the lower number keeps it, on every node.

use std::collections::BTreeMap;

use broker_core::name::{NodeId, QueueId};
use broker_core::refusal::Refusal;
use broker_core::topology::Destination;
use proto::meta::announcement::Kind;
use proto::meta::command::Kind as CommandKind;
use proto::meta::{Announcement, Command, QueueState};

use super::apply::{Outcome, consequence};
use super::snapshot::queue_message;
use super::{Catalog, CatalogEvent};
use crate::command::binding_message;

/// The highest bit of the number of a queue that is in no log.
const ANNOUNCED: u64 = 1 << 63;
const NODE_BITS: u32 = 12;
const START_BITS: u32 = 19;
const COUNTER_BITS: u32 = 32;

/// The number of the queue that a node announces after so many others in a start, of which there were so many. After four thousand million it begins anew:
/// those are gone.
pub fn announced_id(node: NodeId, starts: u64, counter: u64) -> QueueId {
    let bits = |value: u64, bits: u32| value & ((1 << bits) - 1);
    let node = bits(node.0, NODE_BITS) << (START_BITS + COUNTER_BITS);
    let starts = bits(starts, START_BITS) << COUNTER_BITS;
    QueueId(ANNOUNCED | node | starts | bits(counter, COUNTER_BITS))
}

/// Whether a queue is in no log.
pub fn is_announced(id: QueueId) -> bool {
    id.0 & ANNOUNCED != 0
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What the log says.
    base: Catalog,
    /// The same, and what was announced.
    seen: Catalog,
    /// The announced queues and whose they are.
    announced: BTreeMap<QueueId, NodeId>,
}

impl View {
    /// What to route by.
    pub fn catalog(&self) -> &Catalog {
        &self.seen
    }

    /// A batch of the log was applied: its commands, what each did, the catalog afterwards. Returns what each did here.
    pub fn logged(
        &mut self,
        commands: &[Command],
        outcomes: Vec<Vec<CatalogEvent>>,
        after: Catalog,
    ) -> Vec<Vec<CatalogEvent>> {
        self.base = after;
        if self.announced.is_empty() {
            self.seen = self.base.clone();
            return outcomes;
        }
        let mut index = self.seen.index;
        let mut seen = Vec::with_capacity(outcomes.len());
        for (command, outcome) in commands.iter().zip(outcomes) {
            index += 1;
            seen.push(self.apply(index, command, outcome));
        }
        self.seen.index = self.base.index;
        seen
    }

    fn apply(&mut self, index: u64, command: &Command, outcome: Vec<CatalogEvent>) -> Vec<CatalogEvent> {
        if outcome.iter().any(|event| event.refusal().is_some()) {
            return outcome;
        }
        let mut events = match &command.kind {
            // Limits were looked at when it was logged; they may look different from here.
            Some(CommandKind::DeclareQueue(queue)) => {
                let mut events = self.make_way(&queue.vhost, &queue.name);
                match self.seen.put_queue(index, queue) {
                    Ok(declared) => events.splice(0..0, declared),
                    Err(refusal) => return vec![CatalogEvent::Refused(refusal)],
                };
                events
            }
            Some(CommandKind::DeleteExchange(exchange)) => {
                let mut anyhow = exchange.clone();
                anyhow.if_unused = false;
                self.seen.apply(index, &Command { kind: Some(CommandKind::DeleteExchange(anyhow)) })
            }
            _ => self.seen.apply(index, command),
        };
        self.seen.index = index;
        self.note_gone(&mut events);
        events
    }

    /// The log gives the name of an announced queue to another.
    fn make_way(&mut self, vhost: &str, name: &str) -> Vec<CatalogEvent> {
        let found = self.seen.topology.queue(vhost, name).map(|queue| queue.id);
        match found.filter(|id| is_announced(*id)) {
            Some(id) => self.remove(&[id]),
            None => Vec::new(),
        }
    }

    fn remove(&mut self, ids: &[QueueId]) -> Vec<CatalogEvent> {
        let mut changes = Vec::new();
        for &id in ids {
            if self.announced.remove(&id).is_some() {
                self.seen.topology.remove_queue(id, &mut changes);
            }
        }
        changes.into_iter().map(consequence).collect()
    }

    fn note_gone(&mut self, events: &mut [CatalogEvent]) {
        for event in events {
            match event {
                CatalogEvent::QueueDeleted(record) => drop(self.announced.remove(&record.id)),
                CatalogEvent::VhostDeleted { queues, .. } => {
                    for queue in queues {
                        self.announced.remove(&queue.id);
                    }
                }
                _ => {}
            }
        }
    }

    /// A node says something of its exclusive queues. What it did here.
    pub fn announced(&mut self, node: NodeId, announcement: &Announcement) -> Vec<CatalogEvent> {
        let outcome = match &announcement.kind {
            Some(Kind::Declare(state)) => self.declare(node, state),
            Some(Kind::Bind(binding)) => {
                self.of_its_own(node, &binding.vhost, &binding.destination).and_then(|()| self.seen.bind(binding))
            }
            Some(Kind::Unbind(binding)) => {
                self.of_its_own(node, &binding.vhost, &binding.destination).and_then(|()| self.seen.unbind(binding))
            }
            Some(Kind::Delete(queues)) => {
                let own = |id: &QueueId| self.announced.get(id) == Some(&node);
                let ids: Vec<QueueId> = queues.ids.iter().map(|&id| QueueId(id)).filter(own).collect();
                Ok(self.remove(&ids))
            }
            None => Err(Refusal::Command("an announcement of a kind this version does not know".into())),
        };
        match outcome {
            Ok(events) if events.is_empty() => vec![CatalogEvent::Unchanged],
            Ok(events) => events,
            Err(refusal) => vec![CatalogEvent::Refused(refusal)],
        }
    }

    fn declare(&mut self, node: NodeId, state: &QueueState) -> Outcome {
        let id = QueueId(state.id);
        let queue =
            state.queue.as_ref().ok_or_else(|| Refusal::Command("a queue without a name was announced".into()))?;
        if !is_announced(id) || queue.exclusive_owner.is_none() || queue.node != node.0 {
            return Err(Refusal::Command("a queue was announced that is not its node's to announce".into()));
        }
        let mut events = Vec::new();
        if let Some(there) = self.seen.topology.queue(&queue.vhost, &queue.name).cloned() {
            if there.id == id {
                return Ok(vec![CatalogEvent::QueueDeclared { record: there, existed: true }]);
            }
            let gives_way = self.announced.get(&there.id).is_some_and(|of| node < *of);
            if !gives_way {
                return Err(Refusal::Locked(there.vhost.clone(), there.name.clone()));
            }
            events = self.remove(&[there.id]);
        }
        let declared = self.seen.put_queue(state.id, queue)?;
        self.announced.insert(id, node);
        events.splice(0..0, declared);
        Ok(events)
    }

    /// Whether a queue is one that this node has announced.
    fn of_its_own(&self, node: NodeId, vhost: &str, queue: &str) -> Result<(), Refusal> {
        let found = self.seen.topology.queue(vhost, queue);
        match found.filter(|queue| self.announced.get(&queue.id) == Some(&node)) {
            Some(_) => Ok(()),
            None => Err(Refusal::Command("a binding was announced of a queue that its node has not announced".into())),
        }
    }

    /// A node cannot be reached any more: what it announced is gone.
    pub fn unreachable(&mut self, node: NodeId) -> Vec<CatalogEvent> {
        let ids: Vec<QueueId> = self.announced.iter().filter(|(_, of)| **of == node).map(|(&id, _)| id).collect();
        let mut changes = Vec::new();
        for id in ids {
            self.announced.remove(&id);
            // It may come back: what its queues were bound to stays for it.
            self.seen.topology.remove_queue_alone(id, &mut changes);
        }
        changes.into_iter().map(consequence).collect()
    }

    /// Everything that a node has announced, for another that has heard nothing yet.
    pub fn announcements(&self, node: NodeId) -> Vec<Announcement> {
        let own = self.announced.iter().filter(|(_, of)| **of == node);
        own.flat_map(|(id, _)| self.announcements_of(*id)).collect()
    }

    /// What was announced of a queue: first the queue, then what it is bound to.
    pub fn announcements_of(&self, queue: QueueId) -> Vec<Announcement> {
        let of = |kind: Kind| Announcement { kind: Some(kind) };
        let record = self.seen.topology.queue_by_id(queue).filter(|_| self.announced.contains_key(&queue));
        let Some(record) = record else { return Vec::new() };
        let mut all = vec![of(Kind::Declare(queue_message(record)))];
        if let Some(vhost) = self.seen.topology.vhost(&record.vhost) {
            let to = Destination::Queue(record.name.clone());
            let bindings = vhost.bindings_to(&to).filter(|binding| !binding.source.is_empty());
            all.extend(bindings.map(|binding| of(Kind::Bind(binding_message(&record.vhost, binding)))));
        }
        all
    }

    /// The log of another node came as a whole. What changed here.
    pub fn replaced(&mut self, catalog: Catalog) -> Vec<CatalogEvent> {
        let before = std::mem::take(&mut self.seen);
        let (nodes, earlier) = (std::mem::take(&mut self.announced), self.base.clone());
        let view = View { base: earlier, seen: before.clone(), announced: nodes.clone() };
        (self.base, self.seen) = (catalog.clone(), catalog);
        let of: std::collections::BTreeSet<NodeId> = nodes.into_values().collect();
        for node in of {
            for announcement in view.announcements(node) {
                self.announced(node, &announcement);
            }
        }
        before.difference(&self.seen)
    }
}
