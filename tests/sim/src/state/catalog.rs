//! Commands to the catalog and questions about rights, on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_core::access::{Operation, User};
use broker_core::exchange::{ExchangeKind, Histories};
use broker_core::field_table::{Arguments, FieldTable, TableBuilder, Value};
use broker_core::name::{NodeId, QueueId};
use broker_core::policy::{Policy, PolicyDraft, PolicyValue};
use broker_core::queue::{Input, Rules};
use broker_core::topology::{Binding, Destination, ExchangeDeclaration, QueueDeclaration, Vhost as KnownVhost};
use broker_meta::catalog::{Catalog, CatalogEvent};
use broker_meta::command::{self, Command};

use super::model::{Bound, Declared, Exchange, OWN_NAME, PATTERNS, Queue, Set, Vhost, Wishes};
use super::queue_model::QueueModel;
use super::world::{PAGING, World, exchange_name, headers, queue_name, same, words};
use crate::random::Random;

const NODE: NodeId = NodeId(1);
const OVERFLOWS: [&str; 3] = ["drop-head", "reject-publish", "reject-publish-dlx"];

impl World {
    pub fn change(&mut self) -> Result<(), String> {
        self.tally.changes += 1;
        if self.model.vhosts.is_empty() {
            return self.change_vhosts();
        }
        self.tidy_up()?;
        match self.random.below(42) {
            0..9 => self.declare_queue(),
            9 => self.delete_queue(),
            10..15 => self.declare_exchange(),
            15..17 => self.delete_exchange(),
            17..25 => self.bind(),
            25..27 => self.unbind(),
            27..31 => self.set_policy(),
            31..33 => self.clear_policy(),
            33..35 => self.change_permissions(),
            35 => self.change_topic_permissions(),
            36 => self.change_users(),
            37 => self.change_vhosts(),
            38 => self.end_connection(),
            39 => self.change_limits(),
            40 if self.random.one_in(8) => self.restart(),
            _ => self.restore(),
        }?;
        if self.random.one_in(64) { self.compare_catalog() } else { Ok(()) }
    }

    fn apply(&mut self, command: &Command) -> Vec<CatalogEvent> {
        self.index += 1;
        let events = self.catalog.apply(self.index, command);
        self.tell(|| match &events[..] {
            [CatalogEvent::Refused(refusal)] => format!("    refused: {refusal}"),
            events => format!("    {} events", events.iter().filter(|event| event.is_change()).count()),
        });
        events
    }

    /// Carries out what follows for queues and exchanges, once the model has done its part.
    fn carry_out(&mut self, events: &[CatalogEvent]) -> Result<(), String> {
        for event in events {
            match event {
                CatalogEvent::QueueDeleted(record) => self.drop_queue(record.id.0)?,
                CatalogEvent::VhostDeleted { vhost, queues } => {
                    queues.iter().try_for_each(|record| self.drop_queue(record.id.0))?;
                    self.drop_holders(|holder| holder.vhost == vhost.as_str())?;
                    self.histories.forget_vhost(vhost);
                }
                CatalogEvent::ExchangeDeclared { record, existed: false } => self.create_holder(record),
                CatalogEvent::ExchangeDeleted(record) => {
                    self.drop_holders(|holder| {
                        holder.vhost == record.vhost.as_str() && holder.name == record.name.as_str()
                    })?;
                    self.histories.forget(&record.vhost, &record.name);
                }
                _ => {}
            }
        }
        let there = self.holders.values().map(|holder| (holder.vhost.clone(), holder.name.clone()));
        let expected = self.model.vhosts.iter().flat_map(|(vhost, model)| {
            let delaying = model.exchanges.iter().filter(|(_, exchange)| exchange.kind == ExchangeKind::Delayed);
            delaying.map(|(name, _)| (vhost.clone(), name.clone()))
        });
        same("exchanges that hold messages back", there.collect::<BTreeSet<_>>(), expected.collect())?;
        let there: BTreeSet<u64> = self.local.keys().copied().collect();
        let expected = self.model.vhosts.values().flat_map(|vhost| vhost.queues.values()).map(|queue| queue.id);
        same("queues", there, expected.collect())
    }

    fn drop_queue(&mut self, id: u64) -> Result<(), String> {
        let now_ms = self.now_ms;
        let seen = self.subject(id)?.step(now_ms, Input::Delete)?;
        self.local.remove(&id);
        self.unused.retain(|unused| *unused != id);
        self.answered(seen.confirmed.into_iter().chain(seen.refused))
    }

