//! Lists of what there is, in parts that fit into messages.

use std::sync::Arc;

use broker_core::name::QueueId;
use broker_core::policy::Policy;
use broker_core::topology::{Destination, ExchangeRecord, Topology};
use broker_meta::Catalog;
use broker_meta::command::policy_item;
use proto::admin::v1::catalog_item::Kind;
use proto::admin::v1::{CatalogItem, CatalogKind, ListCatalogRequest, Queue, Vhost};
use proto::meta::{self, DestinationKind, Snapshot, set_limits};

/// Octets of the items in one message, about.
const PART_BYTES: usize = 1024 * 1024;

/// Cuts a list into parts whose items have about [`PART_BYTES`] each. One item is far smaller than a message may be.
pub fn parts<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for item in items {
        bytes += size(&item);
        part.push(item);
        if bytes >= PART_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// What the catalog holds of the kinds asked for.
pub fn catalog_items(catalog: &Catalog, request: &ListCatalogRequest) -> Vec<CatalogItem> {
    let snapshot = catalog.to_snapshot();
    let topology = catalog.topology();
    let wanted = |vhost: &str| request.vhost.as_deref().is_none_or(|wanted| wanted == vhost);
    let mut items = Vec::new();
    for kind in request.kinds() {
        let kinds = match kind {
            CatalogKind::Exchanges => exchanges(&topology, &wanted),
            CatalogKind::Bindings => bindings(&topology, &wanted),
            other => of_snapshot(&snapshot, other, &wanted),
        };
        items.extend(kinds.into_iter().map(|kind| CatalogItem { kind: Some(kind) }));
    }
    items
}

/// Queues as the catalog has them, without what the shard counts, by vhost and name.
pub fn queues(topology: &Topology, vhost: Option<&str>) -> Vec<(QueueId, Queue)> {
    let mut records: Vec<_> =
        topology.queues().filter(|record| vhost.is_none_or(|wanted| *record.vhost == *wanted)).collect();
    records.sort_by(|one, two| (&one.vhost, &one.name).cmp(&(&two.vhost, &two.name)));
    let declared = records.into_iter().map(|record| {
        let declared = meta::DeclareQueue {
            vhost: record.vhost.as_str().into(),
            name: record.name.as_str().into(),
            durable: record.durable,
            auto_delete: record.auto_delete,
            exclusive_owner: record.exclusive_owner,
            arguments: record.arguments.octets().to_vec(),
            node: record.node.0,
        };
        let name = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|policy| policy.name().to_owned());
        let effective = record.policies.effective();
        let queue = Queue {
            declared: Some(declared),
            id: record.id.0,
            policy: name(&record.policies.policy).unwrap_or_default(),
            operator_policy: name(&record.policies.operator).unwrap_or_default(),
            effective_policy_definition: effective.iter().map(|(key, value)| policy_item(key, value)).collect(),
            ..Queue::default()
        };
        (record.id, queue)
    });
    declared.collect()
}

fn of_snapshot(snapshot: &Snapshot, kind: CatalogKind, wanted: &dyn Fn(&str) -> bool) -> Vec<Kind> {
    match kind {
        CatalogKind::Vhosts => {
            let vhosts = snapshot.vhosts.iter();
            vhosts.map(|state| Kind::Vhost(Vhost { vhost: state.vhost.clone(), tracing: state.tracing })).collect()
        }
        CatalogKind::Users => {
            let without_hash = |user: &meta::PutUser| meta::PutUser { password_hash: String::new(), ..user.clone() };
            snapshot.users.iter().map(|user| Kind::User(without_hash(user))).collect()
        }
        CatalogKind::Permissions => {
            let permissions = snapshot.permissions.iter().filter(|one| wanted(&one.vhost));
            permissions.cloned().map(Kind::Permissions).collect()
        }
        CatalogKind::TopicPermissions => {
            let permissions = snapshot.topic_permissions.iter().filter(|one| wanted(&one.vhost));
            permissions.cloned().map(Kind::TopicPermissions).collect()
        }
        CatalogKind::Limits => {
            let is_wanted = |limits: &&meta::SetLimits| match &limits.of {
                Some(set_limits::Of::Vhost(vhost)) => wanted(vhost),
                _ => true,
            };
            snapshot.limits.iter().filter(is_wanted).cloned().map(Kind::Limits).collect()
        }
        CatalogKind::Parameters => {
            let parameters = snapshot.parameters.iter().filter(|one| one.component.is_empty() || wanted(&one.vhost));
            parameters.cloned().map(Kind::Parameter).collect()
        }
        CatalogKind::Policies => {
            let policies = snapshot.vhosts.iter().flat_map(|state| &state.policies);
            policies.filter(|policy| wanted(&policy.vhost)).cloned().map(Kind::Policy).collect()
        }
        CatalogKind::Exchanges | CatalogKind::Bindings => Vec::new(),
    }
}

/// All of them, the predeclared ones too.
fn exchanges(topology: &Topology, wanted: &dyn Fn(&str) -> bool) -> Vec<Kind> {
    let mut items = Vec::new();
    for vhost in topology.vhosts().filter(|vhost| wanted(vhost.name())) {
        let mut records: Vec<&Arc<ExchangeRecord>> = vhost.exchanges().collect();
        records.sort_by_key(|record| &record.name);
        items.extend(records.into_iter().map(|record| {
            Kind::Exchange(meta::DeclareExchange {
                vhost: record.vhost.as_str().into(),
                name: record.name.as_str().into(),
                r#type: record.kind.name().into(),
                durable: record.durable,
                auto_delete: record.auto_delete,
                internal: record.internal,
                arguments: record.arguments.octets().to_vec(),
                holder: 0,
            })
        }));
    }
    items
}

/// All of them; every queue is bound to the default exchange by its name.
fn bindings(topology: &Topology, wanted: &dyn Fn(&str) -> bool) -> Vec<Kind> {
    let mut items = Vec::new();
    for vhost in topology.vhosts().filter(|vhost| wanted(vhost.name())) {
        let of = |source: &str, kind: DestinationKind, destination: &str, routing_key: &[u8], arguments: &[u8]| {
            Kind::Binding(meta::Bind {
                vhost: vhost.name().as_str().into(),
                source: source.into(),
                destination_kind: kind.into(),
                destination: destination.into(),
                routing_key: routing_key.to_vec(),
                arguments: arguments.to_vec(),
            })
        };
        let mut names: Vec<&str> = vhost.queues().map(|record| record.name.as_str()).collect();
        names.sort_unstable();
        items.extend(names.into_iter().map(|name| of("", DestinationKind::Queue, name, name.as_bytes(), &[])));
        items.extend(vhost.bindings().map(|binding| {
            let (kind, destination) = match &binding.destination {
                Destination::Queue(name) => (DestinationKind::Queue, name.as_str()),
                Destination::Exchange(name) => (DestinationKind::Exchange, name.as_str()),
            };
            of(&binding.source, kind, destination, &binding.routing_key, binding.arguments.octets())
        }));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_into_parts_that_fit() {
        let items: Vec<usize> = (0..1000).collect();
        let cut = parts(items.clone(), |_| 10_000);
        assert_eq!(cut.len(), 10);
        assert!(cut.iter().all(|part| part.len() * 10_000 < PART_BYTES + 10_000));
        assert_eq!(cut.concat(), items);
        assert!(parts(Vec::<u8>::new(), |_| 1).is_empty());
    }
}
