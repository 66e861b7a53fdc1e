//! Random commands against a naive model: a list of everything, and routing by trying every binding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_core::arguments::{QueueArguments, QueueType};
use broker_core::exchange::ExchangeKind;
use broker_core::field_table::{Arguments, FieldTable, TableBuilder, Value};
use broker_core::name::NodeId;
use broker_core::policy::{Policy, PolicyDraft, PolicyValue};
use broker_core::topology::{
    Binding, Destination, ExchangeDeclaration, PREDECLARED_EXCHANGES, QueueDeclaration, Reached, Routable, Topology,
    has_copy_keys,
};
use proto::meta::Command;

use super::{Catalog, catalog};
use crate::catalog::{CatalogEvent, ParameterKey};
use crate::command::{self, VhostUpdate};

const QUEUES: u64 = 10;
const WORDS: [&str; 5] = ["a", "b", "", "*", "#"];

/// Everything, in lists.
#[derive(Default)]
struct Model {
    exchanges: BTreeMap<String, Exchange>,
    queues: BTreeMap<String, Queue>,
    bindings: BTreeSet<Bound>,
    /// By whether they are operator policies, and name.
    policies: BTreeMap<(bool, String), Set>,
    /// By whether they are global, and name.
    parameters: BTreeMap<(bool, String), String>,
    described: Described,
}

/// What is said of the vhost.
#[derive(Clone, Debug, Default, PartialEq)]
struct Described {
    description: String,
    tags: Vec<String>,
    tracing: bool,
    quorum: Option<bool>,
}

/// A policy: which of [`PATTERNS`], what for, how important, and what it sets.
#[derive(Clone, Debug, PartialEq)]
struct Set {
    pattern: usize,
    apply_to: &'static str,
    priority: i64,
    max_length: Option<i64>,
    delivery_limit: Option<i64>,
    lazy: bool,
    alternate: Option<String>,
}

