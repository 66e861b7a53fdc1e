//! What channels ask of the node: looked up in the topology, allowed by the access rules, proposed to the catalog where something changes.

use std::sync::Arc;

use broker_amqp::reply_to;
use broker_amqp::{Binding as AskedBinding, Exception, Input, Output, Reply, ReplyCode, Request};
use broker_core::access::Operation;
use broker_core::arguments::QueueType;
use broker_core::exchange::ExchangeKind;
use broker_core::field_table::{FieldTable, Value};
use broker_core::message::{Content, split_route};
use broker_core::name::{NodeId, UserName, VhostName};
use broker_core::queue::{self, ConsumerSettings};
use broker_core::refusal::{Refusal, Resource};
use broker_core::store::QueueId;
use broker_core::topology::{
    BindingCheck, Declare, Delete, Destination, ExchangeDeclaration, QueueDeclaration, QueueRecord, Reached, Routable,
    Vhost, copy_keys_in, has_copy_keys, refuse_default_exchange, refuse_system_exchange, reserved_queue_name,
};
use broker_meta::catalog::is_announced;
use broker_meta::command::{self, Announcement, Command};

use super::client::ClientConsumer;
use super::dispatch::Route;
use super::elsewhere::Question;
use super::queues::{Leaving, TRANSACTION};
use super::replies::is_reply;
use super::shard::Shard;

/// Who waits for a change of the catalog.
pub enum Waiter {
    /// A channel, for a change that has nothing to tell.
    Done {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
    },
    /// A channel, for a queue it declares.
    Declared {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
        /// The queue's name.
        name: Box<str>,
    },
    /// A channel, for a queue it deletes.
    Deleted {
        /// The connection.
        connection: u64,
        /// The channel.
        channel: u16,
        /// Messages that were ready in it.
        messages: u32,
    },
    /// A connection that says goodbye, for its exclusive queues.
    Goodbye {
        /// The connection.
        connection: u64,
    },
    /// Another node, for what it has announced.
    AnnouncedBy {
        /// The node.
        node: NodeId,
        /// Its question.
        request: u64,
    },
    /// An operator, by the number of the request.
    Admin(u64),
    /// Nobody: the queue went with its last consumer, or with its connection.
    Nobody,
}

/// The outcome of a request: an answer now, an answer when something else has happened, or a refusal.
pub(super) type Answer = Result<Option<Reply>, Exception>;

impl Shard {
    /// One request of a channel. Its answer is given at once where it is known at once.
    pub(super) fn request(&mut self, place: usize, channel: u16, request: Request, more: &mut Vec<Output>) {
        let answer = match request {
            Request::ExchangeDeclare { .. } => self.declare_exchange(place, channel, &request),
            Request::ExchangeDelete { name, if_unused } => self.delete_exchange(place, channel, &name, if_unused),
            Request::ExchangeBind(binding) => {
                self.bind(place, channel, &binding, Destination::Exchange((*binding.destination).into()), true)
            }
            Request::ExchangeUnbind(binding) => {
                self.bind(place, channel, &binding, Destination::Exchange((*binding.destination).into()), false)
            }
            Request::QueueBind(binding) => {
                self.bind(place, channel, &binding, Destination::Queue((*binding.destination).into()), true)
            }
            Request::QueueUnbind(binding) => {
                self.bind(place, channel, &binding, Destination::Queue((*binding.destination).into()), false)
            }
            Request::QueueDeclare { .. } => self.declare_queue(place, channel, &request),
            Request::QueuePurge { name } => self.purge_queue(place, channel, &name),
            Request::QueueDelete { name, if_unused, if_empty } => {
                self.delete_queue(place, channel, &name, if_unused, if_empty)
            }
            Request::Get { queue, no_ack } => self.get(place, channel, &queue, no_ack),
            Request::Consume { .. } => return self.consume(place, channel, &request, more),
            Request::ConsumeReplies => Ok(Some(self.consume_replies(place, channel))),
            Request::Cancel { consumer } => self.cancel(place, channel, consumer),
            Request::ChannelClose => {
                self.cancel_consumers(place, channel);
                Ok(Some(Reply::Done))
            }
        };
        self.answer(place, channel, answer, more);
    }

