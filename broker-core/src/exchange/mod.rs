//! Exchange types: for each a table of its bindings that finds where a message goes.
//!
//! Tables are persistent: a copy costs nothing and shares everything, a change copies a path of logarithmic length. So every change of the
//! topology can be a new snapshot, and a message is routed without a lock.

mod consistent_hash;
mod delayed;
mod direct;
mod fanout;
mod headers;
mod pattern_bits;
mod random;
mod recent_history;
mod targets;
mod topic;

use smallvec::SmallVec;

pub use delayed::{DELAY_MAX_MS, delay_ms, with_delay_over};
pub use headers::check_match;
pub use recent_history::{HISTORIES_MAX_BYTES, HISTORY_MAX_BYTES, HISTORY_MAX_MESSAGES, Histories};
pub(crate) use recent_history::{is_kept, length as history_length};
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
    /// One binding, the same for the same key; binding keys are weights.
    ConsistentHash,
    /// One binding, any.
    Random,
    /// Every binding, and the last messages for new ones.
    RecentHistory,
    /// As another type, after the delay a message asks for.
    Delayed,
}

/// All types with their names.
const KINDS: [(ExchangeKind, &str); 8] = [
    (ExchangeKind::Direct, "direct"),
    (ExchangeKind::Fanout, "fanout"),
    (ExchangeKind::Topic, "topic"),
    (ExchangeKind::Headers, "headers"),
    (ExchangeKind::ConsistentHash, "x-consistent-hash"),
    (ExchangeKind::Random, "x-random"),
    (ExchangeKind::RecentHistory, "x-recent-history"),
    (ExchangeKind::Delayed, "x-delayed-message"),
];

impl ExchangeKind {
    /// All there are.
    pub fn all() -> impl Iterator<Item = ExchangeKind> {
        KINDS.into_iter().map(|(kind, _)| kind)
    }

    /// The type's name, as declared.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The type of that name, or the refusal a declaration with it gets.
    pub fn parse(name: &str) -> Result<ExchangeKind, Refusal> {
        let found = KINDS.iter().find(|(_, other)| *other == name);
        found.map(|(kind, _)| *kind).ok_or_else(|| Refusal::UnknownExchangeType(name.to_owned()))
    }

    /// The type that finds targets: the inner one where messages are delayed before.
    pub(crate) fn matching(self, arguments: &Arguments) -> ExchangeKind {
        match self {
            // Without a valid one nothing is declared.
            ExchangeKind::Delayed => delayed::inner_kind(arguments.table()).unwrap_or(ExchangeKind::Direct),
            kind => kind,
        }
    }

    /// The refusal for arguments that an exchange of this type is not declared with.
    pub(crate) fn check_arguments(self, arguments: FieldTable<'_>) -> Result<(), Refusal> {
        match self {
            ExchangeKind::ConsistentHash => consistent_hash::check_arguments(arguments),
            ExchangeKind::RecentHistory => recent_history::check_arguments(arguments),
            // The inner type is never this one.
            ExchangeKind::Delayed => match delayed::inner_kind(arguments)? {
                ExchangeKind::ConsistentHash => consistent_hash::check_arguments(arguments),
                ExchangeKind::RecentHistory => recent_history::check_arguments(arguments),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The refusal for a binding that an exchange whose matching type is this one does not take.
    pub(crate) fn check_binding(self, key: &[u8], arguments: FieldTable<'_>) -> Result<(), Refusal> {
        match self {
            ExchangeKind::Headers => check_match(arguments),
            ExchangeKind::ConsistentHash => consistent_hash::check_binding_key(key),
            _ => Ok(()),
        }
    }
}

/// What of a message routing looks at.
pub(crate) struct Routed<'a> {
    /// The routing key and those of the CC and BCC headers.
    pub keys: &'a [&'a [u8]],
    /// The headers, in the order they came.
    pub headers: Option<FieldTable<'a>>,
    /// The content header's payload.
    pub header: &'a [u8],
    /// A random number.
    pub dice: u64,
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
    ConsistentHash(consistent_hash::ConsistentHashTable),
    Random(random::RandomTable),
}

impl MatchingTable {
    /// An empty table for an exchange of that type, declared with these arguments.
    pub fn new(kind: ExchangeKind, arguments: &Arguments) -> MatchingTable {
        match kind.matching(arguments) {
            ExchangeKind::Direct | ExchangeKind::Delayed => MatchingTable::Direct(Default::default()),
            ExchangeKind::Fanout | ExchangeKind::RecentHistory => MatchingTable::Fanout(Default::default()),
            ExchangeKind::Topic => MatchingTable::Topic(Default::default()),
            ExchangeKind::Headers => MatchingTable::Headers(Default::default()),
            ExchangeKind::ConsistentHash => {
                MatchingTable::ConsistentHash(consistent_hash::ConsistentHashTable::new(arguments))
            }
            ExchangeKind::Random => MatchingTable::Random(Default::default()),
        }
    }