    fn declare_queue(&mut self) -> Result<(), String> {
        let (vhost, name) = (self.pick_vhost(), queue_name(&mut self.random));
        let there = self.model.vhosts.get(&vhost).and_then(|vhost| vhost.queues.get(&name));
        // Now and then as it was declared before.
        let again = there.map(|queue| queue.declared.clone()).filter(|_| self.random.one_in(2));
        let declared = again.unwrap_or_else(|| declaration(&mut self.random, &name));
        let arguments = queue_arguments(&declared);
        self.tell(|| format!("declare queue {name} in {vhost}: {declared:?}"));
        let declaration = QueueDeclaration {
            name: &name,
            server_named: false,
            durable: declared.durable,
            exclusive: declared.owner.is_some(),
            auto_delete: declared.auto_delete,
            arguments: table(&arguments)?,
            connection: declared.owner.unwrap_or_default(),
        };
        let events = self.apply(&command::declare_queue(&vhost, &declaration, NODE));
        let (id, now_ms) = (self.index, self.now_ms);
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
        if let Some(queue) = model.queues.get(&name) {
            if queue.declared != declared {
                return refused(&events);
            }
            let id = queue.id;
            same("declared again", matches!(events[..], [CatalogEvent::QueueDeclared { existed: true, .. }]), true)?;
            return self.step(id, Input::Used, |state, now_ms, _| state.used(now_ms));
        }
        if model.limits[1].is_some_and(|max| model.queues.len() as u64 >= max) {
            return refused(&events);
        }
        let [CatalogEvent::QueueDeclared { record, existed: false }] = &events[..] else {
            return Err(format!("declaring {name} as {declared:?}: {events:?}"));
        };
        let expected = model.rules(&name, &declared);
        let rules = Rules::of(&record.settings());
        same("rules", &rules, &expected)?;
        let state = QueueModel::new(declared.is_durable(), expected, now_ms);
        model.queues.insert(name.clone(), Queue { id, declared, state });
        self.create_queue(id, &vhost, &name, record.durable, rules)?;
        self.carry_out(&events)
    }

    fn delete_queue(&mut self) -> Result<(), String> {
        let (vhost, name) = (self.pick_vhost(), queue_name(&mut self.random));
        self.tell(|| format!("delete queue {name} of {vhost}"));
        let events = self.apply(&command::delete_queue(&vhost, &name, None));
        self.model.vhosts.get_mut(&vhost).into_iter().for_each(|vhost| vhost.delete_queue(&name));
        self.carry_out(&events)
    }

    pub fn delete_by_id(&mut self, id: u64) -> Result<(), String> {
        let Some(local) = self.local.get(&id) else { return Ok(()) };
        let (vhost, name) = (local.vhost.clone(), local.name.clone());
        self.tell(|| format!("delete queue {name} of {vhost}, which is not used any more"));
        let events = self.apply(&command::delete_queue(&vhost, &name, Some(QueueId(id))));
        self.model.vhosts.get_mut(&vhost).into_iter().for_each(|vhost| vhost.delete_queue(&name));
        self.carry_out(&events)
    }

    /// What a connection declared for itself goes with it.
    fn end_connection(&mut self) -> Result<(), String> {
        let connection = Some(self.random.below(3) + 1);
        self.tell(|| format!("end of connection {connection:?}"));
        let mut ids = Vec::new();
        for vhost in self.model.vhosts.values_mut() {
            let owned = vhost.queues.iter().filter(|(_, queue)| queue.declared.owner == connection);
            let owned: Vec<(String, u64)> = owned.map(|(name, queue)| (name.clone(), queue.id)).collect();
            for (name, id) in owned {
                vhost.delete_queue(&name);
                ids.push(QueueId(id));
            }
        }
        let events = self.apply(&command::delete_queues(ids));
        self.carry_out(&events)
    }

