//! A message as it travels: the octets it came in, shared by every queue that holds it.
//!
//! Exchange and routing key stay the two short strings they were on the wire (a `basic.publish` and a `basic.deliver` carry them side by side),
//! properties stay the content header's payload, bodies stay bytes. So a delivery copies octets and never encodes a property, and what a client
//! sent comes back unchanged, whatever it was.
//!
//! Layout of the first part, which is also what the store writes:
//!
//! | octets | what |
//! |---|---|
//! | 4 | length `h` of the content header's payload, little-endian |
//! | 2 | length `r` of the route, little-endian |
//! | 1 | flags: bit 0 persistent, bit 1 hidden keys |
//! | 1 | reserved, 0 |
//! | r | route: exchange and routing key, each a short string (length octet, octets); with hidden keys these behind it, short strings too |
//! | h | content header's payload: class, weight, body size, property flags, properties |
//! | … | the body, unless it is held apart |

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;

/// Bodies up to this size lie in the same allocation as the rest of the message; larger ones are held as the chunks they arrived in.
pub const INLINE_BODY_MAX_BYTES: usize = 8 * 1024;
const PREFIX_BYTES: usize = 8;
const FLAGS_AT: usize = 6;
/// What a message costs in memory beside its octets, about.
const MEMORY_EXTRA_BYTES: usize = 64;
/// A content header's payload before its property flags: class, weight and body size.
const HEADER_FIXED_BYTES: usize = 12;
const FLAG_PERSISTENT: u8 = 1;
/// It was also routed by keys that nobody who receives it may see: those of a `BCC` header, which was taken out of it.
const FLAG_HIDDEN_KEYS: u8 = 2;

/// A published message, immutable and cheap to share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    first: Arc<[u8]>,
    /// The body in chunks, when it is not part of `first`.
    chunks: Option<Arc<[Bytes]>>,
}

/// A message that may still lie where it was read. Who wants it to stay makes it a [`Message`] with [`Content::keep`]; who passes it on at once
/// spares that.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In a buffer that will be used again.
    Passing(Passing<'a>),
    /// In memory of its own.
    Kept(&'a Message),
}

/// The parts of a message in a buffer that will be used again.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// Exchange and routing key: two short strings, well formed.
    pub route: &'a [u8],
    /// The content header's payload, at least up to the property flags.
    pub header: &'a [u8],
    /// The body, of at most [`INLINE_BODY_MAX_BYTES`].
    pub body: &'a [u8],
    /// It was published with delivery-mode 2.
    pub persistent: bool,
    /// Where those who keep it share it, when it goes to several queues.
    pub shared: Option<&'a OnceCell<Message>>,
}

impl<'a> Content<'a> {
    /// The message in memory of its own.
    pub fn keep(&self) -> Message {
        match self {
            Content::Kept(message) => (*message).clone(),
            Content::Passing(passing) => match passing.shared {
                Some(shared) => shared.get_or_init(|| passing.keep()).clone(),
                None => passing.keep(),
            },
        }
    }

    /// The same content; those who keep it share one message in `shared`.
    pub fn sharing(self, shared: &'a OnceCell<Message>) -> Content<'a> {
        match self {
            Content::Passing(passing) => Content::Passing(Passing { shared: Some(shared), ..passing }),
            kept => kept,
        }
    }

    /// Whether it was published with delivery-mode 2.
    pub fn persistent(&self) -> bool {
        match self {
            Content::Passing(passing) => passing.persistent,
            Content::Kept(message) => message.persistent(),
        }
    }

    /// What the message costs in memory once it is kept, about.
    pub fn memory(&self) -> usize {
        match self {
            Content::Passing(passing) => passing.first_len() + MEMORY_EXTRA_BYTES,
            Content::Kept(message) => message.memory(),
        }
    }

    /// Octets of the body, as the content header tells them.
    #[inline]
    pub fn body_bytes(&self) -> u64 {
        let size = self.header().get(4..HEADER_FIXED_BYTES).and_then(<[u8]>::first_chunk);
        size.map_or(0, |size| u64::from_be_bytes(*size))
    }

    /// Exchange and routing key as on the wire: two short strings.
    #[inline]
    pub fn route(&self) -> &'a [u8] {
        match self {
            Content::Passing(passing) => passing.route,
            Content::Kept(message) => message.route(),
        }
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> &'a [u8] {
        split_route(self.route()).map_or(&[], |(_, key)| key)
    }

