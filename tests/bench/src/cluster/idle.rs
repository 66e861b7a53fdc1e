//! What nodes take of the processor while nobody asks for anything.

use std::io;
use std::time::Duration;

use super::Size;
use super::figures::Figure;
use super::nodes::Cluster;

/// What was asked for before is over by then.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn run(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    std::thread::sleep(QUIET);
    let before = cluster.cpu()?;
    std::thread::sleep(size.idle);
    let most = cluster.cpu_since(&before)?.into_iter().max().unwrap_or_default();
    Ok(vec![Figure::cpu("CPU % of a node", most.as_secs_f64() * 100.0 / size.idle.as_secs_f64())])
}

pub(super) fn run_with_queues(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    cluster.fill(size.queues)?;
    run(cluster, size)
}
