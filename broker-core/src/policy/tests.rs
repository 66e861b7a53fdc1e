//! Policies against RabbitMQ 3.10.8's answers, the cases of its documentation, and a naive model.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::arguments::{Overflow, QueueArguments};
use crate::exchange::ExchangeKind;
use crate::field_table::{Arguments, TableBuilder, Value};
use crate::name::{NodeId, QueueId};
use crate::topology::{Change, ExchangeRecord, QueueRecord, Topology, VhostRecord};

thread_local! {
    /// How often a name was held against a policy.
    pub(super) static MATCHED: Cell<usize> = const { Cell::new(0) };
}

fn number(number: i64) -> PolicyValue {
    PolicyValue::Number(number)
}

fn text(text: &str) -> PolicyValue {
    PolicyValue::Text(text.into())
}

fn list(items: &[&str]) -> PolicyValue {
    PolicyValue::List(items.iter().map(|item| (*item).into()).collect())
}

fn draft(name: &str, definition: &[(&str, PolicyValue)]) -> PolicyDraft {
    PolicyDraft {
        vhost: "/".into(),
        name: name.into(),
        operator: false,
        pattern: String::new(),
        apply_to: "all".into(),
        priority: 0,
        definition: definition.iter().map(|(key, value)| ((*key).into(), value.clone())).collect(),
    }
}

fn policy(name: &str, definition: &[(&str, PolicyValue)]) -> Policy {
    Policy::new(draft(name, definition)).unwrap()
}

fn operator_policy(name: &str, definition: &[(&str, PolicyValue)]) -> Policy {
    Policy::new(PolicyDraft { operator: true, ..draft(name, definition) }).unwrap()
}

/// What is wrong with a draft, without the line that all begin with.
fn faults(draft: PolicyDraft) -> String {
    let text = Policy::new(draft).unwrap_err().to_string();
    text.strip_prefix("Validation failed\n\n").unwrap().strip_suffix('\n').unwrap().to_owned()
}

/// A key, its value, and what RabbitMQ says; "" if it takes it.
type Answer = (&'static str, fn() -> PolicyValue, &'static str);
const ONE_KEY: &[Answer] = &[
    ("message-ttl", || number(0), ""),
    ("message-ttl", || number(-1), "-1 is not a valid message TTL"),
    ("message-ttl", || text("x"), "<<\"x\">> is not a valid message TTL"),
    ("message-ttl", || text(""), "<<>> is not a valid message TTL"),
    ("message-ttl", || PolicyValue::Flag(true), "true is not a valid message TTL"),
    ("message-ttl", || list(&[]), "[] is not a valid message TTL"),
    ("message-ttl", || list(&["a", "b"]), "[<<\"a\">>,<<\"b\">>] is not a valid message TTL"),
    ("message-ttl", || number(1_000_000_000_000), ""),
    ("expires", || number(0), "0 is not a valid queue expiry"),
    ("expires", || number(1), ""),
    ("max-length", || number(0), ""),
    ("max-length", || number(-1), "-1 is not a valid maximum length"),
    ("max-length-bytes", || number(-1), "-1 is not a valid maximum length in bytes"),
    ("max-in-memory-length", || number(-1), "-1 is not a valid maximum memory in bytes"),
    ("max-in-memory-bytes", || text("x"), "<<\"x\">> is not a valid maximum memory in bytes"),
    ("delivery-limit", || number(-1), "-1 is not a valid delivery limit"),
    ("initial-cluster-size", || number(-1), "-1 is not a valid cluster size"),
    ("stream-max-segment-size-bytes", || number(3_000_000_001), "3000000001 is not a valid segment size"),
    ("queue-version", || number(0), "0 is not a valid queue-version value"),
    ("queue-version", || number(2), ""),
    ("queue-version", || number(3), "3 is not a valid queue-version value"),
    ("queue-mode", || text("lazy"), ""),
    ("queue-mode", || number(1), "1 is not a valid queue-mode value"),
    ("overflow", || text("reject-publish-dlx"), ""),
    ("overflow", || text("x"), "<<\"x\">> is not a valid overflow value"),
    ("dead-letter-exchange", || text(""), ""),
    ("dead-letter-exchange", || number(1), "1 is not a valid dead letter exchange name"),
    ("dead-letter-routing-key", || number(1), "1 is not a valid dead letter routing key"),
    ("alternate-exchange", || number(1), "1 is not a valid alternate exchange name"),
    ("dead-letter-strategy", || text("x"), "<<\"x\">> is not a valid dead letter strategy"),
    ("max-age", || text("5D"), ""),
    ("max-age", || text("1Dx"), "<<\"1Dx\">> is not a valid max age"),
    ("queue-leader-locator", || text("x"), "<<\"x\">> is not a valid queue leader locator value"),
    ("queue-master-locator", || text("x"), "<<\"x\">> invalid queue-master-locator value"),
    ("queue-master-locator", || text("min-masters"), ""),
    ("ha-mode", || text("all"), ""),
    ("ha-mode", || text("x"), "<<\"x\">> is not a valid ha-mode value"),
    ("ha-mode", || text("exactly"), "ha-mode=\"exactly\" takes an integer, none given"),
    ("ha-mode", || text("nodes"), "ha-mode=\"nodes\" takes a list, none given"),
    ("federation-upstream-set", || text("all"), ""),
    ("federation-upstream-set", || number(5), "5 is not a valid federation upstream set name"),
    ("federation-upstream", || list(&["a"]), "[<<\"a\">>] is not a valid federation upstream name"),
    ("unknown-key", || number(-1), "[{<<\"unknown-key\">>,-1}] are not recognised policy settings"),
    ("x-max-length", || number(1), "[{<<\"x-max-length\">>,1}] are not recognised policy settings"),
];

