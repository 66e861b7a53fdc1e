//! How many channels may be open over several connections: those of a user, and those of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the connections of one user, or of one node; the driver says how much is allowed.
#[derive(Debug)]
pub struct ChannelAllowance {
    open: AtomicU64,
    elsewhere: AtomicU64,
    max: AtomicU64,
}

/// A channel's place; gives itself back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<ChannelAllowance>);

impl ChannelAllowance {
    /// None are open yet.
    pub fn new(max: Option<u64>) -> ChannelAllowance {
        let max = AtomicU64::new(max.unwrap_or(u64::MAX));
        ChannelAllowance { open: AtomicU64::new(0), elsewhere: AtomicU64::new(0), max }
    }

    /// Allows more or fewer from now on; what is open stays open. None: as many as they like.
    pub fn allow(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// So many more are open on other nodes of the cluster.
    pub fn count_elsewhere(&self, channels: u64) {
        self.elsewhere.store(channels, Ordering::Relaxed);
    }

    /// Channels that are open here.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place; or says how many there may be.
    pub(crate) fn take(allowance: &Arc<ChannelAllowance>) -> Result<Place, u64> {
        let max = allowance.max.load(Ordering::Relaxed);
        let place = Place(allowance.clone());
        // The place is given back where it is refused.
        let elsewhere = allowance.elsewhere.load(Ordering::Relaxed);
        let open = allowance.open.fetch_add(1, Ordering::Relaxed).saturating_add(elsewhere);
        if open < max { Ok(place) } else { Err(max) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_come_back() {
        let allowance = Arc::new(ChannelAllowance::new(Some(2)));
        let one = ChannelAllowance::take(&allowance).unwrap();
        let _two = ChannelAllowance::take(&allowance).unwrap();
        assert_eq!(ChannelAllowance::take(&allowance).unwrap_err(), 2);
        assert_eq!(allowance.open(), 2);
        drop(one);
        assert_eq!(allowance.open(), 1);
        allowance.allow(Some(0));
        assert_eq!(ChannelAllowance::take(&allowance).unwrap_err(), 0);
        allowance.allow(Some(3));
        allowance.count_elsewhere(2);
        assert_eq!(ChannelAllowance::take(&allowance).unwrap_err(), 3);
        allowance.allow(None);
        assert!(ChannelAllowance::take(&allowance).is_ok());
        assert_eq!(allowance.open(), 1);
    }
}
