//! Dead letters: what becomes of a message that its queue gives up, as RabbitMQ 3.10 writes it.
//!
//! The letter is a new message: same body, the dead letter exchange and routing key as its route, the header `x-death` telling its history (one
//! table for each queue and reason, the newest first and the others in the order RabbitMQ leaves them in: turned round each time), and no
//! expiration. `x-first-death-*` are set by the first death only.

use smallvec::SmallVec;

use crate::field_table::{FieldTable, TableBuilder, Value};
use crate::message::Message;
use crate::properties::{self, flag};

/// Why a message is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A consumer rejected it without requeue.
    Rejected,
    /// Its time was over.
    Expired,
    /// The queue was full.
    MaxLength,
    /// It was delivered too often.
    DeliveryLimit,
    /// Its delay is over: it is no dead letter, but goes on from the exchange that held it back.
    Due,
}

impl Reason {
    /// As `x-death` names it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Expired => "expired",
            Reason::MaxLength => "maxlen",
            Reason::DeliveryLimit => "delivery_limit",
            Reason::Due => "due",
        }
    }
}

/// What is known of a death.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue that gave the message up.
    pub queue: &'a str,
    /// Why.
    pub reason: Reason,
    /// Seconds since 1970.
    pub time_s: u64,
    /// The dead letter exchange.
    pub exchange: &'a str,
    /// The dead letter routing key; without one the message keeps its own, those of `CC` and `BCC` included.
    pub routing_key: Option<&'a [u8]>,
}

const X_DEATH: &[u8] = b"x-death";
const CC: &[u8] = b"CC";

type Fields<'a> = SmallVec<[(&'a [u8], Value<'a>); 16]>;

/// The letter that a message becomes. `None` if it cannot be written: a name of more than 255 octets.
pub fn letter(message: &Message, death: &Death<'_>) -> Option<Message> {
    let header = message.header();
    let headers = properties::headers(header);
    let entry = Entry::new(message, death);
    let table = with_death(headers, &entry, death)?;
    let header = properties::changed(header, &[(flag::HEADERS, Some(table.octets())), (flag::EXPIRATION, None)])?;
    let key = death.routing_key.unwrap_or(message.routing_key());
    let mut route = Vec::with_capacity(2 + death.exchange.len() + key.len());
    for name in [death.exchange.as_bytes(), key] {
        route.push(u8::try_from(name.len()).ok()?);
        route.extend_from_slice(name);
    }
    match death.routing_key {
        Some(_) => message.changed(&route, &header, std::iter::empty()),
        None => message.changed(&route, &header, message.hidden_keys()),
    }
}

/// Whether a letter that comes to this queue has been there before and no consumer rejected it on the way: it would go round for ever.
pub fn is_cycle(letter: &Message, queue: &str) -> bool {
    let Some(Value::Array(deaths)) = properties::headers(letter.header()).lookup(X_DEATH) else { return false };
    let mut way = true;
    for death in deaths.iter() {
        let Value::Table(death) = death else {
            // Nothing this broker wrote: a client had its hand in it.
            way = false;
            continue;
        };
        way &= text_of(death, b"reason") != Some(Reason::Rejected.name().as_bytes());
        if text_of(death, b"queue") == Some(queue.as_bytes()) {
            return way;
        }
    }
    false
}

/// One table of `x-death`, without its count.
struct Entry<'a> {
    fields: SmallVec<[(&'static str, Value<'a>); 6]>,
    routing_keys: TableBuilder,
}

