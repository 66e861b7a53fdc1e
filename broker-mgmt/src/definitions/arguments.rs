//! Arguments: JSON to the octets of a field table and back, with the types that RabbitMQ gives them.
//!
//! From JSON, integers become 64-bit ones (`l`), other numbers doubles (`d`), text long strings; fields are ordered by name. To JSON, numbers of all
//! types become numbers, timestamps too. A string that is not UTF-8 becomes a text that says so and holds it in base64; it is read back as the
//! octets it was.

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::place::Place;
use super::{DefinitionsError, NAME_MAX_BYTES, NOT_UTF8};

/// Tables and lists inside each other at most this deep, as the catalog allows.
const DEPTH_MAX: usize = 60;

/// The octets of a field table, without its length.
pub fn encode(place: &Place<'_>) -> Result<Vec<u8>, DefinitionsError> {
    let mut octets = Vec::new();
    encode_table(place, 0, &mut octets)?;
    Ok(octets)
}

/// The JSON of a field table. Octets that are no table become what can be read of them: the catalog holds only tables that it has checked.
pub fn decode(octets: &[u8]) -> Map<String, Value> {
    decode_table(octets, 0).unwrap_or_default()
}

/// Octets as text, whatever they are.
pub fn text_of(octets: &[u8]) -> String {
    str::from_utf8(octets).map_or_else(|_| format!("{NOT_UTF8}{}", STANDARD.encode(octets)), str::to_owned)
}

/// What [`text_of`] made a text of.
pub fn octets_of(text: &str) -> Vec<u8> {
    let encoded = text.strip_prefix(NOT_UTF8).and_then(|encoded| STANDARD.decode(encoded).ok());
    encoded.filter(|octets| str::from_utf8(octets).is_err()).unwrap_or_else(|| text.as_bytes().to_vec())
}

fn encode_table(place: &Place<'_>, depth: usize, octets: &mut Vec<u8>) -> Result<(), DefinitionsError> {
    // RabbitMQ writes an empty table as an empty list here and there.
    if place.value.as_array().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let mut fields: Vec<(&String, &Value)> = place.object()?.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    for (name, value) in fields {
        let field = place.inside(name, value);
        let Some(length) = u8::try_from(name.len()).ok().filter(|_| name.len() <= NAME_MAX_BYTES) else {
            return Err(field.wrong(format!("the name is {} octets long, of at most {NAME_MAX_BYTES}", name.len())));
        };
        octets.push(length);
        octets.extend_from_slice(name.as_bytes());
        encode_value(&field, depth, octets)?;
    }
    Ok(())
}

fn encode_value(place: &Place<'_>, depth: usize, octets: &mut Vec<u8>) -> Result<(), DefinitionsError> {
    match place.value {
        Value::Null => octets.push(b'V'),
        Value::Bool(flag) => octets.extend_from_slice(&[b't', u8::from(*flag)]),
        Value::Number(number) => encode_number(place, number, octets)?,
        Value::String(text) => block(b'S', &octets_of(text), octets),
        Value::Array(_) | Value::Object(_) if depth == DEPTH_MAX => {
            return Err(place.wrong(format!("is nested more than {DEPTH_MAX} deep")));
        }
        Value::Array(_) => {
            let mut inner = Vec::new();
            for item in place.items()? {
                encode_value(&item, depth + 1, &mut inner)?;
            }
            block(b'A', &inner, octets);
        }
        Value::Object(_) => {
            let mut inner = Vec::new();
            encode_table(place, depth + 1, &mut inner)?;
            block(b'F', &inner, octets);
        }
    }
    Ok(())
}

fn encode_number(place: &Place<'_>, number: &Number, octets: &mut Vec<u8>) -> Result<(), DefinitionsError> {
    if let Some(integer) = number.as_i64() {
        octets.push(b'l');
        octets.extend_from_slice(&integer.to_be_bytes());
        return Ok(());
    }
    // An integer beyond 64 bits too: AMQP has no type for it.
    let float = number.as_f64().ok_or_else(|| place.wrong(format!("{number} is no number that can be kept")))?;
    octets.push(b'd');
    octets.extend_from_slice(&float.to_be_bytes());
    Ok(())
}

fn block(kind: u8, content: &[u8], octets: &mut Vec<u8>) {
    octets.push(kind);
    // A document is far shorter than 4 GiB.
    octets.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    octets.extend_from_slice(content);
}

fn decode_table(octets: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let mut rest = octets;
    let mut table = Map::new();
    while !rest.is_empty() {
        let [length] = take(&mut rest)?;
        let name = take_slice(&mut rest, length.into())?;
        let value = decode_value(&mut rest, depth)?;
        // Of fields with the same name RabbitMQ reads the first.
        table.entry(text_of(name)).or_insert(value);
    }
    Some(table)
}

fn decode_value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    let [kind] = take(rest)?;
    Some(match kind {
        b't' => Value::Bool(take::<1>(rest)? != [0]),
        b'b' => i8::from_be_bytes(take(rest)?).into(),
        b'B' => u8::from_be_bytes(take(rest)?).into(),
        b's' => i16::from_be_bytes(take(rest)?).into(),
        b'u' => u16::from_be_bytes(take(rest)?).into(),
        b'I' => i32::from_be_bytes(take(rest)?).into(),
        b'i' => u32::from_be_bytes(take(rest)?).into(),
        b'l' | b'L' => i64::from_be_bytes(take(rest)?).into(),
        b'T' => u64::from_be_bytes(take(rest)?).into(),
        b'f' => float(f32::from_be_bytes(take(rest)?).into()),
        b'd' => float(f64::from_be_bytes(take(rest)?)),
        b'D' => {
            let [scale] = take(rest)?;
            float(f64::from(u32::from_be_bytes(take(rest)?)) / 10_f64.powi(scale.into()))
        }
        b'S' | b'x' => Value::String(text_of(take_block(rest)?)),
        b'V' => Value::Null,
        b'A' if depth < DEPTH_MAX + 4 => {
            let mut inner = take_block(rest)?;
            let mut values = Vec::new();
            while !inner.is_empty() {
                values.push(decode_value(&mut inner, depth + 1)?);
            }
            Value::Array(values)
        }
        b'F' if depth < DEPTH_MAX + 4 => Value::Object(decode_table(take_block(rest)?, depth + 1)?),
        _ => return None,
    })
}

/// JSON has no infinity and no NaN.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn take_block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(rest)?);
    take_slice(rest, length as usize)
}
