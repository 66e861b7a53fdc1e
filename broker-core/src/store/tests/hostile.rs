//! Files that say what cannot be true.

use super::*;

/// An order to overwrite eight octets of a record's payload; see `tamper`. Records 0 and 1 are the file's head and its copy.
fn overwrite(record: u16, place: u16, number: u64) -> Vec<u8> {
    [&[1][..], &record.to_le_bytes(), &place.to_le_bytes(), &number.to_le_bytes()].concat()
}

fn change(disk: &SimDisk, path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut content = disk.content(path).unwrap();
    how(&mut content);
    let file = disk.open(path).unwrap();
    file.truncate(content.len() as u64).unwrap();
    file.write_at(&content, 0).unwrap();
}

/// A journal with one commit of ten messages after the one it begins with; its file.
fn one_commit() -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(3);
    let (mut journal, _, _) = open(&disk);
    let mut batches = [journal.batch()];
    (1..=10).for_each(|seq| batches[0].enqueue(QUEUE, seq, false, 0, &message(seq, 100)));
    journal.commit(&mut batches).unwrap();
    let path = files(&disk, "journal").remove(0);
    (disk, path)
}

/// Record 2 is the empty commit that every journal begins with.
const COMMIT: u16 = 3;

fn found(disk: &SimDisk) -> (Vec<Seq>, Vec<String>) {
    let (_, mut segments, recovered) = open(disk);
    (all(&mut segments, &recovered).into_iter().map(|(seq, _)| seq).collect(), recovered.report)
}

/// A segment with one block of three messages: head, messages, index and trailer are records 2, 3 to 5, 6 and 7.
fn one_block(seqs: [Seq; 3]) -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(3);
    let (_, mut segments, _) = open(&disk);
    let entry = |seq| StoredEntry {
        seq,
        redelivered: false,
        persistent: true,
        lane: 0,
        expires_ms: 0,
        message: message(seq, 100),
    };
    segments.write(&[Page { queue: QUEUE, entries: seqs.into_iter().map(entry).collect() }], true).unwrap();
    let path = files(&disk, "segments").remove(0);
    (disk, path)
}

#[test]
fn of_a_journal_cut_short_what_is_left_is_read() {
    let (disk, path) = one_commit();
    let content = disk.content(&path).unwrap();
    let fifth = content.windows(8).rposition(|window| window == 5_u64.to_le_bytes()).unwrap();
    change(&disk, &path, |content| content.truncate(fifth + 8));
    let (seqs, report) = found(&disk);
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert!(report.len() == 1 && report[0].contains("cut at offset"), "{report:?}");
}

#[test]
fn a_commit_that_claims_more_than_the_file_holds_gives_what_there_is() {
    for claimed in [1 << 20, 1 << 40, u64::MAX] {
        let (disk, path) = one_commit();
        change(&disk, &path, |content| tamper(content, &overwrite(COMMIT, 40, claimed)));
        let (seqs, report) = found(&disk);
        assert_eq!(seqs, (1..=10).collect::<Vec<_>>(), "{claimed}");
        assert_eq!(report.len(), 1, "{report:?}");
    }
}

#[test]
fn numbers_that_cannot_be_do_not_stop_a_start() {
    for number in [0, NUMBER_MAX, u64::MAX] {
        // The commit's number, what it says was durable, and what is the oldest; the number of the enqueue behind it.
        for (record, place) in [(COMMIT, 0), (COMMIT, 8), (COMMIT, 16), (COMMIT + 1, 8)] {
            let (disk, path) = one_commit();
            change(&disk, &path, |content| tamper(content, &overwrite(record, place, number)));
            for _ in 0..2 {
                open(&disk);
            }
        }
        // The block's number, what it says was durable, its lengths; the number of a message.
        for (record, place) in [(2, 0), (2, 8), (2, 24), (2, 32), (4, 8)] {
            let (disk, path) = one_block([1, 2, 3]);
            change(&disk, &path, |content| tamper(content, &overwrite(record, place, number)));
            for _ in 0..2 {
                open(&disk);
            }
        }
    }
}

#[test]
fn a_file_head_with_a_number_that_cannot_be_is_damage() {
    let both = [overwrite(0, 8, u64::MAX), overwrite(1, 8, u64::MAX)].concat();
    for (disk, path) in [one_commit(), one_block([1, 2, 3])] {
        change(&disk, &path, |content| tamper(content, &both));
        let (seqs, report) = found(&disk);
        assert!(seqs.is_empty() && report.len() == 1, "{report:?}");
        assert!(report[0].contains("damaged at offset 0"), "{report:?}");
        assert_eq!(files(&disk, "quarantine").len(), 1);
    }
}

#[test]
fn a_journal_record_that_passes_and_says_nothing_is_reported() {
    let (disk, path) = one_commit();
    // The length of the second message's header becomes more than the message has.
    change(&disk, &path, |content| tamper(content, &overwrite(COMMIT + 2, 16, u64::MAX)));
    let (seqs, report) = found(&disk);
    assert_eq!(seqs, (1..=10).filter(|seq| *seq != 2).collect::<Vec<_>>());
    assert!(report.len() == 1 && report[0].contains("00000001.journal: damaged at offset"), "{report:?}");
}

#[test]
fn what_the_index_names_and_the_block_does_not_hold_is_lost_and_said_so() {
    for wrong in [1, 9, u64::MAX] {
        let (disk, path) = one_block([1, 2, 3]);
        let (_, mut segments, recovered) = open(&disk);
        change(&disk, &path, |content| tamper(content, &overwrite(4, 8, wrong)));
        let run = recovered.queues[0].runs[0].run;
        let loaded = segments.read(run, 1, usize::MAX).unwrap();
        assert_eq!(loaded.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 3], "{wrong}");
        assert_eq!((loaded.lost, loaded.next), (Ranges::from_to(2, 2), None));
        let report = segments.reports();
        assert!(report.len() == 1 && report[0].contains("00000001.segment: damaged"), "{report:?}");
    }
}

#[test]
fn rot_among_numbers_far_apart_costs_no_time_for_the_gaps() {
    let (disk, path) = one_block([1, 1 << 50, 1 << 51]);
    let (_, mut segments, recovered) = open(&disk);
    disk.flip(&path, (4096 + 56 + 100) * 8);
    let loaded = segments.read(recovered.queues[0].runs[0].run, 1, usize::MAX).unwrap();
    assert_eq!(loaded.lost, Ranges::from_to(1, 1));
    assert_eq!(loaded.entries.len(), 2);
}
