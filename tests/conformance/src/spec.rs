//! The methods of AMQP 0-9-1 with RabbitMQ's extensions, as one table of text.

use std::sync::OnceLock;

/// How an argument travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One bit, packed with its neighbours.
    Bit,
    /// An unsigned number of this many octets.
    Number(usize),
    /// A string with a length of one octet.
    Short,
    /// A string with a length of four octets.
    Long,
    /// A field table with a length of four octets.
    Table,
}

/// An argument or property.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in scenarios and transcripts.
    pub name: &'static str,
    /// How it travels.
    pub kind: Kind,
}

/// A method.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// Its class id.
    pub class: u16,
    /// Its method id.
    pub id: u16,
    /// `class.method`.
    pub name: &'static str,
    /// Its arguments in order.
    pub fields: Vec<Field>,
}

/// One method a line: ids, name, arguments. B bit, 1 2 4 8 numbers of so many octets, s short string, l long string,
/// t table. Names that begin with an underscore are reserved: not shown in transcripts.
const METHODS: &str = "
10 10 connection.start version_major:1 version_minor:1 server_properties:t mechanisms:l locales:l
10 11 connection.start-ok client_properties:t mechanism:s response:l locale:s
10 20 connection.secure challenge:l
10 21 connection.secure-ok response:l
10 30 connection.tune channel_max:2 frame_max:4 heartbeat:2
10 31 connection.tune-ok channel_max:2 frame_max:4 heartbeat:2
10 40 connection.open virtual_host:s _capabilities:s _insist:B
10 41 connection.open-ok _known_hosts:s
10 50 connection.close reply_code:2 reply_text:s class_id:2 method_id:2
10 51 connection.close-ok
10 60 connection.blocked reason:s
10 61 connection.unblocked
10 70 connection.update-secret new_secret:l reason:s
10 71 connection.update-secret-ok
20 10 channel.open _out_of_band:s
20 11 channel.open-ok _channel_id:l
20 20 channel.flow active:B
20 21 channel.flow-ok active:B
20 40 channel.close reply_code:2 reply_text:s class_id:2 method_id:2
20 41 channel.close-ok
30 10 access.request realm:s exclusive:B passive:B active:B write:B read:B
30 11 access.request-ok ticket:2
40 10 exchange.declare _ticket:2 exchange:s type:s passive:B durable:B auto_delete:B internal:B nowait:B arguments:t
40 11 exchange.declare-ok
40 20 exchange.delete _ticket:2 exchange:s if_unused:B nowait:B
40 21 exchange.delete-ok
40 30 exchange.bind _ticket:2 destination:s source:s routing_key:s nowait:B arguments:t
40 31 exchange.bind-ok
40 40 exchange.unbind _ticket:2 destination:s source:s routing_key:s nowait:B arguments:t
40 51 exchange.unbind-ok
50 10 queue.declare _ticket:2 queue:s passive:B durable:B exclusive:B auto_delete:B nowait:B arguments:t
50 11 queue.declare-ok queue:s message_count:4 consumer_count:4
50 20 queue.bind _ticket:2 queue:s exchange:s routing_key:s nowait:B arguments:t
50 21 queue.bind-ok
50 30 queue.purge _ticket:2 queue:s nowait:B
50 31 queue.purge-ok message_count:4
50 40 queue.delete _ticket:2 queue:s if_unused:B if_empty:B nowait:B
50 41 queue.delete-ok message_count:4
50 50 queue.unbind _ticket:2 queue:s exchange:s routing_key:s arguments:t
50 51 queue.unbind-ok
60 10 basic.qos prefetch_size:4 prefetch_count:2 global:B
60 11 basic.qos-ok
60 20 basic.consume _ticket:2 queue:s consumer_tag:s no_local:B no_ack:B exclusive:B nowait:B arguments:t
60 21 basic.consume-ok consumer_tag:s
60 30 basic.cancel consumer_tag:s nowait:B
60 31 basic.cancel-ok consumer_tag:s
60 40 basic.publish _ticket:2 exchange:s routing_key:s mandatory:B immediate:B
60 50 basic.return reply_code:2 reply_text:s exchange:s routing_key:s
60 60 basic.deliver consumer_tag:s delivery_tag:8 redelivered:B exchange:s routing_key:s
60 70 basic.get _ticket:2 queue:s no_ack:B
60 71 basic.get-ok delivery_tag:8 redelivered:B exchange:s routing_key:s message_count:4
60 72 basic.get-empty _cluster_id:s
60 80 basic.ack delivery_tag:8 multiple:B
60 90 basic.reject delivery_tag:8 requeue:B
60 100 basic.recover-async requeue:B
60 110 basic.recover requeue:B
60 111 basic.recover-ok
60 120 basic.nack delivery_tag:8 multiple:B requeue:B
90 10 tx.select
90 11 tx.select-ok
90 20 tx.commit
90 21 tx.commit-ok
90 30 tx.rollback
90 31 tx.rollback-ok
85 10 confirm.select nowait:B
85 11 confirm.select-ok
";

