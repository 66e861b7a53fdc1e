//! Topic and headers exchanges against naive matchers, while bindings come and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_core::exchange::ExchangeKind;
use broker_core::field_table::{Arguments, FieldTable, TableBuilder, Value};
use broker_core::name::{NodeId, QueueId};
use broker_core::policy::Governing;
use broker_core::properties::{self, flag};
use broker_core::topology::{
    Binding, Destination, ExchangeRecord, QueueRecord, Reached, Routable, Topology, VhostRecord,
};

use super::octets::Octets;

const QUEUES: u64 = 4;
const WORDS: [&str; 12] = ["a", "b", ".", ".", ".", "*", "#", "*.#", "#.a", ".*.", "", "aa"];
const NAMES: [&str; 8] = ["a", "b", "x-a", "x-match", "x-match", "c", "", "x-"];
const VALUES: [&str; 7] = ["any", "all", "any-with-x", "all-with-x", "1", "v", ""];

/// Binds, unbinds, and routes.
pub fn live(octets: &[u8]) {
    let mut octets = Octets(octets);
    let mut topology = topology();
    let mut bindings: BTreeSet<Binding> = BTreeSet::new();
    while !octets.is_empty() {
        match octets.below(4) {
            0 | 1 => {
                let binding = binding(&mut octets);
                assert_eq!(topology.add_binding("/", binding.clone()), bindings.insert(binding));
            }
            2 => {
                let at = octets.below(bindings.len().max(1));
                if let Some(binding) = bindings.iter().nth(at).cloned() {
                    assert!(topology.remove_binding("/", &binding, &mut Vec::new()));
                    bindings.remove(&binding);
                }
            }
            _ => route(&topology, &bindings, &mut octets),
        }
    }
}

fn route(topology: &Topology, bindings: &BTreeSet<Binding>, octets: &mut Octets<'_>) {
    let key = octets.words(&WORDS, 12);
    let headers = octets.table(&NAMES, &VALUES, 6, 2);
    let header =
        properties::changed(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[(flag::HEADERS, Some(headers.octets()))]);
    let header = header.unwrap();
    let message = Routable { routing_key: key.as_bytes(), header: &header, dice: 0, may_wait: false };
    for exchange in ["topic", "headers"] {
        let mut reached = Reached::default();
        topology.route("/", exchange, &message, &mut reached).unwrap();
        let matches = |binding: &&Binding| match exchange {
            "topic" => matches_topic(&split(&binding.routing_key), &split(key.as_bytes())),
            _ => matches_headers(binding.arguments.table(), headers.table()),
        };
        let from = bindings.iter().filter(|binding| &*binding.source == exchange);
        let expected: BTreeSet<QueueId> = from.filter(matches).map(|binding| queue_of(&binding.destination)).collect();
        assert_eq!(reached.queues.len(), expected.len(), "each queue once");
        assert_eq!(reached.queues.into_iter().collect::<BTreeSet<_>>(), expected, "{exchange} {key:?} {headers:?}");
    }
}

fn binding(octets: &mut Octets<'_>) -> Binding {
    let source = octets.one_of(&["topic", "headers"]);
    let arguments = if source == "topic" { TableBuilder::default() } else { octets.table(&NAMES, &VALUES, 5, 2) };
    let queue = 1 + octets.below(QUEUES as usize);
    Binding {
        source: source.into(),
        destination: Destination::Queue(format!("q{queue}").as_str().into()),
        routing_key: octets.words(&WORDS, 10).as_bytes().into(),
        arguments: Arguments::sorted(arguments.table()),
    }
}

fn queue_of(destination: &Destination) -> QueueId {
    match destination {
        Destination::Queue(name) => QueueId(name.trim_start_matches('q').parse().unwrap()),
        Destination::Exchange(name) => panic!("nothing is bound to exchange {name}"),
    }
}

fn split(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|octet| *octet == b'.').collect() }
}

/// The definition, by a table over both.
fn matches_topic(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    let mut row: Vec<bool> = (0..=key.len()).map(|at| at == 0).collect();
    for word in pattern {
        let mut next = vec![false; key.len() + 1];
        for at in 0..=key.len() {
            next[at] = match *word {
                b"#" => row[at] || (at > 0 && next[at - 1]),
                b"*" => at > 0 && row[at - 1],
                word => at > 0 && row[at - 1] && key[at - 1] == word,
            };
        }
        row = next;
    }
    row[key.len()]
}

/// The definition for headers of which every name comes once; of others, RabbitMQ's walk over both sorted lists.
fn matches_headers(arguments: FieldTable<'_>, headers: FieldTable<'_>) -> bool {
    let x_match = match arguments.lookup(b"x-match") {
        Some(Value::LongString(text)) => text,
        _ => b"all",
    };
    let wants_all = !matches!(x_match, b"any" | b"any-with-x");
    let with_x = matches!(x_match, b"all-with-x" | b"any-with-x");
    let mut sorted: Vec<_> = headers.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut rest = sorted.as_slice();
    for (name, wanted) in
        arguments.iter().filter(|(name, _)| *name != b"x-match" && (with_x || !name.starts_with(b"x-")))
    {
        let ahead = rest.iter().position(|(header, _)| *header >= name).unwrap_or(rest.len());
        rest = &rest[ahead..];
        let held = rest.first().filter(|(header, _)| *header == name);
        let matched = held.is_some_and(|(_, value)| wanted == Value::Void || wanted.same_value(value));
        rest = if held.is_some() { &rest[1..] } else { rest };
        if matched != wants_all {
            return matched;
        }
    }
    wants_all
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    topology.add_vhost(VhostRecord::named("/"));
    for id in 1..=QUEUES {
        topology.add_queue(Arc::new(QueueRecord {
            id: QueueId(id),
            vhost: "/".into(),
            name: format!("q{id}").as_str().into(),
            durable: true,
            auto_delete: false,
            exclusive_owner: None,
            arguments: Arguments::default(),
            policies: Governing::default(),
            node: NodeId(1),
        }));
    }
    for (name, kind) in [("topic", ExchangeKind::Topic), ("headers", ExchangeKind::Headers)] {
        topology.add_exchange(ExchangeRecord {
            vhost: "/".into(),
            name: name.into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments::default(),
            policies: Governing::default(),
            holder: None,
        });
    }
    topology
}
