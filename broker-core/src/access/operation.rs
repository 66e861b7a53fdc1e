//! What clients ask for, and the rights each thing takes: the one place that says so.
//!
//! Every method of AMQP 0-9-1 that names an exchange, a queue or a vhost is an [`Operation`], and [`Access::authorize`] is asked once for each, before
//! anything else is told about what it names. What is not allowed here is refused. Methods that name nothing (`basic.ack`, `tx.commit`, ...) work on
//! what the same channel was allowed before.

use smallvec::{SmallVec, smallvec};

use super::Access;
use crate::exchange::ExchangeKind;
use crate::name::UserName;
use crate::refusal::{Refusal, Resource};
use crate::topology::{Destination, Vhost};

/// What permissions call the default exchange.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// A right that permissions give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// To declare and delete.
    Configure,
    /// To publish, and to bind to.
    Write,
    /// To consume, get and purge, and to bind from.
    Read,
}

/// What a client wants to do, and with what.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// `connection.open`
    Open,
    /// `exchange.declare`, not passive.
    DeclareExchange {
        /// The exchange.
        exchange: &'a str,
    },
    /// `exchange.declare` of an exchange that does not exist, with an alternate exchange.
    SetAlternateExchange {
        /// The exchange.
        exchange: &'a str,
        /// Where it would send what it cannot route.
        alternate: &'a str,
    },
    /// `exchange.declare`, passive. Takes no right.
    SeeExchange,
    /// `exchange.delete`
    DeleteExchange {
        /// The exchange.
        exchange: &'a str,
    },
    /// `queue.bind`, `exchange.bind`, and the same undone.
    Bind {
        /// The exchange messages come from.
        source: &'a str,
        /// Where they go to.
        destination: &'a Destination,
        /// The binding key.
        key: &'a [u8],
    },
    /// `queue.declare`, not passive.
    DeclareQueue {
        /// The queue.
        queue: &'a str,
    },
    /// `queue.declare` of a queue that does not exist, with a dead letter exchange.
    SetDeadLetterExchange {
        /// The queue.
        queue: &'a str,
        /// Where it would send its dead letters.
        exchange: &'a str,
    },
    /// `queue.declare`, passive. Takes no right.
    SeeQueue,
    /// `queue.delete`
    DeleteQueue {
        /// The queue.
        queue: &'a str,
    },
    /// `queue.purge`
    Purge {
        /// The queue.
        queue: &'a str,
    },
    /// `basic.get`
    Get {
        /// The queue.
        queue: &'a str,
    },
    /// `basic.consume`, and going on to consume after permissions have changed.
    Consume {
        /// The queue.
        queue: &'a str,
    },
    /// `basic.publish`
    Publish {
        /// The exchange.
        exchange: &'a str,
        /// The routing key.
        key: &'a [u8],
    },
}

