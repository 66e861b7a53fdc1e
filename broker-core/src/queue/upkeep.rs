//! What a queue gives up by itself: messages whose time is over, those beyond its limits, and those delivered too often; and when it was last used.
//!
//! Only the message that is next in its lane is looked at, as in RabbitMQ: what expires behind it goes when its turn comes. Where there is a dead
//! letter exchange, a message that is given up stays among the unacked until the driver says that its letter is safe.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::confirms::AtOnce;
use super::entry::{Entry, HELD, LETTER, Place, Unacked};
use super::output::{Outlet, Output};
use super::seldom::{AtFirst, Seldom};
use super::{LOAD_BYTES, Publish, Queue, Rules, settled};
use crate::arguments::Overflow;
use crate::dead_letter::Reason;
use crate::exchange::delay_ms;
use crate::field_table::{TableBuilder, Value};
use crate::message::{Content, Message};
use crate::properties::{self, flag};
use crate::store::{RunId, Seq};

/// Messages that are given up by themselves wait in the queue while so many letters of it are on their way.
pub const LETTERS_MAX: u32 = 1024;
/// What tells a consumer how often a message was returned.
const X_DELIVERY_COUNT: &[u8] = b"x-delivery-count";

/// What has to be looked at from time to time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Some of the ready messages may expire.
    pub expires: bool,
    notes: Seldom<Notes>,
    /// Messages given up whose letters are not safe yet.
    pub letters: u32,
    /// The queue was last used then, in milliseconds since 1970.
    pub used_ms: u64,
}

/// A message that is given up as soon as it is read, and where it lies.
#[derive(Clone, Copy, Debug)]
struct Condemned {
    reason: Reason,
    body_bytes: u32,
    run: RunId,
    lane: u8,
    redelivered: bool,
}

/// What is to be remembered of single messages.
#[derive(Debug, Default)]
struct Notes {
    /// Messages that are given up as soon as they are read from the disk. They lie among the ready ones and count for nothing there.
    condemned: BTreeMap<Seq, Condemned>,
    condemned_bytes: u64,
    /// How often messages were returned, where that is counted.
    returns: BTreeMap<Seq, u64>,
    /// Messages that are held back: when they are due, and their queue tags.
    held: BinaryHeap<Reverse<(u64, u64)>>,
}

impl AtFirst for Notes {
    fn at_first() -> &'static Self {
        static NONE: Notes =
            Notes { condemned: BTreeMap::new(), condemned_bytes: 0, returns: BTreeMap::new(), held: BinaryHeap::new() };
        &NONE
    }
}

impl Watch {
    pub fn new(expires: bool, used_ms: u64) -> Self {
        Watch { expires, used_ms, ..Watch::default() }
    }

    /// Messages that are held back.
    pub fn held_count(&self) -> u64 {
        self.notes.held.len() as u64
    }

    /// A message is gone.
    pub fn forget(&mut self, seq: Seq) {
        if !self.notes.returns.is_empty() {
            self.notes.returns.remove(&seq);
        }
    }

    /// A message was returned: whether that was too often.
    pub fn returned(&mut self, seq: Seq, rules: &Rules) -> bool {
        let count = self.notes.returns.entry(seq).or_insert(0);
        *count += 1;
        rules.delivery_limit.is_some_and(|limit| *count > limit)
    }

    /// How often a message was returned.
    pub fn returns(&self, seq: Seq) -> u64 {
        self.notes.returns.get(&seq).copied().unwrap_or(0)
    }

    fn doom(&self, seq: Seq, expires_ms: u64, now_ms: u64) -> Option<Reason> {
        self.sentence(seq).or_else(|| (expires_ms != 0 && expires_ms <= now_ms).then_some(Reason::Expired))
    }

    /// Why a message is given up as soon as it is read, if it is.
    fn sentence(&self, seq: Seq) -> Option<Reason> {
        let condemned = if self.notes.condemned.is_empty() { None } else { self.notes.condemned.get(&seq) };
        condemned.map(|condemned| condemned.reason)
    }

    fn condemn(&mut self, held: &Unacked, run: RunId, reason: Reason) {
        let Unacked { seq, lane, redelivered, body_bytes, .. } = *held;
        self.notes.condemned_bytes += u64::from(body_bytes);
        self.notes.condemned.insert(seq, Condemned { reason, body_bytes, run, lane, redelivered });
    }

