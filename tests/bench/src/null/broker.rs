//! The loop of the null broker: read up to 256 KiB, copy each message into the output of its consumers, write each
//! output once.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::log::{Batch, Log};
use super::output::Output;
use super::queues::Queues;
use crate::wire::{self, Arguments, Frame, MethodId};

/// Octets read at once.
const READ_LENGTH: usize = 256 * 1024;
/// Octets of one output above which no publisher is read.
const OUTPUT_LIMIT: usize = 1024 * 1024;
/// Octets waiting for a sync above which no publisher is read.
const LOG_LIMIT: usize = 16 * 1024 * 1024;
/// Bodies from this length on are not copied to the output but written from where they were read.
const COPY_LIMIT: usize = 8 * 1024;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// The null broker.
#[derive(Debug)]
pub struct NullBroker {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    outputs: Vec<Output>,
    free: Vec<usize>,
    queues: Queues,
    log: Option<Log>,
    batch: Batch,
    dirty: Vec<usize>,
    /// How many outputs are above [`OUTPUT_LIMIT`].
    congested: usize,
    buffer: Vec<u8>,
    generation: u64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    generation: u64,
    readable: bool,
    leftover: Vec<u8>,
    greeted: bool,
    publishes: bool,
    confirms: bool,
    channel: u16,
    published: u64,
    route_of: Vec<u8>,
    route_generation: u64,
    route: Vec<usize>,
    last: Last,
}

/// The frames of the last publish up to its body: most messages of a producer begin with the same octets.
#[derive(Debug, Default)]
struct Last {
    head: Vec<u8>,
    /// Octets of the publish frame.
    method: usize,
    /// Octets of the whole message, 0 before the first and when its body comes in several frames.
    length: usize,
}

/// A whole publish inside a read buffer.
struct Publish<'a> {
    channel: u16,
    /// The arguments from the exchange on.
    route: &'a [u8],
    header: Frame<'a>,
    /// Header and body frames.
    content: &'a [u8],
    length: usize,
}

