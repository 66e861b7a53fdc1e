//! What a queue is, said plainly: ready messages in order, who holds which, and whose turn it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use broker_core::arguments::Overflow;
use broker_core::dead_letter::Reason;
use broker_core::queue::{ChannelKey, Outcome, Rules};

use super::content::Content;

/// See the module's page.
pub struct QueueModel {
    durable: bool,
    pub rules: Rules,
    pub ready: BTreeMap<(Reverse<u8>, u64), Waiting>,
    /// By queue tag, with the number of the consumer; none for a get.
    pub held: BTreeMap<u64, (Option<u64>, Waiting)>,
    pub consumers: Vec<Consumer>,
    turns: Vec<u64>,
    next_place: u64,
    next_consumer: u64,
    used_ms: u64,
    now_ms: u64,
}

/// A channel, and the number of the publish there; none for who wants no confirm.
pub type Publisher = Option<(ChannelKey, u64)>;

#[derive(Clone)]
pub struct Waiting {
    place: u64,
    expires_ms: u64,
    redelivered: bool,
    returns: u64,
    content: Content,
    /// Who published it, if it has to be stored before that is confirmed, and is not yet.
    waits: Publisher,
}

pub struct Consumer {
    number: u64,
    /// What the queue under test knows it by.
    pub key: u32,
    pub no_ack: bool,
    pub exclusive: bool,
    pub prefetch: u16,
    pub priority: i64,
    held: u16,
    waits: bool,
}

/// A message that goes to a client.
pub struct Handed {
    /// What the queue under test knows the consumer by, and its number; none for a get.
    pub key: Option<u32>,
    pub consumer: Option<u64>,
    pub no_ack: bool,
    pub waiting: Waiting,
    /// How often it was returned, where clients are told.
    pub returns: Option<u64>,
    /// Messages that are left, which a get is told.
    pub remaining: Option<u64>,
}

/// What comes of an operation.
#[derive(Default)]
pub struct Said {
    pub delivered: Vec<Handed>,
    pub letters: Vec<(Content, Reason)>,
    pub refused: u64,
    pub empty: u64,
    pub purged: u64,
    pub last_gone: bool,
    pub unused: bool,
}

impl Waiting {
    /// Number of the message, and whether it may have been delivered before.
    pub fn seen(&self) -> (u64, bool) {
        (self.content.number, self.redelivered)
    }
}

impl QueueModel {
    pub fn new(durable: bool, rules: Rules, now_ms: u64) -> QueueModel {
        QueueModel {
            durable,
            rules,
            ready: BTreeMap::new(),
            held: BTreeMap::new(),
            consumers: Vec::new(),
            turns: Vec::new(),
            next_place: 0,
            next_consumer: 0,
            used_ms: now_ms,
            now_ms,
        }
    }

    pub fn publish(&mut self, now_ms: u64, content: &Content, publisher: Publisher, said: &mut Said) {
        self.now_ms = now_ms;
        let full = self.exceeds(self.ready.len() as u64 + 1, self.octets() + content.len());
        if full && self.rules.overflow != Overflow::DropHead {
            said.refused += 1;
            if self.rules.overflow == Overflow::RejectPublishDlx && self.rules.has_dead_letters {
                said.letters.push((content.clone(), Reason::MaxLength));
            }
            return self.settle_down(said);
        }
        self.next_place += 1;
        let lives = self.rules.message_ttl_ms.into_iter().chain(content.expiration_ms).min();
        let expires_ms = lives.map_or(u64::MAX, |ms| now_ms + ms);
        let (place, content) = (self.next_place, content.clone());
        let waits = publisher.filter(|_| self.durable && (content.persistent || self.rules.counts_deliveries));
        let waiting = Waiting { place, expires_ms, redelivered: false, returns: 0, content, waits };
        if self.ready.is_empty()
            && let Some(at) = self.next_consumer()
        {
            self.hand(at, waiting, said);
        } else {
            self.put(waiting);
        }
        self.settle_down(said);
    }

    /// Everything that has to be stored is.
    pub fn stored(&mut self) {
        let held = self.held.values_mut().map(|(_, waiting)| waiting);
        self.ready.values_mut().chain(held).for_each(|waiting| waiting.waits = None);
    }

