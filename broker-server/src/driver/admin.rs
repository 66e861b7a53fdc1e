//! What operators ask of the shard. Each request is a short piece of work, so that clients do not wait for it: lists are asked for in parts.

use broker_amqp::{Exception, Input, ReplyCode};
use broker_core::name::{QueueName, VhostName};
use broker_core::queue;
use broker_core::refusal::{Refusal, Resource};
use broker_core::store::QueueId;
use broker_meta::{Catalog, Command};
use hashbrown::HashMap;
use proto::admin::v1::{Channel, Connection, Consumer};
use proto::meta::command::Kind;
use tokio::sync::oneshot;

use super::client::Client;
use super::queues::Leaving;
use super::requests::Waiter;
use super::shard::Shard;
use crate::admin::import::Outcome;

/// Where an answer goes. Whoever asked may have gone.
pub type Answer<T> = oneshot::Sender<T>;

/// One part of a list of connections covers so many places of the shard's table.
const PLACES_TOGETHER: usize = 512;
/// It ends early after so many items.
const ITEMS_TOGETHER: usize = 2048;
/// What a client is told without a reason: RabbitMQ's words.
const CLOSED_BY_OPERATOR: &str = "Closed via management plugin";

/// A request with the place its answer goes to.
pub enum Request {
    /// The catalog as it is now.
    Catalog(Answer<Catalog>),
    /// Counts of the whole node.
    Totals(Answer<Totals>),
    /// Changes of the catalog, one after the other; all of them are tried.
    Propose(Vec<Command>, Answer<Vec<Outcome>>),
    /// Counts of queues; none for those that are not there.
    QueueCounts(Vec<QueueId>, Answer<Vec<Option<QueueCounts>>>),
    /// Throws a queue's ready messages away; answers how many.
    Purge(VhostName, QueueName, Answer<Result<u64, Refusal>>),
    /// Deletes a queue; answers how many messages were ready.
    Delete {
        /// Where it is.
        vhost: VhostName,
        /// Its name.
        name: QueueName,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
        /// The answer.
        answer: Answer<Result<u64, Refusal>>,
    },
    /// Connections from a place of the table on, and where to go on.
    Connections(usize, Answer<Part<Connection>>),
    /// Channels of the connections from a place on.
    Channels(usize, Answer<Part<Channel>>),
    /// Consumers of the connections from a place on.
    Consumers(usize, Answer<Part<Consumer>>),
    /// Closes connections; answers how many.
    Close(Selection, String, Answer<u64>),
}

/// A part of a list.
pub struct Part<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Where the next part begins; none: this was the last.
    pub next: Option<usize>,
}

/// Which connections.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this one.
    pub number: Option<u64>,
    /// Only those of this vhost.
    pub vhost: Option<String>,
    /// Only those of this user.
    pub user: Option<String>,
    /// At most so many; 0: any number.
    pub limit: usize,
}

/// Counts of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueCounts {
    /// Messages nobody has.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unacknowledged: u64,
    /// Consumers.
    pub consumers: u64,
    /// Octets of its messages in memory.
    pub resident_bytes: u64,
}

/// Counts of the whole node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Connections that have logged in.
    pub connections: u64,
    /// Their channels.
    pub channels: u64,
    /// Their consumers.
    pub consumers: u64,
    /// Over all queues.
    pub ready: u64,
    /// Over all queues.
    pub unacknowledged: u64,
}

/// Changes of the catalog that operators wait for.
#[derive(Default)]
pub struct AdminState {
    next: u64,
    pending: HashMap<u64, Pending>,
}

/// What waits for the catalog.
enum Pending {
    Proposals { missing: usize, outcomes: Vec<Outcome>, answer: Answer<Vec<Outcome>> },
    Deletion { messages: u64, answer: Answer<Result<u64, Refusal>> },
}

impl Shard {
    /// Does what an operator asks for. An answer that nobody waits for any more is dropped.
    pub(super) fn admin_request(&mut self, request: Request) {
        match request {
            Request::Catalog(answer) => drop(answer.send(self.parts.catalog.clone())),
            Request::Totals(answer) => drop(answer.send(self.totals())),
            Request::Propose(commands, answer) => self.admin_propose(commands, answer),
            Request::QueueCounts(ids, answer) => {
                drop(answer.send(ids.into_iter().map(|id| self.queue_counts(id)).collect()));
            }
            Request::Purge(vhost, name, answer) => drop(answer.send(self.admin_purge(&vhost, &name))),
            Request::Delete { vhost, name, if_unused, if_empty, answer } => {
                self.admin_delete(&vhost, &name, if_unused, if_empty, answer);
            }
            Request::Connections(from, answer) => {
                drop(answer.send(self.part_of(from, |client, items| items.push(connection(client)))));
            }
            Request::Channels(from, answer) => drop(answer.send(self.part_of(from, channels))),
            Request::Consumers(from, answer) => {
                drop(answer.send(self.part_of(from, |client, items| self.consumers(client, items))));
            }
            Request::Close(selection, reason, answer) => drop(answer.send(self.close(&selection, &reason))),
        }
    }

