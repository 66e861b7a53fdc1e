//! The queues of this shard: publishes into them, and what they want done.

use std::cell::OnceCell;
use std::sync::Arc;

use broker_amqp::link::{Got, Op};
use broker_amqp::{Delivery, Reply};
use broker_core::message::{Content, Message};
use broker_core::name::NodeId;
use broker_core::queue::{self, Input, JournalSink, Outcome, Outlet, Output, Publish, Queue, Rules, Stretch};
use broker_core::store::{JournalBatch, QueueId, Seq};
use broker_core::topology::QueueRecord;
use slab::Slab;

use super::client::{Client, SharedConfirm};
use super::dispatch::Route;
use super::letters::LETTERS;
use super::links::Links;
use super::numbers;
use super::pages;
use super::shard::Shard;
use super::trace::Tracer;

/// Publish numbers of transactions, told apart from those of confirms by this bit.
pub const TRANSACTION: u64 = 1 << 63;
/// All ready messages of the shard's queues together take about this much memory; beyond it each queue is given less.
const RESIDENT_TOTAL_BYTES: usize = 48 * 1024 * 1024;
/// No queue is made to hold less than this.
const RESIDENT_LEAST_BYTES: usize = 64 * 1024;

/// Whether a queue is on its way out: the catalog is asked, and refuses when it has no room on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It stays.
    No,
    /// Someone asked for its deletion. To who names it, it is gone already; messages still come in, for it stays if the catalog refuses.
    Asked,
    /// It goes for a reason of its own, if not now then later: messages for it are dropped.
    ByItself,
}

/// A queue with what the shard keeps for it.
pub struct LocalQueue {
    /// Its state.
    pub queue: Queue,
    /// What the catalog says of it.
    pub record: Arc<QueueRecord>,
    /// It is in the list of those with something for the journal.
    pub dirty: bool,
    /// Whether it is on its way out.
    pub leaving: Leaving,
    /// Bindings that lead to it, but for that of the default exchange.
    pub bindings: u64,
    /// When the shard looks at its timeouts next, in milliseconds since 1970.
    pub timer_at: Option<u64>,
}

/// Writes a queue's records into the shard's batch.
pub struct Sink<'a> {
    /// The queue.
    pub queue: QueueId,
    /// The batch.
    pub batch: &'a mut JournalBatch,
    /// It must take all there is: the node stops.
    pub last: bool,
}

impl JournalSink for Sink<'_> {
    fn enqueue(&mut self, seq: Seq, expires_ms: u64, message: &Message) {
        self.batch.enqueue(self.queue, seq, false, expires_ms, message);
    }

    fn settle(&mut self, first: Seq, last: Seq) {
        self.batch.settle(self.queue, first, last);
    }

    fn delivered(&mut self, first: Seq, last: Seq) {
        self.batch.delivered(self.queue, first, last);
    }

    fn is_full(&self) -> bool {
        !self.last && self.batch.is_full()
    }
}

/// Where a queue's deliveries go: straight into the buffers of the clients' connections.
struct ToClients<'a> {
    queue: QueueId,
    links: &'a mut Links,
    clients: &'a mut Slab<Box<Client>>,
    dirty: &'a mut Vec<usize>,
    undelivered: &'a mut Vec<(QueueId, u64)>,
    tracer: Option<&'a mut Tracer>,
    outputs: &'a mut Vec<Output>,
}

impl Outlet for ToClients<'_> {
    #[inline]
    fn deliver(&mut self, delivery: queue::Delivery<'_>) {
        let queue::Delivery { key, queue_tag, redelivered, content } = delivery;
        let place = numbers::place_in(key.channel.connection);
        let Some(client) = self.clients.get_mut(place).filter(|client| client.number == key.channel.connection) else {
            return self.deliver_elsewhere(&delivery);
        };
        let delivery = Delivery { consumer: key.consumer, queue: self.queue.0, queue_tag, redelivered, content };
        if !client.amqp.deliver(key.channel.channel, delivery) {
            // The channel is being closed: what needs an acknowledgement goes back, the rest is lost as on any closed socket.
            tracing::debug!(queue = self.queue.0, queue_tag, "a delivery met a closing channel");
            if queue_tag != 0 {
                self.undelivered.push((self.queue, queue_tag));
            }
            return;
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.delivered(client, key.channel.channel, redelivered, content);
        }
        if let Some(consumer) = client.consumers.get_mut(key.consumer as usize) {
            if consumer.spent == 0 {
                client.spent.push(key.consumer);
            }
            consumer.spent += content.memory() as i64;
        }
        if !std::mem::replace(&mut client.dirty, true) {
            self.dirty.push(place);
        }
    }

    fn outputs(&mut self) -> &mut Vec<Output> {
        self.outputs
    }
}

