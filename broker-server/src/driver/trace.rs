//! Tracing: in a vhost that has it on, copies of all publishes and deliveries go to the exchange `amq.rabbitmq.trace`.
//!
//! Without such a vhost, a batch of publishes costs a look at an empty set, and a delivery a look at nothing.

use std::sync::Arc;

use broker_amqp::content::extra_routes;
use broker_amqp::reply_to::is_address;
use broker_amqp::trace::{self, Scene, Sight};
use broker_core::message::{Content, Message};
use broker_core::name::VhostName;
use broker_core::queue::{ChannelKey, Publish};
use broker_core::store::QueueId;
use broker_core::topology::{QueueRecord, Reached, Routable, Topology};
use hashbrown::HashSet;
use smallvec::SmallVec;

use super::client::Client;
use super::dispatch::Route;
use super::shard::Shard;

/// A content header's payload before its property flags.
const HEADER_FIXED_BYTES: usize = 12;

/// The vhosts that are traced.
pub struct Tracing {
    node: Arc<str>,
    vhosts: HashSet<VhostName>,
}

impl Tracing {
    /// What the catalog says at start. `node` is the node's name.
    pub fn new(node: &str, topology: &Topology) -> Self {
        let mut tracing = Tracing { node: node.into(), vhosts: HashSet::new() };
        tracing.look_again(topology);
        tracing
    }

    /// The catalog has changed in a way that may concern vhosts.
    pub fn look_again(&mut self, topology: &Topology) {
        let traced = topology.vhosts().map(|vhost| vhost.record()).filter(|record| record.tracing);
        self.vhosts = traced.map(|record| record.name.clone()).collect();
    }

    /// Whether any vhost is traced.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.vhosts.is_empty()
    }

    /// Whether this client's publishes are copied.
    #[inline]
    pub fn sees(&self, client: &Client) -> bool {
        !self.vhosts.is_empty() && client.vhost.as_deref().is_some_and(|vhost| self.vhosts.contains(vhost))
    }

    /// Who copies this queue's deliveries, if anyone.
    #[inline]
    pub fn tracer(&self, record: &Arc<QueueRecord>) -> Option<Tracer> {
        if self.vhosts.is_empty() || !self.vhosts.contains(&record.vhost) {
            return None;
        }
        Some(Tracer { node: self.node.clone(), record: record.clone(), copies: Vec::new() })
    }
}

/// Copies of what one queue delivers at once.
pub struct Tracer {
    node: Arc<str>,
    record: Arc<QueueRecord>,
    copies: Vec<Message>,
}

impl Tracer {
    /// A message was delivered.
    pub fn delivered(&mut self, client: &Client, channel: u16, redelivered: bool, content: Content<'_>) {
        let sight = Sight::Delivered { queue: &self.record.name, redelivered };
        self.copies.extend(copy(&self.node, client, channel, sight, content, content));
    }
}

fn copy(
    node: &str,
    client: &Client,
    channel: u16,
    sight: Sight<'_>,
    published: Content<'_>,
    visible: Content<'_>,
) -> Option<Message> {
    let connection = client.addresses();
    let user = client.amqp.user().map_or("", |user| &**user);
    let vhost = client.vhost.as_deref().unwrap_or_default();
    trace::copy(published, visible, sight, Scene { node, vhost, connection: &connection, channel, user })
}

impl Shard {
    /// Copies a publish of a client that is traced. As in RabbitMQ, of the default exchange the queues' names are told whether they exist or not.
    pub(super) fn trace_publish(
        &mut self,
        place: usize,
        channel: u16,
        published: Content<'_>,
        visible: Content<'_>,
        route: &Route,
    ) {
        let Some(client) = self.clients.get(place).filter(|client| self.parts.tracing.sees(client)) else { return };
        let Some(vhost) = client.vhost.as_deref().map(VhostName::from) else { return };
        let records = route.queues.iter().filter_map(|id| self.record_of(*id));
        let names = records.map(|record| record.name.as_bytes());
        let properties = published.header().get(HEADER_FIXED_BYTES..).unwrap_or_default();
        let keys = std::iter::once(published.routing_key()).chain(extra_routes(properties));
        let mut queues: Vec<&[u8]> = match published.route() {
            [0, ..] => keys.filter(|key| !is_address(key)).collect(),
            _ => names.collect(),
        };
        queues.sort_unstable();
        queues.dedup();
        let sight = Sight::Published(&queues);
        let copy = copy(&self.parts.tracing.node, client, channel, sight, published, visible);
        self.publish_copies(&vhost, copy);
    }

    /// A queue here, or one elsewhere.
    pub(super) fn record_of(&self, id: QueueId) -> Option<&Arc<QueueRecord>> {
        self.queues.get(&id).map(|local| &local.record).or_else(|| self.parts.topology.queue_by_id(id))
    }

    /// Copies what was fetched with `basic.get`.
    pub(super) fn trace_get(&mut self, queue: QueueId, to: ChannelKey, redelivered: bool, message: &Message) {
        let record = self.record_of(queue);
        let Some(mut tracer) = record.and_then(|record| self.parts.tracing.tracer(record)) else { return };
        let Some(client) = self.place_of(to.connection).and_then(|place| self.clients.get(place)) else { return };
        tracer.delivered(client, to.channel, redelivered, Content::Kept(message));
        self.publish_traced(tracer);
    }

    /// What a queue delivered is copied when it is through with it.
    pub(super) fn publish_traced(&mut self, tracer: Tracer) {
        self.publish_copies(&tracer.record.vhost, tracer.copies);
    }

    fn publish_copies(&mut self, vhost: &VhostName, copies: impl IntoIterator<Item = Message>) {
        for copy in copies {
            let dice = self.throw_dice();
            let Some(vhost) = self.parts.topology.vhost(vhost) else { return };
            let mut reached = Reached::default();
            let message = Routable { routing_key: copy.routing_key(), header: copy.header(), dice, may_wait: false };
            if vhost.route(trace::EXCHANGE, &message, &mut reached).is_err() {
                return;
            }
            let alive = |id: &QueueId| self.is_there(*id);
            let queues: SmallVec<[QueueId; 4]> = reached.queues.into_iter().filter(alive).collect();
            if queues.is_empty() {
                continue;
            }
            let stores_all = self.any_stores_all(&queues);
            let mut route = Route { queues, stores_all, ..Route::default() };
            self.split_by_node(&mut route);
            let content = Content::Kept(&copy);
            // Nobody waits for a confirm: the channel is none.
            let publish = Publish { channel: ChannelKey { connection: 0, channel: 0 }, publish_seq: 0, content };
            self.publish_to_all(&route, route.to_store(content), std::iter::once(publish));
        }
    }
}
