//! What this node's channels do with queues that live on other nodes: the same as with those here, by way of the link.
//!
//! A question (how many messages are there, may I consume) is answered by the queue's node; the channel waits for it as it waits for the catalog.
//! Without a link to it the queue is what RabbitMQ calls down or inaccessible.

use broker_amqp::link::{Got, Op};
use broker_amqp::{Delivery, Exception, Input, Reply, ReplyCode, Request};
use broker_core::field_table::Value;
use broker_core::message::Content;
use broker_core::name::{NodeId, VhostName};
use broker_core::queue::{self, ChannelKey, ConsumerKey, ConsumerSettings};
use broker_core::refusal::Refusal;
use broker_core::store::QueueId;
use broker_core::topology::{QueueDeclaration, QueueRecord};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::client::HeldDelivery;
use super::dispatch::Route;
use super::requests::{Waiter, exception, queue_resource};
use super::shard::Shard;
use crate::config::cluster::QueueMasterLocator;

/// The argument that says where a queue is to live.
const LOCATOR: &[u8] = b"x-queue-master-locator";

/// What another node was asked, and for whom.
pub enum Question {
    /// Its counts, for a channel that declares it.
    Declared {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
        /// The queue.
        queue: QueueId,
        /// The queue's name.
        name: Box<str>,
        /// What the channel asked, if that found the queue: it is carried out again when the queue is gone.
        request: Option<Box<Request>>,
    },
    /// Whether a channel waits for replies, for one that declares its address.
    Requester {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
        /// Its vhost.
        vhost: VhostName,
        /// The address.
        name: Box<str>,
    },
    /// To purge it.
    Purged {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
        /// The queue.
        queue: QueueId,
    },
    /// Its counts, for a channel that deletes it.
    Deleted {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
        /// The queue.
        queue: QueueId,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
    },
    /// To have said all there is for a consumer that ends: what was on its way to it is delivered before it is told that it has ended.
    Cancelled {
        /// The consumer.
        key: ConsumerKey,
        /// The queue.
        queue: QueueId,
    },
    /// To take an announcement.
    Announced {
        /// The number of the proposal.
        proposal: u64,
        /// What is announced.
        octets: Arc<[u8]>,
        /// Until then it is said again when it is refused.
        until: Instant,
    },
    /// To take an announcement of a queue, for which nobody waits.
    AnnouncedLate {
        /// The queue.
        queue: QueueId,
    },
    /// Whether a channel took a mandatory reply that was sent to it.
    Replied {
        /// The reply's number.
        reply: u64,
    },
    /// To let a consumer start.
    Consume {
        /// The consumer.
        key: ConsumerKey,
        /// The queue.
        queue: QueueId,
    },
}

impl Question {
    /// The queue it is about.
    pub(super) fn queue(&self) -> Option<QueueId> {
        match self {
            Question::Declared { queue, .. }
            | Question::Purged { queue, .. }
            | Question::Deleted { queue, .. }
            | Question::Cancelled { queue, .. }
            | Question::Consume { queue, .. } => Some(*queue),
            // These are about this node's queues.
            Question::Announced { .. } | Question::AnnouncedLate { .. } => None,
            Question::Requester { .. } | Question::Replied { .. } => None,
        }
    }

    fn asker(&self) -> (u64, u16) {
        match self {
            Question::Declared { connection, channel, .. }
            | Question::Requester { connection, channel, .. }
            | Question::Purged { connection, channel, .. }
            | Question::Deleted { connection, channel, .. } => (*connection, *channel),
            Question::Announced { .. } | Question::AnnouncedLate { .. } | Question::Replied { .. } => (0, 0),
            Question::Consume { key, .. } | Question::Cancelled { key, .. } => {
                (key.channel.connection, key.channel.channel)
            }
        }
    }
}

