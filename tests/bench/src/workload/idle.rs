//! What a connection with a channel, a queue and a consumer costs while nothing happens.

use std::io;

use super::{Metric, Metrics, Outcome, Scale, mebibytes, settled};
use crate::brokers::Running;
use crate::session::Session;

/// Measured between so many connections and twice as many: what a broker sets up once is not charged to each, nor do they hide in memory that it
/// had left over from its start.
pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let empty = settled(broker.pid)?;
    let first = open(broker, scale.connections)?;
    let before = settled(broker.pid)?;
    let others = open(broker, scale.connections)?;
    let after = settled(broker.pid)?;
    for session in first.into_iter().chain(others) {
        session.close()?;
    }
    let each = after.resident.saturating_sub(before.resident) as f64 / 1024.0 / scale.connections as f64;
    let mut metrics = Metrics::from([(Metric::EmptyMib, mebibytes(empty.resident))]);
    // No growth means that they found room in what the broker had left over: that says nothing, and takes more of them.
    metrics.extend((each > 0.0).then_some((Metric::EachKib, each)));
    Ok(Outcome { metrics, ..Outcome::default() })
}

fn open(broker: &Running, count: usize) -> io::Result<Vec<Session>> {
    (0..count)
        .map(|_| {
            let mut session = Session::open(broker.address)?;
            session.declare_exclusive_queue("")?;
            // An empty name means the queue that the channel declared last.
            session.consume("", "c", true)?;
            Ok(session)
        })
        .collect()
}
