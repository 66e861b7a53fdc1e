//! A node is killed while a publisher and a consumer use a queue of their own node: what they notice of it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Size;
use super::figures::Figure;
use super::nodes::{Cluster, HOME, LEADER, OTHER};
use crate::scale::bulk;
use crate::session::Session;
use crate::wire;

/// How long messages flow before the node is killed.
const BEFORE: Duration = Duration::from_secs(2);
/// How long they flow afterwards: longer than any of the clusters takes to call a node down.
const AFTER: Duration = Duration::from_secs(8);
/// A message each so long.
const INTERVAL: Duration = Duration::from_millis(1);
/// A consumer that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(30);
const QUEUE: &str = "bench.deaths";
const LAST: &[u8] = b"last";

/// When each delivery came, and how many messages were published.
struct Seen {
    deliveries: Vec<Instant>,
    published: usize,
}

pub(super) fn follower(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    run(cluster, size, OTHER)
}

pub(super) fn leader(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    run(cluster, size, LEADER)
}

fn run(cluster: &mut Cluster, size: Size, victim: usize) -> io::Result<Vec<Figure>> {
    cluster.fill(size.queues)?;
    let home = cluster.address(HOME)?;
    let mut declares = cluster.session(HOME)?;
    declares.declare_queue(QUEUE, false)?;
    let flow = std::thread::spawn(move || flow(home, BEFORE + AFTER));
    std::thread::sleep(BEFORE);
    let killed = Instant::now();
    cluster.kill(victim)?;
    // A change of the catalog has to wait for the next leader.
    declares.declare_queue("bench.deaths.declared", true)?;
    let declared = killed.elapsed();
    let seen = flow.join().map_err(|_| io::Error::other("the flow has panicked"))??;
    declares.delete_queue("bench.deaths.declared")?;
    declares.delete_queue(QUEUE)?;
    declares.close()?;
    cluster.restart(victim)?;
    if seen.deliveries.len() != seen.published {
        let (came, published) = (seen.deliveries.len(), seen.published);
        return Err(io::Error::other(format!("{came} of {published} messages came")));
    }
    let (before, after) = gaps(&seen.deliveries, killed);
    let ms = |gap: Duration| gap.as_secs_f64() * 1e3;
    Ok(vec![
        Figure::new("longest gap ms", ms(after)),
        Figure::new("longest gap before ms", ms(before)),
        Figure::new("first declare after ms", ms(declared)),
    ])
}

/// The longest times between two deliveries, up to a moment and from then on.
fn gaps(deliveries: &[Instant], moment: Instant) -> (Duration, Duration) {
    let mut longest = (Duration::ZERO, Duration::ZERO);
    for (one, next) in deliveries.iter().zip(deliveries.iter().skip(1)) {
        let place = if *next < moment { &mut longest.0 } else { &mut longest.1 };
        *place = (*place).max(next.saturating_duration_since(*one));
    }
    longest
}

/// Publishes a message each millisecond, from a thread of its own.
fn flow(home: SocketAddr, time: Duration) -> io::Result<Seen> {
    let mut consumer = Session::open(home)?;
    consumer.answer_within(SILENCE)?;
    consumer.consume(QUEUE, "c", true)?;
    let publisher = std::thread::spawn(move || publish(home, time));
    let mut deliveries = Vec::new();
    loop {
        consumer.expect(wire::BASIC_DELIVER)?;
        consumer.receive()?;
        let body = consumer.receive()?;
        if body.payload == LAST {
            break;
        }
        deliveries.push(Instant::now());
    }
    consumer.close()?;
    let published = publisher.join().map_err(|_| io::Error::other("the publisher has panicked"))??;
    Ok(Seen { deliveries, published })
}

fn publish(home: SocketAddr, time: Duration) -> io::Result<usize> {
    let mut session = Session::open(home)?;
    let started = Instant::now();
    let mut published = 0;
    while started.elapsed() < time {
        bulk::publish(&mut session, "", QUEUE, b"x")?;
        published += 1;
        std::thread::sleep(INTERVAL);
    }
    bulk::publish(&mut session, "", QUEUE, LAST)?;
    session.close()?;
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_time_in_which_it_ends() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let found = gaps(&[at(0), at(3), at(5), at(50), at(51)], at(10));
        assert_eq!(found, (Duration::from_millis(3), Duration::from_millis(45)));
    }
}
