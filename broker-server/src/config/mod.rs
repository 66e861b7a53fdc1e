//! The configuration of a node: RabbitMQ's `key = value` format and key names.
//!
//! Precedence, strongest first: command line flags, environment, `conf.d/*.conf` in the order of their names, the
//! configuration file, defaults. Within a file the later line wins. [`load`] reads all of it and gives a [`Config`],
//! or every error at once, each with file, line and what is allowed. A key of RabbitMQ that means nothing here is a
//! warning with the reason; any other unknown key is an error with the nearest name. The table of keys is in
//! [`keys`]; docs/operating/configuration.md is made from it.

pub mod admin;
mod advanced;
pub mod cluster;
pub mod document;
mod environment;
mod error;
mod files;
pub mod keys;
mod known;
mod load;
mod secret;
pub mod tls;
pub(crate) mod value;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use admin::AdminConfig;
pub use cluster::ClusterConfig;
pub use environment::Environment;
pub use error::{Complaint, ConfigErrors, Origin};
pub use load::{Loaded, load};
pub use secret::{REDACTED, Secret};
pub use tls::TlsConfig;

/// Everything an operator can set, checked and with its defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who this node is and where it keeps its data.
    pub node: NodeConfig,
    /// Where AMQP clients may connect; empty if the operator turned all listeners off.
    pub listeners: Vec<Listener>,
    /// TLS of those listeners that have it.
    pub tls: TlsConfig,
    /// Options of the listening and the accepted sockets.
    pub socket: SocketConfig,
    /// What is negotiated with or imposed on clients.
    pub limits: LimitConfig,
    /// When publishers are blocked for lack of memory or disk.
    pub alarm: AlarmConfig,
    /// What is created on the first boot.
    pub bootstrap: BootstrapConfig,
    /// How clients prove who they are.
    pub authentication: AuthenticationConfig,
    /// The cluster this node belongs to.
    pub cluster: ClusterConfig,
    /// The admin service beyond its socket.
    pub admin: AdminConfig,
    /// What is logged, and where to.
    pub log: LogConfig,
    /// Definitions to import at boot.
    pub definitions: DefinitionsConfig,
}

/// Definitions files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinitionsConfig {
    /// A JSON file or a directory of them.
    pub path: Option<PathBuf>,
    /// Whether files that are the same as those imported last are passed over.
    pub skip_if_unchanged: bool,
}

/// Identity and place of the node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Name of the node, `name@host`.
    pub name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Number of shards, or `None`: one less than there are cores, at least one.
    pub shards: Option<usize>,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name the operator gave it, `default` unless told otherwise.
    pub name: String,
    /// The address, or `None`: all interfaces, IPv6 and IPv4.
    pub ip: Option<IpAddr>,
    /// The port; 0 lets the operating system choose a free one.
    pub port: u16,
    /// Whether clients speak TLS there.
    pub tls: bool,
}

impl Listener {
    /// What stands for its protocol in the keys: `tcp` or `ssl`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.tls { "ssl" } else { "tcp" }
    }

    /// The key it was made with.
    #[must_use]
    pub fn key(&self) -> String {
        format!("listeners.{}.{}", self.protocol(), self.name)
    }
}

/// Socket options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Connections the kernel holds before we accept them.
    pub backlog: u32,
    /// `TCP_NODELAY` on accepted sockets.
    pub nodelay: bool,
    /// `SO_KEEPALIVE` on accepted sockets.
    pub keepalive: bool,
    /// `SO_SNDBUF` in bytes, or the operating system's choice.
    pub send_buffer_bytes: Option<u32>,
    /// `SO_RCVBUF` in bytes, or the operating system's choice.
    pub receive_buffer_bytes: Option<u32>,
    /// `SO_LINGER`: how long a close waits for unsent data; `None` leaves it to the kernel.
    pub linger: Option<Duration>,
}

/// Limits of connections and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitConfig {
    /// Heartbeat proposed to clients, in seconds; 0 proposes none.
    pub heartbeat_s: u16,
    /// Largest frame proposed to clients, in bytes; 0 means no limit.
    pub frame_max_bytes: u32,
    /// Largest frame before the limits are negotiated, in bytes.
    pub initial_frame_max_bytes: u32,
    /// Channels a connection; 0 means as many as the protocol can number.
    pub channel_max: u16,
    /// Consumers a channel.
    pub consumer_max_per_channel: u32,
    /// Connections of this node, or no limit.
    pub connection_max: Option<u32>,
    /// Channels of this node, over all its connections, or no limit.
    pub channel_max_per_node: Option<u32>,
    /// Vhosts, or no limit.
    pub vhost_max: Option<u32>,
    /// Bindings of a queue, or no limit.
    pub bindings_max_per_queue: Option<u32>,
    /// Bytes of deliveries a channel may hold without settling them, or no limit.
    pub unacked_bytes_max_per_channel: Option<u64>,
    /// Connections that have not logged in yet, of this node.
    pub unauthenticated_max: u32,
    /// Of these, those of one address that are listened to.
    pub unauthenticated_max_per_address: u32,
    /// Largest message body, in bytes.
    pub max_message_size_bytes: u64,
    /// Time from beginning to listen to a connection to `connection.open`, or no limit.
    pub handshake_timeout: Option<Duration>,
    /// Time a consumer may hold a delivery without settling it.
    pub consumer_timeout: Duration,
    /// How often deliveries that are held too long are looked for.
    pub channel_tick_interval: Duration,
}

