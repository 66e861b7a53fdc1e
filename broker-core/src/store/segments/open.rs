//! Finding out at a start what the segments hold: heads and indexes are read, messages are not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::disk::Disk;
use super::super::file_head::{FILE_HEAD_BYTES, FileHead, Found, Magic};
use super::super::journal::commit_key;
use super::super::options::StoreOptions;
use super::super::record::{Key, Kind, Placed};
use super::super::seeds::Seeds;
use super::super::view::View;
use super::super::{EntryFlags, Known, QueueId, RunId, Seq, StoreError};
use super::block::{BLOCK_ALIGN, BLOCK_HEAD_BYTES, BlockHead, RunIndex, decode_index};
use super::handles::Handles;
use super::run::RunEntry;
use super::write::file_number;
use super::{SegmentFile, Segments};
use crate::message::Message;

/// Octets read at a time: an index is small, and what lies between two is not wanted.
const WINDOW_BYTES: u64 = 8 * 1024;

/// What the segments' directory held besides good segments.
#[derive(Debug, Default)]
pub(in super::super) struct Opened {
    /// The highest number of each queue in any run, alive or not.
    pub highest: HashMap<QueueId, Seq, RandomState>,
    /// Names that are no segments.
    pub unknown: Vec<String>,
    /// Segments of which nothing can be read.
    pub unreadable: Vec<PathBuf>,
    pub report: Vec<String>,
}

/// One file as it was found.
struct FoundFile {
    number: u64,
    path: PathBuf,
    key: Key,
    end: u64,
    blocks: Vec<FoundBlock>,
    /// Lines for what was wrong, each with the number of the block concerned.
    wrong: Vec<(u64, String)>,
    /// Octets after the last block that are not blank.
    tail: bool,
}

struct FoundBlock {
    head: BlockHead,
    /// Position of the block's data in the file.
    data_start: u64,
    runs: Vec<RunIndex>,
}

impl Segments {
    /// Reads what is there. Queues that are not `known` are left out, and so are transient messages.
    pub(in super::super) fn open(
        disk: Arc<dyn Disk>,
        options: &StoreOptions,
        known: &Known<'_>,
    ) -> Result<(Segments, Opened), StoreError> {
        let dir = options.dir.join("segments");
        let mut opened = Opened::default();
        let mut files = Vec::new();
        let mut next_file = 1;
        for entry in disk.list(&dir).map_err(StoreError::read(&dir, 0))? {
            let Some(number) = file_number(&entry.name).filter(|_| !entry.directory) else {
                opened.unknown.push(entry.name);
                continue;
            };
            next_file = next_file.max(number + 1);
            files.extend(find_blocks(&*disk, dir.join(entry.name), number, known, &mut opened)?);
        }
        let heads = || files.iter().flat_map(|file: &FoundFile| &file.blocks).map(|block| block.head);
        let durable = heads().map(|head| head.durable).max().unwrap_or(0);
        let next_block = heads().map(|head| head.number.max(head.durable) + 1).max().unwrap_or(1);
        let mut segments = Segments {
            root: options.dir.clone(),
            dir,
            file_bytes: options.segment_file_bytes,
            salt: options.salt,
            seeds: Seeds::new(options.salt.rotate_left(32)),
            files: BTreeMap::new(),
            handles: Handles::default(),
            active: None,
            runs: HashMap::default(),
            of_queue: BTreeSet::new(),
            queues: HashMap::default(),
            next_run: 1,
            next_file,
            next_block,
            durable,
            dead: Default::default(),
            rewrite: Default::default(),
            removed: false,
            reports: Vec::new(),
            failed: false,
            disk,
        };
        for mut file in files {
            segments.verify(&mut file, durable, known)?;
            segments.adopt(file, durable, known, &mut opened)?;
        }
        segments.disk.sync_dir(&segments.dir).map_err(StoreError::fatal("sync", &segments.dir, 0))?;
        segments.durable = segments.next_block - 1;
        segments.disown_copies();
        Ok((segments, opened))
    }

    /// Reads the messages of blocks of which nothing says that they were durable: their index may have reached the disk before them.
    fn verify(&mut self, file: &mut FoundFile, durable: u64, known: &Known<'_>) -> Result<(), StoreError> {
        for block in file.blocks.iter_mut().filter(|block| block.head.number > durable) {
            let open = self.handles.file(&*self.disk, file.number, &file.path)?;
            let mut view = View::new(open, &file.path)?;
            let end = block.data_start.saturating_add(block.head.data_len);
            let key = Key { seed: block.head.seed, ..file.key };
            let mut at = block.data_start;
            while let Some(record) = view.record(at, end, key)? {
                at += record.len() as u64;
            }
            if at == end {
                continue;
            }
            let end = end.min(view.len());
            block.runs = salvage(&mut view, block.data_start, end, key, known)?;
            let messages: u64 = block.runs.iter().map(RunIndex::count).sum();
            let start = block.data_start - BLOCK_HEAD_BYTES;
            let line = format!(
                "offset {start}: a block is incomplete from offset {at} on; {messages} messages were found in it"
            );
            file.wrong.push((block.head.number, line));
        }
        Ok(())
    }