/// A pattern, and what it means.
type Pattern = (&'static str, fn(&str) -> bool);
const PATTERNS: [Pattern; 5] = [
    ("", |_| true),
    ("^q[0-4]$", |name| matches!(name, "q0" | "q1" | "q2" | "q3" | "q4")),
    ("[13579]$", |name| name.ends_with(['1', '3', '5', '7', '9'])),
    ("^x", |name| name.starts_with('x')),
    ("1|direct", |name| name.contains('1') || name.contains("direct")),
];

#[derive(Clone, Debug)]
struct Exchange {
    /// Of one that delays the inner type.
    kind: ExchangeKind,
    durable: bool,
    auto_delete: bool,
    /// The one its declaration names.
    alternate: Option<String>,
}

#[derive(Clone, Debug)]
struct Queue {
    durable: bool,
    /// Its arguments say that, or the vhost did when it was declared.
    quorum: bool,
    max_length: Option<i64>,
}

/// Source, destination, whether that is an exchange, key, headers wanted.
type Bound = (String, String, bool, String, Option<Wanted>);
/// Whether all must match; names and values, none meaning any.
type Wanted = (bool, BTreeMap<String, Option<i64>>);

/// A message: exchange, key, further keys, headers.
struct Sent {
    exchange: String,
    key: String,
    copies: Vec<String>,
    headers: BTreeMap<String, i64>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn words(&mut self, of: &[&str]) -> String {
        (0..self.below(5)).map(|_| self.pick(of)).collect::<Vec<_>>().join(".")
    }

    fn queue(&mut self) -> String {
        format!("q{}", self.below(QUEUES))
    }

    fn exchange(&mut self) -> String {
        self.pick(&["x0", "x1", "x2", "x3", "x4", "x5", "amq.direct", "amq.topic"]).to_owned()
    }
}

impl Model {
    fn new() -> Model {
        let mut model = Model::default();
        for (name, kind, _) in PREDECLARED_EXCHANGES {
            let exchange = Exchange { kind: *kind, durable: true, auto_delete: false, alternate: None };
            model.exchanges.insert((*name).to_owned(), exchange);
        }
        model
    }

    fn unbind_all(&mut self, gone: impl Fn(&Bound) -> bool, cascade: bool) {
        let removed: Vec<Bound> = self.bindings.iter().filter(|bound| gone(bound)).cloned().collect();
        self.bindings.retain(|bound| !gone(bound));
        for source in removed.iter().map(|bound| &bound.0).filter(|_| cascade) {
            let unbound = !self.bindings.iter().any(|bound| bound.0 == *source);
            if unbound && self.exchanges.get(source).is_some_and(|exchange| exchange.auto_delete) {
                self.delete_exchange(source, true);
            }
        }
    }

    fn delete_queue(&mut self, name: &str) {
        if self.queues.remove(name).is_some() {
            self.unbind_all(|bound| !bound.2 && bound.1 == name, true);
        }
    }

    fn delete_exchange(&mut self, name: &str, cascade: bool) {
        if self.exchanges.remove(name).is_some() {
            self.unbind_all(|bound| bound.0 == name, false);
            self.unbind_all(|bound| bound.2 && bound.1 == name, cascade);
        }
    }

    fn end_transient(&mut self) {
        let queues: Vec<String> =
            self.queues.iter().filter(|(_, queue)| !queue.durable).map(|(name, _)| name.clone()).collect();
        for name in queues {
            self.queues.remove(&name);
            self.unbind_all(|bound| !bound.2 && bound.1 == name, false);
        }
        let exchanges: Vec<String> =
            self.exchanges.iter().filter(|(_, exchange)| !exchange.durable).map(|(name, _)| name.clone()).collect();
        for name in exchanges {
            self.delete_exchange(&name, false);
        }
    }

    /// The policy that governs a queue (or, without a type, an exchange).
    fn governing(&self, name: &str, quorum: Option<bool>, operator: bool) -> Option<(&str, &Set)> {
        let fits = |set: &Set| match (set.apply_to, quorum) {
            ("all", _) | ("queues", Some(_)) | ("exchanges", None) => true,
            ("classic_queues", Some(quorum)) => !quorum,
            ("quorum_queues", Some(quorum)) => quorum,
            _ => false,
        };
        let known = |set: &Set| match quorum {
            Some(true) => !set.lazy,
            Some(false) => set.delivery_limit.is_none(),
            None => true,
        };
        let mut found: Vec<(&str, &Set)> = self
            .policies
            .iter()
            .filter(|((kind, _), set)| *kind == operator && fits(set) && known(set) && PATTERNS[set.pattern].1(name))
            .map(|((_, name), set)| (name.as_str(), set))
            .collect();
        found.sort_by_key(|(name, set)| (-set.priority, *name));
        found.first().copied()
    }

    fn alternate(&self, name: &str) -> Option<String> {
        let exchange = &self.exchanges[name];
        let by_policy = || self.governing(name, None, false).and_then(|(_, set)| set.alternate.clone());
        let alternate = exchange.alternate.clone().or_else(by_policy).filter(|_| !name.is_empty());
        alternate.filter(|alternate| !alternate.is_empty())
    }

    /// Names of policy and operator policy, longest length, limit of deliveries, lazy.
    fn settings(&self, name: &str) -> (Option<String>, Option<String>, Option<u64>, Option<u64>, bool) {
        let queue = &self.queues[name];
        let (policy, operator) =
            (self.governing(name, Some(queue.quorum), false), self.governing(name, Some(queue.quorum), true));
        let sets = || [policy, operator].into_iter().flatten().map(|(_, set)| set);
        let length = queue.max_length.into_iter().chain(sets().filter_map(|set| set.max_length)).min();
        let limit = sets().filter_map(|set| set.delivery_limit).min();
        let name = |found: Option<(&str, &Set)>| found.map(|(name, _)| name.to_owned());
        let number = |number: Option<i64>| number.map(|number| number as u64);
        (name(policy), name(operator), number(length), number(limit), sets().any(|set| set.lazy))
    }

    /// The queues a message goes to, or may go to: the second result is whether an exchange on its way takes one of its bindings only.
    fn route(&self, sent: &Sent) -> (BTreeSet<String>, bool) {
        let keys: Vec<&String> = std::iter::once(&sent.key).chain(&sent.copies).collect();
        let mut out = BTreeSet::new();
        let mut open = vec![sent.exchange.clone()];
        let mut seen = BTreeSet::new();
        let mut chooses = false;
        while let Some(name) = open.pop() {
            let Some(exchange) = self.exchanges.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            chooses |= exchange.chooses();
            if name.is_empty() {
                out.extend(keys.iter().filter(|key| self.queues.contains_key(**key)).map(|key| (*key).clone()));
                continue;
            }
            let mut matched = false;
            for (_, destination, to_exchange, key, wanted) in self.bindings.iter().filter(|bound| bound.0 == name) {
                let hit = match exchange.kind {
                    ExchangeKind::Direct => keys.contains(&key),
                    ExchangeKind::Fanout | ExchangeKind::RecentHistory => true,
                    ExchangeKind::ConsistentHash | ExchangeKind::Random => true,
                    ExchangeKind::Delayed => unreachable!("the model keeps the inner type"),
                    ExchangeKind::Topic => keys.iter().any(|sent| matches(&split(key), &split(sent))),
                    ExchangeKind::Headers => wanted.as_ref().is_none_or(|wanted| agrees(wanted, &sent.headers)),
                };
                matched |= hit;
                match (hit, to_exchange) {
                    (true, true) => open.push(destination.clone()),
                    (true, false) => {
                        out.insert(destination.clone());
                    }
                    _ => {}
                }
            }
            open.extend(self.alternate(&name).filter(|_| !matched));
        }
        (out, chooses)
    }
}

impl Exchange {
    fn chooses(&self) -> bool {
        matches!(self.kind, ExchangeKind::ConsistentHash | ExchangeKind::Random)
    }

    fn takes_key(&self, key: &str) -> bool {
        self.kind != ExchangeKind::ConsistentHash || key.parse::<u64>().is_ok_and(|weight| weight > 0)
    }
}

fn split(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        (["#", rest @ ..], _) => (0..=key.len()).any(|skip| matches(rest, &key[skip..])),
        (["*", rest @ ..], [_, key @ ..]) => matches(rest, key),
        ([word, rest @ ..], [first, key @ ..]) => word == first && matches(rest, key),
        _ => false,
    }
}

