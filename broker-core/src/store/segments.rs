//! Segments: where a backlog lives once it has left memory.
//!
//! A page-out writes a *block* into a segment file: messages of one or many queues, each queue's in a *run*, and an index of the runs. A full file
//! is closed and never written again; it is removed when everything in it is settled, and copied together when little of it is alive. In memory a
//! run costs a few octets for every 64 KiB, and one bit a message once some of its messages are settled and others are not.
//!
//! What is settled stands in the journal. A segment says what it holds, and the journal what of it is done with; when the journal gives up a file
//! it asks [`Segments::state_of`] what to carry over. So a file must be gone for good (its directory synced) before that is answered without it.

mod bitmap;
mod block;
mod handles;
mod numbers;
mod open;
mod read;
mod run;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

pub use read::Loaded;

#[cfg(any(test, feature = "sim"))]
pub(super) use block::BLOCK_HEAD_BYTES;

use super::crash_point::crash_point;
use super::disk::Disk;
use super::journal::QueueState;
use super::record::Key;
use super::seeds::Seeds;
use super::{QueueId, Ranges, RunId, Seq, StoreError};
use handles::Handles;
use run::RunEntry;

/// A file is copied together when less than one in so many of its messages is alive.
const COMPACT_BELOW: u64 = 4;

/// The segments of a node. Used by one thread, not the journal's; see the module's page.
#[derive(Debug)]
pub struct Segments {
    disk: Arc<dyn Disk>,
    /// The store's directory.
    root: PathBuf,
    /// The segments' directory.
    dir: PathBuf,
    file_bytes: u64,
    salt: u64,
    seeds: Seeds,
    files: BTreeMap<u64, SegmentFile>,
    handles: Handles,
    /// The file that is being filled.
    active: Option<u64>,
    runs: HashMap<RunId, RunEntry, RandomState>,
    /// The runs known of each queue, dead ones too.
    of_queue: BTreeSet<(QueueId, RunId)>,
    queues: HashMap<QueueId, QueueRuns, RandomState>,
    next_run: u64,
    next_file: u64,
    next_block: u64,
    /// Blocks up to this number are durable.
    durable: u64,
    /// Files in which nothing is alive.
    dead: BTreeSet<u64>,
    /// Files that must be copied to others and removed before their settled messages may be forgotten.
    rewrite: BTreeSet<u64>,
    /// Files were removed and their directory not synced since.
    removed: bool,
    reports: Vec<String>,
    failed: bool,
}

#[derive(Debug)]
struct SegmentFile {
    path: PathBuf,
    key: Key,
    /// Where the next block would go.
    end: u64,
    runs: Vec<RunId>,
    count: u64,
    live: u64,
    /// Something in it is not what was written: it is put aside, not removed.
    damaged: bool,
}

/// The runs of a queue that have messages alive.
#[derive(Debug, Default)]
struct QueueRuns {
    /// Last number of each run, by its first.
    last_of: BTreeMap<(Seq, RunId), Seq>,
    /// No run reaches further than this from its first number.
    reach: u64,
}

/// Figures about the segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentStats {
    /// Segment files.
    pub files: u64,
    /// Octets on the disk.
    pub disk_bytes: u64,
    /// Runs known, dead ones in living files too.
    pub runs: u64,
    /// Messages alive.
    pub messages: u64,
    /// Octets of memory that the runs take.
    pub memory_bytes: u64,
}

