//! `CC` and `BCC` in any headers: who receives a message never sees `BCC`, its keys are kept, and both readers find the same keys.

use broker_amqp::content;
use broker_core::field_table::{FieldTable, Value};
use broker_core::message::Message;
use broker_core::properties::{self, flag};
use broker_core::topology::{copy_keys_in, has_copy_keys};

const FIXED: [u8; 14] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const NAMES: [&[u8]; 5] = [b"CC", b"BCC", b"BCC", b"cc", b""];

/// The octets are headers, or with a first octet below 128 say what they are made of.
pub fn live(octets: &[u8]) {
    let Some((&choice, octets)) = octets.split_first() else { return };
    let headers = if choice < 128 { made_up(octets) } else { octets.to_vec() };
    let Some(header) = properties::changed(&FIXED, &[(flag::HEADERS, Some(&headers))]) else { return };
    if content::check(&header[12..]).is_none() {
        assert!(FieldTable::parse(&headers).is_err() || headers.is_empty());
        return;
    }
    let keys: Vec<&[u8]> = content::extra_routes(&header[12..]).collect();
    // Where one of the two is no array, the publish is refused.
    let refused = has_copy_keys(&header).is_err();
    assert!(refused || copy_keys_in(&header).eq(keys.iter().copied()));
    let Some(message) = Message::new(b"\x01x\x01k", &header, b"body", false, &mut Vec::new()) else { return };
    let has_hidden =
        FieldTable::parse(&headers).unwrap().lookup(b"BCC").is_some_and(|value| matches!(value, Value::Array(_)));
    if refused {
        return;
    }
    let seen = content::without_bcc(&message);
    assert_eq!(seen.is_some(), has_hidden, "what has a BCC header loses it");
    let Some(seen) = seen else { return };
    let headers = properties::of_header(seen.header(), flag::HEADERS).unwrap_or_default();
    assert!(FieldTable::parse(headers).unwrap().lookup(b"BCC").is_none());
    assert_eq!(seen.routing_key(), message.routing_key());
    let visible: Vec<&[u8]> = content::extra_routes(&seen.header()[12..]).collect();
    assert!(keys.starts_with(&visible));
    let hidden = keys[visible.len()..].iter().copied().filter(|key| key.len() <= 255);
    let kept: Vec<&[u8]> = seen.hidden_keys().collect();
    let bytes: usize = keys.iter().map(|key| 1 + key.len()).sum();
    assert!(bytes > content::HIDDEN_MAX_BYTES || hidden.eq(kept.iter().copied()), "{kept:?}");
}

fn made_up(mut octets: &[u8]) -> Vec<u8> {
    let mut next = || {
        let (first, rest) = octets.split_first()?;
        octets = rest;
        Some(*first)
    };
    let mut table = Vec::new();
    while let Some(choice) = next() {
        let name = NAMES[usize::from(choice) % NAMES.len()];
        table.push(name.len() as u8);
        table.extend_from_slice(name);
        let count = usize::from(next().unwrap_or_default() % 6);
        let mut array = Vec::new();
        for _ in 0..count {
            match next().unwrap_or_default() {
                kind @ 0..=40 => array.extend_from_slice(&[b't', kind & 1]),
                long @ 41..=60 => text(&vec![b'k'; usize::from(long) * 8], &mut array),
                short => text(&[short], &mut array),
            }
        }
        match choice {
            0..=200 => block(b'A', &array, &mut table),
            201..=220 => block(b'S', &array, &mut table),
            _ => table.extend_from_slice(b"V"),
        }
    }
    table
}

fn text(octets: &[u8], out: &mut Vec<u8>) {
    block(b'S', octets, out);
}

fn block(kind: u8, octets: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(octets.len() as u32).to_be_bytes());
    out.extend_from_slice(octets);
}
