//! Links to the other nodes of the cluster: sockets of the shard beside those of clients. What is said on them is in `broker_amqp::link`.
//!
//! On a link a node keeps, for the other's channels, which consumers and unsettled deliveries they have here; and for its own channels, which publishes
//! and questions are not answered yet. When the link is lost all of that is answered as if the other node had gone: deliveries go back to their
//! queues, consumers are cancelled, publishes refused, questions told that the queue's home is down. What the other node then says of it on a
//! new link is passed over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use broker_amqp::link::{Got, Link, Op, Queues, Receiver, Sender};
use broker_amqp::reply_to::Address;
use broker_amqp::{Exception, Reply, ReplyCode};
use broker_core::message::{Content, Message};
use broker_core::name::{ExchangeName, NodeId, VhostName};
use broker_core::queue::{self, ChannelKey, ConsumerKey, ConsumerSettings, Outcome, Publish};
use broker_core::store::QueueId;
use broker_core::topology::ExchangeRecord;
use broker_meta::raft::count_of;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use mio::net::TcpStream;
use mio::{Interest, Token};
use smallvec::SmallVec;

use super::announcing::Announcing;
use super::client::Progress;
use super::departures::Departures;
use super::dispatch::Route;
use super::early::Early;
use super::elsewhere::Question;
use super::letters::LETTERS;
use super::link_stream::{LinkStream, Socket};
use super::numbers;
use super::shard::Shard;
use super::unanswered::{Deliveries, Publishes};
use crate::admin;

/// Tokens from here up to the listeners' are links, by the number of the node.
pub const TOKENS: usize = usize::MAX - 1024 - 8192;
/// How many.
pub const TOKENS_COUNT: usize = 4096;
/// Not a queue: the channel whose address is the routing key, or an exchange that keeps the message.
pub(super) const NO_QUEUE: QueueId = QueueId(0);
/// One read of a link takes at most so many octets.
const READ_BYTES: usize = 256 * 1024;
/// An answer that waits until every node has applied a change waits no longer than this.
pub(super) const SEEN_WAIT: Duration = Duration::from_secs(3);

/// All links of the shard.
#[derive(Default)]
pub struct Links {
    by_node: BTreeMap<u64, Box<NodeLink>>,
    readable: VecDeque<u64>,
    dirty: Vec<u64>,
    next_request: u64,
    /// Questions that another node has not answered, by their number.
    pub(super) questions: HashMap<u64, (NodeId, Question), RandomState>,
    /// Consumers of this node's clients on queues of others.
    pub(super) consumers: HashMap<QueueId, BTreeSet<ConsumerKey>, RandomState>,
    /// What this node has announced of its exclusive queues and not all have taken.
    pub(super) announcing: Announcing,
    /// Answers to changes that some node has not applied yet, in the order of the log.
    unseen: VecDeque<Unseen>,
    /// What is done when queues of other nodes are gone.
    pub(super) departures: Departures,
    /// The last entry applied here.
    applied: u64,
}

/// An answer that waits until every node knows.
struct Unseen {
    index: u64,
    until: Instant,
    owed: Owed,
}

/// What is answered to whom when a change has been applied.
pub(super) enum Owed {
    Channel {
        connection: u64,
        channel: u16,
        reply: Reply,
    },
    /// The number of an operator's request.
    Operator(u64, Box<admin::import::Outcome>),
}

struct NodeLink {
    node: NodeId,
    incarnation: u64,
    stream: LinkStream,
    sender: Sender,
    /// None while it is listened to.
    receiver: Option<Receiver>,
    listed: bool,
    dirty: bool,
    /// The last entry that the other node has applied.
    applied: u64,
    /// Consumers of its clients on queues here.
    consumers: HashMap<ConsumerKey, QueueId, RandomState>,
    /// What its channels hold unsettled, by queue.
    held: Deliveries,
    /// Publishes of this node's channels that are not answered.
    publishes: Publishes,
    /// Those for which there is no credit. Their publishers are not read from, so that there are few.
    waiting: VecDeque<Waiting>,
    /// Channels that have asked for one message, in that order, and whether they are still there.
    gets: VecDeque<(ChannelKey, bool)>,
    /// Who gets the next message, if no queue.
    receiver_of_next: Option<NoQueue>,
    /// The direct reply that was heard just before, and whether its channel took it.
    reply_before: Option<(Address, bool)>,
    /// What it said of queues that this node does not know yet.
    early: Early,
    /// Octets of messages that were taken while the store was behind: their sender hears of it later.
    untaken: usize,
}