#[test]
fn values_are_checked_as_rabbitmq_does() {
    for (key, value, expected) in ONE_KEY {
        let outcome = Policy::new(draft("p", &[(key, value())]));
        if expected.is_empty() {
            assert!(outcome.is_ok(), "{key}: {outcome:?}");
        } else {
            assert_eq!(faults(draft("p", &[(key, value())])), *expected);
        }
    }
}

#[test]
fn keys_of_mirroring_and_federation_are_checked_together() {
    let missing = "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown";
    for key in ["ha-params", "ha-sync-mode", "ha-sync-batch-size", "ha-promote-on-shutdown", "ha-promote-on-failure"] {
        assert_eq!(faults(draft("p", &[(key, number(1))])), missing);
    }
    for (mode, parameters, expected) in [
        ("all", number(1), "ha-mode=\"all\" does not take parameters"),
        ("exactly", number(2), ""),
        ("exactly", number(0), "ha-mode=\"exactly\" takes an integer, 0 given"),
        ("exactly", list(&["a"]), "ha-mode=\"exactly\" takes an integer, [<<\"a\">>] given"),
        ("nodes", list(&["a@b"]), ""),
        ("nodes", list(&[]), "ha-mode=\"nodes\" list must be non-empty"),
        ("nodes", text("a"), "ha-mode=\"nodes\" takes a list, <<\"a\">> given"),
    ] {
        let draft = draft("p", &[("ha-mode", text(mode)), ("ha-params", parameters)]);
        match Policy::new(draft.clone()) {
            Ok(_) => assert_eq!(expected, ""),
            Err(_) => assert_eq!(faults(draft), expected),
        }
    }
    for (key, value, expected) in [
        ("ha-sync-mode", text("x"), "ha-sync-mode must be \"manual\" or \"automatic\", got <<\"x\">>"),
        ("ha-sync-batch-size", number(0), "ha-sync-batch-size takes an integer greater than 0, 0 given"),
        ("ha-promote-on-shutdown", number(1), "ha-promote-on-shutdown must be \"always\" or \"when-synced\", got 1"),
        (
            "ha-promote-on-failure",
            text("x"),
            "ha-promote-on-failure must be \"always\" or \"when-synced\", got <<\"x\">>",
        ),
        ("max-length", number(-1), "-1 is not a valid maximum length"),
    ] {
        assert_eq!(faults(draft("p", &[("ha-mode", text("all")), (key, value)])), expected);
    }
    assert_eq!(
        faults(draft("p", &[("federation-upstream", text("a")), ("federation-upstream-set", text("b"))])),
        "cannot specify federation-upstream, federation-upstream-set or federation-upstream-pattern together"
    );
    assert_eq!(
        faults(draft("p", &[("federation-upstream-pattern", text("("))])),
        "could not compile pattern ( to a regular expression. Error: unclosed group"
    );
}

