//! How a node without a log comes to belong to a cluster: it founds one, or it is told of others and asks them.
//!
//! Of nodes that start together for the first time the first by name founds the cluster. Of nodes that list each other it does so when a majority of the list
//! has said that they belong to none. Nodes that are found by a host name know no list, and what they are told differs from node to node while the
//! nodes start: there as many nodes as the cluster is to have must have said it (`cluster_formation.target_cluster_size_hint`). Whoever hears from all of
//! them knows the same ones, so there is one first.
//!
//! A node whose disk was emptied hears of the cluster from the others, and never founds a second one; it cannot join either while the cluster
//! knows it under the same name.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_meta::peer::Refusal;
use proto::node::v1::node_client::NodeClient;
use proto::node::v1::{JoinRequest, WhoAnswer, WhoRequest};
use tokio::time::Instant;
use tonic::transport::Channel;

use super::control;
use super::streams::{Gate, StreamError};
use crate::config::Config;
use crate::config::cluster::{PeerDiscovery, address};
use crate::exit::{Code, Failure};

/// That a node waits is said so often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// One question may take so long.
const ASK_TIME: Duration = Duration::from_secs(10);

/// What a node without a log is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// Found a cluster.
    Found,
    /// It was given a number.
    Joined {
        /// The cluster's identity.
        cluster: [u8; 16],
        /// The number.
        node: u64,
    },
}

/// Somebody who may belong to the cluster.
struct Seed {
    /// The name in the list; none where they are found by a host name.
    name: Option<String>,
    address: String,
    is_this_node: bool,
}

/// What one look at all seeds has come to.
#[derive(Default)]
struct Look {
    seeds: usize,
    /// How many of them belong to no cluster, this node among them.
    blank: usize,
    /// Their names.
    blank_names: BTreeSet<String>,
    /// Names of nodes that may be first: those that are listed; or those that answer, where there is no list.
    names: BTreeSet<String>,
    /// One of the seeds belongs to a cluster.
    is_cluster_there: bool,
    troubles: Vec<String>,
}

impl Look {
    fn is_blank(&mut self, name: String) {
        self.blank += 1;
        self.names.insert(name.clone());
        self.blank_names.insert(name);
    }

    /// Whether the node of this name is the one that founds, as soon as enough others answer.
    fn is_first(&self, name: &str) -> bool {
        self.blank_names.contains(name) && self.names.first().is_some_and(|first| first == name)
    }

    /// Whether it founds now. `size` is how many nodes there must be, where they are not listed.
    fn founds(&self, name: &str, size: Option<usize>) -> bool {
        let enough = self.blank > self.seeds / 2 && size.is_none_or(|size| self.blank_names.len() >= size);
        enough && !self.is_cluster_there && self.is_first(name)
    }

    /// What is waited for.
    fn wants(&self, size: Option<usize>) -> String {
        let mut wants = self.troubles.clone();
        if let Some(size) = size.filter(|size| self.blank_names.len() < *size) {
            let found: Vec<&str> = self.blank_names.iter().map(String::as_str).collect();
            wants.push(format!("{} of {size} nodes are found ({})", found.len(), found.join(", ")));
        }
        if wants.is_empty() {
            wants.push("the first by name has not founded it yet".into());
        }
        wants.join("; ")
    }
}

