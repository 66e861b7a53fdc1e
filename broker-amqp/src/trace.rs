//! The firehose: copies of what is published and delivered in a vhost, as RabbitMQ writes them for who looks on.
//!
//! A copy has the body of the message and none of its properties; those, and where it was seen, are told in the copy's headers.

use broker_core::message::{Content, Message};

use crate::content::{self, FIXED_BYTES, flag};
use crate::frame;

/// The exchange that copies are published to.
pub const EXCHANGE: &str = "amq.rabbitmq.trace";
/// A routing key is a short string; of longer ones the end is missing.
const ROUTING_KEY_MAX_BYTES: usize = 255;

/// Where a message was seen.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The vhost.
    pub vhost: &'a str,
    /// The connection, by its two addresses: `127.0.0.1:50123 -> 127.0.0.1:5672`.
    pub connection: &'a str,
    /// The channel.
    pub channel: u16,
    /// The user.
    pub user: &'a str,
}

/// What became of it there.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// It was published, and goes to these queues.
    Published(&'a [&'a [u8]]),
    /// It was delivered.
    Delivered {
        /// The queue it came from.
        queue: &'a str,
        /// It was delivered before.
        redelivered: bool,
    },
}

/// Whether a message is a copy itself, of which no copy is made.
pub fn is_copy(route: &[u8]) -> bool {
    route.split_first().is_some_and(|(_, rest)| rest.starts_with(EXCHANGE.as_bytes()))
        && route.first() == Some(&(EXCHANGE.len() as u8))
}

/// The copy of a message. `published` has the routing keys it was published with, `visible` is what receivers see of it: they differ where it has
/// a `BCC` header. `None` for a copy of a copy.
pub fn copy(published: Content<'_>, visible: Content<'_>, sight: Sight<'_>, scene: Scene<'_>) -> Option<Message> {
    if is_copy(published.route()) {
        return None;
    }
    let exchange = broker_core::message::split_route(published.route())?.0;
    let routing_key = match sight {
        Sight::Published(_) => [b"publish.", exchange].concat(),
        Sight::Delivered { queue, .. } => [b"deliver.", queue.as_bytes()].concat(),
    };
    let mut route = Vec::new();
    frame::write_short_string(&mut route, EXCHANGE.as_bytes());
    frame::write_short_string(&mut route, routing_key.get(..ROUTING_KEY_MAX_BYTES).unwrap_or(&routing_key));
    let message = visible.keep();
    let mut header = message.header().get(..FIXED_BYTES)?.to_vec();
    header.extend_from_slice(&flag::HEADERS.to_be_bytes());
    nested(&mut header, |table| {
        string(table, "exchange_name", exchange);
        let keys =
            std::iter::once(published.routing_key()).chain(content::extra_routes(properties(published.header())));
        strings(table, "routing_keys", keys);
        field(table, "properties", b'F');
        nested(table, |table| write_properties(table, properties(message.header())));
        string(table, "node", scene.node.as_bytes());
        if let Sight::Delivered { redelivered, .. } = sight {
            number(table, "redelivered", redelivered.into());
        }
        string(table, "vhost", scene.vhost.as_bytes());
        string(table, "connection", scene.connection.as_bytes());
        number(table, "channel", scene.channel.into());
        string(table, "user", scene.user.as_bytes());
        if let Sight::Published(queues) = sight {
            strings(table, "routed_queues", queues.iter().copied());
        }
    });
    // Copies of persistent messages are not persistent.
    match message.chunks() {
        Some(chunks) => Message::with_chunks(&route, &header, chunks.to_vec(), false),
        None => Message::new(&route, &header, message.inline_body().unwrap_or_default(), false, &mut Vec::new()),
    }
}

fn properties(header: &[u8]) -> &[u8] {
    header.get(FIXED_BYTES..).unwrap_or_default()
}

/// The properties as fields of a table, the last one first.
fn write_properties(table: &mut Vec<u8>, properties: &[u8]) {
    let all: Vec<(u16, &[u8])> = content::each_property(properties).collect();
    for (which, value) in all.into_iter().rev() {
        let name = property_name(which);
        match which {
            flag::HEADERS => {
                field(table, name, b'F');
                nested(table, |table| table.extend_from_slice(value));
            }
            flag::DELIVERY_MODE | flag::PRIORITY => {
                number(table, name, value.first().copied().unwrap_or_default().into())
            }
            flag::TIMESTAMP => number(table, name, value.first_chunk().map_or(0, |octets| i64::from_be_bytes(*octets))),
            _ => string(table, name, value),
        }
    }
}

