//! Arguments of queues: what they mean, and what RabbitMQ answers when one makes no sense.

use std::fmt;

use crate::field_table::{Arguments, FieldTable, Value};
use crate::name::{ExchangeName, QueueName, VhostName};
use crate::refusal::{Refusal, Resource};

/// Arguments of a queue, exchange or binding that are kept may be this long, in octets.
pub const ARGUMENTS_MAX_BYTES: usize = 64 * 1024;
/// Longest time in milliseconds that a message or a queue may be told to live: ten years.
pub const EXPIRY_MAX_MS: u64 = 315_360_000_000;

/// What a queue's arguments ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueArguments {
    /// `x-queue-type`
    pub queue_type: QueueType,
    /// `x-message-ttl`: milliseconds a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// `x-expires`: milliseconds the queue may be unused.
    pub expires_ms: Option<u64>,
    /// `x-max-length`: messages ready at most.
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`: octets of bodies ready at most.
    pub max_length_bytes: Option<u64>,
    /// `x-overflow`: what happens at that limit.
    pub overflow: Overflow,
    /// `x-dead-letter-exchange`
    pub dead_letter_exchange: Option<ExchangeName>,
    /// `x-dead-letter-routing-key`, octets as they came.
    pub dead_letter_routing_key: Option<Vec<u8>>,
    /// `x-max-priority`; 0 is none.
    pub max_priority: u8,
    /// `x-single-active-consumer`
    pub single_active_consumer: bool,
    /// `x-queue-mode: lazy`, without effect here.
    pub lazy: bool,
    /// `x-delivery-limit` of a quorum queue: times a message may be delivered again.
    pub delivery_limit: Option<u64>,
}

/// `x-queue-type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Whatever a queue can be.
    #[default]
    Classic,
    /// Durable and everybody's, with a limit of deliveries.
    Quorum,
}

/// `x-overflow`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Oldest messages give way.
    #[default]
    DropHead,
    /// New messages are refused.
    RejectPublish,
    /// New messages are refused and dead-lettered.
    RejectPublishDlx,
}

/// What is wrong with an argument; printed as RabbitMQ prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadArgument {
    /// Not an integer, but this type.
    NotInteger(&'static str),
    /// Below zero.
    Negative(i128),
    /// Zero where that makes no sense.
    Zero,
    /// Beyond [`EXPIRY_MAX_MS`].
    TooLarge(i128),
    /// A priority above 255.
    MaxValueExceeded(i128),
    /// Another type was wanted than this.
    UnacceptableType(&'static str),
    /// `x-overflow` has no such value.
    InvalidOverflow,
    /// A dead letter routing key needs a dead letter exchange.
    RoutingKeyButNoDlx,
    /// No such queue mode.
    UnsupportedMode(String),
    /// No such queue version.
    UnsupportedVersion(i128),
    /// No such queue type.
    UnsupportedType(String),
    /// No such way to dead-letter.
    InvalidDeadLetterStrategy,
    /// No such way to choose a leader.
    InvalidLeaderLocator,
    /// No such way to choose a master.
    UnsupportedMasterLocator(String),
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadArgument::NotInteger(type_name) => write!(f, "\"expected integer, got {type_name}\""),
            BadArgument::Negative(number) => write!(f, "{{value_negative,{number}}}"),
            BadArgument::Zero => f.write_str("{value_zero,0}"),
            BadArgument::TooLarge(number) => write!(f, "{{value_too_large,{number}}}"),
            BadArgument::MaxValueExceeded(number) => write!(f, "{{max_value_exceeded,{number}}}"),
            BadArgument::UnacceptableType(type_name) => write!(f, "{{unacceptable_type,{type_name}}}"),
            BadArgument::InvalidOverflow => f.write_str("invalid_overflow"),
            BadArgument::RoutingKeyButNoDlx => f.write_str("routing_key_but_no_dlx_defined"),
            BadArgument::UnsupportedMode(mode) => write!(f, "\"unsupported queue mode '{mode}'\""),
            BadArgument::UnsupportedVersion(version) => write!(f, "\"unsupported queue version '{version}'\""),
            BadArgument::UnsupportedType(name) => write!(f, "\"unsupported queue type '{name}'\""),
            BadArgument::InvalidDeadLetterStrategy => f.write_str("invalid_dlx_strategy"),
            BadArgument::InvalidLeaderLocator => f.write_str("invalid_queue_locator_arg"),
            BadArgument::UnsupportedMasterLocator(name) => {
                write!(f, "\"unsupported queue master locator '{name}'\"")
            }
        }
    }
}