impl ToClients<'_> {
    /// The consumer is a client's of another node, or of nobody any more.
    fn deliver_elsewhere(&mut self, delivery: &queue::Delivery<'_>) {
        if !self.links.deliver(self.queue, delivery) && delivery.queue_tag != 0 {
            self.undelivered.push((self.queue, delivery.queue_tag));
        }
    }
}

/// What queues' arguments and policies ask for. Most ask for nothing, and share that; many are alike, as under a policy, and come together.
#[derive(Default)]
pub struct CommonRules {
    none: Arc<Rules>,
    last: Arc<Rules>,
}

impl CommonRules {
    /// The rules of a queue.
    pub fn of(&mut self, record: &QueueRecord) -> Arc<Rules> {
        let rules = Rules::of(&record.settings());
        if rules == *self.none {
            return self.none.clone();
        }
        if rules != *self.last {
            self.last = Arc::new(rules);
        }
        self.last.clone()
    }
}

impl LocalQueue {
    /// A queue with nothing pending.
    pub fn new(record: Arc<QueueRecord>, queue: Queue) -> Self {
        LocalQueue { queue, record, dirty: false, leaving: Leaving::No, bindings: 0, timer_at: None }
    }

    /// Whether it is gone to who names it.
    pub fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No
    }

    /// Whether messages are still for it.
    pub fn takes_messages(&self) -> bool {
        self.leaving != Leaving::ByItself
    }

    /// It goes for a reason of its own. Whether its deletion is still to be proposed.
    pub fn leaves_by_itself(&mut self) -> bool {
        std::mem::replace(&mut self.leaving, Leaving::ByItself) == Leaving::No
    }
}

impl Shard {
    /// Gives a queue an input and carries out what comes of it.
    pub(super) fn feed(&mut self, id: QueueId, input: Input) {
        if self.links.any() && !self.queues.contains_key(&id) {
            return self.feed_elsewhere(id, input);
        }
        self.with_queue(id, |queue, now_ms, outlet| queue.step(now_ms, input, outlet));
    }

