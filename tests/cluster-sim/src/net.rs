//! The network between simulated nodes: streams and datagrams, their delays and losses, and which directions are cut.
//!
//! A stream behaves as TCP does: what is lost comes later, what is cut off waits, and when octets have not come through in both directions for
//! 5 s both ends hear that it has failed (brokerd sets `TCP_USER_TIMEOUT` and keepalives to that).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_meta::raft::{Applied, Compaction};
use broker_server::cluster::ground::{Duplex, Given, GivenDatagrams, GivenListener, Pending};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use harness::random::Random;

use crate::socket::{Heard, Socket, Tampering};

/// Nodes listen here.
pub const PORT: u16 = 25_672;
/// A stream fails when nothing has come through for so long, in milliseconds.
const SILENCE_MS: u64 = 5_000;
/// Octets under way on a stream at most.
const WINDOW_BYTES: usize = 256 * 1024;
/// What was lost is sent again by then.
const AGAIN_MS: u64 = 300;

/// All of the network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    now: u64,
    random: Random,
    /// Of a thousand.
    loss: u64,
    /// Longest way of what is not lost, in milliseconds.
    delay: u64,
    cut: BTreeSet<(usize, usize)>,
    broken_since: BTreeMap<(usize, usize), u64>,
    doors: BTreeMap<usize, Door>,
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    /// Of streams whose end is driven without tokio, by stream and end.
    sockets: BTreeMap<(u64, usize), Socket>,
    boxes: BTreeMap<usize, Letters>,
    /// Nodes that cannot go on, and why.
    failed: BTreeMap<usize, String>,
    sent: u64,
    /// What nodes have applied since it was last asked.
    applied: BTreeMap<usize, Vec<Applied>>,
    /// A broken rule: what befalls operations on links.
    tampering: Option<Tampering>,
    /// A broken rule: what nodes say of themselves is not spread.
    facts_stay: bool,
    compaction: Compaction,
}

#[derive(Default)]
struct Door {
    waiting: VecDeque<(u64, usize)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Letters {
    /// By when they arrive, and in which order they were sent.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    waker: Option<Waker>,
}

struct Stream {
    ends: [usize; 2],
    /// From each end to the other.
    pipes: [Pipe; 2],
    failed: [bool; 2],
    closed: [bool; 2],
    readers: [Option<Waker>; 2],
    writers: [Option<Waker>; 2],
}

#[derive(Default)]
struct Pipe {
    /// An empty piece is the end.
    under_way: VecDeque<(u64, Vec<u8>)>,
    octets: usize,
    arrived: VecDeque<u8>,
    ended: bool,
}

impl Net {
    /// Nothing is cut or lost yet.
    pub fn new(seed: u64) -> Net {
        Net(Arc::new(Mutex::new(State {
            now: 0,
            random: Random::new(seed),
            loss: 0,
            delay: 3,
            cut: BTreeSet::new(),
            broken_since: BTreeMap::new(),
            doors: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            sockets: BTreeMap::new(),
            boxes: BTreeMap::new(),
            failed: BTreeMap::new(),
            sent: 0,
            applied: BTreeMap::new(),
            tampering: None,
            facts_stay: false,
            compaction: Compaction::default(),
        })))
    }

    /// What a node stands on.
    pub fn of(&self, node: usize) -> Arc<dyn Given> {
        Arc::new(Place { net: self.clone(), node })
    }

    /// Whether datagrams that carry what nodes say of themselves are lost.
    pub fn break_facts(&self, stay: bool) {
        self.lock().facts_stay = stay;
    }

    /// When nodes that start from now on give up the beginning of the log.
    pub fn compact(&self, compaction: Compaction) {
        self.lock().compaction = compaction;
    }

    /// What befalls operations on links that come up from now on.
    pub fn break_links(&self, tampering: Option<Tampering>) {
        self.lock().tampering = tampering;
    }

    /// What a node has applied since this was last asked.
    pub fn applied(&self, node: usize) -> Vec<Applied> {
        self.lock().applied.remove(&node).unwrap_or_default()
    }

    /// Cuts one direction.
    pub fn cut(&self, from: usize, to: usize) {
        let mut state = self.lock();
        state.cut.insert((from, to));
        let (now, pair) = (state.now, (from.min(to), from.max(to)));
        state.broken_since.entry(pair).or_insert(now);
    }

    /// Nothing is cut or lost any more.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.broken_since.clear();
        (state.loss, state.delay) = (0, 3);
    }

    /// So many of a thousand are lost, and the way takes up to so many milliseconds.
    pub fn weather(&self, loss: u64, delay: u64) {
        let mut state = self.lock();
        (state.loss, state.delay) = (loss, delay.max(1));
    }

    /// Whether something comes through both ways.
    pub fn is_whole(&self, one: usize, other: usize) -> bool {
        let state = self.lock();
        !state.cut.contains(&(one, other)) && !state.cut.contains(&(other, one))
    }

