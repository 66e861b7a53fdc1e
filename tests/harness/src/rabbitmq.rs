//! Debian's rabbitmq-server 3.10.8 as the oracle and the peer in measurements.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Launch, Process};
use crate::{Broker, Control, Error, Options, free_port};

/// Where Debian's package puts the scripts.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// RabbitMQ needs 5 to 10 s on two idle cores; this leaves room for busy ones.
const START_LIMIT: Duration = Duration::from_secs(300);
/// RabbitMQ must be gone this long after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// epmd must listen within this time.
const EPMD_LIMIT: Duration = Duration::from_secs(10);

/// A RabbitMQ node of its own: ports, node name, cookie, data, logs and epmd are apart from every other one's, but for nodes
/// that are to be one cluster.
#[derive(Debug)]
pub struct RabbitMq {
    process: Process,
    environment: Vec<(String, String)>,
    node_name: String,
    // Fields drop in order: the node, then its epmd with the last node of it, then the directory.
    realm: Realm,
    _directory: TempDir,
}

/// What nodes must share to find each other.
#[derive(Debug, Clone)]
struct Realm {
    cookie: String,
    epmd_port: u16,
    _epmd: Arc<Process>,
    // The epmd ran in it first.
    _directory: Arc<TempDir>,
}

impl RabbitMq {
    /// Starts an empty node with the defaults and waits until it serves.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(Options::default())
    }

    /// Starts a node; of the options the configuration lines, the plugins, the data directory and the environment count. The data
    /// directory holds the node name in its files, so it is of no use to another node.
    pub fn start_with(options: Options) -> Result<Self, Error> {
        installed()?;
        Self::start_in(Realm::new()?, options)
    }

    /// Starts another empty node, with the epmd and the cookie of this one, so that it can join this one's cluster.
    pub fn start_beside(&self, options: Options) -> Result<Self, Error> {
        Self::start_in(self.realm.clone(), options)
    }

    /// Starts that many nodes and joins them to a cluster; all of them have these options, so none may be given that only one
    /// node can have. The first one is the one that the others joined.
    pub fn start_cluster(count: usize, options: &Options) -> Result<Vec<Self>, Error> {
        installed()?;
        let realm = Realm::new()?;
        // Each takes seconds to start, and most of that it waits.
        let starting: Vec<_> = (0..count)
            .map(|_| {
                let (realm, options) = (realm.clone(), options.clone());
                thread::spawn(move || Self::start_in(realm, options))
            })
            .collect();
        let ended = |_| Err(Error::io("starting a node", std::io::Error::other("its thread has panicked")));
        let nodes = starting.into_iter().map(|thread| thread.join().unwrap_or_else(ended));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        if let Some((first, others)) = nodes.split_first() {
            others.iter().try_for_each(|node| node.join_cluster(first))?;
        }
        Ok(nodes)
    }

    /// Has this node, which loses what it has, join the cluster of the other one; returns when it serves again.
    pub fn join_cluster(&self, of: &RabbitMq) -> Result<(), Error> {
        self.ctl(&["stop_app"])?;
        self.ctl(&["join_cluster", &of.node_name])?;
        self.ctl(&["start_app"])?;
        Ok(())
    }

    fn start_in(realm: Realm, options: Options) -> Result<Self, Error> {
        let server = installed()?;
        let directory = temporary()?;
        let home = directory.path().to_owned();
        let port = options.amqp_port.map_or_else(free_port, Ok)?;
        let dist_port = free_port()?;
        let node_name = format!("harness{port}@localhost");
        write_files(&home, port, &realm.cookie, &options)?;
        let environment = environment(&home, &node_name, (realm.epmd_port, dist_port), &options);
        let process = Process::start(Launch {
            name: "rabbitmq",
            command: vec![server.display().to_string()],
            environment: environment.clone(),
            directory: home.clone(),
            log: home.join("rabbitmq.out"),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            start_limit: START_LIMIT,
            stop_limit: STOP_LIMIT,
        })?;
        Ok(RabbitMq { process, environment, node_name, realm, _directory: directory })
    }

    /// True when the package is on this machine. A test that needs it prints the error of [`RabbitMq::start`] and is
    /// skipped when it is not.
    pub fn is_installed() -> bool {
        installed().is_ok()
    }

    /// The environment in which rabbitmqctl finds this node, for programs that call it themselves.
    pub fn ctl_environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Runs `rabbitmqctl ARGUMENTS` against this node and gives back what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let said = self.control().run(arguments)?;
        if said.succeeded {
            return Ok(said.text);
        }
        Err(Error::io(format!("rabbitmqctl {}", arguments.join(" ")), std::io::Error::other(said.text)))
    }
}

