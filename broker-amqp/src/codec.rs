//! The frames that come by the million: read where they lie, written from octets that are already there.
//!
//! A publish is recognised when its method, header and body frames lie side by side in one read; anything unusual is left to the frame-by-frame
//! path, which knows the exceptions. A delivery is the consumer's prefix, a tag, and the message's own route, header and body.

use broker_core::message::{Content, Message, Pieces};
use bytes::Bytes;

use crate::content::{self, Facts};
use crate::frame::{self, HEAD_BYTES, Head, OVERHEAD_BYTES};
use crate::send_buffer::{SHARE_MIN_BYTES, SendBuffer};

const BASIC: u16 = 60;
/// Bit of `basic.publish` and of its kin.
pub(crate) const MANDATORY: u8 = 1;
pub(crate) const IMMEDIATE: u8 = 2;

/// A whole publish, as it lies in the octets read.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// The channel.
    pub channel: u16,
    /// Return it if it goes to no queue.
    pub mandatory: bool,
    /// Exchange and routing key: two short strings.
    pub route: &'a [u8],
    /// The content header's payload.
    pub header: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// What the properties say.
    pub facts: Facts,
    /// Octets of its frames.
    pub len: usize,
}

/// The publish that begins here, if all of it is here, in one body frame at most, and nothing about it is unusual.
#[inline]
pub fn parse_publish(octets: &[u8], payload_max: u32) -> Option<Publish<'_>> {
    let (channel, method, rest) = split_frame(octets, frame::METHOD, payload_max)?;
    let [0, 60, 0, 40, _, _, route @ .., bits] = method else { return None };
    if bits & IMMEDIATE != 0 || channel == 0 {
        return None;
    }
    let (&exchange_len, names) = route.split_first()?;
    let key = names.get(usize::from(exchange_len)..)?;
    if key.len() != 1 + usize::from(*key.first()?) {
        return None;
    }
    let (header_channel, header, rest) = split_frame(rest, frame::HEADER, payload_max)?;
    let (&[0, 60, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7], properties) = header.split_first_chunk()? else { return None };
    let facts = content::check(properties)?;
    let body_len = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let (body_channel, body, rest) =
        if body_len > 0 { split_frame(rest, frame::BODY, payload_max)? } else { (channel, &[][..], rest) };
    if header_channel != channel || body_channel != channel || body.len() as u64 != body_len {
        return None;
    }
    let len = octets.len() - rest.len();
    Some(Publish { channel, mandatory: bits & MANDATORY != 0, route, header, body, facts, len })
}

/// Channel and payload of the frame of this kind that begins here, if all of it is here and within the limit, and the octets after it.
#[inline]
fn split_frame(octets: &[u8], kind: u8, payload_max: u32) -> Option<(u16, &[u8], &[u8])> {
    let (&[its_kind, c0, c1, s0, s1, s2, s3], rest) = octets.split_first_chunk::<HEAD_BYTES>()?;
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if its_kind != kind || size > payload_max {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size as usize)?;
    let (&end, rest) = rest.split_first()?;
    (end == frame::END).then_some((u16::from_be_bytes([c0, c1]), payload, rest))
}

/// Octets of a `basic.ack`'s frame.
pub(crate) const ACK_BYTES: usize = 21;

/// Channel and tag of the acknowledgement of one delivery that begins here, if all of it is here.
#[inline]
pub(crate) fn parse_single_ack(octets: &[u8]) -> Option<(u16, u64)> {
    let &[frame::METHOD, c0, c1, 0, 0, 0, 13, 0, 60, 0, 80, t0, t1, t2, t3, t4, t5, t6, t7, 0, frame::END] =
        octets.first_chunk::<ACK_BYTES>()?
    else {
        return None;
    };
    Some((u16::from_be_bytes([c0, c1]), u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])))
}

/// A `basic.ack`, `basic.reject` or `basic.nack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) tag: u64,
    pub(crate) bits: u8,
}

/// Tag and bits of an acknowledgement's payload after class and method.
#[inline]
pub(crate) fn parse_acknowledgement(fields: &[u8]) -> Option<Acknowledgement> {
    let &[t0, t1, t2, t3, t4, t5, t6, t7, bits] = fields else { return None };
    Some(Acknowledgement { tag: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]), bits })
}

