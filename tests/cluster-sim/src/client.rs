//! A simulated client: AMQP 0-9-1 octets over a socket to a node, with the codec of the conformance tests, which shares nothing with brokerd's.
//!
//! It logs in, opens a channel, asks for what its role needs, one request after the other, and then does what its role is until its time is over. Then it
//! closes the connection in good order, or without a word.

use std::collections::VecDeque;

use conformance::client::PROTOCOL_HEADER;
use conformance::frame::{self, Frame};
use conformance::spec::by_name;
use conformance::text;
use conformance::wire::{Decoded, decode_header, decode_method, encode_header, encode_method};

use crate::role::{EXCHANGE, REPLIES, Role};
use crate::socket::{Heard, Socket};

/// One of so many messages is given back once...
const GIVEN_BACK_OF: u64 = 17;
/// ...and of those that it got and has kept for a while, so many.
const GOT_GIVEN_BACK_OF: u64 = 3;
/// So many messages it keeps before it acknowledges some.
const HELD_MAX: usize = 5;
/// Class basic.
const BASIC: u16 = 60;
/// Octets read in a millisecond at most.
const READ_BYTES: usize = 64 * 1024;

/// What it has heard or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// All it asked for was granted.
    Granted,
    /// The publish of this number is confirmed, or refused.
    Answered(u64, bool),
    /// No queue took a publish.
    Returned(String),
    /// A message, and whether it may have been delivered before.
    Delivered(String, bool),
    /// It has acknowledged a message, or asked for the commit of a transaction in which it did.
    Acknowledged(String),
    /// The transaction with the publishes of these numbers is committed.
    Committed(Vec<u64>),
    /// It has replied to a request.
    Replied(String),
    /// It has heard the reply to a request.
    Reply(String),
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
    content: Option<Content>,
    /// Publishes so far, and those that were not answered.
    published: u64,
    unanswered: VecDeque<u64>,
    /// It has asked for a message.
    getting: bool,
    /// Messages that are not acknowledged.
    held: VecDeque<Held>,
    /// What it has published in its transaction.
    in_transaction: Vec<u64>,
    /// It has asked for the end of its transaction: for the commit, or to have it rolled back.
    ending: Option<bool>,
    /// A broken rule: what is to be rolled back is committed.
    always_commits: bool,
    /// It waits for an answer since then, if it waits.
    waits_from: u64,
}

/// Of a method that brings a message.
struct Content {
    method: Decoded,
    header: Vec<u8>,
    due: u64,
    body: Vec<u8>,
}

/// A message that is not acknowledged.
struct Held {
    tag: String,
    message: String,
    /// It will be acknowledged, not given back.
    is_done_with: bool,
    in_transaction: bool,
}

/// A frame with a method.
pub fn method(channel: u16, name: &str, arguments: &[(&str, &str)]) -> Vec<u8> {
    let payload = by_name(name).and_then(|method| encode_method(method, arguments).ok()).unwrap_or_default();
    frame::encode(frame::METHOD, channel, &payload)
}

