//! Operations to octets.

use broker_core::message::Content;
use broker_core::queue::{ChannelKey, ConsumerKey, Delivery, Outcome, Publish};
use broker_core::store::QueueId;

use super::op::{Got, Op, TallyOf};
use super::{CLASS, FRAME_MAX_BYTES, method};
use crate::codec;
use crate::frame::{self, HEAD_BYTES, Head};
use crate::send_buffer::SendBuffer;

/// A text that the client is told is cut to this, as any short string.
const TEXT_MAX_BYTES: usize = 255;

pub(super) fn publish(send: &mut SendBuffer, queues: &[QueueId], publish: &Publish<'_>) {
    let Publish { channel, publish_seq, content } = *publish;
    message(send, method::PUBLISH, content, 0, |out| {
        out.extend_from_slice(&(queues.len() as u16).to_be_bytes());
        for queue in queues {
            out.extend_from_slice(&queue.0.to_be_bytes());
        }
        put_channel(out, channel);
        out.extend_from_slice(&publish_seq.to_be_bytes());
    });
}

pub(super) fn deliver(send: &mut SendBuffer, queue: QueueId, delivery: &Delivery<'_>) {
    let Delivery { key, queue_tag, redelivered, content } = *delivery;
    message(send, method::DELIVER, content, flags(redelivered), |out| {
        out.extend_from_slice(&queue.0.to_be_bytes());
        put_consumer(out, key);
        out.extend_from_slice(&queue_tag.to_be_bytes());
    });
}

pub(super) fn got(send: &mut SendBuffer, got: &Got<'_>) {
    let Got { queue, channel, queue_tag, redelivered, remaining, content } = *got;
    message(send, method::GOT, content, flags(redelivered), |out| {
        out.extend_from_slice(&queue.0.to_be_bytes());
        put_channel(out, channel);
        out.extend_from_slice(&queue_tag.to_be_bytes());
        out.extend_from_slice(&remaining.to_be_bytes());
    });
}

pub(super) fn say(send: &mut SendBuffer, op: &Op<'_>) {
    match *op {
        Op::Publish { .. } | Op::Deliver { .. } | Op::Got(_) => {}
        Op::Consume { request, queue, key, no_ack, exclusive, prefetch, priority, room_bytes } => {
            small(send, method::CONSUME, |out| {
                put(out, [request, queue.0]);
                put_consumer(out, key);
                out.push(u8::from(no_ack) | u8::from(exclusive) << 1);
                out.extend_from_slice(&prefetch.to_be_bytes());
                out.extend_from_slice(&priority.to_be_bytes());
                out.extend_from_slice(&room_bytes.to_be_bytes());
            });
        }
        Op::Cancel { queue, key } => small(send, method::CANCEL, |out| {
            put(out, [queue.0]);
            put_consumer(out, key);
        }),
        Op::Settle { queue, first, last, outcome } => small(send, method::SETTLE, |out| {
            put(out, [queue.0, first, last]);
            out.push(match outcome {
                Outcome::Ack => 0,
                Outcome::Requeue => 1,
                Outcome::Undelivered => 2,
                Outcome::Discard => 3,
            });
        }),
        Op::Room { queue, key, bytes } => small(send, method::ROOM, |out| {
            put(out, [queue.0]);
            put_consumer(out, key);
            out.extend_from_slice(&bytes.to_be_bytes());
        }),
        Op::Get { queue, channel, no_ack } => small(send, method::GET, |out| {
            put(out, [queue.0]);
            put_channel(out, channel);
            out.push(u8::from(no_ack));
        }),
        Op::Purge { request, queue } => small(send, method::PURGE, |out| put(out, [request, queue.0])),
        Op::Count { request, queue } => small(send, method::COUNT, |out| put(out, [request, queue.0])),
        Op::GotNothing { queue, channel } => small(send, method::GOT_NOTHING, |out| {
            put(out, [queue.0]);
            put_channel(out, channel);
        }),
        Op::Confirmed { channel, first, last } => answer_publishes(send, method::CONFIRMED, channel, first, last),
        Op::Refused { channel, first, last } => answer_publishes(send, method::REFUSED, channel, first, last),
        Op::Answer { request, messages, consumers } => {
            small(send, method::ANSWER, |out| put(out, [request, messages, consumers]));
        }
        Op::Refusal { request, code, text } => small(send, method::REFUSAL, |out| {
            put(out, [request]);
            out.extend_from_slice(&code.to_be_bytes());
            let end = text.floor_char_boundary(TEXT_MAX_BYTES);
            out.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
        }),
        Op::Credit { octets } => small(send, method::CREDIT, |out| put(out, [octets])),
        Op::Announce { request, octets } => small(send, method::ANNOUNCE, |out| {
            put(out, [request]);
            out.extend_from_slice(octets);
        }),
        Op::Tally { of, name, connections, channels } => small(send, method::TALLY, |out| {
            out.push(u8::from(of == TallyOf::User));
            put(out, [connections, channels]);
            out.extend_from_slice(name.as_bytes());
        }),
        Op::Kept { vhost, exchange } => small(send, method::KEPT, |out| {
            out.extend_from_slice(&(vhost.len() as u16).to_be_bytes());
            out.extend_from_slice(vhost.as_bytes());
            out.extend_from_slice(exchange.as_bytes());
        }),
        Op::Reply { address } => small(send, method::REPLY, |out| out.extend_from_slice(address)),
        Op::Requester { request, address } => small(send, method::REQUESTER, |out| {
            put(out, [request]);
            out.extend_from_slice(address);
        }),
        Op::Applied { index } => small(send, method::APPLIED, |out| put(out, [index])),
    }
}

