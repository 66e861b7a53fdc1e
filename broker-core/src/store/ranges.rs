//! A set of sequence numbers, kept as the ranges it consists of.

use std::collections::BTreeMap;

use super::Seq;
use super::varint;

/// A set of sequence numbers. Costs some 40 octets a range, however long the ranges are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First to last, both included. Ranges neither overlap nor touch.
    last_of: BTreeMap<Seq, Seq>,
}

impl Ranges {
    /// The empty set.
    pub const fn new() -> Self {
        Ranges { last_of: BTreeMap::new() }
    }

    /// Everything from `first` to `last`, both included.
    pub fn from_to(first: Seq, last: Seq) -> Self {
        let mut ranges = Ranges::new();
        ranges.insert(first, last);
        ranges
    }

    /// Adds everything from `first` to `last`, both included. Nothing if `last` is less than `first`.
    pub fn insert(&mut self, mut first: Seq, mut last: Seq) {
        if last < first {
            return;
        }
        // The range before, if it reaches up to this one.
        if let Some((&before, &end)) = self.last_of.range(..first).next_back()
            && end >= first - 1
        {
            if end >= last {
                return;
            }
            first = before;
        }
        while let Some((&start, &end)) = self.last_of.range(first..=last.saturating_add(1)).next() {
            self.last_of.remove(&start);
            last = last.max(end);
        }
        self.last_of.insert(first, last);
    }

    /// Takes everything from `first` to `last` out, both included.
    pub fn remove(&mut self, first: Seq, last: Seq) {
        if last < first {
            return;
        }
        let start = self.last_of.range(..=first).next_back().map_or(first, |(&start, _)| start);
        while let Some((&start, &end)) = self.last_of.range(start..=last).find(|(_, end)| **end >= first) {
            self.last_of.remove(&start);
            if start < first {
                self.last_of.insert(start, first - 1);
            }
            if end > last {
                self.last_of.insert(last + 1, end);
                return;
            }
        }
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Ranges) {
        for (first, last) in other.iter() {
            self.insert(first, last);
        }
    }

    /// Whether the number is in the set.
    pub fn contains(&self, seq: Seq) -> bool {
        self.last_of.range(..=seq).next_back().is_some_and(|(_, &last)| last >= seq)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.last_of.is_empty()
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// The largest number in the set.
    pub fn last(&self) -> Option<Seq> {
        self.last_of.last_key_value().map(|(_, &last)| last)
    }

    /// First and last of each range, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        self.last_of.iter().map(|(&first, &last)| (first, last))
    }

    /// The parts of the set between `first` and `last`, both included.
    pub fn within(&self, first: Seq, last: Seq) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        let start = self.last_of.range(..=first).next_back().map_or(first, |(&start, _)| start);
        let reach = (first <= last).then(|| self.last_of.range(start..=last));
        reach
            .into_iter()
            .flatten()
            .map(move |(&start, &end)| (start.max(first), end.min(last)))
            .filter(|(start, end)| start <= end)
    }

    /// Appends the set as variable-length numbers: how many ranges, then for each the distance from the end of the one before and how many
    /// numbers it has beyond its first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        varint::put(self.last_of.len() as u64, out);
        let mut end = 0;
        for (first, last) in self.iter() {
            varint::put(first - end, out);
            varint::put(last - first, out);
            end = last;
        }
    }

    /// Reads what [`Ranges::encode`] wrote and moves `octets` behind it. `None` if it is not that.
    pub(crate) fn decode(octets: &mut &[u8]) -> Option<Ranges> {
        let mut ranges = Ranges::new();
        let mut end = 0_u64;
        for _ in 0..varint::take(octets)? {
            let first = end.checked_add(varint::take(octets)?)?;
            end = first.checked_add(varint::take(octets)?)?;
            ranges.insert(first, end);
        }
        Some(ranges)
    }
}

impl FromIterator<(Seq, Seq)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (Seq, Seq)>>(ranges: I) -> Self {
        let mut set = Ranges::new();
        for (first, last) in ranges {
            set.insert(first, last);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_set_it_says(inserts in prop::collection::vec((0_u64..60, 0_u64..9), 0..40), from in 0_u64..70, len in 0_u64..30) {
            let (mut ranges, mut model) = (Ranges::new(), BTreeSet::new());
            for (first, len) in inserts {
                ranges.insert(first, first + len);
                model.extend(first..=first + len);
            }
            let flat = |parts: Vec<(u64, u64)>| parts.into_iter().flat_map(|(a, b)| a..=b).collect::<Vec<_>>();
            prop_assert_eq!(flat(ranges.iter().collect()), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.count(), model.len() as u64);
            prop_assert_eq!(ranges.contains(from), model.contains(&from));
            prop_assert_eq!(flat(ranges.within(from, from + len).collect()), model.range(from..=from + len).copied().collect::<Vec<_>>());
            let mut octets = Vec::new();
            ranges.encode(&mut octets);
            prop_assert_eq!(Ranges::decode(&mut octets.as_slice()), Some(ranges.clone()));
            ranges.remove(from, from + len);
            model.retain(|seq| !(from..=from + len).contains(seq));
            prop_assert_eq!(flat(ranges.iter().collect()), model.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_octets_decode_or_not(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ranges::decode(&mut octets.as_slice());
        }
    }

    #[test]
    fn the_ends_of_the_number_range_work() {
        let mut ranges = Ranges::from_to(u64::MAX - 1, u64::MAX);
        ranges.insert(0, 0);
        ranges.insert(1, 5);
        ranges.insert(7, 6);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 5), (u64::MAX - 1, u64::MAX)]);
        assert_eq!(ranges.within(3, u64::MAX - 1).collect::<Vec<_>>(), [(3, 5), (u64::MAX - 1, u64::MAX - 1)]);
        assert_eq!(ranges.within(9, 3).count(), 0);
        ranges.remove(9, 3);
        ranges.remove(0, 0);
        ranges.remove(u64::MAX, u64::MAX);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, 5), (u64::MAX - 1, u64::MAX - 1)]);
        ranges.remove(0, u64::MAX);
        assert!(ranges.is_empty());
    }
}
