//! What was seen of all nodes while they lived: all that invariants are checked on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use broker_meta::{Catalog, Command};
use prost::Message as _;

/// What a client wanted to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// That something of this name is there.
    Create(String),
    /// That it is not.
    Delete(String),
}

/// A change that a client of a node proposed.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What.
    pub change: Change,
    /// When, in milliseconds.
    pub began: u64,
    /// When it was acknowledged, and at which index of the log.
    pub acknowledged: Option<(u64, u64)>,
    /// What the client was told that it did.
    pub answer: String,
}

/// An entry of the log with changes in it, as the first node that applied it says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Node, start and number of whoever proposed it: of two that are the same only the first counts.
    pub origin: (u64, u64, u64),
    /// The changes.
    pub commands: Vec<Command>,
    /// What each did.
    pub outcomes: Vec<String>,
}

/// What a shard was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The index.
    pub index: u64,
    /// It stands for all entries before it.
    pub is_snapshot: bool,
}

/// What became of a persistent message in a durable queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// It was confirmed.
    pub confirmed: bool,
    /// It was said that no queue took it.
    pub returned: bool,
    /// A consumer had it, and acknowledged it.
    pub acknowledged: bool,
}

/// A message that a consumer had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The client.
    pub consumer: u64,
    /// The queue.
    pub queue: String,
    /// The message: its publisher's number, and how many that one had published before it.
    pub message: (u64, u64),
    /// It may have been delivered before.
    pub redelivered: bool,
}

/// What became of a direct reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// When it was sent: a request that is delivered twice is replied to twice.
    pub sent: Vec<u64>,
    /// The clients that have heard it.
    pub heard: Vec<u64>,
    /// All was well when it was sent, and whoever asked was there for long enough.
    pub is_due: bool,
}

/// Names and links are looked at this often, in milliseconds.
pub const LOOKS_EVERY_MS: u64 = 5;

/// From when to when something was so, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct While {
    /// From then.
    pub from: u64,
    /// Until then.
    pub until: u64,
}

/// A client had an exclusive queue of this name, granted by its node and known there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name.
    pub name: String,
    /// The node.
    pub node: u64,
    /// When.
    pub time: While,
}

/// A node had a link to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The node.
    pub node: u64,
    /// The other.
    pub other: u64,
    /// When.
    pub time: While,
}

/// A node that serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its cluster.
    pub cluster: String,
    /// Its number there.
    pub number: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// Who votes.
    pub voters: Vec<u64>,
    /// Whom it sees.
    pub seen: Vec<u64>,
    /// To whom it has a link.
    pub links: Vec<u64>,
    /// Octets of its catalog, as a digest.
    pub catalog: u64,
    /// Names of what is in it.
    pub names: Vec<String>,
    /// It says that it has an alarm.
    pub alarm: bool,
    /// It was told that another has.
    pub alarm_elsewhere: bool,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Clusters that nodes said they belong to: name of the node, cluster, number.
    pub belonged: Vec<(String, String, u64)>,
    /// Digest of the catalog after an entry, by cluster and index, as each node says that applied it.
    pub applied: BTreeMap<(String, u64), Vec<(String, u64)>>,
    /// What the shard of a node was told of in one start, in order: the node, the cluster, the entries.
    pub told: Vec<(String, String, Vec<Told>)>,
    /// Indexes out of order: the node, what came, after what.
    pub backwards: Vec<(String, u64, u64)>,
    /// All proposals.
    pub proposals: Vec<Proposal>,
    /// Entries of the log, by cluster and index.
    pub entries: BTreeMap<(String, u64), Entry>,
    /// A node applied something else: its name, and the index.
    pub forked: Vec<(String, u64)>,
    /// Messages by name and queue.
    pub messages: BTreeMap<(String, String), Message>,
    /// Deliveries, in order.
    pub deliveries: Vec<Delivery>,
    /// Messages that were published in transactions for which no commit was asked.
    pub withheld: BTreeSet<String>,
    /// Direct replies by the name of the request: the client that asked, and how many it had asked before.
    pub replies: BTreeMap<String, Reply>,
    /// Clients that waited for an answer for long, though all was well.
    pub unanswered: Vec<String>,
    /// On which nodes a durable queue of this name has lived.
    pub homes: BTreeMap<String, BTreeSet<u64>>,
    /// Nodes that lost their disk.
    pub emptied: BTreeSet<u64>,
    /// Exclusive queues.
    pub held: Vec<Held>,
    /// Links.
    pub linked: Vec<Linked>,
    /// By name, how each node stands a while after the heal; none: it does not serve.
    pub end: BTreeMap<String, Option<Standing>>,
}

/// A catalog's octets in a few.
pub fn digest(catalog: &Catalog) -> u64 {
    let mut hasher = DefaultHasher::new();
    catalog.to_snapshot().encode_to_vec().hash(&mut hasher);
    hasher.finish()
}
