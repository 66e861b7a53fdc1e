//! Boot order and end of a node.
//!
//! Lock the data directory; read the catalog; recover the store for the queues the catalog knows; open the listeners; start the threads that block;
//! run the shard. A listener is opened after recovery, so a client that can connect finds every message that was kept.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use broker_amqp::{Settings, sasl};
use broker_core::name::NodeId;
use broker_core::store::StoreOptions;
use broker_core::store::disk::RealDisk;
use broker_meta::membership::Listener as Facing;
use mio::net::TcpListener;
use mio::{Poll, Waker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::admin::{self, Logins, RemoteDoor};
use crate::alarm::{AlarmLimits, AlarmWatcher, Alarms, total_memory_bytes};
use crate::assembly::{Store, Surroundings, parts, settings};
use crate::cluster::{self, Cluster, Start};
use crate::config::admin::AdminListener;
use crate::config::{Config, Listener, SocketConfig, TlsConfig};
use crate::data_dir::DataDir;
use crate::driver::events::Event;
use crate::driver::listener::Listener as DoorListener;
use crate::driver::mailbox::{Mailbox, mailbox};
use crate::driver::replies::Replies;
use crate::driver::shard::{Door, Shard, WAKER};
use crate::driver::{journal, login, meta, pages};
use crate::exit::{Code, Failure};
use crate::reload::Reloader;
use crate::signals::{Request, SignalWatcher};
use crate::tls::{Endpoint, FileWatcher, Handshakes, LOOK_EVERY};

/// The number of a node that is alone, and of one that founds a cluster.
pub const ALONE: NodeId = NodeId(1);

/// Why a node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was told to stop.
    Stopped,
    /// It is to start again, and then to do what is planned for its next start.
    Again,
}

/// Runs a node until it is told to stop.
pub fn run(config: &Config, reloader: Reloader) -> Result<Ending, Failure> {
    run_with(config, move || reloader.reload(), |_| {})
}

/// Runs a node whose owner reads the configuration again at SIGHUP, and is given the way to reach the running node before it serves.
pub fn run_with(
    config: &Config,
    reload: impl Fn() -> Option<Config> + Send + 'static,
    reachable: impl FnOnce(Mailbox),
) -> Result<Ending, Failure> {
    let started = Instant::now();
    raise_file_limit();
    let data_dir = DataDir::open(&config.node.data_dir)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %config.node.name, identity = %data_dir.identity().node, data_dir = %data_dir.path().display(), "starting");

    let settings = Arc::new(settings(config));
    let tls = tls_endpoint(config, &settings)?;
    let poll = Poll::new().map_err(system("cannot wait for sockets"))?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(system("cannot wait for sockets"))?;
    let (mailbox, inbox) = mailbox(waker);
    let alone = || {
        let mut catalog = meta::open(data_dir.path(), config)?;
        admin::definitions::import_at_boot(&mut catalog, data_dir.path(), config)?;
        Ok(catalog)
    };
    let cluster = Cluster::start(config, data_dir.path(), || alone().map(|catalog| catalog.catalog().clone()))?;
    let (node, catalog, meta) = match cluster {
        Start::Again => return Ok(Ending::Again),
        Start::Member(cluster) => {
            let catalog = cluster.go_live(&mailbox, config);
            (cluster.handle().node(), catalog, meta::MetaHandle::Member(cluster))
        }
        Start::Alone => {
            let local = alone()?;
            let catalog = local.catalog().clone();
            let meta = meta::start(local, mailbox.clone()).map_err(system("cannot start the catalog's thread"))?;
            (ALONE, catalog, meta)
        }
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let options = StoreOptions::new(data_dir.path().join("store"), u64::from_le_bytes(random()?));
    let mut store = Store::recover(Arc::new(RealDisk), &options, &catalog, node, now_ms)?;

    let listeners = open_listeners(&config.listeners, &config.socket, tls.as_ref())?;
    let handle = admin::ShardHandle::new(mailbox.clone(), node);
    let remote = open_admin(config, &handle)?;
    let facing = facing(&listeners, remote.as_ref());
    let alarms = Arc::new(watch_alarms(config, data_dir.path().into(), mailbox.clone(), meta.cluster().cloned())?);
    if let Some(cluster) = meta.cluster() {
        tell_of_listeners(cluster, facing.clone());
    }
    let watch = |handshakes: &Arc<Handshakes>, tls: &TlsConfig| {
        let watcher = FileWatcher::start(handshakes.clone(), tls.clone(), LOOK_EVERY);
        watcher.map_err(system("cannot watch the certificates"))
    };
    let certificates = tls.map(|endpoint| watch(endpoint.handshakes(), &config.tls)).transpose()?;
    let of_admin = remote.as_ref().map(|remote| watch(&remote.handshakes, &config.admin.tls)).transpose()?;
    let again = {
        let (data_dir, handle) = (data_dir.path().to_owned(), handle.clone());
        move |config: Config| {
            admin::definitions::import_again(&config.definitions, &data_dir, &handle);
            if let Some(certificates) = &certificates {
                certificates.reload(config.tls);
            }
            if let Some(certificates) = of_admin.as_ref().filter(|_| config.admin.listener.is_some()) {
                certificates.reload(config.admin.tls);
            }
        }
    };
    let restart = Arc::new(AtomicBool::new(false));
    let going_down = admin::GoingDown::new();
    let _signals = watch_signals(mailbox.clone(), restart.clone(), going_down.clone(), reload, again)?;
    let served = admin::Node::new(config, data_dir.path(), started, listeners_of(&facing), alarms)
        .of_cluster(meta.cluster().cloned())
        .restarting(restart.clone())
        .going_down(going_down);
    let admin = admin::serve(served, handle, remote);
    reachable(mailbox.clone());
    let messages: u64 = store.queues.iter().map(|(_, local)| local.queue.ready_count()).sum();
    let (queue_count, clean) = (store.queues.len(), store.clean);
    let batch = store.journal.batch();
    let surroundings = Surroundings {
        poll,
        inbox,
        listeners,
        listen: {
            let options = config.socket.clone();
            Box::new(move |address| listen(address, &options))
        },
        journal: journal::start(store.journal, mailbox.clone()).map_err(system("cannot start the journal's thread"))?,
        pages: pages::start(store.segments, mailbox.clone()).map_err(system("cannot start the segments' thread"))?,
        meta,
        login: login::start(mailbox).map_err(system("cannot start the login thread"))?,
    };
    let replies = Replies::new(random()?);
    let parts = parts(config, &settings, (node, catalog), (store.queues, batch), replies, surroundings);
    let shard = Shard::new(parts, (Instant::now(), now_ms), u128::from_le_bytes(random()?), random()?)
        .map_err(system("cannot watch the listening sockets"))?;
    tracing::info!(
        queues = queue_count,
        messages,
        clean,
        took_ms = started.elapsed().as_millis() as u64,
        "ready for clients"
    );
    let ran = shard.run();
    admin.close();
    ran.map_err(system("cannot wait for sockets"))?;
    Ok(if restart.load(Ordering::SeqCst) { Ending::Again } else { Ending::Stopped })
}

