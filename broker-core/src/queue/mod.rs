//! One queue: which messages are ready, who holds which unacknowledged, and who gets the next.
//!
//! A pure state machine. Inputs come in batches (all publishes of one socket read, ranges of acknowledgements); outputs are what the driver
//! carries out. A queue never waits: for a client (its consumers have credit), for a disk (what must be stored is handed out by
//! [`Queue::flush`] and confirmed by [`Input::Stored`]), or for a page it asked for.
//!
//! A message's place is its [`Seq`]. It is either *ready* (in [`ready::Ready`]), or *unacked* under a queue tag, or gone. A requeued message goes
//! back to its place. What lies long enough is paged out to the store in runs and read back in order when a consumer comes near.

mod confirms;
mod consumers;
mod entry;
mod input;
mod lanes;
mod output;
mod paging;
mod ready;
mod rules;
mod seldom;
mod upkeep;

use std::sync::Arc;

pub use input::{
    ChannelKey, ChannelLimit, ConsumerKey, ConsumerSettings, Input, Outcome, Publish, Recovered, RecoveredLane,
    StoredEntry, Stretch,
};
pub use output::{Delivery, JournalSink, Outlet, Output};
pub use rules::{Lanes, Rules};

use crate::dead_letter::Reason;
use crate::message::Content;
use crate::properties::{self, flag};
use crate::store::Seq;
use crate::window::Window;
use confirms::{AtOnce, Confirms};
use consumers::{Consumers, Next};
use entry::{Entry, LETTER, NO_CONSUMER, Place, Unacked};
use lanes::ReadyLanes;
use paging::PagingUnacked;
use ready::Loaded;
use seldom::{AtFirst, Seldom};
use upkeep::Watch;

/// A queue's ready messages stay in memory up to this many octets before its newest are paged out, unless [`Input::Pressure`] says less.
pub const RESIDENT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// A page-out hands about this many octets to the store at once.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// A load asks the store for about this many octets at once.
pub const LOAD_BYTES: usize = 512 * 1024;
/// Octets a consumer may be sent before the driver gives it room again.
pub const CONSUMER_ROOM_BYTES: i64 = 512 * 1024;

/// A get that waits for its message to be read.
#[derive(Debug)]
struct Get {
    channel: ChannelKey,
    no_ack: bool,
}

impl AtFirst for Vec<Get> {
    fn at_first() -> &'static Self {
        static NONE: Vec<Get> = Vec::new();
        &NONE
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Queue {
    durable: bool,
    rules: Arc<Rules>,
    /// The rules say more of a publish than the publish itself.
    watches_publishes: bool,
    /// Milliseconds since 1970 at the last input.
    now_ms: u64,
    next_seq: Seq,
    ready: ReadyLanes,
    /// By queue tag: from 1, or from where a recovered queue begins.
    unacked: Window<Unacked>,
    /// Octets of unacked messages in memory, and how many of them are on their way to the store.
    unacked_bytes: usize,
    unacked_paging_bytes: usize,
    paging_unacked: Seldom<Vec<PagingUnacked>>,
    /// With more octets of them than this, unacked messages are paged out.
    unacked_max: usize,
    consumers: Seldom<Consumers>,
    gets: Seldom<Vec<Get>>,
    confirms: Seldom<Confirms>,
    /// Messages handed to [`Output::Page`] for the journal, by ticket, are answered there.
    next_ticket: u64,
    watch: Watch,
}

impl Queue {
    /// An empty queue. `now_ms` is the time in milliseconds since 1970, here and everywhere.
    pub fn new(durable: bool, rules: Arc<Rules>, now_ms: u64) -> Self {
        Queue::recovered(durable, rules, now_ms, Recovered::default())
    }

    /// A queue as the store found it.
    pub fn recovered(durable: bool, rules: Arc<Rules>, now_ms: u64, recovered: Recovered) -> Self {
        let watch = Watch::new(recovered.expires, now_ms);
        Queue {
            durable,
            watches_publishes: rules.watch_publishes(),
            now_ms,
            next_seq: recovered.next_seq.max(1),
            unacked: Window::new(recovered.first_tag.max(1)),
            ready: ReadyLanes::recovered(rules.lanes, recovered),
            unacked_bytes: 0,
            unacked_paging_bytes: 0,
            paging_unacked: Seldom::default(),
            unacked_max: RESIDENT_MAX_BYTES,
            consumers: Consumers::new(rules.single_active_consumer),
            gets: Seldom::default(),
            confirms: Seldom::default(),
            next_ticket: 1,
            watch,
            rules,
        }
    }

