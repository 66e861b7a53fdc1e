//! Messages flow from producers to consumers as fast as broker and generator can.

use std::io;
use std::time::Duration;

use super::{Metric, Outcome, Scale, clean_up, cpu_us_each, mebibytes, queue_name};
use crate::brokers::Running;
use crate::confirms::percentile;
use crate::flow::{Acks, Extent, Flow, FlowOutcome, FlowPlan, QueuePlan, STALL};
use crate::payload::Shape;
use crate::session::Session;
use crate::tls::Target;
use crate::usage::{self, Usage};

/// How long a run of the same kind goes before the measured one.
const WARM_UP: Duration = Duration::from_millis(300);
/// The prefetch of consumers that acknowledge by the hundred.
const PREFETCH: u16 = 1000;
/// Unconfirmed publishes of a producer.
pub(super) const CONFIRM_WINDOW: u64 = 1000;
/// Deliveries that one acknowledgement covers.
pub(super) const ACK_STEP: u64 = 100;

pub(super) fn t16(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::pairs("t16", 1), transient(16))
}

pub(super) fn t1k(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::pairs("t1k", 1), transient(1024))
}

pub(super) fn t64k(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::pairs("t64k", 1), transient(64 * 1024))
}

pub(super) fn t1k_tls(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::pairs("t1k-tls", 1), How { tls: true, ..transient(1024) })
}

pub(super) fn t64k_tls(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::pairs("t64k-tls", 1), How { tls: true, ..transient(64 * 1024) })
}

pub(super) fn p1k_tls(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::durable("p1k-tls"), How { tls: true, ..confirmed(1024) })
}

pub(super) fn ack1(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let how = How { acks: Acks::Each, prefetch: 200, ..transient(100) };
    run(broker, scale, &Layout::pairs("ack1", 1), how)
}

pub(super) fn compete(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::one_queue("compete", 5, 5), transient(100))
}

pub(super) fn many(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::pairs("many", 100), transient(100))
}

pub(super) fn fan10(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::fanout("fan10", 10), transient(100))
}

pub(super) fn p16(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::durable("p16"), confirmed(16))
}

pub(super) fn p1k(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    run(broker, scale, &Layout::durable("p1k"), confirmed(1024))
}

/// How messages are published and consumed.
#[derive(Clone, Copy, Debug)]
struct How {
    shape: Shape,
    acks: Acks,
    prefetch: u16,
    confirm_window: Option<u64>,
    tls: bool,
}

fn transient(body_length: usize) -> How {
    let shape = Shape { body_length, persistent: false };
    How { shape, acks: Acks::Automatic, prefetch: 0, confirm_window: None, tls: false }
}

fn confirmed(body_length: usize) -> How {
    let shape = Shape { body_length, persistent: true };
    How { shape, acks: Acks::Every(ACK_STEP), prefetch: PREFETCH, confirm_window: Some(CONFIRM_WINDOW), tls: false }
}

/// Which queues there are and who publishes to them.
#[derive(Clone, Debug)]
struct Layout {
    exchange: Option<String>,
    producers: Vec<(String, String)>,
    queues: Vec<QueuePlan>,
    durable: bool,
}

impl Layout {
    /// Queues with a producer and a consumer each.
    fn pairs(name: &str, count: usize) -> Self {
        let queues: Vec<_> = (0..count)
            .map(|number| {
                let fed = (0..count).map(|producer| producer == number).collect();
                plan(&queue_name(name, number), "", &queue_name(name, number), fed, 1)
            })
            .collect();
        let producers = queues.iter().map(|queue| (String::new(), queue.name.clone())).collect();
        Self { exchange: None, producers, queues, durable: false }
    }

    /// One durable queue with one producer and one consumer.
    fn durable(name: &str) -> Self {
        Self { durable: true, ..Self::pairs(name, 1) }
    }

