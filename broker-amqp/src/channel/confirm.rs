//! Publisher confirms: which publishes are still open, and one `basic.ack` for many where that is true.

use std::collections::VecDeque;

use crate::codec;
use crate::send_buffer::SendBuffer;

const ACK: u8 = 80;
const NACK: u8 = 120;

/// Numbers that are not answered yet: they are added in order and mostly answered in order, so a few runs hold them.
#[derive(Debug)]
struct Open {
    /// Sorted, apart from each other.
    runs: VecDeque<(u64, u64)>,
    next: u64,
    count: u64,
}

impl Open {
    fn from(base: u64) -> Open {
        Open { runs: VecDeque::new(), next: base + 1, count: 0 }
    }

    fn add(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.count += 1;
        match self.runs.back_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.runs.push_back((number, number)),
        }
        number
    }

    /// Takes out what there is of the numbers from `first` to `last`, run by run through `taken`.
    fn remove(&mut self, first: u64, last: u64, mut taken: impl FnMut(u64, u64)) {
        let mut at = self.runs.partition_point(|(_, end)| *end < first);
        while let Some(&(begin, end)) = self.runs.get(at)
            && begin <= last
        {
            let (from, to) = (begin.max(first), end.min(last));
            self.count -= to - from + 1;
            taken(from, to);
            self.runs.remove(at);
            for rest in [(to + 1, end), (begin, from - 1)] {
                if rest.0 <= rest.1 {
                    self.runs.insert(at, rest);
                }
            }
            at += usize::from(begin < from);
        }
    }
}

/// The publishes of a channel that wants confirms.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// To the driver publishes have their number on the wire and this: an answer for a channel that is gone fits no later one of its number.
    base: u64,
    open: Open,
    /// Confirmed since the last flush: runs of numbers, mostly in order.
    confirmed: Vec<(u64, u64)>,
    /// Refused since the last flush.
    refused: Vec<u64>,
}

impl Confirms {
    pub(crate) fn new(base: u64) -> Confirms {
        Confirms { base, open: Open::from(base), confirmed: Vec::new(), refused: Vec::new() }
    }

    /// The number of the next publish.
    pub(crate) fn publish(&mut self) -> u64 {
        self.open.add()
    }

    /// Publishes that are neither confirmed nor refused.
    pub(crate) fn open(&self) -> usize {
        usize::try_from(self.open.count).unwrap_or(usize::MAX)
    }

    /// A run of publishes is safe. Numbers that are not open are passed over.
    pub(crate) fn confirm(&mut self, first: u64, last: u64) {
        let confirmed = &mut self.confirmed;
        self.open.remove(first, last, |first, last| match confirmed.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => confirmed.push((first, last)),
        });
    }

    /// A publish was refused.
    pub(crate) fn refuse(&mut self, number: u64) {
        self.open.remove(number, number, |number, _| self.refused.push(number));
    }

    /// Tells the client all that was gathered: what is refused first, as RabbitMQ does.
    pub(crate) fn flush(&mut self, channel: u16, send: &mut SendBuffer) {
        let open = self.open.runs.front().map_or(u64::MAX, |(first, _)| *first);
        self.confirmed.sort_unstable();
        self.refused.sort_unstable();
        let first_refused = self.refused.first().copied().unwrap_or(u64::MAX);
        let first_confirmed = self.confirmed.first().map_or(u64::MAX, |(first, _)| *first);
        let base = self.base;
        let mut write = |out: &mut Vec<u8>, method, number: u64, multiple| {
            codec::write_confirm(out, channel, method, number - base, multiple);
        };
        send.append(|out| {
            let refused = self.refused.iter().map(|&number| (number, number));
            write_runs(out, &mut write, NACK, refused, open.min(first_confirmed));
            write_runs(out, &mut write, ACK, self.confirmed.iter().copied(), open.min(first_refused));
        });
        self.refused.clear();
        self.confirmed.clear();
        // What a burst needed is not kept for ever.
        self.refused.shrink_to(8);
        self.confirmed.shrink_to(8);
    }
}

