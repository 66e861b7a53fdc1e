//! A connection: octets in, outputs out, from the protocol header to the last `close-ok`.
//!
//! ```text
//! Header ─ Start ─ Login ─ Tune ─ Open ─ Opening ─ Running ─ Closing ─ Closed
//!            │       │      │                          (either side closes)
//!            └───────┴──────┴─ Refusing: says nothing more, closed after a while
//! ```
//!
//! Octets are taken in batches, one per socket read. Within a batch nothing may overtake a publish that the driver has not looked at yet: a frame
//! that would be answered on a channel that published in the same batch is held, with all that follows, until the driver calls
//! [`Connection::resume`]. So exceptions come out as if every frame had been carried out before the next was read. Frames of a channel that waits
//! for the answer to a request are held likewise, and what ends the connection waits for all of them.

mod answer;
mod close;
mod frames;
mod handshake;
mod methods;

use std::sync::Arc;
use std::time::Instant;

use broker_core::message::{Content, Message};

use crate::allowance::ChannelAllowance;
use crate::channel::ack::Settling;
use crate::channel::{Channel, Channels};
use crate::codec::{self, Publish};
use crate::content::{self, Facts};
use crate::exception::Exception;
use crate::frame::{self, Head};
use crate::heartbeat::{Beat, Heartbeat};
use crate::incoming::Incoming;
use crate::input::Delivery;
use crate::names::Names;
use crate::output::{CloseReason, Output};
use crate::reply_to::Address;
use crate::send_buffer::SendBuffer;
use crate::settings::Settings;
use crate::table;
use close::Closing;

/// Octets that are held before the driver is asked to stop reading the socket. What one more read brings comes on top.
pub const HELD_MAX_BYTES: usize = 256 * 1024;
/// Octets a client may send before its login is accepted, besides one frame of the size allowed then (`Settings::initial_frame_max`). A buffer grows
/// by doubling: with frames of 4096 octets, a connection that has not logged in takes less than [`STRANGER_MAX_BYTES`].
pub const HANDSHAKE_MAX_BYTES: usize = 16 * 1024;
/// What [`Connection::memory`] stays below until the login is accepted, with the default `Settings::initial_frame_max`; each octet of a larger one
/// adds three at most: twice in the buffer, once in the client's properties.
pub const STRANGER_MAX_BYTES: usize = 64 * 1024;
/// Octets waiting to be written above which the driver is asked to read no more: a client that asks without end but does not listen.
pub const SEND_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Octets waiting to be written above which direct replies are not delivered: nobody holds back who sends them, as a queue would.
pub const REPLIES_MAX_BYTES: usize = 64 * 1024 * 1024;
/// An incomplete body frame that misses at least this much goes into its message as it arrives.
const STREAM_MIN_BYTES: usize = 4 * 1024;
/// Room for building messages that is kept from one batch to the next.
const SCRATCH_KEPT_BYTES: usize = 512;

/// A channel as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Publishes are confirmed.
    pub confirm: bool,
    /// Publishes and acknowledgements are committed together.
    pub transactional: bool,
    /// Its consumers.
    pub consumers: usize,
    /// Deliveries not settled.
    pub unacknowledged: usize,
    /// Publishes that wait for their confirm.
    pub unconfirmed: usize,
    /// Unacknowledged deliveries of a consumer started now; 0 = any.
    pub prefetch: u16,
    /// Unacknowledged deliveries over all consumers; 0 = any.
    pub limit: u16,
}