    /// Takes one input.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut impl Outlet) {
        self.now_ms = now_ms;
        let had_pending = self.confirms.needs_flush();
        self.take(input, out);
        // What has come to the head meanwhile may be over, or on the disk.
        self.tend(out);
        self.page_unacked_out(out);
        self.ask_for_flush(had_pending, out);
    }

    /// Takes messages that were routed here, in their order.
    pub fn publish<'a>(&mut self, now_ms: u64, publishes: impl Iterator<Item = Publish<'a>>, out: &mut impl Outlet) {
        self.now_ms = now_ms;
        let had_pending = self.confirms.needs_flush();
        let mut at_once = AtOnce::default();
        for publish in publishes {
            self.take_publish(publish, &mut at_once, out);
        }
        at_once.finish(out.outputs());
        if !self.ready.is_empty() {
            self.tend(out);
            self.deliver(out);
        }
        self.page_out(out);
        self.page_unacked_out(out);
        self.ask_for_flush(had_pending, out);
    }

    /// Whatever the input was: a message may have been delivered to a consumer that does not acknowledge.
    fn ask_for_flush(&mut self, had_pending: bool, out: &mut impl Outlet) {
        if !had_pending && self.confirms.needs_flush() {
            out.outputs().push(Output::NeedsFlush);
        }
    }

    fn take(&mut self, input: Input, out: &mut impl Outlet) {
        match input {
            Input::Settle { first, last, outcome } => self.settle(first, last, outcome, out),
            Input::Consume(settings) => {
                self.consumers.add(settings);
                self.deliver(out);
            }
            Input::Cancel(key) => {
                if self.consumers.remove(key) {
                    if self.consumers.is_empty() {
                        self.watch.used_ms = self.now_ms;
                        out.outputs().push(Output::LastConsumerGone);
                    }
                    // Another one may be the only one now.
                    self.deliver(out);
                }
            }
            Input::Room { key, bytes } => {
                if self.consumers.give_room(key, bytes) {
                    self.deliver(out);
                }
            }
            Input::Limit { key, limit } => self.consumers.set_limit(key, limit),
            Input::LimitRoom(key) => {
                if self.consumers.limit_has_room(key) {
                    self.deliver(out);
                }
            }
            Input::Get { channel, no_ack } => {
                self.watch.used_ms = self.now_ms;
                self.get(Get { channel, no_ack }, out);
            }
            Input::Purge => self.purge(out),
            Input::Delete => self.delete(out),
            Input::Stored(seq) => self.confirms.stored(seq, out.outputs()),
            Input::Paged { ticket, stretches } => {
                self.paged(ticket, &stretches);
                self.tend(out);
                self.go_on_with_gets(out);
                self.deliver(out);
            }
            Input::Loaded { run, from, entries, next, lost } => {
                for (first, last) in self.ready.loaded(Loaded { run, from, entries, next, lost }) {
                    self.watch.lost(first, last);
                    self.forget_range(first, last, out);
                }
                self.tend(out);
                self.answer_gets(out);
                self.deliver(out);
            }
            Input::PageThrough(seq) => self.page_through(seq, out),
            Input::Pressure(bytes) => {
                self.ready.set_resident_max(bytes);
                self.unacked_max = self.ready.resident_max();
                self.page_out(out);
            }
            Input::Rules(rules) => {
                if rules.expires_ms != self.rules.expires_ms {
                    self.watch.used_ms = self.now_ms;
                }
                // How many lanes there are, and whether one consumer gets everything, a queue's declaration alone decides.
                let (lanes, single_active_consumer) = (self.rules.lanes, self.rules.single_active_consumer);
                self.rules = match (rules.lanes, rules.single_active_consumer) == (lanes, single_active_consumer) {
                    true => rules,
                    false => Arc::new(Rules { lanes, single_active_consumer, ..(*rules).clone() }),
                };
                self.watches_publishes = self.rules.watch_publishes();
                self.tend(out);
                self.go_on_with_gets(out);
            }
            Input::Used => self.watch.used_ms = self.now_ms,
            Input::Time => {
                self.tend(out);
                self.go_on_with_gets(out);
                self.time_has_come(out);
            }
        }
    }

    /// Hands to the journal what must be stored and has not been, leaving out what was settled meanwhile, until the journal is full: if then
    /// [`Queue::wants_flush`], this is to be called again. Returns the place to answer in [`Input::Stored`] once it is on disk.
    pub fn flush(&mut self, sink: &mut impl JournalSink) -> Seq {
        self.confirms.flush(sink).unwrap_or(self.next_seq - 1)
    }

    /// Whether there is something for [`Queue::flush`].
    pub fn wants_flush(&self) -> bool {
        self.confirms.needs_flush()
    }

    /// Notes for a clean stop which stored messages may have been delivered.
    pub fn note_delivered(&mut self, sink: &mut impl JournalSink) {
        for (_, unacked) in self.unacked.iter() {
            if unacked.stored {
                sink.delivered(unacked.seq, unacked.seq);
            }
        }
        self.ready.each_redelivered(|first, last| sink.delivered(first, last));
    }

    /// Whether a consumer may start: not beside an exclusive one, and not exclusive beside others.
    pub fn may_consume(&self, exclusive: bool) -> bool {
        self.consumers.may_add(exclusive)
    }

    /// Messages that wait to be delivered.
    pub fn ready_count(&self) -> u64 {
        self.ready.len().saturating_sub(self.watch.condemned_count())
    }

    /// Deliveries not settled yet.
    pub fn unacked_count(&self) -> u64 {
        (self.unacked.len() as u64).saturating_sub(u64::from(self.watch.letters) + self.watch.held_count())
    }

    /// Consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// The consumers, to cancel them when the queue is deleted.
    pub fn consumer_keys(&self) -> impl Iterator<Item = ConsumerKey> {
        self.consumers.keys()
    }

    /// Whether it stores every message, persistent or not, as a quorum queue does.
    pub fn stores_all(&self) -> bool {
        self.durable && self.rules.counts_deliveries
    }

    /// Whether it holds messages back for an exchange.
    pub fn holds_back(&self) -> bool {
        self.rules.holds_back
    }

    /// The consumer that gets everything, where there is one that does.
    pub fn single_active_consumer(&self) -> Option<ConsumerKey> {
        self.consumers.active()
    }

    /// Octets of messages in memory.
    pub fn resident_bytes(&self) -> usize {
        self.ready.resident_bytes() + self.unacked_bytes
    }

    #[inline]
    fn take_publish(&mut self, publish: Publish<'_>, at_once: &mut AtOnce, out: &mut impl Outlet) {
        let Publish { channel, publish_seq, content } = publish;
        if self.watches_publishes {
            if self.rules.holds_back {
                return self.hold_back(publish, at_once, out);
            }
            if self.refuses(&content, out) {
                if publish_seq != 0 {
                    at_once.answer(false, channel, publish_seq, out.outputs());
                }
                return;
            }
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        // A quorum queue stores everything.
        let mut stored = self.durable && (content.persistent() || self.rules.counts_deliveries);
        // A consumer that is waiting has emptied the ready list: the message goes to it without being queued.
        let next = if self.ready.is_empty() { self.consumers.next(content.memory() as i64) } else { None };
        match next {
            // Consumed before it was stored, it never will be; nor need it be kept.
            Some(Next { key, no_ack: true, .. }) => {
                stored = false;
                out.deliver(Delivery { key, queue_tag: 0, redelivered: false, content });
            }
            next => {
                let message = content.keep();
                let expires = self.watches_publishes || properties::has(content.header(), flag::EXPIRATION);
                let expires_ms = if expires { self.expiry_of(&content) } else { 0 };
                if stored {
                    self.confirms.store(seq, expires_ms, &message);
                }
                let lane = self.rules.lanes.of(content.header());
                let entry = Entry { seq, message, place: Place::MEMORY, expires_ms, lane, redelivered: false, stored };
                match next {
                    Some(Next { key, number, .. }) => {
                        self.unacked_bytes += content.memory();
                        let queue_tag = self.unacked.push(Unacked::new(entry, number));
                        out.deliver(Delivery { key, queue_tag, redelivered: false, content });
                    }
                    None => {
                        self.watch.expires |= expires_ms != 0;
                        self.ready.push(entry);
                    }
                }
            }
        }
        self.answer(seq, stored, channel, publish_seq, at_once, out);
    }

    /// A publish is taken: its publisher hears so at once, or when it is stored.
    #[inline]
    fn answer(
        &mut self,
        seq: Seq,
        stored: bool,
        channel: ChannelKey,
        publish_seq: u64,
        at_once: &mut AtOnce,
        out: &mut impl Outlet,
    ) {
        if publish_seq == 0 {
            return;
        }
        if stored {
            self.confirms.wait(seq, channel, publish_seq);
        } else {
            at_once.answer(true, channel, publish_seq, out.outputs());
        }
    }

    /// Delivers ready messages while consumers have room.
    fn deliver(&mut self, out: &mut impl Outlet) {
        while self.consumers.any_ready()
            && let Some(bytes) = self.ready.front().map(|entry| entry.message.memory())
        {
            if let Some((lane, reason)) = self.doom_of_next() {
                if self.give_up_head(lane, reason, out) {
                    continue;
                }
                break;
            }
            let Some(Next { key, number, no_ack }) = self.consumers.next(bytes as i64) else { break };
            let Some(entry) = self.ready.pop() else { break };
            let redelivered = entry.redelivered;
            let counted = self.with_delivery_count(&entry, false);
            let content = Content::Kept(counted.as_ref().unwrap_or(&entry.message));
            if no_ack {
                self.watch.forget(entry.seq);
                settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
                out.deliver(Delivery { key, queue_tag: 0, redelivered, content });
            } else {
                self.unacked_bytes += bytes;
                let queue_tag = self.unacked.next_number();
                out.deliver(Delivery { key, queue_tag, redelivered, content });
                self.unacked.push(Unacked::new(entry, number));
            }
        }
        if self.consumers.any_ready() || !self.gets.is_empty() {
            self.load(out);
        }
    }

    fn load(&mut self, out: &mut impl Outlet) {
        if let Some((run, from)) = self.ready.wants_load() {
            out.outputs().push(Output::Load { run, from, max_bytes: LOAD_BYTES });
        }
    }

    fn get(&mut self, get: Get, out: &mut impl Outlet) {
        self.tend(out);
        if self.ready_count() <= self.gets.len() as u64 {
            out.outputs().push(Output::GetEmpty(get.channel));
            return;
        }
        self.gets.push(get);
        self.answer_gets(out);
        if !self.gets.is_empty() {
            self.load(out);
        }
    }

    /// A get may have waited for letters to be safe, and what it waited for may be over by now.
    fn go_on_with_gets(&mut self, out: &mut impl Outlet) {
        if self.gets.is_empty() {
            return;
        }
        self.answer_gets(out);
        if !self.gets.is_empty() {
            self.load(out);
        }
    }

    fn answer_gets(&mut self, out: &mut impl Outlet) {
        let mut answered = 0;
        while answered < self.gets.len() {
            if self.ready_count() == 0 {
                out.outputs().push(Output::GetEmpty(self.gets[answered].channel));
            } else {
                if let Some((lane, reason)) = self.doom_of_next() {
                    if self.give_up_head(lane, reason, out) {
                        continue;
                    }
                    break;
                }
                let Some(entry) = self.ready.pop() else { break };
                let Get { channel, no_ack } = self.gets[answered];
                // What comes to the head now may be over: it does not remain.
                self.tend(out);
                let (redelivered, remaining) = (entry.redelivered, self.ready_count());
                let counted = self.with_delivery_count(&entry, true);
                let message = counted.unwrap_or_else(|| entry.message.clone());
                let queue_tag = if no_ack {
                    self.watch.forget(entry.seq);
                    settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
                    0
                } else {
                    self.unacked_bytes += entry.message.memory();
                    self.unacked.push(Unacked::new(entry, NO_CONSUMER))
                };
                out.outputs().push(Output::GetOk { channel, queue_tag, redelivered, remaining, message });
            }
            answered += 1;
        }
        self.gets.drain(..answered);
    }

    fn settle(&mut self, first: u64, last: u64, outcome: Outcome, out: &mut impl Outlet) {
        let Queue { unacked, unacked_bytes, consumers, ready, confirms, watch, rules, .. } = self;
        let mut same_consumer = (NO_CONSUMER, 0);
        let mut given_up: Vec<(Unacked, Reason)> = Vec::new();
        unacked.drain_range(first, last, |_, held| {
            *unacked_bytes -= held.memory();
            if same_consumer.0 != held.consumer {
                consumers.settled(same_consumer.0, same_consumer.1);
                same_consumer = (held.consumer, 0);
            }
            same_consumer.1 += 1;
            watch.letters -= u32::from(held.consumer == LETTER);
            let reason = match outcome {
                Outcome::Discard => Some(Reason::Rejected),
                Outcome::Requeue if rules.counts_deliveries && watch.returned(held.seq, rules) => {
                    Some(Reason::DeliveryLimit)
                }
                _ => None,
            };
            match reason {
                Some(reason) if rules.has_dead_letters && held.consumer != LETTER => given_up.push((held, reason)),
                Some(_) => gone(confirms, watch, &held, out),
                None if outcome == Outcome::Ack => gone(confirms, watch, &held, out),
                None => {
                    let redelivered = held.redelivered || outcome == Outcome::Requeue;
                    watch.expires |= held.expires_ms != 0;
                    put_back(ready, Unacked { redelivered, ..held });
                }
            }
        });
        consumers.settled(same_consumer.0, same_consumer.1);
        for (held, reason) in given_up {
            self.give_up(held, reason, out);
        }
        self.tend(out);
        self.go_on_with_gets(out);
        self.deliver(out);
    }

    fn purge(&mut self, out: &mut impl Outlet) {
        let purged = self.ready_count();
        let (resident, on_disk) = self.ready.take_all();
        let resident = self.give_up_condemned(resident, out);
        for entry in &resident {
            self.watch.forget(entry.seq);
            settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
        }
        // Ranges on disk may enclose messages that were delivered from memory before the range was written: those stay unacked.
        let mut held: Vec<Seq> = self.unacked.iter().map(|(_, unacked)| unacked.seq).collect();
        held.extend(self.watch.condemned_places());
        held.sort_unstable();
        for (first, last) in on_disk {
            let mut from = first;
            let start = held.partition_point(|&seq| seq < first);
            for &seq in held[start..].iter().take_while(|&&seq| seq <= last) {
                self.forget_range(from, seq - 1, out);
                from = seq + 1;
            }
            self.forget_range(from, last, out);
        }
        self.watch.purged(&held);
        self.keep_condemned();
        out.outputs().push(Output::Purged(purged));
        self.answer_gets(out);
    }

    /// As in RabbitMQ, a publish to a queue that is deleted counts as taken.
    fn delete(&mut self, out: &mut impl Outlet) {
        self.confirms.release(out.outputs());
        out.outputs().extend(self.gets.drain(..).map(|get| Output::GetEmpty(get.channel)));
    }

    fn forget_range(&mut self, first: Seq, last: Seq, out: &mut impl Outlet) {
        if first <= last {
            self.confirms.settled_range(first, last);
            out.outputs().push(Output::Forget { first, last });
        }
    }
}

