//! What the shard does when the catalog has changed: queues come and go, remembered routes end, and whoever waited is answered.

use std::sync::Arc;

use broker_amqp::link::Op;
use broker_amqp::{Exception, Input, Reply, ReplyCode};
use broker_core::arguments::QueueType;
use broker_core::name::{NodeId, VhostName};
use broker_core::queue::{self, ChannelKey, ConsumerKey, Queue, Rules};
use broker_core::refusal::Refusal;
use broker_core::store::QueueId;
use broker_core::topology::{Binding, Destination, ExchangeRecord, QueueRecord};
use broker_meta::CatalogEvent;
use broker_meta::catalog::is_announced;
use broker_meta::command;

use super::elsewhere::Question;
use super::meta::Applied;
use super::queues::LocalQueue;
use super::requests::{Waiter, exception};
use super::revision::Revision;
use super::shard::Shard;
use crate::admin::import::outcome_of;

impl Shard {
    /// Commands were applied.
    pub(super) fn applied(&mut self, applied: Applied) {
        self.has_applied(applied.index);
        let changes = applied.outcomes.iter().flat_map(|(_, events)| events).map(changes_of).sum();
        let topology = std::mem::replace(&mut self.parts.topology, applied.topology);
        let catalog = std::mem::replace(&mut self.parts.catalog, applied.catalog);
        self.parts.meta.let_go(topology, catalog, changes);
        self.parts.access = applied.access;
        let mut cancelled = Vec::new();
        let mut revision = Revision::default();
        let mut operators = Vec::new();
        let mut vhosts_changed = false;
        self.slices.begin();
        for (proposal, events) in applied.outcomes {
            if let Some(&Waiter::Admin(number)) = self.waiters.get(&proposal) {
                operators.push((number, outcome_of(&events)));
            }
            let mut refusal = None;
            let mut declared = None;
            for event in events {
                revision.note(&event);
                match event {
                    CatalogEvent::QueueDeclared { record, existed } => {
                        declared = Some((record.id, existed));
                        if !existed && record.queue_type() == QueueType::Quorum {
                            let (queue, vhost) = (record.name.as_str(), record.vhost.as_str());
                            tracing::info!(
                                queue,
                                vhost,
                                "a quorum queue is kept on this node alone, as a durable queue with a delivery limit"
                            );
                        }
                        self.queue_declared(record);
                    }
                    CatalogEvent::QueueDeleted(record) => cancelled.extend(self.queue_deleted(&record)),
                    CatalogEvent::Refused(why) => refusal = Some(self.refusal(proposal, why)),
                    CatalogEvent::VhostDeleted { vhost, queues } => {
                        vhosts_changed = true;
                        self.histories.forget_vhost(&vhost);
                        self.holders_deleted(&vhost);
                        cancelled.extend(self.delete_in_slices(queues));
                    }
                    CatalogEvent::ExchangeDeleted(record) => {
                        if self.has_announced(proposal) {
                            // It went with its last binding, and the log does not know of that one.
                            let deletion = command::delete_exchange(&record.vhost, &record.name, true);
                            self.propose(deletion, Waiter::Nobody);
                        }
                        self.generation += 1;
                        self.histories.forget(&record.vhost, &record.name);
                        if let Some(holder) = record.holder {
                            self.holder_deleted(holder);
                        }
                    }
                    CatalogEvent::Bound { vhost, binding, existed, .. } => {
                        self.generation += 1;
                        if !existed {
                            self.count_binding(&vhost, &binding, |count| count + 1);
                            self.recall_history(&vhost, &binding);
                        }
                    }
                    CatalogEvent::Unbound { vhost, binding, .. } => {
                        self.generation += 1;
                        self.count_binding(&vhost, &binding, |count| count.saturating_sub(1));
                    }
                    CatalogEvent::VhostCreated { .. } | CatalogEvent::VhostChanged(_) => vhosts_changed = true,
                    CatalogEvent::ExchangeDeclared { record, .. } => self.holder_declared(&record),
                    CatalogEvent::Unchanged => {}
                    CatalogEvent::QueueSettingsChanged(record) => self.govern_in_slices(record),
                    // Routes and rights may have changed.
                    _ => self.generation += 1,
                }
            }
            let waiter = self.waiters.remove(&proposal);
            if let (Some(ids), Some(_)) = (self.deletions.answered(proposal), &refusal) {
                self.deletion_refused(ids);
                if let Some(Waiter::Done { .. }) = waiter {
                    // A consumer is cancelled, though its queue goes later.
                    refusal = None;
                }
            }
            if let Some(waiter) = waiter {
                self.answer_waiter(proposal, waiter, declared, refusal);
            }
        }
        if vhosts_changed {
            self.parts.tracing.look_again(&self.parts.topology);
        }
        // Who deleted a queue reads delete-ok before its own consumers' cancellations, as from RabbitMQ.
        self.give_replies();
        for ConsumerKey { channel: ChannelKey { connection, channel }, consumer } in cancelled {
            if let Some(place) = self.place_of(connection) {
                self.tell(place, Input::ConsumerCancelled { channel, consumer });
            }
        }
        self.part_from_removed();
        self.see_departures();
        self.hear_early();
        self.revise(&revision);
        for (number, outcome) in operators {
            self.answer_operator(number, outcome);
        }
    }

