//! The load loop: many producers and consumers on one thread, because generator and brokers share few cores and each
//! switch between threads would be charged to both.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::checker::{FaultKind, Faults, Ledger};
use crate::confirms::Confirms;
use crate::delivery::DeliveryReader;
use crate::payload::{Pattern, PublishRing, Shape};
use crate::session::Session;
use crate::tls::{Stream, Target};
use crate::wire;

/// Octets read at once.
const READ_LENGTH: usize = 256 * 1024;
/// Octets of all messages that are published and not yet delivered, when there are consumers: enough to keep socket
/// buffers full, and the same for each broker, so that none is measured with a backlog and another without.
const IN_FLIGHT: u64 = 4 * 1024 * 1024;
/// The same, added for each producer.
const IN_FLIGHT_A_PRODUCER: u64 = 128 * 1024;
/// How long a run may stand still, unless a test has less patience.
pub const STALL: Duration = Duration::from_secs(30);
/// Octets of the rings of all producers, divided among them.
const RINGS: usize = 1024 * 1024;
/// The fewest and the most octets of the ring of one producer; a write is at most one ring long.
const RING: std::ops::RangeInclusive<usize> = 64 * 1024..=256 * 1024;

/// When consumers acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// The broker takes a delivery for an acknowledgement.
    Automatic,
    /// Each delivery by a frame of its own.
    Each,
    /// One frame for that many deliveries.
    Every(u64),
}

/// A queue of the run, and how its messages come to it.
#[derive(Clone, Debug)]
pub struct QueuePlan {
    /// Its name.
    pub name: String,
    /// The exchange that its deliveries show.
    pub exchange: String,
    /// The routing key that its deliveries show.
    pub routing_key: String,
    /// For each producer, whether its messages come to this queue.
    pub producers: Vec<bool>,
    /// How many consumers read it.
    pub consumers: usize,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Producers publish for this long; then all is delivered and confirmed.
    Time(Duration),
    /// Each producer publishes this many messages.
    Messages(u64),
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// Where each producer publishes: exchange and routing key.
    pub producers: Vec<(String, String)>,
    /// The queues, which must exist.
    pub queues: Vec<QueuePlan>,
    /// What the messages look like.
    pub shape: Shape,
    /// With confirms, how many publishes of a producer may be unconfirmed.
    pub confirm_window: Option<u64>,
    /// When consumers acknowledge.
    pub acks: Acks,
    /// The prefetch of each consumer, 0 for none.
    pub prefetch: u16,
    /// When it ends.
    pub extent: Extent,
    /// How many messages each producer published in an earlier run, that are now only to be consumed.
    pub published_before: Option<Vec<u64>>,
    /// A run in which nothing moves for this long is given up.
    pub stall: Duration,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct FlowOutcome {
    /// Messages of each producer.
    pub sent: Vec<u64>,
    /// Messages that consumers got.
    pub delivered: u64,
    /// From the first publish to the last delivery and confirm.
    pub elapsed: Duration,
    /// How long each confirm took, in microseconds, sorted.
    pub latencies_us: Vec<u32>,
    /// What was wrong.
    pub faults: Faults,
}

/// A run whose connections are open.
#[derive(Debug)]
pub struct Flow {
    plan: FlowPlan,
    poll: Poll,
    pattern: Pattern,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    ledgers: Vec<Ledger>,
    faults: Faults,
    buffer: Vec<u8>,
    /// Deliveries that a publish of each producer leads to.
    copies: Vec<u64>,
    in_flight_limit: u64,
    paused: bool,
    stopping: bool,
}

#[derive(Debug)]
struct Producer {
    link: Link,
    ring: PublishRing,
    confirms: Option<Confirms>,
    /// The messages below are published in this run.
    limit: u64,
}

#[derive(Debug)]
struct Consumer {
    link: Link,
    reader: DeliveryReader,
    queue: usize,
    /// Acknowledgements that are not written yet.
    out: Vec<u8>,
    /// The last delivery that an acknowledgement was made for.
    acked: u64,
}

/// A socket and what epoll said last about it.
#[derive(Debug)]
struct Link {
    stream: Stream<TcpStream>,
    readable: bool,
    writable: bool,
    leftover: Vec<u8>,
}

impl Flow {
    /// Opens all connections and starts the consumers.
    ///
    /// # Errors
    /// When the broker refuses something.
    pub fn prepare(target: impl Into<Target>, plan: FlowPlan) -> io::Result<Self> {
        let target = target.into();
        Self::prepare_between(&target, &target, plan)
    }

