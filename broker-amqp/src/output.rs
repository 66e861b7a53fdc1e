//! What a connection wants done. A driver carries the outputs out in their order.
//!
//! A refused publish closes its channel ([`Connection::fail`](crate::Connection::fail)) while later outputs of the same batch are still waiting:
//! the driver then skips the channel's remaining `Publish`, `PublishInvalid` and `TxPublish` outputs of the batch and carries out the rest.
//! (So acknowledgements that the client sent right behind a publish that fails do count, where RabbitMQ would requeue.)
//! [`Connection::channel_is_open`](crate::Connection::channel_is_open) tells, and is exact: nothing that could reopen the channel is read before
//! the driver is through with the batch.

use broker_core::message::Message;

use crate::exception::Exception;
use crate::incoming::Incoming;

/// One thing to do.
#[derive(Debug)]
pub enum Output {
    /// Check who this is; answer with `LoginOk` or `LoginRefused`.
    Login(Box<Login>),
    /// See whether the user may use this vhost; answer with `OpenOk` or `OpenRefused`.
    Open {
        /// The vhost's name.
        vhost: Box<str>,
    },
    /// A channel was opened. Nothing to answer.
    ChannelOpened {
        /// Its number.
        channel: u16,
    },
    /// Route this message; then `confirm`, `nack` or `returned` as it went, or `fail` with an exception.
    Publish {
        /// The channel it came on.
        channel: u16,
        /// Return it if it goes to no queue.
        mandatory: bool,
        /// Its number among the channel's publishes, from 1; 0 if the channel does not want confirms.
        publish_seq: u64,
        /// The message, maybe still in the octets it came in.
        content: Incoming,
    },
    /// A publish whose properties are wrong. As RabbitMQ looks at the exchange first, so does the driver (as for `Publish`, but without
    /// routing): it calls `fail` with its own exception if it has one, else with this.
    PublishInvalid {
        /// The channel it came on.
        channel: u16,
        /// The message.
        message: Message,
        /// What is wrong with it.
        exception: Box<Exception>,
    },
    /// A publish in a transaction: check now that the exchange is there and may be published to, `fail` if not. It is routed at the commit.
    TxPublish {
        /// The channel it came on.
        channel: u16,
        /// The message.
        message: Message,
    },
    /// Route these messages, settle these deliveries, and answer with `TxCommitted` when all of it is done and stored.
    TxCommit(Box<TxCommit>),
    /// Do this and answer with a `Reply`. The channel's later frames wait for it.
    Request {
        /// The channel that asks.
        channel: u16,
        /// What it asks.
        request: Box<Request>,
    },
    /// Deliveries were acknowledged, rejected or given back.
    Settle(Settle),
    /// The limit of unacknowledged deliveries over all consumers of a channel; 0 = none.
    ChannelLimit {
        /// The channel.
        channel: u16,
        /// Deliveries.
        limit: u16,
    },
    /// A channel is gone, by an exception or with its connection: cancel its consumers. Its unacknowledged deliveries were given back by
    /// `Settle` before. Nothing to answer. (A channel that the client closes is a `Request`.)
    ChannelClosed {
        /// Its number.
        channel: u16,
    },
    /// The client closes the connection and all channels are gone: remove what is exclusive to it, then say `ConnectionClosed`.
    ConnectionClosing,
    /// The client published while there is an alarm: read nothing more from it until the alarm is over.
    PublisherBlocked,
    /// Write what is in the send buffer, then close the socket.
    Close {
        /// Why, for the log.
        reason: CloseReason,
    },
}

/// Who wants to come in.
#[derive(Debug, PartialEq, Eq)]
pub struct Login {
    /// The mechanism the client chose, one of those offered.
    pub mechanism: Box<str>,
    /// The user's name. Empty with [`EXTERNAL`](crate::sasl::EXTERNAL): the driver has it from the client's certificate.
    pub user: Box<str>,
    /// The password. Empty with [`EXTERNAL`](crate::sasl::EXTERNAL).
    pub password: Box<[u8]>,
}

/// A transaction's work.
#[derive(Debug)]
pub struct TxCommit {
    /// The channel.
    pub channel: u16,
    /// Messages in the order they came, each with its mandatory flag.
    pub publishes: Vec<(bool, Message)>,
    /// What was settled.
    pub settles: Vec<Settle>,
}

/// A run of one queue's deliveries that met the same fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The channel they were delivered on.
    pub channel: u16,
    /// The queue's handle.
    pub queue: u64,
    /// The consumer's handle, or [`GET`] for `basic.get`.
    pub consumer: u32,
    /// The first delivery's number in its queue.
    pub first: u64,
    /// The last delivery's number in its queue. All numbers between are meant.
    pub last: u64,
    /// What becomes of them.
    pub outcome: Outcome,
}