/// Who gets a message that is for no queue.
enum NoQueue {
    /// An exchange that keeps it.
    Exchange(VhostName, ExchangeName),
    /// A channel that waits for replies.
    Channel(Address),
}

struct Waiting {
    queues: SmallVec<[QueueId; 2]>,
    channel: ChannelKey,
    publish_seq: u64,
    message: Message,
    /// What is asked behind it: the request, and the address.
    asks: Option<(u64, Box<[u8]>)>,
}

impl Links {
    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        !self.by_node.is_empty()
    }

    /// To which nodes there is one.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_node.keys().map(|&node| NodeId(node))
    }

    /// Whether there is one to that node.
    pub fn reaches(&self, node: NodeId) -> bool {
        self.by_node.contains_key(&node.0)
    }

    /// Whether publishes for that node may go on.
    pub fn may_publish(&self, node: NodeId) -> bool {
        self.by_node.get(&node.0).is_none_or(|link| link.waiting.is_empty() && link.sender.may_publish())
    }

    /// Whether there is anything to read or write.
    pub fn busy(&self) -> bool {
        !self.readable.is_empty() || !self.dirty.is_empty()
    }

    /// When an answer has waited long enough for the other nodes.
    pub fn next_timeout(&self) -> Option<Instant> {
        let announcing = self.announcing.next_timeout();
        self.unseen
            .front()
            .map(|unseen| unseen.until)
            .into_iter()
            .chain(announcing)
            .chain(self.departures.until())
            .min()
    }

    /// A number for a question to a node.
    pub(super) fn ask(&mut self, node: NodeId, question: Question) -> u64 {
        self.next_request += 1;
        self.questions.insert(self.next_request, (node, question));
        self.next_request
    }

    /// Says something to a node; if there is no link any more, nobody.
    pub(super) fn say(&mut self, node: NodeId, op: &Op<'_>) {
        if let Some(link) = self.by_node.get_mut(&node.0) {
            link.sender.say(op);
            mark(link, &mut self.dirty);
        }
    }

    /// Says something to all nodes.
    pub(super) fn say_to_all(&mut self, op: &Op<'_>) {
        for link in self.by_node.values_mut() {
            link.sender.say(op);
            mark(link, &mut self.dirty);
        }
    }

    /// Sends a node a direct reply. One whose routing key is not the address follows an operation that says the address. False if it cannot be sent.
    pub(super) fn reply(&mut self, node: NodeId, address: &[u8], content: Content<'_>, me: NodeId) -> bool {
        let Some(link) = self.by_node.get_mut(&node.0) else { return false };
        let publish = Publish { channel: on_the_wire(LETTERS, me), publish_seq: 0, content };
        if content.routing_key() != address {
            if !link.waiting.is_empty() || !link.sender.may_publish() {
                // What waits has no room for an operation before it.
                return false;
            }
            link.sender.say(&Op::Reply { address });
        }
        self.publish(node, &[NO_QUEUE], std::iter::once(publish), me)
    }

    /// Asks a node what became of the direct reply that it was sent just now.
    pub(super) fn ask_behind_reply(&mut self, node: NodeId, address: &[u8], question: Question) {
        let request = self.ask(node, question);
        let Some(link) = self.by_node.get_mut(&node.0) else { return };
        if let Some(reply) = link.waiting.back_mut() {
            reply.asks = Some((request, address.into()));
            return;
        }
        link.sender.say(&Op::Requester { request, address });
        mark(link, &mut self.dirty);
    }

    /// The direct reply that a node sent just before, and whether its channel took it.
    pub(super) fn reply_before(&mut self, node: NodeId) -> Option<(Address, bool)> {
        self.by_node.get_mut(&node.0)?.reply_before.take()
    }

    /// Gives all nodes a message that an exchange keeps. One that is behind with what it is sent does not get it.
    pub(super) fn keep_for_all(&mut self, exchange: &ExchangeRecord, content: Content<'_>, me: NodeId) {
        let publish = Publish { channel: on_the_wire(LETTERS, me), publish_seq: 0, content };
        for link in self.by_node.values_mut().filter(|link| link.waiting.is_empty() && link.sender.may_publish()) {
            link.sender.say(&Op::Kept { vhost: &exchange.vhost, exchange: &exchange.name });
            link.sender.publish(&[NO_QUEUE], &publish);
            mark(link, &mut self.dirty);
        }
    }

    /// A delivery of a node's queue did not reach its client. One without a number is lost, as on any closed channel.
    pub(super) fn give_back(&mut self, node: NodeId, queue: QueueId, queue_tag: u64) {
        if queue_tag != 0 {
            let outcome = Outcome::Undelivered;
            self.say(node, &Op::Settle { queue, first: queue_tag, last: queue_tag, outcome });
        }
    }

    /// Says what was taken of the nodes' publishes.
    fn give_taken(&mut self) {
        for link in self.by_node.values_mut().filter(|link| link.untaken > 0) {
            let octets = std::mem::take(&mut link.untaken);
            if let Some(credit) = link.receiver.as_mut().and_then(|receiver| receiver.taken(octets)) {
                link.sender.say(&credit);
                mark(link, &mut self.dirty);
            }
        }
    }

    /// Asks for one message.
    pub(super) fn get(&mut self, node: NodeId, queue: QueueId, channel: ChannelKey, no_ack: bool) {
        if let Some(link) = self.by_node.get_mut(&node.0) {
            link.gets.push_back((channel, true));
            link.sender.say(&Op::Get { queue, channel, no_ack });
            mark(link, &mut self.dirty);
        }
    }

    /// A channel is gone: a message that comes for it goes back. How many it has asked for.
    pub(super) fn forget_gets(&mut self, channel: ChannelKey) -> usize {
        let mut asked = 0;
        for (other, waits) in self.by_node.values_mut().flat_map(|link| &mut link.gets) {
            if *other == channel && std::mem::take(waits) {
                asked += 1;
            }
        }
        asked
    }

    /// Delivers to a consumer of another node. False if there is no link any more.
    pub(super) fn deliver(&mut self, queue: QueueId, delivery: &queue::Delivery<'_>) -> bool {
        let node = numbers::node_in(delivery.key.channel.connection);
        let Some(link) = self.by_node.get_mut(&node.0) else { return false };
        if delivery.queue_tag != 0 {
            link.held.sent(queue, delivery.queue_tag);
        }
        link.sender.deliver(queue, delivery);
        mark(link, &mut self.dirty);
        true
    }

    /// Gives a message to a channel of another node that asked for it. False if there is no link any more.
    pub(super) fn got(&mut self, got: &Got<'_>) -> bool {
        let node = numbers::node_in(got.channel.connection);
        let Some(link) = self.by_node.get_mut(&node.0) else { return false };
        if got.queue_tag != 0 {
            link.held.sent(got.queue, got.queue_tag);
        }
        link.sender.got(got);
        mark(link, &mut self.dirty);
        true
    }

    /// Sends publishes to queues of a node. False if there is no link any more.
    pub(super) fn publish<'a>(
        &mut self,
        node: NodeId,
        queues: &[QueueId],
        publishes: impl Iterator<Item = Publish<'a>>,
        me: NodeId,
    ) -> bool {
        let Some(link) = self.by_node.get_mut(&node.0) else { return false };
        for Publish { channel, publish_seq, content } in publishes {
            let channel = on_the_wire(channel, me);
            if publish_seq != 0 {
                link.publishes.sent(channel, publish_seq, queues.len());
            }
            if link.waiting.is_empty() && link.sender.may_publish() {
                link.sender.publish(queues, &Publish { channel, publish_seq, content });
            } else {
                let message = content.keep();
                link.waiting.push_back(Waiting { queues: queues.into(), channel, publish_seq, message, asks: None });
            }
        }
        mark(link, &mut self.dirty);
        true
    }
}

