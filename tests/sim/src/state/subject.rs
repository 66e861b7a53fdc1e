//! A queue under test with a journal and a store that answer it at once or later.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::dead_letter::Reason;
use broker_core::message::Message;
use broker_core::properties;
use broker_core::queue::{
    ChannelKey, ConsumerKey, Delivery, Input, JournalSink, Outlet, Output, Publish, Queue, StoredEntry, Stretch,
};
use broker_core::store::{RunId, Seq};

use super::content::{number, returns};

/// Answers of store and clock to one operation at most.
const ANSWERS_MAX: usize = 100_000;
/// Messages the store hands back at once.
const LOADED_TOGETHER: usize = 3;

/// An empty queue, written down, may be so many letters longer than when it was new.
const GROWN_MAX: usize = 30;

/// See the module's page.
pub struct Subject {
    pub queue: Queue,
    told_when_new: usize,
    journal: Journal,
    runs: BTreeMap<u64, Vec<StoredEntry>>,
    next_run: u64,
}

/// A message that went to a client.
pub struct Delivered {
    /// None for a get.
    pub consumer: Option<u32>,
    pub number: u64,
    pub redelivered: bool,
    pub queue_tag: u64,
    pub returns: Option<i128>,
    /// Messages that are left, which a get is told.
    pub remaining: Option<u64>,
}

/// What the queue was seen to do.
#[derive(Default)]
pub struct Seen {
    pub delivered: Vec<Delivered>,
    pub letters: Vec<(u64, Reason, Message)>,
    pub confirmed: Vec<(ChannelKey, u64)>,
    pub refused: Vec<(ChannelKey, u64)>,
    pub empty: u64,
    pub purged: u64,
    pub last_gone: bool,
    pub unused: bool,
}

#[derive(Default)]
struct Journal {
    stored: BTreeSet<Seq>,
    twice: bool,
}

#[derive(Default)]
struct Collected {
    /// With the octets of each.
    delivered: Vec<(ConsumerKey, Delivered, usize)>,
    outputs: Vec<Output>,
}

impl Subject {
    pub fn new(queue: Queue) -> Subject {
        let told_when_new = told(&queue).len();
        Subject { queue, told_when_new, journal: Journal::default(), runs: BTreeMap::new(), next_run: 0 }
    }

    pub fn publish(&mut self, now_ms: u64, publish: Publish<'_>) -> Result<Seen, String> {
        let mut out = Collected::default();
        self.queue.publish(now_ms, std::iter::once(publish), &mut out);
        self.settle_down(now_ms, out)
    }

    pub fn step(&mut self, now_ms: u64, input: Input) -> Result<Seen, String> {
        let mut out = Collected::default();
        self.queue.step(now_ms, input, &mut out);
        self.settle_down(now_ms, out)
    }

    /// Stores what is to be stored.
    pub fn flush(&mut self, now_ms: u64) -> Result<Seen, String> {
        let place = self.queue.flush(&mut self.journal);
        if self.journal.twice {
            return Err("a message was stored twice".into());
        }
        self.step(now_ms, Input::Stored(place))
    }

    /// What an empty queue has left behind.
    pub fn leftovers(&self) -> Option<String> {
        let entries: usize = self.runs.values().map(Vec::len).sum();
        let (stored, bytes) = (self.journal.stored.len(), self.queue.resident_bytes());
        if entries + stored + bytes > 0 {
            return Some(format!("{stored} messages in the journal, {entries} in segments, {bytes} octets in memory"));
        }
        // Whatever it still holds by message, consumer or publisher shows when it is written down.
        let told = told(&self.queue);
        (told.len() > self.told_when_new + GROWN_MAX).then_some(told)
    }

