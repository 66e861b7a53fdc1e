//! Why something a client asked for is refused, with the code, the scope and the text RabbitMQ 3.10.8 answers with.

use std::fmt;

use crate::arguments::{BadArgument, QueueType};
use crate::name::{ExchangeName, QueueName, UserName, VhostName};

/// What a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An exchange of a vhost.
    Exchange(VhostName, ExchangeName),
    /// A queue of a vhost.
    Queue(VhostName, QueueName),
}

/// Why something is refused. Variants say what the client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It named an exchange or queue that does not exist.
    NotFound(Resource),
    /// The queue's node cannot be reached.
    HomeNodeDown {
        /// The node's name.
        node: String,
        /// The queue.
        queue: Resource,
    },
    /// It left the queue's name out, and had declared none on this channel.
    NoPreviouslyDeclaredQueue,
    /// It has no right to do that.
    AccessRefused {
        /// What it wanted to use.
        resource: Resource,
        /// As whom.
        user: UserName,
    },
    /// It has no right to use that routing key on a topic exchange.
    TopicRefused {
        /// The routing key or binding key, as text.
        key: String,
        /// The exchange.
        exchange: Resource,
        /// As whom.
        user: UserName,
    },
    /// The vhost has as many connections as it may.
    VhostFull {
        /// The vhost.
        vhost: VhostName,
        /// Who wanted to open it.
        user: UserName,
        /// How many it may have.
        limit: u64,
    },
    /// The user has as many connections as it may.
    UserFull {
        /// The user.
        user: UserName,
        /// How many it may have.
        limit: u64,
    },
    /// The vhost has as many queues as it may.
    QueueLimit {
        /// The queue it declared.
        queue: QueueName,
        /// The vhost.
        vhost: VhostName,
        /// How many it may have.
        limit: u64,
    },
    /// The queue has as many bindings as it may.
    BindingLimit {
        /// The queue.
        queue: Resource,
        /// How many it may have.
        limit: u64,
    },
    /// There are as many vhosts as there may be. Never an AMQP client's doing.
    VhostLimit {
        /// The vhost that was to be created.
        vhost: VhostName,
        /// How many there may be.
        limit: u64,
    },
    /// It declared a name that begins with `amq.`.
    ReservedPrefix(Resource),
    /// It wanted to change the default exchange.
    DefaultExchange,
    /// It wanted to delete a predeclared exchange.
    SystemExchange(VhostName, ExchangeName),
    /// It published to an internal exchange.
    InternalExchange(VhostName, ExchangeName),
    /// It wanted to consume exclusively where others consume, or to consume where someone does so exclusively.
    ExclusiveUse(VhostName, QueueName),
    /// The queue is another connection's, or is exclusive where the client says it is not.
    Locked(VhostName, QueueName),
    /// It declared something that exists with other properties or arguments.
    Inequivalent {
        /// What exists.
        resource: Resource,
        /// Which property or argument differs.
        argument: String,
        /// Received value, as the text shows it.
        received: String,
        /// Existing value, as the text shows it.
        current: String,
    },
    /// An argument of a queue has a wrong type or value.
    InvalidArgument {
        /// The queue.
        resource: Resource,
        /// The argument's name.
        argument: &'static str,
        /// What is wrong with it.
        problem: BadArgument,
    },
    /// An argument belongs to another type of queue.
    ArgumentOfOtherQueueType {
        /// The queue.
        resource: Resource,
        /// The argument's name.
        argument: &'static str,
        /// The type the queue has.
        queue_type: QueueType,
    },
    /// A queue of that type cannot have this property.
    InvalidProperty {
        /// The queue.
        resource: Resource,
        /// The property, in RabbitMQ's word.
        property: &'static str,
    },
    /// It left the name to the broker of a queue whose type must have one.
    ServerNamed(QueueType),
    /// An argument that names an exchange is not a string.
    InvalidNameArgument {
        /// What was declared.
        resource: Resource,
        /// The argument's name.
        argument: &'static str,
        /// The type it has.
        type_name: &'static str,
    },
    /// `x-match` has a value that is none of the four.
    InvalidMatchValue(String),
    /// `x-match` is not a string: its type, its value.
    InvalidMatchType(&'static str, String),
    /// Arguments or a binding key that the exchange's type does not take: the text that says so.
    OfExchangeType(String),
    /// It asked for deletion if unused or unbound, and the thing is used or bound.
    InUse(Resource),
    /// It asked for deletion if empty, and there are messages.
    NotEmpty(VhostName, QueueName),
    /// It named a type of exchange that does not exist.
    UnknownExchangeType(String),
    /// An argument that RabbitMQ knows and this broker does not.
    ArgumentNotSupported(String),
    /// It consumed from a quorum queue under a limit over the whole channel.
    GlobalQosOfQuorum(Resource),
    /// It asked for the deletion of a quorum queue with a condition, which is named: if-empty or if-unused.
    ConditionOfQuorum(Resource, &'static str),
    /// A message header that must be an array is none: its name and type.
    HeaderNotArray(&'static str, &'static str),
    /// Arguments larger than [`crate::arguments::ARGUMENTS_MAX_BYTES`].
    ArgumentsTooLarge,
    /// The vhost does not exist (any more).
    NoVhost(VhostName),
    /// It has no permission at all in the vhost.
    VhostRefused {
        /// The vhost.
        vhost: VhostName,
        /// The user.
        user: UserName,
    },
    /// The catalog could not be changed: no majority of the cluster's nodes answered in time. It may have been changed all the same.
    NoMajority,
    /// A vhost or a user that is to be created exists, or that is to be changed does not; or a command makes no sense. Never an AMQP client's doing.
    Command(String),
}

/// How a refusal is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// AMQP's reply code.
    pub code: u16,
    /// Whether it closes the connection (a hard error) or only the channel.
    pub closes_connection: bool,
    /// The text, with the code's name in front, at most 255 octets.
    pub text: String,
}

