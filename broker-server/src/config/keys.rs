//! The table of this broker's keys: name, meaning, bounds, how a value is read and how it is shown.
//!
//! Keys without `broker.` or `cluster.` in front are RabbitMQ's and mean what they mean there. The table is the source
//! of docs/operating/configuration.md: a test compares the two.

mod admin;
mod cluster;
mod tls;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::document::escaped_segment;
use super::value;
use super::{Config, ConsoleStream, DiskFreeLimit, Listener, LogFormat, LogLevel, LogOutput, MemoryWatermark, Secret};

/// One key.
pub struct Key {
    /// Its name; `$name` stands for a segment the operator chooses.
    pub name: &'static str,
    /// What it sets, in a sentence.
    pub meaning: &'static str,
    /// What the value is, and in which unit.
    pub unit: &'static str,
    /// Its default in words of the file, or in words of its own if it depends on something.
    pub default: &'static str,
    /// What is allowed.
    pub bounds: &'static str,
    /// Whether the value must not be shown.
    pub secret: bool,
    /// Why the key has no effect in this version, if so: the value is checked, and setting it warns.
    pub pending: Option<&'static str>,
    pub(super) apply: fn(&mut Draft, &Given<'_>) -> Result<(), String>,
    pub(super) show: fn(&Config) -> Vec<Shown>,
}

/// A key and its value as a line of the file would say it.
pub type Shown = (String, String);

/// A setting on its way into the draft.
pub(super) struct Given<'a> {
    /// The key's segments.
    pub segments: &'a [String],
    /// The interpolated value.
    pub value: &'a str,
}

impl Given<'_> {
    /// The last segment: the name in `listeners.tcp.NAME`.
    fn name(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }
}

/// A configuration being built, with what must be seen whole before it means something.
#[derive(Default)]
pub(super) struct Draft {
    config: Config,
    listeners: Vec<Listener>,
    listeners_off: bool,
    tls: tls::TlsDraft,
    admin: admin::AdminDraft,
    cluster: cluster::ClusterDraft,
    mechanisms: Vec<(u64, String)>,
    mechanisms_left_out: bool,
    tags: Option<Vec<String>>,
    loopback_users: Option<Vec<String>>,
    loopback_users_none: bool,
    memory_absolute: Option<u64>,
    disk_absolute: Option<u64>,
    linger_on: Option<bool>,
    linger_timeout: Duration,
    log_console: Option<bool>,
    log_console_output: Option<LogOutput>,
    log_dir: Option<PathBuf>,
    log_file: Option<String>,
    log_file_output: Option<LogOutput>,
    /// Something odd that the key applied last noticed.
    pub warning: Option<&'static str>,
}

/// The value that lifts a limit.
const INFINITY: &str = "infinity";
/// Name of the log file where only its being wanted is known.
const DEFAULT_LOG_FILE: &str = "brokerd.log";
/// `log.file = false`.
const NO_LOG_FILE: &str = "false";
/// Most shards a node may have.
const MAX_SHARDS: u64 = 256;
/// SASL mechanisms of RabbitMQ's plugins.
const OTHER_MECHANISMS: &[&str] = &["RABBIT-CR-DEMO", "ANONYMOUS"];
/// RabbitMQ's own bound of `max_message_size`.
const MAX_MESSAGE_SIZE: u64 = 536_870_912;
const MAX_SECONDS: Duration = Duration::from_secs(10 * 365 * 86_400);
const MILLISECOND: Duration = Duration::from_millis(1);
const ANY_SIZE: RangeInclusive<u64> = 0..=(1 << 60);
const LEVELS: &[(&str, LogLevel)] = &[
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warning", LogLevel::Warning),
    ("error", LogLevel::Error),
    ("none", LogLevel::None),
    ("notice", LogLevel::Warning),
    ("critical", LogLevel::Error),
    ("alert", LogLevel::Error),
    ("emergency", LogLevel::Error),
];
const DEFINITIONS_BACKENDS: &[(&str, ())] = &[("local_filesystem", ())];
const FORMATS: &[(&str, LogFormat)] =
    &[("plaintext", LogFormat::Text), ("text", LogFormat::Text), ("json", LogFormat::Json)];

impl Draft {
    /// Starts from the defaults of the node called `node_name`.
    pub fn new(node_name: String) -> Self {
        let mut draft = Self::default();
        draft.config.node.name = node_name;
        draft
    }

