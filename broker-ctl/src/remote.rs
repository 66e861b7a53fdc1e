//! Brokers elsewhere: TLS to the first of their hosts that answers, and who logs in.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

type Result<T> = std::result::Result<T, Failure>;

/// The port of the admin service where none is named, as brokerd proposes it.
pub const DEFAULT_PORT: u16 = 15_680;
/// A host has this time to answer and to shake hands.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// A file of certificates may be this long, in octets.
const PEM_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A broker elsewhere, with all it takes to be let in.
#[derive(Clone)]
pub struct Remote {
    hosts: Vec<Host>,
    tls: TlsConnector,
    credentials: Credentials,
    /// The file of authorities, for complaints.
    authorities: String,
    /// The certificate that is shown, for the same.
    certificate: Option<PathBuf>,
    asked: Arc<Asked>,
}

/// Shows no certificate, and knows whether one was asked for.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::SeqCst);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Where a node may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
    /// What its certificate must say.
    server_name: ServerName<'static>,
}

/// User and password, with every request.
#[derive(Clone, Default)]
pub struct Credentials(Option<MetadataValue<Ascii>>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

impl Credentials {
    fn of(user: &str, password: &str) -> Result<Credentials> {
        if user.contains(':') {
            return Err(Failure::usage("a user whose name has a colon in it cannot log in from elsewhere"));
        }
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let header = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut header: MetadataValue<Ascii> =
            header.parse().map_err(|_| Failure::new(Exit::Software, "user and password do not fit into a header"))?;
        // Neither shown nor remembered on the way.
        header.set_sensitive(true);
        Ok(Credentials(Some(header)))
    }
}

impl Remote {
    /// Reads the files, and puts together what a connection needs.
    pub fn new(
        hosts: &[String],
        login: Option<(String, Zeroizing<String>)>,
        ca_file: Option<&Path>,
        certificate: Option<(PathBuf, PathBuf)>,
        server_name: Option<String>,
    ) -> Result<Remote> {
        let hosts = hosts.iter().map(|host| Host::read(host, server_name.as_deref())).collect::<Result<_>>()?;
        let credentials = match &login {
            Some((user, password)) => Credentials::of(user, password)?,
            None => Credentials::default(),
        };
        let roots = match ca_file {
            Some(path) => authorities(path)?,
            None => authorities_of_the_machine()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Exit::Software, error.to_string()))?
            .with_root_certificates(roots);
        let asked = Arc::new(Asked::default());
        let mut config = match &certificate {
            None => builder.with_client_cert_resolver(asked.clone()),
            Some((certificate, key)) => {
                let (chain, secret) = (certificates(certificate)?, private_key(key)?);
                builder.with_client_auth_cert(chain, secret).map_err(|error| {
                    let (certificate, key) = (certificate.display(), key.display());
                    Failure::new(
                        Exit::Data,
                        format!("the certificate {certificate} and the key {key} are of no use: {error}"),
                    )
                })?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let authorities = ca_file.map_or_else(|| "this machine".into(), |path| path.display().to_string());
        let certificate = certificate.map(|(certificate, _)| certificate);
        Ok(Remote { hosts, tls: Arc::new(config).into(), credentials, authorities, certificate, asked })
    }

    /// What is to be said if the broker hangs up on the first request: after the handshake it looks at the certificate it was shown, if it asks for one.
    pub fn refusal_of_certificate(&self) -> Option<Failure> {
        let text = match &self.certificate {
            Some(certificate) => format!(
                "the broker has hung up: it may have refused the certificate {}, its log says why",
                certificate.display()
            ),
            None if self.asked.0.load(Ordering::SeqCst) => {
                "the broker asks for a certificate, and there is none: name it with --certificate and --key".into()
            }
            None => return None,
        };
        Some(Failure::new(Exit::Unavailable, text))
    }

    /// Who logs in.
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Connects to the first host that answers.
    pub async fn connect(&self) -> Result<Channel> {
        let mut failures = Vec::new();
        for host in &self.hosts {
            match open(host, &self.tls).await {
                Ok(stream) => return self.channel(host, stream).await,
                Err(error) => failures.push(self.complaint(host, &error)),
            }
        }
        Err(Failure::new(Exit::Unavailable, failures.join("\n")))
    }

    async fn channel(&self, host: &Host, stream: TlsStream<TcpStream>) -> Result<Channel> {
        // The one that was opened serves first: its errors say more than the transport's. Later ones are made when it has ended.
        let opened = Arc::new(Mutex::new(Some(stream)));
        let (host, tls) = (host.clone(), self.tls.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (opened, host, tls) = (opened.clone(), host.clone(), tls.clone());
            async move {
                let first = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
                let stream = match first {
                    Some(stream) => stream,
                    None => open(&host, &tls).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The address is not looked at: the connector knows the way.
        let channel = Endpoint::from_static("http://broker").connect_with_connector(connector).await;
        channel.map_err(|error| Failure::from(Status::from_error(Box::new(error))))
    }

    /// What happened, and what to do.
    fn complaint(&self, host: &Host, error: &io::Error) -> String {
        let Host { name, port, .. } = host;
        let at = format!("{name}:{port}");
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return self.complaint_of_tls(&at, host, error);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "nothing listens at {at}. Does brokerd run there, and is its broker.admin.listener set to this port?"
            ),
            io::ErrorKind::TimedOut => {
                format!(
                    "no answer from {at} within {} seconds. Does a firewall keep it away?",
                    CONNECT_PATIENCE.as_secs()
                )
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                format!("{at} has hung up before TLS was spoken: {error}. Is it the port of broker.admin.listener?")
            }
            _ => format!("cannot connect to {at}: {error}"),
        }
    }

    fn complaint_of_tls(&self, at: &str, host: &Host, error: &rustls::Error) -> String {
        use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
        match error {
            InvalidCertificate(CertificateError::UnknownIssuer) => format!(
                "the certificate of {at} is not from an authority of {}: name the file of the right one with --ca-file",
                self.authorities
            ),
            InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                format!(
                    "the certificate of {at} is not for {}: connect with the name it is for, or say that with --server-name",
                    host.server_name.to_str()
                )
            }
            InvalidCertificate(error) => format!("the certificate of {at} is refused: {error}"),
            AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
                format!("{at} asks for a certificate: name one with --certificate and --key")
            }
            InvalidMessage(_) => format!("{at} does not speak TLS. Is it the port of broker.admin.listener?"),
            error => format!("no TLS with {at}: {error}"),
        }
    }
}

impl Host {
    fn read(text: &str, server_name: Option<&str>) -> Result<Host> {
        let bad = || Failure::usage(format!("'{text}' is no place of a broker: HOST, HOST:PORT or [ADDRESS]:PORT"));
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, rest) = rest.split_once(']').ok_or_else(bad)?;
                (
                    name,
                    rest.strip_prefix(':')
                        .map(str::to_owned)
                        .or_else(|| rest.is_empty().then(String::new))
                        .ok_or_else(bad)?,
                )
            }
            // An IPv6 address has several colons, and then no port.
            None if text.matches(':').count() == 1 => {
                text.split_once(':').map(|(name, port)| (name, port.to_owned())).ok_or_else(bad)?
            }
            None => (text, String::new()),
        };
        let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| bad())? };
        let certified = server_name.unwrap_or(name).to_owned();
        let server_name = ServerName::try_from(certified).map_err(|_| bad())?;
        Ok(Host { name: name.into(), port, server_name })
    }
}