impl Shard {
    /// The node where a new queue is to live: what its argument says, or the configuration. One that only its connection may use stays with it.
    pub(super) fn place_of_queue(&mut self, declaration: &QueueDeclaration<'_>) -> NodeId {
        let me = self.parts.node;
        if declaration.exclusive || !self.links.any() {
            return me;
        }
        let asked = declaration.arguments.lookup(LOCATOR).and_then(|value| match value {
            Value::LongString(text) => QueueMasterLocator::of(std::str::from_utf8(text).ok()?),
            _ => None,
        });
        let locator = asked.unwrap_or(self.parts.locator);
        let reachable = self.parts.catalog.members().iter().map(|member| member.node);
        let reachable: Vec<NodeId> = reachable.filter(|node| *node == me || self.links.reaches(*node)).collect();
        match locator {
            QueueMasterLocator::ClientLocal => me,
            QueueMasterLocator::Random => {
                let dice = self.throw_dice();
                reachable.get((dice % reachable.len().max(1) as u64) as usize).copied().unwrap_or(me)
            }
            QueueMasterLocator::MinMasters => {
                let mut counts: BTreeMap<NodeId, usize> = reachable.into_iter().map(|node| (node, 0)).collect();
                for queue in self.parts.topology.queues() {
                    if let Some(count) = counts.get_mut(&queue.node) {
                        *count += 1;
                    }
                }
                // Of several that have the fewest, this one.
                let fewest = counts.iter().min_by_key(|(node, count)| (**count, **node != me, node.0));
                fewest.map_or(me, |(node, _)| *node)
            }
        }
    }

    /// Whether messages are for a queue: it is here and takes them, or on another node. If that node is down a durable queue is not, and what is
    /// published to it is refused: to confirm it as a message that goes nowhere would be to lose it.
    pub(super) fn is_there(&self, id: QueueId) -> bool {
        if let Some(local) = self.queues.get(&id) {
            return local.takes_messages();
        }
        let record = self.parts.topology.queue_by_id(id).filter(|record| record.node != self.parts.node);
        record.is_some_and(|record| record.durable || self.links.reaches(record.node))
    }

    /// Sets which of a route's queues are here, and on which nodes the others.
    pub(super) fn split_by_node(&self, route: &mut Route) {
        route.here = route.queues.len();
        route.elsewhere.clear();
        if route.queues.iter().all(|id| self.queues.contains_key(id)) {
            return;
        }
        let (mut here, mut elsewhere): (SmallVec<[QueueId; 4]>, Vec<(NodeId, QueueId)>) = Default::default();
        for &id in &route.queues {
            match self.home_of(id) {
                Some(node) if !self.queues.contains_key(&id) => elsewhere.push((node, id)),
                _ => here.push(id),
            }
        }
        route.here = here.len();
        elsewhere.sort_unstable();
        for (node, id) in elsewhere {
            here.push(id);
            match route.elsewhere.last_mut() {
                Some((last, ids)) if *last == node => ids.push(id),
                _ => route.elsewhere.push((node, SmallVec::from_slice(&[id]))),
            }
        }
        route.queues = here;
    }

    /// Whether a queue did not outlive its node, though the log may not say so yet.
    pub(super) fn is_gone_with_its_node(&self, record: &QueueRecord) -> bool {
        !record.durable && record.node != self.parts.node && !self.links.reaches(record.node)
    }

    /// The other node on which a queue lives, if it can be reached.
    pub(super) fn reachable_home(&self, record: &QueueRecord) -> Result<Option<NodeId>, Exception> {
        if record.node == self.parts.node {
            return Ok(None);
        }
        if self.links.reaches(record.node) {
            return Ok(Some(record.node));
        }
        if self.is_gone_with_its_node(record) {
            // It did not outlive its node, whether the log says so yet or not.
            return Err(exception(Refusal::NotFound(record.resource())));
        }
        let home = self.parts.catalog.members().get(record.node);
        let node = home.map_or_else(|| format!("{}", record.node.0), |member| member.name.clone());
        Err(exception(Refusal::HomeNodeDown { node, queue: record.resource() }))
    }

    /// Ready messages and consumers of a queue here. To ask for them is to use it.
    pub(super) fn counts_of(&mut self, id: QueueId) -> (u64, u64) {
        if self.queues.get(&id).is_some_and(|local| local.queue.has_timeouts()) {
            self.feed(id, queue::Input::Used);
        }
        let local = self.queues.get(&id);
        local.map_or((0, 0), |local| (local.queue.ready_count(), local.queue.consumer_count() as u64))
    }

    /// Asks the node of a queue how many messages and consumers it has.
    pub(super) fn ask_for_counts(&mut self, node: NodeId, queue: QueueId, question: Question) {
        let request = self.links.ask(node, question);
        self.links.say(node, &Op::Count { request, queue });
    }

    /// Asks the node of a queue to purge it.
    pub(super) fn ask_to_purge(&mut self, node: NodeId, queue: QueueId, question: Question) {
        let request = self.links.ask(node, question);
        self.links.say(node, &Op::Purge { request, queue });
    }

