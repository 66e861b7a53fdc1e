//! Loading messages back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use super::super::crash_point::crash_point;
use super::super::record::{Kind, Placed};
use super::super::recovery::RecoveredRun;
use super::super::view::View;
use super::super::{EntryFlags, Page, QueueId, Ranges, RunId, Seq, StoreError};
use super::Segments;
use crate::message::Message;
use crate::queue::StoredEntry;

/// Octets read ahead of what was asked for, at least and at most.
const WINDOW_MIN_BYTES: u64 = 64 * 1024;
const WINDOW_MAX_BYTES: u64 = 1024 * 1024;

/// Messages that came back from a run.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The messages, their numbers growing.
    pub entries: Vec<StoredEntry>,
    /// From here the next call goes on. `None`: nothing alive comes after these.
    pub next: Option<Seq>,
    /// Messages of the run that cannot be read. They are to be settled, for they are gone.
    pub lost: Ranges,
}

impl Segments {
    /// Loads messages of a run that are alive, from the number `from` on, until their octets reach `max_bytes`; at least one if there is one that
    /// can be read. A run in which nothing is alive, or that is not known any more, yields nothing.
    pub fn read(&mut self, id: RunId, from: Seq, max_bytes: usize) -> Result<Loaded, StoreError> {
        let Some(run) = self.runs.get_mut(&id) else { return Ok(Loaded::default()) };
        let mut loaded = Loaded { lost: std::mem::take(&mut run.lost), ..Loaded::default() };
        let run = &*run;
        let Some(first) = run.next_live(from) else { return Ok(loaded) };
        let segment = self.files.get_mut(&run.file).ok_or_else(|| StoreError::Unknown(id.to_string()))?;
        let file = self.handles.file(&*self.disk, run.file, &segment.path)?;
        let window = (max_bytes as u64).clamp(WINDOW_MIN_BYTES, WINDOW_MAX_BYTES);
        let mut view = View::part(file, &segment.path, run.end(), window);
        // The number that the next record has at least.
        let (mut expected, mut at) = run.near(first);
        let mut octets = 0;
        while at < run.end() && octets < max_bytes {
            let Some(record) = view.record(at, run.end(), run.key)? else {
                let wanted = |kind| kind == Kind::Message;
                let next = view.find(at + 1, run.end(), 1, run.key, wanted)?.unwrap_or(run.end());
                let found = view.record(next, run.end(), run.key)?.and_then(|record| record.place());
                let after = found.map_or(run.last + 1, |placed| placed.seq.clamp(expected, run.last + 1));
                let lost = run.live_between(expected.max(from), after);
                self.reports.push(format!(
                    "{}: damaged at offset {at}: {} messages of {} in {} octets are lost ({}), all others are kept",
                    segment.path.display(),
                    lost.count(),
                    run.queue,
                    next - at,
                    numbers(&lost),
                ));
                loaded.lost.extend(&lost);
                segment.damaged = true;
                (expected, at) = (after, next);
                continue;
            };
            let here = at;
            at += record.len() as u64;
            let ours = |placed: &Placed<'_>| placed.queue == run.queue && (expected..=run.last).contains(&placed.seq);
            let Some(placed) = record.place().filter(ours) else { continue };
            let Placed { queue, seq, expires_ms, message: stored } = placed;
            // What the index says is here and is not.
            let missing = if seq > expected { run.live_between(expected.max(from), seq) } else { Ranges::new() };
            if !missing.is_empty() {
                self.reports.push(not_there(&segment.path, here, queue, &missing));
                loaded.lost.extend(&missing);
                segment.damaged = true;
            }
            expected = seq + 1;
            if seq < first || !run.is_live(seq) {
                continue;
            }
            let Ok(message) = Message::from_stored(stored) else {
                self.reports
                    .push(format!("{}: offset {at}: no message in the record of {queue}", segment.path.display()));
                loaded.lost.insert(seq, seq);
                continue;
            };
            let flags = EntryFlags(record.flags);
            let redelivered = flags.contains(EntryFlags::REDELIVERED) || run.delivered.contains(seq);
            octets += stored.len();
            let persistent = !flags.contains(EntryFlags::TRANSIENT);
            loaded.entries.push(StoredEntry { seq, redelivered, persistent, lane: run.lane, expires_ms, message });
        }
        if at < run.end() {
            loaded.next = run.next_live(expected);
            return Ok(loaded);
        }
        let missing = run.live_between(expected.max(from), run.last + 1);
        if !missing.is_empty() {
            self.reports.push(not_there(&segment.path, at, run.queue, &missing));
            loaded.lost.extend(&missing);
            segment.damaged = true;
        }
        Ok(loaded)
    }