    /// Whether a message is there that must not be confirmed to that publisher yet.
    pub fn waits(&self, publisher: (ChannelKey, u64)) -> bool {
        let held = self.held.values().map(|(_, waiting)| waiting);
        self.ready.values().chain(held).any(|waiting| waiting.waits == Some(publisher))
    }

    pub fn get(&mut self, now_ms: u64, no_ack: bool, said: &mut Said) {
        (self.now_ms, self.used_ms) = (now_ms, now_ms);
        self.tend(said);
        match self.ready.pop_first() {
            Some((_, waiting)) => {
                self.tend(said);
                let returns = self.rules.counts_deliveries.then_some(waiting.returns);
                let remaining = Some(self.ready.len() as u64);
                said.delivered.push(Handed { key: None, consumer: None, no_ack, waiting, returns, remaining });
            }
            None => said.empty += 1,
        }
        self.settle_down(said);
    }

    pub fn consume(&mut self, now_ms: u64, consumer: Consumer, said: &mut Said) {
        self.now_ms = now_ms;
        self.next_consumer += 1;
        let (number, waits) = (self.next_consumer, self.rules.single_active_consumer && !self.consumers.is_empty());
        self.consumers.push(Consumer { number, waits, ..consumer });
        self.queue_up(number);
        self.settle_down(said);
    }

    pub fn may_consume(&self, exclusive: bool) -> bool {
        if self.rules.single_active_consumer {
            return !exclusive;
        }
        self.consumers.is_empty() || !(exclusive || self.consumers.iter().any(|consumer| consumer.exclusive))
    }

    pub fn cancel(&mut self, now_ms: u64, key: u32, said: &mut Said) {
        self.now_ms = now_ms;
        let Some(at) = self.consumers.iter().position(|consumer| consumer.key == key) else { return };
        let gone = self.consumers.remove(at).number;
        self.turns.retain(|turn| *turn != gone);
        if self.rules.single_active_consumer && self.consumers.iter().all(|consumer| consumer.waits) {
            let best = self.consumers.iter().map(|consumer| consumer.priority).max();
            let next = self.consumers.iter_mut().find(|consumer| Some(consumer.priority) == best);
            let number = next.map(|next| {
                next.waits = false;
                next.number
            });
            number.into_iter().for_each(|number| self.queue_up(number));
        }
        if self.consumers.is_empty() {
            self.used_ms = now_ms;
            said.last_gone = true;
        }
        self.settle_down(said);
    }

    pub fn active(&self) -> Option<u32> {
        let active = self.consumers.iter().find(|consumer| !consumer.waits);
        active.filter(|_| self.rules.single_active_consumer).map(|consumer| consumer.key)
    }

    pub fn settle(&mut self, now_ms: u64, first: u64, last: u64, outcome: Outcome, said: &mut Said) {
        self.now_ms = now_ms;
        for tag in first..=last {
            let Some((consumer, waiting)) = self.held.remove(&tag) else { continue };
            if let Some(found) = self.consumers.iter_mut().find(|one| Some(one.number) == consumer) {
                found.held -= 1;
                let number = found.number;
                self.queue_up(number);
            }
            let returns = waiting.returns + u64::from(outcome == Outcome::Requeue && self.rules.counts_deliveries);
            let limit = self.rules.delivery_limit.filter(|_| outcome == Outcome::Requeue);
            match outcome {
                Outcome::Ack => {}
                Outcome::Discard => self.give_up(waiting, Reason::Rejected, said),
                _ if self.rules.counts_deliveries && limit.is_some_and(|limit| returns > limit) => {
                    self.give_up(waiting, Reason::DeliveryLimit, said);
                }
                _ => {
                    let redelivered = waiting.redelivered || outcome == Outcome::Requeue;
                    self.put(Waiting { redelivered, returns, ..waiting });
                }
            }
        }
        self.settle_down(said);
    }

    pub fn purge(&mut self, now_ms: u64, said: &mut Said) {
        self.now_ms = now_ms;
        said.purged += std::mem::take(&mut self.ready).len() as u64;
    }

    pub fn change(&mut self, now_ms: u64, rules: Rules, said: &mut Said) {
        self.now_ms = now_ms;
        if rules.expires_ms != self.rules.expires_ms {
            self.used_ms = now_ms;
        }
        let (lanes, single_active_consumer) = (self.rules.lanes, self.rules.single_active_consumer);
        self.rules = Rules { lanes, single_active_consumer, ..rules };
        self.settle_down(said);
    }

