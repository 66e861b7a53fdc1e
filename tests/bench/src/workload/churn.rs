//! Connections that come, declare an exclusive queue and go, one after the other.

use std::io;
use std::time::{Duration, Instant};

use super::{Metric, Outcome, Scale, cpu_us_each};
use crate::brokers::Running;
use crate::session::Session;
use crate::usage::Usage;

/// What a broker still does when the last connection is closed falls into this time.
const AFTERMATH: Duration = Duration::from_millis(300);

pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    cycle(broker, 0)?;
    let before = Usage::of(broker.pid)?;
    let started = Instant::now();
    let mut cycles = 0;
    while started.elapsed() < scale.time {
        cycles += 1;
        cycle(broker, cycles)?;
    }
    std::thread::sleep(AFTERMATH);
    let after = Usage::of(broker.pid)?;
    let metrics = [(Metric::ChurnCpuMs, cpu_us_each(before, after, cycles) / 1e3)];
    Ok(Outcome { metrics: metrics.into(), ..Outcome::default() })
}

fn cycle(broker: &Running, number: u64) -> io::Result<()> {
    let mut session = Session::open(broker.address)?;
    session.declare_exclusive_queue(&format!("bench.churn.{number}"))?;
    session.close()
}
