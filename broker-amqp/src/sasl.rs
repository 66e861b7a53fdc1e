//! SASL responses: who the client says it is.

use crate::output::Login;
use crate::table;

/// The mechanism of those whom their certificate names. What the client says does not count.
pub const EXTERNAL: &str = "EXTERNAL";

/// Whether a mechanism of that name exists in RabbitMQ, offered or not.
pub(crate) fn exists(mechanism: &str) -> bool {
    ["PLAIN", "AMQPLAIN", "RABBIT-CR-DEMO", EXTERNAL].contains(&mechanism)
}

/// User and password of a mechanism's response, or `None` if it is malformed.
pub(crate) fn parse(mechanism: &str, response: &[u8]) -> Option<Login> {
    let (user, password) = match mechanism {
        "PLAIN" => plain(response)?,
        "AMQPLAIN" => amqplain(response)?,
        EXTERNAL => (&[][..], &[][..]),
        _ => return None,
    };
    let user = std::str::from_utf8(user).ok()?;
    Some(Login { mechanism: mechanism.into(), user: user.into(), password: password.into() })
}

/// `\0user\0password`: as RabbitMQ, without an authorization identity before it.
fn plain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = response.strip_prefix(&[0])?.splitn(2, |&octet| octet == 0);
    let (user, password) = (parts.next()?, parts.next()?);
    (!password.contains(&0)).then_some((user, password))
}

/// A field table's content with `LOGIN` and `PASSWORD`.
fn amqplain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    if !table::is_well_formed(response) {
        return None;
    }
    let field = |name| table::content_of(table::lookup(response, name)?, b'S');
    Some((field(b"LOGIN")?, field(b"PASSWORD")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read() {
        let login = parse("PLAIN", b"\0guest\0secret").unwrap();
        assert_eq!((&*login.user, &*login.password), ("guest", &b"secret"[..]));
        let login = parse("AMQPLAIN", b"\x05LOGINS\0\0\0\x01u\x08PASSWORDS\0\0\0\x01p").unwrap();
        assert_eq!((&*login.user, &*login.password), ("u", &b"p"[..]));
    }

    #[test]
    fn what_a_client_with_a_certificate_says_does_not_count() {
        for response in [&b""[..], b"admin", b"\0guest\0guest", b"\xff"] {
            let login = parse(EXTERNAL, response).unwrap();
            assert_eq!((&*login.mechanism, &*login.user, &*login.password), (EXTERNAL, "", &b""[..]));
        }
    }

    #[test]
    fn malformed_responses_are_refused() {
        for response in [&b""[..], b"guest\0guest", b"\0guest", b"\0a\0b\0c", b"\0\xff\0x"] {
            assert_eq!(parse("PLAIN", response), None, "{response:?}");
        }
        assert_eq!(parse("AMQPLAIN", b"\x05LOGINS\0\0\0\x01u"), None);
        assert_eq!(parse("ANONYMOUS", b""), None);
    }
}
