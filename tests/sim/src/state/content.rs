//! A message as the model sees it, and the octets it is on the wire.

use std::collections::BTreeMap;

use broker_core::field_table::{FieldTable, TableBuilder, Value};
use broker_core::message::Message;
use broker_core::properties::{self, flag};

/// See the module's page.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Said by its body.
    pub number: u64,
    pub exchange: String,
    pub key: String,
    /// Further routing keys, in the header CC.
    pub copies: Vec<String>,
    pub headers: BTreeMap<String, i64>,
    pub priority: Option<u8>,
    pub expiration_ms: Option<u64>,
    pub persistent: bool,
    /// What x-death says, the newest first.
    pub deaths: Vec<Death>,
    /// Reason, queue and exchange of its first death.
    pub first_death: Option<[String; 3]>,
}

/// Deaths of one message in one queue for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Death {
    pub queue: String,
    pub reason: String,
    pub count: i64,
    /// What it was published to, when, and how long it was to live: at the first of these deaths.
    pub exchange: String,
    pub keys: Vec<String>,
    pub time_s: u64,
    pub expiration: Option<String>,
}

impl Content {
    /// Octets of its body.
    pub fn len(&self) -> u64 {
        8 + self.number % 5 * 4
    }

    /// Milliseconds for which an exchange that delays is to hold it back.
    pub fn delay_ms(&self) -> Option<u64> {
        self.headers.get("x-delay").and_then(|delay| u64::try_from(*delay).ok()).filter(|delay| *delay > 0)
    }

    /// What goes on when its delay is over.
    pub fn no_longer_delayed(&self) -> Content {
        let mut content = self.clone();
        content.headers.entry("x-delay".into()).and_modify(|delay| *delay = -*delay);
        content
    }

    /// What a queue makes of it that gives it up at that time.
    pub fn letter(&self, queue: &str, reason: &str, time_s: u64, exchange: &str, key: Option<&str>) -> Content {
        let mut death = Death {
            queue: queue.into(),
            reason: reason.into(),
            count: 1,
            exchange: self.exchange.clone(),
            keys: std::iter::once(&self.key).chain(&self.copies).cloned().collect(),
            time_s,
            expiration: self.expiration_ms.map(|ms| ms.to_string()),
        };
        let mut others = self.deaths.clone();
        if let Some(at) = others.iter().position(|other| other.queue == queue && other.reason == reason) {
            death = others.remove(at);
            death.count += 1;
        }
        // RabbitMQ leaves the others in the opposite order, each time.
        others.reverse();
        others.insert(0, death);
        let first_death = self.first_death.clone();
        Content {
            deaths: others,
            first_death: first_death.or_else(|| Some([reason.into(), queue.into(), self.exchange.clone()])),
            expiration_ms: None,
            exchange: exchange.into(),
            key: key.unwrap_or(&self.key).into(),
            copies: if key.is_some() { Vec::new() } else { self.copies.clone() },
            ..self.clone()
        }
    }

    /// Whether it has died in this queue before and nobody rejected it since.
    pub fn came_round(&self, queue: &str) -> bool {
        let since = self.deaths.iter().position(|death| death.queue == queue);
        since.is_some_and(|at| self.deaths[..=at].iter().all(|death| death.reason != "rejected"))
    }

