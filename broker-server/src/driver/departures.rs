//! Queues of other nodes that are going. Their node says so (an auto-delete queue has lost its last consumer, somebody else deletes it) before the
//! catalog has deleted them, or before this node has applied that: what a channel here asked of one is answered when it is gone here as well.

use std::time::Instant;

use broker_amqp::{Exception, Reply, ReplyCode, Request};
use broker_core::refusal::Refusal;
use broker_core::store::QueueId;

use super::elsewhere::Question;
use super::links::{Owed, SEEN_WAIT};
use super::requests::{Waiter, exception};
use super::shard::Shard;

/// What waits for queues to be gone, in the order in which it gives up waiting.
#[derive(Default)]
pub struct Departures(Vec<Departure>);

struct Departure {
    queue: QueueId,
    until: Instant,
    connection: u64,
    channel: u16,
    /// What is carried out then; none: the channel has cancelled a consumer and is told that it is done.
    request: Option<Box<Request>>,
}

impl Departures {
    /// When the first has waited long enough.
    pub fn until(&self) -> Option<Instant> {
        self.0.first().map(|departure| departure.until)
    }
}

impl Shard {
    /// Whether a queue is not here, or on its way out.
    pub(super) fn is_gone(&self, queue: QueueId) -> bool {
        self.queues.get(&queue).is_none_or(|local| local.is_leaving())
    }

    /// The node of a queue says that it is gone, or about to be.
    pub(super) fn queue_is_leaving(&mut self, question: Question) {
        let (connection, channel, queue, request) = match question {
            Question::Cancelled { key, queue } => {
                self.forget_consumer_elsewhere(&key);
                (key.channel.connection, key.channel.channel, queue, None)
            }
            Question::Declared { connection, channel, queue, request: request @ Some(_), .. } => {
                (connection, channel, queue, request)
            }
            // Twice is no harm: the catalog finds it gone.
            Question::Deleted { connection, channel, queue, .. } => {
                return self.propose_deletion(vec![queue], Waiter::Deleted { connection, channel, messages: 0 });
            }
            question => {
                let record = question.queue().and_then(|queue| self.parts.topology.queue_by_id(queue));
                let refused = record.map(|record| exception(Refusal::NotFound(record.resource())));
                let gone = || Exception::new(ReplyCode::NotFound, "the queue was deleted at this moment");
                return self.answer_no(question, refused.unwrap_or_else(gone));
            }
        };
        let until = self.now + SEEN_WAIT;
        self.links.departures.0.push(Departure { queue, until, connection, channel, request });
        self.see_departures();
    }

    /// Does what waits for queues that are gone now, or has waited long enough.
    pub(super) fn see_departures(&mut self) {
        if self.links.departures.0.is_empty() {
            return;
        }
        let (topology, now) = (self.parts.topology.clone(), self.now);
        let is_over =
            |departure: &mut Departure| departure.until <= now || topology.queue_by_id(departure.queue).is_none();
        let over: Vec<Departure> = self.links.departures.0.extract_if(.., is_over).collect();
        for Departure { connection, channel, request, .. } in over {
            let Some(place) = self.place_of(connection) else { continue };
            let Some(request) = request else {
                self.answer_when_seen(Owed::Channel { connection, channel, reply: Reply::Done });
                continue;
            };
            let reply = match self.declare_queue(place, channel, &request) {
                Ok(None) => continue,
                Ok(Some(reply)) => reply,
                Err(refused) => Reply::Refused(refused),
            };
            self.replies.push_back((connection, channel, reply));
        }
    }
}
