//! The ready messages of a queue, or of one lane of it, in order of their places: the head in memory, a middle that may lie in the store, the newest in memory again.
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
use super::entry::{Entry, Place, stored_entry};
use super::seldom::{AtFirst, Seldom};
use super::{LOAD_BYTES, PAGE_BYTES, StoredEntry, Stretch};
use crate::store::{Ranges, RunId, Seq};

#[derive(Debug)]
pub(super) struct Ready {
    head: VecDeque<Entry>,
    middle: VecDeque<Span>,
    tail: VecDeque<Entry>,
    len: u64,
    /// Octets of the bodies of all messages; of some, see [`OnDisk::guessed`].
    body_bytes: u64,
    resident_bytes: usize,
    tail_bytes: usize,
    resident_max: u32,
    on_disk: Seldom<OnDisk>,
}

/// What is to be known of messages that are on disk, or on their way there.
#[derive(Debug, Default)]
struct OnDisk {
    /// The run something is being read from, and from which place on.
    loading: Option<(RunId, Seq)>,
    /// Places of messages on disk that may have been delivered before.
    redelivered: Ranges,
    /// Messages found at start whose sizes nobody has looked at yet, and what their bodies are taken for together.
    guessed: (u64, u64),
    /// Page-outs that were reached before they were written, with the queue tag from which on their messages may be found.
    reached: Vec<(u64, u64)>,
}

impl AtFirst for OnDisk {
    fn at_first() -> &'static Self {
        static NONE: OnDisk =
            OnDisk { loading: None, redelivered: Ranges::new(), guessed: (0, 0), reached: Vec::new() };
        &NONE
    }
}

/// A stretch of the middle.
#[derive(Debug)]
enum Span {
    /// In a run: every ready message of the run with a place in `from..=to`.
    OnDisk { run: RunId, from: Seq, to: Seq, guessed: bool },
    /// In memory, and on its way to the store.
    Paging(Paging),
    /// In memory.
    Resident(VecDeque<Entry>),
}

/// A page on its way to the store.
#[derive(Debug)]
struct Paging {
    ticket: u64,
    entries: Arc<[StoredEntry]>,
    bytes: usize,
    /// Deliveries of its messages, should it be reached before it is written, have queue tags from here on.
    first_tag: u64,
}

/// What was read from a run.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) run: RunId,
    pub(super) from: Seq,
    pub(super) entries: Vec<StoredEntry>,
    pub(super) next: Option<Seq>,
    pub(super) lost: Vec<(Seq, Seq)>,
}

impl Ready {
    pub(super) fn recovered(messages: u64, stretches: Vec<Stretch>, body_bytes: u64, redelivered: Ranges) -> Self {
        let guessed = |stretch| Span::on_disk(stretch, true);
        let mut middle: VecDeque<Span> = stretches.into_iter().map(guessed).collect();
        middle.make_contiguous().sort_by_key(Span::first);
        Ready {
            head: VecDeque::new(),
            middle,
            tail: VecDeque::new(),
            len: messages,
            body_bytes,
            on_disk: match messages == 0 && redelivered.is_empty() {
                true => Seldom::default(),
                false => OnDisk { redelivered, guessed: (messages, body_bytes), ..OnDisk::default() }.into(),
            },
            resident_bytes: 0,
            tail_bytes: 0,
            resident_max: 0,
        }
    }