/// A message is gone for good.
fn settled(confirms: &mut Confirms, seq: Seq, stored: bool, place: Place, out: &mut impl Outlet) {
    if stored {
        confirms.settled(seq);
    }
    if place.is_paged() {
        forget(out.outputs(), seq);
    }
}

/// A message that was held is gone for good.
fn gone(confirms: &mut Confirms, watch: &mut Watch, held: &Unacked, out: &mut impl Outlet) {
    watch.forget(held.seq);
    settled(confirms, held.seq, held.stored, held.place, out);
}

/// A message that was held goes back to its place.
fn put_back(ready: &mut ReadyLanes, held: Unacked) {
    let Unacked { seq, message, place, expires_ms, lane, redelivered, stored, body_bytes, .. } = held;
    match (message, place.run()) {
        (Some(message), _) => ready.insert(Entry { seq, message, place, expires_ms, lane, redelivered, stored }),
        (None, Some(run)) => ready.insert_on_disk(lane, run, seq, redelivered, body_bytes.into()),
        // A message only leaves memory once its run is known.
        (None, None) => {}
    }
}

/// Adds a place to the last [`Output::Forget`] if it follows it, else a new one.
fn forget(out: &mut Vec<Output>, seq: Seq) {
    if let Some(Output::Forget { last, .. }) = out.last_mut()
        && *last + 1 == seq
    {
        *last = seq;
        return;
    }
    out.push(Output::Forget { first: seq, last: seq });
}

#[cfg(test)]
mod tests;
