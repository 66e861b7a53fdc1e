//! Logins, copies and links, as the fuzz targets of that name have them, on octets made up at random.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod client;
mod fuzzed;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_login_says_what_the_response_says(octets in vec(any::<u8>(), 0..200)) {
        fuzzed::logins::live(&octets);
    }

    #[test]
    fn hidden_copies_are_kept_and_never_seen(octets in vec(any::<u8>(), 0..100)) {
        fuzzed::copies::live(&octets);
    }

    #[test]
    fn what_a_link_understands_can_be_said_again(octets in vec(any::<u8>(), 0..400)) {
        fuzzed::links::live(&octets);
    }
}
