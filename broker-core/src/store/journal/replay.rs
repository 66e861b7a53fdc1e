//! Reading the journal back after a stop.
//!
//! First every file is searched for commits, then the commits are put in order and walked, as often as needed, record by record. A commit that is
//! missing or damaged although a later one says that it was durable is *damage*: what is left of it is used and the rest reported. Where nothing
//! says so the power went while it was written: the journal ends there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::disk::Disk;
use super::super::file_head::{FILE_HEAD_BYTES, FileHead, Found, Magic};
use super::super::record::{Key, Kind, Placed, Record, take_u64};
use super::super::view::View;
use super::super::{EntryFlags, NUMBER_MAX, QueueId, Ranges, Seq, StoreError};
use super::file::{JournalFile, commit_key, file_number};
use super::{COMMIT_ALIGN, COMMIT_BATCH_BYTES, COMMIT_FIXED_BYTES};
use crate::message::Message;

/// What the journal's directory holds.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    files: Vec<ReplayFile>,
    /// Where each commit is, by its number. Only those that still matter.
    commits: BTreeMap<u64, Place>,
    /// The last commit that some commit says was durable.
    durable: u64,
    pub next_file: u64,
    pub next_generation: u64,
    pub next_commit: u64,
    pub report: Vec<String>,
}

#[derive(Debug)]
struct ReplayFile {
    path: PathBuf,
    file: Box<dyn super::super::disk::DiskFile>,
    head: Option<FileHead>,
    len: u64,
    /// Something in it was durable once and cannot be read now.
    damaged: bool,
}

/// Files of a journal that was read.
#[derive(Debug, Default)]
pub(crate) struct LeftFiles {
    /// Nothing in them matters.
    pub idle: Vec<JournalFile>,
    /// Needed until the next journal has made its first commit durable.
    pub needed: Vec<JournalFile>,
    /// The same, but to be put aside then.
    pub damaged: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    offset: u64,
    /// Where its batches begin.
    data: u64,
    /// Where it ends, or the file if that ends before.
    end: u64,
}

/// The head of a commit.
#[derive(Debug, PartialEq, Eq)]
struct CommitHead {
    number: u64,
    durable: u64,
    oldest: u64,
    /// Seed and length of each batch.
    batches: Vec<(u32, u64)>,
}

/// What the journal says, record by record.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Enqueue(Placed<'a>, EntryFlags),
    Settle { queue: QueueId, first: Seq, last: Seq },
    Delivered { queue: QueueId, first: Seq, last: Seq },
    QueueState { queue: QueueId, settled: Ranges, delivered: Ranges },
    CleanStop,
}

