//! The journal's thread: group commit for all queues of the node.
//!
//! The shard hands over one batch at a time and fills the next while this one is written: what is settled meanwhile is left out of it. Between
//! batches the thread retires old journal files, for which queues must page out what still lives in them. In a simulation of whole nodes there is no
//! thread: what is handed over is carried out in steps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use broker_core::store::{Journal, JournalBatch, QueueId, QueueState, Seq, Spare, StoreError};

use super::events::Event;
use super::fatal;
use super::mailbox::Mailbox;

/// Records that need no sync of their own are on the disk after this at the latest.
const SETTLES_WAIT: Duration = Duration::from_millis(100);

/// What the shard tells the journal. At most one batch is on its way, and one answer a queue for each file that is retired.
pub enum Work {
    /// Write this.
    Commit {
        /// The records.
        batch: JournalBatch,
        /// Which queues they come from, and up to which place each is covered.
        flushed: Vec<(QueueId, Seq)>,
    },
    /// A queue has nothing left in the journal up to this place that is not in a run; and what is settled of its runs.
    Paged(QueueId, Seq, QueueState),
    /// A file made ready on another thread.
    Spare(Result<Spare, StoreError>),
    /// These queues are deleted.
    Forget(Arc<[QueueId]>),
    /// The node stops: note that it stopped cleanly, and end.
    Stop(JournalBatch),
}

/// A batch is stored.
pub struct Committed {
    /// The batch, emptied, to be filled again.
    pub batch: JournalBatch,
    /// What was handed over with it.
    pub flushed: Vec<(QueueId, Seq)>,
    /// Queues that must page out what lives up to a place, so that the oldest file can be reused.
    pub retire: Vec<(QueueId, Seq)>,
    /// The disk had no room: nothing of the batch is stored, and `batch` still holds it.
    pub full: bool,
}

/// The shard's handle.
pub struct JournalHandle {
    work: Sender<Work>,
    /// None if it is carried out in steps.
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts the thread.
pub fn start(journal: Journal, mailbox: Mailbox) -> std::io::Result<JournalHandle> {
    let (mut handle, mut worker) = in_steps(journal, mailbox);
    worker.spares = Some(handle.work.clone());
    let thread = std::thread::Builder::new().name("journal".into());
    handle.thread = Some(thread.spawn(move || worker.run())?);
    Ok(handle)
}

/// Without a thread: what is handed over waits for [`Worker::step`].
pub fn in_steps(journal: Journal, mailbox: Mailbox) -> (JournalHandle, Worker) {
    let (work, receiver) = channel();
    let worker = Worker { journal, mailbox, work: receiver, spares: None, sync_at: None };
    (JournalHandle { work, thread: None }, worker)
}

impl JournalHandle {
    /// Hands work over. If the thread has ended the process is about to: it ends only after a fatal error.
    pub fn send(&self, work: Work) {
        if self.work.send(work).is_err() {
            tracing::error!("the journal's thread has ended");
        }
    }

    /// Waits until everything handed over is done. Call after [`Work::Stop`].
    pub fn join(self) {
        drop(self.work);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread has panicked");
        }
    }
}

/// Carries out what is handed over: a thread, or whoever steps it.
pub struct Worker {
    journal: Journal,
    mailbox: Mailbox,
    work: Receiver<Work>,
    /// Where files made ready on other threads come back. None: they are made here.
    spares: Option<Sender<Work>>,
    /// When something is on the disk and not durable: the time at which it must be.
    sync_at: Option<Instant>,
}

impl Worker {
    /// Carries out all that was handed over, and syncs what has waited for it long enough.
    pub fn step(&mut self, now: Instant) {
        while let Ok(next) = self.work.try_recv() {
            self.take(next);
            self.note_unsynced(now);
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync();
        }
    }

    fn run(&mut self) {
        loop {
            // Settles are not worth a sync of their own; without company they are synced after a while. More settles are no company, and
            // however many come, the first ones must not wait for the last.
            let next = match self.sync_at.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self.work.recv().ok(),
                Some(Duration::ZERO) => {
                    self.sync();
                    continue;
                }
                Some(left) => match self.work.recv_timeout(left) {
                    Ok(next) => Some(next),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => None,
                },
            };
            let Some(next) = next else { return };
            let is_last = matches!(next, Work::Stop(_));
            self.take(next);
            if is_last {
                return;
            }
            self.note_unsynced(Instant::now());
        }
    }

    fn sync(&mut self) {
        self.journal.sync().unwrap_or_else(|error| fatal(&error.to_string()));
        self.sync_at = None;
    }

    fn note_unsynced(&mut self, now: Instant) {
        self.sync_at = match self.sync_at {
            _ if self.journal.is_durable() => None,
            None => Some(now + SETTLES_WAIT),
            already => already,
        };
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Commit { batch, flushed } => self.commit(batch, flushed),
            Work::Paged(queue, through, state) => {
                retired(self.journal.paged(queue, through, state));
            }
            Work::Spare(Ok(spare)) => self.journal.add_spare(spare),
            Work::Spare(Err(StoreError::Full { .. })) => self.journal.spare_failed(),
            Work::Spare(Err(error)) => fatal(&error.to_string()),
            Work::Forget(queues) => {
                for &queue in queues.iter() {
                    retired(self.journal.forget_queue(queue));
                }
            }
            Work::Stop(batch) => {
                self.journal.stop(&mut [batch]).unwrap_or_else(|error| fatal(&error.to_string()));
            }
        }
    }

    fn commit(&mut self, batch: JournalBatch, flushed: Vec<(QueueId, Seq)>) {
        let mut batches = [batch];
        let full = match self.journal.commit(&mut batches) {
            Ok(()) => false,
            Err(StoreError::Full { .. }) => true,
            Err(error) => fatal(&error.to_string()),
        };
        let [batch] = batches;
        let retire = self.journal.retire_candidates();
        self.mailbox.send(Event::Committed(Committed { batch, flushed, retire, full }));
        retired(self.journal.retire());
        if let Some(maker) = self.journal.wants_spare() {
            let Some(spares) = self.spares.clone() else { return self.take(Work::Spare(maker.make())) };
            let make = move || {
                // The journal's thread outlives this one but for the end of the process.
                let _ = spares.send(Work::Spare(maker.make()));
            };
            if let Err(error) = std::thread::Builder::new().name("spare".into()).spawn(make) {
                tracing::warn!(%error, "cannot make a journal file ready ahead of time; the next change of files takes longer");
                self.journal.spare_failed();
            }
        }
    }
}

