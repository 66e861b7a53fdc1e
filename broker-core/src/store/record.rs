//! The frame around everything the store writes: a checksum, a length and a kind, then the payload.
//!
//! | octets | what |
//! |---|---|
//! | 4 | CRC-32C of all that follows, exclusive-or'ed with the *seed* |
//! | 4 | length `n` of the payload |
//! | 1 | kind |
//! | 1 | flags |
//! | 2 | check of the six octets before it, mixed with the file's *salt* |
//! | n | payload |
//!
//! All numbers little-endian. The seed is different for every batch and block ever written, so octets left over from an earlier use of a file never
//! pass. The salt is drawn anew at every start and never leaves the disk, so a body cannot be made to look like a record; and with the check a
//! search for the next good record after damage touches each octet only once.

use std::io::IoSlice;

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

use super::{EntryFlags, NUMBER_MAX, QueueId, Seq};
use crate::message::Message;

/// Octets before the payload.
pub(crate) const HEAD_BYTES: usize = 12;
/// Octets of queue and sequence number before a message.
const PLACE_BYTES: usize = 16;
/// Octets of the time of expiry between them, if it has one.
const EXPIRY_BYTES: usize = 8;
/// No message's record is shorter.
pub(crate) const MESSAGE_MIN_BYTES: usize = HEAD_BYTES + PLACE_BYTES;
/// Chunked bodies from this size on are not copied into the batch but written from where they are.
const SHARED_MIN_BYTES: usize = 16 * 1024;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The head of a journal or segment file.
    FileHead = 1,
    /// Journal: begins a commit, names its batches.
    Commit = 2,
    /// Journal: a message entered a queue.
    Enqueue = 3,
    /// Journal: messages of a queue are done with.
    Settle = 4,
    /// Journal: messages of a queue were delivered before a clean stop.
    Delivered = 5,
    /// Journal: what was settled and delivered of a queue's messages in segments, carried over from a file that is given up.
    QueueState = 6,
    /// Journal: the process stopped in order after this.
    CleanStop = 7,
    /// Segment: begins a block.
    BlockHead = 8,
    /// Segment: a message.
    Message = 9,
    /// Segment: which runs the block holds and where.
    BlockIndex = 10,
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Kind> {
        use Kind::*;
        const KINDS: [Kind; 10] =
            [FileHead, Commit, Enqueue, Settle, Delivered, QueueState, CleanStop, BlockHead, Message, BlockIndex];
        KINDS.get(usize::from(octet).checked_sub(1)?).copied()
    }
}

/// What a record's checksum and check are mixed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub salt: u64,
    pub seed: u32,
}

/// A record that passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub kind: Kind,
    pub flags: u8,
    pub payload: &'a [u8],
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// There may be one, of this many octets; more octets are needed to tell.
    Short(usize),
    /// The octets are not a record.
    Damaged,
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `octets`.
    pub(crate) fn decode(octets: &'a [u8], key: Key) -> Result<Record<'a>, NoRecord> {
        let head = octets.first_chunk::<HEAD_BYTES>().ok_or(NoRecord::Short(HEAD_BYTES))?;
        let kind = Kind::from_octet(head[8]).ok_or(NoRecord::Damaged)?;
        let payload_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if head[10..] != check(payload_len, head[8], head[9], key.salt) {
            return Err(NoRecord::Damaged);
        }
        let len = HEAD_BYTES.saturating_add(payload_len as usize);
        let whole = octets.get(..len).ok_or(NoRecord::Short(len))?;
        let stored = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if crc32_iscsi(whole.get(4..).unwrap_or_default()) ^ key.seed != stored {
            return Err(NoRecord::Damaged);
        }
        Ok(Record { kind, flags: head[9], payload: whole.get(HEAD_BYTES..).unwrap_or_default() })
    }

    /// Length that the record at the start of `octets` claims, if there may be one.
    pub(crate) fn len_at(octets: &[u8], key: Key) -> Option<usize> {
        let head = octets.first_chunk::<HEAD_BYTES>()?;
        Kind::from_octet(head[8])?;
        let payload_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let plausible = head[10..] == check(payload_len, head[8], head[9], key.salt);
        plausible.then_some(HEAD_BYTES + payload_len as usize)
    }

    /// Length of the record with its head.
    pub(crate) fn len(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    /// What an [`Kind::Enqueue`] or [`Kind::Message`] says.
    pub(crate) fn place(&self) -> Option<Placed<'a>> {
        let (queue, rest) = take_u64(self.payload)?;
        let (seq, rest) = take_u64(rest)?;
        let expires = EntryFlags(self.flags).contains(EntryFlags::EXPIRES);
        let (expires_ms, message) = if expires { take_u64(rest)? } else { (0, rest) };
        (seq <= NUMBER_MAX).then_some(Placed { queue: QueueId(queue), seq, expires_ms, message })
    }
}

