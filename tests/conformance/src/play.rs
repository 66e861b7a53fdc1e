//! Carries out one scenario and writes its transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Broker, Control};

use crate::client::{Client, Content, Event, Login, PATIENCE};
use crate::normalise::{self, Names};
use crate::operator::Operator;
use crate::script::Scenario;
use crate::spec::{by_name, properties, replies};
use crate::wire::{encode_header, encode_method};
use crate::{Error, frame, text};

/// Bodies up to this size are shown whole, longer ones by size and sum.
const SHOWN_BODY: usize = 48;
/// Between two attempts of `poll` and of the cleaning.
const AGAIN: Duration = Duration::from_millis(20);

/// The broker a scenario is played against.
#[derive(Debug)]
pub struct Target<'a, B: Broker + ?Sized> {
    /// Its AMQP port on 127.0.0.1; of a cluster those of its nodes, which the connections take in turn by their letters.
    pub ports: Vec<u16>,
    /// The broker itself, where the runner may restart it.
    pub broker: Option<&'a mut B>,
    /// Its administrator, where there is one.
    pub control: Option<Control>,
    /// How long an expected answer may take.
    pub patience: Duration,
    /// A transcript: where the broker's begins to differ, the scenario ends.
    pub stop_at: Option<Vec<String>>,
}

/// Plays a scenario and gives its transcript, one line a step or event.
pub fn play<B: Broker + ?Sized>(scenario: &Scenario, target: &mut Target<'_, B>) -> Result<Vec<String>, Error> {
    let control = target.control.clone();
    let mut play = Play {
        ports: target.ports.clone(),
        patience: target.patience,
        operator: Operator::new(control.as_ref()),
        clients: BTreeMap::new(),
        elsewhere: BTreeSet::new(),
        names: Names::default(),
        made: BTreeSet::new(),
        transcript: Vec::new(),
    };
    let played = scenario.steps.iter().try_for_each(|step| {
        if target.stop_at.as_ref().is_some_and(|expected| !expected.starts_with(&play.transcript)) {
            return Ok(());
        }
        play.transcript.push(format!("> {step}"));
        let done = match (step.as_str(), target.broker.as_deref_mut()) {
            ("restart", Some(broker)) => broker.restart().map_err(Error::from),
            ("kill", Some(broker)) => broker.kill_9().and_then(|()| broker.restart()).map_err(Error::from),
            ("restart" | "kill", None) => Err(Error::new("this broker cannot be restarted from here")),
            _ => play.step(step),
        };
        done.map_err(|error| Error::new(format!("{}: {step}: {error}", scenario.name)))
    });
    // Also after a failure: what is left behind would be in the way of the next scenario.
    let ended = play.end().map_err(|error| Error::new(format!("{}: at its end: {error}", scenario.name)));
    played.and(ended).map(|()| play.transcript)
}

/// `name=value` words of a step.
type Arguments<'a> = Vec<(&'a str, &'a str)>;

struct Play<'a> {
    ports: Vec<u16>,
    patience: Duration,
    operator: Operator<'a>,
    clients: BTreeMap<char, Client>,
    /// Connections to other vhosts than `/`: what they declare goes with the vhost.
    elsewhere: BTreeSet<char>,
    names: Names,
    /// What was declared in `/`: (true for a queue, name).
    made: BTreeSet<(bool, String)>,
    transcript: Vec<String>,
}

