//! Field tables as the octets they came in: read in place, compared by value, never decoded into a tree.
//!
//! A client's arguments and headers go back to clients byte for byte, so what is kept is what came in. This module looks into those octets.
//! Nothing here recurses on input: a table nested beyond [`DEPTH_MAX`] is refused by [`FieldTable::parse`] before anyone walks it.
//!
//! Octets are those of the table *without* its length: fields one after the other, each a short string (the name), a type octet and a value.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use smallvec::SmallVec;

/// Tables and arrays inside each other at most this deep.
pub const DEPTH_MAX: usize = 64;
/// A text that describes a value is cut after about this many octets; reply texts end at 255 anyway.
const PRETTY_MAX_BYTES: usize = 512;

/// A field table's octets, known to be well formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldTable<'a> {
    octets: &'a [u8],
}

/// A field array's octets, known to be well formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldArray<'a> {
    octets: &'a [u8],
}

/// A field table that is kept: the octets it came in.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arguments(Option<Arc<[u8]>>);

/// A field's value. Types as RabbitMQ reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `t`
    Bool(bool),
    /// `b`
    Int8(i8),
    /// `B`
    UInt8(u8),
    /// `s`
    Int16(i16),
    /// `u`
    UInt16(u16),
    /// `I`
    Int32(i32),
    /// `i`
    UInt32(u32),
    /// `l` and `L`
    Int64(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: digits after the point, and the number without it
    Decimal(u8, u32),
    /// `S`
    LongString(&'a [u8]),
    /// `A`
    Array(FieldArray<'a>),
    /// `T`: seconds since 1970
    Timestamp(u64),
    /// `F`
    Table(FieldTable<'a>),
    /// `V`
    Void,
    /// `x`
    Bytes(&'a [u8]),
}

/// Why octets are not a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A length points beyond the end, or a value is cut short.
    #[error("the field table is cut short at octet {0}")]
    CutShort(usize),
    /// There is no such type of field.
    #[error("the field table holds an unknown field type {0:#04x}")]
    UnknownType(u8),
    /// Deeper than [`DEPTH_MAX`].
    #[error("the field table is nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

impl<'a> FieldTable<'a> {
    /// A table without fields.
    pub const EMPTY: FieldTable<'static> = FieldTable { octets: &[] };

    /// Checks octets (without the table's length) through and through: lengths, types, depth. Linear in their number, no recursion.
    pub fn parse(octets: &'a [u8]) -> Result<FieldTable<'a>, TableError> {
        check(octets)?;
        Ok(FieldTable { octets })
    }

    /// Checks octets that begin with the table's length, as method arguments and properties have it, and returns what follows too.
    pub fn parse_with_length(octets: &'a [u8]) -> Result<(FieldTable<'a>, &'a [u8]), TableError> {
        let mut reader = Reader { octets, at: 0 };
        let table = reader.long_block()?;
        Ok((FieldTable::parse(table)?, octets.get(reader.at..).unwrap_or_default()))
    }

    /// A view of octets nobody checked. Reading stays safe: where they make no sense, the table ends.
    pub(crate) fn unchecked(octets: &'a [u8]) -> FieldTable<'a> {
        FieldTable { octets }
    }

    /// The octets, without the length.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Fields in the order they came.
    pub fn iter(&self) -> Fields<'a> {
        Fields { reader: Reader { octets: self.octets, at: 0 } }
    }

    /// The first field of that name.
    pub fn lookup(&self, name: &[u8]) -> Option<Value<'a>> {
        self.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for FieldTable<'a> {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = Fields<'a>;

    fn into_iter(self) -> Fields<'a> {
        self.iter()
    }
}

impl<'a> FieldArray<'a> {
    /// Values in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut reader = Reader { octets: self.octets, at: 0 };
        std::iter::from_fn(move || if reader.is_at_end() { None } else { reader.value().ok() })
    }
}

impl Arguments {
    /// Keeps a copy of a table.
    pub fn new(table: FieldTable<'_>) -> Arguments {
        Arguments((!table.is_empty()).then(|| Arc::from(table.octets)))
    }

    /// Keeps a copy of octets (without the table's length) after checking them.
    pub fn parse(octets: &[u8]) -> Result<Arguments, TableError> {
        FieldTable::parse(octets).map(Arguments::new)
    }

    /// The same fields ordered by name, as RabbitMQ keeps a binding's arguments: two tables that differ in order only become equal.
    pub fn sorted(table: FieldTable<'_>) -> Arguments {
        let mut fields: SmallVec<[(&[u8], Value<'_>); 8]> = table.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let mut builder = TableBuilder::default();
        for (name, value) in fields {
            builder.push(name, value);
        }
        Arguments((!builder.octets.is_empty()).then(|| Arc::from(builder.octets)))
    }

    /// A view of the table.
    pub fn table(&self) -> FieldTable<'_> {
        FieldTable { octets: self.octets() }
    }

    /// The octets, without the length.
    pub fn octets(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.table().iter().map(|(name, value)| (String::from_utf8_lossy(name), value))).finish()
    }
}

impl<'a> Value<'a> {
    /// The type's name in RabbitMQ's texts.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Bool(_) => "bool",
            Value::Int8(_) => "byte",
            Value::UInt8(_) => "unsignedbyte",
            Value::Int16(_) => "short",
            Value::UInt16(_) => "unsignedshort",
            Value::Int32(_) => "signedint",
            Value::UInt32(_) => "unsignedint",
            Value::Int64(_) => "long",
            Value::Float(_) => "float",
            Value::Double(_) => "double",
            Value::Decimal(..) => "decimal",
            Value::LongString(_) => "longstr",
            Value::Array(_) => "array",
            Value::Timestamp(_) => "timestamp",
            Value::Table(_) => "table",
            Value::Void => "void",
            Value::Bytes(_) => "binary",
        }
    }

    /// The number, if the type is one of the integers (a timestamp is none).
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::Int8(number) => Some(number.into()),
            Value::UInt8(number) => Some(number.into()),
            Value::Int16(number) => Some(number.into()),
            Value::UInt16(number) => Some(number.into()),
            Value::Int32(number) => Some(number.into()),
            Value::UInt32(number) => Some(number.into()),
            Value::Int64(number) => Some(number.into()),
            _ => None,
        }
    }

    /// The text of a long string, if it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        match *self {
            Value::LongString(octets) => std::str::from_utf8(octets).ok(),
            _ => None,
        }
    }

    /// Whether two values are equal when their types are left aside, as RabbitMQ compares headers and arguments: numbers by what they count,
    /// strings and binaries by their octets.
    pub fn same_value(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Void, Value::Void) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Decimal(a, b), Value::Decimal(c, d)) => (a, b) == (c, d),
            (Value::Array(a), Value::Array(b)) => same_octets_by_value(a.octets, b.octets, false),
            (Value::Table(a), Value::Table(b)) => same_octets_by_value(a.octets, b.octets, true),
            (a, b) => match (a.octets(), b.octets()) {
                (Some(a), Some(b)) => a == b,
                (None, None) => a.number().zip(b.number()).is_some_and(|(a, b)| a.equals(b)),
                _ => false,
            },
        }
    }

    /// Whether two arguments are equal, as RabbitMQ compares those of a declaration with those there: by value, but no integer equals a float.
    pub fn same_argument(&self, other: &Value<'_>) -> bool {
        let is_float = |value: &Value<'_>| matches!(value, Value::Float(_) | Value::Double(_));
        is_float(self) == is_float(other) && self.same_value(other)
    }

    /// The value as RabbitMQ's texts show it between quotes.
    pub fn pretty(&self) -> Cow<'a, str> {
        match *self {
            Value::LongString(octets) | Value::Bytes(octets) => latin1_or_utf8(octets),
            Value::Void => Cow::Borrowed("undefined"),
            Value::Bool(flag) => Cow::Borrowed(if flag { "true" } else { "false" }),
            Value::Decimal(scale, number) => Cow::Owned(format!("{{{scale},{number}}}")),
            Value::Float(number) => Cow::Owned(erlang_float(number.into())),
            Value::Double(number) => Cow::Owned(erlang_float(number)),
            Value::Timestamp(seconds) => Cow::Owned(seconds.to_string()),
            Value::Array(array) => Cow::Owned(describe(array.octets, false)),
            Value::Table(table) => Cow::Owned(describe(table.octets, true)),
            _ => Cow::Owned(self.integer().unwrap_or_default().to_string()),
        }
    }

    /// The value as Erlang's `~p` prints it.
    pub(crate) fn as_erlang(&self) -> Cow<'a, str> {
        match self.octets() {
            Some(octets) => Cow::Owned(erlang_binary(octets)),
            None => self.pretty(),
        }
    }

    fn octets(&self) -> Option<&'a [u8]> {
        match *self {
            Value::LongString(octets) | Value::Bytes(octets) => Some(octets),
            _ => None,
        }
    }

    fn number(&self) -> Option<Number> {
        match *self {
            Value::Float(number) => Some(Number::Float(number.into())),
            Value::Double(number) => Some(Number::Float(number)),
            Value::Timestamp(seconds) => Some(Number::Integer(seconds.into())),
            _ => self.integer().map(Number::Integer),
        }
    }
}

