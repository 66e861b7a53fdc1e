//! What an operator sets: refusals, what goes with a vhost, default types, and the way through log and snapshot.

use broker_core::arguments::QueueType;
use broker_core::field_table::{FieldTable, TableBuilder, Value};
use broker_core::name::NodeId;
use broker_core::policy::{POLICIES_MAX, Policy, PolicyDraft, PolicyValue};
use broker_core::topology::QueueDeclaration;
use prost::Message as _;
use proto::meta::command::Kind;
use proto::meta::{self, Command};

use super::{Catalog, catalog};
use crate::catalog::{CatalogEvent, PARAMETER_MAX_BYTES, PARAMETERS_MAX, ParameterKey};
use crate::command::{self, VhostUpdate};

fn apply(catalog: &mut Catalog, command: &Command) -> Vec<CatalogEvent> {
    catalog.apply(catalog.index() + 1, command)
}

/// Applies what is to be refused and returns why.
fn refusal(catalog: &mut Catalog, command: &Command) -> String {
    let before = catalog.to_snapshot();
    let events = apply(catalog, command);
    assert_eq!(meta::Snapshot { index: before.index + 1, ..before }, catalog.to_snapshot());
    let [CatalogEvent::Refused(refusal)] = &events[..] else { panic!("not refused: {events:?}") };
    refusal.to_string()
}

fn policy(vhost: &str, name: &str, value: i64) -> Policy {
    let draft = PolicyDraft {
        vhost: vhost.into(),
        name: name.into(),
        operator: false,
        pattern: "^q".into(),
        apply_to: "queues".into(),
        priority: 0,
        definition: vec![("max-length".into(), PolicyValue::Number(value))],
    };
    Policy::new(draft).unwrap()
}

fn parameter(vhost: &str, component: &str, name: &str) -> ParameterKey {
    ParameterKey { vhost: (!vhost.is_empty()).then(|| vhost.into()), component: component.into(), name: name.into() }
}

fn declare(vhost: &str, name: &str, durable: bool, auto_delete: bool, queue_type: &str) -> Command {
    let mut arguments = TableBuilder::default();
    if !queue_type.is_empty() {
        arguments.push(b"x-queue-type", Value::LongString(queue_type.as_bytes()));
    }
    let declaration = QueueDeclaration {
        name,
        server_named: false,
        durable,
        exclusive: false,
        auto_delete,
        arguments: FieldTable::parse(arguments.octets()).unwrap(),
        connection: 0,
    };
    command::declare_queue(vhost, &declaration, NodeId(1))
}

#[test]
fn what_makes_no_sense_is_refused_with_rabbitmqs_words() {
    let mut catalog = catalog();
    let mut command = command::set_policy(&policy("/", "p", 5));
    let Some(Kind::SetPolicy(set)) = &mut command.kind else { panic!() };
    set.pattern = "(".into();
    set.definition[0].value = Some(meta::PolicyValue { kind: Some(meta::policy_value::Kind::Number(-1)) });
    assert_eq!(
        refusal(&mut catalog, &command),
        "Validation failed\n\n-1 is not a valid maximum length\npattern should be regular expression but is invalid: unclosed group\n"
    );
    let Some(Kind::SetPolicy(set)) = &mut command.kind else { panic!() };
    set.definition[0].value = None;
    assert_eq!(refusal(&mut catalog, &command), "a key of the policy has no value");
    assert_eq!(refusal(&mut catalog, &command::set_policy(&policy("none", "p", 5))), "vhost none not found");
    assert_eq!(refusal(&mut catalog, &command::clear_policy("none", "p", false)), "vhost none not found");
    for (key, expected) in [
        (parameter("/", "nocomp", "x"), "Validation failed\n\ncomponent nocomp not found\n"),
        (parameter("/", "policy", "x"), "Validation failed\n\ncomponent policy not found\n"),
        (parameter("", "shovel", "x"), "Validation failed\n\ncomponent shovel not found\n"),
        (parameter("none", "shovel", "x"), "vhost none not found"),
        (parameter("", "", ""), "the parameter has no name"),
    ] {
        assert_eq!(refusal(&mut catalog, &command::set_parameter(&key, "1")), expected);
    }
    let long = "1".repeat(PARAMETER_MAX_BYTES);
    assert_eq!(
        refusal(&mut catalog, &command::set_parameter(&parameter("", "", "long"), &long)),
        "parameter 'long' is longer than 65536 octets"
    );
    let wrong = |kind| Command { kind: Some(kind) };
    let create = meta::CreateVhost { name: "v".into(), default_queue_type: "stream".into(), ..Default::default() };
    let update = meta::UpdateVhost { name: "/".into(), default_queue_type: Some("x".into()), ..Default::default() };
    for (command, name) in [(wrong(Kind::CreateVhost(create)), "stream"), (wrong(Kind::UpdateVhost(update)), "x")] {
        let expected = format!("default queue type '{name}' is not supported; it is classic or quorum");
        assert_eq!(refusal(&mut catalog, &command), expected);
    }
    assert_eq!(refusal(&mut catalog, &command::update_vhost("none", VhostUpdate::default())), "vhost none not found");
}

