//! How long routing and changes of metadata take: `cargo run --release -p broker-meta --example metadata_speed`.
//!
//! Prints one line a measurement: processor time and time on the clock, and what the last tenth cost beside the first: about 1 means linear.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures time, and nobody else's input comes in"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::exchange::ExchangeKind;
use broker_core::field_table::{Arguments, FieldTable, TableBuilder, Value};
use broker_core::name::NodeId;
use broker_core::store::disk::RealDisk;
use broker_core::topology::{Binding, Destination, ExchangeDeclaration, QueueDeclaration, Reached, Routable, Topology};
use broker_meta::{Catalog, Command, LocalCatalog, command};

/// A content header without properties.
const HEADER: [u8; 14] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn main() {
    // First, so that the memory of queues is not taken from what earlier ones gave back.
    bulk();
    routing();
    on_disk();
}

fn routing() {
    let queues = 10_000;
    let topic = topology(ExchangeKind::Topic, queues, |at| format!("stock.*.{}.{at}.#", at % 100));
    route("topic, 10,000 patterns stock.*.A.B.#, 1 match", &topic, "stock.nyse.42.4242.price.last");
    let hashes = topology(ExchangeKind::Topic, queues, |at| format!("#.w{at}.#"));
    route("topic, 10,000 patterns #.W.#, 2 matches", &hashes, "a.w17.b.w4711.c.d.e");
    let hostile = topology(ExchangeKind::Topic, 100, |at| format!("{}.{at}", ["#"; 100].join(".")));
    route("topic, 100 patterns of 100 #, 120 words", &hostile, &["a"; 120].join("."));
    let wildcards = topology(ExchangeKind::Topic, queues, |at| {
        (0..14).map(|bit| if at >> bit & 1 == 0 { "#" } else { "*" }).collect::<Vec<_>>().join(".")
    });
    route("topic, 10,000 rows of wildcards, 6 words", &wildcards, &["a"; 6].join("."));
    // Every place is reached again with every word.
    let mixed = topology(ExchangeKind::Topic, queues, |at| {
        let words = (0..14).map(|bit| if at >> bit & 1 == 0 { "#.a" } else { "*.a" }).collect::<Vec<_>>();
        format!("{}.no", words.join("."))
    });
    route("topic, 10,000 rows of #.a and *.a, no match, 127 words", &mixed, &["a"; 127].join("."));
    let direct = topology(ExchangeKind::Direct, queues, |at| format!("key{at}"));
    route("direct, 10,000 keys, 1 match", &direct, "key4711");
    let fanout = topology(ExchangeKind::Fanout, 10, |at| format!("key{at}"));
    route("fanout, 10 queues", &fanout, "");
    let hash = topology(ExchangeKind::ConsistentHash, 10, |_| "1".into());
    route("consistent hash, 10 queues", &hash, "key4711");
    let hash = topology(ExchangeKind::ConsistentHash, queues, |at| (1 + at % 9).to_string());
    route("consistent hash, 10,000 queues of 9 weights", &hash, "key4711");
    let random = topology(ExchangeKind::Random, queues, |at| format!("key{at}"));
    route("random, 10,000 queues", &random, "");
    let headers = topology(ExchangeKind::Headers, queues, |at| format!("key{at}"));
    let mut out = Reached::default();
    time("headers, 10,000 bindings of 2 arguments, no match", 500, |_| {
        headers.route("/", "x", &message(b""), &mut out).unwrap();
    });
    time("default exchange, 10,000 queues", 200_000, |_| {
        direct.route("/", "", &message(b"q4711"), &mut out).unwrap();
        assert_eq!(out.queues.len(), 1);
    });
}

fn message(routing_key: &[u8]) -> Routable<'_> {
    Routable { routing_key, header: &HEADER, dice: 0x1234_5678_9abc_def0, may_wait: false }
}

fn route(what: &str, topology: &Topology, key: &str) {
    let mut out = Reached::default();
    time(what, 2_000, |_| {
        topology.route("/", "x", &message(key.as_bytes()), &mut out).unwrap();
        black_box(&out);
    });
}

/// Queues bound to an exchange `x`, each once.
fn topology(kind: ExchangeKind, queues: usize, key: impl Fn(usize) -> String) -> Topology {
    let mut catalog = Catalog::default();
    let mut apply = |command: Command| {
        let index = catalog.index() + 1;
        catalog.apply(index, &command);
    };
    apply(command::create_vhost("/", "", &[]));
    let declaration = ExchangeDeclaration {
        name: "x",
        kind,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::EMPTY,
    };
    apply(command::declare_exchange("/", &declaration));
    for at in 0..queues {
        apply(declare(&format!("q{at}")));
        apply(command::bind("/", &binding(&format!("q{at}"), &key(at), at)));
    }
    catalog.topology()
}