/// Iterator over a table's fields.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_at_end() {
            return None;
        }
        let name = self.reader.short_string().ok()?;
        Some((name, self.reader.value().ok()?))
    }
}

/// Writes a field table.
#[derive(Clone, Debug, Default)]
pub struct TableBuilder {
    octets: Vec<u8>,
}

impl TableBuilder {
    /// Adds a field. A name longer than 255 octets is cut there.
    pub fn push(&mut self, name: &[u8], value: Value<'_>) {
        let name = name.get(..255).unwrap_or(name);
        self.octets.push(name.len() as u8);
        self.octets.extend_from_slice(name);
        self.value(value);
    }

    /// Adds a field and returns the builder.
    pub fn with(mut self, name: &str, value: Value<'_>) -> Self {
        self.push(name.as_bytes(), value);
        self
    }

    /// Adds an item of an array: a builder holds either fields or items.
    pub fn item(&mut self, value: Value<'_>) {
        self.value(value);
    }

    /// The table that was written.
    pub fn table(&self) -> FieldTable<'_> {
        FieldTable { octets: &self.octets }
    }

    /// The array that was written.
    pub fn array(&self) -> FieldArray<'_> {
        FieldArray { octets: &self.octets }
    }

    /// What was written, without the table's length.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// What was written, to keep.
    pub fn arguments(&self) -> Arguments {
        Arguments::new(FieldTable { octets: &self.octets })
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Bool(flag) => self.typed(b't', &[flag.into()]),
            Value::Int8(number) => self.typed(b'b', &number.to_be_bytes()),
            Value::UInt8(number) => self.typed(b'B', &[number]),
            Value::Int16(number) => self.typed(b's', &number.to_be_bytes()),
            Value::UInt16(number) => self.typed(b'u', &number.to_be_bytes()),
            Value::Int32(number) => self.typed(b'I', &number.to_be_bytes()),
            Value::UInt32(number) => self.typed(b'i', &number.to_be_bytes()),
            Value::Int64(number) => self.typed(b'l', &number.to_be_bytes()),
            Value::Float(number) => self.typed(b'f', &number.to_be_bytes()),
            Value::Double(number) => self.typed(b'd', &number.to_be_bytes()),
            Value::Timestamp(seconds) => self.typed(b'T', &seconds.to_be_bytes()),
            Value::Void => self.typed(b'V', &[]),
            Value::Decimal(scale, number) => {
                self.typed(b'D', &[scale]);
                self.octets.extend_from_slice(&number.to_be_bytes());
            }
            Value::LongString(octets) => self.block(b'S', octets),
            Value::Bytes(octets) => self.block(b'x', octets),
            Value::Array(array) => self.block(b'A', array.octets),
            Value::Table(table) => self.block(b'F', table.octets),
        }
    }

    fn typed(&mut self, kind: u8, value: &[u8]) {
        self.octets.push(kind);
        self.octets.extend_from_slice(value);
    }

    fn block(&mut self, kind: u8, value: &[u8]) {
        self.octets.push(kind);
        self.octets.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.octets.extend_from_slice(value);
    }
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn equals(self, other: Number) -> bool {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => a == b,
            (Number::Float(a), Number::Float(b)) => a == b,
            (Number::Integer(a), Number::Float(b)) | (Number::Float(b), Number::Integer(a)) => {
                b.fract() == 0.0 && b.abs() < 1e19 && b as i128 == a
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn is_at_end(&self) -> bool {
        self.at >= self.octets.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TableError> {
        let end = self.at.checked_add(count).ok_or(TableError::CutShort(self.at))?;
        let taken = self.octets.get(self.at..end).ok_or(TableError::CutShort(self.at))?;
        self.at = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], TableError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| TableError::CutShort(at))
    }

    fn short_string(&mut self) -> Result<&'a [u8], TableError> {
        let [len] = self.fixed()?;
        self.take(len.into())
    }

    fn long_block(&mut self) -> Result<&'a [u8], TableError> {
        let len = u32::from_be_bytes(self.fixed()?);
        self.take(len as usize)
    }

    /// One value; what is inside an array or a table is not looked at.
    fn value(&mut self) -> Result<Value<'a>, TableError> {
        let [kind] = self.fixed()?;
        Ok(match kind {
            b't' => Value::Bool(self.fixed::<1>()? != [0]),
            b'b' => Value::Int8(i8::from_be_bytes(self.fixed()?)),
            b'B' => Value::UInt8(u8::from_be_bytes(self.fixed()?)),
            b's' => Value::Int16(i16::from_be_bytes(self.fixed()?)),
            b'u' => Value::UInt16(u16::from_be_bytes(self.fixed()?)),
            b'I' => Value::Int32(i32::from_be_bytes(self.fixed()?)),
            b'i' => Value::UInt32(u32::from_be_bytes(self.fixed()?)),
            b'l' | b'L' => Value::Int64(i64::from_be_bytes(self.fixed()?)),
            b'f' => Value::Float(f32::from_be_bytes(self.fixed()?)),
            b'd' => Value::Double(f64::from_be_bytes(self.fixed()?)),
            b'D' => Value::Decimal(u8::from_be_bytes(self.fixed()?), u32::from_be_bytes(self.fixed()?)),
            b'S' => Value::LongString(self.long_block()?),
            b'x' => Value::Bytes(self.long_block()?),
            b'A' => Value::Array(FieldArray { octets: self.long_block()? }),
            b'F' => Value::Table(FieldTable { octets: self.long_block()? }),
            b'T' => Value::Timestamp(u64::from_be_bytes(self.fixed()?)),
            b'V' => Value::Void,
            other => return Err(TableError::UnknownType(other)),
        })
    }
}