#[test]
fn there_is_a_bound_to_policies_and_parameters() {
    let mut catalog = catalog();
    for n in 0..POLICIES_MAX {
        assert!(apply(&mut catalog, &command::set_policy(&policy("/", &n.to_string(), 5)))[0].is_durable_change());
    }
    assert_eq!(
        refusal(&mut catalog, &command::set_policy(&policy("/", "more", 5))),
        "vhost '/' has 1000 policies already; clear some"
    );
    assert!(apply(&mut catalog, &command::set_policy(&policy("/", "7", 6)))[0].is_change());
    for n in 0..PARAMETERS_MAX {
        let key = parameter("", "", &n.to_string());
        assert!(apply(&mut catalog, &command::set_parameter(&key, "1"))[0].is_durable_change());
    }
    assert_eq!(
        refusal(&mut catalog, &command::set_parameter(&parameter("", "", "more"), "1")),
        "there are 10000 parameters already; clear some"
    );
    assert!(apply(&mut catalog, &command::set_parameter(&parameter("", "", "7"), "2"))[0].is_change());
}

#[test]
fn policies_and_parameters_go_with_their_vhost() {
    let mut catalog = catalog();
    apply(&mut catalog, &command::create_vhost("v", "", &[]));
    for vhost in ["/", "v"] {
        apply(&mut catalog, &command::set_policy(&policy(vhost, "p", 5)));
        apply(&mut catalog, &command::set_parameter(&parameter(vhost, "shovel", "s"), "{}"));
    }
    apply(&mut catalog, &command::set_parameter(&parameter("", "", "g"), "[1]"));
    apply(&mut catalog, &command::delete_vhost("v"));
    let parameters = catalog.parameters();
    let left: Vec<(&str, &str)> = parameters.iter().map(|(key, value)| (key.name.as_str(), value)).collect();
    assert_eq!(left, [("g", "[1]"), ("s", "{}")]);
    apply(&mut catalog, &command::create_vhost("v", "", &[]));
    assert_eq!(catalog.topology().vhost("v").unwrap().policies().iter().count(), 0);
    assert_eq!(catalog.topology().vhost("/").unwrap().policies().iter().count(), 1);
    assert_eq!(parameters.get(&parameter("v", "shovel", "s")), None);
}