/// Arguments that count when a classic queue is declared again, in the order RabbitMQ compares them.
const COMPARED_FOR_CLASSIC_QUEUES: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
];

/// The same of a quorum queue.
const COMPARED_FOR_QUORUM_QUEUES: &[&str] = &[
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    QUEUE_TYPE,
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
];

/// Arguments that count when an exchange is declared again.
pub(crate) const COMPARED_FOR_EXCHANGES: &[&str] = &[ALTERNATE_EXCHANGE];
/// The exchange that gets what an exchange could not route.
pub(crate) const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// The argument that says a queue's type.
pub(crate) const QUEUE_TYPE: &str = "x-queue-type";
/// The argument that says where a queue's dead messages go.
pub(crate) const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";

/// Arguments of quorum queues and streams that a classic queue refuses.
const REFUSED_BY_CLASSIC_QUEUES: &[&str] = &[
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-queue-leader-locator",
    "x-quorum-initial-group-size",
    "x-stream-max-segment-size-bytes",
];

/// Arguments of classic queues and streams that a quorum queue refuses.
const REFUSED_BY_QUORUM_QUEUES: &[&str] = &[
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-priority",
    "x-queue-master-locator",
    "x-queue-mode",
    "x-queue-version",
    "x-stream-max-segment-size-bytes",
];

impl QueueArguments {
    /// Reads and checks the arguments of a queue to be declared, in RabbitMQ's order, so that of several faults the same one is named.
    /// `default_type` is the type of a queue that says none.
    pub fn parse(
        vhost: &VhostName,
        queue: &QueueName,
        table: FieldTable<'_>,
        default_type: QueueType,
    ) -> Result<QueueArguments, Refusal> {
        let resource = || Resource::Queue(vhost.clone(), queue.clone());
        let invalid = |Fault(argument, problem)| Refusal::InvalidArgument { resource: resource(), argument, problem };
        if let Some(Value::LongString(b"stream")) = table.lookup(QUEUE_TYPE.as_bytes()) {
            return Err(Refusal::ArgumentNotSupported("x-queue-type=stream".into()));
        }
        let arguments = read(table, default_type).map_err(invalid)?;
        let queue_type = arguments.queue_type;
        for (name, _) in table {
            if let Some(&argument) = queue_type.refused().iter().find(|other| other.as_bytes() == name) {
                return Err(Refusal::ArgumentOfOtherQueueType { resource: resource(), argument, queue_type });
            }
        }
        Ok(arguments)
    }

    /// Reads arguments that were checked when the queue was declared; what does not make sense is left out.
    pub fn of_declared(arguments: &Arguments) -> QueueArguments {
        read(arguments.table(), QueueType::Classic).unwrap_or_default()
    }
}

impl QueueType {
    /// The type of that name, as `x-queue-type` has it.
    pub fn parse(name: &str) -> Option<QueueType> {
        [QueueType::Classic, QueueType::Quorum].into_iter().find(|queue_type| queue_type.name() == name)
    }

    /// Its name, as `x-queue-type` has it.
    pub fn name(self) -> &'static str {
        match self {
            QueueType::Classic => "classic",
            QueueType::Quorum => "quorum",
        }
    }

    /// Its name in RabbitMQ's texts.
    pub fn module(self) -> &'static str {
        match self {
            QueueType::Classic => "rabbit_classic_queue",
            QueueType::Quorum => "rabbit_quorum_queue",
        }
    }

    /// The type that arguments which were checked say.
    pub fn of(table: FieldTable<'_>) -> Option<QueueType> {
        table.lookup(QUEUE_TYPE.as_bytes())?.text().and_then(QueueType::parse)
    }

    /// Arguments that count when a queue of this type is declared again, in the order RabbitMQ compares them.
    pub(crate) fn compared(self) -> &'static [&'static str] {
        match self {
            QueueType::Classic => COMPARED_FOR_CLASSIC_QUEUES,
            QueueType::Quorum => COMPARED_FOR_QUORUM_QUEUES,
        }
    }

    fn refused(self) -> &'static [&'static str] {
        match self {
            QueueType::Classic => REFUSED_BY_CLASSIC_QUEUES,
            QueueType::Quorum => REFUSED_BY_QUORUM_QUEUES,
        }
    }
}

