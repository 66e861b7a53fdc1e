//! A process that uses the store on a real disk and says on its standard output what was promised, until it is killed at a crash point.
//!
//! Lines: `stored Q S` (the commit or page-out with message S of queue Q returned), `settling Q S` (said before it is begun), `settled Q S`
//! (durably).

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use broker_core::queue::StoredEntry;
use broker_core::store::disk::RealDisk;
use broker_core::store::{Journal, JournalBatch, Page, QueueId, Segments, Seq, StoreError, StoreOptions, recover};

use super::oracle::{Known, Stage, entry, expires_ms, lanes, message};

/// Queues the child uses.
pub const QUEUES: [QueueId; 2] = [QueueId(1), QueueId(2)];
const LIVES: u64 = 3;
const TURNS: u64 = 50;
/// Larger than a journal file and than what is written to a segment at a time.
const LARGE_BYTES: usize = 1_200_000;

/// Small files, so that everything happens soon.
pub fn options(dir: &Path, salt: u64) -> StoreOptions {
    StoreOptions {
        journal_file_bytes: 64 * 1024,
        journal_budget_bytes: 3 * 64 * 1024,
        segment_file_bytes: 64 * 1024,
        ..StoreOptions::new(dir, salt)
    }
}

/// How long the body of a message is.
pub fn body_len(seq: Seq) -> usize {
    if seq.is_multiple_of(1000) { LARGE_BYTES } else { 200 + (seq as usize * 37) % 900 }
}

struct Child {
    journal: Journal,
    segments: Segments,
    batch: [JournalBatch; 1],
    /// For each queue the numbers alive in the journal alone, and alive in runs.
    alive: [(Vec<Seq>, Vec<Seq>); 2],
    next: [Seq; 2],
}

/// Lives a few times in `dir`.
pub fn live(dir: &Path) -> Result<(), String> {
    for life in 0..LIVES {
        let options = options(dir, life);
        let (mut journal, segments, recovered) =
            recover(Arc::new(RealDisk), &options, &|queue| Some(lanes(queue))).map_err(|error| error.to_string())?;
        let batch = [journal.batch()];
        let mut child = Child { journal, segments, batch, alive: Default::default(), next: [1, 1] };
        for queue in recovered.queues {
            let at = usize::from(queue.queue != QUEUES[0]);
            child.next[at] = queue.next_seq;
            for part in queue.runs {
                let mut from = Some(part.first);
                while let Some(start) = from {
                    let loaded = child.segments.read(part.run, start, 100_000).map_err(|error| error.to_string())?;
                    let within = loaded.entries.iter().map(|entry| entry.seq).filter(|seq| *seq <= part.last);
                    child.alive[at].1.extend(within);
                    from = loaded.next.filter(|next| *next <= part.last);
                }
            }
        }
        for turn in 0..TURNS {
            child.turn(turn).map_err(|error| error.to_string())?;
        }
        if life != 1 {
            child.journal.stop(&mut child.batch).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

impl Child {
    fn turn(&mut self, turn: u64) -> Result<(), StoreError> {
        for (at, queue) in QUEUES.iter().copied().enumerate() {
            for _ in 0..6 {
                let seq = self.next[at];
                self.next[at] += if !(900..=1000).contains(&seq) { 1 } else { 1000 - seq + u64::from(seq == 1000) };
                self.batch[0].enqueue(queue, seq, false, expires_ms(seq), &message(queue, seq, body_len(seq)));
                self.alive[at].0.push(seq);
            }
        }
        if turn == 20 {
            self.next[0] = self.next[0].max(1000);
        }
        let stored: Vec<(usize, Vec<Seq>)> =
            (0..2).map(|at| (at, self.alive[at].0.iter().rev().take(6).copied().collect())).collect();
        self.journal.commit(&mut self.batch)?;
        stored.iter().for_each(|(at, seqs)| seqs.iter().for_each(|seq| say("stored", *at, *seq)));
        if turn % 3 == 1 {
            self.settle(turn)?;
        }
        if turn % 7 == 3 {
            self.page(usize::from(turn.is_multiple_of(2)), Seq::MAX)?;
        }
        while self.segments.maintain()? {}
        if let Some(maker) = self.journal.wants_spare() {
            self.journal.add_spare(maker.make()?);
        }
        for (queue, through) in self.journal.retire_candidates() {
            self.page(usize::from(queue != QUEUES[0]), through)?;
            let state = self.segments.state_of(queue)?;
            self.journal.paged(queue, through, state)?;
        }
        self.journal.retire()?;
        Ok(())
    }

    /// Settles most of what is alive, but leaves some of everything.
    fn settle(&mut self, turn: u64) -> Result<(), StoreError> {
        let mut done = Vec::new();
        for at in 0..2 {
            let (journal, runs) = &mut self.alive[at];
            for list in [journal, runs] {
                list.retain(|&seq| {
                    // The large message stays until it has been in a run for a while.
                    let keep = seq % 9 == turn % 9 || seq % 31 == 0 || (seq % 1000 == 0 && turn < 40);
                    if !keep {
                        done.push((at, seq));
                    }
                    keep
                });
            }
        }
        for &(at, seq) in &done {
            say("settling", at, seq);
            self.segments.settle(QUEUES[at], seq, seq)?;
            self.batch[0].settle(QUEUES[at], seq, seq);
        }
        self.journal.commit(&mut self.batch)?;
        self.journal.sync()?;
        done.iter().for_each(|(at, seq)| say("settled", *at, *seq));
        Ok(())
    }

    /// Writes what lives in the journal alone, up to a number, to a run.
    fn page(&mut self, at: usize, through: Seq) -> Result<(), StoreError> {
        let (now, later): (Vec<Seq>, Vec<Seq>) = self.alive[at].0.iter().partition(|seq| **seq <= through);
        if now.is_empty() {
            return Ok(());
        }
        let known = |seq: Seq| Known {
            body_len: body_len(seq),
            persistent: true,
            flagged: false,
            enqueued: Stage::Durable,
            paging: true,
            paged: true,
            settled: Stage::No,
        };
        let queue = QUEUES[at];
        let entries: Vec<StoredEntry> = now.iter().map(|&seq| entry(queue, seq, &known(seq))).collect();
        // A page is of one lane.
        let of_lane = |lane| entries.iter().filter(|entry| entry.lane == lane).cloned().collect();
        let mut pages: Vec<Page> =
            (0..=lanes(queue).highest).map(|lane| Page { queue, entries: of_lane(lane) }).collect();
        pages.retain(|page| !page.entries.is_empty());
        self.segments.write(&pages, false)?;
        self.alive[at].0 = later;
        self.alive[at].1.extend(now);
        Ok(())
    }
}

/// One write a line, so that nothing said is lost with the process.
fn say(what: &str, at: usize, seq: Seq) {
    let line = format!("{what} {} {seq}\n", QUEUES[at].0);
    let _ = io::stdout().write_all(line.as_bytes());
    let _ = io::stdout().flush();
}