async fn open(host: &Host, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let connecting = async {
        let stream = TcpStream::connect((&*host.name, host.port)).await?;
        stream.set_nodelay(true)?;
        tls.connect(host.server_name.clone(), stream).await
    };
    timeout(CONNECT_PATIENCE, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn authorities(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            Failure::new(Exit::Data, format!("{} holds no certificate of an authority: {error}", path.display()))
        })?;
    }
    Ok(roots)
}

/// Some of a machine's certificates may be odd; the others count.
fn authorities_of_the_machine() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::usage(
            "this machine trusts no authority: name the file of the one that the broker's certificate comes from with --ca-file",
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let octets = read(path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Failure::new(Exit::Data, format!("{} holds no certificate in PEM", path.display()))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let octets = Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&octets).map_err(|_| {
        Failure::new(Exit::Data, format!("{} holds no private key in PEM that is not encrypted", path.display()))
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PEM_MAX_BYTES).read_to_end(&mut octets));
    read.map_err(|error| Failure::new(Exit::Data, format!("cannot read {}: {error}", path.display())))?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn hosts_have_a_port_or_the_proposed_one() {
        let read = |text: &str| Host::read(text, None).map(|host| (host.name, host.port)).ok();
        assert_eq!(read("a.example"), Some(("a.example".into(), 15_680)));
        assert_eq!(read("a:1"), Some(("a".into(), 1)));
        assert_eq!(read("[::1]:7"), Some(("::1".into(), 7)));
        assert_eq!(read("[::1]"), Some(("::1".into(), 15_680)));
        assert_eq!(read("::1"), Some(("::1".into(), 15_680)));
        for wrong in ["", ":1", "a:x", "a:70000", "[::1", "[::1]7", "a b", "[::1]:"] {
            assert_eq!(read(wrong).filter(|_| wrong != "[::1]:"), None, "{wrong}");
        }
        let named = Host::read("10.0.0.1", Some("broker.example")).unwrap();
        assert_eq!(named.server_name.to_str(), "broker.example");
    }

    #[test]
    fn user_and_password_are_a_header_that_is_not_shown() {
        let header = Credentials::of("ann", "se:cret").unwrap().0.unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic YW5uOnNlOmNyZXQ=");
        assert!(header.is_sensitive() && !format!("{header:?}").contains("YW5u"));
        assert_eq!(Credentials::of("a:b", "x").err().unwrap().exit, Exit::Usage);
    }
}