    /// The content header's payload: class, weight, body size, property flags and properties.
    #[inline]
    pub fn header(&self) -> &'a [u8] {
        match self {
            Content::Passing(passing) => passing.header,
            Content::Kept(message) => message.header(),
        }
    }

    /// Route, header and inline body at once: what a delivery is made of.
    #[inline]
    pub fn pieces(&self) -> Pieces<'a> {
        match self {
            Content::Passing(Passing { route, header, body, .. }) => Pieces { route, header, inline_body: Some(body) },
            Content::Kept(message) => message.pieces(),
        }
    }
}

impl Passing<'_> {
    fn first_len(&self) -> usize {
        PREFIX_BYTES + self.route.len() + self.header.len() + self.body.len()
    }

    fn keep(&self) -> Message {
        let mut first: Arc<[u8]> = std::iter::repeat_n(0, self.first_len()).collect();
        if let Some(octets) = Arc::get_mut(&mut first) {
            let (prefix, rest) = octets.split_at_mut(PREFIX_BYTES);
            let (route, rest) = rest.split_at_mut(self.route.len());
            let (header, body) = rest.split_at_mut(self.header.len());
            prefix.copy_from_slice(&prefix_octets(self.route.len() as u16, self.header.len() as u32, self.persistent));
            route.copy_from_slice(self.route);
            header.copy_from_slice(self.header);
            body.copy_from_slice(self.body);
        }
        Message { first, chunks: None }
    }
}

/// A message's parts where they lie: see [`Message::route`], [`Message::header`] and [`Message::inline_body`].
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    /// Exchange and routing key.
    pub route: &'a [u8],
    /// The content header's payload.
    pub header: &'a [u8],
    /// The body, unless it is held in chunks.
    pub inline_body: Option<&'a [u8]>,
}

