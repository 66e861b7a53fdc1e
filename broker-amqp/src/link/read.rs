//! Octets to operations.

use broker_core::message::{Content, INLINE_BODY_MAX_BYTES, Message, Passing, split_route};
use broker_core::queue::{ChannelKey, ConsumerKey, Delivery, Outcome, Publish};
use broker_core::store::QueueId;
use bytes::Bytes;
use smallvec::SmallVec;

use super::op::{Got, Op, Queues, TallyOf};
use super::{CLASS, method};
use crate::frame::{self, HEAD_BYTES, Head};

/// A content header's payload is at least this long: class, weight, body size and property flags.
const HEADER_MIN_BYTES: usize = 14;

/// A piece of a body is at least this long, but for the last: what each takes besides its octets must not add up.
const PIECE_MIN_BYTES: usize = 2 * 1024;

/// So many publishes or deliveries are handed on together at most.
const RUN_MAX: usize = 32;

/// Why a link cannot go on. The octets behind cannot be understood, so it is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Octets that are no frame, or one that is not due.
    #[error("the other node sent octets that are not due on a link: {0}")]
    Malformed(&'static str),
    /// An operation that this version does not know.
    #[error("the other node asked for operation {class}.{method}, which this version does not know: upgrade this node")]
    Unknown {
        /// Its class.
        class: u16,
        /// Its method.
        method: u16,
    },
    /// A message larger than this node takes.
    #[error(
        "the other node sent a message of {size} octets; this node takes {max} (max_message_size must be the same on all nodes)"
    )]
    TooLarge {
        /// Octets of its body.
        size: u64,
        /// Octets it may have.
        max: u64,
    },
    /// Messages came without credit.
    #[error("the other node sent more messages than it had credit for")]
    Overrun,
}

type Taken = Result<(), LinkError>;

/// Gathers frames to operations.
#[derive(Debug)]
pub(super) struct Reader {
    message_max: u64,
    /// A frame of which only the beginning is here.
    pending: Vec<u8>,
    gathering: Option<Box<Gathering>>,
}

/// A message of which not all frames are here.
#[derive(Debug)]
struct Gathering {
    /// The method's payload, which says what it is for.
    method: Vec<u8>,
    header: Vec<u8>,
    pieces: Vec<Bytes>,
    /// Octets of the body that are still to come.
    left: u64,
}

/// What a method with a message says besides it.
struct Carrier<'a> {
    id: u16,
    fields: Fields<'a>,
    flags: u8,
    /// Exchange and routing key, and hidden ones behind them.
    keys: &'a [u8],
}

impl Reader {
    pub(super) fn new(message_max: u64) -> Reader {
        Reader { message_max, pending: Vec::new(), gathering: None }
    }

    /// Octets that are held: the beginning of a frame, and of a message.
    pub(super) fn held_bytes(&self) -> usize {
        let gathering = self.gathering.as_ref().map_or(0, |gathering| {
            gathering.method.len() + gathering.header.len() + gathering.pieces.iter().map(Bytes::len).sum::<usize>()
        });
        self.pending.len() + gathering
    }

