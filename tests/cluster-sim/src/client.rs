//! A simulated client: AMQP 0-9-1 octets over a socket to a node, with the codec of the conformance tests, which shares nothing with brokerd's.
//!
//! It logs in, opens a channel, asks for what its role needs, one request after the other, and then publishes, consumes or holds a name until its time is
//! over. Then it closes the connection in good order, or without a word.

use std::collections::VecDeque;

use conformance::client::PROTOCOL_HEADER;
use conformance::frame::{self, Frame};
use conformance::spec::by_name;
use conformance::text;
use conformance::wire::{Decoded, decode_method, encode_header, encode_method};

use crate::socket::{Heard, Socket};

/// Through it messages go to several queues.
const EXCHANGE: &str = "amq.direct";
/// One of so many messages is given back once.
const GIVEN_BACK_OF: u64 = 17;
/// Class basic.
const BASIC: u16 = 60;
/// Octets read in a millisecond at most.
const READ_BYTES: usize = 64 * 1024;

/// What it is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It declares durable queues and publishes persistent messages to them, with confirms: to one by its name, to several by a key that it has bound.
    Publish(Vec<String>),
    /// It declares a durable queue and consumes from it, with acknowledgements.
    Consume(String),
    /// It declares an exclusive queue of this name.
    Hold(String),
}

/// What it has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// All it asked for was granted.
    Granted,
    /// The publish of this number is confirmed, or refused.
    Answered(u64, bool),
    /// No queue took a publish.
    Returned(String),
    /// A message; whether it may have been delivered before, and whether it was acknowledged.
    Delivered {
        /// Its name.
        message: String,
        /// It may have been delivered before.
        redelivered: bool,
        /// It was acknowledged; otherwise it was given back.
        acknowledged: bool,
    },
    /// The connection is over, and why.
    Over(String),
}

/// See the module's page.
pub struct Client {
    /// Its number.
    pub number: u64,
    /// The place of its node among the nodes.
    pub at: usize,
    /// What it is there for.
    pub role: Role,
    /// Then it closes, in milliseconds.
    pub until: u64,
    /// All it asked for was granted.
    pub granted: bool,
    /// It has begun to close.
    closing: bool,
    socket: Socket,
    octets: Vec<u8>,
    unsent: Vec<u8>,
    /// Each is sent when the one before is answered.
    requests: VecDeque<Vec<u8>>,
    /// A delivery or return whose content is on its way.
    content: Option<(Decoded, u64, Vec<u8>)>,
    /// Publishes so far, and those that were answered.
    published: u64,
    unanswered: VecDeque<u64>,
}

fn method(channel: u16, name: &str, arguments: &[(&str, &str)]) -> Vec<u8> {
    let payload = by_name(name).and_then(|method| encode_method(method, arguments).ok()).unwrap_or_default();
    frame::encode(frame::METHOD, channel, &payload)
}

impl Client {
    /// It has connected.
    pub fn new(number: u64, at: usize, role: Role, until: u64, socket: Socket) -> Client {
        let declare = |queue: &str, kind| method(1, "queue.declare", &[("queue", queue), (kind, "true")]);
        let of_role = match &role {
            Role::Publish(queues) => {
                let key = number.to_string();
                let mut requests = vec![method(1, "confirm.select", &[])];
                requests.extend(queues.iter().map(|queue| declare(queue, "durable")));
                for queue in queues.iter().filter(|_| queues.len() > 1) {
                    let binding = [("queue", queue.as_str()), ("exchange", EXCHANGE), ("routing_key", &key)];
                    requests.push(method(1, "queue.bind", &binding));
                }
                requests
            }
            Role::Consume(queue) => vec![
                declare(queue, "durable"),
                method(1, "basic.qos", &[("prefetch_count", "5")]),
                method(1, "basic.consume", &[("queue", queue)]),
            ],
            Role::Hold(queue) => vec![declare(queue, "exclusive")],
        };
        let mut requests =
            VecDeque::from([method(0, "connection.open", &[("virtual_host", "/")]), method(1, "channel.open", &[])]);
        requests.extend(of_role);
        Client {
            number,
            at,
            role,
            until,
            granted: false,
            closing: false,
            socket,
            octets: Vec::new(),
            unsent: PROTOCOL_HEADER.to_vec(),
            requests,
            content: None,
            published: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// A name that nobody else gives a message.
    pub fn message(&self, count: u64) -> String {
        format!("{}.{count}", self.number)
    }

    /// Whether it may publish more.
    pub fn may_publish(&self) -> bool {
        matches!(self.role, Role::Publish(_)) && self.granted && !self.closing && self.unanswered.len() < 100
    }

    /// Publishes a message, whose name is returned.
    pub fn publish(&mut self) -> String {
        self.published += 1;
        self.unanswered.push_back(self.published);
        let body = self.message(self.published);
        if let Role::Publish(queues) = &self.role {
            let key = self.number.to_string();
            let (exchange, key) = match queues.as_slice() {
                [queue] => ("\"\"", queue),
                _ => (EXCHANGE, &key),
            };
            let arguments = [("exchange", exchange), ("routing_key", key), ("mandatory", "true")];
            self.unsent.extend(method(1, "basic.publish", &arguments));
            let header = encode_header(BASIC, 0, body.len() as u64, &[("delivery_mode", "2")]).unwrap_or_default();
            self.unsent.extend(frame::encode(frame::HEADER, 1, &header));
            self.unsent.extend(frame::encode(frame::BODY, 1, body.as_bytes()));
        }
        body
    }

    /// Closes the connection in good order.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.unsent.extend(method(0, "connection.close", &[("reply_code", "200")]));
        }
    }

