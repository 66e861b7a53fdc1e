//! What an operator can say about the admin service beyond its socket.

use std::net::IpAddr;

use super::TlsConfig;
use super::tls::KeyNames;

/// The port that is proposed for it.
pub const PROPOSED_ADMIN_PORT: u16 = 15_680;

/// The admin service over TCP, which it is served over with TLS only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where `brokerctl` may connect from elsewhere, or `None`: nowhere.
    pub listener: Option<AdminListener>,
    /// Its TLS.
    pub tls: TlsConfig,
}

/// The listening address of the admin service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminListener {
    /// The address, or `None`: all interfaces, IPv6 and IPv4.
    pub ip: Option<IpAddr>,
    /// The port; 0 lets the operating system choose a free one.
    pub port: u16,
}

/// The keys of its TLS.
pub const ADMIN_KEYS: KeyNames = KeyNames {
    listener: "broker.admin.listener",
    certificate: "broker.admin.ssl_options.certfile",
    key: "broker.admin.ssl_options.keyfile",
    authorities: "broker.admin.ssl_options.cacertfile",
    verify: "broker.admin.ssl_options.verify",
    require: "broker.admin.ssl_options.fail_if_no_peer_cert",
};

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listener: None, tls: TlsConfig { keys: ADMIN_KEYS, ..TlsConfig::default() } }
    }
}
