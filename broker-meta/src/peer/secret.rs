//! The secret that all nodes of a cluster hold, and what is made with it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Key;

/// A secret has at least so many octets.
pub const SECRET_MIN_BYTES: usize = 32;

/// The cluster's secret. It is not shown, and its memory is wiped when it goes.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

/// What should be a secret has too few octets to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret has {0} octets; it must have at least {SECRET_MIN_BYTES}")]
pub struct TooShort(pub usize);

impl Secret {
    /// The secret in the content of a file: any octets, without the line's end behind them.
    pub fn from_content(content: &[u8]) -> Result<Secret, TooShort> {
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        if content.len() < SECRET_MIN_BYTES {
            return Err(TooShort(content.len()));
        }
        Ok(Secret(Zeroizing::new(Sha256::digest(content).into())))
    }

    /// The secret for a stream that has something of its own which only its two ends know, as TLS exports it: whoever stands between them does not have
    /// the same on both sides.
    pub fn bound_to(&self, exported: &[u8; 32]) -> Secret {
        Secret(Zeroizing::new(self.sign(b"broker peer 1: bound to a stream", &[exported])))
    }

    /// Signs what was said so far under a label, which says by whom and at which step.
    pub(crate) fn sign(&self, label: &[u8], said: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.mac(label);
        for part in said {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Whether that is what `sign` gives, found out in a time that does not depend on where they differ.
    pub(crate) fn proves(&self, label: &[u8], said: &[&[u8]], proof: &[u8]) -> bool {
        self.sign(label, said).ct_eq(proof).into()
    }

    pub(super) fn key(&self, label: &[u8], said: &[&[u8]]) -> Key {
        Key(Zeroizing::new(self.sign(label, said)))
    }

    fn mac(&self, label: &[u8]) -> Hmac<Sha256> {
        // HMAC fills a key up to its block with zeros (RFC 2104, section 2).
        let mut block = Zeroizing::new([0; 64]);
        if let Some(key) = block.first_chunk_mut() {
            *key = *self.0;
        }
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&(*block).into());
        mac.update(&[label.len() as u8]);
        mac.update(label);
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
