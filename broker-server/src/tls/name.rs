//! Names in certificates as text, formed as RabbitMQ forms them: users are called by them.

use std::net::IpAddr;

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, Oid};
use x509_parser::prelude::{GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

use crate::config::tls::{AlternativeName, LoginFrom};

/// Types of a name's parts that have a short name, by their number's text; others are called by their number.
const TYPES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
];

/// The user's name in a certificate.
pub fn login(certificate: &X509Certificate<'_>, from: LoginFrom) -> Option<String> {
    match from {
        LoginFrom::DistinguishedName => Some(distinguished(certificate.subject())),
        LoginFrom::CommonName => common(certificate.subject()),
        LoginFrom::AlternativeName(kind, index) => alternative(certificate, kind, index),
    }
}

/// A name as RFC 4514 writes it: the last part first, what means something escaped, and what is not printable ASCII as its UTF-8 octets.
pub fn distinguished(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let types =
                part.iter().map(|one| format!("{}={}", kind(one.attr_type()), escaped(&utf8(one.attr_value()))));
            types.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// All common names, joined by commas, without escapes.
fn common(name: &X509Name<'_>) -> Option<String> {
    let names = name.iter_attributes().filter(|one| *one.attr_type() == OID_X509_COMMON_NAME);
    let names: Vec<Vec<u8>> = names.map(|one| utf8(one.attr_value())).collect();
    if names.is_empty() { None } else { String::from_utf8(names.join(&b","[..])).ok() }
}

fn alternative(certificate: &X509Certificate<'_>, kind: AlternativeName, index: usize) -> Option<String> {
    let extension = certificate.subject_alternative_name().ok().flatten()?;
    let names = extension.value.general_names.iter();
    names.filter_map(|name| text_of(name, kind)).nth(index)
}

/// The text of an alternative name, if it is of this kind.
fn text_of(name: &GeneralName<'_>, kind: AlternativeName) -> Option<String> {
    match (kind, name) {
        (AlternativeName::Dns, GeneralName::DNSName(name))
        | (AlternativeName::Email, GeneralName::RFC822Name(name))
        | (AlternativeName::Uri, GeneralName::URI(name)) => Some((*name).to_owned()),
        (AlternativeName::Ip, GeneralName::IPAddress(octets)) => Some(address(octets)?.to_string()),
        (AlternativeName::Other, GeneralName::OtherName(_, octets)) => {
            let (_, wrapper) = Any::from_der(octets).ok()?;
            let inner = if wrapper.header.is_constructed() { Any::from_der(wrapper.data).ok()?.1 } else { wrapper };
            String::from_utf8(utf8(&inner)).ok()
        }
        _ => None,
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn kind(kind: &Oid<'_>) -> String {
    let number = kind.to_id_string();
    TYPES.iter().find(|(other, _)| *other == number).map_or(number, |(_, name)| (*name).to_owned())
}

/// A text's octets in UTF-8, which most kinds of text are already.
fn utf8(value: &Any<'_>) -> Vec<u8> {
    let octets: &[u8] = value.data;
    let of = |units: &mut dyn Iterator<Item = u32>| {
        units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
    };
    match value.tag() {
        Tag::TeletexString => of(&mut octets.iter().map(|octet| u32::from(*octet))),
        Tag::UniversalString => {
            of(&mut octets.chunks_exact(4).map(|four| four.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet))))
        }
        Tag::BmpString => {
            let units = octets.chunks_exact(2).map(|two| two.iter().fold(0, |sum, octet| sum << 8 | u16::from(*octet)));
            char::decode_utf16(units)
                .map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect::<String>()
                .into_bytes()
        }
        _ => octets.to_vec(),
    }
}

/// As RFC 4514 asks, and besides all that is not printable ASCII; RabbitMQ counts the tilde among that.
fn escaped(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        let (first, last) = (at == 0, at + 1 == octets.len());
        match *octet {
            b' ' if first || last => text.push_str("\\ "),
            b'#' if first => text.push_str("\\#"),
            special @ (b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\') => text.extend(['\\', char::from(special)]),
            plain @ b' '..=b'}' => text.push(char::from(plain)),
            other => text.push_str(&format!("\\{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn names_are_those_of_rabbitmq() {
        let lines: Vec<&str> = include_str!("names.txt").lines().skip(2).collect();
        let cases: Vec<_> = lines.split(|line| line.is_empty()).filter(|case| !case.is_empty()).collect();
        assert!(cases.len() >= 18);
        for case in cases {
            let der = octets(case[0]);
            let (_, name) = X509Name::from_der(&der).unwrap();
            assert_eq!(distinguished(&name), case[1].trim_matches('-'));
            assert_eq!(common(&name).unwrap_or("-".into()), case[2].replace("\\t", "\t"));
        }
    }

    /// Of RabbitMQ, but for the address, which it gives as four octets.
    #[test]
    fn alternative_names_are_found_by_kind_and_number() {
        let der = octets(include_str!("alternative_names.txt").lines().nth(1).unwrap());
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let name = |kind, index| login(&certificate, LoginFrom::AlternativeName(kind, index));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(name(AlternativeName::Dns, 0), some("localhost"));
        assert_eq!(name(AlternativeName::Dns, 1), some("other.example"));
        assert_eq!(name(AlternativeName::Dns, 2), None);
        assert_eq!(name(AlternativeName::Ip, 0), some("127.0.0.1"));
        assert_eq!(name(AlternativeName::Email, 0), some("joe@example.org"));
        assert_eq!(name(AlternativeName::Uri, 0), some("spiffe://x/y"));
        assert_eq!(name(AlternativeName::Other, 0), some("strange"));
        assert_eq!(name(AlternativeName::Other, 1), None);
    }
}
