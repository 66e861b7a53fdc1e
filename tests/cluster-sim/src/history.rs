//! What was seen of all nodes while they lived: all that invariants are checked on.

use std::collections::BTreeMap;

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

/// An entry of a node's log, carried out once more.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The node.
    pub node: String,
    /// Digest of the catalog afterwards.
    pub catalog: u64,
    /// What was made or deleted.
    pub done: Vec<Change>,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Clusters that nodes said they belong to: name of the node, cluster, number.
    pub belonged: Vec<(String, String, u64)>,
    /// Digest of the catalog after an entry, by cluster and index, as each node says that applied it.
    pub applied: BTreeMap<(String, u64), Vec<(String, u64)>>,
    /// What the shard of a node was told of in one start, in order: the node, the cluster, the indexes.
    pub told: Vec<(String, String, Vec<u64>)>,
    /// Indexes out of order: the node, what came, after what.
    pub backwards: Vec<(String, u64, u64)>,
    /// What the log of each node comes to when it is carried out once more at the end, by cluster and index.
    pub replayed: BTreeMap<(String, u64), Vec<Replayed>>,
    /// All proposals.
    pub proposals: Vec<Proposal>,
    /// By name, how each node stands a while after the heal; none: it does not serve.
    pub end: BTreeMap<String, Option<Standing>>,
}
