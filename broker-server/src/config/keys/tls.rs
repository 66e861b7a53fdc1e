//! The keys of TLS.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    Draft, Given, Key, Shown, bounded, key, name_of, not_empty, numbered, one, optional, show_listener, value,
};
use crate::config::tls::{
    ALTERNATIVE_NAMES, AlternativeName, CIPHERS, LoginFrom, TlsConfig, TlsVersion, VERSIONS, cipher,
};
use crate::config::{Listener, Secret};

/// What only makes sense when all of it is known.
#[derive(Default)]
pub(super) struct TlsDraft {
    config: TlsConfig,
    listeners: Vec<Listener>,
    listeners_off: bool,
    versions: Vec<(u64, TlsVersion)>,
    ciphers: Vec<(u64, rustls::CipherSuite)>,
    ciphers_left_out: bool,
    login_from: Name,
    alternative_name: AlternativeName,
    alternative_index: usize,
}

#[derive(Clone, Copy, Default)]
enum Name {
    #[default]
    Distinguished,
    Common,
    Alternative,
}

const NAMES: &[(&str, Name)] = &[
    ("distinguished_name", Name::Distinguished),
    ("common_name", Name::Common),
    ("subject_alternative_name", Name::Alternative),
];
/// Versions that are asked for by old configurations.
const OLD_VERSIONS: &[&str] = &["tlsv1.1", "tlsv1", "tlsv1.0", "sslv3", "sslv2"];
/// A chain may not be longer, whatever is said.
const DEPTH_MAX: u64 = 6;

impl TlsDraft {
    /// The finished part, and the listeners; or what does not fit together.
    pub fn finish(mut self) -> Result<(TlsConfig, Vec<Listener>), (&'static str, String)> {
        let config = &mut self.config;
        if self.ciphers_left_out && self.ciphers.is_empty() {
            return Err(("ssl_options.ciphers", "none of these cipher suites exists here".into()));
        }
        self.versions.sort_by_key(|(place, _)| *place);
        self.ciphers.sort_by_key(|(place, _)| *place);
        config.versions = self.versions.into_iter().map(|(_, version)| version).collect();
        config.ciphers = self.ciphers.into_iter().map(|(_, suite)| suite).collect();
        config.login_from = match self.login_from {
            Name::Distinguished => LoginFrom::DistinguishedName,
            Name::Common => LoginFrom::CommonName,
            Name::Alternative => LoginFrom::AlternativeName(self.alternative_name, self.alternative_index),
        };
        if self.listeners_off {
            self.listeners.clear();
        }
        if !self.listeners.is_empty() {
            complete(config)?;
        }
        Ok((self.config, self.listeners))
    }
}

/// What listeners need.
pub(super) fn complete(config: &TlsConfig) -> Result<(), (&'static str, String)> {
    let keys = config.keys;
    let missing = |what: &str| Err((keys.listener, format!("TLS listeners need {what}, a PEM file")));
    if config.certificate.is_none() {
        return missing(keys.certificate);
    }
    if config.key.is_none() {
        return missing(keys.key);
    }
    if config.verify_peer && config.authorities.is_none() {
        return Err((keys.verify, format!("verify_peer needs {}, a PEM file", keys.authorities)));
    }
    if config.require_certificate && !config.verify_peer {
        let text =
            format!("fail_if_no_peer_cert needs {} = verify_peer: else no certificate is asked for", keys.verify);
        return Err((keys.require, text));
    }
    Ok(())
}

pub(super) const LISTENERS: Key = Key {
    meaning: "`none` turns all AMQP listeners with TLS off.",
    unit: "`none`",
    default: "",
    bounds: "`none`",
    ..key(
        "listeners.ssl",
        |draft, given| {
            value::choice(given.value, &[("none", ())])?;
            draft.tls.listeners_off = true;
            Ok(())
        },
        |_| Vec::new(),
    )
};