impl Overflow {
    /// What `x-overflow` or a policy says.
    pub(crate) fn parse(name: &[u8]) -> Option<Overflow> {
        match name {
            b"drop-head" => Some(Overflow::DropHead),
            b"reject-publish" => Some(Overflow::RejectPublish),
            b"reject-publish-dlx" => Some(Overflow::RejectPublishDlx),
            _ => None,
        }
    }
}

struct Fault(&'static str, BadArgument);

/// A table whose values are read one after the other; the first that makes no sense is the fault.
struct Reader<'a>(FieldTable<'a>);

impl<'a> Reader<'a> {
    fn read<T>(
        &self,
        name: &'static str,
        check: impl FnOnce(Value<'a>) -> Result<T, BadArgument>,
    ) -> Result<Option<T>, Fault> {
        match self.0.lookup(name.as_bytes()) {
            None => Ok(None),
            Some(value) => check(value).map(Some).map_err(|problem| Fault(name, problem)),
        }
    }
}

fn read(table: FieldTable<'_>, default_type: QueueType) -> Result<QueueArguments, Fault> {
    let reader = Reader(table);
    let queue_type = reader.read(QUEUE_TYPE, queue_type)?.unwrap_or(default_type);
    let mut arguments = QueueArguments {
        queue_type,
        expires_ms: reader.read("x-expires", expires)?,
        message_ttl_ms: reader.read("x-message-ttl", expiry)?,
        dead_letter_exchange: reader.read(DEAD_LETTER_EXCHANGE, exchange_name)?,
        ..QueueArguments::default()
    };
    arguments.dead_letter_routing_key = reader.read("x-dead-letter-routing-key", |value| {
        let octets = long_string(value)?;
        if arguments.dead_letter_exchange.is_none() {
            return Err(BadArgument::RoutingKeyButNoDlx);
        }
        Ok(octets.to_vec())
    })?;
    match queue_type {
        QueueType::Classic => read_classic(&reader, &mut arguments)?,
        QueueType::Quorum => read_quorum(&reader, &mut arguments)?,
    }
    Ok(arguments)
}

/// What follows the arguments that every type begins with, if it is a classic queue.
fn read_classic(reader: &Reader<'_>, arguments: &mut QueueArguments) -> Result<(), Fault> {
    read_limits(reader, arguments)?;
    arguments.max_priority = reader.read("x-max-priority", priority)?.unwrap_or_default();
    arguments.overflow = reader.read("x-overflow", overflow)?.unwrap_or_default();
    arguments.lazy = reader.read("x-queue-mode", queue_mode)?.unwrap_or_default();
    reader.read("x-queue-version", check_queue_version)?;
    arguments.single_active_consumer = reader.read("x-single-active-consumer", flag)?.unwrap_or_default();
    reader.read("x-queue-master-locator", check_master_locator)?;
    Ok(())
}

/// The same of a quorum queue. What it keeps in memory and where its leader is, is no choice here: accepted if it makes sense.
fn read_quorum(reader: &Reader<'_>, arguments: &mut QueueArguments) -> Result<(), Fault> {
    reader.read("x-dead-letter-strategy", check_dead_letter_strategy)?;
    read_limits(reader, arguments)?;
    reader.read("x-max-in-memory-length", not_negative)?;
    reader.read("x-max-in-memory-bytes", not_negative)?;
    arguments.overflow = reader.read("x-overflow", overflow)?.unwrap_or_default();
    arguments.single_active_consumer = reader.read("x-single-active-consumer", flag)?.unwrap_or_default();
    reader.read("x-quorum-initial-group-size", check_group_size)?;
    reader.read("x-queue-leader-locator", check_leader_locator)?;
    // RabbitMQ takes any value: what is no number is no limit, and below zero is as good as zero.
    let limit = reader.0.lookup(b"x-delivery-limit").and_then(|value| value.integer());
    arguments.delivery_limit = limit.map(|limit| u64::try_from(limit).unwrap_or_default());
    Ok(())
}

fn read_limits(reader: &Reader<'_>, arguments: &mut QueueArguments) -> Result<(), Fault> {
    arguments.max_length = reader.read("x-max-length", not_negative)?;
    arguments.max_length_bytes = reader.read("x-max-length-bytes", not_negative)?;
    Ok(())
}

fn integer(value: Value<'_>) -> Result<i128, BadArgument> {
    value.integer().ok_or(BadArgument::NotInteger(value.type_name()))
}

fn not_negative(value: Value<'_>) -> Result<u64, BadArgument> {
    let number = integer(value)?;
    u64::try_from(number).map_err(|_| BadArgument::Negative(number))
}

fn expiry(value: Value<'_>) -> Result<u64, BadArgument> {
    let number = integer(value)?;
    let ms = u64::try_from(number).map_err(|_| BadArgument::Negative(number))?;
    if ms > EXPIRY_MAX_MS { Err(BadArgument::TooLarge(number)) } else { Ok(ms) }
}

fn expires(value: Value<'_>) -> Result<u64, BadArgument> {
    if integer(value)? == 0 { Err(BadArgument::Zero) } else { expiry(value) }
}

fn priority(value: Value<'_>) -> Result<u8, BadArgument> {
    let number = not_negative(value)?;
    u8::try_from(number).map_err(|_| BadArgument::MaxValueExceeded(number.into()))
}

fn long_string(value: Value<'_>) -> Result<&[u8], BadArgument> {
    match value {
        Value::LongString(octets) => Ok(octets),
        other => Err(BadArgument::UnacceptableType(other.type_name())),
    }
}

fn overflow(value: Value<'_>) -> Result<Overflow, BadArgument> {
    Overflow::parse(long_string(value)?).ok_or(BadArgument::InvalidOverflow)
}

fn queue_mode(value: Value<'_>) -> Result<bool, BadArgument> {
    match long_string(value)? {
        b"default" => Ok(false),
        b"lazy" => Ok(true),
        _ => Err(BadArgument::UnsupportedMode(value.pretty().into_owned())),
    }
}

fn check_queue_version(value: Value<'_>) -> Result<(), BadArgument> {
    match not_negative(value)? {
        1 | 2 => Ok(()),
        other => Err(BadArgument::UnsupportedVersion(other.into())),
    }
}

fn queue_type(value: Value<'_>) -> Result<QueueType, BadArgument> {
    let name = std::str::from_utf8(long_string(value)?).ok().and_then(QueueType::parse);
    name.ok_or_else(|| BadArgument::UnsupportedType(value.pretty().into_owned()))
}

fn exchange_name(value: Value<'_>) -> Result<ExchangeName, BadArgument> {
    Ok(ExchangeName::from(String::from_utf8_lossy(long_string(value)?).into_owned()))
}

fn flag(value: Value<'_>) -> Result<bool, BadArgument> {
    match value {
        Value::Bool(flag) => Ok(flag),
        other => Err(BadArgument::UnacceptableType(other.type_name())),
    }
}

fn check_dead_letter_strategy(value: Value<'_>) -> Result<(), BadArgument> {
    match long_string(value)? {
        b"at-most-once" | b"at-least-once" => Ok(()),
        _ => Err(BadArgument::InvalidDeadLetterStrategy),
    }
}

fn check_group_size(value: Value<'_>) -> Result<(), BadArgument> {
    if not_negative(value)? == 0 { Err(BadArgument::Zero) } else { Ok(()) }
}

fn check_leader_locator(value: Value<'_>) -> Result<(), BadArgument> {
    match long_string(value)? {
        b"client-local" | b"balanced" | b"random" | b"least-leaders" => Ok(()),
        _ => Err(BadArgument::InvalidLeaderLocator),
    }
}

/// RabbitMQ answers a wrong one with an internal error, which helps nobody.
fn check_master_locator(value: Value<'_>) -> Result<(), BadArgument> {
    match long_string(value)? {
        b"client-local" | b"min-masters" | b"random" => Ok(()),
        _ => Err(BadArgument::UnsupportedMasterLocator(value.pretty().into_owned())),
    }
}