    /// Messages, wherever they lie.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets of the bodies of all messages, about.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
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
        self.body_bytes += entry.body_bytes();
        let bytes = entry.message.memory();
        self.resident_bytes += bytes;
        if self.middle.is_empty() {
            self.head.push_back(entry);
        } else {
            self.tail_bytes += bytes;
            self.tail.push_back(entry);
        }
    }

    /// The oldest message, if it is in memory.
    #[inline]
    pub(super) fn front(&mut self) -> Option<&Entry> {
        if self.head.is_empty() && !self.refill() {
            return None;
        }
        self.head.front()
    }

    /// Takes the oldest message, if it is in memory.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.head.is_empty() && !self.refill() {
            return None;
        }
        let entry = self.head.pop_front()?;
        self.len -= 1;
        self.body_bytes = self.body_bytes.saturating_sub(entry.body_bytes());
        self.resident_bytes -= entry.message.memory();
        if self.head.is_empty() {
            release_if_large(&mut self.head);
        }
        if self.len == 0 {
            self.body_bytes = 0;
            self.forget_on_disk();
        }
        Some(entry)
    }

    /// Puts a message back to its place.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        self.body_bytes += entry.body_bytes();
        let bytes = entry.message.memory();
        self.resident_bytes += bytes;
        let Some(at) = self.middle.partition_point(|span| span.first() <= entry.seq).checked_sub(1) else {
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

    /// Puts a message back to its place that is in memory no more but lies in this run.
    pub(super) fn insert_on_disk(&mut self, run: RunId, seq: Seq, redelivered: bool, body_bytes: u64) {
        self.len += 1;
        self.body_bytes += body_bytes;
        if redelivered {
            self.on_disk.redelivered.insert(seq, seq);
        }
        let at = self.cut(seq);
        if let Some(Span::OnDisk { run: other, to, guessed: false, .. }) =
            at.checked_sub(1).and_then(|before| self.middle.get_mut(before))
            && *other == run
            && *to + 1 == seq
        {
            *to = seq;
            return;
        }
        self.middle.insert(at, Span::OnDisk { run, from: seq, to: seq, guessed: false });
    }

    /// Parts what comes before a place from what comes after it. Returns where in the middle its message belongs.
    fn cut(&mut self, seq: Seq) -> usize {
        let rest = self.head.split_off(self.head.partition_point(|entry| entry.seq < seq));
        if !rest.is_empty() {
            self.middle.push_front(Span::Resident(rest));
            return 0;
        }
        let older = self.tail.partition_point(|entry| entry.seq < seq);
        if older > 0 {
            let older: VecDeque<Entry> = self.tail.drain(..older).collect();
            self.tail_bytes -= older.iter().map(|entry| entry.message.memory()).sum::<usize>();
            self.middle.push_back(Span::Resident(older));
            return self.middle.len();
        }
        let at = self.middle.partition_point(|span| span.first() < seq);
        let Some(before) = at.checked_sub(1) else { return self.skip_gap(0, seq) };
        match &mut self.middle[before] {
            Span::OnDisk { run, to, guessed, .. } if *to >= seq => {
                let (run, last, guessed) = (*run, *to, *guessed);
                *to = seq - 1;
                if seq < last {
                    self.middle.insert(at, Span::OnDisk { run, from: seq + 1, to: last, guessed });
                }
            }
            span if span.last() > seq => {
                if let Some(mut entries) = span.take_entries(&mut self.on_disk.reached) {
                    let rest = entries.split_off(entries.partition_point(|entry| entry.seq < seq));
                    *span = Span::Resident(entries);
                    self.middle.insert(at, Span::Resident(rest));
                }
            }
            _ => return self.skip_gap(at, seq),
        }
        at
    }

    /// A span on disk may begin with a place that is not in its run.
    fn skip_gap(&mut self, at: usize, seq: Seq) -> usize {
        if let Some(Span::OnDisk { from, to, .. }) = self.middle.get_mut(at)
            && *from == seq
        {
            *from = seq + 1;
            if *from > *to {
                self.middle.remove(at);
            }
        }
        at
    }

    /// Gives the messages that are to be paged out now, if any: a page of the newest ones in memory. What is delivered from now on has queue tags
    /// from `next_tag` on.
    pub(super) fn page_out(&mut self, ticket: u64, next_tag: u64) -> Option<Arc<[StoredEntry]>> {
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
        if entries.iter().any(|entry| entry.place.is_paged()) {
            // Some are in a run already (written for the journal's sake): they stay in memory rather than lie in two runs.
            self.middle.push_back(Span::Resident(entries));
            return None;
        }
        let entries: Arc<[StoredEntry]> = entries.into_iter().map(stored_entry).collect();
        self.middle.push_back(Span::Paging(Paging { ticket, entries: entries.clone(), bytes, first_tag: next_tag }));
        Some(entries)
    }

    /// A page-out is on disk: its messages leave memory. If they were reached meanwhile, they have not: returns then the queue tag from which on they
    /// may be among the unacked.
    pub(super) fn paged(&mut self, ticket: u64, stretches: &[Stretch]) -> Option<u64> {
        if let Some(at) = self.on_disk.reached.iter().position(|(other, _)| *other == ticket) {
            return Some(self.on_disk.reached.swap_remove(at).1);
        }
        let at = self.middle.iter().position(|span| matches!(span, Span::Paging(paging) if paging.ticket == ticket))?;
        if let Some(Span::Paging(Paging { bytes, .. })) = self.middle.remove(at) {
            self.resident_bytes -= bytes;
        }
        for (offset, stretch) in stretches.iter().enumerate() {
            self.middle.insert(at + offset, Span::on_disk(*stretch, false));
        }
        None
    }

    /// Whether the oldest message has to be read before anything can be known of it.
    pub(super) fn head_is_on_disk(&mut self) -> bool {
        self.len > 0 && self.front().is_none()
    }

    /// Whether this is being read from a run.
    pub(super) fn is_loading(&self, run: RunId, from: Seq) -> bool {
        self.on_disk.loading == Some((run, from))
    }

    /// Where to read on, if the head runs low and nothing is being read.
    pub(super) fn wants_load(&mut self) -> Option<(RunId, Seq)> {
        if self.on_disk.loading.is_some() || self.head.len() > LOAD_AHEAD {
            return None;
        }
        match self.middle.front()? {
            Span::OnDisk { run, from, .. } => {
                self.on_disk.loading = Some((*run, *from));
                self.on_disk.loading
            }
            Span::Paging(_) | Span::Resident(_) => None,
        }
    }

    /// Takes what was read from a run. Returns the ranges that are lost.
    pub(super) fn loaded(&mut self, loaded: Loaded) -> Vec<(Seq, Seq)> {
        let Loaded { run, from: asked_from, entries, next, lost } = loaded;
        if self.on_disk.loading != Some((run, asked_from)) {
            return Vec::new(); // Asked for before a purge.
        }
        self.on_disk.loading = None;
        let Some(Span::OnDisk { run: front, from, to, guessed }) = self.middle.front_mut() else { return Vec::new() };
        if (*front, *from) != (run, asked_from) {
            return Vec::new(); // A message was put back in front of it: it is read again when its turn comes.
        }
        let (first, last, guessed) = (*from, *to, *guessed);
        match next.filter(|&next| next <= last) {
            Some(next) => *from = next,
            None => drop(self.middle.pop_front()),
        }
        for stored in entries {
            if stored.seq < first || stored.seq > last {
                continue;
            }
            self.resident_bytes += stored.message.memory();
            let mut entry = Entry::from_stored(stored, Place::in_run(run));
            if guessed {
                self.body_bytes = (self.body_bytes + entry.body_bytes()).saturating_sub(self.guess());
            }
            entry.redelivered |= self.on_disk.redelivered.contains(entry.seq);
            self.head.push_back(entry);
        }
        let lost: Vec<(Seq, Seq)> =
            lost.into_iter().flat_map(|(from, to)| from.max(first)..=to.min(last)).map(|seq| (seq, seq)).collect();
        for _ in &lost {
            let share = if guessed { self.guess() } else { self.body_bytes.checked_div(self.len).unwrap_or(0) };
            self.body_bytes = self.body_bytes.saturating_sub(share);
        }
        self.len -= (lost.len() as u64).min(self.len);
        if self.middle.is_empty() {
            self.refill();
        }
        lost
    }

    /// What a message found at start was taken for, of which more is known now.
    fn guess(&mut self) -> u64 {
        let (messages, bytes) = self.on_disk.guessed;
        let share = bytes.checked_div(messages).unwrap_or(0);
        self.on_disk.guessed = (messages.saturating_sub(1), bytes - share);
        share
    }

    /// What was found at start, and what was put back to the disk, has come out again.
    fn forget_on_disk(&mut self) {
        if self.on_disk.guessed.0 != 0 || !self.on_disk.redelivered.is_empty() {
            self.on_disk.guessed = (0, 0);
            self.on_disk.redelivered = Ranges::new();
        }
    }

    /// Forgets all; returns what was in memory, and the ranges that are on disk.
    pub(super) fn take_all(&mut self) -> (Vec<Entry>, Vec<(Seq, Seq)>) {
        let mut resident: Vec<Entry> = self.head.drain(..).collect();
        let mut on_disk = Vec::new();
        for span in self.middle.drain(..) {
            match span {
                Span::OnDisk { from, to, .. } => on_disk.push((from, to)),
                mut span => resident.extend(span.take_entries(&mut self.on_disk.reached).into_iter().flatten()),
            }
        }
        resident.extend(self.tail.drain(..));
        (self.len, self.body_bytes, self.resident_bytes, self.tail_bytes) = (0, 0, 0, 0);
        self.forget_on_disk();
        if self.on_disk.loading.is_some() {
            self.on_disk.loading = None;
        }
        (resident, on_disk)
    }

    /// The places of messages that may have been delivered before, in ranges; of those in memory only stored ones.
    pub(super) fn each_redelivered(&self, mut visit: impl FnMut(Seq, Seq)) {
        let mut in_memory = |seq, redelivered, stored| {
            if stored && redelivered {
                visit(seq, seq);
            }
        };
        let mut each = |entries: &VecDeque<Entry>| {
            entries.iter().for_each(|entry| in_memory(entry.seq, entry.redelivered, entry.stored));
        };
        each(&self.head);
        each(&self.tail);
        for span in &self.middle {
            match span {
                Span::OnDisk { .. } => {}
                Span::Paging(paging) => paging.entries.iter().for_each(|entry| {
                    in_memory(entry.seq, entry.redelivered, entry.persistent);
                }),
                Span::Resident(entries) => {
                    entries.iter().for_each(|entry| in_memory(entry.seq, entry.redelivered, entry.stored));
                }
            }
        }
        self.on_disk.redelivered.iter().for_each(|(first, last)| visit(first, last));
    }

    /// Messages in memory that are not on their way to the store.
    pub(super) fn each_resident_mut(&mut self, visit: impl FnMut(&mut Entry)) {
        let middle = self.middle.iter_mut().filter_map(|span| match span {
            Span::Resident(entries) => Some(entries),
            Span::OnDisk { .. } | Span::Paging(_) => None,
        });
        self.head.iter_mut().chain(middle.flatten()).chain(&mut self.tail).for_each(visit);
    }

    /// Moves what follows the head in memory into it. Returns whether the head has anything.
    fn refill(&mut self) -> bool {
        while self.head.is_empty()
            && let Some(entries) = self.middle.front_mut().and_then(|span| span.take_entries(&mut self.on_disk.reached))
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
        if let Some(mut entries) = self.middle[at].take_entries(&mut self.on_disk.reached) {
            insert_sorted(&mut entries, entry);
            self.middle[at] = Span::Resident(entries);
            return;
        }
        let at = self.cut(entry.seq);
        self.middle.insert(at, Span::Resident(VecDeque::from([entry])));
    }
}

