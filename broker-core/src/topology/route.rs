//! A message's way through exchanges to queues.

use std::sync::Arc;

use hashbrown::HashSet;
use smallvec::SmallVec;

use super::{Exchange, ExchangeRecord, Topology, Vhost};
use crate::exchange::{ExchangeKind, Routed, Target, has_delay, is_kept, next_dice};
use crate::field_table::{FieldTable, Value};
use crate::name::QueueId;
use crate::properties::{self, flag, headers_if_any};
use crate::refusal::Refusal;

/// A message, as far as its way depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Routable<'a> {
    /// The routing key it was published with.
    pub routing_key: &'a [u8],
    /// The content header's payload (class, weight, body size, property flags, properties): CC, BCC and several types of exchanges look at it.
    pub header: &'a [u8],
    /// A random number, a new one for each message: exchanges of type x-random choose by it.
    pub dice: u64,
    /// Whether exchanges of type x-delayed-message may hold it back; if not, they route it at once.
    pub may_wait: bool,
}

/// Where a message goes, and what else is to be done with it on its way.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// The queues it goes to, each once, in no particular order.
    pub queues: SmallVec<[QueueId; 8]>,
    /// Exchanges that keep it for queues which are bound to them later.
    pub kept_by: SmallVec<[Arc<ExchangeRecord>; 1]>,
    /// Exchanges that hold it back for its delay; it is routed from each of them afterwards.
    pub held_by: SmallVec<[Arc<ExchangeRecord>; 1]>,
}

/// The exchange a message was published to does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such exchange")]
pub struct NoSuchExchange;

/// Headers whose values are further routing keys.
const COPY_HEADERS: [&str; 2] = ["CC", "BCC"];

impl Topology {
    /// Finds out where a message goes. `out` is cleared first.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        message: &Routable<'_>,
        out: &mut Reached,
    ) -> Result<(), NoSuchExchange> {
        out.clear();
        self.vhost(vhost).ok_or(NoSuchExchange)?.route(exchange, message, out)
    }
}

impl Vhost {
    /// See [`Topology::route`].
    pub fn route(&self, exchange: &str, message: &Routable<'_>, out: &mut Reached) -> Result<(), NoSuchExchange> {
        out.clear();
        let exchange = self.exchanges.get(exchange).ok_or(NoSuchExchange)?;
        let headers = headers_if_any(message.header);
        let mut keys: SmallVec<[&[u8]; 4]> = SmallVec::new();
        keys.push(message.routing_key);
        if let Some(headers) = headers {
            keys.extend(copy_keys(headers));
        }
        let routed = Routed { keys: &keys, headers, header: message.header, dice: message.dice };
        if exchange.is_plain() {
            self.route_one(exchange, &routed, message.may_wait, out, &mut |_| {});
        } else {
            self.route_far(exchange, routed, message.may_wait, out);
        }
        if keys.len() > 1 || !exchange.is_plain() || exchange.table.may_repeat() {
            out.queues.sort_unstable();
            out.queues.dedup();
        }
        Ok(())
    }

    /// Whether the routing key alone decides where a message goes from this exchange (if it has no CC and BCC headers), and the exchanges on its
    /// way need not see each message: then the route may be remembered until an exchange or a binding changes.
    pub fn routes_by_key(&self, exchange: &str) -> bool {
        let Some(exchange) = self.exchanges.get(exchange) else { return false };
        if exchange.is_plain() || !exchange.is_by_key() {
            return exchange.is_by_key();
        }
        self.reachable(exchange).skip(1).all(Exchange::is_by_key)
    }

    /// Whether that exchange holds messages back that ask for a delay.
    pub fn delayed(&self, exchange: &str) -> bool {
        self.exchange(exchange).is_some_and(|record| record.kind == ExchangeKind::Delayed)
    }

    /// Follows bindings to other exchanges and alternate exchanges. Each exchange is visited once, so cycles end.
    fn route_far<'t>(&'t self, first: &'t Exchange, mut message: Routed<'_>, may_wait: bool, out: &mut Reached) {
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
            let matched = self.route_one(exchange, &message, may_wait, out, &mut visit);
            if !matched && let Some(name) = exchange.record.alternate_exchange() {
                visit(name);
            }
            message.dice = next_dice(message.dice);
        }
    }

    /// What one exchange's own bindings say. Returns whether any matched, or will be asked later.
    fn route_one<'t>(
        &'t self,
        exchange: &'t Exchange,
        message: &Routed<'_>,
        may_wait: bool,
        out: &mut Reached,
        visit: &mut dyn FnMut(&'t str),
    ) -> bool {
        if exchange.record.name.is_empty() {
            let queues = message.keys.iter().filter_map(|key| self.queue(std::str::from_utf8(key).ok()?));
            let before = out.queues.len();
            out.queues.extend(queues.map(|queue| queue.id));
            return out.queues.len() > before;
        }
        if exchange.wants_to_see_messages() {
            if may_wait && exchange.record.kind == ExchangeKind::Delayed && has_delay(message.headers) {
                out.held_by.push(exchange.record.clone());
                return true;
            }
            if exchange.record.matching_kind() == ExchangeKind::RecentHistory && is_kept(message.headers) {
                out.kept_by.push(exchange.record.clone());
            }
        }
        let mut matched = false;
        exchange.table.route(message, &mut |target| {
            matched = true;
            match target {
                Target::Queue(id) => out.queues.push(*id),
                Target::Exchange(name) => visit(name),
            }
        });
        matched
    }
}

impl Reached {
    /// As for a message that goes nowhere.
    pub fn clear(&mut self) {
        self.queues.clear();
        self.kept_by.clear();
        self.held_by.clear();
    }
}

impl Exchange {
    /// No other exchange is asked.
    fn is_plain(&self) -> bool {
        self.exchange_bindings == 0 && self.record.alternate_exchange().is_none()
    }

    /// The routing key decides which of its bindings match, and nothing else happens.
    fn is_by_key(&self) -> bool {
        !self.wants_to_see_messages() && self.table.is_by_routing_key()
    }

    /// It does more than to look for bindings.
    fn wants_to_see_messages(&self) -> bool {
        matches!(self.record.kind, ExchangeKind::RecentHistory | ExchangeKind::Delayed)
    }
}

/// Whether a message names further routing keys, so that its route cannot be cached by its routing key; refused if they are no arrays.
#[inline]
pub fn has_copy_keys(header: &[u8]) -> Result<bool, Refusal> {
    if properties::has(header, flag::HEADERS) { finds_copy_keys(header) } else { Ok(false) }
}

fn finds_copy_keys(header: &[u8]) -> Result<bool, Refusal> {
    let Some(headers) = headers_if_any(header) else { return Ok(false) };
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
    copies.then(|| headers_if_any(header)).flatten().into_iter().flat_map(copy_keys)
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