    /// One queue with several producers and consumers.
    fn one_queue(name: &str, producers: usize, consumers: usize) -> Self {
        let name = queue_name(name, 0);
        let queue = plan(&name, "", &name, vec![true; producers], consumers);
        Self { exchange: None, producers: vec![(String::new(), name); producers], queues: vec![queue], durable: false }
    }

    /// A fanout exchange with one producer, and queues with a consumer each.
    fn fanout(name: &str, count: usize) -> Self {
        let exchange = format!("bench.{name}");
        let queue = |number| plan(&queue_name(name, number), &exchange, "", vec![true], 1);
        let queues = (0..count).map(queue).collect();
        let producers = vec![(exchange.clone(), String::new())];
        Self { exchange: Some(exchange), producers, queues, durable: false }
    }

    fn declare(&self, broker: &Running) -> io::Result<()> {
        let mut session = Session::open(broker.address)?;
        if let Some(exchange) = &self.exchange {
            session.declare_fanout(exchange)?;
        }
        for queue in &self.queues {
            session.declare_queue(&queue.name, self.durable)?;
            if let Some(exchange) = &self.exchange {
                session.bind(&queue.name, exchange)?;
            }
        }
        session.close()
    }

    fn plan(&self, how: How, time: Duration) -> FlowPlan {
        FlowPlan {
            producers: self.producers.clone(),
            queues: self.queues.clone(),
            shape: how.shape,
            confirm_window: how.confirm_window,
            acks: how.acks,
            prefetch: how.prefetch,
            extent: Extent::Time(time),
            published_before: None,
            stall: STALL,
        }
    }
}

fn plan(name: &str, exchange: &str, routing_key: &str, producers: Vec<bool>, consumers: usize) -> QueuePlan {
    let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
    QueuePlan { name: name.to_owned(), exchange, routing_key, producers, consumers }
}

fn run(broker: &mut Running, scale: Scale, layout: &Layout, how: How) -> io::Result<Outcome> {
    layout.declare(broker)?;
    let plain = Some(broker.address.into());
    let target = if how.tls { broker.tls.clone() } else { plain };
    let target: Target = target.ok_or_else(|| io::Error::other("the broker was started without TLS"))?;
    let mut warm_up = Flow::prepare(target.clone(), layout.plan(how, WARM_UP))?;
    let mut outcome = Outcome { faults: warm_up.run()?.faults, ..Outcome::default() };
    if outcome.faults.count() == 0 {
        warm_up.close()?;
        measure(broker, target, layout.plan(how, scale.time), &mut outcome)?;
    }
    if outcome.faults.count() > 0 {
        // The broker is not used again, and may no longer answer.
        return Ok(outcome);
    }
    let names: Vec<_> = layout.queues.iter().map(|queue| queue.name.clone()).collect();
    clean_up(broker.address, &names, layout.exchange.as_deref())?;
    Ok(outcome)
}

fn measure(broker: &Running, target: Target, plan: FlowPlan, outcome: &mut Outcome) -> io::Result<()> {
    let mut flow = Flow::prepare(target, plan)?;
    usage::reset_peak(broker.pid)?;
    let before = Usage::of(broker.pid)?;
    let result = flow.run()?;
    let after = Usage::of(broker.pid)?;
    let metrics = &mut outcome.metrics;
    metrics.insert(Metric::CpuUs, cpu_us_each(before, after, result.delivered));
    metrics.insert(Metric::Rate, rate(&result));
    metrics.insert(Metric::PeakMib, mebibytes(after.peak));
    for (metric, share) in [(Metric::ConfirmP50Ms, 0.5), (Metric::ConfirmP99Ms, 0.99)] {
        if let Some(latency) = percentile(&result.latencies_us, share) {
            metrics.insert(metric, f64::from(latency) / 1e3);
        }
    }
    outcome.faults = result.faults;
    if outcome.faults.count() == 0 { flow.close() } else { Ok(()) }
}

fn rate(result: &FlowOutcome) -> f64 {
    result.delivered as f64 / result.elapsed.as_secs_f64().max(1e-9)
}
