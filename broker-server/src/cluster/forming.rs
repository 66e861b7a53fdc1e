//! How a node without a log comes to belong to a cluster: it founds one, or it is told of others and asks them.
//!
//! Of nodes that start together for the first time the first of the list founds the cluster, when a majority of those that are listed have said that they belong to
//! none. One whose disk was emptied hears of the cluster from the others, and never founds a second one; it cannot join either while the cluster
//! knows it under the same name.

use std::sync::Arc;
use std::time::Duration;

use proto::node::v1::{JoinRequest, WhoAnswer, WhoRequest};
use tokio::time::Instant;

use super::control;
use super::streams::Gate;
use crate::config::Config;
use crate::config::cluster::PeerDiscovery;
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
    /// What its place in the list goes by.
    name: String,
    address: String,
    is_this_node: bool,
}

/// Looks for a place until there is one. `has_data` says that this node was alone and has something to lose.
pub async fn find_place(config: &Config, gate: &Arc<Gate>, has_data: bool) -> Result<Place, Failure> {
    let (name, own_address) = (&config.node.name, config.cluster.advertised_address(&config.node.name));
    let mut told_at: Option<Instant> = None;
    loop {
        let seeds = seeds(config, gate).await;
        let others = seeds.iter().filter(|seed| !seed.is_this_node).count();
        if others == 0 && config.cluster.dns_hostname.is_none() {
            return Ok(Place::Found);
        }
        let mut blank = usize::from(seeds.iter().any(|seed| seed.is_this_node));
        let mut troubles = Vec::new();
        for seed in seeds.iter().filter(|seed| !seed.is_this_node) {
            match who(gate, &seed.address).await {
                Ok(answer) if answer.cluster.is_empty() => blank += 1,
                Ok(answer) => {
                    if has_data {
                        return Err(Failure::new(
                            Code::Config,
                            format!(
                                "{} belongs to a cluster, and this node has queues and messages of its own, which it would lose by joining. Start it with an empty data directory; or without the others in its configuration, and then have it join with `brokerctl cluster join`, which sets what it has aside",
                                answer.name
                            ),
                        ));
                    }
                    match join(gate, name, &own_address, &seed.address).await {
                        Ok((cluster, node)) => return Ok(Place::Joined { cluster, node }),
                        Err(problem) => troubles.push(format!("{}: {problem}", seed.address)),
                    }
                }
                Err(problem) => troubles.push(format!("{}: {problem}", seed.address)),
            }
        }
        let is_first =
            seeds.iter().min_by(|one, other| one.name.cmp(&other.name)).is_some_and(|first| first.is_this_node);
        if is_first && blank > seeds.len() / 2 {
            return Ok(Place::Found);
        }
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told_at = Some(Instant::now());
            let listed = seeds.len();
            tracing::warn!(
                listed,
                without_cluster = blank,
                founds = is_first,
                "waiting for the other nodes of the cluster: {}",
                if troubles.is_empty() {
                    "the first of the list has not founded it yet".into()
                } else {
                    troubles.join("; ")
                }
            );
        }
        tokio::time::sleep(config.cluster.discovery_retry_interval).await;
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
    let mut client = control::ask(gate, address).await.map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(ASK_TIME, client.who(WhoRequest {})).await.map_err(|_| "no answer".to_owned())?;
    Ok(answer.map_err(|status| control::why(&status))?.into_inner())
}

/// The nodes that the configuration names, this one among them.
async fn seeds(config: &Config, gate: &Gate) -> Vec<Seed> {
    let (cluster, own_name) = (&config.cluster, &config.node.name);
    let own_address = cluster.advertised_address(own_name);
    if cluster.peer_discovery_backend == PeerDiscovery::ClassicConfig {
        let listed = cluster.nodes.iter().map(|seed| {
            let address = seed.address(cluster.listener.port);
            Seed { is_this_node: seed.name == *own_name, name: seed.name.clone(), address }
        });
        return listed.collect();
    }
    let Some(hostname) = &cluster.dns_hostname else { return Vec::new() };
    let resolve = |host: String| async move { gate.ground().resolve(&host).await };
    let own = resolve(own_address).await;
    let found = resolve(format!("{hostname}:{}", cluster.listener.port)).await;
    let seed = |address: std::net::SocketAddr| {
        let is_this_node = own.contains(&address);
        Seed { name: address.to_string(), address: address.to_string(), is_this_node }
    };
    found.into_iter().map(seed).collect()
}