fn binding(queue: &str, key: &str, at: usize) -> Binding {
    let arguments =
        TableBuilder::default().with("type", Value::Int64(at as i64)).with("x-match", Value::LongString(b"any"));
    Binding {
        source: "x".into(),
        destination: Destination::Queue(queue.into()),
        routing_key: Arc::from(key.as_bytes()),
        arguments: Arguments::sorted(FieldTable::parse(arguments.octets()).unwrap()),
    }
}

fn declare(name: &str) -> Command {
    let declaration = QueueDeclaration {
        name,
        server_named: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: FieldTable::EMPTY,
        connection: 0,
    };
    command::declare_queue("/", &declaration, NodeId(1))
}

/// 100,000 of everything, with a snapshot taken after each command, as if each came alone.
fn bulk() {
    const COUNT: usize = 100_000;
    let mut catalog = Catalog::default();
    catalog.apply(1, &command::create_vhost("/", "", &[]));
    let declaration = ExchangeDeclaration {
        name: "x",
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::EMPTY,
    };
    catalog.apply(2, &command::declare_exchange("/", &declaration));
    let before = resident_kib();
    let mut snapshot = catalog.topology();
    let mut apply = |command: Command, snapshot: &mut Topology| {
        let index = catalog.index() + 1;
        catalog.apply(index, &command);
        *snapshot = catalog.topology();
    };
    time("declare 100,000 queues, a snapshot each", COUNT, |at| apply(declare(&format!("queue-{at}")), &mut snapshot));
    let kib = resident_kib() - before;
    println!("{:52} {:>10.0} octets", "memory of a queue", kib as f64 * 1024.0 / COUNT as f64);
    time("bind 100,000 queues to a topic exchange", COUNT, |at| {
        apply(command::bind("/", &binding(&format!("queue-{at}"), &format!("key.{at}"), at)), &mut snapshot);
    });
    time("declare 100,000 queues that exist", COUNT, |at| apply(declare(&format!("queue-{at}")), &mut snapshot));
    time("delete 100,000 bound queues", COUNT, |at| {
        apply(command::delete_queue("/", &format!("queue-{at}"), None), &mut snapshot);
    });
}

fn on_disk() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("catalog");
    let (mut local, _) = LocalCatalog::open(Arc::new(RealDisk), &path, NodeId(1)).unwrap();
    local.propose(&[command::create_vhost("/", "", &[])]).unwrap();
    time("one durable queue a sync", 200, |at| {
        local.propose(&[declare(&format!("lone-{at}"))]).unwrap();
    });
    time("50 durable queues a sync, a queue", 2_000, |at| {
        if at % 50 == 0 {
            let commands: Vec<Command> = (at..at + 50).map(|at| declare(&format!("many-{at}"))).collect();
            local.propose(&commands).unwrap();
        }
    });
    let commands: Vec<Command> = (0..100_000).map(|at| declare(&format!("bulk-{at}"))).collect();
    time("100,000 durable queues in one proposal", 1, |_| {
        local.propose(&commands).unwrap();
    });
    drop(local);
    time("start with 102,200 queues", 1, |_| {
        LocalCatalog::open(Arc::new(RealDisk), &path, NodeId(1)).unwrap();
    });
}

fn time(what: &str, count: usize, mut each: impl FnMut(usize)) {
    let tenth = (count / 10).max(1);
    let (mut first, mut before_last) = (Duration::ZERO, Duration::ZERO);
    let (start, clock) = (processor_time(), Instant::now());
    for at in 0..count {
        if at == count - tenth {
            before_last = processor_time() - start;
        }
        each(at);
        if at + 1 == tenth {
            first = processor_time() - start;
        }
    }
    let total = processor_time() - start;
    let growth = (total - before_last).as_secs_f64() / first.as_secs_f64();
    let each = |total: Duration| total.as_secs_f64() * 1e6 / count as f64;
    println!("{what:52} {:>10.2} µs CPU {:>12.2} µs, growth {growth:.1}", each(total), each(clock.elapsed()));
}

/// What this thread used, as the kernel's scheduler counts it: other processes do not matter.
fn processor_time() -> Duration {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(status.split(' ').next().unwrap().parse().unwrap())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
