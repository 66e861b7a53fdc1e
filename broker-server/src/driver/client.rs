//! One client's socket and what the node keeps for it besides its connection's own state.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use broker_amqp::{Connection, SendBuffer};
use broker_core::message::Message;
use broker_core::name::NodeId;
use broker_core::queue::{CONSUMER_ROOM_BYTES, ChannelKey, ChannelLimit, ConsumerKey};
use broker_core::store::QueueId;
use hashbrown::HashMap;
use mio::net::TcpStream;
use slab::Slab;

use super::connections::LoginAttempt;
use super::dispatch::{Route, RouteCache};
use crate::tls::{TlsPeer, TlsStream};

/// Slices written by one system call.
pub const SLICES_MAX: usize = 64;

/// What the consumers of a connection may be sent, all together, before they have taken any of it; see [`Client::room_of_next_consumer`].
const CONNECTION_ROOM_BYTES: i64 = 8 * CONSUMER_ROOM_BYTES;
/// What one consumer of a queue on another node may have: besides what waits for the socket, what is on its way here.
const CONSUMER_ELSEWHERE_ROOM_BYTES: i64 = 4 * CONSUMER_ROOM_BYTES;
/// No consumer has less: a socket is worth being written to for it.
const CONSUMER_ROOM_LEAST_BYTES: i64 = 4 * 1024;

/// A client connection of this shard.
pub struct Client {
    /// Its number: never used twice, and its lower bits are its place in the shard's table.
    pub number: u64,
    /// The protocol's state.
    pub amqp: Connection,
    /// Where it comes from.
    pub peer: SocketAddr,
    stream: Stream,
    /// It has not logged in, and takes a place among those that have not.
    pub stranger: bool,
    /// A login that is not to be checked yet.
    pub held_login: Option<Box<LoginAttempt>>,
    /// There may be octets to read.
    pub readable: bool,
    /// What it sent last were small frames.
    pub sends_small: bool,
    /// It has said its last word: what is still to be read is read to the end.
    pub hung_up: bool,
    /// It is in the list of those to be written to.
    pub dirty: bool,
    /// It is in the list of those to be read from.
    pub listed: bool,
    /// It published during an alarm and is not read until that is over.
    pub blocked: bool,
    /// It has published.
    pub publisher: bool,
    /// It has published what is to be stored, or to several queues at once: it is held back while the store is behind.
    pub loads_store: bool,
    /// The queue it published to last, and when it was last read from: see `Shard::is_ahead`.
    pub target: Option<QueueId>,
    /// The other node to which its last publish went, if one did.
    pub target_node: Option<NodeId>,
    /// When it was last read from.
    pub read_at: Instant,
    /// Write what is left, then close.
    pub closing: Option<String>,
    /// It asked for the close: the socket is its to shut, once it has read the answer.
    pub lingers: bool,
    /// It counts among the connections of its user and vhost.
    pub counted: bool,
    /// The vhost it opened.
    pub vhost: Option<Arc<str>>,
    /// What its publishes were routed to.
    pub routes: RouteCache,
    /// The generation in which it was last found that it may publish to the default exchange, where replies go.
    pub may_reply_in: u64,
    /// It is in the list of those that may hold deliveries for too long.
    pub watched: bool,
    /// Its consumers, by the handle their deliveries carry.
    pub consumers: Slab<ClientConsumer>,
    /// Their channels and handles, sorted: a channel of thousands ends without a search through the consumers of all.
    by_channel: Vec<(u16, u32)>,
    /// Consumers that were sent much and are to be given room again.
    pub spent: Vec<u32>,
    /// Limits over whole channels.
    pub limits: Vec<(u16, Arc<ChannelLimit>, u16)>,
    /// Deliveries of queues on other nodes for which their channel's limit has no room yet, in the order they came.
    pub held: VecDeque<HeldDelivery>,
    /// Queues only it may use.
    pub exclusive: BTreeSet<QueueId>,
    /// Publishes that went to several queues, or belong to a transaction, and how many answers they wait for.
    pub shared_confirms: HashMap<(u16, u64), SharedConfirm>,
    /// Transactions being stored.
    pub transactions: VecDeque<Transaction>,
    /// Numbers for the publishes of transactions.
    pub transaction_publishes: u64,
    /// When the shard looks at its timeouts next.
    pub timer_at: Option<Instant>,
    /// It said goodbye, and waits for its exclusive queues to go.
    pub goodbye: bool,
}

