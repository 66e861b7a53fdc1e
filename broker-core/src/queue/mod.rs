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
mod ready;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::message::{Content, Message};
use crate::store::{Ranges, RunId, Seq};
use crate::window::Window;
use confirms::{AtOnce, Confirms};
use consumers::{Consumers, Next};
use ready::{Loaded, Ready, stored_entry};

/// A queue's ready messages stay in memory up to this many octets before its newest are paged out, unless [`Input::Pressure`] says less.
pub const RESIDENT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// A page-out hands about this many octets to the store at once.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// A load asks the store for about this many octets at once.
pub const LOAD_BYTES: usize = 512 * 1024;
/// Octets a consumer may be sent before the driver gives it room again.
pub const CONSUMER_ROOM_BYTES: i64 = 512 * 1024;

/// A channel of a client connection on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    /// The connection's number, never used twice by a node.
    pub connection: u64,
    /// The channel's number in it.
    pub channel: u16,
}

/// A consumer: its channel, and the number its connection knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// The channel it was started on.
    pub channel: ChannelKey,
    /// Its number, unique in the connection.
    pub consumer: u32,
}

/// What a channel's consumers may hold together (`basic.qos` with global set): shared by the channel and the queues its consumers are on.
#[derive(Debug)]
pub struct ChannelLimit {
    room: AtomicI64,
}

impl ChannelLimit {
    /// A limit with this much room.
    pub fn new(room: i64) -> Self {
        ChannelLimit { room: AtomicI64::new(room) }
    }

    /// Takes room for one delivery if there is any.
    pub fn try_take(&self) -> bool {
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| (room > 0).then(|| room - 1)).is_ok()
    }

    /// Adds room (or, negative, takes it away when the limit is lowered).
    pub fn add(&self, room: i64) {
        self.room.fetch_add(room, Ordering::Relaxed);
    }
}

/// One message on its way into the queue.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Who published it.
    pub channel: ChannelKey,
    /// Its publish number, 0 when the channel does not want confirms.
    pub publish_seq: u64,
    /// The message.
    pub content: Content<'a>,
}

/// What a new consumer asks for.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// Who it is.
    pub key: ConsumerKey,
    /// Deliveries need no acknowledgement.
    pub no_ack: bool,
    /// No other consumer beside it.
    pub exclusive: bool,
    /// Unacknowledged deliveries it may hold, 0 for no limit.
    pub prefetch: u16,
    /// Consumers with a higher one get everything while they have room.
    pub priority: i64,
    /// The limit it shares with the other consumers of its channel.
    pub limit: Option<Arc<ChannelLimit>>,
}

/// How a client settled deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: the messages are gone.
    Ack,
    /// Back to their places, marked as redelivered.
    Requeue,
    /// Back to their places as they were: they never reached the client.
    Undelivered,
    /// Rejected without requeue: the messages are gone (dead-lettered where the queue says so).
    Discard,
}

/// A message with its place, as the store hands it back.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Its place.
    pub seq: Seq,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// It survives a restart.
    pub persistent: bool,
    /// The message.
    pub message: Message,
}

/// What a queue finds of itself in the store at start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The place the next message takes.
    pub next_seq: Seq,
    /// Ready messages in all runs.
    pub messages: u64,
    /// Where they lie: stretches that do not overlap.
    pub stretches: Vec<Stretch>,
    /// Places of messages that may have been delivered before the node stopped.
    pub redelivered: Ranges,
}

/// A stretch of a run: what of it has places from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The run.
    pub run: RunId,
    /// First place.
    pub first: Seq,
    /// Last place.
    pub last: Seq,
}

