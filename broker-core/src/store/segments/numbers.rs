//! Which numbers of a run are held, or dead: bits where the numbers lie close, ranges where they lie far apart.

use super::super::{Ranges, Seq};
use super::bitmap::Bitmap;

/// Bits are used up to so many numbers between first and last for each one held.
const BITS_FOR_EACH: u64 = 256;

/// A set of numbers between two bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    Bits { first: Seq, bits: Bitmap },
    Ranges(Ranges),
}

impl Numbers {
    /// An empty set for numbers from `first` to `last`, of which about `count` will be held.
    pub(super) fn new(first: Seq, last: Seq, count: u64) -> Self {
        if last - first < count.saturating_mul(BITS_FOR_EACH) {
            Numbers::Bits { first, bits: Bitmap::new(last - first + 1) }
        } else {
            Numbers::Ranges(Ranges::new())
        }
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        match self {
            Numbers::Bits { first, bits } => seq.checked_sub(*first).is_some_and(|bit| bits.contains(bit)),
            Numbers::Ranges(ranges) => ranges.contains(seq),
        }
    }

    /// Adds the numbers from `from` to `to` that are in `of`, or all of them; how many were new. The bounds must lie within the set's.
    pub(super) fn add(&mut self, from: Seq, to: Seq, of: Option<&Numbers>) -> u64 {
        match (self, of) {
            (Numbers::Bits { first, bits }, None) => bits.set(from - *first, to - *first, None),
            (Numbers::Bits { first, bits }, Some(Numbers::Bits { bits: of, .. })) => {
                bits.set(from - *first, to - *first, Some(of))
            }
            (Numbers::Bits { first, bits }, Some(Numbers::Ranges(of))) => {
                of.within(from, to).map(|(from, to)| bits.set(from - *first, to - *first, None)).sum()
            }
            (Numbers::Ranges(ranges), Some(Numbers::Ranges(of))) => {
                of.within(from, to).map(|(from, to)| add_range(ranges, from, to)).sum()
            }
            (Numbers::Ranges(ranges), Some(of)) => {
                (from..=to).filter(|seq| of.contains(*seq)).map(|seq| add_range(ranges, seq, seq)).sum()
            }
            (Numbers::Ranges(ranges), None) => add_range(ranges, from, to),
        }
    }

    /// The set without these numbers, which must lie within its bounds.
    pub(super) fn without(self, gone: &Ranges) -> Self {
        match self {
            Numbers::Bits { first, mut bits } => {
                for seq in gone.iter().flat_map(|(from, to)| from..=to) {
                    bits.clear(seq - first);
                }
                Numbers::Bits { first, bits }
            }
            Numbers::Ranges(ranges) => {
                let mut left = Ranges::new();
                for (from, to) in ranges.iter() {
                    let mut next = from;
                    for (first, last) in gone.within(from, to) {
                        if first > next {
                            left.insert(next, first - 1);
                        }
                        next = last + 1;
                    }
                    left.insert(next, to);
                }
                Numbers::Ranges(left)
            }
        }
    }

    /// Ranges outside of which there is nothing.
    pub(super) fn bounds(&self, from: Seq, to: Seq) -> Vec<(Seq, Seq)> {
        match self {
            Numbers::Bits { .. } => vec![(from, to)],
            Numbers::Ranges(ranges) => ranges.within(from, to).collect(),
        }
    }

    /// Octets of memory, about.
    pub(super) fn memory(&self) -> usize {
        match self {
            Numbers::Bits { bits, .. } => bits.memory(),
            Numbers::Ranges(ranges) => ranges.iter().count() * 40,
        }
    }
}

fn add_range(ranges: &mut Ranges, from: Seq, to: Seq) -> u64 {
    let had: u64 = ranges.within(from, to).map(|(from, to)| to - from + 1).sum();
    ranges.insert(from, to);
    to - from + 1 - had
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_kinds_are_the_same_set(held in prop::collection::vec((0_u64..300, 0_u64..20), 1..10), dead in prop::collection::vec((0_u64..320, 0_u64..90), 0..10), gone in 0_u64..320) {
            for counts in [(1_000, 1_000), (0, 0), (1_000, 0), (0, 1_000)] {
                let mut of = Numbers::new(0, 420, counts.0);
                let mut set = Numbers::new(0, 420, counts.1);
                let (mut of_model, mut model) = (BTreeSet::new(), BTreeSet::new());
                for (from, len) in &held {
                    let before = of_model.len();
                    of_model.extend(*from..=from + len);
                    prop_assert_eq!(of.add(*from, from + len, None), (of_model.len() - before) as u64);
                }
                of = of.without(&Ranges::from_to(gone, gone + 2));
                of_model.retain(|seq| !(gone..=gone + 2).contains(seq));
                for (from, len) in &dead {
                    let before = model.len();
                    model.extend((*from..=from + len).filter(|seq| of_model.contains(seq)));
                    prop_assert_eq!(set.add(*from, from + len, Some(&of)), (model.len() - before) as u64);
                }
                for seq in 0..=420 {
                    prop_assert_eq!(set.contains(seq), model.contains(&seq));
                    prop_assert_eq!(of.contains(seq), of_model.contains(&seq));
                }
                let bounded: BTreeSet<u64> = of.bounds(5, 200).into_iter().flat_map(|(a, b)| a..=b).collect();
                prop_assert!(of_model.range(5..=200).all(|seq| bounded.contains(seq)));
            }
        }
    }
}
