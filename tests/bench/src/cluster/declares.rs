//! Queues that are declared and deleted, over one channel and over many of all nodes.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Size;
use super::figures::Figure;
use super::nodes::{Cluster, NODES, OTHER};
use crate::scale::bulk::DURABLE;
use crate::session::{Session, queue_declare_arguments};
use crate::wire;

/// Requests on their way on each channel.
const PIPELINE: usize = 50;
/// Channels over all nodes.
const CHANNELS: usize = 16;
/// A fast broker stops here.
const MOST: usize = 20_000;
const EXCLUSIVE: u8 = 4;

/// The queues of a kind, and their flags.
const KINDS: [(&str, u8); 3] = [("durable", DURABLE), ("transient", 0), ("exclusive", EXCLUSIVE)];

/// The channels of one connection that ask at once.
struct Asking {
    session: Session,
    channels: u16,
    prefix: String,
    flags: u8,
}

pub(super) fn run(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (kind, flags) in KINDS {
        let one = vec![(cluster.address(OTHER)?, 1)];
        // 16 over three nodes: 6, 5 and 5.
        let shares = (0..NODES).map(|node| Ok((cluster.address(node)?, (CHANNELS + NODES - 1 - node) / NODES)));
        let many = shares.collect::<io::Result<Vec<_>>>()?;
        for (title, places) in [("1 channel", one), ("16 channels", many)] {
            let before = cluster.cpu()?;
            let (declared, deleted, total) = come_and_go(places, kind, flags, size.time)?;
            let each = cluster.cpu_us_each(&before, total)?;
            figures.extend([
                Figure::new(format!("{kind}, {title}: declares a second"), declared),
                Figure::new(format!("{kind}, {title}: deletes a second"), deleted),
                Figure::cpu(format!("{kind}, {title}: CPU µs for both"), each),
            ]);
        }
    }
    Ok(figures)
}

/// Declares for some time and deletes all of it: so many a second of each, and how many they were.
fn come_and_go(
    places: Vec<(SocketAddr, usize)>,
    kind: &str,
    flags: u8,
    time: Duration,
) -> io::Result<(f64, f64, usize)> {
    let most = MOST / places.len();
    let open = |(number, (address, channels)): (usize, (SocketAddr, usize))| {
        Asking::open(address, u16::try_from(channels).unwrap_or(1), format!("bench.{kind}.{number}"), flags)
    };
    let asking = places.into_iter().enumerate().map(open).collect::<io::Result<Vec<_>>>()?;
    let (asking, declared, declaring) = at_once(asking, move |one, _| one.declare(time, most))?;
    let counts = declared.clone();
    let (asking, _, deleting) = at_once(asking, move |one, place| {
        let count = counts.get(place).copied().unwrap_or_default();
        one.delete(0..count).map(|()| count)
    })?;
    asking.into_iter().try_for_each(|one| one.session.close())?;
    let total: usize = declared.iter().sum();
    let a_second = |time: Duration| total as f64 / time.as_secs_f64().max(1e-9);
    Ok((a_second(declaring), a_second(deleting), total.max(1)))
}

/// Has each do the same in a thread of its own: what they came to, and how long all of them took.
fn at_once(
    asking: Vec<Asking>,
    work: impl Fn(&mut Asking, usize) -> io::Result<usize> + Clone + Send + 'static,
) -> io::Result<(Vec<Asking>, Vec<usize>, Duration)> {
    let started = Instant::now();
    let threads: Vec<_> = asking
        .into_iter()
        .enumerate()
        .map(|(place, mut one)| {
            let work = work.clone();
            std::thread::spawn(move || work(&mut one, place).map(|count| (one, count)))
        })
        .collect();
    let ended = threads.into_iter().map(|one| one.join().map_err(|_| io::Error::other("asking has panicked"))?);
    let (asking, counts) = ended.collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
    Ok((asking, counts, started.elapsed()))
}

impl Asking {
    fn open(address: SocketAddr, channels: u16, prefix: String, flags: u8) -> io::Result<Self> {
        let mut session = Session::connect(address)?;
        for channel in 1..=channels {
            session.call(channel, wire::CHANNEL_OPEN, |out| wire::put_short_string(out, ""), wire::CHANNEL_OPEN_OK)?;
        }
        Ok(Self { session, channels, prefix, flags })
    }

    /// Asks on all channels and waits for all answers, until the time is over. How many it declared.
    fn declare(&mut self, time: Duration, most: usize) -> io::Result<usize> {
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < time && count < most {
            let next = count + PIPELINE * usize::from(self.channels);
            let flags = self.flags;
            self.ask(count..next, wire::QUEUE_DECLARE, wire::QUEUE_DECLARE_OK, |out, name| {
                queue_declare_arguments(out, name, flags);
            })?;
            count = next;
        }
        Ok(count)
    }

    fn delete(&mut self, numbers: Range<usize>) -> io::Result<()> {
        let step = PIPELINE * usize::from(self.channels);
        for first in numbers.clone().step_by(step) {
            let these = first..(first + step).min(numbers.end);
            self.ask(these, wire::QUEUE_DELETE, wire::QUEUE_DELETE_OK, |out, name| {
                wire::put_u16(out, 0);
                wire::put_short_string(out, name);
                out.push(0);
            })?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        numbers: Range<usize>,
        method: wire::MethodId,
        answer: wire::MethodId,
        fill: impl Fn(&mut Vec<u8>, &str),
    ) -> io::Result<()> {
        let mut out = Vec::new();
        for number in numbers.clone() {
            let channel = 1 + (number % usize::from(self.channels)) as u16;
            let name = format!("{}.{number}", self.prefix);
            wire::put_method(&mut out, channel, method, |out| fill(out, &name));
        }
        self.session.send(&out)?;
        for _ in numbers {
            self.session.expect(answer)?;
        }
        Ok(())
    }
}