/// Walks a table and all inside it with a stack of its own.
fn check(octets: &[u8]) -> Result<(), TableError> {
    let mut open: SmallVec<[(Reader<'_>, bool); 8]> = SmallVec::new();
    open.push((Reader { octets, at: 0 }, true));
    while let Some((reader, named)) = open.last_mut() {
        if reader.is_at_end() {
            open.pop();
            continue;
        }
        if *named {
            reader.short_string()?;
        }
        let inner = match reader.value()? {
            Value::Array(array) => (array.octets, false),
            Value::Table(table) => (table.octets, true),
            _ => continue,
        };
        if open.len() >= DEPTH_MAX {
            return Err(TableError::TooDeep);
        }
        open.push((Reader { octets: inner.0, at: 0 }, inner.1));
    }
    Ok(())
}

/// Compares two arrays or tables value by value, with a stack of its own. Inside a table names and their order count, and so do types.
fn same_octets_by_value(left: &[u8], right: &[u8], named: bool) -> bool {
    let mut open: SmallVec<[(Reader<'_>, Reader<'_>, bool); 4]> = SmallVec::new();
    open.push((Reader { octets: left, at: 0 }, Reader { octets: right, at: 0 }, named));
    while let Some((left, right, named)) = open.last_mut() {
        if left.is_at_end() || right.is_at_end() {
            if left.is_at_end() != right.is_at_end() {
                return false;
            }
            open.pop();
            continue;
        }
        if *named && left.short_string() != right.short_string() {
            return false;
        }
        let (Ok(a), Ok(b)) = (left.value(), right.value()) else { return false };
        if a.type_name() != b.type_name() {
            return false;
        }
        match (a, b) {
            (Value::Array(a), Value::Array(b)) => {
                open.push((Reader { octets: a.octets, at: 0 }, Reader { octets: b.octets, at: 0 }, false));
            }
            (Value::Table(a), Value::Table(b)) => {
                open.push((Reader { octets: a.octets, at: 0 }, Reader { octets: b.octets, at: 0 }, true));
            }
            (a, b) if a.same_value(&b) => {}
            _ => return false,
        }
    }
    true
}

/// An array or a table about as Erlang prints it, without recursion and cut at a length.
fn describe(octets: &[u8], named: bool) -> String {
    let mut text = String::from("[");
    let mut open: SmallVec<[(Reader<'_>, bool); 4]> = SmallVec::new();
    open.push((Reader { octets, at: 0 }, named));
    while let Some((reader, named)) = open.last_mut() {
        if reader.is_at_end() || text.len() > PRETTY_MAX_BYTES {
            let inner = open.len() > 1;
            open.pop();
            text.push_str(if inner { "]}" } else { "]" });
            continue;
        }
        if !text.ends_with('[') {
            text.push(',');
        }
        text.push('{');
        if *named {
            let _ = write!(text, "<<\"{}\">>,", latin1_or_utf8(reader.short_string().unwrap_or_default()));
        }
        let Ok(value) = reader.value() else { break };
        let _ = write!(text, "{},", value.type_name());
        match value {
            Value::Array(array) => {
                text.push('[');
                open.push((Reader { octets: array.octets, at: 0 }, false));
            }
            Value::Table(table) => {
                text.push('[');
                open.push((Reader { octets: table.octets, at: 0 }, true));
            }
            Value::LongString(octets) | Value::Bytes(octets) => {
                let _ = write!(text, "<<\"{}\">>}}", latin1_or_utf8(octets));
            }
            other => {
                let _ = write!(text, "{}}}", other.pretty());
            }
        }
    }
    text
}

/// Text as it is, anything else octet by octet.
fn latin1_or_utf8(octets: &[u8]) -> Cow<'_, str> {
    let octets = octets.get(..PRETTY_MAX_BYTES).unwrap_or(octets);
    match std::str::from_utf8(octets) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(octets.iter().map(|&octet| char::from(octet)).collect()),
    }
}

/// A binary as Erlang writes it: a text if all octets are printable Latin-1, else numbers.
fn erlang_binary(octets: &[u8]) -> String {
    let octets = octets.get(..PRETTY_MAX_BYTES).unwrap_or(octets);
    let printable = |octet: &u8| matches!(octet, 8..=13 | 27 | 32..=126 | 160..=255);
    if octets.is_empty() || !octets.iter().all(printable) {
        let numbers: Vec<String> = octets.iter().map(u8::to_string).collect();
        return format!("<<{}>>", numbers.join(","));
    }
    let mut text = String::from("<<\"");
    for character in latin1_or_utf8(octets).chars() {
        match character {
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{b}' => text.push_str("\\v"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            '\u{1b}' => text.push_str("\\e"),
            '"' | '\\' => text.extend(['\\', character]),
            other => text.push(other),
        }
    }
    text.push_str("\">>");
    text
}

/// A float as Erlang writes it: always with a point.
fn erlang_float(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string();
    }
    let text =
        if number == 0.0 || (1e-4..1e16).contains(&number.abs()) { number.to_string() } else { format!("{number:e}") };
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        None if !text.contains('.') => format!("{text}.0"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: usize, kind: u8) -> Vec<u8> {
        let mut octets = Vec::new();
        for _ in 0..depth {
            let mut outer = if kind == b'F' { vec![1, b'k', b'F'] } else { vec![b'A'] };
            outer.extend_from_slice(&(octets.len() as u32).to_be_bytes());
            outer.extend_from_slice(&octets);
            octets = outer;
        }
        if kind == b'A' {
            octets.splice(0..0, [1, b'k']);
        }
        octets
    }

    #[test]
    fn every_type_reads_back_as_it_was_written() {
        let inner = TableBuilder::default().with("n", Value::Int64(-1));
        let array = [b'S', 0, 0, 0, 1, b'a', b't', 1];
        let values = [
            Value::Bool(true),
            Value::Int8(-3),
            Value::UInt8(200),
            Value::Int16(-300),
            Value::UInt16(60_000),
            Value::Int32(-70_000),
            Value::UInt32(4_000_000_000),
            Value::Int64(i64::MIN),
            Value::Float(1.5),
            Value::Double(-2.5),
            Value::Decimal(2, 314),
            Value::LongString(b"text"),
            Value::Bytes(&[0, 255]),
            Value::Timestamp(1_700_000_000),
            Value::Void,
            Value::Table(FieldTable::parse(inner.octets()).unwrap()),
            Value::Array(FieldArray { octets: &array }),
        ];
        let mut builder = TableBuilder::default();
        for (at, value) in values.iter().enumerate() {
            builder.push(format!("k{at}").as_bytes(), *value);
        }
        let table = FieldTable::parse(builder.octets()).unwrap();
        let read: Vec<_> = table.iter().map(|(_, value)| value).collect();
        assert_eq!(read, values);
        assert_eq!(table.lookup(b"k3"), Some(Value::Int16(-300)));
        assert_eq!(table.lookup(b"none"), None);
        let Some(Value::Array(array)) = table.lookup(b"k16") else { panic!("no array") };
        assert_eq!(array.iter().collect::<Vec<_>>(), [Value::LongString(b"a"), Value::Bool(true)]);
    }

    #[test]
    fn depth_is_bounded_without_recursion() {
        for kind in [b'F', b'A'] {
            assert!(FieldTable::parse(&nested(DEPTH_MAX - 1, kind)).is_ok());
            assert_eq!(FieldTable::parse(&nested(DEPTH_MAX, kind)), Err(TableError::TooDeep));
            assert_eq!(FieldTable::parse(&nested(2_000, kind)), Err(TableError::TooDeep));
        }
    }

    #[test]
    fn numbers_compare_by_value_and_strings_by_octets() {
        assert!(Value::Int8(5).same_value(&Value::Int64(5)));
        assert!(Value::Int32(5).same_value(&Value::Double(5.0)));
        assert!(Value::Timestamp(5).same_value(&Value::UInt8(5)));
        assert!(Value::LongString(b"a").same_value(&Value::Bytes(b"a")));
        assert!(!Value::LongString(b"5").same_value(&Value::Int8(5)));
        assert!(!Value::Bool(true).same_value(&Value::Int8(1)));
        assert!(!Value::Int8(-1).same_value(&Value::Timestamp(u64::MAX)));
    }

    #[test]
    fn sorted_tables_differ_by_content_only() {
        let one = TableBuilder::default().with("b", Value::Int8(1)).with("a", Value::LongString(b"x"));
        let two = TableBuilder::default().with("a", Value::LongString(b"x")).with("b", Value::Int8(1));
        let sorted = |builder: &TableBuilder| Arguments::sorted(FieldTable::parse(builder.octets()).unwrap());
        assert_eq!(sorted(&one), sorted(&two));
        assert_ne!(one.arguments(), two.arguments());
    }

    #[test]
    fn values_print_as_erlang_prints_them() {
        for (value, text) in [
            (Value::LongString(b"drop-head"), "drop-head"),
            (Value::Int32(-7), "-7"),
            (Value::Double(2.0), "2.0"),
            (Value::Bool(false), "false"),
            (Value::Void, "undefined"),
            (Value::Decimal(1, 15), "{1,15}"),
        ] {
            assert_eq!(value.pretty(), text);
        }
        let inner = TableBuilder::default().with("a", Value::Int64(1)).with("b", Value::LongString(b"x"));
        let table = Value::Table(FieldTable::parse(inner.octets()).unwrap());
        assert_eq!(table.pretty(), "[{<<\"a\">>,long,1},{<<\"b\">>,longstr,<<\"x\">>}]");
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(table) = FieldTable::parse(&octets) {
                let read: usize = table.iter().map(|(name, value)| name.len() + value.pretty().len().min(1)).sum();
                prop_assert!(read <= octets.len() + table.iter().count());
                let rest = table.iter().fold(0, |count, _| count + 1);
                prop_assert!(rest * 2 <= octets.len());
            }
        }

        #[test]
        fn a_checked_table_yields_all_its_octets(names in prop::collection::vec("[a-z]{0,5}", 0..10), number in any::<i64>()) {
            let mut builder = TableBuilder::default();
            for name in &names {
                builder.push(name.as_bytes(), Value::Int64(number));
            }
            let table = FieldTable::parse(builder.octets()).unwrap();
            prop_assert_eq!(table.iter().count(), names.len());
            for cut in 1..builder.octets().len() {
                let parsed = FieldTable::parse(&builder.octets()[..cut]);
                prop_assert!(parsed.is_err() || parsed.unwrap().iter().count() < names.len());
            }
        }
    }
}