/// Looks for a place until there is one. `has_data` says that this node was alone and has something to lose.
pub async fn find_place(config: &Config, gate: &Arc<Gate>, has_data: bool) -> Result<Place, Failure> {
    let (name, cluster) = (&config.node.name, &config.cluster);
    let own_address = cluster.advertised_address(name);
    let by_list = cluster.peer_discovery_backend == PeerDiscovery::ClassicConfig;
    let size = cluster.target_cluster_size_hint.filter(|_| !by_list).map(|size| size as usize);
    let mut told_at: Option<Instant> = None;
    let mut tell = |tell: &dyn Fn()| {
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told_at = Some(Instant::now());
            tell();
        }
    };
    let mut in_vain = 0;
    loop {
        let seeds = match seeds(config, gate).await {
            Ok(seeds) => seeds,
            Err(problem) => {
                in_vain += 1;
                let hostname = cluster.dns_hostname.as_deref().unwrap_or_default();
                let problem = format!("{hostname} (cluster_formation.dns.hostname) has no address: {problem}");
                if cluster.discovery_retry_limit.is_some_and(|limit| in_vain >= limit) {
                    let text = format!(
                        "{problem}. It was looked up {in_vain} times (cluster_formation.discovery_retry_limit)"
                    );
                    return Err(Failure::new(Code::Unavailable, text));
                }
                tell(&|| tracing::warn!(in_vain, "waiting for the name of the cluster's nodes: {problem}"));
                tokio::time::sleep(cluster.discovery_retry_interval).await;
                continue;
            }
        };
        in_vain = 0;
        if by_list && seeds.iter().all(|seed| seed.is_this_node) {
            return Ok(Place::Found);
        }
        let mut look = Look { seeds: seeds.len(), ..Look::default() };
        look.names = seeds.iter().filter_map(|seed| seed.name.clone()).collect();
        for seed in &seeds {
            let found = if seed.is_this_node { Ok(None) } else { other_at(gate, seed).await };
            match found {
                Ok(None) => look.is_blank(name.clone()),
                Ok(Some(answer)) if answer.cluster.is_empty() => {
                    look.is_blank(seed.name.clone().unwrap_or(answer.name));
                }
                Ok(Some(answer)) => {
                    if has_data {
                        return Err(Failure::new(
                            Code::Config,
                            format!(
                                "{} belongs to a cluster, and this node has queues and messages of its own, which it would lose by joining. Start it with an empty data directory; or without the others in its configuration, and then have it join with `brokerctl cluster join`, which sets what it has aside",
                                answer.name
                            ),
                        ));
                    }
                    look.is_cluster_there = true;
                    match join(gate, name, &own_address, &seed.address).await {
                        Ok((cluster, node)) => return Ok(Place::Joined { cluster, node }),
                        Err(problem) => look.troubles.push(format!("{}: {problem}", seed.address)),
                    }
                }
                Err(problem) => look.troubles.push(format!("{}: {problem}", seed.address)),
            }
        }
        if look.founds(name, size) {
            return Ok(Place::Found);
        }
        tell(&|| {
            tracing::warn!(
                listed = look.seeds,
                without_cluster = look.blank,
                founds = look.is_first(name),
                "waiting for the other nodes of the cluster: {}",
                look.wants(size)
            );
        });
        tokio::time::sleep(cluster.discovery_retry_interval).await;
    }
}

/// Asks to be one of the cluster of the node at an address: the cluster's identity and the number that is given.
pub async fn join(gate: &Arc<Gate>, name: &str, own_address: &str, address: &str) -> Result<([u8; 16], u64), String> {
    let mut client = control::ask(gate, address).await.map_err(|error| error.to_string())?;
    let asked = client.join(JoinRequest { name: name.into(), address: own_address.into() });
    let answer = tokio::time::timeout(ASK_TIME, asked).await.map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|status| control::why(&status))?.into_inner();
    let cluster = answer.cluster.try_into().map_err(|_| "it does not say which cluster".to_owned())?;
    Ok((cluster, answer.node))
}

/// Who is at an address.
pub async fn who(gate: &Arc<Gate>, address: &str) -> Result<WhoAnswer, String> {
    let client = control::ask(gate, address).await.map_err(|error| error.to_string())?;
    say_who(client).await
}

async fn say_who(mut client: NodeClient<Channel>) -> Result<WhoAnswer, String> {
    let answer = tokio::time::timeout(ASK_TIME, client.who(WhoRequest {})).await.map_err(|_| "no answer".to_owned())?;
    Ok(answer.map_err(|status| control::why(&status))?.into_inner())
}

