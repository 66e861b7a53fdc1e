//! What the shard of a node is put together from: the store that is recovered, what the configuration says, and what surrounds it. The same on a machine
//! and in a simulation of whole nodes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use broker_amqp::{ChannelAllowance, Settings, sasl};
use broker_core::name::NodeId;
use broker_core::queue::{Lanes, Queue, Recovered, RecoveredLane, Rules, Stretch};
use broker_core::store::disk::Disk;
use broker_core::store::{
    Journal, JournalBatch, QueueId, RecoveredQueue, RecoveredRun, Segments, StoreOptions, recover,
};
use broker_core::topology::QueueRecord;
use broker_meta::Catalog;
use mio::Poll;

use crate::config::Config;
use crate::driver::admission::AdmissionLimits;
use crate::driver::journal::JournalHandle;
use crate::driver::listener::Listener;
use crate::driver::login::LoginHandle;
use crate::driver::mailbox::Inbox;
use crate::driver::meta::MetaHandle;
use crate::driver::overdue::Overdue;
use crate::driver::pages::PagesHandle;
use crate::driver::queues::{CommonRules, LocalQueue};
use crate::driver::replies::Replies;
use crate::driver::shard::{Door, Parts};
use crate::driver::trace::Tracing;
use crate::exit::{Code, Failure};

/// The messages of a node, as they are found at its start.
pub struct Store {
    /// For its thread.
    pub journal: Journal,
    /// For theirs.
    pub segments: Segments,
    /// The queues that live on the node.
    pub queues: Vec<(QueueId, Box<LocalQueue>)>,
    /// It was stopped in good order.
    pub clean: bool,
}

impl Store {
    /// Recovers the messages of the queues that the catalog knows on this node.
    pub fn recover(
        disk: Arc<dyn Disk>,
        options: &StoreOptions,
        catalog: &Catalog,
        node: NodeId,
        now_ms: u64,
    ) -> Result<Store, Failure> {
        let topology = catalog.topology();
        let exchanges = || topology.vhosts().flat_map(|vhost| vhost.exchanges());
        let holding: HashMap<QueueId, Arc<QueueRecord>> = exchanges()
            .filter_map(|record| record.holding_queue(node))
            .map(|record| (record.id, record.into()))
            .collect();
        let known = |queue: QueueId| {
            let record = topology.queue_by_id(queue).or_else(|| holding.get(&queue));
            let record = record.filter(|record| record.durable && record.node == node)?;
            Some(Lanes { highest: record.settings().max_priority })
        };
        let (journal, segments, recovered) = recover(disk, options, &known)
            .map_err(|error| Failure::new(Code::Io, format!("cannot recover the messages: {error}")))?;
        for line in &recovered.report {
            tracing::warn!("{line}");
        }
        let mut found =
            recovered.queues.into_iter().map(|queue| (queue.queue, of_store(queue))).collect::<HashMap<_, _>>();
        let mut common_rules = CommonRules::default();
        let holding_rules = Arc::new(Rules::holding_back());
        let ruled =
            topology.queues().filter(|record| record.node == node).map(|record| (record, common_rules.of(record)));
        let queues: Vec<(QueueId, Box<LocalQueue>)> = ruled
            .chain(holding.values().map(|record| (record, holding_rules.clone())))
            .map(|(record, rules)| {
                let found = found.remove(&record.id).unwrap_or_default();
                let state = Recovered { first_tag: first_tag(now_ms), ..found };
                let queue = Queue::recovered(record.durable, rules, now_ms, state);
                (record.id, Box::new(LocalQueue::new(record.clone(), queue)))
            })
            .collect();
        Ok(Store { journal, segments, queues, clean: recovered.clean })
    }
}

/// What a shard stands in: the sockets, and the threads beside it or what is stepped in their place.
pub struct Surroundings {
    /// Waits for sockets; its waker is in the mailbox of `inbox`.
    pub poll: Poll,
    /// Where others send.
    pub inbox: Inbox,
    /// Where AMQP connections are accepted.
    pub listeners: Vec<Door>,
    /// Opens a door again.
    pub listen: Box<dyn Fn(SocketAddr) -> io::Result<Listener>>,
    /// The journal's thread.
    pub journal: JournalHandle,
    /// The segments' thread.
    pub pages: PagesHandle,
    /// The catalog's thread, or the cluster.
    pub meta: MetaHandle,
    /// The password thread.
    pub login: LoginHandle,
}

