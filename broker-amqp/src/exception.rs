//! Exceptions: what is told to a client that broke a rule, with the scope, code and words RabbitMQ 3.10.8 uses.
//!
//! A channel exception closes one channel, a connection exception the connection. Class and method name the call that failed; the connection
//! fills them in when an exception answers a request, so whoever refuses a request need not know them.

use std::fmt;
use std::time::Duration;

/// The longest reply text, in octets: it travels as a short string.
pub const REPLY_TEXT_MAX_BYTES: usize = 255;
/// Ends a reply text that was cut.
const ELLIPSIS: &str = "...";

/// Whether an exception ends a channel or the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A soft error: `channel.close`.
    Channel,
    /// A hard error: `connection.close`.
    Connection,
}

/// The reply codes of AMQP 0-9-1, by the names that begin each reply text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ReplyCode {
    /// Nothing is wrong: a close that was asked for.
    Success = 200,
    /// A mandatory message went to no queue.
    NoRoute = 312,
    /// The operator closes the connection.
    ConnectionForced = 320,
    /// No such vhost.
    InvalidPath = 402,
    /// The user may not do this.
    AccessRefused = 403,
    /// No such queue or exchange.
    NotFound = 404,
    /// Another connection holds it exclusively.
    ResourceLocked = 405,
    /// The call contradicts the state of things.
    PreconditionFailed = 406,
    /// The octets are not a frame.
    FrameError = 501,
    /// A field has a value it cannot have.
    SyntaxError = 502,
    /// The method cannot come from a client, or not here.
    CommandInvalid = 503,
    /// The channel is not open, or already is.
    ChannelError = 504,
    /// A frame that is not due.
    UnexpectedFrame = 505,
    /// The broker has no room.
    ResourceError = 506,
    /// Not allowed.
    NotAllowed = 530,
    /// A part of the protocol this broker does not offer.
    NotImplemented = 540,
    /// The broker failed.
    InternalError = 541,
}

impl ReplyCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code's name, which begins the reply text.
    pub fn name(self) -> &'static str {
        match self {
            ReplyCode::Success => "OK",
            ReplyCode::NoRoute => "NO_ROUTE",
            ReplyCode::ConnectionForced => "CONNECTION_FORCED",
            ReplyCode::InvalidPath => "INVALID_PATH",
            ReplyCode::AccessRefused => "ACCESS_REFUSED",
            ReplyCode::NotFound => "NOT_FOUND",
            ReplyCode::ResourceLocked => "RESOURCE_LOCKED",
            ReplyCode::PreconditionFailed => "PRECONDITION_FAILED",
            ReplyCode::FrameError => "FRAME_ERROR",
            ReplyCode::SyntaxError => "SYNTAX_ERROR",
            ReplyCode::CommandInvalid => "COMMAND_INVALID",
            ReplyCode::ChannelError => "CHANNEL_ERROR",
            ReplyCode::UnexpectedFrame => "UNEXPECTED_FRAME",
            ReplyCode::ResourceError => "RESOURCE_ERROR",
            ReplyCode::NotAllowed => "NOT_ALLOWED",
            ReplyCode::NotImplemented => "NOT_IMPLEMENTED",
            ReplyCode::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether the specification makes this code close a channel or the connection.
    pub fn scope(self) -> Scope {
        match self {
            ReplyCode::NoRoute
            | ReplyCode::AccessRefused
            | ReplyCode::NotFound
            | ReplyCode::ResourceLocked
            | ReplyCode::PreconditionFailed => Scope::Channel,
            _ => Scope::Connection,
        }
    }
}

