//! One bit for each number from a first one on.

/// Bits that are set or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bitmap(Box<[u64]>);

impl Bitmap {
    /// `len` bits, none set.
    pub(super) fn new(len: u64) -> Self {
        Bitmap(vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX)].into())
    }

    pub(super) fn contains(&self, bit: u64) -> bool {
        self.0.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets the bits from `first` to `last`, both included, but only those that are set in `of`, and returns how many were not set before.
    pub(super) fn set(&mut self, first: u64, last: u64, of: Option<&Bitmap>) -> u64 {
        let mut added = 0;
        for at in first / 64..=last / 64 {
            let low = if at == first / 64 { first % 64 } else { 0 };
            let high = if at == last / 64 { last % 64 } else { 63 };
            let mask = (u64::MAX >> (63 - (high - low))) << low;
            let allowed = of.map_or(u64::MAX, |of| of.0.get(at as usize).copied().unwrap_or(0));
            if let Some(word) = self.0.get_mut(at as usize) {
                let new = mask & allowed & !*word;
                added += u64::from(new.count_ones());
                *word |= new;
            }
        }
        added
    }

    /// Clears a bit; whether it was set.
    pub(super) fn clear(&mut self, bit: u64) -> bool {
        let was = self.contains(bit);
        if let Some(word) = self.0.get_mut((bit / 64) as usize) {
            *word &= !(1 << (bit % 64));
        }
        was
    }

    /// Octets it takes.
    pub(super) fn memory(&self) -> usize {
        self.0.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_set_it_says(ranges in prop::collection::vec((0_u64..300, 0_u64..150), 0..10), holes in prop::collection::vec(0_u64..450, 0..9)) {
            let (mut bits, mut model) = (Bitmap::new(450), BTreeSet::new());
            let mut of = Bitmap::new(450);
            of.set(0, 449, None);
            for hole in &holes {
                of.clear(*hole);
            }
            for (first, len) in ranges {
                let before = model.len();
                model.extend((first..=first + len).filter(|bit| !holes.contains(bit)));
                prop_assert_eq!(bits.set(first, first + len, Some(&of)), (model.len() - before) as u64);
            }
            for bit in 0..450 {
                prop_assert_eq!(bits.contains(bit), model.contains(&bit));
            }
        }
    }
}
