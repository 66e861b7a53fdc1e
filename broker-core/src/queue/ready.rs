//! The ready messages of a queue in order of their places: the head in memory, a middle that may lie in the store, the newest in memory again.
//!
//! ```text
//!   head ──────────► middle ───────────────────────────────► tail
//!   in memory        spans: on disk, on the way there,       in memory, only while
//!   (deliveries)     or in memory between such               there is a middle (publishes)
//! ```
//!
//! Every place in the head is smaller than every place in the middle, and those than every place in the tail.

use std::collections::VecDeque;
use std::sync::Arc;

use super::confirms::release_if_large;
use super::{Entry, LOAD_BYTES, PAGE_BYTES, RESIDENT_MAX_BYTES, Recovered, StoredEntry, Stretch, Unacked};
use crate::store::{RunId, Seq};
use crate::window::Window;

#[derive(Debug)]
pub(super) struct Ready {
    head: VecDeque<Entry>,
    middle: VecDeque<Span>,
    tail: VecDeque<Entry>,
    len: u64,
    resident_bytes: usize,
    tail_bytes: usize,
    resident_max: u32,
    /// The run something is being read from.
    loading: Option<RunId>,
    /// Places of messages that may have been delivered before the node was started.
    redelivered: Vec<(Seq, Seq)>,
}

/// A stretch of the middle.
#[derive(Debug)]
enum Span {
    /// In a run: every ready message of the run with a place in `from..=to`.
    OnDisk { run: RunId, from: Seq, to: Seq },
    /// In memory, and on its way to the store.
    Paging { ticket: u64, entries: Arc<[StoredEntry]>, bytes: usize },
    /// In memory.
    Resident(VecDeque<Entry>),
}

/// A page-out that was written.
#[derive(Debug)]
pub(super) struct Paged {
    pub(super) ticket: u64,
    pub(super) stretches: Vec<Stretch>,
}

/// What was read from a run.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) run: RunId,
    pub(super) entries: Vec<StoredEntry>,
    pub(super) next: Option<Seq>,
    pub(super) lost: Vec<(Seq, Seq)>,
}

impl Ready {
    pub(super) fn recovered(recovered: Recovered) -> Self {
        let Recovered { messages, stretches, redelivered, .. } = recovered;
        let mut middle: VecDeque<Span> = stretches.into_iter().map(Span::on_disk).collect();
        middle.make_contiguous().sort_by_key(Span::first);
        Ready {
            head: VecDeque::new(),
            middle,
            tail: VecDeque::new(),
            len: messages,
            redelivered,
            resident_bytes: 0,
            tail_bytes: 0,
            resident_max: RESIDENT_MAX_BYTES as u32,
            loading: None,
        }
    }

    /// Messages, wherever they lie.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    pub(super) fn set_resident_max(&mut self, bytes: usize) {
        self.resident_max = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Adds the newest message.
    pub(super) fn push(&mut self, entry: Entry) {
        self.len += 1;
        let bytes = entry.message.memory();
        self.resident_bytes += bytes;
        if self.middle.is_empty() {
            self.head.push_back(entry);
        } else {
            self.tail_bytes += bytes;
            self.tail.push_back(entry);
        }
    }

    /// What the oldest message costs in memory, if it is in memory.
    pub(super) fn next_memory(&mut self) -> Option<usize> {
        if self.head.is_empty() && !self.refill() {
            return None;
        }
        self.head.front().map(|entry| entry.message.memory())
    }