    fn declare_exchange(&mut self) -> Result<(), String> {
        let (vhost, name) = (self.pick_vhost(), format!("x{}", self.random.below(6)));
        let random = &mut self.random;
        let kinds: Vec<ExchangeKind> = ExchangeKind::all().collect();
        let kind = random.pick(&kinds).copied().unwrap_or(ExchangeKind::Topic);
        let others: Vec<ExchangeKind> = kinds.into_iter().filter(|kind| *kind != ExchangeKind::Delayed).collect();
        let inner = random.pick(&others).copied().unwrap_or(kind);
        let inner = if kind == ExchangeKind::Delayed { inner } else { kind };
        let (durable, auto_delete, internal) = (random.one_in(2), random.one_in(3), random.one_in(8));
        let alternate = random.one_in(3).then(|| exchange_name(random));
        let hashes = (inner == ExchangeKind::ConsistentHash && random.one_in(2)).then(|| "h0".to_owned());
        let keeps = (inner == ExchangeKind::RecentHistory && random.one_in(2)).then(|| 1 + random.below(4));
        let declared = Exchange { kind, inner, durable, auto_delete, internal, alternate, hashes, keeps };
        self.tell(|| format!("declare exchange {name} in {vhost}: {declared:?}"));
        let mut arguments = TableBuilder::default();
        if let Some(alternate) = &declared.alternate {
            arguments.push(b"alternate-exchange", Value::LongString(alternate.as_bytes()));
        }
        if kind == ExchangeKind::Delayed {
            arguments.push(b"x-delayed-type", Value::LongString(inner.name().as_bytes()));
        }
        if let Some(header) = &declared.hashes {
            arguments.push(b"hash-header", Value::LongString(header.as_bytes()));
        }
        if let Some(messages) = declared.keeps {
            arguments.push(b"x-recent-history-length", Value::Int64(messages as i64));
        }
        let arguments = table(&arguments)?;
        let declaration = ExchangeDeclaration { name: &name, kind, durable, auto_delete, internal, arguments };
        let events = self.apply(&command::declare_exchange(&vhost, &declaration));
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
        if let Some(there) = model.exchanges.get(&name) {
            // What an exchange does by its type is not compared.
            let Exchange { inner, hashes, keeps, .. } = there.clone();
            let equal = Exchange { inner, hashes, keeps, ..declared } == *there;
            let found = matches!(events[..], [CatalogEvent::ExchangeDeclared { existed: true, .. }]);
            return same("an equal exchange is there", found, equal);
        }
        let created = matches!(events[..], [CatalogEvent::ExchangeDeclared { existed: false, .. }]);
        same(&format!("exchange {name} created, {events:?}"), created, true)?;
        model.exchanges.insert(name, declared);
        self.carry_out(&events)
    }

    fn delete_exchange(&mut self) -> Result<(), String> {
        let (vhost, name) = (self.pick_vhost(), format!("x{}", self.random.below(6)));
        let if_unused = self.random.one_in(2);
        self.tell(|| format!("delete exchange {name} of {vhost}, if unused: {if_unused}"));
        let events = self.apply(&command::delete_exchange(&vhost, &name, if_unused));
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
        if if_unused && model.bindings.iter().any(|bound| bound.source == name) {
            return refused(&events);
        }
        let existed = model.exchanges.contains_key(&name);
        model.delete_exchange(&name);
        same("an exchange was deleted", events.iter().any(CatalogEvent::is_change), existed)?;
        self.carry_out(&events)
    }

    fn random_binding(&mut self) -> Bound {
        let random = &mut self.random;
        let to_exchange = random.one_in(4);
        Bound {
            source: exchange_name(random),
            to_exchange,
            destination: if to_exchange { exchange_name(random) } else { queue_name(random) },
            key: match random.below(4) {
                0 => queue_name(random),
                1 => random.pick(&["0", "1", "3"]).copied().unwrap_or_default().to_owned(),
                _ => words(random, &["a", "b", "", "*", "#"]),
            },
            wanted: random.one_in(2).then(|| {
                let how = random.pick(&["all", "any", "all-with-x", "any-with-x"]).copied().unwrap_or("all");
                let any_value = random.one_in(4);
                (how, headers(random).into_iter().map(|(name, value)| (name, (!any_value).then_some(value))).collect())
            }),
        }
    }

    fn bind(&mut self) -> Result<(), String> {
        let (vhost, bound) = (self.pick_vhost(), self.random_binding());
        self.tell(|| format!("bind in {vhost}: {bound:?}"));
        let events = self.apply(&command::bind(&vhost, &as_binding(&bound)?));
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
        let there = if bound.to_exchange {
            model.exchanges.contains_key(&bound.destination)
        } else {
            model.queues.contains_key(&bound.destination)
        };
        if !there || !model.exchanges.get(&bound.source).is_some_and(|exchange| exchange.takes_key(&bound.key)) {
            return refused(&events);
        }
        let new = model.bindings.insert(bound.clone());
        same(&format!("a new binding, {events:?}"), events.iter().any(CatalogEvent::is_change), new)?;
        if new && !bound.to_exchange { self.recall(&vhost, &bound) } else { Ok(()) }
    }

    fn unbind(&mut self) -> Result<(), String> {
        let (vhost, mut bound) = (self.pick_vhost(), self.random_binding());
        if let Some(model) = self.model.vhosts.get(&vhost)
            && !self.random.one_in(4)
        {
            let nth = self.random.below(model.bindings.len() as u64) as usize;
            bound = model.bindings.iter().nth(nth).cloned().unwrap_or(bound);
        }
        self.tell(|| format!("unbind in {vhost}: {bound:?}"));
        let events = self.apply(&command::unbind(&vhost, &as_binding(&bound)?));
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
        let existed = model.bindings.contains(&bound);
        model.unbind(|other| *other == bound, true);
        same("a binding is gone", events.iter().any(CatalogEvent::is_change), existed)?;
        self.carry_out(&events)
    }