/// Who is at the address of a seed. None: this node itself, which may be found at an address that it does not know of; one that is listed under
/// another name is a mistake.
async fn other_at(gate: &Arc<Gate>, seed: &Seed) -> Result<Option<WhoAnswer>, String> {
    match control::ask(gate, &seed.address).await {
        Ok(client) => say_who(client).await.map(Some),
        Err(StreamError::Refused { why: Refusal::Itself, .. }) if seed.name.is_none() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The nodes that the configuration names, this one among them; or why the host name leads to none.
async fn seeds(config: &Config, gate: &Gate) -> io::Result<Vec<Seed>> {
    let (cluster, own_name) = (&config.cluster, &config.node.name);
    let port = cluster.listener.port;
    let hostname = match cluster.peer_discovery_backend {
        PeerDiscovery::ClassicConfig => {
            let listed = cluster.nodes.iter().map(|seed| Seed {
                is_this_node: seed.name == *own_name,
                name: Some(seed.name.clone()),
                address: seed.address(port),
            });
            return Ok(listed.collect());
        }
        PeerDiscovery::Dns => cluster.dns_hostname.as_deref().unwrap_or_default(),
    };
    let found: BTreeSet<_> = gate.ground().resolve(&address(hostname, port)).await?.into_iter().collect();
    if found.is_empty() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    // Its own name may mean nothing here yet.
    let own = gate.ground().resolve(&cluster.advertised_address(own_name)).await.unwrap_or_default();
    let seed = |address: std::net::SocketAddr| Seed {
        name: None,
        address: address.to_string(),
        is_this_node: own.contains(&address),
    };
    Ok(found.into_iter().map(seed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node sees that has heard from `blank`, of so many seeds.
    fn look(seeds: usize, listed: &[&str], blank: &[&str]) -> Look {
        let names = listed.iter().map(|name| (*name).into()).collect();
        let mut look = Look { seeds, names, ..Look::default() };
        blank.iter().for_each(|name| look.is_blank((*name).into()));
        look
    }

    #[test]
    fn of_a_list_the_first_founds_when_it_has_heard_from_a_majority() {
        let list = ["a", "b", "c"];
        assert!(look(3, &list, &["a", "c"]).founds("a", None));
        assert!(!look(3, &list, &["a"]).founds("a", None));
        assert!(!look(3, &list, &["b", "c"]).founds("b", None));
        assert!(!look(3, &list, &["a", "b", "c"]).founds("c", None));
        assert!(!look(3, &list, &["b", "c"]).founds("elsewhere", None));
    }

    #[test]
    fn where_there_is_no_list_nobody_founds_who_has_not_heard_from_all() {
        // Whatever each of three nodes is told, one at most founds.
        let nodes = ["a", "b", "c"];
        let told = |mask: usize, node: usize| -> Vec<&str> {
            (0..3).filter(|other| mask & (1 << other) != 0 || *other == node).map(|other| nodes[other]).collect()
        };
        for masks in 0..512_usize {
            let founders = (0..3).filter(|node| {
                let heard = told(masks >> (3 * node), *node);
                look(heard.len(), &[], &heard).founds(nodes[*node], Some(3))
            });
            assert!(founders.count() <= 1, "{masks:o}");
        }
        assert!(look(3, &[], &nodes).founds("a", Some(3)));
        assert!(look(1, &[], &["a"]).founds("a", Some(1)));
    }

    #[test]
    fn addresses_of_one_node_are_one_node() {
        assert!(!look(4, &[], &["a", "a", "b", "b"]).founds("a", Some(3)));
        assert!(look(6, &[], &["a", "a", "b", "b", "c", "c"]).founds("a", Some(3)));
    }

    #[test]
    fn nobody_founds_where_a_cluster_is_or_may_be() {
        let mut beside = look(6, &[], &["a", "b", "c", "d"]);
        assert!(beside.founds("a", Some(3)));
        beside.is_cluster_there = true;
        assert!(!beside.founds("a", Some(3)));
        // Three of six say nothing: they may be the cluster.
        assert!(!look(6, &[], &["a", "b", "c"]).founds("a", Some(3)));
        // The node is not among those that the name leads to.
        assert!(!look(3, &[], &["b", "c", "d"]).founds("a", Some(3)));
    }

    #[test]
    fn what_is_waited_for_is_said() {
        assert_eq!(look(2, &[], &["a", "b"]).wants(Some(3)), "2 of 3 nodes are found (a, b)");
        assert_eq!(look(3, &[], &["a", "b", "c"]).wants(Some(3)), "the first by name has not founded it yet");
        let mut look = look(2, &["a", "b"], &["b"]);
        look.troubles.push("a:1: no answer".into());
        assert_eq!(look.wants(None), "a:1: no answer");
    }
}