/// Letters are published by nobody: on a link, by the node.
fn on_the_wire(channel: ChannelKey, me: NodeId) -> ChannelKey {
    if channel == LETTERS {
        ChannelKey { connection: numbers::number(me, 0, 0).unwrap_or_default(), channel: 0 }
    } else {
        channel
    }
}

fn here(channel: ChannelKey) -> ChannelKey {
    let ChannelKey { connection, channel: number } = channel;
    if numbers::number(numbers::node_in(connection), 0, 0) == Some(connection) && number == 0 {
        LETTERS
    } else {
        channel
    }
}

fn mark(link: &mut NodeLink, dirty: &mut Vec<u64>) {
    if !std::mem::replace(&mut link.dirty, true) {
        dirty.push(link.node.0);
    }
}

impl Shard {
    /// A link has come up. One that was there before is lost.
    pub(super) fn link_is_up(&mut self, node: NodeId, incarnation: u64, (stream, tls): Socket) {
        self.link_is_lost(node, "there is a new one");
        let mut stream = LinkStream::new(TcpStream::from_std(stream), tls);
        let token = Token(TOKENS + node.0 as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.parts.poll.registry().register(stream.socket(), token, interest) {
            tracing::warn!(node = node.0, %error, "cannot watch the link to another node; trying again");
            return self.tell_of_lost_link(node);
        }
        let (sender, receiver) = Link::new(self.parts.settings.max_message_size).split();
        let link = NodeLink {
            node,
            incarnation,
            stream,
            sender,
            receiver: Some(receiver),
            // What came with the handshake has been read from the socket already.
            listed: true,
            dirty: false,
            applied: 0,
            consumers: HashMap::default(),
            held: Deliveries::default(),
            publishes: Publishes::default(),
            waiting: VecDeque::new(),
            gets: VecDeque::new(),
            receiver_of_next: None,
            reply_before: None,
            early: Early::default(),
            untaken: 0,
        };
        self.links.by_node.insert(node.0, Box::new(link));
        self.links.readable.push_back(node.0);
        let index = self.links.applied;
        self.links.say(node, &Op::Applied { index });
        self.tally.tell_all();
        let cluster = self.parts.meta.cluster();
        if let Some(cluster) = cluster {
            cluster.link_is_up(node);
        }
        for announcement in cluster.map(|cluster| cluster.announcements()).unwrap_or_default() {
            self.announce_to(node, &announcement);
        }
        // Queues there can be reached.
        self.generation += 1;
        tracing::info!(node = node.0, start = count_of(incarnation), "link to another node is up");
    }

    /// Links to nodes that were removed from the cluster end, whether these know of it or not.
    pub(super) fn part_from_removed(&mut self) {
        let catalog = self.parts.catalog.clone();
        let members = catalog.members();
        let is_removed = |node: &NodeId| members.get(*node).is_none() && members.knows_of(node.0);
        let removed: SmallVec<[NodeId; 1]> = self.links.nodes().filter(is_removed).collect();
        for node in removed {
            self.link_is_lost(node, "it was removed from the cluster");
        }
    }

    fn tell_of_lost_link(&self, node: NodeId) {
        if let Some(cluster) = self.parts.meta.cluster() {
            cluster.link_is_down(node);
        }
    }

    /// The link to a node is lost: all that hung on it is answered, in an order that is not one of chance.
    pub(super) fn link_is_lost(&mut self, node: NodeId, why: &str) {
        let Some(mut link) = self.links.by_node.remove(&node.0) else { return };
        drop(self.parts.poll.registry().deregister(link.stream.socket()));
        tracing::warn!(node = node.0, start = count_of(link.incarnation), "link to another node is lost: {why}");
        self.tell_of_lost_link(node);
        self.tally.forget(node);
        self.links.announcing.forget(node);
        self.generation += 1;
        // What its channels had here goes back, before others are given anything.
        let mut consumers: Vec<(ConsumerKey, QueueId)> = link.consumers.drain().collect();
        consumers.sort_unstable();
        for (key, queue) in consumers {
            self.feed(queue, queue::Input::Cancel(key));
        }
        for (queue, ranges) in link.held.left() {
            for (first, last) in ranges.iter() {
                self.feed(queue, queue::Input::Settle { first, last, outcome: Outcome::Requeue });
            }
        }
        // What this node's channels had there is over.
        for (channel, publish_seq) in link.publishes.left() {
            self.refuse(here(channel), publish_seq, publish_seq);
        }
        for (channel, _) in link.gets.into_iter().filter(|(_, waits)| *waits) {
            let refused = Exception::new(ReplyCode::NotFound, "the node of the queue is down or inaccessible");
            self.replies.push_back((channel.connection, channel.channel, Reply::Refused(refused)));
        }
        let mut of_node: Vec<u64> =
            self.links.questions.iter().filter(|(_, (of, _))| *of == node).map(|(&request, _)| request).collect();
        of_node.sort_unstable();
        for request in of_node {
            if let Some((_, question)) = self.links.questions.remove(&request) {
                self.question_is_lost(question);
            }
        }
        let topology = self.parts.topology.clone();
        let there = |queue: &QueueId| topology.queue_by_id(*queue).is_none_or(|record| record.node == node);
        let mut queues: Vec<QueueId> = self.links.consumers.keys().copied().filter(there).collect();
        queues.sort_unstable();
        for queue in queues {
            self.queue_elsewhere_is_gone(queue);
        }
        self.release_seen();
    }

    /// A link's socket can be read from or written to.
    pub(super) fn link_is_ready(&mut self, token: usize, readable: bool, writable: bool) {
        let node = (token - TOKENS) as u64;
        let Some(link) = self.links.by_node.get_mut(&node) else { return };
        if readable && !std::mem::replace(&mut link.listed, true) {
            self.links.readable.push_back(node);
        }
        if writable {
            mark(link, &mut self.links.dirty);
        }
    }

    /// Reads every link that has something once.
    pub(super) fn read_links(&mut self) {
        for _ in 0..self.links.readable.len() {
            let Some(node) = self.links.readable.pop_front() else { return };
            self.read_link(NodeId(node));
        }
    }

    fn read_link(&mut self, node: NodeId) {
        let Some(link) = self.links.by_node.get_mut(&node.0) else { return };
        link.listed = false;
        let mut buffer = std::mem::take(&mut self.link_buffer);
        buffer.resize(READ_BYTES, 0);
        match link.stream.read(&mut buffer) {
            Progress::Gone => self.link_is_lost(node, "the other node has closed it"),
            Progress::Dry(0) => {}
            Progress::Dry(octets) | Progress::Some(octets) => {
                // There may be more, if only the end, of which no further event comes.
                link.listed = true;
                self.links.readable.push_back(node.0);
                self.hear(node, buffer.get(..octets).unwrap_or_default());
            }
        }
        self.link_buffer = buffer;
    }

    fn hear(&mut self, node: NodeId, octets: &[u8]) {
        let receiver = self.links.by_node.get_mut(&node.0).and_then(|link| link.receiver.take());
        let Some(mut receiver) = receiver else { return };
        let heard = receiver.receive(octets, &mut |op| self.heard(node, op));
        if let Some(link) = self.links.by_node.get_mut(&node.0) {
            link.receiver = Some(receiver);
        }
        if let Err(error) = heard {
            self.link_is_lost(node, &error.to_string());
        }
        self.give_back();
        self.publish_letters();
    }

    /// One operation of another node.
    fn heard(&mut self, node: NodeId, op: Op<'_>) {
        let index = self.parts.catalog.index();
        let Some(link) = self.links.by_node.get_mut(&node.0) else { return };
        if !matches!(op, Op::Requester { .. }) {
            link.reply_before = None;
        }
        if let Some(op) = link.early.hold(index, op) {
            self.carry_out_op(node, op);
        }
    }

    /// Carries out what other nodes have said of queues that this node knows only now.
    pub(super) fn hear_early(&mut self) {
        let index = self.parts.catalog.index();
        let waiting = self.links.by_node.values().filter(|link| !link.early.is_empty());
        let nodes: SmallVec<[NodeId; 4]> = waiting.map(|link| link.node).collect();
        for &node in &nodes {
            while let Some(held) = self.links.by_node.get_mut(&node.0).and_then(|link| link.early.next(index)) {
                held.with(|op| self.carry_out_op(node, op));
            }
        }
        if !nodes.is_empty() {
            self.give_back();
            self.publish_letters();
        }
    }

    fn carry_out_op(&mut self, node: NodeId, op: Op<'_>) {
        match op {
            Op::Publish { queues, publishes } => self.published_elsewhere(node, queues, publishes),
            Op::Consume { request, queue, key, no_ack, exclusive, prefetch, priority, room_bytes } => {
                let settings = ConsumerSettings { key, no_ack, exclusive, prefetch, priority, room_bytes, limit: None };
                self.consume_from_elsewhere(node, request, queue, settings);
            }
            Op::Cancel { queue, key } => {
                if let Some(link) = self.links.by_node.get_mut(&node.0)
                    && link.consumers.remove(&key).is_some()
                {
                    self.feed(queue, queue::Input::Cancel(key));
                }
            }
            Op::Settle { queue, first, last, outcome } => {
                if let Some(link) = self.links.by_node.get_mut(&node.0) {
                    link.held.settled(queue, first, last);
                }
                self.feed(queue, queue::Input::Settle { first, last, outcome });
            }
            Op::Room { queue, key, bytes } => self.feed(queue, queue::Input::Room { key, bytes }),
            Op::Get { queue, channel, no_ack } => match self.queues.get(&queue) {
                Some(local) if !local.is_leaving() => self.feed(queue, queue::Input::Get { channel, no_ack }),
                _ => self.links.say(node, &Op::GotNothing { queue, channel }),
            },
            Op::Purge { request, queue } | Op::Count { request, queue } if self.is_gone(queue) => {
                self.links.say(node, &Op::Refusal { request, code: 404, text: "the queue is gone" });
            }
            Op::Purge { request, queue } => {
                let messages = self.queues.get(&queue).map_or(0, |local| local.queue.ready_count());
                self.feed(queue, queue::Input::Purge);
                self.links.say(node, &Op::Answer { request, messages, consumers: 0 });
            }
            Op::Count { request, queue } => {
                let (messages, consumers) = self.counts_of(queue);
                self.links.say(node, &Op::Answer { request, messages, consumers });
            }
            Op::Deliver { queue, deliveries } => {
                deliveries.iter().for_each(|delivery| self.delivered_from_elsewhere(node, queue, delivery));
            }
            Op::Got(got) => {
                if self.takes_get(node, got.channel) {
                    self.got_from_elsewhere(&got);
                } else {
                    self.links.give_back(node, got.queue, got.queue_tag);
                }
            }
            Op::GotNothing { channel, .. } => {
                if self.takes_get(node, channel) {
                    self.replies.push_back((channel.connection, channel.channel, Reply::GetEmpty));
                }
            }
            Op::Confirmed { channel, first, last } => self.answered_from_elsewhere(node, channel, first, last, true),
            Op::Refused { channel, first, last } => self.answered_from_elsewhere(node, channel, first, last, false),
            Op::Answer { request, messages, consumers } => {
                if let Some((_, question)) = self.links.questions.remove(&request) {
                    self.question_is_answered(question, messages, consumers);
                }
            }
            Op::Refusal { request, code, text } => {
                if let Some((_, question)) = self.links.questions.remove(&request) {
                    self.question_is_refused(node, question, code, text);
                }
            }
            Op::Credit { octets } => {
                if let Some(link) = self.links.by_node.get_mut(&node.0) {
                    link.sender.credited(octets);
                    while link.sender.may_publish()
                        && let Some(Waiting { queues, channel, publish_seq, message, asks }) = link.waiting.pop_front()
                    {
                        let content = Content::Kept(&message);
                        link.sender.publish(&queues, &Publish { channel, publish_seq, content });
                        if let Some((request, address)) = asks {
                            link.sender.say(&Op::Requester { request, address: &address });
                        }
                        mark(link, &mut self.links.dirty);
                    }
                }
            }
            Op::Announce { request, octets } => self.hear_announcement(node, request, octets),
            Op::Kept { vhost, exchange } => {
                if let Some(link) = self.links.by_node.get_mut(&node.0) {
                    link.receiver_of_next = Some(NoQueue::Exchange(vhost.into(), exchange.into()));
                }
            }
            Op::Reply { address } => {
                if let Some(link) = self.links.by_node.get_mut(&node.0) {
                    link.receiver_of_next = Address::parse(address).map(NoQueue::Channel);
                }
            }
            Op::Requester { request, address } => self.answer_whether_requester(node, request, address),
            Op::Tally { of, name, connections, channels } => self.hear_tally(node, of, name, connections, channels),
            Op::Applied { index } => {
                if let Some(link) = self.links.by_node.get_mut(&node.0) {
                    link.applied = link.applied.max(index);
                }
                self.release_seen();
            }
        }
    }

    /// Channels of another node have published to queues here.
    fn published_elsewhere(&mut self, node: NodeId, queues: Queues<'_>, publishes: &[Publish<'_>]) {
        // A node speaks for its own channels only.
        if !publishes.iter().all(|publish| numbers::node_in(publish.channel.connection) == node) {
            return;
        }
        if let Some(link) = self.links.by_node.get_mut(&node.0) {
            link.untaken += publishes.iter().map(|publish| publish.content.memory()).sum::<usize>();
        }
        if queues.iter().eq([NO_QUEUE]) {
            return publishes.iter().for_each(|publish| self.take_for_no_queue(node, publish.content));
        }
        let mut route = Route { queues: queues.iter().collect(), ..Route::default() };
        route.here = route.queues.len();
        route.stores_all = self.any_stores_all(&route.queues);
        let to_store = publishes.iter().map(|publish| route.to_store(publish.content)).sum();
        self.publish_to_all(&route, to_store, publishes.iter().copied());
    }