/// One right on one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need<'a> {
    /// Any permissions in the vhost.
    Vhost,
    Exchange(Right, &'a str),
    Queue(Right, &'a str),
    /// On a topic exchange: the routing key, where topic permissions say something about it.
    Topic(Right, &'a str, &'a [u8]),
}

impl<'a> Operation<'a> {
    /// What it takes, in the order in which RabbitMQ asks.
    fn needs(&self) -> SmallVec<[Need<'a>; 3]> {
        use Right::{Configure, Read, Write};
        match *self {
            Operation::Open => smallvec![Need::Vhost],
            Operation::SeeExchange | Operation::SeeQueue => smallvec![],
            Operation::DeclareExchange { exchange } | Operation::DeleteExchange { exchange } => {
                smallvec![Need::Exchange(Configure, exchange)]
            }
            Operation::SetAlternateExchange { exchange, alternate } => {
                smallvec![Need::Exchange(Read, exchange), Need::Exchange(Write, alternate)]
            }
            Operation::Bind { source, destination, key } => bind_needs(source, destination, key),
            Operation::DeclareQueue { queue } | Operation::DeleteQueue { queue } => {
                smallvec![Need::Queue(Configure, queue)]
            }
            Operation::SetDeadLetterExchange { queue, exchange } => {
                smallvec![Need::Queue(Read, queue), Need::Exchange(Write, exchange)]
            }
            Operation::Purge { queue } | Operation::Get { queue } | Operation::Consume { queue } => {
                smallvec![Need::Queue(Read, queue)]
            }
            Operation::Publish { exchange, key } => {
                smallvec![Need::Exchange(Write, exchange), Need::Topic(Write, exchange, key)]
            }
        }
    }
}

/// The default exchange can be bound neither from nor to: what comes after finding that out is not asked.
fn bind_needs<'a>(source: &'a str, destination: &'a Destination, key: &'a [u8]) -> SmallVec<[Need<'a>; 3]> {
    let write = match destination {
        Destination::Exchange(name) => Need::Exchange(Right::Write, name),
        Destination::Queue(name) => Need::Queue(Right::Write, name),
    };
    if source.is_empty() || matches!(destination, Destination::Exchange(name) if name.is_empty()) {
        return smallvec![write];
    }
    smallvec![write, Need::Exchange(Right::Read, source), Need::Topic(Right::Read, source, key)]
}

impl Access {
    /// Whether a user may do something in a vhost.
    pub fn authorize(&self, user: &UserName, vhost: &Vhost, operation: &Operation<'_>) -> Result<(), Refusal> {
        operation.needs().into_iter().try_for_each(|need| self.meets(user, vhost, need))
    }