fn property_name(which: u16) -> &'static str {
    match which {
        flag::CONTENT_TYPE => "content_type",
        flag::CONTENT_ENCODING => "content_encoding",
        flag::HEADERS => "headers",
        flag::DELIVERY_MODE => "delivery_mode",
        flag::PRIORITY => "priority",
        flag::CORRELATION_ID => "correlation_id",
        flag::REPLY_TO => "reply_to",
        flag::EXPIRATION => "expiration",
        flag::MESSAGE_ID => "message_id",
        flag::TIMESTAMP => "timestamp",
        flag::TYPE => "type",
        flag::USER_ID => "user_id",
        flag::APP_ID => "app_id",
        _ => "cluster_id",
    }
}

/// A field's name and the type of its value.
fn field(table: &mut Vec<u8>, name: &str, kind: u8) {
    frame::write_short_string(table, name.as_bytes());
    table.push(kind);
}

fn string(table: &mut Vec<u8>, name: &str, value: &[u8]) {
    field(table, name, b'S');
    nested(table, |out| out.extend_from_slice(value));
}

fn strings<'a>(table: &mut Vec<u8>, name: &str, values: impl Iterator<Item = &'a [u8]>) {
    field(table, name, b'A');
    nested(table, |array| {
        for value in values {
            array.push(b'S');
            nested(array, |out| out.extend_from_slice(value));
        }
    });
}

