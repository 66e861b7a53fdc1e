//! TLS under the generator: the same octets in a session, over sockets that block and that do not.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Octets that may be encrypted and wait for the socket.
const WRITE_MAX: usize = 256 * 1024;
/// Octets read at once.
const READ_LENGTH: usize = 128 * 1024;

/// Where a broker serves, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address.
    pub address: SocketAddr,
    /// TLS, if it is spoken there.
    pub tls: Option<Arc<ClientConfig>>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

/// Makes a certificate for both brokers, and gives the lines of their configuration and what clients need.
///
/// # Errors
/// When the files cannot be written.
pub fn prepare(directory: &Path, port: u16) -> io::Result<(String, Arc<ClientConfig>)> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let params = CertificateParams::new(["localhost".to_owned()]).map_err(io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let (certificate_file, key_file) = (directory.join("bench.crt"), directory.join("bench.key"));
    std::fs::write(&certificate_file, certificate.pem())?;
    std::fs::write(&key_file, key.serialize_pem())?;
    let conf = format!(
        "listeners.ssl.default = 127.0.0.1:{port}\nssl_options.certfile = {}\nssl_options.keyfile = {}",
        certificate_file.display(),
        key_file.display()
    );
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::clone(certificate.der())).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok((conf, Arc::new(client)))
}

/// A socket, and TLS over it if it is wanted.
#[derive(Debug)]
pub struct Stream<S> {
    socket: S,
    tls: Option<Box<Sealed>>,
}

#[derive(Debug)]
struct Sealed {
    session: ClientConnection,
    encrypted: Box<[u8]>,
    /// What of it the session has not taken.
    unread: Range<usize>,
}

impl<S: Read + Write> Stream<S> {
    /// Octets over `socket`, in TLS if there is a configuration for it.
    ///
    /// # Errors
    /// When a session cannot be made.
    pub fn new(socket: S, config: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let sealed = |config| {
            let name = "localhost".try_into().map_err(io::Error::other)?;
            let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
            session.set_buffer_limit(Some(WRITE_MAX));
            Ok::<_, io::Error>(Box::new(Sealed { session, encrypted: vec![0; READ_LENGTH].into(), unread: 0..0 }))
        };
        Ok(Self { socket, tls: config.map(sealed).transpose()? })
    }

    /// Whether a read that does not fill its buffer has emptied the stream.
    #[must_use]
    pub fn short_read_is_dry(&self) -> bool {
        self.tls.is_none()
    }

    /// The same session over what becomes of the socket.
    pub fn map<T>(self, change: impl FnOnce(S) -> T) -> Stream<T> {
        Stream { socket: change(self.socket), tls: self.tls }
    }

    /// The socket.
    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Writes what is encrypted; whether all of it went.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn push(&mut self) -> io::Result<bool> {
        let Some(sealed) = &mut self.tls else { return Ok(true) };
        while sealed.session.wants_write() {
            match sealed.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl<S: Read + Write> Read for Stream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.push()?;
            let Some(sealed) = self.tls.as_deref_mut() else { return self.socket.read(buffer) };
            match sealed.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if sealed.unread.is_empty() {
                let count = self.socket.read(&mut sealed.encrypted)?;
                if count == 0 {
                    return Ok(0);
                }
                sealed.unread = 0..count;
            }
            // Plaintext is taken out before more is decrypted, so there is never more of it than the session has room for.
            let mut rest = sealed.encrypted.get(sealed.unread.clone()).unwrap_or_default();
            sealed.unread.start += sealed.session.read_tls(&mut rest)?;
            sealed.session.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if !self.push()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(sealed) = &mut self.tls else { return self.socket.write(octets) };
        let taken = sealed.session.writer().write(octets)?;
        self.push()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()?;
        self.socket.flush()
    }
}
