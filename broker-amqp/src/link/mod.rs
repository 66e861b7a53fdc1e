//! What two nodes tell each other about queues, in AMQP's framing.
//!
//! A channel whose queue lives on another node sends that node what it would otherwise tell the queue, and hears what the queue would say: an
//! operation ([`Op`]) is one method frame of a class of its own, and a message is followed by its content header and body frames, as it came from
//! its publisher. Everything is on channel 0, in order. There is one link in each direction of a pair of nodes, so a publish, an acknowledgement
//! and a cancellation arrive in the order in which they were said.
//!
//! ```text
//! octets in                     Link::receive
//! operations out                Link::publish, deliver, got, say
//! octets out                    Link::send_buffer
//! flow                          Link::may_publish, Link::taken
//! ```
//!
//! **Flow.** Deliveries are bounded by the room of their consumers. Publishes are bounded by credit in octets: the sender begins with
//! [`CREDIT_BYTES`], and is given back what the receiver has taken ([`Link::taken`]). Who is out of credit holds its publishers back. What is sent
//! beyond the credit by more than one message is an error of the peer.
//!
//! The peer has proved who it is before a link begins, but it may be another version, or broken: no octets make this panic or hold more than a
//! frame and a message.

mod method;
mod op;
mod read;
mod write;

use broker_core::queue::{Delivery, Outcome, Publish};
use broker_core::store::QueueId;

pub use op::{Got, Op, Queues, TallyOf};
pub use read::LinkError;

use crate::send_buffer::SendBuffer;
use read::Reader;

/// The class of the methods on a link. AMQP 0-9-1 and RabbitMQ use none above 90.
pub const CLASS: u16 = 200;
/// A frame on a link is no longer than this, in octets, head and end included.
pub const FRAME_MAX_BYTES: u32 = 128 * 1024;
/// An announcement is no longer than this, in octets: it goes in one frame.
pub const ANNOUNCEMENT_MAX_BYTES: usize = 120 * 1024;
/// Octets of messages that may be on their way before the receiver has taken any.
pub const CREDIT_BYTES: i64 = 4 * 1024 * 1024;
/// A message for more queues than this travels several times.
const QUEUES_TOGETHER: usize = 4096;
/// So much is taken before the sender hears of it, that not every message is answered.
const GRANT_BYTES: i64 = CREDIT_BYTES / 8;

/// One end of a link. See the module's page.
#[derive(Debug)]
pub struct Link {
    sender: Sender,
    receiver: Receiver,
}

/// What is said on a link.
#[derive(Debug)]
pub struct Sender {
    send: SendBuffer,
    /// Deliveries that are settled and may be followed by more of the same kind: they are said before anything else is.
    settled: Option<Settled>,
    /// Octets of messages that may still be sent.
    credit: i64,
}

/// Deliveries of a queue, one after the other, of which the same becomes.
#[derive(Debug)]
struct Settled {
    queue: QueueId,
    first: u64,
    last: u64,
    outcome: Outcome,
}

/// What is heard on it.
#[derive(Debug)]
pub struct Receiver {
    reader: Reader,
    /// Octets of messages that the peer may still send.
    granted: i64,
    /// Octets taken that the peer has not heard of.
    taken: i64,
}

impl Link {
    /// A link that has just come up. No body is longer than `message_max` octets.
    pub fn new(message_max: u64) -> Link {
        Link {
            sender: Sender { send: SendBuffer::default(), settled: None, credit: CREDIT_BYTES },
            receiver: Receiver { reader: Reader::new(message_max), granted: CREDIT_BYTES, taken: 0 },
        }
    }

    /// Both halves, for whoever answers while it hears.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// What is to be written to the socket.
    pub fn send_buffer(&mut self) -> &mut SendBuffer {
        self.sender.send_buffer()
    }

    /// Whether publishers may go on; otherwise they are held back until the peer has taken more.
    pub fn may_publish(&self) -> bool {
        self.sender.may_publish()
    }

    /// Sends a message to queues of the peer; to up to a few thousand it travels once.
    pub fn publish(&mut self, queues: &[QueueId], publish: &Publish<'_>) {
        self.sender.publish(queues, publish);
    }

    /// Sends a consumer of the peer a message.
    pub fn deliver(&mut self, queue: QueueId, delivery: &Delivery<'_>) {
        self.sender.deliver(queue, delivery);
    }

    /// Sends a message to whom asked for one.
    pub fn got(&mut self, got: &Got<'_>) {
        self.sender.got(got);
    }

