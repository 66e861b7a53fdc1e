//! Starting again: what the journal and the segments say together, made into segments and an empty journal.
//!
//! 1. The segments' indexes are read: which messages lie in runs.
//! 2. The journal is read once for what is settled, and that is applied to the runs.
//! 3. It is read again for messages that are alive and in no run; these are written as runs and synced.
//! 4. A new journal begins with one commit: what is settled and delivered of the messages in runs, and that nothing before it counts.
//! 5. Only then are the old journal's files used again, or put aside if damaged.
//!
//! Killed at any point, the next start finds the old journal whole or the new one in charge; a message both in a run and in the journal counts once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::crash_point::crash_point;
use super::disk::Disk;
use super::journal::replay::{Event, Replay};
use super::journal::{Journal, Start};
use super::options::StoreOptions;
use super::record::Placed;
use super::segments::Segments;
use super::{EntryFlags, Page, QueueId, Ranges, RunId, Seq, StoreError};
use crate::message::Message;
use crate::queue::{Lanes, StoredEntry};

/// Octets of messages taken from the journal before they are written to segments.
const PAGE_OUT_BYTES: usize = 8 * 1024 * 1024;

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The queues of which anything was found, in order of their ids.
    pub queues: Vec<RecoveredQueue>,
    /// Whether the stop before was in order. If not, every message counts as possibly delivered.
    pub clean: bool,
    /// A line for everything that was cut off, put aside or lost, with file and offset.
    pub report: Vec<String>,
}

/// What was found of a queue.
#[derive(Clone, Debug)]
pub struct RecoveredQueue {
    /// The queue.
    pub queue: QueueId,
    /// The number for its next message.
    pub next_seq: Seq,
    /// Where its messages are, lane by lane, in order. A run comes more than once if messages of others lie between its own.
    pub runs: Vec<RecoveredRun>,
    /// How many messages.
    pub messages: u64,
    /// Octets of their bodies; an estimate where part of a run is settled.
    pub bytes: u64,
    /// Messages that may have been delivered before.
    pub redelivered: Ranges,
    /// Some of the messages may expire.
    pub expires: bool,
}

/// Part of a run, with something alive in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredRun {
    /// By this it is read.
    pub run: RunId,
    /// The lane of the queue that its messages are of.
    pub lane: u8,
    /// The first number that may be alive.
    pub first: Seq,
    /// The last number that may be alive. What the run holds beyond belongs to another part.
    pub last: Seq,
    /// How many messages are alive from first to last.
    pub count: u64,
}

/// What the journal says, put together.
#[derive(Default)]
struct Said {
    clean: bool,
    settled: BTreeMap<QueueId, Ranges>,
    delivered: BTreeMap<QueueId, Ranges>,
    highest: HashMap<QueueId, Seq, RandomState>,
}

/// Which queues there are, and the lanes of each.
pub type Known<'a> = dyn Fn(QueueId) -> Option<Lanes> + 'a;

