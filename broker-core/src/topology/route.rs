//! A message's way through exchanges to queues.

use hashbrown::HashSet;
use smallvec::SmallVec;

use super::{Exchange, Topology, Vhost};
use crate::exchange::{Routed, Target};
use crate::field_table::{FieldTable, Value};
use crate::name::QueueId;
use crate::refusal::Refusal;

/// The exchange a message was published to does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such exchange")]
pub struct NoSuchExchange;

/// A content header's payload before its property flags: class, weight and body size.
const HEADER_FIXED_BYTES: usize = 12;
const FLAG_CONTENT_TYPE: u16 = 1 << 15;
const FLAG_CONTENT_ENCODING: u16 = 1 << 14;
const FLAG_HEADERS: u16 = 1 << 13;
/// More flags follow.
const FLAG_CONTINUES: u16 = 1;
/// Headers whose values are further routing keys.
const COPY_HEADERS: [&str; 2] = ["CC", "BCC"];

impl Topology {
    /// Adds the queues a message goes to, each once, in no particular order. `out` is cleared first. `header` is the content header's payload
    /// (class, weight, body size, property flags, properties): CC, BCC and exchanges of type headers look at it.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        header: &[u8],
        out: &mut SmallVec<[QueueId; 8]>,
    ) -> Result<(), NoSuchExchange> {
        out.clear();
        self.vhost(vhost).ok_or(NoSuchExchange)?.route(exchange, routing_key, header, out)
    }
}

impl Vhost {
    /// See [`Topology::route`].
    pub fn route(
        &self,
        exchange: &str,
        routing_key: &[u8],
        header: &[u8],
        out: &mut SmallVec<[QueueId; 8]>,
    ) -> Result<(), NoSuchExchange> {
        out.clear();
        let exchange = self.exchanges.get(exchange).ok_or(NoSuchExchange)?;
        let headers = message_headers(header);
        let mut keys: SmallVec<[&[u8]; 4]> = SmallVec::new();
        keys.push(routing_key);
        if let Some(headers) = headers {
            keys.extend(copy_keys(headers));
        }
        let message = Routed { keys: &keys, headers };
        if exchange.is_plain() {
            self.route_one(exchange, &message, out, &mut |_| {});
        } else {
            self.route_far(exchange, &message, out);
        }
        if keys.len() > 1 || !exchange.is_plain() || exchange.table.may_repeat() {
            out.sort_unstable();
            out.dedup();
        }
        Ok(())
    }

    /// Follows bindings to other exchanges and alternate exchanges. Each exchange is visited once, so cycles end.
    fn route_far<'t>(&'t self, first: &'t Exchange, message: &Routed<'_>, out: &mut SmallVec<[QueueId; 8]>) {
        let mut seen: HashSet<&'t str, foldhash::quality::RandomState> = HashSet::default();
        seen.insert(&first.record.name);
        let mut open: SmallVec<[&'t Exchange; 8]> = SmallVec::new();
        open.push(first);
        while let Some(exchange) = open.pop() {
            let mut visit = |name: &'t str| {
                if seen.insert(name) {
                    open.extend(self.exchanges.get(name).map(|exchange| &**exchange));
                }
            };
            let matched = self.route_one(exchange, message, out, &mut visit);
            if !matched && let Some(name) = exchange.record.alternate_exchange() {
                visit(name);
            }
        }
    }

    /// What one exchange's own bindings say. Returns whether any matched.
    fn route_one<'t>(
        &'t self,
        exchange: &'t Exchange,
        message: &Routed<'_>,
        out: &mut SmallVec<[QueueId; 8]>,
        visit: &mut dyn FnMut(&'t str),
    ) -> bool {
        if exchange.record.name.is_empty() {
            let queues = message.keys.iter().filter_map(|key| self.queue(std::str::from_utf8(key).ok()?));
            let before = out.len();
            out.extend(queues.map(|queue| queue.id));
            return out.len() > before;
        }
        let mut matched = false;
        exchange.table.route(message, &mut |target| {
            matched = true;
            match target {
                Target::Queue(id) => out.push(*id),
                Target::Exchange(name) => visit(name),
            }
        });
        matched
    }
}

impl Exchange {
    /// Nothing but its own bindings to queues decides.
    fn is_plain(&self) -> bool {
        self.exchange_bindings == 0 && self.record.alternate_exchange().is_none()
    }
}

/// The headers of a message, from its content header's payload.
pub fn message_headers(header: &[u8]) -> Option<FieldTable<'_>> {
    let mut rest = header.get(HEADER_FIXED_BYTES..)?;
    let flags = property_flags(&mut rest)?;
    if flags & FLAG_HEADERS == 0 {
        return None;
    }
    for flag in [FLAG_CONTENT_TYPE, FLAG_CONTENT_ENCODING] {
        if flags & flag != 0 {
            let (&len, after) = rest.split_first()?;
            rest = after.get(usize::from(len)..)?;
        }
    }
    let (len, after) = rest.split_first_chunk::<4>()?;
    Some(FieldTable::unchecked(after.get(..u32::from_be_bytes(*len) as usize)?))
}

/// Whether a message names further routing keys, so that its route cannot be cached by its routing key; refused if they are no arrays.
#[inline]
pub fn has_copy_keys(header: &[u8]) -> Result<bool, Refusal> {
    match header.get(HEADER_FIXED_BYTES) {
        Some(&flags) if u16::from(flags) << 8 & FLAG_HEADERS != 0 => finds_copy_keys(header),
        _ => Ok(false),
    }
}

fn finds_copy_keys(header: &[u8]) -> Result<bool, Refusal> {
    let Some(headers) = message_headers(header) else { return Ok(false) };
    let mut has = false;
    for name in COPY_HEADERS {
        match headers.lookup(name.as_bytes()) {
            None => {}
            Some(Value::Array(_)) => has = true,
            Some(other) => return Err(Refusal::HeaderNotArray(name, other.type_name())),
        }
    }
    Ok(has)
}

/// The further routing keys a message names.
pub fn copy_keys_in(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let copies = matches!(has_copy_keys(header), Ok(true));
    copies.then(|| message_headers(header)).flatten().into_iter().flat_map(copy_keys)
}

/// Routing keys in the CC and BCC headers: the long strings in their arrays.
fn copy_keys(headers: FieldTable<'_>) -> impl Iterator<Item = &[u8]> {
    let arrays = COPY_HEADERS.into_iter().filter_map(move |name| match headers.lookup(name.as_bytes()) {
        Some(Value::Array(keys)) => Some(keys),
        _ => None,
    });
    arrays.flat_map(|keys| keys.iter()).filter_map(|value| match value {
        Value::LongString(key) => Some(key),
        _ => None,
    })
}

/// The first word of property flags; further words are stepped over.
fn property_flags(rest: &mut &[u8]) -> Option<u16> {
    let mut first = None;
    loop {
        let (word, after) = rest.split_first_chunk::<2>()?;
        *rest = after;
        let word = u16::from_be_bytes(*word);
        let flags = *first.get_or_insert(word);
        if word & FLAG_CONTINUES == 0 {
            return Some(flags);
        }
    }
}