    /// Says everything that carries no message; what does is passed over.
    pub fn say(&mut self, op: &Op<'_>) {
        self.sender.say(op);
    }

    /// Takes what was read from the socket and gives `sink` every operation that is complete.
    pub fn receive(&mut self, octets: &[u8], sink: &mut impl FnMut(Op<'_>)) -> Result<(), LinkError> {
        let Link { sender, receiver } = self;
        receiver.receive(octets, &mut |op| match op {
            Op::Credit { octets } => sender.credited(octets),
            op => sink(op),
        })
    }

    /// Octets that are held: the beginning of a frame, and of a message. They count as memory of the node.
    pub fn held_bytes(&self) -> usize {
        self.receiver.held_bytes()
    }

    /// Messages of so many octets ([`Content::memory`](broker_core::message::Content::memory)) have been taken by their queues: as many may follow.
    pub fn taken(&mut self, octets: usize) {
        if let Some(credit) = self.receiver.taken(octets) {
            self.sender.say(&credit);
        }
    }
}

impl Sender {
    /// What is to be written to the socket.
    pub fn send_buffer(&mut self) -> &mut SendBuffer {
        if let Some(Settled { queue, first, last, outcome }) = self.settled.take() {
            write::say(&mut self.send, &Op::Settle { queue, first, last, outcome });
        }
        &mut self.send
    }

    /// Whether publishers may go on; otherwise they are held back until the peer has taken more.
    pub fn may_publish(&self) -> bool {
        self.credit > 0
    }

    /// Sends a message to queues of the peer; to up to a few thousand it travels once.
    pub fn publish(&mut self, queues: &[QueueId], publish: &Publish<'_>) {
        for queues in queues.chunks(QUEUES_TOGETHER) {
            self.credit -= publish.content.memory() as i64;
            write::publish(self.send_buffer(), queues, publish);
        }
    }

    /// Sends a consumer of the peer a message.
    pub fn deliver(&mut self, queue: QueueId, delivery: &Delivery<'_>) {
        write::deliver(self.send_buffer(), queue, delivery);
    }

    /// Sends a message to whom asked for one.
    pub fn got(&mut self, got: &Got<'_>) {
        write::got(self.send_buffer(), got);
    }

    /// Says everything that carries no message; what does is passed over.
    pub fn say(&mut self, op: &Op<'_>) {
        let Op::Settle { queue, first, last, outcome } = *op else { return write::say(self.send_buffer(), op) };
        if let Some(settled) = &mut self.settled
            && (settled.queue, settled.outcome, settled.last.checked_add(1)) == (queue, outcome, Some(first))
        {
            settled.last = last;
            return;
        }
        self.send_buffer();
        self.settled = Some(Settled { queue, first, last, outcome });
    }

    /// The peer has taken so many octets more: the content of [`Op::Credit`].
    pub fn credited(&mut self, octets: u64) {
        // More than all there is would only come from a peer that counts wrongly.
        let more = i64::try_from(octets).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(more).min(CREDIT_BYTES);
    }
}

impl Receiver {
    /// Takes what was read from the socket and gives `sink` every operation that is complete, [`Op::Credit`] among them.
    pub fn receive(&mut self, octets: &[u8], sink: &mut impl FnMut(Op<'_>)) -> Result<(), LinkError> {
        let granted = &mut self.granted;
        self.reader.receive(octets, &mut |op| {
            let Op::Publish { queues, publishes } = op else {
                sink(op);
                return Ok(());
            };
            let within = |publish: &&Publish<'_>| {
                let may = *granted > 0;
                *granted -= if may { publish.content.memory() as i64 } else { 0 };
                may
            };
            let (taken, beyond) = publishes.split_at(publishes.iter().take_while(within).count());
            if !taken.is_empty() {
                sink(Op::Publish { queues, publishes: taken });
            }
            if beyond.is_empty() { Ok(()) } else { Err(LinkError::Overrun) }
        })
    }

    /// Octets that are held: the beginning of a frame, and of a message. They count as memory of the node.
    pub fn held_bytes(&self) -> usize {
        self.reader.held_bytes()
    }

    /// Messages of so many octets ([`Content::memory`](broker_core::message::Content::memory)) have been taken by their queues: as many may follow.
    /// What the peer is to be told, once it is worth it.
    pub fn taken(&mut self, octets: usize) -> Option<Op<'static>> {
        self.taken += octets as i64;
        if self.taken < GRANT_BYTES {
            return None;
        }
        let octets = std::mem::take(&mut self.taken);
        self.granted += octets;
        Some(Op::Credit { octets: octets as u64 })
    }
}
