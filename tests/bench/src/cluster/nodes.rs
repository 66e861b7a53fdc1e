//! The clusters that are measured: three nodes each, on ports of their own.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Broker, Brokerd, Options, RabbitMq, free_port};
use tempfile::TempDir;

use crate::brokers::{CONFIGURATION, Kind};
use crate::scale::bulk;
use crate::session::Session;
use crate::tls::Target;
use crate::usage::Usage;

/// Nodes of a cluster.
pub(super) const NODES: usize = 3;
/// The node that founds the cluster and then leads it.
pub(super) const LEADER: usize = 0;
/// The node on which the queues are.
pub(super) const HOME: usize = 1;
/// A node that has no queue and does not lead.
pub(super) const OTHER: usize = 2;
/// What the many queues are bound to.
pub(super) const EXCHANGE: &str = "bench.cluster";
/// A node is known to others this long after it serves.
const SETTLING: Duration = Duration::from_secs(60);

/// A cluster that runs. It ends when this is dropped.
pub(super) struct Cluster {
    pub kind: Kind,
    nodes: Members,
    /// How many of the many queues there are.
    filled: usize,
    /// For ours: the secret, and what each node is told of the others.
    ours: Option<Ours>,
}

enum Members {
    Ours(Vec<Brokerd>),
    RabbitMq(Vec<RabbitMq>),
}

struct Ours {
    directory: TempDir,
    /// The port of each node for the others.
    ports: Vec<u16>,
}

impl Cluster {
    /// Starts an empty cluster; returns when each node serves and knows the others.
    pub fn start(kind: Kind) -> io::Result<Self> {
        let mut cluster = if kind == Kind::RabbitMq {
            let nodes = RabbitMq::start_cluster(NODES, &Options::default().conf(CONFIGURATION));
            let nodes = Members::RabbitMq(nodes.map_err(io::Error::other)?);
            Self { kind, nodes, filled: 0, ours: None }
        } else {
            let ours = Ours::new()?;
            // The first one founds the cluster once it has heard of the others.
            let starting: Vec<_> = (0..NODES)
                .map(|number| ours.options(number).map(|options| std::thread::spawn(|| Brokerd::start(options))))
                .collect::<io::Result<_>>()?;
            let panicked = |_| io::Error::other("starting a node has panicked");
            let nodes = starting.into_iter().map(|one| one.join().map_err(panicked)?.map_err(io::Error::other));
            let nodes = Members::Ours(nodes.collect::<io::Result<_>>()?);
            Self { kind, nodes, filled: 0, ours: Some(ours) }
        };
        cluster.settle()?;
        Ok(cluster)
    }

