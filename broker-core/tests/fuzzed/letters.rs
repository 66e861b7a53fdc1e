//! Dead letters of messages whose headers a client made up: `x-death`, `CC`, `BCC` and the rest hold anything.

use broker_core::dead_letter::{Death, Reason, is_cycle, letter};
use broker_core::field_table::{FieldTable, TableBuilder, Value};
use broker_core::message::Message;
use broker_core::properties::{self, flag};

use super::octets::Octets;

const NAMES: [&str; 9] =
    ["x-death", "x-death", "CC", "BCC", "x-first-death-reason", "x-first-death-queue", "a", "", "z"];
const FIELDS: [&str; 8] =
    ["queue", "reason", "count", "time", "exchange", "routing-keys", "original-expiration", "other"];
const WORDS: [&str; 8] = ["q", "r", "rejected", "expired", "maxlen", "delivery_limit", "k", ""];
const REASONS: [Reason; 4] = [Reason::Rejected, Reason::Expired, Reason::MaxLength, Reason::DeliveryLimit];
/// What one death adds to a header at most, besides the further routing keys, which it copies.
const DEATH_MAX_BYTES: usize = 2 * 1024;

/// Lets a message die several times.
pub fn live(octets: &[u8]) {
    let mut octets = Octets(octets);
    let headers = headers(&mut octets);
    let expiration = octets.one_of(&[None, Some(&b"60000"[..]), Some(b"no number")]);
    let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0];
    let header =
        properties::changed(&fixed, &[(flag::HEADERS, Some(headers.octets())), (flag::EXPIRATION, expiration)]);
    let mut message = Message::new(b"\x01x\x01k", &header.unwrap(), b"body", true, &mut Vec::new()).unwrap();
    for _ in 0..6 {
        let key = octets.one_of(&[None, Some(&b"key"[..]), Some(b"")]);
        let death = Death {
            queue: octets.one_of(&["q", "r", ""]),
            reason: octets.one_of(&REASONS),
            time_s: octets.number() as u64,
            exchange: octets.one_of(&["dlx", ""]),
            routing_key: key,
        };
        let next = letter(&message, &death).unwrap();
        check(&message, &next, &death);
        for queue in ["q", "r", "", "other"] {
            is_cycle(&next, queue);
        }
        message = next;
    }
}

/// Headers in which deaths often look like those the broker writes.
fn headers(octets: &mut Octets<'_>) -> TableBuilder {
    let mut headers = TableBuilder::default();
    for _ in 0..octets.below(6) {
        let name = octets.one_of(&NAMES).as_bytes();
        if octets.below(3) == 0 {
            octets.push_field(&mut headers, name, &WORDS, 0);
            continue;
        }
        let mut array = TableBuilder::default();
        for _ in 0..octets.below(8) {
            if octets.below(4) == 0 {
                octets.push_item(&mut array, &WORDS, 1);
            } else {
                array.item(Value::Table(octets.table(&FIELDS, &WORDS, 7, 1).table()));
            }
        }
        headers.push(name, Value::Array(array.array()));
    }
    headers
}

fn check(message: &Message, letter: &Message, death: &Death<'_>) {
    assert_eq!(letter.exchange(), death.exchange.as_bytes());
    assert_eq!(letter.routing_key(), death.routing_key.unwrap_or(message.routing_key()));
    assert_eq!(letter.inline_body(), Some(&b"body"[..]));
    assert_eq!(properties::of_header(letter.header(), flag::EXPIRATION), None);
    let headers = properties::of_header(letter.header(), flag::HEADERS).unwrap();
    let headers = FieldTable::parse(headers).unwrap();
    let Some(Value::Array(deaths)) = headers.lookup(b"x-death") else { panic!("a letter without x-death") };
    let Some(Value::Table(first)) = deaths.iter().next() else { panic!("x-death begins with no table") };
    assert_eq!(first.lookup(b"queue"), Some(Value::LongString(death.queue.as_bytes())));
    assert_eq!(first.lookup(b"reason"), Some(Value::LongString(death.reason.name().as_bytes())));
    assert!(matches!(first.lookup(b"count"), Some(Value::Int64(_))));
    let before = properties::headers(message.header());
    let copies = before.lookup(b"CC").map_or(0, |_| before.octets().len());
    assert!(headers.octets().len() <= before.octets().len() + copies + DEATH_MAX_BYTES);
}
