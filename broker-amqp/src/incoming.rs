//! Published messages on their way from the connection to the driver.

use broker_core::message::{Content, INLINE_BODY_MAX_BYTES, Message, Passing};

use crate::codec::Publish;
use crate::frame::HEAD_BYTES;

/// Octets of a publish before its route: the frame's head, class, method and the reserved short.
const BEFORE_ROUTE: usize = HEAD_BYTES + 6;
/// Octets between route and header: the publish's bits, its frame's end, and the next frame's head.
const BEFORE_HEADER: usize = 2 + HEAD_BYTES;
/// Octets between header and body: the header frame's end and the body frame's head.
const BEFORE_BODY: usize = 1 + HEAD_BYTES;

/// A message that was published: kept already, or still in the octets it came in, which [`Incoming::content`] must be given again.
#[derive(Debug)]
pub struct Incoming(Place);

#[derive(Debug)]
enum Place {
    Kept(Message),
    Read(Read),
}

/// Where a publish lies in the octets that [`Connection::receive`](crate::Connection::receive) was given.
#[derive(Clone, Copy, Debug)]
struct Read {
    at: u32,
    route_len: u16,
    header_len: u16,
    body_len: u16,
    persistent: bool,
}

impl Incoming {
    /// A publish that begins `at` so many octets into what was read. `None` if it is too large for this: then it is better kept right away.
    #[inline]
    pub(crate) fn read(at: usize, publish: &Publish<'_>) -> Option<Incoming> {
        if publish.body.len() > INLINE_BODY_MAX_BYTES {
            return None;
        }
        Some(Incoming(Place::Read(Read {
            at: u32::try_from(at).ok()?,
            route_len: u16::try_from(publish.route.len()).ok()?,
            header_len: u16::try_from(publish.header.len()).ok()?,
            body_len: u16::try_from(publish.body.len()).ok()?,
            persistent: publish.facts.persistent,
        })))
    }

    /// The message. `octets` are those of the call of [`Connection::receive`](crate::Connection::receive) that gave this output; outputs of other
    /// calls do not look at them. With other octets, what it says is as long as the message but means nothing.
    #[inline]
    pub fn content<'a>(&'a self, octets: &'a [u8]) -> Content<'a> {
        match &self.0 {
            Place::Kept(message) => Content::Kept(message),
            Place::Read(read) => {
                let part = |at: usize, len: u16| octets.get(at..at + usize::from(len)).unwrap_or_default();
                let route_at = read.at as usize + BEFORE_ROUTE;
                let header_at = route_at + usize::from(read.route_len) + BEFORE_HEADER;
                let body_at = header_at + usize::from(read.header_len) + BEFORE_BODY;
                Content::Passing(Passing {
                    route: part(route_at, read.route_len),
                    header: part(header_at, read.header_len),
                    body: part(body_at, read.body_len),
                    persistent: read.persistent,
                    shared: None,
                })
            }
        }
    }
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Incoming {
        Incoming(Place::Kept(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small() {
        assert!(size_of::<Incoming>() <= 32, "{}", size_of::<Incoming>());
        assert!(size_of::<crate::Output>() <= 48, "{}", size_of::<crate::Output>());
    }
}