/// A queue or an exchange, named as reply texts name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// `queue 'name' in vhost 'vhost'`
    Queue {
        /// The queue's name.
        name: &'a str,
        /// The vhost it is or would be in.
        vhost: &'a str,
    },
    /// `exchange 'name' in vhost 'vhost'`
    Exchange {
        /// The exchange's name.
        name: &'a str,
        /// The vhost it is or would be in.
        vhost: &'a str,
    },
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Queue { name, vhost } => write!(formatter, "queue '{name}' in vhost '{vhost}'"),
            Resource::Exchange { name, vhost } => write!(formatter, "exchange '{name}' in vhost '{vhost}'"),
        }
    }
}

/// Why a channel or a connection is being closed by the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {} - {text} ({class}, {method})", code.number(), code.name())]
pub struct Exception {
    /// What it closes.
    pub scope: Scope,
    /// The reply code.
    pub code: ReplyCode,
    /// The reply text without the code's name. Cut to fit when it is sent.
    pub text: String,
    /// Class of the call that failed, 0 if none.
    pub class: u16,
    /// Method of the call that failed, 0 if none.
    pub method: u16,
}

impl Exception {
    /// An exception with the scope that the specification gives its code, for no method in particular.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Exception {
        Exception { scope: code.scope(), code, text: text.into(), class: 0, method: 0 }
    }

    /// The same exception, closing the connection whatever its code says.
    pub fn on_connection(mut self) -> Exception {
        self.scope = Scope::Connection;
        self
    }

    /// The same exception, naming the method that failed.
    pub fn during(mut self, class: u16, method: u16) -> Exception {
        self.class = class;
        self.method = method;
        self
    }

    /// `NAME - text`, as it is sent: at most [`REPLY_TEXT_MAX_BYTES`]. What is longer is cut and ends in `...`, as in RabbitMQ.
    pub fn reply_text(&self) -> String {
        if self.text.is_empty() {
            return self.code.name().into();
        }
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > REPLY_TEXT_MAX_BYTES {
            let mut end = REPLY_TEXT_MAX_BYTES - ELLIPSIS.len();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(ELLIPSIS);
        }
        text
    }

    // ---- 404

    /// A queue or exchange that does not exist.
    pub fn not_found(resource: Resource<'_>) -> Exception {
        Exception::new(ReplyCode::NotFound, format!("no {resource}"))
    }

    /// An empty queue name on a channel that declared none.
    pub fn no_previously_declared_queue() -> Exception {
        Exception::new(ReplyCode::NotFound, "no previously declared queue")
    }

    // ---- 403

    /// The user lacks the permission. The default exchange is called `amq.default` here.
    pub fn access_refused(resource: Resource<'_>, user: &str) -> Exception {
        let resource = match resource {
            Resource::Exchange { name: "", vhost } => Resource::Exchange { name: "amq.default", vhost },
            other => other,
        };
        Exception::new(ReplyCode::AccessRefused, format!("access to {resource} refused for user '{user}'"))
    }

    /// A new queue or exchange whose name begins with `amq.`; `kind` is `queue` or `exchange`.
    pub fn reserved_name(kind: &str, name: &str) -> Exception {
        Exception::new(ReplyCode::AccessRefused, format!("{kind} name '{name}' contains reserved prefix 'amq.*'"))
    }

    // ---- 406

    /// A declaration that differs from what exists, in a property both sides have.
    pub fn inequivalent(
        argument: &str,
        resource: Resource<'_>,
        received: impl fmt::Display,
        current: impl fmt::Display,
    ) -> Exception {
        Exception::precondition(format!(
            "inequivalent arg '{argument}' for {resource}: received '{received}' but current is '{current}'"
        ))
    }

    /// An acknowledgement of a delivery that is not outstanding.
    pub fn unknown_delivery_tag(delivery_tag: u64) -> Exception {
        Exception::precondition(format!("unknown delivery tag {delivery_tag}"))
    }

    /// A published `user-id` that is not the connection's user.
    pub fn wrong_user_id(claimed: &str, user: &str) -> Exception {
        Exception::precondition(format!("user_id property set to '{claimed}' but authenticated user was '{user}'"))
    }

    /// A published `expiration` that is not a number of milliseconds; `why` is the reason as RabbitMQ prints it (`no_integer`).
    pub fn invalid_expiration(expiration: &str, why: impl fmt::Display) -> Exception {
        Exception::precondition(format!("invalid expiration '{expiration}': {why}"))
    }

    /// A message larger than this node takes, both in octets.
    pub fn message_too_large(size_bytes: u64, max_bytes: u64) -> Exception {
        Exception::precondition(format!("message size {size_bytes} is larger than configured max size {max_bytes}"))
    }

    /// A delivery was not settled in the time there is for it.
    pub fn consumer_timed_out(channel: u16, timeout: Duration) -> Exception {
        Exception::precondition(format!(
            "delivery acknowledgement on channel {channel} timed out. Timeout value used: {} ms. This timeout value can be configured, see consumers \
             doc guide to learn more",
            timeout.as_millis()
        ))
    }

    /// Deliveries on a channel that are not settled take more than they may.
    pub fn too_much_unacked(channel: u16, max_kib: u64) -> Exception {
        Exception::precondition(format!(
            "unacknowledged deliveries on channel {channel} take more than {} bytes. Acknowledge sooner, set a prefetch, or raise \
             broker.unacked_bytes_max_per_channel",
            max_kib.saturating_mul(1024)
        ))
    }

    /// Any other contradiction between the call and the state of things.
    pub fn precondition(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::PreconditionFailed, text)
    }

    // ---- the connection's

    /// An exchange type nobody knows.
    pub fn unknown_exchange_type(kind: &str) -> Exception {
        Exception::new(ReplyCode::CommandInvalid, format!("unknown exchange type '{kind}'"))
    }

    /// A vhost that does not exist.
    pub fn vhost_not_found(vhost: &str) -> Exception {
        Exception::new(ReplyCode::NotAllowed, format!("vhost {vhost} not found"))
    }

    /// The operator closes the connection, in these words.
    pub fn forced(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::ConnectionForced, text)
    }

    /// The node stops.
    pub fn shutdown(reason: &str) -> Exception {
        Exception::forced(format!("broker forced connection closure with reason '{reason}'"))
    }

    /// A method whose number is known but which a client may not send.
    pub fn unimplemented_method() -> Exception {
        Exception::new(ReplyCode::CommandInvalid, "unimplemented method")
    }

    /// A part of the protocol that is not offered; `what` names the argument as RabbitMQ does (`immediate=true`).
    pub fn not_implemented(what: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::NotImplemented, what)
    }

    /// The broker failed; the text says in what, for the log and the client alike.
    pub fn internal(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::InternalError, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_rabbitmq() {
        let queue = Resource::Queue { name: "q", vhost: "/" };
        let exchange = Resource::Exchange { name: "", vhost: "/" };
        assert_eq!(Exception::not_found(queue).reply_text(), "NOT_FOUND - no queue 'q' in vhost '/'");
        assert_eq!(
            Exception::access_refused(exchange, "guest").reply_text(),
            "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'guest'"
        );
        assert_eq!(
            Exception::inequivalent("durable", queue, "true", "false").reply_text(),
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"
        );
        assert_eq!(
            Exception::consumer_timed_out(3, Duration::from_secs(5)).reply_text(),
            "PRECONDITION_FAILED - delivery acknowledgement on channel 3 timed out. Timeout value used: 5000 ms. This timeout value can be configured, see consumers doc guide to learn more"
        );
        assert_eq!(Exception::unknown_exchange_type("x").scope, Scope::Connection);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let name = "ü".repeat(127);
        let text = Exception::not_found(Resource::Queue { name: &name, vhost: "/" }).reply_text();
        assert!(text.len() <= REPLY_TEXT_MAX_BYTES && text.len() >= REPLY_TEXT_MAX_BYTES - 1);
        assert!(text.ends_with("ü..."));
        assert_eq!(Exception::internal("").reply_text(), "INTERNAL_ERROR");
    }
}
