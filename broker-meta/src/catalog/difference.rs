//! What has changed between two states of the catalog, for whoever did not hear of each command.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::name::{QueueId, VhostName};
use broker_core::topology::{Binding, ExchangeRecord, QueueRecord, Vhost};

use super::{Catalog, CatalogEvent};

impl Catalog {
    /// The events that lead from this state to a later one of the same catalog. What is gone comes before what is new.
    pub fn difference(&self, later: &Catalog) -> Vec<CatalogEvent> {
        let mut events = Vec::new();
        let (before, after) = (&self.topology, &later.topology);
        for vhost in before.vhosts() {
            match after.vhost(vhost.name()) {
                None => events.push(CatalogEvent::VhostDeleted {
                    vhost: vhost.name().clone(),
                    queues: vhost.queues().cloned().collect(),
                }),
                Some(now) => gone_of_vhost(vhost, now, &mut events),
            }
        }
        for vhost in after.vhosts() {
            match before.vhost(vhost.name()) {
                None => {
                    events.push(CatalogEvent::VhostCreated { vhost: vhost.name().clone(), existed: false });
                    new_of_vhost(None, vhost, &mut events);
                }
                Some(then) => {
                    if then.record() != vhost.record() {
                        events.push(CatalogEvent::VhostChanged(vhost.name().clone()));
                    }
                    new_of_vhost(Some(then), vhost, &mut events);
                }
            }
        }
        self.access_difference(later, &mut events);
        self.member_difference(later, &mut events);
        if self.cluster_name != later.cluster_name {
            events.push(CatalogEvent::ClusterNamed(later.cluster_name.clone()));
        }
        events
    }

    fn access_difference(&self, later: &Catalog, events: &mut Vec<CatalogEvent>) {
        for user in self.access.users() {
            match later.access.user(&user.name) {
                None => events.push(CatalogEvent::UserDeleted(user.name.clone())),
                Some(now) if now != user => events.push(CatalogEvent::UserChanged(user.name.clone())),
                Some(_) => {}
            }
        }
        for user in later.access.users().filter(|user| self.access.user(&user.name).is_none()) {
            events.push(CatalogEvent::UserChanged(user.name.clone()));
        }
        // Whoever holds anything in a vhost may hold something else: to look at them once too often costs little.
        for (user, vhost, _) in self.access.all_permissions().chain(later.access.all_permissions()) {
            let event = CatalogEvent::PermissionsChanged(user.clone(), vhost.clone());
            if !events.contains(&event) {
                events.push(event);
            }
        }
        for (user, _) in self.access.all_user_limits().chain(later.access.all_user_limits()) {
            events.push(CatalogEvent::UserLimitsChanged(user.clone()));
        }
    }

    fn member_difference(&self, later: &Catalog, events: &mut Vec<CatalogEvent>) {
        for member in self.members.iter().filter(|member| later.members.get(member.node).is_none()) {
            events.push(CatalogEvent::MemberRemoved(member.clone()));
        }
        for member in later.members.iter() {
            match self.members.get(member.node) {
                None => events.push(CatalogEvent::MemberAdded(member.clone())),
                Some(then) if then.started != member.started => {
                    events.push(CatalogEvent::MemberStarted(member.clone()))
                }
                Some(_) => {}
            }
        }
    }
}

fn gone_of_vhost(before: &Vhost, after: &Vhost, events: &mut Vec<CatalogEvent>) {
    let left: BTreeMap<QueueId, ()> = after.queues().map(|queue| (queue.id, ())).collect();
    let gone = before.queues().filter(|queue| !left.contains_key(&queue.id));
    events.extend(gone.map(|queue: &Arc<QueueRecord>| CatalogEvent::QueueDeleted(queue.clone())));
    let is_gone = |exchange: &&Arc<ExchangeRecord>| {
        after.exchange(&exchange.name).is_none_or(|now| now.kind != exchange.kind || now.holder != exchange.holder)
    };
    events.extend(before.exchanges().filter(is_gone).map(|exchange| CatalogEvent::ExchangeDeleted(exchange.clone())));
    for binding in lost(before, after) {
        events.push(CatalogEvent::Unbound { vhost: before.name().clone(), binding, durable: false });
    }
}

fn new_of_vhost(before: Option<&Vhost>, after: &Vhost, events: &mut Vec<CatalogEvent>) {
    let known: BTreeMap<QueueId, &Arc<QueueRecord>> =
        before.into_iter().flat_map(Vhost::queues).map(|queue| (queue.id, queue)).collect();
    for queue in after.queues() {
        match known.get(&queue.id) {
            None => events.push(CatalogEvent::QueueDeclared { record: queue.clone(), existed: false }),
            Some(then) if *then != queue => events.push(CatalogEvent::QueueSettingsChanged(queue.clone())),
            Some(_) => {}
        }
    }
    for exchange in after.exchanges() {
        let known = before.and_then(|vhost| vhost.exchange(&exchange.name));
        if known.is_none_or(|then| then.kind != exchange.kind || then.holder != exchange.holder) {
            events.push(CatalogEvent::ExchangeDeclared { record: exchange.clone(), existed: false });
        }
    }
    let vhost: VhostName = after.name().clone();
    let new = match before {
        Some(before) => lost(after, before),
        None => after.bindings().cloned().collect(),
    };
    for binding in new {
        events.push(CatalogEvent::Bound { vhost: vhost.clone(), binding, existed: false, durable: false });
    }
}

/// Bindings of one that the other does not have.
fn lost(one: &Vhost, other: &Vhost) -> Vec<Arc<Binding>> {
    let key = |binding: &Arc<Binding>| {
        let destination = match &binding.destination {
            broker_core::topology::Destination::Queue(name) => (0, name.to_string()),
            broker_core::topology::Destination::Exchange(name) => (1, name.to_string()),
        };
        let (key, arguments) = (binding.routing_key.to_vec(), binding.arguments.octets().to_vec());
        (binding.source.to_string(), destination, key, arguments)
    };
    let kept: BTreeMap<_, ()> = other.bindings().map(|binding| (key(binding), ())).collect();
    one.bindings().filter(|binding| !kept.contains_key(&key(binding))).cloned().collect()
}
