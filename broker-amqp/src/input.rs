//! What a driver tells a connection: the answers to its outputs, and what happens around it.

use std::sync::Arc;

use broker_core::message::{Content, Message};

use crate::exception::Exception;
use crate::reply_to::Address;

/// Everything but octets and deliveries, which come often and have methods of their own.
#[derive(Debug)]
pub enum Input {
    /// The user and password of [`Output::Login`](crate::Output::Login) are right.
    LoginOk {
        /// The user's name, as the connection goes by from now on.
        user: Arc<str>,
        /// The user may publish with another user's name in `user-id`.
        impersonator: bool,
    },
    /// They are not, or the user may not log in from there.
    LoginRefused,
    /// The vhost of [`Output::Open`](crate::Output::Open) is there and the user may use it.
    OpenOk,
    /// It is not, or the user may not.
    OpenRefused(Exception),
    /// The answer to the one outstanding [`Output::Request`](crate::Output::Request) of a channel.
    Reply {
        /// The channel that asked.
        channel: u16,
        /// The answer.
        reply: Reply,
    },
    /// Everything of [`Output::TxCommit`](crate::Output::TxCommit) is done and, where it must be, stored.
    TxCommitted {
        /// The channel that asked.
        channel: u16,
    },
    /// A queue went away under a consumer.
    ConsumerCancelled {
        /// The consumer's channel.
        channel: u16,
        /// The consumer's handle.
        consumer: u32,
    },
    /// The node is short of something and takes no publishes, or no longer is.
    Alarm {
        /// `low on memory`, `low on disk`, `low on disk & memory`, or none.
        reason: Option<&'static str>,
    },
    /// The operator or the node's end closes the connection: see [`Exception::forced`] and [`Exception::shutdown`].
    ForceClose(Exception),
    /// Everything of [`Output::ConnectionClosing`](crate::Output::ConnectionClosing) is done: `close-ok` may be sent.
    ConnectionClosed,
    /// The peer closed the socket, or it failed.
    PeerGone,
}

/// An answer to a [`Request`](crate::Request). Every request gets one, also those the client wants no answer to.
#[derive(Debug)]
pub enum Reply {
    /// Exchange declared or deleted, binding made or removed, consumer cancelled, channel closed: nothing more to say.
    Done,
    /// A queue was declared, or was there.
    Declared {
        /// The queue's name, as the request had it.
        name: Box<str>,
        /// Messages ready.
        messages: u32,
        /// Consumers.
        consumers: u32,
    },
    /// A queue was deleted.
    Deleted {
        /// Ready messages that went with it.
        messages: u32,
    },
    /// A queue was purged.
    Purged {
        /// Ready messages that are gone.
        messages: u32,
    },
    /// The consumer is there; deliveries may follow.
    ConsumeOk {
        /// How deliveries name the consumer: chosen by the driver, unique on the channel while the consumer lives, not `u32::MAX`.
        consumer: u32,
    },
    /// Where direct replies to the channel go from now on.
    ReplyAddress(Address),
    /// A message for `basic.get`.
    GetOk {
        /// The queue's handle.
        queue: u64,
        /// The delivery's number in its queue.
        queue_tag: u64,
        /// It was delivered before.
        redelivered: bool,
        /// Messages left ready in the queue.
        remaining: u32,
        /// The message.
        message: Message,
    },
    /// Nothing for `basic.get`.
    GetEmpty,
    /// The request is refused; class and method are filled in.
    Refused(Exception),
}

/// A message on its way to a consumer. Handed to [`Connection::deliver`](crate::Connection::deliver).
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The consumer's handle.
    pub consumer: u32,
    /// The queue's handle, which comes back in a [`Settle`](crate::Settle).
    pub queue: u64,
    /// The delivery's number in its queue, which comes back in a [`Settle`](crate::Settle).
    pub queue_tag: u64,
    /// It was delivered before.
    pub redelivered: bool,
    /// The message.
    pub content: Content<'a>,
}
