//! How many connections vhosts and users have, and how many channels users have: for their limits.
//!
//! Counted when a connection is opened and when it begins to close, so a limit costs nothing in between. A limit is one of the whole cluster: nodes
//! tell each other what they have when it changes. Two that let somebody in at the same moment may exceed it, as in RabbitMQ.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use broker_amqp::ChannelAllowance;
use broker_amqp::link::{Op, TallyOf};
use broker_core::name::NodeId;

use super::shard::Shard;

/// See the module's page. What has no connection has no entry.
#[derive(Debug, Default)]
pub struct Tally {
    vhosts: HashMap<Arc<str>, usize>,
    users: HashMap<Arc<str>, OfUser>,
    /// What the other nodes have, each node that has any.
    elsewhere: HashMap<(TallyOf, Box<str>), BTreeMap<NodeId, Count>>,
    /// What the other nodes have not been told yet.
    changed: HashSet<(TallyOf, Arc<str>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    connections: u64,
    channels: u64,
}

#[derive(Debug)]
struct OfUser {
    connections: usize,
    /// Shared by its connections, each of which counts its own channels.
    channels: Arc<ChannelAllowance>,
}

impl Tally {
    /// Connections of a vhost, on all nodes.
    #[must_use]
    pub fn of_vhost(&self, vhost: &str) -> usize {
        self.all(TallyOf::Vhost, vhost)
    }

    /// Connections of a user, on all nodes.
    #[must_use]
    pub fn of_user(&self, user: &str) -> usize {
        self.all(TallyOf::User, user)
    }

    fn all(&self, of: TallyOf, name: &str) -> usize {
        let connections = self.here(of, name).connections.saturating_add(self.elsewhere(of, name).connections);
        usize::try_from(connections).unwrap_or(usize::MAX)
    }

    fn here(&self, of: TallyOf, name: &str) -> Count {
        let (connections, channels) = match of {
            TallyOf::Vhost => (self.vhosts.get(name).copied().unwrap_or_default(), 0),
            TallyOf::User => {
                self.users.get(name).map_or((0, 0), |of_user| (of_user.connections, of_user.channels.open()))
            }
        };
        Count { connections: connections as u64, channels }
    }

    fn elsewhere(&self, of: TallyOf, name: &str) -> Count {
        // Without a cluster there is nothing to look up, nor anything to allocate for it.
        if self.elsewhere.is_empty() {
            return Count::default();
        }
        let counts = self.elsewhere.get(&(of, name.into()));
        counts.into_iter().flat_map(BTreeMap::values).fold(Count::default(), |sum, count| Count {
            connections: sum.connections.saturating_add(count.connections),
            channels: sum.channels.saturating_add(count.channels),
        })
    }

    /// Another node has so many.
    fn heard(&mut self, node: NodeId, of: TallyOf, name: &str, count: Count) {
        let mut counts = match self.elsewhere.entry((of, name.into())) {
            Entry::Occupied(counts) => counts,
            Entry::Vacant(_) if count == Count::default() => return,
            Entry::Vacant(counts) => counts.insert_entry(BTreeMap::new()),
        };
        if count == Count::default() {
            counts.get_mut().remove(&node);
        } else {
            counts.get_mut().insert(node, count);
        }
        if counts.get().is_empty() {
            counts.remove();
        }
        self.count_channels_elsewhere(of, name);
    }

    /// Another node is gone, with its connections.
    pub(super) fn forget(&mut self, node: NodeId) {
        let of_node: Vec<(TallyOf, Box<str>)> = self
            .elsewhere
            .iter()
            .filter(|(_, counts)| counts.contains_key(&node))
            .map(|((of, name), _)| (*of, name.clone()))
            .collect();
        for (of, name) in of_node {
            self.heard(node, of, &name, Count::default());
        }
    }

    fn count_channels_elsewhere(&self, of: TallyOf, name: &str) {
        if of == TallyOf::User
            && let Some(of_user) = self.users.get(name)
        {
            of_user.channels.count_elsewhere(self.elsewhere(of, name).channels);
        }
    }

    /// A channel of this user was opened or closed.
    pub(super) fn channels_changed(&mut self, user: &Arc<str>) {
        self.changed.insert((TallyOf::User, user.clone()));
    }

    /// A new node is to be told everything.
    pub(super) fn tell_all(&mut self) {
        self.changed.extend(self.vhosts.keys().map(|vhost| (TallyOf::Vhost, vhost.clone())));
        self.changed.extend(self.users.keys().map(|user| (TallyOf::User, user.clone())));
    }

    /// A connection was opened. What its channels are counted by, `max_channels` being the user's limit.
    pub fn opened(&mut self, user: &Arc<str>, vhost: &Arc<str>, max_channels: Option<u64>) -> Arc<ChannelAllowance> {
        self.changed.extend([(TallyOf::Vhost, vhost.clone()), (TallyOf::User, user.clone())]);
        *self.vhosts.entry(vhost.clone()).or_default() += 1;
        let of_user = self
            .users
            .entry(user.clone())
            .or_insert_with(|| OfUser { connections: 0, channels: Arc::new(ChannelAllowance::new(max_channels)) });
        of_user.connections += 1;
        let channels = of_user.channels.clone();
        self.count_channels_elsewhere(TallyOf::User, user);
        channels
    }

    /// A connection that was opened is being closed.
    pub fn closed(&mut self, user: &Arc<str>, vhost: &Arc<str>) {
        self.changed.extend([(TallyOf::Vhost, vhost.clone()), (TallyOf::User, user.clone())]);
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

impl Shard {
    /// Tells the other nodes what has changed; whether there was anything.
    pub(super) fn tell_tally(&mut self) -> bool {
        if !self.links.any() {
            // Nobody has to be told: a link that comes up is told everything.
            self.tally.changed.clear();
        }
        if self.tally.changed.is_empty() {
            return false;
        }
        let changed = std::mem::take(&mut self.tally.changed);
        for (of, name) in &changed {
            let Count { connections, channels } = self.tally.here(*of, name);
            self.links.say_to_all(&Op::Tally { of: *of, name, connections, channels });
        }
        true
    }

    /// Another node tells what it has.
    pub(super) fn hear_tally(&mut self, node: NodeId, of: TallyOf, name: &str, connections: u64, channels: u64) {
        self.tally.heard(node, of, name, Count { connections, channels });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_nodes_have_counts_until_they_are_gone() {
        let mut tally = Tally::default();
        let (ann, one): (Arc<str>, Arc<str>) = ("ann".into(), "one".into());
        let channels = tally.opened(&ann, &one, Some(9));
        for node in [2, 3] {
            tally.heard(NodeId(node), TallyOf::User, "ann", Count { connections: node, channels: 4 });
            tally.heard(NodeId(node), TallyOf::Vhost, "one", Count { connections: 1, channels: 0 });
        }
        assert_eq!((tally.of_user("ann"), tally.of_vhost("one")), (6, 3));
        assert_eq!(tally.elsewhere(TallyOf::User, "ann").channels, 8);
        assert!(Arc::ptr_eq(&channels, &tally.opened(&ann, &one, Some(9))));
        tally.heard(NodeId(2), TallyOf::User, "ann", Count::default());
        tally.forget(NodeId(3));
        assert_eq!((tally.of_user("ann"), tally.of_vhost("one")), (2, 3));
        tally.heard(NodeId(2), TallyOf::User, "eve", Count::default());
        tally.forget(NodeId(2));
        assert!(tally.elsewhere.is_empty());
    }

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
