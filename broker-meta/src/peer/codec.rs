//! The octets of a handshake: each message is its length (2, big-endian), its kind (1) and its fields.

use std::num::NonZeroU8;
use std::ops::RangeInclusive;

use super::{Identity, NAME_MAX_BYTES, Refusal, SOFTWARE_MAX_BYTES};

/// Begins a hello: that the other end is meant to be a node shows at once.
pub(super) const MAGIC: &[u8; 8] = b"BRKPEER\0";
/// A message is no longer than this, length and kind not counted.
pub(super) const MESSAGE_MAX_BYTES: usize = 512;
pub(super) const PROOF_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 32;
pub(super) const HELLO: u8 = 1;
pub(super) const HELLO_PROOF: u8 = 2;
pub(super) const IDENTITY: u8 = 3;
pub(super) const ANSWER: u8 = 4;
pub(super) const VERDICT: u8 = 5;
/// A refusal without proof, to a stranger.
pub(super) const STRANGER: u8 = 6;

/// A message with its kind in front of it.
pub(super) fn put_message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(3 + len);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Kind, fields and length of a message.
type Message<'a> = (u8, &'a [u8], usize);

/// The message that begins here, if all of it is here.
pub(super) fn take_message(octets: &[u8]) -> Result<Option<Message<'_>>, Refusal> {
    let Some(&[l0, l1, kind]) = octets.first_chunk::<3>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if len > MESSAGE_MAX_BYTES || !(HELLO..=STRANGER).contains(&kind) {
        return Err(Refusal::NoNode);
    }
    Ok(octets.get(3..3 + len).map(|fields| (kind, fields, 3 + len)))
}

pub(super) fn put_hello(versions: &RangeInclusive<u16>, nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
    [&MAGIC[..], &versions.start().to_be_bytes(), &versions.end().to_be_bytes(), nonce].concat()
}

/// The versions in a hello.
pub(super) fn take_hello(fields: &[u8]) -> Option<RangeInclusive<u16>> {
    let (magic, rest) = fields.split_first_chunk::<8>()?;
    let (&[s0, s1, e0, e1], nonce) = rest.split_first_chunk::<4>()?;
    let (start, end) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([e0, e1]));
    (magic == MAGIC && nonce.len() == NONCE_BYTES && start <= end).then_some(start..=end)
}

pub(super) fn put_identity(identity: &Identity) -> Vec<u8> {
    let Identity { cluster, node, incarnation, name, software } = identity;
    let mut out = Vec::new();
    out.push(u8::from(cluster.is_some()));
    out.extend_from_slice(&cluster.unwrap_or_default());
    out.extend_from_slice(&node.to_be_bytes());
    out.extend_from_slice(&incarnation.to_be_bytes());
    for (text, max) in [(name, NAME_MAX_BYTES), (software, SOFTWARE_MAX_BYTES)] {
        // The configuration takes no longer ones; here it is a matter of the length's one octet.
        let text = text.get(..text.floor_char_boundary(max)).unwrap_or_default();
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The identity that begins here, and the octets behind it.
pub(super) fn take_identity(octets: &[u8]) -> Option<(Identity, &[u8])> {
    let (&has_cluster, rest) = octets.split_first().filter(|(has, _)| **has <= 1)?;
    let (cluster, rest) = rest.split_first_chunk::<16>()?;
    let (node, rest) = rest.split_first_chunk::<8>()?;
    let (incarnation, rest) = rest.split_first_chunk::<8>()?;
    let (name, rest) = take_text(rest, NAME_MAX_BYTES)?;
    let (software, rest) = take_text(rest, SOFTWARE_MAX_BYTES)?;
    let identity = Identity {
        cluster: (has_cluster == 1).then_some(*cluster),
        node: u64::from_be_bytes(*node),
        incarnation: u64::from_be_bytes(*incarnation),
        name,
        software,
    };
    Some((identity, rest))
}

fn take_text(octets: &[u8], max: usize) -> Option<(String, &[u8])> {
    let (&len, rest) = octets.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(len))?;
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= max)?;
    // It ends up in logs and on terminals.
    (!text.chars().any(char::is_control)).then(|| (text.into(), rest))
}

/// Number 0 is no refusal: the last start of the other that was heard of follows.
pub(super) fn put_verdict(verdict: &Result<u64, Refusal>) -> Vec<u8> {
    let (number, knows) = match verdict {
        Ok(knows) => (0, *knows),
        Err(why) => (number_of(why), 0),
    };
    [&[number][..], &knows.to_be_bytes()].concat()
}

fn number_of(why: &Refusal) -> u8 {
    match why {
        Refusal::NotAuthenticated => 1,
        Refusal::Versions { .. } => 2,
        Refusal::AnotherCluster => 3,
        Refusal::Itself => 4,
        Refusal::NotAMember => 5,
        Refusal::Taken => 6,
        Refusal::Outdated => 7,
        Refusal::NotNow => 8,
        Refusal::TookTooLong => 9,
        Refusal::NoNode => 10,
        Refusal::Unknown(number) => number.get(),
    }
}

/// What another node's verdict means here.
pub(super) fn take_verdict(octets: &[u8], versions: &Refusal) -> Option<Result<u64, Refusal>> {
    let (&number, knows) = octets.split_first()?;
    let knows = u64::from_be_bytes(knows.try_into().ok()?);
    let Some(number) = NonZeroU8::new(number) else { return Some(Ok(knows)) };
    Some(Err(match number.get() {
        1 => Refusal::NotAuthenticated,
        2 => versions.clone(),
        3 => Refusal::AnotherCluster,
        4 => Refusal::Itself,
        5 => Refusal::NotAMember,
        6 => Refusal::Taken,
        7 => Refusal::Outdated,
        8 => Refusal::NotNow,
        9 => Refusal::TookTooLong,
        10 => Refusal::NoNode,
        _ => Refusal::Unknown(number),
    }))
}
