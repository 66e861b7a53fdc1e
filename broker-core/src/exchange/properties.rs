//! What routing reads of a content header's payload: class, weight, body size, property flags, properties.

use std::ops::Range;

use crate::field_table::FieldTable;

/// A content header's payload before its property flags: class, weight and body size.
pub(crate) const FIXED_BYTES: usize = 12;
/// More flags follow.
const FLAG_CONTINUES: u16 = 1;

/// A property, by the bit of its flag. Properties come in the order of their bits, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Property {
    Headers = 13,
    CorrelationId = 10,
    MessageId = 7,
    Timestamp = 6,
}

impl Property {
    /// Whether a payload's first octet of flags says it is there.
    pub fn is_flagged(self, first_flags: u8) -> bool {
        u16::from(first_flags) << 8 & (1 << self as u8) != 0
    }
}

/// The headers of a message, from its content header's payload.
pub fn message_headers(header: &[u8]) -> Option<FieldTable<'_>> {
    property(header, Property::Headers).map(FieldTable::unchecked)
}

/// The octets of a property, without their length.
pub(crate) fn property(header: &[u8], wanted: Property) -> Option<&[u8]> {
    header.get(place(header, wanted)?)
}

/// Where the octets of a property lie in the payload, without their length.
pub(crate) fn place(header: &[u8], wanted: Property) -> Option<Range<usize>> {
    let mut at = FIXED_BYTES;
    let flags = u16::from_be_bytes(octets_at(header, at)?);
    let wanted = wanted as u8;
    if flags & (1 << wanted) == 0 {
        return None;
    }
    let mut word = flags;
    at += 2;
    while word & FLAG_CONTINUES != 0 {
        word = u16::from_be_bytes(octets_at(header, at)?);
        at += 2;
    }
    for bit in (wanted..16).rev().filter(|bit| flags & (1 << bit) != 0) {
        let (prefix, len) = shape(header, at, bit)?;
        let start = at + prefix;
        at = start.checked_add(len)?;
        if bit == wanted {
            return Some(start..at);
        }
    }
    None
}

/// How many octets of length a property has, and how many follow.
fn shape(header: &[u8], at: usize, bit: u8) -> Option<(usize, usize)> {
    match bit {
        13 => Some((4, u32::from_be_bytes(octets_at(header, at)?) as usize)),
        // Delivery mode and priority.
        11 | 12 => Some((0, 1)),
        6 => Some((0, 8)),
        _ => Some((1, usize::from(*header.get(at)?))),
    }
}

fn octets_at<const N: usize>(header: &[u8], at: usize) -> Option<[u8; N]> {
    header.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_table::{TableBuilder, Value};

    /// All properties up to the timestamp.
    fn full() -> Vec<u8> {
        let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header.extend([0xff, 0xc1, 0x00, 0x00]);
        header.extend(*b"\x01t\x01e");
        let table = TableBuilder::default().with("k", Value::Int8(1));
        header.extend((table.octets().len() as u32).to_be_bytes());
        header.extend(table.octets());
        header.extend(*b"\x02\x05\x02co\x01r\x00\x02id");
        header.extend(7_u64.to_be_bytes());
        header
    }

    #[test]
    fn properties_are_found_behind_all_others() {
        let header = full();
        assert_eq!(message_headers(&header).unwrap().lookup(b"k"), Some(Value::Int8(1)));
        assert_eq!(property(&header, Property::CorrelationId), Some(&b"co"[..]));
        assert_eq!(property(&header, Property::MessageId), Some(&b"id"[..]));
        assert_eq!(property(&header, Property::Timestamp), Some(&7_u64.to_be_bytes()[..]));
    }

    #[test]
    fn what_is_missing_or_cut_short_is_not_found() {
        let header = full();
        for cut in 0..header.len() {
            assert_eq!(property(&header[..cut], Property::Timestamp), None, "cut at {cut}");
        }
        let bare = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(property(&bare, Property::MessageId), None);
        assert!(message_headers(&bare).is_none());
    }
}