/// What all of a consumer's deliveries begin with: the frame's head, class, method and the consumer tag.
pub(crate) fn deliver_prefix(channel: u16, consumer_tag: &[u8]) -> Box<[u8]> {
    let mut prefix = Vec::with_capacity(HEAD_BYTES + 5 + consumer_tag.len());
    prefix.extend_from_slice(&Head { kind: frame::METHOD, channel, size: 0 }.octets());
    prefix.extend_from_slice(&[0, BASIC as u8, 0, 60]);
    frame::write_short_string(&mut prefix, consumer_tag);
    prefix.into_boxed_slice()
}

/// The consumer tag in a prefix.
pub(crate) fn prefix_tag(prefix: &[u8]) -> &[u8] {
    prefix.get(HEAD_BYTES + 5..).unwrap_or_default()
}

/// Appends a whole `basic.deliver`. `frame_max` is the largest frame in octets.
#[inline]
pub(crate) fn write_deliver(
    send: &mut SendBuffer,
    prefix: &[u8],
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    content: Content<'_>,
    frame_max: u32,
) {
    let pieces = content.pieces();
    let route = pieces.route;
    let [t0, t1, t2, t3, t4, t5, t6, t7] = delivery_tag.to_be_bytes();
    let tag = [t0, t1, t2, t3, t4, t5, t6, t7, u8::from(redelivered)];
    let size = (prefix.len() - HEAD_BYTES + tag.len() + route.len()) as u32;
    let write_method = |out: &mut Vec<u8>| {
        let start = out.len();
        out.extend_from_slice(prefix);
        if let Some(place) = out.get_mut(start + 3..start + HEAD_BYTES) {
            place.copy_from_slice(&size.to_be_bytes());
        }
        out.extend_from_slice(&tag);
        out.extend_from_slice(route);
    };
    write_content(send, channel, content, pieces, frame_max, size as usize, write_method);
}

/// Appends a whole `basic.get-ok`.
pub(crate) fn write_get_ok(
    send: &mut SendBuffer,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    remaining: u32,
    message: &Message,
    frame_max: u32,
) {
    let pieces = message.pieces();
    let route = pieces.route;
    let size = 4 + 9 + route.len() + 4;
    let write_method = |out: &mut Vec<u8>| {
        out.extend_from_slice(&Head { kind: frame::METHOD, channel, size: size as u32 }.octets());
        out.extend_from_slice(&[0, BASIC as u8, 0, 71]);
        out.extend_from_slice(&delivery_tag.to_be_bytes());
        out.push(u8::from(redelivered));
        out.extend_from_slice(route);
        out.extend_from_slice(&remaining.to_be_bytes());
    };
    write_content(send, channel, Content::Kept(message), pieces, frame_max, size, write_method);
}

/// Appends a whole `basic.return` with 312 NO_ROUTE.
pub(crate) fn write_return(send: &mut SendBuffer, channel: u16, message: &Message, frame_max: u32) {
    const REASON: &[u8] = b"\x01\x38\x08NO_ROUTE";
    let pieces = message.pieces();
    let route = pieces.route;
    let size = 4 + REASON.len() + route.len();
    let write_method = |out: &mut Vec<u8>| {
        out.extend_from_slice(&Head { kind: frame::METHOD, channel, size: size as u32 }.octets());
        out.extend_from_slice(&[0, BASIC as u8, 0, 50]);
        out.extend_from_slice(REASON);
        out.extend_from_slice(route);
    };
    write_content(send, channel, Content::Kept(message), pieces, frame_max, size, write_method);
}

