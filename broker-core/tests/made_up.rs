//! Each fuzz target of this crate on octets made up at random.
#![allow(missing_docs)]

mod fuzzed;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn letters_are_well_formed_whatever_headers_say(octets in vec(any::<u8>(), 0..300)) {
        fuzzed::letters::live(&octets);
    }

    #[test]
    fn exchanges_match_as_naive_matchers_do(octets in vec(any::<u8>(), 0..600)) {
        fuzzed::matching::live(&octets);
    }

    #[test]
    fn policies_govern_by_priority_and_bound_each_other(octets in vec(any::<u8>(), 0..300)) {
        fuzzed::policies::live(&octets);
    }
}