impl NullBroker {
    /// Binds; with a file, persistent messages are synced to it before they are confirmed.
    ///
    /// # Errors
    /// When the port is taken or the file cannot be written.
    pub fn bind(address: SocketAddr, log: Option<&Path>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let log = log.map(|path| Log::open(path, waker)).transpose()?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            outputs: Vec::new(),
            free: Vec::new(),
            queues: Queues::default(),
            log,
            batch: Batch::default(),
            dirty: Vec::new(),
            congested: 0,
            buffer: vec![0; READ_LENGTH * 2],
            generation: 0,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When polling or a sync fails.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let congested = self.is_congested();
            let work = self.connections.iter().flatten().any(|one| one.readable && !(congested && one.publishes));
            let timeout = work.then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => {}
                    Token(slot) => {
                        if let Some(Some(connection)) = self.connections.get_mut(slot) {
                            connection.readable |= event.is_readable() || event.is_read_closed();
                        }
                        if event.is_writable() {
                            self.outputs[slot].writable = true;
                            self.mark(slot);
                        }
                    }
                }
            }
            self.flush();
            for slot in 0..self.connections.len() {
                let ready = |one: &Connection| one.readable && !(one.publishes && self.is_congested());
                if self.connections[slot].as_ref().is_some_and(ready) {
                    self.serve(slot);
                    self.flush();
                }
            }
            self.commit()?;
            self.flush();
        }
    }

    fn is_congested(&self) -> bool {
        self.congested > 0 || self.batch.octets.len() > LOG_LIMIT
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or(self.connections.len());
            if slot == self.connections.len() {
                self.connections.push(None);
                self.outputs.push(Output::default());
            }
            self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
            self.generation += 1;
            self.outputs[slot] = Output::default();
            self.outputs[slot].writable = true;
            self.connections[slot] = Some(Connection::new(stream, self.generation));
        }
    }

    /// One read and what follows from it.
    fn serve(&mut self, slot: usize) {
        let Some(mut connection) = self.connections[slot].take() else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read(slot, &mut connection, &mut buffer);
        self.buffer = buffer;
        if result.is_ok() {
            self.connections[slot] = Some(connection);
        } else {
            self.drop_connection(slot);
        }
    }

    fn drop_connection(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.congested -= usize::from(self.outputs[slot].congested);
        self.outputs[slot] = Output::default();
        self.dirty.retain(|&dirty| dirty != slot);
        self.queues.forget_connection(slot);
        self.free.push(slot);
    }

    fn read(&mut self, slot: usize, connection: &mut Connection, buffer: &mut Vec<u8>) -> io::Result<()> {
        let kept = connection.leftover.len();
        if buffer.len() < kept + READ_LENGTH {
            buffer.resize(kept + READ_LENGTH, 0);
        }
        buffer[..kept].copy_from_slice(&connection.leftover);
        let count = match connection.stream.read(&mut buffer[kept..kept + READ_LENGTH]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        connection.readable = count == READ_LENGTH;
        let octets = &buffer[..kept + count];
        let mut used = 0;
        if !connection.greeted {
            if octets.len() < wire::PROTOCOL_HEADER.len() {
                connection.leftover = octets.to_vec();
                return Ok(());
            }
            used = wire::PROTOCOL_HEADER.len();
            connection.greeted = true;
            self.greet(slot);
        }
        let before = connection.published;
        loop {
            if let Some(publish) = connection.last.again(&octets[used..]) {
                used += publish.length;
                self.publish(slot, connection, &publish)?;
                continue;
            }
            let Some(frame) = wire::parse_frame(&octets[used..])? else { break };
            if frame.kind == wire::METHOD && frame.payload.starts_with(&[0, 60, 0, 40]) {
                let Some(publish) = Publish::parse(frame, &octets[used..])? else { break };
                connection.last.remember(&octets[used..], &publish);
                used += publish.length;
                self.publish(slot, connection, &publish)?;
            } else {
                used += frame.wire_length();
                if let Some(id) = frame.method_id() {
                    self.method(slot, connection, id, &frame)?;
                }
            }
        }
        connection.leftover.clear();
        connection.leftover.extend_from_slice(&octets[used..]);
        if connection.confirms && connection.published > before {
            self.batch.confirms.push((slot, connection.generation, connection.channel, connection.published));
        }
        Ok(())
    }

    fn publish(&mut self, slot: usize, connection: &mut Connection, publish: &Publish<'_>) -> io::Result<()> {
        connection.publishes = true;
        connection.published += 1;
        if connection.route_of != publish.route || connection.route_generation != self.queues.generation {
            let mut arguments = Arguments(publish.route);
            connection.route = self.queues.route(arguments.short_string()?, arguments.short_string()?);
            connection.route_of = publish.route.to_vec();
            connection.route_generation = self.queues.generation;
        }
        if connection.confirms && self.log.is_some() && is_persistent(&publish.header) {
            self.batch.octets.extend_from_slice(publish.route);
            self.batch.octets.extend_from_slice(publish.content);
        }
        for &queue in &connection.route {
            let Some(consumer) = self.queues.next_consumer(queue) else { continue };
            let target = consumer.slot;
            let output = &mut self.outputs[target];
            consumer.put_deliver(publish.route, output.octets_mut());
            let same_channel = publish.channel == consumer.channel;
            let stream = match &mut self.connections[target] {
                Some(other) if target != slot => Some(&mut other.stream),
                _ => None,
            };
            if let Some(stream) = stream
                && same_channel
                && publish.content.len() >= COPY_LIMIT
            {
                // An error shows again when the consumer's connection is read.
                if output.write_through(stream, publish.content).is_err() {
                    output.octets_mut().clear();
                }
            } else {
                let at = output.octets_mut().len();
                output.octets_mut().extend_from_slice(publish.content);
                if !same_channel {
                    let channel = consumer.channel;
                    set_channel(&mut output.octets_mut()[at..], channel)?;
                }
            }
            if !output.dirty {
                output.dirty = true;
                self.dirty.push(target);
            }
        }
        Ok(())
    }

    /// Confirms what needs no disk or is on it, and hands the next batch to the disk.
    fn commit(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else {
            let confirms = std::mem::take(&mut self.batch.confirms);
            self.confirm(&confirms);
            self.batch.confirms = confirms;
            self.batch.confirms.clear();
            return Ok(());
        };
        let mut finished = Vec::new();
        let mut spare = None;
        while let Some(batch) = log.finished()? {
            finished.extend_from_slice(&batch.confirms);
            spare = Some(batch);
        }
        if !log.busy && !self.batch.confirms.is_empty() {
            let mut next = spare.unwrap_or_default();
            next.octets.clear();
            next.confirms.clear();
            log.write(std::mem::replace(&mut self.batch, next))?;
        }
        self.confirm(&finished);
        Ok(())
    }

    fn confirm(&mut self, confirms: &[(usize, u64, u16, u64)]) {
        for &(slot, generation, channel, tag) in confirms {
            if self.connections[slot].as_ref().is_some_and(|one| one.generation == generation) {
                self.answer(slot, channel, wire::BASIC_ACK, |out| {
                    wire::put_u64(out, tag);
                    out.push(1);
                });
            }
        }
    }

    fn flush(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for &slot in &dirty {
            let output = &mut self.outputs[slot];
            output.dirty = false;
            let Some(connection) = &mut self.connections[slot] else { continue };
            let was_congested = output.congested;
            if output.flush(&mut connection.stream).is_err() {
                self.drop_connection(slot);
                continue;
            }
            output.congested = output.waiting() > OUTPUT_LIMIT;
            self.congested = self.congested + usize::from(output.congested) - usize::from(was_congested);
        }
        dirty.clear();
        // Dropping a connection marks nothing dirty, so the emptied list can be used again.
        self.dirty = dirty;
    }

    fn mark(&mut self, slot: usize) {
        let output = &mut self.outputs[slot];
        if !output.dirty {
            output.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn answer(&mut self, slot: usize, channel: u16, id: MethodId, fill: impl FnOnce(&mut Vec<u8>)) {
        wire::put_method(self.outputs[slot].octets_mut(), channel, id, fill);
        self.mark(slot);
    }

    fn greet(&mut self, slot: usize) {
        self.answer(slot, 0, wire::CONNECTION_START, |out| {
            out.extend_from_slice(&[0, 9]);
            wire::put_u32(out, 0);
            wire::put_long_string(out, b"PLAIN");
            wire::put_long_string(out, b"en_US");
        });
    }

    fn method(&mut self, slot: usize, connection: &mut Connection, id: MethodId, frame: &Frame<'_>) -> io::Result<()> {
        let channel = frame.channel;
        let mut arguments = Arguments::of(frame);
        let nothing = |_: &mut Vec<u8>| {};
        match id {
            wire::CONNECTION_START_OK => self.answer(slot, 0, wire::CONNECTION_TUNE, |out| {
                wire::put_u16(out, 2047);
                wire::put_u32(out, wire::FRAME_MAX);
                wire::put_u16(out, 0);
            }),
            wire::CONNECTION_OPEN => self.answer(slot, 0, wire::CONNECTION_OPEN_OK, |out| out.push(0)),
            wire::CONNECTION_CLOSE => self.answer(slot, 0, wire::CONNECTION_CLOSE_OK, nothing),
            wire::CHANNEL_OPEN => self.answer(slot, channel, wire::CHANNEL_OPEN_OK, |out| wire::put_u32(out, 0)),
            wire::CHANNEL_CLOSE => self.answer(slot, channel, wire::CHANNEL_CLOSE_OK, nothing),
            wire::EXCHANGE_DECLARE => self.answer(slot, channel, wire::EXCHANGE_DECLARE_OK, nothing),
            wire::EXCHANGE_DELETE => {
                arguments.u16()?;
                self.queues.delete_exchange(arguments.short_string()?);
                self.answer(slot, channel, wire::EXCHANGE_DELETE_OK, nothing);
            }
            wire::QUEUE_DECLARE => {
                arguments.u16()?;
                let name = arguments.short_string()?;
                self.queues.declare(name);
                self.answer(slot, channel, wire::QUEUE_DECLARE_OK, |out| {
                    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                    out.extend_from_slice(name);
                    wire::put_u64(out, 0);
                });
            }
            wire::QUEUE_BIND => {
                arguments.u16()?;
                let queue = arguments.short_string()?;
                self.queues.bind(queue, arguments.short_string()?);
                self.answer(slot, channel, wire::QUEUE_BIND_OK, nothing);
            }
            wire::QUEUE_DELETE => {
                arguments.u16()?;
                self.queues.delete(arguments.short_string()?);
                self.answer(slot, channel, wire::QUEUE_DELETE_OK, |out| wire::put_u32(out, 0));
            }
            wire::BASIC_QOS => self.answer(slot, channel, wire::BASIC_QOS_OK, nothing),
            wire::BASIC_CONSUME => {
                arguments.u16()?;
                let (queue, tag) = (arguments.short_string()?, arguments.short_string()?);
                self.queues.consume(queue, slot, channel, tag);
                self.answer(slot, channel, wire::BASIC_CONSUME_OK, |out| {
                    out.push(u8::try_from(tag.len()).unwrap_or(u8::MAX));
                    out.extend_from_slice(tag);
                });
            }
            wire::CONFIRM_SELECT => {
                connection.confirms = true;
                connection.channel = channel;
                self.answer(slot, channel, wire::CONFIRM_SELECT_OK, nothing);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Connection {
    fn new(stream: TcpStream, generation: u64) -> Self {
        Self {
            stream,
            generation,
            readable: true,
            leftover: Vec::new(),
            greeted: false,
            publishes: false,
            confirms: false,
            channel: 0,
            published: 0,
            route_of: Vec::new(),
            route_generation: 0,
            route: Vec::new(),
            last: Last::default(),
        }
    }
}

impl Last {
    fn remember(&mut self, octets: &[u8], publish: &Publish<'_>) {
        self.method = publish.length - publish.content.len();
        let head = self.method + publish.header.wire_length() + wire::FRAME_PREFIX;
        self.length = 0;
        if let Ok(Some(body)) = wire::parse_frame(&octets[head - wire::FRAME_PREFIX..publish.length])
            && head + body.payload.len() + 1 == publish.length
        {
            self.head.clear();
            self.head.extend_from_slice(&octets[..head]);
            self.length = publish.length;
        }
    }

    /// The publish that `octets` begin with, if it looks like the last one and is whole.
    #[inline]
    fn again<'a>(&self, octets: &'a [u8]) -> Option<Publish<'a>> {
        let whole = octets.get(..self.length)?;
        if self.length == 0 || !whole.starts_with(&self.head) || whole.last() != Some(&wire::FRAME_END) {
            return None;
        }
        let (method, content) = whole.split_at_checked(self.method)?;
        Some(Publish {
            channel: u16::from_be_bytes([whole[1], whole[2]]),
            route: method.get(wire::FRAME_PREFIX + 6..method.len() - 2)?,
            header: Frame {
                kind: wire::HEADER,
                channel: u16::from_be_bytes([whole[1], whole[2]]),
                payload: content.get(wire::FRAME_PREFIX..self.head.len() - self.method - wire::FRAME_PREFIX - 1)?,
            },
            content,
            length: self.length,
        })
    }
}

impl<'a> Publish<'a> {
    /// The publish that `octets` begin with, whose method frame is parsed, or `None` when its end is missing.
    #[inline]
    fn parse(method: Frame<'a>, octets: &'a [u8]) -> io::Result<Option<Self>> {
        let content_at = method.wire_length();
        let Some(header) = wire::parse_frame(&octets[content_at..])? else { return Ok(None) };
        let Some((_, size)) = header.payload.split_first_chunk::<4>() else { return Err(wire::broken("no header")) };
        let Some((size, _)) = size.split_first_chunk::<8>() else { return Err(wire::broken("no header")) };
        let mut missing = u64::from_be_bytes(*size);
        let mut length = content_at + header.wire_length();
        while missing > 0 {
            let Some(body) = wire::parse_frame(&octets[length..])? else { return Ok(None) };
            length += body.wire_length();
            missing = missing.saturating_sub(body.payload.len() as u64);
        }
        let route = method.payload.get(6..method.payload.len() - 1).unwrap_or_default();
        let content = &octets[content_at..length];
        Ok(Some(Self { channel: method.channel, route, header, content, length }))
    }
}

/// Whether the delivery mode is 2, for messages without content type, encoding and headers, as the bench's.
fn is_persistent(header: &Frame<'_>) -> bool {
    match header.payload.get(12..15) {
        Some([high, _, mode]) => high & 0xF0 == 0x10 && *mode == 2,
        _ => false,
    }
}

/// Rewrites the channel of all frames.
fn set_channel(mut octets: &mut [u8], channel: u16) -> io::Result<()> {
    while !octets.is_empty() {
        let length = match wire::parse_frame(octets)? {
            Some(frame) => frame.wire_length(),
            None => return Err(wire::broken("half a frame")),
        };
        octets[1..3].copy_from_slice(&channel.to_be_bytes());
        octets = &mut octets[length..];
    }
    Ok(())
}