    /// Takes the oldest message, if it is in memory.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.head.is_empty() && !self.refill() {
            return None;
        }
        let entry = self.head.pop_front()?;
        self.len -= 1;
        self.resident_bytes -= entry.message.memory();
        if self.head.is_empty() {
            release_if_large(&mut self.head);
        }
        Some(entry)
    }

    /// Puts a message back to its place.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        let bytes = entry.message.memory();
        self.resident_bytes += bytes;
        let Some(at) = self.middle.iter().rposition(|span| span.first() <= entry.seq) else {
            insert_sorted(&mut self.head, entry);
            return;
        };
        if at + 1 == self.middle.len() && self.tail.front().is_some_and(|first| first.seq < entry.seq) {
            self.tail_bytes += bytes;
            insert_sorted(&mut self.tail, entry);
            return;
        }
        self.insert_into_middle(at, entry);
    }

    /// Gives the messages that are to be paged out now, if any: a page of the newest ones in memory.
    pub(super) fn page_out(&mut self, ticket: u64) -> Option<Arc<[StoredEntry]>> {
        if self.resident_bytes <= self.resident_max as usize {
            return None;
        }
        if self.middle.is_empty() {
            self.split_head();
        }
        if self.tail_bytes < PAGE_BYTES.min((self.resident_max / 2) as usize).max(1) {
            if self.middle.is_empty() {
                self.refill();
            }
            return None;
        }
        let entries = std::mem::take(&mut self.tail);
        let bytes = std::mem::take(&mut self.tail_bytes);
        if entries.iter().any(|entry| entry.paged) {
            // Some are in a run already (written for the journal's sake): they stay in memory rather than lie in two runs.
            self.middle.push_back(Span::Resident(entries));
            return None;
        }
        let entries: Arc<[StoredEntry]> = entries.into_iter().map(stored_entry).collect();
        self.middle.push_back(Span::Paging { ticket, entries: entries.clone(), bytes });
        Some(entries)
    }

    /// A page-out is on disk: its messages leave memory, unless they have been reached meanwhile.
    pub(super) fn paged(&mut self, paged: Paged) {
        let Paged { ticket, stretches } = paged;
        let Some(at) =
            self.middle.iter().position(|span| matches!(span, Span::Paging { ticket: other, .. } if *other == ticket))
        else {
            return;
        };
        if let Some(Span::Paging { bytes, .. }) = self.middle.remove(at) {
            self.resident_bytes -= bytes;
        }
        for (offset, stretch) in stretches.into_iter().enumerate() {
            self.middle.insert(at + offset, Span::on_disk(stretch));
        }
    }

    /// Where to read on, if the head runs low and nothing is being read.
    pub(super) fn wants_load(&mut self) -> Option<(RunId, Seq)> {
        if self.loading.is_some() || self.head.len() > LOAD_AHEAD {
            return None;
        }
        match self.middle.front()? {
            Span::OnDisk { run, from, .. } => {
                self.loading = Some(*run);
                Some((*run, *from))
            }
            Span::Paging { .. } | Span::Resident(_) => None,
        }
    }

    /// Takes what was read from a run. Messages that are held as unacked were delivered from memory before the run was written. Returns the ranges
    /// that are lost.
    pub(super) fn loaded(&mut self, loaded: Loaded, unacked: &Window<Unacked>) -> Vec<(Seq, Seq)> {
        let Loaded { run, entries, next, lost } = loaded;
        if self.loading != Some(run) {
            return Vec::new(); // Asked for before a purge.
        }
        self.loading = None;
        let Some(Span::OnDisk { run: expected, from, to }) = self.middle.front_mut() else { return Vec::new() };
        if *expected != run {
            return Vec::new(); // A message was put back in front of it: it is read again when its turn comes.
        }
        let (first, last) = (*from, *to);
        match next.filter(|&next| next <= last) {
            Some(next) => *from = next,
            None => drop(self.middle.pop_front()),
        }
        let held = held_between(unacked, first, last);
        for stored in entries {
            if stored.seq < first || stored.seq > last || held.binary_search(&stored.seq).is_ok() {
                continue;
            }
            self.resident_bytes += stored.message.memory();
            let mut entry = paged_entry(stored);
            entry.redelivered |= contains(&self.redelivered, entry.seq);
            self.head.push_back(entry);
        }
        let lost: Vec<(Seq, Seq)> = lost
            .into_iter()
            .flat_map(|(from, to)| from.max(first)..=to.min(last))
            .filter(|seq| held.binary_search(seq).is_err())
            .map(|seq| (seq, seq))
            .collect();
        self.len -= (lost.len() as u64).min(self.len);
        if self.middle.is_empty() {
            self.refill();
        }
        lost
    }

    /// Forgets all; returns what was in memory, and the ranges that are on disk.
    pub(super) fn take_all(&mut self) -> (Vec<Entry>, Vec<(Seq, Seq)>) {
        let mut resident: Vec<Entry> = self.head.drain(..).collect();
        let mut on_disk = Vec::new();
        for span in self.middle.drain(..) {
            match span {
                Span::OnDisk { from, to, .. } => on_disk.push((from, to)),
                Span::Paging { entries, .. } => resident.extend(entries.iter().cloned().map(paged_entry)),
                Span::Resident(entries) => resident.extend(entries),
            }
        }
        resident.extend(self.tail.drain(..));
        (self.len, self.resident_bytes, self.tail_bytes) = (0, 0, 0);
        self.loading = None;
        (resident, on_disk)
    }

    /// The places of stored messages in memory that may have been delivered before.
    pub(super) fn each_redelivered(&self, mut visit: impl FnMut(Seq)) {
        let mut in_memory = |entry: &Entry| {
            if entry.stored && entry.redelivered {
                visit(entry.seq);
            }
        };
        self.head.iter().chain(&self.tail).for_each(&mut in_memory);
        self.middle.iter().for_each(|span| match span {
            Span::OnDisk { .. } => {}
            Span::Paging { entries, .. } => {
                entries.iter().cloned().map(paged_entry).for_each(|entry| in_memory(&entry))
            }
            Span::Resident(entries) => entries.iter().for_each(&mut in_memory),
        });
    }

    /// Messages in memory that are not on their way to the store.
    pub(super) fn each_resident_mut(&mut self, visit: impl FnMut(&mut Entry)) {
        let middle = self.middle.iter_mut().filter_map(|span| match span {
            Span::Resident(entries) => Some(entries),
            Span::OnDisk { .. } | Span::Paging { .. } => None,
        });
        self.head.iter_mut().chain(middle.flatten()).chain(&mut self.tail).for_each(visit);
    }

    /// Moves what follows the head in memory into it. Returns whether the head has anything.
    fn refill(&mut self) -> bool {
        while self.head.is_empty()
            && let Some(entries) = self.middle.front_mut().and_then(Span::take_entries)
        {
            self.head = entries;
            self.middle.pop_front();
        }
        if self.middle.is_empty() && !self.tail.is_empty() {
            self.tail_bytes = 0;
            let mut tail = std::mem::take(&mut self.tail);
            if self.head.is_empty() {
                self.head = tail;
            } else {
                self.head.append(&mut tail);
            }
        }
        !self.head.is_empty()
    }

    /// Turns the newer part of the head into a tail, so that it can be paged out; the oldest stay for the next deliveries.
    fn split_head(&mut self) {
        let keep_bytes = LOAD_BYTES.min((self.resident_max / 4) as usize);
        let mut kept = 0;
        let at = self
            .head
            .iter()
            .position(|entry| {
                kept += entry.message.memory();
                kept > keep_bytes
            })
            .map_or(self.head.len(), |at| at + 1);
        self.tail = self.head.split_off(at);
        self.tail_bytes = self.tail.iter().map(|entry| entry.message.memory()).sum();
    }

    /// Puts a message into the span at `at`, which begins before it, cutting a span on disk in two.
    fn insert_into_middle(&mut self, at: usize, entry: Entry) {
        // A page-out under way does not hold this message, so its span stays in memory. What the page-out holds is marked as paged: the store hears
        // when it is settled.
        if let Some(mut entries) = self.middle[at].take_entries() {
            insert_sorted(&mut entries, entry);
            self.middle[at] = Span::Resident(entries);
            return;
        }
        match &mut self.middle[at] {
            Span::OnDisk { run, from: _, to } if entry.seq <= *to => {
                let (run, last, seq) = (*run, *to, entry.seq);
                *to = seq.saturating_sub(1);
                if let Span::OnDisk { from, to, .. } = &self.middle[at]
                    && from > to
                {
                    self.middle.remove(at);
                    self.middle.insert(at, Span::Resident(VecDeque::from([entry])));
                    self.insert_rest(at + 1, run, seq + 1, last);
                    return;
                }
                self.middle.insert(at + 1, Span::Resident(VecDeque::from([entry])));
                self.insert_rest(at + 2, run, seq + 1, last);
            }
            Span::OnDisk { .. } | Span::Paging { .. } | Span::Resident(_) => {
                self.middle.insert(at + 1, Span::Resident(VecDeque::from([entry])));
            }
        }
    }

    fn insert_rest(&mut self, at: usize, run: RunId, from: Seq, to: Seq) {
        if from <= to {
            self.middle.insert(at, Span::OnDisk { run, from, to });
        }
    }
}

