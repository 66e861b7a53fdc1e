//! What the handshakes of a listener use: read from files, and read again while the node runs.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::files::FileProblem;
use super::server::server_config;
use crate::config::TlsConfig;
use crate::config::tls::LoginFrom;

/// See the module's page.
pub struct Handshakes {
    current: ArcSwap<Current>,
    /// What is spoken inside, where that is agreed on; empty: it is not.
    protocols: Vec<Vec<u8>>,
}

/// What the next handshake uses.
pub struct Current {
    /// Certificates, versions and suites.
    pub server: Arc<ServerConfig>,
    /// Time a client has.
    pub timeout: Duration,
    /// Which name of a client's certificate is its user's.
    pub login_from: LoginFrom,
}

impl Handshakes {
    /// Reads the files. `protocols` are those that a client and the node agree on (ALPN), if any.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub fn new(config: &TlsConfig, protocols: &[&[u8]]) -> Result<Self, FileProblem> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self { current: ArcSwap::from_pointee(Current::read(config, &protocols)?), protocols })
    }

    /// Reads the files again. New handshakes use what they hold; open connections stay as they are.
    ///
    /// # Errors
    /// A file is missing or wrong; what was in use stays.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), FileProblem> {
        self.current.store(Arc::new(Current::read(config, &self.protocols)?));
        Ok(())
    }

    /// What the next handshake uses.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }
}

impl Current {
    fn read(config: &TlsConfig, protocols: &[Vec<u8>]) -> Result<Self, FileProblem> {
        let mut server = server_config(config)?;
        server.alpn_protocols = protocols.to_vec();
        Ok(Self { server: Arc::new(server), timeout: config.handshake_timeout, login_from: config.login_from })
    }
}
