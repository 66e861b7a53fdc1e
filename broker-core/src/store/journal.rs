//! The journal: what every queue of the node wants to be durable, in the order of its commits, with one write and one sync for all of them.
//!
//! Files are reserved and zero-filled before they are used and written over when their time has passed, so that a sync has data to write and
//! nothing else. A commit is a head that names its batches, and the batches as the shards encoded them. Each head says up to which commit the
//! journal was known to be durable when it was written: so a reader can tell a commit that was torn by a power cut (nothing durable came after
//! it, cut it off) from one that rotted (something did: report it and keep the rest).
//!
//! The journal forgets its oldest file once all that is alive in it lies in segments: [`Journal::retire_candidates`] names the queues to ask,
//! [`Journal::paged`] takes their answers and carries over what segments do not say themselves, and the file is used again.

mod batch;
mod file;
pub(super) mod replay;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

pub use batch::{COMMIT_MAX_BYTES, JournalBatch};
pub use file::{Spare, SpareMaker};

pub(super) use file::{JournalFile, commit_key};

use super::crash_point::crash_point;
use super::disk::Disk;
use super::file_head::FILE_HEAD_BYTES;
use super::options::StoreOptions;
use super::record::{Encoder, HEAD_BYTES, Kind};
use super::seeds::Seeds;
use super::{QueueId, Ranges, Seq, StoreError};

/// Commits begin at multiples of this.
const COMMIT_ALIGN: u64 = 8;
/// Payload of a commit's head before its batches: number, durable, oldest, how many batches.
const COMMIT_FIXED_BYTES: usize = 8 * 4;
/// For each batch in a commit's head: seed and length.
const COMMIT_BATCH_BYTES: usize = 16;
/// Files kept ready. The last one is only taken for settles, so that these can be written when the disk is full.
const SPARES: usize = 2;
/// A file must be able to hold a head and something after it.
const FILE_MIN_BYTES: u64 = 64 * 1024;

/// The journal of a node. Used by one thread; see the module's page.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    files_max: usize,
    salt: u64,
    seeds: Seeds,
    current: JournalFile,
    closed: VecDeque<JournalFile>,
    spares: Vec<JournalFile>,
    /// Whether a [`SpareMaker`] is out.
    making: bool,
    next_file: u64,
    next_generation: u64,
    next_commit: u64,
    /// The last commit known to be durable.
    durable: u64,
    /// The first commit that still matters.
    oldest: u64,
    /// Queues that have not answered yet about the oldest file, with the number up to which they must.
    retiring: Option<HashMap<QueueId, Seq, RandomState>>,
    /// What those that have answered said.
    carried: BTreeMap<QueueId, QueueState>,
    head: Encoder,
    /// A write or sync failed: the file's state is unknown, nothing more may be written.
    failed: bool,
}

/// What was settled and delivered of a queue's messages that lie in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The queue.
    pub queue: QueueId,
    /// Messages that still lie in a segment but are done with.
    pub settled: Ranges,
    /// Messages that may have been delivered.
    pub delivered: Ranges,
}

/// Where a journal goes on after recovery.
pub(super) struct Start {
    /// Files in which nothing matters any more.
    pub idle: Vec<JournalFile>,
    pub next_file: u64,
    pub next_generation: u64,
    pub next_commit: u64,
}

