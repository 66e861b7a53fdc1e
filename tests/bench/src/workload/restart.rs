//! A broker that starts with a long backlog: how soon it gives out the first message of it, and what memory it takes then.

use std::io;
use std::time::Instant;

use super::{Metric, Outcome, Scale, backlog, clean_up, mebibytes, queue_name, settled};
use crate::brokers::{Ending, Running};
use crate::checker::FaultKind;
use crate::payload::{BODY_HEAD, Shape, body_head};
use crate::session::Session;
use crate::usage::Usage;

const SHAPE: Shape = Shape { body_length: 100, persistent: true };

pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let queue = queue_name("restart", 0);
    let mut session = Session::open(broker.address)?;
    session.declare_queue(&queue, true)?;
    // A start and a login without a backlog, so that what is left over is what the backlog costs.
    drop(session);
    broker.restart(Ending::Killed)?;
    let mut session = Session::open(broker.address)?;
    let empty = settled(broker.pid)?;
    let mut outcome = backlog::fill(broker, &mut session, &queue, SHAPE, scale.backlog)?;
    let (mut waiting, mut peak) = (0, 0);
    // Killed first: the journal is as the load left it. What follows finds it as a start left it, which is less work.
    for (ending, metric) in [(Ending::Killed, Metric::KilledS), (Ending::Terminated, Metric::TerminatedS)] {
        if outcome.faults.count() > 0 {
            return Ok(outcome);
        }
        let speaks = broker.restart(ending)?;
        let started = Instant::now();
        let (body, behind) = Session::open(broker.address)?.get(&queue)?;
        let served = speaks + started.elapsed();
        if body.len() != SHAPE.body_length || body.get(..BODY_HEAD) != Some(&body_head(0, 0)[..]) {
            outcome
                .faults
                .add(FaultKind::Body, || format!("the first message after {ending:?} is not the first published"));
        }
        if u64::from(behind) + 1 != scale.backlog {
            outcome.faults.add(FaultKind::Lost, || {
                format!("after {ending:?} the queue counts {behind} behind the first of {}", scale.backlog)
            });
        }
        let used = Usage::of(broker.pid)?;
        peak = peak.max(used.peak);
        if ending == Ending::Killed {
            outcome.metrics.insert(Metric::KilledCpuS, used.cpu.as_secs_f64());
        }
        waiting = waiting.max(settled(broker.pid)?.resident);
        outcome.metrics.insert(metric, served.as_secs_f64());
    }
    clean_up(broker.address, &[queue], None)?;
    outcome.metrics.extend([
        (Metric::EmptyMib, mebibytes(empty.resident)),
        (Metric::GrowthMib, mebibytes(waiting.saturating_sub(empty.resident))),
        (Metric::PeakMib, mebibytes(peak)),
    ]);
    Ok(outcome)
}