#[test]
fn all_faults_of_a_policy_are_told() {
    let bad = PolicyDraft {
        pattern: "(".into(),
        apply_to: "x".into(),
        ..draft("p", &[("a", text("x")), ("max-length", number(5)), ("b", number(1))])
    };
    assert_eq!(
        faults(bad),
        "[{<<\"a\">>,<<\"x\">>},{<<\"b\">>,1}] are not recognised policy settings\n\
         pattern should be regular expression but is invalid: unclosed group\n\
         apply-to 'x' unrecognised; should be 'queues', 'exchanges' or 'all'"
    );
    assert_eq!(faults(draft("p", &[])), "no policy provided");
    assert_eq!(faults(draft("", &[("max-length", number(1))])), "the policy has no name");
    assert_eq!(
        faults(draft("p", &[("max-length", number(1)), ("max-length", number(2))])),
        "the policy sets max-length twice"
    );
    let huge = text(&"x".repeat(DEFINITION_MAX_BYTES));
    assert_eq!(faults(draft("p", &[("dead-letter-exchange", huge)])), "the policy is longer than 65536 octets");
    assert_eq!(
        faults(draft("p", &[("ä\"\\\n\u{1}", number(1))])),
        "[{<<\"ä\\\"\\\\\\n\\x{1}\"/utf8>>,1}] are not recognised policy settings"
    );
}

#[test]
fn an_operator_policy_has_limits_only() {
    let limits = [
        "message-ttl",
        "expires",
        "max-length",
        "max-length-bytes",
        "max-in-memory-length",
        "max-in-memory-bytes",
        "delivery-limit",
    ];
    for key in limits {
        operator_policy("p", &[(key, number(1))]);
    }
    for (key, value) in [
        ("overflow", text("drop-head")),
        ("ha-mode", text("all")),
        ("dead-letter-exchange", text("x")),
        ("alternate-exchange", text("x")),
        ("queue-mode", text("lazy")),
        ("ha-params", number(1)),
    ] {
        let bad = PolicyDraft { operator: true, ..draft("p", &[(key, value.clone()), ("expires", number(1))]) };
        let shown = match value {
            PolicyValue::Text(text) => format!("<<\"{text}\">>"),
            _ => "1".into(),
        };
        assert_eq!(faults(bad), format!("[{{<<\"{key}\">>,{shown}}}] are not recognised policy settings"));
    }
    let bad = PolicyDraft { operator: true, ..draft("p", &[("message-ttl", number(-1))]) };
    assert_eq!(faults(bad), "-1 is not a valid message TTL");
}

