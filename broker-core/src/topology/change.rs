//! Changes of the topology, with all that follows from each. Only the catalog makes them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{
    Binding, ByDestination, Destination, Exchange, ExchangeRecord, PREDECLARED_EXCHANGES, QueueRecord, Topology, Vhost,
    VhostRecord,
};
use crate::exchange::{MatchingTable, Target};
use crate::name::{ExchangeName, NodeId, QueueId, VhostName};

/// Something that changed as a consequence of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A queue went.
    QueueDeleted(Arc<QueueRecord>),
    /// An exchange went.
    ExchangeDeleted(Arc<ExchangeRecord>),
    /// A binding went, in this vhost.
    BindingDeleted(Arc<VhostRecord>, Arc<Binding>),
    /// Other policies govern a queue now.
    QueueGoverned(Arc<QueueRecord>),
}

impl Topology {
    /// Adds a vhost with its predeclared exchanges. `false` if there is one of that name.
    pub fn add_vhost(&mut self, record: VhostRecord) -> bool {
        if self.vhosts.contains_key(&record.name) {
            return false;
        }
        self.generation += 1;
        let mut vhost = Vhost {
            record: Arc::new(record),
            exchanges: Default::default(),
            queues: Default::default(),
            by_source: Default::default(),
            by_destination: Default::default(),
            policies: Default::default(),
            generation: self.generation,
        };
        for &(name, kind, internal) in PREDECLARED_EXCHANGES {
            vhost.add_exchange(ExchangeRecord {
                vhost: vhost.record.name.clone(),
                name: name.into(),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: Default::default(),
                holder: None,
                policies: Default::default(),
            });
        }
        self.vhosts.insert(vhost.record.name.clone(), Arc::new(vhost));
        true
    }

    /// Changes what is said of a vhost. `false` if it is missing, or if nothing is different.
    pub fn update_vhost(&mut self, name: &str, change: impl FnOnce(&mut VhostRecord)) -> bool {
        let Some(vhost) = self.vhosts.get(name) else { return false };
        let mut record = (*vhost.record).clone();
        change(&mut record);
        record.name = vhost.record.name.clone();
        if record == *vhost.record {
            return false;
        }
        if let Some(vhost) = self.vhost_to_change(name) {
            vhost.record = Arc::new(record);
        }
        true
    }

    /// Removes a vhost with all it holds and returns its queues.
    pub fn remove_vhost(&mut self, name: &str) -> Option<Vec<Arc<QueueRecord>>> {
        let vhost = self.vhosts.remove(name)?;
        let mut queues: Vec<Arc<QueueRecord>> = vhost.queues.values().cloned().collect();
        queues.sort_by_key(|queue| queue.id);
        for queue in &queues {
            self.queues.remove(&queue.id);
        }
        Some(queues)
    }

    /// Adds a queue. `false` if the vhost is missing, or if name or identity are taken.
    pub fn add_queue(&mut self, record: Arc<QueueRecord>) -> bool {
        if self.queues.contains_key(&record.id) {
            return false;
        }
        let Some(vhost) = self.vhost_to_change(&record.vhost) else { return false };
        if vhost.queues.contains_key(&record.name) {
            return false;
        }
        vhost.queues.insert(record.name.clone(), record.clone());
        self.queues.insert(record.id, record);
        true
    }

    /// Removes a queue with its bindings; exchanges that lose their last binding by it go too if they are auto-delete.
    pub fn remove_queue(&mut self, id: QueueId, changes: &mut Vec<Change>) -> Option<Arc<QueueRecord>> {
        let record = self.queues.remove(&id)?;
        let vhost = self.vhost_to_change(&record.vhost)?;
        vhost.queues.remove(&record.name);
        changes.push(Change::QueueDeleted(record.clone()));
        vhost.remove_bindings_to(&Destination::Queue(record.name.clone()), Target::Queue(id), changes);
        Some(record)
    }

    /// Adds an exchange. `false` if the vhost is missing or the name is taken.
    pub fn add_exchange(&mut self, record: ExchangeRecord) -> bool {
        match self.vhost_to_change(&record.vhost) {
            Some(vhost) if !vhost.exchanges.contains_key(&record.name) => {
                vhost.add_exchange(record);
                true
            }
            _ => false,
        }
    }