    /// The catalog has carried out a proposal of an operator's request: its outcome is noted, and answered with the last one.
    pub(super) fn note_admin_outcome(&mut self, number: u64, outcome: Outcome) {
        match self.admin.pending.remove(&number) {
            Some(Pending::Proposals { missing, mut outcomes, answer }) => {
                outcomes.push(outcome);
                if missing > 1 {
                    let pending = Pending::Proposals { missing: missing - 1, outcomes, answer };
                    self.admin.pending.insert(number, pending);
                } else {
                    drop(answer.send(outcomes));
                }
            }
            Some(Pending::Deletion { messages, answer }) => drop(answer.send(outcome.map(|_| messages))),
            None => {}
        }
    }

    fn admin_propose(&mut self, commands: Vec<Command>, answer: Answer<Vec<Outcome>>) {
        if commands.is_empty() {
            return drop(answer.send(Vec::new()));
        }
        let outcomes = Vec::with_capacity(commands.len());
        let number = self.wait_for_catalog(Pending::Proposals { missing: commands.len(), outcomes, answer });
        for mut command in commands {
            if let Some(Kind::CreateVhost(create)) = &mut command.kind {
                create.vhosts_max = self.parts.vhost_max;
            }
            self.propose(command, Waiter::Admin(number));
        }
    }

    fn wait_for_catalog(&mut self, pending: Pending) -> u64 {
        self.admin.next += 1;
        self.admin.pending.insert(self.admin.next, pending);
        self.admin.next
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (_, client) in self.clients.iter().filter(|(_, client)| is_listed(client)) {
            totals.connections += 1;
            totals.channels += client.amqp.channels().count() as u64;
            totals.consumers += client.consumers.len() as u64;
        }
        for local in self.queues.values() {
            totals.ready += local.queue.ready_count();
            totals.unacknowledged += local.queue.unacked_count();
        }
        totals
    }

    fn queue_counts(&self, id: QueueId) -> Option<QueueCounts> {
        let local = self.queues.get(&id)?;
        Some(QueueCounts {
            ready: local.queue.ready_count(),
            unacknowledged: local.queue.unacked_count(),
            consumers: local.queue.consumer_count() as u64,
            resident_bytes: local.queue.resident_bytes() as u64,
        })
    }

    /// The queue of that name, unless it is on its way out.
    fn admin_queue(&self, vhost: &VhostName, name: &QueueName) -> Result<QueueId, Refusal> {
        let topology = &self.parts.topology;
        let id = topology.vhost_or_refuse(vhost)?.queue(name).map(|record| record.id);
        let id = id.filter(|id| self.queues.get(id).is_some_and(|local| !local.is_leaving()));
        id.ok_or_else(|| Refusal::NotFound(Resource::Queue(vhost.clone(), name.clone())))
    }

    fn admin_purge(&mut self, vhost: &VhostName, name: &QueueName) -> Result<u64, Refusal> {
        let id = self.admin_queue(vhost, name)?;
        let messages = self.queue_counts(id).unwrap_or_default().ready;
        self.feed(id, queue::Input::Purge);
        Ok(messages)
    }

    fn admin_delete(
        &mut self,
        vhost: &VhostName,
        name: &QueueName,
        if_unused: bool,
        if_empty: bool,
        answer: Answer<Result<u64, Refusal>>,
    ) {
        let id = match self.admin_queue(vhost, name) {
            Ok(id) => id,
            Err(refusal) => return drop(answer.send(Err(refusal))),
        };
        let Some(local) = self.queues.get_mut(&id) else { return };
        if if_empty && local.queue.ready_count() > 0 {
            return drop(answer.send(Err(Refusal::NotEmpty(vhost.clone(), name.clone()))));
        }
        if if_unused && local.queue.consumer_count() > 0 {
            return drop(answer.send(Err(Refusal::InUse(local.record.resource()))));
        }
        // From here on the queue is gone to who names it.
        local.leaving = Leaving::Asked;
        let messages = local.queue.ready_count();
        let number = self.wait_for_catalog(Pending::Deletion { messages, answer });
        self.propose_deletion(vec![id], Waiter::Admin(number));
    }