/// Appends a method frame (all but its end) through `write_method`, then its end, the header frame and the body frames.
#[inline]
pub(crate) fn write_content(
    send: &mut SendBuffer,
    channel: u16,
    content: Content<'_>,
    pieces: Pieces<'_>,
    frame_max: u32,
    method_len: usize,
    write_method: impl FnOnce(&mut Vec<u8>),
) {
    let header = pieces.header;
    let [c0, c1] = channel.to_be_bytes();
    let [h0, h1, h2, h3] = (header.len() as u32).to_be_bytes();
    let header_head = [frame::END, frame::HEADER, c0, c1, h0, h1, h2, h3];
    let body = pieces.inline_body.filter(|body| body.len() + OVERHEAD_BYTES <= frame_max as usize);
    send.append(|out| {
        out.reserve(method_len + header.len() + 3 * OVERHEAD_BYTES + body.map_or(0, <[u8]>::len));
        write_method(out);
        out.extend_from_slice(&header_head);
        out.extend_from_slice(header);
        match body {
            None | Some([]) => out.push(frame::END),
            Some(body) => {
                let [b0, b1, b2, b3] = (body.len() as u32).to_be_bytes();
                out.extend_from_slice(&[frame::END, frame::BODY, c0, c1, b0, b1, b2, b3]);
                out.extend_from_slice(body);
                out.push(frame::END);
            }
        }
    });
    if body.is_none() {
        write_body_frames(send, channel, content, frame_max as usize - OVERHEAD_BYTES);
    }
}

/// Body frames of at most `payload_max` octets, whatever pieces the body is held in. Large pieces are shared, not copied.
fn write_body_frames(send: &mut SendBuffer, channel: u16, content: Content<'_>, payload_max: usize) {
    let chunks = match content {
        Content::Kept(message) => message.chunks(),
        Content::Passing(_) => None,
    };
    let inline = content.pieces().inline_body.unwrap_or_default();
    let mut body_left = chunks.map_or(inline.len(), |chunks| chunks.iter().map(Bytes::len).sum());
    let mut frame_left = 0;
    let mut write_piece = |len: usize, append: &mut dyn FnMut(&mut SendBuffer, std::ops::Range<usize>)| {
        let mut at = 0;
        while at < len {
            if frame_left == 0 {
                frame_left = body_left.min(payload_max);
                let head = Head { kind: frame::BODY, channel, size: frame_left as u32 };
                send.append(|out| out.extend_from_slice(&head.octets()));
            }
            let now = frame_left.min(len - at);
            append(send, at..at + now);
            at += now;
            body_left -= now;
            frame_left -= now;
            if frame_left == 0 {
                send.append(|out| out.push(frame::END));
            }
        }
    };
    match chunks {
        Some(chunks) => {
            for chunk in chunks.iter() {
                write_piece(chunk.len(), &mut |send, range| append_range(send, chunk, range));
            }
        }
        None => write_piece(inline.len(), &mut |send, range| {
            send.append(|out| out.extend_from_slice(inline.get(range).unwrap_or_default()));
        }),
    }
}

fn append_range(send: &mut SendBuffer, chunk: &Bytes, range: std::ops::Range<usize>) {
    if range.len() < SHARE_MIN_BYTES {
        send.append(|out| out.extend_from_slice(chunk.get(range).unwrap_or_default()));
    } else {
        send.append_shared(chunk.slice(range));
    }
}

