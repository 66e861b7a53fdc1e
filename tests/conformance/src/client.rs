//! One connection to a broker: sends what it is told, right or wrong, and makes events of what comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::frame::{self, Frame};
use crate::spec::by_name;
use crate::wire::{Decoded, decode_header, decode_method, encode_method};
use crate::{Error, text};

/// The octets with which a client opens.
pub const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// How long an expected answer may take. RabbitMQ waits 3 s before it hangs up on a failed handshake; the rest is for
/// machines that are busy with other things. Only a wrong answer costs this time.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The capabilities that a client announces unless the scenario says otherwise.
const CAPABILITIES: &str = "{publisher_confirms:t true, exchange_exchange_bindings:t true, basic.nack:t true, \
     consumer_cancel_notify:t true, connection.blocked:t true, authentication_failure_close:t true}";
/// The largest frame that may be sent before tuning, and the default after it.
const FRAME_MAX: usize = 131_072;

/// What arrived.
#[derive(Debug, Clone)]
pub enum Event {
    /// A method, with its content when it has one.
    Method(u16, Decoded, Option<Content>),
    /// One publish was confirmed (true) or refused (false): `multiple` is expanded.
    Confirm(u16, bool, u64),
    /// A heartbeat.
    Heartbeat,
    /// The broker's protocol header instead of a frame.
    ProtocolHeader(Vec<u8>),
    /// Octets that are no frame, or a frame that makes no sense here.
    Broken(String),
    /// The broker closed the socket.
    Closed,
}

/// A content's properties and body.
#[derive(Debug, Clone)]
pub struct Content {
    /// The properties present, by name.
    pub properties: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The payload sizes of the body frames.
    pub frames: Vec<usize>,
}

/// How to open a connection.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
    /// The capabilities table as text.
    pub capabilities: String,
    /// channel_max of tune-ok, or the broker's.
    pub channel_max: Option<String>,
    /// frame_max of tune-ok, or the broker's.
    pub frame_max: Option<String>,
    /// heartbeat of tune-ok, in seconds; 0 unless set.
    pub heartbeat: String,
    /// How many channels to open.
    pub channels: u16,
}

impl Default for Login {
    fn default() -> Self {
        Login {
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
            capabilities: CAPABILITIES.to_owned(),
            channel_max: None,
            frame_max: None,
            heartbeat: "0".to_owned(),
            channels: 1,
        }
    }
}

