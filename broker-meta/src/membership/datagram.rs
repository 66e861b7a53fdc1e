//! Datagrams between nodes: who sends them, signed with the cluster's secret, each good for once.

use crate::peer::Secret;

/// A datagram is no longer than this, in octets: what passes any network in one piece.
pub const DATAGRAM_MAX_BYTES: usize = 1400;
/// What a datagram carries is no longer than this, in octets.
pub(super) const CARRIED_MAX_BYTES: usize = DATAGRAM_MAX_BYTES - AROUND_BYTES;
/// Octets around what a datagram carries.
const AROUND_BYTES: usize = HEAD_BYTES + PROOF_BYTES;
const MAGIC: &[u8; 4] = b"BRKG";
/// Of the format.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8 + 8;
const PROOF_BYTES: usize = 32;
const LABEL: &[u8] = b"broker gossip 1";
/// Datagrams that come so much later than others of their sender are taken for repeated.
const WINDOW: u64 = 64;

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Probes, suspicions, refutations.
    Probe = 1,
    Digest = 2,
    Facts = 3,
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejection {
    /// It is none.
    #[error("octets that are no datagram of a node")]
    NoDatagram,
    /// It comes from a node that is no member, as far as is known here.
    #[error("a datagram of a node that is no member of the cluster")]
    Stranger,
    /// It is signed with another secret, or was changed on its way.
    #[error("a datagram that is not signed with this cluster's secret (cluster.secret_file)")]
    NotAuthenticated,
    /// It comes from another cluster with the same secret.
    #[error("a datagram of another cluster with the same secret: give each cluster a secret of its own")]
    AnotherCluster,
    /// Its format is newer.
    #[error("a datagram in a newer format: upgrade this node")]
    Newer,
    /// It came before, or too late to tell.
    #[error("a datagram that came before, or of an earlier start of its node")]
    Repeated,
}

/// Who sent a datagram, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened<'a> {
    pub(super) kind: Kind,
    pub(super) node: u64,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) carried: &'a [u8],
}

pub(super) fn seal(
    secret: &Secret,
    cluster: &[u8; 16],
    (node, incarnation, sequence): (u64, u64, u64),
    kind: Kind,
    carried: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(AROUND_BYTES + carried.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, kind as u8]);
    out.extend_from_slice(cluster);
    for number in [node, incarnation, sequence] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(carried);
    let proof = secret.sign(LABEL, &[&out]);
    out.extend_from_slice(&proof);
    out
}

pub(super) fn open<'a>(secret: &Secret, cluster: &[u8; 16], octets: &'a [u8]) -> Result<Opened<'a>, Rejection> {
    if octets.len() < AROUND_BYTES || octets.len() > DATAGRAM_MAX_BYTES || !octets.starts_with(MAGIC) {
        return Err(Rejection::NoDatagram);
    }
    if octets[4] > VERSION {
        return Err(Rejection::Newer);
    }
    let (signed, proof) = octets.split_at(octets.len() - PROOF_BYTES);
    if !secret.proves(LABEL, &[signed], proof) {
        return Err(Rejection::NotAuthenticated);
    }
    let number = |at: usize| signed.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |o| u64::from_be_bytes(*o));
    if signed.get(6..22) != Some(cluster) {
        return Err(Rejection::AnotherCluster);
    }
    let kind = match signed[5] {
        1 => Kind::Probe,
        2 => Kind::Digest,
        3 => Kind::Facts,
        _ => return Err(Rejection::NoDatagram),
    };
    let carried = signed.get(HEAD_BYTES..).unwrap_or_default();
    Ok(Opened { kind, node: number(22), incarnation: number(30), sequence: number(38), carried })
}

/// Which datagrams of a sender have come.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    incarnation: u64,
    highest: u64,
    /// Bit `n`: `highest - n` has come.
    seen: u64,
}

impl Window {
    /// Whether it comes for the first time; it counts as come from now on.
    pub(super) fn is_new(&mut self, incarnation: u64, sequence: u64) -> bool {
        if incarnation < self.incarnation || sequence == 0 {
            return false;
        }
        if incarnation > self.incarnation {
            *self = Window { incarnation, highest: sequence, seen: 1 };
            return true;
        }
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.seen = if ahead >= WINDOW { 0 } else { self.seen << ahead } | 1;
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}