/// The server side of one AMQP connection. See the module's page.
#[derive(Debug)]
pub struct Connection {
    settings: Arc<Settings>,
    phase: Phase,
    hold: Hold,
    frame_max: u32,
    channel_max: u16,
    /// Counts batches, to tell a publish of this batch from an earlier one.
    batch: u32,
    /// The last batch in which any channel published.
    published_in: u32,
    /// Octets received before the login was accepted.
    handshake_bytes: usize,
    now: Instant,
    /// End of the handshake's time, or of the time allowed for `close-ok`.
    deadline: Option<Instant>,
    heartbeat: Heartbeat,
    channels: Channels,
    /// The start of a frame that has not arrived in full, or octets that are held; those before `pending_at` are used up.
    pending: Vec<u8>,
    pending_at: usize,
    /// A body frame that goes into its message as it arrives.
    stream: Option<Stream>,
    settling: Settling,
    send: SendBuffer,
    scratch: Vec<u8>,
    /// Channels that wait for the answer to a request.
    waiting: usize,
    /// Channels with confirms to flush.
    to_flush: Vec<u16>,
    /// Channels that ended while a request was outstanding: its answer is passed over, and until it has come the number is not given to another
    /// channel, whose request it would seem to answer.
    orphans: Vec<u16>,
    /// Channels that ended with publishes nobody had answered yet.
    unanswered: u64,
    alarm: Option<&'static str>,
    /// Publishes wait for now: see [`Connection::hold_publishes`].
    publishes_wait: bool,
    /// Something was delivered since [`Connection::check_deliveries`] last found nothing outstanding.
    delivered: bool,
    /// `connection.blocked` was sent.
    blocked_sent: bool,
    /// A channel that was found holding more deliveries than it may.
    hoards: Option<u16>,
    names: Names,
    client: Option<Box<Client>>,
    closing: Option<Box<Closing>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The protocol header is due.
    Header,
    /// `start-ok` is due.
    Start,
    /// The driver checks the login.
    Login,
    /// `tune-ok` is due.
    Tune,
    /// `open` is due.
    Open,
    /// The driver checks the vhost.
    Opening,
    /// Open for work.
    Running,
    /// The client broke the handshake: it hears nothing more and is dropped after a while.
    Refusing,
    /// One side closes.
    Closing,
    /// `Output::Close` was given.
    Closed,
}

/// Why octets are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// They are not.
    No,
    /// Until the driver has carried out what it was given.
    Resume,
    /// Until the request of this channel, or of the last one with its number, is answered.
    Channel(u16),
    /// Until all channels' requests are answered.
    Answers,
    /// Until login, vhost or close are answered.
    Driver,
    /// Until the alarm is over.
    Alarm,
    /// Until publishes are taken again: see [`Connection::hold_publishes`].
    Publishes,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// It was taken.
    Next,
    /// It was not, and must come again.
    Hold,
}

/// The rest of a body frame that goes into its message as it arrives.
#[derive(Clone, Copy, Debug)]
struct Stream {
    channel: u16,
    /// Octets of payload still to come; the frame's end follows.
    left: usize,
}

/// What a client said of itself.
#[derive(Debug, Default)]
pub(crate) struct Client {
    mechanism: Box<str>,
    user: Option<Arc<str>>,
    impersonator: bool,
    allowance: Option<Arc<ChannelAllowance>>,
    vhost: Option<Box<str>>,
    /// A field table's content.
    properties: Box<[u8]>,
}

impl Client {
    /// Whether the client announced this capability.
    fn can(&self, capability: &[u8]) -> bool {
        let capabilities =
            table::lookup(&self.properties, b"capabilities").and_then(|value| table::content_of(value, b'F'));
        capabilities.is_some_and(|table| table::is_true(table, capability))
    }
}

impl Connection {
    /// A connection whose socket was just accepted. `seed` must be hard to guess and different for every connection: names of queues and
    /// consumers are made from it.
    pub fn new(now: Instant, settings: Arc<Settings>, seed: u128) -> Connection {
        let deadline = settings.handshake_timeout.map(|time| now + time);
        let frame_max = settings.initial_frame_max.max(frame::MIN_MAX_BYTES);
        Connection {
            settings,
            phase: Phase::Header,
            hold: Hold::No,
            frame_max,
            channel_max: 0,
            batch: 0,
            published_in: 0,
            handshake_bytes: 0,
            now,
            deadline,
            heartbeat: Heartbeat::default(),
            channels: Channels::default(),
            pending: Vec::new(),
            pending_at: 0,
            stream: None,
            settling: Settling::default(),
            send: SendBuffer::default(),
            scratch: Vec::new(),
            waiting: 0,
            to_flush: Vec::new(),
            orphans: Vec::new(),
            unanswered: 0,
            alarm: None,
            publishes_wait: false,
            delivered: false,
            blocked_sent: false,
            hoards: None,
            names: Names::new(seed),
            client: None,
            closing: None,
        }
    }