    /// A message has been read, or cannot be: what was to become of it, if it was to be given up.
    fn carry_out(&mut self, seq: Seq) -> Option<Reason> {
        if self.notes.condemned.is_empty() {
            return None;
        }
        let condemned = self.notes.condemned.remove(&seq)?;
        self.notes.condemned_bytes -= u64::from(condemned.body_bytes);
        Some(condemned.reason)
    }

    /// Messages cannot be read any more.
    pub fn lost(&mut self, first: Seq, last: Seq) {
        while let Some((&seq, _)) = self.notes.condemned.range(first..=last).next() {
            self.carry_out(seq);
        }
        while let Some((&seq, _)) = self.notes.returns.range(first..=last).next() {
            self.notes.returns.remove(&seq);
        }
    }

    /// All messages are gone but those at these places, which are sorted.
    pub fn purged(&mut self, held: &[Seq]) {
        if !self.notes.returns.is_empty() {
            self.notes.returns.retain(|seq, _| held.binary_search(seq).is_ok());
        }
    }

    /// Places of the messages that are given up as soon as they are read.
    pub fn condemned_places(&self) -> impl Iterator<Item = Seq> {
        self.notes.condemned.keys().copied()
    }

    /// How many of the ready messages are given up as soon as they are read.
    pub fn condemned_count(&self) -> u64 {
        self.notes.condemned.len() as u64
    }

    fn wants_heads(&self) -> bool {
        self.expires || !self.notes.condemned.is_empty()
    }
}

impl Queue {
    /// Gives up what is over or too much, and asks for what has to be read to know.
    pub(super) fn tend(&mut self, out: &mut impl Outlet) {
        if self.rules.holds_back {
            return self.let_go(out);
        }
        // As in RabbitMQ first what is too much, also if it is over by now.
        if self.rules.overflow == Overflow::DropHead && self.is_too_full() {
            self.drop_heads(out);
        }
        if self.watch.wants_heads() {
            if self.ready.is_empty() {
                self.watch.expires = false;
                if !self.watch.notes.condemned.is_empty() {
                    self.watch.notes.condemned.clear();
                    self.watch.notes.condemned_bytes = 0;
                }
            } else {
                self.give_up_heads(out);
            }
        }
    }

    /// A message is to be held back for its delay.
    pub(super) fn hold_back(&mut self, publish: Publish<'_>, at_once: &mut AtOnce, out: &mut impl Outlet) {
        let Publish { channel, publish_seq, content } = publish;
        let seq = self.next_seq;
        self.next_seq += 1;
        let stored = self.durable && content.persistent();
        let message = content.keep();
        // When it is due is kept where other messages keep when they expire.
        let expires_ms = self.now_ms.saturating_add(delay_ms(content.header()).unwrap_or(0)).max(1);
        if stored {
            self.confirms.store(seq, expires_ms, &message);
        }
        self.unacked_bytes += message.memory();
        self.hold(Entry { seq, message, place: Place::MEMORY, expires_ms, lane: 0, redelivered: false, stored });
        self.answer(seq, stored, channel, publish_seq, at_once, out);
    }

    fn hold(&mut self, entry: Entry) {
        let due_ms = entry.expires_ms;
        let tag = self.unacked.push(Unacked::new(entry, HELD));
        self.watch.notes.held.push(Reverse((due_ms, tag)));
    }

    /// What is due goes on; what a start has found, or what had to be read for being due, is taken as it comes from the disk.
    fn let_go(&mut self, out: &mut impl Outlet) {
        while let Some(head) = self.ready.front() {
            match self.watch.notes.condemned.contains_key(&head.seq) {
                true if !self.give_up_head(0, Reason::Due, out) => break,
                true => {}
                false => {
                    let Some(entry) = self.ready.pop() else { break };
                    self.unacked_bytes += entry.message.memory();
                    self.hold(entry);
                }
            }
        }
        self.load_head(0, out);
        while self.watch.letters < LETTERS_MAX
            && let Some(&Reverse((due_ms, tag))) = self.watch.notes.held.peek()
            && due_ms <= self.now_ms
        {
            self.watch.notes.held.pop();
            let Some(held) = self.unacked.remove(tag) else { continue };
            self.unacked_bytes -= held.memory();
            self.give_up(held, Reason::Due, out);
        }
        // What was given up and lies on the disk is to be read now.
        self.load_head(0, out);
    }