    /// Asks the node of a queue to let a consumer start.
    pub(super) fn ask_to_consume(&mut self, node: NodeId, id: QueueId, settings: &ConsumerSettings) {
        let ConsumerSettings { key, no_ack, exclusive, prefetch, priority, room_bytes, limit: _ } = *settings;
        self.links.consumers.entry(id).or_default().insert(key);
        let request = self.links.ask(node, Question::Consume { key, queue: id });
        let op = Op::Consume { request, queue: id, key, no_ack, exclusive, prefetch, priority, room_bytes };
        self.links.say(node, &op);
    }

    /// The other node on which the queue of a consumer lives.
    pub(super) fn home_of_consumer(&self, place: usize, handle: u32) -> Option<NodeId> {
        let queue = self.clients.get(place)?.consumers.get(handle as usize)?.queue;
        self.home_of(queue).filter(|node| self.links.reaches(*node))
    }

    /// Ends a consumer of a queue elsewhere.
    pub(super) fn ask_to_cancel(&mut self, node: NodeId, place: usize, channel: u16, handle: u32) {
        let Some(client) = self.clients.get(place) else { return };
        let Some(queue) = client.consumers.get(handle as usize).map(|consumer| consumer.queue) else { return };
        let key = ConsumerKey { channel: client.channel_key(channel), consumer: handle };
        self.give_held_back(key.channel, Some(handle));
        self.links.say(node, &Op::Cancel { queue, key });
        self.ask_for_counts(node, queue, Question::Cancelled { key, queue });
    }

    /// A node has answered.
    pub(super) fn question_is_answered(&mut self, question: Question, messages: u64, consumers: u64) {
        let (connection, channel) = question.asker();
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let reply = match question {
            Question::Declared { name, .. } | Question::Requester { name, .. } => {
                Reply::Declared { name, messages: count(messages), consumers: count(consumers) }
            }
            Question::Purged { .. } => Reply::Purged { messages: count(messages) },
            Question::Announced { proposal, .. } => return self.announcement_is_taken(proposal),
            Question::AnnouncedLate { .. } => return,
            Question::Replied { reply } => return self.reply_is_answered(reply, true),
            Question::Cancelled { key, .. } => {
                self.forget_consumer_elsewhere(&key);
                Reply::Done
            }
            Question::Consume { key, .. } => {
                // At once: its first delivery may be next.
                if let Some(place) = self.place_of(connection) {
                    let reply = Reply::ConsumeOk { consumer: key.consumer };
                    self.tell(place, Input::Reply { channel, reply });
                }
                return;
            }
            Question::Deleted { queue, if_unused, if_empty, .. } => {
                let Some(record) = self.parts.topology.queue_by_id(queue).cloned() else {
                    return self.replies.push_back((connection, channel, Reply::Deleted { messages: 0 }));
                };
                if if_empty && messages > 0 {
                    Reply::Refused(exception(Refusal::NotEmpty(record.vhost.clone(), record.name.clone())))
                } else if if_unused && consumers > 0 {
                    Reply::Refused(exception(Refusal::InUse(record.resource())))
                } else {
                    let waiter = Waiter::Deleted { connection, channel, messages: count(messages) };
                    return self.propose_deletion(vec![queue], waiter);
                }
            }
        };
        self.replies.push_back((connection, channel, reply));
    }

    /// A node will not do it.
    pub(super) fn question_is_refused(&mut self, node: NodeId, question: Question, code: u16, text: &str) {
        let is_its_own = code == ReplyCode::ResourceLocked.number();
        match question {
            Question::Announced { proposal, .. } if is_its_own && self.announced_name_is_taken(proposal) => return,
            Question::Announced { proposal, octets, until } => {
                return self.announcement_is_refused(node, proposal, octets, until, text);
            }
            Question::AnnouncedLate { queue } => return self.late_announcement_is_refused(node, queue, is_its_own),
            _ => {}
        }
        if code == ReplyCode::NotFound.number() {
            return self.queue_is_leaving(question);
        }
        let code = match code {
            403 => ReplyCode::AccessRefused,
            _ => ReplyCode::InternalError,
        };
        self.answer_no(question, Exception::new(code, text));
    }

    /// The node cannot be reached any more.
    pub(super) fn question_is_lost(&mut self, question: Question) {
        self.answer_no(question, Exception::new(ReplyCode::NotFound, "the queue's home node is down or inaccessible"));
    }