    fn meets(&self, user: &UserName, vhost: &Vhost, need: Need<'_>) -> Result<(), Refusal> {
        let held = || self.permissions(user, vhost.name());
        let allows = |right, name: &str| held().is_some_and(|permissions| permissions.of(right).matches(name));
        let refused = |resource| Err(Refusal::AccessRefused { resource, user: user.clone() });
        match need {
            Need::Vhost if held().is_some() => Ok(()),
            Need::Vhost => Err(Refusal::VhostRefused { vhost: vhost.name().clone(), user: user.clone() }),
            Need::Exchange(right, name) => {
                let name = if name.is_empty() { DEFAULT_EXCHANGE } else { name };
                if allows(right, name) {
                    return Ok(());
                }
                refused(Resource::Exchange(vhost.name().clone(), name.into()))
            }
            Need::Queue(right, name) if allows(right, name) => Ok(()),
            Need::Queue(_, name) => refused(Resource::Queue(vhost.name().clone(), name.into())),
            Need::Topic(right, exchange, key) => {
                // An exchange that is not there, or not for clients to publish to, is refused for that.
                let exchange = vhost.exchange(exchange).filter(|exchange| exchange.kind == ExchangeKind::Topic);
                let asked = exchange.filter(|exchange| right == Right::Read || !exchange.internal);
                match asked {
                    Some(exchange) if !self.allows_topic(user, vhost.name(), &exchange.name, right, key) => {
                        Err(Refusal::TopicRefused {
                            key: String::from_utf8_lossy(key).into_owned(),
                            exchange: Resource::Exchange(vhost.name().clone(), exchange.name.clone()),
                            user: user.clone(),
                        })
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Permissions, TopicPermissions, User};
    use crate::name::VhostName;
    use crate::topology::{ExchangeRecord, Topology, VhostRecord};

    fn topology() -> Topology {
        let mut topology = Topology::default();
        topology.add_vhost(VhostRecord::named("/"));
        topology.add_exchange(ExchangeRecord {
            vhost: "/".into(),
            name: "inner".into(),
            kind: ExchangeKind::Topic,
            durable: false,
            auto_delete: false,
            internal: true,
            arguments: Default::default(),
            policies: Default::default(),
            holder: None,
        });
        topology
    }

    fn access(configure: &str, write: &str, read: &str) -> Access {
        let mut access = Access::default();
        access.put_user(User { name: "ann".into(), password: None, tags: Vec::new() });
        let permissions = Permissions::new(configure, write, read).unwrap();
        assert!(access.set_permissions(&"ann".into(), &"/".into(), permissions));
        access
    }

    fn text(access: &Access, topology: &Topology, operation: Operation<'_>) -> String {
        let asked = access.authorize(&"ann".into(), topology.vhost("/").unwrap(), &operation);
        asked.map_or_else(|refusal| refusal.reply().text, |()| "allowed".into())
    }

    #[test]
    fn patterns_match_anywhere_and_the_empty_one_nowhere() {
        let (topology, access) = (topology(), access("^ann-", "", "amq\\.default|queue"));
        let text = |operation| text(&access, &topology, operation);
        assert_eq!(text(Operation::DeclareQueue { queue: "ann-1" }), "allowed");
        assert_eq!(
            text(Operation::DeclareQueue { queue: "x-ann-1" }),
            "ACCESS_REFUSED - access to queue 'x-ann-1' in vhost '/' refused for user 'ann'"
        );
        assert_eq!(
            text(Operation::Publish { exchange: "", key: b"q" }),
            "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'ann'"
        );
        assert_eq!(text(Operation::Get { queue: "my-queue-1" }), "allowed");
        assert_eq!(text(Operation::SeeQueue), "allowed");
    }

    #[test]
    fn what_is_not_allowed_in_a_vhost_is_refused_there() {
        let topology = topology();
        let mut access = access(".*", ".*", ".*");
        assert_eq!(text(&access, &topology, Operation::Open), "allowed");
        assert!(access.clear_permissions(&"ann".into(), &"/".into()));
        assert_eq!(
            text(&access, &topology, Operation::Open),
            "NOT_ALLOWED - access to vhost '/' refused for user 'ann'"
        );
        assert!(text(&access, &topology, Operation::DeleteQueue { queue: "q" }).starts_with("ACCESS_REFUSED"));
    }

    #[test]
    fn topic_permissions_narrow_topic_exchanges_that_have_some() {
        let topology = topology();
        let mut access = access(".*", ".*", ".*");
        let (user, vhost) = (UserName::from("ann"), VhostName::from("/"));
        for exchange in ["amq.topic", "amq.direct", "inner", "missing"] {
            let permissions = TopicPermissions::new(&user, &vhost, "^{username}\\.", "^r").unwrap();
            assert!(access.set_topic_permissions(&user, &vhost, exchange.into(), permissions));
        }
        let publish = |access: &Access, exchange, key| text(access, &topology, Operation::Publish { exchange, key });
        assert_eq!(publish(&access, "amq.topic", &b"ann.x"[..]), "allowed");
        let refused =
            "ACCESS_REFUSED - access to topic 'x' in exchange 'amq.topic' in vhost '/' refused for user 'ann'";
        assert_eq!(publish(&access, "amq.topic", b"x"), refused);
        for exchange in ["amq.direct", "inner", "missing", "amq.fanout"] {
            assert_eq!(publish(&access, exchange, b"x"), "allowed", "{exchange}");
        }
        let queue = Destination::Queue("q".into());
        let bind = |source, key| text(&access, &topology, Operation::Bind { source, destination: &queue, key });
        assert_eq!(bind("amq.topic", &b"r.x"[..]), "allowed");
        assert_eq!(bind("amq.topic", b"x"), refused);
        assert_eq!(bind("amq.direct", b"x"), "allowed");
        assert!(bind("inner", b"x").contains("topic 'x' in exchange 'inner'"), "it can be bound from");
        assert!(access.clear_topic_permissions(&user, &vhost, Some("amq.topic")));
        assert!(!access.clear_topic_permissions(&user, &vhost, Some("amq.topic")));
        assert_eq!(publish(&access, "amq.topic", b"x"), "allowed");
        assert!(access.clear_topic_permissions(&user, &vhost, None));
        assert!(!access.has_topic_permissions(&user, &vhost));
    }
}
