//! Both sides, and the operations on queues.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker_core::dead_letter::{self, Death, Reason};
use broker_core::exchange::ExchangeKind;
use broker_core::exchange::Histories;
use broker_core::message::{Content as Octets, Message};
use broker_core::queue::{
    CONSUMER_ROOM_BYTES, ChannelKey, ConsumerKey, ConsumerSettings, Input, Outcome, Publish, Queue, Rules,
};
use broker_core::topology::{ExchangeRecord, Reached, Routable};
use broker_meta::catalog::Catalog;

use super::content::Content;
use super::holders::Holder;
use super::model::{Bound, Model};
use super::queue_model::{Consumer, Handed, QueueModel, Said};
use super::subject::{Delivered, Seen, Subject};
use crate::random::Random;

const CLIENT: ChannelKey = ChannelKey { connection: 1, channel: 1 };
pub(super) const LETTERS: ChannelKey = ChannelKey { connection: 0, channel: 0 };
/// Letters of one operation that are published; those after them get lost on their way. One that was rejected once may go round for ever.
const LETTERS_MAX: u64 = 200;
/// A queue with more messages is purged, one with more deliveries settled, so that the world stays small.
const READY_MAX: u64 = 100;
const HELD_MAX: usize = 40;
const CONSUMERS_MAX: usize = 6;
/// Queues of these names page out early. They have one lane and no dead letters: only then does it not matter what the disk answers when.
pub(super) const PAGING: [&str; 2] = ["q0", "q1"];
const PAGING_BYTES: usize = 1500;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Follows from everything that happened.
    pub digest: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages given up that became letters.
    pub letters: u64,
    /// Publishes refused.
    pub refused: u64,
    /// Rights asked for and not held.
    pub denied: u64,
    /// Messages held back by exchanges.
    pub held_back: u64,
    /// Changes of the catalog.
    pub changes: u64,
}

pub(super) struct World {
    seed: u64,
    /// The operation that is being done.
    step: u64,
    pub random: Random,
    /// What was done, where that is to be told.
    told: Option<Vec<String>>,
    pub catalog: Catalog,
    pub model: Model,
    pub index: u64,
    pub now_ms: u64,
    pub tally: Tally,
    pub local: BTreeMap<u64, Local>,
    pub holders: BTreeMap<u64, Holder>,
    pub histories: Histories,
    next_letter: u64,
    letters: VecDeque<Letter>,
    /// Since the operation began.
    letters_sent: u64,
    /// By publish number: how many queues have not answered.
    unanswered: BTreeMap<u64, usize>,
    /// By the number of its publish: where a letter comes from, its tag there, and how many queues have not taken it.
    unsafe_letters: BTreeMap<u64, (u64, u64, usize)>,
    /// Queues that are to be deleted because nobody uses them.
    pub unused: Vec<u64>,
    /// By vhost, exchange and what is hashed.
    chosen: BTreeMap<[String; 3], Choice>,
}

/// What an exchange that hashes chose, and between which queues with which weights.
struct Choice {
    between: BTreeMap<u64, u64>,
    chosen: u64,
}

/// A queue under test.
pub(super) struct Local {
    pub vhost: String,
    pub name: String,
    pub subject: Subject,
}

struct Letter {
    queue: u64,
    tag: u64,
    reason: Reason,
    message: Message,
    content: Content,
}

pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

impl Tally {
    /// Another run, after this one.
    pub fn add(&mut self, other: Tally) {
        self.digest = (self.digest ^ other.digest).wrapping_mul(0x0000_0100_0000_01B3);
        self.delivered += other.delivered;
        self.letters += other.letters;
        self.refused += other.refused;
        self.denied += other.denied;
        self.held_back += other.held_back;
        self.changes += other.changes;
    }
}

impl World {
    pub fn new(seed: u64, tells: bool) -> World {
        World {
            seed,
            step: 0,
            random: Random::new(seed),
            told: tells.then(Vec::new),
            catalog: Catalog::default(),
            model: Model::default(),
            index: 0,
            now_ms: 1_000_000,
            tally: Tally::default(),
            local: BTreeMap::new(),
            holders: BTreeMap::new(),
            histories: Histories::default(),
            next_letter: 0,
            letters: VecDeque::new(),
            letters_sent: 0,
            unanswered: BTreeMap::new(),
            unsafe_letters: BTreeMap::new(),
            unused: Vec::new(),
            chosen: BTreeMap::new(),
        }
    }