#[test]
fn a_policy_governs_the_types_that_know_all_its_keys() {
    for (keys, classic, quorum) in [
        (&["message-ttl"][..], true, true),
        (&["delivery-limit"], false, true),
        (&["message-ttl", "delivery-limit"], false, true),
        (&["queue-mode"], true, false),
        (&["message-ttl", "queue-mode"], true, false),
        (&["delivery-limit", "queue-mode"], false, false),
        (&["ha-mode", "max-length"], true, false),
        (&["queue-master-locator"], true, false),
        (&["dead-letter-strategy"], false, true),
        (&["queue-leader-locator"], false, true),
        (&["max-age"], false, false),
        (&["initial-cluster-size"], false, false),
        (&["queue-version"], true, true),
        (&["alternate-exchange", "max-in-memory-length"], true, true),
        (&["federation-upstream-set"], true, true),
    ] {
        let definition: Vec<(&str, PolicyValue)> = keys
            .iter()
            .map(|&key| {
                let value = match key {
                    "queue-mode" => text("lazy"),
                    "ha-mode" | "alternate-exchange" | "federation-upstream-set" => text("all"),
                    "queue-master-locator" => text("random"),
                    "dead-letter-strategy" => text("at-most-once"),
                    "queue-leader-locator" => text("balanced"),
                    "max-age" => text("1D"),
                    _ => number(1),
                };
                (key, value)
            })
            .collect();
        let policy = policy("p", &definition);
        assert_eq!(policy.matches_queue("q", QueueType::Classic), classic, "{keys:?}");
        assert_eq!(policy.matches_queue("q", QueueType::Quorum), quorum, "{keys:?}");
        assert!(policy.matches_exchange("x"));
    }
}

#[test]
fn apply_to_says_what_a_policy_is_for() {
    for (apply_to, classic, quorum, exchange) in [
        ("all", true, true, true),
        ("queues", true, true, false),
        ("exchanges", false, false, true),
        ("classic_queues", true, false, false),
        ("quorum_queues", false, true, false),
        ("streams", false, false, false),
    ] {
        let draft = PolicyDraft { apply_to: apply_to.into(), ..draft("p", &[("max-length", number(1))]) };
        let policy = Policy::new(draft).unwrap();
        assert_eq!(policy.matches_queue("q", QueueType::Classic), classic, "{apply_to}");
        assert_eq!(policy.matches_queue("q", QueueType::Quorum), quorum, "{apply_to}");
        assert_eq!(policy.matches_exchange("q"), exchange, "{apply_to}");
        assert_eq!(policy.apply_to().name(), apply_to);
    }
}

#[test]
fn the_highest_priority_that_matches_wins() {
    let mut policies = Policies::default();
    for (name, pattern, priority, key) in [
        ("all", "", 0, "max-length"),
        ("b", "^a", 5, "max-length"),
        ("a", "^a", 5, "max-length"),
        ("high", "^a1$", 9, "max-length"),
        ("low", "z", -5, "max-length"),
        ("quorum", "^a1$", 99, "delivery-limit"),
    ] {
        let draft = PolicyDraft { pattern: pattern.into(), priority, ..draft(name, &[(key, number(1))]) };
        policies.put(Arc::new(Policy::new(draft).unwrap()));
    }
    let of = |policies: &Policies, queue: &str, queue_type| {
        policies.of_queue(queue, queue_type).policy.map(|policy| policy.name().to_owned())
    };
    assert_eq!(of(&policies, "a1", QueueType::Classic).unwrap(), "high");
    assert_eq!(of(&policies, "a1", QueueType::Quorum).unwrap(), "quorum");
    assert_eq!(of(&policies, "a2", QueueType::Classic).unwrap(), "a");
    assert_eq!(of(&policies, "ba", QueueType::Classic).unwrap(), "all");
    assert_eq!(of(&policies, "z", QueueType::Classic).unwrap(), "all");
    assert!(policies.remove("all", false).is_some() && policies.remove("all", false).is_none());
    assert!(policies.remove("all", true).is_none());
    assert_eq!(of(&policies, "za", QueueType::Classic).unwrap(), "low");
    assert_eq!(of(&policies, "b", QueueType::Classic), None);
    // A policy that is set again moves to its new place.
    let again = PolicyDraft { priority: 100, ..draft("low", &[("max-length", number(1))]) };
    assert_eq!(policies.put(Arc::new(Policy::new(again).unwrap())).unwrap().priority(), -5);
    assert_eq!(of(&policies, "a1", QueueType::Classic).unwrap(), "low");
    assert_eq!(policies.iter().count(), 5);
}