fn agrees((all, wanted): &Wanted, headers: &BTreeMap<String, i64>) -> bool {
    let agree = |(name, value): (&String, &Option<i64>)| {
        headers.get(name).is_some_and(|header| value.is_none_or(|value| value == *header))
    };
    if *all { wanted.iter().all(agree) } else { wanted.iter().any(agree) }
}

/// Commands applied to both sides.
struct World {
    random: Random,
    catalog: Catalog,
    model: Model,
    index: u64,
    /// Queues that messages went to.
    hits: usize,
}

impl World {
    fn apply(&mut self, command: &Command) -> Vec<CatalogEvent> {
        self.index += 1;
        self.catalog.apply(self.index, command)
    }

    fn change(&mut self) {
        match self.random.below(25) {
            0..4 => self.declare_queue(),
            4 => self.delete_queue(),
            5..8 => self.declare_exchange(),
            8 => self.delete_exchange(),
            9..17 => self.bind(),
            17..19 => self.unbind(),
            19..21 => self.set_policy(),
            21 => self.clear_policy(),
            22 => self.change_parameter(),
            23 => self.update_vhost(),
            _ if self.random.one_in(20) => {
                self.model.end_transient();
                self.apply(&command::node_starts(NodeId(1)));
            }
            _ => self.restore(),
        }
    }

