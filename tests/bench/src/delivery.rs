//! Reads what one consumer is sent and checks each delivery: envelope, properties, body, order.

use std::io;

use crate::checker::{FaultKind, Faults, Ledger};
use crate::payload::{self, Pattern, Shape};
use crate::wire::{self, Frame};

/// Octets of a deliver method before the consumer tag's text.
const DELIVER_HEAD: [u8; 4] = [0, 60, 0, 60];

/// The reader of one consumer on channel 1 of its connection.
#[derive(Debug)]
pub struct DeliveryReader {
    consumer: usize,
    /// Class, method and consumer tag of each delivery.
    prefix: Vec<u8>,
    /// The redelivered flag, exchange and routing key of each delivery.
    suffix: Vec<u8>,
    /// The payload of each content header.
    header: Vec<u8>,
    body_length: usize,
    expect: Expect,
    next_tag: u64,
    /// The first part of a body that comes in several frames.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Deliver,
    Header,
    Body,
}

impl DeliveryReader {
    /// A reader for consumer number `consumer` of a queue, with this tag, of messages that were published to `exchange`
    /// with `routing_key`.
    #[must_use]
    pub fn new(consumer: usize, tag: &str, exchange: &str, routing_key: &str, shape: Shape) -> Self {
        let mut prefix = DELIVER_HEAD.to_vec();
        wire::put_short_string(&mut prefix, tag);
        let mut suffix = vec![0];
        wire::put_short_string(&mut suffix, exchange);
        wire::put_short_string(&mut suffix, routing_key);
        let mut header = Vec::new();
        wire::put_u16(&mut header, 60);
        wire::put_u16(&mut header, 0);
        wire::put_u64(&mut header, shape.body_length as u64);
        header.extend_from_slice(&shape.properties());
        Self {
            consumer,
            prefix,
            suffix,
            header,
            body_length: shape.body_length,
            expect: Expect::Deliver,
            next_tag: 1,
            partial: Vec::new(),
        }
    }

    /// The delivery tag of the last message that came whole, 0 before the first.
    #[must_use]
    pub fn last_tag(&self) -> u64 {
        self.current_tag() - u64::from(self.expect != Expect::Deliver)
    }

    /// Takes all whole frames of `octets`, notes the messages in `ledger` and what is wrong in `faults`. Returns how many
    /// octets were used.
    ///
    /// # Errors
    /// When the octets are no frames, or the broker closes: nothing after it can be understood.
    pub fn read(
        &mut self,
        octets: &[u8],
        pattern: &Pattern,
        ledger: &mut Ledger,
        faults: &mut Faults,
    ) -> io::Result<usize> {
        let mut used = 0;
        while let Some(frame) = wire::parse_frame(octets.get(used..).unwrap_or_default())? {
            match (self.expect, frame.kind) {
                (Expect::Deliver, wire::METHOD) => self.deliver(&frame, faults)?,
                (Expect::Header, wire::HEADER) => self.header(&frame, faults),
                (Expect::Body, wire::BODY) => self.body(&frame, pattern, ledger, faults),
                (Expect::Deliver, HEARTBEAT) => {}
                (expected, kind) => return Err(wire::broken(&format!("frame type {kind} instead of {expected:?}"))),
            }
            used += frame.wire_length();
        }
        Ok(used)
    }

    /// The delivery tag of the message that came last, whole or not.
    fn current_tag(&self) -> u64 {
        self.next_tag - 1
    }

    fn deliver(&mut self, frame: &Frame<'_>, faults: &mut Faults) -> io::Result<()> {
        if !frame.payload.starts_with(&DELIVER_HEAD) {
            return Err(wire::broken(&format!(
                "method {:?} {:?}",
                frame.method_id(),
                String::from_utf8_lossy(frame.payload.get(4..).unwrap_or_default())
            )));
        }
        let rest = frame.payload.strip_prefix(self.prefix.as_slice()).and_then(<[u8]>::split_first_chunk::<8>);
        let right = rest.is_some_and(|(tag, rest)| u64::from_be_bytes(*tag) == self.next_tag && rest == self.suffix);
        if !right || frame.channel != 1 {
            let redelivered = rest.is_some_and(|(_, rest)| rest.first() == Some(&1));
            let kind = if redelivered { FaultKind::Redelivered } else { FaultKind::Envelope };
            faults.add(kind, || format!("delivery {}: {:?}", self.next_tag, String::from_utf8_lossy(frame.payload)));
        }
        self.next_tag += 1;
        self.expect = Expect::Header;
        Ok(())
    }

    fn header(&mut self, frame: &Frame<'_>, faults: &mut Faults) {
        if frame.payload != self.header {
            faults.add(FaultKind::Properties, || format!("delivery {}: {:?}", self.current_tag(), frame.payload));
        }
        self.expect = Expect::Body;
    }

    fn body(&mut self, frame: &Frame<'_>, pattern: &Pattern, ledger: &mut Ledger, faults: &mut Faults) {
        if self.partial.is_empty() && frame.payload.len() >= self.body_length {
            self.expect = Expect::Deliver;
            self.check_body(frame.payload, pattern, ledger, faults);
            return;
        }
        self.partial.extend_from_slice(frame.payload);
        if self.partial.len() >= self.body_length {
            self.expect = Expect::Deliver;
            let whole = std::mem::take(&mut self.partial);
            self.check_body(&whole, pattern, ledger, faults);
        }
    }

