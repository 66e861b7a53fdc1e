//! Each fuzz target of this crate on octets made up at random.
#![allow(missing_docs, clippy::unwrap_used)]

mod fuzzed;

use proptest::collection::vec;
use proptest::prelude::*;

/// Found by fuzzing.
#[test]
fn a_first_user_without_tags_is_printed_as_one() {
    let directory = tempfile::tempdir().unwrap();
    fuzzed::configuration::live(directory.path(), b"\xffdefault_user_tags.x = false\n");
}

proptest! {
    #[test]
    fn configurations_load_or_say_where_they_are_wrong(octets in vec(any::<u8>(), 0..64)) {
        let directory = tempfile::tempdir().unwrap();
        fuzzed::configuration::live(directory.path(), &octets);
    }

    #[test]
    fn names_in_certificates_are_printable(octets in vec(any::<u8>(), 0..48)) {
        fuzzed::certificates::live(&octets);
    }

    #[test]
    fn requests_are_refused_or_carried_out(octets in vec(any::<u8>(), 0..200)) {
        fuzzed::requests::live(&octets);
    }
}
