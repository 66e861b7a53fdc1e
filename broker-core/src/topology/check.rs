//! What a declaration, deletion or binding would come to, asked before it is proposed: the answer, or RabbitMQ's refusal.
//!
//! Checks come in RabbitMQ's order, so that of several faults the same one is named. Permissions are asked elsewhere, where the order wants
//! them: after `reserved_queue_name` or `ExchangeKind::parse` and [`refuse_default_exchange`], before the rest.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Binding, Destination, ExchangeRecord, QueueRecord, Topology, Vhost};
use crate::arguments::{
    ALTERNATE_EXCHANGE, ARGUMENTS_MAX_BYTES, COMPARED_FOR_EXCHANGES, DEAD_LETTER_EXCHANGE, QUEUE_TYPE, QueueArguments,
    QueueType,
};
use crate::exchange::ExchangeKind;
use crate::field_table::{Arguments, FieldTable, Value};
use crate::name::{ExchangeName, QueueName, RESERVED_PREFIX, VhostName};
use crate::refusal::{Refusal, Resource};

/// What a client says of a queue it declares.
#[derive(Clone, Copy, Debug)]
pub struct QueueDeclaration<'a> {
    /// The name, without line breaks; chosen by the broker if `server_named`.
    pub name: &'a str,
    /// Whether the client left the name to the broker.
    pub server_named: bool,
    /// Whether it shall survive restarts.
    pub durable: bool,
    /// Whether it shall belong to the connection.
    pub exclusive: bool,
    /// Whether it shall go with its last consumer.
    pub auto_delete: bool,
    /// Arguments.
    pub arguments: FieldTable<'a>,
    /// Who declares.
    pub connection: u64,
}

/// What a client says of an exchange it declares.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeDeclaration<'a> {
    /// The name, without line breaks.
    pub name: &'a str,
    /// The type, already parsed.
    pub kind: ExchangeKind,
    /// Whether it shall survive restarts.
    pub durable: bool,
    /// Whether it shall go with its last binding.
    pub auto_delete: bool,
    /// Whether clients shall not publish to it.
    pub internal: bool,
    /// Arguments.
    pub arguments: FieldTable<'a>,
}

impl<'a> ExchangeDeclaration<'a> {
    /// The exchange that shall get what this one cannot route. Whoever declares that needs the right to read this one and to write that one.
    pub fn alternate_exchange(&self) -> Option<&'a str> {
        self.arguments.lookup(ALTERNATE_EXCHANGE.as_bytes())?.text()
    }
}

impl<'a> QueueDeclaration<'a> {
    /// The exchange that shall get its dead messages, as [`QueueArguments`] has it. Whoever declares that needs the right to read this queue
    /// and to write that exchange.
    pub fn dead_letter_exchange(&self) -> Option<Cow<'a, str>> {
        match self.arguments.lookup(DEAD_LETTER_EXCHANGE.as_bytes())? {
            Value::LongString(octets) => Some(String::from_utf8_lossy(octets)),
            _ => None,
        }
    }
}

/// What declaring would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declare<T> {
    /// It exists and is equal.
    Existing(Arc<T>),
    /// It can be made.
    New,
}

/// What deleting would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delete<T> {
    /// It exists and can be deleted.
    Existing(Arc<T>),
    /// There is nothing of that name, which is fine.
    Missing,
}

/// What binding or unbinding would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingCheck {
    /// This binding exists.
    Existing(Binding),
    /// This binding does not exist; source and destination do.
    Missing(Binding),
    /// Source or destination do not exist: said of an unbind only, which is fine.
    Nothing,
}

impl Topology {
    /// The vhost of that name, or the refusal.
    pub fn vhost_or_refuse(&self, vhost: &VhostName) -> Result<&Vhost, Refusal> {
        self.vhost(vhost).ok_or_else(|| Refusal::NoVhost(vhost.clone()))
    }
}

impl Vhost {
    /// The queue of that name, or 404.
    pub fn queue_or_refuse(&self, name: &str) -> Result<&Arc<QueueRecord>, Refusal> {
        self.queue(name).ok_or_else(|| Refusal::NotFound(self.queue_resource(name)))
    }

    /// The queue of that name, if this connection may use it; else 404 or 405.
    pub fn usable_queue(&self, name: &str, connection: u64) -> Result<&Arc<QueueRecord>, Refusal> {
        let queue = self.queue_or_refuse(name)?;
        check_owner(queue, connection)?;
        Ok(queue)
    }

    /// The exchange of that name, or 404.
    pub fn exchange_or_refuse(&self, name: &str) -> Result<&Arc<ExchangeRecord>, Refusal> {
        self.exchange(name).ok_or_else(|| Refusal::NotFound(self.exchange_resource(name)))
    }