    /// What `list` makes of the connections in the next places of the table.
    fn part_of<T>(&self, from: usize, list: impl Fn(&Client, &mut Vec<T>)) -> Part<T> {
        let mut items = Vec::new();
        let mut next = from;
        let end = from.saturating_add(PLACES_TOGETHER).min(self.clients.capacity());
        while next < end && items.len() < ITEMS_TOGETHER {
            if let Some(client) = self.clients.get(next).filter(|client| is_listed(client)) {
                list(client, &mut items);
            }
            next += 1;
        }
        Part { items, next: (next < self.clients.capacity()).then_some(next) }
    }

    fn consumers(&self, client: &Client, items: &mut Vec<Consumer>) {
        for (handle, consumer) in &client.consumers {
            let queue = self.queues.get(&consumer.queue).map(|local| local.record.name.as_str());
            let tag = u32::try_from(handle).ok().and_then(|handle| client.amqp.consumer_tag(consumer.channel, handle));
            items.push(Consumer {
                connection: client.number,
                channel: consumer.channel.into(),
                vhost: client.vhost.as_deref().unwrap_or_default().into(),
                queue: queue.unwrap_or_default().into(),
                consumer_tag: tag.unwrap_or_default().into(),
                ack_required: !consumer.no_ack,
                user: client.amqp.user().map(|user| (**user).into()).unwrap_or_default(),
                node: String::new(),
            });
        }
    }

    fn close(&mut self, selection: &Selection, reason: &str) -> u64 {
        let most = if selection.limit == 0 { usize::MAX } else { selection.limit };
        let is_meant = |client: &Client| {
            client.closing.is_none()
                && is_listed(client)
                && selection.number.is_none_or(|number| client.number == number)
                && selection.vhost.as_deref().is_none_or(|vhost| client.vhost.as_deref() == Some(vhost))
                && selection.user.as_deref().is_none_or(|user| client.amqp.user().is_some_and(|own| **own == *user))
        };
        let meant = self.clients.iter().filter(|(_, client)| is_meant(client)).map(|(place, _)| place);
        let places: Vec<usize> = meant.take(most).collect();
        let reason = if reason.is_empty() { CLOSED_BY_OPERATOR } else { reason };
        for &place in &places {
            if let Some(client) = self.clients.get_mut(place) {
                // It is read from again, so that its close-ok is seen.
                client.blocked = false;
            }
            self.tell(place, Input::ForceClose(Exception::new(ReplyCode::ConnectionForced, reason)));
        }
        places.len() as u64
    }
}

/// Whether operators see it: since it has logged in.
fn is_listed(client: &Client) -> bool {
    client.amqp.user().is_some()
}

fn connection(client: &Client) -> Connection {
    let amqp = &client.amqp;
    let local = client.local();
    let state = match () {
        () if client.closing.is_some() => "closing",
        () if client.vhost.is_none() => "starting",
        () if client.blocked => "blocked",
        () => "running",
    };
    Connection {
        number: client.number,
        peer_host: client.peer.ip().to_canonical().to_string(),
        peer_port: client.peer.port().into(),
        host: local.map(|address| address.ip().to_canonical().to_string()).unwrap_or_default(),
        port: local.map(|address| address.port().into()).unwrap_or_default(),
        user: amqp.user().map(|user| (**user).into()).unwrap_or_default(),
        vhost: client.vhost.as_deref().unwrap_or_default().into(),
        auth_mechanism: amqp.mechanism().into(),
        user_provided_name: amqp.connection_name().unwrap_or_default().into(),
        channels: amqp.channels().count() as u32,
        channel_max: amqp.channel_max().into(),
        frame_max: amqp.frame_max(),
        heartbeat: amqp.heartbeat().into(),
        state: state.into(),
        client_properties: amqp.client_properties_raw().to_vec(),
        // Whoever lists it says that.
        node: String::new(),
    }
}

fn channels(client: &Client, items: &mut Vec<Channel>) {
    let shared = Connection { client_properties: Vec::new(), ..connection(client) };
    for number in client.amqp.channels() {
        let Some(view) = client.amqp.channel_view(number) else { continue };
        items.push(Channel {
            connection: Some(shared.clone()),
            number: number.into(),
            confirm: view.confirm,
            transactional: view.transactional,
            consumers: view.consumers as u32,
            messages_unacknowledged: view.unacknowledged as u64,
            messages_unconfirmed: view.unconfirmed as u64,
            prefetch_count: view.prefetch.into(),
            global_prefetch_count: view.limit.into(),
        });
    }
}
