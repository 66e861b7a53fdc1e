//! A block: what one page-out wrote into a segment, with an index of its own.
//!
//! ```text
//! head (52, padded to 56) | message records … | index record, padded to 8 | head again, marked as the trailer
//! ```
//!
//! The head says how long data and index are, so a start reads heads and indexes only, whatever lies between. The trailer finds the index when the
//! head has rotted.

use super::super::record::{Encoder, HEAD_BYTES, Key, Kind, MESSAGE_MIN_BYTES, Record, take_u64};
use super::super::varint;
use super::super::{EntryFlags, NUMBER_MAX, QueueId, Seq};
use crate::queue::StoredEntry;

/// Blocks and their trailers begin at multiples of this.
pub(super) const BLOCK_ALIGN: u64 = 8;
/// A block's head with its padding.
pub(in super::super) const BLOCK_HEAD_BYTES: u64 = ((HEAD_BYTES + 8 * 5) as u64).next_multiple_of(BLOCK_ALIGN);
/// A run remembers where a record is for every so many records …
const MARK_RECORDS: u64 = 256;
/// … and for every so many octets.
const MARK_BYTES: u64 = 64 * 1024;
const FLAG_TRAILER: u8 = 1;
/// Of a block's index: each run says its lane, and whether messages of it expire.
const FLAG_LANES: u8 = 1;

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHead {
    /// Grows with every block.
    pub number: u64,
    /// All blocks up to this number were durable when this one was written.
    pub durable: u64,
    /// Of the block's records.
    pub seed: u32,
    /// Octets of the message records.
    pub data_len: u64,
    /// Octets of the index record.
    pub index_len: u64,
    /// Whether this is the copy at the block's end.
    pub trailer: bool,
}

/// Where messages of one queue lie in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunIndex {
    pub queue: QueueId,
    /// All its messages are of this lane of the queue.
    pub lane: u8,
    /// Some of its messages expire.
    pub expires: bool,
    /// Octets of all bodies.
    pub body_bytes: u64,
    /// Position in the block's data.
    pub start: u64,
    /// Octets of its records.
    pub len: u64,
    /// Which numbers it holds, in order.
    pub spans: Vec<Span>,
    /// Where some of its records are.
    pub marks: Vec<Mark>,
}

/// Consecutive numbers with the same flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub first: Seq,
    pub last: Seq,
    pub flags: EntryFlags,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The record's number less the run's first.
    pub seq: u32,
    /// Octets from the run's start.
    pub offset: u32,
}

impl BlockHead {
    /// Octets from the block's start to its index.
    pub(super) fn index_at(&self) -> Option<u64> {
        BLOCK_HEAD_BYTES.checked_add(self.data_len)
    }

    /// Octets from the block's start to its trailer.
    pub(super) fn trailer_at(&self) -> Option<u64> {
        self.index_at()?.checked_add(self.index_len)?.checked_next_multiple_of(BLOCK_ALIGN)
    }

    /// Octets of the whole block.
    pub(super) fn len(&self) -> Option<u64> {
        self.trailer_at()?.checked_add(BLOCK_HEAD_BYTES)
    }

    pub(super) fn encode(&self, file: Key) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.record(Kind::BlockHead, u8::from(self.trailer) * FLAG_TRAILER, file, |out| {
            for number in [self.number, self.durable, u64::from(self.seed), self.data_len, self.index_len] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        });
        let mut octets: Vec<u8> = encoder.parts().flatten().copied().collect();
        octets.resize(BLOCK_HEAD_BYTES as usize, 0);
        octets
    }

    pub(super) fn decode(record: Record<'_>) -> Option<BlockHead> {
        let (number, rest) = take_u64(record.payload)?;
        let (durable, rest) = take_u64(rest)?;
        let (seed, rest) = take_u64(rest)?;
        let (data_len, rest) = take_u64(rest)?;
        let (index_len, rest) = take_u64(rest)?;
        let seed = u32::try_from(seed).ok()?;
        let trailer = record.flags == FLAG_TRAILER;
        let head = BlockHead { number, durable, seed, data_len, index_len, trailer };
        let believable = number > durable && number <= NUMBER_MAX && head.len().is_some();
        (record.kind == Kind::BlockHead && rest.is_empty() && believable).then_some(head)
    }
}

impl RunIndex {
    /// An index of a run that begins at `start` of the block's data and holds nothing yet.
    pub(super) fn new(queue: QueueId, lane: u8, start: u64) -> Self {
        RunIndex { queue, lane, expires: false, body_bytes: 0, start, len: 0, spans: Vec::new(), marks: Vec::new() }
    }

