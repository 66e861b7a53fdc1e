//! Requests by the thousand.

use std::collections::BTreeMap;
use std::io;

use crate::session::{Session, queue_declare_arguments};
use crate::wire::{self, MethodId};

/// Requests of one channel follow each other: so many channels ask at once.
const CHANNELS: u16 = 64;
/// Requests sent before the first answer is read.
const WINDOW: usize = 512;

/// Flag of a durable queue.
pub(crate) const DURABLE: u8 = 2;
/// Flag of an exclusive queue.
pub(super) const EXCLUSIVE: u8 = 4;

/// Opens the channels that ask.
pub(crate) fn open_channels(session: &mut Session) -> io::Result<()> {
    for channel in 1..=CHANNELS {
        session.call(channel, wire::CHANNEL_OPEN, |out| wire::put_short_string(out, ""), wire::CHANNEL_OPEN_OK)?;
    }
    Ok(())
}

/// Asks so often, with many requests on their way at once.
pub(crate) fn in_bulk(
    session: &mut Session,
    count: usize,
    method: MethodId,
    answer: MethodId,
    fill: impl Fn(&mut Vec<u8>, usize),
) -> io::Result<()> {
    let mut out = Vec::new();
    let (mut asked, mut answered) = (0, 0);
    while answered < count {
        out.clear();
        while asked < count && asked - answered < WINDOW {
            let channel = 1 + (asked % usize::from(CHANNELS)) as u16;
            wire::put_method(&mut out, channel, method, |out| fill(out, asked));
            asked += 1;
        }
        session.send(&out)?;
        // A part of the answers is enough to go on asking.
        for _ in 0..(WINDOW / 2).min(asked - answered) {
            session.expect(answer)?;
            answered += 1;
        }
    }
    Ok(())
}

/// Waits for answers of several kinds, so many of each. Those of different channels come in any order.
pub(super) fn answers(session: &mut Session, wanted: &[(MethodId, usize)]) -> io::Result<()> {
    let mut missing: BTreeMap<MethodId, usize> = wanted.iter().copied().filter(|(_, count)| *count > 0).collect();
    while !missing.is_empty() {
        let frame = session.receive()?;
        let method = frame.borrow().method_id();
        let Some((&found, left)) = method.and_then(|method| missing.iter_mut().find(|(of, _)| **of == method)) else {
            return Err(io::Error::other(format!("got {method:?} while these were missing: {missing:?}")));
        };
        *left -= 1;
        if *left == 0 {
            missing.remove(&found);
        }
    }
    Ok(())
}

pub(crate) fn queue_name(number: usize) -> String {
    format!("scale-{number:06}")
}

pub(crate) fn declare_queues(session: &mut Session, count: usize, flags: u8) -> io::Result<()> {
    in_bulk(session, count, wire::QUEUE_DECLARE, wire::QUEUE_DECLARE_OK, |out, number| {
        queue_declare_arguments(out, &queue_name(number), flags);
    })
}

pub(super) fn delete_queues(session: &mut Session, count: usize) -> io::Result<()> {
    in_bulk(session, count, wire::QUEUE_DELETE, wire::QUEUE_DELETE_OK, |out, number| {
        wire::put_u16(out, 0);
        wire::put_short_string(out, &queue_name(number));
        out.push(0);
    })
}

pub(crate) fn declare_exchange(session: &mut Session, name: &str, kind: &str) -> io::Result<()> {
    let fill = |out: &mut Vec<u8>| exchange_arguments(out, name, kind);
    session.call(1, wire::EXCHANGE_DECLARE, fill, wire::EXCHANGE_DECLARE_OK)?;
    Ok(())
}

pub(super) fn declare_exchanges(session: &mut Session, count: usize) -> io::Result<()> {
    in_bulk(session, count, wire::EXCHANGE_DECLARE, wire::EXCHANGE_DECLARE_OK, |out, number| {
        exchange_arguments(out, &queue_name(number), "direct");
    })
}

pub(super) fn delete_exchanges(session: &mut Session, count: usize) -> io::Result<()> {
    in_bulk(session, count, wire::EXCHANGE_DELETE, wire::EXCHANGE_DELETE_OK, |out, number| {
        wire::put_u16(out, 0);
        wire::put_short_string(out, &queue_name(number));
        out.push(0);
    })
}

fn exchange_arguments(out: &mut Vec<u8>, name: &str, kind: &str) {
    wire::put_u16(out, 0);
    wire::put_short_string(out, name);
    wire::put_short_string(out, kind);
    out.push(DURABLE);
    wire::put_u32(out, 0);
}

/// Binds, with the queue, the exchange and the key of each.
pub(crate) fn bind_all(
    session: &mut Session,
    count: usize,
    binding: impl Fn(usize) -> (String, &'static str, String),
) -> io::Result<()> {
    in_bulk(session, count, wire::QUEUE_BIND, wire::QUEUE_BIND_OK, |out, number| {
        binding_arguments(out, &binding(number));
        out.push(0);
        wire::put_u32(out, 0);
    })
}

/// Takes such bindings away.
pub(super) fn unbind_all(
    session: &mut Session,
    count: usize,
    binding: impl Fn(usize) -> (String, &'static str, String),
) -> io::Result<()> {
    in_bulk(session, count, wire::QUEUE_UNBIND, wire::QUEUE_UNBIND_OK, |out, number| {
        binding_arguments(out, &binding(number));
        wire::put_u32(out, 0);
    })
}

fn binding_arguments(out: &mut Vec<u8>, (queue, exchange, key): &(String, &'static str, String)) {
    wire::put_u16(out, 0);
    wire::put_short_string(out, queue);
    wire::put_short_string(out, exchange);
    wire::put_short_string(out, key);
}

/// The arguments of basic.consume, with a tag of this number.
pub(super) fn consume_arguments(out: &mut Vec<u8>, queue: &str, number: usize) {
    wire::put_u16(out, 0);
    wire::put_short_string(out, queue);
    wire::put_short_string(out, &queue_name(number));
    out.push(0);
    wire::put_u32(out, 0);
}

pub(crate) fn publish(session: &mut Session, exchange: &str, key: &str, body: &[u8]) -> io::Result<()> {
    let mut out = Vec::new();
    wire::put_method(&mut out, 1, wire::BASIC_PUBLISH, |out| {
        wire::put_u16(out, 0);
        wire::put_short_string(out, exchange);
        wire::put_short_string(out, key);
        out.push(0);
    });
    wire::put_content_header(&mut out, 1, body.len(), &[0, 0]);
    wire::put_frame(&mut out, wire::BODY, 1, |out| out.extend_from_slice(body));
    session.send(&out)
}
