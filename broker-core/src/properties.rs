//! Properties of a message, read and changed where they lie: in the payload of its content header (class, weight and body size; property flags;
//! values in the order of their flags).

use crate::field_table::FieldTable;

/// A content header's payload before its property flags: class, weight and body size.
pub const FIXED_BYTES: usize = 12;

/// The property flags, by the property's name.
pub mod flag {
    /// `content-type`
    pub const CONTENT_TYPE: u16 = 1 << 15;
    /// `content-encoding`
    pub const CONTENT_ENCODING: u16 = 1 << 14;
    /// `headers`
    pub const HEADERS: u16 = 1 << 13;
    /// `delivery-mode`
    pub const DELIVERY_MODE: u16 = 1 << 12;
    /// `priority`
    pub const PRIORITY: u16 = 1 << 11;
    /// `correlation-id`
    pub const CORRELATION_ID: u16 = 1 << 10;
    /// `reply-to`
    pub const REPLY_TO: u16 = 1 << 9;
    /// `expiration`
    pub const EXPIRATION: u16 = 1 << 8;
    /// `message-id`
    pub const MESSAGE_ID: u16 = 1 << 7;
    /// `timestamp`
    pub const TIMESTAMP: u16 = 1 << 6;
    /// `type`
    pub const TYPE: u16 = 1 << 5;
    /// `user-id`
    pub const USER_ID: u16 = 1 << 4;
    /// `app-id`
    pub const APP_ID: u16 = 1 << 3;
    /// `cluster-id`
    pub const CLUSTER_ID: u16 = 1 << 2;
}

/// Bits of the flags word that are no property: one is unused, the other says that a further word follows.
const NO_PROPERTY: u16 = 0b11;

/// Whether a property is set that lies in the upper octet of the flags: a look at one octet, for those who ask for every message.
#[inline]
pub fn has(header: &[u8], which: u16) -> bool {
    header.get(FIXED_BYTES).is_some_and(|upper| u16::from(*upper) << 8 & which != 0)
}

/// A property's value in `properties` (flags and values): a string's or table's octets without length, numbers as they are. `None` if it is not
/// set or the octets are not well formed.
pub fn property(properties: &[u8], which: u16) -> Option<&[u8]> {
    let mut values = Values::new(properties)?;
    if values.flags & which == 0 {
        return None;
    }
    while let Some((at, value)) = values.next_value()? {
        if at == which {
            return Some(value);
        }
    }
    None
}

/// A property's value in a content header's payload.
pub fn of_header(header: &[u8], which: u16) -> Option<&[u8]> {
    property(header.get(FIXED_BYTES..)?, which)
}

/// The property `priority`, if it is set.
pub fn priority(header: &[u8]) -> Option<u8> {
    if !has(header, flag::PRIORITY) {
        return None;
    }
    of_header(header, flag::PRIORITY)?.first().copied()
}

/// The property `expiration` in milliseconds, if it is set. It was checked when the message was published.
pub fn expiration_ms(header: &[u8]) -> Option<u64> {
    if !has(header, flag::EXPIRATION) {
        return None;
    }
    let number: i128 = std::str::from_utf8(of_header(header, flag::EXPIRATION)?).ok()?.parse().ok()?;
    u64::try_from(number).ok()
}

/// The headers, if there are any.
pub fn headers_if_any(header: &[u8]) -> Option<FieldTable<'_>> {
    of_header(header, flag::HEADERS).map(FieldTable::unchecked)
}

/// The headers; an empty table if there are none.
pub fn headers(header: &[u8]) -> FieldTable<'_> {
    headers_if_any(header).unwrap_or_default()
}

