//! What a node's configuration says about its connections. One per node, shared.

use std::sync::Arc;
use std::time::Duration;

use crate::allowance::ChannelAllowance;

/// Limits and words of this node's side of every connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest frame in octets, with its 8 octets of framing; 0 = no limit.
    pub frame_max: u32,
    /// Most channels open at once on one connection; 0 = no limit.
    pub channel_max: u16,
    /// Channels open at once on all connections of the node; none = as many as they like.
    pub node_channels: Option<Arc<ChannelAllowance>>,
    /// The node's name.
    pub node_name: String,
    /// The heartbeat offered, in seconds; 0 = none.
    pub heartbeat: u16,
    /// Largest message body in octets.
    pub max_message_size: u64,
    /// Largest frame in octets until `tune-ok` settles one, with its 8 octets of framing; at least 4096, which every peer may send.
    pub initial_frame_max: u32,
    /// How long a client may take from connecting to `open-ok`; none = for ever.
    pub handshake_timeout: Option<Duration>,
    /// How long a refused login is kept waiting before it hears of it.
    pub login_refused_delay: Duration,
    /// How long `close-ok` is waited for after `connection.close`.
    pub close_ok_timeout: Duration,
    /// How long a delivery may wait to be settled; then its channel is closed.
    pub consumer_timeout: Duration,
    /// What the deliveries of a channel that are not settled may take, in KiB.
    pub unacked_max_kib: u64,
    /// Most consumers on one channel.
    pub consumers_per_channel_max: u32,
    /// SASL mechanisms offered, in order.
    pub mechanisms: Vec<String>,
    /// Server property `product`.
    pub product: String,
    /// Server property `version`.
    pub version: String,
    /// Server property `platform`.
    pub platform: String,
    /// Server property `copyright`.
    pub copyright: String,
    /// Server property `information`.
    pub information: String,
    /// Server property `cluster_name`.
    pub cluster_name: String,
}

impl Default for Settings {
    /// RabbitMQ's defaults, and no words.
    fn default() -> Settings {
        Settings {
            frame_max: 131_072,
            channel_max: 2047,
            node_channels: None,
            node_name: String::new(),
            heartbeat: 60,
            max_message_size: 128 * 1024 * 1024,
            initial_frame_max: 4096,
            handshake_timeout: Some(Duration::from_secs(10)),
            login_refused_delay: Duration::from_secs(1),
            close_ok_timeout: Duration::from_secs(5),
            consumer_timeout: Duration::from_secs(1_800),
            unacked_max_kib: u64::MAX,
            consumers_per_channel_max: 65_536,
            mechanisms: vec!["AMQPLAIN".into(), "PLAIN".into()],
            product: String::new(),
            version: String::new(),
            platform: String::new(),
            copyright: String::new(),
            information: String::new(),
            cluster_name: String::new(),
        }
    }
}