/// Stands for the consumer of a delivery that `basic.get` fetched.
pub const GET: u32 = u32::MAX;

/// What becomes of settled deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done with.
    Ack,
    /// Back to where it was in the queue.
    Requeue,
    /// Dropped, or dead-lettered where the queue says so.
    Discard,
}

/// Why a socket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said `connection.close`.
    ByClient,
    /// The broker closed the connection with this exception.
    Exception(Box<Exception>),
    /// The first octets were not a protocol header this broker speaks.
    BadHeader,
    /// The handshake took too long.
    HandshakeTimeout,
    /// More octets than a client may send before it logged in.
    HandshakeTooLong,
    /// The client's login was refused and it would not understand being told.
    LoginRefused,
    /// Nothing came from the client for two heartbeat intervals.
    HeartbeatMissed,
    /// The peer closed the socket without a word.
    PeerGone,
}

/// What a channel asks of the node. Names are as the client sent them, with line ends removed; an empty queue name was replaced by the last
/// declared one. `arguments` is a field table's content as it came, without its length, well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `exchange.declare`
    ExchangeDeclare {
        /// The exchange.
        name: Box<str>,
        /// `direct`, `fanout`, `topic`, `headers`, or what else the client thinks there is.
        kind: Box<str>,
        /// Only ask whether it exists.
        passive: bool,
        /// Survives a restart.
        durable: bool,
        /// Goes with its last binding.
        auto_delete: bool,
        /// Cannot be published to.
        internal: bool,
        /// The arguments.
        arguments: Box<[u8]>,
    },
    /// `exchange.delete`
    ExchangeDelete {
        /// The exchange.
        name: Box<str>,
        /// Only if it has no bindings.
        if_unused: bool,
    },
    /// `exchange.bind`
    ExchangeBind(Binding),
    /// `exchange.unbind`
    ExchangeUnbind(Binding),
    /// `queue.declare`. Answer with `Declared`.
    QueueDeclare {
        /// The queue; if the client gave no name, one made for it.
        name: Box<str>,
        /// The name was made here.
        server_named: bool,
        /// Only ask whether it exists.
        passive: bool,
        /// Survives a restart.
        durable: bool,
        /// For this connection only.
        exclusive: bool,
        /// Goes with its last consumer.
        auto_delete: bool,
        /// The arguments.
        arguments: Box<[u8]>,
    },
    /// `queue.bind`; destination is the queue.
    QueueBind(Binding),
    /// `queue.unbind`; destination is the queue.
    QueueUnbind(Binding),
    /// `queue.purge`. Answer with `Purged`.
    QueuePurge {
        /// The queue.
        name: Box<str>,
    },
    /// `queue.delete`. Answer with `Deleted`.
    QueueDelete {
        /// The queue.
        name: Box<str>,
        /// Only if it has no consumers.
        if_unused: bool,
        /// Only if it holds no messages.
        if_empty: bool,
    },
    /// `basic.get`. Answer with `GetOk` or `GetEmpty`.
    Get {
        /// The queue.
        queue: Box<str>,
        /// The delivery counts as acknowledged; no `Settle` will follow.
        no_ack: bool,
    },
    /// `basic.consume`. Answer with `ConsumeOk`; deliver after that.
    Consume {
        /// The queue.
        queue: Box<str>,
        /// The tag, the client's or one made here.
        consumer_tag: Box<str>,
        /// Deliveries count as acknowledged; no `Settle` will follow.
        no_ack: bool,
        /// The only one on its queue.
        exclusive: bool,
        /// Accepted and without effect, as in RabbitMQ.
        no_local: bool,
        /// The arguments.
        arguments: Box<[u8]>,
        /// Unacknowledged deliveries this consumer may have; 0 = any.
        prefetch: u16,
        /// The channel has a limit over all its consumers.
        under_channel_limit: bool,
    },
    /// `basic.consume` of direct replies. Answer with `ReplyAddress`.
    ConsumeReplies,
    /// `basic.cancel` of a consumer that exists. Answer with `Done`.
    Cancel {
        /// Its handle.
        consumer: u32,
    },
    /// `channel.close` by the client. Its deliveries were given back by
    /// `Settle` before. Cancel the channel's consumers, then answer with `Done`.
    ChannelClose,
}

/// A binding between an exchange and a queue or another exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The exchange messages come from.
    pub source: Box<str>,
    /// The queue or exchange they go to.
    pub destination: Box<str>,
    /// The binding key.
    pub routing_key: Box<[u8]>,
    /// The arguments.
    pub arguments: Box<[u8]>,
}