    /// A message that is for no queue: a direct reply, by its routing key, if nothing else was said.
    fn take_for_no_queue(&mut self, node: NodeId, content: Content<'_>) {
        let receiver = self.links.by_node.get_mut(&node.0).and_then(|link| link.receiver_of_next.take());
        match receiver.or_else(|| Address::parse(content.routing_key()).map(NoQueue::Channel)) {
            Some(NoQueue::Channel(address)) => {
                let taken = self.deliver_reply(&address, content);
                if let Some(link) = self.links.by_node.get_mut(&node.0) {
                    link.reply_before = Some((address, taken));
                }
            }
            Some(NoQueue::Exchange(vhost, exchange)) => self.keep_for(&vhost, &exchange, content),
            None => {}
        }
    }

    fn takes_get(&mut self, node: NodeId, channel: ChannelKey) -> bool {
        let Some(link) = self.links.by_node.get_mut(&node.0) else { return false };
        // Answers for a channel come in the order in which it asked.
        let at = link.gets.iter().position(|(other, _)| *other == channel);
        at.and_then(|at| link.gets.remove(at)).is_some_and(|(_, waits)| waits)
    }

    fn answered_from_elsewhere(&mut self, node: NodeId, channel: ChannelKey, first: u64, last: u64, taken: bool) {
        let Some(link) = self.links.by_node.get_mut(&node.0) else { return };
        for (first, last) in link.publishes.answered(channel, first, last) {
            match taken {
                true => self.confirm(here(channel), first, last),
                false => self.refuse(here(channel), first, last),
            }
        }
    }

