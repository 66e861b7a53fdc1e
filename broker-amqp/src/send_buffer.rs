//! What a connection has to write: small frames gathered in few buffers, large bodies shared with the queues that hold them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;

use broker_core::message::INLINE_BODY_MAX_BYTES;
use bytes::Bytes;
use smallvec::SmallVec;

/// Body pieces from this size on are shared instead of copied.
pub const SHARE_MIN_BYTES: usize = 4 * 1024;
/// From this many gathered octets on the next frames begin another room.
const ROOM_FULL_BYTES: usize = 64 * 1024 - INLINE_BODY_MAX_BYTES - 256;
/// Room with which a buffer begins when nobody has left any.
const FIRST_ROOM_BYTES: usize = 1024;
/// Larger rooms are not kept. Growing by doubling does not get there with bodies that are copied.
const ROOM_MAX_BYTES: usize = 128 * 1024;
/// Rooms a thread keeps for the next buffers with something to write: 4 MiB at most.
const ROOMS_KEPT: usize = 32;

thread_local! {
    /// Rooms that buffers of this thread have left, the last one, likely still in the processor's cache, taken first.
    /// So a connection holds room only while it has something to write, and finds room that has grown already.
    static ROOMS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn room() -> Vec<u8> {
    ROOMS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(FIRST_ROOM_BYTES))
}

fn leave(mut room: Vec<u8>) {
    if (1..=ROOM_MAX_BYTES).contains(&room.capacity()) {
        room.clear();
        ROOMS.with_borrow_mut(|rooms| {
            if rooms.len() < ROOMS_KEPT {
                rooms.push(room);
            }
        });
    }
}

/// Octets to write, in order, as pieces for one vectored write after the other.
#[derive(Debug, Default)]
pub struct SendBuffer {
    /// Pieces that are complete.
    front: VecDeque<Segment>,
    /// Where frames are being appended: comes after all of `front`.
    tail: Vec<u8>,
    /// Octets of the first piece that are written already.
    written: usize,
    /// Octets still to be written.
    len: usize,
    /// Octets ever put in.
    appended: u64,
}

#[derive(Debug)]
enum Segment {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn octets(&self) -> &[u8] {
        match self {
            Segment::Owned(octets) => octets,
            Segment::Shared(octets) => octets,
        }
    }
}

impl SendBuffer {
    /// Octets still to be written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What to write next: at most `max` pieces.
    pub fn as_io_slices(&self, max: usize) -> SmallVec<[IoSlice<'_>; 64]> {
        let mut skip = self.written;
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_slice());
        self.front
            .iter()
            .map(Segment::octets)
            .chain(tail)
            .take(max)
            .map(|octets| IoSlice::new(octets.get(std::mem::take(&mut skip)..).unwrap_or_default()))
            .collect()
    }

    /// The first `count` octets were written. More than there are counts as all.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.written += count;
        while let Some(first) = self.front.front()
            && first.octets().len() <= self.written
        {
            self.written -= first.octets().len();
            if let Some(Segment::Owned(octets)) = self.front.pop_front() {
                leave(octets);
            }
        }
        if self.len == 0 {
            leave(std::mem::take(&mut self.tail));
            self.written = 0;
        }
    }

    /// Room that is held, shared pieces not counted.
    pub(crate) fn memory(&self) -> usize {
        let front = self.front.iter().map(|segment| match segment {
            Segment::Owned(octets) => octets.capacity(),
            Segment::Shared(_) => 0,
        });
        front.sum::<usize>() + self.front.capacity() * size_of::<Segment>() + self.tail.capacity()
    }

    /// Octets ever put in.
    pub(crate) fn appended(&self) -> u64 {
        self.appended
    }

    /// Appends octets through `write`, which must only append.
    pub(crate) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.tail.len() >= ROOM_FULL_BYTES {
            self.seal();
        }
        if self.tail.capacity() == 0 {
            self.tail = room();
        }
        let before = self.tail.len();
        write(&mut self.tail);
        let count = self.tail.len() - before;
        self.len += count;
        self.appended += count as u64;
        if self.len == 0 {
            // There was nothing to append after all, and nothing will be consumed.
            leave(std::mem::take(&mut self.tail));
        }
    }

    /// Appends octets that others hold too: small ones are copied.
    pub(crate) fn append_shared(&mut self, octets: Bytes) {
        if octets.len() < SHARE_MIN_BYTES {
            return self.append(|tail| tail.extend_from_slice(&octets));
        }
        self.seal();
        self.len += octets.len();
        self.appended += octets.len() as u64;
        self.front.push_back(Segment::Shared(octets));
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.front.push_back(Segment::Owned(std::mem::take(&mut self.tail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(buffer: &SendBuffer) -> Vec<u8> {
        buffer.as_io_slices(64).iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn octets_leave_in_order_however_they_are_written() {
        for step in 1..20 {
            let mut buffer = SendBuffer::default();
            let mut expected = Vec::new();
            for round in 0..5_u8 {
                buffer.append(|tail| tail.extend_from_slice(&[round; 7]));
                buffer.append_shared(Bytes::from(vec![100 + round; SHARE_MIN_BYTES]));
                expected.extend_from_slice(&[round; 7]);
                expected.extend_from_slice(&vec![100 + round; SHARE_MIN_BYTES]);
            }
            let mut sent = Vec::new();
            while !buffer.is_empty() {
                let octets = all(&buffer);
                assert_eq!(octets.len(), buffer.len());
                let count = (step * 397).min(octets.len());
                sent.extend_from_slice(&octets[..count]);
                buffer.consume(count);
            }
            assert_eq!(sent, expected);
        }
    }

    #[test]
    fn an_idle_buffer_holds_no_room_and_leaves_it_to_the_next() {
        let mut buffer = SendBuffer::default();
        buffer.append(|tail| tail.extend_from_slice(&[1; 5000]));
        let room = buffer.memory();
        assert!(room >= 5000);
        buffer.consume(4999);
        assert_eq!(buffer.memory(), room);
        buffer.consume(1);
        assert_eq!(buffer.memory(), 0);
        let mut next = SendBuffer::default();
        next.append(|_| {});
        assert_eq!(next.memory(), 0);
        next.append(|tail| tail.push(1));
        assert_eq!(next.memory(), room);
        assert_eq!(all(&next), [1]);
    }

    #[test]
    fn rooms_are_filled_and_as_many_as_may_be_are_kept() {
        let mut buffer = SendBuffer::default();
        for len in [7, INLINE_BODY_MAX_BYTES, 1, 5000].repeat(500) {
            buffer.append(|tail| tail.extend_from_slice(&vec![0; len]));
        }
        let rooms = buffer.front.iter().map(|segment| match segment {
            Segment::Owned(octets) => (octets.len(), octets.capacity()),
            Segment::Shared(_) => panic!("nothing is shared here"),
        });
        let rooms: Vec<_> = rooms.collect();
        assert!(rooms.iter().all(|(len, room)| *len >= ROOM_FULL_BYTES && *room <= ROOM_MAX_BYTES), "{rooms:?}");
        assert!(rooms.len() > ROOMS_KEPT);
        buffer.consume(usize::MAX);
        assert_eq!(ROOMS.with_borrow(Vec::len), ROOMS_KEPT);
    }

    #[test]
    fn a_room_that_one_large_piece_made_larger_is_not_kept() {
        let mut buffer = SendBuffer::default();
        buffer.append(|tail| tail.extend_from_slice(&[0; ROOM_MAX_BYTES + 1]));
        buffer.consume(usize::MAX);
        assert_eq!(ROOMS.with_borrow(Vec::len), 0);
    }
}
