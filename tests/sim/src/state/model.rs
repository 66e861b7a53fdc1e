//! Vhosts, exchanges, queues, bindings, policies and permissions, in maps: routing tries every binding, rights try every pattern.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_core::arguments::Overflow;
use broker_core::exchange::ExchangeKind;
use broker_core::queue::{Lanes, Rules};

use super::content::Content;
use super::queue_model::QueueModel;

/// A pattern, and what it means.
pub type Pattern = (&'static str, fn(&str) -> bool);
/// For names and routing keys.
pub const PATTERNS: [Pattern; 6] = [
    (".*", |_| true),
    ("^$", str::is_empty),
    ("^q[2-5]$", |name| matches!(name, "q2" | "q3" | "q4" | "q5")),
    ("^(x|amq)", |name| name.starts_with('x') || name.starts_with("amq")),
    ("[357]$", |name| name.ends_with(['3', '5', '7'])),
    ("a", |name| name.contains('a')),
];
/// One more of routing keys, with a variable in it: the user's own name.
pub const OWN_NAME: &str = "^{username}$";

/// What every vhost has from the start, and which of it clients cannot publish to.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
    ("amq.topic", ExchangeKind::Topic, false),
];

#[derive(Default)]
pub struct Model {
    pub vhosts: BTreeMap<String, Vhost>,
    /// With their tags.
    pub users: BTreeMap<String, Vec<String>>,
    /// By user and vhost: which of [`PATTERNS`] for configure, write and read.
    pub permissions: BTreeMap<(String, String), [usize; 3]>,
    /// By user, vhost and exchange: write and read, of [`PATTERNS`] and [`OWN_NAME`].
    pub topics: BTreeMap<(String, String, String), [usize; 2]>,
    /// By user: connections and channels.
    pub user_limits: BTreeMap<String, [Option<u64>; 2]>,
}

pub struct Vhost {
    pub exchanges: BTreeMap<String, Exchange>,
    pub queues: BTreeMap<String, Queue>,
    pub bindings: BTreeSet<Bound>,
    /// By whether they are operator policies, and name.
    pub policies: BTreeMap<(bool, String), Set>,
    /// Connections and queues.
    pub limits: [Option<u64>; 2],
    /// By exchange of type x-recent-history: its last messages.
    pub kept: BTreeMap<String, VecDeque<Content>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    pub kind: ExchangeKind,
    /// Of one that delays; else the kind.
    pub inner: ExchangeKind,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub alternate: Option<String>,
    /// Of one that hashes: the header it looks at instead of the routing key.
    pub hashes: Option<String>,
    /// Of one that keeps messages: how many.
    pub keeps: Option<u64>,
}

pub struct Queue {
    pub id: u64,
    pub declared: Declared,
    pub state: QueueModel,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    pub durable: bool,
    pub auto_delete: bool,
    pub owner: Option<u64>,
    pub quorum: bool,
    pub single_active: bool,
    pub max_priority: u8,
    pub wishes: Wishes,
}

/// What arguments and policies both can ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    pub ttl_ms: Option<u64>,
    pub expires_ms: Option<u64>,
    pub max_length: Option<u64>,
    pub max_octets: Option<u64>,
    pub delivery_limit: Option<u64>,
    pub overflow: Option<&'static str>,
    pub dead_to: Option<String>,
    pub dead_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    pub pattern: usize,
    pub apply_to: &'static str,
    pub priority: i64,
    pub wishes: Wishes,
    pub alternate: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    pub source: String,
    pub to_exchange: bool,
    pub destination: String,
    pub key: String,
    /// What x-match says, and the headers wanted; none: with any value.
    pub wanted: Option<(&'static str, BTreeMap<String, Option<i64>>)>,
}