    fn answer(&mut self, place: usize, channel: u16, answer: Answer, more: &mut Vec<Output>) {
        let reply = match answer {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err(exception) => Reply::Refused(exception),
        };
        if let Some(client) = self.clients.get_mut(place) {
            client.amqp.step(self.now, Input::Reply { channel, reply }, more);
        }
    }

    fn declare_exchange(&mut self, place: usize, channel: u16, request: &Request) -> Answer {
        let Request::ExchangeDeclare { name, kind, passive, durable, auto_delete, internal, arguments } = request
        else {
            return Ok(None);
        };
        let vhost = self.vhost_name(place)?;
        if *passive {
            self.authorize(place, &Operation::SeeExchange)?;
            self.vhost(&vhost)?.check_exchange_passive(name).map_err(exception)?;
            return Ok(Some(Reply::Done));
        }
        let kind = ExchangeKind::parse(kind).map_err(exception)?;
        refuse_default_exchange(name).map_err(exception)?;
        self.authorize(place, &Operation::DeclareExchange { exchange: name })?;
        let arguments = table(arguments)?;
        let declaration = ExchangeDeclaration {
            name,
            kind,
            durable: *durable,
            auto_delete: *auto_delete,
            internal: *internal,
            arguments,
        };
        match self.vhost(&vhost)?.check_exchange_declare(&declaration).map_err(exception)? {
            Declare::Existing(_) => Ok(Some(Reply::Done)),
            Declare::New => {
                if let Some(alternate) = declaration.alternate_exchange() {
                    self.authorize(place, &Operation::SetAlternateExchange { exchange: name, alternate })?;
                }
                self.propose_for(place, channel, command::declare_exchange(&vhost, &declaration))
            }
        }
    }

    fn delete_exchange(&mut self, place: usize, channel: u16, name: &str, if_unused: bool) -> Answer {
        let vhost = self.vhost_name(place)?;
        refuse_system_exchange(&vhost, name).map_err(exception)?;
        self.authorize(place, &Operation::DeleteExchange { exchange: name })?;
        match self.vhost(&vhost)?.check_exchange_delete(name, if_unused).map_err(exception)? {
            Delete::Missing => Ok(Some(Reply::Done)),
            Delete::Existing(_) => self.propose_for(place, channel, command::delete_exchange(&vhost, name, if_unused)),
        }
    }

    fn bind(
        &mut self,
        place: usize,
        channel: u16,
        asked: &AskedBinding,
        destination: Destination,
        bind: bool,
    ) -> Answer {
        let vhost = self.vhost_name(place)?;
        let (source, key) = (&asked.source, &asked.routing_key);
        self.authorize(place, &Operation::Bind { source, destination: &destination, key })?;
        if let Destination::Exchange(name) = &destination {
            refuse_default_exchange(name).map_err(exception)?;
        }
        refuse_default_exchange(source).map_err(exception)?;
        let number = self.clients[place].number;
        let arguments = table(&asked.arguments)?;
        let topology = self.vhost(&vhost)?;
        let check = if bind { Vhost::check_bind } else { Vhost::check_unbind };
        let found =
            check(topology, &asked.source, &destination, &asked.routing_key, arguments, number).map_err(exception)?;
        match (found, bind) {
            (BindingCheck::Missing(_), true) if self.is_bound_enough(&vhost, &destination) => {
                let Destination::Queue(name) = destination else { return Ok(Some(Reply::Done)) };
                let limit = self.parts.bindings_max;
                Err(exception(Refusal::BindingLimit { queue: Resource::Queue(vhost, name), limit }))
            }
            (BindingCheck::Missing(binding), true) if self.is_in_no_log(&vhost, &destination) => {
                self.announce_for(place, channel, &command::announce_binding(&vhost, &binding))
            }
            (BindingCheck::Existing(binding), false) if self.is_in_no_log(&vhost, &destination) => {
                self.announce_for(place, channel, &command::announce_unbinding(&vhost, &binding))
            }
            (BindingCheck::Missing(binding), true) => self.propose_for(place, channel, command::bind(&vhost, &binding)),
            (BindingCheck::Existing(binding), false) => {
                self.propose_for(place, channel, command::unbind(&vhost, &binding))
            }
            _ => Ok(Some(Reply::Done)),
        }
    }