    pub(super) fn receive(&mut self, octets: &[u8], sink: &mut impl FnMut(Op<'_>) -> Taken) -> Taken {
        let mut rest = octets;
        while !self.pending.is_empty() {
            let wanted = match Head::parse(&self.pending) {
                Some(head) => frame_len(head)?,
                None => HEAD_BYTES,
            };
            let (now, later) = rest.split_at(wanted.saturating_sub(self.pending.len()).min(rest.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() < wanted {
                return Ok(());
            }
            if wanted > HEAD_BYTES {
                let begun = std::mem::take(&mut self.pending);
                self.run(&begun, sink)?;
            }
        }
        let used = self.run(rest, sink)?;
        self.pending.extend_from_slice(rest.get(used..).unwrap_or_default());
        Ok(())
    }

    /// Takes whole frames. Answers how many octets they were.
    fn run(&mut self, octets: &[u8], sink: &mut impl FnMut(Op<'_>) -> Taken) -> Result<usize, LinkError> {
        let mut at = 0;
        let mut run = Run::default();
        loop {
            let rest = octets.get(at..).unwrap_or_default();
            // What came before an error is taken all the same.
            let whole = if self.gathering.is_none() { self.whole(rest) } else { Ok(None) };
            match whole {
                Ok(Some((whole, used))) => {
                    run.add(whole, sink)?;
                    at += used;
                    continue;
                }
                Ok(None) => run.give(sink)?,
                Err(error) => {
                    run.give(sink)?;
                    return Err(error);
                }
            }
            let Some((kind, payload, len)) = split_frame(rest)? else { return Ok(at) };
            self.take_frame(kind, payload, sink)?;
            at += len;
        }
    }

    /// A message whose frames lie here one behind the other, and whose body is small: it is not copied. Answers how many octets they were.
    fn whole<'a>(&self, octets: &'a [u8]) -> Result<Option<(Whole<'a>, usize)>, LinkError> {
        let Some((frame::METHOD, method, method_len)) = split_frame(octets)? else { return Ok(None) };
        let Some(carrier) = carrier(method)? else { return Ok(None) };
        let rest = octets.get(method_len..).unwrap_or_default();
        let Some((frame::HEADER, header, header_len)) = split_frame(rest)? else { return Ok(None) };
        let size = self.body_size(header)?;
        if size > INLINE_BODY_MAX_BYTES as u64 || carrier.flags & method::HIDDEN_KEYS != 0 {
            return Ok(None);
        }
        let rest = rest.get(header_len..).unwrap_or_default();
        let (body, body_len) = match size {
            0 => (&[][..], 0),
            _ => match split_frame(rest)? {
                Some((frame::BODY, body, len)) if body.len() as u64 == size => (body, len),
                _ => return Ok(None),
            },
        };
        let route = carrier.route()?;
        let persistent = carrier.flags & method::PERSISTENT != 0;
        let content = Content::Passing(Passing { route, header, body, persistent, shared: None });
        Ok(Some((carrier.whole(content)?, method_len + header_len + body_len)))
    }

    fn take_frame(&mut self, kind: u8, payload: &[u8], sink: &mut impl FnMut(Op<'_>) -> Taken) -> Taken {
        match (kind, self.gathering.is_some()) {
            (frame::HEARTBEAT, _) if payload.is_empty() => Ok(()),
            (frame::METHOD, false) => {
                if carrier(payload)?.is_none() {
                    return sink(small(payload)?);
                }
                let method = payload.to_vec();
                self.gathering = Some(Box::new(Gathering { method, header: Vec::new(), pieces: Vec::new(), left: 0 }));
                Ok(())
            }
            (frame::HEADER | frame::BODY, true) => self.gather(kind, payload, sink),
            _ => Err(LinkError::Malformed("a frame of this type is not due")),
        }
    }

    fn gather(&mut self, kind: u8, payload: &[u8], sink: &mut impl FnMut(Op<'_>) -> Taken) -> Taken {
        let size = if kind == frame::HEADER { self.body_size(payload)? } else { 0 };
        let Some(gathering) = &mut self.gathering else { return Ok(()) };
        match (kind, gathering.header.is_empty()) {
            (frame::HEADER, true) => {
                gathering.header = payload.to_vec();
                gathering.left = size;
            }
            (frame::BODY, false) if !payload.is_empty() => {
                let left = gathering.left.checked_sub(payload.len() as u64);
                gathering.left = left.ok_or(LinkError::Malformed("a body is longer than its header says"))?;
                if payload.len() < PIECE_MIN_BYTES && gathering.left > 0 {
                    return Err(LinkError::Malformed("a body comes in pieces that are too small"));
                }
                gathering.pieces.push(Bytes::copy_from_slice(payload));
            }
            _ => return Err(LinkError::Malformed("header and body come in another order")),
        }
        if gathering.left > 0 {
            return Ok(());
        }
        let Some(gathered) = self.gathering.take() else { return Ok(()) };
        let Some(carrier) = carrier(&gathered.method)? else { return Ok(()) };
        let message = carrier.message(&gathered.header, gathered.pieces)?;
        let mut run = Run::default();
        run.add(carrier.whole(Content::Kept(&message))?, sink)?;
        run.give(sink)
    }

    /// The size of the body that a content header announces.
    fn body_size(&self, header: &[u8]) -> Result<u64, LinkError> {
        let size = header.get(4..12).and_then(<[u8]>::first_chunk).filter(|_| header.len() >= HEADER_MIN_BYTES);
        let size = u64::from_be_bytes(*size.ok_or(LinkError::Malformed("a content header is too short"))?);
        if size > self.message_max {
            return Err(LinkError::TooLarge { size, max: self.message_max });
        }
        Ok(size)
    }
}

/// Octets of a frame, if it may be as long as that.
fn frame_len(head: Head) -> Result<usize, LinkError> {
    if head.size > frame::UNLIMITED_MAX_BYTES {
        return Err(LinkError::Malformed("a frame is too long"));
    }
    if head.channel != 0 {
        return Err(LinkError::Malformed("a frame is not on channel 0"));
    }
    Ok(head.frame_len())
}

/// Kind, payload and length of a frame.
type Frame<'a> = (u8, &'a [u8], usize);

/// The frame that begins here, if all of it is here.
fn split_frame(octets: &[u8]) -> Result<Option<Frame<'_>>, LinkError> {
    let Some(head) = Head::parse(octets) else { return Ok(None) };
    let len = frame_len(head)?;
    let Some(frame) = octets.get(HEAD_BYTES..len) else { return Ok(None) };
    match frame.split_last() {
        Some((&frame::END, payload)) => Ok(Some((head.kind, payload, len))),
        _ => Err(LinkError::Malformed("a frame does not end as it should")),
    }
}

/// The fields of a method, one after the other.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], LinkError> {
        let (now, later) = self.0.split_first_chunk().ok_or(LinkError::Malformed("a method is cut short"))?;
        self.0 = later;
        Ok(*now)
    }

    /// All that is left.
    fn text(&mut self) -> Result<&'a str, LinkError> {
        self.text_of(self.0.len())
    }

