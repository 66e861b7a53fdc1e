//! Where messages go: alternate exchanges, and exchanges that do more than look for bindings.

use std::sync::Arc;

use super::*;
use crate::exchange::ExchangeKind;
use crate::field_table::{Arguments, TableBuilder, Value};
use crate::name::NodeId;

/// A vhost made of lines: `x NAME TYPE [argument=value ...]` and `b SOURCE KEY x|q DESTINATION`. Queues `q0` to `q4` have identities 0 to 4.
fn topology(lines: &[&str]) -> Topology {
    let mut topology = Topology::default();
    let record = VhostRecord::named("/");
    assert!(topology.add_vhost(record));
    for id in 0..5 {
        let record = QueueRecord {
            id: QueueId(id),
            vhost: "/".into(),
            name: format!("q{id}").into(),
            durable: false,
            auto_delete: false,
            exclusive_owner: None,
            arguments: Arguments::default(),
            node: NodeId(1),
            policies: Default::default(),
        };
        assert!(topology.add_queue(Arc::new(record)));
    }
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["x", name, kind, ref arguments @ ..] => assert!(topology.add_exchange(exchange(name, kind, arguments))),
            ["b", source, key, to, destination] => {
                let destination = match to {
                    "x" => Destination::Exchange(destination.into()),
                    _ => Destination::Queue(destination.into()),
                };
                let binding = Binding {
                    source: source.into(),
                    destination,
                    routing_key: Arc::from(key.as_bytes()),
                    arguments: Arguments::default(),
                };
                assert!(topology.add_binding("/", binding), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    topology
}

fn exchange(name: &str, kind: &str, arguments: &[&str]) -> ExchangeRecord {
    let table = arguments.iter().fold(TableBuilder::default(), |table, argument| {
        let (name, value) = argument.split_once('=').unwrap();
        match value.parse() {
            Ok(number) => table.with(name, Value::Int32(number)),
            Err(_) => table.with(name, Value::LongString(value.as_bytes())),
        }
    });
    ExchangeRecord {
        vhost: "/".into(),
        name: name.into(),
        kind: ExchangeKind::parse(kind).unwrap(),
        durable: false,
        auto_delete: false,
        internal: false,
        arguments: table.arguments(),
        policies: Default::default(),
        holder: None,
    }
}

fn header(fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let table = fields.iter().fold(TableBuilder::default(), |table, (name, value)| table.with(name, *value));
    let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0];
    header.extend((table.octets().len() as u32).to_be_bytes());
    header.extend(table.octets());
    header
}

fn reach(topology: &Topology, exchange: &str, key: &str, header: &[u8], dice: u64, may_wait: bool) -> Reached {
    let mut reached = Reached::default();
    let message = Routable { routing_key: key.as_bytes(), header, dice, may_wait };
    topology.route("/", exchange, &message, &mut reached).unwrap();
    reached
}

fn queues(topology: &Topology, exchange: &str, key: &str) -> Vec<u64> {
    reach(topology, exchange, key, &header(&[]), 0, true).queues.iter().map(|id| id.0).collect()
}

fn names(records: &[Arc<ExchangeRecord>]) -> Vec<&str> {
    records.iter().map(|record| record.name.as_str()).collect()
}

#[test]
fn an_alternate_exchange_gets_what_matches_nothing_with_its_key() {
    let topology = topology(&[
        "x first direct alternate-exchange=second",
        "x second topic alternate-exchange=third",
        "x third fanout",
        "b first a q q0",
        "b second b.# q q1",
        "b third - q q2",
    ]);
    assert_eq!(queues(&topology, "first", "a"), [0]);
    assert_eq!(queues(&topology, "first", "b.c"), [1]);
    assert_eq!(queues(&topology, "first", "c"), [2]);
}

#[test]
fn a_missing_alternate_exchange_drops_and_cycles_end() {
    let topology = topology(&[
        "x lost direct alternate-exchange=nowhere",
        "x self direct alternate-exchange=self",
        "x one direct alternate-exchange=two",
        "x two direct alternate-exchange=one",
        "x default direct alternate-exchange=",
        "b two k q q3",
    ]);
    assert!(queues(&topology, "lost", "k").is_empty() && queues(&topology, "self", "k").is_empty());
    assert_eq!(queues(&topology, "one", "k"), [3]);
    assert!(queues(&topology, "one", "other").is_empty() && queues(&topology, "two", "other").is_empty());
    // The default exchange routes only what is published to it.
    assert!(queues(&topology, "default", "q4").is_empty());
}

#[test]
fn a_binding_to_an_exchange_that_matches_nothing_is_a_match_all_the_same() {
    // RabbitMQ asks each exchange by itself: the alternate of the one that led on is not used.
    let topology = topology(&[
        "x first fanout alternate-exchange=third",
        "x second direct alternate-exchange=fourth",
        "x third fanout",
        "x fourth fanout",
        "b first - x second",
        "b third - q q0",
        "b fourth - q q1",
    ]);
    assert_eq!(queues(&topology, "first", "k"), [1]);
}

#[test]
fn what_must_not_be_remembered_by_key_is_found_behind_bindings_and_alternates() {
    let special = [
        "x special headers",
        "x special x-random",
        "x special x-recent-history",
        "x special x-delayed-message x-delayed-type=direct",
        "x special x-consistent-hash hash-header=h",
        "x special x-consistent-hash hash-property=message_id",
    ];
    let plain = ["x special direct", "x special fanout", "x special topic", "x special x-consistent-hash"];
    let around = [
        "x far direct",
        "x middle topic alternate-exchange=special",
        "x near fanout",
        "b far - x middle",
        "b near - x special",
        "x apart direct",
        "b apart k q q0",
    ];
    for (declared, by_key) in special.map(|line| (line, false)).into_iter().chain(plain.map(|line| (line, true))) {
        // Weights are keys to all others.
        let mut lines = vec![declared, "b special 1 q q1"];
        lines.extend(around);
        let topology = topology(&lines);
        let vhost = topology.vhost("/").unwrap();
        for exchange in ["special", "near", "middle", "far"] {
            assert_eq!(vhost.routes_by_key(exchange), by_key, "{declared}: {exchange}");
        }
        assert!(vhost.routes_by_key("apart") && vhost.routes_by_key(""));
    }
}

#[test]
fn a_random_exchange_takes_one_queue_whatever_the_keys() {
    let topology = topology(&["x r x-random", "b r a q q0", "b r b q q1"]);
    let copies = [&[b'S', 0, 0, 0, 1, b'a'][..], &[b'S', 0, 0, 0, 1, b'b']].concat();
    let mut field = vec![2, b'C', b'C', b'A', 0, 0, 0, copies.len() as u8];
    field.extend(&copies);
    let table = crate::field_table::FieldTable::parse(&field).unwrap();
    let header = header(&[("CC", table.lookup(b"CC").unwrap())]);
    let mut seen = [0; 2];
    for throw in 0..100_u64 {
        let dice = throw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let reached = reach(&topology, "r", "whatever", &header, dice, true);
        assert_eq!(reached.queues.len(), 1);
        seen[reached.queues[0].0 as usize] += 1;
    }
    assert!(seen.iter().all(|count| (30..=70).contains(count)), "{seen:?}");
}

#[test]
fn random_exchanges_on_one_way_choose_apart_from_each_other() {
    let topology = topology(&[
        "x both fanout",
        "x r x-random",
        "x s x-random",
        "b both - x r",
        "b both - x s",
        "b r - q q0",
        "b r - q q1",
        "b s - q q2",
        "b s - q q3",
    ]);
    let mut seen = std::collections::BTreeSet::new();
    for throw in 0..100_u64 {
        let dice = throw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut ids: Vec<u64> =
            reach(&topology, "both", "", &header(&[]), dice, true).queues.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        seen.insert(ids);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_recent_history_exchange_wants_each_message_on_whatever_way() {
    let topology = topology(&[
        "x h x-recent-history x-recent-history-length=3",
        "x d x-delayed-message x-delayed-type=x-recent-history",
        "x near fanout alternate-exchange=d",
        "x far fanout",
        "b far - x h",
        "b h - q q0",
    ]);
    let out = header(&[("x-recent-history-no-store", Value::Bool(true))]);
    for exchange in ["h", "far"] {
        let reached = reach(&topology, exchange, "k", &header(&[]), 0, true);
        assert_eq!((&reached.queues[..], names(&reached.kept_by)), (&[QueueId(0)][..], vec!["h"]));
        assert_eq!(reached.kept_by[0].history_length(), 3);
        let reached = reach(&topology, exchange, "k", &out, 0, true);
        assert_eq!((reached.queues.len(), reached.kept_by.len()), (1, 0));
    }
    for exchange in ["d", "near"] {
        let reached = reach(&topology, exchange, "k", &header(&[]), 0, true);
        assert_eq!((reached.queues.len(), names(&reached.kept_by)), (0, vec!["d"]));
        assert_eq!(reached.kept_by[0].history_length(), 20);
    }
    assert_eq!(exchange("f", "fanout", &["x-recent-history-length=3"]).history_length(), 0);
}

#[test]
fn a_delayed_exchange_holds_back_then_routes_as_its_inner_type() {
    let topology = topology(&[
        "x d x-delayed-message x-delayed-type=topic alternate-exchange=other",
        "x far fanout",
        "x other fanout",
        "b far - x d",
        "b far - q q1",
        "b d a.# q q0",
        "b other - q q2",
    ]);
    let vhost = topology.vhost("/").unwrap();
    assert!(vhost.delayed("d") && !vhost.delayed("far") && !vhost.delayed("none"));
    let delayed = header(&[("x-delay", Value::Int32(500))]);
    for key in ["a.b", "b"] {
        let reached = reach(&topology, "d", key, &delayed, 0, true);
        assert_eq!((reached.queues.len(), names(&reached.held_by)), (0, vec!["d"]));
    }
    let reached = reach(&topology, "far", "a.b", &delayed, 0, true);
    assert_eq!((&reached.queues[..], names(&reached.held_by)), (&[QueueId(1)][..], vec!["d"]));
    let over = crate::exchange::with_delay_over(&delayed).unwrap();
    for (header, may_wait) in [(&delayed, false), (&over, true), (&header(&[]), true)] {
        let reached = reach(&topology, "d", "a.b", header, 0, may_wait);
        assert_eq!((&reached.queues[..], reached.held_by.len()), (&[QueueId(0)][..], 0));
        assert_eq!(reach(&topology, "d", "b", header, 0, may_wait).queues[..], [QueueId(2)]);
    }
}

#[test]
fn declarations_and_bindings_are_checked_by_type() {
    let topology = topology(&[
        "x hash x-consistent-hash",
        "x late x-delayed-message x-delayed-type=x-consistent-hash",
        "x late-headers x-delayed-message x-delayed-type=headers",
    ]);
    let vhost = topology.vhost("/").unwrap();
    let declare = |name: &str, kind: &str, arguments: &[&str]| {
        let record = exchange(name, kind, arguments);
        let declaration = ExchangeDeclaration {
            name,
            kind: record.kind,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: record.arguments.table(),
        };
        vhost
            .check_exchange_declare(&declaration)
            .map(|check| check == Declare::New)
            .map_err(|refusal| refusal.reply().code)
    };
    assert_eq!(declare("new", "x-consistent-hash", &["hash-header=a"]), Ok(true));
    assert_eq!(declare("new", "x-consistent-hash", &["hash-header=a", "hash-property=timestamp"]), Err(406));
    assert_eq!(declare("new", "x-recent-history", &["x-recent-history-length=0"]), Err(406));
    assert_eq!(declare("new", "x-delayed-message", &[]), Err(406));
    assert_eq!(declare("new", "x-delayed-message", &["x-delayed-type=x-delayed-message"]), Err(406));
    assert_eq!(declare("new", "x-random", &["whatever=1"]), Ok(true));
    // Only the alternate exchange is compared, and arguments of the type are not even checked.
    assert_eq!(declare("hash", "x-consistent-hash", &["hash-header=a", "hash-property=b"]), Ok(false));
    assert_eq!(declare("late", "x-delayed-message", &["x-delayed-type=topic"]), Ok(false));
    assert_eq!(declare("late", "x-delayed-message", &["x-delayed-type=topic", "alternate-exchange=a"]), Err(406));
    assert_eq!(declare("hash", "x-random", &[]), Err(406));

    let bind = |source: &str, key: &str, arguments: TableBuilder| {
        let destination = Destination::Queue("q0".into());
        let arguments = arguments.arguments();
        let check = vhost.check_bind(source, &destination, key.as_bytes(), arguments.table(), 0);
        check.map(|_| ()).map_err(|refusal| refusal.reply().code)
    };
    let none = TableBuilder::default;
    let wrong_match = || none().with("x-match", Value::LongString(b"some"));
    for source in ["hash", "late"] {
        assert_eq!((bind(source, "1", none()), bind(source, "k", none())), (Ok(()), Err(406)), "{source}");
        assert_eq!(bind(source, "1", wrong_match()), Ok(()));
    }
    assert_eq!((bind("late-headers", "k", none()), bind("late-headers", "k", wrong_match())), (Ok(()), Err(406)));
}
