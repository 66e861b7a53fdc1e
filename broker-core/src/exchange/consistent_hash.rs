//! Consistent-hash exchanges: a message goes to one of the targets, the same for the same key, each getting its share by weight.
//!
//! Every target makes a number of the key and of itself, and the luckiest one wins (rendezvous hashing). So a target that comes or goes moves
//! only the keys it wins or won, a large weight costs nothing, and where a key goes depends on the bindings alone: not on the order in which
//! they were made, and not on the node.
//!
//! A target that is bound several times takes part once, as in RabbitMQ, with the smallest of its weights.

use imbl::OrdMap;
use smallvec::SmallVec;

use super::Routed;
use super::targets::Target;
use crate::field_table::{Arguments, FieldTable, TableBuilder, Value};
use crate::properties::{self, flag};
use crate::refusal::Refusal;

const HASH_HEADER: &str = "hash-header";
const HASH_PROPERTY: &str = "hash-property";
/// The properties that `hash-property` may name.
const PROPERTIES: [(&str, u16); 3] =
    [("message_id", flag::MESSAGE_ID), ("correlation_id", flag::CORRELATION_ID), ("timestamp", flag::TIMESTAMP)];

#[derive(Clone, Debug)]
pub(crate) struct ConsistentHashTable {
    hashed: Hashed,
    targets: OrdMap<Target, Share>,
}

/// What of a message is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hashed {
    Routing,
    Header(Box<[u8]>),
    Property(u16),
}

#[derive(Clone, Debug)]
struct Share {
    /// The target's own part of every hash.
    seed: u64,
    /// Weights of its bindings, ascending.
    weights: SmallVec<[u64; 1]>,
}

impl ConsistentHashTable {
    /// An empty table for an exchange with these arguments.
    pub fn new(arguments: &Arguments) -> ConsistentHashTable {
        ConsistentHashTable { hashed: Hashed::of(arguments.table()), targets: OrdMap::new() }
    }

    pub fn add(&mut self, key: &[u8], target: Target) {
        let Some(weight) = weight(key) else { return };
        let seed = seed(&target);
        let share = self.targets.entry(target).or_insert_with(|| Share { seed, weights: SmallVec::new() });
        let at = share.weights.partition_point(|&other| other < weight);
        share.weights.insert(at, weight);
    }

    pub fn remove(&mut self, key: &[u8], target: &Target) {
        let Some(weight) = weight(key) else { return };
        let Some(share) = self.targets.get_mut(target) else { return };
        if let Ok(at) = share.weights.binary_search(&weight) {
            share.weights.remove(at);
        }
        if share.weights.is_empty() {
            self.targets.remove(target);
        }
    }

    pub fn route<'t>(&'t self, message: &Routed<'_>, found: &mut dyn FnMut(&'t Target)) {
        let hash = self.hashed.hash(message);
        let mut best: Option<(&Target, Draw)> = None;
        for (target, share) in &self.targets {
            let Some(&weight) = share.weights.first() else { continue };
            let draw = Draw { number: mixed(hash ^ share.seed), weight };
            if best.is_none_or(|(_, other)| draw.beats(other)) {
                best = Some((target, draw));
            }
        }
        if let Some((target, _)) = best {
            found(target);
        }
    }

    /// Whether the routing key alone decides.
    pub fn is_by_routing_key(&self) -> bool {
        self.hashed == Hashed::Routing
    }
}

impl Hashed {
    /// Arguments were checked by [`check_arguments`].
    fn of(arguments: FieldTable<'_>) -> Hashed {
        if let Some(Value::LongString(name)) = arguments.lookup(HASH_HEADER.as_bytes()) {
            return Hashed::Header(name.into());
        }
        let wanted = arguments.lookup(HASH_PROPERTY.as_bytes()).and_then(|value| value.text());
        match PROPERTIES.iter().find(|(name, _)| Some(*name) == wanted) {
            Some((_, property)) => Hashed::Property(*property),
            None => Hashed::Routing,
        }
    }

