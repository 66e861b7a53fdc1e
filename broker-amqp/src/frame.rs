//! Frames: seven octets of head (type, channel, payload size), the payload, and one octet that ends it.

use crate::erlang;
use crate::exception::{Exception, ReplyCode};

/// A frame that carries a method.
pub const METHOD: u8 = 1;
/// A frame that carries a content header.
pub const HEADER: u8 = 2;
/// A frame that carries a piece of a body.
pub const BODY: u8 = 3;
/// A frame that only says that the peer lives.
pub const HEARTBEAT: u8 = 8;
/// The octet that ends every frame.
pub const END: u8 = 0xCE;
/// Octets before the payload.
pub const HEAD_BYTES: usize = 7;
/// Octets of a frame around its payload: head and end.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 1;
/// Every peer must be able to take frames of this size.
pub const MIN_MAX_BYTES: u32 = 4096;
/// What a peer whose limit is "no limit" still may not exceed with one frame, so that nobody makes us hold more.
pub const UNLIMITED_MAX_BYTES: u32 = 16 * 1024 * 1024;

/// The first seven octets of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// [`METHOD`], [`HEADER`], [`BODY`] or [`HEARTBEAT`], if the peer is honest.
    pub kind: u8,
    /// The channel.
    pub channel: u16,
    /// Octets of payload.
    pub size: u32,
}

impl Head {
    /// The head of the frame that begins here, if there are enough octets.
    pub fn parse(octets: &[u8]) -> Option<Head> {
        let head: &[u8; HEAD_BYTES] = octets.first_chunk()?;
        let [kind, c0, c1, s0, s1, s2, s3] = *head;
        Some(Head { kind, channel: u16::from_be_bytes([c0, c1]), size: u32::from_be_bytes([s0, s1, s2, s3]) })
    }

    /// Octets of the whole frame.
    pub fn frame_len(self) -> usize {
        self.size as usize + OVERHEAD_BYTES
    }

    /// The octets of this head.
    pub fn octets(self) -> [u8; HEAD_BYTES] {
        let [c0, c1] = self.channel.to_be_bytes();
        let [s0, s1, s2, s3] = self.size.to_be_bytes();
        [self.kind, c0, c1, s0, s1, s2, s3]
    }
}

/// Appends a frame whose payload `write` appends.
pub fn write(out: &mut Vec<u8>, kind: u8, channel: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&Head { kind, channel, size: 0 }.octets());
    write(out);
    let size = out.len() - start - HEAD_BYTES;
    if let Some(place) = out.get_mut(start + 3..start + HEAD_BYTES) {
        place.copy_from_slice(&(size as u32).to_be_bytes());
    }
    out.push(END);
}

/// A short string: a length octet and up to 255 octets. What is longer is cut.
pub fn write_short_string(out: &mut Vec<u8>, octets: &[u8]) {
    let octets = octets.get(..255).unwrap_or(octets);
    out.push(octets.len() as u8);
    out.extend_from_slice(octets);
}

/// 501 for octets that are not a frame; `why` is RabbitMQ's word for it.
pub(crate) fn error(kind: u8, payload: &[u8], why: &str) -> Exception {
    Exception::new(ReplyCode::FrameError, format!("{}: {why}", describe(kind, payload)))
}

/// 505 for a frame that is well formed but not due.
pub(crate) fn unexpected(kind: u8, payload: &[u8]) -> Exception {
    Exception::new(ReplyCode::UnexpectedFrame, describe(kind, payload))
}

fn describe(kind: u8, payload: &[u8]) -> String {
    let (which, shown) = match payload.get(..17) {
        None => ("all", payload),
        Some(more) => ("first 16", more.get(..16).unwrap_or(more)),
    };
    format!("type {kind}, {which} octets = {}", erlang::pretty(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_frame_reads_back() {
        let mut out = Vec::new();
        write(&mut out, METHOD, 7, |out| out.extend_from_slice(&[0, 10, 0, 51]));
        assert_eq!(out, [1, 0, 7, 0, 0, 0, 4, 0, 10, 0, 51, END]);
        let head = Head::parse(&out).unwrap();
        assert_eq!((head.channel, head.size, head.frame_len()), (7, 4, out.len()));
        assert_eq!(Head::parse(&out[..6]), None);
    }
}
