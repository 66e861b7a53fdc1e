//! What fuzz targets and property tests feed to the parts that hear other nodes before and beside everything else. Each `live` takes any octets, makes
//! something of them that gets far, and panics where something is not as it must be.
#![allow(missing_docs, dead_code, clippy::panic, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod gossip;
pub mod handshakes;

use broker_meta::peer::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const CONTENT: [u8; 40] = [1; 40];
const CLUSTER: [u8; 16] = [9; 16];
const PROOF_BYTES: usize = 32;

/// The cluster's.
fn secret() -> Secret {
    Secret::from_content(&CONTENT).unwrap()
}

/// Signs as whoever holds it does (docs/internals/peers.md).
fn sign(label: &[u8], said: &[&[u8]]) -> [u8; PROOF_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(&Sha256::digest(CONTENT)).unwrap();
    mac.update(&[label.len() as u8]);
    mac.update(label);
    said.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Octets that are read one after the other; when they are used up, zeros come.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.slice(N);
        std::array::from_fn(|at| taken.get(at).copied().unwrap_or_default())
    }

    fn next(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn slice(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A run of octets behind its length.
    fn run(&mut self) -> &'a [u8] {
        let len = self.next();
        self.slice(len.into())
    }
}