/// Opens the store, makes what is there consistent and durable, and says what it is. Messages of queues that are not `known` are dropped.
///
/// # Errors
/// [`StoreError::Read`] if the disk cannot be read or a file is of a newer format, [`StoreError::Full`] if what lives in the journal alone does not
/// fit on the disk as segments; nothing is lost then and the next start tries again.
pub fn recover(
    disk: Arc<dyn Disk>,
    options: &StoreOptions,
    known: &Known<'_>,
) -> Result<(Journal, Segments, Recovered), StoreError> {
    let root = &options.dir;
    let journal_dir = root.join("journal");
    make_directories(&*disk, options)?;
    let (mut segments, opened) = Segments::open(disk.clone(), options, known)?;
    let (mut replay, unknown) = Replay::open(&*disk, &journal_dir)?;
    for path in unknown.iter().map(|name| journal_dir.join(name)) {
        put_aside(&*disk, root, &path, "orphaned")?;
    }
    for path in opened.unknown.iter().map(|name| root.join("segments").join(name)) {
        put_aside(&*disk, root, &path, "orphaned")?;
    }
    for path in &opened.unreadable {
        put_aside(&*disk, root, path, "quarantine")?;
    }
    let mut said = listen(&mut replay, known)?;
    for (queue, settled) in &said.settled {
        settled.iter().try_for_each(|(first, last)| segments.settle(*queue, first, last))?;
    }
    for (queue, highest) in opened.highest {
        let known = said.highest.entry(queue).or_insert(0);
        *known = (*known).max(highest);
    }
    segments.mark_delivered(said.clean.then_some(&said.delivered));
    crash_point!("recovery.before_runs");
    let mut report = opened.report;
    page_out(&mut replay, &mut segments, &said, known)?;
    crash_point!("recovery.after_runs");
    match segments.rewrite_marked() {
        // It is tried again before anything depends on it.
        Ok(()) | Err(StoreError::Full { .. }) => {}
        Err(error) => return Err(error),
    }
    segments.remove_dead()?;
    crash_point!("recovery.before_journal");
    report.append(&mut replay.report);
    let (next_file, next_generation, next_commit) = (replay.next_file, replay.next_generation, replay.next_commit);
    let left = replay.into_files();
    let start = Start { idle: left.idle, next_file, next_generation, next_commit };
    let mut journal = Journal::start(disk.clone(), options, start)?;
    journal.append_states(&segments.states())?;
    crash_point!("recovery.after_journal");
    for path in &left.damaged {
        put_aside(&*disk, root, path, "quarantine")?;
    }
    for file in left.needed.into_iter().filter_map(|file| journal.reuse(file)) {
        disk.remove(&file.path).map_err(StoreError::fatal("remove", &file.path, 0))?;
        crash_point!("recovery.removed");
    }
    disk.sync_dir(&journal_dir).map_err(StoreError::fatal("sync", &journal_dir, 0))?;
    crash_point!("recovery.done");
    let recovered = Recovered { queues: queues(&segments, &said.highest), clean: said.clean, report };
    Ok((journal, segments, recovered))
}

/// Moves something into a directory of the store, under a name that is free there.
pub(super) fn put_aside(disk: &dyn Disk, root: &Path, path: &Path, into: &str) -> Result<(), StoreError> {
    let dir = root.join(into);
    disk.create_dir(&dir).map_err(StoreError::fatal("create", &dir, 0))?;
    let taken = disk.list(&dir).map_err(StoreError::read(&dir, 0))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut free = name.clone();
    let mut copy = 0;
    while taken.iter().any(|entry| entry.name == free) {
        copy += 1;
        free = format!("{name}.{copy}");
    }
    crash_point!("recovery.put_aside.before");
    disk.rename(path, &dir.join(free)).map_err(StoreError::fatal("rename", path, 0))?;
    crash_point!("recovery.put_aside.after");
    for dir in [Some(dir.as_path()), path.parent(), Some(root)].into_iter().flatten() {
        disk.sync_dir(dir).map_err(StoreError::fatal("sync", dir, 0))?;
    }
    Ok(())
}

fn make_directories(disk: &dyn Disk, options: &StoreOptions) -> Result<(), StoreError> {
    let root = &options.dir;
    for dir in [root.clone(), root.join("journal"), root.join("segments")] {
        disk.create_dir(&dir).map_err(StoreError::fatal("create", &dir, 0))?;
        crash_point!("recovery.directory");
    }
    let above = root.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for dir in [root, above] {
        disk.sync_dir(dir).map_err(StoreError::fatal("sync", dir, 0))?;
    }
    Ok(())
}

/// Reads the journal for everything but its messages.
fn listen(replay: &mut Replay, known: &Known<'_>) -> Result<Said, StoreError> {
    let known = |queue| known(queue).is_some();
    let mut said = Said::default();
    let Said { settled, delivered, highest, .. } = &mut said;
    let clean = replay.walk(|event| {
        match event {
            Event::Enqueue(Placed { queue, seq, .. }, _) if known(queue) => {
                let highest = highest.entry(queue).or_insert(0);
                *highest = (*highest).max(seq);
            }
            Event::Settle { queue, first, last } if known(queue) => {
                settled.entry(queue).or_default().insert(first, last);
            }
            Event::Delivered { queue, first, last } if known(queue) => {
                delivered.entry(queue).or_default().insert(first, last);
            }
            Event::QueueState { queue, settled: done, delivered: seen } if known(queue) => {
                settled.entry(queue).or_default().extend(&done);
                delivered.entry(queue).or_default().extend(&seen);
            }
            Event::Enqueue(..)
            | Event::Settle { .. }
            | Event::Delivered { .. }
            | Event::QueueState { .. }
            | Event::CleanStop => {}
        }
        Ok(())
    })?;
    said.clean = clean;
    Ok(said)
}