    /// The finished configuration, or what does not fit together: the key to blame and the complaint. What is odd about
    /// settings together goes to `warnings` in the same form.
    pub fn finish(mut self, warnings: &mut Vec<(&'static str, String)>) -> Result<Config, (&'static str, String)> {
        self.finish_listeners()?;
        self.finish_access()?;
        let cluster = std::mem::take(&mut self.cluster);
        self.config.cluster = cluster.finish(&self.config.node.name, &self.config.listeners, warnings)?;
        let admin = std::mem::take(&mut self.admin);
        self.config.admin = admin.finish(&self.config.tls, &self.config.listeners, warnings)?;
        self.finish_log();
        if let Some(bytes) = self.memory_absolute {
            self.config.alarm.memory_watermark = MemoryWatermark::Absolute(bytes);
        }
        if let Some(bytes) = self.disk_absolute {
            self.config.alarm.disk_free_limit = DiskFreeLimit::Absolute(bytes);
        }
        if let Some(on) = self.linger_on {
            self.config.socket.linger = on.then_some(self.linger_timeout);
        }
        Ok(self.config)
    }

    fn finish_listeners(&mut self) -> Result<(), (&'static str, String)> {
        if self.listeners_off {
            self.config.listeners = Vec::new();
        } else if !self.listeners.is_empty() {
            self.config.listeners = std::mem::take(&mut self.listeners);
        }
        let (tls, mut listeners) = std::mem::take(&mut self.tls).finish()?;
        self.config.tls = tls;
        self.config.listeners.append(&mut listeners);
        let all = &self.config.listeners;
        for (index, one) in all.iter().enumerate() {
            let twin = all.iter().skip(index + 1).find(|other| {
                other.port == one.port
                    && one.port != 0
                    && (other.ip == one.ip || other.ip.is_none() || one.ip.is_none())
            });
            if let Some(other) = twin {
                let text = format!("{} and {} both take port {}", one.key(), other.key(), one.port);
                return Err(("listeners.", text));
            }
        }
        Ok(())
    }

    fn finish_access(&mut self) -> Result<(), (&'static str, String)> {
        if self.mechanisms_left_out && self.mechanisms.is_empty() {
            return Err(("auth_mechanisms", "none of these SASL mechanisms exists in this version".into()));
        }
        self.mechanisms.sort_by_key(|(place, _)| *place);
        if !self.mechanisms.is_empty() {
            let names = self.mechanisms.drain(..).map(|(_, name)| name);
            self.config.authentication.mechanisms = names.collect();
        }
        if let Some(tags) = self.tags.take() {
            self.config.bootstrap.tags = tags;
        }
        if self.loopback_users_none {
            self.config.authentication.loopback_users = Vec::new();
        } else if let Some(users) = self.loopback_users.take() {
            self.config.authentication.loopback_users = users;
        }
        Ok(())
    }

    /// As in RabbitMQ, a node told to keep off the console and nothing about a file logs to the default file.
    fn finish_log(&mut self) {
        let console = self.log_console.unwrap_or(true);
        let output = self.log_console_output.unwrap_or(super::DEFAULT_LOG_OUTPUT);
        self.config.log.console = console.then_some(output);
        let default_file = (!console || self.log_dir.is_some()).then(|| DEFAULT_LOG_FILE.to_string());
        let name = self.log_file.take().or(default_file).filter(|name| name != NO_LOG_FILE);
        let directory = self.log_dir.take().unwrap_or_else(|| self.config.node.data_dir.join("log"));
        let output = self.log_file_output.unwrap_or(super::DEFAULT_LOG_OUTPUT);
        self.config.log.file = name.map(|name| (directory.join(name), output));
    }

    fn console_output(&mut self) -> &mut LogOutput {
        self.log_console_output.get_or_insert(super::DEFAULT_LOG_OUTPUT)
    }

    fn file_output(&mut self) -> &mut LogOutput {
        self.log_file_output.get_or_insert(super::DEFAULT_LOG_OUTPUT)
    }
}

/// A key with the fields every key has; the rest is set with struct update.
const fn key(
    name: &'static str,
    apply: fn(&mut Draft, &Given<'_>) -> Result<(), String>,
    show: fn(&Config) -> Vec<Shown>,
) -> Key {
    Key { name, meaning: "", unit: "", default: "", bounds: "", secret: false, pending: None, apply, show }
}

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key {
        meaning: "Name of this node, `name@host`. Environment: `RABBITMQ_NODENAME`.",
        unit: "text",
        default: "`rabbit@` and the short host name",
        bounds: "1 to 255 bytes with one `@`, no control characters",
        ..key(
            "broker.node_name",
            |draft, given| node_name(given.value).map(|name| draft.config.node.name = name),
            |config| one("broker.node_name", &config.node.name),
        )
    },
    Key {
        meaning: "Directory of all data of the node. Flag: `--data-dir`; environment: `RABBITMQ_MNESIA_DIR`.",
        unit: "path",
        default: "data",
        bounds: "not empty",
        ..key(
            "broker.data_dir",
            |draft, given| not_empty(given.value).map(|path| draft.config.node.data_dir = path.into()),
            |config| one("broker.data_dir", config.node.data_dir.display()),
        )
    },
    Key {
        meaning: "Threads that serve connections and queues.",
        unit: "count",
        default: "cores less one, at least 1",
        bounds: "1 to 256",
        pending: Some("this version runs one shard"),
        ..key(
            "broker.shards",
            |draft, given| {
                let count = value::integer(given.value, &(1..=MAX_SHARDS), "shards")?;
                draft.config.node.shards = usize::try_from(count).ok();
                Ok(())
            },
            |config| config.node.shards.map_or(Vec::new(), |count| one("broker.shards", count)),
        )
    },
    Key {
        meaning: "`none` turns all AMQP listeners off.",
        unit: "`none`",
        default: "",
        bounds: "`none`",
        ..key(
            "listeners.tcp",
            |draft, given| {
                value::choice(given.value, &[("none", ())])?;
                draft.listeners_off = true;
                Ok(())
            },
            |config| {
                let plain = config.listeners.iter().any(|listener| !listener.tls);
                if plain { Vec::new() } else { one("listeners.tcp", "none") }
            },
        )
    },
    Key {
        meaning: "An address AMQP clients may connect to: a port on all interfaces, or `IP:PORT`. Setting any name \
                  replaces the default. Environment: `RABBITMQ_NODE_PORT`, `RABBITMQ_NODE_IP_ADDRESS`.",
        unit: "port or address",
        default: "5672",
        bounds: "port 0 to 65535; 0 takes a free one",
        ..key(
            "listeners.tcp.$name",
            |draft, given| {
                let (ip, port) = value::listen_address(given.value)?;
                draft.listeners.push(Listener { name: given.name().into(), ip, port, tls: false });
                Ok(())
            },
            |config| config.listeners.iter().filter(|listener| !listener.tls).map(show_listener).collect(),
        )
    },
    tls::LISTENERS,
    tls::LISTENER,
    tls::NO_OPTIONS,
    tls::CERTIFICATE,
    tls::KEY,
    tls::PASSWORD,
    tls::AUTHORITIES,
    tls::VERIFY,
    tls::REQUIRE,
    tls::DEPTH,
    tls::VERSION,
    tls::CIPHER,
    tls::CIPHER_ORDER,
    tls::CURVE_ORDER,
    tls::CLIENT_RENEGOTIATION,
    tls::SECURE_RENEGOTIATION,
    tls::REUSE_SESSIONS,
    tls::REVOCATION,
    tls::HANDSHAKE_TIMEOUT,
    tls::LOGIN_FROM,
    tls::ALTERNATIVE_KIND,
    tls::ALTERNATIVE_INDEX,
    Key {
        meaning: "`none` leaves the socket options as they are.",
        unit: "`none`",
        default: "",
        bounds: "`none`",
        ..key("tcp_listen_options", |_, given| value::choice(given.value, &[("none", ())]), |_| Vec::new())
    },
    Key {
        meaning: "Connections that may wait in the kernel to be accepted.",
        unit: "count",
        default: "128",
        bounds: "1 to 65535",
        ..key(
            "tcp_listen_options.backlog",
            |draft, given| bounded(given, 1..=65_535, "").map(|count| draft.config.socket.backlog = count),
            |config| one("tcp_listen_options.backlog", config.socket.backlog),
        )
    },
    Key {
        meaning: "Send small segments at once (`TCP_NODELAY`).",
        unit: "boolean",
        default: "true",
        bounds: "true, false",
        ..key(
            "tcp_listen_options.nodelay",
            |draft, given| value::boolean(given.value).map(|on| draft.config.socket.nodelay = on),
            |config| one("tcp_listen_options.nodelay", config.socket.nodelay),
        )
    },
    Key {
        meaning: "Probe idle connections (`SO_KEEPALIVE`).",
        unit: "boolean",
        default: "false",
        bounds: "true, false",
        ..key(
            "tcp_listen_options.keepalive",
            |draft, given| value::boolean(given.value).map(|on| draft.config.socket.keepalive = on),
            |config| one("tcp_listen_options.keepalive", config.socket.keepalive),
        )
    },
    Key {
        meaning: "Send buffer of a connection (`SO_SNDBUF`).",
        unit: "bytes",
        default: "the operating system's",
        bounds: "1024 to 1073741824",
        ..key(
            "tcp_listen_options.sndbuf",
            |draft, given| {
                let bytes = bounded(given, 1_024..=1 << 30, "bytes")?;
                draft.config.socket.send_buffer_bytes = Some(bytes);
                Ok(())
            },
            |config| optional("tcp_listen_options.sndbuf", config.socket.send_buffer_bytes),
        )
    },
    Key {
        meaning: "Receive buffer of a connection (`SO_RCVBUF`).",
        unit: "bytes",
        default: "the operating system's",
        bounds: "1024 to 1073741824",
        ..key(
            "tcp_listen_options.recbuf",
            |draft, given| {
                let bytes = bounded(given, 1_024..=1 << 30, "bytes")?;
                draft.config.socket.receive_buffer_bytes = Some(bytes);
                Ok(())
            },
            |config| optional("tcp_listen_options.recbuf", config.socket.receive_buffer_bytes),
        )
    },
    Key {
        meaning: "Whether closing a connection waits for unsent data for the time below (`SO_LINGER`). RabbitMQ's default \
                  is true, with 0.",
        unit: "boolean",
        default: "false",
        bounds: "true, false",
        ..key(
            "tcp_listen_options.linger.on",
            |draft, given| value::boolean(given.value).map(|on| draft.linger_on = Some(on)),
            |config| one("tcp_listen_options.linger.on", config.socket.linger.is_some()),
        )
    },
    Key {
        meaning: "That time; 0 drops unsent data and resets. Means nothing while lingering is off.",
        unit: "seconds",
        default: "0",
        bounds: "0 to 65535",
        ..key(
            "tcp_listen_options.linger.timeout",
            |draft, given| {
                draft.linger_timeout = Duration::from_secs(bounded(given, 0..=65_535, "seconds")?);
                Ok(())
            },
            |config| optional("tcp_listen_options.linger.timeout", config.socket.linger.map(|time| time.as_secs())),
        )
    },
    Key {
        meaning: "Heartbeat proposed to clients; 0 proposes none.",
        unit: "seconds",
        default: "60",
        bounds: "0 to 65535",
        ..key(
            "heartbeat",
            |draft, given| bounded(given, 0..=65_535, "seconds").map(|time| draft.config.limits.heartbeat_s = time),
            |config| one("heartbeat", config.limits.heartbeat_s),
        )
    },
    Key {
        meaning: "Largest frame proposed to clients; 0 means no limit.",
        unit: "bytes (`128KB` = 131072)",
        default: "131072",
        bounds: "0, or 4096 to 2147483647",
        ..key(
            "frame_max",
            |draft, given| {
                let range = if given.value == "0" { 0..=0 } else { 4_096..=0x7fff_ffff };
                draft.config.limits.frame_max_bytes = narrow(value::byte_size(given.value, &range)?);
                Ok(())
            },
            |config| one("frame_max", config.limits.frame_max_bytes),
        )
    },
    Key {
        meaning: "Largest frame accepted before the limits are negotiated. A login, with the password or token in it, \
                  must fit; what a connection may take up before it has logged in grows by three times as much.",
        unit: "bytes (`8KB` = 8192)",
        default: "4096",
        bounds: "4096 to 65536",
        ..key(
            "initial_frame_max",
            |draft, given| {
                draft.config.limits.initial_frame_max_bytes = narrow(value::byte_size(given.value, &(4_096..=65_536))?);
                Ok(())
            },
            |config| one("initial_frame_max", config.limits.initial_frame_max_bytes),
        )
    },
    Key {
        meaning: "Channels a connection may open; 0 means 65535.",
        unit: "count",
        default: "2047",
        bounds: "0 to 65535",
        ..key(
            "channel_max",
            |draft, given| bounded(given, 0..=65_535, "channels").map(|count| draft.config.limits.channel_max = count),
            |config| one("channel_max", config.limits.channel_max),
        )
    },
    Key {
        meaning: "Consumers a channel may have. One more closes the connection with 530 NOT_ALLOWED.",
        unit: "count",
        default: "65536",
        bounds: "1 to 65536",
        ..key(
            "consumer_max_per_channel",
            |draft, given| {
                draft.config.limits.consumer_max_per_channel = bounded(given, 1..=65_536, "consumers")?;
                Ok(())
            },
            |config| one("consumer_max_per_channel", config.limits.consumer_max_per_channel),
        )
    },
    Key {
        meaning: "Client connections of this node.",
        unit: "count",
        default: "infinity",
        bounds: "1 to 4294967295, or infinity",
        ..key(
            "connection_max",
            |draft, given| {
                draft.config.limits.connection_max =
                    bounded_or_infinity(given, 1..=u64::from(u32::MAX), "connections")?;
                Ok(())
            },
            |config| one_or_infinity("connection_max", config.limits.connection_max),
        )
    },
    Key {
        meaning: "Channels of this node, over all its connections. One more closes its connection with 530 NOT_ALLOWED. \
                  RabbitMQ's since 4.0.",
        unit: "count",
        default: "infinity",
        bounds: "1 to 4294967295, or infinity",
        ..key(
            "channel_max_per_node",
            |draft, given| {
                draft.config.limits.channel_max_per_node =
                    bounded_or_infinity(given, 1..=u64::from(u32::MAX), "channels")?;
                Ok(())
            },
            |config| one_or_infinity("channel_max_per_node", config.limits.channel_max_per_node),
        )
    },
    Key {
        meaning: "Vhosts there may be. To create one more is refused, by an import of definitions too. RabbitMQ's since 3.13.",
        unit: "count",
        default: "infinity",
        bounds: "1 to 4294967295, or infinity",
        ..key(
            "vhost_max",
            |draft, given| {
                draft.config.limits.vhost_max = bounded_or_infinity(given, 1..=u64::from(u32::MAX), "vhosts")?;
                Ok(())
            },
            |config| one_or_infinity("vhost_max", config.limits.vhost_max),
        )
    },
    Key {
        meaning: "Bindings a queue may have. One more closes the channel with 406 PRECONDITION_FAILED. An import of \
                  definitions is not held to it.",
        unit: "count",
        default: "50000",
        bounds: "1 to 4294967295, or infinity",
        ..key(
            "broker.bindings_max_per_queue",
            |draft, given| {
                draft.config.limits.bindings_max_per_queue =
                    bounded_or_infinity(given, 1..=u64::from(u32::MAX), "bindings")?;
                Ok(())
            },
            |config| one_or_infinity("broker.bindings_max_per_queue", config.limits.bindings_max_per_queue),
        )
    },
    Key {
        meaning: "What the deliveries of a channel may take that are not acknowledged; each counts for 1 KiB at least and 64 MiB \
                  at most. With more, the channel is closed with 406 PRECONDITION_FAILED and they go back to their queues. \
                  They take disk rather than memory; RabbitMQ has no such limit.",
        unit: "bytes (`2GB` = 2000000000)",
        default: "infinity",
        bounds: "1048576 to 2^60, or infinity",
        ..key(
            "broker.unacked_bytes_max_per_channel",
            |draft, given| {
                let bytes =
                    (given.value != INFINITY).then(|| value::information_unit(given.value, &(1 << 20..=1 << 60)));
                draft.config.limits.unacked_bytes_max_per_channel = bytes.transpose()?;
                Ok(())
            },
            |config| {
                let bytes = config.limits.unacked_bytes_max_per_channel;
                one("broker.unacked_bytes_max_per_channel", bytes.map_or(INFINITY.into(), |bytes| bytes.to_string()))
            },
        )
    },
    Key {
        meaning: "Connections that have not logged in yet, of this node. With so many, new ones wait in the kernel.",
        unit: "count",
        default: "1024",
        bounds: "1 to 1048576",
        ..key(
            "broker.unauthenticated_max",
            |draft, given| {
                let count = bounded(given, 1..=1 << 20, "connections")?;
                draft.config.limits.unauthenticated_max = count;
                Ok(())
            },
            |config| one("broker.unauthenticated_max", config.limits.unauthenticated_max),
        )
    },
    Key {
        meaning: "Of these, those of one address (IPv6: of one /64 network) that are listened to. Further ones wait for \
                  their turn while the node has room, else they are closed with a line in the log.",
        unit: "count",
        default: "128",
        bounds: "1 to 1048576",
        ..key(
            "broker.unauthenticated_max_per_address",
            |draft, given| {
                let count = bounded(given, 1..=1 << 20, "connections")?;
                draft.config.limits.unauthenticated_max_per_address = count;
                Ok(())
            },
            |config| one("broker.unauthenticated_max_per_address", config.limits.unauthenticated_max_per_address),
        )
    },
    Key {
        meaning: "Refused logins within a minute, from one address (IPv6: one /64 network) or for one user, that cost \
                  nothing. After more of them, the next password is checked only after a while: half a second, twice as \
                  long after each further refusal, 4 seconds at most.",
        unit: "count",
        default: "5",
        bounds: "1 to 1000, or infinity",
        ..key(
            "broker.login_failures_max",
            |draft, given| {
                draft.config.authentication.login_failures_max = bounded_or_infinity(given, 1..=1_000, "logins")?;
                Ok(())
            },
            |config| one_or_infinity("broker.login_failures_max", config.authentication.login_failures_max),
        )
    },
    Key {
        meaning: "Largest message body a client may publish.",
        unit: "bytes",
        default: "134217728",
        bounds: "1 to 536870912",
        ..key(
            "max_message_size",
            |draft, given| {
                let bytes = value::information_unit(given.value, &(1..=MAX_MESSAGE_SIZE))?;
                draft.config.limits.max_message_size_bytes = bytes;
                Ok(())
            },
            |config| one("max_message_size", config.limits.max_message_size_bytes),
        )
    },
    Key {
        meaning: "Time a connection has to be opened, counted from when the broker begins to listen to it. With \
                  infinity, silent connections keep their share of `broker.unauthenticated_max` until they go.",
        unit: "milliseconds",
        default: "10000",
        bounds: "100 to 600000, or infinity",
        ..key(
            "handshake_timeout",
            |draft, given| {
                let range = Duration::from_millis(100)..=Duration::from_secs(600);
                let finite = given.value != INFINITY;
                draft.config.limits.handshake_timeout =
                    finite.then(|| value::duration(given.value, MILLISECOND, &range)).transpose()?;
                Ok(())
            },
            |config| {
                let timeout = config.limits.handshake_timeout;
                one("handshake_timeout", timeout.map_or(INFINITY.into(), |time| time.as_millis().to_string()))
            },
        )
    },
    Key {
        meaning: "Time a consumer may hold a delivery without settling it; then its channel is closed.",
        unit: "milliseconds",
        default: "1800000",
        bounds: "1 to 315360000000",
        ..key(
            "consumer_timeout",
            |draft, given| {
                let time = value::duration(given.value, MILLISECOND, &(MILLISECOND..=MAX_SECONDS))?;
                draft.config.limits.consumer_timeout = time;
                Ok(())
            },
            |config| one("consumer_timeout", config.limits.consumer_timeout.as_millis()),
        )
    },
    Key {
        meaning: "How often deliveries held longer than `consumer_timeout` are looked for: a channel may be closed so \
                  much later. RabbitMQ's `rabbit.channel_tick_interval` of advanced.config.",
        unit: "milliseconds",
        default: "60000",
        bounds: "100 to 3600000",
        ..key(
            "broker.channel_tick_interval",
            |draft, given| {
                let range = Duration::from_millis(100)..=Duration::from_secs(3_600);
                draft.config.limits.channel_tick_interval = value::duration(given.value, MILLISECOND, &range)?;
                Ok(())
            },
            |config| one("broker.channel_tick_interval", config.limits.channel_tick_interval.as_millis()),
        )
    },
    Key {
        meaning: "Share of the memory there is above which publishers are blocked; 0 blocks them at once.",
        unit: "fraction",
        default: "0.4",
        bounds: "0.0 to 1.0",
        ..key(
            "vm_memory_high_watermark.relative",
            |draft, given| {
                let share = value::fraction(given.value, &(0.0..=1.0))?;
                draft.config.alarm.memory_watermark = MemoryWatermark::Relative(share);
                Ok(())
            },
            |config| match config.alarm.memory_watermark {
                MemoryWatermark::Relative(share) => one("vm_memory_high_watermark.relative", share),
                MemoryWatermark::Absolute(_) => Vec::new(),
            },
        )
    },
    Key {
        meaning: "The same in bytes; wins over the share.",
        unit: "bytes (`2GB` = 2000000000)",
        default: "",
        bounds: "0 to 2^60",
        ..key(
            "vm_memory_high_watermark.absolute",
            |draft, given| {
                value::information_unit(given.value, &ANY_SIZE).map(|bytes| draft.memory_absolute = Some(bytes))
            },
            |config| match config.alarm.memory_watermark {
                MemoryWatermark::Absolute(bytes) => one("vm_memory_high_watermark.absolute", bytes),
                MemoryWatermark::Relative(_) => Vec::new(),
            },
        )
    },
    Key {
        meaning: "Memory there is, where the operating system and its control groups say something else.",
        unit: "bytes (`2GB` = 2000000000)",
        default: "what the system says",
        bounds: "1048576 to 2^60",
        ..key(
            "total_memory_available_override_value",
            |draft, given| {
                let bytes = value::information_unit(given.value, &(1 << 20..=1 << 60))?;
                draft.config.alarm.total_memory_bytes = Some(bytes);
                Ok(())
            },
            |config| optional("total_memory_available_override_value", config.alarm.total_memory_bytes),
        )
    },
    Key {
        meaning: "Free space of the data directory's disk below which publishers are blocked.",
        unit: "bytes (`2GB` = 2000000000)",
        default: "50000000",
        bounds: "0 to 2^60",
        ..key(
            "disk_free_limit.absolute",
            |draft, given| {
                value::information_unit(given.value, &ANY_SIZE).map(|bytes| draft.disk_absolute = Some(bytes))
            },
            |config| match config.alarm.disk_free_limit {
                DiskFreeLimit::Absolute(bytes) => one("disk_free_limit.absolute", bytes),
                DiskFreeLimit::RelativeToMemory(_) => Vec::new(),
            },
        )
    },
    Key {
        meaning: "The same as a multiple of the memory there is; the absolute limit wins.",
        unit: "factor",
        default: "",
        bounds: "0.0 to 1000.0",
        ..key(
            "disk_free_limit.relative",
            |draft, given| {
                let factor = value::fraction(given.value, &(0.0..=1_000.0))?;
                draft.config.alarm.disk_free_limit = DiskFreeLimit::RelativeToMemory(factor);
                Ok(())
            },
            |config| match config.alarm.disk_free_limit {
                DiskFreeLimit::RelativeToMemory(factor) => one("disk_free_limit.relative", factor),
                DiskFreeLimit::Absolute(_) => Vec::new(),
            },
        )
    },
    Key {
        meaning: "User the first boot creates. Environment: `RABBITMQ_DEFAULT_USER`, also with `_FILE`.",
        unit: "text",
        default: "guest",
        bounds: "1 to 255 bytes",
        ..key(
            "default_user",
            |draft, given| short(given.value).map(|name| draft.config.bootstrap.user = name),
            |config| one("default_user", &config.bootstrap.user),
        )
    },
    Key {
        meaning: "Their password. Environment: `RABBITMQ_DEFAULT_PASS`, also with `_FILE`.",
        unit: "text",
        default: "guest",
        bounds: "not empty",
        secret: true,
        ..key(
            "default_pass",
            |draft, given| not_empty(given.value).map(|text| draft.config.bootstrap.password = Secret::new(text)),
            |config| one("default_pass", &config.bootstrap.password),
        )
    },
    Key {
        meaning: "A tag of theirs. Setting any replaces `administrator`.",
        unit: "boolean",
        default: "administrator = true",
        bounds: "true, false",
        ..key(
            "default_user_tags.$tag",
            |draft, given| add_name(&mut draft.tags, given),
            |config| match &*config.bootstrap.tags {
                // Said, for without a word it would be the default.
                [] => one("default_user_tags.administrator", false),
                tags => names("default_user_tags", tags),
            },
        )
    },
    Key {
        meaning: "Vhost the first boot creates. Environment: `RABBITMQ_DEFAULT_VHOST`, also with `_FILE`.",
        unit: "text",
        default: "/",
        bounds: "1 to 255 bytes",
        ..key(
            "default_vhost",
            |draft, given| short(given.value).map(|name| draft.config.bootstrap.vhost = name),
            |config| one("default_vhost", &config.bootstrap.vhost),
        )
    },
    Key {
        meaning: "Names the first user may declare and delete in that vhost.",
        unit: "regular expression",
        default: ".*",
        bounds: "",
        ..key(
            "default_permissions.configure",
            |draft, given| keep(&mut draft.config.bootstrap.configure, given),
            |config| one("default_permissions.configure", &config.bootstrap.configure),
        )
    },
    Key {
        meaning: "Names they may publish and bind to.",
        unit: "regular expression",
        default: ".*",
        bounds: "",
        ..key(
            "default_permissions.write",
            |draft, given| keep(&mut draft.config.bootstrap.write, given),
            |config| one("default_permissions.write", &config.bootstrap.write),
        )
    },
    Key {
        meaning: "Names they may consume and bind from.",
        unit: "regular expression",
        default: ".*",
        bounds: "",
        ..key(
            "default_permissions.read",
            |draft, given| keep(&mut draft.config.bootstrap.read, given),
            |config| one("default_permissions.read", &config.bootstrap.read),
        )
    },
    Key {
        meaning: "`none` lets every user connect from anywhere.",
        unit: "`none`",
        default: "",
        bounds: "`none`",
        ..key(
            "loopback_users",
            |draft, given| {
                value::choice(given.value, &[("none", ())])?;
                draft.loopback_users_none = true;
                Ok(())
            },
            |config| {
                if config.authentication.loopback_users.is_empty() { one("loopback_users", "none") } else { vec![] }
            },
        )
    },
    Key {
        meaning: "A user who may connect from this machine only. Setting any replaces `guest`; `guest = false` opens it.",
        unit: "boolean",
        default: "guest = true",
        bounds: "true, false",
        ..key(
            "loopback_users.$user",
            |draft, given| add_name(&mut draft.loopback_users, given),
            |config| names("loopback_users", &config.authentication.loopback_users),
        )
    },
    Key {
        meaning: "SASL mechanisms offered, `$name` being the place in the list.",
        unit: "name",
        default: "PLAIN, AMQPLAIN",
        bounds: "PLAIN, AMQPLAIN, EXTERNAL (with TLS only: the user of the client's certificate); others of RabbitMQ are \
                 left out with a warning",
        ..key(
            "auth_mechanisms.$name",
            |draft, given| {
                let place = value::integer(given.name(), &(0..=1_000), "").map_err(|_| "has no number as its place")?;
                if OTHER_MECHANISMS.contains(&given.value) {
                    draft.mechanisms_left_out = true;
                    draft.warning = Some("is not offered: this version has PLAIN, AMQPLAIN and EXTERNAL");
                    return Ok(());
                }
                let choices = ["PLAIN", "AMQPLAIN", "EXTERNAL"].map(|name| (name, name));
                let name = value::choice(given.value, &choices)?;
                draft.mechanisms.push((place, name.into()));
                Ok(())
            },
            |config| {
                let mechanisms = config.authentication.mechanisms.iter().enumerate();
                mechanisms.map(|(index, name)| (format!("auth_mechanisms.{}", index + 1), name.clone())).collect()
            },
        )
    },
    cluster::NAME,
    cluster::SECRET_FILE,
    cluster::CERTIFICATE,
    cluster::PRIVATE_KEY,
    cluster::AUTHORITIES,
    cluster::LISTENER_IP,
    cluster::LISTENER_PORT,
    cluster::INTERFACE,
    cluster::FIRST_PORT,
    cluster::LAST_PORT,
    cluster::ADVERTISED,
    cluster::BACKEND,
    cluster::NODE,
    cluster::HOSTNAME,
    cluster::SIZE,
    cluster::RETRY_LIMIT,
    cluster::RETRY_INTERVAL,
    cluster::NODE_TYPE,
    cluster::PARTITION_HANDLING,
    cluster::PAUSE_NODE,
    cluster::RECOVER,
    cluster::LOCATOR,
    admin::LISTENER,
    admin::CERTIFICATE,
    admin::PRIVATE_KEY,
    admin::AUTHORITIES,
    admin::VERIFY,
    admin::REQUIRE,
    Key {
        meaning: "Whether to log to the console.",
        unit: "boolean",
        default: "true",
        bounds: "true, false",
        ..key(
            "log.console",
            |draft, given| value::boolean(given.value).map(|on| draft.log_console = Some(on)),
            |config| one("log.console", config.log.console.is_some()),
        )
    },
    Key {
        meaning: "Which stream the console is.",
        unit: "name",
        default: "stderr",
        bounds: "stdout, stderr",
        ..key(
            "log.console.stdio",
            |draft, given| {
                let streams = [("stdout", ConsoleStream::Stdout), ("stderr", ConsoleStream::Stderr)];
                value::choice(given.value, &streams).map(|stream| draft.config.log.console_stream = stream)
            },
            |config| {
                let stdout = config.log.console_stream == ConsoleStream::Stdout;
                one("log.console.stdio", if stdout { "stdout" } else { "stderr" })
            },
        )
    },
    Key {
        meaning: "Least severe level on the console. `notice` is as `warning`; `critical`, `alert` and `emergency` are \
                  as `error`. Read again at SIGHUP.",
        unit: "level",
        default: "info",
        bounds: "debug, info, notice, warning, error, critical, alert, emergency, none",
        ..key(
            "log.console.level",
            |draft, given| value::choice(given.value, LEVELS).map(|level| draft.console_output().level = level),
            |config| {
                config.log.console.iter().flat_map(|output| one("log.console.level", level_name(output))).collect()
            },
        )
    },
    Key {
        meaning: "Form of the lines on the console.",
        unit: "name",
        default: "plaintext",
        bounds: "plaintext (or text), json",
        ..key(
            "log.console.formatter",
            |draft, given| value::choice(given.value, FORMATS).map(|format| draft.console_output().format = format),
            |config| {
                config.log.console.iter().flat_map(|output| one("log.console.formatter", format_name(output))).collect()
            },
        )
    },
    Key {
        meaning: "Directory of the log file. Setting only this logs to `brokerd.log` in it. Environment: \
                  `RABBITMQ_LOG_BASE`.",
        unit: "path",
        default: "`log` in the data directory",
        bounds: "not empty",
        ..key(
            "log.dir",
            |draft, given| not_empty(given.value).map(|path| draft.log_dir = Some(path.into())),
            |config| {
                let directory = config.log.file.as_ref().and_then(|(path, _)| path.parent());
                optional("log.dir", directory.map(|directory| directory.display()))
            },
        )
    },
    Key {
        meaning: "Name or path of the log file; `false` for none. SIGHUP reopens it. Without the console the default is \
                  `brokerd.log`.",
        unit: "path",
        default: "false",
        bounds: "not empty",
        ..key(
            "log.file",
            |draft, given| not_empty(given.value).map(|name| draft.log_file = Some(name.into())),
            |config| {
                let name = config.log.file.as_ref().and_then(|(path, _)| path.file_name());
                one("log.file", name.map_or(NO_LOG_FILE.into(), |name| name.to_string_lossy()))
            },
        )
    },
    Key {
        meaning: "Least severe level in the log file. Read again at SIGHUP.",
        unit: "level",
        default: "info",
        bounds: "as log.console.level",
        ..key(
            "log.file.level",
            |draft, given| value::choice(given.value, LEVELS).map(|level| draft.file_output().level = level),
            |config| config.log.file.iter().flat_map(|(_, output)| one("log.file.level", level_name(output))).collect(),
        )
    },
    Key {
        meaning: "Form of the lines in the log file.",
        unit: "name",
        default: "plaintext",
        bounds: "plaintext (or text), json",
        ..key(
            "log.file.formatter",
            |draft, given| value::choice(given.value, FORMATS).map(|format| draft.file_output().format = format),
            |config| {
                let file = config.log.file.iter();
                file.flat_map(|(_, output)| one("log.file.formatter", format_name(output))).collect()
            },
        )
    },
    Key {
        meaning: "JSON file of definitions, or a directory of them, to import at boot and again at SIGHUP. A first boot then creates no default user and vhost.",
        unit: "path",
        default: "",
        bounds: "not empty",
        ..key(
            "load_definitions",
            |draft, given| not_empty(given.value).map(|path| draft.config.definitions.path = Some(path.into())),
            |config| config.definitions.path.iter().flat_map(|path| one("load_definitions", path.display())).collect(),
        )
    },
    Key {
        meaning: "Where definitions come from.",
        unit: "name",
        default: "local_filesystem",
        bounds: "local_filesystem",
        ..key(
            "definitions.import_backend",
            |_, given| value::choice(given.value, DEFINITIONS_BACKENDS),
            |_| one("definitions.import_backend", "local_filesystem"),
        )
    },
    Key {
        meaning: "The same as `load_definitions`.",
        unit: "path",
        default: "",
        bounds: "not empty",
        ..key(
            "definitions.local.path",
            |draft, given| not_empty(given.value).map(|path| draft.config.definitions.path = Some(path.into())),
            |_| Vec::new(),
        )
    },
    Key {
        meaning: "Whether definitions are passed over that are the same as those imported last, whatever was changed in the broker since.",
        unit: "boolean",
        default: "false",
        bounds: "true, false",
        ..key(
            "definitions.skip_if_unchanged",
            |draft, given| value::boolean(given.value).map(|skip| draft.config.definitions.skip_if_unchanged = skip),
            |config| one("definitions.skip_if_unchanged", config.definitions.skip_if_unchanged),
        )
    },
];

fn one(key: &str, value: impl ToString) -> Vec<Shown> {
    vec![(key.to_string(), value.to_string())]
}

fn optional(key: &str, value: Option<impl ToString>) -> Vec<Shown> {
    value.map_or(Vec::new(), |value| one(key, value))
}

fn one_or_infinity(key: &str, count: Option<u32>) -> Vec<Shown> {
    one(key, count.map_or(INFINITY.into(), |count| count.to_string()))
}

fn names(prefix: &str, names: &[String]) -> Vec<Shown> {
    names.iter().map(|name| (format!("{prefix}.{}", escaped_segment(name)), "true".to_string())).collect()
}

fn show_listener(listener: &Listener) -> Shown {
    let key = format!("listeners.{}.{}", listener.protocol(), escaped_segment(&listener.name));
    (key, listener.ip.map_or(listener.port.to_string(), |ip| format!("{ip}:{}", listener.port)))
}

/// The lines of a list, counted from 1.
fn numbered<T: ToString>(key: &str, values: impl Iterator<Item = T>) -> Vec<Shown> {
    values.enumerate().map(|(index, value)| (format!("{key}.{}", index + 1), value.to_string())).collect()
}

fn name_of<T: Copy + PartialEq>(value: T, names: &[(&'static str, T)]) -> &'static str {
    names.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
}

fn level_name(output: &LogOutput) -> &'static str {
    LEVELS.iter().find(|(_, level)| *level == output.level).map_or("", |(name, _)| name)
}

fn format_name(output: &LogOutput) -> &'static str {
    FORMATS.iter().find(|(_, format)| *format == output.format).map_or("", |(name, _)| name)
}

/// A whole number within a range that the wanted type holds.
fn bounded<T: TryFrom<u64>>(given: &Given<'_>, range: RangeInclusive<u64>, unit: &str) -> Result<T, String> {
    let value = value::integer(given.value, &range, unit)?;
    T::try_from(value).map_err(|_| "is out of range".into())
}

/// The same, or no limit.
fn bounded_or_infinity(given: &Given<'_>, range: RangeInclusive<u64>, unit: &str) -> Result<Option<u32>, String> {
    (given.value != INFINITY).then(|| bounded(given, range, unit)).transpose()
}

/// A size that is known to be below 2^32.
fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn not_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(text) }
}