    fn text_of(&mut self, len: usize) -> Result<&'a str, LinkError> {
        let (now, later) = self.0.split_at_checked(len).ok_or(LinkError::Malformed("a method is cut short"))?;
        self.0 = later;
        std::str::from_utf8(now).map_err(|_| LinkError::Malformed("a text is not UTF-8"))
    }

    fn octet(&mut self) -> Result<u8, LinkError> {
        self.take().map(|[octet]: [u8; 1]| octet)
    }

    fn short(&mut self) -> Result<u16, LinkError> {
        self.take().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, LinkError> {
        self.take().map(u64::from_be_bytes)
    }

    fn signed(&mut self) -> Result<i64, LinkError> {
        self.take().map(i64::from_be_bytes)
    }

    fn queue(&mut self) -> Result<QueueId, LinkError> {
        self.long().map(QueueId)
    }

    fn queues(&mut self) -> Result<Queues<'a>, LinkError> {
        let octets = usize::from(self.short()?) * 8;
        let (now, later) = self.0.split_at_checked(octets).ok_or(LinkError::Malformed("a method is cut short"))?;
        self.0 = later;
        if now.is_empty() { Err(LinkError::Malformed("a message for no queue")) } else { Ok(Queues(now)) }
    }

    fn channel(&mut self) -> Result<ChannelKey, LinkError> {
        Ok(ChannelKey { connection: self.long()?, channel: self.short()? })
    }

    fn consumer(&mut self) -> Result<ConsumerKey, LinkError> {
        Ok(ConsumerKey { channel: self.channel()?, consumer: self.take().map(u32::from_be_bytes)? })
    }

    fn flag(&mut self) -> Result<bool, LinkError> {
        self.flags(1).map(|bits| bits != 0)
    }

    /// An octet of which only these bits may be set.
    fn flags(&mut self, known: u8) -> Result<u8, LinkError> {
        self.octet()
            .and_then(|bits| if bits & !known == 0 { Ok(bits) } else { Err(LinkError::Malformed("unknown flags")) })
    }

    fn range(&mut self) -> Result<(u64, u64), LinkError> {
        let (first, last) = (self.long()?, self.long()?);
        if first <= last { Ok((first, last)) } else { Err(LinkError::Malformed("a range ends before it begins")) }
    }
}

/// The method's number and what comes behind it.
fn split_method(payload: &[u8]) -> Result<(u16, Fields<'_>), LinkError> {
    let mut fields = Fields(payload);
    let (class, method) = (fields.short()?, fields.short()?);
    if class == CLASS { Ok((method, fields)) } else { Err(LinkError::Unknown { class, method }) }
}