    /// Waits until a queue of each node can be used on each other one.
    pub fn settle(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + SETTLING;
        for home in 0..self.len() {
            let name = format!("bench.settle.{home}");
            loop {
                let tried = self.try_queue(home, &name);
                match tried {
                    Ok(()) => break,
                    Err(error) if Instant::now() > give_up => return Err(error),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        }
        Ok(())
    }

    fn try_queue(&self, home: usize, name: &str) -> io::Result<()> {
        let mut owner = self.session(home)?;
        owner.declare_queue(name, false)?;
        for node in 0..self.len() {
            let mut session = self.session(node)?;
            session.select_confirms()?;
            bulk::publish(&mut session, "", name, b"x")?;
            session.expect(crate::wire::BASIC_ACK)?;
            session.get(name)?;
            session.close()?;
        }
        owner.delete_queue(name)?;
        owner.close()
    }

    /// A connection to a node, with channel 1 open.
    pub fn session(&self, node: usize) -> io::Result<Session> {
        Session::open(self.address(node)?)
    }

    pub fn target(&self, node: usize) -> io::Result<Target> {
        Ok(self.address(node)?.into())
    }

    pub fn address(&self, node: usize) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.node(node)?.amqp_port())))
    }

    /// The process of each node.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        (0..self.len()).map(|node| Ok(self.node(node)?.pid())).collect()
    }

    /// The CPU of each node so far.
    pub fn cpu(&self) -> io::Result<Vec<Duration>> {
        self.pids()?.into_iter().map(|pid| Ok(Usage::of(pid)?.cpu)).collect()
    }

    /// The CPU that all nodes have used since, divided among `count`, in microseconds.
    pub fn cpu_us_each(&self, before: &[Duration], count: usize) -> io::Result<f64> {
        Ok(self.cpu_since(before)?.iter().sum::<Duration>().as_secs_f64() * 1e6 / count.max(1) as f64)
    }

    /// The CPU that each node has used since; a node that was not there has used all of its own.
    pub fn cpu_since(&self, before: &[Duration]) -> io::Result<Vec<Duration>> {
        let before = before.iter().copied().chain(std::iter::repeat(Duration::ZERO));
        Ok(self.cpu()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect())
    }

    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        self.node_mut(node)?.kill_9().map_err(io::Error::other)
    }

    /// Starts a node again that was killed; returns when it serves and the others know it.
    pub fn restart(&mut self, node: usize) -> io::Result<()> {
        self.node_mut(node)?.restart().map_err(io::Error::other)?;
        self.settle()
    }

    /// A fresh node joins; returns its number when its port answers.
    pub fn join(&mut self) -> io::Result<usize> {
        match (&mut self.nodes, &mut self.ours) {
            (Members::RabbitMq(nodes), _) => {
                let first = nodes.first().ok_or(io::ErrorKind::NotFound)?;
                let node = first.start_beside(Options::default().conf(CONFIGURATION)).map_err(io::Error::other)?;
                node.join_cluster(first).map_err(io::Error::other)?;
                nodes.push(node);
            }
            (Members::Ours(nodes), Some(ours)) => {
                ours.ports.push(free_port().map_err(io::Error::other)?);
                let options = ours.options(nodes.len())?;
                nodes.push(Brokerd::start(options).map_err(io::Error::other)?);
            }
            (Members::Ours(_), None) => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(self.len() - 1)
    }

    /// Sees to it that there are so many durable queues on [`HOME`], each bound with its name as the key.
    pub fn fill(&mut self, queues: usize) -> io::Result<()> {
        if self.filled >= queues {
            return Ok(());
        }
        let started = Instant::now();
        let mut session = Session::connect(self.address(HOME)?)?;
        bulk::open_channels(&mut session)?;
        bulk::declare_exchange(&mut session, EXCHANGE, "direct")?;
        bulk::declare_queues(&mut session, queues, bulk::DURABLE)?;
        bulk::bind_all(&mut session, queues, |number| (bulk::queue_name(number), EXCHANGE, bulk::queue_name(number)))?;
        session.close()?;
        self.filled = queues;
        eprintln!("           {:9} has {queues} queues, declared and bound in {:.1?}", self.kind, started.elapsed());
        Ok(())
    }

    pub fn log_tails(&self) -> String {
        let tail = |node| Some(format!("node {node}:\n{}", self.node(node).ok()?.log_tail()));
        (0..self.len()).filter_map(tail).collect()
    }

    pub fn len(&self) -> usize {
        match &self.nodes {
            Members::Ours(nodes) => nodes.len(),
            Members::RabbitMq(nodes) => nodes.len(),
        }
    }

    fn node(&self, node: usize) -> io::Result<&dyn Broker> {
        let found = match &self.nodes {
            Members::Ours(nodes) => nodes.get(node).map(|node| node as &dyn Broker),
            Members::RabbitMq(nodes) => nodes.get(node).map(|node| node as &dyn Broker),
        };
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node_mut(&mut self, node: usize) -> io::Result<&mut dyn Broker> {
        let found = match &mut self.nodes {
            Members::Ours(nodes) => nodes.get_mut(node).map(|node| node as &mut dyn Broker),
            Members::RabbitMq(nodes) => nodes.get_mut(node).map(|node| node as &mut dyn Broker),
        };
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Ours {
    fn new() -> io::Result<Self> {
        let directory = TempDir::with_prefix("bench-cluster-")?;
        let secret = secret_file(directory.path());
        fs::write(&secret, "a secret that is as long as it must be, and known to all who read this\n")?;
        fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
        let ports = (0..NODES).map(|_| free_port()).collect::<Result<_, _>>().map_err(io::Error::other)?;
        Ok(Self { directory, ports })
    }

    /// How the node of this number is started: it is told of all that there are.
    fn options(&self, number: usize) -> io::Result<Options> {
        let port = self.ports.get(number).ok_or(io::ErrorKind::NotFound)?;
        let listed = self.ports.iter().enumerate().map(|(number, port)| {
            format!("cluster_formation.classic_config.nodes.{} = {}:{port}\n", number + 1, node_name(number))
        });
        let conf = format!(
            "{CONFIGURATION}\ncluster.secret_file = {}\ncluster.listener.ip = 127.0.0.1\ncluster.listener.port = {port}\n{}",
            secret_file(self.directory.path()).display(),
            listed.collect::<String>()
        );
        Ok(Options::default().conf(&conf).environment("RABBITMQ_NODENAME", &node_name(number)))
    }
}

/// The first in the order of names founds the cluster.
fn node_name(number: usize) -> String {
    format!("bench{number}@127.0.0.1")
}

fn secret_file(directory: &Path) -> std::path::PathBuf {
    directory.join("secret")
}
