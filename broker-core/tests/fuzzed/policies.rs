//! Policies with any definition and any pattern, set and cleared while queues come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::arguments::QueueType;
use broker_core::field_table::Arguments;
use broker_core::name::{NodeId, QueueId};
use broker_core::policy::{Governing, Policy, PolicyDraft, PolicyValue};
use broker_core::topology::{QueueRecord, Topology, VhostRecord};

use super::octets::Octets;

const KEYS: [&str; 20] = [
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "expires",
    "delivery-limit",
    "overflow",
    "queue-mode",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "alternate-exchange",
    "ha-mode",
    "ha-params",
    "ha-sync-mode",
    "ha-promote-on-shutdown",
    "queue-master-locator",
    "max-age",
    "federation-upstream",
    "federation-upstream-set",
    "unknown",
    "",
];
const TEXTS: [&str; 12] =
    ["drop-head", "reject-publish", "lazy", "default", "all", "exactly", "nodes", "automatic", "1Y", "7D", "x", ""];
const PIECES: [&str; 24] = [
    "^", "$", "a", "q", ".*", ".+", "(", ")", "|", "[a-z]", "[^", "]", "{9}", "{99}", "{999}", "{", "\\w", "\\p{L}",
    "\\", "?", "*?", "(?i)", "(a*)*", "1",
];
const NAMES: [&str; 5] =
    ["q1", "a", "", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "Q-ö"];

/// Changes policies and queues, and looks at every queue after each change.
pub fn live(octets: &[u8]) {
    let mut octets = Octets(octets);
    let mut topology = Topology::default();
    topology.add_vhost(VhostRecord::named("/"));
    let mut held: BTreeMap<(bool, String), Policy> = BTreeMap::new();
    let mut id = 0;
    while !octets.is_empty() {
        match octets.below(5) {
            0..=2 => match Policy::new(draft(&mut octets)) {
                Ok(policy) => {
                    assert!(topology.put_policy(policy.clone(), &mut Vec::new()));
                    held.insert((policy.operator(), policy.name().into()), policy);
                }
                Err(bad) => assert!(bad.to_string().starts_with("Validation failed\n\n")),
            },
            3 => {
                let at = octets.below(held.len().max(1));
                if let Some((operator, name)) = held.keys().nth(at).cloned() {
                    assert!(topology.remove_policy("/", &name, operator, &mut Vec::new()));
                    held.remove(&(operator, name));
                }
            }
            _ => {
                id += 1;
                let name = octets.one_of(&NAMES);
                // As a declaration does.
                let policies = topology.vhost("/").unwrap().policies().of_queue(name, QueueType::Classic);
                topology.add_queue(Arc::new(queue(id, name, policies)));
            }
        }
        topology.queues().for_each(|queue| check(queue, &held));
    }
}

fn draft(octets: &mut Octets<'_>) -> PolicyDraft {
    let value = |octets: &mut Octets<'_>| match octets.below(4) {
        0 | 1 => PolicyValue::Number(octets.number()),
        2 => PolicyValue::Text(octets.one_of(&TEXTS).into()),
        _ if octets.below(2) == 0 => PolicyValue::Flag(true),
        _ => PolicyValue::List((0..octets.below(4)).map(|_| octets.one_of(&TEXTS).into()).collect()),
    };
    PolicyDraft {
        vhost: "/".into(),
        name: octets.one_of(&["p", "r", "s", ""]).into(),
        operator: octets.below(3) == 0,
        pattern: octets.words(&PIECES, 16),
        apply_to: octets
            .one_of(&["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams", "none"])
            .into(),
        priority: octets.number(),
        definition: (0..octets.below(4)).map(|_| (octets.one_of(&KEYS).into(), value(octets))).collect(),
    }
}

fn queue(id: u64, name: &str, policies: Governing) -> QueueRecord {
    QueueRecord {
        id: QueueId(id),
        vhost: "/".into(),
        name: name.into(),
        durable: true,
        auto_delete: false,
        exclusive_owner: None,
        arguments: Arguments::default(),
        policies,
        node: NodeId(1),
    }
}

/// The policy that governs is, of those that match, one of the highest priority; numbers are the lower ones of both.
fn check(queue: &QueueRecord, held: &BTreeMap<(bool, String), Policy>) {
    let best = |wanted: bool| {
        let matching =
            held.values().filter(|one| one.operator() == wanted && one.matches_queue(&queue.name, queue.queue_type()));
        matching.map(Policy::priority).max()
    };
    assert_eq!(queue.policies.policy.as_ref().map(|policy| policy.priority()), best(false));
    assert_eq!(queue.policies.operator.as_ref().map(|policy| policy.priority()), best(true));
    let of = |policy: &Option<Arc<Policy>>, key: &str| {
        policy.as_ref().and_then(|policy| policy.definition().get(key).cloned())
    };
    for (key, value) in queue.policies.effective() {
        match (of(&queue.policies.policy, key), of(&queue.policies.operator, key)) {
            (Some(PolicyValue::Number(one)), Some(PolicyValue::Number(two))) => {
                assert_eq!(value, PolicyValue::Number(one.min(two)))
            }
            (one, two) => assert_eq!(Some(value), two.or(one)),
        }
    }
    // Whatever they say, it makes settings.
    let _ = queue.settings();
}