    /// A node has ended: nobody listens there.
    pub fn gone(&self, node: usize) {
        let mut state = self.lock();
        state.doors.remove(&node);
        state.boxes.remove(&node);
        state.applied.remove(&node);
    }

    /// Why a node cannot go on, if it has said so.
    pub fn failed(&self, node: usize) -> Option<String> {
        self.lock().failed.remove(&node)
    }

    /// A millisecond later.
    pub fn step(&self) {
        self.lock().step();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn way(&mut self) -> u64 {
        let way = 1 + self.random.below(self.delay);
        if self.random.below(1000) < self.loss { way + self.random.below(AGAIN_MS) } else { way }
    }

    fn step(&mut self) {
        self.now += 1;
        let (now, cut, broken) = (self.now, &self.cut, &self.broken_since);
        for stream in self.streams.values_mut() {
            let [one, other] = stream.ends;
            let pair = (one.min(other), one.max(other));
            if broken.get(&pair).is_some_and(|since| now >= since + SILENCE_MS) {
                stream.fail(0);
                stream.fail(1);
            }
            for end in 0..2 {
                let (from, to) = (stream.ends[end], stream.ends[1 - end]);
                if cut.contains(&(from, to)) {
                    continue;
                }
                let mut refused = false;
                let pipe = &mut stream.pipes[end];
                while pipe.under_way.front().is_some_and(|(at, _)| *at <= now) {
                    let Some((_, octets)) = pipe.under_way.pop_front() else { break };
                    pipe.octets -= octets.len();
                    pipe.ended |= octets.is_empty();
                    refused |= stream.closed[1 - end] && !octets.is_empty();
                    pipe.arrived.extend(octets);
                    wake(&mut stream.readers[1 - end]);
                    wake(&mut stream.writers[end]);
                }
                if refused && !cut.contains(&(to, from)) {
                    stream.fail(end);
                }
            }
        }
        self.carry();
        self.streams.retain(|_, stream| !(stream.closed[0] && stream.closed[1]));
        for letters in self.boxes.values_mut() {
            if letters.under_way.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
                wake(&mut letters.waker);
            }
        }
    }

    /// Carries octets between streams and the sockets that stand for an end of them.
    fn carry(&mut self) {
        let mut sockets = std::mem::take(&mut self.sockets);
        sockets.retain(|&(id, end), socket| self.carry_for(id, end, socket));
        self.sockets = sockets;
    }

    /// Whether the socket goes on.
    fn carry_for(&mut self, id: u64, end: usize, socket: &mut Socket) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if stream.failed[end] {
            stream.closed[end] = true;
            return false;
        }
        let pipe = &mut stream.pipes[1 - end];
        if !pipe.arrived.is_empty() {
            let taken = socket.give(pipe.arrived.make_contiguous());
            pipe.arrived.drain(..taken);
        }
        if pipe.ended && pipe.arrived.is_empty() {
            socket.end();
        }
        let room = WINDOW_BYTES.saturating_sub(stream.pipes[end].octets);
        match socket.hear(room) {
            Heard::Nothing => true,
            Heard::Octets(octets) => {
                self.send(id, end, &octets);
                true
            }
            Heard::End => {
                self.send(id, end, &[]);
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.closed[end] = true;
                }
                false
            }
        }
    }

    fn send(&mut self, id: u64, end: usize, octets: &[u8]) {
        let at = self.now + self.way();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let pipe = &mut stream.pipes[end];
        let last = pipe.under_way.back().map_or(0, |(at, _)| *at);
        pipe.octets += octets.len();
        pipe.under_way.push_back((at.max(last), octets.to_vec()));
    }
}

impl Stream {
    fn fail(&mut self, end: usize) {
        self.failed[end] = true;
        wake(&mut self.readers[end]);
        wake(&mut self.writers[end]);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Where a node is on the network.
struct Place {
    net: Net,
    node: usize,
}

/// The number of the node at an address.
fn number(address: &str) -> Option<usize> {
    address.strip_prefix('n')?.split(':').next()?.parse().ok()
}

fn place(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8)), PORT)
}

fn node_at(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]),
        IpAddr::V6(_) => 0,
    }
}

impl Given for Place {
    fn connect(&self, address: &str) -> Pending<io::Result<Box<dyn Duplex>>> {
        let (net, from, to) = (self.net.clone(), self.node, number(address));
        Box::pin(async move {
            let to = to.ok_or(io::ErrorKind::NotFound)?;
            while !net.is_whole(from, to) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let way = {
                let mut state = net.lock();
                state.way() + state.way()
            };
            tokio::time::sleep(Duration::from_millis(way)).await;
            let mut state = net.lock();
            let id = state.next_stream;
            let Some(door) = state.doors.get_mut(&to) else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            door.waiting.push_back((id, from));
            wake(&mut door.waker);
            state.next_stream += 1;
            state.streams.insert(
                id,
                Stream {
                    ends: [from, to],
                    pipes: Default::default(),
                    failed: [false; 2],
                    closed: [false; 2],
                    readers: Default::default(),
                    writers: Default::default(),
                },
            );
            drop(state);
            Ok(Box::new(End { net, id, end: 0, is_handed_over: false }) as Box<dyn Duplex>)
        })
    }

