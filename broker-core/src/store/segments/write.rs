//! Paging out: messages become blocks of a segment.
//!
//! Everything is planned and its space reserved before the first octet is written, so that a full disk leaves nothing half done.

use super::super::crash_point::crash_point;
use super::super::disk::DiskFile;
use super::super::file_head::{FILE_HEAD_BYTES, FileHead, Magic};
use super::super::journal::commit_key;
use super::super::record::{Encoder, Key, Kind, message_record_len};
use super::super::{EntryFlags, NUMBER_MAX, Page, Ranges, Run, RunId, StoreError};
use super::block::{BLOCK_ALIGN, BlockHead, RunIndex, encode_index, push_entry};
use super::run::RunEntry;
use super::{SegmentFile, Segments};
use crate::queue::StoredEntry;

/// Octets encoded before they are written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Part of a page that becomes a run.
struct PlannedRun<'a> {
    index: RunIndex,
    entries: &'a [StoredEntry],
}

/// A block before it is written.
struct Plan<'a> {
    runs: Vec<PlannedRun<'a>>,
    data_len: u64,
}

/// A block with its place.
struct Placed<'a> {
    runs: Vec<PlannedRun<'a>>,
    file: u64,
    at: u64,
    head: BlockHead,
    index: Vec<u8>,
}

impl Segments {
    /// Writes pages out, each as one run. When it returns they can be read back, and everything persistent in them is durable; with `sync`
    /// everything is.
    ///
    /// One call makes at least one block with an index and, if need be, one sync: a megabyte a call is a good size, of one queue or of many. On
    /// [`StoreError::Full`] nothing was written.
    pub fn write(&mut self, pages: &[Page], sync: bool) -> Result<Vec<Run>, StoreError> {
        self.not_failed()?;
        if let Some(page) = pages.iter().find(|page| !grows(page)) {
            return Err(StoreError::Unknown(format!(
                "a page of {} whose numbers do not grow, of several lanes, or that is empty",
                page.queue
            )));
        }
        let plans = plan(pages, self.file_bytes);
        let mut ids = Vec::new();
        let mut runs = Vec::new();
        for plan in plans.iter().flat_map(|plan| &plan.runs) {
            let id = RunId(self.next_run);
            self.next_run += 1;
            ids.push(id);
            let (first, last, count) = (plan.index.first(), plan.index.last(), plan.index.count());
            runs.push(Run { id, queue: plan.index.queue, first, last, count });
        }
        let mut ids = ids.into_iter();
        self.write_plans(plans, &mut ids, sync)?;
        Ok(runs)
    }

    /// Writes what is alive of a run again, under the id it has. `block` is the one it lies in now.
    pub(super) fn write_again(&mut self, id: RunId, block: u64, page: Page, lost: Ranges) -> Result<(), StoreError> {
        let Some(delivered) = self.runs.get(&id).map(|run| run.delivered.clone()) else { return Ok(()) };
        if page.entries.is_empty() {
            let Some(run) = self.runs.get_mut(&id) else { return Ok(()) };
            run.lost = lost;
            let settled = run.settle_all();
            self.count_dead(id, settled);
            return Ok(());
        }
        let mut index = RunIndex::new(page.queue, lane_of(&page), 0);
        page.entries.iter().for_each(|entry| push_entry(&mut index, entry));
        let plan = Plan { data_len: index.len, runs: vec![PlannedRun { index, entries: &page.entries }] };
        // The new place must be durable before the old one is given up, and the old one stays known until then.
        let temporary = RunId(self.next_run);
        self.next_run += 1;
        self.write_plans(vec![plan], &mut [temporary].into_iter(), false)?;
        let Some(mut run) = self.unregister(temporary) else { return Ok(()) };
        debug_assert!(run.block > block);
        run.delivered = delivered;
        run.lost = lost;
        self.unregister(id);
        self.register(id, run);
        Ok(())
    }

    fn write_plans(
        &mut self,
        plans: Vec<Plan<'_>>,
        ids: &mut dyn Iterator<Item = RunId>,
        sync: bool,
    ) -> Result<(), StoreError> {
        let placed = self.place(plans);
        self.failed |= matches!(placed, Err(StoreError::Fatal { .. }));
        let (placed, created) = placed?;
        crash_point!("segments.write.reserved");
        let result = self.write_placed(&placed, &created, sync);
        // Nobody may believe what the files hold after an error; the process is about to end.
        self.failed |= result.is_err();
        result?;
        for block in placed {
            let Some(key) = self.files.get(&block.file).map(|file| Key { seed: block.head.seed, ..file.key }) else {
                continue;
            };
            let data_start = block.at + super::block::BLOCK_HEAD_BYTES;
            for run in block.runs {
                let Some(id) = ids.next() else { continue };
                let entry = RunEntry::new(run.index, block.file, block.head.number, data_start, key, true);
                self.register(id, entry);
            }
        }
        Ok(())
    }