/// All that a shard is made of.
pub fn parts(
    config: &Config,
    settings: &Settings,
    (node, catalog): (NodeId, Catalog),
    (queues, batch): (Vec<(QueueId, Box<LocalQueue>)>, JournalBatch),
    replies: Replies,
    surroundings: Surroundings,
) -> Parts {
    let Surroundings { poll, inbox, listeners, listen, journal, pages, meta, login } = surroundings;
    let topology = catalog.topology();
    Parts {
        poll,
        inbox,
        listeners,
        listen,
        nodelay: config.socket.nodelay,
        settings: Arc::new(without_certificates(settings)),
        tracing: Tracing::new(&config.node.name, &topology),
        topology,
        access: Arc::new(catalog.access()),
        node,
        locator: config.cluster.queue_master_locator,
        catalog,
        queues,
        batch: Some(batch),
        journal,
        pages,
        meta,
        login,
        loopback_users: config.authentication.loopback_users.clone(),
        connection_max: config.limits.connection_max.map_or(0, |most| most as usize),
        vhost_max: config.limits.vhost_max.map_or(0, u64::from),
        bindings_max: config.limits.bindings_max_per_queue.map_or(u64::MAX, u64::from),
        admission: AdmissionLimits {
            node: config.limits.unauthenticated_max as usize,
            origin: config.limits.unauthenticated_max_per_address as usize,
        },
        overdue: Overdue::new(config.limits.channel_tick_interval),
        replies,
        login_failures_max: config.authentication.login_failures_max,
    }
}

fn of_store(queue: RecoveredQueue) -> Recovered {
    let mut lanes: Vec<RecoveredLane> = Vec::new();
    for RecoveredRun { run, lane, first, last, count } in queue.runs {
        if lanes.last().is_none_or(|last| last.lane != lane) {
            lanes.push(RecoveredLane { lane, ..RecoveredLane::default() });
        }
        if let Some(lane) = lanes.last_mut() {
            lane.messages += count;
            lane.stretches.push(Stretch { run, first, last });
        }
    }
    Recovered {
        next_seq: queue.next_seq,
        lanes,
        body_bytes: queue.bytes,
        redelivered: queue.redelivered,
        expires: queue.expires,
        ..Recovered::default()
    }
}

/// The number of a recovered queue's first delivery. A client of another node may settle what it had from an earlier start, and that must not be taken for
/// what another client has now: a start is a million numbers further for each millisecond, and no queue delivers as fast.
fn first_tag(now_ms: u64) -> u64 {
    now_ms << 20
}

/// Limits and texts of connections.
pub fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    Settings {
        frame_max: limits.frame_max_bytes,
        channel_max: limits.channel_max,
        node_channels: limits.channel_max_per_node.map(|most| Arc::new(ChannelAllowance::new(Some(most.into())))),
        node_name: config.node.name.clone(),
        consumers_per_channel_max: limits.consumer_max_per_channel,
        unacked_max_kib: limits.unacked_bytes_max_per_channel.map_or(u64::MAX, |bytes| bytes / 1024),
        heartbeat: limits.heartbeat_s,
        max_message_size: limits.max_message_size_bytes,
        initial_frame_max: limits.initial_frame_max_bytes,
        handshake_timeout: limits.handshake_timeout,
        consumer_timeout: limits.consumer_timeout,
        mechanisms: config.authentication.mechanisms.clone(),
        // Client libraries switch features on by what RabbitMQ calls itself.
        product: "RabbitMQ".into(),
        version: "3.10.8".into(),
        platform: concat!("brokerd ", env!("CARGO_PKG_VERSION")).into(),
        copyright: String::new(),
        information: "Speaks AMQP 0-9-1 as RabbitMQ 3.10 does.".into(),
        cluster_name: config.cluster.name.clone().unwrap_or_else(|| config.node.name.clone()),
        ..Settings::default()
    }
}

/// Without TLS, a client cannot show who it is by a certificate.
fn without_certificates(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.mechanisms.retain(|mechanism| mechanism != sasl::EXTERNAL);
    settings
}