/// Where a message may go.
#[derive(Default)]
pub struct Way {
    pub queues: BTreeSet<String>,
    /// An exchange on its way takes one of its bindings only.
    pub chooses: bool,
    /// Exchanges that hold it back.
    pub held_by: BTreeSet<String>,
    /// Exchanges that keep it for later bindings.
    pub kept_by: BTreeSet<String>,
}

impl Model {
    /// Whether a user holds a right (0 configure, 1 write, 2 read) on a name.
    pub fn allows(&self, user: &str, vhost: &str, right: usize, name: &str) -> bool {
        let name = if name.is_empty() { "amq.default" } else { name };
        self.allows_queue(user, vhost, right, name)
    }

    pub fn allows_queue(&self, user: &str, vhost: &str, right: usize, name: &str) -> bool {
        let held = self.permissions.get(&(user.to_owned(), vhost.to_owned()));
        held.is_some_and(|held| PATTERNS[held[right]].1(name))
    }

    /// The same of a routing key on a topic exchange; everything where nothing is said.
    pub fn allows_topic(&self, user: &str, vhost: &str, right: usize, exchange: &str, key: &str) -> bool {
        let found = self.vhosts.get(vhost).and_then(|vhost| vhost.exchanges.get(exchange));
        // To publish to an internal one is refused for that.
        let asked = |exchange: &Exchange| exchange.kind == ExchangeKind::Topic && (right == 2 || !exchange.internal);
        if !found.is_some_and(asked) {
            return true;
        }
        let held = self.topics.get(&(user.to_owned(), vhost.to_owned(), exchange.to_owned()));
        held.is_none_or(|held| PATTERNS.get(held[right - 1]).map_or(key == user, |pattern| pattern.1(key)))
    }

    pub fn delete_user(&mut self, user: &str) {
        self.users.remove(user);
        self.user_limits.remove(user);
        self.permissions.retain(|(name, _), _| name != user);
        self.topics.retain(|(name, ..), _| name != user);
    }

    pub fn delete_vhost(&mut self, vhost: &str) {
        self.vhosts.remove(vhost);
        self.permissions.retain(|(_, name), _| name != vhost);
        self.topics.retain(|(_, name, _), _| name != vhost);
    }
}

impl Vhost {
    pub fn new() -> Vhost {
        let predeclared = |(name, kind, internal): (&str, ExchangeKind, bool)| {
            let (durable, auto_delete, inner) = (true, false, kind);
            let (alternate, hashes, keeps) = (None, None, None);
            (name.to_owned(), Exchange { kind, inner, durable, auto_delete, internal, alternate, hashes, keeps })
        };
        Vhost {
            exchanges: PREDECLARED.into_iter().map(predeclared).collect(),
            queues: BTreeMap::new(),
            bindings: BTreeSet::new(),
            policies: BTreeMap::new(),
            limits: [None, None],
            kept: BTreeMap::new(),
        }
    }

    pub fn unbind(&mut self, gone: impl Fn(&Bound) -> bool, cascade: bool) {
        let (removed, kept): (BTreeSet<Bound>, BTreeSet<Bound>) =
            std::mem::take(&mut self.bindings).into_iter().partition(gone);
        self.bindings = kept;
        for source in removed.iter().map(|bound| &bound.source).filter(|_| cascade) {
            let unused = !self.bindings.iter().any(|bound| bound.source == *source);
            if unused && self.exchanges.get(source).is_some_and(|exchange| exchange.auto_delete) {
                self.delete_exchange(source);
            }
        }
    }

    pub fn delete_queue(&mut self, name: &str) {
        if self.queues.remove(name).is_some() {
            self.unbind(|bound| !bound.to_exchange && bound.destination == name, true);
        }
    }

    pub fn delete_exchange(&mut self, name: &str) {
        if self.exchanges.remove(name).is_some() {
            self.kept.remove(name);
            self.unbind(|bound| bound.source == name, false);
            self.unbind(|bound| bound.to_exchange && bound.destination == name, true);
        }
    }

