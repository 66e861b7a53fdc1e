//! What all TLS listeners for AMQP share: their handshakes, and the settings of connections over TLS.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use broker_amqp::Settings;
use mio::net::TcpStream;
use rustls::ServerConnection;

use super::files::FileProblem;
use super::handshakes::Handshakes;
use super::stream::TlsStream;
use crate::config::TlsConfig;

/// See the module's page.
pub struct Endpoint {
    handshakes: Arc<Handshakes>,
    settings: Arc<Settings>,
}

impl Endpoint {
    /// Reads the files. `settings` are those of connections over TLS.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub fn new(config: &TlsConfig, settings: Arc<Settings>) -> Result<Self, FileProblem> {
        Ok(Self { handshakes: Arc::new(Handshakes::new(config, &[])?), settings })
    }

    /// Limits and texts of connections over TLS.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Where certificates are read again.
    #[must_use]
    pub fn handshakes(&self) -> &Arc<Handshakes> {
        &self.handshakes
    }

    /// Begins a session on a socket that was just accepted.
    ///
    /// # Errors
    /// The session cannot be made, for want of random numbers.
    pub fn begin(&self, socket: TcpStream, now: Instant) -> io::Result<TlsStream> {
        let current = self.handshakes.current();
        let session = ServerConnection::new(current.server.clone()).map_err(io::Error::other)?;
        Ok(TlsStream::new(socket, session, now + current.timeout, current.login_from))
    }
}
