//! What is told of two states leads from the one to the other.

use std::collections::BTreeSet;

use broker_core::exchange::ExchangeKind;
use broker_core::field_table::FieldTable;
use broker_core::name::NodeId;
use broker_core::topology::{Binding, Destination, ExchangeDeclaration};
use proptest::prelude::*;
use proto::meta::Command;

use super::plain_queue;
use crate::catalog::{Catalog, CatalogEvent};
use crate::command;

/// Everything there is, as text.
pub(super) fn things(catalog: &Catalog) -> BTreeSet<String> {
    let mut things = BTreeSet::new();
    for vhost in catalog.topology().vhosts() {
        things.insert(format!("vhost {}", vhost.name()));
        things.extend(vhost.queues().map(|queue| format!("queue {}", queue.id.0)));
        // Those that a vhost always has come and go with it.
        let declared = vhost.exchanges().filter(|exchange| exchange.name.starts_with('e'));
        things.extend(declared.map(|exchange| format!("exchange {} {}", vhost.name(), exchange.name)));
        things.extend(vhost.bindings().map(|binding| bound(vhost.name(), binding)));
    }
    things.extend(catalog.access().users().map(|user| format!("user {}", user.name)));
    things.extend(catalog.members().iter().map(|member| format!("member {}", member.node.0)));
    things
}

pub(super) fn bound(vhost: &str, binding: &Binding) -> String {
    format!("binding {vhost} {} {:?} {:?}", binding.source, binding.destination, binding.routing_key)
}

/// What is left of them and new after events.
pub(super) fn after(mut things: BTreeSet<String>, events: &[CatalogEvent]) -> BTreeSet<String> {
    for event in events {
        match event {
            CatalogEvent::VhostCreated { vhost, .. } => drop(things.insert(format!("vhost {vhost}"))),
            CatalogEvent::VhostDeleted { vhost, queues } => {
                let queues: BTreeSet<String> = queues.iter().map(|queue| format!("queue {}", queue.id.0)).collect();
                let of_vhost = [format!("exchange {vhost} "), format!("binding {vhost} ")];
                things.retain(|thing| {
                    *thing != format!("vhost {vhost}")
                        && !queues.contains(thing)
                        && !of_vhost.iter().any(|start| thing.starts_with(start))
                });
            }
            CatalogEvent::QueueDeclared { record, existed: false } => {
                assert!(things.insert(format!("queue {}", record.id.0)), "told twice");
            }
            CatalogEvent::QueueDeleted(record) => assert!(things.remove(&format!("queue {}", record.id.0))),
            CatalogEvent::ExchangeDeclared { record, .. } if record.name.starts_with('e') => {
                things.insert(format!("exchange {} {}", record.vhost, record.name));
            }
            CatalogEvent::ExchangeDeleted(record) => {
                things.remove(&format!("exchange {} {}", record.vhost, record.name));
            }
            CatalogEvent::Bound { vhost, binding, existed: false, .. } => {
                assert!(things.insert(bound(vhost, binding)), "told twice");
            }
            CatalogEvent::Unbound { vhost, binding, .. } => assert!(things.remove(&bound(vhost, binding))),
            CatalogEvent::UserChanged(user) => drop(things.insert(format!("user {user}"))),
            CatalogEvent::UserDeleted(user) => drop(things.remove(&format!("user {user}"))),
            CatalogEvent::MemberAdded(member) => drop(things.insert(format!("member {}", member.node.0))),
            CatalogEvent::MemberRemoved(member) => drop(things.remove(&format!("member {}", member.node.0))),
            _ => {}
        }
    }
    things
}

pub(super) fn commands() -> impl Strategy<Value = Command> {
    let name = |kind: &'static str| (0..4_u8).prop_map(move |number| format!("{kind}{number}"));
    let vhost = || prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    let queue = move |(vhost, name, durable): (String, String, bool)| {
        let declaration = plain_queue(&name, durable);
        command::declare_queue(&vhost, &declaration, NodeId(1 + u64::from(durable)))
    };
    let exchange = move |(vhost, name, topic): (String, String, bool)| {
        let declaration = ExchangeDeclaration {
            name: &name,
            kind: if topic { ExchangeKind::Topic } else { ExchangeKind::Fanout },
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
        };
        command::declare_exchange(&vhost, &declaration)
    };
    let bind = move |(vhost, source, name, yes): (String, String, String, bool)| {
        let destination = Destination::Queue(name.as_str().into());
        let binding = Binding {
            source: source.as_str().into(),
            destination,
            routing_key: (*b"k").into(),
            arguments: Default::default(),
        };
        if yes { command::bind(&vhost, &binding) } else { command::unbind(&vhost, &binding) }
    };
    prop_oneof![
        2 => vhost().prop_map(|vhost| command::create_vhost(&vhost, "", &[])),
        1 => vhost().prop_map(|vhost| command::delete_vhost(&vhost)),
        4 => (vhost(), name("q"), any::<bool>()).prop_map(queue),
        2 => (vhost(), name("q")).prop_map(|(vhost, name)| command::delete_queue(&vhost, &name, None)),
        3 => (vhost(), name("e"), any::<bool>()).prop_map(exchange),
        1 => (vhost(), name("e")).prop_map(|(vhost, name)| command::delete_exchange(&vhost, &name, false)),
        4 => (vhost(), name("e"), name("q"), any::<bool>()).prop_map(bind),
        1 => name("u").prop_map(|name| command::delete_user(&name)),
        1 => name("n").prop_map(|name| command::add_member(&name, "h:1")),
        1 => (1..6_u64).prop_map(|node| command::remove_member(NodeId(node))),
        1 => (1..6_u64).prop_map(|node| command::node_starts(NodeId(node))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_lead_from_one_state_to_a_later_one(commands in prop::collection::vec(commands(), 1..60), at in 0..60_usize) {
        let mut catalog = Catalog::default();
        let mut before = catalog.clone();
        for (number, command) in commands.iter().enumerate() {
            if number == at {
                before = catalog.clone();
            }
            catalog.apply(catalog.index() + 1, command);
        }
        let events = before.difference(&catalog);
        prop_assert_eq!(after(things(&before), &events), things(&catalog), "{:?}", events);
        let nothing = after(things(&catalog), &catalog.difference(&catalog));
        prop_assert_eq!(nothing, things(&catalog));
    }
}
