//! The keys of the cluster.

use std::path::PathBuf;

use std::net::IpAddr;
use std::time::Duration;

use super::{
    Given, Key, MILLISECOND, bounded, key, name_of, node_name, not_empty, numbered, one, optional, short, value,
};
use crate::config::Listener;
use crate::config::cluster::{
    ClusterConfig, ClusterTls, HOW_TO_MAKE_A_SECRET, PartitionHandling, PeerDiscovery, QueueMasterLocator, Recovery,
    Seed, address,
};

/// What only makes sense when all of it is known.
#[derive(Default)]
pub(super) struct ClusterDraft {
    config: ClusterConfig,
    port: Option<u16>,
    interface: Option<IpAddr>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    authorities: Option<PathBuf>,
    first_port: Option<u16>,
    last_port: Option<u16>,
    advertised: Option<(String, Option<u16>)>,
    nodes: Vec<(u64, Seed)>,
    foreign_backend: bool,
    partitions: Partitions,
    recover: Option<Recovery>,
    pause_nodes: Vec<(u64, String)>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Partitions {
    Ignore,
    #[default]
    PauseMinority,
    Autoheal,
    PauseIfAllDown,
}

const PARTITIONS: &[(&str, Partitions)] = &[
    ("ignore", Partitions::Ignore),
    ("pause_minority", Partitions::PauseMinority),
    ("autoheal", Partitions::Autoheal),
    ("pause_if_all_down", Partitions::PauseIfAllDown),
];
const RECOVERIES: &[(&str, Recovery)] = &[("ignore", Recovery::Ignore), ("autoheal", Recovery::Autoheal)];
const BACKENDS: &[(&str, PeerDiscovery)] = &[
    ("classic_config", PeerDiscovery::ClassicConfig),
    ("dns", PeerDiscovery::Dns),
    ("rabbit_peer_discovery_classic_config", PeerDiscovery::ClassicConfig),
    ("rabbit_peer_discovery_dns", PeerDiscovery::Dns),
    ("classic", PeerDiscovery::ClassicConfig),
    ("config", PeerDiscovery::ClassicConfig),
];
/// Backends of RabbitMQ's plugins.
const FOREIGN_BACKENDS: &[&str] = &[
    "k8s",
    "kubernetes",
    "rabbit_peer_discovery_k8s",
    "consul",
    "rabbit_peer_discovery_consul",
    "etcd",
    "rabbit_peer_discovery_etcd",
    "aws",
    "rabbit_peer_discovery_aws",
];
/// Most nodes a cluster is expected to have.
const MAX_NODES: u64 = 1_000;
const UNLIMITED: &str = "unlimited";

const BACKEND_KEY: &str = "cluster_formation.peer_discovery_backend";
const CERTIFICATE_KEY: &str = "cluster.ssl_options.certfile";
const PRIVATE_KEY_KEY: &str = "cluster.ssl_options.keyfile";
const AUTHORITIES_KEY: &str = "cluster.ssl_options.cacertfile";
const NODES_KEY: &str = "cluster_formation.classic_config.nodes";
const HOSTNAME_KEY: &str = "cluster_formation.dns.hostname";
const SIZE_KEY: &str = "cluster_formation.target_cluster_size_hint";
const PARTITIONS_KEY: &str = "cluster_partition_handling";
const PAUSE_NODES_KEY: &str = "cluster_partition_handling.pause_if_all_down.nodes";
const RECOVER_KEY: &str = "cluster_partition_handling.pause_if_all_down.recover";
const LAST_PORT_KEY: &str = "distribution.listener.port_range.max";

/// The key to blame and the complaint.
type Complaint = (&'static str, String);

impl ClusterDraft {
    /// The finished part of the node called `node_name` with these listeners for clients; or what does not fit together.
    pub fn finish(
        mut self,
        node_name: &str,
        clients: &[Listener],
        warnings: &mut Vec<Complaint>,
    ) -> Result<ClusterConfig, Complaint> {
        self.finish_nodes(warnings);
        self.finish_listener(clients, warnings)?;
        self.finish_partitions()?;
        if self.config.secret_file.is_none()
            && let Some((key, what)) = self.leads_to_others(node_name)
        {
            let text = format!("{what} without cluster.secret_file: set it to {HOW_TO_MAKE_A_SECRET}");
            return Err((key, text));
        }
        self.finish_discovery(warnings)?;
        self.finish_tls()?;
        Ok(self.config)
    }

    fn finish_tls(&mut self) -> Result<(), Complaint> {
        let files = (self.certificate.take(), self.private_key.take(), self.authorities.take());
        self.config.tls = match files {
            (None, None, None) => None,
            (Some(certificate), Some(key), Some(authorities)) => Some(ClusterTls { certificate, key, authorities }),
            (certificate, key, _) => {
                let given = match (certificate, key) {
                    (Some(_), _) => CERTIFICATE_KEY,
                    (None, Some(_)) => PRIVATE_KEY_KEY,
                    (None, None) => AUTHORITIES_KEY,
                };
                let text =
                    format!("TLS between nodes needs {CERTIFICATE_KEY}, {PRIVATE_KEY_KEY} and {AUTHORITIES_KEY}");
                return Err((given, text));
            }
        };
        Ok(())
    }

    fn finish_nodes(&mut self, warnings: &mut Vec<Complaint>) {
        self.nodes.sort_by_key(|(place, _)| *place);
        let kept = &mut self.config.nodes;
        for (_, seed) in self.nodes.drain(..) {
            if kept.iter().any(|other| other.name == seed.name) {
                warnings.push((NODES_KEY, format!("{} is listed more than once; the first counts", seed.name)));
            } else {
                kept.push(seed);
            }
        }
    }

    fn finish_listener(&mut self, clients: &[Listener], warnings: &mut Vec<Complaint>) -> Result<(), Complaint> {
        if let (Some(first), Some(last)) = (self.first_port, self.last_port)
            && last < first
        {
            return Err((LAST_PORT_KEY, format!("the last port of the range, {last}, is below the first, {first}")));
        }
        let listener = &mut self.config.listener;
        listener.ip = listener.ip.or(self.interface);
        listener.port = self.port.or(self.first_port).unwrap_or(listener.port);
        if self.last_port.is_some_and(|last| last != listener.port) {
            warnings
                .push((LAST_PORT_KEY, format!("{LAST_PORT_KEY} has no effect: one port is used, {}", listener.port)));
        }
        if let Some((host, port)) = self.advertised.take() {
            self.config.advertised = Some(address(&host, port.unwrap_or(listener.port)));
        }
        let twin = clients.iter().find(|one| {
            one.port == listener.port && (one.ip == listener.ip || one.ip.is_none() || listener.ip.is_none())
        });
        // Nobody else can connect without a secret.
        if let Some(twin) = twin.filter(|_| self.config.secret_file.is_some()) {
            let key = match (self.port, self.first_port) {
                (Some(_), _) => "cluster.listener.port",
                (None, Some(_)) => "distribution.listener.port_range.min",
                (None, None) => "listeners.",
            };
            return Err((key, format!("{} and cluster.listener.port both take port {}", twin.key(), listener.port)));
        }
        Ok(())
    }

    fn finish_partitions(&mut self) -> Result<(), Complaint> {
        self.config.partition_handling = match self.partitions {
            Partitions::Ignore => PartitionHandling::Ignore,
            Partitions::PauseMinority => PartitionHandling::PauseMinority,
            Partitions::Autoheal => PartitionHandling::Autoheal,
            Partitions::PauseIfAllDown => {
                let missing = |what: &str| (PARTITIONS_KEY, format!("pause_if_all_down needs {what}"));
                self.pause_nodes.sort_by_key(|(place, _)| *place);
                let nodes: Vec<_> = self.pause_nodes.drain(..).map(|(_, name)| name).collect();
                if nodes.is_empty() {
                    return Err(missing(&format!("{PAUSE_NODES_KEY}.1, the name of a node")));
                }
                let recover = self.recover.ok_or_else(|| missing(&format!("{RECOVER_KEY}: ignore or autoheal")))?;
                PartitionHandling::PauseIfAllDown { nodes, recover }
            }
        };
        Ok(())
    }

    /// What leads to nodes other than `node_name`, and in which words.
    fn leads_to_others(&self, node_name: &str) -> Option<(&'static str, &'static str)> {
        let config = &self.config;
        if config.nodes.iter().any(|seed| seed.name != node_name) {
            Some((NODES_KEY, "other nodes are listed"))
        } else if config.dns_hostname.is_some() {
            Some((HOSTNAME_KEY, "other nodes are looked for"))
        } else {
            config.target_cluster_size_hint.filter(|size| *size > 1)?;
            Some((SIZE_KEY, "a cluster of several nodes is asked for"))
        }
    }

    fn finish_discovery(&mut self, warnings: &mut Vec<Complaint>) -> Result<(), Complaint> {
        let config = &mut self.config;
        if self.foreign_backend {
            if config.target_cluster_size_hint != Some(1) {
                let text = format!(
                    "this backend does not exist here: use classic_config with {NODES_KEY}.1 and so on, or dns with \
                     {HOSTNAME_KEY}; a node that stays alone says so with {SIZE_KEY} = 1"
                );
                return Err((BACKEND_KEY, text));
            }
            let text = format!("this backend does not exist here; the node stays alone, as {SIZE_KEY} is 1");
            warnings.push((BACKEND_KEY, text));
            config.nodes.clear();
            config.dns_hostname = None;
            return Ok(());
        }
        let unused = |key: &str, backend: &str| format!("{key} has no effect: it needs {BACKEND_KEY} = {backend}");
        match config.peer_discovery_backend {
            PeerDiscovery::ClassicConfig if config.dns_hostname.is_some() => {
                warnings.push((HOSTNAME_KEY, unused(HOSTNAME_KEY, "dns")));
            }
            PeerDiscovery::Dns if config.dns_hostname.is_none() => {
                return Err((BACKEND_KEY, format!("dns needs {HOSTNAME_KEY}, a name with the addresses of all nodes")));
            }
            PeerDiscovery::Dns if config.target_cluster_size_hint.is_none() => {
                let text = format!(
                    "dns needs {SIZE_KEY}, how many nodes there are at first: without it nodes that are not told of each \
                     other yet would each found a cluster"
                );
                return Err((BACKEND_KEY, text));
            }
            PeerDiscovery::Dns if !config.nodes.is_empty() => {
                warnings.push((NODES_KEY, unused(NODES_KEY, "classic_config")));
            }
            PeerDiscovery::ClassicConfig | PeerDiscovery::Dns => {}
        }
        Ok(())
    }
}

pub(super) const NAME: Key = Key {
    meaning: "Name of the cluster, told to clients.",
    unit: "text",
    default: "the name of the node",
    bounds: "1 to 255 bytes",
    ..key(
        "cluster_name",
        |draft, given| short(given.value).map(|name| draft.cluster.config.name = Some(name)),
        |config| optional("cluster_name", config.cluster.name.as_ref()),
    )
};

pub(super) const SECRET_FILE: Key = Key {
    meaning: "File with the secret by which the nodes of a cluster know each other: at least 32 random octets, the same on \
              every node, and only for brokerd's user to read. What RabbitMQ has its cookie for.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        "cluster.secret_file",
        |draft, given| not_empty(given.value).map(|path| draft.cluster.config.secret_file = Some(path.into())),
        |config| optional("cluster.secret_file", config.cluster.secret_file.as_ref().map(|path| path.display())),
    )
};

pub(super) const CERTIFICATE: Key = Key {
    meaning: "This node's certificate for TLS between nodes, and behind it those that lead to its authority, PEM. With it \
              nodes talk over TLS 1.3 only, and each shows a certificate for servers and clients whose names hold the host by \
              which the others reach it.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        CERTIFICATE_KEY,
        |draft, given| not_empty(given.value).map(|path| draft.cluster.certificate = Some(path.into())),
        |config| optional(CERTIFICATE_KEY, config.cluster.tls.as_ref().map(|tls| tls.certificate.display())),
    )
};

