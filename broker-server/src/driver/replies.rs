//! Direct replies: a publish to the default exchange whose routing key is an address goes to the channel that asked, past topology and queues.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::link::Op;
use broker_amqp::reply_to::{Address, QUEUE, is_address};
use broker_amqp::{Exception, Reply, content};
use broker_core::message::{Content, Message};
use broker_core::name::{NodeId, VhostName};
use broker_core::queue::{ChannelKey, Publish};
use broker_core::refusal::Refusal;
use broker_core::secret::SecretKey;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::dispatch::Route;
use super::elsewhere::Question;
use super::numbers;
use super::queues::TRANSACTION;
use super::requests::{Answer, exception, queue_resource};
use super::shard::Shard;

/// What tokens of addresses are for, in their making.
const PURPOSE: &str = "direct reply-to";
/// That replies are lost is said so often at most.
const LOSS_TOLD_EVERY: Duration = Duration::from_secs(1);
/// A content header's payload before its property flags.
const HEADER_FIXED_BYTES: usize = 12;

/// What the shard keeps for direct replies: nothing that grows with them, but for those that must not get lost on their way to another node.
pub struct Replies {
    key: SecretKey,
    /// Consumers of replies there have been.
    consumers: u64,
    /// The route of a reply: no queue.
    nowhere: Arc<Route>,
    loss_told_at: Option<Instant>,
    /// Mandatory replies to channels of other nodes, which have not said whether they took them.
    unsure: HashMap<u64, Unsure, RandomState>,
    next_unsure: u64,
}

/// A mandatory reply of which it is not known whether anybody took it.
struct Unsure {
    /// The channel that published it.
    channel: ChannelKey,
    /// 0 if it waits for no confirm.
    publish_seq: u64,
    /// What is returned if nobody took it; none when the channel is gone.
    message: Option<Message>,
    /// Nodes that have not said what became of it; at least one.
    missing: usize,
}

/// What became of a publish as a direct reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replied {
    /// It went to no channel.
    Nowhere,
    /// A channel here took it, or it went to another node that is not asked.
    Sent,
    /// Other nodes will say; then it is confirmed, and returned if nobody took it.
    Asked,
}

impl Replies {
    /// Nobody asks yet. The octets must be random.
    pub fn new(random: [u8; 32]) -> Self {
        Replies {
            key: SecretKey::new(random),
            consumers: 0,
            nowhere: Arc::default(),
            loss_told_at: None,
            unsure: HashMap::default(),
            next_unsure: 0,
        }
    }
}

/// Whether a message with this exchange and routing key is a direct reply and nothing else.
#[inline]
pub fn is_reply(route: &[u8]) -> bool {
    matches!(route, [0, _, key @ ..] if is_address(key))
}

impl Shard {
    /// A channel wants to be sent replies: its address, which is another one each time.
    pub(super) fn consume_replies(&mut self, place: usize, channel: u16) -> Reply {
        let connection = self.clients[place].number;
        let replies = &mut self.parts.replies;
        replies.consumers += 1;
        let token = replies.key.token(PURPOSE, [connection, channel.into(), replies.consumers]);
        Reply::ReplyAddress(Address::new(connection, channel, token))
    }

    /// A declaration of the queue that stands for direct replies, or of an address: is anybody there?
    pub(super) fn declare_replies(&mut self, vhost: &VhostName, name: &str, asker: ChannelKey) -> Answer {
        let address = Address::parse(name.as_bytes());
        let node = address.as_ref().map(|address| numbers::node_in(address.connection));
        if let Some(node) = node.filter(|node| self.links.reaches(*node)) {
            let ChannelKey { connection, channel } = asker;
            let question = Question::Requester { connection, channel, vhost: vhost.clone(), name: name.into() };
            let request = self.links.ask(node, question);
            self.links.say(node, &Op::Requester { request, address: name.as_bytes() });
            return Ok(None);
        }
        if name != QUEUE && !address.is_some_and(|address| self.takes_replies(&address)) {
            return Err(exception(Refusal::NotFound(queue_resource(vhost, name))));
        }
        Ok(Some(Reply::Declared { name: name.into(), messages: 0, consumers: 1 }))
    }

    fn takes_replies(&self, address: &Address) -> bool {
        let client = self.place_of(address.connection).and_then(|place| self.clients.get(place));
        client.is_some_and(|client| client.amqp.takes_replies(address))
    }

    /// The route of a direct reply. That the client may publish to the default exchange is looked at once a generation.
    pub(super) fn route_reply(&mut self, place: usize, content: Content<'_>) -> Result<Arc<Route>, Exception> {
        if self.clients.get(place).is_none_or(|client| client.may_reply_in != self.generation) {
            self.publishable(place, content)?;
            if let Some(client) = self.clients.get_mut(place) {
                client.may_reply_in = self.generation;
            }
        }
        Ok(self.parts.replies.nowhere.clone())
    }