    pub fn told(&mut self) -> Vec<String> {
        self.told.take().unwrap_or_default()
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(format!("{}: {}", self.step, what()));
        }
    }

    /// An operation. What it does depends on its number and on what there is, not on how many were done before: some can be left out.
    pub fn operate(&mut self, step: u64) -> Result<(), String> {
        (self.step, self.letters_sent) = (step, 0);
        self.random = Random::new(self.seed.rotate_left(32) ^ step);
        let kind = self.random.below(100);
        self.note(kind);
        match kind {
            0..36 => self.publish()?,
            36..54 => self.settle()?,
            54..60 => self.get()?,
            60..67 => self.consume()?,
            67..70 => self.cancel()?,
            70..71 => self.purge()?,
            71..79 => self.let_time_pass()?,
            79..84 => self.ask_for_rights()?,
            84..99 => self.change()?,
            _ => self.empty_a_queue()?,
        }
        if !self.random.one_in(4) {
            self.flush_all()?;
        }
        self.publish_letters()?;
        while let Some(id) = self.unused.pop() {
            self.delete_by_id(id)?;
        }
        self.publish_letters()?;
        if self.random.one_in(4) { self.look_at_an_empty_queue() } else { Ok(()) }
    }

    /// A queue that has become empty in whatever way holds nothing any more.
    fn look_at_an_empty_queue(&mut self) -> Result<(), String> {
        let idle = |state: &QueueModel| state.ready.is_empty() && state.held.is_empty() && state.consumers.is_empty();
        let Some(id) = self.pick_queue_where(idle) else { return Ok(()) };
        let waits = self.unsafe_letters.values().any(|(queue, ..)| *queue == id);
        if waits || self.subject(id)?.queue.wants_flush() {
            return Ok(());
        }
        let left = self.subject(id)?.leftovers();
        let name = self.local.get(&id).map(|local| local.name.clone());
        same(&format!("left behind by {name:?}, which has become empty"), left, None)
    }

    /// Nothing is on its way any more.
    pub fn settle_everything(&mut self) -> Result<(), String> {
        while !self.letters.is_empty() || !self.unused.is_empty() || self.wants_flush() {
            self.flush_all()?;
            self.publish_letters()?;
            while let Some(id) = self.unused.pop() {
                self.delete_by_id(id)?;
            }
        }
        Ok(())
    }

    fn wants_flush(&self) -> bool {
        let holders = self.holders.values().any(Holder::wants_flush);
        holders || self.local.values().any(|local| local.subject.queue.wants_flush())
    }

    /// Everything that happens leaves its trace.
    pub fn note(&mut self, what: u64) {
        self.tally.digest = (self.tally.digest ^ what).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
    }

    pub fn pick_queue(&mut self) -> Option<u64> {
        let (vhost, name) = (self.pick_vhost(), queue_name(&mut self.random));
        if let Some(queue) = self.model.vhosts.get(&vhost).and_then(|vhost| vhost.queues.get(&name)) {
            return Some(queue.id);
        }
        let ids: Vec<u64> = self.local.keys().copied().collect();
        self.random.pick(&ids).copied()
    }

    fn pick_queue_where(&mut self, fits: impl Fn(&QueueModel) -> bool) -> Option<u64> {
        let queues = self.model.vhosts.values().flat_map(|vhost| vhost.queues.values());
        let ids: Vec<u64> = queues.filter(|queue| fits(&queue.state)).map(|queue| queue.id).collect();
        self.random.pick(&ids).copied()
    }

    pub fn pick_vhost(&mut self) -> String {
        if self.random.one_in(6) { "b".into() } else { "/".into() }
    }

    fn content(&mut self) -> Content {
        let random = &mut self.random;
        let exchange = if random.one_in(3) { exchange_name(random) } else { String::new() };
        let mut headers = headers(random);
        if random.one_in(3) {
            headers.insert("x-delay".into(), random.below(40) as i64);
        }
        Content {
            number: self.step + 1,
            exchange,
            key: key(random),
            copies: if random.one_in(8) { (0..random.below(3)).map(|_| key(random)).collect() } else { Vec::new() },
            headers,
            priority: random.one_in(2).then(|| random.below(6) as u8),
            expiration_ms: random.one_in(4).then(|| random.below(50)),
            persistent: random.one_in(2),
            deaths: Vec::new(),
            first_death: None,
        }
    }

    fn publish(&mut self) -> Result<(), String> {
        let (vhost, content) = (self.pick_vhost(), self.content());
        self.tell(|| format!("publish in {vhost}: {content:?}"));
        let message = content.message()?;
        let Some(to) = self.route(&vhost, &content.exchange, &content, &message)? else { return Ok(()) };
        if to.count() > 0 {
            self.unanswered.insert(content.number, to.count());
        }
        let publish = Publish { channel: CLIENT, publish_seq: content.number, content: Octets::Kept(&message) };
        self.send(to, publish, &content)
    }

    /// Where a message goes from an exchange, on both sides the same; none if there is no such exchange.
    pub fn route(
        &mut self,
        vhost: &str,
        from: &str,
        content: &Content,
        message: &Message,
    ) -> Result<Option<Targets>, String> {
        let (topology, mut reached) = (self.catalog.topology(), Reached::default());
        let dice = self.random.draw();
        let routable = Routable { routing_key: message.routing_key(), header: message.header(), dice, may_wait: true };
        let found = topology.route(vhost, from, &routable, &mut reached).ok();
        let way = self.model.vhosts.get(vhost).and_then(|vhost| vhost.route(from, content));
        same("there is such an exchange", found.is_some(), way.is_some())?;
        let Some(way) = way else { return Ok(None) };
        let mut ids: Vec<u64> = reached.queues.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        let names = ids.iter().map(|id| self.local.get(id).map(|local| local.name.clone()));
        let mut names: Vec<String> =
            names.collect::<Option<_>>().ok_or("a route leads to a queue that is not there")?;
        names.sort_unstable();
        let what = |what: &str| format!("{what} from {from:?} with {:?}", content.key);
        if way.chooses {
            let stray = names.iter().find(|name| !way.queues.contains(*name));
            same(&what("a stray message"), stray, None)?;
            // Further exchanges are reached only if they were chosen.
            let held = reached.held_by.iter().any(|exchange| !way.held_by.contains(exchange.name.as_str()));
            same(&what("held back"), held, false)?;
            let kept = reached.kept_by.iter().any(|exchange| !way.kept_by.contains(exchange.name.as_str()));
            same(&what("kept"), kept, false)?;
            self.check_choice(vhost, from, content, &ids)?;
        } else {
            same(&what("route"), names, way.queues.into_iter().collect())?;
            let held = reached.held_by.iter().map(|exchange| exchange.name.as_str().to_owned());
            same(&what("held back"), held.collect(), way.held_by)?;
            let kept = reached.kept_by.iter().map(|exchange| exchange.name.as_str().to_owned());
            same(&what("kept"), kept.collect(), way.kept_by)?;
        }
        ids.iter().for_each(|id| self.note(*id));
        let holders = reached.held_by.iter().filter_map(|exchange| exchange.holder).map(|id| id.0).collect();
        for exchange in &reached.kept_by {
            self.keep(exchange, content, message);
        }
        Ok(Some(Targets { queues: ids, holders }))
    }

    /// Of an exchange that chooses between queues: it takes one of them, and an exchange that hashes takes another than before only where that is
    /// new, or the one before is not what it was.
    fn check_choice(&mut self, vhost: &str, from: &str, content: &Content, ids: &[u64]) -> Result<(), String> {
        let Some(model) = self.model.vhosts.get(vhost).filter(|_| from == content.exchange) else { return Ok(()) };
        let Some(choices) = model.choices(content) else { return Ok(()) };
        let &[id] = ids else { return Err(format!("{from:?} chose {ids:?} of {choices:?}")) };
        let exchange = model.exchanges.get(from).filter(|exchange| exchange.inner == ExchangeKind::ConsistentHash);
        let Some(exchange) = exchange else { return Ok(()) };
        let hashed = match &exchange.hashes {
            Some(header) => format!("{:?}", content.headers.get(header)),
            None => content.key.clone(),
        };
        let hashed = format!("{:?} {hashed}", exchange.hashes);
        let by_id = |(name, weight)| Some((model.queues.get(name)?.id, weight));
        let choices: BTreeMap<u64, u64> = choices.iter().filter_map(|(name, weight)| by_id((name, *weight))).collect();
        let place = [vhost.to_owned(), from.to_owned(), hashed];
        if let Some(Choice { between, chosen }) = self.chosen.get(&place)
            && choices.get(chosen).is_some_and(|weight| between.get(chosen) == Some(weight))
        {
            let moved = id != *chosen && choices.get(&id) == between.get(&id);
            let what = format!("{from:?} chose queue {id} of {choices:?}, and {chosen} of {between:?} before");
            same(&what, moved, false)?;
        }
        self.chosen.insert(place, Choice { between: choices, chosen: id });
        Ok(())
    }

    pub fn send(&mut self, to: Targets, publish: Publish<'_>, content: &Content) -> Result<(), String> {
        to.holders.into_iter().try_for_each(|id| self.hold_back(id, publish, content))?;
        to.queues.into_iter().try_for_each(|id| self.enqueue(id, publish, content))
    }

    /// An exchange keeps a message for queues that will be bound to it.
    fn keep(&mut self, exchange: &ExchangeRecord, content: &Content, message: &Message) {
        let (vhost, name, length) = (&exchange.vhost, &exchange.name, exchange.history_length());
        self.histories.keep(vhost, name, length, message.clone());
        let Some(model) = self.model.vhosts.get_mut(vhost.as_str()) else { return };
        let keeps = model.exchanges.get(name.as_str()).and_then(|exchange| exchange.keeps).unwrap_or(20);
        let kept = model.kept.entry(name.as_str().to_owned()).or_default();
        kept.push_back(content.clone());
        while kept.len() as u64 > keeps {
            kept.pop_front();
        }
    }

    /// A queue gets what the exchange it was bound to has kept.
    pub fn recall(&mut self, vhost: &str, bound: &Bound) -> Result<(), String> {
        let messages = self.histories.recall(&vhost.into(), &bound.source.as_str().into());
        let Some(model) = self.model.vhosts.get(vhost) else { return Err("no such vhost".into()) };
        let kept: Vec<Content> = model.kept.get(&bound.source).into_iter().flatten().cloned().collect();
        let id = model.queues.get(&bound.destination).map(|queue| queue.id).ok_or("no such queue")?;
        let found: Option<Vec<Content>> = messages.iter().map(Content::read).collect();
        same("kept for a new binding", found.as_ref(), Some(&kept))?;
        for (message, content) in messages.iter().zip(&kept) {
            let publish = Publish { channel: LETTERS, publish_seq: 0, content: Octets::Kept(message) };
            self.enqueue(id, publish, content)?;
        }
        Ok(())
    }

    fn enqueue(&mut self, id: u64, publish: Publish<'_>, content: &Content) -> Result<(), String> {
        let mut said = Said::default();
        let now_ms = self.now_ms;
        let publisher = Some((publish.channel, publish.publish_seq)).filter(|(_, number)| *number != 0);
        self.state(id)?.publish(now_ms, content, publisher, &mut said);
        // Who wants no confirm hears of no refusal either.
        said.refused *= u64::from(publish.publish_seq != 0);
        let seen = self.subject(id)?.publish(now_ms, publish)?;
        self.compare(id, seen, said)
    }

    fn get(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_queue() else { return Ok(()) };
        let no_ack = self.random.one_in(3);
        self.step(id, Input::Get { channel: CLIENT, no_ack }, |state, now_ms, said| state.get(now_ms, no_ack, said))
    }

    fn consume(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_queue() else { return Ok(()) };
        let exclusive = self.random.one_in(10);
        let may = self.state(id)?.may_consume(exclusive);
        same("may consume", self.subject(id)?.queue.may_consume(exclusive), may)?;
        if !may || self.state(id)?.consumers.len() >= CONSUMERS_MAX {
            return Ok(());
        }
        let (number, no_ack) = (self.step as u32, self.random.one_in(4));
        let (prefetch, priority) = (self.random.below(5) as u16, self.random.below(3) as i64 - 1);
        let key = ConsumerKey { channel: CLIENT, consumer: number };
        let room_bytes = CONSUMER_ROOM_BYTES;
        let settings = ConsumerSettings { key, no_ack, exclusive, prefetch, priority, room_bytes, limit: None };
        let consumer = Consumer::new(number, no_ack, exclusive, prefetch, priority);
        self.step(id, Input::Consume(settings), |state, now_ms, said| state.consume(now_ms, consumer, said))
    }

    fn cancel(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_queue_where(|state| !state.consumers.is_empty()) else { return Ok(()) };
        let keys: Vec<u32> = self.state(id)?.consumers.iter().map(|consumer| consumer.key).collect();
        let Some(&consumer) = self.random.pick(&keys) else { return Ok(()) };
        let key = ConsumerKey { channel: CLIENT, consumer };
        self.step(id, Input::Cancel(key), |state, now_ms, said| state.cancel(now_ms, consumer, said))
    }

    fn settle(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_queue_where(|state| !state.held.is_empty()) else { return Ok(()) };
        let tags: Vec<u64> = self.state(id)?.held.keys().copied().collect();
        let Some(&first) = self.random.pick(&tags) else { return Ok(()) };
        // A stretch of tags that follow one another: between others there may be letters.
        let longest = self.random.below(4);
        let last = (first..=first + longest).take_while(|tag| tags.contains(tag)).last().unwrap_or(first);
        let outcome = match self.random.below(8) {
            0..3 => Outcome::Ack,
            3..5 => Outcome::Requeue,
            5 => Outcome::Undelivered,
            _ => Outcome::Discard,
        };
        self.settle_range(id, first, last, outcome)
    }

    fn settle_range(&mut self, id: u64, first: u64, last: u64, outcome: Outcome) -> Result<(), String> {
        let settle = Input::Settle { first, last, outcome };
        self.step(id, settle, |state, now_ms, said| state.settle(now_ms, first, last, outcome, said))
    }

    fn purge(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_queue() else { return Ok(()) };
        self.step(id, Input::Purge, |state, now_ms, said| state.purge(now_ms, said))
    }

    pub fn let_time_pass(&mut self) -> Result<(), String> {
        self.now_ms += self.random.below(20);
        let now_ms = self.now_ms;
        self.tell(|| format!("it is {now_ms}"));
        for id in self.local.keys().copied().collect::<Vec<_>>() {
            let mut said = Said::default();
            self.state(id)?.time(now_ms, &mut said);
            let queue = &mut self.subject(id)?.queue;
            let due = queue.next_timeout().is_some_and(|at_ms| at_ms <= now_ms);
            let seen = if due { self.subject(id)?.step(now_ms, Input::Time)? } else { Seen::default() };
            self.compare(id, seen, said)?;
        }
        self.let_go()
    }

    /// A queue without messages leaves nothing behind, neither in memory nor on disk.
    fn empty_a_queue(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_queue() else { return Ok(()) };
        self.empty(id)
    }

    fn empty(&mut self, id: u64) -> Result<(), String> {
        for consumer in self.state(id)?.consumers.iter().map(|consumer| consumer.key).collect::<Vec<_>>() {
            let key = ConsumerKey { channel: CLIENT, consumer };
            self.step(id, Input::Cancel(key), |state, now_ms, said| state.cancel(now_ms, consumer, said))?;
        }
        self.step(id, Input::Purge, |state, now_ms, said| state.purge(now_ms, said))?;
        for tag in self.state(id)?.held.keys().copied().collect::<Vec<_>>() {
            self.settle_range(id, tag, tag, Outcome::Ack)?;
        }
        self.settle_everything()?;
        if !self.local.contains_key(&id) {
            return Ok(());
        }
        if self.state(id)?.ready.is_empty() && self.state(id)?.held.is_empty() {
            let left = self.subject(id)?.leftovers();
            let name = self.local.get(&id).map(|local| local.name.clone());
            same(&format!("left behind by the empty queue {name:?}"), left, None)?;
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms;
        // Letters that become safe may make others wait.
        while let Some(id) = self.local.iter().find(|(_, local)| local.subject.queue.wants_flush()).map(|(id, _)| *id) {
            let seen = self.subject(id)?.flush(now_ms)?;
            self.state(id)?.stored();
            self.compare(id, seen, Said::default())?;
        }
        self.flush_holders()
    }

    pub fn step(
        &mut self,
        id: u64,
        input: Input,
        model: impl FnOnce(&mut QueueModel, u64, &mut Said),
    ) -> Result<(), String> {
        let (now_ms, mut said) = (self.now_ms, Said::default());
        if self.told.is_some() {
            let name = self.local.get(&id).map(|local| format!("{} of {}", local.name, local.vhost));
            self.tell(|| format!("queue {}: {input:?}", name.unwrap_or_default()));
        }
        model(self.state(id)?, now_ms, &mut said);
        let seen = self.subject(id)?.step(now_ms, input)?;
        self.compare(id, seen, said)
    }

    pub fn state(&mut self, id: u64) -> Result<&mut QueueModel, String> {
        let found = self.local.get(&id).and_then(|local| {
            let queues = &mut self.model.vhosts.get_mut(&local.vhost)?.queues;
            queues.get_mut(&local.name).filter(|queue| queue.id == id)
        });
        found.map(|queue| &mut queue.state).ok_or_else(|| format!("the model has no queue {id}"))
    }

    pub fn subject(&mut self, id: u64) -> Result<&mut Subject, String> {
        self.local.get_mut(&id).map(|local| &mut local.subject).ok_or_else(|| format!("there is no queue {id}"))
    }

    fn compare(&mut self, id: u64, seen: Seen, said: Said) -> Result<(), String> {
        let (vhost, name) = self.local.get(&id).map(|local| (&local.vhost, &local.name)).ok_or("no such queue")?;
        let of = format!("queue {name} of {vhost}");
        self.agree(id, seen, said).map_err(|what| format!("{of}: {what}"))
    }

    fn agree(&mut self, id: u64, seen: Seen, said: Said) -> Result<(), String> {
        // What is next may be over and on the disk: then it is counted until it was read.
        let counts = self.local.get(&id).is_some_and(|local| !PAGING.contains(&local.name.as_str()));
        let found = seen.delivered.iter().map(|delivered| {
            let Delivered { consumer, number, redelivered, queue_tag, returns, remaining } = *delivered;
            (consumer, number, redelivered, queue_tag == 0, returns, remaining.filter(|_| counts))
        });
        let expected = said.delivered.iter().map(|handed| {
            let Handed { key, no_ack, returns, remaining, .. } = *handed;
            let (number, redelivered) = handed.waiting.seen();
            (key, number, redelivered, no_ack, returns.map(i128::from), remaining.filter(|_| counts))
        });
        same("delivered", found.collect::<Vec<_>>(), expected.collect())?;
        let found = seen.letters.iter().map(|(_, reason, message)| (super::content::number(message), *reason));
        let expected = said.letters.iter().map(|(content, reason)| (content.number, *reason));
        same("given up", found.collect::<Vec<_>>(), expected.collect())?;
        same("refused", seen.refused.len() as u64, said.refused)?;
        let found = (seen.empty, seen.purged, seen.last_gone, seen.unused);
        same(
            "empty, purged, last consumer gone, unused",
            found,
            (said.empty, said.purged, said.last_gone, said.unused),
        )?;
        self.tally.delivered += seen.delivered.len() as u64;
        self.tally.letters += seen.letters.len() as u64;
        self.tally.refused += said.refused;
        for (Delivered { consumer, number, redelivered, queue_tag, .. }, handed) in
            seen.delivered.into_iter().zip(said.delivered)
        {
            self.note(number << 8 ^ u64::from(consumer.unwrap_or(0)) << 1 ^ u64::from(redelivered));
            if queue_tag != 0 {
                self.state(id)?.held.insert(queue_tag, (handed.consumer, handed.waiting));
            }
        }
        for ((tag, reason, message), (content, _)) in seen.letters.into_iter().zip(said.letters) {
            self.note(content.number << 4 ^ reason as u64);
            self.letters.push_back(Letter { queue: id, tag, reason, message, content });
        }
        self.compare_counts(id)?;
        let state = self.state(id)?;
        let early = seen.confirmed.iter().find(|publisher| state.waits(**publisher)).copied();
        same("confirmed before it was stored", early, None)?;
        self.answered(seen.confirmed.into_iter().chain(seen.refused))?;
        let auto_delete = self.is_auto_delete(id);
        if seen.unused || (seen.last_gone && auto_delete) {
            self.unused.push(id);
        }
        Ok(())
    }

    fn compare_counts(&mut self, id: u64) -> Result<(), String> {
        let state = self.state(id)?;
        let expected = (state.ready.len() as u64, state.held.len() as u64, state.consumers.len(), state.active());
        let queue = &self.subject(id)?.queue;
        let active = queue.single_active_consumer().map(|key| key.consumer);
        let found = (queue.ready_count(), queue.unacked_count(), queue.consumer_count(), active);
        same("ready, unacked, consumers, the active one", found, expected)
    }

    fn is_auto_delete(&self, id: u64) -> bool {
        let local = self.local.get(&id);
        let queue = local.and_then(|local| self.model.vhosts.get(&local.vhost)?.queues.get(&local.name));
        queue.is_some_and(|queue| queue.declared.auto_delete)
    }

    /// Queues have answered publishes: clients' ones each once, letters leave where they come from.
    pub fn answered(&mut self, answers: impl Iterator<Item = (ChannelKey, u64)>) -> Result<(), String> {
        let mut safe = Vec::new();
        for (channel, number) in answers {
            if channel == LETTERS {
                let Some(letter) = self.unsafe_letters.get_mut(&number) else {
                    return Err(format!("letter {number} was answered too often"));
                };
                letter.2 -= 1;
                if letter.2 == 0 {
                    safe.push((letter.0, letter.1));
                    self.unsafe_letters.remove(&number);
                }
                continue;
            }
            let Some(missing) = self.unanswered.get_mut(&number) else {
                return Err(format!("publish {number} was answered too often"));
            };
            *missing -= 1;
            if *missing == 0 {
                self.unanswered.remove(&number);
            }
        }
        safe.into_iter().try_for_each(|(queue, tag)| self.letter_is_safe(queue, tag))
    }

    fn letter_is_safe(&mut self, queue: u64, tag: u64) -> Result<(), String> {
        if self.holders.contains_key(&queue) {
            return self.held_is_safe(queue, tag);
        }
        // A queue that goes takes what it gave up with it.
        if tag == 0 || self.state(queue).is_err() {
            return Ok(());
        }
        self.step(queue, Input::Settle { first: tag, last: tag, outcome: Outcome::Ack }, |_, _, _| ())
    }

    fn publish_letters(&mut self) -> Result<(), String> {
        while let Some(letter) = self.letters.pop_front() {
            self.letters_sent += 1;
            if self.letters_sent > LETTERS_MAX {
                self.letter_is_safe(letter.queue, letter.tag)?;
            } else {
                self.publish_letter(letter)?;
            }
        }
        Ok(())
    }

    fn publish_letter(&mut self, Letter { queue, tag, reason, message, content }: Letter) -> Result<(), String> {
        let Some(Local { vhost, name, .. }) = self.local.get(&queue) else { return Ok(()) };
        let (vhost, name) = (vhost.clone(), name.clone());
        let wishes = self
            .model
            .vhosts
            .get(&vhost)
            .and_then(|vhost| Some(vhost.wishes(&name, &vhost.queues.get(&name)?.declared)));
        let wishes = wishes.ok_or("the model has no such queue")?;
        let record = self.catalog.topology().queue(&vhost, &name).cloned().ok_or("a letter of no queue")?;
        let settings = record.settings();
        same("dead letter exchange", settings.dead_letter_exchange.as_deref(), wishes.dead_to.as_deref())?;
        let Some(exchange) = wishes.dead_to else { return self.letter_is_safe(queue, tag) };
        let key = settings.dead_letter_routing_key;
        same("dead letter routing key", key.as_deref(), wishes.dead_key.as_deref().map(str::as_bytes))?;
        let (time_s, routing_key) = (self.now_ms / 1000, key.as_deref());
        let death = Death { queue: &name, reason, time_s, exchange: &exchange, routing_key };
        let written = dead_letter::letter(&message, &death).ok_or("a letter cannot be written")?;
        let why = name_of(reason);
        let content = content.letter(&name, why, time_s, &exchange, wishes.dead_key.as_deref());
        self.tell(|| format!("  letter of {name}: {content:?}"));
        same("letter", Content::read(&written).as_ref(), Some(&content))?;
        let mut targets = self.route(&vhost, &content.exchange, &content, &written)?.unwrap_or_default();
        if reason != Reason::Rejected {
            let names = targets.queues.iter().filter_map(|id| self.local.get(id)).map(|local| &local.name);
            for name in names {
                let round = dead_letter::is_cycle(&written, name);
                same(&format!("{:?} came round to {name}", content.deaths), round, content.came_round(name))?;
            }
            targets.queues.retain(|id| self.local.get(id).is_some_and(|local| !content.came_round(&local.name)));
        }
        self.send_letter(queue, tag, targets, &written, &content)
    }

    /// A letter goes on; it is safe where it comes from when everybody has it.
    pub fn send_letter(
        &mut self,
        queue: u64,
        tag: u64,
        to: Targets,
        message: &Message,
        content: &Content,
    ) -> Result<(), String> {
        if to.count() == 0 {
            return self.letter_is_safe(queue, tag);
        }
        self.next_letter += 1;
        let publish_seq = if tag == 0 { 0 } else { self.next_letter };
        if tag != 0 {
            self.unsafe_letters.insert(publish_seq, (queue, tag, to.count()));
        }
        self.send(to, Publish { channel: LETTERS, publish_seq, content: Octets::Kept(message) }, content)
    }

    /// A queue of the catalog comes to life.
    pub fn create_queue(
        &mut self,
        id: u64,
        vhost: &str,
        name: &str,
        durable: bool,
        rules: Rules,
    ) -> Result<(), String> {
        let mut subject = Subject::new(Queue::new(durable, Arc::new(rules), self.now_ms));
        if PAGING.contains(&name) {
            subject.step(self.now_ms, Input::Pressure(PAGING_BYTES))?;
        }
        self.local.insert(id, Local { vhost: vhost.into(), name: name.into(), subject });
        Ok(())
    }

    /// Keeps the world small.
    pub fn tidy_up(&mut self) -> Result<(), String> {
        for id in self.local.keys().copied().collect::<Vec<_>>() {
            if self.subject(id)?.queue.ready_count() > READY_MAX {
                self.step(id, Input::Purge, |state, now_ms, said| state.purge(now_ms, said))?;
            }
            if self.state(id)?.held.len() > HELD_MAX {
                for tag in self.state(id)?.held.keys().copied().collect::<Vec<_>>() {
                    self.settle_range(id, tag, tag, Outcome::Ack)?;
                }
            }
        }
        Ok(())
    }

    /// The end of a life: nothing is left of it.
    pub fn finish(&mut self) -> Result<(), String> {
        self.tell(|| "the end: everything goes".into());
        self.compare_catalog()?;
        for id in self.local.keys().copied().collect::<Vec<_>>() {
            self.empty(id)?;
        }
        self.release_all()?;
        // What came of it may have gone to queues that were empty already.
        for id in self.local.keys().copied().collect::<Vec<_>>() {
            self.empty(id)?;
        }
        while let Some(id) = self.local.keys().next().copied() {
            self.delete_by_id(id)?;
        }
        same("publishes never answered", self.unanswered.len(), 0)?;
        same("letters that never were safe", self.unsafe_letters.len(), 0)?;
        same("letters never published", self.letters.len(), 0)?;
        self.leave_nothing()?;
        let holders = self.holders.len();
        same("queues of exchanges that are gone", holders, 0)
    }
}

