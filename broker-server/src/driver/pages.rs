//! The segments' thread: page-outs, loads, and forgetting. Apart from the journal's thread, so that none of them delays a commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use broker_core::queue::{StoredEntry, Stretch};
use broker_core::store::{Page, QueueId, RunId, Segments, Seq, StoreError};

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
    /// The queue is deleted.
    Drop(QueueId),
    /// The node stops.
    Stop,
}

/// The shard's handle.
pub struct PagesHandle {
    work: Sender<Work>,
    /// What is to be forgotten and was not handed over yet: many settles become few pieces of work.
    forgotten: Vec<(QueueId, Seq, Seq)>,
    thread: std::thread::JoinHandle<()>,
}

/// Settles of paged messages are handed over when there are so many ranges of them at the latest.
const FORGOTTEN_MAX: usize = 256;

/// Starts the thread.
pub fn start(segments: Segments, mailbox: Mailbox) -> std::io::Result<PagesHandle> {
    let (work, receiver) = channel();
    let thread =
        std::thread::Builder::new().name("segments".into()).spawn(move || run(segments, &receiver, &mailbox))?;
    Ok(PagesHandle { work, forgotten: Vec::new(), thread })
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
        if self.thread.join().is_err() {
            tracing::error!("the segments' thread has panicked");
        }
    }
}

/// Under steady work files are tidied up after so many pieces of it.
const TIDY_EVERY: u32 = 1024;
/// After this long without work, files that are no longer needed are removed or put together.
const IDLE: Duration = Duration::from_millis(200);

fn run(mut segments: Segments, work: &Receiver<Work>, mailbox: &Mailbox) {
    let mut ahead = VecDeque::new();
    let mut tidy = true;
    let mut since_tidied = 0;
    loop {
        let next = match ahead.pop_front() {
            Some(next) => Ok(next),
            None if tidy => work.recv(),
            None => match work.recv_timeout(IDLE) {
                Ok(next) => Ok(next),
                Err(RecvTimeoutError::Timeout) => {
                    tidy = !segments.maintain().or_else(none_if_full).unwrap_or_else(|error| fatal(&error.to_string()));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            },
        };
        let Ok(next) = next else { return };
        tidy = false;
        since_tidied += 1;
        if since_tidied >= TIDY_EVERY {
            since_tidied = 0;
            segments.maintain().or_else(none_if_full).unwrap_or_else(|error| fatal(&error.to_string()));
        }
        match next {
            Work::Write { queue, ticket, entries } => {
                let mut pages = vec![(Page { queue, entries }, ticket)];
                gather(work, &mut ahead, &mut pages);
                write(&mut segments, pages, mailbox);
            }
            Work::Read { queue, run, from, max_bytes } => match segments.read(run, from, max_bytes) {
                Ok(loaded) => {
                    let lost = loaded.lost.iter().collect();
                    mailbox.send(Event::Loaded { queue, run, from, entries: loaded.entries, next: loaded.next, lost });
                }
                // The queue stands still at this message; everything else goes on.
                Err(error) => tracing::error!(
                    queue = queue.0,
                    "cannot read messages back: {error}; the queue is stopped until the node is restarted"
                ),
            },
            Work::Forget(ranges) => {
                for (queue, first, last) in ranges {
                    segments.settle(queue, first, last).unwrap_or_else(|error| fatal(&error.to_string()));
                }
            }
            Work::Answer(queue, through) => {
                let state = retry_while_full(|| segments.state_of(queue));
                mailbox.send(Event::PagedThrough(queue, through, state));
            }
            Work::Drop(queue) => segments.drop_queue(queue).unwrap_or_else(|error| fatal(&error.to_string())),
            Work::Stop => return,
        }
        segments.reports().iter().for_each(|line| tracing::error!("{line}"));
    }
}

/// On a full disk tidying up waits.
fn none_if_full(error: StoreError) -> Result<bool, StoreError> {
    if matches!(error, StoreError::Full { .. }) { Ok(false) } else { Err(error) }
}

/// Takes further page-outs of other queues that wait already, so that many small queues share one file and one sync. Whatever else comes is kept
/// for later, in order.
fn gather(work: &Receiver<Work>, ahead: &mut VecDeque<Work>, pages: &mut Vec<(Page, u64)>) {
    let size = |page: &Page| page.entries.iter().map(|entry| entry.message.stored_len()).sum::<usize>();
    let mut bytes: usize = pages.iter().map(|(page, _)| size(page)).sum();
    while bytes < WRITE_TOGETHER_BYTES {
        match ahead.pop_front().or_else(|| work.try_recv().ok()) {
            Some(Work::Write { queue, ticket, entries }) if pages.iter().all(|(page, _)| page.queue != queue) => {
                let page = Page { queue, entries };
                bytes += size(&page);
                pages.push((page, ticket));
            }
            Some(other) => {
                ahead.push_front(other);
                return;
            }
            None => return,
        }
    }
}

fn write(segments: &mut Segments, pages: Vec<(Page, u64)>, mailbox: &Mailbox) {
    let (pages, tickets): (Vec<Page>, Vec<u64>) = pages.into_iter().unzip();
    // Persistent messages are synced in any case; others need not be.
    let runs = retry_while_full(|| segments.write(&pages, false));
    // Let go first: the messages are best freed by the thread that made them, when it hears of this.
    drop(pages);
    for (run, ticket) in runs.into_iter().zip(tickets) {
        let stretches = vec![Stretch { run: run.id, first: run.first, last: run.last }];
        mailbox.send(Event::Paged { queue: run.queue, ticket, stretches });
    }
}

/// On a full disk messages stay in memory and publishers are held back until there is room: the disk alarm tells the operator.
fn retry_while_full<T>(mut attempt: impl FnMut() -> Result<T, StoreError>) -> T {
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(StoreError::Full { .. }) => std::thread::sleep(FULL_PAUSE),
            Err(error) => fatal(&error.to_string()),
        }
    }
}