/// In 32 bits as RabbitMQ writes them, unless that would cut a number's head off, as it does there.
fn number(table: &mut Vec<u8>, name: &str, value: i64) {
    match i32::try_from(value) {
        Ok(value) => {
            field(table, name, b'I');
            table.extend_from_slice(&value.to_be_bytes());
        }
        Err(_) => {
            field(table, name, b'l');
            table.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// What `write` appends, behind its length.
fn nested(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = (out.len() - at - 4) as u32;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::{AMQPValue, FieldTable};

    use super::*;

    const SCENE: Scene<'_> = Scene {
        node: "rabbit@here",
        vhost: "/",
        connection: "127.0.0.1:60648 -> 127.0.0.1:5672",
        channel: 2,
        user: "guest",
    };

    fn message(route: &[u8], properties: &[u8], body: &[u8]) -> Message {
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        header.extend_from_slice(properties);
        Message::new(route, &header, body, true, &mut Vec::new()).unwrap()
    }

    fn copied(message: &Message, sight: Sight<'_>) -> Message {
        copy(Content::Kept(message), Content::Kept(message), sight, SCENE).unwrap()
    }

    fn headers(message: &Message) -> FieldTable {
        let octets = content::property(message.properties(), flag::HEADERS).unwrap();
        assert!(content::check(message.properties()).is_some());
        let framed = [&(octets.len() as u32).to_be_bytes()[..], octets].concat();
        amq_protocol::types::parsing::parse_field_table(framed.as_slice()).unwrap().1
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn array(values: &[&str]) -> AMQPValue {
        AMQPValue::FieldArray(values.iter().map(|value| text(value)).collect::<Vec<_>>().into())
    }

    #[test]
    fn a_publish_is_told_octet_by_octet_as_by_rabbitmq() {
        let published = message(b"\x0aamq.fanout\x03key", b"\x98\x00\x01t\x02\x05", b"hello");
        let queues: [&[u8]; 2] = [b"q1", b"q2"];
        let copy = copied(&published, Sight::Published(&queues));
        assert_eq!((copy.exchange(), copy.routing_key()), (&b"amq.rabbitmq.trace"[..], &b"publish.amq.fanout"[..]));
        assert_eq!((copy.inline_body(), copy.persistent()), (Some(&b"hello"[..]), false));
        let table = b"\x0dexchange_nameS\0\0\0\x0aamq.fanout\x0crouting_keysA\0\0\0\x08S\0\0\0\x03key\
            \x0apropertiesF\0\0\0\x34\x08priorityI\0\0\0\x05\x0ddelivery_modeI\0\0\0\x02\x0ccontent_typeS\0\0\0\x01t\
            \x04nodeS\0\0\0\x0brabbit@here\x05vhostS\0\0\0\x01/\x0aconnectionS\0\0\0\x21127.0.0.1:60648 -> 127.0.0.1:5672\
            \x07channelI\0\0\0\x02\x04userS\0\0\0\x05guest\x0drouted_queuesA\0\0\0\x0eS\0\0\0\x02q1S\0\0\0\x02q2";
        let expected = [&b"\x20\x00"[..], &(table.len() as u32).to_be_bytes(), table].concat();
        assert_eq!(copy.properties(), expected);
    }

    #[test]
    fn a_delivery_is_told_with_its_queue() {
        let delivered = message(b"\0\x01k", b"\0\0", &[7; 100_000]);
        let copy = copied(&delivered, Sight::Delivered { queue: "q", redelivered: true });
        assert_eq!(copy.routing_key(), b"deliver.q");
        assert!(copy.body().eq(delivered.body()));
        let headers = headers(&copy);
        assert_eq!(headers.inner()["redelivered"], AMQPValue::LongInt(1));
        assert_eq!(headers.inner()["exchange_name"], text(""));
        assert_eq!(headers.inner()["routing_keys"], array(&["k"]));
        assert!(!headers.contains_key("routed_queues"));
    }

    #[test]
    fn every_property_is_told() {
        let values = b"\x01t\x01e\0\0\0\x04\x01kt\x01\x02\x05\x01c\x01r\x0210\x01m\0\0\0\x01\x2A\x05\xF2\x00\x01y\x01u\x01a\x01z";
        let published = message(b"\0\x01k", &[&b"\xff\xfc"[..], values].concat(), b"");
        let AMQPValue::FieldTable(table) =
            headers(&copied(&published, Sight::Published(&[]))).inner()["properties"].clone()
        else {
            panic!()
        };
        assert_eq!(table.inner().len(), 14);
        // RabbitMQ cuts this one to 32 bits.
        assert_eq!(table.inner()["timestamp"], AMQPValue::LongLongInt(5_000_000_000));
        for (name, value) in [("content_encoding", "e"), ("expiration", "10"), ("cluster_id", "z"), ("user_id", "u")] {
            assert_eq!(table.inner()[name], text(value), "{name}");
        }
        assert!(matches!(&table.inner()["headers"], AMQPValue::FieldTable(inner) if inner.contains_key("k")));
    }

    #[test]
    fn copies_are_not_copied_and_long_names_are_cut() {
        let copy_of_one = message(b"\x12amq.rabbitmq.trace\x09deliver.q", b"\0\0", b"");
        let content = Content::Kept(&copy_of_one);
        assert!(copy(content, content, Sight::Published(&[]), SCENE).is_none());
        assert!(!is_copy(b"\x13amq.rabbitmq.trace2\0") && !is_copy(b"\0\x12amq.rabbitmq.trace") && !is_copy(b""));
        let queue = "q".repeat(255);
        let delivered = message(b"\0\0", b"\0\0", b"");
        let copy = copied(&delivered, Sight::Delivered { queue: &queue, redelivered: false });
        assert_eq!(copy.routing_key().len(), 255);
    }

    #[test]
    fn hidden_routing_keys_are_told_but_not_their_header() {
        let fields = |name: &[u8], key: &[u8]| {
            let item = [b"S\0\0\0\x01", key].concat();
            [&[name.len() as u8], name, b"A\0\0\0\x06", &item].concat()
        };
        let table = [fields(b"CC", b"x"), fields(b"BCC", b"y")].concat();
        let properties = [&b"\x20\x00"[..], &(table.len() as u32).to_be_bytes(), &table].concat();
        let published = message(b"\0\x01k", &properties, b"m");
        let visible = content::without_bcc(&published).unwrap();
        let copy = copy(Content::Kept(&published), Content::Kept(&visible), Sight::Published(&[]), SCENE).unwrap();
        let headers = headers(&copy);
        assert_eq!(headers.inner()["routing_keys"], array(&["k", "x", "y"]));
        let AMQPValue::FieldTable(properties) = &headers.inner()["properties"] else { panic!() };
        let AMQPValue::FieldTable(own) = &properties.inner()["headers"] else { panic!() };
        assert!(own.contains_key("CC") && !own.contains_key("BCC"));
    }
}