    /// A consumer of another node's client wants to start.
    fn consume_from_elsewhere(&mut self, node: NodeId, request: u64, queue: QueueId, settings: ConsumerSettings) {
        let Some(local) = self.queues.get(&queue).filter(|local| !local.is_leaving()) else {
            return self.links.say(node, &Op::Refusal { request, code: 404, text: "the queue is gone" });
        };
        if !local.queue.may_consume(settings.exclusive) {
            let text = format!("queue '{}' in vhost '{}' in exclusive use", local.record.name, local.record.vhost);
            return self.links.say(node, &Op::Refusal { request, code: 403, text: &text });
        }
        if let Some(link) = self.links.by_node.get_mut(&node.0) {
            link.consumers.insert(settings.key, queue);
        }
        // Before the first delivery.
        self.links.say(node, &Op::Answer { request, messages: 0, consumers: 0 });
        self.feed(queue, queue::Input::Consume(settings));
    }

    /// A queue of this node is gone: other nodes hear of it from the catalog.
    pub(super) fn forget_elsewhere(&mut self, queue: QueueId) {
        for link in self.links.by_node.values_mut() {
            link.consumers.retain(|_, of| *of != queue);
            link.held.forget(queue);
        }
    }

    /// Writes what is to be said; what was taken of the others' publishes only while the store is not behind.
    pub(super) fn write_links(&mut self) {
        if !self.is_behind() {
            self.links.give_taken();
        }
        for node in std::mem::take(&mut self.links.dirty) {
            let Some(link) = self.links.by_node.get_mut(&node) else { continue };
            link.dirty = false;
            if !link.stream.write(link.sender.send_buffer()) {
                self.link_is_lost(NodeId(node), "the socket failed");
            }
        }
    }