    fn declare_queue(&mut self) {
        let (name, durable) = (self.random.queue(), self.random.one_in(2));
        let quorum = (durable && self.random.one_in(3)).then_some(true);
        let max_length = self.random.one_in(3).then(|| self.random.below(5) as i64);
        let mut arguments = TableBuilder::default();
        if quorum.is_some() {
            arguments.push(b"x-queue-type", Value::LongString(b"quorum"));
        }
        if let Some(max_length) = max_length {
            arguments.push(b"x-max-length", Value::Int64(max_length));
        }
        let declaration = QueueDeclaration {
            name: &name,
            server_named: false,
            durable,
            exclusive: false,
            auto_delete: false,
            arguments: FieldTable::parse(arguments.octets()).unwrap(),
            connection: 0,
        };
        self.apply(&command::declare_queue("/", &declaration, NodeId(1)));
        let quorum = quorum.or(self.model.described.quorum.filter(|_| durable)).unwrap_or(false);
        self.model.queues.entry(name).or_insert(Queue { durable, quorum, max_length });
    }

    /// A policy that may exist: its name is one of a few.
    fn policy_name(&mut self) -> (bool, String) {
        (self.random.one_in(3), format!("p{}", self.random.below(4)))
    }

    fn set_policy(&mut self) {
        let (operator, name) = self.policy_name();
        let mut set = Set {
            pattern: self.random.below(PATTERNS.len() as u64) as usize,
            apply_to: "all",
            priority: self.random.below(4) as i64 - 2,
            max_length: self.random.one_in(2).then(|| self.random.below(5) as i64),
            delivery_limit: self.random.one_in(4).then(|| self.random.below(5) as i64),
            lazy: !operator && self.random.one_in(4),
            alternate: None,
        };
        let purposes = ["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"];
        set.apply_to = purposes[self.random.below(6) as usize];
        if !operator && self.random.one_in(2) {
            set.alternate = Some(self.random.pick(&["x0", "x1", "", "amq.fanout", "none"]).to_owned());
        }
        let Some(policy) = as_policy(operator, &name, &set) else { return };
        let before = self.all_settings();
        let events = self.apply(&command::set_policy(&policy));
        let old = self.model.policies.insert((operator, name.clone()), set.clone());
        if old.as_ref() == Some(&set) {
            assert_eq!(events, [CatalogEvent::Unchanged]);
            return;
        }
        assert_eq!(events[0], CatalogEvent::PolicyChanged { vhost: "/".into(), name, operator });
        self.check_told(&before, &events[1..]);
    }

    fn clear_policy(&mut self) {
        let (operator, name) = self.policy_name();
        let before = self.all_settings();
        let events = self.apply(&command::clear_policy("/", &name, operator));
        if self.model.policies.remove(&(operator, name.clone())).is_some() {
            assert_eq!(events[0], CatalogEvent::PolicyChanged { vhost: "/".into(), name, operator });
            self.check_told(&before, &events[1..]);
        } else {
            assert_eq!(events, [CatalogEvent::Unchanged]);
        }
    }

    fn all_settings(&self) -> BTreeMap<String, QueueArguments> {
        let topology = self.catalog.topology();
        topology.queues().map(|queue| (queue.name.as_str().to_owned(), queue.settings())).collect()
    }

    /// Every queue whose settings are not what they were before is told of, once, as it is now.
    fn check_told(&self, before: &BTreeMap<String, QueueArguments>, events: &[CatalogEvent]) {
        let mut told = BTreeSet::new();
        for event in events {
            let CatalogEvent::QueueSettingsChanged(record) = event else { panic!("{event:?}") };
            assert!(told.insert(record.name.as_str().to_owned()));
            assert_eq!(self.catalog.topology().queue_by_id(record.id), Some(record));
        }
        for (name, settings) in self.all_settings() {
            assert!(told.contains(&name) || before[&name] == settings, "{name} was not told of");
        }
    }