/// What happens to a queue.
#[derive(Debug)]
pub enum Input {
    /// A client settled the deliveries `first..=last` (queue tags); those already settled or unknown are passed over.
    Settle {
        /// First queue tag.
        first: u64,
        /// Last queue tag.
        last: u64,
        /// What becomes of them.
        outcome: Outcome,
    },
    /// A consumer starts; the driver has asked [`Queue::may_consume`] before.
    Consume(ConsumerSettings),
    /// A consumer ends. What it holds stays unacked until its channel settles it.
    Cancel(ConsumerKey),
    /// The driver has sent what a consumer was given: it may get this many octets more, up to [`CONSUMER_ROOM_BYTES`] in all.
    Room {
        /// The consumer.
        key: ConsumerKey,
        /// Octets.
        bytes: i64,
    },
    /// From now on a consumer shares a limit with the others of its channel.
    Limit {
        /// The consumer.
        key: ConsumerKey,
        /// The limit.
        limit: Arc<ChannelLimit>,
    },
    /// A channel limit has room again.
    LimitRoom(ConsumerKey),
    /// A client asks for one message.
    Get {
        /// Its channel.
        channel: ChannelKey,
        /// It will not acknowledge.
        no_ack: bool,
    },
    /// All ready messages are to be forgotten; answered by [`Output::Purged`].
    Purge,
    /// The queue is deleted: publishers and gets that wait are answered. The driver drops the queue afterwards.
    Delete,
    /// Everything handed out by [`Queue::flush`] up to this place is stored.
    Stored(Seq),
    /// A page-out is written.
    Paged {
        /// The number of the [`Output::Page`].
        ticket: u64,
        /// Where it lies: stretches that do not overlap, in order.
        stretches: Vec<Stretch>,
    },
    /// What [`Output::Load`] asked for.
    Loaded {
        /// The run it came from.
        run: RunId,
        /// From where it was asked for.
        from: Seq,
        /// The messages, in order.
        entries: Vec<StoredEntry>,
        /// Where to go on, `None` at the end of the run.
        next: Option<Seq>,
        /// Ranges of messages that cannot be read any more: the disk has damaged them.
        lost: Vec<(Seq, Seq)>,
    },
    /// The journal wants to reuse a file: persistent messages up to this place that are in no run must be written to one. Answered by a page-out
    /// or by [`Output::NothingToPage`].
    PageThrough(Seq),
    /// Ready messages may take this many octets of memory from now on.
    Pressure(usize),
}

/// Where a queue puts what comes of an input. Deliveries come by the million: they are carried out as they come up, without being written down.
pub trait Outlet {
    /// Sends a message to a consumer.
    fn deliver(&mut self, delivery: Delivery<'_>);
    /// Everything else, to be carried out after the step.
    fn outputs(&mut self) -> &mut Vec<Output>;
}

/// A message for a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The consumer.
    pub key: ConsumerKey,
    /// Under this number it is settled; 0 when it need not be.
    pub queue_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The message.
    pub content: Content<'a>,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Answer a get.
    GetOk {
        /// The channel.
        channel: ChannelKey,
        /// Under this number it is settled; 0 when it need not be.
        queue_tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
        /// Ready messages left.
        remaining: u64,
        /// The message.
        message: Message,
    },
    /// Answer a get on an empty queue.
    GetEmpty(ChannelKey),
    /// The queue has taken responsibility for these publishes.
    Confirm {
        /// The publisher.
        channel: ChannelKey,
        /// First publish number.
        first: u64,
        /// Last publish number.
        last: u64,
    },
    /// So many messages were purged.
    Purged(u64),
    /// Something is to be stored: call [`Queue::flush`] when the journal can take it.
    NeedsFlush,
    /// Write these messages as a run, and answer [`Input::Paged`].
    Page {
        /// Names this page-out.
        ticket: u64,
        /// The messages, in order of their places.
        entries: Arc<[StoredEntry]>,
        /// It answers [`Input::PageThrough`] with this place: it must be on disk before it is answered.
        through: Option<Seq>,
    },
    /// Nothing had to be paged out for [`Input::PageThrough`] with this place.
    NothingToPage(Seq),
    /// Read from a run, and answer [`Input::Loaded`].
    Load {
        /// The run.
        run: RunId,
        /// From this place on.
        from: Seq,
        /// About so many octets.
        max_bytes: usize,
    },
    /// Messages that were paged out are settled: the store may forget them.
    Forget {
        /// First place.
        first: Seq,
        /// Last place.
        last: Seq,
    },
    /// The last consumer is gone.
    LastConsumerGone,
}