impl Replay {
    /// Opens the files and finds the commits in them. Names that are no journal file are returned.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<(Replay, Vec<String>), StoreError> {
        let mut replay = Replay { next_file: 1, next_generation: 1, next_commit: 1, ..Replay::default() };
        let mut unknown = Vec::new();
        for entry in disk.list(dir).map_err(StoreError::read(dir, 0))? {
            match file_number(&entry.name).filter(|_| !entry.directory) {
                None => unknown.push(entry.name),
                Some(number) => {
                    replay.next_file = replay.next_file.max(number + 1);
                    replay.open_file(disk, dir.join(entry.name))?;
                }
            }
        }
        let mut oldest = 1;
        let mut all = BTreeMap::new();
        for at in 0..replay.files.len() {
            replay.scan(at, &mut all, &mut oldest)?;
        }
        replay.select(all, oldest);
        Ok((replay, unknown))
    }

    /// Tells everything the journal says, in order. Returns whether the last thing it says is that the stop was clean.
    pub(crate) fn walk(
        &mut self,
        mut tell: impl FnMut(Event<'_>) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let mut clean = false;
        let mut damage = Vec::new();
        let mut cut = None;
        let mut open: Option<(usize, View<'_>)> = None;
        for (&number, &place) in &self.commits {
            let Some(file) = self.files.get(place.file) else { continue };
            // Commits follow each other in a file, so its window is kept from one to the next.
            let mut view = match open.take() {
                Some((at, view)) if at == place.file => view,
                _ => View::new(&*file.file, &file.path)?,
            };
            let Some(head) = commit_at(&mut view, place.offset, file.key())? else { continue };
            let mut at = place.data;
            for (seed, len) in head.batches {
                // It may say more than the file holds.
                let (end, key) = (at.saturating_add(len), Key { seed, salt: file.key().salt });
                while at < end {
                    if let Some(record) = view.record(at, end, key)? {
                        let next = at + record.len() as u64;
                        clean = record.kind == Kind::CleanStop;
                        match event(record) {
                            Some(event) => tell(event)?,
                            // It is as it was written, and nothing that we write.
                            None => damage.push((place.file, at, next)),
                        }
                        at = next;
                        continue;
                    }
                    clean = false;
                    if number > self.durable {
                        cut = Some((place.file, at));
                        break;
                    }
                    let next = view.find(at + 1, end, 1, key, |_| true)?.unwrap_or(end);
                    damage.push((place.file, at, next));
                    at = next;
                }
                if cut.is_some() {
                    break;
                }
            }
            if cut.is_some() {
                break;
            }
            open = Some((place.file, view));
        }
        self.note(damage, cut);
        Ok(clean)
    }

    /// The files, once they have been read.
    pub(crate) fn into_files(self) -> LeftFiles {
        let mut left = LeftFiles::default();
        for (at, file) in self.files.into_iter().enumerate() {
            let needed = self.commits.values().any(|place| place.file == at);
            match (file.damaged, needed) {
                (true, _) => left.damaged.push(file.path),
                (false, true) => left.needed.push(JournalFile::found(file.file, file.path, file.len)),
                (false, false) => left.idle.push(JournalFile::found(file.file, file.path, file.len)),
            }
        }
        left
    }

    fn open_file(&mut self, disk: &dyn Disk, path: PathBuf) -> Result<(), StoreError> {
        let file = disk.open(&path).map_err(StoreError::read(&path, 0))?;
        let len = file.len().map_err(StoreError::read(&path, 0))?;
        let found = FileHead::read(&*file, Magic::Journal).map_err(StoreError::read(&path, 0))?;
        let head = match found {
            Found::Head(head) => Some(head),
            Found::Blank => None,
            Found::Newer(version) => {
                let source = std::io::Error::other(format!("written by a newer broker (journal format {version})"));
                return Err(StoreError::Read { file: path, offset: 0, source });
            }
            Found::Damaged => {
                let lost = len.saturating_sub(FILE_HEAD_BYTES);
                self.report.push(format!(
                    "{}: damaged at offset 0: the file's head cannot be read; the {lost} octets after it are lost",
                    path.display()
                ));
                None
            }
        };
        if let Some(head) = head {
            self.next_generation = self.next_generation.max(head.number + 1);
        }
        self.files.push(ReplayFile { path, file, head, len, damaged: found == Found::Damaged });
        Ok(())
    }

    fn scan(&mut self, at: usize, all: &mut BTreeMap<u64, Place>, oldest: &mut u64) -> Result<(), StoreError> {
        let Some(file) = self.files.get(at).filter(|file| file.head.is_some()) else { return Ok(()) };
        let mut view = View::new(&*file.file, &file.path)?;
        let mut offset = FILE_HEAD_BYTES;
        while let Some(found) = view.find(offset, view.len(), COMMIT_ALIGN, file.key(), |kind| kind == Kind::Commit)? {
            let Some(head) = commit_at(&mut view, found, file.key())? else {
                offset = found + COMMIT_ALIGN;
                continue;
            };
            let batches: u64 = head.batches.iter().map(|(_, len)| *len).fold(0, u64::saturating_add);
            let data =
                found + (super::HEAD_BYTES + COMMIT_FIXED_BYTES + COMMIT_BATCH_BYTES * head.batches.len()) as u64;
            let end = data.saturating_add(batches).min(view.len());
            all.insert(head.number, Place { file: at, offset: found, data, end });
            self.durable = self.durable.max(head.durable);
            self.next_commit = self.next_commit.max(head.number.max(head.durable) + 1);
            *oldest = (*oldest).max(head.oldest);
            offset = end.next_multiple_of(COMMIT_ALIGN);
        }
        Ok(())
    }

    /// Keeps the commits that matter: from the oldest still needed to the first missing one that nothing says was durable.
    fn select(&mut self, all: BTreeMap<u64, Place>, oldest: u64) {
        let mut expected = oldest;
        let mut before: Option<Place> = None;
        for (number, place) in all.into_iter().skip_while(|(number, _)| *number < oldest) {
            if number > expected && expected <= self.durable {
                self.report_missing(before, expected, self.durable.min(number - 1));
            }
            if number > expected.max(self.durable + 1) {
                self.report_cut(before, "the last writes were not completed");
                return;
            }
            self.commits.insert(number, place);
            before = Some(place);
            expected = number + 1;
        }
        if expected <= self.durable {
            self.report_missing(before, expected, self.durable);
        }
    }

    fn report_missing(&mut self, before: Option<Place>, first: u64, last: u64) {
        let (path, offset) = match before.and_then(|place| Some((self.files.get_mut(place.file)?, place.end))) {
            Some((file, offset)) => {
                file.damaged = true;
                (file.path.display().to_string(), offset)
            }
            None => ("journal".into(), 0),
        };
        self.report.push(format!(
            "{path}: damaged at offset {offset}: commits {first} to {last} were durable and cannot be found; what they held is lost, everything else is kept"
        ));
    }

    fn report_cut(&mut self, before: Option<Place>, why: &str) {
        if let Some((file, offset)) = before.and_then(|place| Some((self.files.get(place.file)?, place.end))) {
            self.report.push(format!("{}: cut at offset {offset}: {why}", file.path.display()));
        }
    }

    fn note(&mut self, damage: Vec<(usize, u64, u64)>, cut: Option<(usize, u64)>) {
        let mut lines = Vec::new();
        for (file, at, next) in damage {
            let Some(file) = self.files.get_mut(file) else { continue };
            file.damaged = true;
            let octets = next - at;
            lines.push(format!(
                "{}: damaged at offset {at}: {octets} octets are lost, everything before and after them is kept",
                file.path.display()
            ));
        }
        if let Some((file, at)) = cut.and_then(|(file, at)| Some((self.files.get(file)?, at))) {
            lines.push(format!("{}: cut at offset {at}: the last write was torn", file.path.display()));
        }
        // The journal is walked more than once and says the same each time.
        for line in lines {
            if !self.report.contains(&line) {
                self.report.push(line);
            }
        }
    }
}

impl ReplayFile {
    fn key(&self) -> Key {
        self.head.as_ref().map_or(Key { salt: 0, seed: 0 }, commit_key)
    }
}

fn commit_at(view: &mut View<'_>, offset: u64, key: Key) -> Result<Option<CommitHead>, StoreError> {
    let len = view.len();
    Ok(view
        .record(offset, len, key)?
        .filter(|record| record.kind == Kind::Commit)
        .and_then(|record| commit_head(record.payload)))
}

fn commit_head(payload: &[u8]) -> Option<CommitHead> {
    let (number, rest) = take_u64(payload)?;
    let (durable, rest) = take_u64(rest)?;
    let (oldest, rest) = take_u64(rest)?;
    let (count, mut rest) = take_u64(rest)?;
    let mut batches = Vec::new();
    for _ in 0..count {
        let (seed, after) = take_u64(rest)?;
        let (len, after) = take_u64(after)?;
        rest = after;
        batches.push((u32::try_from(seed).ok()?, len));
    }
    // Numbers begin at 1, and a commit cannot know that itself was durable.
    let believable = number > durable && number >= oldest && oldest > 0 && number <= NUMBER_MAX;
    (rest.is_empty() && believable).then_some(CommitHead { number, durable, oldest, batches })
}

fn event(record: Record<'_>) -> Option<Event<'_>> {
    match record.kind {
        Kind::Enqueue => {
            let placed = record.place()?;
            Message::stored_head(placed.message).ok()?;
            Some(Event::Enqueue(placed, EntryFlags(record.flags)))
        }
        Kind::Settle => range(record.payload).map(|(queue, first, last)| Event::Settle { queue, first, last }),
        Kind::Delivered => range(record.payload).map(|(queue, first, last)| Event::Delivered { queue, first, last }),
        Kind::QueueState => {
            let (queue, mut rest) = take_u64(record.payload)?;
            let settled = Ranges::decode(&mut rest)?;
            let delivered = Ranges::decode(&mut rest)?;
            Some(Event::QueueState { queue: QueueId(queue), settled, delivered })
        }
        Kind::CleanStop => Some(Event::CleanStop),
        Kind::FileHead | Kind::Commit | Kind::BlockHead | Kind::Message | Kind::BlockIndex => None,
    }
}

fn range(payload: &[u8]) -> Option<(QueueId, Seq, Seq)> {
    let (queue, rest) = take_u64(payload)?;
    let (first, rest) = take_u64(rest)?;
    let (last, _) = take_u64(rest)?;
    Some((QueueId(queue), first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_payloads_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..120), kind in 0_usize..10) {
            let _ = commit_head(&octets);
            let kinds = [Kind::Enqueue, Kind::Settle, Kind::Delivered, Kind::QueueState, Kind::CleanStop, Kind::Commit];
            let _ = event(Record { kind: kinds[kind % kinds.len()], flags: 0, payload: &octets });
        }
    }
}