pub(super) const PRIVATE_KEY: Key = Key {
    meaning: "Its private key, PEM, not encrypted.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        PRIVATE_KEY_KEY,
        |draft, given| not_empty(given.value).map(|path| draft.cluster.private_key = Some(path.into())),
        |config| optional(PRIVATE_KEY_KEY, config.cluster.tls.as_ref().map(|tls| tls.key.display())),
    )
};

pub(super) const AUTHORITIES: Key = Key {
    meaning: "Certificates of the authorities from which those of all nodes must come, PEM.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        AUTHORITIES_KEY,
        |draft, given| not_empty(given.value).map(|path| draft.cluster.authorities = Some(path.into())),
        |config| optional(AUTHORITIES_KEY, config.cluster.tls.as_ref().map(|tls| tls.authorities.display())),
    )
};

pub(super) const LISTENER_IP: Key = Key {
    meaning: "Address where other nodes may connect.",
    unit: "address",
    default: "all interfaces",
    bounds: "IPv4 or IPv6",
    ..key(
        "cluster.listener.ip",
        |draft, given| ip(given).map(|ip| draft.cluster.config.listener.ip = Some(ip)),
        |config| optional("cluster.listener.ip", config.cluster.listener.ip),
    )
};

pub(super) const LISTENER_PORT: Key = Key {
    meaning: "Port where other nodes may connect. Environment: `RABBITMQ_DIST_PORT`.",
    unit: "port",
    default: "25672",
    bounds: "1 to 65535",
    ..key(
        "cluster.listener.port",
        |draft, given| port(given).map(|port| draft.cluster.port = Some(port)),
        |config| one("cluster.listener.port", config.cluster.listener.port),
    )
};