/// A text that fits a short string of the protocol.
fn short(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty".into()),
        1..=255 => Ok(text.into()),
        length => Err(format!("is {length} bytes long; allowed: 1 to 255 bytes")),
    }
}

fn node_name(text: &str) -> Result<String, String> {
    let sides = text.split_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    sides.ok_or("is not of the form name@host")?;
    if text.chars().any(char::is_control) {
        // Other nodes would not take it: it ends up in logs and on terminals.
        return Err("has a control character".into());
    }
    short(text)
}

fn keep(place: &mut String, given: &Given<'_>) -> Result<(), String> {
    given.value.clone_into(place);
    Ok(())
}

fn add_name(names: &mut Option<Vec<String>>, given: &Given<'_>) -> Result<(), String> {
    let wanted = value::boolean(given.value)?;
    let names = names.get_or_insert_default();
    names.extend(wanted.then(|| given.name().to_string()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_key_is_described() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS.iter().skip(index + 1).all(|other| other.name != key.name), "{} twice", key.name);
            assert!(!key.meaning.is_empty() && !key.unit.is_empty(), "{}", key.name);
        }
    }

    /// A default that the table states as a plain value is the one the code has.
    #[test]
    fn the_defaults_of_the_table_are_those_of_the_code() {
        for key in KEYS {
            let shown = (key.show)(&Config::default());
            let [(name, value)] = shown.as_slice() else { continue };
            if name == key.name && !key.secret && key.name != "broker.node_name" {
                assert_eq!(value, key.default, "{name}");
            }
        }
    }
}