impl Segments {
    /// Messages of the queue numbered `first` to `last` (both included) are done with. Touches memory only.
    ///
    /// A settle must arrive here after the page that holds its message, and before the answer that lets the journal give up the file it stands in.
    pub fn settle(&mut self, queue: QueueId, first: Seq, last: Seq) -> Result<(), StoreError> {
        self.not_failed()?;
        for id in self.overlapping(queue, first, last) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let settled = run.settle(first, last);
            self.count_dead(id, settled);
        }
        Ok(())
    }

    /// The queue was deleted: nothing of it is alive.
    pub fn drop_queue(&mut self, queue: QueueId) -> Result<(), StoreError> {
        self.not_failed()?;
        let ids: Vec<RunId> = self.runs_of(queue).collect();
        for id in ids {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            run.dropped = true;
            let settled = run.settle_all();
            self.count_dead(id, settled);
        }
        Ok(())
    }

    /// What the journal must carry over about a queue when it gives up a file. Everything removed is durably gone when this returns.
    pub fn state_of(&mut self, queue: QueueId) -> Result<QueueState, StoreError> {
        self.not_failed()?;
        self.rewrite_marked()?;
        self.sync_removals()?;
        let mut state = QueueState { queue, settled: Ranges::new(), delivered: Ranges::new() };
        for run in self.runs_of(queue).filter_map(|id| self.runs.get(&id)) {
            run.add_to(&mut state);
        }
        Ok(state)
    }

    /// Takes the lines about damage found since the last call: file, offset, what was lost.
    pub fn reports(&mut self) -> Vec<String> {
        std::mem::take(&mut self.reports)
    }

    /// Removes files in which nothing is alive and copies one together in which little is. Whether there is more to do.
    pub fn maintain(&mut self) -> Result<bool, StoreError> {
        self.not_failed()?;
        // First, for it makes room that copying may need.
        self.remove_dead()?;
        self.rewrite_marked()?;
        let sparse = |file: &&SegmentFile| file.live > 0 && file.live.saturating_mul(COMPACT_BELOW) < file.count;
        let closed = self.files.iter().filter(|(number, _)| Some(**number) != self.active);
        let Some(number) = closed.filter(|(_, file)| sparse(file)).map(|(number, _)| *number).next() else {
            return Ok(false);
        };
        self.copy_together(number)?;
        Ok(true)
    }

    /// Figures. Looks at every run.
    pub fn stats(&self) -> SegmentStats {
        SegmentStats {
            files: self.files.len() as u64,
            disk_bytes: self.files.values().map(|file| file.end).sum(),
            runs: self.runs.len() as u64,
            messages: self.files.values().map(|file| file.live).sum(),
            memory_bytes: self.runs.values().map(|run| run.memory() as u64).sum(),
        }
    }

    /// The states of all queues that have runs.
    pub(super) fn states(&self) -> Vec<QueueState> {
        let mut states: BTreeMap<QueueId, QueueState> = BTreeMap::new();
        for run in self.runs.values().filter(|run| !run.dropped) {
            let nothing = || QueueState { queue: run.queue, settled: Ranges::new(), delivered: Ranges::new() };
            run.add_to(states.entry(run.queue).or_insert_with(nothing));
        }
        states.into_values().collect()
    }

    /// The runs known of a queue, dead ones too.
    fn runs_of(&self, queue: QueueId) -> impl Iterator<Item = RunId> {
        self.of_queue.range((queue, RunId(0))..=(queue, RunId(u64::MAX))).map(|(_, id)| *id)
    }

    /// Whether some run holds the message, alive or not.
    pub(super) fn holds(&self, queue: QueueId, seq: Seq) -> bool {
        self.overlapping(queue, seq, seq).iter().any(|id| self.runs.get(id).is_some_and(|run| run.holds(seq)))
    }

    /// Runs with something alive that may hold numbers between the two.
    fn overlapping(&self, queue: QueueId, first: Seq, last: Seq) -> Vec<RunId> {
        let Some(runs) = self.queues.get(&queue) else { return Vec::new() };
        let from = first.saturating_sub(runs.reach);
        if from > last {
            return Vec::new();
        }
        runs.last_of
            .range((from, RunId(0))..=(last, RunId(u64::MAX)))
            .filter(|(_, run_last)| **run_last >= first)
            .map(|((_, id), _)| *id)
            .collect()
    }

    fn count_dead(&mut self, id: RunId, settled: u64) {
        let Some(run) = self.runs.get(&id) else { return };
        if run.live == 0
            && let Some(runs) = self.queues.get_mut(&run.queue)
        {
            runs.last_of.remove(&(run.first, id));
            if runs.last_of.is_empty() {
                self.queues.remove(&run.queue);
            }
        }
        let Some(file) = self.files.get_mut(&run.file) else { return };
        file.live -= settled;
        if file.live == 0 {
            self.dead.insert(run.file);
        }
    }

    /// Makes a run known.
    fn register(&mut self, id: RunId, run: RunEntry) {
        if run.live > 0 {
            let runs = self.queues.entry(run.queue).or_default();
            runs.last_of.insert((run.first, id), run.last);
            runs.reach = runs.reach.max(run.last - run.first);
        }
        if let Some(file) = self.files.get_mut(&run.file) {
            file.runs.push(id);
            file.count += run.count;
            file.live += run.live;
            if file.live > 0 {
                self.dead.remove(&run.file);
            }
        }
        self.of_queue.insert((run.queue, id));
        self.runs.insert(id, run);
    }

    /// Forgets a run's place, for it now lies elsewhere or nowhere.
    fn unregister(&mut self, id: RunId) -> Option<RunEntry> {
        let run = self.runs.remove(&id)?;
        self.of_queue.remove(&(run.queue, id));
        if let Some(runs) = self.queues.get_mut(&run.queue) {
            runs.last_of.remove(&(run.first, id));
            if runs.last_of.is_empty() {
                self.queues.remove(&run.queue);
            }
        }
        if let Some(file) = self.files.get_mut(&run.file) {
            // The one that was added last is the only one that leaves a file that is not being copied.
            if let Some(at) = file.runs.iter().rposition(|other| *other == id) {
                file.runs.remove(at);
            }
            file.count -= run.count;
            file.live -= run.live;
        }
        Some(run)
    }

    /// Copies what is alive in a file to the one being filled. The file is dead then, and its messages have the ids they had.
    fn copy_together(&mut self, number: u64) -> Result<(), StoreError> {
        crash_point!("segments.copy.before");
        // Until the old file is gone there are two copies, and what is settled of the new one must not be forgotten.
        self.rewrite.insert(number);
        if self.active == Some(number) {
            self.close_active()?;
        }
        let Some(file) = self.files.get_mut(&number) else {
            // All in it was settled before it could be copied, and it is gone.
            self.rewrite.remove(&number);
            return Ok(());
        };
        // Taken out meanwhile, so that no run is searched for among all the others when it leaves.
        let mut ids = std::mem::take(&mut file.runs);
        let copied = ids.iter().try_for_each(|id| self.copy_run(*id));
        ids.retain(|id| self.runs.get(id).is_some_and(|run| run.file == number));
        if let Some(file) = self.files.get_mut(&number) {
            file.runs = ids;
        }
        copied?;
        crash_point!("segments.copy.after");
        self.dead.insert(number);
        self.remove_dead()?;
        self.rewrite.remove(&number);
        Ok(())
    }

    /// Copies the files that must not stay as they are.
    pub(super) fn rewrite_marked(&mut self) -> Result<(), StoreError> {
        while let Some(number) = self.rewrite.first().copied() {
            self.copy_together(number)?;
        }
        Ok(())
    }

    pub(super) fn remove_dead(&mut self) -> Result<(), StoreError> {
        for number in std::mem::take(&mut self.dead) {
            if self.active == Some(number) {
                self.active = None;
            }
            self.handles.close(number);
            let Some(file) = self.files.remove(&number) else { continue };
            for id in &file.runs {
                if let Some(run) = self.runs.remove(id) {
                    self.of_queue.remove(&(run.queue, *id));
                }
            }
            self.removed = true;
            crash_point!("segments.remove.before");
            let result = if file.damaged { self.put_aside(&file.path, "quarantine") } else { self.remove_file(&file) };
            self.failed |= result.is_err();
            result?;
            crash_point!("segments.remove.after");
        }
        self.sync_removals()
    }

    fn remove_file(&self, file: &SegmentFile) -> Result<(), StoreError> {
        self.disk.remove(&file.path).map_err(StoreError::fatal("remove", &file.path, 0))
    }

    /// Moves a file out of the way, into a directory of the store.
    fn put_aside(&self, path: &std::path::Path, into: &str) -> Result<(), StoreError> {
        super::recovery::put_aside(&*self.disk, &self.root, path, into)
    }

    fn sync_removals(&mut self) -> Result<(), StoreError> {
        if !self.removed {
            return Ok(());
        }
        let synced = self.disk.sync_dir(&self.dir).map_err(StoreError::fatal("sync", &self.dir, 0));
        self.failed |= synced.is_err();
        synced?;
        crash_point!("segments.remove.synced");
        self.removed = false;
        Ok(())
    }

    fn not_failed(&self) -> Result<(), StoreError> {
        if !self.failed {
            return Ok(());
        }
        Err(StoreError::fatal("go on after a failed write", &self.dir, 0)(std::io::ErrorKind::BrokenPipe.into()))
    }
}