/// With fewer messages than this in the head, more are read.
const LOAD_AHEAD: usize = 2048;

impl Span {
    fn on_disk(stretch: Stretch) -> Span {
        Span::OnDisk { run: stretch.run, from: stretch.first, to: stretch.last }
    }

    fn first(&self) -> Seq {
        match self {
            Span::OnDisk { from, .. } => *from,
            Span::Paging { entries, .. } => entries.first().map_or(0, |entry| entry.seq),
            Span::Resident(entries) => entries.front().map_or(0, |entry| entry.seq),
        }
    }

    /// What it holds in memory, taken out of it; `None` if it is on disk.
    fn take_entries(&mut self) -> Option<VecDeque<Entry>> {
        match self {
            Span::OnDisk { .. } => None,
            Span::Paging { entries, .. } => Some(entries.iter().cloned().map(paged_entry).collect()),
            Span::Resident(entries) => Some(std::mem::take(entries)),
        }
    }
}

pub(super) fn stored_entry(entry: Entry) -> StoredEntry {
    let Entry { seq, message, redelivered, stored, .. } = entry;
    StoredEntry { seq, redelivered, persistent: stored, message }
}

fn paged_entry(entry: StoredEntry) -> Entry {
    let StoredEntry { seq, redelivered, persistent, message } = entry;
    Entry { seq, message, redelivered, stored: persistent, paged: true }
}

fn insert_sorted(entries: &mut VecDeque<Entry>, entry: Entry) {
    // Requeued messages come back near the front, mostly in order.
    if entries.front().is_none_or(|first| entry.seq < first.seq) {
        entries.push_front(entry);
        return;
    }
    let at = entries.partition_point(|other| other.seq < entry.seq);
    entries.insert(at, entry);
}

fn contains(ranges: &[(Seq, Seq)], seq: Seq) -> bool {
    let at = ranges.partition_point(|&(_, last)| last < seq);
    ranges.get(at).is_some_and(|&(first, _)| first <= seq)
}

fn held_between(unacked: &Window<Unacked>, first: Seq, last: Seq) -> Vec<Seq> {
    let mut held: Vec<Seq> =
        unacked.iter().map(|(_, unacked)| unacked.entry.seq).filter(|&seq| seq >= first && seq <= last).collect();
    held.sort_unstable();
    held
}