/// When the alarms go off.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmConfig {
    /// Memory of this process above which publishers are blocked.
    pub memory_watermark: MemoryWatermark,
    /// Memory of the machine in bytes, if not as the operating system says.
    pub total_memory_bytes: Option<u64>,
    /// Free disk space below which publishers are blocked.
    pub disk_free_limit: DiskFreeLimit,
}

/// Memory that may be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryWatermark {
    /// A share of the memory there is, 0.0 to 1.0.
    Relative(f64),
    /// Bytes.
    Absolute(u64),
}

/// Disk space that must stay free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DiskFreeLimit {
    /// A multiple of the memory there is.
    RelativeToMemory(f64),
    /// Bytes.
    Absolute(u64),
}

/// What the first boot creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapConfig {
    /// Name of the first user.
    pub user: String,
    /// Their password.
    pub password: Secret,
    /// Tags of the first user.
    pub tags: Vec<String>,
    /// Name of the first vhost.
    pub vhost: String,
    /// Pattern of the names the first user may configure.
    pub configure: String,
    /// Pattern of the names the first user may write to.
    pub write: String,
    /// Pattern of the names the first user may read from.
    pub read: String,
}

/// SASL and where users may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationConfig {
    /// SASL mechanisms offered, in this order.
    pub mechanisms: Vec<String>,
    /// Users who may connect from this machine only.
    pub loopback_users: Vec<String>,
    /// Refused logins within a minute, from one address or for one user, after which further ones are delayed; or never.
    pub login_failures_max: Option<u32>,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The console, unless turned off.
    pub console: Option<LogOutput>,
    /// Which stream the console is.
    pub console_stream: ConsoleStream,
    /// The log file, if any: its path, already joined with `log.dir`.
    pub file: Option<(PathBuf, LogOutput)>,
}

/// Level and form of one log output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOutput {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// Form of the lines.
    pub format: LogFormat,
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Log levels. RabbitMQ's others fall on these: `notice` on `Warning`; `critical`, `alert`, `emergency` on `Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// State changes and worse.
    Info,
    /// Odd but we went on, and worse.
    Warning,
    /// A human must look.
    Error,
    /// Nothing.
    None,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `time [level] message key=value`.
    Text,
    /// One JSON object a line.
    Json,
}

/// Port of AMQP without TLS.
pub const DEFAULT_AMQP_PORT: u16 = 5672;
/// The data directory unless told otherwise, below the working directory.
pub const DEFAULT_DATA_DIR: &str = "data";
const DEFAULT_MAX_MESSAGE_SIZE_BYTES: u64 = 134_217_728;
const DEFAULT_DISK_FREE_LIMIT_BYTES: u64 = 50_000_000;
const DEFAULT_LOG_OUTPUT: LogOutput = LogOutput { level: LogLevel::Info, format: LogFormat::Text };

impl Default for Config {
    fn default() -> Self {
        let any = ".*".to_string();
        Self {
            node: NodeConfig { name: "rabbit@localhost".into(), data_dir: DEFAULT_DATA_DIR.into(), shards: None },
            listeners: vec![Listener { name: "default".into(), ip: None, port: DEFAULT_AMQP_PORT, tls: false }],
            tls: TlsConfig::default(),
            socket: SocketConfig {
                backlog: 128,
                nodelay: true,
                keepalive: false,
                send_buffer_bytes: None,
                receive_buffer_bytes: None,
                // RabbitMQ's default drops what is unsent; a last close or close-ok must reach the client.
                linger: None,
            },
            limits: LimitConfig {
                heartbeat_s: 60,
                frame_max_bytes: 131_072,
                initial_frame_max_bytes: 4_096,
                channel_max: 2_047,
                consumer_max_per_channel: 65_536,
                connection_max: None,
                channel_max_per_node: None,
                vhost_max: None,
                bindings_max_per_queue: Some(50_000),
                unacked_bytes_max_per_channel: None,
                unauthenticated_max: 1_024,
                unauthenticated_max_per_address: 128,
                max_message_size_bytes: DEFAULT_MAX_MESSAGE_SIZE_BYTES,
                handshake_timeout: Some(Duration::from_secs(10)),
                consumer_timeout: Duration::from_secs(1_800),
                channel_tick_interval: Duration::from_secs(60),
            },
            alarm: AlarmConfig {
                memory_watermark: MemoryWatermark::Relative(0.4),
                total_memory_bytes: None,
                disk_free_limit: DiskFreeLimit::Absolute(DEFAULT_DISK_FREE_LIMIT_BYTES),
            },
            bootstrap: BootstrapConfig {
                user: "guest".into(),
                password: Secret::new("guest"),
                tags: vec!["administrator".into()],
                vhost: "/".into(),
                configure: any.clone(),
                write: any.clone(),
                read: any,
            },
            authentication: AuthenticationConfig {
                mechanisms: vec!["PLAIN".into(), "AMQPLAIN".into()],
                loopback_users: vec!["guest".into()],
                login_failures_max: Some(5),
            },
            cluster: ClusterConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig { console: Some(DEFAULT_LOG_OUTPUT), console_stream: ConsoleStream::Stderr, file: None },
            definitions: DefinitionsConfig::default(),
        }
    }
}
