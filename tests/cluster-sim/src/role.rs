//! What a client is there for, and what it asks for before it begins.

use crate::client::method;

/// Through it messages go to several queues.
pub const EXCHANGE: &str = "amq.direct";
/// The queue that stands for direct replies.
pub const REPLIES: &str = "amq.rabbitmq.reply-to";

/// See the module's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It declares durable queues and publishes persistent messages to them, with confirms: to one by its name, to several by a key that it has bound.
    Publish(Vec<String>),
    /// It declares a durable queue and consumes from it, with acknowledgements.
    Consume(String),
    /// It declares a durable queue and gets from it, one message after the other, which it keeps for a while before it acknowledges them.
    Get(String),
    /// It publishes to durable queues as above and consumes from the first, all of it in transactions.
    Transact(Vec<String>),
    /// It asks whoever consumes from a durable queue, and is replied to directly.
    Request(String),
    /// It replies to what comes of a durable queue.
    Respond(String),
    /// It declares an exclusive queue of this name.
    Hold(String),
}

impl Role {
    /// Where it publishes what is to be kept.
    pub fn queues(&self) -> &[String] {
        match self {
            Role::Publish(queues) | Role::Transact(queues) => queues,
            _ => &[],
        }
    }

    /// From which queue it takes messages.
    pub fn source(&self) -> Option<&String> {
        match self {
            Role::Consume(queue) | Role::Get(queue) | Role::Respond(queue) => Some(queue),
            Role::Transact(queues) => queues.first(),
            _ => None,
        }
    }

    /// What it asks for before it begins, one after the other.
    pub fn requests(&self, number: u64) -> Vec<Vec<u8>> {
        let declare = |queue: &String| method(1, "queue.declare", &[("queue", queue), ("durable", "true")]);
        let qos = || method(1, "basic.qos", &[("prefetch_count", "5")]);
        let consume = |queue: &String| method(1, "basic.consume", &[("queue", queue)]);
        let to_all = |queues: &Vec<String>| {
            let key = number.to_string();
            let mut requests: Vec<Vec<u8>> = queues.iter().map(declare).collect();
            for queue in queues.iter().filter(|_| queues.len() > 1) {
                let binding = [("queue", queue.as_str()), ("exchange", EXCHANGE), ("routing_key", &key)];
                requests.push(method(1, "queue.bind", &binding));
            }
            requests
        };
        match self {
            Role::Publish(queues) => [vec![method(1, "confirm.select", &[])], to_all(queues)].concat(),
            Role::Consume(queue) | Role::Respond(queue) => vec![declare(queue), qos(), consume(queue)],
            Role::Get(queue) => vec![declare(queue)],
            Role::Transact(queues) => {
                let select = vec![method(1, "tx.select", &[]), qos()];
                [select, to_all(queues), queues.first().map(consume).into_iter().collect()].concat()
            }
            Role::Request(queue) => {
                let replies = [("queue", REPLIES), ("no_ack", "true")];
                vec![declare(queue), method(1, "basic.consume", &replies)]
            }
            Role::Hold(queue) => vec![method(1, "queue.declare", &[("queue", queue), ("exclusive", "true")])],
        }
    }
}
