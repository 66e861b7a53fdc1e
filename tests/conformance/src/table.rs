//! Field tables as text: `{key:S "text", number:I 5, list:A [t true, V], inner:F {}}`, written and read octet by octet.
//!
//! The letters are those of the wire: t bit, b B s u I i l L integers, f d floats, D `scale/value`, S string, x octets,
//! A array, T seconds, F table, V nothing. Order and duplicate keys survive, which is the point of a codec of our own.

use crate::Error;
use crate::text::{hex, octets, show};
use crate::wire::Reader;

/// The octets of a table, without the length in front.
pub fn encode(text: &str) -> Result<Vec<u8>, Error> {
    let mut parser = Parser { rest: text };
    let octets = parser.table()?;
    parser.end()?;
    Ok(octets)
}

/// The text of a table's octets; says so when they are not a table.
pub fn decode(octets: &[u8]) -> String {
    let mut reader = Reader::new(octets);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        match entry(&mut reader) {
            Some(entry) => entries.push(entry),
            None => return format!("{{broken table {octets:02x?}}}"),
        }
    }
    format!("{{{}}}", entries.join(", "))
}

/// The entries of a table, each key with the text of its value; nothing when it is not a table.
pub fn entries(octets: &[u8]) -> Option<Vec<(String, String)>> {
    let mut reader = Reader::new(octets);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let key = show(reader.short()?);
        entries.push((key, value(&mut reader)?));
    }
    Some(entries)
}

fn entry(reader: &mut Reader<'_>) -> Option<String> {
    let key = show(reader.short()?);
    Some(format!("{key}:{}", value(reader)?))
}

fn value(reader: &mut Reader<'_>) -> Option<String> {
    let kind = char::from(reader.take(1)?.first().copied()?);
    let text = match kind {
        't' => (reader.number(1)? != 0).to_string(),
        'b' => reader.signed(1)?.to_string(),
        'B' => reader.number(1)?.to_string(),
        's' => reader.signed(2)?.to_string(),
        'u' => reader.number(2)?.to_string(),
        'I' => reader.signed(4)?.to_string(),
        'i' => reader.number(4)?.to_string(),
        'l' | 'L' => reader.signed(8)?.to_string(),
        'T' => reader.number(8)?.to_string(),
        'f' => f32::from_bits(u32::try_from(reader.number(4)?).ok()?).to_string(),
        'd' => f64::from_bits(reader.number(8)?).to_string(),
        'D' => format!("{}/{}", reader.number(1)?, reader.number(4)?),
        'S' => show(reader.long()?),
        'x' => reader.long()?.iter().map(|octet| format!("{octet:02x}")).collect(),
        'A' => array(reader.long()?)?,
        'F' => decode(reader.long()?),
        'V' => return Some("V".to_owned()),
        _ => return None,
    };
    Some(format!("{kind} {text}"))
}

fn array(octets: &[u8]) -> Option<String> {
    let mut reader = Reader::new(octets);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(value(&mut reader)?);
    }
    Some(format!("[{}]", values.join(", ")))
}