/// A delivery that waits for room under its channel's limit.
pub struct HeldDelivery {
    /// Where it comes from.
    pub queue: QueueId,
    /// Whose it is.
    pub key: ConsumerKey,
    /// Under this number it is settled.
    pub queue_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: Message,
}

/// A publish that went to several queues.
pub struct SharedConfirm {
    /// Queues that have not answered.
    pub missing: u32,
    /// One of those that have has refused it.
    pub refused: bool,
}

/// A transaction being stored.
pub struct Transaction {
    /// Its channel.
    pub channel: u16,
    /// Its publishes have numbers above this one: those of an earlier one, whose channel is gone, are not taken for them.
    pub after: u64,
    /// Publishes that no queue has answered yet.
    pub missing: u64,
    /// A queue has refused one.
    pub refused: bool,
}

/// How a client's octets come.
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// In a TLS session.
    Tls(Box<TlsStream>),
}

/// A consumer as the shard knows it.
pub struct ClientConsumer {
    /// Its queue.
    pub queue: QueueId,
    /// Its channel.
    pub channel: u16,
    /// Its deliveries are not settled.
    pub no_ack: bool,
    /// Octets it may be given before it is given room again.
    pub room_bytes: i64,
    /// Octets it was given since it was last given room.
    pub spent: i64,
}

/// What a read or write came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many octets; there may be more.
    Some(usize),
    /// So many octets, and nothing more for now.
    Dry(usize),
    /// The peer is gone.
    Gone,
}

impl Client {
    /// A client that has just connected.
    pub fn new(number: u64, stream: Stream, peer: SocketAddr, amqp: Connection, now: Instant) -> Self {
        Client {
            number,
            amqp,
            peer,
            stream,
            stranger: true,
            held_login: None,
            readable: false,
            sends_small: false,
            hung_up: false,
            dirty: false,
            listed: false,
            blocked: false,
            publisher: false,
            loads_store: false,
            target: None,
            target_node: None,
            read_at: now,
            closing: None,
            lingers: false,
            counted: false,
            vhost: None,
            routes: RouteCache::default(),
            may_reply_in: 0,
            watched: false,
            consumers: Slab::new(),
            by_channel: Vec::new(),
            spent: Vec::new(),
            limits: Vec::new(),
            held: VecDeque::new(),
            exclusive: BTreeSet::new(),
            shared_confirms: HashMap::new(),
            transactions: VecDeque::new(),
            transaction_publishes: 0,
            timer_at: None,
            goodbye: false,
        }
    }

    /// Its two addresses, as RabbitMQ writes them: `127.0.0.1:50123 -> 127.0.0.1:5672`.
    pub fn addresses(&self) -> String {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let peer = canonical(self.peer);
        // A socket that has failed has no address any more.
        self.local().map_or_else(|| peer.to_string(), |local| format!("{peer} -> {}", canonical(local)))
    }

