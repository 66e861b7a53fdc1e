//! Files of a real RabbitMQ, files made up, and what goes wrong in them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::meta::command::Kind;
use proto::meta::policy_value::Kind as ValueKind;
use proto::meta::{self, Command, DestinationKind, Snapshot, set_limits};
use serde_json::{Value, json};

use super::*;

/// Exported by `rabbitmqctl export_definitions` of RabbitMQ 3.10.8.
const RECORDED: &[u8] = include_bytes!("../../tests/recorded/rabbitmq-3.10.8.json");

fn hash(password: &str) -> Result<StoredPassword, String> {
    if password.is_empty() {
        return Err("it is empty".into());
    }
    Ok(StoredPassword { algorithm: ARGON2ID.into(), hash: format!("hash of {password}") })
}

fn parsed(document: &Value) -> Result<Vec<Command>, DefinitionsError> {
    parse(document.to_string().as_bytes(), &mut hash)
}

fn complaint(document: &Value) -> String {
    parsed(document).unwrap_err().to_string()
}

/// What a catalog would hold after the commands.
fn snapshot_of(commands: &[Command]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut vhosts: BTreeMap<String, meta::VhostState> = BTreeMap::new();
    for command in commands {
        match command.kind.clone().unwrap() {
            Kind::PutUser(user) => snapshot.users.push(user),
            Kind::CreateVhost(vhost) => {
                let state = vhosts.entry(vhost.name.clone()).or_default();
                state.vhost = Some(vhost);
            }
            Kind::UpdateVhost(_) => {}
            Kind::SetPermissions(one) => snapshot.permissions.push(one),
            Kind::SetTopicPermissions(one) => snapshot.topic_permissions.push(one),
            Kind::SetLimits(one) => snapshot.limits.push(one),
            Kind::SetParameter(one) => snapshot.parameters.push(one),
            Kind::SetClusterName(one) => snapshot.cluster_name = one.name,
            Kind::SetPolicy(one) => vhosts.entry(one.vhost.clone()).or_default().policies.push(one),
            Kind::DeclareExchange(one) => vhosts.entry(one.vhost.clone()).or_default().exchanges.push(one),
            Kind::Bind(one) => vhosts.entry(one.vhost.clone()).or_default().bindings.push(one),
            Kind::DeclareQueue(queue) => {
                let state = meta::QueueState { id: 1, queue: Some(queue) };
                vhosts.entry(state.queue.as_ref().unwrap().vhost.clone()).or_default().queues.push(state);
            }
            other => unreachable!("no definitions hold {other:?}"),
        }
    }
    snapshot.vhosts = vhosts.into_values().collect();
    snapshot
}

/// A file with lists in one order, without what says the same thing twice or names the product.
fn content(document: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(document).unwrap();
    for key in ["product_name", "product_version"] {
        document.as_object_mut().unwrap().remove(key);
    }
    for vhost in document["vhosts"].as_array_mut().unwrap() {
        let vhost = vhost.as_object_mut().unwrap();
        ["limits", "description", "tags", "default_queue_type"].iter().for_each(|key| drop(vhost.remove(*key)));
    }
    for exchange in document["exchanges"].as_array_mut().unwrap() {
        exchange.as_object_mut().unwrap().entry("internal").or_insert(false.into());
    }
    for list in document.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
    document
}

#[test]
fn a_file_of_rabbitmq_comes_out_as_it_went_in() {
    let commands = parse(RECORDED, &mut hash).unwrap();
    let exported = export(&snapshot_of(&commands));
    assert_eq!(content(&exported), content(RECORDED));
    assert_eq!(content(&export(&snapshot_of(&parse(&exported, &mut hash).unwrap()))), content(&exported));
}

/// The place of a command's kind in the order of an import.
fn step_of(command: &Command) -> usize {
    match command.kind.as_ref().unwrap() {
        Kind::PutUser(_) => 0,
        Kind::CreateVhost(_) | Kind::UpdateVhost(_) => 1,
        Kind::SetLimits(_) => 2,
        Kind::SetPermissions(_) => 3,
        Kind::SetTopicPermissions(_) => 4,
        Kind::DeclareExchange(_) => 5,
        Kind::SetClusterName(_) => 6,
        Kind::SetParameter(one) if one.component.is_empty() => 6,
        Kind::SetPolicy(_) => 7,
        Kind::SetParameter(_) => 8,
        Kind::DeclareQueue(_) => 9,
        Kind::Bind(_) => 10,
        other => unreachable!("no definitions hold {other:?}"),
    }
}