    pub(super) fn answer_no(&mut self, question: Question, mut refused: Exception) {
        let (connection, channel) = question.asker();
        match question {
            Question::Announced { proposal, .. } => return self.announcement_is_taken(proposal),
            // A new link begins with all of them.
            Question::AnnouncedLate { .. } => return,
            Question::Replied { reply } => return self.reply_is_answered(reply, false),
            Question::Consume { key, .. } => self.forget_consumer_elsewhere(&key),
            // Whether its channel is gone or its node makes no difference.
            Question::Requester { vhost, name, .. } => {
                refused = exception(Refusal::NotFound(queue_resource(&vhost, &name)));
            }
            Question::Cancelled { key, .. } => {
                self.forget_consumer_elsewhere(&key);
                return self.replies.push_back((connection, channel, Reply::Done));
            }
            _ => {}
        }
        self.replies.push_back((connection, channel, Reply::Refused(refused)));
    }

    pub(super) fn forget_consumer_elsewhere(&mut self, key: &ConsumerKey) {
        let Some(place) = self.place_of(key.channel.connection) else { return };
        let Some(consumer) = self.clients.get_mut(place).and_then(|client| client.remove_consumer(key.consumer)) else {
            return;
        };
        if let Some(keys) = self.links.consumers.get_mut(&consumer.queue) {
            keys.remove(key);
            if keys.is_empty() {
                self.links.consumers.remove(&consumer.queue);
            }
        }
    }

    /// A queue elsewhere is gone, or cannot be reached any more: its consumers here are told.
    pub(super) fn queue_elsewhere_is_gone(&mut self, queue: QueueId) {
        for key in self.consumers_elsewhere(queue) {
            if let Some(place) = self.place_of(key.channel.connection) {
                self.tell(place, Input::ConsumerCancelled { channel: key.channel.channel, consumer: key.consumer });
            }
        }
    }

    /// Forgets the consumers of a queue elsewhere, and says which they were.
    pub(super) fn consumers_elsewhere(&mut self, queue: QueueId) -> Vec<ConsumerKey> {
        let keys = self.links.consumers.remove(&queue).unwrap_or_default();
        let mut ended = Vec::new();
        for key in keys {
            // One that has not been told that it may begin is refused instead.
            let asks = |question: &Question| match question {
                Question::Consume { key: other, .. } | Question::Cancelled { key: other, .. } => *other == key,
                _ => false,
            };
            if self.links.questions.values().any(|(_, question)| asks(question)) {
                continue;
            }
            self.give_held_back(key.channel, Some(key.consumer));
            let client = self.place_of(key.channel.connection).and_then(|place| self.clients.get_mut(place));
            if client.is_some_and(|client| client.remove_consumer(key.consumer).is_some()) {
                ended.push(key);
            }
        }
        ended
    }

    /// A message for a consumer here.
    pub(super) fn delivered_from_elsewhere(&mut self, node: NodeId, queue: QueueId, delivery: &queue::Delivery<'_>) {
        let queue::Delivery { key, queue_tag, redelivered, content } = *delivery;
        let place = self.place_of(key.channel.connection);
        let consumer = place.and_then(|place| self.clients.get(place)?.consumers.get(key.consumer as usize));
        let is_known = consumer.is_some_and(|consumer| {
            (consumer.queue, consumer.channel, consumer.no_ack) == (queue, key.channel.channel, queue_tag == 0)
        });
        let Some(place) = place.filter(|_| is_known) else {
            // It has ended meanwhile, and its number may be another's by now.
            return self.links.give_back(node, queue, queue_tag);
        };
        if queue_tag != 0
            && let Some(client) = self.clients.get_mut(place)
            && client.limit(key.channel.channel).is_some()
        {
            let message = content.keep();
            client.held.push_back(HeldDelivery { queue, key, queue_tag, redelivered, message });
            return self.release_held(key.channel);
        }
        self.deliver_from_elsewhere(place, node, queue, delivery);
    }

    /// Delivers what a channel's limit has room for.
    pub(super) fn release_held(&mut self, channel: ChannelKey) {
        let Some(place) = self.place_of(channel.connection) else { return };
        loop {
            let Some(client) = self.clients.get_mut(place) else { return };
            let Some(at) = client.held.iter().position(|held| held.key.channel == channel) else { return };
            if client.limit(channel.channel).is_some_and(|limit| !limit.try_take()) {
                return;
            }
            let Some(held) = client.held.remove(at) else { return };
            let Some(node) = self.home_of(held.queue) else { continue };
            let HeldDelivery { queue, key, queue_tag, redelivered, message } = held;
            let content = Content::Kept(&message);
            let delivery = queue::Delivery { key, queue_tag, redelivered, content };
            self.deliver_from_elsewhere(place, node, queue, &delivery);
        }
    }