    fn change_parameter(&mut self) {
        let (global, name) = (self.random.one_in(3), format!("r{}", self.random.below(3)));
        let key = ParameterKey {
            vhost: (!global).then(|| "/".into()),
            component: if global { String::new() } else { "federation-upstream".into() },
            name: name.clone(),
        };
        if self.random.one_in(3) {
            let events = self.apply(&command::clear_parameter(&key));
            let cleared = self.model.parameters.remove(&(global, name)).is_some();
            assert_eq!(events[0] == CatalogEvent::ParameterChanged(key), cleared);
        } else {
            let value = format!("{{\"uri\":{}}}", self.random.below(3));
            let events = self.apply(&command::set_parameter(&key, &value));
            let old = self.model.parameters.insert((global, name), value.clone());
            assert_eq!(events[0] == CatalogEvent::ParameterChanged(key), old != Some(value));
        }
    }

    fn update_vhost(&mut self) {
        let before = self.model.described.clone();
        let mut update = VhostUpdate::default();
        let described = &mut self.model.described;
        match self.random.below(4) {
            0 => {
                described.description = self.random.words(&WORDS);
                update.description = Some(described.description.clone());
            }
            1 => {
                described.tags = vec![self.random.words(&WORDS)];
                update.tags = Some(described.tags.clone());
            }
            2 => {
                described.tracing = self.random.one_in(2);
                update.tracing = Some(described.tracing);
            }
            _ => {
                described.quorum = [None, Some(true), Some(false)][self.random.below(3) as usize];
                let as_type = |quorum| if quorum { QueueType::Quorum } else { QueueType::Classic };
                update.default_queue_type = Some(described.quorum.map(as_type));
            }
        }
        let events = self.apply(&command::update_vhost("/", update));
        let changed = before != self.model.described;
        assert_eq!(events == [CatalogEvent::VhostChanged("/".into())], changed);
    }

    fn delete_queue(&mut self) {
        let name = self.random.queue();
        self.model.delete_queue(&name);
        self.apply(&command::delete_queue("/", &name, None));
    }

    fn declare_exchange(&mut self) {
        let name = format!("x{}", self.random.below(6));
        let mut kinds = vec![ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers];
        if self.random.one_in(3) {
            kinds = ExchangeKind::all().collect();
        }
        let kind = kinds[self.random.below(kinds.len() as u64) as usize];
        let inner = kinds[self.random.below(kinds.len() as u64 - 1) as usize];
        let (durable, auto_delete) = (self.random.one_in(2), self.random.one_in(3));
        let alternate =
            self.random.one_in(3).then(|| self.random.pick(&["x0", "x1", "", "amq.fanout", "none"]).to_owned());
        let mut arguments = TableBuilder::default();
        if let Some(alternate) = &alternate {
            arguments.push(b"alternate-exchange", Value::LongString(alternate.as_bytes()));
        }
        if kind == ExchangeKind::Delayed {
            arguments.push(b"x-delayed-type", Value::LongString(inner.name().as_bytes()));
        }
        let declaration = ExchangeDeclaration {
            name: &name,
            kind,
            durable,
            auto_delete,
            internal: false,
            arguments: FieldTable::parse(arguments.octets()).unwrap(),
        };
        self.apply(&command::declare_exchange("/", &declaration));
        let kind = if kind == ExchangeKind::Delayed { inner } else { kind };
        self.model.exchanges.entry(name).or_insert(Exchange { kind, durable, auto_delete, alternate });
    }

    fn delete_exchange(&mut self) {
        let (name, if_unused) = (format!("x{}", self.random.below(6)), self.random.one_in(2));
        self.apply(&command::delete_exchange("/", &name, if_unused));
        if !if_unused || !self.model.bindings.iter().any(|bound| bound.0 == name) {
            self.model.delete_exchange(&name, true);
        }
    }