    /// Whether that is a queue that is announced.
    fn is_in_no_log(&self, vhost: &VhostName, destination: &Destination) -> bool {
        let Destination::Queue(name) = destination else { return false };
        self.parts.topology.queue(vhost, name).is_some_and(|record| is_announced(record.id))
    }

    fn announce_for(&mut self, place: usize, channel: u16, announcement: &Announcement) -> Answer {
        let connection = self.clients[place].number;
        self.announce(announcement, None, Waiter::Done { connection, channel });
        Ok(None)
    }

    /// Whether that is a queue with as many bindings as it may have.
    fn is_bound_enough(&self, vhost: &VhostName, destination: &Destination) -> bool {
        let Destination::Queue(name) = destination else { return false };
        let id = self.parts.topology.queue(vhost, name).map(|record| record.id);
        id.and_then(|id| self.queues.get(&id)).is_some_and(|local| local.bindings >= self.parts.bindings_max)
    }

    pub(super) fn declare_queue(&mut self, place: usize, channel: u16, request: &Request) -> Answer {
        let Request::QueueDeclare { name, server_named, passive, durable, exclusive, auto_delete, arguments } = request
        else {
            return Ok(None);
        };
        let vhost = self.vhost_name(place)?;
        if name.starts_with(reply_to::QUEUE) {
            let asker = self.clients[place].channel_key(channel);
            return self.declare_replies(&vhost, name, asker);
        }
        let connection = self.clients[place].number;
        let doomed = self.is_doomed(&vhost, name)?;
        if *passive {
            self.authorize(place, &Operation::SeeQueue)?;
            if doomed {
                return Err(exception(Refusal::NotFound(queue_resource(&vhost, name))));
            }
            let record = self.vhost(&vhost)?.check_queue_passive(name, connection).map_err(exception)?.clone();
            return self.declared_there(connection, channel, request, &record);
        }
        if !server_named {
            reserved_queue_name(&vhost, name).map_err(exception)?;
        }
        self.authorize(place, &Operation::DeclareQueue { queue: name })?;
        let known = self.vhost(&vhost)?;
        if doomed || known.queue(name).is_none() {
            self.parts.access.may_add_queue(known, name, usize::from(doomed)).map_err(exception)?;
        }
        let declaration = QueueDeclaration {
            name,
            server_named: *server_named,
            durable: *durable,
            exclusive: *exclusive,
            auto_delete: *auto_delete,
            arguments: table(arguments)?,
            connection,
        };
        self.vhost(&vhost)?.refuse_server_named(&declaration).map_err(exception)?;
        let existing = self.vhost(&vhost)?.queue(name).filter(|_| !doomed);
        if let (None, Some(exchange)) = (existing, declaration.dead_letter_exchange()) {
            self.authorize(place, &Operation::SetDeadLetterExchange { queue: name, exchange: &exchange })?;
        }
        // A queue on its way out is no queue: the catalog declares a new one after it has deleted that one.
        let check = match doomed {
            true => Declare::New,
            false => self.vhost(&vhost)?.check_queue_declare(&declaration).map_err(exception)?,
        };
        match check {
            Declare::Existing(record) => self.declared_there(connection, channel, request, &record),
            Declare::New => {
                let waiter = Waiter::Declared { connection, channel, name: name.clone() };
                if *exclusive && let Some(id) = self.parts.meta.cluster().map(|cluster| cluster.announced_id()) {
                    let announcement = command::announce_queue(&vhost, &declaration, self.parts.node, id);
                    self.announce(&announcement, Some(id), waiter);
                    return Ok(None);
                }
                let lost = self.vhost(&vhost)?.queue(name).filter(|record| self.is_gone_with_its_node(record));
                if let Some(id) = lost.map(|record| record.id) {
                    // The log will say so before long; what is declared now comes after it.
                    self.propose(command::delete_queues([id]), Waiter::Nobody);
                }
                let node = self.place_of_queue(&declaration);
                self.propose(command::declare_queue(&vhost, &declaration, node), waiter);
                Ok(None)
            }
        }
    }