/// The properties of class basic, highest flag first.
const PROPERTIES: &str = "content_type:s content_encoding:s headers:t delivery_mode:1 priority:1 correlation_id:s \
     reply_to:s expiration:s message_id:s timestamp:8 type:s user_id:s app_id:s cluster_id:s";

/// All methods.
pub fn methods() -> &'static [Method] {
    static PARSED: OnceLock<Vec<Method>> = OnceLock::new();
    PARSED.get_or_init(|| METHODS.lines().filter_map(method).collect())
}

/// The fourteen properties of class basic in the order of their flags.
pub fn properties() -> &'static [Field] {
    static PARSED: OnceLock<Vec<Field>> = OnceLock::new();
    PARSED.get_or_init(|| PROPERTIES.split_whitespace().filter_map(field).collect())
}

/// The method of this name.
pub fn by_name(name: &str) -> Option<&'static Method> {
    methods().iter().find(|method| method.name == name)
}

/// The method of these ids.
pub fn by_ids(class: u16, id: u16) -> Option<&'static Method> {
    methods().iter().find(|method| method.class == class && method.id == id)
}

/// The names of the methods of which one answers this method of a client; empty when nothing does.
pub fn replies(name: &str) -> &'static [&'static str] {
    match name {
        "connection.start-ok" | "connection.secure-ok" => &["connection.tune", "connection.secure"],
        "basic.get" => &["basic.get-ok", "basic.get-empty"],
        _ => {
            let answer = methods().iter().find(|method| method.name.strip_suffix("-ok") == Some(name));
            answer.map_or(&[], |method| std::slice::from_ref(&method.name))
        }
    }
}

fn method(line: &'static str) -> Option<Method> {
    let mut words = line.split_whitespace();
    let (class, id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Method { class, id, name: words.next()?, fields: words.filter_map(field).collect() })
}

fn field(word: &'static str) -> Option<Field> {
    let (name, kind) = word.split_once(':')?;
    let kind = match kind {
        "B" => Kind::Bit,
        "s" => Kind::Short,
        "l" => Kind::Long,
        "t" => Kind::Table,
        octets => Kind::Number(octets.parse().ok()?),
    };
    Some(Field { name, kind })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_line_of_the_tables_is_understood() {
        assert_eq!(methods().len(), METHODS.lines().filter(|line| !line.is_empty()).count());
        assert_eq!(properties().len(), 14);
        let words: usize = METHODS.lines().map(|line| line.split_whitespace().count().saturating_sub(3)).sum();
        assert_eq!(methods().iter().map(|method| method.fields.len()).sum::<usize>(), words);
        assert_eq!(replies("queue.declare"), ["queue.declare-ok"]);
        assert_eq!(replies("basic.publish"), [""; 0]);
        assert_eq!(by_ids(60, 70), by_name("basic.get"));
    }
}
