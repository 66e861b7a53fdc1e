//! The few AMQP 0-9-1 frames that the generator and the null broker write and read, without any dependency on the
//! broker's own codec: a bench that shares code with what it measures would share its mistakes.

use std::io;

/// The octets that open a connection.
pub const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// The frame-max that the generator and the null broker negotiate, in octets with the framing.
pub const FRAME_MAX: u32 = 131_072;
/// Frame type of a method.
pub const METHOD: u8 = 1;
/// Frame type of a content header.
pub const HEADER: u8 = 2;
/// Frame type of a content body.
pub const BODY: u8 = 3;
/// The octet that ends each frame.
pub const FRAME_END: u8 = 0xCE;
/// Octets before the payload of a frame: type, channel, size.
pub const FRAME_PREFIX: usize = 7;

/// Class and method number.
pub type MethodId = (u16, u16);
/// connection.start
pub const CONNECTION_START: MethodId = (10, 10);
/// connection.start-ok
pub const CONNECTION_START_OK: MethodId = (10, 11);
/// connection.tune
pub const CONNECTION_TUNE: MethodId = (10, 30);
/// connection.tune-ok
pub const CONNECTION_TUNE_OK: MethodId = (10, 31);
/// connection.open
pub const CONNECTION_OPEN: MethodId = (10, 40);
/// connection.open-ok
pub const CONNECTION_OPEN_OK: MethodId = (10, 41);
/// connection.close
pub const CONNECTION_CLOSE: MethodId = (10, 50);
/// connection.close-ok
pub const CONNECTION_CLOSE_OK: MethodId = (10, 51);
/// connection.blocked
pub const CONNECTION_BLOCKED: MethodId = (10, 60);
/// connection.unblocked
pub const CONNECTION_UNBLOCKED: MethodId = (10, 61);
/// channel.open
pub const CHANNEL_OPEN: MethodId = (20, 10);
/// channel.open-ok
pub const CHANNEL_OPEN_OK: MethodId = (20, 11);
/// channel.close
pub const CHANNEL_CLOSE: MethodId = (20, 40);
/// channel.close-ok
pub const CHANNEL_CLOSE_OK: MethodId = (20, 41);
/// exchange.declare
pub const EXCHANGE_DECLARE: MethodId = (40, 10);
/// exchange.declare-ok
pub const EXCHANGE_DECLARE_OK: MethodId = (40, 11);
/// exchange.delete
pub const EXCHANGE_DELETE: MethodId = (40, 20);
/// exchange.delete-ok
pub const EXCHANGE_DELETE_OK: MethodId = (40, 21);
/// queue.declare
pub const QUEUE_DECLARE: MethodId = (50, 10);
/// queue.declare-ok
pub const QUEUE_DECLARE_OK: MethodId = (50, 11);
/// queue.bind
pub const QUEUE_BIND: MethodId = (50, 20);
/// queue.bind-ok
pub const QUEUE_BIND_OK: MethodId = (50, 21);
/// queue.unbind
pub const QUEUE_UNBIND: MethodId = (50, 50);
/// queue.unbind-ok
pub const QUEUE_UNBIND_OK: MethodId = (50, 51);
/// queue.delete
pub const QUEUE_DELETE: MethodId = (50, 40);
/// queue.delete-ok
pub const QUEUE_DELETE_OK: MethodId = (50, 41);
/// basic.qos
pub const BASIC_QOS: MethodId = (60, 10);
/// basic.qos-ok
pub const BASIC_QOS_OK: MethodId = (60, 11);
/// basic.consume
pub const BASIC_CONSUME: MethodId = (60, 20);
/// basic.consume-ok
pub const BASIC_CONSUME_OK: MethodId = (60, 21);
/// basic.cancel
pub const BASIC_CANCEL: MethodId = (60, 30);
/// basic.cancel-ok
pub const BASIC_CANCEL_OK: MethodId = (60, 31);
/// basic.publish
pub const BASIC_PUBLISH: MethodId = (60, 40);
/// basic.deliver
pub const BASIC_DELIVER: MethodId = (60, 60);
/// basic.get
pub const BASIC_GET: MethodId = (60, 70);
/// basic.get-ok
pub const BASIC_GET_OK: MethodId = (60, 71);
/// basic.ack
pub const BASIC_ACK: MethodId = (60, 80);
/// confirm.select
pub const CONFIRM_SELECT: MethodId = (85, 10);
/// confirm.select-ok
pub const CONFIRM_SELECT_OK: MethodId = (85, 11);

/// One whole frame inside a read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The frame type: [`METHOD`], [`HEADER`], [`BODY`] or 8, a heartbeat.
    pub kind: u8,
    /// The channel number.
    pub channel: u16,
    /// What is between the prefix and the frame end.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Class and method number of a method frame.
    #[must_use]
    pub fn method_id(&self) -> Option<MethodId> {
        if self.kind != METHOD {
            return None;
        }
        match self.payload {
            [class_high, class_low, method_high, method_low, ..] => {
                Some((u16::from_be_bytes([*class_high, *class_low]), u16::from_be_bytes([*method_high, *method_low])))
            }
            _ => None,
        }
    }

    /// Octets that this frame takes on the wire.
    #[must_use]
    pub fn wire_length(&self) -> usize {
        FRAME_PREFIX + self.payload.len() + 1
    }
}

