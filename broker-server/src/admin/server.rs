//! The admin service's thread: its socket, and what comes in from elsewhere.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::admin::v1::Listener;
use proto::admin::v1::admin_server::AdminServer;
use proto::admin::{MESSAGE_MAX_BYTES, SOCKET_NAME};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

use super::ShardHandle;
use super::front::Front;
use super::guard::Guard;
use super::health::{GoingDown, NodeHealth};
use super::remote::{RemoteDoor, RemoteStream, accept};
use super::service::Service;
use crate::alarm::{AlarmLimits, AlarmWatcher, total_memory_bytes};
use crate::cluster;
use crate::config::{AlarmConfig, Config};

/// Threads for what takes long or waits: hashing, JSON, imports.
const BLOCKING_THREADS: usize = 4;
/// Connections that the kernel holds.
const BACKLOG: i32 = 64;
/// Requests of one connection at the same time.
const STREAMS_MAX: u32 = 16;
/// A connection may be silent so long before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Octets of a request's headers from elsewhere: user and password are in them.
const HEADERS_MAX_BYTES: u32 = 8 * 1024;
/// Octets of a request that may come before they are read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all requests of a connection from elsewhere.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// After this time a connection from elsewhere takes no more requests; its client opens another one.
const CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
/// What is under way then has this time.
const CONNECTION_GRACE: Duration = Duration::from_secs(10 * 60);
/// When the node ends, answers that are on their way have this time.
const CLOSING: Duration = Duration::from_millis(500);

/// What the service knows of the node besides the shard's state.
pub struct Node {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    pub(super) started: Instant,
    /// Where it listens.
    pub(super) listeners: Vec<Listener>,
    pub(super) alarms: Arc<AlarmWatcher>,
    /// As they are now.
    pub(super) alarm_config: Mutex<AlarmConfig>,
    pub(super) total_memory_bytes: u64,
    /// None: it is alone.
    pub(super) cluster: Option<cluster::Handle>,
    pub(super) drained: AtomicBool,
    pub(super) going_down: GoingDown,
    /// Whether the process is to start again when it has stopped.
    pub(super) restart: Arc<AtomicBool>,
}

impl Node {
    /// Collects it.
    #[must_use]
    pub fn new(
        config: &Config,
        data_dir: &Path,
        started: Instant,
        listeners: Vec<Listener>,
        alarms: Arc<AlarmWatcher>,
    ) -> Self {
        Self {
            name: config.node.name.clone(),
            data_dir: data_dir.into(),
            started,
            listeners,
            alarms,
            alarm_config: Mutex::new(config.alarm.clone()),
            total_memory_bytes: total_memory_bytes().unwrap_or_default(),
            cluster: None,
            drained: AtomicBool::new(false),
            going_down: GoingDown::new(),
            restart: Arc::default(),
        }
    }

    /// It is a member of a cluster.
    #[must_use]
    pub fn of_cluster(self, cluster: Option<cluster::Handle>) -> Self {
        Self { cluster, ..self }
    }

    /// Where it is said that the node goes down.
    #[must_use]
    pub fn going_down(self, going_down: GoingDown) -> Self {
        Self { going_down, ..self }
    }

    /// Where it is said that the process is to start again.
    #[must_use]
    pub fn restarting(self, restart: Arc<AtomicBool>) -> Self {
        Self { restart, ..self }
    }

    /// The limits that a configuration means here.
    pub(super) fn limits_of(&self, config: &AlarmConfig) -> AlarmLimits {
        AlarmLimits::new(config, self.total_memory_bytes)
    }
}

/// The admin service while it runs.
pub struct Served {
    going_down: GoingDown,
    close: Arc<watch::Sender<bool>>,
    ended: Receiver<()>,
}

impl Served {
    /// Ends it: those who watch the node's health hear of it, and answers that are on their way arrive.
    pub fn close(self) {
        self.going_down.say();
        self.close.send_replace(true);
        // Its thread may not have started, or may have ended before.
        let _ = self.ended.recv_timeout(CLOSING);
    }
}