pub(super) const INTERFACE: Key = Key {
    meaning: "The same as `cluster.listener.ip`, which wins.",
    unit: "address",
    default: "",
    bounds: "IPv4 or IPv6",
    ..key(
        "distribution.listener.interface",
        |draft, given| ip(given).map(|ip| draft.cluster.interface = Some(ip)),
        |_| Vec::new(),
    )
};

pub(super) const FIRST_PORT: Key = Key {
    meaning: "The same as `cluster.listener.port`, which wins.",
    unit: "port",
    default: "",
    bounds: "1 to 65535",
    ..key(
        "distribution.listener.port_range.min",
        |draft, given| port(given).map(|port| draft.cluster.first_port = Some(port)),
        |_| Vec::new(),
    )
};

pub(super) const LAST_PORT: Key = Key {
    meaning: "One port is used, whatever the range: another last port is a warning.",
    unit: "port",
    default: "",
    bounds: "1 to 65535, not below the first",
    ..key(LAST_PORT_KEY, |draft, given| port(given).map(|port| draft.cluster.last_port = Some(port)), |_| Vec::new())
};

pub(super) const ADVERTISED: Key = Key {
    meaning: "Where other nodes reach this one, `host` or `host:port`; the port is `cluster.listener.port` unless given.",
    unit: "host, port",
    default: "the host in `broker.node_name`",
    bounds: "port 1 to 65535",
    ..key(
        "cluster.advertised_address",
        |draft, given| {
            let (host, port) = value::host_and_port(given.value)?;
            draft.cluster.advertised = Some((host.into(), port));
            Ok(())
        },
        |config| optional("cluster.advertised_address", config.cluster.advertised.as_ref()),
    )
};

