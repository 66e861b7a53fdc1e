//! The segments' thread: page-outs, loads, and forgetting. Apart from the journal's thread, so that none of them delays a commit. In a simulation of
//! whole nodes there is no thread: what is handed over is carried out in steps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use broker_core::queue::{StoredEntry, Stretch};
use broker_core::store::{Loaded, Page, QueueId, RunId, Segments, Seq, StoreError};

use super::events::Event;
use super::fatal;
use super::mailbox::Mailbox;

/// Page-outs that wait are written together up to this many octets.
const WRITE_TOGETHER_BYTES: usize = 16 * 1024 * 1024;

/// After a full disk, the next try.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// What the shard tells the segments. Page-outs on their way are bounded by the shard (it stops reading publishers), loads by one a queue.
pub enum Work {
    /// Write these messages as a run.
    Write {
        /// The queue.
        queue: QueueId,
        /// The queue's number for this page-out.
        ticket: u64,
        /// The messages, in order.
        entries: Arc<[StoredEntry]>,
    },
    /// Read from a run.
    Read {
        /// The queue.
        queue: QueueId,
        /// The run.
        run: RunId,
        /// From this place.
        from: Seq,
        /// About so many octets.
        max_bytes: usize,
    },
    /// Messages of these queues, from a place to a place, are settled.
    Forget(Vec<(QueueId, Seq, Seq)>),
    /// A queue has nothing left to page out up to a place: tell the journal, with what is settled of its runs. Behind everything handed over
    /// before, so that no settle is missing.
    Answer(QueueId, Seq),
    /// These queues are deleted.
    Drop(Arc<[QueueId]>),
    /// The node stops.
    Stop,
}

/// The shard's handle.
pub struct PagesHandle {
    work: Sender<Work>,
    /// What is to be forgotten and was not handed over yet: many settles become few pieces of work.
    forgotten: Vec<(QueueId, Seq, Seq)>,
    /// None if it is carried out in steps.
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Settles of paged messages are handed over when there are so many ranges of them at the latest.
const FORGOTTEN_MAX: usize = 256;

/// Starts the thread.
pub fn start(segments: Segments, mailbox: Mailbox) -> std::io::Result<PagesHandle> {
    let (mut handle, mut worker) = in_steps(segments, mailbox, Instant::now());
    handle.thread = Some(std::thread::Builder::new().name("segments".into()).spawn(move || worker.run())?);
    Ok(handle)
}

/// Without a thread: what is handed over waits for [`Worker::step`].
pub fn in_steps(segments: Segments, mailbox: Mailbox, now: Instant) -> (PagesHandle, Worker) {
    let (work, receiver) = channel();
    let worker = Worker {
        segments,
        work: receiver,
        mailbox,
        ahead: VecDeque::new(),
        stalled: VecDeque::new(),
        now,
        again_at: now,
        tidy: true,
        since_tidied: 0,
    };
    (PagesHandle { work, forgotten: Vec::new(), thread: None }, worker)
}

impl PagesHandle {
    /// Messages of a queue are settled. Handed over with the next piece of work, or by [`PagesHandle::flush`].
    pub fn forget(&mut self, queue: QueueId, first: Seq, last: Seq) {
        match self.forgotten.last_mut() {
            Some((other, _, end)) if *other == queue && *end + 1 == first => *end = last,
            _ => self.forgotten.push((queue, first, last)),
        }
        if self.forgotten.len() >= FORGOTTEN_MAX {
            self.flush();
        }
    }

    /// Whether there is something to flush.
    pub fn wants_flush(&self) -> bool {
        !self.forgotten.is_empty()
    }

    /// Hands over what is to be forgotten.
    pub fn flush(&mut self) {
        if !self.forgotten.is_empty() {
            let ranges = std::mem::take(&mut self.forgotten);
            self.hand_over(Work::Forget(ranges));
        }
    }

    /// Hands work over, behind everything that is to be forgotten. If the thread has ended the process is about to: it ends only after a fatal error.
    pub fn send(&mut self, work: Work) {
        self.flush();
        self.hand_over(work);
    }

    fn hand_over(&self, work: Work) {
        if self.work.send(work).is_err() {
            tracing::error!("the segments' thread has ended");
        }
    }

    /// Waits until everything handed over is done.
    pub fn join(mut self) {
        self.send(Work::Stop);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the segments' thread has panicked");
        }
    }
}

/// Under steady work files are tidied up after so many pieces of it.
const TIDY_EVERY: u32 = 1024;
/// After this long without work, files that are no longer needed are removed or put together.
const IDLE: Duration = Duration::from_millis(200);