/// Queues, and the queues of exchanges that hold messages back.
#[derive(Default)]
pub(super) struct Targets {
    pub queues: Vec<u64>,
    pub holders: Vec<u64>,
}

impl Targets {
    fn count(&self) -> usize {
        self.queues.len() + self.holders.len()
    }
}

fn name_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Rejected => "rejected",
        Reason::Expired => "expired",
        Reason::MaxLength => "maxlen",
        Reason::DeliveryLimit => "delivery_limit",
        Reason::Due => "",
    }
}

pub(super) fn exchange_name(random: &mut Random) -> String {
    let names = [
        "x0",
        "x1",
        "x2",
        "x3",
        "x4",
        "x5",
        "amq.direct",
        "amq.topic",
        "amq.fanout",
        "amq.headers",
        "amq.rabbitmq.trace",
    ];
    random.pick(&names).copied().unwrap_or_default().to_owned()
}

pub(super) fn queue_name(random: &mut Random) -> String {
    format!("q{}", random.below(8))
}

/// A routing key: often the name of a queue.
fn key(random: &mut Random) -> String {
    if !random.one_in(4) { queue_name(random) } else { words(random, &["a", "b", ""]) }
}

pub(super) fn words(random: &mut Random, of: &[&str]) -> String {
    (0..random.below(4)).filter_map(|_| random.pick(of).copied()).collect::<Vec<_>>().join(".")
}

pub(super) fn headers(random: &mut Random) -> BTreeMap<String, i64> {
    let names = ["h0", "h1", "h2", "x-h"];
    let mut name = || random.pick(&names).copied().unwrap_or_default().to_owned();
    let names: Vec<String> = (0..3).map(|_| name()).collect();
    names.into_iter().take(random.below(4) as usize).map(|name| (name, random.below(2) as i64)).collect()
}
