//! A table keyed by numbers that only grow (delivery tags, publish numbers), from which entries leave in any order.
//!
//! Look-ups are an index. Memory follows what is held: a chunk is freed when its last entry leaves, so one entry that stays for ever costs its
//! chunk and eight octets for every [`CHUNK`] numbers handed out after it, not a slot for each.

use std::collections::VecDeque;

/// Numbers in one chunk.
pub const CHUNK: u64 = 64;

/// See the module's page.
#[derive(Debug)]
pub struct Window<T> {
    chunks: VecDeque<Option<Box<Chunk<T>>>>,
    /// Number of the first slot of the first chunk: a multiple of [`CHUNK`].
    base: u64,
    next: u64,
    len: usize,
    /// One emptied chunk, kept so that a window that fills and empties does not allocate.
    spare: Option<Box<Chunk<T>>>,
}

#[derive(Debug)]
struct Chunk<T> {
    used: u32,
    slots: [Option<T>; CHUNK as usize],
}

impl<T> Window<T> {
    /// An empty window whose first number will be `first`.
    pub fn new(first: u64) -> Self {
        Window { chunks: VecDeque::new(), base: first - first % CHUNK, next: first, len: 0, spare: None }
    }

    /// Adds an entry and returns its number, one more than the last.
    pub fn push(&mut self, value: T) -> u64 {
        let number = self.next;
        self.next += 1;
        let (chunk, slot) = self.place(number);
        while chunk >= self.chunks.len() {
            self.chunks.push_back(None);
        }
        let spare = &mut self.spare;
        if let Some(place) = self.chunks.get_mut(chunk) {
            let chunk = place.get_or_insert_with(|| spare.take().unwrap_or_default());
            chunk.slots[slot] = Some(value);
            chunk.used += 1;
            self.len += 1;
        }
        number
    }

    /// Hands a number out without an entry.
    pub fn skip(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.len == 0 {
            self.chunks.clear();
            self.base = self.next - self.next % CHUNK;
        } else if self.next - self.base > self.chunks.len() as u64 * CHUNK {
            self.chunks.push_back(None);
        }
        number
    }

    /// The entry of a number.
    pub fn get(&self, number: u64) -> Option<&T> {
        let (chunk, slot) = self.locate(number)?;
        self.chunks.get(chunk)?.as_ref()?.slots[slot].as_ref()
    }