impl Realm {
    fn new() -> Result<Self, Error> {
        let directory = temporary()?;
        let epmd_port = free_port()?;
        let epmd = start_epmd(directory.path(), epmd_port)?;
        // Nobody else knows this epmd, so the cookie only has to differ from that of other nodes.
        let cookie = format!("HARNESS{epmd_port}");
        Ok(Realm { cookie, epmd_port, _epmd: Arc::new(epmd), _directory: Arc::new(directory) })
    }
}

impl Broker for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn amqp_port(&self) -> u16 {
        self.process.port()
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn kill_9(&mut self) -> Result<(), Error> {
        self.process.kill_9()
    }

    fn terminate(&mut self) -> Result<(), Error> {
        self.process.terminate()
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.process.restart()
    }

    fn cpu_time(&self) -> Result<Duration, Error> {
        self.process.cpu_time()
    }

    fn rss_peak(&self) -> Result<u64, Error> {
        self.process.status_bytes("VmHWM")
    }

    fn rss_now(&self) -> Result<u64, Error> {
        self.process.status_bytes("VmRSS")
    }

    fn control(&self) -> Control {
        Control::new(Path::new(SCRIPTS).join("rabbitmqctl"), Vec::new(), self.environment.clone())
    }

    fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

fn installed() -> Result<PathBuf, Error> {
    let server = Path::new(SCRIPTS).join("rabbitmq-server");
    let missing = [server.clone(), PathBuf::from("/usr/bin/epmd")].into_iter().find(|path| !path.exists());
    missing.map_or(Ok(server), |missing| Err(Error::RabbitMqNotInstalled { missing }))
}

fn temporary() -> Result<TempDir, Error> {
    TempDir::with_prefix("rabbitmq-").map_err(|error| Error::io("making a directory", error))
}

fn write_files(home: &Path, port: u16, cookie: &str, options: &Options) -> Result<(), Error> {
    let write = |name: &str, content: String, mode: u32| {
        let path = home.join(name);
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(|error| Error::io(format!("writing {}", path.display()), error))
    };
    write(".erlang.cookie", cookie.to_owned(), 0o400)?;
    write("enabled_plugins", format!("[{}].\n", options.plugins.join(", ")), 0o644)?;
    write("rabbitmq-env.conf", String::new(), 0o644)?;
    let conf = format!("listeners.tcp.default = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n");
    write("rabbitmq.conf", conf + &options.conf, 0o644)
}

fn environment(home: &Path, node_name: &str, (epmd, dist): (u16, u16), options: &Options) -> Vec<(String, String)> {
    let inside = |name: &str| home.join(name).display().to_string();
    let data = options.data_dir.as_ref().map_or_else(|| inside("mnesia"), |path| path.display().to_string());
    let mut environment: Vec<(String, String)> = [
        ("HOME", home.display().to_string()),
        ("ERL_EPMD_PORT", epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", node_name.to_owned()),
        ("RABBITMQ_DIST_PORT", dist.to_string()),
        ("RABBITMQ_MNESIA_BASE", data),
        ("RABBITMQ_LOG_BASE", inside("log")),
        ("RABBITMQ_SCHEMA_DIR", inside("schema")),
        ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", inside("rabbitmq-env.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
        ("RABBITMQ_PID_FILE", inside("rabbitmq.pid")),
        // The start script then replaces itself by the Erlang machine, so that the process id is the broker's own.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    environment.extend(options.environment.iter().cloned());
    environment
}

/// An epmd of this node's own, in the foreground, so that it ends with the test.
fn start_epmd(home: &Path, port: u16) -> Result<Process, Error> {
    let epmd = Process::start_without_waiting(Launch {
        name: "epmd",
        command: ["epmd", "-port", &port.to_string(), "-address", "127.0.0.1"].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        directory: home.to_owned(),
        log: home.join("epmd.out"),
        address: (Ipv4Addr::LOCALHOST, port).into(),
        start_limit: EPMD_LIMIT,
        stop_limit: EPMD_LIMIT,
    })?;
    let give_up = Instant::now() + EPMD_LIMIT;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() >= give_up {
            return Err(Error::NoAnswer { program: "epmd".into(), port, waited: EPMD_LIMIT, log: epmd.log_tail() });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(epmd)
}