    fn listen(&self, _: SocketAddr) -> io::Result<(Arc<dyn GivenListener>, Arc<dyn GivenDatagrams>)> {
        let mut state = self.net.lock();
        state.doors.insert(self.node, Door::default());
        state.boxes.insert(self.node, Letters::default());
        let place = || Arc::new(Place { net: self.net.clone(), node: self.node });
        Ok((place(), place()))
    }

    fn resolve(&self, address: &str) -> Vec<SocketAddr> {
        number(address).map(place).into_iter().collect()
    }

    fn random(&self, octets: &mut [u8]) {
        let mut state = self.net.lock();
        octets.fill_with(|| state.random.draw() as u8);
    }

    fn failed(&self, why: &str) {
        self.net.lock().failed.insert(self.node, why.into());
    }

    fn applied(&self, applied: &Applied) {
        self.net.lock().applied.entry(self.node).or_default().push(applied.clone());
    }

    fn compaction(&self) -> Compaction {
        self.net.lock().compaction
    }
}

impl GivenListener for Place {
    fn accept(&self) -> Pending<io::Result<(Box<dyn Duplex>, SocketAddr)>> {
        let (net, node) = (self.net.clone(), self.node);
        Box::pin(std::future::poll_fn(move |context| {
            let mut state = net.lock();
            let Some(door) = state.doors.get_mut(&node) else { return Poll::Pending };
            let Some((id, from)) = door.waiting.pop_front() else {
                door.waker = Some(context.waker().clone());
                return Poll::Pending;
            };
            drop(state);
            let end = Box::new(End { net: net.clone(), id, end: 1, is_handed_over: false }) as Box<dyn Duplex>;
            Poll::Ready(Ok((end, place(from))))
        }))
    }
}

impl GivenDatagrams for Place {
    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let now = state.now;
        let Some(letters) = state.boxes.get_mut(&self.node) else { return Poll::Pending };
        let Some(first) = letters.under_way.first_entry().filter(|first| first.key().0 <= now) else {
            letters.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let octets = first.remove();
        let taken = octets.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&octets[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn send(&self, octets: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut state = self.net.lock();
        let (to, loss) = (node_at(to), state.loss);
        let is_lost = state.random.below(1000) < loss;
        let is_kept = state.facts_stay && octets.get(5).is_some_and(|kind| *kind != 1);
        if state.cut.contains(&(self.node, to)) || is_lost || is_kept {
            return Ok(());
        }
        let twice = loss > 0 && state.random.one_in(20);
        for _ in 0..1 + u64::from(twice) {
            let at = state.now + 1 + state.delay.min(3) + state.way();
            state.sent += 1;
            let key = (at, state.sent);
            if let Some(letters) = state.boxes.get_mut(&to) {
                letters.under_way.insert(key, octets.to_vec());
            }
        }
        Ok(())
    }
}

/// One end of a stream.
struct End {
    net: Net,
    id: u64,
    end: usize,
    /// A socket stands for it.
    is_handed_over: bool,
}

impl Duplex for End {
    fn into_socket(mut self: Box<Self>) -> io::Result<TcpStream> {
        let mut state = self.net.lock();
        let (socket, theirs) = Socket::pair(state.tampering)?;
        state.sockets.insert((self.id, self.end), socket);
        drop(state);
        self.is_handed_over = true;
        Ok(theirs)
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.net.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        if stream.failed[self.end] {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let pipe = &mut stream.pipes[1 - self.end];
        if pipe.arrived.is_empty() && !pipe.ended {
            stream.readers[self.end] = Some(context.waker().clone());
            return Poll::Pending;
        }
        let taken = pipe.arrived.len().min(buffer.remaining());
        let octets: Vec<u8> = pipe.arrived.drain(..taken).collect();
        buffer.put_slice(&octets);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if stream.failed[self.end] {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(stream.pipes[self.end].octets);
        if room == 0 {
            stream.writers[self.end] = Some(context.waker().clone());
            return Poll::Pending;
        }
        let taken = octets.len().min(room);
        if taken > 0 {
            state.send(self.id, self.end, &octets[..taken]);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.lock().send(self.id, self.end, &[]);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.is_handed_over {
            return;
        }
        let mut state = self.net.lock();
        state.send(self.id, self.end, &[]);
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.closed[self.end] = true;
        }
    }
}