/// A message in a record, with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed<'a> {
    pub queue: QueueId,
    pub seq: Seq,
    /// When it expires; 0: never.
    pub expires_ms: u64,
    /// Octets of the message.
    pub message: &'a [u8],
}

/// Takes eight octets off the front.
pub(crate) fn take_u64(octets: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = octets.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// How long a message's record is.
pub(crate) fn message_record_len(message: &Message, expires_ms: u64) -> usize {
    HEAD_BYTES + PLACE_BYTES + if expires_ms == 0 { 0 } else { EXPIRY_BYTES } + message.stored_len()
}

/// Records on their way to a file: small ones in one buffer, large bodies where they are.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    octets: Vec<u8>,
    /// Messages whose chunks belong at these positions of `octets`.
    shared: Vec<(usize, Message)>,
    shared_len: usize,
}

impl Encoder {
    /// Octets of all records so far.
    pub(crate) fn len(&self) -> usize {
        self.octets.len() + self.shared_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Forgets the records, keeps a buffer of up to `keep` octets.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.octets.clear();
        self.octets.shrink_to(keep);
        self.shared.clear();
        self.shared_len = 0;
    }

    /// Appends a record with the payload that `fill` appends.
    pub(crate) fn record(&mut self, kind: Kind, flags: u8, key: Key, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&[0; HEAD_BYTES]);
        fill(&mut self.octets);
        let payload_len = self.octets.len() - start - HEAD_BYTES;
        let head = head(payload_len, kind, flags, key.salt);
        if let Some(place) = self.octets.get_mut(start..start + HEAD_BYTES) {
            place.copy_from_slice(&head);
        }
        self.seal(start, crc32_iscsi(self.octets.get(start + 4..).unwrap_or_default()), key);
    }

    /// Appends a message with its place. `flags` without [`EntryFlags::EXPIRES`], which follows from `expires_ms`.
    pub(crate) fn message(
        &mut self,
        kind: Kind,
        (queue, seq, expires_ms): (QueueId, Seq, u64),
        flags: EntryFlags,
        message: &Message,
        key: Key,
    ) {
        let start = self.octets.len();
        let expires = expires_ms != 0;
        let payload_len = message_record_len(message, expires_ms) - HEAD_BYTES;
        let flags = if expires { flags.0 | EntryFlags::EXPIRES.0 } else { flags.0 };
        let mut front = [0; HEAD_BYTES + PLACE_BYTES];
        front[..HEAD_BYTES].copy_from_slice(&head(payload_len, kind, flags, key.salt));
        front[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&queue.0.to_le_bytes());
        front[HEAD_BYTES + 8..].copy_from_slice(&seq.to_le_bytes());
        self.octets.extend_from_slice(&front);
        if expires {
            self.octets.extend_from_slice(&expires_ms.to_le_bytes());
        }
        let mut parts = message.parts();
        self.octets.extend_from_slice(parts.next().unwrap_or_default());
        if message.chunks().is_some() && message.body_len() >= SHARED_MIN_BYTES {
            let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
            digest.update(self.octets.get(start + 4..).unwrap_or_default());
            for part in parts {
                digest.update(part);
                self.shared_len += part.len();
            }
            self.shared.push((self.octets.len(), message.clone()));
            self.seal(start, digest.finalize() as u32, key);
            return;
        }
        for part in parts {
            self.octets.extend_from_slice(part);
        }
        self.seal(start, crc32_iscsi(self.octets.get(start + 4..).unwrap_or_default()), key);
    }

    /// The records as they lie in the file.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.shared.iter().map(|(end, _)| *end).chain([self.octets.len()]);
        let starts = [0].into_iter().chain(self.shared.iter().map(|(end, _)| *end));
        let chunks = self.shared.iter().map(|(_, message)| Some(message)).chain([None]);
        starts.zip(ends).zip(chunks).flat_map(|((start, end), message)| {
            let own = self.octets.get(start..end).unwrap_or_default();
            [own].into_iter().chain(message.into_iter().flat_map(|message| message.parts().skip(1)))
        })
    }

    /// The same, for a vectored write.
    pub(crate) fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        out.extend(self.parts().filter(|part| !part.is_empty()).map(IoSlice::new));
    }

    fn seal(&mut self, start: usize, crc: u32, key: Key) {
        if let Some(place) = self.octets.get_mut(start..start + 4) {
            place.copy_from_slice(&(crc ^ key.seed).to_le_bytes());
        }
    }
}