impl Play<'_> {
    fn step(&mut self, step: &str) -> Result<(), Error> {
        let step = self.names.reveal(step);
        let words = text::words(&step)?;
        let [verb, rest @ ..] = words.as_slice() else { return Ok(()) };
        match *verb {
            "open" => self.open(rest),
            "connect" => {
                let (name, _) = place(rest)?;
                self.clients.insert(name, Client::connect(self.port_of(name))?);
                Ok(())
            }
            "wait" => self.wait(rest),
            "quiet" => self.quiet(rest),
            "barrier" => self.barrier(rest),
            "poll" => self.poll(rest),
            "heartbeat" => self.heartbeat(rest),
            "send" => self.raw(rest, text::hex),
            "text" => self.raw(rest, text::octets),
            "frame" => self.frame(rest),
            "header" => self.header(rest),
            "body" => self.body(rest),
            "manual" => self.client(rest).map(|client| client.manual = true),
            "drop" => self.client(rest).map(Client::drop_socket),
            "sleep" => {
                thread::sleep(milliseconds(rest.first().copied().unwrap_or_default())?);
                Ok(())
            }
            "repeat" => self.repeat(rest),
            "ctl" => {
                if !self.operator.run(rest)? {
                    self.transcript.push("< ctl refused".to_owned());
                }
                Ok(())
            }
            _ => self.method(&words),
        }
    }

    fn port_of(&self, connection: char) -> u16 {
        let turn = (connection as usize).saturating_sub('a' as usize);
        self.ports.get(turn % self.ports.len().max(1)).copied().unwrap_or_default()
    }

    fn open(&mut self, words: &[&str]) -> Result<(), Error> {
        let (name, _) = place(words)?;
        let mut login = Login::default();
        for (key, value) in arguments(words.get(1..).unwrap_or_default())? {
            let string = || Ok::<_, Error>(String::from_utf8_lossy(&text::octets(value)?).into_owned());
            match key {
                "user" => login.user = string()?,
                "password" => login.password = string()?,
                "vhost" => login.vhost = string()?,
                "capabilities" => login.capabilities = value.to_owned(),
                "channel_max" => login.channel_max = Some(value.to_owned()),
                "frame_max" => login.frame_max = Some(value.to_owned()),
                "heartbeat" => login.heartbeat = value.to_owned(),
                "channels" => login.channels = number(value)?,
                _ => return Err(Error::new(format!("open knows no {key}"))),
            }
        }
        let mut client = Client::connect(self.port_of(name))?;
        let surprise = client.open(&login)?;
        if login.vhost == Login::default().vhost {
            self.elsewhere.remove(&name);
        } else {
            self.elsewhere.insert(name);
        }
        self.clients.insert(name, client);
        surprise.map_or(Ok(()), |event| self.note_and_follow(name, event))
    }

    /// `a1 [!] class.method arguments`.
    fn method(&mut self, words: &[&str]) -> Result<(), Error> {
        let (name, channel) = place(words)?;
        let mut rest = words.get(1..).unwrap_or_default();
        let wait = rest.first() != Some(&"!");
        if !wait {
            rest = rest.get(1..).unwrap_or_default();
        }
        let [method, rest @ ..] = rest else { return Err(Error::new("no such step")) };
        let given = arguments(rest)?;
        self.send_method(name, channel, method, &given)?;
        let silent = given.contains(&("nowait", "true"));
        if wait && !silent && !replies(method).is_empty() {
            self.answer(name, channel, replies(method))
        } else {
            Ok(())
        }
    }

    fn send_method(&mut self, name: char, channel: u16, method: &str, given: &Arguments<'_>) -> Result<(), Error> {
        self.remember(name, method, given);
        let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
        let value = |key: &str| given.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let is_property = |key: &str| properties().iter().any(|field| field.name == key);
        let Some(body) = value("body").filter(|_| method == "basic.publish") else {
            if let Some(cut) = value("cut") {
                return send_cut(client, channel, method, given, number(cut)?);
            }
            return client.send_method(channel, method, given);
        };
        let body = text::octets(body)?;
        let (properties, arguments): (Vec<_>, Vec<_>) =
            given.iter().filter(|(key, _)| *key != "body").partition(|(key, _)| is_property(key));
        client.send_method(channel, method, &arguments)?;
        client.send_frame(frame::HEADER, channel, &encode_header(60, 0, body.len() as u64, &properties)?);
        client.send_body(channel, &body);
        Ok(())
    }

    /// Reads up to one of these methods, or up to a close of its channel or connection.
    fn answer(&mut self, name: char, channel: u16, replies: &[&str]) -> Result<(), Error> {
        let patience = self.patience;
        loop {
            let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
            let Some(event) = client.next(patience) else { return self.nothing(name) };
            let done = match &event {
                Event::Method(on, decoded, _) => {
                    replies.contains(&decoded.method.name) && *on == channel
                        || decoded.method.name == "connection.close"
                        || decoded.method.name == "channel.close" && *on == channel
                }
                Event::Closed | Event::Broken(_) | Event::ProtocolHeader(_) => true,
                _ => false,
            };
            self.note_and_follow(name, event)?;
            if done {
                return Ok(());
            }
        }
    }

    fn wait(&mut self, words: &[&str]) -> Result<(), Error> {
        let (name, _) = place(words)?;
        let count = words.iter().skip(1).find_map(|word| word.parse::<usize>().ok()).unwrap_or(1);
        let patience = self.within(words)?;
        let mut events = Vec::new();
        while events.len() < count {
            let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
            match client.next(patience) {
                Some(Event::Closed) => {
                    events.push(Event::Closed);
                    break;
                }
                Some(event) => events.push(event),
                None => break,
            }
        }
        let missing = events.len() < count && !matches!(events.last(), Some(Event::Closed));
        sort_confirms(&mut events);
        let start = self.transcript.len();
        for event in events {
            self.note_and_follow(name, event)?;
        }
        if words.contains(&"sorted") {
            self.transcript.get_mut(start..).unwrap_or_default().sort();
        }
        if missing { self.nothing(name) } else { Ok(()) }
    }

    fn quiet(&mut self, words: &[&str]) -> Result<(), Error> {
        let (name, _) = place(words)?;
        let give_up = Instant::now() + milliseconds(words.get(1).copied().unwrap_or("100"))?;
        loop {
            let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
            match client.next(give_up.saturating_duration_since(Instant::now())) {
                Some(Event::Closed) => return self.note(name, Event::Closed),
                Some(event) => self.note(name, event)?,
                None => return self.nothing(name),
            }
        }
    }

    /// What has arrived once the queues and then the channel have answered; the answers themselves are not shown.
    fn barrier(&mut self, words: &[&str]) -> Result<(), Error> {
        let (name, channel) = place(words)?;
        let mut events = Vec::new();
        for round in 0..2 {
            // RabbitMQ's queues answer a passive declare before what waits in their mailbox: hence the second round.
            thread::sleep(AGAIN * round);
            for queue in words.iter().skip(1) {
                self.ask(name, channel, ["queue.declare", "queue", queue], &mut events)?;
            }
            self.ask(name, channel, ["exchange.declare", "exchange", "amq.direct"], &mut events)?;
        }
        sort_confirms(&mut events);
        if events.is_empty() {
            return self.nothing(name);
        }
        events.into_iter().try_for_each(|event| self.note(name, event))
    }

    /// Declares passively and keeps what arrives before the answer.
    fn ask(&mut self, name: char, channel: u16, question: [&str; 3], events: &mut Vec<Event>) -> Result<(), Error> {
        let [method, argument, value] = question;
        let patience = self.patience;
        let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
        client.send_method(channel, method, &[(argument, value), ("passive", "true")])?;
        loop {
            match client.next(patience) {
                Some(Event::Method(on, decoded, None))
                    if on == channel && replies(method).contains(&decoded.method.name) =>
                {
                    return Ok(());
                }
                Some(Event::Closed) | None => return Err(Error::new("the barrier was not answered")),
                Some(event) => events.push(event),
            }
        }
    }

    /// Repeats a method until an argument of its answer has a value; shows the last answer.
    fn poll(&mut self, words: &[&str]) -> Result<(), Error> {
        let [step @ .., "until", wanted] = words else { return Err(Error::new("poll … until name=value")) };
        let give_up = Instant::now() + self.patience;
        loop {
            let start = self.transcript.len();
            self.method(step)?;
            let last = self.transcript.last().map(String::as_str).unwrap_or_default();
            let reached = last.split(' ').any(|word| word == *wanted) || last.ends_with(" closed");
            if reached || Instant::now() >= give_up {
                return Ok(());
            }
            self.transcript.truncate(start);
            thread::sleep(AGAIN);
        }
    }

    fn heartbeat(&mut self, words: &[&str]) -> Result<(), Error> {
        let (name, _) = place(words)?;
        let give_up = Instant::now() + self.within(words)?;
        loop {
            let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
            let Some(event) = client.next_or_heartbeat(give_up) else { return self.nothing(name) };
            let done = matches!(event, Event::Heartbeat | Event::Closed);
            self.note(name, event)?;
            if done {
                return Ok(());
            }
        }
    }

    fn raw(&mut self, words: &[&str], read: impl Fn(&str) -> Result<Vec<u8>, Error>) -> Result<(), Error> {
        let octets = read(&words.get(1..).unwrap_or_default().join(" "))?;
        self.client(words)?.send(&octets);
        Ok(())
    }

    fn frame(&mut self, words: &[&str]) -> Result<(), Error> {
        let given = arguments(words.get(1..).unwrap_or_default())?;
        let value = |key: &str| given.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let payload = text::hex(value("payload").unwrap_or_default())?;
        let mut octets =
            frame::encode(number(value("type").unwrap_or("1"))?, number(value("channel").unwrap_or("0"))?, &payload);
        if let (Some(end), Some(last)) = (value("end"), octets.last_mut()) {
            *last = text::hex(end)?.first().copied().unwrap_or_default();
        }
        if let (Some(size), Some(field)) = (value("size"), octets.get_mut(3..7)) {
            field.copy_from_slice(&number::<u32>(size)?.to_be_bytes());
        }
        self.client(words)?.send(&octets);
        Ok(())
    }

    fn header(&mut self, words: &[&str]) -> Result<(), Error> {
        let (_, channel) = place(words)?;
        let mut given = arguments(words.get(1..).unwrap_or_default())?;
        let mut take = |key: &str, default: &'static str| {
            let found = given.iter().position(|(name, _)| *name == key);
            found.map_or(default.to_owned(), |place| given.remove(place).1.to_owned())
        };
        let (class, weight, size) = (take("class", "60"), take("weight", "0"), take("size", "0"));
        let payload = encode_header(number(&class)?, number(&weight)?, number(&size)?, &given)?;
        self.client(words)?.send_frame(frame::HEADER, channel, &payload);
        Ok(())
    }

    fn body(&mut self, words: &[&str]) -> Result<(), Error> {
        let (_, channel) = place(words)?;
        let body = text::octets(words.get(1).copied().unwrap_or("\"\""))?;
        self.client(words)?.send_body(channel, &body);
        Ok(())
    }

    fn repeat(&mut self, words: &[&str]) -> Result<(), Error> {
        let times: usize = number(words.first().copied().unwrap_or_default())?;
        let step = words.get(1..).unwrap_or_default().join(" ");
        (1..=times).try_for_each(|turn| self.step(&step.replace("{i}", &turn.to_string())))
    }

    /// How long the step may wait.
    fn within(&self, words: &[&str]) -> Result<Duration, Error> {
        words.iter().find_map(|word| word.strip_prefix("within=")).map_or(Ok(self.patience), milliseconds)
    }

    fn client(&mut self, words: &[&str]) -> Result<&mut Client, Error> {
        let (name, _) = place(words)?;
        self.clients.get_mut(&name).ok_or_else(|| unknown(name))
    }

    /// Notes an event. After a close by the broker the end of the socket must come; after a close by the client the
    /// client hangs up, because RabbitMQ leaves that to it for some seconds.
    fn note_and_follow(&mut self, name: char, event: Event) -> Result<(), Error> {
        let patience = self.patience;
        let method = if let Event::Method(_, decoded, _) = &event { decoded.method.name } else { "" };
        self.note(name, event)?;
        let client = self.clients.get_mut(&name).ok_or_else(|| unknown(name))?;
        match method {
            _ if client.manual => Ok(()),
            "connection.close-ok" => {
                client.drop_socket();
                Ok(())
            }
            "connection.close" => match client.next(patience) {
                Some(event) => self.note(name, event),
                None => self.nothing(name),
            },
            _ => Ok(()),
        }
    }

    fn note(&mut self, name: char, event: Event) -> Result<(), Error> {
        if let Event::Method(_, decoded, _) = &event
            && decoded.method.name == "queue.declare-ok"
            && !self.elsewhere.contains(&name)
        {
            self.made.insert((true, decoded.argument("queue").unwrap_or_default().to_owned()));
        }
        let line = match event {
            Event::Method(channel, decoded, content) => {
                let arguments = normalise::arguments(&decoded);
                let arguments = arguments.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
                let content = content.map_or_else(String::new, |content| show_content(&content));
                format!("{name}{channel} {}{arguments}{content}", decoded.method.name)
            }
            Event::Confirm(channel, ack, tag) => {
                format!("{name}{channel} {} {tag}", if ack { "confirmed" } else { "refused" })
            }
            Event::Heartbeat => format!("{name} heartbeat"),
            Event::ProtocolHeader(octets) => format!("{name} protocol header {octets:?}"),
            Event::Broken(words) => format!("{name} BROKEN {words}"),
            Event::Closed => format!("{name} closed"),
        };
        let line = self.names.hide(&line);
        self.transcript.push(format!("< {line}"));
        Ok(())
    }

    fn nothing(&mut self, name: char) -> Result<(), Error> {
        self.transcript.push(format!("< {name} nothing"));
        Ok(())
    }

    fn remember(&mut self, connection: char, method: &str, given: &Arguments<'_>) {
        if self.elsewhere.contains(&connection) {
            return;
        }
        let value = |key: &str| given.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        match method {
            "queue.declare" => self.made.extend(value("queue").map(|queue| (true, queue))),
            "exchange.declare" => self.made.extend(value("exchange").map(|exchange| (false, exchange))),
            _ => {}
        }
    }

    /// Closes what is open, noting what still comes, and deletes what was declared.
    fn end(&mut self) -> Result<(), Error> {
        let patience = self.patience;
        let names: Vec<char> = self.clients.keys().copied().collect();
        for name in names {
            let Some(mut client) = self.clients.remove(&name) else { continue };
            if client.is_closed() || client.manual {
                continue;
            }
            client.send_method(0, "connection.close", &[("reply_code", "200")])?;
            while let Some(event) = client.next(patience) {
                match &event {
                    Event::Closed => break,
                    Event::Method(_, decoded, _) if decoded.method.name == "connection.close-ok" => break,
                    _ => self.note(name, event)?,
                }
            }
        }
        self.operator.end()?;
        let made: Vec<(bool, String)> =
            self.made.iter().filter(|(queue, name)| may_be_deleted(*queue, name)).cloned().collect();
        if made.is_empty() { Ok(()) } else { clean(self.port_of('a'), &made) }
    }
}