/// A content header's payload with properties set (to these values, without lengths) or taken away. `None` if the payload is not well formed, or a
/// string is too long.
pub fn changed(header: &[u8], changes: &[(u16, Option<&[u8]>)]) -> Option<Vec<u8>> {
    let (fixed, properties) = header.split_at_checked(FIXED_BYTES)?;
    let mut values = Values::new(properties)?;
    let (mut set, mut gone) = (0, 0);
    for (which, value) in changes {
        if value.is_some() { set |= which } else { gone |= which }
    }
    let flags = (values.flags | set) & !gone;
    let mut out =
        Vec::with_capacity(header.len() + changes.iter().map(|(_, v)| v.map_or(0, |v| v.len() + 4)).sum::<usize>());
    out.extend_from_slice(fixed);
    out.extend_from_slice(&(flags & !NO_PROPERTY).to_be_bytes());
    let mut old = values.next_value()?;
    for bit in (2..16).rev() {
        let which = 1_u16 << bit;
        let held = match old {
            Some((at, value)) if at == which => {
                old = values.next_value()?;
                Some(value)
            }
            _ => None,
        };
        let changed = changes.iter().find(|(at, _)| *at == which).map(|(_, value)| *value);
        if let Some(value) = changed.unwrap_or(held) {
            put(which, value, &mut out)?;
        }
    }
    Some(out)
}

fn put(which: u16, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match which {
        flag::HEADERS => out.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes()),
        flag::DELIVERY_MODE | flag::PRIORITY | flag::TIMESTAMP => {}
        _ => out.push(u8::try_from(value.len()).ok()?),
    }
    out.extend_from_slice(value);
    Some(())
}

/// Walks property values in the order of their flags.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The properties that are set and still to come.
    pub flags: u16,
    /// The values still to come.
    pub rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// From flags and values.
    pub fn new(properties: &'a [u8]) -> Option<Values<'a>> {
        let (flags, rest) = properties.split_first_chunk()?;
        Some(Values { flags: u16::from_be_bytes(*flags), rest })
    }

    /// The next value with its flag; `Some(None)` at the end, `None` if the octets do not suffice.
    #[allow(clippy::option_option)]
    pub fn next_value(&mut self) -> Option<Option<(u16, &'a [u8])>> {
        let flags = self.flags & !NO_PROPERTY;
        if flags == 0 {
            return Some(None);
        }
        let which = 1 << (15 - flags.leading_zeros());
        self.flags = flags & !which;
        let (skip, len) = match which {
            flag::HEADERS => (4, u32::from_be_bytes(*self.rest.first_chunk()?) as usize),
            flag::DELIVERY_MODE | flag::PRIORITY => (0, 1),
            flag::TIMESTAMP => (0, 8),
            _ => (1, usize::from(*self.rest.first()?)),
        };
        let (value, rest) = self.rest.get(skip..)?.split_at_checked(len)?;
        self.rest = rest;
        Some(Some((which, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header payload with these flags and values.
    fn header(flags: u16, values: &[u8]) -> Vec<u8> {
        [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..], &flags.to_be_bytes(), values].concat()
    }

    #[test]
    fn properties_are_read_where_they_lie() {
        let all = header(0x3B00, b"\0\0\0\x03\x01at\x02\x07\x03rep\x0260");
        assert_eq!((priority(&all), expiration_ms(&all)), (Some(7), Some(60)));
        assert_eq!(of_header(&all, flag::REPLY_TO), Some(&b"rep"[..]));
        assert_eq!(of_header(&all, flag::MESSAGE_ID), None);
        assert_eq!((priority(&header(0, b"")), expiration_ms(&header(0, b""))), (None, None));
        assert_eq!(priority(&[0; 5]), None);
    }

    #[test]
    fn changes_leave_the_rest_as_it_is() {
        let before = header(0x1B00, b"\x02\x07\x03rep\x0260");
        let after = changed(&before, &[(flag::EXPIRATION, None), (flag::HEADERS, Some(b"\x01at\x01"))]).unwrap();
        assert_eq!(after, header(0x3A00, b"\0\0\0\x04\x01at\x01\x02\x07\x03rep"));
        assert_eq!(changed(&after, &[(flag::HEADERS, None), (flag::EXPIRATION, Some(b"60"))]).unwrap(), before);
        assert_eq!(changed(&before, &[]).unwrap(), before);
        assert_eq!(changed(&before, &[(flag::REPLY_TO, Some(&[0; 256]))]), None);
        assert_eq!(changed(&header(0x1000, b""), &[]), None);
    }
}