    /// A binding that may exist or not, as the catalog and as the model write it.
    fn random_binding(&mut self) -> (Binding, Bound) {
        let source = self.random.exchange();
        let to_exchange = self.random.one_in(4);
        let name = if to_exchange { self.random.exchange() } else { self.random.queue() };
        let key = match self.random.below(8) {
            0 | 1 => self.random.queue(),
            2 | 3 => self.random.pick(&["0", "1", "3", "70"]).to_owned(),
            _ => self.random.words(&WORDS),
        };
        let wanted = self.random.one_in(2).then(|| self.random_wanted());
        let destination = if to_exchange {
            Destination::Exchange(name.as_str().into())
        } else {
            Destination::Queue(name.as_str().into())
        };
        let binding = Binding {
            source: source.as_str().into(),
            destination,
            routing_key: Arc::from(key.as_bytes()),
            arguments: wanted.as_ref().map(arguments).unwrap_or_default(),
        };
        (binding, (source, name, to_exchange, key, wanted))
    }

    fn random_wanted(&mut self) -> Wanted {
        let names = (0..self.random.below(3)).map(|_| self.random.pick(&["h0", "h1", "h2"]).to_owned());
        let names: Vec<String> = names.collect();
        let mut value = || (!self.random.one_in(3)).then(|| self.random.below(2) as i64);
        let wanted = names.into_iter().map(|name| (name, value())).collect();
        (self.random.one_in(2), wanted)
    }

    fn bind(&mut self) {
        let (binding, bound) = self.random_binding();
        self.apply(&command::bind("/", &binding));
        let there = if bound.2 {
            self.model.exchanges.contains_key(&bound.1)
        } else {
            self.model.queues.contains_key(&bound.1)
        };
        if there && self.model.exchanges.get(&bound.0).is_some_and(|exchange| exchange.takes_key(&bound.3)) {
            self.model.bindings.insert(bound);
        }
    }

    fn unbind(&mut self) {
        // One that exists, or a random one.
        let count = self.model.bindings.len() as u64;
        let (binding, bound) = if count > 0 && !self.random.one_in(4) {
            let nth = self.random.below(count) as usize;
            let bound = self.model.bindings.iter().nth(nth).cloned().unwrap();
            (as_binding(&bound), bound)
        } else {
            self.random_binding()
        };
        self.apply(&command::unbind("/", &binding));
        self.model.unbind_all(|other| *other == bound, true);
    }

    /// The catalog goes on from its own snapshot.
    fn restore(&mut self) {
        let snapshot = self.catalog.to_snapshot();
        self.catalog = Catalog::from_snapshot(&snapshot).unwrap();
        assert_eq!(self.catalog.to_snapshot(), snapshot);
    }

    fn random_message(&mut self) -> Sent {
        let mut exchange = self.random.exchange();
        if self.random.one_in(8) {
            exchange.clear();
        }
        let key = |random: &mut Random| if random.one_in(4) { random.queue() } else { random.words(&["a", "b", ""]) };
        let copies = if self.random.one_in(5) { (0..2).map(|_| key(&mut self.random)).collect() } else { Vec::new() };
        let key = key(&mut self.random);
        let headers = (0..self.random.below(4))
            .map(|_| (self.random.pick(&["h0", "h1", "h2", "h3"]).to_owned(), self.random.below(2) as i64))
            .collect();
        Sent { exchange, key, copies, headers }
    }