/// What a queue hands to the journal.
pub trait JournalSink {
    /// Store a message.
    fn enqueue(&mut self, seq: Seq, redelivered: bool, message: &Message);
    /// Messages that were stored are settled.
    fn settle(&mut self, first: Seq, last: Seq);
    /// Stored messages may have been delivered (written at a clean stop).
    fn delivered(&mut self, first: Seq, last: Seq);
    /// Whether further messages should wait for the next [`Queue::flush`].
    fn is_full(&self) -> bool {
        false
    }
}

/// A ready message in memory.
#[derive(Clone, Debug)]
struct Entry {
    seq: Seq,
    message: Message,
    place: Place,
    redelivered: bool,
    /// Must survive a restart: persistent, in a durable queue.
    stored: bool,
}

/// A message that was delivered and is not settled.
#[derive(Debug)]
struct Unacked {
    seq: Seq,
    /// `None` while only the store has it.
    message: Option<Message>,
    place: Place,
    consumer: u64,
    redelivered: bool,
    stored: bool,
}

/// Whether a message in memory is also in a run: in none, on its way to one with a page-out, or in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u64);

impl Place {
    const MEMORY: Place = Place(0);
    const ON_ITS_WAY: u64 = 1 << 63;

    fn on_its_way(ticket: u64) -> Place {
        Place(ticket | Place::ON_ITS_WAY)
    }

    fn in_run(run: RunId) -> Place {
        Place(run.0)
    }

    fn run(self) -> Option<RunId> {
        (self.0 & Place::ON_ITS_WAY == 0 && self != Place::MEMORY).then_some(RunId(self.0))
    }

    /// The store is to hear when the message is settled.
    fn is_paged(self) -> bool {
        self != Place::MEMORY
    }
}

impl Unacked {
    fn new(entry: Entry, consumer: u64) -> Unacked {
        let Entry { seq, message, place, redelivered, stored } = entry;
        Unacked { seq, message: Some(message), place, consumer, redelivered, stored }
    }

    fn memory(&self) -> usize {
        self.message.as_ref().map_or(0, Message::memory)
    }

    /// As it is handed to the store, while it is in memory.
    fn stored_entry(&self) -> Option<StoredEntry> {
        let message = self.message.clone()?;
        Some(StoredEntry { seq: self.seq, redelivered: self.redelivered, persistent: self.stored, message })
    }
}

/// A page-out of messages that are not in the ready list.
#[derive(Debug)]
struct PagingUnacked {
    ticket: u64,
    /// The queue tags it may concern begin here.
    first_tag: u64,
    bytes: usize,
}

/// A get that waits for its message to be read.
#[derive(Debug)]
struct Get {
    channel: ChannelKey,
    no_ack: bool,
}

/// Marks an unacked message taken by a get, which no consumer's prefetch counts.
const NO_CONSUMER: u64 = 0;

/// See the module's page.
#[derive(Debug)]
pub struct Queue {
    durable: bool,
    next_seq: Seq,
    ready: Ready,
    /// By queue tag, from 1.
    unacked: Window<Unacked>,
    /// Octets of unacked messages in memory, and how many of them are on their way to the store.
    unacked_bytes: usize,
    unacked_paging_bytes: usize,
    paging_unacked: Vec<PagingUnacked>,
    /// With more octets of them than this, unacked messages are paged out.
    unacked_max: usize,
    consumers: Consumers,
    gets: Vec<Get>,
    confirms: Confirms,
    /// Messages handed to [`Output::Page`] for the journal, by ticket, are answered there.
    next_ticket: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(durable: bool) -> Self {
        Queue::recovered(durable, Recovered::default())
    }