/// What is left of the text.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn table(&mut self) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        self.expect('{')?;
        while !self.accept('}') {
            let key = self.string(":")?;
            octets.push(u8::try_from(key.len()).map_err(|_| self.wrong("a key of at most 255 octets"))?);
            octets.extend(key);
            self.expect(':')?;
            self.value(&mut octets)?;
            self.separator('}')?;
        }
        Ok(octets)
    }

    fn array(&mut self) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        self.expect('[')?;
        while !self.accept(']') {
            self.value(&mut octets)?;
            self.separator(']')?;
        }
        Ok(octets)
    }

    fn value(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.spaces();
        let kind = self.rest.chars().next().ok_or_else(|| self.wrong("a type letter"))?;
        self.rest = self.rest.get(kind.len_utf8()..).unwrap_or_default();
        out.push(u8::try_from(kind).map_err(|_| self.wrong("a type letter"))?);
        match kind {
            't' => out.push(u8::from(self.bare()? == "true")),
            'b' | 'B' => self.integer(1, out)?,
            's' | 'u' => self.integer(2, out)?,
            'I' | 'i' => self.integer(4, out)?,
            'l' | 'L' | 'T' => self.integer(8, out)?,
            'f' => out.extend(self.parsed::<f32>()?.to_be_bytes()),
            'd' => out.extend(self.parsed::<f64>()?.to_be_bytes()),
            'D' => {
                let (scale, value) = self.bare()?.split_once('/').ok_or_else(|| self.wrong("scale/value"))?;
                out.push(scale.parse().map_err(|_| self.wrong("a scale"))?);
                out.extend(value.parse::<u32>().map_err(|_| self.wrong("a value"))?.to_be_bytes());
            }
            'S' => long(self.string("")?, out),
            'x' => long(hex(self.bare()?)?, out),
            'A' => long(self.array()?, out),
            'F' => long(self.table()?, out),
            'V' => {}
            // An unknown letter is sent as it is: a broker must refuse it.
            _ => {}
        }
        Ok(())
    }

    fn integer(&mut self, octets: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let number = self.parsed::<i128>()?.to_be_bytes();
        out.extend(number.get(number.len().saturating_sub(octets)..).unwrap_or_default());
        Ok(())
    }

    fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, Error> {
        self.bare()?.parse().map_err(|_| self.wrong("a number"))
    }

    /// A word up to a space, comma or closing bracket, or one of `ends`.
    fn bare_until(&mut self, ends: &str) -> &'a str {
        self.spaces();
        let end = self.rest.find(|letter: char| " ,}]".contains(letter) || ends.contains(letter));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn bare(&mut self) -> Result<&'a str, Error> {
        Ok(self.bare_until(""))
    }

    /// A bare or quoted string.
    fn string(&mut self, ends: &str) -> Result<Vec<u8>, Error> {
        self.spaces();
        if !self.rest.starts_with('"') {
            return Ok(self.bare_until(ends).as_bytes().to_vec());
        }
        let close = self.closing_quote().ok_or_else(|| self.wrong("a closing quote"))?;
        let (mut word, mut rest) = self.rest.split_at(close + 1);
        if rest.starts_with('*') {
            let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
            (word, rest) = self.rest.split_at(close + 1 + end);
        }
        self.rest = rest;
        octets(word)
    }

    /// Where the quote that is open at the front closes.
    fn closing_quote(&self) -> Option<usize> {
        let mut escaped = false;
        let mut letters = self.rest.char_indices().skip(1);
        letters.find_map(|(place, letter)| {
            let closes = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            closes.then_some(place)
        })
    }

    fn separator(&mut self, close: char) -> Result<(), Error> {
        self.spaces();
        if self.rest.starts_with(close) || self.accept(',') { Ok(()) } else { Err(self.wrong("a comma")) }
    }

    fn expect(&mut self, letter: char) -> Result<(), Error> {
        if self.accept(letter) { Ok(()) } else { Err(self.wrong(&format!("{letter:?}"))) }
    }

    fn accept(&mut self, letter: char) -> bool {
        self.spaces();
        let rest = self.rest.strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn end(&mut self) -> Result<(), Error> {
        self.spaces();
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong("the end")) }
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn wrong(&self, expected: &str) -> Error {
        Error::new(format!("expected {expected} in a table before: {}", self.rest))
    }
}

fn long(octets: Vec<u8>, out: &mut Vec<u8>) {
    out.extend(u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(octets);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_type_comes_back_from_the_wire() {
        let text = r#"{a:t true, b:b -1, c:B 255, d:s -2, e:u 65535, f:I -3, g:i 4294967295, h:l -4, i:L 5, j:f 1.5, k:d -2.25, l:D 2/314, m:S "a \" b", n:x 00ff, o:A [I 1, S two, V], p:T 1700000000, q:F {x:t false}, r:V}"#;
        assert_eq!(decode(&encode(text).unwrap()), text);
        assert_eq!(decode(b"\x01a?"), "{broken table [01, 61, 3f]}");
        assert!(encode("{a:I}").is_err());
    }
}
