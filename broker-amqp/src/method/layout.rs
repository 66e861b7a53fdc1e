//! The shape of every method a client may send, to be checked before anything is built from it.

use std::ops::Range;

use crate::table;

/// One field after the other: `1 2 4 8` octets of numbers or bits, `s` a short string in UTF-8, `S` a long string, `t` a field table.
pub(super) type Layout = &'static [u8];

/// What is wrong with a method's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They end too early or too late.
    Shape,
    /// A short string is not UTF-8.
    Utf8,
    /// A field table is malformed or nested too deep.
    Table,
}

/// The layout of a method that a client may send.
pub(super) fn of(class: u16, method: u16) -> Option<Layout> {
    Some(match (class, method) {
        (10, 11) => b"tsSs",
        (10, 21) => b"S",
        (10, 31) => b"242",
        (10, 40) => b"ss1",
        (10, 50) | (20, 40) => b"2s22",
        (10, 51) | (20, 41) => b"",
        (10, 70) => b"Ss",
        (20, 10) => b"s",
        (20, 20 | 21) => b"1",
        (30, 10) => b"s1",
        (40, 10) => b"2ss1t",
        (40, 20) => b"2s1",
        (40, 30 | 40) => b"2sss1t",
        (50, 10) => b"2s1t",
        (50, 20) => b"2sss1t",
        (50, 30 | 40) => b"2s1",
        (50, 50) => b"2ssst",
        (60, 10) => b"421",
        (60, 20) => b"2ss1t",
        (60, 30) => b"s1",
        (60, 70) => b"2s1",
        (60, 100 | 110) => b"1",
        (85, 10) => b"1",
        (90, 10 | 20 | 30) => b"",
        _ => return None,
    })
}

/// Walks the fields along their layout. Answers where the field table's content lies, if there is one.
pub(super) fn check(layout: Layout, fields: &[u8]) -> Result<Option<Range<usize>>, Fault> {
    let mut at = 0;
    let mut found = None;
    for kind in layout {
        let rest = fields.get(at..).ok_or(Fault::Shape)?;
        let (skip, len) = match kind {
            b's' => (1, usize::from(*rest.first().ok_or(Fault::Shape)?)),
            b'S' | b't' => (4, u32::from_be_bytes(*rest.first_chunk().ok_or(Fault::Shape)?) as usize),
            digit => (0, usize::from(digit - b'0')),
        };
        let value = rest.get(skip..).and_then(|rest| rest.get(..len)).ok_or(Fault::Shape)?;
        match kind {
            b's' if std::str::from_utf8(value).is_err() => return Err(Fault::Utf8),
            b't' => found = Some((at + skip..at + skip + len, value)),
            _ => {}
        }
        at += skip + len;
    }
    if at != fields.len() {
        return Err(Fault::Shape);
    }
    match found {
        Some((_, value)) if !table::is_well_formed(value) => Err(Fault::Table),
        Some((range, _)) => Ok(Some(range)),
        None => Ok(None),
    }
}
