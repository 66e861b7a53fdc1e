//! The store as its driver uses it, on a simulated disk.

mod hostile;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Crash, Disk, SimDisk};
use super::*;
use crate::message::Message;
use crate::queue::{Lanes, StoredEntry};

const QUEUE: QueueId = QueueId(7);

fn options() -> StoreOptions {
    StoreOptions {
        journal_file_bytes: 64 * 1024,
        journal_budget_bytes: 4 * 64 * 1024,
        segment_file_bytes: 32 * 1024,
        ..StoreOptions::new("/data/store", 99)
    }
}

fn message(seq: Seq, body_len: usize) -> Message {
    let body: Vec<u8> = seq.to_le_bytes().into_iter().cycle().take(body_len.max(8)).collect();
    Message::new(b"\x00\x02rk", &[0; 14], &body, true, &mut Vec::new()).unwrap()
}

fn open(disk: &SimDisk) -> (Journal, Segments, Recovered) {
    recover(Arc::new(disk.clone()), &options(), &|_| Some(Lanes::default())).unwrap()
}

fn all(segments: &mut Segments, recovered: &Recovered) -> Vec<(Seq, bool)> {
    let mut found = Vec::new();
    for run in recovered.queues.iter().flat_map(|queue| &queue.runs) {
        let mut from = Some(run.first);
        while let Some(at) = from.filter(|at| *at <= run.last) {
            let loaded = segments.read(run.run, at, 500).unwrap();
            for entry in loaded.entries.into_iter().filter(|entry| entry.seq <= run.last) {
                assert_eq!(entry.message, message(entry.seq, entry.message.body_len()));
                found.push((entry.seq, entry.redelivered));
            }
            from = loaded.next;
        }
    }
    found
}

fn files(disk: &SimDisk, under: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.starts_with(Path::new("/data/store").join(under))).collect()
}

#[test]
fn what_was_committed_and_not_settled_is_there_after_a_power_cut() {
    let disk = SimDisk::new(3);
    let (mut journal, segments, recovered) = open(&disk);
    assert!(recovered.queues.is_empty() && recovered.report.is_empty());
    let mut batches = [journal.batch(), journal.batch()];
    for seq in 1..=300 {
        batches[(seq % 2) as usize].enqueue(QueueId(seq % 2), seq, false, 0, &message(seq, 100));
    }
    batches[1].settle(QueueId(1), 11, 20);
    journal.commit(&mut batches).unwrap();
    assert!(batches.iter().all(JournalBatch::is_empty) && journal.is_durable());
    batches[0].enqueue(QueueId(0), 302, false, 0, &message(302, 20_000));
    drop((journal, segments));
    let disk = disk.crash(Crash::LoseAll);
    for _ in 0..3 {
        let (_, mut segments, recovered) = open(&disk);
        assert_eq!(recovered.report, Vec::<String>::new());
        let expected: Vec<Seq> =
            (2..=300).step_by(2).chain((1..=300).step_by(2).filter(|seq| !(11..=20).contains(seq))).collect();
        assert_eq!(all(&mut segments, &recovered), expected.into_iter().map(|seq| (seq, true)).collect::<Vec<_>>());
        assert_eq!(
            recovered.queues.iter().map(|queue| (queue.next_seq, queue.messages)).collect::<Vec<_>>(),
            [(301, 150), (300, 145)]
        );
    }
}

#[test]
fn after_a_clean_stop_only_what_was_delivered_is_flagged() {
    let disk = SimDisk::new(3);
    let (mut journal, mut segments, _) = open(&disk);
    let mut batches = [journal.batch()];
    let entries = (1..=10).map(|seq| StoredEntry {
        seq,
        redelivered: seq == 9,
        persistent: seq != 2,
        lane: 0,
        expires_ms: 0,
        message: message(seq, 9),
    });
    segments.write(&[Page { queue: QUEUE, entries: entries.collect() }], false).unwrap();
    for seq in 11..=20 {
        batches[0].enqueue(QUEUE, seq, seq == 19, 0, &message(seq, 9));
    }
    batches[0].delivered(QUEUE, 3, 4);
    batches[0].delivered(QUEUE, 12, 13);
    journal.stop(&mut batches).unwrap();
    let expected = [3, 4, 9, 12, 13, 19];
    for round in 0..2 {
        let (mut journal, mut segments, recovered) = open(&disk);
        assert!(recovered.clean, "{round}");
        let found = all(&mut segments, &recovered);
        assert_eq!(
            found,
            (1..=20).filter(|seq| *seq != 2).map(|seq| (seq, expected.contains(&seq))).collect::<Vec<_>>()
        );
        let flagged: Vec<Seq> = recovered.queues[0].redelivered.iter().flat_map(|(a, b)| a..=b).collect();
        assert_eq!(flagged, expected);
        journal.stop(&mut []).unwrap();
    }
    let _ = open(&disk);
    assert!(all(&mut open(&disk).1, &open(&disk).2).iter().all(|(_, redelivered)| *redelivered));
}