    /// The exchange a client publishes to: 404 if missing, 403 if internal.
    pub fn publishable_exchange(&self, name: &str) -> Result<&Arc<ExchangeRecord>, Refusal> {
        let exchange = self.exchange_or_refuse(name)?;
        if exchange.internal {
            return Err(Refusal::InternalExchange(self.name().clone(), exchange.name.clone()));
        }
        Ok(exchange)
    }

    /// What an active `queue.declare` would come to. The right to configure the queue is asked after `reserved_queue_name` and before this.
    pub fn check_queue_declare(&self, declaration: &QueueDeclaration<'_>) -> Result<Declare<QueueRecord>, Refusal> {
        if !declaration.server_named {
            reserved_queue_name(self.name(), declaration.name)?;
        }
        if let Some(queue) = self.queue(declaration.name) {
            self.check_equivalent_queue(queue, declaration)?;
            return Ok(Declare::Existing(queue.clone()));
        }
        let resource = || self.queue_resource(declaration.name);
        name_argument(declaration.arguments, DEAD_LETTER_EXCHANGE, resource)?;
        let default_type = self.type_to_fill_in(declaration).unwrap_or_default();
        let name = QueueName::from(declaration.name);
        let arguments = QueueArguments::parse(self.name(), &name, declaration.arguments, default_type)?;
        if arguments.queue_type == QueueType::Quorum {
            check_quorum_properties(declaration, resource)?;
        }
        check_size(declaration.arguments)?;
        Ok(Declare::New)
    }

    /// The refusal for leaving the name of a quorum queue to the broker, asked before everything else.
    pub fn refuse_server_named(&self, declaration: &QueueDeclaration<'_>) -> Result<(), Refusal> {
        let queue_type = QueueType::of(declaration.arguments).or_else(|| self.type_to_fill_in(declaration));
        match queue_type {
            Some(QueueType::Quorum) if declaration.server_named => Err(Refusal::ServerNamed(QueueType::Quorum)),
            _ => Ok(()),
        }
    }

    /// The type that this queue has because the vhost says so; it is kept among its arguments as if it had been said.
    pub fn type_to_fill_in(&self, declaration: &QueueDeclaration<'_>) -> Option<QueueType> {
        let queue_type = self.record().default_queue_type?;
        let fits = declaration.durable && !declaration.exclusive && !declaration.auto_delete;
        (fits && declaration.arguments.lookup(QUEUE_TYPE.as_bytes()).is_none()).then_some(queue_type)
    }

    /// What a `queue.declare` with passive would come to.
    pub fn check_queue_passive(&self, name: &str, connection: u64) -> Result<&Arc<QueueRecord>, Refusal> {
        self.usable_queue(name, connection)
    }

    /// What a `queue.delete` would come to. Whether it is used or empty only its master knows.
    pub fn check_queue_delete(&self, name: &str, connection: u64) -> Result<Delete<QueueRecord>, Refusal> {
        match self.queue(name) {
            None => Ok(Delete::Missing),
            Some(queue) => {
                check_owner(queue, connection)?;
                Ok(Delete::Existing(queue.clone()))
            }
        }
    }

    /// What an active `exchange.declare` would come to. The right to configure it is asked after [`refuse_default_exchange`], before this.
    pub fn check_exchange_declare(
        &self,
        declaration: &ExchangeDeclaration<'_>,
    ) -> Result<Declare<ExchangeRecord>, Refusal> {
        refuse_default_exchange(declaration.name)?;
        if let Some(exchange) = self.exchange(declaration.name) {
            check_equivalent_exchange(exchange, declaration)?;
            return Ok(Declare::Existing(exchange.clone()));
        }
        reserved_exchange_name(self.name(), declaration.name)?;
        name_argument(declaration.arguments, ALTERNATE_EXCHANGE, || self.exchange_resource(declaration.name))?;
        declaration.kind.check_arguments(declaration.arguments)?;
        check_size(declaration.arguments)?;
        Ok(Declare::New)
    }

    /// What an `exchange.declare` with passive would come to.
    pub fn check_exchange_passive(&self, name: &str) -> Result<&Arc<ExchangeRecord>, Refusal> {
        refuse_default_exchange(name)?;
        self.exchange_or_refuse(name)
    }

    /// What an `exchange.delete` would come to. The right to configure it is asked after [`refuse_system_exchange`], before this.
    pub fn check_exchange_delete(&self, name: &str, if_unused: bool) -> Result<Delete<ExchangeRecord>, Refusal> {
        refuse_system_exchange(self.name(), name)?;
        let Some(exchange) = self.exchange(name) else { return Ok(Delete::Missing) };
        if if_unused && self.bindings_from(name).next().is_some() {
            return Err(Refusal::InUse(exchange.resource()));
        }
        Ok(Delete::Existing(exchange.clone()))
    }

