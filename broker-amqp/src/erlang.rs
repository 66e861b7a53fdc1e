//! Binaries as Erlang prints them, because some of RabbitMQ's reply texts quote what the client sent.

use std::fmt::Write;

/// `~w`: always the numbers of the octets, `<<1,2,3>>`.
pub(crate) fn plain(octets: &[u8]) -> String {
    let mut text = String::from("<<");
    for (at, octet) in octets.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{octet}");
    }
    text.push_str(">>");
    text
}

/// `~p`: as a string if all octets are printable Latin-1, else as numbers.
pub(crate) fn pretty(octets: &[u8]) -> String {
    let printable = |&octet: &u8| matches!(octet, 8..=13 | 27 | 32..=126 | 160..=255);
    if octets.is_empty() || !octets.iter().all(printable) {
        return plain(octets);
    }
    let mut text = String::from("<<\"");
    for &octet in octets {
        match octet {
            8 => text.push_str("\\b"),
            9 => text.push_str("\\t"),
            10 => text.push_str("\\n"),
            11 => text.push_str("\\v"),
            12 => text.push_str("\\f"),
            13 => text.push_str("\\r"),
            27 => text.push_str("\\e"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            other => text.push(char::from(other)),
        }
    }
    text.push_str("\">>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_look_as_in_erlang() {
        assert_eq!(plain(b"a\x00"), "<<97,0>>");
        assert_eq!(pretty(b"a\"b"), "<<\"a\\\"b\">>");
        assert_eq!(pretty(b"a\x00"), "<<97,0>>");
        assert_eq!(pretty(b""), "<<>>");
    }
}
