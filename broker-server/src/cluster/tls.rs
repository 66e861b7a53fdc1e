//! TLS between nodes: version 1.3, and both show a certificate.
//!
//! The proof of the cluster's secret that follows is bound to the session, so that nobody who has a certificate of the same authority can stand between
//! two nodes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::ground::Stream;
use crate::config::cluster::ClusterTls;
use crate::exit::{Code, Failure};
use crate::tls::files::{FileProblem, authorities, certificates, private_key, problem};

const CERTIFICATE: &str = "cluster.ssl_options.certfile";
const KEY: &str = "cluster.ssl_options.keyfile";
const AUTHORITIES: &str = "cluster.ssl_options.cacertfile";
/// What is exported of a session is for this.
const LABEL: &[u8] = b"EXPORTER-broker-peer";

/// Both ends of sessions.
#[derive(Clone)]
pub struct NodeTls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl NodeTls {
    /// Reads the files.
    pub fn new(config: &ClusterTls) -> Result<NodeTls, Failure> {
        let of_file = |problem: FileProblem| Failure::new(Code::Config, problem.to_string());
        let roots = Arc::new(authorities(AUTHORITIES, &config.authorities).map_err(of_file)?);
        let chain = certificates(CERTIFICATE, &config.certificate).map_err(of_file)?;
        let key = private_key(KEY, &config.key).map_err(of_file)?;
        let unusable = |error: rustls::Error| {
            let text = format!("certificate and key of {} are of no use: {error}", config.key.display());
            of_file(problem(CERTIFICATE, &config.certificate, &text))
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let verifier =
            verifier.map_err(|error| of_file(problem(AUTHORITIES, &config.authorities, &error.to_string())))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        Ok(NodeTls { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// Begins a session with the node at an address, `host:port`.
    pub async fn connect(&self, address: &str, stream: Stream) -> io::Result<NodeStream> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let stream = self.connector.connect(name, stream).await?;
        Ok(NodeStream::Tls(Box::new(stream.into())))
    }

    /// Answers a node that begins one.
    pub async fn accept(&self, stream: Stream) -> io::Result<NodeStream> {
        let stream = self.acceptor.accept(stream).await?;
        Ok(NodeStream::Tls(Box::new(stream.into())))
    }
}

/// A stream between nodes.
pub enum NodeStream {
    /// As it is.
    Plain(Stream),
    /// In a TLS session.
    Tls(Box<tokio_rustls::TlsStream<Stream>>),
}

impl NodeStream {
    /// What only the two ends of it know, if there is such a thing.
    pub fn exported(&self) -> io::Result<Option<[u8; 32]>> {
        let NodeStream::Tls(stream) = self else { return Ok(None) };
        let exported = match &**stream {
            tokio_rustls::TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], LABEL, None),
            tokio_rustls::TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], LABEL, None),
        };
        exported.map(Some).map_err(io::Error::other)
    }

    /// The socket and the session, for whoever drives them without tokio.
    pub fn into_parts(self) -> io::Result<(std::net::TcpStream, Option<Box<rustls::Connection>>)> {
        match self {
            NodeStream::Plain(stream) => Ok((stream.into_socket()?, None)),
            NodeStream::Tls(stream) => {
                let (stream, session) = match *stream {
                    tokio_rustls::TlsStream::Client(stream) => {
                        let (stream, session) = stream.into_inner();
                        (stream, rustls::Connection::Client(session))
                    }
                    tokio_rustls::TlsStream::Server(stream) => {
                        let (stream, session) = stream.into_inner();
                        (stream, rustls::Connection::Server(session))
                    }
                };
                Ok((stream.into_socket()?, Some(Box::new(session))))
            }
        }
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            NodeStream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            NodeStream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            NodeStream::Plain(stream) => Pin::new(stream).poll_write(context, octets),
            NodeStream::Tls(stream) => Pin::new(stream).poll_write(context, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            NodeStream::Plain(stream) => Pin::new(stream).poll_flush(context),
            NodeStream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            NodeStream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            NodeStream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            NodeStream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            NodeStream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