    /// This node has applied an entry: the others hear of it.
    pub(super) fn has_applied(&mut self, index: u64) {
        if index == 0 {
            return;
        }
        self.links.applied = index;
        self.links.say_to_all(&Op::Applied { index });
    }

    /// Answers once all nodes have applied what was applied here: whoever hears of a change finds it everywhere.
    pub(super) fn answer_when_seen(&mut self, owed: Owed) {
        let index = self.links.applied;
        if self.links.by_node.values().all(|link| link.applied >= index) {
            return self.give(owed);
        }
        let until = self.now + SEEN_WAIT;
        self.links.unseen.push_back(Unseen { index, until, owed });
    }

    /// Gives the answers for which nobody needs to be waited for any more.
    pub(super) fn release_seen(&mut self) {
        let seen = self.links.by_node.values().map(|link| link.applied).min().unwrap_or(u64::MAX);
        while let Some(first) = self.links.unseen.front()
            && (first.index <= seen || first.until <= self.now)
            && let Some(Unseen { owed, .. }) = self.links.unseen.pop_front()
        {
            self.give(owed);
        }
    }

    fn give(&mut self, owed: Owed) {
        match owed {
            Owed::Channel { connection, channel, reply } => self.replies.push_back((connection, channel, reply)),
            Owed::Operator(number, outcome) => self.note_admin_outcome(number, *outcome),
        }
    }

    /// Hears that a channel of this node has settled deliveries of a queue elsewhere, or a consumer has room.
    pub(super) fn feed_elsewhere(&mut self, id: QueueId, input: queue::Input) {
        let Some(node) = self.home_of(id) else { return };
        match input {
            queue::Input::Settle { first, last, outcome } => {
                self.links.say(node, &Op::Settle { queue: id, first, last, outcome });
            }
            queue::Input::Room { key, bytes } => self.links.say(node, &Op::Room { queue: id, key, bytes }),
            queue::Input::Cancel(key) => {
                if let Some(keys) = self.links.consumers.get_mut(&id) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.links.consumers.remove(&id);
                    }
                }
                self.links.say(node, &Op::Cancel { queue: id, key });
            }
            // What remains concerns queues of this node only.
            _ => {}
        }
    }

    /// The other node where a queue lives.
    pub(super) fn home_of(&self, id: QueueId) -> Option<NodeId> {
        let node = self.parts.topology.queue_by_id(id)?.node;
        (node != self.parts.node).then_some(node)
    }
}