impl Journal {
    /// A journal whose first commit makes everything before it irrelevant: it must carry over what still holds.
    pub(super) fn start(disk: Arc<dyn Disk>, options: &StoreOptions, start: Start) -> Result<Journal, StoreError> {
        let file_bytes = options.journal_file_bytes.max(FILE_MIN_BYTES);
        let dir = options.dir.join("journal");
        let mut next_file = start.next_file;
        let mut spares: Vec<JournalFile> = start.idle.into_iter().filter(|file| file.capacity == file_bytes).collect();
        while spares.len() < SPARES {
            // Not filled: a start must not take long. The files made later, on another thread, are.
            let maker = SpareMaker {
                disk: disk.clone(),
                dir: dir.clone(),
                number: next_file,
                capacity: file_bytes,
                filled: false,
            };
            next_file += 1;
            spares.push(maker.make()?.0);
        }
        let mut current = spares.remove(0);
        current.begin(start.next_generation, options.salt)?;
        current.first_commit = start.next_commit;
        Ok(Journal {
            disk,
            dir,
            file_bytes,
            files_max: usize::try_from(options.journal_budget_bytes / file_bytes).unwrap_or(usize::MAX).max(2),
            salt: options.salt,
            seeds: Seeds::new(options.salt),
            current,
            closed: VecDeque::new(),
            spares,
            making: false,
            next_file,
            next_generation: start.next_generation + 1,
            next_commit: start.next_commit,
            durable: start.next_commit - 1,
            oldest: start.next_commit,
            retiring: None,
            carried: BTreeMap::new(),
            head: Encoder::default(),
            failed: false,
        })
    }

    /// An empty batch for a shard to fill.
    pub fn batch(&mut self) -> JournalBatch {
        JournalBatch::new(self.seeds.key())
    }

    /// Writes what is in the batches with one write, and syncs if one of them needs it. Hands them back empty, to be filled again.
    ///
    /// On [`StoreError::Full`] nothing was written and the batches are as they were.
    pub fn commit(&mut self, batches: &mut [JournalBatch]) -> Result<(), StoreError> {
        let sync = batches.iter().any(JournalBatch::needs_sync);
        self.append(batches, sync)
    }

    /// The same, and durable whatever is in the batches.
    pub fn commit_synced(&mut self, batches: &mut [JournalBatch]) -> Result<(), StoreError> {
        self.append(batches, true)
    }