/// Why stored octets are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the octets do not hold a message: {0}")]
pub struct Malformed(&'static str);

impl Message {
    /// A message whose body is at hand. `route` is exchange and routing key as two short strings, `header` the content header's payload.
    /// `scratch` is reused between calls; the message itself is one allocation. `None` if route or header are not well formed or too long.
    pub fn new(route: &[u8], header: &[u8], body: &[u8], persistent: bool, scratch: &mut Vec<u8>) -> Option<Message> {
        scratch.clear();
        write_first(route, header, persistent, scratch)?;
        if body.len() <= INLINE_BODY_MAX_BYTES {
            scratch.extend_from_slice(body);
            return Some(Message { first: Arc::from(scratch.as_slice()), chunks: None });
        }
        Message::with_chunks(route, header, vec![Bytes::copy_from_slice(body)], persistent)
    }

    /// A message whose body arrived in chunks, which are kept as they are. `None` if route or header are not well formed or too long.
    pub fn with_chunks(route: &[u8], header: &[u8], chunks: Vec<Bytes>, persistent: bool) -> Option<Message> {
        let mut first = Vec::with_capacity(PREFIX_BYTES + route.len() + header.len());
        write_first(route, header, persistent, &mut first)?;
        Some(Message { first: Arc::from(first), chunks: Some(Arc::from(chunks)) })
    }

    /// The same body with another route and another content header; `hidden` are further routing keys that are not to be seen. `None` if route or
    /// header are not well formed or too long.
    pub fn changed<'a>(&self, route: &[u8], header: &[u8], hidden: impl Iterator<Item = &'a [u8]>) -> Option<Message> {
        if !route_is_well_formed(route) || header.len() < HEADER_FIXED_BYTES {
            return None;
        }
        let mut keys = route.to_vec();
        for key in hidden {
            keys.push(u8::try_from(key.len()).ok()?);
            keys.extend_from_slice(key);
        }
        let body = self.inline_body().unwrap_or_default();
        let mut first = Vec::with_capacity(PREFIX_BYTES + keys.len() + header.len() + body.len());
        let (keys_len, header_len) = (u16::try_from(keys.len()).ok()?, u32::try_from(header.len()).ok()?);
        first.extend_from_slice(&prefix_octets(keys_len, header_len, self.persistent()));
        if keys.len() > route.len()
            && let Some(flags) = first.get_mut(FLAGS_AT)
        {
            *flags |= FLAG_HIDDEN_KEYS;
        }
        first.extend_from_slice(&keys);
        first.extend_from_slice(header);
        first.extend_from_slice(body);
        Some(Message { first: Arc::from(first), chunks: self.chunks.clone() })
    }

    /// A message from what [`Message::parts`] wrote, one after the other.
    pub fn from_stored(octets: &[u8]) -> Result<Message, Malformed> {
        let head = Message::stored_head(octets)?;
        let first_len = head.len();
        if octets.len() - first_len <= INLINE_BODY_MAX_BYTES {
            return Ok(Message { first: Arc::from(octets), chunks: None });
        }
        let body = Bytes::copy_from_slice(&octets[first_len..]);
        Ok(Message { first: Arc::from(head), chunks: Some(Arc::from(vec![body])) })
    }

    /// What precedes the body in what [`Message::parts`] wrote, if it is that.
    pub(crate) fn stored_head(octets: &[u8]) -> Result<&[u8], Malformed> {
        let first_len = first_len(octets).ok_or(Malformed("lengths do not fit"))?;
        let head = octets.get(..first_len).ok_or(Malformed("cut short"))?;
        let keys = &head[PREFIX_BYTES..first_len - header_len(head)];
        let well_formed = match head[FLAGS_AT] & FLAG_HIDDEN_KEYS {
            0 => route_is_well_formed(keys),
            _ => short_strings(keys) >= 3,
        };
        if well_formed { Ok(head) } else { Err(Malformed("route")) }
    }

    /// The octets to store, in order; [`Message::from_stored`] reads them back.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&*self.first).chain(self.chunks.iter().flat_map(|chunks| chunks.iter().map(|chunk| &**chunk)))
    }

    /// How many octets [`Message::parts`] yields.
    pub fn stored_len(&self) -> usize {
        self.first.len() + self.chunks.as_ref().map_or(0, |chunks| chunks.iter().map(Bytes::len).sum())
    }

    /// What the message costs in memory, about.
    pub fn memory(&self) -> usize {
        self.stored_len() + MEMORY_EXTRA_BYTES
    }

    /// Exchange and routing key as on the wire: two short strings.
    pub fn route(&self) -> &[u8] {
        let keys = &self.first[PREFIX_BYTES..PREFIX_BYTES + self.keys_len()];
        if self.has_hidden_keys() { &keys[..two_short_strings(keys)] } else { keys }
    }

    /// Further keys it was routed by, which nobody who receives it may see.
    pub fn hidden_keys(&self) -> impl Iterator<Item = &[u8]> {
        let keys = &self.first[PREFIX_BYTES..PREFIX_BYTES + self.keys_len()];
        let mut rest = &keys[self.route().len()..];
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first()?;
            let (key, after) = after.split_at_checked(usize::from(len))?;
            rest = after;
            Some(key)
        })
    }

    /// The name of the exchange it was published to.
    pub fn exchange(&self) -> &[u8] {
        let route = self.route();
        &route[1..1 + usize::from(route[0])]
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> &[u8] {
        let route = self.route();
        &route[2 + usize::from(route[0])..]
    }

    /// The content header's payload: class, weight, body size, property flags and properties.
    pub fn header(&self) -> &[u8] {
        let start = PREFIX_BYTES + self.keys_len();
        &self.first[start..start + header_len(&self.first)]
    }

    /// Property flags and properties, as the client sent them.
    pub fn properties(&self) -> &[u8] {
        self.header().get(HEADER_FIXED_BYTES..).unwrap_or_default()
    }

    /// Length of the body in octets.
    pub fn body_len(&self) -> usize {
        self.body().map(<[u8]>::len).sum()
    }

    /// The body, in one or more pieces, or none when it is empty.
    pub fn body(&self) -> impl Iterator<Item = &[u8]> {
        let inline = &self.first[PREFIX_BYTES + self.keys_len() + header_len(&self.first)..];
        let chunks = self.chunks.as_deref().unwrap_or_default();
        std::iter::once(inline).filter(|body| !body.is_empty()).chain(chunks.iter().map(|chunk| &**chunk))
    }

    /// The body's chunks when it is held apart, to be sent without a copy.
    pub fn chunks(&self) -> Option<&Arc<[Bytes]>> {
        self.chunks.as_ref()
    }

    /// The body when it lies in one allocation with the rest.
    pub fn inline_body(&self) -> Option<&[u8]> {
        if self.chunks.is_some() {
            return None;
        }
        Some(&self.first[PREFIX_BYTES + self.keys_len() + header_len(&self.first)..])
    }

    /// Route, header and inline body at once: what a delivery is made of.
    #[inline]
    pub fn pieces(&self) -> Pieces<'_> {
        let after_prefix = self.first.get(PREFIX_BYTES..).unwrap_or_default();
        let (mut route, rest) = after_prefix.split_at_checked(self.keys_len()).unwrap_or_default();
        if self.has_hidden_keys() {
            route = self.route();
        }
        let (header, body) = rest.split_at_checked(header_len(&self.first)).unwrap_or_default();
        Pieces { route, header, inline_body: self.chunks.is_none().then_some(body) }
    }

    /// Whether it was published with delivery-mode 2.
    pub fn persistent(&self) -> bool {
        self.first[FLAGS_AT] & FLAG_PERSISTENT != 0
    }

    #[inline]
    fn has_hidden_keys(&self) -> bool {
        self.first[FLAGS_AT] & FLAG_HIDDEN_KEYS != 0
    }

    /// Octets of the route and of hidden keys behind it.
    fn keys_len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.first[4], self.first[5]]))
    }
}