    /// The queue that a binding leads to has one more or one less.
    fn count_binding(&mut self, vhost: &str, binding: &Binding, count: impl Fn(u64) -> u64) {
        let Destination::Queue(name) = &binding.destination else { return };
        let id = self.parts.topology.queue(vhost, name).map(|record| record.id);
        if let Some(local) = id.and_then(|id| self.queues.get_mut(&id)) {
            local.bindings = count(local.bindings);
        }
    }

    fn answer_waiter(
        &mut self,
        proposal: u64,
        waiter: Waiter,
        declared: Option<(QueueId, bool)>,
        refusal: Option<Exception>,
    ) {
        let (connection, channel, reply) = match waiter {
            Waiter::Done { connection, channel } => (connection, channel, Reply::Done),
            Waiter::Declared { connection, channel, name } => {
                // Somebody else has declared it meanwhile, on another node.
                let there = declared.filter(|(_, existed)| *existed).map(|(id, _)| id);
                let home = there.and_then(|id| self.home_of(id)).filter(|node| self.links.reaches(*node));
                if let (Some(node), Some(queue), None) = (home, there, &refusal) {
                    let question = Question::Declared { connection, channel, queue, name, request: None };
                    return self.ask_for_counts(node, queue, question);
                }
                let reply = declared.map(|(id, _)| self.declared(&name, id));
                (
                    connection,
                    channel,
                    reply.unwrap_or_else(|| Reply::Refused(Exception::internal("the queue was not declared"))),
                )
            }
            Waiter::Deleted { connection, channel, messages } => (connection, channel, Reply::Deleted { messages }),
            Waiter::Goodbye { connection } => {
                if self.goodbye_waits(proposal, connection) {
                    return;
                }
                self.forget_announcement(proposal);
                if let Some(place) = self.place_of(connection) {
                    self.tell(place, Input::ConnectionClosed);
                }
                return;
            }
            Waiter::AnnouncedBy { node, request } => return self.answer_announcement(node, request, refusal.as_ref()),
            Waiter::Nobody | Waiter::Admin(_) => return self.forget_announcement(proposal),
        };
        match refusal {
            Some(refusal) => {
                self.forget_announcement(proposal);
                self.replies.push_back((connection, channel, Reply::Refused(refusal)));
            }
            None => self.reply_to_proposal(proposal, connection, channel, reply),
        }
    }

    /// Why something is refused. To another node that announces a queue it makes a difference whose the name is: if it is this node's, which knows
    /// best, there is nothing to wait for.
    fn refusal(&self, proposal: u64, why: Refusal) -> Exception {
        let is_of_another = match (&why, self.waiters.get(&proposal)) {
            (Refusal::Locked(vhost, name), Some(Waiter::AnnouncedBy { .. })) => {
                self.parts.topology.queue(vhost, name).is_none_or(|holder| holder.node != self.parts.node)
            }
            _ => false,
        };
        let refused = exception(why);
        if is_of_another { Exception { code: ReplyCode::ResourceError, ..refused } } else { refused }
    }

    /// Tells a node what was made of its announcement.
    fn answer_announcement(&mut self, node: NodeId, request: u64, refusal: Option<&Exception>) {
        if request == 0 {
            return;
        }
        match refusal {
            None => self.links.say(node, &Op::Answer { request, messages: 0, consumers: 0 }),
            Some(refusal) => {
                let code = refusal.code.number();
                self.links.say(node, &Op::Refusal { request, code, text: &refusal.text });
            }
        }
    }