    /// The same with producers and consumers on different nodes.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_between(publish_at: &Target, consume_at: &Target, plan: FlowPlan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let ring = (RINGS / plan.producers.len().max(1)).clamp(*RING.start(), *RING.end());
        let pattern = Pattern::new(plan.shape, PublishRing::period_for(plan.shape, ring));
        let known = plan.published_before.as_ref().map_or(plan.producers.len(), Vec::len);
        let mut copies = vec![0; known];
        let (mut consumers, mut ledgers) = (Vec::new(), Vec::new());
        for (index, queue) in plan.queues.iter().enumerate() {
            ledgers.push(Ledger::new(queue.producers.clone(), queue.consumers));
            for consumer in 0..queue.consumers {
                let token = Token(plan.producers.len() + consumers.len());
                consumers.push(Consumer::open(consume_at, &plan, index, consumer, &poll, token)?);
            }
            for (copies, fed) in copies.iter_mut().zip(&queue.producers) {
                *copies += u64::from(*fed && queue.consumers > 0);
            }
        }
        let mut producers = Vec::new();
        for (index, (exchange, routing_key)) in plan.producers.iter().enumerate() {
            let mut session = Session::open(publish_at.clone())?;
            if plan.confirm_window.is_some() {
                session.select_confirms()?;
            }
            let number = u32::try_from(index).map_err(io::Error::other)?;
            producers.push(Producer {
                link: Link::register(session, &poll, Token(index))?,
                ring: PublishRing::new(number, exchange, routing_key, plan.shape, &pattern),
                confirms: plan.confirm_window.map(|_| Confirms::default()),
                limit: if let Extent::Messages(count) = plan.extent { count } else { u64::MAX },
            });
        }
        let message = producers.first().map_or(1, |producer| producer.ring.message_length()) as u64;
        let deliveries = copies.iter().copied().max().unwrap_or(1).max(1);
        let octets = IN_FLIGHT + IN_FLIGHT_A_PRODUCER * producers.len() as u64;
        let in_flight_limit = if consumers.is_empty() { u64::MAX } else { (octets / message).max(64) * deliveries };
        Ok(Self {
            plan,
            poll,
            pattern,
            producers,
            consumers,
            ledgers,
            faults: Faults::default(),
            buffer: vec![0; READ_LENGTH * 2],
            copies,
            in_flight_limit,
            paused: false,
            stopping: false,
        })
    }