/// Appends a `basic.ack` (method 80) or `basic.nack` (method 120) for publishes.
pub(crate) fn write_confirm(out: &mut Vec<u8>, channel: u16, method: u8, publish_seq: u64, multiple: bool) {
    let [c0, c1] = channel.to_be_bytes();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = publish_seq.to_be_bytes();
    out.extend_from_slice(&[
        frame::METHOD,
        c0,
        c1,
        0,
        0,
        0,
        13,
        0,
        BASIC as u8,
        0,
        method,
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
        t7,
        u8::from(multiple),
        frame::END,
    ]);
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::{AMQPClass, basic};
    use proptest::prelude::*;

    use super::*;

    fn publish_octets(channel: u16, exchange: &[u8], key: &[u8], bits: u8, properties: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write(&mut out, frame::METHOD, channel, |out| {
            out.extend_from_slice(&[0, 60, 0, 40, 0, 0]);
            frame::write_short_string(out, exchange);
            frame::write_short_string(out, key);
            out.push(bits);
        });
        frame::write(&mut out, frame::HEADER, channel, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
            out.extend_from_slice(properties);
        });
        if !body.is_empty() {
            frame::write(&mut out, frame::BODY, channel, |out| out.extend_from_slice(body));
        }
        out
    }

    fn frames(mut octets: &[u8]) -> Vec<AMQPFrame> {
        let mut frames = Vec::new();
        while !octets.is_empty() {
            let (rest, frame) = parse_frame(octets).unwrap();
            frames.push(frame);
            octets = rest;
        }
        frames
    }

    fn written(send: &SendBuffer) -> Vec<u8> {
        send.as_io_slices(10_000).iter().flat_map(|slice| slice.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn deliveries_read_back_with_amq_protocol(
            exchange in "[a-z]{0,20}", key in "[a-z.]{0,20}", tag in "[a-z]{1,30}", delivery_tag in any::<u64>(),
            redelivered in any::<bool>(), body_len in prop_oneof![0_usize..100, 4_000_usize..20_000], frame_max in 4096_u32..10_000,
        ) {
            let body: Vec<u8> = (0..body_len).map(|at| (at * 7) as u8).collect();
            let octets = publish_octets(5, exchange.as_bytes(), key.as_bytes(), 1, &[0x10, 0, 2], &body);
            let publish = parse_publish(&octets, 131_072).unwrap();
            prop_assert_eq!(publish.len, octets.len());
            prop_assert!(publish.mandatory && publish.facts.persistent);
            let message = Message::new(publish.route, publish.header, publish.body, true, &mut Vec::new()).unwrap();
            let mut send = SendBuffer::default();
            let prefix = deliver_prefix(9, tag.as_bytes());
            write_deliver(&mut send, &prefix, 9, delivery_tag, redelivered, Content::Kept(&message), frame_max);
            prop_assert_eq!(send.len(), written(&send).len());
            let frames = frames(&written(&send));
            let AMQPFrame::Method(9, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) = &frames[0] else { panic!() };
            prop_assert_eq!(deliver.consumer_tag.as_str(), &tag);
            prop_assert_eq!((deliver.delivery_tag, deliver.redelivered), (delivery_tag, redelivered));
            prop_assert_eq!((deliver.exchange.as_str(), deliver.routing_key.as_str()), (&*exchange, &*key));
            let AMQPFrame::Header(9, header) = &frames[1] else { panic!() };
            prop_assert_eq!(header.body_size, body_len as u64);
            prop_assert_eq!(header.properties.delivery_mode(), &Some(2));
            let mut received = Vec::new();
            for frame in &frames[2..] {
                let AMQPFrame::Body(9, payload) = frame else { panic!() };
                prop_assert!(payload.len() + 8 <= frame_max as usize);
                received.extend_from_slice(payload);
            }
            prop_assert_eq!(received, body);
        }
    }

    #[test]
    fn unusual_publishes_are_left_to_the_other_path() {
        let good = publish_octets(1, b"x", b"k", 0, &[0, 0], b"body");
        assert!(parse_publish(&good, 4096).is_some());
        for cut in 0..good.len() {
            assert!(parse_publish(&good[..cut], 4096).is_none(), "cut at {cut}");
        }
        assert!(parse_publish(&publish_octets(1, b"x", b"k", IMMEDIATE, &[0, 0], b""), 4096).is_none());
        assert!(parse_publish(&publish_octets(0, b"x", b"k", 0, &[0, 0], b""), 4096).is_none());
        assert!(parse_publish(&publish_octets(1, b"x", b"k", 0, &[0x10, 0], b""), 4096).is_none());
        assert!(parse_publish(&publish_octets(1, b"x", b"k", 0, &[0, 0], &[0; 5000]), 4096).is_none());
    }

    #[test]
    fn get_ok_and_return_read_back() {
        let octets = publish_octets(1, b"x", b"k", 0, &[0, 0], &[]);
        let publish = parse_publish(&octets, 4096).unwrap();
        let message = Message::new(publish.route, publish.header, publish.body, false, &mut Vec::new()).unwrap();
        let mut send = SendBuffer::default();
        write_get_ok(&mut send, 1, 7, true, 3, &message, 4096);
        write_return(&mut send, 1, &message, 4096);
        let frames = frames(&written(&send));
        let AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::GetOk(ok))) = &frames[0] else { panic!() };
        assert_eq!((ok.delivery_tag, ok.redelivered, ok.message_count), (7, true, 3));
        let AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Return(returned))) = &frames[2] else { panic!() };
        assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
        assert_eq!(returned.routing_key.as_str(), "k");
        assert_eq!(frames.len(), 4);
    }
}