    /// Answers for the store, for the clients' sockets and for the clock until nothing more comes.
    fn settle_down(&mut self, now_ms: u64, first: Collected) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let mut inputs = self.take(first, &mut seen);
        for _ in 0..ANSWERS_MAX {
            let input = match inputs.pop() {
                Some(input) => input,
                None if self.queue.next_timeout().is_some_and(|at_ms| at_ms <= now_ms) => Input::Time,
                None => return Ok(seen),
            };
            let mut out = Collected::default();
            self.queue.step(now_ms, input, &mut out);
            let more = self.take(out, &mut seen);
            inputs.splice(0..0, more);
        }
        Err("the queue never comes to rest".into())
    }

    /// Notes what came; the answers to it, the first one last.
    fn take(&mut self, out: Collected, seen: &mut Seen) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (key, delivered, bytes) in out.delivered {
            seen.delivered.push(delivered);
            inputs.push(Input::Room { key, bytes: bytes as i64 });
        }
        for output in out.outputs {
            match output {
                Output::GetOk { queue_tag, redelivered, remaining, message, .. } => {
                    let (number, returns) = (number(&message), returns(properties::headers(message.header())));
                    let (consumer, remaining) = (None, Some(remaining));
                    seen.delivered.push(Delivered { consumer, number, redelivered, queue_tag, returns, remaining });
                }
                Output::GetEmpty(_) => seen.empty += 1,
                Output::Confirm { channel, first, last } => {
                    seen.confirmed.extend((first..=last).map(|number| (channel, number)));
                }
                Output::Refuse { channel, first, last } => {
                    seen.refused.extend((first..=last).map(|number| (channel, number)));
                }
                Output::DeadLetter { queue_tag, reason, message } => seen.letters.push((queue_tag, reason, message)),
                Output::Unused => seen.unused = true,
                Output::Purged(count) => seen.purged += count,
                Output::Page { ticket, entries, .. } => {
                    self.next_run += 1;
                    let run = RunId(self.next_run);
                    let stretches = entries.first().zip(entries.last());
                    let stretches =
                        stretches.map(|(first, last)| Stretch { run, first: first.seq, last: last.seq }).into_iter();
                    inputs.push(Input::Paged { ticket, stretches: stretches.collect() });
                    self.runs.insert(run.0, entries.to_vec());
                }
                Output::Load { run, from, .. } => {
                    let all = self.runs.get(&run.0).into_iter().flatten();
                    let mut entries: Vec<StoredEntry> = all.filter(|entry| entry.seq >= from).cloned().collect();
                    let next = entries.get(LOADED_TOGETHER).map(|entry| entry.seq);
                    entries.truncate(LOADED_TOGETHER);
                    inputs.push(Input::Loaded { run, from, entries, next, lost: Vec::new() });
                }
                Output::Forget { first, last } => {
                    self.runs.values_mut().for_each(|run| run.retain(|entry| entry.seq < first || entry.seq > last));
                    self.runs.retain(|_, run| !run.is_empty());
                }
                Output::LastConsumerGone => seen.last_gone = true,
                Output::NeedsFlush | Output::NothingToPage(_) => {}
            }
        }
        inputs.reverse();
        inputs
    }
}

/// A queue, written down without its rules: what it holds, one letter for each number, and no places in which something could be.
fn told(queue: &Queue) -> String {
    let told = format!("{queue:?}");
    let rules = told.find("rules: ").zip(told.find("watches_publishes: "));
    let told = rules.map_or(told.clone(), |(from, to)| [&told[..from], &told[to..]].concat());
    let mut short = String::with_capacity(told.len());
    for letter in told.replace("None, ", "").chars() {
        if !(letter.is_ascii_digit() && short.ends_with(|last: char| last.is_ascii_digit())) {
            short.push(letter);
        }
    }
    // A chunk of deliveries without any, kept for the next ones.
    short.replace("Some(Chunk { used: 0, slots: [None] })", "None")
}

impl Outlet for Collected {
    fn deliver(&mut self, delivery: Delivery<'_>) {
        let Delivery { key, queue_tag, redelivered, content } = delivery;
        let (number, returns) = (number(&content.keep()), returns(properties::headers(content.header())));
        let delivered =
            Delivered { consumer: Some(key.consumer), number, redelivered, queue_tag, returns, remaining: None };
        self.delivered.push((key, delivered, content.memory()));
    }

    fn outputs(&mut self) -> &mut Vec<Output> {
        &mut self.outputs
    }
}

impl JournalSink for Journal {
    fn enqueue(&mut self, seq: Seq, _: u64, _: &Message) {
        self.twice |= !self.stored.insert(seq);
    }

    fn settle(&mut self, first: Seq, last: Seq) {
        self.stored.retain(|&seq| seq < first || seq > last);
    }

    fn delivered(&mut self, _: Seq, _: Seq) {}
}