/// The two short strings of a route, or `None` if the octets are not exactly two short strings.
pub fn split_route(route: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&exchange_len, rest) = route.split_first()?;
    let (exchange, rest) = rest.split_at_checked(usize::from(exchange_len))?;
    let (&key_len, key) = rest.split_first()?;
    (key.len() == usize::from(key_len)).then_some((exchange, key))
}

/// Octets of the first two short strings of keys that are known to be at least that.
fn two_short_strings(keys: &[u8]) -> usize {
    let exchange = usize::from(keys[0]);
    2 + exchange + usize::from(keys[1 + exchange])
}

/// How many short strings the octets are; 0 if they are none.
fn short_strings(mut octets: &[u8]) -> usize {
    let mut count = 0;
    while let Some((&len, rest)) = octets.split_first() {
        let Some(rest) = rest.get(usize::from(len)..) else { return 0 };
        octets = rest;
        count += 1;
    }
    count
}

fn route_is_well_formed(route: &[u8]) -> bool {
    split_route(route).is_some()
}

fn write_first(route: &[u8], header: &[u8], persistent: bool, out: &mut Vec<u8>) -> Option<()> {
    if !route_is_well_formed(route) || header.len() < HEADER_FIXED_BYTES {
        return None;
    }
    let (route_len, header_len) = (u16::try_from(route.len()).ok()?, u32::try_from(header.len()).ok()?);
    out.extend_from_slice(&prefix_octets(route_len, header_len, persistent));
    out.extend_from_slice(route);
    out.extend_from_slice(header);
    Some(())
}

