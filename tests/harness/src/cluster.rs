//! Several brokerd that form a cluster: on ports of their own on 127.0.0.1, or each on a host of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::brokerd::{START_LIMIT, STOP_LIMIT, brokerctl, control, find_binary};
use crate::process::{Launch, Process, speaks_amqp};
use crate::{Control, Error, Hosts, free_port};

/// The ports of a node on a host of its own.
const AMQP_PORT: u16 = 5672;
const CLUSTER_PORT: u16 = 25_672;
const SECRET: &str = "the secret of the cluster under test";

/// What a cluster is to be like; the default has no nodes.
#[derive(Debug, Default)]
pub struct Plan {
    nodes: u8,
    conf: String,
    conf_of: Vec<(usize, String)>,
    secret_of: Vec<(usize, String)>,
    hosts: bool,
    unlisted: bool,
}

impl Plan {
    /// One of so many nodes.
    #[must_use]
    pub fn nodes(nodes: u8) -> Plan {
        Plan { nodes, ..Plan::default() }
    }

    /// Adds lines to the configuration of every node.
    #[must_use]
    pub fn conf(mut self, lines: &str) -> Plan {
        self.conf = format!("{}{lines}\n", self.conf);
        self
    }

    /// Adds lines to the configuration of one node.
    #[must_use]
    pub fn conf_of(mut self, node: usize, lines: &str) -> Plan {
        self.conf_of.push((node, format!("{lines}\n")));
        self
    }

    /// One node holds another secret.
    #[must_use]
    pub fn secret_of(mut self, node: usize, secret: &str) -> Plan {
        self.secret_of.push((node, secret.into()));
        self
    }

    /// The nodes do not list each other: the lines of the configuration say how they find each other.
    #[must_use]
    pub fn unlisted(mut self) -> Plan {
        self.unlisted = true;
        self
    }

    /// Each node is on a host of its own; see [`has_own_network`](crate::has_own_network).
    #[must_use]
    pub fn on_hosts(mut self) -> Plan {
        self.hosts = true;
        self
    }
}

/// Nodes, counted from 1 as their names are: `n1@...`. Each lists all of them unless the plan says otherwise, so that they form a cluster at their first
/// start.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    binary: PathBuf,
    hosts: Option<Hosts>,
    // Dropped last: the directory goes after the processes.
    _directory: TempDir,
}

#[derive(Debug)]
struct Node {
    name: String,
    process: Process,
    data_dir: PathBuf,
    address: SocketAddr,
}

