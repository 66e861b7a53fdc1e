//! What a connection has to write: small frames gathered in few buffers, large bodies shared with the queues that hold them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use smallvec::SmallVec;

/// A buffer of gathered frames is not grown beyond this; the next frames begin another.
pub const SEGMENT_MAX_BYTES: usize = 64 * 1024;
/// Body pieces from this size on are shared instead of copied.
pub const SHARE_MIN_BYTES: usize = 4 * 1024;

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
            if let Some(Segment::Owned(octets)) = self.front.pop_front()
                && self.tail.capacity() == 0
            {
                self.tail = octets;
                self.tail.clear();
            }
        }
        if self.len == 0 {
            self.tail.clear();
            self.written = 0;
        }
    }

    /// Gives `room`, an empty buffer with capacity, to append to; spares an allocation if there is none yet.
    pub fn lend(&mut self, mut room: Vec<u8>) {
        if self.tail.capacity() == 0 {
            room.clear();
            self.tail = room;
        }
    }

    /// Takes the room back when nothing is waiting to be written, so that an idle connection holds none.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        if self.len > 0 {
            return None;
        }
        self.front = VecDeque::new();
        (self.tail.capacity() > 0).then(|| std::mem::take(&mut self.tail))
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
        if self.tail.len() >= SEGMENT_MAX_BYTES {
            self.seal();
        }
        let before = self.tail.len();
        write(&mut self.tail);
        let count = self.tail.len() - before;
        self.len += count;
        self.appended += count as u64;
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
    fn an_idle_buffer_gives_its_room_back() {
        let mut buffer = SendBuffer::default();
        buffer.append(|tail| tail.extend_from_slice(b"abc"));
        assert!(buffer.reclaim().is_none());
        buffer.consume(3);
        assert!(buffer.reclaim().is_some_and(|room| room.capacity() >= 3));
        assert!(buffer.reclaim().is_none());
    }
}