    /// Messages without the header or property are all hashed alike, so that they share one target.
    fn hash(&self, message: &Routed<'_>) -> u64 {
        let mut hash = Hash::default();
        match self {
            // Keys of CC and BCC do not count.
            Hashed::Routing => message.keys.iter().take(1).for_each(|key| hash.part(key)),
            Hashed::Property(name) => {
                properties::of_header(message.header, *name).into_iter().for_each(|octets| hash.part(octets))
            }
            Hashed::Header(name) => match message.headers.and_then(|headers| headers.lookup(name)) {
                Some(Value::LongString(octets)) => hash.part(octets),
                Some(value) => {
                    let mut field = TableBuilder::default();
                    field.push(b"", value);
                    hash.part(field.octets());
                }
                None => {}
            },
        }
        mixed(hash.0)
    }
}

/// What a target has drawn for a key: it comes first after the time -log(number) / weight, if number is between 0 and 1.
#[derive(Clone, Copy, Debug)]
struct Draw {
    number: u64,
    weight: u64,
}

impl Draw {
    fn beats(self, other: Draw) -> bool {
        if self.weight == other.weight {
            return self.number > other.number;
        }
        let (own, others) = (u128::from(minus_log2(self.number)), u128::from(minus_log2(other.number)));
        own * u128::from(other.weight) < others * u128::from(self.weight)
    }
}

/// FNV-1a over parts, each with an end.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn part(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        }
        self.0 = (self.0 ^ 0x100).wrapping_mul(0x0100_0000_01b3);
    }
}

fn seed(target: &Target) -> u64 {
    let mut hash = Hash::default();
    match target {
        Target::Queue(id) => hash.part(&id.0.to_be_bytes()),
        Target::Exchange(name) => hash.part(name.as_bytes()),
    }
    mixed(hash.0)
}

/// Every bit of the result depends on every bit of the number.
pub(super) fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Bits behind the point of the logarithms here.
const LOG_BITS: u32 = 56;
/// log2(1 + n / 256) for each n up to 256. Integers, so that all nodes agree on every bit.
const LOGS: [u64; 257] = logs();

const fn logs() -> [u64; 257] {
    let mut table = [0; 257];
    let mut at = 0;
    while at < 256 {
        // Squaring a number between 1 and 2 doubles its logarithm: whether it exceeds 2 then is the next bit.
        let mut number: u128 = ((256 + at) as u128) << 55;
        let mut bit = 0;
        while bit < LOG_BITS {
            number = (number * number) >> 63;
            table[at] <<= 1;
            if number >> 64 != 0 {
                number >>= 1;
                table[at] |= 1;
            }
            bit += 1;
        }
        at += 1;
    }
    table[256] = 1 << LOG_BITS;
    table
}

/// -log2(number / 2^64), by a straight line between the points of the table.
fn minus_log2(number: u64) -> u64 {
    let number = number | 1;
    let zeros = number.leading_zeros();
    let mantissa = number << zeros;
    let at = (mantissa >> 55) as usize & 255;
    let rest = mantissa & ((1 << 55) - 1);
    let step = (u128::from(LOGS[at + 1] - LOGS[at]) * u128::from(rest)) >> 55;
    (u64::from(zeros + 1) << LOG_BITS) - LOGS[at] - step as u64
}

/// A binding key as weight: Erlang's way to write an integer, 1 or more. Beyond what counts it is cut.
fn weight(key: &[u8]) -> Option<u64> {
    match integer(key)? {
        number if number >= 1 => Some(number.unsigned_abs()),
        _ => None,
    }
}

/// The integer Erlang reads, cut at the ends of `i64`.
fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number =
        digits.iter().fold(0_i64, |number, digit| number.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if negative { -number } else { number })
}