/// Serves the admin service on its socket in the data directory, and to users from elsewhere if there is a door for them. Where the socket is not
/// possible, the node does without it and says so.
pub fn serve(node: Node, shard: ShardHandle, remote: Option<RemoteDoor>) -> Served {
    let path = node.data_dir.join(SOCKET_NAME);
    let socket = bind(&path);
    match &socket {
        Ok(_) => tracing::info!(socket = %path.display(), "brokerctl may connect"),
        Err(error) => {
            tracing::error!(socket = %path.display(), %error, "cannot open the socket of the admin service; going on without it, brokerctl cannot connect");
        }
    }
    let close = Arc::new(watch::Sender::new(false));
    let (alive, ended) = channel();
    let going_down = node.going_down.clone();
    let service = Service::new(node, shard);
    let closing = close.clone();
    let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
        run(socket.ok(), remote, service, &closing);
        drop(alive);
    });
    if let Err(error) = thread {
        tracing::error!(%error, "cannot start the thread of the admin service; going on without it, brokerctl cannot connect");
    }
    Served { going_down, close, ended }
}

/// The data directory is locked by this process, so a socket that is there was left behind.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before it has a name: at no time may somebody else open it.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn run(socket: Option<UnixListener>, remote: Option<RemoteDoor>, service: Service, close: &Arc<watch::Sender<bool>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("admin-work")
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return has_ended(&error.to_string()),
    };
    runtime.block_on(async {
        let service = Arc::new(service);
        let health = HealthServer::new(NodeHealth::new(service.clone()));
        let mut tasks = Vec::new();
        if let Some(socket) = socket {
            let front = Front::new(admin_of(service.clone()), health.clone(), None);
            tasks.push(tokio::spawn(serve_here(socket, front, close.subscribe())));
        }
        if let Some(RemoteDoor { listener, handshakes, logins }) = remote {
            let front = Front::new(admin_of(Arc::new(Guard::new(service))), health, Some(logins));
            let (sender, accepted) = mpsc::channel(1);
            tasks.push(tokio::spawn(serve_elsewhere(accepted, front, close.subscribe())));
            tasks.push(tokio::spawn(async move {
                accept(listener, handshakes, sender).await.map_err(|error| error.to_string())
            }));
        }
        for task in tasks {
            if let Err(error) = task.await.unwrap_or_else(|error| Err(error.to_string())) {
                has_ended(&error);
            }
        }
    });
}

fn has_ended(error: &str) {
    tracing::error!(error, "the admin service has ended; brokerctl cannot connect any more");
}

fn admin_of<A>(service: Arc<A>) -> AdminServer<A> {
    AdminServer::from_arc(service)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}

async fn serve_here(socket: UnixListener, front: Front<Service>, close: watch::Receiver<bool>) -> Result<(), String> {
    let listener = tokio::net::UnixListener::from_std(socket).map_err(|error| error.to_string())?;
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(front, UnixListenerStream::new(listener), is_closed(close))
        .await
        .map_err(|error| error.to_string())
}

async fn serve_elsewhere(
    accepted: mpsc::Receiver<io::Result<RemoteStream>>,
    front: Front<Guard>,
    close: watch::Receiver<bool>,
) -> Result<(), String> {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_connection_age(CONNECTION_AGE)
        .max_connection_age_grace(CONNECTION_GRACE)
        .serve_with_incoming_shutdown(front, ReceiverStream::new(accepted), is_closed(close))
        .await
        .map_err(|error| error.to_string())
}

/// Comes back when the service is to end.
async fn is_closed(mut close: watch::Receiver<bool>) {
    // Also when nobody is left to say so.
    let _ = close.wait_for(|closed| *closed).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_socket_is_its_owners_and_replaces_one_left_behind() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(SOCKET_NAME);
        for _ in 0..2 {
            let socket = bind(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            drop(socket);
        }
        let long = directory.path().join("x".repeat(200));
        assert!(bind(&long).is_err());
    }
}
