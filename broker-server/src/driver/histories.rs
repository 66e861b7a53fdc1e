//! What recent-history exchanges have kept: put there by publishes, handed to queues that are newly bound.

use std::sync::Arc;

use broker_core::exchange::Histories;
use broker_core::message::Content;
use broker_core::name::VhostName;
use broker_core::queue::{ChannelKey, Publish};
use broker_core::topology::{Binding, Destination, ExchangeRecord};
use smallvec::SmallVec;

use super::dispatch::Route;
use super::shard::Shard;

/// Publisher of messages nobody waits for a confirm of.
const NOBODY: ChannelKey = ChannelKey { connection: 0, channel: 0 };

/// Keeps a message that came through these exchanges.
pub fn keep(histories: &mut Histories, exchanges: &[Arc<ExchangeRecord>], content: Content<'_>) {
    let message = content.keep();
    for exchange in exchanges {
        histories.keep(&exchange.vhost, &exchange.name, exchange.history_length(), message.clone());
    }
}

impl Shard {
    /// A queue that was bound gets what its new source has kept. Exchanges that were bound get nothing: RabbitMQ fails there.
    pub(super) fn recall_history(&mut self, vhost: &VhostName, binding: &Binding) {
        let messages = self.histories.recall(vhost, &binding.source);
        let Destination::Queue(name) = &binding.destination else { return };
        let Some(queue) = self.parts.topology.queue(vhost, name).map(|record| record.id) else { return };
        if messages.is_empty() {
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
