//! What is kept in memory of a run: where it is, and which of its messages are still alive.

use super::super::journal::QueueState;
use super::super::record::Key;
use super::super::{EntryFlags, QueueId, Ranges, Seq};
use super::block::{Mark, RunIndex};
use super::numbers::Numbers;

/// A run in memory. Dense runs of which nothing or everything is settled have no bitmaps.
#[derive(Debug)]
pub(super) struct RunEntry {
    pub queue: QueueId,
    /// The lane its messages are of.
    pub lane: u8,
    /// Some of its messages expire.
    pub expires: bool,
    /// Number of the segment it lies in.
    pub file: u64,
    /// Number of the block it lies in.
    pub block: u64,
    pub key: Key,
    /// Position in the file.
    pub start: u64,
    /// Octets of its records.
    pub len: u64,
    pub first: Seq,
    pub last: Seq,
    /// How many messages it holds, alive or not.
    pub count: u64,
    /// How many of them are alive.
    pub live: u64,
    pub body_bytes: u64,
    /// Which numbers it holds; `None` is all from first to last.
    held: Option<Numbers>,
    /// Which of them are settled. `None` if none or all are.
    dead: Option<Numbers>,
    marks: Box<[Mark]>,
    /// May have been delivered.
    pub delivered: Ranges,
    /// Records found damaged and not yet told.
    pub lost: Ranges,
    /// The queue is no more: nothing of the run is to be remembered.
    pub dropped: bool,
}

impl RunEntry {
    /// What is to be remembered of it.
    pub(super) fn add_to(&self, state: &mut QueueState) {
        if self.dropped {
            return;
        }
        state.settled.extend(&self.settled());
        if self.live > 0 {
            state.delivered.extend(&self.delivered);
        }
    }

    /// A run as its index describes it. `transient` tells whether transient messages count as held.
    pub(super) fn new(index: RunIndex, file: u64, block: u64, data_start: u64, key: Key, transient: bool) -> Self {
        let (first, last) = (index.first(), index.last());
        let counted = |flags: EntryFlags| transient || !flags.contains(EntryFlags::TRANSIENT);
        let spans = || index.spans.iter().filter(|span| counted(span.flags));
        let count = spans().map(|span| span.last - span.first + 1).sum();
        let held = (count <= last - first).then(|| {
            let mut held = Numbers::new(first, last, count);
            for span in spans() {
                held.add(span.first, span.last, None);
            }
            held
        });
        let delivered = spans().filter(|span| span.flags.contains(EntryFlags::REDELIVERED));
        let delivered = delivered.map(|span| (span.first, span.last)).collect();
        RunEntry {
            queue: index.queue,
            lane: index.lane,
            expires: index.expires,
            file,
            block,
            key,
            start: data_start + index.start,
            len: index.len,
            first,
            last,
            count,
            live: count,
            body_bytes: index.body_bytes,
            held,
            dead: None,
            marks: index.marks.into(),
            delivered,
            lost: Ranges::new(),
            dropped: false,
        }
    }

    /// Whether it holds the message, alive or not.
    pub(super) fn holds(&self, seq: Seq) -> bool {
        seq >= self.first && seq <= self.last && self.held.as_ref().is_none_or(|held| held.contains(seq))
    }

    /// Whether it holds the message alive.
    pub(super) fn is_live(&self, seq: Seq) -> bool {
        self.live > 0 && self.holds(seq) && self.dead.as_ref().is_none_or(|dead| !dead.contains(seq))
    }

    /// The first message alive from a number on.
    pub(super) fn next_live(&self, from: Seq) -> Option<Seq> {
        self.bounds(from, self.last).into_iter().flat_map(|(from, to)| from..=to).find(|&seq| self.is_live(seq))
    }

    /// Settles what it holds between the two numbers; how many messages that were.
    pub(super) fn settle(&mut self, first: Seq, last: Seq) -> u64 {
        if self.live == 0 || last < self.first || first > self.last {
            return 0;
        }
        if first <= self.first && last >= self.last {
            return self.settle_all();
        }
        let dead = self.dead.get_or_insert_with(|| Numbers::new(self.first, self.last, self.count));
        let settled = dead.add(first.max(self.first), last.min(self.last), self.held.as_ref());
        self.live -= settled;
        if self.live == 0 {
            self.settle_all();
        }
        settled
    }

    /// Settles everything; how many messages were alive. The memory that telling them apart took is freed.
    pub(super) fn settle_all(&mut self) -> u64 {
        self.dead = None;
        self.marks = Box::default();
        std::mem::take(&mut self.live)
    }

    /// What both runs hold.
    pub(super) fn shared(&self, other: &RunEntry) -> Ranges {
        let mut shared = Ranges::new();
        let bounds = self.bounds(other.first, other.last);
        for (from, to) in bounds.into_iter().flat_map(|(from, to)| other.bounds(from, to)) {
            shared.extend(&select(from, to, |seq| self.holds(seq) && other.holds(seq)));
        }
        shared
    }

