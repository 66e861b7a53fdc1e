//! What an operator can say about TLS.

use std::path::PathBuf;
use std::time::Duration;

use rustls::CipherSuite;

use super::Secret;

/// TLS of the AMQP listeners, or of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where it was said.
    pub keys: KeyNames,
    /// PEM file with the node's certificate and, behind it, those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub key: Option<PathBuf>,
    /// Password of an encrypted key. There is no way to use one: it is known to say so.
    pub key_password: Option<Secret>,
    /// PEM file with the authorities that clients' certificates must come from.
    pub authorities: Option<PathBuf>,
    /// Clients are asked for a certificate, and one that is not from these authorities is refused.
    pub verify_peer: bool,
    /// Clients without a certificate are refused too.
    pub require_certificate: bool,
    /// Certificates a client may send between its own and the authority's.
    pub depth: usize,
    /// Versions spoken; none: all there are.
    pub versions: Vec<TlsVersion>,
    /// Cipher suites in order of preference; none: all there are.
    pub ciphers: Vec<CipherSuite>,
    /// Whether the node's order of cipher suites counts, not the client's.
    pub honor_cipher_order: bool,
    /// Whether a client may resume an earlier session.
    pub reuse_sessions: bool,
    /// Time a client has for its part of the handshake.
    pub handshake_timeout: Duration,
    /// Which name of a client's certificate is its user's, for the mechanism EXTERNAL.
    pub login_from: LoginFrom,
}

/// Names of the keys, for complaints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyNames {
    /// Of the listeners.
    pub listener: &'static str,
    /// Of the certificate.
    pub certificate: &'static str,
    /// Of its key.
    pub key: &'static str,
    /// Of the authorities.
    pub authorities: &'static str,
    /// Of whether clients are asked for a certificate.
    pub verify: &'static str,
    /// Of whether they must have one.
    pub require: &'static str,
}

/// The keys of the AMQP listeners.
pub const AMQP_KEYS: KeyNames = KeyNames {
    listener: "listeners.ssl",
    certificate: "ssl_options.certfile",
    key: "ssl_options.keyfile",
    authorities: "ssl_options.cacertfile",
    verify: "ssl_options.verify",
    require: "ssl_options.fail_if_no_peer_cert",
};

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

/// Where in a certificate a user's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFrom {
    /// The whole subject, as text.
    DistinguishedName,
    /// The subject's common names.
    CommonName,
    /// The subject's alternative name of this kind and with this number among them.
    AlternativeName(AlternativeName, usize),
}

/// Kinds of alternative names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlternativeName {
    /// A host's name.
    #[default]
    Dns,
    /// An address.
    Ip,
    /// A mail address.
    Email,
    /// A URI.
    Uri,
    /// Any other.
    Other,
}

/// Names of the versions.
pub(super) const VERSIONS: &[(&str, TlsVersion)] = &[("tlsv1.2", TlsVersion::V12), ("tlsv1.3", TlsVersion::V13)];

/// Names of the kinds.
pub(super) const ALTERNATIVE_NAMES: &[(&str, AlternativeName)] = &[
    ("dns", AlternativeName::Dns),
    ("ip", AlternativeName::Ip),
    ("email", AlternativeName::Email),
    ("uri", AlternativeName::Uri),
    ("other_name", AlternativeName::Other),
];

/// The cipher suites there are: OpenSSL's name, which RabbitMQ's documents use, and the registered one.
pub(super) const CIPHERS: &[(&str, &str, CipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// What names of suites that exist elsewhere are made of.
const CIPHER_WORDS: &[&str] = &[
    "3DES",
    "8",
    "128",
    "256",
    "40",
    "56",
    "ADH",
    "AECDH",
    "AES",
    "AES128",
    "AES256",
    "ANON",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "CBC",
    "CBC3",
    "CCM",
    "CCM8",
    "CHACHA20",
    "CTR",
    "DES",
    "DH",
    "DHE",
    "DSA",
    "DSS",
    "ECDH",
    "ECDHE",
    "ECDSA",
    "EDE",
    "EDH",
    "EMPTY",
    "GCM",
    "IDEA",
    "INFO",
    "KRB5",
    "MD5",
    "NULL",
    "POLY1305",
    "PSK",
    "RC2",
    "RC4",
    "RENEGOTIATION",
    "RSA",
    "SCSV",
    "SEED",
    "SHA",
    "SHA256",
    "SHA384",
    "SRP",
    "TLS",
    "WITH",
];

/// A suite by its name: `None` for one that exists and is not spoken here.
pub(super) fn cipher(name: &str) -> Result<Option<CipherSuite>, String> {
    let known = CIPHERS.iter().find(|(openssl, registered, _)| *openssl == name || *registered == name);
    if let Some((.., suite)) = known {
        return Ok(Some(*suite));
    }
    let upper = name.to_ascii_uppercase();
    if !name.is_empty() && upper.split(['-', '_']).all(|word| CIPHER_WORDS.contains(&word)) {
        return Ok(None);
    }
    let names: Vec<&str> = CIPHERS.iter().map(|(openssl, ..)| *openssl).collect();
    Err(format!("is no cipher suite; there are {}", names.join(", ")))
}

impl Default for TlsConfig {
    /// RabbitMQ's defaults.
    fn default() -> Self {
        Self {
            keys: AMQP_KEYS,
            certificate: None,
            key: None,
            key_password: None,
            authorities: None,
            verify_peer: false,
            require_certificate: false,
            depth: DEFAULT_DEPTH,
            versions: Vec::new(),
            ciphers: Vec::new(),
            honor_cipher_order: true,
            reuse_sessions: true,
            handshake_timeout: Duration::from_secs(5),
            login_from: LoginFrom::DistinguishedName,
        }
    }
}

/// Chains of more certificates are not followed.
const DEFAULT_DEPTH: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_two_names() {
        for (openssl, registered, suite) in CIPHERS {
            assert_eq!(cipher(openssl), Ok(Some(*suite)));
            assert_eq!(cipher(registered), Ok(Some(*suite)));
        }
    }

    #[test]
    fn suites_of_others_are_told_from_slips_of_the_pen() {
        for name in
            ["DHE-RSA-AES256-GCM-SHA384", "AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", "ECDH-ECDSA-AES256-SHA384"]
        {
            assert_eq!(cipher(name), Ok(None), "{name}");
        }
        for name in ["", "ECDHE-RSA-AES256-GCM-SHA38", "high"] {
            assert!(cipher(name).is_err_and(|text| text.contains("ECDHE-RSA-AES256-GCM-SHA384")), "{name}");
        }
    }
}
