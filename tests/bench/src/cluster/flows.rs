//! Messages flow between clients of the queue's node, of another node, and of the two others.

use std::io;
use std::time::Duration;

use super::Size;
use super::figures::Figure;
use super::nodes::{Cluster, HOME, LEADER, OTHER};
use super::shares;
use crate::confirms::percentile;
use crate::flow::{Acks, Extent, Flow, FlowOutcome, FlowPlan, QueuePlan};
use crate::payload::Shape;

/// How long a run of the same kind goes before the measured one.
const WARM_UP: Duration = Duration::from_millis(300);
/// A run in which nothing moves for so long is given up.
const STALL: Duration = Duration::from_secs(10);

/// How messages are published and consumed, as by the workloads of the same name for one node.
struct How {
    name: &'static str,
    shape: Shape,
    acks: Acks,
    prefetch: u16,
    confirm_window: Option<u64>,
}

const HOW: [How; 3] = [
    How {
        name: "t1k",
        shape: Shape { body_length: 1024, persistent: false },
        acks: Acks::Automatic,
        prefetch: 0,
        confirm_window: None,
    },
    How {
        name: "ack1",
        shape: Shape { body_length: 100, persistent: false },
        acks: Acks::Each,
        prefetch: 200,
        confirm_window: None,
    },
    How {
        name: "p1k",
        shape: Shape { body_length: 1024, persistent: true },
        acks: Acks::Every(100),
        prefetch: 1000,
        confirm_window: Some(1000),
    },
];

/// Producer and consumer on the queue's node.
const LOCAL: &str = "local";
/// Where clients are: the name of it, the producer's node, the consumer's.
const PLACES: [(&str, usize, usize); 3] = [(LOCAL, HOME, HOME), ("forwarded", OTHER, OTHER), ("apart", LEADER, OTHER)];

pub(super) fn run(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for how in &HOW {
        let mut local = None;
        for (place, from, to) in PLACES {
            let of = |error| io::Error::other(format!("{} {place}: {error}", how.name));
            let (rate, measured) = measure(cluster, size, how, place, (from, to)).map_err(of)?;
            figures.extend(measured);
            // Of one round, in which the machine was as busy for both.
            let local = *local.get_or_insert(rate);
            if place != LOCAL {
                figures.push(Figure::new(format!("{} {place}, part of local", how.name), rate / local));
            }
        }
    }
    Ok(figures)
}

/// The same, each node with processors of its own.
pub(super) fn run_with_shares(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    match shares::give(cluster) {
        Ok(_given) => run(cluster, size),
        Err(error) => {
            eprintln!("SKIPPED: nodes cannot have processors of their own here: {error}");
            Ok(Vec::new())
        }
    }
}

fn measure(
    cluster: &Cluster,
    size: Size,
    how: &How,
    place: &str,
    (from, to): (usize, usize),
) -> io::Result<(f64, Vec<Figure>)> {
    let queue = format!("bench.{}.{place}", how.name);
    let mut session = cluster.session(HOME)?;
    session.declare_queue(&queue, how.shape.persistent)?;
    let flow = |time| Flow::prepare_between(&cluster.target(from)?, &cluster.target(to)?, plan(&queue, how, time));
    finish(flow(WARM_UP)?)?;
    let flow = flow(size.time)?;
    let before = cluster.cpu()?;
    let result = finish(flow)?;
    let each = cluster.cpu_us_each(&before, usize::try_from(result.delivered).unwrap_or(usize::MAX))?;
    session.delete_queue(&queue)?;
    session.close()?;

    let name = |what: &str| format!("{} {place}, {what}", how.name);
    let rate = result.delivered as f64 / result.elapsed.as_secs_f64().max(1e-9);
    let mut figures = vec![Figure::new(name("a second"), rate), Figure::cpu(name("CPU µs a message"), each)];
    for (title, share) in [("confirm p50 ms", 0.5), ("confirm p99 ms", 0.99)] {
        if let Some(latency) = percentile(&result.latencies_us, share) {
            figures.push(Figure::new(name(title), f64::from(latency) / 1e3));
        }
    }
    Ok((rate, figures))
}

fn finish(mut flow: Flow) -> io::Result<FlowOutcome> {
    let result = flow.run()?;
    if result.faults.count() > 0 {
        return Err(io::Error::other(result.faults.to_string()));
    }
    flow.close()?;
    Ok(result)
}

fn plan(queue: &str, how: &How, time: Duration) -> FlowPlan {
    FlowPlan {
        producers: vec![(String::new(), queue.to_owned())],
        queues: vec![QueuePlan {
            name: queue.to_owned(),
            exchange: String::new(),
            routing_key: queue.to_owned(),
            producers: vec![true],
            consumers: 1,
        }],
        shape: how.shape,
        confirm_window: how.confirm_window,
        acks: how.acks,
        prefetch: how.prefetch,
        extent: Extent::Time(time),
        published_before: None,
        stall: STALL,
    }
}
