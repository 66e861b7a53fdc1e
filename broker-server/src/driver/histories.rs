//! What recent-history exchanges have kept: put there by publishes, handed to queues that are newly bound. Each node keeps what came through the exchange
//! on any node since it started, and hands it to its own queues.

use std::sync::Arc;

use broker_core::message::Content;
use broker_core::name::{ExchangeName, VhostName};
use broker_core::queue::{ChannelKey, Publish};
use broker_core::topology::{Binding, Destination, ExchangeRecord};
use smallvec::SmallVec;

use super::dispatch::Route;
use super::shard::Shard;

/// Publisher of messages nobody waits for a confirm of.
const NOBODY: ChannelKey = ChannelKey { connection: 0, channel: 0 };

impl Shard {
    /// Keeps a message that came through these exchanges, on all nodes.
    pub(super) fn keep(&mut self, exchanges: &[Arc<ExchangeRecord>], content: Content<'_>) {
        let message = content.keep();
        for exchange in exchanges {
            self.histories.keep(&exchange.vhost, &exchange.name, exchange.history_length(), message.clone());
            self.links.keep_for_all(exchange, content, self.parts.node);
        }
    }

    /// Keeps a message that came through an exchange on another node.
    pub(super) fn keep_for(&mut self, vhost: &VhostName, exchange: &ExchangeName, content: Content<'_>) {
        if let Some(record) = self.parts.topology.exchange(vhost, exchange) {
            self.histories.keep(vhost, exchange, record.history_length(), content.keep());
        }
    }

    /// A queue of this node that was bound gets what its new source has kept. Exchanges that were bound get nothing: RabbitMQ fails there.
    pub(super) fn recall_history(&mut self, vhost: &VhostName, binding: &Binding) {
        let messages = self.histories.recall(vhost, &binding.source);
        let Destination::Queue(name) = &binding.destination else { return };
        let Some(queue) = self.parts.topology.queue(vhost, name).map(|record| record.id) else { return };
        if messages.is_empty() || !self.queues.contains_key(&queue) {
            return;
        }
        let stores_all = self.any_stores_all(&[queue]);
        let route = Route { queues: SmallVec::from_slice(&[queue]), stores_all, ..Route::default() };
        let bytes_to_store = messages.iter().map(|message| route.to_store(Content::Kept(message))).sum();
        let publishes =
            messages.iter().map(|message| Publish { channel: NOBODY, publish_seq: 0, content: Content::Kept(message) });
        self.publish_to_all(&route, bytes_to_store, publishes);
    }
}