/// On a full disk the oldest file stays, and is tried again with the next commit.
fn retired(result: Result<(), StoreError>) {
    match result {
        Ok(()) | Err(StoreError::Full { .. }) => {}
        Err(error) => fatal(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use broker_core::message::Message;
    use broker_core::store::disk::{Crash, SimDisk};
    use broker_core::store::{StoreOptions, recover};

    use super::super::mailbox::mailbox;
    use super::*;

    const QUEUE: QueueId = QueueId(1);
    const MESSAGES: Seq = 40;

    #[test]
    fn settles_are_synced_in_time_though_others_keep_coming() {
        let disk = SimDisk::new(1);
        // Small, for a simulated disk copies a file to sync it.
        let options = StoreOptions { journal_file_bytes: 64 * 1024, ..StoreOptions::new("/d", 7) };
        let open = |disk: &SimDisk| recover(Arc::new(disk.clone()), &options, &|_| Some(Default::default())).unwrap();
        let (mut journal, _, _) = open(&disk);
        let mut batch = journal.batch();
        let message = Message::new(b"\x00\x01q", &[0; 14], b"m", true, &mut Vec::new()).unwrap();
        (1..=MESSAGES).for_each(|seq| batch.enqueue(QUEUE, seq, false, 0, &message));
        let poll = mio::Poll::new().unwrap();
        let (mailbox, inbox) = mailbox(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let handle = start(journal, mailbox).unwrap();
        // A consumer that acknowledges one message after the other, while nobody publishes.
        for seq in 1..=MESSAGES {
            handle.send(Work::Commit { batch, flushed: Vec::new() });
            batch = loop {
                std::thread::sleep(SETTLES_WAIT / 5);
                if let Some(Event::Committed(committed)) = inbox.take() {
                    break committed.batch;
                }
            };
            batch.settle(QUEUE, seq, seq);
        }
        let (_, _, recovered) = open(&disk.crash(Crash::LoseAll));
        let left = recovered.queues.first().map_or(0, |queue| queue.messages);
        assert!(left <= MESSAGES / 2, "{left} of {MESSAGES} messages came back, though most were settled long ago");
        handle.send(Work::Stop(batch));
        handle.join();
    }
    #[test]
    fn files_of_which_all_queues_are_deleted_are_used_again() {
        const FILE_BYTES: u64 = 64 * 1024;
        let disk = SimDisk::new(1);
        let budget = StoreOptions { journal_budget_bytes: 2 * FILE_BYTES, ..StoreOptions::new("/d", 7) };
        let options = StoreOptions { journal_file_bytes: FILE_BYTES, ..budget };
        let (mut journal, _, _) = recover(Arc::new(disk), &options, &|_| Some(Default::default())).unwrap();
        let mut batch = journal.batch();
        let message = Message::new(b"\x00\x01q", &[0; 14], &[7; 500], true, &mut Vec::new()).unwrap();
        let poll = mio::Poll::new().unwrap();
        let (mailbox, inbox) = mailbox(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (handle, mut worker) = in_steps(journal, mailbox);
        let mut commit = |worker: &mut Worker, queue, seqs: std::ops::RangeInclusive<Seq>| {
            seqs.for_each(|seq| batch.enqueue(queue, seq, false, 0, &message));
            let filled = std::mem::replace(&mut batch, worker.journal.batch());
            handle.send(Work::Commit { batch: filled, flushed: Vec::new() });
            worker.step(Instant::now());
            if let Some(Event::Committed(committed)) = inbox.take() {
                batch = committed.batch;
            }
        };
        // Nobody answers for the queue before it is deleted, nor for others afterwards.
        (0..100).for_each(|count| commit(&mut worker, QUEUE, 20 * count + 1..=20 * count + 20));
        assert!(worker.journal.disk_bytes() > 15 * FILE_BYTES);
        handle.send(Work::Forget([QUEUE].into()));
        (1..=30).for_each(|seq| commit(&mut worker, QueueId(2), seq..=seq));
        assert!(worker.journal.disk_bytes() <= 8 * FILE_BYTES, "{} octets", worker.journal.disk_bytes());
    }
}