/// The first whole frame of `buffer`, or `None` when more octets are needed.
///
/// # Errors
/// When the frame is larger than [`FRAME_MAX`] or does not end with [`FRAME_END`].
#[inline]
pub fn parse_frame(buffer: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let Some((prefix, rest)) = buffer.split_first_chunk::<FRAME_PREFIX>() else { return Ok(None) };
    let [kind, channel_high, channel_low, size @ ..] = *prefix;
    let size = u32::from_be_bytes(size);
    if size > FRAME_MAX - 8 {
        return Err(broken("a frame larger than frame-max"));
    }
    let Some((payload, rest)) = rest.split_at_checked(size as usize) else { return Ok(None) };
    let Some(&end) = rest.first() else { return Ok(None) };
    if end != FRAME_END {
        return Err(broken("a frame without its end octet"));
    }
    Ok(Some(Frame { kind, channel: u16::from_be_bytes([channel_high, channel_low]), payload }))
}

/// The error for octets that are no AMQP.
#[must_use]
pub fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the peer sent {what}"))
}

/// Appends a frame of `kind` whose payload `fill` writes.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let size_at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let size = u32::try_from(out.len() - size_at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(size_at..size_at + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    out.push(FRAME_END);
}

/// Appends a method frame whose arguments `fill` writes.
pub fn put_method(out: &mut Vec<u8>, channel: u16, id: MethodId, fill: impl FnOnce(&mut Vec<u8>)) {
    put_frame(out, METHOD, channel, |out| {
        put_u16(out, id.0);
        put_u16(out, id.1);
        fill(out);
    });
}

/// Appends a content header frame for class basic; `properties` are the flags and the values.
pub fn put_content_header(out: &mut Vec<u8>, channel: u16, body_length: usize, properties: &[u8]) {
    put_frame(out, HEADER, channel, |out| {
        put_u16(out, 60);
        put_u16(out, 0);
        put_u64(out, body_length as u64);
        out.extend_from_slice(properties);
    });
}

/// Appends a 16 bit number.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a 32 bit number.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a 64 bit number.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a short string, cut to 255 octets.
pub fn put_short_string(out: &mut Vec<u8>, text: &str) {
    let octets = text.as_bytes().get(..text.len().min(255)).unwrap_or_default();
    out.push(u8::try_from(octets.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(octets);
}

/// Appends a long string.
pub fn put_long_string(out: &mut Vec<u8>, octets: &[u8]) {
    put_u32(out, u32::try_from(octets.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(octets);
}

/// Reads arguments of a method from front to back.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a>(pub &'a [u8]);

impl<'a> Arguments<'a> {
    /// The arguments of a method frame, behind class and method number.
    #[must_use]
    pub fn of(frame: &Frame<'a>) -> Self {
        Self(frame.payload.get(4..).unwrap_or_default())
    }

    /// The next octet.
    ///
    /// # Errors
    /// When the arguments end before it.
    pub fn u8(&mut self) -> io::Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| broken("arguments cut short"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next 16 bit number.
    ///
    /// # Errors
    /// When the arguments end before it.
    pub fn u16(&mut self) -> io::Result<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    /// The next 32 bit number.
    ///
    /// # Errors
    /// When the arguments end before it.
    pub fn u32(&mut self) -> io::Result<u32> {
        self.chunk().map(u32::from_be_bytes)
    }

    /// The next 64 bit number.
    ///
    /// # Errors
    /// When the arguments end before it.
    pub fn u64(&mut self) -> io::Result<u64> {
        self.chunk().map(u64::from_be_bytes)
    }

    /// The next short string.
    ///
    /// # Errors
    /// When the arguments end before it.
    pub fn short_string(&mut self) -> io::Result<&'a [u8]> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(|| broken("arguments cut short"))?;
        self.0 = rest;
        Ok(text)
    }

    fn chunk<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| broken("arguments cut short"))?;
        self.0 = rest;
        Ok(*chunk)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_written_frame_reads_back() {
        let mut out = Vec::new();
        put_method(&mut out, 7, BASIC_QOS, |out| put_u32(out, 9));
        let frame = parse_frame(&out).unwrap().unwrap();
        assert_eq!((frame.method_id(), frame.channel, frame.wire_length()), (Some(BASIC_QOS), 7, out.len()));
        assert_eq!(Arguments::of(&frame).u32().unwrap(), 9);
    }

    #[test]
    fn a_cut_frame_needs_more_and_a_bad_end_is_an_error() {
        let mut out = Vec::new();
        put_method(&mut out, 1, BASIC_ACK, |out| put_u64(out, 1));
        for length in 0..out.len() {
            assert_eq!(parse_frame(&out[..length]).unwrap(), None);
        }
        *out.last_mut().unwrap() = 0;
        assert!(parse_frame(&out).is_err());
    }
}