    /// Runs until everything published is delivered and confirmed, or nothing moves any more.
    ///
    /// # Errors
    /// When polling fails. What the broker does wrong is in the outcome.
    pub fn run(&mut self) -> io::Result<FlowOutcome> {
        let started = Instant::now();
        let mut events = Events::with_capacity(256);
        let mut moved = started;
        let mut finished = started;
        loop {
            let now = Instant::now();
            if let Extent::Time(time) = self.plan.extent
                && !self.stopping
                && now.duration_since(started) >= time
            {
                self.stop();
            }
            match self.turn(now) {
                Ok(true) => (moved, finished) = (now, now),
                Ok(false) if now.duration_since(moved) > self.plan.stall => {
                    self.faults.add(FaultKind::Broken, || format!("nothing came for {:?}", self.plan.stall));
                    break;
                }
                Ok(false) => {}
                Err(error) => {
                    self.faults.add(FaultKind::Broken, || error.to_string());
                    break;
                }
            }
            if self.is_complete() {
                finished = Instant::now();
                break;
            }
            let timeout = if self.has_work() { Duration::ZERO } else { Duration::from_millis(20) };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                if let Some(link) = self.link_mut(event.token()) {
                    link.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    link.writable |= event.is_writable() || event.is_write_closed();
                }
            }
        }
        Ok(self.outcome(finished.duration_since(started)))
    }

    /// Acknowledges what is left and closes all connections in order, so that nothing is requeued and no work is left for
    /// the next run. A broker that does not answer has been found out before: its silence is no error here.
    ///
    /// # Errors
    /// When a connection breaks.
    pub fn close(self) -> io::Result<()> {
        let mut sessions = Vec::new();
        for consumer in self.consumers {
            let (tag, open) = (consumer.reader.last_tag(), consumer.reader.last_tag() > consumer.acked);
            let mut session = consumer.link.into_session(&self.poll)?;
            if open && self.plan.acks != Acks::Automatic {
                session.send(&ack(tag, true))?;
            }
            sessions.push(session);
        }
        for producer in self.producers {
            sessions.push(producer.link.into_session(&self.poll)?);
        }
        sessions.into_iter().try_for_each(Session::close)
    }

    /// One round over all sockets that epoll called ready. Whether anything moved.
    fn turn(&mut self, now: Instant) -> io::Result<bool> {
        let mut moved = false;
        for consumer in &mut self.consumers {
            if consumer.link.readable {
                let ledger = &mut self.ledgers[consumer.queue];
                moved |= consumer.receive(&mut self.buffer, &self.pattern, ledger, self.plan.acks, &mut self.faults)?;
            }
            consumer.flush()?;
        }
        for producer in &mut self.producers {
            if producer.link.readable {
                moved |= producer.receive(&mut self.buffer, now, &mut self.faults)?;
            }
        }
        if self.may_publish() {
            for producer in &mut self.producers {
                moved |= producer.publish(self.plan.confirm_window, now)?;
            }
        }
        Ok(moved)
    }

    /// Producers pause at the limit and go on at half of it, so that their writes stay large.
    fn may_publish(&mut self) -> bool {
        if self.in_flight_limit == u64::MAX {
            return true;
        }
        let published: u64 =
            self.producers.iter().zip(&self.copies).map(|(one, copies)| one.ring.sent() * copies).sum();
        let in_flight = published.saturating_sub(self.delivered());
        self.paused = in_flight >= if self.paused { self.in_flight_limit / 2 } else { self.in_flight_limit };
        // What is written in part must be finished: the broker waits for it.
        !self.paused || self.stopping
    }

    fn has_work(&self) -> bool {
        self.consumers.iter().any(|one| one.link.readable)
            || self.producers.iter().any(|one| one.link.readable)
            || !self.paused && self.producers.iter().any(|one| one.wants_to_write(self.plan.confirm_window))
    }

    fn delivered(&self) -> u64 {
        self.consumers.iter().map(|one| one.reader.last_tag()).sum()
    }

    fn stop(&mut self) {
        self.stopping = true;
        for producer in &mut self.producers {
            producer.limit = producer.ring.sent() + u64::from(producer.ring.mid_message());
        }
    }

    fn is_complete(&self) -> bool {
        let sent = self.sent();
        let due: u64 = sent.iter().zip(&self.copies).map(|(sent, copies)| sent * copies).sum();
        let written = self.producers.iter().all(|one| one.ring.sent() >= one.limit);
        let confirmed =
            self.producers.iter().all(|one| one.confirms.as_ref().is_none_or(|c| c.confirmed() >= one.ring.sent()));
        let acked = self.consumers.iter().all(|one| one.out.is_empty());
        written && confirmed && acked && self.delivered() >= due
    }

    fn sent(&self) -> Vec<u64> {
        match &self.plan.published_before {
            Some(sent) => sent.clone(),
            None => self.producers.iter().map(|producer| producer.ring.sent()).collect(),
        }
    }

    fn outcome(&mut self, elapsed: Duration) -> FlowOutcome {
        let sent = self.sent();
        for (ledger, _) in self.ledgers.iter().zip(&self.plan.queues).filter(|(_, queue)| queue.consumers > 0) {
            ledger.close(&sent, &mut self.faults);
        }
        let mut latencies_us = Vec::new();
        for producer in &mut self.producers {
            if let Some(confirms) = producer.confirms.take() {
                let open = producer.ring.sent().saturating_sub(confirms.confirmed());
                if open > 0 {
                    self.faults.add(FaultKind::Confirm, || format!("{open} publishes were not confirmed"));
                }
                latencies_us.extend(confirms.into_latencies_us());
            }
        }
        latencies_us.sort_unstable();
        FlowOutcome {
            sent,
            delivered: self.delivered(),
            elapsed,
            latencies_us,
            faults: std::mem::take(&mut self.faults),
        }
    }

    fn link_mut(&mut self, token: Token) -> Option<&mut Link> {
        match token.0.checked_sub(self.producers.len()) {
            None => self.producers.get_mut(token.0).map(|producer| &mut producer.link),
            Some(index) => self.consumers.get_mut(index).map(|consumer| &mut consumer.link),
        }
    }
}

impl Producer {
    fn wants_to_write(&self, window: Option<u64>) -> bool {
        self.link.writable && self.ring.sent() < self.open_limit(window)
    }

    fn open_limit(&self, window: Option<u64>) -> u64 {
        match (&self.confirms, window) {
            (Some(confirms), Some(window)) => self.limit.min(confirms.confirmed() + window),
            _ => self.limit,
        }
    }

    fn publish(&mut self, window: Option<u64>, now: Instant) -> io::Result<bool> {
        self.link.push()?;
        if !self.wants_to_write(window) {
            return Ok(false);
        }
        let limit = self.open_limit(window);
        let before = self.ring.sent();
        let moved = match self.ring.write_once(limit, &mut self.link.stream) {
            Ok((taken, offered)) => {
                self.link.writable = taken == offered;
                taken > 0
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.link.writable = false;
                false
            }
            Err(error) => return Err(error),
        };
        if let Some(confirms) = &mut self.confirms {
            confirms.published(self.ring.sent() - before, now);
        }
        Ok(moved)
    }

    fn receive(&mut self, buffer: &mut [u8], now: Instant, faults: &mut Faults) -> io::Result<bool> {
        let Self { link, confirms, .. } = self;
        link.read(buffer, |octets| match confirms {
            Some(confirms) => confirms.read(octets, now, faults),
            None => Confirms::default().read(octets, now, faults),
        })
    }
}