/// A content of which frames are still missing.
#[derive(Debug)]
struct Partial {
    decoded: Decoded,
    properties: Option<Vec<(&'static str, String)>>,
    size: u64,
    body: Vec<u8>,
    frames: Vec<usize>,
}

/// The publishes of a channel in confirm mode.
#[derive(Debug, Default)]
struct Confirms {
    published: u64,
    settled: BTreeSet<u64>,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    partial: BTreeMap<u16, Partial>,
    confirms: BTreeMap<u16, Confirms>,
    frame_max: usize,
    started: bool,
    closed: bool,
    /// Leaves channel.close and connection.close unanswered.
    pub manual: bool,
}

impl Client {
    /// Connects to 127.0.0.1 without saying anything.
    pub fn connect(port: u16) -> Result<Self, Error> {
        Self::connect_to((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects without saying anything.
    pub fn connect_to(address: SocketAddr) -> Result<Self, Error> {
        let refused = |error| Error::new(format!("connecting to {address}: {error}"));
        let stream = TcpStream::connect(address).map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(refused)?;
        Ok(Client {
            stream,
            buffer: Vec::new(),
            events: VecDeque::new(),
            partial: BTreeMap::new(),
            confirms: BTreeMap::new(),
            frame_max: FRAME_MAX,
            started: false,
            closed: false,
            manual: false,
        })
    }

    /// True once the broker has closed the socket and all events were read.
    pub fn is_closed(&self) -> bool {
        self.closed && self.events.is_empty()
    }

    /// The handshake and the opening of channels. Gives the event that was not expected, if there was one.
    pub fn open(&mut self, login: &Login) -> Result<Option<Event>, Error> {
        self.send(PROTOCOL_HEADER);
        if let Err(event) = self.expect("connection.start") {
            return Ok(Some(event));
        }
        let properties = format!("{{product:S conformance, capabilities:F {}}}", login.capabilities);
        let response = text::show(format!("\0{}\0{}", login.user, login.password).as_bytes());
        let start_ok = [
            ("client_properties", properties.as_str()),
            ("mechanism", "PLAIN"),
            ("response", &response),
            ("locale", "en_US"),
        ];
        self.send_method(0, "connection.start-ok", &start_ok)?;
        let tune = match self.expect("connection.tune") {
            Ok(tune) => tune,
            Err(event) => return Ok(Some(event)),
        };
        let theirs = |name| tune.argument(name).unwrap_or("0").to_owned();
        let channel_max = login.channel_max.clone().unwrap_or_else(|| theirs("channel_max"));
        let frame_max = login.frame_max.clone().unwrap_or_else(|| theirs("frame_max"));
        let tune_ok = [
            ("channel_max", channel_max.as_str()),
            ("frame_max", frame_max.as_str()),
            ("heartbeat", login.heartbeat.as_str()),
        ];
        self.send_method(0, "connection.tune-ok", &tune_ok)?;
        self.frame_max = frame_max.parse().ok().filter(|&size| size > frame::OVERHEAD).unwrap_or(FRAME_MAX);
        self.send_method(0, "connection.open", &[("virtual_host", &text::show(login.vhost.as_bytes()))])?;
        if let Err(event) = self.expect("connection.open-ok") {
            return Ok(Some(event));
        }
        for channel in 1..=login.channels {
            self.send_method(channel, "channel.open", &[])?;
            if let Err(event) = self.expect("channel.open-ok") {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Sends octets as they are. A closed socket shows in the next event, not here.
    pub fn send(&mut self, octets: &[u8]) {
        // The peer may have closed already, which is what many scenarios provoke; reading tells.
        let _ = self.stream.write_all(octets);
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.send(&frame::encode(kind, channel, payload));
    }

    /// Sends a method and keeps count of what will be confirmed.
    pub fn send_method(&mut self, channel: u16, name: &str, arguments: &[(&str, &str)]) -> Result<(), Error> {
        let method = by_name(name).ok_or_else(|| Error::new(format!("no such method: {name}")))?;
        let payload = encode_method(method, arguments)?;
        self.count(channel, name);
        self.send_frame(frame::METHOD, channel, &payload);
        Ok(())
    }

    /// Sends a body in frames of the negotiated size.
    pub fn send_body(&mut self, channel: u16, body: &[u8]) {
        for chunk in body.chunks(self.frame_max - frame::OVERHEAD) {
            self.send_frame(frame::BODY, channel, chunk);
        }
    }

    /// Closes the socket without a word.
    pub fn drop_socket(&mut self) {
        // An error means that the other side was faster.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.closed = true;
    }

    /// The next event that is no heartbeat, if it comes in time.
    pub fn next(&mut self, patience: Duration) -> Option<Event> {
        let give_up = Instant::now() + patience;
        loop {
            match self.next_or_heartbeat(give_up)? {
                Event::Heartbeat => {}
                event => return Some(event),
            }
        }
    }

    /// The next event, if it comes before `give_up`.
    pub fn next_or_heartbeat(&mut self, give_up: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.closed {
                return Some(Event::Closed);
            }
            if !self.parse() {
                self.read(give_up.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?);
            }
        }
    }

    fn expect(&mut self, name: &str) -> Result<Decoded, Event> {
        match self.next(PATIENCE) {
            Some(Event::Method(_, decoded, None)) if decoded.method.name == name => Ok(decoded),
            Some(event) => Err(event),
            None => Err(Event::Broken(format!("no {name}"))),
        }
    }

    fn count(&mut self, channel: u16, name: &str) {
        match name {
            "confirm.select" => {
                self.confirms.entry(channel).or_default();
            }
            "channel.open" => {
                self.confirms.remove(&channel);
            }
            "basic.publish" => {
                if let Some(confirms) = self.confirms.get_mut(&channel) {
                    confirms.published += 1;
                }
            }
            _ => {}
        }
    }

    /// Reads what is there; a closed socket becomes an event.
    fn read(&mut self, patience: Duration) {
        let mut chunk = vec![0; 1 << 16];
        let read = self.stream.set_read_timeout(Some(patience)).and_then(|()| self.stream.read(&mut chunk));
        match read {
            Ok(0) => self.close(),
            Ok(count) => self.buffer.extend(chunk.iter().take(count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.close(),
        }
    }

    fn close(&mut self) {
        if !self.buffer.is_empty() {
            self.events.push_back(Event::Broken(format!("{} octets of a cut frame", self.buffer.len())));
        }
        self.closed = true;
        self.events.push_back(Event::Closed);
    }

    /// Makes an event of the buffer's front; false when more octets are needed.
    fn parse(&mut self) -> bool {
        if !self.started && self.buffer.starts_with(b"AMQP") {
            if self.buffer.len() < PROTOCOL_HEADER.len() {
                return false;
            }
            self.events.push_back(Event::ProtocolHeader(self.buffer.drain(..PROTOCOL_HEADER.len()).collect()));
            return true;
        }
        let Some(frame) = frame::take(&mut self.buffer) else { return false };
        self.started = true;
        let shown = format!("type {} channel {} size {}", frame.kind, frame.channel, frame.payload.len());
        if self.frame(frame).is_none() {
            self.events.push_back(Event::Broken(format!("frame {shown}")));
        }
        true
    }

    /// Takes a frame; nothing when it makes no sense here.
    fn frame(&mut self, frame: Frame) -> Option<()> {
        let Frame { kind, channel, payload, end } = frame;
        match kind {
            _ if end != frame::END => None,
            frame::METHOD if !self.partial.contains_key(&channel) => {
                let decoded = decode_method(&payload)?;
                if matches!(decoded.method.name, "basic.deliver" | "basic.return" | "basic.get-ok") {
                    let partial = Partial { decoded, properties: None, size: 0, body: Vec::new(), frames: Vec::new() };
                    self.partial.insert(channel, partial);
                } else {
                    self.method(channel, decoded);
                }
                Some(())
            }
            frame::HEADER => {
                let partial = self.partial.get_mut(&channel).filter(|partial| partial.properties.is_none())?;
                let (size, properties) = decode_header(&payload)?;
                (partial.size, partial.properties) = (size, Some(properties));
                self.finish(channel)
            }
            frame::BODY => {
                let partial = self.partial.get_mut(&channel).filter(|partial| partial.properties.is_some())?;
                partial.frames.push(payload.len());
                partial.body.extend(payload);
                self.finish(channel)
            }
            frame::HEARTBEAT if channel == 0 && payload.is_empty() => {
                self.events.push_back(Event::Heartbeat);
                Some(())
            }
            _ => None,
        }
    }

    /// Makes an event of a content when its last octet is there; nothing when there are too many.
    fn finish(&mut self, channel: u16) -> Option<()> {
        let length = self.partial.get(&channel).map(|partial| (partial.body.len() as u64, partial.size))?;
        if length.0 < length.1 {
            return Some(());
        }
        let Partial { decoded, properties, body, frames, .. } = self.partial.remove(&channel)?;
        let content = Content { properties: properties?, body, frames };
        self.events.push_back(Event::Method(channel, decoded, Some(content)));
        (length.0 == length.1).then_some(())
    }

    fn method(&mut self, channel: u16, decoded: Decoded) {
        let name = decoded.method.name;
        if matches!(name, "basic.ack" | "basic.nack") {
            self.expand_confirm(channel, &decoded);
            return;
        }
        let answer = if self.manual {
            None
        } else {
            by_name(match name {
                "channel.close" => "channel.close-ok",
                "connection.close" => "connection.close-ok",
                _ => "",
            })
        };
        self.events.push_back(Event::Method(channel, decoded, None));
        if let Some(answer) = answer {
            self.send_frame(frame::METHOD, channel, &[answer.class.to_be_bytes(), answer.id.to_be_bytes()].concat());
        }
    }

    /// One event a publish, whether the broker said `multiple` or not: how it groups confirms is its own affair.
    fn expand_confirm(&mut self, channel: u16, decoded: &Decoded) {
        let ack = decoded.method.name == "basic.ack";
        let tag = decoded.argument("delivery_tag").and_then(|tag| tag.parse::<u64>().ok()).unwrap_or_default();
        let multiple = decoded.argument("multiple") == Some("true");
        let confirms = self.confirms.entry(channel).or_default();
        let last = if multiple && tag == 0 { confirms.published } else { tag };
        let first = if multiple { 1 } else { tag };
        for tag in first..=last.min(confirms.published) {
            if confirms.settled.insert(tag) {
                self.events.push_back(Event::Confirm(channel, ack, tag));
            } else if !multiple {
                self.events.push_back(Event::Broken(format!("second confirm of {tag}")));
            }
        }
        if last > confirms.published {
            self.events.push_back(Event::Broken(format!("confirm of {last}, which was not published")));
        }
    }
}