    /// Takes all octets of one socket read. Octets that must wait are kept: see [`Connection::paused`].
    pub fn receive(&mut self, now: Instant, octets: &[u8], out: &mut Vec<Output>) {
        self.begin(now);
        self.heartbeat.heard();
        if self.phase == Phase::Closed {
            return;
        }
        if matches!(self.phase, Phase::Header | Phase::Start | Phase::Login) {
            self.handshake_bytes += octets.len();
            if self.handshake_bytes > HANDSHAKE_MAX_BYTES + self.frame_max as usize {
                return self.drop_socket(CloseReason::HandshakeTooLong, out);
            }
        }
        self.take(octets, out);
        self.end(out);
    }

    /// Takes octets that were held. To be called while [`Connection::wants_resume`], each time after all outputs were carried out.
    pub fn resume(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.begin(now);
        if self.hold == Hold::Resume {
            self.hold = Hold::No;
            self.take_held(out);
        }
        self.end(out);
    }

    /// Whether [`Connection::resume`] would get on.
    pub fn wants_resume(&self) -> bool {
        self.hold == Hold::Resume
    }

    /// Whether publishes wait for now. Everything before the first of them is taken, acknowledgements among it; the publish waits where it is with all
    /// that comes after it, as during an alarm: an acknowledgement must not overtake it. A client that has published what it made of a message, and
    /// then acknowledges that, would lose both if the node ended in between.
    ///
    /// When they no longer wait, the connection [wants to resume](Connection::wants_resume) if it held one.
    pub fn hold_publishes(&mut self, wait: bool) {
        self.publishes_wait = wait;
        if !wait && self.hold == Hold::Publishes {
            self.hold = Hold::Resume;
        }
    }

    /// Whether a publish was met that waits: see [`Connection::hold_publishes`].
    pub fn holds_a_publish(&self) -> bool {
        self.hold == Hold::Publishes
    }

    /// Whether the driver should leave further octets in the socket: a publish waits, too much is held, or too much waits to be written.
    pub fn paused(&self) -> bool {
        matches!(self.hold, Hold::Alarm | Hold::Publishes)
            || self.pending.len() - self.pending_at > HELD_MAX_BYTES
            || self.send.len() > SEND_MAX_BYTES
    }