    /// Removes an exchange with its bindings on both sides; auto-delete exchanges that lose their last binding by it go too.
    pub fn remove_exchange(&mut self, vhost: &str, name: &str, changes: &mut Vec<Change>) -> bool {
        match self.vhost_to_change(vhost) {
            Some(vhost) => vhost.remove_exchange(name, changes),
            None => false,
        }
    }

    /// Adds a binding. `false` if it exists, or source or destination do not.
    pub fn add_binding(&mut self, vhost: &str, binding: Binding) -> bool {
        self.vhost_to_change(vhost).is_some_and(|vhost| vhost.add_binding(Arc::new(binding)))
    }

    /// Removes a binding; its source goes too if that is auto-delete and this was its last. `false` if there is no such binding.
    pub fn remove_binding(&mut self, vhost: &str, binding: &Binding, changes: &mut Vec<Change>) -> bool {
        let Some(vhost) = self.vhost_to_change(vhost) else { return false };
        let Some(binding) = vhost.by_source.get(binding).cloned() else { return false };
        let Some(target) = vhost.target(&binding.destination) else { return false };
        vhost.remove_one_binding(&binding, &target, changes);
        vhost.auto_delete(&binding.source, changes);
        true
    }

    /// Removes what does not outlive a restart of a node: its queues that are not durable, and every exchange that is not. Durable exchanges
    /// stay even if they are auto-delete and lose their last binding by it.
    pub fn remove_transient(&mut self, node: NodeId, changes: &mut Vec<Change>) {
        self.remove_transient_queues(node, |_| true, changes);
        let vhosts: Vec<VhostName> = self.vhosts.keys().cloned().collect();
        for name in vhosts {
            if let Some(vhost) = self.vhost_to_change(&name) {
                vhost.remove_transient_exchanges(changes);
            }
        }
    }

    /// Removes the queues of a node that do not outlive its restart, as far as they are `meant`.
    pub fn remove_transient_queues(
        &mut self,
        node: NodeId,
        meant: impl Fn(QueueId) -> bool,
        changes: &mut Vec<Change>,
    ) {
        self.remove_queues_if(|queue| !queue.durable && queue.node == node && meant(queue.id), changes);
    }

    /// Removes all queues of a node.
    pub fn remove_node(&mut self, node: NodeId, changes: &mut Vec<Change>) {
        self.remove_queues_if(|queue| queue.node == node, changes);
    }

    fn remove_queues_if(&mut self, gone: impl Fn(&QueueRecord) -> bool, changes: &mut Vec<Change>) {
        let mut ids: Vec<QueueId> = self.queues.values().filter(|queue| gone(queue)).map(|queue| queue.id).collect();
        ids.sort();
        for id in ids {
            self.remove_queue_alone(id, changes);
        }
    }

    /// Removes a queue with its bindings; exchanges stay, whatever they lose by it.
    pub fn remove_queue_alone(&mut self, id: QueueId, changes: &mut Vec<Change>) {
        let Some(queue) = self.queues.remove(&id) else { return };
        if let Some(vhost) = self.vhost_to_change(&queue.vhost) {
            vhost.queues.remove(&queue.name);
            vhost.unbind_destination(&Destination::Queue(queue.name.clone()), &Target::Queue(queue.id), changes);
        }
        changes.push(Change::QueueDeleted(queue));
    }

    /// The vhost, unshared, with a new generation.
    pub(super) fn vhost_to_change(&mut self, name: &str) -> Option<&mut Vhost> {
        let vhost = Arc::make_mut(self.vhosts.get_mut(name)?);
        self.generation += 1;
        vhost.generation = self.generation;
        Some(vhost)
    }
}

impl Vhost {
    fn add_exchange(&mut self, record: ExchangeRecord) {
        let table = MatchingTable::new(record.kind, &record.arguments);
        let exchange = Exchange { table, record: Arc::new(record), exchange_bindings: 0 };
        self.exchanges.insert(exchange.record.name.clone(), Arc::new(exchange));
    }

    fn add_binding(&mut self, binding: Arc<Binding>) -> bool {
        let Some(target) = self.target(&binding.destination) else { return false };
        if self.by_source.contains(&binding) {
            return false;
        }
        let Some(exchange) = self.exchanges.get_mut(&binding.source).map(Arc::make_mut) else { return false };
        exchange.exchange_bindings += u32::from(matches!(target, Target::Exchange(_)));
        exchange.table.add(&binding.routing_key, &binding.arguments, target);
        self.by_source.insert(binding.clone());
        self.by_destination.insert(ByDestination(binding));
        true
    }