pub(super) const BACKEND: Key = Key {
    meaning: "How other nodes are found: from the list or by the host name below. RabbitMQ's longer names mean the same.",
    unit: "name",
    default: "classic_config",
    bounds: "classic_config, dns; with a size hint of 1 RabbitMQ's others too, with a warning",
    ..key(
        BACKEND_KEY,
        |draft, given| {
            draft.cluster.foreign_backend = FOREIGN_BACKENDS.contains(&given.value);
            if !draft.cluster.foreign_backend {
                draft.cluster.config.peer_discovery_backend = value::choice(given.value, BACKENDS)?;
            }
            Ok(())
        },
        |config| one(BACKEND_KEY, name_of(config.cluster.peer_discovery_backend, BACKENDS)),
    )
};

pub(super) const NODE: Key = Key {
    meaning: "A node of the cluster, `$node` being its place in the list: `name@host`, or `name@host:port` where the port is \
              not that of `cluster.listener.port`. This node may be among them. Without `cluster.secret_file` other nodes \
              are an error.",
    unit: "name",
    default: "",
    bounds: "1 to 255 bytes with one `@`; port 1 to 65535",
    ..key(
        "cluster_formation.classic_config.nodes.$node",
        |draft, given| {
            draft.cluster.nodes.push((place(given), seed(given.value)?));
            Ok(())
        },
        |config| numbered(NODES_KEY, config.cluster.nodes.iter().map(shown_seed)),
    )
};

