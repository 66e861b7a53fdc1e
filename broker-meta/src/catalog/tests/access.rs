//! Topic permissions and limits as commands, and through a snapshot.

use broker_core::access::{UserLimits, VhostLimits};
use broker_core::field_table::FieldTable;
use broker_core::name::NodeId;
use broker_core::topology::QueueDeclaration;

use super::{Catalog, catalog};
use crate::CatalogEvent;
use crate::command::{self, Command};

/// A catalog with the vhost "/" and a user.
fn with_user() -> Catalog {
    let mut catalog = catalog();
    let user = broker_core::access::User { name: "ann".into(), password: None, tags: Vec::new() };
    assert_eq!(run(&mut catalog, command::put_user(&user)), [CatalogEvent::UserChanged("ann".into())]);
    catalog
}

fn run(catalog: &mut Catalog, command: Command) -> Vec<CatalogEvent> {
    catalog.apply(catalog.index() + 1, &command)
}

fn refused(catalog: &mut Catalog, command: Command) -> String {
    match &run(catalog, command)[..] {
        [CatalogEvent::Refused(refusal)] => refusal.reply().text,
        other => panic!("not refused: {other:?}"),
    }
}

fn declare(name: &str) -> Command {
    let declaration = QueueDeclaration {
        name,
        server_named: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: FieldTable::parse(b"").unwrap(),
        connection: 1,
    };
    command::declare_queue("/", &declaration, NodeId(1))
}

#[test]
fn topic_permissions_are_given_and_taken() {
    let mut catalog = with_user();
    let changed = [CatalogEvent::TopicPermissionsChanged("ann".into(), "/".into())];
    for exchange in ["one", "two", "three"] {
        assert_eq!(run(&mut catalog, command::set_topic_permissions("ann", "/", exchange, "w", "r")), changed);
    }
    assert_eq!(catalog.access().all_topic_permissions().count(), 3);
    assert_eq!(run(&mut catalog, command::clear_topic_permissions("ann", "/", Some("one"))), changed);
    assert_eq!(run(&mut catalog, command::clear_topic_permissions("ann", "/", Some("one"))), [CatalogEvent::Unchanged]);
    assert_eq!(run(&mut catalog, command::clear_topic_permissions("ann", "/", None)), changed);
    assert_eq!(catalog.access().all_topic_permissions().count(), 0);
    let bad = |user, vhost, pattern| command::set_topic_permissions(user, vhost, "x", pattern, "");
    assert!(refused(&mut catalog, bad("eve", "/", "")).contains("user 'eve' does not exist"));
    assert!(refused(&mut catalog, bad("ann", "none", "")).contains("none"));
    assert!(refused(&mut catalog, bad("ann", "/", "(")).contains("unclosed group"));
}

#[test]
fn limits_are_replaced_and_lifted() {
    let mut catalog = with_user();
    let changed = [CatalogEvent::VhostLimitsChanged("/".into())];
    assert_eq!(run(&mut catalog, command::set_vhost_limits("/", Some(5), Some(0))), changed);
    let limits = VhostLimits { connections: Some(5), queues: Some(0) };
    assert_eq!(catalog.access().vhost_limits("/"), limits);
    assert_eq!(run(&mut catalog, command::set_vhost_limits("/", None, Some(3))), changed);
    assert_eq!(catalog.access().vhost_limits("/"), VhostLimits { connections: None, queues: Some(3) });
    assert_eq!(run(&mut catalog, command::set_vhost_limits("/", Some(-1), Some(-2))), changed);
    assert_eq!(run(&mut catalog, command::set_vhost_limits("/", None, None)), [CatalogEvent::Unchanged]);
    let user = command::set_user_limits("ann", Some(1), Some(2));
    assert_eq!(run(&mut catalog, user), [CatalogEvent::UserLimitsChanged("ann".into())]);
    assert_eq!(catalog.access().user_limits("ann"), UserLimits { connections: Some(1), channels: Some(2) });
    assert!(refused(&mut catalog, command::set_user_limits("eve", None, None)).contains("does not exist"));
    assert!(refused(&mut catalog, command::set_vhost_limits("none", None, None)).contains("none"));
}

#[test]
fn a_vhost_has_no_more_queues_than_it_may() {
    let mut catalog = with_user();
    run(&mut catalog, command::set_vhost_limits("/", None, Some(2)));
    for queue in ["one", "two", "one"] {
        assert!(matches!(run(&mut catalog, declare(queue))[..], [CatalogEvent::QueueDeclared { .. }]));
    }
    assert_eq!(
        refused(&mut catalog, declare("three")),
        "PRECONDITION_FAILED - cannot declare queue 'three': queue limit in vhost '/' (2) is reached"
    );
    run(&mut catalog, command::delete_queue("/", "one", None));
    assert!(matches!(run(&mut catalog, declare("three"))[..], [CatalogEvent::QueueDeclared { .. }]));
}

#[test]
fn a_snapshot_holds_them_also_where_a_limit_is_below_what_there_is() {
    let mut catalog = with_user();
    run(&mut catalog, declare("one"));
    run(&mut catalog, declare("two"));
    run(&mut catalog, command::set_vhost_limits("/", Some(7), Some(1)));
    run(&mut catalog, command::set_user_limits("ann", None, Some(9)));
    run(&mut catalog, command::set_topic_permissions("ann", "/", "amq.topic", "^{username}", "x"));
    let snapshot = catalog.to_snapshot();
    let read = Catalog::from_snapshot(&snapshot).unwrap();
    assert_eq!(read.to_snapshot(), snapshot);
    assert_eq!((snapshot.limits.len(), snapshot.topic_permissions.len()), (2, 1));
    assert_eq!(read.access().vhost_limits("/"), catalog.access().vhost_limits("/"));
    assert_eq!(read.topology().queue_count(), 2);
}