#[test]
fn the_journal_gives_files_up_and_uses_them_again() {
    let disk = SimDisk::new(3);
    let (mut journal, mut segments, _) = open(&disk);
    let mut batches = [journal.batch()];
    let mut retired = 0;
    let mut alive: Vec<Seq> = Vec::new();
    for seq in 1..=4000 {
        batches[0].enqueue(QUEUE, seq, false, 0, &message(seq, 500));
        alive.push(seq);
        if seq % 3 > 0 {
            let gone = alive.remove(alive.len() / 2);
            batches[0].settle(QUEUE, gone, gone);
            segments.settle(QUEUE, gone, gone).unwrap();
        }
        if seq % 20 == 0 {
            journal.commit(&mut batches).unwrap();
        }
        for (queue, through) in journal.retire_candidates() {
            let entries: Vec<StoredEntry> = alive
                .iter()
                .filter(|alive| **alive <= through && !segments.holds(QUEUE, **alive))
                .map(|&seq| StoredEntry {
                    seq,
                    redelivered: false,
                    persistent: true,
                    lane: 0,
                    expires_ms: 0,
                    message: message(seq, 500),
                })
                .collect();
            segments.write(&[Page { queue, entries: entries.into() }], true).unwrap();
            while segments.maintain().unwrap() {}
            let state = segments.state_of(queue).unwrap();
            journal.paged(queue, through, state).unwrap();
            retired += 1;
        }
    }
    journal.commit_synced(&mut batches).unwrap();
    assert!(retired > 20, "{retired}");
    assert!(journal.disk_bytes() <= 7 * 64 * 1024);
    drop((journal, segments));
    for crash in [Crash::LoseAll, Crash::KeepAll] {
        let disk = disk.crash(crash);
        let (_, mut segments, recovered) = open(&disk);
        assert_eq!(recovered.report, Vec::<String>::new());
        let found: Vec<Seq> = all(&mut segments, &recovered).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(found, alive);
    }
}

#[test]
fn files_of_which_all_queues_are_deleted_are_given_up_too() {
    let disk = SimDisk::new(3);
    let (mut journal, mut segments, _) = open(&disk);
    let mut batches = [journal.batch()];
    for queue in (1..6).map(QueueId) {
        for seq in 1..=2000 {
            batches[0].enqueue(queue, seq, false, 0, &message(seq, 500));
            batches[0].settle(queue, seq, seq);
            if seq % 20 == 0 {
                journal.commit(&mut batches).unwrap();
            }
            for (queue, through) in journal.retire_candidates() {
                let state = segments.state_of(queue).unwrap();
                journal.paged(queue, through, state).unwrap();
            }
            journal.retire().unwrap();
        }
        assert!(journal.disk_bytes() <= 7 * 64 * 1024, "{queue:?}: {}", journal.disk_bytes());
        segments.drop_queue(queue).unwrap();
        journal.forget_queue(queue).unwrap();
    }
}

#[test]
fn runs_that_interleave_come_back_in_order() {
    let disk = SimDisk::new(3);
    let (_, mut segments, _) = open(&disk);
    let page = |seqs: &[Seq]| Page {
        queue: QUEUE,
        entries: seqs
            .iter()
            .map(|&seq| StoredEntry {
                seq,
                redelivered: false,
                persistent: true,
                lane: 0,
                expires_ms: 0,
                message: message(seq, 9),
            })
            .collect(),
    };
    let runs = segments.write(&[page(&[1, 2, 5, 6, 1_000_000]), page(&[3, 4, 7, 500_000])], true).unwrap();
    assert_eq!(
        runs.iter().map(|run| (run.first, run.last, run.count)).collect::<Vec<_>>(),
        [(1, 1_000_000, 5), (3, 500_000, 4)]
    );
    segments.write(&[page(&[2, 1])], true).unwrap_err();
    segments.settle(QUEUE, 6, 6).unwrap();
    let (_, mut segments, recovered) = open(&disk);
    let found: Vec<Seq> = all(&mut segments, &recovered).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(found, [1, 2, 3, 4, 5, 6, 7, 500_000, 1_000_000]);
    assert_eq!(recovered.queues[0].messages, 9);
}

