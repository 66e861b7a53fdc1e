//! The ready messages of a queue with priorities: a list for each lane.

use super::entry::Entry;
use super::ready::{Loaded, Ready};
use super::{Lanes, RESIDENT_MAX_BYTES, Recovered, RecoveredLane, StoredEntry, Stretch};
use crate::store::{RunId, Seq};
use std::sync::Arc;

/// No lane is made to hold less memory than this because there are many.
const LANE_LEAST_BYTES: usize = 64 * 1024;

/// See the module's page.
#[derive(Debug)]
pub(super) struct ReadyLanes {
    /// Lane 0, the only one of most queues.
    lowest: Ready,
    /// Lanes from 1 up.
    higher: Box<[Ready]>,
    resident_max: usize,
}

impl ReadyLanes {
    pub fn recovered(lanes: Lanes, recovered: Recovered) -> Self {
        let Recovered { lanes: mut found, body_bytes, redelivered, .. } = recovered;
        let messages: u64 = found.iter().map(|lane| lane.messages).sum();
        let mut ready = |number: u8| {
            let place = found.iter().position(|lane| lane.lane == number);
            let lane = place.map(|place| found.swap_remove(place)).unwrap_or_default();
            let RecoveredLane { messages: here, stretches, .. } = lane;
            let share = u128::from(body_bytes) * u128::from(here) / u128::from(messages.max(1));
            Ready::recovered(here, stretches, share as u64, redelivered.clone())
        };
        let lowest = ready(0);
        let higher = (1..=lanes.highest).map(&mut ready).collect();
        let mut ready = ReadyLanes { lowest, higher, resident_max: 0 };
        ready.set_resident_max(RESIDENT_MAX_BYTES);
        ready
    }

    /// Messages, wherever they lie.
    pub fn len(&self) -> u64 {
        self.lowest.len() + self.higher.iter().map(Ready::len).sum::<u64>()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lowest.is_empty() && self.higher.iter().all(Ready::is_empty)
    }

    /// Octets of the bodies of all messages; an estimate where some were found at start.
    pub fn body_bytes(&self) -> u64 {
        self.all().map(Ready::body_bytes).sum()
    }

    /// Octets of messages in memory.
    pub fn resident_bytes(&self) -> usize {
        self.all().map(Ready::resident_bytes).sum()
    }

    pub fn resident_max(&self) -> usize {
        self.resident_max
    }

    pub fn set_resident_max(&mut self, bytes: usize) {
        self.resident_max = bytes;
        let each = if self.higher.is_empty() { bytes } else { (bytes / (1 + self.higher.len())).max(LANE_LEAST_BYTES) };
        self.all_mut().for_each(|lane| lane.set_resident_max(each));
    }

    /// Adds the newest message.
    pub fn push(&mut self, entry: Entry) {
        self.lane(entry.lane).push(entry);
    }

    /// Puts a message back to its place.
    pub fn insert(&mut self, entry: Entry) {
        self.lane(entry.lane).insert(entry);
    }

    /// Puts a message back to its place that is in memory no more but lies in this run.
    pub fn insert_on_disk(&mut self, lane: u8, run: RunId, seq: Seq, redelivered: bool, body_bytes: u64) {
        self.lane(lane).insert_on_disk(run, seq, redelivered, body_bytes);
    }

    /// The message that is next, if it is in memory.
    pub fn front(&mut self) -> Option<&Entry> {
        self.first_lane()?.front()
    }

    /// Takes the message that is next, if it is in memory.
    pub fn pop(&mut self) -> Option<Entry> {
        self.first_lane()?.pop()
    }

    /// The lists one by one, the lowest lane first.
    pub fn all_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Ready> {
        std::iter::once(&mut self.lowest).chain(&mut self.higher)
    }

    /// Where to read on for the message that is next, if its lane runs low and nothing is being read for it.
    pub fn wants_load(&mut self) -> Option<(RunId, Seq)> {
        self.first_lane()?.wants_load()
    }

    /// Takes what was read from a run. Returns the ranges that are lost.
    pub fn loaded(&mut self, loaded: Loaded) -> Vec<(Seq, Seq)> {
        let (run, from) = (loaded.run, loaded.from);
        match self.all_mut().find(|lane| lane.is_loading(run, from)) {
            Some(lane) => lane.loaded(loaded),
            None => Vec::new(),
        }
    }

    /// Gives messages that are to be paged out now, if there are any, all of one lane.
    pub fn page_out(&mut self, ticket: u64, next_tag: u64) -> Option<Arc<[StoredEntry]>> {
        self.all_mut().find_map(|lane| lane.page_out(ticket, next_tag))
    }

    /// A page-out is on disk; see [`Ready::paged`].
    pub fn paged(&mut self, ticket: u64, stretches: &[Stretch]) -> Option<u64> {
        self.all_mut().find_map(|lane| lane.paged(ticket, stretches))
    }

    /// Forgets all; returns what was in memory, and the ranges that are on disk.
    pub fn take_all(&mut self) -> (Vec<Entry>, Vec<(Seq, Seq)>) {
        let (mut resident, mut on_disk) = self.lowest.take_all();
        for lane in &mut self.higher {
            let (mut entries, mut ranges) = lane.take_all();
            resident.append(&mut entries);
            on_disk.append(&mut ranges);
        }
        (resident, on_disk)
    }

    /// The places of messages that may have been delivered before, in ranges; of those in memory only stored ones.
    pub fn each_redelivered(&self, mut visit: impl FnMut(Seq, Seq)) {
        self.all().for_each(|lane| lane.each_redelivered(&mut visit));
    }

    /// Messages in memory that are not on their way to the store.
    pub fn each_resident_mut(&mut self, mut visit: impl FnMut(&mut Entry)) {
        self.all_mut().for_each(|lane| lane.each_resident_mut(&mut visit));
    }

    fn all(&self) -> impl Iterator<Item = &Ready> {
        std::iter::once(&self.lowest).chain(&self.higher)
    }

    /// The highest lane that has anything.
    #[inline]
    fn first_lane(&mut self) -> Option<&mut Ready> {
        match self.higher.iter_mut().rev().find(|lane| !lane.is_empty()) {
            Some(lane) => Some(lane),
            None => Some(&mut self.lowest),
        }
    }

    /// The list of a lane.
    #[inline]
    pub fn lane(&mut self, lane: u8) -> &mut Ready {
        let higher = usize::from(lane).checked_sub(1).and_then(|at| self.higher.get_mut(at));
        higher.unwrap_or(&mut self.lowest)
    }
}