    /// Whether a queue of that name is being deleted: it is still in the catalog, but gone to clients.
    fn is_doomed(&self, vhost: &VhostName, name: &str) -> Result<bool, Exception> {
        let Some(record) = self.vhost(vhost)?.queue(name) else { return Ok(false) };
        Ok(self.is_gone_with_its_node(record) || self.queues.get(&record.id).is_some_and(|local| local.is_leaving()))
    }

    /// declare-ok for a queue that exists, here or elsewhere.
    fn declared_there(&mut self, connection: u64, channel: u16, request: &Request, record: &QueueRecord) -> Answer {
        let (name, queue) = (record.name.as_str(), record.id);
        let Some(node) = self.reachable_home(record)? else { return Ok(Some(self.declared(name, queue))) };
        let request = Some(Box::new(request.clone()));
        let question = Question::Declared { connection, channel, queue, name: name.into(), request };
        self.ask_for_counts(node, queue, question);
        Ok(None)
    }

    /// A queue's counts, as declare-ok tells them. To ask for them is to use the queue.
    pub(super) fn declared(&mut self, name: &str, id: QueueId) -> Reply {
        let (messages, consumers) = self.counts_of(id);
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Reply::Declared { name: name.into(), messages: count(messages), consumers: count(consumers) }
    }

    fn purge_queue(&mut self, place: usize, channel: u16, name: &str) -> Answer {
        let id = self.usable_queue(place, name, &Operation::Purge { queue: name })?;
        if let Some(node) = self.home_of(id) {
            let connection = self.clients[place].number;
            self.ask_to_purge(node, id, Question::Purged { connection, channel, queue: id });
            return Ok(None);
        }
        let messages = self.queues.get(&id).map_or(0, |local| local.queue.ready_count());
        self.feed(id, queue::Input::Purge);
        Ok(Some(Reply::Purged { messages: u32::try_from(messages).unwrap_or(u32::MAX) }))
    }

    fn delete_queue(&mut self, place: usize, channel: u16, name: &str, if_unused: bool, if_empty: bool) -> Answer {
        let vhost = self.vhost_name(place)?;
        let connection = self.clients[place].number;
        self.authorize(place, &Operation::DeleteQueue { queue: name })?;
        let record = match self.vhost(&vhost)?.check_queue_delete(name, connection).map_err(exception)? {
            Delete::Missing => return Ok(Some(Reply::Deleted { messages: 0 })),
            Delete::Existing(record) => record,
        };
        if record.queue_type() == QueueType::Quorum {
            let flag = if_unused.then_some("if-unused").or_else(|| if_empty.then_some("if-empty"));
            if let Some(flag) = flag {
                return Err(exception(Refusal::ConditionOfQuorum(record.resource(), flag)));
            }
        }
        if let Some(node) = self.reachable_home(&record)? {
            let question = Question::Deleted { connection, channel, queue: record.id, if_unused, if_empty };
            self.ask_for_counts(node, record.id, question);
            return Ok(None);
        }
        let mut messages = 0;
        if let Some(local) = self.queues.get_mut(&record.id) {
            // As in RabbitMQ, what is delivered and not settled does not count.
            if if_empty && local.queue.ready_count() > 0 {
                return Err(exception(Refusal::NotEmpty(vhost, record.name.clone())));
            }
            if if_unused && local.queue.consumer_count() > 0 {
                return Err(exception(Refusal::InUse(record.resource())));
            }
            messages = u32::try_from(local.queue.ready_count()).unwrap_or(u32::MAX);
            if !local.is_leaving() {
                local.leaving = Leaving::Asked;
            }
        }
        self.propose_deletion(vec![record.id], Waiter::Deleted { connection, channel, messages });
        Ok(None)
    }