    /// A queue as the store found it.
    pub fn recovered(durable: bool, recovered: Recovered) -> Self {
        Queue {
            durable,
            next_seq: recovered.next_seq.max(1),
            ready: Ready::recovered(recovered),
            unacked: Window::new(1),
            unacked_bytes: 0,
            unacked_paging_bytes: 0,
            paging_unacked: Vec::new(),
            unacked_max: RESIDENT_MAX_BYTES,
            consumers: Consumers::default(),
            gets: Vec::new(),
            confirms: Confirms::default(),
            next_ticket: 1,
        }
    }

    /// Takes one input.
    pub fn step(&mut self, input: Input, out: &mut impl Outlet) {
        let had_pending = self.confirms.needs_flush();
        self.take(input, out);
        self.page_unacked_out(out);
        self.ask_for_flush(had_pending, out);
    }

    /// Takes messages that were routed here, in their order.
    pub fn publish<'a>(&mut self, publishes: impl Iterator<Item = Publish<'a>>, out: &mut impl Outlet) {
        let had_pending = self.confirms.needs_flush();
        let mut at_once = AtOnce::default();
        for publish in publishes {
            self.take_publish(publish, &mut at_once, out);
        }
        at_once.finish(out.outputs());
        self.page_out(out);
        if !self.ready.is_empty() {
            self.deliver(out);
        }
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
                if self.consumers.remove(key) && self.consumers.is_empty() {
                    out.outputs().push(Output::LastConsumerGone);
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
            Input::Get { channel, no_ack } => self.get(Get { channel, no_ack }, out),
            Input::Purge => self.purge(out),
            Input::Delete => self.delete(out),
            Input::Stored(seq) => self.confirms.stored(seq, out.outputs()),
            Input::Paged { ticket, stretches } => {
                self.paged(ticket, &stretches);
                self.deliver(out);
            }
            Input::Loaded { run, from, entries, next, lost } => {
                for (first, last) in self.ready.loaded(Loaded { run, from, entries, next, lost }) {
                    self.forget_range(first, last, out);
                }
                self.answer_gets(out);
                self.deliver(out);
            }
            Input::PageThrough(seq) => self.page_through(seq, out),
            Input::Pressure(bytes) => {
                self.ready.set_resident_max(bytes);
                self.unacked_max = self.ready.resident_max();
                self.page_out(out);
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
        self.ready.len()
    }

    /// Deliveries not settled yet.
    pub fn unacked_count(&self) -> u64 {
        self.unacked.len() as u64
    }

    /// Consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// The consumers, to cancel them when the queue is deleted.
    pub fn consumer_keys(&self) -> impl Iterator<Item = ConsumerKey> {
        self.consumers.keys()
    }

    /// Octets of messages in memory.
    pub fn resident_bytes(&self) -> usize {
        self.ready.resident_bytes() + self.unacked_bytes
    }

    #[inline]
    fn take_publish(&mut self, publish: Publish<'_>, at_once: &mut AtOnce, out: &mut impl Outlet) {
        let Publish { channel, publish_seq, content } = publish;
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut stored = self.durable && content.persistent();
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
                if stored {
                    self.confirms.store(seq, &message);
                }
                let entry = Entry { seq, message, place: Place::MEMORY, redelivered: false, stored };
                match next {
                    Some(Next { key, number, .. }) => {
                        self.unacked_bytes += content.memory();
                        let queue_tag = self.unacked.push(Unacked::new(entry, number));
                        out.deliver(Delivery { key, queue_tag, redelivered: false, content });
                    }
                    None => self.ready.push(entry),
                }
            }
        }
        if publish_seq == 0 {
            return;
        }
        if stored {
            self.confirms.wait(seq, channel, publish_seq);
        } else {
            at_once.confirm(channel, publish_seq, out.outputs());
        }
    }

    /// Delivers ready messages while consumers have room.
    fn deliver(&mut self, out: &mut impl Outlet) {
        while self.consumers.any_ready()
            && let Some(bytes) = self.ready.next_memory()
            && let Some(Next { key, number, no_ack }) = self.consumers.next(bytes as i64)
            && let Some(entry) = self.ready.pop()
        {
            let redelivered = entry.redelivered;
            if no_ack {
                settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
                out.deliver(Delivery { key, queue_tag: 0, redelivered, content: Content::Kept(&entry.message) });
            } else {
                self.unacked_bytes += bytes;
                let queue_tag = self.unacked.next_number();
                out.deliver(Delivery { key, queue_tag, redelivered, content: Content::Kept(&entry.message) });
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
        if self.ready.len() <= self.gets.len() as u64 {
            out.outputs().push(Output::GetEmpty(get.channel));
            return;
        }
        self.gets.push(get);
        self.answer_gets(out);
        if !self.gets.is_empty() {
            self.load(out);
        }
    }

    fn answer_gets(&mut self, out: &mut impl Outlet) {
        let mut answered = 0;
        while answered < self.gets.len() {
            if self.ready.is_empty() {
                out.outputs().push(Output::GetEmpty(self.gets[answered].channel));
            } else {
                let Some(entry) = self.ready.pop() else { break };
                let Get { channel, no_ack } = self.gets[answered];
                let (redelivered, remaining, message) = (entry.redelivered, self.ready.len(), entry.message.clone());
                let queue_tag = if no_ack {
                    settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
                    0
                } else {
                    self.unacked_bytes += message.memory();
                    self.unacked.push(Unacked::new(entry, NO_CONSUMER))
                };
                out.outputs().push(Output::GetOk { channel, queue_tag, redelivered, remaining, message });
            }
            answered += 1;
        }
        self.gets.drain(..answered);
    }

    fn settle(&mut self, first: u64, last: u64, outcome: Outcome, out: &mut impl Outlet) {
        let Queue { unacked, unacked_bytes, consumers, ready, confirms, .. } = self;
        let mut same_consumer = (NO_CONSUMER, 0);
        unacked.drain_range(first, last, |_, held| {
            *unacked_bytes -= held.memory();
            let Unacked { seq, message, place, consumer, redelivered, stored } = held;
            if same_consumer.0 != consumer {
                consumers.settled(same_consumer.0, same_consumer.1);
                same_consumer = (consumer, 0);
            }
            same_consumer.1 += 1;
            if matches!(outcome, Outcome::Ack | Outcome::Discard) {
                return settled(confirms, seq, stored, place, out);
            }
            let redelivered = redelivered || outcome == Outcome::Requeue;
            match (message, place.run()) {
                (Some(message), _) => ready.insert(Entry { seq, message, place, redelivered, stored }),
                (None, Some(run)) => ready.insert_on_disk(run, seq, redelivered),
                // A message only leaves memory once its run is known.
                (None, None) => {}
            }
        });
        consumers.settled(same_consumer.0, same_consumer.1);
        self.deliver(out);
    }

    fn purge(&mut self, out: &mut impl Outlet) {
        let purged = self.ready.len();
        let (resident, on_disk) = self.ready.take_all();
        for entry in &resident {
            settled(&mut self.confirms, entry.seq, entry.stored, entry.place, out);
        }
        // Ranges on disk may enclose messages that were delivered from memory before the range was written: those stay unacked.
        let mut held: Vec<Seq> = self.unacked.iter().map(|(_, unacked)| unacked.seq).collect();
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

    fn page_out(&mut self, out: &mut impl Outlet) {
        while let Some(entries) = self.ready.page_out(self.next_ticket, self.unacked.next_number()) {
            out.outputs().push(Output::Page { ticket: self.next_ticket, entries, through: None });
            self.next_ticket += 1;
        }
    }

    fn page_through(&mut self, seq: Seq, out: &mut impl Outlet) {
        let place = Place::on_its_way(self.next_ticket);
        let mut entries = Vec::new();
        self.ready.each_resident_mut(|entry| {
            if entry.stored && !entry.place.is_paged() && entry.seq <= seq {
                entry.place = place;
                entries.push(stored_entry(entry.clone()));
            }
        });
        for (_, held) in self.unacked.iter_mut() {
            if held.stored && !held.place.is_paged() && held.seq <= seq {
                held.place = place;
                entries.extend(held.stored_entry());
            }
        }
        if entries.is_empty() {
            out.outputs().push(Output::NothingToPage(seq));
            return;
        }
        self.page(entries, PagingUnacked { ticket: self.next_ticket, first_tag: 0, bytes: 0 }, Some(seq), out);
    }

    fn page(
        &mut self,
        mut entries: Vec<StoredEntry>,
        paging: PagingUnacked,
        through: Option<Seq>,
        out: &mut impl Outlet,
    ) {
        entries.sort_unstable_by_key(|entry| entry.seq);
        out.outputs().push(Output::Page { ticket: paging.ticket, entries: entries.into(), through });
        self.unacked_paging_bytes += paging.bytes;
        self.paging_unacked.push(paging);
        self.next_ticket += 1;
    }

    /// A consumer holds more than is to be in memory: the newest messages it holds leave it. (The oldest are the likeliest to be settled soon.)
    fn page_unacked_out(&mut self, out: &mut impl Outlet) {
        let settling = self.unacked_bytes.saturating_sub(self.unacked_paging_bytes);
        let resident_max = self.ready.resident_max();
        if settling <= self.unacked_max {
            if settling <= resident_max / 2 {
                self.unacked_max = resident_max;
            }
            return;
        }
        let step = PAGE_BYTES.min(resident_max / 4).max(1);
        let too_many = settling - resident_max.saturating_sub(step);
        let (mut dropped, mut bytes, mut first_tag) = (0, 0, 0);
        let mut entries = Vec::new();
        for (tag, held) in self.unacked.iter_mut().rev() {
            if dropped + bytes >= too_many {
                break;
            }
            let Some(message) = &held.message else { continue };
            if held.place.run().is_some() {
                dropped += message.memory();
                held.message = None;
            } else if !held.place.is_paged() {
                bytes += message.memory();
                held.place = Place::on_its_way(self.next_ticket);
                first_tag = tag;
                entries.extend(held.stored_entry());
            }
        }
        self.unacked_bytes -= dropped;
        // What could not leave now is not looked at again before there is a good deal more.
        self.unacked_max = resident_max.max(settling - dropped - bytes) + step;
        if !entries.is_empty() {
            self.page(entries, PagingUnacked { ticket: self.next_ticket, first_tag, bytes }, None, out);
        }
    }

    /// A page-out is written: what it holds can leave memory, or knows at least where it lies.
    fn paged(&mut self, ticket: u64, stretches: &[Stretch]) {
        let unacked = self.paging_unacked.iter().position(|paging| paging.ticket == ticket);
        let paging = unacked.map(|at| self.paging_unacked.swap_remove(at));
        let leaves = paging.as_ref().is_some_and(|paging| paging.bytes > 0);
        self.unacked_paging_bytes -= paging.as_ref().map_or(0, |paging| paging.bytes);
        let first_tag = match paging {
            Some(paging) => Some(paging.first_tag),
            None => self.ready.paged(ticket, stretches),
        };
        let Some(first_tag) = first_tag else { return };
        let way = Place::on_its_way(ticket);
        let locate = |seq: Seq| {
            let stretch = stretches.iter().find(|stretch| stretch.first <= seq && seq <= stretch.last);
            stretch.map_or(way, |stretch| Place::in_run(stretch.run))
        };
        self.ready.each_resident_mut(|entry| {
            if entry.place == way {
                entry.place = locate(entry.seq);
            }
        });
        for (_, held) in self.unacked.iter_mut().rev().take_while(|(tag, _)| *tag >= first_tag) {
            if held.place != way {
                continue;
            }
            held.place = locate(held.seq);
            if leaves && held.place.run().is_some() {
                self.unacked_bytes -= held.memory();
                held.message = None;
            }
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
