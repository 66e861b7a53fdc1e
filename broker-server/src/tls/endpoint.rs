//! What all TLS listeners of a node share: the certificate in use, and how its clients are named.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use broker_amqp::Settings;
use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use super::files::FileProblem;
use super::server::server_config;
use super::stream::TlsStream;
use crate::config::TlsConfig;
use crate::config::tls::LoginFrom;

/// See the module's page.
pub struct Endpoint {
    current: ArcSwap<Current>,
    settings: Arc<Settings>,
}

/// What the next handshake uses.
struct Current {
    server: Arc<ServerConfig>,
    handshake_timeout: Duration,
    login_from: LoginFrom,
}

impl Endpoint {
    /// Reads the files. `settings` are those of connections over TLS.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub fn new(config: &TlsConfig, settings: Arc<Settings>) -> Result<Self, FileProblem> {
        Ok(Self { current: ArcSwap::from_pointee(Current::read(config)?), settings })
    }

    /// Reads the files again. New handshakes use what they hold; open connections stay as they are.
    ///
    /// # Errors
    /// A file is missing or wrong; what was in use stays.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), FileProblem> {
        self.current.store(Arc::new(Current::read(config)?));
        Ok(())
    }

    /// Limits and texts of connections over TLS.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// What the next handshake uses.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// Begins a session on a socket that was just accepted.
    ///
    /// # Errors
    /// The session cannot be made, for want of random numbers.
    pub fn begin(&self, socket: TcpStream, now: Instant) -> io::Result<TlsStream> {
        let current = self.current.load();
        let session = ServerConnection::new(current.server.clone()).map_err(io::Error::other)?;
        Ok(TlsStream::new(socket, session, now + current.handshake_timeout, current.login_from))
    }
}

impl Current {
    fn read(config: &TlsConfig) -> Result<Self, FileProblem> {
        Ok(Self {
            server: Arc::new(server_config(config)?),
            handshake_timeout: config.handshake_timeout,
            login_from: config.login_from,
        })
    }
}