/// With fewer messages than this in the head, more are read.
const LOAD_AHEAD: usize = 2048;

impl Span {
    fn on_disk(stretch: Stretch, guessed: bool) -> Span {
        Span::OnDisk { run: stretch.run, from: stretch.first, to: stretch.last, guessed }
    }

    fn first(&self) -> Seq {
        match self {
            Span::OnDisk { from, .. } => *from,
            Span::Paging(paging) => paging.entries.first().map_or(0, |entry| entry.seq),
            Span::Resident(entries) => entries.front().map_or(0, |entry| entry.seq),
        }
    }

    fn last(&self) -> Seq {
        match self {
            Span::OnDisk { to, .. } => *to,
            Span::Paging(paging) => paging.entries.last().map_or(0, |entry| entry.seq),
            Span::Resident(entries) => entries.back().map_or(0, |entry| entry.seq),
        }
    }

    /// What it holds in memory, taken out of it; `None` if it is on disk. A page on its way is noted as reached.
    fn take_entries(&mut self, reached: &mut Vec<(u64, u64)>) -> Option<VecDeque<Entry>> {
        match self {
            Span::OnDisk { .. } => None,
            Span::Paging(paging) => {
                reached.push((paging.ticket, paging.first_tag));
                let place = Place::on_its_way(paging.ticket);
                Some(paging.entries.iter().cloned().map(|entry| Entry::from_stored(entry, place)).collect())
            }
            Span::Resident(entries) => Some(std::mem::take(entries)),
        }
    }
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
