//! What nodes route by: the log's catalog, and what was announced.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::name::NodeId;
use broker_core::topology::{Binding, Destination, QueueDeclaration};
use proptest::prelude::*;
use proto::meta::Command;

use super::difference::{commands, things};
use super::plain_queue;
use crate::catalog::{Catalog, CatalogEvent, View, announced_id, is_announced};
use crate::command::{self, Announcement};

fn declaration(name: &str, owner: u64) -> QueueDeclaration<'_> {
    QueueDeclaration { exclusive: true, connection: owner, ..plain_queue(name, false) }
}

fn declare(node: u64, counter: u64, name: &str) -> Announcement {
    let id = announced_id(NodeId(node), 1, counter);
    command::announce_queue("a", &declaration(name, node), NodeId(node), id)
}

fn bind(name: &str, source: &str) -> Announcement {
    let destination = Destination::Queue(name.into());
    let (source, routing_key) = (source.into(), (*b"k").into());
    command::announce_binding("a", &Binding { source, destination, routing_key, arguments: Default::default() })
}

#[derive(Clone, Debug)]
enum Step {
    Log(Box<Command>),
    Declare(u64, u8),
    Bind(u64, u8, u8),
    Delete(u64, u8),
    Unreachable(u64),
    Replace,
}

fn steps() -> impl Strategy<Value = Step> {
    let (node, name) = (|| 1..4_u64, || 0..4_u8);
    prop_oneof![
        6 => commands().prop_map(|command| Step::Log(Box::new(command))),
        4 => (node(), name()).prop_map(|(node, name)| Step::Declare(node, name)),
        2 => (node(), name(), name()).prop_map(|(node, name, source)| Step::Bind(node, name, source)),
        2 => (node(), name()).prop_map(|(node, name)| Step::Delete(node, name)),
        1 => node().prop_map(Step::Unreachable),
        1 => Just(Step::Replace),
    ]
}

/// What of a view is in no log.
fn exclusive(catalog: &Catalog) -> BTreeSet<String> {
    let queues = catalog.topology().queues().filter(|queue| is_announced(queue.id)).cloned().collect::<Vec<_>>();
    queues.iter().map(|queue| format!("queue {}", queue.id.0)).collect()
}

