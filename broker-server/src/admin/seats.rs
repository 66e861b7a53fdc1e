//! How many connections from elsewhere the admin service has, and which of them give way.
//!
//! Each takes a seat until it goes. Whoever has not logged in on it is a stranger: health is told to anybody. When there is no seat left, or none for
//! the address, the stranger that has sat longest is shown out, so that connections that are held open for nothing keep no operator away; where all
//! have logged in, the new one is turned away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::admission::Origin;

/// Seats in all.
const SEATS: usize = 128;
/// Of these, for one address, or IPv6 network of 64 bits.
const SEATS_FOR_ONE: usize = 16;

/// See the module's page.
#[derive(Default)]
pub struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// By number, so in the order in which they came.
    sitting: BTreeMap<u64, Sitting>,
}

struct Sitting {
    origin: Origin,
    stranger: bool,
    hang_up: Box<dyn FnOnce() + Send>,
}

/// A connection's place; it is free when this is dropped.
pub struct Seat {
    number: u64,
    seats: Arc<Seats>,
}

impl Seats {
    /// A seat for a connection that `hang_up` ends; none: there is no room for it.
    pub fn take(self: &Arc<Self>, address: IpAddr, hang_up: impl FnOnce() + Send + 'static) -> Option<Seat> {
        let origin = Origin::from(address);
        let mut taken = self.lock();
        let of_origin = taken.sitting.values().filter(|one| one.origin == origin).count();
        let mut leaves = None;
        if of_origin >= SEATS_FOR_ONE {
            leaves = Some(taken.oldest_stranger(|one| one.origin == origin)?);
        } else if taken.sitting.len() >= SEATS {
            leaves = Some(taken.oldest_stranger(|_| true)?);
        }
        let leaving = leaves.and_then(|number| taken.sitting.remove(&number));
        let number = taken.next;
        taken.next += 1;
        taken.sitting.insert(number, Sitting { origin, stranger: true, hang_up: Box::new(hang_up) });
        drop(taken);
        if let Some(leaving) = leaving {
            (leaving.hang_up)();
        }
        Some(Seat { number, seats: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn oldest_stranger(&self, among: impl Fn(&Sitting) -> bool) -> Option<u64> {
        self.sitting.iter().find(|(_, one)| one.stranger && among(one)).map(|(number, _)| *number)
    }
}

impl Seat {
    /// Somebody has logged in on it; whether that is the first time.
    pub fn is_known(&self) -> bool {
        let mut taken = self.seats.lock();
        taken.sitting.get_mut(&self.number).is_some_and(|sitting| std::mem::replace(&mut sitting.stranger, false))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().sitting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Seats, and how many were shown out.
    struct Room {
        seats: Arc<Seats>,
        shown_out: Arc<AtomicUsize>,
    }

    impl Room {
        fn new() -> Self {
            Self { seats: Arc::default(), shown_out: Arc::default() }
        }

        fn take(&self, address: u32) -> Option<Seat> {
            let shown_out = self.shown_out.clone();
            let hang_up = move || {
                shown_out.fetch_add(1, Ordering::SeqCst);
            };
            self.seats.take(Ipv4Addr::from_bits(address).into(), hang_up)
        }

        fn shown_out(&self) -> usize {
            self.shown_out.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn the_oldest_stranger_of_an_address_gives_way_to_its_next() {
        let room = Room::new();
        let mut held: Vec<Seat> = (0..SEATS_FOR_ONE).map(|_| room.take(1).unwrap()).collect();
        assert!(held[0].is_known() && !held[0].is_known(), "only once it is new");
        held.push(room.take(1).unwrap());
        assert_eq!(room.shown_out(), 1);
        let numbers: Vec<u64> = room.seats.lock().sitting.keys().copied().collect();
        assert_eq!((numbers.len(), numbers[0], numbers[1]), (SEATS_FOR_ONE, 0, 2), "the one that is known stays");
        assert!(room.take(2).is_some());
        assert_eq!(room.shown_out(), 1, "others have room");
    }

    #[test]
    fn with_all_seats_taken_any_stranger_gives_way_and_who_is_known_does_not() {
        let room = Room::new();
        let held: Vec<Seat> = (0..SEATS as u32).map(|number| room.take(number / 4).unwrap()).collect();
        let last = room.take(1_000).unwrap();
        assert_eq!((room.shown_out(), room.seats.lock().sitting.len()), (1, SEATS));
        assert!(held.iter().skip(1).chain([&last]).all(Seat::is_known));
        assert!(room.take(1_001).is_none(), "there is no stranger left");
        assert_eq!(room.shown_out(), 1);
        drop(last);
        assert!(room.take(1_001).is_some());
    }

    #[test]
    fn a_seat_that_was_taken_away_is_not_given_back_twice() {
        let room = Room::new();
        let mut held: Vec<Seat> = (0..=SEATS_FOR_ONE).map(|_| room.take(1).unwrap()).collect();
        let shown_out = held.remove(0);
        assert!(!shown_out.is_known());
        drop(shown_out);
        assert_eq!(room.seats.lock().sitting.len(), SEATS_FOR_ONE);
        drop(held);
        assert!(room.seats.lock().sitting.is_empty());
    }
}