    fn get(&mut self, place: usize, channel: u16, name: &str, no_ack: bool) -> Answer {
        let id = self.usable_queue(place, name, &Operation::Get { queue: name })?;
        let channel = self.clients[place].channel_key(channel);
        match self.home_of(id) {
            Some(node) => self.links.get(node, id, channel, no_ack),
            None => self.feed(id, queue::Input::Get { channel, no_ack }),
        }
        Ok(None)
    }

    fn consume(&mut self, place: usize, channel: u16, request: &Request, more: &mut Vec<Output>) {
        match self.start_consumer(place, channel, request) {
            Ok((queue, settings)) => {
                if let Some(node) = self.home_of(queue) {
                    return self.ask_to_consume(node, queue, &settings);
                }
                let consumer = settings.key.consumer;
                self.answer(place, channel, Ok(Some(Reply::ConsumeOk { consumer })), more);
                self.feed(queue, queue::Input::Consume(settings));
            }
            Err(exception) => self.answer(place, channel, Err(exception), more),
        }
    }

    fn start_consumer(
        &mut self,
        place: usize,
        channel: u16,
        request: &Request,
    ) -> Result<(QueueId, ConsumerSettings), Exception> {
        let Request::Consume { queue, no_ack, exclusive, prefetch, arguments, under_channel_limit, .. } = request
        else {
            return Err(Exception::internal("not a consume"));
        };
        let id = self.usable_queue(place, queue, &Operation::Consume { queue })?;
        let vhost = self.vhost_name(place)?;
        let record = self.parts.topology.queue_by_id(id);
        let quorum = record.is_some_and(|record| record.queue_type() == QueueType::Quorum);
        if quorum && *under_channel_limit {
            return Err(exception(Refusal::GlobalQosOfQuorum(queue_resource(&vhost, queue))));
        }
        let priority = consumer_arguments(table(arguments)?, &queue_resource(&vhost, queue))?;
        // A queue elsewhere is asked.
        let local = self.queues.get(&id);
        let elsewhere = local.is_none();
        if local.is_some_and(|local| !local.queue.may_consume(*exclusive)) {
            return Err(exception(Refusal::ExclusiveUse(vhost, (**queue).into())));
        }
        let client = &mut self.clients[place];
        let room_bytes = client.room_of_next_consumer(elsewhere);
        let consumer = ClientConsumer { queue: id, channel, no_ack: *no_ack, room_bytes, spent: 0 };
        let handle = client.add_consumer(consumer);
        let limit = client.limit(channel).cloned();
        let key = queue::ConsumerKey { channel: client.channel_key(channel), consumer: handle };
        let (no_ack, exclusive, prefetch) = (*no_ack, *exclusive, *prefetch);
        Ok((id, ConsumerSettings { key, no_ack, exclusive, prefetch, priority, room_bytes, limit }))
    }

    /// Where a queue goes with its last consumer, cancel-ok waits until it is gone.
    fn cancel(&mut self, place: usize, channel: u16, handle: u32) -> Answer {
        let connection = self.clients[place].number;
        if let Some(node) = self.home_of_consumer(place, handle) {
            self.ask_to_cancel(node, place, channel, handle);
            return Ok(None);
        }
        let deletion = self.next_proposal;
        self.cancel_consumer(place, handle);
        if self.next_proposal == deletion {
            return Ok(Some(Reply::Done));
        }
        self.waiters.insert(deletion, Waiter::Done { connection, channel });
        Ok(None)
    }

