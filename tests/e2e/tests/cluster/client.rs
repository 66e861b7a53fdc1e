//! A client whose answers are lines of text, so that what a node says can be compared whole.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use conformance::client::{Client as Wire, Event, Login};
use conformance::spec::replies;
use conformance::wire::encode_header;
use conformance::{frame, text};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A client tries again after so long.
const AGAIN: Duration = Duration::from_millis(50);

/// A connection with one channel.
pub struct Client {
    wire: Wire,
    heard: VecDeque<String>,
    /// The tag of the last delivery or message that was got.
    pub tag: u64,
    /// Where the last one that was got or delivered asks for its reply.
    pub reply_to: String,
}

impl Client {
    /// Logs in as guest.
    pub fn open(address: SocketAddr) -> Client {
        Client::try_open(address, &Login::default()).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Logs in again and again until it works.
    pub fn open_some_time(address: SocketAddr) -> Client {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match Client::try_open(address, &Login::default()) {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < give_up, "{address}: {error}"),
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Logs in, or says why not.
    pub fn try_open(address: SocketAddr, login: &Login) -> Result<Client, String> {
        let mut wire = Wire::connect_to(address).map_err(|error| error.to_string())?;
        let surprise = wire.open(login).map_err(|error| error.to_string())?;
        match surprise {
            None => Ok(Client { wire, heard: VecDeque::new(), tag: 0, reply_to: String::new() }),
            Some(event) => Err(show(&event)),
        }
    }

    /// Sends a method, `class.method name=value ...`, and gives its answer. What else comes meanwhile is kept. A channel that was closed is opened
    /// again.
    pub fn ask(&mut self, words: &str) -> String {
        let method = self.send(words);
        let expected = replies(&method);
        self.hear(|event| match event {
            Event::Method(_, decoded, _) => {
                expected.contains(&decoded.method.name) || decoded.method.name.ends_with(".close")
            }
            Event::Closed | Event::Broken(_) => true,
            _ => false,
        })
        .unwrap_or_else(|| panic!("{words} was not answered"))
    }

    /// Sends a method.
    pub fn send(&mut self, words: &str) -> String {
        let words = text::words(words).unwrap();
        let (method, arguments) = words.split_first().unwrap();
        let arguments: Vec<(&str, &str)> = arguments.iter().map(|word| word.split_once('=').unwrap()).collect();
        self.wire.send_method(1, method, &arguments).unwrap();
        (*method).to_owned()
    }

    /// Publishes a persistent message through the default exchange.
    pub fn publish(&mut self, queue: &str, body: &str) {
        self.publish_with(&format!("routing_key={queue}"), true, body.as_bytes());
    }

    /// Publishes a message.
    pub fn publish_with(&mut self, arguments: &str, persistent: bool, body: &[u8]) {
        self.send_message(arguments, ("delivery_mode", if persistent { "2" } else { "1" }), body);
    }

    /// Publishes a message that asks for a direct reply.
    pub fn request(&mut self, queue: &str) {
        self.send_message(&format!("routing_key={queue}"), ("reply_to", "amq.rabbitmq.reply-to"), b"request");
    }

    fn send_message(&mut self, arguments: &str, property: (&str, &str), body: &[u8]) {
        self.send(&format!("basic.publish {arguments}"));
        self.wire.send_frame(frame::HEADER, 1, &encode_header(60, 0, body.len() as u64, &[property]).unwrap());
        self.wire.send_body(1, body);
    }

    /// Publishes and waits for the confirm of this number: `confirmed` or `refused`, or what ended it.
    pub fn publish_confirmed(&mut self, queue: &str, body: &str, number: u64) -> String {
        self.publish(queue, body);
        self.settled(number)
    }

    /// Waits for the confirm of this number.
    pub fn settled(&mut self, number: u64) -> String {
        self.hear(|event| match event {
            Event::Confirm(_, _, tag) => *tag == number,
            Event::Method(_, decoded, _) => decoded.method.name.ends_with(".close"),
            Event::Closed | Event::Broken(_) => true,
            _ => false,
        })
        .unwrap_or_else(|| "nothing".into())
    }

    /// What comes next that was not an answer, or `nothing`.
    pub fn next(&mut self, within: Duration) -> String {
        if let Some(heard) = self.heard.pop_front() {
            return heard;
        }
        match self.wire.next(within) {
            Some(event) => self.take(&event),
            None => "nothing".into(),
        }
    }

    /// The next event of this kind; others are kept.
    fn hear(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<String> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let event = self.wire.next(give_up.saturating_duration_since(Instant::now()))?;
            let shown = self.take(&event);
            if wanted(&event) {
                return Some(shown);
            }
            self.heard.push_back(shown);
        }
    }

    fn take(&mut self, event: &Event) -> String {
        if let Event::Method(_, decoded, content) = event {
            let reply_to = content.iter().flat_map(|content| &content.properties).find(|(name, _)| *name == "reply_to");
            if let Some((_, address)) = reply_to {
                self.reply_to.clone_from(address);
            }
            if let Some(tag) = decoded.argument("delivery_tag") {
                self.tag = tag.parse().unwrap();
            }
            if decoded.method.name == "channel.close" {
                self.wire.send_method(1, "channel.open", &[]).unwrap();
                self.wire.next(PATIENCE);
            }
        }
        show(event)
    }
}

fn show(event: &Event) -> String {
    match event {
        Event::Method(_, decoded, content) => {
            let of = |name: &str| decoded.argument(name).unwrap_or_default().to_owned();
            let body = content.as_ref().map_or_else(String::new, |content| text::show(&content.body));
            match decoded.method.name {
                "channel.close" | "connection.close" => {
                    let what = decoded.method.name.trim_end_matches(".close");
                    format!("{what} {} {}", of("reply_code"), of("reply_text").trim_matches('"'))
                }
                "basic.deliver" if of("redelivered") == "true" => format!("deliver {body} again"),
                "basic.deliver" => format!("deliver {body}"),
                "basic.get-ok" if of("redelivered") == "true" => format!("get-ok {body} again"),
                "basic.get-ok" => format!("get-ok {body}"),
                "basic.return" => format!("return {} {body}", of("reply_code")),
                "basic.cancel" => format!("cancel {}", of("consumer_tag")),
                "queue.declare-ok" => format!("declare-ok {} {}", of("message_count"), of("consumer_count")),
                "queue.purge-ok" | "queue.delete-ok" => format!("{} {}", decoded.method.name, of("message_count")),
                "connection.blocked" => format!("blocked {}", of("reason")),
                name => name.to_owned(),
            }
        }
        Event::Confirm(_, true, _) => "confirmed".into(),
        Event::Confirm(_, false, _) => "refused".into(),
        Event::Heartbeat => "heartbeat".into(),
        Event::ProtocolHeader(_) => "protocol header".into(),
        Event::Broken(words) => format!("broken {words}"),
        Event::Closed => "closed".into(),
    }
}