#[test]
fn there_is_room_for_so_many_policies() {
    let mut policies = Policies::default();
    for n in 0..POLICIES_MAX {
        let next = policy(&n.to_string(), &[("max-length", number(1))]);
        assert!(policies.has_room_for(&next));
        policies.put(Arc::new(next));
    }
    assert!(!policies.has_room_for(&policy("more", &[("max-length", number(1))])));
    assert!(policies.has_room_for(&policy("7", &[("max-length", number(2))])));
    assert!(policies.has_room_for(&operator_policy("more", &[("max-length", number(1))])));
}

fn queue(id: u64, name: &str, arguments: Arguments, policies: Governing) -> QueueRecord {
    QueueRecord {
        id: QueueId(id),
        vhost: "/".into(),
        name: name.into(),
        durable: true,
        auto_delete: false,
        exclusive_owner: None,
        arguments,
        policies,
        node: NodeId(1),
    }
}

fn settings(arguments: TableBuilder, policy: Option<Policy>, operator: Option<Policy>) -> QueueArguments {
    let policies = Governing { policy: policy.map(Arc::new), operator: operator.map(Arc::new) };
    queue(1, "q", arguments.arguments(), policies).settings()
}

#[test]
fn numbers_take_the_lowest_and_arguments_go_before_policies() {
    let none = TableBuilder::default;
    // Only a policy; only an operator policy.
    let ttl = || policy("p", &[("message-ttl", number(60_000)), ("max-length", number(5))]);
    assert_eq!(settings(none(), Some(ttl()), None).message_ttl_ms, Some(60_000));
    let expires = || operator_policy("transient-queue-ttl", &[("expires", number(1_800_000))]);
    assert_eq!(settings(none(), None, Some(expires())).expires_ms, Some(1_800_000));
    // Both, on different keys and on the same.
    let both = settings(none(), Some(ttl()), Some(expires()));
    assert_eq!((both.message_ttl_ms, both.max_length, both.expires_ms), (Some(60_000), Some(5), Some(1_800_000)));
    let lower = operator_policy("o", &[("message-ttl", number(10)), ("max-length", number(9))]);
    let both = settings(none(), Some(ttl()), Some(lower));
    assert_eq!((both.message_ttl_ms, both.max_length), (Some(10), Some(5)));
    // An argument is no way around a policy, nor a policy one around an argument.
    for (argument, expected) in [(4, 4), (6, 5), (5, 5), (0, 0)] {
        let arguments = none().with("x-max-length", Value::Int32(argument));
        assert_eq!(settings(arguments, Some(ttl()), None).max_length, Some(expected));
    }
    // Everything else: the argument, if there is one.
    let dead = || {
        policy(
            "dlx",
            &[
                ("dead-letter-exchange", text("px")),
                ("dead-letter-routing-key", text("pk")),
                ("overflow", text("reject-publish")),
                ("queue-mode", text("lazy")),
            ],
        )
    };
    let by_policy = settings(none(), Some(dead()), None);
    assert_eq!(by_policy.dead_letter_exchange.as_deref(), Some("px"));
    assert_eq!(by_policy.dead_letter_routing_key.as_deref(), Some(&b"pk"[..]));
    assert_eq!((by_policy.overflow, by_policy.lazy), (Overflow::RejectPublish, true));
    let said = none()
        .with("x-dead-letter-exchange", Value::LongString(b"ax"))
        .with("x-overflow", Value::LongString(b"drop-head"))
        .with("x-queue-mode", Value::LongString(b"default"));
    let by_argument = settings(said, Some(dead()), None);
    assert_eq!(by_argument.dead_letter_exchange.as_deref(), Some("ax"));
    assert_eq!(by_argument.dead_letter_routing_key.as_deref(), Some(&b"pk"[..]));
    assert_eq!((by_argument.overflow, by_argument.lazy), (Overflow::DropHead, false));
    // Nothing touches what no policy can say.
    let said = none().with("x-max-priority", Value::Int32(7)).with("x-single-active-consumer", Value::Bool(true));
    let kept = settings(said, Some(dead()), Some(expires()));
    assert_eq!((kept.max_priority, kept.single_active_consumer), (7, true));
    let quorum = none().with("x-queue-type", Value::LongString(b"quorum")).with("x-delivery-limit", Value::Int64(9));
    let limited = settings(quorum, None, Some(operator_policy("o", &[("delivery-limit", number(3))])));
    assert_eq!((limited.queue_type, limited.delivery_limit), (QueueType::Quorum, Some(3)));
}