    pub(super) fn cancel_consumer(&mut self, place: usize, handle: u32) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(key) = client.consumer_key(handle) else { return };
        let Some(consumer) = client.remove_consumer(handle) else { return };
        self.give_held_back(key.channel, Some(handle));
        self.feed(consumer.queue, queue::Input::Cancel(key));
    }

    /// A channel's consumers end with it.
    pub(super) fn cancel_consumers(&mut self, place: usize, channel: u16) {
        if let Some(key) = self.clients.get(place).map(|client| client.channel_key(channel)) {
            self.give_held_back(key, None);
            for _ in 0..self.links.forget_gets(key) {
                // Nobody hears this, but the next channel of that number waits for it.
                self.replies.push_back((key.connection, channel, Reply::GetEmpty));
            }
            self.parts.replies.forget(key);
        }
        let Some(client) = self.clients.get_mut(place) else { return };
        client.limits.retain(|(other, ..)| *other != channel);
        if !client.shared_confirms.is_empty() {
            // A transaction that is being stored still has its answer, which the connection then passes over.
            client
                .shared_confirms
                .retain(|(other, publish_seq), _| *other != channel || publish_seq & TRANSACTION != 0);
        }
        for (_, _, key) in client.consumers_of(channel) {
            self.cancel_consumer(place, key.consumer);
        }
    }

    /// The last consumer of a queue is gone: if the queue is auto-delete, so is it.
    pub(super) fn last_consumer_gone(&mut self, id: QueueId) {
        let Some(local) = self.queues.get_mut(&id) else { return };
        if local.record.auto_delete && local.leaves_by_itself() {
            self.propose_deletion(vec![id], Waiter::Nobody);
        }
    }

    /// A queue goes for a reason of its own.
    pub(super) fn delete_by_itself(&mut self, id: QueueId, why: &str) {
        let Some(local) = self.queues.get_mut(&id) else { return };
        if local.leaves_by_itself() {
            let record = &local.record;
            tracing::debug!(queue = record.name.as_str(), vhost = record.vhost.as_str(), why, "queue deleted");
            self.propose_deletion(vec![id], Waiter::Nobody);
        }
    }

    /// Exclusive queues go with their connection.
    pub(super) fn delete_exclusive_queues(&mut self, place: usize) -> bool {
        let Some(client) = self.clients.get_mut(place) else { return false };
        let mut ids: Vec<QueueId> = std::mem::take(&mut client.exclusive).into_iter().collect();
        let (connection, goodbye) = (client.number, client.goodbye);
        ids.retain(|id| self.queues.get_mut(id).is_some_and(|local| local.leaves_by_itself()));
        if ids.is_empty() {
            return false;
        }
        let waiter = if goodbye { Waiter::Goodbye { connection } } else { Waiter::Nobody };
        self.propose_deletion(ids, waiter);
        true
    }

    /// The client closes its connection: close-ok follows once its exclusive queues are gone.
    pub(super) fn say_goodbye(&mut self, place: usize, more: &mut Vec<Output>) {
        self.uncount(place);
        let Some(client) = self.clients.get_mut(place) else { return };
        client.goodbye = true;
        if !self.delete_exclusive_queues(place)
            && let Some(client) = self.clients.get_mut(place)
        {
            client.amqp.step(self.now, Input::ConnectionClosed, more);
        }
    }

    /// Whether a message may be published where it wants to go.
    pub(super) fn publishable(&self, place: usize, content: Content<'_>) -> Result<(), Exception> {
        let (user, vhost) = (self.user_name(place)?, self.vhost_name(place)?);
        let vhost = self.vhost(&vhost)?;
        let exchange = exchange_name(content.route())?;
        let may = |key| self.parts.access.authorize(&user, vhost, &Operation::Publish { exchange, key });
        may(content.routing_key()).map_err(exception)?;
        vhost.publishable_exchange(exchange).map_err(exception)?;
        // Else CC and BCC headers would be a way around topic permissions.
        copy_keys_in(content.header()).try_for_each(may).map_err(exception)
    }

    /// Where a message goes. Remembered by exchange and routing key where nothing else decides.
    pub(super) fn route(&mut self, place: usize, content: Content<'_>) -> Result<Arc<Route>, Exception> {
        let copies = has_copy_keys(content.header()).map_err(exception)?;
        if !copies && is_reply(content.route()) {
            return self.route_reply(place, content);
        }
        if !copies
            && let Some(client) = self.clients.get_mut(place)
            && let Some(route) = client.routes.find(self.generation, content.route())
        {
            return Ok(route);
        }
        self.publishable(place, content)?;
        let vhost = self.vhost_name(place)?;
        let exchange = exchange_name(content.route())?;
        let dice = self.throw_dice();
        let topology = self.vhost(&vhost)?;
        let mut reached = Reached::default();
        let message = Routable { routing_key: content.routing_key(), header: content.header(), dice, may_wait: true };
        topology.route(exchange, &message, &mut reached).map_err(|_| Exception::internal("an exchange vanished"))?;
        let cacheable = !copies && topology.routes_by_key(exchange);
        let Reached { queues: mut ids, kept_by, held_by } = reached;
        ids.retain(|id| self.is_there(*id));
        let holders = held_by.iter().filter_map(|exchange| exchange.holder).filter(|id| self.queues.contains_key(id));
        ids.extend(holders);
        let held = held_by.len().min(ids.len());
        let (key, stores_all) = (content.route().into(), self.any_stores_all(&ids));
        let mut route = Route { key, queues: ids.into_iter().collect(), stores_all, held, kept_by, ..Route::default() };
        self.split_by_node(&mut route);
        let route = Arc::new(route);
        // A route to nowhere is not remembered: declaring a queue does not change the generation.
        if cacheable
            && !route.queues.is_empty()
            && let Some(client) = self.clients.get_mut(place)
        {
            client.routes.remember(&route);
        }
        Ok(route)
    }

    pub(super) fn vhost_name(&self, place: usize) -> Result<VhostName, Exception> {
        let vhost = self.clients.get(place).and_then(|client| client.vhost.as_deref());
        vhost.map(VhostName::from).ok_or_else(|| Exception::internal("no vhost was opened"))
    }

    fn vhost(&self, name: &VhostName) -> Result<&Vhost, Exception> {
        self.parts.topology.vhost_or_refuse(name).map_err(exception)
    }

    /// A queue the connection's user may read and the connection may use.
    fn usable_queue(&mut self, place: usize, name: &str, operation: &Operation<'_>) -> Result<QueueId, Exception> {
        let vhost = self.vhost_name(place)?;
        self.authorize(place, operation)?;
        let number = self.clients[place].number;
        let record = self.vhost(&vhost)?.usable_queue(name, number).map_err(exception)?.clone();
        let id = record.id;
        if self.reachable_home(&record)?.is_some() {
            return Ok(id);
        }
        if self.queues.get(&id).is_none_or(|local| local.is_leaving()) {
            return Err(exception(Refusal::NotFound(queue_resource(&vhost, name))));
        }
        Ok(id)
    }

    /// Whether a client's user may do that in the client's vhost, as the rules are now. Asked for every operation, before anything else is.
    pub(super) fn authorize(&self, place: usize, operation: &Operation<'_>) -> Result<(), Exception> {
        let vhost = self.vhost(&self.vhost_name(place)?)?;
        self.parts.access.authorize(&self.user_name(place)?, vhost, operation).map_err(exception)
    }

    pub(super) fn user_name(&self, place: usize) -> Result<UserName, Exception> {
        let user = self.clients.get(place).and_then(|client| client.amqp.user());
        user.map(|user| UserName::from(&**user)).ok_or_else(|| Exception::internal("nobody is logged in"))
    }

    fn propose_for(&mut self, place: usize, channel: u16, command: Command) -> Answer {
        let connection = self.clients[place].number;
        self.propose(command, Waiter::Done { connection, channel });
        Ok(None)
    }

    pub(super) fn propose(&mut self, command: Command, waiter: Waiter) {
        let number = self.next_proposal;
        self.next_proposal += 1;
        self.waiters.insert(number, waiter);
        self.parts.meta.propose(number, command);
    }
}