    fn compare_route(&mut self) {
        let sent = self.random_message();
        let topology = self.catalog.topology();
        let header = content_header(&sent);
        assert_eq!(has_copy_keys(&header), Ok(!sent.copies.is_empty()));
        let dice = self.random.0;
        let found = routed(&topology, &sent, &header, dice);
        let expected = self.model.exchanges.contains_key(&sent.exchange).then(|| self.model.route(&sent));
        assert_eq!(found.is_some(), expected.is_some());
        let (Some(found), Some((expected, chooses))) = (found, expected) else { return };
        if chooses {
            assert!(found.is_subset(&expected), "{found:?} is not all in {expected:?}");
        } else {
            assert_eq!(found, expected, "to {:?} with {:?} and {:?}", sent.exchange, sent.key, sent.copies);
        }
        self.hits += found.len();
        // Routes that depend on more than the key say so.
        if topology.vhost("/").unwrap().routes_by_key(&sent.exchange) {
            let plain = Sent { headers: BTreeMap::new(), ..sent };
            assert_eq!(routed(&topology, &plain, &content_header(&plain), !dice), Some(found));
        }
    }

    fn compare_all(&self) {
        let topology = self.catalog.topology();
        let vhost = topology.vhost("/").unwrap();
        let exchanges: BTreeSet<&str> = vhost.exchanges().map(|exchange| exchange.name.as_str()).collect();
        assert!(exchanges.iter().copied().eq(self.model.exchanges.keys().map(String::as_str)));
        let queues: BTreeSet<&str> = vhost.queues().map(|queue| queue.name.as_str()).collect();
        assert!(queues.iter().copied().eq(self.model.queues.keys().map(String::as_str)));
        assert_eq!(topology.queue_count(), queues.len());
        for queue in vhost.queues() {
            let name = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|policy| policy.name().to_owned());
            let settings = queue.settings();
            let (policy, operator) = (name(&queue.policies.policy), name(&queue.policies.operator));
            let found = (policy, operator, settings.max_length, settings.delivery_limit, settings.lazy);
            assert_eq!(found, self.model.settings(&queue.name), "{}", queue.name);
            let quorum = settings.queue_type == QueueType::Quorum;
            assert_eq!(quorum, self.model.queues[queue.name.as_str()].quorum);
        }
        for exchange in vhost.exchanges() {
            assert_eq!(exchange.alternate_exchange(), self.model.alternate(&exchange.name).as_deref());
        }
        let policies: BTreeSet<(bool, &str)> =
            vhost.policies().iter().map(|policy| (policy.operator(), policy.name())).collect();
        assert!(policies.into_iter().eq(self.model.policies.keys().map(|(kind, name)| (*kind, name.as_str()))));
        let parameters = self.catalog.parameters();
        let found: BTreeMap<(bool, &str), &str> =
            parameters.iter().map(|(key, value)| ((key.vhost.is_none(), key.name.as_str()), value)).collect();
        let expected =
            self.model.parameters.iter().map(|((kind, name), value)| ((*kind, name.as_str()), value.as_str()));
        assert_eq!(found, expected.collect());
        let record = vhost.record();
        let described = Described {
            description: record.description.clone(),
            tags: record.tags.clone(),
            tracing: record.tracing,
            quorum: record.default_queue_type.map(|queue_type| queue_type == QueueType::Quorum),
        };
        assert_eq!(described, self.model.described);
        let bindings: BTreeSet<&Binding> = vhost.bindings().map(|binding| &**binding).collect();
        let expected: Vec<Binding> = self.model.bindings.iter().map(as_binding).collect();
        assert_eq!(bindings, expected.iter().collect());
        for queue in self.model.queues.keys() {
            let destination = Destination::Queue(queue.as_str().into());
            let to: BTreeSet<&Binding> = vhost.bindings_to(&destination).map(|binding| &**binding).collect();
            assert_eq!(to, expected.iter().filter(|binding| binding.destination == destination).collect());
        }
    }
}