fn may_be_deleted(queue: bool, name: &str) -> bool {
    !name.is_empty() && name != "\"\"" && (!name.starts_with("amq.") || queue && name.starts_with("amq.gen-"))
}

/// Deletes queues and exchanges; waits for exclusive ones whose connection has only just gone.
fn clean(port: u16, made: &[(bool, String)]) -> Result<(), Error> {
    let mut client = Client::connect(port)?;
    if let Some(event) = client.open(&Login::default())? {
        return Err(Error::new(format!("no connection to clean up: {event:?}")));
    }
    let give_up = Instant::now() + PATIENCE;
    for (queue, name) in made {
        let (method, argument) = if *queue { ("queue.delete", "queue") } else { ("exchange.delete", "exchange") };
        loop {
            client.send_method(1, method, &[(argument, name)])?;
            match client.next(PATIENCE) {
                Some(Event::Method(_, decoded, _)) if decoded.method.name != "channel.close" => break,
                Some(Event::Method(..)) if Instant::now() < give_up => {
                    thread::sleep(AGAIN);
                    client.send_method(1, "channel.open", &[])?;
                    client.next(PATIENCE);
                }
                other => return Err(Error::new(format!("cannot delete {name}: {other:?}"))),
            }
        }
    }
    client.send_method(0, "connection.close", &[("reply_code", "200")])?;
    client.next(PATIENCE);
    Ok(())
}

