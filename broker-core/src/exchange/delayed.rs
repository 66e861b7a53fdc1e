//! Delayed-message exchanges: they hold a message back for as long as its header `x-delay` says, then route it as another type would.
//!
//! Holding back is the driver's work: [`crate::topology::Reached`] names the exchanges that want it, [`delay_ms`] says how long. When the time
//! has come, the message is routed from that exchange again with the header negated ([`with_delay_over`]), which is no delay any more.

use super::ExchangeKind;
use crate::field_table::{FieldTable, TableBuilder, Value};
use crate::properties::{self, flag, headers_if_any};
use crate::refusal::Refusal;

/// The longest delay that counts; a longer one is none.
pub const DELAY_MAX_MS: u64 = 4_294_967_295;
const DELAYED_TYPE: &str = "x-delayed-type";
const DELAY: &[u8] = b"x-delay";

/// How long a message shall be held back, from its content header's payload. None if it says nothing, or nothing that makes sense: it is routed
/// at once then.
pub fn delay_ms(header: &[u8]) -> Option<u64> {
    delay_of(headers_if_any(header)?)
}

/// The same for headers.
pub(super) fn delay_of(headers: FieldTable<'_>) -> Option<u64> {
    let delay = number(headers.lookup(DELAY)?)?;
    u64::try_from(delay).ok().filter(|delay| (1..=DELAY_MAX_MS).contains(delay))
}

/// The content header's payload with the delay negated, as consumers see it and as no exchange holds it back again. None if there was no delay.
pub fn with_delay_over(header: &[u8]) -> Option<Vec<u8>> {
    let delay = i64::try_from(delay_ms(header)?).ok()?;
    let mut fields = TableBuilder::default();
    // Of several fields of that name the first counts.
    let mut delay = Some(delay);
    for (name, value) in headers_if_any(header)? {
        let delay = delay.take_if(|_| name == DELAY);
        fields.push(name, delay.map_or(value, |delay| over(value, delay)));
    }
    properties::changed(header, &[(flag::HEADERS, Some(fields.octets()))])
}

/// The negative delay, of the type it had if that is a signed integer.
fn over(value: Value<'_>, delay: i64) -> Value<'static> {
    let negative = -delay;
    match value {
        Value::Int8(_) => i8::try_from(negative).map_or(Value::Int64(negative), Value::Int8),
        Value::Int16(_) => i16::try_from(negative).map_or(Value::Int64(negative), Value::Int16),
        Value::Int64(_) => Value::Int64(negative),
        _ => i32::try_from(negative).map_or(Value::Int64(negative), Value::Int32),
    }
}

/// An integer, digits, or a float without what is behind its point.
fn number(value: Value<'_>) -> Option<i128> {
    match value {
        Value::LongString(_) => value.text()?.parse().ok(),
        // What does not fit is cut at the ends of the type, and far from any delay there.
        Value::Float(number) => Some(number as i128),
        Value::Double(number) => Some(number as i128),
        value => value.integer(),
    }
}

/// The type that an exchange of type x-delayed-message routes by, or the refusal its declaration gets.
pub(super) fn inner_kind(arguments: FieldTable<'_>) -> Result<ExchangeKind, Refusal> {
    let name = arguments.lookup(DELAYED_TYPE.as_bytes()).and_then(|value| value.text());
    match name.map(ExchangeKind::parse) {
        Some(Ok(ExchangeKind::Delayed)) => Err(Refusal::OfExchangeType(format!(
            "Invalid argument, '{}' can't be used for '{DELAYED_TYPE}'",
            ExchangeKind::Delayed.name()
        ))),
        Some(Ok(kind)) => Ok(kind),
        _ => Err(Refusal::OfExchangeType(format!(
            "Invalid argument, '{DELAYED_TYPE}' must be an existing exchange type"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A payload with a content type before the headers and a delivery mode behind them.
    fn header(fields: &[(&str, Value<'_>)]) -> Vec<u8> {
        let table = fields.iter().fold(TableBuilder::default(), |table, (name, value)| table.with(name, *value));
        let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0b1011_0000, 0, 1, b't'];
        header.extend((table.octets().len() as u32).to_be_bytes());
        header.extend(table.octets());
        header.push(2);
        header
    }

    fn delay(value: Value<'_>) -> Option<u64> {
        delay_ms(&header(&[("a", Value::Int8(1)), ("x-delay", value)]))
    }

    #[test]
    fn delays_are_integers_digits_or_cut_floats_within_bounds() {
        for (value, ms) in [
            (Value::Int32(5000), 5000),
            (Value::UInt8(1), 1),
            (Value::Int64(4_294_967_295), 4_294_967_295),
            (Value::LongString(b"250"), 250),
            (Value::LongString(b"+250"), 250),
            (Value::Double(1.9), 1),
            (Value::Float(2.5), 2),
        ] {
            assert_eq!(delay(value), Some(ms), "{value:?}");
        }
        for value in [
            Value::Int32(0),
            Value::Int32(-5),
            Value::Int64(4_294_967_296),
            Value::LongString(b"1.5"),
            Value::LongString(b" 1"),
            Value::LongString(b""),
            Value::LongString(&[b'9'; 60]),
            Value::Double(0.9),
            Value::Double(f64::NAN),
            Value::Double(f64::INFINITY),
            Value::Bool(true),
            Value::Timestamp(5),
            Value::Void,
        ] {
            assert_eq!(delay(value), None, "{value:?}");
        }
        assert_eq!(delay_ms(&header(&[])), None);
        assert_eq!(delay_ms(&[0; 14]), None);
    }

    #[test]
    fn a_delay_that_is_over_is_negative_and_all_else_as_it_was() {
        for (before, after) in [
            (Value::Int8(5), Value::Int8(-5)),
            (Value::Int16(5), Value::Int16(-5)),
            (Value::Int32(5), Value::Int32(-5)),
            (Value::Int64(5), Value::Int64(-5)),
            (Value::UInt8(200), Value::Int32(-200)),
            (Value::UInt32(4_000_000_000), Value::Int64(-4_000_000_000)),
            (Value::LongString(b"250"), Value::Int32(-250)),
            (Value::Double(1.9), Value::Int32(-1)),
        ] {
            let (first, last) = (("a", Value::LongString(b"x")), ("z", Value::Void));
            let changed = with_delay_over(&header(&[first, ("x-delay", before), last]));
            let expected = header(&[first, ("x-delay", after), last]);
            assert_eq!(changed, Some(expected.clone()), "{before:?}");
            assert_eq!((delay_ms(&expected), with_delay_over(&expected)), (None, None));
        }
    }

    #[test]
    fn the_type_must_exist_and_be_another_one() {
        let kind = |value| inner_kind(TableBuilder::default().with("x-delayed-type", value).arguments().table());
        assert_eq!(kind(Value::LongString(b"topic")), Ok(ExchangeKind::Topic));
        assert_eq!(kind(Value::LongString(b"x-random")), Ok(ExchangeKind::Random));
        for value in [Value::LongString(b"x-delayed-message"), Value::LongString(b"none"), Value::Int8(1), Value::Void]
        {
            assert_eq!(kind(value).unwrap_err().reply().code, 406, "{value:?}");
        }
        assert!(inner_kind(FieldTable::EMPTY).is_err());
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0b0010_0000, 0, 0, 0, 0, 40, 7];
            header.extend(b"x-delayS\0\0\0\x031");
            header.extend(&octets);
            for payload in [&header, &octets] {
                prop_assert_eq!(delay_ms(payload).is_some(), with_delay_over(payload).is_some());
            }
        }
    }
}