    /// Reads what is there, answers it, and writes. What it has heard.
    pub fn step(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        match self.socket.hear(READ_BYTES) {
            Heard::Nothing => {}
            Heard::Octets(octets) => self.octets.extend(octets),
            Heard::End => said.push(Said::Over("the node has closed the socket".into())),
        }
        let mut heard = Vec::new();
        while let Some(frame) = frame::take(&mut self.octets) {
            self.take(frame, &mut heard);
        }
        said.splice(0..0, heard);
        let taken = self.socket.give(&self.unsent);
        self.unsent.drain(..taken);
        said
    }

    fn take(&mut self, Frame { kind, payload, .. }: Frame, said: &mut Vec<Said>) {
        match kind {
            frame::METHOD => {
                if let Some(decoded) = decode_method(&payload) {
                    self.take_method(decoded, said);
                }
            }
            frame::HEADER => {
                let size = payload.get(4..12).and_then(|size| size.try_into().ok()).map_or(0, u64::from_be_bytes);
                if let Some((_, due, _)) = &mut self.content {
                    *due = size;
                }
            }
            frame::BODY => {
                let Some((_, due, body)) = &mut self.content else { return };
                body.extend(payload);
                if (body.len() as u64) < *due {
                    return;
                }
                let Some((decoded, _, body)) = self.content.take() else { return };
                let body = String::from_utf8_lossy(&body).into_owned();
                if decoded.method.name == "basic.return" {
                    return said.push(Said::Returned(body));
                }
                let tag = decoded.argument("delivery_tag").unwrap_or("0");
                let redelivered = decoded.argument("redelivered") == Some("true");
                let number: u64 = tag.parse().unwrap_or(0);
                let acknowledged = redelivered || !number.is_multiple_of(GIVEN_BACK_OF);
                self.unsent.extend(match acknowledged {
                    true => method(1, "basic.ack", &[("delivery_tag", tag)]),
                    false => method(1, "basic.nack", &[("delivery_tag", tag), ("requeue", "true")]),
                });
                said.push(Said::Delivered { message: body, redelivered, acknowledged });
            }
            _ => {}
        }
    }

    fn take_method(&mut self, decoded: Decoded, said: &mut Vec<Said>) {
        let over = |decoded: &Decoded| Said::Over(decoded.argument("reply_text").unwrap_or_default().to_owned());
        match decoded.method.name {
            "connection.start" => {
                let response = text::show(b"\0guest\0guest");
                let capabilities = "{capabilities:F {consumer_cancel_notify:t true}}";
                let arguments = [
                    ("client_properties", capabilities),
                    ("mechanism", "PLAIN"),
                    ("response", &response),
                    ("locale", "en_US"),
                ];
                self.unsent.extend(method(0, "connection.start-ok", &arguments));
            }
            "connection.tune" => {
                self.unsent.extend(method(0, "connection.tune-ok", &[("channel_max", "10"), ("frame_max", "131072")]));
                self.ask();
            }
            "basic.deliver" | "basic.return" => self.content = Some((decoded, 0, Vec::new())),
            "basic.ack" | "basic.nack" => {
                let tag: u64 = decoded.argument("delivery_tag").and_then(|tag| tag.parse().ok()).unwrap_or(0);
                let is_multiple = decoded.argument("multiple") == Some("true");
                let is_confirmed = decoded.method.name == "basic.ack";
                let is_answered = |number: u64| number == tag || (is_multiple && number < tag);
                for number in self.unanswered.iter().copied().filter(|number| is_answered(*number)) {
                    said.push(Said::Answered(number, is_confirmed));
                }
                self.unanswered.retain(|number| !is_answered(*number));
            }
            "channel.close" => {
                said.push(over(&decoded));
                self.close();
            }
            "connection.close" => {
                self.unsent.extend(method(0, "connection.close-ok", &[]));
                self.closing = true;
                said.push(over(&decoded));
            }
            "connection.close-ok" => said.push(Said::Over("closed".into())),
            "basic.cancel" => {
                said.push(Said::Over("the consumer was cancelled".into()));
                self.close();
            }
            name if name.ends_with("-ok") => {
                if self.requests.is_empty() && !std::mem::replace(&mut self.granted, true) {
                    said.push(Said::Granted);
                }
                self.ask();
            }
            _ => {}
        }
    }

    fn ask(&mut self) {
        self.unsent.extend(self.requests.pop_front().unwrap_or_default());
    }
}