/// Carries out what is handed over: a thread, or whoever steps it.
pub struct Worker {
    segments: Segments,
    work: Receiver<Work>,
    mailbox: Mailbox,
    /// Received and not looked at yet.
    ahead: VecDeque<Work>,
    /// What the disk has no room for, and all that may not come before it.
    stalled: VecDeque<Stalled>,
    /// When it last began something.
    now: Instant,
    /// When what is stalled is tried again.
    again_at: Instant,
    /// There is nothing to tidy up.
    tidy: bool,
    since_tidied: u32,
}

/// Work that waits for room on the disk.
enum Stalled {
    /// A page-out, and what of it is settled meanwhile: a place to a place.
    Write { page: Page, ticket: u64, settled: Vec<(Seq, Seq)> },
    /// An answer for the journal.
    Answer(QueueId, Seq),
}

impl Worker {
    fn run(&mut self) {
        while let Some(next) = self.next() {
            self.now = Instant::now();
            self.take(next);
        }
    }

    /// Carries out all that was handed over, and tidies up behind it.
    pub fn step(&mut self, now: Instant) {
        self.now = now;
        self.try_again();
        while let Some(next) = self.ahead.pop_front().or_else(|| self.work.try_recv().ok()) {
            self.take(next);
        }
        if !self.tidy {
            self.tidy_up();
        }
    }

