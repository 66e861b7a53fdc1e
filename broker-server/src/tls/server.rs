//! From the configuration to what a handshake needs.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls::{SupportedProtocolVersion, version};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{self, FileProblem, problem};
use crate::config::TlsConfig;
use crate::config::tls::TlsVersion;

/// Reads the files and puts together what handshakes need.
pub fn server_config(config: &TlsConfig) -> Result<ServerConfig, FileProblem> {
    let missing = Path::new("");
    let keys = config.keys;
    let certificate_path = config.certificate.as_deref().unwrap_or(missing);
    let key_path = config.key.as_deref().unwrap_or(missing);
    let chain = files::certificates(keys.certificate, certificate_path)?;
    let key = files::private_key(keys.key, key_path)?;
    warn_of_age(certificate_path, chain.first());

    let provider = Arc::new(provider(config));
    let versions = versions(config);
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions);
    let text = "the cipher suites of ssl_options.ciphers belong to none of the versions of ssl_options.versions";
    let builder = builder.map_err(|_| problem(keys.certificate, certificate_path, text))?;
    let builder = match verifier(config, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => problem(
            keys.key,
            key_path,
            &format!("the key does not belong to the certificate of {}", certificate_path.display()),
        ),
        error => files::encrypted_if_so(keys.key, key_path).unwrap_or_else(|| {
            problem(keys.certificate, certificate_path, &format!("certificate or key are of no use: {error}"))
        }),
    })?;
    server.ignore_client_order = config.honor_cipher_order;
    if !config.reuse_sessions {
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(server)
}

fn provider(config: &TlsConfig) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !config.ciphers.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let find = |wanted| all.iter().find(|suite| suite.suite() == wanted).copied();
        provider.cipher_suites = config.ciphers.iter().filter_map(|wanted| find(*wanted)).collect();
    }
    provider
}

fn versions(config: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let spoken = |one| config.versions.is_empty() || config.versions.contains(&one);
    let all = [(TlsVersion::V13, &version::TLS13), (TlsVersion::V12, &version::TLS12)];
    all.into_iter().filter(|(one, _)| spoken(*one)).map(|(_, version)| version).collect()
}

fn verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, FileProblem> {
    if !config.verify_peer {
        return Ok(None);
    }
    let path = config.authorities.as_deref().unwrap_or(Path::new(""));
    let authorities = Arc::new(files::authorities(config.keys.authorities, path)?);
    let builder = WebPkiClientVerifier::builder_with_provider(authorities, provider);
    let builder = if config.require_certificate { builder } else { builder.allow_unauthenticated() };
    let inner = builder.build().map_err(|error| problem(config.keys.authorities, path, &error.to_string()))?;
    Ok(Some(Arc::new(Bounded { inner, depth: config.depth })))
}

/// A verifier that takes chains up to a length.
#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn ClientCertVerifier>,
    depth: usize,
}

impl ClientCertVerifier for Bounded {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // The authority itself may be sent along and does not count.
        let between = intermediates.iter().filter(|certificate| !is_self_issued(certificate)).count();
        if between > self.depth {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, one)| one.subject().as_raw() == one.issuer().as_raw())
}

/// Clients will refuse a certificate whose time is over; the node cannot know whether they look at it.
fn warn_of_age(path: &Path, certificate: Option<&CertificateDer<'_>>) {
    let parsed = certificate.and_then(|octets| X509Certificate::from_der(octets).ok());
    let Some((_, certificate)) = parsed else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (from, until) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    if now > until {
        tracing::warn!(file = %path.display(), until = %certificate.validity().not_after, "the node's certificate has expired");
    } else if now < from {
        tracing::warn!(file = %path.display(), from = %certificate.validity().not_before, "the node's certificate is not valid yet");
    }
}
