//! The brokers that are measured, each a process of its own.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use harness::{Broker, Brokerd, Control, Options, RabbitMq, free_port};
use tempfile::TempDir;

use crate::tls::{self, Target};

/// Configuration lines for ours and RabbitMQ: no alarm may stop a run, a backlog of millions is part of the bench.
pub(crate) const CONFIGURATION: &str = "vm_memory_high_watermark.relative = 0.9\ndisk_free_limit.absolute = 50MB";

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This project's brokerd.
    Ours,
    /// Debian's rabbitmq-server 3.10.8.
    RabbitMq,
    /// The null broker; with `+fsync` where the workload asks for durability.
    Null,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ours => "ours",
            Self::RabbitMq => "rabbitmq",
            Self::Null => "null",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Ours, Self::RabbitMq, Self::Null]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("no broker {text:?}: it is ours, rabbitmq or null"))
    }
}

/// A broker that runs. It ends when this is dropped.
pub struct Running {
    /// Where it serves.
    pub address: SocketAddr,
    /// Where it serves with TLS, if it was started with it.
    pub tls: Option<Target>,
    /// Its process.
    pub pid: u32,
    process: Process,
    /// Its certificate.
    _certificates: Option<TempDir>,
}

enum Process {
    Harness(Box<dyn Broker>),
    Null { child: Child, _directory: TempDir },
}

/// How a broker ends before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM, and it is waited for.
    Terminated,
    /// SIGKILL.
    Killed,
}

impl Running {
    /// Starts an empty broker. A `special` null broker syncs, a special other one serves with TLS too.
    ///
    /// # Errors
    /// When the program is missing or does not come up.
    pub fn start(kind: Kind, special: bool) -> io::Result<Self> {
        let options = Options::default().conf(CONFIGURATION);
        if kind == Kind::Null {
            return Self::null(special);
        }
        if !special {
            return Self::with(kind, options);
        }
        let directory = TempDir::with_prefix("bench-tls-")?;
        let port = free_port().map_err(io::Error::other)?;
        let (lines, client) = tls::prepare(directory.path(), port)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target { address, tls: Some(client) };
        Ok(Self { tls: Some(target), _certificates: Some(directory), ..Self::with(kind, options.conf(&lines))? })
    }

    fn with(kind: Kind, options: Options) -> io::Result<Self> {
        match kind {
            Kind::RabbitMq => RabbitMq::start_with(options).map(|broker| Self::of(Box::new(broker))),
            _ => Brokerd::start(options).map(|broker| Self::of(Box::new(broker))),
        }
        .map_err(io::Error::other)
    }

    /// Ends the broker, starts it again with the data it had, and returns how long the start took until it spoke AMQP.
    ///
    /// # Errors
    /// When it does not stop or does not come back, and for the null broker, which has nothing to come back with.
    pub fn restart(&mut self, ending: Ending) -> io::Result<Duration> {
        let Process::Harness(broker) = &mut self.process else {
            return Err(io::Error::other("the null broker cannot start again"));
        };
        match ending {
            Ending::Terminated => broker.terminate(),
            Ending::Killed => broker.kill_9(),
        }
        .map_err(io::Error::other)?;
        let started = Instant::now();
        broker.restart().map_err(io::Error::other)?;
        self.pid = broker.pid();
        Ok(started.elapsed())
    }

    /// How to run an administrator's commands against it.
    ///
    /// # Errors
    /// For the null broker, which understands none.
    pub fn control(&self) -> io::Result<Control> {
        match &self.process {
            Process::Harness(broker) => Ok(broker.control()),
            Process::Null { .. } => Err(io::Error::other("the null broker has no administrator")),
        }
    }

    /// What the broker printed last, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        match &self.process {
            Process::Harness(broker) => broker.log_tail(),
            Process::Null { .. } => String::new(),
        }
    }

    fn of(broker: Box<dyn Broker>) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, broker.amqp_port()));
        Self { address, tls: None, pid: broker.pid(), process: Process::Harness(broker), _certificates: None }
    }

    fn null(fsync: bool) -> io::Result<Self> {
        let directory = TempDir::with_prefix("bench-null-")?;
        // setpriv replaces itself by the program and lets the kernel end it with this process.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(null_program()?);
        if fsync {
            command.arg("--fsync").arg(directory.path().join("log"));
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no output of bench-null"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port: u16 = line.trim().parse().map_err(|_| io::Error::other("bench-null did not start"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (pid, process) = (child.id(), Process::Null { child, _directory: directory });
        Ok(Self { address, tls: None, pid, process, _certificates: None })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Null { child, .. } = self {
            // It holds nothing; when it is gone already, that is what was wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The bench-null that was built beside this program.
fn null_program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("bench-null");
    if program.is_file() {
        return Ok(program);
    }
    let what = format!("{} is missing: run `cargo build --release -p bench`, or ./dev bench", program.display());
    Err(io::Error::other(what))
}