    /// Reserves a place for each block. On an error everything is as before.
    fn place<'a>(&mut self, plans: Vec<Plan<'a>>) -> Result<(Vec<Placed<'a>>, Vec<u64>), StoreError> {
        let active = self.active;
        let (mut placed, mut created, mut grown) = (Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            match self.place_block(plan, &mut created, &mut grown) {
                Ok(block) => placed.push(block),
                Err(error) => {
                    self.undo(active, &created, &grown)?;
                    return Err(error);
                }
            }
        }
        Ok((placed, created))
    }

    fn place_block<'a>(
        &mut self,
        plan: Plan<'a>,
        created: &mut Vec<u64>,
        grown: &mut Vec<(u64, u64)>,
    ) -> Result<Placed<'a>, StoreError> {
        let key = Key { salt: 0, seed: self.seeds.key().seed };
        let indexes: Vec<RunIndex> = plan.runs.iter().map(|run| run.index.clone()).collect();
        let index_len = encode_index(&indexes, key).len() as u64;
        let number = self.next_block;
        let head = BlockHead {
            number,
            durable: self.durable,
            seed: key.seed,
            data_len: plan.data_len,
            index_len,
            trailer: false,
        };
        let len = head.len().ok_or_else(|| StoreError::Unknown("a block of that size".into()))?;
        let file = match self.active.filter(|file| self.fits(*file, len)) {
            Some(file) => file,
            None => {
                self.close_active()?;
                let file = self.create_file()?;
                created.push(file);
                file
            }
        };
        let Some(segment) = self.files.get_mut(&file) else {
            return Err(StoreError::Unknown(format!("segment {file}")));
        };
        let at = segment.end;
        grown.push((file, at));
        let opened = self.handles.file(&*self.disk, file, &segment.path)?;
        opened.allocate(at + len).map_err(StoreError::space("reserve", &segment.path, at + len))?;
        segment.end = at + len;
        self.next_block += 1;
        let index = encode_index(&indexes, Key { seed: key.seed, ..segment.key });
        Ok(Placed { runs: plan.runs, file, at, head, index })
    }

    fn fits(&self, file: u64, len: u64) -> bool {
        self.files.get(&file).is_some_and(|file| {
            file.end + len <= self.file_bytes.max(FILE_HEAD_BYTES + len) && file.end < self.file_bytes
        })
    }

    /// A block in a later file says that this file's blocks are durable, so they must be.
    pub(super) fn close_active(&mut self) -> Result<(), StoreError> {
        if let Some(active) = self.active.take()
            && self.durable + 1 < self.next_block
            && let Some(file) = self.files.get(&active)
        {
            let opened = self.handles.file(&*self.disk, active, &file.path)?;
            let synced = opened.sync_data().map_err(StoreError::fatal("sync", &file.path, file.end));
            self.failed |= synced.is_err();
            synced?;
        }
        Ok(())
    }

    fn create_file(&mut self) -> Result<u64, StoreError> {
        let number = self.next_file;
        let path = self.dir.join(file_name(number));
        let file = self.disk.create(&path).map_err(StoreError::space("create", &path, 0))?;
        crash_point!("segments.create.created");
        let head = FileHead { magic: Magic::Segment, number, salt: self.salt };
        self.next_file += 1;
        self.handles.insert(number, file);
        let segment = SegmentFile {
            path,
            key: commit_key(&head),
            end: FILE_HEAD_BYTES,
            runs: Vec::new(),
            count: 0,
            live: 0,
            damaged: false,
        };
        self.files.insert(number, segment);
        self.active = Some(number);
        Ok(number)
    }

    /// Gives back what was reserved for blocks that will not be written.
    fn undo(&mut self, active: Option<u64>, created: &[u64], grown: &[(u64, u64)]) -> Result<(), StoreError> {
        for (number, end) in grown.iter().rev() {
            self.next_block -= u64::from(self.files.get(number).is_some_and(|file| file.end > *end));
            let Some(segment) = self.files.get_mut(number) else { continue };
            segment.end = *end;
            let opened = self.handles.file(&*self.disk, *number, &segment.path)?;
            opened.truncate(*end).map_err(StoreError::fatal("truncate", &segment.path, *end))?;
        }
        for number in created {
            self.handles.close(*number);
            if let Some(file) = self.files.remove(number) {
                self.disk.remove(&file.path).map_err(StoreError::fatal("remove", &file.path, 0))?;
            }
        }
        self.active = active;
        Ok(())
    }

    fn write_placed(&mut self, placed: &[Placed<'_>], created: &[u64], sync: bool) -> Result<(), StoreError> {
        for number in created {
            let Some(segment) = self.files.get(number) else { continue };
            let head = FileHead { magic: Magic::Segment, number: *number, salt: self.salt };
            let file = self.handles.file(&*self.disk, *number, &segment.path)?;
            file.write_at(&head.encode(), 0).map_err(StoreError::fatal("write", &segment.path, 0))?;
            crash_point!("segments.create.headed");
            // With the head durable before anything follows it, a file with content and no head is a damaged one.
            file.sync_data().map_err(StoreError::fatal("sync", &segment.path, 0))?;
        }
        for block in placed {
            let Some(segment) = self.files.get(&block.file) else { continue };
            let file = self.handles.file(&*self.disk, block.file, &segment.path)?;
            write_block(file, segment.key, block).map_err(StoreError::fatal("write", &segment.path, block.at))?;
        }
        crash_point!("segments.write.written");
        let mut entries = placed.iter().flat_map(|block| &block.runs).flat_map(|run| run.entries);
        let persistent = sync || entries.any(|entry| entry.persistent);
        let mut files: Vec<u64> = placed.iter().map(|block| block.file).collect();
        files.dedup();
        // More than one file: the first ones will not be synced again, and later blocks vouch for them.
        if files.len() > 1 || persistent {
            for number in files {
                let Some(segment) = self.files.get(&number) else { continue };
                let file = self.handles.file(&*self.disk, number, &segment.path)?;
                file.sync_data().map_err(StoreError::fatal("sync", &segment.path, segment.end))?;
                crash_point!("segments.write.synced");
            }
            self.durable = self.next_block - 1;
        }
        if !created.is_empty() {
            self.disk.sync_dir(&self.dir).map_err(StoreError::fatal("sync", &self.dir, 0))?;
            crash_point!("segments.write.named");
        }
        Ok(())
    }
}

