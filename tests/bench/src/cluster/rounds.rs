//! Requests that wait for their answer: confirms, and calls of a server on another node over reply queues.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Size;
use super::figures::Figure;
use super::nodes::{Cluster, HOME, OTHER};
use crate::confirms::percentile;
use crate::session::{OwnedFrame, Session};
use crate::wire;

/// Rounds before the measured ones.
const WARM_UP: usize = 100;
const BODY: [u8; 100] = [7; 100];
/// Tells the server that it is over.
const LAST: &[u8] = b"last";
const REQUESTS: &str = "bench.rpc";
const REPLIES: &str = "bench.rpc.replies";
/// The queue that a client has without declaring it.
const DIRECT: &str = "amq.rabbitmq.reply-to";
/// Calls on their way in the second run of each kind.
const AT_ONCE: usize = 50;
/// Flags of the properties that are used.
const DELIVERY_MODE: u16 = 1 << 12;
const REPLY_TO: u16 = 1 << 9;

pub(super) fn confirms(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (kind, persistent) in [("transient", false), ("persistent", true)] {
        let queue = format!("bench.confirm.{kind}");
        let mut owner = cluster.session(HOME)?;
        owner.declare_queue(&queue, persistent)?;
        for (place, node) in [("local", HOME), ("forwarded", OTHER)] {
            let before = cluster.cpu()?;
            let mut session = cluster.session(node)?;
            session.select_confirms()?;
            let (latencies_us, rounds) = confirm(&mut session, &queue, persistent, size.time)?;
            session.close()?;
            let each = cluster.cpu_us_each(&before, rounds)?;
            for (title, share) in [("p50 µs", 0.5), ("p99 µs", 0.99)] {
                if let Some(latency) = percentile(&latencies_us, share) {
                    figures.push(Figure::new(format!("{kind} {place}, {title}"), f64::from(latency)));
                }
            }
            figures.push(Figure::cpu(format!("{kind} {place}, CPU µs a message"), each));
        }
        owner.delete_queue(&queue)?;
        owner.close()?;
    }
    Ok(figures)
}

/// The sorted latencies, and how many rounds there were with those of the warm-up.
fn confirm(session: &mut Session, queue: &str, persistent: bool, time: Duration) -> io::Result<(Vec<u32>, usize)> {
    let mut properties = Vec::new();
    wire::put_u16(&mut properties, DELIVERY_MODE);
    properties.push(if persistent { 2 } else { 1 });
    let message = message(queue, &properties, &BODY);
    let mut latencies = Vec::new();
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < time || rounds <= WARM_UP {
        let begun = Instant::now();
        session.send(&message)?;
        session.expect(wire::BASIC_ACK)?;
        rounds += 1;
        if rounds > WARM_UP {
            latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    latencies.sort_unstable();
    Ok((latencies, rounds))
}

pub(super) fn calls(cluster: &mut Cluster, size: Size) -> io::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut owner = cluster.session(HOME)?;
    owner.declare_queue(REQUESTS, false)?;
    for (kind, replies) in [("reply queue", REPLIES), ("direct reply-to", DIRECT)] {
        for at_once in [1, AT_ONCE] {
            let (home, client) = (cluster.address(HOME)?, cluster.session(OTHER)?);
            let server = std::thread::spawn(move || serve(home));
            let before = cluster.cpu()?;
            let (count, elapsed) = call(client, replies, at_once, size.time)?;
            let each = cluster.cpu_us_each(&before, count)?;
            server.join().map_err(|_| io::Error::other("the server has panicked"))??;
            let name = |what: &str| format!("{kind}, {at_once} at a time: {what}");
            figures.extend([
                Figure::new(name("calls a second"), count as f64 / elapsed.as_secs_f64().max(1e-9)),
                Figure::cpu(name("CPU µs a call"), each),
            ]);
        }
    }
    owner.delete_queue(REQUESTS)?;
    owner.close()?;
    Ok(figures)
}

/// Calls for some time, with so many calls on their way.
fn call(mut session: Session, replies: &str, at_once: usize, time: Duration) -> io::Result<(usize, Duration)> {
    if replies != DIRECT {
        session.declare_exclusive_queue(replies)?;
    }
    session.consume(replies, "replies", true)?;
    let mut properties = Vec::new();
    wire::put_u16(&mut properties, REPLY_TO);
    wire::put_short_string(&mut properties, replies);
    let request = message(REQUESTS, &properties, &BODY);
    let started = Instant::now();
    session.send(&request.repeat(at_once))?;
    let (mut open, mut answered) = (at_once, 0);
    while open > 0 {
        let (_, body) = delivery(&mut session)?;
        if body.payload != BODY {
            return Err(io::Error::other("a reply is not what was asked for"));
        }
        open -= 1;
        answered += 1;
        if started.elapsed() < time {
            session.send(&request)?;
            open += 1;
        }
    }
    let elapsed = started.elapsed();
    session.send(&message(REQUESTS, &[0, 0], LAST))?;
    session.close()?;
    Ok((answered, elapsed))
}

/// Answers each request with what it holds, until the last one.
fn serve(home: SocketAddr) -> io::Result<()> {
    let mut session = Session::open(home)?;
    session.consume(REQUESTS, "server", true)?;
    loop {
        let (header, body) = delivery(&mut session)?;
        if body.payload == LAST {
            return session.close();
        }
        // Behind class, weight and size.
        let properties = header.payload.get(12..).unwrap_or_default();
        let mut properties = wire::Arguments(properties);
        if properties.u16()? != REPLY_TO {
            return Err(io::Error::other("a request has other properties than it was sent with"));
        }
        let reply_to = String::from_utf8_lossy(properties.short_string()?).into_owned();
        session.send(&message(&reply_to, &[0, 0], &body.payload))?;
    }
}

/// Header and body of the next delivery.
fn delivery(session: &mut Session) -> io::Result<(OwnedFrame, OwnedFrame)> {
    session.expect(wire::BASIC_DELIVER)?;
    Ok((session.receive()?, session.receive()?))
}

/// A publish to the default exchange.
fn message(queue: &str, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_method(&mut out, 1, wire::BASIC_PUBLISH, |out| {
        wire::put_u16(out, 0);
        wire::put_short_string(out, "");
        wire::put_short_string(out, queue);
        out.push(0);
    });
    wire::put_content_header(&mut out, 1, body.len(), properties);
    wire::put_frame(&mut out, wire::BODY, 1, |out| out.extend_from_slice(body));
    out
}