/// Without the bindings of queues that are in no log.
fn logged(view: &View) -> BTreeSet<String> {
    let catalog = view.catalog();
    let own = exclusive(catalog);
    let topology = catalog.topology();
    let mut bindings = BTreeSet::new();
    for vhost in topology.vhosts() {
        for queue in vhost.queues().filter(|queue| is_announced(queue.id)) {
            let to = Destination::Queue(queue.name.clone());
            bindings.extend(vhost.bindings_to(&to).map(|binding| super::difference::bound(vhost.name(), binding)));
        }
    }
    things(catalog).into_iter().filter(|thing| !own.contains(thing) && !bindings.contains(thing)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is announced, what the log says is there, and nothing else but exclusive queues of nodes that can be reached.
    #[test]
    fn a_view_is_the_log_and_what_was_announced(steps in prop::collection::vec(steps(), 1..80)) {
        let (mut base, mut view) = (Catalog::default(), View::default());
        let mut counter = 0;
        let mut told = BTreeSet::new();
        let mut ids: BTreeMap<(u64, u8), u64> = BTreeMap::new();
        for step in steps {
            let events = match step {
                Step::Log(command) => {
                    let outcome = base.apply(base.index() + 1, &command);
                    view.logged(&[*command], vec![outcome], base.clone()).remove(0)
                }
                Step::Declare(node, name) => {
                    counter += 1;
                    let events = view.announced(NodeId(node), &declare(node, counter, &format!("q{name}")));
                    if matches!(events[..], [CatalogEvent::QueueDeclared { existed: false, .. }, ..]) {
                        ids.insert((node, name), announced_id(NodeId(node), 1, counter).0);
                    }
                    events
                }
                Step::Bind(node, name, source) => {
                    view.announced(NodeId(node), &bind(&format!("q{name}"), &format!("e{source}")))
                }
                Step::Delete(node, name) => {
                    let id = ids.get(&(node, name)).copied().unwrap_or(7);
                    view.announced(NodeId(node), &command::announce_deletion([broker_core::name::QueueId(id)]))
                }
                Step::Unreachable(node) => {
                    let events = view.unreachable(NodeId(node));
                    prop_assert!(view.announcements(NodeId(node)).is_empty());
                    events
                }
                Step::Replace => view.replaced(base.clone()),
            };
            let events: Vec<CatalogEvent> = events.into_iter().filter(CatalogEvent::is_change).collect();
            told = super::difference::after(told, &events);
            prop_assert_eq!(&told, &things(view.catalog()), "what was told is not what is there");
            prop_assert_eq!(logged(&view), things(&base));
            prop_assert_eq!(view.catalog().index(), base.index());
        }
        // A node that has heard nothing yet hears all of it.
        let mut other = View::default();
        other.replaced(base);
        for node in 1..4 {
            for announcement in view.announcements(NodeId(node)) {
                let events = other.announced(NodeId(node), &announcement);
                prop_assert!(events.iter().all(|event| event.refusal().is_none()), "{:?}", events);
            }
        }
        prop_assert_eq!(things(other.catalog()), things(view.catalog()));
    }
}

#[test]
fn the_lower_number_keeps_a_name_wherever_they_meet() {
    let mut base = Catalog::default();
    base.apply(1, &command::create_vhost("a", "", &[]));
    let (one, other) = (declare(1, 1, "q"), declare(2, 1, "q"));
    for order in [[(1, &one), (2, &other)], [(2, &other), (1, &one)]] {
        let mut view = View::default();
        view.replaced(base.clone());
        let outcomes: Vec<Vec<CatalogEvent>> =
            order.iter().map(|(node, announcement)| view.announced(NodeId(*node), announcement)).collect();
        assert_eq!(view.catalog().topology().queue("a", "q").unwrap().node, NodeId(1), "{outcomes:?}");
    }
    // Only its node may say something of it.
    let mut view = View::default();
    view.replaced(base);
    view.announced(NodeId(1), &one);
    let id = announced_id(NodeId(1), 1, 1);
    assert_eq!(view.announced(NodeId(2), &command::announce_deletion([id])), [CatalogEvent::Unchanged]);
    assert!(matches!(view.announced(NodeId(2), &bind("q", "amq.fanout"))[..], [CatalogEvent::Refused(_)]));
    assert!(matches!(view.announced(NodeId(2), &one)[..], [CatalogEvent::Refused(_)]));
    assert!(matches!(view.announced(NodeId(1), &Announcement::default())[..], [CatalogEvent::Refused(_)]));
}

/// The log and the links are in no order: a node may hear of an exclusive queue before it applies that the queue's node was down, which was long before.
#[test]
fn what_was_announced_goes_with_the_link_and_not_by_the_log() {
    let (mut base, mut view) = (Catalog::default(), View::default());
    let mut log = |view: &mut View, command: Command| {
        let outcome = base.apply(base.index() + 1, &command);
        view.logged(&[command], vec![outcome], base.clone());
    };
    log(&mut view, command::create_vhost("a", "", &[]));
    for name in ["rabbit@n1", "rabbit@n2"] {
        log(&mut view, command::add_member(name, "host:1"));
    }
    view.announced(NodeId(1), &declare(1, 1, "q"));
    for command in [command::node_is_down(NodeId(1)), command::node_starts(NodeId(1))] {
        log(&mut view, command);
        assert_eq!(exclusive(view.catalog()).len(), 1);
    }
    view.unreachable(NodeId(1));
    assert!(exclusive(view.catalog()).is_empty());
}
