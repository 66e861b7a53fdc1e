//! Field tables as JSON, for output.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

/// Tables inside each other are shown so deep.
const DEPTH_MAX: usize = 64;

/// The fields of a table's octets, as far as they make sense.
pub fn json(octets: &[u8]) -> Map<String, Value> {
    table(octets, 0).unwrap_or_default()
}

/// Octets as text, whatever they are.
pub fn text(octets: &[u8]) -> String {
    let encoded = || format!("Not UTF-8, base64 is: {}", STANDARD.encode(octets));
    std::str::from_utf8(octets).map_or_else(|_| encoded(), str::to_owned)
}

fn table(mut rest: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let mut fields = Map::new();
    while !rest.is_empty() {
        let [length] = take(&mut rest)?;
        let name = text(slice(&mut rest, length.into())?);
        let value = value(&mut rest, depth)?;
        fields.entry(name).or_insert(value);
    }
    Some(fields)
}

fn value(rest: &mut &[u8], depth: usize) -> Option<Value> {
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
        b'S' | b'x' => Value::String(text(block(rest)?)),
        b'V' => Value::Null,
        b'A' if depth < DEPTH_MAX => {
            let mut inner = block(rest)?;
            let mut values = Vec::new();
            while !inner.is_empty() {
                values.push(value(&mut inner, depth + 1)?);
            }
            Value::Array(values)
        }
        b'F' if depth < DEPTH_MAX => Value::Object(table(block(rest)?, depth + 1)?),
        _ => return None,
    })
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(rest)?);
    slice(rest, length as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_become_objects() {
        let octets = b"\x01aF\0\0\0\x0b\x01bA\0\0\0\x05t\x01I\0\0\0\x01sS\0\0\0\x02\xff\xfe";
        assert_eq!(json(b"\x01at\x01"), *json!({"a": true}).as_object().unwrap_or(&Map::new()));
        assert!(json(octets).is_empty(), "a table that makes no sense shows nothing");
        assert_eq!(text(b"\xff\xfe"), "Not UTF-8, base64 is: //4=");
    }
}
