//! Nodes join, start, are down, and leave.

use broker_core::name::NodeId;
use proto::meta::Command;

use super::{catalog, plain_queue};
use crate::catalog::{Catalog, CatalogEvent, NUMBERS_MAX};
use crate::command;

fn apply(catalog: &mut Catalog, command: &Command) -> Vec<CatalogEvent> {
    catalog.apply(catalog.index() + 1, command)
}

fn add(catalog: &mut Catalog, name: &str) -> Result<u64, String> {
    match &apply(catalog, &command::add_member(name, "host:25672"))[..] {
        [CatalogEvent::MemberAdded(member), ..] => Ok(member.node.0),
        [CatalogEvent::Refused(why), ..] => Err(why.to_string()),
        other => panic!("{other:?}"),
    }
}

fn declare(catalog: &mut Catalog, name: &str, durable: bool, node: u64) {
    let declaration = plain_queue(name, durable);
    let events = apply(catalog, &command::declare_queue("/", &declaration, NodeId(node)));
    assert!(matches!(events[..], [CatalogEvent::QueueDeclared { existed: false, .. }]), "{events:?}");
}

fn queues(catalog: &Catalog) -> Vec<String> {
    let mut names: Vec<String> = catalog.topology().queues().map(|queue| queue.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_number_is_never_given_twice() {
    let mut catalog = catalog();
    assert_eq!(add(&mut catalog, "rabbit@a"), Ok(1));
    assert_eq!(add(&mut catalog, "rabbit@b"), Ok(2));
    // It never started, so it may have been lost on the way: it gets another number.
    assert_eq!(add(&mut catalog, "rabbit@b"), Ok(3));
    let events = apply(&mut catalog, &command::node_starts(NodeId(3)));
    assert!(matches!(&events[..], [CatalogEvent::MemberStarted(member)] if member.name == "rabbit@b"), "{events:?}");
    assert!(add(&mut catalog, "rabbit@b").unwrap_err().contains("as node 3"));
    apply(&mut catalog, &command::remove_member(NodeId(3)));
    assert_eq!(add(&mut catalog, "rabbit@b"), Ok(4));
    let again = Catalog::from_snapshot(&catalog.to_snapshot()).unwrap();
    assert_eq!(again.members(), catalog.members());
    let mut catalog = again;
    assert_eq!(add(&mut catalog, "rabbit@c"), Ok(5));
    while catalog.members().named("rabbit@c").is_none_or(|member| member.node.0 < NUMBERS_MAX) {
        add(&mut catalog, "rabbit@c").unwrap();
    }
    assert!(add(&mut catalog, "rabbit@d").unwrap_err().contains("4095"));
}

#[test]
fn queues_of_a_node_that_is_down_or_gone() {
    let mut catalog = catalog();
    for name in ["rabbit@a", "rabbit@b"] {
        add(&mut catalog, name).unwrap();
    }
    for node in [1, 2] {
        declare(&mut catalog, &format!("durable {node}"), true, node);
        declare(&mut catalog, &format!("transient {node}"), false, node);
    }
    apply(&mut catalog, &command::node_is_down(NodeId(2)));
    assert_eq!(queues(&catalog), ["durable 1", "durable 2", "transient 1"]);
    let events = apply(&mut catalog, &command::remove_member(NodeId(2)));
    assert!(matches!(&events[0], CatalogEvent::MemberRemoved(member) if member.node == NodeId(2)));
    assert_eq!(queues(&catalog), ["durable 1", "transient 1"]);
    assert_eq!(apply(&mut catalog, &command::remove_member(NodeId(2))), [CatalogEvent::Unchanged]);
}

#[test]
fn a_node_that_was_alone_brings_its_catalog_along() {
    let mut alone = catalog();
    declare(&mut alone, "q", true, 1);
    alone.apply(1 << 40, &command::set_cluster_name("c"));
    let mut founded = Catalog::default();
    assert_eq!(apply(&mut founded, &command::import(alone.to_snapshot())), [CatalogEvent::Imported]);
    assert_eq!(founded.index(), 1 << 40);
    assert_eq!(founded.topology().queue("/", "q").unwrap().id, alone.topology().queue("/", "q").unwrap().id);
    assert_eq!(add(&mut founded, "rabbit@a"), Ok(1));
    let again = apply(&mut founded, &command::import(alone.to_snapshot()));
    assert!(matches!(again[..], [CatalogEvent::Refused(_)]), "{again:?}");
}