/// Limits by key: an argument, a policy and an operator policy may each say one.
type Limits = BTreeMap<&'static str, u64>;
const LIMITS: [&str; 4] = ["message-ttl", "expires", "max-length", "max-length-bytes"];

fn limits() -> impl Strategy<Value = Limits> {
    proptest::collection::btree_map(proptest::sample::select(&LIMITS[..]), 1_u64..1_000, 0..4)
}

fn overflows() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(proptest::sample::select(&["drop-head", "reject-publish", "reject-publish-dlx"][..]))
}

fn made_of(limits: &Limits, overflow: Option<&str>) -> Vec<(&'static str, PolicyValue)> {
    let limits = limits.iter().map(|(key, value)| (*key, number(*value as i64)));
    limits.chain(overflow.map(|overflow| ("overflow", text(overflow)))).collect()
}

proptest! {
    #[test]
    fn merging_is_what_a_naive_model_says(
        arguments in limits(),
        by_policy in limits(),
        by_operator in limits(),
        overflow in overflows(),
        policy_overflow in overflows(),
    ) {
        let mut table = TableBuilder::default();
        for (key, value) in &arguments {
            table.push(format!("x-{key}").as_bytes(), Value::Int64(*value as i64));
        }
        if let Some(overflow) = overflow {
            table.push(b"x-overflow", Value::LongString(overflow.as_bytes()));
        }
        let ordinary = made_of(&by_policy, policy_overflow);
        let operator = made_of(&by_operator, None);
        let found = settings(
            table,
            (!ordinary.is_empty()).then(|| policy("p", &ordinary)),
            (!operator.is_empty()).then(|| operator_policy("o", &operator)),
        );
        let lowest = |key: &str| {
            let mut all: Vec<u64> =
                [&arguments, &by_policy, &by_operator].iter().filter_map(|limits| limits.get(key).copied()).collect();
            all.sort_unstable();
            all.first().copied()
        };
        let expected = QueueArguments {
            message_ttl_ms: lowest("message-ttl"),
            expires_ms: lowest("expires"),
            max_length: lowest("max-length"),
            max_length_bytes: lowest("max-length-bytes"),
            overflow: match overflow.or(policy_overflow) {
                Some("reject-publish") => Overflow::RejectPublish,
                Some("reject-publish-dlx") => Overflow::RejectPublishDlx,
                _ => Overflow::DropHead,
            },
            ..QueueArguments::default()
        };
        prop_assert_eq!(found, expected);
    }
}

fn topology(queues: u64) -> Topology {
    let mut topology = Topology::default();
    topology.add_vhost(VhostRecord::named("/"));
    for id in 1..=queues {
        let record = queue(id, &format!("q{id}"), Arguments::default(), Governing::default());
        assert!(topology.add_queue(Arc::new(record)));
    }
    topology
}

fn exchange<'t>(topology: &'t Topology, name: &str) -> &'t Arc<ExchangeRecord> {
    topology.exchange("/", name).unwrap()
}

