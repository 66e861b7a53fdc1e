//! Contents: what a content header says, and bodies while they arrive.
//!
//! Properties are read where they lie and never rebuilt, with two exceptions: the `BCC` header is cut out of a message before anyone receives it,
//! and a request for a direct reply is given its address.

use broker_core::message::{INLINE_BODY_MAX_BYTES, Message};
use broker_core::properties::{self, Values};
use bytes::Bytes;

use crate::exception::Exception;
use crate::reply_to;
use crate::table;

pub(crate) use broker_core::properties::FIXED_BYTES;
/// A routing key may be this long, in octets.
const KEY_MAX_BYTES: usize = u8::MAX as usize;
/// Octets of the hidden keys of a message, each with its length: they and the longest route fit into what a message has room for.
pub const HIDDEN_MAX_BYTES: usize = u16::MAX as usize - 2 * (1 + KEY_MAX_BYTES);
/// Bodies that are held apart from their message are gathered in pieces of this size.
const PIECE_BYTES: usize = 128 * 1024;
/// The longest expiration, in milliseconds: ten years.
const EXPIRATION_MAX_MS: i128 = 315_360_000_000;

pub use broker_core::properties::{flag, property};

/// Properties whose values are rules, not just data.
const RULES: u16 = flag::HEADERS | flag::EXPIRATION | flag::USER_ID;

/// What a publish needs to know of its properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `delivery-mode` is 2.
    pub persistent: bool,
    /// There are properties that [`refusal`] must look at, or `reply-to` must be rewritten.
    pub has_rules: bool,
    /// `reply-to` asks for a direct reply: see [`crate::reply_to`].
    pub wants_reply: bool,
}

/// Reads property flags and properties from end to end. `None` if they are not well formed.
pub fn check(properties: &[u8]) -> Option<Facts> {
    let mut values = Values::new(properties)?;
    let Values { flags, rest } = values;
    // Most messages have no property but the delivery mode.
    match (flags & !0b11, rest) {
        (0, []) => return Some(Facts { persistent: false, has_rules: false, wants_reply: false }),
        (flag::DELIVERY_MODE, &[mode]) => {
            return Some(Facts { persistent: mode == 2, has_rules: !is_known_mode(mode), wants_reply: false });
        }
        _ => {}
    }
    let mut persistent = false;
    let mut has_rules = flags & RULES != 0;
    let mut wants_reply = false;
    while let Some((which, value)) = values.next_value()? {
        match which {
            flag::DELIVERY_MODE => {
                persistent = value == [2];
                has_rules |= !value.iter().copied().all(is_known_mode);
            }
            flag::HEADERS if !table::is_well_formed(value) => return None,
            flag::REPLY_TO => {
                wants_reply = value == reply_to::QUEUE.as_bytes();
                has_rules |= wants_reply;
            }
            _ => {}
        }
    }
    values.rest.is_empty().then_some(Facts { persistent, has_rules, wants_reply })
}

fn is_known_mode(mode: u8) -> bool {
    matches!(mode, 1 | 2)
}

/// All properties that are set with their values, as [`property`] gives them, in the order of their flags.
pub fn each_property(properties: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut values = Values::new(properties);
    std::iter::from_fn(move || values.as_mut()?.next_value().flatten())
}

/// The routing keys in the headers `CC` and `BCC`.
pub fn extra_routes(properties: &[u8]) -> impl Iterator<Item = &[u8]> {
    let headers = property(properties, flag::HEADERS).unwrap_or_default();
    [&b"CC"[..], b"BCC"]
        .into_iter()
        .filter_map(|name| table::content_of(table::lookup(headers, name)?, b'A'))
        .flat_map(table::items)
        .filter_map(|item| table::content_of(item, b'S'))
}

/// The same message without its `BCC` header, whose keys are kept where nobody who receives it sees them; `None` if it has none. Not kept are keys
/// longer than a routing key and those beyond [`HIDDEN_MAX_BYTES`]: a dead letter of the message does not go by them.
pub fn without_bcc(message: &Message) -> Option<Message> {
    let headers = property(message.properties(), flag::HEADERS)?;
    let hidden = table::content_of(table::lookup(headers, b"BCC")?, b'A').into_iter().flat_map(table::items);
    let mut seen = Vec::with_capacity(headers.len());
    for (name, value) in table::fields(headers).filter(|(name, _)| *name != b"BCC") {
        seen.push(name.len() as u8);
        seen.extend_from_slice(name);
        seen.extend_from_slice(value);
    }
    let header = properties::changed(message.header(), &[(flag::HEADERS, Some(&seen))])?;
    let mut room = HIDDEN_MAX_BYTES;
    let kept = hidden.filter_map(|item| table::content_of(item, b'S')).filter(|key| {
        let fits = key.len() <= KEY_MAX_BYTES && key.len() < room;
        room -= if fits { 1 + key.len() } else { 0 };
        fits
    });
    message.changed(message.route(), &header, kept)
}