    /// The node starts again: what is not durable is gone, and nothing goes because of that.
    pub fn restart(&mut self) {
        let queues = self.queues.iter().filter(|(_, queue)| !queue.declared.is_durable());
        for name in queues.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.queues.remove(&name);
            self.unbind(|bound| !bound.to_exchange && bound.destination == name, false);
        }
        let exchanges = self.exchanges.iter().filter(|(_, exchange)| !exchange.durable);
        for name in exchanges.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.exchanges.remove(&name);
            self.kept.remove(&name);
            self.unbind(|bound| bound.source == name || (bound.to_exchange && bound.destination == name), false);
        }
    }

    /// An exchange takes one of the queues bound to it, and nothing else: which there are, with the smallest of their weights.
    pub fn choices(&self, content: &Content) -> Option<BTreeMap<String, u64>> {
        let exchange = self.exchanges.get(&content.exchange).filter(|exchange| exchange.chooses())?;
        let holds = exchange.kind == ExchangeKind::Delayed && content.delay_ms().is_some();
        let bound: Vec<&Bound> = self.bindings.iter().filter(|bound| bound.source == content.exchange).collect();
        if holds || bound.is_empty() || bound.iter().any(|bound| bound.to_exchange) {
            return None;
        }
        let mut choices = BTreeMap::new();
        for Bound { destination, key, .. } in bound {
            let weight = key.parse().unwrap_or(0);
            let least: &mut u64 = choices.entry(destination.clone()).or_insert(weight);
            *least = weight.min(*least);
        }
        Some(choices)
    }

    /// The policy for a queue, or without a type for an exchange.
    fn governing(&self, name: &str, quorum: Option<bool>, operator: bool) -> Option<&Set> {
        let fits = |set: &Set| match (set.apply_to, quorum) {
            ("all", _) | ("queues", Some(_)) | ("exchanges", None) => true,
            ("classic_queues", Some(quorum)) => !quorum,
            ("quorum_queues", Some(quorum)) => quorum,
            _ => false,
        };
        let known = |set: &Set| quorum != Some(false) || set.wishes.delivery_limit.is_none();
        let all = self.policies.iter().filter(|((of, _), _)| *of == operator);
        let found = all.filter(|(_, set)| fits(set) && known(set) && PATTERNS[set.pattern].1(name));
        found.min_by_key(|((_, name), set)| (-set.priority, name.clone())).map(|(_, set)| set)
    }

    pub fn alternate(&self, name: &str) -> Option<String> {
        let declared = self.exchanges.get(name).and_then(|exchange| exchange.alternate.clone());
        let by_policy = || self.governing(name, None, false).and_then(|set| set.alternate.clone());
        declared.or_else(by_policy).filter(|_| !name.is_empty())
    }

    /// What arguments and policies come to together.
    pub fn wishes(&self, name: &str, declared: &Declared) -> Wishes {
        let policy = self.governing(name, Some(declared.quorum), false).map(|set| &set.wishes);
        let operator = self.governing(name, Some(declared.quorum), true).map(|set| &set.wishes);
        let own = &declared.wishes;
        let least =
            |of: fn(&Wishes) -> Option<u64>| [Some(own), policy, operator].into_iter().flatten().filter_map(of).min();
        Wishes {
            ttl_ms: least(|wishes| wishes.ttl_ms),
            expires_ms: least(|wishes| wishes.expires_ms),
            max_length: least(|wishes| wishes.max_length),
            max_octets: least(|wishes| wishes.max_octets),
            delivery_limit: least(|wishes| wishes.delivery_limit),
            overflow: own.overflow.or(policy.and_then(|wishes| wishes.overflow)),
            dead_to: own.dead_to.clone().or_else(|| policy?.dead_to.clone()),
            dead_key: own.dead_key.clone().or_else(|| policy?.dead_key.clone()),
        }
    }

    pub fn rules(&self, name: &str, declared: &Declared) -> Rules {
        let wishes = self.wishes(name, declared);
        Rules {
            message_ttl_ms: wishes.ttl_ms,
            expires_ms: wishes.expires_ms,
            max_length: wishes.max_length,
            max_length_bytes: wishes.max_octets,
            overflow: match wishes.overflow {
                Some("reject-publish") => Overflow::RejectPublish,
                Some("reject-publish-dlx") => Overflow::RejectPublishDlx,
                _ => Overflow::DropHead,
            },
            has_dead_letters: wishes.dead_to.is_some(),
            counts_deliveries: declared.quorum,
            delivery_limit: wishes.delivery_limit,
            single_active_consumer: declared.single_active,
            holds_back: false,
            lanes: Lanes { highest: declared.max_priority },
        }
    }

    /// Where a message goes from an exchange; none if there is no such exchange.
    pub fn route(&self, from: &str, content: &Content) -> Option<Way> {
        self.exchanges.get(from)?;
        let keys: Vec<&String> = std::iter::once(&content.key).chain(&content.copies).collect();
        let mut way = Way::default();
        let (mut open, mut seen) = (vec![from.to_owned()], BTreeSet::new());
        while let Some(name) = open.pop() {
            let Some(exchange) = self.exchanges.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            if name.is_empty() {
                way.queues.extend(keys.iter().filter(|key| self.queues.contains_key(**key)).map(|key| (*key).clone()));
                continue;
            }
            if exchange.kind == ExchangeKind::Delayed && content.delay_ms().is_some() {
                way.held_by.insert(name);
                continue;
            }
            if exchange.inner == ExchangeKind::RecentHistory {
                way.kept_by.insert(name.clone());
            }
            way.chooses |= exchange.chooses();
            let hit = |bound: &&Bound| bound.source == name && exchange.hits(bound, &keys, &content.headers);
            let mut matched = false;
            for bound in self.bindings.iter().filter(hit) {
                matched = true;
                if bound.to_exchange {
                    open.push(bound.destination.clone());
                } else {
                    way.queues.insert(bound.destination.clone());
                }
            }
            open.extend(self.alternate(&name).filter(|_| !matched));
        }
        Some(way)
    }
}

