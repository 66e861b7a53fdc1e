//! Words of a scenario line, and octets as readable text and back.

use crate::Error;

/// Splits a line at spaces that stand outside quotes, braces and brackets.
pub fn words(line: &str) -> Result<Vec<&str>, Error> {
    let mut words = Vec::new();
    let mut start = None;
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_usize);
    for (place, letter) in line.char_indices() {
        if letter == ' ' && !quoted && depth == 0 {
            if let Some(start) = start.take() {
                words.push(line.get(start..place).unwrap_or_default());
            }
            continue;
        }
        start.get_or_insert(place);
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if quoted || depth > 0 {
        return Err(Error::new(format!("a quote or bracket stays open in: {line}")));
    }
    words.extend(start.and_then(|start| line.get(start..)));
    Ok(words)
}

/// Octets as a bare word where that is possible, else in quotes with escapes. What is not UTF-8 becomes `\xNN`.
pub fn show(octets: &[u8]) -> String {
    let bare = |octet: &u8| octet.is_ascii_alphanumeric() || b"._-/#*".contains(octet);
    if !octets.is_empty() && octets.iter().all(bare) {
        return String::from_utf8_lossy(octets).into_owned();
    }
    let mut shown = String::from("\"");
    for chunk in octets.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => shown.extend(['\\', letter]),
                _ if letter.is_control() => letter.to_string().bytes().for_each(|octet| push_hex(&mut shown, octet)),
                _ => shown.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|&octet| push_hex(&mut shown, octet));
    }
    shown.push('"');
    shown
}

/// The octets of a bare or quoted word: `\xNN`, `\\` and `\"` inside quotes; `*N` is a pattern of N octets and
/// `"x"*N` the string N times.
pub fn octets(word: &str) -> Result<Vec<u8>, Error> {
    if let Some(size) = word.strip_prefix('*').and_then(|size| size.parse::<usize>().ok()) {
        return Ok(pattern(size));
    }
    let Some(inner) = word.strip_prefix('"') else { return Ok(word.as_bytes().to_vec()) };
    if let Some((string, times)) = inner.rsplit_once("\"*") {
        let times: usize = times.parse().map_err(|_| Error::new(format!("not a number of times: {word}")))?;
        return Ok(unescape(string)?.repeat(times));
    }
    unescape(inner.strip_suffix('"').ok_or_else(|| Error::new(format!("no closing quote: {word}")))?)
}

/// A body that shows where it was damaged: octet i is i modulo 251, a prime beside every buffer size.
pub fn pattern(size: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(size).collect()
}

/// Octets written as pairs of hexadecimal digits; spaces and underscores between them are for the reader.
pub fn hex(digits: &str) -> Result<Vec<u8>, Error> {
    let wrong = || Error::new(format!("not hexadecimal: {digits}"));
    let digits: Vec<char> = digits.chars().filter(|letter| !matches!(letter, ' ' | '_')).collect();
    let pair = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).map_err(|_| wrong());
    if digits.len() % 2 == 1 { Err(wrong()) } else { digits.chunks(2).map(pair).collect() }
}

fn push_hex(shown: &mut String, octet: u8) {
    shown.push_str(&format!("\\x{octet:02x}"));
}

fn unescape(string: &str) -> Result<Vec<u8>, Error> {
    let mut octets = Vec::new();
    let mut letters = string.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('x') => octets.extend(hex(&letters.by_ref().take(2).collect::<String>())?),
                Some(escaped @ ('"' | '\\')) => octets.push(if escaped == '"' { b'"' } else { b'\\' }),
                _ => return Err(Error::new(format!("unknown escape in {string}"))),
            },
            _ => octets.extend(letter.to_string().bytes()),
        }
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn words_keep_quotes_and_brackets_whole() {
        let line = r#"a1 basic.publish body="a b \" c" headers={x:S "}", y:A [I 1, I 2]} z"#;
        let expected = ["a1", "basic.publish", r#"body="a b \" c""#, r#"headers={x:S "}", y:A [I 1, I 2]}"#, "z"];
        assert_eq!(words(line).unwrap(), expected);
        assert!(words("a \"b").is_err());
    }

    #[test]
    fn octets_come_back_from_their_text() {
        for sample in [&b"plain"[..], b"", b"with space", b"\x00\xff\"\\", "gr\u{fc}n \u{85}".as_bytes()] {
            assert_eq!(octets(&show(sample)).unwrap(), sample);
        }
        assert_eq!(octets("\"ab\"*3").unwrap(), b"ababab");
        assert_eq!(octets("*252").unwrap().last(), Some(&0));
    }
}