    fn queue_declared(&mut self, record: Arc<QueueRecord>) {
        if record.node != self.parts.node || self.queues.contains_key(&record.id) {
            return;
        }
        let (id, owner) = (record.id, record.exclusive_owner);
        let queue = Queue::new(record.durable, self.common_rules.of(&record), self.now_ms);
        self.queues.insert(id, Box::new(LocalQueue::new(record, queue)));
        if let Some(owner) = owner {
            match self.place_of(owner).and_then(|place| self.clients.get_mut(place)) {
                Some(client) => drop(client.exclusive.insert(id)),
                None => self.delete_by_itself(id, "its connection ended while it was being declared"),
            }
        }
        // From its first moment on it counts as unused.
        if self.queues.get(&id).is_some_and(|local| local.queue.has_timeouts()) {
            self.feed(id, queue::Input::Used);
        }
    }

    /// Policies ask something else of a queue from now on.
    pub(super) fn queue_governed(&mut self, record: Arc<QueueRecord>) {
        let (id, rules) = (record.id, self.common_rules.of(&record));
        let Some(local) = self.queues.get_mut(&id) else { return };
        local.record = record;
        self.feed(id, queue::Input::Rules(rules));
    }

    /// An exchange that holds messages back is there.
    fn holder_declared(&mut self, record: &ExchangeRecord) {
        let Some(queue) = record.holding_queue(self.parts.node) else { return };
        if !self.queues.contains_key(&queue.id) {
            let state = Queue::new(queue.durable, Arc::new(Rules::holding_back()), self.now_ms);
            self.holders.insert(queue.id);
            self.queues.insert(queue.id, Box::new(LocalQueue::new(Arc::new(queue), state)));
        }
    }

    /// The exchanges of a vhost are gone, and what they held back with them.
    fn holders_deleted(&mut self, vhost: &VhostName) {
        let of_vhost = |id: &QueueId| self.queues.get(id).is_some_and(|local| local.record.vhost == *vhost);
        let ids: Vec<QueueId> = self.holders.iter().copied().filter(of_vhost).collect();
        for id in ids {
            self.holder_deleted(id);
        }
    }

    /// An exchange is gone, and what it held back with it.
    fn holder_deleted(&mut self, id: QueueId) {
        if let Some(record) = self.queues.get(&id).map(|local| local.record.clone()) {
            self.queue_deleted(&record);
        }
    }

    /// Returns the consumers that are to be told of their end.
    pub(super) fn queue_deleted(&mut self, record: &QueueRecord) -> Vec<ConsumerKey> {
        self.generation += 1;
        let id = record.id;
        if record.node != self.parts.node {
            return self.consumers_elsewhere(id);
        }
        // One whose deletion was announced is known to be gone.
        if is_announced(id) && self.queues.get(&id).is_some_and(|local| !local.is_leaving()) {
            self.announced_queue_gave_way(record);
        }
        self.feed(id, queue::Input::Delete);
        let Some(local) = self.queues.remove(&id) else { return Vec::new() };
        self.forget_elsewhere(id);
        self.large_queues.remove(&id);
        self.pressed_queues.remove(&id);
        self.holders.remove(&id);
        self.resident_bytes = self.resident_bytes.saturating_sub(local.queue.resident_bytes());
        if let Some(at) = local.timer_at {
            self.queue_timers.remove(&(at, id));
        }
        self.gone_queues.push(id);
        if let Some(owner) = record.exclusive_owner
            && let Some(place) = self.place_of(owner)
            && let Some(client) = self.clients.get_mut(place)
        {
            client.exclusive.remove(&id);
        }
        local.queue.consumer_keys().filter(|key| self.end_consumer(key)).collect()
    }

    /// Forgets a consumer; whether there was one.
    fn end_consumer(&mut self, key: &ConsumerKey) -> bool {
        let Some(place) = self.place_of(key.channel.connection) else { return false };
        let Some(client) = self.clients.get_mut(place) else { return false };
        client.remove_consumer(key.consumer).is_some()
    }
}

/// How many records an event is about.
fn changes_of(event: &CatalogEvent) -> usize {
    match event {
        CatalogEvent::VhostDeleted { queues, .. } => queues.len(),
        _ => 1,
    }
}
