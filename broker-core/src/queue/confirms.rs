//! What the journal has yet to be told, and the publishers that wait for it.

use std::collections::VecDeque;

use super::seldom::AtFirst;
use super::{ChannelKey, JournalSink, Output};
use crate::message::Message;
use crate::store::Seq;

#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Messages not handed to the journal yet, by place; `None` once settled: what is consumed before it must be on disk never goes there.
    unflushed: VecDeque<Unflushed>,
    /// Ranges settled since the last flush, of messages the journal has been given.
    settles: Vec<(Seq, Seq)>,
    /// Publishers that wait, in order of the places of their messages.
    waiting: VecDeque<Waiting>,
}

/// A message the journal has yet to be given.
#[derive(Debug)]
struct Unflushed {
    seq: Seq,
    expires_ms: u64,
    message: Option<Message>,
}

/// Publishes of one channel with consecutive publish numbers; the last of them has the place `last_seq`.
#[derive(Debug)]
struct Waiting {
    last_seq: Seq,
    channel: ChannelKey,
    first: u64,
    last: u64,
    /// Places of later publishes may join only while none of them has been flushed.
    flushed: bool,
}

impl AtFirst for Confirms {
    fn at_first() -> &'static Self {
        static NONE: Confirms = Confirms { unflushed: VecDeque::new(), settles: Vec::new(), waiting: VecDeque::new() };
        &NONE
    }
}

impl Confirms {
    pub(super) fn store(&mut self, seq: Seq, expires_ms: u64, message: &Message) {
        self.unflushed.push_back(Unflushed { seq, expires_ms, message: Some(message.clone()) });
    }

    pub(super) fn wait(&mut self, seq: Seq, channel: ChannelKey, publish_seq: u64) {
        if let Some(waiting) = self.waiting.back_mut()
            && !waiting.flushed
            && waiting.channel == channel
            && waiting.last + 1 == publish_seq
        {
            waiting.last = publish_seq;
            waiting.last_seq = seq;
            return;
        }
        self.waiting.push_back(Waiting {
            last_seq: seq,
            channel,
            first: publish_seq,
            last: publish_seq,
            flushed: false,
        });
    }

    pub(super) fn settled(&mut self, seq: Seq) {
        if let Some(at) = self.unflushed_at(seq)
            && let Some(unflushed) = self.unflushed.get_mut(at)
        {
            unflushed.message = None;
            return;
        }
        self.settled_range(seq, seq);
    }

    fn unflushed_at(&self, seq: Seq) -> Option<usize> {
        let first = self.unflushed.front()?.seq;
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        // Most queues hold only messages that are to be stored: then their places follow each other.
        match self.unflushed.get(guess) {
            Some(there) if there.seq == seq => Some(guess),
            _ => self.unflushed.binary_search_by_key(&seq, |unflushed| unflushed.seq).ok(),
        }
    }

    pub(super) fn settled_range(&mut self, first: Seq, last: Seq) {
        if let Some(range) = self.settles.last_mut()
            && range.1 + 1 == first
        {
            range.1 = last;
            return;
        }
        self.settles.push((first, last));
    }

    pub(super) fn needs_flush(&self) -> bool {
        // A publisher may wait for a flush although there is nothing to write any more.
        let waits = self.waiting.back().is_some_and(|waiting| !waiting.flushed);
        !self.unflushed.is_empty() || !self.settles.is_empty() || waits
    }

    /// Returns the place up to which everything was handed over, if that is not all.
    pub(super) fn flush(&mut self, sink: &mut impl JournalSink) -> Option<Seq> {
        let mut through = None;
        while !sink.is_full()
            && let Some(Unflushed { seq, expires_ms, message }) = self.unflushed.pop_front()
        {
            through = Some(seq);
            if let Some(message) = message {
                sink.enqueue(seq, expires_ms, &message);
            }
        }
        for (first, last) in self.settles.drain(..) {
            sink.settle(first, last);
        }
        let through = if self.unflushed.is_empty() { None } else { Some(through.unwrap_or(0)) };
        // Those that have been marked before are all in front of those that have not.
        let behind = |waiting: &&mut Waiting| through.is_some_and(|through| waiting.last_seq > through);
        for waiting in self.waiting.iter_mut().rev().skip_while(behind) {
            if std::mem::replace(&mut waiting.flushed, true) {
                break;
            }
        }
        release_if_large(&mut self.unflushed);
        through
    }

    pub(super) fn stored(&mut self, seq: Seq, out: &mut Vec<Output>) {
        while let Some(waiting) = self.waiting.front()
            && waiting.flushed
            && waiting.last_seq <= seq
        {
            out.push(Output::Confirm { channel: waiting.channel, first: waiting.first, last: waiting.last });
            self.waiting.pop_front();
        }
        release_if_large(&mut self.waiting);
    }

    /// Confirms all that wait.
    pub(super) fn release(&mut self, out: &mut Vec<Output>) {
        out.extend(self.waiting.drain(..).map(|Waiting { channel, first, last, .. }| Output::Confirm {
            channel,
            first,
            last,
        }));
    }
}

/// Publishes that need no storing or are refused, answered together as far as their numbers follow each other.
#[derive(Default)]
pub(super) struct AtOnce(Option<Answered>);

struct Answered {
    taken: bool,
    channel: ChannelKey,
    first: u64,
    last: u64,
}

impl AtOnce {
    /// A publish is taken, or refused.
    pub(super) fn answer(&mut self, taken: bool, channel: ChannelKey, publish_seq: u64, out: &mut Vec<Output>) {
        if let Some(answered) = &mut self.0
            && (answered.taken, answered.channel, answered.last + 1) == (taken, channel, publish_seq)
        {
            answered.last = publish_seq;
            return;
        }
        self.finish(out);
        self.0 = Some(Answered { taken, channel, first: publish_seq, last: publish_seq });
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Output>) {
        match self.0.take() {
            Some(Answered { taken: true, channel, first, last }) => out.push(Output::Confirm { channel, first, last }),
            Some(Answered { channel, first, last, .. }) => out.push(Output::Refuse { channel, first, last }),
            None => {}
        }
    }
}

/// An idle queue holds no buffers.
pub(super) fn release_if_large<T>(buffer: &mut VecDeque<T>) {
    if buffer.is_empty() && buffer.capacity() > 4096 {
        *buffer = VecDeque::new();
    }
}