    fn target(&self, destination: &Destination) -> Option<Target> {
        match destination {
            Destination::Queue(name) => self.queues.get(name).map(|queue| Target::Queue(queue.id)),
            Destination::Exchange(name) => {
                self.exchanges.get(name).map(|exchange| Target::Exchange(exchange.record.name.clone()))
            }
        }
    }

    fn remove_one_binding(&mut self, binding: &Arc<Binding>, target: &Target, changes: &mut Vec<Change>) {
        self.by_source.remove(binding);
        self.by_destination.remove(&ByDestination(binding.clone()));
        if let Some(exchange) = self.exchanges.get_mut(&binding.source).map(Arc::make_mut) {
            exchange.exchange_bindings -= u32::from(matches!(target, Target::Exchange(_)));
            exchange.table.remove(&binding.routing_key, &binding.arguments, target);
        }
        changes.push(Change::BindingDeleted(self.record.clone(), binding.clone()));
    }

    fn remove_bindings_to(&mut self, destination: &Destination, target: Target, changes: &mut Vec<Change>) {
        for source in self.unbind_destination(destination, &target, changes) {
            self.auto_delete(&source, changes);
        }
    }

    /// Removes all bindings to a destination and returns the exchanges they came from, each once.
    fn unbind_destination(
        &mut self,
        destination: &Destination,
        target: &Target,
        changes: &mut Vec<Change>,
    ) -> Vec<ExchangeName> {
        let bindings: Vec<Arc<Binding>> = self.bindings_to(destination).cloned().collect();
        for binding in &bindings {
            self.remove_one_binding(binding, target, changes);
        }
        let mut sources: Vec<ExchangeName> = bindings.iter().map(|binding| binding.source.clone()).collect();
        sources.dedup();
        sources
    }

    fn remove_transient_exchanges(&mut self, changes: &mut Vec<Change>) {
        let gone = |exchange: &&Arc<Exchange>| !exchange.record.durable;
        let mut names: Vec<ExchangeName> =
            self.exchanges.values().filter(gone).map(|exchange| exchange.record.name.clone()).collect();
        names.sort();
        for name in names {
            self.remove_one_exchange(&name, changes);
        }
    }

    /// Removes the exchange, and further ones that lose their last binding by it, one after the other: chains may be long.
    fn remove_exchange(&mut self, name: &str, changes: &mut Vec<Change>) -> bool {
        let mut doomed: VecDeque<ExchangeName> = VecDeque::new();
        doomed.extend(self.exchanges.get(name).map(|exchange| exchange.record.name.clone()));
        let found = !doomed.is_empty();
        while let Some(name) = doomed.pop_front() {
            doomed.extend(self.remove_one_exchange(&name, changes));
        }
        found
    }

    /// Removes one exchange and returns those that have no binding left now and want to go.
    fn remove_one_exchange(&mut self, name: &ExchangeName, changes: &mut Vec<Change>) -> Vec<ExchangeName> {
        let Some(exchange) = self.exchanges.remove(name) else { return Vec::new() };
        changes.push(Change::ExchangeDeleted(exchange.record.clone()));
        let from: Vec<Arc<Binding>> = self.bindings_from(name).cloned().collect();
        for binding in &from {
            if let Some(target) = self.target(&binding.destination) {
                self.remove_one_binding(binding, &target, changes);
            } else {
                // It leads to the exchange itself, which is gone already.
                self.remove_one_binding(binding, &Target::Exchange(name.clone()), changes);
            }
        }
        let mut unbound =
            self.unbind_destination(&Destination::Exchange(name.clone()), &Target::Exchange(name.clone()), changes);
        unbound.retain(|source| self.wants_to_go(source));
        unbound
    }

    fn auto_delete(&mut self, source: &ExchangeName, changes: &mut Vec<Change>) {
        if self.wants_to_go(source) {
            self.remove_exchange(source, changes);
        }
    }

    /// Whether an exchange just lost its last binding and is auto-delete.
    fn wants_to_go(&self, name: &str) -> bool {
        self.exchanges.get(name).is_some_and(|exchange| exchange.record.auto_delete)
            && self.bindings_from(name).next().is_none()
    }
}
