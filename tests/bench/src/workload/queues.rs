//! Many durable queues: how fast they are declared, and what each costs while it is empty.

use std::io;
use std::time::{Duration, Instant};

use super::{Metric, Metrics, Outcome, Scale, queue_name, settled};
use crate::brokers::Running;
use crate::session::{Session, queue_declare_arguments};
use crate::wire;

/// Declares that are on their way at the same time.
const PIPELINE: usize = 50;
/// A slow broker need not declare all of them.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The second half is measured: what a broker sets up once is not charged to each, nor do they hide in memory that it had left over from its start.
pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let mut session = Session::open(broker.address)?;
    let (first, _) = declare_many(&mut session, 0, scale.queues / 2)?;
    let before = settled(broker.pid)?;
    let (declared, elapsed) = declare_many(&mut session, first, scale.queues / 2)?;
    let after = settled(broker.pid)?;
    session.close()?;
    let each = after.resident.saturating_sub(before.resident) as f64 / 1024.0 / declared as f64;
    let rate = declared as f64 / elapsed.as_secs_f64();
    let mut metrics = Metrics::from([(Metric::DeclareRate, rate)]);
    // As for idle connections: no growth says nothing.
    metrics.extend((each > 0.0).then_some((Metric::EachKib, each)));
    Ok(Outcome { metrics, ..Outcome::default() })
}

/// Declares so many queues, or as many as a slow broker manages in time. How many they were, and how long it took.
fn declare_many(session: &mut Session, first: usize, count: usize) -> io::Result<(usize, Duration)> {
    let started = Instant::now();
    let mut declared = 0;
    while declared < count && started.elapsed() < TIME_LIMIT {
        declare(session, first + declared, PIPELINE)?;
        declared += PIPELINE;
    }
    Ok((declared, started.elapsed()))
}

fn declare(session: &mut Session, first: usize, count: usize) -> io::Result<()> {
    let mut out = Vec::new();
    for number in first..first + count {
        wire::put_method(&mut out, 1, wire::QUEUE_DECLARE, |out| {
            queue_declare_arguments(out, &queue_name("queues", number), 2);
        });
    }
    session.send(&out)?;
    for _ in 0..count {
        session.expect(wire::QUEUE_DECLARE_OK)?;
    }
    Ok(())
}