/// Makes whatever stands at a position a record that passes, as far as there is one: its length, kind and flags stay.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn reseal(file: &mut [u8], at: usize, key: Key) {
    let Some(record) = file.get_mut(at..) else { return };
    let Some(&[_, _, _, _, a, b, c, d, kind, flags, ..]) = record.first_chunk::<HEAD_BYTES>() else { return };
    let payload_len = u32::from_le_bytes([a, b, c, d]);
    if let Some(place) = record.get_mut(10..HEAD_BYTES) {
        place.copy_from_slice(&check(payload_len, kind, flags, key.salt));
    }
    let len = HEAD_BYTES.saturating_add(payload_len as usize);
    let crc = record.get(4..len).map(crc32_iscsi);
    if let (Some(place), Some(crc)) = (record.get_mut(..4), crc) {
        place.copy_from_slice(&(crc ^ key.seed).to_le_bytes());
    }
}

fn head(payload_len: usize, kind: Kind, flags: u8, salt: u64) -> [u8; HEAD_BYTES] {
    // Callers bound messages by max_message_size, far below four gigabytes; a longer payload yields a record that does not pass.
    let payload_len = u32::try_from(payload_len).unwrap_or(u32::MAX);
    let len = payload_len.to_le_bytes();
    let check = check(payload_len, kind as u8, flags, salt);
    [0, 0, 0, 0, len[0], len[1], len[2], len[3], kind as u8, flags, check[0], check[1]]
}

fn check(payload_len: u32, kind: u8, flags: u8, salt: u64) -> [u8; 2] {
    let word = u64::from(payload_len) | u64::from(kind) << 32 | u64::from(flags) << 40;
    let mixed = (word ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 48) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = Key { salt: 77, seed: 5 };

    fn message(chunks: &[usize]) -> Message {
        let chunks = chunks.iter().map(|&len| Bytes::from(vec![3; len])).collect();
        Message::with_chunks(b"\x03foo\x02rk", b"\x00\x3c\x00\x00\0\0\0\0\0\0\0\x04\x10\x00\x02", chunks, true).unwrap()
    }

    fn octets(encoder: &Encoder) -> Vec<u8> {
        encoder.parts().flatten().copied().collect()
    }

    #[test]
    fn messages_large_and_small_come_back_from_one_batch() {
        let mut encoder = Encoder::default();
        let messages = [message(&[5]), message(&[9000, 9000]), message(&[]), message(&[20_000])];
        for (seq, message) in (1..).zip(&messages) {
            // Every second one expires.
            let place = (QueueId(9), seq, seq % 2 * 77);
            encoder.message(Kind::Enqueue, place, EntryFlags::REDELIVERED, message, KEY);
        }
        encoder.record(Kind::CleanStop, 0, KEY, |_| {});
        let octets = octets(&encoder);
        assert_eq!(octets.len(), encoder.len());
        let mut rest = octets.as_slice();
        for (seq, message) in (1..).zip(&messages) {
            let record = Record::decode(rest, KEY).unwrap();
            let expires = if seq % 2 == 0 { 0 } else { EntryFlags::EXPIRES.0 };
            assert_eq!((record.kind, record.flags), (Kind::Enqueue, EntryFlags::REDELIVERED.0 | expires));
            let placed = record.place().unwrap();
            assert_eq!((placed.queue, placed.seq, placed.expires_ms), (QueueId(9), seq, seq % 2 * 77));
            assert_eq!(Message::from_stored(placed.message).unwrap().body_len(), message.body_len());
            assert_eq!(record.len(), message_record_len(message, placed.expires_ms));
            rest = &rest[record.len()..];
        }
        assert_eq!(Record::decode(rest, KEY).unwrap().kind, Kind::CleanStop);
        assert_eq!(rest.len(), HEAD_BYTES);
    }

    #[test]
    fn another_seed_or_salt_or_any_flipped_bit_is_no_record() {
        let mut encoder = Encoder::default();
        encoder.message(Kind::Enqueue, (QueueId(9), 1, 0), EntryFlags(0), &message(&[5]), KEY);
        let mut octets = octets(&encoder);
        assert!(Record::decode(&octets, Key { seed: 6, ..KEY }).is_err());
        assert!(Record::decode(&octets, Key { salt: 78, ..KEY }).is_err());
        for bit in 0..octets.len() * 8 {
            octets[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&octets, KEY).is_err(), "bit {bit}");
            octets[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..octets.len() {
            assert!(matches!(Record::decode(&octets[..cut], KEY), Err(NoRecord::Short(_))), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_octets_are_decoded_or_refused(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(record) = Record::decode(&octets, KEY) {
                prop_assert!(record.len() <= octets.len());
                let _ = record.place();
            }
        }
    }
}
