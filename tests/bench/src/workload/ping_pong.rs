//! One transient message at a time: published on one connection, delivered on another, before the next.

use std::io::{self, Read};
use std::time::Instant;

use super::{Metric, Outcome, Scale, clean_up, cpu_us_each, queue_name};
use crate::brokers::Running;
use crate::checker::{Faults, Ledger};
use crate::confirms::percentile;
use crate::delivery::DeliveryReader;
use crate::payload::{Pattern, PublishRing, Shape};
use crate::session::Session;
use crate::usage::Usage;

const SHAPE: Shape = Shape { body_length: 100, persistent: false };
/// Rounds before the measured ones.
const WARM_UP: u64 = 1000;

pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let queue = queue_name("pingpong", 0);
    let mut publisher = Session::open(broker.address)?;
    publisher.declare_queue(&queue, false)?;
    let mut consumer = Session::open(broker.address)?;
    consumer.consume(&queue, "c0", true)?;
    let (mut outward, _) = publisher.into_parts();
    let (mut inward, _) = consumer.into_parts();

    let pattern = Pattern::new(SHAPE, PublishRing::period_for(SHAPE, 4096));
    let mut ring = PublishRing::new(0, "", &queue, SHAPE, &pattern);
    let mut reader = DeliveryReader::new(0, "c0", "", &queue, SHAPE);
    let (mut ledger, mut faults) = (Ledger::new(vec![true], 1), Faults::default());
    let mut buffer = vec![0; 4096];
    let mut latencies_ns = Vec::new();
    let mut before = Usage::of(broker.pid)?;
    let mut started = Instant::now();
    while started.elapsed() < scale.time {
        if ring.sent() == WARM_UP {
            latencies_ns.clear();
            before = Usage::of(broker.pid)?;
            started = Instant::now();
        }
        let (number, begun) = (ring.sent() + 1, Instant::now());
        while ring.sent() < number {
            ring.write_once(number, &mut outward)?;
        }
        let mut filled = 0;
        while reader.last_tag() < number {
            let count = inward.read(buffer.get_mut(filled..).unwrap_or_default())?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            let octets = buffer.get(..filled).unwrap_or_default();
            let used = reader.read(octets, &pattern, &mut ledger, &mut faults)?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
        latencies_ns.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    let after = Usage::of(broker.pid)?;
    ledger.close(&[ring.sent()], &mut faults);
    clean_up(broker.address, &[queue], None)?;
    let rounds = latencies_ns.len() as u64;
    latencies_ns.sort_unstable();
    let p50 = f64::from(percentile(&latencies_ns, 0.5).unwrap_or(0)) / 1e3;
    let metrics = [(Metric::RoundP50Us, p50), (Metric::RoundCpuUs, cpu_us_each(before, after, rounds))];
    Ok(Outcome { metrics: metrics.into(), faults })
}
