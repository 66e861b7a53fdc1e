//! Scripts: what a client and a driver do, and everything the connection does about it.
//!
//! `testdata/*.txt`: a line is a verb, the indented lines after it are the trace. `UPDATE=1 cargo test` writes the traces anew. Verbs that begin
//! with `+` are put together with the next into one read.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod client;

use std::fmt::Write;
use std::time::{Duration, Instant};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::{AMQPClass, connection};
use broker_amqp::{Connection, Delivery, Exception, GET, Input, Output, Reply, ReplyCode};
use broker_core::message::{Content, Message};
use client::{body, drain, header, method, publish, publish_method, running, settings, start_ok, tune_ok};

struct World {
    now: Instant,
    connection: Connection,
    gathered: Vec<u8>,
}

#[test]
fn scripts() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<_> = std::fs::read_dir("testdata")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut wrong = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if update {
            std::fs::write(&path, &played).unwrap();
        } else if played != script {
            let line = played.lines().zip(script.lines()).take_while(|(ours, theirs)| ours == theirs).count();
            wrong.push(format!(
                "{}:{}: expected {:?}, got {:?}",
                path.display(),
                line + 1,
                script.lines().nth(line),
                played.lines().nth(line)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn play(script: &str) -> String {
    let mut played = String::new();
    let mut world = World::new();
    for line in script.lines().filter(|line| !line.starts_with("  ")) {
        played.push_str(line);
        played.push('\n');
        if line.is_empty() || line.starts_with('#') {
            if line.starts_with("##") {
                world = World::new();
            }
            continue;
        }
        for trace in world.act(line) {
            writeln!(played, "  {trace}").unwrap();
        }
    }
    played
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        World { now, connection: Connection::new(now, settings(), 1), gathered: Vec::new() }
    }

    fn act(&mut self, line: &str) -> Vec<String> {
        let (gather, line) = line.strip_prefix('+').map_or((false, line), |rest| (true, rest));
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut out = Vec::new();
        let mut received = Vec::new();
        let (verb, arguments) = words.split_first().unwrap();
        if let Some(octets) = client(verb, arguments) {
            self.gathered.extend(octets);
            if gather {
                return Vec::new();
            }
            received = std::mem::take(&mut self.gathered);
            self.connection.receive(self.now, &received, &mut out);
        } else {
            self.driver(verb, arguments, &mut out);
        }
        let mut trace: Vec<String> = out.iter().map(|output| show_output(output, &received)).collect();
        trace.extend(show_sent(&drain(&mut self.connection)));
        if self.connection.wants_resume() {
            trace.push("(wants to resume)".into());
        }
        if self.connection.paused() {
            trace.push("(paused)".into());
        }
        trace
    }

    fn driver(&mut self, verb: &str, arguments: &[&str], out: &mut Vec<Output>) {
        let connection = &mut self.connection;
        let now = self.now;
        let number = |at: usize| arguments[at].parse::<u64>().unwrap();
        let channel = arguments.first().and_then(|word| word.parse::<u16>().ok()).unwrap_or_default();
        match verb {
            "running" => self.connection = running(now, settings(), arguments, &tune_ok(2047, 131_072, 0)),
            "running-tuned" => {
                let tune = tune_ok(number(0) as u16, number(1) as u32, number(2) as u16);
                self.connection = running(now, settings(), &[], &tune);
            }
            "login-ok" => connection.step(now, Input::LoginOk { user: arguments[0].into(), impersonator: false }, out),
            "login-refused" => connection.step(now, Input::LoginRefused, out),
            "open-ok" => connection.step(now, Input::OpenOk, out),
            "open-refused" => {
                connection.step(now, Input::OpenRefused(Exception::vhost_not_found(arguments[0])), out);
            }
            "resume" => connection.resume(now, out),
            "reply" => {
                let reply = match arguments[1] {
                    "done" => Reply::Done,
                    "declared" => {
                        Reply::Declared { name: "".into(), messages: number(2) as u32, consumers: number(3) as u32 }
                    }
                    "deleted" => Reply::Deleted { messages: number(2) as u32 },
                    "purged" => Reply::Purged { messages: number(2) as u32 },
                    "consume-ok" => Reply::ConsumeOk { consumer: number(2) as u32 },
                    "get-ok" => Reply::GetOk {
                        queue: number(2),
                        queue_tag: number(3),
                        redelivered: false,
                        remaining: number(4) as u32,
                        message: message(arguments[5]),
                    },
                    "get-empty" => Reply::GetEmpty,
                    "refused" => Reply::Refused(exception(&arguments[2..])),
                    other => panic!("reply {other}"),
                };
                connection.step(now, Input::Reply { channel, reply }, out);
            }
            "committed" => connection.step(now, Input::TxCommitted { channel }, out),
            "deliver" => {
                let message = message(arguments[4]);
                let delivery = Delivery {
                    consumer: number(1) as u32,
                    queue: number(2),
                    queue_tag: number(3),
                    redelivered: false,
                    content: Content::Kept(&message),
                };
                if !connection.deliver(channel, delivery) {
                    out.push(Output::Close { reason: broker_amqp::CloseReason::ByClient });
                    out.clear();
                }
            }
            "confirm" => connection.confirm_range(channel, number(1), number(2)),
            "nack" => connection.nack(channel, number(1)),
            "flush" => connection.flush_confirms(),
            "return" => connection.returned(channel, &message(arguments[1])),
            "fail" => connection.fail(channel, exception(&arguments[1..]), out),
            "cancelled" => {
                connection.step(now, Input::ConsumerCancelled { channel, consumer: number(1) as u32 }, out);
            }
            "alarm" => {
                let reason = (arguments[0] != "off").then_some("low on memory");
                connection.step(now, Input::Alarm { reason }, out);
            }
            "hold-publishes" => connection.hold_publishes(arguments[0] == "on"),
            "force" => connection.step(now, Input::ForceClose(Exception::forced(arguments[0])), out),
            "closed" => connection.step(now, Input::ConnectionClosed, out),
            "gone" => connection.step(now, Input::PeerGone, out),
            "unread" => connection.not_read(),
            "wait" => {
                self.now += Duration::from_secs(number(0));
                while self.connection.next_timeout().is_some_and(|at| at <= self.now) {
                    self.connection.timeout(self.now, out);
                }
            }
            other => panic!("unknown verb {other}"),
        }
    }
}

/// Octets of a client's verb.
fn client(verb: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let channel = || arguments[0].parse().unwrap();
    Some(match verb {
        "raw" => octets(arguments),
        "start-ok" => start_ok(&arguments[2..], arguments[0], &unescape(arguments[1])),
        "tune-ok" => {
            tune_ok(arguments[0].parse().unwrap(), arguments[1].parse().unwrap(), arguments[2].parse().unwrap())
        }
        "method" => {
            let (class, id) = arguments[1].split_once('.').unwrap();
            method(channel(), class.parse().unwrap(), id.parse().unwrap(), &octets(&arguments[2..]))
        }
        "publish" => {
            let bits = u8::from(arguments.contains(&"mandatory"));
            let properties = arguments.iter().find_map(|word| word.strip_prefix("properties="));
            let properties = properties.map_or(vec![0, 0], |hex| octets(&[&format!("x:{hex}")]));
            let body = unescape(arguments[3]);
            publish(channel(), arguments[1].as_bytes(), arguments[2].as_bytes(), bits, &properties, &body, 100_000)
        }
        "publish-method" => publish_method(channel(), arguments[1].as_bytes(), arguments[2].as_bytes(), 0),
        "header" => header(channel(), arguments[1].parse().unwrap(), arguments[2].parse().unwrap(), &[0, 0]),
        "body" => body(channel(), &unescape(arguments[1])),
        "frame" => {
            let mut out = Vec::new();
            broker_amqp::frame::write(&mut out, arguments[1].parse().unwrap(), channel(), |out| {
                out.extend(octets(&arguments[2..]));
            });
            out
        }
        _ => return None,
    })
}

/// `1:5 2:5 4:5 8:5` numbers, `s:text` short string, `S:text` long string, `t:hex` table, `x:hex` octets, `"text"` characters.
fn octets(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words {
        let (kind, value) = word.split_once(':').unwrap_or(("", word));
        let number = || value.parse::<u64>().unwrap().to_be_bytes();
        match kind {
            "1" => out.extend_from_slice(&number()[7..]),
            "2" => out.extend_from_slice(&number()[6..]),
            "4" => out.extend_from_slice(&number()[4..]),
            "8" => out.extend_from_slice(&number()),
            "s" => broker_amqp::frame::write_short_string(&mut out, &unescape(value)),
            "S" => {
                let text = unescape(value);
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(&text);
            }
            "t" => {
                let table = hex(value);
                out.extend_from_slice(&(table.len() as u32).to_be_bytes());
                out.extend_from_slice(&table);
            }
            "x" => out.extend(hex(value)),
            _ => out.extend(unescape(word)),
        }
    }
    out
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// `\0` for a zero octet, `*5` at the end to have five times what is before.
fn unescape(text: &str) -> Vec<u8> {
    let (text, times) = text.split_once('*').map_or((text, 1), |(text, times)| (text, times.parse().unwrap()));
    text.replace("\\0", "\0").into_bytes().repeat(times)
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut any = false;
    for letter in line.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            other => word.push(other),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

fn message(text: &str) -> Message {
    let body = unescape(text);
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    Message::new(b"\x01x\x01k", &header, &body, false, &mut Vec::new()).unwrap()
}

fn exception(words: &[&str]) -> Exception {
    match words[0] {
        "404" => Exception::new(ReplyCode::NotFound, words[1]),
        "503" => Exception::new(ReplyCode::CommandInvalid, words[1]),
        other => panic!("code {other}"),
    }
}

fn show_output(output: &Output, octets: &[u8]) -> String {
    match output {
        Output::Publish { channel, mandatory, publish_seq, content } => {
            let message = &content.content(octets).keep();
            let mandatory = if *mandatory { " mandatory" } else { "" };
            format!("publish on {channel}{mandatory} number {publish_seq}: {}", show_message(message))
        }
        Output::PublishInvalid { channel, message, exception } => {
            format!("invalid publish on {channel}: {}: {exception}", show_message(message))
        }
        Output::TxPublish { channel, message } => format!("publish in tx on {channel}: {}", show_message(message)),
        Output::TxCommit(commit) => {
            let publishes: Vec<String> = commit.publishes.iter().map(|(_, message)| show_message(message)).collect();
            let settles: Vec<String> = commit.settles.iter().map(|run| show_settle(*run)).collect();
            format!("commit on {}: {publishes:?} {settles:?}", commit.channel)
        }
        Output::Settle(settle) => show_settle(*settle),
        Output::Request { channel, request } => format!("request on {channel}: {request:?}"),
        Output::Login(login) => format!("login {} as {} with {:?}", login.mechanism, login.user, login.password),
        Output::Close { reason: broker_amqp::CloseReason::Exception(exception) } => format!("close: {exception}"),
        other => format!("{other:?}"),
    }
}

fn show_settle(settle: broker_amqp::Settle) -> String {
    let broker_amqp::Settle { channel, queue, consumer, first, last, outcome } = settle;
    let consumer = if consumer == GET { "get".into() } else { format!("consumer {consumer}") };
    format!("settle on {channel}: queue {queue} {first}..={last} of {consumer}: {outcome:?}")
}

fn show_message(message: &Message) -> String {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let body: Vec<u8> = message.body().flatten().copied().collect();
    let shown = if body.len() > 40 { format!("{} octets", body.len()) } else { format!("{:?}", text(&body)) };
    let persistent = if message.persistent() { " persistent" } else { "" };
    format!("{}/{}{persistent} {shown}", text(message.exchange()), text(message.routing_key()))
}

fn show_sent(mut octets: &[u8]) -> Vec<String> {
    let mut shown = Vec::new();
    while !octets.is_empty() {
        if octets.starts_with(b"AMQP") {
            shown.push(format!("sent {octets:?}"));
            break;
        }
        let (rest, frame) = parse_frame(octets).unwrap();
        octets = rest;
        shown.push(match frame {
            AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Start(start))) => {
                let capabilities = &start.server_properties.inner()["capabilities"];
                let count = capabilities.as_field_table().unwrap().inner().len();
                let (major, minor) = (start.version_major, start.version_minor);
                format!(
                    "sent start {major}-{minor} with {count} capabilities, mechanisms {}",
                    String::from_utf8_lossy(start.mechanisms.as_bytes())
                )
            }
            AMQPFrame::Method(channel, method) => format!("sent on {channel}: {method:?}"),
            AMQPFrame::Header(channel, header) => format!("sent on {channel}: header of {} octets", header.body_size),
            AMQPFrame::Body(channel, body) if body.len() > 40 => {
                format!("sent on {channel}: body of {} octets", body.len())
            }
            AMQPFrame::Body(channel, body) => format!("sent on {channel}: body {:?}", String::from_utf8_lossy(&body)),
            other => format!("sent {other:?}"),
        });
    }
    shown
}
