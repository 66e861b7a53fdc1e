//! Starts on files of the store that say anything at all: they end in a store that works, or in an error that names the file.

// A fuzz target says by a panic what it found.
#![allow(clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use broker_core::queue::{Lanes, StoredEntry};
use broker_core::store::disk::{Crash, Disk, SimDisk};
use broker_core::store::{Journal, Page, QueueId, Recovered, Segments, Seq, StoreError, StoreOptions, recover, tamper};

use crate::store::oracle::message;

const DIR: &str = "/node/store";
/// Reads of a run are about this long.
const READ_BYTES: usize = 4 * 1024;
const BODY_BYTES: usize = 20;
/// The first octet that stands for a file whose content is the others as they are.
const RAW: u8 = 255;

/// Which files are tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The journal's.
    Journal,
    /// The segments.
    Segments,
}

/// Tampers with a file as the octets say, the first of which chooses it, and lives through two starts.
///
/// # Panics
/// When a start does not end as it must.
pub fn live(which: Which, octets: &[u8]) {
    let Some((&choice, orders)) = octets.split_first() else { return };
    let disk = SimDisk::new(1);
    for dir in ["journal", "segments"] {
        done(disk.create_dir(&Path::new(DIR).join(dir)));
    }
    let directory = Path::new(DIR).join(if which == Which::Journal { "journal" } else { "segments" });
    let files = written();
    let candidates: Vec<&PathBuf> =
        files.iter().map(|(path, _)| path).filter(|path| path.starts_with(&directory)).collect();
    let chosen = candidates.get(usize::from(choice).checked_rem(candidates.len()).unwrap_or(0)).copied();
    for (path, content) in files {
        let mut content = content.clone();
        if Some(path) == chosen {
            if choice == RAW {
                content = orders.to_vec();
            } else {
                tamper(&mut content, orders);
            }
        }
        let file = done(disk.create(path));
        done(file.allocate(content.len() as u64));
        done(file.write_at(&content, 0));
    }
    match start(&disk) {
        Ok(store) => use_it(store),
        // A version that is not known yet.
        Err(StoreError::Read { file, offset: 0, .. }) => assert!(file.starts_with(&directory), "{}", file.display()),
        Err(error) => panic!("the start failed: {error}"),
    }
    if let Err(error) = start(&disk.crash(Crash::KeepAll)) {
        assert!(matches!(error, StoreError::Read { .. }), "the second start failed: {error}");
    }
}

fn start(disk: &SimDisk) -> Result<(Journal, Segments, Recovered), StoreError> {
    let options = StoreOptions {
        journal_file_bytes: 64 * 1024,
        journal_budget_bytes: 3 * 64 * 1024,
        segment_file_bytes: 8 * 1024,
        ..StoreOptions::new(DIR, 7)
    };
    recover(Arc::new(disk.clone()), &options, &|_| Some(Lanes::default()))
}

/// Reads everything, settles half of it and enqueues a little.
fn use_it((mut journal, mut segments, recovered): (Journal, Segments, Recovered)) {
    let mut batches = [journal.batch()];
    for queue in &recovered.queues {
        for run in &queue.runs {
            let mut from = Some(run.first);
            while let Some(at) = from.filter(|at| *at <= run.last) {
                let loaded = done(segments.read(run.run, at, READ_BYTES));
                from = loaded.next;
                assert!(from.is_none_or(|next| next > at), "reading does not get on");
                for lost in loaded.lost.iter() {
                    done(segments.settle(queue.queue, lost.0, lost.1));
                }
            }
            done(segments.settle(queue.queue, run.first, run.first + (run.last - run.first) / 2));
        }
        for batch in &mut batches {
            batch.enqueue(queue.queue, queue.next_seq, false, 0, &message(queue.queue, queue.next_seq, BODY_BYTES));
        }
        done(segments.state_of(queue.queue));
    }
    while done(segments.maintain()) {}
    done(journal.commit(&mut batches));
}

/// A store that was written and killed: its files.
fn written() -> &'static [(PathBuf, Vec<u8>)] {
    static FILES: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(1);
        let (mut journal, mut segments, _) = done(start(&disk));
        let mut batches = [journal.batch(), journal.batch()];
        let mut seqs: [Seq; 3] = [0; 3];
        for round in 0..9_u64 {
            for (at, seq) in seqs.iter_mut().enumerate() {
                let queue = QueueId(at as u64 + 1);
                let mut entries = Vec::new();
                for step in 0..12 {
                    // Queue 2 has gaps, queue 3 transient messages.
                    *seq += if at == 1 { 1 + step % 4 } else { 1 };
                    let entry = StoredEntry {
                        seq: *seq,
                        redelivered: step == 5,
                        persistent: at != 2 || step % 3 > 0,
                        lane: 0,
                        expires_ms: u64::from(step == 7) * 1_000_000,
                        message: message(queue, *seq, BODY_BYTES),
                    };
                    if round % 2 == 0 {
                        let [even, odd] = &mut batches;
                        let batch = if at % 2 == 0 { even } else { odd };
                        batch.enqueue(queue, *seq, entry.redelivered, entry.expires_ms, &entry.message);
                    } else {
                        entries.push(entry);
                    }
                }
                if !entries.is_empty() {
                    done(segments.write(&[Page { queue, entries: entries.into() }], round % 4 == 1));
                }
                for batch in &mut batches {
                    batch.settle(queue, *seq / 2, *seq / 2 + 3);
                    batch.delivered(queue, *seq, *seq);
                }
                done(segments.settle(queue, *seq / 2, *seq / 2 + 3));
            }
            done(journal.commit(&mut batches));
            if round == 5 {
                // So that the journal's first commit carries states over.
                drop((journal, segments));
                (journal, segments, _) = done(start(&disk));
                batches = [journal.batch(), journal.batch()];
            }
        }
        let mut files: Vec<_> = disk
            .files()
            .into_iter()
            .map(|path| {
                let content = disk.content(&path).unwrap_or_default();
                (path, content)
            })
            .collect();
        // What was reserved and never written is zeros; leaving most of them out makes this faster and cuts nothing off.
        for (_, content) in &mut files {
            let used = content.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
            content.truncate((used + 64).min(content.len()));
        }
        files
    })
}

#[track_caller]
fn done<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