/// The method, if it is one that carries a message.
fn carrier(payload: &[u8]) -> Result<Option<Carrier<'_>>, LinkError> {
    let (id, fields) = split_method(payload)?;
    let mut behind = fields;
    match id {
        method::PUBLISH => {
            behind.queues()?;
            behind.take::<18>().map(drop)
        }
        method::DELIVER => behind.take::<30>().map(drop),
        method::GOT => behind.take::<34>().map(drop),
        _ => return Ok(None),
    }?;
    let flags = behind.flags(method::PERSISTENT | method::HIDDEN_KEYS | method::REDELIVERED)?;
    Ok(Some(Carrier { id, fields, flags, keys: behind.0 }))
}

impl<'a> Carrier<'a> {
    /// Exchange and routing key alone.
    fn route(&self) -> Result<&'a [u8], LinkError> {
        split_route(self.keys).map(|_| self.keys).ok_or(BAD_KEYS)
    }

    /// The message in memory of its own.
    fn message(&self, header: &[u8], pieces: Vec<Bytes>) -> Result<Message, LinkError> {
        let persistent = self.flags & method::PERSISTENT != 0;
        if self.flags & method::HIDDEN_KEYS == 0 {
            let small = pieces.iter().map(Bytes::len).sum::<usize>() <= INLINE_BODY_MAX_BYTES;
            let message = match small {
                true => Message::new(self.keys, header, &pieces.concat(), persistent, &mut Vec::new()),
                false => Message::with_chunks(self.keys, header, pieces, persistent),
            };
            return message.ok_or(BAD_KEYS);
        }
        let mut shown = self.keys;
        let mut strings = Vec::new();
        while let Some((&len, after)) = shown.split_first() {
            let (string, after) = after.split_at_checked(usize::from(len)).ok_or(BAD_KEYS)?;
            strings.push(string);
            shown = after;
        }
        let [exchange, key, hidden @ ..] = strings.as_slice() else { return Err(BAD_KEYS) };
        let route = self.keys.get(..2 + exchange.len() + key.len()).ok_or(BAD_KEYS)?;
        let message = Message::with_chunks(route, header, pieces, persistent).ok_or(BAD_KEYS)?;
        message.changed(route, header, hidden.iter().copied()).ok_or(BAD_KEYS)
    }

    fn whole(&self, content: Content<'a>) -> Result<Whole<'a>, LinkError> {
        let mut fields = self.fields;
        let redelivered = self.flags & method::REDELIVERED != 0;
        Ok(match self.id {
            method::PUBLISH => {
                let queues = fields.queues()?;
                Whole::Publish(queues, Publish { channel: fields.channel()?, publish_seq: fields.long()?, content })
            }
            method::DELIVER => {
                let queue = fields.queue()?;
                let (key, queue_tag) = (fields.consumer()?, fields.long()?);
                Whole::Deliver(queue, Delivery { key, queue_tag, redelivered, content })
            }
            _ => Whole::Got(Got {
                queue: fields.queue()?,
                channel: fields.channel()?,
                queue_tag: fields.long()?,
                redelivered,
                remaining: fields.long()?,
                content,
            }),
        })
    }
}

