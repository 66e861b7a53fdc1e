//! Dead letters on their way: each is published to its queue's dead letter exchange, and the queue it comes from hears when all queues it goes to
//! have it. Until then the message stays where it was, so that a crash in between can double it and never lose it.
//!
//! Letters wait in a list and are published one after the other, not out of one another: a chain of queues that dead-letter at once may be as long
//! as it likes.

use std::collections::VecDeque;

use broker_core::dead_letter::{self, Death, Reason};
use broker_core::exchange::with_delay_over;
use broker_core::message::{Content, Message};
use broker_core::name::ExchangeName;
use broker_core::queue::{ChannelKey, Input, Outcome, Publish};
use broker_core::store::QueueId;
use broker_core::topology::{QueueRecord, Reached, Routable};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::dispatch::Route;
use super::shard::Shard;

/// Who publishes letters, as the queues of this node know it. No connection has the number 0.
pub(super) const LETTERS: ChannelKey = ChannelKey { connection: 0, channel: 0 };
/// Letters published in one turn at most; what is left waits for the next.
const TOGETHER_MAX: usize = 4096;

/// See the module's page.
#[derive(Default)]
pub(super) struct Letters {
    waiting: VecDeque<Letter>,
    /// By publish number: where the message comes from, and how many queues have yet to store it. Queues bound how many they send.
    published: HashMap<u64, Published, RandomState>,
    next_seq: u64,
}

/// A message its queue has given up.
struct Letter {
    queue: QueueId,
    queue_tag: u64,
    reason: Reason,
    message: Message,
}

struct Published {
    queue: QueueId,
    queue_tag: u64,
    missing: usize,
}

impl Letters {
    /// A queue gives a message up.
    pub(super) fn add(&mut self, queue: QueueId, queue_tag: u64, reason: Reason, message: Message) {
        self.waiting.push_back(Letter { queue, queue_tag, reason, message });
    }

    /// Whether letters wait to be published.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Shard {
    /// Publishes the letters that wait, and those that come of them.
    pub(super) fn publish_letters(&mut self) {
        for _ in 0..TOGETHER_MAX {
            let Some(Letter { queue, queue_tag, reason, message }) = self.letters.waiting.pop_front() else { return };
            // A queue that was deleted meanwhile takes its messages with it.
            let Some(record) = self.queues.get(&queue).map(|local| local.record.clone()) else { continue };
            match self.route_letter(&record, reason, &message) {
                Some((letter, route)) => self.publish_letter(queue, queue_tag, &letter, &route),
                None => self.letter_is_safe(queue, queue_tag),
            }
        }
    }

    /// The letter and the queues it goes to; `None` if there is no such exchange.
    fn route_letter(&mut self, record: &QueueRecord, reason: Reason, message: &Message) -> Option<(Message, Route)> {
        let (exchange, letter) = match reason {
            Reason::Due => due(record, message)?,
            _ => dead(record, reason, message, self.now_ms / 1000)?,
        };
        let dice = self.throw_dice();
        let vhost = self.parts.topology.vhost(&record.vhost)?;
        let mut route = Route { key: letter.route().into(), ..Route::default() };
        let mut reached = Reached::default();
        for routing_key in std::iter::once(letter.routing_key()).chain(letter.hidden_keys()) {
            let message = Routable { routing_key, header: letter.header(), dice, may_wait: true };
            vhost.route(&exchange, &message, &mut reached).ok()?;
            route.queues.extend(reached.queues.drain(..));
            route.queues.extend(reached.held_by.iter().filter_map(|exchange| exchange.holder));
            route.kept_by.append(&mut reached.kept_by);
        }
        route.queues.sort_unstable();
        route.queues.dedup();
        route.queues.retain(|id| self.is_there(*id));
        if matches!(reason, Reason::Expired | Reason::MaxLength | Reason::DeliveryLimit) {
            route.queues.retain(|id| {
                let cycle = self.record_of(*id).is_some_and(|target| dead_letter::is_cycle(&letter, &target.name));
                if cycle {
                    tracing::warn!(
                        queue = record.name.as_str(),
                        vhost = record.vhost.as_str(),
                        "a dead letter came round to a queue without having been rejected by a consumer, and is dropped"
                    );
                }
                !cycle
            });
        }
        route.stores_all = self.any_stores_all(&route.queues);
        self.split_by_node(&mut route);
        Some((letter, route))
    }

    fn publish_letter(&mut self, queue: QueueId, queue_tag: u64, letter: &Message, route: &Route) {
        let content = Content::Kept(letter);
        if !route.kept_by.is_empty() {
            self.keep(&route.kept_by, content);
        }
        if route.queues.is_empty() {
            return self.letter_is_safe(queue, queue_tag);
        }
        let publish_seq = if queue_tag == 0 { 0 } else { self.letters.next_seq + 1 };
        if publish_seq != 0 {
            self.letters.next_seq = publish_seq;
            self.letters.published.insert(publish_seq, Published { queue, queue_tag, missing: route.queues.len() });
        }
        let publish = Publish { channel: LETTERS, publish_seq, content };
        self.publish_to_all(route, route.to_store(content), std::iter::once(publish));
    }

    /// A queue has stored letters, or has refused them: then they are lost, as in RabbitMQ.
    pub(super) fn letters_taken(&mut self, first: u64, last: u64) {
        for publish_seq in first..=last {
            let Some(published) = self.letters.published.get_mut(&publish_seq) else { continue };
            published.missing -= 1;
            if published.missing == 0 {
                let Published { queue, queue_tag, .. } = *published;
                self.letters.published.remove(&publish_seq);
                self.letter_is_safe(queue, queue_tag);
            }
        }
    }

    /// The message may leave the queue it was given up by.
    fn letter_is_safe(&mut self, queue: QueueId, queue_tag: u64) {
        if queue_tag != 0 {
            self.feed(queue, Input::Settle { first: queue_tag, last: queue_tag, outcome: Outcome::Ack });
        }
    }
}

/// The dead letter that a message becomes, and the exchange it goes to.
fn dead(record: &QueueRecord, reason: Reason, message: &Message, time_s: u64) -> Option<(ExchangeName, Message)> {
    let settings = record.settings();
    let exchange = settings.dead_letter_exchange?;
    let routing_key = settings.dead_letter_routing_key.as_deref();
    let death = Death { queue: &record.name, reason, time_s, exchange: &exchange, routing_key };
    let letter = dead_letter::letter(message, &death);
    if letter.is_none() {
        let (queue, vhost) = (record.name.as_str(), record.vhost.as_str());
        tracing::error!(queue, vhost, "a dead letter cannot be written and is dropped");
    }
    Some((exchange, letter?))
}

/// The message whose delay is over, and the exchange that held it back.
fn due(record: &QueueRecord, message: &Message) -> Option<(ExchangeName, Message)> {
    let header = with_delay_over(message.header())?;
    let message = message.changed(message.route(), &header, message.hidden_keys())?;
    Some((record.name.as_str().into(), message))
}