#[test]
fn segments_are_removed_when_dead_and_copied_together_when_sparse() {
    let disk = SimDisk::new(3);
    let (_, mut segments, _) = open(&disk);
    let mut runs = Vec::new();
    for block in 0..40 {
        let entries = (1..=50).map(|at| StoredEntry {
            seq: block * 50 + at,
            redelivered: false,
            persistent: true,
            lane: 0,
            expires_ms: 0,
            message: message(block * 50 + at, 100),
        });
        runs.extend(segments.write(&[Page { queue: QUEUE, entries: entries.collect() }], false).unwrap());
    }
    let before = segments.stats();
    assert_eq!((before.messages, before.runs), (2000, 40));
    assert!(before.files > 8);
    segments.settle(QUEUE, 1, 999).unwrap();
    for seq in (1001..1900).filter(|seq| seq % 8 > 0) {
        segments.settle(QUEUE, seq, seq).unwrap();
    }
    while segments.maintain().unwrap() {}
    let after = segments.stats();
    assert!(after.disk_bytes * 3 < before.disk_bytes, "{after:?}");
    assert_eq!(after.messages, 2000 - 999 - (1001..1900).filter(|seq| seq % 8 > 0).count() as u64);
    let found: Vec<Seq> = runs
        .iter()
        .flat_map(|run| segments.read(run.id, 0, usize::MAX).unwrap().entries)
        .map(|entry| entry.seq)
        .collect();
    assert_eq!(found, (1000..=2000).filter(|seq| *seq < 1001 || *seq >= 1900 || seq % 8 == 0).collect::<Vec<_>>());
    segments.drop_queue(QUEUE).unwrap();
    segments.maintain().unwrap();
    assert_eq!(files(&disk, "segments"), Vec::<PathBuf>::new());
}

#[test]
fn a_rotten_record_is_reported_and_the_rest_served() {
    let disk = SimDisk::new(3);
    let (_, mut segments, _) = open(&disk);
    let entries = (1..=50).map(|seq| StoredEntry {
        seq,
        redelivered: false,
        persistent: true,
        lane: 0,
        expires_ms: 0,
        message: message(seq, 100),
    });
    let run = segments.write(&[Page { queue: QUEUE, entries: entries.collect() }], false).unwrap()[0];
    let path = files(&disk, "segments").remove(0);
    // In the body of the third record.
    disk.flip(&path, (4096 + 56 + 2 * 154 + 100) * 8);
    let loaded = segments.read(run.id, 0, usize::MAX).unwrap();
    assert_eq!(loaded.lost, Ranges::from_to(3, 3));
    assert_eq!(loaded.entries.len(), 49);
    let report = segments.reports();
    assert_eq!(report.len(), 1);
    assert!(report[0].contains("00000001.segment: damaged at offset 4460: 1 messages of queue 7"), "{report:?}");
    segments.settle(QUEUE, 1, 50).unwrap();
    segments.maintain().unwrap();
    assert_eq!(files(&disk, "quarantine").len(), 1);
}

#[test]
fn a_rotten_index_or_journal_costs_no_more_than_what_rotted() {
    let disk = SimDisk::new(3);
    let (mut journal, mut segments, _) = open(&disk);
    for block in 0..3 {
        let entries = (1..=50).map(|at| StoredEntry {
            seq: block * 50 + at,
            redelivered: false,
            persistent: true,
            lane: 0,
            expires_ms: 0,
            message: message(block * 50 + at, 100),
        });
        segments.write(&[Page { queue: QUEUE, entries: entries.collect() }], false).unwrap();
    }
    let path = files(&disk, "segments").remove(0);
    disk.flip(&path, (4096 + 56 + 50 * 154 + 20) * 8);
    let mut batches = [journal.batch()];
    for seq in 151..=160 {
        batches[0].enqueue(QUEUE, seq, false, 0, &message(seq, 100));
        journal.commit(&mut batches).unwrap();
    }
    let journal_file = files(&disk, "journal").remove(0);
    let content = disk.content(&journal_file).unwrap();
    let third = content.windows(8).position(|window| window == 153_u64.to_le_bytes()).unwrap();
    disk.flip(&journal_file, third as u64 * 8 + 400);
    drop((journal, segments));
    let (_, mut segments, recovered) = open(&disk);
    let found: Vec<Seq> = all(&mut segments, &recovered).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(found, (1..=160).filter(|seq| *seq != 153).collect::<Vec<_>>());
    assert_eq!(recovered.report.len(), 2, "{:#?}", recovered.report);
    assert!(recovered.report[0].contains("a block's index cannot be read; 50 messages were found without it"));
    assert!(recovered.report[1].contains("00000001.journal: damaged at offset"), "{:#?}", recovered.report);
    assert_eq!(files(&disk, "quarantine").len(), 2);
    let (_, mut segments, recovered) = open(&disk);
    assert_eq!((all(&mut segments, &recovered).len(), recovered.report.len()), (159, 0));
}