pub(super) const LISTENER: Key = Key {
    meaning: "An address AMQP clients may connect to with TLS: a port on all interfaces, or `IP:PORT`. RabbitMQ's is 5671.",
    unit: "port or address",
    default: "",
    bounds: "port 0 to 65535; 0 takes a free one",
    ..key(
        "listeners.ssl.$name",
        |draft, given| {
            let (ip, port) = value::listen_address(given.value)?;
            draft.tls.listeners.push(Listener { name: given.name().into(), ip, port, tls: true });
            Ok(())
        },
        |config| config.listeners.iter().filter(|listener| listener.tls).map(show_listener).collect(),
    )
};

pub(super) const NO_OPTIONS: Key = Key {
    meaning: "`none` leaves the options below as they are.",
    unit: "`none`",
    default: "",
    bounds: "`none`",
    ..key("ssl_options", |_, given| value::choice(given.value, &[("none", ())]), |_| Vec::new())
};

pub(super) const CERTIFICATE: Key = Key {
    meaning: "The node's certificate and behind it those that lead to its authority, PEM. Read again at SIGHUP, and when \
              one of the files has changed, which is looked at once a minute; open connections stay.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        "ssl_options.certfile",
        |draft, given| path(given).map(|path| draft.tls.config.certificate = Some(path)),
        |config| shown_path("ssl_options.certfile", config.tls.certificate.as_ref()),
    )
};

pub(super) const KEY: Key = Key {
    meaning: "Its private key, PEM (PKCS#8, PKCS#1 or SEC1), not encrypted.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        "ssl_options.keyfile",
        |draft, given| path(given).map(|path| draft.tls.config.key = Some(path)),
        |config| shown_path("ssl_options.keyfile", config.tls.key.as_ref()),
    )
};

pub(super) const PASSWORD: Key = Key {
    meaning: "Password of an encrypted key. Such keys are refused with the command that decrypts them; for others it \
              means nothing, as in RabbitMQ.",
    unit: "text",
    default: "",
    bounds: "",
    secret: true,
    ..key(
        "ssl_options.password",
        |draft, given| {
            draft.tls.config.key_password = Some(Secret::new(given.value));
            Ok(())
        },
        |config| optional("ssl_options.password", config.tls.key_password.as_ref()),
    )
};

pub(super) const AUTHORITIES: Key = Key {
    meaning: "Certificates of the authorities that clients' certificates must come from, PEM.",
    unit: "path",
    default: "",
    bounds: "not empty",
    ..key(
        "ssl_options.cacertfile",
        |draft, given| path(given).map(|path| draft.tls.config.authorities = Some(path)),
        |config| shown_path("ssl_options.cacertfile", config.tls.authorities.as_ref()),
    )
};

pub(super) const VERIFY: Key = Key {
    meaning: "`verify_peer` asks clients for a certificate and refuses one that is expired, not for clients, or not from \
              an authority of cacertfile; `verify_none` does not ask.",
    unit: "name",
    default: "verify_none",
    bounds: "verify_peer, verify_none",
    ..key(
        "ssl_options.verify",
        |draft, given| {
            let choices = [("verify_peer", true), ("verify_none", false)];
            value::choice(given.value, &choices).map(|verify| draft.tls.config.verify_peer = verify)
        },
        |config| one("ssl_options.verify", if config.tls.verify_peer { "verify_peer" } else { "verify_none" }),
    )
};

pub(super) const REQUIRE: Key = Key {
    meaning: "With verify_peer: refuse clients without a certificate.",
    unit: "boolean",
    default: "false",
    bounds: "true, false",
    ..key(
        "ssl_options.fail_if_no_peer_cert",
        |draft, given| value::boolean(given.value).map(|on| draft.tls.config.require_certificate = on),
        |config| one("ssl_options.fail_if_no_peer_cert", config.tls.require_certificate),
    )
};

pub(super) const DEPTH: Key = Key {
    meaning: "Certificates that may stand between a client's and its authority's; 6 at most are followed.",
    unit: "count",
    default: "6",
    bounds: "0 to 255",
    ..key(
        "ssl_options.depth",
        |draft, given| {
            let depth: u64 = bounded(given, 0..=255, "certificates")?;
            draft.tls.config.depth = usize::try_from(depth.min(DEPTH_MAX)).unwrap_or_default();
            Ok(())
        },
        |config| one("ssl_options.depth", config.tls.depth),
    )
};

