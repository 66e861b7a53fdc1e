//! Generator and null broker against each other: all that is published comes, confirmed and checked.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bench::flow::{Acks, Extent, Flow, FlowOutcome, FlowPlan, QueuePlan, STALL};
use bench::null::broker::NullBroker;
use bench::payload::Shape;
use bench::session::Session;

const QUEUE: &str = "q";

/// Serves on a thread that ends with the test process.
fn serve(log: Option<&Path>) -> SocketAddr {
    let mut broker = NullBroker::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), log).unwrap();
    let address = broker.address().unwrap();
    std::thread::spawn(move || broker.run());
    address
}

fn plan(body_length: usize, persistent: bool) -> FlowPlan {
    FlowPlan {
        producers: vec![(String::new(), QUEUE.to_owned())],
        queues: vec![QueuePlan {
            name: QUEUE.to_owned(),
            exchange: String::new(),
            routing_key: QUEUE.to_owned(),
            producers: vec![true],
            consumers: 1,
        }],
        shape: Shape { body_length, persistent },
        confirm_window: persistent.then_some(100),
        acks: if persistent { Acks::Every(10) } else { Acks::Automatic },
        prefetch: 0,
        extent: Extent::Messages(5_000),
        published_before: None,
        stall: STALL,
    }
}

fn run(address: SocketAddr, plan: FlowPlan) -> FlowOutcome {
    let mut session = Session::open(address).unwrap();
    for queue in &plan.queues {
        session.declare_queue(&queue.name, false).unwrap();
    }
    let mut flow = Flow::prepare(address, plan).unwrap();
    let outcome = flow.run().unwrap();
    flow.close().unwrap();
    session.close().unwrap();
    outcome
}

#[test]
fn small_and_large_messages_come_through() {
    let address = serve(None);
    for body_length in [16, 100, 1024, 64 * 1024] {
        let outcome = run(address, plan(body_length, false));
        assert_eq!((outcome.delivered, outcome.faults.count()), (5_000, 0), "{}", outcome.faults);
    }
}

#[test]
fn confirms_come_without_and_with_a_log() {
    let directory = tempfile::TempDir::new().unwrap();
    let log = directory.path().join("log");
    for log in [None, Some(log.as_path())] {
        let outcome = run(serve(log), plan(100, true));
        assert_eq!(outcome.faults.count(), 0, "{}", outcome.faults);
        assert_eq!((outcome.delivered, outcome.latencies_us.len()), (5_000, 5_000));
    }
}

#[test]
fn several_producers_and_consumers_share_a_queue() {
    let mut shared = plan(100, false);
    shared.producers = vec![(String::new(), QUEUE.to_owned()); 3];
    shared.queues[0].producers = vec![true; 3];
    shared.queues[0].consumers = 4;
    let outcome = run(serve(None), shared);
    assert_eq!((outcome.delivered, outcome.faults.count()), (15_000, 0), "{}", outcome.faults);
}

#[test]
fn a_run_by_time_ends_and_misses_nothing() {
    let mut timed = plan(16, false);
    timed.extent = Extent::Time(Duration::from_millis(100));
    let outcome = run(serve(None), timed);
    assert_eq!(outcome.faults.count(), 0, "{}", outcome.faults);
    assert_eq!(outcome.delivered, outcome.sent[0]);
}

#[test]
fn a_message_that_is_delivered_elsewhere_is_missed() {
    let address = serve(None);
    let mut thief = Session::open(address).unwrap();
    thief.declare_queue(QUEUE, false).unwrap();
    thief.consume(QUEUE, "thief", true).unwrap();
    let mut session = Session::open(address).unwrap();
    session.declare_queue("other", false).unwrap();
    // The producer's messages go to the queue of the thief, the consumer waits at another: with nothing to come, the
    // ledger must say so at the end.
    let mut lost = plan(16, false);
    lost.queues[0].name = "other".to_owned();
    lost.extent = Extent::Messages(10);
    lost.stall = Duration::from_millis(200);
    let outcome = Flow::prepare(address, lost).unwrap().run().unwrap();
    assert_eq!(outcome.delivered, 0);
    assert!(outcome.faults.count() > 0);
}