/// What all TLS listeners share, if there are any.
fn tls_endpoint(config: &Config, settings: &Arc<Settings>) -> Result<Option<Arc<Endpoint>>, Failure> {
    if config.listeners.iter().any(|listener| listener.tls) {
        let endpoint = Endpoint::new(&config.tls, settings.clone());
        return Ok(Some(Arc::new(endpoint.map_err(|problem| Failure::new(Code::Config, problem.to_string()))?)));
    }
    if settings.mechanisms.iter().any(|mechanism| mechanism == sasl::EXTERNAL) {
        tracing::warn!(
            "the SASL mechanism EXTERNAL is offered over TLS only, and there is no such listener (listeners.ssl)"
        );
    }
    Ok(None)
}

fn open_listeners(
    listeners: &[Listener],
    options: &SocketConfig,
    tls: Option<&Arc<Endpoint>>,
) -> Result<Vec<Door>, Failure> {
    listeners
        .iter()
        .map(|listener| {
            let socket = open_listener(listener.ip, listener.port, options);
            let socket = socket.map_err(|error| Failure::listening(listener, &error))?;
            tracing::info!(name = listener.name, port = listener.port, tls = listener.tls, "listening for AMQP");
            Ok((DoorListener::Machine(TcpListener::from_std(socket)), tls.filter(|_| listener.tls).cloned()))
        })
        .collect()
}

/// The door of the admin service for users from elsewhere, if it is to have one.
fn open_admin(config: &Config, shard: &admin::ShardHandle) -> Result<Option<RemoteDoor>, Failure> {
    let Some(AdminListener { ip, port }) = config.admin.listener else { return Ok(None) };
    let handshakes = Handshakes::new(&config.admin.tls, admin::PROTOCOLS);
    let handshakes = Arc::new(handshakes.map_err(|problem| Failure::new(Code::Config, problem.to_string()))?);
    let key = config.admin.tls.keys.listener;
    let listener = open_listener(ip, port, &config.socket);
    let listener = listener.map_err(|error| Failure::listening_at(key, key, ip, port, &error))?;
    let address = listener.local_addr().map_err(system("cannot tell the port of the admin service"))?;
    tracing::info!(%address, "brokerctl may connect from elsewhere, with TLS");
    let logins = Arc::new(Logins::new(shard.clone(), &config.authentication, random()?));
    Ok(Some(RemoteDoor { listener, handshakes, logins }))
}

