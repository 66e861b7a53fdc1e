//! One user's connection: calls a method and tells in a line what came of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use conformance::Error;
use conformance::client::{Client, Event, Login, PATIENCE};
use conformance::frame;
use conformance::spec::by_name;
use conformance::wire::{Decoded, encode_header};

use crate::users::PASSWORD;

/// Names the broker makes are different every time.
const GENERATED: &str = "amq.gen-";

/// An open connection with channel 1.
pub struct Session {
    client: Client,
}

/// A method's arguments, by name.
pub type Arguments<'a> = &'a [(&'a str, &'a str)];

impl Session {
    /// Logs in with the password of all users here and opens a vhost.
    pub fn open(port: u16, user: &str, vhost: &str) -> Result<Session, Error> {
        Self::open_with(port, Login { vhost: vhost.into(), ..login(user) })?.map_err(Error::new)
    }

    /// Opens a connection; inside, what was said instead of `open-ok`.
    pub fn open_with(port: u16, login: Login) -> Result<Result<Session, String>, Error> {
        Self::open_at((Ipv4Addr::LOCALHOST, port).into(), login)
    }

    /// The same, to any address of this machine.
    pub fn open_at(address: SocketAddr, login: Login) -> Result<Result<Session, String>, Error> {
        let mut client = Client::connect_to(address)?;
        Ok(match client.open(&login)? {
            None => Ok(Session { client }),
            Some(event) => Err(told(&event)),
        })
    }

    /// Calls a method on channel 1, and says how it was answered; after a channel exception the channel is opened again.
    pub fn call(&mut self, method: &str, arguments: Arguments<'_>) -> Result<String, Error> {
        self.client.send_method(1, method, arguments)?;
        self.answer()
    }

    /// Publishes a small message, without waiting for anything.
    pub fn publish(&mut self, exchange: &str, key: &str, properties: Arguments<'_>) -> Result<(), Error> {
        self.client.send_method(1, "basic.publish", &[("exchange", exchange), ("routing_key", key)])?;
        let class = by_name("basic.publish").map_or(60, |method| method.class);
        self.client.send_frame(frame::HEADER, 1, &encode_header(class, 0, 1, properties)?);
        self.client.send_body(1, b"x");
        Ok(())
    }

    /// What comes next, in a line.
    pub fn answer(&mut self) -> Result<String, Error> {
        let event = self.client.next(PATIENCE).ok_or_else(|| Error::new("no answer"))?;
        let words = told(&event);
        if matches!(&event, Event::Method(_, decoded, _) if decoded.method.name == "channel.close") {
            self.client.send_method(1, "channel.open", &[])?;
            match self.client.next(PATIENCE) {
                Some(Event::Method(_, decoded, _)) if decoded.method.name == "channel.open-ok" => {}
                other => return Err(Error::new(format!("the channel did not open again: {other:?}"))),
            }
        }
        Ok(words)
    }

    /// What comes within this time, if anything does.
    pub fn within(&mut self, time: Duration) -> Option<String> {
        self.client.next(time).map(|event| told(&event))
    }

    /// Sends a method on any channel without waiting.
    pub fn send(&mut self, channel: u16, method: &str, arguments: Arguments<'_>) -> Result<(), Error> {
        self.client.send_method(channel, method, arguments)
    }
}

/// A login with the password of all users here.
pub fn login(user: &str) -> Login {
    let password = if user == "guest" { "guest" } else { PASSWORD };
    Login { user: user.into(), password: password.into(), ..Login::default() }
}

/// An event in a line: `ok` for what was hoped for.
fn told(event: &Event) -> String {
    match event {
        Event::Method(_, decoded, content) => told_method(decoded, content.is_some()),
        Event::Confirm(_, true, _) => "ok".into(),
        other => format!("{other:?}"),
    }
}

fn told_method(decoded: &Decoded, content: bool) -> String {
    let argument = |name| decoded.argument(name).unwrap_or_default();
    match decoded.method.name {
        name @ ("channel.close" | "connection.close") => {
            let text = argument("reply_text");
            let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
            let scope = if name == "connection.close" { "connection " } else { "" };
            format!("{scope}{} {}", argument("reply_code"), without_generated(text))
        }
        "basic.cancel" => format!("cancelled {}", argument("consumer_tag")),
        "basic.deliver" => "delivered".into(),
        "basic.get-empty" => "ok".into(),
        name if content || name.ends_with("-ok") => "ok".into(),
        name => name.into(),
    }
}

fn without_generated(text: &str) -> String {
    match text.find(GENERATED) {
        None => text.into(),
        Some(at) => {
            let (before, from) = text.split_at(at);
            let rest = from.find('\'').map_or("", |end| &from[end..]);
            format!("{before}{GENERATED}*{rest}")
        }
    }
}