impl<'a> Entry<'a> {
    fn new(message: &'a Message, death: &Death<'a>) -> Entry<'a> {
        let mut routing_keys = TableBuilder::default();
        routing_keys.item(Value::LongString(message.routing_key()));
        if let Some(Value::Array(keys)) = properties::headers(message.header()).lookup(CC) {
            keys.iter().filter(|key| matches!(key, Value::LongString(_))).for_each(|key| routing_keys.item(key));
        }
        let mut fields = SmallVec::new();
        fields.push(("reason", Value::LongString(death.reason.name().as_bytes())));
        fields.push(("queue", Value::LongString(death.queue.as_bytes())));
        fields.push(("time", Value::Timestamp(death.time_s)));
        fields.push(("exchange", Value::LongString(message.exchange())));
        if let Some(expiration) = properties::of_header(message.header(), flag::EXPIRATION) {
            fields.push(("original-expiration", Value::LongString(expiration)));
        }
        Entry { fields, routing_keys }
    }

    /// The table, its fields in the order RabbitMQ writes them: as told, or sorted.
    fn table(&self, count: i64, sorted: bool) -> TableBuilder {
        let mut fields: SmallVec<[(&str, Value<'_>); 8]> = SmallVec::new();
        fields.push(("count", Value::Int64(count)));
        for (name, value) in &self.fields {
            if *name == "original-expiration" {
                fields.push(("routing-keys", Value::Array(self.routing_keys.array())));
            }
            fields.push((name, *value));
        }
        if !fields.iter().any(|(name, _)| *name == "routing-keys") {
            fields.push(("routing-keys", Value::Array(self.routing_keys.array())));
        }
        if sorted {
            fields.sort_by_key(|(name, _)| *name);
        }
        let mut table = TableBuilder::default();
        fields.iter().for_each(|(name, value)| table.push(name.as_bytes(), *value));
        table
    }
}

/// The headers with this death in them, sorted by name.
fn with_death(headers: FieldTable<'_>, entry: &Entry<'_>, death: &Death<'_>) -> Option<TableBuilder> {
    let deaths = deaths(headers, entry, death);
    let mut fields: Fields<'_> = headers.iter().collect();
    if death.routing_key.is_some() {
        fields.retain(|(name, _)| *name != CC);
    }
    let first = headers.lookup(X_DEATH).is_none();
    let exchange = entry.fields.iter().find(|(name, _)| *name == "exchange").map(|(_, value)| *value)?;
    if first {
        set(&mut fields, b"x-first-death-reason", Value::LongString(death.reason.name().as_bytes()));
        set(&mut fields, b"x-first-death-queue", Value::LongString(death.queue.as_bytes()));
        set(&mut fields, b"x-first-death-exchange", exchange);
    }
    set(&mut fields, X_DEATH, Value::Array(deaths.array()));
    fields.sort_by_key(|(name, _)| *name);
    let mut table = TableBuilder::default();
    fields.iter().for_each(|(name, value)| table.push(name, *value));
    Some(table)
}

/// The array `x-death` with this death in front.
fn deaths(headers: FieldTable<'_>, entry: &Entry<'_>, death: &Death<'_>) -> TableBuilder {
    let mut array = TableBuilder::default();
    let earlier = match headers.lookup(X_DEATH) {
        Some(Value::Array(earlier)) => earlier,
        // Not what this broker wrote: it begins anew.
        _ => {
            array.item(Value::Table(entry.table(1, false).table()));
            return array;
        }
    };
    let same = |value: &Value<'_>| {
        matches!(value, Value::Table(table) if text_of(*table, b"queue") == Some(death.queue.as_bytes())
            && text_of(*table, b"reason") == Some(death.reason.name().as_bytes()))
    };
    let (matching, others): (Vec<Value<'_>>, Vec<Value<'_>>) = earlier.iter().partition(same);
    let counts = matching.iter().map(|value| match value {
        Value::Table(table) => table.lookup(b"count").and_then(|count| count.integer()).unwrap_or(1),
        _ => 0,
    });
    let count = i64::try_from(counts.sum::<i128>()).unwrap_or(i64::MAX).saturating_add(1);
    match matching.first() {
        // What was written at the first death there stays; the count tells of the others.
        Some(Value::Table(table)) => {
            let mut fields: Fields<'_> = table.iter().collect();
            set(&mut fields, b"count", Value::Int64(count));
            fields.sort_by_key(|(name, _)| *name);
            let mut table = TableBuilder::default();
            fields.iter().for_each(|(name, value)| table.push(name, *value));
            array.item(Value::Table(table.table()));
        }
        _ => array.item(Value::Table(entry.table(1, true).table())),
    }
    others.iter().rev().for_each(|value| array.item(*value));
    array
}

fn set<'a>(fields: &mut Fields<'a>, name: &'a [u8], value: Value<'a>) {
    match fields.iter_mut().find(|(other, _)| *other == name) {
        Some((_, held)) => *held = value,
        None => fields.push((name, value)),
    }
}

