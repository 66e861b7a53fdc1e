//! A client that reads its socket when it is told to and at no other time, which no client library does: what a test leaves unread stays in the
//! socket and holds the broker up.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

/// How long the broker may take for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const FRAME_MAX: usize = 131_072;
const FRAME_END: u8 = 0xce;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Read from the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Publishes are persistent: the property delivery-mode, 2.
const PERSISTENT: &[u8] = &[0x10, 0, 2];
const NO_PROPERTIES: &[u8] = &[0, 0];

/// Class and method number.
type Method = (u16, u16);

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message for a consumer.
    Delivery {
        /// On this channel.
        channel: u16,
        /// To be settled with this tag.
        tag: u64,
        /// The consumer's own tag.
        consumer: String,
        /// The message.
        body: Vec<u8>,
    },
    /// An answer to `basic.get`; `None` if there was nothing.
    Got(Option<Vec<u8>>),
    /// Publishes up to this number, or it alone, are confirmed.
    Ack(u64, bool),
    /// The same, refused.
    Nack(u64, bool),
    /// A mandatory message that no queue took.
    Returned,
    /// Publishers are blocked, and why.
    Blocked(String),
    /// They are not any more.
    Unblocked,
    /// The channel was closed.
    ChannelClosed(u16, String),
    /// The connection was closed.
    ConnectionClosed(u16, String),
    /// Another method.
    Other(u16, u16),
}

/// A connection to a broker on this machine.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Read from the socket and not understood yet; those before `at` are.
    octets: Vec<u8>,
    at: usize,
    /// Said while something else was waited for.
    said: VecDeque<Said>,
}

impl Wire {
    /// Logs in as guest and opens channel 1. It understands `connection.blocked`.
    pub fn open(port: u16) -> io::Result<Wire> {
        let mut wire = Wire::connect(port)?;
        wire.open_channel(1)?;
        Ok(wire)
    }

    /// The same without a channel.
    pub fn connect(port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = Wire { stream, octets: Vec::new(), at: 0, said: VecDeque::new() };
        wire.send(b"AMQP\0\0\x09\x01")?;
        wire.wait_for((10, 10))?;
        let capabilities = [short("connection.blocked"), b"t\x01".to_vec()].concat();
        let properties = [short("capabilities"), b"F".to_vec(), long(&capabilities)].concat();
        let start_ok = [long(&properties), short("PLAIN"), long(b"\0guest\0guest"), short("en_US")].concat();
        wire.send(&method(0, (10, 11), &start_ok))?;
        wire.wait_for((10, 30))?;
        let tune_ok = [&[7, 255][..], &(FRAME_MAX as u32).to_be_bytes(), &[0, 0]].concat();
        wire.send(&method(0, (10, 31), &tune_ok))?;
        wire.call(0, (10, 40), &[1, b'/', 0, 0])?;
        Ok(wire)
    }

    /// Opens a channel.
    pub fn open_channel(&mut self, channel: u16) -> io::Result<()> {
        self.call(channel, (20, 10), &[0])
    }

    /// Declares a queue, durable or not.
    pub fn declare(&mut self, queue: &str, durable: bool) -> io::Result<()> {
        self.declare_with(queue, u8::from(durable) << 1, &[])
    }

    /// Declares a queue with these bits (1 passive, 2 durable, 4 exclusive, 8 auto-delete) and arguments.
    pub fn declare_with(&mut self, queue: &str, bits: u8, arguments: &[u8]) -> io::Result<()> {
        self.call(1, (50, 10), &[vec![0, 0], short(queue), vec![bits], long(arguments)].concat())
    }

    /// Starts a consumer, whose tag is the name of its queue.
    pub fn consume(&mut self, channel: u16, queue: &str, no_ack: bool) -> io::Result<()> {
        let bits = u8::from(no_ack) << 1;
        self.call(channel, (60, 20), &[vec![0, 0], short(queue), short(queue), vec![bits], long(b"")].concat())
    }

    /// Limits what later consumers of the channel are sent without settling it.
    pub fn prefetch(&mut self, channel: u16, count: u16) -> io::Result<()> {
        self.call(channel, (60, 10), &[&[0; 4][..], &count.to_be_bytes(), &[0]].concat())
    }

