//! What a message of the bench carries, so that a delivery can be checked octet by octet: its producer, its sequence
//! number, a check of both, and a tail that differs from message to message. A producer keeps a ring of such messages
//! as ready publish frames and only patches the numbers.

use std::io::{self, Write};

use crate::wire::{self, BASIC_PUBLISH};

/// Octets of a body before the tail: sequence number, producer, check.
pub const BODY_HEAD: usize = 16;
/// The most octets that go into one write.
const WRITE_LIMIT: usize = 256 * 1024;
/// The fewest messages in a ring.
const FEWEST_SLOTS: usize = 8;
/// The name each message carries in its app-id property, to see that properties come through.
const APP_ID: &str = "bench";

/// How the messages of one run look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Octets of a body, at least [`BODY_HEAD`] and at most what one frame holds.
    pub body_length: usize,
    /// Delivery mode 2 instead of 1.
    pub persistent: bool,
}

impl Shape {
    /// The property flags and values of each message: delivery mode and app-id.
    #[must_use]
    pub fn properties(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_u16(&mut out, (1 << 12) | (1 << 3));
        out.push(if self.persistent { 2 } else { 1 });
        wire::put_short_string(&mut out, APP_ID);
        out
    }
}

/// The tails of all messages: message `s` carries the octets from `s % period` on.
#[derive(Clone, Debug)]
pub struct Pattern {
    octets: Vec<u8>,
    period: usize,
    tail: usize,
}

impl Pattern {
    /// A pattern of at least `period` different tails for bodies of this shape; a power of two, so that no division is
    /// needed for each message.
    #[must_use]
    pub fn new(shape: Shape, period: usize) -> Self {
        let period = period.next_power_of_two();
        let tail = shape.body_length - BODY_HEAD;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let octets = (0..period + tail).map(|_| next_octet(&mut state)).collect();
        Self { octets, period, tail }
    }

    /// How many tails there are.
    #[must_use]
    pub fn period(&self) -> usize {
        self.period
    }

    /// The tail of message `sequence`.
    #[must_use]
    pub fn tail(&self, sequence: u64) -> &[u8] {
        let from = sequence as usize & (self.period - 1);
        self.octets.get(from..from + self.tail).unwrap_or_default()
    }
}

/// The first octets of message `sequence` of `producer`.
#[inline]
#[must_use]
pub fn body_head(producer: u32, sequence: u64) -> [u8; BODY_HEAD] {
    let mut head = [0; BODY_HEAD];
    let (first, rest) = head.split_at_mut(8);
    first.copy_from_slice(&sequence.to_be_bytes());
    let (second, third) = rest.split_at_mut(4);
    second.copy_from_slice(&producer.to_be_bytes());
    third.copy_from_slice(&check(producer, sequence).to_be_bytes());
    head
}

/// Producer and sequence number of a body, if its head and tail are what the producer wrote.
#[inline]
#[must_use]
pub fn read_body(body: &[u8], pattern: &Pattern) -> Option<(u32, u64)> {
    let (head, tail) = body.split_first_chunk::<BODY_HEAD>()?;
    let (sequence, rest) = head.split_first_chunk::<8>()?;
    let (producer, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, producer) = (u64::from_be_bytes(*sequence), u32::from_be_bytes(*producer));
    let intact = rest == check(producer, sequence).to_be_bytes() && tail == pattern.tail(sequence);
    intact.then_some((producer, sequence))
}

/// A producer's messages as publish frames, ready to be written.
#[derive(Debug)]
pub struct PublishRing {
    producer: u32,
    octets: Vec<u8>,
    slot: usize,
    slots: usize,
    head_at: usize,
    /// The message that is written next, or of which a part is written.
    next: u64,
    /// Octets of that message that are written.
    written: usize,
    /// The messages below are patched.
    patched: u64,
}

impl PublishRing {
    /// A ring for `producer` that publishes to `exchange` with `routing_key` on channel 1. It has as many messages as
    /// `pattern` has tails, so that only heads are patched.
    #[must_use]
    pub fn new(producer: u32, exchange: &str, routing_key: &str, shape: Shape, pattern: &Pattern) -> Self {
        let slots = pattern.period();
        let mut octets = Vec::new();
        let mut head_at = 0;
        for sequence in 0..slots as u64 {
            let from = octets.len();
            wire::put_method(&mut octets, 1, BASIC_PUBLISH, |out| {
                wire::put_u16(out, 0);
                wire::put_short_string(out, exchange);
                wire::put_short_string(out, routing_key);
                out.push(0);
            });
            wire::put_content_header(&mut octets, 1, shape.body_length, &shape.properties());
            head_at = octets.len() - from + wire::FRAME_PREFIX;
            wire::put_frame(&mut octets, wire::BODY, 1, |out| {
                out.extend_from_slice(&body_head(producer, sequence));
                out.extend_from_slice(pattern.tail(sequence));
            });
        }
        let slot = octets.len() / slots;
        Self { producer, octets, slot, slots, head_at, next: 0, written: 0, patched: 0 }
    }