#[test]
fn a_full_disk_refuses_messages_takes_settles_and_recovers() {
    let disk = SimDisk::new(3);
    let (mut journal, mut segments, _) = open(&disk);
    disk.set_capacity(Some(disk.used()));
    let mut batches = [journal.batch()];
    let mut seq = 0;
    let refused = loop {
        for _ in 0..10 {
            seq += 1;
            batches[0].enqueue(QUEUE, seq, false, 0, &message(seq, 500));
        }
        if let Err(error) = journal.commit(&mut batches) {
            break error;
        }
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    assert!(seq > 60);
    let entries = (1..=50).map(|seq| StoredEntry {
        seq,
        redelivered: false,
        persistent: true,
        lane: 0,
        expires_ms: 0,
        message: message(seq, 100),
    });
    let page = [Page { queue: QueueId(8), entries: entries.collect() }];
    assert!(matches!(segments.write(&page, false), Err(StoreError::Full { .. })));
    let mut settles = [journal.batch()];
    for settled in 1..=500 {
        settles[0].settle(QUEUE, settled, settled);
        journal.commit_synced(&mut settles).unwrap();
    }
    assert!(matches!(journal.commit(&mut batches), Ok(()) | Err(StoreError::Full { .. })));
    disk.set_capacity(None);
    journal.commit(&mut batches).unwrap();
    segments.write(&page, false).unwrap();
    let (_, mut segments, recovered) = open(&disk.crash(Crash::LoseAll));
    assert_eq!(all(&mut segments, &recovered).len() as u64, seq.saturating_sub(500) + 50);
    assert_eq!(recovered.report, Vec::<String>::new());
}

#[test]
fn unknown_files_are_moved_and_messages_of_unknown_queues_dropped() {
    let disk = SimDisk::new(3);
    let (mut journal, segments, _) = open(&disk);
    let mut batches = [journal.batch()];
    batches[0].enqueue(QUEUE, 1, false, 0, &message(1, 9));
    batches[0].enqueue(QueueId(8), 1, false, 0, &message(1, 9));
    journal.commit(&mut batches).unwrap();
    drop((journal, segments));
    for name in ["journal/x", "segments/00000001.segment.bak", "segments/y"] {
        disk.create(&Path::new("/data/store").join(name)).unwrap();
    }
    let known = |queue| (queue == QUEUE).then(Lanes::default);
    let (_, _, recovered) = recover(Arc::new(disk.clone()), &options(), &known).unwrap();
    assert_eq!(recovered.queues.iter().map(|queue| (queue.queue, queue.messages)).collect::<Vec<_>>(), [(QUEUE, 1)]);
    assert_eq!(files(&disk, "orphaned").len(), 3);
    let (_, _, recovered) = open(&disk);
    assert_eq!(recovered.queues.len(), 1);
}

#[test]
fn a_message_larger_than_a_file_fits() {
    let disk = SimDisk::new(3);
    let (mut journal, mut segments, _) = open(&disk);
    let mut batches = [journal.batch()];
    batches[0].enqueue(QUEUE, 1, false, 0, &message(1, 300_000));
    batches[0].enqueue(QUEUE, 2, false, 0, &message(2, 30_000));
    journal.commit(&mut batches).unwrap();
    let entries = vec![StoredEntry {
        seq: 1,
        redelivered: false,
        persistent: true,
        lane: 0,
        expires_ms: 0,
        message: message(1, 300_000),
    }];
    segments.write(&[Page { queue: QueueId(8), entries: entries.into() }], false).unwrap();
    let disk = disk.crash(Crash::LoseAll);
    let (_, mut segments, recovered) = open(&disk);
    assert_eq!(all(&mut segments, &recovered), [(1, true), (2, true), (1, true)]);
    let sizes = files(&disk, "journal").into_iter().map(|path| disk.content(&path).unwrap().len());
    assert_eq!(sizes.collect::<Vec<_>>(), [64 * 1024; 3], "the large file is gone");
}
