//! How long a fresh node takes to join a cluster that has many queues.

use std::io;
use std::time::{Duration, Instant};

use super::Size;
use super::figures::Figure;
use super::nodes::{Cluster, EXCHANGE, HOME};
use crate::scale::bulk;

/// A message must have come through by then.
const THROUGH: Duration = Duration::from_secs(60);

pub(super) fn run(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    cluster.fill(size.queues)?;
    let queue = bulk::queue_name(size.queues.saturating_sub(1));
    let before = cluster.cpu()?;
    let started = Instant::now();
    let node = cluster.join()?;
    let listens = started.elapsed();
    // It serves when it knows the last queue and can reach it.
    while let Err(error) = cluster.session(node)?.queue_length(&queue) {
        if started.elapsed() > THROUGH {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let serves = started.elapsed();
    let mut looks = cluster.session(HOME)?;
    let mut session = cluster.session(node)?;
    while looks.queue_length(&queue)? == 0 {
        if started.elapsed() > THROUGH {
            return Err(io::Error::other("what is published through the node that joined does not arrive"));
        }
        bulk::publish(&mut session, EXCHANGE, &queue, b"x")?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let reaches = started.elapsed();
    let cpu: Duration = cluster.cpu_since(&before)?.iter().sum();
    session.close()?;
    looks.close()?;
    let queues = Figure::new("queues", size.queues as f64);
    Ok(vec![
        queues,
        Figure::new("s until it listens", listens.as_secs_f64()),
        Figure::new("s until it serves", serves.as_secs_f64()),
        Figure::new("s until a message went through it", reaches.as_secs_f64()),
        Figure::cpu("CPU s of all nodes", cpu.as_secs_f64()),
    ])
}
