//! Who another node is: proved on a fresh stream of octets before anything else is said on it.
//!
//! Both ends hold the cluster's secret and prove it to each other; neither says who it is before the other has. What is proved includes everything
//! that was said, and each proof names the role and the step, so that nothing of one conversation is of use in another, or turned round in its own.
//!
//! ```text
//! connector                                        acceptor
//!   hello (versions, nonce)  ──────────────────▶
//!                            ◀──────────────────   hello, proof
//!   identity, proof          ──────────────────▶   judged
//!   judged                   ◀──────────────────   identity, verdict, proof
//!   verdict, proof           ──────────────────▶
//! ```
//!
//! A plain state machine: octets and the time come in, octets and what became of it come out. docs/internals/peers.md draws the octets.

mod codec;
mod handshake;
mod secret;
#[cfg(test)]
mod tests;

pub use handshake::{HANDSHAKE_MAX_BYTES, HANDSHAKE_TIME, Handshake, Output, Role};
pub use secret::{Secret, TooShort};

use std::fmt;
use std::num::NonZeroU8;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

/// Numbers of the cluster's protocol that this version speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;
/// A node's name is no longer than this, in octets.
pub const NAME_MAX_BYTES: usize = 255;
/// Neither is the name of its version.
pub const SOFTWARE_MAX_BYTES: usize = 64;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to; none if it belongs to none yet.
    pub cluster: Option<[u8; 16]>,
    /// Its number in the cluster; 0 before it has one.
    pub node: u64,
    /// Of its start: higher than that of its earlier ones ([`Starts`](crate::raft::Starts)).
    pub incarnation: u64,
    /// As in `rabbit@host`, of at most [`NAME_MAX_BYTES`].
    pub name: String,
    /// As in `brokerd 0.1.0`, of at most [`SOFTWARE_MAX_BYTES`].
    pub software: String,
}

/// Another node that has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it says of itself.
    pub identity: Identity,
    /// The last start of this node that it had heard of, 0 for none.
    pub knows: u64,
    /// The highest number of the protocol that both speak.
    pub version: u16,
    /// With this key it signs what it sends, where there is no TLS.
    pub its_key: Key,
    /// With this key this node does.
    pub our_key: Key,
}

/// A key of one direction of one conversation. It is not shown, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub(crate) Zeroizing<[u8; 32]>);

impl Key {
    /// Its octets.
    pub fn octets(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Why two nodes do not talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One does not hold the secret of the other. Nothing more is said to a stranger.
    #[error(
        "the other node is not authenticated: the secret is not the same on both (cluster.secret_file), or it is no node of a cluster"
    )]
    NotAuthenticated,
    /// They have no protocol in common.
    #[error(
        "the other node speaks versions {} to {} of the cluster's protocol, this one {} to {}: upgrade the older of the two",
        theirs.start(), theirs.end(), ours.start(), ours.end()
    )]
    Versions {
        /// Those of the other node.
        theirs: RangeInclusive<u16>,
        /// Those of this one.
        ours: RangeInclusive<u16>,
    },
    /// They belong to different clusters.
    #[error(
        "the other node belongs to another cluster: a node that is to join this one must be reset first, or its list of nodes is wrong"
    )]
    AnotherCluster,
    /// The address leads back.
    #[error("the address is that of this node itself: take it out of the list of the other nodes")]
    Itself,
    /// The node is not, or no longer, a member.
    #[error(
        "the node is not a member of the cluster: it has to join, or it was removed and has to be reset before it joins again"
    )]
    NotAMember,
    /// Another node has its number or its name.
    #[error(
        "another node of the cluster has the same number or name: give each node a name and a data directory of its own"
    )]
    Taken,
    /// A later start of the same node is known.
    #[error("a later start of the same node is known: is it running twice, or was an older copy of its disk put back?")]
    Outdated,
    /// It is stopping, or paused.
    #[error("the node takes no part in the cluster at the moment: it is stopping or paused")]
    NotNow,
    /// It did not say all it had to in time.
    #[error("the other node did not prove who it is within {} seconds", HANDSHAKE_TIME.as_secs())]
    TookTooLong,
    /// What it said is no handshake.
    #[error("the other end does not speak as a node of a cluster: is the address that of another service?")]
    NoNode,
    /// A newer version has a reason that this one does not know.
    #[error("the other node refuses for a reason that this version does not know (number {0})")]
    Unknown(NonZeroU8),
}