pub(super) const HOSTNAME: Key = Key {
    meaning: "Host name whose addresses are those of the nodes, for `dns`. Without `cluster.secret_file` an error.",
    unit: "host",
    default: "",
    bounds: "1 to 253 letters, digits, `-`, `_` and dots",
    ..key(
        HOSTNAME_KEY,
        |draft, given| {
            let name = value::host_name(given.value)?;
            draft.cluster.config.dns_hostname = Some(name.into());
            Ok(())
        },
        |config| optional(HOSTNAME_KEY, config.cluster.dns_hostname.as_ref()),
    )
};

pub(super) const SIZE: Key = Key {
    meaning: "Nodes the cluster is to have at first. `dns` needs it: the cluster is founded when so many have been found. More \
              than 1 without `cluster.secret_file` is an error.",
    unit: "count",
    default: "",
    bounds: "1 to 1000",
    ..key(
        SIZE_KEY,
        |draft, given| {
            draft.cluster.config.target_cluster_size_hint = Some(bounded(given, 1..=MAX_NODES, "nodes")?);
            Ok(())
        },
        |config| optional(SIZE_KEY, config.cluster.target_cluster_size_hint),
    )
};

pub(super) const RETRY_LIMIT: Key = Key {
    meaning: "How often in a row `cluster_formation.dns.hostname` may have no address at the first start; then the node ends, with \
              exit code 69. Nodes that have an address or are listed are waited for without a limit. RabbitMQ's default is 10.",
    unit: "count",
    default: "120",
    bounds: "1 to 1000000, or unlimited",
    ..key(
        "cluster_formation.discovery_retry_limit",
        |draft, given| {
            let limit = (given.value != UNLIMITED).then(|| bounded(given, 1..=1_000_000, "times")).transpose()?;
            draft.cluster.config.discovery_retry_limit = limit;
            Ok(())
        },
        |config| {
            let limit = config.cluster.discovery_retry_limit;
            one("cluster_formation.discovery_retry_limit", limit.map_or(UNLIMITED.into(), |limit| limit.to_string()))
        },
    )
};

pub(super) const RETRY_INTERVAL: Key = Key {
    meaning: "Time from one look to the next.",
    unit: "milliseconds",
    default: "500",
    bounds: "1 to 3600000",
    ..key(
        "cluster_formation.discovery_retry_interval",
        |draft, given| {
            let range = MILLISECOND..=Duration::from_secs(3_600);
            draft.cluster.config.discovery_retry_interval = value::duration(given.value, MILLISECOND, &range)?;
            Ok(())
        },
        |config| {
            let interval = config.cluster.discovery_retry_interval;
            one("cluster_formation.discovery_retry_interval", interval.as_millis())
        },
    )
};

pub(super) const NODE_TYPE: Key = Key {
    meaning: "What a node is in its cluster; `ram` is as `disc`, with a warning.",
    unit: "name",
    default: "disc",
    bounds: "disc (or disk), ram",
    ..key(
        "cluster_formation.node_type",
        |draft, given| {
            if value::choice(given.value, &[("disc", false), ("disk", false), ("ram", true)])? {
                draft.warning = Some("is as disc: every node keeps what the cluster knows on its disk");
            }
            Ok(())
        },
        |_| one("cluster_formation.node_type", "disc"),
    )
};