#[test]
fn commands_come_in_rabbitmqs_order() {
    let steps: Vec<usize> = parse(RECORDED, &mut hash).unwrap().iter().map(step_of).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    assert!((0..=10).filter(|step| *step != 8).all(|step| steps.contains(&step)), "{steps:?}");
}

#[test]
fn what_a_file_says_becomes_commands() {
    let commands = parsed(&json!({
        "unknown": {"a": 1},
        "users": [{"name": "u", "password": "p", "tags": "a, b", "limits": {"max-channels": 3}, "extra": 1}],
        "vhosts": [{"name": "v", "metadata": {"description": "d", "tags": ["t"]}, "default_queue_type": "quorum"}],
        "parameters": [
            {"vhost": "v", "component": "operator_policy", "name": "o",
             "value": {"pattern": "^a", "definition": {"max-length": 5}, "apply-to": "queues", "priority": 7}},
            {"vhost": "v", "component": "shovel", "name": "s", "value": {"src-uri": "amqp://", "n": [1, null]}},
        ],
        "policies": [{"vhost": "v", "name": "p", "pattern": "", "definition":
            {"ha-params": ["a", "b"], "ha-mode": "nodes", "ha-promote": true, "z": -1}}],
    }))
    .unwrap();
    let snapshot = snapshot_of(&commands);
    assert_eq!(snapshot.users[0].tags, ["a", "b"]);
    assert_eq!((&*snapshot.users[0].hashing_algorithm, &*snapshot.users[0].password_hash), ("argon2id", "hash of p"));
    let limits = meta::SetLimits {
        of: Some(set_limits::Of::User("u".into())),
        max_channels: Some(3),
        ..meta::SetLimits::default()
    };
    assert_eq!(snapshot.limits, [limits]);
    let state = &snapshot.vhosts[0];
    let vhost = state.vhost.as_ref().unwrap();
    assert_eq!((&*vhost.description, &*vhost.tags[0], &*vhost.default_queue_type), ("d", "t", "quorum"));
    assert!(commands.iter().any(|command| matches!(&command.kind, Some(Kind::UpdateVhost(update))
        if update.description.as_deref() == Some("d") && update.default_queue_type.as_deref() == Some("quorum"))));
    let (policy, operator) = (&state.policies[0], &state.policies[1]);
    assert_eq!((&*policy.apply_to, policy.priority, policy.operator), ("all", 0, false));
    let values: Vec<_> = policy.definition.iter().map(|item| item.value.clone().unwrap().kind.unwrap()).collect();
    assert_eq!(
        values,
        [
            ValueKind::Text("nodes".into()),
            ValueKind::List(meta::TextList { items: vec!["a".into(), "b".into()] }),
            ValueKind::Flag(true),
            ValueKind::Number(-1),
        ]
    );
    assert_eq!((&*operator.name, &*operator.apply_to, operator.priority, operator.operator), ("o", "queues", 7, true));
    assert_eq!(snapshot.parameters[0].value, r#"{"n":[1,null],"src-uri":"amqp://"}"#);
}

#[test]
fn numbers_become_what_rabbitmq_makes_of_them() {
    let arguments =
        json!({"s": "x", "int": 1, "whole": 3.0, "null": null, "list": [true, []], "table": {"b": -1, "a": {}}});
    let queue = json!({"name": "q", "vhost": "v", "durable": true, "auto_delete": false, "arguments": arguments});
    let commands = parsed(&json!({ "queues": [queue] })).unwrap();
    let Some(Kind::DeclareQueue(queue)) = &commands[0].kind else { unreachable!() };
    let expected = [
        &b"\x03intl\0\0\0\0\0\0\0\x01"[..],
        b"\x04listA\0\0\0\x07t\x01A\0\0\0\0",
        b"\x04nullV",
        b"\x01sS\0\0\0\x01x",
        b"\x05tableF\0\0\0\x12\x01aF\0\0\0\0\x01bl\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x05wholed\x40\x08\0\0\0\0\0\0",
    ];
    assert_eq!(queue.arguments, expected.concat());
    assert_eq!(Value::Object(arguments::decode(&queue.arguments)), arguments);
}

#[test]
fn every_type_of_a_field_has_its_json() {
    let octets = [
        &b"\x01ab\xfb\x01bB\xc8\x01cs\xfe\xd4\x01du\xea\x60\x01eI\xff\xff\xff\xff\x01fi\xff\xff\xff\xff"[..],
        b"\x01gT\0\0\0\0\0\0\0\x05\x01hf\x3f\xc0\0\0\x01iD\x02\0\0\x30\x39\x01jS\0\0\0\x02\xff\x01\x01kL\0\0\0\0\0\0\0\x01",
        b"\x01lx\0\0\0\x01\x07\x01mt\0\x01nd\x7f\xf0\0\0\0\0\0\0",
    ];
    let expected = json!({
        "a": -5, "b": 200, "c": -300, "d": 60000, "e": -1, "f": 4294967295_u32, "g": 5, "h": 1.5, "i": 123.45,
        "j": "Not UTF-8, base64 is: /wE=", "k": 1, "l": "\u{7}", "m": false, "n": null,
    });
    assert_eq!(Value::Object(arguments::decode(&octets.concat())), expected);
    for cut in 0..40 {
        arguments::decode(&octets.concat()[..cut]);
    }
}

#[test]
fn errors_say_where() {
    let queue = |changes: Value| {
        let mut queue = json!({"name": "q", "vhost": "v", "durable": true, "auto_delete": false});
        changes.as_object().unwrap().iter().for_each(|(key, value)| queue[key] = value.clone());
        json!({ "queues": [{"name": "ok", "vhost": "v", "durable": true, "auto_delete": false}, queue] })
    };
    for (document, expected) in [
        (json!([1]), "the document: expected an object, found a list"),
        (json!({"users": 5}), "users: expected a list, found a number"),
        (json!({"users": [{"name": "x"}, "y"]}), "users[1]: expected an object, found text"),
        (queue(json!({"durable": "yes"})), "queues[1].durable: expected true or false, found text"),
        (queue(json!({"name": null})), "queues[1]: 'name' is missing"),
        (queue(json!({"name": "x".repeat(256)})), "queues[1].name: is 256 octets long, of at most 255"),
        (queue(json!({"arguments": [1]})), "queues[1].arguments: expected an object, found a list"),
        (
            json!({"policies": [{"vhost": "v", "name": "p", "pattern": "", "definition": {"max-length": 1.5}}]}),
            "policies[0].definition.max-length: expected a whole number of 64 bits, found a number",
        ),
        (
            json!({"bindings": [{"vhost": "v", "source": "s", "destination": "d", "destination_type": "topic", "routing_key": ""}]}),
            "bindings[0].destination_type: 'topic' is neither queue nor exchange",
        ),
        (
            json!({"parameters": [{"vhost": "v", "component": "vhost-limits", "name": "limits", "value": {"max-users": 1}}]}),
            "parameters[0].value.max-users: there is no such limit here",
        ),
        (
            json!({"users": [{"name": "u", "password": ""}]}),
            "users[0].password: the password cannot be used: it is empty",
        ),
        (
            json!({"users": [{"name": "u", "password": "p", "password_hash": "h"}]}),
            "users[0]: holds a password and a password_hash; one of them must go",
        ),
    ] {
        assert_eq!(complaint(&document), expected);
    }
    let syntax = parse(b"{\n nonsense", &mut hash).unwrap_err().to_string();
    assert_eq!(syntax, "the definitions are not JSON: key must be a string at line 2 column 2");
}

#[test]
fn a_file_of_one_vhost_is_refused() {
    let text = complaint(&json!({"queues": [{"name": "q", "durable": true, "auto_delete": false, "arguments": {}}]}));
    assert!(text.starts_with("queues[0] names no vhost: this is an export of a single vhost"), "{text}");
}

#[test]
fn hashes_are_kept_and_md5_is_refused() {
    let user = |algorithm: Value| json!({"name": "u", "password_hash": "AAAA", "hashing_algorithm": algorithm});
    for algorithm in ["rabbit_password_hashing_sha256", "rabbit_password_hashing_sha512", "argon2id"] {
        let commands = parsed(&json!({ "users": [user(algorithm.into())] })).unwrap();
        let Some(Kind::PutUser(put)) = &commands[0].kind else { unreachable!() };
        assert_eq!((&*put.hashing_algorithm, &*put.password_hash), (algorithm, "AAAA"));
    }
    let md5 = complaint(&json!({ "users": [user("rabbit_password_hashing_md5".into())] }));
    assert!(md5.starts_with("users[0].hashing_algorithm: rabbit_password_hashing_md5 is not accepted"), "{md5}");
    let other = complaint(&json!({ "users": [user("x".into())] }));
    assert!(other.starts_with("users[0].hashing_algorithm: 'x' is not known"), "{other}");
    let old = complaint(&json!({"rabbit_version": "3.5.7", "users": [user(Value::Null)]}));
    assert!(old.starts_with("users[0]: password hashes of RabbitMQ before 3.6 are MD5"), "{old}");
    let new = parsed(&json!({"rabbit_version": "3.10.8", "users": [user(Value::Null)]})).unwrap();
    assert!(matches!(&new[0].kind, Some(Kind::PutUser(user)) if user.hashing_algorithm == RABBIT_SHA256));
}

#[test]
fn a_hash_rabbitmq_cannot_read_travels_beside_an_empty_one() {
    let user = meta::PutUser {
        name: "u".into(),
        password_hash: "$argon2id$x".into(),
        hashing_algorithm: ARGON2ID.into(),
        tags: Vec::new(),
    };
    let exported = export(&Snapshot { users: vec![user.clone()], ..Snapshot::default() });
    let value: Value = serde_json::from_slice(&exported).unwrap();
    assert_eq!(value["users"][0]["password_hash"], "");
    assert_eq!(value["users"][0]["hashing_algorithm"], RABBIT_SHA256);
    let commands = parse(&exported, &mut hash).unwrap();
    assert_eq!(commands[0].kind, Some(Kind::PutUser(user)));
}

#[test]
fn what_comes_along_by_itself_is_not_exported() {
    let queue = |name: &str, exclusive_owner| meta::QueueState {
        id: 1,
        queue: Some(meta::DeclareQueue {
            vhost: "v".into(),
            name: name.into(),
            exclusive_owner,
            ..meta::DeclareQueue::default()
        }),
    };
    let exchange =
        |name: &str| meta::DeclareExchange { vhost: "v".into(), name: name.into(), ..meta::DeclareExchange::default() };
    let binding = |source: &str, destination: &str| meta::Bind {
        vhost: "v".into(),
        source: source.into(),
        destination: destination.into(),
        ..meta::Bind::default()
    };
    let state = meta::VhostState {
        vhost: Some(meta::CreateVhost { name: "v".into(), ..meta::CreateVhost::default() }),
        queues: vec![queue("kept", None), queue("mine", Some(5))],
        exchanges: vec![exchange(""), exchange("amq.direct"), exchange("own")],
        bindings: vec![
            binding("", "kept"),
            binding("amq.direct", "kept"),
            binding("own", "mine"),
            binding("gone", "kept"),
            binding("own", "kept"),
        ],
        ..meta::VhostState::default()
    };
    let exported = export(&Snapshot { vhosts: vec![state], ..Snapshot::default() });
    let value: Value = serde_json::from_slice(&exported).unwrap();
    let names = |list: &str, key: &str| -> Vec<String> {
        value[list].as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("queues", "name"), ["kept"]);
    assert_eq!(names("exchanges", "name"), ["own"]);
    assert_eq!(names("bindings", "source"), ["amq.direct", "own"]);
}

#[test]
fn a_long_document_and_a_deep_one_are_refused() {
    let long = vec![b' '; DOCUMENT_MAX_BYTES + 1];
    assert_eq!(parse(&long, &mut hash), Err(DefinitionsError::TooLong(DOCUMENT_MAX_BYTES + 1)));
    let deep = "[".repeat(100_000);
    assert!(matches!(parse(deep.as_bytes(), &mut hash), Err(DefinitionsError::Syntax(_))));
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let queue = json!({"name": "q", "vhost": "v", "durable": true, "auto_delete": false, "arguments": {"a": nested}});
    assert!(complaint(&json!({ "queues": [queue] })).contains("is nested more than 60 deep"));
}

#[test]
fn the_last_of_a_key_that_comes_twice_counts() {
    let document = br#"{"users": [{"name": "a", "name": "b", "tags": ["x"], "tags": []}]}"#;
    let commands = parse(document, &mut hash).unwrap();
    assert!(matches!(&commands[0].kind, Some(Kind::PutUser(user)) if user.name == "b" && user.tags.is_empty()));
}

fn any_json(depth: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z~é]{0,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_arguments() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-z-]{1,8}", any_json(4), 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

prop_compose! {
    fn any_snapshot()(
        users in proptest::collection::vec((".{1,8}", any::<bool>(), proptest::collection::vec("[a-z]{1,5}", 0..3)), 0..4),
        queues in proptest::collection::vec((".{0,8}", any::<bool>(), any_arguments()), 0..5),
        bindings in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 0..9), any_arguments()), 0..5),
        parameters in proptest::collection::vec(("[a-z]{1,5}", any_json(3).prop_filter("null is no value", |value| !value.is_null())), 0..3),
        limit in proptest::option::of(any::<i64>()),
    ) -> Snapshot {
        let vhost = "/";
        let octets = |arguments: &Value| arguments::encode(&place::Place::top(arguments)).unwrap();
        let queues: Vec<_> = queues.into_iter().map(|(name, durable, arguments)| meta::QueueState {
            id: 1,
            queue: Some(meta::DeclareQueue {
                vhost: vhost.into(), name, durable, auto_delete: !durable, arguments: octets(&arguments), ..Default::default()
            }),
        }).collect();
        let bindings = if queues.is_empty() { Vec::new() } else { bindings };
        let bindings = bindings.into_iter().map(|(queue, routing_key, arguments)| meta::Bind {
            vhost: vhost.into(),
            source: "amq.topic".into(),
            destination_kind: DestinationKind::Queue.into(),
            destination: queue.get(&queues).queue.as_ref().unwrap().name.clone(),
            routing_key,
            arguments: octets(&arguments),
        }).collect();
        Snapshot {
            cluster_name: "c".into(),
            users: users.into_iter().map(|(name, native, tags)| meta::PutUser {
                name,
                password_hash: "h".into(),
                hashing_algorithm: if native { ARGON2ID } else { RABBIT_SHA256 }.into(),
                tags,
            }).collect(),
            limits: vec![meta::SetLimits { of: Some(set_limits::Of::Vhost(vhost.into())), max_queues: limit, ..Default::default() }],
            parameters: parameters.into_iter().map(|(name, value)| meta::SetParameter {
                vhost: vhost.into(), component: "c".into(), name, value: value.to_string(),
            }).collect(),
            vhosts: vec![meta::VhostState {
                vhost: Some(meta::CreateVhost { name: vhost.into(), ..Default::default() }), queues, bindings, ..Default::default()
            }],
            ..Snapshot::default()
        }
    }
}

proptest! {
    #[test]
    fn what_is_exported_is_imported_again(snapshot in any_snapshot()) {
        let mut commands = parse(&export(&snapshot), &mut hash).unwrap();
        // Every user's limits are said, also where there are none.
        commands.retain(|command| !matches!(&command.kind, Some(Kind::SetLimits(one)) if matches!(one.of, Some(set_limits::Of::User(_)))));
        prop_assert_eq!(snapshot_of(&commands), snapshot);
    }

    #[test]
    fn any_document_is_read_or_refused(document in any_json(6), section in 0..9_usize, octets in proptest::collection::vec(any::<u8>(), 0..64)) {
        let sections = ["users", "vhosts", "permissions", "policies", "parameters", "queues", "exchanges", "bindings", "global_parameters"];
        let _ = parsed(&json!({ sections[section]: [document] }));
        let _ = parse(&octets, &mut hash);
        arguments::decode(&octets);
    }
}