    fn set_policy(&mut self) -> Result<(), String> {
        let vhost = self.pick_vhost();
        let random = &mut self.random;
        let (operator, name) = (random.one_in(3), format!("p{}", random.below(4)));
        let pattern = random.below(PATTERNS.len() as u64) as usize;
        let mut wishes = wishes(random, random_quorum_limit);
        let pages = PAGING.iter().any(|queue| PATTERNS[pattern].1(queue));
        if operator || pages {
            (wishes.dead_to, wishes.dead_key) = (None, None);
        }
        wishes.overflow = wishes.overflow.filter(|name| !operator && *name != OVERFLOWS[2]);
        let purposes = ["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"];
        let set = Set {
            pattern,
            apply_to: random.pick(&purposes).copied().unwrap_or("all"),
            priority: random.below(4) as i64 - 2,
            wishes,
            alternate: (!operator && random.one_in(3)).then(|| exchange_name(random)),
        };
        let Some(policy) = as_policy(&vhost, operator, &name, &set)? else { return Ok(()) };
        self.tell(|| format!("set policy {name} of {vhost}, by the operator: {operator}: {set:?}"));
        let events = self.apply(&command::set_policy(&policy));
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
        model.policies.insert((operator, name), set);
        self.govern(&vhost, &events)
    }

    fn clear_policy(&mut self) -> Result<(), String> {
        let vhost = self.pick_vhost();
        let (operator, name) = (self.random.one_in(3), format!("p{}", self.random.below(4)));
        self.tell(|| format!("clear policy {name} of {vhost}, by the operator: {operator}"));
        let events = self.apply(&command::clear_policy(&vhost, &name, operator));
        let Some(model) = self.model.vhosts.get_mut(&vhost) else { return Ok(()) };
        let existed = model.policies.remove(&(operator, name)).is_some();
        same("a policy is gone", events.iter().any(CatalogEvent::is_change), existed)?;
        self.govern(&vhost, &events)
    }

    /// Queues that are told of get their new rules; those that are not must have the same as before.
    fn govern(&mut self, vhost: &str, events: &[CatalogEvent]) -> Result<(), String> {
        let told: BTreeMap<u64, Rules> = events
            .iter()
            .filter_map(|event| match event {
                CatalogEvent::QueueSettingsChanged(record) => Some((record.id.0, Rules::of(&record.settings()))),
                _ => None,
            })
            .collect();
        let Some(model) = self.model.vhosts.get(vhost) else { return Ok(()) };
        let expected: Vec<(u64, Rules)> =
            model.queues.iter().map(|(name, queue)| (queue.id, model.rules(name, &queue.declared))).collect();
        for (id, expected) in expected {
            match told.get(&id) {
                Some(rules) => {
                    same("rules by policy", rules, &expected)?;
                    let input = Input::Rules(Arc::new(rules.clone()));
                    self.step(id, input, |state, now_ms, said| state.change(now_ms, expected, said))?;
                }
                None => same("rules of a queue that was not told", &self.state(id)?.rules, &expected)?,
            }
        }
        Ok(())
    }

    fn random_user(&mut self) -> String {
        format!("u{}", self.random.below(3))
    }

    fn random_pattern(&mut self) -> usize {
        self.random.below(PATTERNS.len() as u64) as usize
    }

    fn random_limit(&mut self) -> Option<u64> {
        self.random.one_in(2).then(|| self.random.below(10))
    }

    fn change_users(&mut self) -> Result<(), String> {
        let name = self.random_user();
        if self.random.one_in(3) {
            self.tell(|| format!("delete user {name}"));
            let events = self.apply(&command::delete_user(&name));
            let existed = self.model.users.contains_key(&name);
            self.model.delete_user(&name);
            return same("a user is gone", events.iter().any(CatalogEvent::is_change), existed);
        }
        let tags = if self.random.one_in(2) { vec!["impersonator".to_owned()] } else { Vec::new() };
        self.tell(|| format!("put user {name}"));
        let user = User { name: name.as_str().into(), password: None, tags: tags.clone() };
        self.apply(&command::put_user(&user));
        self.model.users.insert(name, tags);
        Ok(())
    }

    fn change_permissions(&mut self) -> Result<(), String> {
        let (user, vhost) = (self.random_user(), self.pick_vhost());
        if self.random.one_in(4) {
            self.tell(|| format!("clear permissions of {user} in {vhost}"));
            self.apply(&command::clear_permissions(&user, &vhost));
            self.model.permissions.remove(&(user, vhost));
            return Ok(());
        }
        let given = [self.random_pattern(), self.random_pattern(), self.random_pattern()];
        let [configure, write, read] = given.map(|pattern| PATTERNS[pattern].0);
        self.tell(|| format!("permissions of {user} in {vhost}: {configure} {write} {read}"));
        let events = self.apply(&command::set_permissions(&user, &vhost, configure, write, read));
        if !self.model.users.contains_key(&user) || !self.model.vhosts.contains_key(&vhost) {
            return refused(&events);
        }
        self.model.permissions.insert((user, vhost), given);
        Ok(())
    }

