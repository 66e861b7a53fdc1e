//! The admin service's socket and thread.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::admin::v1::admin_server::AdminServer;
use proto::admin::{MESSAGE_MAX_BYTES, SOCKET_NAME};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::ShardHandle;
use super::service::Service;
use crate::alarm::{AlarmLimits, AlarmWatcher, total_memory_bytes};
use crate::cluster;
use crate::config::{AlarmConfig, Config};
use crate::driver::shard::Door;

/// Threads for what takes long or waits: hashing, JSON, imports.
const BLOCKING_THREADS: usize = 4;
/// Connections that the kernel holds.
const BACKLOG: i32 = 64;
/// Requests of one connection at the same time.
const STREAMS_MAX: u32 = 16;
/// A connection may be silent so long before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What the service knows of the node besides the shard's state.
pub struct Node {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    pub(super) started: Instant,
    /// Address and port of each.
    pub(super) listeners: Vec<(String, u16)>,
    pub(super) alarms: Arc<AlarmWatcher>,
    /// As they are now.
    pub(super) alarm_config: Mutex<AlarmConfig>,
    pub(super) total_memory_bytes: u64,
    /// None: it is alone.
    pub(super) cluster: Option<cluster::Handle>,
    pub(super) drained: AtomicBool,
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
        listeners: &[Door],
        alarms: Arc<AlarmWatcher>,
    ) -> Self {
        let address = |(listener, _): &Door| {
            let address = listener.local_addr().ok()?;
            Some((address.ip().to_string(), address.port()))
        };
        Self {
            name: config.node.name.clone(),
            data_dir: data_dir.into(),
            started,
            listeners: listeners.iter().filter_map(address).collect(),
            alarms,
            alarm_config: Mutex::new(config.alarm.clone()),
            total_memory_bytes: total_memory_bytes().unwrap_or_default(),
            cluster: None,
            drained: AtomicBool::new(false),
            restart: Arc::default(),
        }
    }

    /// It is a member of a cluster.
    #[must_use]
    pub fn of_cluster(self, cluster: Option<cluster::Handle>) -> Self {
        Self { cluster, ..self }
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

/// Serves the admin service on its socket in the data directory. Where that is not possible, the node does without it and says so.
pub fn serve(node: Node, shard: ShardHandle) {
    let path = node.data_dir.join(SOCKET_NAME);
    let started = bind(&path).and_then(|socket| {
        let service = Service::new(node, shard);
        std::thread::Builder::new().name("admin".into()).spawn(move || run(socket, service)).map(drop)
    });
    match started {
        Ok(()) => tracing::info!(socket = %path.display(), "brokerctl may connect"),
        Err(error) => {
            tracing::error!(socket = %path.display(), %error, "cannot open the socket of the admin service; going on without it, brokerctl cannot connect");
        }
    }
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

fn run(socket: UnixListener, service: Service) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("admin-work")
        .build();
    let result = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(socket).map_err(|error| error.to_string())?;
            let service = AdminServer::new(service)
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES);
            Server::builder()
                .max_concurrent_streams(STREAMS_MAX)
                .http2_keepalive_interval(Some(KEEPALIVE))
                .serve_with_incoming(service, UnixListenerStream::new(listener))
                .await
                .map_err(|error| error.to_string())
        })
    });
    if let Err(error) = result {
        tracing::error!(error, "the admin service has ended; brokerctl cannot connect any more");
    }
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