    /// Lets a queue do something and carries out what comes of it.
    fn with_queue(&mut self, id: QueueId, work: impl FnOnce(&mut Queue, u64, &mut ToClients<'_>)) {
        let Some(local) = self.queues.get_mut(&id) else { return };
        let before = local.queue.resident_bytes();
        let was_large = before > RESIDENT_LEAST_BYTES;
        let mut out = std::mem::take(&mut self.queue_outputs);
        let mut tracer = self.parts.tracing.tracer(&local.record);
        let mut outlet = ToClients {
            queue: id,
            links: &mut self.links,
            clients: &mut self.clients,
            dirty: &mut self.dirty,
            undelivered: &mut self.feed_later,
            tracer: tracer.as_mut(),
            outputs: &mut out,
        };
        work(&mut local.queue, self.now_ms, &mut outlet);
        if local.queue.has_timeouts()
            && let Some(at) = local.queue.next_timeout()
            && local.timer_at.is_none_or(|armed| at < armed)
        {
            // What was armed for a later time would only pile up.
            if let Some(later) = local.timer_at.replace(at) {
                self.queue_timers.remove(&(later, id));
            }
            self.queue_timers.insert((at, id));
        }
        let after = local.queue.resident_bytes();
        self.resident_bytes = (self.resident_bytes + after).saturating_sub(before);
        let is_large = after > RESIDENT_LEAST_BYTES;
        if is_large != was_large {
            if is_large {
                self.large_queues.insert(id)
            } else {
                self.large_queues.remove(&id)
            };
        }
        self.carry_out_queue(id, &mut out);
        self.queue_outputs = out;
        if is_large && !was_large && self.resident_max < queue::RESIDENT_MAX_BYTES {
            self.press(id, self.resident_max);
        }
        if let Some(tracer) = tracer {
            self.publish_traced(tracer);
        }
    }

    fn carry_out_queue(&mut self, id: QueueId, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            match output {
                Output::Confirm { channel, first, last } => self.confirm(channel, first, last),
                Output::Refuse { channel, first, last } => self.refuse(channel, first, last),
                Output::DeadLetter { queue_tag, reason, message } => self.letters.add(id, queue_tag, reason, message),
                Output::Unused => self.delete_by_itself(id, "not used for as long as it may be"),
                Output::GetOk { channel, queue_tag, redelivered, remaining, message } => {
                    if numbers::node_in(channel.connection) != self.parts.node {
                        let content = Content::Kept(&message);
                        let got = Got { queue: id, channel, queue_tag, redelivered, remaining, content };
                        if !self.links.got(&got) && queue_tag != 0 {
                            self.feed_later.push((id, queue_tag));
                        }
                        continue;
                    }
                    if self.parts.tracing.is_on() {
                        self.trace_get(id, channel, redelivered, &message);
                    }
                    let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
                    let reply = Reply::GetOk { queue: id.0, queue_tag, redelivered, remaining, message };
                    self.replies.push_back((channel.connection, channel.channel, reply));
                }
                Output::GetEmpty(channel) if numbers::node_in(channel.connection) != self.parts.node => {
                    let node = numbers::node_in(channel.connection);
                    self.links.say(node, &Op::GotNothing { queue: id, channel });
                }
                Output::GetEmpty(channel) => {
                    self.replies.push_back((channel.connection, channel.channel, Reply::GetEmpty))
                }
                Output::NeedsFlush => self.needs_flush(id),
                Output::Page { ticket, entries, through } => {
                    if let Some(through) = through {
                        self.paging_for_journal.insert((id, ticket), through);
                    }
                    let bytes = entries.iter().map(|entry| entry.message.memory()).sum();
                    self.paging_bytes += bytes;
                    self.page_bytes.insert((id, ticket), bytes);
                    self.parts.pages.send(pages::Work::Write { queue: id, ticket, entries });
                }
                Output::NothingToPage(through) => self.parts.pages.send(pages::Work::Answer(id, through)),
                Output::Load { run, from, max_bytes } => {
                    self.parts.pages.send(pages::Work::Read { queue: id, run, from, max_bytes })
                }
                Output::Forget { first, last } => self.parts.pages.forget(id, first, last),
                Output::LastConsumerGone => self.last_consumer_gone(id),
                // Answered where it is asked for.
                Output::Purged(_) => {}
            }
        }
    }

    /// Gives back deliveries that met a closed channel.
    pub(super) fn give_back(&mut self) {
        for (id, tag) in std::mem::take(&mut self.feed_later) {
            self.feed(id, Input::Settle { first: tag, last: tag, outcome: Outcome::Undelivered });
        }
    }

    pub(super) fn confirm(&mut self, channel: queue::ChannelKey, first: u64, last: u64) {
        if channel == LETTERS {
            return self.letters_taken(first, last);
        }
        let Some(place) = self.place_of(channel.connection) else {
            return self.links.say(numbers::node_in(channel.connection), &Op::Confirmed { channel, first, last });
        };
        let Some(client) = self.clients.get_mut(place) else { return };
        if first & TRANSACTION != 0 {
            self.transaction_answered(place, channel.channel, first, last, true);
            return;
        }
        if client.shared_confirms.is_empty() {
            client.amqp.confirm_range(channel.channel, first, last);
        } else {
            for seq in first..=last {
                match answered(client, channel.channel, seq, true) {
                    Some(true) => client.amqp.confirm(channel.channel, seq),
                    Some(false) => client.amqp.nack(channel.channel, seq),
                    None => {}
                }
            }
        }
        self.mark_dirty(place);
    }

