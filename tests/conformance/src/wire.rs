//! Octets of methods and properties.

use crate::spec::{Field, Kind, Method, properties};
use crate::text::{octets, show};
use crate::{Error, table};

/// Reads octets from the front; every method gives nothing when too few are left.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `octets`.
    pub fn new(octets: &'a [u8]) -> Self {
        Reader { rest: octets }
    }

    /// True at the end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` octets.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// An unsigned number of `size` octets, at most 8.
    pub fn number(&mut self, size: usize) -> Option<u64> {
        Some(self.take(size)?.iter().fold(0, |number, &octet| number << 8 | u64::from(octet)))
    }

    /// A signed number of `size` octets, 1 to 8.
    pub fn signed(&mut self, size: usize) -> Option<i64> {
        let shift = 64_usize.checked_sub(size * 8)?;
        Some((self.number(size)? << shift).cast_signed() >> shift)
    }

    /// A short string.
    pub fn short(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(1)?).ok()?;
        self.take(length)
    }

    /// A long string, or a table's octets.
    pub fn long(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(4)?).ok()?;
        self.take(length)
    }
}

/// The payload of a method frame. `given` holds the arguments of the scenario line, name and text; the others are
/// empty, zero or false.
pub fn encode_method(method: &Method, given: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    let unknown = given.iter().find(|(name, _)| method.fields.iter().all(|field| field.name != *name));
    if let Some((name, _)) = unknown {
        return Err(Error::new(format!("{} has no argument {name}", method.name)));
    }
    let mut out = [method.class.to_be_bytes(), method.id.to_be_bytes()].concat();
    let (mut bits, mut bit) = (0_u8, 0_u32);
    for field in &method.fields {
        let text = given.iter().find(|(name, _)| *name == field.name).map(|(_, text)| *text);
        if field.kind == Kind::Bit {
            bits |= u8::from(text == Some("true")) << bit;
            bit += 1;
            continue;
        }
        flush_bits(&mut bits, &mut bit, &mut out);
        encode_field(field, text, &mut out)?;
    }
    flush_bits(&mut bits, &mut bit, &mut out);
    Ok(out)
}

/// The payload of a content header for class basic or another class. `given` holds properties by name.
pub fn encode_header(class: u16, weight: u16, size: u64, given: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    let unknown = given.iter().find(|(name, _)| properties().iter().all(|field| field.name != *name));
    if let Some((name, _)) = unknown {
        return Err(Error::new(format!("no such property: {name}")));
    }
    let (mut flags, mut values) = (0_u16, Vec::new());
    for (place, field) in properties().iter().enumerate() {
        if let Some((_, text)) = given.iter().find(|(name, _)| *name == field.name) {
            flags |= 0x8000 >> place;
            encode_field(field, Some(text), &mut values)?;
        }
    }
    let mut out = [class.to_be_bytes(), weight.to_be_bytes()].concat();
    out.extend(size.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend(values);
    Ok(out)
}

/// A decoded method: what it is and its arguments by name.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The method.
    pub method: &'static Method,
    /// Its arguments as text, reserved ones left out.
    pub arguments: Vec<(&'static str, String)>,
}

impl Decoded {
    /// An argument's text.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find(|(argument, _)| *argument == name).map(|(_, text)| text.as_str())
    }
}

/// A method frame's payload; nothing when it is no method, is cut short or has octets left over.
pub fn decode_method(payload: &[u8]) -> Option<Decoded> {
    let mut reader = Reader::new(payload);
    let (class, id) = (u16::try_from(reader.number(2)?).ok()?, u16::try_from(reader.number(2)?).ok()?);
    let method = crate::spec::by_ids(class, id)?;
    let mut arguments = Vec::new();
    let (mut bits, mut left) = (0_u64, 0);
    for field in &method.fields {
        let text = if field.kind == Kind::Bit {
            if left == 0 {
                (bits, left) = (reader.number(1)?, 8);
            }
            let text = (bits & 1 == 1).to_string();
            (bits, left) = (bits >> 1, left - 1);
            text
        } else {
            left = 0;
            decode_field(field.kind, &mut reader)?
        };
        if !field.name.starts_with('_') {
            arguments.push((field.name, text));
        }
    }
    reader.is_empty().then_some(Decoded { method, arguments })
}