    fn change_topic_permissions(&mut self) -> Result<(), String> {
        let (user, vhost, exchange) = (self.random_user(), self.pick_vhost(), exchange_name(&mut self.random));
        if self.random.one_in(4) {
            let all = self.random.one_in(4);
            self.tell(|| format!("clear topic permissions of {user} in {vhost} on {exchange}, or all: {all}"));
            self.apply(&command::clear_topic_permissions(&user, &vhost, Some(exchange.as_str()).filter(|_| !all)));
            self.model
                .topics
                .retain(|(held_by, of, on), _| *held_by != user || *of != vhost || !(all || *on == exchange));
            return Ok(());
        }
        let given = [0; 2].map(|_| self.random.below(PATTERNS.len() as u64 + 1) as usize);
        let [write, read] = given.map(topic_pattern);
        self.tell(|| format!("topic permissions of {user} in {vhost} on {exchange}: {write} {read}"));
        let events = self.apply(&command::set_topic_permissions(&user, &vhost, &exchange, write, read));
        if !self.model.users.contains_key(&user) || !self.model.vhosts.contains_key(&vhost) {
            return refused(&events);
        }
        self.model.topics.insert((user, vhost, exchange), given);
        Ok(())
    }

    fn change_limits(&mut self) -> Result<(), String> {
        let limits = [self.random_limit(), self.random_limit()];
        let [one, other] = limits.map(|limit| limit.and_then(|limit| i64::try_from(limit).ok()));
        if self.random.one_in(2) {
            let vhost = self.pick_vhost();
            self.tell(|| format!("limits of {vhost}: {limits:?}"));
            let events = self.apply(&command::set_vhost_limits(&vhost, one, other));
            let Some(model) = self.model.vhosts.get_mut(&vhost) else { return refused(&events) };
            model.limits = limits;
            return Ok(());
        }
        let user = self.random_user();
        self.tell(|| format!("limits of {user}: {limits:?}"));
        let events = self.apply(&command::set_user_limits(&user, one, other));
        if !self.model.users.contains_key(&user) {
            return refused(&events);
        }
        self.model.user_limits.insert(user, limits);
        Ok(())
    }

    fn change_vhosts(&mut self) -> Result<(), String> {
        let name = self.pick_vhost();
        if self.random.one_in(24) {
            return self.delete_vhost(&name);
        }
        self.tell(|| format!("create vhost {name}"));
        self.apply(&command::create_vhost(&name, "", &[]));
        self.model.vhosts.entry(name).or_insert_with(Vhost::new);
        Ok(())
    }

    fn delete_vhost(&mut self, name: &str) -> Result<(), String> {
        self.tell(|| format!("delete vhost {name}"));
        let events = self.apply(&command::delete_vhost(name));
        self.model.delete_vhost(name);
        self.carry_out(&events)
    }

    /// The node starts again. (What is durable goes on as it was: bringing queues back is the store's business.)
    fn restart(&mut self) -> Result<(), String> {
        self.tell(|| "restart".into());
        let events = self.apply(&command::node_starts(NODE));
        self.model.vhosts.values_mut().for_each(Vhost::restart);
        self.carry_out(&events)?;
        self.compare_catalog()
    }

    /// The catalog goes on from its own snapshot.
    fn restore(&mut self) -> Result<(), String> {
        self.tell(|| "restore the catalog from its snapshot".into());
        let snapshot = self.catalog.to_snapshot();
        let restored = Catalog::from_snapshot(&snapshot).map_err(|bad| format!("a snapshot is refused: {bad}"))?;
        same("the snapshot is the same again", restored.to_snapshot() == snapshot, true)?;
        self.catalog = restored;
        Ok(())
    }

    /// Everything goes that is left, and nothing is left of it.
    pub fn leave_nothing(&mut self) -> Result<(), String> {
        for name in self.model.vhosts.keys().cloned().collect::<Vec<_>>() {
            self.delete_vhost(&name)?;
        }
        for name in self.model.users.keys().cloned().collect::<Vec<_>>() {
            self.tell(|| format!("delete user {name}"));
            self.apply(&command::delete_user(&name));
            self.model.delete_user(&name);
        }
        self.compare_catalog()?;
        let mut left = self.catalog.to_snapshot();
        left.index = 0;
        same("left behind in the catalog", left, Catalog::default().to_snapshot())?;
        let (queues, histories) = (self.catalog.topology().queue_count(), format!("{:?}", self.histories));
        same("queues left behind", queues, 0)?;
        same("kept by exchanges that are gone", histories, format!("{:?}", Histories::default()))
    }

