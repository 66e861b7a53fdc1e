//! How many connections vhosts and users have, and how many channels users have: for their limits.
//!
//! Counted when a connection is opened and when it begins to close, so a limit costs nothing in between.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use broker_amqp::ChannelAllowance;

/// See the module's page. What has no connection has no entry.
#[derive(Debug, Default)]
pub struct Tally {
    vhosts: HashMap<Arc<str>, usize>,
    users: HashMap<Arc<str>, OfUser>,
}

#[derive(Debug)]
struct OfUser {
    connections: usize,
    /// Shared by its connections, each of which counts its own channels.
    channels: Arc<ChannelAllowance>,
}

impl Tally {
    /// Connections of a vhost.
    #[must_use]
    pub fn of_vhost(&self, vhost: &str) -> usize {
        self.vhosts.get(vhost).copied().unwrap_or_default()
    }

    /// Connections of a user.
    #[must_use]
    pub fn of_user(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |of_user| of_user.connections)
    }

    /// A connection was opened. What its channels are counted by, `max_channels` being the user's limit.
    pub fn opened(&mut self, user: &Arc<str>, vhost: &Arc<str>, max_channels: Option<u64>) -> Arc<ChannelAllowance> {
        *self.vhosts.entry(vhost.clone()).or_default() += 1;
        let of_user = self
            .users
            .entry(user.clone())
            .or_insert_with(|| OfUser { connections: 0, channels: Arc::new(ChannelAllowance::new(max_channels)) });
        of_user.connections += 1;
        of_user.channels.clone()
    }

    /// A connection that was opened is being closed.
    pub fn closed(&mut self, user: &Arc<str>, vhost: &Arc<str>) {
        if let Entry::Occupied(mut connections) = self.vhosts.entry(vhost.clone()) {
            *connections.get_mut() = connections.get().saturating_sub(1);
            if *connections.get() == 0 {
                connections.remove();
            }
        }
        if let Entry::Occupied(mut of_user) = self.users.entry(user.clone()) {
            of_user.get_mut().connections = of_user.get().connections.saturating_sub(1);
            if of_user.get().connections == 0 {
                of_user.remove();
            }
        }
    }

    /// A user's limit of channels has changed. Those that are open stay.
    pub fn allow_channels(&mut self, user: &str, max: Option<u64>) {
        if let Some(of_user) = self.users.get(user) {
            of_user.channels.allow(max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_vhost_and_by_user() {
        let mut tally = Tally::default();
        let (ann, bob, one, two): (Arc<str>, Arc<str>, Arc<str>, Arc<str>) =
            ("ann".into(), "bob".into(), "one".into(), "two".into());
        let first = tally.opened(&ann, &one, Some(3));
        let second = tally.opened(&ann, &two, Some(3));
        assert!(Arc::ptr_eq(&first, &second), "a user's connections share what they may have");
        assert!(!Arc::ptr_eq(&first, &tally.opened(&bob, &one, None)));
        assert_eq!((tally.of_user("ann"), tally.of_user("bob"), tally.of_user("eve")), (2, 1, 0));
        assert_eq!((tally.of_vhost("one"), tally.of_vhost("two"), tally.of_vhost("three")), (2, 1, 0));
        tally.closed(&ann, &one);
        tally.closed(&ann, &two);
        tally.closed(&bob, &one);
        assert!(tally.users.is_empty() && tally.vhosts.is_empty());
    }
}
