//! What a topology holds: vhosts, exchanges, queues and bindings, as they were declared.

use std::sync::Arc;

use crate::arguments::{ALTERNATE_EXCHANGE, QueueArguments, QueueType};
use crate::exchange::{ExchangeKind, history_length};
use crate::field_table::Arguments;
use crate::name::{ExchangeName, NodeId, QueueId, QueueName, VhostName};
use crate::policy::Governing;
use crate::refusal::Resource;

/// A vhost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostRecord {
    /// Its name.
    pub name: VhostName,
    /// What an operator wrote about it.
    pub description: String,
    /// Tags an operator gave it.
    pub tags: Vec<String>,
    /// Whether messages are traced.
    pub tracing: bool,
    /// The type of durable, shared queues that are declared without one; it is filled in as if they had said it.
    pub default_queue_type: Option<QueueType>,
}

impl VhostRecord {
    /// A vhost of which nothing but its name is said.
    pub fn named(name: impl Into<VhostName>) -> Self {
        let (description, tags) = (String::new(), Vec::new());
        VhostRecord { name: name.into(), description, tags, tracing: false, default_queue_type: None }
    }
}

/// An exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRecord {
    /// Where it is.
    pub vhost: VhostName,
    /// Its name.
    pub name: ExchangeName,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether clients cannot publish to it.
    pub internal: bool,
    /// Arguments of its declaration.
    pub arguments: Arguments,
    /// The policies that govern it.
    pub policies: Governing,
    /// The identity under which the store keeps what it holds back, if it is of type x-delayed-message.
    pub holder: Option<QueueId>,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its identity.
    pub id: QueueId,
    /// Where it is.
    pub vhost: VhostName,
    /// Its name.
    pub name: QueueName,
    /// Whether it survives a restart; never true of an exclusive one.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// The connection it belongs to and goes with, if it is exclusive.
    pub exclusive_owner: Option<u64>,
    /// Arguments of its declaration.
    pub arguments: Arguments,
    /// The policies that govern it.
    pub policies: Governing,
    /// The node it lives on.
    pub node: NodeId,
}

/// A binding. Two bindings are the same if all four parts are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// The exchange that messages come from.
    pub source: ExchangeName,
    /// Where they go to.
    pub destination: Destination,
    /// The binding key: up to 255 octets.
    pub routing_key: Arc<[u8]>,
    /// Arguments, sorted by name.
    pub arguments: Arguments,
}

/// Where a binding leads, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To an exchange.
    Exchange(ExchangeName),
    /// To a queue.
    Queue(QueueName),
}

impl Destination {
    /// The destination with its vhost, for texts.
    pub fn resource(&self, vhost: &VhostName) -> Resource {
        match self {
            Destination::Exchange(name) => Resource::Exchange(vhost.clone(), name.clone()),
            Destination::Queue(name) => Resource::Queue(vhost.clone(), name.clone()),
        }
    }
}

impl ExchangeRecord {
    /// The exchange that gets what this one could not route: the argument names it, or else the policy. The default exchange has none and is none,
    /// for as in RabbitMQ it routes only what is published to it.
    pub fn alternate_exchange(&self) -> Option<&str> {
        if !self.arguments.is_empty()
            && let Some(name) = self.arguments.table().lookup(ALTERNATE_EXCHANGE.as_bytes())
        {
            return name.text().filter(|name| !name.is_empty());
        }
        if self.policies.is_empty() || self.name.is_empty() {
            return None;
        }
        self.policies.alternate_exchange().filter(|name| !name.is_empty())
    }

    /// What holds its messages back, as a queue that nobody can name. None if it holds nothing back.
    pub fn holding_queue(&self, node: NodeId) -> Option<QueueRecord> {
        Some(QueueRecord {
            id: self.holder?,
            vhost: self.vhost.clone(),
            name: self.name.as_str().into(),
            durable: self.durable,
            auto_delete: false,
            exclusive_owner: None,
            arguments: Arguments::default(),
            node,
            policies: Governing::default(),
        })
    }

    /// The type that finds targets: the inner one of an exchange that delays.
    pub fn matching_kind(&self) -> ExchangeKind {
        self.kind.matching(&self.arguments)
    }

    /// How many messages it keeps for queues that will be bound; none unless it is of type x-recent-history.
    pub fn history_length(&self) -> usize {
        match self.matching_kind() {
            ExchangeKind::RecentHistory => history_length(self.arguments.table()),
            _ => 0,
        }
    }

    /// The exchange with its vhost, for texts.
    pub fn resource(&self) -> Resource {
        Resource::Exchange(self.vhost.clone(), self.name.clone())
    }
}

impl QueueRecord {
    /// What arguments and policies come to together.
    pub fn settings(&self) -> QueueArguments {
        self.policies.settings(self.arguments.table(), QueueArguments::of_declared(&self.arguments))
    }

    /// Its type.
    pub fn queue_type(&self) -> QueueType {
        QueueType::of(self.arguments.table()).unwrap_or_default()
    }

    /// The queue with its vhost, for texts.
    pub fn resource(&self) -> Resource {
        Resource::Queue(self.vhost.clone(), self.name.clone())
    }
}

/// Exchanges that every vhost has: name, kind, internal. All are durable.
pub const PREDECLARED_EXCHANGES: &[(&str, ExchangeKind, bool)] = &[
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
    ("amq.topic", ExchangeKind::Topic, false),
];