    pub(super) fn first(&self) -> Seq {
        self.spans.first().map_or(0, |span| span.first)
    }

    pub(super) fn last(&self) -> Seq {
        self.spans.last().map_or(0, |span| span.last)
    }

    /// How many messages.
    pub(super) fn count(&self) -> u64 {
        self.spans.iter().map(|span| span.last - span.first + 1).sum()
    }

    /// Adds the message that follows, in a record of this length. Its number must be greater than all before.
    pub(super) fn push(&mut self, seq: Seq, flags: EntryFlags, body_bytes: u64, record_len: u64) {
        self.expires |= flags.contains(EntryFlags::EXPIRES);
        let flags = EntryFlags(flags.0 & EntryFlags::INDEXED);
        match self.spans.last_mut() {
            Some(span) if span.last + 1 == seq && span.flags == flags => span.last = seq,
            _ => self.spans.push(Span { first: seq, last: seq, flags }),
        }
        let mark = self.marks.last().copied();
        let far = mark.is_none_or(|mark| {
            seq - self.first() >= u64::from(mark.seq) + MARK_RECORDS || self.len >= u64::from(mark.offset) + MARK_BYTES
        });
        if far && let (Ok(seq), Ok(offset)) = (u32::try_from(seq - self.first()), u32::try_from(self.len)) {
            self.marks.push(Mark { seq, offset });
        }
        self.len += record_len;
        self.body_bytes += body_bytes;
    }

    /// Whether a message with this number may follow in the same run.
    pub(super) fn takes(&self, seq: Seq) -> bool {
        self.spans.is_empty() || seq > self.last()
    }

    /// Whether so many messages can lie in so many octets. What is kept in memory of a run is bounded by that.
    fn is_believable(&self) -> bool {
        let mark_fits =
            |mark: &Mark| u64::from(mark.seq) <= self.last() - self.first() && u64::from(mark.offset) < self.len;
        let count = self.spans.iter().map(|span| span.last - span.first + 1).fold(0, u64::saturating_add);
        !self.spans.is_empty()
            && self.last() <= NUMBER_MAX
            && count <= self.len / MESSAGE_MIN_BYTES as u64
            && self.body_bytes <= self.len
            && self.marks.iter().all(mark_fits)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let lane = u64::from(self.lane) << 1 | u64::from(self.expires);
        let spans = self.spans.len() as u64;
        for number in [self.queue.0, lane, self.body_bytes, self.start, self.len, self.first(), spans] {
            varint::put(number, out);
        }
        let mut next = self.first();
        for span in &self.spans {
            varint::put(span.first - next, out);
            varint::put((span.last - span.first) << 2 | u64::from(span.flags.0), out);
            next = span.last + 1;
        }
        varint::put(self.marks.len() as u64, out);
        let mut before = Mark { seq: 0, offset: 0 };
        for mark in &self.marks {
            varint::put(u64::from(mark.seq - before.seq), out);
            varint::put(u64::from(mark.offset - before.offset), out);
            before = *mark;
        }
    }

    fn decode(octets: &mut &[u8], has_lanes: bool) -> Option<RunIndex> {
        let queue = QueueId(varint::take(octets)?);
        // Before there were lanes nobody looked for messages that expire.
        let lane = if has_lanes { varint::take(octets)? } else { 0 };
        let (lane, expires) = (u8::try_from(lane >> 1).ok()?, lane & 1 != 0);
        let body_bytes = varint::take(octets)?;
        let (start, len) = (varint::take(octets)?, varint::take(octets)?);
        let mut run = RunIndex { queue, lane, expires, body_bytes, start, len, spans: Vec::new(), marks: Vec::new() };
        let first = varint::take(octets)?;
        let mut next = first;
        for _ in 0..varint::take(octets)? {
            let from = next.checked_add(varint::take(octets)?)?;
            let word = varint::take(octets)?;
            let last = from.checked_add(word >> 2)?;
            next = last.checked_add(1)?;
            run.spans.push(Span { first: from, last, flags: EntryFlags(word as u8 & EntryFlags::INDEXED) });
        }
        let mut before = Mark { seq: 0, offset: 0 };
        for _ in 0..varint::take(octets)? {
            let seq = before.seq.checked_add(u32::try_from(varint::take(octets)?).ok()?)?;
            let offset = before.offset.checked_add(u32::try_from(varint::take(octets)?).ok()?)?;
            before = Mark { seq, offset };
            run.marks.push(before);
        }
        run.is_believable().then_some(run)
    }
}