    pub fn ask_for_rights(&mut self) -> Result<(), String> {
        let (user, vhost) = (self.random_user(), self.pick_vhost());
        let (topology, access) = (self.catalog.topology(), self.catalog.access());
        let Some(known) = topology.vhost(&vhost) else { return Ok(()) };
        let (queue, exchange) = (queue_name(&mut self.random), exchange_name(&mut self.random));
        let other = exchange_name(&mut self.random);
        let key = if self.random.one_in(4) { self.random_user() } else { words(&mut self.random, &["a", "b", "x"]) };
        let model = &self.model;
        let on_exchange = |right, name: &str| model.allows(&user, &vhost, right, name);
        let on_queue = |right| model.allows_queue(&user, &vhost, right, &queue);
        let on_topic = |right| model.allows_topic(&user, &vhost, right, &exchange, &key);
        let to_queue = Destination::Queue(queue.as_str().into());
        let to_exchange = Destination::Exchange(other.as_str().into());
        let (exchange, other, queue, key) = (exchange.as_str(), other.as_str(), queue.as_str(), key.as_bytes());
        let (configure, write, read) = (0, 1, 2);
        let (operation, expected) = match self.random.below(16) {
            0 => (Operation::Open, model.permissions.contains_key(&(user.clone(), vhost.clone()))),
            1 => (Operation::DeclareExchange { exchange }, on_exchange(configure, exchange)),
            2 => {
                let operation = Operation::SetAlternateExchange { exchange, alternate: other };
                (operation, on_exchange(read, exchange) && on_exchange(write, other))
            }
            3 => (Operation::DeleteExchange { exchange }, on_exchange(configure, exchange)),
            4 => {
                let allowed = on_queue(write) && (exchange.is_empty() || on_exchange(read, exchange) && on_topic(read));
                (Operation::Bind { source: exchange, destination: &to_queue, key }, allowed)
            }
            5 => {
                let asked = !exchange.is_empty() && !other.is_empty();
                let allowed = on_exchange(write, other) && (!asked || on_exchange(read, exchange) && on_topic(read));
                (Operation::Bind { source: exchange, destination: &to_exchange, key }, allowed)
            }
            6 => (Operation::DeclareQueue { queue }, on_queue(configure)),
            7 => (Operation::DeleteQueue { queue }, on_queue(configure)),
            8 => {
                let operation = Operation::SetDeadLetterExchange { queue, exchange: other };
                (operation, on_queue(read) && on_exchange(write, other))
            }
            9 => (Operation::Purge { queue }, on_queue(read)),
            10 => (Operation::Get { queue }, on_queue(read)),
            11 => (Operation::Consume { queue }, on_queue(read)),
            12 => (Operation::SeeQueue, true),
            13 => (Operation::SeeExchange, true),
            _ => (Operation::Publish { exchange, key }, on_exchange(write, exchange) && on_topic(write)),
        };
        let found = access.authorize(&user.as_str().into(), known, &operation);
        let what = || format!("{user} may {operation:?} in {vhost}, {found:?}");
        same(&what(), found.is_ok(), expected)?;
        self.tally.denied += u64::from(!expected);
        self.note(u64::from(expected));
        self.ask_for_more(&user, known, queue, exchange)
    }

    /// What is refused whatever rights a user has: too many connections, other connections' queues, and exchanges that are internal.
    fn ask_for_more(&mut self, user: &str, known: &KnownVhost, queue: &str, exchange: &str) -> Result<(), String> {
        let (connection, of_vhost, of_user) = (self.random.below(4), self.random.below(10), self.random.below(10));
        let access = self.catalog.access();
        let Some(model) = self.model.vhosts.get(known.name().as_str()) else { return Err("no such vhost".into()) };
        let below = |limit: Option<u64>, count| limit.is_none_or(|limit| count < limit);
        let of_model = self.model.user_limits.get(user).copied().unwrap_or_default();
        let may = access.may_connect(&user.into(), known.name(), of_vhost as usize, of_user as usize).is_ok();
        same("may connect", may, below(model.limits[0], of_vhost) && below(of_model[0], of_user))?;
        let more = access.may_add_queue(known, queue, 0).is_ok();
        same("may declare one more queue", more, below(model.limits[1], model.queues.len() as u64))?;
        same("channels of a user", access.user_limits(user).channels, of_model[1])?;
        let usable = known.usable_queue(queue, connection).is_ok();
        let found = model.queues.get(queue);
        let own = found.is_some_and(|found| found.declared.owner.is_none_or(|owner| owner == connection));
        same("a queue is usable", usable, own)?;
        let open = model.exchanges.get(exchange).is_some_and(|exchange| !exchange.internal);
        same("an exchange takes publishes", known.publishable_exchange(exchange).is_ok(), open)?;
        let impersonates = self.model.users.get(user).is_some_and(|tags| !tags.is_empty());
        same("publishes in another's name", access.is_impersonator(user), impersonates)
    }