/// A reply text's limit: it travels as a short string.
pub const REPLY_TEXT_MAX_BYTES: usize = 255;

impl Refusal {
    /// Code, scope and text of the exception to raise.
    pub fn reply(&self) -> Reply {
        let (code, name, closes_connection) = self.class();
        let mut text = format!("{name} - {self}");
        truncate(&mut text, REPLY_TEXT_MAX_BYTES);
        Reply { code, closes_connection, text }
    }

    fn class(&self) -> (u16, &'static str, bool) {
        match self {
            Refusal::NotFound(_) | Refusal::HomeNodeDown { .. } | Refusal::NoPreviouslyDeclaredQueue => {
                (404, "NOT_FOUND", false)
            }
            Refusal::AccessRefused { .. }
            | Refusal::TopicRefused { .. }
            | Refusal::ReservedPrefix(_)
            | Refusal::DefaultExchange
            | Refusal::SystemExchange(..)
            | Refusal::InternalExchange(..)
            | Refusal::ExclusiveUse(..) => (403, "ACCESS_REFUSED", false),
            Refusal::Locked(..) => (405, "RESOURCE_LOCKED", false),
            Refusal::Inequivalent { .. }
            | Refusal::InvalidArgument { .. }
            | Refusal::ArgumentOfOtherQueueType { .. }
            | Refusal::InvalidProperty { .. }
            | Refusal::ServerNamed(_)
            | Refusal::InvalidNameArgument { .. }
            | Refusal::InvalidMatchValue(_)
            | Refusal::InvalidMatchType(..)
            | Refusal::OfExchangeType(_)
            | Refusal::InUse(_)
            | Refusal::NotEmpty(..)
            | Refusal::QueueLimit { .. }
            | Refusal::BindingLimit { .. }
            | Refusal::HeaderNotArray(..)
            | Refusal::ArgumentsTooLarge => (406, "PRECONDITION_FAILED", false),
            Refusal::UnknownExchangeType(_) => (503, "COMMAND_INVALID", true),
            Refusal::NoVhost(_)
            | Refusal::VhostRefused { .. }
            | Refusal::VhostFull { .. }
            | Refusal::UserFull { .. } => (530, "NOT_ALLOWED", true),
            Refusal::ArgumentNotSupported(_) | Refusal::GlobalQosOfQuorum(_) | Refusal::ConditionOfQuorum(..) => {
                (540, "NOT_IMPLEMENTED", true)
            }
            Refusal::Command(_) | Refusal::VhostLimit { .. } | Refusal::NoMajority => (541, "INTERNAL_ERROR", true),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotFound(resource) => write!(f, "no {resource}"),
            Refusal::HomeNodeDown { node, queue } => {
                write!(f, "home node '{node}' of durable {queue} is down or inaccessible")
            }
            Refusal::NoPreviouslyDeclaredQueue => f.write_str("no previously declared queue"),
            Refusal::AccessRefused { resource, user } => write!(f, "access to {resource} refused for user '{user}'"),
            Refusal::TopicRefused { key, exchange, user } => {
                write!(f, "access to topic '{key}' in {exchange} refused for user '{user}'")
            }
            Refusal::VhostFull { vhost, user, limit } => {
                write!(f, "access to vhost '{vhost}' refused for user '{user}': connection limit ({limit}) is reached")
            }
            Refusal::UserFull { user, limit } => {
                write!(f, "connection refused for user '{user}': user connection limit ({limit}) is reached")
            }
            Refusal::QueueLimit { queue, vhost, limit } => {
                write!(f, "cannot declare queue '{queue}': queue limit in vhost '{vhost}' ({limit}) is reached")
            }
            Refusal::BindingLimit { queue, limit } => {
                write!(f, "cannot bind {queue}: its binding limit ({limit}) is reached")
            }
            Refusal::VhostLimit { vhost, limit } => {
                write!(f, "cannot create vhost '{vhost}': vhost limit of {limit} is reached")
            }
            Refusal::ReservedPrefix(resource) => {
                write!(f, "{} name '{}' contains reserved prefix 'amq.*'", resource.kind(), resource.name())
            }
            Refusal::DefaultExchange => f.write_str("operation not permitted on the default exchange"),
            Refusal::SystemExchange(vhost, name) => {
                write!(f, "deletion of system exchange '{name}' in vhost '{vhost}' not allowed")
            }
            Refusal::InternalExchange(vhost, name) => {
                write!(f, "cannot publish to internal exchange '{name}' in vhost '{vhost}'")
            }
            Refusal::ExclusiveUse(vhost, name) => write!(f, "queue '{name}' in vhost '{vhost}' in exclusive use"),
            Refusal::Locked(vhost, name) => write!(
                f,
                "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared on another \
                 connection or the exclusive property value does not match that of the original declaration."
            ),
            Refusal::Inequivalent { resource, argument, received, current } => {
                write!(f, "inequivalent arg '{argument}' for {resource}: received {received} but current is {current}")
            }
            Refusal::InvalidArgument { resource, argument, problem } => {
                write!(f, "invalid arg '{argument}' for {resource}: {problem}")
            }
            Refusal::ArgumentOfOtherQueueType { resource, argument, queue_type } => {
                write!(f, "invalid arg '{argument}' for {resource} of queue type {}", queue_type.module())
            }
            Refusal::InvalidProperty { resource, property } => {
                write!(f, "invalid property '{property}' for {resource}")
            }
            Refusal::ServerNamed(queue_type) => {
                write!(f, "Cannot declare a server-named queue for type {}", queue_type.module())
            }
            Refusal::InvalidNameArgument { resource, argument, type_name } => {
                write!(f, "invalid type '{type_name}' for arg '{argument}' in {resource}")
            }
            Refusal::InvalidMatchValue(value) => {
                write!(f, "Invalid x-match field value <<\"{value}\">>; expected all, any, all-with-x, or any-with-x")
            }
            Refusal::InvalidMatchType(type_name, value) => {
                write!(f, "Invalid x-match field type {type_name} (value {value}); expected longstr")
            }
            Refusal::OfExchangeType(problem) => f.write_str(problem),
            Refusal::InUse(resource) => write!(f, "{resource} in use"),
            Refusal::NotEmpty(vhost, name) => write!(f, "queue '{name}' in vhost '{vhost}' not empty"),
            // The empty name is an atom that Erlang knows, so RabbitMQ looks for its module before it refuses.
            Refusal::UnknownExchangeType(name) if name.is_empty() => write!(f, "invalid exchange type ''"),
            Refusal::UnknownExchangeType(name) => write!(f, "unknown exchange type '{name}'"),
            Refusal::ArgumentNotSupported(name) => write!(f, "queue argument '{name}' is not supported"),
            Refusal::GlobalQosOfQuorum(resource) => write!(f, "{resource} does not support global qos"),
            Refusal::ConditionOfQuorum(resource, flag) => write!(
                f,
                "cannot delete {resource}. queue.delete operations with {flag} flag set are not supported by quorum queues"
            ),
            Refusal::HeaderNotArray(header, type_name) => {
                write!(f, "invalid message: {{unacceptable_type_in_header,\"{header}\",{type_name}}}")
            }
            Refusal::ArgumentsTooLarge => {
                write!(f, "arguments are larger than {} octets", crate::arguments::ARGUMENTS_MAX_BYTES)
            }
            Refusal::NoVhost(vhost) => write!(f, "vhost {vhost} not found"),
            Refusal::VhostRefused { vhost, user } => {
                write!(f, "access to vhost '{vhost}' refused for user '{user}'")
            }
            Refusal::NoMajority => {
                f.write_str("the cluster's catalog cannot be changed now: no majority of its nodes answered in time")
            }
            Refusal::Command(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Refusal {}

impl Resource {
    /// "exchange" or "queue".
    pub fn kind(&self) -> &'static str {
        match self {
            Resource::Exchange(..) => "exchange",
            Resource::Queue(..) => "queue",
        }
    }

    /// The name without the vhost.
    pub fn name(&self) -> &str {
        match self {
            Resource::Exchange(_, name) => name,
            Resource::Queue(_, name) => name,
        }
    }

    /// The vhost.
    pub fn vhost(&self) -> &VhostName {
        match self {
            Resource::Exchange(vhost, _) | Resource::Queue(vhost, _) => vhost,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.kind(), self.name(), self.vhost())
    }
}

/// Cuts a text at a character, so that it is at most `max` octets long.
fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> Resource {
        Resource::Queue("/".into(), name.into())
    }

    fn check(refusal: Refusal, code: u16, closes_connection: bool, text: &str) {
        assert_eq!(refusal.reply(), Reply { code, closes_connection, text: text.into() });
    }

    #[test]
    fn texts_are_rabbitmqs() {
        check(Refusal::NotFound(queue("q")), 404, false, "NOT_FOUND - no queue 'q' in vhost '/'");
        check(
            Refusal::ReservedPrefix(Resource::Exchange("/".into(), "amq.x".into())),
            403,
            false,
            "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
        );
        check(
            Refusal::Inequivalent {
                resource: queue("q"),
                argument: "durable".into(),
                received: "'true'".into(),
                current: "'false'".into(),
            },
            406,
            false,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        );
        check(
            Refusal::UnknownExchangeType("x-none".into()),
            503,
            true,
            "COMMAND_INVALID - unknown exchange type 'x-none'",
        );
        check(
            Refusal::InvalidMatchValue("some".into()),
            406,
            false,
            "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x",
        );
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let reply = Refusal::NotFound(queue(&"é".repeat(200))).reply();
        assert!(reply.text.len() <= REPLY_TEXT_MAX_BYTES && reply.text.len() >= REPLY_TEXT_MAX_BYTES - 1);
    }
}