pub(super) const PARTITION_HANDLING: Key = Key {
    meaning: "What a node does that sees only some of the others: `pause_minority` serves nobody until it sees a majority, \
              `pause_if_all_down` until it reaches one of the nodes below, `ignore` and `autoheal` serve what they have; \
              with `autoheal` one side gives way when both meet again. RabbitMQ's default is ignore.",
    unit: "name",
    default: "pause_minority",
    bounds: "ignore, pause_minority, autoheal, pause_if_all_down",
    ..key(
        PARTITIONS_KEY,
        |draft, given| value::choice(given.value, PARTITIONS).map(|mode| draft.cluster.partitions = mode),
        |config| {
            let mode = match config.cluster.partition_handling {
                PartitionHandling::Ignore => Partitions::Ignore,
                PartitionHandling::PauseMinority => Partitions::PauseMinority,
                PartitionHandling::Autoheal => Partitions::Autoheal,
                PartitionHandling::PauseIfAllDown { .. } => Partitions::PauseIfAllDown,
            };
            one(PARTITIONS_KEY, name_of(mode, PARTITIONS))
        },
    )
};

pub(super) const PAUSE_NODE: Key = Key {
    meaning: "A node of which one has to be reached from this one, for `pause_if_all_down`, which needs at least one.",
    unit: "name",
    default: "",
    bounds: "1 to 255 bytes with one `@`",
    ..key(
        "cluster_partition_handling.pause_if_all_down.nodes.$name",
        |draft, given| {
            draft.cluster.pause_nodes.push((place(given), node_name(given.value)?));
            Ok(())
        },
        |config| match &config.cluster.partition_handling {
            PartitionHandling::PauseIfAllDown { nodes, .. } => numbered(PAUSE_NODES_KEY, nodes.iter().cloned()),
            _ => Vec::new(),
        },
    )
};

pub(super) const RECOVER: Key = Key {
    meaning: "What happens when sides meet again that both went on, for `pause_if_all_down`, which needs it.",
    unit: "name",
    default: "",
    bounds: "ignore, autoheal",
    ..key(
        RECOVER_KEY,
        |draft, given| value::choice(given.value, RECOVERIES).map(|recover| draft.cluster.recover = Some(recover)),
        |config| match config.cluster.partition_handling {
            PartitionHandling::PauseIfAllDown { recover, .. } => one(RECOVER_KEY, name_of(recover, RECOVERIES)),
            _ => Vec::new(),
        },
    )
};

pub(super) const LOCATOR: Key = Key {
    meaning: "Which node gets a new queue that does not say it itself: that of the client, that with the fewest queues, or any.",
    unit: "name",
    default: "client-local",
    bounds: "client-local, min-masters, random",
    ..key(
        "queue_master_locator",
        |draft, given| {
            let locator = value::choice(given.value, QueueMasterLocator::NAMES)?;
            draft.cluster.config.queue_master_locator = locator;
            Ok(())
        },
        |config| one("queue_master_locator", name_of(config.cluster.queue_master_locator, QueueMasterLocator::NAMES)),
    )
};

fn ip(given: &Given<'_>) -> Result<IpAddr, String> {
    given.value.parse().map_err(|_| "is no IP address (host names are not resolved here)".into())
}

fn port(given: &Given<'_>) -> Result<u16, String> {
    bounded(given, 1..=65_535, "")
}

/// The place in a list that a key's last segment is; what is no number, as RabbitMQ allows, comes last.
fn place(given: &Given<'_>) -> u64 {
    given.name().parse().unwrap_or(u64::MAX)
}

fn seed(text: &str) -> Result<Seed, String> {
    let sides = text.split_once('@').filter(|(name, _)| !name.is_empty());
    let (name, place) = sides.ok_or("is not of the form name@host or name@host:port")?;
    let (host, port) = value::host_and_port(place)?;
    Ok(Seed { name: node_name(&format!("{name}@{host}"))?, port })
}

fn shown_seed(seed: &Seed) -> String {
    let name = seed.name.split_once('@').map_or("", |(name, _)| name);
    seed.port.map_or_else(|| seed.name.clone(), |port| format!("{name}@{}", seed.address(port)))
}
