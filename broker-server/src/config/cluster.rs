//! What an operator can say about the other nodes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Port of other nodes, RabbitMQ's too.
pub const DEFAULT_CLUSTER_PORT: u16 = 25_672;
/// How a file for `cluster.secret_file` comes about.
pub(crate) const HOW_TO_MAKE_A_SECRET: &str = "a file with at least 32 random octets that nobody else can read, the same on \
                                               every node: `head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE`";

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Name told to clients, or `None`: the name of the node.
    pub name: Option<String>,
    /// File with the secret of the cluster; never `None` where there is anything that leads to other nodes.
    pub secret_file: Option<PathBuf>,
    /// Certificates for TLS between nodes, or `None`: they talk without.
    pub tls: Option<ClusterTls>,
    /// Where other nodes may connect.
    pub listener: ClusterListener,
    /// `host:port` where other nodes reach this one, or `None`: see [`Self::advertised_address`].
    pub advertised: Option<String>,
    /// Which of the next two counts.
    pub peer_discovery_backend: PeerDiscovery,
    /// The nodes of the list, each once, in the list's order; this one may be among them.
    pub nodes: Vec<Seed>,
    /// The host name whose addresses are those of the nodes; never `None` with [`PeerDiscovery::Dns`].
    pub dns_hostname: Option<String>,
    /// How many nodes the cluster is to have at first; never `None` with [`PeerDiscovery::Dns`].
    pub target_cluster_size_hint: Option<u32>,
    /// How often in a row the host name may have no address before the node gives up, or `None`: it does not.
    pub discovery_retry_limit: Option<u32>,
    /// The time from one look to the next.
    pub discovery_retry_interval: Duration,
    /// What a node does that sees only some of the others.
    pub partition_handling: PartitionHandling,
    /// Which node gets a new queue.
    pub queue_master_locator: QueueMasterLocator,
}

/// Files for TLS between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTls {
    /// This node's certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of all nodes' certificates.
    pub authorities: PathBuf,
}

/// The listening address for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterListener {
    /// The address, or `None`: all interfaces, IPv6 and IPv4.
    pub ip: Option<IpAddr>,
    /// The port, never 0: others have to know it.
    pub port: u16,
}

/// A node that may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its name, `name@host`.
    pub name: String,
    /// Its port, or `None`: the same as this node's.
    pub port: Option<u16>,
}

/// How other nodes are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerDiscovery {
    /// They are listed.
    #[default]
    ClassicConfig,
    /// Their addresses are those of a host name.
    Dns,
}

/// What happens when the nodes do not all see each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PartitionHandling {
    /// Each side serves what it has.
    Ignore,
    /// A node that sees no majority serves nobody.
    #[default]
    PauseMinority,
    /// Each side serves what it has, until they meet again and one gives way.
    Autoheal,
    /// A node serves nobody that sees none of these.
    PauseIfAllDown {
        /// Their names.
        nodes: Vec<String>,
        /// What happens when sides meet again that both saw some of them.
        recover: Recovery,
    },
}

/// What happens when sides that both went on meet again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// As with [`PartitionHandling::Ignore`].
    Ignore,
    /// As with [`PartitionHandling::Autoheal`].
    Autoheal,
}

/// Which node gets a new queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueMasterLocator {
    /// That of the client's connection.
    #[default]
    ClientLocal,
    /// That with the fewest queues.
    MinMasters,
    /// Any.
    Random,
}

impl QueueMasterLocator {
    /// Each by its name.
    pub const NAMES: &[(&str, QueueMasterLocator)] = &[
        ("client-local", QueueMasterLocator::ClientLocal),
        ("min-masters", QueueMasterLocator::MinMasters),
        ("random", QueueMasterLocator::Random),
    ];

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, locator)| *locator)
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            name: None,
            secret_file: None,
            tls: None,
            listener: ClusterListener { ip: None, port: DEFAULT_CLUSTER_PORT },
            advertised: None,
            peer_discovery_backend: PeerDiscovery::default(),
            nodes: Vec::new(),
            dns_hostname: None,
            target_cluster_size_hint: None,
            discovery_retry_limit: Some(120),
            discovery_retry_interval: Duration::from_millis(500),
            partition_handling: PartitionHandling::default(),
            queue_master_locator: QueueMasterLocator::default(),
        }
    }
}

impl ClusterConfig {
    /// `host:port` where other nodes reach the node of this name.
    #[must_use]
    pub fn advertised_address(&self, node_name: &str) -> String {
        self.advertised.clone().unwrap_or_else(|| address(host_of(node_name), self.listener.port))
    }
}

impl Seed {
    /// `host:port` where it is reached, if its port is `port` unless something else was said.
    #[must_use]
    pub fn address(&self, port: u16) -> String {
        address(host_of(&self.name), self.port.unwrap_or(port))
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The host in `name@host`.
pub(crate) fn host_of(node_name: &str) -> &str {
    node_name.split_once('@').map_or(node_name, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_at_its_names_host_unless_told_otherwise() {
        let mut config = ClusterConfig::default();
        assert_eq!(config.advertised_address("rabbit@a.example"), "a.example:25672");
        assert_eq!(config.advertised_address("rabbit@::1"), "[::1]:25672");
        config.advertised = Some("b:1".into());
        assert_eq!(config.advertised_address("rabbit@a"), "b:1");
        assert_eq!(Seed { name: "rabbit@a".into(), port: None }.address(7), "a:7");
        assert_eq!(Seed { name: "rabbit@::1".into(), port: Some(8) }.address(7), "[::1]:8");
    }
}