    /// When [`Connection::timeout`] is next to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        match (self.deadline, self.heartbeat.next_check()) {
            (Some(deadline), Some(check)) => Some(deadline.min(check)),
            (deadline, check) => deadline.or(check),
        }
    }

    /// The driver leaves the peer's octets in the socket for now: that nothing is heard says nothing of the peer.
    pub fn not_read(&mut self) {
        self.heartbeat.heard();
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.begin(now);
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return self.deadline_passed(out);
        }
        match self.heartbeat.check(now, self.send.appended(), !self.paused()) {
            Beat::Fine => {}
            Beat::Due => self.send.append(|out| frame::write(out, frame::HEARTBEAT, 0, |_| {})),
            Beat::PeerGone => self.drop_socket(CloseReason::HeartbeatMissed, out),
        }
        self.end(out);
    }

    /// What is to be written to the socket.
    pub fn send_buffer(&mut self) -> &mut SendBuffer {
        &mut self.send
    }

    /// Writes a delivery to a consumer. False if channel or consumer are gone: the delivery is then not the connection's to settle.
    #[inline]
    pub fn deliver(&mut self, channel: u16, delivery: Delivery<'_>) -> bool {
        self.delivered = true;
        let Some(channel) = self.channels.find_mut(channel) else { return false };
        let delivered = channel.is_open() && channel.deliver(&delivery, &mut self.send, self.frame_max);
        if channel.unacked.kib() > self.settings.unacked_max_kib {
            self.hoards = Some(channel.number);
        }
        delivered
    }

    /// Whether a channel holds more deliveries than it may: then [`Connection::close_hoarder`] is to be called.
    #[inline]
    pub fn hoards(&self) -> bool {
        self.hoards.is_some()
    }

    /// Closes the channel that holds more deliveries than it may.
    pub fn close_hoarder(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.begin(now);
        let max = self.settings.unacked_max_kib;
        if let Some(number) = self.hoards.take()
            && let Some(channel) = self.channels.find(number).filter(|channel| channel.is_open())
            && channel.unacked.kib() > max
        {
            self.raise(number, Exception::too_much_unacked(number, max), out);
        }
        self.end(out);
    }

    /// Whether something was delivered that [`Connection::check_deliveries`] is to watch.
    pub fn has_delivered(&self) -> bool {
        self.delivered
    }

    /// Closes the channels on which a delivery waits to be settled for too long. To be called now and then while deliveries may be outstanding, and
    /// soon after the first was made: a delivery's time counts from the first call after it. Returns whether any is outstanding.
    pub fn check_deliveries(&mut self, now: Instant, out: &mut Vec<Output>) -> bool {
        self.begin(now);
        let timeout = self.settings.consumer_timeout;
        self.delivered = false;
        let mut overdue = Vec::new();
        for channel in self.channels.iter_mut().filter(|channel| channel.is_open()) {
            match channel.is_overdue(now, timeout) {
                Some(true) => overdue.push(channel.number),
                Some(false) => self.delivered = true,
                None => {}
            }
        }
        for number in overdue {
            self.raise(number, Exception::consumer_timed_out(number, timeout), out);
        }
        self.end(out);
        self.delivered
    }

    /// Whether direct replies with this address reach someone.
    pub fn takes_replies(&self, address: &Address) -> bool {
        let channel = self.channels.find(address.channel).filter(|channel| channel.is_open());
        channel.and_then(|channel| channel.replies.as_ref()).is_some_and(|replies| replies.address == *address)
    }

    /// Writes a direct reply. False if the channel that asked is gone, asks no longer, or leaves too much unread.
    pub fn deliver_reply(&mut self, address: &Address, content: Content<'_>) -> bool {
        if self.send.len() > REPLIES_MAX_BYTES {
            return false;
        }
        let Some(channel) = self.channels.find(address.channel).filter(|channel| channel.is_open()) else {
            return false;
        };
        channel.deliver_reply(address, content, &mut self.send, self.frame_max)
    }

    /// A publish is safe, or went nowhere as it may.
    #[inline]
    pub fn confirm(&mut self, channel: u16, publish_seq: u64) {
        self.confirm_range(channel, publish_seq, publish_seq);
    }

    /// The publishes of a run of numbers are safe.
    #[inline]
    pub fn confirm_range(&mut self, channel: u16, first: u64, last: u64) {
        let Some(channel) = self.channels.find_mut(channel) else { return };
        if let Some(confirms) = &mut channel.confirms {
            confirms.confirm(first, last);
            if !std::mem::replace(&mut channel.to_flush, true) {
                self.to_flush.push(channel.number);
            }
        }
    }

    /// A publish was refused by a queue.
    pub fn nack(&mut self, channel: u16, publish_seq: u64) {
        let Some(channel) = self.channels.find_mut(channel) else { return };
        if let Some(confirms) = &mut channel.confirms {
            confirms.refuse(publish_seq);
            if !std::mem::replace(&mut channel.to_flush, true) {
                self.to_flush.push(channel.number);
            }
        }
    }

    /// Tells the client all confirms gathered since the last call. To be called at the end of the driver's turn.
    pub fn flush_confirms(&mut self) {
        for number in self.to_flush.drain(..) {
            let Some(channel) = self.channels.find_mut(number) else { continue };
            channel.to_flush = false;
            if let Some(confirms) =
                channel.confirms.as_deref_mut().filter(|_| channel.status == crate::channel::Status::Open)
            {
                confirms.flush(number, &mut self.send);
            }
        }
    }

    /// Returns a mandatory message that went to no queue. To be called before its confirm.
    pub fn returned(&mut self, channel: u16, message: &Message) {
        if self.channel_is_open(channel) {
            codec::write_return(&mut self.send, channel, message, self.frame_max);
        }
    }

    /// A publish is refused: closes its channel, or the connection if the exception says so.
    pub fn fail(&mut self, channel: u16, exception: Exception, out: &mut Vec<Output>) {
        if self.channel_is_open(channel) {
            let exception = match (exception.class, exception.method) {
                (0, 0) => exception.during(crate::channel::publish::BASIC, crate::channel::publish::PUBLISH),
                _ => exception,
            };
            self.raise(channel, exception, out);
        }
    }

    /// Whether a channel takes what the driver has for it.
    pub fn channel_is_open(&self, channel: u16) -> bool {
        self.channels.find(channel).is_some_and(|channel| channel.is_open())
    }

    /// The user, once logged in.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.client.as_ref()?.user.as_ref()
    }

    /// How many channels the user may have, over all its connections. To be said before `OpenOk`.
    pub fn set_channel_allowance(&mut self, allowance: Arc<ChannelAllowance>) {
        if let Some(client) = &mut self.client {
            client.allowance = Some(allowance);
        }
    }

    /// Whether the user may publish with another user's name from now on.
    pub fn set_impersonator(&mut self, impersonator: bool) {
        if let Some(client) = &mut self.client {
            client.impersonator = impersonator;
        }
    }

    /// The vhost, once `connection.open` was accepted.
    pub fn vhost(&self) -> Option<&str> {
        self.client.as_ref()?.vhost.as_deref()
    }

    /// The SASL mechanism the client chose; empty before it did.
    pub fn mechanism(&self) -> &str {
        self.client.as_ref().map_or("", |client| &client.mechanism)
    }

    /// The client's properties: a field table's content, well formed.
    pub fn client_properties_raw(&self) -> &[u8] {
        self.client.as_ref().map_or(&[], |client| &client.properties)
    }

    /// The name the client gave its connection.
    pub fn connection_name(&self) -> Option<&str> {
        let value = table::lookup(self.client_properties_raw(), b"connection_name")?;
        std::str::from_utf8(table::content_of(value, b'S')?).ok()
    }

    /// The agreed largest frame in octets; 0 = no limit.
    pub fn frame_max(&self) -> u32 {
        if self.frame_max == frame::UNLIMITED_MAX_BYTES { 0 } else { self.frame_max }
    }

    /// The agreed number of channels; 0 = no limit.
    pub fn channel_max(&self) -> u16 {
        self.channel_max
    }

    /// The agreed heartbeat in seconds; 0 = none.
    pub fn heartbeat(&self) -> u16 {
        self.heartbeat.interval_s()
    }

    /// The channels that exist, the closing ones included.
    pub fn channels(&self) -> impl Iterator<Item = u16> {
        self.channels.numbers()
    }

    /// Deliveries a channel has not settled.
    pub fn unacknowledged(&self, channel: u16) -> usize {
        self.channels.find(channel).map_or(0, |channel| channel.unacked.len())
    }

    /// Publishes of a channel that wait for their confirm.
    pub fn unconfirmed(&self, channel: u16) -> usize {
        self.channels.find(channel).and_then(|channel| channel.confirms.as_ref()).map_or(0, |confirms| confirms.open())
    }

    /// A channel as an operator sees it.
    pub fn channel_view(&self, channel: u16) -> Option<ChannelView> {
        let state = self.channels.find(channel)?;
        Some(ChannelView {
            confirm: state.confirms.is_some(),
            transactional: state.tx.is_some(),
            consumers: state.consumers.len(),
            unacknowledged: self.unacknowledged(channel),
            unconfirmed: self.unconfirmed(channel),
            prefetch: state.prefetch,
            limit: state.limit,
        })
    }

    /// The tag of a channel's consumer.
    pub fn consumer_tag(&self, channel: u16, consumer: u32) -> Option<&str> {
        let consumers = &self.channels.find(channel)?.consumers;
        Some(consumers.iter().find(|other| other.handle == consumer)?.tag())
    }

    /// Octets that are held, or are the start of a frame.
    pub fn held_bytes(&self) -> usize {
        self.pending.len() - self.pending_at
    }

    /// What the connection holds in memory, about, with what waits to be written.
    pub fn memory(&self) -> usize {
        let client = self.client.as_ref().map_or(0, |client| size_of::<Client>() + client.properties.len());
        size_of::<Connection>()
            + client
            + self.pending.capacity()
            + self.scratch.capacity()
            + self.send.memory()
            + self.channels.memory()
    }

    fn begin(&mut self, now: Instant) {
        self.now = now;
        self.batch = self.batch.wrapping_add(1).max(1);
    }

    fn end(&mut self, out: &mut Vec<Output>) {
        self.settling.flush(out);
        self.settling.shrink();
        if self.scratch.capacity() > SCRATCH_KEPT_BYTES {
            self.scratch = Vec::new();
        }
    }

    /// Takes octets after those that are pending.
    fn take(&mut self, received: &[u8], out: &mut Vec<Output>) {
        let mut octets = received;
        if self.hold != Hold::No {
            if self.pending_at > self.pending.len() / 2 {
                self.pending.drain(..std::mem::take(&mut self.pending_at));
            }
            return self.pending.extend_from_slice(octets);
        }
        if !self.pending.is_empty() {
            octets = self.complete_pending(octets, out);
        }
        let used = self.run(octets, Some(received.len() - octets.len()), out);
        self.pending.extend_from_slice(octets.get(used..).unwrap_or_default());
    }

    /// Adds to the frame that has begun what it misses and takes it; answers the octets after it, if it was taken.
    fn complete_pending<'a>(&mut self, octets: &'a [u8], out: &mut Vec<Output>) -> &'a [u8] {
        let mut rest = octets;
        loop {
            let wanted = match (self.phase, Head::parse(&self.pending)) {
                (Phase::Header, _) => handshake::PROTOCOL_HEADER.len(),
                (_, Some(head)) if head.size <= self.payload_max() => head.frame_len(),
                // What is too large is judged by its head alone.
                (_, Some(_)) => frame::HEAD_BYTES,
                (_, None) => frame::HEAD_BYTES,
            };
            let (now, later) = rest.split_at(wanted.saturating_sub(self.pending.len()).min(rest.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() < wanted {
                return &[];
            }
            let begun = std::mem::take(&mut self.pending);
            if self.run(&begun, None, out) == begun.len() {
                return rest;
            }
            // Either only the head is complete, and the next round asks for the rest; or the frame is held.
            self.pending = begun;
            if self.hold != Hold::No {
                self.pending.extend_from_slice(rest);
                return &[];
            }
        }
    }

    /// Takes held octets, as many as can be taken now.
    fn take_held(&mut self, out: &mut Vec<Output>) {
        let held = std::mem::take(&mut self.pending);
        let at = std::mem::take(&mut self.pending_at);
        let used = at + self.run(held.get(at..).unwrap_or_default(), None, out);
        if used < held.len() {
            self.pending = held;
            self.pending_at = used;
            if self.hold == Hold::No {
                // The start of a frame: the rest of it must come right behind it.
                self.pending.drain(..used);
                self.pending_at = 0;
            }
        }
    }

    /// Takes whole frames, and the part of a large body that is here. Answers how many octets were used. `place` is where in the octets that the
    /// driver handed in these begin; without it, they are gone when the driver sees the outputs.
    fn run(&mut self, octets: &[u8], place: Option<usize>, out: &mut Vec<Output>) -> usize {
        let mut at = 0;
        loop {
            let rest = octets.get(at..).unwrap_or_default();
            if rest.is_empty() || self.hold != Hold::No {
                return at;
            }
            if self.phase == Phase::Closed {
                return octets.len();
            }
            if self.stream.is_some() {
                at += self.feed_stream(rest, out);
                continue;
            }
            if self.phase == Phase::Running
                && self.alarm.is_none()
                && !self.publishes_wait
                && let Some(publish) = codec::parse_publish(rest, self.payload_max())
                && self.take_publish(&publish, place.map(|place| place + at), out)
            {
                at += publish.len;
                continue;
            }
            let acknowledged = self.take_single_acks(rest);
            if acknowledged > 0 {
                at += acknowledged;
                continue;
            }
            match self.take_frame(rest, out) {
                Some(used) => at += used,
                None => return at,
            }
        }
    }

    /// Takes a publish that came in one piece. False if its channel is not in the state for it.
    #[inline]
    fn take_publish(&mut self, publish: &Publish<'_>, place: Option<usize>, out: &mut Vec<Output>) -> bool {
        let Some(channel) = self.channels.find_mut(publish.channel) else { return false };
        if !channel.is_ready() || publish.body.len() as u64 > self.settings.max_message_size {
            return false;
        }
        let Publish { route, header, body, facts, mandatory, .. } = *publish;
        let plain = !facts.has_rules && channel.tx.is_none();
        if let Some(content) = place.filter(|_| plain).and_then(|at| Incoming::read(at, publish)) {
            self.hand_on(publish.channel, mandatory, content, out);
            return true;
        }
        let Some(message) = Message::new(route, header, body, facts.persistent, &mut self.scratch) else {
            return false;
        };
        self.published(publish.channel, mandatory, message, facts, out);
        true
    }

    /// A publish is complete and kept.
    fn published(&mut self, number: u16, mandatory: bool, mut message: Message, facts: Facts, out: &mut Vec<Output>) {
        let Some(channel) = self.channels.find_mut(number) else { return };
        let mut refusal = None;
        if facts.wants_reply {
            match channel.addressed(&message) {
                Ok(addressed) => message = addressed,
                Err(exception) => refusal = Some(exception),
            }
        }
        if facts.has_rules && refusal.is_none() {
            refusal = rules_refuse(self.client.as_deref(), &message);
        }
        let in_tx = match &mut channel.tx {
            Some(tx) if refusal.is_none() => {
                refusal = tx.publish(mandatory, message.clone()).err();
                true
            }
            _ => false,
        };
        if refusal.is_none() && !in_tx {
            self.hand_on(number, mandatory, message.into(), out);
        } else {
            self.note_publish(number, out);
            out.push(match refusal {
                Some(exception) => Output::PublishInvalid { channel: number, message, exception: Box::new(exception) },
                None => Output::TxPublish { channel: number, message },
            });
        }
    }

    /// Nothing is wrong with a publish: the driver is to route it.
    #[inline]
    fn hand_on(&mut self, number: u16, mandatory: bool, content: Incoming, out: &mut Vec<Output>) {
        let Some(channel) = self.note_publish(number, out) else { return };
        let publish_seq = channel.confirms.as_mut().map_or(0, |confirms| confirms.publish());
        out.push(Output::Publish { channel: number, mandatory, publish_seq, content });
    }

    /// What was settled before a publish is said before it; what comes after it must not overtake it.
    #[inline]
    fn note_publish(&mut self, number: u16, out: &mut Vec<Output>) -> Option<&mut Channel> {
        if !self.settling.is_empty() {
            self.settling.flush(out);
        }
        self.published_in = self.batch;
        let channel = self.channels.find_mut(number)?;
        channel.published_in = self.batch;
        Some(channel)
    }
}

fn rules_refuse(client: Option<&Client>, message: &Message) -> Option<Exception> {
    let client = client?;
    content::refusal(message.properties(), client.user.as_deref().unwrap_or_default(), client.impersonator)
}
