//! What leaves memory: pages of ready messages, what consumers hold for long, and what the journal wants to be rid of.

use super::entry::{Place, stored_entry};
use super::output::{Outlet, Output};
use super::seldom::AtFirst;
use super::{PAGE_BYTES, Queue, StoredEntry, Stretch};
use crate::store::Seq;

/// A page-out of messages that are not in the ready list.
#[derive(Debug)]
pub(super) struct PagingUnacked {
    ticket: u64,
    /// The queue tags it may concern begin here.
    first_tag: u64,
    bytes: usize,
}

impl AtFirst for Vec<PagingUnacked> {
    fn at_first() -> &'static Self {
        static NONE: Vec<PagingUnacked> = Vec::new();
        &NONE
    }
}

/// Messages that are to leave memory, a page for each of the lanes they are of.
struct Pages {
    next_ticket: u64,
    pages: Vec<PageOfLane>,
}

struct PageOfLane {
    lane: u8,
    entries: Vec<StoredEntry>,
    paging: PagingUnacked,
}

impl Pages {
    fn new(next_ticket: u64) -> Self {
        Pages { next_ticket, pages: Vec::new() }
    }

    fn of(&mut self, lane: u8) -> &mut PageOfLane {
        let at = self.pages.iter().position(|page| page.lane == lane).unwrap_or(self.pages.len());
        if at == self.pages.len() {
            let paging = PagingUnacked { ticket: self.next_ticket, first_tag: u64::MAX, bytes: 0 };
            self.next_ticket += 1;
            self.pages.push(PageOfLane { lane, entries: Vec::new(), paging });
        }
        &mut self.pages[at]
    }
}

impl PageOfLane {
    /// Takes a message that may be among the unacked from a queue tag on, and says where it is now.
    fn take(&mut self, tag: u64, bytes: usize, entry: StoredEntry) -> Place {
        self.entries.push(entry);
        self.paging.first_tag = self.paging.first_tag.min(tag);
        self.paging.bytes += bytes;
        Place::on_its_way(self.paging.ticket)
    }
}

impl Queue {
    pub(super) fn page_out(&mut self, out: &mut impl Outlet) {
        while let Some(entries) = self.ready.page_out(self.next_ticket, self.unacked.next_number()) {
            out.outputs().push(Output::Page { ticket: self.next_ticket, entries, through: None });
            self.next_ticket += 1;
        }
    }

    pub(super) fn page_through(&mut self, seq: Seq, out: &mut impl Outlet) {
        let mut pages = Pages::new(self.next_ticket);
        self.ready.each_resident_mut(|entry| {
            if entry.stored && !entry.place.is_paged() && entry.seq <= seq {
                entry.place = pages.of(entry.lane).take(0, 0, stored_entry(entry.clone()));
            }
        });
        for (_, held) in self.unacked.iter_mut() {
            if held.stored
                && !held.place.is_paged()
                && held.seq <= seq
                && let Some(entry) = held.stored_entry()
            {
                held.place = pages.of(held.lane).take(0, 0, entry);
            }
        }
        if pages.pages.is_empty() {
            out.outputs().push(Output::NothingToPage(seq));
            return;
        }
        self.hand_out(pages, Some(seq), out);
    }

    /// The pages are written in this order: when the last is on disk, all are.
    fn hand_out(&mut self, pages: Pages, through: Option<Seq>, out: &mut impl Outlet) {
        self.next_ticket += pages.pages.len() as u64;
        let last = pages.pages.len().saturating_sub(1);
        for (at, PageOfLane { mut entries, paging, .. }) in pages.pages.into_iter().enumerate() {
            entries.sort_unstable_by_key(|entry| entry.seq);
            let through = through.filter(|_| at == last);
            out.outputs().push(Output::Page { ticket: paging.ticket, entries: entries.into(), through });
            self.unacked_paging_bytes += paging.bytes;
            self.paging_unacked.push(paging);
        }
    }

    /// A consumer holds more than is to be in memory: the newest messages it holds leave it. (The oldest are the likeliest to be settled soon.)
    pub(super) fn page_unacked_out(&mut self, out: &mut impl Outlet) {
        let settling = self.unacked_bytes.saturating_sub(self.unacked_paging_bytes);
        let resident_max = self.ready.resident_max();
        if settling <= self.unacked_max {
            if settling <= resident_max / 2 {
                self.unacked_max = resident_max;
            }
            return;
        }
        let step = PAGE_BYTES.min(resident_max / 4).max(1);
        let too_many = settling - resident_max.saturating_sub(step);
        let (mut dropped, mut bytes) = (0, 0);
        let mut pages = Pages::new(self.next_ticket);
        for (tag, held) in self.unacked.iter_mut().rev() {
            if dropped + bytes >= too_many {
                break;
            }
            let Some(message) = &held.message else { continue };
            if held.place.run().is_some() {
                dropped += message.memory();
                held.message = None;
            } else if !held.place.is_paged()
                && let Some(entry) = held.stored_entry()
            {
                bytes += message.memory();
                held.place = pages.of(held.lane).take(tag, message.memory(), entry);
            }
        }
        self.unacked_bytes -= dropped;
        // What could not leave now is not looked at again before there is a good deal more. Messages that are settled while they are on their way
        // count as being on it until they are written, so more may have been found than there seemed to be.
        self.unacked_max = resident_max.max(settling.saturating_sub(dropped + bytes)) + step;
        self.hand_out(pages, None, out);
    }

    /// A page-out is written: what it holds can leave memory, or knows at least where it lies.
    pub(super) fn paged(&mut self, ticket: u64, stretches: &[Stretch]) {
        let unacked = self.paging_unacked.iter().position(|paging| paging.ticket == ticket);
        let paging = unacked.map(|at| self.paging_unacked.swap_remove(at));
        let leaves = paging.as_ref().is_some_and(|paging| paging.bytes > 0);
        self.unacked_paging_bytes -= paging.as_ref().map_or(0, |paging| paging.bytes);
        let first_tag = match paging {
            Some(paging) => Some(paging.first_tag),
            None => self.ready.paged(ticket, stretches),
        };
        let Some(first_tag) = first_tag else { return };
        let way = Place::on_its_way(ticket);
        let locate = |seq: Seq| {
            let stretch = stretches.iter().find(|stretch| stretch.first <= seq && seq <= stretch.last);
            stretch.map_or(way, |stretch| Place::in_run(stretch.run))
        };
        self.ready.each_resident_mut(|entry| {
            if entry.place == way {
                entry.place = locate(entry.seq);
            }
        });
        for (_, held) in self.unacked.iter_mut().rev().take_while(|(tag, _)| *tag >= first_tag) {
            if held.place != way {
                continue;
            }
            held.place = locate(held.seq);
            if leaves && held.place.run().is_some() {
                self.unacked_bytes -= held.memory();
                held.message = None;
            }
        }
    }
}
