//! Exchange types: for each a table of its bindings that finds where a message goes.
//!
//! Tables are persistent: a copy costs nothing and shares everything, a change copies a path of logarithmic length. So every change of the
//! topology can be a new snapshot, and a message is routed without a lock.

mod direct;
mod fanout;
mod headers;
mod targets;
mod topic;

use smallvec::SmallVec;

pub use headers::check_match;
pub use targets::Target;

use crate::field_table::{Arguments, FieldTable, Value};
use crate::refusal::Refusal;

/// The routing algorithm of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeKind {
    /// Routing key equals binding key.
    Direct,
    /// Every binding.
    Fanout,
    /// Binding keys are patterns of words.
    Topic,
    /// Binding arguments are compared with the message's headers.
    Headers,
}

impl ExchangeKind {
    /// The type's name, as declared.
    pub fn name(self) -> &'static str {
        match self {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
        }
    }

    /// The type of that name, or the refusal a declaration with it gets.
    pub fn parse(name: &str) -> Result<ExchangeKind, Refusal> {
        match name {
            "direct" => Ok(ExchangeKind::Direct),
            "fanout" => Ok(ExchangeKind::Fanout),
            "topic" => Ok(ExchangeKind::Topic),
            "headers" => Ok(ExchangeKind::Headers),
            _ => Err(Refusal::UnknownExchangeType(name.to_owned())),
        }
    }
}

/// What of a message routing looks at.
pub(crate) struct Routed<'a> {
    /// The routing key and those of the CC and BCC headers.
    pub keys: &'a [&'a [u8]],
    /// The headers, sorted by name; read only if an exchange of type headers is met.
    pub headers: Option<FieldTable<'a>>,
}

/// Headers sorted by name.
pub(crate) type SortedHeaders<'a> = SmallVec<[(&'a [u8], Value<'a>); 16]>;

/// The bindings of one exchange, ready for matching.
#[derive(Clone, Debug)]
pub(crate) enum MatchingTable {
    Direct(direct::DirectTable),
    Fanout(fanout::FanoutTable),
    Topic(topic::TopicTable),
    Headers(headers::HeadersTable),
}

impl MatchingTable {
    pub fn new(kind: ExchangeKind) -> MatchingTable {
        match kind {
            ExchangeKind::Direct => MatchingTable::Direct(Default::default()),
            ExchangeKind::Fanout => MatchingTable::Fanout(Default::default()),
            ExchangeKind::Topic => MatchingTable::Topic(Default::default()),
            ExchangeKind::Headers => MatchingTable::Headers(Default::default()),
        }
    }

    /// Adds a binding. The same target may be bound several times with one key and different arguments; each must be removed again.
    pub fn add(&mut self, key: &[u8], arguments: &Arguments, target: Target) {
        match self {
            MatchingTable::Direct(table) => table.add(key, target),
            MatchingTable::Fanout(table) => table.add(target),
            MatchingTable::Topic(table) => table.add(key, target),
            MatchingTable::Headers(table) => table.add(arguments, target),
        }
    }

    /// Removes a binding that was added.
    pub fn remove(&mut self, key: &[u8], arguments: &Arguments, target: &Target) {
        match self {
            MatchingTable::Direct(table) => table.remove(key, target),
            MatchingTable::Fanout(table) => table.remove(target),
            MatchingTable::Topic(table) => table.remove(key, target),
            MatchingTable::Headers(table) => table.remove(arguments, target),
        }
    }

    /// Hands every matching target to `found`; the same one may come several times.
    pub fn route<'t>(&'t self, message: &Routed<'_>, found: &mut dyn FnMut(&'t Target)) {
        match self {
            MatchingTable::Direct(table) => message.keys.iter().for_each(|key| table.route(key, found)),
            MatchingTable::Fanout(table) => table.route(found),
            MatchingTable::Topic(table) => message.keys.iter().for_each(|key| table.route(key, found)),
            MatchingTable::Headers(table) => {
                let mut headers: SortedHeaders<'_> = message.headers.into_iter().flatten().collect();
                headers.sort_by_key(|(name, _)| *name);
                table.route(&headers, found);
            }
        }
    }

    /// Whether one routing key can find the same target twice.
    pub fn may_repeat(&self) -> bool {
        matches!(self, MatchingTable::Topic(_) | MatchingTable::Headers(_))
    }
}