    /// Takes a file in, its runs and what was wrong with it.
    fn adopt(
        &mut self,
        file: FoundFile,
        durable: u64,
        known: &Known<'_>,
        opened: &mut Opened,
    ) -> Result<(), StoreError> {
        let number = file.number;
        // What a killed process wrote may still be in the kernel's memory alone.
        if file.blocks.iter().any(|block| block.head.number > durable) {
            let open = self.handles.file(&*self.disk, number, &file.path)?;
            open.sync_data().map_err(StoreError::fatal("sync", &file.path, 0))?;
        }
        let damaged = file.wrong.iter().any(|(block, _)| *block <= durable);
        let whole = file.wrong.is_empty() && !file.tail;
        if !file.wrong.is_empty() {
            self.rewrite.insert(number);
        }
        for (block, line) in file.wrong {
            let what = if block <= durable { "damaged" } else { "cut: the last write was torn" };
            opened.report.push(format!("{}: {what}: {line}", file.path.display()));
        }
        let segment =
            SegmentFile { path: file.path, key: file.key, end: file.end, runs: Vec::new(), count: 0, live: 0, damaged };
        self.dead.insert(number);
        if whole && file.end < self.file_bytes {
            let open = self.handles.file(&*self.disk, number, &segment.path)?;
            open.truncate(file.end).map_err(StoreError::fatal("truncate", &segment.path, file.end))?;
            self.active = Some(number);
        } else {
            self.active = None;
        }
        self.files.insert(number, segment);
        for block in file.blocks {
            let key = Key { seed: block.head.seed, ..file.key };
            for index in block.runs.into_iter().filter(|index| known(index.queue).is_some()) {
                let highest = opened.highest.entry(index.queue).or_insert(0);
                *highest = (*highest).max(index.last());
                let run = RunEntry::new(index, number, block.head.number, block.data_start, key, false);
                let id = RunId(self.next_run);
                self.next_run += 1;
                self.register(id, run);
            }
        }
        Ok(())
    }

    /// Where a copy was made and the old file is still there, the newer copy counts, and the older file goes.
    fn disown_copies(&mut self) {
        let mut before: Vec<RunId> = Vec::new();
        let mut queue_before = None;
        for (queue, id, first, ..) in self.live_runs() {
            if queue_before.replace(queue) != Some(queue) {
                before.clear();
            }
            before.retain(|other| self.runs.get(other).is_some_and(|other| other.last >= first));
            for other in before.clone() {
                self.disown_in_older(id, other);
            }
            before.push(id);
        }
    }

    fn disown_in_older(&mut self, one: RunId, other: RunId) {
        let (Some(a), Some(b)) = (self.runs.get(&one), self.runs.get(&other)) else { return };
        let (older, newer) = if a.block < b.block { (one, other) } else { (other, one) };
        let copies = a.shared(b);
        if copies.is_empty() {
            return;
        }
        debug_assert!(self.runs.contains_key(&newer));
        let Some(mut run) = self.unregister(older) else { return };
        run.disown(&copies);
        self.rewrite.insert(run.file);
        if self.active == Some(run.file) {
            self.active = None;
        }
        self.register(older, run);
    }
}

/// Reads one file's heads and indexes. `None` if it is no use.
fn find_blocks(
    disk: &dyn Disk,
    path: PathBuf,
    number: u64,
    known: &Known<'_>,
    opened: &mut Opened,
) -> Result<Option<FoundFile>, StoreError> {
    let file = disk.open(&path).map_err(StoreError::read(&path, 0))?;
    let len = file.len().map_err(StoreError::read(&path, 0))?;
    let mut view = View::part(&*file, &path, len, WINDOW_BYTES);
    let head = match FileHead::read(&*file, Magic::Segment).map_err(StoreError::read(&path, 0))? {
        Found::Head(head) => head,
        Found::Newer(version) => {
            let source = std::io::Error::other(format!("written by a newer broker (segment format {version})"));
            return Err(StoreError::Read { file: path, offset: 0, source });
        }
        Found::Blank if view.is_blank(0, len)? => {
            // Created, and then the power went: nothing was ever in it.
            disk.remove(&path).map_err(StoreError::fatal("remove", &path, 0))?;
            return Ok(None);
        }
        Found::Blank | Found::Damaged => {
            opened.report.push(format!(
                "{}: damaged at offset 0: the file's head cannot be read; all {len} octets are put aside",
                path.display()
            ));
            opened.unreadable.push(path);
            return Ok(None);
        }
    };
    let key = commit_key(&head);
    let mut found =
        FoundFile { number, path, key, end: FILE_HEAD_BYTES, blocks: Vec::new(), wrong: Vec::new(), tail: false };
    while let Some(start) = next_block(&mut view, &mut found, known)? {
        found.end = start;
    }
    found.tail = !view.is_blank(found.end, len)?;
    if found.tail {
        let octets = len - found.end;
        opened.report.push(format!(
            "{}: cut at offset {}: {octets} octets are not a block",
            found.path.display(),
            found.end
        ));
    }
    Ok(Some(found))
}