/// What a consumer's arguments say, of those that a classic queue knows: its priority, any integer, 0 without it.
fn consumer_arguments(arguments: FieldTable<'_>, queue: &Resource) -> Result<i64, Exception> {
    let invalid = |name: &str, why: String| {
        Exception::new(ReplyCode::PreconditionFailed, format!("invalid arg '{name}' for {queue}{why}"))
    };
    let mut priority = 0;
    if let Some(value) = arguments.lookup(b"x-priority") {
        let number = value.integer().and_then(|number| i64::try_from(number).ok());
        let why = || format!(": \"expected integer, got {}\"", value.type_name());
        priority = number.ok_or_else(|| invalid("x-priority", why()))?;
    }
    // Without effect: there is no failover that a consumer would not notice anyway.
    let failover = "x-cancel-on-ha-failover";
    if let Some(value) = arguments.lookup(failover.as_bytes())
        && !matches!(value, Value::Bool(_))
    {
        return Err(invalid(failover, format!(": {{unacceptable_type,{}}}", value.type_name())));
    }
    if arguments.lookup(b"x-stream-offset").is_some() {
        return Err(invalid("x-stream-offset", " of queue type rabbit_classic_queue".into()));
    }
    Ok(priority)
}

/// Arguments as they came, which the connection has found well formed.
fn table(arguments: &[u8]) -> Result<FieldTable<'_>, Exception> {
    FieldTable::parse(arguments).map_err(|error| Exception::new(ReplyCode::SyntaxError, error.to_string()))
}