impl Declared {
    /// What belongs to a connection goes with it.
    pub fn is_durable(&self) -> bool {
        self.durable && self.owner.is_none()
    }
}

impl Exchange {
    fn chooses(&self) -> bool {
        matches!(self.inner, ExchangeKind::ConsistentHash | ExchangeKind::Random)
    }

    pub fn takes_key(&self, key: &str) -> bool {
        self.inner != ExchangeKind::ConsistentHash || key.parse::<u64>().is_ok_and(|weight| weight > 0)
    }

    fn hits(&self, bound: &Bound, keys: &[&String], headers: &BTreeMap<String, i64>) -> bool {
        match self.inner {
            ExchangeKind::Direct => keys.contains(&&bound.key),
            ExchangeKind::Topic => keys.iter().any(|key| fits(&words(&bound.key), &words(key))),
            ExchangeKind::Headers => bound.wanted.as_ref().is_none_or(|(how, wanted)| {
                let counts = wanted.iter().filter(|(name, _)| how.ends_with("with-x") || !name.starts_with("x-"));
                let mut agree = counts.map(|(name, value)| match (headers.get(name), value) {
                    (Some(found), Some(value)) => found == value,
                    (found, None) => found.is_some(),
                    (None, Some(_)) => false,
                });
                if how.starts_with("all") { agree.all(|one| one) } else { agree.any(|one| one) }
            }),
            _ => true,
        }
    }
}

fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

fn fits(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => (0..=key.len()).any(|skipped| fits(rest, &key[skipped..])),
        (Some((word, rest)), Some((first, others))) => (*word == "*" || word == first) && fits(rest, others),
        _ => false,
    }
}
