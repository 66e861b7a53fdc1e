//! The topology: vhosts, exchanges, queues and bindings, and where a message goes.
//!
//! A [`Topology`] is an immutable snapshot to its readers: copying it costs a few pointers. The catalog alone changes it
//! ([`change`](self) methods), and every change shares all that stayed the same.
//!
//! - `record`: what was declared;
//! - `route`: a message's way through exchanges to queues;
//! - `check`: what a declaration, deletion or binding would do, and RabbitMQ's refusals, asked before anything is proposed;
//! - `change`: the changes themselves, with what follows from them (bindings of a deleted queue, auto-delete exchanges);
//! - `govern`: changes of policies, and of the queues and exchanges they govern.

mod change;
mod check;
mod govern;
mod record;
mod route;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap, OrdSet};

pub use change::Change;
pub use check::{
    BindingCheck, Declare, Delete, ExchangeDeclaration, QueueDeclaration, refuse_default_exchange,
    refuse_system_exchange, reserved_exchange_name, reserved_queue_name,
};
pub use record::{Binding, Destination, ExchangeRecord, PREDECLARED_EXCHANGES, QueueRecord, VhostRecord};
pub use route::{NoSuchExchange, Reached, Routable, copy_keys_in, has_copy_keys};

use crate::exchange::MatchingTable;
use crate::name::{ExchangeName, QueueId, QueueName, VhostName};
use crate::policy::Policies;

type Map<K, V> = GenericHashMap<K, V, foldhash::quality::RandomState, DefaultSharedPtr>;

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    vhosts: OrdMap<VhostName, Arc<Vhost>>,
    /// Ordered, because that takes a quarter of the memory of a hash map, whose nodes are large and mostly empty.
    queues: OrdMap<QueueId, Arc<QueueRecord>>,
    /// Counts changes of routing, over all vhosts.
    generation: u64,
}

/// One vhost.
#[derive(Clone, Debug)]
pub struct Vhost {
    record: Arc<VhostRecord>,
    exchanges: Map<ExchangeName, Arc<Exchange>>,
    queues: Map<QueueName, Arc<QueueRecord>>,
    by_source: OrdSet<Arc<Binding>>,
    by_destination: OrdSet<ByDestination>,
    policies: Policies,
    generation: u64,
}

/// An exchange with its bindings ready for matching.
#[derive(Clone, Debug)]
struct Exchange {
    record: Arc<ExchangeRecord>,
    table: MatchingTable,
    /// Bindings that lead from here to other exchanges.
    exchange_bindings: u32,
}

/// A binding ordered by where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ByDestination(Arc<Binding>);

impl Topology {
    /// The vhost of that name.
    pub fn vhost(&self, name: &str) -> Option<&Vhost> {
        self.vhosts.get(name).map(|vhost| &**vhost)
    }

    /// All vhosts, by name.
    pub fn vhosts(&self) -> impl Iterator<Item = &Vhost> {
        self.vhosts.values().map(|vhost| &**vhost)
    }

    /// The queue with that identity, in whatever vhost.
    pub fn queue_by_id(&self, id: QueueId) -> Option<&Arc<QueueRecord>> {
        self.queues.get(&id)
    }

    /// All queues, in no particular order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<QueueRecord>> {
        self.queues.values()
    }

    /// How many queues there are.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The queue of that name.
    pub fn queue(&self, vhost: &str, name: &str) -> Option<&Arc<QueueRecord>> {
        self.vhost(vhost)?.queue(name)
    }

    /// The exchange of that name.
    pub fn exchange(&self, vhost: &str, name: &str) -> Option<&Arc<ExchangeRecord>> {
        self.vhost(vhost)?.exchange(name)
    }

    /// A number that grows whenever routing in that vhost may have changed, also when the vhost is deleted and made again; 0 without such a
    /// vhost. A cached route is good as long as this number stays the same.
    pub fn generation(&self, vhost: &str) -> u64 {
        self.vhost(vhost).map_or(0, Vhost::generation)
    }
}

impl Vhost {
    /// What was said about it.
    pub fn record(&self) -> &Arc<VhostRecord> {
        &self.record
    }

    /// Its name.
    pub fn name(&self) -> &VhostName {
        &self.record.name
    }

    /// See [`Topology::generation`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The queue of that name.
    pub fn queue(&self, name: &str) -> Option<&Arc<QueueRecord>> {
        self.queues.get(name)
    }

    /// All its queues, in no particular order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<QueueRecord>> {
        self.queues.values()
    }

    /// How many queues it has.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The exchange of that name.
    pub fn exchange(&self, name: &str) -> Option<&Arc<ExchangeRecord>> {
        self.exchanges.get(name).map(|exchange| &exchange.record)
    }

    /// All its exchanges, in no particular order.
    pub fn exchanges(&self) -> impl Iterator<Item = &Arc<ExchangeRecord>> {
        self.exchanges.values().map(|exchange| &exchange.record)
    }

    /// Its policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// All bindings that were declared (so without those of the default exchange), ordered by source.
    pub fn bindings(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_source.iter()
    }

    /// Bindings that lead from an exchange.
    pub fn bindings_from<'t>(&'t self, source: &'t str) -> impl Iterator<Item = &'t Arc<Binding>> + 't {
        let first = Arc::new(Binding {
            source: source.into(),
            destination: Destination::Exchange("".into()),
            routing_key: Arc::from(&[][..]),
            arguments: Default::default(),
        });
        self.by_source.range(first..).take_while(move |binding| *binding.source == *source)
    }

    /// Bindings that lead to a queue or an exchange.
    pub fn bindings_to<'t>(&'t self, destination: &'t Destination) -> impl Iterator<Item = &'t Arc<Binding>> + 't {
        let first = ByDestination(Arc::new(Binding {
            source: "".into(),
            destination: destination.clone(),
            routing_key: Arc::from(&[][..]),
            arguments: Default::default(),
        }));
        self.by_destination
            .range(first..)
            .map(|binding| &binding.0)
            .take_while(move |binding| binding.destination == *destination)
    }

    /// Whether that binding exists.
    pub fn has_binding(&self, binding: &Binding) -> bool {
        self.by_source.contains(binding)
    }

    /// The exchange itself and all that its bindings and alternate exchanges can lead to, each once.
    fn reachable<'t>(&'t self, from: &'t Exchange) -> impl Iterator<Item = &'t Exchange> + 't {
        let mut seen: hashbrown::HashSet<&'t str, foldhash::quality::RandomState> = Default::default();
        seen.insert(&from.record.name);
        let mut open = vec![from];
        std::iter::from_fn(move || {
            let exchange = open.pop()?;
            let bound = self.exchange_destinations(exchange).filter_map(|name| self.exchanges.get(name));
            let alternate = exchange.record.alternate_exchange().and_then(|name| self.exchanges.get(name));
            for next in bound.chain(alternate) {
                if seen.insert(&next.record.name) {
                    open.push(next);
                }
            }
            Some(exchange)
        })
    }

    fn exchange_destinations<'t>(&'t self, exchange: &'t Exchange) -> impl Iterator<Item = &'t str> + 't {
        // Of an exchange's bindings those to other exchanges come first.
        let bindings = self.bindings_from(&exchange.record.name).take(exchange.exchange_bindings as usize);
        bindings.filter_map(|binding| match &binding.destination {
            Destination::Exchange(name) => Some(name.as_str()),
            Destination::Queue(_) => None,
        })
    }
}

impl Ord for ByDestination {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (one, two) = (&*self.0, &*other.0);
        one.destination.cmp(&two.destination).then_with(|| one.cmp(two))
    }
}

impl PartialOrd for ByDestination {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