/// None if the policy would say nothing.
fn as_policy(operator: bool, name: &str, set: &Set) -> Option<Policy> {
    let number = |key: &str, value: Option<i64>| value.map(|value| (key.to_owned(), PolicyValue::Number(value)));
    let text = |key: &str, value: &str| (key.to_owned(), PolicyValue::Text(value.to_owned()));
    let definition: Vec<(String, PolicyValue)> = [
        number("max-length", set.max_length),
        number("delivery-limit", set.delivery_limit),
        set.lazy.then(|| text("queue-mode", "lazy")),
        set.alternate.as_ref().map(|alternate| text("alternate-exchange", alternate)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let draft = PolicyDraft {
        vhost: "/".into(),
        name: name.into(),
        operator,
        pattern: PATTERNS[set.pattern].0.into(),
        apply_to: set.apply_to.into(),
        priority: set.priority,
        definition,
    };
    (!draft.definition.is_empty()).then(|| Policy::new(draft).unwrap())
}

fn routed(topology: &Topology, sent: &Sent, header: &[u8], dice: u64) -> Option<BTreeSet<String>> {
    let mut reached = Reached::default();
    let message = Routable { routing_key: sent.key.as_bytes(), header, dice, may_wait: true };
    topology.route("/", &sent.exchange, &message, &mut reached).ok()?;
    let out = reached.queues;
    let names: BTreeSet<String> =
        out.iter().map(|id| topology.queue_by_id(*id).unwrap().name.as_str().to_owned()).collect();
    assert_eq!(names.len(), out.len(), "a queue comes twice");
    Some(names)
}

fn as_binding((source, name, to_exchange, key, wanted): &Bound) -> Binding {
    Binding {
        source: source.as_str().into(),
        destination: if *to_exchange {
            Destination::Exchange(name.as_str().into())
        } else {
            Destination::Queue(name.as_str().into())
        },
        routing_key: Arc::from(key.as_bytes()),
        arguments: wanted.as_ref().map(arguments).unwrap_or_default(),
    }
}

/// Arguments of a binding, written in an order of their own.
fn arguments((all, wanted): &Wanted) -> Arguments {
    let mut builder = TableBuilder::default();
    builder.push(b"x-match", Value::LongString(if *all { b"all" } else { b"any" }));
    for (name, value) in wanted.iter().rev() {
        builder.push(name.as_bytes(), value.map_or(Value::Void, Value::Int64));
    }
    Arguments::sorted(FieldTable::parse(builder.octets()).unwrap())
}

/// A content header with a content type before the headers, so that they must be found.
fn content_header(sent: &Sent) -> Vec<u8> {
    let mut table = TableBuilder::default();
    for (name, value) in sent.headers.iter().rev() {
        table.push(name.as_bytes(), Value::Int32(*value as i32));
    }
    for (name, keys) in ["CC", "BCC"].iter().zip(sent.copies.chunks(1)) {
        let mut array = Vec::new();
        for key in keys {
            array.push(b'S');
            array.extend_from_slice(&(key.len() as u32).to_be_bytes());
            array.extend_from_slice(key.as_bytes());
        }
        let mut field = vec![1, b'k', b'A'];
        field.extend_from_slice(&(array.len() as u32).to_be_bytes());
        field.extend_from_slice(&array);
        table.push(name.as_bytes(), FieldTable::parse(&field).unwrap().lookup(b"k").unwrap());
    }
    let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xA0, 0, 4];
    header.extend_from_slice(b"text");
    header.extend_from_slice(&(table.octets().len() as u32).to_be_bytes());
    header.extend_from_slice(table.octets());
    header
}

#[test]
fn the_catalog_is_what_a_naive_model_says() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(30);
    for seed in 0..seeds {
        let mut world = World { random: Random(seed), catalog: catalog(), model: Model::new(), index: 1, hits: 0 };
        for step in 0..1_000 {
            world.change();
            for _ in 0..3 {
                world.compare_route();
            }
            if step % 50 == 0 {
                world.compare_all();
            }
        }
        assert!(world.hits > 300, "seed {seed}: only {} hits", world.hits);
    }
}
