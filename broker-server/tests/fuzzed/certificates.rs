//! Certificates of clients as octets, most often one that a client could have, changed here and there: names come out as text or not at all.

use broker_server::config::tls::{AlternativeName, LoginFrom};
use broker_server::tls::PeerCertificate;

/// A certificate with several names of each kind.
const RECORDED: &str = include_str!("../../src/tls/alternative_names.txt");
/// The first octet that stands for a certificate that is the others as they are.
const RAW: u8 = 255;
const KINDS: [AlternativeName; 5] =
    [AlternativeName::Dns, AlternativeName::Ip, AlternativeName::Email, AlternativeName::Uri, AlternativeName::Other];

/// Reads a certificate in every way a user can be named by it.
pub fn live(octets: &[u8]) {
    let certificate = match octets.split_first() {
        Some((&RAW, rest)) => rest.to_vec(),
        _ => changed(octets),
    };
    let alternatives =
        KINDS.into_iter().flat_map(|kind| [0, 1, usize::MAX].map(|at| LoginFrom::AlternativeName(kind, at)));
    for from in [LoginFrom::DistinguishedName, LoginFrom::CommonName].into_iter().chain(alternatives) {
        let Some(peer) = PeerCertificate::of(&certificate, from) else { return };
        // What goes to the log and is looked up as a user is printable ASCII.
        for name in [&peer.subject, &peer.issuer] {
            assert!(name.bytes().all(|octet| (b' '..b'~').contains(&octet)), "{name}");
        }
        if from == LoginFrom::DistinguishedName {
            assert_eq!(peer.user.as_ref(), Some(&peer.subject));
        }
    }
}

/// The recorded certificate with up to sixteen octets changed.
fn changed(octets: &[u8]) -> Vec<u8> {
    let hex = RECORDED.lines().nth(1).unwrap();
    let mut certificate: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    for order in octets.chunks_exact(3).take(16) {
        let at = usize::from(u16::from_be_bytes([order[0], order[1]])) % certificate.len();
        certificate[at] = order[2];
    }
    certificate
}