/// The same message with another `reply-to`; `None` if it has none, or that would be too long.
pub(crate) fn with_reply_to(message: &Message, address: &[u8]) -> Option<Message> {
    property(message.properties(), flag::REPLY_TO)?;
    let header = properties::changed(message.header(), &[(flag::REPLY_TO, Some(address))])?;
    message.changed(message.route(), &header, message.hidden_keys())
}

/// Why a publish with these properties is refused, in the order RabbitMQ looks at them.
pub(crate) fn refusal(properties: &[u8], user: &str, impersonator: bool) -> Option<Exception> {
    if let Some(claimed) = property(properties, flag::USER_ID)
        && claimed != user.as_bytes()
        && !impersonator
    {
        return Some(Exception::wrong_user_id(&String::from_utf8_lossy(claimed), user));
    }
    if let Some(expiration) = property(properties, flag::EXPIRATION)
        && let Err(why) = parse_expiration(expiration)
    {
        return Some(Exception::invalid_expiration(&String::from_utf8_lossy(expiration), why));
    }
    if let Some(&[mode]) = property(properties, flag::DELIVERY_MODE)
        && !is_known_mode(mode)
    {
        return Some(Exception::precondition(format!("invalid message: {{delivery_mode_unknown,{mode}}}")));
    }
    let headers = property(properties, flag::HEADERS)?;
    ["CC", "BCC"].into_iter().find_map(|name| {
        let value = table::lookup(headers, name.as_bytes())?;
        (value.first() != Some(&b'A')).then(|| {
            let kind = table::type_name(value);
            Exception::precondition(format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}"))
        })
    })
}

/// The expiration in milliseconds, or what RabbitMQ says is wrong with it.
pub fn parse_expiration(text: &[u8]) -> Result<u64, String> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let len = digits.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let (number, leftover) = digits.split_at(len);
    if number.is_empty() {
        return Err("no_integer".into());
    }
    if !leftover.is_empty() {
        return Err(format!("{{leftover_string,\"{}\"}}", String::from_utf8_lossy(leftover)));
    }
    // At most 255 digits: what does not fit is too large whatever it is.
    let number = std::str::from_utf8(number).unwrap_or_default();
    match number.parse::<i128>() {
        Ok(value) if negative && value > 0 => Err(format!("{{value_negative,-{value}}}")),
        Ok(value) if value <= EXPIRATION_MAX_MS => Ok(value as u64),
        _ => Err(format!("{{value_too_large,{number}}}")),
    }
}

/// A publish whose header or body has not arrived in full.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) mandatory: bool,
    route: Vec<u8>,
    /// The content header's payload; empty until it is here.
    header: Vec<u8>,
    facts: Facts,
    /// Octets of the body that are still to come.
    left: u64,
    pieces: Vec<Bytes>,
    current: Vec<u8>,
}

impl Content {
    /// A publish of which only the method has come.
    pub(crate) fn new(route: &[u8], mandatory: bool) -> Content {
        Content {
            mandatory,
            route: route.to_vec(),
            header: Vec::new(),
            facts: Facts { persistent: false, has_rules: false, wants_reply: false },
            left: 0,
            pieces: Vec::new(),
            current: Vec::new(),
        }
    }

    pub(crate) fn has_header(&self) -> bool {
        !self.header.is_empty()
    }

    pub(crate) fn start_body(&mut self, header: &[u8], facts: Facts, body_len: u64) {
        self.header = header.to_vec();
        self.facts = facts;
        self.left = body_len;
    }

    /// Octets of the body that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// What is held in memory, about.
    pub(crate) fn memory(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(Bytes::len).sum();
        size_of::<Content>() + self.route.capacity() + self.header.capacity() + pieces + self.current.capacity()
    }