#[test]
fn alternate_exchanges_come_by_policy_but_not_for_the_default_exchange() {
    let mut topology = topology(0);
    let add = |topology: &mut Topology, name: &str, alternate: Option<&str>| {
        let mut arguments = TableBuilder::default();
        if let Some(alternate) = alternate {
            arguments.push(b"alternate-exchange", Value::LongString(alternate.as_bytes()));
        }
        topology.add_exchange(ExchangeRecord {
            vhost: "/".into(),
            name: name.into(),
            kind: ExchangeKind::Fanout,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: arguments.arguments(),
            policies: Governing::default(),
            holder: None,
        });
    };
    add(&mut topology, "plain", None);
    add(&mut topology, "said", Some("amq.topic"));
    let before = topology.generation("/");
    let mut changes = Vec::new();
    assert!(topology.put_policy(policy("ae", &[("alternate-exchange", text("amq.headers"))]), &mut changes));
    assert!(changes.is_empty() && topology.generation("/") > before);
    assert_eq!(exchange(&topology, "plain").alternate_exchange(), Some("amq.headers"));
    assert_eq!(exchange(&topology, "said").alternate_exchange(), Some("amq.topic"));
    assert_eq!(exchange(&topology, "amq.direct").alternate_exchange(), Some("amq.headers"));
    assert_eq!(exchange(&topology, "").alternate_exchange(), None);
    assert_eq!(exchange(&topology, "").policies.policy.as_ref().unwrap().name(), "ae");
    // A route that may end at an exchange of type headers is not remembered by its key.
    assert!(!topology.vhost("/").unwrap().routes_by_key("plain"));
    assert!(topology.vhost("/").unwrap().routes_by_key(""));
    assert!(topology.remove_policy("/", "ae", false, &mut changes));
    assert_eq!(exchange(&topology, "plain").alternate_exchange(), None);
    assert!(topology.vhost("/").unwrap().routes_by_key("plain"));
}

#[test]
fn setting_and_clearing_is_linear_in_queues() {
    let queues = 10_000;
    let mut topology = topology(queues);
    let work = |act: &mut dyn FnMut(&mut Vec<Change>)| {
        let mut changes = Vec::new();
        let before = MATCHED.get();
        act(&mut changes);
        (MATCHED.get() - before, changes.len())
    };
    // Others that never match must not be tried on queues that have nothing to do with a change.
    for n in 0..20 {
        let name = format!("other{n}");
        let other = PolicyDraft { pattern: "^none".into(), priority: 9, ..draft(&name, &[("max-length", number(1))]) };
        topology.put_policy(Policy::new(other).unwrap(), &mut Vec::new());
    }
    let put = |pattern: &str, length| {
        let draft = PolicyDraft { pattern: pattern.into(), ..draft("p", &[("max-length", number(length))]) };
        Policy::new(draft).unwrap()
    };
    let matched = |topology: &Topology| topology.queues().filter(|queue| queue.settings().max_length.is_some()).count();
    let things = queues as usize + topology.vhost("/").unwrap().exchanges().count();
    // One in ten: those ending in 7, and `q7`.
    let (tried, changed) = work(&mut |changes| assert!(topology.put_policy(put("7$", 5), changes)));
    assert_eq!((changed, matched(&topology)), (1_000, 1_000));
    assert_eq!(tried, things + changed * 21);
    let (tried, changed) = work(&mut |changes| assert!(topology.put_policy(put("77$", 5), changes)));
    assert_eq!((changed, matched(&topology)), (1_000, 100));
    assert!(tried <= things + 1_000 * 21, "{tried}");
    let (tried, changed) = work(&mut |changes| assert!(topology.remove_policy("/", "p", false, changes)));
    assert_eq!((changed, matched(&topology)), (100, 0));
    assert_eq!(tried, changed * 20);
    let (tried, changed) = work(&mut |changes| assert!(!topology.remove_policy("/", "p", false, changes)));
    assert_eq!((tried, changed), (0, 0));
    // A declared queue is known by name and by identity with the same policies.
    topology.put_policy(put("^q1$", 3), &mut Vec::new());
    let (by_name, by_id) = (topology.queue("/", "q1").unwrap(), topology.queue_by_id(QueueId(1)).unwrap());
    assert!(Arc::ptr_eq(by_name, by_id) && by_id.settings().max_length == Some(3));
}