impl Cluster {
    /// Starts all nodes at once and waits until each serves.
    pub fn start(plan: Plan) -> Result<Cluster, Error> {
        let mut cluster = Cluster::prepare(plan)?;
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Nothing is started yet.
    pub fn prepare(plan: Plan) -> Result<Cluster, Error> {
        let binary = find_binary()?;
        let directory = TempDir::with_prefix("cluster-").map_err(|error| Error::io("making a directory", error))?;
        let hosts = if plan.hosts { Some(Hosts::make(plan.nodes)?) } else { None };
        let mut places = Vec::new();
        for number in 1..=plan.nodes {
            places.push(match &hosts {
                Some(hosts) => (hosts.address(number), AMQP_PORT, CLUSTER_PORT),
                None => (Ipv4Addr::LOCALHOST, free_port()?, free_port()?),
            });
        }
        let name = |number: usize, ip: Ipv4Addr| format!("n{number}@{ip}");
        let list: String = (1..)
            .zip(&places)
            .filter(|_| !plan.unlisted)
            .map(|(number, (ip, _, port))| {
                format!("cluster_formation.classic_config.nodes.{number} = {}:{port}\n", name(number, *ip))
            })
            .collect();
        let mut nodes = Vec::new();
        for (number, &(ip, amqp_port, cluster_port)) in (1..).zip(&places) {
            let home = directory.path().join(format!("n{number}"));
            let data_dir = home.join("data");
            make_directory(&data_dir)?;
            let special = plan.secret_of.iter().find(|(of, _)| *of == number);
            let secret = home.join("secret");
            write(&secret, special.map_or(SECRET, |(_, secret)| secret))?;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))
                .map_err(|error| Error::io("hiding the secret", error))?;
            let name = name(number, ip);
            let own: String =
                plan.conf_of.iter().filter(|(of, _)| *of == number).map(|(_, conf)| conf.as_str()).collect();
            let config = home.join("brokerd.conf");
            // The clients of a node on a host of its own come from another host.
            let conf = format!(
                "listeners.tcp.default = {amqp_port}\nloopback_users = none\nbroker.node_name = {name}\ncluster.secret_file = {}\n\
                 cluster.listener.ip = {ip}\ncluster.listener.port = {cluster_port}\n{list}{}{own}",
                secret.display(),
                plan.conf
            );
            write(&config, &conf)?;
            let text = |path: &Path| path.display().to_string();
            let host = u8::try_from(number).ok().filter(|_| hosts.is_some());
            let mut command = host.map(Hosts::prefix).unwrap_or_default();
            command.extend([text(&binary), "--config".into(), text(&config), "--data-dir".into(), text(&data_dir)]);
            let address = SocketAddr::from((ip, amqp_port));
            let process = Process::new(Launch {
                name: "brokerd",
                command,
                environment: Vec::new(),
                log: home.join("brokerd.log"),
                directory: home,
                address,
                start_limit: START_LIMIT,
                stop_limit: STOP_LIMIT,
            });
            nodes.push(Node { name, process, data_dir, address });
        }
        Ok(Cluster { nodes, binary, hosts, _directory: directory })
    }

    /// The numbers of the nodes.
    #[must_use]
    pub fn numbers(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.nodes.len()
    }

    /// The network, of a cluster whose nodes are on hosts of their own.
    pub fn network(&self) -> Result<&Hosts, Error> {
        self.hosts.as_ref().ok_or_else(|| Error::Mistake("the nodes of this cluster are on one host".into()))
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> Result<&str, Error> {
        self.node(node).map(|node| node.name.as_str())
    }

    /// Where a node's clients connect.
    pub fn address(&self, node: usize) -> Result<SocketAddr, Error> {
        self.node(node).map(|node| node.address)
    }

    /// Starts all that are not running, at once, and waits until each serves.
    pub fn start_all(&mut self) -> Result<(), Error> {
        let stopped: Vec<usize> = self.numbers().filter(|number| !self.is_running(*number)).collect();
        stopped.iter().try_for_each(|number| self.launch(*number))?;
        stopped.iter().try_for_each(|number| self.await_service(*number))
    }

    /// Starts a node and waits for nothing.
    pub fn launch(&mut self, node: usize) -> Result<(), Error> {
        self.node_mut(node)?.process.spawn()
    }

    /// Waits until a node serves clients.
    pub fn await_service(&mut self, node: usize) -> Result<(), Error> {
        self.node_mut(node)?.process.await_service()
    }

    /// Starts a node and waits until it serves clients.
    pub fn start_node(&mut self, node: usize) -> Result<(), Error> {
        self.launch(node)?;
        self.await_service(node)
    }

    /// Whether a node serves clients now.
    pub fn serves(&self, node: usize) -> Result<bool, Error> {
        self.node(node).map(|node| speaks_amqp(node.address))
    }

    /// Whether a node serves clients, or does not, within a time.
    pub fn comes_to_serve(&self, node: usize, serves: bool, within: Duration) -> Result<bool, Error> {
        let give_up = Instant::now() + within;
        while self.serves(node)? != serves {
            if Instant::now() >= give_up {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }

    /// Asks a node to stop and waits until it is gone.
    pub fn terminate(&mut self, node: usize) -> Result<(), Error> {
        self.node_mut(node)?.process.terminate()
    }

    /// Kills a node and waits until it is gone.
    pub fn kill_9(&mut self, node: usize) -> Result<(), Error> {
        self.node_mut(node)?.process.kill_9()
    }

    /// Whether a node was started and not stopped.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.node(node).is_ok_and(|node| node.process.pid() != 0)
    }

    /// Whether a node's process has ended by itself.
    pub fn has_ended(&mut self, node: usize) -> Result<bool, Error> {
        self.node_mut(node)?.process.ended().map(|status| status.is_some())
    }

    /// Makes a running node stand still, or go on.
    pub fn freeze(&self, node: usize, frozen: bool) -> Result<(), Error> {
        let node = self.node(node)?;
        let pid = i32::try_from(node.process.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::NotRunning { program: node.name.clone() })?;
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(pid, signal).map_err(|error| Error::io("sending a signal", error))
    }

    /// Takes everything off the disk of a node that is not running.
    pub fn empty_disk(&self, node: usize) -> Result<(), Error> {
        let node = self.node(node)?;
        let data = &node.data_dir;
        fs::remove_dir_all(data).map_err(|error| Error::io(format!("removing {}", data.display()), error))?;
        make_directory(data)
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, node: usize) -> Result<&Path, Error> {
        self.node(node).map(|node| node.data_dir.as_path())
    }

    /// How to run `rabbitmqctl`'s commands against a node.
    pub fn control(&self, node: usize) -> Result<Control, Error> {
        self.node(node).map(|node| control(&self.binary, &node.data_dir))
    }

    /// The same for commands in `brokerctl`'s own words.
    pub fn brokerctl(&self, node: usize) -> Result<Control, Error> {
        self.node(node).map(|node| brokerctl(&self.binary, &[], &node.data_dir))
    }

    /// Everything a node has logged, over all its starts.
    pub fn log(&self, node: usize) -> Result<String, Error> {
        self.node(node).map(|node| node.process.log())
    }

    fn node(&self, number: usize) -> Result<&Node, Error> {
        let node = number.checked_sub(1).and_then(|at| self.nodes.get(at));
        node.ok_or_else(|| Error::Mistake(format!("the cluster has no node {number}")))
    }

    fn node_mut(&mut self, number: usize) -> Result<&mut Node, Error> {
        let node = number.checked_sub(1).and_then(|at| self.nodes.get_mut(at));
        node.ok_or_else(|| Error::Mistake(format!("the cluster has no node {number}")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for node in &self.nodes {
            // For a look at all of it.
            if let Some(directory) = env::var_os("HARNESS_KEEP_LOGS").map(PathBuf::from)
                && let Err(error) = fs::write(directory.join(format!("{}.log", node.name)), node.process.log())
            {
                eprintln!("keeping the log: {error}");
            }
            eprintln!("--- {} ends its log with\n{}", node.name, node.process.log_tail());
        }
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|error: io::Error| Error::io(format!("making {}", path.display()), error))
}

fn write(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(|error| Error::io(format!("writing {}", path.display()), error))
}