/// The refusal for arguments a consistent-hash exchange is declared with.
pub(super) fn check_arguments(arguments: FieldTable<'_>) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::OfExchangeType(text));
    let (header, by_property) = (arguments.lookup(HASH_HEADER.as_bytes()), arguments.lookup(HASH_PROPERTY.as_bytes()));
    for (name, value) in [(HASH_HEADER, header), (HASH_PROPERTY, by_property)] {
        // RabbitMQ falls over here, with 541.
        if let Some(value) = value.filter(|value| !matches!(value, Value::LongString(_))) {
            return refuse(format!("Invalid argument, '{name}' must be a string, not of type {}", value.type_name()));
        }
    }
    match (header, by_property) {
        (Some(_), Some(_)) => refuse("hash-header and hash-property are mutually exclusive".into()),
        (None, Some(value)) if !PROPERTIES.iter().any(|(name, _)| value.text() == Some(name)) => {
            refuse(format!("Unsupported property: {}", value.pretty()))
        }
        _ => Ok(()),
    }
}

/// The refusal for a binding key that is no weight.
pub(super) fn check_binding_key(key: &[u8]) -> Result<(), Refusal> {
    match integer(key) {
        Some(number) if number >= 1 => Ok(()),
        Some(_) => Err(Refusal::OfExchangeType("The binding key must be greater than 0".into())),
        None => Err(Refusal::OfExchangeType(format!(
            "The binding key must be an integer: {}",
            Value::LongString(key).as_erlang()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::name::QueueId;

    fn queue(id: u64) -> Target {
        Target::Queue(QueueId(id))
    }

    fn table(weights: &[(u64, u64)]) -> ConsistentHashTable {
        let mut table = ConsistentHashTable::new(&Arguments::default());
        for (id, weight) in weights {
            table.add(weight.to_string().as_bytes(), queue(*id));
        }
        table
    }

    fn routed(table: &ConsistentHashTable, message: &Routed<'_>) -> Option<Target> {
        let mut all = Vec::new();
        table.route(message, &mut |target| all.push(target.clone()));
        assert!(all.len() <= 1);
        all.pop()
    }

    fn by_key(table: &ConsistentHashTable, key: &str) -> Option<Target> {
        routed(table, &Routed { keys: &[key.as_bytes()], headers: None, header: &[], dice: 0 })
    }

    fn with_header(table: &ConsistentHashTable, name: &str, value: Value<'_>, key: &str) -> Option<Target> {
        let headers = TableBuilder::default().with(name, value);
        let headers = Some(FieldTable::parse(headers.octets()).unwrap());
        routed(table, &Routed { keys: &[key.as_bytes()], headers, header: &[], dice: 0 })
    }

    fn counts(table: &ConsistentHashTable, keys: usize) -> BTreeMap<Target, usize> {
        let mut counts = BTreeMap::new();
        for key in 0..keys {
            *counts.entry(by_key(table, &format!("key{key}")).unwrap()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_weights() {
        for weights in [&[(1, 1), (2, 1), (3, 1)][..], &[(1, 1), (2, 2), (3, 3)], &[(7, 5), (8, 1000), (9, 5000)]] {
            let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
            let counts = counts(&table(weights), 30_000);
            for (id, weight) in weights {
                let expected = 30_000.0 * *weight as f64 / total as f64;
                let found = counts.get(&queue(*id)).copied().unwrap_or(0) as f64;
                // Four standard deviations.
                assert!((found - expected).abs() < 4.0 * expected.sqrt() + 1.0, "{weights:?}: {id} got {found}");
            }
        }
    }

    #[test]
    fn many_equal_queues_share_evenly() {
        let weights: Vec<(u64, u64)> = (0..50).map(|id| (id, 1)).collect();
        let counts = counts(&table(&weights), 50_000);
        assert!(counts.len() == 50 && counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_queue_that_comes_or_goes_moves_only_its_own_keys() {
        let weights: Vec<(u64, u64)> = (0..10).map(|id| (id, 1 + id % 3)).collect();
        let (before, mut after) = (table(&weights), table(&weights));
        after.add(b"2", queue(10));
        let mut moved = 0;
        for key in (0..20_000).map(|key| key.to_string()) {
            let (old, new) = (by_key(&before, &key), by_key(&after, &key));
            assert!(old == new || new == Some(queue(10)));
            moved += usize::from(old != new);
        }
        // 2 of 21 in all.
        assert!((1_700..2_100).contains(&moved), "{moved}");
        after.remove(b"2", &queue(10));
        assert!((0..1000).all(|key| by_key(&before, &key.to_string()) == by_key(&after, &key.to_string())));
    }

    #[test]
    fn a_queue_bound_twice_counts_once() {
        let mut table = table(&[(1, 1), (2, 1), (1, 100)]);
        let counts = counts(&table, 2_000);
        assert!((850..1150).contains(&counts[&queue(1)]), "{counts:?}");
        table.remove(b"1", &queue(1));
        assert!((0..100).any(|key| by_key(&table, &key.to_string()) == Some(queue(1))));
        table.remove(b"100", &queue(1));
        assert!((0..100).all(|key| by_key(&table, &key.to_string()) == Some(queue(2))));
    }

    #[test]
    fn where_a_key_goes_is_the_same_for_ever() {
        // Bindings outlive restarts and are on several nodes: these answers may never change.
        let table = table(&[(1, 1), (2, 2), (3, 3), (4, 1)]);
        let ids: Vec<u64> = (0..12)
            .map(|key| match by_key(&table, &format!("key{key}")) {
                Some(Target::Queue(QueueId(id))) => id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, [3, 2, 3, 3, 2, 1, 3, 2, 3, 3, 2, 4]);
    }

    #[test]
    fn further_routing_keys_do_not_count() {
        let table = table(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        for copy in (0..50).map(|copy: u8| [copy]) {
            let message = Routed { keys: &[b"k", &copy], headers: None, header: &[], dice: 0 };
            assert_eq!(routed(&table, &message), by_key(&table, "k"));
        }
    }

    #[test]
    fn a_header_or_property_may_be_the_key() {
        let arguments = |name, value| TableBuilder::default().with(name, Value::LongString(value)).arguments();
        let mut table = ConsistentHashTable::new(&arguments("hash-header", b"h"));
        (0..5).for_each(|id| table.add(b"1", queue(id)));
        assert!(!table.is_by_routing_key());
        let text = |key: &str, header: &str| with_header(&table, "h", Value::LongString(header.as_bytes()), key);
        assert!((0..50).all(|key| text(&key.to_string(), "same") == text("k", "same")));
        assert!((0..50).any(|header| text("k", &header.to_string()) != text("k", "same")));
        let number = |number| with_header(&table, "h", Value::Int32(number), "k");
        assert!((0..50).any(|other| number(other) != number(7)));
        let missing = by_key(&table, "k");
        assert!(missing.is_some() && missing == by_key(&table, "other"));
        assert_eq!(missing, with_header(&table, "i", Value::Int32(1), "k"));

        for (name, flag, octets) in [(&b"message_id"[..], 1_u16 << 7, [1, 0]), (b"correlation_id", 1 << 10, [1, 0])] {
            let mut table = ConsistentHashTable::new(&arguments("hash-property", name));
            (0..5).for_each(|id| table.add(b"1", queue(id)));
            let by = |octet: u8| {
                let mut header = vec![0; 12];
                header.extend(flag.to_be_bytes());
                header.extend([octets[0], octet]);
                routed(&table, &Routed { keys: &[b"k"], headers: None, header: &header, dice: 0 })
            };
            assert!((0..50).any(|octet| by(octet) != by(0)));
        }
        let mut table = ConsistentHashTable::new(&arguments("hash-property", b"timestamp"));
        (0..5).for_each(|id| table.add(b"1", queue(id)));
        let by = |seconds: u64| {
            let mut header = vec![0; 12];
            header.extend((1_u16 << 6).to_be_bytes());
            header.extend(seconds.to_be_bytes());
            routed(&table, &Routed { keys: &[b"k"], headers: None, header: &header, dice: 0 })
        };
        assert!((0..50).any(|seconds| by(seconds) != by(0)));
    }

    #[test]
    fn arguments_and_keys_are_refused_as_by_rabbitmq() {
        let check = |fields: &[(&str, Value<'_>)]| {
            let table = fields.iter().fold(TableBuilder::default(), |table, (name, value)| table.with(name, *value));
            check_arguments(table.arguments().table()).err().map(|refusal| refusal.reply().text)
        };
        let (header, by_property) =
            (("hash-header", Value::LongString(b"a")), |name| ("hash-property", Value::LongString(name)));
        for fields in [&[][..], &[header], &[by_property(b"message_id")], &[by_property(b"timestamp")]] {
            assert_eq!(check(fields), None);
        }
        for (fields, text) in [
            (&[header, by_property(b"timestamp")][..], "hash-header and hash-property are mutually exclusive"),
            (&[by_property(b"app_id")], "Unsupported property: app_id"),
            (&[by_property(b"")], "Unsupported property: "),
            (&[("hash-header", Value::Int8(1))], "Invalid argument, 'hash-header' must be a string, not of type byte"),
        ] {
            assert_eq!(check(fields), Some(format!("PRECONDITION_FAILED - {text}")));
        }
        for key in [&b"1"[..], b"+2", b"007", &[b'9'; 255]] {
            assert_eq!(check_binding_key(key), Ok(()));
        }
        for (key, text) in [
            (&b"0"[..], "The binding key must be greater than 0"),
            (b"-0", "The binding key must be greater than 0"),
            (b"-1", "The binding key must be greater than 0"),
            (b"abc", "The binding key must be an integer: <<\"abc\">>"),
            (b"", "The binding key must be an integer: <<>>"),
            (b" 3", "The binding key must be an integer: <<\" 3\">>"),
            (b"--1", "The binding key must be an integer: <<\"--1\">>"),
            (b"\x01\x02", "The binding key must be an integer: <<1,2>>"),
            (b"a\"b", "The binding key must be an integer: <<\"a\\\"b\">>"),
            ("é".as_bytes(), "The binding key must be an integer: <<\"é\">>"),
        ] {
            let reply = check_binding_key(key).unwrap_err().reply();
            assert_eq!((reply.code, reply.text), (406, format!("PRECONDITION_FAILED - {text}")));
        }
    }

    #[test]
    fn logarithms_are_right() {
        for number in [1, 2, 3, 1 << 32, 0x1234_5678_9abc_def0, u64::MAX / 3, u64::MAX - 1000] {
            let number = number | 1;
            let exact = 64.0 - (number as f64).log2();
            let found = minus_log2(number) as f64 / (1_u64 << LOG_BITS) as f64;
            assert!((exact - found).abs() < 1e-5, "{number}: {found} is not {exact}");
        }
        assert!(minus_log2(u64::MAX) < 1 << 10);
    }

    proptest! {
        #[test]
        fn any_order_makes_the_same_table_and_leaves_nothing(
            bindings in prop::collection::vec((0..6_u64, 1..5_u64), 0..20),
            order in any::<u64>(),
            keys in prop::collection::vec("[a-z]{0,6}", 1..10),
        ) {
            let mut shuffled = bindings.clone();
            shuffled.sort_by_key(|(id, weight)| mixed(order ^ (id * 10 + weight)));
            let (one, mut two) = (table(&bindings), table(&shuffled));
            for key in &keys {
                prop_assert_eq!(by_key(&one, key), by_key(&two, key));
                prop_assert_eq!(by_key(&one, key).is_none(), bindings.is_empty());
            }
            for (id, weight) in &bindings {
                two.remove(weight.to_string().as_bytes(), &queue(*id));
            }
            prop_assert!(two.targets.is_empty());
        }
    }
}