    /// The message on the wire, as a client sends it.
    pub fn message(&self) -> Result<Message, String> {
        let mut table = TableBuilder::default();
        for (name, value) in &self.headers {
            table.push(name.as_bytes(), Value::Int64(*value));
        }
        let mut keys = TableBuilder::default();
        self.copies.iter().for_each(|key| keys.item(Value::LongString(key.as_bytes())));
        if !self.copies.is_empty() {
            table.push(b"CC", Value::Array(keys.array()));
        }
        let (priority, expiration) =
            (self.priority.map(|priority| [priority]), self.expiration_ms.map(|ms| ms.to_string()));
        let changes = [
            (flag::HEADERS, Some(table.octets()).filter(|octets| !octets.is_empty())),
            (flag::PRIORITY, priority.as_ref().map(<[u8; 1]>::as_slice)),
            (flag::EXPIRATION, expiration.as_ref().map(String::as_bytes)),
        ];
        let mut fixed = [0; 14];
        fixed[4..12].copy_from_slice(&self.len().to_be_bytes());
        let header = properties::changed(&fixed, &changes).ok_or("the header cannot be written")?;
        let mut route = Vec::new();
        for name in [&self.exchange, &self.key] {
            route.push(name.len() as u8);
            route.extend_from_slice(name.as_bytes());
        }
        let mut body = self.number.to_be_bytes().to_vec();
        body.resize(self.len() as usize, 0);
        Message::new(&route, &header, &body, self.persistent, &mut Vec::new())
            .ok_or("the message cannot be written".into())
    }

    /// What a message on the wire says. None if it says something that no message here should.
    pub fn read(message: &Message) -> Option<Content> {
        let header = message.header();
        let mut content = Content {
            number: number(message),
            exchange: text(message.exchange()),
            key: text(message.routing_key()),
            copies: Vec::new(),
            headers: BTreeMap::new(),
            priority: properties::of_header(header, flag::PRIORITY).and_then(|octets| octets.first().copied()),
            expiration_ms: properties::of_header(header, flag::EXPIRATION).and_then(|ms| text(ms).parse().ok()),
            persistent: message.persistent(),
            deaths: Vec::new(),
            first_death: None,
        };
        let mut first = [None, None, None];
        for (name, value) in properties::headers(header) {
            let name = text(name);
            let nth = ["x-first-death-reason", "x-first-death-queue", "x-first-death-exchange"]
                .iter()
                .position(|other| *other == name);
            match (name.as_str(), value, nth) {
                ("CC", Value::Array(keys), _) => content.copies = keys.iter().map(long).collect::<Option<_>>()?,
                ("x-death", Value::Array(deaths), _) => {
                    content.deaths = deaths.iter().map(Death::read).collect::<Option<_>>()?;
                }
                (_, Value::LongString(octets), Some(nth)) => first[nth] = Some(text(octets)),
                (_, Value::Int64(number), None) => drop(content.headers.insert(name, number)),
                _ => return None,
            }
        }
        content.first_death = match first {
            [None, None, None] => None,
            [Some(reason), Some(queue), Some(exchange)] => Some([reason, queue, exchange]),
            _ => return None,
        };
        let whole = message.body_len() as u64 == content.len();
        whole.then_some(content)
    }
}

impl Death {
    fn read(value: Value<'_>) -> Option<Death> {
        let Value::Table(table) = value else { return None };
        let field = |name: &str| table.lookup(name.as_bytes());
        let Value::Timestamp(time_s) = field("time")? else { return None };
        let Value::Array(keys) = field("routing-keys")? else { return None };
        let expiration = match field("original-expiration") {
            Some(value) => Some(long(value)?),
            None => None,
        };
        let fields = 6 + usize::from(expiration.is_some());
        let death = Death {
            queue: long(field("queue")?)?,
            reason: long(field("reason")?)?,
            count: i64::try_from(field("count")?.integer()?).ok()?,
            exchange: long(field("exchange")?)?,
            keys: keys.iter().map(long).collect::<Option<_>>()?,
            time_s,
            expiration,
        };
        (table.iter().count() == fields).then_some(death)
    }
}

/// The number a message's body says.
pub fn number(message: &Message) -> u64 {
    let body = message.inline_body().and_then(<[u8]>::first_chunk);
    body.map_or(u64::MAX, |octets| u64::from_be_bytes(*octets))
}

/// How often consumers are told that a message was returned.
pub fn returns(headers: FieldTable<'_>) -> Option<i128> {
    headers.lookup(b"x-delivery-count").and_then(|count| count.integer())
}

fn long(value: Value<'_>) -> Option<String> {
    match value {
        Value::LongString(octets) => Some(text(octets)),
        _ => None,
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