    /// Adds a binding. The same target may be bound several times with one key and different arguments; each must be removed again.
    pub fn add(&mut self, key: &[u8], arguments: &Arguments, target: Target) {
        match self {
            MatchingTable::Direct(table) => table.add(key, target),
            MatchingTable::Fanout(table) => table.add(target),
            MatchingTable::Topic(table) => table.add(key, target),
            MatchingTable::Headers(table) => table.add(arguments, target),
            MatchingTable::ConsistentHash(table) => table.add(key, target),
            MatchingTable::Random(table) => table.add(target),
        }
    }

    /// Removes a binding that was added.
    pub fn remove(&mut self, key: &[u8], arguments: &Arguments, target: &Target) {
        match self {
            MatchingTable::Direct(table) => table.remove(key, target),
            MatchingTable::Fanout(table) => table.remove(target),
            MatchingTable::Topic(table) => table.remove(key, target),
            MatchingTable::Headers(table) => table.remove(arguments, target),
            MatchingTable::ConsistentHash(table) => table.remove(key, target),
            MatchingTable::Random(table) => table.remove(target),
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
            MatchingTable::ConsistentHash(table) => table.route(message, found),
            MatchingTable::Random(table) => table.route(message.dice, found),
        }
    }

    /// Whether one routing key can find the same target twice.
    pub fn may_repeat(&self) -> bool {
        matches!(self, MatchingTable::Topic(_) | MatchingTable::Headers(_))
    }

    /// Whether the routing key alone decides which targets match.
    pub fn is_by_routing_key(&self) -> bool {
        match self {
            MatchingTable::Direct(_) | MatchingTable::Fanout(_) | MatchingTable::Topic(_) => true,
            MatchingTable::ConsistentHash(table) => table.is_by_routing_key(),
            MatchingTable::Headers(_) | MatchingTable::Random(_) => false,
        }
    }
}

/// Whether a message with these headers is to be held back by an exchange that delays.
pub(crate) fn has_delay(headers: Option<FieldTable<'_>>) -> bool {
    headers.is_some_and(|headers| delayed::delay_of(headers).is_some())
}

/// A number that looks random beside the one it is made of.
pub(crate) fn next_dice(dice: u64) -> u64 {
    consistent_hash::mixed(dice.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_table::TableBuilder;

    #[test]
    fn names_read_back_as_the_types_they_are_of() {
        for kind in ExchangeKind::all() {
            assert_eq!(ExchangeKind::parse(kind.name()), Ok(kind));
        }
        for name in ["", "x-local-random", "X-RANDOM", "direct "] {
            let reply = ExchangeKind::parse(name).unwrap_err().reply();
            assert_eq!((reply.code, reply.closes_connection), (503, true), "{name:?}");
        }
    }

    #[test]
    fn a_delayed_exchange_checks_and_matches_as_its_inner_type() {
        let with = |inner: &[u8], name, value| {
            TableBuilder::default().with("x-delayed-type", Value::LongString(inner)).with(name, value).arguments()
        };
        let hash = with(b"x-consistent-hash", "hash-property", Value::LongString(b"app_id"));
        let history = with(b"x-recent-history", "x-recent-history-length", Value::Int8(0));
        for (arguments, kind) in [(hash, ExchangeKind::ConsistentHash), (history, ExchangeKind::RecentHistory)] {
            assert_eq!(ExchangeKind::Delayed.matching(&arguments), kind);
            assert_eq!(
                ExchangeKind::Delayed.check_arguments(arguments.table()),
                kind.check_arguments(arguments.table())
            );
            assert!(kind.check_arguments(arguments.table()).is_err());
        }
        let topic = with(b"topic", "hash-property", Value::LongString(b"app_id"));
        assert_eq!(ExchangeKind::Delayed.check_arguments(topic.table()), Ok(()));
        assert!(matches!(MatchingTable::new(ExchangeKind::Delayed, &topic), MatchingTable::Topic(_)));
    }
}