/// A method with its message.
enum Whole<'a> {
    Publish(Queues<'a>, Publish<'a>),
    Deliver(QueueId, Delivery<'a>),
    Got(Got<'a>),
}

/// Publishes to the same queues or deliveries of one, one behind the other: what is done for each run of them need not be done for each of them.
#[derive(Default)]
struct Run<'a> {
    of: Option<Of<'a>>,
    publishes: SmallVec<[Publish<'a>; RUN_MAX]>,
    deliveries: SmallVec<[Delivery<'a>; RUN_MAX]>,
}

#[derive(PartialEq)]
enum Of<'a> {
    Publishes(Queues<'a>),
    Deliveries(QueueId),
}

impl<'a> Run<'a> {
    /// One more; what does not go with it is given first.
    fn add(&mut self, whole: Whole<'a>, sink: &mut impl FnMut(Op<'_>) -> Taken) -> Taken {
        match whole {
            Whole::Publish(queues, publish) => {
                self.make_room(Of::Publishes(queues), self.publishes.len(), sink)?;
                self.publishes.push(publish);
            }
            Whole::Deliver(queue, delivery) => {
                self.make_room(Of::Deliveries(queue), self.deliveries.len(), sink)?;
                self.deliveries.push(delivery);
            }
            Whole::Got(got) => {
                self.give(sink)?;
                sink(Op::Got(got))?;
            }
        }
        Ok(())
    }

    fn make_room(&mut self, of: Of<'a>, len: usize, sink: &mut impl FnMut(Op<'_>) -> Taken) -> Taken {
        if self.of.as_ref() != Some(&of) || len >= RUN_MAX {
            self.give(sink)?;
            self.of = Some(of);
        }
        Ok(())
    }

    fn give(&mut self, sink: &mut impl FnMut(Op<'_>) -> Taken) -> Taken {
        let Some(of) = self.of.take() else { return Ok(()) };
        let taken = match of {
            Of::Publishes(queues) => sink(Op::Publish { queues, publishes: &self.publishes }),
            Of::Deliveries(queue) => sink(Op::Deliver { queue, deliveries: &self.deliveries }),
        };
        self.publishes.clear();
        self.deliveries.clear();
        taken
    }
}

const BAD_KEYS: LinkError = LinkError::Malformed("exchange and routing key are not well formed");

/// A method that carries no message.
fn small(payload: &[u8]) -> Result<Op<'_>, LinkError> {
    let (id, mut fields) = split_method(payload)?;
    let f = &mut fields;
    let op = match id {
        method::CONSUME => {
            let (request, queue, key) = (f.long()?, f.queue()?, f.consumer()?);
            let bits = f.flags(3)?;
            Op::Consume {
                request,
                queue,
                key,
                no_ack: bits & 1 != 0,
                exclusive: bits & 2 != 0,
                prefetch: f.short()?,
                priority: f.signed()?,
                room_bytes: f.signed()?,
            }
        }
        method::CANCEL => Op::Cancel { queue: f.queue()?, key: f.consumer()? },
        method::SETTLE => {
            let (queue, (first, last)) = (f.queue()?, f.range()?);
            let outcome = match f.octet()? {
                0 => Outcome::Ack,
                1 => Outcome::Requeue,
                2 => Outcome::Undelivered,
                3 => Outcome::Discard,
                _ => return Err(LinkError::Malformed("deliveries are settled in an unknown way")),
            };
            Op::Settle { queue, first, last, outcome }
        }
        method::ROOM => Op::Room { queue: f.queue()?, key: f.consumer()?, bytes: f.signed()? },
        method::GET => Op::Get { queue: f.queue()?, channel: f.channel()?, no_ack: f.flag()? },
        method::PURGE => Op::Purge { request: f.long()?, queue: f.queue()? },
        method::COUNT => Op::Count { request: f.long()?, queue: f.queue()? },
        method::GOT_NOTHING => Op::GotNothing { queue: f.queue()?, channel: f.channel()? },
        method::CONFIRMED | method::REFUSED => {
            let (channel, (first, last)) = (f.channel()?, f.range()?);
            match id {
                method::CONFIRMED => Op::Confirmed { channel, first, last },
                _ => Op::Refused { channel, first, last },
            }
        }
        method::ANSWER => Op::Answer { request: f.long()?, messages: f.long()?, consumers: f.long()? },
        method::REFUSAL => {
            let (request, code) = (f.long()?, f.short()?);
            Op::Refusal { request, code, text: f.text()? }
        }
        method::CREDIT => Op::Credit { octets: f.long()? },
        method::TALLY => {
            let of = match f.octet()? {
                0 => TallyOf::Vhost,
                1 => TallyOf::User,
                _ => return Err(LinkError::Malformed("a count is of something unknown")),
            };
            let (connections, channels) = (f.long()?, f.long()?);
            Op::Tally { of, name: f.text()?, connections, channels }
        }
        method::KEPT => {
            let len = f.short()?.into();
            Op::Kept { vhost: f.text_of(len)?, exchange: f.text()? }
        }
        method::REPLY => Op::Reply { address: std::mem::take(&mut f.0) },
        method::REQUESTER => Op::Requester { request: f.long()?, address: std::mem::take(&mut f.0) },
        method::APPLIED => Op::Applied { index: f.long()? },
        method::ANNOUNCE => Op::Announce { request: f.long()?, octets: std::mem::take(&mut f.0) },
        method => return Err(LinkError::Unknown { class: CLASS, method }),
    };
    if fields.0.is_empty() { Ok(op) } else { Err(LinkError::Malformed("a method is longer than it should be")) }
}