    pub fn compare_catalog(&mut self) -> Result<(), String> {
        let topology = self.catalog.topology();
        let names: Vec<&str> = topology.vhosts().map(|vhost| vhost.name().as_str()).collect();
        same("vhosts", names, self.model.vhosts.keys().map(String::as_str).collect())?;
        for (name, model) in &self.model.vhosts {
            let vhost = topology.vhost(name).ok_or("a vhost is not there")?;
            let exchanges: BTreeMap<String, Option<String>> = vhost
                .exchanges()
                .map(|exchange| (exchange.name.as_str().into(), exchange.alternate_exchange().map(Into::into)))
                .collect();
            same(
                "exchanges",
                exchanges,
                model.exchanges.keys().map(|name| (name.clone(), model.alternate(name))).collect(),
            )?;
            let queues: BTreeMap<&str, (u64, Rules)> =
                vhost.queues().map(|queue| (queue.name.as_str(), (queue.id.0, Rules::of(&queue.settings())))).collect();
            let expected = model
                .queues
                .iter()
                .map(|(name, queue)| (name.as_str(), (queue.id, model.rules(name, &queue.declared))));
            same("queues and their rules", queues, expected.collect())?;
            let bindings: BTreeSet<Binding> = vhost.bindings().map(|binding| (**binding).clone()).collect();
            same("bindings", bindings, model.bindings.iter().map(as_binding).collect::<Result<_, _>>()?)?;
        }
        let access = self.catalog.access();
        let users = access.users().map(|user| (user.name.as_str().to_owned(), user.tags.clone())).collect();
        same("users", &users, &self.model.users)?;
        self.compare_limits()?;
        let permissions = access.all_permissions().map(|(user, vhost, held)| {
            let patterns = [&held.configure, &held.write, &held.read].map(|pattern| pattern.as_str().to_owned());
            ((user.as_str().to_owned(), vhost.as_str().to_owned()), patterns)
        });
        let patterns = |held: &[usize; 3]| held.map(|pattern| PATTERNS[pattern].0.to_owned());
        let expected = self.model.permissions.iter().map(|(key, held)| (key.clone(), patterns(held)));
        same("permissions", permissions.collect::<BTreeMap<_, _>>(), expected.collect())?;
        let topics = access.all_topic_permissions().map(|(user, vhost, exchange, held)| {
            let key = [user.as_str(), vhost.as_str(), exchange.as_str()].map(str::to_owned);
            (key, [&held.write, &held.read].map(|pattern| pattern.as_str().to_owned()))
        });
        let expected = self.model.topics.iter().map(|((user, vhost, exchange), held)| {
            let key = [user, vhost, exchange].map(String::clone);
            (key, held.map(|pattern| topic_pattern(pattern).to_owned()))
        });
        same("topic permissions", topics.collect::<BTreeMap<_, _>>(), expected.collect())
    }

    fn compare_limits(&self) -> Result<(), String> {
        let access = self.catalog.access();
        let given = |limits: &[Option<u64>; 2]| limits.iter().any(Option::is_some);
        let found = access.all_vhost_limits().map(|(vhost, held)| (vhost.as_str(), [held.connections, held.queues]));
        let expected = self.model.vhosts.iter().map(|(name, vhost)| (name.as_str(), vhost.limits));
        let expected = expected.filter(|(_, limits)| given(limits));
        same("limits of vhosts", found.collect::<BTreeMap<_, _>>(), expected.collect())?;
        let found = access.all_user_limits().map(|(user, held)| (user.as_str(), [held.connections, held.channels]));
        let expected = self.model.user_limits.iter().map(|(name, limits)| (name.as_str(), *limits));
        let expected = expected.filter(|(_, limits)| given(limits));
        same("limits of users", found.collect::<BTreeMap<_, _>>(), expected.collect())
    }
}

fn topic_pattern(pattern: usize) -> &'static str {
    PATTERNS.get(pattern).map_or(OWN_NAME, |pattern| pattern.0)
}

fn refused(events: &[CatalogEvent]) -> Result<(), String> {
    same(&format!("nothing was done, {events:?}"), events.iter().any(CatalogEvent::is_change), false)
}

fn random_quorum_limit(random: &mut Random) -> Option<u64> {
    random.one_in(4).then(|| random.below(3))
}

fn wishes(random: &mut Random, delivery_limit: impl FnOnce(&mut Random) -> Option<u64>) -> Wishes {
    let mut maybe = |of, least, most| random.one_in(of).then(|| least + random.below(most));
    let (ttl_ms, expires_ms) = (maybe(4, 0, 60), maybe(16, 100, 1000));
    let (max_length, max_octets) = (maybe(3, 0, 12), maybe(6, 0, 300));
    let dead_to = random.one_in(2).then(|| if random.one_in(2) { String::new() } else { exchange_name(random) });
    Wishes {
        ttl_ms,
        expires_ms,
        max_length,
        max_octets,
        delivery_limit: delivery_limit(random),
        overflow: random.one_in(2).then(|| random.pick(&OVERFLOWS).copied()).flatten(),
        dead_key: dead_to.as_ref().filter(|_| random.one_in(2)).map(|_| queue_name(random)),
        dead_to,
    }
}

