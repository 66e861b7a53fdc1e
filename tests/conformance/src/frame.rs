//! Frames: type, channel, size, payload, end octet.

/// The octet that ends a frame.
pub const END: u8 = 0xce;
/// The frame type of methods.
pub const METHOD: u8 = 1;
/// The frame type of content headers.
pub const HEADER: u8 = 2;
/// The frame type of content bodies.
pub const BODY: u8 = 3;
/// The frame type of heartbeats.
pub const HEARTBEAT: u8 = 8;
/// The octets around a payload.
pub const OVERHEAD: usize = 8;

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    /// The type octet.
    pub kind: u8,
    /// The channel.
    pub channel: u16,
    /// What is in it.
    pub payload: Vec<u8>,
    /// The octet at its end; [`END`] if the sender kept to the protocol.
    pub end: u8,
}

/// A well-formed frame's octets.
pub fn encode(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(payload);
    out.push(END);
    out
}

/// Takes the first whole frame off the front of `buffer`.
pub fn take(buffer: &mut Vec<u8>) -> Option<Frame> {
    let (head, rest) = buffer.split_first_chunk::<7>()?;
    let [kind, c0, c1, s0, s1, s2, s3] = *head;
    let size = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).ok()?;
    let (payload, end) = (rest.get(..size)?.to_vec(), *rest.get(size)?);
    buffer.drain(..size + OVERHEAD);
    Some(Frame { kind, channel: u16::from_be_bytes([c0, c1]), payload, end })
}
