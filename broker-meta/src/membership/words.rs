//! foca's words as octets.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Identity, Member, Message, State};

/// A node as foca knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) node: u64,
    pub(super) incarnation: u64,
    /// Raised when it was taken for down and is not.
    pub(super) renewal: u32,
    pub(super) address: SocketAddr,
}

impl Identity for Id {
    type Addr = u64;

    fn renew(&self) -> Option<Id> {
        Some(Id { renewal: self.renewal.wrapping_add(1), ..self.clone() })
    }

    fn addr(&self) -> u64 {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Id) -> bool {
        (self.incarnation, self.renewal) > (adversary.incarnation, adversary.renewal)
    }
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Words;

/// Octets that foca did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("octets that make no sense in gossip")]
pub(super) struct Nonsense;

impl Codec<Id> for Words {
    type Error = Nonsense;

    fn encode_header(&mut self, header: &Header<Id>, mut buf: impl BufMut) -> Result<(), Nonsense> {
        let (kind, other, number) = match &header.message {
            Message::Ping(number) => (1, None, *number),
            Message::Ack(number) => (2, None, *number),
            Message::PingReq { target, probe_number } => (3, Some(target), *probe_number),
            Message::IndirectPing { origin, probe_number } => (4, Some(origin), *probe_number),
            Message::IndirectAck { target, probe_number } => (5, Some(target), *probe_number),
            Message::ForwardedAck { origin, probe_number } => (6, Some(origin), *probe_number),
            Message::Announce => (7, None, 0),
            Message::Feed => (8, None, 0),
            Message::Gossip => (9, None, 0),
            Message::Broadcast => (10, None, 0),
            Message::TurnUndead => (11, None, 0),
        };
        room(&buf, 6 + 3 * 40)?;
        buf.put_u8(kind);
        buf.put_u16(header.src_incarnation);
        buf.put_u16(number.into());
        put_id(&header.src, &mut buf);
        put_id(&header.dst, &mut buf);
        if let Some(other) = other {
            put_id(other, &mut buf);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Id>, Nonsense> {
        let kind = take(&mut buf, Buf::try_get_u8)?;
        let src_incarnation = take(&mut buf, Buf::try_get_u16)?;
        let number = take(&mut buf, Buf::try_get_u16)?.try_into().map_err(|_| Nonsense)?;
        let (src, dst) = (take_id(&mut buf)?, take_id(&mut buf)?);
        let message = match kind {
            1 => Message::Ping(number),
            2 => Message::Ack(number),
            3 => Message::PingReq { target: take_id(&mut buf)?, probe_number: number },
            4 => Message::IndirectPing { origin: take_id(&mut buf)?, probe_number: number },
            5 => Message::IndirectAck { target: take_id(&mut buf)?, probe_number: number },
            6 => Message::ForwardedAck { origin: take_id(&mut buf)?, probe_number: number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::Broadcast,
            11 => Message::TurnUndead,
            _ => return Err(Nonsense),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Id>, mut buf: impl BufMut) -> Result<(), Nonsense> {
        room(&buf, 3 + 40)?;
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        buf.put_u16(member.incarnation());
        put_id(member.id(), &mut buf);
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Id>, Nonsense> {
        let state = match take(&mut buf, Buf::try_get_u8)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Nonsense),
        };
        let incarnation = take(&mut buf, Buf::try_get_u16)?;
        Ok(Member::new(take_id(&mut buf)?, incarnation, state))
    }
}

fn room(buf: &impl BufMut, wanted: usize) -> Result<(), Nonsense> {
    if buf.remaining_mut() < wanted { Err(Nonsense) } else { Ok(()) }
}

fn take<B: Buf, A, E>(buf: &mut B, get: impl FnOnce(&mut B) -> Result<A, E>) -> Result<A, Nonsense> {
    get(buf).map_err(|_| Nonsense)
}

/// 8 + 8 + 4 + 1 + 4 or 16 + 2 octets.
fn put_id(id: &Id, buf: &mut impl BufMut) {
    buf.put_u64(id.node);
    buf.put_u64(id.incarnation);
    buf.put_u32(id.renewal);
    match id.address.ip() {
        IpAddr::V4(address) => {
            buf.put_u8(4);
            buf.put_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            buf.put_u8(6);
            buf.put_slice(&address.octets());
        }
    }
    buf.put_u16(id.address.port());
}

fn take_id(buf: &mut impl Buf) -> Result<Id, Nonsense> {
    let node = take(buf, Buf::try_get_u64)?;
    let incarnation = take(buf, Buf::try_get_u64)?;
    let renewal = take(buf, Buf::try_get_u32)?;
    let ip: IpAddr = match take(buf, Buf::try_get_u8)? {
        4 => {
            let mut octets = [0; 4];
            buf.try_copy_to_slice(&mut octets).map_err(|_| Nonsense)?;
            octets.into()
        }
        6 => {
            let mut octets = [0; 16];
            buf.try_copy_to_slice(&mut octets).map_err(|_| Nonsense)?;
            octets.into()
        }
        _ => return Err(Nonsense),
    };
    let port = take(buf, Buf::try_get_u16)?;
    Ok(Id { node, incarnation, renewal, address: SocketAddr::new(ip, port) })
}