fn open_listener(ip: Option<IpAddr>, port: u16, options: &SocketConfig) -> io::Result<std::net::TcpListener> {
    match ip {
        Some(ip) => bind(SocketAddr::new(ip, port), options),
        // One socket for both families; without IPv6 on the machine, one for IPv4.
        None => bind((Ipv6Addr::UNSPECIFIED, port).into(), options).or_else(|error| {
            let no_ipv6 = matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL));
            if no_ipv6 { bind((Ipv4Addr::UNSPECIFIED, port).into(), options) } else { Err(error) }
        }),
    }
}

/// Error numbers of a machine without IPv6.
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;

fn listen(address: SocketAddr, options: &SocketConfig) -> io::Result<DoorListener> {
    bind(address, options).map(|socket| DoorListener::Machine(TcpListener::from_std(socket)))
}

fn bind(address: SocketAddr, options: &SocketConfig) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    // Accepted sockets inherit these.
    socket.set_keepalive(options.keepalive)?;
    socket.set_linger(options.linger)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn watch_alarms(
    config: &Config,
    data_dir: PathBuf,
    mailbox: Mailbox,
    cluster: Option<cluster::Handle>,
) -> Result<AlarmWatcher, Failure> {
    let total = match config.alarm.total_memory_bytes {
        Some(bytes) => bytes,
        None => total_memory_bytes().map_err(system("cannot tell how much memory there is"))?,
    };
    let limits = AlarmLimits::new(&config.alarm, total);
    let tell = move |alarms: Alarms| {
        if let Some(cluster) = &cluster {
            cluster.say(|facts| (facts.memory_alarm, facts.disk_alarm) = (alarms.memory, alarms.disk));
        }
        mailbox.send(Event::Alarm(reason(alarms)));
    };
    AlarmWatcher::start(limits, &data_dir, tell).map_err(system("cannot watch memory and disk"))
}

/// What clients are told of alarms.
pub(crate) fn reason(alarms: Alarms) -> Option<&'static str> {
    match (alarms.memory, alarms.disk) {
        (false, false) => None,
        (true, false) => Some("low on memory"),
        (false, true) => Some("low on disk"),
        (true, true) => Some("low on disk & memory"),
    }
}

/// Where the node listens, and for what.
fn facing(listeners: &[Door], remote: Option<&RemoteDoor>) -> Vec<Facing> {
    let at = |protocol: &str, address: SocketAddr| Facing {
        protocol: protocol.into(),
        address: address.ip().to_string(),
        port: address.port().into(),
    };
    let amqp = |(listener, tls): &Door| {
        let protocol = if tls.is_some() { "amqp/ssl" } else { "amqp" };
        listener.address().ok().map(|address| at(protocol, address))
    };
    let admin = remote.and_then(|remote| remote.listener.local_addr().ok()).map(|address| at("admin/ssl", address));
    listeners.iter().filter_map(amqp).chain(admin).collect()
}

/// The same for operators.
fn listeners_of(facing: &[Facing]) -> Vec<proto::admin::v1::Listener> {
    let listener = |at: &Facing| proto::admin::v1::Listener {
        protocol: at.protocol.clone(),
        address: at.address.clone(),
        port: at.port,
    };
    facing.iter().map(listener).collect()
}

/// Other nodes tell their clients and operators where this one listens.
fn tell_of_listeners(cluster: &cluster::Handle, facing: Vec<Facing>) {
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    cluster.say(|facts| {
        facts.listeners = facing;
        facts.software = concat!("brokerd ", env!("CARGO_PKG_VERSION")).into();
        facts.started_at = started_at;
    });
}

fn watch_signals(
    mailbox: Mailbox,
    restart: Arc<AtomicBool>,
    going_down: admin::GoingDown,
    reload: impl Fn() -> Option<Config> + Send + 'static,
    again: impl Fn(Config) + Send + 'static,
) -> Result<SignalWatcher, Failure> {
    SignalWatcher::start(move |request| match request {
        Request::Shutdown => {
            // Also if it was about to start again.
            restart.store(false, Ordering::SeqCst);
            going_down.say();
            mailbox.send(Event::Shutdown);
        }
        Request::Reload => {
            if let Some(config) = reload() {
                again(config);
            }
        }
        Request::Dump => mailbox.send(Event::Dump),
    })
    .map_err(system("cannot watch signals"))
}

/// Random octets.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut octets = [0; N];
    getrandom(&mut octets, GetRandomFlags::empty())
        .map_err(|error| system("cannot get random numbers")(error.into()))?;
    Ok(octets)
}

/// Each connection takes a file descriptor, and many systems allow a process 1,024 unless it asks for all it may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        tracing::info!(limit = limit.current, "open files are limited");
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => tracing::info!(was = limit.current, limit = limit.maximum, "limit of open files raised"),
        Err(error) => {
            tracing::warn!(limit = limit.current, wanted = limit.maximum, %error, "cannot raise the limit of open files")
        }
    }
}

fn system(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(Code::Software, format!("{what}: {error}"))
}