impl Client {
    /// It has connected.
    pub fn new(number: u64, at: usize, role: Role, (now, until): (u64, u64), socket: Socket) -> Client {
        let mut requests =
            VecDeque::from([method(0, "connection.open", &[("virtual_host", "/")]), method(1, "channel.open", &[])]);
        requests.extend(role.requests(number));
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
            getting: false,
            held: VecDeque::new(),
            in_transaction: Vec::new(),
            ending: None,
            always_commits: false,
            waits_from: now,
        }
    }

    /// A broken rule: it commits what is to be rolled back.
    pub fn always_commits(&mut self) {
        self.always_commits = true;
    }

    /// A name that nobody else gives a message.
    pub fn message(&self, count: u64) -> String {
        format!("{}.{count}", self.number)
    }

    /// Since when it has heard nothing of what it waits for; none: it waits for nothing.
    pub fn waits_from(&self) -> Option<u64> {
        self.waits().then_some(self.waits_from)
    }

    fn waits(&self) -> bool {
        !self.granted || self.closing || self.getting || self.ending.is_some() || !self.unanswered.is_empty()
    }

    /// Whether it goes on with what it is there for.
    pub fn is_at_work(&self) -> bool {
        self.granted && !self.closing && self.ending.is_none()
    }

    /// Whether it may publish more.
    pub fn may_publish(&self) -> bool {
        self.is_at_work() && self.unanswered.len() < 100 && self.in_transaction.len() < 100
    }

    /// Publishes a message, whose name is returned.
    pub fn publish(&mut self) -> String {
        self.published += 1;
        let body = self.message(self.published);
        let key = self.number.to_string();
        let (exchange, key) = match self.role.queues() {
            [queue] => ("\"\"", queue.as_str()),
            _ => (EXCHANGE, key.as_str()),
        };
        let arguments = [("exchange", exchange), ("routing_key", key), ("mandatory", "true")];
        let octets = publish(&arguments, &[("delivery_mode", "2")], &body);
        self.unsent.extend(octets);
        match self.role {
            Role::Transact(_) => self.in_transaction.push(self.published),
            _ => self.unanswered.push_back(self.published),
        }
        body
    }

    /// Asks whoever responds. The request's name.
    pub fn request(&mut self) -> String {
        self.published += 1;
        let body = self.message(self.published);
        if let Role::Request(queue) = &self.role {
            self.unsent.extend(publish(&[("routing_key", queue)], &[("reply_to", REPLIES)], &body));
        }
        body
    }

    /// Whether it may get another message.
    pub fn may_get(&self) -> bool {
        self.is_at_work() && !self.getting && self.held.len() < HELD_MAX
    }

    /// Gets a message.
    pub fn get(&mut self) {
        if let Role::Get(queue) = &self.role {
            self.getting = true;
            self.unsent.extend(method(1, "basic.get", &[("queue", queue)]));
        }
    }

    /// Acknowledges or gives back what it has, of which so many are left.
    pub fn settle(&mut self, left: usize) -> Vec<Said> {
        let mut said = Vec::new();
        while self.held.len() > left
            && let Some(held) = self.held.pop_front()
        {
            self.unsent.extend(held.octets());
            said.extend(held.is_done_with.then_some(Said::Acknowledged(held.message)));
        }
        said
    }

    /// Acknowledges what it has in its transaction, and has that committed or rolled back.
    pub fn end_transaction(&mut self, commits: bool) -> Vec<Said> {
        for held in self.held.iter_mut().filter(|held| !held.in_transaction) {
            held.in_transaction = true;
            self.unsent.extend(held.octets());
        }
        self.ending = Some(commits);
        let name = if commits || self.always_commits { "tx.commit" } else { "tx.rollback" };
        self.unsent.extend(method(1, name, &[]));
        if commits {
            // From now on they may count.
            let done = self.held.drain(..).filter(|held| held.is_done_with);
            return done.map(|held| Said::Acknowledged(held.message)).collect();
        }
        self.held.iter_mut().for_each(|held| held.in_transaction = false);
        self.in_transaction.clear();
        Vec::new()
    }

    /// The publishes in its transaction.
    pub fn in_transaction(&self) -> Vec<String> {
        self.in_transaction.iter().map(|&count| self.message(count)).collect()
    }

    /// Closes the connection in good order.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.unsent.extend(method(0, "connection.close", &[("reply_code", "200")]));
        }
    }

    /// Reads what is there, answers it, and writes. What it has heard.
    pub fn step(&mut self, now: u64) -> Vec<Said> {
        if !self.waits() {
            self.waits_from = now;
        }
        let mut said = Vec::new();
        match self.socket.hear(READ_BYTES) {
            Heard::Nothing => {}
            Heard::Octets(octets) => self.octets.extend(octets),
            Heard::End => said.push(Said::Over("the node has closed the socket".into())),
        }
        let mut heard = Vec::new();
        while let Some(frame) = frame::take(&mut self.octets) {
            if self.take(frame, &mut heard) {
                self.waits_from = now;
            }
        }
        said.splice(0..0, heard);
        let taken = self.socket.give(&self.unsent);
        self.unsent.drain(..taken);
        said
    }

    /// Takes a frame. Whether it is an answer.
    fn take(&mut self, Frame { kind, payload, .. }: Frame, said: &mut Vec<Said>) -> bool {
        match kind {
            frame::METHOD => match decode_method(&payload) {
                Some(decoded) => return self.take_method(decoded, said),
                None => said.push(Said::Over("a method that is none".into())),
            },
            frame::HEADER => {
                if let Some(content) = &mut self.content {
                    content.due = decode_header(&payload).map_or(0, |(size, _)| size);
                    content.header = payload;
                }
            }
            frame::BODY => {
                let Some(content) = &mut self.content else { return false };
                content.body.extend(payload);
                if content.body.len() as u64 >= content.due
                    && let Some(content) = self.content.take()
                {
                    self.take_message(&content, said);
                }
            }
            _ => {}
        }
        false
    }

    fn take_message(&mut self, Content { method, header, body, .. }: &Content, said: &mut Vec<Said>) {
        let message = String::from_utf8_lossy(body).into_owned();
        if method.method.name == "basic.return" {
            return said.push(Said::Returned(message));
        }
        if let Role::Request(_) = &self.role {
            return said.push(Said::Reply(message));
        }
        let tag = method.argument("delivery_tag").unwrap_or("0").to_owned();
        let redelivered = method.argument("redelivered") == Some("true");
        let number: u64 = tag.parse().unwrap_or(0);
        let given_back = if let Role::Get(_) = &self.role { GOT_GIVEN_BACK_OF } else { GIVEN_BACK_OF };
        let is_done_with = redelivered || !number.is_multiple_of(given_back);
        said.push(Said::Delivered(message.clone(), redelivered));
        if self.closing {
            // Nothing that it says is heard any more.
            return;
        }
        if let Role::Respond(_) = &self.role {
            let properties = decode_header(header).map(|(_, properties)| properties).unwrap_or_default();
            if let Some((_, address)) = properties.iter().find(|(name, _)| *name == "reply_to") {
                self.unsent.extend(publish(&[("routing_key", address)], &[], &message));
                said.push(Said::Replied(message.clone()));
            }
        }
        self.held.push_back(Held { tag, message, is_done_with, in_transaction: false });
        if let Role::Consume(_) | Role::Respond(_) = &self.role {
            said.extend(self.settle(0));
        }
    }

    /// Takes a method. Whether it is an answer.
    fn take_method(&mut self, decoded: Decoded, said: &mut Vec<Said>) -> bool {
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
            "basic.deliver" | "basic.return" | "basic.get-ok" => {
                let is_answer = decoded.method.name == "basic.get-ok";
                self.getting &= !is_answer;
                self.content = Some(Content { method: decoded, header: Vec::new(), due: 0, body: Vec::new() });
                return is_answer;
            }
            "basic.get-empty" => self.getting = false,
            "tx.commit-ok" if self.ending.take() == Some(true) => {
                said.push(Said::Committed(std::mem::take(&mut self.in_transaction)));
            }
            "tx.commit-ok" => {}
            "tx.rollback-ok" => self.ending = None,
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
            _ => return false,
        }
        true
    }

    fn ask(&mut self) {
        self.unsent.extend(self.requests.pop_front().unwrap_or_default());
    }
}

impl Held {
    /// What it is settled with.
    fn octets(&self) -> Vec<u8> {
        match self.is_done_with {
            true => method(1, "basic.ack", &[("delivery_tag", &self.tag)]),
            false => method(1, "basic.nack", &[("delivery_tag", &self.tag), ("requeue", "true")]),
        }
    }
}

/// A publish with its content.
fn publish(arguments: &[(&str, &str)], properties: &[(&str, &str)], body: &str) -> Vec<u8> {
    let header = encode_header(BASIC, 0, body.len() as u64, properties).unwrap_or_default();
    let publish = method(1, "basic.publish", arguments);
    let header = frame::encode(frame::HEADER, 1, &header);
    [publish, header, frame::encode(frame::BODY, 1, body.as_bytes())].concat()
}