/// The index record of a block.
pub(super) fn encode_index(runs: &[RunIndex], key: Key) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.record(Kind::BlockIndex, FLAG_LANES, key, |out| {
        varint::put(runs.len() as u64, out);
        runs.iter().for_each(|run| run.encode(out));
    });
    encoder.parts().flatten().copied().collect()
}

/// The runs of a block, if the record is its index. They must lie one behind the other, none beyond `data_len`.
pub(super) fn decode_index(record: Record<'_>, data_len: u64) -> Option<Vec<RunIndex>> {
    let mut rest = record.payload;
    let mut runs = Vec::new();
    let mut end = 0;
    for _ in 0..varint::take(&mut rest)? {
        let run = RunIndex::decode(&mut rest, record.flags & FLAG_LANES != 0)?;
        if run.start < end {
            return None;
        }
        end = run.start.checked_add(run.len).filter(|end| *end <= data_len)?;
        runs.push(run);
    }
    (record.kind == Kind::BlockIndex && rest.is_empty()).then_some(runs)
}

/// What an entry adds to a run.
pub(super) fn push_entry(run: &mut RunIndex, entry: &StoredEntry) {
    let record_len = super::super::record::message_record_len(&entry.message, entry.expires_ms) as u64;
    run.expires |= entry.expires_ms != 0;
    run.push(entry.seq, EntryFlags::of_entry(entry), entry.message.body_len() as u64, record_len);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = Key { salt: 3, seed: 4 };

    proptest! {
        #[test]
        fn an_index_comes_back(steps in prop::collection::vec((1_u64..40, 0_u8..4, 40_u64..90_000), 1..600)) {
            let mut run = RunIndex::new(QueueId(8), 255, 100);
            let mut seq = 1000;
            for (step, flags, len) in &steps {
                seq += step;
                run.push(seq, EntryFlags(*flags), *len - 40, *len);
            }
            let next = RunIndex { start: run.start + run.len, lane: 0, expires: true, ..run.clone() };
            prop_assert_eq!(run.count(), steps.len() as u64);
            let octets = encode_index(&[run.clone(), next.clone()], KEY);
            let record = Record::decode(&octets, KEY).unwrap();
            prop_assert_eq!(decode_index(record, 1 << 40), Some(vec![run, next]));
            prop_assert_eq!(decode_index(record, 0), None);
        }

        #[test]
        fn arbitrary_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let record = Record { kind: Kind::BlockIndex, flags: 0, payload: &octets };
            let _ = decode_index(record, u64::MAX);
            let _ = BlockHead::decode(Record { kind: Kind::BlockHead, ..record });
        }
    }

    #[test]
    fn an_index_that_cannot_be_true_is_refused() {
        let mut run = RunIndex::new(QueueId(8), 0, 100);
        (1..=3).for_each(|seq| run.push(seq, EntryFlags(0), 10, 60));
        let decoded = |runs: &[RunIndex]| {
            let octets = encode_index(runs, KEY);
            decode_index(Record::decode(&octets, KEY).unwrap(), 1 << 40)
        };
        assert!(decoded(std::slice::from_ref(&run)).is_some());
        let span = |first, last| vec![Span { first, last, flags: EntryFlags(0) }];
        for lie in [
            RunIndex { spans: span(1, 7), ..run.clone() },
            RunIndex { spans: span(1, 1 << 60), ..run.clone() },
            RunIndex { spans: span(u64::MAX - 1, u64::MAX - 1), ..run.clone() },
            RunIndex { spans: Vec::new(), ..run.clone() },
            RunIndex { body_bytes: u64::MAX, ..run.clone() },
            RunIndex { start: u64::MAX - 1, ..run.clone() },
            RunIndex { marks: vec![Mark { seq: 3, offset: 0 }], ..run.clone() },
            RunIndex { marks: vec![Mark { seq: 2, offset: 180 }], ..run.clone() },
        ] {
            assert_eq!(decoded(std::slice::from_ref(&lie)), None, "{lie:?}");
        }
        assert_eq!(decoded(&[run.clone(), run]), None, "two runs in one place");
    }

    #[test]
    fn a_head_comes_back_and_says_where_things_are() {
        let head = BlockHead { number: 3, durable: 2, seed: 9, data_len: 1001, index_len: 50, trailer: true };
        let octets = head.encode(KEY);
        assert_eq!(BlockHead::decode(Record::decode(&octets, KEY).unwrap()), Some(head));
        assert_eq!((head.index_at(), head.trailer_at(), head.len()), (Some(1057), Some(1112), Some(1168)));
    }
}
