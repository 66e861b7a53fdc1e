//! What a connection with a channel, a queue and a consumer costs while nothing happens.

use std::io;

use super::{Metric, Outcome, Scale, mebibytes, settled};
use crate::brokers::Running;
use crate::session::Session;

/// Connections that are open before the first look, so that what a broker sets up once is not charged to each, unless it
/// gives memory back afterwards.
const BEFORE: usize = 20;

pub(super) fn run(broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
    let empty = settled(broker.pid)?;
    let first = open(broker, BEFORE)?;
    let before = settled(broker.pid)?;
    let others = open(broker, scale.connections)?;
    let after = settled(broker.pid)?;
    for session in first.into_iter().chain(others) {
        session.close()?;
    }
    let each =
        after.resident.saturating_sub(before.resident.min(empty.resident)) as f64 / 1024.0 / scale.connections as f64;
    let metrics = [(Metric::EmptyMib, mebibytes(empty.resident)), (Metric::EachKib, each)];
    Ok(Outcome { metrics: metrics.into(), ..Outcome::default() })
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