    /// Makes all commits durable.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.not_failed()?;
        if self.is_durable() {
            return Ok(());
        }
        crash_point!("journal.sync.before");
        let result = self.current.file.sync_data();
        self.fatal(result, "sync")?;
        crash_point!("journal.sync.after");
        self.durable = self.next_commit - 1;
        Ok(())
    }

    /// Whether every commit is durable.
    pub fn is_durable(&self) -> bool {
        self.durable + 1 == self.next_commit
    }

    /// Writes the last batches and that this was a stop in order. Nothing may be committed after it.
    pub fn stop(&mut self, batches: &mut [JournalBatch]) -> Result<(), StoreError> {
        self.append(batches, true)?;
        let mut last = [self.batch()];
        for batch in &mut last {
            batch.clean_stop();
        }
        crash_point!("journal.stop.before");
        self.append(&mut last, true)?;
        crash_point!("journal.stop.after");
        Ok(())
    }

    /// The queues that the journal's oldest file speaks of, each with the highest number in it, when it is time to give that file up; empty
    /// otherwise, and while answers are awaited. Each queue must see to it that none of its messages up to that number lives in the journal
    /// alone, then [`Journal::paged`] is called.
    pub fn retire_candidates(&mut self) -> Vec<(QueueId, Seq)> {
        if self.retiring.is_some() || self.closed.len() + 1 < self.files_max {
            return Vec::new();
        }
        let Some(oldest) = self.closed.front() else { return Vec::new() };
        let mut candidates: Vec<(QueueId, Seq)> = oldest.queues.iter().map(|(queue, seq)| (*queue, *seq)).collect();
        candidates.sort_unstable();
        self.retiring = Some(oldest.queues.clone());
        candidates
    }

    /// The queue's answer: all its messages numbered up to `through` are settled or durable in segments; and its state, as
    /// [`Segments::state_of`](super::Segments::state_of) gives it when every settle sent before has reached it. The last answer gives the file up.
    ///
    /// On [`StoreError::Full`] there was no room for what must be carried over; [`Journal::retire`] tries again.
    pub fn paged(&mut self, queue: QueueId, through: Seq, state: QueueState) -> Result<(), StoreError> {
        let Some(waiting) = &mut self.retiring else { return Ok(()) };
        if waiting.get(&queue).is_some_and(|needed| *needed <= through) {
            waiting.remove(&queue);
            self.carried.insert(queue, state);
        }
        self.retire()
    }

    /// Gives the oldest file up if all have answered: what they said is written and made durable, then the file is ready to be used again.
    /// [`Journal::paged`] does it. To be called after each commit too: nobody answers for a file whose queues are all deleted, and on a full
    /// disk it has to be tried again. Costs nothing otherwise.
    pub fn retire(&mut self) -> Result<(), StoreError> {
        if !self.retiring.as_ref().is_some_and(HashMap::is_empty) {
            return Ok(());
        }
        let before = self.oldest;
        self.oldest = self.closed.get(1).unwrap_or(&self.current).first_commit;
        crash_point!("journal.retire.before_states");
        let carried = std::mem::take(&mut self.carried);
        if let Err(error) = self.append_states(carried.values()) {
            (self.oldest, self.carried) = (before, carried);
            return Err(error);
        }
        crash_point!("journal.retire.after_states");
        self.retiring = None;
        let Some(file) = self.closed.pop_front() else { return Ok(()) };
        if self.spares.len() < self.files_max && file.capacity == self.file_bytes {
            self.spares.push(file);
        } else {
            self.disk.remove(&file.path).map_err(StoreError::fatal("remove", &file.path, 0))?;
            crash_point!("journal.retire.removed");
        }
        Ok(())
    }

    /// The queue was deleted: nobody will answer for it.
    pub fn forget_queue(&mut self, queue: QueueId) -> Result<(), StoreError> {
        for file in self.closed.iter_mut().chain([&mut self.current]) {
            file.queues.remove(&queue);
        }
        if let Some(waiting) = &mut self.retiring {
            waiting.remove(&queue);
        }
        self.carried.remove(&queue);
        self.retire()
    }

    /// Work to do on another thread, so that the next change of files costs no time; hand its result to [`Journal::add_spare`], or call
    /// [`Journal::spare_failed`].
    pub fn wants_spare(&mut self) -> Option<SpareMaker> {
        if self.making || self.spares.len() >= SPARES {
            return None;
        }
        self.making = true;
        Some(self.spare_maker(self.file_bytes, true))
    }

    /// Takes a file made elsewhere.
    pub fn add_spare(&mut self, spare: Spare) {
        self.making = false;
        self.spares.push(spare.0);
    }

    /// The file could not be made: the disk is full. It will be wanted again.
    pub fn spare_failed(&mut self) {
        self.making = false;
    }

    /// Octets of the files in use and ready.
    pub fn disk_bytes(&self) -> u64 {
        self.closed.iter().chain(&self.spares).chain([&self.current]).map(|file| file.capacity).sum()
    }

    /// Takes a file of the journal before, in which nothing matters any more. Gives it back if there are enough.
    pub(super) fn reuse(&mut self, file: JournalFile) -> Option<JournalFile> {
        if self.spares.len() >= self.files_max || file.capacity != self.file_bytes {
            return Some(file);
        }
        self.spares.push(file);
        None
    }

    /// Writes what is true about messages in segments, so that older files need not say it. One commit, durable even if there is nothing to say.
    pub(super) fn append_states<'s>(
        &mut self,
        states: impl IntoIterator<Item = &'s QueueState>,
    ) -> Result<(), StoreError> {
        let mut batch = self.batch();
        for state in states.into_iter().filter(|state| !state.settled.is_empty() || !state.delivered.is_empty()) {
            batch.queue_state(state.queue, &state.settled, &state.delivered);
        }
        self.write(&[batch])?;
        self.sync()
    }

    fn append(&mut self, batches: &mut [JournalBatch], sync: bool) -> Result<(), StoreError> {
        self.not_failed()?;
        if !batches.iter().all(JournalBatch::is_empty) {
            self.write(batches)?;
        }
        if sync {
            self.sync()?;
        }
        for batch in batches.iter_mut().filter(|batch| !batch.is_empty()) {
            batch.reuse(self.seeds.key());
        }
        Ok(())
    }

    fn write(&mut self, batches: &[JournalBatch]) -> Result<(), StoreError> {
        self.not_failed()?;
        let filled = batches.iter().filter(|batch| !batch.is_empty());
        let batch_octets: usize = filled.clone().map(JournalBatch::bytes).sum();
        let head_octets = HEAD_BYTES + COMMIT_FIXED_BYTES + COMMIT_BATCH_BYTES * filled.clone().count();
        let octets = ((head_octets + batch_octets) as u64).next_multiple_of(COMMIT_ALIGN);
        if !self.current.has_room(octets) {
            self.roll(octets, batches.iter().any(JournalBatch::needs_sync))?;
        }
        let (key, numbers) =
            (self.current.key(), [self.next_commit, self.durable, self.oldest, filled.clone().count() as u64]);
        self.head.clear(FILE_HEAD_BYTES as usize);
        self.head.record(Kind::Commit, 0, key, |out| {
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            for batch in filled.clone() {
                out.extend_from_slice(&u64::from(batch.key.seed).to_le_bytes());
                out.extend_from_slice(&(batch.bytes() as u64).to_le_bytes());
            }
        });
        let padding = [0; COMMIT_ALIGN as usize];
        let padded = octets as usize - head_octets - batch_octets;
        let mut slices = Vec::with_capacity(16);
        self.head.slices(&mut slices);
        filled.clone().for_each(|batch| batch.records.slices(&mut slices));
        slices.push(IoSlice::new(padding.get(..padded).unwrap_or_default()));
        crash_point!("journal.write.before");
        let result = self.current.file.write_vectored_at(&mut slices, self.current.end);
        self.fatal(result, "write")?;
        crash_point!("journal.write.after");
        self.current.end += octets;
        self.next_commit += 1;
        for &(queue, seq) in filled.flat_map(|batch| &batch.touched) {
            let highest = self.current.queues.entry(queue).or_insert(seq);
            *highest = (*highest).max(seq);
        }
        Ok(())
    }

    /// Goes on in another file that has room for `octets`.
    fn roll(&mut self, octets: u64, enqueues: bool) -> Result<(), StoreError> {
        // A later commit's sync speaks for all before it, but reaches only its own file.
        self.sync()?;
        crash_point!("journal.roll.before");
        let mut next = self.next_file_for(octets, enqueues)?;
        let begun = next.begin(self.next_generation, self.salt);
        self.failed |= begun.is_err();
        begun?;
        self.next_generation += 1;
        next.first_commit = self.next_commit;
        self.closed.push_back(std::mem::replace(&mut self.current, next));
        crash_point!("journal.roll.after");
        Ok(())
    }

    fn next_file_for(&mut self, octets: u64, enqueues: bool) -> Result<JournalFile, StoreError> {
        let needed = octets + FILE_HEAD_BYTES;
        if needed > self.file_bytes {
            // A message larger than a file gets a file of its own size.
            let maker = self.spare_maker(needed.next_multiple_of(FILE_MIN_BYTES), false);
            return Ok(maker.make()?.0);
        }
        if self.spares.len() >= SPARES {
            return Ok(self.spares.remove(0));
        }
        match self.spare_maker(self.file_bytes, false).make() {
            Ok(made) => Ok(made.0),
            Err(StoreError::Full { .. }) if !enqueues && !self.spares.is_empty() => Ok(self.spares.remove(0)),
            Err(error) => Err(error),
        }
    }

    fn spare_maker(&mut self, capacity: u64, filled: bool) -> SpareMaker {
        let number = self.next_file;
        self.next_file += 1;
        SpareMaker { disk: self.disk.clone(), dir: self.dir.clone(), number, capacity, filled }
    }

    fn not_failed(&self) -> Result<(), StoreError> {
        if !self.failed {
            return Ok(());
        }
        Err(StoreError::fatal("go on after a failed write", &self.current.path, self.current.end)(
            std::io::ErrorKind::BrokenPipe.into(),
        ))
    }

    fn fatal<T>(&mut self, result: std::io::Result<T>, doing: &'static str) -> Result<T, StoreError> {
        self.failed |= result.is_err();
        result.map_err(StoreError::fatal(doing, &self.current.path, self.current.end))
    }
}