#[test]
fn the_default_type_is_filled_in_once_for_durable_shared_queues() {
    let mut catalog = catalog();
    apply(&mut catalog, &command::create_vhost_of_type("v", "", &[], QueueType::Quorum));
    let declared = |catalog: &mut Catalog, name: &str, durable, auto_delete, queue_type: &str| match &apply(
        catalog,
        &declare("v", name, durable, auto_delete, queue_type),
    )[..]
    {
        [CatalogEvent::QueueDeclared { record, .. }] => record.queue_type().name().to_owned(),
        [CatalogEvent::Refused(refusal)] => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(declared(&mut catalog, "a", true, false, ""), "quorum");
    assert_eq!(declared(&mut catalog, "a", true, false, ""), "quorum");
    assert_eq!(declared(&mut catalog, "a", true, false, "quorum"), "quorum");
    assert_eq!(declared(&mut catalog, "b", false, false, ""), "classic");
    assert_eq!(declared(&mut catalog, "c", true, true, ""), "classic");
    assert_eq!(declared(&mut catalog, "f", true, false, "classic"), "classic");
    assert_eq!(
        declared(&mut catalog, "f", true, false, ""),
        "inequivalent arg 'x-queue-type' for queue 'f' in vhost 'v': received 'quorum' but current is 'classic'"
    );
    // What is known keeps its type, through a snapshot too; what comes later gets the new one.
    let none = VhostUpdate { default_queue_type: Some(None), ..VhostUpdate::default() };
    apply(&mut catalog, &command::update_vhost("v", none));
    assert_eq!(declared(&mut catalog, "plain", true, false, ""), "classic");
    let quorum = VhostUpdate { default_queue_type: Some(Some(QueueType::Quorum)), ..VhostUpdate::default() };
    assert_eq!(apply(&mut catalog, &command::update_vhost("v", quorum)), [CatalogEvent::VhostChanged("v".into())]);
    let snapshot = catalog.to_snapshot();
    let mut restored = Catalog::from_snapshot(&snapshot).unwrap();
    assert_eq!(restored.to_snapshot(), snapshot);
    let topology = restored.topology();
    for (name, expected) in [("a", "quorum"), ("plain", "classic"), ("b", "classic"), ("f", "classic")] {
        assert_eq!(topology.queue("v", name).unwrap().queue_type().name(), expected, "{name}");
    }
    assert_eq!(declared(&mut restored, "late", true, false, ""), "quorum");
}

#[test]
fn commands_and_snapshots_go_through_octets() {
    let mut catalog = catalog();
    let definition = vec![
        ("ha-mode".into(), PolicyValue::Text("nodes".into())),
        ("ha-params".into(), PolicyValue::List(vec!["a@b".into(), "c@d".into()])),
        ("message-ttl".into(), PolicyValue::Number(i64::MAX)),
    ];
    let draft = PolicyDraft {
        vhost: "/".into(),
        name: "p".into(),
        operator: false,
        pattern: "^q".into(),
        apply_to: "classic_queues".into(),
        priority: i64::MIN,
        definition,
    };
    let policy = Policy::new(draft).unwrap();
    let update = VhostUpdate {
        description: Some("words".into()),
        tags: Some(vec!["a".into(), "b".into()]),
        default_queue_type: Some(Some(QueueType::Classic)),
        tracing: Some(true),
    };
    for command in [
        declare("/", "q", false, false, ""),
        command::set_policy(&policy),
        command::set_parameter(&parameter("/", "federation-upstream", "u"), "{\"uri\":\"amqp://\"}"),
        command::set_parameter(&parameter("", "", "g"), "1"),
        command::update_vhost("/", update),
        command::clear_policy("/", "none", true),
        command::clear_parameter(&parameter("", "", "g")),
    ] {
        let read = Command::decode(&command.encode_to_vec()[..]).unwrap();
        assert_eq!(read, command);
        assert!(apply(&mut catalog, &read)[0].refusal().is_none());
    }
    let snapshot = meta::Snapshot::decode(&catalog.to_snapshot().encode_to_vec()[..]).unwrap();
    let restored = Catalog::from_snapshot(&snapshot).unwrap();
    let topology = restored.topology();
    let vhost = topology.vhost("/").unwrap();
    assert_eq!(**vhost.policies().get("p", false).unwrap(), policy);
    assert_eq!(topology.queue("/", "q").unwrap().settings().message_ttl_ms, Some(i64::MAX as u64));
    assert_eq!(restored.parameters(), catalog.parameters());
    assert_eq!(restored.parameters().iter().count(), 1);
    let record = vhost.record();
    assert_eq!((record.description.as_str(), record.tags.len(), record.tracing), ("words", 2, true));
    assert_eq!(record.default_queue_type, Some(QueueType::Classic));
    assert_eq!(restored.to_snapshot(), catalog.to_snapshot());
}
