//! SASL responses: a login comes out, or the connection is refused; what comes out is what a plain reading of the response says.

use std::time::Instant;

use broker_amqp::{Connection, Output};

use crate::client;

/// The first octet chooses the mechanism and how much of the response is made up; the others are the response or its parts.
pub fn live(octets: &[u8]) {
    let Some((&choice, octets)) = octets.split_first() else { return };
    let mechanism = ["PLAIN", "AMQPLAIN", "EXTERNAL", "RABBIT-CR-DEMO", "NONE"][usize::from(choice) % 5];
    let response = if choice < 128 { octets.to_vec() } else { made_up(mechanism, octets) };
    let now = Instant::now();
    let mut connection = Connection::new(now, client::settings(), 1);
    let mut out = Vec::new();
    connection.receive(now, b"AMQP\0\0\x09\x01", &mut out);
    connection.receive(now, &client::start_ok(&[], mechanism, &response), &mut out);
    let login = out.iter().find_map(|output| match output {
        Output::Login(login) => Some((&*login.mechanism, &*login.user, &*login.password)),
        _ => None,
    });
    match mechanism {
        "PLAIN" => assert_eq!(login.map(|(_, user, password)| (user, password)), plain(&response)),
        "AMQPLAIN" if login.is_none() && choice >= 128 && std::str::from_utf8(parts(octets).0).is_ok() => {
            panic!("a response that says all was refused")
        }
        // Nothing a client says names the user whom its certificate names.
        "EXTERNAL" => assert!(login.is_none_or(|(_, user, password)| user.is_empty() && password.is_empty())),
        "AMQPLAIN" => {}
        _ => assert_eq!(login, None),
    }
    assert!(login.is_none_or(|(said, ..)| said == mechanism));
}

fn made_up(mechanism: &str, octets: &[u8]) -> Vec<u8> {
    let (user, password) = parts(octets);
    if mechanism != "AMQPLAIN" {
        return [&b"\0"[..], user, b"\0", password].concat();
    }
    let text = |octets: &[u8]| [&b"S"[..], &(octets.len() as u32).to_be_bytes(), octets].concat();
    [&b"\x05LOGIN"[..], &text(user), b"\x08PASSWORD", &text(password)].concat()
}

fn parts(octets: &[u8]) -> (&[u8], &[u8]) {
    octets.split_at(octets.len() / 2)
}

fn plain(response: &[u8]) -> Option<(&str, &[u8])> {
    let parts: Vec<&[u8]> = response.split(|octet| *octet == 0).collect();
    match parts[..] {
        [[], user, password] => Some((std::str::from_utf8(user).ok()?, password)),
        _ => None,
    }
}
