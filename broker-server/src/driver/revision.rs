//! What becomes of open connections when users, permissions, limits or vhosts change.
//!
//! Operations are judged by the access rules of the moment they are asked for, and remembered routes end with every change, so what is left are
//! things that were allowed once and go on by themselves: connections of users and vhosts that are gone, consumers, and the right to publish in
//! another's name. All changes that were applied together are one walk through the connections.

use std::collections::HashSet;

use broker_amqp::{Exception, Input};
use broker_core::access::Operation;
use broker_core::name::{UserName, VhostName};
use broker_meta::CatalogEvent;

use super::shard::Shard;

/// What changed.
#[derive(Debug, Default)]
pub struct Revision {
    users_deleted: HashSet<UserName>,
    users_changed: HashSet<UserName>,
    vhosts_deleted: HashSet<VhostName>,
    permissions: HashSet<(UserName, VhostName)>,
    channel_limits: HashSet<UserName>,
}

impl Revision {
    /// Takes note of what an event changes for open connections.
    pub fn note(&mut self, event: &CatalogEvent) {
        match event {
            CatalogEvent::UserDeleted(user) => {
                self.users_deleted.insert(user.clone());
            }
            CatalogEvent::UserChanged(user) => {
                self.users_changed.insert(user.clone());
            }
            CatalogEvent::VhostDeleted { vhost, .. } => {
                self.vhosts_deleted.insert(vhost.clone());
            }
            CatalogEvent::PermissionsChanged(user, vhost) => {
                self.permissions.insert((user.clone(), vhost.clone()));
            }
            CatalogEvent::UserLimitsChanged(user) => {
                self.channel_limits.insert(user.clone());
            }
            _ => {}
        }
    }

    fn concerns_connections(&self) -> bool {
        !(self.users_deleted.is_empty()
            && self.users_changed.is_empty()
            && self.vhosts_deleted.is_empty()
            && self.permissions.is_empty())
    }
}

impl Shard {
    /// Carries out what follows for open connections.
    pub(super) fn revise(&mut self, revision: &Revision) {
        for user in &revision.channel_limits {
            self.tally.allow_channels(user, self.parts.access.user_limits(user).channels);
        }
        if !revision.concerns_connections() {
            return;
        }
        let places: Vec<usize> = self.clients.iter().map(|(place, _)| place).collect();
        for place in places {
            self.revise_client(place, revision);
        }
    }

    fn revise_client(&mut self, place: usize, revision: &Revision) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(user) = client.amqp.user().map(|user| UserName::from(&**user)) else { return };
        if revision.users_deleted.contains(&user) {
            return self.force_close(place, format!("user '{user}' is deleted"));
        }
        if revision.users_changed.contains(&user) {
            client.amqp.set_impersonator(self.parts.access.is_impersonator(&user));
        }
        let Some(vhost) = client.vhost.as_deref().map(VhostName::from) else { return };
        if revision.vhosts_deleted.contains(&vhost) {
            return self.force_close(place, format!("vhost '{vhost}' is deleted"));
        }
        if revision.permissions.contains(&(user, vhost)) {
            self.end_forbidden_consumers(place);
        }
    }

    fn force_close(&mut self, place: usize, text: String) {
        if let Some(client) = self.clients.get_mut(place) {
            tracing::info!(peer = %client.peer, connection = client.number, "connection closed by force: {text}");
            // A publisher that an alarm holds is read from again, so that its close-ok is seen.
            client.blocked = false;
        }
        self.tell(place, Input::ForceClose(Exception::forced(text)));
    }

    /// Consumers whose user may not read their queue any more are cancelled.
    fn end_forbidden_consumers(&mut self, place: usize) {
        let Some(client) = self.clients.get(place) else { return };
        let mut forbidden = Vec::new();
        for (handle, consumer) in &client.consumers {
            let Some(record) = self.parts.topology.queue_by_id(consumer.queue).cloned() else { continue };
            if self.authorize(place, &Operation::Consume { queue: &record.name }).is_err() {
                forbidden.push((handle as u32, consumer.channel, record));
            }
        }
        for (consumer, channel, record) in forbidden {
            if let Some(client) = self.clients.get(place) {
                let user = client.amqp.user().map(|user| &**user);
                tracing::info!(peer = %client.peer, connection = client.number, channel, user, queue = record.name.as_str(), vhost = record.vhost.as_str(), "consumer cancelled: its user may not read the queue any more");
            }
            self.cancel_consumer(place, consumer);
            self.tell(place, Input::ConsumerCancelled { channel, consumer });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_no_connection_is_no_reason_to_look_at_them() {
        let mut revision = Revision::default();
        let (user, vhost) = (UserName::from("ann"), VhostName::from("/"));
        for event in [
            CatalogEvent::Unchanged,
            CatalogEvent::VhostCreated { vhost: vhost.clone(), existed: false },
            CatalogEvent::TopicPermissionsChanged(user.clone(), vhost.clone()),
            CatalogEvent::VhostLimitsChanged(vhost.clone()),
            CatalogEvent::UserLimitsChanged(user.clone()),
        ] {
            revision.note(&event);
        }
        assert!(!revision.concerns_connections());
        for event in [
            CatalogEvent::UserDeleted(user.clone()),
            CatalogEvent::UserChanged(user.clone()),
            CatalogEvent::PermissionsChanged(user, vhost.clone()),
            CatalogEvent::VhostDeleted { vhost, queues: Vec::new() },
        ] {
            let mut revision = Revision::default();
            revision.note(&event);
            assert!(revision.concerns_connections(), "{event:?}");
        }
    }
}