    /// A queue has refused publishes: one that does is enough for the publisher to hear so, whatever the others do.
    pub(super) fn refuse(&mut self, channel: queue::ChannelKey, first: u64, last: u64) {
        if channel == LETTERS {
            return self.letters_taken(first, last);
        }
        let Some(place) = self.place_of(channel.connection) else {
            return self.links.say(numbers::node_in(channel.connection), &Op::Refused { channel, first, last });
        };
        if first & TRANSACTION != 0 {
            return self.transaction_answered(place, channel.channel, first, last, false);
        }
        let Some(client) = self.clients.get_mut(place) else { return };
        for seq in first..=last {
            // The last answer decides, and this one has.
            if answered(client, channel.channel, seq, false).is_some() {
                client.amqp.nack(channel.channel, seq);
            }
        }
        self.mark_dirty(place);
    }

    fn transaction_answered(&mut self, place: usize, channel: u16, first: u64, last: u64, taken: bool) {
        for publish_seq in first..=last {
            let Some(client) = self.clients.get_mut(place) else { return };
            let Some(taken) = answered(client, channel, publish_seq, taken) else { continue };
            let Some(at) = client.transaction_of(channel, publish_seq & !TRANSACTION) else { continue };
            let transaction = &mut client.transactions[at];
            transaction.missing = transaction.missing.saturating_sub(1);
            transaction.refused |= !taken;
            if transaction.missing == 0 {
                self.committed_transactions.push((client.number, channel, transaction.refused));
                client.transactions.remove(at);
            }
        }
    }

    fn needs_flush(&mut self, id: QueueId) {
        if let Some(local) = self.queues.get_mut(&id)
            && !std::mem::replace(&mut local.dirty, true)
        {
            self.dirty_queues.push(id);
        }
    }

    /// Whether one of these queues stores every message, persistent or not.
    pub(super) fn any_stores_all(&self, queues: &[QueueId]) -> bool {
        queues.iter().any(|id| self.queues.get(id).is_some_and(|local| local.queue.stores_all()))
    }