fn prefix_octets(route_len: u16, header_len: u32, persistent: bool) -> [u8; PREFIX_BYTES] {
    let ([h0, h1, h2, h3], [r0, r1]) = (header_len.to_le_bytes(), route_len.to_le_bytes());
    [h0, h1, h2, h3, r0, r1, if persistent { FLAG_PERSISTENT } else { 0 }, 0]
}

fn header_len(first: &[u8]) -> usize {
    u32::from_le_bytes([first[0], first[1], first[2], first[3]]) as usize
}

/// Length of prefix, route and header, if the octets are long enough to tell.
fn first_len(octets: &[u8]) -> Option<usize> {
    let prefix = octets.get(..PREFIX_BYTES)?;
    let route = usize::from(u16::from_le_bytes([prefix[4], prefix[5]]));
    let header = header_len(prefix);
    (header >= HEADER_FIXED_BYTES).then(|| PREFIX_BYTES.checked_add(route)?.checked_add(header))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Message {
        Message::new(b"\x03foo\x02rk", b"\x00\x3c\x00\x00\0\0\0\0\0\0\0\x04\x10\x00\x02", body, true, &mut Vec::new())
            .unwrap()
    }

    #[test]
    fn parts_of_a_message_read_back_as_the_same_message() {
        for len in [0, 1, INLINE_BODY_MAX_BYTES, INLINE_BODY_MAX_BYTES + 1, 100_000] {
            let message = message(&vec![7; len]);
            let stored: Vec<u8> = message.parts().flatten().copied().collect();
            assert_eq!(stored.len(), message.stored_len());
            assert_eq!(Message::from_stored(&stored).unwrap(), message);
            assert_eq!(message.body_len(), len);
            assert_eq!((message.exchange(), message.routing_key()), (&b"foo"[..], &b"rk"[..]));
            assert_eq!(message.properties(), b"\x10\x00\x02");
            assert!(message.persistent());
            let pieces = message.pieces();
            assert_eq!((pieces.route, pieces.header), (message.route(), message.header()));
            assert_eq!(pieces.inline_body, message.inline_body());
        }
    }

    #[test]
    fn hidden_keys_are_kept_and_not_seen() {
        for len in [5, INLINE_BODY_MAX_BYTES + 1] {
            let plain = message(&vec![7; len]);
            let hidden = plain.changed(plain.route(), plain.header(), [&b"one"[..], b""].into_iter()).unwrap();
            assert_eq!((hidden.route(), hidden.header()), (plain.route(), plain.header()));
            assert_eq!((hidden.pieces().route, hidden.pieces().header), (plain.route(), plain.header()));
            assert_eq!((hidden.exchange(), hidden.routing_key()), (&b"foo"[..], &b"rk"[..]));
            assert!(hidden.hidden_keys().eq([&b"one"[..], b""]) && plain.hidden_keys().next().is_none());
            let body = |message: &Message| message.body().flatten().copied().collect::<Vec<u8>>();
            assert_eq!(body(&hidden), body(&plain));
            let stored: Vec<u8> = hidden.parts().flatten().copied().collect();
            assert_eq!(Message::from_stored(&stored).unwrap(), hidden);
            assert_eq!(hidden.changed(plain.route(), plain.header(), std::iter::empty()).unwrap(), plain);
        }
    }

    #[test]
    fn damaged_octets_are_refused() {
        let stored: Vec<u8> = message(b"body").parts().flatten().copied().collect();
        for cut in 0..stored.len() - 4 {
            assert!(Message::from_stored(&stored[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Message::new(b"\x09foo\x02rk", &[0; 14], b"", false, &mut Vec::new()).is_none());
    }
}
