//! Where publishes go: the routes a client has used, and publishes on their way to the same queues gathered into one batch.

use std::sync::Arc;

use broker_core::message::Content;
use broker_core::name::NodeId;
use broker_core::store::QueueId;
use broker_core::topology::ExchangeRecord;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Routes a client may have remembered; with more, it starts anew.
const REMEMBERED_MAX: usize = 256;

/// The queues of one (exchange, routing key).
#[derive(Debug, Default)]
pub struct Route {
    /// Exchange and routing key, two short strings as on the wire.
    pub key: Box<[u8]>,
    /// Each once; those of this node come first.
    pub queues: SmallVec<[QueueId; 4]>,
    /// How many of them are on this node.
    pub here: usize,
    /// The others, by node.
    pub elsewhere: SmallVec<[(NodeId, SmallVec<[QueueId; 2]>); 0]>,
    /// One of the queues stores every message, persistent or not.
    pub stores_all: bool,
    /// How many of the queues only hold the message back until it goes on; of a remembered route there are none.
    pub held: usize,
    /// Exchanges on the way that keep the message for queues to come; of a remembered route there are none.
    pub kept_by: SmallVec<[Arc<ExchangeRecord>; 1]>,
}

impl Route {
    /// Octets of a message that are to be stored, about: it may be that no queue of the route has to.
    #[inline]
    pub fn to_store(&self, content: Content<'_>) -> usize {
        if self.here > 0 && (self.stores_all || content.persistent()) { content.memory() } else { 0 }
    }
}

type Routes = HashMap<Box<[u8]>, Arc<Route>, RandomState>;

/// A client's routes, valid as long as the catalog's generation is the same. Write permission was checked when a route was remembered.
#[derive(Default)]
pub struct RouteCache {
    generation: u64,
    /// The one used last; the only one of most clients.
    last: Option<Arc<Route>>,
    /// All of them, once there are several.
    others: Option<Box<Routes>>,
}

impl RouteCache {
    /// The route of an exchange and routing key (two short strings as on the wire), if it is remembered and still valid.
    pub fn find(&mut self, generation: u64, route: &[u8]) -> Option<Arc<Route>> {
        if self.generation != generation {
            *self = RouteCache { generation, ..RouteCache::default() };
            return None;
        }
        if let Some(last) = self.last.as_ref().filter(|last| *last.key == *route) {
            return Some(last.clone());
        }
        let found = self.others.as_ref()?.get(route)?;
        self.last = Some(found.clone());
        Some(found.clone())
    }

    /// Remembers a route.
    pub fn remember(&mut self, route: &Arc<Route>) {
        if let Some(earlier) = self.last.replace(route.clone()) {
            let others = self.others.get_or_insert_default();
            if others.len() >= REMEMBERED_MAX {
                others.clear();
            }
            for route in [&earlier, route] {
                others.insert(route.key.clone(), route.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use broker_core::message::Message;

    use super::*;

    fn route(key: &[u8], queue: u64) -> Arc<Route> {
        Arc::new(Route { key: key.into(), queues: SmallVec::from_slice(&[QueueId(queue)]), ..Route::default() })
    }

    #[test]
    fn routes_are_found_until_the_generation_changes() {
        let mut cache = RouteCache::default();
        assert!(cache.find(1, b"\0\x01a").is_none());
        cache.remember(&route(b"\0\x01a", 1));
        cache.remember(&route(b"\0\x01b", 2));
        for (key, queue) in [(b"\0\x01a", 1), (b"\0\x01b", 2), (b"\0\x01b", 2), (b"\0\x01a", 1), (b"\0\x01b", 2)] {
            assert_eq!(cache.find(1, key).unwrap().queues[0], QueueId(queue));
        }
        assert!(cache.find(2, b"\0\x01a").is_none());
    }

    #[test]
    fn what_is_to_be_stored_is_what_is_persistent_or_all_there_is() {
        let message = |persistent| Message::new(b"\0\x01q", &[0; 14], b"body", persistent, &mut Vec::new()).unwrap();
        let to_store = |stores_all, persistent| {
            Route { stores_all, here: 1, ..Route::default() }.to_store(Content::Kept(&message(persistent)))
        };
        let all = Content::Kept(&message(true)).memory();
        assert_eq!((to_store(false, false), to_store(false, true)), (0, all));
        assert_eq!((to_store(true, false), to_store(true, true)), (all, all));
    }

    #[test]
    fn a_client_with_endless_keys_does_not_fill_memory() {
        let mut cache = RouteCache::default();
        for key in 0..10_000_u32 {
            cache.remember(&route(&key.to_be_bytes(), 1));
        }
        assert!(cache.others.unwrap().len() <= REMEMBERED_MAX + 1);
    }
}
