//! Direct replies: a publish to the default exchange whose routing key is an address goes to the channel that asked, past topology and queues.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::link::Op;
use broker_amqp::reply_to::{Address, QUEUE, is_address};
use broker_amqp::{Exception, Reply, content};
use broker_core::message::Content;
use broker_core::name::{NodeId, VhostName};
use broker_core::queue::ChannelKey;
use broker_core::refusal::Refusal;
use broker_core::secret::SecretKey;
use smallvec::SmallVec;

use super::dispatch::Route;
use super::elsewhere::Question;
use super::numbers;
use super::requests::{Answer, exception, queue_resource};
use super::shard::Shard;

/// What tokens of addresses are for, in their making.
const PURPOSE: &str = "direct reply-to";
/// That replies are lost is said so often at most.
const LOSS_TOLD_EVERY: Duration = Duration::from_secs(1);
/// A content header's payload before its property flags.
const HEADER_FIXED_BYTES: usize = 12;

/// What the shard keeps for direct replies: nothing that grows with them.
pub struct Replies {
    key: SecretKey,
    /// Consumers of replies there have been.
    consumers: u64,
    /// The route of a reply: no queue.
    nowhere: Arc<Route>,
    loss_told_at: Option<Instant>,
}

impl Replies {
    /// Nobody asks yet. The octets must be random.
    pub fn new(random: [u8; 32]) -> Self {
        Replies { key: SecretKey::new(random), consumers: 0, nowhere: Arc::default(), loss_told_at: None }
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

    /// Delivers a message to the addresses among its routing keys, each once. `published` has those keys, `content` is what may be seen. Returns
    /// whether any took it.
    pub(super) fn deliver_replies(&mut self, published: Content<'_>, content: Content<'_>) -> bool {
        if published.route().first() != Some(&0) {
            return false;
        }
        let properties = published.header().get(HEADER_FIXED_BYTES..).unwrap_or_default();
        let keys = std::iter::once(published.routing_key()).chain(content::extra_routes(properties));
        let mut addresses: SmallVec<[&[u8]; 4]> = keys.filter(|key| is_address(key)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut delivered = false;
        for key in addresses {
            let Some(address) = Address::parse(key) else { continue };
            delivered |= match numbers::node_in(address.connection) {
                node if node == self.parts.node => self.deliver_reply(&address, content),
                node => self.links.reply(node, key, content, self.parts.node),
            };
        }
        delivered
    }

    /// Another node asks whether a channel still waits for replies.
    pub(super) fn answer_whether_requester(&mut self, node: NodeId, request: u64, address: &[u8]) {
        if Address::parse(address).is_some_and(|address| self.takes_replies(&address)) {
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
