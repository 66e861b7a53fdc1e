//! One persistent message at a time, each confirmed before the next: what durability costs in time.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{Metric, Outcome, Scale, clean_up, queue_name};
use crate::brokers::Running;
use crate::checker::{FaultKind, Faults};
use crate::confirms::{Confirms, percentile};
use crate::payload::{Pattern, PublishRing, Shape};
use crate::session::Session;

/// A message each so long.
const INTERVAL: Duration = Duration::from_millis(10);
const SHAPE: Shape = Shape { body_length: 100, persistent: true };

pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let queue = queue_name("lone", 0);
    let mut session = Session::open(broker.address)?;
    session.declare_queue(&queue, true)?;
    session.select_confirms()?;
    let (mut stream, _) = session.into_parts();
    let pattern = Pattern::new(SHAPE, PublishRing::period_for(SHAPE, 4096));
    let mut ring = PublishRing::new(0, "", &queue, SHAPE, &pattern);
    let (mut confirms, mut faults) = (Confirms::default(), Faults::default());
    let mut buffer = [0; 4096];
    let started = Instant::now();
    while started.elapsed() < scale.time {
        let (number, begun) = (ring.sent() + 1, Instant::now());
        while ring.sent() < number {
            ring.write_once(number, &mut stream)?;
        }
        confirms.published(1, begun);
        let mut filled = 0;
        while confirms.confirmed() < number {
            let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            let used = confirms.read(buffer.get(..filled).unwrap_or_default(), Instant::now(), &mut faults)?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
            if faults.count() > 0 {
                return Ok(Outcome { faults, ..Outcome::default() });
            }
        }
        std::thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
    }
    let mut check = Session::open(broker.address)?;
    let kept = u64::from(check.queue_length(&queue)?);
    // The null broker keeps nothing.
    if kept != ring.sent() && kept != 0 {
        faults.add(FaultKind::Lost, || format!("the queue counts {kept} of {}", ring.sent()));
    }
    clean_up(broker.address, &[queue], None)?;
    let mut latencies = confirms.into_latencies_us();
    latencies.sort_unstable();
    let shares = [(Metric::ConfirmP50Ms, 0.5), (Metric::ConfirmP99Ms, 0.99)];
    let metrics = shares
        .into_iter()
        .filter_map(|(metric, share)| Some((metric, f64::from(percentile(&latencies, share)?) / 1e3)))
        .collect();
    Ok(Outcome { metrics, faults })
}