    /// The entry of a number, to change.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (chunk, slot) = self.locate(number)?;
        self.chunks.get_mut(chunk)?.as_mut()?.slots[slot].as_mut()
    }

    /// Takes the entry of a number out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let (at, slot) = self.locate(number)?;
        let place = self.chunks.get_mut(at)?;
        let chunk = place.as_mut()?;
        let value = chunk.slots[slot].take()?;
        chunk.used -= 1;
        self.len -= 1;
        if chunk.used == 0 {
            let emptied = place.take();
            // The chunk that numbers are handed out from is the likeliest to be wanted again.
            self.spare = self.spare.take().or(emptied);
            self.trim();
        }
        Some(value)
    }

    /// Numbers and entries up to and including `last`, in order of their numbers, taken out one by one through `take`.
    pub fn drain_through(&mut self, last: u64, take: impl FnMut(u64, T)) {
        self.drain_range(0, last, take);
    }

    /// Numbers and entries from `first` to `last`, both included, in order of their numbers, taken out one by one through `take`.
    pub fn drain_range(&mut self, first: u64, last: u64, mut take: impl FnMut(u64, T)) {
        let (first, end) = (first.max(self.base), last.saturating_add(1).min(self.next));
        if first >= end {
            return;
        }
        let (first_chunk, last_chunk) = (self.place(first).0, self.place(end - 1).0);
        for at in first_chunk..=last_chunk {
            let Some(place) = self.chunks.get_mut(at) else { break };
            let Some(chunk) = place else { continue };
            let base = self.base + at as u64 * CHUNK;
            let slots = first.saturating_sub(base).min(CHUNK) as usize..(end - base).min(CHUNK) as usize;
            let numbers = base + slots.start as u64..;
            for (number, slot) in numbers.zip(chunk.slots.get_mut(slots).unwrap_or_default()) {
                if let Some(value) = slot.take() {
                    chunk.used -= 1;
                    self.len -= 1;
                    take(number, value);
                }
            }
            if chunk.used == 0 {
                let emptied = place.take();
                self.spare = self.spare.take().or(emptied);
            }
        }
        self.trim();
    }

    /// The smallest number held.
    pub fn first(&self) -> Option<u64> {
        let mut base = self.base;
        for chunk in &self.chunks {
            if let Some(chunk) = chunk
                && let Some(slot) = chunk.slots.iter().position(Option::is_some)
            {
                return Some(base + slot as u64);
            }
            base += CHUNK;
        }
        None
    }

    /// Entries with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.chunks.iter().enumerate().filter_map(|(at, chunk)| chunk.as_ref().map(|chunk| (at, chunk))).flat_map(
            move |(at, chunk)| {
                let first = self.base + at as u64 * CHUNK;
                chunk
                    .slots
                    .iter()
                    .enumerate()
                    .filter_map(move |(slot, value)| Some((first + slot as u64, value.as_ref()?)))
            },
        )
    }

    /// Entries with their numbers, in order, to change.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (u64, &mut T)> {
        let base = self.base;
        self.chunks.iter_mut().enumerate().filter_map(|(at, chunk)| chunk.as_mut().map(|chunk| (at, chunk))).flat_map(
            move |(at, chunk)| {
                let first = base + at as u64 * CHUNK;
                chunk
                    .slots
                    .iter_mut()
                    .enumerate()
                    .filter_map(move |(slot, value)| Some((first + slot as u64, value.as_mut()?)))
            },
        )
    }

    /// The number the next entry will have.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn locate(&self, number: u64) -> Option<(usize, usize)> {
        (number >= self.base && number < self.next).then(|| self.place(number))
    }

    fn place(&self, number: u64) -> (usize, usize) {
        let offset = number - self.base;
        ((offset / CHUNK) as usize, (offset % CHUNK) as usize)
    }

    /// Forgets empty chunks at the front, but not one that has numbers left to hand out.
    fn trim(&mut self) {
        while let Some(None) = self.chunks.front()
            && self.base + CHUNK <= self.next
        {
            self.chunks.pop_front();
            self.base += CHUNK;
        }
    }
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Chunk { used: 0, slots: [const { None }; CHUNK as usize] }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_an_ordered_map(first in 0_u64..200, steps in prop::collection::vec((0_u8..7, 0_u64..300), 1..400)) {
            let mut window = Window::new(first);
            let mut model = BTreeMap::new();
            for (kind, number) in steps {
                match kind {
                    0 | 1 => { let at = window.push(number); prop_assert!(model.insert(at, number).is_none()); }
                    4 => { window.skip(); }
                    5 => for _ in 0..number { window.skip(); },
                    6 => {
                        let (from, last) = (first + number / 8, first + number / 3);
                        let expected: Vec<_> = model.range(from..=last.max(from)).map(|(&number, &value)| (number, value)).collect();
                        let mut drained = Vec::new();
                        window.drain_range(from, last.max(from), |number, value| drained.push((number, value)));
                        model.retain(|number, _| *number < from || *number > last.max(from));
                        prop_assert_eq!(drained, expected);
                    }
                    2 => prop_assert_eq!(window.remove(first + number), model.remove(&(first + number))),
                    _ => {
                        let last = first + number / 4;
                        let kept = model.split_off(&(last + 1));
                        let mut drained = Vec::new();
                        window.drain_through(last, |number, value| drained.push((number, value)));
                        prop_assert_eq!(drained, std::mem::replace(&mut model, kept).into_iter().collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(window.len(), model.len());
                prop_assert_eq!(window.first(), model.keys().next().copied());
                prop_assert!(window.iter().map(|(number, value)| (number, *value)).eq(model.iter().map(|(number, value)| (*number, *value))));
            }
        }
    }

    #[test]
    fn one_entry_that_stays_does_not_keep_the_others_chunks() {
        let mut window = Window::new(1);
        window.push(0);
        for number in 2..100_000_u64 {
            window.push(number);
            window.remove(number);
        }
        assert!(window.chunks.iter().flatten().count() <= 2);
        assert_eq!(window.first(), Some(1));
    }
}