    /// Hands publishes to the queues of their route, in order. Those of them that are to be stored take `bytes_to_store` of memory.
    pub(super) fn publish_to_all<'a>(
        &mut self,
        route: &Route,
        bytes_to_store: usize,
        publishes: impl Iterator<Item = Publish<'a>> + Clone,
    ) {
        self.unflushed_bytes += bytes_to_store;
        if let [queue] = *route.queues {
            if let Some((node, ids)) = route.elsewhere.first() {
                return self.publish_elsewhere(*node, ids, publishes);
            }
            return self.publish_to(queue, publishes);
        }
        self.expect_shared_confirms(publishes.clone(), route.queues.len());
        for (node, ids) in &route.elsewhere {
            self.publish_elsewhere(*node, ids, publishes.clone());
        }
        let mut shared = std::mem::take(&mut self.shared_messages);
        shared.resize(publishes.clone().count(), OnceCell::new());
        for &queue in route.queues.iter().take(route.here) {
            let sharing = publishes
                .clone()
                .zip(&shared)
                .map(|(publish, shared)| Publish { content: publish.content.sharing(shared), ..publish });
            self.publish_to(queue, sharing);
        }
        shared.clear();
        self.shared_messages = shared;
    }

    fn publish_elsewhere<'a>(
        &mut self,
        node: NodeId,
        queues: &[QueueId],
        publishes: impl Iterator<Item = Publish<'a>> + Clone,
    ) {
        if self.links.publish(node, queues, publishes.clone(), self.parts.node) {
            return;
        }
        for Publish { channel, publish_seq, .. } in publishes.filter(|publish| publish.publish_seq != 0) {
            queues.iter().for_each(|_| self.refuse(channel, publish_seq, publish_seq));
        }
    }

    fn publish_to<'a>(&mut self, queue: QueueId, publishes: impl Iterator<Item = Publish<'a>>) {
        if self.queues.get(&queue).is_some_and(|local| local.takes_messages()) {
            return self.with_queue(queue, |queue, now_ms, outlet| queue.publish(now_ms, publishes, outlet));
        }
        // The queue is being deleted: the publish came after that, and counts as taken.
        for publish in publishes.filter(|publish| publish.publish_seq != 0) {
            self.confirm(publish.channel, publish.publish_seq, publish.publish_seq);
        }
    }

    fn expect_shared_confirms<'a>(&mut self, publishes: impl Iterator<Item = Publish<'a>>, queues: usize) {
        for publish in publishes.filter(|publish| publish.publish_seq != 0) {
            if let Some(place) = self.place_of(publish.channel.connection)
                && let Some(client) = self.clients.get_mut(place)
            {
                let expected = SharedConfirm { missing: queues as u32, refused: false };
                client.shared_confirms.insert((publish.channel.channel, publish.publish_seq), expected);
            }
        }
    }

    /// A page-out is written.
    pub(super) fn paged(&mut self, queue: QueueId, ticket: u64, stretches: Vec<Stretch>) {
        let bytes = self.page_bytes.remove(&(queue, ticket)).unwrap_or(0);
        self.paging_bytes = self.paging_bytes.saturating_sub(bytes);
        if let Some(through) = self.paging_for_journal.remove(&(queue, ticket)) {
            self.parts.pages.send(pages::Work::Answer(queue, through));
        }
        self.feed(queue, Input::Paged { ticket, stretches });
    }

    /// The journal wants to reuse a file in which the queue may have messages.
    pub(super) fn page_through(&mut self, queue: QueueId, through: Seq) {
        if !self.queues.contains_key(&queue) {
            self.parts.pages.send(pages::Work::Answer(queue, through));
            return;
        }
        self.feed(queue, Input::PageThrough(through));
    }

    /// The deliveries given to a connection's consumers have left: their queues may go on.
    pub(super) fn give_room(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        // Each once: with its room a consumer is given messages at once, which are to be written before it is given room for them again.
        let mut spent = std::mem::replace(&mut client.spent, std::mem::take(&mut self.no_spent));
        for handle in spent.drain(..) {
            let Some(client) = self.clients.get_mut(place) else { break };
            let key = client.consumer_key(handle);
            match (client.consumers.get_mut(handle as usize), key) {
                // A consumer that was given little has room enough: telling its queue each time would cost more than it brings.
                (Some(consumer), Some(_)) if consumer.spent < consumer.room_bytes / 4 => client.spent.push(handle),
                (Some(consumer), Some(key)) => {
                    let bytes = std::mem::take(&mut consumer.spent);
                    let queue = consumer.queue;
                    self.feed(queue, Input::Room { key, bytes });
                }
                _ => {}
            }
        }
        self.no_spent = spent;
    }

    /// Shares the memory for ready messages out among the queues that have many. Looks at no others: there may be a hundred thousand.
    pub(super) fn balance_memory(&mut self) {
        if self.resident_bytes <= RESIDENT_TOTAL_BYTES {
            if self.resident_max < queue::RESIDENT_MAX_BYTES && self.resident_bytes < RESIDENT_TOTAL_BYTES / 4 {
                self.resident_max = queue::RESIDENT_MAX_BYTES;
                for id in std::mem::take(&mut self.pressed_queues) {
                    self.feed(id, Input::Pressure(queue::RESIDENT_MAX_BYTES));
                }
            }
            return;
        }
        let each = (RESIDENT_TOTAL_BYTES / 2 / self.large_queues.len().max(1))
            .clamp(RESIDENT_LEAST_BYTES, queue::RESIDENT_MAX_BYTES);
        if each >= self.resident_max {
            return;
        }
        self.resident_max = each;
        let large: Vec<QueueId> = self.large_queues.iter().copied().collect();
        for id in large {
            self.press(id, each);
        }
    }

    /// Tells a queue to hold less in memory, until the pressure is over.
    fn press(&mut self, id: QueueId, bytes: usize) {
        self.pressed_queues.insert(id);
        self.feed(id, Input::Pressure(bytes));
    }
}

/// Counts one answer for a publish that went to several queues. After the last: whether all of them have taken it.
fn answered(client: &mut Client, channel: u16, seq: u64, taken: bool) -> Option<bool> {
    let Some(expected) = client.shared_confirms.get_mut(&(channel, seq)) else { return Some(taken) };
    expected.missing -= 1;
    expected.refused |= !taken;
    if expected.missing > 0 {
        return None;
    }
    let taken = !expected.refused;
    client.shared_confirms.remove(&(channel, seq));
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_queue_takes_little_of_the_shard() {
        assert!(size_of::<LocalQueue>() <= 400, "{}", size_of::<LocalQueue>());
    }
}
