//! Arguments of queues: what they mean, and what RabbitMQ answers when one makes no sense.

use std::fmt;

use crate::field_table::{Arguments, FieldTable, Value};
use crate::name::{ExchangeName, QueueName, VhostName};
use crate::refusal::{Refusal, Resource};

/// Arguments of a queue, exchange or binding that are kept may be this long, in octets.
pub const ARGUMENTS_MAX_BYTES: usize = 64 * 1024;
/// Longest time in milliseconds that a message or a queue may be told to live: ten years.
pub const EXPIRY_MAX_MS: u64 = 315_360_000_000;

/// Arguments of a classic queue that RabbitMQ acts on and this broker does not yet: a queue with one of them is refused, never misunderstood.
pub const NOT_SUPPORTED_YET: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-single-active-consumer",
];

/// What a queue's arguments ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueArguments {
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
        }
    }
}

/// Arguments that count when a classic queue is declared again, in the order RabbitMQ compares them.
pub(crate) const COMPARED_FOR_QUEUES: &[&str] = &[
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

/// Arguments that count when an exchange is declared again.
pub(crate) const COMPARED_FOR_EXCHANGES: &[&str] = &[ALTERNATE_EXCHANGE];
/// The exchange that gets what an exchange could not route.
pub(crate) const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// Arguments of quorum queues and streams that a classic queue refuses.
const OF_OTHER_QUEUE_TYPES: &[&str] = &[
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

impl QueueArguments {
    /// Reads and checks the arguments of a queue to be declared, in RabbitMQ's order, so that of several faults the same one is named.
    pub fn parse(vhost: &VhostName, queue: &QueueName, table: FieldTable<'_>) -> Result<QueueArguments, Refusal> {
        let resource = || Resource::Queue(vhost.clone(), queue.clone());
        read(table).map_err(|Fault(argument, problem)| Refusal::InvalidArgument {
            resource: resource(),
            argument,
            problem,
        })?;
        for (name, _) in table {
            if let Some(&argument) = OF_OTHER_QUEUE_TYPES.iter().find(|other| other.as_bytes() == name) {
                return Err(Refusal::ArgumentOfOtherQueueType { resource: resource(), argument });
            }
        }
        // What was read is read again for its value: cheap, and the first pass stays a list of checks.
        read(table).map_err(|Fault(argument, problem)| Refusal::InvalidArgument {
            resource: resource(),
            argument,
            problem,
        })
    }

    /// Reads arguments that were checked when the queue was declared; what does not make sense is left out.
    pub fn of_declared(arguments: &Arguments) -> QueueArguments {
        read(arguments.table()).unwrap_or_default()
    }
}

/// The refusal for arguments that nobody acts on yet, if there is one among these.
pub fn refuse_unsupported(table: FieldTable<'_>) -> Result<(), Refusal> {
    if let Some(Value::LongString(name @ (b"quorum" | b"stream"))) = table.lookup(b"x-queue-type") {
        return Err(Refusal::ArgumentNotSupported(format!("x-queue-type={}", String::from_utf8_lossy(name))));
    }
    match table.iter().find_map(|(name, _)| NOT_SUPPORTED_YET.iter().find(|other| other.as_bytes() == name)) {
        Some(name) => Err(Refusal::ArgumentNotSupported((*name).into())),
        None => Ok(()),
    }
}

struct Fault(&'static str, BadArgument);

fn read(table: FieldTable<'_>) -> Result<QueueArguments, Fault> {
    let mut arguments = QueueArguments::default();
    let with = |name: &'static str| table.lookup(name.as_bytes()).map(|value| (name, value));
    if let Some((name, value)) = with("x-queue-type") {
        check_queue_type(value).map_err(|problem| Fault(name, problem))?;
    }
    if let Some((name, value)) = with("x-expires") {
        arguments.expires_ms = Some(expires(value).map_err(|problem| Fault(name, problem))?);
    }
    if let Some((name, value)) = with("x-message-ttl") {
        arguments.message_ttl_ms = Some(expiry(value).map_err(|problem| Fault(name, problem))?);
    }
    if let Some((name, value)) = with("x-dead-letter-exchange") {
        let octets = long_string(value).map_err(|problem| Fault(name, problem))?;
        arguments.dead_letter_exchange = Some(ExchangeName::from(String::from_utf8_lossy(octets).into_owned()));
    }
    if let Some((name, value)) = with("x-dead-letter-routing-key") {
        let octets = long_string(value).map_err(|problem| Fault(name, problem))?;
        if arguments.dead_letter_exchange.is_none() {
            return Err(Fault(name, BadArgument::RoutingKeyButNoDlx));
        }
        arguments.dead_letter_routing_key = Some(octets.to_vec());
    }
    if let Some((name, value)) = with("x-max-length") {
        arguments.max_length = Some(not_negative(value).map_err(|problem| Fault(name, problem))?);
    }
    if let Some((name, value)) = with("x-max-length-bytes") {
        arguments.max_length_bytes = Some(not_negative(value).map_err(|problem| Fault(name, problem))?);
    }
    if let Some((name, value)) = with("x-max-priority") {
        arguments.max_priority = priority(value).map_err(|problem| Fault(name, problem))?;
    }
    if let Some((name, value)) = with("x-overflow") {
        arguments.overflow = overflow(value).map_err(|problem| Fault(name, problem))?;
    }
    if let Some((name, value)) = with("x-queue-mode") {
        arguments.lazy = queue_mode(value).map_err(|problem| Fault(name, problem))?;
    }
    if let Some((name, value)) = with("x-queue-version") {
        check_queue_version(value).map_err(|problem| Fault(name, problem))?;
    }
    if let Some((name, value)) = with("x-single-active-consumer") {
        let Value::Bool(flag) = value else {
            return Err(Fault(name, BadArgument::UnacceptableType(value.type_name())));
        };
        arguments.single_active_consumer = flag;
    }
    Ok(arguments)
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
    match long_string(value)? {
        b"drop-head" => Ok(Overflow::DropHead),
        b"reject-publish" => Ok(Overflow::RejectPublish),
        b"reject-publish-dlx" => Ok(Overflow::RejectPublishDlx),
        _ => Err(BadArgument::InvalidOverflow),
    }
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

fn check_queue_type(value: Value<'_>) -> Result<(), BadArgument> {
    match long_string(value)? {
        b"classic" | b"quorum" | b"stream" => Ok(()),
        _ => Err(BadArgument::UnsupportedType(value.pretty().into_owned())),
    }
}