    pub fn used(&mut self, now_ms: u64) {
        (self.now_ms, self.used_ms) = (now_ms, now_ms);
    }

    pub fn time(&mut self, now_ms: u64, said: &mut Said) {
        self.now_ms = now_ms;
        if self.consumers.is_empty() && self.rules.expires_ms.is_some_and(|ms| self.used_ms + ms <= now_ms) {
            self.used_ms = now_ms;
            said.unused = true;
        }
        self.settle_down(said);
    }

    fn exceeds(&self, messages: u64, octets: u64) -> bool {
        self.rules.max_length.is_some_and(|max| messages > max)
            || self.rules.max_length_bytes.is_some_and(|max| octets > max)
    }

    fn octets(&self) -> u64 {
        self.ready.values().map(|waiting| waiting.content.len()).sum()
    }

    fn put(&mut self, waiting: Waiting) {
        let lane = waiting.content.priority.unwrap_or(0).min(self.rules.lanes.highest);
        self.ready.insert((Reverse(lane), waiting.place), waiting);
    }

    fn give_up(&self, waiting: Waiting, reason: Reason, said: &mut Said) {
        if self.rules.has_dead_letters {
            said.letters.push((waiting.content, reason));
        }
    }

    /// Until nothing is over, too much, or for anybody.
    fn settle_down(&mut self, said: &mut Said) {
        self.tend(said);
        while let Some(at) = self.next_consumer()
            && let Some((_, waiting)) = self.ready.pop_first()
        {
            if waiting.expires_ms <= self.now_ms {
                self.give_up(waiting, Reason::Expired, said);
            } else {
                self.hand(at, waiting, said);
            }
        }
        self.tend(said);
    }

    /// Where the oldest give way, those that are next go, over or not; then heads that are over.
    fn tend(&mut self, said: &mut Said) {
        while self.rules.overflow == Overflow::DropHead
            && self.exceeds(self.ready.len() as u64, self.octets())
            && let Some((_, first)) = self.ready.pop_first()
        {
            self.give_up(first, Reason::MaxLength, said);
        }
        for lane in (0..=self.rules.lanes.highest).rev().map(Reverse) {
            while let Some((&at, head)) = self.ready.range((lane, 0)..=(lane, u64::MAX)).next()
                && head.expires_ms <= self.now_ms
                && let Some(over) = self.ready.remove(&at)
            {
                self.give_up(over, Reason::Expired, said);
            }
        }
    }

    fn has_room(&self, number: u64) -> bool {
        let found = self.consumers.iter().find(|consumer| consumer.number == number);
        found.is_some_and(|one| !one.waits && (one.no_ack || one.prefetch == 0 || one.held < one.prefetch))
    }

    /// To the end of the turns, if there is room for a message and no turn yet.
    fn queue_up(&mut self, number: u64) {
        if self.has_room(number) && !self.turns.contains(&number) {
            self.turns.push(number);
        }
    }

    /// Of those with the highest priority whose turn it is, the first.
    fn next_consumer(&self) -> Option<usize> {
        let at = |turn: &u64| self.consumers.iter().position(|consumer| consumer.number == *turn);
        let mut best: Option<usize> = None;
        for at in self.turns.iter().filter_map(at) {
            if best.is_none_or(|best| self.consumers[at].priority > self.consumers[best].priority) {
                best = Some(at);
            }
        }
        best
    }

    fn hand(&mut self, at: usize, waiting: Waiting, said: &mut Said) {
        let consumer = &mut self.consumers[at];
        consumer.held += u16::from(!consumer.no_ack);
        let (number, key, no_ack) = (consumer.number, consumer.key, consumer.no_ack);
        self.turns.retain(|turn| *turn != number);
        self.queue_up(number);
        let returns = Some(waiting.returns).filter(|returns| self.rules.counts_deliveries && *returns > 0);
        let (key, consumer) = (Some(key), Some(number));
        said.delivered.push(Handed { key, consumer, no_ack, waiting, returns, remaining: None });
    }
}

impl Consumer {
    /// One that is to be added.
    pub fn new(key: u32, no_ack: bool, exclusive: bool, prefetch: u16, priority: i64) -> Consumer {
        Consumer { number: 0, key, no_ack, exclusive, prefetch, priority, held: 0, waits: false }
    }
}