/// A content header's body size and properties; nothing when it is malformed.
pub fn decode_header(payload: &[u8]) -> Option<(u64, Vec<(&'static str, String)>)> {
    let mut reader = Reader::new(payload);
    reader.take(4)?;
    let (size, flags) = (reader.number(8)?, reader.number(2)?);
    let mut values = Vec::new();
    for (place, field) in properties().iter().enumerate() {
        if flags & (0x8000 >> place) != 0 {
            values.push((field.name, decode_field(field.kind, &mut reader)?));
        }
    }
    reader.is_empty().then_some((size, values))
}

fn encode_field(field: &Field, text: Option<&str>, out: &mut Vec<u8>) -> Result<(), Error> {
    match field.kind {
        Kind::Bit => {}
        Kind::Number(size) => {
            let wrong = || Error::new(format!("{} is not a number: {}", field.name, text.unwrap_or_default()));
            let octets = text.unwrap_or("0").parse::<u64>().map_err(|_| wrong())?.to_be_bytes();
            out.extend(octets.get(octets.len().saturating_sub(size)..).unwrap_or_default());
        }
        Kind::Short => {
            let string = octets(text.unwrap_or("\"\""))?;
            out.push(u8::try_from(string.len()).map_err(|_| Error::new(format!("{} is too long", field.name)))?);
            out.extend(string);
        }
        Kind::Long => put_long(octets(text.unwrap_or("\"\""))?, out),
        Kind::Table => put_long(table::encode(text.unwrap_or("{}"))?, out),
    }
    Ok(())
}

fn put_long(octets: Vec<u8>, out: &mut Vec<u8>) {
    out.extend(u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(octets);
}

fn flush_bits(bits: &mut u8, bit: &mut u32, out: &mut Vec<u8>) {
    if *bit > 0 {
        out.push(*bits);
    }
    (*bits, *bit) = (0, 0);
}

fn decode_field(kind: Kind, reader: &mut Reader<'_>) -> Option<String> {
    Some(match kind {
        Kind::Bit => return None,
        Kind::Number(size) => reader.number(size)?.to_string(),
        Kind::Short => show(reader.short()?),
        Kind::Long => show(reader.long()?),
        Kind::Table => table::decode(reader.long()?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::spec::by_name;

    #[test]
    fn a_method_comes_back_from_its_octets() {
        let given = [("queue", "q"), ("durable", "true"), ("nowait", "true"), ("arguments", "{x:I 5}")];
        let payload = encode_method(by_name("queue.declare").unwrap(), &given).unwrap();
        assert_eq!(payload, b"\x00\x32\x00\x0a\x00\x00\x01q\x12\x00\x00\x00\x07\x01xI\x00\x00\x00\x05");
        let decoded = decode_method(&payload).unwrap();
        assert_eq!(decoded.argument("durable"), Some("true"));
        assert_eq!(decoded.argument("passive"), Some("false"));
        assert_eq!(decoded.argument("arguments"), Some("{x:I 5}"));
        assert!(encode_method(by_name("queue.declare").unwrap(), &[("size", "1")]).is_err());
    }

    #[test]
    fn properties_come_back_from_their_octets() {
        let given = [("delivery_mode", "2"), ("headers", "{a:S b}"), ("cluster_id", "c")];
        let (size, values) = decode_header(&encode_header(60, 0, 7, &given).unwrap()).unwrap();
        assert_eq!(size, 7);
        assert_eq!(values.len(), 3);
        assert_eq!(values[0], ("headers", "{a:S b}".to_owned()));
    }
}