pub(super) const VERSION: Key = Key {
    meaning: "A version that is spoken, `$version` being the place in the list. Older ones are refused: they are broken.",
    unit: "name",
    default: "tlsv1.3, tlsv1.2",
    bounds: "tlsv1.3, tlsv1.2",
    ..key(
        "ssl_options.versions.$version",
        |draft, given| {
            if OLD_VERSIONS.contains(&given.value) {
                return Err("is not spoken here, as it is broken; allowed: tlsv1.2, tlsv1.3".into());
            }
            let version = value::choice(given.value, VERSIONS)?;
            draft.tls.versions.push((place(given)?, version));
            Ok(())
        },
        |config| {
            numbered("ssl_options.versions", config.tls.versions.iter().map(|version| name_of(*version, VERSIONS)))
        },
    )
};

pub(super) const CIPHER: Key = Key {
    meaning: "A cipher suite that is spoken, `$cipher` being the place in the list; OpenSSL's name or the registered one.",
    unit: "name",
    default: "all there are",
    bounds: "TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, \
             ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256, \
             ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-CHACHA20-POLY1305; others that exist are left out with a warning",
    ..key(
        "ssl_options.ciphers.$cipher",
        |draft, given| {
            match cipher(given.value)? {
                Some(suite) => draft.tls.ciphers.push((place(given)?, suite)),
                None => {
                    draft.tls.ciphers_left_out = true;
                    draft.warning = Some("is left out: only suites with forward secrecy and AEAD are spoken here");
                }
            }
            Ok(())
        },
        |config| {
            let name = |suite| CIPHERS.iter().find(|(.., other)| *other == suite).map_or("", |(name, ..)| name);
            numbered("ssl_options.ciphers", config.tls.ciphers.iter().map(|suite| name(*suite)))
        },
    )
};

pub(super) const CIPHER_ORDER: Key = Key {
    meaning: "Whether the node's order of cipher suites counts, not the client's.",
    unit: "boolean",
    default: "true",
    bounds: "true, false",
    ..key(
        "ssl_options.honor_cipher_order",
        |draft, given| value::boolean(given.value).map(|on| draft.tls.config.honor_cipher_order = on),
        |config| one("ssl_options.honor_cipher_order", config.tls.honor_cipher_order),
    )
};

pub(super) const CURVE_ORDER: Key = Key {
    meaning: "The node's order of key exchanges always counts.",
    unit: "boolean",
    default: "true",
    bounds: "true, false",
    ..key(
        "ssl_options.honor_ecc_order",
        |draft, given| without_effect(draft, given, true, "has no effect: the node's order of key exchanges counts"),
        |_| Vec::new(),
    )
};

pub(super) const CLIENT_RENEGOTIATION: Key = Key {
    meaning: "Renegotiation is never done: TLS 1.3 has none, and with TLS 1.2 it is refused.",
    unit: "boolean",
    default: "false",
    bounds: "true, false",
    ..key(
        "ssl_options.client_renegotiation",
        |draft, given| without_effect(draft, given, false, "has no effect: renegotiation is always refused"),
        |_| Vec::new(),
    )
};

pub(super) const SECURE_RENEGOTIATION: Key = Key {
    meaning: "As above: what is never done is always secure.",
    unit: "boolean",
    default: "true",
    bounds: "true, false",
    ..key(
        "ssl_options.secure_renegotiate",
        |draft, given| without_effect(draft, given, true, "has no effect: renegotiation is always refused"),
        |_| Vec::new(),
    )
};

pub(super) const REUSE_SESSIONS: Key = Key {
    meaning: "Whether a client may resume an earlier session, which spares both sides most of the handshake.",
    unit: "boolean",
    default: "true",
    bounds: "true, false",
    ..key(
        "ssl_options.reuse_sessions",
        |draft, given| value::boolean(given.value).map(|on| draft.tls.config.reuse_sessions = on),
        |config| one("ssl_options.reuse_sessions", config.tls.reuse_sessions),
    )
};

