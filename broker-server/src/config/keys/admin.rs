//! The keys of the admin service.

use std::path::PathBuf;

use super::tls::{complete, path, shown_path};
use super::{Key, key, one, value};
use crate::config::admin::{ADMIN_KEYS, AdminConfig, AdminListener};
use crate::config::{Config, Listener, TlsConfig};

/// What only makes sense when the TLS of the AMQP listeners is known, whose options count where nothing else is said.
#[derive(Default)]
pub(super) struct AdminDraft {
    listener: Option<AdminListener>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
    verify_peer: Option<bool>,
    require_certificate: Option<bool>,
}

/// How all keys begin.
const BEGINNING: &str = "broker.admin.";

/// The key to blame and the complaint.
type Complaint = (&'static str, String);

impl AdminDraft {
    /// The finished part of a node with this TLS and these listeners for clients; or what does not fit together.
    pub fn finish(
        self,
        amqp: &TlsConfig,
        clients: &[Listener],
        warnings: &mut Vec<Complaint>,
    ) -> Result<AdminConfig, Complaint> {
        let Some(listener) = self.listener else {
            let said = [
                (self.certificate.is_some(), ADMIN_KEYS.certificate),
                (self.key.is_some(), ADMIN_KEYS.key),
                (self.authorities.is_some(), ADMIN_KEYS.authorities),
                (self.verify_peer.is_some(), ADMIN_KEYS.verify),
                (self.require_certificate.is_some(), ADMIN_KEYS.require),
            ];
            let said = said.into_iter().filter(|(is_said, _)| *is_said);
            warnings.extend(said.map(|(_, key)| (key, format!("has no effect without {}", ADMIN_KEYS.listener))));
            return Ok(AdminConfig::default());
        };
        // A certificate and its key go together: one of each kind would never fit.
        if self.certificate.is_some() != self.key.is_some() {
            let given = if self.certificate.is_some() { ADMIN_KEYS.certificate } else { ADMIN_KEYS.key };
            let text = format!("{} and {} go together", ADMIN_KEYS.certificate, ADMIN_KEYS.key);
            return Err((given, text));
        }
        let tls = TlsConfig {
            keys: ADMIN_KEYS,
            certificate: self.certificate.or_else(|| amqp.certificate.clone()),
            key: self.key.or_else(|| amqp.key.clone()),
            authorities: self.authorities.or_else(|| amqp.authorities.clone()),
            verify_peer: self.verify_peer.unwrap_or(amqp.verify_peer),
            require_certificate: self.require_certificate.unwrap_or(amqp.require_certificate),
            ..amqp.clone()
        };
        // What is missing may have been left to the other options: the admin service is what asks for it.
        complete(&tls).map_err(|(_, text)| (BEGINNING, text))?;
        let AdminListener { ip, port } = listener;
        let twin = clients
            .iter()
            .find(|one| one.port == port && port != 0 && (one.ip == ip || one.ip.is_none() || ip.is_none()));
        match twin {
            Some(twin) => {
                let key = ADMIN_KEYS.listener;
                Err((key, format!("{} and {key} both take port {port}", twin.key())))
            }
            None => Ok(AdminConfig { listener: Some(listener), tls }),
        }
    }
}

/// Shown where it means something.
fn shown(config: &Config, show: impl Fn(&TlsConfig) -> Vec<super::Shown>) -> Vec<super::Shown> {
    config.admin.listener.map_or(Vec::new(), |_| show(&config.admin.tls))
}

pub(super) const LISTENER: Key = Key {
    meaning: "Where `brokerctl` may connect from other machines: a port on all interfaces, or `IP:PORT`. With TLS only, by users \
              with one of RabbitMQ's management tags and their passwords. 15680 is proposed.",
    unit: "port or address",
    default: "",
    bounds: "port 0 to 65535; 0 takes a free one",
    ..key(
        ADMIN_KEYS.listener,
        |draft, given| {
            let (ip, port) = value::listen_address(given.value)?;
            draft.admin.listener = Some(AdminListener { ip, port });
            Ok(())
        },
        |config| {
            let place = |at: AdminListener| at.ip.map_or(at.port.to_string(), |ip| format!("{ip}:{}", at.port));
            config.admin.listener.map_or(Vec::new(), |at| one(ADMIN_KEYS.listener, place(at)))
        },
    )
};

pub(super) const CERTIFICATE: Key = Key {
    meaning: "Its certificate, as `ssl_options.certfile` and read again with it. All options of TLS that are not said here are \
              those of `ssl_options`.",
    unit: "path",
    default: "that of `ssl_options`",
    bounds: "not empty",
    ..key(
        ADMIN_KEYS.certificate,
        |draft, given| path(given).map(|path| draft.admin.certificate = Some(path)),
        |config| shown(config, |tls| shown_path(ADMIN_KEYS.certificate, tls.certificate.as_ref())),
    )
};

pub(super) const PRIVATE_KEY: Key = Key {
    meaning: "The certificate's private key.",
    unit: "path",
    default: "that of `ssl_options`",
    bounds: "not empty",
    ..key(
        ADMIN_KEYS.key,
        |draft, given| path(given).map(|path| draft.admin.key = Some(path)),
        |config| shown(config, |tls| shown_path(ADMIN_KEYS.key, tls.key.as_ref())),
    )
};

pub(super) const AUTHORITIES: Key = Key {
    meaning: "Certificates of the authorities that operators' certificates must come from, PEM.",
    unit: "path",
    default: "that of `ssl_options`",
    bounds: "not empty",
    ..key(
        ADMIN_KEYS.authorities,
        |draft, given| path(given).map(|path| draft.admin.authorities = Some(path)),
        |config| shown(config, |tls| shown_path(ADMIN_KEYS.authorities, tls.authorities.as_ref())),
    )
};

pub(super) const VERIFY: Key = Key {
    meaning: "Whether operators are asked for a certificate, besides the password.",
    unit: "name",
    default: "that of `ssl_options`",
    bounds: "verify_peer, verify_none",
    ..key(
        ADMIN_KEYS.verify,
        |draft, given| {
            let choices = [("verify_peer", true), ("verify_none", false)];
            value::choice(given.value, &choices).map(|verify| draft.admin.verify_peer = Some(verify))
        },
        |config| {
            let name = |tls: &TlsConfig| if tls.verify_peer { "verify_peer" } else { "verify_none" };
            shown(config, |tls| one(ADMIN_KEYS.verify, name(tls)))
        },
    )
};

pub(super) const REQUIRE: Key = Key {
    meaning: "With verify_peer: refuse operators without a certificate.",
    unit: "boolean",
    default: "that of `ssl_options`",
    bounds: "true, false",
    ..key(
        ADMIN_KEYS.require,
        |draft, given| value::boolean(given.value).map(|on| draft.admin.require_certificate = Some(on)),
        |config| shown(config, |tls| one(ADMIN_KEYS.require, tls.require_certificate)),
    )
};