fn text_of<'a>(table: FieldTable<'a>, name: &[u8]) -> Option<&'a [u8]> {
    match table.lookup(name) {
        Some(Value::LongString(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &TableBuilder, expiration: Option<&str>) -> Message {
        let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0];
        let header = properties::changed(
            &header,
            &[(flag::HEADERS, Some(headers.octets())), (flag::EXPIRATION, expiration.map(str::as_bytes))],
        );
        Message::new(b"\x01x\x01k", &header.unwrap(), b"body", true, &mut Vec::new()).unwrap()
    }

    fn death(queue: &'static str, reason: Reason) -> Death<'static> {
        Death { queue, reason, time_s: 7, exchange: "dlx", routing_key: None }
    }

    fn field<'a>(message: &'a Message, name: &str) -> Option<Value<'a>> {
        properties::headers(message.header()).lookup(name.as_bytes())
    }

    fn counts(message: &Message) -> Vec<(String, String, i128)> {
        let Some(Value::Array(deaths)) = field(message, "x-death") else { return Vec::new() };
        let text = |table, name: &[u8]| String::from_utf8_lossy(text_of(table, name).unwrap()).into_owned();
        deaths
            .iter()
            .map(|death| match death {
                Value::Table(table) => {
                    let count = table.lookup(b"count").unwrap().integer().unwrap();
                    (text(table, b"queue"), text(table, b"reason"), count)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_death_is_written_down_and_counted() {
        let mut cc = TableBuilder::default();
        cc.item(Value::LongString(b"copy"));
        let headers = TableBuilder::default().with("z", Value::Bool(true)).with("CC", Value::Array(cc.array()));
        let one = letter(&message(&headers, Some("60")), &death("q", Reason::Expired)).unwrap();
        assert_eq!((one.exchange(), one.routing_key()), (&b"dlx"[..], &b"k"[..]));
        assert_eq!(properties::of_header(one.header(), flag::EXPIRATION), None);
        assert_eq!(one.inline_body(), Some(&b"body"[..]));
        assert!(one.persistent());
        assert_eq!(field(&one, "x-first-death-exchange"), Some(Value::LongString(b"x")));
        let Some(Value::Array(deaths)) = field(&one, "x-death") else { panic!() };
        let Some(Value::Table(table)) = deaths.iter().next() else { panic!() };
        let names: Vec<&[u8]> = table.iter().map(|(name, _)| name).collect();
        let expected: [&[u8]; 7] =
            [b"count", b"reason", b"queue", b"time", b"exchange", b"routing-keys", b"original-expiration"];
        assert_eq!(names, expected);
        assert_eq!(table.lookup(b"original-expiration"), Some(Value::LongString(b"60")));
        let Some(Value::Array(keys)) = table.lookup(b"routing-keys") else { panic!() };
        assert_eq!(keys.iter().collect::<Vec<_>>(), [Value::LongString(b"k"), Value::LongString(b"copy")]);
        let two = letter(&one, &death("dead", Reason::Rejected)).unwrap();
        let three = letter(&two, &death("q", Reason::Expired)).unwrap();
        let three_of = |queue: &str, reason: &str, count| (queue.to_owned(), reason.to_owned(), count);
        assert_eq!(counts(&three), [three_of("q", "expired", 2), three_of("dead", "rejected", 1)]);
        assert_eq!(field(&three, "x-first-death-queue"), Some(Value::LongString(b"q")));
        assert!(field(&three, "CC").is_some());
    }

    #[test]
    fn with_a_routing_key_copies_are_forgotten_and_without_one_hidden_ones_kept() {
        let mut cc = TableBuilder::default();
        cc.item(Value::LongString(b"copy"));
        let headers = TableBuilder::default().with("CC", Value::Array(cc.array()));
        let plain = message(&headers, None);
        let message = plain.changed(plain.route(), plain.header(), [&b"bcc"[..]].into_iter()).unwrap();
        let keyed = Death { routing_key: Some(b"key"), ..death("q", Reason::MaxLength) };
        let letter_with_key = letter(&message, &keyed).unwrap();
        assert_eq!(letter_with_key.routing_key(), b"key");
        assert!(field(&letter_with_key, "CC").is_none() && letter_with_key.hidden_keys().next().is_none());
        let kept = letter(&message, &death("q", Reason::MaxLength)).unwrap();
        assert!(kept.hidden_keys().eq([&b"bcc"[..]]) && field(&kept, "CC").is_some());
    }

    #[test]
    fn cycles_without_a_rejection_are_found() {
        let first = letter(&message(&TableBuilder::default(), None), &death("a", Reason::Expired)).unwrap();
        assert!(is_cycle(&first, "a") && !is_cycle(&first, "b"));
        let second = letter(&first, &death("b", Reason::MaxLength)).unwrap();
        assert!(is_cycle(&second, "a") && is_cycle(&second, "b"));
        let rejected = letter(&first, &death("c", Reason::Rejected)).unwrap();
        assert!(!is_cycle(&rejected, "a") && !is_cycle(&rejected, "c"));
    }

    #[test]
    fn an_x_death_that_is_none_begins_anew() {
        for odd in [Value::LongString(b"x"), Value::Int32(1)] {
            let headers = TableBuilder::default().with("x-death", odd);
            let one = letter(&message(&headers, None), &death("q", Reason::Rejected)).unwrap();
            assert_eq!(counts(&one), [("q".to_owned(), "rejected".to_owned(), 1)]);
        }
    }
}
