//! A blocking AMQP client, enough to prepare a workload and for the workloads where one request follows another.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::tls::{Stream, Target};
use crate::wire::{self, Arguments, MethodId};

/// How long a broker may take for an answer. RabbitMQ needs many seconds for a large delete.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Octets read at once.
const READ_LENGTH: usize = 256 * 1024;

/// One connection with channel 1 open.
#[derive(Debug)]
pub struct Session {
    stream: Stream<TcpStream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// A frame that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFrame {
    /// The frame type.
    pub kind: u8,
    /// The channel number.
    pub channel: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

impl OwnedFrame {
    /// The frame as one that borrows.
    #[must_use]
    pub fn borrow(&self) -> wire::Frame<'_> {
        wire::Frame { kind: self.kind, channel: self.channel, payload: &self.payload }
    }
}

impl Session {
    /// Connects as guest to `/` and opens channel 1.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub fn open(target: impl Into<Target>) -> io::Result<Self> {
        let mut session = Self::connect(target)?;
        session.call(1, wire::CHANNEL_OPEN, |out| wire::put_short_string(out, ""), wire::CHANNEL_OPEN_OK)?;
        Ok(session)
    }

    /// Connects as guest to `/`.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub fn connect(target: impl Into<Target>) -> io::Result<Self> {
        Self::connect_in(target, "/")
    }

    /// Connects as guest to a vhost.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub fn connect_in(target: impl Into<Target>, vhost: &str) -> io::Result<Self> {
        let Target { address, tls } = target.into();
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let stream = Stream::new(stream, tls)?;
        let mut session = Self { stream, buffer: Vec::new(), start: 0, end: 0 };
        session.send(wire::PROTOCOL_HEADER)?;
        session.expect(wire::CONNECTION_START)?;
        session.send_method(0, wire::CONNECTION_START_OK, |out| {
            wire::put_u32(out, 0);
            wire::put_short_string(out, "PLAIN");
            wire::put_long_string(out, b"\0guest\0guest");
            wire::put_short_string(out, "en_US");
        })?;
        let tune = session.expect(wire::CONNECTION_TUNE)?;
        let channel_max = Arguments::of(&tune.borrow()).u16()?;
        let mut out = Vec::new();
        wire::put_method(&mut out, 0, wire::CONNECTION_TUNE_OK, |out| {
            wire::put_u16(out, channel_max);
            wire::put_u32(out, wire::FRAME_MAX);
            wire::put_u16(out, 0);
        });
        wire::put_method(&mut out, 0, wire::CONNECTION_OPEN, |out| {
            wire::put_short_string(out, vhost);
            wire::put_short_string(out, "");
            out.push(0);
        });
        session.send(&out)?;
        session.expect(wire::CONNECTION_OPEN_OK)?;
        Ok(session)
    }

    /// From now on the broker may take this long for an answer.
    ///
    /// # Errors
    /// When the socket does not take it.
    pub fn answer_within(&mut self, limit: Duration) -> io::Result<()> {
        self.stream.socket().set_read_timeout(Some(limit))
    }

    /// Closes the connection in order.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn close(mut self) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 200);
            wire::put_short_string(out, "");
            wire::put_u32(out, 0);
        };
        self.send_method(0, wire::CONNECTION_CLOSE, arguments)?;
        // Whatever the broker sent before it read this does not matter any more.
        while self.receive()?.borrow().method_id() != Some(wire::CONNECTION_CLOSE_OK) {}
        Ok(())
    }

    /// Sends a method and waits for its answer.
    ///
    /// # Errors
    /// When the broker answers something else, as channel.close, or nothing.
    pub fn call(
        &mut self,
        channel: u16,
        id: MethodId,
        fill: impl FnOnce(&mut Vec<u8>),
        answer: MethodId,
    ) -> io::Result<OwnedFrame> {
        self.send_method(channel, id, fill)?;
        self.expect(answer)
    }

    /// Declares a queue that is neither exclusive nor auto-delete.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn declare_queue(&mut self, name: &str, durable: bool) -> io::Result<()> {
        let flags = if durable { 2 } else { 0 };
        self.call(1, wire::QUEUE_DECLARE, |out| queue_declare_arguments(out, name, flags), wire::QUEUE_DECLARE_OK)?;
        Ok(())
    }

    /// Declares an exclusive queue.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn declare_exclusive_queue(&mut self, name: &str) -> io::Result<()> {
        self.call(1, wire::QUEUE_DECLARE, |out| queue_declare_arguments(out, name, 4), wire::QUEUE_DECLARE_OK)?;
        Ok(())
    }

    /// Deletes a queue with what is in it.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn delete_queue(&mut self, name: &str) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 0);
            wire::put_short_string(out, name);
            out.push(0);
        };
        self.call(1, wire::QUEUE_DELETE, arguments, wire::QUEUE_DELETE_OK)?;
        Ok(())
    }

    /// How many messages are ready in a queue.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn queue_length(&mut self, name: &str) -> io::Result<u32> {
        let answer =
            self.call(1, wire::QUEUE_DECLARE, |out| queue_declare_arguments(out, name, 1), wire::QUEUE_DECLARE_OK)?;
        let frame = answer.borrow();
        let mut arguments = Arguments::of(&frame);
        arguments.short_string()?;
        arguments.u32()
    }

    /// Declares a transient fanout exchange.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn declare_fanout(&mut self, name: &str) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 0);
            wire::put_short_string(out, name);
            wire::put_short_string(out, "fanout");
            out.push(0);
            wire::put_u32(out, 0);
        };
        self.call(1, wire::EXCHANGE_DECLARE, arguments, wire::EXCHANGE_DECLARE_OK)?;
        Ok(())
    }

    /// Deletes an exchange.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn delete_exchange(&mut self, name: &str) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 0);
            wire::put_short_string(out, name);
            out.push(0);
        };
        self.call(1, wire::EXCHANGE_DELETE, arguments, wire::EXCHANGE_DELETE_OK)?;
        Ok(())
    }

    /// Binds a queue to an exchange with an empty key.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn bind(&mut self, queue: &str, exchange: &str) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 0);
            wire::put_short_string(out, queue);
            wire::put_short_string(out, exchange);
            wire::put_short_string(out, "");
            out.push(0);
            wire::put_u32(out, 0);
        };
        self.call(1, wire::QUEUE_BIND, arguments, wire::QUEUE_BIND_OK)?;
        Ok(())
    }

    /// Sets the prefetch of the consumers to come.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn qos(&mut self, prefetch: u16) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u32(out, 0);
            wire::put_u16(out, prefetch);
            out.push(0);
        };
        self.call(1, wire::BASIC_QOS, arguments, wire::BASIC_QOS_OK)?;
        Ok(())
    }

    /// Starts a consumer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn consume(&mut self, queue: &str, tag: &str, auto_ack: bool) -> io::Result<()> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 0);
            wire::put_short_string(out, queue);
            wire::put_short_string(out, tag);
            out.push(if auto_ack { 2 } else { 0 });
            wire::put_u32(out, 0);
        };
        self.call(1, wire::BASIC_CONSUME, arguments, wire::BASIC_CONSUME_OK)?;
        Ok(())
    }

    /// Takes the first message of a queue without acknowledging it: its body, and how many are ready behind it.
    ///
    /// # Errors
    /// When the queue is empty or the broker answers something else.
    pub fn get(&mut self, queue: &str) -> io::Result<(Vec<u8>, u32)> {
        let arguments = |out: &mut Vec<u8>| {
            wire::put_u16(out, 0);
            wire::put_short_string(out, queue);
            out.push(0);
        };
        let answer = self.call(1, wire::BASIC_GET, arguments, wire::BASIC_GET_OK)?;
        let frame = answer.borrow();
        let mut arguments = Arguments::of(&frame);
        arguments.u64()?;
        arguments.u8()?;
        arguments.short_string()?;
        arguments.short_string()?;
        let behind = arguments.u32()?;
        let header = self.receive()?;
        let length = header.payload.get(4..12).and_then(|octets| octets.try_into().ok()).map(u64::from_be_bytes);
        let length = length.filter(|_| header.kind == wire::HEADER).ok_or_else(|| wire::broken("no content header"))?;
        let mut body = Vec::new();
        while (body.len() as u64) < length {
            let frame = self.receive()?;
            if frame.kind != wire::BODY {
                return Err(wire::broken("no body frame"));
            }
            body.extend_from_slice(&frame.payload);
        }
        Ok((body, behind))
    }

    /// Switches confirms on.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn select_confirms(&mut self) -> io::Result<()> {
        self.call(1, wire::CONFIRM_SELECT, |out| out.push(0), wire::CONFIRM_SELECT_OK)?;
        Ok(())
    }

    /// Sends a method.
    ///
    /// # Errors
    /// When the socket cannot be written.
    pub fn send_method(&mut self, channel: u16, id: MethodId, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut out = Vec::new();
        wire::put_method(&mut out, channel, id, fill);
        self.send(&out)
    }

    /// Sends octets.
    ///
    /// # Errors
    /// When the socket cannot be written.
    pub fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Waits for this method, passing over connection.blocked and unblocked.
    ///
    /// # Errors
    /// When anything else comes.
    pub fn expect(&mut self, id: MethodId) -> io::Result<OwnedFrame> {
        loop {
            let frame = self.receive()?;
            match frame.borrow().method_id() {
                Some(found) if found == id => return Ok(frame),
                Some(wire::CONNECTION_BLOCKED | wire::CONNECTION_UNBLOCKED) => {}
                found => return Err(io::Error::other(unexpected(id, found, &frame.payload))),
            }
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection ends or the octets are no frame.
    pub fn receive(&mut self) -> io::Result<OwnedFrame> {
        loop {
            if let Some(frame) = wire::parse_frame(self.buffer.get(self.start..self.end).unwrap_or_default())? {
                let owned = OwnedFrame { kind: frame.kind, channel: frame.channel, payload: frame.payload.to_vec() };
                self.start += frame.wire_length();
                return Ok(owned);
            }
            self.fill()?;
        }
    }

    /// Hands out the socket and what was read from it and not used.
    #[must_use]
    pub fn into_parts(mut self) -> (Stream<TcpStream>, Vec<u8>) {
        self.buffer.truncate(self.end);
        self.buffer.drain(..self.start);
        (self.stream, self.buffer)
    }

    /// A session of a socket on which channel 1 is open, and what was read from it and not used.
    #[must_use]
    pub fn from_parts(stream: Stream<TcpStream>, buffer: Vec<u8>) -> Self {
        let end = buffer.len();
        Self { stream, buffer, start: 0, end }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A small first buffer: the idle workload has thousands of sessions.
        let wanted = if self.buffer.is_empty() { 1024 } else { (self.end * 2).min(self.end + READ_LENGTH) };
        if self.buffer.len() < wanted.max(self.end + 1) {
            self.buffer.resize(wanted.max(self.end + 1), 0);
        }
        let count = self.stream.read(self.buffer.get_mut(self.end..).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += count;
        Ok(())
    }
}

/// The arguments of queue.declare; `flags` are passive 1, durable 2, exclusive 4, auto-delete 8.
pub fn queue_declare_arguments(out: &mut Vec<u8>, name: &str, flags: u8) {
    wire::put_u16(out, 0);
    wire::put_short_string(out, name);
    out.push(flags);
    wire::put_u32(out, 0);
}

fn unexpected(wanted: MethodId, found: Option<MethodId>, payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload.get(4..).unwrap_or_default());
    format!("waited for method {wanted:?}, got {found:?} {text:?}")
}