/// One answer for all numbers below `cutoff`, and one each for the rest. A lone number is never `multiple`.
fn write_runs(
    out: &mut Vec<u8>,
    write: &mut impl FnMut(&mut Vec<u8>, u8, u64, bool),
    method: u8,
    runs: impl Iterator<Item = (u64, u64)> + Clone,
    cutoff: u64,
) {
    let count: u64 = runs.clone().map(|(first, last)| last - first + 1).take(2).sum();
    if count == 1 {
        if let Some((only, _)) = runs.last() {
            write(out, method, only, false);
        }
        return;
    }
    // No run straddles the cutoff: that number is open, or was answered the other way.
    let below = runs.clone().take_while(|(_, last)| *last < cutoff).last();
    if let Some((_, last)) = below {
        write(out, method, last, true);
    }
    for (first, last) in runs.skip_while(|(_, last)| *last < cutoff) {
        for number in first..=last {
            write(out, method, number, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// `+5` ack, `-5` nack, `*` multiple.
    fn flushed(confirms: &mut Confirms) -> Vec<String> {
        let mut send = SendBuffer::default();
        confirms.flush(1, &mut send);
        let octets: Vec<u8> = send.as_io_slices(64).iter().flat_map(|slice| slice.to_vec()).collect();
        octets
            .chunks(21)
            .map(|frame| {
                let sign = if frame[10] == ACK { '+' } else { '-' };
                let star = if frame[19] == 1 { "*" } else { "" };
                format!("{sign}{}{star}", u64::from_be_bytes(frame[11..19].try_into().unwrap()))
            })
            .collect()
    }

    fn with_open(count: u64) -> Confirms {
        let mut confirms = Confirms::new(0);
        for number in 1..=count {
            assert_eq!(confirms.publish(), number);
        }
        confirms
    }

    #[test]
    fn confirms_are_joined_below_the_smallest_open() {
        let mut confirms = with_open(10);
        confirms.confirm(1, 3);
        confirms.confirm(5, 5);
        confirms.confirm(4, 4);
        confirms.confirm(8, 9);
        assert_eq!(flushed(&mut confirms), ["+5*", "+8", "+9"]);
        confirms.confirm(6, 6);
        assert_eq!(flushed(&mut confirms), ["+6"]);
        assert_eq!(confirms.open(), 2);
        assert_eq!(flushed(&mut confirms), [""; 0]);
    }

    #[test]
    fn a_refused_publish_is_not_covered_by_a_confirm() {
        let mut confirms = with_open(6);
        confirms.confirm(1, 2);
        confirms.refuse(3);
        confirms.confirm(4, 6);
        assert_eq!(flushed(&mut confirms), ["-3", "+2*", "+4", "+5", "+6"]);
        let mut confirms = with_open(3);
        for number in 1..=3 {
            confirms.refuse(number);
        }
        assert_eq!(flushed(&mut confirms), ["-3*"]);
    }

    #[test]
    fn numbers_that_are_not_open_are_passed_over() {
        let mut confirms = with_open(2);
        confirms.confirm(1, 1);
        confirms.confirm(1, 99);
        confirms.refuse(2);
        assert_eq!(flushed(&mut confirms), ["+2*"]);
    }

    proptest! {
        #[test]
        fn open_numbers_are_a_set(steps in prop::collection::vec((any::<bool>(), 1_u64..60, 0_u64..10), 1..200)) {
            let mut open = Open { runs: VecDeque::new(), next: 1, count: 0 };
            let mut model = BTreeSet::new();
            for (add, first, more) in steps {
                if add {
                    prop_assert!(model.insert(open.add()));
                    continue;
                }
                let mut taken = Vec::new();
                open.remove(first, first + more, |first, last| taken.extend(first..=last));
                let expected: Vec<u64> = model.range(first..=first + more).copied().collect();
                model.retain(|number| !expected.contains(number));
                prop_assert_eq!(taken, expected);
                prop_assert_eq!(open.count, model.len() as u64);
                prop_assert!(open.runs.iter().flat_map(|&(first, last)| first..=last).eq(model.iter().copied()));
                prop_assert!(open.runs.iter().zip(open.runs.iter().skip(1)).all(|(a, b)| a.1 < b.0));
            }
        }
    }
}