fn answer_publishes(send: &mut SendBuffer, id: u16, channel: ChannelKey, first: u64, last: u64) {
    small(send, id, |out| {
        put_channel(out, channel);
        put(out, [first, last]);
    });
}

fn flags(redelivered: bool) -> u8 {
    if redelivered { method::REDELIVERED } else { 0 }
}

/// A method without a message.
fn small(send: &mut SendBuffer, id: u16, fields: impl FnOnce(&mut Vec<u8>)) {
    send.append(|out| {
        frame::write(out, frame::METHOD, 0, |out| {
            put_method(out, id);
            fields(out);
        });
    });
}

/// A method, and the message it carries: flags and routing keys come behind the fields.
fn message(send: &mut SendBuffer, id: u16, content: Content<'_>, flags: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let pieces = content.pieces();
    let write_method = |out: &mut Vec<u8>| {
        let start = out.len();
        out.extend_from_slice(&Head { kind: frame::METHOD, channel: 0, size: 0 }.octets());
        put_method(out, id);
        fields(out);
        let flags_at = out.len();
        out.push(flags | if content.persistent() { method::PERSISTENT } else { 0 });
        out.extend_from_slice(pieces.route);
        if let Content::Kept(message) = content {
            let route_end = out.len();
            for key in message.hidden_keys() {
                frame::write_short_string(out, key);
            }
            if out.len() > route_end
                && let Some(flags) = out.get_mut(flags_at)
            {
                *flags |= method::HIDDEN_KEYS;
            }
        }
        let size = (out.len() - start - HEAD_BYTES) as u32;
        if let Some(place) = out.get_mut(start + 3..start + HEAD_BYTES) {
            place.copy_from_slice(&size.to_be_bytes());
        }
    };
    codec::write_content(send, 0, content, pieces, FRAME_MAX_BYTES, 64 + pieces.route.len(), write_method);
}

fn put_method(out: &mut Vec<u8>, id: u16) {
    out.extend_from_slice(&CLASS.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
}

fn put<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn put_channel(out: &mut Vec<u8>, key: ChannelKey) {
    out.extend_from_slice(&key.connection.to_be_bytes());
    out.extend_from_slice(&key.channel.to_be_bytes());
}

fn put_consumer(out: &mut Vec<u8>, key: ConsumerKey) {
    put_channel(out, key.channel);
    out.extend_from_slice(&key.consumer.to_be_bytes());
}