impl Consumer {
    fn open(
        target: &Target,
        plan: &FlowPlan,
        queue: usize,
        consumer: usize,
        poll: &Poll,
        token: Token,
    ) -> io::Result<Self> {
        let queue_plan = plan.queues.get(queue).ok_or(io::ErrorKind::NotFound)?;
        let mut session = Session::open(target.clone())?;
        if plan.prefetch > 0 {
            session.qos(plan.prefetch)?;
        }
        let tag = format!("c{consumer}");
        session.consume(&queue_plan.name, &tag, plan.acks == Acks::Automatic)?;
        let reader = DeliveryReader::new(consumer, &tag, &queue_plan.exchange, &queue_plan.routing_key, plan.shape);
        Ok(Self { link: Link::register(session, poll, token)?, reader, queue, out: Vec::new(), acked: 0 })
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        pattern: &Pattern,
        ledger: &mut Ledger,
        acks: Acks,
        faults: &mut Faults,
    ) -> io::Result<bool> {
        let reader = &mut self.reader;
        let moved = self.link.read(buffer, |octets| reader.read(octets, pattern, ledger, faults))?;
        self.acknowledge(acks);
        Ok(moved)
    }

    fn acknowledge(&mut self, acks: Acks) {
        let (step, multiple) = match acks {
            Acks::Automatic => return,
            Acks::Each => (1, false),
            Acks::Every(count) => (count, true),
        };
        while self.acked + step <= self.reader.last_tag() {
            self.acked += step;
            self.out.extend_from_slice(&ack(self.acked, multiple));
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.push()?;
        if self.out.is_empty() || !self.link.writable {
            return Ok(());
        }
        match self.link.stream.write(&self.out) {
            Ok(count) => {
                self.link.writable = count == self.out.len();
                self.out.drain(..count);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.link.writable = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// basic.ack on channel 1.
fn ack(tag: u64, multiple: bool) -> [u8; 21] {
    let mut frame = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, wire::FRAME_END];
    let (_, arguments) = frame.split_at_mut(wire::FRAME_PREFIX + 4);
    if let Some((place, rest)) = arguments.split_first_chunk_mut::<8>() {
        *place = tag.to_be_bytes();
        rest[0] = u8::from(multiple);
    }
    frame
}

impl Link {
    fn register(session: Session, poll: &Poll, token: Token) -> io::Result<Self> {
        let (mut stream, leftover) = session.into_parts();
        stream.socket().set_nonblocking(true)?;
        let mut stream = stream.map(TcpStream::from_std);
        poll.registry().register(stream.socket(), token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, readable: true, writable: true, leftover })
    }

    /// Writes what a TLS session holds.
    fn push(&mut self) -> io::Result<()> {
        if self.writable {
            self.writable = self.stream.push()?;
        }
        Ok(())
    }

    /// The connection as one for requests and answers again.
    fn into_session(mut self, poll: &Poll) -> io::Result<Session> {
        poll.registry().deregister(self.stream.socket())?;
        let mut stream = self.stream.map(|socket| std::net::TcpStream::from(OwnedFd::from(socket)));
        stream.socket().set_nonblocking(false)?;
        Ok(Session::from_parts(stream, self.leftover))
    }

    /// One read into the shared `buffer`, behind what was left over; `take` returns how much it used.
    fn read(&mut self, buffer: &mut [u8], take: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        let kept = self.leftover.len();
        let (head, rest) = buffer.split_at_mut_checked(kept).ok_or_else(|| wire::broken("too long a message"))?;
        head.copy_from_slice(&self.leftover);
        let room = rest.len().min(READ_LENGTH);
        let space = rest.get_mut(..room).unwrap_or_default();
        let count = match self.stream.read(space) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                0
            }
            Err(error) => return Err(error),
        };
        // A short read of a stream socket has emptied it; epoll tells of the next octets.
        self.readable = count == room || (count > 0 && !self.stream.short_read_is_dry());
        let octets = buffer.get(..kept + count).unwrap_or_default();
        let used = take(octets)?;
        self.leftover.clear();
        self.leftover.extend_from_slice(octets.get(used..).unwrap_or_default());
        Ok(count > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::Arguments;

    #[test]
    fn the_ready_made_ack_is_an_ack() {
        let octets = ack(7, true);
        let frame = wire::parse_frame(&octets).unwrap().unwrap();
        assert_eq!((frame.method_id(), frame.channel, frame.wire_length()), (Some(wire::BASIC_ACK), 1, octets.len()));
        let mut arguments = Arguments::of(&frame);
        assert_eq!((arguments.u64().unwrap(), arguments.u8().unwrap()), (7, 1));
    }
}