    /// Adds octets of the body; `more` of the same frame will follow. The caller has checked that all of them are still wanted.
    pub(crate) fn append(&mut self, mut octets: &[u8], more: usize) {
        self.left = self.left.saturating_sub(octets.len() as u64);
        while !octets.is_empty() {
            if self.current.is_empty() {
                self.current.reserve_exact((octets.len() + more).min(PIECE_BYTES));
            }
            let (now, later) = octets.split_at(octets.len().min(PIECE_BYTES - self.current.len()));
            self.current.extend_from_slice(now);
            octets = later;
            if self.current.len() == PIECE_BYTES {
                self.pieces.push(Bytes::from(std::mem::take(&mut self.current)));
            }
        }
    }

    /// The message, and what is to be known of it, once nothing is left to come.
    pub(crate) fn finish(mut self, scratch: &mut Vec<u8>) -> Option<(Message, Facts)> {
        let message = if self.pieces.is_empty() && self.current.len() <= INLINE_BODY_MAX_BYTES {
            Message::new(&self.route, &self.header, &self.current, self.facts.persistent, scratch)?
        } else {
            if !self.current.is_empty() {
                self.current.shrink_to_fit();
                self.pieces.push(Bytes::from(self.current));
            }
            Message::with_chunks(&self.route, &self.header, self.pieces, self.facts.persistent)?
        };
        Some((message, self.facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(flags: u16, values: &[u8]) -> Vec<u8> {
        [&flags.to_be_bytes()[..], values].concat()
    }

    fn facts(persistent: bool, has_rules: bool) -> Facts {
        Facts { persistent, has_rules, wants_reply: false }
    }

    #[test]
    fn facts_are_read_from_flags() {
        assert_eq!(check(&properties(0, b"")), Some(facts(false, false)));
        assert_eq!(check(&properties(0x1000, b"\x02")), Some(facts(true, false)));
        assert_eq!(check(&properties(0x9000, b"\x01a\x02")), Some(facts(true, false)));
        assert_eq!(check(&properties(0x0100, b"\x0210")), Some(facts(false, true)));
        let request = properties(0x0200, b"\x15amq.rabbitmq.reply-to");
        assert_eq!(check(&request), Some(Facts { persistent: false, has_rules: true, wants_reply: true }));
        assert_eq!(check(&properties(0x0200, b"\x16amq.rabbitmq.reply-to.")), Some(facts(false, false)));
        assert_eq!(check(&properties(0x1000, b"")), None);
        assert_eq!(check(&properties(0, b"x")), None);
        assert_eq!(check(&properties(0x2000, b"\0\0\0\x03\x01aZ")), None);
        assert_eq!(check(b"\0"), None);
    }

    #[test]
    fn rules_are_refused_in_rabbitmqs_words() {
        let text =
            |flags, values: &[u8]| refusal(&properties(flags, values), "guest", false).map(|refused| refused.text);
        assert_eq!(
            text(0x0010, b"\x01x").as_deref(),
            Some("user_id property set to 'x' but authenticated user was 'guest'")
        );
        assert_eq!(text(0x0010, b"\x05guest"), None);
        assert_eq!(text(0x0100, b"\x03abc").as_deref(), Some("invalid expiration 'abc': no_integer"));
        assert_eq!(text(0x0100, b"\x021x").as_deref(), Some("invalid expiration '1x': {leftover_string,\"x\"}"));
        assert_eq!(text(0x0100, b"\x02-1").as_deref(), Some("invalid expiration '-1': {value_negative,-1}"));
        assert_eq!(text(0x0100, b"\x0210"), None);
        assert_eq!(text(0x0100, b"\x0c315360000000"), None);
        assert_eq!(
            text(0x0100, b"\x0c315360000001").as_deref(),
            Some("invalid expiration '315360000001': {value_too_large,315360000001}")
        );
        assert_eq!(text(0x1000, b"\x03").as_deref(), Some("invalid message: {delivery_mode_unknown,3}"));
        assert_eq!(
            text(0x2000, b"\0\0\0\x09\x02CCS\0\0\0\x01k").as_deref(),
            Some("invalid message: {unacceptable_type_in_header,\"CC\",longstr}")
        );
    }

    #[test]
    fn bcc_routes_and_is_gone() {
        let array = b"\0\0\0\x06S\0\0\0\x01k";
        let headers = [&b"\x01at\x01\x03BCCA"[..], array, b"\x02CCA", array].concat();
        let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0x28, 0x00];
        header.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        header.extend_from_slice(&headers);
        header.push(5);
        let message = Message::new(b"\x01x\x01r", &header, b"body", false, &mut Vec::new()).unwrap();
        assert_eq!(extra_routes(message.properties()).collect::<Vec<_>>(), [b"k", b"k"]);
        let stripped = without_bcc(&message).unwrap();
        assert_eq!(extra_routes(stripped.properties()).count(), 1);
        assert_eq!(property(stripped.properties(), flag::PRIORITY), Some(&[5][..]));
        assert!(check(stripped.properties()).is_some());
        assert!(without_bcc(&stripped).is_none());
        assert_eq!(stripped.inline_body(), Some(&b"body"[..]));
    }

    #[test]
    fn bcc_is_gone_whatever_keys_it_holds() {
        let key = |len: usize| [&b"S"[..], &(len as u32).to_be_bytes(), &vec![b'k'; len]].concat();
        let many = [key(255), key(256), key(255)].concat().repeat(200);
        for array in [key(256), [key(1), key(70_000)].concat(), many] {
            let headers = [&b"\x03BCCA"[..], &(array.len() as u32).to_be_bytes(), &array].concat();
            let flags = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0];
            let header = [&flags[..], &(headers.len() as u32).to_be_bytes(), &headers].concat();
            let message = Message::new(b"\x01x\x01r", &header, b"body", false, &mut Vec::new()).unwrap();
            let stripped = without_bcc(&message).unwrap();
            assert_eq!(extra_routes(stripped.properties()).count(), 0);
            // A letter of it can be written, however long its route is.
            let route = [&[255][..], &[b'e'; 255], &[255], &[b'r'; 255]].concat();
            assert!(stripped.changed(&route, stripped.header(), stripped.hidden_keys()).is_some());
            assert!(stripped.hidden_keys().all(|key| key.len() < 256) && stripped.hidden_keys().count() < 400);
        }
    }

    #[test]
    fn only_reply_to_changes_when_a_request_is_addressed() {
        let values =
            b"\x01t\0\0\0\x04\x01kt\x01\x02\x05\x01c\x15amq.rabbitmq.reply-to\x0210\x01m\0\0\0\0\0\0\0\x07\x01y";
        let header = |properties: &[u8]| [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..], properties].concat();
        let before = properties(0xBFE0, values);
        assert!(check(&before).is_some_and(|facts| facts.wants_reply && facts.persistent));
        for len in [4, INLINE_BODY_MAX_BYTES + 1] {
            let message = Message::new(b"\x01x\x01r", &header(&before), &vec![7; len], true, &mut Vec::new()).unwrap();
            let addressed = with_reply_to(&message, b"there").unwrap();
            let text = [&values[..14], b"\x05there", &values[36..]].concat();
            assert_eq!(addressed.properties(), properties(0xBFE0, &text));
            assert_eq!((addressed.route(), addressed.persistent()), (message.route(), true));
            assert!(addressed.body().eq(message.body()));
        }
        let none = Message::new(b"\x01x\x01r", &header(&properties(0, b"")), b"", false, &mut Vec::new()).unwrap();
        assert_eq!(with_reply_to(&none, b"there"), None);
        let longest = Message::new(b"\0\0", &header(&before), b"", false, &mut Vec::new()).unwrap();
        assert_eq!(with_reply_to(&longest, &[b'a'; 256]), None);
    }

    #[test]
    fn bodies_are_gathered_whatever_their_pieces() {
        for (total, step) in
            [(10, 3), (INLINE_BODY_MAX_BYTES, 1000), (INLINE_BODY_MAX_BYTES + 1, 1), (500_000, 131_064)]
        {
            let body: Vec<u8> = (0..total).map(|at| at as u8).collect();
            let mut content = Content::new(b"\x00\x01q", false);
            let mut header = vec![0, 60, 0, 0];
            header.extend_from_slice(&(total as u64).to_be_bytes());
            header.extend_from_slice(&[0, 0]);
            content.start_body(&header, facts(false, false), total as u64);
            for piece in body.chunks(step) {
                content.append(piece, 0);
            }
            assert_eq!(content.left(), 0);
            let (message, _) = content.finish(&mut Vec::new()).unwrap();
            assert_eq!(message.body().flatten().copied().collect::<Vec<_>>(), body);
        }
    }
}