    /// Gives back what was never delivered of a channel, or of one of its consumers.
    pub(super) fn give_held_back(&mut self, channel: ChannelKey, consumer: Option<u32>) {
        let Some(place) = self.place_of(channel.connection) else { return };
        let Some(client) = self.clients.get_mut(place).filter(|client| !client.held.is_empty()) else { return };
        let goes = |held: &HeldDelivery| {
            held.key.channel == channel && consumer.is_none_or(|consumer| consumer == held.key.consumer)
        };
        let (gone, left): (Vec<HeldDelivery>, Vec<HeldDelivery>) =
            std::mem::take(&mut client.held).into_iter().partition(goes);
        client.held = left.into();
        for HeldDelivery { queue, queue_tag, .. } in gone {
            let outcome = queue::Outcome::Undelivered;
            self.feed(queue, queue::Input::Settle { first: queue_tag, last: queue_tag, outcome });
        }
    }

    fn deliver_from_elsewhere(&mut self, place: usize, node: NodeId, queue: QueueId, delivery: &queue::Delivery<'_>) {
        let queue::Delivery { key, queue_tag, redelivered, content } = *delivery;
        let record = self.parts.tracing.is_on().then(|| self.parts.topology.queue_by_id(queue)).flatten();
        let tracer = record.and_then(|record| self.parts.tracing.tracer(record));
        let Some(client) = self.clients.get_mut(place) else { return self.links.give_back(node, queue, queue_tag) };
        let delivery = Delivery { consumer: key.consumer, queue: queue.0, queue_tag, redelivered, content };
        if !client.amqp.deliver(key.channel.channel, delivery) {
            return self.links.give_back(node, queue, queue_tag);
        }
        if let Some(consumer) = client.consumers.get_mut(key.consumer as usize) {
            if consumer.spent == 0 {
                client.spent.push(key.consumer);
            }
            consumer.spent += content.memory() as i64;
        }
        if let Some(mut tracer) = tracer {
            tracer.delivered(client, key.channel.channel, redelivered, content);
            self.publish_traced(tracer);
        }
        self.mark_dirty(place);
    }

    /// The message that a channel here has asked for.
    pub(super) fn got_from_elsewhere(&mut self, got: &Got<'_>) {
        let Got { queue, channel, queue_tag, redelivered, remaining, content } = *got;
        if self.place_of(channel.connection).is_none() {
            if let Some(node) = self.home_of(queue) {
                self.links.give_back(node, queue, queue_tag);
            }
            return;
        }
        let message = content.keep();
        if self.parts.tracing.is_on() {
            self.trace_get(queue, channel, redelivered, &message);
        }
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        let reply = Reply::GetOk { queue: queue.0, queue_tag, redelivered, remaining, message };
        self.replies.push_back((channel.connection, channel.channel, reply));
    }

    /// Proposals were given up.
    pub(super) fn not_applied(&mut self, numbers: Vec<u64>) {
        let nothing = self.parts.catalog.clone();
        let refused = || vec![broker_meta::CatalogEvent::Refused(Refusal::NoMajority)];
        let outcomes = numbers.into_iter().map(|number| (number, refused())).collect();
        self.applied(super::meta::Applied::new(0, nothing, outcomes));
    }

    /// The node sees too few others, or enough again.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        if paused {
            self.close_doors();
            self.send_clients_away("this node sees too few of the cluster's nodes");
        } else {
            // Its links may come back later than its sight of the others.
            (self.has_links, self.serves_since) = (false, self.now);
            self.open_doors();
        }
    }

    /// An operator wants the node to serve no clients, or to serve them again. How many connections were closed.
    pub(super) fn drain(&mut self, drained: bool) -> u64 {
        self.drained = drained;
        if drained {
            self.close_doors();
            self.send_clients_away("the node is being drained")
        } else {
            self.open_doors();
            0
        }
    }

    fn send_clients_away(&mut self, reason: &str) -> u64 {
        let places: Vec<usize> = self.clients.iter().map(|(place, _)| place).collect();
        for &place in &places {
            if let Some(client) = self.clients.get_mut(place) {
                client.blocked = false;
            }
            self.tell(place, Input::ForceClose(Exception::forced(reason)));
        }
        places.len() as u64
    }

    /// Another node's alarm holds publishers back as one here does.
    pub(super) fn alarm_elsewhere(&mut self, reason: Option<&'static str>) {
        self.alarm_elsewhere = reason;
        self.tell_of_alarms();
    }
}