/// Sends a method without its last `cut` octets.
fn send_cut(client: &mut Client, channel: u16, method: &str, given: &Arguments<'_>, cut: usize) -> Result<(), Error> {
    let given: Arguments<'_> = given.iter().filter(|(key, _)| *key != "cut").copied().collect();
    let method = by_name(method).ok_or_else(|| Error::new("no such method"))?;
    let payload = encode_method(method, &given)?;
    let end = payload.len().checked_sub(cut).ok_or_else(|| Error::new("cut is larger than the method"))?;
    client.send_frame(frame::METHOD, channel, payload.get(..end).unwrap_or_default());
    Ok(())
}

/// The order of confirms that follow each other says nothing.
fn sort_confirms(events: &mut [Event]) {
    let key = |event: &Event| if let Event::Confirm(channel, _, tag) = event { Some((*channel, *tag)) } else { None };
    for run in events.chunk_by_mut(|one, next| key(one).is_some() && key(next).is_some()) {
        run.sort_by_key(key);
    }
}

fn show_content(content: &Content) -> String {
    let properties = content
        .properties
        .iter()
        .map(|(name, value)| format!(" {name}={}", normalise::property(name, value)))
        .collect::<String>();
    let frames = if content.frames.len() > 1 {
        let sizes: Vec<String> = content.frames.iter().map(usize::to_string).collect();
        format!(" frames={}", sizes.join("+"))
    } else {
        String::new()
    };
    if content.body.len() <= SHOWN_BODY {
        return format!(" |{properties} body={}{frames}", text::show(&content.body));
    }
    format!(" |{properties} body={} octets, sum {:016x}{frames}", content.body.len(), sum(&content.body))
}

/// FNV-1a, to tell bodies apart.
fn sum(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &octet| (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// The connection letter and channel number at the front: `a1`, `a`.
fn place(words: &[&str]) -> Result<(char, u16), Error> {
    let word = words.first().copied().unwrap_or_default();
    let wrong = || Error::new(format!("no such step or place: {word}"));
    let name = word.chars().next().filter(char::is_ascii_lowercase).ok_or_else(wrong)?;
    let channel = word.get(1..).unwrap_or_default();
    if channel.is_empty() { Ok((name, 0)) } else { channel.parse().map(|channel| (name, channel)).map_err(|_| wrong()) }
}

fn arguments<'a>(words: &[&'a str]) -> Result<Arguments<'a>, Error> {
    let pair = |word: &&'a str| word.split_once('=').ok_or_else(|| Error::new(format!("not name=value: {word}")));
    words.iter().map(pair).collect()
}

fn milliseconds(word: &str) -> Result<Duration, Error> {
    number(word).map(Duration::from_millis)
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, Error> {
    word.parse().map_err(|_| Error::new(format!("not a number: {word}")))
}

fn unknown(name: char) -> Error {
    Error::new(format!("connection {name} was never opened"))
}