/// Writes what lives in the journal alone to segments.
fn page_out(replay: &mut Replay, segments: &mut Segments, said: &Said, known: &Known<'_>) -> Result<(), StoreError> {
    let mut pages: Pages = BTreeMap::new();
    let mut octets = 0;
    let mut last: HashMap<QueueId, Seq, RandomState> = HashMap::default();
    replay.walk(|event| {
        let Event::Enqueue(Placed { queue, seq, expires_ms, message }, flags) = event else { return Ok(()) };
        let Some(lanes) = known(queue) else { return Ok(()) };
        let settled = said.settled.get(&queue).is_some_and(|settled| settled.contains(seq));
        let again = last.get(&queue).is_some_and(|last| *last >= seq);
        if settled || again || segments.holds(queue, seq) {
            return Ok(());
        }
        // Looked at when it was read.
        let Ok(message) = Message::from_stored(message) else { return Ok(()) };
        last.insert(queue, seq);
        octets += message.memory();
        let delivered = !said.clean || said.delivered.get(&queue).is_some_and(|delivered| delivered.contains(seq));
        let redelivered = delivered || flags.contains(EntryFlags::REDELIVERED);
        let lane = lanes.of(message.header());
        let entry = StoredEntry { seq, redelivered, persistent: true, lane, expires_ms, message };
        pages.entry((queue, lane)).or_default().push(entry);
        if octets >= PAGE_OUT_BYTES {
            octets = 0;
            write_pages(segments, &mut pages)?;
        }
        Ok(())
    })?;
    write_pages(segments, &mut pages)
}

/// Messages on their way to segments, by queue and lane.
type Pages = BTreeMap<(QueueId, u8), Vec<StoredEntry>>;

fn write_pages(segments: &mut Segments, pages: &mut Pages) -> Result<(), StoreError> {
    let page = |((queue, _), entries): (_, Vec<StoredEntry>)| Page { queue, entries: entries.into() };
    let pages: Vec<Page> = std::mem::take(pages).into_iter().map(page).collect();
    if !pages.is_empty() {
        segments.write(&pages, true)?;
        crash_point!("recovery.run_written");
    }
    Ok(())
}

fn queues(segments: &Segments, highest: &HashMap<QueueId, Seq, RandomState>) -> Vec<RecoveredQueue> {
    let mut queues: BTreeMap<QueueId, RecoveredQueue> = BTreeMap::new();
    for (&queue, &highest) in highest {
        let next_seq = highest.saturating_add(1);
        let empty = RecoveredQueue {
            queue,
            next_seq,
            runs: Vec::new(),
            messages: 0,
            bytes: 0,
            redelivered: Ranges::new(),
            expires: false,
        };
        queues.insert(queue, empty);
    }
    let mut runs: BTreeMap<QueueId, Vec<RunId>> = BTreeMap::new();
    for (queue, id, ..) in segments.live_runs() {
        runs.entry(queue).or_default().push(id);
    }
    for (queue, runs) in runs {
        let Some(found) = queues.get_mut(&queue) else { continue };
        found.bytes = runs.iter().map(|id| segments.live_bytes(*id)).sum();
        runs.iter().for_each(|id| found.redelivered.extend(&segments.delivered(*id)));
        found.expires = runs.iter().any(|id| segments.lane(*id).1);
        let mut lanes: BTreeMap<u8, Vec<RunId>> = BTreeMap::new();
        runs.iter().for_each(|id| lanes.entry(segments.lane(*id).0).or_default().push(*id));
        found.runs = lanes.values().flat_map(|runs| segments.in_order(runs)).collect();
        found.messages = found.runs.iter().map(|run| run.count).sum();
    }
    queues.into_values().collect()
}