    /// What a `queue.bind` or `exchange.bind` would come to. The right to write the destination is asked first, then
    /// [`refuse_default_exchange`] for both ends, then the right to read the source, then this.
    pub fn check_bind(
        &self,
        source: &str,
        destination: &Destination,
        routing_key: &[u8],
        arguments: FieldTable<'_>,
        connection: u64,
    ) -> Result<BindingCheck, Refusal> {
        self.refuse_default_ends(source, destination)?;
        let exchange = self.exchange_or_refuse(source)?;
        let queue = self.check_destination(destination)?;
        exchange.matching_kind().check_binding(routing_key, arguments)?;
        if let Some(queue) = queue {
            check_owner(queue, connection)?;
        }
        check_size(arguments)?;
        Ok(self.look_up_binding(binding(source, destination, routing_key, arguments)))
    }

    /// What a `queue.unbind` or `exchange.unbind` would come to; rights as for [`Vhost::check_bind`].
    pub fn check_unbind(
        &self,
        source: &str,
        destination: &Destination,
        routing_key: &[u8],
        arguments: FieldTable<'_>,
        connection: u64,
    ) -> Result<BindingCheck, Refusal> {
        self.refuse_default_ends(source, destination)?;
        let (Some(_), Ok(queue)) = (self.exchange(source), self.check_destination(destination)) else {
            return Ok(BindingCheck::Nothing);
        };
        let check = self.look_up_binding(binding(source, destination, routing_key, arguments));
        if let (BindingCheck::Existing(_), Some(queue)) = (&check, queue) {
            check_owner(queue, connection)?;
        }
        Ok(check)
    }

    fn refuse_default_ends(&self, source: &str, destination: &Destination) -> Result<(), Refusal> {
        if let Destination::Exchange(name) = destination {
            refuse_default_exchange(name)?;
        }
        refuse_default_exchange(source)
    }

    /// The queue a binding leads to, or none if it leads to an exchange; 404 if there is no such thing.
    fn check_destination(&self, destination: &Destination) -> Result<Option<&Arc<QueueRecord>>, Refusal> {
        match destination {
            Destination::Queue(name) => self.queue_or_refuse(name).map(Some),
            Destination::Exchange(name) => self.exchange_or_refuse(name).map(|_| None),
        }
    }

    fn look_up_binding(&self, binding: Binding) -> BindingCheck {
        if self.has_binding(&binding) { BindingCheck::Existing(binding) } else { BindingCheck::Missing(binding) }
    }

    fn check_equivalent_queue(&self, queue: &QueueRecord, declaration: &QueueDeclaration<'_>) -> Result<(), Refusal> {
        let owner = declaration.exclusive.then_some(declaration.connection);
        if queue.exclusive_owner != owner {
            return Err(Refusal::Locked(queue.vhost.clone(), queue.name.clone()));
        }
        let resource = || queue.resource();
        let durable = declaration.durable && !declaration.exclusive;
        compare_property("durable", durable, queue.durable, resource)?;
        compare_property("auto_delete", declaration.auto_delete, queue.auto_delete, resource)?;
        let compared = queue.queue_type().compared();
        let filled_in = self.type_to_fill_in(declaration);
        compare_arguments(compared, declaration.arguments, filled_in, &queue.arguments, resource)
    }

    fn queue_resource(&self, name: &str) -> Resource {
        Resource::Queue(self.name().clone(), QueueName::from(name))
    }

    fn exchange_resource(&self, name: &str) -> Resource {
        Resource::Exchange(self.name().clone(), ExchangeName::from(name))
    }
}

/// The refusal for a queue's name that begins with `amq.`, whether or not there is such a queue.
pub fn reserved_queue_name(vhost: &VhostName, name: &str) -> Result<(), Refusal> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Refusal::ReservedPrefix(Resource::Queue(vhost.clone(), name.into())));
    }
    Ok(())
}

/// The refusal for a new exchange's name that begins with `amq.`.
pub fn reserved_exchange_name(vhost: &VhostName, name: &str) -> Result<(), Refusal> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Refusal::ReservedPrefix(Resource::Exchange(vhost.clone(), name.into())));
    }
    Ok(())
}

/// The refusal for changing the default exchange.
pub fn refuse_default_exchange(name: &str) -> Result<(), Refusal> {
    if name.is_empty() { Err(Refusal::DefaultExchange) } else { Ok(()) }
}

/// The refusal for deleting the default or a predeclared exchange.
pub fn refuse_system_exchange(vhost: &VhostName, name: &str) -> Result<(), Refusal> {
    refuse_default_exchange(name)?;
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Refusal::SystemExchange(vhost.clone(), name.into()));
    }
    Ok(())
}