    /// The next piece of work; meanwhile what is tidied up and tried again. `None` at the end.
    fn next(&mut self) -> Option<Work> {
        loop {
            self.now = Instant::now();
            self.try_again();
            if let Some(next) = self.ahead.pop_front() {
                return Some(next).filter(|next| !matches!(next, Work::Stop));
            }
            let wait = match (self.stalled.is_empty(), self.tidy) {
                (false, _) => self.again_at.saturating_duration_since(self.now),
                (true, false) => IDLE,
                (true, true) => return self.work.recv().ok().filter(|next| !matches!(next, Work::Stop)),
            };
            match self.work.recv_timeout(wait) {
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(next) => return Some(next),
                Err(RecvTimeoutError::Timeout) if self.stalled.is_empty() => self.tidy_up(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn take(&mut self, next: Work) {
        self.tidy = false;
        self.since_tidied += 1;
        if self.since_tidied >= TIDY_EVERY {
            self.tidy_up();
        }
        match next {
            Work::Write { queue, ticket, entries } => {
                let mut pages = vec![(Page { queue, entries }, ticket)];
                if self.stalled.is_empty() {
                    self.gather(&mut pages);
                    pages = self.attempt(pages).err().unwrap_or_default();
                }
                self.stall(pages);
            }
            Work::Read { queue, run, from, max_bytes } => match self.segments.read(run, from, max_bytes) {
                Ok(loaded) => {
                    let lost = loaded.lost.iter().collect();
                    let Loaded { entries, next, .. } = loaded;
                    self.mailbox.send(Event::Loaded { queue, run, from, entries, next, lost });
                }
                // The queue stands still at this message; everything else goes on.
                Err(error) => tracing::error!(
                    queue = queue.0,
                    "cannot read messages back: {error}; the queue is stopped until the node is restarted"
                ),
            },
            Work::Forget(ranges) => ranges.into_iter().for_each(|(queue, first, last)| self.forget(queue, first, last)),
            Work::Answer(queue, through) => {
                if !self.stalled.is_empty() || !self.answer(queue, through) {
                    self.put_off(Stalled::Answer(queue, through));
                }
            }
            Work::Drop(queues) => queues.iter().for_each(|&queue| self.drop_queue(queue)),
            Work::Stop => {}
        }
        self.segments.reports().iter().for_each(|line| tracing::error!("{line}"));
    }

    /// On a full disk what needs room waits.
    fn tidy_up(&mut self) {
        self.since_tidied = 0;
        let more = self.segments.maintain().or_else(none_if_full).unwrap_or_else(|error| fatal(&error.to_string()));
        self.tidy = !more;
    }

    /// Takes further page-outs of other queues that wait already, so that many small queues share one file and one sync. Whatever else comes is kept
    /// for later, in order.
    fn gather(&mut self, pages: &mut Vec<(Page, u64)>) {
        let size = |page: &Page| page.entries.iter().map(|entry| entry.message.stored_len()).sum::<usize>();
        let mut bytes: usize = pages.iter().map(|(page, _)| size(page)).sum();
        while bytes < WRITE_TOGETHER_BYTES {
            match self.ahead.pop_front().or_else(|| self.work.try_recv().ok()) {
                Some(Work::Write { queue, ticket, entries }) if pages.iter().all(|(page, _)| page.queue != queue) => {
                    let page = Page { queue, entries };
                    bytes += size(&page);
                    pages.push((page, ticket));
                }
                Some(other) => {
                    self.ahead.push_front(other);
                    return;
                }
                None => return,
            }
        }
    }

    /// Writes page-outs together; gives them back if the disk has no room.
    fn attempt(&mut self, pages: Vec<(Page, u64)>) -> Result<(), Vec<(Page, u64)>> {
        let (pages, tickets): (Vec<Page>, Vec<u64>) = pages.into_iter().unzip();
        // Persistent messages are synced in any case; others need not be.
        let runs = match self.segments.write(&pages, false) {
            Ok(runs) => runs,
            Err(StoreError::Full { .. }) => return Err(pages.into_iter().zip(tickets).collect()),
            Err(error) => fatal(&error.to_string()),
        };
        // Let go first: the messages are best freed by the thread that made them, when it hears of this.
        drop(pages);
        for (run, ticket) in runs.into_iter().zip(tickets) {
            let stretches = vec![Stretch { run: run.id, first: run.first, last: run.last }];
            self.mailbox.send(Event::Paged { queue: run.queue, ticket, stretches });
        }
        Ok(())
    }

    /// Whether the journal is answered; not if that takes room that is not there.
    fn answer(&mut self, queue: QueueId, through: Seq) -> bool {
        match self.segments.state_of(queue) {
            Ok(state) => {
                self.mailbox.send(Event::PagedThrough(queue, through, state));
                true
            }
            Err(StoreError::Full { .. }) => false,
            Err(error) => fatal(&error.to_string()),
        }
    }

    /// On a full disk messages stay in memory, and publishers are held back until there is room: the disk alarm tells the operator. What is on the disk
    /// is read and forgotten all the same, for that is what makes room.
    fn stall(&mut self, pages: Vec<(Page, u64)>) {
        for (page, ticket) in pages {
            self.put_off(Stalled::Write { page, ticket, settled: Vec::new() });
        }
    }

    fn put_off(&mut self, stalled: Stalled) {
        if self.stalled.is_empty() {
            self.again_at = self.now + FULL_PAUSE;
            tracing::error!("the disk is full: messages that were to leave memory stay there until there is room");
        }
        self.stalled.push_back(stalled);
    }

    /// What the disk had no room for, if it is time.
    fn try_again(&mut self) {
        if self.stalled.is_empty() || self.now < self.again_at {
            return;
        }
        self.tidy_up();
        self.again_at = self.now + FULL_PAUSE;
        while let Some(stalled) = self.stalled.pop_front() {
            match stalled {
                Stalled::Write { page, ticket, settled } => {
                    let queue = page.queue;
                    if let Err(pages) = self.attempt(vec![(page, ticket)]) {
                        for (page, ticket) in pages {
                            self.stalled.push_front(Stalled::Write { page, ticket, settled: settled.clone() });
                        }
                        return;
                    }
                    settled.into_iter().for_each(|(first, last)| self.settle(queue, first, last));
                }
                Stalled::Answer(queue, through) => {
                    if !self.answer(queue, through) {
                        return self.stalled.push_front(Stalled::Answer(queue, through));
                    }
                }
            }
        }
    }

    fn settle(&mut self, queue: QueueId, first: Seq, last: Seq) {
        self.segments.settle(queue, first, last).unwrap_or_else(|error| fatal(&error.to_string()));
    }

    fn forget(&mut self, queue: QueueId, first: Seq, last: Seq) {
        self.settle(queue, first, last);
        // What is not written yet is settled when it is.
        for stalled in &mut self.stalled {
            if let Stalled::Write { page, settled, .. } = stalled
                && page.queue == queue
                && page.entries.first().is_some_and(|entry| entry.seq <= last)
                && page.entries.last().is_some_and(|entry| entry.seq >= first)
            {
                settled.push((first, last));
            }
        }
    }

    fn drop_queue(&mut self, queue: QueueId) {
        self.segments.drop_queue(queue).unwrap_or_else(|error| fatal(&error.to_string()));
        let mailbox = &self.mailbox;
        self.stalled.retain(|stalled| match stalled {
            Stalled::Write { page, ticket, .. } if page.queue == queue => {
                // It is not on its way any more.
                mailbox.send(Event::Paged { queue, ticket: *ticket, stretches: Vec::new() });
                false
            }
            _ => true,
        });
    }
}

/// On a full disk tidying up waits.
fn none_if_full(error: StoreError) -> Result<bool, StoreError> {
    if matches!(error, StoreError::Full { .. }) { Ok(false) } else { Err(error) }
}
