//! Handshakes and gossip, as the fuzz targets of that name have them, on octets made up at random.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod fuzzed;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_handshake_believes_only_what_was_said(octets in vec(any::<u8>(), 0..300)) {
        fuzzed::handshakes::live(&octets);
    }

    #[test]
    fn gossip_lives_with_whatever_members_say(octets in vec(any::<u8>(), 0..600)) {
        fuzzed::gossip::live(&octets);
    }
}