    /// Another run holds these messages: this one does as if it did not. To be called before anything is settled.
    pub(super) fn disown(&mut self, gone: &Ranges) {
        let held = self.held.take().unwrap_or_else(|| {
            let mut held = Numbers::new(self.first, self.last, self.count);
            held.add(self.first, self.last, None);
            held
        });
        self.held = Some(held.without(gone));
        self.count -= gone.count();
        self.live -= gone.count();
    }

    /// What it holds that is settled.
    pub(super) fn settled(&self) -> Ranges {
        if self.live == self.count {
            return Ranges::new();
        }
        if self.live == 0 && self.held.is_none() {
            return Ranges::from_to(self.first, self.last);
        }
        self.within(self.first, self.last, |seq| self.holds(seq) && !self.is_live(seq))
    }

    /// What it holds alive from a number on, up to another that does not count itself.
    pub(super) fn live_between(&self, from: Seq, before: Seq) -> Ranges {
        before.checked_sub(1).map_or_else(Ranges::new, |to| self.within(from, to, |seq| self.is_live(seq)))
    }

    /// How many messages between the two numbers are alive.
    pub(super) fn count_live(&self, first: Seq, last: Seq) -> u64 {
        if first <= self.first && last >= self.last {
            return self.live;
        }
        let seqs = self.bounds(first, last).into_iter().flat_map(|(from, to)| from..=to);
        seqs.filter(|&seq| self.is_live(seq)).count() as u64
    }

    /// Number and position in the file of a record at or before the one wanted.
    pub(super) fn near(&self, seq: Seq) -> (Seq, u64) {
        let wanted = seq.saturating_sub(self.first);
        let after = self.marks.partition_point(|mark| u64::from(mark.seq) <= wanted);
        let mark = after.checked_sub(1).and_then(|at| self.marks.get(at));
        mark.map_or((self.first, self.start), |mark| {
            (self.first + u64::from(mark.seq), self.start + u64::from(mark.offset))
        })
    }

    /// Position in the file behind its last record.
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Octets of memory it takes.
    pub(super) fn memory(&self) -> usize {
        let bitmaps = [&self.held, &self.dead].into_iter().flatten().map(Numbers::memory).sum::<usize>();
        size_of::<RunEntry>() + bitmaps + self.marks.len() * size_of::<Mark>()
    }

    /// Ranges between the two numbers outside of which it holds nothing.
    fn bounds(&self, from: Seq, to: Seq) -> Vec<(Seq, Seq)> {
        let (from, to) = (from.max(self.first), to.min(self.last));
        match &self.held {
            _ if from > to => Vec::new(),
            None => vec![(from, to)],
            Some(held) => held.bounds(from, to),
        }
    }

    fn within(&self, from: Seq, to: Seq, wanted: impl Fn(Seq) -> bool) -> Ranges {
        let mut ranges = Ranges::new();
        self.bounds(from, to).into_iter().for_each(|(from, to)| ranges.extend(&select(from, to, &wanted)));
        ranges
    }
}

/// The wanted ones of these numbers.
fn select(from: Seq, to: Seq, wanted: impl Fn(Seq) -> bool) -> Ranges {
    let mut ranges = Ranges::new();
    let mut start = None;
    for seq in from..=to {
        match (wanted(seq), start) {
            (true, None) => start = Some(seq),
            (false, Some(first)) => {
                ranges.insert(first, seq - 1);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(first) = start {
        ranges.insert(first, to);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of numbers that lie farther apart than any loop could count.
    fn sparse(numbers: &[Seq]) -> RunEntry {
        let mut index = RunIndex::new(QueueId(1), 0, 0);
        numbers.iter().for_each(|seq| index.push(*seq, EntryFlags(0), 0, 40));
        RunEntry::new(index, 1, 1, 0, Key { salt: 0, seed: 0 }, true)
    }

    #[test]
    fn what_numbers_lie_far_apart_costs_nothing_for_the_gaps() {
        let far = 1 << 50;
        let mut run = sparse(&[1, 2, far, 2 * far]);
        let other = sparse(&[2, 3, far, 3 * far]);
        let shared = run.shared(&other);
        assert_eq!(shared.iter().collect::<Vec<_>>(), [(2, 2), (far, far)]);
        run.disown(&shared);
        assert_eq!((run.count, run.live, run.holds(2), run.holds(1)), (2, 2, false, true));
        assert_eq!(run.live_between(0, 2 * far + 1).iter().collect::<Vec<_>>(), [(1, 1), (2 * far, 2 * far)]);
        assert!(run.live_between(2, 2 * far).is_empty() && run.live_between(1, 0).is_empty());
    }
}