    fn is_too_full(&self) -> bool {
        let (messages, body_bytes) = self.counted();
        self.rules.exceeded_by(messages, body_bytes)
    }

    /// Ready messages that count, and octets of their bodies.
    fn counted(&self) -> (u64, u64) {
        let body_bytes = self.ready.body_bytes().saturating_sub(self.watch.notes.condemned_bytes);
        (self.ready_count(), body_bytes)
    }

    fn give_up_heads(&mut self, out: &mut impl Outlet) {
        for lane in (0..=self.rules.lanes.highest).rev() {
            while let Some(reason) = self.ready.lane(lane).front().and_then(|head| doom(&self.watch, head, self.now_ms))
            {
                if !self.give_up_head(lane, reason, out) {
                    return;
                }
            }
            self.load_head(lane, out);
        }
    }

    /// The messages that are next give way until the rest is few enough: of a queue with priorities, as in RabbitMQ, those of the highest.
    fn drop_heads(&mut self, out: &mut impl Outlet) {
        for lane in (0..=self.rules.lanes.highest).rev() {
            while self.is_too_full()
                && let Some(head) = self.ready.lane(lane).front()
            {
                let reason = self.watch.sentence(head.seq).unwrap_or(Reason::MaxLength);
                if !self.give_up_head(lane, reason, out) {
                    break;
                }
            }
            if !self.ready.lane(lane).is_empty() {
                return self.load_head(lane, out);
            }
        }
    }

    fn load_head(&mut self, lane: u8, out: &mut impl Outlet) {
        let lane = self.ready.lane(lane);
        if lane.head_is_on_disk()
            && let Some((run, from)) = lane.wants_load()
        {
            out.outputs().push(Output::Load { run, from, max_bytes: LOAD_BYTES });
        }
    }

    /// Why the message that is next must not be delivered, if so.
    pub(super) fn doom_of_next(&mut self) -> Option<(u8, Reason)> {
        let head = self.ready.front()?;
        if head.expires_ms == 0 && self.watch.notes.condemned.is_empty() {
            return None;
        }
        Some((head.lane, doom(&self.watch, head, self.now_ms)?))
    }

    /// Gives the first message of a lane up, which is in memory. `false`: not now, too many letters are on their way.
    pub(super) fn give_up_head(&mut self, lane: u8, reason: Reason, out: &mut impl Outlet) -> bool {
        if self.rules.has_dead_letters && self.watch.letters >= LETTERS_MAX {
            return false;
        }
        let Some(entry) = self.ready.lane(lane).pop() else { return false };
        self.watch.carry_out(entry.seq);
        if self.rules.has_dead_letters {
            self.unacked_bytes += entry.message.memory();
            self.send_letter(Unacked::new(entry, LETTER), reason, out);
        } else {
            self.watch.forget(entry.seq);
            settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
        }
        true
    }

    /// A message that a consumer held is given up.
    pub(super) fn give_up(&mut self, held: Unacked, reason: Reason, out: &mut impl Outlet) {
        match held.place.run() {
            Some(run) if held.message.is_none() => {
                self.watch.condemn(&held, run, reason);
                let Unacked { seq, lane, redelivered, body_bytes, .. } = held;
                self.ready.insert_on_disk(lane, run, seq, redelivered, body_bytes.into());
            }
            _ => {
                self.unacked_bytes += held.memory();
                self.send_letter(Unacked { consumer: LETTER, ..held }, reason, out);
            }
        }
    }

    /// Of what a purge has taken from memory, what was to be given up is; the rest comes back.
    pub(super) fn give_up_condemned(&mut self, purged: Vec<Entry>, out: &mut impl Outlet) -> Vec<Entry> {
        if self.watch.notes.condemned.is_empty() {
            return purged;
        }
        let mut rest = Vec::with_capacity(purged.len());
        for entry in purged {
            match self.watch.carry_out(entry.seq) {
                Some(reason) => {
                    self.unacked_bytes += entry.message.memory();
                    self.send_letter(Unacked::new(entry, LETTER), reason, out);
                }
                None => rest.push(entry),
            }
        }
        rest
    }

    /// What is to be given up and lies on the disk is not purged.
    pub(super) fn keep_condemned(&mut self) {
        for (&seq, condemned) in &self.watch.notes.condemned {
            let Condemned { body_bytes, run, lane, redelivered, .. } = *condemned;
            self.ready.insert_on_disk(lane, run, seq, redelivered, body_bytes.into());
        }
    }