/// A quorum queue is durable and everybody's, and stays without consumers.
fn check_quorum_properties(declaration: &QueueDeclaration<'_>, resource: impl Fn() -> Resource) -> Result<(), Refusal> {
    let property = match declaration {
        QueueDeclaration { auto_delete: true, .. } => "auto-delete",
        QueueDeclaration { exclusive: true, .. } => "exclusive-owner",
        QueueDeclaration { durable: false, .. } => "non-durable",
        _ => return Ok(()),
    };
    Err(Refusal::InvalidProperty { resource: resource(), property })
}

/// An exclusive queue is its owner's alone.
fn check_owner(queue: &QueueRecord, connection: u64) -> Result<(), Refusal> {
    match queue.exclusive_owner {
        Some(owner) if owner != connection => Err(Refusal::Locked(queue.vhost.clone(), queue.name.clone())),
        _ => Ok(()),
    }
}

fn binding(source: &str, destination: &Destination, routing_key: &[u8], arguments: FieldTable<'_>) -> Binding {
    Binding {
        source: source.into(),
        destination: destination.clone(),
        routing_key: Arc::from(routing_key),
        arguments: Arguments::sorted(arguments),
    }
}

fn check_equivalent_exchange(exchange: &ExchangeRecord, declaration: &ExchangeDeclaration<'_>) -> Result<(), Refusal> {
    let resource = || exchange.resource();
    if exchange.kind != declaration.kind {
        return Err(Refusal::Inequivalent {
            resource: resource(),
            argument: "type".into(),
            received: type_in_text(declaration.kind),
            current: type_in_text(exchange.kind),
        });
    }
    compare_property("durable", declaration.durable, exchange.durable, resource)?;
    compare_property("auto_delete", declaration.auto_delete, exchange.auto_delete, resource)?;
    compare_property("internal", declaration.internal, exchange.internal, resource)?;
    compare_arguments(COMPARED_FOR_EXCHANGES, declaration.arguments, None, &exchange.arguments, resource)
}

/// RabbitMQ shows the names of types as Erlang's atoms, of which some stand in quotes of their own.
fn type_in_text(kind: ExchangeKind) -> String {
    let name = kind.name();
    if name.contains('-') { format!("''{name}''") } else { format!("'{name}'") }
}

fn compare_property(
    property: &str,
    received: bool,
    current: bool,
    resource: impl Fn() -> Resource,
) -> Result<(), Refusal> {
    if received == current {
        return Ok(());
    }
    Err(Refusal::Inequivalent {
        resource: resource(),
        argument: property.into(),
        received: format!("'{received}'"),
        current: format!("'{current}'"),
    })
}

fn compare_arguments(
    names: &[&str],
    received: FieldTable<'_>,
    filled_in: Option<QueueType>,
    current: &Arguments,
    resource: impl Fn() -> Resource,
) -> Result<(), Refusal> {
    if received.is_empty() && filled_in.is_none() && current.is_empty() {
        return Ok(());
    }
    for name in names {
        let filled_in = filled_in.filter(|_| *name == QUEUE_TYPE);
        let received = received
            .lookup(name.as_bytes())
            .or_else(|| filled_in.map(|queue_type| Value::LongString(queue_type.name().as_bytes())));
        let current = current.table().lookup(name.as_bytes());
        let (received, current) = match (received, current) {
            (None, None) => continue,
            (Some(one), Some(other)) if one.same_argument(&other) => continue,
            (Some(Value::LongString(b"classic")), None) | (None, Some(Value::LongString(b"classic")))
                if *name == QUEUE_TYPE =>
            {
                continue;
            }
            (Some(one), Some(other)) => (quoted(one), quoted(other)),
            (one, other) => (with_type(one), with_type(other)),
        };
        return Err(Refusal::Inequivalent { resource: resource(), argument: (*name).into(), received, current });
    }
    Ok(())
}

/// A value, as a text about an argument that both sides have shows it.
fn quoted(value: Value<'_>) -> String {
    match value {
        Value::Void => "none".into(),
        value => format!("'{}'", value.pretty()),
    }
}

/// A value and its type, as a text about an argument that one side lacks shows it.
fn with_type(value: Option<Value<'_>>) -> String {
    match value {
        None => "none".into(),
        Some(value) => format!("the value '{}' of type '{}'", value.pretty(), value.type_name()),
    }
}

/// An argument that names an exchange must be a long string.
fn name_argument(
    table: FieldTable<'_>,
    argument: &'static str,
    resource: impl Fn() -> Resource,
) -> Result<(), Refusal> {
    match table.lookup(argument.as_bytes()) {
        None | Some(Value::LongString(_)) => Ok(()),
        Some(value) => {
            Err(Refusal::InvalidNameArgument { resource: resource(), argument, type_name: value.type_name() })
        }
    }
}

fn check_size(arguments: FieldTable<'_>) -> Result<(), Refusal> {
    if arguments.octets().len() > ARGUMENTS_MAX_BYTES { Err(Refusal::ArgumentsTooLarge) } else { Ok(()) }
}