/// Puts each page into a run and these into blocks of about the size wanted.
fn plan(pages: &[Page], block_bytes: u64) -> Vec<Plan<'_>> {
    let mut plans = Vec::new();
    let mut plan = Plan { runs: Vec::new(), data_len: 0 };
    for page in pages {
        let record_len = |entry: &StoredEntry| message_record_len(&entry.message, entry.expires_ms) as u64;
        let len: u64 = page.entries.iter().map(record_len).sum();
        if plan.data_len + len > block_bytes && !plan.runs.is_empty() {
            plans.push(std::mem::replace(&mut plan, Plan { runs: Vec::new(), data_len: 0 }));
        }
        let mut index = RunIndex::new(page.queue, lane_of(page), plan.data_len);
        page.entries.iter().for_each(|entry| push_entry(&mut index, entry));
        plan.data_len += index.len;
        plan.runs.push(PlannedRun { index, entries: &page.entries });
    }
    plans.push(plan);
    plans.retain(|plan| !plan.runs.is_empty());
    plans
}

/// All messages of a page are of one lane.
fn lane_of(page: &Page) -> u8 {
    page.entries.first().map_or(0, |entry| entry.lane)
}

fn grows(page: &Page) -> bool {
    let numbers = || page.entries.iter().map(|entry| entry.seq);
    let one_lane = page.entries.iter().all(|entry| entry.lane == lane_of(page));
    !page.entries.is_empty() && one_lane && numbers().zip(numbers().skip(1)).all(|(before, after)| before < after)
}

fn write_block(file: &dyn DiskFile, file_key: Key, block: &Placed<'_>) -> std::io::Result<()> {
    let mut at = block.at;
    let mut put = |octets: &[u8]| {
        let written = file.write_at(octets, at);
        at += octets.len() as u64;
        written
    };
    put(&block.head.encode(file_key))?;
    crash_point!("segments.block.head");
    let key = Key { seed: block.head.seed, ..file_key };
    let mut buffer = Encoder::default();
    for run in &block.runs {
        for entry in run.entries {
            let place = (run.index.queue, entry.seq, entry.expires_ms);
            buffer.message(Kind::Message, place, EntryFlags::of_entry(entry), &entry.message, key);
            if buffer.len() >= BUFFER_BYTES {
                buffer.parts().try_for_each(&mut put)?;
                buffer.clear(BUFFER_BYTES);
                crash_point!("segments.block.part");
            }
        }
    }
    buffer.parts().try_for_each(&mut put)?;
    crash_point!("segments.block.data");
    put(&block.index)?;
    crash_point!("segments.block.index");
    let end = block.at + block.head.trailer_at().unwrap_or_default();
    let trailer = BlockHead { trailer: true, ..block.head }.encode(file_key);
    debug_assert_eq!(end % BLOCK_ALIGN, 0);
    file.write_at(&trailer, end)
}

/// `00000007.segment`
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.segment")
}

/// The number in such a name.
pub(super) fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let plain = digits.len() >= 8 && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok())?.filter(|number| *number <= NUMBER_MAX)
}