    fn send_letter(&mut self, held: Unacked, reason: Reason, out: &mut impl Outlet) {
        let message = held.message.clone();
        let queue_tag = self.unacked.push(held);
        self.watch.letters += 1;
        if let Some(message) = message {
            out.outputs().push(Output::DeadLetter { queue_tag, reason, message });
        }
    }

    /// When a message that enters now expires; 0: never.
    pub(super) fn expiry_of(&self, content: &Content<'_>) -> u64 {
        let own = properties::expiration_ms(content.header());
        let ttl = self.rules.message_ttl_ms.into_iter().chain(own).min();
        ttl.map_or(0, |ttl| self.now_ms.saturating_add(ttl).max(1))
    }

    /// Whether a message that enters now is refused, and what then becomes of it.
    pub(super) fn refuses(&mut self, content: &Content<'_>, out: &mut impl Outlet) -> bool {
        let (messages, body_bytes) = self.counted();
        let (messages, body_bytes) = (messages + 1, body_bytes + content.body_bytes());
        if !self.rules.refuses() || !self.rules.exceeded_by(messages, body_bytes) {
            return false;
        }
        if self.rules.overflow == Overflow::RejectPublishDlx && self.rules.has_dead_letters {
            let (reason, message) = (Reason::MaxLength, content.keep());
            out.outputs().push(Output::DeadLetter { queue_tag: 0, reason, message });
        }
        true
    }

    /// When [`Input::Time`](super::Input::Time) is next to come, in milliseconds since 1970.
    pub fn next_timeout(&mut self) -> Option<u64> {
        let unused = self.rules.expires_ms.filter(|_| self.consumers.is_empty());
        let unused = unused.map(|ms| self.watch.used_ms.saturating_add(ms));
        if self.rules.holds_back {
            let due = self.watch.notes.held.peek().map(|Reverse((due_ms, _))| *due_ms);
            return due.filter(|_| self.watch.letters < LETTERS_MAX);
        }
        let waits = !self.watch.expires || (self.rules.has_dead_letters && self.watch.letters >= LETTERS_MAX);
        if waits {
            return unused;
        }
        let heads = self.ready.all_mut().filter_map(|lane| lane.front()).map(|head| head.expires_ms);
        heads.filter(|expires_ms| *expires_ms != 0).chain(unused).min()
    }

    /// Whether there may be something for [`Queue::next_timeout`] to tell.
    #[inline]
    pub fn has_timeouts(&self) -> bool {
        self.watch.expires || self.rules.expires_ms.is_some() || self.rules.holds_back
    }

    pub(super) fn time_has_come(&mut self, out: &mut impl Outlet) {
        let unused = self.rules.expires_ms.filter(|_| self.consumers.is_empty());
        if unused.is_some_and(|ms| self.watch.used_ms.saturating_add(ms) <= self.now_ms) {
            // Said once; should it not be deleted, it is said again after as long a time.
            self.watch.used_ms = self.now_ms;
            out.outputs().push(Output::Unused);
        }
    }

    /// The message as a consumer of a quorum queue gets it; `always`: also if it was never returned.
    pub(super) fn with_delivery_count(&self, entry: &Entry, always: bool) -> Option<Message> {
        if !self.rules.counts_deliveries {
            return None;
        }
        let count = self.watch.returns(entry.seq);
        if count == 0 && !always {
            return None;
        }
        let header = entry.message.header();
        let headers = properties::headers(header);
        let mut fields: Vec<(&[u8], Value<'_>)> =
            headers.iter().filter(|(name, _)| *name != X_DELIVERY_COUNT).collect();
        fields.push((X_DELIVERY_COUNT, Value::Int64(i64::try_from(count).unwrap_or(i64::MAX))));
        fields.sort_by_key(|(name, _)| *name);
        let mut table = TableBuilder::default();
        fields.iter().for_each(|(name, value)| table.push(name, *value));
        let header = properties::changed(header, &[(flag::HEADERS, Some(table.octets()))])?;
        entry.message.changed(entry.message.route(), &header, entry.message.hidden_keys())
    }
}

fn doom(watch: &Watch, head: &Entry, now_ms: u64) -> Option<Reason> {
    watch.doom(head.seq, head.expires_ms, now_ms)
}