    /// Delivers a message to the addresses among its routing keys, each once. `publish` has those keys, `content` is what may be seen. If nobody here
    /// took it, what became of it elsewhere is asked if `asks` says so.
    pub(super) fn deliver_replies(
        &mut self,
        place: usize,
        publish: &Publish<'_>,
        content: Content<'_>,
        asks: bool,
    ) -> Replied {
        let Publish { channel, publish_seq, content: published } = *publish;
        if published.route().first() != Some(&0) {
            return Replied::Nowhere;
        }
        let properties = published.header().get(HEADER_FIXED_BYTES..).unwrap_or_default();
        let keys = std::iter::once(published.routing_key()).chain(content::extra_routes(properties));
        let mut addresses: SmallVec<[&[u8]; 4]> = keys.filter(|key| is_address(key)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let (mut taken, mut sent) = (false, 0);
        let reply = self.parts.replies.next_unsure;
        for key in addresses {
            let Some(address) = Address::parse(key) else { continue };
            let node = numbers::node_in(address.connection);
            if node == self.parts.node {
                taken |= self.deliver_reply(&address, content);
            } else if self.links.reply(node, key, content, self.parts.node) {
                sent += 1;
                if asks {
                    self.links.ask_behind_reply(node, key, Question::Replied { reply });
                }
                if let Some(client) = self.clients.get_mut(place) {
                    client.has_published_to(node);
                }
            }
        }
        if !asks || sent == 0 {
            return if taken || sent > 0 { Replied::Sent } else { Replied::Nowhere };
        }
        self.parts.replies.next_unsure += 1;
        if taken {
            return Replied::Sent;
        }
        let unsure = Unsure { channel, publish_seq, message: Some(content.keep()), missing: sent };
        self.parts.replies.unsure.insert(reply, unsure);
        Replied::Asked
    }

    /// A node says whether a channel took a mandatory reply. If none did on any node, it goes back to its publisher.
    pub(super) fn reply_is_answered(&mut self, reply: u64, taken: bool) {
        let Some(unsure) = self.parts.replies.unsure.get_mut(&reply) else { return };
        unsure.missing = unsure.missing.saturating_sub(1);
        if !taken && unsure.missing > 0 {
            return;
        }
        let Some(unsure) = self.parts.replies.unsure.remove(&reply) else { return };
        let Unsure { channel, publish_seq, message, .. } = unsure;
        if let Some(message) = message.filter(|_| !taken)
            && let Some(place) = self.place_of(channel.connection)
            && let Some(client) = self.clients.get_mut(place)
        {
            client.amqp.returned(channel.channel, &message);
            self.mark_dirty(place);
        }
        if publish_seq != 0 {
            self.confirm(channel, publish_seq, publish_seq);
        }
    }

    /// Another node asks whether a channel still waits for replies; right behind a reply to it, whether that was taken.
    pub(super) fn answer_whether_requester(&mut self, node: NodeId, request: u64, address: &[u8]) {
        let is_there = Address::parse(address).is_some_and(|address| match self.links.reply_before(node) {
            Some((of, taken)) if of == address => taken,
            _ => self.takes_replies(&address),
        });
        if is_there {
            self.links.say(node, &Op::Answer { request, messages: 0, consumers: 1 });
        } else {
            self.links.say(node, &Op::Refusal { request, code: 404, text: "nobody waits for replies there" });
        }
    }

    pub(super) fn deliver_reply(&mut self, address: &Address, content: Content<'_>) -> bool {
        let Some(place) = self.place_of(address.connection) else { return false };
        let Some(client) = self.clients.get_mut(place) else { return false };
        if client.amqp.deliver_reply(address, content) {
            self.mark_dirty(place);
            return true;
        }
        if client.amqp.takes_replies(address) && self.parts.replies.loss_is_to_be_told(self.now) {
            let (peer, connection) = (client.peer, client.number);
            tracing::warn!(%peer, connection, channel = address.channel, "direct replies are lost: the client that asked does not read them");
        }
        false
    }
}

impl Replies {
    /// A channel is gone: nothing is returned to it or confirmed. A transaction still has its answer, which the connection then passes over.
    pub(super) fn forget(&mut self, channel: ChannelKey) {
        for unsure in self.unsure.values_mut().filter(|unsure| unsure.channel == channel) {
            unsure.message = None;
            if unsure.publish_seq & TRANSACTION == 0 {
                unsure.publish_seq = 0;
            }
        }
    }

    fn loss_is_to_be_told(&mut self, now: Instant) -> bool {
        let due = self.loss_told_at.is_none_or(|at| now >= at + LOSS_TOLD_EVERY);
        if due {
            self.loss_told_at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_told_by_its_route() {
        let address = Address::new(1, 1, [1; 16]).octets();
        let route = |exchange: &[u8]| {
            let parts = [&[exchange.len() as u8], exchange, &[address.len() as u8], &address[..]];
            parts.concat()
        };
        assert!(is_reply(&route(b"")));
        assert!(!is_reply(&route(b"amq.direct")));
        assert!(!is_reply(b"\0\x15amq.rabbitmq.reply-to") && !is_reply(b"\0\0") && !is_reply(b""));
    }
}
