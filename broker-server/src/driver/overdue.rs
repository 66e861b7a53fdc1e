//! Deliveries that wait to be settled for too long: connections that have any are looked at once in a while, others never.

use std::time::{Duration, Instant};

use super::shard::Shard;

/// Numbers of connections that are gone are thrown out when they are more than those that are there, and more than so many.
const GONE_MAX: usize = 64;

/// Which connections are looked at, and when.
#[derive(Debug)]
pub struct Overdue {
    interval: Duration,
    /// Numbers of connections that had deliveries outstanding, some of them gone.
    watched: Vec<u64>,
    check_at: Option<Instant>,
}

impl Overdue {
    /// Nothing is watched yet.
    pub fn new(interval: Duration) -> Self {
        Overdue { interval, watched: Vec::new(), check_at: None }
    }

    /// When [`Shard::check_deliveries`] is next to be called.
    pub fn check_at(&self) -> Option<Instant> {
        self.check_at
    }
}

impl Shard {
    /// Something was delivered to a client that is not watched: from now on it is, until it has nothing outstanding.
    pub(super) fn watch_deliveries(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        client.watched = true;
        let overdue = &mut self.parts.overdue;
        overdue.check_at.get_or_insert(self.now + overdue.interval);
        overdue.watched.push(client.number);
        // Of what was outstanding before there would be a note already: this one says that it is all new.
        let mut out = Vec::new();
        client.amqp.check_deliveries(self.now, &mut out);
        if !out.is_empty() {
            self.work_off(place, &[], &mut out);
        }
        if self.parts.overdue.watched.len() > 2 * self.clients.len() + GONE_MAX {
            let mut watched = std::mem::take(&mut self.parts.overdue.watched);
            watched.retain(|&number| self.place_of(number).is_some());
            self.parts.overdue.watched = watched;
        }
    }

    /// Looks at all that are watched, if it is time.
    pub(super) fn check_deliveries(&mut self) {
        if self.parts.overdue.check_at.is_none_or(|at| at > self.now) {
            return;
        }
        let mut watched = std::mem::take(&mut self.parts.overdue.watched);
        watched.retain(|&number| self.check_deliveries_of(number));
        let overdue = &mut self.parts.overdue;
        // Whoever was put on the list meanwhile stays on it.
        watched.append(&mut overdue.watched);
        overdue.check_at = (!watched.is_empty()).then_some(self.now + overdue.interval);
        overdue.watched = watched;
    }

    /// Returns whether the connection has deliveries outstanding still.
    fn check_deliveries_of(&mut self, number: u64) -> bool {
        let Some(place) = self.place_of(number) else { return false };
        let Some(client) = self.clients.get_mut(place) else { return false };
        let mut out = Vec::new();
        client.watched = client.amqp.check_deliveries(self.now, &mut out);
        let (watched, peer) = (client.watched, client.peer);
        if !out.is_empty() {
            tracing::warn!(%peer, connection = number, "a channel was closed: a delivery was not settled in time (consumer_timeout)");
            self.work_off(place, &[], &mut out);
        }
        watched
    }
}