/// Reads the block at the file's end so far, or the next one that can be found; the position behind it.
fn next_block(view: &mut View<'_>, found: &mut FoundFile, known: &Known<'_>) -> Result<Option<u64>, StoreError> {
    let (at, len) = (found.end, view.len());
    let mut head = head_at(view, at, found.key)?;
    let mut start = at;
    if head.is_none_or(|head| head.trailer) {
        if view.is_blank(at, len)? {
            return Ok(None);
        }
        let next = view.find(at, len, BLOCK_ALIGN, found.key, |kind| kind == Kind::BlockHead)?;
        let Some(next) = next else { return Ok(None) };
        head = head_at(view, next, found.key)?;
        start = match head {
            Some(head) if head.trailer => next.saturating_sub(head.trailer_at().unwrap_or(next)).max(at),
            _ => next,
        };
    }
    let Some(head) = head else { return Ok(None) };
    if start > at {
        found.wrong.push((head.number - 1, format!("offset {at}: {} octets are lost", start - at)));
    } else if head.trailer {
        found.wrong.push((head.number, format!("offset {at}: a block's head cannot be read; its other copy is used")));
    }
    let key = Key { seed: head.seed, ..found.key };
    let (Some(index_at), Some(trailer_at), Some(block_len)) = (head.index_at(), head.trailer_at(), head.len()) else {
        return Ok(None);
    };
    let index = view.record(start.saturating_add(index_at), start.saturating_add(trailer_at), key)?;
    let data_start = start + BLOCK_HEAD_BYTES;
    let runs = match index.and_then(|index| decode_index(index, head.data_len)) {
        Some(runs) => runs,
        None => {
            let data_end = data_start.saturating_add(head.data_len).min(len);
            let runs = salvage(view, data_start, data_end, key, known)?;
            let messages: u64 = runs.iter().map(RunIndex::count).sum();
            found.wrong.push((
                head.number,
                format!("offset {start}: a block's index cannot be read; {messages} messages were found without it"),
            ));
            runs
        }
    };
    found.blocks.push(FoundBlock { head, data_start, runs });
    Ok(Some(start.saturating_add(block_len).min(len.next_multiple_of(BLOCK_ALIGN))))
}

fn head_at(view: &mut View<'_>, at: u64, key: Key) -> Result<Option<BlockHead>, StoreError> {
    let len = view.len();
    Ok(view.record(at, len, key)?.and_then(BlockHead::decode))
}

/// Finds the messages of a block that has no index.
fn salvage(
    view: &mut View<'_>,
    start: u64,
    end: u64,
    key: Key,
    known: &Known<'_>,
) -> Result<Vec<RunIndex>, StoreError> {
    let mut runs: Vec<RunIndex> = Vec::new();
    let mut at = start;
    let mut gap = true;
    while at < end {
        let message = view.record(at, end, key)?.filter(|record| record.kind == Kind::Message);
        let Some((record, placed)) = message.and_then(|record| Some((record, record.place()?))) else {
            at = view.find(at + 1, end, 1, key, |kind| kind == Kind::Message)?.unwrap_or(end);
            gap = true;
            continue;
        };
        let Placed { queue, seq, message, .. } = placed;
        let message = Message::from_stored(message).ok();
        let body_bytes = message.as_ref().map_or(0, |message| message.body_len() as u64);
        let lane = message.zip(known(queue)).map_or(0, |(message, lanes)| lanes.of(message.header()));
        let record_len = record.len() as u64;
        if gap || runs.last().is_none_or(|run| (run.queue, run.lane) != (queue, lane) || !run.takes(seq)) {
            runs.push(RunIndex::new(queue, lane, at - start));
        }
        if let Some(run) = runs.last_mut() {
            run.push(seq, EntryFlags(record.flags), body_bytes, record_len);
        }
        at += record_len;
        gap = false;
    }
    Ok(runs)
}
