//! A long backlog: taken in while nobody consumes, then given out.

use std::io;
use std::time::{Duration, Instant};

use super::{Metric, Outcome, Scale, clean_up, cpu_us_each, mebibytes, queue_name, settled, stream};
use crate::brokers::Running;
use crate::checker::FaultKind;
use crate::flow::{Acks, Extent, Flow, FlowPlan, QueuePlan, STALL};
use crate::payload::Shape;
use crate::session::Session;
use crate::usage::{self, Usage};

/// The prefetch of the consumer.
const PREFETCH: u16 = 1000;
/// How long the broker may take to count all messages after the last one is written.
const COUNT_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn transient(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, "backlog", Shape { body_length: 100, persistent: false })
}

pub(super) fn persistent(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, "pbacklog", Shape { body_length: 100, persistent: true })
}

fn run(broker: &mut Running, scale: Scale, name: &str, shape: Shape) -> io::Result<Outcome> {
    let queue = queue_name(name, 0);
    let mut session = Session::open(broker.address)?;
    session.declare_queue(&queue, true)?;
    let empty = settled(broker.pid)?;
    usage::reset_peak(broker.pid)?;

    let before = Usage::of(broker.pid)?;
    let mut outcome = fill(broker, &mut session, &queue, shape, scale.backlog)?;
    let filled = Usage::of(broker.pid)?;
    if outcome.faults.count() > 0 {
        return Ok(outcome);
    }
    let waiting = settled(broker.pid)?;

    let mut outward = Flow::prepare(broker.address, plan(&queue, shape, scale.backlog, false))?;
    let given = outward.run()?;
    let emptied = Usage::of(broker.pid)?;
    outcome.faults = given.faults;
    if outcome.faults.count() > 0 {
        return Ok(outcome);
    }
    outward.close()?;
    session.close()?;
    clean_up(broker.address, &[queue], None)?;

    outcome.metrics.extend([
        (Metric::CpuInUs, cpu_us_each(before, filled, scale.backlog)),
        (Metric::CpuOutUs, cpu_us_each(waiting, emptied, scale.backlog)),
        (Metric::GrowthMib, mebibytes(waiting.resident.saturating_sub(empty.resident))),
        (Metric::PeakMib, mebibytes(emptied.peak)),
        (Metric::Rate, given.delivered as f64 / given.elapsed.as_secs_f64().max(1e-9)),
    ]);
    Ok(outcome)
}

/// Publishes the backlog and sees to it that the queue counts all of it.
pub(super) fn fill(
    broker: &Running,
    session: &mut Session,
    queue: &str,
    shape: Shape,
    messages: u64,
) -> io::Result<Outcome> {
    let mut inward = Flow::prepare(broker.address, plan(queue, shape, messages, true))?;
    let taken = inward.run()?;
    let counted = count(session, queue, messages)?;
    let mut outcome = Outcome { faults: taken.faults, ..Outcome::default() };
    if outcome.faults.count() > 0 {
        return Ok(outcome);
    }
    inward.close()?;
    if u64::from(counted) != messages {
        outcome.faults.add(FaultKind::Lost, || format!("the queue counts {counted} of {messages}"));
    }
    Ok(outcome)
}

fn plan(queue: &str, shape: Shape, messages: u64, inward: bool) -> FlowPlan {
    let producer = (String::new(), queue.to_owned());
    FlowPlan {
        producers: if inward { vec![producer] } else { Vec::new() },
        queues: vec![QueuePlan {
            name: queue.to_owned(),
            exchange: String::new(),
            routing_key: queue.to_owned(),
            producers: vec![true],
            consumers: usize::from(!inward),
        }],
        shape,
        confirm_window: (inward && shape.persistent).then_some(stream::CONFIRM_WINDOW),
        acks: Acks::Every(stream::ACK_STEP),
        prefetch: PREFETCH,
        extent: Extent::Messages(messages),
        published_before: (!inward).then(|| vec![messages]),
        stall: STALL,
    }
}

/// Without confirms the broker may still be at work when the last octet is written.
fn count(session: &mut Session, queue: &str, expected: u64) -> io::Result<u32> {
    let give_up = Instant::now() + COUNT_LIMIT;
    loop {
        let counted = session.queue_length(queue)?;
        if u64::from(counted) >= expected || Instant::now() > give_up {
            return Ok(counted);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