pub(super) const REVOCATION: Key = Key {
    meaning: "Lists of revoked certificates are not looked at in this version; asking for it is an error.",
    unit: "name",
    default: "false",
    bounds: "false",
    ..key(
        "ssl_options.crl_check",
        |_, given| match given.value {
            "true" | "peer" | "best_effort" => Err("is not possible: revocation lists are not read here".into()),
            other => value::choice(other, &[("false", ())]),
        },
        |_| Vec::new(),
    )
};

pub(super) const HANDSHAKE_TIMEOUT: Key = Key {
    meaning: "Time a client has for its part of the TLS handshake, within `handshake_timeout`.",
    unit: "milliseconds",
    default: "5000",
    bounds: "100 to 600000",
    ..key(
        "ssl_handshake_timeout",
        |draft, given| {
            let range = Duration::from_millis(100)..=Duration::from_secs(600);
            draft.tls.config.handshake_timeout = value::duration(given.value, super::MILLISECOND, &range)?;
            Ok(())
        },
        |config| one("ssl_handshake_timeout", config.tls.handshake_timeout.as_millis()),
    )
};

pub(super) const LOGIN_FROM: Key = Key {
    meaning: "Which name of a client's certificate is its user's name, for the mechanism EXTERNAL: the whole subject as \
              RFC 4514 writes it (`CN=ann,O=example`), its common name, or an alternative name.",
    unit: "name",
    default: "distinguished_name",
    bounds: "distinguished_name, common_name, subject_alternative_name",
    ..key(
        "ssl_cert_login_from",
        |draft, given| value::choice(given.value, NAMES).map(|name| draft.tls.login_from = name),
        |config| {
            let name = match config.tls.login_from {
                LoginFrom::DistinguishedName => "distinguished_name",
                LoginFrom::CommonName => "common_name",
                LoginFrom::AlternativeName(..) => "subject_alternative_name",
            };
            one("ssl_cert_login_from", name)
        },
    )
};

pub(super) const ALTERNATIVE_KIND: Key = Key {
    meaning: "Which kind of alternative name. Addresses are written as text.",
    unit: "name",
    default: "dns",
    bounds: "dns, ip, email, uri, other_name",
    ..key(
        "ssl_cert_login_san_type",
        |draft, given| value::choice(given.value, ALTERNATIVE_NAMES).map(|kind| draft.tls.alternative_name = kind),
        |config| match config.tls.login_from {
            LoginFrom::AlternativeName(kind, _) => one("ssl_cert_login_san_type", name_of(kind, ALTERNATIVE_NAMES)),
            _ => Vec::new(),
        },
    )
};

pub(super) const ALTERNATIVE_INDEX: Key = Key {
    meaning: "Which of those of that kind, counted from 0.",
    unit: "count",
    default: "0",
    bounds: "0 to 1000",
    ..key(
        "ssl_cert_login_san_index",
        |draft, given| {
            let index: u16 = bounded(given, 0..=1_000, "")?;
            draft.tls.alternative_index = index.into();
            Ok(())
        },
        |config| match config.tls.login_from {
            LoginFrom::AlternativeName(_, index) => one("ssl_cert_login_san_index", index),
            _ => Vec::new(),
        },
    )
};

pub(super) fn path(given: &Given<'_>) -> Result<PathBuf, String> {
    not_empty(given.value).map(PathBuf::from)
}

pub(super) fn shown_path(key: &str, path: Option<&PathBuf>) -> Vec<Shown> {
    optional(key, path.map(|path| path.display()))
}

/// The place in a list that a key's last segment is.
fn place(given: &Given<'_>) -> Result<u64, String> {
    value::integer(given.name(), &(0..=1_000), "").map_err(|_| "has no number as its place".into())
}

/// A switch with one possible position.
fn without_effect(draft: &mut Draft, given: &Given<'_>, always: bool, why: &'static str) -> Result<(), String> {
    if value::boolean(given.value)? != always {
        draft.warning = Some(why);
    }
    Ok(())
}