    /// Has publishes confirmed.
    pub fn confirm_select(&mut self, channel: u16) -> io::Result<()> {
        self.call(channel, (85, 10), &[0])
    }

    /// Takes a message off a queue, settled.
    pub fn get(&mut self, queue: &str) -> io::Result<Option<Vec<u8>>> {
        self.send(&method(1, (60, 70), &[vec![0, 0], short(queue), vec![1]].concat()))?;
        match self.find(|said| matches!(said, Said::Got(_)))? {
            Said::Got(body) => Ok(body),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a method and waits for its answer. What else comes meanwhile is kept; an exception is an error.
    pub fn call(&mut self, channel: u16, id: Method, arguments: &[u8]) -> io::Result<()> {
        self.send(&method(channel, id, arguments))?;
        self.wait_for((id.0, id.1 + 1))
    }

    /// Sends octets.
    pub fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// What the broker says next. Heartbeats are not said.
    pub fn listen(&mut self) -> io::Result<Said> {
        match self.said.pop_front() {
            Some(said) => Ok(said),
            None => self.understand(),
        }
    }

    /// The first of what it says that is looked for; the rest is kept. An exception is an error.
    pub fn find(&mut self, wanted: impl Fn(&Said) -> bool) -> io::Result<Said> {
        if let Some(at) = self.said.iter().position(&wanted) {
            return self.said.remove(at).ok_or_else(|| broken("nothing"));
        }
        loop {
            let said = self.understand()?;
            if wanted(&said) {
                return Ok(said);
            }
            if matches!(said, Said::ChannelClosed(..) | Said::ConnectionClosed(..)) {
                return Err(unexpected(&said));
            }
            self.said.push_back(said);
        }
    }

    /// What it says within this time, if anything.
    pub fn listen_for(&mut self, time: Duration) -> io::Result<Option<Said>> {
        self.stream.set_read_timeout(Some(time))?;
        let next = self.listen();
        self.stream.set_read_timeout(Some(PATIENCE))?;
        match next {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            next => next.map(Some),
        }
    }

    /// A second handle for sending, for another thread.
    pub fn sender(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Ends the connection without a word.
    pub fn hang_up(self) {
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn wait_for(&mut self, id: Method) -> io::Result<()> {
        self.find(|said| *said == Said::Other(id.0, id.1)).map(drop)
    }

    fn understand(&mut self) -> io::Result<Said> {
        let (channel, payload) = loop {
            let (kind, channel, payload) = self.frame()?;
            if kind == METHOD {
                break (channel, payload);
            }
        };
        let mut fields = Fields(payload.get(4..).unwrap_or_default());
        let id = (number(&payload, 0)?, number(&payload, 2)?);
        Ok(match id {
            (60, 60) => {
                let consumer = fields.short()?;
                Said::Delivery { channel, tag: fields.long_long()?, consumer, body: self.content()? }
            }
            (60, 71) => Said::Got(Some(self.content()?)),
            (60, 72) => Said::Got(None),
            (60, 50) => self.content().map(|_| Said::Returned)?,
            (60, 80) => Said::Ack(fields.long_long()?, fields.octet()? & 1 != 0),
            (60, 120) => Said::Nack(fields.long_long()?, fields.octet()? & 1 != 0),
            (10, 60) => Said::Blocked(fields.short()?),
            (10, 61) => Said::Unblocked,
            (10, 50) => Said::ConnectionClosed(fields.short_number()?, fields.short()?),
            (20, 40) => Said::ChannelClosed(fields.short_number()?, fields.short()?),
            (class, method) => Said::Other(class, method),
        })
    }

    /// The content that follows a method.
    fn content(&mut self) -> io::Result<Vec<u8>> {
        let (kind, _, header) = self.frame()?;
        let size = header.get(4..12).and_then(<[u8]>::first_chunk).filter(|_| kind == HEADER);
        let size = usize::try_from(u64::from_be_bytes(*size.ok_or_else(|| broken("no content header"))?));
        let size = size.map_err(|_| broken("a message without end"))?;
        let mut body = Vec::new();
        while body.len() < size {
            match self.frame()? {
                (BODY, _, mut payload) => body.append(&mut payload),
                _ => return Err(broken("something else where a body is due")),
            }
        }
        Ok(body)
    }

    fn frame(&mut self) -> io::Result<(u8, u16, Vec<u8>)> {
        loop {
            let octets = self.octets.get(self.at..).unwrap_or_default();
            if let Some(&[kind, high, low, a, b, c, d]) = octets.first_chunk::<7>() {
                let size = u32::from_be_bytes([a, b, c, d]) as usize;
                if size > FRAME_MAX {
                    return Err(broken("a frame larger than agreed"));
                }
                if let Some(&end) = octets.get(7 + size) {
                    if end != FRAME_END {
                        return Err(broken("a frame without its end"));
                    }
                    let payload = octets.get(7..7 + size).unwrap_or_default().to_vec();
                    self.at += size + 8;
                    if kind == 8 {
                        continue;
                    }
                    return Ok((kind, u16::from_be_bytes([high, low]), payload));
                }
            }
            self.octets.drain(..self.at);
            self.at = 0;
            let before = self.octets.len();
            self.octets.resize(before + READ_BYTES, 0);
            let read = self.stream.read(self.octets.get_mut(before..).unwrap_or_default());
            self.octets.truncate(before + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The frames of a publish to a queue, through the default exchange.
#[must_use]
pub fn publish(channel: u16, queue: &str, persistent: bool, body: &[u8]) -> Vec<u8> {
    publish_to(channel, "", queue, persistent, false, body)
}

/// The frames of a publish to an exchange.
#[must_use]
pub fn publish_to(channel: u16, exchange: &str, key: &str, persistent: bool, mandatory: bool, body: &[u8]) -> Vec<u8> {
    let bits = u8::from(mandatory);
    let mut octets = method(channel, (60, 40), &[vec![0, 0], short(exchange), short(key), vec![bits]].concat());
    let properties = if persistent { PERSISTENT } else { NO_PROPERTIES };
    octets.extend(frame(
        HEADER,
        channel,
        &[&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), properties].concat(),
    ));
    body.chunks(FRAME_MAX - 8).for_each(|piece| octets.extend(frame(BODY, channel, piece)));
    octets
}

/// The frame of an ack.
#[must_use]
pub fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(channel, (60, 80), &[&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat())
}

/// The frame of a method.
#[must_use]
pub fn method(channel: u16, (class, method): Method, arguments: &[u8]) -> Vec<u8> {
    frame(METHOD, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat())
}

/// A short string, cut to 255 octets.
#[must_use]
pub fn short(text: &str) -> Vec<u8> {
    let octets = text.as_bytes().get(..text.len().min(255)).unwrap_or_default();
    [&[u8::try_from(octets.len()).unwrap_or(u8::MAX)], octets].concat()
}

/// A long string, or the octets of a table.
#[must_use]
pub fn long(octets: &[u8]) -> Vec<u8> {
    [&u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes(), octets].concat()
}

/// A frame of any kind.
#[must_use]
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &long(payload), &[FRAME_END]].concat()
}

fn number(octets: &[u8], at: usize) -> io::Result<u16> {
    let two = octets.get(at..).and_then(<[u8]>::first_chunk);
    two.map(|two| u16::from_be_bytes(*two)).ok_or_else(|| broken("a method cut short"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the broker sent {what}"))
}

fn unexpected(said: &Said) -> io::Error {
    io::Error::other(format!("the broker said {said:?}"))
}

/// Arguments of a method, from front to back.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, octets: usize) -> io::Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(octets).ok_or_else(|| broken("a method cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn octet(&mut self) -> io::Result<u8> {
        self.take(1).map(|octets| octets.first().copied().unwrap_or_default())
    }

    fn short_number(&mut self) -> io::Result<u16> {
        self.take(2).and_then(|octets| number(octets, 0))
    }

    fn long_long(&mut self) -> io::Result<u64> {
        self.take(8).map(|octets| octets.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight)))
    }

    fn short(&mut self) -> io::Result<String> {
        let length = self.octet()?;
        self.take(length.into()).map(|text| String::from_utf8_lossy(text).into_owned())
    }
}
