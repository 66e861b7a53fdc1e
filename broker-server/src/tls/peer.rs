//! Who is at the other end of a session.

use rustls::{CipherSuite, ProtocolVersion, ServerConnection};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::name;
use crate::config::tls::LoginFrom;

/// What a finished handshake tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// The version that is spoken: `tlsv1.2` or `tlsv1.3`.
    pub version: &'static str,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// The client's certificate, if it has one. It was verified.
    pub certificate: Option<Box<PeerCertificate>>,
}

/// What a client's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whose it is, as RFC 4514 writes it.
    pub subject: Box<str>,
    /// Who made it.
    pub issuer: Box<str>,
    /// From when until when it counts.
    pub validity: Box<str>,
    /// The user's name that the configuration takes from it.
    pub user: Option<Box<str>>,
}

impl TlsPeer {
    /// What is known when the handshake is over.
    pub(super) fn of(session: &ServerConnection, login_from: LoginFrom) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "tlsv1.2",
            _ => "tlsv1.3",
        };
        let suite =
            session.negotiated_cipher_suite().map_or(CipherSuite::TLS_NULL_WITH_NULL_NULL, |suite| suite.suite());
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.and_then(|octets| PeerCertificate::of(octets, login_from)).map(Box::new);
        Self { version, suite, certificate }
    }

    /// The user that the client's certificate names, or why there is none.
    ///
    /// # Errors
    /// What the log is to say.
    pub fn user(&self) -> Result<&str, &'static str> {
        let certificate = self.certificate.as_ref().ok_or("the client presented no certificate")?;
        certificate.user.as_deref().ok_or("there is no such name in the client's certificate (ssl_cert_login_from)")
    }
}

impl PeerCertificate {
    /// What a certificate's octets say; `None` if they are no certificate.
    #[must_use]
    pub fn of(octets: &[u8], login_from: LoginFrom) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(octets).ok()?;
        let validity = certificate.validity();
        Some(Self {
            subject: name::distinguished(certificate.subject()).into(),
            issuer: name::distinguished(certificate.issuer()).into(),
            validity: format!("{} - {}", time(validity.not_before), time(validity.not_after)).into(),
            user: name::login(&certificate, login_from).map(Into::into),
        })
    }
}

fn time(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let (date, clock) = ((time.year(), u8::from(time.month()), time.day()), time.to_hms());
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", date.0, date.1, date.2, clock.0, clock.1, clock.2)
}