/// A refusal as the exception that tells it.
pub(super) fn exception(refusal: Refusal) -> Exception {
    let reply = refusal.reply();
    let code = match reply.code {
        402 => ReplyCode::InvalidPath,
        403 => ReplyCode::AccessRefused,
        404 => ReplyCode::NotFound,
        405 => ReplyCode::ResourceLocked,
        406 => ReplyCode::PreconditionFailed,
        503 => ReplyCode::CommandInvalid,
        530 => ReplyCode::NotAllowed,
        540 => ReplyCode::NotImplemented,
        _ => ReplyCode::InternalError,
    };
    let exception = Exception::new(code, refusal.to_string());
    if reply.closes_connection { exception.on_connection() } else { exception }
}

pub(super) fn queue_resource(vhost: &VhostName, name: &str) -> Resource {
    Resource::Queue(vhost.clone(), name.into())
}

/// Exchanges have names of UTF-8; what is none names no exchange.
fn exchange_name(route: &[u8]) -> Result<&str, Exception> {
    let (exchange, _) = split_route(route).ok_or_else(|| Exception::internal("a route that is none"))?;
    std::str::from_utf8(exchange).map_err(|_| Exception::internal("an exchange's name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn consumer_arguments_are_checked_as_by_rabbitmq() {
        let check = |octets: &'static [u8]| {
            let arguments = FieldTable::parse(octets).unwrap();
            consumer_arguments(arguments, &queue_resource(&"/".into(), "q")).map_err(|refused| refused.text)
        };
        let invalid = |what: &str| Err(format!("invalid arg {what}"));
        assert_eq!(check(b""), Ok(0));
        assert_eq!(check(b"\x0ax-priorityI\xff\xff\xff\xfb"), Ok(-5));
        assert_eq!(check(b"\x17x-cancel-on-ha-failovert\x01"), Ok(0));
        assert_eq!(check(b"\x12x-consumer-timeoutS\0\0\0\x01x"), Ok(0));
        assert_eq!(
            check(b"\x0ax-priorityS\0\0\0\x015"),
            invalid("'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"")
        );
        assert_eq!(
            check(b"\x17x-cancel-on-ha-failoverS\0\0\0\x01x"),
            invalid("'x-cancel-on-ha-failover' for queue 'q' in vhost '/': {unacceptable_type,longstr}")
        );
        assert_eq!(
            check(b"\x0fx-stream-offsetS\0\0\0\x05first"),
            invalid("'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")
        );
    }
}
