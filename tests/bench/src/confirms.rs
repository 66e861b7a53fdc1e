//! Follows the confirms of one publisher: each publish must be confirmed once, and how long it took.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use crate::checker::{FaultKind, Faults};
use crate::wire::{self, Arguments};

/// How many latencies one run keeps; later ones are not measured.
const LATENCIES_KEPT: usize = 8_000_000;

/// The confirms of one channel.
#[derive(Debug, Default)]
pub struct Confirms {
    /// All publishes up to this number are confirmed.
    floor: u64,
    /// For each publish above it: when it was written, `None` once it is confirmed.
    waiting: VecDeque<Option<Instant>>,
    confirmed: u64,
    latencies_us: Vec<u32>,
}

impl Confirms {
    /// Notes `count` publishes that were written at `now`.
    pub fn published(&mut self, count: u64, now: Instant) {
        self.waiting.extend(std::iter::repeat_n(Some(now), usize::try_from(count).unwrap_or(0)));
    }

    /// How many publishes are confirmed.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Hands out the latencies, in microseconds.
    #[must_use]
    pub fn into_latencies_us(self) -> Vec<u32> {
        self.latencies_us
    }

    /// Takes all whole frames of `octets`; returns how many octets were used.
    ///
    /// # Errors
    /// When something else than a confirm comes.
    pub fn read(&mut self, octets: &[u8], now: Instant, faults: &mut Faults) -> io::Result<usize> {
        let mut used = 0;
        while let Some(frame) = wire::parse_frame(octets.get(used..).unwrap_or_default())? {
            if frame.method_id() != Some(wire::BASIC_ACK) {
                let text = String::from_utf8_lossy(frame.payload.get(4..).unwrap_or_default());
                return Err(wire::broken(&format!("{:?} {text:?} to a publisher", frame.method_id())));
            }
            let mut arguments = Arguments::of(&frame);
            let (tag, multiple) = (arguments.u64()?, arguments.u8()? != 0);
            self.confirm(tag, multiple, now, faults);
            used += frame.wire_length();
        }
        Ok(used)
    }

    fn confirm(&mut self, tag: u64, multiple: bool, now: Instant, faults: &mut Faults) {
        let place = tag.checked_sub(self.floor + 1).and_then(|place| usize::try_from(place).ok());
        let Some(place) = place.filter(|&place| place < self.waiting.len()) else {
            faults.add(FaultKind::Confirm, || {
                format!("{tag} (multiple {multiple}), open are {} from {}", self.waiting.len(), self.floor + 1)
            });
            return;
        };
        if multiple {
            for index in 0..=place {
                self.settle(index, now);
            }
        } else if !self.settle(place, now) {
            faults.add(FaultKind::Confirm, || format!("{tag} a second time"));
        }
        while self.waiting.front() == Some(&None) {
            self.waiting.pop_front();
            self.floor += 1;
        }
    }

    /// Whether the publish was not confirmed before.
    fn settle(&mut self, index: usize, now: Instant) -> bool {
        let Some(written) = self.waiting.get_mut(index).and_then(Option::take) else { return false };
        self.confirmed += 1;
        if self.latencies_us.len() < LATENCIES_KEPT {
            let latency = now.saturating_duration_since(written).as_micros();
            self.latencies_us.push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
        true
    }
}

/// The value below which this share of the sorted values lies.
#[must_use]
pub fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(published: u64, acks: &[(u64, bool)]) -> (u64, u64) {
        let (mut confirms, mut faults) = (Confirms::default(), Faults::default());
        let now = Instant::now();
        confirms.published(published, now);
        for &(tag, multiple) in acks {
            let mut octets = Vec::new();
            wire::put_method(&mut octets, 1, wire::BASIC_ACK, |out| {
                wire::put_u64(out, tag);
                out.push(u8::from(multiple));
            });
            assert_eq!(confirms.read(&octets, now, &mut faults).unwrap(), octets.len());
        }
        (confirms.confirmed(), faults.count())
    }

    #[test]
    fn single_and_multiple_confirms_in_any_order_are_right() {
        assert_eq!(run(5, &[(2, false), (1, false), (5, true)]), (5, 0));
        assert_eq!(run(5, &[(3, false), (2, true)]), (3, 0));
    }

    #[test]
    fn a_second_confirm_and_one_for_nothing_are_faults() {
        assert_eq!(run(3, &[(1, false), (1, false)]), (1, 1));
        assert_eq!(run(3, &[(3, false), (3, false)]), (1, 1));
        assert_eq!(run(3, &[(4, false)]), (0, 1));
        assert_eq!(run(3, &[(4, true)]), (0, 1));
        assert_eq!(run(3, &[(0, true)]), (0, 1));
    }

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values: Vec<u32> = (0..=100).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99)), (Some(50), Some(99)));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