fn declaration(random: &mut Random, name: &str) -> Declared {
    let quorum = random.one_in(4);
    let pages = PAGING.contains(&name);
    let mut wishes = wishes(random, |random| random_quorum_limit(random).filter(|_| quorum));
    if quorum {
        wishes.overflow = wishes.overflow.filter(|overflow| *overflow != OVERFLOWS[2]);
    }
    if pages {
        (wishes.dead_to, wishes.dead_key) = (None, None);
    }
    Declared {
        durable: quorum || random.one_in(2),
        auto_delete: !quorum && random.one_in(4),
        owner: (!quorum && random.one_in(6)).then(|| random.below(3) + 1),
        quorum,
        single_active: random.one_in(4),
        max_priority: if quorum || pages || random.one_in(2) { 0 } else { random.below(4) as u8 },
        wishes,
    }
}

fn queue_arguments(declared: &Declared) -> TableBuilder {
    let Declared { quorum, single_active, max_priority, wishes, .. } = declared;
    let mut arguments = TableBuilder::default();
    let numbers = [
        ("x-message-ttl", wishes.ttl_ms),
        ("x-expires", wishes.expires_ms),
        ("x-max-length", wishes.max_length),
        ("x-max-length-bytes", wishes.max_octets),
        ("x-delivery-limit", wishes.delivery_limit),
        ("x-max-priority", Some(u64::from(*max_priority)).filter(|max| *max > 0)),
    ];
    for (name, number) in numbers {
        number.into_iter().for_each(|number| arguments.push(name.as_bytes(), Value::Int64(number as i64)));
    }
    let texts = [
        ("x-overflow", wishes.overflow),
        ("x-dead-letter-exchange", wishes.dead_to.as_deref()),
        ("x-dead-letter-routing-key", wishes.dead_key.as_deref()),
        ("x-queue-type", quorum.then_some("quorum")),
    ];
    for (name, text) in texts {
        text.into_iter().for_each(|text| arguments.push(name.as_bytes(), Value::LongString(text.as_bytes())));
    }
    if *single_active {
        arguments.push(b"x-single-active-consumer", Value::Bool(true));
    }
    arguments
}

fn table(builder: &TableBuilder) -> Result<FieldTable<'_>, String> {
    FieldTable::parse(builder.octets()).map_err(|error| format!("a table is refused: {error}"))
}

fn as_binding(bound: &Bound) -> Result<Binding, String> {
    let mut arguments = TableBuilder::default();
    if let Some((how, wanted)) = &bound.wanted {
        arguments.push(b"x-match", Value::LongString(how.as_bytes()));
        for (name, value) in wanted.iter().rev() {
            arguments.push(name.as_bytes(), value.map_or(Value::Void, Value::Int64));
        }
    }
    Ok(Binding {
        source: bound.source.as_str().into(),
        destination: if bound.to_exchange {
            Destination::Exchange(bound.destination.as_str().into())
        } else {
            Destination::Queue(bound.destination.as_str().into())
        },
        routing_key: Arc::from(bound.key.as_bytes()),
        arguments: Arguments::sorted(table(&arguments)?),
    })
}

/// None if the policy would say nothing.
fn as_policy(vhost: &str, operator: bool, name: &str, set: &Set) -> Result<Option<Policy>, String> {
    let wishes = &set.wishes;
    let numbers = [
        ("message-ttl", wishes.ttl_ms),
        ("expires", wishes.expires_ms),
        ("max-length", wishes.max_length),
        ("max-length-bytes", wishes.max_octets),
        ("delivery-limit", wishes.delivery_limit),
    ];
    let texts = [
        ("overflow", wishes.overflow),
        ("dead-letter-exchange", wishes.dead_to.as_deref()),
        ("dead-letter-routing-key", wishes.dead_key.as_deref()),
        ("alternate-exchange", set.alternate.as_deref()),
    ];
    let numbers = numbers
        .into_iter()
        .filter_map(|(key, number)| Some((key.to_owned(), PolicyValue::Number(i64::try_from(number?).ok()?))));
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), PolicyValue::Text(text?.to_owned()))));
    let definition: Vec<(String, PolicyValue)> = numbers.chain(texts).collect();
    if definition.is_empty() {
        return Ok(None);
    }
    let (pattern, apply_to) = (PATTERNS[set.pattern].0.into(), set.apply_to.into());
    let (vhost, name, priority) = (vhost.into(), name.into(), set.priority);
    let draft = PolicyDraft { vhost, name, operator, pattern, apply_to, priority, definition };
    Policy::new(draft).map(Some).map_err(|bad| format!("a policy is refused: {bad}"))
}