    /// How many tails make a ring of about `octets` octets for this shape.
    #[must_use]
    pub fn period_for(shape: Shape, octets: usize) -> usize {
        (octets / (shape.body_length + 80)).max(FEWEST_SLOTS)
    }

    /// Octets of one message with its frames.
    #[must_use]
    pub fn message_length(&self) -> usize {
        self.slot
    }

    /// How many messages are written whole.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Whether a message is written in part, so that the connection can carry nothing else.
    #[must_use]
    pub fn mid_message(&self) -> bool {
        self.written > 0
    }

    /// One write of messages below number `limit`. Returns how many octets the socket took of how many offered.
    ///
    /// # Errors
    /// What the write returns, `WouldBlock` too.
    pub fn write_once(&mut self, limit: u64, stream: &mut impl Write) -> io::Result<(usize, usize)> {
        let first = self.next as usize & (self.slots - 1);
        let fit = (WRITE_LIMIT / self.slot).max(1).min(self.slots - first);
        let wanted = limit.saturating_sub(self.next).min(fit as u64);
        if wanted == 0 {
            return Ok((0, 0));
        }
        self.patch_up_to(self.next + wanted);
        let from = first * self.slot;
        let range = from + self.written..from + wanted as usize * self.slot;
        let offered = range.len();
        let taken = stream.write(self.octets.get(range).unwrap_or_default())?;
        self.written += taken;
        self.next += (self.written / self.slot) as u64;
        self.written %= self.slot;
        Ok((taken, offered))
    }

    fn patch_up_to(&mut self, end: u64) {
        for sequence in self.patched..end {
            let at = (sequence as usize & (self.slots - 1)) * self.slot + self.head_at;
            if let Some(place) = self.octets.get_mut(at..at + BODY_HEAD) {
                place.copy_from_slice(&body_head(self.producer, sequence));
            }
        }
        self.patched = self.patched.max(end);
    }
}

/// A number that a message mixed up from two others would not carry.
fn check(producer: u32, sequence: u64) -> u32 {
    let mixed = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(producer).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed ^ (mixed >> 32)) as u32
}

fn next_octet(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHAPE: Shape = Shape { body_length: 40, persistent: true };

    /// Takes a few octets at a time, so that writes end inside messages.
    struct Narrow(Vec<u8>);

    impl Write for Narrow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let taken = octets.len().min(61);
            self.0.extend_from_slice(&octets[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_ring_writes_each_message_once_in_order_over_several_turns() {
        let pattern = Pattern::new(SHAPE, 11);
        let mut ring = PublishRing::new(3, "", "q", SHAPE, &pattern);
        let mut wire_octets = Narrow(Vec::new());
        while ring.sent() < 40 {
            ring.write_once(40, &mut wire_octets).unwrap();
        }
        assert_eq!(ring.write_once(40, &mut wire_octets).unwrap(), (0, 0));
        let mut rest = wire_octets.0.as_slice();
        let mut sequence = 0;
        while let Some(frame) = wire::parse_frame(rest).unwrap() {
            if frame.kind == wire::BODY {
                assert_eq!(read_body(frame.payload, &pattern), Some((3, sequence)));
                sequence += 1;
            }
            rest = &rest[frame.wire_length()..];
        }
        assert_eq!((sequence, rest.len()), (40, 0));
    }

    #[test]
    fn each_changed_octet_of_a_body_is_seen() {
        let pattern = Pattern::new(SHAPE, 11);
        let mut body = body_head(1, 5).to_vec();
        body.extend_from_slice(pattern.tail(5));
        assert_eq!(read_body(&body, &pattern), Some((1, 5)));
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert_eq!(read_body(&changed, &pattern), None, "octet {at}");
        }
        assert_eq!(read_body(&body[..39], &pattern), None);
    }

    #[test]
    fn the_tail_of_another_message_is_seen() {
        let pattern = Pattern::new(SHAPE, 11);
        let mut body = body_head(1, 5).to_vec();
        body.extend_from_slice(pattern.tail(6));
        assert_eq!(read_body(&body, &pattern), None);
    }
}