    fn check_body(&self, body: &[u8], pattern: &Pattern, ledger: &mut Ledger, faults: &mut Faults) {
        match payload::read_body(body, pattern) {
            Some((producer, sequence)) => ledger.delivered(self.consumer, producer, sequence, faults),
            None => faults.add(FaultKind::Body, || {
                let head = body.get(..body.len().min(payload::BODY_HEAD)).unwrap_or_default();
                format!("delivery {}: {} octets, the first are {head:?}", self.current_tag(), body.len())
            }),
        }
    }
}

const HEARTBEAT: u8 = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHAPE: Shape = Shape { body_length: 40, persistent: false };

    /// A delivery with everything that a test may want to get wrong.
    struct Delivery {
        tag: u64,
        redelivered: u8,
        routing_key: &'static str,
        sequence: u64,
        shape: Shape,
        tail_of: u64,
    }

    impl Delivery {
        fn right(sequence: u64) -> Self {
            Self { tag: sequence + 1, redelivered: 0, routing_key: "q", sequence, shape: SHAPE, tail_of: sequence }
        }

        fn write(&self, pattern: &Pattern, pieces: usize, out: &mut Vec<u8>) {
            wire::put_method(out, 1, wire::BASIC_DELIVER, |out| {
                wire::put_short_string(out, "c");
                wire::put_u64(out, self.tag);
                out.push(self.redelivered);
                wire::put_short_string(out, "");
                wire::put_short_string(out, self.routing_key);
            });
            wire::put_content_header(out, 1, SHAPE.body_length, &self.shape.properties());
            let mut body = payload::body_head(0, self.sequence).to_vec();
            body.extend_from_slice(pattern.tail(self.tail_of));
            for piece in body.chunks(body.len().div_ceil(pieces)) {
                wire::put_frame(out, wire::BODY, 1, |out| out.extend_from_slice(piece));
            }
        }
    }

    fn faults_of(deliveries: &[Delivery], pieces: usize, step: usize) -> Vec<FaultKind> {
        let pattern = Pattern::new(SHAPE, 8);
        let mut octets = Vec::new();
        deliveries.iter().for_each(|delivery| delivery.write(&pattern, pieces, &mut octets));
        let mut reader = DeliveryReader::new(0, "c", "", "q", SHAPE);
        let (mut ledger, mut faults) = (Ledger::new(vec![true], 1), Faults::default());
        let (mut start, mut end) = (0, 0);
        while end < octets.len() {
            end = (end + step).min(octets.len());
            start += reader.read(&octets[start..end], &pattern, &mut ledger, &mut faults).unwrap();
        }
        assert_eq!(start, octets.len());
        ledger.close(&[deliveries.len() as u64], &mut faults);
        faults.told().iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn right_deliveries_have_no_fault_however_they_are_cut() {
        let deliveries: Vec<_> = (0..20).map(Delivery::right).collect();
        for pieces in [1, 3] {
            for step in [1, 7, 100, 10_000] {
                assert_eq!(faults_of(&deliveries, pieces, step), []);
            }
        }
    }

    #[test]
    fn each_wrong_part_is_seen() {
        let wrong = |change: fn(&mut Delivery)| {
            let mut delivery = Delivery::right(0);
            change(&mut delivery);
            faults_of(&[delivery], 1, 10_000)
        };
        assert_eq!(wrong(|delivery| delivery.redelivered = 1), [FaultKind::Redelivered]);
        assert_eq!(wrong(|delivery| delivery.tag = 2), [FaultKind::Envelope]);
        assert_eq!(wrong(|delivery| delivery.routing_key = "r"), [FaultKind::Envelope]);
        assert_eq!(wrong(|delivery| delivery.shape.persistent = true), [FaultKind::Properties]);
        assert_eq!(wrong(|delivery| delivery.tail_of = 1), [FaultKind::Body, FaultKind::Lost]);
    }

    #[test]
    fn loss_duplicates_and_order_are_seen_on_the_wire() {
        let with = |sequences: &[u64]| {
            let deliveries: Vec<_> =
                (1..).zip(sequences).map(|(tag, &sequence)| Delivery { tag, ..Delivery::right(sequence) }).collect();
            faults_of(&deliveries, 1, 10_000)
        };
        assert_eq!(with(&[0, 2, 3]), [FaultKind::Lost]);
        assert_eq!(with(&[0, 1, 1]), [FaultKind::Duplicate, FaultKind::Lost]);
        assert_eq!(with(&[0, 2, 1]), [FaultKind::Reordered]);
    }

    #[test]
    fn a_close_from_the_broker_is_an_error() {
        let mut octets = Vec::new();
        wire::put_method(&mut octets, 1, wire::CHANNEL_CLOSE, |out| wire::put_u16(out, 404));
        let mut reader = DeliveryReader::new(0, "c", "", "q", SHAPE);
        let pattern = Pattern::new(SHAPE, 8);
        let (mut ledger, mut faults) = (Ledger::new(vec![true], 1), Faults::default());
        assert!(reader.read(&octets, &pattern, &mut ledger, &mut faults).is_err());
    }
}