    /// Copies what is alive of a run to the segment being filled. It keeps its id.
    pub(super) fn copy_run(&mut self, id: RunId) -> Result<(), StoreError> {
        let Some(run) = self.runs.get(&id).filter(|run| run.live > 0) else { return Ok(()) };
        let (queue, first, block) = (run.queue, run.first, run.block);
        let loaded = self.read(id, first, usize::MAX)?;
        crash_point!("segments.copy.loaded");
        self.write_again(id, block, Page { queue, entries: loaded.entries.into() }, loaded.lost)
    }

    /// The parts of a queue's runs of one lane in the order of their messages. `runs` in order of their first numbers.
    pub(in super::super) fn in_order(&self, runs: &[RunId]) -> Vec<RecoveredRun> {
        let mut parts: Vec<RecoveredRun> = Vec::new();
        let mut rest: BinaryHeap<Reverse<(Seq, Seq, RunId)>> = BinaryHeap::new();
        rest.extend(runs.iter().filter_map(|id| {
            let run = self.runs.get(id)?;
            Some(Reverse((run.next_live(run.first)?, run.last, *id)))
        }));
        while let Some(Reverse((first, run_last, run))) = rest.pop() {
            let Some(entry) = self.runs.get(&run) else { continue };
            // Up to where the next other run has something.
            let last = rest.peek().map_or(run_last, |Reverse((other, ..))| run_last.min(other - 1));
            parts.push(RecoveredRun { run, lane: entry.lane, first, last, count: entry.count_live(first, last) });
            if let Some(next) = last.checked_add(1).and_then(|from| entry.next_live(from)) {
                rest.push(Reverse((next, run_last, run)));
            }
        }
        parts
    }

    /// Octets of the bodies of what is alive in a run, about.
    pub(in super::super) fn live_bytes(&self, id: RunId) -> u64 {
        let Some(run) = self.runs.get(&id) else { return 0 };
        let bytes = u128::from(run.body_bytes) * u128::from(run.live) / u128::from(run.count.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The lane that a run's messages are of, and whether any of them expires.
    pub(in super::super) fn lane(&self, id: RunId) -> (u8, bool) {
        self.runs.get(&id).map_or((0, false), |run| (run.lane, run.expires))
    }

    /// The numbers of a run that may have been delivered.
    pub(in super::super) fn delivered(&self, id: RunId) -> Ranges {
        self.runs.get(&id).map(|run| run.delivered.clone()).unwrap_or_default()
    }

    /// Notes what was delivered before the last stop: these messages, or all of them if nobody knows.
    pub(in super::super) fn mark_delivered(&mut self, known: Option<&BTreeMap<QueueId, Ranges>>) {
        for run in self.runs.values_mut() {
            match known {
                None => run.delivered = Ranges::from_to(run.first, run.last),
                Some(known) => {
                    let delivered = known.get(&run.queue).into_iter();
                    delivered
                        .flat_map(|known| known.within(run.first, run.last))
                        .for_each(|(first, last)| run.delivered.insert(first, last));
                }
            }
        }
    }

    /// Everything alive, queue by queue, runs in order: queue, run, first, last, how many.
    pub(in super::super) fn live_runs(&self) -> Vec<(QueueId, RunId, Seq, Seq, u64)> {
        let alive = self.runs.iter().filter(|(_, run)| run.live > 0);
        let mut runs: Vec<_> = alive.map(|(id, run)| (run.queue, *id, run.first, run.last, run.live)).collect();
        runs.sort_unstable_by_key(|(queue, id, first, ..)| (*queue, *first, *id));
        runs
    }
}

fn not_there(path: &Path, at: u64, queue: QueueId, missing: &Ranges) -> String {
    let (count, which) = (missing.count(), numbers(missing));
    format!(
        "{}: damaged before offset {at}: {count} messages of {queue} that the index names are not there ({which})",
        path.display()
    )
}

fn numbers(ranges: &Ranges) -> String {
    let parts: Vec<String> = ranges
        .iter()
        .take(4)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let more = if ranges.iter().nth(4).is_some() { ", …" } else { "" };
    format!("numbers {}{more}", parts.join(", "))
}