    /// The socket, to register it.
    pub fn socket(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.socket(),
        }
    }

    /// Who it is by its TLS session, if it has one and the handshake is over.
    pub fn tls(&self) -> Option<&TlsPeer> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.peer(),
        }
    }

    /// When its TLS handshake must be over, if it is not.
    pub fn tls_deadline(&self) -> Option<Instant> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.deadline(),
        }
    }

    /// The address it came to, if the socket still knows.
    pub fn local(&self) -> Option<SocketAddr> {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.socket_ref(),
        };
        socket.local_addr().ok()
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Progress {
        match &mut self.stream {
            Stream::Plain(socket) => read(socket, buffer),
            Stream::Tls(stream) => {
                let progress = stream.read(buffer);
                if progress == Progress::Gone && self.closing.is_none() {
                    self.closing = stream.take_fault();
                }
                progress
            }
        }
    }

    /// Writes until nothing is left or the socket takes no more.
    pub fn write(&mut self) -> Progress {
        match &mut self.stream {
            Stream::Plain(socket) => write(socket, self.amqp.send_buffer()),
            Stream::Tls(stream) => stream.write(self.amqp.send_buffer(), self.closing.is_some() && !self.lingers),
        }
    }

    /// When something is to be done for it if nothing happens until then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let login = self.held_login.as_ref().map(|attempt| attempt.not_before);
        [self.amqp.next_timeout(), login, self.tls_deadline()].into_iter().flatten().min()
    }

    /// It has published, octets that are to be stored among them.
    #[inline]
    pub fn has_published(&mut self, route: &Route, bytes_to_store: usize) {
        self.publisher = true;
        self.loads_store |= bytes_to_store > 0 || route.queues.len() > 1;
        self.target = route.queues.first().copied();
        self.target_node = route.elsewhere.first().map(|(node, _)| *node);
    }

    /// It has sent a direct reply to another node.
    pub fn has_published_to(&mut self, node: NodeId) {
        self.publisher = true;
        self.target_node = Some(node);
    }

    /// How the queues know one of its channels.
    pub fn channel_key(&self, channel: u16) -> ChannelKey {
        ChannelKey { connection: self.number, channel }
    }

    /// Octets that one more consumer may be sent before it is given room again. The consumers of a connection that takes nothing fill its buffer
    /// each up to its room: a few have all they can use, those that come after many have smaller and smaller parts of [`CONNECTION_ROOM_BYTES`].
    /// One of a queue elsewhere may have more.
    pub fn room_of_next_consumer(&self, elsewhere: bool) -> i64 {
        let consumers = i64::try_from(self.consumers.len()).unwrap_or(i64::MAX - 1) + 1;
        let most = if elsewhere { CONSUMER_ELSEWHERE_ROOM_BYTES } else { CONSUMER_ROOM_BYTES };
        (CONNECTION_ROOM_BYTES / consumers).clamp(CONSUMER_ROOM_LEAST_BYTES, most)
    }

    /// Adds a consumer and returns its handle.
    pub fn add_consumer(&mut self, consumer: ClientConsumer) -> u32 {
        let channel = consumer.channel;
        let handle = self.consumers.insert(consumer) as u32;
        let place = self.by_channel.partition_point(|&other| other < (channel, handle));
        self.by_channel.insert(place, (channel, handle));
        handle
    }

    /// The consumers of a channel: their queues, whether they do without acknowledgements, and how the queues know them.
    pub fn consumers_of(&self, channel: u16) -> Vec<(QueueId, bool, ConsumerKey)> {
        let from = self.by_channel.partition_point(|&(other, _)| other < channel);
        let handles = self.by_channel.iter().skip(from).take_while(|&&(other, _)| other == channel);
        let consumer = |&(_, handle): &(u16, u32)| {
            let consumer = self.consumers.get(handle as usize)?;
            let key = ConsumerKey { channel: self.channel_key(channel), consumer: handle };
            Some((consumer.queue, consumer.no_ack, key))
        };
        handles.filter_map(consumer).collect()
    }

    /// Forgets a consumer.
    pub fn remove_consumer(&mut self, handle: u32) -> Option<ClientConsumer> {
        let consumer = self.consumers.try_remove(handle as usize)?;
        if let Ok(place) = self.by_channel.binary_search(&(consumer.channel, handle)) {
            self.by_channel.remove(place);
        }
        // One that was given nothing is not in the list: a thousand idle ones can go without a search for each.
        if consumer.spent != 0
            && let Some(at) = self.spent.iter().position(|&other| other == handle)
        {
            self.spent.swap_remove(at);
        }
        Some(consumer)
    }

    /// How the queues know one of its consumers.
    pub fn consumer_key(&self, handle: u32) -> Option<ConsumerKey> {
        let consumer = self.consumers.get(handle as usize)?;
        Some(ConsumerKey { channel: self.channel_key(consumer.channel), consumer: handle })
    }

    /// The transaction that a publish of this number belongs to. A channel has several only if it was closed while the earlier ones were being stored.
    pub fn transaction_of(&self, channel: u16, number: u64) -> Option<usize> {
        self.transactions.iter().rposition(|transaction| transaction.channel == channel && transaction.after < number)
    }

    /// The limit over a channel, if it has one.
    pub fn limit(&self, channel: u16) -> Option<&Arc<ChannelLimit>> {
        self.limits.iter().find(|(other, ..)| *other == channel).map(|(_, limit, _)| limit)
    }
}

/// Reads a socket once.
pub(super) fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> Progress {
    loop {
        return match socket.read(buffer) {
            Ok(0) => Progress::Gone,
            Ok(octets) if octets < buffer.len() => Progress::Dry(octets),
            Ok(octets) => Progress::Some(octets),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Dry(0),
            Err(_) => Progress::Gone,
        };
    }
}

/// Writes until nothing is left or the socket takes no more.
pub(super) fn write(socket: &mut TcpStream, source: &mut SendBuffer) -> Progress {
    let mut written = 0;
    while !source.is_empty() {
        let result = {
            let slices = source.as_io_slices(SLICES_MAX);
            socket.write_vectored(&slices)
        };
        match result {
            Ok(0) => return Progress::Gone,
            Ok(octets) => {
                source.consume(octets);
                written += octets;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Dry(written),
            Err(_) => return Progress::Gone,
        }
    }
    Progress::Some(written)
}
